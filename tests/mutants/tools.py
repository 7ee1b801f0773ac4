"""Ways to break a derivation: rewrite an operator of the derived system, or some text of the generated module."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from seqdsl.ir import build
from seqdsl.ir.node import Node, rebuild
from seqdsl.ir.ops import make
from seqdsl.ir.system import System

Break = Callable[[System], System]
Edit = Callable[[str], str]


@dataclass(frozen=True)
class Mutant:
    """One mistake that a compiler could make, and the mixer and form that show it."""

    name: str
    mixer: str
    form: str
    system: Break | None = None
    text: Edit | None = None


def nodes(op: str, change: Callable[[Node], Node]) -> Break:
    """Every node of this operator, changed."""

    def broken(system: System) -> System:
        changed = []
        for tensor in system.derived():
            rhs = tensor.rhs and rebuild(tensor.rhs, lambda n: change(n) if n.op == op else None)
            if rhs is not tensor.rhs:
                changed.append(replace(tensor, rhs=rhs))
        assert changed, f"nothing to break: no `{op}` in the derived system"
        return system.with_tensors(*changed)

    return broken


def argument(op: str, place: int, change: Callable[[Node], Node]) -> Break:
    """One argument of every node of this operator, changed."""
    return nodes(op, lambda n: make(n.op, *(change(a) if k == place else a for k, a in enumerate(n.args)), attr=n.attr))


def argument_of(op: str, place: int, change: Callable[[Node], Node]) -> Callable[[Node], Node]:
    """A node with one argument of every node of an operator below it changed."""

    def changed(n: Node) -> Node | None:
        if n.op != op:
            return None
        return make(n.op, *(change(a) if k == place else a for k, a in enumerate(n.args)), attr=n.attr)

    return lambda node: rebuild(node, changed)


def option(op: str, name: str, value: object) -> Break:
    """One option of every node of this operator, changed."""

    def change(n: Node) -> Node:
        free, rows, options = n.attr
        return make(n.op, *n.args, attr=(free, rows, tuple((k, value if k == name else v) for k, v in options)))

    return nodes(op, change)


def swapped(op: str, i: int, j: int) -> Break:
    """Two arguments of every node of this operator, exchanged."""

    def change(n: Node) -> Node:
        args = list(n.args)
        args[i], args[j] = args[j], args[i]
        return make(n.op, *args, attr=n.attr)

    return nodes(op, change)


def at(name: str, term: Node) -> Callable[[Node], Node]:
    """The node with another term in place of an index."""
    return lambda n: build.substitute(n, {name: term})


def zero(_: Node) -> Node:
    """Nothing."""
    return build.ZERO


def before(name: str) -> Node:
    """The position before."""
    return build.sub(build.index(name), build.ONE)


def tensor(name: str, change: Callable[[Node], Node]) -> Break:
    """The right side of one tensor, changed."""

    def broken(system: System) -> System:
        own = system.tensors[name]
        assert own.rhs is not None
        return system.with_tensors(replace(own, rhs=change(own.rhs)))

    return broken


def text(*pairs: tuple[str, str]) -> Edit:
    """Pieces of the generated text, replaced."""

    def broken(source: str) -> str:
        for old, new in pairs:
            assert old in source, f"nothing to break: no {old!r} in the text"
            source = source.replace(old, new)
        return source

    return broken

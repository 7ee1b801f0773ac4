"""A recurrence that runs down its axis, as one that runs up: every form then serves it with no code of its own.

Conjugation by time reversal. Each tensor X of the recurrence, and each that reads one at the same step, is computed at
the mirrored position, X.mirror[t] = X[|t| - 1 - t], where the step before lies at t - 1; what is read of the rest is
read at the mirrored position, and what others read of X is read back there. The edge at |t| becomes the edge at -1.
"""

from __future__ import annotations

from dataclasses import replace

from seqdsl.algebra.affine import NoMatch, apart, split, states_and_updates
from seqdsl.ir import build
from seqdsl.ir.dependence import Loop, loop_of
from seqdsl.ir.node import Node, read_names, rebuild
from seqdsl.ir.order import linear
from seqdsl.ir.system import System, Tensor, live

MIRROR = ".mirror"
Moved = dict[str, tuple[int, str]]  # a tensor's position along the axis, and the name of its mirror


def forwards(system: System, loop: Loop) -> tuple[System, Loop]:
    """The system with the recurrence mirrored, and the recurrence in it. Raises `NoMatch` where a term works along the
    axis, or a reader has no position of its own there."""
    members = dict(loop.positions)
    states = {u.state.name for u in states_and_updates(system, loop)}
    outside = [t for t in system.derived() if t.name not in members and t.rhs is not None]
    readers = {
        t.name: _position(system, t, loop.axis) for t in outside if t.rhs is not None and read_names(t.rhs) & states
    }
    placed = {**members, **{n: p for n, p in readers.items() if p is not None}}
    moved = {n: (p, build.numbered(n + MIRROR, system.tensors)) for n, p in placed.items()}
    changed = [_mirrored(system, system.tensors[name], moved) for name in members]
    for name in set(members) - states:  # what a step makes beside the state is read where it was
        changed.append(_back(system.tensors[name], *moved[name]))
    for name, place in readers.items():
        tensor = system.tensors[name]
        assert tensor.rhs is not None
        if place is None:
            changed.append(replace(tensor, rhs=rebuild(tensor.rhs, lambda n: _elsewhere(system, n, moved))))
            continue
        mine, rest = _parts(tensor.rhs, states)
        changed.append(_mirrored(system, replace(tensor, rhs=mine), moved))
        back = _back(tensor, *moved[name])
        assert back.rhs is not None
        changed.append(replace(back, rhs=build.add(back.rhs, rest)))
    result = live(system.with_tensors(*changed))
    mirrors = [moved[n][1] for n in members if n in states and moved[n][1] in result.tensors]
    if not mirrors:
        raise NoMatch("the recurrence runs backwards, and nothing else reads its states")
    return result, loop_of(result, mirrors[0])


def _back(tensor: Tensor, place: int, mirror: str) -> Tensor:
    """X[t] = X.mirror[|t| - 1 - t]."""
    at = [_mirror(build.index(i), i) if k == place else build.index(i) for k, i in enumerate(tensor.indices)]
    return replace(tensor, rhs=build.read(mirror, at, tensor.dtype))


def _position(system: System, tensor: Tensor, axis: str) -> int | None:
    """Where a reader has an index of the axis; None for one that reads fixed positions."""
    found = [k for k, i in enumerate(tensor.indices) if system.axis(i) == axis]
    if len(found) > 1:
        raise NoMatch(f"`{tensor.name}` varies along `{axis}` twice, and the recurrence runs backwards")
    return found[0] if found and not tensor.edges else None


def _parts(rhs: Node, moved: set[str]) -> tuple[Node, Node]:
    """The terms that read what is mirrored, and the rest, which stays where it is."""
    try:
        terms, rest = split(apart(rhs), lambda r: r.attr in moved)
    except NoMatch:
        return rhs, build.ZERO
    found = [build.reduce("sum", t.over, build.mul(t.coefficient, t.read), t.guard) for t in terms]
    return build.total(found), rest


def _mirror(subscript: Node, index: str) -> Node:
    """|t| - 1 - subscript."""
    form = linear(build.sub(build.sub(build.size(index), build.ONE), subscript))
    result = build.ZERO
    for term, factor in sorted(form.items(), key=lambda item: item[0] is None or item[1] < 0):
        if factor.denominator != 1:
            raise NoMatch(f"`{subscript!r}` has no mirrored position")
        part = build.ONE if term is None else term
        amount = build.mul(build.const(abs(int(factor))), part)
        result = build.add(result, amount) if factor > 0 else build.sub(result, amount)
    return result


def _mirrored(system: System, tensor: Tensor, moved: Moved) -> Tensor:
    """X.mirror: the equation at the mirrored position, where the moved tensors are read at theirs."""
    position, mirror = moved[tensor.name]
    index = tensor.indices[position]
    assert tensor.rhs is not None
    at = {index: _mirror(build.index(index), index)}
    if not build.can_substitute(tensor.rhs, at):
        raise NoMatch(f"`{tensor.name}` works along `{index}`, and the recurrence runs backwards")
    rhs = rebuild(build.substitute(tensor.rhs, at), lambda n: _elsewhere(system, n, moved, index))
    edges = tuple(
        replace(e, point=_mirror(e.point, index)) if e.position == position else e for e in tensor.edges
    )
    return replace(tensor, name=mirror, rhs=rhs, edges=edges, comment=f"{tensor.name} from the end")


def _elsewhere(system: System, node: Node, moved: Moved, index: str | None = None) -> Node | None:
    """A read of a moved tensor, as one of its mirror; of any other, with its subscript in linear form."""
    if node.op != "read":
        return None
    name = str(node.attr)
    if name in moved:
        position, mirror = moved[name]
        own = system.tensors[name].indices[position]
        args = [_mirror(a, index or own) if k == position else a for k, a in enumerate(node.args)]
        return build.read(mirror, args, node.dtype)
    if index is None:
        return None
    size = build.size(index)
    back = [_mirror(_mirror(a, index), index) if size in _terms(a) else a for a in node.args]
    return build.read(name, back, node.dtype)


def _terms(node: Node) -> set[Node | None]:
    return set(linear(node)) if node.dtype == "int" else set()

"""Terms that only a state adds: what the start of a recurrence contributes is computed where a state is given.

A convolution form has the outputs of the inputs and, beside them, those of the state that entered: a kernel of its own,
which is 0 without one. Such a term, linear in starts whose base case is 0, is split off its sum and added under
`if state is not None`, with the tensors that nothing else reads. Entry points: `with_state_alone`, `write`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from seqdsl.ir import build
from seqdsl.ir.dependence import Compute, Step
from seqdsl.ir.node import Node
from seqdsl.ir.ops import remake
from seqdsl.ir.system import System, sources_below

from . import expressions, recurrence
from .context import Block, Context, Stored
from .values import BATCH, SUM, permuted, spread

LINEAR = frozenset("neg re im conj".split())


@dataclass(frozen=True)
class Split:
    """An equation as what it is without a state, and what a state adds."""

    rest: Node
    part: Node


def with_state_alone(system: System, steps: Sequence[Step], kept: frozenset[str]) -> tuple[dict[str, Split], frozenset[str]]:
    """The equations that are split, and the tensors that only their second parts read. `kept` are wanted for themselves."""
    zero = {t.name for t in system.derived() if t.kind == "carry" and t.rhs is build.ZERO}
    carries = frozenset(zero)
    alone = [s.tensor for s in steps if isinstance(s, Compute) and s.tensor not in kept]
    for name in alone:
        tensor = system.tensors[name]
        if tensor.kind == "derived" and not tensor.edges and tensor.rhs is not None and _vanishes(tensor.rhs, zero):
            zero.add(name)
    found: dict[str, Split] = {}
    for step in steps if carries else ():
        if isinstance(step, Compute) and step.tensor not in zero:
            tensor = system.tensors[step.tensor]
            split = _split(tensor.rhs, zero) if tensor.kind == "derived" and tensor.rhs is not None else None
            if split is not None and build.ZERO not in (split.rest, split.part):
                found[tensor.name] = split
    waiting = zero - carries
    while True:  # a tensor that anything else reads is computed as ever, and so is what it reads
        readers = [t for t in system.derived() if t.name not in waiting]
        needed = set().union(*(_needs(system, t.name, found) for t in readers)) & waiting
        if not needed:
            break
        waiting -= needed
    return found, frozenset(waiting)


def write(ctx: Context, name: str, split: Split, waiting: frozenset[str]) -> None:
    """The equation without its second part, and that part where there is a state."""
    tensor = ctx.system.tensors[name]
    dims = (BATCH, *tensor.indices)
    recurrence.compute(ctx, replace(tensor, rhs=split.rest))
    place = ctx.places[name]
    assert isinstance(place, Stored)
    value = place.value
    if set(value.dims) != set(dims):
        value = ctx.bind(name, expressions.full(ctx, value, dims, tensor.dtype))
        ctx.places[name] = Stored(value, place.full)
    outer = ctx.block
    outer.add("if state is not None:")
    ctx.block = Block(outer.indent + 1, outer.lines)
    with ctx.apart():
        _write_needed(ctx, split.part, waiting)
        with ctx.equation(tensor):
            part = expressions.convert(ctx, expressions.emit(ctx, split.part), tensor.dtype)
            ctx.block.add(f"{value.text} = {value.text} + {spread(permuted(part, value.dims), value.dims).at(SUM + 1)}")
    ctx.block = outer


def _write_needed(ctx: Context, node: Node, waiting: frozenset[str]) -> None:
    """The tensors that were put off until now, the ones that they read first."""
    for name in sorted(sources_below(ctx.system, node) & waiting):
        if name not in ctx.places:
            rhs = ctx.system.tensors[name].rhs
            assert rhs is not None
            _write_needed(ctx, rhs, waiting)
            recurrence.compute(ctx, ctx.system.tensors[name])


def _needs(system: System, name: str, found: dict[str, Split]) -> set[str]:
    """What a tensor reads whether or not there is a state."""
    tensor = system.tensors[name]
    edges = {e.tensor for e in tensor.edges}
    return edges | sources_below(system, found[name].rest if name in found else tensor.rhs)


def _vanishes(node: Node, zero: set[str]) -> bool:
    """Is it 0 where the tensors `zero` are?"""
    if node.op == "read":
        return node.attr in zero
    if node.op in ("mul", "matrix_taps"):
        return any(_vanishes(a, zero) for a in (node.args if node.op == "mul" else node.args[2:]))
    if node.op in ("add", "sub"):
        return all(_vanishes(a, zero) for a in node.args)
    if node.op in ("sum", "div", *LINEAR):
        return _vanishes(node.args[0], zero)
    return False


def _split(node: Node, zero: set[str]) -> Split:
    """The sum of what is left and what vanishes, products and linear operators opened."""
    if _vanishes(node, zero):
        return Split(build.ZERO, node)
    if node.op in ("add", "sub"):
        join = build.add if node.op == "add" else build.sub
        first, second = (_split(a, zero) for a in node.args)
        return Split(join(first.rest, second.rest), join(first.part, second.part))
    if node.op in LINEAR or node.op == "sum":
        inner = _split(node.args[0], zero)
        if inner.part is not build.ZERO:
            return Split(*(remake(node, (x, *node.args[1:])) for x in (inner.rest, inner.part)))
    if node.op == "mul":
        for here, other in (node.args, node.args[::-1]):
            inner = _split(here, zero)
            if inner.part is not build.ZERO:
                return Split(build.mul(inner.rest, other), build.mul(inner.part, other))
    return Split(node, build.ZERO)

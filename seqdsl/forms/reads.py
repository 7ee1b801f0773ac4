"""What stands around a state that is read through contractions: its reads, taken apart, and its last value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from seqdsl.algebra.affine import NoMatch, Update, uses
from seqdsl.algebra.monomials import factors
from seqdsl.ir import build
from seqdsl.ir.node import Node, rebuild, walk
from seqdsl.ir.ops import make
from seqdsl.ir.system import System, Tensor, reached


def outermost(node: Node, change: Callable[[Node], Node | None]) -> Node:
    """Replace at the outermost nodes that `change` accepts."""
    inside = {a for n in walk(node) if n.op == "sum" for m in n.args for a in walk(m)}
    return rebuild(node, lambda n: change(n) if n not in inside or n.op == "sum" else None)


def query(coefficient: Node, rows: tuple[str, ...], others: tuple[str, ...]) -> tuple[Node, Node]:
    """The weight of a read as what stays in the contraction, and what multiplies its result: in `sum[d] q * S * gate`
    a gate[t,e] on the columns would make every column a head with queries of its own. Numbers stay inside."""
    kept: list[Node] = []
    moved: list[Node] = []
    for factor in factors(coefficient):
        inside = factor.free & {*rows, *others} or not factor.free
        (kept if inside else moved).append(factor)
    if not any(f.free & set(rows) for f in kept):
        return coefficient, build.ONE  # no query: a sum over the rows as they are
    return build.product(kept), build.product(moved)


def is_strict(update: Update, read: Node) -> bool:
    """False for a read of S[t], True for S[t-1]; every other subscript must be the index itself."""
    for position, (index, subscript) in enumerate(zip(update.state.indices, read.args, strict=True)):
        wanted = build.index(index)
        if position == update.position and subscript is build.sub(wanted, build.ONE):
            continue
        if subscript is not wanted:
            raise NoMatch(f"`{read!r}` is neither the state of this step nor that of the last")
    return read.args[update.position] is not build.index(update.time)


def still_read(system: System, name: str) -> bool:
    """Does any other tensor read this one?"""
    return any(t.rhs is not None and t.name != name and uses(t.rhs, {name}) for t in system.tensors.values())


def without_steps(
    system: System, readers: list[Tensor], made: list[Tensor], states: set[str]
) -> tuple[list[Tensor], tuple[str, ...]]:
    """Of the rewritten readers of states those that something needs, and the names of the others: steps on the way from
    a state to the next, which nothing needs once the states are not computed one from another."""
    still = [replace(system.tensors[n], rhs=build.ZERO, edges=()) for n in states]
    trial = replace(
        system.with_tensors(*readers, *made, *still),
        finals={k: v for k, v in system.finals.items() if k not in states},
        record=tuple(e for e in system.record or () if e.tensor not in states),
    )
    kept = reached(trial, (a for c in system.claims for a in c.args)).tensors
    return [r for r in readers if r.name in kept], tuple(r.name for r in readers if r.name not in kept)


def some_positions(system: System, time: str) -> Node:
    """Has this run any positions along the stream? Without one, a state is what it started from."""
    return make("lt", make("first", attr=system.stream, dtype="int"), build.size(time))


def final_name(update: Update) -> str:
    """The name of the tensor that holds a state after the last position."""
    return f"{update.state.name}@final"


def final_tensor(update: Update, node: Node) -> Tensor:
    """The state after the last position, as a tensor over the state's other indices."""
    tensor, position = update.state, update.position
    rest = tensor.indices[:position] + tensor.indices[position + 1 :]
    return Tensor(
        final_name(update), rest, tensor.dtype, "derived", node, comment=f"{tensor.name} after the last position"
    )

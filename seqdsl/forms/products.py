"""Reads that multiply two states, one that runs up and one that runs down: the cotangent of a decay.

In the adjoint of `S[t] = a S[t-1] + ..` the cotangent of a is sum[e] S.bar[t] * S[t-1], a product of two recurrences. With
the second one mirrored (`reversal`) it is sum[e] F[t-1] * G[|t|-2-t], and superposition turns it into sums over the pairs
of a write before t and one after (DERIVATIONS 4.3): `decayed_product`, which no state of the length of the sequence needs
to be kept for. Its other factors, constant along the contracted indices, stay outside.
"""

from __future__ import annotations

from seqdsl.algebra.affine import Diagonal, NoMatch, diagonal, uses
from seqdsl.algebra.monomials import factors
from seqdsl.forms.scan import start_of
from seqdsl.forms.writes import Writes, writes_of
from seqdsl.ir import build
from seqdsl.ir.dependence import Loop, loop_of, recurrences
from seqdsl.ir.node import Node
from seqdsl.ir.ops import make
from seqdsl.ir.order import linear
from seqdsl.ir.system import System


def tensors_beside(system: System, loop: Loop) -> frozenset[str]:
    """The tensors of the other recurrences along the same axis."""
    others = [found for found in recurrences(system) if found.axis == loop.axis]
    names = set(loop.tensors())
    return frozenset(n for found in others if not names & set(found.tensors()) for n in found.tensors())


def product_read(
    system: System,
    state: Diagonal,
    start: Node,
    coefficient: Node,
    indices: tuple[str, ...],
    strict: bool,
    beside: frozenset[str],
) -> Node:
    """`sum[indices] coefficient * S[t-1]`, where the coefficient holds one read of a state `beside` this one."""
    mine = state.update.state
    parts = factors(coefficient)
    found = [f for f in parts if f.op == "read" and f.attr in beside]
    rest = [f for f in parts if f not in found]
    if len(found) != 1 or any(uses(f, set(beside)) for f in rest) or not strict:
        raise NoMatch(f"`{mine.name}` is multiplied by more than one read of another state, or at its own step")
    (read,) = found
    other_loop = loop_of(system, str(read.attr))
    other = next((d for d in diagonal(system, other_loop) if d.update.state.name == read.attr), None)
    if other is None or other_loop.reverse:
        raise NoMatch(f"`{read.attr}` is no state that runs the same way once it is mirrored")
    _facing(state, other, read)
    names = {o: m for o, m in zip(other.update.state.indices, mine.indices, strict=True) if o != m}
    end, carry = start_of(system, other.update, other_loop)
    assert not carry, "a mirrored recurrence has no record"
    rows = tuple(i for i in indices if i in mine.indices)
    result = build.ZERO
    choices: list[tuple[str, ...]] = [*((r,) for r in rows), rows]
    for consumed in choices:  # the decays may not vary along what is contracted; one index is less work than several
        if set(consumed) & (state.decay.free | build.rename(other.decay, names).free):
            continue
        kept = tuple(i for i in indices if i not in consumed)
        outside = build.product(rest)
        if outside.free & set(consumed):
            continue
        first = writes_of(state, start, consumed)
        taken = frozenset(i for _, _, over in first.pairs for i in over)
        second = _renamed(writes_of(other, end, tuple(_back(names, c) for c in consumed), taken), names)
        for k, v, ranks, begin in _started(first):
            for q, p, others, finish in _started(second):
                node = _product(first, second, (k, v, begin), (q, p, finish))
                result = build.add(result, build.reduce("sum", (*ranks, *others), node) if ranks or others else node)
        return build.reduce("sum", kept, build.mul(result, outside)) if kept else build.mul(result, outside)
    raise NoMatch(f"the decay of `{mine.name}` varies along all that the product of two states is summed over")


def _back(names: dict[str, str], index: str) -> str:
    return next((o for o, m in names.items() if m == index), index)


def _facing(state: Diagonal, other: Diagonal, read: Node) -> None:
    """The other state is read at |t| - 2 - t, and at the same entry."""
    time = state.update.time
    wanted = linear(build.sub(build.sub(build.size(time), build.const(2)), build.index(time)))
    own = state.update.state.indices
    for position, subscript in enumerate(read.args):
        if position == other.update.position:
            if linear(subscript) != wanted:
                raise NoMatch(f"`{read!r}` is not the state on the other side of the step")
        elif position >= len(own) or subscript is not build.index(own[position]):
            raise NoMatch(f"`{read!r}` reads another entry than `{state.update.state.name}` does")


def _renamed(writes: Writes, names: dict[str, str]) -> Writes:
    def moved(node: Node) -> Node:
        return build.rename(node, names) if names else node

    return Writes(
        tuple((moved(k), moved(v), over) for k, v, over in writes.pairs),
        moved(writes.decay),
        writes.log,
        moved(writes.start),
        names.get(writes.time, writes.time),
        writes.rows,
    )


def _started(writes: Writes) -> list[tuple[Node, Node, tuple[str, ...], Node]]:
    """The writes, one of them with the state's start: both states are sums over their writes, and each start counts once.
    It stands at none that is summed over ranks."""
    pairs = sorted(writes.pairs, key=lambda pair: bool(pair[2]))
    if writes.start is not build.ZERO and (not pairs or pairs[0][2]):
        pairs.insert(0, (build.ZERO, build.ZERO, ()))
    return [(*pair, build.ZERO if n or pair[2] else writes.start) for n, pair in enumerate(pairs)]


def _product(first: Writes, second: Writes, mine: tuple[Node, Node, Node], others: tuple[Node, Node, Node]) -> Node:
    attr = ((first.time,), first.rows, (("log", first.log), ("log_other", second.log)))
    # `writes_of` calls what varies along the rows left; here the rows are contracted, and come second
    (v, k, begin), (p, q, finish) = mine, others
    return make("decayed_product", k, v, first.decay, begin, q, p, second.decay, finish, attr=attr)

"""Reads of coupled states whose writes are known, and their last values: a block of `block` without the states.

Unroll X[t,p] = sum_m D[t,p,m] X[t-1,m] + sum_n k_n[t,p] v_n[t]. A read sum[p,rows] q X[t] is a sum over earlier writes, each
taken over by the product of the D in between, as in `chunkwise`; `block_read` is that sum.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from seqdsl.algebra.affine import NoMatch, Update, split, uses
from seqdsl.algebra.held import begins, held_name
from seqdsl.algebra.lags import lag_name
from seqdsl.algebra.monomials import Monomial, factors
from seqdsl.forms.indices import along
from seqdsl.forms.reads import final_tensor, is_strict, outermost, query
from seqdsl.ir import build
from seqdsl.ir.node import Node
from seqdsl.ir.ops import bound, make
from seqdsl.ir.state import StateEntry
from seqdsl.ir.system import System, Tensor


@dataclass(frozen=True)
class Block:
    """The parts: `entries[n][m]` is how part n takes part m over, `decay` the same along the indices `part` and `read`
    (logs, if `log`), `known` what is written to each part."""

    updates: list[Update]
    entries: list[list[Node]]
    decay: Node
    log: bool
    start: Node
    part: str
    read: str
    known: list[list[Monomial]]
    carry: list[Tensor]  # what the start is read from

    @property
    def state(self) -> Tensor:
        """The first part: the others have its indices."""
        return self.updates[0].state

    @property
    def time(self) -> str:
        """The index that the parts run along."""
        return self.updates[0].time

    def along_parts(self, values: dict[int, Node]) -> Node:
        """A vector for each part, 0 where none is given."""
        return along(self.part, [values.get(n, build.ZERO) for n in range(len(self.updates))])


@dataclass(frozen=True)
class _Write:
    """`right` times a left vector for each part, summed over rank indices."""

    lefts: dict[int, Node]
    right: Node
    over: tuple[str, ...]


def alone(block: Block, n: int) -> bool:
    """Does a part take none over but itself?"""
    return all(x is build.ZERO for m, x in enumerate(block.entries[n]) if m != n)


def read_out(system: System, block: Block, chunk: int) -> System:
    """Every read of a part as a sum over earlier writes, and the parts after the last position."""
    names = {u.state.name: n for n, u in enumerate(block.updates)}
    readers = [t for t in system.derived() if t.name not in names and t.rhs is not None and uses(t.rhs, set(names))]
    wanted = [n for n in names if n in system.outputs]
    if wanted or not readers:
        raise NoMatch(f"`{wanted[0]}` is wanted entry by entry" if wanted else "nothing reads the states")
    all_rows: set[tuple[str, ...]] = set()

    def change(node: Node) -> Node | None:
        if node.op != "sum" or not uses(node, set(names)) or node.args[1] is not build.TRUE:
            return None
        return _one_read(block, names, node, all_rows, chunk)

    changed = []
    for reader in readers:
        assert reader.rhs is not None
        rhs = outermost(reader.rhs, change)
        if uses(rhs, set(names)):
            raise NoMatch(f"`{reader.name}` reads a state entry by entry, not through a sum over its rows")
        changed.append(replace(reader, rhs=rhs))
    system = with_finals(system.with_tensors(*changed), block, sorted(all_rows)[0], entries_of(system, set(names)))
    return system.with_tensors(drop=tuple(names))


def _one_read(
    block: Block, names: dict[str, int], node: Node, all_rows: set[tuple[str, ...]], chunk: int
) -> Node:
    """`sum[rows, others] q * X[t,p]`, for any of the parts, and what of it reads none."""
    indices = bound(node)
    rows = tuple(i for i in block.state.indices if i in indices and i != block.time)
    others = tuple(i for i in indices if i not in rows)
    if not rows:
        raise NoMatch(f"the sum over {', '.join(indices)} is not over an index of the states")
    terms, rest = split(node.args[0], lambda r: r.attr in names)
    weights: dict[tuple[bool, Node], dict[int, Node]] = {}
    for term in terms:
        if term.over:
            raise NoMatch(f"`{term.read.attr}` is read through nested sums")
        n = names[str(term.read.attr)]
        q, outside = query(term.coefficient, rows, others)
        here = weights.setdefault((is_strict(block.updates[n], term.read), outside), {})
        here[n] = build.add(here.get(n, build.ZERO), q)
    result, writes = build.ZERO, writes_of(block, rows)
    for (strict, outside), values in weights.items():
        _refuse_mixed(block, writes, rows, frozenset().union(*(q.free for q in values.values())))
        read = reads_of(block, block.along_parts(values), writes, block.start, rows, strict=strict, chunk=chunk)
        result = build.add(result, build.mul(read, outside))
    all_rows.add(rows)
    result = build.reduce("sum", others, result) if others else result
    return result if rest is build.ZERO else build.add(result, build.make("sum", rest, build.TRUE, attr=node.attr))


def _refuse_mixed(block: Block, writes: list[_Write], rows: tuple[str, ...], weights: frozenset[str]) -> None:
    """What ties a row to a column has no matrix form, as in `chunkwise`."""
    columns = frozenset(block.state.indices) - {*rows, block.time} - weights
    for name, node in [("decay", block.decay), *(("write", k) for w in writes for k in w.lefts.values())]:
        for factor in factors(node) if name == "write" else [node]:
            if factor.free & columns and factor.free & frozenset(rows):
                raise NoMatch(f"the {name} varies along rows and columns at once")


def writes_of(block: Block, rows: tuple[str, ...]) -> list[_Write]:
    """The known writes, those joined that differ in their left vectors only. What mentions a column stands right, and
    everything else left: a column is an index of the state that no vector along the rows has, and no decay."""
    lines = [(n, *monomial) for n, written in enumerate(block.known) for monomial in written]
    vectors = [f for _, parts, _ in lines for f in parts if f.free & frozenset(rows)]
    taken = frozenset().union(*(f.free for f in vectors), block.decay.free)
    columns = frozenset(block.state.indices) - {*rows, block.time} - taken
    found: dict[object, _Write] = {}
    for n, parts, over in lines:
        right = [f for f in parts if f.free & columns]
        key = (frozenset(Counter(right).items()), over)
        write = found.setdefault(key, _Write({}, build.product(right), over))
        left = build.product(f for f in parts if not f.free & columns)
        write.lefts[n] = build.add(write.lefts.get(n, build.ZERO), left)
    return list(found.values())


def _superposed(
    block: Block, writes: list[_Write], start: Node, one: Callable[[Node, Node, Node], Node]
) -> Node:
    """The sum of `one(k, v, start)` over the writes; the starting state goes with the first that sums no ranks."""
    if all(w.over for w in writes):
        writes = [_Write({}, build.ZERO, ()), *writes] if start is not build.ZERO or not writes else writes
    result = build.ZERO
    for write in sorted(writes, key=lambda w: bool(w.over)):
        node = one(block.along_parts(write.lefts), write.right, build.ZERO if write.over else start)
        start = start if write.over else build.ZERO
        result = build.add(result, build.reduce("sum", write.over, node))
    return result


def reads_of(
    block: Block, q: Node, writes: list[_Write], start: Node, rows: tuple[str, ...], *, strict: bool, chunk: int
) -> Node:
    """The weights q of all parts applied to what the writes, and the start, have left of them."""
    attr = (
        (block.time,),
        (block.part, block.read, *rows),
        (("chunk", chunk), ("log", block.log), ("strict", strict)),
    )
    return _superposed(
        block, writes, start, lambda k, v, begin: make("block_read", q, k, v, block.decay, begin, attr=attr)
    )


def entries_of(system: System, names: set[str]) -> list[StateEntry]:
    """What the state record keeps of the parts."""
    return [e for e in system.record or () if e.tensor in names]


def with_finals(system: System, block: Block, rows: tuple[str, ...], entries: list[StateEntry]) -> System:
    """What the state record keeps of the parts: their values after the last position, from those of the whole block."""
    if not entries:
        return system
    attr = ((block.time, block.read), (block.part, *rows), (("log", block.log),))
    node = _superposed(
        block,
        writes_of(block, rows),
        block.start,
        lambda k, v, begin: make("block_state", k, v, block.decay, begin, attr=attr),
    )
    state = block.state
    rest = tuple(i for i in state.indices if i != block.time)
    comment = "the states after the last position, one after another"
    whole = Tensor(f"{state.name}.parts@final", (block.part, *rest), state.dtype, "derived", node, comment=comment)
    names = {u.state.name: n for n, u in enumerate(block.updates)}

    def last(name: str) -> Node:
        if name not in names:
            raise NoMatch(f"`{name}` is kept, and is none of the states")
        at = [build.const(names[name]), *(build.index(i) for i in rest)]
        return build.read(whole.name, at, whole.dtype)

    finals, made = dict(system.finals), [whole]
    for entry in entries:
        update = block.updates[names[entry.tensor]]
        tensor = replace(final_tensor(update, build.ZERO), name=f"{entry.name}@final")
        own = last(entry.tensor)
        if entry.boundary is not None:
            held = last(held_name(entry.tensor))
            ends = begins(entry.boundary, build.size(block.time))
            tensor = replace(tensor, rhs=held if entry.at_last_point else build.where(ends, own, held))
        elif entry.tail is build.ONE:
            tensor = replace(tensor, rhs=own)
        else:
            past = system.tensors.get(f"{entry.tensor}@past")
            if past is None:
                raise NoMatch(f"`{entry.tensor}` is kept for several steps")
            index = past.indices[update.position]
            length = build.value_of(system.indices[index].size or build.ZERO)
            assert length is not None
            window = [last(lag_name(entry.tensor, back)) for back in reversed(range(int(length)))]
            tensor = replace(tensor, indices=past.indices, rhs=along(index, window))
        finals[entry.name] = tensor.name
        made.append(tensor)
    return replace(system.with_tensors(*made), finals=finals)

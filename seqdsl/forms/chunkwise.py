"""Chunkwise and quadratic forms of entrywise affine recurrences with a decay, derived from the update.

Unroll `S[t] = a[t] S[t-1] + sum_m k_m[t] v_m[t]`:
    S[t] = A(t, -1) S[-1] + sum_{j <= t} A(t, j) sum_m k_m[j] v_m[j],    A(t, j) = product of a over j < l <= t.
Where every use of S is a contraction `sum[rows] q * S`, linear in S, the read moves inside and S is never formed:
    sum[rows] q S[t] = sum[rows] q A(t, -1) S[-1] + sum_{j <= t} (sum[rows] q A(t, j) k_m[j]) v_m[j].
`decayed_read` is that right side; a backend evaluates it chunk by chunk (DERIVATIONS section 2), in one chunk for the
quadratic form. A read of S[t-1] is the same with j < t and the product over j < l < t. A state that is used entry by
entry has no such contraction: its chunkwise form is the scan, which backends evaluate in chunks.

Which factors of a write may stand left (`k`, along the rows) and right (`v`): those that mention rows, and the rest. A
factor along rows and columns at once has no matrix form (DERIVATIONS 2.3), and neither has a decay that mixes them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from seqdsl.algebra.affine import Diagonal, NotAffine, Update, diagonal, factors, monomials, split, uses
from seqdsl.algebra.chain import chained
from seqdsl.algebra.classify import classify
from seqdsl.algebra.held import has_boundaries
from seqdsl.algebra.lags import has_lags
from seqdsl.forms.any_scan import to_any_scan
from seqdsl.forms.chain import without_chain
from seqdsl.forms.feedback import without_feedback
from seqdsl.forms.micro import without_micro_steps
from seqdsl.forms.scan import both, starting_value, to_scan
from seqdsl.ir import build
from seqdsl.ir.dependence import Loop, loop_of
from seqdsl.ir.node import Node, rebuild, walk
from seqdsl.ir.ops import bound, make
from seqdsl.ir.system import System, Tensor, live


def to_chunkwise(system: System, loop: Loop) -> System:
    """Rewrite the reads of each state; states used entry by entry become scans, and so do recurrences over matrices or
    another ring, whose scans are evaluated in chunks. Else `NotAffine`."""
    try:
        return _rewrite(system, loop, chunk=64)
    except NotAffine as reason:
        if classify(system, loop).kind == "low-rank":
            raise  # a scan over matrices as wide as the keys is for those who ask for it
        try:
            return to_any_scan(system, loop)
        except NotAffine as other:
            raise both(reason, other) from None


def to_quadratic(system: System, loop: Loop) -> System:
    """The same with the whole sequence as one chunk; only for states that are read through a contraction."""
    return _rewrite(system, loop, chunk=0)


def _rewrite(system: System, loop: Loop, chunk: int) -> System:
    if loop.reverse:
        if chunk:
            return to_scan(system, loop)
        raise NotAffine("the recurrence runs backwards, and its reads are forward")
    if any(isinstance(s, Loop) for s in loop.body):
        system, name = without_micro_steps(system, loop, chunk)
        return _rewrite(live(system), loop_of(system, name), chunk)
    for further, what in ((has_lags, "several steps back"), (has_boundaries, "where a mini-batch began")):
        if further(system, loop):
            raise NotAffine(f"the state is read {what}, which couples it with another: the scan over matrices has it")
    links = chained(system, loop)
    if links is not None:
        name = links[-1].update.state.name
        system = live(without_chain(system, loop, links, chunk))
        return _rewrite(system, loop_of(system, name), chunk)
    try:
        states = diagonal(system, loop)
    except NotAffine as reason:
        system = _entrywise(system, loop, reason, chunk)
        for name in [n for n in loop.tensors() if n in system.tensors and _carries(system, n)]:
            system = _rewrite(system, loop_of(system, name), chunk)
        return system
    members = set(loop.tensors())
    for state in states:
        try:
            system = _rewrite_state(system, loop, state, members, chunk)
        except NotAffine:
            if chunk == 0:
                raise
            system = _scan_one(system, loop, state)
    return system


def _entrywise(system: System, loop: Loop, reason: NotAffine, chunk: int) -> System:
    """A low-rank recurrence with its inner reads solved for; else the reason why it is not entrywise, and why not."""
    try:
        return live(without_feedback(system, loop, chunk))  # what only the old equation read would still read the state
    except NotAffine as other:
        raise both(reason, other) from None


def _carries(system: System, name: str) -> bool:
    rhs = system.tensors[name].rhs
    return rhs is not None and uses(rhs, {name})


def _scan_one(system: System, loop: Loop, state: Diagonal) -> System:
    start, carry = starting_value(system, state, loop)
    decay = state.decay if state.log_decay is None else state.log_decay
    attr = ((state.update.time,), (), (("log", state.log_decay is not None), ("reverse", loop.reverse)))
    return system.with_tensors(
        replace(state.update.state, rhs=make("affine_scan", decay, state.write, start, attr=attr)), *carry
    )


@dataclass(frozen=True)
class _Writes:
    """The writes of a state, split for one set of rows: (k, v, summed rank indices) each."""

    pairs: tuple[tuple[Node, Node, tuple[str, ...]], ...]
    decay: Node
    log: bool
    start: Node
    time: str
    rows: tuple[str, ...]


def _rewrite_state(system: System, loop: Loop, state: Diagonal, members: set[str], chunk: int) -> System:
    name = state.update.state.name
    if name in system.outputs:
        raise NotAffine(f"`{name}` is an output, and is wanted entry by entry")
    start, carry = starting_value(system, state, loop)
    readers = [t for t in system.derived() if t.name not in members and t.rhs is not None and uses(t.rhs, {name})]
    if not readers:
        raise NotAffine(f"nothing outside the recurrence reads `{name}`")
    changed: list[Tensor] = []
    all_rows: set[tuple[str, ...]] = set()
    for reader in readers:
        rhs = _replace_reads(system, state, start, reader, all_rows, chunk)
        changed.append(replace(reader, rhs=rhs))
    finals = dict(system.finals)
    if system.record is not None and any(e.name == name for e in system.record):
        finals[name] = f"{name}@final"
        changed.append(final_tensor(state.update, _final(_writes(state, start, sorted(all_rows)[0]))))
    result = replace(system.with_tensors(*changed, *carry), finals=finals)
    return result.with_tensors(drop=(name,)) if not _still_read(result, name) else result


def _still_read(system: System, name: str) -> bool:
    return any(t.rhs is not None and t.name != name and uses(t.rhs, {name}) for t in system.tensors.values())


def _replace_reads(
    system: System, state: Diagonal, start: Node, reader: Tensor, all_rows: set[tuple[str, ...]], chunk: int
) -> Node:
    name = state.update.state.name

    def change(node: Node) -> Node | None:
        if node.op != "sum" or not uses(node, {name}) or node.args[1] is not build.TRUE:
            return None
        return _one_read(state, start, node, all_rows, chunk)

    assert reader.rhs is not None
    rhs = _outermost(reader.rhs, change)
    if uses(rhs, {name}):
        raise NotAffine(f"`{reader.name}` reads `{name}` entry by entry, not through a sum over its rows")
    return rhs


def _outermost(node: Node, change: Callable[[Node], Node | None]) -> Node:
    """Replace at the outermost nodes that `change` accepts."""
    inside = {a for n in walk(node) if n.op == "sum" for m in n.args for a in walk(m)}
    return rebuild(node, lambda n: change(n) if n not in inside or n.op == "sum" else None)


def _one_read(state: Diagonal, start: Node, node: Node, all_rows: set[tuple[str, ...]], chunk: int) -> Node:
    """`sum[rows, others] q * S[t]` as decayed reads, one for each write, and the part without the state."""
    update = state.update
    tensor, indices = update.state, bound(node)
    rows = tuple(i for i in tensor.indices if i in indices and i != update.time)
    others = tuple(i for i in indices if i not in rows)
    if not rows:
        raise NotAffine(f"the sum over {', '.join(indices)} is not over an index of `{tensor.name}`")
    terms, rest = split(node.args[0], lambda r: r.attr == tensor.name)
    result = build.ZERO
    writes = _writes(state, start, rows, frozenset(i for n in walk(node) for i in n.free))
    for term in terms:
        if term.over:
            raise NotAffine(f"`{tensor.name}` is read through nested sums")
        q, outside = _query(term.coefficient, rows, others)
        _refuse_mixed(writes, q, tensor, quadratic=chunk == 0)
        strict = _lag(state, term.read)
        result = build.add(result, build.mul(_reads_of(writes, q, strict, chunk), outside))
    all_rows.add(rows)
    result = build.reduce("sum", others, result) if others else result
    return result if rest is build.ZERO else build.add(result, build.make("sum", rest, build.TRUE, attr=node.attr))


def _query(coefficient: Node, rows: tuple[str, ...], others: tuple[str, ...]) -> tuple[Node, Node]:
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


def _refuse_mixed(writes: _Writes, q: Node, tensor: Tensor, *, quadratic: bool) -> None:
    """A factor that ties a row to a column has no matrix form: the pair kernel would be C^2 K V (DERIVATIONS 2.3), and
    neither has such a decay, whose chunks are stepped through instead, the state never kept. A column is an index of
    the state that the read's weight does not carry."""
    rows = frozenset(writes.rows)
    columns = frozenset(tensor.indices) - rows - {writes.time} - q.free
    for k, _, _ in writes.pairs:
        if k.free & columns and k.free & rows:
            raise NotAffine(f"the factor `{k!r}` of the write varies along rows and columns at once")
    if quadratic and writes.decay.free & rows and writes.decay.free & columns:
        listed = ", ".join(sorted(writes.decay.free & (columns | rows)))
        raise NotAffine(f"the decay varies along rows and columns at once ({listed}), and does not separate")


def _lag(state: Diagonal, read: Node) -> bool:
    """False for a read of S[t], True for S[t-1]; every other subscript must be the index itself."""
    update = state.update
    for position, (index, subscript) in enumerate(zip(update.state.indices, read.args, strict=True)):
        wanted = build.index(index)
        if position == update.position and subscript is build.sub(wanted, build.ONE):
            continue
        if subscript is not wanted:
            raise NotAffine(f"`{read!r}` is neither the state of this step nor that of the last")
    return read.args[update.position] is not build.index(update.time)


def _writes(state: Diagonal, start: Node, rows: tuple[str, ...], avoid: frozenset[str] = frozenset()) -> _Writes:
    update = state.update
    row_set = frozenset(rows)
    decay = state.decay if state.log_decay is None else state.log_decay
    pairs = []
    for parts, over in monomials(state.write, avoid):
        left = [f for f in parts if f.free & row_set]
        right = [f for f in parts if not f.free & row_set]
        k = build.product(left)
        pairs.append((k, build.product(right), over))
    return _Writes(tuple(pairs), decay, state.log_decay is not None, start, update.time, rows)


def _reads_of(writes: _Writes, q: Node, strict: bool, chunk: int) -> Node:
    """The sum of decayed reads; the starting state goes into the first that has no rank index."""
    options = (("chunk", chunk), ("log", writes.log), ("strict", strict))
    attr = ((writes.time,), writes.rows, options)
    result, start = build.ZERO, writes.start
    pairs = list(writes.pairs)
    if not pairs or all(over for _, _, over in pairs):
        pairs.insert(0, (build.ZERO, build.ZERO, ()))
    for k, v, over in sorted(pairs, key=lambda p: bool(p[2])):
        begin = build.ZERO if over else start
        node = make("decayed_read", q, k, v, writes.decay, begin, attr=attr)
        if not over:
            start = build.ZERO
        result = build.add(result, build.reduce("sum", over, node) if over else node)
    return result


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


def _final(writes: _Writes) -> Node:
    result, start = build.ZERO, writes.start
    attr = ((writes.time,), writes.rows, (("log", writes.log),))
    pairs = list(writes.pairs)
    if not pairs or all(over for _, _, over in pairs):
        pairs.insert(0, (build.ZERO, build.ZERO, ()))
    for k, v, over in sorted(pairs, key=lambda p: bool(p[2])):
        begin = build.ZERO if over else start
        node = make("decayed_state", k, v, writes.decay, begin, attr=attr)
        if not over:
            start = build.ZERO
        result = build.add(result, build.reduce("sum", over, node) if over else node)
    return result

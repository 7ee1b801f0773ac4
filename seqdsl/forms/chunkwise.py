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

What is not of this shape is brought into it first, each by a rewriting of its own: micro-steps, lags and held states
(`micro`, `algebra.lags`, `algebra.held`), inner reads (`feedback`, `chain`), states that read each other (`block`), and
recurrences that run down (`reversal`). A read that multiplies two states is an operator of its own (`products`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from seqdsl.algebra.affine import Diagonal, NoMatch, Term, diagonal, neither, split, uses
from seqdsl.algebra.auxiliaries import without_auxiliaries
from seqdsl.algebra.cascade import with_followers
from seqdsl.algebra.chain import chained
from seqdsl.algebra.classify import classify
from seqdsl.algebra.held import has_boundaries, with_held
from seqdsl.algebra.lags import has_lags, with_companions
from seqdsl.algebra.monomials import factors, monomials
from seqdsl.forms.any_scan import to_any_scan
from seqdsl.forms.block import coupled, to_blocks
from seqdsl.forms.chain import without_chain
from seqdsl.forms.feedback import without_feedback
from seqdsl.forms.micro import without_micro_steps
from seqdsl.forms.products import product_read, tensors_beside
from seqdsl.forms.reads import final_tensor, is_strict, outermost, query, still_read
from seqdsl.forms.reversal import MIRROR, forwards
from seqdsl.forms.scan import scanned, start_of
from seqdsl.forms.writes import Writes, last_entry, writes_of
from seqdsl.ir import build
from seqdsl.ir.dependence import Loop, loop_again, loop_of, recurrences
from seqdsl.ir.node import Node, walk
from seqdsl.ir.ops import bound, make
from seqdsl.ir.order import linear
from seqdsl.ir.system import System, Tensor, live


def to_chunkwise(system: System, loop: Loop) -> System:
    """Rewrite the reads of each state; states used entry by entry become scans, and so do recurrences over matrices or
    another ring, whose scans are evaluated in chunks. Else `NoMatch`."""
    try:
        return _rewrite(system, loop, chunk=64)
    except NoMatch as reason:
        if classify(system, loop).kind == "low-rank":
            raise  # a scan over matrices as wide as the keys is for those who ask for it
        try:
            return to_any_scan(system, loop)
        except NoMatch as other:
            raise neither(reason, other) from None


def to_quadratic(system: System, loop: Loop) -> System:
    """The same with the whole sequence as one chunk; only for states that are read through a contraction."""
    return _rewrite(system, loop, chunk=0)


def _rewrite(system: System, loop: Loop, chunk: int) -> System:
    if loop.reverse:
        return _reversed(system, loop, chunk)
    if any(isinstance(s, Loop) for s in loop.body):
        system, name = without_micro_steps(system, loop, chunk)
        return _rewrite(live(system), loop_of(system, name), chunk)
    if has_boundaries(system, loop):
        system, loop = with_held(system, loop)
    if has_lags(system, loop):
        system, loop = with_companions(system, loop)
    links = chained(system, loop)
    if links is not None:
        name = links[-1].update.state.name
        system = live(without_chain(system, loop, links, chunk))
        return _rewrite(system, loop_of(system, name), chunk)
    plain = without_auxiliaries(system, loop)
    if plain is not system:
        system = live(plain)
        loop = loop_again(system, loop) or loop
    together = with_followers(system, loop)
    if coupled(system, together):
        return to_blocks(system, together, chunk, _rewrite)
    try:
        states = diagonal(system, loop)
    except NoMatch as reason:
        system = _entrywise(system, loop, reason, chunk)
        for name in [n for n in loop.tensors() if n in system.tensors and _carries(system, n)]:
            system = _rewrite(system, loop_of(system, name), chunk)
        return system
    members = set(loop.tensors())
    for state in states:
        try:
            system = _rewrite_state(system, loop, state, members, chunk)
        except NoMatch:
            if chunk == 0:
                raise
            system = system.with_tensors(*scanned(system, loop, state))
    return system


def _reversed(system: System, loop: Loop, chunk: int) -> System:
    """Mirrored in time; a scan of states that are used entry by entry runs backwards as it stands."""
    try:
        apart = _with_others_apart(system, loop, chunk)
        result = _rewrite(*forwards(apart, loop_again(apart, loop) or loop), chunk)
    except NoMatch:
        if chunk == 0:
            raise
        return to_any_scan(system, loop)
    scanned = any(n.op == "affine_scan" for t in result.derived() if t.rhs is not None and MIRROR in t.name
                  for n in walk(t.rhs))  # fmt: skip
    return to_any_scan(system, loop) if scanned and chunk else result


def _with_others_apart(system: System, loop: Loop, chunk: int) -> System:
    """The other recurrences that this one is multiplied with, entrywise: their inner reads solved for."""
    system = without_auxiliaries(system, loop)
    names = set(loop.tensors())
    readers = [t for t in system.derived() if t.rhs is not None and t.name not in names and uses(t.rhs, names)]
    for other in recurrences(system):
        if other.axis != loop.axis or other.reverse or not any(uses(t.rhs, set(other.tensors())) for t in readers if t.rhs):
            continue
        system = without_auxiliaries(system, other)
        try:
            diagonal(system, other)
        except NoMatch as reason:
            system = _entrywise(system, other, reason, chunk)
    return system


def _entrywise(system: System, loop: Loop, reason: NoMatch, chunk: int) -> System:
    """A low-rank recurrence with its inner reads solved for; else the reason why it is not entrywise, and why not."""
    try:
        return live(without_feedback(system, loop, chunk))  # what only the old equation read would still read the state
    except NoMatch as other:
        raise neither(reason, other) from None


def _carries(system: System, name: str) -> bool:
    rhs = system.tensors[name].rhs
    return rhs is not None and uses(rhs, {name})


def _rewrite_state(system: System, loop: Loop, state: Diagonal, members: set[str], chunk: int) -> System:
    name = state.update.state.name
    if state.update.state.dtype == "int":
        raise NoMatch(f"`{name}` is an integer, which products of chunks would round")
    if name in system.outputs:
        others = [t.path[1] for t in system.tensors.values() if t.kind == "given" and t.path[0] == name]
        by = f"other steps over `{others[0]}` read it" if others else "it is an output"
        raise NoMatch(f"`{name}` is wanted entry by entry: {by}")
    start, carry = start_of(system, state.update, loop)
    readers = [t for t in system.derived() if t.name not in members and t.rhs is not None and uses(t.rhs, {name})]
    if not readers:
        raise NoMatch(f"nothing outside the recurrence reads `{name}`")
    changed: list[Tensor] = []
    all_rows: set[tuple[str, ...]] = set()
    beside = tensors_beside(system, loop)
    for reader in sorted(readers, key=lambda t: _reads_end(state, t)):
        if _reads_end(state, reader):
            end = _final(writes_of(state, start, min(all_rows))) if all_rows else _end_alone(state, start)
            changed.append(replace(reader, rhs=end))
        else:
            rhs = _replace_reads(system, state, start, reader, all_rows, chunk, beside)
            changed.append(replace(reader, rhs=rhs))
    finals = dict(system.finals)
    if system.record is not None and any(e.tensor == name for e in system.record):
        finals[name] = f"{name}@final"
        changed.append(final_tensor(state.update, _final(writes_of(state, start, sorted(all_rows)[0]))))
    result = replace(system.with_tensors(*changed, *carry), finals=finals)
    return result.with_tensors(drop=(name,)) if not still_read(result, name) else result


def _end_alone(state: Diagonal, start: Node) -> Node:
    """The end of a state that nothing else reads. Its rows are an index that one factor of each write carries, where the
    others carry one that it does not, so that the writes are added up as a product of matrices; else, entry by entry."""
    own = [i for i in state.update.state.indices if i != state.update.time]
    for index in sorted(own, key=lambda i: i not in state.decay.free):
        writes = writes_of(state, start, (index,))
        if writes.pairs and all(index in k.free and (v.free & set(own)) - k.free for k, v, _ in writes.pairs):
            return _final(writes)
    return last_entry(state, start)


def _reads_end(state: Diagonal, reader: Tensor) -> bool:
    """Is the reader the state at the last position, entry by entry?"""
    update, rhs = state.update, reader.rhs
    if rhs is None or rhs.op != "read" or rhs.attr != update.state.name:
        return False
    last = linear(build.sub(build.size(update.time), build.ONE))
    rest = [s for k, s in enumerate(rhs.args) if k != update.position]
    own = [build.index(i) for i in update.state.indices if i != update.time]
    return rest == own and linear(rhs.args[update.position]) == last


def _replace_reads(
    system: System,
    state: Diagonal,
    start: Node,
    reader: Tensor,
    all_rows: set[tuple[str, ...]],
    chunk: int,
    beside: frozenset[str],
) -> Node:
    name = state.update.state.name

    def change(node: Node) -> Node | None:
        if node.op != "sum" or not uses(node, {name}) or node.args[1] is not build.TRUE:
            return None
        return _one_read(system, state, start, node, all_rows, chunk, beside)

    assert reader.rhs is not None
    rhs = outermost(reader.rhs, change)
    if uses(rhs, {name}):
        raise NoMatch(f"`{reader.name}` reads `{name}` entry by entry, not through a sum over its rows")
    return rhs


def _one_read(
    system: System,
    state: Diagonal,
    start: Node,
    node: Node,
    all_rows: set[tuple[str, ...]],
    chunk: int,
    beside: frozenset[str],
) -> Node:
    """`sum[rows, others] q * S[t]` as decayed reads, one for each write, and the part without the state."""
    update = state.update
    tensor, indices = update.state, bound(node)
    rows = tuple(i for i in tensor.indices if i in indices and i != update.time)
    others = tuple(i for i in indices if i not in rows)
    if not rows:
        raise NoMatch(f"the sum over {', '.join(indices)} is not over an index of `{tensor.name}`")
    terms, rest = split(node.args[0], lambda r: r.attr == tensor.name)
    result = build.ZERO
    avoid = frozenset(i for n in walk(node) for i in n.free)
    for term in [t for whole in terms for t in _spread(whole, rows)]:
        if term.over:
            raise NoMatch(f"`{tensor.name}` is read through nested sums")
        strict = is_strict(update, term.read)
        if uses(term.coefficient, set(beside)):
            part = product_read(system, state, start, term.coefficient, indices, strict, beside)
            result = build.add(result, part)
            continue
        mine = _narrowed(state, rows, term.coefficient)
        outer = tuple(i for i in indices if i not in mine)
        writes = writes_of(state, start, mine, avoid)
        q, outside = query(term.coefficient, mine, others)
        _refuse_mixed(writes, q, tensor, quadratic=chunk == 0)
        part = build.mul(_reads_of(writes, q, strict, chunk), outside)
        result = build.add(result, build.reduce("sum", outer, part) if outer else part)
        all_rows.add(mine)
    return result if rest is build.ZERO else build.add(result, build.make("sum", rest, build.TRUE, attr=node.attr))


def _spread(term: Term, rows: tuple[str, ...]) -> list[Term]:
    """A read that contracts several indices, its weight a sum of products, as one read for each product."""
    if len(rows) < 2:
        return [term]
    found = monomials(term.coefficient)
    return [term] if any(over for _, over in found) else [replace(term, coefficient=build.product(p)) for p, _ in found]


def _narrowed(state: Diagonal, rows: tuple[str, ...], coefficient: Node) -> tuple[str, ...]:
    """The rows of a read that contracts several indices: one of them, where the weight is a product of one factor along
    each, `sum[d,e] x[e] * k[d] * S`: the sum over the others is that of what the read over the first one gives."""
    if len(rows) < 2 or any(len(f.free & set(rows)) > 1 for f in factors(coefficient)):
        return rows
    decayed = [i for i in rows if i in state.decay.free]
    return tuple((decayed or list(rows))[:1])


def _refuse_mixed(writes: Writes, q: Node, tensor: Tensor, *, quadratic: bool) -> None:
    """A factor that ties a row to a column has no matrix form: the pair kernel would be C^2 K V (DERIVATIONS 2.3), and
    neither has such a decay, whose chunks are stepped through instead, the state never kept. A column is an index of
    the state that the read's weight does not carry."""
    rows = frozenset(writes.rows)
    columns = frozenset(tensor.indices) - rows - {writes.time} - q.free
    for k, _, _ in writes.pairs:
        if k.free & columns and k.free & rows:
            raise NoMatch(f"the factor `{k!r}` of the write varies along rows and columns at once")
    if quadratic and writes.decay.free & rows and writes.decay.free & columns:
        listed = ", ".join(sorted(writes.decay.free & (columns | rows)))
        raise NoMatch(f"the decay varies along rows and columns at once ({listed}), and does not separate")


def _reads_of(writes: Writes, q: Node, strict: bool, chunk: int) -> Node:
    """The sum of decayed reads, one for each write."""
    attr = ((writes.time,), writes.rows, (("chunk", chunk), ("log", writes.log), ("strict", strict)))
    return _superposed(writes, lambda k, v, start: make("decayed_read", q, k, v, writes.decay, start, attr=attr))


def _final(writes: Writes) -> Node:
    """The state after the last position, likewise."""
    attr = ((writes.time,), writes.rows, (("log", writes.log),))
    return _superposed(writes, lambda k, v, start: make("decayed_state", k, v, writes.decay, start, attr=attr))


def _superposed(writes: Writes, one: Callable[[Node, Node, Node], Node]) -> Node:
    """The sum of `one(k, v, start)` over the writes; the starting state goes with the first that has no rank index."""
    result, start, pairs = build.ZERO, writes.start, list(writes.pairs)
    if all(over for _, _, over in pairs):
        pairs.insert(0, (build.ZERO, build.ZERO, ()))
    for k, v, over in sorted(pairs, key=lambda p: bool(p[2])):
        result = build.add(result, build.reduce("sum", over, one(k, v, build.ZERO if over else start)))
        start = start if over else build.ZERO
    return result

"""Micro-steps that are written out, in chunkwise form: the links of the chain are the steps of one `micro_solve`.

As in `micro`, but the micro-steps are equations of their own instead of positions of an axis: the unknowns of link n are
`y[t,n]`, its decay and its vectors stand at n of a made index, and the state is again an entrywise recurrence

    S[t] = (a_1 .. a_N) S[t-1] + sum_n (a_{n+1} .. a_N) u_n y[t,n].

A link without a write has only a decay, which belongs to the next link that has one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from seqdsl.algebra.affine import NoMatch, log_of
from seqdsl.algebra.chain import Link
from seqdsl.algebra.monomials import monomials
from seqdsl.forms.feedback import (
    before_decay,
    contracted_rows,
    feedback_tensor,
    feedbacks,
    own_place,
)
from seqdsl.forms.indices import along, new_index
from seqdsl.forms.micro import Write, writes_of
from seqdsl.forms.scan import start_of
from seqdsl.ir import build
from seqdsl.ir.dependence import Loop
from seqdsl.ir.node import Node
from seqdsl.ir.ops import make
from seqdsl.ir.system import System


@dataclass(frozen=True)
class _Event:
    """A decay, and then the writes; `after` says whether their reads are of the decayed state."""

    decay: Node
    writes: tuple[Write, ...]
    after: bool


def without_chain(system: System, loop: Loop, links: list[Link], chunk: int) -> System:
    """The system with the state as an entrywise recurrence whose writes are known. Raises `NoMatch`."""
    state = links[-1].update.state
    time = links[-1].update.time
    events = _events(system, links)
    rows = {r for r in (_rows_of(link) for link in links) if r}
    if len(rows) > 1:
        raise NoMatch("the micro-steps contract the state over different indices")
    after = all(e.after for e in events)
    start, carry = start_of(system, links[-1].update, loop)
    width = max(len(e.writes) for e in events)
    system, micro = new_index(system, f"{state.name}.micro", len(events))
    system, rank = new_index(system, f"{state.name}.rank", width) if width > 1 else (system, "")
    empty = Write(build.ZERO, build.ZERO, build.ZERO)
    padded = [(*e.writes, *[empty] * (width - len(e.writes))) for e in events]
    columns = [
        along(micro, [along(rank, [getattr(w, part) for w in ws]) for ws in padded])
        for part in ("read", "left", "right")
    ]
    logs = [log_of(e.decay) for e in events]
    log = all(g is not None for g in logs)
    decay = along(micro, [g if log and g is not None else e.decay for g, e in zip(logs, events, strict=True)])
    lead = (time, micro, *([rank] if rank else []))
    options = (("after", after), ("chunk", chunk), ("log", log), ("width", width))
    solve = make("micro_solve", *columns, decay, start, attr=(lead, rows.pop(), options))
    y = feedback_tensor(state.name, solve, lead, state.indices)
    write, later = build.ZERO, build.ONE
    for n, event in reversed(list(enumerate(events))):
        for k, one in enumerate(event.writes):
            places = {micro: build.const(n), rank: build.const(k)}
            answer = build.read(y.name, [places.get(i, build.index(i)) for i in y.indices], y.dtype)
            write = build.add(build.mul(build.mul(later, one.left), answer), write)
        later = build.mul(event.decay, later)
    rhs = build.add(build.mul(later, links[-1].update.before()), write)
    return system.with_tensors(replace(state, rhs=rhs), y, *carry)


def _rows_of(link: Link) -> tuple[str, ...]:
    inner = [(0, 0, t) for t in link.terms if t.over]
    return contracted_rows([link.update], inner) if inner else ()


def _events(system: System, links: list[Link]) -> list[_Event]:
    """Each link that writes, with the decays of those before it that do not; a decay after them is one without writes,
    because the next step reads what it leaves."""
    taken = frozenset(system.indices)
    for link in links:
        taken |= link.rest.free | frozenset(i for t in link.terms for i in (*t.over, *t.coefficient.free, *t.read.free))
    rows = next(r for r in map(_rows_of, links) if r)
    found, carried = [], build.ONE
    parsed = [_parsed(link, taken, frozenset(rows)) for link in links]
    after = all(e.after for e in parsed if e.writes)
    for link, event in zip(links, parsed, strict=True):
        if not event.writes:
            carried = build.mul(carried, event.decay)
            continue
        if not after:
            again = _parsed(link, taken, frozenset(rows), before=True)
            writes = tuple(replace(w, read=build.mul(carried, w.read)) for w in again.writes)
            event = replace(event, writes=writes, after=False)
        found.append(replace(event, decay=build.mul(carried, event.decay)))
        carried = build.ONE
    return [*found, _Event(carried, (), True)] if carried is not build.ONE else found


def _parsed(link: Link, taken: frozenset[str], rows: frozenset[str], before: bool = False) -> _Event:
    """A link's decay, inner reads and writes, as if it read its own tensor."""
    update = link.update
    own = [replace(t, read=build.read(update.state.name, t.read.args, t.read.dtype)) for t in link.terms]
    for term in own:
        if not term.over:
            own_place(update, term)
    decay = build.total(build.where(t.guard, t.coefficient, build.ZERO) for t in own if not t.over)
    found = [f for t in own if t.over for f in feedbacks([update], 0, 0, t, decay, taken)]
    after = all(f.after for f in found)
    if before:
        found = [before_decay(f, decay) for f in found]
    writes = writes_of(update.state.name, found, monomials(link.rest, taken, frozenset(rows)), rows)
    return _Event(decay, tuple(writes), after)

"""Convolution form of a time-invariant recurrence that mixes entries of its state: `S[t] = A S[t-1] + b x[t]`.

Unrolling gives S[t] = A^(t+1) S[-1] + sum_{l <= t} A^l b x[t-l]; a read `c . S[t]` with c that does not read t is a
convolution with the taps c . A^l b, which have no state axis. A is never diagonalised: the eigenvectors of the matrices
of LMU or S4 are too ill conditioned (1e8 at 16 states); powers are not.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from seqdsl.algebra.affine import NoMatch, Term, split, uses
from seqdsl.algebra.monomials import monomials
from seqdsl.forms.convolution import convolve, lag_index, named, reread, split_write
from seqdsl.forms.dense import MatrixStep, matrix_step, scanned
from seqdsl.forms.reads import final_name, final_tensor, without_steps
from seqdsl.ir import build
from seqdsl.ir.dependence import Loop
from seqdsl.ir.node import Node, walk
from seqdsl.ir.ops import bound, make
from seqdsl.ir.system import System, Tensor


@dataclass(frozen=True)
class _Write:
    """One product that the step writes: what does not read t, by component, and what does. `at` stands for the
    component where the second varies along it too."""

    b: Node
    x: Node
    over: tuple[str, ...]
    at: tuple[str, ...]


@dataclass
class _Unrolling:
    """What the taps of every read are made of; `made` collects their tensors."""

    step: MatrixStep
    lag: str
    writes: list[_Write]
    made: list[Tensor]

    @property
    def time(self) -> str:
        """The index that the states run along."""
        return self.step.updates[0].time

    @property
    def name(self) -> str:
        """The first state's name, after which what is made is called."""
        return self.step.updates[0].state.name


def to_matrix_convolution(system: System, loop: Loop) -> System:
    """Rewrite the linear reads of the states, and states that are wanted whole. Else `NoMatch`, naming what reads t."""
    if loop.reverse:
        raise NoMatch("the recurrence runs backwards")
    system, step = matrix_step(system, loop)
    time = step.updates[0].time
    if time in step.matrix.free:
        raise NoMatch(f"the matrix `{step.matrix!r}` depends on `{time}`")
    system, lag = lag_index(system, step.updates[0].state, time)
    unrolling = _Unrolling(step, lag, _writes(system, step), [])
    names = {u.state.name for u in step.updates}
    readers = [t for t in system.derived() if t.name not in names and t.rhs is not None and uses(t.rhs, names)]
    changed = reread(readers, lambda n: _read(unrolling, n), unrolling.made)
    changed, steps = without_steps(system, changed, [*step.carry, *unrolling.made], names)
    wanted = {*system.outputs, *(n for t in changed if t.rhs is not None for n in names if uses(t.rhs, {n}))}
    wanted |= {e.tensor for e in system.record or () if e.tail is not build.ONE}  # of which more than the last is kept
    finals, made = dict(system.finals), unrolling.made
    for number, update in enumerate(step.updates):
        name = update.state.name
        if name in wanted:
            changed.append(replace(update.state, rhs=_whole(unrolling, number)))
        elif system.record is not None and any(e.tensor == name for e in system.record):
            finals[name] = final_name(update)
    made += _finals(step, set(finals.values()))
    dropped = (*steps, *(n for n in names if n not in wanted))
    return replace(system.with_tensors(*changed, *step.carry, *made, drop=dropped), finals=finals)


def _finals(step: MatrixStep, wanted: set[str]) -> list[Tensor]:
    """The states after the last position, from a scan: nothing else needs every one of them."""
    found: list[Tensor] = []
    scans = scanned(step, False)
    parts, states = scans[: -len(step.updates)], scans[-len(step.updates) :]
    for update, state, start in zip(step.updates, states, step.starts, strict=True):
        if final_name(update) not in wanted:
            continue
        time = update.time
        every = replace(state, name=f"{state.name}.scan", edges=())
        last = build.sub(build.size(time), build.ONE)
        at = [last if n == update.position else build.index(i) for n, i in enumerate(state.indices)]
        none = make("eq", build.size(time), make("first", attr=time))
        end = build.where(none, start, build.read(every.name, at, every.dtype))
        found += [every, final_tensor(update, end)]
    return [*parts, *found] if found else []


def _writes(system: System, step: MatrixStep) -> list[_Write]:
    components, time = step.components, step.updates[0].time
    taken = frozenset(i for t in system.derived() if t.rhs is not None for n in walk(t.rhs) for i in n.free)
    taken |= {*components.kept, *components.read}
    found = []
    for number, write in enumerate(step.writes):
        for parts, over in monomials(write, taken):
            if any(build.value_of(f) == 0 for f in parts):
                continue
            b, x, over = split_write(parts, over, time)
            inner = tuple(i for i in over if i not in x.free)
            b = build.where(components.is_state(number), build.reduce("sum", inner, b), build.ZERO)
            at, moved = _places(components.kept, x, taken | frozenset(over))
            for own, name in moved.items():
                b = build.where(build.make("eq", build.index(own), build.index(name)), b, build.ZERO)
            x = build.substitute(x, {own: build.index(name) for own, name in moved.items()})
            found.append(_Write(b, x, tuple(i for i in over if i in x.free), at))
    return _merged(found)


def _merged(writes: list[_Write]) -> list[_Write]:
    """Writes of the same signal as one: taps are linear in what is written."""
    found: dict[tuple[Node, tuple[str, ...], tuple[str, ...]], _Write] = {}
    for write in writes:
        key = write.x, write.over, write.at
        found[key] = replace(write, b=build.add(found[key].b, write.b)) if key in found else write
    return list(found.values())


def _places(kept: tuple[str, ...], x: Node, taken: frozenset[str]) -> tuple[tuple[str, ...], dict[str, str]]:
    """New indices for the components that x varies along."""
    moved: dict[str, str] = {}
    for own in kept:
        if own in x.free:
            moved[own] = build.fresh(own + "'", {*taken, *moved.values()})
    return tuple(moved.values()), moved


def _taps(unrolling: _Unrolling, c: Node, b: Node) -> Node:
    """c . A^l b, both given over the components n; b's are renamed to m."""
    components = unrolling.step.components
    b = build.substitute(b, dict(zip(components.kept, map(build.index, components.read), strict=True)))
    attr = ((*components.kept, *components.read), (unrolling.lag,), ())
    return make("matrix_taps", c, unrolling.step.matrix, b, attr=attr)


def _unrolled(unrolling: _Unrolling, c: Node, rows: tuple[str, ...]) -> Node:
    """sum[rows] of c . S[t], for the rows that are no components."""
    result = build.ZERO
    for write in unrolling.writes:
        inner = tuple(i for i in rows if i not in write.x.free)
        outer = (*write.over, *write.at, *(i for i in rows if i in write.x.free))
        kernel = build.reduce("sum", inner, _taps(unrolling, c, write.b))
        term = convolve(unrolling.name, kernel, write.x, unrolling.time, unrolling.lag, unrolling.made)
        result = build.add(result, build.reduce("sum", outer, term))
    start = unrolling.step.joined(unrolling.step.starts)
    if start is not build.ZERO:
        first = _taps(unrolling, c, _stepped(unrolling.step, start))
        decayed = named(f"{unrolling.name}.start{len(unrolling.made)}", first, unrolling.lag, unrolling.made)
        steps = build.sub(build.index(unrolling.time), make("first", attr=unrolling.time))
        at = [steps, *(build.index(i) for i in decayed.indices[1:])]
        result = build.add(result, build.reduce("sum", rows, build.read(decayed.name, at, decayed.dtype)))
    return result


def _stepped(step: MatrixStep, start: Node) -> Node:
    """A start, over the components n."""
    components = step.components
    over = dict(zip(components.kept, map(build.index, components.read), strict=True))
    return build.reduce("sum", components.read, build.mul(step.matrix, build.substitute(start, over)))


def _whole(unrolling: _Unrolling, number: int) -> Node:
    """Every entry of a state: a read with a row of the unit matrix."""
    components = unrolling.step.components
    taken = {*components.kept, *components.read}
    taken |= {i for write in unrolling.writes for i in (*write.at, *write.over, *write.b.free, *write.x.free)}
    names = {own: build.fresh(own + "'", taken) for own, _ in components.axes}
    place = build.TRUE
    for own, name in names.items():
        place = build.both(place, build.make("eq", build.index(own), build.index(name)))
    c = build.where(build.both(components.is_state(number), place), build.const(build.Fraction(1)), build.ZERO)
    found = _unrolled(unrolling, c, ())
    return build.substitute(found, {name: build.index(own) for own, name in names.items()})


def _read(unrolling: _Unrolling, node: Node) -> Node | None:
    """A contraction of the states with weights that do not read t, as convolutions; None where it is not one."""
    step = unrolling.step
    numbers = {u.state.name: n for n, u in enumerate(step.updates)}
    if node.op != "sum" or node.args[1] is not build.TRUE or not uses(node, set(numbers)):
        return None
    own = step.updates[0].state.indices
    mixed = {n for n, _ in step.components.axes}
    if not mixed <= set(bound(node)) <= set(own) - {unrolling.time}:
        return None
    try:
        terms, rest = split(node.args[0], lambda r: r.attr in numbers)
    except NoMatch:
        return None
    if any(not _is_plain(t, own, unrolling.time) for t in terms):
        return None
    rows = tuple(i for i in bound(node) if i not in mixed)
    result = build.ZERO
    for term in terms:
        here = step.components.is_state(numbers[str(term.read.attr)])
        result = build.add(result, _unrolled(unrolling, build.where(here, term.coefficient, build.ZERO), rows))
    return result if rest is build.ZERO else build.add(result, build.make("sum", rest, build.TRUE, attr=node.attr))


def _is_plain(term: Term, own: tuple[str, ...], time: str) -> bool:
    return term.read.args == tuple(map(build.index, own)) and not term.over and time not in term.coefficient.free

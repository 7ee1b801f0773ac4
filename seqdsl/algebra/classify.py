"""What a recurrence is: the smallest class of DESIGN section 5 that holds its update map, found by computation.

The update of each state, same-step auxiliaries inlined, is split into terms that are linear in an earlier state and a
rest. What the linear terms do to the state's axes decides: carry every axis (diagonal), contract one with a factor on
either side (low rank), contract it through a matrix (dense), shift along it (convolution). Where the update is not
affine over (+, *) it is tried over the semirings of `semirings`; else it is nonlinear, or sequential where a step of it
has no useful derivative. DERIVATIONS 1.2 and 1.3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace

from seqdsl.algebra.affine import NoMatch, Term, Update, log_of, split, split_update, states_and_updates
from seqdsl.algebra.chain import Link, chained
from seqdsl.algebra.circular import shifts, with_spectrum
from seqdsl.algebra.held import has_boundaries, with_held
from seqdsl.algebra.lags import has_lags, with_companions
from seqdsl.algebra.lift import LAW, step_by_lift
from seqdsl.algebra.micro import base_step, micro_steps
from seqdsl.algebra.monomials import factors
from seqdsl.algebra.semirings import ring_of
from seqdsl.algebra.verdict import Proved, Verdict
from seqdsl.ir import build
from seqdsl.ir.dependence import Loop, Step, schedule
from seqdsl.ir.nest import as_written, opened, told
from seqdsl.ir.node import Node, reads, walk
from seqdsl.ir.system import System

_ROUGH = frozenset(
    "round step sign floor ceil argmax rank floor_div mod xor bit_and bit_length popcount lt le eq ne".split()
)


@dataclass(frozen=True)
class Part:
    """One linear term of a state's update: `coefficient` times a read of `source`, contracted over `contracted`."""

    state: str
    source: str
    coefficient: Node
    contracted: tuple[str, ...]
    kind: str


@dataclass(frozen=True)
class Recurrence:
    """A strongly connected component and its class. `evidence` says, in words, what put it there."""

    loop: Loop
    states: tuple[str, ...]
    kind: str
    ring: str = "+ *"
    time_invariant: bool = False
    complex: bool = False
    parts: tuple[Part, ...] = ()
    writes: tuple[tuple[str, Node], ...] = ()
    evidence: str = ""
    varies: frozenset[str] = field(default_factory=frozenset)
    lifted: Callable[[], tuple[Verdict, ...]] = tuple
    log_decay: Node | None = None

    @property
    def axis(self) -> str:
        """The axis that it runs over."""
        return self.loop.axis

    @property
    def reverse(self) -> bool:
        """Does it run down?"""
        return self.loop.reverse

    @property
    def lift(self) -> tuple[Verdict, ...]:
        """For each state: is its update the sum of the parts and the write? Found out when it is asked for."""
        return self.lifted()


def classify_all(system: System) -> tuple[Recurrence, ...]:
    """Every recurrence, outer loops first."""
    return tuple(r for step in schedule(system) for r in _below(system, step))


def _below(system: System, step: Step) -> list[Recurrence]:
    if not isinstance(step, Loop):
        return []
    found = classify(system, step)
    if not any(isinstance(inner, Loop) for inner in step.body):
        return [found]
    system = opened(system, step)  # at one of its steps, the ones before are known
    return [found, *(_as_written(r, step) for inner in step.body for r in _below(system, inner))]


def _as_written(found: Recurrence, loop: Loop) -> Recurrence:
    """A recurrence in a step of a loop, in the terms of the system that the loop is of."""
    parts = tuple(replace(p, coefficient=as_written(p.coefficient, loop)) for p in found.parts)
    writes = tuple((name, as_written(write, loop)) for name, write in found.writes)
    log_decay = None if found.log_decay is None else as_written(found.log_decay, loop)
    return replace(found, parts=parts, writes=writes, log_decay=log_decay, evidence=told(found.evidence))


def classify(system: System, loop: Loop) -> Recurrence:
    """The class of one loop's recurrence."""
    names = tuple(loop.tensors())
    is_complex = any(system.tensors[n].dtype == "complex" for n in names)
    links = chained(system, loop)
    if links is not None:
        return _in_links(system, loop, links, is_complex)
    try:
        updates = states_and_updates(system, loop)
    except NoMatch as reason:
        found = _in_micro_steps(system, loop, is_complex) or _with_companions(system, loop)
        return found or _without_update(system, loop, names, str(reason), is_complex)
    states = tuple(u.state.name for u in updates)
    try:
        return _affine(system, loop, updates, is_complex)
    except NoMatch as reason:
        ring = ring_of(updates)
        if ring is not None:
            return Recurrence(
                loop,
                states,
                "semiring",
                ring.name,
                evidence=f"affine over ({ring.name.replace(' ', ', ')})",
                lifted=lambda: (Proved(LAW, "by structure: only operations of the ring meet the state, each affine over it"),),
            )
        rough = sorted({n.op for u in updates for n in walk(u.rhs) if _is_rough(n, set(states))})
        if rough:
            evidence = f"the state passes through a hard step, `{rough[0]}`"
            return Recurrence(loop, states, "sequential", "", complex=is_complex, evidence=evidence)
        return Recurrence(loop, states, "nonlinear", "", complex=is_complex, evidence=str(reason))


def _is_rough(node: Node, states: set[str]) -> bool:
    """A hard step of the state: rounding, a threshold, a choice by position."""
    if node.op == "read":
        return any(_touches(a, states) for a in node.args)
    return node.op in _ROUGH and _touches(node, states)


def _touches(node: Node, states: set[str]) -> bool:
    return any(r.attr in states for r in reads(node))


def _in_micro_steps(system: System, loop: Loop, is_complex: bool) -> Recurrence | None:
    """The step as the composition of affine micro-steps, each put together again from its terms."""
    try:
        found = micro_steps(system, loop)
    except NoMatch:
        return None
    state, update = found.state, found.update
    carried = Part(state.name, state.name, found.carried, (), "diagonal")  # by the base case
    parts = (carried, *(_part(system, update, update, t) for t in found.terms))
    kind = _widest(parts)
    words = _words(list(parts), kind)
    inner = step_by_lift(system, update, found.terms, found.rest)
    return Recurrence(
        loop,
        (state.name,),
        kind,
        "+ *",
        complex=is_complex,
        parts=parts,
        writes=((state.name, found.rest),),
        evidence=f"micro-steps along {found.micro}, composed in order" + (f": {words}" if words else ""),
        lifted=lambda: (inner, step_by_lift(system, *base_step(found))),
    )


def _in_links(system: System, loop: Loop, links: list[Link], is_complex: bool) -> Recurrence:
    """The step as the composition of the links of a chain."""
    state = links[-1].update.state.name
    parts = [replace(_part(system, x.update, x.update, t), source=state) for x in links for t in x.terms]
    kind = _widest(parts)
    names = ", ".join(x.update.state.name for x in links)
    return Recurrence(
        loop,
        (state,),
        kind,
        "+ *",
        not any(links[0].update.time in p.coefficient.free for p in parts),
        is_complex,
        tuple(parts),
        tuple((x.update.state.name, x.rest) for x in links),
        f"micro-steps {names}, composed in order: {_words(parts, kind)}",
        lifted=lambda: tuple(step_by_lift(system, x.update, x.terms, x.rest) for x in links),
    )


def _with_companions(system: System, loop: Loop) -> Recurrence | None:
    """The class with a state more for each step further back than one, or boundary of a mini-batch."""
    held = has_boundaries(system, loop)
    if not held and not has_lags(system, loop):
        return None
    try:
        found = classify(*(with_held if held else with_companions)(system, loop))
    except NoMatch:
        return None
    if not found.ring:
        return None
    own = tuple(s for s in found.states if s in system.tensors)
    what = "held states for the boundaries of mini-batches" if held else "companion states for earlier steps"
    lags = f"{what}, {', '.join(s for s in found.states if s not in own)}"
    return replace(found, loop=loop, states=own, evidence="; ".join(filter(None, (lags, found.evidence))))


def _without_update(system: System, loop: Loop, names: tuple[str, ...], reason: str, is_complex: bool) -> Recurrence:
    """No single update map: two axes at once, micro-steps, or reads further back. Still affine, or not."""
    members = set(names)
    kind, why = "dense", reason
    for name in names:
        rhs = system.tensors[name].rhs
        assert rhs is not None
        try:
            split(rhs, lambda r: r.attr in members)
        except NoMatch as failure:
            kind, why = "nonlinear", str(failure)
            if any(_is_rough(n, members) for n in walk(rhs)):
                kind = "sequential"
            break
    affine = kind == "dense"
    if affine:
        kind = _kind_of_terms(system, names)
        why = f"affine; {reason}"
    structure = "by structure: every equation is affine in what it reads of the recurrence, and a step computes one after another"
    return Recurrence(
        loop,
        names,
        kind,
        "+ *" if affine else "",
        complex=is_complex,
        evidence=why,
        lifted=lambda: (Proved(LAW, structure),) if affine else (),
    )


def _kind_of_terms(system: System, names: tuple[str, ...]) -> str:
    """diagonal if no term contracts an axis of the state, else low-rank."""
    members = set(names)
    for name in names:
        rhs = system.tensors[name].rhs
        assert rhs is not None
        terms, _ = split(rhs, lambda r: r.attr in members)
        if any(t.over for t in terms):
            return "low-rank"
    return "diagonal"


def _affine(system: System, loop: Loop, updates: list[Update], is_complex: bool) -> Recurrence:
    states = {u.state.name: u for u in updates}
    parts: list[Part] = []
    writes: list[tuple[str, Node]] = []
    found = []
    for update in updates:
        terms, rest = split_update(system, update.rhs, states)
        found.append((update, terms, rest))
        parts += [_part(system, update, states[str(t.read.attr)], t) for t in terms]
        writes.append((update.state.name, rest))
    kind = _widest(parts)
    times = {u.time for u in updates}
    invariant = not any(times & p.coefficient.free for p in parts)
    varies = frozenset(i for p in parts for i in p.coefficient.free if p.kind == "diagonal")
    only = parts[0] if len(parts) == 1 and kind == "diagonal" else None
    return Recurrence(
        loop,
        tuple(states),
        kind,
        "+ *",
        invariant,
        is_complex,
        tuple(parts),
        tuple(writes),
        _around(system, loop) if kind == "convolution" else _words(parts, kind),
        varies,
        lambda: tuple(step_by_lift(system, *each) for each in found),
        log_of(only.coefficient) if only is not None else None,
    )


def _widest(parts: Iterable[Part]) -> str:
    """The least class of an affine update that holds all of its terms."""
    return max((p.kind for p in parts), key=("diagonal", "convolution", "low-rank", "dense").index, default="diagonal")


def _part(system: System, update: Update, source: Update, term: Term) -> Part:
    """What one linear term does to the axes of the state."""
    own = update.state.indices
    kind = "diagonal"
    for position, (index, subscript) in enumerate(zip(source.state.indices, term.read.args, strict=True)):
        if position == source.position or subscript is build.index(index):
            continue
        if subscript.op == "index" and str(subscript.attr) in term.over:
            kind = "low-rank" if kind != "dense" else kind
        elif _is_shift(system, source, term):
            kind = "convolution" if kind == "diagonal" else kind
        else:
            kind = "dense"
    if term.over and kind == "diagonal":
        kind = "low-rank"  # the contracted axis is read at its own name, under a sum
    if kind == "low-rank" and _mixes(term, frozenset(own)):
        kind = "dense"
    return Part(update.state.name, source.state.name, term.coefficient, tuple(sorted(_contracted(term))), kind)


def _is_shift(system: System, source: Update, term: Term) -> bool:
    try:
        return bool(shifts(system, source, term))
    except NoMatch:
        return False


def _around(system: System, loop: Loop) -> str:
    """Whether a convolution is circular, and so entrywise in frequencies; else why not."""
    try:
        with_spectrum(system, loop, build.ZERO)
    except NoMatch as reason:
        return f"the state is convolved along an axis of its own; {reason}"
    return "the state is convolved around an axis of its own: entrywise after a Fourier transform"


def _contracted(term: Term) -> frozenset[str]:
    """The summed indices that the state is read at; the others are ranks, which join left and right factors."""
    return frozenset(term.over) & frozenset(i for a in term.read.args for i in a.free)


def _mixes(term: Term, own: frozenset[str]) -> bool:
    """Does one factor tie a contracted axis to the axis of the result that takes its place (a matrix)?"""
    contracted = _contracted(term)
    replaced = own - frozenset(i for a in term.read.args for i in a.free)
    return any(f.free & contracted and f.free & replaced for f in factors(term.coefficient))


def _words(parts: list[Part], kind: str) -> str:
    if kind == "diagonal":
        coupled = sorted({f"`{p.state}` reads `{p.source}`" for p in parts if p.state != p.source})
        return f"a small block for each entry: {', '.join(coupled)}" if coupled else ""
    if kind == "low-rank":
        found = [p for p in parts if p.kind == "low-rank"]
        names = sorted({i.rstrip("'") for p in found for i in p.contracted})
        return f"the state is contracted over {', '.join(names)} and written back"
    if kind == "dense":
        return "a matrix acts on an axis of the state, or its entries are permuted"
    return "the state is convolved along an axis of its own"

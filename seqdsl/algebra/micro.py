"""Micro-steps: a state that recurs over an axis of its own inside each step of time, `S[t,j] = f(S[t,j-1])`.

The base case carries it from one step of time to the next, `S[t,-1] = c[t] S[t-1,|j|-1]`. A step of time is then the
composition of the base case's map and of the micro-steps' maps, in order, and so affine where each of them is. The
update of a micro-step is read off its equations by the same code as any other, with j for the time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from seqdsl.algebra.affine import NoMatch, Term, Update, split_update, states_and_updates
from seqdsl.ir import build
from seqdsl.ir.dependence import Compute, Loop
from seqdsl.ir.node import Node
from seqdsl.ir.system import Index, System, Tensor


@dataclass(frozen=True)
class MicroSteps:
    """`update` is the map of one micro-step, `terms` and `rest` its linear terms and its write; `base` is the tensor of
    the base case, `carried` the factor c by which it takes the last micro-step of the step before."""

    update: Update
    terms: tuple[Term, ...]
    rest: Node
    time: str
    position: int
    base: Tensor
    carried: Node
    entering: tuple[Term, ...] = ()

    @property
    def state(self) -> Tensor:
        """The state, over time and micro-steps."""
        return self.update.state

    @property
    def micro(self) -> str:
        """The index of the micro-steps."""
        return self.update.time


def micro_steps(system: System, loop: Loop) -> MicroSteps:
    """The micro-steps of a loop over time. Raises `NoMatch` where it has another shape, or another kind of update."""
    inner = [s for s in loop.body if isinstance(s, Loop)]
    outer = [s.tensor for s in loop.body if isinstance(s, Compute)]
    if len(inner) != 1 or len(outer) != 1 or any(not isinstance(s, Compute) for s in inner[0].body):
        raise NoMatch("the recurrence runs over two axes at once")
    if loop.reverse or inner[0].reverse:
        raise NoMatch("the recurrence runs over two axes at once, one of them backwards")
    updates = states_and_updates(system, inner[0])
    if len(updates) != 1:
        raise NoMatch(f"the micro-steps along `{inner[0].axis}` have several states")
    (update,) = updates
    state = update.state
    if not any(e.position == update.position and e.tensor == outer[0] for e in state.edges):
        raise NoMatch("the recurrence runs over two axes at once")
    terms, rest = split_update(system, update.rhs, (state.name, outer[0]))
    position = dict(loop.positions)[state.name]
    time, base = state.indices[position], system.tensors[outer[0]]
    for term in terms:
        if term.read.args[position] is not build.index(time) or term.read.attr != state.name:
            raise NoMatch(f"the micro-step reads `{term.read!r}`, which is not the micro-step before")
    return _with_base(system, MicroSteps(update, tuple(terms), rest, time, position, base, build.ZERO))


def base_step(found: MicroSteps) -> tuple[Update, tuple[Term, ...], Node]:
    """The map of the base case: its update, its terms, and what it adds (nothing)."""
    base = found.base
    assert base.rhs is not None
    place = base.indices.index(found.time)
    return Update(base, found.time, place, -1, base.rhs), found.entering, build.ZERO


def last_index(system: System, micro: str) -> tuple[Node, ...]:
    """How the last micro-step may be written: |j| - 1, or the number."""
    index: Index = system.index(micro)
    ends = [build.sub(build.size(i.name), build.ONE) for i in system.indices.values() if i.axis == index.axis]
    return (*ends, *([build.sub(index.size, build.ONE)] if index.size is not None else []))


def _with_base(system: System, found: MicroSteps) -> MicroSteps:
    """The factor of the base case; it may add nothing, and must read the last micro-step of the step before."""
    state, base = found.state, found.base
    assert base.rhs is not None
    terms, rest = split_update(system, base.rhs, (state.name, base.name))
    before = build.sub(build.index(found.time), build.ONE)
    for term in terms:
        wanted = [build.index(i) for i in state.indices]
        wanted[found.position] = before
        wanted[found.update.position] = term.read.args[found.update.position]
        last = term.read.args[found.update.position] in last_index(system, found.micro)
        if term.over or term.read.attr != state.name or not last or list(term.read.args) != wanted:
            raise NoMatch(f"the base case reads `{term.read!r}`, not the last micro-step of the step before")
    if rest is not build.ZERO:
        raise NoMatch(f"the base case of the micro-steps adds `{rest!r}` to the state")
    carried = build.total(build.where(t.guard, t.coefficient, build.ZERO) for t in terms)
    return replace(found, carried=carried, entering=tuple(terms))

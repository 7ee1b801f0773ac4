"""Micro-steps in chunkwise form: inner reads of every micro-step are solved for together, then time is stepped alone.

A step of time goes through micro-steps j in order, `S[t,j] = a[t,j] S[t,j-1] + sum_r u_r (w_r . S[t,j-1]) + sum_m k_m v_m`,
starting from `c[t] S[t-1,|j|-1]`. Inlining them into one another would give 2^n low-rank terms. Instead (t, j) in
lexicographic order is one time axis with few terms a place, and c belongs to the decay of the first micro-step, so the
feedback is the unit triangular system of `feedback`, of |j| times the size. A write with a left vector of its own is one
more unknown that reads nothing: its row of the system is the identity.

What the micro-steps add is then known, and R[t] = S[t,|j|-1] is an ordinary entrywise recurrence over t alone:

    R[t] = c[t] (prod_j a[t,j]) R[t-1] + sum_j (prod_{l > j} a[t,l]) u[t,j] y[t,j].

The products telescope: this is the composition of the micro-steps' affine maps, in order. Only the last micro-step may be
read elsewhere; the state record keeps its shape, every micro-step of the last step of time, which is worked out from R.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from seqdsl.algebra.affine import NoMatch, log_of, uses
from seqdsl.algebra.micro import MicroSteps, last_index, micro_steps
from seqdsl.algebra.monomials import monomials
from seqdsl.forms.feedback import (
    Feedback,
    before_decay,
    contracted_rows,
    feedback_tensor,
    feedbacks,
    own_place,
    without_left,
)
from seqdsl.forms.indices import along, new_index
from seqdsl.forms.reads import some_positions
from seqdsl.ir import build
from seqdsl.ir.dependence import Loop
from seqdsl.ir.node import Node, reads, rebuild
from seqdsl.ir.ops import make
from seqdsl.ir.state import path_of_last
from seqdsl.ir.system import Edge, System, Tensor, edge_at_start


@dataclass(frozen=True)
class Write:
    """One unknown of a micro-step, y = right + read . S, which is written along `left`."""

    left: Node
    read: Node
    right: Node


@dataclass(frozen=True)
class _Step:
    """A step of time with its writes known: `writes` are (left, right) for each micro-step."""

    micro: MicroSteps
    decay: Node
    writes: tuple[tuple[Node, Node], ...]
    start: Node  # the last micro-step before the first step of time
    rows: tuple[str, ...]

    def product(self, lower: Node | None, upper: Node | None) -> Node:
        """The decays of the micro-steps l with lower < l <= upper."""
        if self.decay is build.ONE:
            return build.ONE
        j = self.micro.micro
        other = build.fresh(j + "'", {i for n in (self.decay, lower, upper) if n is not None for i in n.free})
        place = build.index(other)
        body = build.substitute(self.decay, {j: place})
        guard = build.TRUE
        if lower is not None:
            guard = build.both(guard, make("lt", lower, place))
        if upper is not None:
            guard = build.both(guard, make("le", place, upper))
        log = log_of(body)
        if log is not None:  # where, not a guard: nothing may multiply the -inf of a reset
            return make("exp", build.reduce("sum", (other,), build.where(guard, log, build.ZERO)))
        return build.reduce("prod", (other,), build.where(guard, body, build.ONE))


def without_micro_steps(system: System, loop: Loop, chunk: int = 64) -> tuple[System, str]:
    """The system with R in place of the micro-steps, and R's name. Raises `NoMatch`."""
    micro = micro_steps(system, loop)
    _only_last_read(system, loop, micro)
    system, start = _starts(system, micro)
    system, step = _solved(system, micro, start, chunk)
    name = build.fresh(f"{micro.state.name}.step", system.tensors)
    rest = tuple(i for i in micro.state.indices if i not in (micro.micro,))
    begin = Tensor(f"{name}@start", tuple(i for i in rest if i != micro.time), micro.state.dtype, "derived", start)
    edge = Edge(rest.index(micro.time), build.const(-1), begin.name)
    rhs = _step_equation(step, name, rest)
    comment = f"{micro.state.name} after the last micro-step of each step"
    state = Tensor(name, rest, micro.state.dtype, "derived", rhs, edges=(edge,), comment=comment)
    readers = [_redirected(t, micro, name) for t in system.derived() if t.name not in loop.tensors()]
    finals, made = _finals(system, step)
    system = system.with_tensors(*readers, begin, state, *made, drop=tuple(loop.tensors()))
    return replace(system, finals={**system.finals, **finals}), name


def _only_last_read(system: System, loop: Loop, micro: MicroSteps) -> None:
    """Outside the loop only S[.., |j|-1] may be read, and nothing else of the loop be kept."""
    members, state = set(loop.tensors()), micro.state
    kept = {e.tensor for e in system.record or ()}
    for name in sorted(members):
        if name in system.outputs:
            raise NoMatch(f"`{name}` is an output, and is wanted at every micro-step")
        if name in kept and name not in (state.name, micro.base.name):
            raise NoMatch(f"the state record keeps `{name}` of the micro-steps")
    if any(e.tensor in members and e.tail is not build.ONE for e in system.record or ()):
        raise NoMatch(f"the state record keeps more than the last step of `{state.name}`")
    ends = last_index(system, micro.micro)
    moving = any(e.tail is None or e.boundary is not None for e in system.record or ())
    for tensor in system.derived():
        if tensor.name in members or tensor.rhs is None:
            continue
        for read in reads(tensor.rhs):
            if read.attr not in members:
                continue
            if read.attr != state.name or read.args[micro.update.position] not in ends:
                raise NoMatch(f"`{tensor.name}` reads `{read!r}`, which is not the last micro-step")
            if moving and read.args[micro.position] is not build.index(micro.time):
                raise NoMatch(f"`{tensor.name}` reads `{read!r}`, a step before this one, and positions are counted")


def _starts(system: System, micro: MicroSteps) -> tuple[System, Node]:
    """The last micro-step before the first step: from the state record, or a base case, or 0."""
    state, time = micro.state, micro.time
    rest = tuple(i for i in state.indices if i != time)
    default: Node = build.ZERO
    edge = edge_at_start(state, micro.position)
    if edge is not None:
        default = build.read(edge.tensor, [build.index(i) for i in rest], state.dtype)
    last = {micro.micro: last_index(system, micro.micro)[0]}
    if system.axis(time) != system.stream or system.record is None:  # no state is kept of what cannot be stepped
        return system, build.substitute(default, last)
    carries = []
    for tensor, value, dims in ((state, default, rest), (micro.base, build.ZERO, _without(rest, micro.micro))):
        comment = f"{tensor.name} before the first position"
        path = path_of_last(system, tensor.name)
        carries.append(Tensor(f"{tensor.name}@start", dims, tensor.dtype, "carry", value, path=path, comment=comment))
    at, alone = (build.whole(c) for c in carries)
    some = make("lt", build.ZERO, build.size(micro.micro))
    return system.with_tensors(*carries), build.where(some, build.substitute(at, last), alone)


def _without(indices: tuple[str, ...], name: str) -> tuple[str, ...]:
    return tuple(i for i in indices if i != name)


def _solved(system: System, micro: MicroSteps, start: Node, chunk: int) -> tuple[System, _Step]:
    """The writes of every micro-step, known: through the triangular system where they feed back."""
    update = micro.update
    inner = [t for t in micro.terms if t.over]
    for term in micro.terms:
        if not term.over:
            own_place(update, term)
    decay = build.total(build.where(t.guard, t.coefficient, build.ZERO) for t in micro.terms if not t.over)
    taken = frozenset(system.indices) | micro.rest.free | decay.free
    taken |= frozenset(i for t in micro.terms for i in (*t.over, *t.coefficient.free, *t.read.free))
    rows = contracted_rows([update], [(0, 0, t) for t in inner]) if inner else ()
    found = [f for t in inner for f in feedbacks([update], 0, 0, t, decay, taken)]
    writes = writes_of(update.state.name, found, monomials(micro.rest, taken, frozenset(rows)), frozenset(rows))
    if not found:
        pairs = tuple((w.left, w.right) for w in writes)
        return system, _Step(micro, decay, pairs, start, rows)
    after = all(f.after for f in found)
    if not after:
        found = [before_decay(f, decay) for f in found]
    reading = [f.right for f in found] + [build.ZERO] * (len(writes) - len(found))
    first = make("eq", build.index(micro.micro), build.ZERO)
    carried = micro.carried
    if not after and carried is not build.ONE:
        reading = [w if w is build.ZERO else build.where(first, build.mul(carried, w), w) for w in reading]
    name = update.state.name
    system, rank = new_index(system, f"{name}.rank", len(writes)) if len(writes) > 1 else (system, "")
    lead = (micro.time, micro.micro, *([rank] if rank else []))
    whole = decay if carried is build.ONE else build.where(first, build.mul(carried, decay), decay)
    log = log_of(whole)
    options = (("after", after), ("chunk", chunk), ("log", log is not None), ("width", len(writes)))
    solve = make(
        "micro_solve",
        along(rank, reading),
        along(rank, [w.left for w in writes]),
        along(rank, [w.right for w in writes]),
        whole if log is None else log,
        start,
        attr=(lead, rows, options),
    )
    y = feedback_tensor(name, solve, lead, update.state.indices)
    pairs = tuple(
        (w.left, build.read(y.name, [build.const(n) if i == rank else build.index(i) for i in y.indices], y.dtype))
        for n, w in enumerate(writes)
    )
    return system.with_tensors(y), _Step(micro, decay, pairs, start, rows)


def writes_of(
    name: str, found: list[Feedback], known: list[tuple[list[Node], tuple[str, ...]]], rows: frozenset[str]
) -> list[Write]:
    """The feedbacks with the writes along their own left vectors, then the other writes."""
    inside = [build.ZERO for _ in found]
    others = []
    if any(f.ranks for f in found):
        raise NoMatch(f"a micro-step of `{name}` is read through a sum of ranks")
    for parts, over in known:
        for n, feedback in enumerate(found):
            rest = without_left(parts, over, feedback.left, feedback.ranks, rows)
            if rest is not None:
                inside[n] = build.add(inside[n], build.product(rest))
                break
        else:
            if over:
                raise NoMatch(f"a micro-step of `{name}` writes a sum over {', '.join(over)}")
            left = [f for f in parts if f.free & rows]
            others.append((build.product(left), build.product(f for f in parts if not f.free & rows)))
    own = [Write(build.product(f.left), f.right, x) for f, x in zip(found, inside, strict=True)]
    return [*own, *(Write(k, build.ZERO, v) for k, v in others)]


def _step_equation(step: _Step, name: str, indices: tuple[str, ...]) -> Node:
    micro = step.micro
    j = build.index(micro.micro)
    before = [build.sub(build.index(i), build.ONE) if i == micro.time else build.index(i) for i in indices]
    decay = build.mul(micro.carried, step.product(None, None))
    rhs = build.mul(decay, build.read(name, before, micro.state.dtype))
    later = step.product(j, None)
    for left, right in step.writes:
        term = build.mul(build.mul(later, left), right)
        rhs = build.add(rhs, build.reduce("sum", (micro.micro,), term))
    return rhs


def _redirected(tensor: Tensor, micro: MicroSteps, name: str) -> Tensor:
    """Reads of S[t,|j|-1] as reads of R[t]."""
    if tensor.rhs is None or not uses(tensor.rhs, {micro.state.name}):
        return tensor

    def change(node: Node) -> Node | None:
        if node.op != "read" or node.attr != micro.state.name:
            return None
        at = [a for k, a in enumerate(node.args) if k != micro.update.position]
        return build.read(name, at, node.dtype)

    return replace(tensor, rhs=rebuild(tensor.rhs, change))


def _finals(system: System, step: _Step) -> tuple[dict[str, str], list[Tensor]]:
    """Every micro-step of the last step of time, and the base case there: from R one step before, which is the sum of
    all writes but those of the last step."""
    micro = step.micro
    state, base, time = micro.state, micro.base, micro.time
    entries = {e.name for e in system.record or ()} & {state.name, base.name}
    if not entries or system.axis(time) != system.stream:
        return {}, []
    last = build.sub(build.size(time), build.ONE)
    earlier = make("lt", build.index(time), last)
    some = some_positions(system, time)
    entering = build.mul(build.substitute(micro.carried, {time: last}), _before_last(step, earlier))
    found: dict[str, str] = {}
    made = []
    for tensor in (state, base):
        dims = _without(tensor.indices, time)
        held = build.read(f"{tensor.name}@start", [build.index(i) for i in dims], tensor.dtype)
        value = entering if tensor is base else _at_last(step, entering, last)
        final = Tensor(
            f"{tensor.name}@final",
            dims,
            tensor.dtype,
            "derived",
            build.where(some, value, held),
            comment=f"{tensor.name} after the last position",
        )
        if tensor.name in entries:
            found[tensor.name] = final.name
            made.append(final)
    return found, made


def _before_last(step: _Step, earlier: Node) -> Node:
    micro = step.micro
    decay = build.mul(micro.carried, step.product(None, None))
    log = log_of(decay)
    held = build.where(earlier, decay, build.ONE) if log is None else build.where(earlier, log, build.ZERO)
    later = step.product(build.index(micro.micro), None)
    attr = ((micro.time,), step.rows, (("log", log is not None),))
    result = make("decayed_state", build.ZERO, build.ZERO, held, step.start, attr=attr)
    for left, right in step.writes:
        outside = later.free & frozenset(step.rows) == frozenset()
        k = build.where(earlier, left if outside else build.mul(later, left), build.ZERO)
        v = build.mul(later, right) if outside else right
        node = make("decayed_state", k, v, held, build.ZERO, attr=attr)
        result = build.add(result, build.reduce("sum", (micro.micro,), node))
    return result


def _at_last(step: _Step, entering: Node, last: Node) -> Node:
    """S[|t|-1, j] = (decays up to j) of what enters, and the writes up to j, each with the decays in between."""
    micro = step.micro
    here = build.index(micro.micro)
    result = build.mul(step.product(None, here), entering)
    other = build.fresh(micro.micro + "'", {i for w in step.writes for n in w for i in n.free})
    for left, right in step.writes:
        term = build.substitute(build.mul(left, right), {micro.micro: build.index(other)})
        term = build.mul(step.product(build.index(other), here), term)
        upto = make("le", build.index(other), here)
        result = build.add(result, build.reduce("sum", (other,), term, upto))
    return build.substitute(result, {micro.time: last})

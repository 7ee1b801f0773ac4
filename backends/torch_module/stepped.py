"""A recurrence over the stream as two nested functions: its steps, and those of the adjoint that `forms.adjoint` derives.

Autograd would keep every intermediate of every step and add up the gradient of each weight step by step. The adjoint is
a loop over what recurs alone: it keeps the operands and the states, computes the rest of the steps at all positions at
once, and contracts over positions after the loop. The batch is an index like any other here, so that the gradient of a
weight, which has none, is summed over it.

What the steps read from outside are operands: what `hoist` has computed before the loop, and whole tensors. Values from
several steps back are states of their own (`algebra.lags`). In the steps of a loop over another axis, as over depth, the
functions are written before it and called in each of them: there what the outer step has is an operand like any other.
A loop that is not of this kind (over what an input decides, or with loops inside) stays as autograd records it.
Entry points: `run`, `set_apart`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from seqdsl.algebra.lags import in_single_steps, lag_name
from seqdsl.forms.adjoint import End, adjoint_of_steps, with_starts
from seqdsl.ir import build
from seqdsl.ir.dependence import Compute, Loop, loop_of, schedule
from seqdsl.ir.differentiate import NotDifferentiable
from seqdsl.ir.node import Node
from seqdsl.ir.ops import remake
from seqdsl.ir.system import Index, System, Tensor, reached

from . import expressions, reads
from .apart import SMOOTH, counts, states_of
from .context import Block, Context, Stored
from .loops import sink
from .names import elements, safe, tuple_text
from .prologue import Stepping
from .readers import Readers, readers_of, uses
from .values import BATCH, Value, permuted, plain

Starts = Callable[[Tensor, int], list[str]]  # the texts of what comes so many steps before the first one, the last value first


@dataclass
class _Part:
    """The loop as a system of its own: `given` are the values of its inputs, by name, with the batch as `batch`."""

    outer: Context
    loop: Loop
    batch: str
    given: dict[str, Value] = field(default_factory=dict)
    names: dict[Node, str] = field(default_factory=dict)
    inputs: dict[str, Tensor] = field(default_factory=dict)

    def over(self, value: Value) -> Value:
        """A value of the module's function with the batch as an index."""
        return replace(value, dims=tuple(self.batch if d == BATCH else d for d in value.dims))

    def inside(self, node: Node) -> Node:
        """The node with what comes from outside as reads of inputs, and the batch in every read."""
        hoisted = self.outer.hoisted.get(node)
        if hoisted is not None and not hoisted.static:
            return self._operand(node, "given")
        if node.op == "read" and self._own(node):
            return build.read(str(node.attr), [build.index(self.batch), *self.without_held(node)], node.dtype)
        if node.op == "read":
            if self._reaches_back(node):
                return self._operand(node, f"{node.attr}_before")
            return self._operand(node, str(node.attr)) if self.outer.fixed else self._tensor(node)
        args = tuple(self.inside(a) for a in node.args)
        return node if args == node.args else remake(node, args)

    def _own(self, read: Node) -> bool:
        return read.attr in dict(self.loop.positions) and self.outer.is_here(read)

    def _reaches_back(self, read: Node) -> bool:
        """May it be of a position before the first new one, of which a state has the value?"""
        ctx, own = self.outer, self.outer.system.tensors[str(read.attr)].indices
        held = ctx.stateful and any(r.tensor == read.attr for r in ctx.records.values())
        return held and any(ctx.on_stream(i) and a is not build.index(i) for a, i in zip(read.args, own, strict=True))

    def without_held(self, read: Node) -> list[Node]:
        """The subscripts of a tensor of the loop, without those that loops around hold."""
        own = self.outer.system.tensors[str(read.attr)].indices
        return [self.inside(a) for a, i in zip(read.args, own, strict=True) if i not in self.outer.fixed]

    def _operand(self, node: Node, label: str) -> Node:
        """What has been computed before, or is at hand at this step of the loops around, at all positions."""
        if node not in self.names:
            value = plain(expressions.emit(self.outer, node))
            label = value.text if value.text.isidentifier() else label
            self.names[node] = build.numbered(label, {*self.loop.tensors(), *self.given})
            self._give(self.names[node], self.over(value), node.dtype)
        return self._read(self.names[node])

    def _tensor(self, node: Node) -> Node:
        ctx, name = self.outer, str(node.attr)
        args = [self.inside(a) for a in node.args]
        if name not in self.given:
            place, tensor = ctx.place(name), ctx.system.tensors[name]
            assert isinstance(place, Stored)
            value = plain(place.value)
            dims = ((BATCH,) if BATCH in value.dims else ()) + tensor.indices
            self._give(name, self.over(expressions.full(ctx, permuted(value, dims), dims, tensor.dtype)), tensor.dtype)
        lead = [build.index(self.batch)] if self.batch in self.given[name].dims else []
        return build.read(name, [*lead, *args], node.dtype)

    def _give(self, name: str, value: Value, dtype: str) -> None:
        self.given[name] = value
        self.inputs[name] = Tensor(name, value.dims, dtype, "input")

    def _read(self, name: str) -> Node:
        tensor = self.inputs[name]
        return build.read(name, [build.index(i) for i in tensor.indices], tensor.dtype)


def run(ctx: Context, loop: Loop, after: Readers, starts: Starts) -> bool:
    """Write the two functions and the call, with its results as the loop's tensors; False where the loop is not of this
    kind. What does not depend on the loop has been computed before."""
    states, wanted = states_of(ctx, loop), after.whole | after.late
    records = [r for r in ctx.records.values() if r.tensor in loop.tensors()]
    if not states or after.entries or not after.late <= {r.tensor for r in records if r.tail is not build.ONE}:
        return False
    if any(r.tensor not in wanted and not (r.tail is build.ONE and r.tensor in states) for r in records):
        return False
    batch = build.fresh("batch", set(ctx.system.indices))
    part = _Part(ctx, loop, batch)
    positions = dict(loop.positions)
    order = [t for t in ctx.system.derived() if t.name in positions]
    with ctx.equation(order[0]):
        own = [replace(t, indices=_entry(ctx, part, t), rhs=part.inside(t.rhs), edges=()) for t in order if t.rhs is not None]
    system = replace(
        ctx.system,
        tensors={**part.inputs, **{t.name: t for t in own}},
        indices={**ctx.system.indices, batch: Index(batch, batch, None)},
        outputs=tuple(t.name for t in own if t.name in wanted),
        record=(), finals={}, claims=(), checks=(), constraints=(),
    )  # fmt: skip
    if ctx.past and any(counts(system, t, loop.axis) for t in own):
        return False
    system, lags = in_single_steps(system, loop_of(system, states[0]))
    time = {n: system.tensors[n].indices.index(ctx.system.tensors[n].indices[p]) for n, p in positions.items()}
    every = {lag_name(n, back): (n, back) for n in states for back in range(max(lags[n], 1))}
    ends = [End(n, time[of], loop.reverse) for n, (of, _) in every.items()]
    system = with_starts(system, ends)
    system = replace(system, outputs=(*system.outputs, *_unseen(system, list(every))))
    (step, *more), back = sink(system, schedule(system)), _back(system, ends)
    if not ctx.fixed and (more or back is None):
        return False
    assert isinstance(step, Loop) and not more
    for name in states:
        found = starts(ctx.system.tensors[name], max(lags[name], 1))
        for lag, text in enumerate(found):
            tensor = system.tensors[lag_name(name, lag)]
            dims = tuple(i for i in tensor.indices if i != tensor.indices[time[name]])
            part.given[tensor.edges[0].tensor] = Value(text, dims, tensor.dtype)
    _call(ctx, part, system, step, back, list(every))
    return True


def _back(system: System, ends: list[End]) -> System | None:
    """The adjoint, where it is loops of their own kind."""
    try:
        back = adjoint_of_steps(system, ends)
    except NotDifferentiable:
        return None
    return None if any(_nested(s) for s in sink(back, schedule(back))) else back


def _entry(ctx: Context, part: _Part, tensor: Tensor) -> tuple[str, ...]:
    return (part.batch, *(i for i in tensor.indices if i not in ctx.fixed))


def _unseen(system: System, states: list[str]) -> list[str]:
    """The states that no output depends on: what is asked of their last value comes from themselves."""
    seen = {t.name for t in reached(system).derived()}
    return [n for n in states if n not in seen]


def _nested(step: Compute | Loop) -> bool:
    return isinstance(step, Loop) and any(isinstance(s, Loop) for s in step.body)


def _call(ctx: Context, part: _Part, system: System, loop: Loop, back: System | None, states: list[str]) -> None:
    """The functions, and the call with its results; without an adjoint, of the steps alone."""
    results = list(system.outputs)
    kept = [t.name for t in back.inputs() if t.name in set(loop.tensors())] if back else []
    extra = [n for n in kept if n not in results]
    arguments: dict[str, str] = {}
    for name, value in part.given.items():
        arguments[name] = _argument(ctx, name, value, arguments)
    given = {n: Value(arguments[n], v.dims, v.dtype) for n, v in part.given.items()}
    function = ctx.names.fresh(f"{states[0]}_steps")
    _forward(ctx, part, function, system, loop, given, (results, extra, states))
    if back:
        _backward(ctx, part, f"{function}_adjoint", back, given, [*kept, *(f"{n}.grad" for n in results)], states)
    outer = ", ".join(v.text for v in part.given.values())
    names = {n: ctx.names.fresh(f"{n}_" if n in states else n) for n in results}
    ends = {n: ctx.names.fresh(f"{n}_last") for n in states}
    found = [*names.values(), *ends.values()]
    every = [*results, *(f"{n}.final" for n in states), *extra]
    places = tuple_text(str(every.index(n)) for n in kept)
    texts = [function, f"{function}_adjoint", f"[{outer}]", str(len(found)), places] if back else [outer, "False"]
    called = ctx.support("stepped") if back else function
    ctx.call(elements(found), called, texts, "], [".join(ctx.shape((BATCH, *_indices(ctx, n))) for n in results))
    for name, variable in names.items():
        ctx.places[name] = Stored(Value(variable, (BATCH, *_indices(ctx, name)), ctx.system.tensors[name].dtype))
    for name, variable in ends.items():
        if name in ctx.records and ctx.records[name].tail is build.ONE:
            ctx.lasts[name] = _last(ctx, name, variable)


def _indices(ctx: Context, name: str) -> tuple[str, ...]:
    return tuple(i for i in ctx.system.tensors[name].indices if i not in ctx.fixed)


def _last(ctx: Context, name: str, variable: str) -> str:
    """The last value of a state, once all loops around are over."""
    if not ctx.loops:
        return variable
    tensor, time = ctx.system.tensors[name], ctx.records[name].position
    held = [i for i in tensor.indices if i in ctx.fixed]
    entries = ctx.names.fresh(f"{name}_lasts")
    ctx.loops[0].before.add(f"{entries} = {{}}")
    ctx.block.add(f"{entries}[{', '.join(ctx.fixed[i] for i in held)}] = {variable}")
    return str(_recurrence().gathered(ctx, entries, tensor, held, (BATCH, *tensor.indices[:time], *tensor.indices[time + 1 :])))


def _argument(ctx: Context, name: str, value: Value, others: dict[str, str]) -> str:
    """The parameter of a function for an operand: the name that it has outside, if it has one and no other operand is it."""
    text, known = value.text, ctx.names.taken - set(others.values())
    return text if text.isidentifier() and text in known else ctx.names.fresh(name)


def _child(ctx: Context, part: _Part, system: System, given: dict[str, Value]) -> Context:
    """What is known inside a function: sizes, and its arguments."""
    found = Context(
        system, ctx.names, Block(_before(ctx).indent + 1), ctx.parameters, ctx.options, ctx.target,
        size_lines=ctx.size_lines, index_lines=ctx.index_lines, helpers=ctx.helpers, batched=False, uses=uses(system),
        sizes={**ctx.sizes, part.batch: ctx.batch}, option_variables=dict(ctx.option_variables), batch=ctx.batch,
        caches=[{}],
        like=next((v.text for v in given.values() if v.dtype in SMOOTH), ctx.like),
    )  # fmt: skip
    found.places |= {n: Stored(v) for n, v in given.items()}
    return found


def _forward(
    ctx: Context,
    part: _Part,
    function: str,
    system: System,
    loop: Loop,
    given: dict[str, Value],
    names: tuple[list[str], list[str], list[str]],
) -> None:
    """`def S_steps(.., keep)`: results, the last states, and what else the adjoint reads, if that is to be kept."""
    results, extra, states = names
    inner = _child(ctx, part, system, given)
    inner.keep = ctx.names.fresh("keep")
    inner.block.add(f'"""Every step: {", ".join(safe(n) for n in results) or "no output"}, then the last states."""')
    recurrence = _recurrence()
    recurrence.execute(inner, loop, Readers(whole=frozenset(results), late=frozenset(extra)))
    texts = [_text(inner, n, system.tensors[n].indices) for n in results]
    position = dict(loop.positions)
    for n in states:
        end = "0" if loop.reverse else f"{inner.length(system.tensors[n].indices[position[n]])} - 1"
        texts.append(inner.finished[n].entry(end))
    if extra:
        inner.block.add(f"if not {inner.keep}:")
        inner.block.add(f"    return {tuple_text(texts)}")
        for tensor, keys in inner.unclosed:
            recurrence.close(inner, tensor, keys)
        texts += [_text(inner, n, system.tensors[n].indices) for n in extra]
    inner.block.add(f"return {tuple_text(texts)}")
    _define(ctx, part, inner, function, [*(v.text for v in given.values()), f"{inner.keep}: bool"])


def _backward(
    ctx: Context, part: _Part, function: str, back: System, given: dict[str, Value], more: list[str], states: list[str]
) -> None:
    """`def S_steps_adjoint(..)`: a gradient for each operand, from what was kept and those of the results."""
    more = [*more, *(f"{n}.final.grad" for n in states)]
    names = {n: ctx.names.fresh(n) for n in more}
    known = {n: Value(v, back.tensors[n].indices, back.tensors[n].dtype) for n, v in names.items() if n in back.tensors}
    inner = _child(ctx, part, back, {**given, **known})
    inner.block.add('"""The gradient of each operand, from those of the results."""')
    none = Stepping((), False, "it is an adjoint")
    for step in sink(back, schedule(back)):
        _recurrence().execute(inner, step, readers_of(inner, step, none))
    bars = dict(zip([n for n, v in given.items() if v.dtype in SMOOTH], back.outputs, strict=True))
    sides = [_text(inner, bars[n], v.dims) if n in bars else "None" for n, v in given.items()]
    inner.block.add(f"return {tuple_text(sides)}")
    _define(ctx, part, inner, function, [*(v.text for v in given.values()), *names.values()])


def _recurrence() -> Any:
    """It writes loops, and asks this module first."""
    from . import recurrence

    return recurrence


def _text(ctx: Context, name: str, dims: tuple[str, ...]) -> str:
    """A tensor over all these dimensions, in this order."""
    tensor = ctx.system.tensors[name]
    with ctx.equation(tensor):
        value = reads.read(ctx, build.read(name, [build.index(i) for i in tensor.indices], tensor.dtype))
        return expressions.full(ctx, permuted(value, dims), dims, tensor.dtype).text


def _define(ctx: Context, part: _Part, inner: Context, function: str, arguments: list[str]) -> None:
    """A nested function of the lines that were written, and what they have learned of sizes."""
    ctx.sizes |= {k: v for k, v in inner.sizes.items() if k != part.batch}
    _before(ctx).add(f"def {function}({', '.join(arguments)}) -> Any:")
    _before(ctx).lines += inner.block.lines


def _before(ctx: Context) -> Block:
    """Where functions are defined: before all loops."""
    return ctx.loops[0].before if ctx.loops else ctx.block

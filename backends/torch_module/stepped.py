"""A recurrence over the stream as two nested functions: its steps, and those of the adjoint that `forms.adjoint` derives.

Autograd would keep every intermediate of every step and add up the gradient of each weight step by step. The adjoint is
a loop over what recurs alone: it keeps the operands and the states, computes the rest of the steps at all positions at
once, and contracts over positions after the loop. The batch is an index like any other here, so that the gradient of a
weight, which has none, is summed over it.

What the steps read from outside are operands: what `hoist` has computed before the loop, and whole tensors. A loop that
is not of this kind (nested, over what an input decides, reading further than one step) stays as autograd records it.
Entry point: `run`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from seqdsl.forms.adjoint import End, adjoint_of_steps, with_starts
from seqdsl.ir import build
from seqdsl.ir.dependence import Compute, Loop, schedule
from seqdsl.ir.differentiate import NotDifferentiable
from seqdsl.ir.node import Node, read_names, walk
from seqdsl.ir.node import reads as reads_below
from seqdsl.ir.ops import OPS, remake
from seqdsl.ir.order import difference
from seqdsl.ir.system import Index, System, Tensor, index_names, reached

from . import expressions, reads
from .context import Block, Context, Stored
from .loops import sink
from .names import safe, tuple_text
from .prologue import Stepping
from .readers import Readers, readers_of, uses
from .table import ONLINE
from .values import BATCH, Value, permuted, plain

SMOOTH = ("real", "complex")
SHARED = frozenset({"maximum", "minimum", "max", "min"})  # where two are equal autograd sends each its share, the adjoint one all
Start = Callable[[Tensor], str]  # the text of what comes before the first step


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
            if node not in self.names:
                value = plain(hoisted)
                label = value.text if value.text.isidentifier() else "given"
                self.names[node] = build.numbered(label, {*self.outer.system.tensors, *self.given})
                self._give(self.names[node], self.over(value), node.dtype)
            return self._read(self.names[node])
        if node.op == "read":
            return self._tensor(node)
        args = tuple(self.inside(a) for a in node.args)
        return node if args == node.args else remake(node, args)

    def _tensor(self, node: Node) -> Node:
        ctx, name = self.outer, str(node.attr)
        args = [self.inside(a) for a in node.args]
        if name in dict(self.loop.positions):
            return build.read(name, [build.index(self.batch), *args], node.dtype)
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


def run(ctx: Context, loop: Loop, after: Readers, start: Start) -> bool:
    """Write the two functions and the call, with its results as the loop's tensors; False where the loop is not of this
    kind. What does not depend on the loop has been computed before."""
    states = _states(ctx, loop, after)
    if not states:
        return False
    batch = build.fresh("batch", set(ctx.system.indices))
    part = _Part(ctx, loop, batch)
    positions = dict(loop.positions)
    order = [t for t in ctx.system.derived() if t.name in positions]
    with ctx.equation(order[0]):
        own = [replace(t, indices=(batch, *t.indices), rhs=part.inside(t.rhs), edges=()) for t in order if t.rhs is not None]
    system = replace(
        ctx.system,
        tensors={**part.inputs, **{t.name: t for t in own}},
        indices={**ctx.system.indices, batch: Index(batch, batch, None)},
        outputs=tuple(t.name for t in own if t.name in after.whole),
        record=(), finals={}, claims=(), checks=(), constraints=(),
    )  # fmt: skip
    if ctx.past and any(_counts(system, t, loop.axis) for t in own):
        return False
    ends = [End(n, positions[n] + 1, loop.reverse) for n in states]
    system = with_starts(system, ends)
    system = replace(system, outputs=(*system.outputs, *_unseen(system, states)))
    plan = sink(system, schedule(system))
    try:
        back = adjoint_of_steps(system, ends)
    except NotDifferentiable:
        return False
    if len(plan) != 1 or not isinstance(plan[0], Loop) or any(_nested(s) for s in sink(back, schedule(back))):
        return False
    for name in states:
        label = system.tensors[name].edges[0].tensor
        value = Value(start(ctx.system.tensors[name]), (BATCH, *_rest(ctx, name, positions[name])))
        part.given[label] = part.over(replace(value, dtype=ctx.system.tensors[name].dtype))
    _call(ctx, part, system, plan[0], back, states)
    return True


def _states(ctx: Context, loop: Loop, after: Readers) -> list[str]:
    """The tensors that a step reads from the one before; none where the loop has no adjoint that is one loop as well."""
    positions = dict(loop.positions)
    tensors = [ctx.system.tensors[n] for n in positions]
    records = [r for n in positions for r in (ctx.records.get(n), ctx.records.get(f"{n}@boundary")) if r is not None]
    if ctx.fixed or ctx.ends or not ctx.batched or loop.axis != ctx.system.stream or after.late or after.entries:
        return []
    if any(isinstance(s, Loop) or s.tensor in ctx.late for s in loop.body) or any(t.dtype not in SMOOTH for t in tensors):
        return []
    if any(r.tail is not build.ONE or r.boundary is not None or positions[r.tensor] != r.position for r in records):
        return []
    if ctx.past and any(_further(ctx, t) for t in tensors):  # the functions know the new positions alone
        return []
    if any(e.position != positions[t.name] for t in tensors for e in t.edges):
        return []
    if any(_foreign(n) for t in tensors if t.rhs is not None for n in walk(t.rhs)):
        return []
    found: dict[str, None] = {}
    for tensor in tensors:
        for read in reads_below(tensor.rhs) if tensor.rhs is not None else ():
            name = str(read.attr)
            if name not in positions:
                if not isinstance(ctx.places.get(name), Stored) or ctx.system.tensors[name].edges:
                    return []
                continue
            gap = difference(read.args[positions[name]], build.index(tensor.indices[positions[tensor.name]]))
            if set(gap) - {None} or gap.get(None, 0) not in (0, 1 if loop.reverse else -1):
                return []
            if any(read_names(a) for a in read.args):
                return []
            if gap.get(None, 0):
                found[name] = None
    named = {r.tensor for r in records}
    return list(found) if named <= {*found, *after.whole} else []


def _further(ctx: Context, tensor: Tensor) -> bool:
    """Does an equation speak of a further index of the stream, which runs over the positions before too?"""
    names = (*tensor.indices, *(index_names(tensor.rhs) if tensor.rhs is not None else ()))
    return any(ctx.on_stream(i) and not ctx.is_new(i) for i in names)


def _foreign(node: Node) -> bool:
    """Is it an operator with a gradient of its own?"""
    return node.op in SHARED | ONLINE or OPS[node.op].binding in ("scan", "last", "fold")


def _counts(system: System, tensor: Tensor, axis: str) -> bool:
    """Does a step use its position itself?"""
    pending = [tensor.rhs] if tensor.rhs is not None else []
    while pending:
        node = pending.pop()
        if node.op == "index" and system.axis(str(node.attr)) == axis:
            return True
        own = system.tensors[str(node.attr)].indices if node.op == "read" else ()
        pending += [a for a, i in zip(node.args, own, strict=True) if system.axis(i) != axis] if own else node.args
    return False


def _unseen(system: System, states: list[str]) -> list[str]:
    """The states that no output depends on: what is asked of their last value comes from themselves."""
    seen = {t.name for t in reached(system).derived()}
    return [n for n in states if n not in seen]


def _nested(step: Compute | Loop) -> bool:
    return isinstance(step, Loop) and any(isinstance(s, Loop) for s in step.body)


def _rest(ctx: Context, name: str, position: int) -> tuple[str, ...]:
    indices = ctx.system.tensors[name].indices
    return indices[:position] + indices[position + 1 :]


def _call(ctx: Context, part: _Part, system: System, loop: Loop, back: System, states: list[str]) -> None:
    """The functions, and the call with its results."""
    results = list(system.outputs)
    kept = [t.name for t in back.inputs() if t.name in set(loop.tensors())]
    extra = [n for n in kept if n not in results]
    arguments: dict[str, str] = {}
    for name, value in part.given.items():
        arguments[name] = _argument(ctx, name, value, arguments)
    given = {n: Value(arguments[n], v.dims, v.dtype) for n, v in part.given.items()}
    function = ctx.names.fresh(f"{states[0]}_steps")
    _forward(ctx, part, function, system, loop, given, (results, extra, states))
    _backward(ctx, part, f"{function}_adjoint", back, given, [*kept, *(f"{n}.grad" for n in results)], states)
    outer = ", ".join(v.text for v in part.given.values())
    names = {n: ctx.names.fresh(f"{n}_" if n in states else n) for n in results}
    ends = {n: ctx.names.fresh(f"{n}_last") for n in states}
    found = [*names.values(), *ends.values()]
    every = [*results, *(f"{n}.final" for n in states), *extra]
    places = tuple_text(str(every.index(n)) for n in kept)
    ctx.block.add(f"{', '.join(found)}{',' if len(found) == 1 else ''} = {ctx.support('stepped')}(")
    for text in (function, f"{function}_adjoint", f"[{outer}]", str(len(found)), places):
        ctx.block.add(f"    {text},")
    ctx.block.add(f")  # {', '.join(_shape(ctx, n) for n in results)}")
    for name, variable in names.items():
        tensor = ctx.system.tensors[name]
        ctx.places[name] = Stored(Value(variable, (BATCH, *tensor.indices), tensor.dtype))
    ctx.lasts.update(ends)


def _shape(ctx: Context, name: str) -> str:
    return f"[{', '.join(ctx.dim_text(d) for d in (BATCH, *ctx.system.tensors[name].indices))}]"


def _argument(ctx: Context, name: str, value: Value, others: dict[str, str]) -> str:
    """The parameter of a function for an operand: the name that it has outside, if it has one and no other operand is it."""
    text, known = value.text, ctx.names.taken - set(others.values())
    return text if text.isidentifier() and text in known else ctx.names.fresh(name)


def _child(ctx: Context, part: _Part, system: System, given: dict[str, Value]) -> Context:
    """What is known inside a function: sizes, and its arguments."""
    found = Context(
        system, ctx.names, Block(ctx.block.indent + 1), ctx.parameters, ctx.options, ctx.target,
        size_lines=ctx.size_lines, index_lines=ctx.index_lines, helpers=ctx.helpers, batched=False, uses=uses(system),
        sizes={**ctx.sizes, part.batch: ctx.batch}, batch=ctx.batch, caches=[{}],
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
    ctx.block.add(f"def {function}({', '.join(arguments)}) -> Any:")
    ctx.block.lines += inner.block.lines

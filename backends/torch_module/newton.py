"""A recurrence marked `newton` as a nested function of one step, and a call of `newton_scan`.

The step is a function of the states before and of operands: the largest parts that do not depend on a state, computed
before for all positions. Every tensor has the dimensions [B, T, lanes..], of length 1 where it does not vary, so that
one function serves one position, the same position of every piece, and all positions at once. Whatever needs a gradient
is an operand: the backward runs the function again. Entry points: `is_solved`, `solve`.
"""

from __future__ import annotations

from seqdsl.ir import build
from seqdsl.ir.dependence import Compute, Loop, build_not
from seqdsl.ir.node import Node, reads, walk
from seqdsl.ir.system import Tensor

from . import expressions
from .context import Block, Context, Stored
from .operands import Facts, Operand, Part, is_safe, outside
from .values import BATCH, Value, with_ones


def is_solved(ctx: Context, loop: Loop) -> bool:
    """Are all states of the loop marked, with a slope by each of them?"""
    tensors = [ctx.system.tensors[n] for n in loop.tensors()]
    return (
        not ctx.fixed
        and all(isinstance(s, Compute) for s in loop.body)
        and all(t.rhs is not None and t.rhs.op == "newton" and len(t.rhs.args) == 2 + len(tensors) for t in tensors)
    )


def solve(ctx: Context, loop: Loop) -> None:
    """Write the step, the call, and its results as the loop's tensors."""
    states = [ctx.system.tensors[n] for n in loop.tensors()]
    first, position = states[0], dict(loop.positions)[states[0].name]
    time = first.indices[position]
    dims = (BATCH, time, *(i for i in first.indices if i != time))
    for state in states:
        ctx.comment(state)
    with ctx.equation(first):
        given = outside(ctx, _parts(ctx, states), time, ())
        starts = []
        for state in states:
            assert state.rhs is not None
            value = expressions.emit(ctx, state.rhs.args[1])
            whole = expressions.full(ctx, value, (BATCH, *dims[2:]), "real")
            starts.append(with_ones(Value(whole.text, whole.dims, "real", whole.level), dims).text)
        step = ctx.names.fresh(f"{first.name}_step")
        _function(ctx, step, states, given, dims)
        names = [ctx.names.fresh(s.name) for s in states]
        listed = ", ".join(with_ones(o.outer, dims).text for o in given)
        flag = ", reverse=True" if loop.reverse else ""
        ctx.block.add(f"{', '.join(names)}{',' if len(names) == 1 else ''} = {ctx.support('newton_scan')}(")
        for text in (step, f"[{', '.join(starts)}]", f"[{listed}]", f"{ctx.length(time)}{flag}"):
            ctx.block.add(f"    {text},")
        ctx.block.add(f")  # [{', '.join(ctx.dim_text(d) for d in dims)}]")
    for state, name in zip(states, names, strict=True):
        ctx.places[state.name] = Stored(Value(name, dims, "real"))


def _parts(ctx: Context, states: list[Tensor]) -> list[Part]:
    """The largest parts without a state, each below the conditions of the choices around it."""
    names = frozenset(s.name for s in states)
    found: dict[Node, Part] = {}
    dependent = {n for s in states if s.rhs is not None for n in walk(s.rhs) if any(r.attr in names for r in reads(n))}

    def visit(node: Node, facts: Facts) -> None:
        if node in found or node.op == "read" and node.attr in names:
            return
        if node not in dependent:
            if not any(n.op in ("read", "index") for n in walk(node)):
                return  # a number
            if node.op in ("read", "index") or is_safe(node, facts) or not node.args:
                found[node] = Part(node, facts)
                return
        if node.op == "where":
            condition, a, b = node.args
            visit(condition, facts)
            visit(a, (*facts, *build.conjuncts(condition)))
            visit(b, (*facts, *build.conjuncts(build_not(condition))))
            return
        for arg in node.args:
            visit(arg, facts)

    for state in states:
        assert state.rhs is not None
        for node in (state.rhs.args[0], *state.rhs.args[2:]):
            visit(node, ())
    return list(found.values())


def _function(ctx: Context, name: str, states: list[Tensor], given: list[Operand], dims: tuple[str, ...]) -> None:
    """`def h_step(before, given, slopes)`: the states after one step, and their slopes if asked for."""
    before = ctx.block, ctx.hoisted, ctx.caches, ctx.order
    block = ctx.block = Block(before[0].indent + 1)
    ctx.caches, ctx.order = [{}], [d for d in dims if d != BATCH]
    entering = [ctx.names.fresh(f"{s.name}_before") for s in states]
    known = {o.node: Value(o.inner.text, dims, o.inner.dtype) for o in given}
    for state, variable in zip(states, entering, strict=True):
        assert state.rhs is not None
        for other in states:
            for read in reads(other.rhs) if other.rhs is not None else ():
                if read.attr == state.name:
                    known[read] = Value(variable, dims, "real")
    ctx.hoisted = {**ctx.hoisted, **known}
    operands = [o.inner.text for o in given]
    block.add(f"{', '.join(entering)}{',' if len(entering) == 1 else ''} = before")
    if operands:
        block.add(f"{', '.join(operands)}{',' if len(operands) == 1 else ''} = given")
    after = [_named(ctx, s.name, s.rhs.args[0]) for s in states if s.rhs is not None]
    block.add("if not slopes:")
    block.add(f"    return [{', '.join(after)}], []")
    rows = []
    for state in states:
        assert state.rhs is not None
        ctx.current = f"{state.name}_slope"
        by = [_slope(ctx, state.name, s.name, node) for s, node in zip(states, state.rhs.args[2:], strict=True)]
        rows.append(f"[{', '.join(by)}]")
    ctx.current = states[0].name
    block.add(f"return [{', '.join(after)}], [{', '.join(rows)}]")
    lines = block.lines
    ctx.block, ctx.hoisted, ctx.caches, ctx.order = before
    ctx.block.add(
        f"def {name}(before: Any, given: Any, slopes: bool) -> Any:  # one step, its derivatives if asked for"
    )
    ctx.block.lines.extend(lines)


def _named(ctx: Context, wanted: str, node: Node) -> str:
    ctx.current = wanted
    value = expressions.tensor(ctx, expressions.convert(ctx, expressions.emit(ctx, node), "real"), "real")
    return ctx.bind(f"{wanted}_after", value).text


def _slope(ctx: Context, state: str, by: str, node: Node) -> str:
    if node is build.ZERO:
        return "None"
    value = expressions.tensor(ctx, expressions.convert(ctx, expressions.emit(ctx, node), "real"), "real")
    return value.text if value.text.isidentifier() else ctx.bind(f"{state}_by_{by}", value).text

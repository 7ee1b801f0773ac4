"""A recurrence marked `newton` as a nested function of one step, and a call of `newton_scan`.

The step is a function of the states before and of operands: the largest parts that do not depend on a state, computed
before for all positions. Every tensor has the dimensions [B, T, lanes..], of length 1 where it does not vary, so that
one function serves one position, the same position of every piece, and all positions at once. Whatever needs a gradient
is an operand: the backward runs the function again.

Where entries mix along an axis, it is the last of the lanes; a slope with one dimension more than a state is a matrix
[.., own entry, entry before], one of small rank a diagonal, columns and rows, and weights are read as they are.
Entry points: `is_solved`, `solve`, `states_before`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from seqdsl.algebra.affine import NoMatch
from seqdsl.forms.low_rank import Outer
from seqdsl.forms.newton import slopes
from seqdsl.forms.newton_rank import low_rank
from seqdsl.ir import build
from seqdsl.ir.dependence import Compute, Loop, build_not
from seqdsl.ir.node import Node, reads, walk
from seqdsl.ir.ops import bound
from seqdsl.ir.system import System, Tensor

from . import expressions
from .context import Block, Context, Stored
from .names import elements
from .operands import Facts, Operand, Part, is_safe, outside
from .table import UNSAFE
from .values import BATCH, Value, is_fused, with_ones

Outers = list[list[list[Outer]]] | None  # of each state, by each before: the terms of a matrix of small rank


def is_solved(system: System, loop: Loop) -> bool:
    """Are all states of the loop marked, with a slope by each of them?"""
    tensors = [system.tensors[n] for n in loop.tensors()]
    return (
        all(isinstance(s, Compute) for s in loop.body)
        and all(t.rhs is not None and t.rhs.op == "newton" for t in tensors)
        and all(t.rhs is not None and len(t.rhs.args) in (2 + len(tensors), 2 + 2 * len(tensors)) for t in tensors)
    )


def _column(states: list[Tensor]) -> str | None:
    """The index of the entries before, where slopes are matrices."""
    matrices = [m for s in states if s.rhs is not None for m in s.rhs.args[2 + len(states) :]]
    return next((bound(m)[0] for m in matrices if m is not build.ZERO), None)


def solve(ctx: Context, loop: Loop) -> None:
    """Write the step, the call, and its results as the loop's tensors."""
    states = [ctx.system.tensors[n] for n in loop.tensors()]
    first, position = states[0], dict(loop.positions)[states[0].name]
    time = first.indices[position]
    column = _column(states)
    mixing = {i for i in first.indices if column is not None and i == column.rstrip("'")}
    lanes = tuple(i for i in first.indices if i != time and i not in mixing and i not in ctx.fixed)
    dims = (BATCH, time, *lanes, *mixing)
    for state in states:
        ctx.comment(state)
    with ctx.equation(first):
        outers = low_rank(ctx.system, states)
        given = outside(ctx, _parts(ctx, states, outers), time, ())
        starts = []
        for state in states:
            assert state.rhs is not None
            value = expressions.emit(ctx, state.rhs.args[1])
            whole = expressions.full(ctx, value, (BATCH, *dims[2:]), "real")
            starts.append(with_ones(Value(whole.text, whole.dims, "real", whole.level), dims).text)
        step = ctx.names.fresh(f"{first.name}_step")
        _function(ctx, step, states, given, dims, column, outers)
        names = [ctx.names.fresh(s.name) for s in states]
        listed = ", ".join(with_ones(o.outer, _shape(o, dims)).text for o in given)
        rates = _rates(ctx, ctx.names.fresh(f"{first.name}_rates"), states, given, dims) if column is None else None
        flag = (", reverse=True" if loop.reverse else "") + (", mixing=True" if column is not None else "")
        flag += (", low_rank=True" if outers else "") + (f", rates={rates}" if rates else "")
        own = ctx.target.steps
        stand_in = None if own is None else own.newton(ctx, states, given, dims, column is not None)
        function, told = (ctx.support("newton_scan"), "") if stand_in is None else stand_in
        flag += told + ctx.each(time)
        arguments = [step, f"[{', '.join(starts)}]", f"[{listed}]", f"{ctx.length(time)}{flag}"]
        ctx.call(elements(names), function, arguments, ctx.shape(dims))
    for state, name in zip(states, names, strict=True):
        ctx.places[state.name] = Stored(Value(name, dims, "real"))


def _shape(operand: Operand, dims: tuple[str, ...]) -> tuple[str, ...]:
    """The dimensions of an operand: those of the states, or its own behind batch and time, where it has others."""
    own = operand.outer.dims
    return dims if set(own) <= set(dims) else (*dims[:2], *(d for d in own if d not in dims[:2]))


def _parts(ctx: Context, states: list[Tensor], outers: Outers) -> list[Part]:
    """The largest parts without a state, each below the conditions of the choices around it."""
    before = {r for s in states for r in states_before(ctx, states, s)}
    found: dict[Node, Part] = {}
    wanted = _written(states, outers)
    dependent = {n for node in wanted for n in walk(node) if not before.isdisjoint(reads(n))}

    def visit(node: Node, facts: Facts) -> None:
        if node in found or node in before:
            return
        if node not in dependent:
            if not any(n.op in ("read", "index") for n in walk(node)):
                return  # a number
            if node.op in ("read", "index") or is_safe(node, facts) or not node.args:
                found[node] = Part(node, facts)
                return
        if node.op == "where":
            condition, *branches = node.args
            visit(condition, facts)
            for branch, told in zip(branches, (condition, build_not(condition)), strict=True):
                held = build.conjuncts(told)
                if any(n.op in UNSAFE for n in walk(branch) if n in dependent):  # which are masked by what holds there
                    for fact in held:
                        dependent.update(n for n in walk(fact) if not before.isdisjoint(reads(n)))
                        visit(fact, facts)
                visit(branch, (*facts, *held))
            return
        for arg in node.args:
            visit(arg, facts)

    for node in wanted:
        visit(node, ())
    return list(found.values())


def _written(states: list[Tensor], outers: Outers) -> list[Node]:
    """What a step computes: the states after it, and their slopes, of matrices of small rank the sides."""
    found: list[Node] = []
    count = len(states)
    for row, state in enumerate(states):
        assert state.rhs is not None
        found += [state.rhs.args[0], *state.rhs.args[2 : 2 + count]]
        if outers is None:
            found += state.rhs.args[2 + count :]
        else:
            found += [side for terms in outers[row] for t in terms for side in (t.left, t.right)]
    return found


def states_before(ctx: Context, states: list[Tensor], reader: Tensor) -> list[Node]:
    """The reads of states at the position before; others, at steps of loops around that are over, are operands."""
    own = {s.name: s for s in states}
    found = [r for r in reads(reader.rhs) if r.attr in own] if reader.rhs is not None else []
    return [
        r
        for r in found
        if all(a is build.index(i) for i, a in zip(own[str(r.attr)].indices, r.args, strict=True) if i in ctx.fixed)
    ]


def _function(
    ctx: Context,
    name: str,
    states: list[Tensor],
    given: list[Operand],
    dims: tuple[str, ...],
    column: str | None,
    outers: Outers,
) -> None:
    """`def h_step(before, given, slopes)`: the states after one step, and their slopes if asked for."""
    block = Block(ctx.block.indent + 1)
    with _inside_step(ctx, block, states, given, dims, column) as entering:
        into = [ctx.names.fresh(f"{s.name}_into") for s in states]
        block.add(f"{elements(into)} = into")
        after = [_named(ctx, s.name, s.rhs.args[0], place) for s, place in zip(states, into, strict=True) if s.rhs is not None]
        block.add("if not slopes:")
        block.add(f"    return [{', '.join(after)}], []")
        rows = []
        for row in range(len(states)):
            ctx.current = f"{states[row].name}_slope"
            rows.append(f"[{', '.join(_slopes(ctx, states, row, entering, dims, column, outers))}]")
        ctx.current = states[0].name
        block.add(f"return [{', '.join(after)}], [{', '.join(rows)}]")
    arguments = f"before: Any, given: Any, slopes: bool, into: Any = ({'None, ' * len(states)})"
    _define(ctx, name, arguments, block, "one step, its derivatives if asked for")


@contextmanager
def _inside_step(
    ctx: Context, block: Block, states: list[Tensor], given: list[Operand], dims: tuple[str, ...], column: str | None
) -> Iterator[list[str]]:
    """A function of the states before and the operands: the names of these states."""
    order = [d for d in dims if d != BATCH]
    with ctx.having(block=block, hoisted=ctx.hoisted, caches=[{}], order=order, fused=True, stepping=True):
        entering = [ctx.names.fresh(f"{s.name}_before") for s in states]
        known = {o.node: _inside(o, dims) for o in given}
        for state, variable in zip(states, entering, strict=True):
            for other in states:
                for read in states_before(ctx, [state], other):
                    at = dict(zip(state.indices, read.args, strict=True))
                    known[read] = Value(variable, (*dims[:-1], str(at[dims[-1]].attr)) if column else dims, "real")
        ctx.hoisted = {**ctx.hoisted, **known}
        operands = [o.inner.text for o in given]
        block.add(f"{elements(entering)} = before")
        if operands:
            block.add(f"{elements(operands)} = given")
        yield entering


def _define(ctx: Context, name: str, arguments: str, block: Block, remark: str) -> None:
    loops = "".join(f", {v}: int = {v}" for v in ctx.variables_in(block.lines))
    ctx.block.add(f"def {name}({arguments}{loops}) -> Any:  # {remark}")
    ctx.block.lines.extend(block.lines)


def _rates(ctx: Context, name: str, states: list[Tensor], given: list[Operand], dims: tuple[str, ...]) -> str | None:
    """Two functions of the derivatives of an entrywise step, for its gradient at all positions: by the states and by the
    operands that are as wide as they, and by the others, which are given those. And which ones are wide.

    None where autograd has to find them: a part that is only safe below a condition may hold sums, or other axes.
    """
    smooth = [o for o in given if o.outer.dtype in ("real", "complex")]
    if any(o.outer.dtype == "complex" or not set(o.outer.dims) <= set(dims) for o in smooth):
        return None
    wide = [o for o in smooth if set(o.outer.dims) == set(dims)]
    other = [o for o in smooth if o not in wide]
    before = {r: str(r.attr) for s in states for r in states_before(ctx, states, s)}
    by = [*before, *(o.node for o in smooth)]
    try:
        derivatives = [dict(zip(by, slopes(s.rhs.args[0], by), strict=True)) for s in states if s.rhs is not None]
    except NoMatch:
        return None
    _wide_rates(ctx, name, states, given, dims, wide, before, derivatives)
    narrow = ctx.names.fresh(f"{name}_of_others")
    _other_rates(ctx, narrow, states, given, dims, (wide, other), derivatives)
    ctx.current = states[0].name
    places = [[given.index(o) for o in some] for some in (wide, other)]
    return f"({name}, {narrow}, {places[0]}, {places[1]})"


def _wide_rates(
    ctx: Context,
    name: str,
    states: list[Tensor],
    given: list[Operand],
    dims: tuple[str, ...],
    wide: list[Operand],
    before: dict[Node, str],
    derivatives: list[dict[Node, Node]],
) -> None:
    """`def h_rates(before, given)`: by the states, and by the operands that are as wide."""
    block = Block(ctx.block.indent + 1)
    rows: list[list[str]] = []
    names: list[list[str]] = []
    with _inside_step(ctx, block, states, given, dims, None):
        for state, found in zip(states, derivatives, strict=True):
            ctx.current = f"{state.name}_rate"
            names.append([_remembered(ctx, f"{state.name}_by_{o.inner.text}", found[o.node], dims) for o in wide])
            own = [build.total(found[r] for r, n in before.items() if n == s.name) for s in states]
            rows.append([_whole(ctx, f"{state.name}_by_{s.name}", d, dims) for s, d in zip(states, own, strict=True)])
        block.add(f"return {_table(rows)}, {_table(names)}")
    _define(ctx, name, "before: Any, given: Any", block, "the derivatives of a step by states, and by what is as wide")


def _other_rates(
    ctx: Context,
    name: str,
    states: list[Tensor],
    given: list[Operand],
    dims: tuple[str, ...],
    operands: tuple[list[Operand], list[Operand]],
    derivatives: list[dict[Node, Node]],
) -> None:
    """`def h_rates_of_others(before, given, wide)`: by the other operands, given the derivatives by the wide ones."""
    block, (wide, other) = Block(ctx.block.indent + 1), operands
    with _inside_step(ctx, block, states, given, dims, None):
        taken = [[ctx.names.fresh(f"{s.name}_by_{o.inner.text}") for o in wide] for s in states]
        known = {
            found[o.node]: Value(variable, dims, "real")
            for row, found in zip(taken, derivatives, strict=True)
            for variable, o in zip(row, wide, strict=True)
            if found[o.node].free and found[o.node].op not in ("read", "index")
        }
        ctx.hoisted = {**ctx.hoisted, **known}
        block.add(f"{_table(taken)} = wide")
        rows = []
        for state, found in zip(states, derivatives, strict=True):
            ctx.current = f"{state.name}_rate"
            rows.append([_whole(ctx, f"{state.name}_by_{o.inner.text}", found[o.node], dims) for o in other])
        block.add(f"return {_table(rows)}")
    _define(ctx, name, "before: Any, given: Any, wide: Any", block, "the derivatives by the other operands")


def _remembered(ctx: Context, name: str, node: Node, dims: tuple[str, ...]) -> str:
    """A derivative that may be a part of others, too."""
    value = expressions.emit(ctx, node)
    if node is build.ZERO or value.static:
        return _whole(ctx, name, node, dims)
    value = value if value.text.isidentifier() else ctx.bind(name, value)
    expressions.remember(ctx, node, value)
    return with_ones(value, dims).text


def _table(rows: list[list[str]]) -> str:
    return f"[{', '.join('[' + ', '.join(row) + ']' for row in rows)}]"


def _slopes(
    ctx: Context,
    states: list[Tensor],
    row: int,
    entering: list[str],
    dims: tuple[str, ...],
    column: str | None,
    outers: Outers,
) -> list[str]:
    """The slopes of a state, by each of the states before."""
    mark, own, count = states[row].rhs, states[row].name, len(states)
    assert mark is not None
    diagonals, matrices = mark.args[2 : 2 + count], mark.args[2 + count :]
    if column is None:
        return [_whole(ctx, f"{own}_by_{s.name}", node, dims) for s, node in zip(states, diagonals, strict=True)]
    if outers is None:
        pairs = zip(states, diagonals, matrices, strict=True)
        return [_matrix(ctx, f"{own}_by_{s.name}", d, m, (*dims, column)) for s, d, m in pairs]
    parts = zip(states, entering, diagonals, outers[row], strict=True)
    return [_outer(ctx, f"{own}_by_{s.name}", v, d, terms, (*dims, column)) for s, v, d, terms in parts]


def _inside(operand: Operand, dims: tuple[str, ...]) -> Value:
    """An operand in the step: with all dimensions of the states, or a weight without batch and time."""
    shape, inner = _shape(operand, dims), operand.inner
    if shape != dims and not {*dims[:2]} & set(operand.outer.dims):
        return Value(f"{inner.text}[0, 0]", shape[2:], inner.dtype)
    return Value(inner.text, shape, inner.dtype)


def _outer(ctx: Context, name: str, like: str, diagonal: Node, terms: list[Outer], dims: tuple[str, ...]) -> str:
    """A slope as a diagonal, columns and rows, the rank their last dimension."""
    first = _whole(ctx, name, diagonal, dims[:-1])
    if not terms:
        return first
    lefts = [_whole(ctx, f"{name}_column", t.left, (*dims[:-1], *t.over)) for t in terms]
    at = len(dims) - 2  # of the row's index, along which a right side has length 1
    rights = [_whole(ctx, f"{name}_row", t.right, (*dims, *t.over)) + f".select({at}, 0)" for t in terms]
    sides = (f"{ctx.helper('newton_columns')}({like}, {', '.join(side)})" for side in (lefts, rights))
    return f"({first}, {', '.join(sides)})"


def _matrix(ctx: Context, name: str, diagonal: Node, matrix: Node, dims: tuple[str, ...]) -> str:
    """A slope that is a diagonal, a matrix, or their sum."""
    if matrix is build.ZERO:
        return _whole(ctx, name, diagonal, dims[:-1])
    text = _whole(ctx, name, matrix.args[0], dims)
    if dims[-1] not in matrix.args[0].free:
        text += f".expand({'-1, ' * (len(dims) - 1)}{ctx.length(dims[-2])})"
    if diagonal is build.ZERO:
        return text
    sum_ = f"_newton_plus({text}, {_whole(ctx, f'{name}_diagonal', diagonal, dims[:-1])})"
    ctx.helper("_newton_plus")
    return ctx.bind(name, Value(sum_, dims, "real")).text


def _whole(ctx: Context, name: str, node: Node, dims: tuple[str, ...]) -> str:
    """A slope with all of its dimensions, of length 1 where it does not vary; the lanes that mix at their length."""
    if node is build.ZERO:
        return "None"
    ctx.order = [d for d in dims if d != BATCH]
    value = expressions.tensor(ctx, expressions.convert(ctx, expressions.emit(ctx, node), "real"), "real")
    value = with_ones(value, dims)
    return value.text if value.text.isidentifier() else ctx.bind(name, value).text


def _named(ctx: Context, wanted: str, node: Node, place: str) -> str:
    """A state after the step; one that comes of a single operation is written to its place, where there is one."""
    ctx.current = wanted
    value = expressions.tensor(ctx, expressions.convert(ctx, expressions.emit(ctx, node), "real"), "real")
    if is_fused(value):
        value = replace(value, text=f"{value.text[:-1]}, out={place})")
    return ctx.bind(f"{wanted}_after", value).text

"""A recurrence over the levels of a graph (`forms.levels`) as its pairs, a nested function of one step, and one call.

Sequences and positions are one dimension in a step, `cell`: each sequence of the batch may have a graph of its own. What
a sum runs over are pairs of a position and an item, and one dimension as well, `pair`. Operands are the largest parts
without a state: at the positions, at the pairs, or the same everywhere; whatever needs a gradient is one of them, since
the backward runs the function again. Entry points: `is_levels`, `run`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from seqdsl.forms.levels import join_of
from seqdsl.ir import build
from seqdsl.ir.dependence import Compute, Loop, build_not
from seqdsl.ir.node import Node, read_names, reads, rebuild, walk
from seqdsl.ir.ops import OPS, bound
from seqdsl.ir.system import Index, Tensor

from . import expressions, history
from .context import Block, Context, Stored
from .names import elements
from .operands import is_safe
from .values import ATOM, BATCH, BIT_AND, CHOICE, SUM, Value, plain, with_ones

FUNCTIONS = {"sum": "_level_sum", "max": "_level_max", "min": "_level_max", "logsumexp": "_level_logsumexp"}


@dataclass(eq=False)
class _Group:
    """The pairs of one guard: their variable, and the dimension that runs over them in a step."""

    number: int
    item: str
    pairs: str
    dim: str


@dataclass
class _Graph:
    """What is known of a loop while it is written: `places` are the positions of the looped index in the tensors."""

    tensors: list[Tensor]
    places: dict[str, int]
    at: str
    cell: str
    groups: dict[tuple[Node, str], _Group] = field(default_factory=dict)
    sums: dict[str, _Group] = field(default_factory=dict)  # tensor -> the pairs that it sums over
    reads: dict[tuple[str, _Group | None, Node], str] = field(default_factory=dict)
    here: dict[str, str] = field(default_factory=dict)  # operand as text -> its variable in the step
    there: dict[tuple[int, str], str] = field(default_factory=dict)
    fixed: dict[str, str] = field(default_factory=dict)

    def names(self) -> frozenset[str]:
        """The tensors of the loop."""
        return frozenset(self.places)

    def own(self, read: Node) -> bool:
        """Is it a read of the loop at the position itself?"""
        return read.args[self.places[str(read.attr)]] is build.index(self.at)

    def lanes(self, tensor: Tensor) -> tuple[str, ...]:
        """What a tensor varies along besides the position."""
        return tuple(i for i in tensor.indices if i != self.at)


def is_levels(ctx: Context, loop: Loop) -> bool:
    """Is it marked as one over the levels of a graph?"""
    rhs = [ctx.system.tensors[n].rhs for n in loop.tensors()]
    return not ctx.fixed and all(r is not None and r.op == "level" for r in rhs)


def run(ctx: Context, loop: Loop, needed: Collection[str]) -> None:
    """Write the pairs, the step, the call, and its results as the loop's tensors."""
    order = [ctx.system.tensors[s.tensor] for s in loop.body if isinstance(s, Compute)]
    places, system = dict(loop.positions), ctx.system
    at = order[0].indices[places[order[0].name]]
    graph = _Graph(order, places, at, f"{order[0].name}.cell")
    for tensor in order:
        ctx.comment(tensor)
    with ctx.equation(order[0]):
        for tensor in order:
            if any(not graph.own(r) for r in _loop_reads(graph, _step_of(tensor))):
                graph.sums[tensor.name] = _group(ctx, graph, tensor)
        dims = [graph.cell, *(g.dim for g in graph.groups.values())]
        ctx.system = system.with_indices(*(Index(d, d, None) for d in dims))
        far = {str(r.attr) for t in order for r in _loop_reads(graph, _step_of(t)) if not graph.own(r)}
        kept = [t for t in order if t.name in far or t.name in needed]
        step = ctx.names.fresh(f"{_word(order[-1].name)}_step")
        lines = _function(ctx, graph, step, kept)
        ctx.system = system
        _call(ctx, graph, step, kept, lines)


def _word(name: str) -> str:
    return name.replace(".", "_")


def _step_of(tensor: Tensor) -> Node:
    assert tensor.rhs is not None
    node: Node = tensor.rhs.args[0]
    return node


def _loop_reads(graph: _Graph, node: Node) -> list[Node]:
    return [r for r in reads(node) if r.attr in graph.places]


def _group(ctx: Context, graph: _Graph, tensor: Tensor) -> _Group:
    """The pairs of a sum: found by a join, or from all; then those that the rest of the guard lets through."""
    node = _step_of(tensor)
    guard, (item,) = node.args[-1], bound(node)
    if (guard, item) in graph.groups:
        return graph.groups[guard, item]
    number = len(graph.groups)
    name = ctx.names.fresh(f"{_word(tensor.name).removesuffix('_sum')}_pairs")
    group = graph.groups[guard, item] = _Group(number, item, name, f"{graph.tensors[0].name}.pair{number or ''}")
    sizes = f"({ctx.batch}, {ctx.length(graph.at)}, {ctx.length(item)})"
    join = join_of(node)
    if join is None:
        mask = expressions.tensor(ctx, expressions.emit(ctx, guard), "bool")
        whole = with_ones(mask, (BATCH, graph.at, item)).at(ATOM)
        ctx.block.add(f"{name} = {ctx.helper('_level_pairs_of')}({whole}.expand{sizes})  # [3, pairs]")
        return group
    keys = []
    for side, index in zip(join, (graph.at, item), strict=True):
        value = plain(expressions.tensor(ctx, expressions.emit(ctx, side), "int"))
        keys.append(with_ones(value, (BATCH, index)).text)
    ctx.block.add(f"{name} = {ctx.support('level_pairs')}({', '.join(keys)}, {sizes})  # [3, pairs]")
    rest = [f for f in build.conjuncts(guard) if set(f.args) != set(join) or f.op != "eq"]
    if rest:
        kept = " & ".join(_at_pairs(ctx, graph, group, fact).at(BIT_AND + 1) for fact in rest)
        ctx.block.add(f"{name} = {ctx.helper('_level_pairs_kept')}({name}, {kept})  # [3, pairs]")
    return group


def _at_pairs(ctx: Context, graph: _Graph, group: _Group, node: Node) -> Value:
    """A term without a state at each pair, from its parts; one for all of them has length 1."""
    ctx.lengths[group.dim] = f"{group.pairs}.shape[1]"
    with ctx.having(system=ctx.system.with_indices(Index(group.dim, group.dim, None))):
        known: dict[Node, Value] = {}
        long = False  # is it one for each pair, whatever the inputs vary along?
        for part, facts in _parts(graph, node, group.item):
            if part.op == "index" and part.attr in (graph.at, group.item):
                long, row = True, 1 if part.attr == graph.at else 2
                past = " + past" if ctx.past and ctx.is_new(str(part.attr)) else ""
                known[part] = Value(f"{group.pairs}[{row}]{past}", (group.dim,), "int", SUM if past else ATOM)
                continue
            with ctx.under(*facts):
                value = plain(expressions.emit(ctx, part))
            if not value.static:
                whole = with_ones(value, (BATCH, graph.at, group.item))
                text = f"{ctx.helper('_level_picked')}({whole.text}, list({group.pairs}))"
                known[part] = Value(text, (group.dim,), value.dtype)
        with ctx.having(hoisted={**ctx.hoisted, **known}, caches=[{}]):
            result = expressions.emit(ctx, node)
    if not result.static and not long:
        result = Value(f"{result.at(ATOM)}.expand({group.pairs}.shape[1])", result.dims, result.dtype)
    return expressions.full(ctx, result, (group.dim,), node.dtype)


def _parts(graph: _Graph, node: Node, item: str | None) -> Iterator[tuple[Node, tuple[Node, ...]]]:
    """The largest parts without a state that do not tie a position to an item, none wider than its operands."""
    names, found = graph.names(), set()

    def visit(node: Node, facts: tuple[Node, ...], inner: frozenset[str]) -> Iterator[tuple[Node, tuple[Node, ...]]]:
        if node in found or node.op == "read" and node.attr in names:
            return
        if not read_names(node) & names:
            if not any(n.op in ("read", "index") for n in walk(node)):
                return  # a number
            tied = item is not None and {graph.at, item} <= node.free
            narrow = bool(OPS[node.op].binding) or any(node.free <= a.free for a in node.args)
            if node.op in ("read", "index") or not tied and narrow and is_safe(node, facts) and not node.free & inner:
                found.add(node)
                yield node, facts
                return
        if node.op == "where":
            condition, a, b = node.args
            yield from visit(condition, facts, inner)
            yield from visit(a, (*facts, *build.conjuncts(condition)), inner)
            yield from visit(b, (*facts, *build.conjuncts(build_not(condition))), inner)
            return
        below = inner | frozenset(bound(node))
        *bodies, guard = node.args if OPS[node.op].binding in ("reduce", "along") else (*node.args, build.TRUE)
        for body in bodies:
            yield from visit(body, (*facts, *build.conjuncts(guard)), below)
        yield from visit(guard, facts, below)

    yield from visit(node, (), frozenset())


def _operands(ctx: Context, graph: _Graph, node: Node, group: _Group | None) -> dict[Node, Value]:
    """The parts of a step, computed before it, as its variables: at the pairs of a group, or at the positions."""
    known: dict[Node, Value] = {}
    for part, facts in _parts(graph, node, group.item if group else None):
        with ctx.under(*facts):
            value = plain(expressions.emit(ctx, part))
        if value.static:
            continue
        if not value.text.isidentifier() or value.text.startswith("self"):
            value = ctx.bind(expressions.temporary(ctx, part).replace(".", "_"), value)
        moving = {BATCH, graph.at} | ({group.item} if group else set())
        lanes = tuple(d for d in value.dims if d not in moving)
        if not moving & set(value.dims):
            known[part] = Value(_argument(ctx, graph.fixed, value.text, value.text), lanes, value.dtype)
        elif group is None:
            whole = with_ones(value, (BATCH, graph.at, *lanes)).text
            known[part] = Value(_argument(ctx, graph.here, whole, f"{value.text}_here"), (graph.cell, *lanes), value.dtype)
        else:
            whole = with_ones(value, (BATCH, graph.at, group.item, *lanes)).text
            name = _argument(ctx, graph.there, (group.number, whole), f"{value.text}_there")
            known[part] = Value(name, (group.dim, *lanes), value.dtype)
    return known


def _argument(ctx: Context, taken: dict[Any, str], key: Any, wanted: str) -> str:
    """The step's variable for an operand; the same for the same operand."""
    if key not in taken:
        taken[key] = ctx.names.fresh(wanted)
    return taken[key]


def _function(ctx: Context, graph: _Graph, name: str, kept: list[Tensor]) -> list[str]:
    """`def h_step(earlier, here, there, fixed, rows, cells)`: the states at the positions of a level."""
    prepared = []
    for tensor in graph.tensors:  # operands are computed before the function
        ctx.current, ctx.order = _word(tensor.name), list(tensor.indices)
        group = graph.sums.get(tensor.name)
        node = _step_of(tensor) if group is None else _step_of(tensor).args[0]
        ctx.meet(node)
        prepared.append((tensor, group, node, _operands(ctx, graph, node, group)))
    block = Block(ctx.block.indent + 1)
    rows = [ctx.names.fresh(f"rows{g.number or ''}") for g in graph.groups.values()]
    lengths = {g.dim: f"len({row})" for g, row in zip(graph.groups.values(), rows, strict=True)}
    after = {}
    with ctx.having(block=block, local=dict(ctx.local), lengths={**ctx.lengths, graph.cell: "cells", **lengths}):
        for tensor, group, node, known in prepared:
            order = [group.dim if group else graph.cell, *graph.lanes(tensor)]
            own = {"hoisted": {**ctx.hoisted, **known}, "caches": [{}], "order": order, "current": _word(tensor.name)}
            with ctx.having(**own):
                moved = rebuild(node, lambda n, g=group: _moved(ctx, graph, rows, n, g))  # type: ignore[misc]
                ctx.meet(moved)
                after[tensor.name] = _after(ctx, graph, tensor, moved, group, rows)
        block.add(f"return [{', '.join(after[t.name] for t in kept)}]")
    arguments = (list(graph.reads.values()), list(graph.here.values()), list(graph.there.values()),
                 list(graph.fixed.values()), rows)  # fmt: skip
    titles = ("earlier", "here", "there", "fixed", "rows_of_pairs")
    inner = "    " * block.indent
    lines = [f"def {name}({', '.join(f'{t}: Any' for t in titles)}, cells: int) -> Any:  # the step at a level's positions"]
    lines[0] = "    " * ctx.block.indent + lines[0]
    for variables, title in zip(arguments, titles, strict=True):
        if variables:
            lines.append(f"{inner}{elements(variables)} = {title}")
    return [*lines, *block.lines]


def _moved(ctx: Context, graph: _Graph, rows: list[str], node: Node, group: _Group | None) -> Node | None:
    """A read of the loop as a read of the step's variable: of this step, or at the pairs."""
    if node.op != "read" or node.attr not in graph.places:
        return None
    tensor = ctx.system.tensors[str(node.attr)]
    place = graph.places[tensor.name]
    dim, own = group.dim if group else graph.cell, graph.own(node)
    name = f"{tensor.name} {dim}" if own else f"{tensor.name} {dim} {node.args[place]!r}"
    if name not in ctx.local:
        if own:
            variable = ctx.names.fresh(f"{_word(tensor.name)}_there")
            before = ctx.local[f"{tensor.name} {graph.cell}"][1].text
            assert group is not None
            ctx.block.add(f"{variable} = {before}[{rows[group.number]}]")
        else:
            variable = ctx.names.fresh(f"{_word(tensor.name)}_before")
            graph.reads[tensor.name, group, node.args[place]] = variable
        dims = (dim, *graph.lanes(tensor))
        ctx.local[name] = (dims, Value(variable, dims, tensor.dtype))
    return build.read(name, [build.index(dim), *(a for k, a in enumerate(node.args) if k != place)], node.dtype)


def _after(
    ctx: Context, graph: _Graph, tensor: Tensor, step: Node, group: _Group | None, rows: list[str]
) -> str:
    """The variable that holds a tensor at the positions of a level."""
    lanes = graph.lanes(tensor)
    dims = (group.dim if group else graph.cell, *lanes)
    value = expressions.convert(ctx, expressions.emit(ctx, step), tensor.dtype)
    if value.dims != dims or value.static:
        value = expressions.full(ctx, value, dims, tensor.dtype)
    if group is not None:
        function, op = ctx.helper(FUNCTIONS[_step_of(tensor).op]), _step_of(tensor).op
        sign = "-" if op == "min" else ""
        each = ctx.bind(f"{ctx.current}_each", value, ["pairs", *(ctx.dim_text(d) for d in lanes)]).text
        value = Value(f"{sign}{function}({sign}{each}, {rows[group.number]}, cells)", (graph.cell, *lanes), "real")
    shape = ["cells", *(ctx.dim_text(d) for d in lanes)]
    variable = ctx.bind(f"{ctx.current}_after", value, shape).text
    dims = (graph.cell, *lanes)
    ctx.local[f"{tensor.name} {graph.cell}"] = (dims, Value(variable, dims, tensor.dtype))
    return variable


def _known(ctx: Context, graph: _Graph, tensor: Tensor) -> str:
    """What came before of a state, with the positions after the batch."""
    lanes = "".join(f", {ctx.dim_text(d)}" for d in graph.lanes(tensor))
    streamed, place = ctx.on_stream(graph.at), graph.places[tensor.name]
    zeros = f"torch.zeros({ctx.batch}, {'past' if streamed and ctx.past else 0}{lanes}, dtype=dtype, device=device)"
    entry = ctx.records.get(tensor.name) if streamed and ctx.stateful else None
    if entry is None or entry.tail is not None:
        return zeros
    moved = f".movedim({place + 1}, 1)" if place else ""
    return f"{zeros} if state is None else {history.state_path(ctx, entry.name)}{moved}"


def _call(ctx: Context, graph: _Graph, step: str, kept: list[Tensor], lines: list[str]) -> None:
    known = [_known(ctx, graph, t) for t in kept]
    numbers = {t.name: n for n, t in enumerate(kept)}
    found = []
    for name, group, place in graph.reads:
        assert group is not None
        at = _at_pairs(ctx, graph, group, place)
        found.append(f"({numbers[name]}, {group.number}, {at.at(CHOICE + 1)})")
    there = [f"({number}, {text})" for number, text in graph.there]
    groups = [g.pairs for g in graph.groups.values()]
    ctx.block.lines.extend(lines)
    names = [ctx.names.fresh(_word(t.name)) for t in kept]
    lists = (f"[{', '.join(part)}]" for part in (known, groups, found, graph.here, there, graph.fixed))
    dims = [(BATCH, graph.at, *graph.lanes(t)) for t in kept]
    arguments = [step, *lists, f"({ctx.batch}, {ctx.length(graph.at)})"]
    ctx.call(elements(names), ctx.support("levels"), arguments, "], [".join(dict.fromkeys(map(ctx.shape, dims))))
    for tensor, name, own in zip(kept, names, dims, strict=True):
        ctx.places[tensor.name] = Stored(Value(name, own, tensor.dtype))

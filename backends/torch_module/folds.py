"""Folds of declared monoids: the balanced tree, all pairs of a level at once; prefixes by doubling strides.

A guarded fold is allowed for associative monoids only (rule 34), so what a guard leaves out may be the identity, and
`s <= t` may be a scan. Entry point: `fold`.
"""

from __future__ import annotations

from seqdsl.ir import build
from seqdsl.ir.node import Node, reads
from seqdsl.ir.system import Monoid

from . import expressions
from .context import Block, Context, Unsupported
from .names import elements
from .values import BATCH, Value, merge, permuted, plain, spread


def fold(ctx: Context, node: Node, *, over_ranks: bool = False) -> Value:
    """The value of `M[s | guard](args)`; with `over_ranks`, of all pieces of the stream up to each position of this one."""
    monoid = ctx.system.monoids[str(node.attr[0])]
    names: tuple[str, ...] = node.attr[1]
    *arg_nodes, guard = node.args
    if len(names) != 1:
        raise Unsupported(f"`{monoid.name}` over several indices")
    name = names[0]
    args = [plain(expressions.emit(ctx, a)) for a in arg_nodes]
    types = _types(monoid)
    fields = _lift(ctx, monoid, args, types)
    facts = build.conjuncts(guard)
    prefix = _prefix(ctx, facts, name)
    outer = ctx.ordered(
        tuple(
            d for v, (_, own) in zip(fields, monoid.fields, strict=True) for d in v.dims if d != name and d not in own
        )
    )
    if facts and prefix is None:
        fields, outer = _masked(ctx, monoid, fields, facts, name, outer)
    lanes = tuple(d for d in outer if d != BATCH)
    steps = ctx.target.steps if node.dtype == "real" else None
    stand_in = None if steps is None else steps.fold(ctx, monoid, len(lanes), prefix is None)
    lead = (*outer, name)
    if stand_in is not None:
        outer, lead = (BATCH, *lanes), (BATCH, name, *lanes)
        types = dict.fromkeys(types, "real")  # kernels count in the dtype of the computation
        fields = [expressions.convert(ctx, v, "real") for v in fields]
    fields = [
        expressions.full(ctx, v, (*lead, *own), types[n]) for v, (n, own) in zip(fields, monoid.fields, strict=True)
    ]
    combine = _combine(ctx, monoid, lead, types)
    results = [ctx.names.fresh(f"{monoid.name}_{n}") for n, _ in monoid.fields]
    texts = f"({', '.join(v.text for v in fields)},), {combine}"
    if stand_in is not None:
        call = f"{stand_in[0]}({texts}{ctx.each(name) if prefix else ', last=True'}{stand_in[1]})"
    else:
        call = f"{ctx.helper('_tree_scan' if prefix else '_tree_fold')}({texts}, {len(outer)})"
        ctx.helper("_join")
    line = f"{elements(results)} = {call}"
    if prefix is None:
        line = _guard_empty(ctx, monoid, line, results, types, outer, name)
    else:
        ctx.block.add(line)
    if over_ranks:
        call = f"{ctx.ranks}.prefixes(({', '.join(results)},), {combine}, {lead.index(name)})"
        ctx.block.add(f"{elements(results)} = {call}")
    at = prefix or ""
    values = {}
    for variable, (field, own) in zip(results, monoid.fields, strict=True):
        own_dims = tuple(at if d == name else d for d in lead if prefix or d != name)
        values[field] = (own, Value(variable, (*own_dims, *own), types[field]))
    result = _project(ctx, monoid, values, node.dtype)
    if prefix and ctx.past and ctx.is_new(prefix):
        at_dim = result.dims.index(prefix)
        result = Value(f"({result.text}).narrow({at_dim}, past, {ctx.length(prefix)})", result.dims, result.dtype)
    return result


def _types(monoid: Monoid) -> dict[str, str]:
    """The type of each field."""
    names = [n for n, _ in monoid.fields]
    return dict(zip(names, monoid.types or ["real"] * len(names), strict=True))


def _prefix(ctx: Context, facts: list[Node], name: str) -> str | None:
    """The index t of a guard that is just `s <= t`."""
    if len(facts) != 1 or facts[0].op != "le":
        return None
    a, b = facts[0].args
    if (
        a.op == "index"
        and a.attr == name
        and b.op == "index"
        and ctx.axis(str(b.attr)) == ctx.axis(name)
        and b.attr != name
    ):
        return str(b.attr)
    return None


def _local(ctx: Context, values: dict[str, tuple[tuple[str, ...], Value]], node: Node) -> Value:
    with ctx.having(local=values, caches=[*ctx.caches, {}]):
        return expressions.emit(ctx, node)


def _lift(ctx: Context, monoid: Monoid, args: list[Value], types: dict[str, str]) -> list[Value]:
    named = [
        a if a.static or a.text.isidentifier() else ctx.bind(f"{monoid.name}_{n}", a)
        for a, (n, _) in zip(args, monoid.lift_params, strict=True)
    ]
    local = {n: (own, v) for (n, own), v in zip(monoid.lift_params, named, strict=True)}
    return [
        expressions.tensor(ctx, _local(ctx, local, e), t) for e, t in zip(monoid.lift, types.values(), strict=True)
    ]


def _masked(
    ctx: Context, monoid: Monoid, fields: list[Value], facts: list[Node], name: str, outer: tuple[str, ...]
) -> tuple[list[Value], tuple[str, ...]]:
    """The identity where the guard does not hold."""
    if monoid.identity is None:
        raise Unsupported(f"a guarded fold of `{monoid.name}`, which has no identity")
    mask = expressions.condition(ctx, facts)
    assert mask is not None
    mask = expressions.tensor(ctx, mask, "bool")
    outer = ctx.ordered(merge(outer, tuple(d for d in mask.dims if d != name)))
    result = []
    for value, unit, (_, own) in zip(fields, monoid.identity, monoid.fields, strict=True):
        one = expressions.tensor(ctx, expressions.emit(ctx, unit), value.dtype)
        dims = (*ctx.ordered(tuple(d for d in merge(value.dims, mask.dims) if d not in own)), *own)
        texts = [spread(v, dims).text for v in (mask, value, one)]
        result.append(Value(f"torch.where({', '.join(texts)})", dims, value.dtype))
    return result, outer


def _combine(ctx: Context, monoid: Monoid, lead: tuple[str, ...], types: dict[str, str]) -> str:
    """A local function of the fields of two neighbours; the folded dimension now counts pairs."""
    name = ctx.names.fresh(f"combine_{monoid.name}")
    names = ctx.names.copy()
    values = {}
    parameters = []
    for side in "ab":
        for field, own in monoid.fields:
            variable = names.fresh(f"{side}_{field}")
            parameters.append(variable)
            values[f"{side}.{field}"] = (own, Value(variable, (*lead, *own), types[field]))
    block = Block(ctx.block.indent + 1)
    with ctx.having(block=block, names=names, local=values, order=list(lead), caches=[*ctx.caches, {}]):
        for equation in monoid.combine:
            assert equation.rhs is not None
            ctx.order = [d for d in (*lead, *equation.indices) if d != BATCH]
            ctx.meet(equation.rhs)
            if equation.comment:
                block.add("# " + equation.comment.splitlines()[-1])
            value = expressions.emit(ctx, equation.rhs)
            value = expressions.tensor(ctx, value, types.get(equation.name, value.dtype))
            ctx.local = {**ctx.local, equation.name: (equation.indices, ctx.bind(equation.name, value))}
        found = []
        for field, own in monoid.fields:
            dims, value = (*lead, *own), ctx.local[field][1]
            whole = value if set(value.dims) == set(dims) else expressions.full(ctx, value, dims, types[field])
            found.append(permuted(whole, dims).text)
        block.add(f"return {elements(found)}")
    ctx.block.add(f"def {name}({', '.join(parameters)}):")
    ctx.block.lines.extend(block.lines)
    return name


def _guard_empty(
    ctx: Context, monoid: Monoid, line: str, results: list[str], types: dict[str, str], outer: tuple[str, ...], name: str
) -> str:
    """A fold over nothing is the identity, or an error."""
    length = ctx.length(name)
    ctx.block.add(f"if {length}:")
    ctx.block.add("    " + line)
    ctx.block.add("else:")
    if monoid.identity is None:
        ctx.block.add(f'    raise ValueError("`{monoid.name}` has no identity, and a fold of it is empty")')
        return line
    used = {r.attr for e in monoid.project if e.rhs is not None for r in reads(e.rhs)}
    for variable, unit, (field, own) in zip(results, monoid.identity, monoid.fields, strict=True):
        if field in used or not used:
            one = expressions.full(ctx, expressions.emit(ctx, unit), (*outer, *own), types[field])
            ctx.block.add(f"    {variable} = {one.text}")
    return line


def _project(ctx: Context, monoid: Monoid, values: dict[str, tuple[tuple[str, ...], Value]], dtype: str) -> Value:
    local = dict(values)
    result = Value("0", (), "int", static=True)
    for equation in monoid.project:
        assert equation.rhs is not None
        result = _local(ctx, local, equation.rhs)
        result = expressions.tensor(ctx, result, dtype if equation.name == monoid.output else result.dtype)
        if equation.name != monoid.output:
            result = ctx.bind(f"{monoid.name}_{equation.name}", result)
        local[equation.name] = (equation.indices, result)
    return result

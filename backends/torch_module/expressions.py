"""Expressions: a node of the graph to the text of a tensor expression.

Each value knows its dimensions by name, so an operand is permuted or broadcast only where the names ask for it. Guards
and `where` travel down as conditions: an operator that could give inf or nan where it is not evaluated gets a harmless
operand there (`table.UNSAFE`), so nothing of it reaches a value or a gradient. Entry point: `emit`.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from seqdsl.ir import build
from seqdsl.ir.dependence import build_not
from seqdsl.ir.node import Node, walk
from seqdsl.ir.ops import OPS, bound, made, options

from . import axes, blocks, contractions, folds, fused, micro, online, parameters, reads, scans, taps
from .context import Context
from .sizes import constant, divisors, number, operands, size_value
from .table import (
    ALONG,
    COMPLEX_TEXT,
    IN_PLACE,
    LEAVES,
    MAPS,
    MARKED,
    ONLINE,
    OPS_TEXT,
    RANDOM,
    REDUCTIONS,
    SURROGATES,
    UNSAFE,
)
from .values import ATOM, CHOICE, SUM, UNARY, Value, is_fresh, merge, negative, permuted, plain, spread, with_ones

KINDS = {"bool": "torch.bool", "int": "torch.long", "real": "dtype", "complex": "complex_dtype"}
LONGEST = 92  # a longer expression has its operands named first


def emit(ctx: Context, node: Node) -> Value:
    """The value of a node where the current guards hold; elsewhere it may be anything finite."""
    if node in ctx.hoisted:
        return reads.at_loops(ctx, ctx.hoisted[node])
    reaching = _reaching(ctx, node)
    if reaching != ctx.guards:
        with ctx.guarded(reaching):
            return emit(ctx, node)
    key = _key(ctx, node)
    for cache in reversed(ctx.caches):
        if key in cache:
            return cache[key]
    value = _emit(ctx, node)
    if ctx.uses.get(node, 0) > 1 and not value.static and not value.text.isidentifier() and node.op not in LEAVES:
        value = ctx.bind(temporary(ctx, node), value)
    ctx.caches[-1][key] = value
    return value


def _reaching(ctx: Context, node: Node) -> tuple[Node, ...]:
    """The guards that hold for a node's operands: what works along an index reads them at its other positions, too."""
    along = {*bound(node), *made(node)} if ctx.guards else ()
    return tuple(g for g in ctx.guards if g.free.isdisjoint(along)) if along else ctx.guards


def remember(ctx: Context, node: Node, value: Value) -> None:
    """A value that was computed on the way: who asks for the node is given it."""
    ctx.caches[0][_key(ctx, node)] = value


def temporary(ctx: Context, node: Node) -> str:
    """A name for a part of an equation: `exp_g`, `mask`, else after the equation's left side."""
    if node.dtype == "bool":
        return "mask"
    if len(node.args) == 1 and node.args[0].op == "read":
        return f"{node.op}_{node.args[0].attr}"
    return f"{ctx.current}_part"


def _key(ctx: Context, node: Node) -> object:
    guards = tuple(g for g in ctx.guards if g.free & node.free or not g.free) if sensitive(node) else ()
    fixed = tuple((i, ctx.fixed[i]) for i in sorted(node.free) if i in ctx.fixed)
    return node, guards, fixed


_sensitive: dict[Node, bool] = {}


def sensitive(node: Node) -> bool:
    """May the text depend on the guards around it?"""
    if node not in _sensitive:
        _sensitive[node] = any(
            n.op in UNSAFE or n.op == "read" and any(a.op != "index" for a in n.args) for n in walk(node)
        )
    return _sensitive[node]


def _emit(ctx: Context, node: Node) -> Value:
    if node.op in LEAVES:
        return _leaf(ctx, node)
    if node.op == "where":
        return _where(ctx, node)
    hidden = [i for i in bound(node) if i in ctx.fixed]
    if hidden:
        return _unlooped(ctx, node, hidden)
    if node.op in ("sum", "mean"):
        return contractions.contract(ctx, node)
    if node.op in ONLINE:
        return online.online(ctx, node)
    if node.op in REDUCTIONS or node.op in ALONG:
        return axes.over_axes(ctx, node)
    if node.op in MAPS:
        return axes.transform(ctx, node)
    if node.op == "re" and node.args[0].op == "matrix_taps":
        return taps.taps(ctx, node)
    if node.op == "fold":
        return folds.fold(ctx, node)
    if node.op == "micro_solve":
        return micro.solve(ctx, node)
    if node.op.startswith("block_"):
        return blocks.block(ctx, node)
    if node.op == "over_ranks":
        return folds.fold(ctx, node.args[0], over_ranks=True)
    if OPS[node.op].binding in ("scan", "last"):
        return scans.scan(ctx, node)
    if node.op in RANDOM:
        return parameters.draw(ctx, node)
    if node.op in MARKED:
        return emit(ctx, node.args[0])  # in a loop that is stepped after all
    added = fused.added_products(ctx, node) if ctx.fused else None
    return _elementwise(ctx, node) if added is None else added


def _unlooped(ctx: Context, node: Node, hidden: list[str]) -> Value:
    """A binder over an index that a loop holds fixed: inside, the index is free again."""
    with ctx.having(fixed={k: v for k, v in ctx.fixed.items() if k not in hidden}):
        value = emit(ctx, node)
    return reads.at_loops(ctx, value)


def _leaf(ctx: Context, node: Node) -> Value:
    if node.op == "const":
        return constant(node)
    if node.op == "index":
        return position(ctx, str(node.attr))
    if node.op in ("size", "option", "first"):
        return size_value(ctx, node)
    return reads.read(ctx, node)


def position(ctx: Context, index: str) -> Value:
    """An index as a value: the loop's variable, or all its positions."""
    if index in ctx.fixed:
        return Value(ctx.fixed[index], (), "int", ATOM, True)
    key = (
        "positions",
        ctx.axis(index),
        ctx.past and ctx.is_new(index),
        index.rstrip("'") if ctx.system.index(index).size else "",
    )
    found = ctx.caches[0].get(key)
    if found is None:
        name = ctx.names.fresh(index)
        new, length = ctx.past and ctx.is_new(index), ctx.length(index)
        text = f"torch.arange({f'past, past + {length}' if new else length}, device=device)"
        if ctx.ends and ctx.on_stream(index):
            where = f"{'past' if new else '0'}, {length}, {ctx.spans()}, {int(not ctx.is_new(index))}"
            text = f"{ctx.helper('_own_positions')}({where}, device)"
        ctx.index_lines.append(f"{name} = {text}  # [{length}]")
        found = ctx.caches[0][key] = Value(name, (index,), "int")
    return replace(found, dims=(index,))


def convert(ctx: Context, value: Value, dtype: str) -> Value:
    """A tensor of the dtype that an operator works in; Python numbers convert themselves."""
    rank = ("bool", "int", "real", "complex")
    if value.static or rank.index(value.dtype) >= rank.index(dtype):
        return value
    text = {
        "int": f"{value.at(ATOM)}.long()",
        "real": f"{value.at(ATOM)}.to(dtype)",
        "complex": f"{value.at(ATOM)}.to(complex_dtype)",
    }[dtype]
    return replace(value, text=text, dtype=dtype, level=ATOM)


def tensor(ctx: Context, value: Value, dtype: str) -> Value:
    """A Python number as a tensor without dimensions."""
    if not value.static:
        return convert(ctx, value, dtype)
    made = {"0": "zeros((), ", "1": "ones((), ", "0.0": "zeros((), ", "1.0": "ones((), "}
    made_text = made.get(value.text, f"full((), {value.text}, ")
    return Value(f"torch.{made_text}dtype={KINDS[dtype]}, device=device)", (), dtype)


def shorten(ctx: Context, node: Node, args: list[Value]) -> list[Value]:
    """Name the long operands of an expression that would not fit a line."""
    if sum(len(a.text) for a in args) <= LONGEST:
        return args
    return [
        ctx.bind(temporary(ctx, arg), a) if len(a.text) > 36 and not a.static and not a.weight else a
        for a, arg in zip(args, node.args, strict=True)
    ]


def _elementwise(ctx: Context, node: Node) -> Value:
    args = [emit(ctx, a) for a in node.args]
    real = not any(a.dtype == "complex" for a in args)  # `math` knows no complex numbers
    if all(a.static for a in args) and (
        node.op in SURROGATES or OPS_TEXT[node.op].number and (real or node.op in ("add", "sub", "mul", "div", "neg"))
    ):
        return number(ctx, node, args)
    if node.op in ("re", "conj") and args[0].dtype != "complex":
        return args[0]
    if node.op in ("floor", "ceil") and args[0].dtype in ("bool", "int"):
        return convert(ctx, args[0], "int")
    if node.op == "im" and args[0].dtype != "complex":
        return replace(args[0], text=f"torch.zeros_like({args[0].text})", level=ATOM)
    if node.op in ("add", "sub") and args[1].static and args[1].text == "0":
        return args[0]
    if node.op == "mul" and args[0].static and args[0].text == "-1":
        x = convert(ctx, plain(args[1]), node.dtype)
        return negative(x)
    if not any(a.dims and not a.weight for a in args):  # 16-bit weights alone would be computed with in 16 bits
        args = [plain(a) for a in args]
    args = divisors(ctx, node, shorten(ctx, node, args))
    args = [convert(ctx, a, _operand_dtype(node, a)) for a in args]
    if node.op == "mul" and args[0].level == UNARY and set(args[1].dims) < set(args[0].dims):
        args = [negative(a) for a in args]  # of the smaller one
    known = _zeros(node, args)
    args, masked = _guarded(ctx, node, args)
    dims = ctx.ordered(merge((), *(a.dims for a in args)))
    return replace(_text(ctx, node, args, dims), zero_outside=known | masked)


def _zeros(node: Node, args: list[Value]) -> frozenset[Node]:
    if node.op == "mul":
        return args[0].zero_outside | args[1].zero_outside
    return args[0].zero_outside if node.op in ("div", "neg") else frozenset()


def _operand_dtype(node: Node, value: Value) -> str:
    if node.op in ("lt", "le", "eq", "ne", "and", "or", "not", "floor", "ceil", "stop", "re", "im"):
        return value.dtype
    if node.op == "step":
        return "real"
    if node.op == "abs" and value.dtype == "bool":
        return "int"
    if node.op == "abs" or node.dtype == "complex":
        whole = value.dtype in ("bool", "int") and node.op != "abs"
        return "real" if whole and (OPS[node.op].domain == "complex" or node.op == "pow") else value.dtype
    return node.dtype


def _guarded(ctx: Context, node: Node, args: list[Value]) -> tuple[list[Value], frozenset[Node]]:
    """Harmless operands where the guards do not hold."""
    fill = UNSAFE.get(node.op)
    if fill is None or not ctx.guards:
        return args, frozenset()
    if node.op == "exp" and node.dtype == "complex":
        fill = "0"
    which = {"div": (1,), "pow": (0,), "logaddexp": (0, 1)}.get(node.op, (0,))
    result = list(args)
    masked: frozenset[Node] = frozenset()
    for k in which:
        facts = [g for g in dict.fromkeys(ctx.guards) if g.free <= node.free]
        if args[k].static or not facts:
            continue
        mask = condition(ctx, facts)
        if mask is None or mask.static:
            continue
        dims = ctx.ordered(merge(args[k].dims, mask.dims))
        inner = spread(args[k], dims)
        result[k] = Value(f"torch.where({spread(mask, dims).text}, {inner.text}, {fill})", dims, args[k].dtype)
        masked |= frozenset(facts)
    return result, masked if fill == "-math.inf" else frozenset()


def condition(ctx: Context, facts: list[Node]) -> Value | None:
    """The conjunction of conditions as a mask."""
    whole = build.every(facts)
    if whole is build.TRUE:
        return None
    with ctx.guarded(()):
        value = emit(ctx, whole)
    if not value.static and not value.text.isidentifier():
        value = ctx.bind("mask", value)
        ctx.caches[-1][_key(ctx, whole)] = value
    return value


def _text(ctx: Context, node: Node, args: list[Value], dims: tuple[str, ...]) -> Value:
    row = (COMPLEX_TEXT if node.dtype == "complex" else OPS_TEXT)[node.op]
    for name in row.helpers:
        ctx.helper(name)
    if node.op in ("maximum", "minimum") and node.dtype != "real" and any(a.static for a in args):
        x, bound_value = args if args[1].static else (args[1], args[0])
        side = "min" if node.op == "maximum" else "max"
        return Value(f"torch.clamp({x.text}, {side}={bound_value.text})", x.dims, node.dtype)
    if node.op == "clamp" and not (args[1].static and args[2].static):
        return _clamp(ctx, node, args, dims)
    if node.op in ("logaddexp", "maximum", "minimum"):
        args = [tensor(ctx, a, node.dtype) for a in args]
    elif all(a.static for a in args):
        wide = "complex" in (node.dtype, args[0].dtype)
        args = [tensor(ctx, args[0], "complex" if wide else "real"), *args[1:]]
    spreads = [spread(a, dims) for a in args]
    if node.op == "add" and spreads[1].text.startswith("-") and spreads[1].level == UNARY:
        return Value(f"{spreads[0].at(SUM)} - {spreads[1].text[1:]}", dims, node.dtype, SUM)
    if ctx.stepping and node.op in IN_PLACE and node.dtype == "real" and is_fresh(spreads[0]):
        return Value(f"{spreads[0].at(ATOM)}.{node.op}_()", dims, node.dtype)
    grad = options(node).get("grad")
    extra = {k: float(v) if isinstance(v, Fraction) else v for k, v in options(node).items()}
    value = Value(
        row.tensor.format(*operands(spreads, row.level, row.infix or "{0}." in row.tensor, node.op), **extra),
        dims,
        node.dtype,
        row.level,
    )
    if grad in SURROGATES:
        x = spreads[0] if spreads[0].text.isidentifier() else ctx.bind(f"{ctx.current}_in", spreads[0])
        smooth, hard = SURROGATES[grad].format(x.text), row.tensor.format(x.text)
        value = Value(f"{ctx.helper('_straight_through')}({hard}, {smooth})", dims, node.dtype)
    return value


def _clamp(ctx: Context, node: Node, args: list[Value], dims: tuple[str, ...]) -> Value:
    """A clamp between tensors."""
    texts = [spread(tensor(ctx, a, node.dtype), dims).text for a in args]
    return Value(f"torch.minimum(torch.maximum({texts[0]}, {texts[1]}), {texts[2]})", dims, node.dtype)


def _where(ctx: Context, node: Node) -> Value:
    test = emit(ctx, node.args[0])
    with ctx.under(*build.conjuncts(node.args[0])):
        yes = emit(ctx, node.args[1])
    with ctx.under(*build.conjuncts(build_not(node.args[0]))):
        no = emit(ctx, node.args[2])
    yes, no = (convert(ctx, v, node.dtype) for v in (yes, no))
    if test.static and yes.static and no.static:
        return Value(f"{yes.at(OR_ABOVE)} if {test.at(OR_ABOVE)} else {no.at(OR_ABOVE)}", (), node.dtype, CHOICE, True)
    dims = ctx.ordered(merge(test.dims, yes.dims, no.dims))
    if test.static:
        if ctx.stepping:
            both = [with_ones(tensor(ctx, v, node.dtype), dims) for v in (yes, no)]
        else:
            both = [full(ctx, v, dims, node.dtype) for v in (yes, no)]
        texts = [v.at(OR_ABOVE) for v in both]
        return Value(f"{texts[0]} if {test.at(OR_ABOVE)} else {texts[1]}", dims, node.dtype, CHOICE)
    if yes.static and no.static and node.dtype in ("real", "complex"):
        yes = tensor(ctx, yes, node.dtype)
    if len(yes.text) + len(no.text) > LONGEST:
        yes, no = (
            ctx.bind(temporary(ctx, a), v) if len(v.text) > 36 and not v.static else v
            for v, a in ((yes, node.args[1]), (no, node.args[2]))
        )
    texts = [spread(v, dims).text for v in (test, yes, no)]
    zero = frozenset(build.conjuncts(node.args[0])) if node.args[2] is build.ZERO else frozenset()
    return Value(f"torch.where({texts[0]}, {texts[1]}, {texts[2]})", dims, node.dtype, zero_outside=zero)


OR_ABOVE = CHOICE + 1


def full(ctx: Context, value: Value, dims: tuple[str, ...], dtype: str) -> Value:
    """A value with every one of `dims` spelled out at its length."""
    if not value.static and set(value.dims) == set(dims):
        return permuted(value, dims)
    if value.dims == dims and not value.static:
        return value
    shape = ", ".join(ctx.dim_text(d) for d in dims)
    if value.static:
        if dims and value.text in ("0", "1", "False", "0.0", "1.0"):
            made = "ones" if value.text.startswith("1") else "zeros"
            return Value(f"torch.{made}({shape}, dtype={KINDS[dtype]}, device=device)", dims, dtype)
        value = tensor(ctx, value, dtype)
    if not value.dims:
        return Value(f"{value.at(ATOM)}.expand({shape})" if dims else value.text, dims, value.dtype)
    wide = spread(value, dims)
    return replace(wide, text=f"{wide.at(ATOM)}.expand({shape})", dims=dims, level=ATOM)


def spelled(ctx: Context, value: Value, names: tuple[str, ...], dtype: str) -> Value:
    """A value that has each of `names` among its dimensions."""
    if all(n in value.dims for n in names) and not value.static:
        return value
    dims = ctx.ordered(merge(value.dims, names))
    return full(ctx, value, dims, dtype)

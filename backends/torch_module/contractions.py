"""Sums of products as einsums: factors that lack the summed indices multiply afterwards, the others contract in pairs.

The product of all factors over all their indices is never built: pairs are chosen greedily, the smallest result first
(a streamed index counts for more than a feature), and an index is summed as soon as one factor alone has it. A guard
becomes a mask on the smallest factor that varies along it. Entry point: `contract`.
"""

from __future__ import annotations

from dataclasses import replace

from seqdsl.ir import build
from seqdsl.ir.node import Node, walk
from seqdsl.ir.ops import bound

from . import convolutions, expressions, intervals, scatters
from .context import Context
from .table import PARTIAL, varies
from .values import ATOM, BATCH, PRODUCT, SUM, Value, merge, negative, plain, spread

_LETTERS = "abcdefghijklmnopqrstuvwxyzACDEFGHIJKLMNOPQRSTUVWXYZ"


def contract(ctx: Context, node: Node) -> Value:
    """The value of a `sum` or `mean`."""
    body, guard = node.args
    names = bound(node)
    inside: list[Node] = []
    outside: list[Node] = []
    for fact in build.conjuncts(guard):
        (inside if fact.free & set(names) else outside).append(fact)
    with ctx.under(*outside, *inside):
        one = scatters.segment_sum(ctx, node, names, inside)
        terms = _apart(body) if one is None else [(1, body)]
        values = [_term(ctx, node, t, names, inside) for _, t in terms] if one is None else [one]
    result = values[0] if terms[0][0] > 0 else negative(values[0])
    for (sign, _), value in zip(terms[1:], values[1:], strict=True):
        dims = ctx.ordered(merge(result.dims, value.dims))
        a, b = spread(expressions.convert(ctx, result, node.dtype), dims), spread(value, dims)
        text = f"{a.at(SUM)} + {b.at(SUM + 1)}" if sign > 0 else f"{a.at(SUM)} - {b.at(SUM + 1)}"
        result = Value(text, dims, node.dtype, SUM, a.static and b.static)
    if node.op == "mean":
        result = _mean(ctx, node, result, names, inside)
    mask = expressions.condition(ctx, outside)
    if mask is not None:
        dims = ctx.ordered(merge(result.dims, mask.dims))
        mask, result = expressions.tensor(ctx, mask, "bool"), expressions.tensor(ctx, result, node.dtype)
        result = Value(f"torch.where({spread(mask, dims).text}, {spread(result, dims).text}, 0)", dims, node.dtype)
    return result


def _terms(body: Node) -> list[tuple[int, Node]]:
    if body.op == "add":
        return _terms(body.args[0]) + _terms(body.args[1])
    if body.op == "sub":
        return _terms(body.args[0]) + [(-s, t) for s, t in _terms(body.args[1])]
    if body.op == "neg":
        return [(-s, t) for s, t in _terms(body.args[0])]
    return [(1, body)]


def _apart(body: Node) -> list[tuple[int, Node]]:
    """The terms to be summed one by one, with their signs."""
    return _terms(body) if _worth_splitting(body) else [(1, body)]


def _worth_splitting(body: Node) -> bool:
    """Only where some term is a product wider than each of its factors, which an einsum need not build."""
    if body.op not in ("add", "sub", "neg"):
        return False
    for _, term in _terms(body):
        if term.op == "mul" and all(f.free != term.free for f in _numerators(term)):
            return True
    return False


def _numerators(node: Node) -> list[Node]:
    if node.op == "mul":
        return _numerators(node.args[0]) + _numerators(node.args[1])
    return _numerators(node.args[0]) if node.op == "div" else [node]


def signed_factors(ctx: Context, node: Node) -> tuple[int, list[Node], list[Node]]:
    """Sign, numerator and denominator factors of a product; one that is computed already stays whole."""
    if node in ctx.hoisted:
        return 1, [node], []
    if node.op == "mul":
        s, ups, downs = signed_factors(ctx, node.args[0])
        s2, ups2, downs2 = signed_factors(ctx, node.args[1])
        return s * s2, ups + ups2, downs + downs2
    if node.op == "neg":
        s, ups, downs = signed_factors(ctx, node.args[0])
        return -s, ups, downs
    if node.op == "div":
        s, ups, downs = signed_factors(ctx, node.args[0])
        return s, ups, [*downs, node.args[1]]
    return 1, [node], []


def summed(ctx: Context, node: Node) -> list[list[Node]]:
    """The factors that a sum adds up products of, of each of its terms."""
    return [_split(ctx, t, bound(node))[1] for _, t in _apart(node.args[0])]


def _split(ctx: Context, term: Node, names: tuple[str, ...]) -> tuple[int, list[Node], list[Node], list[Node], bool]:
    """A product's sign, its factors along the summed indices, the others, the denominators, and was one along them, too?"""
    sign, ups, downs = signed_factors(ctx, term)
    inner, outer = ([f for f in ups if bool(f.free & set(names)) is along] for along in (True, False))
    quotients, below = ([f for f in downs if bool(f.free & set(names)) is along] for along in (True, False))
    if quotients:  # a denominator that is summed over: part of the product
        numerator = build.product(inner) if inner else build.const(build.Fraction(1))
        for f in quotients:
            numerator = build.make("div", numerator, f)
        inner = [numerator]
    return sign, inner, outer, below, bool(quotients)


def _term(ctx: Context, node: Node, term: Node, names: tuple[str, ...], guards: list[Node]) -> Value:
    sign, inner, outer, below, quotient = _split(ctx, term, names)
    convolved = None if quotient else convolutions.convolution(ctx, node, inner, names, guards)
    if convolved is not None:
        return _finished(ctx, node, sign, convolved, outer, below, names, guards)
    interval = intervals.over_interval(ctx, node, inner, guards) if inner else None
    if interval is not None:
        return _finished(ctx, node, sign, interval, outer, below, names, guards)
    values = [expressions.emit(ctx, f) for f in inner]
    values = [v if v.dtype in ("real", "complex") else expressions.convert(ctx, v, node.dtype) for v in values]
    values = masked(ctx, node, values, guards)
    missing = [n for n in names if not any(n in v.dims for v in values)]
    values = [v for v in values if v.dims or not v.static] or values
    result = _pairs(ctx, node, values, [n for n in names if n not in missing])
    for n in missing:
        result = times(ctx, node, result, Value(ctx.length(n), (), "int", ATOM, True))
    return _finished(ctx, node, sign, result, outer, below, names, guards)


def _finished(
    ctx: Context,
    node: Node,
    sign: int,
    result: Value | None,
    outer: list[Node],
    below: list[Node],
    names: tuple[str, ...],
    guards: list[Node],
) -> Value:
    """Times the factors that the sum does not touch, over those below. A sum of nothing is 0, whatever these are then."""
    some = build.TRUE if _never_empty(names, guards) else build.reduce("any", names, build.every(guards))
    for f in outer:
        unsafe = some is not build.TRUE and any(n.op in PARTIAL and varies(n) for n in walk(f))
        result = times(ctx, node, result, expressions.emit(ctx, build.where(some, f, build.ZERO) if unsafe else f))
    facts = build.both(some, build.every(g for g in ctx.guards if not g.free & set(names)))
    for f in below:
        unsafe = facts is not build.TRUE and any(n.op in ("read", "index") for n in walk(f))
        result = _over(ctx, node, result, build.where(facts, f, build.ONE) if unsafe else f)
    if result is None:
        return Value("1", (), "int", ATOM, True)
    return negative(result) if sign < 0 else result


def _never_empty(names: tuple[str, ...], guards: list[Node]) -> bool:
    """Do the guards hold somewhere, as `s <= t` does at 0?"""
    return all(g.op == "le" and g.args[0].op == "index" and g.args[0].attr in names and g.args[1].op == "index" for g in guards)


def times(ctx: Context, node: Node, a: Value | None, b: Value) -> Value:
    """a * b, in the type of the node; None and the numbers 1 and -1 cost no operation."""
    if a is None:
        return b
    if b.text == "1" or b.text == "1.0":
        return a
    if a.text == "1" and a.static:
        return b
    if a.text == "-1" and a.static:
        return negative(b)
    a, b = (expressions.convert(ctx, v, node.dtype) if v.dtype in ("bool", "int") else v for v in (a, b))
    dims = ctx.ordered(merge(a.dims, b.dims))
    known = a.zero_outside | b.zero_outside
    x, y = spread(a, dims), spread(b, dims)
    return Value(f"{x.at(PRODUCT)} * {y.at(PRODUCT + 1)}", dims, node.dtype, PRODUCT, a.static and b.static, known)


def _over(ctx: Context, node: Node, a: Value | None, below: Node) -> Value:
    a = a if a is not None else Value("1.0", (), "real", ATOM, True)
    b = expressions.emit(ctx, below)
    if b.dtype in ("bool", "int"):
        b = expressions.convert(ctx, b, node.dtype)
    dims = ctx.ordered(merge(a.dims, b.dims))
    x, y = spread(a, dims), spread(b, dims)
    if a.static and not b.static:
        return Value(f"{x.at(PRODUCT)} / {y.at(PRODUCT + 1)}", dims, node.dtype, PRODUCT)
    return Value(
        f"{x.at(PRODUCT)} / {y.at(PRODUCT + 1)}", dims, node.dtype, PRODUCT, a.static and b.static, a.zero_outside
    )


def masked(ctx: Context, node: Node, values: list[Value], guards: list[Node]) -> list[Value]:
    """Each condition as zeros in one factor, unless a factor is known to be 0 there."""
    known: frozenset[Node] = frozenset().union(*(v.zero_outside for v in values))
    open_ = [g for g in guards if g not in known]
    mask = expressions.condition(ctx, open_)
    if mask is None:
        return values
    mask = expressions.tensor(ctx, mask, "bool")
    fitting = [v for v in values if set(mask.dims) <= set(v.dims)]
    if fitting:
        best = min(fitting, key=lambda v: len(v.dims))
        inner = spread(best, best.dims)
        text = f"torch.where({spread(mask, best.dims).text}, {inner.text}, 0)"
        new = Value(text, best.dims, best.dtype, zero_outside=best.zero_outside | frozenset(open_))
        return [new if v is best else v for v in values]
    number = expressions.convert(ctx, mask, node.dtype if node.dtype != "bool" else "int")
    return [*values, replace(number, zero_outside=frozenset(open_))]


def _weight(ctx: Context, dims: set[str]) -> int:
    """The size of a tensor, as a power: a streamed index counts for three."""
    return sum(3 if d != BATCH and ctx.on_stream(d) else 1 for d in dims)


def _pairs(ctx: Context, node: Node, values: list[Value], names: list[str]) -> Value | None:
    values = list(values)
    if not values:
        return None
    while len(values) > 1:
        choice = None
        for i in range(len(values)):
            for j in range(i + 1, len(values)):
                a, b = values[i], values[j]
                others = {d for k, v in enumerate(values) if k not in (i, j) for d in v.dims}
                both = set(a.dims) | set(b.dims)
                gone = {n for n in names if n in both and n not in others}
                nested = set(a.dims) <= set(b.dims) or set(b.dims) <= set(a.dims)
                heavy = not gone and any(v.weight and len(v.dims) > 1 for v in (a, b))  # a weight stays as it is
                cost = (
                    heavy,
                    _weight(ctx, both - gone),
                    0 if gone else 1,
                    0 if nested else 1,
                    _weight(ctx, both),
                    i,
                    j,
                )
                if choice is None or cost < choice[0]:
                    choice = cost, i, j, gone
        assert choice is not None
        _, i, j, gone = choice
        merged = _pair(ctx, node, values[i], values[j], gone)
        values = [v for k, v in enumerate(values) if k not in (i, j)]
        values.insert(min(i, len(values)), merged)
    left = [n for n in names if n in values[0].dims]
    return _alone(ctx, node, values[0], left)


def _alone(ctx: Context, node: Node, value: Value, names: list[str]) -> Value:
    if not names:
        return value
    if value.weight:
        value = plain(value)
    places = ", ".join(str(value.dims.index(n)) for n in names)
    dims = tuple(d for d in value.dims if d not in names)
    place = places if len(names) == 1 else f"({places})"
    return Value(f"{value.at(ATOM)}.sum({place})", dims, node.dtype)


def _pair(ctx: Context, node: Node, a: Value, b: Value, gone: set[str]) -> Value:
    if not gone:
        return times(ctx, node, plain(a) if a.weight else a, plain(b) if b.weight else b)
    dims = ctx.ordered((set(a.dims) | set(b.dims)) - gone)
    kind = "complex" if "complex" in (a.dtype, b.dtype) else "real" if node.dtype != "int" else "int"
    a, b = (expressions.convert(ctx, v, kind) for v in (a, b))
    named = []
    for v in (a, b):
        named.append(ctx.bind(f"{ctx.current}_part", v) if len(v.text) > 44 and not v.weight else v)
    a, b = named
    if (a.weight or b.weight) and kind == "real":
        x, w = (a, b) if b.weight else (b, a)
        if x.weight:
            x = plain(x)
        return Value(
            f'{ctx.helper("_project")}("{equation(x.dims, w.dims, dims)}", {x.text}, {w.text}, matmul_dtype)',
            dims,
            node.dtype,
        )
    a, b = (plain(v) if v.weight else v for v in (a, b))
    if kind == "int":
        product = times(ctx, node, a, b)
        return _alone(ctx, node, product, [n for n in product.dims if n in gone])
    if ctx.fixed and len(gone) == 1 and (text := _matrix_product(a, b, dims) or _matrix_product(b, a, dims)):
        return Value(text, dims, node.dtype, PRODUCT)
    return Value(
        f'torch.einsum("{equation(a.dims, b.dims, dims)}", {a.text}, {b.text})',
        dims,
        node.dtype,
        zero_outside=frozenset(g for g in a.zero_outside | b.zero_outside if not g.free & gone),
    )


def _matrix_product(a: Value, b: Value, dims: tuple[str, ...]) -> str:
    """`x @ w`, which a step of a loop starts sooner than an einsum; "" where it is no product of rows and a matrix."""
    *rows, inner = a.dims
    if not rows or len(b.dims) != 2 or dims[:-1] != tuple(rows):
        return ""
    if b.dims == (inner, dims[-1]):
        return f"{a.at(PRODUCT)} @ {b.at(PRODUCT + 1)}"
    return f"{a.at(PRODUCT)} @ {b.at(ATOM)}.T" if b.dims == (dims[-1], inner) else ""


def equation(a: tuple[str, ...], b: tuple[str, ...], result: tuple[str, ...]) -> str:
    """`Bthd,Bshd->Bths`: an index is its own letter where it is one, B is the batch."""
    letters = {BATCH: "B"}
    every = merge(a, b, result)
    for d in [d for d in every if len(d) == 1 and d in _LETTERS]:
        letters[d] = d
    for d in every:
        if d not in letters:
            own = [c for c in d.rsplit(".", 1)[-1].lower() if c in _LETTERS]
            letters[d] = next(c for c in (*own, *_LETTERS) if c not in letters.values())
    return "{},{}->{}".format(*("".join(letters[d] for d in dims) for dims in (a, b, result)))


def product_sum(ctx: Context, node: Node, values: list[Value], names: list[str]) -> Value:
    """The sum over `names` of a product of values."""
    result = _pairs(ctx, node, values, names)
    assert result is not None
    return result


def _mean(ctx: Context, node: Node, total: Value, names: tuple[str, ...], guards: list[Node]) -> Value:
    mask = expressions.condition(ctx, guards)
    if mask is None:
        count = Value(" * ".join(ctx.length(n) for n in names), (), "int", PRODUCT if len(names) > 1 else ATOM, True)
        count = Value(f"max({count.text}, 1)", (), "int", ATOM, True)
    else:
        mask = expressions.spelled(ctx, expressions.tensor(ctx, mask, "bool"), names, "bool")
        places = ", ".join(str(mask.dims.index(n)) for n in names)
        dims = tuple(d for d in mask.dims if d not in names)
        count = Value(f"{mask.at(ATOM)}.sum(({places},)).clamp(min=1)", dims, "int")
    total = expressions.convert(ctx, total, "real")
    dims = ctx.ordered(merge(total.dims, count.dims))
    x, y = spread(total, dims), spread(count, dims)
    return Value(f"{x.at(PRODUCT)} / {y.at(PRODUCT + 1)}", dims, node.dtype, PRODUCT, x.static and y.static)

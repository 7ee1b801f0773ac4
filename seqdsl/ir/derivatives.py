"""The derivative of every operator: one row each, giving the cotangents of its operands.

`ELEMENTWISE`, `ALONG`, `PARTS` (of complex numbers), `MAPS` and `reduction_cotangent` are the five kinds of row.

A row takes the node, the cotangent of its value (an expression that varies along what the value varies along) and
gives one cotangent for each operand, None where none flows (integers, guards, `stop`). A reduction's row sees its
body under fresh bound names; the caller sums over them. Derivatives at kinks are torch's: those that share a maximum or a
minimum have equal parts of its cotangent, as no order of them would say who has it; `abs`, `relu` and `sign` have
derivative 0 at 0. Checked against finite differences and autograd in tests/ir.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from seqdsl.ir import build
from seqdsl.ir.build import add, const, div, index, mul, neg, reduce, sub
from seqdsl.ir.node import Node
from seqdsl.ir.ops import bound, make, options

Row = Callable[[Node, Node], tuple[Node | None, ...]]

_HALF, _TWO = const(Fraction(1, 2)), const(2)


def _f(op: str, *args: Node) -> Node:
    return make(op, *args)


def _setting(node: Node, name: str) -> Node:
    """An option of the operator as an exact constant: the shortest decimal that names the float."""
    return const(Fraction(str(options(node)[name])))


def _inverse(x: Node) -> Node:
    return div(const(Fraction(1)), x)


def _unary(partial: Callable[[Node, Node], Node]) -> Row:
    """A row from the derivative as a function of the operand x and the value y."""
    return lambda node, c: (mul(c, partial(node.args[0], node)),)


def _where(condition: Node, x: Node) -> Node:
    return build.where(condition, x, build.ZERO)


def _chosen(node: Node, c: Node) -> tuple[Node, Node]:
    """To the operand that is the larger or the smaller one; half to each of two equal ones."""
    a, b = node.args
    half = _where(_f("eq", a, b), mul(_HALF, c))
    first, second = _f("lt", b, a), _f("lt", a, b)
    if node.op == "minimum":
        first, second = second, first
    return build.where(first, c, half), build.where(second, c, half)


def _log_add(node: Node, c: Node) -> tuple[Node, Node]:
    """Shares of the sum; none where both operands are -inf."""
    nothing = _f("eq", _f("maximum", *node.args), neg(const("inf")))
    first, second = (build.where(nothing, build.ZERO, mul(c, _f("sigmoid", sub(a, b)))) for a, b in (node.args, node.args[::-1]))
    return first, second


def _power(node: Node, c: Node) -> tuple[Node | None, ...]:
    a, b = node.args
    known = build.value_of(b) is not None
    base = mul(c, mul(b, build.make("pow", a, sub(b, build.ONE)) if build.value_of(b) != 2 else a))
    if not known:  # x^0 is 1 at 0, too
        base = build.where(_f("eq", b, build.ZERO), build.ZERO, base)
    if known or b.dtype in ("int", "bool"):
        return base, None
    nothing = build.both(_f("eq", a, build.ZERO), _f("le", build.ZERO, b))  # 0^k is 0 for all k nearby, or 1 at 0
    return base, build.where(nothing, build.ZERO, mul(c, mul(node, _f("log", a))))


def _clamp(node: Node, c: Node) -> tuple[Node, Node, Node]:
    x, low, high = node.args
    inside = build.both(_f("le", low, x), _f("le", x, high))
    return _where(inside, c), _where(_f("lt", x, low), c), _where(_f("lt", high, x), c)


def _surrogate(node: Node, c: Node) -> tuple[Node | None]:
    """`round`, `sign`, `step` with `grad = ..` (rule 33)."""
    x, kind = node.args[0], options(node)["grad"]
    if kind == "identity":
        return (c,)
    if kind == "clamp":
        return (_where(_f("le", _f("abs", x), build.ONE), c),)
    if kind == "atan":
        scaled = mul(const("pi"), x)
        return (mul(c, _inverse(add(const(Fraction(1)), mul(scaled, scaled)))),)
    return (None,)


def _direction(x: Node, size: Node) -> Node:
    """The derivative of |x|: the sign of a real number, z / |z| of a complex one, 0 at 0."""
    if x.dtype != "complex":
        return make("sign", x, attr=(("grad", "zero"),))
    return build.where(_f("eq", size, build.ZERO), build.ZERO, div(x, size))


def _sigmoid_slope(y: Node) -> Node:
    return mul(y, sub(build.ONE, y))


def _gelu(x: Node, y: Node) -> Node:
    normal = _f("exp", mul(const(Fraction(-1, 2)), mul(x, x)))
    cumulative = mul(_HALF, add(_f("erf", div(x, _f("sqrt", const(Fraction(2))))), build.ONE))
    return add(cumulative, mul(x, div(normal, _f("sqrt", mul(_TWO, const("pi"))))))


def _silu(x: Node, y: Node) -> Node:
    gate = _f("sigmoid", x)
    return mul(gate, add(mul(x, sub(build.ONE, gate)), build.ONE))


ELEMENTWISE: dict[str, Row] = {
    "add": lambda n, c: (c, c),
    "sub": lambda n, c: (c, neg(c)),
    "mul": lambda n, c: (mul(c, n.args[1]), mul(c, n.args[0])),
    "div": lambda n, c: (div(c, n.args[1]), neg(div(mul(c, n), n.args[1]))),
    "neg": lambda n, c: (neg(c),),
    "mod": lambda n, c: (c, neg(mul(c, _f("floor_div", *n.args)))),
    "pow": _power,
    "maximum": _chosen,
    "minimum": _chosen,
    "where": lambda n, c: (None, _where(n.args[0], c), _where(_f("not", n.args[0]), c)),
    "exp": _unary(lambda x, y: y),
    "log": _unary(lambda x, y: _inverse(x)),
    "log2": _unary(lambda x, y: _inverse(mul(x, _f("log", const(Fraction(2)))))),
    "sqrt": _unary(lambda x, y: div(_HALF, y)),
    "abs": lambda n, c: (mul(c, _direction(n.args[0], n)),),
    "sin": _unary(lambda x, y: _f("cos", x)),
    "cos": _unary(lambda x, y: neg(_f("sin", x))),
    "tanh": _unary(lambda x, y: sub(build.ONE, mul(y, y))),
    "sigmoid": _unary(lambda x, y: _sigmoid_slope(y)),
    "log_sigmoid": _unary(lambda x, y: _f("sigmoid", neg(x))),
    "softplus": _unary(lambda x, y: _f("sigmoid", x)),
    "inv_softplus": _unary(lambda x, y: _inverse(neg(_f("expm1", neg(x))))),
    "silu": _unary(_silu),
    "gelu": _unary(_gelu),
    "relu": _unary(lambda x, y: _where(_f("lt", build.ZERO, x), const(Fraction(1)))),
    "leaky_relu": lambda n, c: (build.where(_f("lt", build.ZERO, n.args[0]), c, mul(c, _setting(n, "slope"))),),
    "elu": _unary(lambda x, y: build.where(_f("lt", build.ZERO, x), const(Fraction(1)), _f("exp", x))),
    "erf": _unary(lambda x, y: mul(div(_TWO, _f("sqrt", const("pi"))), _f("exp", neg(mul(x, x))))),
    "expm1": _unary(lambda x, y: _f("exp", x)),
    "log1p": _unary(lambda x, y: _inverse(add(x, build.ONE))),
    "logaddexp": _log_add,
    "clamp": _clamp,
    "newton": lambda n, c: (c, *(None for _ in n.args[1:])),  # marks: the value is the first operand
    "front": lambda n, c: (c,),
    "level": lambda n, c: (c,),
    "over_ranks": lambda n, c: (c,),
    "round": _surrogate,
    "sign": _surrogate,
    "step": _surrogate,
}
STOPS = frozenset(  # no derivative flows: integers, booleans, and what the user stopped
    "const index size option read lt le eq ne and or not stop floor ceil floor_div exact_div xor bit_and bit_length "
    "popcount argmax rank any all normal uniform orthogonal".split()
)


def _softmax(node: Node, c: Node) -> Node:
    return mul(node, sub(c, reduce("sum", bound(node), mul(c, node), node.args[1])))


def _count(node: Node) -> Node:
    return reduce("sum", bound(node), build.ONE, node.args[1])


def _rms_norm(node: Node, c: Node) -> Node:
    x, guard = node.args
    axes = bound(node)
    eps = _setting(node, "eps")
    scale = _inverse(_f("sqrt", add(reduce("mean", axes, mul(x, x), guard), eps)))
    return sub(mul(c, scale), mul(mul(node, mul(scale, scale)), reduce("mean", axes, mul(c, x), guard)))


def _l2_norm(node: Node, c: Node) -> Node:
    x, guard = node.args
    axes = bound(node)
    square = add(reduce("sum", axes, mul(x, x), guard), _setting(node, "eps"))
    return sub(div(c, _f("sqrt", square)), mul(node, div(reduce("sum", axes, mul(c, x), guard), square)))


def _layer_norm(node: Node, c: Node) -> Node:
    x, guard = node.args
    axes = bound(node)
    centred = sub(x, reduce("mean", axes, x, guard))
    variance = reduce("mean", axes, mul(centred, centred), guard)
    scale = _inverse(_f("sqrt", add(variance, _setting(node, "eps"))))
    inner = sub(c, add(reduce("mean", axes, c, guard), mul(node, reduce("mean", axes, mul(c, node), guard))))
    return mul(scale, inner)


ALONG: dict[str, Callable[[Node, Node], Node]] = {
    "softmax": _softmax,
    "rms_norm": _rms_norm,
    "l2_norm": _l2_norm,
    "layer_norm": _layer_norm,
}


# What makes a real number of a complex one, or another that is not holomorphic in it: whole cotangents, as torch's.
PARTS: dict[str, Callable[[Node, Node], Node]] = {
    "re": lambda n, c: c,
    "im": lambda n, c: mul(const("i"), c),
    "conj": lambda n, c: _f("conj", c),
}


def _length(node: Node, position: int) -> Node:
    return build.size(node.attr[position][0])


def _backwards(node: Node, op: str, c: Node) -> Node:
    """The operator from what the node makes to what it consumes."""
    consumed, appear, _ = node.attr
    return make(op, c, attr=(appear, consumed, ()))


def _halves(node: Node, position: int, inner: Fraction) -> Node:
    """1 at the ends of a half spectrum, where a frequency is its own mirror image, `inner` between."""
    n = index(node.attr[position][0])
    whole = node.attr[1 - position][0]
    last = _f("eq", mul(_TWO, n), build.size(whole))
    return build.where(_f("or", _f("eq", n, build.ZERO), last), const(Fraction(1)), const(inner))


def _cosines(node: Node, c: Node) -> Node:
    """The transposed DCT-II: a sum over its frequencies."""
    (name,), (made_name,) = node.attr[0], node.attr[1]
    frequency = build.fresh(made_name + "'", c.free | node.free | {name, made_name})
    k, n = index(frequency), build.size(made_name)
    angle = mul(const("pi"), div(mul(add(mul(_TWO, index(name)), build.ONE), k), mul(_TWO, n)))
    first = div(const(Fraction(1)), _f("sqrt", _TWO))
    scale = mul(_f("sqrt", div(_TWO, n)), build.where(_f("eq", k, build.ZERO), first, const(Fraction(1))))
    moved = build.substitute(c, {made_name: k})
    return reduce("sum", (frequency,), mul(moved, mul(scale, _f("cos", angle))))


def _transposed_solve(node: Node, value: Node, c: Node) -> tuple[Node, Node]:
    """x = A^-1 b: the cotangent of b is y = A^-T c, and that of A is -y x."""
    consumed, appear, _ = node.attr
    y = make("solve", node.args[0], c, attr=(appear, consumed, ()))
    return neg(mul(y, value)), y


def _orthogonal_factor(node: Node, value: Node, c: Node) -> tuple[Node]:
    """A = Q R: the cotangent of A is G R^-T, where G = c - Q K and K is the symmetric matrix that has the lower triangle
    of c^T Q: Q^T dQ is antisymmetric, and R stays upper triangular."""
    (row,), (_, column), _ = node.attr
    taken = c.free | node.free
    i, j, k = (build.fresh(f"{n}'", taken) for n in (row, column, f"{column}'"))

    def at(x: Node, rows: str, columns: str) -> Node:
        return build.substitute(x, {row: index(rows), column: index(columns)})

    def skew(a: str, b: str) -> Node:
        return reduce("sum", (i,), mul(at(c, i, a), at(value, i, b)))

    symmetric = build.where(_f("le", index(j), index(k)), skew(k, j), skew(j, k))
    g = sub(at(c, row, j), reduce("sum", (k,), mul(at(value, row, k), symmetric)))
    r = reduce("sum", (i,), mul(at(value, i, j), at(node.args[0], i, column)))
    return (make("solve", r, g, attr=((j,), (column,), ())),)


# Maps from consumed to made indices, from the node, its value and the cotangent: those of the operands vary along what
# these do. Of linear ones the transposed map, conjugated.
MAPS: dict[str, Callable[[Node, Node, Node], tuple[Node, ...]]] = {
    "fft": lambda n, y, c: (mul(_length(n, 0), _backwards(n, "ifft", c)),),
    "ifft": lambda n, y, c: (div(_backwards(n, "fft", c), _length(n, 0)),),
    "rfft": lambda n, y, c: (mul(_length(n, 0), _backwards(n, "irfft", mul(c, _halves(n, 1, Fraction(1, 2))))),),
    "irfft": lambda n, y, c: (mul(div(_halves(n, 0, Fraction(2)), _length(n, 1)), _backwards(n, "rfft", c)),),
    "hadamard": lambda n, y, c: (_backwards(n, "hadamard", c),),
    "dct": lambda n, y, c: (_cosines(n, c),),
    "solve": _transposed_solve,
    "qr": _orthogonal_factor,
}


def _position(names: tuple[str, ...]) -> Node:
    """The row-major position of bound indices."""
    result = build.ZERO
    for name in names:
        result = add(mul(result, build.size(name)), index(name))
    return result


def reduction_cotangent(node: Node, renamed: Node, c: Node) -> Node | None:
    """The cotangent of a reduction's body; `renamed` is the node with fresh bound names, in which the result stands."""
    body, guard = renamed.args
    names = bound(renamed)
    if node.op == "sum":
        return c
    if node.op == "mean":
        return div(c, _count(node))
    if node.op in ("logsumexp", "normaliser"):
        return mul(c, _f("exp", sub(body, node)))
    if node.op in ("max", "min"):
        sharing = reduce("sum", bound(node), _f("eq", node.args[0], node), node.args[1])
        return _where(_f("eq", body, node), div(c, sharing))
    if node.op == "prod":
        others = build.both(node.args[1], _f("ne", _position(bound(node)), _position(names)))
        return mul(c, make("prod", node.args[0], others, attr=node.attr))
    return None

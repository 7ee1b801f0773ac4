"""Operators written through simpler ones for the canonical form: sigmoid through exp, norms through sums.

Each row is an identity of real functions (of complex ones where the operator takes them); guards at which a normaliser
is 0 become `where`. Rows are property-tested in tests/algebra.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from seqdsl.ir import build
from seqdsl.ir.build import add, const, div, mul, neg, sub
from seqdsl.ir.node import Node
from seqdsl.ir.ops import bound, make, options

_ONE = const(Fraction(1))


def _exp(x: Node) -> Node:
    return make("exp", x)


def _sigmoid(x: Node) -> Node:
    return div(_ONE, add(_ONE, _exp(neg(x))))


def _softplus(x: Node) -> Node:
    return make("log", add(_ONE, _exp(x)))


def _softmax(node: Node) -> Node:
    x, guard = node.args
    weights = _exp(x)
    return div(build.where(guard, weights, build.ZERO), build.reduce("sum", bound(node), weights, guard))


def _mean(node: Node) -> Node:
    body, guard = node.args
    count: Node = build.product(build.size(i) for i in bound(node))
    if guard is not build.TRUE:
        count = build.reduce("sum", bound(node), build.ONE, guard)
    return div(build.reduce("sum", bound(node), body, guard), count)


def _scaled(node: Node, value: Node, square: Node) -> Node:
    """value / sqrt(square + eps), 0 outside the guard."""
    root = make("sqrt", add(square, const(Fraction(options(node)["eps"]))))
    return build.where(node.args[1], div(value, root), build.ZERO)


def _rms_norm(node: Node) -> Node:
    x, guard = node.args
    return _scaled(node, x, make("mean", mul(x, x), guard, attr=(bound(node), ())))


def _l2_norm(node: Node) -> Node:
    x, guard = node.args
    return _scaled(node, x, build.reduce("sum", bound(node), mul(x, x), guard))


def _layer_norm(node: Node) -> Node:
    x, guard = node.args
    centred = sub(x, make("mean", x, guard, attr=(bound(node), ())))
    return _scaled(node, centred, make("mean", mul(centred, centred), guard, attr=(bound(node), ())))


def _unary(row: Callable[[Node], Node]) -> Callable[[Node], Node]:
    return lambda node: row(node.args[0])


EXPAND: dict[str, Callable[[Node], Node]] = {
    "sub": lambda n: add(n.args[0], neg(n.args[1])),
    "sigmoid": _unary(_sigmoid),
    "tanh": _unary(lambda x: sub(mul(const(2), _sigmoid(mul(const(2), x))), _ONE)),
    "silu": _unary(lambda x: mul(x, _sigmoid(x))),
    "softplus": _unary(_softplus),
    "log_sigmoid": _unary(lambda x: neg(_softplus(neg(x)))),
    "inv_softplus": _unary(lambda x: make("log", sub(_exp(x), _ONE))),
    "expm1": _unary(lambda x: sub(_exp(x), _ONE)),
    "log1p": _unary(lambda x: make("log", add(_ONE, x))),
    "log2": _unary(lambda x: div(make("log", x), make("log", const(Fraction(2))))),
    "logaddexp": lambda n: make("log", add(_exp(n.args[0]), _exp(n.args[1]))),
    "logsumexp": lambda n: make("log", build.reduce("sum", bound(n), _exp(n.args[0]), n.args[1])),
    "relu": _unary(lambda x: make("maximum", x, build.ZERO)),
    "minimum": lambda n: neg(make("maximum", neg(n.args[0]), neg(n.args[1]))),
    "min": lambda n: neg(make("max", neg(n.args[0]), n.args[1], attr=n.attr)),
    "clamp": lambda n: make("minimum", make("maximum", n.args[0], n.args[1]), n.args[2]),
    "stop": _unary(lambda x: x),
    "mean": _mean,
    "softmax": _softmax,
    "rms_norm": _rms_norm,
    "l2_norm": _l2_norm,
    "layer_norm": _layer_norm,
}

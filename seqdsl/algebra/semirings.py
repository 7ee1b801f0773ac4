"""Updates that are affine over another semiring than (+, *): (max, +), (min, +), (logaddexp, +), (or, and), (max, *).

DERIVATIONS 1.3: state -> coefficient 1; state-free subterm -> constant, whatever is inside; the ring's addition joins;
its multiplication takes the state on one side only; anything else on the state leaves the ring. `coefficients` reads
the two coefficients of such an update off by the same induction.
"""

from __future__ import annotations

from dataclasses import dataclass

from seqdsl.algebra.affine import NoMatch, Update
from seqdsl.ir import build
from seqdsl.ir.node import Node, reads


@dataclass(frozen=True)
class Ring:
    """One row: what adds and what multiplies, as operators of expressions, and their neutral elements. `option` is the ring
    as the operator `ring_scan` is told of it, `product` the reduction that multiplies many factors. Where they must be
    `positive`, factors are in the ring only if shown not to be negative: others change the order of what they multiply."""

    name: str
    option: str
    add: frozenset[str]
    mul: frozenset[str]
    zero: Node
    one: Node
    product: str
    positive: bool = False


_MAX, _MIN, _PLUS = frozenset(("maximum",)), frozenset(("minimum",)), frozenset(("add", "sub"))
_LOW, _HIGH = build.neg(build.const("inf")), build.const("inf")
RINGS = (
    Ring("max +", "max_plus", _MAX, _PLUS, _LOW, build.ZERO, "sum"),
    Ring("min +", "min_plus", _MIN, _PLUS, _HIGH, build.ZERO, "sum"),
    Ring("logaddexp +", "logaddexp_plus", frozenset(("logaddexp",)), _PLUS, _LOW, build.ZERO, "sum"),
    Ring("or and", "or_and", frozenset(("or",)), frozenset(("and",)), build.FALSE, build.TRUE, "all"),
    Ring("max *", "max_times", _MAX, frozenset(("mul",)), build.ZERO, build.ONE, "prod", positive=True),
)


def ring_of(updates: list[Update]) -> Ring | None:
    """The first ring over which every update is affine."""
    states = {u.state.name for u in updates}
    for ring in RINGS:
        if all(_inside(u.rhs, states, ring) for u in updates):
            return ring
    return None


def _mentions(node: Node, states: set[str]) -> bool:
    return any(r.attr in states for r in reads(node))


def _inside(node: Node, states: set[str], ring: Ring) -> bool:
    if not _mentions(node, states):
        return True
    if node.op == "read":
        return node.attr in states and not any(_mentions(a, states) for a in node.args)
    if node.op == "relu" and ring.add == _MAX and not ring.positive:  # relu(x) = max(x, 0)
        return _inside(node.args[0], states, ring)
    if node.op in ("max", "min", "logsumexp", "any") and _reduces(node.op) in ring.add:
        return not _mentions(node.args[1], states) and _inside(node.args[0], states, ring)
    if node.op in ring.add:
        return all(_inside(a, states, ring) for a in node.args)
    if node.op in ring.mul:
        left, right = (_mentions(a, states) for a in node.args)
        if left and right or (node.op == "sub" and right):
            return False
        if ring.positive and not _not_negative(node.args[1] if left else node.args[0]):
            return False
        return all(_inside(a, states, ring) for a in node.args)
    if node.op == "where" and not _mentions(node.args[0], states):
        return all(_inside(a, states, ring) for a in node.args[1:])
    return False


def _reduces(op: str) -> str:
    return {"max": "maximum", "min": "minimum", "logsumexp": "logaddexp", "any": "or"}[op]


def _not_negative(node: Node) -> bool:
    """Shown not to be negative by its outermost operator."""
    if node.op in ("exp", "sigmoid", "softplus", "relu", "abs"):
        return True
    value = build.value_of(node)
    if value is not None:
        return value >= 0
    return node.op in ("mul", "add") and all(_not_negative(a) for a in node.args)


def coefficients(update: Update, ring: Ring) -> tuple[Node, Node]:
    """(a, b) with update = (a mul state) add b. Raises `NoMatch` where the state is read at another place of an axis,
    or through a reduction."""
    a, b = _coefficients(update.rhs, update, ring)
    zero = ring.zero
    return (zero if a is None else a), (zero if b is None else b)


def _coefficients(node: Node, update: Update, ring: Ring) -> tuple[Node | None, Node | None]:
    """None is the ring's zero."""
    state = {update.state.name}
    if not _mentions(node, state):
        return None, node
    if node.op == "read":
        for position, (own, subscript) in enumerate(zip(update.state.indices, node.args, strict=True)):
            if position != update.position and subscript is not build.index(own):
                raise NoMatch(f"`{node!r}` reads the state at another place of `{own}`")
        return ring.one, None
    if node.op == "relu":
        a, b = _coefficients(node.args[0], update, ring)
        return a, _joined("maximum", b, build.ZERO)
    if node.op in ring.add:
        (a, b), (c, d) = (_coefficients(x, update, ring) for x in node.args)
        return _joined(node.op, a, c), _joined(node.op, b, d)
    if node.op in ring.mul:
        left = _mentions(node.args[0], state)
        constant = node.args[1 if left else 0]
        a, b = _coefficients(node.args[0 if left else 1], update, ring)
        return _scaled(node.op, a, constant), _scaled(node.op, b, constant)
    if node.op == "where":
        zero = ring.zero
        (a, b), (c, d) = (_coefficients(x, update, ring) for x in node.args[1:])
        either = [
            build.where(node.args[0], zero if x is None else x, zero if y is None else y) for x, y in ((a, c), (b, d))
        ]
        return either[0], either[1]
    raise NoMatch(f"the state is read through `{node.op}`")


def _joined(add: str, a: Node | None, b: Node | None) -> Node | None:
    if a is None or b is None:
        return b if a is None else a
    return build.make(add, a, b)


def _scaled(mul: str, a: Node | None, constant: Node) -> Node | None:
    if a is None:
        return None
    row = {"add": build.add, "sub": build.sub, "mul": build.mul, "and": build.both}[mul]
    return row(a, constant)

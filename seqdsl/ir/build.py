"""Constructors of nodes with the simplifications that hold in every ring: `0 + x`, `1 * x`, folded integers.

Architecture invariant: no rewriting beyond a node and its direct operands; the algebra's canonical form lives in
`seqdsl.algebra`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction as Fraction
from typing import TYPE_CHECKING

from seqdsl.ir.node import Node, walk
from seqdsl.ir.ops import OPS, bound, made, remake
from seqdsl.ir.ops import make as make

if TYPE_CHECKING:
    from seqdsl.ir.system import Tensor

Value = bool | int | Fraction | str


def const(value: Value) -> Node:
    """A constant; "inf", "pi" and "i" are named ones."""
    if isinstance(value, bool):
        return make("const", attr=value, dtype="bool")
    if isinstance(value, int):
        return make("const", attr=value, dtype="int")
    return make("const", attr=value, dtype="complex" if value == "i" else "real")


TRUE, FALSE, ZERO, ONE = const(True), const(False), const(0), const(1)


def zero(dtype: str) -> Node:
    """What a tensor of the type reads as outside its axes."""
    return FALSE if dtype == "bool" else ZERO


def index(name: str) -> Node:
    """The position along an index."""
    return make("index", attr=name)


def size(name: str) -> Node:
    """`|name|`."""
    return make("size", attr=name)


def option(name: str) -> Node:
    """An option of the mixer."""
    return make("option", attr=name)


def read(tensor: str, subscripts: Iterable[Node], dtype: str) -> Node:
    """A tensor at one subscript for each of its indices."""
    return make("read", *subscripts, attr=tensor, dtype=dtype)


def whole(tensor: Tensor) -> Node:
    """A tensor at its own indices."""
    return read(tensor.name, [index(i) for i in tensor.indices], tensor.dtype)


def value_of(node: Node) -> int | Fraction | None:
    """The exact number of a numeric constant, else None."""
    if node.op == "const" and isinstance(node.attr, int | Fraction) and not isinstance(node.attr, bool):
        return node.attr
    return None


def add(a: Node, b: Node) -> Node:
    """a + b"""
    x, y = value_of(a), value_of(b)
    if x is not None and y is not None:
        return const(x + y)
    if x == 0:
        return b  # 0 + x -> x
    if y == 0:
        return a  # x + 0 -> x
    if y is not None and a.op == "add" and (z := value_of(a.args[1])) is not None:
        return add(a.args[0], const(z + y))  # (x + 1) + 2 -> x + 3
    if x is not None:
        return make("add", b, a)
    return make("add", a, b)


def sub(a: Node, b: Node) -> Node:
    """a - b"""
    y = value_of(b)
    if y is not None:
        return add(a, const(-y))  # x - 1 -> x + -1
    if a is b and a.dtype in ("int", "bool"):
        return ZERO
    return make("sub", a, b)


def mul(a: Node, b: Node) -> Node:
    """a * b; a product with the constant 0 is 0 (rule 10: nothing is absent, so no NaN can hide behind it)."""
    x, y = value_of(a), value_of(b)
    if x is not None and y is not None:
        return const(x * y)
    if x == 1:
        return b  # 1 * x -> x
    if y == 1:
        return a  # x * 1 -> x
    if x == 0 or y == 0:
        return ZERO  # 0 * x -> 0
    return make("mul", a, b)


def div(a: Node, b: Node) -> Node:
    """a / b, real"""
    return a if value_of(b) == 1 and a.dtype != "int" else make("div", a, b)


def neg(a: Node) -> Node:
    """-a"""
    x = value_of(a)
    if x is not None:
        return const(-x)
    return a.args[0] if a.op == "neg" else make("neg", a)


def at_least_real(a: Node) -> Node:
    """A whole number or a condition as a real number; any other value as it is."""
    return make("div", a, ONE) if a.dtype in ("int", "bool") else a


def both(a: Node, b: Node) -> Node:
    """a and b"""
    if a is TRUE or a is b:
        return b
    if b is TRUE:
        return a
    return FALSE if FALSE in (a, b) else make("and", a, b)


def every(facts: Iterable[Node]) -> Node:
    """The conjunction of facts, true for none; `conjuncts` takes it apart."""
    whole: Node = TRUE
    for fact in facts:
        whole = both(whole, fact)
    return whole


def where(condition: Node, a: Node, b: Node) -> Node:
    """a where the condition holds, else b; the other branch is not evaluated"""
    if condition is TRUE:
        return a
    return b if condition is FALSE else make("where", condition, a, b)


def reduce(op: str, indices: Iterable[str], body: Node, guard: Node = TRUE) -> Node:
    """A reduction over indices; over none it is the body under the guard."""
    bound_names = tuple(indices)
    if not bound_names and op == "sum":
        return where(guard, body, ZERO)
    return make(op, body, guard, attr=(bound_names, ()))


def written_out(node: Node) -> Node:
    """What a `normalised_read` stands for: the sum of its values, weighted by the softmax of its scores."""
    scores, values, guard = node.args
    return make("sum", mul(make("softmax", scores, guard, attr=node.attr), values), guard, attr=node.attr)


def total(terms: Iterable[Node]) -> Node:
    """The sum of terms, 0 for none."""
    result = ZERO
    for term in terms:
        result = add(result, term)
    return result


def product(factors: Iterable[Node]) -> Node:
    """The product of factors, 1 for none."""
    result = ONE
    for factor in factors:
        result = mul(result, factor)
    return result


def quotient(factors: Iterable[Node], divisors: Iterable[Node]) -> Node:
    """The product of factors, divided by each of the divisors."""
    result = product(factors)
    for divisor in divisors:
        result = div(result, divisor)
    return result


def conjuncts(guard: Node) -> list[Node]:
    """The operands of nested `and`s; none for a guard that always holds."""
    if guard is TRUE:
        return []
    return conjuncts(guard.args[0]) + conjuncts(guard.args[1]) if guard.op == "and" else [guard]


def rename(node: Node, names: Mapping[str, str]) -> Node:
    """Rename indices, free and bound alike; `names` must not merge two indices that occur together."""
    done: dict[Node, Node] = {}
    for current in walk(node):
        args = tuple(done[a] for a in current.args)
        if current.op in ("index", "size"):
            done[current] = make(current.op, attr=names.get(str(current.attr), current.attr))
        elif OPS[current.op].binding:
            attr = tuple(
                tuple(names.get(n, n) for n in part) if position in _INDEX_PARTS[OPS[current.op].binding] else part
                for position, part in enumerate(current.attr)
            )
            keep = current.dtype if current.op == "fold" else None
            done[current] = make(current.op, *args, attr=attr, dtype=keep)
        else:
            done[current] = current if args == current.args else remake(current, args)
    return done[node]


_INDEX_PARTS = {"reduce": (0,), "along": (0,), "map": (0, 1), "scan": (0, 1), "last": (0, 1), "fold": (1, 2)}


def substitute(node: Node, values: Mapping[str, Node]) -> Node:
    """Replace free indices by integer nodes. Bound indices that a value mentions are renamed first (no capture).

    An operator along an index that is substituted by another index is renamed with it; by anything else there is no
    term that says it (the value must be a tensor of its own), which is an assertion here.
    """
    values = {k: v for k, v in values.items() if k in node.free and not (v.op == "index" and v.attr == k)}
    return _substitute(node, values, {}) if values else node


def can_substitute(node: Node, values: Mapping[str, Node]) -> bool:
    """Is there a term for the substitution? Not where an operator works along an index whose value is no index."""
    moved = {k for k, v in values.items() if v.op != "index"}
    return not moved or not any(moved & set(made(n)) for n in walk(node) if OPS[n.op].binding)


_Done = dict[tuple[Node, frozenset[tuple[str, Node]]], Node]


def _substitute(node: Node, values: dict[str, Node], done: _Done) -> Node:
    if node.free.isdisjoint(values):
        return node
    values = {k: v for k, v in values.items() if k in node.free}
    key = node, frozenset(values.items())
    if key in done:
        return done[key]
    if node.op == "index":
        result = values[str(node.attr)]
    elif not OPS[node.op].binding:
        result = remake(node, tuple([_substitute(a, values, done) for a in node.args]))
    else:
        result = _substitute_binder(node, values, done)
    done[key] = result
    return result


def _substitute_binder(node: Node, values: dict[str, Node], done: _Done) -> Node:
    moved = {n: values[n] for n in made(node) if n in values}
    assert all(v.op == "index" for v in moved.values()), f"{node.op} along {set(moved)} needs a tensor of its own"
    renames = {n: str(v.attr) for n, v in moved.items()}
    mentioned = frozenset(renames.values()).union(*(v.free for k, v in values.items() if k not in moved))
    taken = mentioned | node.free
    for name in bound(node):
        if name in mentioned and name not in made(node):
            renames[name] = fresh(name, taken)
            taken |= {renames[name]}
    if renames:
        node = rename_here(node, renames)
    rest = {k: v for k, v in values.items() if k not in moved}
    return remake(node, tuple(_substitute(a, rest, done) for a in node.args))


def rename_here(node: Node, names: Mapping[str, str]) -> Node:
    """Rename indices that this binder binds, in it and its operands."""
    attr = tuple(
        tuple(names.get(n, n) for n in part) if position in _INDEX_PARTS[OPS[node.op].binding] else part
        for position, part in enumerate(node.attr)
    )
    args = tuple(substitute(a, {k: index(v) for k, v in names.items()}) for a in node.args)
    return make(node.op, *args, attr=attr, dtype=node.dtype if node.op == "fold" else None)


def fresh(name: str, taken: Iterable[str]) -> str:
    """`name`, or `name'`, `name''`, .. : the first that is not taken. A prime cannot occur in a user's name."""
    used = set(taken)
    while name in used:
        name += "'"
    return name


def numbered(name: str, taken: Iterable[str]) -> str:
    """`name`, or `name2`, `name3`, .. : for what is declared, where a prime would say that an index was renamed."""
    used = set(taken)
    return next(n for n in (name, *(f"{name}{k}" for k in range(2, len(used) + 3))) if n not in used)

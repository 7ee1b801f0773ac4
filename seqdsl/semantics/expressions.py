"""Expressions: from tree to node, with the index rules 2 to 6, 10, 11 and 13 to 15 checked on the way.

Types are left open here (a read's dtype is a placeholder); `types` infers and checks them when all is known.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable
from fractions import Fraction

from seqdsl.diagnostics import SeqError, Span
from seqdsl.ir import build
from seqdsl.ir.node import Node
from seqdsl.ir.ops import make
from seqdsl.semantics import calls, equations, folds, gradients, operators, parameters
from seqdsl.semantics.builtins import ALONG, CONSTANTS, ELEMENTWISE, RANDOM, REDUCTIONS, TRANSFORMS
from seqdsl.semantics.scope import Place, Ref, Scope
from seqdsl.semantics.sizes import size_of
from seqdsl.syntax import tree

PLACEHOLDER = "bool"  # the least dtype; `types` replaces it by the inferred one
_BINARY = {"+": build.add, "-": build.sub, "*": build.mul, "/": build.div}
_OTHER = {"//": "floor_div", "%": "mod", "and": "and", "or": "or"}
_LARGEST_EXPONENT = 400
_COMPUTED: dict[str, Callable[..., float | complex]] = {
    "pow": operator.pow,
    "neg": operator.neg,
    "mul": operator.mul,
    "div": operator.truediv,
    "add": operator.add,
    "sub": operator.sub,
}
_MOST_BITS = 64  # of an integer that is computed here
_LARGEST_REAL = int(sys.float_info.max)
_LONGEST_HELP = 48
_MOST_OPERANDS = 100  # of a comparison chain or `max`: they become nested terms


def lower(place: Place, expr: tree.Expr) -> Node:
    """The node of an expression; its place in the text is remembered for later errors."""
    node = _lower(place, expr)
    place.scope.builder.spans.setdefault((place.scope.prefix + place.target, node), expr.span)
    return node


def _lower(place: Place, expr: tree.Expr) -> Node:
    match expr:
        case tree.Number():
            return number(expr)
        case tree.Name():
            return _name(place, expr)
        case tree.SizeOf():
            return size_of(place.scope, expr)
        case tree.Field():
            return _read_all(place, _field(place, expr), expr.span, expr.span.text)
        case tree.Unary():
            arg = lower(place, expr.arg)
            return build.neg(arg) if expr.op == "-" else make("not", arg)
        case tree.Binary():
            return _binary(place, expr)
        case tree.Compare():
            return _compare(place, expr)
        case tree.Read():
            return _read(place, expr)
        case tree.Reduction():
            return operators.reduction(place, expr.op, expr.brackets, expr.body, expr.span)
        case tree.Call():
            return _call(place, expr)
        case tree.Tuple():
            raise SeqError("misplaced-tuple", "a tuple in a tuple", expr.span, help="list plain values")
    raise AssertionError(f"no lowering for {type(expr).__name__}")


def number(expr: tree.Number) -> Node:
    """An exact constant: integers stay integers, decimals become fractions, `2i` is imaginary."""
    text, imaginary = (expr.text[:-1], True) if expr.text.endswith("i") else (expr.text, False)
    mantissa, _, exponent = text.lower().partition("e")
    if len(mantissa) > _LARGEST_EXPONENT or len(exponent) > 5 or abs(int(exponent or 0)) > _LARGEST_EXPONENT:
        raise SeqError(
            "number-too-large",
            f"`{expr.text[:20]}` has no float64",
            expr.span,
            label="out of range",
            help="write `inf` if infinity is meant",
        )
    value: int | Fraction = int(text) if text.isdigit() else Fraction(text)
    if imaginary:
        return build.mul(_fitting(build.const(Fraction(value)), expr.span), build.const("i"))
    return _fitting(build.const(value), expr.span)


def _fitting(node: Node, span: Span) -> Node:
    """A constant, written or computed, must have an int64 or a float64."""
    value = build.value_of(node)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise SeqError(
            "number-too-large",
            "this integer has more than 64 bits",
            span,
            label="out of range",
            help="write a real number, with a point or an exponent",
        )
    if value is not None and abs(Fraction(value)) > _LARGEST_REAL:
        raise SeqError(
            "number-too-large",
            "this number has no float64",
            span,
            label="out of range",
            help="write `inf` if infinity is meant",
        )
    return node


def _name(place: Place, expr: tree.Name) -> Node:
    scope, name = place.scope, expr.plain
    if name in scope.indices:
        index = scope.indices[name]
        visible(place, (index,), expr.span, f"`{name}` is an index")
        return build.index(index)
    if scope.kind_of(name) == "tensor":
        ref = equations.resolve(scope, name, expr.span)
        _refuse_ambiguous(place, ref, expr)
        return _read_all(place, ref, expr.span, name)
    if name in scope.sizes:
        return scope.sizes[name]
    if name in CONSTANTS:
        return {"true": build.TRUE, "false": build.FALSE}.get(name) or build.const(name)
    if name in scope.file.declarations or name in ELEMENTWISE:
        raise SeqError(
            "missing-arguments",
            f"`{name}` is a function and needs its arguments",
            expr.span,
            help=f"write `{name}(..)`",
        )
    raise scope.unknown(name, expr.span)


def _field(place: Place, expr: tree.Field) -> Ref:
    name = f"{expr.owner.plain}.{expr.name.plain}"
    if name not in place.scope.tensors:
        raise place.scope.unknown(name, expr.span, "field")
    return place.scope.tensors[name]


def _read_all(place: Place, ref: Ref, span: Span, text: str) -> Node:
    """An elided read: every declared index stands for itself."""
    visible(place, ref.indices, span, f"`{text}` is {signature(place.scope, ref)}")
    return read_ref(ref, [build.index(i) for i in ref.indices])


def read_ref(ref: Ref, subscripts: list[Node]) -> Node:
    """The read of a tensor through a scope's reference."""
    return build.read(ref.name, [build.index(m) for m in ref.mapped] + subscripts, PLACEHOLDER)


def signature(scope: Scope, ref: Ref) -> str:
    """`S[t,h,d]`, as the text of a scope writes it."""
    return f"{ref.local}[{','.join(local_name(scope, i) for i in ref.indices)}]"


def local_name(scope: Scope, index: str) -> str:
    """How the text of a scope writes an index of the system."""
    return next((k for k, v in scope.indices.items() if v == index), index)


def counted(number: int, noun: str) -> str:
    """`1 index`, `2 indices`, `3 values`."""
    return f"{number} {noun if number == 1 else 'indices' if noun == 'index' else noun + 's'}"


def visible(place: Place, indices: tuple[str, ...], span: Span, label: str) -> None:
    stray = [i for i in indices if i not in place.visible]
    if not stray:
        return
    scope = place.scope
    names = " and ".join(f"`{local_name(scope, i)}`" for i in stray)
    listed = ",".join(local_name(scope, i) for i in stray)
    term = product_around(place.whole, span) if place.whole is not None else span
    text = span.text if len(term.text) > _LONGEST_HELP or "\n" in term.text else term.text
    text = text if len(text) <= _LONGEST_HELP else ".."
    raise SeqError(
        "stray-index",
        f"the right side varies along {names}, the left side does not",
        span,
        label=label,
        help=f"sum over {'it' if len(stray) == 1 else 'them'}, `sum[{listed}] {text}`, or add {names} on the left",
    )


def product_around(expr: tree.Expr, span: Span) -> Span:
    """The largest product around a place: what a `sum` written before it would extend over (rule 13)."""
    while True:
        if isinstance(expr, tree.Binary) and expr.op in ("+", "-", "and", "or"):
            parts: tuple[tree.Expr, ...] = (expr.left, expr.right)
        elif isinstance(expr, tree.Compare):
            parts = expr.args
        else:
            return expr.span
        around = [p for p in parts if p.span.start <= span.start and span.end <= p.span.end]
        if not around:
            return expr.span
        expr = around[0]


def _refuse_ambiguous(place: Place, ref: Ref, expr: tree.Name) -> None:
    """Rule 5: in a sum over s, a bare factor that carries another index of the axis, and not s."""
    scope = place.scope
    for s in place.sums:
        if s in ref.indices:
            continue
        for t in ref.indices:
            if scope.is_second_of(t, s) and t not in place.sums:
                one, other = local_name(scope, s), local_name(scope, t)
                raise SeqError(
                    "ambiguous-axis",
                    f"`{expr.plain}` has `{other}`, and this is a sum over `{one}`, which runs over the same axis",
                    expr.span,
                    label=f"`{expr.plain}` is {signature(scope, ref)}",
                    help=f"write `{expr.plain}[{one}]` or `{expr.plain}[{other}]`",
                )


def _binary(place: Place, expr: tree.Binary) -> Node:
    a, b = lower(place, expr.left), lower(place, expr.right)
    if expr.op in ("/", "//", "%") and build.value_of(b) == 0:
        raise SeqError("division-by-zero", "a division by the constant zero", expr.right.span)
    if expr.op in _BINARY:
        return _fitting(_BINARY[expr.op](a, b), expr.span)
    if expr.op == "^":
        return _fitting(power(a, b), expr.span)
    return make(_OTHER[expr.op], a, b)


def power(a: Node, b: Node) -> Node:
    """`a ^ b`: integer only where the exponent is a natural number, else real (rule 31)."""
    exponent = build.value_of(b)
    base = build.value_of(a)
    if exponent == 1:
        return a
    if isinstance(exponent, int) and exponent >= 0:
        if isinstance(base, int) and (abs(base) < 2 or exponent * (abs(base).bit_length() - 1) < _MOST_BITS):
            return build.const(base ** (exponent if abs(base) > 1 else min(exponent, 2 + exponent % 2)))
        if isinstance(base, int):
            return build.const(2**_MOST_BITS)  # refused by `_fitting`, and never computed
        return make("pow", a, b)
    if _approximate(make("pow", a, b)) == math.inf:
        return build.const(Fraction(3 * _LARGEST_REAL, 2))  # refused by `_fitting`
    if isinstance(base, int):
        a = build.const(Fraction(base))
    elif a.dtype == "int":
        a = make("div", a, build.ONE)
    return make("pow", a, b)


def _approximate(node: Node) -> float | None:
    """The value of a term of numbers, `inf` where it has no float64; None for any other term."""
    value = build.value_of(node)
    if value is not None:
        return float(value) if abs(Fraction(value)) <= _LARGEST_REAL else math.inf
    if node.op not in _COMPUTED:
        return None
    args = [found for arg in node.args if (found := _approximate(arg)) is not None]
    if len(args) < len(node.args):
        return None
    try:
        result = _COMPUTED[node.op](*args)
    except OverflowError:
        return math.inf
    except ZeroDivisionError:
        return None
    return result.real if isinstance(result, complex) else float(result)


def _compare(place: Place, expr: tree.Compare) -> Node:
    few_operands(expr.args, expr.span)
    args = [lower(place, a) for a in expr.args]
    result = build.TRUE
    for op, a, b in zip(expr.ops, args[:-1], args[1:], strict=True):
        if op in (">", ">="):
            a, b = b, a
        name = {"<": "lt", ">": "lt", "<=": "le", ">=": "le", "==": "eq", "!=": "ne"}[op]
        result = build.both(result, make(name, a, b))
    return result


def few_operands(args: tuple[tree.Expr, ...], span: Span) -> None:
    if len(args) > _MOST_OPERANDS:
        raise SeqError(
            "too-deep",
            f"more than {_MOST_OPERANDS} operands in one term",
            span,
            help="use an axis, `max[j](..)`, or give parts names",
        )


def _read(place: Place, expr: tree.Read) -> Node:
    scope = place.scope
    if isinstance(expr.tensor, tree.Field):
        ref, name = _field(place, expr.tensor), expr.tensor.span.text
    else:
        name = expr.tensor.plain
        if scope.kind_of(name) != "tensor":
            if scope.kind_of(name) is None and name not in scope.file.declarations:
                raise scope.unknown(name, expr.tensor.span, "tensor")
            what = f"an {scope.kind_of(name)}" if scope.kind_of(name) == "index" else "no tensor"
            raise SeqError("not-a-tensor", f"`{name}` is {what}, and has no subscripts", expr.tensor.span)
        ref = equations.resolve(scope, name, expr.tensor.span)
    brackets = expr.brackets
    assert brackets.made is None and brackets.guard is None, "the parser refuses these"
    if len(brackets.items) > len(ref.indices):
        raise SeqError(
            "too-many-subscripts",
            f"`{name}` has {counted(len(ref.indices), 'index')} and is read with {len(brackets.items)}",
            expr.span,
            label=f"`{name}` is {signature(scope, ref)}",
        )
    subscripts = []
    for position, item in enumerate(brackets.items):
        assert not isinstance(item, tree.NewIndex), "the parser refuses these"
        below = Place(scope, place.target, place.left, place.visible, in_param=place.in_param, whole=place.whole)
        node = lower(below, item)
        _relate(place, ref, ref.indices[position], node, item.span)
        subscripts.append(node)
    rest = ref.indices[len(subscripts) :]
    visible(place, rest, expr.span, f"`{name}` is {signature(scope, ref)}")
    return read_ref(ref, subscripts + [build.index(i) for i in rest])


def _relate(place: Place, ref: Ref, own: str, subscript: Node, span: Span) -> None:
    """Rule 6: a bare index of another axis needs sizes that declarations relate, or that are equal. A stated size is such a
    declaration, of a number too: a table `P[i: N]` is read at `t`, and `wide[m]` at the first `n: M`."""
    if subscript.op != "index":
        return
    builder, name = place.scope.builder, str(subscript.attr)
    if builder.axis(name) == builder.axis(own):
        return
    sizes = [builder.indices[builder.axis(n)].size for n in (name, own)]
    if sizes[0] is not None or sizes[1] is not None:
        return  # a formula states how the lengths relate; outside is 0 (rule 10)
    builder.constraints.append((name, own))
    builder.spans[(name, own)] = span


def once(settings: tuple[tree.Setting, ...]) -> None:
    """A setting is given once."""
    names = [s.name.plain for s in settings]
    for k, setting in enumerate(settings):
        if names[k] in names[:k]:
            raise SeqError(
                "duplicate-setting", f"`{names[k]}` is given twice", setting.span, label="given again here",
                help="keep one of them",
            )  # fmt: skip


def _call(place: Place, expr: tree.Call) -> Node:
    name = expr.function.plain
    once(expr.settings)
    if name == "linear":
        return parameters.linear(place, expr)
    if name == "grad":
        return gradients.gradient(place, expr)
    declared = place.scope.file.declarations.get(name)
    if declared is not None:
        if isinstance(declared[1], tree.Monoid):
            return folds.lower_fold(place, expr, declared[0], declared[1])
        return calls.lower_call(place, expr, declared[0], declared[1])
    if expr.brackets is None:
        return operators.elementwise(place, expr, name)
    if name in REDUCTIONS:
        operators.one_argument(expr)
        operators.options(place, expr, name)
        return operators.reduction(place, name, expr.brackets, expr.args[0], expr.span)
    if name in ALONG or name in TRANSFORMS:
        return operators.along(place, expr, name)
    if name in ELEMENTWISE or name in RANDOM:
        raise SeqError(
            "unexpected-brackets",
            f"`{name}` works entry by entry, and takes no indices",
            expr.brackets.span,
            help=f"write `{name}(..)`",
        )
    raise place.scope.unknown(name, expr.function.span, "function")

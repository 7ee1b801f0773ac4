"""Sizes: integer formulas over `|x|`, options and numbers (rule 8). `/` is exact, and the result positive.

They stay symbolic in the system; `ir.sizes` evaluates them, and checks exactness, when a mixer is built or called.
"""

from __future__ import annotations

from seqdsl.diagnostics import SeqError
from seqdsl.ir import build
from seqdsl.ir.node import Node
from seqdsl.ir.ops import make
from seqdsl.semantics.scope import Scope
from seqdsl.syntax import tree

_OPERATORS = {"+": build.add, "-": build.sub, "*": build.mul}
LONGEST_NUMBER = 18  # digits; every size fits 64 bits


def lower_size(scope: Scope, expr: tree.Expr) -> Node:
    """The formula as an integer node; every division in it becomes a check of the system."""
    if isinstance(expr, tree.Number):
        if not expr.text.isdigit():
            raise SeqError(
                "not-a-size",
                f"`{expr.text}` is not an integer",
                expr.span,
                label="a size is an integer",
                help="a number that is no size is written where it is used, or is a `const` or an input",
            )
        if len(expr.text) > LONGEST_NUMBER:
            raise SeqError("size-too-large", f"a size of {len(expr.text)} digits", expr.span, label="too large")
        return build.const(int(expr.text))
    if isinstance(expr, tree.SizeOf):
        return size_of(scope, expr)
    if isinstance(expr, tree.Name):
        if expr.plain in scope.sizes:
            return scope.sizes[expr.plain]
        kind = scope.kind_of(expr.plain)
        if kind is not None:
            hint = f"write `|{expr.plain}|` for its length" if kind == "index" else ""
            raise SeqError(
                "not-a-size",
                f"`{expr.plain}` is an {kind}, not a size"
                if kind == "index"
                else f"`{expr.plain}` is a {kind}, not a size",
                expr.span,
                help=hint,
            )
        raise scope.unknown(expr.plain, expr.span, "size")
    if isinstance(expr, tree.Unary) and expr.op == "-":
        return build.neg(lower_size(scope, expr.arg))
    if isinstance(expr, tree.Binary):
        return _binary(scope, expr)
    if isinstance(expr, tree.Call) and expr.brackets is None and not expr.settings:
        return _call(scope, expr)
    raise SeqError("not-a-size", "a size is made of numbers, options, `|x|` and + - * / // % ^ ceil min max", expr.span)


def size_of(scope: Scope, expr: tree.SizeOf) -> Node:
    """`|t|`"""
    name = expr.name.plain
    if name not in scope.indices:
        kind = scope.kind_of(name)
        if kind is None:
            raise scope.unknown(name, expr.span, "index")
        hint = f"its absolute value is `abs({name})`" if kind == "tensor" else f"it is a number already: write `{name}`"
        raise SeqError(
            "not-an-index", f"`|{name}|` is the length of an axis, and `{name}` is a {kind}", expr.span, help=hint
        )
    return build.size(scope.indices[name])


def _binary(scope: Scope, expr: tree.Binary) -> Node:
    a, b = lower_size(scope, expr.left), lower_size(scope, expr.right)
    if expr.op in _OPERATORS:
        return _OPERATORS[expr.op](a, b)
    if expr.op in ("/", "//", "%") and build.value_of(b) == 0:
        raise SeqError("division-by-zero", "a size is divided by zero", expr.right.span)
    if expr.op == "/":
        return make("exact_div", a, b)
    if expr.op in ("//", "%", "^"):
        return make({"//": "floor_div", "%": "mod", "^": "pow"}[expr.op], a, b)
    raise SeqError("not-a-size", f"`{expr.op}` makes no size", expr.span)


def _call(scope: Scope, expr: tree.Call) -> Node:
    name = expr.function.plain
    if name in ("min", "max") and len(expr.args) >= 2:
        result = lower_size(scope, expr.args[0])
        for arg in expr.args[1:]:
            result = make("maximum" if name == "max" else "minimum", result, lower_size(scope, arg))
        return result
    if name == "ceil" and len(expr.args) == 1:
        arg = expr.args[0]
        if isinstance(arg, tree.Binary) and arg.op == "/":
            a, b = lower_size(scope, arg.left), lower_size(scope, arg.right)
            return build.neg(make("floor_div", build.neg(a), b))  # ceil(a / b) = -(-a // b)
        return lower_size(scope, arg)
    if name in ("min", "max", "ceil"):
        wanted = "one argument" if name == "ceil" else "two arguments or more"
        raise SeqError("not-a-size", f"`{name}` takes {wanted} in a size, not {len(expr.args)}", expr.span)
    hint = "the length of an axis is `|t|`" if name in ("len", "size", "length") else "use ceil, min or max"
    raise SeqError("not-a-size", f"`{name}` cannot stand in a size", expr.span, help=hint)

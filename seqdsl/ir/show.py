"""A node in the language's own notation, with as few parentheses as reading needs. For messages and comments."""

from __future__ import annotations

from fractions import Fraction

from seqdsl.ir.node import Node, walk
from seqdsl.ir.ops import OPS, bound, made

_LEVEL = {
    "or": 1,
    "and": 2,
    "not": 3,
    "lt": 4,
    "le": 4,
    "eq": 4,
    "ne": 4,
    "add": 5,
    "sub": 5,
    "mul": 6,
    "div": 6,
    "floor_div": 6,
    "exact_div": 6,
    "mod": 6,
    "neg": 7,
    "pow": 8,
}
SIGN = {
    "or": "or",
    "and": "and",
    "lt": "<",
    "le": "<=",
    "eq": "==",
    "ne": "!=",
    "add": "+",
    "sub": "-",
    "mul": "*",
    "div": "/",
    "exact_div": "/",
    "floor_div": "//",
    "mod": "%",
    "pow": "^",
}
_JOINED = {  # a + (b - c) reads the same without parentheses
    "add": ("add", "sub"),
    "mul": ("mul", "div"),
    "and": ("and",),
    "or": ("or",),
}


def show(node: Node) -> str:
    """`exp(g[t,h,d]) * S[t-1,h,d,e] + k[t,h,d] * v[t,h,e]`"""
    return _show(node, 0)


def _show(node: Node, outer: int) -> str:
    level = _LEVEL.get(node.op, 9)
    text = _text(node, level)
    if node.op == "const" and (text.startswith("-") or "/" in text):
        level = _LEVEL["neg" if text.startswith("-") else "div"]
    return f"({text})" if level < outer else text


def _text(node: Node, level: int) -> str:
    if node.op == "const":
        return constant(node.attr)
    if node.op in ("index", "option"):
        return str(node.attr)
    if node.op == "first":
        return f"first({node.attr})"
    if node.op == "size":
        return f"|{node.attr}|"
    if node.op == "read":
        return f"{node.attr}[{','.join(_subscript(a) for a in node.args)}]" if node.args else str(node.attr)
    if node.op in SIGN:
        return _infix(node, level)
    if node.op in ("neg", "not"):
        return f"{'-' if node.op == 'neg' else 'not '}{_show(node.args[0], level)}"
    return _call(node)


def _infix(node: Node, level: int) -> str:
    a, b = node.args
    if node.op == "add" and b.op == "const" and constant(b.attr).startswith("-"):
        return f"{_show(a, level)} - {constant(b.attr)[1:]}"
    space = "" if node.op == "pow" else " "
    right = level if b.op in _JOINED.get(node.op, ()) else level + 1
    left = level + 1 if node.op in ("pow", "lt", "le", "eq", "ne") else level
    return f"{_show(a, left)}{space}{SIGN[node.op]}{space}{_show(b, right)}"


def _subscript(node: Node) -> str:
    """`t-1`, without blanks where no word needs them."""
    text = _show(node, 0)
    return (
        text
        if any(n.op in ("and", "or", "not", "where") or OPS[n.op].binding for n in walk(node))
        else (text.replace(" ", ""))
    )


def constant(value: object) -> str:
    """A constant as a user writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Fraction):
        if value.denominator == 1:
            return f"{value.numerator}.0"
        decimal = repr(float(value)) if abs(value) < 2**1000 else "0"
        return decimal if Fraction(decimal) == value else f"{value.numerator}/{value.denominator}"
    return {"i": "1i"}.get(str(value), str(value))


def _call(node: Node) -> str:
    binding = OPS[node.op].binding
    args = node.args
    brackets, settings = "", ""
    if binding in ("reduce", "along", "fold"):
        guard = args[-1]
        args = args[:-1]
        condition = "" if guard.op == "const" and guard.attr is True else f" | {_show(guard, 0)}"
        brackets = f"[{','.join(bound(node))}{condition}]"
    elif binding in ("scan", "last"):
        brackets = f"[{','.join(bound(node))}]"
    elif binding == "map":
        arrow = "" if bound(node) == made(node) else f" -> {','.join(made(node))}"
        brackets = f"[{','.join(bound(node))}{arrow}]"
    options = node.attr[-1] if binding in ("reduce", "along", "map", "scan", "last") else () if binding else node.attr
    if options and binding != "fold":
        settings = "; " + ", ".join(f"{k} = {constant(v)}" for k, v in options)
    name = str(node.attr[0]) if binding == "fold" else {"maximum": "max", "minimum": "min"}.get(node.op, node.op)
    return f"{name}{brackets}({', '.join(_show(a, 0) for a in args)}{settings})"

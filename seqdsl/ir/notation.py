"""The textual form of one expression, unambiguous: `text` describes it, `reader` reads it.

Architecture invariant: knows the shapes of `attr` and how strongly infix operators bind, no operator's meaning.
Entry point: `text_of`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Hashable, Iterable
from fractions import Fraction
from typing import Any

from seqdsl.ir.node import Node
from seqdsl.ir.ops import OPS, bound, made, make

INFIX = {"or": (1, "or"), "and": (2, "and"), "lt": (4, "<"), "le": (4, "<="), "eq": (4, "=="), "ne": (4, "!="),
         "add": (5, "+"), "sub": (5, "-"), "mul": (6, "*"), "div": (6, "/"), "floor_div": (6, "//"), "mod": (6, "%"),
         "pow": (8, "^")}
NOT, COMPARISON, NEGATION, POWER, ATOM = 3, 4, 7, 8, 9  # how strongly they bind
WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)*'*")
REAL = re.compile(r"-?\d+(?:\.\d+(?:e[+-]?\d{1,3})?|e[+-]?\d{1,3})")
RESERVED = frozenset("and or not true false inf pi fold real float".split())



def name_text(name: str) -> str:
    """A name, in back quotes where it is no plain word."""
    if WORD.fullmatch(name) and name not in RESERVED:
        return name
    return "`" + json.dumps(name, ensure_ascii=False)[1:-1].replace("`", "\\u0060") + "`"


def string_text(text: str) -> str:
    """A string in double quotes, on one line."""
    return json.dumps(text, ensure_ascii=False)


def text_of(node: Node) -> str:
    """One expression."""
    return _expression(node, 0)


def _expression(node: Node, outer: int) -> str:
    text, level = _bare(node)
    if node.dtype != _usual_type(node):
        text, level = f"{_wrapped(text, level, ATOM)}:{node.dtype}", ATOM
    return _wrapped(text, level, outer)


def _wrapped(text: str, level: int, outer: int) -> str:
    return f"({text})" if level < outer else text


def _usual_type(node: Node) -> str:
    if node.op == "const":
        return _type_of_value(node.attr)
    return "real" if node.op in ("read", "fold") else OPS[node.op].dtype(*(a.dtype for a in node.args))


def _type_of_value(value: Hashable) -> str:
    kinds: tuple[tuple[type, str], ...] = ((bool, "bool"), (int, "int"))
    return "complex" if value == "i" else next((name for kind, name in kinds if isinstance(value, kind)), "real")


def _bare(node: Node) -> tuple[str, int]:
    """The text without a type, and how strongly its outermost operator binds."""
    if node.op == "const":
        text = _constant(node.attr)
        return text, NEGATION if text.startswith("-") else ATOM
    if node.op in ("index", "option", "size"):
        mark = {"index": "{}", "option": "${}", "size": "|{}|"}[node.op]
        return mark.format(name_text(str(node.attr))), ATOM
    if node.op == "read":
        return f"{name_text(str(node.attr))}[{','.join(_subscript(a) for a in node.args)}]", ATOM
    if node.op in INFIX and not node.attr and not (node.op == "sub" and _is_count(node.args[1])):
        return _infix(node)
    if node.op == "not":
        return f"not {_expression(node.args[0], NOT + 1)}", NOT
    if node.op == "neg":
        operand = _expression(node.args[0], POWER)
        return f"-({operand})" if operand[0].isdigit() else f"-{operand}", NEGATION
    return _call(node), ATOM


def _subscript(node: Node) -> str:
    short = node.op == "add" and all(a.op in ("index", "const") for a in node.args)
    return text_of(node).replace(" ", "") if short and "`" not in text_of(node) else text_of(node)


def _infix(node: Node) -> tuple[str, int]:
    """`x + -1` is written `x - 1`, and so a true subtraction of such a constant `sub(x, 1)`."""
    a, b = node.args
    level, symbol = INFIX[node.op]
    left = _expression(a, level + 1 if level in (COMPARISON, POWER) else level)
    opposite = _opposite(b) if node.op == "add" else None
    if opposite is not None and _is_count(opposite) and b.attr != 0:
        return f"{left} - {_expression(opposite, level + 1)}", level
    return f"{left} {symbol} {_expression(b, level + 1)}", level


def _opposite(node: Node) -> Node | None:
    """The constant of the other sign, for a number that needs no type beside it."""
    value = node.attr
    if node.op != "const" or not isinstance(value, int | Fraction) or isinstance(value, bool):
        return None
    return make("const", attr=-value, dtype=node.dtype) if node.dtype == _usual_type(node) else None


def _is_count(node: Node) -> bool:
    """A constant that is not negative."""
    return _opposite(node) is not None and node.attr >= 0


def _constant(value: Hashable) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Fraction):
        decimal = repr(float(value)) if abs(value) < 2**1000 else ""
        return decimal if REAL.fullmatch(decimal) and Fraction(decimal) == value else f"real({value})"
    if isinstance(value, int) or value in ("inf", "pi"):
        return str(value)
    if value == "i":
        return "1i"
    if isinstance(value, float):
        return f"float({value!r})"  # no form of a constant, but what a faulty pass makes should be seen
    raise TypeError(f"a constant cannot be {value!r}")



def _call(node: Node) -> str:
    attr: Any = node.attr
    binding, args = OPS[node.op].binding, node.args
    if not binding:
        return f"{node.op}({_operands(node, args, attr)})"
    names = ",".join(name_text(n) for n in (attr[0] if binding in ("scan", "last") else bound(node)))
    condition = ""
    if binding in ("reduce", "along", "fold"):
        *rest, guard = args
        args, condition = tuple(rest), "" if guard.attr is True and guard.op == "const" else f" | {text_of(guard)}"
    if binding in ("scan", "last"):
        names += "; " + ",".join(name_text(n) for n in attr[1])
    elif binding == "fold" or (binding == "map" and made(node) != bound(node)):
        names += " -> " + ",".join(name_text(n) for n in attr[-1 if binding == "fold" else 1])
    name = f"fold {name_text(attr[0])}" if binding == "fold" else node.op
    return f"{name}[{names}{condition}]({_operands(node, args, () if binding == 'fold' else attr[-1])})"


def _operands(node: Node, args: Iterable[Node], settings: Any) -> str:
    if node.op == "first":
        return name_text(settings)
    given = ", ".join(f"{k} = {name_text(v) if isinstance(v, str) else _constant(v)}" for k, v in settings)
    return ", ".join(text_of(a) for a in args) + (f"; {given}" if given else "")

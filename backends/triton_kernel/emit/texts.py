"""Expressions of one block in Triton's language: operator -> text, and the writing of shared parts once.

Operands broadcast: rows as [R, 1] or [1, R], columns the other way, numbers as scalars. Computed in float32.
Entry point: `Writer`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from fractions import Fraction

from seqdsl.ir.node import Node, walk
from seqdsl.ir.ops import options

from ...torch_module.table import OPS_TEXT, Text
from ...torch_module.values import ATOM, COMPARE, SUM, UNARY

_SAME = "add sub mul div neg lt le eq ne and or not bit_and xor".split()


def _call(text: str) -> Text:
    return Text(text)


TEXTS: dict[str, Text] = {name: OPS_TEXT[name] for name in _SAME} | {
    "floor_div": _call("_floor_div({0}, {1})"),
    "mod": Text("{0} - _floor_div({0}, {1}) * {1}", SUM, infix=True),
    "maximum": _call("tl.maximum({0}, {1})"),
    "minimum": _call("tl.minimum({0}, {1})"),
    "clamp": _call("tl.minimum(tl.maximum({0}, {1}), {2})"),
    "where": _call("tl.where({0}, {1}, {2})"),
    "exp": _call("tl.exp({0})"),
    "log": _call("tl.log({0})"),
    "log2": _call("tl.log2({0})"),
    "sqrt": _call("tl.sqrt({0})"),
    "abs": _call("tl.abs({0})"),
    "sin": _call("tl.sin({0})"),
    "cos": _call("tl.cos({0})"),
    "erf": _call("tl.math.erf({0})"),
    "tanh": _call("_tanh({0})"),
    "expm1": _call("_expm1({0})"),
    "log1p": _call("_log1p({0})"),
    "logaddexp": _call("_log_sum({0}, {1})"),
    "gelu": Text("0.5 * {0} * (1.0 + tl.math.erf({0} * 0.7071067811865476))", COMPARE, infix=True),
    "elu": _call("tl.where({0} > 0, {0}, _expm1(tl.minimum({0}, 0.0)))"),
    "round": _call("_round({0})"),
    "sigmoid": _call("tl.sigmoid({0})"),
    "log_sigmoid": _call("_log_sigmoid({0})"),
    "softplus": _call("-_log_sigmoid(-({0}))"),
    "silu": Text("{0} * tl.sigmoid({0})", COMPARE, infix=True),
    "relu": _call("tl.maximum({0}, 0.0)"),
    "leaky_relu": _call("tl.where({0} > 0, {0}, {slope} * ({0}))"),
    "sign": _call("_sign({0})"),
    "stop": Text("{0}", ATOM, infix=True),
}
# Operators of reals: what they take is made one first, because `tl.exp` has no integers.
REAL = frozenset(
    "div exp log log2 sqrt sin cos erf tanh sigmoid log_sigmoid softplus silu leaky_relu expm1 log1p logaddexp gelu elu "
    "round".split()
)
ARITHMETIC = frozenset("add sub mul neg maximum minimum floor_div mod abs".split())


@dataclass
class Writer:
    """Lines for some expressions; what several of them have in common has a name. `known` are texts of leaves."""

    known: dict[Node, tuple[str, int]]
    indent: int = 2
    lines: list[str] = field(default_factory=list)
    counts: Counter[Node] = field(default_factory=Counter)
    prefix: str = "x"
    made: int = 0

    def count(self, roots: Iterable[Node]) -> None:
        """Note how often each part is used by what will be written."""
        for root in roots:
            self.counts[root] += 1
        seen: set[Node] = set()
        for root in roots:
            for node in walk(root):
                if node not in seen:
                    seen.add(node)
                    self.counts.update(node.args)

    def text(self, node: Node, level: int = 0) -> str:
        """The expression, in parentheses where it binds less tightly than `level`."""
        text, own = self._text(node)
        return text if own >= level else f"({text})"

    def _text(self, node: Node) -> tuple[str, int]:
        if node in self.known:
            return self.known[node]
        if node.op == "const":
            return constant(node)
        row, operands = TEXTS[node.op], [self._operand(node, a) for a in node.args]
        level = row.level
        texts = [text if not row.infix or own > level or own == level and not k else f"({text})"
                 for k, (text, own) in enumerate(operands)]  # fmt: skip
        if row.infix and (row.tensor.count("{0}") > 1 or level == COMPARE) or node.op in ("and", "or", "not"):
            texts = [text if own == ATOM else f"({text})" for text, own in operands]
        extra = {k: float(v) if isinstance(v, Fraction) else v for k, v in options(node).items()}
        found = row.tensor.format(*texts, **extra), level
        if self.counts[node] > 1:
            name = f"{self.prefix}_{self.made}"
            self.made += 1
            self.lines.append("    " * self.indent + f"{name} = {found[0]}")
            found = self.known[node] = name, ATOM
        return found

    def _operand(self, node: Node, arg: Node) -> tuple[str, int]:
        text, level = self._text(arg)
        if arg.dtype == "bool" and node.op in ARITHMETIC | REAL:
            return f"({text}).to(tl.int32)", ATOM
        if arg.dtype == "int" and node.op in REAL and arg.op != "const":
            return f"({text} + 0.0)", ATOM
        return text, level


def has_text(node: Node) -> bool:
    """Is there text for its operator? Quotients are rounded down, and remainders taken, of whole numbers alone."""
    return node.op in TEXTS and (node.op not in ("floor_div", "mod") or node.dtype == "int")


def constant(node: Node) -> tuple[str, int]:
    """A number of the equations."""
    value = node.attr
    if isinstance(value, bool):
        return ("1" if value else "0") + " == 1", COMPARE
    if isinstance(value, str):
        return {"inf": 'float("inf")', "pi": "3.141592653589793"}[value], ATOM
    text = str(value) if isinstance(value, int) else repr(float(value))
    return text, UNARY if text.startswith("-") else ATOM

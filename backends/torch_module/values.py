"""Values of the generated code: an expression's text with the indices that its dimensions stand for.

Architecture invariant: dimensions are known by name when code is generated; a broadcast is written out only where the
names ask for one. `BATCH` is the name of the batch dimension.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from seqdsl.ir.node import Node

BATCH = "*"
ATOM, POWER, UNARY, PRODUCT, SUM, BIT_AND, BIT_XOR, BIT_OR, COMPARE, NOT, AND, OR, CHOICE = range(13, 0, -1)


@dataclass(frozen=True)
class Value:
    """`text` is a Python expression of precedence `level`; `static` ones are Python numbers known at each call, the
    others tensors with `dims`. `zero_outside` holds conditions where it is known to be 0 wherever they are false."""

    text: str
    dims: tuple[str, ...] = ()
    dtype: str = "real"
    level: int = ATOM
    static: bool = False
    zero_outside: frozenset[Node] = frozenset()
    weight: bool = False  # a parameter as it is stored, not yet of the computation's dtype

    def at(self, level: int) -> str:
        """The text, in parentheses where it binds less tightly than `level`."""
        return self.text if self.level >= level else f"({self.text})"


def is_fresh(value: Value) -> bool:
    """Is it a tensor of its own that no name holds: the result of arithmetic, whose derivative does not read it?"""
    if value.static or value.weight or value.dtype != "real":
        return False
    return value.level in (SUM, PRODUCT, UNARY) or is_fused(value)


def is_fused(value: Value) -> bool:
    """Is it a sum of products as one call?"""
    return _FUSED.fullmatch(value.text) is not None


# Its arguments have at most two levels of parentheses.
_FUSED = re.compile(r"torch\.(addcmul|addmm|lerp)\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)")


def negative(value: Value) -> Value:
    """Minus a value; of minus a value, the value."""
    if value.level == UNARY and value.text.startswith("-"):
        return replace(value, text=value.text[1:])
    return replace(value, text=f"-{value.at(UNARY)}", level=UNARY)


def plain(value: Value) -> Value:
    """A weight in the dtype of the computation."""
    if not value.weight:
        return value
    kind = "complex_dtype" if value.dtype == "complex" else "dtype"
    return replace(value, text=f"{value.at(ATOM)}.to({kind})", weight=False, level=ATOM)


def merge(first: Sequence[str], *others: Iterable[str]) -> tuple[str, ...]:
    """The union in order of appearance."""
    return tuple(dict.fromkeys([*first, *(d for other in others for d in other)]))


def permuted(value: Value, order: Sequence[str]) -> Value:
    """The same dimensions in another order."""
    target = tuple(d for d in order if d in value.dims)
    if target == value.dims:
        return value
    places = [value.dims.index(d) for d in target]
    moved = [k for k, p in enumerate(places) if k != p]
    if len(moved) == 2:
        n = len(places)
        a, b = (m - n if m >= n - 2 else m for m in moved)
        text = f"{value.at(ATOM)}.transpose({a}, {b})"
    else:
        text = f"{value.at(ATOM)}.permute({', '.join(map(str, places))})"
    return replace(value, text=text, dims=target, level=ATOM)


def spread(value: Value, order: Sequence[str]) -> Value:
    """A value that broadcasts against dimensions `order`: permuted, with None for those that are missing."""
    if value.static or not value.dims:
        return value
    value = permuted(value, order)
    wanted = tuple(order[order.index(value.dims[0]) :])
    if wanted == value.dims:
        return value
    parts = [":" if d in value.dims else "None" for d in wanted]
    last = max(k for k, p in enumerate(parts) if p == ":")
    if "None" not in parts[:last]:
        parts = ["...", *parts[last + 1 :]]
    elif last == len(parts) - 1:
        parts = parts[: len(parts) - parts[::-1].index("None")]
    return replace(value, text=f"{value.at(ATOM)}[{', '.join(parts)}]", dims=wanted, level=ATOM)


def with_ones(value: Value, dims: tuple[str, ...]) -> Value:
    """Every one of `dims`, of length 1 where the value does not vary."""
    value = permuted(value, dims)
    if value.dims == dims:
        return value
    slots = ", ".join(":" if d in value.dims else "None" for d in dims)
    return Value(f"{value.at(ATOM)}[{slots}]", dims, value.dtype)

"""Numbers that Python knows at each call, made of sizes, options and constants: arguments of written kernels."""

from __future__ import annotations

from collections.abc import Iterable

from seqdsl.ir.node import Node, walk
from seqdsl.ir.ops import OPS

from ...torch_module import expressions
from ...torch_module.context import Context
from ...torch_module.names import Names, tuple_text


def is_fixed(node: Node) -> bool:
    """Is it a number that Python knows at each call?"""
    return not node.free and not any(n.op in ("read", "first") or OPS[n.op].binding for n in walk(node))


def named(names: Names, node: Node) -> str:
    """An argument for it: a size or an option keeps its name."""
    return names.fresh(str(node.attr) if node.op in ("size", "option") else "number" if node.dtype == "real" else "count")


def kinds(numbers: Iterable[Node]) -> str:
    """What a launch is told of them, "f" for a float and "i" for an integer, in the order of the kernels."""
    return "".join("f" if n.dtype == "real" else "i" for n in numbers)


def given(ctx: Context, numbers: Iterable[Node]) -> tuple[list[str], list[str]]:
    """Their texts in a call: the integers, and the floats."""
    every = [(n.dtype == "real", expressions.emit(ctx, n).text) for n in numbers]
    return [text for real, text in every if not real], [f"float({text})" for real, text in every if real]


def told(ctx: Context, numbers: Iterable[Node]) -> list[str]:
    """The same as keywords, where there are any."""
    texts = zip(("counts", "numbers"), given(ctx, numbers), strict=True)
    return [f"{key}={tuple_text(some)}" for key, some in texts if some]

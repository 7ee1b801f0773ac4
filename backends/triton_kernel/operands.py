"""Operands at the width at which they are given: what a kernel casts itself need not be cast, or scaled, in memory before.

An emitted function casts every input to the type it computes in, float32 or wider. Where nothing but one kernel reads a
16-bit input, the kernel takes it as it is; a factor of the reads that is one number becomes the kernel's `scale`; and a
result that is only cast to the outputs' type is written in it.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass


@dataclass(frozen=True)
class Edit:
    """New text for a node, or after it."""

    node: ast.expr
    text: str
    after: bool = False


def applied(text: str, edits: list[Edit]) -> str:
    """The text with every edit made, last to first: none lies inside another."""
    lines = text.split("\n")
    for edit in sorted(set(edits), key=lambda e: (e.node.end_lineno or 0, e.node.end_col_offset or 0), reverse=True):
        node = edit.node
        first, last = node.lineno - 1, (node.end_lineno or node.lineno) - 1
        start, end = node.col_offset, node.end_col_offset or 0
        head = lines[last].encode()[:end].decode() if edit.after else lines[first].encode()[:start].decode()
        joined = head + edit.text + lines[last].encode()[end:].decode()
        lines[last if edit.after else first : last + 1] = joined.split("\n")
    return "\n".join(lines)


def narrowed(text: str, function: ast.FunctionDef, call: ast.Call) -> list[Edit]:
    """Edits of a call of linear attention, and of the lines that prepare its operands."""
    if "out_dtype" not in _stores(function):
        return []
    loads = [n for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)]
    edits: list[Edit] = []
    more = ["dots=out_dtype"]
    operands: list[ast.expr] = list(call.args[:4])
    product = operands[0]
    if isinstance(product, ast.BinOp) and isinstance(product.op, ast.Mult) and _is_number(product.right, function):
        more.append(f"scale={ast.get_source_segment(text, product.right)}")
        edits.append(Edit(product, ast.get_source_segment(text, product.left) or ""))
        operands[0] = product.left
    for operand in operands:
        name = _viewed(operand)
        casts = [c for c in _casts(function) if name is not None and c[0] == name]
        reads = sum(n.id == name for n in loads)
        if len(casts) == 1 and reads == 1 + casts[0][2]:
            edits.append(Edit(casts[0][1], f"{name}.dtype"))
    result = _result(function, call)
    if result is not None and sum(n.id == result for n in loads) == 1 and f"{result}.to(out_dtype)" in text:
        more.append("dtype=out_dtype")
    edits.append(Edit(call.keywords[-1].value, ", " + ", ".join(more), after=True))
    return edits


def _stores(function: ast.FunctionDef) -> set[str]:
    return {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def _casts(function: ast.FunctionDef) -> list[tuple[str, ast.expr, int]]:
    """Of each `x = _input(x, B, dtype)`: the name, the node `dtype`, and how often the function reads x up to there."""
    found = []
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and isinstance(node.value, ast.Call):
            called, name = node.value, node.targets[0].id
            if isinstance(called.func, ast.Name) and called.func.id == "_input" and ast.unparse(called.args[-1]) == "dtype":
                before = sum(
                    isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Load) and n.lineno <= node.lineno
                    for n in ast.walk(function)
                )
                found.append((name, called.args[-1], before))
    return found


def _viewed(node: ast.expr) -> str | None:
    """The name of which an expression is a view."""
    while isinstance(node, ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _is_number(node: ast.expr, function: ast.FunctionDef) -> bool:
    """Made of literals and sizes alone."""
    sizes = {
        n.targets[0].id for n in ast.walk(function)
        if isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Name) and ast.unparse(n.value).startswith("sizes[")
    }
    return all(n.id in sizes | {"math"} for n in ast.walk(node) if isinstance(n, ast.Name)) and not any(
        isinstance(n, ast.Attribute) and ast.unparse(n.value) != "math" for n in ast.walk(node)
    )


def _result(function: ast.FunctionDef, call: ast.Call) -> str | None:
    """The variable of the reads."""
    for node in ast.walk(function):
        if isinstance(node, ast.Assign) and node.value is call and isinstance(node.targets[0], ast.Tuple):
            first = node.targets[0].elts[0]
            return first.id if isinstance(first, ast.Name) else None
    return None

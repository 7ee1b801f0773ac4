"""Static `for` loops unrolled and numbered names spelled out (rule 28): `x{l+1}a` becomes `x1a`.

Architecture invariant: tree to tree. Loop bounds and the numbers in braces are arithmetic over loop variables and
static options, evaluated here on exact integers; nothing else of the text is touched.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

from seqdsl.diagnostics import SeqError
from seqdsl.syntax import tree

MOST_ITERATIONS = 1000
MOST_EQUATIONS = 20_000  # of a system, after unrolling and substitution: calls double what they call


def static_names(body: tuple[tree.Statement, ...]) -> set[str]:
    """The names that decide unrolling: those in bounds and braces, less the loop variables."""
    found: set[str] = set()
    for statement in body:
        _collect(statement, frozenset(), found)
    return found


def settings_of(node: Any) -> Iterator[tuple[str, str, set[str]]]:
    """For each setting of each call: what is called, the option that is set, and the names in its value."""
    if isinstance(node, tree.Call):
        for setting in node.settings:
            yield node.function.plain, setting.name.plain, names_in(setting.value)
    for child in _children(node):
        yield from settings_of(child)


def _collect(node: Any, loops: frozenset[str], found: set[str]) -> None:
    if isinstance(node, tree.For):
        found |= (names_in(node.start) | names_in(node.stop)) - loops
        for child in node.body:
            _collect(child, loops | {node.name.plain}, found)
    elif isinstance(node, tree.Name):
        for part in node.parts:
            if not isinstance(part, str):
                found |= names_in(part) - loops
    else:
        for child in _children(node):
            _collect(child, loops, found)


def names_in(expr: Any) -> set[str]:
    """The plain names that stand anywhere in a piece of tree."""
    if isinstance(expr, tree.Name):
        return {expr.plain} if len(expr.parts) == 1 and isinstance(expr.parts[0], str) else set()
    return set().union(*(names_in(c) for c in _children(expr))) if _children(expr) else set()


def _children(node: Any) -> list[Any]:
    if isinstance(node, tuple):
        return list(node)
    if isinstance(node, tree.Node) and is_dataclass(node):
        return [getattr(node, f.name) for f in fields(node) if f.name not in ("span", "comments", "doc")]
    return []


def unroll(body: tuple[tree.Statement, ...], values: Mapping[str, int]) -> tuple[tree.Statement, ...]:
    """The statements with every loop written out; `values` gives static options. Errors: `dynamic-loop-bound`,
    `too-many-iterations`, `too-many-equations`, `bad-number-in-name`."""
    budget = [MOST_ITERATIONS]
    result: list[tree.Statement] = []
    for statement in body:
        result += _statement(statement, dict(values), budget)
        _check_number(len(result), statement)
    return tuple(result)


def _check_number(equations: int, statement: tree.Statement) -> None:
    if equations > MOST_EQUATIONS:
        raise SeqError(
            "too-many-equations",
            f"more than {MOST_EQUATIONS} equations after unrolling",
            statement.span,
            label="the last of them",
            help="use an axis in the place of numbered names",
        )


def _statement(statement: tree.Statement, values: dict[str, int], budget: list[int]) -> list[tree.Statement]:
    if not isinstance(statement, tree.For):
        return [_spell(statement, values)]
    if statement.name.plain in values:
        raise SeqError(
            "duplicate-name",
            f"the loop variable `{statement.name.plain}` already has a meaning",
            statement.name.span,
            label="used twice",
        )
    start, stop = (evaluate(bound, values, "a loop bound") for bound in (statement.start, statement.stop))
    budget[0] -= max(0, stop - start)
    if budget[0] < 0:
        raise SeqError(
            "too-many-iterations",
            f"static loops of more than {MOST_ITERATIONS} iterations in all",
            statement.span,
            label=f"this loop has {stop - start}",
            help="a recurrence over an index of its own, `x[l: L, ..] = .. x[l-1] ..`, is not unrolled",
        )
    result: list[tree.Statement] = []
    for value in range(start, stop):
        for inner in statement.body:
            result += _statement(inner, {**values, statement.name.plain: value}, budget)
        _check_number(len(result), statement)
    return result


def evaluate(expr: tree.Expr, values: Mapping[str, int], what: str) -> int:
    """An integer known before the mixer is built."""
    if isinstance(expr, tree.Number) and expr.text.isdigit():
        return int(expr.text)
    if isinstance(expr, tree.Name) and len(expr.parts) == 1 and expr.parts[0] in values:
        return values[str(expr.parts[0])]
    if isinstance(expr, tree.Unary) and expr.op == "-":
        return -evaluate(expr.arg, values, what)
    if isinstance(expr, tree.Binary) and expr.op in ("+", "-", "*", "//", "%"):
        a, b = evaluate(expr.left, values, what), evaluate(expr.right, values, what)
        if expr.op in ("//", "%") and b == 0:
            raise SeqError("division-by-zero", f"{what} divides by zero", expr.span)
        return {"+": a + b, "-": a - b, "*": a * b, "//": a // b if b else 0, "%": a % b if b else 0}[expr.op]
    raise SeqError(
        "dynamic-loop-bound",
        f"{what} must be a number when the file is compiled",
        expr.span,
        label="not a number here",
        help="use numbers, loop variables and options with numeric values",
    )


def _spell(node: Any, values: Mapping[str, int]) -> Any:
    """Numbers for loop variables, and numbered names spelled out, everywhere below a node."""
    if isinstance(node, tuple):
        return tuple(_spell(n, values) for n in node)
    if isinstance(node, tree.Name):
        return _spell_name(node, values)
    if isinstance(node, tree.Node):
        changes = {
            f.name: (_spell_in_place if f.name in _NAMING else _spell)(getattr(node, f.name), values)
            for f in fields(node)
            if f.name not in ("span", "comments", "doc")
        }
        return replace(node, **changes)
    return node


_NAMING = ("name", "function", "tensor")  # fields that name something: numbers are spelled, never substituted


def _spell_in_place(node: Any, values: Mapping[str, int]) -> Any:
    return node if isinstance(node, tree.Name) and len(node.parts) == 1 else _spell(node, values)


def _spell_name(name: tree.Name, values: Mapping[str, int]) -> tree.Expr:
    if len(name.parts) == 1:
        value = values.get(str(name.parts[0]))
        if value is None:
            return name
        number = tree.Number(str(abs(value)), span=name.span)
        return number if value >= 0 else tree.Unary("-", number, span=name.span)
    spelled = "".join(p if isinstance(p, str) else str(_numbered(p, values)) for p in name.parts)
    return tree.Name((spelled,), span=name.span)


def _numbered(part: tree.Expr, values: Mapping[str, int]) -> int:
    value = evaluate(part, values, "the number in a name")
    if value < 0:
        raise SeqError("bad-number-in-name", f"a numbered name cannot be numbered {value}", part.span)
    return value

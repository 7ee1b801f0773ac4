"""The last pass over generated text: what nothing reads goes, a temporary that only names a result takes its name.

Architecture invariant: works on the text alone; what is computed stays the same. Entry points: `tidy`, `imports`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence


def tidy(text: str) -> str:
    """Without aliases, unused assignments, and the comments that stood above nothing else."""
    known: dict[str, _Faults] = {}  # what is found in a function, by its text: most stay as they are when one changes
    while True:
        lines = text.split("\n")
        gone: set[int] = set()
        functions = list(_functions(ast.parse(text)))
        for function in functions:
            before = function.lineno - 1
            span = range(before, function.end_lineno or function.lineno)
            own = "\n".join(lines[span.start : span.stop])
            if own not in known:
                known[own] = _faults(function)
            alias, unused = known[own]
            if alias is not None and not gone:
                old, new, line = alias
                for k in span:
                    lines[k] = _renamed(lines[k], old, new)
                gone |= _with_comment(lines, before + line, before + line)
                break
            for first, last in unused:
                gone |= _with_comment(lines, before + first, before + last)
        if not gone:
            return _blanks(text, functions)
        text = "\n".join(line for k, line in enumerate(lines) if k not in gone)


def _functions(tree: ast.Module) -> Iterator[ast.FunctionDef]:
    """Those of a text, outer ones first. No expression holds one."""
    level: list[ast.AST] = [tree]
    while level:
        yield from (node for node in level if isinstance(node, ast.FunctionDef))
        level = [n for node in level for n in ast.iter_child_nodes(node) if isinstance(n, _HOLDERS)]


_HOLDERS = (ast.stmt, ast.ExceptHandler, ast.match_case)  # of statements
_Faults = tuple[tuple[str, str, int] | None, list[tuple[int, int]]]


def _faults(function: ast.FunctionDef) -> _Faults:
    """An alias and what is unused, if anything is, in lines from the function's first."""
    nodes, start = list(ast.walk(function)), function.lineno
    return _alias(nodes, start), [(first - start, last - start) for first, last in _unused(nodes)]


def _blanks(text: str, functions: list[ast.FunctionDef]) -> str:
    """`_` for the results of a call that nothing reads, in the functions of the text."""
    lines = text.split("\n")
    for function in functions:
        nodes = list(ast.walk(function))
        loads = _loads(nodes)
        for node in nodes:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
                for name in (n.id for n in node.targets[0].elts if isinstance(n, ast.Name) and n.id not in loads):
                    head, equals, rest = lines[node.lineno - 1].partition(" = ")
                    lines[node.lineno - 1] = re.sub(rf"\b{re.escape(name)}\b", "_", head) + equals + rest
    return "\n".join(lines)


def _with_comment(lines: list[str], first: int, last: int) -> set[int]:
    """The lines of a statement, and the comment above it unless the next line belongs to the comment as well."""
    gone = set(range(first, last + 1))
    follows = lines[last + 1].strip() if last + 1 < len(lines) else ""
    if follows and not follows.startswith(("#", "if ", "return", "result")):
        return gone
    above = first - 1
    while above >= 0 and lines[above].strip().startswith("#"):
        gone.add(above)
        above -= 1
    return gone


def _stores(nodes: Sequence[ast.AST]) -> dict[str, int]:
    """How often each name is assigned in a function; arguments count as assigned twice: they are never renamed."""
    count: dict[str, int] = {}
    for node in nodes:
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            count[node.id] = count.get(node.id, 0) + 1
        elif isinstance(node, ast.arg):
            count[node.arg] = 2
    return count


_TEMPORARY = re.compile(r"_(read|state|part|in)(_\d+)?$")  # the emitter's own names


def _loads(nodes: Sequence[ast.AST]) -> set[str]:
    return {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def _alias(nodes: Sequence[ast.AST], start: int) -> tuple[str, str, int] | None:
    """(old name, new name, line after the start) of the first `new = temporary` where both are assigned once."""
    stores = _stores(nodes)
    for node in nodes:
        if (
            isinstance(node, ast.Assign)
            and len(node.targets) == 1
            and isinstance(node.targets[0], ast.Name)
            and isinstance(node.value, ast.Name)
        ):
            new, old = node.targets[0].id, node.value.id
            if stores.get(new) == 1 and stores.get(old) == 1 and _TEMPORARY.search(old):
                return old, new, node.lineno - start
    return None


def _renamed(line: str, old: str, new: str) -> str:
    """Outside of strings and of comments on equations."""
    if line.strip().startswith("#"):
        return line
    parts = re.split(r'("(?:[^"\\]|\\.)*")', line)
    return "".join(p if k % 2 else re.sub(rf"(?<![\w.]){re.escape(old)}\b", new, p) for k, p in enumerate(parts))


def _unused(nodes: Sequence[ast.AST]) -> list[tuple[int, int]]:
    """First and last lines of assignments to names that nothing reads, unless they are all that a block has."""
    loads, found = _loads(nodes), []
    for block in nodes:
        body = getattr(block, "body", None)
        dead = [n for n in body if _is_dead(n, loads)] if isinstance(body, list) else []
        if isinstance(body, list) and len(dead) < len(body):
            found += [(n.lineno, n.end_lineno or n.lineno) for n in dead]
    return found


def _is_dead(node: ast.AST, loads: set[str]) -> bool:
    return isinstance(node, ast.Assign) and all(isinstance(t, ast.Name) and t.id not in loads for t in node.targets)


def used_names(text: str) -> set[str]:
    """Every name that a text takes from outside its functions: one that a function gives a value is the function's own."""
    used: set[str] = set()
    for node in _outermost(ast.parse(text)):
        nodes = list(ast.walk(node))
        names = [n for n in nodes if isinstance(n, ast.Name)]
        own = {n.id for n in names if isinstance(n.ctx, ast.Store)} if isinstance(node, ast.FunctionDef) else set()
        own |= {n.arg for n in nodes if isinstance(n, ast.arg)}
        used |= {n.id for n in names} - own
    return used


def _outermost(tree: ast.Module | ast.ClassDef) -> Iterator[ast.AST]:
    """Functions and methods, and the statements beside them."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef):
            yield from _outermost(node)
        else:
            yield node


def imports(used: set[str]) -> str:
    """The import lines that a text with these names needs."""
    blocks = [
        [f"import {name}" for name in ("itertools", "json", "math", "os", "shutil", "warnings") if name in used],
        _from("collections.abc", ["Callable", "Iterator", "Sequence"], used)
        + _from("contextlib", ["AbstractContextManager", "contextmanager", "nullcontext"], used)
        + _from("dataclasses", ["dataclass", "replace"], used)
        + _from("functools", ["cache", "partial"], used)
        + _from("importlib.util", ["find_spec"], used)
        + _from("operator", ["attrgetter"], used)
        + _from("pathlib", ["Path"], used)
        + _from("time", ["perf_counter"], used)
        + _from("typing", ["Any", "NamedTuple"], used),
    ]
    first = [line for block in blocks for line in block]
    second = ["import torch"] * ("torch" in used) + _from("torch", ["Tensor", "nn"], used)
    second += _from("torch.nn.functional", ["pad"], used)
    return "\n\n".join("\n".join(block) for block in (first, second) if block)


def _from(module: str, names: list[str], used: set[str]) -> list[str]:
    kept = [n for n in names if n in used]
    return [f"from {module} import {', '.join(kept)}"] if kept else []

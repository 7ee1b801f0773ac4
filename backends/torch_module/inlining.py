"""Functions that a generated file takes along: those of `runtime` and `support` that it uses, dependencies first.

Architecture invariant: the text comes from our own files, parsed, and is copied unchanged apart from its imports.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

HERE = Path(__file__).resolve().parent
# One public function per file, named as the file; no identifier of a generated file shadows these.
SUPPORT_FUNCTIONS = frozenset(p.stem for p in (HERE / "support").glob("*.py") if p.stem != "__init__")


@cache
def _pieces() -> dict[str, tuple[str, frozenset[str], str]]:
    """Top-level name -> (text, names it uses, file stem), in the order of the files."""
    found: dict[str, tuple[str, frozenset[str], str]] = {}
    own = [HERE / f"{name}.py" for name in ("runtime_calls", "runtime_packed", "runtime_ranks", "runtime")]
    files = [*own, *sorted((HERE / "support").glob("*.py"))]
    for path in files:
        source = path.read_text(encoding="utf-8")
        lines = source.splitlines()
        for node in ast.parse(source).body:
            names = _defined(node)
            if not names:
                continue
            decorators = getattr(node, "decorator_list", [])
            start = min([node.lineno, *(d.lineno for d in decorators)])
            text = "\n".join(lines[start - 1 : node.end_lineno])
            used = frozenset(n.id for n in ast.walk(node) if isinstance(n, ast.Name)) - set(names)
            for name in names:
                found.setdefault(name, (text, used, path.stem))
    return found


def _defined(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    if isinstance(node, ast.Assign):
        return [t.id for t in node.targets if isinstance(t, ast.Name) and t.id != "__all__"]
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [node.target.id]
    return []


def available() -> set[str]:
    """Every function that a generated file can take along."""
    return set(_pieces())


def inlined(names: set[str]) -> tuple[str, set[str]]:
    """The text of these functions and of all that they use, and the names that it mentions."""
    pieces = _pieces()
    wanted: set[str] = set()
    pending = sorted(names)
    while pending:
        name = pending.pop()
        if name not in wanted and name in pieces:
            wanted.add(name)
            pending += sorted(pieces[name][1])
        elif name not in pieces and name in names:
            raise KeyError(f"no support function `{name}`")
    texts = [text for name, (text, _, _) in pieces.items() if name in wanted]
    return "\n\n\n".join(dict.fromkeys(texts)), wanted.union(*(pieces[name][1] for name in wanted))

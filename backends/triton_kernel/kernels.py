"""The text of a kernels file: stand-ins with their kernels, and the torch functions that they fall back on.

Architecture invariant: the text comes from our own files, whole, apart from their docstrings and imports.
"""

from __future__ import annotations

import ast
import hashlib
from functools import lru_cache
from pathlib import Path

from ..torch_module.inlining import inlined
from ..torch_module.polish import imports, used_names

HERE = Path(__file__).resolve().parent / "support"
OWN_SPACE = 'OPS = "seqdsl"'


@lru_cache(maxsize=64)
def kernels_text(name: str, functions: frozenset[str]) -> str:
    """A file `name` with these stand-ins. Its operators have a namespace that no other text's have."""
    torch_functions: set[str] = set()
    for function in sorted(functions):
        _gather(function, [], torch_functions)
    body = inlined(torch_functions)[0] + "\n\n\n" + support_text(functions)
    space = f"{name}_{hashlib.sha256(body.encode()).hexdigest()[:8]}"
    body = body.replace(OWN_SPACE, f'OPS = "{space}"')
    opening = f'"""Triton kernels for {", ".join(sorted(functions))}; on the CPU these are PyTorch functions."""'
    triton = "import triton\nimport triton.language as tl"
    needed = imports(used_names(body)).replace("import torch\n", f"import torch\n{triton}\n", 1)
    return "\n\n".join([opening, needed]) + "\n\n\n" + body + "\n"


def support_text(functions: frozenset[str]) -> str:
    """The files of `support` with these functions and those that they import, without functions of the torch target."""
    files: list[str] = []
    for function in sorted(functions):
        _gather(function, files, set())
    return "\n\n\n".join(_body(file) for file in files)


def _gather(file: str, files: list[str], torch_functions: set[str]) -> None:
    """A file of `support` behind those that it imports, and the names that it takes from the torch target."""
    if file in files:
        return
    for node in ast.parse(_source(file)).body:
        if isinstance(node, ast.ImportFrom) and node.level == 1 and node.module:
            _gather(node.module, files, torch_functions)
        elif isinstance(node, ast.ImportFrom) and node.level > 1:
            torch_functions |= {alias.name for alias in node.names}
    files.append(file)


def _source(file: str) -> str:
    return (HERE / f"{file}.py").read_text(encoding="utf-8")


def _body(file: str) -> str:
    """Everything below the imports; the docstring as a comment."""
    source = _source(file)
    tree = ast.parse(source)
    last = max(n.end_lineno or 0 for n in tree.body if isinstance(n, ast.Import | ast.ImportFrom))
    comment = "\n".join(f"# {line}".rstrip() for line in (ast.get_docstring(tree) or "").splitlines())
    return comment + "\n\n" + "\n".join(source.splitlines()[last:]).strip("\n")

"""A module of the torch target with calls of kernels, and the loading of such modules.

Architecture invariant: works on emitted text, through its syntax tree; what is computed stays the same, up to rounding.
"""

from __future__ import annotations

import ast
import hashlib
import re
from typing import Any

from seqdsl.ir.system import System

from .. import torch_module
from ..torch_module.load import build_from, load_text
from .kernels import kernels_text
from .operands import Edit, applied, narrowed

SWAPPED = {"affine_scan": "fused_scan", "chunk_linear_attention": "fused_linear_attention"}
_IMPORT = re.compile(r"^try:\n    from \.(\w+) import (.+)\nexcept ImportError:\n    from \1 import \2$", re.MULTILINE)


def emit_module(
    system: System, *, class_name: str, header: str = "", form: str = "", stepper: System | None = None
) -> str:
    """The text of a Python file with one class, which imports its kernels from the file that `companions` gives."""
    name = system.name.lower() + ("_layer" if system.params() else "") + "_kernels"

    def swap(text: str) -> tuple[str, str]:
        text, functions = swapped(text)
        listed = ", ".join(sorted(functions))
        lines = f"try:\n    from .{name} import {listed}\nexcept ImportError:\n    from {name} import {listed}"
        return text, lines if functions else ""

    return torch_module.emit_module(
        system, class_name=class_name, header=header, form=form, stepper=stepper, rewrite=swap
    )


def swapped(text: str) -> tuple[str, set[str]]:
    """The text with kernels' stand-ins for the functions that have them, and which those are."""
    edits: list[Edit] = []
    functions: set[str] = set()
    tree = ast.parse(text)
    for function in [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]:
        for call in [n for n in ast.walk(function) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]:
            assert isinstance(call.func, ast.Name)
            if call.func.id in SWAPPED:
                functions.add(SWAPPED[call.func.id])
                edits.append(Edit(call.func, SWAPPED[call.func.id]))
                if call.func.id == "chunk_linear_attention":
                    edits += narrowed(text, function, call)
    return applied(text, edits), functions


def companions(text: str) -> dict[str, str]:
    """The files that a module's text imports, by name without suffix: its kernels, if it has any."""
    found = _IMPORT.search(text)
    return {found[1]: kernels_text(found[1], frozenset(found[2].split(", ")))} if found else {}


def _loadable(source: str) -> str:
    """The text with its kernels loaded under a name of their own."""
    for name, text in companions(source).items():
        load_text(text)
        stem = "seqdsl_generated_" + hashlib.sha256(text.encode()).hexdigest()[:16]
        source = _IMPORT.sub(rf"from {stem} import \2  # {name}", source)
    return source


def load_class(source: str, class_name: str) -> Any:
    """The class of a generated file; the same text gives the same class."""
    return torch_module.load_class(_loadable(source), class_name)


def build_module(source: str, class_name: str, /, **sizes: Any) -> Any:
    """An instance of the generated class, as the torch target's `build_module`."""
    return build_from(load_class(source, class_name), class_name, **sizes)

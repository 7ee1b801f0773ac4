"""The architecture as far as imports show it: who imports whom, what a quick command must not load, how long files are.

Imports are read from the syntax tree wherever they stand, in functions and under `TYPE_CHECKING` too: a dependency
that is hidden is a dependency all the same.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Low to high: a layer imports itself and lower ones. `config` holds the switches; `api` is the public face, and what
# `seqdsl/__init__.py` offers is the same thing; `__main__` is `python -m seqdsl`.
LAYERS = ("config", "diagnostics", "syntax", "ir", "semantics", "algebra", "forms", "plan", "verify", "report", "api", "cli",
          "pytest_plugin", "__main__")
RANK = {name: rank for rank, name in enumerate(LAYERS)}
BACKENDS_MAY_IMPORT = {"config", "diagnostics", "ir", "algebra", "forms", "plan"}
BUILDS_ON = {"triton_kernel": "torch_module"}  # a backend that emits the other's modules, with parts of them replaced
MODULES = {*LAYERS, "backends", "grammar", "library"} | {path.stem for path in (ROOT / "seqdsl").iterdir()}
LONGEST = 400  # lines of a file that gives no reason for more

CORE = sorted((ROOT / "seqdsl").rglob("*.py"))
BACKENDS = sorted((ROOT / "backends").rglob("*.py"))


def module_of(path: Path) -> tuple[str, ...]:
    """The dotted name a file is imported by, as parts: `backends/x/y.py` is `seqdsl.backends.x.y`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    parts = parts if parts[0] == "seqdsl" else ("seqdsl", *parts)
    return parts[:-1] if parts[-1] == "__init__" else parts


def imports(text: str, package: tuple[str, ...]) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Line and dotted name of each import in a file of `package`; `from a import b` is `a.b`: `b` may be a module."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, tuple(alias.name.split("."))) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            origin = (*start, *(node.module.split(".") if node.module else ()))
            yield from ((node.lineno, (*origin, alias.name)) for alias in node.names)


def layer_of(name: tuple[str, ...]) -> str:
    """The layer of a module of `seqdsl`; a name that `seqdsl` itself offers belongs to the public face."""
    inside = name[1] if len(name) > 1 else "api"
    return inside if inside in MODULES else "api"


def ours(path: Path) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Place and dotted name of each import of `path` that stays within seqdsl."""
    package = module_of(path) if path.name == "__init__.py" else module_of(path)[:-1]
    for line, name in imports(path.read_text(encoding="utf-8"), package):
        if name[0] in ("backends", "grammar", "library"):
            name = ("seqdsl", *name)
        if name[0] == "seqdsl":
            yield f"{path.relative_to(ROOT)}:{line} imports {'.'.join(name)}", name


@pytest.mark.parametrize("path", CORE, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_layer_imports_only_lower_layers(path: Path) -> None:
    layer = layer_of(module_of(path))
    assert layer in RANK, f"`{layer}` has no place in the order of layers: give it one in LAYERS"
    wrong = [place for place, name in ours(path) if RANK.get(layer_of(name), len(RANK)) > RANK[layer]]
    assert not wrong


@pytest.mark.parametrize("path", BACKENDS, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_backend_imports_the_graph_and_its_forms_and_no_other_backend(path: Path) -> None:
    own = module_of(path)[:3]
    allowed = {own, (*own[:2], BUILDS_ON.get(own[-1], own[-1]))}
    wrong = [place for place, name in ours(path)
             if name[:3] not in allowed and layer_of(name) not in BACKENDS_MAY_IMPORT]
    assert not wrong


def test_the_reader_of_imports_sees_every_spelling() -> None:
    text = ("import seqdsl.cli\nfrom . import tree\nfrom ..ir import graph\n"
            "def f():\n    from seqdsl import algebra, load\n")
    names = [name for _, name in imports(text, ("seqdsl", "syntax"))]
    assert names == [("seqdsl", "cli"), ("seqdsl", "syntax", "tree"), ("seqdsl", "ir", "graph"),
                     ("seqdsl", "algebra"), ("seqdsl", "load")]
    assert [layer_of(name) for name in names] == ["cli", "syntax", "ir", "algebra", "api"]


RUN = """
import contextlib, io, sys
import seqdsl
status = 0
if sys.argv[1:]:
    from seqdsl.cli import main
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            status = main(sys.argv[1:])
        except SystemExit as stop:
            status = stop.code
print(*sorted({name.partition(".")[0] for name in sys.modules}))
sys.exit(status)
"""


def loaded_after(*arguments: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after `seqc ARGUMENTS`, or after `import seqdsl`."""
    command = [sys.executable, "-c", RUN, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize("command, absent", [
    ("", {"torch", "triton", "sympy", "hypothesis"}),
    ("--help", {"torch", "triton", "sympy", "hypothesis"}),
    ("list", {"torch", "triton", "sympy", "hypothesis"}),
    ("check gla", {"torch", "triton", "sympy", "hypothesis"}),
    ("explain gla", {"torch", "triton"}),
])
def test_quick_commands_load_nothing_heavy(command: str, absent: set[str]) -> None:
    assert not loaded_after(*command.split()) & absent


@pytest.mark.parametrize("path", CORE + BACKENDS, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_long_file_says_why(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    length = len(text.splitlines())
    if length > LONGEST:
        reason = ast.get_docstring(ast.parse(text)) or ""
        assert "lines" in reason, f"{length} lines, and the docstring does not say why"

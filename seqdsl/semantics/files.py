"""Files and imports (rule 37): a sibling file, else the library; no paths; cycles are errors.

Architecture invariant: the only place that opens files for the language. An import is a name, so nothing outside the
file's own folder and the library can be reached.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from functools import cache, lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from itertools import islice
from pathlib import Path

from seqdsl.diagnostics import Diagnostic, Faults, SeqError, Source, Span, did_you_mean
from seqdsl.semantics.builtins import FUNCTIONS
from seqdsl.semantics.scope import File
from seqdsl.semantics.unroll import names_in
from seqdsl.syntax import parse, read_source, tree


@dataclass
class _Loader:
    """Files loaded so far by identity, and those being loaded (for cycles)."""

    done: dict[str, File] = field(default_factory=dict)
    open: list[str] = field(default_factory=list)


@cache
def library() -> dict[str, Traversable]:
    """Every file of the library by its stem."""
    found: dict[str, Traversable] = {}
    folders = [resources.files("seqdsl.library")]
    while folders:
        for entry in sorted(folders.pop().iterdir(), key=lambda e: e.name):
            if entry.is_dir() and not entry.name.startswith((".", "_")):
                folders.append(entry)
            elif entry.name.endswith(".seq"):
                found[entry.name.removesuffix(".seq")] = entry
    return found


def source_of(what: str | Path) -> tuple[Source, Path | None]:
    """The text for a path, a library name, or source text (anything with a newline), and its folder if it has one."""
    text = str(what)
    if isinstance(what, str) and "\n" in text:
        return Source("<text>", text), None
    path = Path(text)
    try:
        exists = path.exists()
    except (OSError, ValueError):
        exists = False
    if exists and (path.suffix == ".seq" or path.is_file()) or text.endswith(".seq") or "/" in text:
        return _read(path), path.parent
    if text in library():
        return _library_source(text), None
    beside = {n: p for n, p in _beside(path).items() if n not in library()}
    hint = did_you_mean(text, [*beside, *library()], "`seqc list` shows the library", written=beside)
    raise SeqError("file-not-found", f"no file `{text}`, and the library has no such name", help=hint)


def _beside(path: Path) -> dict[str, str]:
    """The `.seq` files in a path's folder by their stems, as one would write them; some of a folder of very many."""
    try:
        with os.scandir(path.parent) as entries:
            names = [entry.name for entry in islice(entries, 1000)]
    except (OSError, ValueError):
        return {}
    return {Path(n).stem: str(path.parent / n) for n in names if n.endswith(".seq")}


def _read(path: Path) -> Source:
    """The text of a path, or names like it where there is none."""
    try:
        return read_source(path)
    except SeqError as error:
        if os.path.lexists(path) or "\0" in str(path):
            raise
        fault = error.diagnostics[0]
        beside = _beside(path)
        known = [*beside, *(n for n in library() if n != path.stem)]
        hint = did_you_mean(path.stem, known, written=beside)
        near = f"did you mean `{path.stem}`?" if path.stem in library() else hint
        raise SeqError(fault.code, fault.message, help=near) from None


def _library_source(name: str) -> Source:
    entry = library()[name]
    return Source(f"{name}.seq", entry.read_text(encoding="utf-8"))


def unused(file: File) -> list[tree.Fn | tree.Monoid]:
    """The fns and monoids of a file that no mixer in it reaches: nothing of them but their form has been checked."""
    items = {i.name.plain: i for i in file.module.items if not isinstance(i, tree.Import)}
    reached = {name for name, item in items.items() if isinstance(item, tree.Mixer)}
    left = [*reached]
    while left:
        new = (names_in(items[left.pop()]) & items.keys()) - reached
        reached |= new
        left += new
    return [item for name, item in items.items() if name not in reached and not isinstance(item, tree.Mixer)]


def load_file(what: str | Path) -> File:
    """Parse a file and everything it imports."""
    source, folder = source_of(what)
    return _load(_Loader(), source, folder, Path(source.name).stem)


@lru_cache(maxsize=32)
def _parsed(source: Source) -> tree.Module:
    """Remembered, because many files import the same few."""
    return parse(source)


def _load(loader: _Loader, source: Source, folder: Path | None, stem: str) -> File:
    key = f"{folder}/{stem}"
    if key in loader.done:
        return loader.done[key]
    loader.open.append(stem)
    module = _parsed(source)
    declarations: dict[str, tuple[File, tree.Mixer | tree.Fn | tree.Monoid]] = {}
    file = File(stem, declarations, module)
    faults = Faults()
    for item in module.items:
        if isinstance(item, tree.Import):
            other = _imported(loader, item, folder)
            for name in item.names:
                if name.plain not in other.declarations or other.declarations[name.plain][0] is not other:
                    raise SeqError(
                        "unknown-import",
                        f"`{item.file.plain}` declares no `{name.plain}`",
                        name.span,
                        help=did_you_mean(name.plain, other.declarations),
                    )
                _declare(declarations, name.plain, other.declarations[name.plain], name.span)
        else:
            _declare(declarations, item.name.plain, (file, item), item.name.span)
            if isinstance(item, tree.Fn):
                faults += _beyond_function(item)
    faults.check()
    loader.open.pop()
    loader.done[key] = file
    return file


def _beyond_function(fn: tree.Fn) -> Iterator[Diagnostic]:
    """Rule 26: a `fn` has no params, no `linear` (whose weights are params), and no claims."""
    nodes: list[object] = [fn.body, fn.value]
    while nodes:
        node = nodes.pop()
        if isinstance(node, tuple):
            nodes += node
        elif isinstance(node, tree.Node):
            linear = isinstance(node, tree.Call) and node.function.span.text == "linear"
            if linear or isinstance(node, tree.ParamDecl | tree.ClaimDecl):
                what = "`linear`" if linear else "params" if isinstance(node, tree.ParamDecl) else "claims"
                yield Diagnostic(
                    "unexpected-statement", f"the function `{fn.name.plain}` has {what}", node.span,
                    label="only a mixer has these", help=f"write `mixer {fn.name.plain}(..) -> ..:`",
                )  # fmt: skip
            if not isinstance(node, tree.ClaimDecl):  # `linear(x)` is another thing there
                nodes += [getattr(node, f.name) for f in fields(node) if f.name != "span"]


def _declare(
    declarations: dict[str, tuple[File, tree.Mixer | tree.Fn | tree.Monoid]],
    name: str,
    entry: tuple[File, tree.Mixer | tree.Fn | tree.Monoid],
    span: Span,
) -> None:
    if name in declarations:
        raise SeqError(
            "duplicate-definition", f"`{name}` is declared twice in this file", span, label="declared again here"
        )
    if name in FUNCTIONS:
        raise SeqError("name-clash", f"`{name}` is a function of the language", span, help="choose another name")
    declarations[name] = entry


def _imported(loader: _Loader, item: tree.Import, folder: Path | None) -> File:
    stem = item.file.plain
    if stem in loader.open:
        cycle = " -> ".join(f"`{name}`" for name in (*loader.open[loader.open.index(stem) :], stem))
        raise SeqError(
            "import-cycle",
            f"`{stem}` imports itself",
            item.file.span,
            notes=(cycle,),
            help="move what both need into a third file",
        )
    sibling = folder / f"{stem}.seq" if folder is not None else None
    if folder is not None and sibling is not None and sibling.is_file():
        if sibling.resolve().parent != folder.resolve():
            raise SeqError(
                "unknown-import", f"`{stem}.seq` is a link that leads out of this folder", item.file.span,
                help="an import names a file beside this one, or one of the library",
            )  # fmt: skip
        return _load(loader, read_source(sibling), folder, stem)
    if stem in library():
        return _load(loader, _library_source(stem), None, stem)
    names = [*library(), *(_beside(sibling) if sibling is not None else ())]
    raise SeqError(
        "unknown-import",
        f"no file `{stem}.seq` beside this one, and none in the library",
        item.file.span,
        help=did_you_mean(stem, names, "an import names a sibling file or a library file"),
    )

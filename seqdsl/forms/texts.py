"""The text of an equation that a form has merged into others stands above the code that now computes it."""

from __future__ import annotations

from dataclasses import replace

from seqdsl.ir.state import needed
from seqdsl.ir.system import System, sources


def with_texts(before: System, after: System) -> System:
    """`after`, where each equation of `before` that is gone leaves its text to the first one left that needed it."""
    readers: dict[str, list[str]] = {}
    for tensor in before.derived():
        for name in sources(before, tensor):
            readers.setdefault(name, []).append(tensor.name)
    computed = set(needed(after).tensors)  # what only a claim mentions has no code
    left: dict[str, list[str]] = {}
    for tensor in before.derived():
        if tensor.comment and tensor.name not in computed:
            heir = _heir(tensor.name, readers, computed)
            if heir is not None:
                left.setdefault(heir, []).append(tensor.comment)
    changed = []
    for name, texts in left.items():
        own = after.tensors[name]
        more = [t for t in dict.fromkeys(texts) if t not in own.comment]
        changed.append(replace(own, comment="\n".join([*more, own.comment])))
    return after.with_tensors(*changed)


def _heir(name: str, readers: dict[str, list[str]], computed: set[str]) -> str | None:
    pending, seen = list(readers.get(name, [])), {name}
    while pending:
        reader = pending.pop(0)
        if reader in computed:
            return reader
        if reader not in seen:
            seen.add(reader)
            pending += readers.get(reader, [])
    return None

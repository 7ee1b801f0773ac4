"""The mixers of the library by name."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import seqdsl
from seqdsl.api import Program

LIBRARY = Path(__file__).resolve().parent.parent.parent / "library"


@dataclass(frozen=True)
class Entry:
    """A mixer, and its file as `folder.stem`."""

    file: str
    program: Program


@cache
def every_mixer() -> list[tuple[str, str]]:
    """(file, mixer) for the whole library."""
    files = [f"{p.parent.name}.{p.stem}" for p in sorted(LIBRARY.glob("*/*.seq"))]
    return [(file, mixer) for file in files for mixer in programs(file)]


@lru_cache(maxsize=1)
def programs(file: str) -> dict[str, Program]:
    """The mixers of a file by name."""
    return {p.name: p for p in seqdsl.load_all(LIBRARY / f"{file.replace('.', '/')}.seq")}

"""Systems of the corpus and of the library, and the corpus's fixtures."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from seqdsl.ir.system import System
from seqdsl.semantics import load_file, lower_mixer, mixers

ROOT = Path(__file__).resolve().parents[2]
CORPUS = ROOT / "tests" / "corpus"
FIXTURES = sorted(path.name.removesuffix(".json") for path in (CORPUS / "values").glob("*.json"))
FILES = sorted([*CORPUS.glob("*.seq"), *(ROOT / "library").rglob("*.seq")])


@cache
def systems_of(path: Path) -> tuple[System, ...]:
    """Every mixer of a file."""
    file = load_file(path)
    return tuple(lower_mixer(file, mixer) for mixer in mixers(file))


def fixture(name: str) -> tuple[System, dict[str, Any], dict[str, Any]]:
    """The system, the arguments of a run, and its outputs."""
    entry = json.loads((CORPUS / "values" / f"{name}.json").read_text(encoding="utf-8"))
    file = load_file(CORPUS / Path(entry["file"]).name)
    system = lower_mixer(file, next(m for m in mixers(file) if m.name.plain == entry["mixer"]), entry["sizes"])
    given = {part: {n: _array(t) for n, t in entry[part].items()} for part in ("inputs", "params")}
    return system, {**given, "sizes": entry["sizes"]}, {n: _array(t) for n, t in entry["outputs"].items()}


def _array(tensor: dict[str, Any]) -> np.ndarray:
    def plain(value: Any) -> Any:
        return [plain(v) for v in value] if isinstance(value, list) else float(value) if isinstance(value, str) else value

    data = np.asarray(plain(tensor["data"]))
    return data[..., 0] + 1j * data[..., 1] if tensor["dtype"] == "complex" else data

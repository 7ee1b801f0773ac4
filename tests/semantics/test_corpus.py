"""The corpus: every mixer lowers, every fixture is reproduced, no length of the stream crashes, and a sequence may be
cut anywhere."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqdsl.ir.interpreter import interpret
from seqdsl.ir.sizes import SizeError, Sizes, bind
from seqdsl.ir.state import NotSteppable, state_record
from seqdsl.ir.system import System
from seqdsl.semantics import load_file, lower_mixer, mixers

CORPUS = Path(__file__).resolve().parents[1] / "corpus"
MIXERS = [(path.stem, mixer.name.plain) for path in sorted(CORPUS.glob("*.seq")) for mixer in mixers(load_file(path))]
FIXTURES = sorted(path.stem for path in (CORPUS / "values").glob("*.json"))
TOLERANCE = 1e-12
Array = np.ndarray[Any, Any]


@cache
def lowered(file: str, mixer: str, options: tuple[tuple[str, int], ...] = ()) -> System:
    loaded = load_file(CORPUS / f"{file}.seq")
    return lower_mixer(loaded, next(m for m in mixers(loaded) if m.name.plain == mixer), dict(options))


def array(entry: Any) -> Array:
    """A tensor of a fixture: infinities are strings, complex numbers pairs."""
    if not isinstance(entry, dict):
        return np.asarray(float(entry) if isinstance(entry, str) else entry)

    def number(value: Any) -> Any:
        return (
            [number(v) for v in value] if isinstance(value, list) else float(value) if isinstance(value, str) else value
        )

    data = np.asarray(number(entry["data"]))
    if entry["dtype"] != "complex":
        return data
    return data[..., 0] + 1j * data[..., 1] if data.size else np.zeros([0] * len(entry["indices"]), complex)


def assert_same(found: Any, wanted: Any, what: str) -> None:
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert found.shape == wanted.shape, what
    with np.errstate(all="ignore"):
        equal = (found == wanted) | (np.isnan(found) & np.isnan(wanted))
        far = np.max(np.abs(np.where(equal, 0, found - wanted)), initial=0)
        scale = max(1.0, float(np.max(np.abs(np.where(np.isfinite(wanted), wanted, 0)), initial=0)))
    assert far <= TOLERANCE * scale, f"{what}: {far}"


def test_its_extent() -> None:
    assert (len(MIXERS), len(FIXTURES)) == (111, 74)


@pytest.mark.parametrize("file, mixer", MIXERS)
def test_lowers(file: str, mixer: str) -> None:
    system = lowered(file, mixer)
    assert system.outputs and set(system.outputs) <= set(system.tensors)
    assert all(repr(t.rhs) for t in system.derived())


@pytest.mark.parametrize("name", FIXTURES)
def test_value(name: str) -> None:
    """Inputs and parameters of the fixture give its outputs and its state."""
    fixture = json.loads((CORPUS / "values" / f"{name}.json").read_text(encoding="utf-8"))
    system = lowered(Path(fixture["file"]).stem, fixture["mixer"], tuple(fixture["sizes"].items()))
    result = interpret(
        system,
        inputs={n: array(v) for n, v in fixture["inputs"].items()},
        params={n: array(v) for n, v in fixture["params"].items()},
        sizes=fixture["sizes"],
    )
    assert set(result["outputs"]) == set(fixture["outputs"])
    for part in ("outputs", "state"):
        for tensor, value in fixture.get(part, {}).items():
            assert_same(result[part][tensor], array(value), f"{part} {tensor}")


# Lengths -------------------------------------------------------------------------------------------------------------


@cache
def numbers(file: str, mixer: str) -> dict[str, int]:
    """The sizes of the fixture, where there is one; they are known to work out."""
    path = CORPUS / "values" / f"{file}.{mixer}.json"
    return json.loads(path.read_text(encoding="utf-8"))["sizes"] if path.exists() else {}


WIDTHS = {"Axial": 8, "RWKV6": 64}  # of models without a fixture


def lengths(system: System, sizes: Mapping[str, int], length: int) -> Sizes:
    """Of every index that is known before a run, for a length of the stream."""
    free = [name for name, index in system.indices.items() if index.axis == name and index.size is None]
    given = {axis: sizes.get(axis, WIDTHS.get(system.name, 4)) for axis in free}
    known = {n: v for n, v in sizes.items() if n in system.options}
    return bind(system, known, {**given, **({} if system.stream is None else {system.stream: length})}, complete=False)


def drawn(system: System, sizes: Mapping[str, int], length: int) -> dict[str, Array]:
    """Inputs for a length of the stream."""
    rng = np.random.default_rng(3)
    found: dict[str, Array] = {}
    known = lengths(system, sizes, length)
    for tensor in system.inputs():
        shape = [known[index] for index in tensor.indices]
        if tensor.dtype == "bool":
            found[tensor.name] = rng.random(shape) < 0.5
        elif tensor.dtype == "int":
            found[tensor.name] = rng.integers(0, 2, shape)
        else:
            found[tensor.name] = 0.5 * rng.standard_normal(shape)
            if tensor.dtype == "complex":
                found[tensor.name] = found[tensor.name] + 0.5j * rng.standard_normal(shape)
    return found


def is_free(system: System) -> bool:
    return system.stream is not None and system.indices[system.stream].size is None


def options(system: System, sizes: Mapping[str, int]) -> dict[str, int]:
    """What to pass as sizes: options, and lengths that neither the stream nor a formula decides."""
    return {n: v for n, v in sizes.items()
            if n not in system.indices or (system.indices[n].size is None and system.axis(n) != system.stream)}


def evaluated(system: System, sizes: Mapping[str, int], inputs: Mapping[str, Array], **more: Any) -> dict[str, Any]:
    missing = {n: 4 for n, default in system.options.items() if default is None and n not in sizes}
    return interpret(system, inputs=inputs, sizes={**missing, **options(system, sizes)}, **more)


@pytest.mark.parametrize("length", [0, 1, 2, 5])
@pytest.mark.parametrize("file, mixer", MIXERS)
def test_any_length(file: str, mixer: str, length: int) -> None:
    """A result of that length, or an error that says which size does not work out."""
    sizes = numbers(file, mixer)
    system = lowered(file, mixer, tuple(sizes.items()))
    if not is_free(system):
        return
    try:
        result = evaluated(system, sizes, drawn(system, sizes, length))
    except SizeError as error:
        assert error.message
        return
    for name, value in result["outputs"].items():
        for index, have in zip(system.tensors[name].indices, value.shape, strict=True):
            assert system.axis(index) != system.stream or have == length


# Cutting a sequence --------------------------------------------------------------------------------------------------


def is_steppable(system: System) -> bool:
    """Rule 22, as the state record sees it: every input is streamed, and nothing is read later."""
    try:
        return bool(state_record(system)) and is_free(system)
    except NotSteppable:
        return False


def along_stream(system: System, name: str) -> list[int]:
    return [k for k, i in enumerate(system.tensors[name].indices) if system.axis(i) == system.stream]


def cut(system: System, sizes: Mapping[str, int], inputs: Mapping[str, Array], start: int, stop: int) -> dict[str, Array]:
    """The inputs from start to stop; of a filter as long as the sequence, its beginning."""
    found, known = {}, lengths(system, sizes, stop)
    for name, value in inputs.items():
        for k, index in enumerate(system.tensors[name].indices):
            places = np.arange(start, stop) if k in along_stream(system, name) else np.arange(known[index])
            value = np.take(value, places, axis=k)
        found[name] = value
    return found


def leaves(state: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in state.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{path}{name}.")
        else:
            yield path + name, value


STEPPABLE = [(f, m) for f, m in MIXERS if is_steppable(lowered(f, m, tuple(numbers(f, m).items())))]


def test_many_are_steppable() -> None:
    assert len(STEPPABLE) > 40


@pytest.mark.parametrize("pieces", [(3, 4), (1, 1, 5), (0, 7), (7, 0)], ids=str)
@pytest.mark.parametrize("file, mixer", STEPPABLE)
def test_state(file: str, mixer: str, pieces: tuple[int, ...]) -> None:
    """Seven positions (or the next number that its sizes divide) at once, or by pieces with the state handed on."""
    sizes = numbers(file, mixer)
    system = lowered(file, mixer, tuple(sizes.items()))
    while True:
        try:
            inputs = drawn(system, sizes, sum(pieces))
            whole = evaluated(system, sizes, inputs)
            break
        except SizeError:  # a length that its sizes do not divide
            pieces = (*pieces[:-1], pieces[-1] + 1)
            assert sum(pieces) < 20
    start, state, parts = 0, None, []
    for piece in pieces:
        part = evaluated(system, sizes, cut(system, sizes, inputs, start, start + piece), state=state)
        start, state = start + piece, part["state"]
        parts.append(part["outputs"])
    for name, wanted in whole["outputs"].items():
        axes = along_stream(system, name)
        if not axes:
            assert_same(parts[-1][name], wanted, name)
        elif len(axes) == 1:
            assert_same(np.concatenate([p[name] for p in parts], axes[0]), wanted, name)
    found, wanted_state = dict(leaves(state or {})), dict(leaves(whole["state"]))
    assert found.keys() == wanted_state.keys()
    for name, wanted in wanted_state.items():
        assert_same(found[name], wanted, f"state {name}")

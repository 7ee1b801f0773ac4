"""The library against its references: looped, float64, written from the papers' equations, sharing nothing with it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import seqdsl
from seqdsl.ir.sizes import bind
from seqdsl.ir.system import System
from seqdsl.verify.modules import module_sizes

HERE = Path(__file__).resolve().parent
LIBRARY = HERE.parent.parent / "library"


def every_mixer() -> list[tuple[str, str]]:
    """(file, mixer) for the whole library."""
    files = sorted(LIBRARY.glob("*/*.seq"))
    return [(f"{p.parent.name}.{p.stem}", m.name) for p in files for m in seqdsl.load_all(p)]


def drawn(file: str, mixer: str, length: int) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Inputs, params, sizes, and what the reference makes of them."""
    reference = import_module(f".{file}", __package__)
    inputs, params, sizes = getattr(reference, f"{mixer}_example")(np.random.default_rng(5), length)
    return inputs, params, sizes, getattr(reference, mixer)(inputs, params, sizes)


def close(found: Any, expected: np.ndarray, what: str) -> None:
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-9, atol=1e-9, err_msg=what)


@pytest.mark.parametrize("length", [1, 6, 19])
@pytest.mark.parametrize(("file", "mixer"), every_mixer())
def test_the_equations_are_the_reference_s(file: str, mixer: str, length: int) -> None:
    inputs, params, sizes, expected = drawn(file, mixer, length)
    program = seqdsl.load(LIBRARY / f"{file.replace('.', '/')}.seq", mixer)
    found = program.interpret(inputs=inputs, params=params, sizes=sizes)["outputs"]
    for name in expected:
        close(found[name], expected[name], name)


def built(file: str, mixer: str, length: int) -> tuple[System, torch.nn.Module, list[torch.Tensor], dict[str, Any]]:
    """The equations, the float64 module with the reference's parameters, its inputs, and what the reference expects."""
    inputs, params, sizes, expected = drawn(file, mixer, length)
    program = seqdsl.load(LIBRARY / f"{file.replace('.', '/')}.seq", mixer)
    system = program.system(**sizes)
    lengths = {system.axis(i): n for t in system.inputs() for i, n in zip(t.indices, np.shape(inputs[t.name]), strict=True)}
    bound = bind(system, dict(sizes), {n: v for n, v in lengths.items() if system.index(n).size is None})
    static = {n: v for n, v in sizes.items() if n not in system.options}  # they decided the equations
    module = program.module(**module_sizes(system, bound), **static).double()
    loaded = module.load_state_dict({n: torch.as_tensor(np.asarray(v)) for n, v in params.items()}, strict=False)
    assert not loaded.unexpected_keys, loaded.unexpected_keys
    return system, module, [torch.as_tensor(np.asarray(inputs[t.name]))[None] for t in system.inputs()], expected


@pytest.mark.parametrize(("file", "mixer"), every_mixer())
def test_the_module_is_the_reference_s(file: str, mixer: str) -> None:
    system, module, inputs, expected = built(file, mixer, 37)
    result = module(*inputs)
    outputs = result if isinstance(result, tuple) else (result,)
    for name, value in zip(system.outputs, outputs, strict=True):
        if name in expected:
            close(value.detach()[0], expected[name], name)

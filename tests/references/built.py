"""A mixer of the library and its reference: looped, float64, written from the papers' equations, sharing nothing with it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
import torch

from seqdsl.ir.sizes import bind
from seqdsl.ir.system import System
from seqdsl.verify.modules import module_sizes
from tests.references.mixers import Entry


def drawn(entry: Entry, length: int) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Inputs, params, sizes, and what the reference makes of them."""
    reference, mixer = import_module(f".{entry.file}", __package__), entry.program.name
    inputs, params, sizes = getattr(reference, f"{mixer}_example")(np.random.default_rng(5), length)
    return inputs, params, sizes, getattr(reference, mixer)(inputs, params, sizes)


def close(found: Any, expected: np.ndarray, what: str) -> None:
    np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-9, atol=1e-9, err_msg=what)


def built(entry: Entry, length: int) -> tuple[System, torch.nn.Module, list[torch.Tensor], dict[str, Any]]:
    """The equations, the float64 module with the reference's parameters, its inputs, and what the reference expects."""
    inputs, params, sizes, expected = drawn(entry, length)
    system = entry.program.system(**sizes)
    lengths = {system.axis(i): n for t in system.inputs() for i, n in zip(t.indices, np.shape(inputs[t.name]), strict=True)}
    bound = bind(system, dict(sizes), {n: v for n, v in lengths.items() if system.index(n).size is None})
    static = {n: v for n, v in sizes.items() if n not in system.options}  # they decided the equations
    module = entry.program.module(**module_sizes(system, bound), **static).double()
    loaded = module.load_state_dict({n: torch.as_tensor(np.asarray(v)) for n, v in params.items()}, strict=False)
    assert not loaded.unexpected_keys, loaded.unexpected_keys
    return system, module, [torch.as_tensor(np.asarray(inputs[t.name]))[None] for t in system.inputs()], expected

"""Generated modules reproduce every fixture of the corpus, and stepping or splitting them changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.backends.torch_module.harness import (
    FIXTURES,
    as_tuple,
    fixture,
    gap,
    is_steppable,
    piece,
    stream_dims,
)

WITHIN = {"atlas.atlas": 1e-5}  # five steps of Newton and Schulz multiply the rounding errors


@pytest.mark.parametrize("path", FIXTURES, ids=lambda p: p.stem)
def test_values(path: Path) -> None:
    _, module, inputs, wanted = fixture(path)
    for y, z in zip(as_tuple(module(*inputs)), wanted, strict=True):
        assert gap(y[0], z) < 1e-10


@pytest.mark.parametrize("path", FIXTURES, ids=lambda p: p.stem)
def test_values_in_float32(path: Path) -> None:
    _, module, inputs, wanted = fixture(path, torch.float32)
    for y, z in zip(as_tuple(module(*inputs)), wanted, strict=True):
        if z.is_floating_point():
            error = (y[0].double() - z).masked_fill(torch.isinf(z), 0).norm() / z.masked_fill(torch.isinf(z), 0).norm()
            assert error < WITHIN.get(path.stem, 2e-6)


@pytest.mark.parametrize("path", FIXTURES, ids=lambda p: p.stem)
def test_stepping_and_splitting(path: Path) -> None:
    """Whole, in three pieces (one of them empty), and position by position: the same outputs and the same state."""
    system, module, inputs, _ = fixture(path)
    if not is_steppable(system):
        with pytest.raises(ValueError, match="cannot be stepped"):
            module.step(*inputs, state={})
        return
    whole, final = module(*inputs, return_state=True)
    length = next(x.shape[d] for x, d in zip(inputs, stream_dims(system), strict=True) if d is not None)
    cuts = [(0, length // 2), (length // 2, length // 2), (length // 2, length)]
    outputs, state = [], None
    for start, end in cuts:
        y, state = module(*piece(system, inputs, start, end), state=state, return_state=True)
        outputs.append(as_tuple(y))
    _same(system, outputs, whole)
    assert gap(state, final) < 1e-9
    outputs, state = [], None
    for t in range(length):
        at = [x if d is None else x.select(d, t) for x, d in zip(inputs, stream_dims(system), strict=True)]
        y, state = module.step(*at, state=state)
        dims = stream_dims(system, system.outputs)
        outputs.append(tuple(z if d is None else z.unsqueeze(d) for z, d in zip(as_tuple(y), dims, strict=True)))
    _same(system, outputs, whole)
    assert gap(state, final) < 1e-9


def _same(system, outputs, whole) -> None:  # type: ignore[no-untyped-def]
    for k, (dim, z) in enumerate(zip(stream_dims(system, system.outputs), as_tuple(whole), strict=True)):
        if dim is not None:
            assert gap(torch.cat([o[k] for o in outputs], dim), z) < 1e-9

"""Every library mixer on a GPU in float32, against its own module on the CPU in float64: values and gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from seqdsl.backends import torch_module

from seqdsl.api import Program, load_all
from seqdsl.verify.inputs import draw_inputs, draw_sizes
from seqdsl.verify.modules import module_sizes

pytestmark = pytest.mark.gpu

LIBRARY = sorted((Path(__file__).resolve().parents[3] / "library").rglob("*.seq"))
GROWING = {"ema_damped_conv"}  # a raw kernel, drawn at random: it overflows on any device


def _results(program: Program, device: str, dtype: torch.dtype) -> list[torch.Tensor]:
    """Outputs, then gradients of the inputs, on one draw."""
    system = program.derived("auto").system
    rng = np.random.default_rng(0)
    sizes = draw_sizes(system, rng, stream=21)
    drawn = draw_inputs(system, sizes, rng)
    torch.manual_seed(0)
    module = torch_module.build_module(program.source("auto"), program.class_name, **module_sizes(system, sizes))
    module = module.double().to(device, dtype)
    inputs: list[Any] = []
    for tensor in system.inputs():
        x = torch.as_tensor(np.asarray(drawn[tensor.name]))[None].to(device)
        if x.is_floating_point() or x.is_complex():
            x = x.to(dtype.to_complex() if x.is_complex() else dtype).requires_grad_()
        inputs.append(x)
    result = module(*inputs)
    outputs = list(result) if isinstance(result, tuple) else [result]
    weights = torch.Generator().manual_seed(1)
    total = torch.zeros((), dtype=torch.float64, device=device)
    for y in [y for y in outputs if y.requires_grad]:
        total = total + (y.real.double() * torch.randn(y.shape, generator=weights, dtype=torch.float64).to(device)).sum()
    if total.requires_grad:
        total.backward()
    found = [*outputs, *(x.grad for x in inputs if x.requires_grad and x.grad is not None)]
    return [x.detach().cpu().to(torch.complex128) for x in found]


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.stem)
def test_a_gpu_gives_what_the_cpu_gives(path: Path) -> None:
    """Inputs are drawn without regard to conditioning: the tolerance is for those of them that are ill conditioned."""
    for program in load_all(path):
        if program.name in GROWING:
            continue
        wanted = _results(program, "cpu", torch.float64)
        found = _results(program, "cuda", torch.float32)
        for a, b in zip(found, wanted, strict=True):
            assert a.shape == b.shape
            assert (a - b).norm() <= 5e-3 * b.norm().clamp(min=1e-2), program.name

"""Every library mixer that has kernels, on a GPU in float32: no worse than PyTorch's own products in float32.

Values, gradients and one decode step, against the PyTorch module in float64 on the same device. Inputs are drawn without
regard to conditioning, so what float32 makes of them in the PyTorch module is the measure.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from backends.triton_kernel.count import launches
from seqdsl.api import Program, load_backend
from seqdsl.ir.sizes import SizeError, Sizes
from seqdsl.ir.system import System
from seqdsl.verify.inputs import draw_inputs, draw_sizes
from seqdsl.verify.modules import has_state, module_sizes
from tests.references.mixers import every_mixer, programs

pytestmark = pytest.mark.gpu
TIMES = (150, 144, 64, 16)  # the first that a mixer takes: of 150, three chunks, the last is not whole
NARROW = {torch.float64: torch.float32, torch.complex128: torch.complex64}
WIDE = {narrow: wide for wide, narrow in NARROW.items()}
# A raw kernel, drawn at random, overflows; so do states that feed on themselves.
GROWING = {"ema_damped_conv", "krylov", "lssl", "lssl_bilinear"}


def results(module: Any, inputs: list[Tensor], along: list[int | None], steps: bool) -> list[Tensor]:
    """Outputs, gradients of inputs and parameters, and with `steps` what a step gives after all positions but one."""
    given = [x.detach().requires_grad_(x.is_floating_point() or x.is_complex()) for x in inputs]
    outputs = _outputs(module(*given))
    draw = torch.Generator().manual_seed(1)
    sent = [torch.randn(y.shape, generator=draw, dtype=torch.float64).to(y.device) for y in outputs]
    total = sum(((y.real.double() * g).sum() for y, g in zip(outputs, sent, strict=True) if y.requires_grad), torch.zeros(()))
    wanted = [x for x in (*given, *module.parameters()) if x.requires_grad]
    slopes = torch.autograd.grad(total, wanted, allow_unused=True, materialize_grads=True) if total.requires_grad else ()
    found = [x.detach() for x in (*outputs, *slopes)]
    if steps:
        with torch.no_grad():
            before = [x if dim is None else x.narrow(dim, 0, x.shape[dim] - 1) for x, dim in zip(inputs, along, strict=True)]
            last = [x if dim is None else x.select(dim, -1) for x, dim in zip(inputs, along, strict=True)]
            found += _outputs(module.step(*last, module(*before, return_state=True)[-1])[:-1])
    return found


def _outputs(found: Any) -> list[Tensor]:
    """One tensor, or several, the first of which may be a tuple of them."""
    if isinstance(found, Tensor):
        return [found]
    return [x for one in found for x in _outputs(one)]


def sizes_of(system: System) -> Sizes:
    """Small lengths, of as many positions as may be."""
    for time in TIMES:
        try:
            return draw_sizes(system, np.random.default_rng(0), stream=time)
        except SizeError as error:
            why = error
    raise why


def errors(program: Program, device: str = "cuda") -> list[tuple[float, float]]:
    """Relative errors of the kernels, each with that of PyTorch; nothing of a mixer that has no kernels."""
    text = program.source("auto", "triton")
    if launches.TRITON not in text and not load_backend("triton").companions(text):
        return []
    system = program.system()
    sizes = sizes_of(system)
    built = module_sizes(system, sizes)
    drawn = draw_inputs(system, sizes, np.random.default_rng(0), spread=(0.3,))
    tensors = [torch.as_tensor(np.asarray(drawn[x.name]))[None].to(device) for x in system.inputs()]
    narrow = [x.to(NARROW.get(x.dtype, x.dtype)) for x in tensors]
    exact = [x.to(WIDE.get(x.dtype, x.dtype)) for x in narrow]
    along = [next((k + 1 for k, i in enumerate(x.indices) if system.axis(i) == system.stream), None) for x in system.inputs()]
    found = []
    weights: dict[str, Tensor] = {}
    for backend, inputs in (("torch", exact), ("torch", narrow), ("triton", narrow)):
        torch.manual_seed(0)
        module = program.module("auto", backend, **built)
        weights = weights or module.state_dict()
        module.load_state_dict(weights)
        steps = hasattr(module, "step") and has_state(system) and system.stream not in built
        found.append(results(module.to(device).double() if inputs is exact else module.to(device), inputs, along, steps))
    wide, plain, own = ([x.to(torch.complex128) for x in some] for some in found)
    assert [x.shape for x in wide] == [x.shape for x in plain] == [x.shape for x in own]
    least = 1e-3 * max(float(x.norm()) for x in wide)  # a gradient of 0 is as exact as the others
    return [(float((a - c).norm()) / max(float(c.norm()), least), float((b - c).norm()) / max(float(c.norm()), least))
            for a, b, c in zip(own, plain, wide, strict=True)]  # fmt: skip


@pytest.mark.parametrize(("file", "mixer"), every_mixer())
def test_kernels_are_as_exact_as_products_in_float32(file: str, mixer: str) -> None:
    if mixer in GROWING:
        pytest.skip("it overflows on any device")
    found = errors(programs(file)[mixer])
    if not found:
        pytest.skip("no kernels")
    assert all(own <= 1e-5 + 8 * plain for own, plain in found), found

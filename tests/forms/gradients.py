"""The gradient of a mixer twice: its adjoint in the interpreter, and torch's through every step of the recurrent module.

A module sends gradients through loops by their adjoints; autograd goes through the steps themselves where it is to go
through the gradient again, which is what is asked for here: the two derivations share nothing. Where a form of the module
is named its own gradient is meant, by whatever adjoints are written for what the form is made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from seqdsl.backends import torch_module

from seqdsl.forms import derive
from seqdsl.forms.adjoint import adjoint
from seqdsl.ir.initial import initial_values, state_names
from seqdsl.ir.interpreter import interpret
from seqdsl.ir.sizes import SizeError, Sizes
from seqdsl.ir.state import needed
from seqdsl.ir.system import System
from seqdsl.verify.inputs import draw_inputs, draw_sizes
from seqdsl.verify.modules import module_sizes, perturbed, relative_rms, state_dict

Array = np.ndarray[Any, Any]


def worst_gap(
    system: System, *, stream: int, seed: int = 0, harsh: bool = False, form: str = "", module_form: str = ""
) -> tuple[float, str]:
    """The largest relative difference of a cotangent, and whose it is; (-1, reason) where no sizes fit.

    `form` is the form that the adjoint is brought into before it is interpreted, `module_form` that of the
    module, which is stepped where none is named."""
    rng = np.random.default_rng(seed)
    try:
        sizes = draw_sizes(system, rng, stream=stream)
    except SizeError as error:
        return -1.0, str(error)
    inputs = draw_inputs(system, sizes, rng, harsh=harsh)
    values = {n: perturbed(v, rng) for n, v in initial_values(system, sizes, {}).items()}
    params = state_dict(system, sizes, values)
    derived = derive(system, module_form or "recurrent").system
    text = torch_module.emit_module(derived, class_name="Mixer", form=module_form)
    module = torch_module.build_module(text, "Mixer", **module_sizes(derived, sizes)).to(torch.float64)
    weights = {torch_module.attribute_path(k): torch.as_tensor(np.asarray(v)) for k, v in params.items()}
    module.load_state_dict(weights, strict=True)
    tensors = [torch.as_tensor(np.asarray(inputs[t.name]))[None] for t in system.inputs()]
    smooth = [x.requires_grad_() if x.is_floating_point() or x.is_complex() else x for x in tensors]
    result = module(*smooth)
    outputs = result if isinstance(result, tuple) else (result,)
    cotangents = {}
    total = torch.zeros((), dtype=torch.float64)
    for name, output in zip(system.outputs, outputs, strict=True):
        weight = torch.as_tensor(rng.standard_normal(output.shape))
        if output.is_complex():
            weight = torch.complex(weight, torch.as_tensor(rng.standard_normal(output.shape)))
        cotangents[f"{name}.grad"] = weight[0].numpy()
        if output.requires_grad:
            total = total + (output.conj() * weight if output.is_complex() else output * weight).real.sum()
    wanted = [*smooth, *module.parameters()]
    if total.requires_grad:
        asked = [x for x in wanted if x.requires_grad]
        found = torch.autograd.grad(total, asked, create_graph=not module_form, allow_unused=True)
        for x, grad in zip(asked, found, strict=True):
            x.grad = None if grad is None else grad.detach()
    backward = adjoint(system)
    if form:
        backward = derive(backward, form).system
    bars = interpret(
        backward, inputs={**inputs, **cotangents}, params=params, sizes={**sizes.lengths, **sizes.options}
    )["outputs"]
    worst, where = 0.0, ""
    for name, place, wanted in _autograd(system, sizes, module, smooth):
        given = np.asarray(bars[f"{name}.bar"])[place]
        gap = relative_rms(given, np.zeros_like(given) if wanted is None else wanted)
        if not gap <= worst:
            worst, where = gap, name
    return worst, where


def _autograd(
    system: System, sizes: Sizes, module: Any, inputs: list[torch.Tensor]
) -> Iterator[tuple[str, Any, Array | None]]:
    """Tensor, place in it, and torch's gradient there, for each input and parameter; None where it gave none."""
    for tensor, x in zip(system.inputs(), inputs, strict=True):
        if x.requires_grad:
            yield tensor.name, (), None if x.grad is None else x.grad[0].numpy()
    parameters = dict(module.named_parameters())
    for tensor in needed(system).params():
        if tensor.kind == "param":
            for place, name in state_names(tensor, sizes):
                grad = parameters[torch_module.attribute_path(name)].grad
                yield tensor.name, place, None if grad is None else grad.numpy()

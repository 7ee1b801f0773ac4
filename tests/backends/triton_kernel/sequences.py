"""Mixers with groups of equations over whole sequences that have kernels: their values and gradients, and what compilers say.

Run as a program, under Triton's interpreter, it prints one JSON object per case: relative errors of outputs and of the
gradients of all inputs and parameters, against the float64 interpreter of the equations and of the equations of their
adjoint (`forms.adjoint`). Inputs and parameters lie between NaNs, and what kernels leave unwritten is NaN.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

import seqdsl
from seqdsl.api import load_backend
from seqdsl.forms.adjoint import adjoint
from seqdsl.ir.interpreter import interpret
from tests.backends.triton_kernel.ahead import TARGETS, answer
from tests.backends.triton_kernel.ahead import compiled as compile_one
from tests.backends.triton_kernel.cases import DTYPES, _guarded
from tests.backends.triton_kernel.processes import compile_in, interpret_in
from tests.backends.triton_kernel.steps import _source, relative

TIME = 7


@dataclass(frozen=True)
class Whole:
    """A mixer, by its name in the library or its source; lengths; what the module is built with; how many launches of
    groups a call makes; the inputs that have a batch of 1."""

    source: str
    sizes: dict[str, int] = field(default_factory=dict)
    launches: int = 1
    mixer: str | None = None
    built: dict[str, int] = field(default_factory=dict)
    alike: tuple[str, ...] = ()
    time: int = TIME
    batch: int = 2
    scale: float = 1.0

    def program(self) -> Any:
        return seqdsl.load(self.source, self.mixer)


def _mixer(head: str, *equations: str) -> str:
    return _source(head, *equations)


# Unnamed mixers, of every kind of group; lengths that are no powers of two; then layers of the library.
WHOLE: dict[str, Whole] = {
    "a gate": Whole(_mixer("gated(x[t,c], y[t,c]) -> z[t,c]", "z[t,c] = tanh(x) * sigmoid(y) + x"), {"c": 300}),
    "a norm with a scale and a shift": Whole(
        _mixer("scaled(x[t,c]) -> y[t,c]", "param w[c] = normal(1, 0.2)", "param b[c] = normal(0, 0.2)",
               "y[t,c] = layer_norm[c](x) * w + b"), {"c": 37}, built={"c": 37}),
    "a norm over heads and features, gated": Whole(
        _mixer("heads(x[t,h,e], g[t,h,e]) -> y[t,h,e]", "y[t,h,e] = rms_norm[h,e](x) * silu(g)"), {"h": 3, "e": 5}),
    "a norm by head with a scale for each": Whole(
        _mixer("grouped(x[t,h,e], g[t,h,e]) -> y[t,h,e]", "param w[h,e] = normal(1, 0.2)",
               "y[t,h,e] = l2_norm[e](x) * w * g"), {"h": 3, "e": 20}, built={"h": 3, "e": 20}),
    "a share of each feature": Whole(
        _mixer("shares(x[t,c], v[t,c]) -> y[t,c]", "p[t,c] = softmax[c](3 * x)", "y[t,c] = p * v - x"), {"c": 19}),
    "moments of one's own": Whole(
        _mixer("moments(x[t,c]) -> (y[t,c], m[t], s[t])", "m[t] = sum[c] x / |c|", "s[t] = sqrt(mean[c]((x - m)^2) + 0.1)",
               "y[t,c] = (x - m) / s^3"), {"c": 21}),
    "five outputs of one input": Whole(
        _mixer("five(x[t,c], p[t,c]) -> (a[t,c], b[t,c], d[t,c], e[t,c], f[t,c])", "param u[c] = normal(0, 1)",
               "param v[c] = normal(0, 1)", "a[t,c] = x + (p - x) * u", "b[t,c] = x + (p - x) * v", "d[t,c] = x + (p - x) * u * v",
               "e[t,c] = x - (p - x) * u", "f[t,c] = exp(-u^2) * x + p"), {"c": 18}, built={"c": 18}),
    "factors of each head, position and feature": Whole(
        _mixer("factors(x[t,h,e], s[h], f[e], n[t,h]) -> y[t,h,e]", "y[t,h,e] = tanh(s * x + f) * (x + n) + s * f"),
        {"h": 3, "e": 6}, alike=("s",)),
    "a table of positions, the same for all sequences": Whole(
        _mixer("placed(x[t,c], p[t,c], n[t]) -> y[t,c]", "y[t,c] = (x + p) * sigmoid(x * p) * exp(n)"), {"c": 33},
        alike=("p", "n")),
    "integers, conditions and numbers of the equations": Whole(
        _mixer("numbered(x[t,h,e], n[t,h]: int, keep[t,h,e]: bool; K = 3) -> y[t,h,e]",
               "y[t,h,e] = where(keep and e < |e| - 1, x * (n + h), 0.5 * x) / (K + |h|) + x^3 / |e|"), {"h": 2, "e": 9}),
    "functions": Whole(
        _mixer("functions(x[t,c], y[t,c]) -> (s[t,c], r[t,c])",
               "s[t,c] = tanh(x) + log1p(exp(y)) - expm1(x / 9) + gelu(x) + elu(y) + logaddexp(x, y) + softplus(x) * relu(y)^2",
               "r[t,c] = log_sigmoid(y) + abs(x) * clamp(y, -1, 1) + max(x, y) * sin(x) + min(x, 0.3) + erf(y) / sqrt(x^2 + 1)"),
        {"c": 33}),
    "what PyTorch computes in between": Whole(
        _mixer("between(x[t,c], y[t,c]) -> (o[t,c], k[t,c])", "k[t,c] = tanh(x) * y + y", "s[t,c] = 0.5 * s[t-1] + k",
               "o[t,c] = sigmoid(s) * k - s"), {"c": 12}, launches=2),
    "many rows": Whole(
        _mixer("many(x[t,c], b[t,c]) -> y[t,c]", "param w[c] = normal(1, 0.2)", "y[t,c] = rms_norm[c](x) * w + tanh(b * w)"),
        {"c": 5}, built={"c": 5}, time=2100, batch=3),
    "wide": Whole(_mixer("wide(x[t,c]) -> y[t,c]", "param w[c] = normal(1, 0.2)", "y[t,c] = layer_norm[c](x) * w"),
                  {"c": 5000}, built={"c": 5000}, time=3),
    "what a projection is applied to": Whole(
        _mixer("applied(x[t,c], g[t,c]; E = 6) -> y[t,e]", "param w[c] = normal(1, 0.2)",
               "y[t, e: E] = linear[c](rms_norm[c](x) * w * silu(g))"), {"c": 10}, built={"c": 10}),
    "gated linear attention": Whole("gla", {"c": 16}, 2, "GLA", {"c": 16, "H": 2}),
    "a delta rule": Whole("delta_rule", {"c": 12}, 3, "DeltaNet", {"c": 12, "H": 2}),
    "a state space": Whole("mamba", {"c": 6}, 3, "Mamba", {"c": 6, "N": 5}),
    "a transformer": Whole("transformer_layer", {"c": 12}, 1, "TransformerLayer", {"c": 12, "H": 2}),
}  # fmt: skip
HALVES = ("a gate", "a norm with a scale and a shift", "factors of each head, position and feature", "gated linear attention")
LENGTHS = ("a norm with a scale and a shift", "a gate", "factors of each head, position and feature")  # also of no position, and one


def built(case: Whole, backend: str = "triton") -> tuple[Any, ModuleType]:
    """A module, and the Python module that its text became."""
    torch.manual_seed(0)
    found = case.program().module("auto", backend, **case.built)
    return found, sys.modules[type(found).__module__]


def inputs(case: Whole) -> dict[str, Tensor]:
    """Sequences of `time` positions."""
    torch.manual_seed(1)
    system = case.program().system()
    found = {}
    for x in system.inputs():
        lengths = [case.time if system.axis(i) == system.stream else case.sizes[system.axis(i)] for i in x.indices]
        drawn = torch.randn(1 if x.name in case.alike else case.batch, *lengths) * case.scale
        found[x.name] = {"bool": drawn > 0, "int": (drawn.abs() * 3).long()}.get(x.dtype, drawn)
    return found


def cotangents(outputs: list[Tensor]) -> list[Tensor]:
    draw = torch.Generator().manual_seed(7)
    return [torch.randn(y.shape, dtype=torch.float64, generator=draw) for y in outputs]


def exact(case: Whole, module: Any, given: dict[str, Tensor], sent: list[Tensor]) -> list[np.ndarray[Any, Any]]:
    """Outputs, and gradients of real inputs and of parameters, by the float64 interpreter, sequence by sequence."""
    system = case.program().system()
    params = {n: x.detach().double().numpy() for n, x in module.state_dict().items()}
    back = adjoint(system)
    values, slopes = [], []
    for b in range(case.batch):
        one = {n: x[b % x.shape[0]].double().numpy() if x.is_floating_point() else x[b % x.shape[0]].numpy()
               for n, x in given.items()}  # fmt: skip
        values.append(list(interpret(system, inputs=one, params=params, sizes=case.built)["outputs"].values()))
        grads = {f"{n}.grad": g[b].numpy() for n, g in zip(system.outputs, sent, strict=True)}
        found = interpret(back, inputs={**one, **grads}, params=params, sizes=case.built)["outputs"]
        slopes.append({n.removesuffix(".bar"): x for n, x in found.items()})
    outputs = [np.stack(pair) for pair in zip(*values, strict=True)]
    wanted = [x.name for x in (*system.inputs(), *system.params()) if x.dtype == "real"]
    every = {n: np.stack([s[n] for s in slopes]) for n in wanted}
    return [*outputs, *(every[n] if n in given and given[n].shape[0] > 1 else every[n].sum(0, keepdims=n in given) for n in wanted)]


def real(found: Any) -> list[Tensor]:
    return list(found) if isinstance(found, tuple) else [found]


def run(case: Whole, module: Any, given: dict[str, Tensor], sent: list[Tensor] | None = None) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs with gradients, and what was sent back to them."""
    some = [x.requires_grad_(x.is_floating_point()) for x in given.values()]
    outputs = real(module(*some))
    sent = cotangents(outputs) if sent is None else sent
    names = [".".join(x.path) for x in case.program().system().params() if x.dtype == "real"]
    wanted = [x for x in some if x.requires_grad] + [module.get_parameter(n) for n in names]
    grads = [g.to(y) for g, y in zip(sent, outputs, strict=True)]
    return [*(y.detach() for y in outputs), *torch.autograd.grad(outputs, wanted, grads)], sent


def counted(text: ModuleType) -> list[str]:
    """What is launched of groups, from now on."""
    calls: list[str] = []

    def watched(name: str, launch: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *given: (calls.append(name), launch(*given))[1]

    for name in ("_sequence_run", "_sequence_adjoint"):
        vars(text)[name] = watched(name, vars(text)[name])
    return calls


def _between_nans(module: Any, device: str) -> Any:
    for x in module.parameters():
        x.data = _guarded(x.data, device)
    return module


def compare(case: Whole, dtype: torch.dtype, edit: Callable[[str], str] | None = None, device: str = "cpu") -> list[float]:
    """Relative errors of outputs and gradients; the kernels must be launched, once forward and once back."""
    given = {n: x.to(dtype) if x.is_floating_point() else x for n, x in inputs(case).items()}
    module, text = built(case) if edit is None else edited(case, edit)
    module = module.to(device, dtype)
    wanted = {n: x.clone() for n, x in module.state_dict().items()}
    calls = counted(text)
    found, sent = run(case, _between_nans(module, device), {n: _guarded(x, device) if x.is_floating_point() else x.to(device)
                                                            for n, x in given.items()})  # fmt: skip
    assert calls.count("_sequence_run") == calls.count("_sequence_adjoint") == case.launches, (case, calls)
    del wanted
    return [relative(a, b) for a, b in zip(found, exact(case, module.cpu(), given, sent), strict=True)]


def edited(case: Whole, edit: Callable[[str], str]) -> tuple[Any, ModuleType]:
    """The module with its text changed, which must change it."""
    program, backend = case.program(), load_backend("triton")
    source = program.source("auto", "triton")
    changed = edit(source)
    assert changed != source, "there is nothing to break"
    torch.manual_seed(0)
    changed = changed.replace('OPS = "seqdsl_', 'OPS = "broken_')  # its operators must not be those of the whole ones
    module = backend.build_module(changed, program.class_name, **case.built)
    return module, sys.modules[type(module).__module__]


if __name__ == "__main__":
    torch.use_deterministic_algorithms(True)  # which fills fresh memory with NaN
    for name, case in WHOLE.items():
        if not sys.argv[1:] or name in sys.argv[1:]:
            print(json.dumps([f"{name}, float32", compare(case, torch.float32)]), flush=True)

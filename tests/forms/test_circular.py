"""States convolved around an axis: found from their subscripts, scanned in frequencies, equal to the loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import seqdsl
from seqdsl.algebra import classify_all
from seqdsl.algebra.affine import NoMatch
from seqdsl.algebra.circular import with_spectrum
from seqdsl.forms import derive
from seqdsl.ir import build
from seqdsl.ir.dependence import recurrences
from seqdsl.ir.interpreter import interpret
from seqdsl.ir.node import walk
from seqdsl.ir.system import System
from seqdsl.semantics import load_system

HEADER = "mixer m(u[t,i,j], A[t,a], w[a,b], v[i], g[t]) -> y[t,i,j]:\n"
CIRCULAR = {
    "weights that change with time": "y[t,i,j] = sum[a] A * y[t-1, (i + a) % |i|] + u",
    "two axes": "y[t,i,j] = sum[a,b] w * y[t-1, (i + a - 1) % |i|, (j - 2 * b) % |j|] + u",
    "constant shifts": "y[t,i,j] = 0.5 * y[t-1, (i + 1) % |i|] - 0.25 * y[t-1] + g * y[t-1, i, (j - 3) % |j|] + u",
    "a kernel longer than the axis": "y[t,i,j] = sum[a] A * y[t-1, (i + 5 * a) % |i|] + u",
    "a start": "y[-1,i,j] = v + j; y[t,i,j] = 0.5 * sum[a] A * y[t-1, (i + a) % |i|] + u",
    "some of the kernel": "y[t,i,j] = sum[a | a != 1] A * y[t-1, (i + a) % |i|] + u * u",
    "reads of the state": "x[t,i,j] = sum[a] A * x[t-1, (i + a) % |i|] + u; y[t,i,j] = x[t-1] * x[t, 0] + x",
    "backwards": "x[t,i,j] = sum[a] A * x[t+1, (i + a) % |i|] + u; y[t,i,j] = x",
    "a write that does not vary": "y[t,i,j] = sum[a] A * y[t-1, (i + a) % |i|] + g",
}
NOT_CIRCULAR = {
    "zeros outside": ("y[t,i,j] = sum[a] A * y[t-1, i + a - 1] + u", "convolution", "reads 0"),
    "weights that differ by place": ("y[t,i,j] = sum[a] A * v * y[t-1, (i + a) % |i|] + u", "dense", ""),
    "a gate that differs by place": ("y[t,i,j] = v * y[t-1] + y[t-1, (i + 1) % |i|] + u", "convolution", "differ along"),
    "a stride": ("y[t,i,j] = 0.5 * y[t-1, (2 * i) % |i|] + u", "dense", ""),
    "a reflection": ("y[t,i,j] = 0.5 * y[t-1, (|i| - 1 - i) % |i|] + u", "dense", ""),
    "another length": ("y[t,i,j] = 0.5 * y[t-1, (i + 1) % |j|] + u", "dense", ""),
}


def system_of(body: str) -> System:
    return load_system(HEADER + "\n".join("    " + line.strip() for line in body.split(";")) + "\n")


def drawn(time: int, rows: int = 4) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(time)
    shapes = {"u": (time, rows, 3), "A": (time, 3), "w": (3, 2), "v": (rows,), "g": (time,)}
    return {n: rng.standard_normal(s) * (0.4 if n in "Aw" else 1) for n, s in shapes.items()}


@pytest.mark.parametrize("name", CIRCULAR)
def test_a_shift_around_an_axis_is_found_and_scanned(name: str) -> None:
    system = system_of(CIRCULAR[name])
    (recurrence,) = classify_all(system)
    assert recurrence.kind == "convolution" and "Fourier" in recurrence.evidence
    derived = derive(system, "scan")
    assert any("spectra" in o.law for o in derived.obligations)
    assert any(n.op == "affine_scan" for t in derived.system.derived() if t.rhs is not None for n in walk(t.rhs))
    for time, rows in ((0, 4), (1, 4), (6, 4), (6, 1), (6, 5)):
        state = None
        for inputs in (drawn(time, rows), {**drawn(time + 2, rows), "w": drawn(time)["w"], "v": drawn(time, rows)["v"]}):
            expected, found = (interpret(s, inputs=inputs, state=state) for s in (system, derived.system))
            assert np.allclose(found["outputs"]["y"], expected["outputs"]["y"], rtol=1e-11, atol=1e-11)
            for key, value in expected["state"].items():
                assert np.allclose(np.asarray(found["state"][key]), np.asarray(value), rtol=1e-11, atol=1e-11)
            state = expected["state"] if name != "backwards" else None


@pytest.mark.parametrize("name", NOT_CIRCULAR)
def test_what_is_no_circular_convolution_says_why(name: str) -> None:
    body, kind, reason = NOT_CIRCULAR[name]
    system = system_of(body)
    (recurrence,) = classify_all(system)
    assert recurrence.kind == kind and reason in recurrence.evidence and "Fourier" not in recurrence.evidence
    with pytest.raises(NoMatch):
        with_spectrum(system, recurrences(system)[0], build.ZERO)


def test_a_kernel_of_one_place_is_entrywise() -> None:
    (recurrence,) = classify_all(system_of("y[t,i,j] = sum[a] A * y[t-1] + u"))
    assert recurrence.kind == "diagonal"


def test_gradients_and_float32() -> None:
    mixer = seqdsl.load(HEADER + "    " + CIRCULAR["weights that change with time"] + "\n")
    given = [torch.tensor(v)[None] for v in drawn(40).values()]
    results = []
    for form, dtype in (("recurrent", torch.float64), ("scan", torch.float64), ("scan", torch.float32)):
        inputs = [v.to(dtype).requires_grad_() for v in given]
        y = mixer.module(form=form).to(dtype)(*inputs)
        results.append([y.detach(), *torch.autograd.grad(y.square().sum(), inputs[:2])])
    for one, other, single in zip(*results, strict=True):
        scale = one.square().mean().sqrt()
        assert (one - other).abs().max() < 1e-11 * scale
        assert (one - single).square().mean().sqrt() < 2e-6 * scale

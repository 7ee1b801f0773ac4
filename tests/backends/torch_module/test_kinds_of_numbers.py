"""Whole numbers, conditions and places where a formula is not defined, against the interpreter: what is counted stays exact,
and what is finite by the equations is finite in modules and their gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import seqdsl
from seqdsl.diagnostics import SeqError
from seqdsl.semantics import load_system
from tests.forms.gradients import worst_gap

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((2, 9, 2))
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "the least of none": (
        "mixer f(x[n], k[n]: int) -> o[n]:\n    index m over n\n    o[n] = min[m | m < n](k[m]) + x\n",
        {"x": X[:4, 0], "k": np.array([3, 1, 2, 5])},
    ),
    "the largest of none": (
        "mixer f(x[n], k[n]: int) -> o[n]:\n    index m over n\n    o[n] = max[m | m < n](k[m]) + x\n",
        {"x": X[:4, 0], "k": np.array([3, 1, 2, 5])},
    ),
    "above 2^24": (
        """mixer f(x[t], k[t]: int) -> o[t]:
    index s over t
    r[t] = max[s | s <= t](k[s]) + floor(k) - k
    o[t] = where(r == k, x, 0)
""",
        {"x": np.ones(4), "k": np.array([16777217, 16777216, 16777219, 1])},
    ),
    "conditions as numbers": (
        "mixer f(x[t,n], b[t,n]: bool) -> o[t,n]:\n    o = abs(b) * x + floor(b) + ceil(b)\n".replace("o =", "o[t,n] ="),
        {"x": X, "b": X > 0},
    ),
    "powers of whole numbers, real unless the exponent is a natural number": (
        "mixer f(k[t]: int, b[t]: bool, x[t]) -> o[t]:\n"
        "    p[t] = k ^ k\n    q[t] = k ^ 3\n    o[t] = k ^ -2 * x + b ^ -1 + p * q\n",
        {"k": np.array([1, 2, -2, 3]), "b": np.array([True] * 4), "x": X[:4, 0]},
    ),
    "a power inside a monoid": (
        "monoid M(a):\n    combine(x, y):\n        a = x.a + y.a^-1\n"
        "mixer f(k[t]: int, x[t]) -> o[t]:\n    index s over t\n    n = M[s](k[s])\n    o[t] = n * x\n",
        {"k": np.array([2, 2, 3]), "x": X[:3, 0]},
    ),
    "a complex number to a condition": (
        "mixer f(z[t]: complex, b[t]: bool, k[t]: int) -> o[t]:\n    o[t] = abs(z^b) + re(z^k)\n",
        {"z": X[:, 0] + 1j * Y[:, 0], "b": X[:, 1] > 0, "k": RNG.integers(0, 3, len(X))},
    ),
    "quotients": ("mixer f(x[t,n], y[t,n]) -> o[t,n]:\n    o[t,n] = x // 0.7 + y * (x % 0.6) + x % y\n", {"x": X, "y": Y}),
    "powers of 0": (
        "mixer f(x[t,n], k[t,n]: int, y[t,n]) -> o[t,n]:\n    o[t,n] = relu(x)^k + relu(x)^(1 + relu(y))\n",
        {"x": X, "k": RNG.integers(0, 3, X.shape), "y": Y},
    ),
    "an axis of length 0 and resets": (
        """mixer f(q[t,d], k[t,d], v[t,e], g[t]) -> o[t,e]:
    S[t,d,e] = exp(g) * S[t-1] + k * v
    o[t,e]   = sum[d] q * S
""",
        {"q": X[:, :0], "k": X[:, :0], "v": X, "g": np.full(9, -np.inf)},
    ),
    "two states with an axis of length 0": (
        """mixer f(q[t,d], k[t,d], v[t,e], g[t]) -> o[t,e]:
    S[t,d,e] = exp(g) * S[t-1] + k * v
    M[t,d,e] = 0.9 * M[t-1] + S
    o[t,e]   = sum[d] q * M
""",
        {"q": X[:, :0], "k": X[:, :0], "v": X, "g": np.full(9, -np.inf)},
    ),
}


def forms_of(text: str) -> list[str]:
    found = []
    for form in ("recurrent", "scan", "chunkwise", "quadratic"):
        try:
            seqdsl.load(text).source(form)
            found.append(form)
        except SeqError:
            continue
    return found


@pytest.mark.parametrize("name", CASES)
def test_modules_give_what_the_equations_say(name: str) -> None:
    text, inputs = CASES[name]
    program = seqdsl.load(text)
    (wanted,) = program.interpret(inputs=inputs)["outputs"].values()
    for form in forms_of(text):
        for dtype in (torch.float64, torch.float32):
            given = [torch.tensor(np.asarray(x))[None] for x in inputs.values()]
            kinds = {torch.float64: dtype, torch.complex128: dtype.to_complex()}
            given = [x.to(kinds[x.dtype]).requires_grad_() if x.dtype in kinds else x for x in given]
            found = program.module(form).to(dtype)(*given)
            tolerance = 1e-12 if dtype == torch.float64 else 1e-5
            np.testing.assert_allclose(found[0].detach().numpy(), wanted, tolerance, tolerance, err_msg=form)
            grads = torch.autograd.grad(found.sum(), [x for x in given if x.requires_grad], allow_unused=True)
            assert all(g is None or torch.isfinite(g).all() for g in grads)


@pytest.mark.parametrize("name", ["quotients", "powers of 0", "conditions as numbers"])
def test_gradients_by_autograd_and_by_the_equations(name: str) -> None:
    gap, where = worst_gap(load_system(CASES[name][0]), stream=7)
    assert 0 <= gap < 1e-10, where


@pytest.mark.parametrize("text", [
    "h[t,n] = tanh(h[t-1] * x)^k * 0.5 + x", "h[t,n] = relu(h[t-1] * x)^(1 + relu(y)) + x * 0.1", "h[t,n] = (0.5 * h[t-1] + x) % 1",
])  # fmt: skip
def test_a_loop_and_its_steps_have_one_derivative(text: str) -> None:
    module = seqdsl.load(f"mixer f(x[t,n], y[t,n], k[t,n]: int) -> h[t,n]:\n    {text} + 0 * y + 0 * k\n").module("recurrent")
    x, y = (torch.tensor(v)[None].requires_grad_() for v in (X, Y))
    k = torch.tensor(RNG.integers(0, 3, X.shape))[None]
    loss = module.double()(x, y, k).square().sum()
    once, again = (
        torch.autograd.grad(loss, (x, y), create_graph=twice, retain_graph=True, materialize_grads=True) for twice in (False, True)
    )
    for a, b in zip(once, again, strict=True):
        assert torch.isfinite(a).all()
        torch.testing.assert_close(a, b.detach(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("update", ["-h[t-1] + k", "h[t-1] - h[t-2] + k"])
def test_what_counts_is_not_transformed(update: str) -> None:
    text = f"mixer f(x[t,n], k[t,n]: int) -> o[t,n]:\n    h[t,n] = {update}\n    o[t,n] = where(h % 2 == 0, x, 0)\n"
    with pytest.raises(SeqError, match="`f` has no convolution form"):
        seqdsl.load(text).source("convolution")


def test_jacobians_forwards() -> None:
    module = seqdsl.load("mixer f(x[t,n], y[n]) -> o[t,n]:\n    o[t,n] = exp(-x) * y + sigmoid(x * y)\n").module().double()
    x, y = torch.tensor(X)[None], torch.tensor(Y[:1])
    forwards, back = (jacobian(module, argnums=(0, 1))(x, y) for jacobian in (torch.func.jacfwd, torch.func.jacrev))
    for a, b in zip(forwards, back, strict=True):
        torch.testing.assert_close(a, b)


def test_claims_about_scalars_are_tried() -> None:
    found = seqdsl.load("mixer f(x[t,n], z) -> o[t,n]:\n    o[t,n] = z * rank[n](x)\n    claim permutation(n)\n").check()
    assert [type(v).__name__ for _, v in found.claims] == ["Refuted"]


def test_a_power_is_whole_only_where_its_exponent_is_a_natural_number() -> None:
    text, inputs = CASES["powers of whole numbers, real unless the exponent is a natural number"]
    assert [load_system(text).tensors[n].dtype for n in "opq"] == ["real", "real", "int"]
    found = np.asarray(seqdsl.load(text).interpret(inputs)["outputs"]["o"])
    assert np.allclose(found, inputs["x"] / [1, 4, 4, 9] + 1 + np.array([1, 4, 0.25, 27]) * [1, 8, -8, 27])

"""What the papers of `memory/` state and the language cannot: limits, spectra, and gradients by torch."""

from __future__ import annotations

import numpy as np
import torch

from .memory import atlas, comba, gated_delta_rule, kda, mesa, omega_net, rwkv7, titans, ttt_mlp
from .numerics import gelu


def test_newton_schulz_makes_singular_values_near_one() -> None:
    rng = np.random.default_rng(0)
    for rows, columns in ((3, 5), (4, 4), (5, 9)):
        values = np.linalg.svd(atlas.newton_schulz(rng.standard_normal((rows, columns))), compute_uv=False)
        assert 0.6 < values.min() and values.max() < 1.2


def test_features_of_exp_grow_into_the_exponential() -> None:
    """1, x and half of its square, with weights 1, 1, 1/sqrt(2): the start of exp(q . k)."""
    rng = np.random.default_rng(0)
    q, k = 0.1 * rng.standard_normal((2, 20, 4))
    w = np.array([1, 1, np.sqrt(0.5)])
    product = (omega_net.features(q, w) * omega_net.features(k, w)).sum(axis=-1)
    np.testing.assert_allclose(product, np.exp((q * k).sum(axis=-1)), atol=1e-3)


def test_titans_gradients_are_those_of_torch() -> None:
    inputs, params, _ = titans.titans_mlp_example(np.random.default_rng(0), 1)
    A, B = (torch.tensor(params[name][0], requires_grad=True) for name in ("A0", "B0"))
    k, v = (torch.tensor(inputs[name][0, 0]) for name in "kv")
    loss = ((torch.nn.functional.gelu(k @ A) @ B - v) ** 2).sum()
    gA, gB = torch.autograd.grad(loss, (A, B))
    theta, alpha = inputs["theta"][0, 0], inputs["alpha"][0, 0]
    stepped = [(1 - alpha) * p - theta * g for p, g in ((A, gA), (B, gB))]
    q = torch.tensor(inputs["q"][0, 0])
    expected = torch.nn.functional.gelu(q @ stepped[0]) @ stepped[1]
    np.testing.assert_allclose(titans.titans_mlp(inputs, params, {})["o"][0, 0], expected.detach().numpy(), atol=1e-12)


def test_ttt_gradients_are_those_of_torch() -> None:
    rng = np.random.default_rng(0)
    y, V, c, r, gamma, beta = (rng.standard_normal(s) for s in (5, (5, 4), 4, 4, 4, 4))
    x = torch.tensor(y, requires_grad=True)
    z = torch.nn.functional.layer_norm(torch.nn.functional.gelu(x) @ torch.tensor(V) + torch.tensor(c), (4,), eps=1e-6)
    loss = ((torch.tensor(gamma) * z + torch.tensor(beta) - torch.tensor(r)) ** 2).sum() / 2
    expected = torch.autograd.grad(loss, x)[0].numpy()
    out = ttt_mlp.miss_gradient(gelu(y) @ V + c, r, gamma, beta)
    np.testing.assert_allclose(ttt_mlp.gelu_slope(y) * (V @ out), expected, atol=1e-10)


def test_delta_rules_are_special_cases_of_one_another() -> None:
    inputs, _, _ = gated_delta_rule.gated_delta_rule_example(np.random.default_rng(0), 7)
    q, k, v, beta, a = (inputs[name] for name in ("q", "k", "v", "beta", "a"))
    expected = gated_delta_rule.gated_delta_rule(inputs, {}, {})["o"]
    wide = np.repeat(a[:, :, None], k.shape[2], axis=2)
    erased = {"p": np.exp(wide) * k, "correct": np.zeros(k.shape[1])}
    general = {"q": q, "k": beta[:, :, None] * k, "v": v, "p": erased["p"], "b": -beta[:, :, None] * k, "w": wide}
    np.testing.assert_allclose(kda.kda(inputs | {"a": wide}, {}, {})["o"], expected, atol=1e-12)
    np.testing.assert_allclose(comba.comba(inputs | erased, {}, {})["o"], expected, atol=1e-12)
    np.testing.assert_allclose(rwkv7.dplr(general, {}, {})["o"], expected, atol=1e-12)


def test_rwkv7_steps_shrink_though_their_norms_may_not() -> None:
    """The transition is similar to a symmetric matrix with eigenvalues of at most 1; its norm can be above 1."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        w, a, kk = np.exp(-rng.uniform(0, 0.6, 6)), rng.uniform(0, 1, 6), rng.standard_normal(6)
        kk /= np.linalg.norm(kk)
        assert np.abs(np.linalg.eigvals(np.diag(w) - np.outer(kk, a * kk))).max() <= 1 + 1e-12


def test_mesa_with_little_ridge_answers_what_it_was_told() -> None:
    inputs, _, _ = mesa.mesa_example(np.random.default_rng(0), 5)
    told = inputs | {"q": inputs["k"], "ridge": np.full_like(inputs["ridge"], 1e-12), "a": np.zeros_like(inputs["a"])}
    np.testing.assert_allclose(mesa.mesa(told, {}, {})["o"], inputs["v"], atol=1e-5)

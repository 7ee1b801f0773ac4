"""What the papers of `scan/` state and the language cannot: approximations, spectra, and what other groups do not see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import seqdsl

from .scan import lion, lmu, log_linear, lssl, vision_retention

LIBRARY = Path(__file__).resolve().parent.parent.parent / "library" / "scan"


def test_the_legendre_memory_holds_the_last_theta_inputs() -> None:
    N, theta, T = 12, 60, 200
    u = np.sin(np.arange(T) / 20) + 0.3 * np.cos(np.arange(T) / 12)
    x = lmu.lmu({"u": u}, {}, {"N": N, "theta": theta})["x"]
    for lag in (0, 15, 30, 45, 60):
        basis = np.polynomial.legendre.legvander([2 * lag / theta - 1], N - 1)[0]
        assert abs(x[-1] @ basis - u[-1 - lag]) < 0.05


def test_the_legendre_memory_is_that_of_a_matrix_exponential() -> None:
    N, theta = 6, 20
    a, b = lmu.held(N, theta)
    assert np.abs(np.linalg.eigvals(a)).max() < 1
    A = np.array([[(2 * i + 1) / theta * (-1 if i < j else (-1) ** (i - j + 1)) for j in range(N)] for i in range(N)])
    np.testing.assert_allclose(a, torch.matrix_exp(torch.from_numpy(A)).numpy(), atol=1e-12)
    B = np.array([(2 * i + 1) * (-1) ** i / theta for i in range(N)])
    np.testing.assert_allclose(A @ b, (a - np.eye(N)) @ B, atol=1e-12)


def test_hippo_is_normal_but_for_a_rank_of_one() -> None:
    """Where S4 and S5 begin: real parts -1/2, imaginary parts within a third of the formula in their files."""
    N = 32
    A, _ = lssl.hippo(N)
    P = np.sqrt(np.arange(N) + 0.5)
    values = np.linalg.eigvals(A + np.outer(P, P))
    np.testing.assert_allclose(values.real, -0.5, atol=1e-9)
    largest = -np.sort(-values.imag[values.imag > 0])
    np.testing.assert_allclose(largest, N / np.pi * (N / (2 * np.arange(N // 2) + 1) - 1), rtol=0.33)
    np.testing.assert_allclose(np.sort(np.linalg.eigvals(A).real), -np.arange(N, 0, -1.0), atol=1e-3)


@pytest.mark.parametrize("mixer", ["LionRetention", "LionMamba", "LionRWKV", "LionMLSTM", "LionTTT"])
def test_groups_do_not_leak(mixer: str) -> None:
    inputs, params, sizes = getattr(lion, f"{mixer}_example")(np.random.default_rng(0), 15)
    program = seqdsl.load(LIBRARY / "lion.seq", mixer)
    before = program.interpret(inputs=inputs, params=params, sizes=sizes)["outputs"]["y"]
    second = np.argsort(inputs["key"])[5:10]
    changed = inputs["x"].copy()
    changed[second] += 1
    after = program.interpret(inputs=inputs | {"x": changed}, params=params, sizes=sizes)["outputs"]["y"]
    others = np.setdiff1d(np.arange(15), second)
    np.testing.assert_array_equal(after[others], before[others])
    assert np.abs(after[second] - before[second]).min() > 0


def test_fenwick_levels_cut_the_past_into_logarithmically_many_pieces() -> None:
    for t in range(70):
        pieces = log_linear.segments(t)
        assert sorted(s for _, tokens in pieces for s in tokens) == list(range(t + 1))
        assert len(pieces) <= t.bit_length() + 1
        assert all(level == (t ^ s).bit_length() for level, tokens in pieces for s in tokens)


def test_the_first_token_of_vision_retention_reads_itself() -> None:
    inputs, _, _ = vision_retention.vision_retention_example(np.random.default_rng(0), 5)
    o = vision_retention.vision_retention(inputs, {}, {})["o"]
    own = (inputs["q"][0] * inputs["k"][0]).sum(axis=-1, keepdims=True) / np.sqrt(inputs["q"].shape[2])
    np.testing.assert_allclose(o[0], own * inputs["v"][0])

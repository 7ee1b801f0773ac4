"""Which decays are taken by their logarithm: where that is known, and a table of numbers above 0 by interval reasoning."""

from __future__ import annotations

import pytest

from seqdsl.algebra.affine import diagonal
from seqdsl.ir.dependence import Loop, schedule
from seqdsl.semantics import load_system

KNOWN = ["exp(g)", "sigmoid(g)", "1 - sigmoid(g)", "0.5 * exp(g)", "where(g > 0, 0, 0.5)",
         "1 - 2^(-5 - c)", "0.5 + 1 / (c + 2)", "0.9 + 0 * c"]  # fmt: skip
UNKNOWN = ["g", "(c + 1) / (c + 2)", "1 - 2^(1 - c)", "c / 10", "1 - 2^(-5 - c) * g", "1 / (1 + exp(-g))", "1 - 2^(-W - c)", "-0.5"]


def log_decay(decay: str) -> str:
    """The logarithm of the decay of a state, as text; empty where there is none."""
    text = f"mixer m(x[t,c], g[t,c]; W = 5) -> y[t,c]:\n    a[t,c] = {decay}\n    y[t,c] = a * y[t-1] + x\n"
    system = load_system(text)
    loop = next(step for step in schedule(system) if isinstance(step, Loop))
    (found,) = diagonal(system, loop)
    return "" if found.log_decay is None else repr(found.log_decay)


@pytest.mark.parametrize("decay", KNOWN)
def test_known(decay: str) -> None:
    assert log_decay(decay)


@pytest.mark.parametrize("decay", UNKNOWN)
def test_unknown(decay: str) -> None:
    """Numbers that may be 0 or negative; and a gate that underflows, whose logarithm has an infinite slope."""
    assert not log_decay(decay)


def test_what_is_nearly_1_keeps_its_digits() -> None:
    assert log_decay("1 - 2^(-5 - c)").startswith("log1p(")

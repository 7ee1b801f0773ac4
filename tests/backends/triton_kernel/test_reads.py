"""Kernels that were written for the scores of one equation: numerics under Triton's interpreter, and what compilers say."""

from __future__ import annotations

import pytest

from tests.backends.triton_kernel.reads import HALVES, READS, interpreted

TOLERANCE = {"float32": 2e-6, "float16": 1e-3}
NAMES = [f"{name}, {dtype}" for name in READS for dtype in (TOLERANCE if name in HALVES else ("float32",))]


@pytest.fixture(scope="module")
def errors() -> dict[str, list[float]]:
    return interpreted()


@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients(name: str, errors: dict[str, list[float]]) -> None:
    assert errors[name]
    assert all(e < TOLERANCE[name.rpartition(", ")[2]] for e in errors[name]), errors[name]  # NaN is not less

"""Values and gradients of every kernel under Triton's interpreter, against float64."""

from __future__ import annotations

import pytest

from tests.backends.triton_kernel.interpreted import INTERPRETED, PRECISIONS, interpreted

# float32's rounding, not the contract of 2e-6: what loses two digits on these few rows breaks it on thousands.
TOLERANCE = {"float32": 1e-6, "float16": 1e-3}
NAMES = [f"{name}, {dtype}" for name in INTERPRETED for dtype in PRECISIONS.get(name, ("float32",))]


@pytest.fixture(scope="module")
def errors() -> dict[str, list[float]]:
    return interpreted()


@pytest.mark.parametrize("name", NAMES)
def test_values_and_gradients(name: str, errors: dict[str, list[float]]) -> None:
    assert errors[name]
    assert all(e < TOLERANCE[name.rpartition(", ")[2]] for e in errors[name]), errors[name]  # NaN is not less

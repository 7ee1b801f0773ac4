"""Values and gradients of every kernel under Triton's interpreter, against float64."""

from __future__ import annotations

import pytest

from tests.backends.triton_kernel.interpreted import deep, interpreted, labels
from tests.backends.triton_kernel.processes import each

# float32's rounding, not the contract of 2e-6: what loses two digits on these few rows breaks it on thousands.
TOLERANCE = {"float32": 1e-6, "float16": 1e-3}


@pytest.fixture(scope="module")
def errors(pytestconfig: pytest.Config) -> dict[str, list[float]]:
    return interpreted(pytestconfig.getoption("--deep"))


@pytest.mark.parametrize("name", each(labels(), set(filter(deep, labels()))))
def test_values_and_gradients(name: str, errors: dict[str, list[float]]) -> None:
    assert errors[name]
    assert all(e < TOLERANCE[name.rpartition(", ")[2]] for e in errors[name]), errors[name]  # NaN is not less

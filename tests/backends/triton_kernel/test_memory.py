"""Kernels reach every entry of tensors that are larger than 32 bits count, and nothing that they were not given."""

from __future__ import annotations

from typing import Any

import pytest

from tests.backends.triton_kernel.memory import FAR, interpreted

pytestmark = pytest.mark.deep  # tensors of tens of gigabytes, of which few pages are used: not every machine promises them


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return interpreted()


@pytest.mark.parametrize("name", FAR)
def test_entries_beyond_two_to_the_31st(name: str, found: dict[str, Any]) -> None:
    assert found[name] and all(e < 1e-6 for e in found[name]), found[name]  # NaN is not less


def test_rows_that_are_too_far_apart_for_32_bits(found: dict[str, Any]) -> None:
    assert found["rows apart"][0] < 1e-6


def test_what_reaches_outside_its_tensors_is_stopped(found: dict[str, Any]) -> None:
    """In every process of these tests that interprets."""
    assert found["outside"] == {"inside": False, "before": True, "behind": True, "far behind": True, "masked": False}

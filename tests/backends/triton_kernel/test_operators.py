"""Operators are what compilers expect, and modules of every class are one graph to them; nothing waits for the device."""

from __future__ import annotations

from typing import Any

import pytest

from tests.backends.triton_kernel.operators import DEEP, MODULES, OPERATORS, interpreted
from tests.backends.triton_kernel.processes import each


@pytest.fixture(scope="module")
def found(pytestconfig: pytest.Config) -> dict[str, Any]:
    return interpreted(pytestconfig.getoption("--deep"))


@pytest.mark.parametrize("name", each(OPERATORS, DEEP))
def test_operators_are_what_compilers_expect(name: str, found: dict[str, Any]) -> None:
    assert found[name] and not any(found[name])


@pytest.mark.parametrize("name", [*each(MODULES, DEEP), "a step"])
def test_modules_are_traced_as_one_graph_and_exported_for_any_length(name: str, found: dict[str, Any]) -> None:
    assert found[name] and all(e < 1e-6 for e in found[name]), found[name]


@pytest.mark.parametrize("name", MODULES)
def test_the_host_waits_for_nothing(name: str, found: dict[str, Any]) -> None:
    """Pieces of a nonlinear step are an exception where they are solved for (`fused_newton`): a step that is walked is none."""
    assert found[f"{name}, waits"] == ""

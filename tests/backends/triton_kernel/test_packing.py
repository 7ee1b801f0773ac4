"""Packed sequences in one call: values, states and gradients are those of every sequence alone, in which one call can."""

from __future__ import annotations

import pytest

import seqdsl
from seqdsl.api import load_backend
from tests.backends.triton_kernel.packing import CASES, DEEP, MUTANTS, SHORT, WIDE, interpreted
from tests.backends.triton_kernel.processes import each
from tests.backends.triton_kernel.recurrences import UNNAMED


@pytest.fixture(scope="module")
def errors(pytestconfig: pytest.Config) -> dict[str, list[float]]:
    return interpreted(pytestconfig.getoption("--deep"))


ENDS = [f"{name}, {length} position" for name in SHORT for length in ("one", "no")]


@pytest.mark.parametrize("name", each([*CASES, *ENDS, "reads before and after, no position"], DEEP))
def test_each_sequence_is_computed_as_if_it_stood_alone(name: str, errors: dict[str, list[float]]) -> None:
    assert errors[name]
    assert all(e < 2e-6 for e in errors[name]), errors[name]  # NaN is not less


@pytest.mark.parametrize("name", each([f"{name}, float16" for name in SHORT], DEEP))
def test_inputs_of_16_bits(name: str, errors: dict[str, list[float]]) -> None:
    assert errors[name] and all(e < 2e-3 for e in errors[name]), errors[name]


@pytest.mark.parametrize("name", WIDE)
def test_inputs_of_64_bits(name: str, errors: dict[str, list[float]]) -> None:
    assert errors[f"{name}, float64"] and all(e < 1e-7 for e in errors[f"{name}, float64"]), errors[f"{name}, float64"]


@pytest.mark.parametrize("name", each([f"{name}, twice" for name in SHORT], DEEP))
def test_every_run_gives_the_same_bits(name: str, errors: dict[str, list[float]]) -> None:
    assert not any(errors[name])


@pytest.mark.parametrize("name", MUTANTS)
def test_what_is_done_wrong_is_seen(name: str, errors: dict[str, list[float]]) -> None:
    assert not all(e < 1e-3 for e in errors[name]), errors[name]


STATES = "packed sequences go through one call, with their states"
APART = "packed sequences go through one call, and one after another where a state comes or goes"
SAID = {
    "hgrn": STATES,
    "short_conv": "packed sequences go one after another: `y` reads `x` at other positions",  # as many as an input has
    "rwkv4": STATES,
    "gla": STATES,
    "gated_delta_rule": STATES,
    "quaternion": f"{APART}: the state counts positions",
    "softmax": STATES,
    "set_pool": "packed sequences go one after another: `p` goes along all of `m`",
    "gru": "packed sequences go one after another: `h` is stepped in PyTorch",
}


@pytest.mark.parametrize("name", SAID)
def test_it_is_said_how_packed_sequences_go(name: str) -> None:
    file = UNNAMED / f"{name}.seq"
    system = seqdsl.load(str(file) if file.exists() else name).derived("newton" if name == "gru" else "auto").system
    assert SAID[name] in load_backend("triton").explained(system, "auto")

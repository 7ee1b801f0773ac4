"""Kernels that were written for the step of a recurrence: numerics under Triton's interpreter, and what compilers say.

`recurrences.txt` is what this machine's Triton said of all targets when the kernels last changed: rewritten by
`python -m tests.backends.triton_kernel.recurrences --table`. Here sm_90 is compiled again; `--deep` compiles all targets.
"""

from __future__ import annotations

import ast
from typing import Any

import pytest

import seqdsl
from seqdsl.api import load_backend
from tests.backends.triton_kernel.ahead import TARGETS, check_fit, check_table, rows
from tests.backends.triton_kernel.recurrences import (
    MODULES,
    MUTANTS,
    PRECISIONS,
    TABLE,
    WALKS,
    Walk,
    compiled_report,
    interpreted,
)

TOLERANCE = {"float32": 1e-6, "float16": 2e-3, "bfloat16": 1e-2}
NAMES = [f"{name}, {dtype}" for name in WALKS for dtype in PRECISIONS.get(name, ("float32",))]


@pytest.fixture(scope="module")
def errors() -> dict[str, list[float]]:
    return interpreted()


@pytest.mark.parametrize("name", NAMES)
def test_values_states_and_gradients(name: str, errors: dict[str, list[float]]) -> None:
    assert errors[name]
    assert all(e < TOLERANCE[name.rpartition(", ")[2]] for e in errors[name]), errors[name]  # NaN is not less


@pytest.mark.parametrize("name", WALKS)
def test_values_are_those_of_the_equations(name: str, errors: dict[str, list[float]]) -> None:
    assert errors[f"{name}, literally"][0] < 2e-6


@pytest.mark.parametrize("name", MODULES)
def test_pieces_with_states_and_packed_sequences(name: str, errors: dict[str, list[float]]) -> None:
    assert all(e < TOLERANCE["float32"] for e in errors[f"{name}, in pieces"]), errors


@pytest.mark.parametrize("name", MODULES)
def test_operators_are_what_compilers_expect(name: str, errors: dict[str, list[float]]) -> None:
    found = errors[f"{name}, its operator"]
    assert found and not any(found)


@pytest.mark.parametrize("name", MUTANTS)
def test_what_is_done_wrong_is_seen(name: str, errors: dict[str, list[float]]) -> None:
    assert not all(e < 1e-3 for e in errors[name]), errors[name]


def test_pieces_are_solved_where_a_step_forgets(errors: dict[str, list[float]]) -> None:
    sweeps, pieces, stepped, gap = errors["forgets"]
    assert sweeps <= 3 and pieces == 4 and not stepped and gap < 1e-6


def test_steps_that_do_not_forget_are_taken_one_after_another(errors: dict[str, list[float]]) -> None:
    sweeps, pieces, stepped, gap = errors["does not forget"]
    assert sweeps >= 3 and pieces == 0 and stepped == 100 and gap == 0


@pytest.fixture(scope="module")
def made() -> dict[str, dict[str, Any]]:
    return compiled_report(("sm_90",))


def test_the_kernels_fit_a_hopper_gpu(made: dict[str, dict[str, Any]]) -> None:
    check_fit(made)


def test_the_table_has_every_kernel_on_every_target(made: dict[str, dict[str, Any]]) -> None:
    check_table(TABLE, made)


@pytest.mark.deep
def test_the_table_is_what_the_compiler_says() -> None:
    assert compiled_report(tuple(TARGETS)) == rows(TABLE.read_text(encoding="utf-8"))


def explained(walk: Walk) -> list[str]:
    return list(load_backend("triton").explained(walk.program().derived("auto").system, "auto"))


@pytest.mark.parametrize("name", ["max, plus", "or, and", "log-sum-exp", "a fold of two fields", "the best and where it was",
                                  "a gate of itself"])
def test_it_is_said_what_has_kernels(name: str) -> None:
    state = WALKS[name].program().system().outputs[0]
    assert explained(WALKS[name])[0] == f"kernels written for the step of `{state}`"


def test_an_operator_that_is_not_associative_keeps_its_tree() -> None:
    assert explained(Walk("saturating", {}))[0] == "`y` is stepped in PyTorch: its `combine` is not shown to be associative"


def test_a_state_whose_entries_are_mixed_stays_in_pytorch() -> None:
    system = seqdsl.load("gru").derived("newton").system
    assert load_backend("triton").explained(system, "newton")[0] == "`h` is stepped in PyTorch: its entries depend on one another"


def test_an_element_whose_entries_are_mixed_stays_in_pytorch() -> None:
    source = ("monoid firsts(m[i]):\n    combine(a, b):\n        m[i] = a.m[0] * b.m\n    project -> y[i]:\n        y[i] = m\n\n"
              "mixer products(x[t,i]) -> y[t,i]:\n    index s over t\n    y[t,i] = firsts[s | s <= t](x[s])\n")
    why = "`a.m` elsewhere than at an entry's own place, in its `combine`"
    assert explained(Walk(source, {}))[0] == f"`y` is stepped in PyTorch: {why}"


@pytest.mark.parametrize("name", ["the best so far", "the best and where it was"])
def test_no_tensor_has_the_name_of_a_loop(name: str) -> None:
    """A compiler refuses a loop over what is a pointer before it; fields are named as somebody likes, here `i`."""
    case = WALKS[name]
    text = "\n".join(load_backend("triton").companions(case.program().source(case.form, "triton")).values())
    source = ast.parse(case.program().source(case.form, "triton") + "\n" + text)
    kernels = [f for f in ast.walk(source) if isinstance(f, ast.FunctionDef) and "_kernel" in f.name]
    loops = [(f, [n.target for n in ast.walk(f) if isinstance(n, ast.For)]) for f in kernels]
    assert any(targets for _, targets in loops)
    for kernel, targets in loops:
        assert not {t.id for t in targets if isinstance(t, ast.Name)} & {a.arg for a in kernel.args.args}

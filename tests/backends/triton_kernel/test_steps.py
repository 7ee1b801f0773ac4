"""Kernels that were written for one position of a recurrence: numerics under Triton's interpreter, and what compilers say.

`steps.txt` is what this machine's Triton said of all targets when the kernels last changed: rewritten by
`python -m tests.backends.triton_kernel.steps --table`. Here sm_90 is compiled again; `--deep` compiles all targets.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import seqdsl
from backends.triton_kernel.emit.write import FUNCTIONS
from seqdsl.api import load_backend
from seqdsl.forms.one_position import one_position
from seqdsl.ir.interpreter import interpret
from seqdsl.ir.validate import checked
from tests.backends.triton_kernel.ahead import TARGETS, check_fit, check_table, rows
from tests.backends.triton_kernel.processes import ROOT
from tests.backends.triton_kernel.steps import HALVES, MUTANTS, STEPS, TABLE, UNNAMED, compiled_report, interpreted

TOLERANCE = {"float32": 2e-6, "float16": 2e-3}
NAMES = [f"{name}, {dtype}" for name in STEPS for dtype in (TOLERANCE if name in HALVES else ("float32",))]


@pytest.fixture(scope="module")
def errors() -> dict[str, list[float]]:
    return interpreted()


@pytest.mark.parametrize("name", NAMES)
def test_outputs_and_states(name: str, errors: dict[str, list[float]]) -> None:
    assert errors[name]
    assert all(e < TOLERANCE[name.rpartition(", ")[2]] for e in errors[name]), errors[name]  # NaN is not less


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_kernel_is_found(name: str, errors: dict[str, list[float]]) -> None:
    assert not all(e < TOLERANCE["float32"] for e in errors[name]), errors[name]


def test_steps_that_are_asked_for_a_gradient_are_those_of_pytorch(errors: dict[str, list[float]]) -> None:
    calls, *gradients = errors["a gradient"]
    assert calls == 0 and gradients and all(e < 1e-5 for e in gradients)


def test_the_operator_is_what_compilers_expect(errors: dict[str, list[float]]) -> None:
    assert errors["its operator"] and not any(errors["its operator"])
    assert errors["traced"] == [0.0]  # without a break in the graph


@pytest.mark.parametrize("name", ["coupled_erase", "learned_start", "best_path", "echo", "ring_filter", "delayed_feed"])
def test_one_position_at_a_time_is_the_whole(name: str) -> None:
    """The rewriting alone, in the interpreter."""
    system = seqdsl.load(UNNAMED / f"{name}.seq").derived("recurrent").system
    one = one_position(system)
    assert one is not None
    checked(one, "one_position")
    draw, lengths = np.random.default_rng(0), {"t": 4}
    given = {
        x.name: draw.normal(size=[lengths.setdefault(system.axis(i), 2 + len(lengths)) for i in x.indices])
        for x in system.inputs()
    }
    sizes = {n: k for n, k in lengths.items() if n != "t"} | {"h": lengths.get("h", 2)}
    whole = interpret(system, inputs=given, sizes=sizes)
    state: Any = interpret(system, inputs=_at(system, given, slice(0, 0)), sizes=sizes)["state"]
    found = []
    for t in range(4):
        part = interpret(one, inputs=_at(system, given, slice(t, t + 1)), sizes=sizes, state=state)
        state = part["state"]
        found.append(part["outputs"])
    for name_, value in whole["outputs"].items():
        np.testing.assert_allclose(np.concatenate([f[name_] for f in found]), value, rtol=1e-12, atol=1e-12)


def _at(system: Any, given: dict[str, Any], part: slice) -> dict[str, Any]:
    """Some positions of what has the stream's axis first."""
    streamed = {x.name for x in system.inputs() if x.indices and system.axis(x.indices[0]) == system.stream}
    return {n: x[part] if n in streamed else x for n, x in given.items()}


@pytest.fixture(scope="module")
def made() -> dict[str, dict[str, Any]]:
    return compiled_report(("sm_90",))


def test_the_default_tiles_fit_a_hopper_gpu(made: dict[str, dict[str, Any]]) -> None:
    check_fit(made)


def test_the_table_has_every_kernel_on_every_target(made: dict[str, dict[str, Any]]) -> None:
    check_table(TABLE, made)


@pytest.mark.deep
def test_the_table_is_what_the_compiler_says() -> None:
    assert compiled_report(tuple(TARGETS)) == rows(TABLE.read_text(encoding="utf-8"))


def _explained(source: Any, mixer: str | None = None) -> list[str]:
    system = seqdsl.load(source, mixer).derived("recurrent").system
    found: list[str] = load_backend("triton").explained(system, "recurrent")
    return [line for line in found if line.startswith(("a step", "kernels"))]


def test_it_is_said_what_a_step_runs_in_kernels_and_what_not() -> None:
    assert _explained("delta_rule", "delta_rule") == [
        "a step computes `r`, `S`, `o` in one kernel, with all of `d` in a tile, unless a gradient is asked for"
    ]
    assert _explained("gru", "gru_reset_state") == [
        "a step computes `z`, `g`, `h` in one kernel after 4 of its parts in PyTorch, unless a gradient is asked for",
        "a step computes `r` in PyTorch: its `sum` is neither elementwise nor a reduction of a state over its own axes",
    ]
    assert _explained(UNNAMED / "turning_decay.seq")[-1] == (
        "a step computes `S` in PyTorch: no kernel is written for complex numbers"
    )
    assert _explained("delta_rule", "DeltaNet")[1:] == [
        f"a step reads `{name}` from farther back than one position, in PyTorch" for name in ("xq", "xk", "xv")
    ]
    assert _explained("softmax") == []


def test_a_contraction_with_a_parameter_is_none_of_a_kernel() -> None:
    text = seqdsl.load("gru").source(backend="triton")
    kernel = text[text.index("def _gru_h_chain_kernel") : text.index("_gru_h_chain_plan")]
    assert "tl.sum" not in kernel and "tl.sigmoid" in kernel


def test_without_a_state_nothing_is_written() -> None:
    for name in ("softmax", "short_conv", "fnet"):
        assert "in_kernels" not in seqdsl.load(name).source(backend="triton")


def test_on_the_cpu_a_step_is_that_of_pytorch() -> None:
    module = seqdsl.load("gla").module(backend="triton")
    vars(sys.modules[type(module).__module__])["gla_o_chain"] = None
    x = torch.randn(1, 2, 4)
    _, state = module.step(x, x, x, -x * x, module.init_state(h=2, d=4, e=4))
    assert state["S"].shape == (1, 2, 4, 4)


def test_too_large_a_tile_is_left_to_pytorch() -> None:
    module = seqdsl.load(UNNAMED / "value_erase.seq").module(backend="triton")
    text = vars(sys.modules[type(module).__module__])
    text["_has_kernels"] = lambda x: True
    for length, able in ((128, True), (129, False)):
        x = torch.zeros(1, 1, length)
        state = {"S": torch.zeros(1, 1, length, 128)}
        assert text["in_kernels"]((x,), state, ((("S", 2), ("S", 3)),), module) is able
    assert not text["in_kernels"]((x,), {"other": x}, ((("S", 2),),), module)
    assert not text["in_kernels"]((x,), None, ((("S", 2),),), module)


def test_names_of_kernels_and_of_pytorch_functions_differ() -> None:
    """They stand in one file, with each other and with what the torch target writes."""
    files = [f for f in (ROOT / "backends" / "triton_kernel" / "support").glob("*.py") if f.stem != "__init__"]
    each = [_defined([f]) for f in files]
    assert sum(map(len, each)) == len(set().union(*each)), [n for n in set().union(*each) if sum(n in x for x in each) > 1]
    made = ("function_kernels", "launching", "tuning", "softmax_kernels", "fused_recurrence", *FUNCTIONS)
    own = _defined([f for f in files if f.stem in made])
    torch_module = ROOT / "backends" / "torch_module"
    assert not own & _defined([*torch_module.glob("runtime*.py"), *(torch_module / "support").glob("*.py")])


def _defined(files: list[Path]) -> set[str]:
    kinds = (ast.FunctionDef, ast.ClassDef)
    return {n.name for file in files for n in ast.parse(file.read_text(encoding="utf-8")).body if isinstance(n, kinds)}

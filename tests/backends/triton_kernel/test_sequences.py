"""Kernels that were written for groups of equations over whole sequences: numerics under Triton's interpreter, which groups
there are, and what compilers say.

`sequences.txt` is what this machine's Triton said of all targets when the kernels last changed: rewritten by
`python -m tests.backends.triton_kernel.sequences --table`. Here sm_90 is compiled again; `--deep` compiles all targets.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch

import seqdsl
from backends.triton_kernel.emit.sequences import over_sequences
from seqdsl.api import load_backend
from seqdsl.ir.interpreter import interpret
from seqdsl.ir.validate import checked
from tests.backends.triton_kernel.ahead import TARGETS, check_fit, check_table, rows
from tests.backends.triton_kernel.sequence_cases import HALVES, LAYERS, LENGTHS, MUTANTS, WHOLE
from tests.backends.triton_kernel.sequences import TABLE, built, compiled_report, inputs, interpreted
from tests.backends.triton_kernel.steps import _source

TOLERANCE = {"float32": 2e-6, "float16": 2e-3, "bfloat16": 5e-3}
NAMES = [f"{name}, {dtype}" for name in WHOLE for dtype in (TOLERANCE if name in HALVES else ("float32",))]


@pytest.fixture(scope="module")
def errors() -> dict[str, list[float]]:
    return interpreted()


@pytest.mark.parametrize("name", NAMES)
def test_outputs_and_gradients(name: str, errors: dict[str, list[float]]) -> None:
    assert errors[name]
    assert all(e < TOLERANCE[name.rpartition(", ")[2]] for e in errors[name]), errors[name]  # NaN is not less


@pytest.mark.parametrize("name", [f"{name}, {time}" for name in LENGTHS for time in (0, 1)])
def test_no_position_and_one(name: str, errors: dict[str, list[float]]) -> None:
    assert errors[name] and all(e < TOLERANCE["float32"] for e in errors[name]), errors[name]


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_kernel_is_found(name: str, errors: dict[str, list[float]]) -> None:
    assert not all(e < TOLERANCE["float32"] for e in errors[name]), errors[name]


def test_memory_in_any_order_is_read(errors: dict[str, list[float]]) -> None:
    for name in ("other memory", "a batch of one"):
        assert errors[name] and all(e < TOLERANCE["float32"] for e in errors[name]), errors[name]


@pytest.mark.parametrize("name", ["a window with a gate", "positions far apart", "two windows of what is computed",
                                  "a stack of layers"])
def test_a_sequence_in_pieces_is_the_whole(name: str, errors: dict[str, list[float]]) -> None:
    found = errors[f"{name}, in pieces"]
    assert found and all(e < TOLERANCE["float32"] for e in found), found


def test_only_the_gradients_that_are_asked_for_are_stored(errors: dict[str, list[float]]) -> None:
    others, error = errors["one gradient"]
    assert others == 0 and error < TOLERANCE["float32"]


def test_two_runs_are_the_same_to_the_last_bit(errors: dict[str, list[float]]) -> None:
    assert errors["again"] and not any(errors["again"])


def test_the_operators_are_what_compilers_expect(errors: dict[str, list[float]]) -> None:
    assert errors["its operator"] and not any(errors["its operator"])
    assert errors["traced"] and not any(errors["traced"])  # without a break in the graph; exported for any length


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


def _groups(source: Any, mixer: str | None = None, form: str = "recurrent") -> tuple[list[list[str]], dict[str, str]]:
    found = over_sequences(seqdsl.load(source, mixer).derived(form).system)
    return [g.tensors for g in found.groups], found.kept


@pytest.mark.parametrize("name", WHOLE)
def test_the_rewritten_equations_say_the_same(name: str) -> None:
    """The rewriting alone, in the interpreter; the group's parts, and what projections read, are tensors."""
    case = WHOLE[name]
    if case.time > 100 or case.sizes.get("c", 0) > 1000:
        case = WHOLE["a gate"]
    module, _ = built(case, "torch")
    system = case.program().derived("recurrent").system
    found = over_sequences(system)
    checked(found.system, "over_sequences")
    given = {n: x[0].numpy() for n, x in inputs(case).items()}
    params = {n: x.detach().double().numpy() for n, x in module.state_dict().items()}
    one, two = (interpret(s, inputs=given, params=params, sizes=case.built)["outputs"] for s in (system, found.system))
    for output, value in one.items():
        assert abs(value - two[output]).max() < 1e-12


def test_equations_go_together_by_what_they_read() -> None:
    assert _groups("gla", "GLA", "chunkwise") == ([["g"], ["gate", "y.in"]], {})
    five = WHOLE["five outputs of one input"]
    assert _groups(five.source) == ([["a", "b", "d", "e", "f"]], {})
    lerps = _groups("rwkv4", "RWKV4")[0][0]
    assert lerps == ["k.in", "v.in", "r.in"]


def test_what_saves_nothing_is_left_to_pytorch() -> None:
    source = _source("one(x[t,c], y[t,c]) -> z[t,c]", "z[t,c] = x * y")
    assert _groups(source) == ([], {"z": "a kernel would move 3 tensors of its size, and PyTorch moves 3"})


def test_what_a_loop_computes_is_left_there() -> None:
    """A read of a state that is stepped must not keep all states."""
    source = _source("read(q[t,h,d], k[t,h,d], v[t,h,e]) -> o[t,h,e]", "S[t,h,d,e] = tanh(S[t-1]) + k * v",
                     "o[t,h,e] = sum[d] q * S")  # fmt: skip
    assert _groups(source)[0] == []


def test_no_group_needs_what_is_computed_from_it() -> None:
    """`b` reads what PyTorch computes from `a`, and `c` shares an input with both: two kernels, not one."""
    source = _source("around(x[t,c], y[t,c]) -> b[t,c]", "a[t,c] = tanh(x) * sigmoid(x) + y", "s[t,c] = 0.5 * s[t-1] + a",
                     "b[t,c] = tanh(s) * sigmoid(x) + x * y")  # fmt: skip
    assert _groups(source)[0] == [["a"], ["b"]]


@pytest.mark.parametrize("equation", [
    "y[t,c] = where(x > 0, log(x), x * x + 1) * tanh(x) + x",  # the slope of what is not chosen may be infinite
    "y[t,c] = max[c](x) * sin(x) + x",  # of equal ones, which is it?
    "y[t,c] = x * sin(x) * x[t-1] + sum[t] x",  # over the stream
])  # fmt: skip
def test_parts_without_a_kernel_are_tensors_of_their_own(equation: str) -> None:
    found = over_sequences(seqdsl.load(_source("parts(x[t,c]) -> y[t,c]", equation)).derived("recurrent").system)
    hidden = ("where", "max", "sum")
    assert found.groups and all(t.rhs is not None and not any(n in str(t.rhs) for n in hidden) for t in
               (found.system.tensors[n] for g in found.groups for n in g.tensors))  # fmt: skip


def test_it_is_said_which_equations_are_in_which_kernel() -> None:
    system = seqdsl.load("gla", "GLA").derived("chunkwise").system
    assert load_backend("triton").explained(system, "chunkwise")[1:] == [
        "one kernel for `g` after `g.part` in PyTorch, and one for the gradients: "
        "which moves 2 tensors of that size, and PyTorch 6",
        "one kernel for `gate`, `y.in`, with all of `e` in a tile after `gate.part` in PyTorch, and one for the gradients: "
        "which moves 3 tensors of that size, and PyTorch 10",
        "packed sequences go through one call, with their states",
    ]
    one = seqdsl.load(_source("one(x[t,c], y[t,c]) -> z[t,c]", "z[t,c] = x * y")).derived("recurrent").system
    assert load_backend("triton").explained(one, "recurrent") == [
        "`z` is computed in PyTorch: a kernel would move 3 tensors of its size, and PyTorch moves 3",
        "packed sequences go through one call, with their states",
    ]


def test_groups_inside_loops_over_depth_are_launched_there() -> None:
    program = LAYERS.program()
    text = program.source(backend="triton")
    steps = text[text.index("        for l in range(L):") :]
    assert "u_in_2 = stack_u_sequence(" in steps and "y_in_2 = stack_y_sequence(" in steps
    found = load_backend("triton").explained(program.derived("auto").system, "auto")
    assert sum(line.startswith("one kernel for `z.") for line in found) == 2, found


def test_a_launch_moves_what_is_said_of_it() -> None:
    """Counted from the text of the kernels: three tensors of one size forward, and five back."""
    system = seqdsl.load("gla", "GLA").derived("chunkwise").system
    found = load_backend("triton").count(system, "chunkwise", [(1, 256, 64)], c=64, H=2)
    size = 4 * 256 * 64
    moved = {x.name: x.moved for part in found.launches.values() for x in part}
    assert moved["GLA_y_sequence"] == 3 * size and moved["GLA_y_sequence_adjoint"] == 5 * size


def test_the_cpu_and_float64_and_rows_that_are_too_long_are_pytorchs() -> None:
    module, text = built(WHOLE["a norm with a scale and a shift"])
    x = torch.randn(1, 2, 37)
    vars(text)["scaled_y_sequence"] = None
    assert module(x).shape == (1, 2, 37) and module.double()(x.double()).dtype == torch.float64
    vars(text)["_has_kernels"] = lambda x: True
    assert text.runs_fused((x,), (8192,)) and not text.runs_fused((x,), (8193,)) and not text.runs_fused((x,), (64, 129))
    assert not text.runs_fused((x.double(),), (4,)) and not text.runs_fused((x, x.to("meta")), (4,))
    assert sys.modules[type(module).__module__] is text

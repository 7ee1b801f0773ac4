"""Every form of every mixer equals the equations, continues from a state, and says why where it cannot be had."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from seqdsl.diagnostics import SeqError
from seqdsl.forms import derive
from seqdsl.ir.interpreter import interpret
from seqdsl.semantics import load_file, load_system, lower_mixer, mixers
from seqdsl.verify.suite import run_suite
from tests.forms.available import forms_of

ROOT = Path(__file__).resolve().parent.parent
UNNAMED = sorted((ROOT / "unnamed").glob("*.seq"))
DIAGONAL = """
mixer m(q[t,h,d], k[t,h,d], v[t,h,e], g[t,h,d]) -> o[t,h,e]:
    S[t,h,d,e] = exp(g) * S[t-1] + k * v
    o[t,h,e] = sum[d] q * S
    claim stable(S) when g <= 0
"""


@pytest.mark.parametrize("path", UNNAMED, ids=lambda p: p.stem)
def test_forms_of_recurrences_without_a_name_equal_the_equations(path: Path) -> None:
    file = load_file(path)
    for mixer in mixers(file):
        outcomes = list(run_suite(lower_mixer(file, mixer), None, None, examples=8))
        assert [o for o in outcomes if not o.ok] == []


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ("S[t,h,d,e] = exp(g) * S[t-1] + k * v", {"recurrent", "scan", "chunkwise", "quadratic"}),
        ("S[t,h,d,e] = sigmoid(g) * S[t-1] - 2 * k * v + q * v / 3", {"recurrent", "scan", "chunkwise", "quadratic"}),
        ("S[t,h,d,e] = 0.9 * S[t-1] + k * v", {"recurrent", "scan", "chunkwise", "quadratic", "convolution"}),
        ("S[t,h,d,e] = tanh(S[t-1]) + k * v", {"recurrent", "newton"}),
        ("S[t,h,d,e] = S[t-1] * S[t-1] + k * v", {"recurrent", "newton"}),
        ("S[t,h,d,e] = S[t-1] + k * (v - sum[d] k * S[t-1])", {"recurrent", "scan", "chunkwise", "quadratic"}),
    ],
)
def test_which_forms_follow_from_the_update(step: str, expected: set[str]) -> None:
    assert set(forms_of(load_system(DIAGONAL.replace("S[t,h,d,e] = exp(g) * S[t-1] + k * v", step)))) == expected


@pytest.mark.parametrize(
    ("sizes", "read", "forms"),
    [("t: |i| * |j|", "x[t // |j|, t % |j|]", {"recurrent", "scan", "chunkwise"}),
     ("g: |i| // 4, t: 4", "x[4 * g + t, 0]", {"recurrent"}),
     ("g: |i| // G, t: G", "x[g * G + t, 0]", {"recurrent", "scan", "chunkwise"}),
     ("t: G", "x[t, 0]", {"recurrent"})],
)  # fmt: skip
def test_an_axis_made_of_the_inputs_axes_or_cut_from_one_is_no_depth(sizes: str, read: str, forms: set[str]) -> None:
    step = "S[g,t-1]" if sizes.startswith("g") else "S[t-1]"
    out = "S[g,t]" if sizes.startswith("g") else "S[t]"
    text = f"mixer m(x[i,j]; G = 4) -> {out}:\n    S[{sizes}] = sigmoid({read}) * {step} + {read}\n"
    assert set(forms_of(load_system(text))) == forms


def test_a_kernel_that_grows_with_the_stream_is_written_out_step_by_step() -> None:
    """As `y` steps, each call needs the kernel up to the stream's length, and not to the call's own."""
    kernel = "    K[-1] = 1.0\n    K[l: |t|] = sigmoid(a) * K[l-1]\n    y[t] = sum[l | l <= t] K * u[t-l]\n"
    assert set(forms_of(load_system("mixer m(u[t], a) -> y[t]:\n" + kernel))) == {"recurrent"}


def test_a_refusal_names_the_recurrence_and_the_reason() -> None:
    with pytest.raises(SeqError) as caught:
        derive(load_system("gru"), "scan")
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "form-not-available"
    assert any("h" in note and "tanh" in note or "multiplied" in note or "sum" in note for note in diagnostic.notes)


def test_an_unknown_form_lists_those_there_are() -> None:
    with pytest.raises(SeqError, match="unknown-form") as caught:
        derive(load_system("gla"), "parallel")
    assert "chunkwise" in caught.value.diagnostics[0].help


def test_chunkwise_keeps_no_state_tensor() -> None:
    """The point of the form: S[t,h,d,e] is never formed, only its value after the last position."""
    system = derive(load_system("gla"), "chunkwise").system
    assert "S" not in system.tensors
    assert "t" not in system.tensors["S@final"].indices


@pytest.mark.parametrize("form", ["scan", "chunkwise", "quadratic"])
@pytest.mark.parametrize("length", [0, 1, 63, 257])
def test_mixed_decays(form: str, length: int) -> None:
    rng = np.random.default_rng(length)
    system = load_system("gla", "gla")
    inputs = {n: rng.standard_normal((length, 1, 2)) for n in "qkv"}
    inputs["g"] = rng.choice([0.0, -1e-6, -20.0, -200.0, -np.inf], (length, 1, 2))
    wanted = interpret(system, inputs=inputs)
    found = interpret(derive(system, form).system, inputs=inputs)
    np.testing.assert_allclose(found["outputs"]["o"], wanted["outputs"]["o"], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found["state"]["S"], wanted["state"]["S"], rtol=1e-10, atol=1e-12)


def test_what_a_state_holds_is_computed_where_no_one_asks_for_it_yet() -> None:
    text = "mixer m(x[t]) -> y[t]:\n    index s over t\n    z[t] = exp(x)\n    y[t] = sum[s | s <= t and s % 3 == 0] z[s]\n"
    system, x = load_system(text), np.arange(5.0)
    state = interpret(derive(system, "recurrent").system, inputs={"x": x})["state"]
    np.testing.assert_allclose(state["z[s]"], np.exp(x))


def test_a_wrong_rewriting_is_caught() -> None:
    """Mutants of the chunkwise system: an inclusive read made exclusive, a decay forgotten, a lost start."""
    from dataclasses import replace

    from seqdsl.ir import build
    from seqdsl.ir.node import Node, rebuild
    from seqdsl.verify.case import Case
    from seqdsl.verify.properties import Differs, same_values, splits

    system = load_system("gla", "gla")
    derived = derive(system, "chunkwise")

    def mutant(change: object) -> object:
        o = derived.system.tensors["o"]
        assert o.rhs is not None
        return replace(derived, system=derived.system.with_tensors(replace(o, rhs=rebuild(o.rhs, change))))  # type: ignore[arg-type]

    def exclusive(node: Node) -> Node | None:
        if node.op != "decayed_read":
            return None
        axes, rows, options = node.attr  # type: ignore[misc]
        return build.make(
            node.op, *node.args, attr=(axes, rows, tuple(sorted({**dict(options), "strict": True}.items())))
        )

    def no_decay(node: Node) -> Node | None:
        args = node.args
        return (
            build.make(node.op, *args[:3], build.ZERO, args[4], attr=node.attr) if node.op == "decayed_read" else None
        )

    def no_start(node: Node) -> Node | None:
        return build.make(node.op, *node.args[:4], build.ZERO, attr=node.attr) if node.op == "decayed_read" else None

    for change, check in ((exclusive, same_values), (no_decay, same_values), (no_start, splits)):
        with pytest.raises(Differs):
            for seed in range(20):
                check(system, mutant(change))(Case(5, seed, False))  # type: ignore[arg-type]

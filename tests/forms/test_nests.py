"""Recurrences inside the steps of another loop: a stack over depth has the forms of its layers, a grid those of its rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import seqdsl.backends.torch_module as backend
import torch

import seqdsl
from seqdsl import api
from seqdsl.algebra.classify import classify_all
from seqdsl.cli.explain import derivation
from seqdsl.diagnostics import SeqError
from seqdsl.forms import FORMS, Derived, derive
from seqdsl.forms.adjoint import adjoint
from seqdsl.ir.dependence import recurrences
from seqdsl.ir.nest import closed, opened
from seqdsl.semantics import load_system
from seqdsl.verify.suite import run_suite
from tests.forms.available import forms_of

UNNAMED = Path(__file__).resolve().parent.parent / "unnamed"
NESTS = (
    "depth_of_decays", "deep_erase", "from_the_top", "every_depth_below", "rows_of_a_grid", "depth_of_grids", "deep_cells",
    "held_at_every_depth", "shared_scores", "along_depth", "read_where_groups_began",
)  # fmt: skip
STACK = """
import {layer} from {file}

mixer deep(x0[t,c]; L = 3) -> y[t,c]:
    x[-1,t,c]    = x0
    x[l: L, t,c] = x[l-1] + {layer}(rms_norm[c](x[l-1]); {options}per = l)
    y[t,c]       = x[L-1]
    claim causal
"""


@pytest.mark.parametrize(
    ("file", "layer"),
    [
        ("gla", "GLA"),  # chunkwise
        ("mamba", "Mamba"),  # a window and a scan
        ("gated_delta_rule", "GatedDeltaNet"),  # feedback
        ("slstm", "SLSTM"),  # Newton
        ("s4d", "S4D"),  # time-invariant, and complex
        ("transformer_layer", "TransformerLayer"),  # a normaliser
    ],
)
def test_a_stack_has_the_forms_of_its_layer(file: str, layer: str) -> None:
    alone = [f for f in forms_of(seqdsl.load(file, layer).system()) if FORMS[f].nests]
    assert forms_of(load_system(STACK.format(file=file, layer=layer, options=""))) == alone
    assert len(alone) > 1


@pytest.mark.parametrize("name", ["depth_of_decays", "from_the_top", "every_depth_below", "rows_of_a_grid"])
def test_opening_a_loop_leaves_what_recurs_in_a_step(name: str) -> None:
    system = load_system(UNNAMED / f"{name}.seq")
    (loop,) = recurrences(system)
    inside = opened(system, loop)
    assert [x.axis for x in recurrences(inside)] == [{"rows_of_a_grid": "j"}.get(name, "t")]
    assert closed(inside, system, loop) == system


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("rows_of_a_grid", [("i", "nonlinear"), ("j", "diagonal")]),
        ("deep_erase", [("l", "low-rank"), ("t", "low-rank")]),
        ("deep_cells", [("l", "nonlinear"), ("t", "nonlinear")]),
        ("depth_of_grids", [("k", "nonlinear"), ("t", "diagonal"), ("i", "diagonal")]),
    ],
)
def test_the_class_of_an_inner_recurrence_is_that_of_its_own_step(name: str, kinds: list[tuple[str, str]]) -> None:
    found = classify_all(load_system(UNNAMED / f"{name}.seq"))
    assert [(r.axis, r.kind) for r in found] == kinds


def test_the_adjoint_of_a_stack_is_chunkwise_in_every_layer() -> None:
    found = derive(adjoint(load_system(UNNAMED / "deep_erase.seq")), "chunkwise")
    steps = {step.axis for loop in recurrences(found.system) for step in loop.body if hasattr(step, "axis")}
    assert steps == set() and found.rewritten


def test_explain_says_which_loop_stays() -> None:
    found = derivation(load_system(UNNAMED / "deep_cells.seq"))
    assert found["newton"]["loops"] == ["z, r: a loop over `l`, in the steps of which it recurs"]
    assert found["recurrent"]["loops"] == []


def test_a_recurrence_that_resists_inside_a_loop_is_said() -> None:
    text = (UNNAMED / "deep_cells.seq").read_text()
    with pytest.raises(SeqError, match="two reads of the state are multiplied"):
        derive(load_system(text), "scan")


@pytest.mark.parametrize("name", NESTS)
def test_the_modules_of_a_nest_equal_its_equations(name: str) -> None:
    """In every form: outputs, states, gradients, steps, packed sequences."""
    system = load_system(UNNAMED / f"{name}.seq")

    def emit(derived: Derived) -> tuple[str, str]:
        return api.emit(derived.system, "Nest", backend, form=derived.form), "Nest"

    assert [o for o in run_suite(system, emit, backend, examples=3) if not o.ok] == []


def counted(module: torch.nn.Module, function: str) -> list[int]:
    """How often the module calls one of its functions, counted from now on."""
    names = vars(__import__(type(module).__module__, fromlist=["*"]))
    calls, own = [0], names[function]

    def call(*args: object, **named: object) -> object:
        calls[0] += 1
        return own(*args, **named)

    names[function] = call
    return calls


def test_a_stack_is_the_composition_of_its_layers() -> None:
    torch.manual_seed(0)
    layer = seqdsl.load("gla", "GLA")
    options = "H = 2, D = 8, E = 4, "
    deep = seqdsl.load(STACK.format(file="gla", layer="GLA", options=options)).module("chunkwise", c=8).double()
    names, x = [], torch.randn(2, 70, 8, dtype=torch.float64)
    layers = []
    for depth in deep.x:
        module = layer.module("recurrent", c=8, H=2, D=8, E=4).double()
        names.append(module.load_state_dict(depth.state_dict()))
        layers.append(module)
    calls = counted(deep, "chunk_linear_attention")
    y, state = deep(x, return_state=True)
    assert calls == [3]  # one for each depth: what it reads and its last state together
    expected, states = x, []
    for module in layers:
        normed = expected * torch.rsqrt((expected * expected).mean(-1, keepdim=True) + 1e-6)
        out, own = module(normed, return_state=True)
        expected = expected + out
        states.append(own["o"]["S"])
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(state["x"]["o"]["S"], torch.stack(states, 1), rtol=1e-9, atol=1e-9)
    weights = dict(deep.named_parameters())
    given = torch.randn_like(y)
    found = torch.autograd.grad((y * given).sum(), list(weights.values()))
    wanted = torch.autograd.grad((expected * given).sum(), [p for m in layers for p in m.parameters()])
    for name, g, w in zip(weights, found, wanted, strict=True):
        torch.testing.assert_close(g, w, rtol=1e-8, atol=1e-8, msg=name)


def test_a_stack_keeps_one_layer_at_a_time() -> None:
    text = seqdsl.load(STACK.format(file="hgrn", layer="HGRN", options="")).source("scan")
    body = text[text.index("for l in range(L):") :]
    assert "= x[L - 1]" in body  # not the last of all depths, put together
    assert body.index("if not return_state:") < body.index("_final[n] for n in range(L)]")


@pytest.mark.parametrize("length", [0, 1, 2])
def test_a_stack_of_any_depth_runs(length: int) -> None:
    rng = np.random.default_rng(0)
    program = seqdsl.load(UNNAMED / "depth_of_decays.seq")
    x, q, g = rng.normal(size=(5, 3)), rng.normal(size=(length, 5, 3)), -rng.random((length, 5, 3))
    wanted = program.interpret({"x": x, "q": q, "g": g})["outputs"]["y"]
    for form in ("scan", "wavefront", "recurrent"):
        y = program.module(form)(*(torch.as_tensor(v)[None] for v in (x, q, g)))
        np.testing.assert_allclose(y[0].numpy(), wanted, atol=1e-12)

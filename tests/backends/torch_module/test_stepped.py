"""Loops with the adjoint that was derived for them, against autograd through their steps.

Autograd goes through the steps where a gradient is to be differentiated again (`create_graph`): two derivations that share
nothing. Compared are the gradients of inputs, parameters and starting states, sent by outputs and last states.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from seqdsl.backends import torch_module

import seqdsl
from seqdsl.forms import derive
from seqdsl.ir.sizes import SizeError
from seqdsl.ir.system import System
from seqdsl.semantics import load_system
from seqdsl.verify.inputs import draw_inputs, draw_sizes
from seqdsl.verify.modules import module_sizes
from seqdsl.verify.suite import run_suite
from tests.backends.torch_module.harness import as_tuple, gap, load_class
from tests.ir.corpus import ROOT, systems_of

# Cells that nobody named: backwards in time with weights; a state that no output reads; two that read each other's last
# value, of which one forgets by a weight for each sequence; a weight that is an operand twice; complex entries.
CELLS = {
    "backwards": """mixer cell(x[t,c], z[t,n]) -> y[t,n]:
    h[t,n] = tanh(linear[c](x) + linear[n -> n](h[t+1]) + exp(z) * h[t+1])
    y[t,n] = h * z
""",
    "unread": """mixer cell(x[t,c], a[t,c]) -> y[t,c]:
    h[t,c] = tanh(a * h[t-1] + x)
    m[t,c] = sigmoid(a) * m[t-1] + h * x
    y[t,c] = h^2 + 0 * m[t-1]
""",
    "coupled": """mixer cell(x[t,n], b[n]) -> y[t,n]:
    g[t,n] = sigmoid(x + u[t-1])
    u[t,n] = g * u[t-1] + b * tanh(v[t-1])
    v[t,n] = v[t-1] / (1 + v[t-1]^2) + linear[n -> n](u)
    y[t,n] = g + v
""",
    "two readers": """mixer cell(x[t,n], w[n]) -> y[t,n]:
    h[t,n] = sin(w * h[t-1] + exp(w) * x)
    y[t,n] = w * h
""",
    "wide": """mixer cell(k[t,n], v[t,m], a[t,n]) -> y[t,m]:
    S[t,n,m] = a * tanh(S[t-1]) + k * v
    y[t,m]   = sum[n] k * S
""",
    "further back": """mixer cell(x[t,c], s[c]) -> y[t,c]:
    h[-2,c] = s^2
    h[-1,c] = exp(s)
    h[t,c]  = tanh(h[t-1] * x - h[t-3]) + x
    y[t,c]  = h[t-2] * x
""",
    "further back in two": """mixer cell(x[t,c], a[t,c]) -> h[t,c], z[t,c]:
    h[t,c] = sin(h[t-1] + z[t-2] * a) + x
    z[t,c] = h / (1 + z[t-3]^2 + a^2)
""",
    "further ahead": """mixer cell(x[t,n]) -> h[t,n]:
    h[t,n] = sin(linear[n -> n](h[t+2]) - h[t+1] + x)
""",
    "the larger": """mixer cell(x[t,n], a[n]) -> y[t,n]:
    m[t,n] = max(m[t-1] * a, x)
    h[t,n] = max(h[t-1], stop(h[t-1])) * sin(x) + min[k: 3](where(k == 1, m * a, stop(m * a))) + x
    g[t,n] = h[t-1] * a
    p[t]   = max[n](g)
    y[t,n] = logaddexp(h + p, m)
""",
    "starts": """mixer cell(x[t,n], s[n]) -> y[t,n]:
    h[-1,n] = exp(s)
    h[t,n]  = sin(h[t-1] * s + x)
    y[t,n]  = h
""",
}
# Loops in the steps of others: a stack with its weights; a state that no later layer reads; one that is read at the layer
# below and further back; states with more indices than what is read of them; two depths; and from the top.
DEEP = {
    "a stack": """mixer deep(x[t,n]; L = 3) -> y[t,n]:
    z[-1,t,n]    = x
    h[l: L, t,n] = tanh(linear[n -> n](z[l-1]; per = l) + linear[n -> n](h[l,t-1]; per = l))
    z[l,t,n]     = z[l-1] + h
    y[t,n]       = z[L-1]
""",
    "read before": """mixer deep(x[t,n], u[l,n]) -> y[t,n]:
    z[-1,t,n] = x
    h[l,-1,n] = exp(u)
    h[l,t,n]  = sin(u * h[l,t-1] + z[l-1])
    z[l,t,n]  = z[l-1] * h[l,t-1]
    y[t,n]    = z[|l|-1]
""",
    "the layer below": """mixer deep(x[t,n], u[l,n]) -> y[t,n]:
    z[-1,t,n] = x
    z[l,t,n]  = tanh(u * z[l,t-1] + z[l,t-2]) + z[l-1,t-1] * x
    y[t,n]    = z[|l|-1] + z[0]
""",
    "wide states": """mixer deep(x[t,n], k[l,t,m], q[l,t,m]) -> y[t,n]:
    z[-1,t,n]  = x
    S[l,t,m,n] = tanh(S[l,t-1]) * sigmoid(k) + k * z[l-1]
    z[l,t,n]   = z[l-1] + sum[m] q * S
    y[t,n]     = z[|l|-1]
""",
    "two depths": """mixer deep(x[t,n], u[l,n], w[m,n]) -> y[t,n]:
    v[-1,t,n]   = x
    z[l,-1,t,n] = v[l-1]
    h[l,m,t,n]  = sin(u * h[l,m,t-1] + w * z[l,m-1])
    z[l,m,t,n]  = z[l,m-1] + h
    v[l,t,n]    = z[l,|m|-1]
    y[t,n]      = v[|l|-1]
""",
    "from the top": """mixer deep(x[t,n], u[l,n]) -> y[t,n]:
    z[|l|,t,n] = x
    z[l,t,n]   = tanh(u * z[l,t-1] + z[l+1])
    y[t,n]     = z[0]
""",
}
NAMED = "scan/gla scan/hgrn scan/s5 scan/mamba memory/delta_rule memory/gated_delta_rule memory/mesa memory/ttt_linear"
NAMED += " rnn/gru rnn/lstm rnn/elman rnn/slstm"
FILES = sorted([*((ROOT / "library" / f"{n}.seq") for n in NAMED.split()), *(ROOT / "tests" / "unnamed").glob("*.seq")])


def code_of(system: System) -> str:
    """The module in recurrent form."""
    return torch_module.emit_module(derive(system, "recurrent").system, class_name="M", form="recurrent")


def leaves(state: Any) -> Iterator[torch.Tensor]:
    """The tensors of a state that have a gradient."""
    for value in state.values() if isinstance(state, dict) else (state,):
        if isinstance(value, dict):
            yield from leaves(value)
        elif isinstance(value, torch.Tensor) and (value.is_floating_point() or value.is_complex()):
            yield value


def gradients(module: Any, inputs: list[torch.Tensor], *, steps: bool, split: int = 0) -> list[torch.Tensor]:
    """Of everything that has one, by the derived adjoint or through the `steps`; of two pieces, where it can be cut."""
    generator = torch.Generator().manual_seed(1)
    try:
        result, state = module(*inputs, return_state=True)
    except ValueError:  # it keeps no state
        result, state = module(*inputs), {}
    sent = [y for y in (*as_tuple(result), *leaves(state)) if y.requires_grad]
    weights = [torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y.dtype) for y in sent]
    asked = [x for x in (*inputs, *module.parameters()) if x.requires_grad]
    found = torch.autograd.grad(sent, asked, weights, create_graph=steps, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g.detach() for x, g in zip(asked, found, strict=True)]


def drawn(system: System, length: int, *, harsh: bool = False) -> tuple[dict[str, Any], list[torch.Tensor]]:
    """Lengths for a module, and inputs of two sequences."""
    rng = np.random.default_rng(0)
    sizes = draw_sizes(system, rng, stream=length)
    found = []
    for one, other in zip(*(draw_inputs(system, sizes, rng, harsh=harsh).values() for _ in range(2)), strict=True):
        x = torch.as_tensor(np.stack([one, other]))
        found.append(x.requires_grad_() if x.is_floating_point() or x.is_complex() else x)
    return module_sizes(derive(system, "recurrent").system, sizes), found


def worst(system: System, code: str, length: int, *, harsh: bool = False) -> float:
    """The largest relative difference between the two gradients; -1 where no sizes fit."""
    try:
        sizes, inputs = drawn(system, length, harsh=harsh)
    except SizeError:
        return -1.0
    torch.manual_seed(0)
    module = torch_module.build_module(code, "M", **sizes).double()
    pairs = zip(gradients(module, inputs, steps=False), gradients(module, inputs, steps=True), strict=True)
    return max((gap(a, b) for a, b in pairs if b.norm() > 1e-6 and not b.isnan().any()), default=0.0)


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_derived_gradients_are_those_of_the_steps(path: Path) -> None:
    for system in systems_of(path):
        code = code_of(system)
        if "class _Stepped" in code:
            assert max(worst(system, code, n, harsh=n == 6) for n in (0, 1, 6)) < 1e-9, system.name


@pytest.mark.parametrize("name", [*CELLS, *DEEP])
@pytest.mark.parametrize("length", [0, 1, 5])
def test_cells_that_nobody_named(name: str, length: int) -> None:
    system = load_system({**CELLS, **DEEP}[name])
    code = code_of(system)
    assert "class _Stepped" in code
    assert worst(system, code, length) < 1e-12


@pytest.mark.parametrize("name", [*DEEP, "further back", "further back in two"])
def test_values_states_and_packed_sequences(name: str) -> None:
    """Against the interpreter: what a module does with loops that are functions of their own."""
    system = load_system({**CELLS, **DEEP}[name])
    outcomes = run_suite(system, lambda derived: (code_of(system), "M"), torch_module, examples=3, forms=("recurrent",))
    assert [o for o in outcomes if not o.ok] == []


STAY = {
    "nested loops": """mixer cell(x[i,j,c], a[i,j,c]) -> y[i,j,c]:
    y[i,j,c] = tanh(a * y[i-1] + y[i,j-1] + x)
""",
    "an edge on another axis": """mixer cell(x[t,n], b[t]) -> h[t,n]:
    h[t,-1] = b
    h[t,n]  = tanh(h[t-1,n-1] + x)
""",
    "all so far": """mixer cell(x[t,c]) -> h[t,c]:
    h[t,c] = tanh(x + mean[s | s < t] h[s,c])
    index s over t
""",
}


@pytest.mark.parametrize("name", STAY)
def test_loops_of_other_kinds_stay_with_autograd(name: str) -> None:
    assert "class _Stepped" not in code_of(load_system(STAY[name]))


# What is changed in the text of a module, and the cell that must notice.
MUTANTS = {
    "the last state sends nothing back": ("= {T: h_final_grad}", "= {T: torch.zeros_like(h_final_grad)}", "starts"),
    "a step late": ("_before_bar[t_2 + 1]", "_before_bar[min(t_2 + 2, T)]", "starts"),
    "the state after a step for the one before": ("_span(_join([h_start.unsqueeze(1), h_3], 1), 1, -1 + 1, T)", "h_3", "starts"),
    "no gradient of the start": ("h_start_bar = ", "h_start_bar = 0 * ", "starts"),
    "a weight's gradient transposed": ('"btn,bta->an"', '"btn,bta->na"', "backwards"),
    "an operand twice": ("w_bar = ", "w_bar = 2 * ", "two readers"),
    "made of another": ("x.view_as(x) for x in given", "x for x in given", "two readers"),
    "the operand of another step": ("k_steps_2[t_2]", "k_steps_2[t_2 - 1]", "wide"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name: str) -> None:
    before, after, cell = MUTANTS[name]
    system = load_system(CELLS[cell])
    code = code_of(system)
    assert before in code
    assert worst(system, code.replace(before, after), 5) > 1e-3


def test_only_operands_and_states_are_kept() -> None:
    """Where autograd keeps every intermediate of every step."""
    system = load_system(ROOT / "library" / "rnn" / "lstm.seq")
    code = code_of(system)
    module = torch_module.build_module(code, "M", c=8, N=8)
    x = torch.randn(2, 50, 8)
    saved: dict[int, int] = {}

    def note(y: torch.Tensor) -> torch.Tensor:
        saved[y.data_ptr()] = y.numel()
        return y

    with torch.autograd.graph.saved_tensors_hooks(note, lambda y: y):
        module(x)
    weights = sum(p.numel() for p in module.parameters())
    assert sum(saved.values()) < weights + 9 * x.numel()  # x, four gates, two states


def test_second_derivatives_maps_and_tracing() -> None:
    """`gradgradcheck`, `vmap` and `func.grad`, and a graph without breaks."""
    module = load_class(code_of(load_system(CELLS["coupled"])), "M")(n=3).double()
    x, b = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True), torch.randn(2, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda y: module(y, b), x) and torch.autograd.gradgradcheck(lambda y: module(y, b), x)
    many = torch.stack([x.detach(), 2 * x.detach()])
    assert gap(torch.vmap(lambda y: module(y, b))(many)[1], module(many[1], b)) < 1e-12
    each = torch.func.grad(lambda y: module(y, b).square().sum())(x.detach())
    assert gap(each, torch.autograd.grad(module(x, b).square().sum(), x)[0]) < 1e-12
    assert gap(torch.compile(module, backend="eager", fullgraph=True)(x, b), module(x, b)) < 1e-12


def test_a_step_at_a_time_and_a_state_between() -> None:
    module = seqdsl.load("gru", "gru").module("recurrent", c=4, N=3).double()
    x = torch.randn(2, 6, 4, dtype=torch.float64)
    whole = module(x)
    first, state = module(x[:, :4], return_state=True)
    assert gap(torch.cat([first, module(x[:, 4:], state=state)], 1), whole) < 1e-14
    found, _ = module.step(x[:, 4], state)
    assert gap(found, whole[:, 4]) < 1e-14
    packed = module(x.flatten(0, 1)[None], cu_seqlens=[0, 6, 6, 12])
    assert gap(packed.view(2, 6, 3), whole) < 1e-14


ALONG = ["softmax[t](h[t,0])", "rank[t](h[t,0])", "re(fft[t](h[t,0]))", "u * z[t-1] + h[t,0]"]


@pytest.mark.parametrize("reader", ALONG)
@pytest.mark.parametrize("other", ["h[t+1,c]", "h[t-1,c] + x[t+1,c]"])
def test_what_works_along_time_is_not_moved_into_a_loop_over_it(reader: str, other: str) -> None:
    program = seqdsl.load(
        f"mixer m(x[t,c], u[t]) -> y[t,c]:\n    h[t,c] = tanh(x * {other})\n    z[t] = {reader}\n    y[t,c] = z * x\n"
    )
    x, u = np.random.default_rng(0).standard_normal((6, 2)), np.ones(6)
    wanted = program.interpret({"x": x, "u": u})["outputs"]["y"]
    for form in ("recurrent", "auto"):
        found = program.module(form)(torch.from_numpy(x)[None], torch.from_numpy(u)[None])
        assert np.abs(found[0].numpy() - wanted).max() < 1e-12


def test_each_gradient_of_a_batch_where_steps_compare_positions() -> None:
    module = seqdsl.load("""
mixer shift(x[t,c]; W = 3) -> y[t,c]:
    S[t,n: W,c] = where(n == 0, x, S[t-1,n-1])
    y[t,c] = S[t,W-1]
""").module("recurrent")

    def loss(x: torch.Tensor) -> torch.Tensor:
        return module(x[None]).square().sum()  # type: ignore[no-any-return]

    x = torch.randn(3, 5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    each = torch.stack([torch.func.grad(loss)(row) for row in x])
    assert torch.allclose(torch.func.vmap(torch.func.grad(loss))(x), each)
    wanted = torch.diag(torch.cat([torch.full((6,), 2.0, dtype=torch.float64), torch.zeros(4, dtype=torch.float64)]))
    assert torch.allclose(torch.func.hessian(loss)(x[0]).reshape(10, 10), wanted)

"""Mini-batches frozen at their first state: the scan over held states equals the equations, states included."""

from __future__ import annotations

import pytest
import torch

from seqdsl.algebra.classify import classify
from seqdsl.algebra.verdict import Proved
from seqdsl.diagnostics import SeqError
from seqdsl.forms import derive
from seqdsl.ir.dependence import recurrences
from seqdsl.semantics import load_system
from seqdsl.verify.suite import run_suite
from tests.backends.torch_module.harness import gap, module_of, piece, random_inputs

HEAD = "mixer m(q[t,h,d], k[t,h,d], v[t,h,e], a[t,h]; m = 4) -> o[t,h,e]:\n"
READ = "    o[t,h,e] = sum[d] q * W\n"
FROZEN = {
    "the named boundary": """
    W0[t,h,d,e] = W[t // m * m - 1]
    r[t,h,e]    = sum[d] k * W0
    W[t,h,d,e]  = W[t-1] + 0.3 * sigmoid(a) * k * (v - r)
""",
    "the bare boundary, a decay, a start": """
    W[-1,h,d,e] = 0.5
    r[t,h,e]    = sum[d] k * W[t // m * m - 1]
    W[t,h,d,e]  = exp(a) * W[t-1] + 0.3 * k * (v - r)
""",
    "entry by entry": """
    W[t,h,d,e] = 0.5 * sigmoid(a) * W[t // m * m - 1] + 0.3 * W[t-1] + k * v
""",
    "sums from the boundary on": """
    A[t,h,d,e] = where(t % m == 0, 0, A[t-1]) + 0.3 * k * (v - (sum[d] k * W[t // m * m - 1]))
    W[t,h,d,e] = W[t // m * m - 1] + A
""",
}


@pytest.mark.parametrize("name", FROZEN)
def test_scan_is_the_equations(name: str) -> None:
    system = load_system(HEAD + FROZEN[name].lstrip("\n") + READ)
    outcomes = [o for o in run_suite(system, None, None, examples=10) if o.form == "scan"]
    assert outcomes and [o for o in outcomes if not o.ok] == []
    found = classify(system, recurrences(system)[0])
    assert found.kind == ("diagonal" if name == "entry by entry" else "low-rank")
    assert "held states" in found.evidence
    assert found.lift and all(isinstance(v, Proved) for v in found.lift)


@pytest.mark.parametrize("name", FROZEN)
def test_module_values_states_and_gradients(name: str) -> None:
    system = load_system(HEAD + FROZEN[name].lstrip("\n") + READ)
    plain, formed = (module_of(derive(system, form).system, form, m=4) for form in ("recurrent", "scan"))
    for length in (0, 1, 9):
        inputs = random_inputs(system, t=length, grad=True)
        (wanted, ended), (found, state) = (m(*inputs, return_state=True) for m in (plain, formed))
        assert gap(found, wanted) < 1e-9
        assert gap(state, ended) < 1e-9
    weight = torch.randn_like(wanted)
    grads = [torch.autograd.grad((y * weight).sum(), inputs, allow_unused=True) for y in (found, wanted)]
    assert max(gap(x, y) for x, y in zip(*grads, strict=True) if x is not None and y is not None) < 1e-8
    for first, second in ((plain, formed), (formed, plain)):
        for cut in (1, 4, 6):
            head, state = first(*piece(system, inputs, 0, cut), return_state=True)
            tail, last = second(*piece(system, inputs, cut, 9), state=state, return_state=True)
            assert gap(torch.cat([head, tail], 1), wanted) < 1e-9
            assert gap(last, ended) < 1e-9


@pytest.mark.parametrize("form", ["scan", "chunkwise"])
@pytest.mark.parametrize("name", FROZEN)
def test_one_position_at_a_time(name: str, form: str) -> None:
    """The last boundary may lie several calls back, and is handed on from state to state."""
    system = load_system(HEAD + FROZEN[name].lstrip("\n") + READ)
    plain, formed = (module_of(derive(system, f).system, f, m=4) for f in ("recurrent", form))
    inputs = random_inputs(system, t=11)
    wanted = plain(*inputs)
    state = formed(*piece(system, inputs, 0, 0), return_state=True)[1]
    for t in range(11):
        found, state = formed(*piece(system, inputs, t, t + 1), state=state, return_state=True)
        assert gap(found, wanted[:, t : t + 1]) < 1e-9


def test_a_nonlinear_read_of_the_boundary_says_why() -> None:
    text = HEAD + FROZEN["the named boundary"].lstrip("\n").replace("(v - r)", "(v - layer_norm[e](r))") + READ
    with pytest.raises(SeqError) as caught:
        derive(load_system(text), "scan")
    assert "layer_norm" in " ".join(caught.value.diagnostics[0].notes)


@pytest.mark.parametrize("start", ["", "    M[-1,c] = a\n"])
def test_held_states_that_are_wanted_entry_by_entry_are_scanned_in_chunks_too(start: str) -> None:
    text = f"mixer m(x[t,c], f[t,c], a[c]) -> y[t,c]:\n{start}    M[t,c] = f * M[t-1] + x + 0.1 * M[t // 3 * 3 - 1]\n"
    system = load_system(text + "    y[t,c] = M + 0.2 * M[t // 3 * 3 - 1] + a\n")
    plain, formed = (module_of(derive(system, form).system, form) for form in ("recurrent", "chunkwise"))
    inputs = random_inputs(system, t=8)
    wanted = plain(*inputs)
    for cut in (0, 2, 3, 7):
        head, state = formed(*piece(system, inputs, 0, cut), return_state=True)
        tail = formed(*piece(system, inputs, cut, 8), state=state)
        assert gap(torch.cat([head, tail], 1), wanted) < 1e-9


@pytest.mark.parametrize("form", ["scan", "chunkwise"])
def test_a_boundary_that_only_other_equations_read_is_no_held_state(form: str) -> None:
    text = "mixer m(x[t,c]) -> y[t,c]:\n    S[t,c] = 0.3 * R[t // 3 * 3 - 1] + 0.5 * S[t-1] + x\n"
    system = load_system(text + "    R[t,c] = x - 0.3 * S + 0.2 * R[t-1]\n    y[t,c] = S[t // 3 * 3 - 1] + R\n")
    plain, formed = (module_of(derive(system, f).system, f) for f in ("recurrent", form))
    inputs = random_inputs(system, t=8)
    wanted = plain(*inputs)
    for cut in (0, 2, 3, 7):
        head, state = formed(*piece(system, inputs, 0, cut), return_state=True)
        assert gap(torch.cat([head, formed(*piece(system, inputs, cut, 8), state=state)], 1), wanted) < 1e-9

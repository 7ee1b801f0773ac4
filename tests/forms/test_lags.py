"""Recurrences that read several steps back: the scan over companion states equals the equations, states included."""

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

HEAD = "mixer m(x[t,c], a[t,c], b[c]) -> y[t,c]:\n"
LAGS = {
    "two": "    y[t,c] = 0.5 * tanh(a) * y[t-1] + 0.4 * tanh(b) * y[t-2] + x\n",
    "only the third": "    y[t,c] = tanh(a) * y[t-3] + x\n",
    "base cases": """
    y[-1,c] = b
    y[-2,c] = 2 * b
    y[t,c]  = 0.5 * tanh(a) * y[t-1] + 0.4 * y[t-2] + x
""",
    "two states": """
    z[t,c] = 0.5 * y[t-2] - 0.3 * tanh(a) * z[t-1] + x
    y[t,c] = 0.6 * z[t-1] + 0.2 * y[t-1]
""",
    "through a name of the same step": """
    z[t,c] = 0.5 * y[t-2] + x
    y[t,c] = 0.6 * tanh(a) * z + 0.2 * y[t-1]
""",
    "read further back from outside": """
    s[t,c] = 0.5 * tanh(a) * s[t-1] + 0.4 * s[t-2] + x
    y[t,c] = s + s[t-4]
""",
    "backwards": "    y[t,c] = 0.5 * tanh(a) * y[t+1] + 0.4 * tanh(b) * y[t+2] + x\n",
}


@pytest.mark.parametrize("name", LAGS)
def test_scan_is_the_equations(name: str) -> None:
    system = load_system(HEAD + LAGS[name].lstrip("\n"))
    outcomes = [o for o in run_suite(system, None, None, examples=10) if o.form == "scan"]
    assert outcomes and [o for o in outcomes if not o.ok] == []
    found = classify(system, recurrences(system)[0])
    assert found.kind == "diagonal" and "companion" in found.evidence
    assert found.lift and all(isinstance(v, Proved) for v in found.lift)
    assert set(found.states) <= set(system.tensors)


@pytest.mark.parametrize("name", LAGS)
def test_module_values_states_and_gradients(name: str) -> None:
    system = load_system(HEAD + LAGS[name].lstrip("\n"))
    plain, formed = (module_of(derive(system, form).system, form) for form in ("recurrent", "scan"))
    keeps = name != "backwards"
    for length in (0, 1, 2, 9):
        inputs = random_inputs(system, t=length, grad=True)
        if not keeps:
            wanted, found = plain(*inputs), formed(*inputs)
        else:
            (wanted, ended), (found, state) = (m(*inputs, return_state=True) for m in (plain, formed))
            assert gap(state, ended) < 1e-9
        assert gap(found, wanted) < 1e-9
    weight = torch.randn_like(wanted)
    grads = [torch.autograd.grad((y * weight).sum(), inputs, allow_unused=True) for y in (found, wanted)]
    assert max(gap(a, b) for a, b in zip(*grads, strict=True) if a is not None and b is not None) < 1e-8
    for first, second in ((plain, formed), (formed, plain)) if keeps else ():
        for cut in (1, 4):
            head, state = first(*piece(system, inputs, 0, cut), return_state=True)
            tail, last = second(*piece(system, inputs, cut, 9), state=state, return_state=True)
            assert gap(torch.cat([head, tail], 1), wanted) < 1e-9
            assert gap(last, ended) < 1e-9


def test_a_long_lag_says_why() -> None:
    with pytest.raises(SeqError) as caught:
        derive(load_system(HEAD + "    y[t,c] = 0.5 * y[t-1] + 0.1 * y[t-30] + x\n"), "scan")
    assert "30 steps back" in " ".join(caught.value.diagnostics[0].notes)


def test_what_chunks_rely_on_where_all_is_scanned_is_the_law_of_scans() -> None:
    scanned, read = HEAD + LAGS["two"], "mixer m(q[t,d], k[t,d], v[t,e]) -> o[t,e]:\n    S[t,d,e] = S[t-1] + k * v\n"
    laws = [[o.law for o in derive(load_system(text), "chunkwise").obligations]
            for text in (scanned, read + "    o[t,e] = sum[d] q * S\n")]  # fmt: skip
    assert len(laws[0]) == 1 and "affine maps" in laws[0][0]
    assert "sum over earlier writes" in laws[1][0]


@pytest.mark.parametrize("form", ["chunkwise", "quadratic"])
@pytest.mark.parametrize("start", ["", "    S[-2,d,e] = 2\n"])
def test_a_state_whose_lag_is_read_inside_alone_keeps_as_many_steps(form: str, start: str) -> None:
    """What a step contracts two steps back is solved for, and what is left of the state reads one step back."""
    text = f"mixer m(q[t,d], k[t,d], v[t,e], f[t], w[e]) -> y[t,e]:\n{start}"
    text += "    S[t,d,e] = 0.4 * f * S[t-1] - 0.4 * w * (sum[e] w * S[t-2]) + k * v\n    y[t,e] = sum[d] q * S[t-1]\n"
    system = load_system(text)
    plain, formed = module_of(system), module_of(derive(system, form).system, form)
    inputs = random_inputs(system, t=7)
    wanted, ended = plain(*inputs, return_state=True)
    for cut in (0, 1, 4):
        head, state = formed(*piece(system, inputs, 0, cut), return_state=True)
        tail, last = formed(*piece(system, inputs, cut, 7), state=state, return_state=True)
        assert gap(torch.cat([head, tail], 1), wanted) < 1e-9 and gap(last, ended) < 1e-9

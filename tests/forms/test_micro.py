"""Micro-steps inside a step of time: chunkwise form equals the equations, states and modules included."""

from __future__ import annotations

import pytest
import torch

from seqdsl.algebra.classify import classify
from seqdsl.diagnostics import SeqError
from seqdsl.forms import derive
from seqdsl.ir.dependence import recurrences
from seqdsl.ir.node import walk
from seqdsl.semantics import load_system
from seqdsl.verify.suite import run_suite
from tests.backends.torch_module.harness import gap, module_of, piece, random_inputs

HEAD = (
    "mixer m(q[t,h,d], k[t,j,h,d], v[t,j,h,e], w[t,j,h,d], u[t,j,h,d], g[t,j,h,d], a[t,h], c[t,j,h,e]) -> o[t,h,e]:\n"
)
READ = "    o[t,h,e] = sum[d] q * S[t,|j|-1]\n"
STEPS = {
    "the decay stands at the base case": """
    S[t,-1,h,d,e] = exp(a) * S[t-1,|j|-1]
    r[t,j,h,e]    = sum[d] k * S[t,j-1]
    S[t,j,h,d,e]  = S[t,j-1] + 0.3 * k * (v - r)
""",
    "each micro-step has a decay, read after it": """
    S[t,-1,h,d,e] = S[t-1,|j|-1]
    P[t,j,h,d,e]  = exp(g) * S[t,j-1]
    r[t,j,h,e]    = sum[d] k * P
    S[t,j,h,d,e]  = P + 0.3 * k * (v - r)
""",
    "decays in both places, read before them": """
    S[t,-1,h,d,e] = sigmoid(a) * S[t-1,|j|-1]
    r[t,j,h,e]    = sum[d] w * S[t,j-1]
    S[t,j,h,d,e]  = exp(g) * S[t,j-1] - 0.2 * u * r + 0.5 * k * v
""",
    "two inner reads, and a decay that may be negative": """
    S[t,-1,h,d,e] = a * S[t-1,|j|-1]
    S[t,j,h,d,e]  = 0.8 * tanh(g) * S[t,j-1] - 0.1 * u * (sum[d] w * S[t,j-1]) - 0.1 * w * (sum[d] u * S[t,j-1]) + k * v
""",
    "decays along the columns": """
    S[t,-1,h,d,e] = sigmoid(a) * S[t-1,|j|-1]
    r[t,j,h,e]    = sum[d] w * S[t,j-1]
    S[t,j,h,d,e]  = sigmoid(c) * S[t,j-1] + 0.2 * k * (v - r)
""",
    "a reset inside a step": """
    S[t,-1,h,d,e] = S[t-1,|j|-1]
    r[t,j,h,e]    = sum[d] k * S[t,j-1]
    S[t,j,h,d,e]  = where(t % 5 == 3 and j == 1, 0, S[t,j-1] - 0.3 * k * r) + k * v
""",
    "a learned start": """
    param s0[j,h,d,e] = normal(0, 1)
    S[-1,j,h,d,e] = s0
    S[t,-1,h,d,e] = exp(a) * S[t-1,|j|-1]
    r[t,j,h,e]    = sum[d] k * S[t,j-1]
    S[t,j,h,d,e]  = S[t,j-1] + 0.3 * k * (v - r)
""",
    "no inner read": """
    S[t,-1,h,d,e] = exp(a) * S[t-1,|j|-1]
    S[t,j,h,d,e]  = exp(g) * S[t,j-1] + 0.3 * k * v
""",
}


@pytest.mark.parametrize("name", STEPS)
def test_chunkwise_is_the_equations(name: str) -> None:
    system = load_system(HEAD + STEPS[name].lstrip("\n") + READ)
    derived = derive(system, "chunkwise")
    used = {n.op for t in derived.system.derived() if t.rhs is not None for n in walk(t.rhs)}
    assert ("micro_solve" in used) == (name != "no inner read")
    assert ("unit lower triangular" in " ".join(o.law for o in derived.obligations)) == ("micro_solve" in used)
    outcomes = [o for o in run_suite(system, None, None, examples=10) if o.form == "chunkwise"]
    assert outcomes and [o for o in outcomes if not o.ok] == []


@pytest.mark.parametrize("name", [n for n in STEPS if n != "a learned start"])
def test_module_values_states_and_gradients(name: str) -> None:
    system = load_system(HEAD + STEPS[name].lstrip("\n") + READ)
    plain, formed = module_of(derive(system, "recurrent").system), None
    for form in ("chunkwise", "quadratic") if name != "no inner read" else ("chunkwise",):
        formed = module_of(derive(system, form).system, form)
        for length in (0, 1, 9):
            inputs = random_inputs(system, t=length, grad=True)
            wanted, ended = plain(*inputs, return_state=True)
            found, state = formed(*inputs, return_state=True)
            assert gap(found, wanted) < 1e-9
            assert gap(state, ended) < 1e-9
        weight = torch.randn_like(wanted)
        grads = [torch.autograd.grad((y * weight).sum(), inputs, allow_unused=True) for y in (found, wanted)]
        assert max(gap(a, b) for a, b in zip(*grads, strict=True) if b is not None and a is not None) < 1e-8
        assert all(a is not None for a, b in zip(*grads, strict=True) if b is not None)
    head, state = formed(*piece(system, inputs, 0, 4), return_state=True)
    tail, last = formed(*piece(system, inputs, 4, 9), state=state, return_state=True)
    assert gap(torch.cat([head, tail], 1), wanted) < 1e-9
    assert gap(last, ended) < 1e-9


def test_the_class_is_shown_from_both_maps() -> None:
    system = load_system(HEAD + STEPS["decays in both places, read before them"].lstrip("\n") + READ)
    (loop,) = recurrences(system)
    found = classify(system, loop)
    assert found.kind == "low-rank"
    assert "micro-steps along j" in found.evidence
    assert [v.holds for v in found.lift] == [True, True]


REFUSED = {
    "another micro-step": (STEPS["no inner read"], "    o[t,h,e] = sum[d] q * S[t,0]\n", "not the last micro-step"),
    "the inner read": (
        STEPS["the decay stands at the base case"],
        "    o[t,h,e] = sum[d] q * S[t,|j|-1] + sum[j] r\n",
        "not the last micro-step",
    ),
    "several steps back": (
        STEPS["the decay stands at the base case"],
        "    o[t,h,e] = sum[d] q * S[t-2,|j|-1]\n",
        "more than the last step",
    ),
    "a base case that writes": (
        STEPS["no inner read"].replace("exp(a) * S[t-1,|j|-1]", "exp(a) * S[t-1,|j|-1] + q"),
        READ,
        "adds",
    ),
    "a square": (
        STEPS["the decay stands at the base case"].replace("(v - r)", "(v - r^2)"),
        READ,
        "multiplied",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_such_form_says_why(name: str) -> None:
    step, read, reason = REFUSED[name]
    with pytest.raises(SeqError) as caught:
        derive(load_system(HEAD + step.lstrip("\n") + read), "chunkwise")
    (diagnostic,) = caught.value.diagnostics
    assert any(reason in note or "pow" in note for note in diagnostic.notes), diagnostic.notes

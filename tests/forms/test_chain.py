"""Micro-steps that are written out as equations: solved for together, never written into one another."""

from __future__ import annotations

import pytest
import torch

from seqdsl.algebra.classify import classify
from seqdsl.forms import derive
from seqdsl.ir.dependence import recurrences
from seqdsl.ir.node import walk
from seqdsl.ir.system import System
from seqdsl.semantics import load_system
from seqdsl.verify.suite import run_suite
from tests.backends.torch_module.harness import gap, module_of, piece, random_inputs

HEAD = "mixer m(q[t,h,d], k[t,j,h,d], v[t,j,h,e], w[t,h,d], g[t,h,d], a[t,h]; N = 3) -> o[t,h,e]:\n"
READ = "    o[t,h,e] = sum[d] q * S\n"
CHAINS = {
    "numbered": """
    P0[t,h,d,e] = exp(a) * S[t-1]
    for n in 0..N:
        r{n}[t,h,e]     = sum[d] k[t,n] * P{n}
        P{n+1}[t,h,d,e] = P{n} + 0.3 * k[t,n] * (v[t,n] - r{n})
    S[t,h,d,e] = P{N}
""",
    "two kinds of steps, decays between them": """
    r[t,h,e]   = sum[d] w * S[t-1]
    P[t,h,d,e] = exp(g) * S[t-1] - 0.2 * w * r
    u[t,h,e]   = sum[d] k[t,0] * P
    S[t,h,d,e] = sigmoid(a) * P + 0.3 * k[t,0] * (v[t,0] - u) + k[t,1] * v[t,1]
""",
    "a decay after the last": """
    r[t,h,e]   = sum[d] w * S[t-1]
    P[t,h,d,e] = S[t-1] - 0.2 * w * r
    u[t,h,e]   = sum[d] k[t,0] * P
    Q[t,h,d,e] = P + 0.3 * k[t,0] * (v[t,0] - u)
    S[t,h,d,e] = exp(g) * Q
""",
}


def system_of(name: str) -> System:
    return load_system(HEAD + CHAINS[name].lstrip("\n") + READ)


@pytest.mark.parametrize("name", CHAINS)
def test_chunkwise_is_the_equations(name: str) -> None:
    system = system_of(name)
    derived = derive(system, "chunkwise").system
    assert "micro_solve" in {n.op for t in derived.derived() if t.rhs is not None for n in walk(t.rhs)}
    outcomes = [o for o in run_suite(system, None, None, examples=10) if o.form == "chunkwise"]
    assert outcomes and [o for o in outcomes if not o.ok] == []
    found = classify(system, recurrences(system)[0])
    assert found.kind == "low-rank" and "composed in order" in found.evidence
    assert all(v.holds for v in found.lift)


@pytest.mark.parametrize("name", CHAINS)
def test_module_values_states_and_gradients(name: str) -> None:
    system = system_of(name)
    plain, formed = (module_of(derive(system, form).system, form) for form in ("recurrent", "chunkwise"))
    inputs = random_inputs(system, t=9, grad=True)
    (wanted, ended), (found, state) = (m(*inputs, return_state=True) for m in (plain, formed))
    assert gap(found, wanted) < 1e-9
    assert gap(state, ended) < 1e-9
    weight = torch.randn_like(wanted)
    grads = [torch.autograd.grad((y * weight).sum(), inputs, allow_unused=True) for y in (found, wanted)]
    assert max(gap(a, b) for a, b in zip(*grads, strict=True) if a is not None and b is not None) < 1e-8
    head, state = formed(*piece(system, inputs, 0, 4), return_state=True)
    tail, last = formed(*piece(system, inputs, 4, 9), state=state, return_state=True)
    assert gap(torch.cat([head, tail], 1), wanted) < 1e-9
    assert gap(last, ended) < 1e-9


def test_many_steps_are_not_written_into_one_another() -> None:
    """Twenty would be a million terms."""
    text = (HEAD + CHAINS["numbered"].lstrip("\n") + READ).replace("N = 3", "N = 20")
    system = load_system(text)
    assert "composed in order" in classify(system, recurrences(system)[0]).evidence
    derived = derive(system, "chunkwise").system
    assert sum(1 for t in derived.derived() if t.rhs is not None for _ in walk(t.rhs)) < 5000

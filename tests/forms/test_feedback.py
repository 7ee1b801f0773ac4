"""Low-rank recurrences in chunkwise form: the inner reads are found, whatever they are called and wherever they stand."""

from __future__ import annotations

import pytest

from seqdsl.diagnostics import SeqError
from seqdsl.forms import derive
from seqdsl.ir.node import walk
from seqdsl.semantics import load_system
from seqdsl.verify.suite import run_suite

HEAD = "mixer m(q[t,h,d], k[t,h,d], v[t,h,e], w[t,h,d], u[t,h,d], g[t,h,d], a[t,h], c[t,h,e]) -> o[t,h,e]:\n"
READ = "    o[t,h,e] = sum[d] q * S\n"
STEPS = {
    "read after the decay": """
    P[t,h,d,e] = exp(g) * S[t-1]
    r[t,h,e]   = sum[d] k * P
    S[t,h,d,e] = P + 0.3 * k * (v - r)
""",
    "read before the decay, another left vector": """
    r[t,h,e]   = sum[d] w * S[t-1]
    S[t,h,d,e] = exp(g) * S[t-1] - 0.3 * u * r + k * v
""",
    "two inner reads with two decays in front": """
    S[t,h,d,e] = exp(a) * S[t-1] - 0.2 * u * (sum[d] w * exp(a) * S[t-1]) - 0.2 * w * (sum[d] u * S[t-1]) + k * v
""",
    "the write is gated on the value side": """
    r[t,h,e]   = sum[d] w * S[t-1]
    S[t,h,d,e] = sigmoid(a) * S[t-1] + 0.3 * k * sigmoid(c) * (v - r)
""",
    "the decay stands on the value side": """
    r[t,h,e]   = sum[d] w * S[t-1]
    S[t,h,d,e] = sigmoid(c) * S[t-1] + 0.3 * k * (v - r)
""",
    "the decay does not separate": """
    r[t,h,e]   = sum[d] w * S[t-1]
    S[t,h,d,e] = sigmoid(c + g) * S[t-1] + 0.3 * k * (v - r)
""",
    "a reset": """
    r[t,h,e]   = sum[d] k * S[t-1]
    S[t,h,d,e] = where(t % 5 == 3, 0, S[t-1] - 0.3 * k * r) + k * v
""",
    "a left vector that is the same in all rows, and writes that are not": """
    S[t,h,d,e] = exp(a) * (S[t-1] - (sum[d] S[t-1]) / |d|) + k * v
""",
    "two left vectors, of which one is the same in all rows": """
    index m over d
    S[t,h,d,e] = 0.1 * (sum[m] (w[t,h,d] - w[t,h,m]) * S[t-1,h,m]) + w * v
""",
    "a rank that is an axis, summed twice over": """
    f[t, j: 3, h, d] = k * (j + 1)
    r[t,j,h,e] = sum[d] f * S[t-1]
    S[t,h,d,e] = exp(g) * S[t-1] - 0.02 * sum[j] f * r + 0.1 * sum[j] f * v
""",
    "a learned start": """
    param s0[h,d,e] = normal(0, 1)
    S[-1,h,d,e] = s0
    r[t,h,e]   = sum[d] k * S[t-1]
    S[t,h,d,e] = exp(a) * S[t-1] + 0.3 * k * (v - r)
""",
    "the inner read is an output as well": """
    r[t,h,e]   = sum[d] k * S[t-1]
    S[t,h,d,e] = S[t-1] + 0.3 * k * (v - r)
    z[t,h,e]   = r + sum[d] w * S[t-1]
""",
}


@pytest.mark.parametrize("name", STEPS)
def test_chunkwise_is_the_equations(name: str) -> None:
    read = READ.replace("q * S", "q * S + z") if "z[t,h,e]" in STEPS[name] else READ
    text = HEAD + STEPS[name].lstrip("\n") + (READ if read == READ else READ.replace("\n", " + z\n"))
    system = load_system(text)
    derived = derive(system, "chunkwise")
    used = {n.op for t in derived.system.derived() if t.rhs is not None for n in walk(t.rhs)}
    assert "decayed_solve" in used
    assert "unit lower triangular" in " ".join(o.law for o in derived.obligations)
    outcomes = [o for o in run_suite(system, None, None, examples=10) if o.form == "chunkwise"]
    assert outcomes and [o for o in outcomes if not o.ok] == []


REFUSED = {
    "on both sides at once": """
    r[t,h,e]   = sum[d] w * S[t-1]
    l[t,h,d]   = sum[e] c * S[t-1]
    S[t,h,d,e] = S[t-1] - 0.1 * u * r - 0.1 * l * c + k * v
""",
    "the read is squared": """
    r[t,h,e]   = sum[d] w * S[t-1]
    S[t,h,d,e] = S[t-1] - 0.1 * u * r^2 + k * v
""",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_such_form_says_why(name: str) -> None:
    with pytest.raises(SeqError) as caught:
        derive(load_system(HEAD + REFUSED[name].lstrip("\n") + READ), "chunkwise")
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "form-not-available"
    reason = {"on both sides at once": "kinds of unknowns", "the read is squared": "pow"}
    assert any(reason[name] in note or "multiplied" in note for note in diagnostic.notes), diagnostic.notes


def test_a_state_that_reads_one_entry_of_a_wider_one_is_refused() -> None:
    text = "mixer m(x[t,c]) -> h[t,c]:\n    h[t,c] = tanh(cumsum[t](h[t-1,0] + x[t,0]))\n"
    with pytest.raises(SeqError, match="entry by entry"):
        derive(load_system(text), "chunkwise")

"""Coupled states in chunkwise form: matrices for decays, with inner reads beside them or without."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from seqdsl.algebra.cascade import with_followers
from seqdsl.api import load
from seqdsl.forms import derive
from seqdsl.ir.dependence import loop_of
from seqdsl.ir.node import walk
from seqdsl.ir.system import System
from seqdsl.semantics import load_system
from seqdsl.verify.suite import run_suite
from tests.backends.torch_module.harness import gap, module_of, piece, random_inputs

HEAD = (
    "mixer m(q[t,h,d], k[t,h,d], v[t,h,e], w[t,h,d], u[t,h,d], g[t,h,d], a[t,h], b[t,h], c[t,h,e]; m = 4)"
    " -> o[t,h,e]:\n"
)
READ = "    o[t,h,e] = sum[d] q * S\n"
SOLVED, READ_OUT = {"block_solve", "block_read", "block_state"}, {"block_read", "block_state"}
# Each with the operators that it must come to, and no scan: nothing steps through the states.
STEPS: dict[str, tuple[str, set[str]]] = {
    "momentum with a decay for each key": (
        """
    r[t,h,e]   = sum[d] k * S[t-1]
    M[t,h,d,e] = exp(g) * M[t-1] + 0.3 * k * (v - r)
    S[t,h,d,e] = sigmoid(a) * S[t-1] + M
""",
        SOLVED,
    ),
    "two states, each with a read of its own, both read by one sum": (
        """
    r[t,h,e]   = sum[d] w * M[t-1]
    p[t,h,e]   = sum[d] k * S[t-1]
    M[t,h,d,e] = exp(g) * M[t-1] - 0.2 * S[t-1] + 0.2 * u * p
    S[t,h,d,e] = 0.5 * tanh(a) * S[t-1] + 0.3 * M[t-1] - 0.2 * k * r + k * v
    o[t,h,e]   = sum[d] q * (S + w * M[t-1])
""",
        SOLVED,
    ),
    "three in a chain, the erase reads the middle one": (
        """
    r[t,h,e]   = sum[d] k * B[t-1]
    A[t,h,d,e] = exp(g) * A[t-1] + 0.3 * k * (v - r)
    B[t,h,d,e] = sigmoid(a) * B[t-1] + 0.5 * A
    S[t,h,d,e] = sigmoid(b) * S[t-1] + B
""",
        SOLVED,
    ),
    "a held state, and rank 2": (
        """
    r[t,h,e]   = sum[d] k * S[t // m * m - 1]
    p[t,h,e]   = sum[d] u * S[t-1]
    S[t,h,d,e] = exp(a) * S[t-1] + 0.3 * k * (v - r) - 0.2 * w * p
""",
        {"block_solve", "block_state", "decayed_read", "decayed_state"},
    ),
    "sums from a named boundary on": (
        """
    S0[t,h,d,e] = S[t // m * m - 1]
    A[t,h,d,e]  = where(t % m == 0, 0, A[t-1]) + 0.3 * k * (v - (sum[d] k * S0))
    S[t,h,d,e]  = S0 + A
""",
        SOLVED,
    ),
    "two lags": (
        """
    r[t,h,e]   = sum[d] k * S[t-2]
    S[t,h,d,e] = 0.5 * sigmoid(a) * S[t-1] + 0.3 * exp(g) * S[t-2] + 0.3 * k * (v - r)
""",
        SOLVED,
    ),
    "the error is scaled on its way": (
        """
    r[t,h,e]   = sum[d] k * S[t-1]
    M[t,h,d,e] = sigmoid(a) * M[t-1] + k * (v - r)
    S[t,h,d,e] = S[t-1] + 0.2 * sigmoid(b) * M
""",
        SOLVED,
    ),
    "resets, and an inner read of both": (
        """
    r[t,h,e]   = sum[d] k * (S[t-1] + M[t-1])
    M[t,h,d,e] = where(t % 5 == 3, 0, exp(g) * M[t-1]) + 0.3 * k * (v - r)
    S[t,h,d,e] = where(t % 7 == 3, 0, S[t-1]) + M
""",
        SOLVED,
    ),
    "a rank that is an axis": (
        """
    f[t, j: 3, h, d] = k * (j + 1)
    r[t,j,h,e] = sum[d] f * S[t-1]
    M[t,h,d,e] = exp(g) * M[t-1] - 0.02 * sum[j] f * r + 0.1 * sum[j] f * v
    S[t,h,d,e] = sigmoid(a) * S[t-1] + M
""",
        SOLVED,
    ),
    "a decay along the columns": (
        """
    r[t,h,e]   = sum[d] k * S[t-1]
    M[t,h,d,e] = sigmoid(c) * M[t-1] + 0.3 * k * (v - r)
    S[t,h,d,e] = S[t-1] + M
""",
        SOLVED,
    ),
    "the low rank stands on the columns": (
        """
    r[t,h,d]   = sum[e] c * S[t-1]
    M[t,h,d,e] = sigmoid(a) * M[t-1] + 0.1 * c * (k - r)
    S[t,h,d,e] = S[t-1] + 0.3 * M
""",
        SOLVED,
    ),
    "one that follows, without an inner read": (
        """
    M[t,h,d,e] = exp(g) * M[t-1] + k * v
    S[t,h,d,e] = sigmoid(a) * S[t-1] + M
""",
        READ_OUT,
    ),
    "a turn": (
        """
    M[t,h,d,e] = 0.9 * cos(a) * M[t-1] - 0.9 * sin(a) * S[t-1] + k * v
    S[t,h,d,e] = 0.9 * sin(a) * M[t-1] + 0.9 * cos(a) * S[t-1]
""",
        READ_OUT,
    ),
    "a state that is used entry by entry is scanned, its writes being known": (
        """
    r[t,h,e]   = sum[d] k * S[t-1]
    M[t,h,d,e] = exp(g) * M[t-1] + 0.3 * k * (v - r)
    S[t,h,d,e] = sigmoid(a) * S[t-1] + M
    o[t,h,e]   = sum[d] (S * S + q)
""",
        {"block_solve", "affine_scan"},
    ),
}


def system_of(name: str) -> System:
    step = STEPS[name][0].lstrip("\n")
    return load_system(HEAD + step + ("" if "o[t,h,e]" in step else READ))


def operators(system: System) -> set[str]:
    made = {n.op for t in system.derived() if t.rhs is not None for n in walk(t.rhs)}
    return {op for op in made if op.startswith(("block_", "decayed_")) or op.endswith("_scan")}


@pytest.mark.parametrize("name", STEPS)
def test_chunkwise_is_the_equations(name: str) -> None:
    system = system_of(name)
    derived = derive(system, "chunkwise")
    assert operators(derived.system) == STEPS[name][1]
    laws = " ".join(o.law for o in derived.obligations)
    assert ("unit lower triangular" in laws) == ("block_solve" in STEPS[name][1])
    outcomes = list(run_suite(system, None, None, examples=6, forms=("chunkwise", "quadratic")))
    assert outcomes and [o for o in outcomes if not o.ok] == []


def entries(state: dict[str, Any]) -> list[torch.Tensor]:
    """The tensors of a state record."""
    return [
        x for v in state.values() for x in (entries(v) if isinstance(v, dict) else [v]) if isinstance(x, torch.Tensor)
    ]


@pytest.mark.parametrize("name", STEPS)
def test_module_values_states_and_gradients(name: str) -> None:
    """At lengths below, at and beyond a chunk; the gradients of the states too, and every cut."""
    system = system_of(name)
    plain, formed = (module_of(derive(system, form).system, form, m=4) for form in ("recurrent", "chunkwise"))
    for length in (0, 1, 9, 65):
        inputs = random_inputs(system, t=length, grad=True)
        (wanted, ended), (found, state) = (m(*inputs, return_state=True) for m in (plain, formed))
        assert gap(found, wanted) < 1e-9
        assert gap(state, ended) < 1e-9
    weights = [torch.randn_like(x) for x in (wanted, *entries(ended))]
    losses = [
        sum((x * w).sum() for x, w in zip((y, *entries(s)), weights, strict=True))
        for y, s in ((found, state), (wanted, ended))
    ]
    grads = [torch.autograd.grad(loss, inputs, allow_unused=True) for loss in losses]  # type: ignore[arg-type]
    assert [a is None for a in grads[0]] == [b is None for b in grads[1]]
    assert max(gap(a, b) for a, b in zip(*grads, strict=True) if a is not None and b is not None) < 1e-8
    inputs = piece(system, inputs, 0, 9)
    wanted, ended = plain(*inputs, return_state=True)
    for first, second in ((plain, formed), (formed, plain), (formed, formed)):
        for cut in (0, 1, 4, 6, 9):
            head, state = first(*piece(system, inputs, 0, cut), return_state=True)
            tail, last = second(*piece(system, inputs, cut, 9), state=state, return_state=True)
            assert gap(torch.cat([head, tail], 1), wanted) < 1e-9
            assert gap(last, ended) < 1e-9


def test_one_error_written_to_two_states_is_one_unknown() -> None:
    """Twice the unknowns would be eight times the work of the triangular system."""
    for name in ("momentum with a decay for each key", "the error is scaled on its way"):
        derived = derive(system_of(name), "chunkwise").system
        assert [i for i in derived.indices if i.endswith(".rank")] == []


def test_what_depends_on_a_read_of_the_first_does_not_join_it() -> None:
    """S follows M entry by entry, and through what was read of M as well: the two are solved in order."""
    text = HEAD + """
    M[t,h,d,e] = exp(g) * M[t-1] + k * v
    p[t,h,e]   = sum[d] w * M
    S[t,h,d,e] = sigmoid(a) * S[t-1] + M + 0.3 * u * p
""".lstrip("\n") + READ
    system = load_system(text)
    assert "block_read" not in operators(derive(system, "chunkwise").system)
    outcomes = list(run_suite(system, None, None, examples=6, forms=("chunkwise",)))
    assert outcomes and [o for o in outcomes if not o.ok] == []


@pytest.mark.parametrize(("count", "joined"), [(3, 3), (12, 1)])
def test_a_long_cascade_is_not_one_block(count: int, joined: int) -> None:
    """A block of many states would cost the cube of their number, and finding it that of all recurrences."""
    lines = ["mixer chain(x[t,c]) -> y[t,c]:"]
    for n in range(count):
        lines.append(f"    s{n}[t,c] = 0.5 * s{n}[t-1] + {f's{n - 1}' if n else 'x'}")
    system = load("\n".join([*lines, f"    y[t,c] = s{count - 1}\n"])).system()
    assert len(with_followers(system, loop_of(system, "s0")).tensors()) == joined

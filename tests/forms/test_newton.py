"""Which recurrences the form newton solves, that its equations mean the same, that the slopes are derivatives, and why it
refuses the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqdsl.diagnostics import SeqError
from seqdsl.forms import derive
from seqdsl.forms.newton import slopes
from seqdsl.forms.newton_rank import couplings, low_rank
from seqdsl.ir import build
from seqdsl.ir.interpreter import interpret
from seqdsl.ir.node import Node
from seqdsl.ir.system import System, Tensor
from seqdsl.ir.text import print_system, read_system
from seqdsl.ir.validate import validate
from seqdsl.plan import choose
from seqdsl.semantics import load_system

UNNAMED = Path(__file__).resolve().parent.parent / "unnamed"
CELLS = {
    "contracting": """
mixer m(a[t,n], r[t,n], b[t,n], u[n], v[n], w[n]) -> h[t,n]:
    z[t,n] = sigmoid(a + u * h[t-1])
    g[t,n] = sigmoid(r + v * h[t-1])
    c[t,n] = tanh(b + w * g * h[t-1])
    h[t,n] = (1 - z) * h[t-1] + z * c
""",
    "coupled": """
mixer m(a[t,n], f[t,n], b[t,n], r[t,n], u[n], v[n], w[n], p[n]) -> h[t,n], i[t,n]:
    i[t,n] = sigmoid(a + u * h[t-1])
    g[t,n] = sigmoid(f + v * h[t-1])
    o[t,n] = sigmoid(r + p * h[t-1])
    c[t,n] = g * c[t-1] + i * tanh(b + w * h[t-1])
    h[t,n] = o * tanh(c)
""",
    "reset": """
mixer m(a[t,n], b[t,n], m[t], u[n]) -> h[t,n]:
    k[t,n] = where(m > 1, 0, h[t-1])
    h[t,n] = tanh(a + u * k) + sigmoid(b) * k
""",
    "divided where chosen": """
mixer m(x[t,n], m[t], u[n]) -> h[t,n]:
    h[t,n] = where(m > 0 and u < 1, sin(x + h[t-1]) / (1 + u^2 + h[t-1]^2), h[t-1] / (2 + x^2))
""",
    "divided under a comparison of the state": """
mixer m(x[t,n], a) -> h[t,n]:
    h[t,n] = sin(where(x > 0, x, min(a, h[t-1]))) * sqrt(abs(where(x > -1, h[t-1], 0)) + 0.5)
""",
    "started": """
mixer m(a[t,n], x[n]) -> h[t,n], y[t,n]:
    h[-1,n] = tanh(x)
    h[t,n]  = sin(h[t-1]) + log(1 + a^2)
    y[t,n]  = h[t-1] * a
""",
    "backwards": """
mixer m(a[t,n], u[n]) -> h[t,n]:
    h[t,n] = a + u * silu(h[t+1])
""",
    "anonymous": """
mixer m(x[t,n,k], y[t,k]) -> s[t,n,k]:
    s[t,n,k] = where(t % 3 == 0, y, 1 / (1 + s[t-1]^2)) + max(s[t-1], x) / 2
""",
    "constant": """
mixer m(u[n], x[t]) -> h[t,n]:
    h[t,n] = cos(h[t-1] + u) + 0 * x
""",
}


MIXING = {
    "elman": """
mixer m(a[t,n], w[n,m]) -> h[t,n]:
    index m over n
    h[t,n] = tanh(a + sum[m] w * h[t-1,m])
""",
    "gated, reset before the weight": """
mixer m(a[t,n], b[t,n], c[t,n], u[n,m], v[n,m], w[n,m]) -> h[t,n]:
    index m over n
    z[t,n] = sigmoid(a + sum[m] u * h[t-1,m])
    r[t,n] = sigmoid(b + sum[m] v * h[t-1,m])
    g[t,n] = tanh(c + sum[m] w * r[t,m] * h[t-1,m])
    h[t,n] = (1 - z) * h[t-1] + z * g
""",
    "a pair": """
mixer m(a[t,n], b[t,n], c[t,n], d[t,n], u[n,m], v[n,m], w[n,m], p[n,m]) -> h[t,n]:
    index m over n
    i[t,n] = sigmoid(a + sum[m] u * h[t-1,m])
    f[t,n] = sigmoid(b + sum[m] v * h[t-1,m])
    o[t,n] = sigmoid(c + sum[m] p * h[t-1,m])
    s[t,n] = f * s[t-1] + i * tanh(d + sum[m] w * h[t-1,m])
    h[t,n] = o * tanh(s)
""",
    "exponential gates, stabilised": """
mixer m(a[t,n], b[t,n], c[t,n], u[n,m], v[n,m], w[n,m]) -> h[t,n], k[t,n]:
    index m over n
    i[t,n] = a + sum[m] u * h[t-1,m]
    f[t,n] = log_sigmoid(b + sum[m] v * h[t-1,m])
    k[t,n] = max(f + k[t-1], i)
    s[t,n] = exp(f + k[t-1] - k) * s[t-1] + exp(i - k) * tanh(c + sum[m] w * h[t-1,m])
    z[t,n] = exp(f + k[t-1] - k) * z[t-1] + exp(i - k)
    h[t,n] = s / (z + 1)
""",
    "two layers in heads, started": """
mixer m(a[t,k,n], x[k,n], u[k,j,n], v[k,j,n], w[n]) -> h[t,k,n], y[t]:
    h[-1,k,n] = x
    h[t,k,n]  = w * h[t-1] / 2 + sum[j] v * tanh(sum[n] u * h[t-1] + a[t,k,0]) + a
    y[t]      = sum[k,n] h
""",
    "masked, backwards": """
mixer m(a[t,n], w[n,m]) -> h[t,n]:
    index m over n
    h[t,n] = a + silu(h[t+1] / 2) + sum[m | m <= n] w * sin(h[t+1,m]) * (1 + m)
""",
    "a gate for all": """
mixer m(a[t,n], b[t], w[n]) -> h[t,n]:
    g[t]   = sigmoid(b + sum[n] w * h[t-1])
    h[t,n] = g * h[t-1] + (1 - g) * tanh(a)
""",
}
# States of which the entries mix through a few sums alone, none of which is forgotten within a piece; the rank of each.
LOW_RANK = {
    "one sum": (1, """
mixer m(x[t,n], u[n], w[n]) -> h[t,n]:
    h[t,n] = 0.999 * h[t-1] + 0.01 * tanh(x - u * (sum[n] w * h[t-1]))
"""),
    "a sum and a mean": (2, """
mixer m(x[t,n], u[n], w[n], p[t,n]) -> h[t,n]:
    h[t,n] = 0.99 * h[t-1] + 0.02 * tanh(x / (1 + (sum[n] w * h[t-1])^2) + p * mean[n] (sin(h[t-1])))
"""),
    "a pair": (3, """
mixer m(x[t,n], y[t,n], u[n], w[n]) -> h[t,n], s[t,n]:
    s[t,n] = 0.99 * s[t-1] + 0.02 * x * tanh(1 + u * (sum[n] w * h[t-1]) + h[t-1])
    h[t,n] = (0.98 - 0.01 * n / |n|) * h[t-1] - 0.02 * sigmoid(y) * tanh(s + sum[n] w * s[t-1])
"""),
    "two hidden entries, in heads": (2, """
mixer m(x[t,k,n], z[k,n], u[k,j: 2,n], v[k,n,j]) -> h[t,k,n]:
    h[-1,k,n] = z
    h[t,k,n]  = 0.99 * h[t-1] + 0.05 * (sum[j] v * tanh(sum[n] u * h[t-1] + x[t,k,0])) + 0.01 * x
"""),
    "a gate for all": (1, """
mixer m(a[t,n], b[t], w[n]) -> h[t,n]:
    g[t]   = sigmoid(4 + b + sum[n] w * h[t-1])
    h[t,n] = g * h[t-1] + (1 - g) * tanh(a)
"""),
    "backwards, where chosen": (2, """
mixer m(x[t,n], m[t], w[n], v[n]) -> h[t,n]:
    h[t,n] = 0.995 * h[t+1] + 0.01 * where(m > 0, sin(x - v * (sum[n] w * h[t+1])), -(sum[n] v * h[t+1]) / (1 + x^2))
"""),
}  # fmt: skip


def inputs_of(system: System, length: int, *, seed: int = 0, scale: float = 1.0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    sizes = {"t": length, "n": 3, "m": 3, "k": 2, "j": 4}
    return {t.name: scale * rng.standard_normal([sizes[i] for i in t.indices]) for t in system.inputs()}


@pytest.mark.parametrize("name", [*CELLS, *MIXING, *(n for n in LOW_RANK if "hidden" not in n)])
@pytest.mark.parametrize("length", [0, 1, 13])
def test_the_same_function_and_state(name: str, length: int) -> None:
    system = load_system({**{n: text for n, (_, text) in LOW_RANK.items()}, **CELLS, **MIXING}[name])
    derived = derive(system, "newton").system
    validate(derived)
    text = print_system(derived)
    assert print_system(read_system(text)) == text
    inputs = inputs_of(system, length)
    wanted, found = (interpret(s, inputs=inputs) for s in (system, derived))
    for kind in ("outputs", "state"):
        if wanted[kind] is None:
            assert found[kind] is None
            continue
        for key, value in wanted[kind].items():
            np.testing.assert_allclose(found[kind][key], value, rtol=1e-13, atol=1e-13)


def test_a_state_is_handed_on() -> None:
    system = load_system(CELLS["coupled"])
    derived = derive(system, "newton").system
    inputs = inputs_of(system, 9)
    head, tail = ({k: v[at] if len(v) == 9 else v for k, v in inputs.items()} for at in (slice(4), slice(4, None)))
    wanted = interpret(system, inputs=inputs)["outputs"]["h"][4:]
    state = interpret(derived, inputs=head)["state"]
    np.testing.assert_allclose(interpret(derived, inputs=tail, state=state)["outputs"]["h"], wanted, rtol=1e-13)


def slope_value(system: System, inputs: dict[str, Any], state: str, k: int) -> Any:
    """The k-th slope of a state at the first position, as an output of a system of its own."""
    rhs = system.tensors[state].rhs
    assert rhs is not None and rhs.op == "newton"
    probe = replace(system.tensors[state], name="probe", rhs=rhs.args[2 + k], edges=())
    shown = replace(system, tensors={**system.tensors, "probe": probe}, outputs=("probe",), claims=())
    return shown, inputs


@pytest.mark.parametrize(("name", "states"), [("contracting", ["h"]), ("coupled", ["c", "h"]), ("reset", ["h"])])
def test_slopes_are_derivatives_of_the_step(name: str, states: list[str]) -> None:
    """Against central differences over the state that enters."""
    system = load_system(CELLS[name])
    derived = derive(system, "newton").system
    inputs = inputs_of(system, 1)
    rng = np.random.default_rng(5)
    start = {s: rng.standard_normal(3) for s in states}
    for after in states:
        for k, before in enumerate(states):
            shown, _ = slope_value(derived, inputs, after, k)
            found = interpret(shown, inputs=inputs, state=start)["outputs"]["probe"][0]
            both = []
            for d in (1e-6, -1e-6):
                moved = {**start, before: start[before] + d}
                both.append(interpret(derived, inputs=inputs, state=moved)["state"][after])
            np.testing.assert_allclose(found, (both[0] - both[1]) / 2e-6, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", [n for n in MIXING if "backwards" not in n])
def test_matrices_are_derivatives_of_the_step(name: str) -> None:
    """Each column against central differences over the entry of the state that enters."""
    system = load_system(MIXING[name])
    derived = derive(system, "newton").system
    inputs = inputs_of(system, 1)
    states = {n: t for n, t in derived.tensors.items() if t.rhs is not None and t.rhs.op == "newton"}
    rng = np.random.default_rng(5)
    shapes = {n: [{"k": 2}.get(i, 3) for i in t.indices if i != "t"] for n, t in states.items()}
    start = {n: rng.random(shape) for n, shape in shapes.items()}
    for after, tensor in states.items():
        assert tensor.rhs is not None
        for k, before in enumerate(states):
            diagonal, matrix = tensor.rhs.args[2 + k], tensor.rhs.args[2 + len(states) + k]
            found = np.zeros((*shapes[after], 3))
            if matrix is not build.ZERO:
                found = found + probe(derived, tensor, matrix.args[0], matrix.attr[0], inputs, start)
            if diagonal is not build.ZERO:
                found = found + probe(derived, tensor, diagonal, (), inputs, start)[..., None] * np.eye(3)
            for m in range(3):
                both = []
                for d in (1e-6, -1e-6):
                    moved = start[before].copy()
                    moved[..., m] += d
                    both.append(interpret(derived, inputs=inputs, state={**start, before: moved})["state"][after])
                np.testing.assert_allclose(found[..., m], (both[0] - both[1]) / 2e-6, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", LOW_RANK)
def test_matrices_of_small_rank_are_their_columns_times_rows(name: str) -> None:
    rank, text = LOW_RANK[name]
    system = derive(load_system(text), "newton").system
    states = [t for t in system.tensors.values() if t.rhs is not None and t.rhs.op == "newton"]
    rows = low_rank(system, states)
    assert rows is not None
    inputs, found = inputs_of(system, 1), 0
    if "hidden" in name:
        inputs |= {"u": np.linspace(-1, 1, 12).reshape(2, 2, 3), "v": np.linspace(1, 2, 12).reshape(2, 3, 2)}
    for state, row in zip(states, rows, strict=True):
        assert state.rhs is not None
        for matrix, terms in zip(state.rhs.args[2 + len(states) :], row, strict=True):
            if matrix is build.ZERO:
                assert not terms
                continue
            column = matrix.attr[0][0]
            total: Any = 0
            for term in terms:
                assert column not in term.left.free and column.rstrip("'") not in term.right.free
                product = build.reduce("sum", term.over, build.mul(term.left, term.right))
                total = total + probe(system, state, product, (column,), inputs, None)
                found += 2 if term.over else 1
            wanted = probe(system, state, matrix.args[0], (column,), inputs, None)
            np.testing.assert_allclose(total, wanted, rtol=1e-12)
    assert found == rank
    assert couplings(system) == dict(zip([s.name for s in states], rows, strict=True))
    laws = [o.law for o in derive(load_system(text), "newton").obligations]
    assert any("[D2 U1 + U2 (W2' U1), U2]" in law for law in laws)


@pytest.mark.parametrize(
    "step",
    [
        "tanh(x + sum[m] w * h[t-1,m])",  # a full matrix
        "tanh(x + sum[m | m <= n] u[m] * h[t-1,m])",
        "tanh(x + sum[m] sin(u[n] * h[t-1,m]))",
        "tanh(x + sum[m] where(n == m, u[m] * h[t-1,m], 0))",
        "tanh(x + sum[m] h[t-1,m] / (1 + w^2))",
        "tanh(x + sum[j] v[n,j] * sin(sum[m] v[m,j] * h[t-1,m]))",  # as many terms as a call gives
        " + ".join(f"tanh(x + {k} * (sum[m] u[m]^{k} * h[t-1,m]))" for k in range(1, 6)),  # more than are worth it
    ],
)
def test_matrices_of_full_rank(step: str) -> None:
    text = "mixer m(x[t,n], w[n,m], u[n], v[n,j]) -> h[t,n]:\n    index m over n\n    h[t,n] = " + step + "\n"
    derived = derive(load_system(text), "newton")
    assert low_rank(derived.system, [derived.system.tensors["h"]]) is None and not couplings(derived.system)
    assert len(derived.obligations) == 1
    assert choose(load_system(text)).form == "recurrent"


def probe(system: System, tensor: Tensor, node: Node, more: tuple[str, ...], inputs: Any, start: Any) -> Any:
    """A term of a state's equation, at the first position."""
    shown = replace(tensor, name="probe", indices=(*tensor.indices, *more), rhs=node, edges=())
    whole = replace(system, tensors={**system.tensors, "probe": shown}, outputs=("probe",), claims=())
    return interpret(whole, inputs=inputs, state=start)["outputs"]["probe"][0]


def test_the_slopes_of_shared_terms() -> None:
    """A term that is used twice: d/dx (x y + sin(x y)), y = x^2, is 3 x^2 (1 + cos(x^3))."""
    x = build.read("x", [], "real")
    y = build.mul(x, build.make("pow", x, build.const(2)))
    (slope,) = slopes(build.add(y, build.make("sin", y)), [x])
    assert "cos" in repr(slope)


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        ("h[t,n] = tanh(x + l2_norm[n](h[t-1]))", "stands inside `l2_norm`"),
        ("h[t,n] = tanh(x + sum[m] w * rms_norm[m](h[t-1,m]))", "stands inside `rms_norm`"),
        ("h[t,n] = tanh(x + sum[m | h[t-1,m] > 0] w)", "decides a guard"),
        ("h[t,n] = tanh(x + sum[m] w * where(h[t-1,m] > 0, h[t-1,m], 1))", "decides a choice"),
        ("h[t,n] = tanh(x + sum[m] w * round(h[t-1,m]))", "hard step"),
        ("h[t,n] = tanh(x + sum[m] w * h[t-1,(m + 1) % |n|])", "not at its own place, and in no sum"),
        ("h[t,n] = x + round(h[t-1] / 2)", "hard step"),
        ("h[t,n] = x + step(h[t-1])", "hard step"),
        ("h[t,n] = where(h[t-1] > 1, 0, h[t-1] / 2) + x", "decides a choice"),
        ("h[t,n] = tanh(h[t-1, |n| - 1 - n]) + x", "not at its own place"),
        ("h[t,n] = tanh(stop(h[t-1])) + x", "no derivative"),
        ("h[t,n] = sigmoid(x) * h[t-1] + x", "needs no Newton"),
        ("h[t,n] = max(h[t-1] - 1, x)", "needs no Newton"),  # affine over (max, +)
        ("h[t,n] = tanh(h[t-2]) + x", "not one step away"),
    ],
)
def test_refusals_have_reasons(step: str, reason: str) -> None:
    text = "mixer m(x[t,n], w[n,m]) -> h[t,n]:\n    index m over n\n    " + step + "\n"
    if "[m" not in step:
        text = "mixer m(x[t,n]) -> h[t,n]:\n    " + step + "\n"
    with pytest.raises(SeqError, match="form-not-available") as caught:
        derive(load_system(text), "newton")
    assert any(reason in note for note in caught.value.diagnostics[0].notes), caught.value


@pytest.mark.parametrize("name", ["population", "self_gate", "soft_saturation", "two_species"])
def test_what_nobody_has_named(name: str) -> None:
    """Found by the update map alone."""
    system = load_system(UNNAMED / f"{name}.seq")
    derived = derive(system, "newton").system
    rng = np.random.default_rng(2)
    inputs = {t.name: rng.uniform(0.1, 0.9, [7 if i == "t" else 3 for i in t.indices]) for t in system.inputs()}
    wanted, found = (interpret(s, inputs=inputs)["outputs"] for s in (system, derived))
    for key, value in wanted.items():
        np.testing.assert_allclose(found[key], value, rtol=1e-12)


def test_a_library_cell_that_has_none() -> None:
    with pytest.raises(SeqError) as caught:
        derive(load_system("min_gru"), "newton")
    assert any("needs no Newton" in note for note in caught.value.diagnostics[0].notes), caught.value


def test_entries_that_mix_along_two_axes() -> None:
    text = "mixer m(x[t,n,k], w[m,j]) -> h[t,n,k]:\n    index m over n, j over k\n"
    with pytest.raises(SeqError) as caught:
        derive(load_system(text + "    h[t,n,k] = tanh(x + sum[m,j] w * h[t-1,m,j])\n"), "newton")
    assert any("mix along `k` and `n` at once" in note for note in caught.value.diagnostics[0].notes), caught.value


@pytest.mark.parametrize(
    ("name", "form"),
    [("contracting", "newton"), ("coupled", "newton"), ("reset", "newton"), ("anonymous", "recurrent")],  # wide states
)
def test_what_auto_takes(name: str, form: str) -> None:
    assert choose(load_system(CELLS[name])).form == form


@pytest.mark.parametrize(("width", "form"), [("N = 16", "newton"), ("N = 80", "recurrent"), ("N", "recurrent")])
def test_auto_solves_cells_that_mix_where_they_are_known_to_be_narrow(width: str, form: str) -> None:
    text = f"mixer m(x[t,c]; {width}) -> h[t,n]:\n"
    text += "    h[t, n: N] = tanh(linear[c](x) + linear[n -> n](h[t-1]))\n"
    if "=" in width:
        text = text.replace("; " + width, "").replace("n: N", f"n: {width.split()[-1]}")
    assert choose(load_system(text)).form == form


@pytest.mark.parametrize("name", [n for n in LOW_RANK if "heads" not in n])  # in which 64 x 64 states are taken for wide
def test_auto_solves_cells_that_mix_through_a_few_sums(name: str) -> None:
    assert choose(load_system(LOW_RANK[name][1])).form == "newton"


def test_the_law_is_stated() -> None:
    (obligation,) = derive(load_system(CELLS["contracting"]), "newton").obligations
    assert "after m corrections the first m pieces are exact" in obligation.law

"""Which recurrences the form wavefront takes level by level over a graph, that their equations mean the same and hand on the
same state, and why it refuses the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqdsl.diagnostics import SeqError
from seqdsl.forms import derive
from seqdsl.ir.dependence import recurrences
from seqdsl.ir.interpreter import interpret
from seqdsl.ir.system import System
from seqdsl.ir.text import print_system, read_system
from seqdsl.ir.validate import validate
from seqdsl.plan import choose
from seqdsl.semantics import load_system
from tests.forms.test_wavefront import assert_same, is_steppable, part

TESTS = Path(__file__).resolve().parent.parent
GRAPHS = {
    "edges": """
mixer m(x[n,d], src[a]: int, dst[a]: int, w[a]) -> h[n,d]:
    h[n,d] = tanh(x + sum[a | dst == n and 0 <= src and src < n] w * h[src])
""",
    "states on edges": """
mixer m(x[a,d], src[a]: int, dst[a]: int, T[a,b], U[d,e]) -> h[a,d], c[a,d]:
    index b over a, e over d
    c[a,d] = sum[b | b < a and dst[b] == src] T * sigmoid(h[b]) * c[b] + x
    h[a,d] = tanh(c + sum[b,e | b < a and dst[b] == src] U[e,d] * h[b,e] + sum[e] U * x[a,e])
""",
    "parents": """
mixer m(x[n,d], p[n]: int, U[d,e]) -> h[n,d], y[n,d]:
    index e over d
    h[n,d] = tanh(x + sum[e] U * where(0 <= p and p < n, h[p,e], 0))
    y[n,d] = x * h
""",
    "children": """
mixer m(x[n,d], p[n]: int) -> h[n,d]:
    index m over n
    s[n,d] = sum[m | m < n and p[m] == n] h[m]
    c[n,d] = sum[m | m < n and p[m] == n] sigmoid(x[n] + h[m]) * c[m] + x
    h[n,d] = tanh(c - s)
""",
    "mask": """
mixer m(x[n,d], A[n,m]: bool, w[m,d], U[e,d]) -> h[n,d]:
    index m over n
    index e over d
    h[n,d] = tanh(x + sum[m,e | m < n and A] U * w[m] * h[m,e] / (1 + n - m))
""",
    "longest path": """
mixer m(x[n], src[a]: int, dst[a]: int, w[a]) -> h[n]:
    h[n] = x + max(0, max[a | dst == n and 0 <= src and src < n](w + h[src]))
""",
    "shortest and soft paths": """
mixer m(x[n,d], p[n]: int, q[n]: int) -> h[n,d], g[n,d]:
    index m over n
    h[n,d] = x + clamp(min[m | m < n and p[m] == q](h[m] - x[m]), -9, 9)
    g[n,d] = x - logsumexp[m | m < n and q[m] == p or m == n](where(m == n, x, 0)) + sum[m | m < n and p[m] == q] g[m] / 3
""",
    "backwards": """
mixer m(x[n,d], src[a]: int, dst[a]: int) -> h[n,d]:
    h[n,d] = tanh(x + sum[a | src == n and n < dst and dst < |n|] h[dst])
""",
    "a heap": """
mixer m(x[n,d]) -> h[n,d]:
    h[n,d] = tanh(where(n > 0, h[(n - 1) // 2], 1) + x)
""",
    "own gate": """
mixer m(x[n,d], p[n]: int) -> h[n,d]:
    index m over n
    g[n,d] = sigmoid(x) * sum[m | m < n and p[m] == p] h[m] / 5
    h[n,d] = x + sum[m | m < n and p[m] == n] g[n] * h[m]
""",
}


def inputs_of(system: System, nodes: int, edges: int, seed: int = 0) -> dict[str, Any]:
    """Normal numbers, and edges from and to anywhere, some of them off the axis."""
    rng, found = np.random.default_rng(seed), {}
    for t in system.inputs():
        shape = [{"n": nodes, "m": nodes, "a": edges, "b": edges, "c": edges}.get(i, 3) for i in t.indices]
        if t.dtype == "int":
            found[t.name] = rng.integers(-1, nodes + 1, shape)
        else:
            found[t.name] = rng.random(shape) < 0.2 if t.dtype == "bool" else rng.standard_normal(shape)
    return found


@pytest.mark.parametrize("name", GRAPHS)
def test_the_same_function_and_state(name: str) -> None:
    system = load_system(GRAPHS[name])
    derived = derive(system, "wavefront").system
    validate(derived)
    text = print_system(derived)
    assert print_system(read_system(text)) == text
    for nodes, edges in ((0, 0), (1, 0), (1, 2), (6, 9)):
        inputs = inputs_of(system, nodes, edges)
        assert_same(interpret(derived, inputs=inputs), interpret(system, inputs=inputs))


@pytest.mark.parametrize("name", [n for n, text in GRAPHS.items() if is_steppable(load_system(text))])
def test_a_state_is_handed_on(name: str) -> None:
    system = load_system(GRAPHS[name])
    derived = derive(system, "wavefront").system
    inputs = inputs_of(system, 6, 9)
    wanted = interpret(system, inputs=inputs)
    for cut in (0, 1, 4, 6):
        state = interpret(derived, inputs=part(system, inputs, 0, cut))["state"]
        found = interpret(derived, inputs=part(system, inputs, cut, 6), state=state)
        for key, value in wanted["outputs"].items():
            np.testing.assert_allclose(found["outputs"][key], value[cut:], rtol=1e-13, atol=1e-13)
        assert_same({**found, "outputs": {}}, {**wanted, "outputs": {}})


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("h[n] = tanh(h[n-1]) + x", "at a fixed distance"),
        ("h[n] = x + sum[m | m < n] A * h[m]", "only says what comes before"),
        ("h[n] = x + sum[m | m < n and p[m] == n] h[m] + h[n-1]", "at a fixed distance"),
        ("h[n] = x + sum[m | m < n and p[m] == n] softmax[m | m < n and p[m] == n](h[m]) * h[m]", "over the same index"),
        ("h[n] = x + prod[m | m < n and p[m] == n](h[m])", "stands inside `prod`"),
        ("h[n] = x + sum[m | m < n and p[m] == n and h[m] > 0] x[m]", "the state decides a guard"),
        ("h[n] = x + sum[m | m < n and p[m] == n] where(A > 0, h[m], 0)", "below a choice"),
        ("h[-1] = 1\n    h[n] = x + where(p < n, h[p], 0)", "may fall on a base case"),
    ],
)
def test_refusals_have_reasons(lines: str, reason: str) -> None:
    text = f"mixer m(x[n], p[n]: int, A[n,m]) -> h[n]:\n    index m over n\n    {lines}\n"
    with pytest.raises(SeqError) as caught:
        derive(load_system(text), "wavefront")
    shown = [*caught.value.diagnostics[0].notes, caught.value.diagnostics[0].message]
    assert any(reason in note for note in shown), caught.value


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        ("x + sum[m | m < n and p[m] == n] h[m]", "differs from lane to lane"),
        ("x + tanh(h[n // 4 * 4 - 1])", "holds some of what came before"),
    ],
)
def test_what_makes_no_graph(step: str, reason: str) -> None:
    text = f"mixer m(x[n,d], p[n,d]: int) -> h[n,d]:\n    index m over n\n    h[n,d] = {step}\n"
    with pytest.raises(SeqError) as caught:
        derive(load_system(text), "wavefront")
    assert any(reason in note for note in caught.value.diagnostics[0].notes), caught.value


def test_without_an_order_there_is_no_recurrence() -> None:
    """What is read has to come before by the text: then no numbers make a cycle, and none has to be looked for."""
    text = "mixer m(x[n], p[n]: int) -> h[n]:\n    index m over n\n    h[n] = x + sum[m | p[m] == n] h[m]\n"
    with pytest.raises(SeqError, match="not-well-founded"):
        load_system(text)


@pytest.mark.parametrize("file", ["corpus/plstm.seq", "unnamed/watershed.seq"])
def test_what_is_found_by_its_equations_alone(file: str) -> None:
    system = load_system(TESTS / file, "plstm_dag" if "plstm" in file else None)
    derived = derive(system, "wavefront")
    assert derived.kept == () and all(n.op == "level" for n in loop_terms(derived.system))
    inputs = inputs_of(system, 6, 9)
    inputs = {k: abs(v) if k in ("src", "dst") else v for k, v in inputs.items()}
    assert_same(interpret(derived.system, inputs=inputs), interpret(system, inputs=inputs))


def loop_terms(system: System) -> list[Any]:
    return [system.tensors[n].rhs for loop in recurrences(system) for n in loop.tensors()]


@pytest.mark.parametrize(
    ("name", "form"), [("edges", "wavefront"), ("states on edges", "wavefront"), ("mask", "recurrent")]
)
def test_what_auto_takes(name: str, form: str) -> None:
    """A list of edges is taken to be a wide graph; a mask of all pairs may be full, and then there is a level for each."""
    assert choose(load_system(GRAPHS[name])).form == form

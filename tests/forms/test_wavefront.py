"""Which nests of two loops the form wavefront takes front by front, that its equations mean the same and hand on the same
state, and why it refuses the others."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

from seqdsl.diagnostics import SeqError
from seqdsl.forms import derive
from seqdsl.forms.grid import geometry
from seqdsl.ir.dependence import recurrences
from seqdsl.ir.interpreter import interpret
from seqdsl.ir.node import walk
from seqdsl.ir.state import NotSteppable, flatten, state_record
from seqdsl.ir.system import System
from seqdsl.ir.text import print_system, read_system
from seqdsl.ir.validate import validate
from seqdsl.plan import choose, cost
from seqdsl.semantics import load_system

HEAD = "mixer m(x[i,j,c], a[i,j,c]) -> y[i,j,c]:\n"
GRIDS = {
    "affine": HEAD + "    y[i,j,c] = a * y[i-1] + 0.5 * y[i,j-1] - a * y[i-1,j-1] / 3 + x\n",
    "nonlinear": HEAD + "    y[i,j,c] = sigmoid(a) * tanh(y[i-1] * y[i,j-1]) + x\n",
    "alignment": """
mixer m(x[i,j], gap) -> y[i,j]:
    y[-1,j] = gap * (j + 1)
    y[i,-1] = gap * (i + 1)
    y[i,j]  = max(y[i-1,j-1] + x, max(y[i-1] + gap, y[i,j-1] + gap))
""",
    "coupled": """
mixer m(x[i,j,n], U[m,n], V[m,n]) -> h[i,j,n]:
    index m over n
    f[i,j,n] = sigmoid(x + sum[m] U * h[i-1,j,m])
    g[i,j,n] = sigmoid(sum[m] V * h[i,j-1,m] - x)
    c[i,j,n] = f * c[i-1] + g * c[i,j-1] + tanh(x * f)
    h[i,j,n] = tanh(c) * g
""",
    "read before": """
mixer m(q[i,j,d], k[i,j,d], v[i,j,e], a[i,j], b[i,j]) -> o[i,j,e]:
    R[i,j,d,e] = a * R[i-1] + D[i,j-1] / 2 + k * v
    D[i,j,d,e] = R[i-1] / 3 + b * D[i,j-1]
    o[i,j,e]   = sum[d] q * (R[i-1] + D[i,j-1])
""",
    "up": HEAD + "    y[i,j,c] = a * tanh(y[i+1]) + 0.5 * y[i,j-1] + x\n",
    "left": HEAD + "    y[i,j,c] = a * tanh(y[i-1]) + 0.5 * y[i,j+1] + x\n",
    "up and left": HEAD + "    y[|i|,j,c] = 0.3 + j / 7\n    y[i,|j|,c] = x[i,0]\n"
    "    y[i,j,c] = a * tanh(y[i+1]) + 0.5 * y[i,j+1] + y[i+1,j+1] / 9 + x\n",
    "lags": """
mixer m(x[i,j], a[i,j]) -> y[i,j]:
    y[-1,j] = 0.7
    y[-2,j] = j / 5
    y[i,-2] = i / 3
    y[i,j]  = a * y[i-2,j-1] + 0.5 * y[i,j-2] + y[i-1,j] / 9 + x
""",
    "ahead": """
mixer m(x[i,j], a[i,j]) -> y[i,j]:
    y[-1,j]  = j / 2
    y[i,|j|] = i / 9
    y[i,-1]  = 1
    y[i,j]   = a * y[i-1,j+1] + 0.5 * y[i,j-1] + x
""",
    "far ahead": "mixer m(x[i,j], a[i,j]) -> y[i,j]:\n    y[i,j] = a * y[i-1,j+2] + 0.5 * y[i,j-1] + y[i-2,j] / 9 + x\n",
    "corner": """
mixer m(x[i,j], a[i,j]) -> y[i,j]:
    y[-1,-1] = 2
    y[-1,j]  = 1
    y[i,j]   = a * y[i-1,j-1] + 0.5 * y[i,j-1] + y[i-1,j] / 9 + x
""",
    "positions": """
mixer m(x[i,j], a[i]) -> y[i,j], o[i,j]:
    y[i,j] = where(i + j > 2, exp(-i / 3) * y[i-1,j-1], log(1 + abs(x)) * max(y[i-1], y[i,j-1])) + a * (j + 1) + x
    o[i,j] = y[i-2,j] * x
""",
    "guarded": """
mixer m(x[i,j]) -> y[i,j]:
    y[i,j] = where(x > 0, log(x) * y[i-1], y[i,j-1] / 2) + where(y[i-1] > 0, sqrt(x * x), 0.2) + 1
""",
    "lanes": """
mixer m(z[n], x[i,j,n]) -> y[i,j,n], w[j,n]:
    y[i,j,n] = y[i-1,j,(n + 1) % |n|] / 3 + tanh(z) * y[i,j-1] + x
    w[j,n]   = sum[i] y
""",
    "bool": """
mixer m(b[i,j]: bool, x[i,j]) -> y[i,j], k[i,j]:
    y[i,j] = b and (y[i-1] or y[i,j-1]) or i + j == 0
    k[i,j] = where(y, x, 0)
""",
    "stream inside": """
mixer m(x[t,k], a[k,t]) -> y[k,t]:
    y[k,-1] = k
    y[-1,t] = x[t,0] * t
    y[k,t]  = a * y[k-1,t] + tanh(y[k,t-1]) + y[k-1,t-1] / 5 + x
""",
}
SHAPES = [(4, 5), (5, 3), (1, 1), (1, 4), (4, 1), (0, 3), (3, 0), (7, 2)]


def inputs_of(system: System, rows: int, columns: int, seed: int = 0) -> dict[str, Any]:
    """Normal inputs, `rows` long along the stream."""
    rng, found = np.random.default_rng(seed), {}
    for t in system.inputs():
        shape = [rows if system.axis(i) == system.stream else columns if i in ("j", "k", "i") else 2 for i in t.indices]
        found[t.name] = rng.random(shape) < 0.6 if t.dtype == "bool" else rng.standard_normal(shape)
    return found


def part(system: System, inputs: dict[str, Any], start: int, end: int) -> dict[str, Any]:
    """The inputs at some positions of the stream."""
    found = {}
    for t in system.inputs():
        k = next((k for k, i in enumerate(t.indices) if system.axis(i) == system.stream), None)
        found[t.name] = inputs[t.name] if k is None else np.take(inputs[t.name], range(start, end), k)
    return found


def is_steppable(system: System) -> bool:
    try:
        state_record(system)
    except NotSteppable:
        return False
    return True


def assert_same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    for kind in ("outputs", "state"):
        a, b = flatten(found[kind] or {}), flatten(wanted[kind] or {})
        assert a.keys() == b.keys()
        for key in b:
            np.testing.assert_allclose(a[key], b[key], rtol=1e-13, atol=1e-13, err_msg=key)


@pytest.mark.parametrize("name", GRIDS)
def test_the_same_function_and_state(name: str) -> None:
    system = load_system(GRIDS[name])
    derived = derive(system, "wavefront").system
    validate(derived)
    text = print_system(derived)
    assert print_system(read_system(text)) == text
    for rows, columns in SHAPES:
        inputs = inputs_of(system, rows, columns)
        assert_same(interpret(derived, inputs=inputs), interpret(system, inputs=inputs))


@pytest.mark.parametrize("name", [n for n, text in GRIDS.items() if is_steppable(load_system(text))])
def test_a_state_is_handed_on_and_taken_over(name: str) -> None:
    """At every place, and between the form and the equations, both ways."""
    system = load_system(GRIDS[name])
    derived = derive(system, "wavefront").system
    for rows, columns in ((4, 3), (2, 5)):
        inputs = inputs_of(system, rows, columns)
        wanted = interpret(system, inputs=inputs)
        for cut, (first, second) in product(range(rows + 1), ((derived, derived), (system, derived), (derived, system))):
            state = interpret(first, inputs=part(system, inputs, 0, cut))["state"]
            rest = part(system, inputs, cut, rows)
            plain = interpret(system, inputs=part(system, inputs, 0, cut))["state"]
            expected = interpret(system, inputs=rest, state=plain)
            assert_same(interpret(second, inputs=rest, state=state), expected)
            if name != "lanes":  # a sum over all rows so far is no state
                assert_same({**expected, "outputs": {}}, {**wanted, "outputs": {}})


def test_the_best_alignment() -> None:
    """A gap and an unequal pair cost 1 each: `-y` is the edit distance, 3 from sunday to saturday."""
    system = derive(load_system(GRIDS["alignment"]), "wavefront").system
    a, b = "sunday", "saturday"
    score = np.array([[0.0 if p == q else -1.0 for q in b] for p in a])
    y = interpret(system, inputs={"x": score, "gap": np.array(-1.0)})["outputs"]["y"]
    assert y[-1, -1] == -3 and y[0, 0] == 0  # the corner reads 0


@pytest.mark.parametrize(
    ("reads", "slope", "margins"),
    [
        ("y[i-1] + y[i,j-1]", 1, (1, 1, 0)),
        ("y[i-1] + y[i-1,j-1] + y[i,j-3]", 1, (1, 3, 0)),
        ("y[i-1,j+1] + y[i,j-1]", 2, (1, 1, 1)),
        ("y[i-2,j+3] + y[i,j-1]", 2, (2, 1, 3)),
        ("y[i-1,j+4] + y[i,j-1]", 5, (1, 1, 4)),
        ("y[i+1,j-1] + y[i,j+1]", 2, (1, 1, 1)),
    ],
)
def test_the_least_slope(reads: str, slope: int, margins: tuple[int, int, int]) -> None:
    system = load_system(f"mixer m(x[i,j]) -> y[i,j]:\n    y[i,j] = {reads} + x\n")
    grid = geometry(system, recurrences(system)[0])
    assert (grid.slope, (grid.lead, grid.before, grid.after)) == (slope, margins)
    assert min(slope * back + left for _, back, left in grid.reads) >= 1


def test_no_front_is_longer_than_the_grid() -> None:
    """The fronts are as many as rows and columns and the halo, and there is one loop, over them."""
    derived = derive(load_system(GRIDS["affine"]), "wavefront").system
    (loop,) = recurrences(derived)
    assert loop.axis == "y.w" and loop.tensors() == ["y.front"]
    assert repr(derived.indices["y.w"].size) == "|i| + |j| + 1"


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("y[i,j] = y[i-1] / 2 + x", "and has no fronts"),
        ("y[i,j] = y[i-1,j // 2] + y[i,j-1] + x", "at no fixed distance along `j`"),
        ("y[i,j] = y[i-1,|j|-1-j] + y[i,j-1] + x", "at no fixed distance along `j`"),
        ("y[i,j] = y[i-1,j+9] + y[i,j-1] + x", "fronts would need a slope of 10"),
        ("y[i,j] = y[i-9] + y[i,j-1] + x", "reads 9 cells away"),
        ("f[i,j] = tanh(y[i-1])\n    y[i,j] = y[i,j+1] / 2 + f[i,j-1] + x", "`f` is read further along `j`"),
        ("y[i,-1] = y[i-1,|j|-1]\n    y[i,j] = y[i,j-1] / 2 + x", "by the same index"),
    ],
)
def test_refusals_have_reasons(lines: str, reason: str) -> None:
    system = load_system(f"mixer m(x[i,j]) -> y[i,j]:\n    {lines}\n")
    with pytest.raises(SeqError, match="form-not-available") as caught:
        derive(system, "wavefront")
    assert any(reason in note for note in caught.value.diagnostics[0].notes), caught.value


def test_three_loops_are_no_grid() -> None:
    system = load_system("mixer m(x[i,j,k]) -> y[i,j,k]:\n    y[i,j,k] = y[i-1] + y[i,j-1] + y[i,j,k-1] + x\n")
    with pytest.raises(SeqError) as caught:
        derive(system, "wavefront")
    assert any("more than two loops" in note for note in caught.value.diagnostics[0].notes), caught.value


def test_what_varies_along_one_axis_is_computed_once() -> None:
    """The step reads exp(-i / 3), and the logarithm, which no state decides, from tensors over the grid."""
    derived = derive(load_system(GRIDS["positions"]), "wavefront").system
    rhs = derived.tensors["y.front"].rhs
    assert rhs is not None and not any(n.op in ("exp", "log") for n in walk(rhs))


def test_auto_takes_it_for_grids_and_the_cost_says_why() -> None:
    system = load_system(GRIDS["nonlinear"])
    assert choose(system).form == "wavefront"
    stepped, fronts = (cost(derive(system, form).system).steps for form in ("recurrent", "wavefront"))
    assert ("i", "j") in stepped and ("i", "j") not in fronts
    assert fronts[("i",)] == fronts[("j",)] > 0


def test_the_law_is_stated() -> None:
    (obligation,) = derive(load_system(GRIDS["affine"]), "wavefront").obligations
    assert "every read is of an earlier w" in obligation.law

"""Which grids the form hierarchical takes block by block, that its equations mean the same and hand on the same state, what it
costs, and why it refuses the others."""

from __future__ import annotations

from itertools import product

import pytest

from seqdsl.diagnostics import SeqError
from seqdsl.forms import derive
from seqdsl.ir.dependence import recurrences
from seqdsl.ir.interpreter import interpret
from seqdsl.ir.node import walk
from seqdsl.ir.text import print_system, read_system
from seqdsl.ir.validate import validate
from seqdsl.plan import choose, cost
from seqdsl.semantics import load_system
from tests.forms.test_wavefront import GRIDS, SHAPES, assert_same, inputs_of, is_steppable, part

HEAD = "mixer m(x[i,j,c], a[i,j,c], b[i,j]) -> y[i,j,c]:\n"
BLOCKS = {
    "entrywise": HEAD + "    y[i,j,c] = a * y[i-1] + b * y[i,j-1] + x\n",
    "of one coefficient for all": HEAD + "    y[i,j,c] = 0.4 * y[i-1] - 0.6 * y[i,j-1] + a * b + x\n",
    "up": HEAD + "    y[i,j,c] = a * y[i+1] + b * y[i,j-1] + x\n",
    "left": HEAD + "    y[i,j,c] = a * y[i-1] + b * y[i,j+1] + x\n",
    "up and left": HEAD + "    y[|i|,j,c] = 0.3 + j / 7\n    y[i,|j|,c] = x[i,0]\n    y[i,j,c] = a * y[i+1] + b * y[i,j+1] + x\n",
    "edges": """
mixer m(x[i,j,c], a[i,j], b[j], s[j,c], l[i]) -> y[i,j,c], z[i,j,c]:
    y[-1,j,c] = s
    y[i,-1,c] = l
    y[i,j,c]  = a * y[i-1] + b * y[i,j-1] + x
    z[i,j,c]  = y * y[i,j-1] - y[i-1]
""",
    "states on edges": GRIDS["read before"],
    "what a cell makes of both": """
mixer m(q[i,j,d], k[i,j,d], v[i,j,e], a[i,j], b[i,j], g[i,j], f[j], r[i]) -> o[i,j,e]:
    M[i,j,d,e] = g * D[i-1] + k * v
    R[i,j,d,e] = a * M + b * R[i,j-1] - D[i-1] / 3
    D[i,j,d,e] = f * R[i,j-1] + r * M
    o[i,j,e]   = sum[d] q * (M + R[i,j-1] + D)
""",
    "a matrix": """
mixer m(x[i,j,n], W[n,m], V[i,j,n,m], z[n]) -> y[i,j,n]:
    index m over n
    y[-1,j,n] = z
    y[i,j,n]  = 0.3 * (sum[m] W * y[i-1,j,m]) + 0.4 * (sum[m] V * y[i,j-1,m]) + 0.2 * y[i-1] + x
""",
    "turned about": GRIDS["lanes"],
    "a pair of vectors": """
mixer m(x[i,j,n], U[n,m], g[i,j,n]) -> y[i,j,n], s[i,j,n]:
    index m over n
    s[i,j,n] = 0.5 * s[i-1] + 0.3 * (sum[m] U * y[i,j-1,m])
    y[i,j,n] = g * y[i-1] + s + 0.2 * y[i,j-1] + x
""",
    "one after the other": """
mixer m(x[i,j], a[i,j]) -> y[i,j]:
    u[i,j] = a * y[i-1] + x
    y[i,j] = u + u[i,j-1] / 2 + y[i,j-1] / 3
""",
    "where chosen": """
mixer m(x[i,j]) -> y[i,j]:
    y[i,j] = where(x > 0, log(x) * y[i-1], y[i,j-1] / (2 * x)) + where(i + j > 2, 1, x)
""",
    "stream inside": """
mixer m(x[t,k], a[k,t]) -> y[k,t]:
    y[k,-1] = k
    y[-1,t] = x[t,0] * t
    y[k,t]  = a * y[k-1,t] + (y[k,t-1] + x) / 3
""",
    "complex": """
mixer m(x[i,j], a[i,j]) -> o[i,j]:
    y[i,j] = exp(1i * a) * y[i-1] / 2 + 0.5i * y[i,j-1] + x
    o[i,j] = re(y) - im(y[i-1])
""",
}
STEPPABLE = [n for n, text in BLOCKS.items() if is_steppable(load_system(text))]


@pytest.mark.parametrize("name", BLOCKS)
def test_the_same_function_and_state(name: str) -> None:
    system = load_system(BLOCKS[name])
    derived = derive(system, "hierarchical").system
    validate(derived)
    text = print_system(derived)
    assert print_system(read_system(text)) == text
    assert any(n.op == "grid_scan" for t in derived.derived() if t.rhs is not None for n in walk(t.rhs))
    assert not any(loop.axis in ("i", "j", "k", "t") for loop in recurrences(derived))
    for rows, columns in SHAPES:
        inputs = inputs_of(system, rows, columns)
        assert_same(interpret(derived, inputs=inputs), interpret(system, inputs=inputs))


@pytest.mark.parametrize("name", STEPPABLE)
def test_a_state_is_handed_on_and_taken_over(name: str) -> None:
    """At every place, and between the form and the equations, both ways."""
    system = load_system(BLOCKS[name])
    derived = derive(system, "hierarchical").system
    inputs = inputs_of(system, 4, 3)
    for cut, (first, second) in product(range(5), ((derived, derived), (system, derived), (derived, system))):
        state = interpret(first, inputs=part(system, inputs, 0, cut))["state"]
        plain = interpret(system, inputs=part(system, inputs, 0, cut))["state"]
        rest = part(system, inputs, cut, 4)
        assert_same(interpret(second, inputs=rest, state=state), interpret(system, inputs=rest, state=plain))


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("y[i,j] = y[i-1] / 2 + x", "and is no grid"),
        ("y[i,j] = tanh(y[i-1]) + y[i,j-1] + x", "the state stands inside `tanh`"),
        ("y[i,j] = y[i-1] * y[i,j-1] + x", "two reads of the state are multiplied"),
        ("y[i,j] = max(y[i-1], y[i,j-1]) + x", "the state stands inside `maximum`"),
        ("y[i,j] = y[i-1,j-1] / 2 + y[i,j-1] + x", "`y` is read at the distance (1, 1)"),
        ("y[i,j] = y[i-2] / 2 + y[i,j-1] + x", "`y` is read at the distance (2, 0)"),
        ("y[i,j] = y[i-1,j+1] / 2 + y[i,j-1] + x", "`y` is read at the distance (1, -1)"),
        ("y[i,j] = y[i-1,j // 2] + y[i,j-1] + x", "at no fixed distance along `j`"),
    ],
)
def test_refusals_have_reasons(lines: str, reason: str) -> None:
    system = load_system(f"mixer m(x[i,j]) -> y[i,j]:\n    {lines}\n")
    with pytest.raises(SeqError, match="form-not-available") as caught:
        derive(system, "hierarchical")
    assert any(reason in note for note in caught.value.diagnostics[0].notes), caught.value


@pytest.mark.parametrize(
    ("equations", "reason"),
    [
        ("y[i,j,n,k] = sum[m,l] W[n,m] * V[k,l] * y[i-1,j,m,l] + y[i,j-1] + x", "entries mix along `n` and `k` at once"),
        ("s[i,j] = s[i-1] + sum[n,k] y[i,j-1] * W[n,0]\n    y[i,j,n,k] = y[i-1] + x * s[i,j-1]", "have different indices"),
        ("y[i,j,n,k] = where(y[i-1] > 0, 1, 0) * x + y[i,j-1]", "the state decides a choice"),
    ],
)
def test_refusals_of_how_entries_mix(equations: str, reason: str) -> None:
    head = "mixer m(x[i,j,n,k], W[n,m], V[k,l]) -> y[i,j,n,k]:\n    index m over n, l over k\n    "
    with pytest.raises(SeqError, match="form-not-available") as caught:
        derive(load_system(head + equations + "\n"), "hierarchical")
    assert any(reason in note for note in caught.value.diagnostics[0].notes), caught.value


def test_what_auto_takes_and_why() -> None:
    """Long and narrow with few entries: blocks. Channels, above all with coefficients of their own: fronts."""
    few = load_system("mixer m(x[i,j], a[i,j], b[i,j]) -> y[i,j]:\n    y[i,j] = a * y[i-1] + b * y[i,j-1] + x\n")
    assert choose(few).form == "hierarchical"
    for name in ("entrywise", "of one coefficient for all", "a matrix"):
        assert choose(load_system(BLOCKS[name])).form == "wavefront"
    steps = cost(derive(few, "hierarchical").system).steps
    assert not any({"i", "j"} & {*axes} for axes in steps)  # the depth is logarithmic, and taken for constant
    flops = cost(derive(load_system(BLOCKS["entrywise"]), "hierarchical").system).flops
    assert ("c", "i", "j", "j") in flops  # maps over the edges, for every channel


def test_the_law_is_stated() -> None:
    (obligation,) = derive(load_system(BLOCKS["entrywise"]), "hierarchical").obligations
    assert "composition of affine maps along the edge" in obligation.law

"""The adjoint of a system against torch's gradient of its recurrent module, over the corpus and recurrences nobody named.

Two derivations that share nothing: equations differentiated symbolically and run by the interpreter, and autograd
through a loop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from seqdsl.backends import torch_module

from seqdsl.algebra import classify_all
from seqdsl.api import load
from seqdsl.diagnostics import SeqError
from seqdsl.forms import derive
from seqdsl.forms.adjoint import adjoint
from seqdsl.forms.unfold import unfolded
from seqdsl.ir import build
from seqdsl.ir.derivatives import ALONG, ELEMENTWISE, MAPS, PARTS, STOPS
from seqdsl.ir.interpreter import interpret
from seqdsl.ir.node import Node, rebuild, walk
from seqdsl.ir.ops import OPS
from seqdsl.ir.system import System
from seqdsl.ir.text import print_system, read_system
from seqdsl.semantics import load_system
from seqdsl.verify.inputs import draw_inputs, draw_sizes
from seqdsl.verify.modules import compare
from tests.forms import gradients
from tests.forms.gradients import worst_gap
from tests.ir.corpus import CORPUS, ROOT, systems_of

FILES = sorted([*CORPUS.glob("*.seq"), *(ROOT / "tests" / "unnamed").glob("*.seq")])
LIBRARY = ROOT / "library"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_adjoint_equals_autograd(path: Path) -> None:
    for system in systems_of(path):
        gap, where = worst_gap(system, stream=5)
        assert gap < 1e-8, f"{system.name}: {where}"


# One file in eight, and all with `--deep`. The windows of `hat` are sums over nine indices at once in an adjoint, which
# the interpreter has no memory for.
IN_LIBRARY = [p for p in sorted(LIBRARY.rglob("*.seq")) if p.stem != "hat"]


@pytest.mark.parametrize(
    "path", [pytest.param(p, marks=[pytest.mark.deep] * (k % 8 > 0), id=p.stem) for k, p in enumerate(IN_LIBRARY)]
)
def test_adjoints_in_the_library(path: Path) -> None:
    for system in systems_of(path):
        gap, where = next(found for stream in (5, 8, 16) if (found := worst_gap(system, stream=stream))[0] >= 0)
        assert gap < 1e-8, f"{system.name}: {where}"


@pytest.mark.parametrize("stream", [0, 1, 2])
@pytest.mark.parametrize("name", ["gla", "delta_rule", "gru", "mamba", "sliding_window", "short_conv", "aaren"])
def test_short_sequences(name: str, stream: int) -> None:
    for path in LIBRARY.rglob(f"{name}.seq"):
        for system in systems_of(path):
            assert worst_gap(system, stream=stream)[0] < 1e-8


@pytest.mark.parametrize("name", ["scan/gla", "memory/gated_delta_rule", "scan/hgrn", "scan/rwkv6"])
def test_decays_from_none_to_a_reset(name: str) -> None:
    for seed in range(3):
        assert worst_gap(systems_of(LIBRARY / f"{name}.seq")[0], stream=9, seed=seed, harsh=True)[0] < 1e-8


@pytest.mark.parametrize(
    ("file", "kinds"),
    [
        ("scan/gla", {("diagonal", False), ("diagonal", True)}),
        ("memory/delta_rule", {("low-rank", False), ("low-rank", True)}),
        ("rnn/gru", {("nonlinear", False), ("dense", True)}),
        ("rnn/para_gru", {("nonlinear", False), ("diagonal", True)}),
    ],
)
def test_an_adjoint_is_affine_and_runs_backwards(file: str, kinds: set[tuple[str, bool]]) -> None:
    """It is classified as any system is: a nonlinear recurrence has an affine adjoint, of its Jacobian's class."""
    found = classify_all(adjoint(systems_of(LIBRARY / f"{file}.seq")[0]))
    assert {(r.kind, r.reverse) for r in found} == kinds


@pytest.mark.parametrize("name", ["gla", "delta_rule"])
@pytest.mark.parametrize("length", [0, 1, 6])
def test_states_in_and_out(name: str, length: int) -> None:
    """The cotangent of the starting state, and what that of the final state adds to every other."""
    system = load_system(next(LIBRARY.rglob(f"{name}.seq")), name)
    text = torch_module.emit_module(derive(system, "recurrent").system, class_name="Mixer", form="recurrent")
    module = torch_module.build_module(text, "Mixer")
    lengths = {"t": length, "h": 2, "d": 3, "e": 4}
    generator = torch.Generator().manual_seed(0)

    def draw(indices: tuple[str, ...]) -> torch.Tensor:
        shape = (1, *(lengths[i] for i in indices))
        return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()

    inputs = {t.name: draw(t.indices) for t in system.inputs()}
    start = draw(("h", "d", "e"))
    o, state = module(*inputs.values(), state={"S": start}, return_state=True)
    c, end = torch.randn_like(o), torch.randn_like(state["S"])
    ((o * c).sum() + (state["S"] * end).sum()).backward()
    given = {n: x.detach()[0].numpy() for n, x in inputs.items()}
    given |= {"S.start": start.detach()[0].numpy(), "o.grad": c[0].numpy(), "S.final.grad": end[0].numpy()}
    found = interpret(adjoint(system, state=True), inputs=given)["outputs"]
    for label, x in {**inputs, "S.start": start}.items():
        wanted = np.zeros(x.shape[1:]) if x.grad is None else x.grad[0].numpy()
        np.testing.assert_allclose(found[f"{label}.bar"], wanted, rtol=1e-9, atol=1e-12)


SOLVED = """mixer solved(x[t,n], A[n,m]) -> y[t,n]:
    index m over n
    y[t,n] = solve[m -> n]((m == n) + A[m,n]^2 / 4, x[t,m] + y[t-1,m])
"""


TIES = """mixer ties(x[t,n]) -> y[t,n], z[t]:
    y[t,n] = max(x, stop(x)) * min(x, 2 * x - stop(x))
    z[t]   = max[k: 3](where(k > 0, x[t,0], stop(x[t,0]))) + min[n](where(n == 0, x[t,0], stop(x[t,0])))
"""


CHOICES = """mixer choices(x[t], z[t]) -> y[t], u[t]:
    y[t] = where(x > 0, sqrt(x) * z, 0) + sum[k: 3 | x > k](log(x - k))
    u[t] = where(x > 0, x * log(x), x)
"""


FOLDED = """mixer folded(x[i,c]) -> y[u,p,c]:
    y[u: |i| / 3, p: 2, c] = sum[m: 3] (1 + p * m) * x[3*u+m]^2
"""


def test_a_sum_over_what_lies_within_a_block() -> None:
    """The position in the block that an entry has is bounded on both sides."""
    assert worst_gap(load_system(FOLDED), stream=6)[0] < 1e-8
    for name in ("haar", "subbands"):
        assert worst_gap(load_system(next(LIBRARY.rglob("haar.seq")), name), stream=4)[0] < 1e-8


ORTHOGONAL = {
    "tall": """mixer m(x[t,c,f: 2], z[t,f]) -> Q[t,c,f]:
    Q[t,c,f] = qr[c -> f](x * 2 + z * c^2)
""",
    "in a recurrence": """mixer m(x[t,c,f: |c|]) -> Q[t,c,f]:
    Q[t,c,f] = qr[c -> f](Q[t-1] * 0.3 + x + 2 * (c == f))
""",
    "in a gradient": """fn loss(A[c,f], x[c,f]) = sum[c,f] qr[c -> f](A) * x

mixer m(x[t,c,f: |c|]) -> y[t,c,f]:
    y[t,c,f] = grad[A](loss(x * x + 2 * (c == f), x))
""",
}


@pytest.mark.parametrize("name", ORTHOGONAL)
def test_the_orthogonal_factor(name: str) -> None:
    assert worst_gap(load_system(ORTHOGONAL[name]), stream=4)[0] < 1e-8


FOLDS = """monoid affine(a, b):
    identity = (1, 0)
    combine(x, y):
        a = x.a * y.a
        b = y.a * x.b + y.b
    project -> y:
        y = b + a
    claim associative

monoid larger(m, n[c]):
    lift(m, n[c]) = (m, n)
    combine(x, y):
        m    = max(x.m, y.m)
        n[c] = x.n * exp(x.m - m) + y.n * exp(y.m - m)
    project -> y[c]:
        y[c] = n + m

mixer folds(x[t,c], z[t]) -> p[t,c], e[t,c], g[t,c], w[c], n[t,c], v[c]:
    index s over t
    index u over t
    p[t,c] = affine[s | s <= t](x[s], z[s])
    e[t,c] = affine[s | s < t](x[s], z[s])
    g[t,c] = affine[s | s != t - 1](x[s], z[s] * z[t])
    w[c]   = affine[s](x[s], z[s])
    n[t,c] = larger[s | s <= t](z[s], x[s])
    v[c]   = larger[s](z[s], x[s]) * sum[u] z[u]
"""


@pytest.mark.parametrize("stream", [1, 2, 5, 8])
def test_folds(stream: int) -> None:
    """A prefix, one that leaves the position out, a guarded and a whole fold; without an identity too."""
    system = load_system(FOLDS)
    assert worst_gap(system, stream=stream)[0] < 1e-8
    assert not any(n.op == "fold" for t in adjoint(system).derived() if t.rhs is not None for n in walk(t.rhs))


def test_the_unfolded_system_has_the_same_values() -> None:
    system = load_system(FOLDS)
    for stream in (1, 2, 3, 7):
        rng = np.random.default_rng(0)
        inputs = draw_inputs(system, draw_sizes(system, rng, stream=stream), rng)
        found, wanted = (interpret(s, inputs=inputs)["outputs"] for s in (unfolded(system), system))
        for name, value in wanted.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-12, atol=1e-12, err_msg=name)


def test_every_operator_has_a_derivative_or_is_made_by_a_form() -> None:
    rows = {*ELEMENTWISE, *STOPS, *ALONG, *PARTS, *MAPS, "cumsum", "normalised_read", "fold", "first"}
    rows |= {"sum", "mean", "prod", "max", "min", "logsumexp", "normaliser"}
    made = {n for n in OPS.keys() - rows if OPS[n].binding in ("scan", "last")}
    assert OPS.keys() - rows - made == {"matrix_taps"}
    with pytest.raises(SeqError, match="`affine_scan` is what a form has made"):
        adjoint(derive(systems_of(LIBRARY / "scan" / "hgrn.seq")[0], "scan").system)


def test_grad_goes_through_no_fold() -> None:
    text = FOLDS[: FOLDS.index("mixer")]
    text += """fn f(x[i], z[i]) = affine[i](x, z)

mixer m(x[t,i], z[t,i]) -> y[t,i]:
    y[t,i] = grad[x](f(x, z))
"""
    with pytest.raises(SeqError, match="a fold by `affine` is a recurrence"):
        load_system(text)


def test_equal_operands_share_a_cotangent() -> None:
    """As torch shares it."""
    assert worst_gap(load_system(TIES), stream=4)[0] < 1e-12


def test_what_is_not_evaluated_has_no_gradient() -> None:
    """Neither a branch that is not taken nor a point outside a guard: their derivatives would be infinite, or none."""
    back = adjoint(load_system(CHOICES))
    x = np.array([0.0, -1.0, 2.0])
    found = interpret(back, inputs={"x": x, "z": x + 1, "y.grad": np.ones(3), "u.grad": np.ones(3)})["outputs"]
    slope = 3 * 0.5 / np.sqrt(2) + (1 + np.log(2)) + (1 / 2 + 1 / 1)
    np.testing.assert_allclose(found["x.bar"], [1, 1, slope], rtol=1e-12)
    np.testing.assert_allclose(found["z.bar"], [0, 0, np.sqrt(2)], rtol=1e-12)


def test_a_solve_between_indices_of_one_axis() -> None:
    """Its transpose makes the index that it consumed: no two of them take one name."""
    assert worst_gap(load_system(SOLVED), stream=4)[0] < 1e-8


def test_states_that_a_step_reads_at_other_entries() -> None:
    """What the final state sends back, against differences: it reaches the steps where they read at another place."""
    system = systems_of(ROOT / "tests" / "unnamed" / "ring_of_cells.seq")[0]
    rng = np.random.default_rng(0)
    sizes = draw_sizes(system, rng, stream=4)
    back = adjoint(system, state=True)
    inputs = draw_inputs(back, sizes, rng)
    found = interpret(back, inputs=inputs, sizes={**sizes.lengths, **sizes.options})["outputs"]
    inputs["y.final.grad"] = 2 * inputs["y.final.grad"]
    more = interpret(back, inputs=inputs, sizes={**sizes.lengths, **sizes.options})["outputs"]
    start, end = inputs["y.start"], inputs["y.final.grad"] / 2

    def final(at: dict[str, Any]) -> Any:
        given = {n: v for n, v in at.items() if n in ("x", "a")}
        return interpret(system, inputs=given, state={"y": at["y.start"]})["state"]["y"]

    for name in ("x", "a", "y.start"):
        step = rng.standard_normal(inputs[name].shape)
        moved = [final({**inputs, "y.start": start, name: inputs[name] + e * step}) for e in (1e-6, -1e-6)]
        slope = float(((moved[0] - moved[1]) / 2e-6 * end).sum())
        assert abs(slope - float(((more[f"{name}.bar"] - found[f"{name}.bar"]) * step).sum())) < 1e-7


CHUNKWISE = [
    ("library/scan/gla", {"decayed_read", "decayed_product"}),
    ("library/scan/simple_gla", {"decayed_read", "decayed_product"}),
    ("library/memory/delta_rule", {"decayed_read", "decayed_solve"}),
    ("library/memory/gated_delta_rule", {"decayed_read", "decayed_solve", "decayed_product"}),
    ("tests/unnamed/column_decay", {"decayed_read", "decayed_product"}),
    ("tests/unnamed/rank_three", {"decayed_read", "decayed_solve", "decayed_product"}),
    ("tests/unnamed/coupled_erase", {"decayed_read", "decayed_solve", "decayed_product"}),
    ("tests/unnamed/value_erase", {"decayed_read", "decayed_solve"}),
    ("tests/unnamed/real_turn", {"matrix_scan"}),
]


@pytest.mark.parametrize(("file", "operators"), CHUNKWISE, ids=lambda x: x if isinstance(x, str) else "")
def test_the_chunkwise_form_of_an_adjoint(file: str, operators: set[str]) -> None:
    """The backward of a chunkwise form is the chunkwise form of the adjoint: no state is kept, and none is scanned."""
    system = systems_of(ROOT / f"{file}.seq")[0]
    derived = derive(adjoint(system), "chunkwise").system
    used = {n.op for t in derived.derived() if t.rhs is not None for n in walk(t.rhs)}
    assert used & {"affine_scan", "matrix_scan", "decayed_read", "decayed_solve", "decayed_product"} == operators
    for stream in (0, 1, 6):
        gap, where = worst_gap(system, stream=stream, form="chunkwise", harsh=stream == 6)
        assert gap < 1e-8, where


@pytest.mark.parametrize(
    "file", ["library/scan/gla", "library/memory/gated_delta_rule", "tests/unnamed/rank_three", "tests/unnamed/four_axes"]
)
def test_a_chunkwise_adjoint_with_states(file: str) -> None:
    """Starts and the cotangents of ends count once, however many writes and ranks a state has."""
    system = adjoint(systems_of(ROOT / f"{file}.seq")[0], state=True)
    rng = np.random.default_rng(0)
    sizes = draw_sizes(system, rng, stream=6)
    inputs = draw_inputs(system, sizes, rng)
    named = {**sizes.lengths, **sizes.options}
    wanted = interpret(system, inputs=inputs, sizes=named)["outputs"]
    derived = derive(system, "chunkwise").system
    found = interpret(derived, inputs=inputs, sizes=named)["outputs"]
    for name, value in wanted.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-10, err_msg=name)
    text = torch_module.emit_module(derived, class_name="M", form="chunkwise")
    assert compare(derived, text, "M", torch_module, sizes, rng) is None


@pytest.mark.parametrize("form", ["recurrent", "chunkwise"])
@pytest.mark.parametrize("name", ["gla", "gated_delta_rule"])
def test_an_adjoint_as_a_module(name: str, form: str) -> None:
    """What a backend emits for it equals autograd through the mixer's own module, over several chunks."""
    system = load_system(next(LIBRARY.rglob(f"{name}.seq")), name)
    modules = [
        torch_module.build_module(torch_module.emit_module(derive(s, f).system, class_name="M", form=f), "M")
        for s, f in ((system, "recurrent"), (adjoint(system), form))
    ]
    lengths = {"t": 75, "h": 2, "d": 5, "e": 4}
    generator = torch.Generator().manual_seed(0)
    inputs = []
    for tensor in system.inputs():
        shape = (2, *(lengths[i] for i in tensor.indices))
        x = torch.randn(shape, generator=generator, dtype=torch.float64)
        inputs.append((-x.abs() if tensor.name in ("g", "a") else x.tanh() / 2).requires_grad_())
    o = modules[0](*inputs)
    c = torch.randn(o.shape, generator=generator, dtype=torch.float64)
    wanted = torch.autograd.grad(o, inputs, c)
    for found, value in zip(modules[1](*[x.detach() for x in inputs], c), wanted, strict=True):
        assert (found - value).norm() < 1e-12 * value.norm()


def _changed(name: str, change: Callable[[Node], Node]) -> Callable[[System], System]:
    """A mistake in one equation of an adjoint."""

    def broken(system: System) -> System:
        own = system.tensors[name]
        assert own.rhs is not None
        return system.with_tensors(replace(own, rhs=change(own.rhs)))

    return broken


def _at(node: Node, step: int) -> Node:
    return build.substitute(node, {"t": build.add(build.index("t"), build.const(step))})


MISTAKES = {
    "the next step's reads": _changed("S.bar", lambda n: build.add(_at(n.args[0], 1), n.args[1])),
    "a decay one step late": _changed("S.before.bar", lambda n: build.mul(n.args[0], _at(n.args[1], -1))),
    "no decay": _changed("S.before.bar", lambda n: n.args[0]),
    "a reader forgotten": _changed("S.bar", lambda n: n.args[1]),
    "a sign": _changed("k.bar", build.neg),
    "the state after the step in a decay's cotangent": _changed(
        "g.bar", lambda n: rebuild(n, lambda m: build.read("S", m.args, "real") if m.attr == "S.before" else None)
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_adjoint_is_found(mistake: str, monkeypatch: pytest.MonkeyPatch) -> None:
    system = load_system(LIBRARY / "scan/gla.seq", "gla")
    assert worst_gap(system, stream=5)[0] < 1e-8
    monkeypatch.setattr(gradients, "adjoint", lambda s: MISTAKES[mistake](adjoint(s)))
    assert worst_gap(system, stream=5)[0] > 1e-2


def test_second_order() -> None:
    """The adjoint of an adjoint: the derivative of a gradient's length, against torch's double backward."""
    system = load_system(LIBRARY / "scan/gla.seq", "gla")
    twice = adjoint(adjoint(system))
    text = torch_module.emit_module(derive(system, "recurrent").system, class_name="Mixer", form="recurrent")
    module = torch_module.build_module(text, "Mixer")
    shapes = {"q": (5, 2, 3), "k": (5, 2, 3), "v": (5, 2, 4), "g": (5, 2, 3)}
    generator = torch.Generator().manual_seed(0)
    x = {n: torch.randn((1, *s), generator=generator, dtype=torch.float64) for n, s in shapes.items()}
    x = {n: v.requires_grad_() for n, v in x.items()}
    o = module(*x.values())
    c = torch.randn(o.shape, generator=generator, dtype=torch.float64).requires_grad_()
    first = torch.autograd.grad((o * c).sum(), list(x.values()), create_graph=True)
    weights = [torch.randn(f.shape, generator=generator, dtype=torch.float64) for f in first]
    wanted = torch.autograd.grad(sum((f * w).sum() for f, w in zip(first, weights, strict=True)), [*x.values(), c])
    given = {n: v.detach()[0].numpy() for n, v in (*x.items(), ("o.grad", c))}
    given |= {f"{n}.bar.grad": w[0].numpy() for n, w in zip(x, weights, strict=True)}
    found = interpret(twice, inputs=given)["outputs"]
    for name, value in zip((*x, "o.grad"), wanted, strict=True):
        np.testing.assert_allclose(found[f"{name}.bar2"], value[0].numpy(), rtol=1e-9, atol=1e-12)


def test_an_adjoint_prints_and_reads_back() -> None:
    for name in ("gla", "delta_rule", "softmax", "gru"):
        for system in systems_of(next(LIBRARY.rglob(f"{name}.seq"))):
            text = print_system(adjoint(system))
            assert print_system(read_system(text)) == text


def test_the_adjoint_from_python() -> None:
    derived = load("gla", "gla").adjoint("chunkwise", state=True)
    assert derived.system.outputs == ("q.bar", "k.bar", "v.bar", "g.bar", "S.start.bar")
    assert derived.form == "chunkwise" and not derived.kept


def test_a_state_that_is_no_last_value_is_refused() -> None:
    system = load_system(next(LIBRARY.rglob("sliding_window.seq")))
    with pytest.raises(SeqError, match="is not the last value of an equation"):
        adjoint(system, state=True)

"""The language as DESIGN.md section 3 and LANGUAGE.md show it: every mixer there lowers, evaluates, and means what it says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from seqdsl.ir.interpreter import interpret
from seqdsl.ir.system import System
from seqdsl.semantics import load_file, load_system, lower_mixer, mixers

TASTE = """\
# Gated linear attention. Yang et al. 2023, arXiv:2312.06635.
mixer gla(q[t,h,d], k[t,h,d], v[t,h,e], g[t,h,d]) -> o[t,h,e]:
    S[t,h,d,e] = exp(g) * S[t-1] + k * v
    o[t,h,e]   = sum[d] q * S / sqrt(|d|)
    claim causal
    claim stable(S) when g <= 0

mixer attention(q[t,h,d], k[s,h,d], v[s,h,e]) -> o[t,h,e]:
    index s over t
    p[t,s,h] = softmax[s | s <= t](sum[d] q * k / sqrt(|d|))
    o[t,h,e] = sum[s] p * v
    claim causal, rows_sum_to_one(p, s)

mixer delta_rule(q[t,h,d], k[t,h,d], v[t,h,e], beta[t,h]) -> o[t,h,e]:
    r[t,h,e]   = sum[d] k * S[t-1]                   # what the memory now answers for this key
    S[t,h,d,e] = S[t-1] + beta * k * (v - r)
    o[t,h,e]   = sum[d] q * S

fn loss(W[d,e], k[d], v[e]) = 0.5 * sum[e] (sum[d] k * W - v)^2

mixer ttt_linear(q[t,h,d], k[t,h,d], v[t,h,e], eta[t,h]) -> o[t,h,e]:
    W[t,h,d,e] = W[t-1] - eta * grad[W](loss(W[t-1], k, v))   # the compiler differentiates, and finds the delta rule
    o[t,h,e]   = sum[d] q * W
    claim o == delta_rule(q, k, v, eta)

mixer gru(x[t,c]; N) -> h[t,n]:                       # nonlinear: solved in parallel by Newton, or stepped
    z[t, n: N] = sigmoid(linear[c](x) + linear[n -> n](h[t-1]))
    r[t,n] = sigmoid(linear[c](x) + linear[n -> n](h[t-1]))
    u[t,n] = tanh(linear[c](x) + linear[n -> n](r * h[t-1]))
    h[t,n] = (1 - z) * h[t-1] + z * u

mixer grid(x[i,j,c], a[i,j,c], b[i,j,c]) -> y[i,j,c]: # a recurrence over two axes
    y[i,j,c] = a * y[i-1] + b * y[i,j-1] + x

mixer sinkhorn(a[t,s]; N = 5) -> p[t,s]:              # an iteration is a recurrence over an axis of its own
    P[-1,t,s]     = exp(a)
    C[i: N, t, s] = P[i-1] / sum[t] P[i-1]
    P[i,t,s]      = C / sum[s] C
    p[t,s]        = P[N-1]

mixer Tiny(tokens[t]: int; V = 256, C = 128, L = 4) -> logits[t,w]:   # a whole model: a stack is a recurrence over depth
    param E[w: V, c: C] = normal(0, 0.02)
    x[-1,t,c]      = E[tokens]
    x[l: L, t, c]  = x[l-1] + GLA(rms_norm[c](x[l-1]); per = l)
    logits[t,w]    = sum[c] rms_norm[c](x[L-1]) * E

mixer GLA(x[t,c]; H = 4, D = |c|/2/H, E = |c|/H, R = 16) -> y[t,c]:
    q[t, h: H, d: D] = linear[c](x)                   # contracts c, makes h and d
    k[t,h,d]         = linear[c](x)
    v[t,h, e: E]     = linear[c](x)
    low[t, r: R]     = linear[c](x)
    g[t,h,d]         = log_sigmoid(linear[r](low; bias = true)) / 16
    gate[t,h,e]      = silu(linear[c](x))
    o                = gla(q, k, v, g)
    y[t,c]           = linear[h,e](rms_norm[e](o) * gate)
"""

RNG = np.random.default_rng(11)
NAMES = [mixer.name.plain for mixer in mixers(load_file(TASTE))]
SIZES = {"t": 5, "s": 5, "h": 2, "d": 3, "e": 2, "c": 16, "i": 4, "j": 3}
Array = np.ndarray[Any, Any]


def system(name: str, options: dict[str, int] | None = None) -> System:
    file = load_file(TASTE)
    return lower_mixer(file, next(m for m in mixers(file) if m.name.plain == name), options)


def inputs(of: System, **sizes: int) -> dict[str, Array]:
    found: dict[str, Array] = {}
    for tensor in of.inputs():
        shape = [{**SIZES, **sizes}[of.axis(index)] for index in tensor.indices]
        found[tensor.name] = RNG.integers(0, 7, shape) if tensor.dtype == "int" else 0.5 * RNG.standard_normal(shape)
    return found


def run(of: System, given: dict[str, Array], **sizes: int) -> Array:
    return np.asarray(interpret(of, inputs=given, sizes=sizes)["outputs"][of.outputs[0]])


def close(found: Array, wanted: Any) -> None:
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-12)


def test_the_names() -> None:
    assert NAMES == ["gla", "attention", "delta_rule", "ttt_linear", "gru", "grid", "sinkhorn", "Tiny", "GLA"]


@pytest.mark.parametrize("length", [0, 1, 5])
@pytest.mark.parametrize("name", NAMES)
def test_lowers_and_evaluates(name: str, length: int) -> None:
    found = system(name)
    axis = found.stream
    assert axis is not None
    small = {"gru": {"N": 3}, "Tiny": {"V": 11, "C": 16, "L": 2}}.get(name, {})
    out = run(found, inputs(found, **{axis: length}), **small)
    position = [found.axis(i) for i in found.tensors[found.outputs[0]].indices].index(axis)
    assert out.shape[position] == length and np.all(np.isfinite(out))


def test_gla() -> None:
    given = inputs(found := system("gla"))
    q, k, v, g = (given[n] for n in "qkvg")
    S, want = np.zeros((2, 3, 2)), []
    for t in range(5):
        S = np.exp(g[t])[:, :, None] * S + k[t][:, :, None] * v[t][:, None, :]
        want.append(np.einsum("hd,hde->he", q[t], S) / np.sqrt(3))
    close(run(found, given), want)


def test_attention() -> None:
    given = inputs(found := system("attention"))
    scores = np.einsum("thd,shd->tsh", given["q"], given["k"]) / np.sqrt(3)
    weights = np.where(np.tri(5)[:, :, None] > 0, np.exp(scores), 0)
    close(run(found, given), np.einsum("tsh,she->the", weights / weights.sum(1, keepdims=True), given["v"]))


def test_delta_rule_and_ttt_linear() -> None:
    given = inputs(found := system("delta_rule"))
    q, k, v, beta = (given[n] for n in ("q", "k", "v", "beta"))
    S, want = np.zeros((2, 3, 2)), []
    for t in range(5):
        answer = np.einsum("hd,hde->he", k[t], S)
        S = S + np.einsum("h,hd,he->hde", beta[t], k[t], v[t] - answer)
        want.append(np.einsum("hd,hde->he", q[t], S))
    close(run(found, given), want)
    close(run(system("ttt_linear"), {"q": q, "k": k, "v": v, "eta": beta}), want)


def test_gru() -> None:
    given = inputs(found := system("gru"), c=4)
    params = {name: RNG.standard_normal((4 if "_2" not in name else 3, 3)) for name in
              ("z.weight", "z_2.weight", "r.weight", "r_2.weight", "u.weight", "u_2.weight")}
    h, want = np.zeros(3), []
    for x in given["x"]:
        z, r = (1 / (1 + np.exp(-(x @ params[f"{n}.weight"] + h @ params[f"{n}_2.weight"]))) for n in "zr")
        u = np.tanh(x @ params["u.weight"] + (r * h) @ params["u_2.weight"])
        h = (1 - z) * h + z * u
        want.append(h)
    close(interpret(found, inputs=given, params=params, sizes={"N": 3})["outputs"]["h"], want)


def test_grid() -> None:
    given = inputs(found := system("grid"))
    a, b, y = given["a"], given["b"], given["x"].copy()
    for i in range(4):
        for j in range(3):
            y[i, j] += (a[i, j] * y[i - 1, j] if i else 0) + (b[i, j] * y[i, j - 1] if j else 0)
    close(run(found, given), y)


@pytest.mark.parametrize("steps", [1, 5, 9])
def test_sinkhorn(steps: int) -> None:
    given = inputs(found := system("sinkhorn"))
    p = np.exp(given["a"])
    for _ in range(steps):
        p = p / p.sum(0, keepdims=True)
        p = p / p.sum(1, keepdims=True)
    close(run(found, given, N=steps), p)


def test_tiny_is_a_stack() -> None:
    """Two layers are one layer applied twice, each with its own parameters."""
    found = system("Tiny")
    tokens, sizes = np.array([1, 4, 2]), {"V": 6, "C": 16, "L": 2}
    logits = run(found, {"tokens": tokens}, **sizes)
    assert logits.shape == (3, 6)
    assert {t.path for t in found.params() if t.name != "E"} == {
        ("x", "<l>", f"{n}.weight") for n in ("q", "k", "v", "low", "gate", "y", "g")} | {("x", "<l>", "g.bias")}
    changed = run(found, {"tokens": np.array([1, 4, 5])}, **sizes)
    assert np.array_equal(changed[:2], logits[:2]) and not np.allclose(changed[2], logits[2])


# What LANGUAGE.md writes in passing ----------------------------------------------------------------------------------

X = "mixer f(x[t,c]) -> y[t,c]:\n    index s over t\n"
IN_PASSING = [
    X + "    y[t,c] = log(t + 1) + 2^(-8 * (c + 1) / |c|) * t + x\n",
    X + "    p[t,s,c] = softmax[s](x * x[s])\n    y[t,c] = sum[s] p * x[s]\n",
    X + "    C[t,c] = exp(x)\n    y[t,c] = C / sum[t] C\n",
    X + "    y[t,c] = max[j: 3 | j <= t](x[t-j])\n",
    X + "    y[t,c] = sum[s | t - 2 < s <= t] x[s]\n",
    X + "    y[t,c] = sum[s | r[s] < 2] x[s]\n" + "    r[t,c] = rank[t](x)\n",
    X + "    X[f: |t| // 2 + 1, c] = rfft[t -> f](x)\n    y[t,c] = irfft[f -> t](X)\n",
    X + "    m[-1,c] = -inf\n    m[t,c] = max(m[t-1], x)\n    y[t,c] = m\n",
    X + "    b[|t|,c] = 1\n    b[t,c] = b[t+1] * 0.5 + x\n    y[t,c] = b\n",
    X + "    W[t,c] = W[t // 2 * 2 - 1] + x\n    y[t,c] = W\n",
    X + "    y[t,c] = x + sum[s | s < t] y[s] / |t|\n",
    X + "    y[t,c] = where(t < 2, x, x[t-2])\n",
    X + "    a[n: (|t| + 2) // 3, c] = sum[w: 3] x[n * 3 + w]\n    y[t,c] = a[t // 3]\n",
    X + "    param w[j: 4, c]\n    y[t,c] = sum[j] w * x[t-j]\n",
    X + "    y[t,c] = x * rms_norm[c](x; eps = 1e-6) + round(x; grad = identity) + sign(x; grad = clamp)\n",
    "mixer f(x[i,j,c]) -> y[i,j,o]:\n    y[i,j, o: 5] = linear[a: 3, b: 3, c](x[i+a-1, j+b-1]; bias = true)\n",
]


@pytest.mark.parametrize("text", IN_PASSING)
def test_in_passing(text: str) -> None:
    found = load_system(text)
    out = run(found, inputs(found, t=4, c=3))
    assert np.all(np.isfinite(out))

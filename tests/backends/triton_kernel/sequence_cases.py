"""Unnamed mixers with every kind of group over whole sequences, layers of the library, and mistakes that each shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import seqdsl
from tests.backends.triton_kernel.steps import _source, _swap

TIME = 7


@dataclass(frozen=True)
class Whole:
    """A mixer, by its name in the library or its source; lengths; what the module is built with; how many launches of
    groups a call makes; the inputs that have a batch of 1."""

    source: str
    sizes: dict[str, int] = field(default_factory=dict)
    launches: int = 1
    mixer: str | None = None
    built: dict[str, int] = field(default_factory=dict)
    alike: tuple[str, ...] = ()
    time: int = TIME
    batch: int = 2
    scale: float = 1.0
    shares: int = 1024

    def program(self) -> Any:
        return seqdsl.load(self.source, self.mixer)


def _mixer(head: str, *equations: str) -> str:
    return _source(head, *equations)


STACK = """
mixer block(x[t,c]; E = 6) -> y[t,c]:
    u[t, e: E] = linear[c](rms_norm[c](x) * silu(x))
    v[t,e]     = linear[c](x)
    y[t,c]     = linear[e](silu(u) * v * u)

mixer stack(x[t,c]; L = 2) -> y[t,c]:
    z[-1,t,c]     = x
    z[l: L, t, c] = z[l-1] + block(z[l-1]; per = l)
    y[t,c]        = z[L-1]
"""

# Unnamed mixers, of every kind of group; lengths that are no powers of two; then layers of the library.
WHOLE: dict[str, Whole] = {
    "a gate": Whole(_mixer("gated(x[t,c], y[t,c]) -> z[t,c]", "z[t,c] = tanh(x) * sigmoid(y) + x"), {"c": 300}),
    "a norm with a scale and a shift": Whole(
        _mixer("scaled(x[t,c]) -> y[t,c]", "param w[c] = normal(1, 0.2)", "param b[c] = normal(0, 0.2)",
               "y[t,c] = layer_norm[c](x) * w + b"), {"c": 37}, built={"c": 37}),
    "a norm over heads and features, gated": Whole(
        _mixer("heads(x[t,h,e], g[t,h,e]) -> y[t,h,e]", "y[t,h,e] = rms_norm[h,e](x) * silu(g)"), {"h": 3, "e": 5}),
    "a norm by head with a scale for each": Whole(
        _mixer("grouped(x[t,h,e], g[t,h,e]) -> y[t,h,e]", "param w[h,e] = normal(1, 0.2)",
               "y[t,h,e] = l2_norm[e](x) * w * g"), {"h": 3, "e": 20}, built={"h": 3, "e": 20}),
    "a share of each feature": Whole(
        _mixer("shares(x[t,c], v[t,c]) -> y[t,c]", "p[t,c] = softmax[c](3 * x)", "y[t,c] = p * v - x"), {"c": 19}),
    "moments of one's own": Whole(
        _mixer("moments(x[t,c]) -> y[t,c], m[t], s[t]", "m[t] = sum[c] x / |c|", "s[t] = sqrt(mean[c]((x - m)^2) + 0.1)",
               "y[t,c] = (x - m) / s^3"), {"c": 21}),
    "five outputs of one input": Whole(
        _mixer("five(x[t,c], p[t,c]) -> a[t,c], b[t,c], d[t,c], e[t,c], f[t,c]", "param u[c] = normal(0, 1)",
               "param v[c] = normal(0, 1)", "a[t,c] = x + (p - x) * u", "b[t,c] = x + (p - x) * v", "d[t,c] = x + (p - x) * u * v",
               "e[t,c] = x - (p - x) * u", "f[t,c] = exp(-u^2) * x + p"), {"c": 18}, built={"c": 18}),
    "factors of each head, position and feature": Whole(
        _mixer("factors(x[t,h,e], s[h], f[e], n[t,h]) -> y[t,h,e]", "y[t,h,e] = tanh(s * x + f) * (x + n) + s * f"),
        {"h": 3, "e": 6}, alike=("s",)),
    "a sum over one axis and factors of another": Whole(
        _mixer("crossed(x[t,h,e], f[h]) -> y[t,h,e], m[t,e]", "m[t,e] = sum[h] x^2 * f", "y[t,h,e] = x * m * f + tanh(x)"),
        {"h": 3, "e": 6}),
    "a table of positions, the same for all sequences": Whole(
        _mixer("placed(x[t,c], p[t,c], n[t]) -> y[t,c]", "y[t,c] = (x + p) * sigmoid(x * p) * exp(n)"), {"c": 33},
        alike=("p", "n")),
    "the stream in the last place": Whole(
        _mixer("turned(x[t,c], y[c,t], s[t]) -> z[c,t]", "param w[c] = normal(1, 0.2)", "z[c,t] = tanh(x * w) * sigmoid(y) + s"),
        {"c": 9}, built={"c": 9}),
    "names that kernels have themselves": Whole(
        _mixer("named(first[t,e], c[t,e], blocks[t,e], rest[e]) -> row[t,e]", "total[t,e] = tanh(first) * c + blocks",
               "row[t,e] = total * sigmoid(rest) + first * c"), {"e": 9}),
    "nothing but the stream": Whole(_mixer("bare(x[t], y[t]) -> z[t]", "z[t] = tanh(x) * sigmoid(y) + x"), {}, time=40),
    "integers, conditions and numbers of the equations": Whole(
        _mixer("numbered(x[t,h,e], n[t,h]: int, keep[t,h,e]: bool; K = 3) -> y[t,h,e]",
               "y[t,h,e] = where(keep and e < |e| - 1, x * (n + h), 0.5 * x) / (K + |h|) + x^3 / |e|"), {"h": 2, "e": 9}),
    "functions": Whole(
        _mixer("functions(x[t,c], y[t,c]) -> s[t,c], r[t,c]",
               "s[t,c] = tanh(x) + log1p(exp(y)) - expm1(x / 9) + gelu(x) + elu(y) + logaddexp(x, y) + softplus(x) * relu(y)^2",
               "r[t,c] = log_sigmoid(y) + abs(x) * clamp(y, -1, 1) + max(x, y) * sin(x) + min(x, 0.3) + erf(y) / sqrt(x^2 + 1)"),
        {"c": 33}),
    "what PyTorch computes in between": Whole(
        _mixer("between(x[t,c], y[t,c]) -> o[t,c], k[t,c]", "k[t,c] = tanh(x) * y + y", "s[t,c] = 0.5 * s[t-1] + k",
               "o[t,c] = sigmoid(s) * k - s"), {"c": 12}, launches=2),
    "many rows": Whole(
        _mixer("many(x[t,c], b[t,c]) -> y[t,c]", "param w[c] = normal(1, 0.2)", "y[t,c] = rms_norm[c](x) * w + tanh(b * w)"),
        {"c": 5}, built={"c": 5}, time=2100, batch=3, shares=4),
    "a logarithm of nothing behind the last row": Whole(
        _mixer("entropies(x[t,c]) -> y[t,c]", "param w[c] = normal(0, 1)", "y[t,c] = w * log(x^2) + w"),
        {"c": 5}, built={"c": 5}),
    "wide": Whole(_mixer("wide(x[t,c]) -> y[t,c]", "param w[c] = normal(1, 0.2)", "y[t,c] = layer_norm[c](x) * w"),
                  {"c": 5000}, built={"c": 5000}, time=3),
    "what a projection is applied to": Whole(
        _mixer("applied(x[t,c], g[t,c]; E = 6) -> y[t,e]", "param w[c] = normal(1, 0.2)",
               "y[t, e: E] = linear[c](rms_norm[c](x) * w * silu(g))"), {"c": 10}, built={"c": 10}),
    "a window with a gate": Whole(
        _mixer("echoes(x[t,c], g[t,c]; W = 4) -> y[t,c]", "param w[j: W, c] = normal(0, 0.5)", "param b[c] = normal(0, 0.5)",
               "y[t,c] = silu(b + sum[j] w * x[t-j]) * sigmoid(g) + x"), {"c": 10}, built={"c": 10}),
    "a window alone": Whole(
        _mixer("alone(x[t,c]; W = 3) -> y[t,c]", "param w[j: W, c] = normal(0, 0.5)", "y[t,c] = sum[j] w * x[t-j]"),
        {"c": 130}, built={"c": 130}, time=12),
    "positions far apart": Whole(
        _mixer("far(x[t,h,e]; W = 3) -> y[t,h,e]", "param w[h, j: W] = normal(0, 0.5)",
               "y[t,h,e] = tanh(sum[j] w * x[t-2*j-1]) * x"), {"h": 2, "e": 5}, built={"h": 2}),
    "two windows of what is computed": Whole(
        _mixer("double(x[t,c], y[t,c]; W = 4, V = 2) -> z[t,c]", "param w[j: W, c] = normal(0, 0.5)",
               "param v[k: V] = normal(0, 1)", "a[t,c] = tanh(x) * y + x",
               "z[t,c] = rms_norm[c](sum[j] w * a[t-j]) * gelu(sum[k] v * y[t-k]) + a"), {"c": 9}, 2, built={"c": 9}),
    "a window over many rows": Whole(
        _mixer("long(x[t,c]; W = 5) -> y[t,c]", "param w[j: W, c] = normal(0, 0.5)", "y[t,c] = silu(sum[j] w * x[t-j])"),
        {"c": 5}, built={"c": 5}, time=2100, shares=40),
    "norms and gates at every depth": Whole(
        _mixer("deep(x[t,c], f[l,t,c], w[l,c]) -> y[t,c]", "z[-1,t,c] = x", "n[l,t,c] = rms_norm[c](z[l-1]) * w",
               "g[l,t,c] = silu(f) * n", "z[l,t,c] = z[l-1] + tanh(g) * w", "y[t,c] = z[|l|-1] + z[0]"), {"c": 9, "l": 3}, 3),
    "a table of each sequence, the batch behind what it is read at": Whole(
        _mixer("looked(x[t,c], u[i,c,j]) -> y[t,c]", "y[t,c] = silu(u[t // 2, c, t % 2] + x) * x"), {"c": 9, "i": 4, "j": 2}),
    "angles of positions, which are computed once": Whole(
        _mixer("turning(x[t,c]) -> y[t,c]", "p[t] = t", "a[t,c] = p * 9^(-c)", "y[t,c] = x * cos(a) + tanh(x) * sin(a)"), {"c": 9}),
    "gated linear attention": Whole("gla", {"c": 16}, 2, "GLA", {"c": 16, "H": 2}),
    "a delta rule": Whole("delta_rule", {"c": 12}, 4, "DeltaNet", {"c": 12, "H": 2}),
    "a state space": Whole("mamba", {"c": 6}, 3, "Mamba", {"c": 6, "N": 5}),
    "an average of the past": Whole("rwkv4", {"c": 12}, 2, "RWKV4", {"c": 12}),
    "a transformer": Whole("transformer_layer", {"c": 12}, 1, "TransformerLayer", {"c": 12, "H": 2}),
}  # fmt: skip
LAYERS = Whole(STACK, {"c": 5}, 4, "stack", {"c": 5})  # whose parameters every step has of its own
HALVES = ("a gate", "a norm with a scale and a shift", "factors of each head, position and feature", "a window with a gate")
LENGTHS = (  # also of no position, and of one
    "a norm with a scale and a shift", "a gate", "factors of each head, position and feature", "a window with a gate",
)


# Mistakes that a writer of kernels could make, and a case that shows each.
MUTANTS: dict[str, tuple[str, Callable[[str], str]]] = {
    "a mean is a sum": ("a norm with a scale and a shift", _swap(" / (c_2 + 0.0)", "")),
    "the padding of a tile takes part": ("a norm with a scale and a shift", _swap("tl.where(c < c_count, ", "tl.where(c < 64, ")),
    "rows behind the last one are summed": (
        "a logarithm of nothing behind the last row", _swap("tl.where(inside, ", "tl.where(row == row, ")),
    "only the first share of a sum": ("many rows", _swap("x = x.sum(more)", "x = x.select(more[0], 0)")),
    "only the last rows of a share": ("many rows", _swap("_sum += tl.sum(", "_sum = tl.sum(")),
    "the gradient of a norm lacks its sum": ("a norm by head with a scale for each", _swap("total_2 * ", "0.0 * ")),
    "the first head stands for all": ("factors of each head, position and feature", _swap("h = rest % h_count", "h = rest * 0")),
    "a window looks ahead": ("a window with a gate", _swap("_window_from - j", "_window_from + j")),
    "what the state holds is left out": ("a window with a gate", _swap("_window_from - j", "_window_from * 0 - j")),
    "positions next to each other": ("positions far apart", _swap(" - j * 2 - 1", " - j - 1")),
    "what is sent to a window comes from before": ("a window alone", _swap("- before + j * step", "- before - j * step")),
    "the taps of other positions": ("a window alone", _swap("+ before - j * step - skip", "+ before - j * step - skip - 1")),
    "the first tap stands for all": ("a window over many rows", _swap("w + tl.cast(j, tl.int64) * L", "w + 0 * L")),
    "only the first share of taps": ("a window over many rows", _swap("found = sums.sum(0)", "found = sums[0]")),
    "a tap of each feature": ("positions far apart", _swap("found = found.sum(more) if more", "found = found.amax(more) if more")),
    "only the first block of columns": ("a gate", _swap("% blocks * Bc", "* 0")),
    "the layer before is left out": ("norms and gates at every depth", _swap("z2_tile + ", "0.0 + ")),
    "all layers are alike": ("norms and gates at every depth", _swap("w_steps[l]", "w_steps[0]")),
    "a gate's slope is another's": ("a gate", _swap("tl.sigmoid(y_tile)", "tl.sigmoid(x_tile)")),
    "the largest is not taken away twice": ("a share of each feature", _swap("p_tile = ", "p_tile = 1.0001 * ")),
    "an output that another one reads sends nothing": ("moments of one's own", _swap("(d_s_tile + ", "(")),
    "the other operand gets the gradient": ("functions", _swap("(y_tile < x_tile, shared", "(x_tile < y_tile, shared")),
}  # fmt: skip

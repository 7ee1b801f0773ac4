"""Mixers whose state has rows that grow with time."""

from __future__ import annotations

from seqdsl.ir.system import System
from seqdsl.semantics import load_system

HEADER = "mixer m(q[t,d], k[t,d], v[t,e], b[e]) -> o[t,e]:\n    index s over t, r over t, u over t\n    "
SCORE = "w[t,s] = sum[d] q * k[s]"
READ = "o[t,e] = sum[s | s <= t] z * v[s]"


def system_of(*lines: str) -> System:
    return load_system(HEADER + "\n    ".join(lines) + "\n")


# The last line reads z; what is beside each case is z's number beyond, or "row" where it has none and needs none.
GROWING = [
    ("0", (SCORE, "z[t,s] = z[t-1,s] + where(s < t, w, 0)", READ)),
    ("0", (SCORE, "z[t,s] = z[t-1,s] / 2 + (s < t) * w", READ)),
    ("0", (SCORE, "z[t,s] = z[t-1,s] / 2 - 0.5 * z[t-2,s] + where(s <= t, w, 0)", READ)),
    ("0", (SCORE, "z[t,s] = where(s <= t, tanh(w + z[t-1,s]), 0)", "o[t,e] = sum[s] z * v[s]")),
    ("0", (SCORE, "z[t,s] = where(s == t, 1, y[t-1,s]) / 2", "y[t,s] = z + y[t-1,s] * where(s < t, w, 3)", READ)),
    ("0", ("Z[t,s,e] = where(s == t, v, Z[t-1,s,e] - v * sum[e] v * Z[t-1,s,e])", "z[t,s] = sum[e] Z", READ)),
    ("0", (SCORE, "z[t,s] = softmax[s | s <= t](w)", "o[t,e] = sum[u,s | u < t and s <= u] z[u,s] * v[s]")),
    ("0", (SCORE, "z[t,s,r] = where(s <= t and r <= t, tanh(w + z[t-1,s,r]), 0)", "o[t,e] = sum[s,r] z * v[s] * v[r]")),
    ("1", (SCORE, "z[-1,s] = 1", "z[t,s] = z[t-1,s] * f", "f[t,s] = where(s < t, sigmoid(w), 1)", READ)),
    ("-inf", (SCORE, "z[-1,s] = -inf", "z[t,s] = where(s <= t and z[t-1,s] < w, w, z[t-1,s])",
              "o[t,e] = sum[s | s <= t] exp(z) * v[s]")),
    ("false", (SCORE, "z[t,s] = s < t and (z[t-1,s] or w > 0.5)", "o[t,e] = sum[s | s <= t and not z] v[s]")),
    ("1", (SCORE, "z[t,s] = where(s < t, w, 1)", "o[t,e] = sum[u,s | u < t and s <= t] z[u,s] * v[s]")),
    ("row", (SCORE, "z[t,s] = where(s < t, z[t-1,s], 1) / 2 + w", READ)),
    ("row", (SCORE, "z[-1,s] = sum[e] b", "z[t,s] = where(s < t, z[t-1,s], 1) / 2 + w", READ)),
]  # fmt: skip

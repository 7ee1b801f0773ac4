"""Mixers whose packed sequences are tried, for what no mixer of the library and no other test has."""

from __future__ import annotations

BASE = """
mixer base(x[t,c], a[t,c], b[c]) -> y[t,c]:
    S[-1,c] = b
    S[t,c]  = a * S[t-1] + x
    y[t,c]  = S
"""
ACROSS = """
mixer across(x[t,d], a[t,d]) -> y[t,d]:
    y[t,d] = a * y[t,d-1] + x
"""
BOTH = """
mixer both(x[t,c], a[t,c], b[t,c]) -> y[t,c]:
    S[t,c] = sigmoid(a) * S[t-1] + x
    R[t,c] = sigmoid(b) * R[t+1] + x
    y[t,c] = S * R
"""
SHIFTS = """
mixer shifts(x[t,c], m[c]) -> y[t,c], z[t,c]:
    u[t,c] = tanh(x) * m
    y[t,c] = x + m * (x[t-1] - x) + u[t-2]
    w[t, j: 3, c] = u[t-j]
    z[t,c] = max[j](w) - (sum[k: 2] u[t-k-1])
"""
DEEP_SHIFTS = """
mixer deep_shifts(x[t,c], m[l,c]) -> y[t,c]:
    z[-1,t,c] = x
    z[l,t,c]  = tanh(z[l-1,t-1] * m + z[l-1])
    y[t,c]    = z[|l|-1]
"""
# Of which each read before a step has a decay of its own, so that it goes through the states themselves.
THROUGH = """
mixer through(q[t,h,d], k[t,h,d], v[t,h,e], g[t,h,d], f[t,h,e], p[t,j,h,d], w[t,j,h,d]) -> o[t,h,e]:
    P[t,h,d,e] = exp(g) * exp(f) * S[t-1]
    S[t,h,d,e] = P - (sum[j] w * (sum[d] p * P)) + k * v
    o[t,h,e]   = sum[d] q * S
"""
# Decays of rows and columns that all positions share, as numbers and as logarithms.
SHARED = """
mixer shared(q[t,h,d], k[t,h,d], v[t,h,e], a[h,d,e]) -> o[t,h,e]:
    S[t,h,d,e] = sigmoid(a) * S[t-1] + k * v
    R[t,h,d,e] = exp(-abs(a)) * R[t-1] + k * v
    o[t,h,e]   = (sum[d] q * S) + (sum[d] q * R)
"""
LAYER = """
mixer layer(x[t,c], a[t,c]; W = 3) -> y[t,c]:
    param w[j: W, c] = normal(0, 0.5)
    u[t,c] = silu(sum[j] w * x[t-j]) * sigmoid(a) + x
    m[t,c] = max(m[t-1] - exp(a), u)
    S[t,c] = sigmoid(a) * S[t-1] + m
    y[t,c] = S * u + tanh(S[t-1])
"""
# A layer of attention to few positions, scores by what is computed across time, and a recurrence after it.
ATTENDING = """
mixer attending(q[t,h,d], k[t,h,d], v[t,h,e], f[t,h]) -> y[t,h,e]:
    index s over t
    G[t,h]   = log_sigmoid(f) + G[t-1]
    u[t,h,e] = v + v[t-1]
    p[t,s,h] = softmax[s | t - 6 < s <= t](sum[d] q * k[s] + G[t] - G[s])
    o[t,h,e] = sum[s] p * u[s]
    y[t,h,e] = sigmoid(f) * y[t-1] + o
"""
DEEP_ATTENDING = """
mixer deep_attending(x[t,c], w[l,c]) -> y[t,c]:
    index s over t
    z[-1,t,c] = x
    k[l,t,c]  = tanh(w * z[l-1])
    p[l,t,s]  = softmax[s | s <= t](sum[c] z[l-1,t] * k[l,s])
    z[l,t,c]  = z[l-1] + (sum[s] p * k[l,s])
    y[t,c]    = z[|l|-1]
"""

"""pLSTM on a sequence: every pair of positions by the product of the transitions between them."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, causal_filter, draws, linear, rms_norm, sigmoid, silu, weights


def plstm_1d(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    q, k, v, S, T, M, D = (inputs[name] for name in ("q", "k", "v", "S", "T", "M", "D"))
    length, heads = q.shape[:2]
    out = np.zeros((length, heads, v.shape[2], M.shape[2]))
    for t in range(length):
        for h in range(heads):
            pairs = np.einsum("da,uabc,db,ec->eu", q[t, h], D[t, h], k[t, h], v[t, h])
            path = np.eye(T.shape[-1])
            for s in reversed(range(t)):
                wrote = np.einsum("jbc,db,ec->jde", S[s, h], k[s, h], v[s, h])
                pairs += np.einsum("da,uaj,ji,ide->eu", q[t, h], M[t, h], path, wrote)
                path = path @ T[s, h]
            out[t, h] = pairs / np.sqrt(q.shape[2])
    return {"o": out}


def plstm_1d_example(rng: np.random.Generator, T: int) -> Example:
    H, D, E, J, A, B, C, U = 2, 3, 2, 2, 2, 3, 2, 3
    shapes = {"q": (D, A), "k": (D, B), "v": (E, C), "S": (J, B, C), "T": (J, J), "M": (U, A, J), "D": (U, A, B, C)}
    inputs = draws(rng, **{name: (T, H, *shape) for name, shape in shapes.items()})
    return inputs | {"T": inputs["T"] / 2}, {}, {}


def plstm_1d_scalar(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    wide = {name: inputs[name][..., None] for name in "qkv"}
    for name, ones in (("S", 3), ("T", 2), ("M", 3), ("D", 4)):
        wide[name] = inputs[name].reshape(*inputs[name].shape, *[1] * ones)
    return {"o": plstm_1d(wide, {}, {})["o"][..., 0]}


def plstm_1d_scalar_example(rng: np.random.Generator, T: int) -> Example:
    H, D, E = 2, 3, 2
    inputs = draws(rng, q=(T, H, D), k=(T, H, D), v=(T, H, E), S=(T, H), M=(T, H), D=(T, H))
    return inputs | {"T": rng.uniform(-1, 1, (T, H))}, {}, {}


plstm_1d_dense, plstm_1d_dense_example = plstm_1d_scalar, plstm_1d_scalar_example


def PLSTM1D(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    x = inputs["x"]
    u = silu(causal_filter(x, params["w"]))
    gates = {name: sigmoid(linear(u, params, name)) for name in "SM"}
    gates |= {"D": sigmoid(linear(u, params, "G")), "T": np.tanh(5 * linear(u, params, "T"))}
    tokens = {"q": linear(u, params, "q"), "k": linear(u, params, "k"), "v": linear(x, params, "v")}
    return {"y": linear(rms_norm(plstm_1d_scalar(tokens | gates, {}, {})["o"]), params, "y", 2)}


def PLSTM1D_example(rng: np.random.Generator, T: int) -> Example:
    C, H, D, W = 6, 2, 3, 3
    params = weights(rng, **dict.fromkeys("qkv", (C, H, D)), **dict.fromkeys("STMG", (C, H)))
    params |= weights(rng, 2, y=(H, D, C)) | {f"{name}.bias": rng.standard_normal(H) for name in "STMG"}
    return draws(rng, x=(T, C)), params | draws(rng, w=(W, C)), {"H": H, "D": D, "W": W}

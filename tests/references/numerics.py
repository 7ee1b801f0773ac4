"""What every reference shares: activations, norms, a linear map, a causal filter, and random draws. No mixers."""

from __future__ import annotations

import math

import numpy as np

Array = np.ndarray
Tensors = dict[str, Array]
Sizes = dict[str, int]
Example = tuple[Tensors, Tensors, Sizes]

_erf = np.vectorize(math.erf, otypes=[float])


def sigmoid(x: Array) -> Array:
    return 0.5 * (1 + np.tanh(x / 2))


def log_sigmoid(x: Array) -> Array:
    return -np.logaddexp(0, -x)


def softplus(x: Array) -> Array:
    return np.logaddexp(0, x)


def silu(x: Array) -> Array:
    return x * sigmoid(x)


def gelu(x: Array) -> Array:
    return x * (1 + _erf(x / math.sqrt(2))) / 2


def softmax(x: Array, axis: int = -1) -> Array:
    weights = np.exp(x - x.max(axis=axis, keepdims=True))
    return weights / weights.sum(axis=axis, keepdims=True)


def rms_norm(x: Array, axes: int = 1, eps: float = 1e-6) -> Array:
    """Over the last `axes` axes; eps is added to the mean square."""
    over = tuple(range(-axes, 0))
    return x / np.sqrt((x * x).mean(axis=over, keepdims=True) + eps)


def layer_norm(x: Array, eps: float = 1e-6) -> Array:
    return rms_norm(x - x.mean(axis=-1, keepdims=True), eps=eps)


def l2_norm(x: Array) -> Array:
    return x / np.sqrt((x * x).sum(axis=-1, keepdims=True) + 1e-12)


def linear(x: Array, params: Tensors, name: str, contracted: int = 1) -> Array:
    """The last `contracted` axes of x against the first of `<name>.weight`; plus `<name>.bias` where there is one."""
    y = np.tensordot(x, params[f"{name}.weight"], axes=contracted)
    return y + params.get(f"{name}.bias", 0.0)


def causal_filter(x: Array, w: Array) -> Array:
    """y[t] = sum of w[j] * x[t-j], nothing before the start."""
    y = np.zeros(np.broadcast_shapes(x.shape, (len(x), *w.shape[1:])), np.result_type(x, w))
    for t in range(len(x)):
        for j in range(min(len(w), t + 1)):
            y[t] += w[j] * x[t - j]
    return y


def under(params: Tensors, name: str) -> Tensors:
    """The parameters of the call whose left side is `name`."""
    return {key[len(name) + 1 :]: value for key, value in params.items() if key.startswith(name + ".")}


def draws(rng: np.random.Generator, **shapes: tuple[int, ...]) -> Tensors:
    """Standard normal tensors."""
    return {name: rng.standard_normal(shape) for name, shape in shapes.items()}


def weights(rng: np.random.Generator, contracted: int = 1, **shapes: tuple[int, ...]) -> Tensors:
    """`<name>.weight`, normal, scaled by the number of what is contracted."""
    return {
        f"{name}.weight": rng.standard_normal(shape) / math.sqrt(math.prod(shape[:contracted]))
        for name, shape in shapes.items()
    }


def complex_draw(rng: np.random.Generator, *shape: int) -> Array:
    """Complex normal with unit variance."""
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) / math.sqrt(2)

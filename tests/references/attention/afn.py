"""Normalised attention with feature maps: query t averages the values up to t, weighted by the products of features."""

from __future__ import annotations

import numpy as np

from ..numerics import Example, Sizes, Tensors, draws
from .based import taylor
from .linear import feature
from .performer import averaged, favor


def afn(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    fq, fk, v = (inputs[name] for name in ("fq", "fk", "v"))
    return {"o": averaged(fq, fk, v, list(range(1, len(fq) + 1)))}


def afn_example(rng: np.random.Generator, T: int) -> Example:
    inputs = draws(rng, fq=(T, 3, 5), fk=(T, 3, 5), v=(T, 3, 4))
    return inputs | {name: np.exp(inputs[name]) for name in ("fq", "fk")}, {}, {}


afn_quadratic = afn

afn_quadratic_example = afn_example


def mapped(inputs: Tensors, f: object) -> Tensors:
    return afn({"fq": f(inputs["q"]), "fk": f(inputs["k"]), "v": inputs["v"]}, {}, {})


def afn_elu(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return mapped(inputs, feature)


def afn_elu_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 4), k=(T, 3, 4), v=(T, 3, 5)), {}, {}


def afn_relu(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return mapped(inputs, lambda x: np.maximum(x, 0) + 1e-3)


afn_relu_example = afn_elu_example


def afn_favor(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return mapped(inputs, lambda x: favor(x, inputs["w"]))


def afn_favor_example(rng: np.random.Generator, T: int) -> Example:
    return draws(rng, q=(T, 3, 4), k=(T, 3, 4), v=(T, 3, 5), w=(6, 4)), {}, {}


def afn_taylor(inputs: Tensors, params: Tensors, sizes: Sizes) -> Tensors:
    return mapped(inputs, taylor)


afn_taylor_example = afn_elu_example

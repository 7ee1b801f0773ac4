"""Sums over intervals whose ends move are running sums: against the interpreter where numbers are infinite outside of them,
gradients against the derived adjoint, across the split of a sequence, and without a tensor for all triples of positions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import seqdsl
from seqdsl.semantics import load_system
from tests.backends.torch_module.harness import emit_module, load_class
from tests.forms.gradients import worst_gap

STREAMED = {
    "up to here": "mixer m(g[t], x[t,c]) -> y[t,c]:\n    index r over t\n    y[t,c] = sum[r | r <= t] exp(g[r]) * x[r]\n",
    "before here": "mixer m(g[t], x[t,c]) -> y[t,c]:\n    index r over t\n    y[t,c] = sum[r | r + 1 < t] x[r] - 2 * g\n",
    "between two": """mixer m(g[t], x[t,c]) -> y[t,c]:
    index s over t, r over t
    y[t,c] = sum[s | s <= t] exp(sum[r | s < r <= t] g[r]) * x[s]
""",
    "of some": """mixer m(g[t], x[t,c]) -> y[t,c]:
    index s over t, r over t
    y[t,c] = sum[s | s <= t] exp(sum[r | s < r <= t and r % 2 == 0] g[r]) * x[s]
""",
    "a window": "mixer m(g[t], x[t,c]) -> y[t,c]:\n    index r over t\n    y[t,c] = x * exp(sum[r | t - 3 < r <= t] g[r])\n",
    "a window that an option says": """mixer m(g[t], x[t,c]; W = 5) -> y[t,c]:
    index r over t
    y[t,c] = x * exp(sum[r | t - W <= r < t] g[r])
""",
    "a mean": "mixer m(g[t], x[t,c]) -> y[t,c]:\n    index r over t\n    y[t,c] = exp(mean[r | t - 4 <= r <= t] g[r]) * x\n",
    "in scores": """mixer m(g[t], x[t,c]) -> y[t,c]:
    index s over t, r over t
    p[t,s] = softmax[s | s <= t]((sum[c] x * x[s,c]) + sum[r | s < r <= t] g[r])
    y[t,c] = sum[s] p * x[s]
""",
    "a product between two": """mixer m(g[t], x[t,c]) -> y[t,c]:
    index s over t, r over t
    y[t,c] = sum[s | s <= t] prod[r | s < r <= t](exp(g[r])) * x[s]
""",
    "products of windows": """mixer m(g[t], x[t,c]; W = 3) -> y[t,c]:
    index r over t
    y[t,c] = x * prod[r | t - W < r <= t](exp(g[r])) + prod[r | r < t and r % 2 == 0](1 + x[r,0] / 9)
""",
    "a product in scores": """mixer m(g[t], x[t,c]) -> y[t,c]:
    index s over t, r over t
    p[t,s] = softmax[s | s <= t](prod[r | s < r <= t](exp(g[r])))
    y[t,c] = sum[s] p * x[s]
""",
    "of pairs": """mixer m(g[t], x[t,c]) -> y[t,c]:
    index s over t, r over t
    a[t,r] = (sum[c] x[t] * x[r]) + g[r]
    y[t,c] = sum[s | s <= t] exp(sum[r | s < r <= t] a[t,r] / 9) * x[s]
""",
    "times what moves": """mixer m(g[t], x[t,c]) -> y[t,c]:
    index s over t, r over t
    p[t,s] = softmax[s | s <= t](sum[r | s < r <= t] (exp(x[t,0]) * g[r] + g[r] / (2 + r)))
    y[t,c] = sum[s] p * x[s]
""",
}
WHOLE = {
    "after here": "mixer m(g[t], x[t,c]) -> y[t,c]:\n    index r over t\n    y[t,c] = sum[r | r > t] exp(g[r]) * x[r]\n",
    "apart": "mixer m(x[t,c], a[n], b[n]) -> y[n,k,c]:\n    index k over n\n    y[n,k,c] = sum[t | n + 1 <= t < 2 + k + |n|] x\n",
    "rows of a table": "mixer m(a[t,r]) -> y[t,s]:\n    index s over r\n    y[t,s] = sum[r | s <= r < 2 * s + 2] a\n",
    "around here": "mixer m(g[t], x[t,c]) -> y[t,c]:\n    index r over t\n    y[t,c] = x * exp(sum[r | t - 2 < r < t + 4] g[r])\n",
    "from the third on": "mixer m(x[t,c]) -> y[t,c]:\n    index r over t\n    y[t,c] = sum[r | r <= t + 1 and r >= 2] x[r]\n",
}
EVERY = {**STREAMED, **WHOLE}


def values(text: str, length: int, *, infinite: bool) -> dict[str, np.ndarray]:
    """Inputs; of g, log decays, some leave nothing."""
    rng = np.random.default_rng(length)
    sizes = {"t": length, "r": length, "c": 3, "n": 2}
    found = {}
    for tensor in load_system(text).inputs():
        x = rng.standard_normal([sizes[i] for i in tensor.indices])
        if tensor.name == "g":
            x = -np.abs(x)
            x[3::7] = -np.inf if infinite else x[3::7]
        found[tensor.name] = x
    return found


@pytest.mark.parametrize("name", EVERY)
def test_what_lies_outside_may_be_infinite(name: str) -> None:
    program = seqdsl.load(EVERY[name])
    for length in (0, 1, 2, 5, 40, *([300] if "softmax" in EVERY[name] else [])):  # of which blocks take several
        given = values(EVERY[name], length, infinite="g" in EVERY[name] and name != "before here")
        wanted = program.interpret(inputs=given)["outputs"]["y"]
        assert not np.isnan(wanted).any()
        for form in ("recurrent", *(("quadratic", "chunkwise") if "softmax" in EVERY[name] else ())):
            found = program.module(form).double()(*(torch.tensor(x)[None] for x in given.values()))[0].numpy()
            np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-14, err_msg=f"{form}, {length}")


@pytest.mark.parametrize("name", EVERY)
def test_gradients_are_those_of_the_equations(name: str) -> None:
    for length in (1, 9):
        gap, where = worst_gap(load_system(EVERY[name]), stream=length)
        assert 0 <= gap < 1e-10, where


@pytest.mark.parametrize("name", STREAMED)
def test_a_sequence_may_come_in_parts(name: str) -> None:
    module = seqdsl.load(STREAMED[name]).module().double()
    inputs = [torch.tensor(x)[None] for x in values(STREAMED[name], 12, infinite=False).values()]
    whole = module(*inputs)
    first, state = module(*(x[:, :5] for x in inputs), return_state=True)
    rest, state = module(*(x[:, 5:11] for x in inputs), state=state, return_state=True)
    last, _ = module.step(*(x[:, 11] for x in inputs), state)
    torch.testing.assert_close(torch.cat([first, rest, last[:, None]], 1), whole, rtol=1e-12, atol=1e-12)


class Largest(TorchDispatchMode):
    """The number of entries of the largest tensor that is made."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor):
            self.entries = max(self.entries, found.numel())
        return found


SMALL = {"up to here": 1, "a window": 1, "after here": 1, "products of windows": 1, "between two": 2, "of pairs": 2}


@pytest.mark.parametrize(("name", "power"), SMALL.items())
def test_no_tensor_is_larger_than_what_it_is_for(name: str, power: int) -> None:
    length = 200
    inputs = [torch.tensor(x)[None] for x in values(EVERY[name], length, infinite=False).values()]
    with Largest() as made:
        seqdsl.load(EVERY[name]).module().double()(*inputs)
    assert made.entries <= 4 * length**power


MUTANTS = {
    "one too many": ("x.cumsum(dim)], dim)", "x.cumsum(dim)], dim).roll(-1, dim)"),
    "the other end": ("length - begin, product)", "begin, product)"),
    "nothing is 0": ("slice(0, 1),)], float(product))", "slice(0, 1),)], 0.0)"),
    "0 outside of a product": ("x.unsqueeze(dim), int(product))", "x.unsqueeze(dim), 0)"),
    "intervals that begin in the middle": ("else before + after", "else after + 0 * before"),
    "every beginning at 0": (">= begin.flatten()", ">= 0 * begin.flatten()"),
    "a product with a mask": ("torch.where(inside, x.unsqueeze(dim), int(product))", "inside * x.unsqueeze(dim)"),
    "windows that begin a block late": ("at = (begin + width)", "at = (begin + width + 1)"),
    "the end of one block alone": ("else first + rest", "else first + 0 * rest"),
    "long windows from the front": ("(begin <= 0)", "(begin <= 10**6)"),
}


def passes(change: tuple[str, str]) -> bool:
    for name, text in EVERY.items():
        system = load_system(text)
        code = emit_module(system, class_name="M")
        for length in (2, 5, 40):
            given = values(text, length, infinite=name in ("between two", "a window"))
            wanted = seqdsl.load(text).interpret(inputs=given)["outputs"]["y"]
            module = load_class(code.replace(*change), "M")().double()
            try:
                found = module(*(torch.tensor(x)[None] for x in given.values()))[0].numpy()
            except (IndexError, RuntimeError):
                return False
            if not np.allclose(found, wanted, rtol=1e-10):
                return False
    return True


def test_the_functions_themselves_pass() -> None:
    assert passes(("", ""))


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name: str) -> None:
    assert not passes(MUTANTS[name])

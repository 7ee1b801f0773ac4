"""A state lies in memory of its own: callers write into inputs and outputs, and a part of a tensor holds the whole of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import seqdsl

MIXERS = {
    "the value before": ("mixer m(x[t,c]) -> y[t,c]:\n    y[t,c] = x + x[t-1]\n", "recurrent"),
    "values before": ("mixer m(x[t,c]) -> y[t,c]:\n    y[t,c] = x + x[t-2]\n", "recurrent"),
    "values before, by another name": (
        "mixer m(x[t,c]) -> y[t,c]:\n    u[t,c] = x\n    y[t,c] = u + u[t-1]\n", "recurrent",
    ),
    "all values": (
        "mixer m(q[t,c], k[s,c]) -> y[t,c]:\n    index s over t\n"
        "    p[t,s] = softmax[s | s <= t](sum[c] q * k)\n    y[t,c] = sum[s] p * k\n", "recurrent",
    ),
    "an output": ("mixer m(x[t,c]) -> y[t,c]:\n    y[t,c] = y[t-1] / 2 + x\n", "scan"),
    "a boundary": (
        "mixer m(x[t,c]) -> y[t,c]:\n    s[t,c] = s[t-1] / 2 + x\n    y[t,c] = s + s[t // 4 * 4 - 1]\n", "scan",
    ),
    "the last of all states": (
        "mixer m(x[t,c], a[c,n]) -> y[t,c]:\n    s[t,c,n] = sigmoid(a) * s[t-1] + x\n    y[t,c] = sum[n] s\n", "convolution",
    ),
}  # fmt: skip


def leaves(state: Any) -> Iterator[Tensor]:
    """The tensors of a record."""
    if isinstance(state, dict):
        for value in state.values():
            yield from leaves(value)
    elif isinstance(state, Tensor):
        yield state


@pytest.mark.parametrize("length", [1, 7])
@pytest.mark.parametrize("name", MIXERS)
def test_a_state_is_no_part_of_anything_else(name: str, length: int) -> None:
    text, form = MIXERS[name]
    program = seqdsl.load(text)
    given = [torch.randn(2, *[3 if i in "cn" else length for i in x.indices]) for x in program.system().inputs()]
    y, state = program.module(form)(*given, return_state=True)
    others = {x.untyped_storage().data_ptr() for x in (*given, y)}
    for kept in leaves(state):
        memory = kept.untyped_storage()
        assert memory.data_ptr() not in others and (length == 1 or memory.nbytes() == kept.nbytes)


def test_a_buffer_for_each_position() -> None:
    module, buffer, found = seqdsl.load(MIXERS["the value before"][0]).module(), torch.zeros(1, 1), []
    state = module.init_state(1, c=1)
    for t in range(4):
        y, state = module.step(buffer.fill_(t), state)
        found.append(y.item())
    assert found == [0, 1, 3, 5]

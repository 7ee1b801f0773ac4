"""The state record: where its entries are, and that a call whose output is one of its states keeps all of them."""

from __future__ import annotations

import numpy as np
import torch

import seqdsl
from seqdsl.ir.state import flatten, nest, record_paths

CALLER = """
mixer cell(x[t,c], f[t,c]) -> h[t,c]:
    S[t,c] = sigmoid(f + h[t-1]) * S[t-1] + x
    h[t,c] = tanh(S)

mixer caller(x[t,c], f[t,c]) -> y[t,c]:
    h      = cell(x, f)
    y[t,c] = h + x[t-1]
"""


def test_an_entry_beside_others_of_its_name_is_among_them() -> None:
    assert record_paths(["y", "y.S", "x.k[x.s]"]) == {"y": ["y", "y"], "y.S": ["y", "S"], "x.k[x.s]": ["x", "k[x.s]"]}
    assert record_paths(["y", "y.y"]) == {"y": ["y", "y_"], "y.y": ["y", "y"]}
    flat = {"y": 1, "y.S": 2, "y.z.S": 3, "y.z": 4}
    assert nest(flat) == {"y": {"y": 1, "S": 2, "z": {"S": 3, "z": 4}}}
    assert sorted(flatten(nest(flat)).values()) == [1, 2, 3, 4]


def test_a_call_whose_output_is_a_state_continues() -> None:
    rng = np.random.default_rng(0)
    inputs = {name: rng.standard_normal((7, 2)) for name in "xf"}
    program = seqdsl.load(CALLER, "caller")
    whole = program.interpret(inputs=inputs)["outputs"]["y"]
    first = program.interpret(inputs={n: v[:3] for n, v in inputs.items()})
    assert set(first["state"]["h"]) == {"S", "h"}
    second = program.interpret(inputs={n: v[3:] for n, v in inputs.items()}, state=first["state"])
    np.testing.assert_allclose(np.concatenate([first["outputs"]["y"], second["outputs"]["y"]]), whole, rtol=1e-14)
    module = program.module().double()
    here = [torch.from_numpy(inputs[name])[None] for name in "xf"]
    y, state = module(*(x[:, :3] for x in here), return_state=True)
    assert set(state["h"]) == set(module.init_state(1, c=2)["h"]) == {"S", "h"}
    np.testing.assert_allclose(module(*(x[:, 3:] for x in here), state=state)[0], whole[3:], rtol=1e-12)


ATTENTION = """
mixer attend(q[t,c], k[s,c]) -> o[t,c]:
    index s over t
    p[t,s] = softmax[s | s <= t](sum[c] q * k)
    o[t,c] = sum[s] p * k

mixer caller(x[t,c]) -> y[t,c]:
    y[t,c] = attend(x, tanh(x) + x[t-1])
"""


def test_what_is_given_to_a_second_index_is_kept_as_a_name_for_it_would_be() -> None:
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    module = seqdsl.load(ATTENTION, "caller").module().double()
    state, found = module.init_state(2, c=3), []
    for row in x.unbind(1):
        y, state = module.step(row, state)
        found.append(y)
    torch.testing.assert_close(torch.stack(found, 1), module(x))

"""Sums whose guard says where each entry goes: against the interpreter, with entries that go nowhere, in one pass."""

from __future__ import annotations

import pytest
import torch

from seqdsl.ir.interpreter import interpret
from seqdsl.semantics import load_system
from tests.backends.torch_module.harness import emit_module, gap, module_of

MIXERS = {
    "edges": "mixer m(w[a,d], z[n,d], dst[a]: int) -> y[n,d]:\n    y[n,d] = z * sum[a | dst == n] exp(w) * w\n",
    "outer products": """
mixer m(z[n], k[a,d], v[a,e], dst[a]: int) -> y[n,d,e]:
    y[n,d,e] = z + sum[a | n == dst - 1] k * v
""",
    "counts": "mixer m(z[n], dst[a]: int) -> y[n]:\n    y[n] = z + sum[a | dst == n] (1 + a)\n",
    "one for all sequences": """
mixer m(z[n]) -> y[n,c]:
    const key[a: 4] = (0, 2, 2, 7)
    y[n, c: 3] = z + sum[a | floor(key) == n] (a + c)
""",
}


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize(("nodes", "edges"), [(5, 9), (3, 0), (0, 4), (1, 1)])
def test_what_is_added_where(name: str, nodes: int, edges: int) -> None:
    system, generator = load_system(MIXERS[name]), torch.Generator().manual_seed(nodes)
    inputs = []
    for t in system.inputs():
        shape = [2, *({"n": nodes, "a": edges}.get(i, 3) for i in t.indices)]
        draw = torch.randint(-2, 7, shape, generator=generator)
        inputs.append(draw if t.dtype == "int" else torch.randn(shape, generator=generator, dtype=torch.float64))
    module = module_of(system)
    found = module(*inputs)
    for b in range(2):
        own = {t.name: x[b].numpy() for t, x in zip(system.inputs(), inputs, strict=True)}
        assert gap(found[b], torch.tensor(interpret(system, inputs=own)["outputs"]["y"])) < 1e-12


@pytest.mark.parametrize("name", MIXERS)
def test_no_mask_of_all_pairs_is_made(name: str) -> None:
    code = emit_module(load_system(MIXERS[name]), class_name="M")
    assert "_segment_sum(" in code and "mask" not in code.rpartition("def m(")[2]


def test_gradients() -> None:
    system = load_system(MIXERS["outer products"])
    z, k, v = (torch.randn(2, 4, *more, dtype=torch.float64).requires_grad_() for more in ((), (2,), (3,)))
    places = torch.tensor([[0, 2, 3, 9], [1, 1, -1, 4]])
    assert torch.autograd.gradcheck(lambda *x: module_of(system)(*x, places), (z, k, v))

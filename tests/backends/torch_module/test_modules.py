"""Generated modules against the interpreter: values, gradients, states, steps, packing, compile and export."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import seqdsl
from seqdsl.diagnostics import SeqError
from seqdsl.forms import FORMS, derive
from seqdsl.ir.interpreter import interpret
from seqdsl.semantics import load_system

load = seqdsl.load
CORPUS = Path(__file__).resolve().parents[2] / "corpus"
FIXTURES = sorted((CORPUS / "values").glob("*.json"))
DECAYS = [0.0, -1e-6, -20.0, -200.0]


def array(entry: Any) -> np.ndarray:
    def number(value: Any) -> Any:
        return (
            [number(v) for v in value] if isinstance(value, list) else float(value) if isinstance(value, str) else value
        )

    if not isinstance(entry, dict):
        return np.asarray(number(entry))
    data = np.asarray(number(entry["data"]))
    return data[..., 0] + 1j * data[..., 1] if entry["dtype"] == "complex" else data


def rms(found: torch.Tensor, wanted: np.ndarray) -> float:
    with np.errstate(all="ignore"):
        gap = np.where(found.detach().numpy() == wanted, 0, found.detach().numpy() - wanted)
        scale = np.where(np.isfinite(wanted), wanted, 0)
    return (
        float(np.sqrt(np.mean(np.abs(gap) ** 2)) / max(np.sqrt(np.mean(np.abs(scale) ** 2)), 1e-3))
        if wanted.size
        else 0.0
    )


@pytest.mark.parametrize("path", FIXTURES, ids=lambda p: p.stem)
def test_modules_reproduce_the_fixtures(path: Path) -> None:
    data = json.loads(path.read_text())
    program = load(CORPUS / data["file"], data["mixer"])
    known = {o.name.plain for o in program.mixer.options}
    program = load(CORPUS / data["file"], data["mixer"], **{k: v for k, v in data["sizes"].items() if k in known})
    system = program.system(**data["sizes"])
    sizes = {k: v for k, v in data["sizes"].items() if k in system.options}
    shapes = {
        n: dict(zip(e["indices"], array(e).shape, strict=True))
        for n, e in data["inputs"].items()
        if isinstance(e, dict)
    }
    for tensor in system.params():
        for index in tensor.indices:
            axis = system.axis(index)
            if system.index(axis).size is None:
                sizes[axis] = next(s[axis] for s in shapes.values() if axis in s)
            if system.index(axis).size is not None and "|" in repr(system.index(axis).size):
                named = re.findall(r"\|(\w+)\|", repr(system.index(axis).size))
                sizes |= {
                    n: next(s[n] for s in shapes.values() if n in s)
                    for n in named
                    if any(n in s for s in shapes.values())
                }
    module = program.module("recurrent", **sizes).double()
    module.load_state_dict({k: torch.as_tensor(array(v)) for k, v in data["params"].items()})
    found = module(*(torch.as_tensor(array(data["inputs"][t.name]))[None] for t in system.inputs()))
    for name, output in zip(system.outputs, found if isinstance(found, tuple) else (found,), strict=True):
        assert rms(output[0], array(data["outputs"][name])) < 1e-9


def gla_inputs(length: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    found = {
        n: torch.randn(1, length, 2, w, generator=g, dtype=torch.float64) for n, w in (("q", 3), ("k", 3), ("v", 4))
    }
    found["g"] = torch.tensor(DECAYS, dtype=torch.float64)[torch.randint(0, 4, (1, length, 2, 3), generator=g)]
    return {n: x.to(dtype).requires_grad_() for n, x in found.items()}


@pytest.mark.parametrize("form", ["recurrent", "scan", "chunkwise", "quadratic"])
@pytest.mark.parametrize("length", [0, 1, 63, 257])
def test_mixed_decays_in_float32(form: str, length: int) -> None:
    """Values, state and gradients to the contract: 2e-6 and 1e-5 relative RMS against float64."""
    module = load("gla", "gla").module(form)
    wide, narrow = gla_inputs(length, dtype=torch.float64), gla_inputs(length)
    truth = load("gla", "gla").interpret({n: x[0].detach().numpy() for n, x in wide.items()})
    out, state = module(*narrow.values(), return_state=True)
    assert rms(out[0], truth["outputs"]["o"]) < 2e-6
    assert rms(state["S"][0], truth["state"]["S"]) < 2e-6
    if length == 0:
        return
    exact, last = load("gla", "gla").module("recurrent").double()(*wide.values(), return_state=True)
    weights = torch.randn(exact.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    wanted = torch.autograd.grad((exact * weights).sum() + last["S"].sum(), list(wide.values()), allow_unused=True)
    found = torch.autograd.grad(
        (out * weights.float()).sum() + state["S"].sum(), list(narrow.values()), allow_unused=True
    )
    for name, a, b in zip(wide, found, wanted, strict=True):
        if a is None or b is None or not b.numel():
            continue
        scale = b.square().mean().sqrt()
        if name == "g":
            scale = max(scale, (wide["q"].detach() * wanted[0]).square().mean().sqrt())
        assert float((a.double() - b).square().mean().sqrt() / max(float(scale), 1e-6)) < 1e-5


@pytest.mark.parametrize("form", ["scan", "chunkwise", "quadratic"])
def test_gradcheck(form: str) -> None:
    module = load("gla", "gla").module(form).double()
    inputs = [x[:, :5] for x in gla_inputs(5, dtype=torch.float64).values()]
    inputs[3] = inputs[3].detach().clamp(min=-2).requires_grad_()
    start = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)

    def call(q: Any, k: Any, v: Any, g: Any, s: Any) -> Any:
        out, state = module(q, k, v, g, state={"S": s}, return_state=True)
        return out, state["S"]

    assert torch.autograd.gradcheck(call, (*inputs, start))


@pytest.mark.parametrize(
    ("name", "mixer", "sizes"),
    [("gla", "GLA", {"c": 16, "H": 2}), ("mamba", "Mamba", {"c": 8}), ("softmax", "MultiHeadAttention", {"c": 16, "H": 2}),
     ("gru", "gru", {"c": 5, "N": 3}), ("hgrn", "HGRN", {"c": 6}), ("delta_rule", "DeltaNet", {"c": 16})],
)  # fmt: skip
def test_steps_and_pieces_equal_the_whole(name: str, mixer: str, sizes: dict[str, int]) -> None:
    torch.manual_seed(0)
    module = load(name, mixer).module(**sizes).double()
    x = torch.randn(2, 11, sizes["c"], dtype=torch.float64)
    whole, last = module(x, return_state=True)
    state, steps = module.init_state(2), []
    for t in range(11):
        y, state = module.step(x[:, t], state)
        steps.append(y)
    torch.testing.assert_close(torch.stack(steps, 1), whole, rtol=1e-9, atol=1e-10)
    first, state = module(x[:, :4], return_state=True)
    second, final = module(x[:, 4:], state=state, return_state=True)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("form", ["recurrent", "chunkwise"])
def test_packed_sequences_do_not_leak(form: str) -> None:
    module = load("gla", "gla").module(form).double()
    inputs = [x.detach() for x in gla_inputs(10, dtype=torch.float64).values()]
    packed, state = module(*inputs, cu_seqlens=torch.tensor([0, 1, 1, 7, 10]), return_state=True)
    assert state["S"].shape[0] == 4
    for n, (start, end) in enumerate([(0, 1), (1, 1), (1, 7), (7, 10)]):
        alone, last = module(*(x[:, start:end] for x in inputs), return_state=True)
        torch.testing.assert_close(packed[:, start:end], alone)
        torch.testing.assert_close(state["S"][n : n + 1], last["S"])


def test_text_is_the_same_each_time() -> None:
    for form in FORMS:
        try:
            assert load("gla", "GLA").source(form) == load("gla", "GLA").source(form)
        except SeqError as error:
            assert error.code == "form-not-available"


def test_bf16_keeps_a_float32_state() -> None:
    module = load("gla", "gla").module("chunkwise")
    inputs = [x.detach().bfloat16() for x in gla_inputs(70).values()]
    out, state = module(*inputs, return_state=True)
    assert out.dtype == torch.bfloat16 and state["S"].dtype == torch.float32
    truth = load("gla", "gla").interpret({n: x[0].double().numpy() for n, x in zip("qkvg", inputs, strict=True)})
    assert rms(out[0].double(), truth["outputs"]["o"]) < 5e-3


def test_compile_export_and_vmap() -> None:
    module = load("gla", "gla").module("chunkwise")
    inputs = [x.detach() for x in gla_inputs(20).values()]
    wanted = module(*inputs)
    exported = torch.export.export(module, tuple(inputs)).module()
    torch.testing.assert_close(exported(*inputs), wanted, rtol=1e-4, atol=1e-5)
    batched = [torch.stack([x, 2 * x]) for x in inputs]
    mapped = torch.func.vmap(lambda *a: module(*a))(*batched)
    torch.testing.assert_close(mapped[0], wanted, rtol=1e-4, atol=1e-5)


def test_names_of_python_and_torch_are_safe() -> None:
    text = """
mixer self(lambda[t,h], torch[t,h], class[h], F[t], math[t,h]) -> def[t,h], Tensor[t,h]:
    param nn[h] = 0.5
    yield[t,h]  = class * yield[t-1] + lambda
    def[t,h]    = yield * torch * nn + F + math
    Tensor[t,h] = sum[h] __init__ * def + None
    __init__[t,h] = 2 * state
    state[t,h]  = lambda
    None[t,h]   = return_state * 1
    return_state[t,h] = torch
"""
    system = load_system(text)
    rng = np.random.default_rng(0)
    shapes = {"lambda": (5, 3), "torch": (5, 3), "class": (3,), "F": (5,), "math": (5, 3)}
    inputs = {n: 0.3 * rng.standard_normal(s) for n, s in shapes.items()}
    truth = interpret(system, inputs=inputs)["outputs"]
    for form in ("recurrent", "scan"):
        module = seqdsl.load(text).module(form, h=3).double()
        found = module(*(torch.as_tensor(inputs[n])[None] for n in shapes))
        for output, name in zip(found, ("def", "Tensor"), strict=True):
            assert rms(output[0], truth[name]) < 1e-9


def test_wrong_shapes_say_what_was_wanted() -> None:
    module = load("gla", "gla").module()
    q = torch.randn(1, 4, 2, 3)
    with pytest.raises(ValueError, match="`v` must have the axes"):
        module(q, q, q[0], q)
    with pytest.raises(ValueError, match="the axis `d` has length 2"):
        module(q, q[..., :2], q, q)


def test_every_form_of_a_mixer_agrees() -> None:
    system = load_system("ema", "ema_damped")
    assert {f for f in FORMS if _has(system, f)} == {"recurrent", "scan", "chunkwise", "quadratic", "convolution"}


def _has(system: Any, form: str) -> bool:
    try:
        derive(system, form)
    except SeqError:
        return False
    return True

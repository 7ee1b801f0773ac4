"""Every form of a mixer is the same function: values, states, gradients, at lengths that no chunk divides."""

from __future__ import annotations

import pytest
import torch

import seqdsl
from tests.backends.torch_module.harness import as_tuple, gap, module_of, piece, random_inputs, system_of

CASES = [
    ("gla", "gla", ("scan", "chunkwise", "quadratic")),
    ("simple_gla", "simple_gla", ("scan", "chunkwise", "quadratic")),
    ("retention", "retention", ("scan", "chunkwise", "quadratic", "convolution")),
    ("rwkv", "rwkv6", ("scan", "chunkwise", "quadratic")),
    ("mamba", "selective_scan", ("scan", "chunkwise")),
    ("ema", "ema_damped", ("scan", "chunkwise", "convolution")),
    ("linear_attention", "linear_attention", ("scan", "chunkwise", "quadratic")),
    ("bidirectional", "bidirectional", ("scan",)),
]
PAIRS = [(f, m, form) for f, m, forms in CASES for form in forms]


@pytest.mark.parametrize(("file", "mixer", "form"), PAIRS)
@pytest.mark.parametrize("length", [0, 1, 7, 67])
def test_form_equals_recurrence(file: str, mixer: str, form: str, length: int) -> None:
    system = system_of(file, mixer)
    inputs = random_inputs(system, t=length, grad=True)
    if mixer in ("ema_damped", "selective_scan"):
        inputs = [
            x.detach().sigmoid().mul(-1 if t.name == "A" else 1).requires_grad_()
            for x, t in zip(inputs, system.inputs(), strict=True)
        ]
    reference = module_of(system)(*inputs)
    found = module_of(system_of(file, mixer, form), form)(*inputs)
    assert gap(found, reference) < 1e-9
    weight = torch.randn_like(reference)
    wanted = torch.autograd.grad((reference * weight).sum(), inputs, allow_unused=True)
    given = torch.autograd.grad((found * weight).sum(), inputs, allow_unused=True)
    for a, b in zip(given, wanted, strict=True):
        if a is not None and b is not None:
            assert gap(a, b) < 1e-8


@pytest.mark.parametrize(("file", "mixer", "form"), [p for p in PAIRS if p[0] != "bidirectional"])
def test_state_of_a_form(file: str, mixer: str, form: str) -> None:
    """A form's state goes on in the recurrence, and the other way round; the state is differentiable."""
    system = system_of(file, mixer)
    inputs = random_inputs(system, t=9)
    plain, formed = module_of(system), module_of(system_of(file, mixer, form), form)
    whole, final = plain(*inputs, return_state=True)
    for first, second in ((plain, formed), (formed, plain)):
        head, state = first(*piece(system, inputs, 0, 5), return_state=True)
        tail, last = second(*piece(system, inputs, 5, 9), state=state, return_state=True)
        assert gap(torch.cat([head, tail], 1), whole) < 1e-9
        assert gap(last, final) < 1e-9


@pytest.mark.parametrize("form", ["scan", "chunkwise", "quadratic"])
@pytest.mark.parametrize("decay", [0.0, -1e-6, -20.0, -200.0, float("-inf"), None])
def test_extreme_decays_in_float32(form: str, decay: float | None) -> None:
    """Log decays from 0 to -inf, and mixed within a chunk: accurate values, and gradients without nan."""
    system = system_of("gla", "gla")
    inputs = random_inputs(system, t=150)
    choice = torch.tensor([0.0, -1e-6, -20.0, -200.0])[torch.randint(0, 4, inputs[3].shape)]
    inputs[3] = (choice if decay is None else torch.full_like(choice, decay)).double()
    single = [x.float().requires_grad_() for x in inputs]
    wanted = module_of(system)(*inputs)
    found = module_of(system_of("gla", "gla", form), form)(*single)
    assert (found.double() - wanted).norm() / wanted.norm() < 2e-6
    found.sum().backward()
    assert all(torch.isfinite(x.grad).all() for x in single if x.grad is not None)


def test_gradients_of_the_state() -> None:
    system = system_of("gla", "gla")
    q, k, v, g = random_inputs(system, t=4, batch=1)
    module = module_of(system_of("gla", "gla", "chunkwise"), "chunkwise")
    start = torch.randn(1, 2, 3, 2, dtype=torch.float64, requires_grad=True)

    def run(s: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y, state = module(q, k, v, g, state={"S": s}, return_state=True)
        return y, state["S"]

    assert torch.autograd.gradcheck(run, (start,))


def test_outputs_are_the_same_tuple_in_every_form() -> None:
    system = system_of("haar", "haar")
    assert len(as_tuple(module_of(system)(*random_inputs(system, t=8)))) == 2


@pytest.mark.parametrize("form", ["recurrent", "scan", "chunkwise", "convolution"])
def test_a_count_stays_whole(form: str) -> None:
    """Forms that reckon in reals give whole numbers back, in the record too."""
    text = "mixer f(x[t,c]) -> y[t,c]:\n    n[t] = n[t-1] + 2\n    S[t,c] = S[t-1] + x\n    y[t,c] = S / n\n"
    program = seqdsl.load(text)
    x = torch.randn(2, 9, 3)
    y, state = program.module(form=form)(x, return_state=True)
    assert state["n"].dtype == torch.long and state["n"].tolist() == [18, 18]
    assert gap(y, x.cumsum(1) / (2 * torch.arange(1, 10))[:, None]) < 1e-6

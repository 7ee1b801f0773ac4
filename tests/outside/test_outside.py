"""Mixers that the compiler has not seen, in every form that they have, against loops that share no code with it.

For each: values, gradients of inputs, parameters and starting states in float64, float32 and bfloat16; lengths of 0, 1,
63 and 257; one step at a time; packed; cut in two with the gradient flowing through the state.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

import seqdsl
from seqdsl.diagnostics import SeqError
from seqdsl.forms import FORMS
from tests.outside import attention, decays, folds, invariant, layers, semiring, states, stepped
from tests.outside.case import BATCH, SIZES, Case, Spec, draw, specs

HERE = Path(__file__).resolve().parent
CASES = {
    c.mixer: c
    for module in (decays, states, invariant, semiring, layers, attention, stepped, folds)
    for c in module.CASES
}
LIMITS = {torch.float64: (1e-9, 1e-9), torch.float32: (2e-6, 1e-5), torch.bfloat16: (5e-3, 1e-2)}
GATE_KINDS = ("decay", "mild", "raw", "gate")
GATES_BF16 = 2e-2


@cache
def program_of(case: Case) -> seqdsl.api.Program:
    """The mixer; its forms are derived once for all tests."""
    return seqdsl.load(HERE / f"{case.file}.seq", case.mixer)


@cache
def forms_of(case: Case) -> list[str]:
    """Every form that the mixer has, and `auto` where that is none of them: some recurrences rewritten, some not."""
    program = program_of(case)
    found = []
    for form in FORMS:
        try:
            program.derived(form)
        except SeqError:
            continue
        found.append(form)
    return found if program.derived("auto").form in found else [*found, "auto"]


PAIRS = [(name, form) for name, case in CASES.items() for form in forms_of(case)]
each = pytest.mark.parametrize(("name", "form"), PAIRS)


@cache
def module_of(name: str, form: str) -> Any:
    """The generated module in float64, with the parameters of the case."""
    case = CASES[name]
    program = program_of(case)
    needed = {a: SIZES[a] for s in specs(case.params) for a in s.axes}
    module = program.module(form, **(dict(case.sizes) or needed)).double()
    values = _tensors(case, case.params, 0, None)
    module.load_state_dict(values, strict=True)
    return module


def _tensors(case: Case, text: str, time: int, batch: int | None) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(len(text) + 1000 * len(case.mixer))
    return {s.name: draw(s, time, generator, batch=batch, sizes=dict(case.sizes)) for s in specs(text)}


def _convert(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Rounded to a dtype; complex numbers to the complex dtype beside it."""
    if x.is_complex():
        return x.to(torch.complex128 if dtype == torch.float64 else torch.complex64)
    return x.to(dtype) if x.is_floating_point() else x


def _leaf(x: Tensor, dtype: torch.dtype) -> Tensor:
    x = _convert(x.detach(), dtype).clone()
    return x.requires_grad_(x.is_floating_point() or x.is_complex())


class Drawn:
    """Inputs, parameters and starting states as leaves of one dtype, and the loss's weights."""

    def __init__(self, case: Case, time: int, dtype: torch.dtype, seen: torch.dtype, batch: int = BATCH) -> None:
        """`seen`: the dtype the values are rounded to before they are stored as `dtype`."""
        state_dtype = torch.float64 if seen == torch.float64 else torch.float32  # states are float32 for 16 bits
        self.inputs = {n: _leaf(_convert(x, seen), dtype) for n, x in _tensors(case, case.inputs, time, batch).items()}
        self.params = {n: _leaf(_convert(x, seen), dtype) for n, x in _tensors(case, case.params, 0, None).items()}
        kept = dtype if dtype == torch.float64 else state_dtype
        self.states = {
            n: _leaf(_convert(x, state_dtype), kept) for n, x in _tensors(case, case.states, 0, batch).items()
        }
        self.leaves = {**self.inputs, **{f"{n} (param)": x for n, x in self.params.items()}}
        self.leaves |= {f"{n} (start)": x for n, x in self.states.items()}


def loss_of(outputs: tuple[Tensor, ...], finals: dict[str, Tensor]) -> Tensor:
    """A weighted sum of all that comes out; the weights depend on shapes only."""
    total = torch.zeros((), dtype=torch.float64)
    for n, x in enumerate([*outputs, *finals.values()]):
        generator = torch.Generator().manual_seed(n)
        weight = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        total = total + (weight * (x.real + 0.5 * x.imag if x.is_complex() else x).double()).sum()
    return total


def rms(x: Tensor) -> float:
    """Root of the mean square."""
    return float(x.detach().abs().double().square().mean().sqrt()) if x.numel() else 0.0


def worst(found: Tensor, wanted: Tensor, scale: float) -> float:
    """RMS of the difference over a scale; infinite where anything is not a number."""
    if found.shape != wanted.shape:
        return float("inf")
    same = found == wanted
    error = rms(torch.where(same, 0, found.detach().to(wanted.dtype) - wanted.detach()))
    return float("inf") if error != error else error / max(scale, 1e-6)


@cache
def expected(name: str, time: int, seen: torch.dtype, batch: int = BATCH) -> tuple[Any, Any, Any, Any]:
    """Outputs, finals, gradients and the scales of the gradients, from the loop in float64."""
    case = CASES[name]
    drawn = Drawn(case, time, torch.float64, seen, batch)
    outputs, finals = case.reference(SimpleNamespace(**drawn.inputs), drawn.params, drawn.states)
    loss_of(outputs, finals).backward()
    grads = {
        n: x.grad if x.grad is not None else torch.zeros_like(x) for n, x in drawn.leaves.items() if x.requires_grad
    }
    products = max(
        (rms(x.detach() * grads[n]) for n, x in drawn.inputs.items() if n in ("q", "x", "k", "v") and n in grads),
        default=0,
    )
    kinds = {s.name: s.kind for s in specs(case.inputs)}
    scales = {n: max(rms(g), products if kinds.get(n) in GATE_KINDS else 0.0) for n, g in grads.items()}
    return tuple(o.detach() for o in outputs), {n: x.detach() for n, x in finals.items()}, grads, scales


def run(case: Case, module: Any, drawn: Drawn, **options: Any) -> tuple[tuple[Tensor, ...], dict[str, Any]]:
    """The module on drawn inputs from drawn states: outputs and the state after."""
    inputs = list(drawn.inputs.values())
    if case.reverse:
        y, state = module(*inputs, **options), {}
    else:
        y, state = module(*inputs, state=start_of(case, module, drawn), return_state=True, **options)
    return (y if isinstance(y, tuple) else (y,)), state


def start_of(case: Case, module: Any, drawn: Drawn) -> Any:
    """The module's own empty state with the drawn starting states in it."""
    state = dict(module(*(_part(x, s, 0, 0) for x, s in _with_specs(case, drawn)), return_state=True)[1])
    assert drawn.states.keys() <= state.keys(), f"the record has {list(state)}"
    return {**state, **drawn.states}


def _with_specs(case: Case, drawn: Drawn) -> list[tuple[Tensor, Spec]]:
    return list(zip(drawn.inputs.values(), specs(case.inputs), strict=True))


def _part(x: Tensor, spec: Spec, begin: int, end: int) -> Tensor:
    return x if spec.time is None else x.narrow(spec.time, begin, end - begin)


def agree(case: Case, dtype: torch.dtype, outputs: Any, finals: Any, grads: Any, wanted: Any, what: str) -> None:
    """Everything within the limits of the dtype, all that is not listed together."""
    want_outputs, want_finals, want_grads, scales = wanted
    value, gradient = (limit * case.loose * (case.bf16 if dtype == torch.bfloat16 else 1) for limit in LIMITS[dtype])
    found = [
        (f"output {n}", worst(a, b, rms(b)), value) for n, (a, b) in enumerate(zip(outputs, want_outputs, strict=True))
    ]
    found += [(f"state {n}", worst(finals[n], b, rms(b)), value) for n, b in want_finals.items() if not case.reverse]
    kinds = {s.name: s.kind for s in specs(case.inputs)}
    for n, g in (grads or {}).items():
        limit = GATES_BF16 if dtype == torch.bfloat16 and kinds.get(n) in GATE_KINDS else gradient
        found.append((f"gradient of {n}", worst(g, want_grads[n], scales[n]), limit))
    LOG.extend((case.mixer, str(dtype), what, n, e) for n, e, _ in found)
    wrong = [f"{n}: {error:.2g} > {limit:.0e}" for n, error, limit in found if not error <= limit]
    assert not wrong, f"{case.mixer}, {what}: " + "; ".join(wrong)


LOG: list[tuple[str, str, str, str, float]] = []


def gradients(drawn: Drawn) -> dict[str, Tensor]:
    """Gradients of the leaves; nothing is zero."""
    return {
        n: x.grad if x.grad is not None else torch.zeros_like(x) for n, x in drawn.leaves.items() if x.requires_grad
    }


def check_whole(case: Case, form: str, time: int, dtype: torch.dtype) -> None:
    """Values, states and gradients of one call."""
    drawn = Drawn(case, time, dtype, dtype)
    module = _with_params(case, form, drawn)
    outputs, finals = run(case, module, drawn)
    kept = {n: finals[n] for n in drawn.states}
    loss_of(outputs, {} if case.reverse else kept).backward()
    drawn.leaves.update({f"{n} (param)": x for n, x in module.named_parameters()})
    agree(case, dtype, outputs, kept, gradients(drawn), expected(case.mixer, time, dtype), f"{form} T={time}")


def _with_params(case: Case, form: str, drawn: Drawn) -> Any:
    module = module_of(case.mixer, form)
    dtype = next((x.dtype for x in drawn.inputs.values() if x.is_floating_point()), torch.float64)
    module = module.to(dtype)
    module.load_state_dict({n: x.detach() for n, x in drawn.params.items()})
    module.zero_grad(set_to_none=True)
    return module


@pytest.mark.parametrize("name", CASES)
def test_the_forms_are_there(name: str) -> None:
    assert set(CASES[name].forms.split()) <= set(forms_of(CASES[name]))


@each
def test_float64(name: str, form: str) -> None:
    for time in (1, 63, 257):
        check_whole(CASES[name], form, time, torch.float64)


@each
def test_float32(name: str, form: str) -> None:
    check_whole(CASES[name], form, 257, torch.float32)


@each
def test_bfloat16(name: str, form: str) -> None:
    check_whole(CASES[name], form, 63, torch.bfloat16)


@each
def test_no_positions_at_all(name: str, form: str) -> None:
    case = CASES[name]
    drawn, one = Drawn(case, 0, torch.float64, torch.float64), Drawn(case, 1, torch.float64, torch.float64)
    module = _with_params(case, form, drawn)
    outputs, finals = run(case, module, drawn)
    for found, wanted in zip(outputs, run(case, module, one)[0], strict=True):
        assert found.shape == (wanted.shape[0], 0, *wanted.shape[2:])
    for n, start in drawn.states.items():
        assert torch.equal(finals[n], start)
    loss_of(outputs, {n: finals[n] for n in drawn.states}).backward()


@each
def test_steps(name: str, form: str) -> None:
    case = CASES[name]
    if case.reverse:
        pytest.skip("a recurrence that runs backwards has no step")
    drawn = Drawn(case, 63, torch.float64, torch.float64)
    module = _with_params(case, form, drawn)
    state, rows = start_of(case, module, drawn), []
    for t in range(63):
        here = (x if s.time is None else x.select(s.time, t) for x, s in _with_specs(case, drawn))
        y, state = module.step(*here, state)
        rows.append(y if isinstance(y, tuple) else (y,))
    outputs = tuple(torch.stack(column, 1) for column in zip(*rows, strict=True))
    agree(case, torch.float64, outputs, state, None, expected(name, 63, torch.float64), f"{form} in steps")


@each
def test_cut_in_two(name: str, form: str) -> None:
    """Anywhere: before the first position, after the first, in a chunk, after the last."""
    case = CASES[name]
    if case.reverse:
        pytest.skip("a recurrence that runs backwards has no state")
    for time, cut in ((63, 0), (63, 1), (257, 130), (63, 63)):
        check_cut(case, form, time, cut)


def check_cut(case: Case, form: str, time: int, cut: int) -> None:
    """Two calls, the second from the first one's state, and the gradients through both."""
    drawn = Drawn(case, time, torch.float64, torch.float64)
    module = _with_params(case, form, drawn)
    state, pieces = start_of(case, module, drawn), []
    for begin, end in ((0, cut), (cut, time)):
        y, state = module(
            *(_part(x, s, begin, end) for x, s in _with_specs(case, drawn)), state=state, return_state=True
        )
        pieces.append(y if isinstance(y, tuple) else (y,))
    outputs = tuple(torch.cat(column, 1) for column in zip(*pieces, strict=True))
    kept = {n: state[n] for n in drawn.states}
    loss_of(outputs, kept).backward()
    drawn.leaves.update({f"{n} (param)": x for n, x in module.named_parameters()})
    agree(
        case,
        torch.float64,
        outputs,
        kept,
        gradients(drawn),
        expected(case.mixer, time, torch.float64),
        f"{form} cut at {cut}",
    )


@each
def test_packed(name: str, form: str) -> None:
    """Sequences one after another, an empty one among them, each as if it were alone."""
    case = CASES[name]
    ends = [0, 1, 1, 40, 63]
    drawn = Drawn(case, 63, torch.float64, torch.float64, batch=1)
    module = _with_params(case, form, drawn)
    found = module(*drawn.inputs.values(), cu_seqlens=torch.tensor(ends))
    found = found if isinstance(found, tuple) else (found,)
    loss_of(found, {}).backward()
    alone = Drawn(case, 63, torch.float64, torch.float64, batch=1)
    rows = []
    for begin, end in zip(ends, ends[1:], strict=False):
        if begin < end:
            piece = {s.name: _part(x, s, begin, end) for x, s in _with_specs(case, alone)}
            rows.append(case.reference(SimpleNamespace(**piece), alone.params, _empty(case, alone))[0])
    wanted = tuple(torch.cat(column, 1) for column in zip(*rows, strict=True))
    loss_of(wanted, {}).backward()
    drawn.leaves.update({f"{n} (param)": x for n, x in module.named_parameters()})
    grads = {n: g for n, g in gradients(alone).items() if not n.endswith("(start)")}
    own = {n: g for n, g in gradients(drawn).items() if n in grads}
    scales = {n: rms(g) for n, g in grads.items()}
    agree(case, torch.float64, found, {}, own, (wanted, {}, grads, scales), f"{form} packed")


def _empty(case: Case, alone: Drawn) -> dict[str, Tensor]:
    """The states of a sequence that begins: what the reference says, else zero."""
    begin = getattr(case.reference, "begin", None)
    if begin is not None:
        return dict(begin(SimpleNamespace(**alone.inputs), alone.params, alone.states))
    return {n: torch.zeros_like(x) for n, x in alone.states.items()}

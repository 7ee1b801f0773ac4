"""Modules in the form wavefront against the stepped ones: values, states and gradients, in pieces, steps and packed; decays
of every size in float32; and mutants of the support function, which these comparisons must tell apart."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from seqdsl.forms import derive
from seqdsl.ir.interpreter import interpret
from seqdsl.ir.state import flatten, nest
from seqdsl.semantics import load_system
from tests.backends.torch_module.harness import as_tuple, emit_module, gap, load_class, module_of, piece
from tests.forms.test_wavefront import GRIDS, SHAPES, inputs_of, is_steppable, part

LAYER = """
mixer m(x[i,j,c]; N = 3) -> h[i,j,n]:
    param b[n] = normal(0, 1)
    h[i,j,n: N] = tanh(linear[c](x) + linear[n -> n](h[i-1,j]) + linear[n -> n](h[i,j-1]) + b)
"""
TEXTS = {**GRIDS, "layer": LAYER}
DECAYED = """
mixer m(x[i,j,c], g[i,j,c], f[i,j,c]) -> y[i,j,c]:
    y[i,j,c] = (exp(g) * y[i-1] + exp(f) * y[i,j-1]) / 2 + x
"""


def pair(text: str, **sizes: int) -> tuple[Any, Any]:
    """The module by fronts and the stepped one, with the same parameters."""
    fronts, stepped = (module_of(derive(load_system(text), f).system, f, **sizes) for f in ("wavefront", "recurrent"))
    stepped.load_state_dict(fronts.state_dict())
    return fronts, stepped


def tensors_of(text: str, rows: int, columns: int) -> list[torch.Tensor]:
    """A batch of two."""
    system = load_system(text)
    each = [inputs_of(system, rows, columns, seed) for seed in range(2)]
    found = [torch.stack([torch.as_tensor(x[t.name]) for x in each]) for t in system.inputs()]
    return [x.requires_grad_(x.is_floating_point()) for x in found]


def results(module: Any, inputs: list[torch.Tensor], state: Any = None, *, steppable: bool = True) -> list[torch.Tensor]:
    """Outputs, the state after them, outputs of a call without gradients, and those of a loss that sees each entry
    differently."""
    with torch.no_grad():
        alone = as_tuple(module(*inputs, state=state) if steppable else module(*inputs))
    y, after = module(*inputs, state=state, return_state=True) if steppable else (module(*inputs), {})
    found = [*as_tuple(y), *(x for x in flatten(after).values() if isinstance(x, torch.Tensor))]
    held = [x for x in flatten(state or {}).values() if isinstance(x, torch.Tensor)]
    leaves = [x for x in (*inputs, *module.parameters(), *held) if x.requires_grad]
    real = [x for x in found if x.is_floating_point() and x.requires_grad]
    loss = sum(((x * torch.arange(1, x.numel() + 1).view_as(x).cos()).sum() for x in real), torch.zeros(()))
    grads = torch.autograd.grad(loss, leaves, materialize_grads=True, allow_unused=True) if real else ()
    return [*found, *alone, *grads]


def as_leaves(state: Any) -> Any:
    """The record as one that a user may hold."""
    flat = {k: x.detach() if isinstance(x, torch.Tensor) else x for k, x in flatten(state).items()}
    real = (x for x in flat.values() if isinstance(x, torch.Tensor) and x.is_floating_point())
    for x in real:
        x.requires_grad_()
    return nest(flat)


def worst(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> float:
    return max((gap(a, b) for a, b in zip(found, wanted, strict=True)), default=0.0)


@pytest.mark.parametrize("name", TEXTS)
def test_values_states_and_gradients(name: str) -> None:
    fronts, stepped = pair(TEXTS[name], c=2)
    steppable = is_steppable(load_system(TEXTS[name]))
    for rows, columns in SHAPES:
        inputs = tensors_of(TEXTS[name], rows, columns)
        assert worst(*(results(m, inputs, steppable=steppable) for m in (fronts, stepped))) < 1e-12, (rows, columns)


def check_resumes(text: str, modules: tuple[Any, Any], rows: int) -> None:
    """The records of two forms are the same, and so are the gradients of what goes on from one."""
    system, inputs = load_system(text), tensors_of(text, rows, 3)
    head, tail = ([x.detach() for x in piece(system, inputs, *cut)] for cut in ((0, 2), (2, rows)))
    states = [m(*head, return_state=True)[1] for m in modules]
    assert gap(*states) < 1e-12
    tail = [x.requires_grad_(x.is_floating_point()) for x in tail]
    start = as_leaves(states[1])
    assert worst(*(results(m, tail, start) for m in modules)) < 1e-12


def check_steps_and_packed(text: str, whole: Any, stepped: Any) -> None:
    """A step is what all rows give there, and packed sequences are what each gives alone."""
    system = load_system(text)
    inputs = [x.detach()[:1] for x in tensors_of(text, 6, 4)]
    found = whole(*inputs)
    _, state = whole(*piece(system, inputs, 0, 3), return_state=True)
    one = [x.select(1, 0) if y.shape != x.shape else x for x, y in zip(piece(system, inputs, 3, 4), inputs, strict=True)]
    assert gap(whole.step(*one, state)[0], found[:, 3]) < 1e-12
    packed = whole(*inputs, cu_seqlens=[0, 2, 2, 6])
    assert gap(packed[:, :2], found[:, :2]) < 1e-12
    assert gap(packed[:, 2:], stepped(*piece(system, inputs, 2, 6))) < 1e-12


def check_decays_of_every_size(whole: Any, stepped: Any) -> None:
    """Of `DECAYED` in float32, and its outputs in bfloat16, against float64."""
    torch.manual_seed(0)
    values = torch.tensor([0.0, -1e-6, -1e-3, -1.0, -20.0, -200.0, -torch.inf], dtype=torch.float64)
    x = torch.randn(1, 40, 30, 4, dtype=torch.float64)
    g, f = (values[torch.randint(0, 7, x.shape)] for _ in "gf")
    given = [v.clone().requires_grad_() for v in (x, g, f)]
    wanted = stepped(*given)
    single = [v.float().requires_grad_() for v in (x, g, f)]
    found = whole(*single)
    assert (found.double() - wanted).norm() / wanted.norm() < 2e-6
    grads = [torch.autograd.grad((y * y.detach().cos()).sum(), v) for y, v in ((found, single), (wanted, given))]
    for a, b in zip(*grads, strict=True):
        assert a.isfinite().all() and (a.double() - b).norm() <= 1e-5 * max(b.norm(), grads[1][0].norm())
    half = whole(*(v.bfloat16() for v in (x, g, f)))
    assert half.dtype == torch.bfloat16 and (half.double() - wanted).norm() / wanted.norm() < 2e-2


def check_double_backward_vmap_and_compile(text: str, whole: Any, stepped: Any) -> None:
    """Second derivatives, `vmap`, `func.grad`, and a graph without breaks."""
    inputs = [x.detach()[:1].requires_grad_() for x in tensors_of(text, 4, 3)]
    seconds = []
    for module in (whole, stepped):
        grads = torch.autograd.grad((module(*inputs) ** 2).sum(), inputs, create_graph=True)
        total = sum((g**2).sum() for g in grads)
        seconds.append(list(torch.autograd.grad(total, inputs, allow_unused=True, materialize_grads=True)))
    assert worst(*seconds) < 1e-12
    plain = [x.detach() for x in inputs]
    many = [torch.stack([x, 2 * x]) for x in plain]
    assert gap(torch.vmap(whole)(*many)[1], stepped(*(x[1] for x in many))) < 1e-12
    each = torch.func.grad(lambda x: whole(x, *plain[1:]).square().sum())(plain[0])
    assert gap(each, torch.autograd.grad(stepped(*inputs).square().sum(), inputs)[0]) < 1e-12
    compiled = torch.compile(whole, backend="eager", fullgraph=True)
    assert gap(compiled(*plain), stepped(*plain)) < 1e-12


@pytest.mark.parametrize("name", [n for n, text in TEXTS.items() if is_steppable(load_system(text))])
def test_a_state_goes_on_in_the_other_form(name: str) -> None:
    check_resumes(TEXTS[name], pair(TEXTS[name], c=2), 5)


@pytest.mark.parametrize("name", [n for n, text in GRIDS.items() if is_steppable(load_system(text))])
def test_what_is_compared_with_is_the_interpreter(name: str) -> None:
    """The stepped module, before and after a state: corners, base cases of integers, no columns."""
    system = load_system(GRIDS[name])
    stepped = module_of(system)
    for columns in (0, 3):
        inputs, state, record = inputs_of(system, 5, columns), None, None
        for start, end in ((0, 2), (2, 5)):
            given = part(system, inputs, start, end)
            wanted = interpret(system, inputs=given, state=record)
            tensors = [torch.as_tensor(given[t.name])[None] for t in system.inputs()]
            y, state = stepped(*tensors, state=state, return_state=True)
            record = wanted["state"]
            for x, value in zip(as_tuple(y), wanted["outputs"].values(), strict=True):
                assert gap(x[0], torch.as_tensor(value)) < 1e-13
            for key, value in flatten(record).items():
                x = flatten(state)[key]
                assert x == value if isinstance(x, int) else gap(x[0].double(), torch.as_tensor(value).double()) < 1e-13


@pytest.mark.parametrize("name", ["affine", "alignment", "coupled", "lags"])
def test_steps_and_packed_sequences(name: str) -> None:
    check_steps_and_packed(GRIDS[name], *pair(GRIDS[name]))


def test_float32_with_decays_of_every_size() -> None:
    check_decays_of_every_size(*pair(DECAYED))


def test_nothing_off_the_grid_reaches_a_gradient() -> None:
    """A quotient that no guard protects, of an input that is never 0 on the grid."""
    text = "mixer m(x[i,j]) -> y[i,j]:\n    y[i,j] = y[i-1] / x + sqrt(x) * y[i,j-1] + log(x)\n"
    fronts, stepped = pair(text)
    inputs = [torch.rand(2, 4, 5, dtype=torch.float64).add(0.5).requires_grad_()]
    found, wanted = (results(m, inputs) for m in (fronts, stepped))
    assert worst(found, wanted) < 1e-12 and all(x.isfinite().all() for x in found)


def test_double_backward_vmap_and_compile() -> None:
    check_double_backward_vmap_and_compile(GRIDS["nonlinear"], *pair(GRIDS["nonlinear"]))


MUTANTS = {
    "gradients in the order of the values": ("return _WavefrontOrder.apply(grad, back, order)",
                                             "return _WavefrontOrder.apply(grad, order, back)"),
    "a front that starts one cell late": ("max(lead, -((before + columns - 1 - w) // slope))",
                                          "max(lead, -((before + columns - w) // slope))"),
    "a read of the next cell": ("narrow(1, low - d - bounds", "narrow(1, low - max(d - 1, 0) - bounds"),
    "a read of the front before": ("fronts[w - m][n].narrow", "fronts[w - min(m, 1)][n].narrow"),
    "a slope of 1 for all": ("rows, columns = (x.flip(0)", "slope = 1\n    rows, columns = (x.flip(0)"),
    "rows that are not turned round": ("zip((rows, columns), turned,", "zip((rows, columns), (False, turned[1]),"),
    "columns that are not turned round": ("zip((rows, columns), turned,", "zip((rows, columns), (turned[0], False),"),
    "base cases that are not turned round": ("columns - 1 - column if left else column", "column"),
    "a corner from the row before": ("part, place = 1, (row + lead)", "part, place = 0, (row + lead)"),
    "a corner from the wrong side": ("column - columns + (before if row < 0 else 0)", "column - columns"),
    "a place that is read one too late": ("wholes[n], slope, d * width + e", "wholes[n], slope, d * width + e - 1"),
    "states a place further": ("low * width + w - slope * low", "low * width + w + 1 - slope * low"),
    "rows above that are not turned round": ("above.flip(2) if turned[1] else above", "above"),
    "columns beside that are not turned round": ("first.flip(1) if turned[0] else first", "first"),
    "states that are not turned back": ("[x.flip(flips) if flips else x for x in inner]", "inner"),
    "no halo": ("if all(side is None for side in sides):", "if True:"),
}  # fmt: skip


def passes(change: tuple[str, str], texts: dict[str, str], form: str) -> bool:
    """Do the comparisons above hold for the support function with a change?"""
    for text in texts.values():
        system, steppable = load_system(text), is_steppable(load_system(text))
        code = emit_module(derive(system, form).system, class_name="M", form=form)
        assert change[0] in code
        changed, stepped = load_class(code.replace(*change), "M")().double(), module_of(system, "recurrent")
        for rows, columns in ((5, 3), (2, 6)):
            inputs = tensors_of(text, rows, columns)
            state = as_leaves(stepped(*inputs, return_state=True)[1]) if steppable else None
            for start in (None, state):
                try:
                    found = results(changed, inputs, start, steppable=steppable)
                except (RuntimeError, IndexError, KeyError, ValueError):
                    return False
                if worst(found, results(stepped, inputs, start, steppable=steppable)) > 1e-9:
                    return False
    return True


SHOWN = {name: GRIDS[name] for name in ("affine", "up and left", "ahead", "lags", "alignment")}


def test_the_function_itself_passes() -> None:
    assert passes(("def wavefront(", "def wavefront("), SHOWN, "wavefront")


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name: str) -> None:
    assert not passes(MUTANTS[name], SHOWN, "wavefront")

"""Modules in the form newton against the recurrent ones: values, states and gradients, and how many sweeps it takes; that
what is chaotic is still right; and mutants of the support function, which these comparisons must tell apart."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from seqdsl.forms import derive
from seqdsl.semantics import load_system
from tests.backends.torch_module.harness import emit_module, gap, load_class, module_of
from tests.forms.test_newton import CELLS as EVERY
from tests.forms.test_newton import LOW_RANK, MIXING

CELLS = {k: v for k, v in EVERY.items() if k != "anonymous"}
LENGTHS = (0, 1, 63, 257, 600)
SLOW = """
mixer m(a[t,n], u[n]) -> h[t,n]:
    h[t,n] = h[t-1] + 0.001 * tanh(a - u * h[t-1])
"""
# A lane for each rate: 0.1 forgets at once, 0.999 never within a piece, 40 is chaotic.
LANES = """
mixer m(r[t,n], u[n]) -> h[t,n]:
    h[t,n] = r + u * sin(h[t-1])
"""
# The same rates for entries that mix: 1 forgets nothing within a piece, 12 is chaotic.
TURNING = """
mixer m(a[t,n], w[n,m]) -> h[t,n]:
    index m over n
    h[t,n] = 0.9999 * h[t-1] + 0.001 * tanh(a - sum[m] w * h[t-1,m])
"""
# Slow, and with decays of its own for each entry: no two products of its slopes commute.
ROLLING = """
mixer m(a[t,n], b[t,n], w[n,m]) -> h[t,n], s[t,n]:
    index m over n
    s[t,n] = (1 - 0.02 * n) * s[t-1] + 0.1 * a * tanh(1 + sum[m] w * h[t-1,m])
    h[t,n] = (0.9 + 0.02 * n) * h[t-1] - 0.1 * b * tanh(s[t-1] + sum[m] w * s[t-1,m])
"""
WILD = """
mixer m(a[t,n], w[n,m]) -> h[t,n]:
    index m over n
    h[t,n] = sin(a + sum[m] w * h[t-1,m])
"""
CHAOTIC = """
mixer m(r[t,n], u[n]) -> h[t,n]:
    h[t,n] = u * sin(r + 12 * h[t-1])
"""


def inputs_of(text: str, length: int, dtype: torch.dtype, *, batch: int = 2, scale: float = 1.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(length)
    found = []
    for tensor in load_system(text).inputs():
        shape = [batch, *(length if i == "t" else 5 for i in tensor.indices)]
        x = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
        found.append((x * (1.0 if "t" in tensor.indices else scale)).requires_grad_())
    return found


def results(module: Any, inputs: list[torch.Tensor], state: Any = None) -> list[torch.Tensor]:
    """Outputs, the state after them, and the gradients of a loss that sees each entry differently."""
    given = [*inputs, *(state.values() if state else ())]
    y, after = module(*inputs, state=state, return_state=True)
    found = [*(y if isinstance(y, tuple) else (y,)), *after.values()]
    loss = sum(((x * torch.arange(1, x.numel() + 1).view_as(x).cos()).sum() for x in found), torch.zeros(()))
    grads = torch.autograd.grad(loss, given, allow_unused=True)
    return [*found, *(torch.zeros_like(x) if g is None else g for x, g in zip(given, grads, strict=True))]


def worst(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> float:
    return max((gap(a, b) for a, b in zip(found, wanted, strict=True) if b.numel()), default=0.0)


def pair(text: str, dtype: torch.dtype) -> tuple[Any, Any]:
    forms = (derive(load_system(text), form) for form in ("newton", "recurrent"))
    newton, recurrent = (module_of(d.system, d.form, dtype) for d in forms)
    return newton, recurrent


def start_of(module: Any, inputs: list[torch.Tensor]) -> Any:
    generator = torch.Generator().manual_seed(1)
    _, first = module(*inputs, return_state=True)
    return {
        k: torch.randn(v.shape, generator=generator, dtype=torch.float64).to(v.dtype).requires_grad_()
        for k, v in first.items()
        if isinstance(v, torch.Tensor)
    }


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-6)])
@pytest.mark.parametrize("name", [name for name in CELLS if name != "backwards"])  # that has no state: the next test
def test_values_states_and_gradients(name: str, dtype: torch.dtype, tolerance: float) -> None:
    newton, recurrent = pair(CELLS[name], dtype)
    for length in LENGTHS:
        inputs = inputs_of(CELLS[name], length, dtype)
        state = start_of(newton, inputs)
        found, wanted = (results(m, inputs, state) for m in (newton, recurrent))
        assert worst(found, wanted) < tolerance, length
        assert newton.newton["pieces"] == (length // 64 if length >= 256 else 0)


@pytest.mark.parametrize("length", LENGTHS)
def test_downwards(length: int) -> None:
    newton, recurrent = pair(CELLS["backwards"], torch.float64)
    inputs = inputs_of(CELLS["backwards"], length, torch.float64, scale=0.5)
    found, wanted = newton(*inputs), recurrent(*inputs)
    assert gap(found, wanted) < 1e-12 if length else found.shape == wanted.shape
    if length:
        grads = [torch.autograd.grad((y * y.detach().cos()).sum(), inputs) for y in (found, wanted)]
        assert worst(list(grads[0]), list(grads[1])) < 1e-12


def test_a_slow_cell_takes_newton_steps() -> None:
    """Ends that are copied would need a sweep for each of the 32 pieces; with the slopes, errors are squared."""
    newton, recurrent = pair(SLOW, torch.float64)
    inputs = inputs_of(SLOW, 2048, torch.float64)
    assert gap(newton(*inputs), recurrent(*inputs)) < 1e-10
    assert newton.newton == {"iterations": newton.newton["iterations"], "pieces": 32, "stepped": 0}
    assert newton.newton["iterations"] <= 9


def wide(text: str, width: int, length: int, scale: float) -> list[torch.Tensor]:
    """Inputs for cells that mix, with weights of a size that does not grow with the width."""
    generator, found = torch.Generator().manual_seed(width), []
    for tensor in load_system(text).inputs():
        shape = [1, *(length if i == "t" else width for i in tensor.indices)]
        x = torch.randn(shape, generator=generator, dtype=torch.float64)
        found.append((x if "t" in tensor.indices else x * scale / width**0.5).requires_grad_())
    return found


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 4e-6)])
@pytest.mark.parametrize("name", [name for name in MIXING if "backwards" not in name])
def test_cells_that_mix(name: str, dtype: torch.dtype, tolerance: float) -> None:
    newton, recurrent = pair(MIXING[name], dtype)
    for length in (0, 1, 257, 330):
        inputs = inputs_of(MIXING[name], length, dtype, scale=0.5)
        state = start_of(newton, inputs)
        found, wanted = (results(m, inputs, state) for m in (newton, recurrent))
        assert worst(found, wanted) < tolerance, length
        assert newton.newton["pieces"] == (length // 64 if length >= 256 else 0)


def test_cells_that_mix_downwards() -> None:
    text = MIXING["masked, backwards"]
    newton, recurrent = pair(text, torch.float64)
    inputs = inputs_of(text, 300, torch.float64, scale=0.1)
    found, wanted = newton(*inputs), recurrent(*inputs)
    grads = [torch.autograd.grad((y * y.detach().cos()).sum(), inputs) for y in (found, wanted)]
    assert gap(found, wanted) < 1e-10 and worst(list(grads[0]), list(grads[1])) < 1e-9


@pytest.mark.parametrize(("width", "slopes"), [(6, True), (70, False)])
def test_slow_cells_that_mix(width: int, slopes: bool) -> None:
    """With matrices a few sweeps solve as many as 16 pieces; wide ones have none, and a copy for each piece is as many steps."""
    newton, recurrent = pair(TURNING, torch.float64)
    inputs = wide(TURNING, width, 1024 if slopes else 512, 1.0)
    state = start_of(newton, inputs)
    found, wanted = (results(m, inputs, state) for m in (newton, recurrent))
    assert worst(found, wanted) < 1e-9
    assert (newton.newton["iterations"] <= 9 and newton.newton["stepped"] == 0) == slopes, newton.newton


@pytest.mark.parametrize("width", [4, 70])
def test_wild_cells_that_mix_are_stepped(width: int) -> None:
    """Products of matrices round in another order for one position than for many, and chaos shows it: so each step."""
    newton, _ = pair(WILD, torch.float64)
    inputs = a, w = wide(WILD, width, 1100, 12.0)
    with torch.no_grad():
        h = newton(*inputs)
        before = torch.cat([torch.zeros_like(h[:, :1]), h[:, :-1]], 1)
        assert gap(h, torch.sin(a + before @ w.mT)) < 1e-12 and newton.newton["stepped"] > 512


@pytest.mark.parametrize("width", [5, 70])
def test_tame_cells_that_mix_need_no_matrices(width: int) -> None:
    newton, recurrent = pair(WILD, torch.float64)
    inputs = wide(WILD, width, 300, 0.3)
    found, wanted = (results(m, inputs) for m in (newton, recurrent))
    assert worst(found, wanted) < 1e-10 and newton.newton["iterations"] <= 3


def drawn(text: str, width: int, length: int) -> list[torch.Tensor]:
    """Inputs for two sequences of cells that mix, with weights of a size that does not grow with the width."""
    generator, found = torch.Generator().manual_seed(width), []
    for tensor in load_system(text).inputs():
        sizes = {"t": length, "k": 2, "j": 2}
        x = torch.randn([2, *(sizes.get(i, width) for i in tensor.indices)], generator=generator, dtype=torch.float64)
        found.append((x if "t" in tensor.indices else x / width**0.5).requires_grad_())
    return found


@pytest.mark.parametrize("width", [1, 5, 18, 70])
@pytest.mark.parametrize("name", LOW_RANK)
def test_slow_cells_that_mix_through_a_few_sums(name: str, width: int) -> None:
    """A few sweeps at any width, where copies would take one for each of the 17 pieces."""
    text = LOW_RANK[name][1]
    newton, recurrent = pair(text, torch.float64)
    inputs = drawn(text, width, 1100)
    if "backwards" in name:
        both = (newton(*inputs), recurrent(*inputs))
        found, wanted = (
            [y, *torch.autograd.grad((y * y.detach().cos()).sum(), inputs, allow_unused=True, materialize_grads=True)]
            for y in both
        )
    else:
        state = start_of(newton, inputs)
        found, wanted = (results(m, inputs, state) for m in (newton, recurrent))
    assert worst(found, wanted) < 1e-9
    assert newton.newton["iterations"] <= 10 and newton.newton["stepped"] == 12, newton.newton


def test_a_wide_cell_makes_no_matrices() -> None:
    """Nothing as large as the matrices of one position for every piece."""
    newton, _ = pair(LOW_RANK["one sum"][1], torch.float32)
    inputs = [x.float().detach().requires_grad_() for x in drawn(LOW_RANK["one sum"][1], 512, 1024)]
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            largest = max([largest, *(x.untyped_storage().nbytes() // 4 for x in _tensors(out))])
            return out

    with Watch():
        torch.autograd.grad(newton(*inputs).square().sum(), inputs)
    assert newton.newton["iterations"] >= 4 and largest <= 2 * 1024 * 512, largest


def _tensors(out: Any) -> list[torch.Tensor]:
    return [x for x in (out if isinstance(out, tuple | list) else [out]) if isinstance(x, torch.Tensor)]


def test_what_reads_a_solved_state_is_computed_after_it() -> None:
    """A sum over the states is no part of their loop."""
    text = "mixer m(a[t,n], u[n]) -> y[t]:\n    h[t,n] = tanh(a + u * h[t-1])\n    y[t] = sum[n] h * h\n"
    newton, recurrent = pair(text, torch.float64)
    inputs = inputs_of(text, 300, torch.float64)
    assert worst(results(newton, inputs), results(recurrent, inputs)) < 1e-9 and newton.newton["pieces"] == 4


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_chaos_is_stepped(dtype: torch.dtype) -> None:
    """What a cell does to a rounding error, 10 times at each step, no solver undoes: the same numbers, one by one."""
    newton, recurrent = pair(CHAOTIC, dtype)
    inputs = inputs_of(CHAOTIC, 2048, dtype, scale=4.0)
    assert torch.equal(newton(*inputs), recurrent(*inputs))
    assert newton.newton["stepped"] > 1024


@pytest.mark.parametrize(("rate", "stepped"), [(0.999, False), (40.0, True)])
def test_one_lane_that_goes_on_alone(rate: float, stepped: bool) -> None:
    """The others have converged before it: it must be written into the result, and must not disturb them."""
    newton, recurrent = pair(LANES, torch.float64)
    inputs = inputs_of(LANES, 2048, torch.float64)
    inputs[1] = torch.tensor([0.1, 0.2, rate, 0.1, 0.3], dtype=torch.float64).expand(2, 5).clone().requires_grad_()
    found, wanted = newton(*inputs), recurrent(*inputs)
    assert (newton.newton["stepped"] > 1024) == stepped
    assert max(gap(found[..., n], wanted[..., n]) for n in (0, 1, 3, 4)) < 1e-10
    if stepped:
        assert torch.equal(found[..., 2], wanted[..., 2])
    else:
        assert gap(found[..., 2], wanted[..., 2]) < 1e-10
        grads = [list(torch.autograd.grad((y * y.detach().cos()).sum(), inputs)) for y in (found, wanted)]
        assert worst(*grads) < 1e-9


@pytest.mark.parametrize("name", ["contracting", "coupled"])
def test_large_weights_still_solve_the_recurrence(name: str) -> None:
    newton, recurrent = pair(CELLS[name], torch.float64)
    inputs = inputs_of(CELLS[name], 600, torch.float64, scale=4.0)
    assert worst(results(newton, inputs), results(recurrent, inputs)) < 1e-9


def test_nan_and_inf_stay_where_they_are() -> None:
    newton, recurrent = pair(CELLS["contracting"], torch.float64)
    inputs = [x.detach() for x in inputs_of(CELLS["contracting"], 600, torch.float64)]
    inputs[2][1, 300, 2] = torch.nan
    found, wanted = newton(*inputs), recurrent(*inputs)
    assert torch.equal(found.isnan(), wanted.isnan()) and found.isnan().any()
    torch.testing.assert_close(found, wanted, equal_nan=True)


def test_pieces_steps_and_packed_sequences_agree() -> None:
    newton, _ = pair(CELLS["coupled"], torch.float64)
    inputs = [x.detach()[:1] for x in inputs_of(CELLS["coupled"], 700, torch.float64)]
    whole, state = newton(*inputs, return_state=True)
    first, middle = newton(*(x[:, :300] if x.dim() == 3 else x for x in inputs), return_state=True)
    second, last = newton(*(x[:, 300:] if x.dim() == 3 else x for x in inputs), state=middle, return_state=True)
    assert gap(torch.cat([first[0], second[0]], 1), whole[0]) < 1e-12
    assert all(gap(last[k], state[k]) < 1e-12 for k in state)
    stepped, _ = newton.step(*(x[:, 300] if x.dim() == 3 else x for x in inputs), state=middle)
    assert gap(stepped[0], whole[0][:, 300]) < 1e-12
    packed = newton(*inputs, cu_seqlens=[0, 280, 280, 281, 700])
    assert gap(packed[0][:, :280], whole[0][:, :280]) < 1e-12
    alone = newton(*(x[:, 281:] if x.dim() == 3 else x for x in inputs))
    assert gap(packed[0][:, 281:], alone[0]) < 1e-12


def test_double_backward_vmap_and_compile() -> None:
    newton, recurrent = pair(CELLS["contracting"], torch.float64)
    inputs = inputs_of(CELLS["contracting"], 260, torch.float64, batch=1)
    seconds = []
    for module in (newton, recurrent):
        grads = torch.autograd.grad((module(*inputs) ** 2).sum(), inputs, create_graph=True)
        seconds.append(list(torch.autograd.grad(sum((g**2).sum() for g in grads), inputs)))
    assert worst(*seconds) < 1e-9
    many = [torch.stack([x.detach(), 2 * x.detach()]) for x in inputs]
    found = torch.vmap(newton)(*many)
    assert gap(found[1], recurrent(*(x[1] for x in many))) < 1e-12
    each = torch.func.grad(lambda a: newton(a, *(x.detach() for x in inputs[1:])).square().sum())(inputs[0].detach())
    assert gap(each, torch.autograd.grad(recurrent(*inputs).square().sum(), inputs)[0]) < 1e-12
    short = [x.detach()[:, :3] if x.dim() == 3 else x.detach() for x in inputs]
    compiled = torch.compile(newton, backend="eager", fullgraph=True)
    assert gap(compiled(*short), recurrent(*short)) < 1e-12
    assert newton(*(x.detach().to("meta") for x in inputs)).shape == inputs[0].shape


def test_operands_that_are_made_of_others_count_once() -> None:
    """The gradient that is to be differentiated again goes through the steps, whose operands may depend on each other."""
    text = "mixer m(x[t,n], w[t,n]) -> h[t,n]:\n    h[t,n] = tanh(w * h[t-1] + exp(w) * x)\n"
    module = module_of(derive(load_system(text), "newton").system, "newton")
    x, w = (torch.randn(1, 300, 3, dtype=torch.float64, requires_grad=True) for _ in range(2))
    loss = module(x, w).square().sum()
    once, again = (torch.autograd.grad(loss, (x, w), create_graph=twice, retain_graph=True) for twice in (False, True))
    assert max(map(gap, once, again)) < 1e-10


RATES = {
    "sizes": """
mixer m(x[t,n,k], y[t,k], z[n], s[t], c) -> h[t,n,k], g[t,n,k]:
    h[t,n,k] = tanh(x + z * h[t-1]) * s + y * g[t-1]
    g[t,n,k] = sin(c + h[t-1]) + max(x, g[t-1]) / (2 + y^2)
""",
    "linear in an operand": """
mixer m(x[t,n], u[n]) -> h[t,n]:
    h[t,n] = x + u * silu(h[t-1])
""",
    "a state that one operand alone moves": """
mixer m(x[t,n], y[t,n]) -> h[t,n], g[t,n]:
    h[t,n] = sin(g[t-1]) + y
    g[t,n] = cos(h[t-1]) * x
""",
    "choices between steps": """
mixer m(x[t,n], y[t,n], z[n]) -> h[t,n]:
    h[t,n] = where(z > 0, tanh(h[t-1] + x), y)
""",
    "choices in choices": """
mixer m(x[t,n], y[t,n], z[n]) -> h[t,n]:
    h[t,n] = where(not (z < -1), where(y > 1, tanh(h[t-1] + x / y), x) * z, sin(h[t-1]) * y)
""",
    "a constant slope": """
mixer m(x[t,n]) -> h[t,n]:
    g[t,n] = tanh(h[t-1])
    h[t,n] = g[t-1] + x
""",
    "no lanes": """
mixer m(x[t]) -> h[t]:
    g[t] = tanh(h[t-1] * x)
    h[t] = sin(g[t-1] + x)
""",
    "an operand at one place, and in another": """
mixer m(x[t,n], w[n]) -> h[t,n]:
    h[t,n] = tanh(w * h[t-1] + exp(w) * x) / (1 + w^2) + relu(x - h[t-1]) * w / 2
""",
}  # fmt: skip


@pytest.mark.parametrize("name", RATES)
def test_gradients_by_the_derivatives_of_a_step(name: str) -> None:
    """Operands with all dimensions of the states and with some, over several blocks of positions."""
    text = RATES[name]
    code = emit_module(derive(load_system(text), "newton").system, class_name="M", form="newton")
    assert "rates=(" in code
    newton = load_class(code.replace("2**16)", "2**11)"), "M")().double()
    _, recurrent = pair(text, torch.float64)
    inputs = inputs_of(text, 300, torch.float64, scale=0.5)
    for given in (inputs, [x[:1].detach().requires_grad_() for x in inputs]):
        state = start_of(newton, given)
        assert worst(results(newton, given, state), results(recurrent, given, state)) < 1e-9
    free = min(1, len(inputs) - 1)
    frozen = [x.detach().requires_grad_(k == free) for k, x in enumerate(inputs)]
    found, wanted = (torch.autograd.grad(_sum(m(*frozen)), frozen[free])[0] for m in (newton, recurrent))
    assert gap(found, wanted) < 1e-10


@pytest.mark.parametrize("text", [
    "mixer m(x[t,n], y[t,n]) -> h[t,n]:\n    h[t,n] = where(t < |t| - 1, tanh(h[t+1] + x), y)\n",
    "mixer m(x[t,n], y[t,n], z[t]: complex) -> h[t,n]:\n    h[t,n] = where(x > 0, tanh(h[t-1] * x + re(log(z))), y + h[t-1] / 2)\n",
])  # fmt: skip
def test_backwards_and_of_complex_operands(text: str) -> None:
    newton, recurrent = pair(text, torch.float64)
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(2, 300, 3, generator=generator, dtype=torch.float64) for _ in "xy"]
    if "z" in text:
        inputs.append(torch.randn(2, 300, generator=generator, dtype=torch.complex128))
    inputs = [x.requires_grad_() for x in inputs]
    grads = [torch.autograd.grad(m(*inputs).square().sum(), inputs, create_graph=m is recurrent) for m in (newton, recurrent)]
    assert worst(list(grads[0]), [g.detach() for g in grads[1]]) < 1e-9


def test_constant_slopes_where_starts_converge_slowly() -> None:
    text = """mixer m(x[t,n]) -> h[t,n]:
    g[t,n] = 0.99 * g[t-1] + 0.1 * tanh(h[t-1]) + x
    h[t,n] = 0.99 * h[t-1] - 0.1 * sin(g[t-1])
"""
    newton, recurrent = pair(text, torch.float64)
    inputs = inputs_of(text, 640, torch.float64)
    state = start_of(newton, inputs)
    assert worst(results(newton, inputs, state), results(recurrent, inputs, state)) < 1e-8
    assert newton.newton["stepped"] == 0


def test_a_choice_by_the_depth_of_a_stack() -> None:
    text = """mixer m(x[t,n]; L = 2) -> o[t,n]:
    z[-1,t,n] = x
    z[l: L,t,n] = where(l == 0, sin(z[l,t-1] + 0.01 * z[l-1]), cos(z[l,t-1]) + 0.01 * z[l-1])
    o[t,n] = z[L-1]
"""
    newton, recurrent = (module_of(derive(load_system(text), f).system, f, L=2) for f in ("newton", "recurrent"))
    x = torch.randn(2, 640, 3, dtype=torch.float64, requires_grad=True)
    found, wanted = newton(x), recurrent(x)
    assert gap(found, wanted) < 1e-10
    assert gap(*(torch.autograd.grad(y.square().sum(), x)[0] for y in (found, wanted))) < 1e-9


def _sum(found: Any) -> torch.Tensor:
    return sum((x.square().sum() for x in (found if isinstance(found, tuple) else (found,))), torch.zeros(()))


def test_what_a_choice_has_not_taken_has_no_derivative() -> None:
    """Where x is 0 nothing is divided by it: neither in a step, nor in its derivatives by the state and by x."""
    text = "mixer m(x[t,n], m[t]) -> h[t,n]:\n    h[t,n] = where(m > 0, sin(h[t-1]) / x, cos(h[t-1]))\n"
    newton, recurrent = pair(text, torch.float64)
    x, m = torch.rand(1, 300, 3, dtype=torch.float64) + 1, torch.randn(1, 300, dtype=torch.float64)
    x = torch.where(m[..., None] > 0, x, 0.0).requires_grad_()
    grads = [torch.autograd.grad(module(x, m).square().sum(), x)[0] for module in (newton, recurrent)]
    assert torch.isfinite(grads[1]).all()
    assert gap(*grads) < 1e-10


MUTANTS = {
    "no slopes in the correction": ("slow = len(defects) >= 2 and", "slow = False and len(defects) >= 2 and"),
    "the wrong sign": (
        "total = total + (p[n] * d",
        "total = total - (p[n] * d",
    ),
    "an adjoint without the slope of the last step": ("whole[:, -1] = 0", "whole[:, -2:] = 0"),
    "slopes at the wrong position": (
        "max(a - 1, 0) : b - 1] = _newton_or_zero(slope, whole[:, a:b])[:, int(a == 0) :]",
        "a:b] = _newton_or_zero(slope, whole[:, a:b])",
    ),
    "derivatives that no gradient multiplies": ("into.mul_(sent[0])", "pass"),
    "the gradient of the first state alone": ("into.addcmul_(rate, x)", "pass"),
    "weights' gradients of a block alone": ("torch.stack(each).sum(0)", "each[-1]"),
    "the start's gradient at the wrong position": ("[x[:, :1] * rate for", "[x[:, 1:2] * rate for"),
    "slopes that are not transposed": ("*matrix.shape[-2:]), value", "*matrix.shape[-2:]).mT, value"),
    "a loose tolerance": ("else 1e-6\n", "else 1e-6\n    tolerance = 1e-2\n"),
    "inexact pieces kept": ("return 1 + int(torch.stack(same)", "return len(same[0]) + 1 - 0 * int(torch.stack(same)"),
}  # fmt: skip


# Of cells that mix: a pair with matrices in its adjoint, a slow one that needs their products, a wider one with sweeps back.
MIXING_MUTANTS = {
    "the start's gradient summed over all steps": ("parts[k].append(part[:, :1] if k < count else part)",
                                                   "parts[k].append(part.sum(1, True) if k < count else part)"),
    "products in the opposite order": ("return a @ b\n", "return b @ a\n"),
    "a diagonal on the other side": ("return a * b.unsqueeze(-2)", "return a * b.unsqueeze(-1)"),
    "a diagonal before, on the other side": ("return a.unsqueeze(-1) * b if", "return a.unsqueeze(-2) * b if"),
    "a correction by the transposed matrix": ("(p[n] @ d.unsqueeze(-1))", "(p[n].mT @ d.unsqueeze(-1))"),
    "a diagonal left out of a matrix": ("return matrix + torch.diag_embed(", "return matrix + 0 * torch.diag_embed("),
    "matrices that are not transposed": ("lead, width, width).mT", "lead, width, width)"),
    "nothing from the block after": ("own[:, -1] += following", "own[:, -1] += 0 * following"),
    "matrices of the step itself": ("torch.cat([back[:, 1:], torch.zeros_like(back[:, :1])], 1)", "back"),
    "nothing from what is left over": ("*b.shape[2:]), b], 1)", "*b.shape[2:]), 0 * b], 1)"),
    "sweeps that stop at once": ("if changes[-1] <= tolerance:\n            break", "if changes:\n            break"),
    "what is left over in the opposite order": ("*end[::-1]], 1)", "*end], 1)"),
}  # fmt: skip
MIXING_CASES = ((MIXING["a pair"], 3, 330, 1.0), (ROLLING, 5, 1024, 1.0), (WILD, 40, 530, 0.7))


def passes_mixing(change: tuple[str, str]) -> bool:
    """The same for cells whose entries mix, each with what it needs of the support functions."""
    for text, width, length, scale in MIXING_CASES:
        system = load_system(text)
        code = emit_module(derive(system, "newton").system, class_name="M", form="newton")
        assert change[0] in code
        newton = load_class(code.replace(*change).replace("2**22 //", "2**13 //"), "M")().double()
        inputs = wide(text, width, length, scale)
        try:
            found = results(newton, inputs, start_of(newton, inputs))
        except RuntimeError:
            return False
        if worst(found, reference(text, width, length, scale)) > 1e-9:
            return False
        if text is ROLLING and newton.newton["iterations"] > 10:
            return False
    return True


@cache
def reference(text: str, width: int, length: int, scale: float) -> list[torch.Tensor]:
    inputs, recurrent = wide(text, width, length, scale), module_of(load_system(text), "recurrent")
    return results(recurrent, inputs, start_of(recurrent, inputs))


def test_the_functions_of_cells_that_mix_pass() -> None:
    assert passes_mixing(("def newton_scan(", "def newton_scan("))


@pytest.mark.parametrize("name", MIXING_MUTANTS)
def test_mutants_of_cells_that_mix_are_caught(name: str) -> None:
    assert not passes_mixing(MIXING_MUTANTS[name])


# Of cells that mix through a few sums: one state, and a pair, whose decays are a block for each entry.
LOW_RANK_MUTANTS = {
    "columns of the first step, not stepped on": ("u1.baddbmm_(pairs, u2)", "pass"),
    "columns that do not decay": ("u1.mul_(d2[:, 0])", "pass"),
    "rows that do not decay": ("w2.mul_(d1[:, 0])", "pass"),
    "rows through blocks that are not transposed": ("d1.unsqueeze(1).transpose(-3, -2)", "d1.unsqueeze(1)"),
    "blocks in the opposite order": ("_low_rank_decayed(d2, d1[:, :, k]", "_low_rank_decayed(d1, d2[:, :, k]"),
    "blocks that are transposed": (".unflatten(-1, (count, -1)).transpose(1, 2)", ".unflatten(-1, (count, -1))"),
    "rows in place of columns": ("first:last, i, :] = u.mT", "first:last, i, :] = w.mT"),
    "rows of the state after": ("first:last, k, :] = w.mT", "first:last, i, :] = w.mT"),
    "a step without its columns": (" + (u.mT @ (w @ x.unsqueeze(-1))).squeeze(-1)", ""),
    "a correction without what came before": ("pieces[2][n], moved[-1]) + each[n]", "pieces[2][n], moved[0] * 0) + each[n]"),
    "an adjoint with columns for columns": ("(w, w.dim() - 3), (u, u.dim() - 3))]", "(u, w.dim() - 3), (w, u.dim() - 3))]"),
    "an adjoint whose blocks are not transposed": ("d = d.transpose(-3, -2)\n", "\n"),
    "an adjoint with the slopes of the step itself": ("x.narrow(n, 1, b - a - 1)", "x.narrow(n, 0, b - a - 1)"),
    "an adjoint without what follows a block": ("own[..., 0, :] += following", "pass"),
    "chunks that start from nothing": ("state = torch.stack(states, at)", "state = 0 * torch.stack(states, at)"),
}  # fmt: skip


def passes_low_rank(change: tuple[str, str]) -> bool:
    """The same for cells that mix through a few sums, with blocks of the adjoint that hold a few chunks each."""
    for name, length in (("one sum", 600), ("a pair", 800)):
        text = LOW_RANK[name][1]
        code = emit_module(derive(load_system(text), "newton").system, class_name="M", form="newton")
        assert change[0] in code
        newton = load_class(code.replace(*change).replace("2**20)", "2**13)"), "M")().double()
        try:
            found = results(newton, drawn(text, 18, length))
        except RuntimeError:
            return False
        if worst(found, low_rank_reference(text, length)) > 1e-9 or newton.newton["iterations"] > 10:
            return False
        if newton.newton["stepped"] != length % 64:
            return False
    return True


@cache
def low_rank_reference(text: str, length: int) -> list[torch.Tensor]:
    return results(module_of(load_system(text), "recurrent"), drawn(text, 18, length))


def test_the_functions_of_cells_that_mix_through_a_few_sums_pass() -> None:
    assert passes_low_rank(("def newton_scan(", "def newton_scan("))


@pytest.mark.parametrize("name", LOW_RANK_MUTANTS)
def test_mutants_of_cells_that_mix_through_a_few_sums_are_caught(name: str) -> None:
    assert not passes_low_rank(LOW_RANK_MUTANTS[name])


def passes(change: tuple[str, str]) -> bool:
    """Do the comparisons above hold for the support function with a change, if the gradient takes a few blocks?"""
    for text, length, scale in (
        (CELLS["coupled"], 600, 1.0), (CELLS["contracting"], 600, 1.0), (CELLS["divided where chosen"], 300, 1.0),
        (SLOW, 2048, 1.0), (CHAOTIC, 600, 4.0)
    ):  # fmt: skip
        system = load_system(text)
        code = emit_module(derive(system, "newton").system, class_name="M", form="newton")
        assert change[0] in code
        newton = load_class(code.replace(*change).replace("2**16)", "2**9)"), "M")().double()
        inputs = inputs_of(text, length, torch.float64, scale=scale)
        state = start_of(newton, inputs)
        with torch.no_grad():
            values = [newton(*inputs), module_of(system, "recurrent")(*inputs)]
        flat = [list(v) if isinstance(v, tuple) else [v] for v in values]
        if worst(*flat) > 1e-9 or text is SLOW and newton.newton["iterations"] > 9:
            return False
        if text is not CHAOTIC and worst(
            results(newton, inputs, state), results(module_of(system, "recurrent"), inputs, state)
        ) > 1e-9:  # fmt: skip
            return False
    return True


def test_the_function_itself_passes() -> None:
    assert passes(("def newton_scan(", "def newton_scan("))


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name: str) -> None:
    assert not passes(MUTANTS[name])

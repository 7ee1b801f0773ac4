"""What torch users expect of any module: broadcasting, empty batches, copies, meta tensors, 16-bit weights, transforms."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import seqdsl
from seqdsl.diagnostics import SeqError
from seqdsl.forms import derive
from tests.backends.torch_module.harness import (
    CORPUS,
    FIXTURES,
    as_tuple,
    fixture,
    gap,
    is_steppable,
    module_of,
    random_inputs,
    stream_dims,
    system_of,
)

FORMS = [
    ("gla", "gla", "recurrent"),
    ("gla", "gla", "scan"),
    ("gla", "gla", "chunkwise"),
    ("mamba", "selective_scan", "scan"),
    ("mamba", "selective_scan", "chunkwise"),
    ("delta_product", "gated_delta", "chunkwise"),
    ("delta_product", "gated_delta", "scan"),
    ("log_linear", "log_linear", "chunkwise"),
    ("attention", "attention", "recurrent"),
    ("grid", "grid_align", "recurrent"),
]
each_form = pytest.mark.parametrize(("file", "mixer", "form"), FORMS)


@each_form
def test_batches_of_one_broadcast_in_any_place(file: str, mixer: str, form: str) -> None:
    """Outputs, states and gradients are those of the expanded inputs."""
    system = system_of(file, mixer, form)
    module = module_of(system, form)
    inputs = random_inputs(system, batch=3)
    for chosen in [[k] for k in range(len(inputs))] + [list(range(1, len(inputs)))]:
        small = [x[:1].clone().requires_grad_() if k in chosen else x for k, x in enumerate(inputs)]
        wide = [x.expand(3, *x.shape[1:]) if k in chosen else x for k, x in enumerate(small)]
        if is_steppable(system):
            (found, state), (wanted, whole) = (module(*x, return_state=True) for x in (small, wide))
            assert gap(state, whole) < 1e-12
        else:
            found, wanted = module(*small), module(*wide)
        for a, b in zip(as_tuple(found), as_tuple(wanted), strict=True):
            assert gap(a, b) < 1e-12
        leaves = [x for x in small if x.requires_grad]
        grads = (torch.autograd.grad(as_tuple(y)[0].sum(), leaves, allow_unused=True) for y in (found, wanted))
        for a, b in zip(*grads, strict=True):
            assert (a is None and b is None) or gap(a, b) < 1e-10


@each_form
def test_a_batch_of_none(file: str, mixer: str, form: str) -> None:
    system = system_of(file, mixer, form)
    module = module_of(system, form)
    inputs = [x[:0].requires_grad_() for x in random_inputs(system)]
    for y in as_tuple(module(*inputs)):
        assert y.shape[0] == 0
    as_tuple(module(*inputs))[0].sum().backward()


GATHERS = ["haar.haar", "windows.windows", "rpe_kernel.rpe_fft", "gfnet.global_filter", "nsa.nsa"]


@pytest.mark.parametrize("path", [p for p in FIXTURES if p.stem in GATHERS], ids=lambda p: p.stem)
def test_a_batch_of_none_through_gathers_and_transforms(path: Path) -> None:
    _, module, inputs, wanted = fixture(path)
    none = as_tuple(module(*(x[:0] for x in inputs)))
    assert [tuple(y.shape) for y in none] == [(0, *y.shape) for y in wanted]


@each_form
def test_second_derivatives_equal_those_of_the_recurrence(file: str, mixer: str, form: str) -> None:
    """Every form either differentiates twice, or would fail here: a silent zero does not pass."""
    found = []
    for each in ("recurrent", form):
        inputs = random_inputs(system_of(file, mixer), batch=1, t=5, grad=True)
        y = as_tuple(module_of(system_of(file, mixer, each), each)(*inputs))[0]
        first = torch.autograd.grad(y.sin().sum(), inputs, create_graph=True, allow_unused=True)
        loss = sum(g.square().sum() for g in first if g is not None)
        found.append(torch.autograd.grad(loss, inputs, allow_unused=True))
    for a, b in zip(*found, strict=True):
        assert (a is None and b is None) or gap(b, a) < 1e-8


def test_second_derivatives_of_logaddexp_beside_nothing() -> None:
    system = system_of("combiner", "combiner")
    inputs = random_inputs(system, batch=1, t=6, grad=True)
    module = module_of(system, L=4)
    assert torch.autograd.gradgradcheck(lambda *x: module(*x), inputs)


@each_form
def test_vmap_of_every_form(file: str, mixer: str, form: str) -> None:
    system = system_of(file, mixer, form)
    module = module_of(system, form)
    inputs = random_inputs(system, batch=4)
    mapped = torch.func.vmap(lambda *x: as_tuple(module(*x))[0])(*(x.unflatten(0, (2, 2)) for x in inputs))
    assert gap(mapped.flatten(0, 1), as_tuple(module(*inputs))[0]) < 1e-12
    shared = [*inputs[:-1], inputs[-1][:1]]
    dims = (*(0 for _ in inputs[:-1]), None)
    mapped = torch.func.vmap(lambda *x: as_tuple(module(*x))[0], dims)(
        *(x.unflatten(0, (2, 2)) if d == 0 else x for x, d in zip(shared, dims, strict=True))
    )
    assert gap(mapped.flatten(0, 1), as_tuple(module(*shared))[0]) < 1e-12


LAYERS = [("gla", "GLA", {"c": 16}), ("mamba", "Mamba", {"c": 8}), ("adalog", "shift_linear", {"c": 4}),
          ("titans", "titans_mlp", {"h": 2, "d": 3, "e": 3}),
          ("s4d", "s4d", {"c": 3, "N": 4}), ("lstm", "lstm", {"c": 4, "N": 5})]  # fmt: skip


@pytest.mark.parametrize(("file", "mixer", "sizes"), LAYERS)
def test_layers_on_meta_in_copies_and_in_sixteen_bits(file: str, mixer: str, sizes: dict[str, int]) -> None:
    program, system = seqdsl.load(CORPUS / f"{file}.seq", mixer), system_of(file, mixer)
    torch.manual_seed(0)
    module = program.module(**sizes)
    inputs = [0.2 * x.float() for x in random_inputs(system, **sizes)]
    wanted = as_tuple(module(*inputs))
    for copied in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), copy.deepcopy(module).eval()):
        assert torch.equal(as_tuple(copied(*inputs))[0], wanted[0])
    with torch.device("meta"):
        empty = program.module(**sizes)
    assert all(p.is_meta for p in empty.parameters())
    shapes = [y.shape for y in as_tuple(empty(*(x.to("meta") for x in inputs)))]
    assert shapes == [y.shape for y in wanted]
    torch.manual_seed(0)
    empty.to_empty(device="cpu").reset_parameters()
    empty.load_state_dict(module.state_dict(), strict=True)
    assert torch.equal(as_tuple(empty(*inputs))[0], wanted[0])
    low = module.to(torch.bfloat16)
    y, state = low(*(x.bfloat16() for x in inputs), return_state=True)
    assert as_tuple(y)[0].dtype == torch.bfloat16 and torch.isfinite(as_tuple(y)[0]).all()
    assert all(x.dtype in (torch.float32, torch.complex64) for x in leaves(state))
    sum(z.float().sum() for z in as_tuple(y)).backward()
    assert all(torch.isfinite(torch.view_as_real(p.grad) if p.is_complex() else p.grad).all() for p in low.parameters())


def leaves(state: Any) -> list[torch.Tensor]:
    return [x for v in state.values() for x in leaves(v)] if isinstance(state, dict) else [state]


def test_weights_in_sixteen_bits_are_widened_before_they_are_used() -> None:
    """exp(A_log) of a bfloat16 parameter is a float32 exponential: only the stored value is rounded."""
    program = seqdsl.load("mixer f(x[t,c]) -> y[t,c]:\n    param w[c] = normal(0, 1)\n    y[t,c] = exp(w) * x\n")
    module = program.module(c=64).to(torch.bfloat16)
    y = module(torch.ones(1, 1, 64))
    assert torch.equal(y[0, 0], module.w.detach().float().exp())


def test_names_in_the_record_of_a_stack() -> None:
    """The entry of a cache inside a call is one key, not one for each dot of its subscript."""
    model = seqdsl.load(CORPUS / "transformer.seq", "Transformer").module(M=11, C=8, N=9, L=2, H=2)
    _, state = model(torch.ones(1, 4, dtype=torch.long), return_state=True)
    assert set(state) == {"x", "position"}
    assert all(isinstance(x, torch.Tensor) and name.count("[") == name.count("]") for name, x in state["x"].items())


@pytest.mark.parametrize(("file", "mixer"), [("ema", "ema_damped"), ("simple_gla", "simple_gla_parallel")])
def test_export_of_a_convolution_with_a_free_length(file: str, mixer: str) -> None:
    """No power of two above the example's length is built into the graph."""
    system = system_of(file, mixer, "convolution")
    module = module_of(system, "convolution", torch.float32)
    inputs = random_inputs(system, dtype=torch.float32)
    free = torch.export.Dim.DYNAMIC
    shapes = tuple(None if d is None else {d: free} for d in stream_dims(system))
    program = torch.export.export(module, tuple(inputs), dynamic_shapes=shapes)
    for length in (5, 40):
        others = random_inputs(system, dtype=torch.float32, t=length)
        assert gap(program.module()(*others), module(*others)) < 1e-5


def test_what_a_layer_needs_follows_from_formulas(tmp_path: Path) -> None:
    """global_filter's parameter has |j| // 2 + 1 frequencies: compiling builds it with a length for j."""
    (path,) = seqdsl.compile(CORPUS / "gfnet.seq", out=tmp_path)
    assert "def __init__(self, i: int, j: int, c: int" in path.read_text()


@pytest.mark.parametrize(
    "text",
    ["sum[j] w * x[t - 2 * j]", "sum[j] w[j,c] * x[t - 3 * j, |c| - 1 - c]"],
)
def test_a_dilated_filter_runs_and_steps(text: str) -> None:
    program = seqdsl.load(f"mixer f(x[t,c], w[j,c]) -> y[t,c]:\n    y[t,c] = {text}\n")
    x, w = torch.randn(1, 9, 2, dtype=torch.double), torch.randn(1, 3, 2, dtype=torch.double)
    wanted = torch.tensor(program.interpret({"x": x[0].numpy(), "w": w[0].numpy()})["outputs"]["y"])
    module = program.module()
    first, state = module(x[:, :4], w, return_state=True)
    found = torch.cat([first, module(x[:, 4:], w, state=state)], 1)
    assert gap(found[0], wanted) < 1e-12 and gap(module(x, w)[0], wanted) < 1e-12


def test_the_boundary_before_the_first_token_is_the_start() -> None:
    text = "mixer f(x[t], w[c]) -> y[t]:\n    W[-1,c] = w\n    V[t,c] = W[t // 3 * 3 - 1]\n"
    text += "    W[t,c] = 0.5 * V + x\n    y[t] = sum[c] W\n"
    module, w = module_of(seqdsl.load(text, "f").system()), torch.tensor([[1.0, 2.0]], dtype=torch.float64)
    _, state = module(torch.zeros(1, 0, dtype=torch.float64), w, return_state=True)
    assert torch.equal(state["V"], w)


FURTHER_BACK = {
    "read after the loop": "y[-1,c] = 3; y[-2,c] = a; y[t,c] = x * y[t-1] / 2 - y[t-2] / 3; z[t,c] = y * y[t-2]",
    "of another kind": "y[-1,c] = -inf; y[-2,c] = -inf; y[t,c] = logaddexp(logaddexp(y[t-1], y[t-2]), x); z[t,c] = y",
    "with a gap": "y[-1,c] = 3; y[-3,c] = a; y[t,c] = y[t-1] / 2 + y[t-3] / 9 + x; z[t,c] = y[t-3] + x",
    "at every second": "y[-1,c] = 1; y[-3,c] = a; y[t,c] = y[t-1] / 2 + x; z[t,c] = sum[j: 3] (j + 1) * y[t - 2 * j]",
    "as many as an option says": "y[-1,c] = 1; y[-3,c] = a; y[t,c] = x + sum[j: W] y[t-j-1] / 9; z[t,c] = y + y[t-2]",
    "beside all of them": "y[-1,c] = 3; y[t,c] = y[t-1] / 2 + x; z[t,c] = sum[s | s <= t] x[s] * y[s-1]",
    "beside all, two back": "y[-1,c] = 3; y[-2,c] = a; y[t,c] = y[t-2] / 2 + x; z[t,c] = sum[s | s <= t] x[s] * y[s]",
    "held at boundaries": "y[-1,c] = 3; y[-2,c] = a; y[t,c] = y[t // 3 * 3 - 1] / 2 + y[t-1] / 3 + x; z[t,c] = y + y[t-2]",
}


@pytest.mark.parametrize("name", FURTHER_BACK)
@pytest.mark.parametrize("form", ["recurrent", "scan"])
def test_base_cases_are_where_a_state_begins(form: str, name: str) -> None:
    """Whole, from the state before the first position, cut anywhere, and step by step."""
    lines = "".join(f"    {line.strip()}\n" for line in FURTHER_BACK[name].split(";"))
    text = f"mixer f(x[t,c], a[c]; W = 2) -> z[t,c]:\n    index s over t\n{lines}"
    program = seqdsl.load(text)
    try:
        module = module_of(program.derived(form).system, form)
    except SeqError:
        assert form == "scan" and name in ("of another kind", "as many as an option says", "beside all, two back")
        return
    x, a = torch.randn(1, 6, 2, dtype=torch.float64), torch.randn(1, 2, dtype=torch.float64)
    wanted = torch.tensor(program.interpret({"x": x[0].numpy(), "a": a[0].numpy()})["outputs"]["z"])[None]
    assert gap(module(x, a), wanted) < 1e-12
    for cut in (0, 1, 2, 4):
        first, state = module(x[:, :cut], a, return_state=True)
        assert gap(torch.cat([first, module(x[:, cut:], a, state=state)], 1), wanted) < 1e-12
        rows = []
        for t in range(cut, 6):
            row, state = module.step(x[:, t], a, state)
            rows.append(row.unsqueeze(1))
        assert gap(torch.cat([first, *rows], 1), wanted) < 1e-12


@pytest.mark.parametrize("earlier", ["t // 3 * 3 - 1", "t // 3 * 3 - 2", "t - 2"])
@pytest.mark.parametrize("form", ["recurrent", "scan", "chunkwise"])
def test_what_an_earlier_step_has_left_is_read_after_the_loop_too(form: str, earlier: str) -> None:
    """The reader stands in no loop: the state must give it a boundary that is older than the last values."""
    text = "mixer f(q[t,d], k[t,d], v[t,e]) -> y[t,e]:\n    M[t,d,e] = 0.5 * M[t-1] + k * v\n"
    text += f"    y[t,e] = tanh(v) + sum[d] q * M[{earlier}]\n"
    module = module_of(derive(seqdsl.load(text, "f").system(), form).system, form)
    given = [torch.randn(2, 11, n, dtype=torch.float64) for n in (2, 2, 3)]
    whole = module(*given)
    for cut in range(12):
        first, state = module(*(x[:, :cut] for x in given), return_state=True)
        rest = []
        for t in range(cut, 11):
            y, state = module.step(*(x[:, t] for x in given), state)
            rest.append(y.unsqueeze(1))
        assert gap(torch.cat([first, *rest], 1), whole) < 1e-12


def test_a_loop_that_reads_all_so_far_counts_from_the_past() -> None:
    text = "mixer f(x[t]) -> y[t]:\n    index s over t\n    z[t] = x + M[t // 3 * 3 - 1]\n"
    text += "    p[t,s] = where(s <= t, z[s] * x[s], 0)\n    M[t] = tanh(M[t-1] + sum[s | s <= t] p * z[s])\n    y[t] = M\n"
    module = module_of(seqdsl.load(text, "f").system())
    x = torch.linspace(-1, 1, 9, dtype=torch.float64)[None]
    whole, (first, state) = module(x), module(x[:, :5], return_state=True)
    assert torch.allclose(torch.cat([first, module(x[:, 5:], state=state)], 1), whole, atol=1e-12)


STEPS = ["n[t-1] + (x > 0)", "n[t-1] + t", "n[t+1] + 1", "2 * n[t-1] + 1", "where(x < 0, 0, n[t-1]) + 3"]
STEPS += ["(x > 0) * n[t+1] + t", "where(x < 0, 0, n[t-1]) + 2^40"]


@pytest.mark.parametrize("step", STEPS)
def test_integers_are_counted_exactly(step: str) -> None:
    text = f"mixer f(x[t]) -> y[t]:\n    n[t] = {step}\n    y[t] = n + x[n - 1]\n"
    system, x = seqdsl.load(text, "f").system(), torch.tensor([0.5, -1.0, 2.0, 3.0, -0.5, 1.0], dtype=torch.float64)
    wanted = torch.as_tensor(seqdsl.load(text, "f").interpret(inputs={"x": x.numpy()})["outputs"]["y"])
    for form in ("recurrent", "scan") if "2 *" not in step else ("recurrent",):
        assert torch.equal(module_of(derive(system, form).system, form)(x[None])[0], wanted)
    if "2 *" in step:
        with pytest.raises(seqdsl.SeqError, match="form"):
            derive(system, "scan")


def test_a_constant_that_is_drawn_is_saved() -> None:
    """Another module, with other draws, becomes the saved one; what is made from sizes is made again."""
    text = "mixer f(x[t,c]; M = 3) -> y[t,m]:\n    const w[m: M, c] = normal(0, 1)\n    const r[m] = 1 / (m + 1)\n"
    program = seqdsl.load(text + "    y[t,m] = r * (sum[c] w * x)\n")
    saved, other = (program.module(c=4) for _ in range(2))
    assert list(saved.state_dict()) == ["w"] and not list(saved.parameters())
    other.load_state_dict(saved.state_dict())
    x = torch.randn(1, 5, 4)
    assert torch.equal(other(x), saved(x))


STACKS = {
    "a start that is an input": "z[-1,t,c] = v\n    z[p,t,c] = sum[l] w * z[p-1, t-l]\n    y[t,c] = z[|p|-1]",
    "read further back itself": "z[-1,t,c] = v\n    z[p,t,c] = sum[l] w * z[p-1, t-l]\n    y[t,c] = z[|p|-1] + z[-1,t-7,c]",
    "constant": "z[-1,t,c] = 1\n    z[p,t,c] = v + sum[l] w * z[p-1, t-l]\n    y[t,c] = z[|p|-1]",
    "one step back": "z[-1,t,c] = v\n    z[p,t,c] = z[p-1] + w[p,0] * tanh(z[p-1,t-1])\n    y[t,c] = z[|p|-1]",
}


@pytest.mark.parametrize("equations", STACKS.values(), ids=STACKS)
def test_a_stack_of_filters_goes_on_from_what_each_layer_has_read(equations: str) -> None:
    program = seqdsl.load(f"mixer f(v[t,c], w[p,l,c]) -> y[t,c]:\n    {equations}\n")
    v, w = torch.randn(1, 11, 2, dtype=torch.double), torch.randn(1, 3, 3, 2, dtype=torch.double)
    wanted = torch.tensor(program.interpret({"v": v[0].numpy(), "w": w[0].numpy()})["outputs"]["y"])
    module = program.module()
    first, state = module(v[:, :4], w, return_state=True)
    assert gap(torch.cat([first, module(v[:, 4:], w, state=state)], 1)[0], wanted) < 1e-12
    with pytest.raises(SeqError, match="which a state holds"):  # the scan over depth would not have them
        program.module(form="scan")


def test_a_divisor_of_sizes_that_is_0_counts_as_1_as_in_the_equations() -> None:
    mixer = seqdsl.load("mixer m(x[t,d]) -> y[t,d]:\n    y[t,d] = x * (d % (|d| // 4) + d // (|d| // 4))\n")
    for width in (3, 8):
        x = torch.randn(1, 2, width, dtype=torch.float64)
        wanted = mixer.interpret(inputs={"x": x[0].numpy()})["outputs"]["y"]
        assert gap(mixer.module()(x)[0], torch.from_numpy(wanted)) < 1e-12


RECOMPUTED = {
    "recurrent": "h[t,c] = tanh(0.5 * h[t-1] + x)\n    y[t,c] = h * x",
    "newton": "h[t,c] = tanh(0.5 * h[t-1] + x)\n    y[t,c] = h * x",
    "scan": "h[t,c] = sigmoid(x) * h[t-1] + x\n    y[t,c] = h * x",
    "wavefront": "index s over t\n    y[t,c] = x + 0.3 * sum[s | s < t and x[t,0] < x[s,1]] y[s]",
}


@pytest.mark.parametrize("form", RECOMPUTED)
def test_a_checkpoint_recomputes_what_is_saved(form: str) -> None:
    """It gives the tensors that are saved for the way back once."""
    module = seqdsl.load(f"mixer m(x[t,c]) -> y[t,c]:\n    {RECOMPUTED[form]}\n").module(form)
    x = torch.randn(2, 300, 3, dtype=torch.float64, requires_grad=True)
    found, wanted = checkpoint(module, x, use_reentrant=False), module(x)
    assert gap(*(torch.autograd.grad(y.cos().sum(), x)[0] for y in (found, wanted))) < 1e-12


TIES = {"h[t-1] + x": ("recurrent", "scan", "chunkwise"), "tanh(h[t-1]) + x": ("recurrent", "newton")}


@pytest.mark.parametrize("inner", TIES)
def test_a_number_shares_the_gradient_of_a_maximum_with_what_equals_it(inner: str) -> None:
    """As two tensors do, in every form, however often it is to be differentiated."""
    program = seqdsl.load(f"mixer m(x[t,c]) -> h[t,c]:\n    h[t,c] = max({inner}, 0)\n")
    for form in TIES[inner]:
        for again in (False, True):
            x = torch.zeros(1, 3, 1, requires_grad=True)
            (found,) = torch.autograd.grad(program.module(form)(x).sum(), x, create_graph=again)
            assert found.flatten().tolist() == [0.875, 0.75, 0.5], (form, again)

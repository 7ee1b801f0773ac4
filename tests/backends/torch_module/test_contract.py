"""The module's contract: torch transforms, dtypes, packed sequences, errors, identifiers, the same text twice."""

from __future__ import annotations

import ast
from typing import Any

import pytest
import torch
from seqdsl.backends.torch_module import build_module, emit_module, load_class
from seqdsl.backends.torch_module.names import MODULE_ATTRIBUTES, MODULE_INTERNALS, Names, attribute, safe
from seqdsl.backends.torch_module.table import covered

import seqdsl
from seqdsl.ir.ops import OPS
from seqdsl.semantics import load_system
from tests.backends.torch_module.harness import gap, is_steppable, module_of, piece, random_inputs, system_of

MIXERS = [
    ("gla", "gla", "recurrent", {}),
    ("gla", "gla", "scan", {}),
    ("gla", "gla", "chunkwise", {}),
    ("attention", "attention", "recurrent", {}),
    ("attention", "attention", "chunkwise", {}),
    ("sliding", "sliding", "chunkwise", {}),
    ("gla", "GLA", "chunkwise", {"c": 8}),
    ("mamba", "selective_scan", "scan", {}),
    ("delta_product", "gated_delta", "recurrent", {}),
    ("s4d", "s4d_conv", "recurrent", {}),
    ("transformer", "Block", "recurrent", {"c": 8}),
    ("transformer", "Block", "chunkwise", {"c": 8}),
    ("mlstm", "mlstm", "recurrent", {}),
    ("aaren", "aaren", "recurrent", {"h": 2, "d": 3}),
    ("lightnet", "lightnet", "recurrent", {}),
    ("gat", "gat_edges", "recurrent", {}),
]
each_mixer = pytest.mark.parametrize(("file", "mixer", "form", "sizes"), MIXERS)


def test_every_operator_has_a_row() -> None:
    assert covered() == set(OPS)


@each_mixer
def test_gradients(file: str, mixer: str, form: str, sizes: dict[str, int]) -> None:
    system = system_of(file, mixer, form)
    module = module_of(system, form, **sizes)
    inputs = random_inputs(system, batch=1, grad=True, **{**sizes, "t": 4})
    assert torch.autograd.gradcheck(lambda *x: module(*x), inputs)
    assert torch.autograd.gradgradcheck(lambda *x: module(*x), inputs)


SOURCES = {
    "columns": """
mixer columns(q[t,d], k[t,d], v[t,e], g[t,e]) -> o[t,e]:
    S[t,d,e] = exp(g) * S[t-1] + k * v
    o[t,e] = sum[d] q * S
""",
    "coupled": """
mixer coupled(q[t,d], k[t,d], v[t,e], g[t,d]) -> o[t,e]:
    M[t,d,e] = 0.5 * M[t-1] - k * (v + sum[d] k * S[t-1])
    S[t,d,e] = exp(g) * S[t-1] + M
    o[t,e] = sum[d] q * S
""",
    "delta": """
mixer delta(q[t,d], k[t,d], v[t,e], a[t]) -> o[t,e]:
    S[t,d,e] = exp(a) * S[t-1] + k * (v - sum[d] k * S[t-1]) / 8
    o[t,e] = sum[d] q * S
""",
}
# How far a gradient may be from what it is outside autocast, which rounds what PyTorch's own products send back.
FORMS = [("columns", "chunkwise", 1e-6), ("columns", "scan", 2e-2), ("coupled", "chunkwise", 2e-2), ("coupled", "recurrent", 1e-6),
         ("delta", "chunkwise", 1e-6)]


@pytest.mark.parametrize("name, form, apart", FORMS)
def test_gradients_once_more_and_within_autocast(name: str, form: str, apart: float) -> None:
    module = seqdsl.load(SOURCES[name]).module(form)
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 70, 4, generator=draw).requires_grad_() for _ in range(3))
    decay = (-torch.rand((1, 70) if name == "delta" else (1, 70, 4), generator=draw)).requires_grad_()
    given = (q, k / 2, v, decay)
    y = module(*given)
    first = torch.autograd.grad(y.sum(), given, retain_graph=True)
    again = torch.autograd.grad(y.sum(), given, retain_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        within = torch.autograd.grad(y.sum(), given)
    for a, b, c in zip(first, again, within, strict=True):
        assert torch.equal(a, b) and (a - c).norm() <= apart * a.norm()


# Unrolled steps are traced for long, and are much alike.
TRACED = [m for m in MIXERS if m[2] != "recurrent" or m[1] not in ("gated_delta", "s4d_conv", "mlstm", "lightnet")]


@pytest.mark.parametrize(("file", "mixer", "form", "sizes"), TRACED)
def test_compile(file: str, mixer: str, form: str, sizes: dict[str, int]) -> None:
    system = system_of(file, mixer, form)
    module = module_of(system, form, torch.float32, **sizes)
    inputs = random_inputs(system, dtype=torch.float32, grad=True, **sizes)
    torch._dynamo.reset()
    found = torch.compile(module, fullgraph=True, backend="aot_eager")(*inputs)
    assert gap(found.detach(), module(*inputs).detach()) < 1e-5
    found.sum().backward()


@pytest.mark.parametrize(
    ("file", "mixer", "form", "sizes"),
    [m for m in MIXERS if m[2] != "recurrent" or m[1] in ("attention", "Block", "gat_edges")],
)
def test_export_with_a_free_length(file: str, mixer: str, form: str, sizes: dict[str, int]) -> None:
    system = system_of(file, mixer, form)
    module = module_of(system, form, torch.float32, **sizes)
    inputs = random_inputs(system, dtype=torch.float32, **sizes)
    free = torch.export.Dim.DYNAMIC
    shapes = tuple(
        {k + 1: free for k, i in enumerate(t.indices) if system.axis(i) == system.stream} or None
        for t in system.inputs()
    )
    program = torch.export.export(module, tuple(inputs), dynamic_shapes=shapes)
    longer = random_inputs(system, dtype=torch.float32, **{**sizes, "t": 70, "s": 70})
    assert gap(program.module()(*longer), module(*longer)) < 1e-4


@each_mixer
def test_vmap(file: str, mixer: str, form: str, sizes: dict[str, int]) -> None:
    system = system_of(file, mixer, form)
    module = module_of(system, form, **sizes)
    inputs = random_inputs(system, batch=6, grad=form == "chunkwise", **sizes)
    mapped = torch.func.vmap(module)(*[x.unflatten(0, (3, 2)) for x in inputs])
    assert gap(mapped.flatten(0, 1), module(*inputs)) < 1e-9


@each_mixer
def test_sixteen_bits_and_autocast(file: str, mixer: str, form: str, sizes: dict[str, int]) -> None:
    system = system_of(file, mixer, form)
    module = module_of(system, form, torch.float32, **sizes)
    inputs = random_inputs(system, dtype=torch.float32, **sizes)
    wanted = module(*inputs)
    with torch.autocast("cpu", torch.bfloat16):
        found = module(*inputs)
    assert found.dtype == torch.float32 and (found - wanted).norm() / wanted.norm() < 2e-2
    low = module.to(torch.bfloat16)(*[x.bfloat16() if x.is_floating_point() else x for x in inputs])
    assert low.dtype == torch.bfloat16 and (low.float() - wanted).norm() / wanted.norm() < 2e-2
    if is_steppable(system):
        _, state = module(*[x.bfloat16() if x.is_floating_point() else x for x in inputs], return_state=True)
        assert all(x.dtype in (torch.float32, torch.complex64, torch.long) for x in _leaves(state))


def _leaves(state: Any) -> list[torch.Tensor]:
    if isinstance(state, dict):
        return [x for v in state.values() for x in _leaves(v)]
    return [state] if isinstance(state, torch.Tensor) else []


@pytest.mark.parametrize(("file", "mixer", "form", "sizes"), [m for m in MIXERS if m[1] != "gat_edges"])
def test_packed_sequences(file: str, mixer: str, form: str, sizes: dict[str, int]) -> None:
    system = system_of(file, mixer, form)
    module = module_of(system, form, **sizes)
    inputs = random_inputs(system, batch=1, **sizes)
    packed = module(*inputs, cu_seqlens=torch.tensor([0, 3, 3, 7]))
    alone = [module(*piece(system, inputs, a, b)) for a, b in ((0, 3), (3, 3), (3, 7))]
    assert gap(packed, torch.cat(alone, 1)) == 0


def test_packed_states_lie_along_the_batch() -> None:
    system = system_of("gla", "gla")
    module = module_of(system)
    inputs = random_inputs(system, batch=1)
    y, state = module(*inputs, cu_seqlens=[0, 3, 7], return_state=True)
    assert state["S"].shape[0] == 2
    again, _ = module(*inputs, cu_seqlens=[0, 3, 7], state=state, return_state=True)
    assert gap(again[:, 3:], module(*piece(system, inputs, 3, 7), state={"S": state["S"][1:]})) == 0
    with pytest.raises(ValueError, match="cu_seqlens must rise from 0 to the packed length 7"):
        module(*inputs, cu_seqlens=[0, 9])


def test_a_batch_of_one_broadcasts() -> None:
    system = system_of("mamba", "selective_scan")
    x, dt, a, b, c, skip = random_inputs(system)
    module = module_of(system)
    assert (
        gap(module(x, dt, a[:1], b, c, skip[:1]), module(x, dt, a[:1].expand_as(a), b, c, skip[:1].expand_as(skip)))
        == 0
    )


def test_shapes_are_checked() -> None:
    system = system_of("gla", "gla")
    q, k, v, g = random_inputs(system)
    module = module_of(system)
    with pytest.raises(ValueError, match=r"`q` must have the axes \[batch, t, h, d\]"):
        module(q[0], k, v, g)
    with pytest.raises(ValueError, match="the axis `t` has length 5 in `k`"):
        module(q, k[:, :5], v, g)
    with pytest.raises(ValueError, match="batch size"):
        module(q, torch.cat([k, k]), v, g)


def test_sizes_are_checked_when_the_module_is_built() -> None:
    cls = load_class(emit_module(system_of("gla", "GLA"), class_name="GLA"), "GLA")
    with pytest.raises(ValueError, match="9 / 2"):
        cls(9)
    with pytest.raises(ValueError, match="must be at least 1"):
        cls(8, H=4, D=0)
    assert "c=8, H=4, D=1, E=2, R=16" in repr(cls(8))


def test_state_dict_and_initial_values() -> None:
    system = system_of("transformer", "Transformer")
    torch.manual_seed(0)
    module = module_of(system, M=11, C=8, N=9, L=3, H=2)
    names = set(module.state_dict())
    assert {"E", "P", "norm", "x.0.q.weight", "x.2.up.bias", "x.1.norm1"} <= names
    assert module.state_dict()["x.1.q.weight"].shape == (8, 2, 4)
    assert torch.equal(module.norm, torch.ones(8, dtype=torch.float64))
    assert module.state_dict()["x.0.up.weight"].abs().max() <= 8**-0.5
    assert 0.01 < module.E.std() < 0.03


def test_complex_parameters_stay_complex() -> None:
    module = module_of(system_of("s4d", "s4d"), dtype=torch.float32, c=3, N=4)
    assert module.to(torch.float64).C.dtype == torch.complex128
    assert module.to(torch.bfloat16).C.dtype == torch.complex64


def test_the_same_text_twice() -> None:
    system = load_system("library/gla.seq", "GLA") if False else system_of("gla", "GLA")
    assert emit_module(system, class_name="M", header="h") == emit_module(system, class_name="M", header="h")
    tree = ast.parse(emit_module(system, class_name="M"))
    imported = {a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names}
    imported |= {str(n.module) for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} <= {"__future__", "math", "collections", "contextlib", "typing", "torch"}


HOSTILE = """
mixer lambda(self[t,class], torch[t,class], state[t], B[t]; def = 2, F = 3, T = 1) -> return[t,class]:
    param forward[class] = 1
    param weight[class, f: F] = 1
    param training[class] = 0
    dtype[t,class]  = self * torch + state * B
    math[t,class]   = 0.5 * math[t-1] + dtype * forward
    past[t,class]   = math + (sum[f] weight) * def + T * training
    sizes[t,class]  = silu(linear[class -> class](past))
    __x[t,class]    = sizes
    return[t,class] = sizes + __x
"""


def test_hostile_identifiers_come_out_safe() -> None:
    system = load_system(HOSTILE)
    module = build_module(emit_module(system, class_name="lambda"), "lambda_", class_=4)
    x = torch.randn(2, 5, 4)
    y = module(x, x, torch.randn(2, 5), torch.randn(2, 5))
    assert y.shape == (2, 5, 4) and torch.isfinite(y).all()
    assert module.state_dict().keys() == {"forward_", "weight", "training_", "sizes.weight"}


def test_text_in_comments_cannot_leave_them() -> None:
    source = 'mixer f(x[t]) -> y[t]:\n    # """ \\ import os\n    y[t] = x    # \' + os.system("true") + \'\n'
    text = emit_module(load_system('# """ + 1/0 + """\n' + source), class_name="M")
    assert not [n for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Name) and n.id == "os"]


def test_names() -> None:
    assert (
        safe("class") == "class_"
        and safe("o.S@t=-1") == "o_S_t__1"
        and safe("s'") == "s"
        and safe("__import__") == "import_"
    )
    assert attribute("forward") == "forward_" and attribute("q") == "q"
    names = Names()
    assert [names.fresh("x"), names.fresh("x"), names.fresh("x.y")] == ["x", "x_2", "x_y"]
    assert {n for n in dir(torch.nn.Module()) if not n.startswith("_")} <= MODULE_ATTRIBUTES
    assert {n[1:] for n in dir(torch.nn.Module()) if n.startswith("_") and not n.startswith("__")} <= MODULE_INTERNALS


@pytest.mark.parametrize("name", ["result", "run", "parameters", "apply", "_x", "x_", "state", "forward", "lambda"])
def test_names_of_mixers_and_options_that_the_file_or_torch_has(name: str) -> None:
    """As the function, as a layer's method, and as an option beside an input of nearly that name."""
    x = torch.ones(1, 5, 2)
    for param in ("", "    param w[c] = 1\n"):
        factor = " * w" if param else ""
        text = f"mixer {name}(x[t,c]; n = 2) -> y[t,c]:\n{param}    y[t,c] = y[t-1] + x{factor}\n"
        module = seqdsl.load(text).module(**({"c": 2} if param else {}))
        _, state = module(x[:, :3], return_state=True)
        assert torch.equal(module.step(x[:, 3], state)[0], torch.full((1, 2), 4.0))
    text = f"mixer f(x[t,c]; {name} = 2) -> y[t,c]:\n    y[t,c] = sum[k: {name}] x[t-k]\n"
    assert torch.equal(seqdsl.load(text).module()(x)[0, 1:], torch.full((4, 2), 2.0))


def test_gradient_of_what_is_not_evaluated() -> None:
    """Rules 11 and 17: neither a guard nor a branch not taken lets nan or inf through, forwards or backwards."""
    system = load_system("""
mixer f(x[t], m[t]: bool) -> y[t]:
    index s over t
    a[t]   = where(x > 0, log(x) + sqrt(x) + 1 / x, x)
    b[t]   = sum[s | s < t and m[s]] exp(1000 * (x[t] - x[s]) * 0 + log(x[s]))
    p[t,s] = softmax[s | s < t](x[s])
    z[t]   = logsumexp[s | s < t and m[s]](x[s])
    y[t]   = a + b + sum[s] p * x[s] + where(z == -inf, 0, z)
""")
    x = torch.tensor([[-1.0, 0.0, 2.0, -3.0]], dtype=torch.float64, requires_grad=True)
    m = torch.tensor([[False, False, True, False]])
    y = module_of(system)(x, m)
    y.sum().backward()
    assert torch.isfinite(y).all() and torch.isfinite(x.grad).all()

"""Online normalisers: the same function as the literal softmax, at lengths of several blocks, forward and backward, in
memory that grows with the length; and mutants of the support function, which these comparisons must tell apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from seqdsl.forms import derive
from seqdsl.ir.interpreter import interpret
from seqdsl.ir.system import System
from seqdsl.semantics import load_system
from tests.backends.torch_module.harness import as_tuple, emit_module, gap, load_class, module_of

HEAD = "mixer m(q[t,h,d], k[s,h,d], v[s,h,e]) -> o[t,h,e]:\n    index s over t\n"
SCORES = "sum[d] q[t] * k / sqrt(|d|)"
MIXERS = {
    "causal": f"{HEAD}    p[t,s,h] = softmax[s | s <= t]({SCORES})\n    o[t,h,e] = sum[s] p * v",
    "window": f"{HEAD}    o[t,h,e] = sum[s] softmax[s | t - 7 < s <= t]({SCORES}) * v",
    "strict": f"{HEAD}    o[t,h,e] = sum[s] softmax[s | s < t]({SCORES}) * v",  # an empty guard at t = 0
    "alibi": f"{HEAD}    o[t,h,e] = sum[s] softmax[s | s <= t]({SCORES} - 2^(-8 * (h + 1) / |h|) * (t - s)) * v",
    "bias_table": "mixer m(q[t,h,d], k[s,h,d], v[s,h,e], b[t,s,h]) -> o[t,h,e]:\n    index s over t\n"
    f"    o[t,h,e] = sum[s] softmax[s | s <= t]({SCORES} + b) * v",
    "relative_bias": "mixer m(q[t,h,d], k[s,h,d], v[s,h,e], w[h,j]) -> o[t,h,e]:\n    index s over t\n"
    f"    o[t,h,e] = sum[s] softmax[s | s <= t]({SCORES} + w[h, min(t - s, |j| - 1)]) * v",
    "sink": "mixer m(q[t,h,d], k[s,h,d], v[s,h,e], sink[h]) -> o[t,h,e]:\n    index s over t\n"
    f"    a[t,s,h] = {SCORES}\n    z[t,h] = logaddexp(logsumexp[s | s < t](a), sink)\n"
    "    o[t,h,e] = sum[s | s < t] exp(a - z[t]) * v",
    "seen_sink": "mixer m(q[t,h,d], k[s,h,d], v[s,h,e], sink[h]) -> o[t,h,e]:\n    index s over t\n"
    f"    a[t,s,h] = {SCORES}\n    z[t,h] = logaddexp(logsumexp[s | s <= t](a), sink)\n"
    "    o[t,h,e] = sum[s | s <= t] exp(a - z[t]) * v",
    "grouped": "mixer m(q[t,h,d], k[s,g,d], v[s,g,e]) -> o[t,h,e]:\n    index s over t\n    of[h] = h * |g| // |h|\n"
    "    o[t,h,e] = sum[s] softmax[s | s <= t](sum[d] q[t] * k[s,of] / sqrt(|d|)) * v[s,of]",
    "cross": "mixer m(q[t,h,d], k[r,h,d], v[r,h,e]) -> o[t,h,e]:\n"
    "    o[t,h,e] = sum[r] softmax[r](sum[d] q * k / sqrt(|d|)) * v",
    "masked": "mixer m(q[t,h,d], k[s,h,d], v[s,h,e], keep[t,s]: bool) -> o[t,h,e]:\n    index s over t\n"
    f"    o[t,h,e] = sum[s] softmax[s | keep]({SCORES}) * v",
    "second_guard": f"{HEAD}    p[t,s,h] = softmax[s]({SCORES})\n    o[t,h,e] = sum[s | s <= t and s % 3 != 1] p * v / (t + 1)",
    "factor": f"{HEAD}    o[t,h,e] = sum[s] softmax[s | s <= t]({SCORES}) * cos(t - s) * v / 2",
    "two_readers": "mixer m(q[t,h,d], k[s,h,d], v[s,h,e], u[s,h]) -> o[t,h,e], y[t,h]:\n    index s over t\n"
    f"    p[t,s,h] = softmax[s | s <= t]({SCORES})\n    o[t,h,e] = sum[s] p * v\n    y[t,h] = -(sum[s] p * u)",
    "written_out": f"{HEAD}    w[t,s,h] = exp({SCORES})\n    o[t,h,e] = (sum[s | s <= t] w * v) / (sum[s | s <= t] w)",
    "selected": "mixer m(q[t,h,d], k[s,h,d], v[s,h,e], keep[t,n]: bool) -> o[t,h,e]:\n    index s over t\n"
    f"    o[t,h,e] = sum[s] softmax[s | s <= t and keep[t, s // 8]]({SCORES}) * v",
    "learned_bias": f"{HEAD}    param w[h, j: 9] = normal(0, 1)\n    param g[j] = normal(0, 1)\n"
    f"    o[t,h,e] = sum[s] softmax[s | s <= t]({SCORES} + w[h, min(t - s, 8)]) * g[(t + s) % 9] * v",
    "complex": "mixer m(q[t,h,d], k[s,h,d], v[s,h,e], w[h,d]: complex) -> o[t,h,e]:\n    index s over t\n"
    "    o[t,h,e] = sum[s] softmax[s | s <= t](sum[d] re(w * q[t] * k)) * v",
    "weighted": "mixer m(q[t,h,d], k[s,h,d], v[s,h,e], w[h,d]) -> o[t,h,e]:\n    index s over t\n"
    "    o[t,h,e] = sum[s] softmax[s | s <= t](sum[d] w * q[t] * k) * v",
    "joint": "mixer m(q[t,h,d], k[i,j,h,d], v[i,j,h,e]) -> o[t,h,e]:\n"
    "    o[t,h,e] = sum[i,j] softmax[i,j | (i + j) % 2 == 0](sum[d] q * k / sqrt(|d|)) * v",
    "log_under_guard": f"{HEAD}    o[t,h,e] = sum[s] softmax[s | s < t](log(t - s) + {SCORES}) * v",
}
LENGTHS = (0, 1, 63, 257, 600)


def system_of(name: str, form: str = "chunkwise") -> System:
    return derive(load_system(MIXERS[name]), form).system


def inputs_of(system: System, length: int, *, scale: float = 1.0, dtype: torch.dtype = torch.float64) -> list[Any]:
    generator = torch.Generator().manual_seed(length)
    sizes = {
        "t": length,
        "h": 2,
        "d": 3,
        "e": 2,
        "g": 1,
        "j": 5,
        "r": length + 9,
        "n": length // 8 + 1,
        "i": max(length // 8, 1),
    }
    found = []
    for tensor in system.inputs():
        shape = (2, *(sizes[system.axis(i)] for i in tensor.indices))
        x = torch.randn(shape, generator=generator, dtype=torch.float64)
        if tensor.dtype == "complex":
            x = torch.complex(x, x.flip(0))
        found.append(x > 0.5 if tensor.dtype == "bool" else (scale * x).to(x.dtype if x.is_complex() else dtype))
        found[-1].requires_grad_(tensor.dtype != "bool")
    return found


def interpreted(system: System, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    """The equations in float64, one sequence after another."""
    rows = []
    for k in range(inputs[0].shape[0]):
        given = {t.name: x[k].detach().numpy() for t, x in zip(system.inputs(), inputs, strict=True)}
        rows.append([torch.as_tensor(np.asarray(o)) for o in interpret(system, inputs=given)["outputs"].values()])
    return [torch.stack(columns) for columns in zip(*rows, strict=True)]


def gradients(outputs: Any, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    total = sum((torch.randn(y.shape, generator=generator, dtype=torch.float64) * y).sum() for y in as_tuple(outputs))
    given = [x for x in inputs if x.requires_grad]
    found = torch.autograd.grad(total, given, allow_unused=True)  # type: ignore[arg-type]
    return [torch.zeros_like(x) if g is None else g for x, g in zip(given, found, strict=True)]


def check(name: str, length: int, module: Any = None, *, scale: float = 1.0) -> None:
    """Values as the interpreter gives them, gradients as the literal module does."""
    literal = system_of(name, "recurrent")
    inputs = inputs_of(literal, length, scale=scale)
    outputs = (module or module_of(system_of(name), "chunkwise"))(*inputs)
    for found, wanted in zip(as_tuple(outputs), interpreted(literal, inputs), strict=True):
        assert gap(found, wanted) < 1e-9
    for found, wanted in zip(gradients(outputs, inputs), gradients(module_of(literal)(*inputs), inputs), strict=True):
        assert torch.isfinite(found).all()
        assert gap(found, wanted) < 1e-8 or (found - wanted).abs().max() < 1e-12


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", [n for n in MIXERS if n != "learned_bias"])  # parameters have a test of their own
def test_online_equals_the_equations(name: str, length: int) -> None:
    check(name, length)


@pytest.mark.parametrize("name", ["causal", "window", "strict", "sink", "alibi", "masked"])
def test_large_logits(name: str) -> None:
    """Scores up to 1e4: the running maximum keeps every exponential finite."""
    check(name, 300, scale=60.0)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize(
    "name", ["causal", "window", "strict", "sink", "bias_table", "relative_bias", "factor", "cross"]
)
def test_float32(name: str, length: int) -> None:
    literal = system_of(name, "recurrent")
    inputs = inputs_of(literal, length, dtype=torch.float32)
    outputs = module_of(system_of(name), "chunkwise")(*inputs)
    for found, wanted in zip(as_tuple(outputs), interpreted(literal, [x.double() for x in inputs]), strict=True):
        assert (found.double() - wanted).norm() <= 2e-6 * wanted.norm()
    exact = [x.detach().double().requires_grad_() for x in inputs]
    wanted_all = gradients(module_of(literal)(*exact), exact)
    for found, wanted in zip(gradients(outputs, inputs), wanted_all, strict=True):
        assert (found.double() - wanted).norm() <= 1e-5 * wanted.norm()


def test_rows_in_which_nothing_counts() -> None:
    """A mask that is empty in some rows, and scores that are -inf: 0, and gradients without NaN."""
    system = load_system(MIXERS["masked"])
    inputs = inputs_of(system, 300)
    inputs[3][:, 17:200] = False
    y = module_of(system_of("masked"), "chunkwise")(*inputs)
    assert (y[:, 17:200] == 0).all()
    assert all(torch.isfinite(g).all() for g in gradients(y, inputs))
    biased = inputs_of(load_system(MIXERS["bias_table"]), 300)
    with torch.no_grad():
        biased[3][:, 17:200] = -torch.inf
        biased[3][:, 250, ::2] = -torch.inf
    found = module_of(system_of("bias_table"), "chunkwise")(*biased)
    assert (found[:, 17:200] == 0).all()
    assert gap(found, module_of(system_of("bias_table", "recurrent"))(*biased)) < 1e-12
    assert all(torch.isfinite(g).all() for g in gradients(found, biased))


@pytest.mark.parametrize("name", ["causal", "window", "strict", "alibi", "sink", "grouped", "factor", "selected"])
def test_cached_steps_and_pieces(name: str) -> None:
    system = system_of(name)
    inputs = [x.detach() for x in inputs_of(system, 300)]
    module = module_of(system, "chunkwise")
    whole, final = module(*inputs, return_state=True)
    streamed = [system.stream in map(system.axis, t.indices) for t in system.inputs()]
    for cut in (1, 256, 299):
        first, second = ([x[:, part] if on else x for x, on in zip(inputs, streamed, strict=True)]
                         for part in (slice(cut), slice(cut, None)))  # fmt: skip
        head, state = module(*first, return_state=True)
        tail, last = module(*second, state=state, return_state=True)
        assert gap(torch.cat([head, tail], 1), whole) < 1e-9
        assert gap(last, final) < 1e-9
    y, _ = module.step(*(x[:, 299] if on else x for x, on in zip(inputs, streamed, strict=True)),
                       module(*(x[:, :299] if on else x for x, on in zip(inputs, streamed, strict=True)),
                              return_state=True)[1])  # fmt: skip
    assert gap(y, whole[:, 299]) < 1e-9


def test_gradients_of_parameters() -> None:
    """A parameter that the scores read, and one that scales the weights, are operands: nothing is closed over."""
    module = module_of(system_of("learned_bias"), "chunkwise", h=2)
    plain = module_of(system_of("learned_bias", "recurrent"), h=2)
    plain.load_state_dict(module.state_dict())
    inputs = inputs_of(system_of("learned_bias"), 300)
    for one in (module, plain):
        one(*inputs).square().sum().backward()
    for a, b in zip(module.parameters(), plain.parameters(), strict=True):
        assert b.grad.abs().max() > 1e-3
        assert gap(a.grad, b.grad) < 1e-9


def test_packed_sequences() -> None:
    module = module_of(system_of("causal"), "chunkwise")
    inputs = [x.detach()[:1] for x in inputs_of(system_of("causal"), 600)]
    packed = module(*inputs, cu_seqlens=torch.tensor([0, 1, 270, 600]))
    for a, b in ((0, 1), (1, 270), (270, 600)):
        assert gap(packed[:, a:b], module(*(x[:, a:b] for x in inputs))) < 1e-12


# Tracing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["causal", "seen_sink", "strict", "relative_bias", "factor", "joint"])
def test_double_backward_and_vmap(name: str) -> None:
    system = system_of(name)
    module, plain = module_of(system, "chunkwise"), module_of(system_of(name, "recurrent"))
    inputs = inputs_of(system, 6)
    assert torch.autograd.gradgradcheck(module, tuple(x[:1] for x in inputs), atol=1e-4)
    several = [torch.stack([x, 2 * x, x - 1]) for x in inputs]
    assert gap(torch.vmap(module)(*several), torch.stack([plain(*x) for x in zip(*several, strict=True)])) < 1e-9

    def loss(run: Any) -> Any:
        return torch.func.grad(lambda *x: run(*x).square().sum(), argnums=tuple(range(len(inputs))))(*inputs)

    for a, b in zip(loss(module), loss(plain), strict=True):
        assert gap(a, b) < 1e-9


@pytest.mark.parametrize("name", ["causal", "window", "sink", "relative_bias", "factor", "joint"])
def test_export_with_a_free_length(name: str) -> None:
    module = module_of(system_of(name), "chunkwise")
    inputs = tuple(x.detach() for x in inputs_of(system_of(name), 24))
    free = torch.export.Dim("T", min=2, max=4096)
    system = system_of(name)
    shapes = tuple({k + 1: free for k, i in enumerate(t.indices) if system.axis(i) == "t"} for t in system.inputs())
    exported = torch.export.export(module, inputs, dynamic_shapes=shapes).module()
    for length in (24, 300):
        given = [x.detach() for x in inputs_of(system, length)]
        if name == "joint":
            given = [given[0], *inputs[1:]]
        assert gap(exported(*given), module(*given)) < 1e-9


# Memory ----------------------------------------------------------------------------------------------------------


class Largest(TorchDispatchMode):
    """The number of entries of the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.entries = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            if isinstance(x, torch.Tensor):
                self.entries = max(self.entries, x.untyped_storage().size() // max(x.element_size(), 1))
        return result


def largest(name: str, length: int, form: str = "chunkwise") -> int:
    module, inputs = module_of(system_of(name, form), form), inputs_of(system_of(name), length)
    with Largest() as seen:
        y = module(*inputs)
        given = [x for x in inputs if x.requires_grad]
        torch.autograd.grad(sum(x.sum() for x in as_tuple(y)), given, allow_unused=True)  # type: ignore[arg-type]
    return seen.entries


@pytest.mark.parametrize(
    "name",
    [n for n in MIXERS if n not in ("bias_table", "masked", "learned_bias", "complex")],  # pairs as inputs; no einsum
)
def test_memory_grows_with_the_length(name: str) -> None:
    """No tensor, forward or backward, is larger than one block (256 x 256, of 2 x 2 heads) or than an input."""
    block = 4 * 256 * 256
    assert largest(name, 1100) <= 1.6 * block
    assert largest(name, 1100, "recurrent") >= 4 * 1100 * 600


class Calls(TorchDispatchMode):
    """How often an operation is called."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.count = name, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += str(func).startswith(f"aten.{self.name}.")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("name", "blocks"), [("second_guard", 25), ("alibi", 15), ("window", 8)])
def test_blocks_in_which_nothing_counts_are_left_out(name: str, blocks: int) -> None:
    """Five blocks of rows at T = 1100: all columns, those up to the last row, those of the last seven."""
    module, inputs = module_of(system_of(name), "chunkwise"), inputs_of(system_of(name), 1100)
    with torch.no_grad(), Calls("exp_") as seen:
        module(*inputs)
    assert seen.count == 2 * blocks


# Mutants ---------------------------------------------------------------------------------------------------------

MUTANTS = {
    "no rescaling": ("shrink = torch.exp_(before - shift)", "shrink = torch.ones_like(before)"),
    "the first maximum kept": ("higher = torch.maximum(before, scores.amax(-1, keepdim=True))",
                               "higher = torch.where(before == -torch.inf, scores.amax(-1, keepdim=True), before)"),
    "no delta": ("d_weights - delta[..., here, None]", "d_weights"),
    "weights that do not sum to 1": ("d_o = d_o / total.unsqueeze(-1)", "d_o = d_o * 1"),
    "a block of columns lost": ("range(low, high, max(width, 1))", "range(low, max(high - width, min(high, 1)), max(width, 1))"),
    "columns too few": ("min(high, last)", "min(high, last - 1)"),
    "rows unshifted": ("x.narrow(cut[0], row, rows)", "x.narrow(cut[0], 0, rows)"),
}  # fmt: skip


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_is_caught(mutant: str) -> None:
    old, new = MUTANTS[mutant]
    text = emit_module(system_of("alibi"), class_name="Mixer", form="chunkwise")
    assert text.count(old) == 1
    module = load_class(text.replace(old, new), "Mixer")()
    with pytest.raises((AssertionError, RuntimeError)):
        check("alibi", 600, module, scale=60.0 if mutant == "the first maximum kept" else 3.0)

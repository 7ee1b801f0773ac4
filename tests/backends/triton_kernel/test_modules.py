"""Modules of the triton backend on the CPU: their text, their files, and what happens without Triton."""

from __future__ import annotations

import ast
import builtins
import subprocess
import sys
from pathlib import Path
from symtable import SymbolTable, symtable
from typing import Any

import pytest
import torch

import seqdsl
from backends.triton_kernel.emit.write import FUNCTIONS
from backends.triton_kernel.kernels import kernels_text
from backends.triton_kernel.module import STAND_INS
from seqdsl.diagnostics import SeqError

UNNAMED = Path(__file__).resolve().parents[2] / "unnamed"

# Elementwise and matrix states, every placement of the decay, a layer with a feature map, feedback.
MIXERS = ["gla", "retention", "hgrn", "rwkv6", "gated_delta_rule", "delta_rule", "ema"]
STRANGE = """
mixer strange(x[t,h,d], y[t,h,e], w[t,h,d], c[t,e]) -> o[t,h,e], m[t,e]:
    S[t,h,d,e] = exp(-w * w) * S[t-1] + tanh(x) * y
    m[t,e]     = exp(-c * c) * m[t-1] + (sum[h] y)
    o[t,h,e]   = sum[d] (x + w) * S[t-1] + m
"""

COLUMNS = """
mixer columns(q[t,h,d], k[t,h,d], v[t,h,e], a[t,h,d], b[t,h,e], r[h,e], w[t,h]) -> o[t,h,e], p[t,h,e]:
    S[t,h,d,e] = exp(b) * S[t-1] + k * v
    Z[t,h,d,e] = exp(a * r * w) * Z[t-1] + k * v
    o[t,h,e]   = sum[d] q * S
    p[t,h,e]   = sum[d] q * Z
"""

# An index is computed by PyTorch where it is a number, and is a subscript beside it.
POSITIONS = """
mixer positions(x[t,c]) -> y[t,c]:
    S[t,c] = 0.5 * S[t-1] + x
    y[t,c] = S * sqrt(t + 1)
"""


def _inputs(program: seqdsl.api.Program, time: int = 70) -> list[torch.Tensor]:
    torch.manual_seed(0)
    system = program.system()
    sizes = {"t": time}
    shapes = [[2, *(sizes.setdefault(system.axis(i), 3) for i in x.indices)] for x in system.inputs()]
    return [-torch.rand(shape, dtype=torch.float64) for shape in shapes]


WRITTEN = [STRANGE, COLUMNS, POSITIONS]


@pytest.mark.parametrize("source", [*MIXERS, *WRITTEN], ids=lambda s: s.split("(")[0].replace("mixer", "").strip())
def test_a_module_is_the_torch_module_on_the_cpu(source: str) -> None:
    program = seqdsl.load(source)
    inputs = _inputs(program)
    results = []
    for backend in ("torch", "triton"):
        module = program.module(backend=backend)
        given = [x.clone().requires_grad_() for x in inputs]
        found = module(*given)
        outputs = found if isinstance(found, tuple) else (found,)
        results.append([*outputs, *torch.autograd.grad(sum(y.square().sum() for y in outputs), given)])
    for plain, kernels in zip(*results, strict=True):
        if source == COLUMNS:  # a product of three factors, in another order
            torch.testing.assert_close(plain, kernels, rtol=1e-13, atol=1e-13)
        else:
            assert torch.equal(plain, kernels)


def test_sixteen_bit_inputs_are_not_cast_before_the_kernel() -> None:
    text = seqdsl.load("gla").source(backend="triton")
    for name in "qkvg":
        assert f"{name} = _input({name}, B, {name}.dtype)" in text
    assert "scale=1.0 / math.sqrt(D)" in text and "dtype=out_dtype" in text
    bonus = seqdsl.load("rwkv6").source(backend="triton")  # r, k and v are read outside the kernel, too; w is not
    assert "k = _input(k, B, dtype)" in bonus and "w = _input(w, B, w.dtype)" in bonus
    assert " dtype=out_dtype" not in bonus  # something is added to what is read


def test_factors_of_a_step_do_not_widen_what_they_multiply() -> None:
    text = seqdsl.load("gated_delta_rule").source(backend="triton")
    for name in "qkva":
        assert f"{name} = _input({name}, B, {name}.dtype)" in text
    assert "fused_rows(k, (-beta)[..., None])" in text and "fused_rows(v, beta[..., None])" in text
    assert "dots=out_dtype, dtype=out_dtype" in text  # what is read is an output, and nothing else


def test_a_decay_of_two_factors_is_not_multiplied_out() -> None:
    text = seqdsl.load(COLUMNS).source(backend="triton")
    assert text.count(" = fused_read(") == 2
    assert "times=r[:, None, :, None, :]" in text and "b = _input(b, B, b.dtype)" in text


def test_the_files_stand_alone(tmp_path: Path) -> None:
    paths = seqdsl.compile("gla", tmp_path, backend="triton")
    assert sorted(p.name for p in paths) == ["GLA_layer.py", "gla.py", "gla_kernels.py", "gla_layer_kernels.py"]
    for path in paths:
        modules = {n.module or "" for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ImportFrom)}
        assert not any(m.startswith(("seqdsl", "backends")) for m in modules)
    code = ("import torch, gla\nx = torch.randn(1, 70, 2, 4)\nprint(tuple(gla.Gla()(x, x, x, -x * x).shape))\n"
            "import importlib; layer = importlib.import_module('GLA_layer')")
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.stdout == "(1, 70, 2, 4)\n", done.stderr


@pytest.mark.parametrize("function", sorted({*FUNCTIONS, *(x.name for x in STAND_INS.values())}))
def test_every_name_in_a_file_of_kernels_is_known(function: str) -> None:
    table = symtable(kernels_text("some", frozenset({function})), "some.py", "exec")
    known = {x.get_name() for x in table.get_symbols() if x.is_assigned() or x.is_imported() or x.is_namespace()}
    assert known and _from_outside(table) <= known | vars(builtins).keys()


def _from_outside(table: SymbolTable) -> set[str]:
    """Names that functions of a file, and functions in them, take from the file."""
    own = {x.get_name() for x in table.get_symbols() if x.is_global() and x.is_referenced()}
    return own.union(*map(_from_outside, table.get_children()))


def test_the_text_is_the_same_every_time() -> None:
    backend = seqdsl.api.load_backend("triton")
    texts = [seqdsl.load("gla").source(backend="triton") for _ in range(2)]
    assert texts[0] == texts[1] and backend.companions(texts[0]) == backend.companions(texts[1])


def test_what_no_kernel_covers_stays_in_pytorch() -> None:
    text = seqdsl.load("mixer dense(x[t,c], W[c,d]) -> y[t,d]:\n    y[t,d] = sum[c] x * W\n").source(backend="triton")
    assert seqdsl.api.load_backend("triton").companions(text) == {} and "triton" not in text


def test_it_is_said_what_is_stepped_in_pytorch() -> None:
    """Decays of both axes with feedback of two ranks: each form says which of its parts have kernels, and which have none."""
    program = seqdsl.load("mixer both(q[t,h,d], k[t,h,d], v[t,h,e], g[t,h,d], f[t,h,e], p[t,j,h,d], w[t,j,h,d]) -> o[t,h,e]:\n"
                          "    P[t,h,d,e] = exp(g + f) * S[t-1]\n"
                          "    S[t,h,d,e] = P - (sum[j] w * (sum[d] p * P)) + k * v\n    o[t,h,e]   = sum[d] q * S\n")
    found = {form: seqdsl.api.load_backend("triton").explained(program.derived(form).system, form)
             for form in ("recurrent", "chunkwise")}  # fmt: skip
    assert found["recurrent"][:2] == [f"`{x}` is stepped one position after another in PyTorch" for x in "PS"]
    assert found["chunkwise"][:2] == ["kernels of `fused_read`", "kernels of `fused_scan`"]
    assert not any("stepped" in line for line in found["chunkwise"])


def test_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    for name in [n for n in sys.modules if n.startswith("seqdsl.backends.triton_kernel")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(SeqError) as caught:
        seqdsl.load("gla").module(backend="triton")
    assert caught.value.code == "backend-not-available" and "triton" in str(caught.value)


SHAPES = {"q": "thd", "k": "thd", "v": "the", "g": "thd", "beta": "th", "a": "th", "x": "td", "f": "td", "dt": "td",
          "A": "dn", "B": "tn", "C": "tn", "skip": "d"}  # fmt: skip


def check_packed(module: Any, name: str, inputs: list[torch.Tensor]) -> None:
    """All sequences of 70 positions in one call of the module's function, and one after another."""
    ends = torch.tensor([0, 5, 5, 33, 70])
    together = getattr(sys.modules[type(module).__module__], name)(*inputs, cu_seqlens=ends)  # as a GPU does it
    apart = module(*inputs, cu_seqlens=ends)
    weights = torch.randn_like(apart)
    found, wanted = ([y, *torch.autograd.grad(y, inputs, weights)] for y in (together, apart))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["gla", "retention", "gated_delta_rule", "hgrn", "selective_scan"])
def test_packed_sequences_in_one_call_are_the_sequences_one_by_one(name: str) -> None:
    program = seqdsl.load("mamba", name) if name == "selective_scan" else seqdsl.load(name)
    module = program.module(backend="triton")
    sizes = {"t": 70, "h": 2, "d": 4, "e": 3, "n": 3}
    torch.manual_seed(0)
    shapes = [SHAPES[x.name].replace("h", "") if name == "hgrn" else SHAPES[x.name] for x in program.system().inputs()]
    shapes = ["td"] * 3 if name == "hgrn" else shapes
    inputs = [-torch.rand(1, *(sizes[i] for i in s), dtype=torch.float64).requires_grad_() for s in shapes]
    check_packed(module, name, inputs)


@pytest.mark.parametrize(("name", "form"), [("depth_of_decays", "scan"), ("deep_erase", "chunkwise")])
def test_packed_sequences_of_a_stack_in_one_call(name: str, form: str) -> None:
    program = seqdsl.load(UNNAMED / f"{name}.seq")
    module = program.module(form, "triton")
    sizes = {"l": 2, "t": 70, "d": 4, "e": 3}
    torch.manual_seed(0)
    shapes = [x.indices for x in program.system().inputs()]
    inputs = [-torch.rand(1, *(sizes[i] for i in s), dtype=torch.float64).requires_grad_() for s in shapes]
    check_packed(module, name, inputs)


def test_what_reads_its_past_otherwise_is_not_packed_in_one_call() -> None:
    text = seqdsl.load("gru").source(backend="triton")
    assert "_packed_together" not in text and "_packed_with_states" not in text


def _empty(program: Any, time: int, batch: int) -> torch.Tensor:
    x = torch.zeros(batch, time, 2, 4)
    found: torch.Tensor = program.module(backend="triton")(x, x, x, x)
    return found


def test_nothing_to_do() -> None:
    assert _empty(seqdsl.load("gla"), 0, 2).shape == (2, 0, 2, 4)
    assert _empty(seqdsl.load("gla"), 3, 0).shape == (0, 3, 2, 4)

"""The kernels on a GPU: numerics in bfloat16 and float32, long sequences, the same bits in every run."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import seqdsl
from tests.backends.triton_kernel import packing, reads, recurrences, scans, sequences, steps
from tests.backends.triton_kernel.cases import DTYPES, Attend, Case, Read, Rows, Scan, Solve, SolveRead, compare
from tests.backends.triton_kernel.counts import MIXERS as SOURCES
from tests.backends.triton_kernel.sequence_cases import HALVES, WHOLE

pytestmark = pytest.mark.gpu
DEVICE = "cuda"

CASES: dict[str, Attend] = {
    "a decay for each key": Attend(2, 300, 3, 100, 70, gate=100),
    "a decay for each key, K = V = 128": Attend(1, 1024, 2, 128, 128, gate=128),
    "a decay for each key, K = 256": Attend(1, 200, 1, 256, 200, gate=256, start=False),
    "a decay for each head": Attend(2, 300, 3, 100, 70, gate=1),
    "a decay for each head, K = V = 256": Attend(1, 500, 2, 256, 256, gate=1),
    "a weak decay for each key": Attend(1, 300, 2, 128, 64, gate=128, weak=True),
    "no decay, few rows": Attend(1, 7, 2, 16, 16, gate=0),
    "one position": Attend(3, 1, 2, 32, 48, gate=1),
    "plain decays, read before the step": Attend(1, 130, 2, 64, 64, gate=64, plain=True, options={"strict": True}),
    "plain decays for each head, scaled": Attend(1, 130, 2, 64, 64, gate=1, plain=True, options={"scale": 0.3}),
    "more heads than one axis of a grid has": Attend(2, 3, 40000, 16, 16, gate=1),
    "packed with states, a decay for each key": Attend(
        1, 2000, 3, 128, 100, gate=128, begins=(0, 300, 300, 1024, 1030), states=True),
    "packed with states, a decay for each head": Attend(1, 2000, 3, 128, 128, gate=1, begins=(64, 300), states=True),
    "64k positions, a decay for each key": Attend(1, 65536, 1, 64, 64, gate=64),
    "64k positions, a decay for each head": Attend(1, 65536, 2, 64, 64, gate=1),
}
SOLVES: dict[str, Solve] = {
    "no decay": Solve(2, 300, 3, 100, 70, gate=0),
    "a decay for each head": Solve(1, 1024, 2, 128, 128, gate=1),
    "a decay for each head, reads before it": Solve(2, 300, 3, 64, 100, gate=1, after=False, start=False),
    "a decay for each key": Solve(1, 1024, 2, 128, 128, gate=128),
    "a weak decay for each key": Solve(1, 300, 2, 100, 64, gate=100, weak=True),
    "a decay for each key, reads before it": Solve(1, 200, 2, 64, 64, gate=64, after=False),
    "three ranks": Solve(1, 150, 2, 64, 64, gate=64, ranks=3),
    "plain decays for each head, two ranks": Solve(1, 150, 2, 64, 64, gate=1, ranks=2, plain=True, after=False),
    "more heads than one axis of a grid has": Solve(2, 3, 40000, 16, 16, gate=16),
    "packed with states": Solve(1, 700, 3, 128, 128, gate=1, begins=(0, 300, 300, 650), states=True),
    "and read, packed with states": SolveRead(1, 700, 3, 100, 70, gate=100, begins=(64, 300), states=True),
    "64k positions": Solve(1, 65536, 1, 64, 64, gate=1),
    "and read, no decay": SolveRead(2, 100, 3, 100, 70, gate=0),  # nothing forgets what 16 bits have rounded
    "and read, a decay for each head": SolveRead(1, 1024, 2, 128, 128, gate=1, options={"scale": 0.3}),
    "and read, a decay for each key": SolveRead(1, 1024, 2, 128, 128, gate=128),
    "and read, a weak decay for each key": SolveRead(1, 300, 2, 100, 64, gate=100, weak=True, options={"scale": 0.3}),
    "and read before plain decays": SolveRead(1, 150, 2, 64, 64, gate=1, after=False, plain=True, options={"strict": True}),
    "one position": Solve(3, 1, 2, 32, 48, gate=1),
}
SLABS: dict[str, Solve] = {
    "136 keys, a decay for each head": Solve(2, 300, 3, 136, 70, gate=1, after=False, start=False),
    "200 keys, three ranks": Solve(1, 150, 2, 200, 64, gate=200, ranks=3),
    "256 keys, a decay for each": Solve(1, 200, 1, 256, 200, gate=256),
    "320 keys, a weak decay for each": Solve(1, 1024, 2, 320, 128, gate=320, weak=True),
    "512 keys, a decay for each head": Solve(1, 1024, 16, 512, 64, gate=1),
    "256 keys, and read, no decay": SolveRead(2, 100, 3, 256, 70, gate=0),
    "256 keys, and read, packed with states": SolveRead(1, 300, 2, 256, 128, gate=1, begins=(64, 70, 70), states=True),
    "K = V = 256, and read": SolveRead(1, 1024, 16, 256, 256, gate=1),
    "256 keys, and read, a decay for each": SolveRead(1, 300, 2, 256, 128, gate=256, options={"scale": 0.3}),
    "512 keys, and read, a decay for each": SolveRead(1, 300, 2, 512, 64, gate=512),
    "520 keys, and read strictly, plain decays": SolveRead(1, 150, 2, 520, 64, gate=1, plain=True, options={"strict": True}),
}
READS: dict[str, Case] = {
    "any decay": Read(2, 300, 3, 20, 40, (2, 300, 3, 20, 40)),
    "any decay, strictly": Read(1, 130, 2, 64, 128, (1, 130, 2, 64, 128), strict=True, start=False),
    "a decay for each column": Read(1, 1000, 2, 128, 128, (1, 1000, 2, 1, 128)),
    "mamba": Read(2, 3000, 1, 16, 500, (2, 3000, 1, 1, 500), (1, 1, 1, 16, 500)),
    "plain decays": Read(1, 70, 2, 64, 48, (1, 70, 2, 64, 48), plain=True),
    "more heads than one axis of a grid has": Read(2, 3, 40000, 4, 4, (1, 3, 40000, 4, 4)),
    "one position": Read(3, 1, 2, 16, 48, (3, 1, 2, 1, 48)),
    "packed with states": Read(1, 700, 2, 16, 200, (1, 700, 2, 1, 200), begins=(0, 300, 300, 650), states=True),
    "64k positions": Read(1, 65536, 1, 16, 64, (1, 65536, 1, 1, 64)),
}
SCANS: dict[str, Case] = {
    "scan": Scan((2, 1000, 3, 50), (2, 1000, 3, 50)),
    "scan backwards": Scan((2, 1000, 3, 50), (1, 1000, 3, 1), reverse=True),
    "scan with one decay": Scan((3, 300, 70), (1, 1, 70), plain=True),
    "scan of 64k positions": Scan((1, 65536, 64), (1, 65536, 64)),
    "scan of many sequences": Scan((70000, 3, 4), (1, 3, 4)),
    "scan of many lanes": Scan((2, 100, 40000), (1, 100, 40000), start=False),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_linear_attention(name: str, dtype: str) -> None:
    _check(CASES[name], dtype, outputs=2, gate=3)


@pytest.mark.parametrize("name", SOLVES)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_feedback(name: str, dtype: str) -> None:
    read = isinstance(SOLVES[name], SolveRead)
    _check(SOLVES[name], dtype, outputs=3 if read else 1, gate=4 if read else 3)


@pytest.mark.parametrize("name", SLABS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_feedback_of_many_keys(name: str, dtype: str) -> None:
    read = isinstance(SLABS[name], SolveRead)
    _check(SLABS[name], dtype, outputs=3 if read else 1, gate=4 if read else 3)


def _check(case: Attend | Solve, dtype: str, *, outputs: int, gate: int) -> None:
    """Outputs, then gradients of the inputs, of which number `gate` is the decays, if there are any."""
    errors = compare(case, DTYPES[dtype], DEVICE)
    found, rest = errors[:outputs], errors[outputs:]
    if dtype == "float32":
        assert max(found) < 2e-6 and max(rest) < 1e-5, errors
    else:
        gates = [rest.pop(gate)] if case.gate else []
        assert max(found) < 5e-3 and max(rest) < 1e-2 and max(gates, default=0.0) < 2e-2, errors


ROWS: dict[str, Case] = {
    "a factor for each row": Rows((2, 300, 3, 100), (2, 300, 3, 1)),
    "a factor for some rows": Rows((2, 300, 3, 70), (1, 300, 1, 1)),
}


@pytest.mark.parametrize("name", READS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_read(name: str, dtype: str) -> None:
    errors = compare(READS[name], DTYPES[dtype], DEVICE)
    if dtype == "float32":
        assert max(errors[:2]) < 2e-6 and max(errors[2:]) < 1e-5, errors
    else:
        assert max(errors[:2]) < 5e-3 and max(errors[2:5]) < 1e-2 and max(errors[5:]) < 2e-2, errors


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rows(name: str, dtype: str) -> None:
    errors = compare(ROWS[name], DTYPES[dtype], DEVICE)
    assert max(errors) < (2e-6 if dtype == "float32" else 5e-3), errors


@pytest.mark.parametrize("name", SCANS)
def test_scan(name: str) -> None:
    errors = compare(SCANS[name], torch.float32, DEVICE)
    assert errors[0] < 2e-6 and max(errors[1:]) < 1e-5, errors


def _gradients(module: Any, inputs: list[torch.Tensor]) -> list[torch.Tensor]:
    given = [x.detach().requires_grad_() for x in inputs]
    y, state = module(*given, return_state=True)
    torch.manual_seed(1)
    last = state["S"]
    weights = [torch.randn(x.shape, device=DEVICE).to(x.dtype) for x in (y, last)]  # the same numbers in every precision
    return [y, last, *torch.autograd.grad([y, last], given, weights)]


MIXERS = {"retention": "", "simple_gla": "head", "gla": "key", "rwkv6": "key", "column_decay": "key", "hgrn": "lane",
          "delta_rule": "", "gated_delta_rule": "head", "kda": "key"}


def _inputs(name: str, dtype: torch.dtype, time: int = 333) -> list[torch.Tensor]:
    torch.manual_seed(0)
    shape = (2, time, 3, 48)
    if name == "hgrn":
        x, f, g = (torch.randn(2, time, 144, device=DEVICE) for _ in range(3))
        return [x.to(dtype), f.sigmoid().to(dtype), g.to(dtype)]
    found = [torch.randn(shape, device=DEVICE).to(dtype) for _ in range(3)]
    if name.endswith("delta_rule") or name == "kda":
        found[1] = torch.nn.functional.normalize(found[1], dim=-1)
        found.append(torch.rand(shape[:3], device=DEVICE).to(dtype))
    if MIXERS[name]:
        gates = torch.randn(shape if MIXERS[name] == "key" else shape[:3], device=DEVICE)
        found.append(torch.nn.functional.logsigmoid(gates).to(dtype))
    if name == "rwkv6":
        found.append(torch.randn(1, 3, 48, device=DEVICE).to(dtype))
    return found


@pytest.mark.parametrize("name", MIXERS)
def test_modules_agree_with_float64_and_with_themselves(name: str) -> None:
    program = seqdsl.load(SOURCES.get(name, name))
    module, plain = program.module(backend="triton"), program.module()
    inputs = _inputs(name, torch.bfloat16)
    runs = [_gradients(module, inputs) for _ in range(3)]
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(runs[0], run, strict=True))
    exact = _gradients(plain, [x.double() for x in inputs])
    for found, wanted in zip(runs[0], exact, strict=True):
        assert (found.double() - wanted).norm() < 2e-2 * wanted.norm()


@pytest.mark.parametrize("name", ["gla", "simple_gla", "column_decay", "hgrn", "gated_delta_rule"])
def test_a_packed_batch_is_its_sequences(name: str) -> None:
    module = seqdsl.load(SOURCES.get(name, name)).module(backend="triton")
    inputs = [x[:1] for x in _inputs(name, torch.float32)]
    ends = torch.tensor([0, 5, 5, 170, 333], device=DEVICE)
    module(*inputs, cu_seqlens=ends)
    torch.cuda.set_sync_debug_mode("error")  # nothing waits for the device, from here
    packed = module(*inputs, cu_seqlens=ends)
    torch.cuda.set_sync_debug_mode("default")
    pieces = torch.cat([module(*(x[:, a:b] for x in inputs)) for a, b in ((0, 5), (5, 170), (170, 333))], 1)
    assert (packed - pieces).norm() < 2e-6 * pieces.norm()


SOFTMAX = {
    **{name: reads.READS[name] for name in (
        "full", "one position", "window", "window and first", "softcap", "learned slopes", "forgetting", "a bias for each pair",
        "documents and padding", "a factor of the weights", "a sink in the denominator", "groups", "two products", "no product")},
    "K = V = 128": reads.Read(reads.READS["causal"].source, {"t": 1000, "h": 3, "d": 128, "e": 128}),
    "K = 256, V = 200": reads.Read(reads.READS["causal"].source, {"t": 300, "h": 2, "d": 256, "e": 200}),
    "64k positions in a window": reads.Read(reads.READS["window"].source, {"t": 65536, "h": 1, "d": 64, "e": 64}),
}  # fmt: skip


@pytest.mark.parametrize("name", SOFTMAX)
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_normalised_reads(name: str, dtype: str) -> None:
    if name == "no product" and dtype == "bfloat16":
        pytest.skip("the gradient of what shifts a whole row is a difference of nearly equal sums: not in 16 bits")
    errors = reads.compare(SOFTMAX[name], DTYPES[dtype], DEVICE)
    if dtype == "float32":
        assert errors[0] < 2e-6 and max(errors[1:]) < 1e-5, errors
    else:
        assert errors[0] < 5e-3 and max(errors[1:4]) < 1e-2 and max(errors[4:], default=0.0) < 2e-2, errors


def test_normalised_reads_give_the_same_bits_in_every_run() -> None:
    read = SOFTMAX["K = V = 128"]
    module, _ = reads.built(read)
    given = [x.to(DEVICE) for x in reads.inputs(read, torch.bfloat16)]
    runs = [reads.run(module, given) for _ in range(3)]
    assert all(torch.equal(a, b) for other in runs[1:] for a, b in zip(runs[0], other, strict=True))


@pytest.mark.parametrize("name", steps.STEPS)
def test_steps(name: str) -> None:
    found = steps.compare(steps.STEPS[name], torch.float32, device=DEVICE)
    assert all(e < 1e-5 for e in found), found


@pytest.mark.parametrize("name", ["gla 128", "gla 256", "gated delta rule 128", "rwkv7 64", "mamba 16", "erasing along values 128"])
def test_steps_at_the_sizes_of_models(name: str) -> None:
    case, sizes = steps.AHEAD[name]
    large = steps.Stepped(case.source, sizes, case.mixer, time=3, scale=0.1)
    for label, tolerance in (("float32", 1e-5), ("bfloat16", 1e-2)):
        found = steps.compare(large, DTYPES[label], device=DEVICE)
        assert all(e < tolerance for e in found), found


@pytest.mark.parametrize("name", WHOLE)
def test_groups_over_sequences(name: str) -> None:
    for label in ("float32", "bfloat16") if name in HALVES else ("float32",):
        found = sequences.compare(WHOLE[name], DTYPES[label], device=DEVICE)
        assert all(e < (1e-2 if label == "bfloat16" else 1e-5) for e in found), (name, label, found)


@pytest.mark.parametrize("name", recurrences.WALKS)
def test_recurrences(name: str) -> None:
    found = recurrences.compare(recurrences.WALKS[name], torch.float32, device=DEVICE)
    assert all(e < 1e-5 for e in found), found


@pytest.mark.parametrize("name", scans.WALKS)
def test_scans_with_their_coefficients(name: str) -> None:
    for label in scans.PRECISIONS.get(name, ("float32",)):
        found = recurrences.compare(scans.WALKS[name], DTYPES[label], device=DEVICE)
        assert all(e < (1e-5 if label == "float32" else 1e-2) for e in found), (label, found)


@pytest.mark.parametrize("name", [*packing.CASES, *scans.PACKED])
def test_packed_sequences_of_every_kind(name: str) -> None:
    found = packing.errors((packing.CASES | scans.PACKED)[name], device=DEVICE)
    assert all(e < 1e-5 for e in found), found

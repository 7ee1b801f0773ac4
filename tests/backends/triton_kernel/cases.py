"""Calls of the kernels' functions against their torch counterparts in float64: values and every gradient.

Run as a program, under Triton's interpreter, it prints one JSON object per case (of those whose name has one of its
arguments); `compare` is for a GPU as well. Every input lies between NaNs, and what kernels leave unwritten is NaN.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from backends.torch_module.support.affine_scan import affine_scan
from backends.torch_module.support.chunk_linear_attention import chunk_linear_attention
from backends.torch_module.support.chunk_solve import chunk_solve
from backends.torch_module.support.chunk_solve_read import chunk_solve_read
from backends.torch_module.support.segmented_read import segmented_read
from tests.backends.triton_kernel.processes import interpret_in
from tests.support.loops import relative

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Attend:
    """Linear attention: `gate` is the length of the decay's last axis, 0 for none; `plain` decays are any numbers, `weak`
    ones leave most of the state over a chunk, so that small blocks are large."""

    batch: int
    time: int
    heads: int
    keys: int
    values: int
    gate: int
    start: bool = True
    plain: bool = False
    weak: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    constant: bool = False  # the same decay at all positions
    begins: tuple[int, ...] = ()  # positions where sequences begin that are packed into one

    def inputs(self) -> list[Tensor | None]:
        lead = (self.batch, self.time, self.heads)
        q, k, v = torch.randn(*lead, self.keys), torch.randn(*lead, self.keys), torch.randn(*lead, self.values)
        decay = _decays((*lead, self.gate), self.plain) if self.gate else None
        if self.constant and decay is not None:
            decay = decay[:1, :1]
        if self.weak:  # each head weaker than the one before: from blocks of a few rows to whole chunks
            decay = -torch.rand(*lead, self.gate) * 2.0 ** -(3.0 * torch.arange(self.heads)[:, None] + 1)
        return [q, k, v, decay, torch.randn(self.batch, self.heads, self.keys, self.values) if self.start else None]

    def fast(self) -> Callable[..., Any]:
        from backends.triton_kernel.support.fused_linear_attention import fused_linear_attention

        return partial(fused_linear_attention, log=not self.plain, first=_first(self), **self.options)

    def slow(self, q: Tensor, *rest: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.begins:
            return _one_by_one(self, q, *rest)
        options = {k: v for k, v in self.options.items() if k != "scale"}
        result: tuple[Tensor, Tensor] = chunk_linear_attention(
            q * self.options.get("scale", 1.0), *rest, log=not self.plain, **options
        )
        return result


@dataclass(frozen=True)
class Scan:
    """An elementwise scan of lanes; the decay broadcasts to them."""

    shape: tuple[int, ...]
    decay: tuple[int, ...]
    start: bool = True
    plain: bool = False
    reverse: bool = False

    def inputs(self) -> list[Tensor | None]:
        start = torch.randn(self.shape[0], *self.shape[2:]) if self.start else None
        return [_decays(self.decay, self.plain), torch.randn(self.shape), start]

    def fast(self) -> Callable[..., Any]:
        from backends.triton_kernel.support.fused_scan import fused_scan

        return partial(fused_scan, log=not self.plain, reverse=self.reverse)

    def slow(self, *inputs: Tensor | None) -> Tensor:
        found: Tensor = affine_scan(*inputs, log=not self.plain, reverse=self.reverse)  # type: ignore[arg-type]
        return found


@dataclass(frozen=True)
class Solve:
    """Feedback through a state, of any number of ranks; `gate` as for `Attend`."""

    batch: int
    time: int
    heads: int
    keys: int
    values: int
    gate: int
    ranks: int = 1
    after: bool = True
    start: bool = True
    plain: bool = False
    weak: bool = False
    begins: tuple[int, ...] = ()

    def inputs(self) -> list[Tensor | None]:
        lead = (self.batch, self.time, self.heads)
        u = torch.nn.functional.normalize(torch.randn(*lead, self.ranks, self.keys), dim=-1)
        w = torch.nn.functional.normalize(u + 0.3 * torch.randn_like(u), dim=-1) * -2 * torch.rand(*lead, self.ranks, 1)
        decay = _decays((*lead, self.gate), self.plain) if self.gate else None
        if self.weak:
            decay = -torch.rand(*lead, self.gate) * 2.0 ** -(3.0 * torch.arange(self.heads)[:, None] + 1)
        start = torch.randn(self.batch, self.heads, self.keys, self.values) if self.start else None
        return [w / self.ranks, u, torch.randn(*lead, self.ranks, self.values), decay, start]

    def fast(self) -> Callable[..., Any]:
        from backends.triton_kernel.support.fused_solve import fused_solve

        return partial(fused_solve, log=not self.plain, after=self.after, first=_first(self))

    def slow(self, *inputs: Tensor | None) -> Any:
        if self.begins:
            return _one_by_one(self, *inputs)
        found: Tensor = chunk_solve(*inputs, log=not self.plain, after=self.after)  # type: ignore[arg-type]
        return found


@dataclass(frozen=True)
class SolveRead(Solve):
    """The same of one rank, with reads of the state."""

    options: dict[str, Any] = field(default_factory=dict)

    def inputs(self) -> list[Tensor | None]:
        w, u, x, *rest = super().inputs()
        assert w is not None and u is not None and x is not None
        return [w[:, :, :, 0], u[:, :, :, 0], x[:, :, :, 0], torch.randn(self.batch, self.time, self.heads, self.keys), *rest]

    def fast(self) -> Callable[..., Any]:
        from backends.triton_kernel.support.fused_solve_read import fused_solve_read

        return partial(fused_solve_read, log=not self.plain, after=self.after, first=_first(self), **self.options)

    def slow(self, w: Tensor, u: Tensor, x: Tensor, q: Tensor, *rest: Tensor | None) -> Any:  # type: ignore[override]
        if self.begins:
            return _one_by_one(self, w, u, x, q, *rest)
        options = {k: v for k, v in self.options.items() if k != "scale"}
        found: tuple[Tensor, ...] = chunk_solve_read(
            w, u, x, q * self.options.get("scale", 1.0), *rest, log=not self.plain, after=self.after, **options
        )
        return found


@dataclass(frozen=True)
class Read:
    """A matrix state with any decay: the shapes of its one or two factors, [B, T, H, K, V]."""

    batch: int
    time: int
    heads: int
    keys: int
    values: int
    decay: tuple[int, ...]
    times: tuple[int, ...] = ()
    start: bool = True
    plain: bool = False
    strict: bool = False

    def inputs(self) -> list[Tensor | None]:
        lead = (self.batch, self.time, self.heads)
        q, k, v = torch.randn(*lead, self.keys), torch.randn(*lead, self.keys), torch.randn(*lead, self.values)
        start = torch.randn(self.batch, self.heads, self.keys, self.values) if self.start else None
        decay, times = _decays(self.decay, self.plain), torch.rand(self.times) if self.times else None
        if times is not None:  # the gradient of a factor of -inf is not defined
            decay = decay.nan_to_num(neginf=-50.0)
        return [q, k, v, decay, start, times]

    def fast(self) -> Callable[..., Any]:
        from backends.triton_kernel.support.fused_read import fused_read

        return lambda *given: fused_read(*given[:5], log=not self.plain, strict=self.strict, times=given[5])

    def slow(self, q: Tensor, k: Tensor, v: Tensor, decay: Tensor, *rest: Tensor | None) -> tuple[Tensor, Tensor]:
        start, times = rest
        whole = decay if times is None else decay * times
        found: tuple[Tensor, Tensor] = segmented_read(q, k, v, whole, start, log=not self.plain, strict=self.strict)
        return found


@dataclass(frozen=True)
class Rows:
    """A factor for each row."""

    shape: tuple[int, ...]
    by: tuple[int, ...]

    def inputs(self) -> list[Tensor | None]:
        return [torch.randn(self.shape), torch.randn(self.by)]

    def fast(self) -> Callable[..., Any]:
        from backends.triton_kernel.support.fused_rows import fused_rows

        return fused_rows

    def slow(self, x: Tensor, by: Tensor) -> Tensor:
        return x * by


Case = Attend | Scan | Solve | Read | Rows


def _first(case: Attend | Solve) -> Tensor | None:
    """Where sequences begin that are packed into one, if there are any."""
    return torch.isin(torch.arange(case.time), torch.tensor(case.begins)) if case.begins else None


def _one_by_one(case: Attend | Solve, *given: Tensor | None) -> Any:
    """Sequences that are packed, each on its own; the first state is before the first of them, the final one behind the last."""
    *rows, start = given
    alone, found = replace(case, begins=()), []
    for a, b in pairwise((0, *case.begins, case.time)):
        found.append(alone.slow(*(None if x is None else x[:, a:b] for x in rows), start))  # type: ignore[arg-type]
        start = None
    if isinstance(found[0], Tensor):
        return torch.cat(found, 1)
    first, last, *rest = zip(*found, strict=True)
    return torch.cat(first, 1), last[-1], *(torch.cat(x, 1) for x in rest)


def _decays(shape: tuple[int, ...], plain: bool) -> Tensor:
    """Logarithms 0, -1e-6, -20, -200, -inf and ordinary ones; or plain decays of both signs, some 0."""
    if plain:
        a = torch.rand(shape) * 1.9 - 0.95
        return torch.where(torch.rand(shape) < 0.05, 0.0, a)
    choices = torch.tensor([0.0, -1e-6, -20.0, -200.0, -torch.inf])
    picked = choices[torch.randint(5, shape)]
    return torch.where(torch.rand(shape) < 0.2, picked, -torch.rand(shape))


def compare(case: Case, dtype: torch.dtype, device: str) -> list[float]:
    """Relative errors of outputs and gradients, each against float64 on the same numbers."""
    torch.manual_seed(0)
    inputs = case.inputs()
    narrow = {Scan: 0, Rows: 1, SolveRead: 4}.get(type(case), 3)  # gates and states are float32
    given = [x if x is None else (x.to(dtype) if n < narrow else x) for n, x in enumerate(inputs)]
    fast = _run(case.fast(), [x if x is None else _guarded(x, device) for x in given])
    slow = _run(case.slow, [x if x is None else x.to(device, torch.float64) for x in given])
    return [relative(a, b) for a, b in zip(fast, slow, strict=True)]


def _guarded(x: Tensor, device: str) -> Tensor:
    """The same numbers with NaN before and behind, in one piece of memory."""
    margin = 4096
    whole = torch.full((x.numel() + 2 * margin,), torch.nan, dtype=x.dtype, device=device)
    whole[margin : margin + x.numel()] = x.flatten().to(device)
    return whole[margin : margin + x.numel()].view(x.shape)


def _run(run: Callable[..., Any], inputs: list[Tensor | None]) -> list[Tensor]:
    """Outputs, then gradients of a fixed random functional of them."""
    given = [x if x is None else x.detach().requires_grad_() for x in inputs]
    found = run(*given)
    outputs = [found] if isinstance(found, Tensor) else list(found)
    draw = torch.Generator().manual_seed(7)
    weights = [torch.randn(y.shape, dtype=torch.float64, generator=draw).to(y) for y in outputs]
    wanted = [x for x in given if x is not None]
    return [*(y.detach() for y in outputs), *torch.autograd.grad(outputs, wanted, weights)]


# Two chunks and a ragged tail; fewer than one; heads, keys and values that are no powers of two.
INTERPRETED: dict[str, Case] = {
    "a decay for each key": Attend(2, 77, 1, 20, 17, gate=20),
    "a decay for each key, without a first state": Attend(1, 141, 2, 16, 16, gate=16, start=False),
    "a decay for each head": Attend(1, 141, 2, 20, 37, gate=1),
    "weak decays for each key": Attend(1, 70, 3, 16, 16, gate=16, weak=True),
    "keys in two tiles": Attend(1, 67, 1, 70, 16, gate=1, options={"scale": 0.3}),
    "keys in two tiles, a decay for each": Attend(1, 67, 1, 70, 16, gate=70, options={"scale": 0.3}),
    "no decay": Attend(1, 5, 1, 3, 2, gate=0),
    "one position": Attend(1, 1, 1, 4, 4, gate=4),
    "read before the step": Attend(1, 64, 1, 16, 16, gate=16, options={"strict": True}),
    "many keys, read before the step": Attend(1, 67, 1, 70, 16, gate=70, options={"strict": True, "scale": 0.3}),
    "read before the step of a head": Attend(2, 66, 1, 16, 20, gate=1, start=False, options={"strict": True}),
    "keys that two programs share": Attend(1, 40, 1, 130, 16, gate=130),
    "keys of a head that two programs share": Attend(1, 40, 1, 150, 3, gate=1, options={"strict": True}),
    "time in groups, a decay for each head": Attend(1, 530, 1, 16, 16, gate=1, plain=True),
    "time in groups, a decay for each key": Attend(1, 530, 1, 16, 16, gate=16),
    "time in groups, many keys": Attend(1, 530, 1, 70, 16, gate=70, weak=True, start=False),
    "packed, a decay for each head": Attend(1, 150, 1, 16, 16, gate=1, begins=(3, 64, 100)),
    "packed, a decay for each key, read before": Attend(1, 90, 1, 16, 16, gate=16, begins=(7, 80), options={"strict": True}),
    "packed, plain decays for many keys": Attend(1, 90, 1, 70, 16, gate=70, plain=True, start=False, begins=(20,)),
    "plain decays for each key": Attend(1, 70, 1, 16, 16, gate=16, plain=True),
    "plain decays for each head, read before the step": Attend(1, 70, 1, 16, 16, gate=1, plain=True, options={"strict": True}),
    "one plain decay for all positions": Attend(2, 70, 3, 16, 16, gate=1, plain=True, constant=True),
    "read of a state with any decay": Read(2, 21, 2, 5, 7, (2, 21, 2, 5, 7)),
    "read of a state with any decay, two pieces": Read(1, 260, 1, 3, 4, (1, 260, 1, 3, 4), strict=True),
    "read, a decay for each column, and a factor for each entry": Read(1, 67, 1, 4, 20, (1, 67, 1, 1, 20), (1, 1, 1, 4, 20)),
    "read, a decay for each row, and a factor for each column": Read(2, 9, 2, 4, 20, (2, 9, 2, 4, 1), (1, 9, 1, 1, 20)),
    "read, a decay for each head, and a factor for each row": Read(2, 9, 2, 4, 20, (2, 9, 2, 1, 1), (2, 1, 1, 4, 1), start=False),
    "read, plain decays, strictly": Read(1, 20, 2, 4, 3, (1, 20, 2, 4, 3), (1, 1, 2, 1, 3), plain=True, strict=True),
    "read of one position": Read(2, 1, 1, 1, 1, (2, 1, 1, 1, 1)),
    "scan": Scan((2, 37, 3, 5), (2, 37, 3, 5)),
    "scan backwards, a decay for each outer lane": Scan((2, 37, 3, 5), (1, 37, 3, 1), reverse=True),
    "scan in two pieces, a decay for each inner lane": Scan((1, 150, 2, 3), (1, 150, 1, 3), start=False),
    "scan with one decay": Scan((1, 20, 70), (1, 1, 1), plain=True),
    "scan of one position": Scan((2, 1, 2), (2, 1, 2), plain=True, reverse=True),
    "solve, no decay": Solve(1, 77, 1, 20, 17, gate=0),
    "solve, a decay for each head": Solve(2, 141, 1, 16, 16, gate=1),
    "solve, a decay for each head, reads before it": Solve(1, 141, 1, 20, 16, gate=1, after=False, start=False),
    "solve, plain decays for each head, reads before them": Solve(1, 70, 2, 16, 16, gate=1, after=False, plain=True),
    "solve, a decay for each key": Solve(1, 77, 2, 20, 17, gate=20),
    "solve, weak decays for each key": Solve(1, 70, 3, 16, 16, gate=16, weak=True),
    "solve, a decay for each key, reads before it": Solve(1, 77, 1, 16, 16, gate=16, after=False),
    "solve of three ranks, a decay for each key": Solve(1, 40, 1, 16, 16, gate=16, ranks=3),
    "solve of three ranks, weak decays for each key": Solve(1, 40, 2, 16, 16, gate=16, ranks=3, weak=True),
    "solve of two ranks, reads before a decay for each key": Solve(1, 40, 1, 16, 16, gate=16, ranks=2, after=False),
    "solve of three ranks, reads before a decay for each head": Solve(1, 40, 1, 16, 16, gate=1, ranks=3, after=False),
    "solve and read, no decay": SolveRead(1, 70, 2, 20, 17, gate=0),
    "solve and read, a decay for each head": SolveRead(2, 77, 1, 16, 16, gate=1, options={"scale": 0.3}),
    "solve and read before the decays": SolveRead(1, 70, 1, 16, 16, gate=1, after=False, plain=True, options={"strict": True}),
    "solve and read, a decay for each key": SolveRead(1, 77, 2, 20, 17, gate=20, options={"scale": 0.3}),
    "solve and read, plain decays for each key": SolveRead(1, 70, 1, 16, 16, gate=16, after=False, plain=True, start=False),
    "a factor for each row": Rows((2, 9, 2, 130), (2, 9, 2, 1)),
    "a factor for some rows": Rows((2, 3, 2, 5), (1, 3, 2, 1)),
    "solve of one position": Solve(1, 1, 1, 3, 2, gate=1),
    "solve of 136 keys, a decay for each head, packed": Solve(1, 77, 1, 136, 17, gate=1, begins=(10, 66)),
    "solve of 200 keys, a decay for each": Solve(1, 67, 1, 200, 3, gate=200, after=False, start=False),
    "solve of 256 keys and three ranks, plain decays": Solve(1, 25, 1, 256, 3, gate=1, ranks=3, after=False, plain=True),
    "solve of 320 keys, a decay for each": Solve(1, 20, 1, 320, 3, gate=320),
    "solve and read, 129 keys, no decay, packed": SolveRead(1, 67, 1, 129, 20, gate=0, begins=(20,), options={"strict": True}),
    "solve and read, 256 keys, a decay for each": SolveRead(1, 67, 1, 256, 3, gate=256, options={"scale": 0.3}),
    "solve and read, 320 keys, a decay for each head": SolveRead(1, 133, 1, 320, 17, gate=1, options={"scale": 0.3}),
    "solve and read, 520 keys, a decay for each head": SolveRead(1, 67, 1, 520, 3, gate=1, after=False),
}

# The kernels for either kind of decay in 16 bits, too.
PRECISIONS = dict.fromkeys(
    ("a decay for each key", "weak decays for each key", "a decay for each head", "solve, a decay for each head",
     "solve, a decay for each key", "solve of 320 keys, a decay for each", "solve and read, 320 keys, a decay for each head"),
    ("float32", "float16"),
)  # fmt: skip


def interpreted() -> dict[str, list[float]]:
    """`case dtype` -> errors, from a process in which Triton interprets."""
    return interpret_in("cases")


if __name__ == "__main__":
    torch.use_deterministic_algorithms(True)  # which fills fresh memory with NaN
    for name, case in INTERPRETED.items():
        if sys.argv[1:] and not any(part in name for part in sys.argv[1:]):
            continue
        for label in PRECISIONS.get(name, ("float32",)):
            print(json.dumps([f"{name}, {label}", compare(case, DTYPES[label], "cpu")]), flush=True)

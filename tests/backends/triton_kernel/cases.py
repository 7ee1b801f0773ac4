"""Calls of the kernels' functions against their torch counterparts in float64: values and every gradient.

Entry points: the kinds of cases, and `compare`, which is for a GPU as well. Every input lies between NaNs.
"""

from __future__ import annotations

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
    states: bool = False  # has each of them a state that it starts with, and one that it leaves?

    def inputs(self) -> list[Tensor | None]:
        lead = (self.batch, self.time, self.heads)
        q, k, v = torch.randn(*lead, self.keys), torch.randn(*lead, self.keys), torch.randn(*lead, self.values)
        decay = _decays((*lead, self.gate), self.plain) if self.gate else None
        if self.constant and decay is not None:
            decay = decay[:1, :1]
        if self.weak:  # each head weaker than the one before: from blocks of a few rows to whole chunks
            decay = -torch.rand(*lead, self.gate) * 2.0 ** -(3.0 * torch.arange(self.heads)[:, None] + 1)
        return [q, k, v, decay, torch.randn(_starting(self), self.heads, self.keys, self.values) if self.start else None]

    def fast(self, device: str = "cpu") -> Callable[..., Any]:
        from backends.triton_kernel.support.fused_linear_attention import fused_linear_attention

        return partial(fused_linear_attention, log=not self.plain, **_ends(self, device), **self.options)

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

    def fast(self, device: str = "cpu") -> Callable[..., Any]:
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
    states: bool = False

    def inputs(self) -> list[Tensor | None]:
        lead = (self.batch, self.time, self.heads)
        u = torch.nn.functional.normalize(torch.randn(*lead, self.ranks, self.keys), dim=-1)
        w = torch.nn.functional.normalize(u + 0.3 * torch.randn_like(u), dim=-1) * -2 * torch.rand(*lead, self.ranks, 1)
        decay = _decays((*lead, self.gate), self.plain) if self.gate else None
        if self.weak:
            decay = -torch.rand(*lead, self.gate) * 2.0 ** -(3.0 * torch.arange(self.heads)[:, None] + 1)
        start = torch.randn(_starting(self), self.heads, self.keys, self.values) if self.start else None
        return [w / self.ranks, u, torch.randn(*lead, self.ranks, self.values), decay, start]

    def fast(self, device: str = "cpu") -> Callable[..., Any]:
        from backends.triton_kernel.support.fused_solve import fused_solve

        return partial(fused_solve, log=not self.plain, after=self.after, **_ends(self, device))

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

    def fast(self, device: str = "cpu") -> Callable[..., Any]:
        from backends.triton_kernel.support.fused_solve_read import fused_solve_read

        return partial(fused_solve_read, log=not self.plain, after=self.after, **_ends(self, device), **self.options)

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
    begins: tuple[int, ...] = ()
    states: bool = False

    def inputs(self) -> list[Tensor | None]:
        lead = (self.batch, self.time, self.heads)
        q, k, v = torch.randn(*lead, self.keys), torch.randn(*lead, self.keys), torch.randn(*lead, self.values)
        start = torch.randn(_starting(self), self.heads, self.keys, self.values) if self.start else None
        decay, times = _decays(self.decay, self.plain), torch.rand(self.times) if self.times else None
        if times is not None:  # the gradient of a factor of -inf is not defined
            decay = decay.nan_to_num(neginf=-50.0)
        return [q, k, v, decay, start, times]

    def fast(self, device: str = "cpu") -> Callable[..., Any]:
        from backends.triton_kernel.support.fused_read import fused_read

        more = {"log": not self.plain, "strict": self.strict, **_ends(self, device)}
        return lambda *given: fused_read(*given[:5], times=given[5], **more)

    def slow(self, q: Tensor, k: Tensor, v: Tensor, decay: Tensor, *rest: Tensor | None) -> tuple[Tensor, Tensor]:
        start, times = (*rest, None)[:2]  # one by one the decay is whole
        if self.begins:
            return tuple(_one_by_one(self, q, k, v, decay if times is None else decay * times, start))
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

    def fast(self, device: str = "cpu") -> Callable[..., Any]:
        from backends.triton_kernel.support.fused_rows import fused_rows

        return fused_rows

    def slow(self, x: Tensor, by: Tensor) -> Tensor:
        return x * by


Case = Attend | Scan | Solve | Read | Rows


def _starting(case: Attend | Solve | Read) -> int:
    """How many first states there are."""
    return len(case.begins) + 1 if case.states else case.batch


def _ends(case: Attend | Solve | Read, device: str) -> dict[str, Tensor]:
    """What a function is told of sequences that are packed into one, if there are any; two that begin together: one is empty."""
    if not case.begins:
        return {}
    first = torch.isin(torch.arange(case.time), torch.tensor(case.begins)).to(device)
    ends = torch.tensor((0, *case.begins, case.time), device=device)
    return {"first": first, **({"starts": ends} if case.states else {})}


def _one_by_one(case: Attend | Solve | Read, *given: Tensor | None) -> Any:
    """Sequences that are packed, each on its own; without states the first has the first state, and the last leaves one."""
    *rows, start = given
    alone, found = replace(case, begins=(), states=False), []
    for n, (a, b) in enumerate(pairwise((0, *case.begins, case.time))):
        own = start[n : n + 1] if case.states and start is not None else start
        found.append(alone.slow(*(x if x is None or x.shape[1] == 1 else x[:, a:b] for x in rows), own))  # type: ignore[arg-type]
        start = start if case.states else None
    if isinstance(found[0], Tensor):
        return torch.cat(found, 1)
    first, last, *rest = zip(*found, strict=True)
    return torch.cat(first, 1), torch.cat(last) if case.states else last[-1], *(torch.cat(x, 1) for x in rest)


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
    narrow = {Scan: (1,), Rows: (0,), SolveRead: (0, 1, 2, 3)}.get(type(case), (0, 1, 2))  # gates and states are float32
    given = [x if x is None else (x.to(dtype) if n in narrow else x) for n, x in enumerate(inputs)]
    fast = _run(case.fast(device), [x if x is None else _guarded(x, device) for x in given])
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

"""Where launches load from and store to, under Triton's interpreter: tensors of more than 2^31 entries, and nothing outside.

Of a large tensor's memory only the pages that are used are there: its last heads, sequences or lanes have numbers, and only
the last programs of each launch run. They must find what the same numbers give in tensors that have nothing else.
Run as a program it prints one JSON pair for each case: relative errors, or whether a launch was stopped.
Entry points elsewhere: `FAR`, `OUTSIDE`, `interpreted`.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor

from tests.backends.triton_kernel import reads, recurrences, sequences, steps
from tests.backends.triton_kernel.processes import interpret_in
from tests.support.loops import relative

HALF, WIDE = torch.float16, torch.float32


@dataclass(frozen=True)
class Far:
    """What is run on tensors of which one axis is `length` long, and has numbers at its last `few` places: shapes, with that
    axis as None, and types of the inputs; of how many programs each launch needs the last, and whether there is a way `back`."""

    run: Callable[[], Callable[..., Any]]
    inputs: tuple[tuple[tuple[int | None, ...], torch.dtype], ...]
    length: int
    few: int = 1
    programs: int = 1
    back: bool = True


def _support(name: str) -> Any:
    from importlib import import_module

    return import_module(f"backends.triton_kernel.support.{name}")


def _scan(*, log: bool) -> Callable[..., Any]:
    return lambda decay, b: _support("fused_scan")._scan(decay, b, None, log, False)


def _attend() -> Callable[..., Any]:
    return lambda *given: _support("fused_linear_attention")._attend(*given, None, None, None, 1.0, False, WIDE)[:2]


def _solve() -> Callable[..., Any]:
    return lambda *given: _support("fused_solve")._solve(*given, None, None, 1, False, WIDE)[0]


def _solve_read() -> Callable[..., Any]:
    return lambda *given: _support("fused_solve_read")._ask(*given, None, None, False, 1.0, WIDE)[:2]


def _read() -> Callable[..., Any]:
    return lambda *given: _support("fused_read")._read(*given, None, None, None, True, False, True, WIDE)[:2]


def _rows() -> Callable[..., Any]:
    return lambda *given: _support("fused_rows")._rows_scale(*given)


def _operator(text: Any, kind: str) -> Any:
    """The operator of a written kernel, by the end of its plan's name."""
    (plan,) = (x for n, x in vars(text).items() if n.endswith(f"_{kind}_plan"))
    return getattr(getattr(torch.ops, text.OPS), plan.name)


def _softmax() -> Callable[..., Any]:
    """Causal attention of one sequence: what its operator is told is noted where a small module launches it."""
    module, text = reads.built(reads.READS["causal"])
    calls: list[Any] = []
    launch = text._Call.launch
    text._Call.launch = lambda call, which, extra, **flags: (calls.append(call), launch(call, which, extra, **flags))
    module(*(torch.rand(1, _T, 1, 16),) * 3)
    text._Call.launch = launch
    one, *_, counts = calls[0].sizes[0], calls[0].sizes[4:]
    operator = _operator(text, "softmax")
    return lambda q, k, v: operator(q, k, v, [one, q.shape[2], _T, _T, *counts], list(calls[0].numbers), None, None, HALF)[0]


def _ring() -> Callable[..., Any]:
    operator = _operator(recurrences.built(recurrences.WALKS["max, plus"])[1], "ring")
    return lambda a, b, start: operator(a, b, start, None, list(b.shape), [0.0], False)


def _gate() -> Callable[..., Any]:
    operator = _operator(sequences.built(sequences.WHOLE["a gate"])[1], "sequence")
    return lambda *given: operator(*given, list(given[0].shape), [0.0], HALF)


def _step() -> Callable[..., Any]:
    operator = _operator(steps.built(steps.STEPS["a state without a read"])[1], "chain")
    return lambda *given: operator(*given, [given[0].shape[0], 1, given[0].shape[-1]], [0.0], HALF)


_HEADS, _T, _K = 2**18, 130, 64  # beyond 2^31 entries together, and rows of one head 2^24 apart
ROW = (1, _T, None)
FAR: dict[str, Far] = {
    "a scan of many lanes": Far(partial(_scan, log=True), (((1, 33, None), HALF),) * 2, 2**26, few=64),
    "a scan of many sequences": Far(partial(_scan, log=False), (((None, 33, 2), HALF),) * 2, 2**25),
    "linear attention, a decay for each head": Far(
        _attend, (*(((*ROW, _K), HALF),) * 2, ((*ROW, 16), HALF), (ROW, WIDE)), _HEADS),
    "linear attention, a decay for each key": Far(
        _attend, (*(((*ROW, _K), HALF),) * 2, ((*ROW, 16), HALF), ((*ROW, _K), WIDE)), _HEADS),
    "linear attention of many values": Far(
        _attend, (*(((*ROW, 16), HALF),) * 2, ((*ROW, _K), HALF), (ROW, WIDE)), _HEADS, programs=2),
    "linear attention of many sequences": Far(
        _attend, (*(((None, _T, 1, _K), HALF),) * 2, ((None, _T, 1, 16), HALF), ((None, _T, 1), WIDE)), _HEADS),
    "feedback, a decay for each head": Far(
        _solve, (*(((*ROW, _K), HALF),) * 2, ((*ROW, 16), HALF), (ROW, WIDE)), _HEADS),
    "feedback, a decay for each key": Far(
        _solve, (*(((*ROW, _K), HALF),) * 2, ((*ROW, 16), HALF), ((*ROW, _K), WIDE)), _HEADS),
    "feedback and reads, a decay for each head": Far(
        _solve_read, (*(((*ROW, _K), HALF),) * 2, ((*ROW, 16), HALF), ((*ROW, _K), HALF), (ROW, WIDE)), _HEADS),
    "feedback and reads, a decay for each key": Far(
        _solve_read, (*(((*ROW, _K), HALF),) * 2, ((*ROW, 16), HALF), ((*ROW, _K), HALF), ((*ROW, _K), WIDE)), _HEADS),
    "reads of a state with any decay": Far(
        _read, (*(((1, 66, None, 16), HALF),) * 3, ((1, 66, None, 16, 16), HALF)), 2**17),
    "a factor for each row": Far(_rows, (((None, 16), HALF), ((None, 1), WIDE)), 2**27 + 16, few=16),
    "softmax": Far(_softmax, (*(((1, _T, None, 16), HALF),) * 2, ((1, None, _T, 1), HALF)), 2**20, programs=4),
    "softmax of many values": Far(
        _softmax, (*(((1, _T, None, 1), HALF),) * 2, ((1, None, _T, 16), HALF)), 2**20, programs=4, back=False),
    "max, plus": Far(_ring, (*(((1, 33, None), HALF),) * 2, ((1, None), WIDE)), 2**26, few=64),
    "a gate": Far(_gate, (((1, None, 300), HALF),) * 2, 2**23, few=4, programs=2),
    "a step": Far(_step, (((None, 1, 33), HALF), ((None, 33), WIDE), ((None, 1, 33), HALF)), 2**26, back=False),
}  # fmt: skip


@contextmanager
def only_last(count: int) -> Iterator[None]:
    """Of each launch, the last `count` programs along the first axis of its grid, and no copies of its tensors."""
    from triton.runtime import interpreter

    whole = interpreter.GridExecutor.__call__

    def launch(self: Any, *arguments: Any, **named: Any) -> None:
        named = {k: x for k, x in named.items() if k in inspect.signature(self.fn).parameters}
        self._init_args_hst(arguments, named)  # where the tensors are noted
        given = inspect.getcallargs(self.fn, *arguments, **named)
        given = {n: x if n in self.constexprs else interpreter._implicit_cvt(x) for n, x in given.items()}
        grid = (*self.grid, 1, 1)[:3]
        interpreter.interpreter_builder.set_grid_dim(*grid)
        for place in product(range(max(0, grid[0] - count), grid[0]), range(grid[1]), range(grid[2])):
            interpreter.interpreter_builder.set_grid_idx(*place)
            self.fn(**given)

    interpreter.GridExecutor.__call__ = launch
    try:
        yield
    finally:
        interpreter.GridExecutor.__call__ = whole


def _at_end(x: Tensor, shape: Sequence[int | None], length: int) -> Tensor:
    """The numbers of x at the end of an axis that is longer."""
    if None not in shape:
        return x
    axis = list(shape).index(None)
    found = torch.empty([length if n is None else n for n in shape], dtype=x.dtype)
    found.narrow(axis, length - x.shape[axis], x.shape[axis]).copy_(x)
    return found


def errors(case: Far) -> list[float]:
    """Relative errors of outputs and gradients at the end of the long axis."""
    torch.manual_seed(0)
    run = case.run()
    shapes = [[case.few if n is None else n for n in shape] for shape, _ in case.inputs]
    small = [(-0.05 * torch.rand(shape)).to(dtype) for shape, (_, dtype) in zip(shapes, case.inputs, strict=True)]  # no growth
    large = [_at_end(x, shape, case.length) for x, (shape, _) in zip(small, case.inputs, strict=True)]
    outputs, slopes = _called(case, run, small)
    sent = [torch.randn(y.shape).to(y) for y in outputs]
    wanted = [*outputs, *slopes(sent)]
    with only_last(case.programs):
        found, slopes = _called(case, run, large)
        long = [[None if n > m else n for n, m in zip(y.shape, g.shape, strict=True)] for y, g in zip(found, sent, strict=True)]
        found += slopes([_at_end(g, shape, max(y.shape)) for g, shape, y in zip(sent, long, found, strict=True)])
    return [relative(_last(a, b), b) for a, b in zip(found, wanted, strict=True)]


def _called(case: Far, run: Callable[..., Any], given: list[Tensor]) -> tuple[list[Tensor], Callable[[list[Tensor]], list[Tensor]]]:
    """Outputs, and what gives gradients for theirs."""
    given = [x.detach().requires_grad_(case.back) for x in given]
    found = run(*given)
    outputs = [found] if isinstance(found, Tensor) else list(found)
    return [y.detach() for y in outputs], lambda sent: list(torch.autograd.grad(outputs, given, sent)) if case.back else []


def _last(x: Tensor, like: Tensor) -> Tensor:
    """The end of the axis along which x is longer."""
    for axis, (n, m) in enumerate(zip(x.shape, like.shape, strict=True)):
        x = x.narrow(axis, n - m, m)
    return x


def rows_apart() -> list[float]:
    """Of attention whose rows lie 2^25 entries from each other: the relative error of its output."""
    module, _ = reads.built(reads.READS["causal"])
    torch.manual_seed(0)
    near = [torch.rand(1, _T, 1, 16, dtype=HALF) for _ in range(3)]
    far = [torch.empty(1, _T, 2**21, 16, dtype=HALF)[:, :, :1].copy_(x) for x in near]
    return [relative(module(*far), module(*near))]


OUTSIDE = {"inside": (0, 16), "before": (-1, 15), "behind": (1, 17), "far behind": (10**9, 16), "masked": (10, 6)}


def stopped(first: int, count: int) -> bool:
    """Is a launch stopped that copies so many entries of 16, from one on?"""
    import triton
    import triton.language as tl

    @triton.jit
    def copy(x, y, first, count):  # type: ignore[no-untyped-def]
        place = tl.arange(0, 32)
        tl.store(y + place, tl.load(x + first + place, mask=place < count, other=0), mask=place < count)

    try:
        copy[(1,)](torch.rand(16), torch.empty(32), first, count)
    except triton.runtime.errors.InterpreterError as error:
        return "outside the tensors" in str(error)
    return False


def interpreted() -> dict[str, Any]:
    """`case` -> what was found, from a process in which Triton interprets."""
    return interpret_in("memory")


if __name__ == "__main__":
    print(json.dumps(["outside", {name: stopped(*case) for name, case in OUTSIDE.items()}]), flush=True)
    print(json.dumps(["rows apart", rows_apart()]), flush=True)
    for name, case in FAR.items():
        if not sys.argv[1:] or name in sys.argv[1:]:
            print(json.dumps([name, errors(case)]), flush=True)

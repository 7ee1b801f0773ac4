"""Recurrences by kernels that were written for their step, as operators that compilers see through."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from .launching import OPS, _has_kernels, _on_device

RECURRENCE_LANES, RECURRENCE_WARPS = 64, 1  # entries of a program, side by side
RECURRENCE_ROWS = 32  # rows that are on their way at once: registers bound them


class _Recurrence(NamedTuple):
    """One recurrence: its kernels, and of each operand whether it moves along time; `numbers` says of each number of the
    kernels whether it is an integer or a float: "if"."""

    name: str
    lanes: int
    held: int  # how many states
    moves: tuple[bool, ...]
    learned: tuple[int, ...]  # the operands that may need a gradient, in the order of the kernels
    numbers: str
    states: Any
    ends: Any = None
    slopes: Any = None
    adjoint: Any = None


class _Walk(NamedTuple):
    """What one launch works on: operands [B or 1, T or 1, lanes, each or 1], and `sizes`, B, T, lanes, then integers."""

    plan: _Recurrence
    operands: tuple[Tensor, ...]
    sizes: list[int]
    numbers: list[float]
    reverse: bool

    @property
    def shape(self) -> list[int]:
        """B, T and the lanes."""
        return self.sizes[: 2 + self.plan.lanes]

    def width(self) -> int:
        """How many lanes there are."""
        found = 1
        for size in self.shape[2:]:
            found *= size
        return found

    def steps(self, loads: int) -> int:
        """How many steps' rows are loaded together."""
        return max(2, min(16, 1 << (RECURRENCE_ROWS // max(loads, 1)).bit_length() >> 1))

    def pieces(self, steps: int) -> tuple[int, int]:
        """(number, length) of the pieces of time: one where lanes alone fill a device."""
        time, programs = self.shape[1], self.shape[0] * triton.cdiv(self.width(), RECURRENCE_LANES)
        count = 1 if programs >= 1024 else min(triton.cdiv(2048, programs), triton.cdiv(time, 128))
        length = triton.cdiv(triton.cdiv(time, count), steps) * steps
        return triton.cdiv(time, length), length

    def first(self, x: Tensor) -> Tensor:
        """Where the rows of the first step are."""
        return x[:, x.shape[1] - 1 :] if self.reverse else x

    def arguments(self, length: int) -> list[Any]:
        """Lengths, the step from one position to the next, operands' strides, and the kernels' numbers."""
        sign = -1 if self.reverse else 1
        found: list[Any] = [self.shape[1], self.width(), length, sign * self.width()]
        for x in self.operands:
            strides = [0 if size == 1 else stride for size, stride in zip(x.shape, x.stride(), strict=True)]
            found += [strides[0], sign * strides[1], *strides[2:]]
        counts, numbers = iter(self.sizes[2 + self.plan.lanes :]), iter(self.numbers)
        return [*found, *self.shape[3:], *(next(counts) if k == "i" else next(numbers) for k in self.plan.numbers)]

    def launch(
        self, kernel: Any, pieces: tuple[int, int], tensors: Sequence[Tensor], steps: int, flags: Sequence[bool] = ()
    ) -> None:
        """One kernel for all lanes and pieces. The rows of `tensors` are those of the first step."""
        programs = self.shape[0] * triton.cdiv(self.width(), RECURRENCE_LANES)
        given = [self.first(x) for x in self.operands]
        kernel[(programs, pieces[0])](
            *given, *tensors, *self.arguments(pieces[1]), *flags, STEPS=steps, BD=RECURRENCE_LANES,
            num_warps=RECURRENCE_WARPS,
        )  # fmt: skip


def _recurrence_empty(walk: _Walk, starts: Sequence[Tensor]) -> list[Tensor]:
    """[B, T + 1, lanes] for the start and each state: float32, or conditions."""
    batch, time, *lanes = walk.shape
    return [x.new_empty(batch, time + 1, *lanes, dtype=torch.bool if x.dtype == torch.bool else torch.float32)
            for x in starts]  # fmt: skip


def _recurrence_states(walk: _Walk, starts: Sequence[Tensor]) -> list[Tensor]:
    """All states behind their start, in the order of time: reversed, the start is the last row."""
    plan, found = walk.plan, _recurrence_empty(walk, starts)
    steps = walk.steps(sum(plan.moves))
    pieces = walk.pieces(steps)
    for x, start in zip(found, starts, strict=True):
        walk.first(x)[:, 0] = start
    shape = (walk.shape[0], pieces[0], walk.width())
    ends = [x.new_empty(shape, dtype=torch.bool if x.dtype == torch.bool else torch.float32) for x in walk.operands]
    with _on_device(found[0]):
        if pieces[0] > 1:
            walk.launch(plan.ends, pieces, ends, steps)
        walk.launch(plan.states, pieces, [*(walk.first(x) for x in found), *ends], steps)
    return found


def _recurrence_gradients(walk: _Walk, wanted: Sequence[bool], count: int) -> list[Tensor]:
    """Memory for gradients: of operands at every position and lane, or a sum for each of `count` pieces; none where they
    are not wanted."""
    (batch, time, *lanes), found = walk.shape, []
    for k, w in zip(walk.plan.learned, wanted, strict=True):
        x, moves = walk.operands[k], walk.plan.moves[k]
        dtype = x.dtype if list(x.shape) == walk.shape else torch.float32
        found.append(x.new_empty((batch, time if moves else count, *lanes) if w else (0,), dtype=dtype))
    return found


def _recurrence_folded(walk: _Walk, stored: Sequence[Tensor], wanted: Sequence[bool]) -> list[Tensor]:
    """Gradients in the shapes of their operands, summed over what those do not vary along."""
    named = zip(walk.plan.learned, stored, wanted, strict=True)
    return [g.sum_to_size(walk.operands[k].shape).to(walk.operands[k].dtype) if w else g for k, g, w in named]


def _recurrence_adjoint(
    walk: _Walk, grads: Sequence[Tensor], states: Sequence[Tensor], wanted: Sequence[bool]
) -> list[Tensor]:
    """Gradients of the operands that may need one, then of the starts."""
    plan, (batch, _, *lanes), count = walk.plan, walk.shape, len(states)
    steps = walk.steps(sum(plan.moves) + 2 * count)
    pieces = walk.pieces(steps)
    rows = [walk.first(x.contiguous()) for x in (*states, *grads)]
    sent = grads[0].new_empty(count * count + count, batch, pieces[0], walk.width(), dtype=torch.float32)
    found = _recurrence_gradients(walk, wanted, pieces[0])
    starts = [x.new_empty(batch, *lanes, dtype=torch.float32) for x in states]
    with _on_device(sent):
        if pieces[0] > 1:
            walk.launch(plan.slopes, pieces, [*rows, sent], steps)
        stores = [walk.first(x) if plan.moves[k] and w else x for x, k, w in zip(found, plan.learned, wanted, strict=True)]
        walk.launch(plan.adjoint, pieces, [*rows, sent, *stores, *starts], steps, wanted)
    return [*_recurrence_folded(walk, found, wanted), *starts]


def _recurrence_operators(
    plan: _Recurrence, states_of: Callable[[_Walk, Sequence[Tensor]], list[Tensor]] = _recurrence_states
) -> Callable[..., Any]:
    """The operator of one recurrence, of (*operands, *starts, sizes, numbers, reverse), and its derivative."""
    count, states = len(plan.moves), plan.held
    tensors = [f"Tensor x{k}" for k in range(count)]
    rest = "SymInt[] sizes, float[] numbers, bool reverse"
    results = "Tensor" if states == 1 else f"({', '.join(['Tensor'] * states)})"
    given = ", ".join([*tensors, *(f"Tensor s{k}" for k in range(states)), rest])

    def packed(found: list[Tensor]) -> Any:
        return found[0] if states == 1 else tuple(found)

    @torch.library.custom_op(f"{OPS}::{plan.name}", mutates_args=(), schema=f"({given}) -> {results}")
    def walk(*inputs: Any) -> Any:
        return packed(states_of(_Walk(plan, inputs[:count], *inputs[-3:]), inputs[count:-3]))

    @walk.register_fake
    def _(*inputs: Any) -> Any:
        return packed(_recurrence_empty(_Walk(plan, inputs[:count], *inputs[-3:]), inputs[count:-3]))

    if plan.adjoint is None:
        return walk
    sent = [f"Tensor {letter}{k}" for letter in "gh" for k in range(states)]

    @torch.library.custom_op(
        f"{OPS}::{plan.name}_adjoint",
        mutates_args=(),
        schema=f"({', '.join([*sent, *tensors, rest])}, bool[] wanted) -> Tensor[]",
    )
    def adjoint(*inputs: Any) -> list[Tensor]:
        walk = _Walk(plan, inputs[2 * states : 2 * states + count], *inputs[-4:-1])
        return _recurrence_adjoint(walk, inputs[:states], inputs[states : 2 * states], inputs[-1])

    @adjoint.register_fake
    def _(*inputs: Any) -> list[Tensor]:
        walk, wanted = _Walk(plan, inputs[2 * states : 2 * states + count], *inputs[-4:-1]), inputs[-1]
        found = _recurrence_folded(walk, _recurrence_gradients(walk, wanted, 1), wanted)
        return [*found, *(g.new_empty(g[:, 0].shape, dtype=torch.float32) for g in inputs[:states])]

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.rest = inputs[-3:]
        ctx.save_for_backward(*([output] if states == 1 else output), *inputs[:count])

    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        saved = ctx.saved_tensors
        wanted = [ctx.needs_input_grad[k] for k in plan.learned]
        found = adjoint(*grads, *saved, *ctx.rest, wanted)
        every: list[Tensor | None] = [None] * count
        for k, g, w in zip(plan.learned, found, wanted, strict=False):
            every[k] = g if w else None
        return *every, *found[len(wanted) :], None, None, None

    walk.register_autograd(backward, setup_context=setup)
    return walk


def _walks(x: Sequence[Tensor]) -> bool:
    """Do kernels take these tensors? float64 is left to PyTorch, and what is empty."""
    return _has_kernels(x[0]) and all(t.dtype != torch.float64 and t.numel() for t in x)


def _recurrence_walked(
    walk: Callable[..., Any], operands: Sequence[Tensor], starts: Sequence[Tensor], sizes: list[int],
    numbers: tuple[Sequence[int], Sequence[float]], reverse: bool,
) -> list[Tensor]:  # fmt: skip
    """[B, T + 1, lanes] of every state; starts [B or 1, lanes, each or 1]. Kernels have one lane where there is none."""
    if len(sizes) == 2:
        operands, starts = [x.unsqueeze(-1) for x in operands], [x.unsqueeze(-1) for x in starts]
        found = _recurrence_walked(walk, operands, starts, [*sizes, 1], numbers, reverse)
        return [x.squeeze(-1) for x in found]
    shape = (sizes[0], *sizes[2:])
    cast = [x if x.dtype == torch.bool else x.float() for x in starts]
    found = walk(*operands, *(x.expand(shape) for x in cast), [*sizes, *numbers[0]], list(numbers[1]) or [0.0], reverse)
    return [found] if isinstance(found, Tensor) else list(found)

"""Recurrences by kernels that were written for their step, as operators that compilers see through."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from .launching import OPS, _cdiv, _has_kernels, _on_device, _piece_length
from .piece_kernels import _pieces_kernel

RECURRENCE_LANES, RECURRENCE_WARPS = 64, 1  # entries of a program, side by side
RECURRENCE_ROWS = 32  # rows that are on their way at once: registers bound them
RECURRENCE_PIECE = 128  # the fewest steps of a piece of time


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
    own: bool = False  # are starts the states of positions of their own?


class _Walk(NamedTuple):
    """What one launch works on: operands [B or 1, T or 1, lanes, each or 1], `sizes`, B, T, lanes, then integers, and where
    packed sequences begin and end, [N, 2], if there are several."""

    plan: Any  # of this kind, or of one with the same fields
    operands: tuple[Tensor, ...]
    spans: Tensor | None
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
        programs = self.shape[0] * _cdiv(self.width(), RECURRENCE_LANES)
        return self.cut(_piece_length(self.shape[1], programs, 1024, RECURRENCE_PIECE, steps))

    def cut(self, length: int) -> tuple[int, int]:
        """(number, length) of pieces that are no longer: of packed sequences, as many as there can be."""
        time = self.shape[1]
        return (_cdiv(time, length) if self.spans is None else time // length + self.spans.shape[0]), length

    def table(self, pieces: tuple[int, int], backwards: bool = False) -> Tensor | None:
        """What the kernels are told of the pieces of packed sequences; `backwards`: as steps are taken from the last one on."""
        if self.spans is None:
            return None
        count, table = self.spans.shape[0], torch.empty(pieces[0], 5, dtype=torch.int32, device=self.spans.device)
        block, flipped = max(2, triton.next_power_of_2(count)), backwards != self.reverse
        _pieces_kernel[(pieces[0],)](self.spans, table, count, self.shape[1], pieces[1], FLIPPED=flipped, BN=block)
        return table

    def first(self, x: Tensor) -> Tensor:
        """Where the rows of the first step are."""
        return x[:, x.shape[1] - 1 :] if self.reverse else x

    def rows(self, x: Tensor) -> Tensor:
        """Where the state after the first step is, among all and starts."""
        one = 0 if self.spans is not None else 1
        return x[:, x.shape[1] - 1 - one :] if self.reverse else x[:, one:]

    def begin(self, x: Tensor, start: Tensor) -> None:
        """Put the starts where they stand among states: [B, lanes], or [N, lanes] of packed sequences."""
        if self.spans is None:
            x[:, -1 if self.reverse else 0] = start
        elif self.reverse:
            x[0, : len(start)] = start.flip(0)
        else:
            x[0, -len(start) :] = start
            if self.plan.own:
                x[0].index_copy_(0, self.heads(), start)

    def heads(self) -> Tensor:
        """[N] the positions before the first steps of packed sequences."""
        assert self.spans is not None
        return (self.spans[:, 0] - 1).clamp(max=self.shape[1] - 1)

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
        self, kernel: Any, pieces: tuple[int, int], table: Tensor | None, tensors: Sequence[Tensor], steps: int,
        flags: Sequence[bool] = (),
    ) -> None:  # fmt: skip
        """One kernel for all lanes and pieces. The rows of `tensors` are those of the first step."""
        programs = self.shape[0] * _cdiv(self.width(), RECURRENCE_LANES)
        given = [self.first(x) for x in self.operands]
        kernel[(programs, pieces[0])](
            *given, *tensors, table, *self.arguments(pieces[1]), *flags, PACKED=table is not None, STEPS=steps,
            BD=RECURRENCE_LANES, num_warps=RECURRENCE_WARPS,
        )  # fmt: skip


def _recurrence_empty(walk: _Walk, starts: Sequence[Tensor]) -> list[Tensor]:
    """[B, T + 1, lanes] for the start and each state, or as many starts as there are sequences: float32, or conditions."""
    batch, time, *lanes = walk.shape
    rows = time + (1 if walk.spans is None else walk.spans.shape[0])
    return [x.new_empty(batch, rows, *lanes, dtype=torch.bool if x.dtype == torch.bool else torch.float32)
            for x in starts]  # fmt: skip


def _recurrence_states(walk: _Walk, starts: Sequence[Tensor]) -> list[Tensor]:
    """All states behind their start, in the order of time: reversed, the start is the last row. The starts of packed sequences
    are behind all states: reversed, before them."""
    plan, found = walk.plan, _recurrence_empty(walk, starts)
    steps = walk.steps(sum(plan.moves))
    pieces = walk.pieces(steps)
    for x, start in zip(found, starts, strict=True):
        walk.begin(x, start)
    shape = (walk.shape[0], pieces[0], walk.width())
    ends = [x.new_empty(shape, dtype=torch.bool if x.dtype == torch.bool else torch.float32) for x in walk.operands]
    with _on_device(found[0]):
        table = walk.table(pieces)
        if pieces[0] > 1:
            walk.launch(plan.ends, pieces, table, ends, steps)
        walk.launch(plan.states, pieces, table, [*(walk.rows(x) for x in found), *ends], steps)
    return found


def _recurrence_gradients(walk: _Walk, wanted: Sequence[bool], count: int) -> list[Tensor]:
    """Memory for gradients: of operands at every position and lane, or a sum for each of `count` pieces; none where they
    are not wanted. The starts of packed sequences are no steps where they have positions of their own."""
    (batch, time, *lanes), found = walk.shape, []
    some = walk.plan.own and walk.spans is not None
    for k, w in zip(walk.plan.learned, wanted, strict=True):
        x, moves = walk.operands[k], walk.plan.moves[k]
        dtype = x.dtype if list(x.shape) == walk.shape else torch.float32
        shape = (batch, time if moves else count, *lanes) if w else (0,)
        found.append(x.new_zeros(shape, dtype=dtype) if some else x.new_empty(shape, dtype=dtype))
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
    rows = [walk.rows(x.contiguous()) for x in (*states, *grads)]
    sent = grads[0].new_empty(count * count + count, batch, pieces[0], walk.width(), dtype=torch.float32)
    found = _recurrence_gradients(walk, wanted, pieces[0])
    number = batch if walk.spans is None else walk.spans.shape[0]  # a sequence without steps sends nothing back
    starts = [(x.new_empty if walk.spans is None else x.new_zeros)(number, *lanes, dtype=torch.float32) for x in states]
    with _on_device(sent):
        table = walk.table(pieces, backwards=True)
        if pieces[0] > 1:
            walk.launch(plan.slopes, pieces, table, [*rows, sent], steps)
        stores = [walk.first(x) if plan.moves[k] and w else x for x, k, w in zip(found, plan.learned, wanted, strict=True)]
        walk.launch(plan.adjoint, pieces, table, [*rows, sent, *stores, *starts], steps, wanted)
    if walk.spans is not None and plan.own:
        there = (walk.spans[:, 1] >= walk.spans[:, 0]).view(-1, *[1] * len(lanes))
        starts = [s + torch.where(there, g[0].index_select(0, walk.heads()), 0) for s, g in zip(starts, grads, strict=True)]
    return [*_recurrence_folded(walk, found, wanted), *starts]


def _recurrence_operators(
    plan: _Recurrence, states_of: Callable[[_Walk, Sequence[Tensor]], list[Tensor]] = _recurrence_states
) -> Callable[..., Any]:
    """The operator of one recurrence, of (*operands, *starts, spans, sizes, numbers, reverse), and its derivative."""
    count, states = len(plan.moves), plan.held
    tensors = [f"Tensor x{k}" for k in range(count)]
    rest = "Tensor? spans, SymInt[] sizes, float[] numbers, bool reverse"
    results = "Tensor" if states == 1 else f"({', '.join(['Tensor'] * states)})"
    given = ", ".join([*tensors, *(f"Tensor s{k}" for k in range(states)), rest])

    def packed(found: list[Tensor]) -> Any:
        return found[0] if states == 1 else tuple(found)

    @torch.library.custom_op(f"{OPS}::{plan.name}", mutates_args=(), schema=f"({given}) -> {results}")
    def walk(*inputs: Any) -> Any:
        return packed(states_of(_Walk(plan, inputs[:count], *inputs[-4:]), inputs[count:-4]))

    @walk.register_fake
    def _(*inputs: Any) -> Any:
        return packed(_recurrence_empty(_Walk(plan, inputs[:count], *inputs[-4:]), inputs[count:-4]))

    if plan.adjoint is None:
        return walk
    sent = [f"Tensor {letter}{k}" for letter in "gh" for k in range(states)]

    @torch.library.custom_op(
        f"{OPS}::{plan.name}_adjoint",
        mutates_args=(),
        schema=f"({', '.join([*sent, *tensors, rest])}, bool[] wanted) -> Tensor[]",
    )
    def adjoint(*inputs: Any) -> list[Tensor]:
        walk = _Walk(plan, inputs[2 * states : 2 * states + count], *inputs[-5:-1])
        return _recurrence_adjoint(walk, inputs[:states], inputs[states : 2 * states], inputs[-1])

    @adjoint.register_fake
    def _(*inputs: Any) -> list[Tensor]:
        walk, wanted = _Walk(plan, inputs[2 * states : 2 * states + count], *inputs[-5:-1]), inputs[-1]
        found = _recurrence_folded(walk, _recurrence_gradients(walk, wanted, 1), wanted)
        number = walk.shape[0] if walk.spans is None else walk.spans.shape[0]
        return [*found, *(g.new_empty(number, *g.shape[2:], dtype=torch.float32) for g in inputs[:states])]

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.rest = inputs[-3:]
        ctx.save_for_backward(*([output] if states == 1 else output), *inputs[:count], inputs[-4])

    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        saved = ctx.saved_tensors
        wanted = [ctx.needs_input_grad[k] for k in plan.learned]
        found = adjoint(*grads, *saved, *ctx.rest, wanted)
        every: list[Tensor | None] = [None] * count
        for k, g, w in zip(plan.learned, found, wanted, strict=False):
            every[k] = g if w else None
        return *every, *found[len(wanted) :], None, None, None, None

    walk.register_autograd(backward, setup_context=setup)
    return walk


def _walks(x: Sequence[Tensor]) -> bool:
    """Do kernels take these tensors? float64 is left to PyTorch, and what is empty."""
    return _has_kernels(x[0]) and all(t.dtype != torch.float64 and t.numel() for t in x)


def _recurrence_walked(
    walk: Callable[..., Any], operands: Sequence[Tensor], starts: Sequence[Tensor], sizes: list[int],
    numbers: tuple[Sequence[int], Sequence[float]], reverse: bool, spans: Tensor | None = None,
) -> list[Tensor]:  # fmt: skip
    """States with their starts (`_recurrence_empty`).

    starts [B or 1, lanes, each or 1], or of packed sequences as many as they are. Kernels have one lane where there is none.
    """
    if len(sizes) == 2:
        operands, starts = [x.unsqueeze(-1) for x in operands], [x.unsqueeze(-1) for x in starts]
        found = _recurrence_walked(walk, operands, starts, [*sizes, 1], numbers, reverse, spans)
        return [x.squeeze(-1) for x in found]
    shape = (sizes[0] if spans is None else spans.shape[0], *sizes[2:])
    cast = [x if x.dtype == torch.bool else x.float() for x in starts]
    more = [spans, [*sizes, *numbers[0]], list(numbers[1]) or [0.0], reverse]
    found = walk(*operands, *(x.expand(shape) for x in cast), *more)
    return [found] if isinstance(found, Tensor) else list(found)


def _recurrence_after(found: Sequence[Tensor], reverse: bool, spans: Tensor | None) -> list[Tensor]:
    """[B, T, lanes] of states without their starts, which stand before them in time, and after those of packed sequences."""
    count = 1 if spans is None else spans.shape[0]
    return [x[:, count:] if (spans is None) != reverse else x[:, :-count] for x in found]


def _recurrence_spans(ends: Tensor | None, before: int = 0) -> Tensor | None:
    """[N, 2] of packed sequences: the first step, which has so many positions `before` it, and the end."""
    return None if ends is None else torch.stack([ends[:-1].long() + before, ends[1:].long()], 1)


def _one_by_one(ends: Tensor, inputs: Sequence[Tensor], run: Callable[..., Sequence[Tensor]]) -> list[Tensor]:
    """What `run` gives for the number of each packed sequence and its part of [1, T or 1, ..], one after another."""
    found, places = [], ends.tolist()
    for n, (a, b) in enumerate(itertools.pairwise(places)):
        found.append(run(n, [x[:, a:b] if x.shape[1] == places[-1] else x for x in inputs], b - a))
    return [torch.cat(parts, 1) for parts in zip(*found, strict=True)]

"""Affine recurrences, with what their coefficients are made of and what reads their states, as operators that compilers see
through.

The kernels were written for one recurrence (`emit.affine_kernels`): one launch forward and one backward, which read every
operand once, and one before each where entries alone do not fill a device. Of the states nothing is kept but what enters
each chunk of time.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .affine_kernels import _affine_follow, _affine_follow_logs, _affine_join, _affine_join_logs  # noqa: F401  # for kernels
from .fused_chain import _power
from .fused_recurrence import _recurrence_folded, _recurrence_gradients, _recurrence_spans, _Walk
from .launching import OPS, _cdiv, _has_kernels, _on_device, _piece_length

AFFINE_LANES, AFFINE_ROWS = 32, 8  # entries of a tile, and parts of a chunk of time side by side
AFFINE_STEPS = 8  # steps of a part, whose rows are on their way at once: registers bound them
AFFINE_ENTRIES = 64  # of a tile for each warp
AFFINE_PROGRAMS = 256  # time is cut into pieces where there are fewer


class _Affine(NamedTuple):
    """One recurrence: its kernels, and of each operand whether it moves along time; `outputs` are, beside the last state,
    what is wanted at all positions: whether each is of the outputs' type. `numbers` says of each number of the kernels
    whether it is an integer or a float: "if"."""

    name: str
    lanes: int
    moves: tuple[bool, ...]
    learned: tuple[int, ...]  # the operands that may need a gradient, in the order of the kernels
    outputs: tuple[bool, ...]
    numbers: str
    ends: Any
    states: Any
    slopes: Any
    adjoint: Any
    own: bool = False


class _Tiles(NamedTuple):
    """How one launch is cut: entries side by side, and the number and the length of the pieces of time."""

    lanes: int
    pieces: int
    length: int


def _affine_tiles(walk: _Walk) -> _Tiles:
    """One piece where entries alone fill a device, else as many as do, of two chunks or more."""
    batch, time = walk.shape[:2]
    lanes = min(AFFINE_LANES, _power(walk.width()))
    programs, chunk = batch * _cdiv(walk.width(), lanes), AFFINE_ROWS * AFFINE_STEPS
    return _Tiles(lanes, *walk.cut(_piece_length(time, programs, AFFINE_PROGRAMS, 2 * chunk, chunk)))


def _affine_launch(
    walk: _Walk, kernel: Any, tiles: _Tiles, table: Tensor | None, tensors: Sequence[Tensor], flags: Sequence[bool] = ()
) -> None:
    """One kernel for all entries and pieces. The rows of `tensors` are those of the first step."""
    programs = walk.shape[0] * _cdiv(walk.width(), tiles.lanes)
    kernel[(programs, tiles.pieces)](
        *(walk.first(x) for x in walk.operands), *tensors, table, _affine_held(walk), *walk.arguments(tiles.length), *flags,
        PACKED=table is not None, STEPS=AFFINE_STEPS, ROWS=AFFINE_ROWS, BD=tiles.lanes,
        num_warps=max(1, AFFINE_ROWS * tiles.lanes // AFFINE_ENTRIES),
    )  # fmt: skip


def _affine_held(walk: _Walk) -> int:
    """How many chunks there are at most: each sequence may have one that is begun. One more, as a size of 1 would be built
    into an exported graph."""
    return walk.shape[1] // (AFFINE_ROWS * AFFINE_STEPS) + 1 + (1 if walk.spans is None else walk.spans.shape[0])


def _affine_first(walk: _Walk, held: Tensor) -> Tensor:
    """Where the first sequence has its first chunk: against time it is the last one, and rows of others are counted back."""
    return held[:, walk.spans.shape[0] - 1 :] if walk.spans is not None and walk.reverse else held


def _affine_outputs(walk: _Walk, start: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """What enters each chunk [B, chunks, lanes], the last state of each sequence, then the outputs [B, T, lanes]."""
    held = start.new_empty(walk.shape[0], _affine_held(walk), walk.width(), dtype=torch.float32)
    found = [start.new_empty(walk.shape, dtype=dtype if narrow else torch.float32) for narrow in walk.plan.outputs]
    return [held, start.new_empty(start.shape, dtype=torch.float32), *found]


def _affine_run(walk: _Walk, start: Tensor, dtype: torch.dtype) -> list[Tensor]:
    tiles, found = _affine_tiles(walk), _affine_outputs(walk, start, dtype)
    if walk.spans is None:  # what no chunk gives is still of one value
        found[0][:, walk.shape[1] // (AFFINE_ROWS * AFFINE_STEPS) :] = 0
    else:  # the last state of a sequence without positions is its start
        found[0].zero_()
        found[1].copy_(start)
    start = start.contiguous()
    ends = _affine_maps(walk, tiles)
    with _on_device(start):
        table = walk.table((tiles.pieces, tiles.length))
        if tiles.pieces > 1:
            _affine_launch(walk, walk.plan.ends, tiles, table, ends)
        rows = [walk.first(x) for x in found[2:]]
        _affine_launch(walk, walk.plan.states, tiles, table, [start, _affine_first(walk, found[0]), found[1], *rows, *ends])
    return found


def _affine_maps(walk: _Walk, tiles: _Tiles) -> list[Tensor]:
    """Memory for the maps of pieces."""
    like = walk.operands[0]
    return [like.new_empty(walk.shape[0], tiles.pieces, walk.width(), dtype=torch.float32) for _ in range(2)]


def _affine_adjoint(walk: _Walk, sent: Sequence[Tensor], held: Tensor, wanted: Sequence[bool]) -> list[Tensor]:
    """Gradients of the operands that may need one, then of the starts. `sent`: to the last states, then to the outputs."""
    plan, tiles = walk.plan, _affine_tiles(walk)
    found, ends = _recurrence_gradients(walk, wanted, tiles.pieces), _affine_maps(walk, tiles)
    last = sent[0].contiguous()
    start = last.new_empty(last.shape, dtype=torch.float32) if walk.spans is None else last.float().clone()
    given = [_affine_first(walk, held), last, *(walk.first(x.contiguous()) for x in sent[1:])]
    with _on_device(held):
        table = walk.table((tiles.pieces, tiles.length))
        if tiles.pieces > 1:
            _affine_launch(walk, plan.slopes, tiles, table, [*given, *ends])
        stores = [walk.first(x) if plan.moves[k] and w else x for x, k, w in zip(found, plan.learned, wanted, strict=True)]
        _affine_launch(walk, plan.adjoint, tiles, table, [*given, *stores, start, *ends], wanted)
    return [*_recurrence_folded(walk, found, wanted), start]


def _affine_operators(plan: _Affine) -> Callable[..., Any]:
    """The operator of one recurrence, of (*operands, start, spans, sizes, numbers, reverse, dtype), and its derivative."""
    count, made = len(plan.moves), len(plan.outputs) + 1
    tensors = [f"Tensor x{k}" for k in range(count)]
    rest = "Tensor? spans, SymInt[] sizes, float[] numbers, bool reverse"
    results = ", ".join(["Tensor"] * (made + 1))

    @torch.library.custom_op(
        f"{OPS}::{plan.name}", mutates_args=(),
        schema=f"({', '.join([*tensors, 'Tensor start', rest])}, ScalarType dtype) -> ({results})",
    )  # fmt: skip
    def run(*inputs: Any) -> Any:
        return tuple(_affine_run(_Walk(plan, inputs[:count], *inputs[-5:-1]), inputs[count], inputs[-1]))

    @run.register_fake
    def _(*inputs: Any) -> Any:
        return tuple(_affine_outputs(_Walk(plan, inputs[:count], *inputs[-5:-1]), inputs[count], inputs[-1]))

    given = ", ".join([*(f"Tensor g{k}" for k in range(made)), "Tensor held", *tensors, rest])

    @torch.library.custom_op(
        f"{OPS}::{plan.name}_adjoint", mutates_args=(), schema=f"({given}, bool[] wanted) -> Tensor[]"
    )
    def adjoint(*inputs: Any) -> list[Tensor]:
        walk = _Walk(plan, inputs[made + 1 : made + 1 + count], *inputs[-5:-1])
        return _affine_adjoint(walk, inputs[:made], inputs[made], inputs[-1])

    @adjoint.register_fake
    def _(*inputs: Any) -> list[Tensor]:
        walk, wanted = _Walk(plan, inputs[made + 1 : made + 1 + count], *inputs[-5:-1]), inputs[-1]
        found = _recurrence_folded(walk, _recurrence_gradients(walk, wanted, 1), wanted)
        return [*found, torch.empty_like(inputs[0], dtype=torch.float32)]

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.rest = inputs[-4:-1]
        ctx.save_for_backward(output[0], *inputs[:count], inputs[-5])

    def backward(ctx: Any, _: Tensor, *grads: Tensor) -> tuple[Any, ...]:
        wanted = [ctx.needs_input_grad[k] for k in plan.learned]
        found = adjoint(*grads, *ctx.saved_tensors, *ctx.rest, wanted)
        every: list[Tensor | None] = [None] * count
        for k, g, w in zip(plan.learned, found, wanted, strict=False):
            every[k] = g if w else None
        return *every, found[-1], None, None, None, None, None

    run.register_autograd(backward, setup_context=setup)
    return run


def fused_affine(plan: _Affine) -> Callable[..., list[Tensor]]:
    """A function of (*operands, start, sizes, numbers, dtype) that gives the last states and the outputs.

    Shapes:  operands [B or 1, T or 1, lanes, each or 1], start [B or 1, lanes] or None for zeros; of packed sequences, whose
    ends are given, as many as they are, or one for all -> [B, lanes], each output [B, T, lanes]
    """
    walk = _affine_operators(plan)

    def run(
        operands: Sequence[Tensor], start: Tensor | None, sizes: list[int], numbers: list[float], dtype: torch.dtype,
        *, reverse: bool = False, ends: Tensor | None = None,
    ) -> list[Tensor]:  # fmt: skip
        if plan.lanes == 1 and len(sizes) - plan.numbers.count("i") == 2:  # kernels have one lane where there is none
            start = None if start is None else start.unsqueeze(-1)
            wide = run([x.unsqueeze(-1) for x in operands], start, [*sizes[:2], 1, *sizes[2:]], numbers, dtype,
                       reverse=reverse, ends=ends)  # fmt: skip
            return [x.squeeze(-1) for x in wide]
        spans = _recurrence_spans(ends)
        shape = (sizes[0] if spans is None else spans.shape[0], *sizes[2 : 2 + plan.lanes])
        start = operands[0].new_zeros(shape, dtype=torch.float32) if start is None else start.float().expand(shape)
        return list(walk(*operands, start, spans, sizes, numbers or [0.0], reverse, dtype)[1:])

    return run


def runs_scan(tensors: Sequence[Tensor], sizes: Sequence[int]) -> bool:
    """May a recurrence run in kernels? Not in float64 or on the CPU, nor if there is nothing."""
    first, wide = tensors[0], (torch.float64, torch.complex64, torch.complex128)
    alike = not any(x.dtype in wide or x.device != first.device for x in tensors)
    return _has_kernels(first) and alike and 0 not in sizes

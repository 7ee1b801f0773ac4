"""A recurrence over a grid, front by front: all cells with slope * row + column = w take their step together."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .wavefront_in_place import wavefront_in_place
from .zero_of import zero_of

# (what is read of earlier cells, the operands at the cells) -> the states at the cells, each [B, cells, ...]
_WavefrontStep = Callable[[Sequence[Tensor], Sequence[Tensor]], Sequence[Tensor]]


class _WavefrontOrder(torch.autograd.Function):
    """Entries along dim 1 in another order; the gradient goes back by the opposite one, without adding anything up."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, order: Tensor, back: Tensor) -> Tensor:
        return x.index_select(1, order)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        order, back = ctx.saved_tensors
        return _WavefrontOrder.apply(grad, back, order), None, None  # type: ignore[no-untyped-call]


def _wavefront_ordered(x: Tensor, order: Tensor, back: Tensor) -> Tensor:
    """x[:, order]; `back` is the opposite order."""
    if torch.compiler.is_compiling() or not x.requires_grad:
        return x.index_select(1, order)
    ordered: Tensor = _WavefrontOrder.apply(x, order, back)  # type: ignore[no-untyped-call]
    return ordered


def _wavefront_bounds(
    shape: tuple[int, int], slope: int, margins: tuple[int, int, int]
) -> list[tuple[int, int, int, int]]:
    """Of each front: the cells start .. end that it has, the halo's among them, and those low .. high on the grid."""
    (rows, columns), (lead, before, after) = shape, margins
    height, width, found = lead + rows, before + columns + after, []
    for w in range(slope * (height - 1) + before + columns):
        start, end = max(0, -((width - 1 - w) // slope)), min(height, w // slope + 1)
        low, high = max(lead, -((before + columns - 1 - w) // slope)), min(height, (w - before) // slope + 1)
        found.append((start, low, high, end) if low < high else (start, end, end, end))
    return found


def _wavefront_orders(
    bounds: Sequence[tuple[int, int, int, int]],
    shape: tuple[int, int],
    slope: int,
    margins: tuple[int, int, int],
    turned: tuple[bool, bool],
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """The cells of a grid, flattened, in the order of the fronts, and the place of each cell in it."""
    lead, before, _ = margins
    rows, columns = (torch.arange(n, device=device) for n in shape)
    rows, columns = (x.flip(0) if turn else x for x, turn in zip((rows, columns), turned, strict=True))
    rows = rows.unsqueeze(1) + lead
    begins, count = [], 0  # where a front begins, as if it began in row 0
    for _, low, high, _ in bounds:
        begins.append(count - low)
        count += high - low
    places = (torch.tensor(begins, device=device)[slope * rows + columns + before] + rows).flatten()
    return torch.empty_like(places).scatter_(0, places, torch.arange(count, device=device)), places


def _wavefront_halo(
    blank: Tensor,
    sides: Sequence[Tensor | None],
    bounds: Sequence[tuple[int, int, int, int]],
    shape: tuple[int, int],
    slope: int,
    margins: tuple[int, int, int],
    turned: tuple[bool, bool],
) -> list[Tensor | None]:
    """What lies below and above each front's cells on the grid, None for no cells; `blank` where a side is None."""
    (rows, columns), (lead, before, after), (up, left) = shape, margins, turned
    counts = [n for start, low, high, end in bounds for n in (low - start, end - high)]
    if all(side is None for side in sides):
        wide = {n: blank.expand(blank.shape[0], n, *blank.shape[2:]) for n in set(counts)}
        return [wide[n] if n else None for n in counts]
    offsets, offset = [], 1
    for side in sides:
        offsets.append(offset)
        offset += 0 if side is None else side.shape[1] * side.shape[2]
    places = []
    for w, (start, low, high, end) in enumerate(bounds):
        for cell in (*range(start, low), *range(high, end)):
            column, row = w - slope * cell - before, cell - lead
            beside = column + before if column < 0 else column - columns + (before if row < 0 else 0)
            row = rows - 1 - row if up and row >= 0 else row
            if 0 <= column < columns:
                part, place = 0, (row + lead) * columns + (columns - 1 - column if left else column)
            elif row < 0:
                part, place = 1, (row + lead) * (before + after) + beside
            else:
                part, place = (2, row * before + beside) if column < 0 else (3, row * after + beside)
            places.append(0 if sides[part] is None else offsets[part] + place)
    source = torch.cat([blank, *(side.flatten(1, 2) for side in sides if side is not None)], 1)
    found = source.index_select(1, torch.tensor(places, device=blank.device)).split(counts, 1)
    return [part if n else None for n, part in zip(counts, found, strict=True)]


def _wavefront_empty(blanks: Sequence[Tensor], given: Sequence[Tensor], shape: tuple[int, int]) -> list[Tensor]:
    """States of no cells, which depend on what is given."""
    found = []
    for blank in blanks:
        state = blank if blank.dtype == torch.bool else blank + zero_of(*given, dtype=blank.dtype)
        found.append(state.unsqueeze(1).expand(blank.shape[0], *shape, *blank.shape[2:]))
    return found


def wavefront(
    step: _WavefrontStep,
    blanks: Sequence[Tensor],
    halos: Sequence[Sequence[Tensor | None]],
    reads: Sequence[tuple[int, int, int]],
    operands: Sequence[Tensor],
    shape: tuple[int, int],
    *,
    slope: int = 1,
    margins: tuple[int, int, int] = (1, 1, 0),
    up: bool = False,
    left: bool = False,
) -> list[Tensor]:
    """The states of a recurrence over a grid: each read (n, d, e) of a step is state n at (row - d, column - e).

    `margins` are how many rows before the first, and columns before the first and after the last, a step reads; `up` and
    `left` turn the two axes round. Every read lies on an earlier front: slope * d + e >= 1.
    Shapes:  blanks [B, 1, ...], 0; halos, each None where it is 0: the rows before [B, lead, J, ...], the corners
             [B, lead, before + after, ...], the columns before [B, I, before, ...] and after [B, I, after, ...];
             operands [B or 1, I or 1, J or 1, ...]; shape (I, J) -> states [B, I, J, ...]
    """
    if not shape[0] * shape[1]:
        return _wavefront_empty(blanks, [*operands, *(s for sides in halos for s in sides if s is not None)], shape)
    turned, device = (up, left), blanks[0].device
    bounds = _wavefront_bounds(shape, slope, margins)
    traced = torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
    if not (torch.is_grad_enabled() or traced) and shape[1] > slope:
        spans = [(w, low, high - low) for w, (_, low, high, _) in enumerate(bounds) if low < high]
        return wavefront_in_place(step, blanks, halos, reads, operands, shape, spans, slope, margins, turned)
    order, back = _wavefront_orders(bounds, shape, slope, margins, turned, device)
    sizes = [high - low for _, low, high, _ in bounds if low < high]
    cells = [x.expand(x.shape[0], *shape, *x.shape[3:]).flatten(1, 2) for x in operands]
    given = [_wavefront_ordered(x, order, back).split(sizes, 1) for x in cells]
    around = [
        iter(_wavefront_halo(blank, sides, bounds, shape, slope, margins, turned))
        for blank, sides in zip(blanks, halos, strict=True)
    ]
    near = [(n, d, slope * d + e) for n, d, e in reads]
    reach = max(m for _, _, m in near)
    fronts: list[list[Tensor]] = []  # with their halo; empty when they are read no more
    found: list[Sequence[Tensor]] = []
    for w, (_, low, high, _) in enumerate(bounds):
        inner: Sequence[Tensor | None] = [None] * len(blanks)
        if low < high:
            earlier = [fronts[w - m][n].narrow(1, low - d - bounds[w - m][0], high - low) for n, d, m in near]
            inner = step(earlier, [x[len(found)] for x in given])
            found.append(inner)
        front = []
        for halo, state in zip(around, inner, strict=True):
            parts = [part for part in (next(halo), state, next(halo)) if part is not None]
            front.append(parts[0] if len(parts) == 1 else torch.cat(parts, 1))
        fronts.append(front)
        if w >= reach:
            fronts[w - reach] = []
    wholes = (torch.cat(states, 1) for states in zip(*found, strict=True))
    return [_wavefront_ordered(x, back, order).unflatten(1, shape) for x in wholes]

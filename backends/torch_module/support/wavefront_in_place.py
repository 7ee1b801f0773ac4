"""The fronts of a grid as slices of it, written where they stand: for calls that no gradient will come back to."""

from collections.abc import Callable, Sequence

from torch import Tensor


def wavefront_in_place(
    step: Callable[[Sequence[Tensor], Sequence[Tensor]], Sequence[Tensor]],
    blanks: Sequence[Tensor],
    halos: Sequence[Sequence[Tensor | None]],
    reads: Sequence[tuple[int, int, int]],
    operands: Sequence[Tensor],
    shape: tuple[int, int],
    fronts: Sequence[tuple[int, int, int]],
    slope: int,
    margins: tuple[int, int, int],
    turned: tuple[bool, bool],
) -> list[Tensor]:
    """The states of `wavefront`, whose arguments these are, `slope` being less than there are columns; each front (its
    number, its first row, those of the halo among them, how many cells it has).

    From a front's cell to its next one it is a row down and `slope` columns back: as far everywhere in a grid that is
    written row after row, so that a front is a slice. Gradients would come back by as many slices, each of them as large
    as the grid.
    """
    (rows, columns), (lead, before, after) = shape, margins
    flips = [dim for dim, turn in zip((1, 2), turned, strict=True) if turn]
    wholes = []  # the states with their halo around them
    for blank, (above, corners, first, last) in zip(blanks, halos, strict=True):
        whole = blank.new_empty(blank.shape[0], lead + rows, before + columns + after, *blank.shape[2:])
        head, body = whole[:, :lead], whole[:, lead:]
        head[:, :, :before], head[:, :, before + columns :] = (0, 0) if corners is None else corners.split([before, after], 2)
        head[:, :, before : before + columns] = 0 if above is None else above.flip(2) if turned[1] else above
        body[:, :, :before] = 0 if first is None else first.flip(1) if turned[0] else first
        body[:, :, before + columns :] = 0 if last is None else last.flip(1) if turned[0] else last
        wholes.append(whole)
    given = [x.expand(x.shape[0], *shape, *x.shape[3:]) for x in operands]
    given = [(x.flip(flips) if flips else x).contiguous() for x in given]
    width = before + columns + after
    near = [_wavefront_slices(wholes[n], slope, d * width + e) for n, d, e in reads]
    here = [_wavefront_slices(x, slope) for x in given]
    there = [_wavefront_slices(whole, slope) for whole in wholes]
    for w, low, count in fronts:
        cell, place = (low - lead) * columns + w - slope * low - before, low * width + w - slope * low
        found = step([x(place, count) for x in near], [x(cell, count) for x in here])
        for state, value in zip(there, found, strict=True):
            state(place, count).copy_(value)
    inner = [whole[:, lead:, before : before + columns] for whole in wholes]
    return [x.flip(flips) if flips else x for x in inner]


def _wavefront_slices(x: Tensor, slope: int, back: int = 0) -> Callable[[int, int], Tensor]:
    """Of a grid [B, I, J, ...]: the front of `count` cells from the place `cell` on, so far back, [B, count, ...]."""
    (batch, _, columns, *rest), (over, _, across, *strides) = x.shape, x.stride()
    apart = (over, (columns - slope) * across, *strides)
    begin = x.storage_offset() - back * across

    def front(cell: int, count: int) -> Tensor:
        return x.as_strided((batch, count, *rest), apart, begin + cell * across)

    return front

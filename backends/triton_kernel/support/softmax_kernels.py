"""What kernels of normalised reads load and store."""

import triton
import triton.language as tl


@triton.jit
def _tile(x, stride, count, WIDTH: tl.constexpr, PADDED: tl.constexpr, LENGTH: tl.constexpr):
    """[LENGTH, PADDED] of rows with contiguous features, zeros behind `count` rows and WIDTH features."""
    row, feature = tl.arange(0, LENGTH), tl.arange(0, PADDED)
    mask = (row < count)[:, None]
    if WIDTH < PADDED:
        mask = mask & (feature < WIDTH)[None, :]
    return tl.load(x + row[:, None] * stride + feature[None, :], mask=mask, other=0)


@triton.jit
def _along(x, stride, count, LENGTH: tl.constexpr):
    """[LENGTH] entries, 0 behind `count`."""
    place = tl.arange(0, LENGTH)
    return tl.load(x + place * stride, mask=place < count, other=0)


@triton.jit
def _level_rows(x, count, LENGTH: tl.constexpr):
    """Levels in base 2 for exp2(z - level): 0 where nothing counted, inf behind `count`."""
    place = tl.arange(0, LENGTH)
    level = tl.load(x + place, mask=place < count, other=float("inf"))
    return tl.where(level == float("-inf"), 0.0, level * 1.4426950408889634)


@triton.jit
def _pairs(x, own, other, count, others, LENGTH: tl.constexpr, OTHERS: tl.constexpr):
    """[LENGTH, OTHERS] entries at steps of `own` and `other`, 0 outside."""
    row, column = tl.arange(0, LENGTH), tl.arange(0, OTHERS)
    mask = (row < count)[:, None] & (column < others)[None, :]
    place = tl.cast(row, tl.int64)[:, None] * own + tl.cast(column, tl.int64)[None, :] * other
    return tl.load(x + place, mask=mask, other=0)


@triton.jit
def _store_rows(x, tile, stride, count, WIDTH: tl.constexpr, PADDED: tl.constexpr, LENGTH: tl.constexpr):
    """The place of `_tile`, in the tensor's own type."""
    row, feature = tl.arange(0, LENGTH), tl.arange(0, PADDED)
    mask = (row < count)[:, None]
    if WIDTH < PADDED:
        mask = mask & (feature < WIDTH)[None, :]
    tl.store(x + row[:, None] * stride + feature[None, :], tile.to(x.dtype.element_ty), mask=mask)


@triton.jit
def _store_pairs(x, tile, stride, count, others, LENGTH: tl.constexpr, OTHERS: tl.constexpr):
    """The place of `_pairs`, its rows `stride` apart."""
    row, column = tl.arange(0, LENGTH), tl.arange(0, OTHERS)
    mask = (row < count)[:, None] & (column < others)[None, :]
    tl.store(x + tl.cast(row, tl.int64)[:, None] * stride + column[None, :], tile.to(x.dtype.element_ty), mask=mask)


@triton.jit
def _row_places(spans, first, count, LENGTH: tl.constexpr):
    """Of packed sequences, for each row from the first: its position, and the column that is at position 0.

    `spans` has four integers for each place: the row that position 0 of its sequence would have if all that it sees were
    here, the columns where the sequence begins and ends, and the row where it begins.
    """
    place = tl.arange(0, LENGTH)
    at, there = spans + tl.cast(first, tl.int64) * 4 + place * 4, place < count - first
    return first + place - tl.load(at, mask=there, other=0), tl.load(at + 1, mask=there, other=0)


@triton.jit
def _column_places(spans, first, count, LENGTH: tl.constexpr):
    """The same for each column, and the row that is at position 0."""
    place = tl.arange(0, LENGTH)
    at, there = spans + tl.cast(first, tl.int64) * 4 + place * 4, place < count - first
    return first + place - tl.load(at + 1, mask=there, other=0), tl.load(at, mask=there, other=0)


@triton.jit
def _row_bounds(spans, first, count, LENGTH: tl.constexpr):
    """For each row, where the columns of its sequence begin and end."""
    place = tl.arange(0, LENGTH)
    at, there = spans + tl.cast(first, tl.int64) * 4 + place * 4, place < count - first
    return tl.load(at + 1, mask=there, other=0), tl.load(at + 2, mask=there, other=0)


@triton.jit
def _column_bounds(spans, first, count, LENGTH: tl.constexpr):
    """For each column, where the rows of its sequence begin and end."""
    place = tl.arange(0, LENGTH)
    at, there = spans + tl.cast(first, tl.int64) * 4 + place * 4, place < count - first
    count = tl.load(at + 2, mask=there, other=0) - tl.load(at + 1, mask=there, other=0)
    return tl.load(at + 3, mask=there, other=0), tl.load(at, mask=there, other=0) + count


@triton.jit
def _row_sequence(spans, place, first, last):
    """For the sequence of one row: the positions of those of the rows first to last that it has, the same of its columns,
    and the number of one that stands for the sequence."""
    at = spans + tl.cast(place, tl.int64) * 4
    zero, begin, end, head = tl.load(at), tl.load(at + 1), tl.load(at + 2), tl.load(at + 3)
    return tl.maximum(first, head) - zero, tl.minimum(last + 1, zero + end - begin) - 1 - zero, begin, begin, end, begin


@triton.jit
def _column_sequence(spans, place, first, last):
    """The same for the sequence of one column, and of its rows."""
    at = spans + tl.cast(place, tl.int64) * 4
    zero, begin, end, head = tl.load(at), tl.load(at + 1), tl.load(at + 2), tl.load(at + 3)
    return tl.maximum(first, begin) - begin, tl.minimum(last + 1, end) - 1 - begin, zero, head, zero + end - begin, begin


@triton.jit
def _delta_kernel(d_o, o, d_level, delta, T, heads, E: tl.constexpr, BE: tl.constexpr, BT: tl.constexpr):
    """delta = sum of d_o o over features, less d_level: d_o and o [B, T, heads, E], the others [B, heads, T]."""
    blocks = tl.cdiv(T, BT)
    plane = tl.cast(tl.program_id(0) // blocks, tl.int64)
    first = tl.program_id(0) % blocks * BT
    batch = plane // heads
    place = ((batch * T + first) * heads + plane - batch * heads) * E
    d_tile = _tile(d_o + place, heads * E, T - first, E, BE, BT).to(tl.float32)
    o_tile = _tile(o + place, heads * E, T - first, E, BE, BT).to(tl.float32)
    row = first + tl.arange(0, BT)
    level = tl.load(d_level + plane * T + row, mask=row < T, other=0)
    tl.store(delta + plane * T + row, tl.sum(d_tile * o_tile, 1) - level, mask=row < T)

"""What a chunk's rows leave of each other, for the kernels of all matrix states: tiles, gates, and the pairs (i, j).

A step is one row, or APART rows that do not read each other's writes: then j counts for i only where it belongs to an
earlier step. APART = 0: a row reads its own write, too. BEFORE: a step's reads come before its decay, not after it.
"""

import triton
import triton.language as tl

FLOOR = tl.constexpr(-256.0)  # a factor 2^-256 is 0 in float32; -inf would give NaN in products with 0
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit
def _chunks_of(table, batch, count, PACKED: tl.constexpr):
    """(where in the batch the rows are, first chunk, the one behind the last). PACKED: states are of sequences, whose chunks
    the table bounds, one behind the other."""
    begin, end = 0, count
    if PACKED:
        begin, end = tl.load(table + batch), tl.load(table + batch + 1)
        batch *= 0
    return batch, begin, end


@triton.jit
def _load_tile(x, row, column, stride, rows, columns):
    """[R, C] of a matrix with contiguous rows; zeros outside."""
    mask = (row < rows)[:, None] & (column < columns)[None, :]
    return tl.load(x + row[:, None] * stride + column[None, :], mask=mask, other=0)


@triton.jit
def _store_tile(x, tile, row, column, stride, rows, columns):
    """The same place, written in the tensor's own type."""
    mask = (row < rows)[:, None] & (column < columns)[None, :]
    tl.store(x + row[:, None] * stride + column[None, :], tile.to(x.dtype.element_ty), mask=mask)


@triton.jit
def _pairs_at(place, row, column):
    """Where the pairs [i, j] of the chunk with the number `place` are, and which: C / 16 blocks of 16 rows one behind the
    other, the rows of each with the columns up to its end. The rest of the square, above the diagonal, is zeros."""
    C: tl.constexpr = row.shape[0]
    block = row // 16
    first = (8 * block * (block + 1) + row % 16 * (block + 1)) * 16
    return place * (C * (C + 16) // 2) + first[:, None] + column[None, :], (column // 16)[None, :] <= block[:, None]


@triton.jit
def _load_pairs(x, place, row, column):
    """[C, C] of what rows i of a chunk have of rows j <= i."""
    at, mask = _pairs_at(place, row, column)
    return tl.load(x + at, mask=mask, other=0)


@triton.jit
def _store_triangle(x, tile, place, row, column):
    """The same, written in the tensor's own type."""
    at, mask = _pairs_at(place, row, column)
    tl.store(x + at, tile.to(x.dtype.element_ty), mask=mask)


@triton.jit
def _load_start(start, batch, head, key, value, by_batch, by_head, by_key, by_value, keys, values):
    """[K, V] of the first states [B, H, K, V], which may be one number for all; zeros outside."""
    mask = (key < keys)[:, None] & (value < values)[None, :]
    place = key[:, None] * by_key + value[None, :] * by_value
    return tl.load(start + batch * by_batch + head * by_head + place, mask=mask, other=0)


@triton.jit
def _gates_of(gate):
    """Natural logarithms as base-2 exponents that stay finite."""
    return tl.maximum(gate.to(tl.float32) * LOG2_E, FLOOR)


@triton.jit
def _sums(choices, number, x, C: tl.constexpr, PRECISION: tl.constexpr):
    """The sums of rows of x that the matrix `number` of 0 and 1 in `choices` [_, C, C] chooses.

    In float32 if the matrices are; in two parts, which keep twice the bits, if they are bfloat16.
    """
    row, column = tl.arange(0, C), tl.arange(0, C)
    choice = tl.load(choices + number * C * C + row[:, None] * C + column[None, :])
    if choice.dtype == tl.bfloat16:
        high = x.to(tl.bfloat16)
        found = tl.dot(choice, (x - high.to(tl.float32)).to(tl.bfloat16))
        found = tl.dot(choice, high, found)
    else:
        found = tl.dot(choice, x, input_precision=PRECISION)
    return found


@triton.jit
def _counts(row, column, APART: tl.constexpr):
    """[i, j]: is j's write there when i reads?"""
    if APART == 0:
        found = column[None, :] <= row[:, None]
    else:
        found = (column // APART)[None, :] < (row // APART)[:, None]
    return found


@triton.jit
def _across(row, column, level, APART: tl.constexpr):
    """[i, j]: is i in the second half and j in the first half of one block of 2 * 2^level rows, and does j count?"""
    half = row >> level
    found = (column >> level)[None, :] == tl.where((half & 1) == 1, half - 1, -1)[:, None]
    if APART > 1:  # halves of a step
        found = found & _counts(row, column, APART)
    return found


@triton.jit
def _within(row, column, level, APART: tl.constexpr):
    """[i, j]: does j count for i, and are both in one block of 2^level rows?"""
    return ((column >> level)[None, :] == (row >> level)[:, None]) & _counts(row, column, APART)


@triton.jit
def _middle_sums(choices, gate, LEVELS: tl.constexpr, C: tl.constexpr, PRECISION: tl.constexpr):
    """The largest level at whose blocks of 2^level rows nothing decays by more than 2^-8 between middle and rows, and
    those sums: positive behind the middle, negative before it. At level 0 they are 0."""
    level = LEVELS
    sums = _sums(choices, 2 * LEVELS + 4 + level, gate, C, PRECISION)
    while tl.max(tl.max(tl.abs(sums), 1), 0) > 8.0:
        level -= 1
        sums = _sums(choices, 2 * LEVELS + 4 + level, gate, C, PRECISION)
    return level, sums


@triton.jit
def _head_sums_kernel(g, sums, T, H, C: tl.constexpr, BH: tl.constexpr):
    """One decay for each head, [B, T, H]: the sums of a chunk's exponents that all its kernels read, [B, N, H, 3, C].

    From the chunk's start to each row, as a float64 number in two parts, so that what cancels in differences costs nothing;
    and of the rows after each.
    """
    chunk, head = tl.program_id(0).to(tl.int64), tl.program_id(1) * BH + tl.arange(0, BH)
    count = tl.cdiv(T, C)
    batch, row = chunk // count, tl.arange(0, C)
    rows = T - chunk % count * C
    g += (batch * T + chunk % count * C) * H
    inside = (head < H)[None, :]
    gate = _gates_of(tl.load(g + row[:, None] * H + head[None, :], mask=(row < rows)[:, None] & inside, other=0))
    later = (row + 1 < C) & (row + 1 < rows)
    after = _gates_of(tl.load(g + (row + 1)[:, None] * H + head[None, :], mask=later[:, None] & inside, other=0))
    upto = tl.cumsum(gate.to(tl.float64), 0)
    high = upto.to(tl.float32)
    place = sums + (chunk * H + head)[None, :] * 3 * C + row[:, None]
    tl.store(place, high, mask=inside)
    tl.store(place + C, (upto - high.to(tl.float64)).to(tl.float32), mask=inside)
    tl.store(place + 2 * C, tl.cumsum(after, 0, reverse=True), mask=inside)


@triton.jit
def _head_decays(sums, place, row, APART: tl.constexpr, BEFORE: tl.constexpr):
    """What is left, by the sums of one decay for each head, at a chunk's rows of what entered it [C], each a step earlier if
    BEFORE; of rows' writes at its end [C]; and at its end of what entered it."""
    C: tl.constexpr = row.shape[0]
    SHIFT: tl.constexpr = APART if BEFORE else 0
    sums += place * 3 * C
    reads = tl.exp2(tl.load(sums + (row - SHIFT), mask=row >= SHIFT, other=0))
    return reads, tl.exp2(tl.load(sums + 2 * C + row)), tl.exp2(tl.load(sums + (C - 1)))


@triton.jit
def _signs_of(signs, base, row, rows, H, SIGNED: tl.constexpr):
    """[C] the sign of all decays from the sequence's start to a row: what decays from j to i has the sign of both."""
    sign = tl.full(row.shape, 1.0, tl.float32)
    if SIGNED:
        sign = tl.load(signs + base + row * H, mask=row < rows, other=0)
    return sign


@triton.jit
def _straddling_sums(choice, x, row, column, SHIFT: tl.constexpr, NARROW: tl.constexpr):
    """[t]: the sum of what x [i, j] has with i from t on and j before t - SHIFT. NARROW: by a product in bfloat16 with `choice`,
    which chooses those rows: what x is made of has no more bits."""
    if NARROW:
        chosen = tl.load(choice + row[:, None] * row.shape[0] + column[None, :])
        later = tl.dot(chosen, x.to(tl.bfloat16))
    else:
        later = tl.cumsum(x, 0, reverse=True)
    return tl.sum(tl.where(column[None, :] < (row - SHIFT)[:, None], later, 0.0), 1)


@triton.jit
def _head_factors(sums, place, row, column, APART: tl.constexpr, BEFORE: tl.constexpr):
    """[C, C] of what is left at row i of row j's write, 0 where j does not count for i; by `_head_sums_kernel`'s sums."""
    C: tl.constexpr = row.shape[0]
    SHIFT: tl.constexpr = APART if BEFORE else 0
    sums += place * 3 * C
    read, write = tl.load(sums + (row - SHIFT), mask=row >= SHIFT, other=0), tl.load(sums + column)
    rest = tl.load(sums + C + (row - SHIFT), mask=row >= SHIFT, other=0)
    spans = (read[:, None] - write[None, :]) + (rest[:, None] - tl.load(sums + C + column)[None, :])
    return tl.exp2(tl.where(_counts(row, column, APART), spans, float("-inf")))

"""The kernel that cuts packed sequences into pieces, none of which is of two."""

import triton
import triton.language as tl


@triton.jit
def _pieces_kernel(spans, table, N, T, LENGTH, FLIPPED: tl.constexpr, BN: tl.constexpr):
    """Of each piece of at most LENGTH steps: first step and end, the end of its sequence, the first piece of that, and its
    number. spans [N, 2] -> table [pieces, 5]; FLIPPED counts steps from the last position. A piece that is left over has
    no steps, and is no sequence's last one.
    """
    piece, place = tl.program_id(0), tl.arange(0, BN)
    number = N - 1 - place if FLIPPED else place
    low = tl.load(spans + 2 * number, mask=place < N, other=0).to(tl.int32)
    high = tl.load(spans + 2 * number + 1, mask=place < N, other=0).to(tl.int32)
    begin = T - high if FLIPPED else low
    stop = T - low if FLIPPED else high
    count = (tl.maximum(stop - begin, 0) + LENGTH - 1) // LENGTH
    after = tl.cumsum(count, 0)
    own = (after > piece) & (after - count <= piece)
    there = tl.sum(own.to(tl.int32), 0) > 0
    head = tl.sum(tl.where(own, after - count, 0), 0)
    first = tl.sum(tl.where(own, begin, 0), 0) + (piece - head) * LENGTH
    last = tl.sum(tl.where(own, stop, 0), 0)
    row = table + piece * 5
    tl.store(row, tl.where(there, first, 0))
    tl.store(row + 1, tl.where(there, tl.minimum(first + LENGTH, last), 0))
    tl.store(row + 2, tl.where(there, last, -1))
    tl.store(row + 3, tl.where(there, head, piece))
    tl.store(row + 4, tl.sum(tl.where(own, number, 0), 0))

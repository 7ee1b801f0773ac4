"""Kernels of a factor for each row of a tensor: the products, and both gradients in one pass over memory."""

import triton
import triton.language as tl


@triton.jit
def _rows_scale_kernel(x, by, out, ROWS, D, BR: tl.constexpr, BD: tl.constexpr):
    """out = x by: x [ROWS, D], by [ROWS]."""
    row = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)
    factor = tl.load(by + row, mask=row < ROWS, other=0).to(tl.float32)
    for first in range(0, D, BD):
        column = first + tl.arange(0, BD)
        mask = (row < ROWS)[:, None] & (column < D)[None, :]
        place = row[:, None] * D + column[None, :]
        found = tl.load(x + place, mask=mask, other=0).to(tl.float32) * factor[:, None]
        tl.store(out + place, found.to(out.dtype.element_ty), mask=mask)


@triton.jit
def _rows_scale_adjoint_kernel(grad, x, by, d_x, d_by, ROWS, D, BR: tl.constexpr, BD: tl.constexpr):
    """d_x = grad by, d_by = sum of grad x along a row."""
    row = tl.program_id(0).to(tl.int64) * BR + tl.arange(0, BR)
    factor = tl.load(by + row, mask=row < ROWS, other=0).to(tl.float32)
    total = tl.zeros([BR], tl.float32)
    for first in range(0, D, BD):
        column = first + tl.arange(0, BD)
        mask = (row < ROWS)[:, None] & (column < D)[None, :]
        place = row[:, None] * D + column[None, :]
        given = tl.load(grad + place, mask=mask, other=0).to(tl.float32)
        total += tl.sum(given * tl.load(x + place, mask=mask, other=0).to(tl.float32), 1)
        tl.store(d_x + place, (given * factor[:, None]).to(d_x.dtype.element_ty), mask=mask)
    tl.store(d_by + row, total, mask=row < ROWS)

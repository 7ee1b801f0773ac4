"""h[i, j] = A[i, j] h[i-1, j] + C[i, j] h[i, j-1] + b[i, j] with matrices A and C, by doubling of blocks.

A block of p x s cells is an affine map: what leaves it, downwards and to the right, of what enters it from above and from
the left. Two neighbours are joined by putting the edge between them in: four products of matrices over the cells of
edges. So the sides double until one block is left, and the edges inside are found on the way back, from blocks to cells.
"""

from typing import Any

import torch
from torch import Tensor

from ..runtime_calls import _full_backward
from .zero_of import zero_of


class _GridScan(torch.autograd.Function):
    """Keeps the matrices and the states. The adjoint is the same recurrence from the far corner, with the matrices transposed."""

    @staticmethod
    def forward(a: Tensor, c: Tensor, b: Tensor, top: Tensor, left: Tensor) -> Tensor:
        return _grid_scan_doubled(a, c, b, top, left)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        a, c, _, top, left = inputs
        ctx.save_for_backward(a, c, top, left, output)

    @staticmethod
    @_full_backward
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, ...]:
        a, c, top, left, h = ctx.saved_tensors
        d_b = _grid_scan_adjoint(a, c, grads[0])
        above = torch.cat([top.unsqueeze(0), h[:-1]])
        beside = torch.cat([left.unsqueeze(1), h[:, :-1]], 1)
        d_a, d_c = d_b @ above.mT.conj(), d_b @ beside.mT.conj()
        d_top, d_left = a[0].mT.conj() @ d_b[0], c[:, 0].mT.conj() @ d_b[:, 0]
        return d_a.sum_to_size(a.shape), d_c.sum_to_size(c.shape), d_b, d_top, d_left

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Tensor) -> tuple[Tensor, int]:
        """The mapped axis joins the batch of matrices."""
        merged = []
        for x, dim, place in zip(inputs, in_dims, (2, 2, 2, 1, 1), strict=True):
            x = x.unsqueeze(0).expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
            merged.append(x.movedim(0, place).flatten(place, place + 1))
        h: Tensor = _GridScan.apply(*merged)  # type: ignore[no-untyped-call]
        return torch.unflatten(h, 2, (info.batch_size, -1)), 2


def _grid_scan_adjoint(a: Tensor, c: Tensor, grad: Tensor) -> Tensor:
    """l[i, j] = grad[i, j] + A[i+1, j]^H l[i+1, j] + C[i, j+1]^H l[i, j+1]."""
    a, c = a.mT.conj(), c.mT.conj()
    if a.shape[:2] != (1, 1):
        a, c = a.roll(-1, 0), c.roll(-1, 1)  # what comes round is multiplied with zeros
    top, left = torch.zeros_like(grad[0]), torch.zeros_like(grad[:, 0])
    found: Tensor = _GridScan.apply(a.flip(0, 1), c.flip(0, 1), grad.flip(0, 1), top, left)  # type: ignore[no-untyped-call]
    return found.flip(0, 1)


def _grid_scan_doubled(a: Tensor, c: Tensor, b: Tensor, top: Tensor, left: Tensor) -> Tensor:
    """a and c [I, J, M, n, n] or [1, 1, M, n, n], b [I, J, M, n, V], top [J, M, n, V], left [I, M, n, V] -> [I, J, M, n, V].

    What enters a block is one vector, its part 0 from above and its part 1 from the left; what leaves it likewise, below
    and to the right. Blocks beside each other along an axis share the part of that number, and the other part doubles.
    """
    n, borders = b.shape[-2], (top, left)
    cells = torch.cat([a, c], -1)
    maps, leaving = torch.cat([cells, cells], -2), torch.cat([b, b], -2)
    sides, sizes, known = [1, 1], [n, n], [False, False]  # of each part: cells, entries, and whether it is put in
    done: list[tuple[Tensor | None, Tensor, int, int]] = []
    while True:
        for k in (0, 1):
            if leaving.shape[k] == 1 and not known[k]:  # blocks as long as the grid: what enters them there is given
                part, other = _grid_parts(sizes, k)
                entering = _grid_edge(borders[k], leaving.shape[1 - k], sides[k]).unsqueeze(k)
                leaving = leaving[..., other, :] + _grid_times(maps[..., other, part], entering)
                maps, sizes[k], known[k] = maps[..., other, other], 0, True
                done.append((None, entering, k, 0))
        rows, columns = leaving.shape[:2]
        if rows * columns == 1:
            break
        axis = 1 if rows == 1 or columns > 1 and sides[0] <= sides[1] else 0
        (first, second), (one, two) = _grid_pairs(maps, axis), _grid_pairs(leaving, axis)
        shared, _ = _grid_parts(sizes, axis)
        done.append((first[..., shared, :], one[..., shared, :], axis, leaving.shape[axis]))
        sides[1 - axis] *= 2
        if rows * columns == 2:
            break
        maps, leaving = _grid_joined(first, second, one, two, sizes, axis)
        sizes[1 - axis] *= 2
    edges = [b.new_zeros(1, 1, *b.shape[2:3], 0, b.shape[-1]) if known[k] else _grid_edge(borders[k], 1, sides[k]).unsqueeze(k)
             for k in (0, 1)]  # fmt: skip
    for through, value, k, count in reversed(done):
        if through is None:
            edges[k] = value
        else:
            edges = _grid_parted(edges, through, value, k, count)
    return _grid_times(cells, torch.cat(edges, -2)) + b


def _grid_times(p: Tensor, x: Tensor) -> Tensor:
    """Matrices times edges; of a column or two, products of entries."""
    if p.shape[-1] == 1:
        return p * x
    if p.shape[-1] == 2:
        return torch.addcmul(p[..., :1] * x[..., :1, :], p[..., 1:], x[..., 1:, :])
    return torch.einsum("rczij,rczjv->rcziv", p, x)


def _grid_edge(x: Tensor, count: int, side: int) -> Tensor:
    """[L, M, n, V] -> [count, M, side n, V]: pieces of an edge, filled up with zeros."""
    if count * side != x.shape[0]:
        x = torch.cat([x, x.new_zeros(count * side - x.shape[0], *x.shape[1:])])
    return torch.unflatten(x, 0, (count, side)).transpose(1, 2).flatten(2, 3)


def _grid_parts(sizes: list[int], k: int) -> tuple[slice, slice]:
    """Where part k of a vector lies, and where the other one does."""
    parts = slice(0, sizes[0]), slice(sizes[0], sizes[0] + sizes[1])
    return parts[k], parts[1 - k]


def _grid_pairs(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """The even and the odd blocks along an axis, one of zeros where there is none; equal ones are there once."""
    if x.shape[axis] == 1:
        return x, x
    if x.shape[axis] % 2:
        x = torch.cat([x, torch.zeros_like(x.narrow(axis, 0, 1))], axis)
    first, second = torch.unflatten(x, axis, (-1, 2)).unbind(axis + 1)
    return first, second


def _grid_joined(
    first: Tensor, second: Tensor, one: Tensor, two: Tensor, sizes: list[int], axis: int
) -> tuple[Tensor, Tensor]:
    """Two blocks as one: what leaves the first by the part that they share enters the second."""
    shared, kept = _grid_parts(sizes, axis)
    same, twice = sizes[axis], sizes[1 - axis]
    at = [slice(n, n + twice) for n in (0, twice)] if axis else [slice(n, n + twice) for n in (same, same + twice)]
    end = slice(2 * twice, None) if axis else slice(0, same)
    through = second[..., :, shared] @ first[..., shared, :]
    maps = through.new_zeros(*through.shape[:-2], 2 * twice + same, 2 * twice + same)
    maps[..., at[0], at[0]], maps[..., at[0], end] = first[..., kept, kept], first[..., kept, shared]
    maps[..., at[1], at[1]], maps[..., end, at[1]] = second[..., kept, kept], second[..., shared, kept]
    maps[..., at[1], at[0]], maps[..., at[1], end] = through[..., kept, kept], through[..., kept, shared]
    maps[..., end, at[0]], maps[..., end, end] = through[..., shared, kept], through[..., shared, shared]
    moved = two + _grid_times(second[..., :, shared], one[..., shared, :])
    outer, last = [one[..., kept, :], moved[..., kept, :]], [moved[..., shared, :]]
    return maps, torch.cat(outer + last if axis else last + outer, -2)


def _grid_parted(edges: list[Tensor], through: Tensor, value: Tensor, axis: int, count: int) -> list[Tensor]:
    """What enters two blocks, of what enters both: of the part that they share, the second's is what leaves the first."""
    one, two = edges[1 - axis].chunk(2, -2)
    entering = torch.cat([one, edges[axis]] if axis else [edges[axis], one], -2)
    between = _grid_times(through, entering) + value
    found = [torch.stack(x, axis + 1).flatten(axis, axis + 1).narrow(axis, 0, count)
             for x in ((edges[axis], between), (one, two))]  # fmt: skip
    return found if axis == 0 else found[::-1]


def grid_scan(
    a: Tensor, c: Tensor, b: Tensor, top: Tensor | None = None, left: Tensor | None = None, *, up: bool = False, back: bool = False
) -> Tensor:
    """h[i, j] = A[i, j] h[i-1, j] + C[i, j] h[i, j-1] + b[i, j], h[-1, j] = top[j], h[i, -1] = left[i]; `up`: i runs
    downwards, and h[I, j] = top[j]; `back`: the same of j.

    Shapes:  a, c [B, I, J, H, n, n], b [B, I, J, H, n, V], top [B, J, H, n, V], left [B, I, H, n, V]; axes but n may be 1
             -> [B, I, J, H, n, V], float32 for 16 bits
    """
    dtype = torch.float32
    given = [b.new_zeros(1, 1, 1, 1, 1) if x is None else x for x in (top, left)]
    for x in (a, c, b, *given):
        dtype = torch.promote_types(dtype, x.dtype)
    batch, rows, columns, heads = torch.broadcast_shapes(
        a.shape[:4], c.shape[:4], b.shape[:4], (given[0].shape[0], 1, *given[0].shape[1:3]),
        (given[1].shape[0], given[1].shape[1], 1, given[1].shape[2]),
    )  # fmt: skip
    n, (width,) = b.shape[-2], torch.broadcast_shapes(*(x.shape[-1:] for x in (b, *given)))
    own = 1 if a.shape[0] == c.shape[0] == 1 else batch  # the same matrices for all sequences: these are columns then
    still = a.shape[1:3] == c.shape[1:3] == (1, 1) and not torch.compiler.is_compiling()
    cells = (1, 1) if still else (rows, columns)

    def merged(x: Tensor, lead: tuple[int, ...], wide: int) -> Tensor:
        """[B, .., H, n, w] -> [.., M, n, w], of which the batch is part of the matrices or of the columns."""
        x = x.to(dtype).expand(batch, *lead, heads, n, wide)
        if own == batch:
            return x.movedim(0, len(lead)).flatten(len(lead), len(lead) + 1)
        return x.movedim(0, -2).flatten(-2)

    flips = [k for k, flag in enumerate((up, back)) if flag]
    maps = [x.to(dtype).expand(own, *cells, heads, n, n).movedim(0, 2).flatten(2, 3).flip(flips) for x in (a, c)]
    write = merged(b, (rows, columns), width).flip(flips)
    above = merged(given[0], (columns,), width).flip([0] if back else [])
    beside = merged(given[1], (rows,), width).flip([0] if up else [])
    if 0 in write.shape:
        h = write + zero_of(*maps, above, beside)
    elif torch.compiler.is_compiling():
        h = _grid_scan_doubled(maps[0], maps[1], write, above, beside)
    else:
        h = _GridScan.apply(maps[0], maps[1], write, above, beside)  # type: ignore[no-untyped-call]
    h = h.flip(flips)
    if own == batch:
        return torch.unflatten(h, 2, (batch, heads)).movedim(2, 0)
    return torch.unflatten(h, -1, (batch, width)).movedim(-2, 0)

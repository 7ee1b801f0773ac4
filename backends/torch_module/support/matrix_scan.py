"""h[t] = A[t] h[t-1] + b[t] with matrices A, in chunks: all chunks take a step together, and hand their ends on."""

from typing import Any

import torch
from torch import Tensor

from ..runtime_calls import _full_backward
from .zero_of import zero_of


class _MatrixScan(torch.autograd.Function):
    """Keeps the matrices and the states. The adjoint is the same scan with the matrices transposed, backwards."""

    @staticmethod
    def forward(a: Tensor, b: Tensor, start: Tensor, reverse: bool) -> Tensor:
        return _matrix_scan_chunks(a, b, start, reverse)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        a, _, start, ctx.reverse = inputs
        ctx.save_for_backward(a, start, output)

    @staticmethod
    @_full_backward
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        a, start, h = ctx.saved_tensors
        before, after, first, last = (slice(1, None), slice(None, -1), -1, 0) if ctx.reverse else (
            slice(None, -1), slice(1, None), 0, -1)  # fmt: skip
        constant = a.shape[0] == 1
        back = a.mT.conj() if constant else torch.zeros_like(a)
        if not constant:  # what a step sends back is the matrix of the step after it
            back[before] = a[after].mT.conj()
        d_b = _MatrixScan.apply(back, grads[0], torch.zeros_like(start), not ctx.reverse)  # type: ignore[no-untyped-call]
        previous = torch.empty_like(h)
        previous[after], previous[first] = h[before], start
        d_a = d_b @ previous.mT.conj()
        if constant:
            d_a = d_a.sum(0, keepdim=True)
        d_start = a[first].mT.conj() @ d_b[first]
        return d_a, d_b, d_start, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, int]:
        """The mapped axis joins the batch of matrices."""
        merged = []
        for x, dim, place in zip(inputs[:3], in_dims[:3], (1, 1, 0), strict=True):
            x = x.unsqueeze(0).expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
            merged.append(x.movedim(0, place).flatten(place, place + 1))
        h: Tensor = _MatrixScan.apply(*merged, inputs[3])  # type: ignore[no-untyped-call]
        return torch.unflatten(h, 1, (info.batch_size, -1)), 1


def _matrix_scan_chunks(a: Tensor, b: Tensor, start: Tensor, reverse: bool, size: int = 32) -> Tensor:
    """a [T or 1, M, n, n], b [T, M, n, V], start [M, n, V] -> [T, M, n, V]."""
    if a.shape[0] == 1:
        return _matrix_scan_constant(a[0], b, start, reverse, size)
    time, batch = b.shape[:2]
    count = -(-time // size)
    if reverse:
        a, b = a.flip(0), b.flip(0)
    if count * size != time:
        a = torch.cat([a, a.new_zeros(count * size - time, *a.shape[1:])])
        b = torch.cat([b, b.new_zeros(count * size - time, *b.shape[1:])])
    steps = a.view(count, size, batch, *a.shape[2:]).transpose(0, 1).flatten(1, 2)  # [C, N M, n, n]
    writes = b.view(count, size, batch, *b.shape[2:]).transpose(0, 1).flatten(1, 2)
    entering = start.unsqueeze(0)
    if count > 1:
        end, whole = writes[0], steps[0]
        for i in range(1, size):
            end = torch.baddbmm(writes[i], steps[i], end)
            whole = torch.bmm(steps[i], whole)
        states = [start]
        for one, more in zip(whole.view(count, batch, *a.shape[2:]), end.view(count, batch, *b.shape[2:]), strict=True):
            states.append(torch.baddbmm(more, one, states[-1]))
        entering = torch.stack(states[:-1])
    h = torch.empty_like(writes)
    state = entering.flatten(0, 1)
    for i in range(size):
        state = torch.baddbmm(writes[i], steps[i], state)
        h[i] = state
    h = h.view(size, count, batch, *b.shape[2:]).transpose(0, 1).flatten(0, 1)[:time]
    return h.flip(0) if reverse else h.clone()


def _matrix_scan_constant(a: Tensor, b: Tensor, start: Tensor, reverse: bool, size: int) -> Tensor:
    """One matrix for all times: the chunks are columns beside each other, and a chunk's map is a power."""
    time, batch, n, columns = b.shape
    count = -(-time // size)
    b = b.flip(0) if reverse else b
    b = torch.cat([b, b.new_zeros(count * size - time, batch, n, columns)])
    writes = b.view(count, size, batch, n, columns).permute(1, 2, 3, 0, 4).reshape(size, batch, n, count * columns)
    end = writes[0]
    for i in range(1, size if count > 1 else 1):
        end = torch.baddbmm(writes[i], a, end)
    whole = torch.linalg.matrix_power(a, size)
    states = [start]
    for more in end.view(batch, n, count, columns).unbind(2)[:-1]:
        states.append(torch.baddbmm(more, whole, states[-1]))
    state = torch.stack(states, 2).flatten(2)
    h = torch.empty_like(writes)
    for i in range(size):
        state = torch.baddbmm(writes[i], a, state)
        h[i] = state
    h = h.view(size, batch, n, count, columns).permute(3, 0, 1, 2, 4).reshape(count * size, batch, n, columns)[:time]
    return h.flip(0) if reverse else h


def _matrix_scan_plain(a: Tensor, b: Tensor, start: Tensor, reverse: bool) -> Tensor:
    """The same without in-place writes, for torch.compile and torch.export."""
    states, h = start, []
    steps = list(zip(a.unbind(0), b.unbind(0), strict=True))
    for one, more in reversed(steps) if reverse else steps:
        states = one @ states + more
        h.append(states)
    return torch.stack(h[::-1] if reverse else h)


def matrix_scan(a: Tensor, b: Tensor, start: Tensor | None = None, *, reverse: bool = False) -> Tensor:
    """h[t] = A[t] h[t-1] + b[t], h[-1] = start; reverse: h[t] = A[t] h[t+1] + b[t], h[T] = start.

    Shapes:  a [B, T, H, n, n], b [B, T, H, n, V], start [B, H, n, V] or None; axes but n may be 1
             -> h [B, T, H, n, V], float32 for 16 bits
    """
    if start is None:
        start = torch.zeros((1, 1, 1, 1), dtype=b.dtype, device=b.device)
    dtype = torch.float32
    for given in (a, b, start):
        dtype = torch.promote_types(dtype, given.dtype)
    batch, time, heads = torch.broadcast_shapes(a.shape[:3], b.shape[:3], (start.shape[0], 1, start.shape[1]))
    size, (columns,) = a.shape[-1], torch.broadcast_shapes(b.shape[-1:], start.shape[-1:])
    if a.shape[0] == 1 < batch:  # the same matrices for all sequences, which are columns beside each other then
        b = b.expand(batch, -1, -1, -1, columns).permute(1, 2, 3, 0, 4).flatten(3).unsqueeze(0)
        start = start.expand(batch, -1, -1, columns).permute(1, 2, 0, 3).flatten(2).unsqueeze(0)
        together = matrix_scan(a.expand(1, -1, heads, size, size), b, start, reverse=reverse)[0]
        return torch.unflatten(together, -1, (batch, columns)).permute(3, 0, 1, 2, 4)
    own = a.shape[1] if time and not torch.compiler.is_compiling() else time  # 1 for a matrix that does not change
    a = a.to(dtype).expand(batch, own, heads, size, size).transpose(0, 1).reshape(own, batch * heads, size, size)
    b = (
        b.to(dtype)
        .expand(batch, time, heads, size, columns)
        .transpose(0, 1)
        .reshape(time, batch * heads, size, columns)
    )
    start = start.to(dtype).expand(batch, heads, size, columns).reshape(batch * heads, size, columns)
    if time == 0:
        h = b + zero_of(a, start)
    elif torch.compiler.is_compiling():
        h = _matrix_scan_plain(a, b, start, reverse)
    else:
        h = _MatrixScan.apply(a, b, start, reverse)  # type: ignore[no-untyped-call]
    return h.view(time, batch, heads, size, columns).transpose(0, 1)

"""Small functions that generated files take with them, each copied where it is used.

Architecture invariant: torch only, no import of seqdsl; a function calls only functions of this file, of `support`,
and of torch. Masks say which entries take part; what does not take part has no value and no gradient, and an empty
reduction has the value of rule 12.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .support.fft_conv import fft_conv


def _ratio(a: float, b: float) -> float:
    """a / b of numbers; nan or infinite where b is 0 (an axis may be empty)."""
    return a / b if b else math.nan if not a else math.copysign(math.inf, a)


def _straight_through(hard: Tensor, smooth: Tensor) -> Tensor:
    """The value of `hard` with the gradient of `smooth`."""
    return hard.detach() + (smooth - smooth.detach())


def _nonzero(x: Tensor) -> Tensor:
    return torch.where(x == 0, 1, x)


def _inv_softplus(x: Tensor) -> Tensor:
    return x + torch.log(-torch.expm1(-x))


def _logaddexp(a: Tensor, b: Tensor) -> Tensor:
    """log(exp(a) + exp(b)), without nan in first or second derivatives where one or both are -inf."""
    empty, lone = (a == -math.inf) & (b == -math.inf), (a == -math.inf) ^ (b == -math.inf)
    larger = torch.maximum(torch.where(empty, 0.0, a), torch.where(empty, 0.0, b))
    both = torch.logaddexp(torch.where(lone | empty, 0.0, a), torch.where(lone | empty, 0.0, b))
    return torch.where(empty, -math.inf, torch.where(lone, larger, both))


def _counted(kept: Tensor, b: Tensor, start: Tensor | None, reverse: bool = False) -> Tensor:
    """n[t] = kept[t] n[t-1] + b[t] of integers, kept 0 or 1, along dim 1: what was added since kept was last 0."""
    if reverse:
        return _counted(kept.flip(1), b.flip(1), start).flip(1)
    if b.shape[1] == 0:
        return b
    sums, at = b.cumsum(1), torch.arange(b.shape[1], device=b.device).reshape(1, -1, *[1] * (b.dim() - 2))
    last = torch.where(kept == 0, at, -1).cummax(1).values
    entered = torch.zeros_like(b[:, :1]) if start is None else start.unsqueeze(1)
    return sums + torch.where(last < 0, entered, -(sums - b).gather(1, last.clamp(min=0)))


def _bit_length(x: Tensor) -> Tensor:
    """How many binary digits x has: the number of powers of two that are <= x."""
    powers = torch.ones(62, dtype=torch.long, device=x.device) << torch.arange(62, device=x.device)
    return (powers <= x[..., None]).sum(-1)


def _popcount(x: Tensor) -> Tensor:
    return ((x[..., None] >> torch.arange(62, device=x.device)) & 1).sum(-1)


def _masked(x: Tensor, mask: Tensor | None, fill: float) -> Tensor:
    return x if mask is None else torch.where(mask, x, fill)


def _amax(x: Tensor, mask: Tensor | None, dims: int) -> Tensor:
    """The largest entry over the last `dims` dimensions; -inf, or the least whole number, where none takes part."""
    least = -math.inf if x.is_floating_point() else torch.iinfo(x.dtype).min
    x = _masked(x, mask, least).flatten(-dims)
    return x.amax(-1) if x.shape[-1] else x.new_full(x.shape[:-1], least)


def _amin(x: Tensor, mask: Tensor | None, dims: int) -> Tensor:
    """The smallest entry over the last `dims` dimensions; inf, or the largest whole number, where none takes part."""
    most = math.inf if x.is_floating_point() else torch.iinfo(x.dtype).max
    x = _masked(x, mask, most).flatten(-dims)
    return x.amin(-1) if x.shape[-1] else x.new_full(x.shape[:-1], most)


def _peak(x: Tensor) -> Tensor:
    """The largest entry over the last dimension, kept, without gradient; 0 where that is infinite or none is there."""
    if x.shape[-1] == 0:
        return x.new_zeros(*x.shape[:-1], 1)
    top = x.detach().amax(-1, keepdim=True)
    return torch.where(torch.isinf(top), 0.0, top)


def _logsumexp(x: Tensor, mask: Tensor | None, dims: int) -> Tensor:
    """log of the sum of exponentials over the last `dims` dimensions; -inf where nothing takes part."""
    x = _masked(x, mask, -math.inf).flatten(-dims)
    top = _peak(x)
    total = torch.exp(x - top).sum(-1)
    empty = total == 0
    return torch.where(empty, -math.inf, torch.log(torch.where(empty, 1.0, total)) + top[..., 0])


def _prod(x: Tensor, mask: Tensor | None, dims: int) -> Tensor:
    """The product over the last `dims` dimensions; 1 where nothing takes part."""
    return _masked(x, mask, 1).flatten(-dims).prod(-1)


def _any(x: Tensor, mask: Tensor | None, dims: int) -> Tensor:
    return (x if mask is None else x & mask).flatten(-dims).any(-1)


def _all(x: Tensor, mask: Tensor | None, dims: int) -> Tensor:
    return (x if mask is None else x | ~mask).flatten(-dims).all(-1)


def _argmax(x: Tensor, mask: Tensor | None, dims: int) -> Tensor:
    """The row-major position of the largest entry, the lowest of equals, over the last `dims` dimensions."""
    x = x.detach()
    x = _masked(x if x.is_floating_point() else x.double(), mask, -math.inf).flatten(-dims)
    if x.shape[-1] == 0:
        return torch.zeros(x.shape[:-1], dtype=torch.long, device=x.device)
    best = x.argmax(-1)
    if mask is None:
        return best
    first = mask.flatten(-dims).expand(x.shape).int().argmax(-1)
    return torch.where(x.amax(-1) == -math.inf, first, best)


def _softmax(x: Tensor, mask: Tensor | None, dims: int) -> Tensor:
    """Over the last `dims` dimensions; 0 outside the mask, and everywhere in a row where nothing takes part."""
    shape = x.shape if mask is None else torch.broadcast_shapes(x.shape, mask.shape)
    if mask is None:
        return torch.softmax(x.flatten(-dims), -1).reshape(shape)
    x = torch.where(mask, x, -math.inf).flatten(-dims)
    weight = torch.exp(x - _peak(x))
    total = weight.sum(-1, keepdim=True)
    return (weight / torch.where(total == 0, 1.0, total)).reshape(shape)


def _rank(x: Tensor, mask: Tensor | None, dims: int) -> Tensor:
    """How many entries beat each one, ties to the lower index; 0 outside the mask."""
    shape = x.shape if mask is None else torch.broadcast_shapes(x.shape, mask.shape)
    x = x.detach().expand(shape).flatten(-dims)
    order = torch.argsort(x, dim=-1, descending=True, stable=True)
    if mask is not None:
        mask = mask.expand(shape).flatten(-dims)
        order = order.gather(-1, torch.argsort(mask.gather(-1, order).int(), dim=-1, descending=True, stable=True))
    places = torch.arange(x.shape[-1], device=x.device).expand(order.shape)
    rank = torch.zeros_like(order).scatter(-1, order, places)
    return (rank if mask is None else torch.where(mask, rank, 0)).reshape(shape)


def _mean_of(x: Tensor, mask: Tensor | None) -> Tensor:
    """The mean over the last dimension, kept, of the entries that take part."""
    if mask is None:
        return x.mean(-1, keepdim=True) if x.shape[-1] else x.sum(-1, keepdim=True)
    count = mask.expand(torch.broadcast_shapes(x.shape, mask.shape)).sum(-1, keepdim=True).clamp(min=1)
    return torch.where(mask, x, 0).sum(-1, keepdim=True) / count


def _rms_norm(x: Tensor, mask: Tensor | None, dims: int, eps: float) -> Tensor:
    shape = x.shape if mask is None else torch.broadcast_shapes(x.shape, mask.shape)
    x, mask = x.expand(shape).flatten(-dims), None if mask is None else mask.expand(shape).flatten(-dims)
    x = _masked(x, mask, 0)
    return (x * torch.rsqrt(_mean_of(x * x, mask) + eps)).reshape(shape)


def _layer_norm(x: Tensor, mask: Tensor | None, dims: int, eps: float) -> Tensor:
    shape = x.shape if mask is None else torch.broadcast_shapes(x.shape, mask.shape)
    x, mask = x.expand(shape).flatten(-dims), None if mask is None else mask.expand(shape).flatten(-dims)
    return _rms_norm(_masked(x - _mean_of(x, mask), mask, 0), mask, 1, eps).reshape(shape)


def _l2_norm(x: Tensor, mask: Tensor | None, dims: int, eps: float) -> Tensor:
    shape = x.shape if mask is None else torch.broadcast_shapes(x.shape, mask.shape)
    x = _masked(x, mask, 0).expand(shape).flatten(-dims)
    return (x * torch.rsqrt((x * x).sum(-1, keepdim=True) + eps)).reshape(shape)


def _cumsum(x: Tensor, mask: Tensor | None, dims: int) -> Tensor:
    x = _masked(x, mask, 0)
    return x.flatten(-dims).cumsum(-1).reshape(x.shape)


def _fft(x: Tensor, n: int) -> Tensor:
    return torch.fft.fft(x) if x.numel() else _empty_transform(_to_complex(x), n)


def _ifft(x: Tensor, n: int) -> Tensor:
    return torch.fft.ifft(x) if x.numel() else _empty_transform(_to_complex(x), n)


def _rfft(x: Tensor, n: int) -> Tensor:
    return torch.fft.rfft(x) if x.numel() else _empty_transform(_to_complex(x), n)


def _irfft(x: Tensor, n: int) -> Tensor:
    return torch.fft.irfft(x, n=n) if n and x.numel() else _empty_transform(x.real, n)


def _empty_transform(x: Tensor, n: int) -> Tensor:
    """The transform of nothing, of length n: libraries refuse an empty batch, or an empty axis."""
    return x.sum(-1, keepdim=True).expand(*x.shape[:-1], n)


def _to_complex(x: Tensor) -> Tensor:
    return x if x.is_complex() else torch.complex(x, torch.zeros_like(x))


def _hadamard(x: Tensor, n: int) -> Tensor:
    """Walsh-Hadamard transform of the last dimension, orthonormal, in natural order."""
    shape, width = x.shape, 1
    if n & (n - 1):
        raise ValueError(f"hadamard needs a power of two, and the axis has length {n}")
    while width < n:
        x = x.reshape(*shape[:-1], n // (2 * width), 2, width)
        x = torch.stack([x[..., 0, :] + x[..., 1, :], x[..., 0, :] - x[..., 1, :]], -2)
        width *= 2
    return x.reshape(shape) / math.sqrt(max(n, 1))


def _dct(x: Tensor, n: int) -> Tensor:
    """DCT-II of the last dimension, orthonormal."""
    i = torch.arange(n, device=x.device, dtype=x.dtype)
    basis = torch.cos(math.pi * (2 * i[:, None] + 1) * i[None, :] / (2 * max(n, 1))) * math.sqrt(2 / max(n, 1))
    return x @ torch.where(i == 0, basis / math.sqrt(2), basis)


def _solve(matrix: Tensor, right: Tensor, n: int) -> Tensor:
    """x with sum[f] A[d, f] x[f] = b[d]."""
    shape = torch.broadcast_shapes(matrix.shape[:-2], right.shape[:-1])
    matrix, right = matrix.expand(*shape, *matrix.shape[-2:]), right.expand(*shape, right.shape[-1])
    found: Tensor = torch.linalg.solve(matrix, right[..., None])[..., 0]
    return found


def _qr(x: Tensor, n: int) -> Tensor:
    """Q of A = Q R with a positive diagonal of R."""
    q, r = torch.linalg.qr(x)
    signs = torch.sign(torch.diagonal(r, dim1=-2, dim2=-1))
    found: Tensor = q * torch.where(signs == 0, 1.0, signs)[..., None, :]
    return found


def _orthogonal(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A random (semi-)orthogonal matrix; further dimensions count as columns."""
    matrix = torch.empty(tuple(shape) if len(shape) > 1 else (1, *shape), dtype=dtype, device=device)
    return torch.nn.init.orthogonal_(matrix).reshape(tuple(shape))


def _zeros_before(x: Tensor, dim: int, count: int) -> Tensor:
    return x.new_zeros(*x.shape[:dim], count, *x.shape[dim + 1 :])


def _join(parts: Sequence[Tensor], dim: int) -> Tensor:
    """Concatenation along `dim`; elsewhere the parts broadcast."""
    shape = torch.broadcast_shapes(*(p.shape[:dim] + (1,) + p.shape[dim + 1 :] for p in parts))
    kept = [p.expand(*shape[:dim], p.shape[dim], *shape[dim + 1 :]) for p in parts]
    dtype = kept[0].dtype
    for part in kept[1:]:
        dtype = torch.promote_types(dtype, part.dtype)
    return torch.cat([p.to(dtype) for p in kept], dim)


def _span(x: Tensor, dim: int, start: int, length: int) -> Tensor:
    """`length` entries of a dimension from `start` on; those outside are 0."""
    size = x.shape[dim]
    first, last = min(max(start, 0), size), max(min(start + length, size), 0)
    inside = x.narrow(dim, first, max(last - first, 0))
    before, after = min(max(-start, 0), length), min(max(start + length - size, 0), length)
    if before == 0 and after == 0:
        return inside
    if before + after > length:  # all of it lies outside
        before, after = length - inside.shape[dim], 0
    parts = [_zeros_before(x, dim, before), inside, _zeros_before(x, dim, after)]
    return torch.cat([p for p in parts if p.shape[dim]] or parts[:1], dim)


def _last(x: Tensor, dim: int, count: int) -> Tensor:
    """The last entries of a dimension, zeros in front where there are fewer, in memory of their own."""
    return _span(x, dim, x.shape[dim] - count, count).clone()


def _windows(x: Tensor, dim: int, start: int, length: int, width: int) -> Tensor:
    """w[.., i, .., j] = x[.., start + i + j, ..] for i < length, j < width, 0 outside; the new dimension is last."""
    if length == 0 or width == 0:
        shape = (*x.shape[:dim], length, *x.shape[dim + 1 :], width)
        return x.new_zeros(shape)
    return _span(x, dim, start, length + width - 1).unfold(dim, width, 1)


def _segment_sum(x: Tensor, place: Tensor, length: int) -> Tensor:
    """y[.., p] = the sum of x[.., t] over the t whose place[.., t] is p; what lies outside is dropped."""
    inside = (place >= 0) & (place < length)
    y = x.new_zeros(*x.shape[:-1], length + 1).scatter_add(-1, torch.where(inside, place, length), x)
    return y[..., :length]


def _select(x: Tensor, dim: int, place: int) -> Tensor:
    """One entry of a dimension; 0 outside."""
    return x.select(dim, place) if 0 <= place < x.shape[dim] else x.new_zeros(x.shape[:dim] + x.shape[dim + 1 :])


def _gather(x: Tensor, places: Sequence[Tensor | None]) -> Tensor:
    """x at integer positions, one tensor for each dimension (None: all of it); 0 where a position lies outside.

    The positions broadcast; their dimensions come where the first gathered one was if those are neighbours, else first.
    """
    outside = any(n == 0 and p is not None for n, p in zip(x.shape, places, strict=True))
    if outside:
        x = x.new_zeros([n if p is None else max(n, 1) for n, p in zip(x.shape, places, strict=True)])
    index: list[Any] = []
    inside = None
    for place, size in zip(places, x.shape, strict=True):
        if place is None:
            index.append(slice(None))
            continue
        index.append(place.clamp(0, size - 1))
        fits = (place >= 0) & (place < size) & (not outside)
        inside = fits if inside is None else inside & fits
    found = x[tuple(index)]
    assert inside is not None
    gathered = [k for k, p in enumerate(places) if p is not None]
    adjacent = gathered[-1] - gathered[0] + 1 == len(gathered)
    after = len(places) - gathered[-1] - 1 if adjacent else len(places) - len(gathered)
    return found.masked_fill(~inside.reshape(*inside.shape, *[1] * after), 0)


def _long_conv(x: Tensor, w: Tensor) -> Tensor:
    """y[t] = sum over l <= t of w[l] x[t-l] along dim 1.

    Shapes:  x [B, T, ..], or [B, T, 1, ..] for one signal and many kernels, w [L, ..], or [B, L, ..] with a kernel for
             each sequence -> y [B, T, ..]
    """
    each = w.dim() == x.dim()
    shape = *x.shape[:2], *w.shape[1 + each :]
    if each and (w.shape[0] == 1 or w.stride(0) == 0):  # one kernel, repeated for the batch
        w, each = w[0], False
    x, w = x.reshape(*x.shape[:2], math.prod(x.shape[2:])), w.reshape(*w.shape[: 1 + each], math.prod(w.shape[1 + each :]))
    if torch.compiler.is_compiling() or shape[1] > 128:
        return fft_conv(x, w).reshape(shape)
    at = torch.arange(shape[1], device=x.device)
    lag = at[:, None] - at[None, :]
    inside = (lag >= 0) & (lag < w.shape[-2])
    taps = (
        torch.where(inside[..., None], w[..., lag.clamp(0, max(w.shape[-2] - 1, 0)), :], 0)
        if w.shape[-2]
        else w.new_zeros(*w.shape[:-2], shape[1], shape[1], w.shape[-1])
    )
    x = x.to(taps.dtype).expand(*x.shape[:2], w.shape[-1])
    return torch.einsum("btsc,bsc->btc" if each else "tsc,bsc->btc", taps, x).reshape(shape)


def _blocks(x: Tensor, heads: int, columns: int) -> Tensor:
    """[B, T, heads.., columns..] -> [B, T, H, K]: each group of dimensions becomes one, of length 1 for none."""
    lead = x.shape[: x.dim() - heads - columns]
    middle, last = x.shape[len(lead) : len(lead) + heads], x.shape[len(lead) + heads :]
    return x.reshape(*lead, math.prod(middle), math.prod(last))


def _stack(steps: Sequence[Tensor], dim: int, shape: Sequence[int], dtype: torch.dtype, like: Tensor) -> Tensor:
    """The steps of a loop as one tensor; where there are none, an empty one that depends on `like`."""
    if not steps:
        none = like.flatten()[:0].sum()
        return (none.real if none.is_complex() and not dtype.is_complex else none).to(dtype).expand(tuple(shape))
    whole = torch.broadcast_shapes(*(s.shape for s in steps))
    return torch.stack([s.expand(whole) for s in steps], dim)


def _tree_fold(fields: tuple[Tensor, ...], combine: Callable[..., tuple[Tensor, ...]], dim: int) -> tuple[Tensor, ...]:
    """The fold over a dimension by the balanced tree: neighbours paired, an odd last one passed up. Not empty."""
    while (count := fields[0].shape[dim]) > 1:
        pairs = count // 2
        left = [f.narrow(dim, 0, 2 * pairs).unflatten(dim, (pairs, 2)).select(dim + 1, 0) for f in fields]
        right = [f.narrow(dim, 0, 2 * pairs).unflatten(dim, (pairs, 2)).select(dim + 1, 1) for f in fields]
        level = combine(*left, *right)
        if count % 2:
            level = tuple(_join([a, f.narrow(dim, count - 1, 1)], dim) for a, f in zip(level, fields, strict=True))
        fields = level
    return tuple(f.select(dim, 0) for f in fields)


def _tree_scan(fields: tuple[Tensor, ...], combine: Callable[..., tuple[Tensor, ...]], dim: int) -> tuple[Tensor, ...]:
    """All prefix folds over a dimension, for an associative combine: log(n) rounds of doubled strides."""
    count, stride = fields[0].shape[dim], 1
    while stride < count:
        left = [f.narrow(dim, 0, count - stride) for f in fields]
        right = [f.narrow(dim, stride, count - stride) for f in fields]
        level = combine(*left, *right)
        fields = tuple(_join([f.narrow(dim, 0, stride), a], dim) for a, f in zip(level, fields, strict=True))
        stride *= 2
    return fields

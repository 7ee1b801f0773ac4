"""Gradients of windows: of what they are made of, and of their taps, by sums for shares of the positions."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from .fused_chain import _power
from .launching import _cdiv, _on_device
from .window_kernels import _window_source_kernel, _window_taps_kernel

WINDOW_LANES, WINDOW_TILE = 128, 1024  # entries of a block, side by side, and of a tile
WINDOW_SHARES = 1024  # programs that share what the gradients of taps are summed over
WINDOW_MOST = 64  # taps: above, a transform is cheaper


class _Window(NamedTuple):
    """sum over lag of taps[lag, ..] source[.., time - step lag - skip, ..], by the names of the dimensions."""

    source: str
    taps: str
    time: str
    lag: str
    step: int
    skip: int

    def features(self) -> list[str]:
        return [d for d in self.source.split() if d not in ("batch", self.time)]


def _window_lanes(window: _Window, x: Tensor, dims: str) -> Tensor:
    """[B, positions, lanes], in one piece of memory."""
    names = dims.split()
    order = [names.index(d) for d in ("batch", window.time, *window.features())]
    batch, time, *lanes = x.permute(order).shape
    return x.permute(order).reshape(batch, time, math.prod(lanes)).contiguous()


def _window_apart(lanes: Tensor, positions: int, before: int, number: Tensor) -> Tensor:
    """What was sent to packed sequences, where these stand behind what came before them: to which nothing was sent."""
    place = torch.arange(lanes.shape[1], device=lanes.device) + (number + 1) * before
    return lanes.new_zeros(1, positions, lanes.shape[2]).index_copy_(1, place, lanes)


def _window_taps(window: _Window, w: Tensor, lengths: Sequence[int]) -> Tensor:
    """[taps, lanes], in one piece of memory."""
    names = window.taps.split()
    here = [d for d in window.features() if d in names]
    x = w.permute([names.index(d) for d in (window.lag, *here)])
    for k, d in enumerate(window.features()):
        if d not in names:
            x = x.unsqueeze(1 + k)
    return x.expand(w.shape[names.index(window.lag)], *lengths).reshape(x.shape[0], math.prod(lengths)).contiguous()


def _window_adjoint(
    window: _Window, grad: Tensor, dims: str, x: Tensor, w: Tensor, before: int, number: Tensor | None, wanted: Sequence[bool]
) -> list[Tensor]:
    """The gradients of the source, `before` of whose positions come before the first one, and of the taps, as wanted. Packed
    sequences, of which position t is of the one with that `number`, have as many before each of them."""
    lengths = [x.shape[window.source.split().index(d)] for d in window.features()]
    lanes, flat = _window_lanes(window, grad, dims), _window_lanes(window, x, window.source)
    taps = _window_taps(window, w, lengths)
    if number is not None:
        lanes, before = _window_apart(lanes, flat.shape[1], before, number), 0
    (batch, time, width), positions, count = lanes.shape, flat.shape[1], taps.shape[0]
    blocks = {"BL": min(_power(width), WINDOW_LANES)}
    blocks["BR"] = max(1, min(WINDOW_TILE // blocks["BL"], _power(batch * positions)))
    columns = _cdiv(width, blocks["BL"])
    sizes = [positions, time, width, before, count, window.step, window.skip]
    d_x = flat.new_empty(flat.shape if wanted[0] else (0,))
    rows = _cdiv(batch * time, blocks["BR"])
    steps = max(1, rows * columns * count // WINDOW_SHARES)
    shares = _cdiv(rows, steps)
    sums = lanes.new_empty(shares if wanted[1] else 0, count, width)
    with _on_device(grad):
        if d_x.numel():
            programs = _cdiv(batch * positions, blocks["BR"]) * columns
            _window_source_kernel[(programs,)](lanes, taps, d_x, batch * positions, *sizes, **blocks)
        if sums.numel():
            _window_taps_kernel[(shares * columns, count)](lanes, flat, sums, batch * time, *sizes, steps, **blocks)
    d_w = _taps_again(window, sums, w, lengths) if wanted[1] else w.new_empty(0)
    return [_source_again(window, d_x, x) if wanted[0] else d_x, d_w]


def _source_again(window: _Window, d_x: Tensor, x: Tensor) -> Tensor:
    """In the shape of the source."""
    names = window.source.split()
    order = ["batch", window.time, *window.features()]
    shape = [x.shape[names.index(d)] for d in order]
    return d_x.reshape(shape).permute([order.index(d) for d in names]).contiguous()


def _taps_again(window: _Window, sums: Tensor, w: Tensor, lengths: Sequence[int]) -> Tensor:
    """All shares, in the shape of the taps."""
    names, order = window.taps.split(), [window.lag, *window.features()]
    found = sums.sum(0).reshape(sums.shape[1], *lengths)
    more = [k for k, d in enumerate(order) if d not in names]
    found = found.sum(more) if more else found
    left = [d for d in order if d in names]
    return found.permute([left.index(d) for d in names]).to(w.dtype).contiguous()

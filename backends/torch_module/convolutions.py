"""Sums that are causal convolutions: `sum[j] w[j] * x[t-j]` with a short kernel, `sum[l | l <= t] w[l] * x[t-l]` with
one as long as the sequence, by FFT. Anything else stays a sum over windows. Entry point: `convolution`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from seqdsl.ir import build
from seqdsl.ir.node import Node
from seqdsl.ir.order import difference
from seqdsl.ir.system import Tensor

from . import contractions, expressions, history, reads
from .context import Context, Source, Stored
from .values import ATOM, BATCH, Value, merge, plain, with_ones


@dataclass(frozen=True)
class Signal:
    """The read `x[.., t-l, ..]`: its tensor, where the shifted subscript stands, and t."""

    read: Node
    tensor: Tensor
    position: int
    time: str


def convolution(
    ctx: Context, node: Node, factors: list[Node], names: tuple[str, ...], guards: list[Node]
) -> Value | None:
    """The sum of the factors' product over one lag as a convolution; None where it is not one."""
    if len(names) != 1 or names[0] in ctx.fixed:
        return None
    lag = names[0]
    found = [s for f in factors if (s := _signal(ctx, f, lag)) is not None]
    if len(found) != 1:
        return None
    signal = found[0]
    kernel = [f for f in factors if f is not signal.read]
    long = _as_long(ctx, lag, signal.time)
    if not kernel or any(signal.time in f.free for f in kernel) or signal.time in ctx.fixed:
        return None
    at_most = build.make("le", build.index(lag), build.index(signal.time))
    if any(g is not at_most for g in guards) or (not guards and long):
        return None
    values = [expressions.emit(ctx, f) for f in kernel]
    weights = values[0]
    for other in values[1:]:
        weights = contractions.times(ctx, node, plain(weights), plain(other))
    weights = plain(weights)
    if not long and weights.dtype == "complex":
        return None
    x, before = entries(ctx, signal)
    if x.dtype == "complex":
        return None
    return (_long if long else _short)(ctx, node, x, weights, signal.time, lag, before)


def _as_long(ctx: Context, lag: str, time: str) -> bool:
    size = ctx.system.index(lag).size
    return size is not None and size.op == "size" and ctx.axis(str(size.attr)) == ctx.axis(time)


def _signal(ctx: Context, factor: Node, lag: str) -> Signal | None:
    if factor.op != "read" or factor.attr in ctx.local or not isinstance(ctx.places.get(str(factor.attr)), Stored):
        return None
    tensor = ctx.system.tensors[str(factor.attr)]
    shifted = [k for k, a in enumerate(factor.args) if lag in a.free]
    others = [a for k, a in enumerate(factor.args) if k not in shifted]
    if len(shifted) != 1 or tensor.edges or tensor.kind in ("param", "const"):
        return None
    form = difference(factor.args[shifted[0]], build.neg(build.index(lag)))
    moving = [t for t in form if t is not None]
    if len(form) != 1 or len(moving) != 1 or moving[0].op != "index" or form[moving[0]] != 1:
        return None
    time = str(moving[0].attr)
    own = tensor.indices[shifted[0]]
    straight = all(
        a.op == "index"
        and a.attr not in (time, lag)
        and a.attr not in ctx.fixed
        and ctx.axis(str(a.attr)) == ctx.axis(n)
        for a, n in zip(others, (n for k, n in enumerate(tensor.indices) if k not in shifted), strict=True)
    )
    if not straight or len({a.attr for a in others}) != len(others) or ctx.axis(time) != ctx.axis(own) or time != own:
        return None
    return Signal(factor, tensor, shifted[0], time)


def entries(ctx: Context, signal: Signal) -> tuple[Value, str]:
    """The tensor at t, with what a state holds before it; and how many entries that is."""
    tensor, k = signal.tensor, signal.position
    place = ctx.place(tensor.name)
    assert isinstance(place, Stored)
    entry = ctx.records.get(tensor.name) if ctx.stateful and ctx.on_stream(signal.time) else None
    at = [build.index(signal.time) if j == k else a for j, a in enumerate(signal.read.args)]
    if entry is None:
        return reads.read(ctx, build.read(tensor.name, at, tensor.dtype)), ""
    joined = history.join(ctx, Source(place.value, tensor.indices, (), tensor.name), k, place.value, entry)
    names = {f"@{j}": str(a.attr) for j, a in enumerate(at)}
    return replace(joined, dims=tuple(names.get(d, d) for d in joined.dims)), history.count_text(ctx, entry)


def _narrowed(ctx: Context, text: str, before: str, time: str) -> str:
    """The positions behind those that came before, which packed sequences have each of their own."""
    if not before or before == "0":
        return text
    if ctx.ends:
        return f"{ctx.helper('_spanned')}({text}, 1, {before}, {ctx.length(time)}, {history.numbers(ctx)}, {before})"
    return f"{text}[:, {before}:]"


def _short(ctx: Context, node: Node, x: Value, w: Value, time: str, lag: str, before: str) -> Value:
    """One shifted product for each tap."""
    channels = ctx.ordered(tuple(d for d in merge(x.dims, w.dims) if d not in (BATCH, time, lag)))
    x = _spread_all(ctx, expressions.convert(ctx, x, "real"), (BATCH, time, *channels))
    w, each = expressions.convert(ctx, w, "real"), BATCH in w.dims
    w = _spread_all(ctx, w, (BATCH, lag, *channels) if each else (lag, *channels))
    text = f"{ctx.support('causal_conv')}({x.text}, {w.text}{', each=True' * each})"
    return Value(_narrowed(ctx, _whole_again(text, node.dtype), before, time), (BATCH, time, *channels), node.dtype)


def _whole_again(text: str, dtype: str) -> str:
    """A convolution reckons in reals: whole numbers are rounded."""
    return f"{text}.round().to(torch.long)" if dtype == "int" else text


def _spread_all(ctx: Context, value: Value, dims: tuple[str, ...]) -> Value:
    """Every dimension present, of length 1 where the value does not vary; time and lag at their length."""
    lead = [d for d in dims[:2] if d not in value.dims and d != BATCH and d in (dims[0], dims[1])]
    if lead and dims[0] != BATCH and dims[0] not in value.dims:
        value = expressions.full(ctx, value, (dims[0], *(d for d in dims[1:] if d in value.dims)), value.dtype)
    if dims[0] == BATCH and dims[1] not in value.dims:
        value = expressions.full(ctx, value, tuple(d for d in dims if d in value.dims or d == dims[1]), value.dtype)
    return with_ones(value, dims)


def _long(ctx: Context, node: Node, x: Value, w: Value, time: str, lag: str, before: str) -> Value:
    """A kernel for each channel, or for each channel of each sequence."""
    lanes = ctx.ordered(tuple(d for d in merge(x.dims, w.dims) if d not in (BATCH, time, lag)))
    dims = (BATCH, time, *lanes)
    x = expressions.convert(ctx, x, "real")
    x = _whole(ctx, x, dims, before) if set(lanes) & set(x.dims) else with_ones(_whole(ctx, x, dims[:2], before), dims)
    w = w if w.dtype == "complex" else expressions.convert(ctx, w, "real")
    kernel = expressions.full(ctx, w, (*((BATCH,) if BATCH in w.dims else ()), lag, *lanes), w.dtype)
    ctx.support("fft_conv")
    text = f"{ctx.helper('_long_conv')}({x.text}, {kernel.text})"
    return Value(_narrowed(ctx, _whole_again(text, node.dtype), before, time), dims, node.dtype)


def _whole(ctx: Context, x: Value, dims: tuple[str, ...], before: str) -> Value:
    """The signal over all of `dims`; where a history was joined, time is longer than its index."""
    if set(x.dims) == set(dims):
        return expressions.full(ctx, x, dims, x.dtype)
    if not before:
        return expressions.full(ctx, x, dims, x.dtype)
    shape = ", ".join("-1" if d in x.dims else ctx.dim_text(d) for d in dims)
    return replace(with_ones(x, dims), text=f"{with_ones(x, dims).at(ATOM)}.expand({shape})")

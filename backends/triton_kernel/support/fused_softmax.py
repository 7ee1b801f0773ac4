"""Softmax-weighted sums by kernels that were written for their scores, as operators that compilers see through."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ...torch_module.support.online_softmax import online_softmax
from .launching import OPS, _block, _cdiv, _dot_precision, _has_kernels, _on_device, _one_device, _rows_fit, _tiles_of
from .softmax_kernels import _delta_kernel
from .tuning import _tuned

# (rows, columns, warps, stages) by kernel, padded width of features and bytes of each: on GPUs from sm_90 on, on those
# before, and on AMD's, which differ in shared memory. The 16-bit ones of sm_90 spill nothing there, and are the fastest on
# an H200 for widths up to 128; for 256 what was faster spilled.
SOFTMAX_TILES: dict[str, dict[tuple[str, int, int], tuple[int, int, int, int]]] = {
    "sm_90": {
        ("forward", 64, 2): (128, 64, 8, 3), ("rows", 64, 2): (64, 64, 4, 3), ("columns", 64, 2): (64, 64, 4, 2),
        ("forward", 128, 2): (64, 64, 4, 3), ("rows", 128, 2): (128, 64, 8, 3), ("columns", 128, 2): (32, 64, 4, 3),
        ("forward", 256, 2): (128, 32, 8, 2), ("rows", 256, 2): (64, 32, 4, 2), ("columns", 256, 2): (16, 64, 8, 2),
        ("forward", 64, 4): (64, 32, 4, 2), ("rows", 64, 4): (32, 32, 4, 1), ("columns", 64, 4): (32, 32, 4, 1),
        ("forward", 128, 4): (64, 32, 4, 2), ("rows", 128, 4): (32, 32, 4, 1), ("columns", 128, 4): (32, 32, 4, 1),
        ("forward", 256, 4): (32, 16, 4, 1), ("rows", 256, 4): (16, 16, 4, 1), ("columns", 256, 4): (16, 16, 4, 1),
    },
    "sm_80": {
        ("forward", 64, 2): (128, 64, 4, 2), ("rows", 64, 2): (64, 32, 4, 2), ("columns", 64, 2): (32, 64, 4, 2),
        ("forward", 128, 2): (128, 64, 8, 2), ("rows", 128, 2): (64, 64, 8, 2), ("columns", 128, 2): (32, 64, 8, 2),
        ("forward", 256, 2): (64, 32, 8, 1), ("rows", 256, 2): (32, 32, 8, 1), ("columns", 256, 2): (32, 32, 8, 1),
        ("forward", 64, 4): (64, 32, 4, 1), ("rows", 64, 4): (32, 32, 4, 1), ("columns", 64, 4): (32, 32, 4, 1),
        ("forward", 128, 4): (32, 32, 4, 1), ("rows", 128, 4): (32, 16, 4, 1), ("columns", 128, 4): (16, 32, 4, 1),
        ("forward", 256, 4): (32, 16, 4, 1), ("rows", 256, 4): (16, 16, 4, 1), ("columns", 256, 4): (16, 16, 4, 1),
    },
    "hip": {
        ("forward", 64, 2): (128, 64, 8, 1), ("rows", 64, 2): (64, 64, 4, 1), ("columns", 64, 2): (32, 64, 4, 1),
        ("forward", 128, 2): (128, 64, 8, 1), ("rows", 128, 2): (64, 64, 4, 1), ("columns", 128, 2): (32, 64, 4, 1),
        ("forward", 256, 2): (64, 32, 4, 1), ("rows", 256, 2): (32, 32, 4, 1), ("columns", 256, 2): (32, 32, 4, 1),
        ("forward", 64, 4): (64, 32, 4, 1), ("rows", 64, 4): (32, 32, 4, 1), ("columns", 64, 4): (32, 32, 4, 1),
        ("forward", 128, 4): (32, 32, 4, 1), ("rows", 128, 4): (32, 16, 4, 1), ("columns", 128, 4): (16, 32, 4, 1),
        ("forward", 256, 4): (32, 16, 4, 1), ("rows", 256, 4): (16, 16, 4, 1), ("columns", 256, 4): (16, 16, 4, 1),
    },
}  # fmt: skip


@cache
def _axes(dims: str) -> tuple[str, ...]:
    return tuple(dims.split())


class _Leaf(NamedTuple):
    """A tensor of the scores: its name, which operand, its dimensions in order, and the name of its features' width."""

    name: str
    operand: int
    dims: str
    width: str = ""
    side: str = ""  # of the kernel that makes its gradient: "row" or "column"

    def axes(self) -> tuple[str, ...]:
        return _axes(self.dims)

    def feature(self) -> int:
        """Which dimension that is, from behind."""
        return self.axes().index("feature") - len(self.axes())


class _Softmax(NamedTuple):
    """One normalised read: its leading dimensions, those that its columns have, its tensors, and its kernels.

    `values` are the last of the leaves, if there are any (operand -1); `numbers` says of each number of the kernels
    whether it is an integer or a float: "if".
    """

    name: str
    lead: tuple[str, ...]
    kept: tuple[str, ...]
    leaves: tuple[_Leaf, ...]
    numbers: str
    forward: Any
    rows: Any
    columns: Any
    packed: bool = False  # are the kernels told of packed sequences?


@cache
def _softmax_constants(
    plan: _Softmax, kernel: str, given: tuple[tuple[str, int], ...], size: int, table: str
) -> dict[str, int]:
    """Widths by name and what they are padded to, the tile, and the options of a launch.

    Tensors of pairs are loaded with an address for each entry: what is walked along is half as long then. So it is where
    features take most registers, with any tensor beside the products, and rows get more warps; with one of pairs columns
    still spill, and are halved, too.
    """
    widths = dict(given)
    padded = {f"B{name}": _block(width, 256) for name, width in given}
    most = max(64, *padded.values(), 0)
    rows, columns, warps, stages = SOFTMAX_TILES[table][kernel, most, size]
    beside = [set(leaf.axes()) for leaf in plan.leaves if leaf.operand >= 0 and not leaf.width]
    pairs = any({"row", "column"} <= axes for axes in beside)
    if pairs or beside and most > 128:
        rows, columns = (max(rows // 2, 16), columns) if kernel == "columns" else (rows, max(columns // 2, 16))
        if most > 128:
            warps = 8 if kernel == "rows" else warps
            columns = max(columns // 2, 16) if kernel == "columns" and pairs else columns
    return {**widths, **padded, "BT": rows, "BS": columns, "num_warps": warps, "num_stages": stages}


def _softmax_packed(packed: bool, table: str) -> dict[str, bool]:
    """What the kernels are told of packed sequences: loops that keep inside what could be hoisted spill less on sm_90 and
    what came after it, and more on sm_80."""
    return {"PACKED": packed, "KEEPS": packed and table == "sm_90"}


@cache
def _softmax_steps(plan: _Softmax) -> tuple[tuple[int, int, int], ...]:
    """Of each stride that the kernels take: which tensor's, of which dimension, and which of the sizes that is; -1 of a table."""
    sizes, found = ("batch", *plan.lead, "row", "column"), []
    for number, leaf in enumerate(plan.leaves):
        axes = leaf.axes()
        found += [(number, axes.index(a), k) for k, a in enumerate(sizes) if a in axes]
        found += [(number, k, -1) for k, a in enumerate(axes) if a.startswith("at")]
    return tuple(found)


class _Call(NamedTuple):
    """What one launch works on. `sizes` are B, *lead, T, S, and then the integers that the kernels take; `spans`, of rows and
    of columns, say which packed sequence each is of."""

    plan: _Softmax
    tensors: tuple[Tensor, ...]
    sizes: list[int]
    numbers: list[float]
    spans: tuple[Tensor | None, ...]

    def length(self, axis: str) -> int:
        return self.sizes[("batch", *self.plan.lead, "row", "column").index(axis)]

    @property
    def values(self) -> Tensor | None:
        return self.tensors[-1] if self.plan.leaves[-1].operand < 0 else None

    def steps(self) -> list[int]:
        """Strides, 0 along what is 1 and repeated; and the lengths of tables' axes."""
        found = []
        for number, dim, axis in _softmax_steps(self.plan):
            x = self.tensors[number]
            if axis < 0:
                found += [x.stride(dim), x.shape[dim]]
            else:
                found.append(0 if x.shape[dim] == 1 and self.sizes[axis] > 1 else x.stride(dim))
        return found

    def lengths(self) -> list[Any]:
        """Of leading dimensions, rows and columns; then the kernels' numbers."""
        count = len(self.plan.lead) + 3
        counts, numbers = iter(self.sizes[count:]), iter(self.numbers)
        return [*self.sizes[1:count], *(next(counts) if kind == "i" else next(numbers) for kind in self.plan.numbers)]

    def constants(self, kernel: str) -> dict[str, Any]:
        """Widths and tiles."""
        wide = [(leaf, x) for leaf, x in zip(self.plan.leaves, self.tensors, strict=True) if leaf.width]
        widths = {leaf.width: int(x.shape[leaf.feature()]) for leaf, x in wide}
        size = max((x.element_size() for _, x in wide), default=4)
        table = _tiles_of(self.tensors[0].device)
        found = {**_softmax_constants(self.plan, kernel, tuple(widths.items()), size, table), "PRECISION": _dot_precision()}
        sizes = (self.length("row"), self.length("column"), *widths.values())
        return _tuned(f"{self.plan.name} {kernel}", found, self.tensors[0], *sizes)

    def launch(self, which: str, extra: list[Tensor], **flags: bool) -> None:
        """The kernel for every block of its side and every leading position of it."""
        side, kept = ("column", self.plan.kept) if which == "columns" else ("row", self.plan.lead)
        constants = self.constants(which)
        programs = _cdiv(self.length(side), constants["BS" if side == "column" else "BT"]) * self.length("batch")
        for d in kept:
            programs *= self.length(d)
        spans = [self.spans[side == "column"]] if self.plan.packed else []
        flags |= _softmax_packed(spans[0] is not None, _tiles_of(self.tensors[0].device)) if spans else {}
        getattr(self.plan, which)[(programs,)](
            *self.tensors, *extra, *spans, *self.steps(), *self.lengths(), **flags, **constants
        )


def _softmax_empty(call: _Call, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """o [B, *lead, T, E], in memory [B, T, *lead, E], and the level [B, *lead, T]."""
    batch, *lead, rows = call.sizes[: len(call.plan.lead) + 2]
    like = call.tensors[-1]
    level = like.new_empty(batch, *lead, rows, dtype=torch.float32)
    o = like.new_empty(batch, rows, *lead, 0 if call.values is None else like.shape[-1], dtype=dtype)
    return o.movedim(1, -2), level


def _gradient_axes(plan: _Softmax, leaf: _Leaf) -> list[str]:
    """The dimensions, in memory, in which a kernel stores the gradient of a leaf; `block` are partial sums."""
    axes = leaf.axes()
    lead = plan.kept if leaf.side == "column" else plan.lead
    if "feature" in axes:
        return ["batch", leaf.side, *lead, "feature"]
    own: list[str] = [a for a in ("row", "column") if a in axes]
    return ["batch", *lead, *(own or ["block"])]


def _gradient_empty(call: _Call, leaf: _Leaf, x: Tensor, wanted: bool) -> Tensor:
    """Memory for a gradient; none where it is not wanted. Blocks of pairs that nothing visits have 0."""
    if not wanted and not leaf.width:
        return x.new_empty(0)
    axes = _gradient_axes(call.plan, leaf)
    shape = [x.shape[leaf.feature()] if a == "feature" else call.length(a) for a in axes if a != "block"]
    if "block" in axes:
        shape.append(_cdiv(call.length("row"), call.constants("rows")["BT"]))
    pairs = "row" in axes and "column" in axes
    whole = set(axes) == set(leaf.axes())
    dtype = x.dtype if whole and (pairs or leaf.width) else torch.float32
    return x.new_zeros(shape, dtype=dtype) if pairs else x.new_empty(shape, dtype=dtype)


def _folded(call: _Call, leaf: _Leaf, x: Tensor, gradient: Tensor) -> Tensor:
    """A stored gradient in the shape of its tensor: summed over what that does not vary along."""
    axes, own = _gradient_axes(call.plan, leaf), leaf.axes()
    extra = [k for k, a in enumerate(axes) if a not in own]
    if extra:
        gradient = gradient.sum(extra, dtype=torch.float32)
    kept = [a for a in axes if a in own]
    gradient = gradient.permute([kept.index(a) for a in own])
    if gradient.shape == x.shape and gradient.dtype == x.dtype:
        return gradient
    return gradient.sum_to_size(x.shape).to(x.dtype)


def _operators(plan: _Softmax) -> Callable[..., tuple[Tensor, Tensor]]:
    """The operator of one read, of (*tensors, sizes, numbers, spans of rows, of columns, dtype), with its derivative, and
    shapes for compilers."""
    count = len(plan.leaves)
    told = ["SymInt[] sizes", "float[] numbers", "Tensor? row_spans", "Tensor? column_spans"]
    given = ", ".join([*(f"Tensor x{k}" for k in range(count)), *told])
    outputs = "Tensor d_o, Tensor d_level, Tensor o, Tensor level"

    def called(inputs: tuple[Any, ...]) -> _Call:
        sizes, numbers, *spans = inputs[count : count + 4]
        return _Call(plan, inputs[:count], sizes, numbers, tuple(spans))

    @torch.library.custom_op(
        f"{OPS}::{plan.name}", mutates_args=(), schema=f"({given}, ScalarType dtype) -> (Tensor, Tensor)"
    )
    def read(*inputs: Any) -> tuple[Tensor, Tensor]:
        call = called(inputs)
        o, level = _softmax_empty(call, inputs[-1])
        with _on_device(level):
            call.launch("forward", [level] if call.values is None else [o, level])
        return o, level

    @read.register_fake
    def _(*inputs: Any) -> tuple[Tensor, Tensor]:
        return _softmax_empty(called(inputs), inputs[-1])

    @torch.library.custom_op(
        f"{OPS}::{plan.name}_adjoint", mutates_args=(), schema=f"({outputs}, {given}, bool[] wanted) -> Tensor[]"
    )
    def adjoint(d_o: Tensor, d_level: Tensor, o: Tensor, level: Tensor, *inputs: Any) -> list[Tensor]:
        call = called(inputs)
        return _softmax_adjoint(call, d_o, d_level, o, level, inputs[-1])

    @adjoint.register_fake
    def _(d_o: Tensor, d_level: Tensor, o: Tensor, level: Tensor, *inputs: Any) -> list[Tensor]:
        call = called(inputs)
        return _softmax_gradients(call, _softmax_gradients_empty(call, inputs[-1]), inputs[-1])

    def setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        ctx.rest = inputs[count : count + 2]
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*output, *inputs[:count], *inputs[count + 2 : count + 4])

    def backward(ctx: Any, d_o: Tensor | None, d_level: Tensor | None) -> tuple[Any, ...]:
        o, level, *tensors, row_spans, column_spans = ctx.saved_tensors
        wanted = list(ctx.needs_input_grad[:count])
        d_o = torch.zeros_like(o) if d_o is None else d_o
        d_level = torch.zeros_like(level) if d_level is None else d_level
        found = adjoint(d_o, d_level, o, level, *tensors, *ctx.rest, row_spans, column_spans, wanted)
        return *(x if w else None for x, w in zip(found, wanted, strict=True)), *[None] * 5

    read.register_autograd(backward, setup_context=setup)
    return read


def _softmax_gradients_empty(call: _Call, wanted: list[bool]) -> list[Tensor]:
    """Memory for every gradient that a kernel stores."""
    named = zip(call.plan.leaves, call.tensors, wanted, strict=True)
    return [_gradient_empty(call, leaf, x, w) for leaf, x, w in named]


def _softmax_gradients(call: _Call, stored: list[Tensor], wanted: list[bool]) -> list[Tensor]:
    """What was stored, in the shapes of the tensors; nothing for those that want none."""
    return [
        _folded(call, leaf, x, g) if w else x.new_empty(0)
        for leaf, x, g, w in zip(call.plan.leaves, call.tensors, stored, wanted, strict=True)
    ]


def _softmax_adjoint(
    call: _Call, d_o: Tensor, d_level: Tensor, o: Tensor, level: Tensor, wanted: list[bool]
) -> list[Tensor]:
    """The gradients of the tensors that want one."""
    plan, rows, delta = call.plan, call.length("row"), -d_level
    extra = []
    with _on_device(level):
        if call.values is not None:
            width = call.values.shape[-1]
            d_o = d_o.to(call.values.dtype).movedim(-2, 1).contiguous()
            o, delta = o.movedim(-2, 1).contiguous(), torch.empty_like(level)
            heads = math.prod(call.length(d) for d in plan.lead)
            programs = _cdiv(rows, 64) * heads * call.length("batch")
            _delta_kernel[(programs,)](
                d_o, o, d_level.contiguous(), delta, rows, heads, E=width, BE=_block(width, 256), BT=64
            )
            extra.append(d_o)
        extra += [level, delta.contiguous()]
        found = _softmax_gradients_empty(call, wanted)
        for which, side in (("rows", "row"), ("columns", "column")):
            own = [k for k, leaf in enumerate(plan.leaves) if leaf.side == side]
            if any(wanted[k] for k in own):
                flags = {f"WANTS_{plan.leaves[k].name}": wanted[k] for k in own if not plan.leaves[k].width}
                call.launch(which, [*extra, *(found[k] for k in own)], **flags)
    return _softmax_gradients(call, found, wanted)


def fused_softmax(plan: _Softmax) -> Callable[..., tuple[Tensor, Tensor]]:
    """A function with the arguments of `online_softmax`, and the numbers that its kernels take.

    `spans` of packed sequences: four integers for each of them, each row and each column (`_row_places`). float64, features
    wider than 256, tables that need a gradient, and the CPU are left to PyTorch.
    """
    read = _operators(plan)

    def run(
        scores: Any,
        operands: list[tuple[Tensor, int | None, int | None]],
        values: Tensor,
        lead: tuple[int, ...],
        rows: int,
        *,
        columns: Any = None,
        counts: tuple[int, ...] = (),
        numbers: tuple[float, ...] = (),
        spans: Any = None,
        dots: torch.dtype = torch.float32,
        dtype: torch.dtype = torch.float32,
    ) -> tuple[Tensor, Tensor]:
        given = [values if leaf.operand < 0 else operands[leaf.operand][0] for leaf in plan.leaves]
        _one_device([values, *given])
        wide = any(x.dtype == torch.float64 for x in (values, *(x for x, _, _ in operands)))
        widths = [x.shape[leaf.feature()] for leaf, x in zip(plan.leaves, given, strict=True) if leaf.width]
        sizes = [*lead, rows, values.shape[-2]]
        learned = any(x.requires_grad for leaf, x in zip(plan.leaves, given, strict=True) if not leaf.side)
        able = _has_kernels(values) and not wide and not (learned and torch.is_grad_enabled())
        if not able or 0 in (*sizes, *widths) or max(widths, default=0) > 256:
            computed = torch.float64 if wide else torch.float32
            cast = [(x.to(computed) if x.is_floating_point() else x, r, c) for x, r, c in operands]
            if spans is None:
                o, level = online_softmax(scores, cast, values.to(computed), lead, rows, columns=columns)
            else:
                o, level = _softmax_alone(scores, cast, values.to(computed), lead, spans[0])
            return o if wide else o.to(dtype), level
        like = dots if dots in (torch.float16, torch.bfloat16) else torch.float32
        named = zip(plan.leaves, given, strict=True)
        tensors = [_features(x, leaf, like, plan.lead) if leaf.width else x for leaf, x in named]
        told = (None, None) if spans is None else spans[1:3]
        return read(*tensors, [*sizes, *counts], list(numbers) or [0.0], *told, dtype)

    return run


def _softmax_alone(
    scores: Any, operands: list[tuple[Tensor, int | None, int | None]], values: Tensor, lead: tuple[int, ...], sequences: Tensor
) -> tuple[Tensor, Tensor]:
    """PyTorch's function for one packed sequence after another; the host waits for where they begin."""
    found = []
    for zero, begin, end, head in sequences.tolist():
        count, own = zero + end - begin - head, []
        for x, row, column in operands:
            x = x if row is None else x.narrow(row, head, count)
            own.append((x if column is None else x.narrow(column, begin, end - begin), row, column))
        found.append(online_softmax(scores, own, values.narrow(-2, begin, end - begin), lead, count))
    return torch.cat([o for o, _ in found], -2), torch.cat([level for _, level in found], -1)


def _features(x: Tensor, leaf: _Leaf, dtype: torch.dtype, lead: tuple[str, ...]) -> Tensor:
    """Features in the type that they are multiplied in, one behind the other, and rows not too far apart; values without
    dimensions that are 1."""
    axes = leaf.axes()
    if leaf.operand < 0:
        x = x.squeeze([k + 1 for k, d in enumerate(lead) if d not in axes])
    x = x.to(dtype)
    apart, at = [x.stride(axes.index(a)) for a in ("row", "column") if a in axes], leaf.feature()
    return x if x.stride(at) == 1 and _rows_fit(128, *apart, 1) else x.movedim(at, -1).contiguous().movedim(-1, at)

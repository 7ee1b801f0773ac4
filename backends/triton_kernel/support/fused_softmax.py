"""Softmax-weighted sums by kernels that were written for their scores, as operators that compilers see through."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from ...torch_module.support.online_softmax import online_softmax
from .block_tiles import _delta_kernel
from .launching import OPS, _block, _dot_precision, _has_kernels, _on_device

# (rows, columns, warps, stages) by kernel and padded width of features, for 16-bit operands and for float32.
SOFTMAX_TILES = {
    ("forward", 64, 2): (128, 64, 4, 3),
    ("forward", 128, 2): (128, 64, 8, 3),
    ("forward", 256, 2): (128, 64, 8, 2),
    ("rows", 64, 2): (128, 64, 4, 2),
    ("rows", 128, 2): (128, 64, 8, 2),
    ("rows", 256, 2): (64, 32, 8, 2),
    ("columns", 64, 2): (64, 128, 4, 2),
    ("columns", 128, 2): (64, 128, 8, 2),
    ("columns", 256, 2): (32, 64, 8, 2),
    ("forward", 64, 4): (64, 32, 4, 2),
    ("forward", 128, 4): (64, 32, 4, 2),
    ("forward", 256, 4): (32, 16, 4, 1),
    ("rows", 64, 4): (32, 32, 4, 1),
    ("rows", 128, 4): (32, 32, 4, 1),
    ("rows", 256, 4): (16, 16, 4, 1),
    ("columns", 64, 4): (32, 32, 4, 1),
    ("columns", 128, 4): (32, 32, 4, 1),
    ("columns", 256, 4): (16, 16, 4, 1),
}


class _Leaf(NamedTuple):
    """A tensor of the scores: its name, which operand, its dimensions in order, and which width its features have."""

    name: str
    operand: int
    dims: str
    width: int | None = None
    side: str = ""  # of the kernel that makes its gradient: "row" or "column"

    def axes(self) -> list[str]:
        return self.dims.split()


class _Softmax(NamedTuple):
    """One normalised read: its leading dimensions, those that its columns have, its tensors, and its kernels.

    `numbers` says of each number of the kernels whether it is an integer or a float: "if".
    """

    name: str
    lead: tuple[str, ...]
    kept: tuple[str, ...]
    leaves: tuple[_Leaf, ...]
    numbers: str
    values: bool
    forward: Any
    rows: Any
    columns: Any


class _Call(NamedTuple):
    """What one launch works on: lengths [B, *lead, T, S], integers and floats."""

    plan: _Softmax
    tensors: list[Tensor]
    sizes: list[int]
    counts: list[int]
    numbers: list[float]

    def length(self, axis: str) -> int:
        return self.sizes[("batch", *self.plan.lead, "row", "column").index(axis)]

    def steps(self) -> list[int]:
        """Strides, 0 along what is 1 and repeated."""
        found = []
        named = [*(leaf.axes() for leaf in self.plan.leaves)]
        if self.plan.values:
            named.append(["batch", *self.plan.lead, "column", "feature"])
        for x, axes in zip(self.tensors, named, strict=True):
            order = [a for a in ("batch", *self.plan.lead, "row", "column") if a in axes]
            for a in order:
                k = axes.index(a)
                found.append(0 if x.shape[k] == 1 and self.length(a) > 1 else x.stride(k))
        return found

    def scalars(self) -> list[Any]:
        counts, numbers = iter(self.counts), iter(self.numbers)
        return [next(counts) if kind == "i" else next(numbers) for kind in self.plan.numbers]

    def constants(self, kernel: str) -> dict[str, Any]:
        """Widths and tiles."""
        widths: dict[str, int] = {}
        for leaf, x in zip(self.plan.leaves, self.tensors, strict=False):
            if leaf.width is not None:
                widths[f"D{leaf.width}"] = x.shape[leaf.axes().index("feature")]
        if self.plan.values:
            widths["E"] = self.tensors[-1].shape[-1]
        padded = {f"B{name}": _block(size, 256) for name, size in widths.items()}
        widest = max(64, *padded.values())
        narrow = all(x.element_size() < 4 for leaf, x in zip(self.plan.leaves, self.tensors, strict=False) if leaf.width is not None)
        narrow = narrow and not (self.plan.values and self.tensors[-1].element_size() > 2)
        rows, columns, warps, stages = SOFTMAX_TILES[kernel, widest, 2 if narrow else 4]
        return {**widths, **padded, "BT": rows, "BS": columns, "PRECISION": _dot_precision(), "num_warps": warps, "num_stages": stages}

    def launch(self, which: str, extra: list[Tensor], **flags: bool) -> None:
        """The kernel for every block of its side and every leading position of it."""
        side, kept = ("column", self.plan.kept) if which == "columns" else ("row", self.plan.lead)
        constants = self.constants(which)
        programs = triton.cdiv(self.length(side), constants["BS" if side == "column" else "BT"]) * self.length("batch")
        for d in kept:
            programs *= self.length(d)
        getattr(self.plan, which)[(programs,)](
            *self.tensors, *extra, *self.steps(), *self.sizes[1:], *self.scalars(), **flags, **constants
        )  # fmt: skip


def _softmax_empty(call: _Call, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """o [B, *lead, T, E], in memory [B, T, *lead, E], and the level [B, *lead, T]."""
    batch, *lead, rows, _ = call.sizes
    like = call.tensors[-1]
    level = like.new_empty(batch, *lead, rows, dtype=torch.float32)
    o = like.new_empty(batch, rows, *lead, like.shape[-1] if call.plan.values else 0, dtype=dtype)
    return o.movedim(1, -2), level


def _gradient_axes(plan: _Softmax, leaf: _Leaf) -> list[str]:
    """The dimensions, in memory, in which a kernel stores the gradient of a leaf; `block` are partial sums."""
    axes = leaf.axes()
    lead = plan.kept if leaf.side == "column" else plan.lead
    if "feature" in axes:
        return ["batch", leaf.side, *lead, "feature"]
    own = [a for a in ("row", "column") if a in axes]
    return ["batch", *lead, *(own or ["block"])]


def _gradient_empty(call: _Call, leaf: _Leaf, x: Tensor, wanted: bool) -> Tensor:
    """Memory for a gradient; none where it is not wanted. Blocks of pairs that nothing visits have 0."""
    if not wanted and "feature" not in leaf.axes():
        return x.new_empty(0)
    axes = _gradient_axes(call.plan, leaf)
    blocks = triton.cdiv(call.length("row"), call.constants("rows")["BT"])
    shape = [blocks if a == "block" else x.shape[-1] if a == "feature" else call.length(a) for a in axes]
    wide = "feature" not in axes and "column" not in axes or "row" not in axes and "feature" not in axes
    return torch.zeros(shape, dtype=torch.float32 if wide else x.dtype, device=x.device)


def _folded(call: _Call, leaf: _Leaf, x: Tensor, gradient: Tensor) -> Tensor:
    """A stored gradient in the shape of its tensor: summed over what that does not vary along."""
    axes, own = _gradient_axes(call.plan, leaf), leaf.axes()
    extra = [k for k, a in enumerate(axes) if a not in own]
    if extra:
        gradient = gradient.sum(extra, dtype=torch.float32)
    kept = [a for a in axes if a in own]
    return gradient.permute([kept.index(a) for a in own]).sum_to_size(x.shape).to(x.dtype)


def _operators(plan: _Softmax) -> Callable[..., tuple[Tensor, Tensor]]:
    """The operators of one read: with its derivative, and with shapes for compilers."""
    given = "Tensor[] tensors, SymInt[] sizes, SymInt[] counts, float[] numbers"

    @torch.library.custom_op(
        f"{OPS}::{plan.name}", mutates_args=(), schema=f"({given}, ScalarType dtype) -> (Tensor, Tensor)"
    )
    def read(tensors: Any, sizes: Any, counts: Any, numbers: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        call = _Call(plan, tensors, sizes, counts, numbers)
        o, level = _softmax_empty(call, dtype)
        with _on_device(level):
            call.launch("forward", [o, level] if plan.values else [level])
        return o, level

    @read.register_fake
    def _(tensors: Any, sizes: Any, counts: Any, numbers: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        return _softmax_empty(_Call(plan, tensors, sizes, counts, numbers), dtype)

    @torch.library.custom_op(
        f"{OPS}::{plan.name}_adjoint",
        mutates_args=(),
        schema=f"(Tensor d_o, Tensor d_level, Tensor o, Tensor level, {given}, bool[] wanted) -> Tensor[]",
    )
    def adjoint(
        d_o: Tensor, d_level: Tensor, o: Tensor, level: Tensor,
        tensors: Any, sizes: Any, counts: Any, numbers: Any, wanted: Any,
    ) -> list[Tensor]:  # fmt: skip
        return _softmax_adjoint(_Call(plan, tensors, sizes, counts, numbers), d_o, d_level, o, level, wanted)

    @adjoint.register_fake
    def _(
        d_o: Tensor, d_level: Tensor, o: Tensor, level: Tensor,
        tensors: Any, sizes: Any, counts: Any, numbers: Any, wanted: Any,
    ) -> list[Tensor]:  # fmt: skip
        return [x.new_empty(x.shape) if w else x.new_empty(0) for x, w in zip(tensors, wanted, strict=True)]

    def setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        tensors, *ctx.rest, _ = inputs
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*output, *tensors)

    def backward(ctx: Any, d_o: Tensor | None, d_level: Tensor | None) -> tuple[Any, ...]:
        o, level, *tensors = ctx.saved_tensors
        wanted = [bool(w) for w in ctx.needs_input_grad[0]] if isinstance(ctx.needs_input_grad[0], list | tuple) else [
            x.requires_grad for x in tensors]
        d_o = torch.zeros_like(o) if d_o is None else d_o
        d_level = torch.zeros_like(level) if d_level is None else d_level
        found = adjoint(d_o, d_level, o, level, tensors, *ctx.rest, wanted)
        return [x if w else None for x, w in zip(found, wanted, strict=True)], None, None, None, None

    read.register_autograd(backward, setup_context=setup)
    return read


def _softmax_adjoint(
    call: _Call, d_o: Tensor, d_level: Tensor, o: Tensor, level: Tensor, wanted: list[bool]
) -> list[Tensor]:
    """The gradients of the tensors that want one."""
    plan = call.plan
    batch, *lead, rows, _ = call.sizes
    delta = -d_level
    extra = []
    with _on_device(level):
        if plan.values:
            width = call.tensors[-1].shape[-1]
            d_o = d_o.to(call.tensors[-1].dtype).movedim(-2, 1).contiguous()
            o, delta = o.movedim(-2, 1).contiguous(), torch.empty_like(level)
            programs = triton.cdiv(rows, 64) * level[..., 0].numel()
            _delta_kernel[(programs,)](
                d_o, o, d_level.contiguous(), delta, rows, level[0, ..., 0].numel(), E=width, BE=_block(width, 256), BT=64
            )
            extra.append(d_o)
        extra += [level, delta.contiguous()]
        named = [*plan.leaves, *([_Leaf("values", -1, " ".join(("batch", *plan.lead, "column", "feature")), None, "column")] if plan.values else [])]
        found = [_gradient_empty(call, leaf, x, w) for leaf, x, w in zip(named, call.tensors, wanted, strict=True)]
        for which, side in (("rows", "row"), ("columns", "column")):
            own = [k for k, leaf in enumerate(named) if leaf.side == side]
            if any(wanted[k] for k in own):
                flags = {f"WANTS_{named[k].name}": wanted[k] for k in own if "feature" not in named[k].axes()}
                call.launch(which, [*extra, *(found[k] for k in own)], **flags)
    return [
        _folded(call, leaf, x, g) if w else x.new_empty(0)
        for leaf, x, g, w in zip(named, call.tensors, found, wanted, strict=True)
    ]


def fused_softmax(plan: _Softmax) -> Callable[..., tuple[Tensor, Tensor]]:
    """A function with the arguments of `online_softmax`, and the numbers that its kernels take."""
    read = _operators(plan)

    def run(
        scores: Any, operands: list[tuple[Tensor, int | None, int | None]], values: Tensor, lead: tuple[int, ...], rows: int,
        *, columns: Any = None, counts: tuple[int, ...] = (), numbers: tuple[float, ...] = (),
        dots: torch.dtype = torch.float32, dtype: torch.dtype = torch.float32,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        tensors = [operands[leaf.operand][0] for leaf in plan.leaves]
        sizes = [*lead, rows, values.shape[-2]]
        wide = any(x.dtype == torch.float64 or x.is_complex() for x in (*tensors, values))
        widths = [x.shape[-1] for leaf, x in zip(plan.leaves, tensors, strict=True) if leaf.width is not None]
        if not _has_kernels(values) or wide or 0 in (*sizes, *widths) or max(*widths, values.shape[-1], 0) > 256:
            o, level = online_softmax(scores, operands, values, lead, rows, columns=columns)
            return o.to(torch.promote_types(dtype, torch.float64) if wide else dtype), level
        like = dots if dots in (torch.float16, torch.bfloat16) else torch.float32
        tensors = [_contiguous(x.to(like), leaf.axes()) if leaf.width is not None else x
                   for leaf, x in zip(plan.leaves, tensors, strict=True)]  # fmt: skip
        if plan.values:
            tensors.append(_contiguous(values.to(like), ["feature"]))
        return read(tensors, sizes, list(counts), list(numbers), dtype)

    return run


def _contiguous(x: Tensor, axes: list[str]) -> Tensor:
    """With features one behind the other, as kernels load them."""
    return x if x.stride(-1) == 1 else x.contiguous()

"""A softmax-weighted sum over keys, block by block of queries and keys: no score is kept longer than its block."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from ..runtime_calls import _full_backward


class _OnlineSoftmax:
    """What a block is: its scores, which dimensions of each operand are cut, and how far rows and columns go.

    `scores(*operands)` -> scores, where they count (or None), a factor of their weights (or None), each
    [*lead, rows, columns..] with 1 where it does not vary; `joint` counts the column dimensions, the first is cut.
    """

    def __init__(
        self,
        scores: Callable[..., tuple[Tensor, Tensor | None, Tensor | None]],
        cuts: list[tuple[int | None, int | None]],
        lead: tuple[int, ...],
        rows: int,
        columns: Callable[[int, int], tuple[int, int]] | None,
        joint: int,
    ) -> None:
        self.scores, self.cuts, self.lead, self.rows = scores, cuts, lead, rows
        self.columns, self.joint = columns, joint

    def blocks(self, values: Tensor, side: int = 256) -> Iterator[tuple[int, int, int, int]]:
        """(first row, rows, first column, columns): row by row of blocks, those left out that `columns` proves empty."""
        height = min(side, max(self.rows, 1))
        each = values.shape[-self.joint : -1].numel()  # columns of the other dimensions that share the softmax
        width = max(side, side * side // height) // max(each, 1)
        for row in range(0, self.rows, height):
            count = min(height, self.rows - row)
            low, high = 0, values.shape[-1 - self.joint] if each else 0
            if self.columns is not None:
                first, last = self.columns(row, row + count - 1)
                low, high = max(low, first), min(high, last)
            for column in range(low, high, max(width, 1)):
                yield row, count, column, min(max(width, 1), high - column)

    def cut(self, operands: tuple[Tensor, ...], row: int, rows: int, column: int, columns: int) -> list[Tensor]:
        """Each operand's part of a block."""
        return [self.cut_one(x, c, row, rows, column, columns) for x, c in zip(operands, self.cuts, strict=True)]

    @staticmethod
    def cut_one(
        x: Tensor, cut: tuple[int | None, int | None], row: int, rows: int, column: int, columns: int
    ) -> Tensor:
        """One operand's part: a view."""
        x = x if cut[0] is None else x.narrow(cut[0], row, rows)
        return x if cut[1] is None else x.narrow(cut[1], column, columns)

    def masked(self, scores: Tensor, mask: Tensor | None) -> Tensor:
        """-inf where a score does not count, before any exponential; the columns as one dimension."""
        return self.flat(scores if mask is None else torch.where(mask, scores, -torch.inf))

    def flat(self, x: Tensor) -> Tensor:
        """[*lead, rows, columns..] with the columns as one dimension."""
        return x.flatten(-self.joint) if self.joint > 1 else x

    def part(self, values: Tensor, column: int, columns: int) -> Tensor:
        """[*lead, columns, V]: the values of a block."""
        x = values.narrow(-1 - self.joint, column, columns)
        return x.flatten(-1 - self.joint, -2) if self.joint > 1 else x


class _OnlineSoftmaxFunction(torch.autograd.Function):
    """Keeps operands, result, maximum and denominator; the backward computes each block's scores once more.

    With p the weights, d_p = f (d_o . v) and delta = d_o . o - d_level, the scores get d_z = p (d_p - delta), a factor
    f gets p (d_o . v), and the operands the rest by the block's own vjp. Weights are exp(z - maximum) / denominator:
    exp(z - level) would not sum to 1 where levels are large, and along a recurrence that adds up.
    """

    @staticmethod
    def forward(plan: _OnlineSoftmax, values: Tensor, *operands: Tensor) -> tuple[Tensor, ...]:
        return _online_softmax_blocks(plan, values, operands)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.plan = inputs[0]
        ctx.mark_non_differentiable(*output[2:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*inputs[1:], output[0], *output[2:])

    @staticmethod
    @_full_backward
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        values, *operands, o, top, total = ctx.saved_tensors
        d_o = torch.zeros_like(o) if grads[0] is None else grads[0]
        d_level = torch.zeros_like(top) if grads[1] is None else grads[1]
        needed = [k for k in range(len(operands)) if ctx.needs_input_grad[2 + k]]
        if torch.is_grad_enabled():

            def whole(values: Tensor, *some: Tensor) -> tuple[Tensor, Tensor]:
                given = dict(zip(needed, some, strict=True))
                return _online_softmax_plain(ctx.plan, values, [given.get(k, x) for k, x in enumerate(operands)])

            d_values, *found = torch.func.vjp(whole, values, *(operands[k] for k in needed))[1]((d_o, d_level))
        else:
            delta = ((d_o * o).sum(-1) - d_level) / total
            d_o = d_o / total.unsqueeze(-1)
            d_values, found = _online_softmax_adjoint(ctx.plan, values, tuple(operands), top, d_o, delta, needed)
        pulled = dict(zip(needed, found, strict=True))
        return None, d_values, *(pulled.get(k) for k in range(len(operands)))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], plan: _OnlineSoftmax, *inputs: Tensor) -> tuple[Any, Any]:
        """The block function knows no mapped axis: the whole softmax, mapped."""
        mapped = torch.vmap(lambda values, *rest: _online_softmax_plain(plan, values, rest), in_dims[1:])
        o, level = mapped(*inputs)
        return (o, level, level.detach(), torch.ones_like(level)), (0, 0, 0, 0)


def _online_softmax_blocks(plan: _OnlineSoftmax, values: Tensor, operands: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Running maximum m, sum of exp(z - m) and of exp(z - m) v; o is their quotient, the level m + log of the sum. Also m
    and the sum, 1 where nothing counts."""
    dtype = torch.promote_types(values.dtype, torch.float32)
    o = values.new_zeros(*plan.lead, plan.rows, values.shape[-1], dtype=dtype)
    top = values.new_full((*plan.lead, plan.rows), -torch.inf, dtype=dtype)
    total = torch.zeros_like(top)
    for row, rows, column, columns in plan.blocks(values):
        scores, mask, factor = plan.scores(*plan.cut(operands, row, rows, column, columns))
        scores = plan.masked(scores.to(dtype), mask)
        here = slice(row, row + rows)
        before, denominator, read = top[..., here].unsqueeze(-1), total[..., here].unsqueeze(-1), o[..., here, :]
        higher = torch.maximum(before, scores.amax(-1, keepdim=True))
        shift = torch.where(higher == -torch.inf, 0.0, higher)  # nothing counted yet: exp(-inf - 0) = 0
        weights = torch.exp_(scores - shift)
        shrink = torch.exp_(before - shift)
        denominator.mul_(shrink).add_(weights.sum(-1, keepdim=True))
        weights = weights if factor is None else weights * plan.flat(factor)
        read.mul_(shrink).add_(weights @ plan.part(values, column, columns).to(dtype))
        before.copy_(higher)
    empty = total == 0
    total = torch.where(empty, 1.0, total)
    return o.div_(total.unsqueeze(-1)), torch.where(empty, -torch.inf, top + total.log()), top, total


def _online_softmax_adjoint(
    plan: _OnlineSoftmax,
    values: Tensor,
    operands: tuple[Tensor, ...],
    top: Tensor,
    d_o: Tensor,
    delta: Tensor,
    needed: list[int],
) -> tuple[Tensor, list[Tensor]]:
    """Gradients of the values and of the operands that need one; `d_o` and `delta` are divided by the denominator."""
    d_values = torch.zeros_like(values)
    found = {k: torch.zeros_like(operands[k]) for k in needed}
    shift = torch.where(top == -torch.inf, 0.0, top).unsqueeze(-1)
    for row, rows, column, columns in plan.blocks(values):
        parts = [x.detach() for x in plan.cut(operands, row, rows, column, columns)]
        with torch.enable_grad():
            for k in needed:
                parts[k].requires_grad_()
            scores, mask, factor = plan.scores(*parts)
        here = slice(row, row + rows)
        weights = torch.exp_(plan.masked(scores.detach().to(d_o.dtype), mask) - shift[..., here, :])
        d_here, v = d_o[..., here, :], plan.part(values, column, columns).to(d_o.dtype)
        d_weights = d_here @ v.mT
        pulls, weighted = [], weights
        if factor is not None:
            flat = plan.flat(factor.detach())
            pulls.append((factor, weights * d_weights))
            weighted, d_weights = weights * flat, d_weights * flat
        target = d_values.narrow(-1 - plan.joint, column, columns)
        target.add_((weighted.mT @ d_here).sum_to_size(v.shape).view(target.shape))
        pulls.append((scores, weights * (d_weights - delta[..., here, None])))
        split = (columns, *values.shape[-plan.joint : -1])
        pulls = [(y, d.unflatten(-1, split).sum_to_size(y.shape).to(y.dtype)) for y, d in pulls if y.requires_grad]
        if pulls:
            above, below = [y for y, _ in pulls], [d for _, d in pulls]
            given = torch.autograd.grad(above, [parts[k] for k in needed], below, allow_unused=True)
            for k, part in zip(needed, given, strict=True):
                if part is not None:
                    plan.cut_one(found[k], plan.cuts[k], row, rows, column, columns).add_(part)
    return d_values, [found[k] for k in needed]


def _online_softmax_plain(plan: _OnlineSoftmax, values: Tensor, operands: Any) -> tuple[Tensor, Tensor]:
    """The same in operations that can be traced, mapped and differentiated any number of times: all pairs at once."""
    dtype = torch.promote_types(values.dtype, torch.float32)
    scores, mask, factor = plan.scores(*operands)
    v = plan.part(values, 0, values.shape[-1 - plan.joint]).to(dtype)
    scores = plan.masked(scores.to(dtype), mask).expand(*plan.lead, plan.rows, v.shape[-2])
    empty = (scores == -torch.inf).all(-1, keepdim=True)
    scores = torch.where(empty, 0.0, scores)
    weights = torch.where(empty, 0.0, torch.softmax(scores, -1))
    level = torch.where(empty.squeeze(-1), -torch.inf, torch.logsumexp(scores, -1))
    return (weights if factor is None else weights * plan.flat(factor)) @ v, level


def online_softmax(
    scores: Callable[..., tuple[Tensor, Tensor | None, Tensor | None]],
    operands: list[tuple[Tensor, int | None, int | None]],
    values: Tensor,
    lead: tuple[int, ...],
    rows: int,
    *,
    columns: Callable[[int, int], tuple[int, int]] | None = None,
    joint: int = 1,
) -> tuple[Tensor, Tensor]:
    """o[t] = sum over s of softmax(z[t, s]) f[t, s] v[s]; level[t] = logsumexp of z[t, s]. Nothing counts: 0, -inf.

    Shapes:  operands (x, which dimension of x is t, which is s); scores(*operands) -> z, where it counts, f, each
             [*lead, t, s..], 1 where it does not vary; values [*lead, S.., V], lead dimensions may be 1
             -> o [*lead, T, V], level [*lead, T]
    `columns(first, last)` bounds the columns in which rows first to last may count. `joint` column dimensions share
    one softmax. Everything that needs a gradient is an operand; memory grows with T + S.
    """
    plan = _OnlineSoftmax(scores, [(r, c) for _, r, c in operands], lead, rows, columns, joint)
    tensors = [x for x, _, _ in operands]
    if torch.compiler.is_compiling():
        return _online_softmax_plain(plan, values, tensors)
    o, level, _, _ = _OnlineSoftmaxFunction.apply(plan, values, *tensors)  # type: ignore[no-untyped-call]
    return o, level

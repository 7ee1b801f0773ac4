"""Feedback through a decaying state, chunk by chunk: a unit triangular system inside, one product between two chunks."""

from typing import Any

import torch
from torch import Tensor

from ..runtime_calls import _full_backward
from .decay_gram import decay_gram
from .from_chunks import from_chunks
from .pair_factors import pair_factors
from .pair_factors_adjoint import pair_factors_adjoint
from .prefix_products import prefix_products
from .suffix_products import suffix_products
from .to_chunks import to_chunks
from .unit_inverse import unit_inverse
from .zero_of import zero_of


class _ChunkSolve(torch.autograd.Function):
    """Inside a chunk (I - G) y = x + W S, with G strictly lower triangular and S the state that enters it.

    So S' = P S + Q with P = total + U^T (I - G)^-1 W: the chunk's own map, and the loop over chunks is one product. The
    adjoint solves the transposed system with the same inverse; no gradient passes through the inverse itself.
    """

    @staticmethod
    def forward(
        w: Tensor, u: Tensor, x: Tensor, decay: Tensor, start: Tensor, log: bool, after: bool, size: int
    ) -> tuple[Tensor, ...]:
        return _chunk_solve_chunks(w, u, x, decay, start, log=log, after=after, size=size)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        *given, ctx.log, ctx.after, ctx.size = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*given, *output)

    @staticmethod
    @_full_backward
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        w, u, x, decay, start, y, *saved = ctx.saved_tensors
        if grads[0] is None:
            return (None,) * 8
        flags = {"log": ctx.log, "after": ctx.after, "size": ctx.size}
        if torch.is_grad_enabled():
            pull = torch.func.vjp(lambda *given: _chunk_solve_plain(*given, **flags), w, u, x, decay, start)[1]
            return *pull(grads[0]), None, None, None
        return *_chunk_solve_adjoint(w, u, decay, y, grads[0], saved, **flags), None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, Any]:
        """The mapped axis joins the batch."""
        merged = [
            (x.unsqueeze(0).expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)).flatten(0, 1)
            for x, dim in zip(inputs[:5], in_dims[:5], strict=True)
        ]
        y, *saved = _ChunkSolve.apply(*merged, *inputs[5:])  # type: ignore[no-untyped-call]
        return (y.unflatten(0, (info.batch_size, -1)), *saved), (0, *[None] * len(saved))


def _chunk_solve_split(x: Tensor, size: int, dtype: torch.dtype) -> Tensor:
    """[B, T, H, R, D] -> [M, R, C, D], M = N B H chunks of C positions, filled up with zeros."""
    chunks = to_chunks(x.flatten(2, 3), size, 0, dtype)
    return torch.unflatten(chunks, 2, (-1, x.shape[3])).flatten(0, 2)


def _chunk_solve_rows(x: Tensor) -> Tensor:
    """[M, R, C, D] -> [M, C R, D]: the rows of the triangular system, in the order of time."""
    return x.transpose(1, 2).flatten(1, 2)


def _chunk_solve_join(rows: Tensor, like: Tensor, size: int) -> Tensor:
    """[M, C R, D] -> [B, T, H, R, D] with the other lengths of `like`."""
    batch, time, heads, ranks, _ = like.shape
    chunks = rows.unflatten(1, (size, ranks)).transpose(1, 2).unflatten(0, (-1, batch, heads)).flatten(2, 3)
    joined = rows.new_empty(batch, time, heads * ranks, rows.shape[2])
    from_chunks(chunks, joined)
    return torch.unflatten(joined, 2, (heads, ranks))


def _chunk_solve_chunks(
    w: Tensor, u: Tensor, x: Tensor, decay: Tensor, start: Tensor, *, log: bool, after: bool, size: int
) -> tuple[Tensor, ...]:
    """y, then what the adjoint wants."""
    dtype = start.dtype
    batch, heads, width, columns = start.shape
    ranks = w.shape[3]
    left, right = _chunk_solve_split(w, size, dtype), _chunk_solve_split(u, size, dtype)
    given = _chunk_solve_rows(_chunk_solve_split(x, size, dtype))
    decays = to_chunks(decay, size, 0.0 if log else 1.0, dtype).flatten(0, 2)
    pairs, reads, writes, total, *kept = pair_factors(left, right, decays, log=log, after=after)
    inverse = unit_inverse(pairs.permute(0, 3, 1, 4, 2).reshape(-1, size * ranks, size * ranks).neg())
    both = torch.bmm(inverse, torch.cat([given, _chunk_solve_rows(reads)], -1))
    alone, answers = both.split([columns, width], -1)
    leaving = _chunk_solve_rows(writes)
    step = torch.bmm(leaving.mT, answers)
    step.diagonal(dim1=1, dim2=2).add_(total)
    count = given.shape[0] // (batch * heads)
    states = start.new_empty(count + 1, batch * heads, width, columns)
    states[0] = start.flatten(0, 1)
    torch.bmm(leaving.mT, alone, out=states[1:].flatten(0, 1))
    steps = step.unflatten(0, (count, -1)).unbind(0)
    for one, entering, following in zip(steps, states[:-1].unbind(0), states[1:].unbind(0), strict=True):
        following.baddbmm_(one, entering)
    rows = torch.baddbmm(alone, answers, states[:-1].flatten(0, 1))
    return _chunk_solve_join(rows, x, size), inverse, answers, leaving, step, total, states, *kept


def _chunk_solve_adjoint(
    w: Tensor,
    u: Tensor,
    decay: Tensor,
    y: Tensor,
    d_y: Tensor,
    saved: list[Tensor],
    *,
    log: bool,
    after: bool,
    size: int,
) -> tuple[Tensor, ...]:
    """Gradients of w, u, x, decay and start. With r = (I - G)^-T (dy + U dS'): dx = r, dG = r y^T, dW = r S^T."""
    inverse, answers, leaving, step, total, states, *kept = saved
    dtype, ranks = states.dtype, w.shape[3]
    given = _chunk_solve_rows(_chunk_solve_split(d_y, size, dtype))
    solved = _chunk_solve_rows(_chunk_solve_split(y, size, dtype))
    d_states = torch.zeros_like(states)
    torch.bmm(answers.mT, given, out=d_states[:-1].flatten(0, 1))
    steps = step.unflatten(0, (len(states) - 1, -1)).unbind(0)
    for n in range(len(steps) - 1, -1, -1):
        d_states[n].baddbmm_(steps[n].mT, d_states[n + 1])
    entering, d_leaving = states[:-1].flatten(0, 1), d_states[1:].flatten(0, 1)
    d_x = torch.bmm(inverse.mT, torch.baddbmm(given, leaving, d_leaving))
    d_pairs = torch.bmm(d_x, solved.mT).unflatten(2, (size, ranks)).unflatten(1, (size, ranks)).permute(0, 2, 4, 1, 3)
    d_reads = torch.bmm(d_x, entering.mT).unflatten(1, (size, ranks)).transpose(1, 2)
    d_writes = torch.bmm(solved, d_leaving.mT).unflatten(1, (size, ranks)).transpose(1, 2)
    d_total = d_leaving.mul_(entering).sum(-1)
    left, right = _chunk_solve_split(w, size, dtype), _chunk_solve_split(u, size, dtype)
    decays = to_chunks(decay, size, 0.0 if log else 1.0, dtype).flatten(0, 2)
    d_left, d_right, d_decay = pair_factors_adjoint(
        left, right, decays, tuple(kept), d_pairs, d_reads, d_writes, d_total, log=log, after=after
    )
    batch, heads = states.shape[1] // w.shape[2], w.shape[2]
    d_decays = torch.empty(decay.shape, dtype=dtype, device=decay.device)
    from_chunks(d_decay.unflatten(0, (-1, batch, heads)), d_decays)
    joined = (_chunk_solve_join(_chunk_solve_rows(g), w, size) for g in (d_left, d_right))
    return *joined, _chunk_solve_join(d_x, d_y, size), d_decays, d_states[0].unflatten(0, (batch, heads))


def _chunk_solve_plain(
    w: Tensor, u: Tensor, x: Tensor, decay: Tensor, start: Tensor, *, log: bool, after: bool, size: int
) -> Tensor:
    """The same in operations that can be traced, mapped and differentiated any number of times."""
    time, ranks = w.shape[1], w.shape[3]
    count = -(-time // size)
    fill = 0.0 if log else 1.0

    def split(x: Tensor, fill: float) -> Tensor:
        extra = x.new_full((x.shape[0], count * size - time, *x.shape[2:]), fill)
        return torch.unflatten(torch.cat([x, extra], 1), 1, (count, size)).movedim(2, -2).to(start.dtype)

    left, right, given = split(w, 0.0), split(u, 0.0), split(x, 0.0)  # [B, N, H, R, C, D]
    decays = split(decay, fill).unsqueeze(3)  # [B, N, H, 1, C, D]
    pairs = decay_gram(left.unsqueeze(4), right.unsqueeze(3), decays.unsqueeze(3), log=log, strict=not after)
    system = torch.eye(size * ranks, dtype=start.dtype, device=w.device) - pairs.tril(-1).movedim(5, 3).movedim(
        6, 5
    ).flatten(5, 6).flatten(3, 4)
    reads = (left * prefix_products(decays, log=log, exclusive=not after)).transpose(3, 4).flatten(3, 4)
    leaving = (right * suffix_products(decays, log=log)).transpose(3, 4).flatten(3, 4)
    total = prefix_products(decays, log=log)[..., -1, :].transpose(-1, -2)  # [B, N, H, K, 1]
    rows = given.transpose(3, 4).flatten(3, 4)
    both = torch.linalg.solve_triangular(system, torch.cat([rows, reads], -1), upper=False, unitriangular=True)
    alone, answers = both.split([x.shape[-1], w.shape[-1]], -1)
    found, state = [], start
    for n in range(count):
        y = alone[:, n] + answers[:, n] @ state
        found.append(y)
        state = total[:, n] * state + leaving[:, n].mT @ y
    y = torch.unflatten(torch.stack(found, 1), 3, (size, ranks)).movedim(3, 2).flatten(1, 2)
    return y[:, :time]


def chunk_solve(
    w: Tensor,
    u: Tensor,
    x: Tensor,
    decay: Tensor | None = None,
    start: Tensor | None = None,
    *,
    log: bool = True,
    after: bool = False,
    chunk: int = 64,
) -> Tensor:
    """y[t] = x[t] + w[t] S[t-1] (w[t] a[t] S[t-1] if `after`), S[t] = a[t] S[t-1] + u[t]^T y[t], for R ranks at once.

    Shapes:  w, u [B, T, H, R, K], x [B, T, H, R, V], decay [B, T, H, 1 or K] or None for 1, start [B, H, K, V] or None;
             every axis may be 1 -> y [B, T, H, R, V], float32 for 16 bits
    Units:   a = exp(decay) if log, else a = decay; any sign, complex, or 0 (log -inf)
    """
    if decay is None:
        decay = torch.full((1, 1, 1, 1), 0.0 if log else 1.0, dtype=x.dtype, device=x.device)
    if start is None:
        start = torch.zeros((1, 1, 1, 1), dtype=x.dtype, device=x.device)
    dtype = torch.float32
    for given in (w, u, x, decay, start):
        dtype = torch.promote_types(dtype, given.dtype)
    lead = [g.shape[:3] for g in (w, u, x, decay)]
    batch, time, heads = torch.broadcast_shapes(*lead, (start.shape[0], 1, start.shape[1]))
    (ranks,) = torch.broadcast_shapes(w.shape[3:4], u.shape[3:4], x.shape[3:4])  # 1 and 0 are 0
    (width,) = torch.broadcast_shapes(w.shape[4:], u.shape[4:], decay.shape[3:], start.shape[2:3])
    (columns,) = torch.broadcast_shapes(x.shape[4:], start.shape[3:])
    w, u = (g.expand(batch, time, heads, ranks, width) for g in (w, u))
    x = x.expand(batch, time, heads, ranks, columns)
    decay = decay.expand(batch, time, heads, decay.shape[3])
    start = start.to(dtype).expand(batch, heads, width, columns)
    if 0 in (batch, time, heads, ranks, width, columns):
        return x.to(dtype) + zero_of(w * u, decay, start)
    size = min(max(8, chunk // (1 << (ranks - 1).bit_length())), max(8, 1 << (time - 1).bit_length()))
    if torch.compiler.is_compiling() or dtype.is_complex:
        return _chunk_solve_plain(w, u, x, decay, start, log=log, after=after, size=size)
    y: Tensor = _ChunkSolve.apply(w, u, x, decay, start, log, after, size)[0]  # type: ignore[no-untyped-call]
    return y

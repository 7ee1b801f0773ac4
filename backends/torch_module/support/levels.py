"""A recurrence over a graph that the inputs give: all positions of a level take their step together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ..runtime_calls import _full_backward
from .gradient_again import gradient_again

# (what is read of earlier positions at each pair, operands at the positions, at the pairs, and everywhere the same,
# the position of each pair of a group, how many positions) -> the states at the positions
_LevelStep = Callable[[list[Tensor], list[Tensor], list[Tensor], list[Tensor], list[Tensor], int], Sequence[Tensor]]


@dataclass(frozen=True)
class _LevelPlan:
    """Positions and pairs in the order of levels. A state's table holds what came before, the positions, and zeros.

    `spans` are the positions of each level; of each group of pairs, `pairs` are those of each level, and `rows` where
    they belong within the level; each read is of a state, by a group, at `sources`, rows of the state's table. `groups`
    are the groups of the operands at pairs, and `counts` how many tensors of each kind a step is given."""

    base: int
    spans: list[slice]
    pairs: list[list[slice]]
    rows: list[Tensor]
    reads: list[tuple[int, int]]
    sources: list[Tensor]
    groups: list[int]
    counts: tuple[int, int, int]

    def parts(self, level: int, given: Sequence[Tensor]) -> list[Tensor]:
        """The operands at a level; one that is the same everywhere stays whole."""
        here, there, _ = self.counts
        places = [self.spans[level]] * here + [self.pairs[g][level] for g in self.groups]
        cut = [x if x.shape[0] == 1 else x[at] for x, at in zip(given, places, strict=False)]
        return [*cut, *given[here + there : sum(self.counts)]]

    def places(self, level: int) -> list[Tensor]:
        """The rows of the tables that the reads of a level are of."""
        return [at[self.pairs[g][level]] for (_, g), at in zip(self.reads, self.sources, strict=True)]

    def run(self, step: _LevelStep, level: int, earlier: list[Tensor], parts: Sequence[Tensor]) -> Sequence[Tensor]:
        """The states at the positions of a level."""
        here, there, _ = self.counts
        rows = [at[spans[level]] for at, spans in zip(self.rows, self.pairs, strict=True)]
        operands = list(parts[:here]), list(parts[here : here + there]), list(parts[here + there :])
        return step(earlier, *operands, rows, self.spans[level].stop - self.spans[level].start)


class _Levels(torch.autograd.Function):
    """Keeps operands and states. A backward takes the levels in the opposite order, and each step once more."""

    @staticmethod
    def forward(step: _LevelStep, plan: _LevelPlan, *given: Tensor) -> tuple[Tensor, ...]:
        total = plan.spans[-1].stop if plan.spans else 0
        tables = [torch.cat([x, x.new_zeros(total + 1, *x.shape[1:])]) for x in given[sum(plan.counts) :]]
        for level, span in enumerate(plan.spans):
            earlier = [tables[s].index_select(0, at) for (s, _), at in zip(plan.reads, plan.places(level), strict=True)]
            after = plan.run(step, level, earlier, plan.parts(level, given))
            for table, state in zip(tables, after, strict=True):
                table[plan.base + span.start : plan.base + span.stop] = state
        return tuple(tables)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.step, ctx.plan, *given = inputs
        ctx.save_for_backward(*given, *output)

    @staticmethod
    @_full_backward
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # asked for once: a checkpoint recomputes them, once
        given, tables = saved[: -len(grads)], saved[-len(grads) :]
        wanted = [k for k, needs in enumerate(ctx.needs_input_grad[2:]) if needs]
        every: list[Tensor | None] = [None] * (2 + len(given))
        if torch.is_grad_enabled():  # to be differentiated again: through the steps themselves
            found = gradient_again(lambda x: _levels_plain(ctx.step, ctx.plan, x), given, wanted, grads)
            for k, value in zip(wanted, found, strict=True):
                every[2 + k] = value
        else:
            every[2:] = _levels_adjoint(ctx.step, ctx.plan, given, tables, grads, wanted)
        return tuple(every)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], step: Any, plan: _LevelPlan, *given: Tensor) -> Any:
        """Numbers may be mapped, with one graph for all: that was told from numbers before."""
        run = torch.vmap(lambda *each: tuple(_levels_plain(step, plan, each)), in_dims[2:])
        return run(*given), (0,) * (len(given) - sum(plan.counts))


def _levels_plain(step: _LevelStep, plan: _LevelPlan, given: Sequence[Tensor]) -> list[Tensor]:
    """The tables, level by level, without writing into any."""
    before = given[sum(plan.counts) :]
    zeros = [x.new_zeros(1, *x.shape[1:]) for x in before]
    total = plan.spans[-1].stop if plan.spans else 0
    tables = [[x] for x in before]
    for level in range(len(plan.spans)):
        whole = [torch.cat([*parts, zero]) for parts, zero in zip(tables, zeros, strict=True)]
        earlier = []
        for (s, _), at in zip(plan.reads, plan.places(level), strict=True):
            last = at == plan.base + total  # zeros come last, and here the levels so far end before
            earlier.append(whole[s].index_select(0, torch.where(last, len(whole[s]) - 1, at)))
        after = plan.run(step, level, earlier, plan.parts(level, given))
        for parts, state in zip(tables, after, strict=True):
            parts.append(state)
    return [torch.cat([*parts, zero]) for parts, zero in zip(tables, zeros, strict=True)]


def _levels_adjoint(
    step: _LevelStep,
    plan: _LevelPlan,
    given: Sequence[Tensor],
    tables: Sequence[Tensor],
    grads: Sequence[Tensor],
    wanted: list[int],
) -> list[Tensor | None]:
    """Gradients of what is given: each level sends its own back to the rows that it read."""
    count = sum(plan.counts)
    back = [g.clone() for g in grads]
    found = {k: torch.zeros_like(given[k]) for k in wanted if k < count}
    for level in reversed(range(len(plan.spans))):
        span, places = plan.spans[level], plan.places(level)
        with torch.enable_grad():
            earlier = [
                tables[s].detach().index_select(0, at).requires_grad_() for (s, _), at in zip(plan.reads, places, strict=True)
            ]
            parts = [x.detach().requires_grad_(k in found) for k, x in enumerate(plan.parts(level, given))]
            after = plan.run(step, level, earlier, parts)
            asked = [*earlier, *(parts[k] for k in found)]
            own = [g[plan.base + span.start : plan.base + span.stop] for g in back]
            some = [(y, g) for y, g in zip(after, own, strict=True) if y.requires_grad]
            sent = torch.autograd.grad(
                [y for y, _ in some], asked, [g for _, g in some], allow_unused=True, materialize_grads=True
            ) if some else [torch.zeros_like(x) for x in asked]  # fmt: skip
        for (s, _), at, part in zip(plan.reads, places, sent, strict=False):
            back[s].index_add_(0, at, part)
        for k, part in zip(found, sent[len(earlier) :], strict=True):
            _level_cut(plan, level, k, found[k]).add_(part)
    known = {count + s: g[: plan.base] for s, g in enumerate(back)}
    return [found.get(k, known.get(k)) if k in wanted else None for k in range(len(given))]


def _level_cut(plan: _LevelPlan, level: int, k: int, whole: Tensor) -> Tensor:
    """The part of the k-th operand that a level is given."""
    here, there, _ = plan.counts
    if k >= here + there or whole.shape[0] == 1:
        return whole
    return whole[plan.spans[level] if k < here else plan.pairs[plan.groups[k - here]][level]]


def _level_numbers(count: int, rows: Tensor, sources: Tensor) -> Tensor:
    """The level of each position: one more than the highest of those it waits for, `sources` at `rows`; else 0."""
    level, waits = torch.zeros(count, dtype=torch.long), torch.bincount(rows, minlength=count)
    readers, number = rows[sources.argsort()], torch.bincount(sources, minlength=count)
    first = number.cumsum(0) - number
    front, found, depth = (waits == 0).nonzero().squeeze(1), 0, 0
    while len(front):
        level[front], found = depth, found + len(front)
        each = number[front]
        inside = torch.arange(int(each.sum())) - (each.cumsum(0) - each).repeat_interleave(each)
        hit = readers[first[front].repeat_interleave(each) + inside]
        waits.index_add_(0, hit, torch.full_like(hit, -1))
        front, depth = hit[waits[hit] == 0].unique(), depth + 1
    if found < count:
        raise ValueError(f"the graph has a cycle: {count - found} of {count} positions wait for one another")
    return level


def _level_spans(level: Tensor, depth: int) -> list[slice]:
    """Where each level lies, among numbers that rise."""
    ends = [0, *torch.bincount(level, minlength=depth).cumsum(0).tolist()]
    return [slice(a, b) for a, b in zip(ends, ends[1:], strict=False)]


def _level_plan(
    pairs: Sequence[Tensor], reads: Sequence[tuple[int, int, Tensor]], shape: tuple[int, int], past: int, groups: list[int]
) -> tuple[_LevelPlan, Tensor, list[Tensor]]:
    """The plan without its counts, the positions in the order of the levels, and the pairs of each group."""
    (batch, time), count = shape, shape[0] * shape[1]
    own = [p[0] * time + p[1] for p in pairs]
    flat, waits = [], []
    for _, g, at in reads:
        new = (at >= past) & (at < past + time)
        flat.append(torch.where(new, pairs[g][0] * time + at - past, -1))
        waits.append(torch.stack([own[g], flat[-1]])[:, new].cpu())
    level = _level_numbers(count, *torch.cat(waits, 1)).to(own[0].device)
    order = level.argsort(stable=True)
    rank = torch.empty_like(order).scatter_(0, order, torch.arange(count, device=order.device))
    spans = _level_spans(level, 0)
    starts = torch.tensor([s.start for s in spans], dtype=torch.long, device=order.device)
    by = [rank[rows].argsort(stable=True) for rows in own]
    levels = [level[rows[b]] for rows, b in zip(own, by, strict=True)]
    rows = [rank[r[b]] - starts[n] for r, b, n in zip(own, by, levels, strict=True)]
    base, sources = batch * past, []
    for (_, g, at), place in zip(reads, flat, strict=True):
        row = torch.where((at >= 0) & (at < past), pairs[g][0] * past + at, base + count)
        sources.append(torch.where(place >= 0, base + rank[place], row)[by[g]] if count else row)
    cuts = [_level_spans(n, len(spans)) for n in levels]
    plan = _LevelPlan(base, spans, cuts, rows, [(s, g) for s, g, _ in reads], sources, groups, (0, 0, 0))
    return plan, order, by


def _level_picked(x: Tensor, places: Sequence[Tensor]) -> Tensor:
    """x[places..] over as many leading dimensions, of which one of length 1 is the same everywhere."""
    lead = x.shape[: len(places)]
    if all(n == 1 for n in lead):
        return x.flatten(0, len(places) - 1)
    whole = torch.zeros_like(places[0])
    for n, place in zip(lead, places, strict=True):
        whole = whole * n + (place if n > 1 else 0)
    return x.flatten(0, len(places) - 1).index_select(0, whole)


def _level_sum(x: Tensor, rows: Tensor, cells: int) -> Tensor:
    """At each position the sum over its pairs."""
    return x.new_zeros(cells, *x.shape[1:]).index_add(0, rows, x)


def _level_max(x: Tensor, rows: Tensor, cells: int) -> Tensor:
    """At each position the largest over its pairs, -inf for none; the first of them where several are equal."""
    at = rows.view(-1, *[1] * (x.dim() - 1)).expand_as(x)
    best = x.new_full((cells, *x.shape[1:]), -torch.inf).scatter_reduce(0, at, x.detach(), "amax")
    number = torch.arange(len(x), device=x.device).view_as(rows).view(-1, *[1] * (x.dim() - 1))
    hit = torch.where((x == best[rows]) | x.isnan(), number, len(x))
    first = torch.full_like(best, len(x), dtype=torch.long).scatter_reduce(0, at, hit, "amin")
    return torch.cat([x, x.new_full((1, *x.shape[1:]), -torch.inf)]).gather(0, first)


def _level_logsumexp(x: Tensor, rows: Tensor, cells: int) -> Tensor:
    """At each position the logarithm of the sum of the exponentials over its pairs, -inf for none."""
    best = _level_max(x, rows, cells).detach()
    shift = torch.where(best.isfinite(), best, 0)
    total = _level_sum((x - shift[rows]).exp(), rows, cells)
    return torch.where(total > 0, torch.where(total > 0, total, 1).log() + shift, -torch.inf)


def levels(
    step: _LevelStep,
    known: Sequence[Tensor],
    pairs: Sequence[Tensor],
    reads: Sequence[tuple[int, int, Tensor]],
    here: Sequence[Tensor],
    there: Sequence[tuple[int, Tensor]],
    fixed: Sequence[Tensor],
    shape: tuple[int, int],
) -> list[Tensor]:
    """The states of a recurrence whose positions wait for those that `pairs` say, level by level.

    Levels are found from numbers: `vmap` maps operands, and one graph for all; `torch.compile` breaks its graph here.
    Shapes:  known, what came before of each state [B, past, ...]; pairs, groups of (sequence, position, item) [3, P];
             reads, (state, group, position that is read, counted from what came before) with [P]; outside it reads 0;
             here, operands at the positions [B or 1, T or 1, ...]; there, of a group, at the pairs [B or 1, T or 1,
             I or 1, ...]; shape (B, T) -> states [B, T, ...]
    """
    (batch, time), past = shape, known[0].shape[1]
    if any(p.is_meta for p in pairs):
        return [x.new_empty(batch, time, *x.shape[2:]) for x in known]
    plan, order, by = _level_plan(pairs, reads, shape, past, [g for g, _ in there])
    positions = (order // max(time, 1), order % max(time, 1))
    given = [_level_picked(x, positions) for x in here]
    given += [_level_picked(x, list(pairs[g][:, by[g]])) for g, x in there]
    given += [*fixed, *(x.expand(batch, *x.shape[1:]).flatten(0, 1) for x in known)]
    plan = replace(plan, counts=(len(here), len(there), len(fixed)))
    tables = _Levels.apply(step, plan, *given)  # type: ignore[no-untyped-call]
    back = plan.base + torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    return [table.index_select(0, back).unflatten(0, shape) for table in tables]

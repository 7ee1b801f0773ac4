"""States at the boundaries of chunks: the one loop that goes over time."""

import torch
from torch import Tensor

GROUP = 8
FEW = 1 << 15  # entries of a state, of which a step takes as long as it takes to ask for it


def chunk_states(states: Tensor, totals: Tensor, log_totals: Tensor | None) -> None:
    """S[n + 1] += total[n] S[n], in place: what the chunks write becomes the states between them.

    Shapes:  states [N+1, M, K, V], the start first; totals, log_totals [N, M, K or 1, V or 1]
    """
    if log_totals is None or totals.shape[0] > 1:
        _chunk_states_passed_on(states, totals, False)
        return
    # A call for each step or for a few would add up the same rounding of exp(g): slow decays as S + expm1(g) S.
    slow = log_totals[0].abs() < 0.5
    states[1].addcmul_(states[0], torch.where(slow, log_totals[0].expm1(), totals[0]))
    states[1].addcmul_(states[0], slow.to(states.dtype))


def chunk_states_adjoint(d_states: Tensor, totals: Tensor) -> None:
    """dS[n] += total[n] dS[n + 1], in place, from the last chunk to the first."""
    _chunk_states_passed_on(d_states, totals, True)


def _chunk_states_passed_on(states: Tensor, totals: Tensor, reverse: bool) -> None:
    """Many small states in groups, whose chunks take their steps side by side, and are given last what enters the group."""
    own = states[:-1] if reverse else states[1:]
    entering, count = states[-1 if reverse else 0], totals.shape[0] // GROUP * GROUP
    if count < 2 * GROUP or entering.numel() > FEW:
        _chunk_states_in_turn(own, totals, entering, reverse)
        return
    if reverse:
        entering = _chunk_states_in_turn(own[count:], totals[count:], entering, True)
    groups, left = (x[:count].unflatten(0, (-1, GROUP)) for x in (own, totals))
    first, last, others = (-1, 0, slice(1, None)) if reverse else (0, -1, slice(None, -1))
    inner = slice(None, -1) if reverse else slice(1, None)
    _chunk_states_in_turn(groups[:, inner].transpose(0, 1), left[:, inner].transpose(0, 1), groups[:, first], reverse)
    whole = left.flip(1).cumprod(1).flip(1) if reverse else left.cumprod(1)
    leaving = _chunk_states_in_turn(groups[:, last], whole[:, last], entering, reverse)
    before = states[GROUP : count + 1 : GROUP] if reverse else states[:count:GROUP]
    groups[:, others].addcmul_(before.unsqueeze(1), whole[:, others])
    if not reverse:
        _chunk_states_in_turn(own[count:], totals[count:], leaving, False)


def _chunk_states_in_turn(own: Tensor, totals: Tensor, entering: Tensor, reverse: bool) -> Tensor:
    """Add to each state what the one before it leaves; the last one."""
    steps = list(zip(own.unbind(0), totals.unbind(0), strict=True))
    for state, left in reversed(steps) if reverse else steps:
        entering = state.addcmul_(entering, left)
    return entering

"""States at the boundaries of chunks: the one loop that goes over time."""

import torch
from torch import Tensor


def chunk_states(states: Tensor, totals: Tensor, log_totals: Tensor | None) -> None:
    """S[n + 1] += total[n] S[n], in place: what the chunks write becomes the states between them.

    Shapes:  states [N+1, M, K, V], the start first; totals, log_totals [N, M, K or 1, V or 1]
    """
    pairs = zip(states[:-1].unbind(0), states[1:].unbind(0), totals.unbind(0), strict=True)
    if log_totals is None or totals.shape[0] > 1:
        for entering, following, left in pairs:
            following.addcmul_(entering, left)
        return
    # A call for each step or for a few would add up the same rounding of exp(g): slow decays as S + expm1(g) S.
    for entering, following, left in pairs:
        slow = log_totals[0].abs() < 0.5
        following.addcmul_(entering, torch.where(slow, log_totals[0].expm1(), left))
        following.addcmul_(entering, slow.to(states.dtype))


def chunk_states_adjoint(d_states: Tensor, totals: Tensor) -> None:
    """dS[n] += total[n] dS[n + 1], in place, from the last chunk to the first."""
    pairs = zip(d_states[1:].unbind(0), d_states[:-1].unbind(0), totals.unbind(0), strict=True)
    for leaving, entering, left in reversed(list(pairs)):
        entering.addcmul_(leaving, left)

"""How the maps of an affine recurrence's steps are joined, one after the other: x -> whole x + total.

Where decays are logarithms, so is `whole`: a product of rounded decays near 1 drifts.
"""

import triton

from .function_kernels import _decayed


@triton.jit
def _affine_join(whole_1, total_1, whole_2, total_2):
    """The first map, then the second."""
    return whole_1 * whole_2, total_2 + whole_2 * total_1


@triton.jit
def _affine_join_logs(whole_1, total_1, whole_2, total_2):
    """The same of logarithms."""
    return whole_1 + whole_2, total_2 + _decayed(whole_2, total_1)


@triton.jit
def _affine_follow(whole_1, total_1, first_whole_1, first_total_1, whole_2, total_2, first_whole_2, first_total_2):
    """The same, and beside it all but the last of the maps that were joined."""
    whole, total = _affine_join(whole_1, total_1, whole_2, total_2)
    first_whole, first_total = _affine_join(whole_1, total_1, first_whole_2, first_total_2)
    return whole, total, first_whole, first_total


@triton.jit
def _affine_follow_logs(whole_1, total_1, first_whole_1, first_total_1, whole_2, total_2, first_whole_2, first_total_2):
    """The same of logarithms."""
    whole, total = _affine_join_logs(whole_1, total_1, whole_2, total_2)
    first_whole, first_total = _affine_join_logs(whole_1, total_1, first_whole_2, first_total_2)
    return whole, total, first_whole, first_total

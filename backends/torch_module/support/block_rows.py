"""A chunk in blocks of eight rows, the row's number first."""

from torch import Tensor


def block_rows(x: Tensor) -> Tensor:
    """Copy [M, C, D] to [8, M, C/8, D], so that one row of all blocks is contiguous."""
    blocks: Tensor = x.unflatten(1, (-1, 8))
    return blocks.permute(2, 0, 1, 3).contiguous()

"""What every launch shares: the namespace of the operators, the device to launch on, the precision of products."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
from torch import Tensor

from .assembler import _launching_on

OPS = "seqdsl"  # the namespace of this file's operators; a generated file has one of its own
INTERPRETED = bool(triton.knobs.runtime.interpret)


def _on_device(x: Tensor) -> AbstractContextManager[Any]:
    """Kernels run on the current device: make it that of the operands."""
    return _launching_on(x.device) if x.is_cuda else nullcontext()


def _tiles_of(device: torch.device) -> str:
    """Whose tiles a device takes: sm_80, hip, or sm_90 and what came after it."""
    if torch.version.hip:
        return "hip"
    return "sm_80" if device.type == "cuda" and torch.cuda.get_device_capability(device)[0] < 9 else "sm_90"


def _has_kernels(x: Tensor) -> bool:
    """CUDA and HIP devices run the kernels; the CPU only under Triton's interpreter."""
    return x.is_cuda or INTERPRETED


def _rows_fit(rows: int, *strides: int) -> bool:
    """Are rows of a tile so near each other that 32 bits count what lies between its first and its last? What is farther
    away is counted in 64 bits, but rows of a tile are not, for the sake of registers."""
    return rows * max(strides) < 2**31


def _joint_shape(*shapes: Sequence[int]) -> tuple[int, ...]:
    """`torch.broadcast_shapes` of as many dimensions each, for calls that are not traced: a tenth of its time on the host."""
    if not torch.compiler.is_compiling():
        found = tuple(next((n for n in sizes if n != 1), 1) for sizes in zip(*shapes, strict=True))
        if all(n == 1 or n == m for shape in shapes for n, m in zip(shape, found, strict=True)):
            return found
    return tuple(torch.broadcast_shapes(*shapes))


def _one_device(given: list[Tensor]) -> None:
    """Kernels read every operand where they run: memory of another device would be read too early, or not at all."""
    for x in given:
        if x.device != given[0].device:
            raise ValueError(f"operands on {given[0].device} and on {x.device}: move them to one device first")


def _restarted(decay: Tensor | None, first: Tensor, like: Tensor, log: bool) -> Tensor:
    """Decays [B, T, ..] that leave nothing where a packed sequence begins; None is a decay of 1."""
    if decay is None:
        decay = torch.full((1,) * like.dim(), 0.0 if log else 1.0, device=like.device)
    shape = (1, -1, *[1] * (decay.dim() - 2))
    return torch.where(first.view(shape), -torch.inf if log else 0.0, decay)


def _unasked(q: Tensor, first: Tensor) -> Tensor:
    """Reads of what was before a packed sequence find nothing."""
    return torch.where(first.view(1, -1, *[1] * (q.dim() - 2)), 0.0, q)


def _dot_precision() -> str:
    """How float32 tiles are multiplied: three tf32 products that add up to float32, or exactly where there are none."""
    return "ieee" if torch.version.hip or INTERPRETED else "tf32x3"


def _cdiv(size: int, part: int) -> int:
    """How many parts cover a size: `triton.cdiv` takes 5 us on the host, for kernels call it, too."""
    return -(-size // part)


def _piece_length(time: int, programs: int, full: int, least: int, unit: int) -> int:
    """How long pieces of time are, in whole units: one piece where so many programs are a full device, else as many pieces as
    make twice that, of `least` steps or more."""
    count = 1 if programs >= full else min(_cdiv(2 * full, programs), _cdiv(time, least))
    return _cdiv(_cdiv(time, count), unit) * unit


def _block(size: int, most: int) -> int:
    """The tile's length along an axis: a power of two, at least the 16 that products of tiles want."""
    return max(16, min(most, 1 << max(size - 1, 0).bit_length()))

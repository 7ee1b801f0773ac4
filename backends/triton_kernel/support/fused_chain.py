"""Groups of equations by kernels that were written for them, as operators that compilers see through. No gradients."""

import math
from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .launching import OPS, _cdiv, _has_kernels, _on_device

CHAIN_TILE = 2048  # entries of a program's tile: 16 for each thread of 4 warps
CHAIN_LEAST = 512  # of one that is cut because there are fewer programs than a device has room for
CHAIN_PROGRAMS = 128
CHAIN_MOST = 16384  # of one that no block can cut


class _Chain(NamedTuple):
    """A group: its indices, those held whole and the one that is cut, the kernel's constants for them, the dimensions of
    what it loads and stores (with whether it is of the outputs' type), and the kinds of its kernel's numbers: "if"."""

    name: str
    kernel: Any
    space: tuple[str, ...]
    whole: tuple[str, ...]
    column: str
    tile: tuple[tuple[str, str], ...]
    leaves: tuple[str, ...]
    outputs: tuple[tuple[str, bool], ...]
    numbers: str

    @property
    def cut(self) -> str:
        """The constant of the index that is cut."""
        return next(name for name, i in self.tile if i == self.column)


def _power(length: int) -> int:
    """The power of two that holds a length."""
    found = 1
    while found < length:
        found *= 2
    return found


def _chain_rows(plan: _Chain, sizes: dict[str, int]) -> int:
    """How many programs share one block of the column."""
    return sizes["batch"] * math.prod(sizes[i] for i in plan.space if i not in (*plan.whole, plan.column))


def _chain_blocks(plan: _Chain, sizes: dict[str, int]) -> dict[str, int]:
    """The tile, by the names of the kernel's constants: as large as a program does well, and cut further as long as there
    are few programs."""
    whole, rows = math.prod(_power(sizes[i]) for i in plan.whole), _chain_rows(plan, sizes)
    cut = min(_power(sizes[plan.column]), max(1, CHAIN_TILE // whole))
    while cut * whole > CHAIN_LEAST and cut > 1 and rows * _cdiv(sizes[plan.column], cut) < CHAIN_PROGRAMS:
        cut //= 2
    return {name: cut if i == plan.column else _power(sizes[i]) for name, i in plan.tile}


def _chain_warps(blocks: dict[str, int]) -> int:
    """The warps of a program: 32 entries a thread at most."""
    tile = math.prod(blocks.values())
    return 4 if tile <= 4096 else 8 if tile <= 8192 else 16


def _chain_outputs(plan: _Chain, like: Tensor, sizes: dict[str, int], dtype: torch.dtype) -> list[Tensor]:
    """Memory for what the group computes: [B, *indices]."""
    return [
        like.new_empty([sizes[d] for d in ("batch", *dims.split())], dtype=dtype if narrow else torch.float32)
        for dims, narrow in plan.outputs
    ]


def fused_chain(plan: _Chain) -> Callable[..., list[Tensor]]:
    """A function of (*tensors, sizes, numbers, dtype): one launch for all equations of a group."""
    count = len(plan.leaves)
    given = ", ".join([*(f"Tensor x{k}" for k in range(count)), "SymInt[] sizes", "float[] numbers", "ScalarType dtype"])

    @torch.library.custom_op(f"{OPS}::{plan.name}", mutates_args=(), schema=f"({given}) -> Tensor[]")
    def run(*inputs: Any) -> list[Tensor]:
        tensors, (lengths, numbers, dtype) = inputs[:count], inputs[count:]
        sizes = dict(zip(("batch", *plan.space), lengths, strict=False))
        found = _chain_outputs(plan, tensors[0], sizes, dtype)
        blocks = _chain_blocks(plan, sizes)
        programs = _chain_rows(plan, sizes) * _cdiv(sizes[plan.column], blocks[plan.cut])
        if programs:
            steps = [
                0 if x.shape[k] == 1 else x.stride(k)
                for x, dims in zip(tensors, plan.leaves, strict=True) for k, _ in enumerate(dims.split())
            ]  # fmt: skip
            counts, floats = iter(lengths[1 + len(plan.space) :]), iter(numbers)
            more = [next(counts) if kind == "i" else next(floats) for kind in plan.numbers]
            with _on_device(found[0]):
                lengths = [sizes[i] for i in plan.space]
                plan.kernel[(programs,)](*tensors, *found, *steps, *lengths, *more, **blocks, num_warps=_chain_warps(blocks))
        return found

    @run.register_fake
    def _(*inputs: Any) -> list[Tensor]:
        lengths, _, dtype = inputs[count:]
        return _chain_outputs(plan, inputs[0], dict(zip(("batch", *plan.space), lengths, strict=False)), dtype)

    return run


_Place = tuple[str | int, int]


def in_kernels(tensors: tuple[Tensor, ...], state: Any, held: tuple[tuple[_Place, ...], ...], module: Any) -> bool:
    """May a step run in kernels? Not for float64, on the CPU, without a state, or where a gradient is asked for; nor
    where what a program must hold whole is too much: `held` says for each group of which tensors' dimensions that is.
    """
    if state is None or not all(isinstance(x, Tensor) for x in tensors) or not _has_kernels(tensors[0]):
        return False
    given = [*tensors, *module.parameters(), *module.buffers(), *_held_tensors(state)]
    if any(x.dtype in (torch.float64, torch.complex64, torch.complex128) for x in given):
        return False
    if torch.is_grad_enabled() and any(x.requires_grad for x in given):
        return False
    for group in held:
        tile = 1
        for name, dim in group:
            tile *= _power(_length(tensors, state, module, name, dim))
        if tile > CHAIN_MOST:
            return False
    return True


def _held_tensors(state: Any) -> list[Tensor]:
    """The tensors of a record."""
    if isinstance(state, dict):
        return [x for value in state.values() for x in _held_tensors(value)]
    return [state] if isinstance(state, Tensor) else []


def _length(tensors: tuple[Tensor, ...], state: Any, module: Any, name: str | int, dim: int) -> int:
    """The length of a dimension: of an input by its number, a parameter `.path`, an entry `a/b` of the state; more than
    any tile where the record has no such entry, so that PyTorch's step says what is wrong."""
    if name == "":
        return 1
    if isinstance(name, int):
        found: Any = tensors[name]
    elif name.startswith("."):
        found = attrgetter(name[1:])(module)
    else:
        found = state
        for key in name.split("/"):
            found = found.get(key) if isinstance(found, dict) else None
    return found.shape[dim] if isinstance(found, Tensor) and dim < found.dim() else CHAIN_MOST + 1

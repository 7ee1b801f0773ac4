"""Groups of equations over whole sequences by kernels that were written for them, as operators that compilers see through.

One launch forward, and one backward that stores gradients, or sums of them for shares of the rows; those are added up
by PyTorch, in an order that depends on nothing but the sizes.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .fused_chain import _power
from .launching import OPS, _cdiv, _has_kernels, _on_device
from .window_adjoint import WINDOW_MOST, _Window, _window_adjoint

SEQUENCE_TILE, SEQUENCE_BACK = 2048, 1024  # entries of a tile forwards and backwards, where more of them are on their way
SEQUENCE_PROGRAMS = 128  # rows are cut further as long as there are fewer
SEQUENCE_MOST = 8192  # entries of a tile that no block can cut
SEQUENCE_COLUMN = 256  # of the index that is cut
SEQUENCE_SHARES = 1024  # programs that share what gradients are summed over


class _Sequence(NamedTuple):
    """A group: its kernels, its indices, those of a tile by the constants for their lengths, the one that is cut ("" if
    none is), the dimensions of what it loads and stores (with whether that is of the outputs' type), those that rows
    stand for backwards, and of every gradient which leaf's it is, or behind them window's, and how it is stored."""

    name: str
    forward: Any
    adjoint: Any
    space: tuple[str, ...]
    tile: tuple[tuple[str, str], ...]
    column: str
    leaves: tuple[str, ...]
    outputs: tuple[tuple[str, bool], ...]
    rows: tuple[str, ...]
    gradients: tuple[tuple[int, str], ...]
    numbers: str
    windows: tuple[_Window, ...] = ()

    def given(self) -> list[str]:
        """The dimensions of all tensors that are given: the leaves, then of each window the source and the taps."""
        return [*self.leaves, *(dims for w in self.windows for dims in (w.source, w.taps))]

    def asked(self, needed: Sequence[bool]) -> list[bool]:
        """Of each gradient, whether it is wanted: that of a window for either of its tensors."""
        return [any(needed[place] for place in _places(self, k)) for k, _ in self.gradients]


class _Launch(NamedTuple):
    """What one launch works on: `sizes` of every dimension, the integers and floats of the kernels, and for windows [T] the
    packed sequence that each position is of, or None."""

    plan: _Sequence
    sizes: dict[str, int]
    counts: list[int]
    numbers: list[float]
    number: Tensor | None = None

    def rows(self, names: Sequence[str]) -> int:
        return math.prod(self.sizes[d] for d in names)

    def kept(self) -> list[str]:
        """The dimensions that are none of the tile's."""
        inner = [i for _, i in self.plan.tile]
        return [d for d in ("batch", *self.plan.space) if d not in inner]

    def blocks(self, rows: int, most: int) -> dict[str, int]:
        """The tile, by the names of the kernel's constants: as many rows as make it as large as a program does well, and
        fewer where there are few programs."""
        found = {}
        for name, i in self.plan.tile:
            length = _power(self.sizes[i])
            found[name] = min(length, SEQUENCE_COLUMN) if i == self.plan.column else length
        count = min(_power(rows), max(1, most // math.prod(found.values())))
        while count > 1 and _cdiv(rows, count) * self.columns(found) < SEQUENCE_PROGRAMS:
            count //= 2
        return {**found, "BR": count}

    def columns(self, blocks: dict[str, int]) -> int:
        """How many programs share a row."""
        cut = next((name for name, i in self.plan.tile if i == self.plan.column), None)
        return 1 if cut is None else _cdiv(self.sizes[self.plan.column], blocks[cut])

    def arguments(self, tensors: Sequence[Tensor], dims: Sequence[str]) -> list[int]:
        """Strides of what is loaded, 0 where it is the same everywhere, and the lengths of the indices."""
        strides = [0 if x.shape[k] == 1 else x.stride(k)
                   for x, names in zip(tensors, dims, strict=True) for k, _ in enumerate(names.split())]  # fmt: skip
        return [*strides, *(self.sizes[i] for i in self.plan.space)]

    def more(self) -> list[float]:
        """Of each window what comes before, and how many taps; then the kernels' numbers, in their order."""
        counts, floats = iter(self.counts), iter(self.numbers)
        found = [next(counts) if kind == "i" else next(floats) for kind in self.plan.numbers]
        return [*self.counts[self.plan.numbers.count("i") :], *found]

    def packed(self) -> tuple[list[Tensor | None], dict[str, bool]]:
        """What kernels with windows are told of packed sequences: a tensor, and whether there are some."""
        return ([self.number], {"PACKED": self.number is not None}) if self.plan.windows else ([], {})

    def before(self, k: int) -> int:
        """How many positions of a window's source come before the first one."""
        return self.counts[self.plan.numbers.count("i") + 2 * k]


def _launch_of(
    plan: _Sequence, lengths: Sequence[int], numbers: Sequence[float], number: Sequence[Tensor | None]
) -> _Launch:
    """`lengths`: of the batch and the indices, then the integers of the kernels, then two for each window; `number` is there
    where there are windows."""
    sizes = dict(zip(("batch", *plan.space), lengths, strict=False))
    return _Launch(plan, sizes, list(lengths[1 + len(plan.space) :]), list(numbers), *number)


def _sequence_outputs(launch: _Launch, like: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """Memory for what the group computes: [B, *indices]."""
    return [
        like.new_empty([launch.sizes[d] for d in dims.split()], dtype=dtype if narrow else torch.float32)
        for dims, narrow in launch.plan.outputs
    ]


def _sequence_warps(blocks: dict[str, int], most: int) -> int:
    """The warps of a program: as many entries a thread as 4 warps have in a tile of that size."""
    return min(16, max(4, 4 * math.prod(blocks.values()) // most))


def _sequence_run(launch: _Launch, tensors: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    plan, found = launch.plan, _sequence_outputs(launch, tensors[0], dtype)
    rows = launch.rows(launch.kept())
    blocks = launch.blocks(rows, SEQUENCE_TILE)
    programs = _cdiv(rows, blocks["BR"]) * launch.columns(blocks)
    if programs:
        given = [*launch.arguments(tensors, plan.given()), rows, *launch.more()]
        known, flags = launch.packed()
        with _on_device(found[0]):
            warps = _sequence_warps(blocks, SEQUENCE_TILE)
            plan.forward[(programs,)](*tensors, *known, *found, *given, **blocks, **flags, num_warps=warps)
    return found


def _sequence_stored(launch: _Launch, leaves: Sequence[Tensor], wanted: Sequence[bool], parts: int) -> list[Tensor]:
    """Memory for gradients as the kernel stores them; none where they are not wanted."""
    sizes, found = {**launch.sizes, "part": parts}, []
    for (k, dims), w in zip(launch.plan.gradients, wanted, strict=True):
        shape, own = [sizes[d] for d in dims.split()], k < len(launch.plan.leaves)
        whole = own and dims == launch.plan.leaves[k] and shape == list(leaves[k].shape)
        found.append(leaves[0].new_empty(shape if w else (0,), dtype=leaves[k].dtype if whole else torch.float32))
    return found


def _sequence_folded(launch: _Launch, stored: Sequence[Tensor], leaves: Sequence[Tensor], needed: Sequence[bool]) -> list[Tensor]:
    """Gradients in the shapes of their leaves, summed over what those do not vary along; of a window, of its tensors."""
    found: list[Tensor] = []
    count, wanted = len(launch.plan.leaves), launch.plan.asked(needed)
    for (k, dims), x, w in zip(launch.plan.gradients, stored, wanted, strict=True):
        if k >= count:
            one, two = _places(launch.plan, k)
            asked = [needed[one], needed[two]]
            window, before = launch.plan.windows[k - count], launch.before(k - count)
            found += _window_adjoint(window, x, dims, leaves[one], leaves[two], before, launch.number, asked) if w else [
                leaves[one].new_empty(0), leaves[two].new_empty(0)]  # fmt: skip
            continue
        names, own = dims.split(), launch.plan.leaves[k].split()
        more = [place for place, d in enumerate(names) if d not in own]
        if w and more:
            x = x.sum(more)
        left = [d for d in names if d in own]
        if w and left != own:
            x = x.permute([left.index(d) for d in own]).contiguous()
        if w and x.shape != leaves[k].shape:
            x = x.sum_to_size(leaves[k].shape)
        found.append(x.to(leaves[k].dtype))
    return found


def _sequence_shares(launch: _Launch, blocks: dict[str, int], rows: int) -> tuple[int, int]:
    """(blocks of rows that a program takes one after another, programs that share the rows): one each where nothing is
    summed, else no more programs than keep a device busy."""
    count, others = _cdiv(rows, blocks["BR"]), launch.columns(blocks)
    others *= launch.rows([d for d in launch.kept() if d not in launch.plan.rows])
    summed = any("part" in dims.split() for _, dims in launch.plan.gradients)
    steps = max(1, count * others // SEQUENCE_SHARES) if summed else 1
    return steps, _cdiv(count, steps)


def _sequence_adjoint(launch: _Launch, grads: Sequence[Tensor], leaves: Sequence[Tensor], needed: Sequence[bool]) -> list[Tensor]:
    plan, rows, count = launch.plan, launch.rows(launch.plan.rows), len(launch.plan.leaves)
    wanted = plan.asked(needed)
    blocks = launch.blocks(rows, SEQUENCE_BACK)
    steps, parts = _sequence_shares(launch, blocks, rows)
    stored = _sequence_stored(launch, leaves, wanted, parts)
    others = launch.rows([d for d in launch.kept() if d not in plan.rows])
    programs = parts * others * launch.columns(blocks)
    if programs and any(wanted):
        tensors = [*leaves[:count], *grads, *leaves[count:]]
        every = [*plan.leaves, *(dims for dims, _ in plan.outputs), *plan.given()[count:]]
        given = [*launch.arguments(tensors, every), rows, steps, *launch.more()]
        known, flags = launch.packed()
        flags |= dict(zip(plan.adjoint.arg_names[-len(wanted) :], wanted, strict=True))
        with _on_device(grads[0]):
            warps = _sequence_warps(blocks, SEQUENCE_BACK)
            plan.adjoint[(programs,)](*tensors, *known, *stored, *given, **blocks, **flags, num_warps=warps)
    return _sequence_folded(launch, stored, leaves, needed)


def fused_sequence(plan: _Sequence) -> Callable[..., Any]:
    """A function of (*tensors, sizes, numbers, dtype) that gives what a group stores, as a tuple if that is several. With
    windows it takes last what packed sequence each position is of."""
    count, made, more = len(plan.given()), len(plan.outputs), 1 if plan.windows else 0
    back = [place for k, _ in plan.gradients for place in _places(plan, k)]  # of each result of the adjoint, whose it is
    known = "SymInt[] sizes, float[] numbers, "
    last = ", Tensor? number" if more else ""
    given = ", ".join(f"Tensor x{k}" for k in range(count))
    results = "Tensor" if made == 1 else f"({', '.join(['Tensor'] * made)})"

    def packed(found: list[Tensor]) -> Any:
        return found[0] if made == 1 else tuple(found)

    schema = f"({given}, {known}ScalarType dtype{last}) -> {results}"

    @torch.library.custom_op(f"{OPS}::{plan.name}", mutates_args=(), schema=schema)
    def run(*inputs: Any) -> Any:
        sizes, numbers, dtype, *number = inputs[count:]
        return packed(_sequence_run(_launch_of(plan, sizes, numbers, number), inputs[:count], dtype))

    @run.register_fake
    def _(*inputs: Any) -> Any:
        sizes, numbers, dtype, *number = inputs[count:]
        return packed(_sequence_outputs(_launch_of(plan, sizes, numbers, number), inputs[0], dtype))

    sent = ", ".join(f"Tensor g{k}" for k in range(made))

    @torch.library.custom_op(
        f"{OPS}::{plan.name}_adjoint", mutates_args=(), schema=f"({sent}, {given}, {known}bool[] needed{last}) -> Tensor[]"
    )
    def adjoint(*inputs: Any) -> list[Tensor]:
        sizes, numbers, needed, *number = inputs[made + count :]
        launch = _launch_of(plan, sizes, numbers, number)
        return _sequence_adjoint(launch, inputs[:made], inputs[made : made + count], needed)

    @adjoint.register_fake
    def _(*inputs: Any) -> list[Tensor]:
        leaves, needed = inputs[made : made + count], inputs[made + count + 2]
        return [leaves[k].new_empty(leaves[k].shape if needed[k] else (0,)) for k in back]

    def setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.rest = inputs[count : count + 2]
        ctx.save_for_backward(*inputs[:count], *inputs[count + 3 :])

    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        needed = list(ctx.needs_input_grad[:count])
        every: list[Tensor | None] = [None] * count
        saved = ctx.saved_tensors
        for k, g in zip(back, adjoint(*grads, *saved[:count], *ctx.rest, needed, *saved[count:]), strict=True):
            every[k] = g if needed[k] else None
        return *every, *[None] * (3 + more)

    run.register_autograd(backward, setup_context=setup)
    return run


def _places(plan: _Sequence, k: int) -> list[int]:
    """Of a leaf, or behind them a window, where its tensors are among those given."""
    count = len(plan.leaves)
    return [k] if k < count else [2 * k - count, 2 * k - count + 1]


def runs_fused(tensors: Sequence[Tensor], whole: Sequence[int], taps: Sequence[int] = ()) -> bool:
    """May a group run in kernels? Not in float64 or on the CPU, nor where a program would have to hold too much, or a window
    is long."""
    first, wide = tensors[0], (torch.float64, torch.complex64, torch.complex128)
    if not _has_kernels(first) or any(x.dtype in wide or x.device != first.device for x in tensors):
        return False
    tile = 1
    for length in whole:
        tile *= _power(length)
    return tile <= SEQUENCE_MOST and all(n <= WINDOW_MOST for n in taps)

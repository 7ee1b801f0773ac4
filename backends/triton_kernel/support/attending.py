"""What attention and feedback through a decaying state launch alike: the sums of decays, chunks' states, and the walk.

A walk reads and writes chunk after chunk with the state in registers, so that forward no state goes through memory. In
bytes for each row and head, 16-bit operands of widths K and V, beside the least, 4 K + 4 V with one decay for each head
and 6 K + 4 V with one for each key; for T rows the states before and after all add up to 8 K V / T:
- each head: A for the pairs of a chunk up to the diagonal, in blocks of 16 5/8 of the square: 4 K + 80, and the walk
  4 K + 4 V + 80: at K = V = 128 1.66 times the least, in two thirds of the time of a walk that finds A itself;
- each of at most 64 keys: A with 6 K + 80, and the walk 6 K + 4 V + 80: at K = V = 64 1.85 times the least;
- each of more keys: with A reads and writes, decayed, for a walk that would spill with exponentials: 10 K + 80 and
  4 K + 4 V + 80 and twice the totals of the chunks K / 16: at K = V = 128 1.94, at 256 1.88.
Where heads and columns make too few programs, time is cut: a first launch reads the writes and v once more, 2 K + 2 V,
for the groups' first states, K V float32 numbers that are written and read. With groups of 512 rows that is 2.45 times
the least at K = V = 128, and 2.55 with one decay for each key, where too few programs to fill a device wait for memory.
Blocks of columns of one head are neighbours in the grid: what they share is to come from L2.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from .assembler import _is_hopper
from .attend_kernels import _head_weights_kernel, _rows_weights_kernel, _states_kernel
from .decay_kernels import _head_sums_kernel
from .launching import _block, _cdiv, _dot_precision, _tiles_of
from .tuning import _tuned
from .walk_kernels import _walk_kernel

CHUNK = 64
LEVELS = CHUNK.bit_length() - 1
PAIRS = CHUNK * (CHUNK + 16) // 2  # of its rows that are kept
# Largest tiles (keys, values), warps and stages (0: the compiler's own) of each kernel for 16-bit operands; float32 operands
# take half the width along both. For Hopper GPUs, of tiles that spill nothing there those that an H200 was quickest with.
# After a comma: of operands that would spill with the kernel's own.
ATTEND_TILES = {
    "weights": (32, 0, 4, 0),
    "head weights": (64, 0, 4, 0),
    "states": (64, 64, 4, 0),
    "reads": (64, 64, 4, 0),
    "values adjoint": (0, 64, 4, 0),
    "weights adjoint": (0, 64, 4, 0),
    "rows adjoint": (32, 64, 4, 0),
    "head adjoint": (64, 64, 8, 0),
}
HOPPER_TILES = ATTEND_TILES | {
    "weights": (64, 0, 4, 1),
    "reads": (64, 128, 4, 2),
    "values adjoint": (0, 128, 4, 0),
    "rows adjoint, read again": (32, 128, 4, 1),
    "head adjoint": (64, 64, 4, 2),
    "head adjoint, narrow": (64, 64, 4, 1),
    "head adjoint, read twice": (64, 64, 4, 1),
}
WALK_SLAB = 64  # keys in a tile of a walk's state
WALK_PROGRAMS, WALK_CHUNKS = 128, 8  # half as many programs cut time into groups, of at least so many chunks


@cache
def _attend_choices(device: torch.device, dtype: torch.dtype, apart: int = 0, before: bool = False) -> Tensor:
    """Sums of decays as matrices of 1, 0 and -1 [4 levels + 6, C, C], for row i over l.

    levels + 2: a level has half blocks of 2^level rows. A second half meets the first before its first row, and row i reads
    past the decays l <= i of its half; a first half meets the second behind its last row, and row i writes before the
    decays l > i of its half. Then reads of what enters the chunk, and writes to what leaves it.
    levels + 2: their transposes, the reads and writes that straddle decay i.
    levels + 1: between the middle of row i's block of 2^level rows and row i, with -1 before the middle.
    levels + 1: the rows of its block that are not before row i; none for the first, whose decay acts on no pair there.
    `before`: reads come before the decay of their step of `apart` rows, and take the decays of the steps before it.
    """
    row = torch.arange(CHUNK, device=device)
    upto = row[:, None] >= row
    met = row[:, None] // apart > row // apart if before else upto
    halves, middles, later = [], [], []
    for level in range(LEVELS + 1):
        block = row >> level
        same = block[:, None] == block
        halves.append(same & torch.where(block[:, None] % 2 == 1, met, ~upto))
        middle = (block << level) + max(1, (1 << level) // 2)  # no row is ahead of it at level 0
        ahead, behind = same & (row >= middle) & upto, same & (row < middle) & ~upto
        middles.append(ahead.float() - behind.float())
        later.append(same & upto.mT & (row > block << level)[:, None])
    both = torch.stack([*halves[:LEVELS], met, ~upto]).float()
    found = torch.cat([both, both.mT, torch.stack(middles), torch.stack(later).float()])
    return found.to(torch.bfloat16 if dtype == torch.bfloat16 else torch.float32)


def _attend_tile(name: str, q: Tensor, v: Tensor, special: str = "") -> dict[str, Any]:
    """The arguments of a launch that set its tile; `special` operands may have one of their own."""
    tiles = HOPPER_TILES if _is_hopper(q) else ATTEND_TILES
    keys, values, warps, stages = tiles.get(f"{name}, {special}", tiles[name])
    if q.dtype == torch.float32:
        keys, values = keys // 2, values // 2
    found = {"C": CHUNK, "PRECISION": _dot_precision(), "num_warps": warps}
    if stages:
        found["num_stages"] = stages
    if keys:
        found["BK"] = _block(q.shape[-1], keys)
    if values:
        found["BV"] = _block(v.shape[-1], values)
    return _tuned(name, found, q, q.shape[1], q.shape[-1], v.shape[-1])


def _head_sums(g: Tensor, sums: Tensor) -> None:
    """Fill the sums of one decay for each head [B, T, H] in every chunk, [B, N, H, 3, C] in a row."""
    batch, time, heads = g.shape
    block = min(16, _block(heads, 16))
    _head_sums_kernel[batch * _cdiv(time, CHUNK), _cdiv(heads, block)](g, sums, time, heads, C=CHUNK, BH=block, num_warps=4)


def _head_weights(
    q: Tensor, k: Tensor, sums: Tensor, signs: Tensor | None, weights: Tensor, scale: float,
    *, apart: int = 0, before: bool = False, strict: bool = False, whole: bool = False,
) -> None:  # fmt: skip
    """Fill the weights of the chunks' pairs, with one decay for each head."""
    batch, time, heads, keys = q.shape
    _head_weights_kernel[batch * heads, _cdiv(time, CHUNK)](
        q, k, sums, sums if signs is None else signs, weights, scale, time, heads, keys, APART=apart, BEFORE=before,
        STRICT=strict, WHOLE=whole, SIGNED=signs is not None, **_attend_tile("head weights", q, q),
    )  # fmt: skip


def _rows_weights(
    q: Tensor, k: Tensor, g: Tensor, weights: Tensor, reads: Tensor, writes: Tensor | None, totals: Tensor, scale: float,
    *, apart: int = 0, before: bool = False, strict: bool = False, whole: bool = False,
) -> None:  # fmt: skip
    """The same with one for each key; and unless `totals` is empty the reads, and the writes and totals unless they are there
    already (None)."""
    batch, time, heads, keys = q.shape
    alone = totals.numel() == 0
    _rows_weights_kernel[batch * heads, _cdiv(time, CHUNK)](
        q, k, g, _attend_choices(q.device, q.dtype, apart, before), weights, reads, reads if writes is None else writes, totals,
        scale, time, heads, keys, APART=apart, BEFORE=before, STRICT=strict, WHOLE=whole, ALONE=alone,
        WRITES=writes is not None, LEVELS=LEVELS,
        **_attend_tile("weights", q, q),
    )  # fmt: skip


def _sequences_of(batch: int, table: Tensor | None) -> int:
    """How many states start and are left: one for each of the batch, or of the packed sequences."""
    return batch if table is None else table.shape[0] - 1


def _attend_states(
    left: Tensor, right: Tensor, decay: Tensor, signs: Tensor | None, start: Tensor | None, scale: float = 1.0,
    *, by_head: bool = False, totals: bool = False, reverse: bool = False, every: int = 1, dtype: torch.dtype | None = None,
    table: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The state that enters every chunk [B, N, H, K, V], and the last [B, H, K, V]; reversed, what leaves and the first.

    Of `every` chunks in a row, in time's or in the reversed order, only the first. `decay` is that of each key, `by_head`
    the sums of `_head_sums`; with `totals` what whole chunks leave, and left is decayed already. `table`: the chunks before
    each packed sequence, and all (`packed_rows`).
    """
    batch, time, heads, keys = left.shape
    values, number = right.shape[-1], _sequences_of(batch, table)
    count = _cdiv(_cdiv(time, CHUNK), every)
    states = left.new_empty(batch, count, heads, keys, values, dtype=dtype)
    final = left.new_empty(number, heads, keys, values, dtype=torch.float32)
    tile = _attend_tile("states", left, right)
    grid = (number * heads, _cdiv(values, tile["BV"]), _cdiv(keys, tile["BK"]))
    _states_kernel[grid](
        left, right, decay, final if signs is None else signs,
        left if by_head or totals else _attend_choices(left.device, left.dtype), final if start is None else start,
        states, final, table, scale, time, heads, keys, values, every, *(final if start is None else start).stride(),
        BY_HEAD=by_head, TOTALS=totals, SIGNED=signs is not None, REVERSE=reverse, HAS_START=start is not None,
        PACKED=table is not None, LEVELS=LEVELS, **tile,
    )  # fmt: skip
    return states, final


def _walk_tile(
    by_head: bool, planes: int, keys: int, values: int, like: torch.dtype, tiles: str, signed: bool = False
) -> dict[str, int]:
    """Slabs of keys and some columns; on sm_90, in 16 bits, of what spills nothing there what an H200 was quickest with."""
    wide = like == torch.float32  # the products of which take three times the registers
    block, most, columns = (32, 2, 16) if wide else (WALK_SLAB, 4, 64)
    block = _block(keys, block)
    slabs = _cdiv(_cdiv(keys, block), _cdiv(keys, most * block))
    few = planes * _cdiv(values, columns) < WALK_PROGRAMS
    if few or tiles != "sm_90":
        columns //= 2
    light = slabs == 2 or by_head and slabs == 1
    if wide or tiles == "hip":
        warps, stages = 4, 1
    elif tiles != "sm_90":
        warps, stages = 8, 2
    else:
        warps, stages = 4 if light else 8, 1 if signed and slabs == 2 else 3 if few and light else 2
    return {"BK": block, "SLABS": slabs, "BV": _block(values, columns), "num_warps": warps, "num_stages": stages}


def _attend_walk(
    q: Tensor, k: Tensor, v: Tensor, decay: Tensor, signs: Tensor | None, weights: Tensor, start: Tensor | None,
    scale: float, dtype: torch.dtype, *, by_head: bool = False, totals: bool = False, strict: bool = False, reverse: bool = False,
    table: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """What is read [B, T, H, V] in `dtype`, and the final state. Reversed: the gradient of v from that of o, which stands
    in v's place, that of the first state, and of the state that leaves every chunk.

    `decay` is that of each key, `by_head` the sums of `_head_sums`; with `totals` what whole chunks leave, and q and k are
    reads and writes. `table`: of packed sequences, each of which is
    walked by programs of its own; time is not cut then.
    """
    batch, time, heads, keys = q.shape
    number = _sequences_of(batch, table)
    planes, values, count = number * heads, v.shape[-1], _cdiv(time, CHUNK)
    mode = "decayed" if totals else "by head" if by_head else "by key"
    mode += " reversed" * reverse
    tile = _walk_tile(by_head, planes, keys, values, q.dtype, _tiles_of(q.device), signs is not None)
    held = {name: tile.pop(name) for name in ("BK", "SLABS")}  # all keys, whatever is faster
    tile = {**_tuned(f"walk {mode}", tile, q, time, planes, keys, values), **held}
    parts = _cdiv(keys, tile["SLABS"] * tile["BK"])
    programs = planes * parts * _cdiv(values, tile["BV"])
    whole = 2 * programs >= WALK_PROGRAMS or table is not None
    groups = 1 if whole else min(_cdiv(2 * WALK_PROGRAMS, programs), _cdiv(count, WALK_CHUNKS))
    group = _cdiv(count, groups)
    out = v.new_empty(parts, *v.shape, dtype=dtype if parts == 1 else torch.float32)
    final = v.new_empty(number, heads, keys, values, dtype=torch.float32)
    states = v.new_empty(batch, count, heads, keys, values) if reverse else final
    entering = final
    if group < count:
        left, factor = (q, scale) if reverse else (k, 1.0)
        entering, _ = _attend_states(
            left, v, decay, signs, start, factor, by_head=by_head, totals=totals, reverse=reverse, every=group,
            dtype=torch.float32,
        )
    _walk_kernel[programs, _cdiv(count, group)](
        q, k, v, decay, final if signs is None else signs,
        final if by_head or totals else _attend_choices(q.device, q.dtype), weights,
        final if start is None else start, entering, out, states, final, table, scale, time, heads, keys, values, group,
        *(final if start is None else start).stride(),
        BY_HEAD=by_head, TOTALS=totals, SIGNED=signs is not None, STRICT=strict, REVERSE=reverse,
        HAS_START=start is not None, CUT=group < count, PARTED=parts > 1, PACKED=table is not None, C=CHUNK, LEVELS=LEVELS,
        PRECISION=_dot_precision(), **tile,
    )  # fmt: skip
    return out.squeeze(0) if parts == 1 else out.sum(0).to(dtype), final, states

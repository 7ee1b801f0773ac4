"""What feedback through a decaying state launches with its reads and without them: the chunks' inverses, and the scan.

A program of the scan holds all keys of a few values. Up to 128 they are one tile. More are slabs of 64, or 32 of float32,
in registers one beside the other, up to 512 keys of 16 bits and 256 of float32; of still more the state goes from chunk to
chunk by PyTorch's products, between the same kernels for all that the chunks find apart from each other.

256 keys in one tile spill, and have operands of products in registers, which not every assembler keeps until they are read
(`assembler.py`). Slabs have nothing of that: in 16 bits operands come from shared memory and nothing is spilled on sm_90, and
in float32 two warps are too few for wgmma.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from .assembler import _is_hopper
from .attending import CHUNK, _head_sums, _head_weights, _rows_weights, _sequences_of
from .launching import _block, _cdiv, _dot_precision
from .solve_kernels import _inverse_kernel, _solve_kernel, _solve_slabs_kernel
from .tuning import _tuned

SOLVE_KEYS = 128  # in one tile
SLABS_KEYS = {torch.float32: 256, torch.float16: 512, torch.bfloat16: 512}  # in registers
INVERSE_WARPS = 1
SOLVE_PROGRAMS = 128
# w, u, inverse, x, decay, start; of a scan that is read: by what, the gradients of what was found, the factor of both; table.
Given = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None, tuple[Tensor, Tensor, float] | None, Tensor | None]


def _solve_tile(
    keys: int, values: int, like: torch.dtype, reverse: bool, hopper: bool, packed: bool, planes: int = 1024
) -> dict[str, int]:
    """All keys and some values; warps and stages so that 16-bit operands spill little and their tiles fit."""
    if keys > SOLVE_KEYS:
        return _slabs_tile(keys, values, like, reverse, hopper)
    tile = {"BK": _block(keys, SOLVE_KEYS), "BV": 64 if hopper else 32, "num_warps": 8 if reverse or packed and hopper else 4}
    tile["num_stages"] = 1 if reverse and not hopper else 2
    if like == torch.float32:
        tile |= {"BV": tile["BV"] // 2, "num_warps": 8, "num_stages": 1}
    elif hopper and not packed and planes * _cdiv(values, 64) < SOLVE_PROGRAMS:  # too few to fill a device
        tile |= {"BV": 32, "num_warps": 4, "num_stages": 3}
    return {**tile, "BV": _block(values, tile["BV"])}


def _slabs_tile(keys: int, values: int, like: torch.dtype, reverse: bool, hopper: bool) -> dict[str, int]:
    """Rows in two stages only where the shared memory of a Hopper GPU has room for those of all slabs."""
    if like == torch.float32:
        return {"BK": 32, "SLABS": _cdiv(keys, 32), "BV": 16, "num_warps": 2, "num_stages": 1}
    slabs = _cdiv(keys, 64)
    staged = hopper and slabs <= (3 if reverse else 4)
    return {"BK": 64, "SLABS": slabs, "BV": _block(values, 32), "num_warps": 4 if staged else 8, "num_stages": 2 if staged else 1}


def _solve_scan(
    w: Tensor, u: Tensor, inverse: Tensor, x: Tensor, decay: Tensor, start: Tensor | None, like: torch.dtype,
    *, by_head: bool, apart: int, before: bool, reverse: bool = False, read: tuple[Tensor, Tensor, float] | None = None,
    table: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The unknowns, the state that enters every chunk, and the last; reversed, those of the adjoint.

    `read`: there, what the state was read by, the gradients of what was found, and the factor of both. `table`: the chunks
    before each packed sequence, and all (`packed_rows`): the last states are then one for each.
    """
    time, keys, values = w.shape[1], w.shape[3], x.shape[-1]
    planes = _sequences_of(w.shape[0], table) * w.shape[2]
    tile = _solve_tile(keys, values, w.dtype, reverse, _is_hopper(w), table is not None, planes)
    held = {n: tile.pop(n) for n in list(tile) if n in ("BK", "SLABS")}  # all keys, whatever is faster
    name = "solve" + " slabs" * ("SLABS" in held) + " reversed" * reverse + " packed" * (table is not None)
    tile = {**_tuned(name, tile, w, time, keys, values), **held}
    given = (w, u, inverse, x, decay, start, read, table)
    how: dict[str, Any] = {"BY_HEAD": by_head, "APART": apart, "BEFORE": before, "REVERSE": reverse}
    if keys > SLABS_KEYS[w.dtype]:
        return _solve_stepped(given, like, **how)
    return _solve_launched(given, like, how, tile)


def _solve_launched(
    given: Given, like: torch.dtype, how: dict[str, Any], tile: dict[str, int]
) -> tuple[Tensor, Tensor, Tensor]:
    """`_solve_scan` by a kernel."""
    w, u, inverse, x, decay, start, read, table = given
    batch, time, heads, keys = w.shape
    number = _sequences_of(batch, table)
    values, count = x.shape[-1], _cdiv(time, CHUNK)
    y = x.new_empty(x.shape, dtype=like)
    states = w.new_empty(batch, count, heads, keys, values)
    final = w.new_empty(number, heads, keys, values, dtype=torch.float32)
    q, d_out, scale = (w, x, 1.0) if read is None else read
    kernel = _solve_slabs_kernel if "SLABS" in tile else _solve_kernel
    kernel[(number * heads, _cdiv(values, tile["BV"]))](
        w, u, inverse, x, decay, q, d_out, final if start is None else start, states, final, y, table, scale, time, heads, keys,
        values, READ=read is not None, HAS_START=start is not None, PACKED=table is not None, C=CHUNK,
        PRECISION=_dot_precision(), **how, **tile,
    )  # fmt: skip
    return y, states, final


def _solve_stepped(
    given: Given, like: torch.dtype, *, BY_HEAD: bool, APART: int, BEFORE: bool, REVERSE: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """`_solve_scan` by PyTorch's products, a chunk at a time, in float32."""
    w, u, inverse, x, decay, start, read, table = given
    batch, time, heads, keys = w.shape
    count = _cdiv(time, CHUNK)

    def chunks(z: Tensor) -> Tensor:
        """[B, T, H, D] -> [N, B, H, C, D]."""
        z = pad(z.float(), (0, 0, 0, 0, 0, count * CHUNK - time))
        return torch.unflatten(z, 1, (count, CHUNK)).permute(1, 0, 3, 2, 4)

    reads: Tensor | float = 1.0
    writes = seen = reads
    if BY_HEAD:
        upto, _, after = decay.view(batch, count, heads, 3, CHUNK, 1).transpose(0, 1).exp2().unbind(3)
        reads = pad(upto, (0, 0, APART if BEFORE else 0, 0), value=1.0)[..., :CHUNK, :]
        writes, seen, totals = after, upto, upto[..., -1:, :]
    else:
        totals = decay.view(batch, count, heads, keys).transpose(0, 1).unsqueeze(-1)
    asks, tells, solved, gains = chunks(w) * reads, chunks(u) * writes, chunks(inverse), chunks(x)
    if REVERSE:
        asks, tells, solved = tells, asks, solved.mT
    told = x.new_zeros(count, dtype=torch.float32)
    if read is not None:
        told = (chunks(read[0]) * seen * (read[2] if BY_HEAD else 1.0)).mT @ chunks(read[1])
    number = _sequences_of(batch, table)
    state = w.new_zeros(number, heads, keys, x.shape[-1], dtype=torch.float32) if start is None else start
    found, states = [], []
    for n in reversed(range(count)) if REVERSE else range(count):
        own, entered = _entered(state, n, table)
        states.append(entered)
        found.append(solved[n] @ (gains[n] + asks[n] @ entered))
        left = totals[n] * entered + tells[n].mT @ found[-1] + told[n]
        state = left if own is None else torch.where(own, left, state)
    if REVERSE:
        found.reverse()
        states.reverse()
    y = torch.stack(found, 1).transpose(2, 3).flatten(1, 2)[:, :time].contiguous()
    return y.to(like), torch.stack(states, 1).to(w.dtype), state


def _entered(state: Tensor, chunk: int, table: Tensor | None) -> tuple[Tensor | None, Tensor]:
    """Whose a chunk is of packed sequences [N, 1, 1, 1], and the state of that one, 0 where it is nobody's."""
    if table is None:
        return None, state
    own = ((table[:-1] <= chunk) & (chunk < table[1:])).view(-1, 1, 1, 1)
    return own, torch.where(own, state, 0).sum(0, keepdim=True)


def _solve_inverse(
    w: Tensor, u: Tensor, g: Tensor, inverse: Tensor, reads: Tensor, writes: Tensor, decays: Tensor,
    apart: int, before: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Fill `inverse` and `decays`, and with one decay for each key the reads and writes; what the scan takes as w and u."""
    batch, time, heads, _ = w.shape
    by_head, pairs = g.dim() == 3, w.new_empty(batch, time, heads, CHUNK, dtype=torch.float32)
    if by_head:
        _head_sums(g, decays)
        _head_weights(w, u, decays, None, pairs, 1.0, apart=apart, before=before, whole=True)
    else:
        _rows_weights(w, u, g, pairs, reads, writes, decays, 1.0, apart=apart, before=before, whole=True)
    # 16-bit numbers come in and go out: the products between need no more than tf32.
    precision = "tf32" if w.dtype != torch.float32 and _dot_precision() == "tf32x3" else _dot_precision()
    _inverse_kernel[batch * heads, _cdiv(time, CHUNK)](
        pairs, inverse, time, heads, C=CHUNK, PRECISION=precision, num_warps=INVERSE_WARPS
    )
    return (w, u) if by_head else (reads, writes)

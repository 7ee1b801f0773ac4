"""The kernel whose state is in slabs of keys beside PyTorch's products, under Triton's interpreter, and what is done wrong in it.

Run as a program it prints one JSON pair for each kind of launch and each mutant: do the kernel and PyTorch agree?
Entry points elsewhere: `KINDS`, `MUTANTS`, `interpreted`.
"""

from __future__ import annotations

import json
from types import ModuleType

import torch
from torch import Tensor

from backends.torch_module.load import load_text
from backends.triton_kernel.kernels import kernels_text
from backends.triton_kernel.support.attending import CHUNK
from tests.backends.triton_kernel.processes import interpret_in

KEYS, VALUES = 136, 5
TIME = 141
TILE = {"BK": 64, "SLABS": 3, "BV": 16, "num_warps": 4, "num_stages": 1}
# BY_HEAD, APART, BEFORE, REVERSE; is there no first state, and is the state not read?
KINDS: dict[str, tuple[bool, int, bool, bool, bool, bool]] = {
    "a decay for each head": (True, 1, False, False, False, True),
    "a decay for each head after the reads, of two ranks": (True, 2, True, False, True, True),
    "a decay for each key": (False, 1, False, False, False, True),
    "backwards, a decay for each head after the reads": (True, 1, True, True, True, True),
    "backwards with reads, a decay for each head": (True, 1, False, True, False, False),
    "backwards with reads, a decay for each key": (False, 1, False, True, False, False),
}
# What is done wrong: in which kind, and what stands in the kernel in the place of what.
MUTANTS: dict[str, tuple[str, str, str]] = {
    "a slab is not taken further": ("a decay for each key", "held = after", "held = after[:2] + held[2:]"),
    "every slab has the first keys": ("a decay for each head", "key = slab * BK + lane", "key = lane"),
    "only the last slab answers": ("a decay for each key", "held[slab].to(LIKE), answer, ", "held[slab].to(LIKE), "),
    "reads and writes change places": ("a decay for each head", "asked = _load_tile(asks", "asked = _load_tile(tells"),
    "all slabs start as the first": ("a decay for each key", "K * V, slab * BK + lane, value", "K * V, lane, value"),
    "what is read sends nothing back": ("backwards with reads, a decay for each key", "d_tile, state, ", "d_tile * 0, state, "),
    "an inverse forwards": ("backwards, a decay for each head after the reads", "solved = tl.trans(solved)", "solved = solved"),
    "decays forwards": ("backwards with reads, a decay for each head", "reads, writes = writes, reads", "reads = reads"),
    "all slabs end as the first": ("a decay for each head", "K * V, held[slab],", "K * V, held[0],"),
}  # fmt: skip


def agree(text: ModuleType, kind: str, narrow: torch.dtype) -> bool:
    """Do the kernel and PyTorch's products find the same in three chunks of one head, the last of 13 rows?"""
    by_head, apart, before, reverse, alone, unread = KINDS[kind]
    how = {"BY_HEAD": by_head, "APART": apart, "BEFORE": before, "REVERSE": reverse}
    draw = torch.Generator().manual_seed(0)

    def drawn(*shape: int, like: torch.dtype = narrow) -> Tensor:
        return torch.rand(1, *shape, generator=draw).to(like)

    w, u, q = ((2 * drawn(TIME, 1, KEYS) - 1) / KEYS**0.5 for _ in range(3))
    row, column = torch.arange(TIME)[:, None] % CHUNK, torch.arange(CHUNK)
    inverse = torch.where(column < row, 0.1 * drawn(TIME, 1, CHUNK)[0, :, 0], (column == row).to(narrow))
    x, d_out = drawn(TIME, 1, VALUES), drawn(TIME, 1, VALUES)
    wide = torch.float32
    count = -(-TIME // CHUNK)
    decay = drawn(count, 1, KEYS, like=wide)
    if by_head:
        decay = torch.empty(count * 3 * CHUNK)
        text._head_sums(-0.1 * drawn(TIME, 1, like=wide), decay)
    start = None if alone else drawn(1, KEYS, VALUES, like=wide)
    given = (w, u, inverse[None, :, None], x, decay, start, None if unread else (q, d_out, 0.5), None)
    pairs = zip(text._solve_launched(given, narrow, how, TILE), text._solve_stepped(given, narrow, **how), strict=True)
    return all(bool((a.float() - b.float()).abs().max() <= 0.02 * b.float().abs().max()) for a, b in pairs)


def loaded(change: tuple[str, str] | None = None) -> ModuleType:
    """The text of the kernels, with something in the last place of something else."""
    text = kernels_text("slabs", frozenset({"fused_solve_read"}))
    if change is not None:
        head, kernel, rest = text.partition("def _solve_slabs_kernel(")
        assert change[0] in rest, change
        text = head + kernel + rest.replace(*change, 1)
    return load_text(text)


def interpreted() -> dict[str, bool]:
    """`kind` or `mutant` -> whether they agree, from a process in which Triton interprets."""
    return interpret_in("slabs")


if __name__ == "__main__":
    right = loaded()
    for kind in KINDS:
        print(json.dumps([kind, all(agree(right, kind, dtype) for dtype in (torch.float32, torch.float16))]), flush=True)
    for mutant, (kind, *change) in MUTANTS.items():
        print(json.dumps([mutant, agree(loaded((change[0], change[1])), kind, torch.float32)]), flush=True)

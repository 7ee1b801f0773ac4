"""The check of the kernel whose state is in slabs of keys, under Triton's interpreter, and of what is done wrong in it.

Run as a program it prints one JSON pair for each kind of launch and each mutant: do the kernel and PyTorch agree?
Entry points elsewhere: `KINDS`, `MUTANTS`, `interpreted`.
"""

from __future__ import annotations

import json
from types import ModuleType

import torch

from backends.torch_module.load import load_text
from backends.triton_kernel.kernels import kernels_text
from tests.backends.triton_kernel.processes import interpret_in

KEYS, VALUES = 136, 5
TILE = (("BK", 64), ("SLABS", 3), ("BV", 16), ("num_warps", 4), ("num_stages", 1))
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


def agree(text: ModuleType, kind: str, dtype: torch.dtype) -> bool:
    """What the check of a kind of launch says, on three chunks of one head."""
    by_head, apart, before, reverse, alone, unread = KINDS[kind]
    how = (("BY_HEAD", by_head), ("APART", apart), ("BEFORE", before), ("REVERSE", reverse))
    types = (dtype, dtype, torch.float32, dtype)
    found: bool = text._slabs_agree(torch.device("cpu"), types, (141, 1, KEYS, VALUES), (alone, unread, False), how, TILE)
    return found


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

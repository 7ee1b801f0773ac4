"""What the kernels of all recurrences begin with: which piece of time is theirs, which entries, and what a launch gives them.

Entry points: `piece_lines`, `lane_lines`, `signature`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from seqdsl.ir.node import Node

from .step import Entry


def piece_lines(entry: bool = False) -> list[str]:
    """A piece's steps, where its sequence ends, the first piece of that, which of all it is, and with `entry` in which row
    its start is."""
    row, last = "        entry = T + sequence", "end, entry = tl.minimum(begin + LENGTH, T), -1"
    return [
        "    if PACKED:",
        "        row = table + piece * 5",
        "        begin, end, stop, leading = tl.load(row), tl.load(row + 1), tl.load(row + 2), tl.load(row + 3)",
        "        sequence = tl.load(row + 4).to(tl.int64)",
        *([row] if entry else []),
        "    else:",
        "        begin, stop, leading, sequence = piece * LENGTH, T, 0, batch",
        f"        {last if entry else 'end = tl.minimum(begin + LENGTH, T)'}",
    ]


def lane_lines(lanes: int) -> list[str]:
    """The indices i0, i1, .. of an entry, by the number `lane` of it."""
    lines = ["    rest = lane"] if lanes > 1 else []
    for k in reversed(range(lanes)):
        lines.append(f"    i{k} = {'lane' if lanes == 1 else 'rest' if k == 0 else f'rest % n{k}'}")
        lines += [f"    rest = rest // n{k}"] if k else []
    return lines


def signature(
    name: str, tensors: list[str], sizes: list[str], operands: Iterable[Entry], lanes: int, numbers: dict[Node, str],
    constants: list[str],
) -> list[str]:  # fmt: skip
    """The first lines; a launch gives arguments in this order: operands, more `tensors` and the table of pieces; `sizes`,
    strides of operands, lengths of lanes and numbers; `constants`."""
    operands = list(operands)
    strides = [f"{x.name}_{part}" for x in operands for part in ("batch", "time", *range(lanes))]
    lengths = [f"n{k}" for k in range(1, lanes)]
    given = [[*(x.name for x in operands), *tensors, "table"], [*sizes, *strides, *lengths, *numbers.values()],
             [f"{c}: tl.constexpr" for c in constants]]  # fmt: skip
    lines = [f"    {line}" for names in given for line in textwrap.wrap(", ".join(names) + ",", 114)]
    return ["@triton.jit", f"def {name}(", *lines, "):  # fmt: skip"]

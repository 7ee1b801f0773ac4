"""The cases that are run under Triton's interpreter.

Run as a program, under the interpreter, it prints one JSON pair per case (of those that its arguments name):
relative errors of values and gradients. What kernels leave unwritten is NaN. Entry points elsewhere: `labels`, `deep`,
`interpreted`.
"""

from __future__ import annotations

import json
import sys

import torch

from tests.backends.triton_kernel.cases import DTYPES, Attend, Case, Read, Rows, Scan, Solve, SolveRead, compare
from tests.backends.triton_kernel.processes import interpret_in

# Two chunks and a ragged tail; fewer than one; heads, keys and values that are no powers of two.
INTERPRETED: dict[str, Case] = {
    "a decay for each key": Attend(2, 77, 1, 20, 17, gate=20),
    "a decay for each key, without a first state": Attend(1, 141, 2, 16, 16, gate=16, start=False),
    "a decay for each head": Attend(1, 141, 2, 20, 37, gate=1),
    "weak decays for each key": Attend(1, 70, 3, 16, 16, gate=16, weak=True),
    "keys in two tiles": Attend(1, 67, 1, 70, 16, gate=1, options={"scale": 0.3}),
    "keys in two tiles, a decay for each": Attend(1, 67, 1, 70, 16, gate=70, options={"scale": 0.3}),
    "no decay": Attend(1, 5, 1, 3, 2, gate=0),
    "one position": Attend(1, 1, 1, 4, 4, gate=4),
    "read before the step": Attend(1, 64, 1, 16, 16, gate=16, options={"strict": True}),
    "many keys, read before the step": Attend(1, 67, 1, 70, 16, gate=70, options={"strict": True, "scale": 0.3}),
    "read before the step of a head": Attend(2, 66, 1, 16, 20, gate=1, start=False, options={"strict": True}),
    "keys that two programs share": Attend(1, 40, 1, 130, 16, gate=130),
    "keys of a head that two programs share": Attend(1, 40, 1, 150, 3, gate=1, options={"strict": True}),
    "time in groups, a decay for each head": Attend(1, 530, 1, 16, 16, gate=1, plain=True),
    "time in groups, a decay for each key": Attend(1, 530, 1, 16, 16, gate=16),
    "time in groups, many keys": Attend(1, 530, 1, 70, 16, gate=70, weak=True, start=False),
    "packed, a decay for each head": Attend(1, 150, 1, 16, 16, gate=1, begins=(3, 64, 100)),
    "packed, a decay for each key, read before": Attend(1, 90, 1, 16, 16, gate=16, begins=(7, 80), options={"strict": True}),
    "packed, plain decays for many keys": Attend(1, 90, 1, 70, 16, gate=70, plain=True, start=False, begins=(20,)),
    "plain decays for each key": Attend(1, 70, 1, 16, 16, gate=16, plain=True),
    "plain decays for each head, read before the step": Attend(1, 70, 1, 16, 16, gate=1, plain=True, options={"strict": True}),
    "one plain decay for all positions": Attend(2, 70, 3, 16, 16, gate=1, plain=True, constant=True),
    "read of a state with any decay": Read(2, 21, 2, 5, 7, (2, 21, 2, 5, 7)),
    "read of a state with any decay, two pieces": Read(1, 260, 1, 3, 4, (1, 260, 1, 3, 4), strict=True),
    "read, a decay for each column, and a factor for each entry": Read(1, 67, 1, 4, 20, (1, 67, 1, 1, 20), (1, 1, 1, 4, 20)),
    "read, a decay for each row, and a factor for each column": Read(2, 9, 2, 4, 20, (2, 9, 2, 4, 1), (1, 9, 1, 1, 20)),
    "read, a decay for each head, and a factor for each row": Read(2, 9, 2, 4, 20, (2, 9, 2, 1, 1), (2, 1, 1, 4, 1), start=False),
    "read, plain decays, strictly": Read(1, 20, 2, 4, 3, (1, 20, 2, 4, 3), (1, 1, 2, 1, 3), plain=True, strict=True),
    "read of one position": Read(2, 1, 1, 1, 1, (2, 1, 1, 1, 1)),
    "scan": Scan((2, 37, 3, 5), (2, 37, 3, 5)),
    "scan backwards, a decay for each outer lane": Scan((2, 37, 3, 5), (1, 37, 3, 1), reverse=True),
    "scan in two pieces, a decay for each inner lane": Scan((1, 150, 2, 3), (1, 150, 1, 3), start=False),
    "scan with one decay": Scan((1, 20, 70), (1, 1, 1), plain=True),
    "scan of one position": Scan((2, 1, 2), (2, 1, 2), plain=True, reverse=True),
    "solve, no decay": Solve(1, 77, 1, 20, 17, gate=0),
    "solve, a decay for each head": Solve(2, 141, 1, 16, 16, gate=1),
    "solve, a decay for each head, reads before it": Solve(1, 141, 1, 20, 16, gate=1, after=False, start=False),
    "solve, plain decays for each head, reads before them": Solve(1, 70, 2, 16, 16, gate=1, after=False, plain=True),
    "solve, a decay for each key": Solve(1, 77, 2, 20, 17, gate=20),
    "solve, weak decays for each key": Solve(1, 70, 3, 16, 16, gate=16, weak=True),
    "solve, a decay for each key, reads before it": Solve(1, 77, 1, 16, 16, gate=16, after=False),
    "solve of three ranks, a decay for each key": Solve(1, 40, 1, 16, 16, gate=16, ranks=3),
    "solve of three ranks, weak decays for each key": Solve(1, 40, 2, 16, 16, gate=16, ranks=3, weak=True),
    "solve of two ranks, reads before a decay for each key": Solve(1, 40, 1, 16, 16, gate=16, ranks=2, after=False),
    "solve of three ranks, reads before a decay for each head": Solve(1, 40, 1, 16, 16, gate=1, ranks=3, after=False),
    "solve and read, no decay": SolveRead(1, 70, 2, 20, 17, gate=0),
    "solve and read, a decay for each head": SolveRead(2, 77, 1, 16, 16, gate=1, options={"scale": 0.3}),
    "solve and read before the decays": SolveRead(1, 70, 1, 16, 16, gate=1, after=False, plain=True, options={"strict": True}),
    "solve and read, a decay for each key": SolveRead(1, 77, 2, 20, 17, gate=20, options={"scale": 0.3}),
    "solve and read, plain decays for each key": SolveRead(1, 70, 1, 16, 16, gate=16, after=False, plain=True, start=False),
    "packed with states, a decay for each head": Attend(1, 150, 2, 16, 16, gate=1, begins=(0, 3, 64, 64, 100), states=True),
    "packed with states, a decay for each key": Attend(1, 150, 1, 20, 17, gate=20, begins=(64, 150), states=True),
    "packed with states, many keys, read before": Attend(
        1, 90, 1, 70, 16, gate=70, begins=(7, 80), states=True, options={"strict": True, "scale": 0.3}),
    "packed with states, plain decays": Attend(
        1, 90, 2, 16, 16, gate=1, plain=True, begins=(20, 20), states=True, options={"strict": True}),
    "packed with states, plain decays for each key": Attend(1, 90, 1, 16, 16, gate=16, plain=True, begins=(70,), states=True),
    "packed with last states alone": Attend(1, 90, 1, 130, 16, gate=130, start=False, begins=(20, 70), states=True),
    "solve, packed with states, a decay for each head": Solve(1, 150, 1, 16, 16, gate=1, begins=(0, 3, 100), states=True),
    "solve, packed with states, three ranks": Solve(
        1, 60, 1, 16, 16, gate=16, ranks=3, after=False, begins=(5, 5, 40), states=True),
    "solve, packed with states, plain decays": Solve(
        1, 90, 1, 16, 16, gate=1, after=False, plain=True, begins=(64, 70), states=True),
    "solve and read, packed with states, a decay for each key": SolveRead(
        1, 100, 2, 20, 17, gate=20, begins=(64, 64, 90), states=True, options={"scale": 0.3}),
    "solve and read, packed with states, strictly": SolveRead(
        1, 90, 1, 16, 16, gate=1, after=False, plain=True, begins=(20,), states=True, options={"strict": True}),
    "solve and read of 136 keys, packed with states": SolveRead(1, 77, 1, 136, 17, gate=1, begins=(10, 66), states=True),
    "solve and read of 520 keys, packed with states": SolveRead(1, 70, 1, 520, 3, gate=1, begins=(10, 66), states=True),
    "read, packed with states": Read(1, 70, 2, 5, 7, (1, 70, 2, 5, 7), begins=(0, 3, 64), states=True),
    "read, packed with states, two factors, strictly": Read(
        1, 70, 1, 4, 20, (1, 70, 1, 1, 20), (1, 1, 1, 4, 20), strict=True, begins=(66, 66), states=True),
    "a factor for each row": Rows((2, 9, 2, 130), (2, 9, 2, 1)),
    "a factor for some rows": Rows((2, 3, 2, 5), (1, 3, 2, 1)),
    "solve of one position": Solve(1, 1, 1, 3, 2, gate=1),
    "solve of 136 keys, a decay for each head, packed": Solve(1, 77, 1, 136, 17, gate=1, begins=(10, 66)),
    "solve of 200 keys, a decay for each": Solve(1, 67, 1, 200, 3, gate=200, after=False, start=False),
    "solve of 256 keys and three ranks, plain decays": Solve(1, 25, 1, 256, 3, gate=1, ranks=3, after=False, plain=True),
    "solve of 320 keys, a decay for each": Solve(1, 20, 1, 320, 3, gate=320),
    "solve and read, 129 keys, no decay, packed": SolveRead(1, 67, 1, 129, 20, gate=0, begins=(20,), options={"strict": True}),
    "solve and read, 256 keys, a decay for each": SolveRead(1, 67, 1, 256, 3, gate=256, options={"scale": 0.3}),
    "solve and read, 320 keys, a decay for each head": SolveRead(1, 133, 1, 320, 17, gate=1, options={"scale": 0.3}),
    "solve and read, 520 keys, a decay for each head": SolveRead(1, 67, 1, 520, 3, gate=1, after=False),
}

# Much like another case, or long: only under --deep.
DEEP = frozenset({
    "read of a state with any decay, two pieces", "time in groups, many keys", "keys in two tiles, a decay for each",
    "read, a decay for each row, and a factor for each column", "read, a decay for each head, and a factor for each row",
    "packed, plain decays for many keys", "packed with states, plain decays for each key", "solve of one position",
    "solve of three ranks, weak decays for each key", "solve of 200 keys, a decay for each",
    "solve and read, 256 keys, a decay for each", "solve and read of 136 keys, packed with states",
    "read, packed with states, two factors, strictly", "solve and read of 520 keys, packed with states",
    "packed with states, many keys, read before", "packed with last states alone",
    "read, packed with states, float16", "solve and read, packed with states, a decay for each key, float16",
    "read, a decay for each column, and a factor for each entry, float16", "many keys, read before the step, float16",
    "scan in two pieces, a decay for each inner lane, float16", "packed, a decay for each key, read before, float16",
})  # fmt: skip

# Every kernel in 16 bits, too.
PRECISIONS = dict.fromkeys(
    ("packed with states, a decay for each head", "packed with states, a decay for each key", "read, packed with states",
     "solve, packed with states, a decay for each head", "solve and read, packed with states, a decay for each key",
     "scan", "scan backwards, a decay for each outer lane", "scan in two pieces, a decay for each inner lane",
     "read of a state with any decay", "read, a decay for each column, and a factor for each entry",
     "read, plain decays, strictly", "a factor for each row", "solve and read, a decay for each head",
     "solve and read, a decay for each key", "solve of three ranks, a decay for each key", "read before the step",
     "many keys, read before the step", "packed, a decay for each head", "packed, a decay for each key, read before",
     "a decay for each key", "weak decays for each key", "a decay for each head", "solve, a decay for each head",
     "solve, a decay for each key", "solve of 320 keys, a decay for each", "solve and read, 320 keys, a decay for each head"),
    ("float32", "float16"),
)  # fmt: skip


def labels() -> list[str]:
    """Every case in its precisions."""
    return [f"{name}, {label}" for name in INTERPRETED for label in PRECISIONS.get(name, ("float32",))]


def deep(label: str) -> bool:
    """Is it run under `--deep` alone?"""
    return label in DEEP or label.rpartition(", ")[0] in DEEP


def interpreted(every: bool) -> dict[str, list[float]]:
    """`case, dtype` -> errors, from a process in which Triton interprets."""
    return interpret_in("interpreted", *(label for label in labels() if every or not deep(label)))


if __name__ == "__main__":
    torch.use_deterministic_algorithms(True)  # which fills fresh memory with NaN
    for label in sys.argv[1:] or labels():
        name, _, dtype = label.rpartition(", ")
        print(json.dumps([label, compare(INTERPRETED[name], DTYPES[dtype], "cpu")]), flush=True)

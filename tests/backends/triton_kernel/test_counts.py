"""The count of what launches move: held against Triton's interpreter, and the bars for whole operators."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from seqdsl.cli.main import main
from tests.backends.triton_kernel.counts import MIXERS, OBSERVED, SMALL, counts, interpreted
from tests.bench.gpu import SHAPES

PARTS = ("forward", "backward")


@pytest.fixture(scope="module")
def observed() -> dict[str, Any]:
    return interpreted()


@pytest.mark.parametrize("name", OBSERVED)
def test_the_count_is_what_the_interpreter_does(name: str, observed: dict[str, Any]) -> None:
    found = counts(name, 1, SMALL, 20, torch.float32)
    for part in PARTS:
        launches = [[x.name, x.asked, x.moved, x.flops] for x in found.launches[part] if x.name != "PyTorch"]
        assert launches and launches == observed[name][part]


@pytest.mark.parametrize("name", MIXERS)
def test_one_plane_stands_for_all(name: str) -> None:
    """With widths that are whole tiles: what is executed of a large shape gives the count of all of it.

    But a table that all programs share counts whole, though weak decays read only some of it.
    """
    lengths, table = {"t": 128, "h": 2}, 2 * 30 * 64 * 64
    whole, found = counts(name, 2, lengths, 128, torch.bfloat16), counts(name, 2, lengths, 128, torch.bfloat16, planes=(4, 2))
    for part in PARTS:
        for a, b in zip(whole.launches[part], found.launches[part], strict=True):
            assert (a.name, a.grid, a.asked, a.flops, a.operations) == (b.name, b.grid, b.asked, b.flops, b.operations)
            assert a.moved <= b.moved <= a.moved + (table if a.name.startswith("rows_") else 0)


def test_explain_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "retention", "--mixer", "retention", "--backend", "triton"]) == 0
    out = capsys.readouterr().out
    assert "launches of form chunkwise for one sequence in bfloat16, |t| 8192, |h| 96, |d| 128, |e| 128" in out
    assert "states                 96 x 2 x 2 programs" in out and "forward: 2.5" in out


def _ratio(name: str, shape: tuple[int, int, int, int]) -> float:
    batch, length, heads, width = shape
    found = counts(name, batch, {"t": length, "h": heads}, width, torch.bfloat16, planes=(batch * heads,), backward=False)
    return found.ratio("forward")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_attention_moves_hardly_more_than_it_must(shape: tuple[int, int, int, int]) -> None:
    """Distinct bytes of each launch: rows of the same head run side by side, and its keys and values fit in L2."""
    assert _ratio("softmax", shape) <= 1.3


# What holds chunks misses that bar: every chunk's state is written and read, K V / 64 numbers for each position beside its
# K + V, and with a decay for each key what reads and writes decay to is, too. These are the worst of the six shapes, and
# may only fall.
MISSES = {"retention": 3.83, "simple_gla": 3.7, "gla": 3.88}


@pytest.mark.parametrize("shape", [s for s in SHAPES if s[1] <= 2048], ids=str)
def test_a_decay_for_each_column_moves_less_than_twice_what_it_must(shape: tuple[int, int, int, int]) -> None:
    assert _ratio("columns", shape) <= 2.0


@pytest.mark.deep
@pytest.mark.parametrize("shape", [s for s in SHAPES if s[1] > 2048], ids=str)
def test_long_sequences_with_a_decay_for_each_column(shape: tuple[int, int, int, int]) -> None:
    assert _ratio("columns", shape) <= 2.0


@pytest.mark.parametrize("name", MISSES)
def test_chunked_states_move_no_more_than_they_did(name: str) -> None:
    assert max(_ratio(name, shape) for shape in SHAPES) <= MISSES[name]

"""The count of what launches move: held against Triton's interpreter, and the bars for whole operators."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from seqdsl.cli.main import main
from tests.backends.triton_kernel.counts import FILES, OBSERVED, SMALL, counts, interpreted
from tests.backends.triton_kernel.processes import each
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


@pytest.mark.parametrize("name", each((*OBSERVED, "retention", "kda"), {*OBSERVED, "retention", "kda"} - {"gla", "softmax"}))
def test_one_plane_stands_for_all(name: str) -> None:
    """With widths that are whole tiles: what is executed of a large shape gives the count of all of it.

    But a table that all programs share counts whole, though kernels read only some of it.
    """
    lengths, table = {"t": 128, "h": 2}, 2 * 30 * 64 * 64
    whole, found = counts(name, 2, lengths, 128, torch.bfloat16), counts(name, 2, lengths, 128, torch.bfloat16, planes=(4, 2))
    for part in PARTS:
        for a, b in zip(whole.launches[part], found.launches[part], strict=True):
            assert (a.name, a.grid, a.asked, a.flops, a.operations) == (b.name, b.grid, b.asked, b.flops, b.operations)
            assert a.moved <= b.moved <= a.moved + (table if a.name.startswith(("rows_", "head_adjoint")) else 0)


def test_explain_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "retention", "--mixer", "retention", "--backend", "triton"]) == 0
    out = capsys.readouterr().out
    assert "launches of form chunkwise for one sequence in bfloat16, |t| 8192, |h| 96, |d| 128, |e| 128" in out
    assert "walk                   192 x 1 programs" in out and "forward: 1.70 times" in out


def _ratio(name: str, shape: tuple[int, int, int, int]) -> float:
    batch, length, heads, width = shape
    found = counts(name, batch, {"t": length, "h": heads}, width, torch.bfloat16, planes=(batch * heads,), backward=False)
    return found.ratio("forward")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_attention_moves_hardly_more_than_it_must(shape: tuple[int, int, int, int]) -> None:
    """Distinct bytes of each launch: rows of the same head run side by side, and its keys and values fit in L2."""
    assert _ratio("softmax", shape) <= 1.3


# What is nothing but a matrix state with a diagonal decay and its read: none, one for each head, key or value.
ALONE = ("retention", "simple_gla", "gla", "vision_retention", "sums", "read before", "read before, by head", "head_decay")
# What computes its operands, or something else of what was read, in PyTorch: there the bar is for the kernels.
BESIDE = (*(FILES.keys() - set(ALONE)), "learned_start", "negative_decay", "now_and_before", "exclusive_bonus")


def _deep_unless(shapes: list[tuple[int, int, int, int]]) -> list[Any]:
    return [pytest.param(s, marks=() if s in shapes else pytest.mark.deep, id=str(s)) for s in SHAPES]


NAMED = ("retention", "simple_gla", "gla")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        pytest.param(n, s, marks=() if n in NAMED or s == SHAPES[2] else pytest.mark.deep, id=f"{n}-{s}")
        for n in ALONE
        for s in SHAPES
    ],
)
def test_a_decaying_matrix_state_moves_at_most_twice_what_it_must(name: str, shape: tuple[int, int, int, int]) -> None:
    assert _ratio(name, shape) <= 2.0


@pytest.mark.parametrize("shape", _deep_unless([s for s in SHAPES if s[1] <= 2048]))
def test_one_with_a_decay_for_each_column_does_too(shape: tuple[int, int, int, int]) -> None:
    assert _ratio("column_decay", shape) <= 2.0


@pytest.mark.parametrize("shape", _deep_unless([SHAPES[2]]))
@pytest.mark.parametrize("name", sorted(BESIDE))
def test_its_kernels_do_where_there_is_more_to_compute(name: str, shape: tuple[int, int, int, int]) -> None:
    """What they move, over what their operators are given and give, each once."""
    batch, length, heads, width = shape
    sizes = {"t": length, "h": heads, "g": heads}
    found = counts(name, batch, sizes, width, torch.bfloat16, planes=(batch * heads,), backward=False)
    own = ("head_sums", "head_weights", "rows_weights", "states", "walk")
    moved = sum(x.moved for x in found.launches["forward"] if x.name in own)
    assert 0 < moved <= 2.0 * sum(least for operator, least in found.operators["forward"] if operator == "attend")


# Of one sequence with few heads: what waits for memory is not moved fast, and time is cut, so that more is asked for at once.
FEW = {"simple_gla": 2.46, "gla": 2.56}


@pytest.mark.parametrize("name", FEW)
def test_few_heads_cut_time(name: str) -> None:
    found = counts(name, 1, {"t": 8192, "h": 4}, 128, torch.bfloat16, planes=(4,), backward=False)
    assert found.ratio("forward") <= FEW[name]
    assert [x.grid for x in found.launches["forward"] if x.name in ("states", "walk")] == [(4, 2, 2), (16, 16)]


# The adjoint needs the state on both sides of every chunk, which it finds again. These may only fall.
BACKWARD = {"retention": 2.97, "simple_gla": 3.02, "gla": 2.81}


@pytest.mark.parametrize("name", BACKWARD)
def test_the_adjoint_moves_no_more_than_it_did(name: str) -> None:
    found = counts(name, 4, {"t": 2048, "h": 16}, 128, torch.bfloat16, planes=(64,))
    assert found.ratio("backward") <= BACKWARD[name]

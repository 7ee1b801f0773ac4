"""Every kernel that the library launches compiles for every target, fits it, and keeps in registers what it must.

`library.txt` is what this machine's Triton said of the library's mixers, for as many targets as its first lines say: of
sm_90 all of it; rewritten by `python -m tests.backends.triton_kernel.library_ahead`.
Here a few mixers are compiled again for sm_90; `--deep` goes through the whole library for all targets.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.backends.triton_kernel.ahead import SHARED, TARGETS
from tests.backends.triton_kernel.library_ahead import faults, found_in_processes, summary, table_text
from tests.backends.triton_kernel.processes import rows_in

MIXERS = ("memory.delta_rule.delta_rule", "attention.alibi.alibi")
MADE = {"kernel": "walk", "target": "sm_90", "family": "matrix state", "registers": 9, "spilled": 0, "shared": 0, "products": []}


@pytest.fixture(scope="module")
def made() -> list[dict[str, Any]]:
    return rows_in("library_ahead", "--mixers", *MIXERS, "--targets", "sm_90")


def test_a_few_mixers(made: list[dict[str, Any]]) -> None:
    assert faults(made) == []
    mixers, compiled = [row for row in made if "mixer" in row], [row for row in made if "key" in row]
    assert [row["mixer"] for row in mixers] == [*MIXERS]
    assert {row["family"] for row in compiled} >= {"matrix state", "low rank", "attention"}
    assert "chain kernel" in {row["kernel"] for row in compiled}  # of a step
    assert all({row["key"] for row in compiled if row["registers"]} & {*mixer["kernels"]} for mixer in mixers)


def test_a_launch_compiles_something_else_for_every_target(made: list[dict[str, Any]]) -> None:
    kernels = {key for row in made if "mixer" in row for key in row["kernels"]}
    keys = [row["key"] for row in made if "key" in row]
    assert {row["target"] for row in made if "key" in row} == {"sm_90"}
    assert len({*keys}) == len(keys) and len(kernels) == len(TARGETS) * len(keys)


@pytest.mark.parametrize(("change", "said"), [
    ({"error": "PassManager::run failed"}, "walk sm_90 of a.b.c does not compile: PassManager::run failed"),
    ({"shared": SHARED["sm_90"] + 1}, "walk sm_90 of a.b.c wants 232449 bytes of shared memory"),
    ({"spilled": 8}, "walk sm_90 of a.b.c spills 8 bytes"),
    ({"shared": 65_537, "target": "gfx942"}, "walk gfx942 of a.b.c wants 65537 bytes of shared memory"),
])  # fmt: skip
def test_what_must_not_be_is_said(change: dict[str, Any], said: str) -> None:
    mixer = {"mixer": "a.b.c", "kernels": ["0"], "failed": {}}
    assert faults([mixer, {**MADE, "key": "0"}]) == []
    assert faults([mixer, {**MADE, "key": "0", **change}]) == [said]


def test_a_mixer_that_was_not_run_is_said() -> None:
    row = {"mixer": "scan.gla.gla", "kernels": [], "failed": {"step sm_90": "RuntimeError: no"}}
    assert faults([row]) == ["scan.gla.gla: step sm_90: RuntimeError: no"]


def test_others_may_spill_and_so_may_other_targets() -> None:
    assert faults([{**MADE, "key": "0", "spilled": 8, "family": ""}, {**MADE, "key": "1", "spilled": 8, "target": "sm_80"}]) == []


def test_the_table_counts() -> None:
    rows = [{"mixer": "a.b.c", "kernels": ["0", "1"], "failed": {}}, {"mixer": "a.b.d", "kernels": ["1"], "failed": {}},
            {**MADE, "key": "0"}, {**MADE, "key": "1", "registers": 7, "spilled": 8, "shared": 300_000},
            {"key": "2", "kernel": "walk", "target": "gfx942", "family": "matrix state", "error": "no"}]  # fmt: skip
    *_, line = table_text(rows).splitlines()
    assert [cell.strip() for cell in line.split("|")] == ["walk", "2", "9 / 8 / 300000, 2", "1 failed", "", ""]
    assert [line.split("|")[1:] for line in summary(rows).splitlines()[2:]] == [
        [f"{n:{width}}" for n, width in zip(counts, (9, 7, 9, 16), strict=True)]
        for counts in ((2, 0, 1, 1), (0, 1, 0, 0), (0, 0, 0, 0), (0, 0, 0, 0))
    ]


# FIXME: scores that are loaded pair by pair in bfloat16, and features beyond 128, want smaller tiles.
SPILLING = ("attention.combiner.combiner_axial", "attention.set_pool.channel_tokens", "graph.gat.gat", "graph.gat.GraphAttention")


@pytest.mark.deep
def test_the_whole_library() -> None:
    found = faults(found_in_processes())
    known = [text for text in found if any(f"sm_90 of {mixer} spills" in text for mixer in SPILLING)]
    assert [text for text in found if text not in known] == []
    assert {mixer for mixer in SPILLING if any(mixer in text for text in known)} == {*SPILLING}

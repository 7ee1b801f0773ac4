"""The form `distributed`: ranks that hold a piece of the stream each agree with one process that holds all of it.

Values, states and every gradient are those of the module of the equations as they are written. Three processes run some
mixers, two of them as a group of their own; in threads that stand for ranks there are mixers of every class, and texts
that are wrong, which must be found out.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import seqdsl
from seqdsl.diagnostics import SeqError
from seqdsl.forms import derive
from tests.backends.torch_module.rank import run
from tests.backends.torch_module.ranks import Threads, case_of, system_of, worst

UNNAMED = Path(__file__).resolve().parents[2] / "unnamed"
CUTS = {"three": (3, 1, 5), "empty": (0, 6, 0), "pair": (4, 3)}
IN_PROCESSES: dict[str, Any] = {
    "gla": "gla",
    "layer_with_windows": ("comba", "Comba"),
    "coupled": UNNAMED / "coupled_erase.seq",
    "complex": UNNAMED / "turning_decay.seq",
    "both_ways": UNNAMED / "reverse_into_forward.seq",
}
# Of each class some: entry by entry with every kind of decay, other rings, matrices of every make, states in sequence.
IN_THREADS: dict[str, Any] = {
    name: UNNAMED / f"{name}.seq"
    for name in """column_decay constant_matrix coupled_erase decaying_max delayed_feed exclusive_bonus fading_peak
    feed_forward latch max_plus cover matrix velocity
    leaky_delay learned_start echo lag_two negative_decay no_memory queue_length rank_three real_turn
    reverse_into_forward ring_of_cells soft_path two_sided_decay value_erase vector_rank_one
    depth_of_decays from_the_top""".split()
} | {
    "mlstm": "mlstm",
    "taps": "short_conv",
    "bidirectional": "bi_wkv",
    "rotated": ("retention", "Retention"),
    "reset_by_position": "mixer m(x[t,c]) -> y[t,c]:\n    y[t,c] = where(t % 4 == 0, 0.0, 0.5) * y[t-1] + x / (t + 1)\n",
    "later_is_less": "mixer m(x[t,c]) -> y[t,c]:\n    y[-1,c] = -inf\n    y[t,c] = max(y[t-1] - t / 10, x)\n",
    "matrix_and_position": "mixer m(x[t,i], A[i,m]) -> y[t,i]:\n    y[-1,i] = 1.0\n"
    "    y[t,i] = sum[m] A * y[t-1,m] / (t + 2) + x\n",
}


@pytest.fixture(scope="module")
def in_processes(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """What each of three ranks has found, and the one process beside them."""
    folder = tmp_path_factory.mktemp("ranks")
    cases = [case_of(folder, name, system_of(what), CUTS) for name, what in IN_PROCESSES.items()]
    torch.save([split for split, _ in cases], folder / "cases.pt")
    script = str(Path(__file__).with_name("rank.py"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ranks = [subprocess.Popen([sys.executable, script, str(folder), str(n), "3"], env=environment) for n in range(3)]
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(folder)
            whole = {one["name"]: {label: run(one, given) for label, given in one["pieces"].items()} for _, one in cases}
        assert [rank.wait(timeout=240) for rank in ranks] == [0, 0, 0]
    finally:
        for rank in ranks:
            rank.kill()
    return [torch.load(folder / f"{n}.pt") for n in range(3)], whole


@pytest.mark.parametrize("label", CUTS)
@pytest.mark.parametrize("name", IN_PROCESSES)
def test_processes_agree_with_one(in_processes: tuple[list[Any], dict[str, Any]], name: str, label: str) -> None:
    ranks, whole = in_processes
    found = [rank[name][label] for rank in ranks if label in rank[name]]
    assert len(found) == len(CUTS[label])
    assert worst(system_of(IN_PROCESSES[name]), found, whole[name][label]) < 1e-10


def gap_in_threads(name: str, what: Any, folder: Path, patch: pytest.MonkeyPatch, change: Any = str) -> float:
    """The largest difference, over the cuts."""
    system = system_of(what)
    split, one = case_of(folder, name, system, CUTS, change)
    patch.syspath_prepend(folder)
    gaps = []
    for label, pieces in split["pieces"].items():
        wanted = run(one, one["pieces"][label])
        with pytest.MonkeyPatch.context() as inner:
            found = Threads(len(pieces), inner).run(lambda rank, pieces=pieces: run(split, pieces[rank]))
        gaps.append(worst(system, found, wanted))
    return max(gaps)


@pytest.mark.parametrize("name", IN_THREADS)
def test_every_class_crosses_ranks(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gap_in_threads(f"{name}_right", IN_THREADS[name], tmp_path, monkeypatch) < 1e-10


WRONG = {
    "an inclusive scan": ("gla", "states[place], states[-1]", "states[place + 1], states[-1]"),
    "a state for each rank": ("gla", "if place == 0:", "if True:"),
    "operands exchanged": ("rank_three", "lambda a, b, state: a @ state + b", "lambda a, b, state: a.mT @ state + b"),
    "ranks from the other end": ("both_ways", "reversed(pieces) if reverse else pieces", "pieces"),
    "the window forgotten": ("taps", "return states[self.rank], states[-1]", "return before, states[-1]"),
    "a window of one rank alone": ("taps", "torch.cat([after[-1], kept], dim).narrow(dim, new, width)", "piece"),
    "a gradient that stays on its rank": ("gla", "return total[torch", "total = x\n        return total[torch"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_exchange_is_seen(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, right, wrong = WRONG[fault]
    what = (IN_PROCESSES | IN_THREADS)[name]

    def change(text: str) -> str:
        assert right in text
        return text.replace(right, wrong)

    label = "".join(c if c.isalnum() else "_" for c in fault)
    assert gap_in_threads(label, what, tmp_path, monkeypatch, change) > 1e-4


def test_a_state_of_all_positions_is_not_given_back_on_several_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    program = seqdsl.load(UNNAMED / "max_plus.seq")
    module, x = program.module(form="distributed"), torch.zeros(1, 3, 2)
    assert module(x, x, return_state=True)[1]["position"] == 3  # one rank
    with pytest.raises(ValueError, match="lie on 2 ranks"):
        Threads(2, monkeypatch).run(lambda rank: module(x, x, return_state=True))


SKEW = """mixer m(x[t,c], a[t,c]; L = 2) -> y[t,c]:
    z[-1,t,c] = x
    z[l: L,t,c] = sigmoid(a) * z[l,t-1] + z[l-1,t-1]
    y[t,c] = z[L-1]
"""


def test_what_needs_other_pieces_as_a_whole_is_refused_with_reasons() -> None:
    for name, reason in {
        "gru": "two reads of the state are multiplied",
        "softmax": "it takes all positions along `t` together",
        "conv_gru": "multiplied",
        SKEW: "recurs along `t` and `l` at once",
    }.items():
        with pytest.raises(SeqError, match="form-not-available") as caught:
            derive(seqdsl.load(name).system(), "distributed")
        assert any(reason in note for note in caught.value.diagnostics[0].notes)

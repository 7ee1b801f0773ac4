"""Rows that grow with time: the number beyond their own position, and which of them a state can hold."""

from __future__ import annotations

import numpy as np
import pytest

from seqdsl.ir.beyond import numbers_beyond
from seqdsl.ir.state import NotSteppable, state_record
from tests.ir.rows import GROWING, READ, SCORE, system_of
from tests.ir.splitting import check_split


@pytest.mark.parametrize("number, lines", GROWING, ids=[lines[-2] for _, lines in GROWING])
def test_a_row_goes_on(number: str, lines: tuple[str, ...]) -> None:
    system = system_of(*lines)
    found = numbers_beyond(system).get("z")
    assert (repr(found) if found is not None else "row") == number
    assert [e.beyond for e in state_record(system) if e.tensor == "z"] in ([found], [])
    rng = np.random.default_rng(0)
    lengths = {"t": 6, "d": 3, "e": 2}
    inputs = {t.name: rng.standard_normal([lengths[i] for i in t.indices]) for t in system.inputs()}
    for cuts in ((0,), (3,), (1, 2, 5), (1, 2, 3, 4, 5, 6)):
        check_split(system, inputs, cuts)


REFUSED = [
    ("w", (SCORE, "z[t,s] = z[t-1,s] + w", READ)),                               # what was there for s needs its key
    ("z", ("z[t,s] = z[t-1,s] + 1", READ)),                                      # it counts: no one number
    ("z", ("z[t,s] = where(s <= t + 1, 1, 0) + z[t-1,s]", READ)),
    ("z", (SCORE, "z[-1,s] = 1", "z[t,s] = z[t-1,s] * where(s < t, w, 2)", READ)),
    ("z", (SCORE, "z[-1,s] = sum[e] b", "z[t,s] = z[t-1,s] * where(s < t, w, 1)", READ)),
    ("z", (SCORE, "z[t,s] = where(s < t, z[t-1,s], 1) + where(s < t - 1, z[t-2,s], 1) + w", READ)),  # older rows
    ("o", (SCORE, "z[t,s] = where(s < t, w, 1)", "o[t,e] = sum[s | s <= t] z[t-1,s] * v[s]")),  # z[-1,s] is 0, not 1
]  # fmt: skip


@pytest.mark.parametrize("reader, lines", REFUSED, ids=[lines[-2] for _, lines in REFUSED])
def test_a_row_of_which_more_would_have_to_be_known(reader: str, lines: tuple[str, ...]) -> None:
    system = system_of(*lines)
    with pytest.raises(NotSteppable) as error:
        state_record(system)
    assert error.value.reader == reader

"""Decoding: a module one position at a time, and in pieces, against the equations over the whole sequence."""

from __future__ import annotations

import pytest
import torch

import seqdsl
from seqdsl.diagnostics import SeqError
from seqdsl.forms.derive import available
from tests.backends.torch_module.harness import gap

# What a step reads of tensors beside its own states, and what it reads at a position that is long past.
TEXTS = {
    "a lag in a branch of a step": """
    h[t,c] = where(u[t-1] > 0, tanh(w * h[t-1] + u[t-2]) + x[t-3], w * h[t-1])
    y[t,c] = h
""",
    "a lag and the first position, of a tensor that is read here, too": """
    h[t,c] = tanh(where(x[t-1,0] > 0, w * h[t-1] + x[0,c], x[t,0] * h[t-1]))
    y[t,c] = h * u
""",
    "a recurrence at its first position": """
    h[t] = tanh(h[t-1] + u)
    y[t,c] = x + h[0]
""",
    "a boundary whose reader is read further back": """
    b[t] = u[t // 3 * 3 - 1]
    y[t,c] = x + b + where(t % 3 == 0, b[t-2], w)
""",
    "a sum over two lags of unknown lengths": """
    index j over c, i over c
    y[t,c] = x + sum[j, i | j + i <= t] w[j] * w[i] * u[t-j-i]
""",
    "a recurrence over a window of unknown length": """
    index j over c
    h[t,c] = x + 0.3 * sum[j | j <= t and j > 0] w[j] * h[t-j]
    y[t,c] = h * u + max[j | j <= t](x[t-j] + w[j])
""",
    "more depths than there are": """
    z[-1,t,c]   = x
    z[l: 3,t,c] = tanh(z[l-1] + z[l,t-1] * w)
    y[t,c]      = z[2] + z[3,0] * z[0]
""",
}


def forms_of(program: seqdsl.api.Program) -> list[str]:
    """Those that it has, on one rank."""
    found = available(program.system()).items()
    return ["auto", *(form for form, d in found if not isinstance(d, SeqError) and form != "distributed")]


@pytest.mark.parametrize("body", TEXTS.values(), ids=TEXTS)
def test_positions_one_by_one_and_in_pieces(body: str) -> None:
    program = seqdsl.load(f"mixer m(x[t,c], u[t], w[c]) -> y[t,c]:{body}")
    x, u, w = (torch.randn(1, *shape, dtype=torch.float64) for shape in ((8, 2), (8,), (2,)))
    wanted = program.interpret({"x": x[0].numpy(), "u": u[0].numpy(), "w": w[0].numpy()})["outputs"]["y"]
    for form in forms_of(program):
        module = program.module(form)
        for cuts in (range(9), (0, 3, 8), (0, 5, 8)):
            state, found = None, []
            for a, b in zip(cuts, cuts[1:], strict=False):
                y, state = module(x[:, a:b], u[:, a:b], w, state=state, return_state=True)
                found.append(y)
            assert gap(torch.cat(found, 1)[0], torch.from_numpy(wanted)) < 1e-12, (form, [*cuts])
        assert module(x[:, :0], u[:, :0], w).shape == (1, 0, 2)


def test_what_is_scanned_from_the_end_has_no_state_in_any_form() -> None:
    """It depends on how much there is to come, even where it reads nothing of the stream."""
    program = seqdsl.load("mixer m(x[t,c], w[c]) -> y[t,c]:\n    b[t,c] = 0.5 * b[t+1] + w\n    y[t,c] = b + x\n")
    for form in forms_of(program):
        with pytest.raises(ValueError, match="has no state"):
            program.module(form)(torch.randn(1, 4, 2), torch.randn(1, 2), return_state=True)

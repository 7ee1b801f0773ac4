"""What the tests of the rules share: a few inputs, `check` for values, `refuse` for faults."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from seqdsl.diagnostics import SeqError
from seqdsl.ir.interpreter import interpret
from seqdsl.semantics import load_system

Array = np.ndarray[Any, Any]
A = np.array([0.5, -1.25, 2.0, 0.75])
B = np.array([1.5, -0.5, 0.25])
X = np.array([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75], [-2.0, 1.0, 0.5], [0.75, -0.25, 1.25]])
TOLERANCE = 1e-12


def body(*lines: str, options: str = "") -> str:
    """A mixer of these lines, from x[t,c] to y[t,c]."""
    return f"mixer f(x[t,c]{options}) -> y[t,c]:\n" + "".join(f"    {line}\n" for line in lines)


def value(
    text: str, *, params: dict[str, Any] | None = None, sizes: dict[str, int] | None = None, **inputs: Any
) -> Array:
    """The first output of the first mixer."""
    outputs = interpret(load_system(text), inputs=inputs, params=params, sizes=sizes)["outputs"]
    return np.asarray(next(iter(outputs.values())))


def check(text: str, expected: Any, **inputs: Any) -> None:
    """A text means this array."""
    found, expected = value(text, **inputs), np.asarray(expected)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=TOLERANCE, atol=TOLERANCE)


def refuse(text: str, code: str, under: str | None = None, message: str = "", *, help: str = "") -> None:
    """A text has one fault: its code, what stands at its place, and words of its message and help."""
    with pytest.raises(SeqError) as caught:
        load_system(text)
    (fault,) = caught.value.diagnostics
    assert fault.span is not None
    found = (fault.code, fault.span.text if under is not None else None)
    assert found == (code, under), str(caught.value)
    assert message in f"{fault.message} / {fault.label}" and help in fault.help, str(caught.value)

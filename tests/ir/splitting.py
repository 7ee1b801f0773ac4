"""Run a system in pieces along its stream, handing the state on, and compare with the whole run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from seqdsl.ir.interpreter import interpret
from seqdsl.ir.system import System


def flat(state: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested state with dotted names."""
    found: dict[str, Any] = {}
    for name, value in state.items():
        found.update(flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
    return found


def piece(system: System, inputs: Mapping[str, Any], start: int, stop: int) -> dict[str, Any]:
    """The inputs between two positions of the stream."""
    found = {}
    for tensor in system.inputs():
        where = [slice(start, stop) if system.axis(i) == system.stream else slice(None) for i in tensor.indices]
        found[tensor.name] = np.asarray(inputs[tensor.name])[tuple(where)]
    return found


def length(system: System, inputs: Mapping[str, Any]) -> int:
    """How many positions the stream has."""
    first = system.inputs()[0]
    return int(np.shape(inputs[first.name])[[system.axis(i) for i in first.indices].index(str(system.stream))])


def check_split(system: System, inputs: Mapping[str, Any], cuts: Iterable[int], **given: Any) -> None:
    """Outputs and final state of pieces are those of the whole, for each tensor with one index along the stream."""
    whole, state, parts, start = interpret(system, inputs=inputs, **given), None, [], 0
    for stop in (*sorted(cuts), length(system, inputs)):
        result = interpret(system, inputs=piece(system, inputs, start, stop), state=state, **given)
        parts.append(result["outputs"])
        state, start = result["state"], stop
    for name in system.outputs:
        along = [k for k, i in enumerate(system.tensors[name].indices) if system.axis(i) == system.stream]
        if len(along) == 1 and system.tensors[name].indices[along[0]] == system.stream:
            found = np.concatenate([part[name] for part in parts], along[0])
            np.testing.assert_allclose(found, whole["outputs"][name], 1e-9, 1e-9, err_msg=name)
    expected, found = flat(whole["state"]), flat(state or {})
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, 1e-9, 1e-9, err_msg=f"state {name}")

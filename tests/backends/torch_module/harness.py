"""Systems as modules, and fixtures of the corpus as tensors."""

from __future__ import annotations

import inspect
import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
from seqdsl.backends.torch_module import emit_module, load_class
from seqdsl.backends.torch_module.prologue import stepping

from seqdsl.forms import derive
from seqdsl.ir.remember import once_for_each
from seqdsl.ir.system import System
from seqdsl.semantics import load_system

CORPUS = Path(__file__).resolve().parents[2] / "corpus"
FIXTURES = sorted((CORPUS / "values").glob("*.json"))
SIZES = {"t": 7, "s": 7, "h": 2, "d": 3, "e": 2, "c": 4, "n": 3, "j": 3, "g": 2, "l": 4, "a": 5, "i": 4, "m": 3}


@cache
def system_of(file: str, mixer: str, form: str = "recurrent") -> System:
    """A mixer of the corpus in a form."""
    return derive(load_system(CORPUS / f"{file}.seq", mixer), form).system


@once_for_each
def _texts(system: System) -> dict[str, str]:
    """The system's modules so far, by the form that they name."""
    return {}


def module_of(system: System, form: str = "recurrent", dtype: torch.dtype = torch.float64, **sizes: int) -> Any:
    """The generated module; sizes that its `__init__` does not ask for are ignored."""
    texts = _texts(system)
    if form not in texts:
        texts[form] = emit_module(system, class_name="Mixer", form=form)
    cls = load_class(texts[form], "Mixer")
    asked = inspect.signature(cls.__init__).parameters
    given: dict[str, Any] = {n: v for n, v in sizes.items() if n in asked}
    if "dtype" in asked:
        given["dtype"] = dtype
    return cls(**given)


def fixture(
    path: Path, dtype: torch.dtype = torch.float64
) -> tuple[System, Any, list[torch.Tensor], list[torch.Tensor]]:
    """System, module with the fixture's parameters, inputs with a batch axis, and the expected outputs."""
    data = json.loads(path.read_text())
    system = load_system(CORPUS / data["file"], data["mixer"], data["sizes"])
    module = module_of(system, dtype=dtype, **data["sizes"])
    module.load_state_dict({name: tensor(entry, dtype) for name, entry in data["params"].items()})
    inputs = [tensor(data["inputs"][t.name], dtype)[None] for t in system.inputs()]
    wanted = [tensor(entry, torch.float64) for entry in data["outputs"].values()]
    return system, module, inputs, wanted


def tensor(entry: dict[str, Any], dtype: torch.dtype) -> torch.Tensor:
    """A tensor of a fixture: infinities are strings, complex entries pairs."""
    data = _numbers(entry["data"])
    if entry["dtype"] == "complex":
        return torch.view_as_complex(torch.tensor(data, dtype=torch.float64)).to(dtype.to_complex())
    return torch.tensor(data, dtype={"real": dtype, "int": torch.long, "bool": torch.bool}[entry["dtype"]])


def _numbers(data: Any) -> Any:
    if isinstance(data, list):
        return [_numbers(x) for x in data]
    return float(data) if isinstance(data, str) else data


def random_inputs(
    system: System, *, batch: int = 2, dtype: torch.dtype = torch.float64, grad: bool = False, **sizes: int
) -> list[torch.Tensor]:
    """Normal inputs; those that are log decays by name are negative, integers small."""
    generator = torch.Generator().manual_seed(0)
    lengths = {**SIZES, **sizes}
    found = []
    for t in system.inputs():
        shape = (batch, *(lengths[system.axis(i)] for i in t.indices))
        if t.dtype == "int":
            found.append(torch.randint(0, 3, shape, generator=generator))
        elif t.dtype == "bool":
            found.append(torch.rand(shape, generator=generator) < 0.5)
        else:
            x = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
            x = -x.abs() if t.name in ("g", "a", "w") else x
            found.append(x.requires_grad_(grad))
    return found


def stream_dims(system: System, names: tuple[str, ...] | None = None) -> list[int | None]:
    """The streamed dimension of each input (of each named tensor)."""
    tensors = system.inputs() if names is None else [system.tensors[n] for n in names]
    return [next((k + 1 for k, i in enumerate(t.indices) if system.axis(i) == system.stream), None) for t in tensors]


def piece(system: System, inputs: list[torch.Tensor], start: int, end: int) -> list[torch.Tensor]:
    """The inputs at some positions of the stream."""
    return [
        x if d is None else x.narrow(d, start, end - start) for x, d in zip(inputs, stream_dims(system), strict=True)
    ]


def as_tuple(y: Any) -> tuple[torch.Tensor, ...]:
    """Outputs, one or several."""
    return y if isinstance(y, tuple) else (y,)


def gap(found: Any, wanted: Any) -> float:
    """The largest difference relative to the largest entry, over tensors and nested states."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        return max((gap(found[k], wanted[k]) for k in wanted), default=0.0)
    if isinstance(wanted, int):
        return float(found != wanted)
    assert found.shape == wanted.shape
    if not wanted.numel():
        return 0.0
    if not (wanted.is_floating_point() or wanted.is_complex()):
        return float(not torch.equal(found, wanted))
    found, wanted = found.detach().to(wanted.dtype), wanted.detach()
    infinite = torch.isinf(wanted.abs())
    assert torch.equal(found[infinite], wanted[infinite])
    difference = (found - wanted).masked_fill(infinite, 0).abs().max()
    return float(difference / wanted.masked_fill(infinite, 0).abs().max().clamp(min=1e-3))


def is_steppable(system: System) -> bool:
    """Has the system a state?"""
    return not stepping(system).refusal


__all__ = ["emit_module", "load_class"]

"""A mixer from outside: its file, a loop written from its equations, and how its inputs are drawn.

A loop takes and gives tensors with a batch axis in float64 and never touches the compiler; autograd through it gives
the gradients that every form is compared with. Kinds of inputs are chosen to break forms: log decays mix 0, -1e-6, -20
and -200, raw factors are exactly 0, 1 and -1 among others, gates saturate.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Given = Any  # inputs by attribute, [B, T, ...]
Finals = dict[str, Tensor]  # states by name, [B, ...]: before the first position, after the last
Outputs = tuple[Tensor, ...]
Reference = Callable[[Given, Finals, Finals], tuple[Outputs, Finals]]

SIZES = {"h": 2, "d": 5, "e": 3, "c": 4, "n": 2, "j": 4, "r": 2, "m": 3, "i": 3}
BATCH = 2
HARSH = torch.tensor([0.0, -1e-6, -1e-3, -0.1, -1.0, -20.0, -200.0], dtype=torch.float64)
OFTEN = torch.tensor([4.0, 4.0, 2.0, 2.0, 1.0, 0.3, 0.3], dtype=torch.float64)
FACTORS = torch.tensor([0.0, 1.0, -1.0, 0.999999, 0.9, -0.5, 0.3], dtype=torch.float64)
GATES = torch.tensor([-30.0, -3.0, -1.0, 0.5, 2.0, 13.0, 40.0], dtype=torch.float64)


@dataclass(frozen=True)
class Case:
    """`inputs`: `name[axes]:kind ..`; `states` and `params` likewise; `forms` must all be there.

    `loose` multiplies the limits where the equations themselves lose digits (a difference of running sums, a maximum
    that cancels out of the result), `bf16` those of layers, whose projections are rounded to 16 bits one by one.
    """

    file: str
    reference: Reference
    inputs: str
    states: str = ""
    forms: str = ""
    params: str = ""
    name: str = ""
    reverse: bool = False
    sizes: tuple[tuple[str, int], ...] = ()
    loose: float = 1.0
    bf16: float = 1.0

    @property
    def mixer(self) -> str:
        """Its name in the file."""
        return self.name or str(getattr(self.reference, "__name__", ""))


@dataclass(frozen=True)
class Spec:
    """One tensor to draw."""

    name: str
    axes: tuple[str, ...]
    kind: str

    @property
    def time(self) -> int | None:
        """The dimension of `t`, the batch axis counted."""
        return next((n + 1 for n, a in enumerate(self.axes) if a in ("t", "s")), None)


def specs(text: str) -> list[Spec]:
    """`q[t,h,d]:kind g[t] x` as specs."""
    found = []
    for word in text.split():
        match = re.fullmatch(r"([\w.@']+)(?:\[([\w,]*)\])?(?::(\w+))?", word)
        assert match is not None, word
        found.append(Spec(match[1], tuple(a for a in (match[2] or "").split(",") if a), match[3] or "normal"))
    return found


def draw(spec: Spec, time: int, generator: torch.Generator, *, batch: int | None, sizes: dict[str, int]) -> Tensor:
    """A tensor of a kind; no batch axis where `batch` is None (a parameter)."""
    lengths = {**SIZES, **sizes, "t": time, "s": time}
    shape = (() if batch is None else (batch,)) + tuple(lengths[a] for a in spec.axes)
    normal = torch.randn(shape, generator=generator, dtype=torch.float64)
    match spec.kind:
        case "normal":
            return normal
        case "small":
            return 0.3 * normal
        case "key":
            return normal / shape[-1] ** 0.5
        case "unit":
            return normal / normal.norm(dim=-1, keepdim=True)
        case "positive":
            return normal.abs() + 0.1
        case "complex":
            return torch.complex(normal, torch.randn(shape, generator=generator, dtype=torch.float64))
        case "decay":
            return _pick(HARSH, OFTEN, shape, generator)
        case "mild":
            return -normal.abs()
        case "raw":
            return _pick(FACTORS, torch.ones(7), shape, generator)
        case "gate":
            return _pick(GATES, torch.ones(7), shape, generator)
        case "bool":
            return normal > 0
        case "rare":
            return normal > 1.5
        case "small_int":
            return torch.randint(0, 3, shape, generator=generator)
        case "document":
            return (torch.rand(shape, generator=generator) < 0.1).long().cumsum(1)
    raise ValueError(f"no kind of input is named `{spec.kind}`")


def _pick(values: Tensor, weights: Tensor, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    count = int(torch.tensor(shape).prod()) if shape else 1
    if not count:
        return torch.empty(shape, dtype=torch.float64)
    return values[torch.multinomial(weights, count, replacement=True, generator=generator)].reshape(shape)


def loop(
    time: int, start: Finals, step: Callable[..., tuple[Any, Any]], *, reverse: bool = False
) -> tuple[Outputs, Finals]:
    """Run `step(t, *states) -> states, outputs`; one state and one output may stand without a tuple."""
    names, states = list(start), tuple(start.values())
    rows: dict[int, tuple[Tensor, ...]] = {}
    for t in reversed(range(time)) if reverse else range(time):
        after, outputs = step(t, *states)
        states = after if isinstance(after, tuple) else (after,)
        rows[t] = outputs if isinstance(outputs, tuple) else (outputs,)
    columns = zip(*(rows[t] for t in range(time)), strict=True)
    return tuple(torch.stack(column, 1) for column in columns), dict(zip(names, states, strict=True))


def outer(k: Tensor, v: Tensor) -> Tensor:
    """[.., d], [.., e] -> [.., d, e]."""
    return k[..., :, None] * v[..., None, :]


def read(q: Tensor, S: Tensor) -> Tensor:
    """[.., d], [.., d, e] -> [.., e]."""
    return (q[..., :, None] * S).sum(-2)

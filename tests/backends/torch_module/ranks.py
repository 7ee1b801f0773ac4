"""Ranks without processes: threads that stand for them, and cases of mixers whose stream is cut into pieces."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed

import seqdsl
from seqdsl.forms import derive
from seqdsl.ir.system import System
from seqdsl.plan import in_form
from tests.backends.torch_module.harness import (
    SIZES,
    emit_module,
    gap,
    is_steppable,
    load_class,
    random_inputs,
    stream_dims,
)
from tests.backends.torch_module.rank import leaves, mapped

ALL_SIZES = {**SIZES, "b": 2, "o": 2, "p": 2, "r": 3, "m": 4, "H": 2, "D": 2, "E": 2, "N": 2, "G": 1, "P": 2, "R": 2, "M": 2}


def system_of(what: Any) -> System:
    """The equations of a library name or path, or of one mixer of it."""
    return seqdsl.load(*((what,) if isinstance(what, str | Path) else what)).system()


def case_of(
    folder: Path, name: str, system: System, cuts: dict[str, tuple[int, ...]], change: Callable[[str], str] = str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the ranks are to run, and the one process that holds the whole stream: modules in files, and what goes in."""
    texts = {
        "pieces": change(emit_module(in_form(system, "distributed").system, class_name="Mixer", form="distributed")),
        "whole": emit_module(derive(system, "recurrent").system, class_name="Mixer", form="recurrent"),
    }
    for kind, text in texts.items():
        (folder / f"{name}_{kind}.py").write_text(text)
    cls = load_class(texts["whole"], "Mixer")
    asked = inspect.signature(cls.__init__).parameters
    sizes: dict[str, Any] = {n: v for n, v in ALL_SIZES.items() if n in asked}
    sizes |= {"dtype": torch.float64} if "dtype" in asked else {}
    torch.manual_seed(0)
    module = cls(**sizes)
    steps = is_steppable(system) and not system.monoids  # the state of a prefix fold holds all positions
    shared = {"name": name, "sizes": sizes, "parameters": module.state_dict(), "steps": steps}
    split, one = ({**shared, "file": f"{name}_{kind}", "pieces": {}} for kind in texts)
    for label, lengths in cuts.items():
        split["pieces"][label], one["pieces"][label] = _cut(system, module, lengths, steps, label != "empty")
    return split, one


def _cut(
    system: System, module: Any, lengths: tuple[int, ...], steps: bool, given: bool
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Inputs, state and the weights of a loss, of the whole and in pieces."""
    whole = random_inputs(system, **{**ALL_SIZES, str(system.stream): sum(lengths)})
    state = None
    if steps and given:  # that after other inputs, so that none is all zeros
        state = module(*random_inputs(system, **{**ALL_SIZES, str(system.stream): 4}), return_state=True)[1]
        state = mapped(state, lambda x: x.detach() + 0.1 if x.is_floating_point() else x.detach())
    result = module(*whole, **({"return_state": True} if steps else {}))
    outputs, final = result if steps else (result, None)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    generator = torch.Generator().manual_seed(1)

    def weights(shapes: list[Tensor]) -> list[Tensor]:
        return [torch.randn(y.shape, generator=generator, dtype=torch.float64) for y in shapes]

    all_weights, parts, pieces, begin = weights(list(outputs)), [weights(leaves(final)) for _ in lengths], [], 0
    for rank, length in enumerate(lengths):
        own = pieces_of(whole, stream_dims(system), begin, length)
        mine = pieces_of(all_weights, stream_dims(system, system.outputs), begin, length)
        pieces.append({"inputs": own, "state": state if rank < 2 else None, "weights": [*mine, *parts[rank]]})
        begin += length
    total = [torch.stack(same).sum(0) for same in zip(*parts, strict=True)]
    return pieces, {"inputs": whole, "state": state, "weights": [*all_weights, *total]}


def pieces_of(tensors: list[Tensor], dims: list[int | None], begin: int, length: int) -> list[Tensor]:
    """One rank's piece of each."""
    return [x if d is None else x.narrow(d, begin, length) for x, d in zip(tensors, dims, strict=True)]


def worst(system: System, found: list[dict[str, Any]], one: dict[str, Any]) -> float:
    """How far what the ranks have found, put together, is from what one process finds."""
    gaps = [0.0]
    for k, (y, d) in enumerate(zip(one["outputs"], stream_dims(system, system.outputs), strict=True)):
        gaps.append(gap(torch.cat([f["outputs"][k] for f in found], d or 0), y))
    gaps += [gap(x, y) for f in found for x, y in zip(f["state"], one["state"], strict=True)]
    for k, (x, d) in enumerate(zip(one["inputs"], stream_dims(system), strict=True)):
        parts = [f["inputs"][k] for f in found]
        gaps.append(gap(torch.stack(parts).sum(0) if d is None else torch.cat(parts, d), x))
    gaps += [gap(x, y) for x, y in zip(found[0]["given"], one["given"], strict=True)]
    gaps += [float(x.count_nonzero()) for f in found[1:] for x in f["given"]]  # a state counts on the first rank
    gaps += [gap(torch.stack([f["parameters"][k] for f in found]).sum(0), x) for k, x in enumerate(one["parameters"])]
    return max(gaps)


class Threads:
    """A process group whose ranks are threads of this process, in place of `torch.distributed`."""

    def __init__(self, count: int, patch: pytest.MonkeyPatch) -> None:
        self.count, self.here = count, threading.local()
        self.barrier, self.slots = threading.Barrier(count, timeout=20), [torch.zeros(0)] * count
        for name in ("get_rank", "get_world_size", "all_gather", "all_reduce"):
            patch.setattr(distributed, name, getattr(self, name))
        patch.setattr(distributed, "is_initialized", lambda: True)

    def run(self, work: Callable[[int], Any]) -> list[Any]:
        """What each rank gives. Raises what one of them raises."""
        results, errors = [None] * self.count, list[BaseException]()

        def one(rank: int) -> None:
            self.here.rank = rank
            try:
                results[rank] = work(rank)
            except BaseException as error:
                errors.append(error)
                self.barrier.abort()

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(self.count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise next((e for e in errors if not isinstance(e, threading.BrokenBarrierError)), errors[0])
        return results

    def get_rank(self, group: Any = None) -> int:
        return int(self.here.rank)

    def get_world_size(self, group: Any = None) -> int:
        return self.count

    def all_gather(self, found: list[Tensor], x: Tensor, group: Any = None) -> None:
        for own, other in zip(found, self._of_all(x), strict=True):
            own.copy_(other)

    def all_reduce(self, x: Tensor, group: Any = None) -> None:
        x.copy_(torch.stack(self._of_all(x)).sum(0))

    def _of_all(self, x: Tensor) -> list[Tensor]:
        self.slots[self.here.rank] = x.detach().clone()
        self.barrier.wait()
        found = list(self.slots)
        self.barrier.wait()
        return found

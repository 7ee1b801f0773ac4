"""One rank of a process group: runs generated modules on its pieces, and saves what they give. Started by `test_distributed`.

It imports torch alone, as what it runs does. Arguments: the folder, this rank, the number of ranks.
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed


def module_of(case: dict[str, Any]) -> Any:
    """The module of a file, with its parameters."""
    module = import_module(case["file"]).Mixer(**case["sizes"])
    module.load_state_dict(case["parameters"])
    return module


def leaves(state: Any) -> list[Tensor]:
    """The tensors of a nested state, in order."""
    if isinstance(state, dict):
        return [x for value in state.values() for x in leaves(value)]
    return [state] if isinstance(state, Tensor) else []


def mapped(state: Any, function: Any) -> Any:
    """A nested state with each tensor changed."""
    if isinstance(state, dict):
        return {name: mapped(value, function) for name, value in state.items()}
    return function(state) if isinstance(state, Tensor) else state


def wanted(x: Tensor) -> Tensor:
    """A leaf of its own, of which the gradient is asked for."""
    return x.clone().requires_grad_(x.is_floating_point() or x.is_complex())


def weighed(found: list[Tensor], weights: list[Tensor]) -> Tensor:
    """A number that depends on all entries."""
    total = torch.zeros((), dtype=torch.float64)
    for x, weight in zip(found, weights, strict=True):
        if x.requires_grad:
            total = total + (x.real * weight + (x.imag * weight if x.is_complex() else 0)).sum()
    return total


def run(case: dict[str, Any], piece: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Outputs and state, and the gradients of inputs, state and parameters, of one rank."""
    module = module_of(case)
    inputs = [wanted(x) for x in piece["inputs"]]
    state = mapped(piece["state"], wanted)
    more |= {"return_state": True} if case["steps"] else {}
    result = module(*inputs, **({"state": state} if case["steps"] else {}), **more)
    outputs, final = result if case["steps"] else (result, None)
    outputs = list(outputs) if isinstance(outputs, tuple) else [outputs]
    found = [*outputs, *leaves(final)]
    loss = weighed(found, piece["weights"])
    if loss.requires_grad:
        loss.backward()
    asked = [*inputs, *leaves(state), *module.parameters()]
    grads = [torch.zeros_like(x) if x.grad is None else x.grad for x in asked]
    kept = [x.detach() for x in found]
    return {"outputs": kept[: len(outputs)], "state": kept[len(outputs) :], "inputs": grads[: len(inputs)],
            "given": grads[len(inputs) : len(inputs) + len(leaves(state))],
            "parameters": grads[len(inputs) + len(leaves(state)) :]}  # fmt: skip


def main(folder: Path, rank: int, count: int) -> None:
    torch.set_num_threads(1)
    sys.path.insert(0, str(folder))
    distributed.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=count)
    pair = distributed.new_group([0, 1])
    found: dict[str, dict[str, Any]] = {}
    for case in torch.load(folder / "cases.pt", weights_only=False):
        mine = {label: pieces for label, pieces in case["pieces"].items() if rank < len(pieces)}
        found[case["name"]] = {
            label: run(case, pieces[rank], **({"group": pair} if len(pieces) == 2 else {}))
            for label, pieces in mine.items()
        }
    torch.save(found, folder / f"{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))

"""The form `distributed`: processes that hold a piece of the stream each agree with one that holds all of it.

Three processes run every case once, with pieces of unlike lengths, some of them empty, and two of them once more as a group
of their own. Values, states and every gradient are those of the module of the equations as they are written.
"""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.backends.torch_module.harness import SIZES, emit_module, gap, is_steppable, load_class, random_inputs, stream_dims
from tests.backends.torch_module.rank import leaves, mapped, run

import seqdsl
from seqdsl.forms import derive
from seqdsl.ir.system import System
from seqdsl.plan import in_form

UNNAMED = Path(__file__).resolve().parents[2] / "unnamed"
PIECES = {"three": (3, 1, 5), "empty": (0, 6, 0), "last": (2, 4, 0), "pair": (4, 3)}
MIXERS: dict[str, tuple[Any, ...]] = {"gla": ("gla",)}
MORE = {"o": 2, "p": 3, "r": 3, "H": 2, "D": 2, "E": 2, "N": 2, "G": 1, "P": 2, "p": 2, "b": 2, "m": 4, "R": 2, "M": 2}


def whole_inputs(program: Any, length: int) -> list[torch.Tensor]:
    return random_inputs(program.system(), **MORE, **{str(program.system().stream): length})


def given_state(module: Any, inputs: list[torch.Tensor], seed: int) -> Any:
    """A state to begin with: that after other inputs, so that none is all zeros."""
    state = module(*inputs, return_state=True)[1]
    return mapped(state, lambda x: x.detach() + (0.1 if x.is_floating_point() else 0))


def case_of(folder: Path, name: str, program: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the ranks are to run, and the one process that holds the whole stream."""
    system = program.system()
    pieced = in_form(system, "distributed").system
    steps, dims = is_steppable(system), stream_dims(system)
    texts = [emit_module(s, class_name="Mixer", form=f) for s, f in ((pieced, "distributed"), (derive(system, "recurrent").system, "recurrent"))]
    asked = inspect.signature(load_class(texts[0], "Mixer").__init__).parameters
    sizes: dict[str, Any] = {n: v for n, v in {**SIZES, **MORE}.items() if n in asked}
    sizes |= {"dtype": torch.float64} if "dtype" in asked else {}
    torch.manual_seed(0)
    parameters = load_class(texts[1], "Mixer")(**sizes).state_dict()
    shared = {"sizes": sizes, "parameters": parameters, "steps": steps, "name": name}
    split, one = ({**shared, "file": f"{name}_{kind}", "pieces": {}} for kind in ("pieces", "whole"))
    for case, text in ((split, texts[0]), (one, texts[1])):
        (folder / f"{case['file']}.py").write_text(text)
    module = load_class(texts[1], "Mixer")(**sizes)
    module.load_state_dict(parameters)
    for label, lengths in PIECES.items():
        inputs = whole_inputs(program, sum(lengths))
        state = given_state(module, whole_inputs(program, 4), 1) if steps and label != "empty" else None
        begin, pieces, parts = 0, [], []
        result = module(*inputs, **({"return_state": True} if steps else {}))
        outputs = result[0] if steps else result
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        final = leaves(result[1]) if steps else []
        generator = torch.Generator().manual_seed(1)
        weights = [torch.randn(y.shape, generator=generator, dtype=torch.float64) for y in outputs]
        out_dims = stream_dims(system, system.outputs)
        for rank, length in enumerate(lengths):
            own = [x if d is None else x.narrow(d, begin, length) for x, d in zip(inputs, dims, strict=True)]
            mine = [w.narrow(d, begin, length) for w, d in zip(weights, out_dims, strict=True)]
            parts.append([torch.randn(y.shape, generator=generator, dtype=torch.float64) for y in final])
            pieces.append({"inputs": own, "state": state if rank < 2 else None, "weights": [*mine, *parts[-1]]})
            begin += length
        split["pieces"][label] = pieces
        total = [sum(p[k] for p in parts) for k in range(len(final))]
        one["pieces"][label] = {"inputs": inputs, "state": state, "weights": [*weights, *total]}
    return split, one


def started(folder: Path, count: int) -> list[Any]:
    """The ranks, running."""
    script = Path(__file__).with_name("rank.py")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    return [subprocess.Popen([sys.executable, str(script), str(folder), str(rank), str(count)], env=environment)
            for rank in range(count)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the ranks have left what they found, and the whole beside it."""
    place = tmp_path_factory.mktemp("ranks")
    cases = [case_of(place, name, seqdsl.load(*what)) for name, what in MIXERS.items()]
    torch.save([split for split, _ in cases], place / "cases.pt")
    ranks = started(place, 3)
    try:
        sys.path.insert(0, str(place))
        for _, one in cases:
            torch.save({label: run(one, given) for label, given in one["pieces"].items()}, place / f"{one['name']}.pt")
        assert [r.wait(timeout=120) for r in ranks] == [0, 0, 0]
    finally:
        sys.path.remove(str(place))
        for rank in ranks:
            rank.kill()
    return place


@pytest.mark.parametrize("label", PIECES)
@pytest.mark.parametrize("name", MIXERS)
def test_ranks_agree_with_one_process(folder: Path, name: str, label: str) -> None:
    wanted = torch.load(folder / f"{name}.pt")[label]
    found = [torch.load(folder / f"{name}-{rank}.pt")[label] for rank in range(len(PIECES[label]))]
    compare(seqdsl.load(*MIXERS[name]).system(), found, wanted)


def compare(system: System, found: list[dict[str, Any]], wanted: dict[str, Any]) -> None:
    """What the ranks have found, put together, is what one process finds."""
    for k, (y, d) in enumerate(zip(wanted["outputs"], stream_dims(system, system.outputs), strict=True)):
        assert gap(torch.cat([f["outputs"][k] for f in found], d), y) < 1e-10
    for f in found:
        assert all(gap(x, y) < 1e-10 for x, y in zip(f["state"], wanted["state"], strict=True))
    for k, (x, d) in enumerate(zip(wanted["inputs"], stream_dims(system), strict=True)):
        parts = [f["inputs"][k] for f in found]
        assert gap(sum(parts) if d is None else torch.cat(parts, d), x) < 1e-10
    for k, x in enumerate(wanted["given"]):
        assert gap(found[0]["given"][k], x) < 1e-10
        assert not found[1]["given"][k].any()  # it counts on the first rank
    for k, x in enumerate(wanted["parameters"]):
        assert gap(sum(f["parameters"][k] for f in found), x) < 1e-10

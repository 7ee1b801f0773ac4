"""Packed sequences that go through one call of kernels: values, states and gradients, of each as if it stood alone.

Run as a program, under Triton's interpreter, it prints a JSON object per case: relative errors of outputs and last states
against the float64 interpreter of the equations, sequence by sequence, then of the gradients of inputs, parameters and
states against the torch module in float64. Among the sequences are some of no position and of one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

import seqdsl
from backends.torch_module.runtime_packed import _select_state, _stack_states
from seqdsl.api import load_backend
from tests.backends.triton_kernel import reads, recurrences
from tests.backends.triton_kernel.packed_mixers import (
    ACROSS,
    ATTENDING,
    BASE,
    BOTH,
    DEEP_ATTENDING,
    DEEP_SHIFTS,
    LAYER,
    SHARED,
    SHIFTS,
    THROUGH,
)
from tests.backends.triton_kernel.processes import in_pieces, interpret_in, unless_stopped
from tests.backends.triton_kernel.recurrences import UNNAMED
from tests.backends.triton_kernel.sequence_cases import WHOLE
from tests.support.loops import relative

ENDS = (0, 0, 5, 5, 6, 15, 25, 25)


@dataclass(frozen=True)
class Packed:
    """A mixer, by its name, its file or its source, the lengths of its other axes, and where sequences end. `states`: may
    they come and go in one call, and do they here, or are they only `possible`?"""

    source: str
    sizes: dict[str, int] = field(default_factory=dict)
    form: str = "auto"
    mixer: str | None = None
    ends: tuple[int, ...] = ENDS
    states: bool = True
    possible: bool = False
    drawn: str = "normal"
    scale: float = 1.0
    pasts: tuple[int, ...] = (3,)  # positions before each sequence, over and over
    piece: int = 8  # so many steps at least are taken by one program, and so many pieces are solved side by side
    pieces: int = 8

    def program(self) -> Any:
        file = UNNAMED / f"{self.source}.seq"
        return seqdsl.load(str(file) if "\n" not in self.source and file.exists() else self.source, self.mixer)


def _whole(name: str, **changed: Any) -> Packed:
    case = WHOLE[name]
    return Packed(case.source, case.sizes, mixer=case.mixer, **changed)


def _attends(name: str, **changed: Any) -> Packed:
    """A normalised read, of sequences that end inside tiles and of one that is longer."""
    case = reads.READS[name]
    sizes = {n: min(size, 2) if n in "hgr" else size for n, size in case.sizes.items() if n != "t"}
    return Packed(case.source, sizes, case.form, **{"ends": (0, 0, 5, 5, 6, 70, 120, 120), "pasts": (3, 0, 40), **changed})


CASES: dict[str, Packed] = {
    "max, plus": Packed("decaying_max", {"c": 5}),
    "max, plus, in pieces of many steps": Packed("decaying_max", {"c": 70}, piece=128),
    "log-sum-exp": Packed("soft_path", {"c": 3}),
    "or, and": Packed("latch", {"c": 3}),
    "max, plus, backwards, one decay": Packed(recurrences.MAX_BACKWARDS, {"h": 2, "c": 3}, states=False),
    "a fold of two fields": Packed("max_plus", {"c": 3}, states=False),
    "quaternions": Packed("quaternion", {"i": 4}, states=False, drawn="units"),
    "fields with indices of their own": Packed(recurrences.VECTORS, {"h": 2, "e": 5}, states=False),
    "two states that multiply": Packed("two_species", {"c": 2}),
    "a nonlinear step backwards": Packed(recurrences.CELL, {"h": 1, "c": 2}, "newton", states=False, pieces=2),
    "a nonlinear step that forgets": Packed(recurrences.KEPT, {"c": 2}, "newton", pieces=2),
    "a nonlinear step at every depth": Packed("deep_cells", {"l": 2, "c": 5}, "newton"),
    "an average": Packed("ema", {"c": 3}),
    "a base case": Packed(BASE, {"c": 3}, states=False, possible=True),
    "a state in the place of a base case": Packed(BASE, {"c": 3}),
    "across time": Packed(ACROSS, {"d": 3}, states=False, possible=True),
    "an average at every depth": Packed("depth_of_decays", {"l": 2, "d": 3}, "scan", scale=0.3),
    "both ways": Packed(BOTH, {"c": 3}, states=False),
    "earlier positions": Packed(SHIFTS, {"c": 3}),
    "earlier positions at every depth": Packed(DEEP_SHIFTS, {"l": 2, "c": 3}),
    "a window with a gate": _whole("a window with a gate"),
    "a window alone": _whole("a window alone"),
    "two windows of what is computed": _whole("two windows of what is computed"),
    "a window and two recurrences": Packed(LAYER, {"c": 5}),
    "a decay for each key": Packed("gla", {"h": 1, "d": 5, "e": 3}, scale=0.3, ends=(0, 0, 5, 70, 70, 150, 150)),
    "a matrix state with a maximum": Packed("mlstm", {"h": 1, "d": 3, "e": 2}, scale=0.3),
    "feedback with a decay for each head": Packed("gated_delta_rule", {"h": 2, "d": 3, "e": 2}, scale=0.3),
    "feedback of two ranks": Packed("rwkv7", {"h": 1, "d": 3, "e": 3}, mixer="rwkv7", scale=0.3),
    "two states that erase each other": Packed("coupled_erase", {"h": 1, "d": 3, "e": 2}, scale=0.3),
    "reads before and after": Packed("now_and_before", {"h": 2, "d": 3, "e": 2}, scale=0.3),
    "a state of four axes": Packed("four_axes", {"h": 2, "d": 3, "e": 2, "n": 2}, scale=0.3),
    "a decay for each column": Packed("column_decay", {"h": 1, "d": 3, "e": 2}, scale=0.3),
    "a state for each channel": Packed("mamba", {"d": 3, "n": 2}, mixer="selective_scan", scale=0.3),
    "decays that all positions share": Packed(
        SHARED, {"h": 1, "d": 3, "e": 2}, "chunkwise", scale=0.3, ends=(0, 0, 3, 3, 4, 11, 11)),
    "reads of small states before them": Packed(
        THROUGH, {"h": 1, "d": 3, "e": 2, "j": 1}, "chunkwise", scale=0.3, ends=(0, 0, 3, 3, 4, 9)),
    "an erasing state at every depth": Packed("deep_erase", {"l": 2, "d": 3, "e": 3}, "chunkwise", scale=0.3),
    "a state space": _whole("a state space"),
    "attention": _attends("causal"),
    "attention to a window": _attends("window", ends=(0, 0, 5, 70, 150)),
    "attention by distance": _attends("slopes by head"),
    "attention to a window and the first": _attends("window and first"),
    "attention to documents": _attends("documents and padding"),
    "attention by groups": _attends("groups"),
    "attention without products": _attends("no product", states=False, possible=True, scale=0.5),
    "attention with a factor of the weights": _attends("a factor of the weights"),
    "attention at every depth": Packed(DEEP_ATTENDING, {"l": 2, "c": 3}, pasts=(2, 0, 5), ends=(0, 3, 3, 20)),
    "attention after a recurrence, and before one": Packed(ATTENDING, {"h": 1, "d": 3, "e": 2}, pasts=(1, 0, 2, 70)),
}  # fmt: skip
SHORT = ("max, plus", "a fold of two fields", "two states that multiply", "a base case", "earlier positions",
         "a window with a gate", "a decay for each key", "feedback with a decay for each head",
         "a state for each channel", "decays that all positions share", "attention to a window")  # fmt: skip
# Much like another case: only under --deep.
DEEP = frozenset({
    "max, plus, in pieces of many steps", "max, plus, backwards, one decay", "fields with indices of their own",
    "a nonlinear step at every depth", "a state in the place of a base case", "two windows of what is computed",
    "a matrix state with a maximum", "two states that erase each other", "a state of four axes", "a decay for each column",
    "a state space", "both ways", "attention by distance", "attention by groups",
    *(f"{name}, {what}" for name in ("a fold of two fields", "a base case", "earlier positions", "a state for each channel")
      for what in ("one position", "no position", "twice", "float16")),
    *(f"decays that all positions share{what}" for what in ("", ", one position", ", float16", ", twice")),
    "an erasing state at every depth", "feedback with a decay for each head, float16", "quaternions", "a window alone",
    "attention with a factor of the weights", "attention to documents", "a nonlinear step backwards",
    *(f"{name}, twice" for name in ("max, plus", "two states that multiply", "feedback with a decay for each head",
                                    "a decay for each key")),
})  # fmt: skip
WIDE = ("attention to a window",)  # that have no kernels in float64

# What is done wrong: in which case, and what stands in the text in the place of what.
MUTANTS: dict[str, tuple[str, str, str]] = {
    "pieces of two sequences": ("max, plus", "tl.minimum(first + LENGTH, last)", "tl.minimum(first + LENGTH, T)"),
    "pieces are counted from the first sequence": ("max, plus", "tl.where(there, head, piece)", "0"),
    "a sequence begins one step late": ("max, plus", "tl.where(there, first, 0)", "tl.where(there, first + 1, 0)"),
    "the start of another sequence": ("max, plus", "entry = T + sequence", "entry = T + 0 * sequence"),
    "the state before a sequence is the last of another": (
        "log-sum-exp", "tl.where(first + i == stop - 1, entry, place - 1)", "place - 1"),
    "the gradient of another's last state": (
        "two states that multiply", "last = T - 1 - (tl.load(table + leading * 5) if PACKED else 0)", "last = T - 1"),
    "starts in the wrong order backwards": (
        "max, plus", "tl.sum(tl.where(own, number, 0), 0)", "tl.sum(tl.where(own, place, 0), 0)"),
    "a last state sends nothing back": ("max, plus", "last = x[0].index_select", "last = x[0].detach().index_select"),
    "the last state of the sequence before": ("max, plus", "(ends[1:].long() - 1).clamp", "(ends[:-1].long() - 1).clamp"),
    "nothing is no sequence": ("max, plus", "return torch.where(there, last, past.select(dim, -1))", "return last"),
    "a fold's first element gets nothing": ("a fold of two fields", "if walk.spans is not None and plan.own:", "if False:"),
    "a fold lacks a step": ("a fold of two fields", "_recurrence_spans(ends, 1)", "_recurrence_spans(ends, 2)"),
    "all heads are the first start": (
        "a nonlinear step that forgets", "s.index_select(0, table[:, 4])", "s.index_select(0, table[:, 4] * 0)"),
    "a base case counts once": ("a base case", "starts=cu_seqlens", "starts=None"),
    "a window of two sequences": ("a window alone", "* x_window_before if PACKED", "* 0 if PACKED"),
    "a window one off": ("a window with a gate", "own = torch.searchsorted(first, place, right=True) - 1",
                         "own = torch.searchsorted(first, place + 1, right=True) - 1"),
    "what was sent stands one early": ("a window with a gate", "(number + 1) * before\n", "(number + 1) * before - 1\n"),
    "the history that a state keeps is that before": ("a window with a gate", "(ends[1:].long() + number * before - count)",
                                                      "(ends[:-1].long() + number * before - count)"),
    "a read before a step that is another sequence's": (
        "reads of small states before them", "* (states.dim() - 2)), own, shifted)", "* (states.dim() - 2)), shifted, shifted)"),
    "keys of other sequences": (
        "attention", "lows, highs = _row_bounds(spans, first_row, T, BT)", "lows, highs = zeros * 0, zeros + S"),
    "queries of other sequences": (
        "attention to a window and the first", "lows, highs = _column_bounds(spans, first_column, S, BS)",
        "lows, highs = zeros * 0, zeros + T"),
    "no pair is masked in a block of two sequences": (
        "attention", "tl.where(sequence == last_sequence, whole_end, begin)", "whole_end"),
    "positions from the first sequence on": ("attention by distance", "place - tl.load(at, mask=there, other=0),", "place,"),
    "PyTorch goes through all as one sequence": (
        "attention to a window", "_softmax_alone(scores, cast, values.to(computed), lead, spans[0])",
        "online_softmax(scores, cast, values.to(computed), lead, rows)"),
    "what came before a sequence stands before another": (
        "attention", "joined.index_select(dim, spans[3])", "joined"),
    "a sequence begins where its rows do": (
        "attention to a window", "torch.stack([end - stop + first, first", "torch.stack([begin, first"),
    "positions beyond the boundary": ("earlier positions", "+ number * before + start", "+ number * 0 + start"),
}  # fmt: skip


def built(case: Packed, change: tuple[str, str] | None = None) -> tuple[Any, ModuleType]:
    """A module, and the Python module that its text became: one call takes all sequences, as on a GPU."""
    program, backend = case.program(), load_backend("triton")
    source = program.source(case.form, "triton")
    test = "not _packed_with_states" if case.states or case.possible else "not _packed_together"
    assert test in source or "has no state" in source, source
    if change is not None:
        assert change[0] in source, source
        source = source.replace(*change).replace('OPS = "seqdsl_', 'OPS = "broken_')
    torch.manual_seed(0)
    module = backend.build_module(source, program.class_name, **_lengths(case))
    text = sys.modules[type(module).__module__]
    vars(text).update(_packed_with_states=lambda *given: True, _run_packed=None)
    return module, in_pieces(text, case.pieces, case.piece)


def _lengths(case: Packed) -> dict[str, int]:
    """What a module with parameters is built with."""
    return case.sizes if case.program().system().params() else {}


def inputs(case: Packed, time: int, seed: int = 1) -> list[Tensor]:
    """Numbers of one batch, of so many positions."""
    torch.manual_seed(seed)
    system, found = case.program().system(), []
    for x in system.inputs():
        shape = [1, *(time if system.axis(i) == system.stream else case.sizes[system.axis(i)] for i in x.indices)]
        drawn = torch.randn(shape) * case.scale
        drawn = torch.nn.functional.normalize(drawn, dim=-1) if case.drawn == "units" else drawn
        found.append({"bool": drawn > 0.5, "int": (drawn.abs() * 3).long()}.get(x.dtype, drawn))
    return found


def parts(case: Packed, given: list[Tensor], a: int, b: int) -> list[Tensor]:
    """Some positions of inputs."""
    system = case.program().system()
    along = [[k + 1 for k, i in enumerate(x.indices) if system.axis(i) == system.stream] for x in system.inputs()]
    found = list(given)
    for number, dims in enumerate(along):
        for dim in dims:
            found[number] = found[number].narrow(dim, a, b - a)
    return found


def tensors(state: Any) -> list[Tensor]:
    """Those of a record, in the order of their names."""
    if isinstance(state, dict):
        return [x for _, value in sorted(state.items()) for x in tensors(value)]
    if isinstance(state, list):
        return [x for value in state for x in tensors(value)]
    return [state] if isinstance(state, Tensor) else []


def mapped(state: Any, change: Callable[[Tensor], Any]) -> Any:
    """A record with other tensors."""
    if isinstance(state, dict):
        return {n: mapped(x, change) for n, x in state.items()}
    if isinstance(state, list):
        return [mapped(x, change) for x in state]
    return change(state) if isinstance(state, Tensor) else state


def run(module: Any, given: list[Tensor], state: Any, ends: Any) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs with last states if there are states, and gradients of inputs, parameters and states."""
    given = [x.detach().requires_grad_(x.is_floating_point()) for x in given]
    if state is None:
        found = module(*given, cu_seqlens=ends)
        outputs = list(found) if isinstance(found, tuple) else [found]
    else:
        state = mapped(state, lambda x: x.detach().requires_grad_(x.is_floating_point()))
        found, after = module(*given, state=state, return_state=True, cu_seqlens=ends)
        outputs = [*(found if isinstance(found, tuple) else (found,)), *tensors(after)]
    draw = torch.Generator().manual_seed(7)
    sent = [torch.randn(y.shape, dtype=torch.float64, generator=draw).to(y) for y in outputs]
    total = sum(((y * g).sum() for y, g in zip(outputs, sent, strict=True) if y.requires_grad), torch.zeros(()))
    wanted = [x for x in (*given, *module.parameters(), *tensors(state)) if x.requires_grad]
    slopes = torch.autograd.grad(total, wanted, materialize_grads=True, allow_unused=True) if total.requires_grad else ()
    return [y.detach() for y in outputs], list(slopes)


def literal(case: Packed, module: Any, given: list[Tensor], state: Any) -> list[np.ndarray[Any, Any]]:
    """The same outputs by the interpreter of the equations, sequence by sequence."""
    program, found = case.program(), []
    params = {n: x.detach().double().numpy() for n, x in module.state_dict().items()}
    wide = [x.double() if x.is_floating_point() else x for x in given]
    for n, (a, b) in enumerate(pairwise(case.ends)):
        named = {x.name: y[0].numpy() for x, y in zip(program.system().inputs(), parts(case, wide, a, b), strict=True)}
        own = mapped(_select_state(state, n), lambda x: (x.double() if x.is_floating_point() else x)[0].numpy())
        found.append(program.interpret(named, params, _lengths(case), own))
    outputs = [np.concatenate(x)[None] for x in zip(*(one["outputs"].values() for one in found), strict=True)]
    after = [] if state is None else tensors(_stack_states([_batch(one["state"]) for one in found]))
    return [*outputs, *(x.numpy() for x in after)]


def _batch(state: Any) -> Any:
    """A record of the interpreter as that of a batch of one."""
    if isinstance(state, dict):
        return {n: _batch(x) for n, x in state.items()}
    return state if isinstance(state, int) else torch.as_tensor(np.asarray(state))[None]


def states(case: Packed, exact: Any) -> Any:
    """One for each sequence, all different; None where they do not come and go in one call."""
    if not case.states:
        return None
    draw = torch.Generator().manual_seed(3)

    def drawn(x: Tensor) -> Tensor:
        more = torch.randn(x.shape, generator=draw)
        return more > 0 if x.dtype == torch.bool else (x.detach() + more).float()

    found = []
    for n in range(len(case.ends) - 1):
        given = [x.double() if x.is_floating_point() else x for x in inputs(case, (case.pasts * (n + 1))[n], 1 + n)]
        one = exact(*given, return_state=True)[1]
        cached = "position" in one  # of which entries may be of the same numbers
        found.append(mapped(one, lambda x: x.detach().float() if x.is_floating_point() else x) if cached else mapped(one, drawn))
    return _stack_states(found)


def errors(
    case: Packed, change: tuple[str, str] | None = None, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> list[float]:
    """Relative errors: of outputs and last states, then of gradients."""
    module, _ = built(case, change)
    torch.manual_seed(0)
    exact = case.program().module(case.form, "torch", **_lengths(case)).double()
    exact.load_state_dict(module.state_dict())
    given = [x.to(dtype) if x.is_floating_point() else x for x in inputs(case, case.ends[-1])]
    state = states(case, exact)
    here = [x.to(device) for x in given], None if state is None else mapped(state, lambda x: x.to(device))
    found = run(module.to(device), *here, torch.tensor(case.ends, device=device))
    values, slopes = ([x.cpu() for x in some] for some in found)
    module = module.cpu()
    wide = [x.double() if x.is_floating_point() else x for x in given]
    real = None if state is None else mapped(state, lambda x: x.double() if x.is_floating_point() else x)
    wanted = literal(case, module, given, state)
    _, exactly = run(exact, wide, real, list(case.ends))
    return [*(relative(_finite(a), _finite(torch.as_tensor(b))) for a, b in zip(values, wanted, strict=True)),
            *(relative(_finite(a), _finite(b)) for a, b in zip(slopes, exactly, strict=True))]  # fmt: skip


def _finite(x: Tensor) -> Tensor:
    """With a number for -inf, which differs from itself by no number."""
    return x.double().nan_to_num(nan=torch.nan, neginf=-10.0)


def twice(case: Packed) -> list[float]:
    """The largest difference of two runs."""
    module, given, ends = built(case)[0], inputs(case, case.ends[-1]), torch.tensor(case.ends)
    found = [[y for some in run(module, given, None, ends) for y in some] for _ in range(2)]
    return [float((a.double() - b.double()).abs().max()) for a, b in zip(*found, strict=True)]


def interpreted(deep: bool) -> dict[str, list[float]]:
    """`case` -> errors, from a process in which Triton interprets."""
    return interpret_in("packing", *(name for name, _ in _found() if deep or name not in DEEP))


def _found() -> Iterator[tuple[str, Callable[[], list[float]]]]:
    for name, case in CASES.items():
        yield name, partial(errors, case)
    for name in SHORT:
        yield f"{name}, one position", partial(errors, replace(CASES[name], ends=(0, 0, 1, 1)))
        yield f"{name}, no position", partial(errors, replace(CASES[name], ends=(0, 0, 0)))
        yield f"{name}, twice", partial(twice, CASES[name])
        yield f"{name}, float16", partial(errors, CASES[name], dtype=torch.float16)
    yield "reads before and after, no position", partial(errors, replace(CASES["reads before and after"], ends=(0, 0, 0)))
    for name in WIDE:
        yield f"{name}, float64", partial(errors, CASES[name], dtype=torch.float64)
    for name, (wrong, *change) in MUTANTS.items():
        dtype = torch.float64 if name.startswith("PyTorch") else torch.float32
        yield name, partial(unless_stopped, partial(errors, CASES[wrong], (change[0], change[1]), dtype=dtype))


if __name__ == "__main__":
    torch.use_deterministic_algorithms(True)  # which fills fresh memory with NaN
    for name, found in _found():
        if not sys.argv[1:] or name in sys.argv[1:]:
            print(json.dumps([name, found()]), flush=True)

"""A module of the torch target with calls of kernels, and the loading of such modules.

Architecture invariant: a table; which function is called where, and with what, is for the torch target's emitter.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from typing import Any

import torch

from seqdsl.forms.one_position import one_position
from seqdsl.ir import build
from seqdsl.ir.state import POSITION, needed
from seqdsl.ir.system import System

from .. import torch_module
from ..torch_module.load import build_from, load_text
from ..torch_module.packed import Packing, packing, stepped
from ..torch_module.prologue import stepping
from ..torch_module.target import StandIn, Target
from .count import Count, counted
from .emit.chains import Chains
from .emit.depth import over_depth
from .emit.groups import grouped
from .emit.parts import Group, Grouped
from .emit.recurrences import Recurrences
from .emit.scans import Scanned, over_scans
from .emit.sequence_calls import Sequences
from .emit.sequences import over_sequences
from .emit.write import Online
from .kernels import kernels_text
from .support.solving import SLABS_KEYS, SOLVE_KEYS

STAND_INS = {
    "affine_scan": StandIn("fused_scan", packed=True),
    "chunk_linear_attention": StandIn("fused_linear_attention", narrow=True, packed=True),
    "chunk_solve_read": StandIn("fused_solve_read", narrow=True, packed=True),
    "rows": StandIn("fused_rows"),
    "segmented_read": StandIn("fused_read", narrow=True, packed=True),
    "chunk_solve": StandIn("fused_solve", narrow=True, packed=True),
}
_MANY = (f"the state in slabs of keys where there are more than {SOLVE_KEYS}, from chunk to chunk by PyTorch's products"
         f" above {SLABS_KEYS[torch.bfloat16]} ({SLABS_KEYS[torch.float32]} in float32)")  # fmt: skip
NOTES = {"fused_solve": _MANY, "fused_solve_read": _MANY}
_IMPORT = re.compile(r"^try:\n    from \.(\w+) import (.+)\nexcept ImportError:\n    from \1 import \2$", re.MULTILINE)


def emit_module(
    system: System, *, class_name: str, header: str = "", form: str = "", stepper: System | None = None
) -> str:
    """The text of a Python file with one class, which imports its kernels from the file that `companions` gives.

    `stepper` are the equations one position at a time, for which `step` has kernels written."""
    found, over = _stepped(stepper), _over(system)
    return _emitted(system, found, over, class_name=class_name, header=header, form=form)[0]


def _emitted(system: System, step: Grouped | None, over: Grouped, **named: str) -> tuple[str, Target]:
    """The text, and what it was made with. What has no kernel is known when all is written: packed sequences go through
    one call of recurrences and normalised reads only if all of them have."""
    stepper = None if step is None else step.system
    target = _target(system, step, over)
    text = torch_module.emit_module(over.system, target=target, stepper=stepper, **named)
    kept = frozenset({*target.steps.kept, *target.online.kept})
    if kept and not packing(over.system, stepping(over.system), target).refusal:
        target = _target(system, step, over, kept)
        text = torch_module.emit_module(over.system, target=target, stepper=stepper, **named)
    return text, target


def _over(system: System) -> Grouped:
    """The equations over whole sequences, with the groups and the recurrences that have kernels."""
    return over_scans(over_depth(over_sequences(needed(system))))


def _stepped(system: System | None) -> Grouped | None:
    """One position of a recurrent system, with the groups that have kernels; None where it has none."""
    one = None if system is None else one_position(system)
    found = None if one is None else grouped(one)
    return found if found is not None and found.groups else None


def _target(system: System, step: Grouped | None, over: Grouped, refused: frozenset[str] = frozenset()) -> Target:
    written: dict[str, str] = {}
    name = system.name.lower() + ("_layer" if system.params() else "") + "_kernels"
    target = Target(name, STAND_INS, Online(written, refused), Recurrences(written, refused), written)
    if over.groups:
        target = replace(target, chains=Sequences(over, written, one_position=False))
    return target if step is None else replace(target, step=replace(target, chains=Chains(step, written)))


def explained(system: System, form: str) -> list[str]:
    """What of a module runs in kernels of its own; of a normalised read that does not, why."""
    over = _over(system)
    text, target = _emitted(system, None, over, class_name="Module", form=form)
    found = _IMPORT.search(text)
    names = found[2].split(", ") if found else []
    apart = sum(isinstance(g, Scanned) for g in over.groups)  # what stands beside them is for the CPU and float64
    lines = [f"kernels of `{name}`" + (f", {NOTES[name]}" if name in NOTES else "") for name in names
             if text.count(f"{name}(") > (apart if name == "fused_scan" else 0)]  # fmt: skip
    lines += [f"kernels written for the scores of `{tensor}`" for tensor in target.online.read]
    lines += [
        f"`{tensor}` is read in PyTorch where the table `{name}` needs a gradient" for tensor, name in target.online.tables.items()
    ]
    lines += [f"kernels written for the step of `{tensor}`" for tensor in target.steps.walked]
    lines += [f"`{tensor}` is read block by block in PyTorch: {why}" for tensor, why in target.online.kept.items()]
    lines += [f"`{tensor}` is stepped in PyTorch: {why}" for tensor, why in target.steps.kept.items()]
    lines += [f"`{tensor}` is stepped one position after another in PyTorch"
              for tensor in stepped(over.system, stepping(over.system), target)]  # fmt: skip
    lines += [_group_explained(group) for group in over.groups]
    lines += [f"`{tensor}` is computed in PyTorch: {why}" for tensor, why in over.kept.items()]
    lines += _packed_explained(packing(over.system, stepping(over.system), target)) if system.stream is not None else []
    return lines + (_step_explained(system) if form == "recurrent" else [])


def _packed_explained(how: Packing) -> list[str]:
    """How packed sequences are computed, and why not in one call."""
    if how.refusal:
        return [f"packed sequences go one after another: {how.refusal}"]
    apart = f", and one after another where a state comes or goes: {how.stateless}" if how.stateless else ""
    return [f"packed sequences go through one call{apart or ', with their states'}"]


def _group_explained(group: Group) -> str:
    """What a kernel computes over whole sequences, and what that saves."""
    if isinstance(group, Scanned):
        return _scan_explained(group)
    names = ", ".join(f"`{n}`" for n in group.tensors)
    held = f", with all of {', '.join(f'`{i}`' for i in group.whole)} in a tile" if group.whole else ""
    parts = f" after {', '.join(f'`{p}`' for p in group.parts)} in PyTorch" if group.parts else ""
    moved = "which moves {} tensors of that size, and PyTorch {}".format(*group.moved)
    return f"one kernel for {names}{held}{parts}, and one for the gradients: {moved}"


def _scan_explained(group: Scanned) -> str:
    """What the kernels of a recurrence compute, and which of it is in memory then."""
    read = f", with {', '.join(f'`{n}`' for n in group.tensors[1:])}" if len(group.tensors) > 1 else ""
    kept = "" if group.state in group.stored else f", and keep of `{group.state}` what enters each chunk of positions"
    return f"kernels written for the scan of `{group.state}` and its coefficients{read}: they read each operand once{kept}"


def _step_explained(system: System) -> list[str]:
    """What of a step runs in kernels, and what not."""
    one = one_position(system)
    if one is None:
        return []
    found = grouped(one)
    lines = []
    for group in found.groups:
        names = ", ".join(f"`{n}`" for n in group.tensors)
        held = f", with all of {', '.join(f'`{i}`' for i in group.whole)} in a tile" if group.whole else ""
        parts = f" after {len(group.parts)} of its parts in PyTorch" if group.parts else ""
        lines.append(f"a step computes {names} in one kernel{held}{parts}, unless a gradient is asked for")
    lines += [f"a step computes `{tensor}` in PyTorch: {why}" for tensor, why in found.kept.items()]
    entries = [e for e in one.record or () if e.name != POSITION]
    far = dict.fromkeys(e.tensor for e in entries if e.boundary is not None or e.tail is not build.ONE)
    return lines + [f"a step reads `{tensor}` from farther back than one position, in PyTorch" for tensor in far]


def count(system: System, form: str, shapes: list[tuple[int, ...]], *, planes: tuple[int, ...] = (), **sizes: int) -> Count:
    """What every launch of a module moves in bfloat16, forward and backward; see `count.counted`."""
    text = emit_module(system, class_name="Module", form=form)
    types = {"real": torch.bfloat16, "int": torch.int64, "bool": torch.bool, "complex": torch.complex64}
    inputs = [(shape, types[x.dtype]) for shape, x in zip(shapes, system.inputs(), strict=True)]
    return counted(text, "Module", companions(text), inputs, sizes, planes=planes)


def companions(text: str) -> dict[str, str]:
    """The files that a module's text imports, by name without suffix: its kernels, if it has any."""
    found = _IMPORT.search(text)
    return {found[1]: kernels_text(found[1], frozenset(found[2].split(", ")))} if found else {}


def _loadable(source: str) -> str:
    """The text with its kernels loaded under a name of their own."""
    for name, text in companions(source).items():
        load_text(text)
        stem = "seqdsl_generated_" + hashlib.sha256(text.encode()).hexdigest()[:16]
        source = _IMPORT.sub(rf"from {stem} import \2  # {name}", source)
    return source


def load_class(source: str, class_name: str) -> Any:
    """The class of a generated file; the same text gives the same class."""
    return torch_module.load_class(_loadable(source), class_name)


def build_module(source: str, class_name: str, /, **sizes: Any) -> Any:
    """An instance of the generated class, as the torch target's `build_module`."""
    return build_from(load_class(source, class_name), class_name, **sizes)

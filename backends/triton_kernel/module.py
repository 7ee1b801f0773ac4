"""A module of the torch target with calls of kernels, and the loading of such modules.

Architecture invariant: a table; which function is called where, and with what, is for the torch target's emitter.
"""

from __future__ import annotations

import hashlib
import re
from typing import Any

from seqdsl.ir.system import System

from .. import torch_module
from ..torch_module.load import build_from, load_text
from ..torch_module.target import StandIn, Target
from .emit.recurrences import Recurrences
from .emit.write import Online
from .kernels import kernels_text

STAND_INS = {
    "affine_scan": StandIn("fused_scan", packed=True),
    "chunk_linear_attention": StandIn("fused_linear_attention", narrow=True, packed=True),
    "chunk_solve_read": StandIn("fused_solve_read", narrow=True, packed=True),
    "rows": StandIn("fused_rows"),
    "segmented_read": StandIn("fused_read", narrow=True, packed=True),
    "chunk_solve": StandIn("fused_solve", narrow=True, packed=True),
}
_IMPORT = re.compile(r"^try:\n    from \.(\w+) import (.+)\nexcept ImportError:\n    from \1 import \2$", re.MULTILINE)


def emit_module(
    system: System, *, class_name: str, header: str = "", form: str = "", stepper: System | None = None
) -> str:
    """The text of a Python file with one class, which imports its kernels from the file that `companions` gives."""
    return torch_module.emit_module(
        system, class_name=class_name, header=header, form=form, stepper=stepper, target=_target(system)
    )


def _target(system: System) -> Target:
    written: dict[str, str] = {}
    name = system.name.lower() + ("_layer" if system.params() else "") + "_kernels"
    return Target(name, STAND_INS, Online(written), Recurrences(written), written)


def explained(system: System, form: str) -> list[str]:
    """What of a module runs in kernels of its own; of a normalised read that does not, why."""
    target = _target(system)
    text = torch_module.emit_module(system, class_name="Module", form=form, target=target)
    found = _IMPORT.search(text)
    lines = [f"kernels of `{name}`" for name in (found[2].split(", ") if found else [])]
    lines += [f"kernels written for the scores of `{tensor}`" for tensor in target.online.read]
    lines += [
        f"`{tensor}` is read in PyTorch where the table `{name}` needs a gradient" for tensor, name in target.online.tables.items()
    ]
    lines += [f"kernels written for the step of `{tensor}`" for tensor in target.steps.walked]
    lines += [f"`{tensor}` is read block by block in PyTorch: {why}" for tensor, why in target.online.kept.items()]
    return lines + [f"`{tensor}` is stepped in PyTorch: {why}" for tensor, why in target.steps.kept.items()]


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

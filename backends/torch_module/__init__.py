"""The PyTorch target: any system of recurrence equations as the text of one readable `nn.Module`.

Architecture invariant: reads the graph only (`seqdsl.ir`); no mixer's name and no user's text is known here beyond
checked nodes. The generated file imports torch and nothing of seqdsl. Entry points: `emit_module`, `build_module`.
"""

from __future__ import annotations

from seqdsl.ir.system import System

from .context import Unsupported
from .load import build_module, load_class
from .module import attribute_path, emit_module

__all__ = ["Unsupported", "attribute_path", "build_module", "companions", "emit_module", "explained", "load_class"]


def explained(system: System, form: str) -> list[str]:
    """What of a module runs in kernels of its own, and what does not: nothing does."""
    return []


def companions(text: str) -> dict[str, str]:
    """The files that a module's text imports, by name without suffix: none, it stands alone."""
    return {}

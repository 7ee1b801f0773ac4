"""The Triton target: the torch target's module, its scans and chunked products done by kernels in a second file.

A module is emitted as for PyTorch, by the torch target's own emitter, which asks a table (`torch_module.target.Target`)
for every function of its `support` that it calls: `module.STAND_INS` names a stand-in with the same arguments, which
launches kernels for CUDA and HIP tensors and is the torch function everywhere else. A stand-in that is `narrow` gets
16-bit inputs as they are and is told `scale`, `dots` and `dtype`. For normalised reads (attention) no kernel is written
beforehand: `emit` writes three for the scores of each, into the module itself, one for what a step does with the states of
a recurrence (`seqdsl.forms.one_position`), which runs where no gradient is asked for, and two for each group of equations
over whole sequences (gates, norms, short windows) that saves passes over memory, and four for each affine recurrence with
what its coefficients are made of and what reads its states entry by entry. What has no kernel stays in PyTorch, and
`explained` says why. What every launch moves is counted from the kernels' text without a GPU (`count`).
Architecture invariant: builds on `torch_module`, which knows nothing of it; the generated files import torch and triton.
Entry points: `emit_module`, `build_module`, `companions`, `explained`, `count`.
"""

from __future__ import annotations

from importlib.util import find_spec

from ..torch_module import Unsupported, attribute_path

if find_spec("triton") is None:
    raise ModuleNotFoundError("No module named 'triton'", name="triton")

from .module import build_module, companions, count, emit_module, explained, load_class

WRITES_STEPS = True  # `emit_module` wants the recurrent form, too

__all__ = [
    "WRITES_STEPS",
    "Unsupported",
    "attribute_path",
    "build_module",
    "companions",
    "count",
    "emit_module",
    "explained",
    "load_class",
]

"""What the launches of a generated module have compiled on a target, found without a device and without compiling.

A module runs forwards, backwards and one step on tensors without memory, as for the count of what launches move, but with
Triton's own functions: those ask a driver which target there is, and a hook whether to compile. The driver here names the
target that is wanted, and the hook notes all that decides a compilation. Entry points: `launched`, `Compilation`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from backends.torch_module.load import build_from, load_text
from backends.torch_module.names import safe
from backends.triton_kernel.count import launches
from seqdsl.api import Program, load_backend
from seqdsl.ir.sizes import SizeError, Sizes, bind
from seqdsl.ir.state import needed
from seqdsl.ir.system import System
from seqdsl.verify.inputs import draw_sizes, entries
from seqdsl.verify.modules import has_state, module_sizes
from tests.backends.triton_kernel.ahead import TARGETS

BATCH, TIME = 2, 192  # three chunks
WIDTHS, OPTIONS = (64, 16, 8, 4, 2, 1), (2, 4, 8, 1, 3)  # the first that satisfy all that a mixer asks of its lengths
MOST = 2**28  # entries
TILES = {"sm_80": "sm_80", "sm_90": "sm_90", "sm_100": "sm_90", "gfx942": "hip"}
DTYPES = {"real": torch.bfloat16, "int": torch.int64, "bool": torch.bool, "complex": torch.complex64}
FAMILIES = {"attend_kernels": "matrix state", "walk_kernels": "matrix state", "decay_kernels": "matrix state",
            "row_kernels": "matrix state", "solve_kernels": "low rank", "softmax_kernels": "attention"}  # fmt: skip


@dataclass(frozen=True)
class Compilation:
    """A kernel, and all that Triton compiles it by; `key` is the same for the same text, arguments and target."""

    key: str
    name: str
    function: Any
    target: str
    signature: dict[str, str]
    constants: dict[Any, Any]
    attributes: dict[Any, Any]
    options: dict[str, int]


Found = dict[str, Compilation]


def launched(program: Program, targets: tuple[str, ...] = tuple(TARGETS)) -> tuple[dict[str, Found], dict[str, str]]:
    """`target` -> the compilations of a mixer by key; and of each part that cannot run without numbers, why."""
    text, backend = program.source(backend="triton"), load_backend("triton")
    if launches.TRITON not in text and not backend.companions(text):
        return {target: {} for target in targets}, {}
    files: list[ModuleType] = []

    def load(text: str) -> ModuleType:
        text = text.replace("torch.library.custom_op(", "operator(")
        files.append(load_text(text.replace(launches.TRITON, f"{launches.TRITON}\nfrom {launches.__name__} import operator")))
        return files[-1]

    made = getattr(launches.linked(text, backend.companions(text), load), safe(program.class_name))
    system = program.system()
    sizes = standard_sizes(system)
    module = build_from(made, program.class_name, **module_sizes(system, sizes))._apply(_without_memory)
    inputs = [_without_memory(torch.empty((BATCH, *(sizes[i] for i in x.indices)), dtype=DTYPES[x.dtype], device="meta"))
              for x in system.inputs()]  # fmt: skip
    found: dict[str, Found] = {}
    failed: dict[str, str] = {}
    for target in targets:
        with _noting(target, files) as found[target]:
            for part, run in _parts(system, module, inputs).items():
                try:
                    run()
                except Exception as error:  # whatever PyTorch says of numbers that are not there
                    failed[f"{part} {target}"] = f"{type(error).__name__}: {str(error).splitlines()[0][:160] if str(error) else ''}"
    return found, failed


def standard_sizes(system: System) -> Sizes:
    """One length for every free axis but time, and one for every option without a default, that satisfy the checks; where
    there are none, drawn ones."""
    free = [n for n, i in system.indices.items() if i.axis == n and i.size is None]
    for width, option in product(WIDTHS, OPTIONS):
        try:
            sizes = bind(system, {n: option for n, default in system.options.items() if default is None},
                         {n: TIME if n == system.stream else width for n in free})  # fmt: skip
        except SizeError:
            continue
        if entries(system, sizes) <= MOST:
            return sizes
    return draw_sizes(system, np.random.default_rng(0), stream=TIME, most=MOST, tries=1000)


def _without_memory(x: Tensor) -> Tensor:
    return x.to("meta", torch.bfloat16) if x.is_floating_point() else x.to("meta")


def _parts(system: System, module: Any, inputs: list[Tensor]) -> dict[str, Callable[[], Any]]:
    """What is launched: forwards without and with gradients, backwards, and one step from a state."""
    wanted = [x.requires_grad_() for x in (*inputs, *module.parameters()) if x.is_floating_point()]

    def forward() -> None:
        with torch.no_grad():
            module(*inputs)

    def backward() -> None:
        found = module(*inputs)
        outputs = [y for y in (found if isinstance(found, tuple) else (found,)) if y.requires_grad]
        if outputs:
            torch.autograd.grad(outputs, wanted, [torch.empty_like(y) for y in outputs], allow_unused=True)

    def step() -> None:
        along = [[k + 1 for k, i in enumerate(x.indices) if system.axis(i) == system.stream] for x in system.inputs()]
        with torch.no_grad():
            _, state = module(*inputs, return_state=True)
            module.step(*(x.select(k[0], 0) if k else x for x, k in zip(inputs, along, strict=True)), state)

    return {"forward": forward, "backward": backward, **({"step": step} if has_state(needed(system)) else {})}


class _Driver:
    """What a launch asks of Triton's driver: which device, and its target."""

    def __init__(self, target: str) -> None:
        self.target = target

    def get_current_target(self) -> GPUTarget:
        return GPUTarget(*TARGETS[self.target])

    def get_current_device(self) -> int:
        return list(TARGETS).index(self.target)

    def get_current_stream(self, device: int) -> int:
        return 0


@contextmanager
def _noting(target: str, files: list[ModuleType]) -> Iterator[Found]:
    """What is launched meanwhile; these files take tensors without memory for those of the target."""
    found: Found = {}
    labels = {id(kernel): label for file in files for kernel, label in _labels(file)}

    def note(*, fn: Any, compile: dict[str, Any], **_: Any) -> bool:  # noqa: A002
        options = {n: compile[n] for n in ("num_warps", "num_stages")}
        kernel = fn.jit_function
        decided = (_text(kernel), compile["signature"], compile["constants"], compile["configs"][0], options, target)
        key = hashlib.sha256(repr(decided).encode()).hexdigest()[:16]
        label = labels.get(id(kernel)) or kernel.fn.__name__.strip("_").removesuffix("_kernel").replace("_", " ")
        found[key] = Compilation(key, label, kernel, target, compile["signature"], compile["constants"],
                                 compile["configs"][0], options)  # fmt: skip
        return True  # which compiles nothing, and launches nothing

    device = {"_has_kernels": lambda x: True, "_tiles_of": lambda device: TILES[target],
              "_is_hopper": lambda x: target == "sm_90",
              "_dot_precision": lambda: "ieee" if TILES[target] == "hip" else "tf32x3"}  # fmt: skip
    kept = [{name: vars(file)[name] for name in device.keys() & vars(file).keys()} for file in files]
    launches._Operator.called = []
    driver.set_active(_Driver(target))
    try:
        for file, names in zip(files, kept, strict=True):
            vars(file).update({name: device[name] for name in names})
        with mock.patch.object(triton.knobs.runtime, "jit_cache_hook", note):
            yield found
    finally:
        driver.set_active(None)
        for file, names in zip(files, kept, strict=True):
            vars(file).update(names)


def _labels(file: ModuleType) -> Iterator[tuple[Any, str]]:
    """The kernels that were written for this mixer, by the kind of plan that holds them: `softmax forward`."""
    for plan in vars(file).values():
        for name in getattr(plan, "_fields", ()) if isinstance(plan, tuple) else ():
            if isinstance(getattr(plan, name), JITFunction):
                yield getattr(plan, name), f"{type(plan).__name__.strip('_').lower()} {name}"


def _text(kernel: Any) -> str:
    """A kernel's text with those of the functions that it calls, and the numbers that it knows."""
    found, pending = {}, [kernel]
    while pending:
        one = pending.pop()
        if one.__name__ in found:
            continue
        found[one.__name__] = one.src
        for name in one.fn.__code__.co_names:
            known = one.fn.__globals__.get(name)
            if isinstance(known, JITFunction):
                pending.append(known)
            elif isinstance(known, int | float | str | triton.language.constexpr):
                found[name] = repr(known)
    return json.dumps(found, sort_keys=True)

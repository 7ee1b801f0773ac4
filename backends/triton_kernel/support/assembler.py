"""The assembler of kernels for Hopper GPUs, which must not give registers away that products still read.

wgmma reads the registers of its first operand while the program goes on. ptxas before CUDA 13.3 may use them for something
else meanwhile (release notes of CUDA 13.3; triton#11781): on an H200 under Triton 3.6, which has ptxas 12.8, matrix states of
64 keys, feedback of 136 and 200 keys and one gradient in float32 were wrong or reached outside shared memory, and right, from
the same text, with ptxas 13.5. Triton 3.8 and later have a newer one beside it, which they take for Blackwell GPUs only; the
package nvidia-cuda-nvcc has one, too. Where there is none, products take the instructions of Ampere GPUs.
"""

import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor

SOUND = (13, 3)  # the first release that keeps registers until they are read


@cache
def _release(path: str) -> tuple[int, ...]:
    """Of the ptxas there; none where it cannot be run."""
    try:
        found = triton.knobs.NvidiaTool.from_path(path)
    except OSError:
        return ()
    return () if found is None else tuple(map(int, found.version.split(".")))


def _assemblers() -> Iterator[str]:
    """Where others may be than the one that Triton takes: its own for newer GPUs, a package's, a CUDA toolkit's."""
    newer = getattr(triton.knobs.nvidia, "ptxas_blackwell", None)
    yield "" if newer is None else newer.path
    try:
        package = find_spec("nvidia")
    except ValueError:  # something else has that name
        package = None
    for place in () if package is None else package.submodule_search_locations or ():
        yield from map(str, sorted(Path(place).glob("cu*/bin/ptxas")))
    yield from (str(Path(place) / "bin" / "ptxas") for place in (os.environ.get("CUDA_HOME"), "/usr/local/cuda") if place)
    yield shutil.which("ptxas") or ""


def _assemble_with(path: str) -> None:
    """From here on, in this process, Triton assembles with the ptxas there."""
    from triton.backends.nvidia import compiler

    triton.knobs.nvidia.ptxas = path
    compiler.get_ptxas_version.cache_clear()  # what was assembled is kept by it
    compiler.CUDABackend.hash.cache_clear()


@cache
def _assembles_soundly() -> bool:
    """Does Triton assemble for Hopper with a sound ptxas? It does from here on, in this process, if there is one, unless
    TRITON_PTXAS_PATH names another."""
    own = triton.knobs.nvidia.ptxas
    if _release(own.path) >= SOUND:
        return True
    found = None if os.environ.get("TRITON_PTXAS_PATH") else next((p for p in _assemblers() if _release(p) >= SOUND), None)
    if found is None:
        warnings.warn(
            f"ptxas {own.version}, with which Triton {triton.__version__} assembles for Hopper GPUs, may give registers away"
            " before they are read: products take the instructions of Ampere GPUs, which are slower. Triton 3.8 or newer, or"
            " the package nvidia-cuda-nvcc 13.3 or newer, has a ptxas that does not.", RuntimeWarning, stacklevel=4,
        )  # fmt: skip
        return False
    _assemble_with(found)
    return True


@cache
def _is_hopper_device(device: torch.device) -> bool:
    return device.type == "cuda" and not torch.version.hip and torch.cuda.get_device_capability(device)[0] == 9


def _is_hopper(x: Tensor) -> bool:
    """Has the device the shared memory of a Hopper GPU, and its products?"""
    return _is_hopper_device(x.device)


@contextmanager
def _without_wgmma(device: torch.device) -> Iterator[None]:
    """What is launched here is compiled with the products of Ampere GPUs."""
    before = os.environ.get("DISABLE_MMA_V3")
    os.environ["DISABLE_MMA_V3"] = "1"
    try:
        with torch.cuda.device(device):
            yield
    finally:
        if before is None:
            del os.environ["DISABLE_MMA_V3"]
        else:
            os.environ["DISABLE_MMA_V3"] = before


def _launching_on(device: torch.device) -> AbstractContextManager[Any]:
    """Kernels run on the current device, as it is compiled for."""
    if _is_hopper_device(device) and not _assembles_soundly():
        return _without_wgmma(device)
    return torch.cuda.device(device)

"""What generated modules are timed beside on a GPU: flash-linear-attention, SDPA, FlexAttention; and Triton's tuner, hastened.

Tuned kernels have some hundred candidates each. `compiling` runs each of them once, so that many processes can share the work
of compiling them; `hastened` shortens the time that each is timed for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from typing import Any

import torch
import triton.testing
from torch import Tensor
from triton.runtime.autotuner import Autotuner

# What flash-linear-attention calls our inputs, in our order: its own differs from operator to operator.
FLA = {
    "retention": "q k v", "simple_gla": "q k v g", "gla": "q k v g", "delta_rule": "q k v beta",
    "gated_delta_rule": "q k v beta g", "kda": "q k v beta g", "hgrn": "x g",
}  # fmt: skip
UNSCALED = ("delta_rule", "gated_delta_rule", "kda")  # of ours; flash-linear-attention divides queries by sqrt(d)


def fla_operator(name: str) -> Callable[..., Any]:
    """The same operator of flash-linear-attention. Raises whatever a version of it raises under a version of Triton.

    It refuses gated gradients on Hopper GPUs under Triton 3.4 to 3.7.0, whose assembler is at fault: with a sound one they are
    run, and held to ours like all others (`gpu.apart`).
    """
    from backends.triton_kernel.support.assembler import _assembles_soundly

    run, names = getattr(import_module(f"fla.ops.{name}"), f"chunk_{name}"), FLA[name].split()
    if torch.cuda.is_available() and _assembles_soundly():
        vars(import_module("fla.ops.common.chunk_o"))["TRITON_ABOVE_3_7_1"] = True
    if name == "hgrn":  # which has the input gate and the output gate outside
        return lambda x, f, g: run(x=(1 - f) * x, g=f.log())[0] * g
    scale = {"scale": 1.0} if name in UNSCALED else {}
    return lambda *inputs: run(**dict(zip(names, inputs, strict=True)), **scale)


def attention_operators(device: str) -> dict[str, Callable[..., Any]]:
    """Causal softmax attention of PyTorch: what it picks itself, and FlexAttention, compiled for each shape."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    from torch.nn.functional import scaled_dot_product_attention

    compiled: dict[torch.Size, tuple[Any, Any]] = {}

    def sdpa(*qkv: Tensor) -> Tensor:
        found: Tensor = scaled_dot_product_attention(*(x.transpose(1, 2) for x in qkv), is_causal=True).transpose(1, 2)
        return found

    def flex(*qkv: Tensor) -> Tensor:
        shape = qkv[0].shape
        if shape not in compiled:
            torch._dynamo.reset()  # it stops compiling after a few shapes
            mask = create_block_mask(lambda b, h, t, s: s <= t, None, None, shape[1], shape[1], device=device)
            compiled[shape] = torch.compile(flex_attention, dynamic=False), mask
        run, mask = compiled[shape]
        found: Tensor = run(*(x.transpose(1, 2) for x in qkv), block_mask=mask).transpose(1, 2)
        return found

    return {"sdpa": sdpa, "flex": flex}


@contextmanager
def _timer(timer: Callable[..., list[float]]) -> Iterator[None]:
    """Kernels are tuned by this timer, which is given the tuner and a call."""
    own = Autotuner.__dict__["do_bench"]
    Autotuner.do_bench = property(lambda tuner: partial(timer, tuner))  # type: ignore[assignment]
    try:
        yield
    finally:
        Autotuner.do_bench = own


@contextmanager
def compiling(share: int, of: int) -> Iterator[None]:
    """Of all candidates of every kernel, the first that runs and each `of`-th from `share` on is compiled, and runs once."""
    seen, latest = 0, None

    def once(tuner: Autotuner, call: Callable[[], object], quantiles: object) -> list[float]:
        nonlocal seen, latest
        seen += 1
        if tuner is not latest or seen % of == share:
            call()
            latest = tuner
        return [float(seen)] * 3  # the first is taken

    with _timer(once):
        yield


@contextmanager
def hastened() -> Iterator[None]:
    """Candidates are timed for 20 ms each, not for 100: there are hundreds of them."""
    with _timer(lambda tuner, call, quantiles: triton.testing.do_bench(call, warmup=5, rep=20, quantiles=quantiles)):
        yield

"""Time tiles of the kernels of causal softmax attention on this machine's GPU: `python -m tests.bench.tiles [WIDTH ..]`.

For each width of the heads, every candidate of each kernel: milliseconds, and TFLOP/s of the products that it makes.
What is fastest and spills nothing belongs into `fused_softmax.SOFTMAX_TILES`.
"""

from __future__ import annotations

import sys
from typing import Any

import torch

from tests.backends.triton_kernel.reads import Read, built
from tests.bench.gpu import median_ms

SHAPES = {64: (4, 4096, 32), 128: (2, 8192, 16), 256: (2, 4096, 16)}
PRODUCTS = {"forward": 2, "rows": 3, "columns": 4}
TILES: dict[int, dict[str, list[tuple[int, int, int, int]]]] = {
    64: {
        "forward": [(128, 64, 8, 3), (128, 64, 4, 3), (128, 128, 8, 3), (128, 128, 4, 2), (64, 64, 4, 3)],
        "rows": [(128, 64, 8, 2), (128, 64, 8, 3), (64, 64, 4, 3), (128, 64, 4, 3), (128, 128, 8, 2)],
        "columns": [(64, 128, 8, 2), (64, 128, 8, 3), (64, 64, 4, 2), (64, 64, 4, 3), (32, 64, 4, 3)],
    },
    128: {
        "forward": [(128, 64, 8, 3), (128, 64, 8, 2), (128, 128, 8, 2), (128, 64, 8, 4), (64, 64, 4, 3), (128, 64, 4, 3)],
        "rows": [(128, 64, 8, 2), (128, 64, 8, 3), (64, 64, 4, 2), (128, 32, 8, 3), (128, 128, 8, 1)],
        "columns": [(32, 128, 8, 2), (32, 128, 8, 3), (64, 128, 8, 2), (64, 128, 8, 1), (64, 64, 4, 2), (32, 64, 4, 3)],
    },
    256: {
        "forward": [(128, 32, 8, 2), (128, 32, 8, 3), (128, 64, 8, 2), (64, 64, 4, 2)],
        "rows": [(64, 32, 8, 2), (64, 32, 8, 3), (64, 32, 4, 2), (64, 64, 8, 1)],
        "columns": [(64, 32, 8, 1), (32, 64, 8, 2), (16, 64, 8, 1), (32, 64, 8, 1)],
    },
}


def recorded(text: Any, module: Any, given: list[torch.Tensor]) -> dict[str, tuple[Any, ...]]:
    """The launches of one forward with backward."""
    found: dict[str, tuple[Any, ...]] = {}
    launch = text._Call.launch

    def noted(call: Any, which: str, extra: list[torch.Tensor], **flags: bool) -> None:
        found[which] = (call, extra, flags)
        launch(call, which, extra, **flags)

    text._Call.launch = noted
    o = module(*given)
    torch.autograd.grad(o, given, torch.randn_like(o))
    text._Call.launch = launch
    return found


def main(wanted: list[int]) -> None:
    module, text = built(Read("softmax", {}))
    for width in wanted:
        batch, length, heads = SHAPES[width]
        given = [torch.randn(batch, length, heads, width, device="cuda", dtype=torch.bfloat16).requires_grad_() for _ in range(3)]
        launches = recorded(text, module, given)
        table = text.SOFTMAX_TILES[text._tiles_of(given[0].device)]
        for which, tiles in TILES[width].items():
            call, extra, flags = launches[which]
            flops = PRODUCTS[which] * 2 * batch * heads * width * length * length / 2
            for tile in tiles:
                table[which, width, 2] = tile
                text._softmax_constants.cache_clear()
                try:
                    spent = median_ms(lambda: call.launch(which, extra, **flags), 0.05)  # noqa: B023
                    print(f"{width:4} {which:8} {tile!s:18} {spent:8.3f} ms {flops / spent / 1e9:7.1f} TFLOP/s", flush=True)
                except Exception as error:  # a tile that does not fit this device
                    print(f"{width:4} {which:8} {tile!s:18} {type(error).__name__}: {str(error)[:80]}", flush=True)


if __name__ == "__main__":
    main([int(x) for x in sys.argv[1:]] or list(TILES))

"""Every kernel at its default configuration, for compilation ahead of time: (kernel, argument types, constants, options)."""

from __future__ import annotations

from typing import Any

import torch

from backends.triton_kernel.support import attend_kernels as attend
from backends.triton_kernel.support import decay_kernels as decays
from backends.triton_kernel.support import read_kernels as read
from backends.triton_kernel.support import scan_kernels as scan
from backends.triton_kernel.support import solve_kernels as solve
from backends.triton_kernel.support import walk_kernels as walk
from backends.triton_kernel.support.attending import ATTEND_TILES, CHUNK, HOPPER_TILES, LEVELS, _walk_tile
from backends.triton_kernel.support.fused_read import READ_SEGMENT, READ_STEPS, _read_tile
from backends.triton_kernel.support.fused_scan import SCAN_ADJOINT_STEPS, SCAN_LANES, SCAN_STEPS, SCAN_WARPS
from backends.triton_kernel.support.solving import INVERSE_WARPS, _solve_tile

F32, BF16 = "*fp32", "*bf16"
ALONE: dict[str, Any] = {"PACKED": False, "table": None}  # what a kernel of one sequence is told of packed ones
TOGETHER: dict[str, Any] = {"PACKED": True}
KERNELS: dict[str, tuple[Any, dict[str, str], dict[str, Any], dict[str, int]]] = {}
ELSEWHERE: dict[str, dict[str, dict[str, int]]] = {}  # constants and options that are others on other targets than sm_90

SCAN = dict.fromkeys(("a", "b", "start", "h", "kept_ends", "rate_ends", "b_ends", "grad", "d_a", "d_b"), F32)
NARROW = ("q", "k", "v", "left", "right", "choices", "weights", "reads", "writes", "states", "out",
          "d_out", "d_weights", "d_states", "d_q", "d_k", "d_v", "asked", "d_asked", "d_ask")
WIDE = ("g", "signs", "sums", "decay", "totals", "start", "entering", "final", "d_g")
ATTEND = {**dict.fromkeys(NARROW, BF16), **dict.fromkeys(WIDE, F32), "scale": "fp32", "factor": "fp32", "table": "*i32"}
SOLVE = {**ATTEND, **dict.fromkeys(("w", "u", "x", "y", "inverse"), BF16), "pairs": F32}
READ = {**ATTEND, **dict.fromkeys(("x", "y", "o", "d_o"), BF16),
        **dict.fromkeys(("marks", "scratch", "totals", "ends", "d_final", "d_q", "d_k", "d_x", "d_y", "d_start"), F32)}
AFTER = {"APART": 1, "BEFORE": False}
UPTO = {"APART": 0, "BEFORE": False}
MODES = {by: {"BY_HEAD": by == "by head", "TOTALS": by == "decayed", "SIGNED": False} for by in ("by key", "decayed", "by head")}


def _scan(name: str, kernel: Any, steps: int, **constants: Any) -> None:
    """Logarithms of decays, forwards in time."""
    tile = {"LOG": True, "REVERSE": False, "STEPS": steps, "BD": SCAN_LANES}
    KERNELS[name] = (kernel, SCAN, {**tile, **constants}, {"num_warps": SCAN_WARPS})


def _attend(
    kernel: Any, tile: str, by: str = "", width: int = 128, special: str = "", types: dict[str, str] = ATTEND, **constants: Any
) -> None:
    """K = V = width, bfloat16."""
    made = []
    for tiles in (HOPPER_TILES, ATTEND_TILES):
        keys, values, warps, stages = tiles.get(f"{tile}, {special}", tiles[tile])
        size = {name: min(most, width) for name, most in (("BK", keys), ("BV", values)) if most}
        made.append((size, {"num_warps": warps} | ({"num_stages": stages} if stages else {})))
    more = {"C": CHUNK, "PRECISION": "ieee"}
    if "LEVELS" in kernel.arg_names:
        more["LEVELS"] = LEVELS
    (size, options), (others, elsewhere) = made
    name = f"{tile} {by}".strip() + f", {special}" * bool(special)
    KERNELS[name] = (kernel, types, {**more, **size, **constants}, options)
    ELSEWHERE[name] = dict.fromkeys(("sm_80", "sm_100", "gfx942"), {**others, **{o: elsewhere.get(o, 0) for o in options}})


def _walk(by: str, reverse: bool, width: int, packed: bool = False, signed: bool = False, few: bool = False) -> None:
    """K = V = width, bfloat16; of many heads, or of so few that time is cut."""
    name = f"walk {width} {by}" + " reversed" * reverse + ", packed" * packed + ", signed" * signed + ", few heads" * few
    tile, *others = (
        _walk_tile(by == "by head", 16 if few else 1024, width, width, torch.bfloat16, tiles, signed)
        for tiles in ("sm_90", "sm_80", "hip")
    )
    ELSEWHERE[name] = dict(zip(("sm_80", "gfx942"), others, strict=True))
    options = {option: tile.pop(option) for option in ("num_warps", "num_stages")}
    flags = {**MODES[by], "STRICT": False, "REVERSE": reverse, "HAS_START": True, "CUT": few, "PARTED": False}
    flags |= {"SIGNED": signed, **(TOGETHER if packed else ALONE)}
    KERNELS[name] = (walk._walk_kernel, ATTEND, {**flags, "C": CHUNK, "LEVELS": LEVELS, "PRECISION": "ieee", **tile}, options)


def _solve(name: str, kernel: Any, options: dict[str, int], like: str = BF16, **constants: Any) -> None:
    """K = V = 128, or as many keys as the tile has; 16-bit operands of `like`."""
    types = {n: like if t == BF16 else t for n, t in SOLVE.items()}
    KERNELS[name] = (kernel, types, {"C": CHUNK, "PRECISION": "tf32x3", **constants}, {"num_warps": 4, **options})


def _solve_scan(by: str, reverse: bool, keys: int, dtype: torch.dtype = torch.bfloat16, packed: bool = False) -> None:
    """The scan of feedback, by the tile that it is launched with."""
    name = f"solve {keys} {by}" + " reversed" * reverse + ", float32" * (dtype == torch.float32) + ", packed" * packed
    tile, other = (_solve_tile(keys, 128, dtype, reverse, hopper, packed) for hopper in (True, False))
    launch = {option: tile.pop(option) for option in ("num_warps", "num_stages")}
    flags = {"BY_HEAD": by == "by head", "REVERSE": reverse, "READ": reverse, "HAS_START": True, **tile, **AFTER}
    flags |= TOGETHER if packed else ALONE
    kernel = solve._solve_slabs_kernel if "SLABS" in tile else solve._solve_kernel
    _solve(name, kernel, launch, F32 if dtype == torch.float32 else BF16, **flags)
    ELSEWHERE[name] = dict.fromkeys(("sm_80", "sm_100", "gfx942"), other)


def _read(name: str, kernel: Any, keys: int, values: int, decay: str, **constants: Any) -> None:
    """Mamba: a decay for each column times one for each entry; or a matrix state with a decay for each entry."""
    mamba = decay == "mamba"
    varies = {"X_KEYS": not mamba, "X_VALUES": True, "Y_KEYS": mamba, "Y_VALUES": mamba, "TWO": mamba}
    tile = _read_tile(keys, values)
    flags = {"LOG": True, "STRICT": False, **varies, "BK": tile["BK"], "BV": tile["BV"], **constants}
    if "states" in name or "adjoint" in name:
        flags |= TOGETHER if "packed" in name else ALONE
        flags |= {"SEGMENT": READ_SEGMENT, "STEPS": READ_STEPS}
    if "adjoint" in name:
        flags |= {"X_TIME": True, "Y_TIME": False}
    KERNELS[f"{name} {decay}"] = (kernel, READ, flags, {"num_warps": tile["num_warps"]})


for size, decay in (((16, 2048), "mamba"), ((128, 128), "by entry")):
    _read("read ends", read._read_ends_kernel, *size, decay, REVERSE=False)
    _read("read states", read._read_states_kernel, *size, decay, HAS_START=True, KEEP=True)
    _read("read adjoint", read._read_adjoint_kernel, *size, decay, HAS_FINAL=False)
    _read("read states, packed,", read._read_states_kernel, *size, decay, HAS_START=True, KEEP=True)
    _read("read adjoint, packed,", read._read_adjoint_kernel, *size, decay, HAS_FINAL=True)
_scan("scan ends", scan._scan_ends_kernel, SCAN_STEPS, SHIFT=0)
_scan("scan states", scan._scan_states_kernel, SCAN_STEPS, HAS_START=True)
_scan("scan adjoint", scan._scan_adjoint_kernel, SCAN_ADJOINT_STEPS, HAS_START=True)
_attend(attend._rows_weights_kernel, "weights", STRICT=False, WHOLE=False, ALONE=False, WRITES=True, **UPTO)
_attend(attend._rows_weights_kernel, "weights", "of 16-bit decays", types=ATTEND | {"g": BF16, "weights": F32},
        STRICT=False, WHOLE=True, ALONE=False, WRITES=True, **AFTER)
for by, flags in MODES.items():
    for reverse in (False, True):
        _attend(attend._states_kernel, "states", by + " reversed" * reverse, REVERSE=reverse, HAS_START=True, **flags, **ALONE)
        for width in {"by key": (64,), "decayed": (128, 256), "by head": (64, 128, 256)}[by]:
            _walk(by, reverse, width)
        for how in ("packed", "few"):
            _walk(by, reverse, 64 if by == "by key" else 128, **{how: True})
        if by == "by head":
            _walk(by, reverse, 192)
            for width in (32, 64, 128):
                _walk(by, reverse, width, signed=True)
    _attend(attend._states_kernel, "states", f"{by}, packed", REVERSE=False, HAS_START=True, **flags, **TOGETHER)
for by in ("by key", "by head"):
    _attend(solve._reads_kernel, "reads", by, BY_HEAD=by == "by head")
_attend(solve._values_adjoint_kernel, "values adjoint")
_attend(attend._weights_adjoint_kernel, "weights adjoint")
_attend(attend._head_weights_kernel, "head weights", STRICT=False, WHOLE=False, SIGNED=False, **UPTO)
_attend(attend._rows_adjoint_kernel, "rows adjoint", WRITES=True, **UPTO)
_attend(attend._rows_adjoint_kernel, "rows adjoint", special="read again", WRITES=False, **UPTO)
_attend(attend._head_adjoint_kernel, "head adjoint", GATE=True, SIGNED=False, TWICE=False, KEPT=True, **UPTO)
_attend(attend._head_adjoint_kernel, "head adjoint", special="read twice", GATE=True, SIGNED=False, TWICE=True, KEPT=True,
        **AFTER)
_attend(attend._states_kernel, "states", "by head of few values", BV=16, REVERSE=False, HAS_START=True, **MODES["by head"],
        **ALONE)
_attend(attend._head_adjoint_kernel, "head adjoint", special="narrow", BV=16, GATE=True, SIGNED=False, TWICE=False, KEPT=True,
        **UPTO)
KERNELS["head sums"] = (decays._head_sums_kernel, ATTEND, {"C": CHUNK, "BH": 16}, {"num_warps": 4})
_solve("inverse", solve._inverse_kernel, {"num_warps": INVERSE_WARPS}, PRECISION="tf32")
for by in ("by key", "by head"):
    for reverse in (False, True):
        for width in (128, 256):
            _solve_scan(by, reverse, width)
            _solve_scan(by, reverse, width, packed=True)
_solve_scan("by head", True, 512)
_solve_scan("by head", False, 256, torch.float32)

"""Tiles that somebody has timed on a device, kept in the user's cache folder. Nothing is timed unless `tune` is called.

A tile is kept by device, kernel, dtype and the powers of two that hold the sizes, so that lengths that come and go share
one; the file is named after this text, so that no other version's tiles are read. What is damaged is not there.
"""

import json
import os
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from .launching import OPS

Tile = dict[str, int]
BOUNDS = {**dict.fromkeys(("BK", "BV", "BT", "BS"), (16, 128)), "num_warps": (2, 8), "num_stages": (1, 4)}
_trials: dict[str, Tile] = {}  # of a tuning that is under way
_asked: dict[str, dict[str, Any]] | None = None  # what it has seen launched, with the tile


def _tuned(kernel: str, tile: dict[str, Any], x: Tensor, *sizes: int) -> dict[str, Any]:
    """The arguments of a launch on x with the tile that was timed for its like, if there is one."""
    kept = _kept(x.device)
    if not kept and _asked is None:
        return tile
    key = " ".join([kernel, str(x.dtype), *(str(1 << max(n - 1, 0).bit_length()) for n in sizes)])
    found = _trials.get(key, kept.get(key, {}))
    tile = {**tile, **found} if found.keys() <= tile.keys() else tile
    if _asked is not None:
        _asked.setdefault(key, tile)
    return tile


def _place() -> Path:
    """The file with the tiles of this text's kernels."""
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "seqdsl" / f"{OPS}.json"


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _read_kept() -> dict[str, dict[str, Tile]]:
    """By device and kernel; without what is no tile."""
    try:
        found = json.loads(_place().read_text(encoding="utf-8"))
        return {name: {key: tile for key, tile in tiles.items() if _is_tile(tile)} for name, tiles in found.items()}
    except (OSError, RuntimeError, ValueError, AttributeError):  # RuntimeError: there is no home
        return {}


def _is_tile(tile: Any) -> bool:
    """Entries that may change, within their bounds, powers of two."""
    if not isinstance(tile, dict) or not tile.keys() <= BOUNDS.keys() or any(type(n) is not int for n in tile.values()):
        return False
    within = all(BOUNDS[name][0] <= n <= BOUNDS[name][1] for name, n in tile.items())
    return within and all(n & (n - 1) == 0 or name == "num_stages" for name, n in tile.items())


@cache
def _kept(device: torch.device) -> dict[str, Tile]:
    """What is kept for a device, read once."""
    return _read_kept().get(_device_name(device), {})


def _keep(device: torch.device, tiles: dict[str, Tile]) -> None:
    """Into the file, beside what others have put there meanwhile, and into this process."""
    _kept(device).update(tiles)
    try:
        place, found = _place(), _read_kept()
        found.setdefault(_device_name(device), {}).update(tiles)
        place.parent.mkdir(parents=True, exist_ok=True)
        scratch = place.with_suffix(f".{os.getpid()}.tmp")
        scratch.write_text(json.dumps(found, indent=1), encoding="utf-8")
        scratch.replace(place)
    except (OSError, RuntimeError) as error:
        warnings.warn(f"these tiles hold for this process alone, they cannot be written: {error}", stacklevel=3)


def _neighbours(tile: dict[str, Any]) -> Iterator[Tile]:
    """The entries of a tile that may change, one of them halved or doubled; stages one fewer or one more."""
    free = {name: value for name, value in tile.items() if name in BOUNDS}
    for name, value in free.items():
        for other in (value - 1, value + 1) if name == "num_stages" else (value // 2, value * 2):
            if BOUNDS[name][0] <= other <= BOUNDS[name][1]:
                yield {**free, name: other}


def _median_seconds(run: Callable[[], Any]) -> float:
    """The middle of nine runs, after one that compiles."""
    spent = []
    for _ in range(10):
        begin = perf_counter()
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        spent.append(perf_counter() - begin)
    return sorted(spent[1:])[4]


def _agree(found: Any, wanted: Any) -> bool:
    """Are two results, or sequences of them, the same but for rounding? A compiler's mistake is not."""
    if isinstance(wanted, Tensor):
        error = (found.double() - wanted.double()).norm()
        return bool(error <= 1e-2 * wanted.double().norm())
    return not isinstance(wanted, tuple | list) or all(map(_agree, found, wanted))


def tune(run: Callable[[], Any], timer: Callable[[Callable[[], Any]], float] = _median_seconds) -> dict[str, Tile]:
    """Time other tiles for every kernel that `run()` launches, one after the other, and keep those that are faster.

    `run` returns what it computes, a tensor or a sequence of them: a tile with another result is left out, as is one that
    does not compile or does not fit. Returns the tiles that are new, which later launches on this device use, in later
    processes, too.
    """
    global _asked
    if _asked is not None:
        raise RuntimeError("a tuning is under way already")
    _asked, found = {}, {}
    try:
        wanted = run()
        device = next(iter(_tensors(wanted))).device
        best = timer(run)
        for key, tile in list(_asked.items()):
            for other in _neighbours(tile):
                _trials[key] = other
                try:
                    spent = timer(run) if _agree(run(), wanted) else best
                except Exception:  # whatever a compiler or a device says of a tile that is too large
                    continue
                if spent < 0.97 * best:  # by more than chance
                    best, found[key] = spent, other
            _trials[key] = found.get(key, {})
    finally:
        _asked = None
        _trials.clear()
    if found:
        _keep(device, found)
    return found


def _tensors(found: Any) -> Iterator[Tensor]:
    if isinstance(found, Tensor):
        yield found
    elif isinstance(found, tuple | list):
        for x in found:
            yield from _tensors(x)

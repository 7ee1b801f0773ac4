"""A stand-in for `triton` and `triton.language` under which a kernel is executed without data.

Indices, bounds and masks are computed as they are; numbers from memory are `Data`, a shape and a type. A load or a store
notes the places that its mask lets through, a product of tiles its multiplications. What a kernel decides by its data is
decided as for a comparison that does not hold: decays count as weak. Entry points: `Kernel`, `tl`, `triton`, `Programs`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from inspect import signature
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor


class Unknown(Exception):
    """An address that depends on data."""


class Index(np.ndarray):
    """Integers that a kernel computes with: places, bounds, masks. As in Triton, `+=` makes a new one."""

    def to(self, dtype: torch.dtype) -> Index:
        return self


class Data:
    """Numbers that came from memory, or were made of such: only their shape and type are known."""

    __slots__ = ("dtype", "shape")
    __array_ufunc__ = None  # an operation with an array is ours

    def __init__(self, shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> None:
        self.shape, self.dtype = shape, dtype

    def to(self, dtype: torch.dtype) -> Data:
        return Data(self.shape, dtype)

    def __getitem__(self, key: Any) -> Data:
        """`[:, None]` and its like."""
        given = iter(self.shape)
        return Data(tuple(1 if k is None else next(given) for k in (key if isinstance(key, tuple) else (key,))), self.dtype)

    def __bool__(self) -> bool:
        return False


def _elementwise(*operands: Any) -> Data:
    """One operation on every entry."""
    shape = np.broadcast_shapes(*(_shape(x) for x in operands))
    dtypes = [x.dtype for x in operands if isinstance(x, Data)]
    Programs.current.operations += math.prod(shape)
    return Data(shape, max(dtypes, key=lambda d: d.itemsize, default=torch.float32))


for _name in "add sub mul truediv floordiv mod and or xor lshift rshift".split():
    for _side in (f"__{_name}__", f"__r{_name}__"):
        setattr(Data, _side, _elementwise)
for _name in "add sub mul truediv floordiv mod and or xor lshift rshift".split():
    setattr(Index, f"__i{_name}__", getattr(np.ndarray, f"__{_name}__"))
for _name in "lt le gt ge eq ne neg abs invert".split():
    setattr(Data, f"__{_name}__", _elementwise)


class Pointer:
    """A tensor's memory, and places in it."""

    __slots__ = ("at", "dtype", "place")

    def __init__(self, at: _Places, place: Any = 0) -> None:
        self.at, self.place = at, place
        self.dtype = SimpleNamespace(element_ty=at.tensor.dtype)

    def __add__(self, offset: Any) -> Pointer:
        if isinstance(offset, Data):
            raise Unknown(f"`{self.at.name}` is read at a place that stands in memory")
        return Pointer(self.at, self.place + offset)

    __radd__ = __add__


class _Places:
    """Of one tensor of a launch: the entries that were asked for, and those that were touched at least once."""

    def __init__(self, name: str, tensor: Tensor) -> None:
        self.name, self.tensor = name, tensor
        self.repeats = any(step == 0 for step in tensor.stride())
        span = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True)) if tensor.numel() else 0
        self.seen = {"loaded": np.zeros(span, bool), "stored": np.zeros(span, bool)}
        self.asked = dict.fromkeys(self.seen, 0)
        self.touched = dict.fromkeys(self.seen, 0)

    def note(self, what: str, pointer: Pointer, mask: Any) -> tuple[int, ...]:
        """The shape of the access."""
        place = np.asarray(pointer.place)
        shape = np.broadcast_shapes(place.shape, _shape(mask))
        if mask is not None:
            place = np.broadcast_to(place, shape)[np.broadcast_to(np.asarray(mask), shape)]
        flat = place.ravel()
        self.asked[what] += flat.size
        if flat.size > 1 and self.repeats:
            flat = np.unique(flat)
        seen = self.seen[what]
        self.touched[what] += int(flat.size - np.count_nonzero(seen[flat]))
        seen[flat] = True
        return shape


class Programs:
    """The programs of one launch that are executed: `current` is what a kernel's functions speak to."""

    current: Programs

    def __init__(self, grid: tuple[int, ...], executed: tuple[int, ...]) -> None:
        """Those of a grid whose numbers are below `executed`."""
        self.grid, self.executed = (*grid, *[1] * (3 - len(grid))), (*executed, *[1] * (3 - len(grid)))
        self.program: tuple[int, ...] = (0, 0, 0)
        self.flops = self.operations = 0

    def run(self, function: Callable[..., Any], arguments: dict[str, Any]) -> list[_Places]:
        """Execute them; the tensors of the launch with what was noted."""
        Programs.current = self
        tensors = {n: _Places(n, x) for n, x in arguments.items() if isinstance(x, Tensor)}
        for program in np.ndindex(self.executed):
            self.program = program
            function(**{n: Pointer(tensors[n]) if n in tensors else x for n, x in arguments.items()})
        return list(tensors.values())


class Kernel:
    """What `@triton.jit` makes of a function: called from a kernel it runs, launched on a grid it is handed to `launched`."""

    launched: Callable[[Kernel, tuple[int, ...], dict[str, Any]], None]

    def __init__(self, function: Any) -> None:
        code = function.__code__  # Triton's `range` gives what has `.to`
        function.__code__ = code.replace(co_names=tuple("steps" if n == "range" else n for n in code.co_names))
        self.function, self.__name__ = function, function.__name__
        self.arg_names = list(signature(function).parameters)

    def __call__(self, *arguments: Any) -> Any:
        return self.function(*arguments)

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def launch(*arguments: Any, **named: Any) -> None:
            given = {**dict(zip(self.arg_names, arguments, strict=False)), **named}
            Kernel.launched(self, grid, {n: given[n] for n in self.arg_names})

        return launch


def _shape(x: Any) -> tuple[int, ...]:
    return x.shape if isinstance(x, Data | np.ndarray) else ()


def _index(x: Any) -> Index:
    return np.asarray(x).view(Index)


def _load(pointer: Pointer, mask: Any = None, other: Any = None) -> Data:
    return Data(pointer.at.note("loaded", pointer, mask), pointer.at.tensor.dtype)


def _store(pointer: Pointer, value: Any, mask: Any = None) -> None:
    pointer.at.note("stored", pointer, mask)


def _full(shape: Any, value: Any, dtype: torch.dtype) -> Any:
    return Data(tuple(shape), dtype) if dtype.is_floating_point else _index(np.full(tuple(shape), value, np.int64))


def _dot(a: Any, b: Any, acc: Any = None, **_: Any) -> Data:
    rows, inner, columns = *_shape(a), _shape(b)[1]
    Programs.current.flops += 2 * rows * inner * columns
    return Data((rows, columns))


def _reduce(x: Any, axis: int, keep_dims: bool = False) -> Data:
    Programs.current.operations += math.prod(_shape(x))
    return Data(_shape(x)[:axis] + (1,) * keep_dims + _shape(x)[axis + 1 :])


def _either(numbers: Callable[..., Any]) -> Callable[..., Any]:
    """Numbers for indices, shapes for data."""

    def run(*operands: Any) -> Any:
        return _elementwise(*operands) if any(isinstance(x, Data) for x in operands) else _index(numbers(*operands))

    return run


def _scan(operands: tuple[Data, ...], axis: int, join: Any, reverse: bool = False) -> tuple[Data, ...]:
    """A join of every entry with what is before it."""
    join(*operands, *operands)
    return operands


def _same(x: Any, *_: Any, **__: Any) -> Any:
    return x


def steps(*bounds: Any, **_: Any) -> Iterator[Index]:
    """`range` in a kernel."""
    return map(_index, range(*map(int, bounds)))


_FUNCTIONS = dict.fromkeys("exp exp2 log log2 sqrt sin cos sigmoid".split(), lambda x: _elementwise(x))
tl = SimpleNamespace(
    **_FUNCTIONS, math=SimpleNamespace(erf=lambda x: _elementwise(x)), constexpr=_same,
    **{d: getattr(torch, d) for d in ("float64", "float32", "bfloat16", "float16", "int32", "int64")},
    program_id=lambda axis: _index(Programs.current.program[axis]),
    num_programs=lambda axis: _index(Programs.current.grid[axis]),
    arange=lambda begin, end: np.arange(begin, end).view(Index),
    zeros=lambda shape, dtype: _full(shape, 0, dtype), full=_full, zeros_like=lambda x: Data(_shape(x)), associative_scan=_scan,
    load=_load, store=_store, dot=_dot, trans=lambda x: Data(_shape(x)[::-1], x.dtype),
    reshape=lambda x, shape: Data(tuple(shape), x.dtype), permute=lambda x, order: Data(tuple(x.shape[n] for n in order), x.dtype),
    split=lambda x: (Data(x.shape[:-1], x.dtype),) * 2,
    sum=_reduce, max=_reduce, cumsum=lambda x, axis, reverse=False: _elementwise(x),
    where=_either(np.where), maximum=_either(np.maximum), minimum=_either(np.minimum), abs=_either(np.abs),
    cast=lambda x, dtype: x.to(dtype) if isinstance(x, Data) else x, broadcast_to=lambda x, shape: Data(tuple(shape)),
    cdiv=lambda a, b: -(-a // b), steps=steps, static_range=lambda *bounds: range(*bounds), debug_barrier=lambda: None,
)  # fmt: skip
triton = SimpleNamespace(
    jit=Kernel, cdiv=lambda a, b: -(-a // b), language=tl, knobs=SimpleNamespace(runtime=SimpleNamespace(interpret=True))
)

"""The launches of a module on tensors without memory, and what each moves. Entry point: `counted`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ...torch_module.load import build_from, load_text
from .language import Kernel, Programs

TRITON = "import triton\nimport triton.language as tl"
STAND_IN = f"from {__package__}.language import steps, tl, triton\nfrom {__package__}.launches import operator"


@dataclass(frozen=True)
class Launch:
    """A kernel, or operations of PyTorch between kernels (`grid` is then their number).

    `asked` are the bytes that its programs load and store; `moved` are the distinct ones of them, each loaded once and
    stored once. `flops` are those of products of tiles, `operations` those on single entries.
    """

    name: str
    grid: tuple[int, ...]
    asked: int
    moved: int
    flops: int = 0
    operations: int = 0


@dataclass
class Count:
    """A module's launches, forward and backward, and the bytes that nothing could avoid: of inputs and outputs, each once;
    backward of inputs, gradients of outputs, and gradients of inputs."""

    least: dict[str, int] = field(default_factory=dict)
    launches: dict[str, list[Launch]] = field(default_factory=dict)
    operators: dict[str, list[tuple[str, int]]] = field(default_factory=dict)  # what each is given, and its first result

    def ratio(self, part: str) -> float:
        """How many times the least bytes are moved."""
        return sum(x.moved for x in self.launches[part]) / self.least[part]


class _Noting(TorchDispatchMode):
    """Notes launches of kernels, and operations of PyTorch that touch memory."""

    def __init__(self, planes: tuple[int, ...]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.planes = planes
        self.found: list[Launch] = []
        self.operators: list[tuple[str, int]] = []
        _Operator.called = self.operators

    def kernel(self, kernel: Kernel, grid: tuple[int, ...], arguments: dict[str, Any]) -> None:
        parts = next(p for p in (*self.planes, 1) if grid[0] % p == 0)
        executed = (grid[0] // parts, *(1 if self.planes and len(grid) == 3 and not k else n for k, n in enumerate(grid[1:])))
        share = math.prod(grid) // math.prod(executed)
        programs = Programs(grid, executed)
        places = programs.run(kernel.function, arguments)
        asked = moved = 0
        for x in places:
            entries = math.prod(n for n, step in zip(x.tensor.shape, x.tensor.stride(), strict=True) if step)
            size = x.tensor.element_size()
            asked += size * share * sum(x.asked.values())
            moved += size * sum(min(entries, share * n) for n in x.touched.values())  # parts share a tensor, or divide it
        found = Launch(kernel.__name__.strip("_").removesuffix("_kernel"), grid, asked, moved,
                       programs.flops * share, programs.operations * share)  # fmt: skip
        self.found.append(found)

    def __torch_dispatch__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
        result = function(*arguments, **(named or {}))
        views = any(r.alias_info is not None and not r.alias_info.is_write for r in function._schema.returns)
        if not views and "empty" not in function._schema.name:
            moved = sum(_bytes(x) for x in _tensors((*arguments, *(named or {}).values(), result)))
            if moved:
                last = self.found[-1] if self.found and self.found[-1].name == "PyTorch" else None
                if last is not None:
                    self.found.pop()
                    moved += last.moved
                self.found.append(Launch("PyTorch", ((last.grid[0] if last else 0) + 1,), moved, moved))
        return result


def _tensors(values: Iterable[Any]) -> Iterable[Tensor]:
    for x in values:
        if isinstance(x, Tensor):
            yield x
        elif isinstance(x, tuple | list):
            yield from _tensors(x)


def _bytes(x: Tensor) -> int:
    """Of the distinct entries."""
    return x.element_size() * math.prod(n for n, step in zip(x.shape, x.stride(), strict=True) if step)


def operator(name: str, **_: Any) -> Callable[[Callable[..., Any]], Any]:
    """What stands in for `torch.library.custom_op`: the function itself, which PyTorch differentiates as it is told to."""
    return partial(_Operator, name.rpartition("::")[2])


class _Operator:
    called: list[tuple[str, int]]

    def __init__(self, name: str, run: Callable[..., Any]) -> None:
        self.name, self.run = name, run

    def __call__(self, *arguments: Any) -> Any:
        result = self.run(*arguments)
        first = next(iter(_tensors([result])))
        _Operator.called.append((self.name, sum(map(_bytes, [*_tensors(arguments), first]))))
        return result

    def register_fake(self, function: Callable[..., Any]) -> Callable[..., Any]:
        return function

    def register_autograd(self, backward: Callable[..., Any], *, setup_context: Callable[..., Any]) -> None:
        parts = {"forward": staticmethod(self.run), "setup_context": staticmethod(setup_context),
                 "backward": staticmethod(backward)}  # fmt: skip
        made: Any = type("Function", (torch.autograd.Function,), parts)
        self.run = made.apply


def counted(
    text: str,
    class_name: str,
    companions: dict[str, str],
    inputs: list[tuple[tuple[int, ...], torch.dtype]],
    sizes: dict[str, int] | None = None,
    *,
    planes: tuple[int, ...] = (),
    backward: bool = True,
) -> Count:
    """What a module with these files launches on inputs of these shapes, each with its batch axis.

    `planes`: numbers of equal parts, of which one is executed where the first axis of a grid divides into them; the batch
    times the heads, for example. Of three axes the second, blocks of channels, is then executed at its first place alone,
    which is right for widths that are whole tiles. Raises `language.Unknown` for a kernel whose places stand in memory.
    """
    module = build_from(getattr(linked(text, companions, _loaded), class_name), class_name, **(sizes or {})).to("meta")
    given = [torch.empty(shape, dtype=dtype, device="meta").requires_grad_(dtype.is_floating_point) for shape, dtype in inputs]
    held = [*given, *module.parameters()]
    wanted = [x for x in held if x.requires_grad]
    found = Count()

    def noted(part: str, run: Callable[[], Any], least: list[Tensor]) -> None:
        with _Noting(planes) as noting:
            Kernel.launched = noting.kernel
            results = list(_tensors([run()]))
        found.launches[part], found.operators[part] = noting.found, noting.operators
        found.least[part] = sum(map(_bytes, least + results))

    def adjoint(outputs: list[Tensor], gradients: list[Tensor]) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(outputs, wanted, gradients, allow_unused=True)

    Kernel.launched, _Operator.called = lambda *_: None, []  # a first run, for what is made once and kept
    outputs = list(_tensors([module(*given)]))
    gradients = [torch.empty_like(y) for y in outputs]
    if backward:
        adjoint(outputs, gradients)()
    with torch.no_grad():
        noted("forward", lambda: module(*given), held)
    if backward:
        Kernel.launched = lambda *_: None
        outputs = list(_tensors([module(*given)]))
        noted("backward", adjoint(outputs, gradients), held + gradients)
    return found


def linked(text: str, companions: dict[str, str], load: Callable[[str], ModuleType]) -> ModuleType:
    """A generated file, and those that it imports, as `load` makes modules of them."""
    for name, kernels in companions.items():
        stem = load(kernels).__name__
        text = text.replace(f"from .{name} import", f"from {stem} import").replace(f"from {name} import", f"from {stem} import")
    return load(text)


def _loaded(text: str) -> ModuleType:
    """A generated file with what stands in for Triton."""
    return load_text(text.replace(TRITON, STAND_IN).replace("torch.library.custom_op(", "operator("))

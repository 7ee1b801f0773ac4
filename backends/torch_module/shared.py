"""What the sequences of a batch may share: kernels and tables over positions, made of inputs that do not lie along the
stream.

Such inputs, the weights of a mixer without parameters of its own, are often given once, with batch size 1, and repeated
for the batch. Their kernel is then computed once, and repeated: it is a function inside the module's, called with one
sequence where all of its operands are repetitions of one. Entry points: `shared`, `write_shared`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from seqdsl.ir.dependence import Loop, Step
from seqdsl.ir.node import walk
from seqdsl.ir.system import System, Tensor, dependencies, folds

from .context import Context, Stored
from .inner import called, within
from .values import plain


def shared(system: System, steps: Sequence[Step], tables: Collection[str], kept: Collection[str]) -> list[Step]:
    """The steps of what is shared: loops, and tensors along the stream, with what they are made of, where each of them reads
    an input, but none along the stream, nor a state. `tables` are known before, `kept` are what a state holds."""
    below = _candidates(system, steps, tables, kept)
    wanted: set[str] = set()
    for step in reversed(steps):
        names = set(step.tensors())
        if names <= below.keys():
            costly = isinstance(step, Loop) or any(_long(system, system.tensors[n]) for n in names)
            if names & wanted or costly and any(below[n] for n in names):
                wanted |= names.union(*(dependencies(system, system.tensors[n]) for n in names))
    return [s for s in steps if wanted.issuperset(s.tensors())]


def _candidates(
    system: System, steps: Sequence[Step], tables: Collection[str], kept: Collection[str]
) -> dict[str, frozenset[str]]:
    """The tensors that no input along the stream reaches, nor a state, and the inputs that each of them is made of."""
    fixed = {t.name for t in system.inputs() if not _streamed(system, t)}
    below: dict[str, frozenset[str]] = {}
    if len(fixed) == len(system.inputs()):
        return below
    for step in steps:
        names = step.tensors()
        reads = set().union(*(dependencies(system, system.tensors[n]) for n in names)) - set(names)
        known = all(n in fixed or n in below or n in tables or system.tensors[n].kind == "param" for n in reads)
        if known and not any(n in kept or not _whole(system.tensors[n]) for n in names):
            found = (reads & fixed).union(*(below[n] for n in reads if n in below))
            below |= dict.fromkeys(names, frozenset(found))
    return below


def _whole(tensor: Tensor) -> bool:
    """Has it an equation, and is it no fold?"""
    return tensor.kind == "derived" and tensor.rhs is not None and not folds(tensor.rhs)


def _streamed(system: System, tensor: Tensor) -> bool:
    return any(system.axis(i) == system.stream for i in tensor.indices)


def _long(system: System, tensor: Tensor) -> bool:
    """Does an index run as far as the stream is long?"""
    sizes = [system.index(i).size for i in tensor.indices]
    return _streamed(system, tensor) or any(
        n.op == "size" and n.attr == system.stream for size in sizes if size is not None for n in walk(size)
    )


def write_shared(ctx: Context, steps: Sequence[Step], execute: Callable[[Step], None]) -> None:
    """The function of what is shared, its call, and where that is found from then on."""
    read = {n for s in steps for t in s.tensors() for n in dependencies(ctx.system, ctx.system.tensors[t])}
    operands = []
    for tensor in ctx.system.inputs():
        place = ctx.places[tensor.name]
        if tensor.name in read and isinstance(place, Stored):
            operands.append(plain(place.value).text)
    name, batch = ctx.names.fresh("shared"), ctx.names.fresh("sequences")
    lines, values = within(ctx, steps, execute, batch=batch)
    arguments = ", ".join(f"{x}: Tensor" for x in operands)
    ctx.block.add(f"def {name}({batch}: int, {arguments}) -> list[Tensor]:")
    ctx.block.add("    # of one sequence alone, where the operands are repetitions of one")
    ctx.block.lines += lines
    called(ctx, values, f"{ctx.helper('_repeated')}({name}, {ctx.batch}, {', '.join(operands)})")

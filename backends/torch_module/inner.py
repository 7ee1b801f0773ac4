"""A function inside the generated one: some steps of the schedule are written as its body, and read by what it returns.

Its own variables are not known outside and leave their names; sizes and positions stand before it. Entry points:
`within`, the body and its `return`, and `called`, where its results are found from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from seqdsl.ir import build
from seqdsl.ir.dependence import Step
from seqdsl.ir.system import System, Tensor, dependencies

from . import expressions, reads, wavefront
from .context import Block, Context, Stored
from .names import Names, elements
from .values import BATCH, Value, permuted


def within(
    ctx: Context, steps: Sequence[Step], execute: Callable[[Step], None], *, batch: str
) -> tuple[list[str], dict[str, Value]]:
    """The lines of the function's body, and what it returns: the tensors that are read outside. `batch` is its variable of
    the batch size, empty where nothing in it has a batch."""
    wanted = _read_outside(ctx.system, {name for step in steps for name in step.tensors()})
    block, names = Block(ctx.block.indent + 1), ctx.names.copy()
    own = {"batched": bool(batch), "batch": batch or ctx.batch, "like": ctx.like if batch else Context.like}
    with ctx.having(block=block, names=names, **own), ctx.apart():
        for step in steps:
            execute(step)
        values = {n: _whole(ctx, ctx.system.tensors[n]) for n in map(wavefront.known_by, wanted)}
    block.add(f"return [{', '.join(v.text for v in values.values())}]")
    positions = {v.text for k, v in ctx.caches[0].items() if isinstance(k, tuple) and k[0] == "positions"}
    standing = {*positions, *ctx.about.values(), *(variable for variable, _ in ctx.size_lines)}
    ctx.names = Names(ctx.names.taken | (names.taken & standing))
    return block.lines, values


def called(ctx: Context, values: dict[str, Value], call: str) -> None:
    """The function's results by names."""
    variables = [ctx.names.fresh(n) for n in values]
    ctx.block.add(f"{elements(variables)} = {call}")
    for (tensor, value), variable in zip(values.items(), variables, strict=True):
        ctx.places[tensor] = Stored(replace(value, text=variable))


def _whole(ctx: Context, tensor: Tensor) -> Value:
    """A tensor over the indices that it varies along, by a name."""
    with ctx.equation(tensor):
        value = reads.read(ctx, build.whole(tensor))
        value = expressions.tensor(ctx, value, tensor.dtype)
        dims = tuple(d for d in (BATCH, *tensor.indices) if d in value.dims)
        value = permuted(value, dims) if set(value.dims) == set(dims) else value
        return value if value.text.isidentifier() else ctx.bind(tensor.name, value)


def _read_outside(system: System, inside: set[str]) -> list[str]:
    """The tensors inside that are read by others, or given out."""
    wanted = {*system.outputs, *system.finals.values()}
    for tensor in system.derived():
        if tensor.name not in inside:
            wanted |= dependencies(system, tensor)
    return [n for n in system.tensors if n in inside & wanted]

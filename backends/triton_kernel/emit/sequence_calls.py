"""Calls of the kernels for groups over whole sequences, each beside the lines that PyTorch has for the same equations.

Entry point: `Sequences`, which the torch target's emitter asks at every step of a schedule, as it asks `Chains`.
"""

from __future__ import annotations

from seqdsl.ir.node import Node

from ...torch_module import expressions
from ...torch_module.context import Block, Context, Stored
from ...torch_module.names import quoted, tuple_text
from ...torch_module.values import ATOM, BATCH, Value, permuted, plain
from .chain import Kernel
from .chain_adjoint import Adjoint
from .chains import Chains, call, dims_text, leaves
from .numbers import kinds
from .parts import Group, read_outside


class Sequences(Chains):
    """The groups of one function over whole sequences."""

    def value(self, ctx: Context, node: Node) -> Value:
        """With all indices of the read: a gradient has them, too."""
        value = super().value(ctx, node)
        if {*value.dims} >= node.free:
            return value
        dims = (*((BATCH,) if BATCH in value.dims else ()), *(str(a.attr) for a in node.args))
        return ctx.bind(str(node.attr).rpartition(".")[2], expressions.full(ctx, value, dims, node.dtype))

    def call(self, ctx: Context, group: Group) -> None:
        system, stored = ctx.system, read_outside(ctx.system, group)
        values = {node: self.value(ctx, node) for node in leaves(system, group)}
        name = ctx.names.fresh(f"{system.name}_{stored[-1].removesuffix('.in').rpartition('.')[2]}_sequence")
        forward, adjoint = _kernels(ctx, group, values, stored, name)
        self.written[name] = _text(name, forward, adjoint, ctx)
        outputs = [ctx.names.fresh(n) for n in stored]
        whole = tuple_text(ctx.dim_text(i) for i in group.whole)
        outer = ctx.block
        outer.add(f"if runs_fused({tuple_text(v.text for v in values.values())}, {whole}):")
        ctx.block = Block(outer.indent + 1)
        for tensor in group.tensors:
            ctx.comment(system.tensors[tensor])
        call(ctx, name, forward[0], values, outputs)
        outer.lines += [*ctx.block.lines, "    " * outer.indent + "else:"]
        ctx.block = Block(outer.indent + 1)
        _in_pytorch(ctx, group, values, dict(zip(stored, outputs, strict=True)))
        outer.lines += ctx.block.lines
        ctx.block = outer


def _kernels(
    ctx: Context, group: Group, values: dict[Node, Value], stored: tuple[str, ...], name: str
) -> tuple[tuple[Kernel, list[str]], tuple[Adjoint, list[str]]]:
    """Both kernels with their lines. They take the same numbers: whatever one of them needs."""
    given = {node: tuple(v.dims) for node, v in values.items()}
    rows = (BATCH, *(i for i in group.space if i not in group.tile))
    numbers: dict[Node, str] = {}
    while True:
        forward = Kernel(ctx.system, group, dict(given), stored, rows, dict(numbers))
        lines = forward.text(f"_{name}_kernel")
        adjoint = Adjoint(ctx.system, group, dict(given), stored, (), dict(forward.numbers))
        more = adjoint.text(f"_{name}_adjoint_kernel")
        if adjoint.numbers == numbers:
            return (forward, lines), (adjoint, more)
        numbers = adjoint.numbers


def _in_pytorch(ctx: Context, group: Group, values: dict[Node, Value], outputs: dict[str, str]) -> None:
    """The same equations as the torch target writes them. What a kernel takes as it is given is made wider here."""
    hoisted, system = ctx.hoisted, ctx.system
    ctx.caches.append({})
    wide = {n: Value(f"{v.at(ATOM)}.to(dtype)", v.dims, "real") for n, v in values.items() if n.dtype == "real"}
    ctx.hoisted = {**hoisted, **values, **{n: v if values[n].weight else ctx.bind("wide", v) for n, v in wide.items()
                                          if str(n.attr) in ctx.taken}}  # fmt: skip
    for name in group.tensors:
        tensor = system.tensors[name]
        assert tensor.rhs is not None
        with ctx.equation(tensor):
            value = expressions.convert(ctx, expressions.emit(ctx, tensor.rhs), tensor.dtype)
            if name in outputs:
                dims = (BATCH, *tensor.indices)
                value = plain(expressions.full(ctx, permuted(value, dims), dims, tensor.dtype))
                ctx.assign(outputs[name], value)
                value = Value(outputs[name], dims, tensor.dtype)
            else:
                value = ctx.bind(name, value)
            ctx.places[name] = Stored(value)
    ctx.caches.pop()
    ctx.hoisted = hoisted


def _text(name: str, forward: tuple[Kernel, list[str]], adjoint: tuple[Adjoint, list[str]], ctx: Context) -> str:
    """The kernels, and the function that launches them."""
    (kernel, lines), (back, more), group = forward, adjoint, forward[0].group
    outputs = [f"({dims_text((BATCH, *ctx.system.tensors[n].indices))}, {n in ctx.unread})" for n in kernel.outputs]
    gradients = [f"({kernel.leaves.index(g.leaf)}, {dims_text(g.dims)})" for g in back.gradients]
    plan = [
        f"_{name}_plan = _Sequence(",
        f"    name={quoted(name)},",
        f"    forward=_{name}_kernel,",
        f"    adjoint=_{name}_adjoint_kernel,",
        f"    space={tuple_text(map(quoted, group.space))},",
        f"    tile={tuple_text(f'({quoted(kernel.block[i])}, {quoted(i)})' for i in group.tile)},",
        f"    column={quoted(group.column)},",
        f"    leaves={tuple_text(dims_text(leaf.dims) for leaf in kernel.leaves)},",
        f"    outputs={tuple_text(outputs)},",
        f"    rows={tuple_text(quoted('batch' if d == BATCH else d) for d in back.rows)},",
        f"    gradients={tuple_text(gradients)},",
        f'    numbers="{kinds(kernel.numbers)}",',
        ")",
    ]
    parts = ["\n".join(lines), "\n".join(more), "\n".join([*plan, f"{name} = fused_sequence(_{name}_plan)"])]
    return "\n\n\n".join(parts)

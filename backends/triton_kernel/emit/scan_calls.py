"""Calls of the kernels for affine recurrences, each beside the lines that PyTorch has for the same equations.

Entry point: `scan_call`, which `Sequences` asks for groups of that kind.
"""

from __future__ import annotations

from collections.abc import Callable

from seqdsl.ir import build
from seqdsl.ir.node import Node
from seqdsl.ir.ops import options

from ...torch_module import expressions, function
from ...torch_module.context import Block, Context, Stored
from ...torch_module.names import tuple_text
from ...torch_module.prologue import stepping
from ...torch_module.values import BATCH, Value, plain, with_ones
from .affine import STATE, Affine
from .affine_kernels import kernels
from .numbers import given as given_numbers
from .numbers import kinds
from .scans import Scanned, found

InPyTorch = Callable[[dict[Node, Value], dict[str, str]], None]  # the same equations, of operands, as these variables


def scan_call(ctx: Context, group: Scanned, leaf: Callable[[Node], Value], in_pytorch: InPyTorch, written: dict[str, str]) -> None:
    """The call, and where the tensors that it gives are then. `leaf` is what a kernel loads of a read."""
    system, state = ctx.system, ctx.system.tensors[group.state]
    assert state.rhs is not None
    step, nodes = found(system, group)
    dims = (BATCH, *group.space)
    values = {node: leaf(node) if node.op == "read" else _part(ctx, node) for node in nodes}
    start = _start(ctx, state.rhs.args[2], (BATCH, *group.space[1:]))
    name = ctx.names.fresh(f"{system.name}_{group.state.rpartition('.')[2]}_scan")
    written[name] = _text(name, step, [n in ctx.unread or node is STATE and group.lasting for n, (_, node) in
                                       zip(group.stored, step.outputs, strict=True)])  # fmt: skip
    outputs = {n: ctx.names.fresh(n) for n in group.stored}
    last = ctx.names.fresh(f"{group.state}_last") if group.lasting else "_"
    operands = [with_ones(v, dims).text for v in values.values()]
    counts, numbers = given_numbers(ctx, step.numbers)
    lengths = [ctx.batch, *(ctx.dim_text(i) for i in group.space)]
    flags = ", reverse=True" if options(state.rhs)["reverse"] else ""
    asked = [v.text for v in values.values()] + ([start] if start != "None" else [])
    outer = ctx.block
    outer.add(f"if runs_scan({tuple_text(asked)}, [{', '.join(lengths)}]):")
    ctx.block = Block(outer.indent + 1)
    for tensor in group.tensors:
        ctx.comment(system.tensors[tensor])
    ctx.block.add(f"{', '.join([last, *outputs.values()])}{'' if outputs else ','} = {name}(")
    ctx.block.add(f"    [{', '.join(operands)}], {start},")
    ctx.block.add(f"    [{', '.join([*lengths, *counts])}], [{', '.join(numbers)}], out_dtype{flags}{ctx.each(group.space[0])},")
    ctx.block.add(")")
    outer.lines += [*ctx.block.lines, "    " * outer.indent + "else:"]
    ctx.block = Block(outer.indent + 1)
    in_pytorch(values, outputs)
    if group.lasting:
        entry = next(e for e in stepping(system).entries if e.tensor == group.state and e.tail is build.ONE)
        ctx.block.add(f"{last} = {function.kept(ctx, entry)}")
    outer.lines += ctx.block.lines
    ctx.block = outer
    for tensor, text in outputs.items():
        ctx.places[tensor] = Stored(Value(text, dims, "real"))
    if group.lasting:
        ctx.lasts[group.state] = last


def _part(ctx: Context, node: Node) -> Value:
    """An operand that PyTorch computes before."""
    value = expressions.tensor(ctx, plain(expressions.emit(ctx, node)), node.dtype)
    return value if value.text.isidentifier() else ctx.bind(expressions.temporary(ctx, node), value)


def _start(ctx: Context, node: Node, dims: tuple[str, ...]) -> str:
    """What enters the first step."""
    if node is build.ZERO:
        return "None"
    value = expressions.full(ctx, expressions.tensor(ctx, plain(expressions.emit(ctx, node)), "real"), dims, "real")
    return value.text if value.text.isidentifier() else ctx.bind("start", value).text


def _text(name: str, step: Affine, narrow: list[bool]) -> str:
    """The kernels, and the function that launches them."""
    made, entries = kernels(name, step), list(step.operands)
    plan = [
        f"_{name}_plan = _Affine(",
        f'    name="{name}",',
        f"    lanes={step.lanes},",
        f"    moves={tuple_text(str(x.moves) for x in entries)},",
        f"    learned={tuple_text(str(entries.index(x)) for x in step.gradients)},",
        f"    outputs={tuple_text(map(str, narrow))},",
        f'    numbers="{kinds(step.numbers)}",',
        *(f"    {which}={lines[1][4:-1]}," for which, lines in made.items()),
        ")",
    ]
    plan.append(f"{name} = fused_affine(_{name}_plan)")
    return "\n\n\n".join("\n".join(lines) for lines in (*made.values(), plan))

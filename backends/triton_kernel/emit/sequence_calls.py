"""Calls of the kernels for groups over whole sequences, each beside the lines that PyTorch has for the same equations.

Entry point: `Sequences`, which the torch target's emitter asks at every step of a schedule, as it asks `Chains`.
"""

from __future__ import annotations

from seqdsl.ir import build
from seqdsl.ir.dependence import Loop, Step
from seqdsl.ir.node import Node
from seqdsl.ir.system import System

from ...torch_module import convolutions, expressions, history, recurrence
from ...torch_module.context import Block, Context, Looped, Stored
from ...torch_module.names import quoted, tuple_text
from ...torch_module.values import ATOM, BATCH, Value, permuted, plain
from .chain import Kernel
from .chain_adjoint import Adjoint
from .chains import Chains, call, dims_text, leaves
from .numbers import kinds
from .parts import Group, read_outside, rights
from .scan_calls import scan_call
from .scans import Scanned
from .windows import Window, exchanged_windows


class Sequences(Chains):
    """The groups of one function over whole sequences."""

    def inside(self, loop: Loop) -> tuple[Step, ...]:
        """The steps of a loop's body, one for each group, behind all that it needs."""
        steps = list(loop.body)
        for group in self.found.groups:
            own = [s for s in steps if {*s.tensors()} <= {*group.tensors}]
            if group.depth is None or not own:
                continue
            needed = self._needed(group.depth.system, group.tensors)
            early = [s for s in steps if {*s.tensors()} & needed and s not in own]
            steps = [*early, own[0], *(s for s in steps if s not in early and s not in own)]
        return tuple(steps)

    def write(self, ctx: Context, step: Step) -> bool:
        """The same inside loops, where a group has one step."""
        group = next((g for g in self.found.groups if {*step.tensors()} & {*g.tensors}), None)
        if group is None or group.depth is None or isinstance(step, Loop):
            return group is not None and group.depth is None and super().write(ctx, step)
        self.call(ctx, group)
        return True

    def leaf(self, ctx: Context, group: Group, node: Node) -> Value:
        """What a kernel loads, with all indices of the read: a gradient has them, too."""
        if group.depth is None:
            value = self.value(ctx, node)
        else:
            value = expressions.tensor(ctx, expressions.emit(ctx, group.depth.back(node)), node.dtype)
            named = value.text.isidentifier() or value.weight
            value = value if named else ctx.bind(str(node.attr).rpartition(".")[2], value)
        if {*value.dims} >= node.free:
            return value
        dims = (*((BATCH,) if BATCH in value.dims else ()), *(str(a.attr) for a in node.args))
        return ctx.bind(str(node.attr).rpartition(".")[2], expressions.full(ctx, value, dims, node.dtype))

    def call(self, ctx: Context, group: Group) -> None:
        if isinstance(group, Scanned):
            scan_call(ctx, group, lambda node: self.value(ctx, node),
                      lambda values, outputs: _in_pytorch(ctx, ctx.system, group, values, outputs), self.written)  # fmt: skip
            return
        system = ctx.system if group.depth is None else group.depth.system
        stored = read_outside(system, group)
        parts = [exchanged_windows(system, right) for right in rights(system, group)]
        windows = dict.fromkeys(w for _, found in parts for w in found)
        own = {w.leaf for w in windows}
        values = {node: self.leaf(ctx, group, node) for node in leaves(group, (n for n, _ in parts)) if node not in own}
        summed = {w: (*_source(ctx, w), self.value(ctx, w.taps)) for w in windows}
        name = ctx.names.fresh(f"{system.name}_{stored[-1].removesuffix('.in').rpartition('.')[2]}_sequence")
        forward, adjoint = _kernels(system, group, values, {w: (x.dims, v.dims) for w, (x, _, v) in summed.items()}, stored, name)
        self.written[name] = _text(name, forward, adjoint, ctx)
        tensors = [v.text for v in values.values()] + [v.text for x, _, w in summed.values() for v in (x, w)]
        taps = {w: ctx.dim_text(w.lag) for w in windows}
        lengths = [n for w, (_, before, _) in summed.items() for n in (before, taps[w])]
        outputs = [ctx.names.fresh(n) for n in stored]
        asked = [tuple_text(tensors), tuple_text(map(ctx.dim_text, group.whole)), *([tuple_text(taps.values())] if taps else [])]
        outer = ctx.block
        outer.add(f"if runs_fused({', '.join(asked)}):")
        ctx.block = Block(outer.indent + 1)
        for tensor in group.tensors:
            ctx.comment(system.tensors[tensor])
        last = f" {history.numbers(ctx) if ctx.ends else 'None'}," if windows else ""
        call(ctx, name, forward[0], tensors, outputs, lengths, last)
        outer.lines += [*ctx.block.lines, "    " * outer.indent + "else:"]
        ctx.block = Block(outer.indent + 1)
        _in_pytorch(ctx, system, group, values, dict(zip(stored, outputs, strict=True)))
        outer.lines += ctx.block.lines
        ctx.block = outer
        for tensor, output in zip(stored, outputs, strict=True) if group.depth is not None else ():
            place, found = ctx.places[tensor], system.tensors[tensor]
            assert isinstance(place, Looped)
            recurrence.assign(ctx, ctx.system.tensors[tensor], place, Value(output, (BATCH, *found.indices), found.dtype))


def _source(ctx: Context, window: Window) -> tuple[Value, str]:
    """What a window is made of, behind what the state holds of it, and how many positions that is."""
    tensor = ctx.system.tensors[str(window.read.attr)]
    place, dims = window.indices.index(window.time), (BATCH, *window.indices)
    value, before = convolutions.entries(ctx, convolutions.Signal(window.read, tensor, place, window.time))
    value = plain(expressions.convert(ctx, value, "real"))
    if not before:
        value = expressions.full(ctx, value, dims, "real")
    value = permuted(value, dims)
    assert value.dims == dims, window
    return value if value.text.isidentifier() else ctx.bind(tensor.name, value), before or "0"


def _kernels(
    system: System,
    group: Group,
    values: dict[Node, Value],
    windows: dict[Window, tuple[tuple[str, ...], tuple[str, ...]]],
    stored: tuple[str, ...],
    name: str,
) -> tuple[tuple[Kernel, list[str]], tuple[Adjoint, list[str]]]:
    """Both kernels with their lines. They take the same numbers: whatever one of them needs."""
    given = {node: tuple(v.dims) for node, v in values.items()}
    rows = (BATCH, *(i for i in group.space if i not in group.tile))
    numbers: dict[Node, str] = {}
    while True:
        forward = Kernel(system, group, dict(given), stored, rows, dict(numbers), windows)
        lines = forward.text(f"_{name}_kernel")
        adjoint = Adjoint(system, group, dict(given), stored, (), dict(forward.numbers), windows)
        more = adjoint.text(f"_{name}_adjoint_kernel")
        if adjoint.numbers == numbers:
            return (forward, lines), (adjoint, more)
        numbers = adjoint.numbers


def _in_pytorch(
    ctx: Context, system: System, group: Group, values: dict[Node, Value], outputs: dict[str, str]
) -> None:
    """The same equations as the torch target writes them. What a kernel takes as it is given is made wider here."""
    hoisted = ctx.hoisted
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
            if group.depth is None:
                ctx.places[name] = Stored(value)
            else:
                ctx.hoisted[build.whole(tensor)] = value
    ctx.caches.pop()
    ctx.hoisted = hoisted


def _text(name: str, forward: tuple[Kernel, list[str]], adjoint: tuple[Adjoint, list[str]], ctx: Context) -> str:
    """The kernels, and the function that launches them."""
    (kernel, lines), (back, more), group = forward, adjoint, forward[0].group
    deep = group.depth is not None
    outputs = [f"({dims_text((BATCH, *kernel.system.tensors[n].indices))}, {n in ctx.unread and not deep})" for n in kernel.outputs]
    order = [*(leaf.node for leaf in kernel.leaves), *(s.window.leaf for s in kernel.sums)]
    gradients = [f"({order.index(g.leaf.node)}, {dims_text(g.dims)})" for g in back.gradients]
    windows = [f"_Window({dims_text(s.source.dims)}, {dims_text(s.taps.dims)}, {quoted(s.window.time)}, {quoted(s.window.lag)}, "
               f"{s.window.step}, {s.window.skip})" for s in kernel.sums]  # fmt: skip
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
        *([f"    windows={tuple_text(windows)},"] if windows else []),
        ")",
    ]
    parts = ["\n".join(lines), "\n".join(more), "\n".join([*plan, f"{name} = fused_sequence(_{name}_plan)"])]
    return "\n\n\n".join(parts)

"""Calls of the kernels for groups of equations, in place of the lines that PyTorch would have.

Entry point: `Chains`, which the torch target's emitter asks at every step of a schedule (`torch_module.target.Chaining`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from seqdsl.ir.dependence import Loop, Step
from seqdsl.ir.node import Node
from seqdsl.ir.node import reads as reads_below
from seqdsl.ir.state import record_paths
from seqdsl.ir.system import System, sources

from ...torch_module import expressions
from ...torch_module.context import Context, Stored
from ...torch_module.names import quoted, tuple_text
from ...torch_module.narrow import whole_input
from ...torch_module.values import BATCH, Value
from .chain import Kernel
from .numbers import given as given_numbers
from .numbers import kinds
from .parts import Group, Grouped, read_outside, rights


@dataclass
class Chains:
    """The groups of one function. Their kernels' text goes into `written`."""

    found: Grouped
    written: dict[str, str] = field(default_factory=dict)
    one_position: bool = True  # has the function one position of the stream?

    def keeps(self) -> set[str]:
        """Tensors that are computed where their group is."""
        return {n for g in self.found.groups for n in g.tensors}

    def order(self, system: System, plan: Iterable[Step]) -> tuple[Step, ...]:
        """The plan with the tensors of a group one after the other: what they need before, all else behind."""
        steps = list(plan)
        for group in [g for g in self.found.groups if g.depth is None]:
            needed = self._needed(system, group.tensors)
            early = [s for s in steps if set(s.tensors()) & needed]
            own = [s for s in steps if set(s.tensors()) <= set(group.tensors)]
            steps = [*early, *own, *(s for s in steps if s not in early and s not in own)]
        return tuple(steps)

    def inside(self, loop: Loop) -> tuple[Step, ...]:
        """The steps of a loop's body."""
        return loop.body

    def _needed(self, system: System, names: list[str]) -> set[str]:
        """What some tensors are computed from, all the way; of a group that is needed, all of it."""
        found: set[str] = set()
        pending = list(names)
        while pending:
            name = pending.pop()
            group = next((g.tensors for g in self.found.groups if name in g.tensors and name not in names), [])
            for source in {*sources(system, system.tensors[name]), *group} - found:
                found.add(source)
                pending.append(source)
        return found - set(names)

    def write(self, ctx: Context, step: Step) -> bool:
        """Is it a step of a group? Its first one writes the call."""
        group = next((g for g in self.found.groups if set(step.tensors()) & set(g.tensors)), None)
        if group is None:
            return False
        if not all(n in ctx.places for n in group.tensors):
            self.call(ctx, group)
        return True

    def call(self, ctx: Context, group: Group) -> None:
        """The call of a group's kernel; the tensors that it gives have their places then."""
        system, stored = ctx.system, read_outside(ctx.system, group)
        values = {node: self.value(ctx, node) for node in leaves(group, rights(system, group))}
        kernel = Kernel(system, group, {node: tuple(v.dims) for node, v in values.items()}, stored)
        name = ctx.names.fresh(f"{system.name}_{stored[-1].rpartition('.')[2]}_chain")
        self.written[name] = _text(name, kernel, kernel.text(f"_{name}_kernel"), ctx)
        for tensor in group.tensors:
            ctx.comment(system.tensors[tensor])
        outputs = [ctx.names.fresh(n) for n in stored]
        call(ctx, name, kernel, (v.text for v in values.values()), outputs)
        for tensor in group.tensors:  # the others are the kernel's own
            dims = (BATCH, *system.tensors[tensor].indices)
            text = outputs[stored.index(tensor)] if tensor in stored else "None"
            ctx.places[tensor] = Stored(Value(text, dims, system.tensors[tensor].dtype))

    def value(self, ctx: Context, node: Node) -> Value:
        """What a kernel loads: an input, or a parameter, as it is given; the rest in the dtype of the computation."""
        narrow = whole_input(ctx, node)
        value = expressions.emit(ctx, node) if narrow is None else narrow
        if value.static:
            value = expressions.tensor(ctx, value, node.dtype)
        return value if value.text.isidentifier() or value.weight else ctx.bind(str(node.attr).rpartition(".")[2], value)

    def test(self, system: System, names: list[str]) -> str:
        """What a module asks before a step: may it run in kernels?"""
        held = [_held(system, g) for g in self.found.groups]
        return f"in_kernels({tuple_text(names)}, state, {tuple_text(held)}, self)"


def call(
    ctx: Context, name: str, kernel: Kernel, tensors: Iterable[str], outputs: list[str], more: Iterable[str] = (), last: str = ""
) -> None:
    """The call of a function that launches a kernel; `more` are integers behind those of the kernel's numbers, and `last` is
    the last argument."""
    sizes = [ctx.batch, *(ctx.dim_text(i) for i in kernel.group.space)]
    counts, numbers = given_numbers(ctx, kernel.numbers)
    alone = "," if len(outputs) == 1 and not kernel.group.stream else ""
    ctx.block.add(f"{', '.join(outputs)}{alone} = {name}(")
    ctx.block.add(f"    {', '.join(tensors)},")
    ctx.block.add(f"    [{', '.join([*sizes, *counts, *more])}], [{', '.join(numbers or ['0.0'])}], out_dtype,{last}")
    ctx.block.add(")")


def leaves(group: Group, rights: Iterable[Node]) -> list[Node]:
    """The reads below right sides of what the group does not compute, each once."""
    found: dict[Node, None] = {}
    for right in rights:
        found |= dict.fromkeys(n for n in reads_below(right) if str(n.attr) not in group.tensors)
    return list(found)


def _held(system: System, group: Group) -> str:
    """Where a step can read how long the indices are that a program holds whole: at a state, an input or a parameter."""
    return tuple_text(_place(system, system.axis(i)) for i in group.whole)


def _place(system: System, axis: str) -> str:
    """`("S", 2)`: a tensor, an input by its number, and the dimension in a step. An index that none of them has is short:
    a window whose length is written in the equations."""
    paths = record_paths(e.name for e in system.record or ())
    inputs = [t.name for t in system.inputs()]
    for tensor in sorted(system.tensors.values(), key=lambda t: ("carry", "input", "param", "const", "derived").index(t.kind)):
        dims = [i for i in tensor.indices if system.axis(i) != system.stream or tensor.kind != "input"]
        found = next((k for k, i in enumerate(dims) if system.axis(i) == axis), None)
        if found is None or tensor.kind == "derived":
            continue
        if tensor.kind == "carry":
            return f"({quoted('/'.join(paths[tensor.path[0]]))}, {found + 1})"
        if tensor.kind == "input":
            return f"({inputs.index(tensor.name)}, {found + 1})"
        return f"({quoted('.'.join(('', *tensor.path)))}, {found})"
    return '("", 0)'


def dims_text(dims: Iterable[str]) -> str:
    """Dimensions as a launch is told of them."""
    return quoted(" ".join("batch" if d == BATCH else d for d in dims))


def _text(name: str, kernel: Kernel, lines: list[str], ctx: Context) -> str:
    """The kernel, and the function that launches it."""
    group, system = kernel.group, kernel.system

    outputs = [f"({dims_text(system.tensors[n].indices)}, {n in ctx.unread})" for n in kernel.outputs]
    plan = [
        f"_{name}_plan = _Chain(",
        f"    name={quoted(name)},",
        f"    kernel=_{name}_kernel,",
        f"    space={tuple_text(map(quoted, group.space))},",
        f"    whole={tuple_text(map(quoted, group.whole))},",
        f"    column={quoted(group.column)},",
        f"    tile={tuple_text(f'({quoted(kernel.block[i])}, {quoted(i)})' for i in group.tile)},",
        f"    leaves={tuple_text(dims_text(leaf.dims) for leaf in kernel.leaves)},",
        f"    outputs={tuple_text(outputs)},",
        f'    numbers="{kinds(kernel.numbers)}",',
        ")",
    ]
    return "\n".join(lines) + "\n\n\n" + "\n".join([*plan, f"{name} = fused_chain(_{name}_plan)"])

"""A recurrence over fronts (`forms.wavefront`) as a nested function of one step at a front's cells, and one call.

The system evaluates a front at every cell, and tells those on the grid from the halo; here the step sees the cells on
the grid alone, as many as the front has. What it reads of earlier fronts, and of tensors over the grid, are arguments
with the dimensions [B, cells, ..]; inside, they are read as tensors of their own, at the cell. Results are the tensors
over the grid, not their fronts. Entry points: `is_wavefront`, `run`, `known_by`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from seqdsl.ir import build
from seqdsl.ir.dependence import Compute, Loop
from seqdsl.ir.node import Node, reads, rebuild, walk
from seqdsl.ir.ops import options
from seqdsl.ir.order import difference
from seqdsl.ir.system import Tensor

from . import expressions
from .context import Block, Context, Stored
from .names import elements, tuple_text
from .values import BATCH, CHOICE, Value, with_ones


@dataclass(frozen=True)
class _Fronts:
    """The tensors of a loop over fronts, in the order of a step, and the geometry of their grid. `earlier` is what a
    step reads of other cells, (front, rows before, columns before); `kept` are the tensors that this, or something
    outside of the loop, wants."""

    tensors: tuple[Tensor, ...]
    geometry: dict[str, Any]
    earlier: tuple[tuple[str, int, int], ...] = ()
    kept: tuple[Tensor, ...] = ()

    @property
    def cell(self) -> str:
        """The index of a front's cells."""
        return self.tensors[0].indices[1]

    @property
    def grid(self) -> tuple[str, str]:
        """The indices of the grid, rows and columns."""
        return self.geometry["along"], self.geometry["across"]

    def rest(self, dims: tuple[str, ...]) -> tuple[str, ...]:
        """What something over the grid varies along besides."""
        return tuple(d for d in dims if d not in (BATCH, *self.grid))


def is_wavefront(ctx: Context, loop: Loop) -> bool:
    """Does a loop run over the fronts of a grid?"""
    rhs = [ctx.system.tensors[n].rhs for n in loop.tensors()]
    return all(r is not None and r.op == "where" and r.args[1].op == "front" for r in rhs)


def run(ctx: Context, loop: Loop) -> None:
    """Write the step, the call, and its results as tensors over the grid."""
    fronts = _fronts(ctx, loop)
    for tensor in fronts.tensors:
        ctx.comment(tensor)
    with ctx.equation(fronts.tensors[0]):
        given = _operands(ctx, fronts)
        operands = [with_ones(v, (BATCH, *fronts.grid, *fronts.rest(v.dims))).text for v in given.values()]
        halos = [_halo(ctx, tensor) for tensor in fronts.kept]
        blanks = [_blank(ctx, tensor) for tensor in fronts.kept]
        places = {tensor.name: n for n, tensor in enumerate(fronts.kept)}
        cells = [str((places[name], rows, columns)) for name, rows, columns in fronts.earlier]
        step = ctx.names.fresh(f"{_base(fronts.tensors[0])}_step")
        _function(ctx, step, fronts, given)
        names = [ctx.names.fresh(_base(tensor)) for tensor in fronts.kept]
        shape = f"({', '.join(ctx.length(i) for i in fronts.grid)})"
        lists = (f"[{', '.join(part)}]" for part in (blanks, halos, cells, operands))
        arguments = [step, *lists, shape, *_flags(fronts.geometry)]
        dims = [(BATCH, *fronts.grid, *tensor.indices[2:]) for tensor in fronts.kept]
        ctx.call(elements(names), ctx.support("wavefront"), arguments, "], [".join(dict.fromkeys(map(ctx.shape, dims))))
    for tensor, name, own in zip(fronts.kept, names, dims, strict=True):
        ctx.places[_base(tensor)] = Stored(Value(name, own, tensor.dtype))


def known_by(name: str) -> str:
    """The tensor that a computed one is found by: of a front the one over its grid, else itself."""
    return name.removesuffix(".front")


def _base(front: Tensor) -> str:
    """The tensor over the grid that a front is of."""
    return known_by(front.name)


def _fronts(ctx: Context, loop: Loop) -> _Fronts:
    order = [ctx.system.tensors[s.tensor] for s in loop.body if isinstance(s, Compute)]
    assert order[0].rhs is not None
    fronts = _Fronts(tuple(order), options(order[0].rhs.args[1]))
    names = {t.name for t in order}
    found = dict.fromkeys((str(r.attr), *_back(fronts, r)) for t in order for r in reads(_step_of(t)) if r.attr in names)
    earlier = tuple(read for read in found if read[1:] != (0, 0))
    kept = [t for t in order if _base(t) in ctx.system.tensors or any(t.name == name for name, *_ in earlier)]
    return replace(fronts, earlier=earlier, kept=tuple(kept))


def _step_of(front: Tensor) -> Node:
    """The step itself, without the choice between the grid and its halo."""
    assert front.rhs is not None
    return front.rhs.args[1].args[0]


def _flags(geometry: dict[str, Any]) -> list[str]:
    margins = (geometry["lead"], geometry["before"], geometry["after"])
    flags = [f"slope={geometry['slope']}"] if geometry["slope"] != 1 else []
    flags += [f"margins={margins}"] if margins != (1, 1, 0) else []
    return flags + [f"{name}=True" for name in ("up", "left") if geometry[name]]


def _back(fronts: _Fronts, read: Node) -> tuple[int, int]:
    """How many rows and columns before the cell a front is read."""
    front, cell = (build.index(i) for i in fronts.tensors[0].indices[:2])
    by, rows = (
        int(difference(i, at).get(None, build.Fraction(0))) for i, at in ((front, read.args[0]), (cell, read.args[1]))
    )
    return rows, by - fronts.geometry["slope"] * rows


def _operands(ctx: Context, fronts: _Fronts) -> dict[str, Value]:
    """The tensors over the grid that a step reads at the cell, whole."""
    names, moving = {t.name for t in fronts.tensors}, set(fronts.tensors[0].indices[:2])
    found: dict[str, Value] = {}
    for tensor in fronts.tensors:
        for read in reads(_step_of(tensor)):
            name = str(read.attr)
            if name not in names and name not in found and read.free & moving:
                own = ctx.system.tensors[name]
                value = expressions.emit(ctx, build.read(name, [build.index(i) for i in own.indices], own.dtype))
                value = expressions.tensor(ctx, value, own.dtype)
                found[name] = value if value.text.isidentifier() else ctx.bind(name, value)
    return found


def _blank(ctx: Context, tensor: Tensor) -> str:
    lanes = "".join(f", {ctx.dim_text(d)}" for d in tensor.indices[2:])
    return f"torch.zeros({ctx.batch}, 1{lanes}, dtype={expressions.KINDS[tensor.dtype]}, device=device)"


def _halo(ctx: Context, tensor: Tensor) -> str:
    """`(top, corner, left, right)`: each over all its dimensions, in the state's own type."""
    texts = []
    for side in ("top", "corner", "left", "right"):
        own = ctx.system.tensors.get(f"{_base(tensor)}.{side}")
        if own is None or tensor.rhs is None or not any(r.attr == own.name for r in reads(tensor.rhs)):
            texts.append("None")
            continue
        value = expressions.emit(ctx, build.whole(own))
        value = expressions.full(ctx, value, (BATCH, *own.indices), own.dtype)
        value = expressions.convert(ctx, value, tensor.dtype)
        texts.append(f"None if state is None else {value.at(CHOICE + 1)}" if _only_of_a_state(ctx, own) else value.text)
    return tuple_text(texts)


def _only_of_a_state(ctx: Context, halo: Tensor) -> bool:
    """Is it 0 where no state is given?"""
    carry = ctx.system.tensors[str(halo.rhs.attr)] if halo.rhs is not None and halo.rhs.op == "read" else None
    return ctx.stateful and carry is not None and carry.kind == "carry" and carry.rhs in (build.ZERO, build.FALSE)


def _function(ctx: Context, name: str, fronts: _Fronts, given: dict[str, Value]) -> None:
    """`def y_step(earlier, given)`: the states at the cells of a front."""
    block = Block(ctx.block.indent + 1)
    own = {"order": ctx.order, "current": ctx.current, "lengths": ctx.lengths, "uses": ctx.uses}  # each tensor sets them
    with ctx.having(block=block, caches=[{}], local=dict(ctx.local), fused=True, **own):
        entering = [_entering(ctx, fronts, *read) for read in fronts.earlier]
        operands = []
        for tensor, value in given.items():
            operands.append(ctx.names.fresh(f"{value.text}_here"))
            _at_cell(ctx, fronts, tensor, operands[-1], fronts.rest(value.dims), value.dtype)
        for names, argument in ((entering, "earlier"), (operands, "given")):
            if names:
                block.add(f"{elements(names)} = {argument}")
        ctx.lengths = {**ctx.lengths, fronts.cell: f"{entering[0]}.shape[1]"}
        steps = [rebuild(_step_of(t), lambda n: _moved(ctx, fronts, given, n)) for t in fronts.tensors]
        ctx.uses = {**ctx.uses, **_uses(steps)}
        after = {t.name: _after(ctx, fronts, t, step) for t, step in zip(fronts.tensors, steps, strict=True)}
        block.add(f"return [{', '.join(after[t.name] for t in fronts.kept)}]")
    ctx.block.add(f"def {name}(earlier: Any, given: Any) -> Any:  # the step at the cells of a front")
    ctx.block.lines.extend(block.lines)


def _entering(ctx: Context, fronts: _Fronts, front: str, rows: int, columns: int) -> str:
    """The variable that holds an earlier cell of a front for each cell."""
    tensor = ctx.system.tensors[front]
    variable = ctx.names.fresh(f"{_base(tensor)}_{_direction(rows, columns)}")
    _at_cell(ctx, fronts, f"{front} {rows} {columns}", variable, tensor.indices[2:], tensor.dtype)
    return variable


def _after(ctx: Context, fronts: _Fronts, tensor: Tensor, step: Node) -> str:
    """The variable that holds a tensor at the cells."""
    dims = (BATCH, *tensor.indices[1:])
    ctx.current, ctx.order = _base(tensor), list(tensor.indices[1:])
    ctx.meet(step)
    value = expressions.convert(ctx, expressions.emit(ctx, step), tensor.dtype)
    if value.dims != dims or value.static:
        value = expressions.full(ctx, value, dims, tensor.dtype)
    shape = [ctx.dim_text(BATCH), "cells", *(ctx.dim_text(d) for d in tensor.indices[2:])]
    variable = ctx.bind(f"{_base(tensor)}_after", value, shape).text
    _at_cell(ctx, fronts, f"{tensor.name} 0 0", variable, tensor.indices[2:], tensor.dtype)
    return variable


def _direction(rows: int, columns: int) -> str:
    """A name for a cell that is read: y_up, y_left, y_up_left."""
    parts = [f"{word}{n if n > 1 else ''}" for word, n in (("up", rows), ("left", columns), ("right", -columns)) if n > 0]
    return "_".join(parts)


def _at_cell(ctx: Context, fronts: _Fronts, name: str, variable: str, lanes: tuple[str, ...], dtype: str) -> None:
    """A variable of the step as a tensor of its own, over the cell and what its values vary along."""
    dims = (fronts.cell, *lanes)
    ctx.local[name] = (dims, Value(variable, (BATCH, *dims), dtype))


def _moved(ctx: Context, fronts: _Fronts, given: dict[str, Value], node: Node) -> Node | None:
    """A read of a front, or of an operand, as a read of the step's variable."""
    if node.op != "read":
        return None
    cell = build.index(fronts.cell)
    if any(node.attr == t.name for t in fronts.tensors):
        rows, columns = _back(fronts, node)
        return build.read(f"{node.attr} {rows} {columns}", [cell, *node.args[2:]], node.dtype)
    if node.attr not in given:
        return None
    own = ctx.system.tensors[str(node.attr)].indices
    varies = given[str(node.attr)].dims
    rest = [a for i, a in zip(own, node.args, strict=True) if i in varies and i not in fronts.grid]
    return build.read(str(node.attr), [cell, *rest], node.dtype)


def _uses(steps: list[Node]) -> dict[Node, int]:
    """How often each node is an operand in a step."""
    count: dict[Node, int] = dict.fromkeys(steps, 1)
    for node in dict.fromkeys(n for s in steps for n in walk(s)):
        for arg in node.args:
            count[arg] = count.get(arg, 0) + 1
    return count

"""Tables: what depends on sizes and positions alone is computed in double precision, and rounded once.

An angle of position 4000 in float32 is known to 2e-4, and the matrix of a Legendre memory to as little: no form can be
better than its constants. A value that no input, parameter or state reaches, on whose way digits may be lost, is
computed by a function inside the module's, whose `dtype` is the double one; the text of its equations is the same.
A part of an equation that is such a table is first made an equation of its own. A table over pairs of positions of the
stream stays where it is: it is as large as the scores it joins, and made of differences that are exact.

Entry points: `with_tables`, a rewriting of the system, `write_tables`, and `constant`.
"""

from __future__ import annotations

import ast
import builtins
import textwrap
from collections.abc import Callable, Collection
from dataclasses import replace

from seqdsl.ir import build
from seqdsl.ir.build import numbered
from seqdsl.ir.dependence import Compute, Loop, Step, schedule
from seqdsl.ir.node import Node, exchanged, rebuild_reads, walk
from seqdsl.ir.ops import OPS
from seqdsl.ir.system import System, Tensor, dependencies, folds, reached, sources

from . import expressions
from .context import Context
from .inlining import available
from .inner import called, within
from .names import tuple_text
from .table import LEAVES, MARKED, RANDOM

# What keeps the digits of its operands; whatever else is computed of positions may lose some.
EXACT = LEAVES | frozenset(
    "add sub mul div exact_div floor_div mod neg abs maximum minimum lt le eq ne and or not where sign floor ceil round"
    " re im conj sum mean max min any all".split()
)
NUMBERS = ("real", "complex")
SHIELDED = MARKED | {"fold"}  # whole steps, with operands of their own: nothing is taken out


def with_tables(system: System, kept: frozenset[str]) -> System:
    """Parts of equations that are tables, as equations of their own. `kept` are the tensors that a state holds."""
    system = _once(system, constant(system, kept))
    known = constant(system, kept)
    taken: dict[Node, Tensor] = {}
    changed = []
    for tensor in system.derived():
        if tensor.name in known or tensor.kind != "derived" or tensor.rhs is None:
            continue
        found = _parts(system, tensor.rhs, known)
        for node in found:
            if node not in taken:
                name = numbered(f"{tensor.name}.{node.op}", {*system.tensors, *(t.name for t in taken.values())})
                own = [i for i in tensor.indices if i in node.free]
                taken[node] = Tensor(name, (*own, *sorted(node.free - {*own})), node.dtype, "derived", node)
        if found:
            changed.append(replace(tensor, rhs=exchanged(tensor.rhs, {n: build.whole(taken[n]) for n in found})))
    return system.with_tensors(*changed, *taken.values()) if changed else system


def _once(system: System, known: frozenset[str]) -> System:
    """Of constants with the same equation, as two calls of a function make them, the first serves all."""
    first: dict[object, str] = {}
    same: dict[str, str] = {}
    for step in schedule(system):
        if isinstance(step, Compute) and step.tensor in known:
            tensor = _renamed(system.tensors[step.tensor], same)
            system = system.with_tensors(tensor)
            served = first.setdefault((tensor.rhs, tensor.indices, tensor.dtype), tensor.name)
            if served != tensor.name and not tensor.edges and tensor.name not in system.outputs:
                same[tensor.name] = served
    changed = [_renamed(t, same) for t in system.derived() if t.rhs is not None and not {*same}.isdisjoint(sources(system, t))]
    return reached(system.with_tensors(*changed)) if same else system


def _renamed(tensor: Tensor, same: dict[str, str]) -> Tensor:
    """With each tensor that another one serves for read by that one's name."""
    assert tensor.rhs is not None
    rhs = rebuild_reads(tensor.rhs, same, lambda r: build.read(same[str(r.attr)], r.args, r.dtype))
    return tensor if rhs is tensor.rhs else replace(tensor, rhs=rhs)


def tables(system: System, kept: frozenset[str]) -> frozenset[str]:
    """The tensors that are tables, and those that these are made of."""
    known = constant(system, kept)
    steps = schedule(system)
    looped = {name for step in steps if isinstance(step, Loop) for name in step.tensors()}
    pending = [n for n in known if n in looped or _loses(system.tensors[n].rhs)]
    found: set[str] = set()
    while pending:
        name = pending.pop()
        if name in known and name not in found:
            found.add(name)
            pending += sources(system, system.tensors[name])
    return frozenset(n for step in steps if found.issuperset(step.tensors()) for n in step.tensors())


def write_tables(ctx: Context, steps: list[Step], execute: Callable[[Step], None]) -> None:
    """The function of the tables, its call, and where they are found from then on."""
    name = ctx.names.fresh("tables")
    lines, values = within(ctx, steps, execute, batch="")
    ctx.block.add(f"def {name}(dtype: torch.dtype) -> list[Tensor]:  # of sizes and positions alone: rounded once")
    if any("complex_dtype" in line for line in lines):
        ctx.block.add(f"    complex_dtype = {ctx.helper('_complex_dtype')}(dtype)")
    ctx.block.lines += lines
    ctx.helper("_TABLES")
    called(ctx, values, f"{ctx.helper('_rounded')}({name}, {_sizes(ctx, lines)}, dtype, device)")


def _sizes(ctx: Context, lines: list[str]) -> str:
    """The sizes that a function's lines depend on, as a tuple; None where there is more, as the ends of packed sequences."""
    free = _free(lines)
    for line in ctx.index_lines:
        if line.split()[0] in free:
            free = free - {line.split()[0]} | _free([line])
    free -= {"torch", "math", "dtype", "device", "complex_dtype", *available()}
    known = (*ctx.sizes.values(), *ctx.option_variables.values(), *(variable for variable, _ in ctx.size_lines))
    sizes = {"past", ctx.total, ctx.batch, *known}
    return tuple_text(sorted(free)) if free <= sizes else "None"


def _free(lines: list[str]) -> set[str]:
    """The names that lines read and do not assign."""
    names = [n for n in ast.walk(ast.parse(textwrap.dedent("\n".join(lines)))) if isinstance(n, ast.Name)]
    own = {n.id for n in names if isinstance(n.ctx, ast.Store)}
    return {n.id for n in names if n.id not in own and n.id not in dir(builtins)}


def constant(system: System, kept: frozenset[str]) -> frozenset[str]:
    """The tensors that no input, parameter or state reaches, and not of pairs of positions of the stream."""
    never = {t.name for t in system.tensors.values() if t.kind != "derived" or t.name in kept or not _fixed(system, t)}
    readers: dict[str, list[str]] = {}
    for tensor in system.derived():
        for name in dependencies(system, tensor):
            readers.setdefault(name, []).append(tensor.name)
    pending = list(never)
    while pending:
        for reader in readers.get(pending.pop(), []):
            if reader not in never:
                never.add(reader)
                pending.append(reader)
    return frozenset(n for n in system.tensors if n not in never)


def _fixed(system: System, tensor: Tensor) -> bool:
    """Does an equation, but for what it reads, depend on sizes and positions alone?"""
    assert tensor.rhs is not None
    whole = not folds(tensor.rhs) and not any(n.op in RANDOM or n.op in SHIELDED for n in walk(tensor.rhs))
    return whole and not _pairs(system, tensor.indices)


def _pairs(system: System, indices: Collection[str]) -> bool:
    """Do several of the indices run over the stream?"""
    return sum(system.stream is not None and system.axis(i) == system.stream for i in indices) > 1


def _loses(rhs: Node | None) -> bool:
    """May a value of positions lose digits?"""
    return rhs is not None and any(
        n.op not in EXACT and n.dtype in NUMBERS and any(m.op in ("read", "index") for m in walk(n)) for n in walk(rhs)
    )


def _parts(system: System, rhs: Node, known: frozenset[str]) -> list[Node]:
    """The largest parts that are tables. Where there are guards, what may be infinite stays below them."""
    guarded = any(n.op == "where" or _guarded(n) for n in walk(rhs))
    fixed: dict[Node, bool] = {}
    for node in walk(rhs):
        own = node.attr in known if node.op == "read" else node.op not in RANDOM | SHIELDED
        fixed[node] = own and all(fixed[a] for a in node.args)
    found, seen, pending = [], set[Node](), [rhs]
    while pending:
        if (node := pending.pop()) in seen or node.op in LEAVES or node.op in SHIELDED:
            continue
        seen.add(node)
        table = fixed[node] and node.dtype in NUMBERS and not _pairs(system, node.free) and _loses(node)
        if table and not (guarded and expressions.sensitive(node)):
            found.append(node)
        else:
            pending += node.args
    return found


def _guarded(node: Node) -> bool:
    """Does it reduce under a condition?"""
    return OPS[node.op].binding in ("reduce", "along") and node.args[-1] is not build.TRUE

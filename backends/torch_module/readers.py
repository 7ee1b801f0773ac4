"""Who reads what: how often each part of an expression is an operand, and what is read of a loop once it is over.

Entry points: `uses`, `readers_of`.
"""

from __future__ import annotations

from dataclasses import dataclass

from seqdsl.ir import build
from seqdsl.ir.dependence import Loop, Step
from seqdsl.ir.node import Node, read_names, walk
from seqdsl.ir.node import reads as reads_below
from seqdsl.ir.state import StateEntry
from seqdsl.ir.system import System, Tensor, sources

from .context import Context
from .loops import keys_of
from .prologue import Stepping
from .table import LEAVES


@dataclass(frozen=True)
class Readers:
    """What comes after a loop reads of the loop's tensors: some as a `whole`, some whole where the state is asked for,
    `late`, of some only single `entries` whose positions are known, as `x[L - 1]`."""

    whole: frozenset[str] = frozenset()
    late: frozenset[str] = frozenset()
    entries: frozenset[str] = frozenset()

    @property
    def all(self) -> frozenset[str]:
        """Every tensor that is read at all."""
        return self.whole | self.late | self.entries


def uses(system: System) -> dict[Node, int]:
    """How often each node is an operand, over the whole system."""
    count: dict[Node, int] = {}
    seen: set[Node] = set()
    for tensor in system.derived():
        if tensor.rhs is None:
            continue
        count[tensor.rhs] = count.get(tensor.rhs, 0) + 1
        for node in walk(tensor.rhs):
            if node in seen:
                continue
            seen.add(node)
            for arg in node.args:
                if arg.op not in LEAVES:
                    count[arg] = count.get(arg, 0) + 1
    return count


def readers_of(ctx: Context, step: Step, steps: Stepping) -> Readers:
    """What reads the tensors of a loop from outside."""
    if not isinstance(step, Loop):
        return Readers()
    inside = set(step.tensors())
    system = ctx.system
    whole, late, entries = set(system.outputs) & inside, set(system.finals.values()) & inside, set()
    for tensor in [t for t in system.derived() if t.name not in inside]:
        found = sources(system, tensor) & inside
        single = set() if tensor.name in ctx.late else {n for n in found if _single(ctx, step, tensor, n)}
        entries |= single
        (late if tensor.name in ctx.late else whole).update(found - single)
    for entry in steps.entries:
        if entry.tensor in inside and entry.name not in system.finals and not _from_loop(ctx, step, entry):
            late.add(entry.tensor)
    return Readers(frozenset(whole), frozenset(late - whole), frozenset(entries - whole - late))


def _single(ctx: Context, loop: Loop, reader: Tensor, name: str) -> bool:
    """Does a tensor read single steps of a loop's tensor, whose positions only sizes decide?"""
    keys = [p for _, p in keys_of(ctx, loop, name)]
    if ctx.stateful and any(ctx.on_stream(ctx.system.tensors[name].indices[k]) for k in keys):
        return False  # an earlier call may have passed it
    found = [r for r in reads_below(reader.rhs) if r.attr == name] if reader.rhs is not None else []
    return bool(found) and all(not r.args[k].free and not read_names(r.args[k]) for r in found for k in keys)


def _from_loop(ctx: Context, loop: Loop, entry: StateEntry) -> bool:
    """Can the state's entry be picked from the loop's dictionary, or does a function give it?"""
    if entry.boundary is None and entry.tail is build.ONE and any(entry.tensor in states for states in ctx.functions.values()):
        return True
    keys = sorted(p for _, p in keys_of(ctx, loop, entry.tensor))
    if entry.boundary is not None:  # that of a loop over time is among its entries
        return entry.position in keys
    return keys == [entry.position] and entry.tail is build.ONE

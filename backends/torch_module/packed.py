"""Packed sequences in one call: a sequence begins where the decay of its first step is 0.

That is enough where time is crossed by nothing but calls of functions that take `first`, the positions that begin a
sequence (`target.StandIn.packed`): everything else is computed position by position. Entry point: `packs`.
"""

from __future__ import annotations

from seqdsl.ir.dependence import Compute, Step, schedule
from seqdsl.ir.node import Node
from seqdsl.ir.ops import OPS, bound, made
from seqdsl.ir.system import System

from .prologue import Stepping
from .target import Target

FUNCTIONS = {
    "affine_scan": ("affine_scan",),
    "decayed_read": ("affine_scan", "chunk_linear_attention", "segmented_read"),
    "decayed_state": ("affine_scan", "chunk_linear_attention", "segmented_read"),
    "decayed_solve": ("chunk_solve", "chunk_solve_read"),
}


def packs(system: System, steps: Stepping, target: Target) -> bool:
    """Does a module of this target take packed sequences as they are?"""
    counted = bool(steps.refusal) or steps.past  # positions are then no longer those of one sequence
    one = target.chains is not None and target.chains.one_position
    if system.stream is None or counted or one or not _abreast(system, schedule(system)):
        return False
    ends = set(system.finals.values())  # no state is asked for where sequences are packed in one call
    computed = [t.rhs for t in system.derived() if t.rhs is not None and t.name not in ends]
    return any(s.packed for s in target.calls.values()) and all(_is_local(system, rhs, target) for rhs in computed)


def _abreast(system: System, steps: tuple[Step, ...]) -> bool:
    """Are all positions computed side by side? Loops over other axes, as over depth, do not cross time."""
    return all(isinstance(s, Compute) or s.axis != system.stream and _abreast(system, s.body) for s in steps)


def _is_local(system: System, node: Node, target: Target) -> bool:
    """Does the node cross time by functions that take `first` alone?"""
    def streamed(index: str) -> bool:
        return system.axis(index) == system.stream

    if node.op == "read":
        indices = system.tensors[str(node.attr)].indices
        return all(
            a.op == "index" and a.attr == i if streamed(i) else _is_local(system, a, target)
            for i, a in zip(indices, node.args, strict=True)
        )
    if node.op in ("index", "size"):
        return not streamed(str(node.attr))
    if node.op in FUNCTIONS:
        known = node.dtype != "int" and all(target.call(f).packed for f in FUNCTIONS[node.op])
    else:
        known = OPS[node.op].binding not in ("scan", "last") and node.op not in ("first", "fold", "newton", "front", "micro_solve")
        known = known and not any(streamed(i) for i in (*bound(node), *made(node)))
    return known and all(_is_local(system, a, target) for a in node.args)

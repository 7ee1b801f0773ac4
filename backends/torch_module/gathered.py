"""Terms of a sum in a loop that do not depend on it, added up before it.

`a + (h[t-1] @ W + b)` adds b at every step; `(a + b) + h[t-1] @ W` adds it to all of a at once (`loops.hoist` finds what
is one part), and leaves one operation to a step, a product that is added. Only terms that hoisting takes as they are
count: an outer product would be written out over the whole axis. Entry point: `with_gathered_sums`.
"""

from __future__ import annotations

from dataclasses import replace

from seqdsl.ir import build
from seqdsl.ir.dependence import every_loop, schedule
from seqdsl.ir.node import Node, read_names, walk
from seqdsl.ir.ops import remake
from seqdsl.ir.system import System

from .loops import is_narrow
from .readers import uses
from .table import MARKED


def with_gathered_sums(system: System) -> System:
    """The system, each sum of a loop's equations as what the loop does not change, and the rest."""
    home = {name: frozenset(loop.tensors()) for loop in every_loop(schedule(system)) for name in loop.tensors()}
    count = uses(system) if home else {}
    changed = []
    for name, inside in home.items():
        tensor = system.tensors[name]
        if tensor.rhs is not None and tensor.rhs.op not in MARKED:
            inside |= {other for other in system.tensors if any(e.tensor in inside for e in system.tensors[other].edges)}
            rhs = _gathered(tensor.rhs, inside, count)
            changed += [] if rhs is tensor.rhs else [replace(tensor, rhs=rhs)]
    return system.with_tensors(*changed) if changed else system


def _gathered(rhs: Node, inside: frozenset[str], count: dict[Node, int]) -> Node:
    done: dict[Node, Node] = {}
    for node in walk(rhs):
        args = tuple(done[a] for a in node.args)
        done[node] = node if args == node.args else remake(node, args)
        if node.op == "add" and node.dtype == "real":
            terms = _terms(node, count)
            apart = [t for t in terms if _stands(t, inside)]
            if 2 <= len(apart) < len(terms):
                rest = [done[t] for t in terms if t not in apart]
                done[node] = build.add(build.total(done[t] for t in apart), build.total(rest))
    return done[rhs]


def _terms(node: Node, count: dict[Node, int]) -> list[Node]:
    """The terms of a sum, those of sums in it that nothing else wants among them."""
    return [t for n in node.args for t in (_terms(n, count) if n.op == "add" and count.get(n, 0) <= 1 else [n])]


def _stands(term: Node, inside: frozenset[str]) -> bool:
    """Is it the same whatever the loop computes, and no wider than what it is made of?"""
    return is_narrow(term) and bool(read_names(term)) and read_names(term).isdisjoint(inside)

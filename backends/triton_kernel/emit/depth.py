"""Groups of equations inside loops over depth: those of one step, in which the loop's index stands still.

The equations of a step are a system of their own (`_one_step`): what they read at a position of the loop's axis is a tensor
without that index. What that system becomes (`sequences.over_sequences`) is put back into the whole one. Entry points:
`Depth`, `over_depth`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from seqdsl.ir import build
from seqdsl.ir.dependence import Compute, Loop, schedule
from seqdsl.ir.node import Node, rebuild, rebuild_reads
from seqdsl.ir.node import reads as reads_below
from seqdsl.ir.system import System, Tensor, folds

from ...torch_module.loops import sink
from .parts import Grouped
from .sequences import over_sequences

_Held = dict[str, tuple[str, tuple[tuple[int, Node], ...]]]


@dataclass(frozen=True)
class Depth:
    """One step's system, and of each of its tensors which one it is, with the subscripts that stand still."""

    system: System
    held: _Held

    def back(self, node: Node) -> Node:
        """An expression of the step in the whole system."""
        return rebuild_reads(node, self.held, self._read)

    def _read(self, node: Node) -> Node:
        name, held = self.held[str(node.attr)]
        args = list(node.args)
        for place, at in held:
            args.insert(place, at)
        return build.read(name, args, node.dtype)


def over_depth(over: Grouped) -> Grouped:
    """The groups, those inside loops among them."""
    for loop in _loops(over.system):
        over = _with_loop(over, loop)
    return over


def _loops(system: System) -> list[Loop]:
    """The loops over other axes than time, with no loop inside that is none over time, nor what is not seen in right sides."""
    plan = sink(system, schedule(system))
    return [s for s in plan if isinstance(s, Loop) and s.axis != system.stream and len(_fixed(system, s)) == 1
            and all(isinstance(b, Compute) or b.axis == system.stream for b in s.body)
            and all(_is_plain(system.tensors[n], p) for n, p in s.positions)]  # fmt: skip


def _is_plain(tensor: Tensor, position: int) -> bool:
    """Has it no base cases along other axes, and no fold, whose monoid may read tensors?"""
    return tensor.rhs is not None and not folds(tensor.rhs) and all(e.position == position for e in tensor.edges)


def _fixed(system: System, loop: Loop) -> set[str]:
    return {system.tensors[n].indices[p] for n, p in loop.positions}


def _with_loop(over: Grouped, loop: Loop) -> Grouped:
    """The groups of one loop, unless what they need would be computed elsewhere."""
    (index,) = _fixed(over.system, loop)
    step = _one_step(over.system, loop, index)
    found = over_sequences(step.system, frozenset([index]))
    if not found.groups:
        return replace(over, kept={**over.kept, **found.kept})
    held = dict(step.held)
    made = [t for t in found.system.derived() if t.name not in step.system.tensors]
    deep = {t.name for t in made}
    held |= {name: (name, ((0, build.index(index)),)) for name in deep}
    whole = Depth(found.system, held)
    changed = [_back(over.system, whole, t, index) for t in found.system.derived() if t != step.system.tensors.get(t.name)]
    system = over.system.with_tensors(*changed)
    groups = tuple(replace(g, depth=whole) for g in found.groups)
    inside = [s for s in sink(system, schedule(system)) if isinstance(s, Loop) and s.axis == loop.axis]
    every = {n for g in groups for n in g.tensors} | deep
    if not any(every <= {b.tensor for b in s.body if isinstance(b, Compute)} for s in inside):
        why = "what a kernel would need of it is computed outside its loop"
        return replace(over, kept={**over.kept, **dict.fromkeys((n for g in groups for n in g.tensors), why)})
    return Grouped(system, (*over.groups, *groups), {**over.kept, **found.kept})


def _back(system: System, whole: Depth, tensor: Tensor, index: str) -> Tensor:
    """A tensor of one step as one of all."""
    assert tensor.rhs is not None
    old = system.tensors.get(tensor.name)
    if old is None:
        return replace(tensor, indices=(index, *tensor.indices), rhs=whole.back(tensor.rhs))
    return replace(old, rhs=whole.back(tensor.rhs))


def _one_step(system: System, loop: Loop, index: str) -> Depth:
    """The equations of one step of a loop."""
    places, own = dict(loop.positions), build.index(index)
    held: _Held = {name: (name, ((place, own),)) for name, place in places.items()}
    others: dict[tuple[str, tuple[tuple[int, Node], ...]], Tensor] = {}

    def entry(node: Node) -> Node | None:
        if node.op != "read":
            return None
        name, still = str(node.attr), tuple((k, a) for k, a in enumerate(node.args) if a.free == {index})
        rest = [a for k, a in enumerate(node.args) if k not in dict(still)]
        if held.get(name) == (name, still):
            return build.read(name, rest, node.dtype)
        if (name, still) not in others:
            tensor = system.tensors[name]
            label = build.numbered(name, {*held, *(n for n in system.tensors if n != name or still), *_names(others)})
            kind = tensor.kind if tensor.kind in ("param", "const") else "input"
            indices = tuple(i for k, i in enumerate(tensor.indices) if k not in dict(still))
            others[name, still] = Tensor(label, indices, tensor.dtype, kind)
            held[label] = name, still
        return build.read(others[name, still].name, rest, node.dtype)

    derived = []
    for name in places:
        tensor = system.tensors[name]
        assert tensor.rhs is not None
        indices = tuple(i for k, i in enumerate(tensor.indices) if k != places[name])
        derived.append(replace(tensor, indices=indices, rhs=rebuild(tensor.rhs, entry), edges=()))
    tensors = {t.name: t for t in (*others.values(), *derived)}
    outputs = tuple(n for n in places if _is_kept(system, n, places, own))
    return Depth(replace(system, tensors=tensors, outputs=outputs, finals={}, record=(), claims=()), held)


def _names(others: dict[tuple[str, tuple[tuple[int, Node], ...]], Tensor]) -> list[str]:
    return [t.name for t in others.values()]


def _is_kept(system: System, name: str, places: dict[str, int], own: Node) -> bool:
    """Is a tensor of a loop needed at other steps than its own, or outside?"""
    if name in {*system.outputs, *system.finals.values(), *(e.tensor for e in system.record or ())}:
        return True
    for tensor in system.tensors.values():
        found = [r for r in reads_below(tensor.rhs) if r.attr == name] if tensor.rhs is not None else []
        if any(e.tensor == name for e in tensor.edges) or found and tensor.name not in places:
            return True
        if any(r.args[places[name]] is not own for r in found):
            return True
    return False

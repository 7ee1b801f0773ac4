"""Which equations of one position go into one kernel: those that touch a state entry by entry, or sum over its axes.

An equation joins a group if it reads a state, or what the group computes, by elementwise operators and by sums over
indices that a tile can hold. A part that is neither (a sum over a parameter, which is a projection; a read at another
place) becomes a tensor of its own, which PyTorch computes before. Gates that only a group reads are computed in it.
Nothing here knows what an equation is called. Entry point: `grouped`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from seqdsl.ir import build
from seqdsl.ir.dependence import Compute, schedule
from seqdsl.ir.node import Node, read_names, walk
from seqdsl.ir.ops import bound
from seqdsl.ir.system import System, Tensor, sources

from ...torch_module.tables import tables
from .parts import REDUCTIONS, Group, Grouped, Parts
from .texts import has_text


def grouped(system: System) -> Grouped:
    """The groups of a system for one position (`seqdsl.forms.one_position`)."""
    search = _Search(system)
    for step in schedule(system):
        if isinstance(step, Compute):
            search.take(system.tensors[step.tensor])
        else:
            search.outside(step.tensors())
    for group in search.groups:
        search.gates(group)
    order = [s.tensor for s in schedule(system) if isinstance(s, Compute)]
    for group in search.groups:
        group.tensors.sort(key=order.index)
        search.arrange(group)
    changed: list[Tensor] = []
    for group in search.groups:
        changed += search.outlined(group)
    return Grouped(system.with_tensors(*changed), tuple(search.groups), search.kept)


@dataclass
class _Search(Parts):
    groups: list[Group] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    why: str = ""

    def __post_init__(self) -> None:
        self.needs: dict[str, set[str]] = {}  # of every tensor: what it is computed from, all the way
        self.readers: dict[str, set[str]] = {}
        for tensor in self.system.derived():
            for name in sources(self.system, tensor):
                self.readers.setdefault(name, set()).add(tensor.name)
        self.ends = {*self.system.outputs, *self.system.finals.values(), *(e.tensor for e in self.system.record or ())}
        self.states = {t.name for t in self.system.derived() if t.kind == "carry"}
        self.touched = self._downstream(self.states)
        self.tables = tables(self.system, frozenset(self.ends))
        fed = {e.tensor for e in self.system.record or ()}
        self.feeding = {t.name for t in self.system.derived() if t.name in fed or self._downstream({t.name}) & fed}

    def _downstream(self, names: set[str]) -> set[str]:
        """What is computed from some tensors, themselves included."""
        found, pending = set(names), list(names)
        while pending:
            for reader in self.readers.get(pending.pop(), ()):
                if reader not in found:
                    found.add(reader)
                    pending.append(reader)
        return found

    def take(self, tensor: Tensor) -> None:
        """Put an equation into a group, or leave it to PyTorch."""
        if tensor.kind != "derived" or tensor.name not in self.touched or tensor.rhs is None:
            return
        if not self._join(tensor):
            self.outside([tensor.name])
            if tensor.name in self.feeding or self.direct(tensor) & self.states:
                self.kept[tensor.name] = self.why

    def outside(self, names: list[str]) -> None:
        """Note what PyTorch computes from groups."""
        for group in self.groups:
            for name in names:
                if sources(self.system, self.system.tensors[name]) & {*group.tensors, *group.after}:
                    group.after.add(name)

    def _join(self, tensor: Tensor) -> bool:
        self.why = self._between(tensor)
        own = self.direct(tensor)
        mine = [g for g in self.groups if own & self._touching(g)]
        group = Group([tensor.name], self.space(tensor), self.whole(tensor))
        if not mine and not own & self.states or not self._possible(tensor, group):
            return False
        for other in mine:
            joined = self._merged(other, group)
            if joined is None:
                if not own & self.states and other is mine[-1] and len(group.tensors) == 1:
                    return False
                continue
            self.groups.remove(other)
            group = joined
        self.outside([tensor.name])
        self.groups.append(group)
        return True

    def _between(self, tensor: Tensor) -> str:
        """What stands between an equation and the states that it needs."""
        assert tensor.rhs is not None
        parts = [p for p in self.foreign(tensor.rhs) if read_names(p) & self.touched]
        if any(n.dtype == "complex" for n in walk(tensor.rhs)):
            return "no kernel is written for complex numbers"
        if not parts:
            return "it is computed from what PyTorch computes"
        return f"its `{parts[0].op}` is neither elementwise nor a reduction of a state over its own axes"

    def _touching(self, group: Group) -> set[str]:
        """What a group computes, and the states that it reads."""
        return set(group.tensors).union(*(self.direct(self.system.tensors[n]) & self.states for n in group.tensors))

    def _possible(self, tensor: Tensor, group: Group) -> bool:
        """Can the kernel of a group compute it?"""
        assert tensor.rhs is not None
        stream = self.system.stream
        names = {*tensor.indices, *group.space}
        if tensor.dtype != "real" or any(i.endswith("'") for i in names):
            self.why = "no kernel is written for its type" if tensor.dtype != "real" else "it ties an axis to itself"
        elif any(self.system.axis(i) == stream and i != stream for i in names) or stream in group.whole:
            self.why = "it reads other positions of the stream"
        elif not set(group.space) - set(group.whole) or tensor.edges:
            self.why = "it sums over everything" if not tensor.edges else "it has base cases of its own"
        else:
            return True
        return False

    def _merged(self, one: Group, two: Group) -> Group | None:
        """Both as one kernel; None where PyTorch would have to compute something in between, or tiles do not agree."""
        names = [*one.tensors, *two.tensors]
        space = max(one.space, two.space, key=len)
        whole = tuple(i for i in space if i in (*one.whole, *two.whole))
        if not {*one.space, *two.space} <= set(space) or not set(space) - set(whole):
            self.why = "it has other axes than what it reads"
            return None
        new = set(whole) - set(one.whole)
        if new and one.whole and not any(n in self.feeding or self._passes(n, set(whole)) for n in two.tensors):
            self.why = f"it sums over `{min(new)}`, along which the state is cut into blocks"
            return None
        for first, second in ((one, two), (two, one)):
            between = {str(n.attr) for name in second.tensors for n in self.hidden(name) if n.op == "read"} & set(first.tensors)
            if between or any(sources(self.system, self.system.tensors[n]) & first.after for n in second.tensors):
                self.why = "PyTorch computes something in between"
                return None
        after = (one.after | two.after) - set(names)
        return Group(names, space, whole, after)

    def _passes(self, name: str, whole: set[str]) -> bool:
        """Does an equation read a tensor that has all of these indices, so that a kernel of its own would load it again?"""
        rhs = self.system.tensors[name].rhs
        return rhs is not None and any(n.op == "read" and n.free >= whole for n in self.inside(rhs))

    def gates(self, group: Group) -> None:
        """Take in equations that only the group reads."""
        found = True
        while found:
            found = False
            for tensor in self.system.derived():
                if tensor.kind == "derived" and self._is_gate(tensor, group):
                    group.tensors.append(tensor.name)
                    self.kept.pop(tensor.name, None)
                    found = True

    def _is_gate(self, tensor: Tensor, group: Group) -> bool:
        readers, rhs = self.readers.get(tensor.name, set()), tensor.rhs
        if rhs is None or tensor.name in {*group.tensors, *self.ends, *self.tables} or not readers <= set(group.tensors):
            return False
        if rhs in set(self.foreign(rhs)) or tensor.edges or tensor.dtype == "complex" or rhs.op == "read":
            return False
        if any(n.op == "read" and n.attr == tensor.name for r in readers for n in self.hidden(r)):
            return False  # it is read by a part that PyTorch computes before
        own = build.whole(tensor)
        if any(n.op == "read" and n.attr == tensor.name and n is not own for r in readers for n in walk(self.right(r))):
            return False  # it is read elsewhere, too
        space = self.space(tensor)
        return set(space) <= set(group.space) and not sources(self.system, tensor) & {*group.tensors, *group.after}

    def plain(self, node: Node) -> bool:
        """Has the kernel text for this operator?"""
        if node.dtype == "complex" or any(a.dtype == "complex" for a in node.args):
            return False
        if node.op == "index":
            return self.system.axis(str(node.attr)) != self.system.stream
        if node.op == "read":
            tensor = self.system.tensors[str(node.attr)]
            names = [a.attr for a in node.args if a.op == "index"]
            layered = any(p.startswith("<") for p in tensor.path)
            return len(set(names)) == len(node.args) and not layered and self._level(tensor, node)
        if node.op in REDUCTIONS:
            return not self._is_projection(node)
        return has_text(node)

    def _is_projection(self, node: Node) -> bool:
        """Does a reduction touch no state, or make an index by a parameter?"""
        reads = [n for n in walk(node) if n.op == "read"]
        touched = [n for n in reads if str(n.attr) in self.touched]
        made = node.free.difference(*(n.free for n in touched))
        weights = [n for n in reads if self.system.tensors[str(n.attr)].kind in ("param", "const")]
        return not touched or any(n.free & made and n.free & {*bound(node)} for n in weights)

    def _level(self, tensor: Tensor, node: Node) -> bool:
        """Is a tensor read along its own axes, and what groups compute at its own indices?"""
        pairs = list(zip(tensor.indices, node.args, strict=True))
        same = all(self.system.axis(i) == self.system.axis(str(a.attr)) for i, a in pairs)
        computed = tensor.name in self.touched and tensor.kind == "derived"
        return same and (not computed or all(a.attr == i for i, a in pairs))

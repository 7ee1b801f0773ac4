"""Which affine recurrences get kernels of their own: those whose coefficients, or whose readers, PyTorch would compute apart.

The decay and the input of a step are expressions of what is read at its position; the kernels compute them from that, and
with them the equations that read the state there, entry by entry. What such an equation needs besides is an operand, and so
is what no kernel has text for. A recurrence of bare tensors that nothing reads entry by entry gains nothing, and stays with
the scan that is written beforehand. Entry points: `Scanned`, `over_scans`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from seqdsl.ir import build
from seqdsl.ir.dependence import Compute, schedule
from seqdsl.ir.node import Node, exchanged, walk
from seqdsl.ir.ops import options
from seqdsl.ir.system import System, Tensor, sources

from ...torch_module import ranks
from ...torch_module.loops import sink
from ...torch_module.prologue import stepping
from .affine import Affine, affine
from .derivatives import Refused
from .normal import SHIFTED, SUMS, multiplied
from .parts import Group, Grouped
from .sequences import MOST, Sequenced, is_cyclic
from .windows import Window


@dataclass
class Scanned(Group):
    """A state and what reads it at its own positions, in order. `stored` are those that something else needs at all
    positions; `lasting`: does nothing read the first in float32 but a module's state, which holds the last one?"""

    stored: tuple[str, ...] = ()
    lasting: bool = False

    @property
    def state(self) -> str:
        return self.tensors[0]


def over_scans(over: Grouped) -> Grouped:
    """The groups of a system, and its recurrences that have kernels of their own."""
    system = over.system
    steps = () if ranks.crosses(system) else sink(system, schedule(system))
    plan = [s.tensor for s in steps if isinstance(s, Compute)]
    search = _Scans(system, groups=list(over.groups), plan=plan)
    for name in plan:
        search.take(system.tensors[name])
    taken = {n for g in search.groups for n in g.tensors}
    return replace(over, groups=tuple(search.groups), kept={n: why for n, why in over.kept.items() if n not in taken})


@dataclass
class _Scans(Sequenced):
    """What the kernels of a scan have text for."""

    groups: list[Group] = field(default_factory=list)
    plan: list[str] = field(default_factory=list)

    def _plain(self, node: Node) -> bool:
        return node.op not in ("index", "sum", *SUMS, *SHIFTED) and super()._plain(node)

    def window(self, node: Node) -> Window | None:
        return None

    def take(self, state: Tensor) -> None:
        """Group a state with its readers, if it is an affine recurrence along its first index."""
        rhs = state.rhs
        if rhs is None or rhs.op != "affine_scan" or rhs.dtype != "real" or state.indices[:1] != rhs.attr[0][:1]:
            return
        if any(a.dtype == "complex" for a in rhs.args) or any(state.name in g.tensors for g in self.groups):
            return
        group = self._group([state.name])
        if self._moved(group) > MOST or self._is_cyclic(group):
            return
        for name in self.plan[self.plan.index(state.name) + 1 :]:
            if self._reads(self.system.tensors[name], group):
                joined = self._group([*group.tensors, name])
                if self._moved(joined) <= MOST and not self._is_cyclic(joined):
                    group = joined
        operated = any(n.free == {*state.indices} and n.op != "read" for n in self._inside(rhs.args[:2]))
        if operated or len(group.tensors) > 1:
            self.groups.append(group)

    def _group(self, names: list[str]) -> Scanned:
        system, state = self.system, names[0]
        entries = [e for e in stepping(system).entries if e.tensor == state]
        last = [e for e in entries if e.tail is build.ONE and e.boundary is None and e.name not in system.finals]
        wanted = {*system.finals.values(), *(e.tensor for e in stepping(system).entries if e not in last)}
        for tensor in system.derived():
            if tensor.name not in names:
                wanted |= sources(system, tensor)
        lasting = bool(last) and state not in wanted  # as an output it may be narrow
        wanted |= {*system.outputs}
        space = system.tensors[state].indices
        stored = tuple(n for n in names if n in wanted)
        return Scanned(names, space, (), stream=space[0], stored=stored, lasting=lasting)

    def _reads(self, tensor: Tensor, group: Scanned) -> bool:
        """Does an equation read what the group computes, at its own place alone, and nothing that it cannot have?"""
        system = self.system
        taken = any(tensor.name in g.tensors for g in self.groups) or tensor.name in system.finals.values()
        if taken or tensor.rhs is None or tensor.kind != "derived" or tensor.dtype != "real":
            return False
        if tensor.rhs.op == "read" or tensor.indices != group.space or tensor.rhs in self.foreign(tensor.rhs):
            return False
        own = {build.whole(system.tensors[n]) for n in group.tensors}
        inside = {n for n in self.inside(tensor.rhs) if n.op == "read"}
        every = {n for n in walk(tensor.rhs) if n.op == "read" and str(n.attr) in group.tensors}
        hidden = {n for part in self.foreign(tensor.rhs) for n in walk(part)}
        return bool(every) and every <= own & inside and not every & hidden

    def _is_cyclic(self, group: Scanned) -> bool:
        """Would it need what is computed from it, or have no text?"""
        try:
            self.found(group)
        except Refused:
            return True
        return is_cyclic(self.system, [*self.groups, group], {n: k for k, n in enumerate(self.plan)})

    def _inside(self, nodes: Iterable[Node]) -> list[Node]:
        return list(dict.fromkeys(n for node in nodes for n in self.inside(node)))

    def _moved(self, group: Scanned) -> int:
        """How many tensors of its size a kernel loads and stores."""
        return len([n for n in self._operands(group) if n.free == {*group.space}]) + len(group.stored)

    def _operands(self, group: Scanned) -> list[Node]:
        """What the kernels load: the reads of what others compute, and what no kernel has text for."""
        found: dict[Node, None] = {}
        for node in self._roots(group):
            parts = [*self.foreign(node), *(n for n in self.inside(node) if n.op == "read" and str(n.attr) not in group.tensors)]
            found |= dict.fromkeys(n for n in walk(node) if n in {*parts})
        return list(found)

    def _roots(self, group: Scanned) -> list[Node]:
        """The decay, the input, and the right sides of the readers."""
        decay, given, _ = self.right(group.state).args
        return [decay, given, *(self.right(n) for n in group.tensors[1:])]

    def found(self, group: Scanned) -> Affine:
        """What the kernels of a group compute. Raises `Refused`."""
        system, operands = self.system, self._operands(group)
        state = build.read(f"@{group.state}", [], "real")
        known = {build.whole(system.tensors[group.state]): state}
        leaves = {n: build.read(f"@{k}", [], n.dtype) for k, n in enumerate(operands)}
        decay, given, *others = (multiplied(exchanged(n, leaves)) for n in self._roots(group))
        for name, node in zip(group.tensors[1:], others, strict=True):
            known[build.whole(system.tensors[name])] = multiplied(exchanged(node, known))
        outputs = [(n, known[build.whole(system.tensors[n])]) for n in group.tensors if n in group.stored]
        named = [(_name(n), leaf, group.space[0] in n.free) for n, leaf in leaves.items()]
        log = bool(options(self.right(group.state)).get("log"))
        return affine((group.state, state), named, outputs, (decay, given), log, len(group.space) - 1)


def _name(node: Node) -> str:
    return str(node.attr).rpartition(".")[2].rpartition("@")[0] or str(node.attr) if node.op == "read" else "part"


def found(system: System, group: Scanned) -> tuple[Affine, list[Node]]:
    """What the kernels of a group compute, and its operands in the same order."""
    search = _Scans(system)
    return search.found(group), search._operands(group)

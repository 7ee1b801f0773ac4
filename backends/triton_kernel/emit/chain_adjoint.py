"""The kernel of the gradients of a group over whole sequences, from the compiler's own derivatives of its equations.

It loads what the group's kernel loads, and the gradients of what that stores; what is between is computed again. The
gradient of a tensor that has all the rows' indices is stored at each position. One that lacks some is a sum: programs add
up their share of the rows, each stores its sum, and what is left is added up by whoever launches, so that nothing depends
on the order in which programs run. The gradient of a window's value is stored, too: what it is made of comes from
that. Entry point: `Adjoint`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from seqdsl.ir import build
from seqdsl.ir.node import Node, exchanged

from ...torch_module.values import ATOM, BATCH
from .chain import Kernel, Loaded
from .derivatives import pulled


@dataclass(frozen=True)
class Gradient:
    """Of a leaf: its dimensions as they are stored, "part" among them where they are sums of programs."""

    leaf: Loaded
    name: str
    dims: tuple[str, ...]

    @property
    def summed(self) -> bool:
        return "part" in self.dims


@dataclass
class Adjoint(Kernel):
    """`given` are the leaves of the forward kernel; `sent` the gradients of its outputs, loaded behind them."""

    sent: dict[str, Node] = field(default_factory=dict)
    gradients: list[Gradient] = field(default_factory=list)

    def __post_init__(self) -> None:
        own = list(self.given)
        for name in self.outputs:
            tensor = self.system.tensors[name]
            self.sent[name] = build.read(f"d_{name}", [build.index(i) for i in tensor.indices], "real")
            self.given = {**self.given, self.sent[name]: (BATCH, *tensor.indices)}
        kept = [d for d in (BATCH, *self.group.space) if d not in self.group.tile]
        lacking = [{d for d in kept if d not in self.given[n]} for n in own if n.dtype == "real"]
        shared = [d for d in kept if all(d in lacks for lacks in lacking if lacks)]
        self.rows = tuple(shared or kept)
        super().__post_init__()
        self.own = [leaf for leaf in self.leaves if leaf.node in own]
        self.own += [Loaded(s.window.leaf, s.name, (BATCH, *s.window.indices)) for s in self.sums]
        self.stored = {}

    def text(self, name: str) -> list[str]:
        """The whole kernel."""
        values: dict[Node, Node] = {}
        for tensor in (self.system.tensors[n] for n in self.group.tensors):
            assert tensor.rhs is not None
            values[build.whole(tensor)] = exchanged(self._normal(tensor.rhs), values)
        roots = [(values[build.whole(self.system.tensors[n])], node) for n, node in self.sent.items()]
        leaves = {leaf.node for leaf in self.own if leaf.node.dtype == "real"}
        found = pulled(roots, leaves, self.group.whole)
        for leaf in self.own:
            if leaf.node in found:
                self.gradients.append(Gradient(leaf, self.names.fresh(f"d_{leaf.name}"), self._dims(leaf)))
        self._begin("Gradients for")
        still = [leaf for leaf in self.leaves if not {*leaf.dims} & {*self.rows}]
        writer = self._writer(still)
        for g in self.gradients:
            if g.summed:
                shape = ", ".join(self.block[d] if d in g.dims else "1" for d in self.dims)
                self.add(f"{g.name}_sum = tl.zeros([{shape}], tl.float32)")
        self.add("for step in range(STEPS):")
        self.depth = 2
        self._positions("(part * STEPS + step) * BR")
        for leaf in self.leaves:
            if leaf not in still:
                self._load(leaf)
                writer.known[leaf.node] = f"{leaf.name}_tile", ATOM
        for summed in self.sums:
            self._window(summed, writer)
        wanted = [found[g.leaf.node] for g in self.gradients]
        self._number(wanted, writer.known)
        writer.count(wanted)
        texts = [self._value(node, writer) for node in wanted]
        for g, text in zip(self.gradients, texts, strict=True):
            self.add(f"if WANTS_{g.name}:")
            if g.summed:
                self.add(f"    {g.name}_sum += tl.sum(tl.where(inside, {text}, 0.0), 0, keep_dims=True)")
            else:
                self._put(g, text)
        self.depth = 1
        for g in self.gradients:
            if g.summed:
                self.add(f"if WANTS_{g.name}:")
                self._put(g, f"{g.name}_sum")
        self.stored = {g.name: g.name for g in self.gradients}
        return [*self._signature(name), *self.lines]

    def _dims(self, leaf: Loaded) -> tuple[str, ...]:
        """How the gradient of a leaf is stored: the batch first, the length of which no kernel knows."""
        kept = [d for d in (BATCH, *self.group.space) if d not in self.group.tile]
        lacks = {d for d in kept if d not in leaf.dims}
        if not lacks:
            return (BATCH, *(d for d in leaf.dims if d != BATCH))
        inner = tuple(d for d in self.group.tile if d in leaf.dims)
        if {*self.rows} <= lacks:
            return (*(d for d in kept if d not in self.rows), "part", *inner)
        return (*kept, *inner)

    def _put(self, g: Gradient, text: str) -> None:
        """The store of a gradient."""
        place = ""
        for d in g.dims:
            at, length = {BATCH: ("batch", ""), "part": ("part", "parts")}.get(d) or (self.index[d], self.count[d])
            place = f"{f'({place})' if ' ' in place else place} * {length} + {at}" if place else at
        mask = self._mask(g.dims)
        self.add(f"    tl.store({g.name} + origin + {place}, {text}{f', mask={mask}' if mask else ''})")

    def _part(self) -> None:
        self.add("parts = tl.cdiv(ROWS, BR * STEPS)")
        self.add("part = rest % parts")
        self.add("rest = rest // parts")

    def _lengths(self) -> list[str]:
        first, *rest = super()._lengths()
        return [first, "STEPS", *rest]

    def _constants(self) -> list[str]:
        return ["BR", *(f"WANTS_{g.name}" for g in self.gradients)]

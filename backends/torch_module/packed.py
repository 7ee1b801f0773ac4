"""Packed sequences in one call: what crosses time must know where they begin, everything else is computed side by side.

That holds where time is crossed by nothing but functions that take `first`, the positions that begin a sequence
(`target.StandIn.packed`), recurrences whose kernels take the `ends` (`target.Target.steps`), normalised reads whose kernels
know which sequence each position is of (`target.Target.online`), and reads of a few positions back, before which the state
holds as many of each sequence. Entry points: `packing`, `packs`, `at_end`.
"""

from __future__ import annotations

from dataclasses import dataclass

from seqdsl.forms.online import row_index
from seqdsl.ir import build
from seqdsl.ir.dependence import Loop, Step, schedule
from seqdsl.ir.node import Node, walk
from seqdsl.ir.ops import OPS, bound, made
from seqdsl.ir.order import difference, linear
from seqdsl.ir.state import rows
from seqdsl.ir.system import System, Tensor

from . import expressions, newton, ranks
from .context import Context
from .prologue import Stepping
from .target import Target
from .values import ATOM, BATCH, Value, with_ones

FUNCTIONS = {
    "affine_scan": ("affine_scan",),
    "decayed_read": ("affine_scan", "chunk_linear_attention", "segmented_read"),
    "decayed_state": ("affine_scan", "chunk_linear_attention", "segmented_read"),
    "decayed_solve": ("chunk_solve", "chunk_solve_read"),
}
CHUNKED = frozenset(FUNCTIONS) - {"affine_scan"}
NORMALISED = ("normalised_read", "normaliser")


@dataclass(frozen=True)
class Packing:
    """Why packed sequences cannot go through one call, and why they cannot where a state comes or goes; "" where they can."""

    refusal: str = ""
    stateless: str = ""


def packs(system: System, steps: Stepping, target: Target) -> bool:
    """Does a module of this target take packed sequences as they are?"""
    return not packing(system, steps, target).refusal


def packing(system: System, steps: Stepping, target: Target) -> Packing:
    """How a module of this target takes packed sequences."""
    if ranks.crosses(system):
        return Packing("its positions lie on several ranks")
    one = target.chains is not None and target.chains.one_position
    if system.stream is None or one or not any(s.packed for s in target.calls.values()):
        return Packing("nothing here knows where they begin")
    search = _Crossing(system, steps, target, _solved(system, schedule(system)))
    if found := search.stepped(schedule(system)):
        return Packing(f"`{found[0]}` is stepped one position after another")
    last = {*system.finals.values()}  # computed where a state is asked for
    for tensor in [t for t in system.derived() if t.rhs is not None and t.name not in last]:
        pairs = sum(map(search.streamed, tensor.indices)) > 1
        why = f"`{tensor.name}` is of all pairs of positions" if pairs else search.crossing(tensor, tensor.rhs)
        if why:
            return Packing(why)
    return Packing("", search.stateless())


def stepped(system: System, steps: Stepping, target: Target) -> list[str]:
    """The tensors that a module computes one position after another."""
    plan = schedule(system)
    return [] if system.stream is None else _Crossing(system, steps, target, _solved(system, plan)).stepped(plan)


def _solved(system: System, steps: tuple[Step, ...]) -> dict[str, Loop]:
    """The loops that are solved for all positions at once, by their tensors."""
    found: dict[str, Loop] = {}
    for step in steps:
        if isinstance(step, Loop) and newton.is_solved(system, step):
            found |= dict.fromkeys(step.tensors(), step)
        elif isinstance(step, Loop):
            found |= _solved(system, step.body)
    return found


@dataclass(frozen=True)
class _Crossing:
    """What crosses time in a way that knows no boundary. Loops over other axes, as over depth, do not."""

    system: System
    steps: Stepping
    target: Target
    solved: dict[str, Loop]

    def streamed(self, index: str) -> bool:
        return self.system.axis(index) == self.system.stream

    def stepped(self, steps: tuple[Step, ...]) -> list[str]:
        """The tensors that loops over time compute."""
        found = []
        for step in steps:
            if isinstance(step, Loop) and step.tensors()[0] not in self.solved:
                found += step.tensors() if step.axis == self.system.stream else self.stepped(step.body)
        return found

    def crossing(self, tensor: Tensor, node: Node | None, at: tuple[str, ...] = ()) -> str:
        """How an expression crosses time otherwise than by what knows boundaries. `at`: the indices that stand for positions,
        where they are others than the stream's own: of a fold one, of a normalised read two, which are numbers too."""
        if node is None:
            return ""
        why = self._own(tensor, node, at)
        if why:
            return f"`{tensor.name}` {why}"
        if node.op == "fold":
            at = bound(node) if any(map(self.streamed, bound(node))) else at
        if node.op in NORMALISED and any(map(self.streamed, bound(node))):
            at = (str(self._row(node)), *bound(node))
        args = node.args[:-1] if node.op == "fold" else node.args
        if node.op == "read":
            indices = self.system.tensors[str(node.attr)].indices
            args = tuple(a for i, a in zip(indices, node.args, strict=True) if not self.streamed(i))
        return next((found for a in args if (found := self.crossing(tensor, a, at))), "")

    def _own(self, tensor: Tensor, node: Node, at: tuple[str, ...]) -> str:
        """The same of the node itself."""
        if node.op == "read":
            return self._read(tensor, node, at)
        if node.op == "index" and len(at) == 2 and node.attr in at:
            return ""
        if node.op in ("index", "size", "first"):
            return f"uses `{node.attr}` as a number" if self.streamed(str(node.attr)) else ""
        along = [*bound(node), *made(node)]
        if node.op in FUNCTIONS:
            if not self.streamed(node.attr[0][0]):
                return ""
            if node.dtype == "int" or not all(self.target.call(f).packed for f in FUNCTIONS[node.op]):
                return "counts in integers"
            return "" if self._begins(node) else "begins otherwise than with 0"
        if node.op in ("ring_scan", "newton"):
            known = self.target.steps is not None and not {*self.group(tensor)} & self.target.steps.refused
            return "" if known else "is stepped in PyTorch"
        if node.op == "fold" and any(map(self.streamed, along)):
            return self._fold(tensor, node)
        if node.op in NORMALISED and any(map(self.streamed, along)):
            return self._normalised(tensor, node)
        if OPS[node.op].binding in ("scan", "last") or node.op in ("front", "micro_solve"):
            return f"goes through `{node.op}`"
        return f"goes along all of `{self.system.stream}`" if any(map(self.streamed, along)) else ""

    def group(self, tensor: Tensor) -> tuple[str, ...]:
        """The states that are solved together with one."""
        return tuple(self.solved[tensor.name].tensors()) if tensor.name in self.solved else (tensor.name,)

    def _begins(self, node: Node) -> bool:
        """Do sequences begin with what a function assumes: a chunked one that nothing was before?"""
        starts = [r for r in walk(node.args[-1]) if r.op == "read"]
        plain = all(self.system.tensors[str(r.attr)].rhs is build.ZERO for r in starts)
        return node.op not in CHUNKED or node.args[-1] is build.ZERO or bool(starts) and plain

    def _fold(self, tensor: Tensor, node: Node) -> str:
        """Folds of all positions up to each have kernels that take ends."""
        steps, names = self.target.steps, bound(node)
        own = [i for i in tensor.indices if self.streamed(i)]
        prefix = len(names) == len(own) == 1 and node.args[-1] is build.make("le", build.index(names[0]), build.index(own[0]))
        if not prefix:
            return f"goes along all of `{self.system.stream}`"
        return "is stepped in PyTorch" if steps is None or tensor.name in steps.refused else ""

    def _normalised(self, tensor: Tensor, node: Node) -> str:
        """Normalised reads along the stream at each of its positions have kernels that know which sequence that is of."""
        row, online = self._row(node), self.target.online
        if len(bound(node)) != 1 or row is None or not self.streamed(row):
            return f"goes along all of `{self.system.stream}`"
        return "is read block by block in PyTorch" if online is None or tensor.name in online.refused else ""

    def _row(self, node: Node) -> str | None:
        """The index at each of whose positions a normalised read is made."""
        values = node.args[1] if node.op == "normalised_read" else None
        return row_index(self.system, bound(node), node.args[0], node.args[-1], values)

    def _read(self, tensor: Tensor, node: Node, at: tuple[str, ...]) -> str:
        read = self.system.tensors[str(node.attr)]
        for own, subscript in zip(read.indices, node.args, strict=True):
            if not self.streamed(own) or subscript.op == "index" and subscript.attr in (at or (own,)):
                continue
            if read.name in self.group(tensor) and self._is_before(read, node):
                continue
            if at or not self._behind(read, own, subscript):
                return f"reads `{read.name}` at other positions"
        return ""

    def _is_before(self, read: Tensor, node: Node) -> bool:
        """Is it a state before the step that is solved for?"""
        pairs = [(a, build.index(i)) for a, i in zip(node.args, read.indices, strict=True)]
        moved = [difference(a, i) for a, i in pairs if a is not i]
        return read.name in self.solved and moved in ([{None: -1}], [{None: 1}])

    def _behind(self, read: Tensor, own: str, subscript: Node) -> bool:
        """Is it a few positions back, of what the state holds as many of? Windows of any length would be written out."""
        kept = {e.tensor for e in self.steps.entries if e.tail is not None and e.boundary is None}
        kept -= {e.tensor for e in self.steps.entries if e.tail is None or e.boundary is not None}
        form, time = linear(subscript), build.index(str(self.system.stream))
        others = [t for t in form if t is not None and t is not time]
        plain = all(t.op == "index" and form[t] == -1 and self.system.index(str(t.attr)).size is not None for t in others)
        known = own == self.system.stream and read.name in kept and not self.steps.refusal
        return known and form.get(time) == 1 and plain and len(others) <= 1 and form.get(None, 0).denominator == 1

    def stateless(self) -> str:
        """Why sequences with states cannot go through one call."""
        if self.steps.past and (why := self._uncached()):
            return why
        for entry in self.steps.entries:
            final = self.system.finals.get(entry.name)
            if self.steps.past and entry.tail is None and entry.boundary is None:  # a cache
                continue
            if entry.tail is None or entry.boundary is not None or final and not self._is_last(self.system.tensors[final]):
                return f"the state holds `{entry.tensor}` otherwise than at its last positions"
        return ""

    def _uncached(self) -> str:
        """Why caches cannot come and go: something but normalised reads counts positions, or reads there what it reads here."""
        for tensor in self.system.derived():
            for node in walk(tensor.rhs) if tensor.rhs is not None else ():
                if node.op == "fold" and any(map(self.streamed, (*bound(node), *made(node)))):
                    return "the state counts positions"
                if node.op == "read" and any(map(self._moves, self.system.tensors[str(node.attr)].indices, node.args)):
                    return f"`{tensor.name}` reads `{node.attr}` at new positions alone"
        further = any(rows(self.system, e) for e in self.steps.entries)
        return "the state has rows of all positions" if further else ""

    def _moves(self, own: str, subscript: Node) -> bool:
        """Is what has all positions read at the new ones?"""
        new = subscript.op == "index" and str(subscript.attr).rstrip("'") == self.system.stream
        return new and self.streamed(own) and own.rstrip("'") != self.system.stream

    def _is_last(self, tensor: Tensor) -> bool:
        """Is it a state after the last position: what is there, or what functions of a whole state leave?"""
        return last_of(tensor) is not None or tensor.rhs is not None and self._is_left(tensor.rhs)

    def _is_left(self, node: Node) -> bool:
        if node.op == "decayed_state":
            return self.streamed(node.attr[0][0])
        if node.op in ("read", "index", "size", "first") or OPS[node.op].binding in ("scan", "last"):
            return False
        return all(self._is_left(a) or not a.free and a.op == "const" for a in node.args) and bool(node.args)


def last_of(tensor: Tensor) -> tuple[Node, Node] | None:
    """Of a state after the last position, the read there, and what it is where there is no position."""
    right = tensor.rhs
    if right is None or right.op != "where" or right.args[0].op != "lt" or right.args[0].args[0].op != "first":
        return None
    end = build.sub(build.size(str(right.args[0].args[0].attr)), build.ONE)
    return (right.args[1], right.args[2]) if right.args[1].op == "read" and end in right.args[1].args else None


def at_end(ctx: Context, tensor: Tensor) -> Value | None:
    """The value of a state after the last position, of each sequence if they may be packed; None for any other tensor."""
    found = last_of(tensor) if ctx.ends and tensor.name in ctx.system.finals.values() else None
    if found is None:
        return None
    read, start = found
    stream = str(ctx.system.stream)
    end = build.sub(build.size(stream), build.ONE)
    every = build.read(str(read.attr), [build.index(stream) if a is end else a for a in read.args], read.dtype)
    value, before = (expressions.convert(ctx, expressions.emit(ctx, n), tensor.dtype) for n in (every, start))
    dims = (BATCH, *(i for i in tensor.indices if i not in ctx.fixed))
    value = expressions.full(ctx, value, (BATCH, stream, *dims[1:]), tensor.dtype)
    before = with_ones(expressions.tensor(ctx, before, tensor.dtype), dims)
    text = f"{ctx.helper('_at_end')}({value.text}, {before.at(ATOM)}.unsqueeze(1), 1, {ctx.ends})"
    return Value(text, dims, tensor.dtype)

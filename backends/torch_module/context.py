"""What one generated function knows while it is being written: names, sizes, where each tensor is, lines so far.

Architecture invariant: the only mutable object of the backend; every other part takes it and returns `Value`s.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from seqdsl.ir.dependence import Loop
from seqdsl.ir.node import Node, walk
from seqdsl.ir.ops import bound, made
from seqdsl.ir.state import StateEntry
from seqdsl.ir.system import Edge, System, Tensor

from .names import Names
from .target import TORCH, Target
from .values import ATOM, BATCH, Value, plain


class Unsupported(Exception):
    """Something that this backend has no text for."""


@dataclass(frozen=True)
class Stored:
    """A tensor in a variable; dims are its own indices. `full`: along the stream it starts at position 0, whatever a
    state has seen; else at the first new position."""

    value: Value
    full: bool = False


@dataclass(frozen=True)
class Looped:
    """A tensor that a loop is computing: `name[i, ..]` for the positions of its indices at `keys`."""

    name: str
    keys: tuple[int, ...]
    zero: str
    primed: bool  # every key that is read exists: the ones before the loop were put in
    begins: bool = False  # is the entry before the first one there, for a loop upwards?
    reach: int = 0  # how far back it is read, if entries before that may go; 0 if all are kept
    local: bool = False  # only read where it is computed: a plain variable

    def entry(self, key: str) -> str:
        """The text of one entry."""
        return self.name if self.local else f"{self.name}[{key}]"


@dataclass(frozen=True)
class Layered:
    """A parameter with a tensor for each position of its first `depth` indices: `self.x[l].q.weight`."""

    path: tuple[str, ...]
    depth: int


Place = Stored | Looped | Layered


@dataclass(frozen=True)
class Source:
    """Where a read takes its entries: a value, its tensor's indices, and the edges it may leave by. `node` is the whole
    read where loops hold the positions `keys`, of which `value` is one entry."""

    value: Value
    own: tuple[str, ...]
    edges: tuple[Edge, ...]
    name: str
    full: bool = False
    node: Node | None = None
    keys: tuple[int, ...] = ()
    joined: bool = False  # what came before is joined to the value already


@dataclass
class Block:
    """Lines at one depth of indentation."""

    indent: int
    lines: list[str] = field(default_factory=list)

    def add(self, text: str) -> None:
        """One line; an empty one stays empty."""
        self.lines.append("    " * self.indent + text if text else "")


@dataclass
class LoopScope:
    """A loop being written: `before` takes lines that must stand before its `for`."""

    axis: str
    variable: str
    start: str
    before: Block
    steps: dict[tuple[str, str], str] = field(default_factory=dict)


@dataclass
class Context:
    """See the module's docstring. `fixed` maps indices to the loop variable that holds their position."""

    system: System
    names: Names
    block: Block
    parameters: str = "self."  # how a parameter's path begins
    options: str = "self."  # how an option is reached
    target: Target = TORCH
    ends: str = ""  # the ends of packed sequences, where there may be some
    stateless: bool = True  # does no state come or go where there are some?
    pasts: str = ""  # how many positions came before each of them, where caches come and go with them
    about: dict[str, str] = field(default_factory=dict)  # of their positions, the variable that a function gives
    stateful: bool = False  # may a state be given?
    past: bool = False  # does the code know how many positions came before?
    records: dict[str, StateEntry] = field(default_factory=dict)  # by tensor: what the state holds of it
    tails: dict[str, StateEntry] = field(default_factory=dict)  # by tensor: the last values that it holds of it
    places: dict[str, Place] = field(default_factory=dict)
    widened: set[str] = field(default_factory=set)  # tensors that are read in the computation's dtype
    taken: set[str] = field(default_factory=set)  # inputs that a stand-in reads as they are given
    unread: frozenset[str] = frozenset()  # outputs that nothing else reads
    late: frozenset[str] = frozenset()  # tensors that only the state needs
    unclosed: list[tuple[Tensor, tuple[int, ...]]] = field(default_factory=list)  # entries of loops that only it needs
    histories: dict[str, Value] = field(default_factory=dict)  # what came before a tensor's first new position
    ranks: str = ""  # the variable that exchanges with other ranks, where the stream lies in pieces
    total: str = ""  # the variable of how many positions there are on all of them, where those are counted
    windows: dict[str, Value] = field(default_factory=dict)  # the last positions of all pieces, where windows cross ranks
    joined: dict[str, Value] = field(default_factory=dict)  # the same and the tensor, as one
    finished: dict[str, Looped] = field(default_factory=dict)  # tensors of loops that are over
    functions: dict[Loop, list[str]] = field(default_factory=dict)  # loops inside others that become functions; their states
    lasts: dict[str, str] = field(default_factory=dict)  # the variables of their last values, where a function has the loop
    keep: str = ""  # in that function: the variable that says that all entries are kept
    fixed: dict[str, str] = field(default_factory=dict)
    loops: list[LoopScope] = field(default_factory=list)
    guards: tuple[Node, ...] = ()
    caches: list[dict[object, Value]] = field(default_factory=lambda: [{}])
    order: list[str] = field(default_factory=list)
    sizes: dict[str, str] = field(default_factory=dict)  # by index: the variable of its length
    option_variables: dict[str, str] = field(default_factory=dict)
    size_lines: list[tuple[str, str]] = field(default_factory=list)
    index_lines: list[str] = field(default_factory=list)
    helpers: set[str] = field(default_factory=set)
    uses: dict[Node, int] = field(default_factory=dict)
    hoisted: dict[Node, Value] = field(default_factory=dict)
    current: str = "x"
    batched: bool = True
    like: str = "torch.zeros((), device=device)"  # a real input, for what is empty to depend on
    batch: str = "B"  # the variable of the batch size
    draws: tuple[str, ...] | None = None  # in an initialiser: the parameter's indices, which a draw fills
    draw_dtype: str = "real"
    local: dict[str, tuple[tuple[str, ...], Value]] = field(default_factory=dict)  # a monoid's pseudo-tensors
    lengths: dict[str, str] = field(default_factory=dict)  # of indices that a block cuts
    fused: bool = False  # is a product added in the same operation?
    stepping: bool = False  # in a step of Newton's method, which has each dimension at its length or at 1, and no jvp

    def helper(self, name: str) -> str:
        """A function of `runtime`, which the file then takes along."""
        self.helpers.add(name)
        return name

    def support(self, name: str) -> str:
        """A function of `support`, likewise, or what the target has in its place."""
        return self.target.call(name).name

    def begins(self, function: str, time: str, states: bool = False) -> str:
        """The arguments of a call that say where packed sequences begin, and of one that has `states` of each of them, where
        states come or go."""
        known = self.ends and self.on_stream(time) and self.target.call(function).packed
        first = f", first={self.positions('first', '_first_positions')}" if known else ""
        if not first or not states or self.stateless:
            return first
        if "starts" not in self.about:
            self.about["starts"] = self.names.fresh("starts")
            asked = f"{self.ends} if return_state or state is not None else None"
            self.index_lines.append(f"{self.about['starts']} = {asked}  # where states come or go")
        return f"{first}, starts={self.about['starts']}"

    def sequences(self, name: str) -> str:
        """How many states a tensor of them has: one for each of the batch, or of the packed sequences."""
        return self.dim_text(BATCH) if not self.ends or self.stateless else f"{name}.shape[0]"

    def each(self, time: str) -> str:
        """The argument of a call that takes the ends of packed sequences along an index."""
        return f", ends={self.ends}" if self.ends and self.on_stream(time) else ""

    def spans(self) -> str:
        """The variable of where packed sequences have their rows and columns."""
        helper, total = "_sequence_spans", self.length(str(self.system.stream))
        if helper not in self.about:
            self.about[helper] = self.names.fresh("spans")
            given = f"{self.ends}, {total}, {self.pasts or None}, device"
            self.size_lines.append((self.about[helper], f"{self.helper(helper)}({given})"))
        return self.about[helper]

    def positions(self, wanted: str, helper: str) -> str:
        """The variable of what a function tells of all positions of packed sequences."""
        if helper not in self.about:
            self.about[helper], total = self.names.fresh(wanted), self.length(str(self.system.stream))
            line = f"{self.about[helper]} = {self.helper(helper)}({self.ends}, {total}, device)  # [{total}]"
            self.index_lines.append(line)
        return self.about[helper]

    def place(self, tensor: str) -> Place:
        """Where a tensor is, for a reader that wants it in the dtype of the computation."""
        self.widened.add(tensor)
        return self.places[tensor]

    def axis(self, index: str) -> str:
        """The axis that an index runs over."""
        return self.system.axis(index)

    def on_stream(self, index: str) -> bool:
        """Does the index run over the streamed axis?"""
        return self.system.stream is not None and self.axis(index) == self.system.stream

    def is_new(self, index: str) -> bool:
        """The stream's own index runs over the new positions, a second one over all."""
        return index.rstrip("'") == self.system.stream

    def ordered(self, dims: Iterator[str] | list[str] | tuple[str, ...] | set[str]) -> tuple[str, ...]:
        """Dimensions in the order in which the current equation met them, the batch first."""
        found = set(dims)
        for d in sorted(found):
            if d != BATCH and d not in self.order:
                self.order.append(d)
        return ((BATCH,) if BATCH in found else ()) + tuple(d for d in self.order if d in found)

    def meet(self, node: Node) -> None:
        """Fix the order of the node's indices, as they appear in the text."""
        for n in walk(node):
            for name in (str(n.attr),) if n.op == "index" else (*bound(n), *made(n)):
                if name not in self.order:
                    self.order.append(name)

    def bind(self, wanted: str, value: Value, shape: list[str] | None = None) -> Value:
        """Assign to a new variable, with its shape beside it (`shape` where that is not its dims' lengths)."""
        name = self.names.fresh(wanted)
        value = plain(value)
        self.assign(name, value, shape)
        return Value(name, value.dims, value.dtype, ATOM, value.static, value.zero_outside)

    def assign(self, name: str, value: Value, shape: list[str] | None = None) -> None:
        """`name = text  # [B, T, H]`"""
        lengths = [d if d in self.lengths else self.dim_text(d) for d in value.dims] if shape is None else shape
        self.block.add(f"{name} = {value.text}" + ("" if value.static else f"  # [{', '.join(lengths)}]"))

    def dim_text(self, dim: str) -> str:
        """The length of a dimension."""
        if dim == BATCH:
            return self.batch
        return self.length(dim)

    def shape(self, dims: Iterable[str]) -> str:
        """`B, T, H`: the lengths of dimensions."""
        return ", ".join(self.dim_text(d) for d in dims)

    def call(self, names: str, function: str, arguments: Iterable[str], shape: str) -> None:
        """`names = function(`, a line for each argument, and `)  # [B, T, H]`."""
        self.block.add(f"{names} = {function}(")
        for argument in arguments:
            self.block.add(f"    {argument},")
        self.block.add(f")  # [{shape}]")

    def rows_name(self) -> str:
        """A variable for unknowns, a row for each position: named after the equation, where that is an identifier."""
        return self.names.fresh(self.current if self.current.isidentifier() else f"{self.current}_rows")

    def length(self, index: str) -> str:
        """The length of an index's range: of the stream's own index, the new positions; of the others, all."""
        from .sizes import size_variable

        if index in self.lengths:
            return self.lengths[index]
        return size_variable(self, index)

    @property
    def standing(self) -> tuple[tuple[str, str], ...]:
        """Where the loops around hold their indices: what is found there is another thing elsewhere."""
        return tuple(sorted(self.fixed.items()))

    def variables_in(self, lines: list[str]) -> list[str]:
        """The variables of loops around that the lines of a function mention: where it is called again, they have moved."""
        words = {word for line in lines for word in re.findall(r"\w+", line)}
        return [v for v in dict.fromkeys(self.fixed.values()) if v in words]

    def is_here(self, read: Node) -> bool:
        """Does a read stand where the loops around do, and not at another one of their steps?"""
        own = self.system.tensors[str(read.attr)].indices
        held = [(a, self.fixed[i]) for a, i in zip(read.args, own, strict=True) if i in self.fixed]
        return all(a.op == "index" and self.fixed.get(str(a.attr)) == at for a, at in held)

    def comment(self, tensor: Tensor) -> None:
        """The equation as it was written, above what computes it."""
        for line in tensor.comment.splitlines():
            self.block.add("# " + " ".join(line.split()))

    @contextmanager
    def having(self, **fields: Any) -> Iterator[None]:
        """With other values of some fields, and afterwards with those from before."""
        before = {name: getattr(self, name) for name in fields}
        vars(self).update(fields)
        try:
            yield
        finally:
            vars(self).update(before)

    @contextmanager
    def before_loops(self) -> Iterator[None]:
        """Before the outermost loop that is being written, where none of them holds an index."""
        if not self.loops:
            yield
            return
        first = [self.caches[0]]
        with self.having(block=self.loops[0].before, fixed={}, loops=[], guards=(), caches=first, fused=False, stepping=False):
            yield

    def under(self, *conditions: Node) -> AbstractContextManager[None]:
        """Below a guard."""
        return self.guarded((*self.guards, *conditions))

    def guarded(self, conditions: tuple[Node, ...]) -> AbstractContextManager[None]:
        """Below these guards alone."""
        return self.having(guards=conditions)

    def at(self, places: dict[str, str]) -> AbstractContextManager[None]:
        """Where these indices too stand at known positions."""
        return self.having(fixed={**self.fixed, **places})

    @contextmanager
    def apart(self) -> Iterator[None]:
        """While lines are written that do not always run: what is found in them is not known afterwards; the positions
        that stand before them are."""
        before = [dict(c) for c in self.caches]
        histories, joined, hoisted = dict(self.histories), dict(self.joined), dict(self.hoisted)
        try:
            yield
        finally:
            self.caches = [
                {k: v for k, v in now.items() if k in old or isinstance(k, tuple) and k[0] == "positions"}
                for now, old in zip(self.caches, before, strict=True)
            ]
            self.histories, self.joined, self.hoisted = histories, joined, hoisted

    @contextmanager
    def equation(self, tensor: Tensor) -> Iterator[None]:
        """While the equation of a tensor is written."""
        with self.having(order=list(tensor.indices), current=tensor.name):
            if tensor.rhs is not None:
                self.meet(tensor.rhs)
            yield

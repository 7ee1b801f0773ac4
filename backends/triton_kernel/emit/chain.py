"""The kernel of a group of equations: what it loads, its equations in order, what it stores.

A program has one position of every index but those of its tile: the ones that are summed over, whole, and a block of the
column. Of `rows`, indices that are none of the tile's, it has several positions, in the order of memory: they are the first
dimension. All values have these dimensions, of length 1 where they do not vary. Entry point: `Kernel`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, field

from seqdsl.ir import build
from seqdsl.ir.node import Node, walk
from seqdsl.ir.ops import bound
from seqdsl.ir.system import System, Tensor

from ...torch_module.names import Names, safe
from ...torch_module.values import ATOM, BATCH, UNARY
from .normal import multiplied, through_sums
from .numbers import is_fixed, named
from .parts import REDUCTIONS, Group
from .texts import Writer
from .windows import Window, exchanged_windows

NEUTRAL = {"sum": "0.0", "max": 'float("-inf")', "min": 'float("inf")'}
RESERVED = frozenset(
    ["tl", "triton", "blocks", "rest", "batch", "origin", "row", "ROWS", "BR", "inside", "part", "parts", "step", "STEPS", "left",
     "number", "PACKED", *(f"shared_{k}" for k in range(200))]
)  # fmt: skip


@dataclass(frozen=True)
class Loaded:
    """A tensor that the kernel loads: a read, its name, and its dimensions in order, the batch among them."""

    node: Node
    name: str
    dims: tuple[str, ...]


@dataclass(frozen=True)
class Summed:
    """A window that the kernel adds up: its name, what it is made of, and its taps."""

    window: Window
    name: str
    source: Loaded
    taps: Loaded


@dataclass
class Kernel:
    """Text of one kernel. `given` are the reads of what it does not compute, with their dimensions; of `windows` those of
    what they are made of, and of their taps."""

    system: System
    group: Group
    given: dict[Node, tuple[str, ...]]
    outputs: tuple[str, ...]
    rows: tuple[str, ...] = ()
    numbers: dict[Node, str] = field(default_factory=dict)
    windows: dict[Window, tuple[tuple[str, ...], tuple[str, ...]]] = field(default_factory=dict)
    names: Names = field(default_factory=lambda: Names(RESERVED))
    lines: list[str] = field(default_factory=list)
    depth: int = 1

    def __post_init__(self) -> None:
        self.names.taken |= set(self.numbers.values())
        self.index = {i: self.names.fresh(safe(i)) for i in self.group.space}
        self.count = {i: self.names.fresh(f"{safe(i)}_count") for i in self.group.space}
        self.block = {i: self.names.fresh(f"B{safe(i)}") for i in self.group.tile}
        self.dims = [*(["row"] if self.rows else []), *self.group.tile]  # of every value
        self.leaves = [Loaded(n, self._named(_short(str(n.attr)), d), d) for n, d in self.given.items()]
        self.sums = [self._summed(w, *dims) for w, dims in self.windows.items()]
        self.loaded = [*self.leaves, *(x for s in self.sums for x in (s.source, s.taps))]
        self.stored = {n: self.names.fresh(f"{_short(n)}_out") for n in self.outputs}
        self.first = self.names.fresh(f"first_{self.index[self.group.column]}") if self.group.column else ""

    def _named(self, wanted: str, dims: tuple[str, ...]) -> str:
        """A name with which no variable that is made of it is another's: the strides of what is loaded, and its tile."""
        found, number = wanted, 1
        while {found, *(own := self._variables(found, dims))} & self.names.taken:
            number += 1
            found = f"{wanted}_{number}"
        self.names.taken |= {found, *own}
        return found

    def _variables(self, name: str, dims: tuple[str, ...]) -> list[str]:
        return [f"{name}_tile", *(f"{name}_{'batch' if d == BATCH else safe(d)}" for d in dims)]

    def _summed(self, window: Window, source: tuple[str, ...], taps: tuple[str, ...]) -> Summed:
        names = [self._named(_short(str(n.attr)), d) for n, d in ((window.read, source), (window.taps, taps))]
        loaded = [Loaded(n, name, dims) for n, name, dims in zip((window.read, window.taps), names, (source, taps), strict=True)]
        return Summed(window, self.names.fresh(f"{names[0]}_window"), *loaded)

    def add(self, text: str) -> None:
        self.lines.append("    " * self.depth + text)

    def text(self, name: str) -> list[str]:
        """The whole kernel."""
        self._begin(f'{", ".join(self.outputs)} for')
        self._positions()
        writer = self._writer(self.leaves)
        for summed in self.sums:
            self._window(summed, writer)
        tensors = [self.system.tensors[n] for n in self.group.tensors]
        values = [self._normal(t.rhs) for t in tensors if t.rhs is not None]
        self._number(values, writer.known)
        writer.count(values)
        for tensor, value in zip(tensors, values, strict=True):
            self._equation(tensor, value, writer)
        return [*self._signature(name), *self.lines]

    def _normal(self, node: Node) -> Node:
        """An equation's right side in operators that kernels have."""
        return through_sums(multiplied(exchanged_windows(self.system, node)[0])) if self.group.stream else node

    def _writer(self, loaded: Iterable[Loaded]) -> Writer:
        """With leaves that are loaded now."""
        known: dict[Node, tuple[str, int]] = {build.index(i): (v, ATOM) for i, v in self.index.items()}
        for leaf in loaded:
            self._load(leaf)
            known[leaf.node] = f"{leaf.name}_tile", ATOM
        return Writer(known, 1, prefix="shared")

    def _signature(self, name: str) -> list[str]:
        strides = [f"{leaf.name}_{safe(d) if d != BATCH else 'batch'}" for leaf in self.loaded for d in leaf.dims]
        given = [
            [*(leaf.name for leaf in self.loaded), *(["number"] if self.sums else []), *self.stored.values()],
            [*strides, *self.count.values(), *self._lengths(), *self.numbers.values()],
            [f"{b}: tl.constexpr" for b in (*self.block.values(), *(["PACKED"] if self.sums else []), *self._constants())],
        ]
        lines = [f"    {line}" for names in given if names for line in textwrap.wrap(", ".join(names) + ",", 114)]
        return ["@triton.jit", f"def {name}(", *lines, "):  # fmt: skip"]

    def _lengths(self) -> list[str]:
        """More lengths than those of indices."""
        return [*(["ROWS"] if self.rows else []), *(f"{s.name}_{n}" for s in self.sums for n in ("before", "taps"))]

    def _constants(self) -> list[str]:
        """More constants than the lengths of blocks."""
        return ["BR"] if self.rows else []

    def _begin(self, what: str) -> None:
        """Which positions this program has of the tile's indices, and one of each that is neither there nor in the rows."""
        column, first = self.group.column, self.first
        place = "some positions" if self.rows else "one position"
        self.add(f'"""{what} {place} of what is not in a tile of {", ".join(self.group.tile)}."""')
        if column:
            self.add(f"blocks = tl.cdiv({self.count[column]}, {self.block[column]})")
            self.add(f"{first} = tl.program_id(0) % blocks * {self.block[column]}")
        self.add(f"rest = tl.cast(tl.program_id(0){' // blocks' if column else ''}, tl.int64)")
        self._part()
        for i in reversed([i for i in self.group.space if i not in (*self.group.tile, *self.rows)]):
            self.add(f"{self.index[i]} = rest % {self.count[i]}")
            self.add(f"rest = rest // {self.count[i]}")
        if BATCH not in self.rows:
            self.add("batch = rest")
        for i in self.group.tile:
            start = f"{first} + " if i == column else ""
            text = f"{start}tl.arange(0, {self.block[i]})"
            slots = self._slots(i)
            self.add(f"{self.index[i]} = {f'({text})' if start and slots else text}{slots}")
        self.add(f"origin = tl.zeros([{', '.join('1' for _ in self.dims)}], tl.int64)")

    def _part(self) -> None:
        """Which of the rows: all programs that have the same of everything else divide them."""

    def _positions(self, first: str = "rest * BR") -> None:
        """Which position of each of the rows' indices stands in which row."""
        if not self.rows:
            return
        self.add(f"row = {first} + tl.arange(0, BR){self._slots('row')}")
        self.add("inside = row < ROWS")
        left, indices = "row", [i for i in self.rows if i != BATCH]
        for k, i in enumerate(reversed(indices)):
            last = BATCH not in self.rows and k == len(indices) - 1
            self.add(f"{self.index[i]} = {left}{'' if last else f' % {self.count[i]}'}")
            if not last:
                self.add(f"left = {left} // {self.count[i]}")
                left = "left"
        if BATCH in self.rows:
            self.add(f"batch = {left}")

    def _slots(self, index: str) -> str:
        if len(self.dims) == 1:
            return ""
        return f"[{', '.join(':' if i == index else 'None' for i in self.dims)}]"

    def _mask(self, dims: tuple[str, ...]) -> str:
        tests = ["inside"] if {*self.rows} & {*dims} else []
        tests += [f"({self.index[i]} < {self.count[i]})" for i in self.group.tile if i in dims]
        return " & ".join(tests) if len(tests) > 1 else tests[0].strip("()") if tests else ""

    def _load(self, leaf: Loaded) -> None:
        inside = self._mask(leaf.dims)
        cast = ".to(tl.float32)" if leaf.node.dtype == "real" else ""
        mask = f", mask={inside}, other=0" if inside else ""
        self.add(f"{leaf.name}_tile = tl.load({self._place(leaf, {})}{mask}){cast}")

    def _place(self, leaf: Loaded, others: dict[str, str]) -> str:
        """Where a leaf's entries are; `others` are positions of some of its dimensions."""
        steps = []
        for d in leaf.dims:
            at = "batch" if d == BATCH else others.get(d) or self.index[d]
            at = f"tl.cast({at}, tl.int64)" if self.rows and d in self.group.tile else at  # strides may be long
            steps.append(f"{at} * {leaf.name}_{'batch' if d == BATCH else safe(d)}")
        return " + ".join([leaf.name, "origin", *steps])

    def _window(self, summed: Summed, writer: Writer) -> None:
        """A window, tap by tap. What it is made of may begin before the first position, and is 0 before that; of packed
        sequences, each is behind what came before it. `number` says which one a position is of."""
        window, name = summed.window, summed.name
        shape = ", ".join(self.block[d] if d in window.indices else "BR" if d == "row" else "1" for d in self.dims)
        lag, place = self.names.fresh(safe(window.lag)), f"{name}_place"
        step = f"{lag}" if window.step == 1 else f"{lag} * {window.step}"
        skip = f" - {window.skip}" if window.skip else ""
        self.add(f"{name}_tile = tl.zeros([{shape}], tl.float32)")
        own = f"number + origin + {self.index[window.time]}, mask={self._mask((*self.rows, window.time))}, other=0"
        self.add(f"{name}_from = {name}_before + (tl.load({own}) * {name}_before if PACKED else 0)")
        self.add(f"for {lag} in range({name}_taps):")
        self.depth += 1
        self.add(f"{place} = origin + {self.index[window.time]} + {name}_from - {step}{skip}")
        tests = " & ".join(t for t in (self._mask((*self.rows, *window.indices)), f"({place} >= 0)") if t)
        taps = self._mask(summed.taps.dims)
        at = self._place(summed.taps, {window.lag: lag})
        self.add(f"{name}_tap = tl.load({at}{f', mask={taps}, other=0' if taps else ''}).to(tl.float32)")
        entry = f"tl.load({self._place(summed.source, {window.time: place})}, mask={tests}, other=0).to(tl.float32)"
        self.add(f"{name}_tile += {name}_tap * {entry}")
        self.depth -= 1
        writer.known[window.leaf] = f"{name}_tile", ATOM

    def _number(self, values: list[Node], known: dict[Node, tuple[str, int]]) -> None:
        """Name the largest parts that are numbers Python knows."""
        pending = list(values)
        seen: set[Node] = set()
        while pending:
            node = pending.pop(0)
            if node in seen or node in known or node.op == "const":
                continue
            seen.add(node)
            if is_fixed(node):
                if node not in self.numbers:
                    self.numbers[node] = named(self.names, node)
                known[node] = self.numbers[node], ATOM
            elif node.op != "read":
                pending += node.args

    def _equation(self, tensor: Tensor, value: Node, writer: Writer) -> None:
        """An equation's value, and its store."""
        for line in tensor.comment.splitlines():
            self.add("# " + " ".join(line.split()))
        found = self._value(value, writer)
        name = f"{self._named(_short(tensor.name), ())}_tile"
        self.add(f"{name} = {found}")
        writer.known[build.whole(tensor)] = name, ATOM
        if tensor.name in self.stored:
            self._store(tensor, name)

    def _value(self, value: Node, writer: Writer) -> str:
        """The text of an expression, behind the lines that it needs."""
        for node in walk(value):
            if node.op in REDUCTIONS and node not in writer.known:
                self._reduce(node, writer)
            elif node.op == "mul" and node not in writer.known and not self.group.stream:
                self._decay(node, writer)
        found = writer.text(value)
        self._flush(writer)
        return found

    def _reduce(self, node: Node, writer: Writer) -> None:
        """A reduction over indices of the tile, which keeps its dimensions."""
        body, guard = node.args
        divided = ""
        if node.op == "sum" and body.op == "div" and is_fixed(body.args[1]):
            body, divided = body.args[0], f" / {writer.text(body.args[1], UNARY)}"
        text = writer.text(body)
        inside = self._mask(bound(node))
        if guard is not build.TRUE:
            inside = " & ".join(f"({t})" for t in (writer.text(guard), *inside.split(" & ")))
        self._flush(writer)
        text = f"tl.where({inside}, {text}, {NEUTRAL[node.op]})"
        for i in bound(node):
            text = f"tl.{node.op}({text}, {self.dims.index(i)}, keep_dims=True)"
        name = self.names.fresh({"sum": "total", "max": "most", "min": "least"}[node.op])
        self.add(f"{name} = {text}{divided}")
        writer.known[node] = name, ATOM

    def _decay(self, node: Node, writer: Writer) -> None:
        """exp(g) times what was held before, without the drift of a rounded decay."""
        for decay, state in (node.args, node.args[::-1]):
            held = state.op == "read" and self.system.tensors[str(state.attr)].kind == "carry"
            if held and decay.op == "exp":
                found = f"_decayed({writer.text(decay.args[0])}, {writer.text(state)})"
                self._flush(writer)
                name = f"{self.names.fresh('decayed')}"
                self.add(f"{name} = {found}")
                writer.known[node] = name, ATOM

    def _flush(self, writer: Writer) -> None:
        """The lines that shared parts of an expression took."""
        for line in writer.lines:
            self.add(line.strip())
        writer.lines.clear()

    def _store(self, tensor: Tensor, text: str) -> None:
        """[B, *indices], row-major. What does not vary along the column is stored by its first block."""
        place = "batch"
        for i in tensor.indices:
            place = f"({place}) * {self.count[i]} + {self.index[i]}" if place != "batch" else (
                f"batch * {self.count[i]} + {self.index[i]}")  # fmt: skip
        inside = self._mask(tensor.indices)
        column = self.group.column
        if column and column not in tensor.indices:
            once = f"{self.first} == 0"
            limits = [i for i in self.group.tile if i in tensor.indices]
            tests = [f"({self.index[i]} < tl.where({once}, {self.count[i]}, 0))" for i in limits]
            inside = " & ".join(tests) if tests else f"origin < tl.where({once}, 1, 0)"
        mask = f", mask={inside}" if inside else ""
        self.add(f"tl.store({self.stored[tensor.name]} + origin + {place}, {text}{mask})")


def _short(name: str) -> str:
    """The last part of a tensor's name."""
    return safe(name if name.endswith((".part", ".in")) else name.rpartition(".")[2])

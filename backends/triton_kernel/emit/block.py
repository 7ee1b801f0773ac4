"""The parts that every kernel of a normalised read is made of: arguments, what a block loads, its scores and its mask.

A kernel holds one block along its `fixed` index and moves along the other; tiles are [fixed, moving]. Where sequences may
be packed, it knows the positions that places have in their own one. Entry point: `Block`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from seqdsl.ir import build
from seqdsl.ir.node import Node

from ...torch_module.names import safe
from ...torch_module.values import ATOM, BATCH, SUM
from .bounds import block_range, limits
from .score import Leaf, Score
from .texts import Writer


def dim_name(dim: str) -> str:
    """A leading dimension as a variable."""
    return "batch" if dim == BATCH else f"{safe(dim)}_"


def count_name(dim: str) -> str:
    """The length of a leading dimension, an argument."""
    return f"{safe(dim)}_count"


def heads_text(dims: tuple[str, ...]) -> str:
    """How many positions leading dimensions have."""
    return " * ".join(count_name(d) for d in dims) or "1"


def strides(leaf: Leaf) -> list[str]:
    """The arguments that step along a leaf's dimensions; along features the step is 1."""
    dims = [dim_name(d).strip("_") for d in leaf.lead]
    if leaf.places:  # and how many entries there are
        dims += [f"{part}{k}" for k in range(len(leaf.places)) for part in ("at", "count")]
    else:
        dims += ["row"] * leaf.row + ["column"] * leaf.column
    return [f"{leaf.name}_{d}" for d in dims]


def widths(score: Score) -> dict[str, str]:
    """The length of every feature axis, as a constant of the kernel, and what it is padded to."""
    found: dict[str, str] = {}
    for left, _ in score.dots.values():
        found.setdefault(left.feature, f"D{len(found)}")
    return found


@dataclass
class Block:
    """Text of one kernel: `fixed` is "row" or "column"."""

    score: Score
    fixed: str
    values: Leaf | None
    lines: list[str] = field(default_factory=list)
    counts: bool = False  # are positions numbers for all pairs of packed sequences? Else only masks ask for them

    @property
    def moving(self) -> str:
        return "column" if self.fixed == "row" else "row"

    def size(self, side: str) -> str:
        return "T" if side == "row" else "S"

    def width(self, side: str) -> str:
        return "BT" if side == "row" else "BS"

    def add(self, text: str, depth: int = 1) -> None:
        self.lines.append("    " * depth + text)

    def leaves(self) -> list[Leaf]:
        """The score's tensors, the values last."""
        return [*self.score.leaves(), *([self.values] if self.values is not None else [])]

    def arguments(self) -> list[str]:
        """Tensors' strides, lengths and numbers, in the order in which a launch gives them."""
        found = [s for leaf in self.leaves() for s in strides(leaf)]
        found += [count_name(d) for d in self.score.lead]
        return [*found, "T", "S", *self.score.numbers.values()]

    def constants(self) -> list[str]:
        """Widths of features, tiles and the precision of products."""
        found = [c for d in widths(self.score).values() for c in (d, f"B{d}")]
        found += ["E", "BE"] if self.values is not None else []
        packed = ["PACKED", "KEEPS"] if self.score.packed else []
        return [f"{c}: tl.constexpr" for c in (*packed, *found, "BT", "BS", "PRECISION")]

    def spans(self) -> list[str]:
        """The argument that says where packed sequences are."""
        return ["spans"] if self.score.packed else []

    def decode(self, dims: list[str], source: str, depth: int = 1) -> None:
        """Positions along leading dimensions from their number in row-major order."""
        for k, d in enumerate(reversed(dims)):
            last = k == len(dims) - 1
            self.add(f"{dim_name(d)} = tl.cast({source}{'' if last else f' % {count_name(d)}'}, tl.int64)", depth)
            if not last:
                self.add(f"{source} = {source} // {count_name(d)}", depth)

    def places(self, leaves: list[Leaf], depth: int = 1) -> None:
        """Where each tensor's part of this block's leading position begins."""
        for leaf in leaves:
            steps = [f"{dim_name(d)} * {s}" for d, s in zip(leaf.lead, strides(leaf), strict=False)]
            self.add(f"{leaf.name}_at = {' + '.join([leaf.name, *steps])}", depth)

    def begin(self, leaves: list[Leaf], depth: int) -> None:
        """The places of some tensors, and what of them is loaded once."""
        self.places(leaves, depth)
        for leaf in leaves:
            if leaf in self.own():
                self.load(leaf, depth)

    def position(self, side: str, found: bool) -> str:
        """Positions along a side, broadcast to the tile: in variables where they have been `found`."""
        if found:
            return f"{side}_at{self.slot(side)}" if side == self.fixed else f"{side}_at"
        text = self._shifted(side)
        return f"{text if text.isidentifier() else f'({text})'}{self.slot(side)}"

    def _shifted(self, side: str) -> str:
        shift = self.score.shifts[self.score.row if side == "row" else self.score.column]
        return side if shift is build.ZERO else f"{side} + {self.score.number(shift)}"

    def locate(self) -> None:
        """Positions along the fixed index, where they are numbers for all pairs."""
        if self.counts:
            self.add(f"{self.fixed}_at = {self._shifted(self.fixed)}")
            self.add("if PACKED:")
            self.add(self._places(), 2)

    def meet(self, depth: int) -> None:
        """The same along the moving index."""
        if self.counts:
            self.add(f"{self.moving}_at = {self.position(self.moving, False)}", depth)
            self.add("if PACKED:", depth)
            self.add(self._other_places(), depth + 1)

    def _places(self) -> str:
        return f"{self.fixed}_at, zeros = _{self.fixed}_places({self._given()})"

    def _other_places(self) -> str:
        """A pair that counts is of one sequence."""
        return f"{self.moving}_at = {self.moving}{self.slot(self.moving)} - zeros{self.slot(self.fixed)}"

    def _given(self) -> str:
        return f"spans, first_{self.fixed}, {self.size(self.fixed)}, {self.width(self.fixed)}"

    def expect(self, roots: list[Node]) -> None:
        """Note what expressions a kernel has for all pairs: are positions numbers in them?"""
        places = [place for x in self.others() for place in x.places]
        self.counts = self.score.packed and any(map(self._counts, [*roots, *places]))

    def _counts(self, node: Node) -> bool:
        if node in self.score.dots or node in self.score.scalars:
            return False
        return node.op == "index" or any(map(self._counts, node.args))

    def slot(self, side: str) -> str:
        return "[:, None]" if side == self.fixed else "[None, :]"

    def load(self, leaf: Leaf, depth: int) -> None:
        """One tensor's part of the block, in a variable of its name with `_tile`."""
        name = f"{leaf.name}_tile"
        if leaf.feature:
            side = "row" if leaf.row else "column"
            d = "E" if leaf is self.values else widths(self.score)[leaf.feature]
            self.add(f"{name} = _tile({self._at(leaf, side)}, {leaf.name}_{side}, {self._left(side)}, {d}, B{d},"
                     f" {self.width(side)})", depth)  # fmt: skip
        elif leaf.places:
            self.look_up(leaf, depth)
        elif leaf.row and leaf.column:
            at = f"{leaf.name}_at + {self._offset(leaf, 'row')} + {self._offset(leaf, 'column')}"
            steps = f"{leaf.name}_{self.fixed}, {leaf.name}_{self.moving}"
            self.add(f"{name} = _pairs({at}, {steps}, {self._left(self.fixed)}, {self._left(self.moving)},"
                     f" {self.width(self.fixed)}, {self.width(self.moving)})", depth)  # fmt: skip
        elif leaf.row or leaf.column:
            side = "row" if leaf.row else "column"
            self.add(f"{name} = _along({self._at(leaf, side)}, {leaf.name}_{side}, {self._left(side)},"
                     f" {self.width(side)})", depth)  # fmt: skip
        else:
            self.add(f"{name} = tl.load({leaf.name}_at)", depth)
        if leaf.node.dtype == "real" and not leaf.feature:
            self.add(f"{name} = {name}.to(tl.float32)", depth)

    def look_up(self, leaf: Leaf, depth: int) -> None:
        """A table's entry for each pair; 0 outside, as the language says."""
        writer = Writer(self.known())
        texts = [writer.text(place) for place in leaf.places]
        steps = [f"tl.cast({text}, tl.int64) * {leaf.name}_at{k}" for k, text in enumerate(texts)]
        inside = [f"({text} >= 0) & ({text} < {leaf.name}_count{k})" for k, text in enumerate(map(_bracketed, texts))]
        place = " + ".join([f"{leaf.name}_at", *steps])
        self.add(f"{leaf.name}_tile = tl.load({place}, mask={' & '.join(inside)}, other=0)", depth)

    def _offset(self, leaf: Leaf, side: str) -> str:
        return f"tl.cast(first_{side}, tl.int64) * {leaf.name}_{side}"

    def _at(self, leaf: Leaf, side: str) -> str:
        return f"{leaf.name}_at + {self._offset(leaf, side)}"

    def _left(self, side: str) -> str:
        return f"{self.size(side)} - first_{side}"

    def own(self) -> list[Leaf]:
        """What is loaded once: leaves along the fixed index or along neither."""
        return [x for x in self.leaves() if not (x.row if self.moving == "row" else x.column)]

    def others(self) -> list[Leaf]:
        """What is loaded for every block along the moving index."""
        return [x for x in self.leaves() if x not in self.own()]

    def open(self, depth: int = 1, *, apart: bool = False) -> tuple[int, str]:
        """The loop over blocks along the moving index. Returns the depth inside, and what says whether to mask: nothing
        for always.

        One loop with a branch around the mask takes few registers: loops apart share their addresses, and those spill.
        Where registers are left, as the forward kernel has them, whole blocks in a loop `apart` are faster.
        """
        moving, fixed = self.moving, self.fixed
        index = self.score.column if moving == "column" else self.score.row
        first, last, width = f"first_{fixed}", f"last_{fixed}", self.width(moving)
        sequence = f"_{fixed}_sequence(spans, {{}}, {first}, {last})"
        found = block_range(self.score, index, self.size(moving), width, first, last, sequence)
        if self.score.packed or any(last in line for line in found.lines):
            self.add(f"{last} = tl.minimum({first} + {self.width(fixed)}, {self.size(fixed)}) - 1", depth)
        if self.score.packed:
            self.add("if PACKED:", depth)
            for line in found.packed:
                self.add(line, depth + 1)
            self.add("else:", depth)
        for line in found.lines:
            self.add(line, depth + self.score.packed)
        if found.inner and apart and not found.left:
            self.add("for part in tl.static_range(2):  # blocks in which all pairs count, and those behind them", depth)
            self.add("low, high = whole, whole_end", depth + 1)
            self.add("if part == 1:", depth + 1)
            self.add("low, high = whole_end, end", depth + 2)
            self.blocks("low", "high", depth + 1)
            return depth + 2, "part == 1"
        self.blocks("begin", "end", depth)
        if not found.inner:
            return depth + 1, ""
        tests = [f"first_{moving} < whole"] * found.left + [f"first_{moving} >= whole_end"]
        self.add(f"masked = {' | '.join(f'({t})' for t in tests) if len(tests) > 1 else tests[0]}", depth + 1)
        return depth + 1, "masked"

    def blocks(self, begin: str, end: str, depth: int) -> None:
        """The loop from one place along the moving index to another."""
        given = f"{begin}, {end}, {self.width(self.moving)}"
        loop = f"tl.range({given}, disable_licm=KEEPS)" if self.score.packed else f"range({given})"
        self.add(f"for first_{self.moving} in {loop}:", depth)

    def known(self, packed: bool = False) -> dict[Node, tuple[str, int]]:
        """The texts of the score's leaves inside the loop; `packed`: where only packed sequences go."""
        score = self.score
        found: dict[Node, tuple[str, int]] = {
            build.index(score.row): (self.position("row", packed or self.counts), ATOM),
            build.index(score.column): (self.position("column", packed or self.counts), ATOM),
        }
        found |= {node: (name, ATOM) for node, name in score.numbers.items()}
        found |= {node: (f"product_{k}" if k else "product", ATOM) for k, node in enumerate(score.dots)}
        for node, leaf in score.scalars.items():
            side = "row" if leaf.row else "column"
            slot = self.slot(side) if leaf.row != leaf.column else ""
            found[node] = f"{leaf.name}_tile{slot}", ATOM
        return found

    def products(self, depth: int) -> None:
        """The sums over features."""
        for k, (left, right) in enumerate(self.score.dots.values()):
            a, b = (left, right) if self.fixed == "row" else (right, left)
            name = f"product_{k}" if k else "product"
            self.add(f"{name} = tl.dot({a.name}_tile, tl.trans({b.name}_tile), input_precision=PRECISION)", depth)

    def scores(self, writer: Writer, check: str, depth: int) -> None:
        """`z`, -inf where it does not count, and the factor, 0 there."""
        tile = f"[{self.width(self.fixed)}, {self.width(self.moving)}]"
        self.products(depth)
        z = writer.text(self.score.z)
        flush(writer, self, depth)
        self.add(f"z = {z}" if self.score.dots else f"z = tl.broadcast_to({z}, {tile})", depth)
        if self.score.factor is not build.ONE:
            factor = writer.text(self.score.factor, SUM)
            flush(writer, self, depth)
            self.add(f"factor = {factor}", depth)
        self.masked("z", 'float("-inf")', check, depth)
        if self.score.factor is not build.ONE:
            self.masked("factor", "0.0", check, depth)

    def masked(self, name: str, other: str, check: str, depth: int) -> None:
        """A tile with `other` where a pair does not count."""
        if check:
            self.add(f"if {check}:", depth)
            depth += 1
        edge = f"({self.moving} < {self.size(self.moving)}){self.slot(self.moving)}"
        counted = " & ".join([*self._facts(self.score.facts), edge])
        if self.score.packed:
            self.add("if PACKED:", depth)
            self.count_packed(depth + 1)
            self.add("else:", depth)
            self.add(f"counted = {counted}", depth + 1)
            counted = "counted"
        self.add(f"{name} = tl.where({counted}, {name}, {other})", depth)

    def count_packed(self, depth: int) -> None:
        """`counted` says which pairs of packed sequences count. Each place along the fixed index bounds the other one: by its
        sequence, and by its position."""
        index = self.score.column if self.moving == "column" else self.score.row
        lows, highs, others = limits(self.score, index, f"{self.fixed}_at")
        if self.score.facts and not self.counts:
            self.add(self._places(), depth)
        if others and not self.counts:
            self.add(self._other_places(), depth)
        self.add(f"lows, highs = _{self.fixed}_bounds({self._given()})", depth)
        for low in lows:
            self.add(f"lows = tl.maximum(lows, zeros + {low})", depth)
        for high in highs:
            self.add(f"highs = tl.minimum(highs, zeros + {high})", depth)
        moving, slot = f"{self.moving}{self.slot(self.moving)}", self.slot(self.fixed)
        bounds = [f"({moving} >= lows{slot})", f"({moving} < highs{slot})", *self._facts(others, packed=True)]
        self.add(f"counted = {' & '.join(bounds)}", depth)

    def _facts(self, facts: list[Node], *, packed: bool = False) -> list[str]:
        writer = Writer(self.known(packed))
        return [f"({writer.text(f)})" for f in facts]


def _bracketed(text: str) -> str:
    return text if text.isidentifier() else f"({text})"


def flush(writer: Writer, block: Block, depth: int) -> None:
    """The lines that shared parts of an expression took."""
    for line in writer.lines:
        block.add(line.strip(), depth)
    writer.lines.clear()

"""The two kernels of the adjoint of a normalised read: gradients along the rows, and along the columns.

Blocks of scores are computed again from the level. With p the weights, d_p = f (d_o . v) and delta = d_o . o - d_level,
the scores get d_z = p (d_p - delta) and a factor f gets p (d_o . v); leaves get the rest by the rows of
`derivatives`. Sums over rows and over columns are made in a fixed order: no atomics.
Entry points: `rows_adjoint`, `columns_adjoint`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from seqdsl.ir import build
from seqdsl.ir.node import Node, walk

from ...torch_module.values import ATOM, BATCH, PRODUCT
from .block import Block, count_name, dim_name, flush, heads_text, widths
from .derivatives import pulled
from .forward import begin_rows, entries, signature
from .score import LN_2, Leaf, Score
from .texts import Writer

D_Z, D_FACTOR = (build.read(name, [], "real") for name in ("@d_z", "@d_factor"))


def rows_adjoint(name: str, score: Score, values: Leaf | None) -> list[str]:
    """Gradients of what varies along the rows or along neither, and of pairs."""
    work = _Adjoint(Block(score, "row", values), score.lead)
    work.block.add('"""Gradients of what varies along BT rows, or along neither index."""')
    begin_rows(work.block)
    work.gradient_rows(1)
    work.accumulators()
    work.loop(1)
    return work.finish(name)


def columns_adjoint(name: str, score: Score, values: Leaf | None) -> list[str]:
    """Gradients of what varies along the columns: sums over the rows, and over leading positions that no column has."""
    kept = columns_lead(score, values)
    work = _Adjoint(Block(score, "column", values), kept)
    block, rest = work.block, tuple(d for d in score.lead if d not in kept)
    early = [x for x in block.leaves() if set(x.lead) <= {BATCH, *kept}]
    block.add('"""Gradients of what varies along BS columns."""')
    block.add("blocks = tl.cdiv(S, BS)")
    block.add("own = tl.cast(tl.program_id(0) // blocks, tl.int64)")
    block.add("first_column = tl.program_id(0) % blocks * BS")
    block.add("rest = own")
    block.decode([BATCH, *kept], "rest")
    block.add("column = first_column + tl.arange(0, BS)")
    block.locate()
    block.begin(early, 1)
    work.accumulators()
    depth = 1
    if rest:
        block.add(f"for others in range({heads_text(rest)}):")
        depth = 2
        block.add("other = others", depth)
        block.decode(list(rest), "other", depth)
        block.begin([x for x in block.leaves() if x not in early], depth)
    plane = "batch"
    for d in score.lead:
        plane = f"{plane if plane == 'batch' else f'({plane})'} * {count_name(d)} + {dim_name(d)}"
    block.add(f"plane = {plane}", depth)
    work.loop(depth)
    return work.finish(name)


def columns_lead(score: Score, values: Leaf | None) -> tuple[str, ...]:
    """The leading dimensions along which something of the columns varies."""
    own = [x for x in score.leaves() if x.column and not x.row] + ([values] if values is not None else [])
    return tuple(d for d in score.lead if any(d in x.lead for x in own))


def targets(score: Score, fixed: str) -> list[Leaf]:
    """The leaves whose gradients the kernel of one side makes; values aside."""
    found = [pair[fixed == "column"] for pair in score.dots.values()]
    found += [x for x in score.scalars.values() if x.real and (x.column and not x.row) == (fixed == "column")]
    return list(dict.fromkeys(x for x in found if x.real))


def flag(leaf: Leaf) -> str:
    """The constant that says whether the gradient of a tensor without features is wanted."""
    return f"WANTS_{leaf.name}"


@dataclass
class _Adjoint:
    """One kernel of the adjoint. `kept` are the leading dimensions that its blocks are counted along."""

    block: Block
    kept: tuple[str, ...]
    wanted: list[Leaf] = field(init=False)
    cotangents: dict[Node, Node] = field(init=False)
    later: dict[Node, Node] = field(init=False)  # factors that are the same for every pair of a leaf's sum

    def __post_init__(self) -> None:
        score = self.block.score
        self.wanted = targets(score, self.block.fixed)
        leaves = {*score.dots, *(n for n, x in score.scalars.items() if x.real)}
        roots = [(score.z, build.mul(LN_2, D_Z))]
        if score.factor is not build.ONE:
            roots.append((score.factor, D_FACTOR))
        found = pulled(roots, leaves)
        self.cotangents = {n: found[n] for n in (*score.dots, *score.scalars) if n in found and self.target(n) in self.wanted}
        self.later = {}
        for node in self.cotangents:
            common = {self.uniform(c) for n, c in self.cotangents.items() if self.target(n) is self.target(node)}
            one = next(iter(common))
            if len(common) == 1 and one is not None:
                self.later[node] = one
        self.block.expect([score.z, score.factor, *self.inside()])

    def inside(self) -> list[Node]:
        """The cotangents that are computed for each pair."""
        return [c for node, c in self.cotangents.items() if node not in self.later]

    def target(self, node: Node) -> Leaf:
        """The leaf of this kernel's side that a product or a scalar gives a gradient to."""
        score = self.block.score
        return score.dots[node][self.block.fixed == "column"] if node in score.dots else score.scalars[node]

    def uniform(self, cotangent: Node) -> Node | None:
        """c with cotangent = c * d_z, where c is the same for every pair that the kernel sums; None if there is none."""
        factors: list[Node] = []
        pending = [cotangent]
        while pending:
            current = pending.pop()
            whole = current in self.block.score.numbers or current in self.block.score.scalars
            if current.op == "neg" and not whole:
                factors.append(build.const(build.Fraction(-1)))
            if current.op in ("mul", "neg") and not whole:
                pending += current.args
            else:
                factors.append(current)
        rest = [f for f in factors if f is not D_Z]
        if len(rest) != len(factors) - 1 or any(self.varies(f) for f in rest):
            return None
        return build.product(reversed(rest))

    def varies(self, node: Node) -> bool:
        """Does it depend on more than what the kernel's blocks are counted along?"""
        score = self.block.score
        for n in walk(node):
            leaf = score.scalars.get(n)
            if n in score.dots or n in (D_Z, D_FACTOR) or n.op == "index" and n.attr in (score.row, score.column):
                return True
            if leaf is not None and (leaf.row or leaf.column or not set(leaf.lead) <= {BATCH, *self.kept}):
                return True
        return False

    def gradient_rows(self, depth: int) -> None:
        """Level, delta and the gradient of o for a block of rows."""
        block = self.block
        block.add("level_tile = _level_rows(level + plane * T + first_row, T - first_row, BT)", depth)
        block.add("delta_tile = _along(delta + plane * T + first_row, 1, T - first_row, BT)", depth)
        if block.values is not None:
            block.add(f"heads = {heads_text(block.score.lead)}", depth)
            block.add("place = d_o + ((batch * T + first_row) * heads + plane - batch * heads) * E", depth)
            block.add("d_o_tile = _tile(place, heads * E, T - first_row, E, BE, BT)", depth)

    def accumulators(self) -> None:
        """The sums that are stored in the end."""
        block, width = self.block, self.block.width(self.block.fixed)
        for leaf in self.wanted:
            if leaf.feature:
                d = widths(block.score)[leaf.feature]
                block.add(f"d_{leaf.name}_tile = tl.zeros([{width}, B{d}], tl.float32)")
            elif not (leaf.row and leaf.column):
                block.add(f"d_{leaf.name}_tile = tl.zeros([{width}], tl.float32)")
        if block.values is not None and block.fixed == "column":
            block.add("d_values_tile = tl.zeros([BS, BE], tl.float32)")

    def loop(self, depth: int) -> None:
        """Everything that is done for each block of pairs."""
        block, score = self.block, self.block.score
        depth, check = block.open(depth)
        writer = entries(block, depth, [score.z, score.factor, *self.inside()])
        writer.known |= {D_Z: ("d_z", ATOM), D_FACTOR: ("d_factor", ATOM)}
        if block.fixed == "column":
            self.gradient_rows(depth)
        block.scores(writer, check, depth)
        block.add(f"weight = tl.exp2(z - level_tile{block.slot('row')})", depth)
        self.weights(depth)
        for node in self.cotangents:
            self.collect(writer, node, check, depth)

    def weights(self, depth: int) -> None:
        """The gradients of scores and factor, and of the values."""
        block = self.block
        delta = f"delta_tile{block.slot('row')}"
        if block.values is None:
            block.add(f"d_z = weight * -{delta}", depth)
            return
        v = f"{block.values.name}_tile"
        a, b = ("d_o_tile", v) if block.fixed == "row" else (v, "d_o_tile")
        used = "weight"
        if block.score.factor is build.ONE:  # the sum begins at -delta: fewer registers
            tile = f"[{block.width(block.fixed)}, {block.width(block.moving)}]"
            block.add(f"d_weight = tl.broadcast_to(-{delta}, {tile})", depth)
            block.add(f"d_weight = tl.dot({a}, tl.trans({b}), d_weight, input_precision=PRECISION)", depth)
        else:
            used = "(weight * factor)"
            block.add(f"d_weight = tl.dot({a}, tl.trans({b}), input_precision=PRECISION)", depth)
            block.add("d_factor = weight * d_weight", depth)
            block.add("d_weight = d_weight * factor", depth)
        if block.fixed == "column":
            product = f"tl.dot({used}.to(d_o_tile.dtype), d_o_tile, d_values_tile, input_precision=PRECISION)"
            block.add(f"d_values_tile = {product}", depth)
        block.add("d_z = weight * d_weight" if used == "weight" else f"d_z = weight * (d_weight - {delta})", depth)

    def collect(self, writer: Writer, node: Node, check: str, depth: int) -> None:
        """Add a block's part to one gradient."""
        block, leaf, text = self.block, self.target(node), "d_z"
        if node not in self.later:
            found = writer.text(self.cotangents[node])
            flush(writer, block, depth)
            block.add(f"pulled = {found}", depth)
            block.masked("pulled", "0.0", check, depth)
            text = "pulled"
        if leaf.feature:
            name, other = f"d_{leaf.name}_tile", self.block.score.dots[node][block.fixed == "row"]
            product = f"tl.dot({text}.to({other.name}_tile.dtype), {other.name}_tile, {name}, input_precision=PRECISION)"
            block.add(f"{name} = {product}", depth)
            return
        block.add(f"if {flag(leaf)}:", depth)
        if leaf.row and leaf.column:
            place = f"d_{leaf.name} + (plane * T + first_row) * S + first_column"
            scaled = self.scaled(node, text)
            block.add(f"_store_pairs({place}, {scaled}, S, T - first_row, S - first_column, BT, BS)", depth + 1)
        else:
            block.add(f"d_{leaf.name}_tile += tl.sum({text}, 1)", depth + 1)

    def scaled(self, node: Node, text: str) -> str:
        """A sum times what was left out of it."""
        factor = self.later.get(node, build.ONE)
        return text if factor is build.ONE else f"{text} * {Writer(self.block.known()).text(factor, PRODUCT + 1)}"

    def finish(self, name: str) -> list[str]:
        """The stores, and the whole kernel."""
        block = self.block
        own, side = "plane" if block.fixed == "row" else "own", block.fixed
        outputs = []
        for leaf in self.wanted:
            tensor, text = f"d_{leaf.name}", f"d_{leaf.name}_tile"
            outputs.append(tensor)
            node = next((n for n in self.cotangents if self.target(n) is leaf), None)
            text = text if node is None else self.scaled(node, text)
            if leaf.feature:
                self.store(tensor, text, widths(block.score)[leaf.feature], own)
            elif leaf.row != leaf.column:
                block.add(f"if {flag(leaf)}:")
                size = block.size(side)
                block.add(f"tl.store({tensor} + {own} * {size} + {side}, {text}, mask={side} < {size})", 2)
            elif not leaf.row:
                block.add(f"if {flag(leaf)}:")
                block.add(f"tl.store({tensor} + tl.program_id(0), tl.sum(tl.where(row < T, {text}, 0.0), 0))", 2)
        if block.values is not None and side == "column":
            outputs.append("d_values")
            self.store("d_values", "d_values_tile", "E", own)
        given = [*(["d_o"] if block.values is not None else []), "level", "delta", *outputs]
        return [*signature(name, block, given, [flag(x) for x in self.wanted if not x.feature]), *block.lines]

    def store(self, tensor: str, text: str, width: str, own: str) -> None:
        """A [block, width] tile into [B, size, heads, width], heads those of `kept`."""
        block, side = self.block, self.block.fixed
        size, first = block.size(side), f"first_{side}"
        block.add(f"heads = {heads_text(self.kept)}")
        block.add(f"place = {tensor} + ((batch * {size} + {first}) * heads + {own} - batch * heads) * {width}")
        block.add(f"_store_rows(place, {text}, heads * {width}, {size} - {first}, {width}, B{width}, {block.width(side)})")

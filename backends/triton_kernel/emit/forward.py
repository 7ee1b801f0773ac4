"""The forward kernel of a normalised read: o and its level, one block of scores at a time. Entry point: `forward`."""

from __future__ import annotations

import textwrap

from seqdsl.ir import build
from seqdsl.ir.node import Node

from ...torch_module.values import BATCH
from .block import Block, heads_text
from .score import Leaf, Score
from .texts import Writer


def signature(name: str, block: Block, tensors: list[str], flags: list[str]) -> list[str]:
    """The first lines of a kernel."""
    given = [
        [*(x.name for x in block.leaves()), *tensors, *block.spans()],
        block.arguments(),
        [*(f"{f}: tl.constexpr" for f in flags), *block.constants()],
    ]
    lines = [f"    {line}" for names in given for line in textwrap.wrap(", ".join(names) + ",", 114)]
    return ["@triton.jit", f"def {name}(", *lines, "):  # fmt: skip"]


def forward(name: str, score: Score, values: Leaf | None) -> list[str]:
    """`name(.., o, level, ..)`: o [B, T, heads, E] and level [B, heads, T], heads all leading positions in order."""
    block = Block(score, "row", values)
    read = "What BT rows read, o [B, T, heads, E], and its" if values is not None else "The"
    block.add(f'"""{read} level [B, heads, T]."""')
    block.expect([score.z, score.factor])
    begin_rows(block)
    block.add('top = tl.full([BT], float("-inf"), tl.float32)')
    block.add("total = tl.zeros([BT], tl.float32)")
    if values is not None:
        block.add("found = tl.zeros([BT, BE], tl.float32)")
    depth, check = block.open(apart=_only_products(score, score.z))
    writer = entries(block, depth, [score.z, score.factor])
    block.scores(writer, check, depth)
    for line in (
        "higher = tl.maximum(top, tl.max(z, 1))",
        'shift = tl.where(higher == float("-inf"), 0.0, higher)  # nothing counted yet: exp2(-inf - 0) = 0',
        "weight = tl.exp2(z - shift[:, None])",
        "shrink = tl.exp2(top - shift)",
        "total = total * shrink + tl.sum(weight, 1)",
        "top = higher",
    ):
        block.add(line, depth)
    if values is not None:
        if score.factor is not build.ONE:
            block.add("weight = weight * factor", depth)
        v = f"{values.name}_tile"
        block.add(f"weight = weight.to({v}.dtype)", depth)
        block.add(f"found = tl.dot(weight, {v}, found * shrink[:, None], input_precision=PRECISION)", depth)
    block.add("empty = total == 0.0")
    block.add("total = tl.where(empty, 1.0, total)")
    if values is not None:
        _store_rows(block, "o", "found / total[:, None]", "E")
    block.add('level_tile = tl.where(empty, float("-inf"), (top + tl.log2(total)) * 0.6931471805599453)')
    block.add("tl.store(level + plane * T + row, level_tile, mask=row < T)")
    return [*signature(name, block, ["o", "level"] if values else ["level"], []), *block.lines]


def begin_rows(block: Block) -> None:
    """Which rows of which leading position this is, and what is loaded once."""
    dims = [BATCH, *block.score.lead]
    block.add("blocks = tl.cdiv(T, BT)")
    block.add("plane = tl.cast(tl.program_id(0) // blocks, tl.int64)")
    block.add("first_row = (blocks - 1 - tl.program_id(0) % blocks) * BT  # last first: often they see most")
    block.add("rest = plane")
    block.decode(dims, "rest")
    block.add("row = first_row + tl.arange(0, BT)")
    block.locate()
    block.begin(block.leaves(), 1)


def _store_rows(block: Block, tensor: str, text: str, width: str) -> None:
    """A [BT, width] tile into [B, T, heads, width]."""
    block.add(f"heads = {heads_text(block.score.lead)}")
    block.add(f"place = {tensor} + ((batch * T + first_row) * heads + plane - batch * heads) * {width}")
    block.add(f"_store_rows(place, {text}, heads * {width}, T - first_row, {width}, B{width}, BT)")


def entries(block: Block, depth: int, roots: list[Node]) -> Writer:
    """Loads what moves, and begins its expressions."""
    moving = block.moving
    block.add(f"{moving} = first_{moving} + tl.arange(0, {block.width(moving)})", depth)
    block.meet(depth)
    for leaf in block.others():
        block.load(leaf, depth)
    writer = Writer(block.known(), depth)
    writer.count(roots)
    return writer


def _only_products(score: Score, node: Node) -> bool:
    """Are scores made of products and numbers alone? They leave registers for loops apart."""
    if node in score.dots or node in score.numbers or node.op == "const":
        return True
    return node.op != "index" and node not in score.scalars and all(_only_products(score, a) for a in node.args)

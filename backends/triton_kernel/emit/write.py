"""Functions for the normalised reads of one module: their kernels' text, and what a call of them is told.

Entry point: `Online`, which the torch target's emitter asks (`torch_module.online.Writing`).
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field

from seqdsl.ir.node import Node

from ...torch_module.context import Context
from ...torch_module.layout import wrapped
from ...torch_module.names import quoted, tuple_text
from ...torch_module.online import Shape
from ...torch_module.operands import Operand
from ...torch_module.values import BATCH
from ..kernels import OWN_SPACE, support_text
from .adjoint import columns_adjoint, columns_lead, rows_adjoint, targets
from .block import widths
from .bounds import block_range
from .derivatives import Refused
from .forward import forward
from .numbers import kinds, told
from .score import Leaf, Score, normal_form, score

# What makes a function of kernels that were written.
FUNCTIONS = ("fused_softmax", "fused_chain", "fused_sequence", "fused_ring", "fused_fold", "fused_newton", "fused_affine")


@dataclass
class Online:
    """Writes into `written` of its target; `read` are the tensors that kernels read, `kept` those for which there are none,
    and why, `tables` what kernels read and give no gradient."""

    written: dict[str, str]
    refused: frozenset[str] = frozenset()  # those of which that is known beforehand
    read: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    tables: dict[str, str] = field(default_factory=dict)

    def normal_form(self, ctx: Context, node: Node, shape: Shape) -> Node:
        return normal_form(ctx, node, shape.row, shape.columns[0])

    def stand_in(
        self,
        ctx: Context,
        node: Node,
        shape: Shape,
        parts: tuple[Node, Node, list[Node]],
        given: list[Operand],
        values: Node | None,
    ) -> tuple[str, list[str]] | None:
        try:
            if len(shape.columns) > 1:
                raise Refused("several indices that share one softmax")
            found = score(ctx, shape.lead, shape.row, shape.columns[0], parts, given)
            name = ctx.names.fresh(f"{ctx.current}_softmax".lstrip("_"))
            lead = (BATCH, *(d for d in shape.lead if values is not None and d in values.free))
            leaf = None if values is None else Leaf("values", values, lead, False, True, "values")
            self.written[name] = _text(name, found, leaf, given)
            for table in [x for x in found.leaves() if x.places and x.node.dtype == "real"]:
                self.tables[ctx.current] = table.name
            self.read += [ctx.current] if ctx.current not in self.read else []
        except Refused as why:
            self.kept[ctx.current] = str(why)
            return None
        tensor = ctx.system.tensors.get(ctx.current)
        alone = tensor is not None and tensor.rhs is node and tensor.name in ctx.unread
        spans = ["spans=" + ctx.spans()] if found.packed else []
        return name, [*told(ctx, found.numbers), *spans, "dots=out_dtype", *(["dtype=out_dtype"] if alone else [])]

    def imports(self) -> str:
        """What the written text needs beyond torch."""
        return "import triton\nimport triton.language as tl"

    def text(self, written: dict[str, str]) -> str:
        """The support functions, then what was written. Its operators have a namespace that no other text's have."""
        used = {f for f in FUNCTIONS if any(re.search(rf"\b{f}\(", text) for text in written.values())}
        support = support_text(frozenset({"function_kernels", *used}))
        body = "\n\n\n".join([support, *(wrapped(t) for t in written.values())])
        return body.replace(OWN_SPACE, f'OPS = "seqdsl_{hashlib.sha256(body.encode()).hexdigest()[:8]}"')


def _text(name: str, found: Score, values: Leaf | None, given: list[Operand]) -> str:
    """Kernels, and the function that launches them."""
    for moving in (found.row, found.column):  # every kernel takes the numbers of all
        block_range(found, moving, "", "", "", "")
    kernels = {
        "forward": forward(f"_{name}_kernel", found, values),
        "rows": rows_adjoint(f"_{name}_rows_kernel", found, values),
        "columns": columns_adjoint(f"_{name}_columns_kernel", found, values),
    }
    texts = ["\n".join(lines) for lines in kernels.values()]
    plan = [f"_{name}_plan = _Softmax(", f'    name="{name}",', f"    lead={_strings(found.lead)},"]
    plan += [f"    kept={_strings(columns_lead(found, values))},", "    leaves=(", *_leaves(found, values, given), "    ),"]
    plan += ["    packed=True,"] * found.packed
    plan += [f'    numbers="{kinds(found.numbers)}",', *(f"    {which}={lines[1][4:-1]}," for which, lines in kernels.items()), ")"]
    return "\n\n\n".join([*texts, "\n".join([*plan, f"{name} = fused_softmax(_{name}_plan)"])])


def _strings(names: tuple[str, ...]) -> str:
    return tuple_text(quoted(n) for n in names)


def _leaves(found: Score, values: Leaf | None, given: list[Operand]) -> list[str]:
    """The tensors that the kernels load, as the launch is told of them."""
    features, nodes = widths(found), [o.node for o in given]
    sides = {x: side for side in ("row", "column") for x in targets(found, side)}
    lines = []
    for leaf in found.leaves():
        roles = {found.row: "row", found.column: "column", leaf.feature: "feature"} if not leaf.places else dict(leaf.roles)
        roles[BATCH] = "batch"
        place = nodes.index(leaf.node)
        dims = " ".join(roles.get(d, d) for d in given[place].outer.dims)
        width = features[leaf.feature] if leaf.feature else ""
        lines.append(f'        _Leaf("{leaf.name}", {place}, "{dims}", "{width}", "{sides.get(leaf, "")}"),')
    if values is not None:
        dims = " ".join(["batch", *values.lead[1:], "column", "feature"])
        lines.append(f'        _Leaf("values", -1, "{dims}", "E", "column"),')
    return lines

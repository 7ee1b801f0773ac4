"""Equal rewritings of an equation before any form is derived: for accuracy, and so that forms see linear reads.

Both are identities over the reals, and hold in every form, the recurrent one included. The first kind keeps digits: a
gate near 1 rounds to float32 with an error of 6e-8, and its complement 1 - gate then has the same error absolutely,
3e-5 relatively at 1e-3, in every write of a slow channel. The second kind pulls `re` and `im` out of sums, since a sum
of real parts is the real part of a sum: `sum[n] re(C * S)` is then a contraction of the state.
"""

from __future__ import annotations

from dataclasses import replace

from seqdsl.algebra.monomials import factors
from seqdsl.ir import build
from seqdsl.ir.node import Node, rebuild
from seqdsl.ir.ops import make
from seqdsl.ir.system import System


def prepared(system: System) -> System:
    """The system with each equation rewritten where a rule applies."""
    changed = []
    for tensor in system.derived():
        if tensor.rhs is None:
            continue
        rhs = rebuild(tensor.rhs, _rewritten)
        if rhs is not tensor.rhs:
            changed.append(replace(tensor, rhs=rhs))
    return system.with_tensors(*changed) if changed else system


def _rewritten(node: Node) -> Node | None:
    if node.op == "sub":
        return _complement(*node.args)
    if node.op == "sum" and node.dtype == "real" and node.args[1] is build.TRUE:
        return _real_part_of_sum(node)
    return None


def _complement(a: Node, b: Node) -> Node | None:
    if a is build.ONE and b.op == "sigmoid":
        return make("sigmoid", build.neg(b.args[0]))  # 1 - sigmoid(x) -> sigmoid(-x)
    if a is build.ONE and b.op == "exp" and b.dtype == "real":
        return build.neg(make("expm1", b.args[0]))  # 1 - exp(x) -> -expm1(x)
    if b is build.ONE and a.op == "exp" and a.dtype == "real":
        return make("expm1", a.args[0])  # exp(x) - 1 -> expm1(x)
    return None


def _real_part_of_sum(node: Node) -> Node | None:
    """sum x * re(z) -> re(sum x * z) for real x."""
    parts = factors(node.args[0])
    places = [n for n, f in enumerate(parts) if f.op in ("re", "im") and f.args[0].dtype == "complex"]
    if len(places) != 1:
        return None
    inner = parts[places[0]]
    body = build.product([*parts[: places[0]], inner.args[0], *parts[places[0] + 1 :]])
    return make(inner.op, make("sum", body, node.args[1], attr=node.attr))

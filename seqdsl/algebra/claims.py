"""Claims that algebra can decide: causality from the dependence graph, stability from intervals, linearity from degree.

What it cannot decide is `Unknown`, never False; `verify` then tries numbers.
"""

from __future__ import annotations

from fractions import Fraction

from seqdsl.algebra.affine import NotAffine, split
from seqdsl.algebra.classify import classify_all
from seqdsl.algebra.interval import Bounds
from seqdsl.algebra.verdict import Proved, Unknown, Verdict
from seqdsl.ir.node import Node
from seqdsl.ir.order import distance
from seqdsl.ir.support import relevant_reads
from seqdsl.ir.system import Claim, System, sources


def check_claim(system: System, claim: Claim) -> Verdict:
    """The verdict of algebra on one claim."""
    if claim.kind == "causal":
        return _causal(system, claim.args[0])
    if claim.kind == "stable":
        return _stable(system, claim)
    if claim.kind == "linear":
        return _linear(system, claim.args[0])
    if claim.kind == "rows_sum_to_one":
        return _softmax(system, claim)
    return Unknown(f"no algebraic check of `{claim.kind}`")


def _causal(system: System, index: str) -> Verdict:
    """Every read along the axis, of anything the inputs reach, is of the same position or an earlier one."""
    axis = system.axis(index)
    for reader in system.derived():
        own = [i for i in reader.indices if system.axis(i) == axis]
        for read, facts in relevant_reads(system, reader) if axis == system.stream else ():
            tensor = system.tensors[str(read.attr)]
            for declared, subscript in zip(tensor.indices, read.args, strict=True):
                if system.axis(declared) != axis or tensor.kind in ("param", "const"):
                    continue
                if not own:
                    return Unknown(f"`{reader.name}` reads `{read!r}` and has no `{index}` of its own")
                weight = len([i for i in tensor.indices if system.axis(i) == axis]) == 2
                gap = distance(system, own[0], subscript, facts)
                if gap not in ("+", "0+") and not (isinstance(gap, int) and gap >= 0) and not weight and axis in own:
                    return Unknown(f"`{reader.name}` reads `{read!r}`, which is not shown to be earlier")
    if axis != system.stream:
        return Unknown("the dependence graph is read along the stream only")
    return Proved("causality", "every read along the axis is shown not to be later, from subscripts and guards")


def _stable(system: System, claim: Claim) -> Verdict:
    """|decay| <= 1 for a state that carries itself entry by entry: the product of the steps then never grows."""
    name = claim.args[0]
    bounds = Bounds(system, claim.condition)
    for recurrence in classify_all(system):
        parts = [p for p in recurrence.parts if p.state == name]
        if name not in recurrence.states:
            continue
        if recurrence.kind != "diagonal" or any(p.source != name for p in parts):
            return Unknown("stability is shown for entrywise recurrences only")
        for part in parts:
            low, high = bounds.of(part.coefficient)
            if low is None or high is None or low < -1 or high > 1:
                return Unknown(f"the decay `{part.coefficient!r}` is not shown to lie within [-1, 1]")
        if len(parts) > 1:
            return Unknown("several terms carry the state")
        return Proved("stability", "the decay lies within [-1, 1] by interval arithmetic")
    return Unknown(f"`{name}` is no state of a recurrence")


def _linear(system: System, name: str) -> Verdict:
    """Affine in x at every equation that x reaches, and no rest: linear."""
    reached = _reached(system, name)
    for tensor in system.derived():
        if tensor.name not in reached or tensor.rhs is None:
            continue
        try:
            _, rest = split(tensor.rhs, lambda r: r.attr in reached)
        except NotAffine as reason:
            return Unknown(str(reason))
        if not _is_zero(rest):
            return Unknown(f"`{tensor.name}` has a part without `{name}`, `{rest!r}`")
    return Proved("linearity", f"every equation that `{name}` reaches is of degree 1 in it, with nothing beside")


def _reached(system: System, name: str) -> set[str]:
    reached = {name}
    while True:
        more = {t.name for t in system.derived() if sources(system, t) & reached} - reached
        if not more:
            return reached
        reached |= more


def _is_zero(node: Node) -> bool:
    if node.op == "const":
        return node.attr == Fraction(0) and not isinstance(node.attr, str | bool)
    if node.op == "mul":
        return any(_is_zero(a) for a in node.args)
    if node.op in ("add", "sub"):
        return all(_is_zero(a) for a in node.args)
    if node.op == "where":
        return all(_is_zero(a) for a in node.args[1:])
    return node.op in ("neg", "sum", "div", "re", "im") and _is_zero(node.args[0])


def _softmax(system: System, claim: Claim) -> Verdict:
    """A softmax over exactly the claimed indices sums to one wherever its guard lets a point in."""
    name, *indices = claim.args
    rhs = system.tensors[name].rhs
    if rhs is not None and rhs.op == "softmax" and set(rhs.attr[0]) == set(indices):
        return Proved("rows sum to one", "it is a softmax over these indices; a row without a point is all 0")
    return Unknown(f"`{name}` is not defined as a softmax over {', '.join(indices)}")

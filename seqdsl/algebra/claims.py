"""Claims that algebra can decide: causality from the dependence graph, stability from intervals, linearity from degree,
permutations and shifts from how positions are used, sums of 1 by canonical forms.

What it cannot decide is `Unknown`, never False; `verify` then tries numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from seqdsl.algebra.affine import NoMatch, split
from seqdsl.algebra.bisimulation import definitions
from seqdsl.algebra.classify import classify_all
from seqdsl.algebra.equal import same
from seqdsl.algebra.interval import Bounds
from seqdsl.algebra.symmetry import delay, permutation, rotation
from seqdsl.algebra.verdict import Proved, Unknown, Verdict
from seqdsl.ir import build
from seqdsl.ir.node import Node, reads, rebuild, walk
from seqdsl.ir.ops import bound
from seqdsl.ir.order import distance
from seqdsl.ir.state import ends_here, reads_length
from seqdsl.ir.support import relevant_reads
from seqdsl.ir.system import Claim, Index, System, sources


def check_claim(system: System, claim: Claim) -> Verdict:
    """The verdict of algebra on one claim."""
    check = _CHECKS.get(claim.kind)
    return Unknown(f"no algebraic check of `{claim.kind}`") if check is None else check(system, claim)


def brings_zeros_in(system: System, index: str) -> bool:
    """Is a shift along the index one that brings zeros in, not a circular one? So it is where causality is claimed, and along
    the stream where it holds."""
    if any(c.kind == "causal" and c.args[0] == index for c in system.claims):
        return True
    return index == system.stream and isinstance(_causal(system, Claim("causal", (index,), "causal")), Proved)


def _shift(system: System, claim: Claim) -> Verdict:
    index = claim.args[0]
    return delay(system, index) if brings_zeros_in(system, index) else rotation(system, index)


def _causal(system: System, claim: Claim) -> Verdict:
    """Every read along the axis, of anything the inputs reach, is of the same position or an earlier one. It is about
    inputs of one length: who reads the length has other values where a sequence is cut short, and that is said."""
    index = claim.args[0]
    axis, reach = system.axis(index), ""
    for reader in system.derived():
        own = [i for i in reader.indices if system.axis(i) == axis]
        for read, facts in relevant_reads(system, reader):
            tensor = system.tensors[str(read.attr)]
            rows, *columns = [i for i in tensor.indices if system.axis(i) == axis] or [""]
            if rows != system.stream:  # else a weight w[t, s]: what its columns need is checked at its own equation
                columns = []
            for declared, subscript in zip(tensor.indices, read.args, strict=True):
                if system.axis(declared) != axis or declared in columns or tensor.kind in ("param", "const"):
                    continue
                if not own:
                    return Unknown(f"`{reader.name}` reads `{read!r}` and has no `{index}` of its own")
                gap = distance(system, own[0], subscript, facts)
                if gap not in ("+", "0+") and not (isinstance(gap, int) and gap >= 0):
                    return Unknown(f"`{reader.name}` reads `{read!r}`, which is not shown to be earlier")
        for node in walk(reader.rhs) if reader.rhs is not None else ():
            if not reach and _counts(system, axis, own, node):
                reach = f"; for a given length: `{reader.name}` has `{node!r}`, which says how many positions there are"
    return Proved("causality", f"every read along the axis is shown not to be later, from subscripts and guards{reach}")


def _counts(system: System, axis: str, own: list[str], node: Node) -> bool:
    """Does a value show the length of an axis: by its name, or because an operator goes on to its end?"""
    if node.op == "size":
        return system.axis(str(node.attr)) == axis
    long = [n for n in bound(node) if system.axis(n) == axis or _as_long(system, system.index(n), axis)]
    return not all(own and ends_here(system, own[0], node, n) for n in long)


def _as_long(system: System, index: Index, axis: str) -> bool:
    return index.size is not None and reads_length(system, index.size, axis)


def is_entrywise(system: System, name: str) -> bool:
    """Is it a state whose entries are carried each by itself, from one step to the next?"""
    for recurrence in classify_all(system):
        parts = [p for p in recurrence.parts if p.state == name]
        if name in recurrence.states:
            return recurrence.kind == "diagonal" and bool(parts) and all(p.source == name for p in parts)
    return False


def _stable(system: System, claim: Claim) -> Verdict:
    """|decay| <= 1 for a state that carries itself entry by entry: the product of the steps then never grows."""
    name = claim.args[0]
    bounds = Bounds(system, claim.condition)
    for recurrence in classify_all(system):
        parts = [p for p in recurrence.parts if p.state == name]
        if name not in recurrence.states:
            continue
        if not is_entrywise(system, name):
            return Unknown("stability is shown for entrywise recurrences only")
        decay = build.total(p.coefficient for p in parts)
        size = bounds.modulus(decay)
        if size is None or size > 1:
            return Unknown(f"the decay `{decay!r}` is not shown to be at most 1 in size")
        return Proved("stability", "the decay is at most 1 in size by interval arithmetic, at every step")
    return Unknown(f"`{name}` is no state of a recurrence")


def _linear(system: System, claim: Claim) -> Verdict:
    """Of degree 1 in x at every equation that x reaches, and no rest: linear. It is about the outputs that x reaches."""
    name = claim.args[0]
    reached = reached_by(system, name)
    apart = [o for o in system.outputs if o not in reached]
    if len(apart) == len(system.outputs):
        return Unknown(f"nothing that comes out depends on `{name}`")
    for tensor in system.derived():
        if tensor.name not in reached or tensor.rhs is None:
            continue
        for edge in tensor.edges:
            start = system.tensors[edge.tensor]
            if edge.tensor not in reached and (start.rhs is None or start.kind != "derived" or not _is_zero(start.rhs)):
                return Unknown(f"`{tensor.name}` begins with a value without `{name}`")
        try:
            _, rest = split(tensor.rhs, lambda r: r.attr in reached)
            fault = None if _is_zero(rest) else f"`{tensor.name}` has a part without `{name}`, `{rest!r}`"
        except NoMatch as reason:
            fault = str(reason)
        if fault is not None and not _is_additive(system, tensor.rhs, reached):
            return Unknown(fault)
    but = f"; not about {', '.join(f'`{o}`' for o in apart)}, which it does not reach" if apart else ""
    return Proved("linearity", f"every equation that `{name}` reaches is of degree 1 in it, with nothing beside{but}")


def _is_additive(system: System, rhs: Node, reached: set[str]) -> bool:
    """f(a x + b y) = a f(x) + b f(y), by canonical forms: where linearity shows only after cancellation, or in `re`."""
    if any(r.attr in reached for place in reads(rhs) for a in place.args for r in reads(a)):
        return False
    a, b = (build.read(n, (), "real") for n in ("factor 1", "factor 2"))

    def at(of: Callable[[Node, Node], Node]) -> Node:
        def change(n: Node) -> Node | None:
            if n.op != "read" or n.attr not in reached:
                return None
            return of(*(build.read(f"{n.attr} {k}", n.args, n.dtype) for k in (1, 2)))

        return rebuild(rhs, change)

    apart = build.add(build.mul(a, at(lambda x, y: x)), build.mul(b, at(lambda x, y: y)))
    return same(system, at(lambda x, y: build.add(build.mul(a, x), build.mul(b, y))), apart)


def reached_by(system: System, name: str) -> set[str]:
    """The tensor itself, and all whose equations it enters."""
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


def _sums(system: System, claim: Claim) -> Verdict:
    """Entries that are never negative, and sums of 1: of a softmax by what it is, else by canonical forms."""
    name, *indices = claim.args
    rhs = system.tensors[name].rhs
    if rhs is None:
        return Unknown(f"`{name}` is given")
    if rhs.op == "softmax" and set(rhs.attr[0]) == set(indices) and claim.kind == "rows_sum_to_one":
        return Proved("rows sum to one", "it is a softmax over these indices; a row without a point is all 0")
    low = Bounds(system, claim.condition).of(rhs)[0]
    if low is None or low < 0:
        return Unknown(f"the entries of `{name}` are not shown to be at least 0")
    opened = definitions(system).written_out(rhs)
    for group in [indices] if claim.kind == "rows_sum_to_one" else [[i] for i in indices]:
        if opened is None or not same(system, build.reduce("sum", group, opened), build.ONE):
            return Unknown(f"the sum of `{name}` over {', '.join(group)} is not shown to be 1")
    return Proved(claim.kind.replace("_", " "), "the sum is 1 by canonical forms, where no denominator is 0")


_CHECKS: dict[str, Callable[[System, Claim], Verdict]] = {
    "causal": _causal,
    "stable": _stable,
    "linear": _linear,
    "permutation": lambda system, claim: permutation(system, claim.args[0]),
    "shift": _shift,
    "rows_sum_to_one": _sums,
    "doubly_stochastic": _sums,
}

"""Online evaluation of guarded normalisers: `sum[s | g] softmax[s | g](z) * v` as one operator, `normalised_read`.

The equations ask for weights p[t,s] and then for a sum over s. Neither needs p as a whole: with m, l and u the running
maximum of z, the sum of exp(z - m) and that of exp(z - m) v, the result is u / l, and (m, l, u) is a monoid. So blocks
of s may be folded in any grouping, and a backend needs memory for one block of scores (Milakov and Gimelshein 2018,
arXiv:1805.02867; Rabe and Staats 2021, arXiv:2112.05682). What is rewritten, by what it is and never by its name:

  sum[s | g2] p * rest      p an inline softmax[s | g](z), a tensor that is one, or such times factors; factors without
                            s move outside, and where g2 says more than g, values are where(g2, v, 0)
  sum[s | g] exp(z - c) v   c without s: exp(L - c) times the normalised read, L = logsumexp[s | g](z). This is softmax
                            written out (c = L), and with more in its denominator (a sink: c = logaddexp(L, sink))
  logsumexp[s | g](z)       the same monoid's m + log l, `normaliser`

Scores that have a name (a[t,s] = ..) are written out where they are used, if nothing else keeps them. A rewriting that
would not drop the weights (they are an output, or another equation reads them) is not made: it saves nothing.

Architecture invariant: knows no mixer and no backend. The laws are `online_laws`'. Entry point: `to_online`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from seqdsl.ir import build
from seqdsl.ir.dependence import Loop, recurrences
from seqdsl.ir.node import Node, reads, rebuild, walk
from seqdsl.ir.ops import OPS, bound, made, make
from seqdsl.ir.state import needed
from seqdsl.ir.system import System

WHOLE = "it is needed entry by entry: as an output, or by an equation that is no sum over it"


@dataclass(frozen=True)
class Normalisers:
    """A system with its normalisers read online: the tensors that do so, and why others do not."""

    system: System
    rewritten: tuple[str, ...] = ()
    kept: tuple[tuple[str, str], ...] = ()


@dataclass
class _Search:
    """One attempt: `closed` are tensors that stay whole, `opened` those that were written out."""

    system: System
    looped: dict[str, frozenset[str]]
    closed: frozenset[str]
    opened: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)
    reader: str = ""
    plain: set[Node] = field(default_factory=set)  # sums that are known to hold no weights
    resolved: dict[Node, Node] = field(default_factory=dict)  # what reads stand for


def to_online(system: System) -> Normalisers:
    """Every normaliser that it pays to read online. Tensors that stay needed whole are closed, until none is left."""
    looped = dict(_looped(recurrences(system)))
    closed: frozenset[str] = frozenset()
    while True:
        search = _Search(system, looped, closed)
        result = _rewrite(search)
        still = {n for n in search.opened if n in needed(result).tensors}
        if not still:
            changed = tuple(n for n, t in result.tensors.items() if t is not system.tensors[n])
            reasons = {**dict.fromkeys(sorted(closed), WHOLE), **search.refused}
            return Normalisers(result, changed, tuple((n, why) for n, why in reasons.items() if n not in changed))
        closed |= still


def all_pairs(system: System) -> Normalisers:
    """The system itself: its normalisers as they are written are the form that takes all pairs at once."""
    return Normalisers(system, to_online(system).rewritten)


def _looped(loops: list[Loop], outer: frozenset[str] = frozenset()) -> Iterator[tuple[str, frozenset[str]]]:
    for loop in loops:
        axes = outer | {loop.axis}
        yield from ((name, axes) for name in loop.tensors())
        yield from _looped([step for step in loop.body if isinstance(step, Loop)], axes)


def _rewrite(search: _Search) -> System:
    changed = []
    for tensor in search.system.derived():
        if tensor.rhs is None or tensor.kind != "derived":
            continue
        search.reader, search.plain = tensor.name, set()  # a refusal is noted for each reader
        rhs = rebuild(tensor.rhs, lambda node: _online(search, node))
        if rhs is not tensor.rhs:
            changed.append(replace(tensor, rhs=rhs))
    return search.system.with_tensors(*changed)


def _online(search: _Search, node: Node) -> Node | None:
    if node.op == "logsumexp":
        return _normaliser(search, bound(node), *node.args)
    if node.op == "div":
        return _quotient(search, node)
    if node.op != "sum" or node in search.plain:
        return None
    sign, ups, downs = _factors(node.args[0])
    for position, factor in enumerate(ups):
        rest = ups[:position] + ups[position + 1 :]
        found = _weights(search, node, factor, rest, downs) or _of_several(search, node, factor, rest, downs)
        if found is not None:
            return found if sign > 0 else build.neg(found)
    search.plain.add(node)
    return None


def _of_several(search: _Search, node: Node, factor: Node, rest: list[Node], downs: list[Node]) -> Node | None:
    """The sum, where `factor` is a sum of weights, `sum[s] (a - b) * v[s]`: each by itself, as a sum is linear, if all can."""
    whole = _resolved(search, factor)
    if whole.op not in ("add", "sub") or not all(a.free & set(bound(node)) for a in whole.args):
        return None
    before, found = set(search.opened), []
    for term in whole.args:
        body = build.product([term, *rest])
        for down in downs:
            body = build.make("div", body, down)
        found.append(_online(search, make("sum", body, node.args[1], attr=node.attr)))
    if None in found:
        search.opened = before
        return None
    if whole is not factor:
        search.opened.add(str(factor.attr))
    return make(whole.op, *(f for f in found if f is not None))


def _quotient(search: _Search, node: Node) -> Node | None:
    """`sum[s | g] exp(z) * v / sum[s | g] exp(z)`, which is a softmax written out without any shift."""
    sign, ups, downs = _factors(node)
    for i, up in enumerate(ups):
        for j, down in enumerate(downs):
            above, below = _resolved(search, up), _resolved(search, down)
            if above.op != "sum" or below.op != "sum" or above.attr != below.attr or above.args[1] is not below.args[1]:
                continue
            weight = _resolved(search, below.args[0])
            s, inner, under = _factors(above.args[0])
            place = next((k for k, f in enumerate(inner) if _resolved(search, f) is weight), None)
            if weight.op != "exp" or place is None:
                continue
            soft = make("softmax", weight.args[0], above.args[1], attr=above.attr)
            read = _read(search, above, soft, inner[:place] + inner[place + 1 :], under)
            if read is None:
                continue
            search.opened |= {str(f.attr) for f in (up, down, below.args[0], inner[place]) if f.op == "read"}
            rest = build.product(ups[:i] + ups[i + 1 :])
            for other in downs[:j] + downs[j + 1 :]:
                rest = build.make("div", rest, other)
            return _times(read if s * sign > 0 else build.neg(read), rest)
    return None


def _resolved(search: _Search, node: Node) -> Node:
    """The definition that a read stands for, else the node itself."""
    if node.op != "read":
        return node
    if node not in search.resolved:
        found = _definition(search, node)
        search.resolved[node] = node if found is None else found
    return search.resolved[node]


def _factors(node: Node) -> tuple[int, list[Node], list[Node]]:
    """Sign, numerators and denominators of a product."""
    if node.op == "mul":
        (s, ups, downs), (s2, ups2, downs2) = _factors(node.args[0]), _factors(node.args[1])
        return s * s2, ups + ups2, downs + downs2
    if node.op == "neg":
        s, ups, downs = _factors(node.args[0])
        return -s, ups, downs
    if node.op == "div":
        s, ups, downs = _factors(node.args[0])
        return s, ups, [*downs, node.args[1]]
    return 1, [node], []


def _weights(search: _Search, node: Node, factor: Node, rest: list[Node], downs: list[Node]) -> Node | None:
    """The sum, where `factor` holds its weights: a softmax over indices of the sum, or exponentials."""
    names = bound(node)
    opened = _open_weights(search, factor, names)
    if opened is None:
        return None
    sign, ups, below = _factors(opened)
    for position, weight in enumerate(ups):
        others = ups[:position] + ups[position + 1 :]
        read = None
        if weight.op == "softmax" and set(bound(weight)) <= set(names):
            read = _read(search, node, weight, [*rest, *others], [*downs, *below])
        elif weight.op == "exp":
            read = _exponentials(search, node, weight, [*rest, *others], [*downs, *below])
        if read is not None:
            if opened is not factor:
                search.opened.add(str(factor.attr))
            return read if sign > 0 else build.neg(read)
    return None


def _open_weights(search: _Search, factor: Node, names: tuple[str, ...]) -> Node | None:
    """The factor, or the equation of the tensor that it reads, if weights along the summed indices are a factor of it.
    Only then are the equation's own normalisers looked at: a chain of layers is not walked again for each of its sums.
    """
    if not factor.free & set(names):
        return None
    opened = _resolved(search, factor)
    if not any(f.op in ("softmax", "exp") for f in _factors(opened)[1]):
        return None
    return opened if opened is factor else rebuild(opened, lambda node: _online(search, node))


def _definition(search: _Search, read: Node) -> Node | None:
    """The right side that a read stands for; None where there is none, or the tensor is kept as a whole."""
    tensor = search.system.tensors[str(read.attr)]
    if tensor.kind != "derived" or tensor.rhs is None or tensor.edges or tensor.name in search.closed:
        return None
    if any(r.attr == tensor.name for r in reads(tensor.rhs)):
        return None
    at = dict(zip(tensor.indices, read.args, strict=True))
    if not build.can_substitute(tensor.rhs, at) or any(not _inside(search.system, i, a) for i, a in at.items()):
        return None
    return build.substitute(tensor.rhs, at)


def _inside(system: System, own: str, subscript: Node) -> bool:
    """Is a subscript a plain index with the range of the tensor's own? Outside its axis a tensor is 0, and its equation
    not; along the stream the first index has the new positions only, and a second one all."""
    if subscript.op != "index" or system.axis(str(subscript.attr)) != system.axis(own):
        return False
    return (own.rstrip("'") == system.stream) == (str(subscript.attr).rstrip("'") == system.stream)


def _read(search: _Search, node: Node, weight: Node, rest: list[Node], downs: list[Node]) -> Node | None:
    """`sum[names | guard] softmax(..) * rest / downs`"""
    names, along = bound(node), bound(weight)
    others = tuple(n for n in names if n not in along)
    scores, guard = weight.args
    values, outside = _sides(node, along, others, rest, downs, guard)
    if (scores.free | guard.free) & set(others):
        return None
    return _made(search, "normalised_read", along, scores, guard, values, outside)


def _sides(
    node: Node, along: tuple[str, ...], others: tuple[str, ...], rest: list[Node], downs: list[Node], guard: Node
) -> tuple[Node, Node]:
    """Values under the sum, with what the sum's own guard adds, and the factors that do not touch it."""
    summed = frozenset(bound(node))
    values = build.product(f for f in rest if f.free & summed)
    for f in downs:
        if f.free & summed:
            values = build.make("div", values, f)
    outside = build.product(f for f in rest if not f.free & summed)
    for f in downs:
        if not f.free & summed:
            outside = build.make("div", outside, f)
    known = set(build.conjuncts(guard))
    more = build.TRUE
    for fact in build.conjuncts(node.args[1]):
        more = more if fact in known else build.both(more, fact)
    return (build.reduce("sum", others, values, more) if others else build.where(more, values, build.ZERO)), outside


def _exponentials(search: _Search, node: Node, weight: Node, rest: list[Node], downs: list[Node]) -> Node | None:
    """`sum[s | g] exp(z - c) * rest / downs`, where the sum is over one normaliser's indices and c has none of them."""
    names = bound(node)
    guard = node.args[1]
    scores, shift = _shifted(weight.args[0], frozenset(names))
    if scores is None or shift is build.ZERO or scores.dtype == "complex":
        return None
    values, outside = _sides(node, names, (), rest, downs, guard)
    level = _normaliser(search, names, scores, guard)
    if level is None:
        return None
    read = build.ONE
    if values is not build.ONE:
        found = _made(search, "normalised_read", names, scores, guard, values, build.ONE)
        if found is None:
            return None
        read = found
        if level is shift:
            return _times(read, outside)
    # exp(L - c): L is -inf where nothing takes part, and so may c be; the sum is 0 there.
    empty = make("eq", level, build.neg(build.const("inf")))
    scale = build.where(empty, build.ZERO, make("exp", build.sub(level, shift)))
    return _times(build.mul(scale, read), outside)


def _times(node: Node, outside: Node) -> Node:
    """The product with what stands outside, a quotient's denominator last."""
    if outside.op == "div":
        return build.make("div", _times(node, outside.args[0]), outside.args[1])
    return build.mul(outside, node)


def _shifted(node: Node, names: frozenset[str]) -> tuple[Node | None, Node]:
    """(z, c) with node = z - c, c without the names."""
    if node.op in ("sub", "add"):
        a, b = node.args
        if not b.free & names:
            inner, c = _shifted(a, names)
            return inner, build.add(c, b) if node.op == "sub" else build.sub(c, b)
        if not a.free & names and node.op == "add":
            inner, c = _shifted(b, names)
            return inner, build.sub(c, a)
    return (node, build.ZERO) if node.free & names else (None, node)


def _normaliser(search: _Search, names: tuple[str, ...], scores: Node, guard: Node) -> Node | None:
    """`logsumexp` of scores, along the same blocks."""
    return _made(search, "normaliser", names, scores, guard, None, build.ONE)


def _made(
    search: _Search, op: str, names: tuple[str, ...], scores: Node, guard: Node, values: Node | None, outside: Node
) -> Node | None:
    """The operator, where it pays: the scores are as wide as two axes that grow, and no loop runs over either."""
    system = search.system
    if scores.dtype == "complex" or values is not None and values.dtype == "complex":
        return None
    if not any(_given(system, n) for n in names):
        return None
    row = row_index(system, names, scores, guard, values)
    if row is None:
        return None
    if {system.axis(n) for n in (row, *names)} & search.looped.get(search.reader, frozenset()):
        search.refused[search.reader] = f"a loop runs over `{row}`, so the scores are never whole"
        return None
    parts = [scores, guard, *([] if values is None else [values])]
    scores, guard, *more = (_written_out(search, part, {row, *names}) for part in parts)
    node = make(op, scores, *more, guard, attr=(names, ()))
    return _times(node, outside)


def _given(system: System, index: str) -> bool:
    """Do the inputs give the length of the axis, so that it may be long?"""
    axis = system.axis(index)
    return any(system.axis(i) == axis for t in system.inputs() for i in t.indices)


def row_index(system: System, names: tuple[str, ...], scores: Node, guard: Node, values: Node | None) -> str | None:
    """The index of the result that the scores vary along and the values do not: the queries' index.

    Another index of the summed axis first (there values may vary along it too: a factor of the weights), then the
    streamed one, then any that counts positions; heads and features are no rows: there the weights are small.
    """
    own = {system.axis(n) for n in names}
    fixed = values.free if values is not None else frozenset()
    found = [i for i in sorted((scores.free | guard.free) - set(names)) if i in system.indices]
    same = [i for i in found if system.axis(i) in own]
    streamed = [i for i in found if system.axis(i) == system.stream and i not in fixed]
    long = [i for i in found if i not in fixed and _grows(system, i)]
    return next(iter((*same, *streamed, *long)), None)


def _grows(system: System, index: str) -> bool:
    """Is it a position, not a feature: the first index of an input, or a size that comes from such a one?"""
    size = system.index(index).size
    if size is None:
        return any(system.axis(index) == system.axis(t.indices[0]) for t in system.inputs() if t.indices)
    return any(n.op == "size" and _given(system, str(n.attr)) for n in walk(size))


def _written_out(search: _Search, node: Node, wide: set[str]) -> Node:
    """Named scores and masks over both indices in their readers' equation, so that a block can be computed alone."""

    def change(inner: Node) -> Node | None:
        if inner.op != "read" or not _is_wide(inner, wide):
            return None
        found = _definition(search, inner)
        if found is None or not _blockwise(found, wide):
            return None
        search.opened.add(str(inner.attr))
        return _written_out(search, rebuild(found, lambda node: _online(search, node)), wide)

    return rebuild(node, change)


def _is_wide(node: Node, wide: set[str]) -> bool:
    return len(node.free & wide) > 1


def _blockwise(node: Node, wide: set[str]) -> bool:
    """Is an entry of the expression a function of single entries along the wide indices?"""
    return not any(OPS[n.op].binding and _is_wide(n, wide) and {*bound(n), *made(n)} & wide for n in walk(node))

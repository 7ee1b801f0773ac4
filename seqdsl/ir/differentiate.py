"""Reverse-mode differentiation of a system's equations (DERIVATIONS 4.1): equations in, equations out.

For every read of Y inside the equation of X, the cotangent of Y at J collects the cotangent of X over all points I
whose read hits J. A subscript that is an index, or an index plus a constant, is inverted; any other becomes a guard
under a sum. `grad` in a mixer's step is this rewriting applied to the inlined function; nothing is executed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import networkx as nx

from seqdsl.ir import build
from seqdsl.ir.derivatives import ALONG, ELEMENTWISE, STOPS, reduction_cotangent
from seqdsl.ir.node import Node, reads, rebuild
from seqdsl.ir.ops import OPS, bound, make
from seqdsl.ir.order import difference
from seqdsl.ir.system import Index, Tensor


class GradientOfRecurrence(Exception):
    """The function to differentiate holds a recurrence."""


@dataclass
class _Pull:
    """One equation being differentiated: where contributions go."""

    active: frozenset[str]
    axis: Callable[[str], str]
    taken: set[str]
    found: dict[str, list[Node]] = field(default_factory=dict)


def gradient_equations(
    axis: Callable[[str], str],
    indices: Mapping[str, Index],
    region: Iterable[Tensor],
    scalar: str,
    target: Tensor,
    mapped: tuple[str, ...],
) -> tuple[list[Tensor], Node]:
    """Equations for the cotangents between `scalar` and `target`, and the target's cotangent as a term over its indices.

    `region` are the function's own tensors, `mapped` the indices the call is mapped over (the scalar's indices).
    """
    own = target.indices[len([i for i in target.indices if i in mapped]) :]
    each = replace(target, name=f"{target.name}'", indices=(*mapped, *own))  # the parameter, one for each mapped point
    lead = [build.index(m) for m in mapped]
    skip = len(target.indices) - len(own)

    def apart(node: Node) -> Node | None:
        return build.read(each.name, [*lead, *node.args[skip:]], node.dtype) if node.attr == target.name else None

    def together(node: Node) -> Node | None:
        kept = [build.index(i) for i in target.indices[:skip]]
        return (
            build.read(target.name, [*kept, *node.args[len(mapped) :]], node.dtype) if node.attr == each.name else None
        )

    parts = [replace(t, rhs=rebuild(t.rhs, apart)) for t in region if t.rhs is not None]
    equations, result = _reverse(axis, indices, parts, scalar, each)
    return [replace(e, rhs=rebuild(e.rhs, together)) for e in equations if e.rhs is not None], rebuild(result, together)


def _reverse(
    axis: Callable[[str], str], indices: Mapping[str, Index], region: list[Tensor], scalar: str, target: Tensor
) -> tuple[list[Tensor], Node]:
    tensors = {t.name: t for t in (*region, target)}
    graph: nx.DiGraph = nx.DiGraph()
    graph.add_nodes_from(tensors)
    for tensor in tensors.values():
        for read in reads(tensor.rhs) if tensor.rhs is not None and tensor is not target else ():
            if read.attr in tensors:
                graph.add_edge(read.attr, tensor.name)
    between = (nx.descendants(graph, target.name) | {target.name}) & (nx.ancestors(graph, scalar) | {scalar})
    inner = graph.subgraph(between)
    if not nx.is_directed_acyclic_graph(inner):
        raise GradientOfRecurrence(nx.find_cycle(inner)[0][0])
    if target.name not in between:
        return [], build.ZERO
    contributions: dict[str, list[Node]] = {scalar: [build.const(build.Fraction(1))]}
    equations: list[Tensor] = []
    for name in reversed(list(nx.lexicographical_topological_sort(inner))):
        cotangent = build.total(contributions.get(name, []))
        if name == target.name:
            return equations, cotangent
        tensor = tensors[name]
        if cotangent.op not in ("const", "read"):
            bar = Tensor(f"{name}.bar", tensor.indices, "real", "derived", cotangent, comment=f"gradient by {name}")
            equations.append(bar)
            cotangent = build.read(bar.name, [build.index(i) for i in bar.indices], "real")
        pull = _Pull(frozenset(between), axis, set(indices) | set(tensor.indices))
        assert tensor.rhs is not None
        _visit(pull, tensors, tensor.rhs, cotangent, tensor.indices, ())
        for read_name, terms in pull.found.items():
            contributions.setdefault(read_name, []).extend(terms)
    raise AssertionError("the target is not reached")


def _depends(pull: _Pull, node: Node) -> bool:
    return any(r.attr in pull.active for r in reads(node))


def _visit(
    pull: _Pull, tensors: Mapping[str, Tensor], node: Node, c: Node, points: tuple[str, ...], guards: tuple[Node, ...]
) -> None:
    """Push the cotangent c of `node` down to the reads below; `points` are the indices in scope, guards what holds."""
    if c is build.ZERO or not _depends(pull, node):
        return
    if node.op == "read":
        if node.attr in pull.active:
            term = _collect(pull, tensors[str(node.attr)], node, c, points, guards)
            pull.found.setdefault(str(node.attr), []).append(term)
        return
    if node.op in STOPS:
        return
    binding = OPS[node.op].binding
    if node.op == "normalised_read":
        node = build.written_out(node)
    if node.op in ELEMENTWISE:
        for arg, cotangent in zip(node.args, ELEMENTWISE[node.op](node, c), strict=True):
            if cotangent is not None:
                _visit(pull, tensors, arg, cotangent, points, guards)
    elif node.op in ALONG:
        guard = build.conjuncts(node.args[1])
        _visit(pull, tensors, node.args[0], ALONG[node.op](node, c), points, (*guards, *guard))
    elif binding == "reduce":
        names = {n: _fresh(pull, n) for n in bound(node)}
        renamed = build.rename_here(node, names)
        cotangent = reduction_cotangent(node, renamed, c)
        if cotangent is not None:
            inner_guards = (*guards, *build.conjuncts(renamed.args[1]))
            _visit(pull, tensors, renamed.args[0], cotangent, (*points, *names.values()), inner_guards)
    else:
        raise GradientOfRecurrence(f"operator {node.op}")


def _fresh(pull: _Pull, name: str) -> str:
    new = build.fresh(name + "'", pull.taken)
    pull.taken.add(new)
    return new


def _collect(
    pull: _Pull, tensor: Tensor, read: Node, c: Node, points: tuple[str, ...], guards: tuple[Node, ...]
) -> Node:
    """sum over the points whose read hits J, of c: the contribution to the tensor's cotangent at J = its indices."""
    names = {p: _fresh(pull, p) for p in points}  # away from the tensor's own index names
    moved = {p: build.index(n) for p, n in names.items()}
    term = build.substitute(c, moved)
    facts = [build.substitute(g, moved) for g in guards]
    subscripts = [build.substitute(s, moved) for s in read.args]
    rest = [names[p] for p in points]
    solved: dict[str, Node] = {}
    for own, subscript in zip(tensor.indices, subscripts, strict=True):
        target = build.index(own)
        name = _invertible(pull, own, subscript, rest)
        if name is None:
            facts.append(make("eq", subscript, target))
            continue
        offset = difference(subscript, build.index(name)).get(None, build.Fraction(0))
        value = build.sub(target, build.const(int(offset)))
        solved[name] = value
        rest.remove(name)
        if offset != 0:
            facts += [make("le", build.ZERO, value), make("lt", value, build.size(name))]
    term = build.substitute(term, solved)
    guard = build.TRUE
    for fact in facts:
        guard = build.both(guard, build.substitute(fact, solved))
    summed = [n for n in rest if n in term.free | guard.free]
    for name in rest:
        if name not in summed:
            term = build.mul(build.size(name), term)
    return build.reduce("sum", summed, term, guard) if summed else build.where(guard, term, build.ZERO)


def _invertible(pull: _Pull, own: str, subscript: Node, rest: list[str]) -> str | None:
    """The one point index that a subscript is, up to a constant, on the tensor's own axis."""
    for name in rest:
        form = difference(subscript, build.index(name))
        if set(form) <= {None} and pull.axis(name) == pull.axis(own):
            return name
    return None

"""Reverse-mode differentiation of a system's equations (DERIVATIONS 4.1): equations in, equations out.

For every read of Y inside the equation of X, the cotangent of Y at J collects the cotangent of X over all points I
whose read hits J. A subscript that is an index, or an index plus a constant, is inverted; any other becomes a guard
under a sum. A read that leaves its axis at an edge's point belongs to the edge's tensor. Cotangents of complex values
are those of torch: conj(df/dz) for holomorphic f. `pull` does this for one equation; `grad` in a mixer's step applies
it to an inlined function, `forms.adjoint` to a whole system. Nothing is executed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from seqdsl.ir import build
from seqdsl.ir.dependence import may_equal
from seqdsl.ir.derivatives import ALONG, ELEMENTWISE, MAPS, PARTS, STOPS, reduction_cotangent
from seqdsl.ir.graphs import cycle, in_order, reachable, turned
from seqdsl.ir.node import Node, read_names, reads, rebuild, walk
from seqdsl.ir.ops import OPS, bound, made, make
from seqdsl.ir.order import difference
from seqdsl.ir.system import Index, Tensor


class NotDifferentiable(Exception):
    """What stands between a value and its gradient; the message is for people."""


class GradientOfRecurrence(NotDifferentiable):
    """The function that `grad` is applied to holds a recurrence, of the tensor that the message names."""


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
    Raises `NotDifferentiable`.
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
    read = {t.name: [] if t.rhs is None or t is target else read_names(t.rhs) & tensors.keys() for t in tensors.values()}
    users = turned(read)
    between = reachable(users, [target.name]) & reachable(read, [scalar])
    inner = {name: [user for user in users[name] if user in between] for name in tensors if name in between}
    if circle := cycle(inner):
        raise GradientOfRecurrence(circle[0])
    if target.name not in between:
        return [], build.ZERO
    contributions: dict[str, list[Node]] = {scalar: [build.const(build.Fraction(1))]}
    equations: list[Tensor] = []
    for name in reversed(in_order(inner, str)):
        cotangent = build.total(contributions.get(name, []))
        if name == target.name:
            return equations, cotangent
        tensor = tensors[name]
        if cotangent.op not in ("const", "read"):
            slope = Tensor(f"{name}.slope", tensor.indices, "real", "derived", cotangent, comment=f"gradient by {name}")
            equations.append(slope)
            cotangent = build.read(slope.name, [build.index(i) for i in slope.indices], "real")
        for read_name, terms in pull(axis, indices, tensors, between, tensor, cotangent).items():
            contributions.setdefault(read_name, []).extend(terms)
    raise AssertionError("the target is not reached")


def pull(
    axis: Callable[[str], str],
    indices: Iterable[str],
    tensors: Mapping[str, Tensor],
    active: Iterable[str],
    tensor: Tensor,
    cotangent: Node,
    vanishing: frozenset[str] = frozenset(),
) -> dict[str, list[Node]]:
    """What one equation adds to the cotangents of the active tensors that it reads, as terms over those tensors'
    indices; `cotangent` is that of its own value. A read of a `vanishing` tensor outside its axes is 0 (or its edge,
    where that is what is meant): a guard that only keeps such a read inside is left out. Raises `NotDifferentiable`."""
    assert tensor.rhs is not None
    work = _Pull(frozenset(active), axis, {*indices, *tensor.indices}, tensors, vanishing, tensor)
    _visit(work, tensor.rhs, cotangent, tensor.indices, ())
    return work.found


@dataclass
class _Pull:
    """One equation being differentiated: where contributions go."""

    active: frozenset[str]
    axis: Callable[[str], str]
    taken: set[str]
    tensors: Mapping[str, Tensor]
    vanishing: frozenset[str]
    whole: Tensor
    found: dict[str, list[Node]] = field(default_factory=dict)

    def depends(self, node: Node) -> bool:
        """Is there an active tensor below, itself or at the edge of one that is read?"""
        return any(self.reaches(str(r.attr)) for r in reads(node))

    def reaches(self, name: str) -> bool:
        """Is a read of the tensor one of an active tensor, or may it be, at an edge?"""
        found = self.tensors.get(name)
        return name in self.active or (found is not None and any(self.reaches(e.tensor) for e in found.edges))

    def named(self, node: Node, cotangent: Node) -> Node:
        """The cotangent with the value of a whole equation read from its tensor: along an axis it has no other term."""
        if node is not self.whole.rhs:
            return cotangent
        value = build.read(self.whole.name, [build.index(i) for i in self.whole.indices], node.dtype)
        return rebuild(cotangent, lambda n: value if n is node else None)

    def fresh(self, name: str) -> str:
        new = build.fresh(name + "'", self.taken)
        self.taken.add(new)
        return new


def _visit(work: _Pull, node: Node, c: Node, points: tuple[str, ...], guards: tuple[Node, ...]) -> None:
    """Push the cotangent c of `node` down to the reads below; `points` are the indices in scope, guards what holds."""
    if c is build.ZERO or not work.depends(node):
        return
    if node.dtype != "complex" and c.dtype == "complex":
        c = make("re", c)  # the rows of functions of reals and complex numbers give the whole cotangent
    if node.op == "read":
        _visit_read(work, str(node.attr), list(node.args), c, points, guards)
        return
    if node.op in STOPS:
        return
    if node.op == "normalised_read":
        node = build.written_out(node)
    binding = OPS[node.op].binding
    if binding in ("along", "map"):
        c, guards = _within(node, c, guards)
    if node.op == "where":  # a branch that is not taken has no gradient, whatever its derivative would be there
        condition, *branches = node.args
        for branch, told in zip(branches, (condition, make("not", condition)), strict=True):
            _visit(work, branch, c, points, (*guards, *build.conjuncts(told)))
    elif node.op in PARTS:
        _visit(work, node.args[0], PARTS[node.op](node, c), points, guards)
    elif node.op in ELEMENTWISE:
        for arg, cotangent in zip(node.args, _elementwise(node, c), strict=True):
            if cotangent is not None:
                _visit(work, arg, cotangent, points, guards)
    elif node.op in ALONG:
        guard = build.conjuncts(node.args[1])
        _visit(work, node.args[0], work.named(node, ALONG[node.op](node, c)), points, (*guards, *guard))
    elif node.op in MAPS:
        _visit_map(work, node, c, points, guards)
    elif node.op == "cumsum":
        _visit(work, node.args[0], _suffix_sum(work, node, c), points, (*guards, *build.conjuncts(node.args[1])))
    elif binding == "reduce":
        names = {n: work.fresh(n) for n in bound(node)}
        renamed = build.rename_here(node, names)
        cotangent = reduction_cotangent(node, renamed, c)
        assert cotangent is not None, f"no derivative of {node.op}"
        inner_guards = (*guards, *build.conjuncts(renamed.args[1]))
        _visit(work, renamed.args[0], cotangent, (*points, *names.values()), inner_guards)
    elif node.op == "fold":
        raise NotDifferentiable(f"a fold by `{str(node.attr[0]).rpartition('.')[2]}` is a recurrence over what it folds")
    else:
        raise NotDifferentiable(f"`{node.op}` is what a form has made: its equations have an adjoint, and that has the form")


def _within(node: Node, c: Node, guards: tuple[Node, ...]) -> tuple[Node, tuple[Node, ...]]:
    """The cotangent of an operator that mixes points, 0 at those where guards do not hold; and the other guards."""
    mixed = {*bound(node), *made(node)}
    for guard in [g for g in guards if g.free & mixed]:
        c = build.where(guard, c, build.ZERO)
    return c, tuple(g for g in guards if not g.free & mixed)


def _visit_map(work: _Pull, node: Node, c: Node, points: tuple[str, ...], guards: tuple[Node, ...]) -> None:
    """The operands' points have the consumed indices in place of the made ones; a matrix has both."""
    consumed, appear = node.attr[0], node.attr[1]
    names = {n: work.fresh(n) for n in consumed if n in points and n not in appear}  # consumed again inside
    if names:
        node = build.rename_here(node, names)
        consumed = node.attr[0]
    value = work.named(node, node)
    for arg, cotangent in zip(node.args, MAPS[node.op](node, value, c), strict=True):
        kept = tuple(p for p in points if p not in appear or p in consumed or p in cotangent.free)
        _visit(work, arg, cotangent, (*kept, *(n for n in consumed if n not in kept)), guards)


def _elementwise(node: Node, c: Node) -> tuple[Node | None, ...]:
    """The row of the table; for a complex value, whose rows are derivatives of holomorphic functions, conjugated."""
    if node.dtype != "complex":
        return ELEMENTWISE[node.op](node, c)
    conjugated = ELEMENTWISE[node.op](node, make("conj", c))
    return tuple(None if part is None else make("conj", part) for part in conjugated)


def _suffix_sum(work: _Pull, node: Node, c: Node) -> Node:
    """The cotangent of a running sum's operand: what reaches the positions from its own on."""
    (name,) = bound(node)
    later = work.fresh(name)
    moved = build.substitute(c, {name: build.index(later)})
    return build.reduce("sum", (later,), moved, make("le", build.index(name), build.index(later)))


def _visit_read(
    work: _Pull, name: str, subscripts: list[Node], c: Node, points: tuple[str, ...], guards: tuple[Node, ...]
) -> None:
    """To the tensor itself where the read lies inside its axes, to its edges' tensors where it hits their points."""
    tensor = work.tensors.get(name)
    if tensor is None or not work.reaches(name):
        return
    if name in work.active:
        term = _collect(work, tensor, subscripts, c, points, guards, ())
        work.found.setdefault(name, []).append(term)
    before: list[Node] = []
    for edge in tensor.edges:
        subscript = subscripts[edge.position]
        if not may_equal(subscript, edge.point):
            continue
        rest = [s for k, s in enumerate(subscripts) if k != edge.position]
        target = work.tensors[edge.tensor]
        if edge.tensor in work.active and not target.edges:
            at = ((subscript, edge.point),)
            others = [make("not", fact) for fact in before]  # the first edge that is hit counts
            term = _collect(work, target, rest, c, points, (*guards, *others), at)
            work.found.setdefault(edge.tensor, []).append(term)
        elif work.reaches(edge.tensor):
            raise NotDifferentiable(f"`{name}` has an edge of an edge, `{edge.tensor}`")
        before.append(make("eq", subscript, edge.point))


def _collect(
    work: _Pull,
    tensor: Tensor,
    subscripts: list[Node],
    c: Node,
    points: tuple[str, ...],
    guards: tuple[Node, ...],
    where: tuple[tuple[Node, Node], ...],
) -> Node:
    """sum over the points whose read hits J, of c: the contribution to the tensor's cotangent at J = its indices.
    `where` are further pairs that must be equal, a subscript and the edge's point that it hits."""
    names = {p: work.fresh(p) for p in points}  # away from the tensor's own index names
    moved = {p: build.index(n) for p, n in names.items()}
    term = build.substitute(c, moved)
    facts = [build.substitute(g, moved) for g in guards]
    wanted = [(s, build.index(own), work.axis(own)) for s, own in zip(subscripts, tensor.indices, strict=True)]
    wanted += [(s, point, None) for s, point in where]  # type: ignore[misc]
    rest = [names[p] for p in points]
    solved: dict[str, Node] = {}
    inside: list[tuple[str, Node]] = []
    open_pairs = [(build.substitute(s, moved), target, on) for s, target, on in wanted]
    for exact in (True, False):  # a bare index first; then i of `i + 4 w`, which leaves a sum over w alone
        unsolved = []
        for subscript, target, on in open_pairs:
            found = _inverse(work, build.substitute(subscript, solved), target, on, rest, exact)
            if found is None:
                unsolved.append((subscript, target, on))
                continue
            name, value = found
            rest.remove(name)
            solved = {n: build.substitute(v, {name: value}) for n, v in solved.items()}
            solved[name] = value
            if not (target.op == "index" and value is target):
                inside.append((name, value))
        open_pairs = unsolved
    facts += [make("eq", subscript, target) for subscript, target, _ in open_pairs]
    term = _substituted(term, solved)
    for name, value in inside:
        facts += _bounds(work, term, name, build.substitute(value, solved))
    guard = build.every(_substituted(fact, solved) for fact in facts)
    summed = [n for n in rest if n in term.free | guard.free]
    for name in rest:
        if name not in summed:
            term = build.mul(build.size(name), term)
    return build.reduce("sum", summed, term, guard) if summed else build.where(guard, term, build.ZERO)


def _substituted(term: Node, values: Mapping[str, Node]) -> Node:
    if not build.can_substitute(term, values):
        raise NotDifferentiable(f"`{term!r}` is needed at another position, and has no term there")
    return build.substitute(term, values)


def _inverse(
    work: _Pull, subscript: Node, target: Node, on: str | None, rest: list[str], exact: bool
) -> tuple[str, Node] | None:
    """A point's index for which `subscript = target` can be solved, on the wanted axis (any, for an edge's point), and
    its value: one that the subscript is up to a constant, or else one that stands in it once, with factor 1."""
    for name in rest:
        gap = difference(subscript, build.index(name))
        if exact and set(gap) <= {None} and on in (None, work.axis(name)):
            return name, build.sub(target, build.const(int(gap.get(None, build.Fraction(0)))))
        terms = [t for t in gap if t is not None]
        if not exact and name in subscript.free and not any(name in t.free for t in terms):
            value = build.sub(target, build.const(int(gap.get(None, build.Fraction(0)))))
            for term in terms:
                if gap[term].denominator != 1:
                    break
                factor = build.const(abs(int(gap[term])))
                value = (build.sub if gap[term] > 0 else build.add)(value, build.mul(factor, term))
            else:
                return name, value
    return None


def _bounds(work: _Pull, term: Node, name: str, value: Node) -> list[Node]:
    """`0 <= value < |axis|`, without what holds anyway, and without what a vanishing factor says itself."""
    if _vanishes(work, term, value):
        return []
    lower, upper = make("le", build.ZERO, value), make("lt", value, build.size(work.axis(name)))
    number = build.value_of(value)
    if number is not None:
        return [upper] if number >= 0 else [build.FALSE]
    at = min(value.free, default="")
    gap = difference(value, build.index(at)) if at else {}
    if not at or work.axis(at) != work.axis(name) or set(gap) - {None}:
        return [lower, upper]
    return [lower] if gap.get(None, 0) < 0 else [upper]  # a position of the same axis, so many steps away


_FINITE_AT_ZERO = frozenset(
    "const index size option read add sub mul neg exp expm1 sigmoid tanh relu silu gelu softplus abs sin cos where sum "
    "conj re im maximum minimum lt le eq ne and or not erf log_sigmoid".split()
)


def _vanishes(work: _Pull, term: Node, value: Node) -> bool:
    """Is the term a product with a vanishing tensor at that position, and finite in what else it holds? What lies
    outside the axes reads as 0, so a quotient or a logarithm may not be."""
    if term.op in ("mul", "neg", "conj", "re", "im"):
        parts = term.args
        hit = [_vanishes(work, a, value) for a in parts]
        return any(hit) and all(h or _finite(work, a) for h, a in zip(hit, parts, strict=True))
    if term.op == "where":
        return _vanishes(work, term.args[1], value) and term.args[2] is build.ZERO
    return term.op == "read" and term.attr in work.vanishing and value in term.args


def _finite(work: _Pull, node: Node) -> bool:
    below = list(walk(node))
    tensors = [work.tensors.get(str(n.attr)) for n in below if n.op == "read"]
    return all(n.op in _FINITE_AT_ZERO for n in below) and all(t is None or not t.edges for t in tensors)

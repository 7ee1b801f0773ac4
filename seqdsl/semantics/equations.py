"""Equations: a left side and its expression become a tensor, a base case, or the outputs of a call."""

from __future__ import annotations

from dataclasses import replace

from seqdsl.diagnostics import SeqError, Span
from seqdsl.ir import build
from seqdsl.ir.node import Node
from seqdsl.ir.system import Edge, Tensor
from seqdsl.semantics import calls, expressions
from seqdsl.semantics.declare import target_indices
from seqdsl.semantics.scope import Override, Place, Ref, Scope
from seqdsl.syntax import tree


def resolve(scope: Scope, name: str, span: Span) -> Ref:
    """The reference of a tensor; a bare left side is lowered when it is first read."""
    if name in scope.failed:
        raise scope.failed[name]  # reported once: equal diagnostics are one
    if name in scope.tensors:
        return scope.tensors[name]
    equation = scope.pending.get(name)
    if equation is None or name in scope.opened:
        raise SeqError(
            "unknown-indices",
            f"the indices of `{name}` depend on themselves",
            span,
            help=f"write them on its left side, `{name}[t,h] = ..`",
        )
    lower_bare(scope, equation)
    return scope.tensors[name]


def place_of(scope: Scope, target: str, left: tuple[str, ...]) -> Place:
    """Where the right side of an equation stands."""
    return Place(scope, target, left, frozenset((*left, *scope.mapped)))


def lower_equation(scope: Scope, equation: tree.Equation) -> None:
    """Add what an equation defines to the builder."""
    target = equation.targets[0]
    if len(equation.targets) > 1 or target.indices is None:
        if any(t.name.plain in scope.pending for t in equation.targets):
            lower_bare(scope, equation)
        return
    name = target.name.plain
    ref = scope.tensors[name]
    points = [i for i in target.indices if not isinstance(i, tree.Name | tree.NewIndex)]
    if points:
        _base_case(scope, ref, target, equation)
        return
    place = replace(place_of(scope, name, ref.indices), whole=equation.value)
    node = _call_by_position(place, equation.value) or expressions.lower(place, equation.value)
    define(scope, ref, node, equation)


def _call_by_position(place: Place, value: tree.Expr) -> Node | None:
    """`x[u: U, c] = f(..)`: a call alone on the right meets the left side by position where the names differ."""
    if not isinstance(value, tree.Call) or value.brackets is not None:
        return None
    declared = place.scope.file.declarations.get(value.function.plain)
    if declared is None or isinstance(declared[1], tree.Monoid):
        return None
    refs = calls.inline(place, value, declared[0], declared[1])
    indices = (*refs[0].mapped, *refs[0].indices)
    ref = refs[0]
    if set(indices) <= place.visible:
        return expressions.read_ref(ref, [build.index(i) for i in ref.indices])
    left = [i for i in place.left if i not in indices]
    right = [i for i in indices if i not in place.visible]
    if len(left) < len(right):
        raise SeqError(
            "stray-index",
            f"`{value.function.plain}` varies along {len(indices)} indices, the left side has {len(place.left)}",
            value.span,
            label="its result has more indices than the left side",
        )
    names = dict(zip(right, left, strict=False))
    for old, new in names.items():
        place.scope.builder.constraints.append((new, old))
    subscripts = [build.index(names.get(i, i)) for i in indices]
    return build.read(ref.name, subscripts, expressions.PLACEHOLDER)


def define(scope: Scope, ref: Ref, node: Node, equation: tree.Equation | None, text: str = "") -> None:
    """Add a derived tensor; base cases that came before keep their edges."""
    edges = scope.builder.tensors[ref.name].edges if ref.name in scope.builder.tensors else ()
    comment = text or (comment_of(equation) if equation is not None else "")
    scope.builder.tensors[ref.name] = Tensor(
        ref.name, (*ref.mapped, *ref.indices), expressions.PLACEHOLDER, "derived", node, edges, comment=comment
    )
    scope.builder.mapped[ref.name] = ref.mapped
    if equation is not None:
        scope.builder.spans[ref.name] = equation.span


def comment_of(equation: tree.Equation) -> str:
    """The equation as written, on one line, and the comments beside it."""
    text = (
        " ".join(equation.span.text.split("#")[0].split())
        if "\n" not in equation.span.text
        else " ".join(part.split("#")[0].strip() for part in equation.span.text.splitlines())
    )
    return "\n".join((*(c.lstrip("# ").rstrip() for c in equation.comments), text))


def _base_case(scope: Scope, ref: Ref, target: tree.Target, equation: tree.Equation) -> None:
    """`m[-1,h] = -inf` is an edge; a point inside the axis becomes a `where` in the equation itself."""
    assert target.indices is not None
    if len(target.indices) != len(ref.indices):
        raise SeqError(
            "base-case-shape",
            f"`{ref.local}` has {expressions.counted(len(ref.indices), 'index')}, its base case {len(target.indices)}",
            target.span,
            label=f"`{ref.local}` is {expressions.signature(scope, ref)}",
            help="a base case has a constant in the place of one or more of them",
        )
    place = place_of(scope, ref.local, target_indices(scope, target.indices))
    points: list[tuple[int, Node]] = []
    for position, item in enumerate(target.indices):
        if isinstance(item, tree.Name | tree.NewIndex):
            continue
        points.append((len(ref.mapped) + position, expressions.lower(place, item)))
    free = [i for i in target.indices if isinstance(i, tree.Name | tree.NewIndex)]
    names = target_indices(scope, tuple(free))
    own = [i for k, i in enumerate(ref.indices) if isinstance(target.indices[k], tree.Name | tree.NewIndex)]
    if list(names) != own:
        raise SeqError(
            "base-case-shape",
            f"a base case of `{ref.local}` has its indices in the same order",
            target.span,
            label=f"`{ref.local}` is {expressions.signature(scope, ref)}",
            help=f"write {expressions.signature(scope, ref)} with a constant in place of an index, such as -1",
        )
    node = expressions.lower(place, equation.value)
    _attach(scope, ref.name, (*ref.mapped, *ref.indices), points, node, equation)


def _attach(
    scope: Scope,
    name: str,
    indices: tuple[str, ...],
    points: list[tuple[int, Node]],
    node: Node,
    equation: tree.Equation,
) -> None:
    """Make the edge tensor (of an edge tensor, for two points) and hook it to its owner, from every side."""
    builder = scope.builder
    if all(_is_inside(point) for _, point in points):
        builder.overrides.append((name, frozenset(points), node, equation.span))
        return
    for position, point in [p for p in points if not _is_inside(p[1])]:
        rest = indices[:position] + indices[position + 1 :]
        edge_name = f"{name}@{indices[position]}={point!r}"
        others = [(p - (p > position), q) for p, q in points if (p, q) != (position, point)]
        if edge_name not in builder.tensors:
            builder.tensors[edge_name] = Tensor(
                edge_name,
                rest,
                expressions.PLACEHOLDER,
                "derived",
                node if not others else build.ZERO,
                comment=comment_of(equation),
            )
            builder.spans[edge_name] = equation.span
            builder.corners.update({edge_name} if others else ())
        elif not others and edge_name not in builder.corners:
            raise SeqError(
                "duplicate-definition", "the same points get two base cases", equation.span, label="defined again here"
            )
        elif not others:
            builder.tensors[edge_name] = replace(builder.tensors[edge_name], rhs=node)
            builder.corners.discard(edge_name)
        owner = builder.tensors.get(name)
        if owner is None:
            builder.tensors[name] = Tensor(name, indices, expressions.PLACEHOLDER, "derived", None)
            owner = builder.tensors[name]
        edge = Edge(position, point, edge_name)
        if edge not in owner.edges:
            builder.add_edge(name, edge)
        if others:
            _attach(scope, edge_name, rest, others, node, equation)


def _is_inside(point: Node) -> bool:
    value = build.value_of(point)
    return isinstance(value, int) and value >= 0


def apply_overrides(scope: Scope) -> None:
    """Points inside an axis: `f[0,c] = x0` becomes `f = where(t == 0, x0, ..)`; the larger number of points wins."""
    everything = scope.builder.overrides
    mine = [o for o in everything if o[0].startswith(scope.prefix)]
    _refuse_clashes(mine)
    for name, points, node, span in sorted(mine, key=lambda o: len(o[1])):
        tensor = scope.builder.tensors.get(name)
        if tensor is None or tensor.rhs is None:
            continue  # its equation has a fault
        here = build.TRUE
        for position, point in sorted(points, key=lambda p: p[0]):
            here = build.both(here, build.make("eq", build.index(tensor.indices[position]), point))
        scope.builder.tensors[name] = replace(tensor, rhs=build.where(here, node, tensor.rhs))
        scope.builder.spans.setdefault((name, node), span)
    everything[:] = [o for o in everything if not o[0].startswith(scope.prefix)]


def _refuse_clashes(overrides: list[Override]) -> None:
    """Two equally specific base cases that meet in a point which no more specific one gives."""
    for k, (name, points, _, span) in enumerate(overrides):
        for other, earlier, _, _ in overrides[:k]:
            together = points | earlier
            if (
                name != other
                or len(points) != len(earlier)
                or len({position for position, _ in together}) != len(together)
            ):
                continue
            if points == earlier or not any(n == name and p == together for n, p, _, _ in overrides):
                raise SeqError(
                    "duplicate-definition",
                    "two base cases give the same points",
                    span,
                    label="defined again here",
                    help="a point of both takes an equation of its own",
                )


def lower_bare(scope: Scope, equation: tree.Equation) -> None:
    """A left side without brackets: a call, a plain tensor, or a scalar (rule 25)."""
    names = [t.name.plain for t in equation.targets]
    scope.opened |= set(names)
    try:
        _lower_bare(scope, equation, names)
    except SeqError as error:
        scope.failed.update(dict.fromkeys(names, error))
        raise


def _lower_bare(scope: Scope, equation: tree.Equation, names: list[str]) -> None:
    value = equation.value
    declared = scope.file.declarations.get(value.function.plain) if isinstance(value, tree.Call) else None
    place = replace(place_of(scope, names[0], ()), whole=value)
    if isinstance(value, tree.Call) and declared is not None and not isinstance(declared[1], tree.Monoid):
        refs = calls.inline(place, value, declared[0], declared[1], outputs=names)
        if len(refs) < len(names):
            raise SeqError(
                "too-many-targets",
                f"`{value.function.plain}` has {expressions.counted(len(refs), 'output')}, and "
                f"{len(names)} names stand on the left",
                equation.targets[len(refs)].span,
            )
        for name, ref in zip(names, refs, strict=False):
            lead = tuple(m for m in ref.mapped if m in scope.mapped)
            rest = tuple(m for m in ref.mapped if m not in scope.mapped)
            scope.tensors[name] = Ref(ref.name, lead, (*rest, *ref.indices), name)
            scope.builder.spans[ref.name] = equation.span
            tensor = scope.builder.tensors[ref.name]
            if not tensor.comment:
                scope.builder.tensors[ref.name] = replace(tensor, comment=comment_of(equation))
    elif len(names) > 1:
        raise SeqError("too-many-targets", "several left sides take a call with as many outputs", equation.span)
    else:
        _plain(scope, names[0], equation)
    for name in names:
        scope.pending.pop(name, None)


def _plain(scope: Scope, name: str, equation: tree.Equation) -> None:
    """`y = x` takes x's indices; anything else must be a scalar."""
    value = equation.value
    if isinstance(value, tree.Name) and scope.kind_of(value.plain) == "tensor":
        source = resolve(scope, value.plain, value.span)
        ref = Ref(scope.prefix + name, scope.mapped, source.indices, name)
    else:
        ref = Ref(scope.prefix + name, scope.mapped, (), name)
    scope.tensors[name] = ref
    place = replace(place_of(scope, name, ref.indices), whole=value)
    define(scope, ref, expressions.lower(place, value), equation)

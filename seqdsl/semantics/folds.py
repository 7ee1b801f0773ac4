"""Declared monoids and their use as a reduction (rule 34)."""

from __future__ import annotations

from collections.abc import Mapping

from seqdsl.diagnostics import SeqError, Span
from seqdsl.ir import build
from seqdsl.ir.graphs import cycle, in_order
from seqdsl.ir.node import Node, read_names
from seqdsl.ir.ops import make
from seqdsl.ir.system import Monoid, Tensor
from seqdsl.semantics import claims, equations, expressions, operators, parameters
from seqdsl.semantics.declare import check_given, declare_indices, declare_options, declare_tensors
from seqdsl.semantics.scope import Builder, File, Place, Ref, Scope
from seqdsl.semantics.sizes import lower_size
from seqdsl.syntax import tree


def lower_fold(place: Place, call: tree.Call, file: File, declared: tree.Monoid) -> Node:
    """`M[s | guard](args)`: a fold of the lifted arguments over the guard's points, projected."""
    scope = place.scope
    if scope.builder.monoid:
        raise SeqError(
            "fold-in-monoid",
            f"the monoid `{scope.builder.monoid}` folds by `{declared.name.plain}`",
            call.span,
            help="inside a monoid use `sum`, `prod`, `max` and the like, and functions",
        )
    if call.brackets is None or not call.brackets.items:
        raise SeqError(
            "missing-indices",
            f"the monoid `{declared.name.plain}` is used along an index",
            call.span,
            help=f"write `{declared.name.plain}[s | s <= t](..)`",
        )
    if call.brackets.made is not None:
        raise SeqError("unexpected-arrow", "a fold makes no axes by an arrow", call.brackets.span)
    formals = declared.lift_params if declared.lift_params is not None else declared.fields
    if len(call.args) != len(formals):
        listed = ", ".join(f.name.plain for f in formals)
        raise SeqError(
            "wrong-number-of-arguments",
            f"`{declared.name.plain}` lifts "
            f"{expressions.counted(len(formals), 'value')} ({listed}), not {len(call.args)}",
            call.span,
        )
    names = operators.bound_indices(place, call.brackets.items)
    inner = place.inside(names)
    args = [expressions.lower(inner, a) for a in call.args]
    guard = build.TRUE if call.brackets.guard is None else expressions.lower(inner, call.brackets.guard)
    name = scope.prefix + scope.count(declared.name.plain)
    monoid = _instance(place, call, file, declared, name, args)
    scope.builder.monoids[name] = monoid
    scope.builder.spans[("monoid", name)] = call.span
    made = next(t.indices for t in monoid.project if t.name == monoid.output)
    return make("fold", *args, guard, attr=(name, names, made), dtype="real")


def _instance(place: Place, call: tree.Call, file: File, declared: tree.Monoid, name: str, args: list[Node]) -> Monoid:
    """The monoid with its field indices matched to those of this use."""
    scope = place.scope
    local = Builder(
        indices=scope.builder.indices,
        checks=scope.builder.checks,
        constraints=scope.builder.constraints,
        spans=scope.builder.spans,
        monoid=declared.name.plain,
    )
    inner = Scope(
        local,
        file,
        declared.name.plain,
        f"{name}.",
        (*scope.path, declared.name.plain),
        (),
        (*scope.stack, declared.name.plain),
    )
    formals = declared.lift_params if declared.lift_params is not None else declared.fields
    for formal, arg in zip(formals, args, strict=True):
        for item in formal.indices or ():
            index = (item.name if isinstance(item, tree.NewIndex) else item).plain
            mine = scope.indices.get(index)
            if mine is None or mine not in arg.free:
                raise SeqError(
                    "unbound-axis",
                    f"the argument has no axis `{index}` for `{formal.name.plain}` of `{declared.name.plain}`",
                    call.span,
                )
            inner.indices[index] = mine
    given = _settings(place, call, declared)
    declare_options(inner, declared.options, given)
    _make_known(place, inner, declared)
    for param in declared.params:
        declare_tensors(inner, (param,)).check()
        parameters.lower_param(inner, param)
    scope.builder.tensors.update({n: t for n, t in local.tensors.items() if t.kind == "param"})
    local.tensors.clear()
    for k, field in enumerate(declared.fields):
        if any(field.name.plain == other.name.plain for other in declared.fields[:k]):
            raise SeqError("name-clash", f"`{field.name.plain}` is declared twice in the header", field.name.span)
    fields = tuple((f.name.plain, _indices(inner, f)) for f in declared.fields)
    lift_params, lift = _lift(inner, declared, fields)
    identity = _identity(inner, declared, fields)
    combine = _combine(inner, declared, fields)
    project, output = _project(inner, declared, fields)
    local.faults.check()
    laws = claims.lower_laws(declared, name)
    return Monoid(name, fields, lift_params, lift, identity, combine, project, output, laws)


def _settings(place: Place, call: tree.Call, declared: tree.Monoid) -> dict[str, Node]:
    known = {o.name.plain for o in declared.options}
    given = {}
    for setting in call.settings:
        if setting.name.plain not in known:
            raise SeqError(
                "unknown-option", f"`{declared.name.plain}` has no option `{setting.name.plain}`", setting.span
            )
        given[setting.name.plain] = lower_size(place.scope, setting.value)
    check_given(declared, given, call)
    return given


def _make_known(place: Place, inner: Scope, declared: tree.Monoid) -> None:
    """Indices the monoid makes; one of the project's that the left side has too is that one (sizes must agree)."""
    body = (*declared.params, *declared.combine, *declared.project)
    outputs = declared.project_output.indices or () if declared.project_output is not None else ()
    declare_indices(inner, (*body, *(i for i in outputs if isinstance(i, tree.NewIndex)))).check()
    for name, index in list(inner.indices.items()):
        mine = place.scope.indices.get(name)
        if index.startswith(inner.prefix) and mine in place.left:
            inner.builder.constraints.append((mine, index))
            inner.indices[name] = mine


def _indices(inner: Scope, formal: tree.Formal) -> tuple[str, ...]:
    found = []
    for item in formal.indices or ():
        name = (item.name if isinstance(item, tree.NewIndex) else item).plain
        if name not in inner.indices:
            raise SeqError(
                "unbound-axis", f"nothing lifts the axis `{name}` of the field `{formal.name.plain}`", formal.span
            )
        found.append(inner.indices[name])
    return tuple(found)


def _with_tensors(inner: Scope, tensors: dict[str, Ref]) -> Scope:
    scope = Scope(
        inner.builder,
        inner.file,
        inner.owner,
        "",
        inner.path,
        (),
        inner.stack,
        inner.indices,
        {**inner.tensors, **tensors},
        inner.sizes,
    )
    return scope


def _place(scope: Scope, target: str, left: tuple[str, ...]) -> Place:
    return equations.place_of(scope, target, left)


Fields = tuple[tuple[str, tuple[str, ...]], ...]


def _listed(value: tree.Expr, count: int, what: str) -> tuple[tree.Expr, ...]:
    items = value.items if isinstance(value, tree.Tuple) else (value,)
    if len(items) != count:
        raise SeqError(
            "wrong-number-of-fields",
            f"`{what}` gives {expressions.counted(len(items), 'value')} for {expressions.counted(count, 'field')}",
            value.span,
        )
    return items


def _lift(inner: Scope, declared: tree.Monoid, fields: Fields) -> tuple[Fields, tuple[Node, ...]]:
    if declared.lift is None or declared.lift_params is None:
        return fields, tuple(build.read(n, [build.index(i) for i in idx], "real") for n, idx in fields)
    params = tuple((f.name.plain, _indices(inner, f)) for f in declared.lift_params)
    scope = _with_tensors(inner, {n: Ref(n, (), idx, n) for n, idx in params})
    items = _listed(declared.lift, len(fields), "lift")
    return params, tuple(
        expressions.lower(_place(scope, n, idx), item) for (n, idx), item in zip(fields, items, strict=True)
    )


def _identity(inner: Scope, declared: tree.Monoid, fields: Fields) -> tuple[Node, ...] | None:
    if declared.identity is None:
        return None
    items = _listed(declared.identity, len(fields), "identity")
    return tuple(expressions.lower(_place(inner, n, idx), item) for (n, idx), item in zip(fields, items, strict=True))


def _combine(inner: Scope, declared: tree.Monoid, fields: Fields) -> tuple[Tensor, ...]:
    sides = {
        f"{user.plain}.{n}": Ref(f"{side}.{n}", (), idx, f"{user.plain}.{n}")
        for side, user in zip("ab", declared.combine_names, strict=True)
        for n, idx in fields
    }
    scope = _with_tensors(inner, sides)
    return _equations(scope, declared.combine, fields, declared, "combine")


def _project(inner: Scope, declared: tree.Monoid, fields: Fields) -> tuple[tuple[Tensor, ...], str]:
    if declared.project_output is None:
        if len(fields) != 1:
            raise SeqError(
                "missing-project",
                f"`{declared.name.plain}` has {len(fields)} fields and no `project`",
                declared.name.span,
                help="say what a fold gives: `project -> y: ..`",
            )
        name, idx = fields[0]
        copy = Tensor(f"{name}.out", idx, "real", "derived", build.read(name, [build.index(i) for i in idx], "real"))
        return (copy,), copy.name
    output = declared.project_output
    scope = _with_tensors(inner, {n: Ref(n, (), idx, n) for n, idx in fields})
    formal = tree.Formal(output.name, output.indices, span=output.span)
    wanted = ((output.name.plain, _indices(inner, formal)),)
    return _equations(scope, declared.project, wanted, declared, "project"), output.name.plain


def _equations(
    scope: Scope, body: tuple[tree.Statement, ...], wanted: Fields, declared: tree.Monoid, what: str
) -> tuple[Tensor, ...]:
    """The block's equations, auxiliary ones and inlined functions first."""
    declare_tensors(scope, body).check()
    for statement in body:
        if isinstance(statement, tree.Equation):
            equations.lower_equation(scope, statement)
        elif not isinstance(statement, tree.IndexDecl):
            raise SeqError("unexpected-statement", f"`{what}` holds equations only", statement.span)
    scope.builder.faults.check()
    names = {n for n, _ in wanted}
    for name, idx in wanted:
        if name not in scope.builder.tensors:
            raise SeqError(
                "missing-field",
                f"`{what}` of `{declared.name.plain}` does not give `{name}`",
                declared.name.span,
                help=f"add `{name}[..] = ..`",
            )
        if scope.builder.tensors[name].indices != idx:
            raise SeqError("output-mismatch", f"`{name}` has other indices in `{what}`", scope.builder.spans.get(name))
    made = tuple(t for t in scope.builder.tensors.values() if t.kind == "derived")
    scope.builder.tensors.clear()
    ordered = [t for t in made if t.name not in names] + [t for t in made if t.name in names]
    return (*_sorted(ordered, scope.builder.spans),)


def _sorted(tensors: list[Tensor], spans: Mapping[object, Span]) -> list[Tensor]:
    """Definitions before uses; the given order otherwise."""
    by_name = {t.name: t for t in tensors}
    users = {name: [t.name for t in tensors if t.rhs is not None and name in read_names(t.rhs)] for name in by_name}
    if circle := cycle(users):
        shown = " -> ".join(f"`{name}`" for name in circle)
        raise SeqError(
            "not-well-founded",
            f"{shown} depends on itself, and a monoid has no recurrences",
            spans.get(circle[0]),
            help="a monoid's equations are computed once for two elements, in their order",
        )
    order = {n: k for k, n in enumerate(by_name)}
    return [by_name[n] for n in in_order(users, order.__getitem__)]

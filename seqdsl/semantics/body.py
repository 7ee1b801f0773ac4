"""The body of a mixer or fn: header, options, declarations, equations, in the order that rule 7 allows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from seqdsl.diagnostics import SeqError
from seqdsl.ir import build
from seqdsl.ir.node import Node
from seqdsl.ir.system import Tensor
from seqdsl.semantics import equations, expressions, parameters
from seqdsl.semantics.declare import article, declare_indices, declare_options, declare_tensors, new_indices
from seqdsl.semantics.scope import Ref, Scope
from seqdsl.semantics.unroll import static_names, unroll
from seqdsl.syntax import tree

MOST_FAULTS = 30  # that one report lists
VALUE = "value"  # the output of a fn given as one expression


def check_header(scope: Scope, callee: tree.Mixer | tree.Fn) -> None:
    """Rule 1 within the header: parameters, indices and options have different names."""
    names = [p.name for p in callee.params]
    for k, name in enumerate(names):
        if name.plain in scope.indices:
            raise SeqError(
                "name-clash",
                f"`{name.plain}` is both a tensor and an index",
                name.span,
                help="within a mixer a name is one thing (rule 1)",
            )
        if any(name.plain == other.plain for other in names[:k]):
            raise SeqError("name-clash", f"`{name.plain}` is declared twice in the header", name.span)


def static_values(scope: Scope, callee: tree.Mixer | tree.Fn) -> dict[str, int]:
    """The options that unrolling needs, where they are numbers already."""
    needed = static_names(callee.body)
    return {n: v for n in needed if isinstance(v := build.value_of(scope.sizes.get(n, build.TRUE)), int)}


def lower_body(
    scope: Scope, callee: tree.Mixer | tree.Fn, given: dict[str, Node], output_names: dict[str, str]
) -> tuple[tree.Statement, ...]:
    """Lower everything; the scope then knows every tensor. `output_names` renames outputs after a bare left side.

    Gives the statements with loops written out."""
    declare_options(scope, callee.options, given)
    _check_loop_variables(scope, callee.body)
    body = unroll(callee.body, static_values(scope, callee))
    faults = declare_indices(scope, (*body, *_header_items(callee), *_value(callee)))
    faults.merge(declare_tensors(scope, body))
    faults.check()
    for local, system_name in output_names.items():
        if local in scope.tensors and local not in {p.name.plain for p in callee.params}:
            scope.tensors[local] = replace(scope.tensors[local], name=system_name)
    _lower_statements(scope, body)
    if isinstance(callee, tree.Fn) and callee.value is not None:
        _lower_value(scope, callee)
    if not scope.faults:
        equations.apply_overrides(scope)
        _check_outputs(scope, callee)
    return body


def _check_loop_variables(scope: Scope, body: tuple[tree.Statement, ...]) -> None:
    """Rule 1: the variable of a static loop becomes a number wherever it stands, so nothing else has its name."""
    loops = list(_loop_variables(body))
    if not loops:
        return
    declared = {**dict.fromkeys(scope.indices, "index"), **dict.fromkeys(scope.tensors, "tensor")}
    declared |= dict(_declared(body)) | dict.fromkeys(scope.sizes, "size")
    for name in loops:
        kind = declared.get(name.plain)
        if kind is not None:
            raise SeqError(
                "duplicate-name" if kind == "size" else "name-clash",
                f"the loop variable `{name.plain}` is {article(kind)} too",
                name.span,
                label="a number, in each turn of the loop",
                help="within a mixer a name is one thing (rule 1)",
            )


def _loop_variables(body: tuple[tree.Statement, ...]) -> Iterator[tree.Name]:
    for statement in body:
        if isinstance(statement, tree.For):
            yield statement.name
            yield from _loop_variables(statement.body)


def _declared(body: tuple[tree.Statement, ...]) -> Iterator[tuple[str, str]]:
    """The plain names that statements declare, with what they are."""
    for statement in body:
        if isinstance(statement, tree.For):
            yield from _declared(statement.body)
        elif isinstance(statement, tree.IndexDecl):
            yield from ((new.plain, "index") for new, _ in statement.pairs if len(new.parts) == 1)
        elif isinstance(statement, tree.Equation):
            yield from ((t.name.plain, "tensor") for t in statement.targets if len(t.name.parts) == 1)
        elif isinstance(statement, tree.ParamDecl | tree.ConstDecl) and len(statement.target.name.parts) == 1:
            yield statement.target.name.plain, "tensor"
    yield from ((n.name.plain, "index") for n in new_indices(body) if len(n.name.parts) == 1)


def _header_items(callee: tree.Mixer | tree.Fn) -> tuple[tree.NewIndex, ...]:
    """Sizes stated in the header and in the results, `pos[i: m]`, seen as declarations."""
    listed = [*(p.indices for p in callee.params), *(o.indices for o in callee.outputs)]
    items = [i for indices in listed for i in indices or () if isinstance(i, tree.NewIndex)]
    return tuple(items)


def _value(callee: tree.Mixer | tree.Fn) -> tuple[tree.Expr, ...]:
    """The expression that a fn is, where it is one."""
    return (callee.value,) if isinstance(callee, tree.Fn) and callee.value is not None else ()


def _lower_statements(scope: Scope, body: tuple[tree.Statement, ...]) -> None:
    """Statement by statement; faults of several equations are reported together."""
    for statement in body:
        try:
            if isinstance(statement, tree.ParamDecl):
                parameters.lower_param(scope, statement)
            elif isinstance(statement, tree.ConstDecl):
                parameters.lower_const(scope, statement)
            elif isinstance(statement, tree.Equation):
                equations.lower_equation(scope, statement)
        except SeqError as error:
            scope.faults.extend(error.diagnostics)
            faults = scope.builder.faults
            faults.extend(d for d in error.diagnostics if d not in faults)
            if len(faults) > MOST_FAULTS:
                faults.check()


def _lower_value(scope: Scope, callee: tree.Fn) -> None:
    assert callee.value is not None
    header = tuple(dict.fromkeys(i for r in scope.tensors.values() for i in r.indices))
    place = replace(equations.place_of(scope, VALUE, ()), visible=frozenset((*header, *scope.mapped)))
    node = expressions.lower(place, callee.value)
    ref = Ref(scope.prefix + VALUE, scope.mapped, tuple(i for i in header if i in node.free), VALUE)
    scope.tensors[VALUE] = ref
    text = " ".join(callee.value.span.text.split())
    scope.builder.tensors[ref.name] = Tensor(
        ref.name,
        (*ref.mapped, *ref.indices),
        expressions.PLACEHOLDER,
        "derived",
        node,
        comment=f"{callee.name.plain} = {text}",
    )
    scope.builder.spans[ref.name] = callee.value.span


def _check_outputs(scope: Scope, callee: tree.Mixer | tree.Fn) -> None:
    for output in callee.outputs:
        name = output.name.plain
        if name not in scope.tensors:
            raise SeqError(
                "undefined-output",
                f"`{callee.name.plain}` gives `{name}`, and no equation defines it",
                output.span,
                help=f"add `{output.span.text} = ..`",
            )
        _check_layout(scope, output)


def _check_layout(scope: Scope, output: tree.Output) -> None:
    """Rule 7: an output's layout is the header's; the equation may order its indices differently."""
    ref = scope.tensors[output.name.plain]
    if output.indices is None and ref.indices:
        listed = ",".join(expressions.local_name(scope, i) for i in ref.indices)
        raise SeqError(
            "output-mismatch",
            f"`{output.name.plain}` is a scalar in the header and {output.name.plain}[{listed}] in its equation",
            output.span,
        )
    stated = []
    for item in output.indices or ():
        name = item.name if isinstance(item, tree.NewIndex) else item
        if name.plain not in scope.indices:
            raise SeqError("unknown-index", f"`{name.plain}` is not an index of `{scope.owner}`", name.span)
        stated.append(scope.indices[name.plain])
    if sorted(stated) != sorted(ref.indices):
        want, have = (",".join(expressions.local_name(scope, i) for i in names) for names in (stated, ref.indices))
        raise SeqError(
            "output-mismatch",
            f"the header says {output.name.plain}[{want}], its equation {output.name.plain}[{have}]",
            output.span,
            label="the header's indices",
            help=f"write `{output.name.plain}[{have}]` here, or give the equation the indices `{want}`",
        )
    if tuple(stated) != ref.indices:
        _reorder(scope, output, tuple(stated))


def _reorder(scope: Scope, output: tree.Output, stated: tuple[str, ...]) -> None:
    """Give an output the header's layout: a tensor of that order takes its name, reads are permuted by `tidy`."""
    ref = scope.tensors[output.name.plain]
    builder = scope.builder
    name = build.fresh(ref.name + ".out", builder.tensors)
    node = build.read(ref.name, [build.index(i) for i in (*ref.mapped, *ref.indices)], expressions.PLACEHOLDER)
    builder.tensors[name] = Tensor(name, (*ref.mapped, *stated), expressions.PLACEHOLDER, "derived", node)
    scope.tensors[output.name.plain] = Ref(name, ref.mapped, stated, ref.local)

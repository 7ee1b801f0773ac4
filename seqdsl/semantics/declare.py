"""First pass over a mixer's body: which names are indices, tensors and sizes, before any expression is read.

Rules 1, 5, 7 and 8. Equations are unordered, so every index and every tensor with a bracketed left side is known here;
a bare left side (`o = gla(..)`) is remembered and lowered when it is first read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from seqdsl.diagnostics import Faults, SeqError, Span
from seqdsl.ir.node import Node, walk
from seqdsl.ir.system import SizeCheck
from seqdsl.semantics.builtins import FUNCTIONS, RESERVED_SETTINGS
from seqdsl.semantics.scope import Ref, Scope
from seqdsl.semantics.sizes import lower_size
from seqdsl.syntax import tree


def declare_indices(scope: Scope, body: tuple[tree.Node, ...]) -> Faults:
    """Every `h: H` of the body, and every `index s over t`; the faults."""
    faults = Faults()
    sized = list(new_indices(body))
    for new in sized:
        with faults.kept():
            _declare_sized(scope, new)
    stated: dict[str, Node] = {}
    for new in sized:  # sizes may mention any index of the mixer
        with faults.kept():
            _state_size(scope, new, stated)
    pairs = [pair for s in body if isinstance(s, tree.IndexDecl) for pair in s.pairs]
    for _ in range(len(pairs) + 1):
        waiting = []
        for pair in pairs:
            with faults.kept():
                if not _declare_second(scope, *pair):
                    waiting.append(pair)
        pairs = waiting
    for new_name, over in pairs:
        with faults.kept():
            raise SeqError(
                "unknown-index",
                f"`{over.plain}` is not an index of `{scope.owner}`",
                over.span,
                help=f"declare it in the header or with a size before `{new_name.plain}` runs over its axis",
            )
        if scope.kind_of(new_name.plain) is None:  # what reads it has no fault of its own
            scope.indices[new_name.plain] = scope.builder.add_index(scope.prefix + new_name.plain, "", None)
    return faults


def _state_size(scope: Scope, new: tree.NewIndex, stated: dict[str, Node]) -> None:
    name = scope.indices.get(new.name.plain)
    if name is None:
        return  # a clash, already reported
    size = lower_size(scope, new.size)
    index = scope.builder.indices[name]
    if stated.setdefault(name, size) is not size:
        raise SeqError(
            "duplicate-index",
            f"the index `{new.name.plain}` gets two sizes",
            new.span,
            label="another size here",
            help="give the second index a name of its own",
        )
    if index.size is None:
        scope.builder.indices[name] = type(index)(name, index.axis, size)
        label = f"{scope.owner}: the axis `{new.name.plain}`"
        scope.builder.checks.append(SizeCheck(label, size, 0 if _follows_inputs(scope, size) else 1, new.span))


def _follows_inputs(scope: Scope, size: Node, above: tuple[str, ...] = ()) -> bool:
    """Does it depend, maybe through other sizes, on an axis whose length each call decides, and which may be empty?"""
    axes = [scope.builder.indices[scope.builder.axis(str(n.attr))] for n in walk(size) if n.op == "size"]
    return any(
        axis.size is None or (axis.name not in above and _follows_inputs(scope, axis.size, (*above, axis.name)))
        for axis in axes  # sizes in a circle are reported elsewhere
    )


def _declare_sized(scope: Scope, new: tree.NewIndex) -> None:
    name = new.name.plain
    _refuse_reuse(scope, name, new.name.span, as_what="index")
    if name not in scope.indices:
        scope.indices[name] = scope.builder.add_index(scope.prefix + name, "", None)


def _declare_second(scope: Scope, new: tree.Name, over: tree.Name) -> bool:
    if over.plain not in scope.indices:
        return False
    axis = scope.builder.axis(scope.indices[over.plain])
    if new.plain in scope.indices:  # a header index that the mixer says runs over another's axis
        name = scope.indices[new.plain]
        _check_second(scope, new, over, name, axis)
        index = scope.builder.indices[name]
        if index.axis == name and index.size is None and name.startswith(scope.prefix) and not scope.prefix:
            scope.builder.indices[name] = type(index)(name, axis, None)
        return True
    _refuse_reuse(scope, new.plain, new.span, as_what="index")
    scope.indices[new.plain] = scope.builder.add_index(scope.prefix + new.plain, axis, None)
    return True


def _check_second(scope: Scope, new: tree.Name, over: tree.Name, name: str, axis: str) -> None:
    """An index runs over one axis: not over itself, and neither over two nor over one and a size of its own."""
    index = scope.builder.indices[name]
    if name == scope.indices[over.plain]:
        fault = f"`{new.plain}` runs over itself"
    elif index.axis not in (name, axis):
        fault = f"`{new.plain}` runs over `{local_axis(scope, index.axis)}` already"
    elif index.size is not None and axis != name:
        fault = f"`{new.plain}` has a size of its own already"
    else:
        return
    raise SeqError(
        "duplicate-index", fault, new.span.to(over.span), help="give the second index a name of its own"
    )


def local_axis(scope: Scope, axis: str) -> str:
    """How the text writes the first index of an axis."""
    return next((k for k, v in scope.indices.items() if v == axis), axis)


def _refuse_reuse(scope: Scope, name: str, span: Span, *, as_what: str) -> None:
    kind = scope.kind_of(name)
    if kind is not None and kind != as_what:
        raise SeqError(
            "name-clash",
            f"`{name}` is both {article(kind)} and {article(as_what)}",
            span,
            label=f"{article(as_what)} here",
            help="within a mixer a name is one thing (rule 1)",
        )


def article(kind: str) -> str:
    """The kind of a name with its article."""
    return {"index": "an index", "tensor": "a tensor", "size": "a size"}[kind]


def new_indices(node: Any) -> Iterator[tree.NewIndex]:
    """Outermost first, in the order of the text."""
    if isinstance(node, tree.NewIndex):
        yield node
    if isinstance(node, tuple):
        for item in node:
            yield from new_indices(item)
    elif isinstance(node, tree.Node):
        for f in fields(node):
            if f.name not in ("span", "comments", "doc"):
                yield from new_indices(getattr(node, f.name))


def declare_tensors(scope: Scope, body: tuple[tree.Statement, ...]) -> Faults:
    """Every left side and parameter; the faults. Bare left sides go to `scope.pending`."""
    faults = Faults()
    for statement in body:
        if isinstance(statement, tree.ParamDecl | tree.ConstDecl):
            with faults.kept():
                _declare(scope, statement.target, statement.target.indices or (), leading=False)
        elif isinstance(statement, tree.Equation):
            for target in statement.targets:
                if target.indices is None or len(statement.targets) > 1:
                    with faults.kept():
                        _declare_bare(scope, target, statement)
    equations = [s for s in body if isinstance(s, tree.Equation)]
    for statement in equations:  # base cases may stand before the equation that they belong to
        target = statement.targets[0]
        if len(statement.targets) == 1 and target.indices is not None and not _has_points(target):
            with faults.kept():
                _declare(scope, target, target.indices, leading=True)
    given = {s.targets[0].name.plain for s in equations if not _has_points(s.targets[0])}
    for statement in equations:
        target = statement.targets[0]
        if _has_points(target) and target.name.plain not in scope.tensors and target.name.plain not in given:
            with faults.kept():
                raise SeqError(
                    "base-case-alone",
                    f"`{target.name.plain}` has a base case but no equation",
                    target.span,
                    help=f"add the equation that gives `{target.name.plain}` at every index",
                )
    return faults


def _has_points(target: tree.Target) -> bool:
    return any(not isinstance(i, tree.Name | tree.NewIndex) for i in target.indices or ())


def _declare(scope: Scope, target: tree.Target, indices: tuple[Any, ...], *, leading: bool) -> None:
    name = target.name.plain
    _check_tensor_name(scope, target.name)
    if name in scope.tensors or name in scope.pending:
        raise SeqError(
            "duplicate-definition",
            f"`{name}` is defined twice",
            target.span,
            label="defined again here",
            help="each point is defined once; a base case has a constant subscript, `S[-1,h] = ..`",
        )
    system_name = scope.prefix + name
    scope.tensors[name] = Ref(system_name, scope.mapped if leading else (), target_indices(scope, indices), name)
    scope.builder.spans[system_name] = target.span


def target_indices(scope: Scope, indices: tuple[Any, ...]) -> tuple[str, ...]:
    """The system's names of the indices of a left side; each must exist and occur once."""
    found: list[str] = []
    for item in indices:
        name = item.name if isinstance(item, tree.NewIndex) else item
        if not isinstance(name, tree.Name):
            continue
        if name.plain not in scope.indices:
            clash = scope.kind_of(name.plain)
            if clash is not None:
                scatter = f"a scatter is a sum, `y[j] = sum[t | {name.plain} == j] x`" if clash == "tensor" else ""
                raise SeqError(
                    "name-clash", f"`{name.plain}` is {article(clash)}, not an index", name.span, help=scatter
                )
            raise SeqError(
                "unknown-index",
                f"`{name.plain}` is not an index of `{scope.owner}`",
                name.span,
                label="no size is known for it",
                help=f"give it a size where it is made, `{name.plain}: N`",
            )
        if scope.indices[name.plain] in found:
            raise SeqError(
                "repeated-index",
                f"the index `{name.plain}` stands twice on one left side",
                name.span,
                help=f"declare a second index of its axis, `index {name.plain}2 over {name.plain}`",
            )
        found.append(scope.indices[name.plain])
    return tuple(found)


def _declare_bare(scope: Scope, target: tree.Target, equation: tree.Equation) -> None:
    name = target.name.plain
    _check_tensor_name(scope, target.name)
    if name in scope.tensors or name in scope.pending:
        raise SeqError("duplicate-definition", f"`{name}` is defined twice", target.span, label="defined again here")
    scope.pending[name] = equation
    scope.builder.spans[scope.prefix + name] = target.span


def _check_tensor_name(scope: Scope, name: tree.Name) -> None:
    _refuse_reuse(scope, name.plain, name.span, as_what="tensor")
    if name.plain in FUNCTIONS or name.plain in RESERVED_SETTINGS:
        raise SeqError(
            "name-clash",
            f"`{name.plain}` is a function of the language, not a tensor",
            name.span,
            help="choose another name",
        )


def declare_options(scope: Scope, options: tuple[tree.Option, ...], given: dict[str, Node]) -> None:
    """Options in order; a default may read `|x|` of the header and earlier options."""
    for option in options:
        name = option.name.plain
        if name in scope.sizes or scope.kind_of(name) is not None:
            raise SeqError("name-clash", f"`{name}` is declared twice in the header", option.span)
        if name in given:
            scope.sizes[name] = given[name]
        elif option.default is not None:
            scope.sizes[name] = lower_default(scope, option.default, options)
            if any(n.op == "exact_div" for n in walk(scope.sizes[name])):
                scope.builder.checks.append(SizeCheck(f"{scope.owner}: {name}", scope.sizes[name], 1, option.span))


def lower_default(scope: Scope, default: tree.Expr, options: tuple[tree.Option, ...]) -> Node:
    """The default of an option; an option that stands behind it, and it itself, have no value yet."""
    try:
        return lower_size(scope, default)
    except SeqError as error:
        span = error.diagnostics[0].span
        if error.code != "unknown-size" or span is None or span.text not in {o.name.plain for o in options}:
            raise
        hint = "a default reads the options that stand before it"
        raise SeqError("unknown-size", f"`{span.text}` has no value here", span, help=hint) from None


def check_given(callee: tree.Mixer | tree.Fn | tree.Monoid, given: dict[str, Node], call: tree.Call) -> None:
    """Every option without a default has a value in the call."""
    for option in callee.options:
        if option.default is None and option.name.plain not in given:
            name = option.name.plain
            raise SeqError(
                "missing-option",
                f"`{callee.name.plain}` needs a value for `{name}`",
                call.span,
                label="not given here",
                help=f"write `{call.function.plain}(..; {name} = 4)`",
            )

"""Built-in operations: reductions, operations along axes, transforms, functions entry by entry, and their options."""

from __future__ import annotations

from fractions import Fraction

from seqdsl.diagnostics import SeqError, Span
from seqdsl.ir import build
from seqdsl.ir.node import Node, walk
from seqdsl.ir.ops import OPS, make
from seqdsl.semantics import expressions, parameters
from seqdsl.semantics.builtins import ALONG, ELEMENTWISE, GRADIENTS, RANDOM, REDUCTIONS, TRANSFORMS, VARIADIC
from seqdsl.semantics.scope import Place
from seqdsl.syntax import tree

MATRICES = ("solve", "qr")


def bound_indices(place: Place, items: tuple[tree.Expr | tree.NewIndex, ...]) -> tuple[str, ...]:
    """The system's names of the indices in the brackets of a binder."""
    found = []
    for item in items:
        name = item.name if isinstance(item, tree.NewIndex) else item
        if not isinstance(name, tree.Name) or name.plain not in place.scope.indices:
            if isinstance(name, tree.Name) and place.scope.kind_of(name.plain) is None:
                raise place.scope.unknown(name.plain, name.span, "index")
            kind = place.scope.kind_of(name.plain) if isinstance(name, tree.Name) else "position"
            raise SeqError(
                "not-an-index",
                f"`{name.span.text}` is a {kind}, not an index",
                name.span,
                help="before the guard stand indices only",
            )
        found.append(place.scope.indices[name.plain])
        if found.count(found[-1]) > 1:
            raise SeqError("repeated-index", f"`{name.plain}` stands twice in these brackets", name.span)
    return tuple(found)


def reduction(place: Place, op: str, brackets: tree.Brackets, body: tree.Expr, span: Span) -> Node:
    if brackets.made is not None:
        raise SeqError("unexpected-arrow", f"`{op}` makes no axes", brackets.span, help="remove the arrow")
    indices = bound_indices(place, brackets.items)
    inner = place.inside(indices, summed=op in ("sum", "mean"))
    guard = build.TRUE if brackets.guard is None else expressions.lower(place.inside(indices), brackets.guard)
    node = bound_body(inner, op, brackets.items, indices, body, guard)
    return make(op, node, guard, attr=(indices, ()))


def bound_body(
    place: Place,
    op: str,
    items: tuple[tree.Expr | tree.NewIndex, ...],
    indices: tuple[str, ...],
    body: tree.Expr,
    guard: Node = build.TRUE,
) -> Node:
    """The body of a reduction over `indices`, all of which it or the guard has (rule 4). One that it lacks is the fault where
    the body strays, too: the index that strays was meant, most often."""
    stray: SeqError | None = None
    try:
        node = expressions.lower(place, body)
    except SeqError as error:
        if error.code != "stray-index":
            raise
        stray = error
        try:
            node = expressions.lower(place.inside(place.scope.indices.values()), body)
        except SeqError:
            raise error from None
    for name, item in zip(indices, items, strict=True):
        if name not in node.free | guard.free:
            local = expressions.local_name(place.scope, name)
            meant = " or ".join(f"`{expressions.local_name(place.scope, i)}`" for i in sorted(node.free - place.visible))
            alone = "the body alone is its own mean" if op == "mean" else f"for a multiple write `|{local}| * ..`"
            raise SeqError(
                "unused-reduction-index",
                f"`{local}` occurs neither in the body nor in the guard",
                item.span,
                label=f"`{op}` over `{local}`",
                help=f"did you mean {meant}?" if meant else "" if op == "linear" else alone,
            )
    if stray is not None:
        raise stray
    return node


def one_argument(expr: tree.Call) -> None:
    if len(expr.args) != 1:
        raise SeqError(
            "wrong-number-of-arguments", f"`{expr.function.plain}` takes one argument, not {len(expr.args)}", expr.span
        )


def elementwise(place: Place, expr: tree.Call, name: str) -> Node:
    if name in RANDOM:
        return parameters.random_draw(place, expr, name)
    if name in REDUCTIONS | ALONG | TRANSFORMS and name not in VARIADIC:
        raise SeqError(
            "missing-indices",
            f"`{name}` needs the indices that it works along",
            expr.function.span,
            help=f"write `{name}[s](..)`",
        )
    if name not in ELEMENTWISE and name not in VARIADIC:
        raise place.scope.unknown(name, expr.function.span, "function")
    wanted = None if name in VARIADIC else OPS[ELEMENTWISE[name]].arity
    if len(expr.args) < 2 if wanted is None else len(expr.args) != wanted:
        expected = "two arguments or more" if wanted is None else f"{wanted} argument{'s' if wanted != 1 else ''}"
        raise SeqError(
            "wrong-number-of-arguments",
            f"`{name}` takes {expected}, not {len(expr.args)}",
            expr.span,
            help=f"along an axis write `{name}[s](..)`" if wanted is None else "",
        )
    attr = options(place, expr, ELEMENTWISE.get(name, name))
    expressions.few_operands(expr.args, expr.span)
    args = [expressions.lower(place, a) for a in expr.args]
    if name in VARIADIC:
        result = args[0]
        for arg in args[1:]:
            result = make(VARIADIC[name], result, arg)
        return result
    if name == "where":
        return build.where(*args)
    return make(ELEMENTWISE[name], *args, attr=attr)


def options(place: Place, expr: tree.Call, op: str) -> tuple[tuple[str, object], ...]:
    """The settings of a built-in call, checked against the operator's row."""
    known = dict(OPS[op].options) if op in OPS else {}
    found: list[tuple[str, object]] = []
    for setting in expr.settings:
        name = setting.name.plain
        if name not in known:
            listed = ", ".join(f"`{k}`" for k in known) or "none"
            raise SeqError(
                "unknown-option",
                f"`{expr.function.plain}` has no option `{name}`",
                setting.span,
                help=f"its options: {listed}",
            )
        if name == "grad":
            if not isinstance(setting.value, tree.Name) or setting.value.plain not in GRADIENTS:
                raise SeqError("unknown-option", "`grad` is one of identity, clamp, atan, zero", setting.value.span)
            found.append((name, setting.value.plain))
            continue
        value = build.value_of(expressions.lower(place, setting.value))
        if value is None:
            raise SeqError(
                "option-not-constant",
                f"`{name}` of `{expr.function.plain}` is a number, the same at every point",
                setting.value.span,
                label="no number",
                help="multiply by a tensor outside the call instead",
            )
        found.append((name, Fraction(value)))
    return tuple(sorted(found))


def along(place: Place, expr: tree.Call, name: str) -> Node:
    brackets = expr.brackets
    assert brackets is not None
    attr = options(place, expr, name)
    consumed = bound_indices(place, brackets.items)
    made = consumed if brackets.made is None else bound_indices(place, brackets.made)
    if name in ALONG and brackets.made is not None:
        raise SeqError("unexpected-arrow", f"`{name}` keeps its axes", brackets.span, help="remove the arrow")
    if len(expr.args) != (2 if name == "solve" else 1):
        raise SeqError(
            "wrong-number-of-arguments",
            f"`{name}` takes {2 if name == 'solve' else 1} arguments, not {len(expr.args)}",
            expr.span,
        )
    if name in MATRICES and made == consumed:
        raise _without_arrow(place, expr, name, consumed)
    expressions.visible(place, made, brackets.span, "the result varies along it")
    inner = place.inside((*consumed, *made))
    guard = build.TRUE if brackets.guard is None else expressions.lower(inner, brackets.guard)
    args = [expressions.lower(inner, a) for a in expr.args]
    for index, item in zip(consumed, brackets.items, strict=True):
        if not any(index in a.free for a in (*args, guard)):
            local = expressions.local_name(place.scope, index)
            raise SeqError(
                "unused-reduction-index",
                f"`{local}` occurs neither in the body nor in the guard",
                item.span,
                label=f"`{name}` along `{local}`",
                help=_other_index(place, index, args),
            )
    if name in ALONG:
        return make(name, args[0], guard, attr=(consumed, attr))
    if brackets.guard is not None:
        raise SeqError(
            "unexpected-guard",
            f"`{name}` takes no guard",
            brackets.guard.span,
            help=f"mask the operand, `{name}[..](where({brackets.guard.span.text}, .., 0))`",
        )
    _check_transform(place, expr, name, consumed, made, args)
    if name == "qr":  # A[d, f] has rows d and columns f; so has Q
        made = (*consumed, *made)
    return make(name, *args, attr=(consumed, made, attr))


def _without_arrow(place: Place, expr: tree.Call, name: str, consumed: tuple[str, ...]) -> SeqError:
    """Of a matrix one index is named; the help says the other one, where there is one candidate."""
    assert expr.brackets is not None
    everywhere = place.inside(tuple(place.scope.indices.values()))
    matrix, *others = (expressions.lower(everywhere, a).free for a in expr.args)
    names = [expressions.local_name(place.scope, i) for i in matrix.difference(consumed, *others)]
    given, text = expr.brackets.items[0].span.text, ", ".join(a.span.text for a in expr.args)
    right = f"write `{name}[{given} -> {names[0]}]({text})`" if len(names) == 1 and "\n" not in text else ""
    return SeqError(
        "matrix-without-arrow",
        f"`{name}[{given}]` names one index of its matrix, which has two",
        expr.brackets.span,
        label="no arrow",
        help=right or f"name both, as in `{name}[{given} -> f](..)` of `A[..,{given},f]`",
    )


def _other_index(place: Place, index: str, args: list[Node]) -> str:
    """What to write where a second index of the axis was meant (rule 5)."""
    for read in (n for a in args for n in walk(a) if n.op == "read"):
        for own in read.free:
            if place.scope.is_second_of(own, index):
                local, name = (expressions.local_name(place.scope, i) for i in (index, own))
                return f"what is read at `{name}` may be meant at `{local}`, as in `k[{local}]`"
    return ""


def _check_transform(
    place: Place, expr: tree.Call, name: str, consumed: tuple[str, ...], made: tuple[str, ...], args: list[Node]
) -> None:
    """A transform takes one axis to one axis, which its operand lacks; only a matrix has both."""
    if len(consumed) > 1 or len(made) > 1:
        raise SeqError(
            "too-many-indices",
            f"`{name}` works along one index, not {max(len(consumed), len(made))}",
            expr.function.span.to(expr.brackets.span if expr.brackets is not None else expr.span),
            help=f"nest two of them, `{name}[i]({name}[j](..))`" if len(args) == 1 else "",
        )
    if made != consumed and made[0] in (args[1] if name == "solve" else args[0]).free and name != "qr":
        local = expressions.local_name(place.scope, made[0])
        raise SeqError(
            "made-and-mapped",
            f"`{name}` makes `{local}`, and its operand varies along `{local}` already",
            expr.args[-1].span,
            help="make a second index of that axis, or read the operand at one place",
        )
    if name in MATRICES and made[0] not in args[0].free:
        local = expressions.local_name(place.scope, made[0])
        raise SeqError(
            "unused-reduction-index",
            f"`{local}` does not occur in the matrix",
            expr.args[0].span,
            help=f"the matrix of `{name}` has both indices of the arrow",
        )

"""`grad[W](loss(W[t-1], k, v))` (rule 27): the call is lowered, and its equations differentiated by the formal `W`."""

from __future__ import annotations

from seqdsl.diagnostics import SeqError
from seqdsl.ir.differentiate import GradientOfRecurrence, NotDifferentiable, gradient_equations
from seqdsl.ir.node import Node
from seqdsl.semantics import calls
from seqdsl.semantics.scope import Place, Ref
from seqdsl.syntax import tree


def gradient(place: Place, call: tree.Call) -> Node:
    """`grad[W](loss(W[t-1], k, v))`: the derivative of a scalar call by one of its formal parameters (rule 27)."""
    if call.brackets is None or len(call.brackets.items) != 1 or len(call.args) != 1:
        raise SeqError("bad-gradient", "a gradient is written `grad[W](f(W, ..))`", call.span)
    wanted, inner_call = call.brackets.items[0], call.args[0]
    declared = (
        place.scope.file.declarations.get(inner_call.function.plain) if isinstance(inner_call, tree.Call) else None
    )
    if (
        not isinstance(wanted, tree.Name)
        or not isinstance(inner_call, tree.Call)
        or declared is None
        or isinstance(declared[1], tree.Monoid)
    ):
        raise SeqError(
            "bad-gradient",
            "`grad[W]` is applied to the call of a `fn` or mixer",
            call.span,
            help="give the loss a name, `fn loss(W[d,e], k[d], v[e]) = ..`, and take `grad[W](loss(W[t-1], k, v))`",
        )
    callee = declared[1]
    if wanted.plain not in {p.name.plain for p in callee.params}:
        raise SeqError(
            "bad-gradient",
            f"`{callee.name.plain}` has no parameter `{wanted.plain}`",
            wanted.span,
            help="the name in brackets is the formal parameter's",
        )
    before = set(place.scope.builder.tensors)
    label = place.scope.prefix + place.scope.upcoming(place.target)
    ref = calls.inline(place, inner_call, declared[0], callee)[0]  # its name is that of a call inside, where it is one
    if ref.indices:
        raise SeqError(
            "gradient-of-tensor",
            f"`{callee.name.plain}` varies along "
            + " and ".join(f"`{i.removeprefix(label + '.')}`" for i in ref.indices)
            + ", and a gradient needs a scalar",
            inner_call.span,
            help="sum it in the function",
        )
    return _gradient_read(place, call, ref, f"{label}.{wanted.plain}", before)


def _gradient_read(place: Place, call: tree.Call, ref: Ref, formal: str, before: set[str]) -> Node:
    builder = place.scope.builder
    region = [t for n, t in builder.tensors.items() if n not in before and t.kind == "derived" and n != formal]
    target = builder.tensors[formal]
    try:
        equations, result = gradient_equations(builder.axis, builder.indices, region, ref.name, target, ref.mapped)
    except GradientOfRecurrence as cycle:
        raise SeqError(
            "gradient-of-recurrence",
            f"`grad` goes through the recurrence of `{cycle}`",
            call.span,
            help="differentiate a function without a recurrence of its own",
        ) from None
    except NotDifferentiable as reason:
        raise SeqError("bad-gradient", f"`grad` cannot be written out: {reason}", call.span) from None
    for equation in equations:
        builder.tensors[equation.name] = equation
        builder.spans.setdefault(equation.name, call.span)
    stray = [i for i in result.free if i not in place.visible]
    if stray:
        raise SeqError(
            "stray-index",
            f"the gradient varies along {', '.join(f'`{i}`' for i in stray)}, the left side does not",
            call.span,
            help="a gradient has the indices of the parameter it is taken by",
        )
    return result

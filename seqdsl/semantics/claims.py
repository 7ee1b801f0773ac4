"""Claims (rule 35): from the text to `ir.system.Claim` values whose names are all known to exist."""

from __future__ import annotations

from dataclasses import replace

from seqdsl.diagnostics import SeqError, did_you_mean
from seqdsl.ir.node import Node
from seqdsl.ir.system import Claim, Tensor
from seqdsl.semantics import equations, expressions
from seqdsl.semantics.declare import article
from seqdsl.semantics.scope import Scope
from seqdsl.syntax import tree

# name -> (kinds of the arguments; "index*" any number of indices; "?" optional), all that may be claimed by a call
FORMS: dict[str, tuple[str, ...]] = {
    "causal": ("index?",),
    "stable": ("tensor",),
    "linear": ("tensor",),
    "permutation": ("index",),
    "shift": ("index", "size?"),
    "rows_sum_to_one": ("tensor", "index", "index*"),
    "doubly_stochastic": ("tensor", "index", "index"),
    "associative": (),
    "commutative": (),
}
EXAMPLES = {
    "stable": "stable(S)",
    "linear": "linear(x)",
    "permutation": "permutation(n)",
    "shift": "shift(i)",
    "rows_sum_to_one": "rows_sum_to_one(p, s)",
    "doubly_stochastic": "doubly_stochastic(p, t, s)",
}
LAWS = ("associative", "commutative")  # of a monoid


def lower_claims(scope: Scope, statement: tree.ClaimDecl, stream: str | None) -> list[Claim]:
    """The assertions of one line, each under the line's condition."""
    condition = None
    if statement.condition is not None:
        place = equations.place_of(scope, "claim", tuple(scope.indices.values()))
        condition = expressions.lower(place, statement.condition)
    return [replace(_assertion(scope, a, stream), condition=condition) for a in statement.assertions]


def _assertion(scope: Scope, expr: tree.Expr, stream: str | None) -> Claim:
    text = " ".join(expr.span.text.split())
    if isinstance(expr, tree.Compare):
        return _comparison(scope, expr, text)
    name = expr.plain if isinstance(expr, tree.Name) else expr.function.plain if isinstance(expr, tree.Call) else ""
    if name not in FORMS or (isinstance(expr, tree.Call) and (expr.brackets or expr.settings)):
        hint = did_you_mean(name, FORMS, f"claims: {', '.join(FORMS)}, and comparisons")
        if isinstance(expr, tree.Binary) and expr.op == "and":
            hint = f"write `{expr.left.span.text}, {expr.right.span.text}`"
        raise SeqError("unknown-claim", f"`{text}` is no claim", expr.span, help=hint)
    if name in LAWS:
        raise SeqError("unknown-claim", f"`{name}` is claimed of a monoid, inside it", expr.span,
                       help=f"move `claim {name}` below its `combine`")
    args = expr.args if isinstance(expr, tree.Call) else ()
    names, nodes = _arguments(scope, name, args, expr, stream)
    return Claim(name, names, text, nodes=nodes, span=expr.span)


def _arguments(
    scope: Scope, name: str, args: tuple[tree.Expr, ...], expr: tree.Expr, stream: str | None
) -> tuple[tuple[str, ...], tuple[Node, ...]]:
    forms = list(FORMS[name])
    found: list[str] = []
    nodes: list[Node] = []
    for position, arg in enumerate(args):
        form = forms[min(position, len(forms) - 1)] if forms else ""
        if position >= len(forms) and not form.endswith("*"):
            raise SeqError(
                "wrong-number-of-arguments",
                f"`{name}` takes {expressions.counted(len(forms), 'argument')}, not {len(args)}",
                expr.span,
            )
        kind = form.rstrip("?*")
        if kind == "size":
            nodes.append(_size(scope, arg))
        elif not isinstance(arg, tree.Name) or scope.kind_of(arg.plain) != kind:
            what = (
                f", and `{arg.plain}` is {article(found_kind)}"
                if isinstance(arg, tree.Name) and (found_kind := scope.kind_of(arg.plain))
                else f", and there is no `{arg.plain}`"
                if isinstance(arg, tree.Name)
                else ""
            )
            known = scope.indices if kind == "index" else {**scope.tensors, **scope.pending}
            listed = ", ".join(f"`{n}`" for n in known if not n.startswith("claim"))
            hint = did_you_mean(arg.span.text, known, f"there are {listed}" if listed else "")
            raise SeqError("claim-argument", f"`{name}` takes {article(kind)} here{what}", arg.span, help=hint)
        elif kind == "index":
            found.append(scope.indices[arg.plain])
        else:
            found.append(equations.resolve(scope, arg.plain, arg.span).name)
    if len(args) < sum(not f.endswith(("?", "*")) for f in forms):
        raise SeqError(
            "wrong-number-of-arguments", f"`{name}` is of {_listed(forms)}", expr.span, help=f"write `{EXAMPLES[name]}`"
        )
    if name == "causal" and not found:
        if stream is None:
            raise SeqError("claim-argument", "`causal` needs a streamed axis, and the first input has none", expr.span)
        found.append(stream)
    return tuple(found), tuple(nodes)


def lower_laws(declared: tree.Monoid, name: str) -> tuple[Claim, ...]:
    """What is claimed of a monoid, inside it: laws of `combine`, for all elements."""
    found = []
    for statement in declared.claims:
        if statement.condition is not None:
            raise SeqError("claim-argument", "a monoid's laws hold for all elements, and take no `when`",
                           statement.condition.span, help="leave the condition out")
        for expr in statement.assertions:
            law = expr.span.text
            if law not in LAWS:
                raise SeqError("unknown-claim", f"`{' '.join(law.split())}` is no claim of a monoid", expr.span,
                               help=did_you_mean(law, LAWS, "a monoid claims `associative` or `commutative`; the others "
                                                            "stand in a mixer"))
            found.append(Claim(law, (name,), law, span=expr.span))
    return tuple(found)


def _listed(forms: list[str]) -> str:
    """What a claim is about: a tensor and an index."""
    return " and ".join(article(form.rstrip("?*")) for form in forms if not form.endswith("*"))


def _size(scope: Scope, arg: tree.Expr) -> Node:
    from seqdsl.semantics.sizes import lower_size

    return lower_size(scope, arg)


def _comparison(scope: Scope, expr: tree.Compare, text: str) -> Claim:
    left = expr.args[0]
    if isinstance(left, tree.Call) and left.function.plain == "cost":
        if expr.ops != ("<=",) or len(left.args) != 1 or not isinstance(left.args[0], tree.Name):
            raise SeqError("claim-argument", "a cost claim is written `cost(o) <= |t| * |d|`", expr.span,
                           help="a cost is claimed to grow no faster than a bound: only `<=` is checked")
        ref = equations.resolve(scope, left.args[0].plain, left.args[0].span)
        return Claim("cost", (ref.name,), text, nodes=(_size(scope, expr.args[1]),), span=expr.span)
    if expr.ops != ("==",):
        raise SeqError("unknown-claim", f"`{text}` is no claim", expr.span, help="compare two tensors with `==`")
    return Claim("equal", (), text, span=expr.span)


def lower_equality(scope: Scope, expr: tree.Compare) -> tuple[str, str]:
    """Both sides of an `==` as tensors "left" and "right" over the same indices, in a system of their own."""
    indices = _indices_of(scope, expr.args[0])
    if indices is None:
        indices = _indices_of(scope, expr.args[1])
    if indices is None:
        raise SeqError(
            "claim-argument", "one side of an equality is a tensor, whose indices both sides have", expr.span
        )
    names = []
    for side, value in zip(("left", "right"), expr.args, strict=True):
        place = equations.place_of(scope, f"claim_{side}", indices)
        node = expressions.lower(place, value)
        name = f"claim.{side}"
        scope.builder.tensors[name] = Tensor(name, indices, expressions.PLACEHOLDER, "derived", node)
        scope.builder.spans[name] = value.span
        names.append(name)
    return names[0], names[1]


def _indices_of(scope: Scope, expr: tree.Expr) -> tuple[str, ...] | None:
    if isinstance(expr, tree.Name) and scope.kind_of(expr.plain) == "tensor":
        return equations.resolve(scope, expr.plain, expr.span).indices
    return None

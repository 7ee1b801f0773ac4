"""Parameters, constants and `linear` (rules 29 and 30)."""

from __future__ import annotations

from seqdsl.diagnostics import SeqError
from seqdsl.ir import build
from seqdsl.ir.graphs import cycle, in_order
from seqdsl.ir.node import Node, reads
from seqdsl.ir.ops import make
from seqdsl.ir.system import Tensor
from seqdsl.semantics import expressions, operators
from seqdsl.semantics.builtins import RANDOM
from seqdsl.semantics.scope import Builder, Place, Ref, Scope
from seqdsl.syntax import tree

_FLAT = 16  # values of a tuple that are written as one chain
TYPES = {None: "real", "real": "real", "int": "int", "bool": "bool", "complex": "complex"}


def lower_param(scope: Scope, statement: tree.ParamDecl) -> None:
    """`param w[j: W, c] = expr`; inside a call with `per`, one for each position of that index."""
    ref = scope.tensors[statement.target.name.plain]
    if statement.type in ("int", "bool"):
        raise SeqError(
            "wrong-type",
            f"a param is trained, so it is real or complex, not {statement.type}",
            statement.span,
            help=f"make `{ref.local}` a `const`, or an input",
        )
    place = Place(scope, ref.local, ref.indices, frozenset(ref.indices), in_param=True)
    value = None if statement.value is None else _initial(place, ref, statement.value)
    _add_parameter(scope, ref, TYPES[statement.type], "param", value, (ref.local,))


def lower_const(scope: Scope, statement: tree.ConstDecl) -> None:
    """`const`: like a parameter, not trained; a tuple lists the values along one index."""
    ref = scope.tensors[statement.target.name.plain]
    place = Place(scope, ref.local, ref.indices, frozenset(ref.indices), in_param=True)
    node = _initial(place, ref, statement.value)
    dtype = "complex" if node.dtype == "complex" else "real"
    _add_parameter(scope, ref, dtype, "const", node, (ref.local,))


def _initial(place: Place, ref: Ref, value: tree.Expr) -> Node:
    """An expression, or a tuple that lists the values along one index."""
    if not isinstance(value, tree.Tuple):
        return expressions.lower(place, value)
    if len(ref.indices) != 1:
        raise SeqError(
            "bad-constant",
            f"a tuple lists the values along one index, and `{ref.local}` has {len(ref.indices)}",
            value.span,
        )
    size = place.scope.builder.indices[ref.indices[0]].size
    stated = None if size is None else build.value_of(size)
    if stated is not None and stated != len(value.items):
        raise SeqError(
            "bad-constant", f"{expressions.counted(len(value.items), 'value')} along an axis of {stated}", value.span
        )
    return _choice(build.index(ref.indices[0]), [expressions.lower(place, v) for v in value.items], 0)


def _choice(position: Node, values: list[Node], first: int) -> Node:
    """The value for each position from `first` on, 0 elsewhere; many values are halved, so that the term stays flat."""
    if len(values) > _FLAT:
        half = len(values) // 2
        return build.where(
            make("lt", position, build.const(first + half)),
            _choice(position, values[:half], first),
            _choice(position, values[half:], first + half),
        )
    node = build.ZERO
    for k in reversed(range(len(values))):
        node = build.where(make("eq", position, build.const(first + k)), values[k], node)
    return node


def _add_parameter(
    scope: Scope,
    ref: Ref,
    dtype: str,
    kind: str,
    value: Node | None,
    path: tuple[str, ...],
    fan_in: tuple[str, ...] = (),
) -> Ref:
    """Register it, with a leading index for each enclosing `per`, and remember how the scope reads it."""
    per = tuple(p[1:-1] for p in scope.path if p.startswith("<"))
    where = (*scope.path, *path)
    name = scope.prefix + path[0]
    if name in scope.builder.tensors:
        name = build.fresh(name, scope.builder.tensors)
    scope.builder.tensors[name] = Tensor(
        name, (*per, *ref.indices), dtype, kind, value, path=_joined(where), fan_in=fan_in
    )
    made = Ref(name, per, ref.indices, ref.local)
    scope.tensors[ref.local] = made
    return made


def _joined(parts: tuple[str, ...]) -> tuple[str, ...]:
    """Plain parts joined by dots, index markers apart: ("x", "<l>", "q.weight")."""
    joined: list[str] = []
    for part in parts:
        if part.startswith("<") or not joined or joined[-1].startswith("<"):
            joined.append(part)
        else:
            joined[-1] += "." + part
    return tuple(joined)


def linear(place: Place, call: tree.Call) -> Node:
    """`linear[c -> h, d](x; bias = true, per = l)`: a sum with a weight of its own (rule 30)."""
    scope = place.scope
    if call.brackets is None or len(call.args) != 1:
        raise SeqError("bad-linear", "a linear is written `linear[c](x)`", call.span)
    if scope.builder.monoid:
        raise SeqError(
            "fold-in-monoid",
            f"`linear` inside the monoid `{scope.builder.monoid}`",
            call.span,
            help="give the monoid a `param` and write the sum",
        )
    if call.brackets.guard is not None:
        raise SeqError("unexpected-guard", "`linear` takes no guard", call.brackets.guard.span)
    name = scope.count(place.target)
    consumed = operators.bound_indices(place, call.brackets.items)
    bias, per = _linear_settings(place, call)
    nested = place.inside(consumed)
    if call.brackets.made is None:
        body = operators.bound_body(nested, "linear", call.brackets.items, consumed, call.args[0])
        made = tuple(i for i in place.left if i not in body.free and i not in per and i not in consumed)
        again = [i for i in consumed if i in place.left]
        if again:
            local = expressions.local_name(scope, again[0])
            raise SeqError(
                "ambiguous-linear",
                f"`linear` consumes `{local}`, which the left side has too",
                call.span,
                label="which axes does it make?",
                help=f"say it with an arrow, `linear[{local} -> {local}](..)`",
            )
    else:
        made = operators.bound_indices(place, call.brackets.made)
        for index in made:
            if index not in place.visible:
                expressions.visible(place, (index,), call.brackets.span, "it makes this axis")
        body = operators.bound_body(nested, "linear", call.brackets.items, consumed, call.args[0])
    return _weighted(place, name, body, consumed, made, per, bias=bias)


def _linear_settings(place: Place, call: tree.Call) -> tuple[bool, tuple[str, ...]]:
    bias, per = False, tuple[str, ...]()
    for setting in call.settings:
        name, value = setting.name.plain, setting.value
        if name == "bias" and isinstance(value, tree.Name) and value.plain in ("true", "false"):
            bias = value.plain == "true"
        elif name == "per" and isinstance(value, tree.Name) and value.plain in place.scope.indices:
            per = (place.scope.indices[value.plain],)
        elif name in ("bias", "per"):
            raise SeqError(
                "unknown-option",
                "`bias` is true or false, `per` an index",
                value.span,
                help=f"write `{name} = {'true' if name == 'bias' else 'l'}`",
            )
        else:
            raise SeqError(
                "unknown-option", f"`linear` has no option `{name}`", setting.span, help="its options: `bias`, `per`"
            )
    return bias, per


def _weighted(
    place: Place,
    name: str,
    body: Node,
    consumed: tuple[str, ...],
    made: tuple[str, ...],
    per: tuple[str, ...],
    *,
    bias: bool,
) -> Node:
    scope = place.scope
    renames = {i: build.fresh(i, {*made, *per, *body.free - {i}}) for i in consumed}
    contracted = tuple(renames.values())
    body = build.substitute(body, {i: build.index(n) for i, n in renames.items()})
    weight = _add_parameter(
        scope,
        Ref("", (), (*per, *contracted, *made), f"{name}.weight"),
        "real",
        "param",
        None,
        (f"{name}.weight",),
        contracted,
    )
    product = build.mul(body, expressions.read_ref(weight, [build.index(i) for i in weight.indices]))
    result = build.reduce("sum", contracted, product)
    if bias:
        offset = _add_parameter(
            scope, Ref("", (), (*per, *made), f"{name}.bias"), "real", "param", None, (f"{name}.bias",), contracted
        )
        result = build.add(result, expressions.read_ref(offset, [build.index(i) for i in offset.indices]))
    return result


def random_draw(place: Place, call: tree.Call, name: str) -> Node:
    """`normal(m, s)`, `uniform(a, b)`, `orthogonal()`: only where a parameter is initialised."""
    if not place.in_param:
        raise SeqError(
            "random-outside-parameter",
            f"`{name}` draws at build, and stands only in `param`",
            call.span,
            help="a random draw at run time is an input",
        )
    if len(call.args) != RANDOM[name]:
        raise SeqError(
            "wrong-number-of-arguments", f"`{name}` takes {RANDOM[name]} arguments, not {len(call.args)}", call.span
        )
    args = [expressions.lower(place, a) for a in call.args]
    values = [build.value_of(a) for a in args]
    if name == "orthogonal" and not place.left:
        raise SeqError(
            "missing-indices", f"`orthogonal` draws a matrix, and `{place.target}` is a scalar", call.span,
            help="write `normal(0, 1)`",
        )  # fmt: skip
    low, high = values if len(values) == 2 else (None, None)
    if name == "normal" and high is not None and high < 0:
        raise SeqError("bad-draw", "a standard deviation is not negative", call.args[1].span)
    if name == "uniform" and low is not None and high is not None and low > high:
        raise SeqError(
            "bad-draw", f"`uniform` draws from {low} to {high}, which holds nothing", call.span,
            help="write the lower end first",
        )  # fmt: skip
    return make(name, *args)


def order_parameters(builder: Builder) -> None:
    """Initialisers are evaluated at build: from parameters alone, and each after those that it reads."""
    names = {n: k for k, (n, t) in enumerate(builder.tensors.items()) if t.kind in ("param", "const")}
    users: dict[str, list[str]] = {name: [] for name in names}
    for name in names:
        rhs = builder.tensors[name].rhs
        for read in reads(rhs) if rhs is not None else ():
            if read.attr not in names:
                span = builder.spans.get((name, read)) or builder.spans.get(name)
                raise SeqError(
                    "input-in-parameter",
                    f"`{name}` is made when the module is built, and `{read.attr}` is known in a call",
                    span,
                    help="multiply by it where the parameter is used",
                )
            users[str(read.attr)].append(name)
    if circle := cycle(users):
        shown = " -> ".join(f"`{name}`" for name in circle)
        raise SeqError(
            "not-well-founded",
            f"{shown} depends on itself, and a parameter has no recurrences",
            builder.spans.get(circle[0]),
            help="an initialiser is a function of indices, sizes and other parameters",
        )
    ordered = in_order(users, names.__getitem__)
    if ordered != list(names):
        rest = {n: t for n, t in builder.tensors.items() if n not in names}
        tensors = {**{n: builder.tensors[n] for n in ordered}, **rest}
        builder.tensors.clear()
        builder.tensors.update(tensors)

"""Types inside a declared monoid: its elements have the types that one use lifts into them (rule 34).

Every use has a monoid of its own (`folds`), so its nodes are typed like a tensor's, once what it lifts is known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from seqdsl.ir import build
from seqdsl.ir.node import Node, walk
from seqdsl.ir.ops import OPS, make, remake
from seqdsl.ir.system import Monoid, Tensor

ORDER = ("bool", "int", "real", "complex")


def dtype_of(node: Node, dtypes: Mapping[str, str], folds: Mapping[str, str] | None = None) -> str:
    """The dtype of a node when each tensor has the dtype given, and each monoid's fold; others are real."""
    done: dict[Node, str] = {}
    for current in walk(node):
        if current.op == "read":
            done[current] = dtypes.get(str(current.attr), "real")
        elif current.op == "fold":
            done[current] = (folds or {}).get(str(current.attr[0]), current.dtype)
        elif not current.args:
            done[current] = current.dtype
        else:
            found = OPS[current.op].dtype(*(done[a] for a in current.args))
            done[current] = _join(found, "real") if _is_real_power(current) else found
    return done[node]


def _is_real_power(node: Node) -> bool:
    """Is it a power that is real even of whole numbers, as its exponent is not written as a natural number (rule 31)?"""
    exponent = build.value_of(node.args[1]) if node.op == "pow" else 0
    return not isinstance(exponent, int) or exponent < 0


def retype(node: Node, dtypes: Mapping[str, str], folds: Mapping[str, str] | None = None) -> dict[Node, Node]:
    """Every node below, with reads and folds typed: old node -> new node."""
    done: dict[Node, Node] = {}
    for current in walk(node):
        args = tuple(done[a] for a in current.args)
        if current.op == "read":
            done[current] = make("read", *args, attr=current.attr, dtype=dtypes.get(str(current.attr), "real"))
        elif current.op == "fold":
            dtype = (folds or {}).get(str(current.attr[0]), current.dtype)
            done[current] = make("fold", *args, attr=current.attr, dtype=dtype)
        else:
            args = (build.at_least_real(args[0]), *args[1:]) if _is_real_power(current) else args
            done[current] = current if args == current.args else remake(current, args)
    return done


@dataclass(frozen=True)
class Elements:
    """The dtypes of the fields, of what each part of a monoid reads, by name, and of what a fold gives."""

    fields: Mapping[str, str]
    lift: Mapping[str, str]
    combine: Mapping[str, str]
    project: Mapping[str, str]
    output: str


def elements(monoid: Monoid, given: tuple[str, ...], dtypes: Mapping[str, str]) -> Elements:
    """The least types that hold what is lifted, the identity, and every combination of them."""
    lift = {**dtypes, **{name: d for (name, _), d in zip(monoid.lift_params, given, strict=True)}}
    fields = {name: dtype_of(node, lift) for (name, _), node in zip(monoid.fields, monoid.lift, strict=True)}
    for (name, _), node in zip(monoid.fields, monoid.identity or (), strict=False):
        fields[name] = _join(fields[name], dtype_of(node, dtypes))
    while True:
        combine = _equations(monoid.combine, {**dtypes, **{f"{s}.{n}": d for s in "ab" for n, d in fields.items()}})
        risen = {name: _join(d, combine[name]) for name, d in fields.items()}
        if risen == fields:
            break
        fields = risen
    project = _equations(monoid.project, {**dtypes, **fields})
    return Elements(fields, lift, combine, project, project[monoid.output])


def _equations(equations: tuple[Tensor, ...], known: Mapping[str, str]) -> dict[str, str]:
    found = dict(known)
    for equation in equations:
        assert equation.rhs is not None
        found[equation.name] = dtype_of(equation.rhs, found)
    return found


def _join(*dtypes: str) -> str:
    return max(dtypes, key=ORDER.index)


def typed_equations(monoid: Monoid, types: Elements) -> Iterator[tuple[Tensor, dict[str, Tensor], dict[Node, Node]]]:
    """Each expression as a tensor of its own, the pseudo-tensors it may read, and its old nodes by their typed ones."""
    pseudo = dict(monoid.fields) | {f"{side}.{n}": i for side in "ab" for n, i in monoid.fields}
    pseudo |= {t.name: t.indices for t in (*monoid.combine, *monoid.project)} | dict(monoid.lift_params)
    lift = [Tensor(n, i, "real", "derived", e) for (n, i), e in zip(monoid.fields, monoid.lift, strict=True)]
    for equations, dtypes in ((lift, types.lift), (monoid.combine, types.combine), (monoid.project, types.project)):
        reads = {name: Tensor(name, indices, dtypes.get(name, "real"), "input") for name, indices in pseudo.items()}
        for equation in equations:
            assert equation.rhs is not None
            done = retype(equation.rhs, dtypes)
            typed = replace(equation, rhs=done[equation.rhs], dtype=dtypes.get(equation.name, equation.dtype))
            yield typed, reads, {new: old for old, new in done.items()}

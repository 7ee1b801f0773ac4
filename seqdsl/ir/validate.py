"""Is a system well formed? Run after every pass in the tests: what it refuses is a bug of the pass, never of a user.

It checks what every pass relies on: each name used is declared and is used as what it is, types follow from the table
of operators, and an equation varies only along its own indices. It does not check that the equations can be ordered
(`schedule` does) or that sizes work out (`sizes.bind` does).

Architecture invariant: knows nothing of the pass that made the system. Entry point: `validate`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fractions import Fraction
from typing import Any, NoReturn

from seqdsl.config import VALIDATE
from seqdsl.ir.node import Node, walk
from seqdsl.ir.ops import OPS, bound, made
from seqdsl.ir.system import Claim, Monoid, System, Tensor

_ORDER = ("bool", "int", "real", "complex")
_KINDS = ("input", "param", "const", "derived", "carry")
_SIZE_OPS = frozenset("const size option add sub mul neg div exact_div floor_div mod pow ceil floor maximum minimum bit_length"
                      .split())
_RANDOM = frozenset(("normal", "uniform", "orthogonal"))
_CONSTANTS = {"bool": (bool,), "int": (int,), "real": (int, Fraction, str), "complex": (int, Fraction, str)}
_ANY = ""  # stands for whatever type a monoid meets

Shapes = Mapping[str, tuple[int, str]]  # tensor -> number of its indices, dtype


class InvalidSystem(Exception):
    """The system is not well formed; the message names the place and what is wrong with it."""


def validate(system: System) -> None:
    """Raise `InvalidSystem` at the first fault."""
    _check_names(system)
    shapes = {t.name: (len(t.indices), t.dtype) for t in system.tensors.values()}
    for tensor in system.tensors.values():
        _check_tensor(system, tensor, shapes)
    _check_ends(system)
    for monoid in system.monoids.values():
        _check_monoid(system, monoid, shapes)
    for claim in system.claims:
        _check_claim(system, claim, shapes)


def checked(system: System, after: str) -> System:
    """The system itself; with SEQDSL_VALIDATE=1 it is validated first, and a fault names the pass it comes after."""
    if VALIDATE:
        try:
            validate(system)
        except InvalidSystem as error:
            raise InvalidSystem(f"after `{after}`: {error}") from None
    return system


def _refuse(place: str, what: str) -> NoReturn:
    raise InvalidSystem(f"{place}: {what}")


# Names, sizes, ends ----------------------------------------------------------------------------------------------


def _check_names(system: System) -> None:
    tables: list[tuple[str, Mapping[str, Any]]] = [
        ("index", system.indices), ("tensor", system.tensors), ("monoid", system.monoids)]
    for what, table in tables:
        for name, entry in table.items():
            if entry.name != name:
                _refuse(f"{what} `{name}`", f"it calls itself `{entry.name}`")
    for name, index in system.indices.items():
        axis = system.indices.get(index.axis)
        if axis is None or axis.axis != index.axis:
            _refuse(f"index `{name}`", f"its axis `{index.axis}` is no axis")
        if name.endswith("'"):
            _refuse(f"index `{name}`", "a primed index is not declared, it runs over the axis of the plain one")
        if index.size is not None:
            _check_size(system, f"the size of `{name}`", index.size)
    for name, default in system.options.items():
        if default is not None:
            _check_size(system, f"the default of `{name}`", default)
    for check in system.checks:
        _check_size(system, f"the check of {check.label}", check.value)
    for pair in system.constraints:
        _check_indices(system, "a constraint", pair)


def _check_size(system: System, place: str, size: Node) -> None:
    for node in walk(size):
        if node.op not in _SIZE_OPS:
            _refuse(place, f"`{node.op}` makes no size")
        _check_leaf(system, place, node)


def _check_indices(system: System, place: str, names: Iterable[str]) -> None:
    for name in names:
        if name.rstrip("'") not in system.indices:
            _refuse(place, f"`{name}` is no index")


def _check_ends(system: System) -> None:
    for name in system.outputs:
        if name not in system.tensors:
            _refuse("the outputs", f"`{name}` is no tensor")
    for entry, name in system.finals.items():
        if name not in system.tensors:
            _refuse(f"the final state `{entry}`", f"`{name}` is no tensor")
    for kept in system.record or ():
        if kept.tensor not in system.tensors:
            continue  # a form gives it, from what it has in the tensor's stead
        if not 0 <= kept.position < len(system.tensors[kept.tensor].indices):
            _refuse(f"the state entry `{kept.name}`", f"`{kept.tensor}` has no index {kept.position}")


# Tensors ---------------------------------------------------------------------------------------------------------


def _check_tensor(system: System, tensor: Tensor, shapes: Shapes) -> None:
    place = f"`{tensor.name}`"
    if tensor.kind not in _KINDS or tensor.dtype not in _ORDER:
        _refuse(place, f"no tensor has the kind {tensor.kind!r} and the type {tensor.dtype!r}")
    _check_indices(system, place, (*tensor.indices, *tensor.fan_in))
    if len(set(tensor.indices)) < len(tensor.indices):
        _refuse(place, "an index occurs twice")
    if (tensor.rhs is None) != (tensor.kind == "input") and tensor.kind not in ("param", "const"):
        _refuse(place, f"a tensor of the kind {tensor.kind} has {'an' if tensor.rhs else 'no'} equation")
    if tensor.kind in ("param", "const", "carry") and not tensor.path:
        _refuse(place, "it has no path")
    if tensor.rhs is not None:
        _check_equation(system, place, tensor, shapes)
    for edge in tensor.edges:
        _check_edge(system, place, tensor, edge.position, edge.tensor, edge.point, shapes)


def _check_equation(system: System, place: str, tensor: Tensor, shapes: Shapes) -> None:
    assert tensor.rhs is not None
    _check_expression(system, place, tensor.rhs, shapes, random=tensor.kind in ("param", "const"))
    _check_strays(place, tensor.rhs, tensor.indices)
    if _ORDER.index(tensor.rhs.dtype) > _ORDER.index(tensor.dtype):
        _refuse(place, f"it is {tensor.dtype}, and its equation is {tensor.rhs.dtype}")


def _check_strays(place: str, node: Node, indices: tuple[str, ...]) -> None:
    strays = node.free - set(indices)
    if strays:
        _refuse(place, f"its equation varies along `{min(strays)}`, and it does not")


def _check_edge(system: System, place: str, tensor: Tensor, position: int, source: str, point: Node,
                shapes: Shapes) -> None:
    if not 0 <= position < len(tensor.indices):
        _refuse(place, f"an edge is at position {position}, and it has {len(tensor.indices)} indices")
    if source not in shapes:
        _refuse(place, f"the edge `{source}` is no tensor")
    count, dtype = shapes[source]
    if count != len(tensor.indices) - 1:
        _refuse(place, f"the edge `{source}` has {count} indices, not {len(tensor.indices) - 1}")
    if _ORDER.index(dtype) > _ORDER.index(tensor.dtype):
        _refuse(place, f"it is {tensor.dtype}, and the edge `{source}` is {dtype}")
    if point.dtype != "int" or point.free:
        _refuse(place, f"the point {point!r} of an edge is no fixed integer")
    _check_expression(system, place, point, shapes)


# Expressions -----------------------------------------------------------------------------------------------------


def _check_expression(system: System, place: str, root: Node, shapes: Shapes, *, random: bool = False) -> None:
    for node in walk(root):
        if node.op not in OPS:
            _refuse(place, f"there is no operator `{node.op}`")
        row = OPS[node.op]
        if row.arity is not None and row.arity != len(node.args):
            _refuse(place, f"`{node.op}` has {len(node.args)} operands, not {row.arity}")
        if node.op in _RANDOM and not random:
            _refuse(place, f"`{node.op}` outside an initialiser")
        if node.op == "read":
            _check_read(place, node, shapes)
        elif node.op == "fold":
            _check_fold(system, place, node)
        elif not node.args:
            _check_leaf(system, place, node)
        else:
            _check_types(place, node)
        _check_indices(system, place, (*bound(node), *made(node)))
        if len(set(bound(node))) < len(bound(node)):
            _refuse(place, f"`{node.op}` binds an index twice")


def _check_leaf(system: System, place: str, node: Node) -> None:
    if node.op in ("index", "size", "first"):
        _check_indices(system, place, (str(node.attr),))
    elif node.op == "option" and node.attr not in system.options:
        _refuse(place, f"`{node.attr}` is no option")
    elif node.op == "const":
        named = not isinstance(node.attr, str) or node.attr in ("inf", "pi", "i")
        exact = type(node.attr) in _CONSTANTS.get(node.dtype, ())
        if not named or not exact or (node.attr == "i" and node.dtype != "complex"):
            _refuse(place, f"{node.attr!r} is no constant of the type {node.dtype}")


def _check_read(place: str, node: Node, shapes: Shapes) -> None:
    if node.attr not in shapes:
        _refuse(place, f"it reads `{node.attr}`, which is no tensor")
    count, dtype = shapes[str(node.attr)]
    if len(node.args) != count:
        _refuse(place, f"it reads `{node.attr}` with {len(node.args)} subscripts, not {count}")
    if dtype not in (_ANY, node.dtype):
        _refuse(place, f"it reads `{node.attr}` as {node.dtype}, which is {dtype}")
    for subscript in node.args:
        if subscript.dtype != "int":
            _refuse(place, f"the subscript {subscript!r} of `{node.attr}` is {subscript.dtype}")


def _check_types(place: str, node: Node) -> None:
    row = OPS[node.op]
    operands = node.args
    conditions: tuple[Node, ...] = ()
    if row.binding in ("reduce", "along"):
        operands, conditions = node.args[:-1], node.args[-1:]
    elif node.op == "where":
        operands, conditions = node.args[1:], node.args[:1]
    for condition in conditions:
        if condition.dtype != "bool":
            _refuse(place, f"the condition {condition!r} of `{node.op}` is {condition.dtype}")
    for operand in operands:
        if _ORDER.index(operand.dtype) > _ORDER.index(row.domain):
            _refuse(place, f"`{node.op}` takes {row.domain} operands, and {operand!r} is {operand.dtype}")
    expected = row.dtype(*(a.dtype for a in node.args))
    if node.dtype != expected:
        _refuse(place, f"{node!r} is marked {node.dtype}, and is {expected}")


def _check_fold(system: System, place: str, node: Node) -> None:
    name = str(node.attr[0])
    if name not in system.monoids:
        _refuse(place, f"it folds with `{name}`, which is no monoid")
    monoid = system.monoids[name]
    if len(node.args) != len(monoid.lift_params) + 1:
        _refuse(place, f"`{name}` lifts {len(monoid.lift_params)} values, not {len(node.args) - 1}")
    if node.args[-1].dtype != "bool":
        _refuse(place, f"the condition {node.args[-1]!r} of `{name}` is {node.args[-1].dtype}")
    output = next((t for t in monoid.project if t.name == monoid.output), None)
    appear = node.attr[2]
    if output is not None and len(appear) != len(output.indices):
        _refuse(place, f"`{name}` gives {len(output.indices)} indices, not {len(appear)}")


# Monoids and claims ----------------------------------------------------------------------------------------------


def _check_monoid(system: System, monoid: Monoid, shapes: Shapes) -> None:
    """Its equations are typed by the elements they meet, not by themselves: their types are not checked."""
    place = f"monoid `{monoid.name}`"
    names = [n for n, _ in monoid.fields]
    counts = {len(names), len(monoid.lift), len(monoid.types or names)}
    counts.add(len(names if monoid.identity is None else monoid.identity))
    if len(counts) > 1:
        _refuse(place, f"it has {len(names)} fields, and its lift, its identity or its types another number")
    for name, indices in (*monoid.fields, *monoid.lift_params):
        _check_indices(system, f"{place}, `{name}`", indices)
    shapes = {name: (count, _ANY) for name, (count, _) in shapes.items()}
    lifted = {n: (len(i), _ANY) for n, i in monoid.lift_params}
    parts = [("lift", monoid.lift, {**shapes, **lifted}), ("identity", monoid.identity or (), shapes)]
    for part, nodes, known in parts:
        for (name, indices), node in zip(monoid.fields, nodes, strict=False):
            _check_expression(system, f"{place}, {part} of `{name}`", node, known)
            _check_strays(f"{place}, {part} of `{name}`", node, indices)
    sides = {f"{side}.{n}": (len(i), _ANY) for side in "ab" for n, i in monoid.fields}
    _check_equations(system, f"{place}, combine", monoid.combine, {**shapes, **sides}, names)
    own = {n: (len(i), _ANY) for n, i in monoid.fields}
    _check_equations(system, f"{place}, project", monoid.project, {**shapes, **own}, [monoid.output])
    for claim in monoid.claims:
        _check_claim(system, claim, shapes)


def _check_equations(system: System, place: str, equations: tuple[Tensor, ...], shapes: Shapes,
                     wanted: list[str]) -> None:
    known = dict(shapes)
    for equation in equations:
        if equation.rhs is None:
            _refuse(place, f"`{equation.name}` has no equation")
        _check_indices(system, f"{place}, `{equation.name}`", equation.indices)
        _check_expression(system, f"{place}, `{equation.name}`", equation.rhs, known)
        _check_strays(f"{place}, `{equation.name}`", equation.rhs, equation.indices)
        known[equation.name] = (len(equation.indices), _ANY)
    missing = set(wanted) - {e.name for e in equations}
    if missing:
        _refuse(place, f"no equation gives `{min(missing)}`")


def _check_claim(system: System, claim: Claim, shapes: Shapes) -> None:
    place = f"claim `{claim.text}`"
    if claim.condition is not None:
        _check_expression(system, place, claim.condition, shapes)
        if claim.condition.dtype != "bool":
            _refuse(place, f"its condition is {claim.condition.dtype}")
    for node in claim.nodes:
        _check_expression(system, place, node, shapes)
    if claim.system is not None:
        try:
            validate(claim.system)
        except InvalidSystem as error:
            raise InvalidSystem(f"{place}: {error}") from None

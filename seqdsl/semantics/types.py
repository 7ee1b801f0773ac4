"""Types: infer every tensor's dtype as the least fixpoint of its equation, then check rules 10, 12, 31 and 32.

Bool < int < real < complex. A recurrence starts at the least type and rises until nothing changes, which ends because
each tensor can rise three times.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from seqdsl.diagnostics import Diagnostic, Faults, Span
from seqdsl.ir import build
from seqdsl.ir.node import Node, walk
from seqdsl.ir.ops import OPS
from seqdsl.ir.order import difference, upper_bound
from seqdsl.ir.show import SIGN
from seqdsl.ir.system import Claim, Monoid, System, Tensor, folds
from seqdsl.semantics.absence import unguarded_reads
from seqdsl.semantics.builtins import ABSENCE_MATTERS
from seqdsl.semantics.monoid_types import ORDER, Elements, dtype_of, elements, retype, typed_equations

_PREFIX = re.compile(r"(?:\w+\.)+(?=[A-Za-z_])")  # of names that calls and monoids make


def infer(system: System) -> System:
    """The system with every read, fold and tensor typed; spans follow the nodes."""
    dtypes = {t.name: t.dtype if t.kind != "derived" else "bool" for t in system.tensors.values()}
    folded: dict[str, str] = {}
    lifted: dict[str, Elements] = {}
    changed = True
    while changed:
        changed = False
        for tensor in system.derived():
            for fold in folds(tensor.rhs):
                name, found = str(fold.attr[0]), _elements(system, fold, dtypes, folded)
                lifted[name] = found
                if folded.setdefault(name, "real") != found.output:
                    folded[name], changed = found.output, True
            known = [dtype_of(tensor.rhs, dtypes, folded) if tensor.rhs is not None else "bool"]
            known += [dtypes[e.tensor] for e in tensor.edges]
            new = max([*known, dtypes[tensor.name]], key=ORDER.index)
            if new != dtypes[tensor.name]:
                dtypes[tensor.name], changed = new, True
    spans = dict(system.spans)
    tensors = {n: _typed(t, dtypes, folded, spans) for n, t in system.tensors.items()}
    claims = tuple(_typed_claim(c, dtypes, folded, spans) for c in system.claims)
    monoids = {n: _typed_monoid(m, lifted[n], spans) if n in lifted else m for n, m in system.monoids.items()}
    return replace(system, tensors=tensors, claims=claims, monoids=monoids, spans=spans)


def _elements(system: System, fold: Node, dtypes: Mapping[str, str], folded: Mapping[str, str]) -> Elements:
    given = tuple(dtype_of(a, dtypes, folded) for a in fold.args[:-1])
    return elements(system.monoids[str(fold.attr[0])], given, dtypes)


def _typed(tensor: Tensor, dtypes: dict[str, str], folded: dict[str, str], spans: dict[object, Span]) -> Tensor:
    if tensor.rhs is None:
        return replace(tensor, dtype=dtypes[tensor.name])
    done = retype(tensor.rhs, dtypes, folded)
    for old, new in done.items():
        span = spans.get((tensor.name, old))
        if span is not None and old is not new:
            spans.setdefault((tensor.name, new), span)
    edges = tuple(replace(e, point=retype(e.point, dtypes)[e.point]) for e in tensor.edges)
    return replace(tensor, rhs=done[tensor.rhs], dtype=dtypes[tensor.name], edges=edges)


def _typed_monoid(monoid: Monoid, types: Elements, spans: dict[object, Span]) -> Monoid:
    lift: list[Tensor] = []
    combine: list[Tensor] = []
    project: list[Tensor] = []
    parts = [lift] * len(monoid.lift) + [combine] * len(monoid.combine) + [project] * len(monoid.project)
    for part, (equation, _, before) in zip(parts, typed_equations(monoid, types), strict=True):
        part.append(equation)
        for new, old in before.items():
            if (equation.name, old) in spans:
                spans.setdefault((equation.name, new), spans[(equation.name, old)])
    values = tuple(t.rhs for t in lift if t.rhs is not None)
    kinds = tuple(types.fields.values())
    return replace(monoid, lift=values, combine=tuple(combine), project=tuple(project), types=kinds)


def _typed_claim(claim: Claim, dtypes: dict[str, str], folded: dict[str, str], spans: dict[object, Span]) -> Claim:
    nodes = tuple(retype(n, dtypes, folded)[n] for n in claim.nodes)
    if claim.condition is None:
        return replace(claim, nodes=nodes)
    done = retype(claim.condition, dtypes, folded)
    for old, new in done.items():
        if ("claim", old) in spans:
            spans.setdefault(("claim", new), spans[("claim", old)])
    return replace(claim, nodes=nodes, condition=done[claim.condition])


def check_types(system: System) -> Faults:
    """The faults of all equations."""
    faults = Faults()
    for tensor in system.tensors.values():
        if tensor.rhs is not None:
            _check_tensor(system, tensor, faults, system.spans.get(tensor.name))
            for fold in folds(tensor.rhs):
                _check_monoid(system, fold, faults)
    for condition in dict.fromkeys(c.condition for c in system.claims if c.condition is not None):
        guarded = build.where(condition, build.ZERO, build.ONE)  # a condition, as that of a `where`
        span = system.spans.get(("claim", condition))
        _check_tensor(system, Tensor("claim", (), "int", "derived", guarded), faults, span)
    return faults


def _check_monoid(system: System, fold: Node, faults: Faults) -> None:
    """The expressions of a monoid, with the types that this fold lifts into it."""
    name = str(fold.attr[0])
    guard = fold.args[-1]
    if system.monoids[name].identity is None and guard.dtype == "bool" and not not_empty(system, guard, fold.attr[1]):
        local = name.rpartition(".")[2]
        faults.append(
            Diagnostic(
                "empty-fold",
                f"the guard of this fold may exclude every point, and `{local}` has no identity",
                system.spans.get(("monoid", name)),
                help="give the monoid an `identity`, or a guard that shows it is not empty, such as `s <= t`",
            )
        )
    types = _elements(system, fold, {t.name: t.dtype for t in system.tensors.values()}, {})
    for equation, reads, old in typed_equations(system.monoids[name], types):
        spans = dict(system.spans)
        for new, before in old.items():
            if (equation.name, before) in spans:
                spans[(equation.name, new)] = spans[(equation.name, before)]
        inside = replace(system, tensors={**system.tensors, **reads}, spans=spans)
        _check_tensor(inside, equation, faults, system.spans.get(("monoid", name)))


def _check_tensor(system: System, tensor: Tensor, faults: Faults, owner: Span | None) -> None:

    def fault(code: str, message: str, node: Node, help: str = "") -> None:
        span = system.spans.get((tensor.name, node), owner)
        faults.append(Diagnostic(code, message, span, help=help))

    assert tensor.rhs is not None
    for node in walk(tensor.rhs):
        if node.op == "read":
            for subscript in node.args:
                if subscript.dtype != "int":
                    fault(
                        "subscript-not-integer",
                        f"a subscript of `{str(node.attr).rpartition('.')[2]}` is {subscript.dtype}, and must be int",
                        subscript if (tensor.name, subscript) in system.spans else node,
                        "use floor, or an int input",
                    )
        elif node.op == "where" or OPS[node.op].binding in ("reduce", "along", "fold"):
            condition = node.args[0] if node.op == "where" else node.args[-1]
            if condition.dtype != "bool":
                fault(
                    "not-a-condition",
                    f"a condition is bool, and this is {condition.dtype}",
                    condition,
                    "compare it, as in `x > 0`",
                )
        if node.op == "eq" or node.op == "ne":
            a, b = (x.dtype for x in node.args)
            if {"int", "real"} == {a, b}:
                fault(
                    "int-real-equality",
                    "an int and a real are not compared for equality",
                    node,
                    "compare with a tolerance, `abs(x - y) < 0.5`, or write a number with a point, `1.0`",
                )
        _check_domain(node, fault)
        if node.op == "argmax":
            _check_argmax(system, node, fault)
        if node.op in ABSENCE_MATTERS:
            for read, guard in unguarded_reads(system, node):
                fault(
                    "unguarded-read",
                    f"`{node.op}` reads `{str(read.attr).rpartition('.')[2]}` where it may lie outside its axis",
                    read,
                    f"guard it, `{node.op}[.. | {_PREFIX.sub('', guard)}](..)`, or read it through a named tensor",
                )


_CONVERSION = {  # how an operand becomes what an operator takes
    "bool": "compare it, as in `x > 0`",
    "int": "use floor, or an int input",
    "real": "take `abs`, `re` or `im` first",
}


def _check_domain(node: Node, fault: Callable[..., None]) -> None:
    row = OPS[node.op]
    operands = node.args[:-1] if row.binding in ("reduce", "along") else node.args
    if node.op == "clamp":
        operands = node.args[:1]
    for arg in operands:
        if ORDER.index(arg.dtype) > ORDER.index(row.domain):
            if arg.dtype == "complex" and node.op in (
                "lt",
                "le",
                "maximum",
                "minimum",
                "max",
                "min",
                "argmax",
                "rank",
                "sign",
            ):
                fault("complex-order", "complex numbers have no order", node, "take `abs`, `re` or `im` first")
            else:
                name = SIGN.get(node.op, {"maximum": "max", "minimum": "min"}.get(node.op, node.op))
                fault(
                    "wrong-type",
                    f"`{name}` takes {row.domain} operands, and this is {arg.dtype}",
                    arg if arg.op != "const" else node,
                    _CONVERSION[row.domain],
                )


def _check_argmax(system: System, node: Node, fault: Callable[..., None]) -> None:
    """Rule 12: the guard of an argmax must be shown not to be empty."""
    if not not_empty(system, node.args[1], node.attr[0]):
        fault(
            "empty-argmax",
            "the guard of this argmax may exclude every point, and an empty argmax has no value",
            node,
            "add a conjunct that shows it is not empty, such as `s <= t`",
        )


def not_empty(system: System, guard: Node, names: Iterable[str]) -> bool:
    """Does a point satisfy all conjuncts of the guard, wherever it stands?"""
    if guard is build.TRUE:
        return True
    candidates: list[dict[str, Node]] = [dict.fromkeys(names, build.ZERO)]
    same = {
        n: next((f for f in sorted(guard.free) if f not in names and system.axis(f) == system.axis(n)), None)
        for n in names
    }
    if all(same.values()):
        candidates.append({n: build.index(str(s)) for n, s in same.items()})
    for point in candidates:
        facts = [build.substitute(c, point) for c in build.conjuncts(guard)]
        if all(_holds(system, f) for f in facts):
            return True
    return False


def _holds(system: System, fact: Node) -> bool:
    if fact is build.TRUE:
        return True
    if fact.op == "or":
        return any(_holds(system, a) for a in fact.args)
    if fact.op not in ("lt", "le", "eq"):
        return False
    top = upper_bound(system, difference(fact.args[0], fact.args[1]), ())
    if fact.op == "eq":
        return fact.args[0] is fact.args[1]
    return top is not None and (top < 0 if fact.op == "lt" else top <= 0)

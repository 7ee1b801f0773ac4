"""The adjoint of a system of recurrence equations is a system of recurrence equations (DESIGN 2, DERIVATIONS 4).

`adjoint` gives the graph of the gradient: its inputs are the system's own and a cotangent for each output, its outputs
the cotangents of the inputs and parameters (`x.bar`; in the adjoint of an adjoint `x.bar2`). It differentiates the
equations one by one, whatever recurrence they make (`ir.differentiate.pull`), so it knows no class of recurrences; the
result is a system like any other, which is interpreted, classified, brought into a form and emitted with no code of its
own. A recurrence's adjoint is affine and runs the other way.

The state before a step is named first, `S.before[t] = S[t-1]`, with one position more than S: at 0 it is the start, at
|t| the end. Then nothing in the adjoint is shifted or guarded. With `S[t] = a S.before + k v` and `o = q S` one gets
    S.bar[t]        = S.before.bar[t+1] + q o.bar         what the next step passes back, and this step's reads
    S.before.bar[t] = a S.bar[t],    S.before.bar[|t|] = the given cotangent of the final state
and S.before.bar[0] is the cotangent of the starting state: the transposed step, which Newton's adjoint, the delta
rules' and that of any gate have in common.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from seqdsl.diagnostics import SeqError
from seqdsl.forms.unfold import unfolded
from seqdsl.ir import build
from seqdsl.ir.dependence import every_loop, schedule
from seqdsl.ir.derivatives import ELEMENTWISE
from seqdsl.ir.differentiate import NotDifferentiable, pull
from seqdsl.ir.graphs import reachable, turned
from seqdsl.ir.node import Node, rebuild, rebuild_reads, walk
from seqdsl.ir.ops import OPS, bound, remake
from seqdsl.ir.order import difference
from seqdsl.ir.state import POSITION, NotSteppable, needed, state_record
from seqdsl.ir.system import Edge, System, Tensor, sources
from seqdsl.ir.validate import checked

_SMOOTH = ("real", "complex")


@dataclass(frozen=True)
class End:
    """The last value of a recurrence: of `tensor` along its index at `position`, the first one where it runs `down`."""

    tensor: str
    position: int
    down: bool = False


def adjoint(system: System, *, state: bool = False) -> System:
    """The system of the gradient: inputs x.. and `o.grad` for each output, outputs `x.bar` for each real or complex
    input and parameter. With `state`, `S.start` and `S.final.grad` are inputs too, and `S.start.bar` outputs, for each
    state S of the record; without it, states start as the equations say. Cotangents are those of each element of the
    batch. Errors: `form-not-available`, where an operator has no derivative or a state is no last value."""
    try:
        system = needed(unfolded(system))
        ends = _states(system) if state else []
        return _adjoint(with_starts(system, ends), ends)[0]
    except NotDifferentiable as reason:
        raise SeqError(
            "form-not-available",
            f"the adjoint of `{system.name}` cannot be derived: {reason}",
            help="the recurrent form can be differentiated by torch",
        ) from None


def adjoint_of_steps(system: System, ends: Sequence[End]) -> System:
    """The system of the gradient where the recurrences' own values are known: each tensor that a step reads from the one
    before is an input, so that only cotangents recur, and what else a step computes is computed at all positions at
    once, as is what is only another tensor's value a step before. `ends` have cotangents `S.final.grad`, as in `adjoint`.
    Raises `NotDifferentiable`."""
    found, befores = _adjoint(system, ends)
    names = {name for name, _ in befores} & set(system.tensors)
    known = [Tensor(t.name, t.indices, t.dtype, "input", edges=t.edges) for t in found.derived() if t.name in names
             and not (t.rhs is not None and t.rhs.op == "read" and t.rhs.attr in befores.values())]  # fmt: skip
    return needed(found.with_tensors(*known))


def _adjoint(system: System, ends: Sequence[End]) -> tuple[System, dict[tuple[str, int], str]]:
    """The adjoint, and the name that each tensor has one step before, by the tensor and the position of the index."""
    system = _with_parts(replace(system, record=()))
    system, befores = _with_befores(system)
    wanted = [t for t in (*system.inputs(), *system.params()) if t.dtype in _SMOOTH and t.kind != "const"]
    active = _active(system, {t.name for t in wanted})
    moving = [t for t in system.derived() if t.name in active]
    suffix = _suffix(system)
    bars = {t.name: Tensor(t.name + suffix, t.indices, t.dtype, "derived") for t in (*moving, *wanted)}
    outputs = [system.tensors[n] for n in system.outputs]
    seeds = [Tensor(f"{t.name}.grad", t.indices, t.dtype, "input") for t in outputs]
    finals = [_final_cotangent(system, end) for end in ends]
    for end, final in zip(ends, finals, strict=True):
        before = befores.get((end.tensor, end.position))
        if before is None:
            raise NotDifferentiable(f"`{end.tensor}` is not read one step before itself")
        if before in bars:
            edge = Edge(end.position, _beyond(system, end, last=True), final.name)
            bars[before] = replace(bars[before], edges=(edge,))
    terms: dict[str, list[Node]] = {n: [] for n in bars}
    for name, seed in zip(system.outputs, seeds, strict=True):
        if name in terms:
            terms[name].append(build.whole(seed))
    vanishing = frozenset(b.name for b in bars.values())
    for tensor in moving:
        found = pull(
            system.axis, system.indices, system.tensors, active, tensor, build.whole(bars[tensor.name]), vanishing
        )
        for read, parts in found.items():
            terms[read] += parts
    equations = [replace(bars[n], rhs=_plainly(build.total(parts)), comment=f"cotangent of {n}") for n, parts in terms.items()]
    result = replace(
        system.with_tensors(*seeds, *finals, *equations),
        name=f"{system.name}.adjoint",
        outputs=tuple(bars[t.name].name for t in wanted),
        claims=(),
        finals={},
        record=None,
    )
    return checked(needed(_without_aliases(result)), "adjoint"), befores


def _with_parts(system: System) -> System:
    """Operators along axes, and sums inside functions, as tensors of their own: a term that works along an index has no
    value at another one, and the derivative of a function needs its operand again."""
    parts: list[Tensor] = []
    changed: list[Tensor] = []
    for tensor in system.derived():
        if tensor.rhs is None or tensor.dtype not in _SMOOTH:
            continue

        def change(node: Node, owner: Tensor = tensor) -> Node | None:
            if node.op in ELEMENTWISE and node.op not in _LINEAR:
                args = tuple(_part(system, owner, a, parts) if _has_sum(a) else a for a in node.args)
                return remake(node, args) if args != node.args else None
            along = OPS[node.op].binding in ("along", "map") and node is not owner.rhs
            return _part(system, owner, node, parts) if along else None

        rhs = rebuild(tensor.rhs, change)
        if rhs is not tensor.rhs:
            changed.append(replace(tensor, rhs=rhs))
    return system.with_tensors(*parts, *changed)


_LINEAR = frozenset("add sub neg mul where".split())


def _has_sum(node: Node) -> bool:
    return node.dtype in _SMOOTH and node.op != "read" and any(OPS[n.op].binding == "reduce" for n in walk(node))


def _part(system: System, owner: Tensor, node: Node, parts: list[Tensor]) -> Node:
    """A read of the term as a tensor of its own; the term where two of its indices have one name."""
    names = tuple(sorted(node.free, key=lambda n: (owner.indices.index(n) if n in owner.indices else len(owner.indices), n)))
    plain = [n.rstrip("'") for n in names]
    if node.dtype not in _SMOOTH or len(set(plain)) < len(plain):
        return node
    rhs = build.substitute(node, {n: build.index(p) for n, p in zip(names, plain, strict=True)})
    known = next((p for p in parts if p.rhs is rhs), None)
    if known is None:
        taken = {*system.tensors, *(p.name for p in parts)}
        label = build.numbered(f"{owner.name}.part", taken)
        known = Tensor(label, tuple(plain), node.dtype, "derived", rhs, comment=f"part of {owner.name}")
        parts.append(known)
    return build.read(known.name, [build.index(n) for n in names], node.dtype)


def _states(system: System) -> list[End]:
    """The states of the record, each the last value of a tensor along the stream."""
    try:
        entries = [e for e in state_record(system) if e.name != POSITION]
    except NotSteppable as reason:
        raise NotDifferentiable(f"it keeps no state: {reason}") from None
    for entry in entries:
        if entry.tail is not build.ONE or entry.boundary is not None or system.tensors[entry.tensor].kind != "derived":
            raise NotDifferentiable(f"its state `{entry.name}` is not the last value of an equation")
    return [End(e.tensor, e.position) for e in entries if system.tensors[e.tensor].dtype in _SMOOTH]


def with_starts(system: System, ends: Iterable[End]) -> System:
    """The states before the first step as inputs, `S.start`, instead of what the equations say of them."""
    for end in ends:
        tensor = system.tensors[end.tensor]
        start = Tensor(f"{tensor.name}.start", _rest(tensor, end), tensor.dtype, "input")
        others = tuple(e for e in tensor.edges if e.position != end.position)
        edge = Edge(end.position, _beyond(system, end, last=False), start.name)
        system = system.with_tensors(start, replace(tensor, edges=(edge, *others)))
    return system


def _beyond(system: System, end: End, *, last: bool) -> Node:
    """The position after the last step, or before the first."""
    length = build.size(system.tensors[end.tensor].indices[end.position])
    return length if last is not end.down else build.const(-1)


def _rest(tensor: Tensor, end: End) -> tuple[str, ...]:
    return tensor.indices[: end.position] + tensor.indices[end.position + 1 :]


def _final_cotangent(system: System, end: End) -> Tensor:
    tensor = system.tensors[end.tensor]
    return Tensor(f"{tensor.name}.final.grad", _rest(tensor, end), tensor.dtype, "input")


def _with_befores(system: System) -> tuple[System, dict[tuple[str, int], str]]:
    """Each tensor that a recurrence reads one step away under a name of its own: S.before[t] = S[t-1]."""
    found: dict[tuple[str, int], str] = {}
    for loop in every_loop(schedule(system)):
        for name, position in loop.positions:
            if (name, position) not in found:
                system = _with_before(system, name, position, 1 if loop.reverse else -1, found)
    return system, found


def _with_before(
    system: System, name: str, position: int, step: int, found: dict[tuple[str, int], str]
) -> System:
    tensor = system.tensors[name]
    own = tensor.indices[position]
    label = f"{name}.before" if not any(n == name for n, _ in found) else f"{name}.before.{own}"
    label = build.numbered(label, system.tensors)
    axis = system.axis(own)

    def change(node: Node) -> Node | None:
        subscript = node.args[position]
        (at,) = subscript.free if len(subscript.free) == 1 else ("",)
        if not at or system.axis(at) != axis or difference(subscript, build.index(at)) != {None: step}:
            return None
        if any(node.args[e.position].op != "index" for e in tensor.edges if e.position != position):
            return None  # it may leave another axis, where S has an edge and `before` has none
        args = [build.index(at) if k == position else a for k, a in enumerate(node.args)]
        return build.read(label, args, node.dtype)

    changed = []
    for other in system.derived():
        rhs = rebuild_reads(other.rhs, (name,), change) if other.rhs is not None else None
        if rhs is not other.rhs:
            changed.append(replace(other, rhs=rhs))
    if not changed:
        return system
    away = [build.add(build.index(i), build.const(step)) if k == position else build.index(i)
            for k, i in enumerate(tensor.indices)]  # fmt: skip
    found[name, position] = label
    before = Tensor(label, tensor.indices, tensor.dtype, "derived", build.read(name, away, tensor.dtype),
                    comment=f"{name} one step before")  # fmt: skip
    return system.with_tensors(before, *changed)


def _active(system: System, wanted: set[str]) -> set[str]:
    """The tensors that the wanted ones reach, and that reach an output, through real and complex values."""
    needs: dict[str, set[str]] = {name: set() for name in system.tensors}
    for tensor in system.derived():
        if tensor.dtype in _SMOOTH:
            needs[tensor.name] = {s for s in sources(system, tensor) if system.tensors[s].dtype in _SMOOTH}
    return reachable(turned(needs), wanted) & reachable(needs, system.outputs)


def _suffix(system: System) -> str:
    """Of cotangents: `.bar`, and of those in an adjoint `.bar2`."""
    order = 1 + max((int(t.name.rpartition(".bar")[2] or 1) for t in system.derived() if _is_bar(t)), default=0)
    return ".bar" if order == 1 else f".bar{order}"


def _is_bar(tensor: Tensor) -> bool:
    _, found, order = tensor.name.rpartition(".bar")
    return bool(found) and (not order or order.isdecimal())


def _plainly(node: Node) -> Node:
    """Summed indices without the primes that kept them apart while terms were moved."""

    def change(n: Node) -> Node | None:
        if OPS[n.op].binding != "reduce":
            return None
        inside = {m for a in n.args for below in walk(a) for m in bound(below)}
        names: dict[str, str] = {}
        for name in bound(n):
            around = (frozenset().union(*(a.free for a in n.args)) - {name}) | inside | node.free
            names[name] = build.fresh(name.rstrip("'"), {*around, *names.values()})
        names = {k: v for k, v in names.items() if k != v}
        return build.rename_here(n, names) if names else None

    return rebuild(node, change)


def _without_aliases(system: System) -> System:
    """Without the tensors that only repeat another one, or nothing, at the same place."""
    while True:
        alias = next(
            (t for t in system.derived() if t.name not in system.outputs and not t.edges and _repeats(t)), None
        )
        if alias is None or alias.rhs is None:
            return system
        changed = []
        for tensor in system.derived():
            if tensor.rhs is None or tensor is alias:
                continue
            rhs = rebuild_reads(tensor.rhs, (alias.name,), lambda n, a=alias: _opened(n, a))  # type: ignore[misc]
            if rhs is not tensor.rhs:
                changed.append(replace(tensor, rhs=_simplified(rhs)))
        system = system.with_tensors(*changed, drop=(alias.name,))


def _repeats(tensor: Tensor) -> bool:
    """Is it a cotangent that is 0, or another tensor at its own indices?"""
    rhs = tensor.rhs
    if not _is_bar(tensor) or rhs is None:
        return False
    own = {build.index(i) for i in tensor.indices}
    return rhs is build.ZERO or (rhs.op == "read" and rhs.attr != tensor.name and set(rhs.args) <= own)


def _opened(node: Node, alias: Tensor) -> Node:
    assert alias.rhs is not None
    return build.substitute(alias.rhs, dict(zip(alias.indices, node.args, strict=True)))


def _simplified(node: Node) -> Node:
    """Products with 0, and sums with it, after a cotangent turned out to be 0."""

    def change(n: Node) -> Node | None:
        if n.op in ("add", "sub", "mul", "neg"):
            return getattr(build, n.op)(*n.args)  # type: ignore[no-any-return]
        if n.op == "sum" and n.args[0] is build.ZERO:
            return build.ZERO
        return build.ZERO if n.op == "where" and n.args[1] is n.args[2] is build.ZERO else None

    return rebuild(node, change)

"""State maps that are circular convolutions along an axis: entrywise once they are taken to frequencies.

The update S[t,i] = sum[a] A[a] S[t-1, (i + a) % |i|] + b becomes, with s the Fourier transform of S along i,
s[t,f] = (sum[a] A[a] exp(2 pi i f a / |i|)) s[t-1,f] + fft(b): a shift is a factor. Several axes are transformed one
after another. What a term is multiplied by may change with time, and not with the place; a read outside the axis must
wrap: where it is 0 instead, the map is no circular convolution, and no transform makes it entrywise.
"""

from __future__ import annotations

from dataclasses import replace

from seqdsl.algebra.affine import NoMatch, Term, Update, split_update, states_and_updates
from seqdsl.ir import build
from seqdsl.ir.dependence import Loop, loop_of
from seqdsl.ir.node import Node, rebuild
from seqdsl.ir.ops import make
from seqdsl.ir.order import difference
from seqdsl.ir.system import Edge, System, Tensor


def shifts(system: System, update: Update, term: Term) -> dict[str, Node | None]:
    """For each axis of the state that a term reads at another place: how far away, or None where the read does not
    wrap. Raises `NoMatch` where it is no shift, or is weighted by where it stands."""
    found: dict[str, Node | None] = {}
    for position, (own, subscript) in enumerate(zip(update.state.indices, term.read.args, strict=True)):
        if position == update.position or subscript is build.index(own):
            continue
        wraps = subscript.op == "mod" and _is_length(system, subscript.args[1], own)
        place = subscript.args[0] if wraps else subscript
        form = difference(place, build.index(own))
        if own in frozenset().union(*(t.free for t in form if t is not None)):
            raise NoMatch(f"`{term.read!r}` is no shift along `{own}`")
        if own in term.coefficient.free | term.guard.free:
            raise NoMatch(f"what multiplies `{term.read!r}` differs along `{own}`")
        found[own] = rebuild(build.substitute(place, {own: build.ZERO}), _without_zero) if wraps else None
    return found


def _without_zero(node: Node) -> Node | None:
    return build.add(*node.args) if node.op == "add" else None


def _is_length(system: System, node: Node, own: str) -> bool:
    return node.op == "size" and system.axis(str(node.attr)) == system.axis(own)


def with_spectrum(system: System, loop: Loop, start: Node) -> tuple[System, Loop]:
    """The system with the state read off its spectrum, whose recurrence is entrywise, and the loop of that.

    `start` is the state before the first step. Raises `NoMatch` where the update is no circular convolution.
    """
    updates = states_and_updates(system, loop)
    if len(updates) != 1:
        raise NoMatch("several states read each other")
    (update,) = updates
    state = update.state
    if state.dtype not in ("real", "complex"):
        raise NoMatch(f"`{state.name}` is {state.dtype}: a transform would round it")
    terms, rest = split_update(system, update.rhs, (state.name,))
    moved = [shifts(system, update, t) for t in terms]
    axes = [i for i in state.indices if any(i in m for m in moved)]
    if not axes:
        raise NoMatch("the state is not shifted along an axis of its own")
    for own in axes:
        if any(own in m and m[own] is None for m in moved):
            raise NoMatch(f"outside `{own}` the state reads 0: no transform makes that entrywise")
        if any(own in t.coefficient.free | t.guard.free for t in terms):
            raise NoMatch(f"the coefficients differ along `{own}`")
    name = f"{state.name}.spectrum"
    symbol = build.total(_factor(system, t, m) for t, m in zip(terms, moved, strict=True))
    before = [
        build.add(build.index(i), build.const(update.step)) if k == update.position else build.index(i)
        for k, i in enumerate(state.indices)
    ]
    rhs = build.add(build.mul(symbol, build.read(name, before, "complex")), _transformed("fft", rest, axes))
    edges: tuple[Edge, ...] = ()
    tensors = []
    if start is not build.ZERO:
        others = tuple(i for k, i in enumerate(state.indices) if k != update.position)
        begin = Tensor(f"{name}@start", others, "complex", "derived", _transformed("fft", start, axes))
        point = build.const(-1) if update.step < 0 else build.size(update.time)
        edges, tensors = (Edge(update.position, point, begin.name),), [begin]
    comment = f"the Fourier transform of {state.name} along {', '.join(axes)}"
    tensors.append(Tensor(name, state.indices, "complex", "derived", rhs, edges=edges, comment=comment))
    back = _transformed("ifft", build.read(name, [build.index(i) for i in state.indices], "complex"), axes)
    tensors.append(replace(state, rhs=back if state.dtype == "complex" else make("re", back)))
    system = system.with_tensors(*tensors)
    return system, loop_of(system, name)


def _factor(system: System, term: Term, moved: dict[str, Node | None]) -> Node:
    """The coefficient, with exp(2 pi i f shift / n) for each shift; an axis's own index counts its frequencies."""
    turned = term.coefficient
    for own, shift in moved.items():
        assert shift is not None
        length = build.size(own)
        turns = build.div(make("mod", build.mul(build.index(own), shift), length), length)
        angle = build.mul(build.mul(build.const(2), build.const("pi")), turns)
        turned = build.mul(turned, make("exp", build.mul(build.const("i"), angle)))
    return build.reduce("sum", term.over, turned, term.guard)


def _transformed(op: str, node: Node, axes: list[str]) -> Node:
    for own in axes:
        node = make(op, node, attr=((own,), (own,), ()))
    return node

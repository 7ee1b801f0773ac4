"""Linear time-invariant systems with finitely many states for each entry: equal first taps are equality.

Two such systems of n and m states for each entry have responses c A^l b of a common linear recursion of length n + m
(Cayley and Hamilton), so the direct terms and the first n + m taps decide. They are compared as canonical forms, at the
position n + m of two systems written out from the start; the number of states is how far back each tensor is read,
summed. What contracts an axis, or starts elsewhere than at 0, is not of this kind.
"""

from __future__ import annotations

from collections.abc import Mapping

from seqdsl.algebra.affine import NoMatch, split
from seqdsl.algebra.equal import same
from seqdsl.ir import build
from seqdsl.ir.node import Node, rebuild
from seqdsl.ir.order import difference, linear
from seqdsl.ir.system import System, Tensor

_MOST_STATES = 8


def equal_taps(system: System, left: str, right: str) -> int | None:
    """The number of states of both sides together, if their taps show that they are equal; else None."""
    stream = system.stream
    if stream is None:
        return None
    try:
        counts = [_states(system, n, stream) for n in (left, right)]
    except NoMatch:
        return None
    total = sum(counts)
    if not 0 < total <= _MOST_STATES:
        return None
    a, b = (_at(system, system.tensors[n], total, stream, {}) for n in (left, right))
    names = dict(zip(system.tensors[right].indices, system.tensors[left].indices, strict=True))
    return total if same(system, a, build.substitute(b, {k: build.index(v) for k, v in names.items()})) else None


def _place(system: System, tensor: Tensor, stream: str) -> int | None:
    """Which index of a tensor runs along the stream."""
    found = [k for k, i in enumerate(tensor.indices) if system.axis(i) == stream]
    if len(found) > 1:
        raise NoMatch(f"`{tensor.name}` has two indices of one axis")
    return found[0] if found else None


def _is_told_by_axes(system: System, tensor: Tensor) -> bool:
    """No two indices run over one axis: else a read may turn them round, and an entry depends on others than itself."""
    return len({system.axis(i) for i in tensor.indices}) == len(tensor.indices)


def _states(system: System, name: str, stream: str) -> int:
    """How many numbers of the past each entry depends on. Raises `NoMatch` where the system is not of this kind."""
    furthest: dict[str, int] = {}
    pending, seen = [name], {name}
    while pending:
        tensor = system.tensors[pending.pop()]
        place = _place(system, tensor, stream)
        if tensor.rhs is None or tensor.kind != "derived" or tensor.edges or place is None:
            raise NoMatch(f"`{tensor.name}` is not given along the stream by one equation")
        if not _is_told_by_axes(system, tensor):
            raise NoMatch(f"`{tensor.name}` has two indices of one axis")
        time = tensor.indices[place]
        terms, rest = split(tensor.rhs, lambda r: _place(system, system.tensors[str(r.attr)], stream) is not None)
        if rest is not build.ZERO or any(t.over or t.guard is not build.TRUE or time in t.coefficient.free for t in terms):
            raise NoMatch(f"`{name}` is not linear and time-invariant entry by entry")
        for term in terms:
            source = system.tensors[str(term.read.attr)]
            lag = _lag(system, source, term.read, time, stream)
            furthest[source.name] = max(lag, furthest.get(source.name, 0))
            if source.kind == "derived" and source.name not in seen:
                seen.add(source.name)
                pending.append(source.name)
    return sum(furthest.values())


def _lag(system: System, source: Tensor, read: Node, time: str, stream: str) -> int:
    place = _place(system, source, stream)
    for k, subscript in enumerate(read.args):
        form = difference(build.index(time), subscript) if k == place else {}
        earlier = set(form) <= {None} and form.get(None, 0) >= 0 if k == place else system.is_own(source, k, subscript)
        if not earlier:
            raise NoMatch(f"`{read!r}` is no earlier value of the same entry")
    assert place is not None
    return int(difference(build.index(time), read.args[place]).get(None, 0))


def _at(system: System, tensor: Tensor, position: int, stream: str, done: dict[tuple[str, int], Node]) -> Node:
    """The tensor at a position of the stream, written out down to the inputs."""
    key = (tensor.name, position)
    if key not in done:
        place = _place(system, tensor, stream)
        assert place is not None and tensor.rhs is not None
        here = build.substitute(tensor.rhs, {tensor.indices[place]: build.const(position)})
        done[key] = rebuild(here, lambda n: _opened(system, n, stream, done))
    return done[key]


def _opened(system: System, node: Node, stream: str, done: dict[tuple[str, int], Node]) -> Node | None:
    source = system.tensors[str(node.attr)] if node.op == "read" else None
    place = None if source is None else _place(system, source, stream)
    if source is None or place is None:
        return None
    position = linear(node.args[place]).get(None, 0)  # a constant once the time was
    if position < 0:
        return build.ZERO
    if source.kind != "derived":
        return None
    found = _at(system, source, int(position), stream, done)
    others: Mapping[str, Node] = {i: a for k, (i, a) in enumerate(zip(source.indices, node.args, strict=True)) if k != place}
    return build.substitute(found, others)

"""Convolution form of time-invariant recurrences: `S[t] = a S[t-1] + b x[t]` with a and b that do not read t.

Unrolling gives S[t] = a^(t+1) S[-1] + sum_{l <= t} a^l b x[t-l]; a read `sum[rows] c S[t]` with c that does not read t
moves inside, so the kernel `sum[rows] c a^l b` has no state axis. The power is the closed form of the kernel for every
entrywise decay, real or complex. Backends evaluate a kernel as long as the sequence by FFT.

A kernel that sums powers over rows, `sum[n] w a^l`, is a product of two small tables: with l = 64 i + j the sum over n of
(w a^(64 i)) a^j is a matrix product, and no power is taken for each row at each lag.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from seqdsl.algebra.affine import Diagonal, NoMatch, diagonal, split, uses
from seqdsl.algebra.monomials import factors, monomials, opened
from seqdsl.forms.indices import new_index
from seqdsl.forms.reads import final_tensor, without_steps
from seqdsl.forms.scan import start_of
from seqdsl.forms.writes import last_entry
from seqdsl.ir import build
from seqdsl.ir.dependence import Loop
from seqdsl.ir.node import Node, rebuild, walk
from seqdsl.ir.ops import bound, make
from seqdsl.ir.state import reads_length
from seqdsl.ir.system import System, Tensor


@dataclass
class _Unrolling:
    """What the kernels of every read of a state are made of; `lag` says how long ago, `places` are the indices of its two
    tables, and `made` collects their tensors."""

    state: Diagonal
    writes: list[tuple[Node, Node, tuple[str, ...]]]
    start: Node
    lag: str
    places: tuple[str, str]
    made: list[Tensor] = field(default_factory=list)

    @property
    def time(self) -> str:
        """The index that the state runs along."""
        return self.state.update.time

    @property
    def name(self) -> str:
        """The state's name."""
        return self.state.update.state.name


def to_convolution(system: System, loop: Loop) -> System:
    """Rewrite each time-invariant state and its linear reads. Else `NoMatch`, naming what reads t."""
    if loop.reverse:
        raise NoMatch("the recurrence runs backwards")
    for state in diagonal(system, loop):
        system = _rewrite_state(system, loop, state)
    return system


def _rewrite_state(system: System, loop: Loop, state: Diagonal) -> System:
    time, tensor = state.update.time, state.update.state
    if time in state.decay.free:
        raise NoMatch(f"the coefficient `{state.decay!r}` depends on `{time}`")
    start, carry = start_of(system, state.update, loop)
    avoid = frozenset(i for t in system.derived() if t.rhs is not None for n in walk(t.rhs) for i in n.free)
    writes = [split_write(parts, over, time) for parts, over in monomials(state.write, avoid)]
    system, lag = lag_index(system, tensor, time)
    system, places = _table_indices(system, tensor, time)
    unrolling = _Unrolling(state, writes, start, lag, places)
    made = unrolling.made
    whole = _unrolled(unrolling, build.ONE, ())
    readers = [
        t for t in system.derived() if t.name != tensor.name and t.rhs is not None and uses(t.rhs, {tensor.name})
    ]
    changed = reread(readers, lambda n: _read(unrolling, n), made)
    changed, steps = without_steps(system, changed, [*carry, *made], {tensor.name})
    wanted = tensor.name in system.outputs or any(uses(c.rhs, {tensor.name}) for c in changed if c.rhs is not None)
    if not wanted and any(e.tensor == tensor.name for e in system.record or ()):
        last = final_tensor(state.update, last_entry(state, start))
        finals = {**system.finals, tensor.name: last.name}
        return replace(system.with_tensors(*changed, *carry, *made, last, drop=(tensor.name, *steps)), finals=finals)
    return system.with_tensors(*changed, *carry, *made, replace(tensor, rhs=whole), drop=steps)


def reread(readers: list[Tensor], read: Callable[[Node], Node | None], made: list[Tensor]) -> list[Tensor]:
    """Readers of states with their reads as convolutions, by real kernels where the signal is real; `made` collects these."""
    changed = []
    for reader in readers:
        assert reader.rhs is not None
        changed.append(replace(reader, rhs=rebuild(rebuild(reader.rhs, read), lambda n: _real_part(n, made))))
    return changed


def _real_part(node: Node, made: list[Tensor]) -> Node | None:
    """re(k * x + s) as (re k) * x + re(s) for a real signal: half of the transform, and a kernel of half the size."""
    if node.op != "re":
        return None
    inner = node.args[0]
    if inner.op == "add":
        parts = [_real_part(make("re", a), made) or make("re", a) for a in inner.args]
        return build.add(*parts)
    if inner.op != "sum" or inner.args[0].op != "mul":
        return None
    kernel, signal = inner.args[0].args
    known = {t.name: t for t in made}
    if kernel.op != "read" or kernel.attr not in known or signal.dtype == "complex":
        return None
    whole = known[str(kernel.attr)]
    label = f"{whole.name}.re"
    if label not in known:
        assert whole.rhs is not None
        made.append(Tensor(label, whole.indices, "real", "derived", make("re", whole.rhs), comment=label))
    body = build.mul(build.read(label, kernel.args, "real"), signal)
    return make("sum", body, inner.args[1], attr=inner.attr)


def lag_index(system: System, state: Tensor, time: str) -> tuple[System, str]:
    """The system with an index for how long ago something was written."""
    return new_index(system, f"{state.name}.l", build.size(time))


FINE = 64


def _table_indices(system: System, state: Tensor, time: str) -> tuple[System, tuple[str, str]]:
    """The system with indices for l // 64 and l mod 64, where l is at most the length."""
    count = build.add(make("floor_div", build.size(time), build.const(FINE)), build.ONE)
    system, coarse = new_index(system, f"{state.name}.i", count)
    system, fine = new_index(system, f"{state.name}.j", FINE)
    return system, (coarse, fine)


def _summed_power(unrolling: _Unrolling, weight: Node, exponent: Node, rows: tuple[str, ...]) -> Node:
    """sum[rows] weight * decay^exponent, read from the product of two tables."""
    state, name, made, (coarse, fine) = unrolling.state, unrolling.name, unrolling.made, unrolling.places
    if not rows or exponent.free & set(rows):
        return build.reduce("sum", rows, build.mul(weight, _power(state, exponent)))
    steps = build.mul(build.const(FINE), build.index(coarse))
    high = named(f"{name}.table{len(made)}", build.mul(weight, _power(state, steps)), coarse, made)
    low = named(f"{name}.table{len(made)}", _power(state, build.index(fine)), fine, made)
    parts = [build.whole(t) for t in (high, low)]
    body = build.reduce("sum", rows, build.product(parts))
    whole = named(f"{name}.powers{len(made)}", body, coarse, made)
    at = {coarse: make("floor_div", exponent, build.const(FINE)), fine: make("mod", exponent, build.const(FINE))}
    return build.read(whole.name, [at.get(i, build.index(i)) for i in whole.indices], whole.dtype)


def split_write(parts: list[Node], over: tuple[str, ...], time: str) -> tuple[Node, Node, tuple[str, ...]]:
    """(b, x, summed): what does not read t, what does."""
    parts = [f for part in parts for f in opened(part)]
    return (
        build.product(f for f in parts if time not in f.free),
        build.product(f for f in parts if time in f.free),
        over,
    )


def _power(state: Diagonal, exponent: Node) -> Node:
    """decay^exponent, through the logarithm where that is known: a decay near 1 that was rounded first and raised to the
    power 4096 then is off by 1e-4."""
    decay, log_decay = state.decay, state.log_decay
    if decay is build.ONE:
        return build.ONE
    if log_decay is None and state.exponent is not None:
        log_decay = state.exponent  # complex
    if log_decay is None:
        return make("pow", build.at_least_real(decay), exponent)
    still = make("eq", exponent, build.ZERO)  # a reset, exp(-inf), to the power 0 is 1
    return make("exp", build.mul(exponent, build.where(still, build.ZERO, log_decay)))


def convolve(name: str, kernel: Node, x: Node, time: str, lag: str, made: list[Tensor]) -> Node:
    """`sum[l | l <= t] kernel[l] * x[t-l]`, with the kernel and the signal as tensors of their own."""
    index, shift = build.index(lag), build.sub(build.index(time), build.index(lag))
    kernel_tensor = named(f"{name}.kernel{len(made)}", kernel, lag, made)
    signal = named(f"{name}.signal{len(made)}", x, time, made)
    at = [shift if i == time else build.index(i) for i in signal.indices]
    body = build.mul(
        build.whole(kernel_tensor),
        build.read(signal.name, at, signal.dtype),
    )
    return build.reduce("sum", (lag,), body, make("le", index, build.index(time)))


def convolved(system: System, node: Node) -> tuple[list[Node], Node] | None:
    """The kernel's factors and the signal's read of a sum over all earlier positions, as `convolve` makes it; else None."""
    if node.op != "sum" or len(bound(node)) != 1 or node.args[1].op != "le":
        return None
    index, time = node.args[1].args
    if time.op != "index" or index is not build.index(bound(node)[0]) or not _as_long(system, str(index.attr), str(time.attr)):
        return None
    parts, past = factors(node.args[0]), build.sub(time, index)
    signals = [f for f in parts if f.op == "read" and past in f.args]
    kernel = [f for f in parts if f not in signals]
    if len(signals) != 1 or any(str(time.attr) in f.free for f in kernel):
        return None
    return kernel, signals[0]


def _as_long(system: System, lag: str, time: str) -> bool:
    """Does an index run as far as time does, or nearly so?"""
    size, axis = system.index(lag).size, system.axis(time)
    return system.axis(lag) == axis or size is not None and reads_length(system, size, axis)


def named(name: str, node: Node, first: str, made: list[Tensor]) -> Tensor:
    """The expression as a tensor of its own, collected in `made`."""
    tensor = Tensor(name, (first, *sorted(node.free - {first})), node.dtype, "derived", node, comment=name)
    made.append(tensor)
    return tensor


def _unrolled(unrolling: _Unrolling, weight: Node, rows: tuple[str, ...]) -> Node:
    """sum[rows] weight * S[t], unrolled."""
    time, lag, made = unrolling.time, unrolling.lag, unrolling.made
    result = build.ZERO
    for b, x, over in unrolling.writes:
        inner = tuple(i for i in (*rows, *over) if i not in x.free)
        outer = tuple(i for i in (*rows, *over) if i in x.free)
        kernel = _summed_power(unrolling, build.mul(weight, b), build.index(lag), inner)
        result = build.add(result, build.reduce("sum", outer, convolve(unrolling.name, kernel, x, time, lag, made)))
    if unrolling.start is not build.ZERO:
        steps = build.add(build.sub(build.index(time), make("first", attr=time)), build.ONE)
        result = build.add(result, _summed_power(unrolling, build.mul(weight, unrolling.start), steps, rows))
    return result


def _read(unrolling: _Unrolling, node: Node) -> Node | None:
    """A contraction of the state with weights that do not read t, as a convolution; None where it is not one."""
    tensor, time = unrolling.state.update.state, unrolling.time
    if node.op != "sum" or node.args[1] is not build.TRUE or not uses(node, {tensor.name}):
        return None
    rows = tuple(i for i in bound(node) if i in tensor.indices)
    if len(rows) != len(bound(node)):
        return None
    terms, rest = split(node.args[0], lambda r: r.attr == tensor.name)
    plain = all(
        t.read.args == tuple(build.index(i) for i in tensor.indices) and not t.over and time not in t.coefficient.free
        for t in terms
    )
    if not plain:
        return None
    result = build.ZERO
    for term in terms:
        result = build.add(result, _unrolled(unrolling, term.coefficient, rows))
    return result if rest is build.ZERO else build.add(result, build.make("sum", rest, build.TRUE, attr=node.attr))

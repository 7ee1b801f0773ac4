"""The value of one expression, literally: the inner half of the reference interpreter (`interpreter` is the outer one).

A value is an array with named dimensions, one for each index it varies along; operands are aligned by name. A read at
bare indices is a piece of what is stored; any other one is a gather at integer positions, with `System`'s rules for what
lies outside. Guards and `where` travel down as a mask, so that nothing is read where nothing is evaluated, and every read
is checked against what has been computed.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from seqdsl.ir import build
from seqdsl.ir.node import Node
from seqdsl.ir.ops import OPS, bound, made, operand_axes, options
from seqdsl.ir.scan_values import scan_value
from seqdsl.ir.sizes import SizeError
from seqdsl.ir.system import Edge, Monoid, Tensor
from seqdsl.ir.values import Array, Run, Store, Undefined, Value, union

__all__ = ["Array", "Evaluation", "Run", "Store", "Undefined", "Value"]


@dataclass
class Evaluation:
    """Evaluation of one equation; `looped` fixes indices, `local` holds a monoid's pseudo-tensors."""

    run: Run
    looped: Mapping[str, int]
    local: Mapping[str, tuple[tuple[str, ...], Value]] = field(default_factory=dict)
    done: dict[tuple[Node, int], Value] = field(default_factory=dict)
    masks: list[Value] = field(default_factory=list)

    def value(self, node: Node, mask: Value | None) -> Value:
        """The value of a node where the mask holds (anything elsewhere)."""
        key = (node, id(mask))
        if key not in self.done:
            if mask is not None:
                self.masks.append(mask)  # keeps the mask alive, so that its id stays its own
            self.done[key] = self._value(node, mask)
        return self.done[key]

    def _value(self, node: Node, mask: Value | None) -> Value:
        match node.op:
            case "const":
                return Value((), _constant(node))
            case "index":
                return self._positions(str(node.attr))
            case "size":
                return Value((), np.asarray(self.run.sizes[str(node.attr)]))
            case "first":
                return Value((), np.asarray(self.run.extent(str(node.attr))[0]))
            case "option":
                return Value((), np.asarray(self.run.sizes.options[str(node.attr)]))
            case "read":
                if node.attr in self.local:
                    return self._local(str(node.attr), [self.value(a, mask) for a in node.args])
                stored = self._stored(node, mask)
                if stored is not None:
                    return stored
                return self._read(self.run.system.tensors[str(node.attr)], [self.value(a, mask) for a in node.args], mask)
            case "where":
                condition = self.value(node.args[0], mask)
                yes, no = self._and(mask, condition), self._and(mask, Value(condition.dims, ~condition.data))
                return self._apply(node, [condition, self.value(node.args[1], yes), self.value(node.args[2], no)])
        binding = OPS[node.op].binding
        if binding in ("reduce", "along"):
            return self._reduce(node, mask)
        if binding == "map":
            return self._map(node, mask)
        if binding in ("scan", "last"):
            return scan_value(self, node, mask)
        if binding == "fold":
            return self._fold(node, mask)
        return self._apply(node, [self.value(a, mask) for a in node.args])

    def _positions(self, name: str) -> Value:
        if name in self.looped:
            return Value((), np.asarray(self.looped[name]))
        start, length = self.run.extent(name)
        return Value((name,), np.arange(start, start + length))

    def _and(self, mask: Value | None, more: Value) -> Value:
        if mask is None:
            return more
        dims = union([mask, more])
        return Value(dims, mask.spread(dims) & more.spread(dims))

    def _apply(self, node: Node, args: list[Value]) -> Value:
        dims = union(args)
        reference = OPS[node.op].reference
        assert reference is not None
        return Value(dims, np.asarray(reference(*(a.spread(dims) for a in args), **options(node))))

    def _stored(self, node: Node, mask: Value | None) -> Value | None:
        """A read at one position or at a bare index on each axis, `X[t-1,c]` at some t, as the piece of what is stored there.
        None for any other read, and where some of it is outside the axes or not computed."""
        store = self.run.stores[str(node.attr)]
        dims: list[str] = []
        where: list[int | slice] = []
        for k, subscript in enumerate(node.args):
            base, name = store.base if k == store.axis else 0, str(subscript.attr)
            if subscript.op == "index" and name not in self.looped:
                start, length = self.run.extent(name)
                where.append(slice(start - base, start - base + length))
                dims.append(name)
            else:
                place = self.value(subscript, mask)
                if place.dims:
                    return None
                start, length = int(place.data), 1
                where.append(start - base)
            if not base <= start <= start + length <= base + store.data.shape[k]:
                return None
        if len(set(dims)) < len(dims) or store.known is not None and not store.known[tuple(where)].all():
            return None
        return Value(tuple(dims), np.asarray(store.data[tuple(where)]))

    def _read(self, tensor: Tensor, subscripts: list[Value], mask: Value | None) -> Value:
        """A gather at the positions; `needed` are the points of them that some point of the mask asks for."""
        store, dims = self.run.stores[tensor.name], union(subscripts)
        at = [s.spread(dims) for s in subscripts]
        mask = self.without(mask, tuple(d for d in mask.dims if d not in dims)) if mask is not None else None
        needed = mask.spread(dims) if mask is not None else np.asarray(True)
        base = [store.base if k == store.axis else 0 for k in range(len(at))]
        inside = [(p >= b) & (p < b + n) for p, b, n in zip(at, base, store.data.shape, strict=True)]
        within = functools.reduce(np.logical_and, inside, np.asarray(True))
        if store.data.size:
            clipped = tuple(np.where(i, p - b, 0) for i, p, b in zip(inside, at, base, strict=True))
            result = np.where(within, store.data[clipped], np.zeros((), store.data.dtype))
            if store.known is not None and not np.all(store.known[clipped] | ~within | ~needed):
                raise Undefined(f"`{tensor.name}` is read before it is computed")
        else:
            result = np.zeros(within.shape, store.data.dtype)
        return self._outside(tensor, store, dims, at, inside, result, needed)

    def _outside(
        self,
        tensor: Tensor,
        store: Store,
        dims: tuple[str, ...],
        at: list[Array],
        inside: list[Array],
        result: Array,
        needed: Array,
    ) -> Value:
        """Edges, and the boundary value of a state record, where a read leaves the axes."""
        handled = functools.reduce(np.logical_and, inside, np.asarray(True))
        if store.boundary is not None and store.axis is not None:
            early = ~handled & (at[store.axis] >= 0) & (at[store.axis] < store.base)
            rest = tuple(np.where(early, p, 0) for k, p in enumerate(at) if k != store.axis)
            result = np.where(early, store.boundary[rest], result)
            handled = handled | early
        for edge in tensor.edges:
            point = self.value(edge.point, None).spread(dims) + self._begin(tensor, edge)
            chosen = ~handled & ~inside[edge.position] & (at[edge.position] == point)
            if np.any(chosen & needed):
                rest_values = [Value(dims, np.broadcast_to(p, result.shape)) for k, p in enumerate(at) if k != edge.position]
                owner = self.run.system.tensors[edge.tensor]
                found = self._read(owner, rest_values, Value(dims, np.broadcast_to(chosen & needed, result.shape)))
                result = np.where(chosen, found.spread(dims), result)
            handled = handled | chosen
        return Value(dims, result)

    def _begin(self, tensor: Tensor, edge: Edge) -> int:
        """The position that what lies before the first one is counted from: that of the new ones, for a recurrence along the
        stream that a form starts and no state holds; 0 for a base case."""
        first = build.value_of(edge.point)
        streamed = self.run.system.axis(tensor.indices[edge.position]) == self.run.system.stream
        held = any(entry.tensor == tensor.name for entry in self.run.entries)
        return self.run.offset if streamed and first is not None and first < 0 and not held else 0

    def _flat(self, value: Value, last: tuple[str, ...]) -> tuple[tuple[str, ...], Array]:
        """The array with `last` as its last axes, spelled out and flattened."""
        rest = tuple(d for d in value.dims if d not in last)
        lengths = [self.run.extent(d)[1] for d in last]
        data = value.spread((*rest, *last))
        data = np.broadcast_to(data, (*data.shape[: len(rest)], *lengths))
        return rest, data.reshape(*data.shape[: len(rest)], math.prod(lengths))

    def _inner(self, node: Node) -> Evaluation:
        """Evaluation below a binder: its indices are no longer looped."""
        hidden = [n for n in bound(node) if n in self.looped]
        if not hidden:
            return self
        return Evaluation(self.run, {k: v for k, v in self.looped.items() if k not in hidden}, self.local)

    def _reduce(self, node: Node, mask: Value | None) -> Value:
        names, inner = bound(node), self._inner(node)
        mask = self.without(mask, names)
        guard = inner.value(node.args[-1], mask)
        allowed_here = inner._and(mask, guard)
        bodies = [inner.value(a, allowed_here) for a in node.args[:-1]]
        both = union([*bodies, guard])
        first = bodies[0].spread(both)
        data = [self._flat(Value(both, b.spread(both)), names)[1] for b in bodies]
        rest, allowed = self._flat(Value(both, guard.spread(both) & np.ones_like(first, bool)), names)
        reference = OPS[node.op].reference
        assert reference is not None
        result = np.asarray(reference(*data, allowed, **options(node)))
        if OPS[node.op].binding == "reduce":
            return Value(rest, result)
        lengths = [self.run.extent(d)[1] for d in names]
        return self.at_loops(Value((*rest, *names), result.reshape(*result.shape[: len(rest)], *lengths)))

    def without(self, mask: Value | None, names: tuple[str, ...]) -> Value | None:
        """A mask for below a binder: where some point of the shadowed indices is wanted."""
        if mask is None or not set(names) & set(mask.dims):
            return mask
        axes = tuple(k for k, d in enumerate(mask.dims) if d in names)
        return Value(tuple(d for d in mask.dims if d not in names), np.asarray(mask.data.any(axes)))

    def at_loops(self, value: Value) -> Value:
        """Pick the current position of looped indices that an operator has spelled out."""
        for name in [d for d in value.dims if d in self.looped]:
            k = value.dims.index(name)
            data = np.take(value.data, self.looped[name] - self.run.extent(name)[0], axis=k)
            value = Value(value.dims[:k] + value.dims[k + 1 :], data)
        return value

    def _map(self, node: Node, mask: Value | None) -> Value:
        consumed, produced = bound(node), made(node)
        inner = self._inner(node)
        args = [inner.value(a, self.without(mask, consumed)) for a in node.args]
        reference = OPS[node.op].reference
        assert reference is not None
        owns = operand_axes(node)
        last = {d for own in owns for d in own}
        rest = tuple(dict.fromkeys(d for a in args for d in a.dims if d not in last))
        arrays = []
        for arg, own in zip(args, owns, strict=True):
            lengths = [self.run.extent(d)[1] for d in own]
            data = arg.spread((*rest, *own))
            arrays.append(np.broadcast_to(data, (*data.shape[: len(rest)], *lengths)))
        n = self.run.extent(produced[-1])[1]
        if node.op != "matrix_taps":
            _check_lengths(node, arrays[0].shape[-2:] if node.op in ("solve", "qr") else arrays[0].shape[-1:], n)
        return self.at_loops(Value((*rest, *produced), np.asarray(reference(*arrays, n=n))))

    def _local(self, name: str, subscripts: list[Value]) -> Value:
        """A read of a pseudo-tensor: its own indices are subscripted, its other dimensions stay."""
        own, value = self.local[name]
        extra = tuple(d for d in value.dims if d not in own)
        data = value.spread((*extra, *own))
        lengths = [self.run.extent(d)[1] for d in own]
        data = np.broadcast_to(data, (*data.shape[: len(extra)], *lengths))
        dims = (*extra, *(d for d in union(subscripts) if d not in extra))
        places = [np.arange(data.shape[k]).reshape([-1 if d == e else 1 for e in dims]) for k, d in enumerate(extra)]
        at = [s.spread(dims) for s in subscripts]
        inside = np.asarray(True)
        for positions, length in zip(at, lengths, strict=True):
            inside = inside & (positions >= 0) & (positions < length)
        if not places and not at:
            return Value((), data)
        found = data[tuple(np.broadcast_arrays(*places, *(np.where(inside, p, 0) for p in at)))]
        return Value(dims, np.where(inside, found, 0))

    def _fold(self, node: Node, mask: Value | None) -> Value:
        """A declared monoid: for each outer position the balanced tree over its own points."""
        monoid = self.run.system.monoids[str(node.attr[0])]
        names, inner = bound(node), self._inner(node)
        mask = self.without(mask, names)
        guard = inner._and(mask, inner.value(node.args[-1], mask))
        args = [inner.value(a, guard) for a in node.args[:-1]]
        lifted = self._lift(monoid, args)
        outer = tuple(d for d in guard.dims if d not in names)
        _, allowed = self._flat(guard, names)
        wanted = np.broadcast_to(True if mask is None else mask.spread(outer), allowed.shape[:-1])
        fields = {n: self._flat(v, names) for n, v in lifted.items()}
        pieces = {}
        for place in itertools.product(*(range(n) for n in allowed.shape[:-1])):
            if not wanted[place]:
                continue
            fixed = dict(zip(outer, place, strict=True))
            leaves = []
            for point in np.flatnonzero(allowed[place]):
                leaves.append({n: _pick(dims, data[..., point], fixed) for n, (dims, data) in fields.items()})
            pieces[place] = self._project(monoid, self._tree(monoid, leaves))
        return self._assemble(outer, allowed.shape[:-1], pieces, monoid)

    def _assemble(
        self, outer: tuple[str, ...], shape: tuple[int, ...], pieces: dict[tuple[int, ...], Value], monoid: Monoid
    ) -> Value:
        """The folds at all outer positions as one value; 0 over all of its dimensions where there is none."""
        if not pieces:
            own = next(t.indices for t in monoid.project if t.name == monoid.output)
            dims = (*outer, *(d for d in own if d not in outer))
            return Value(dims, np.zeros([self.run.extent(d)[1] for d in dims]))
        inner_dims = union(list(pieces.values()))
        sample = np.broadcast_shapes(*(v.spread(inner_dims).shape for v in pieces.values()))
        result = np.zeros((*shape, *sample), np.result_type(*(v.data.dtype for v in pieces.values())))
        for place, value in pieces.items():
            result[place] = value.spread(inner_dims)
        return self.at_loops(Value((*outer, *inner_dims), result))

    def _lift(self, monoid: Monoid, args: list[Value]) -> dict[str, Value]:
        local = {n: (idx, v) for (n, idx), v in zip(monoid.lift_params, args, strict=True)}
        inner = Evaluation(self.run, {}, local)
        return {n: inner.value(e, None) for (n, _), e in zip(monoid.fields, monoid.lift, strict=True)}

    def _tree(self, monoid: Monoid, level: list[dict[str, Value]]) -> dict[str, Value]:
        """Neighbours paired, an odd last one passed up, until one element is left."""
        if not level:
            if monoid.identity is None:
                raise SizeError("empty-fold", f"`{monoid.name}` has no identity, and a fold is empty")
            inner = Evaluation(self.run, {})
            return {n: inner.value(e, None) for (n, _), e in zip(monoid.fields, monoid.identity, strict=True)}
        while len(level) > 1:
            paired = [self._combine(monoid, a, b) for a, b in zip(level[::2], level[1::2], strict=False)]
            level = paired + ([level[-1]] if len(level) % 2 else [])
        return level[0]

    def _combine(self, monoid: Monoid, a: dict[str, Value], b: dict[str, Value]) -> dict[str, Value]:
        local = {f"{side}.{n}": (idx, element[n]) for side, element in (("a", a), ("b", b)) for n, idx in monoid.fields}
        return self._equations(monoid.combine, local, [n for n, _ in monoid.fields])

    def _project(self, monoid: Monoid, element: dict[str, Value]) -> Value:
        local = {n: (idx, element[n]) for n, idx in monoid.fields}
        return self._equations(monoid.project, local, [monoid.output])[monoid.output]

    def _equations(
        self, equations: tuple[Tensor, ...], local: dict[str, tuple[tuple[str, ...], Value]], wanted: list[str]
    ) -> dict[str, Value]:
        for equation in equations:
            assert equation.rhs is not None
            value = Evaluation(self.run, {}, local).value(equation.rhs, None)
            local = {**local, equation.name: (equation.indices, value)}
        return {n: local[n][1] for n in wanted}


def _check_lengths(node: Node, lengths: tuple[int, ...], n: int) -> None:
    """The lengths of consumed and made axes must suit the transform."""
    expected = {"rfft": lengths[0] // 2 + 1, "irfft": n}.get(node.op, lengths[-1] if node.op == "qr" else lengths[0])
    given = f"the lengths are {', '.join(map(str, lengths))} before, {n} after"
    if n != expected or (node.op == "irfft" and lengths[0] != n // 2 + 1) or (node.op == "qr" and lengths[0] < n):
        raise SizeError("size-mismatch", f"`{node.op}` does not fit its axes", given)
    if node.op == "hadamard" and n & (n - 1):
        raise SizeError("bad-size", "`hadamard` needs a power of two", given)


def _pick(dims: tuple[str, ...], data: Array, fixed: Mapping[str, int]) -> Value:
    for name, place in fixed.items():
        if name in dims:
            k = dims.index(name)
            data, dims = np.take(data, place, axis=k), dims[:k] + dims[k + 1 :]
    return Value(dims, data)


def _constant(node: Node) -> Array:
    value: Any = {"inf": np.inf, "pi": np.pi, "i": 1j}.get(node.attr) if isinstance(node.attr, str) else node.attr
    return np.asarray(value if isinstance(value, bool | complex) or node.dtype == "int" else float(value))

"""A second evaluator of systems, for comparison: one point at a time, on demand, with Python's own numbers.

It shares nothing with the interpreter but the system: no arrays, no schedule, no masks. A point that is asked for is
computed from the points it reads; what lies behind a guard is never asked for. `SCALAR`, `REDUCE` and `ALONG` are the
operators' meanings once more, written from LANGUAGE.md. Entry point: `evaluate`.
"""

from __future__ import annotations

import cmath
import itertools
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from seqdsl.ir.initial import initial_values
from seqdsl.ir.node import Node
from seqdsl.ir.ops import OPS, bound, made, options
from seqdsl.ir.sizes import bind
from seqdsl.ir.system import Monoid, System, Tensor

Number = bool | int | float | complex
Element = dict[str, dict[tuple[int, ...], Number]]


def _guarded(function: Callable[..., Number]) -> Callable[..., Number]:
    """IEEE results where Python raises."""

    def safe(*args: Number) -> Number:
        try:
            return function(*args)
        except OverflowError:
            return math.inf
        except (ValueError, ZeroDivisionError):
            return math.nan

    return safe


def _either(real: Callable[[float], float], full: Callable[[complex], complex]) -> Callable[..., Number]:
    return lambda x: full(x) if isinstance(x, complex) else real(float(x))


def _divide(a: Number, b: Number) -> Number:
    if b == 0:
        return math.nan if a == 0 or isinstance(a, complex) else math.copysign(math.inf, a) * math.copysign(1, b)
    return a / b


def _log(x: float) -> float:
    return -math.inf if x == 0 else math.log(x)


def _power(a: Number, b: Number) -> Number:
    if a == 0 and isinstance(b, float) and b < 0:
        return math.inf
    found = a**b
    return math.nan if isinstance(found, complex) and not isinstance(a, complex) else found  # (-8) ^ 0.5


def _softplus(x: float) -> float:
    return x + math.log1p(math.exp(-x)) if x > 0 else math.log1p(math.exp(x))


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x > -700 else 0.0


def _logaddexp(a: float, b: float) -> float:
    top = max(a, b)
    return top if math.isinf(top) else top + math.log(math.exp(a - top) + math.exp(b - top))


def _sign(x: float) -> float:
    return type(x)((x > 0) - (x < 0)) if not isinstance(x, bool) else int(x)


SCALAR: dict[str, Callable[..., Number]] = {
    "add": lambda a, b: a + b, "sub": lambda a, b: a - b, "mul": lambda a, b: a * b, "div": _divide,
    "exact_div": lambda a, b: a // b, "floor_div": lambda a, b: a // b, "mod": lambda a, b: a % b,
    "pow": _guarded(_power), "neg": lambda a: -a,
    "newton": lambda step, *more: step, "front": lambda step, **geometry: step,
    "level": lambda step: step, "over_ranks": lambda step: step,
    "maximum": lambda a, b: a if a >= b else b, "minimum": lambda a, b: a if a <= b else b,
    "lt": lambda a, b: a < b, "le": lambda a, b: a <= b, "eq": lambda a, b: a == b, "ne": lambda a, b: a != b,
    "not": lambda a: not a, "exp": _guarded(_either(math.exp, cmath.exp)),
    "log": _guarded(_either(_log, cmath.log)), "log2": _guarded(lambda x: _log(x) / math.log(2)),
    "sqrt": _guarded(_either(math.sqrt, cmath.sqrt)), "abs": lambda x: abs(x), "sign": lambda x: _sign(x),
    "sin": _either(math.sin, cmath.sin), "cos": _either(math.cos, cmath.cos), "tanh": math.tanh,
    "sigmoid": _sigmoid, "log_sigmoid": lambda x: -_softplus(-x), "softplus": _softplus,
    "inv_softplus": _guarded(lambda x: x + _log(-math.expm1(-x))), "silu": lambda x: x * _sigmoid(x),
    "gelu": lambda x: x / 2 * (1 + math.erf(x / math.sqrt(2))), "relu": lambda x: x if x > 0 else 0 * x,
    "leaky_relu": lambda x, slope=0.2: x if x > 0 else float(slope) * x,
    "elu": lambda x: x if x > 0 else math.expm1(x), "erf": math.erf, "expm1": _guarded(math.expm1),
    "log1p": _guarded(lambda x: -math.inf if x == -1 else math.log1p(x)), "logaddexp": _logaddexp,
    "clamp": lambda x, low, high: min(max(x, low), high),
    "floor": math.floor, "ceil": math.ceil, "round": lambda x, grad="": type(x)(round(x)) if x == x else x,
    "step": lambda x, grad="": 1.0 if x >= 0 else 0.0, "stop": lambda x: x,
    "xor": lambda a, b: a ^ b, "bit_and": lambda a, b: a & b, "bit_length": lambda a: int(a).bit_length(),
    "popcount": lambda a: bin(a).count("1"), "re": lambda x: x.real, "im": lambda x: x.imag,
    "conj": lambda x: x.conjugate(),
}  # fmt: skip


def _logsumexp(values: Sequence[float]) -> float:
    top = max(values, default=-math.inf)
    return top if math.isinf(top) else top + math.log(sum(math.exp(v - top) for v in values))


REDUCE: dict[str, Callable[[Sequence[Any]], Number]] = {  # of the values at the guard's points, in row-major order
    "sum": lambda v: sum(v), "mean": lambda v: sum(v) / len(v) if v else 0.0, "prod": lambda v: math.prod(v),
    "max": lambda v: max(v, default=-math.inf), "min": lambda v: min(v, default=math.inf), "logsumexp": _logsumexp,
    "any": lambda v: any(v), "all": lambda v: all(v),
}  # fmt: skip


def _softmax(v: Sequence[float]) -> list[float]:
    total = _logsumexp(v)
    return [math.exp(x - total) if total > -math.inf else 0.0 for x in v]


def _rank(v: Sequence[float]) -> list[int]:
    order = sorted(range(len(v)), key=lambda k: (-v[k], k))
    return [order.index(k) for k in range(len(v))]


def _rms(v: Sequence[float], eps: float = 1e-6) -> list[float]:
    scale = math.sqrt(sum(x * x for x in v) / len(v) + eps) if v else 1.0
    return [x / scale for x in v]


def _layer(v: Sequence[float], eps: float = 1e-6) -> list[float]:
    mean = sum(v) / len(v) if v else 0.0
    return _rms([x - mean for x in v], eps)


def _l2(v: Sequence[float], eps: float = 1e-12) -> list[float]:
    scale = math.sqrt(sum(x * x for x in v) + eps)
    return [x / scale for x in v]


ALONG: dict[str, Callable[..., list[Any]]] = {  # the same values in, as many out
    "softmax": _softmax, "rank": _rank, "rms_norm": _rms, "layer_norm": _layer, "l2_norm": _l2,
    "cumsum": lambda v: list(itertools.accumulate(v)),
}  # fmt: skip


def _dft(v: Sequence[complex], sign: int, length: int) -> list[complex]:
    n = len(v)
    return [sum(x * cmath.exp(sign * 2j * math.pi * j * k / n) for j, x in enumerate(v)) for k in range(length)]


def _irfft(v: Sequence[complex], n: int) -> list[float]:
    whole = [v[k] if k < len(v) else complex(v[n - k]).conjugate() for k in range(n)]
    whole[0] = complex(whole[0]).real + 0j
    if n % 2 == 0:
        whole[n // 2] = complex(whole[n // 2]).real + 0j
    return [y.real / n for y in _dft(whole, 1, n)]


def _hadamard(v: Sequence[float], n: int) -> list[float]:
    if n == 1:
        return list(v)
    a, b = _hadamard(v[: n // 2], n // 2), _hadamard(v[n // 2 :], n // 2)
    return [(x + y) / math.sqrt(2) for x, y in zip(a, b, strict=True)] + [
        (x - y) / math.sqrt(2) for x, y in zip(a, b, strict=True)
    ]


def _dct(v: Sequence[float], n: int) -> list[float]:
    def entry(k: int) -> float:
        scale = math.sqrt((1 if k == 0 else 2) / n)
        return scale * sum(x * math.cos(math.pi * (2 * i + 1) * k / (2 * n)) for i, x in enumerate(v))

    return [entry(k) for k in range(n)]


TRANSFORM: dict[str, Callable[..., list[Any]]] = {
    "fft": lambda v, n: _dft(v, -1, n), "ifft": lambda v, n: [y / n for y in _dft(v, 1, n)],
    "rfft": lambda v, n: _dft(v, -1, n), "irfft": _irfft, "hadamard": _hadamard, "dct": _dct,
}  # fmt: skip


def solve_by_elimination(matrix: list[list[Any]], right: list[Any]) -> list[Any]:
    """x with A x = b, by Gauss with the largest pivot."""
    rows = [[*row, b] for row, b in zip(matrix, right, strict=True)]
    for k in range(len(rows)):
        best = max(range(k, len(rows)), key=lambda r: abs(rows[r][k]))
        rows[k], rows[best] = rows[best], rows[k]
        for r in range(len(rows)):
            if r != k:
                factor = rows[r][k] / rows[k][k]
                rows[r] = [x - factor * y for x, y in zip(rows[r], rows[k], strict=True)]
    return [row[-1] / row[k] for k, row in enumerate(rows)]


def gram_schmidt(columns: list[list[float]]) -> list[list[float]]:
    """Orthonormal columns with the same leading spans, in the same directions."""
    found: list[list[float]] = []
    for column in columns:
        for q in found:
            inner = sum(a * b for a, b in zip(q, column, strict=True))
            column = [a - inner * b for a, b in zip(column, q, strict=True)]
        norm = math.sqrt(sum(a * a for a in column))
        found.append([a / norm for a in column])
    return found


class _Pointwise:
    def __init__(
        self, system: System, inputs: Mapping[str, Any], params: Mapping[str, Any], sizes: Mapping[str, int]
    ) -> None:
        lengths = {n: v for n, v in sizes.items() if n in system.indices}
        for tensor in system.inputs():
            lengths.update(zip((system.axis(i) for i in tensor.indices), np.shape(inputs[tensor.name]), strict=True))
        self.system, self.sizes = system, bind(system, {n: v for n, v in sizes.items() if n in system.options}, lengths)
        given = {n: np.asarray(v) for n, v in inputs.items()}
        self.given = {**given, **initial_values(system, self.sizes, params)}
        self.points: dict[tuple[str, tuple[int, ...]], Number] = {}

    def output(self, name: str) -> np.ndarray:
        shape = [self.sizes[i] for i in self.system.tensors[name].indices]
        values = [self.point(self.system.tensors[name], place) for place in np.ndindex(*shape)]
        return np.asarray(values).reshape(shape)

    def point(self, tensor: Tensor, place: tuple[int, ...]) -> Number:
        if tensor.name in self.given:
            return self.given[tensor.name][place].item()
        key = (tensor.name, place)
        if key not in self.points:
            assert tensor.rhs is not None
            self.points[key] = self.value(tensor.rhs, dict(zip(tensor.indices, place, strict=True)), {})
        return self.points[key]

    def read(self, tensor: Tensor, place: tuple[int, ...]) -> Number:
        outside = [k for k, (p, i) in enumerate(zip(place, tensor.indices, strict=True)) if not 0 <= p < self.sizes[i]]
        if not outside:
            return self.point(tensor, place)
        for edge in tensor.edges:
            if edge.position in outside and place[edge.position] == self.value(edge.point, {}, {}):
                rest = place[: edge.position] + place[edge.position + 1 :]
                return self.read(self.system.tensors[edge.tensor], rest)
        return False if tensor.dtype == "bool" else 0

    def value(self, node: Node, at: dict[str, int], local: Mapping[str, Any]) -> Number:
        match node.op:
            case "const":
                named = {"inf": math.inf, "pi": math.pi, "i": 1j}
                return (
                    named[node.attr]
                    if isinstance(node.attr, str)
                    else (node.attr if node.dtype in ("bool", "int") else float(node.attr))
                )  # type: ignore[return-value]
            case "index":
                return at[str(node.attr)]
            case "size":
                return self.sizes[str(node.attr)]
            case "option":
                return self.sizes.options[str(node.attr)]
            case "read":
                place = tuple(int(self.value(a, at, local)) for a in node.args)  # type: ignore[arg-type]
                if node.attr in local:
                    return local[str(node.attr)].get(place, 0)
                return self.read(self.system.tensors[str(node.attr)], place)
            case "where":
                return self.value(node.args[1 if self.value(node.args[0], at, local) else 2], at, local)
            case "and":
                return bool(self.value(node.args[0], at, local) and self.value(node.args[1], at, local))
            case "or":
                return bool(self.value(node.args[0], at, local) or self.value(node.args[1], at, local))
        if OPS[node.op].binding:
            return self.binder(node, at, local)
        return SCALAR[node.op](*(self.value(a, at, local) for a in node.args), **options(node))

    def binder(self, node: Node, at: dict[str, int], local: Mapping[str, Any]) -> Number:
        places = itertools.product(*(range(self.sizes[i]) for i in bound(node)))
        points = [{**at, **dict(zip(bound(node), place, strict=True))} for place in places]
        if OPS[node.op].binding == "map":
            return self.transform(node, at, local, points)
        allowed = [p for p in points if self.value(node.args[-1], p, local)]
        if node.op == "fold":
            return self.fold(node, at, local, allowed)
        values = [self.value(node.args[0], p, local) for p in allowed]
        if node.op == "argmax":
            best = max(range(len(values)), key=lambda k: (values[k], -k))
            return points.index(allowed[best])
        if OPS[node.op].binding == "reduce":
            return REDUCE[node.op](values)
        settings = {k: float(v) for k, v in options(node).items()}
        return ALONG[node.op](values, **settings)[allowed.index(at)] if at in allowed else 0

    def transform(
        self, node: Node, at: dict[str, int], local: Mapping[str, Any], points: list[dict[str, int]]
    ) -> Number:
        n = self.sizes[made(node)[-1]]
        if node.op == "solve":
            (_d,), (f,) = bound(node), made(node)
            matrix = [[self.value(node.args[0], {**p, f: k}, local) for k in range(n)] for p in points]
            return solve_by_elimination(matrix, [self.value(node.args[1], p, local) for p in points])[at[f]]
        values = [self.value(node.args[0], p, local) for p in points]
        return TRANSFORM[node.op](values, n)[at[made(node)[-1]]]

    def fold(self, node: Node, at: dict[str, int], local: Mapping[str, Any], allowed: list[dict[str, int]]) -> Number:
        monoid = self.system.monoids[str(node.attr[0])]  # type: ignore[index]
        level = [self.lift(monoid, node.args[:-1], p, local) for p in allowed]
        if not level:
            assert monoid.identity is not None
            level = [{n: self.whole(i, e, {}) for (n, i), e in zip(monoid.fields, monoid.identity, strict=True)}]
        while len(level) > 1:
            pairs = [self.combine(monoid, a, b) for a, b in zip(level[::2], level[1::2], strict=False)]
            level = pairs + level[len(level) - len(level) % 2 :]
        result = self.equations(monoid.project, dict(level[0]))[monoid.output]
        output = next(t for t in monoid.project if t.name == monoid.output)
        return result[tuple(at[m] for m, _ in zip(node.attr[2], output.indices, strict=True))]  # type: ignore[index]

    def lift(self, monoid: Monoid, args: tuple[Node, ...], at: dict[str, int], local: Mapping[str, Any]) -> Element:
        given = {}
        for (name, indices), arg in zip(monoid.lift_params, args, strict=True):
            places = itertools.product(*(range(self.sizes[i]) for i in indices))
            given[name] = {p: self.value(arg, {**at, **dict(zip(indices, p, strict=True))}, local) for p in places}
        return {n: self.whole(i, e, given) for (n, i), e in zip(monoid.fields, monoid.lift, strict=True)}

    def whole(self, indices: tuple[str, ...], node: Node, local: Mapping[str, Any]) -> dict[tuple[int, ...], Number]:
        places = itertools.product(*(range(self.sizes[i]) for i in indices))
        return {p: self.value(node, dict(zip(indices, p, strict=True)), local) for p in places}

    def combine(self, monoid: Monoid, a: Element, b: Element) -> Element:
        given = {**{f"a.{n}": v for n, v in a.items()}, **{f"b.{n}": v for n, v in b.items()}}
        found = self.equations(monoid.combine, given)
        return {n: found[n] for n, _ in monoid.fields}

    def equations(self, equations: tuple[Tensor, ...], local: dict[str, Any]) -> dict[str, Any]:
        for equation in equations:
            assert equation.rhs is not None
            local = {**local, equation.name: self.whole(equation.indices, equation.rhs, local)}
        return local


def evaluate(
    system: System,
    *,
    inputs: Mapping[str, Any],
    params: Mapping[str, Any] | None = None,
    sizes: Mapping[str, int] | None = None,
) -> dict[str, np.ndarray]:
    """The outputs by name."""
    found, limit = _Pointwise(system, inputs, params or {}, sizes or {}), sys.getrecursionlimit()
    sys.setrecursionlimit(20000)
    try:
        return {name: found.output(name) for name in system.outputs}
    finally:
        sys.setrecursionlimit(limit)

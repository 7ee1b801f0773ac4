"""Every operator's numpy reference against Python's own numbers, and every fact of the table on its domain."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqdsl.ir import reference
from seqdsl.ir.ops import OPS, Op
from seqdsl.ir.reference import affine_scan, decayed_read, decayed_solve, decayed_state

from .pointwise import ALONG, REDUCE, SCALAR, TRANSFORM, gram_schmidt, solve_by_elimination

DTYPES = ("bool", "int", "real", "complex")
KINDS = {"bool": np.bool_, "int": np.int64, "real": np.float64, "complex": np.complex128}
FACTS = {"associative", "commutative", "idempotent", "involution", "idempotent_map", "distributes_over_add", "linear"}
COMPLEX_TOO = frozenset("add sub mul neg eq ne exp sin cos sqrt re im conj stop abs".split())  # tried with complex ones
LOGIC = {"and": lambda a, b: a and b, "or": lambda a, b: a or b, "where": lambda c, a, b: a if c else b}
SMALL = {  # closed under the exact laws: no rounding
    "bool": st.booleans(), "int": st.integers(-40, 40), "real": st.integers(-40, 40).map(lambda n: n / 4),
    "complex": st.builds(complex, st.integers(-9, 9), st.integers(-9, 9)),
}  # fmt: skip
REALS = st.one_of(st.floats(-30, 30).map(lambda x: x + 0.0), st.sampled_from([0.0, 1.0, -1.0, 0.5, -0.5, 2.5, 1e-9]))
WIDE = {**SMALL, "real": REALS, "complex": st.builds(complex, REALS, REALS)}
FEWER = settings(max_examples=max(10, (settings.default or settings()).max_examples // 4))  # of each of many operators
TABLE = sorted(OPS.values(), key=lambda row: row.name)


def domains(row: Op) -> list[str]:
    return list(DTYPES[: DTYPES.index(row.domain) + 1])


def call(row: Op, *args: Any, dtype: str | None = None, **options: Any) -> Any:
    assert row.reference is not None
    with np.errstate(all="ignore"):
        return row.reference(*(np.asarray(a, None if dtype is None else KINDS[dtype]) for a in args), **options)


def near(a: Any, b: Any, tolerance: float = 1e-12) -> bool:
    return bool(np.allclose(a, b, rtol=tolerance, atol=tolerance, equal_nan=True))


# Elementwise -----------------------------------------------------------------------------------------------------


def operands(name: str, dtype: str) -> st.SearchStrategy[tuple[Any, ...]]:
    one = WIDE[dtype]
    if name in ("bit_length", "popcount", "xor", "bit_and"):
        one = st.integers(0, 5000)
    if name in ("floor_div", "mod", "exact_div"):
        divisor = one.filter(lambda b: abs(b) > 1e-3)
        return (
            st.tuples(one, divisor)
            if name != "exact_div"
            else st.tuples(one, divisor).map(lambda p: (p[0] * p[1], p[1]))
        )
    if name == "pow":
        return st.tuples(one, st.integers(0, 5) if dtype in ("bool", "int") else st.floats(-3, 3))
    if name == "where":
        return st.tuples(st.booleans(), one, one)
    if name == "clamp":
        return st.tuples(one, *[one] * 2)
    arity = OPS[name].arity
    return st.tuples(*[one] * (3 if arity is None else arity))


ELEMENTWISE = [
    (row.name, dtype)
    for row in TABLE
    if not row.binding and row.reference is not None
    for dtype in domains(row)
    if dtype != "complex" or row.name in COMPLEX_TOO
]


@pytest.mark.parametrize(("name", "dtype"), ELEMENTWISE)
@FEWER
@given(data=st.data())
def test_elementwise_is_what_python_says(name: str, dtype: str, data: st.DataObject) -> None:
    rows = data.draw(st.lists(operands(name, dtype), min_size=1, max_size=5))
    scalar: Callable[..., Any] = {**SCALAR, **LOGIC}[name]
    found = call(OPS[name], *(np.asarray(column) for column in zip(*rows, strict=True)))
    expected = [scalar(*row) for row in rows]
    assert near(found, expected)
    dtypes = ("bool", dtype, dtype) if name == "where" else (dtype,) * len(rows[0])
    assert found.dtype == KINDS[OPS[name].dtype(*dtypes)] or name in ("pow", "floor_div", "mod", "clamp")


@pytest.mark.parametrize(("name", "x", "expected"), [
    ("sigmoid", 1000.0, 1.0), ("sigmoid", -1000.0, 0.0), ("log_sigmoid", -1000.0, -1000.0), ("log_sigmoid", 1000.0, 0.0),
    ("softplus", 1000.0, 1000.0), ("softplus", -1000.0, 0.0), ("inv_softplus", 1000.0, 1000.0), ("exp", -math.inf, 0.0),
    ("step", 0.0, 1.0), ("sign", 0.0, 0.0), ("round", 0.5, 0.0), ("round", 1.5, 2.0), ("elu", -1000.0, -1.0),
    ("floor", -0.5, -1), ("ceil", -0.5, 0), ("erf", 0.0, 0.0), ("gelu", 0.0, 0.0), ("log", 0.0, -math.inf),
])  # fmt: skip
def test_extreme_operands(name: str, x: float, expected: float) -> None:
    assert call(OPS[name], x) == expected


def test_logaddexp_of_nothing() -> None:
    assert call(OPS["logaddexp"], -math.inf, -math.inf) == -math.inf
    assert call(OPS["logaddexp"], -math.inf, 2.0) == 2.0


@pytest.mark.parametrize(
    ("a", "b", "quotient", "rest"), [(7, 3, 2, 1), (-7, 3, -3, 2), (7, -3, -3, -2), (-6, 3, -2, 0)]
)
def test_division_floors(a: int, b: int, quotient: int, rest: int) -> None:
    assert (call(OPS["floor_div"], a, b), call(OPS["mod"], a, b)) == (quotient, rest)


@pytest.mark.parametrize(
    ("a", "b", "expected"), [(2, 10, 1024), (2, -1, 0.5), (-1, -3, -1.0), (5, 0, 1), (0, 0, 1), (0, -1, math.inf)]
)
def test_integer_powers_are_integers_unless_they_are_negative(a: int, b: int, expected: float) -> None:
    with np.errstate(divide="ignore"):
        found = call(OPS["pow"], a, b)
    assert found == expected and found.dtype == (np.int64 if b >= 0 else np.float64)


def test_inexact_division_of_sizes_is_refused() -> None:
    with pytest.raises(ArithmeticError):
        call(OPS["exact_div"], 7, 2)


@pytest.mark.parametrize("name", [row.name for row in TABLE if not row.binding and row.reference is not None])
def test_no_points_are_no_trouble(name: str) -> None:
    row = OPS[name]
    kinds = [
        np.bool_
        if row.domain == "bool" or (name == "where" and k == 0)
        else np.int64
        if row.domain == "int"
        else np.float64
        for k in range(3 if row.arity is None else row.arity)
    ]
    assert call(row, *(np.zeros((2, 0), kind) for kind in kinds)).shape == (2, 0)


# Reductions and operators along axes -----------------------------------------------------------------------------


def masked(name: str) -> st.SearchStrategy[list[tuple[Any, bool]]]:
    value = st.booleans() if OPS[name].domain == "bool" else st.one_of(SMALL["real"], REALS)
    return st.lists(st.tuples(value, st.booleans()), max_size=6)


def poisoned(entries: list[tuple[Any, bool]]) -> tuple[np.ndarray, np.ndarray]:
    """Body and mask, with NaN (or true) where the mask is false."""
    mask = np.asarray([m for _, m in entries], bool)
    truth = all(isinstance(v, bool) for v, _ in entries) and entries != []
    body = [v if m else (True if truth else math.nan) for v, m in entries]
    return np.asarray(body, bool if truth else float), mask


@pytest.mark.parametrize("name", sorted(REDUCE))
@FEWER
@given(data=st.data())
def test_reduction(name: str, data: st.DataObject) -> None:
    entries = data.draw(masked(name))
    body, mask = poisoned(entries)
    if OPS[name].domain == "bool":
        body = body.astype(bool)
    expected = REDUCE[name]([v for v, m in entries if m])
    assert near(call(OPS[name], body, mask), expected, 1e-10)
    assert near(call(OPS[name], np.stack([body, body]), mask), [expected] * 2, 1e-10), (
        "leading axes, and a mask without"
    )


@given(masked("argmax"))
def test_argmax(entries: list[tuple[float, bool]]) -> None:
    allowed = [(v, -k) for k, (v, m) in enumerate(entries) if m]
    if allowed:
        assert call(OPS["argmax"], *poisoned(entries)) == -max(allowed)[1]
    assert call(OPS["argmax"], [-math.inf] * 3, [False, True, True]) == 1


@pytest.mark.parametrize(("name", "expected"), [
    ("sum", 0), ("prod", 1), ("any", False), ("all", True), ("mean", 0), ("logsumexp", -math.inf), ("max", -math.inf),
    ("min", math.inf)])  # fmt: skip
def test_empty_reduction(name: str, expected: float) -> None:
    for body, mask in ((np.zeros((2, 0)), np.ones((2, 0), bool)), (np.ones((2, 3)), np.zeros((2, 3), bool))):
        kind = bool if OPS[name].domain == "bool" else float
        assert call(OPS[name], body.astype(kind), mask).tolist() == [expected] * 2


@pytest.mark.parametrize("name", ["sum", "prod", "max", "min"])
def test_reductions_of_integers_are_integers(name: str) -> None:
    found = call(OPS[name], [[3, 2**60 + 1, 5]], [[True, name in ("max", "sum"), True]])
    expected = {"sum": 2**60 + 9, "prod": 15, "max": 2**60 + 1, "min": 3}[name]
    assert found.dtype == np.int64 and found.tolist() == [expected]
    assert call(OPS[name], [[True, True]], [[True, True]]).dtype == np.int64


@pytest.mark.parametrize("name", sorted(ALONG))
@FEWER
@given(data=st.data())
def test_along(name: str, data: st.DataObject) -> None:
    entries = data.draw(masked(name))
    body, mask = poisoned(entries)
    values = iter(ALONG[name]([v for v, m in entries if m]))
    expected = [next(values) if m else 0 for _, m in entries]
    assert near(call(OPS[name], body, mask), expected, 1e-10)
    assert near(call(OPS[name], np.stack([body, body]), mask), [expected] * 2, 1e-10)


def test_softmax_of_large_and_absent_logits() -> None:
    assert near(call(OPS["softmax"], [1e4, 1e4, -1e4], [True] * 3), [0.5, 0.5, 0])
    assert call(OPS["softmax"], [-math.inf, -math.inf], [True] * 2).tolist() == [0, 0]
    assert near(call(OPS["normalised_read"], [1e4, 1e4, 2e4], [1, 3, math.nan], [True, True, False]), 2)
    assert call(OPS["normalised_read"], [0.0, 0.0], [1, 3], [False] * 2) == 0
    assert call(OPS["normaliser"], [0.0, 0.0], [False] * 2) == -math.inf


# Maps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "n"),
    [(name, n) for name in sorted(TRANSFORM) for n in (1, 2, 3, 4, 5, 8) if name != "hadamard" or n & (n - 1) == 0],
)
def test_transform(name: str, n: int) -> None:
    rng = np.random.default_rng(n)
    length = n // 2 + 1 if name == "irfft" else n
    x = rng.standard_normal((2, length))
    if name in ("fft", "ifft", "irfft"):
        x = x + 1j * rng.standard_normal((2, length))
    after = n // 2 + 1 if name == "rfft" else n
    expected = [TRANSFORM[name](list(row), after) for row in x]
    assert near(call(OPS[name], x, n=after), expected)


@pytest.mark.parametrize("name", ["hadamard", "dct"])
def test_orthonormal(name: str) -> None:
    matrix = call(OPS[name], np.eye(8), n=8)
    assert near(matrix @ matrix.T, np.eye(8))


def test_solve() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 3, 4, 4)), rng.standard_normal((3, 4))
    found = call(OPS["solve"], a, b, n=4)
    for k in np.ndindex(2, 3):
        assert near(found[k], solve_by_elimination(a[k].tolist(), b[k[1]].tolist()), 1e-10)


def test_solve_of_a_singular_matrix_leaves_its_neighbours_alone() -> None:
    found = call(OPS["solve"], np.stack([np.zeros((2, 2)), np.eye(2)]), np.ones(2), n=2)
    assert np.isnan(found[0]).all() and found[1].tolist() == [1, 1]


def test_qr() -> None:
    x = np.random.default_rng(1).standard_normal((3, 5, 3))
    found = call(OPS["qr"], x, n=3)
    for k in range(3):
        assert near(found[k].T, gram_schmidt(x[k].T.tolist()), 1e-10)


# What forms make -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("T", [0, 1, 5])
def test_affine_scan(T: int, log: bool, reverse: bool) -> None:
    rng = np.random.default_rng(2)
    a, b, start = -rng.random((T, 3)), rng.standard_normal((T, 2, 3)), rng.standard_normal((2, 3))
    found, state = affine_scan(a[:, None], b, start, log=log, reverse=reverse), start
    assert found.shape == (T, 2, 3)
    for t in sorted(range(T), reverse=reverse):
        state = (np.exp(a[t]) if log else a[t]) * state + b[t]
        assert near(found[t], state)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("T", [0, 1, 6])
def test_decayed_read_and_state(T: int, strict: bool) -> None:
    rng = np.random.default_rng(3)
    q, k, a = rng.standard_normal((3, T, 2, 4))
    v, start = rng.standard_normal((T, 2)), rng.standard_normal((2, 4))
    found = decayed_read(q, k, v, a, start, strict=strict)
    assert found.shape == (T, 2)
    for t in range(T):
        last = t - 1 if strict else t
        weights = [np.prod(a[s + 1 : last + 1], 0) * k[s] * v[s][:, None] for s in range(last + 1)]
        state = np.prod(a[: last + 1], 0) * start + sum(weights)
        assert near(found[t], (q[t] * state).sum(-1), 1e-10)
    whole = np.prod(a, 0) * start + sum(np.prod(a[s + 1 :], 0) * k[s] * v[s][:, None] for s in range(T))
    assert near(decayed_state(k, v[..., None], a, start), whole, 1e-10)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("T", [0, 1, 6])
def test_decayed_solve(T: int, after: bool) -> None:
    """All the y of a sequence at once, from the linear system that they satisfy."""
    rng = np.random.default_rng(4)
    w, u = rng.standard_normal((2, T, 2, 3, 4))  # two ranks, three heads, four rows
    x, a, start = rng.standard_normal((T, 2, 3)), rng.standard_normal((T, 3, 4)), rng.standard_normal((3, 4))
    found = decayed_solve(w, u, x, a, start, after=after)
    assert found.shape == (T, 2, 3)
    for h in range(3):
        system, right = np.eye(2 * T), np.zeros(2 * T)
        for t, r in itertools.product(range(T), range(2)):
            last = t if after else t - 1
            right[2 * t + r] = x[t, r, h] + (w[t, r, h] * np.prod(a[: last + 1, h], 0) * start[h]).sum()
            for s, p in itertools.product(range(t), range(2)):
                system[2 * t + r, 2 * s + p] = -(w[t, r, h] * np.prod(a[s + 1 : last + 1, h], 0) * u[s, p, h]).sum()
        assert near(found[:, :, h].ravel(), np.linalg.solve(system, right), 1e-8)


# Facts -----------------------------------------------------------------------------------------------------------

LAWS: dict[str, Callable[..., tuple[Any, Any]]] = {  # both sides of the law, from the operator and three operands
    "associative": lambda f, a, b, c: (f(f(a, b), c), f(a, f(b, c))),
    "commutative": lambda f, a, b, c: (f(a, b), f(b, a)),
    "idempotent": lambda f, a, b, c: (f(a, a), a),
    "involution": lambda f, a, b, c: (f(f(a)), a),
    "idempotent_map": lambda f, a, b, c: (f(f(a)), f(a)),
    "distributes_over_add": lambda f, a, b, c: (f(a, reference.add(b, c)), reference.add(f(a, b), f(a, c))),
}
CLAIMED = [
    (row.name, fact, dtype) for row in TABLE for fact in sorted(row.facts - {"linear"}) for dtype in domains(row)
]
ROUNDED = frozenset(("logaddexp", "abs"))  # |3 + 4i| is a square root


def test_every_fact_has_a_law() -> None:
    assert {fact for row in TABLE for fact in row.facts} <= FACTS == {*LAWS, "linear"}


@pytest.mark.parametrize(("name", "fact", "dtype"), CLAIMED)
@FEWER
@given(data=st.data())
def test_fact(name: str, fact: str, dtype: str, data: st.DataObject) -> None:
    value = st.integers(0, 1000) if name in ("xor", "bit_and") else SMALL[dtype]
    a, b, c = (np.asarray(v, KINDS[dtype]) for v in data.draw(st.tuples(value, value, value)))
    left, right = LAWS[fact](lambda *args: call(OPS[name], *args), a, b, c)
    assert near(left, right) if name in ROUNDED else left == right


@pytest.mark.parametrize("name", [row.name for row in TABLE if "linear" in row.facts])
@FEWER
@given(data=st.data())
def test_linear(name: str, data: st.DataObject) -> None:
    row, n = OPS[name], 4
    vectors = st.lists(SMALL["real"], min_size=n, max_size=n).map(np.asarray)
    x, y, alpha, beta = (data.draw(s) for s in (vectors, vectors, SMALL["real"], SMALL["real"]))

    def f(v: np.ndarray) -> Any:
        return call(row, v, np.array([True, False, True, True])) if row.binding != "map" else call(row, v, n=n)

    assert near(f(alpha * x + beta * y), alpha * f(x) + beta * f(y))

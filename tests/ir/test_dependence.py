"""The schedule: which loops a system needs, that they compute it, and that what no order can compute is refused."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqdsl.ir.dependence import Compute, NotWellFounded, Step, recurrences, schedule
from seqdsl.ir.interpreter import interpret
from seqdsl.ir.system import System
from seqdsl.ir.text import read_system
from seqdsl.ir.validate import validate

from .pointwise import evaluate

AXES = """index t
index s over t: |t|
index i
index j
index h: 3
index l: 3
index a: |j|
index b over a: |a|
input x[t]: real
input X[i,j]: real
input A[t,s]: real
input n[t]: int
input m[a]: int
"""


def system(equations: str) -> System:
    """A system over the axes above, whose outputs are all tensors that are no base case."""
    names = [line.split()[1].split("[")[0] for line in equations.strip().splitlines()]
    outputs = "\n".join(f"output {name}" for name in names if not name.startswith("`"))
    found = read_system(f"system example\n{AXES}\n{equations}\n{outputs}\n")
    validate(found)
    return found


def brief(steps: Iterable[Step]) -> str:
    """`t(S o)` is a loop upwards, `-t(..)` one downwards."""
    return " ".join(
        step.tensor if isinstance(step, Compute) else f"{'-' * step.reverse}{step.axis}({brief(step.body)})"
        for step in steps
    )


def inputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    return {"x": rng.standard_normal(4), "X": rng.standard_normal((3, 4)), "A": rng.standard_normal((4, 4)),
            "n": np.array([-1, 0, 3, 1]), "m": np.array([2, 0, 1, 0])}  # fmt: skip


def check(equations: str, expected: str) -> None:
    """The schedule is as expected, and the interpreter, which follows it, computes what the equations say."""
    found = system(equations)
    assert brief(schedule(found)) == expected
    results = interpret(found, inputs=inputs())["outputs"]
    for name, value in evaluate(found, inputs=inputs()).items():
        np.testing.assert_allclose(results[name], value, 1e-10, 1e-12, err_msg=name)


ORDERED = {
    "a recurrence": ("derived y[t]: real = 0.5 * y[t-1] + x[t]", "t(y)"),
    "no recurrence": ("derived y[t]: real = x[t-1]\nderived z[t]: real = y[t+1]", "y z"),
    "text in the wrong order": ("derived z[t]: real = y[t+1]\nderived y[t]: real = x[t-1]", "y z"),
    "downwards": ("derived y[t]: real = y[t+1] * 0.5 + x[t]", "-t(y)"),
    "two steps back": ("derived y[t]: real = y[t-2] + x[t]", "t(y)"),
    "a group": ("derived u[t]: real = v[t-1] + x[t]\nderived v[t]: real = u[t] * 0.5", "t(u v)"),
    "a group in the other order": ("derived v[t]: real = u[t] * 0.5\nderived u[t]: real = v[t-1] + x[t]", "t(u v)"),
    "two groups": ("derived y[t]: real = y[t-1] + x[t]\nderived z[t]: real = z[t+1] + y[t]", "t(y) -t(z)"),
    "a grid": ("derived y[i,j]: real = y[i-1,j] + y[i,j-1] + X[i,j]", "i(j(y))"),
    "a skewed grid": ("derived y[i,j]: real = y[i-1,j+1] + y[i,j-1] + X[i,j]", "i(j(y))"),
    "a skewed grid, columns first": ("derived y[i,j]: real = y[i-1,j] + y[i+1,j-1] + X[i,j]", "j(i(y))"),
    "a grid, one axis down": ("derived y[i,j]: real = y[i-1,j] + y[i,j+1] + X[i,j]", "i(-j(y))"),
    "rows at once": ("derived y[i,j]: real = sum[h](y[i-1,j+h-1]) + X[i,j]", "i(y)"),
    "micro-steps": (
        "derived `S@h=-1`[t]: real = S[t-1,|h| - 1] + x[t]\n"
        "derived S[t,h]: real = 0.5 * S[t,h-1] + x[t]; edge 1 -1 `S@h=-1`", "t(S@h=-1 h(S))"),
    "a base case": ("derived `y@t=-1`[]: real = 2.0\nderived y[t]: real = y[t-1] * x[t]; edge 0 -1 `y@t=-1`",
                    "y@t=-1 t(y)"),
    "depth": (
        "derived `z@l=-1`[t]: real = x[t]\n"
        "derived z[l,t]: real = z[l-1,t] + sum[s | s <= t](z[l-1,s]); edge 0 -1 `z@l=-1`", "z@l=-1 l(z)"),
    "depth and time": ("derived z[l,t]: real = z[l-1,t] + 0.5 * z[l,t-1] + x[t]", "l(t(z))"),
    "a triangular system": ("derived y[t]: real = x[t] - sum[s | s < t](A[t,s] * y[s])", "t(y)"),
    "a triangular system, upper": ("derived y[t]: real = x[t] - sum[s | t < s](A[t,s] * y[s])", "-t(y)"),
    "a bounded window": ("derived y[t]: real = x[t] + sum[s | t - 2 < s and s < t](y[s])", "t(y)"),
    "a guard through named weights": (
        "derived w[t,s]: real = where(s < t, A[t,s] * y[s], 0.0)\nderived y[t]: real = x[t] + sum[s | s < t](w[t,s])",
        "t(w y)"),
    "a DAG in topological order": ("derived y[a]: real = 1.0 + sum[b | b < a and m[b]:int < 2](y[b])", "a(y)"),
    "parents by number": ("derived y[t]: real = x[t] + where(0 <= n[t]:int and n[t]:int < t, y[n[t]:int], 0.0)", "t(y)"),
    "not, pushed inwards": ("derived y[t]: real = x[t] + where(t <= n[t]:int, 0.0, y[n[t]:int])", "t(y)"),
    "blocks of an option": ("derived y[t]: real = x[t] + y[t // |h| * |h| - 1]", "t(y)"),
    "blocks of a number": ("derived y[t]: real = x[t] + y[t // 2 * 2 - 1]", "t(y)"),
    "halves": ("derived y[t]: real = x[t] + y[(t - 1) // 2]", "t(y)"),
    "a remainder": ("derived y[t]: real = x[t] + y[t - 1 - t % 3]", "t(y)"),
    "the first index of two": ("derived y[t,s]: real = A[t,s] + y[t-1,s+1]", "t(y)"),
    "a shadowed index": ("derived y[t]: real = x[t] + y[t-1] * sum[t](x[t])", "t(y)"),
}  # fmt: skip


@pytest.mark.parametrize("name", ORDERED)
def test_schedule(name: str) -> None:
    check(*ORDERED[name])


REFUSED = {
    "itself": "derived y[t]: real = y[t] + x[t]",
    "both ways": "derived y[t]: real = y[t-1] + y[t+1]",
    "through another": "derived u[t]: real = v[t]\nderived v[t]: real = u[t]",
    "a group without a step": "derived u[t]: real = v[t+1]\nderived v[t]: real = u[t-1]",
    "crossing": "derived y[i,j]: real = y[i-1,j+1] + y[i+1,j-1]",
    "no guard": "derived y[t]: real = x[t] + sum[s](y[s])",
    "the guard lets the point itself in": "derived y[t]: real = x[t] + sum[s | s <= t](y[s])",
    "a guard on another index": "derived y[t]: real = x[t] + sum[s | s < t](sum[s](y[s]))",
    "unknown numbers": "derived y[t]: real = x[t] + y[n[t]:int]",
    "a block that holds the point": "derived y[t]: real = x[t] + y[t // 2 * 2]",
    "along its own axis": "derived y[t]: real = cumsum[t](y[t-1])",
    "a transform along its own axis": "derived y[t]: complex = fft[t](y[t-1]:complex)",
    "the second index only": "derived y[t,s]: real = A[t,s] + y[n[t]:int,s-1]",
    "two indices swapped": "derived y[t,s]: real = A[t,s] + y[s-1,t-1]",
    "another index of the same axis": "derived u[s]: real = v[s-1,0]\nderived v[t,s]: real = u[s] + A[t,s]",
    "an or is no fact": "derived y[t]: real = sum[s | s < t or s == 0](y[s])",
    "no index": "derived y[]: real = y[] + 1.0",
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    with pytest.raises(NotWellFounded) as error:
        schedule(system(REFUSED[name]))
    assert error.value.cycle, "the evidence"


@given(st.lists(st.tuples(st.integers(-2, 2), st.integers(-2, 2)), min_size=1, max_size=4))
def test_constant_offsets_are_ordered_iff_an_order_exists(offsets: list[tuple[int, int]]) -> None:
    def shifted(name: str, by: int) -> str:
        return f"{name}+{by}" if by > 0 else f"{name}{by}" if by else name

    reads = " + ".join(f"y[{shifted('i', di)},{shifted('j', dj)}]" for di, dj in offsets)
    found = system(f"derived y[i,j]: real = X[i,j] + 0.3 * ({reads})")
    orders = itertools.product(itertools.permutations((0, 1)), itertools.product((1, -1), repeat=2))
    possible = any(all(tuple(sign * offset[axis] for axis, sign in zip(axes, signs, strict=True)) < (0, 0)
                       for offset in offsets) for axes, signs in orders)  # fmt: skip
    if not possible:
        with pytest.raises(NotWellFounded):
            schedule(found)
        return
    results = interpret(found, inputs=inputs())["outputs"]["y"]
    np.testing.assert_allclose(results, evaluate(found, inputs=inputs())["y"], 1e-10, 1e-12)


def test_recurrences_are_the_outer_loops() -> None:
    found = system("derived y[t]: real = y[t-1] + x[t]\nderived z[t]: real = y[t]\nderived w[t]: real = w[t+1] + z[t]")
    assert [loop.tensors() for loop in recurrences(found)] == [["y"], ["w"]]

"""Sizes: the integers that formulas give, and errors that name the size and show the numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqdsl.ir import build
from seqdsl.ir.node import Node
from seqdsl.ir.ops import make
from seqdsl.ir.sizes import SizeError, bind, elements, evaluate_size
from seqdsl.ir.system import System
from seqdsl.ir.text import read_system

from .pointwise import SCALAR

EXAMPLE = """system example
option H = 2
option D = exact_div(|c|, $H)
option N
index t
index s over t: |t|
index c
index h: $H
index d: $D
index p: |q| + 1
index q: $N * $N
index r
index z
input x[t,c]: real
input y[r,z]: real
derived o[t,s]: real = x[s,0]
output o
check "example.D" >= 1: $D
check "example.N" >= 2: $N
equal r z
"""


def example() -> System:
    return read_system(EXAMPLE)


def fault(code: str, *parts: str, options: dict[str, int] | None = None, **lengths: int) -> None:
    given = {"t": 3, "c": 6, "r": 2, "z": 2, **lengths}
    with pytest.raises(SizeError) as error:
        bind(example(), {"N": 2, **(options or {})}, given)
    assert error.value.code == code
    text = str(error.value)
    assert all(part in text for part in parts), text


def test_everything_follows_from_the_inputs_and_options() -> None:
    sizes = bind(example(), {"N": 3}, {"t": 4, "c": 6, "r": 1, "z": 1})
    assert dict(sizes.options) == {"H": 2, "D": 3, "N": 3}
    assert {n: sizes[n] for n in "tschdpq"} == {"t": 4, "s": 4, "c": 6, "h": 2, "d": 3, "p": 10, "q": 9}
    assert sizes["s'"] == 4, "a primed index has the length of its axis"


def test_options_may_be_given() -> None:
    sizes = bind(example(), {"N": 2, "H": 3, "D": 7}, {"t": 0, "c": 6, "r": 0, "z": 0})
    assert (sizes.options["D"], sizes["h"], sizes["d"], sizes["t"]) == (7, 3, 7, 0)


def test_what_is_known_is_bound_and_checked() -> None:
    sizes = bind(example(), {}, {"c": 8}, complete=False)
    assert dict(sizes.options) == {"H": 2, "D": 4} and "q" not in sizes.lengths


def test_faults() -> None:
    fault("inexact-division", "|c| / H", "7 / 2", c=7)
    fault("bad-size", "example.N is 1", "at least 2", options={"N": 1})
    fault("size-mismatch", "`h`", "5", "2", h=5)
    fault("size-mismatch", "`r` and `z`", "|r| = 2", "|z| = 3", z=3)
    fault("division-by-zero", "|c| / H", options={"H": 0})
    fault("size-too-large", options={"N": 2**21})


def test_missing_sizes_are_named() -> None:
    for options, lengths, name in (({}, {"t": 1, "c": 2, "r": 1, "z": 1}, "N"), ({"N": 2}, {"c": 2, "r": 1, "z": 1}, "t")):
        with pytest.raises(SizeError, match=f"`{name}`") as error:
            bind(example(), options, lengths)
        assert error.value.code == "missing-size"


def test_large_results_are_refused_before_they_are_computed() -> None:
    tower = build.const(2)
    for _ in range(60):
        tower = make("pow", tower, build.const(40))
    with pytest.raises(SizeError):
        evaluate_size(tower, {}, {})
    with pytest.raises(SizeError):
        evaluate_size(make("pow", build.const(10), make("pow", build.const(10), build.const(9))), {}, {})


def test_a_tensor_too_large_for_memory() -> None:
    system = example()
    sizes = bind(system, {"N": 2}, {"t": 2**16, "c": 2, "r": 1, "z": 1})
    with pytest.raises(SizeError, match="4294967296") as error:
        elements(system, system.tensors["o"], sizes)
    assert error.value.code == "size-too-large"
    assert elements(system, system.tensors["x"], sizes) == 2**17


OPS = ("add", "sub", "mul", "floor_div", "mod", "maximum", "minimum")
FORMULAS = st.recursive(
    st.one_of(st.integers(-9, 9).map(build.const), st.just(build.size("c")), st.just(build.option("H"))),
    lambda below: st.one_of(st.builds(make, st.sampled_from(OPS), below, below), st.builds(lambda a: make("neg", a), below)),
    max_leaves=6,
)


@given(FORMULAS)
def test_formulas(node: Node) -> None:
    def plain(n: Node) -> int:
        if n.op in ("const", "size", "option"):
            return int(n.attr) if n.op == "const" else {"size": 6, "option": 2}[n.op]
        return int(SCALAR[n.op](*(plain(a) for a in n.args)))  # type: ignore[arg-type]

    try:
        expected = plain(node)
    except ZeroDivisionError:
        with pytest.raises(SizeError, match="divides by zero"):
            evaluate_size(node, {"H": 2}, {"c": 6})
        return
    assert evaluate_size(node, {"H": 2}, {"c": 6}) == expected

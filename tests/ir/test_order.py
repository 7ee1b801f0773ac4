"""Distances are claims about every position: each is tried at all of them, on random subscripts and guards."""

from __future__ import annotations

import itertools
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from seqdsl.ir import build
from seqdsl.ir.node import Node
from seqdsl.ir.ops import make
from seqdsl.ir.order import distance, linear
from seqdsl.ir.system import Index, System

from .pointwise import SCALAR

INDICES = {"t": Index("t", "t", None), "s": Index("s", "t", build.size("t")), "j": Index("j", "j", build.const(3)),
           "m": Index("m", "m", None)}  # fmt: skip
SYSTEM = System("axes", {}, INDICES, {}, ())
T, S, J, M = (*(build.index(name) for name in "tsj"), build.size("m"))


def value(node: Node, at: dict[str, int], sizes: dict[str, int]) -> int:
    if node.op == "const":
        return int(node.attr)
    if node.op in ("index", "size"):
        return (at if node.op == "index" else sizes)[str(node.attr)]
    return int(SCALAR[node.op](*(value(a, at, sizes) for a in node.args)))  # type: ignore[arg-type]


def subscripts() -> st.SearchStrategy[Node]:
    leaves = st.one_of(st.sampled_from([T, S, J, M]), st.integers(-3, 3).map(build.const))
    divisor = st.one_of(st.integers(1, 4).map(build.const), st.just(M))
    block = st.builds(lambda e, m: build.mul(make("floor_div", e, m), m), leaves, divisor)
    return st.recursive(st.one_of(leaves, leaves, block), lambda below: st.one_of(
        st.builds(build.add, below, below), st.builds(build.sub, below, below), st.builds(build.neg, below),
        st.builds(lambda a, c: build.mul(a, build.const(c)), below, st.integers(-2, 3)),
        st.builds(lambda a, m: make("floor_div", a, m), below, divisor),
        st.builds(lambda a, m: make("mod", a, m), below, divisor)), max_leaves=4)  # fmt: skip


FACTS = st.lists(st.builds(make, st.sampled_from(["lt", "le", "eq", "ne"]), subscripts(), subscripts()), max_size=2)


def gaps(subscript: Node, facts: list[Node]) -> list[int]:
    """How much earlier than t the subscript is, at all positions where the facts hold."""
    found = []
    for t_size, m_size in itertools.product((1, 2, 5), (1, 2, 3)):
        sizes = {"t": t_size, "s": t_size, "j": 3, "m": m_size}
        for t, s, j in itertools.product(range(t_size), range(t_size), range(3)):
            at = {"t": t, "s": s, "j": j}
            if all(value(fact, at, sizes) for fact in facts):
                found.append(t - value(subscript, at, sizes))
    return found


@given(subscripts(), FACTS)
def test_a_distance_holds_everywhere(subscript: Node, facts: list[Node]) -> None:
    claimed = distance(SYSTEM, "t", subscript, tuple(facts))
    holds = {"+": lambda g: g > 0, "0+": lambda g: g >= 0, "-": lambda g: g < 0, "0-": lambda g: g <= 0}
    assume(claimed != "?")
    for gap in gaps(subscript, facts):
        assert gap == claimed if isinstance(claimed, int) else holds[claimed](gap)


def test_an_index_that_is_not_0_is_at_least_1() -> None:
    back = build.sub(T, J)
    assert distance(SYSTEM, "t", back, ()) == "0+"
    assert distance(SYSTEM, "t", back, (make("ne", J, build.ZERO),)) == "+"
    assert distance(SYSTEM, "t", back, (make("ne", J, build.ONE),)) == "0+"


@given(subscripts())
def test_linear_form_is_the_expression(node: Node) -> None:
    form = linear(node)
    at, sizes = {"t": 3, "s": 1, "j": 2}, {"t": 5, "s": 5, "j": 3, "m": 2}
    total = sum(c * (1 if term is None else value(term, at, sizes)) for term, c in form.items())
    assert total == value(node, at, sizes)
    assert all(isinstance(c, Fraction) for c in form.values())


def _c(n: int) -> Node:
    return build.const(n)


def _block(n: Node) -> Node:
    return build.mul(make("floor_div", T, n), n)


@pytest.mark.parametrize(("subscript", "facts", "expected"), [
    (build.sub(T, _c(1)), [], 1), (build.add(T, _c(2)), [], -2), (T, [], 0), (S, [], "?"), (_c(0), [], "0+"),
    (_c(-1), [], "+"), (S, [make("lt", S, T)], "+"), (S, [make("le", S, T)], "0+"), (S, [make("lt", T, S)], "-"),
    (S, [make("eq", S, build.sub(T, _c(1)))], "+"), (build.sub(T, J), [], "0+"), (build.sub(build.sub(T, J), _c(1)), [], "+"),
    (build.add(T, J), [], "0-"), (_block(M), [], "0+"), (build.sub(_block(M), _c(1)), [], "+"), (_block(_c(4)), [], "0+"),
    (build.sub(_block(_c(4)), _c(1)), [], "+"), (make("floor_div", T, _c(2)), [], "0+"),
    (build.sub(T, make("mod", T, _c(3))), [], "0+"), (S, [make("lt", J, T)], "?"),
    (S, [make("lt", S, J), make("lt", J, T)], "+"), (build.sub(build.size("t"), _c(1)), [], "0-"), (build.size("t"), [], "-"),
])  # fmt: skip
def test_distance(subscript: Node, facts: list[Node], expected: int | str) -> None:
    assert distance(SYSTEM, "t", subscript, tuple(facts)) == expected

"""Residues: an exact homomorphism of sums, products and exponentials, and never more than that."""

from __future__ import annotations

from fractions import Fraction

import pytest

from seqdsl.algebra.exact import World, evaluate
from seqdsl.algebra.numbers import NotExact
from seqdsl.algebra.residues import LEVELS, primes, rational
from seqdsl.algebra.tower import TooDeep, Tower
from seqdsl.ir.node import Node
from seqdsl.semantics import load_system


def body_of(text: str) -> tuple[Node, World]:
    system = load_system(f"mixer m(x[t], y[t]) -> z[t]:\n    index s over t\n    z[t] = 1.0 * ({text})\n")
    node = system.tensors["z"].rhs
    assert node is not None
    return node, World(system, seed=5, length=3)


def residues(text: str) -> tuple[tuple[int, int], ...]:
    node, world = body_of(text)
    return Tower(world).value(node, {"t": 1})


def test_every_prime_is_one_more_than_a_multiple_of_the_next() -> None:
    tower = primes()
    assert len(tower) == LEVELS and all(p % 4 == 3 for p in tower)
    assert all((p - 1) % q == 0 for p, q in zip(tower, tower[1:], strict=False))
    assert all(pow(2, p - 1, p) == 1 for p in tower)


@pytest.mark.parametrize("text", ["x * y - x / y", "sum[s | s <= t] x[s] * y[s]", "max(x, y) - min(x, y)", "floor(x) / 3",
                                  "prod[s](x[s])", "max[s](x[s])", "abs(x) + relu(y)", "clamp(x, -1, 1)", "x ^ 3 + y ^ -2",
                                  "where(x < y, x, t)", "mean[s](x[s]) + rank[t](x)", "cumsum[t](x)"])  # fmt: skip
def test_what_is_rational_has_its_residues(text: str) -> None:
    node, world = body_of(text)
    value = evaluate(node, {"t": 1}, world)
    assert isinstance(value, Fraction)
    assert residues(text) == rational(value)


@pytest.mark.parametrize(
    ("a", "b"),
    [("exp(x + y)", "exp(x) * exp(y)"), ("exp(exp(x) * exp(y))", "exp(exp(x + y))"), ("sigmoid(-x)", "1 - sigmoid(x)"),
     ("tanh(x)", "2 * sigmoid(2 * x) - 1"), ("exp(log_sigmoid(x))", "sigmoid(x)"), ("log(exp(x * y))", "x * y"),
     ("sum[s] softmax[s](x[s])", "1"), ("sqrt(x^4 * y^4)", "sqrt(x^4) * sqrt(y^4)"), ("exp(0 * x)", "1"),
     ("re(exp(x + 1i * y))", "exp(x) * re(exp(1i * y))"), ("logaddexp(-inf, x)", "x")],
)  # fmt: skip
def test_equal_functions_have_equal_residues(a: str, b: str) -> None:
    left, right = residues(a), residues(b)
    levels = min(len(left), len(right))
    assert levels >= LEVELS - 2 and left[:levels] == right[:levels]


@pytest.mark.parametrize(("a", "b"), [("exp(x)", "exp(x) + 1e-60"), ("exp(x * y)", "exp(x) * exp(y)"),
                                      ("exp(x) ^ 2", "exp(2 * x + 1e-60)"), ("sin(x)", "sin(x + y)")])  # fmt: skip
def test_different_functions_have_different_residues(a: str, b: str) -> None:
    left, right = residues(a), residues(b)
    assert all(x != y for x, y in zip(left, right, strict=False))


@pytest.mark.parametrize(("text", "opaque"), [("exp(x) * y", False), ("log(x ^ 2)", True), ("erf(x)", True),
                                              ("sqrt(x ^ 2)", True), ("exp(1i * x)", True)])  # fmt: skip
def test_functions_without_laws_are_owned_up_to(text: str, opaque: bool) -> None:
    node, world = body_of(text)
    tower = Tower(world)
    tower.value(node, {"t": 0})
    assert tower.opaque is opaque


def test_exp_nested_deeper_than_the_tower_has_no_residue() -> None:
    nested = "exp(" * LEVELS + "0.01 * x" + ")" * LEVELS
    with pytest.raises(NotExact, match="nested"):
        residues(nested)


@pytest.mark.parametrize(
    ("text", "loose"),
    [("sqrt(x ^ 2)", True), ("log(x)", True), ("x ^ 0.3", True), ("exp(1i * x)", True), ("x + inf", True), ("log2(x)", True),
     ("softplus(x) * tanh(y)", False), ("sqrt(12.0) * x", False), ("sqrt(t + 1) * x", False), ("erf(sin(x))", False)],
)  # fmt: skip
def test_what_may_be_equal_without_equal_numbers_is_owned_up_to(text: str, loose: bool) -> None:
    node, world = body_of(text)
    tower = Tower(world)
    tower.value(node, {"t": 1})
    assert tower.loose is loose


def test_the_root_of_a_number_has_its_sign() -> None:
    assert residues("sqrt(12.0)") == residues("2 * sqrt(3.0)") and residues("sqrt(9 / 4)") == rational(Fraction(3, 2))
    for text, other in (("sqrt(12.0)", "-2 * sqrt(3.0)"), ("sqrt(9.0)", "-3.0"), ("sqrt(8.0)", "-2 * sqrt(2.0)")):
        assert all(a != b for a, b in zip(residues(text), residues(other), strict=True))


def test_levels_are_added_where_exponentials_are_nested() -> None:
    node, world = body_of("exp(exp(exp(x) * y)) - exp(exp(exp(x) * y))")
    tower = Tower(world, levels=2)
    with pytest.raises(TooDeep):
        tower.value(node, {"t": 1})
    tower.deepen()
    assert tower.levels == 4 and tower.value(node, {"t": 1}) == ((0, 0),)

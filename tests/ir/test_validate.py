"""The validator accepts what the compiler makes and refuses systems that are broken in one place, saying where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given

from seqdsl.ir import build
from seqdsl.ir.node import Node
from seqdsl.ir.ops import make
from seqdsl.ir.state import StateEntry
from seqdsl.ir.system import Claim, Edge, Index, SizeCheck, System, Tensor
from seqdsl.ir.text import read_system
from seqdsl.ir.validate import InvalidSystem, validate

from .random_systems import systems

EXAMPLE = """system example
option H = 2
index t
index s over t: |t|
index d: $H
input x[t,d]: real
input n[t]: int
param w[d]: real = normal(0, 1.0); path "w"
derived `y@t=-1`[d]: real = w[d]
derived y[t,d]: real = 0.5 * y[t-1,d] + x[t,d] * w[d]; edge 0 -1 `y@t=-1`
derived p[t,s]: real = softmax[s | s <= t](sum[d](x[t,d] * x[s,d]))
derived o[t]: real = sum[s,d](where(n[s]:int < 2, p[t,s], 0.0) * y[s,d])
derived m[]: real = fold M[t | n[t]:int == 0](o[t])
output o
output m
check "example.H" >= 1: $H
equal d s
monoid M
  field a[]
  argument v[]
  lift v[]
  identity 0
  combine derived a[]: real = a.a[] + b.a[]
  project derived r[]: real = a[]
  output r
end
claim linear "linear(x)" x; when 0 < x[t,d]
"""


def example() -> System:
    return read_system(EXAMPLE)


@given(systems())
def test_random_systems_are_valid(system: System) -> None:
    validate(system)


def test_the_example_is_valid() -> None:
    validate(example())


Change = Callable[[System], System]
T, D, ZERO = build.index("t"), build.index("d"), build.const(Fraction(0))
X = build.read("x", [T, D], "real")


def rhs(node: Node, name: str = "y", **more: Any) -> Change:
    """The equation of a tensor replaced."""
    return lambda s: s.with_tensors(replace(s.tensors[name], rhs=node, **more))


def tensor(name: str, **changes: Any) -> Change:
    return lambda s: s.with_tensors(replace(s.tensors[name], **changes))


def index(name: str, **changes: Any) -> Change:
    return lambda s: replace(s, indices={**s.indices, name: replace(s.indices[name], **changes)})


def monoid(**changes: Any) -> Change:
    return lambda s: replace(s, monoids={"M": replace(s.monoids["M"], **changes)})


def raw(op: str, *args: Node, attr: Any = (), dtype: str = "real") -> Node:
    """A node that `make` would not build."""
    return Node(op, args, attr, dtype, frozenset().union(*(a.free for a in args)))


def edge(position: int, point: Node, source: str) -> Change:
    return tensor("y", edges=(Edge(position, point, source),))


BROKEN: dict[str, tuple[Change, str]] = {  # what is wrong, and what the message says
    "unknown tensor": (rhs(build.read("gone", [T], "real")), "`gone`"),
    "too few subscripts": (rhs(build.read("x", [T], "real")), "1 subscripts, not 2"),
    "wrong type of a read": (rhs(build.read("x", [T, D], "int")), "as int, which is real"),
    "real subscript": (rhs(build.read("x", [X, D], "real")), "subscript"),
    "stray index": (rhs(build.read("p", [T, build.index("s")], "real")), "along `s`"),
    "unknown index": (rhs(build.read("x", [T, build.index("q")], "real")), "`q` is no index"),
    "unknown size": (rhs(build.size("q")), "`q` is no index"),
    "unknown option": (rhs(build.option("Q")), "`Q` is no option"),
    "bound index unknown": (rhs(make("sum", X, build.TRUE, attr=(("q",), ()))), "`q` is no index"),
    "index bound twice": (rhs(make("sum", X, build.TRUE, attr=(("s", "s"), ()))), "binds an index twice"),
    "guard not bool": (rhs(make("sum", X, T, attr=(("s",), ()))), "the condition t"),
    "where not bool": (rhs(make("where", T, X, X)), "the condition t"),
    "no such operator": (rhs(raw("frobnicate", X)), "no operator `frobnicate`"),
    "wrong arity": (rhs(raw("exp", X, X)), "2 operands, not 1"),
    "wrong type": (rhs(raw("add", X, X, dtype="int")), "is marked int, and is real"),
    "complex order": (rhs(make("lt", build.const("i"), X)), "takes real operands"),
    "real bits": (rhs(make("xor", X, T)), "takes int operands"),
    "complex into real": (rhs(make("mul", build.const("i"), X)), "its equation is complex"),
    "random outside a param": (rhs(make("normal", ZERO, ZERO)), "outside an initialiser"),
    "float constant": (rhs(make("const", attr=0.5, dtype="real")), "0.5 is no constant"),
    "unnamed constant": (rhs(make("const", attr="e", dtype="real")), "'e' is no constant"),
    "int constant with a fraction": (rhs(make("const", attr=Fraction(1, 2), dtype="int")), "no constant of the type int"),
    "no equation": (tensor("y", rhs=None), "has no equation"),
    "equation of an input": (tensor("x", rhs=ZERO), "has an equation"),
    "unknown kind": (tensor("y", kind="magic"), "magic"),
    "unknown type": (tensor("y", dtype="float32"), "float32"),
    "repeated index": (tensor("p", indices=("t", "t")), "occurs twice"),
    "tensor over nothing": (tensor("x", indices=("t", "q")), "`q` is no index"),
    "param without a path": (tensor("w", path=()), "no path"),
    "another name": (
        lambda s: replace(s, tensors={**s.tensors, "z": s.tensors["y"]}), "calls itself `y`"),
    "edge out of range": (edge(2, build.const(-1), "y@t=-1"), "position 2"),
    "edge of nothing": (edge(0, build.const(-1), "gone"), "`gone` is no tensor"),
    "edge with too many indices": (edge(0, build.const(-1), "x"), "2 indices, not 1"),
    "edge point varies": (edge(0, T, "y@t=-1"), "no fixed integer"),
    "edge of a larger type": (tensor("y@t=-1", dtype="complex"), "is complex"),
    "axis is none": (index("s", axis="q"), "`q` is no axis"),
    "axis of an axis": (index("t", axis="s"), "is no axis"),
    "size reads": (index("d", size=build.read("m", [], "int")), "`read` makes no size"),
    "size of nothing": (index("d", size=build.size("q")), "`q` is no index"),
    "option default": (lambda s: replace(s, options={"H": build.option("Q")}), "`Q` is no option"),
    "primed index": (lambda s: replace(s, indices={**s.indices, "t'": Index("t'", "t", None)}), "primed"),
    "constraint": (lambda s: replace(s, constraints=(("d", "q"),)), "`q` is no index"),
    "check": (lambda s: replace(s, checks=(SizeCheck("a", T, 1),)), "`index` makes no size"),
    "output": (lambda s: replace(s, outputs=("gone",)), "`gone` is no tensor"),
    "final state": (lambda s: replace(s, finals={"y": "gone"}), "`gone` is no tensor"),
    "state entry": (lambda s: replace(s, record=(StateEntry("y", "y", 5, build.ONE),)), "no index 5"),
    "no monoid": (lambda s: replace(s, monoids={}), "`M`, which is no monoid"),
    "lift": (monoid(lift=()), "another number"), "identity": (monoid(identity=()), "another number"),
    "lift argument": (monoid(lift_params=()), "lifts 0 values, not 1"),
    "combine": (monoid(combine=()), "no equation gives `a`"),
    "project": (monoid(project=()), "no equation gives `r`"),
    "monoid reads nothing": (monoid(lift=(build.read("gone", [], "real"),)), "`gone`"),
    "monoid varies": (monoid(project=(Tensor("r", (), "real", "derived", T),)), "along `t`"),
    "fold of too many": (rhs(make("fold", X, X, build.TRUE, attr=("M", ("s",), ()), dtype="real")), "lifts 1 values, not 2"),
    "claim condition": (lambda s: replace(s, claims=(Claim("causal", (), "causal", T),)), "condition is int"),
    "claim's system": (lambda s: replace(s, claims=(Claim("equal", (), "a == b", None, replace(s, outputs=("q",))),)),
                       "claim `a == b`: the outputs"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken(name: str) -> None:
    change, message = BROKEN[name]
    with pytest.raises(InvalidSystem) as error:
        validate(change(example()))
    assert message in str(error.value)

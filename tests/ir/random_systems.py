"""Hypothesis strategies for small systems of recurrence equations, and inputs for them.

A system has inputs over (t, d) of every type, integers among them that may lie outside every axis, and up to four
equations over any of t, s (a second index of t), d and j. Each may read the inputs and earlier tensors anywhere, and
itself one or two steps back along t (ahead, in a system that runs downwards). Values stay finite. Entry points:
`systems`, `systems_with_inputs`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, TypeVar

import numpy as np
from hypothesis import strategies as st

from seqdsl.ir import build
from seqdsl.ir.node import Node
from seqdsl.ir.ops import make
from seqdsl.ir.system import Edge, Index, System, Tensor

T = TypeVar("T")
INDICES = {
    "t": Index("t", "t", None), "s": Index("s", "t", build.size("t")), "d": Index("d", "d", None),
    "j": Index("j", "j", make("add", make("floor_div", build.size("t"), build.const(2)), build.ONE)),
}  # fmt: skip
INPUTS = (Tensor("x", ("t", "d"), "real", "input"), Tensor("n", ("t",), "int", "input"),
          Tensor("z", ("s", "d"), "complex", "input"), Tensor("b", ("t",), "bool", "input"),
          Tensor("w", ("d",), "real", "input"))  # fmt: skip
LAYOUTS = [("t",), ("t", "d"), (), ("d", "t"), ("t", "s"), ("s", "d"), ("j",), ("t", "j"), ("d",), ("t", "s", "d")]
BINARY = ["add", "sub", "mul", "maximum", "minimum"]
UNARY = ["neg", "tanh", "sigmoid", "abs", "relu", "silu"]
REDUCE = {
    "bool": ["any", "all"],
    "int": ["sum"],
    "real": ["sum", "mean", "max", "min", "logsumexp"],
    "complex": ["sum"],
}
ALONG = {"int": ["rank"], "real": ["softmax", "cumsum"]}
SHAPES = {  # how a term of a type is made
    "bool": ["compare", "exact", "logic", "not", "reduce"], "int": ["plain", "floored", "where", "reduce", "along"],
    "real": ["binary", "unary", "where", "re", "half", "reduce", "along"], "complex": ["product", "conj", "reduce"],
}  # fmt: skip


@dataclass(frozen=True)
class _Maker:
    """Makes terms: over `indices`, of which binders bind `bound`; `own` is read one or two steps back only."""

    draw: st.DrawFn
    indices: tuple[str, ...]
    tensors: tuple[Tensor, ...]
    own: Tensor | None = None
    step: int = -1
    bound: tuple[str, ...] = ()
    streaming: bool = False

    def choose(self, values: list[T]) -> T:
        return self.draw(st.sampled_from(values))

    def term(self, dtype: str, depth: int) -> Node:
        if depth == 0 or self.choose([0, 1, 2]) == 0:
            return self.leaf(dtype)
        shape = self.choose(SHAPES[dtype])
        if shape in ("reduce", "along"):
            return self.binder(dtype, depth, shape)
        return getattr(self, f"{dtype}_{shape}")(depth - 1)  # type: ignore[no-any-return]

    def leaf(self, dtype: str) -> Node:
        choices: list[Any] = [t for t in self.tensors if t.dtype == dtype] + ["const"]
        if self.own is not None and self.own.dtype == dtype and "t" not in self.bound:
            choices = [self.own, self.own, *choices]
        if dtype == "int":
            choices += ["size", "option", *self.indices]
        chosen = self.choose(choices)
        if isinstance(chosen, Tensor):
            return self.read(chosen)
        if chosen in INDICES:
            return build.index(chosen)
        if chosen in ("size", "option"):
            sizes = ["d", "j"] if self.streaming else sorted(INDICES)
            return build.size(self.choose(sizes)) if chosen == "size" else build.option("W")
        return self.constant(dtype)

    def constant(self, dtype: str) -> Node:
        if dtype == "real":
            return build.const(Fraction(self.draw(st.integers(-6, 6)), self.choose([1, 2, 3])))
        return build.const(
            {"bool": self.choose([True, False]), "int": self.choose([0, 1, -1, 2]), "complex": "i"}[dtype]
        )

    def read(self, tensor: Tensor) -> Node:
        back = build.const(self.step * self.choose([1, 1, 2])) if tensor is self.own else None
        subscripts = [build.add(build.index("t"), back) if i == "t" and back is not None else self.subscript(i)
                      for i in tensor.indices]  # fmt: skip
        return build.read(tensor.name, subscripts, tensor.dtype)

    def subscript(self, own: str) -> Node:
        mine = [i for i in self.indices if INDICES[i].axis == INDICES[own].axis] or list(self.indices)
        kind = self.choose(["index", "index", "shifted", "constant", "data", "window"])
        if kind == "constant" or not mine:
            return build.const(self.choose([0, -1, 1, 2]))
        if kind == "data" and "t" in self.indices:
            return build.read("n", [build.index("t")], "int")
        if kind == "window" and {"t", "j"} <= {*self.indices}:
            return build.sub(build.index("t"), build.index("j"))
        return build.add(
            build.index(self.choose(mine)), build.const(self.choose([1, -1, 2]) if kind == "shifted" else 0)
        )

    def binder(self, dtype: str, depth: int, shape: str) -> Node:
        free = [n for n in (INDICES if shape == "reduce" else self.indices) if n not in self.bound]
        ops = (REDUCE if shape == "reduce" else ALONG)[dtype]
        if not free:
            return self.leaf(dtype)
        names = (self.choose(free),)
        if shape == "reduce" and self.choose([0, 0, 1]) and len(free) > 1:
            names += (self.choose([n for n in free if n not in names]),)
        inner = replace(self, indices=tuple(dict.fromkeys((*self.indices, *names))), bound=(*self.bound, *names))
        op = self.choose(ops)
        guard = inner.term("bool", depth - 1) if self.choose([True, False]) else build.TRUE
        node = make(op, inner.term("real" if op == "rank" else dtype, depth - 1), guard, attr=(names, ()))
        bounded = op in ("max", "min", "logsumexp")  # may be infinite where the guard is empty
        return make("clamp", node, build.const(-5), build.const(5)) if bounded else node

    def bool_compare(self, depth: int) -> Node:
        return make(self.choose(["lt", "le"]), self.term("real", depth), self.term("real", depth))

    def bool_exact(self, depth: int) -> Node:
        return make(self.choose(["lt", "le", "eq", "ne"]), self.term("int", depth), self.term("int", depth))

    def bool_logic(self, depth: int) -> Node:
        return make(self.choose(["and", "or"]), self.term("bool", depth), self.term("bool", depth))

    def bool_not(self, depth: int) -> Node:
        return make("not", self.term("bool", depth))

    def int_plain(self, depth: int) -> Node:
        return make(self.choose(BINARY[:2]), self.term("int", depth), self.term("int", depth))

    def int_floored(self, depth: int) -> Node:
        return make(self.choose(["floor_div", "mod"]), self.term("int", depth), build.const(self.choose([1, 2, 3])))

    def int_where(self, depth: int) -> Node:
        return build.where(self.term("bool", depth), self.term("int", depth), self.term("int", depth))

    def real_binary(self, depth: int) -> Node:
        return make(
            self.choose(BINARY), self.term("real", depth), self.term(self.choose(["real", "int", "bool"]), depth)
        )

    def real_unary(self, depth: int) -> Node:
        return make(self.choose(UNARY), self.term("real", depth))

    def real_where(self, depth: int) -> Node:
        return build.where(self.term("bool", depth), self.term("real", depth), self.term("real", depth))

    def real_re(self, depth: int) -> Node:
        return make(self.choose(["re", "im", "abs"]), self.term("complex", depth))

    def real_half(self, depth: int) -> Node:
        return build.div(self.term(self.choose(["real", "int"]), depth), build.const(2))

    def complex_product(self, depth: int) -> Node:
        other = self.term(self.choose(["real", "complex"]), depth)
        return make(self.choose(BINARY[:3]), self.term("complex", depth), other)

    def complex_conj(self, depth: int) -> Node:
        return make("conj", self.term("complex", depth))


@st.composite
def systems(draw: st.DrawFn, depth: int = 3, streaming: bool = False) -> System:
    """Systems that the scheduler must be able to order; the streaming ones run upwards and do not use |t|."""
    step = draw(st.sampled_from([-1, -1, -1 if streaming else 1]))
    made: list[Tensor] = []
    for k in range(draw(st.integers(1, 4))):
        layout, dtype = (
            draw(st.sampled_from(LAYOUTS)),
            draw(st.sampled_from(["real", "real", "int", "bool", "complex"])),
        )
        tensor = Tensor(f"Y{k}", layout, dtype, "derived", comment='a "name" \\ `')
        if "t" in layout and draw(st.booleans()):
            base_maker = _Maker(draw, tuple(i for i in layout if i != "t"), INPUTS[-1:] if streaming else INPUTS)
            outside, rest = build.const(-1) if step < 0 else build.size("t"), tuple(i for i in layout if i != "t")
            base = Tensor(f"Y{k}@t={outside!r}", rest, dtype, "derived", base_maker.term(dtype, 1))
            tensor = replace(tensor, edges=(Edge(layout.index("t"), outside, base.name),))
            made.append(base)
        known = (*INPUTS, *(t for t in made if "@" not in t.name))
        maker = _Maker(draw, layout, known, tensor if "t" in layout else None, step, streaming=streaming)
        made.append(replace(tensor, rhs=maker.term(dtype, depth)))
    tensors = {t.name: t for t in (*INPUTS, *made)}
    indices = {**INDICES, "j": Index("j", "j", build.const(3))} if streaming else INDICES
    return System("random", {"W": build.const(2)}, indices, tensors, tuple(t.name for t in made if "@" not in t.name))


def inputs_for(seed: int, length: int, width: int) -> dict[str, Any]:
    """Inputs of small magnitude; the integers run from -2 to one beyond the axis."""
    rng = np.random.default_rng(seed)
    shape = (length, width)
    return {"x": np.round(rng.uniform(-2, 2, shape), 3), "n": rng.integers(-2, length + 2, length),
            "z": np.round(rng.uniform(-1, 1, shape), 3) + 1j * np.round(rng.uniform(-1, 1, shape), 3),
            "b": rng.random(length) < 0.5, "w": np.round(rng.uniform(-1, 1, width), 3)}  # fmt: skip


def systems_with_inputs(depth: int = 3, streaming: bool = False) -> st.SearchStrategy[tuple[System, dict[str, Any]]]:
    """A system, and inputs of length 0 to 4."""
    given = st.builds(inputs_for, st.integers(0, 99), st.integers(0, 4), st.integers(1, 2))
    return st.tuples(systems(depth, streaming), given)

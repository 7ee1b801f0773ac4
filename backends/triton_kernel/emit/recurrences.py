"""Functions for the recurrences of one module: their kernels' text, and what a call of them is told.

A ring's scan and the folds of a declared monoid are steps whose elements combine; a nonlinear step is walked.
Entry point: `Recurrences`, which the torch target's emitter asks (`torch_module.target.Target.steps`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from seqdsl.algebra.declared import associativity
from seqdsl.algebra.verdict import Refuted, Unknown
from seqdsl.ir import build
from seqdsl.ir.node import Node, rebuild
from seqdsl.ir.system import Monoid, Tensor

from ...torch_module.context import Context
from ...torch_module.names import tuple_text
from ...torch_module.newton import states_before
from ...torch_module.operands import Operand
from .derivatives import Refused
from .numbers import kinds
from .numbers import told as told_numbers
from .step import Step, step
from .step_kernels import kernels

# What adds and what multiplies in the rings of `ring_scan`.
RINGS = {
    "max_plus": ("maximum", "add"),
    "min_plus": ("minimum", "add"),
    "logaddexp_plus": ("logaddexp", "add"),
    "or_and": ("or", "and"),
    "max_times": ("maximum", "mul"),
}


@dataclass
class Recurrences:
    """Writes into `written` of its target; `walked` are the tensors whose steps kernels take, `kept` those for which there
    are none, and why."""

    written: dict[str, str]
    refused: frozenset[str] = frozenset()  # those of which that is known beforehand
    walked: list[str] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)

    def ring(self, ctx: Context, ring: str, kind: str, lanes: int, moves: bool) -> str | None:
        """What stands in for `ring_scan`; `moves`: does the factor vary along time?"""
        add, mul = RINGS[ring]

        def made() -> Step:
            state, a, b = (build.read(f"@{name}", [], kind) for name in ("state", "a", "b"))
            first, second = (build.read(f"@earlier {name}", [], kind) for name in "ab")
            after = build.make(add, build.make(mul, a, state), b)
            joined = build.make(mul, a, first), build.make(add, build.make(mul, a, second), b)
            operands = [("a", a, moves), ("b", b, True)]
            return step([(_own(ctx, "h"), state, after)], operands, lanes, (first, second), joined)

        found = self._written(ctx, "ring", made)
        return None if found is None else found[0]

    def fold(self, ctx: Context, monoid: Monoid, lanes: int, whole: bool) -> tuple[str, str] | None:
        """What stands in for the trees of a fold, and more arguments; a `whole` fold is its last prefix.

        The indices that fields have of their own are lanes too, the last ones: a field without one is the same along it.
        """
        own = tuple(dict.fromkeys(i for _, indices in monoid.fields for i in indices))

        def made() -> Step:
            verdict = associativity(ctx.system, monoid.name) if whole else None
            if isinstance(verdict, Refuted | Unknown):
                raise Refused("its `combine` is not shown to be associative")
            if any(tuple(i for i in own if i in indices) != indices for _, indices in monoid.fields):
                raise Refused("fields whose indices stand in different orders")
            if not {*monoid.types} <= {"int", "real"}:
                raise Refused("fields that are not real")
            earlier, later = ({f: build.read(f"{side}.{f}", [], "real") for f, _ in monoid.fields} for side in "ab")
            after = _combined(monoid, [*earlier.values(), *later.values()])
            states = [(f, earlier[f], after[f]) for f in earlier]
            operands = [(f"{f}_element", later[f], True) for f in later]
            joined = tuple(after[f] for f in earlier)
            return step(states, operands, lanes + len(own), tuple(earlier.values()), joined)

        places = [tuple_text(str(k) for k, i in enumerate(own) if i in indices) for _, indices in monoid.fields]
        return self._written(ctx, "fold", made, f", {tuple_text(places)}" if own else "")

    def newton(
        self, ctx: Context, states: list[Tensor], given: list[Operand], dims: tuple[str, ...], mixing: bool
    ) -> tuple[str, str] | None:
        """What stands in for `newton_scan`, and more arguments. The dimensions are the batch, time and lanes; `mixing`: do
        entries depend on one another?"""

        def made() -> Step:
            if mixing:
                raise Refused("its entries depend on one another")
            leaves = {s.name: build.read(f"@{s.name}", [], s.dtype) for s in states}

            entering = {r: leaves[str(r.attr)] for s in states for r in states_before(ctx, states, s)}
            stepped = [(s.name, leaves[s.name], rebuild(s.rhs.args[0], entering.get)) for s in states if s.rhs is not None]
            operands = [(o.inner.text, o.node, dims[1] in o.outer.dims) for o in given]
            return step(stepped, operands, len(dims) - 2)

        return self._written(ctx, "newton", made)

    def _written(self, ctx: Context, kind: str, made: Callable[[], Step], told: str = "") -> tuple[str, str] | None:
        """The function's name, and the numbers that it is told; None, and why, where there is none."""
        try:
            found = made()
        except Refused as why:
            self.kept[ctx.current] = str(why)
            return None
        name = ctx.names.fresh(f"{ctx.current}_{kind}".lstrip("_"))
        self.written[name] = _text(name, kind, found, told)
        self.walked += [ctx.current] if ctx.current not in self.walked else []
        return name, "".join(f", {number}" for number in told_numbers(ctx, found.numbers))


def _own(ctx: Context, otherwise: str) -> str:
    """The name of a state in the kernels: that of the tensor, unless it is no name."""
    return ctx.current if ctx.current.isidentifier() else otherwise


def _combined(monoid: Monoid, leaves: list[Node]) -> dict[str, Node]:
    """The fields of two elements as one, of the leaves' fields, the equations before them written out. Raises `Refused`."""
    found: dict[str, Node] = {}
    known = {str(leaf.attr): leaf for leaf in leaves}
    indices = dict(monoid.fields)

    def entry(node: Node) -> Node | None:
        if node.op != "read":
            return None
        name = str(node.attr)
        own = indices.get(name.partition(".")[2] if name in known else name, ())
        if name not in known and name not in found or node.args != tuple(build.index(i) for i in own):
            raise Refused(f"`{name}` elsewhere than at an entry's own place, in its `combine`")
        return known[name] if name in known else found[name]

    for equation in monoid.combine:
        assert equation.rhs is not None
        indices.setdefault(equation.name, equation.indices)
        found[equation.name] = rebuild(equation.rhs, entry)
    return found


def _text(name: str, kind: str, found: Step, told: str) -> str:
    """Kernels, and the function that launches them, which is `told` more than its plan."""
    made = kernels(name, found)
    wanted = found.learned() if "adjoint" in made else []
    learned = [k for k, x in enumerate(found.operands) if x in wanted]
    plan = [f"_{name}_plan = _Recurrence(", f'    name="{name}",', f"    lanes={found.lanes},", f"    held={len(found.states)},"]
    plan += [f"    moves={tuple_text(str(x.moves) for x in found.operands)},"]
    plan += [f"    learned={tuple_text(map(str, learned))},", f'    numbers="{kinds(found.numbers)}",']
    plan += [f"    {which}={lines[1][4:-1]}," for which, lines in made.items()]
    texts = ["\n".join(lines) for lines in made.values()]
    return "\n\n\n".join([*texts, "\n".join([*plan, ")", f"{name} = fused_{kind}(_{name}_plan{told})"])])

"""What a recurrence does in one step, entry by entry: the states after it, as expressions of those before and of operands.

A step that is the action of a monoid's element has `joined` too: the operands of one step that is worth two. Entries of
one position have nothing to do with each other, so that a kernel keeps some side by side and walks through time.
Entry points: `Step`, `step`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from seqdsl.ir import build
from seqdsl.ir.node import Node, walk

from ...torch_module.names import Names
from .derivatives import Refused, pulled
from .normal import multiplied
from .numbers import is_fixed, named
from .texts import has_text

# What the kernels call their own, and what they make of the name of a tensor.
RESERVED = frozenset(
    """tl triton T D LENGTH STEPS BD PACKED piece blocks batch lane rest own first i begin end stop inside place before earlier
    along apart sent_ends head leading last part table row sequence entry""".split()
)
FORMS = ("{0}", "{0}_at", "{0}_now", "{0}_rows", "{0}_ends", "{0}_left", "{0}_next", "{0}_sum", "{0}_batch",
         "{0}_time", "{0}_pulled", "{0}_start", "{0}_heads", "{0}_d_at", "d_{0}", "d_{0}_at", "d_{0}_now", "d_{0}_rows",
         "WANTS_{0}", *(f"{{0}}_{k}" for k in range(8)))  # fmt: skip


@dataclass(frozen=True)
class Entry:
    """A state or an operand: its name in the kernels, and the leaf of expressions that stands for it. One that does not
    `move` is the same at every position."""

    name: str
    node: Node
    moves: bool = True

    @property
    def kind(self) -> str:
        """`real`, `int` or `bool`."""
        return self.node.dtype


@dataclass(frozen=True)
class Step:
    """See the module's docstring. `lanes` is how many dimensions a position's entries have, one at least; `numbers` are
    what Python knows at each call, arguments of the kernels; `earlier` are the leaves of the first operands in `joined`."""

    states: tuple[Entry, ...]
    after: tuple[Node, ...]
    operands: tuple[Entry, ...]
    lanes: int
    earlier: tuple[Node, ...] = ()
    joined: tuple[Node, ...] = ()
    numbers: dict[Node, str] = field(default_factory=dict)

    def learned(self) -> list[Entry]:
        """The operands that the states after a step send something back to."""
        found = self.sent({s.node: s.node for s in self.states})
        return [x for x in self.operands if x.node in found]

    def slopes(self) -> list[list[Node | None]]:
        """[state][before]: the derivative of a state after the step by one before it, None where that is 0."""
        leaves = {s.node for s in self.states}
        rows = []
        for after in self.after:
            found = pulled([(after, build.const(build.Fraction(1)))], leaves)
            rows.append([found.get(s.node) for s in self.states])
        return rows

    def sent(self, cotangents: Mapping[Node, Node]) -> dict[Node, Node]:
        """What the states after a step send back to its operands and to the states before; `cotangents` by state."""
        leaves = {x.node for x in (*self.states, *self.operands) if x.kind == "real"}
        return pulled([(after, cotangents[s.node]) for s, after in zip(self.states, self.after, strict=True)], leaves)


def step(
    states: Iterable[tuple[str, Node, Node]],
    operands: Iterable[tuple[str, Node, bool]],
    lanes: int,
    earlier: tuple[Node, ...] = (),
    joined: tuple[Node, ...] = (),
) -> Step:
    """A step from (name, leaf, the state after) and (name, leaf, does it move?). Raises `Refused`."""
    wanted = list(states)
    numbered = {"n": 8, "i": 8, "s": 8, "p": 100, "part_": 999}
    taken = Names(RESERVED | {f"{name}{k}" for name, count in numbered.items() for k in range(count)})
    own = tuple(Entry(own_name(taken, name), leaf) for name, leaf, _ in wanted)
    given = tuple(Entry(own_name(taken, name), leaf, moves) for name, leaf, moves in operands)
    kinds = {s.kind for s in own}
    if kinds not in ({"real"}, {"bool"}):
        raise Refused(f"states that are {' and '.join(sorted(kinds))}")
    if any(x.kind == "complex" for x in given):
        raise Refused("complex operands")
    leaves = {x.node for x in (*own, *given)} | set(earlier)
    after = tuple(multiplied(node, leaves) for _, _, node in wanted)
    found = Step(own, after, given, max(lanes, 1), earlier, tuple(multiplied(node, leaves) for node in joined))
    for node in (*found.after, *found.joined):
        check(found.numbers, node, leaves, taken)
    if kinds == {"real"}:
        for node in found.sent({s.node: s.node for s in own}).values():
            check(found.numbers, node, leaves, taken)
    return found


def own_name(taken: Names, wanted: str, forms: tuple[str, ...] = FORMS) -> str:
    """A name with which none of the kernels' variables, made of it by `forms`, is another's."""
    number, base = 1, taken.passing(wanted)
    name = base
    while any(form.format(name) in taken.taken for form in forms):
        number += 1
        name = taken.passing(f"{wanted}_{number}")
    taken.taken |= {form.format(name) for form in forms}
    return name


def check(numbers: dict[Node, str], node: Node, leaves: set[Node], taken: Names) -> None:
    """Note the numbers below a node, those made of sizes and options, and refuse what kernels have no text for."""
    if node in leaves or node.op == "const":
        return
    if is_fixed(node) and any(n.op in ("size", "option") for n in walk(node)):
        if node not in numbers:
            numbers[node] = named(taken, node)
        return
    if not has_text(node):
        raise Refused(f"`{node.op}` in a step, or in its derivative")
    for arg in node.args:
        check(numbers, arg, leaves, taken)

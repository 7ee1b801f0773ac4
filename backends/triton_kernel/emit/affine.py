"""One step of an affine recurrence, state = decay * state + input, with what reads the state there, entry by entry.

Decay and input are expressions of operands at the same position, so that a step is given by those, and the outputs are
expressions of the state and of operands. Entry points: `Affine`, `affine`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from seqdsl.ir import build
from seqdsl.ir.node import Node, exchanged, walk

from ...torch_module.names import Names
from .derivatives import Refused, pulled
from .step import Entry, check, own_name

# What the kernels call their own, and what they make of the name of a tensor.
RESERVED = frozenset(
    """tl triton HELD T D LENGTH STEPS ROWS BD PACKED along table piece blocks batch part lane own apart row begin end stop leading
    sequence rest chunk first place inside step carry whole total every_whole every_total decay given decays inputs
    state states before sent source slope last held trailing ends_whole first_whole first_total
    ends_total start d_start d_last arriving""".split()
)
FORMS = ("{0}", "{0}_at", "{0}_now", "{0}_rows", "{0}_sum", "{0}_batch", "{0}_time", "{0}_pulled", "d_{0}", "d_{0}_at",
         "d_{0}_now", "d_{0}_rows", "WANTS_{0}", *(f"{{0}}_{k}" for k in range(8)))  # fmt: skip

STATE = build.read("@state", [], "real")  # after the step
SENT = build.read("@sent", [], "real")  # what is sent back to it, by outputs and by the steps after it
SLOPE = build.read("@slope", [], "real")  # what is sent back to the decay


@dataclass(frozen=True)
class Affine:
    """See the module's docstring. `log`: is the decay a logarithm? Of `outputs`, the one that is `STATE` is the state."""

    state: str
    operands: tuple[Entry, ...]
    outputs: tuple[tuple[Entry, Node], ...]
    decay: Node
    given: Node
    log: bool
    lanes: int
    numbers: dict[Node, str] = field(default_factory=dict)

    @cached_property
    def source(self) -> Node:
        """What outputs send back to the state."""
        return self._by_outputs.get(STATE, build.ZERO)

    @cached_property
    def gradients(self) -> dict[Entry, Node]:
        """Of each operand that may need one, its gradient at a position, of `SENT`, `SLOPE` and what outputs are sent."""
        by_step = pulled([(self.decay, SLOPE), (self.given, SENT)], self._real())
        found = {x: [g[x.node] for g in (by_step, self._by_outputs) if x.node in g] for x in self.operands}
        return {x: build.total(parts) for x, parts in found.items() if parts}

    @cached_property
    def _by_outputs(self) -> dict[Node, Node]:
        if not self.outputs:
            return {}
        return pulled([(node, x.node) for x, node in self.outputs], {STATE, *self._real()})

    def _real(self) -> set[Node]:
        return {x.node for x in self.operands if x.kind == "real"}

    def loaded(self, nodes: Iterable[Node]) -> list[Entry]:
        """The operands that some expressions are made of."""
        below = {n for node in nodes for n in walk(node)}
        return [x for x in self.operands if x.node in below]


def affine(
    state: tuple[str, Node],
    operands: Iterable[tuple[str, Node, bool]],
    outputs: Iterable[tuple[str, Node]],
    coefficients: tuple[Node, Node],
    log: bool,
    lanes: int,
) -> Affine:
    """From the state's name and leaf, operands (name, leaf, does it vary along time?), outputs (name, expression of those
    leaves), the decay and the input. An output's node stands for what it is sent back. Raises `Refused`."""
    wanted = {"i": 8, "n": 8, "part_": 999}
    taken = Names(RESERVED | {f"{name}{k}" for name, count in wanted.items() for k in range(count)})
    name = own_name(taken, state[0].rpartition(".")[2], FORMS)
    given = tuple(Entry(own_name(taken, n, FORMS), leaf, moves) for n, leaf, moves in operands)
    made = []
    for n, node in outputs:
        own = name if node is state[1] else own_name(taken, n.rpartition(".")[2], FORMS)
        made.append((Entry(own, build.read(f"@d_{own}", [], "real")), exchanged(node, {state[1]: STATE})))
    if any(x.kind == "complex" for x in given):
        raise Refused("complex operands")
    found = Affine(name, given, tuple(made), *coefficients, log, max(lanes, 1))
    leaves = {STATE, SENT, SLOPE, *(x.node for x in given), *(x.node for x, _ in made)}
    every = [found.decay, found.given, found.source, *(node for _, node in made), *found.gradients.values()]
    for node in every:
        check(found.numbers, node, leaves, taken)
    return found

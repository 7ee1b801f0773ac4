"""Newton's method for nonlinear recurrences: gated cells with a weight for each channel, alone or a few of them coupled (a
small block for each entry), and cells whose states mix along one axis, in sums (a matrix for each pair of states).

The loop stays as equations. Each state's right side becomes `newton(f, start, slopes..)`: f is the step with its
same-step auxiliaries written out, `start` the state before the first position, and the slopes are the derivatives of f
by each state of the loop, in the loop's order. Where entries mix along an axis, a derivative is a diagonal and a matrix,
whose column is a second index of the axis: the slopes are then all diagonals, and after them all matrices, each as its
sum over the column, of which only the terms count. The value is f, so the equations mean what they meant and every other
pass sees an ordinary recurrence; the mark says that a backend may solve all positions at once, by multiple shooting: the
starts of pieces of time are unknowns, all pieces are stepped together, and the starts are corrected with the products of
the slopes. Nothing but the update map decides: a recurrence that nobody has named is found as surely as a gated one.

The slopes are symbolic, from the table of derivatives in reverse over the step's own terms, and not automatic
differentiation of the emitted step: they can be read, shown by `explain`, checked by the interpreter against
differences, and share their parts with the step.

Matrices of N x N cost N^2 entries and, in products, their cube at each position. A backend need not make them as long as
the starts converge without, and where the states are wide it never does: starts are then only copied, and steps taken one
by one where that does not converge. `auto` leaves a cell that is not known to be narrow to be stepped
(`seqdsl.forms.risks`). Where entries mix through a few sums for all of them, the matrices are of small rank, which is
read off their terms (`seqdsl.forms.newton_rank`), and are not made at any width.

Refused, with the reason: an update that is affine over the reals or another ring (its scan is exact, in one pass), states
that mix along two axes, or in anything but sums, a state that decides a choice, and steps without a derivative. Entry
point: `to_newton`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from fractions import Fraction

from seqdsl.algebra.affine import NoMatch, Update, apart, split_update, states_and_updates
from seqdsl.forms.any_scan import to_any_scan
from seqdsl.forms.newton_slopes import HARD, Slopes, mixing_index
from seqdsl.forms.scan import start_of
from seqdsl.ir import build
from seqdsl.ir.dependence import Loop
from seqdsl.ir.derivatives import ELEMENTWISE
from seqdsl.ir.node import Node, reads, walk
from seqdsl.ir.ops import OPS, bound, make
from seqdsl.ir.system import System, Tensor

LARGEST = 4  # states in one block: the product of the slopes costs its cube
LONGEST = 20_000  # terms of an equation written out: passes that visit every use of a shared term take this long


def to_newton(system: System, loop: Loop) -> System:
    """Mark each state of a nonlinear entrywise recurrence with its slopes. Raises `NoMatch` with the reason."""
    updates = states_and_updates(system, loop)
    names = [u.state.name for u in updates]
    if _needs_none(system, loop, updates):
        why = "its update is affine in the state already: it needs no Newton, `scan` solves it in one pass"
        raise NoMatch(why, out_of_scope=True)
    if len(updates) > LARGEST:
        raise NoMatch(f"{len(updates)} states are coupled, and a block of slopes is worth it up to {LARGEST}")
    _check_states(updates)
    updates = [replace(u, rhs=apart(u.rhs)) for u in updates]
    mixing = mixing_index(updates)
    matrices = None if mixing is None else _matrices(system, updates, mixing)
    changed: list[Tensor] = []
    for update in updates:
        by = _diagonals(update, updates) if matrices is None else _listed(matrices, update)
        start, carry = start_of(system, update, loop, beside=_stays(update, updates))
        node = make("newton", update.rhs, start, *by)
        if _length(node) > LONGEST:
            raise NoMatch(f"the slopes of `{update.state.name}` are too long to be written out")
        changed += [replace(update.state, rhs=node), *carry]
    if any(not any(r.attr in names for r in reads(u.rhs)) for u in updates):
        raise NoMatch("a state does not read any state")
    return system.with_tensors(*changed)


def _stays(update: Update, updates: list[Update]) -> bool:
    """Is a state read at its own places only, where it has base cases along other indices than time?"""
    own = update.state.name
    places = [e.position for e in update.state.edges if e.position != update.position]
    found = [r for u in updates for r in reads(u.rhs) if r.attr == own]
    return all(r.args[k] is build.index(update.state.indices[k]) for r in found for k in places)


def _diagonals(update: Update, updates: list[Update]) -> list[Node]:
    """The slopes of a step that is entrywise."""
    _check(update, updates)
    return slopes(update.rhs, [u.before() for u in updates])


def _matrices(system: System, updates: list[Update], mixing: str) -> Slopes:
    """The slopes of a step whose states mix along an index."""
    taken = {n for u in updates for node in walk(u.rhs) for n in (*node.free, *bound(node))}
    return Slopes(updates, mixing, build.fresh(f"{mixing}'", {*system.indices, *taken}))


def _listed(matrices: Slopes, update: Update) -> list[Node]:
    """Diagonals, and then matrices, each as its sum over the column."""
    pairs = matrices.of(update)
    column = (matrices.column,)
    return [
        *(diagonal for diagonal, _ in pairs),
        *(matrix if matrix is build.ZERO else build.reduce("sum", column, matrix) for _, matrix in pairs),
    ]


def _length(node: Node) -> int:
    sizes: dict[Node, int] = {}
    for n in walk(node):
        sizes[n] = 1 + sum(sizes[a] for a in n.args)
    return sizes[node]


def _needs_none(system: System, loop: Loop, updates: list[Update]) -> bool:
    """Is the update affine, over the reals or over the ring of another scan?"""
    names = {u.state.name for u in updates}
    try:
        for update in updates:
            split_update(system, update.rhs, names)
        return True
    except NoMatch:
        pass
    try:
        to_any_scan(system, loop)
    except NoMatch:
        return False
    return True


def _check_states(updates: list[Update]) -> None:
    """Raises `NoMatch` unless the states are real, and over the same indices."""
    first = updates[0]
    if any(u.state.dtype != "real" for u in updates):
        raise NoMatch("its states are not all real numbers")
    if any(set(u.state.indices) != set(first.state.indices) or u.time != first.time for u in updates):
        raise NoMatch("its states do not vary along the same indices: their slopes form no small block")


def _check(update: Update, updates: list[Update]) -> None:
    """Raises `NoMatch` unless the step is differentiable, and reads each state at its own place only."""
    name = update.state.name
    own = {u.state.name: u.before() for u in updates}
    dependent = _dependent(update.rhs, lambda n: n.op == "read" and n.attr in own)
    for node in dependent:
        if node.op == "read":
            if node.attr in own and node is own[str(node.attr)]:
                continue
            raise NoMatch(f"`{name}` reads `{node!r}`, which is not at its own place: the Jacobian is dense")
        if OPS[node.op].binding:
            raise NoMatch(f"the state stands inside `{node.op}`, as in `{node!r}`: its Jacobian is dense")
        if node.op in HARD:
            raise NoMatch(f"`{node!r}` is a hard step of the state: its derivative says nothing of where it goes")
        if node.op == "where" and node.args[0] in dependent:
            raise NoMatch(f"the state decides a choice, `{node.args[0]!r}`: the step may jump")
        if node.op not in ELEMENTWISE and node.dtype != "bool":
            raise NoMatch(f"the state stands inside `{node.op}`, through which no derivative goes")


def _dependent(node: Node, wanted: Callable[[Node], bool]) -> dict[Node, None]:
    """The terms that are wanted or depend on such, operands first."""
    found: dict[Node, None] = {}
    for n in walk(node):
        if wanted(n) or any(a in found for a in n.args):
            found[n] = None
    return found


def slopes(node: Node, by: Collection[Node]) -> list[Node]:
    """The derivatives of an entrywise term by each of the terms `by` in it: the chain rule backwards over its distinct
    terms, so that a part that is used twice is differentiated once. What a choice has not taken has no derivative, whatever
    its value would be: a condition stands around all that follows from it. Raises `NoMatch`."""
    dependent = _dependent(node, lambda n: n in by)
    cotangents: dict[Node, dict[_Chosen, Node]] = {node: {(): build.const(Fraction(1))}}
    for n in reversed(list(dependent)):
        if n in by or n not in cotangents:
            continue
        if n.op not in ELEMENTWISE:
            raise NoMatch(f"no derivative goes through `{n.op}` entry by entry")
        for chosen, cotangent in cotangents[n].items():
            parts: list[tuple[Node, _Chosen, Node | None]]
            if n.op == "where":
                parts = [(b, (*chosen, (n.args[0], k == 0)), cotangent) for k, b in enumerate(n.args[1:])]
            else:
                parts = [(a, chosen, p) for a, p in zip(n.args, ELEMENTWISE[n.op](n, cotangent), strict=True)]
            for arg, below, part in parts:
                if part is not None and arg in dependent:
                    own = cotangents.setdefault(arg, {})
                    own[below] = build.add(own[below], part) if below in own else part
    return [build.total(_below(chosen, c) for chosen, c in cotangents.get(r, {}).items()) for r in by]


_Chosen = tuple[tuple[Node, bool], ...]  # the conditions of the choices around a term, and whether each holds there


def _below(chosen: _Chosen, value: Node) -> Node:
    """The value where it is chosen; 0 elsewhere. Conditions stay as the step has them."""
    for condition, holds in reversed(chosen):
        value = build.where(condition, value, build.ZERO) if holds else build.where(condition, build.ZERO, value)
    return value

"""The update of a recurrence as an affine map of one earlier state, read off its equations.

Tensors of the recurrence that are only read at the same step are inlined first, so what remains is one equation for
each state. `split` then writes an expression as sum(coefficient * read) + rest, over the reads that `wanted` picks; it
follows + - * / and `where`, moves what does not depend on the state out of the way, and says what stops it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import lru_cache

from seqdsl.algebra.interval import Bounds
from seqdsl.ir import build
from seqdsl.ir.dependence import Compute, Loop, Step
from seqdsl.ir.node import Node, read_names, reads, rebuild, rebuild_reads, walk
from seqdsl.ir.ops import OPS, bound
from seqdsl.ir.remember import once_for_each
from seqdsl.ir.system import Index, System, Tensor


class NoMatch(Exception):
    """Why an analysis or a rewriting does not match what it is given: an update that is not affine, a recurrence of another
    shape; the message is for people. `out_of_scope`: it is none of the rewriting's business, rather than beyond it."""

    def __init__(self, message: str, *, out_of_scope: bool = False) -> None:
        self.out_of_scope = out_of_scope
        super().__init__(message)


def neither(first: NoMatch, second: NoMatch) -> NoMatch:
    """Two reasons as one, without saying anything twice."""
    return first if str(second) in str(first) else NoMatch(f"{first}; {second}", out_of_scope=first.out_of_scope)


@dataclass(frozen=True)
class Term:
    """`coefficient * read`, summed over `over` where `guard` holds (a contraction of the read)."""

    coefficient: Node
    read: Node
    over: tuple[str, ...] = ()
    guard: Node = build.TRUE


def split(node: Node, wanted: Callable[[Node], bool]) -> tuple[list[Term], Node]:
    """The expression as terms in the wanted reads, and what is left. Raises `NoMatch`."""
    if node.op == "read" and wanted(node):
        if any(wanted(r) for a in node.args for r in reads(a)):
            raise NoMatch(f"the state decides where it is read, `{node!r}`")
        return [Term(build.ONE, node)], build.ZERO
    if not any(wanted(r) for r in reads(node)):
        return [], node
    match node.op:
        case "add" | "sub":
            (xs, x), (ys, y) = (split(a, wanted) for a in node.args)
            if node.op == "sub":
                return xs + [replace(t, coefficient=build.neg(t.coefficient)) for t in ys], build.sub(x, y)
            return xs + ys, build.add(x, y)
        case "neg":
            xs, x = split(node.args[0], wanted)
            return [replace(t, coefficient=build.neg(t.coefficient)) for t in xs], build.neg(x)
        case "mul":
            return _product(node, wanted)
        case "div":
            if any(wanted(r) for r in reads(node.args[1])):
                raise NoMatch(f"the state stands in a denominator, `{node!r}`")
            xs, x = split(node.args[0], wanted)
            d = node.args[1]
            return [replace(t, coefficient=build.div(t.coefficient, d)) for t in xs], _quotient(x, d)
        case "where":
            return _choice(node, wanted)
        case "sum":
            return _contraction(node, wanted)
    raise NoMatch(f"the state stands inside `{node.op}`, as in `{node!r}`")


def _quotient(x: Node, d: Node) -> Node:
    return x if x is build.ZERO else build.div(x, d)


def _product(node: Node, wanted: Callable[[Node], bool]) -> tuple[list[Term], Node]:
    a, b = node.args
    if any(wanted(r) for r in reads(a)) and any(wanted(r) for r in reads(b)):
        raise NoMatch(f"two reads of the state are multiplied, `{node!r}`")
    if any(wanted(r) for r in reads(b)):
        a, b = b, a
    terms, rest = split(a, wanted)
    return [replace(t, coefficient=build.mul(t.coefficient, b)) for t in terms], build.mul(rest, b)


def _choice(node: Node, wanted: Callable[[Node], bool]) -> tuple[list[Term], Node]:
    condition, a, b = node.args
    if any(wanted(r) for r in reads(condition)):
        raise NoMatch(f"the state decides a choice, `{condition!r}`")
    xs, x = split(a, wanted)
    ys, y = split(b, wanted)
    terms = [replace(t, coefficient=build.where(condition, t.coefficient, build.ZERO)) for t in xs]
    terms += [replace(t, coefficient=build.where(condition, build.ZERO, t.coefficient)) for t in ys]
    return terms, x if x is y else build.where(condition, x, y)


def _contraction(node: Node, wanted: Callable[[Node], bool]) -> tuple[list[Term], Node]:
    body, guard = node.args
    if any(wanted(r) for r in reads(guard)):
        raise NoMatch(f"the state decides a guard, `{guard!r}`")
    terms, rest = split(body, wanted)
    found = []
    for term in terms:
        if not term.over and not term.read.free & frozenset(bound(node)):  # a sum of coefficients
            found.append(replace(term, coefficient=build.reduce("sum", bound(node), term.coefficient, guard)))
            continue
        found.append(replace(term, over=(*bound(node), *term.over), guard=build.both(guard, term.guard)))
    return found, rest if rest is build.ZERO else build.make("sum", rest, guard, attr=node.attr)


LONGEST_TO_EXPAND = 64  # terms: a step that is nonlinear in many places multiplies out to thousands of products


def split_update(system: System, rhs: Node, names: Collection[str]) -> tuple[list[Term], Node]:
    """`split` by the reads of some tensors, and where it fails once more on the canonical form: (h + x)^2 - h^2 is affine
    after cancellation."""
    found = _split_update(rhs, read_names(rhs).intersection(names), system.indices_of(rhs))
    if isinstance(found, str):
        raise NoMatch(found)
    return list(found[0]), found[1]


@lru_cache(5000)
def _split_update(
    rhs: Node, names: frozenset[str], indices: tuple[Index, ...]
) -> tuple[tuple[Term, ...], Node] | str:
    """The same, or why not. Of a system the indices are all that matters: the same updates are met in every form, of one
    system after another."""
    rhs = apart(rhs)
    try:
        terms, rest = split(rhs, lambda r: r.attr in names)
        return tuple(terms), rest
    except NoMatch as reason:
        if sum(1 for _ in walk(rhs)) > LONGEST_TO_EXPAND:
            return str(reason)
        from seqdsl.algebra.canon import Canon
        from seqdsl.algebra.poly import to_node

        system = System("", {}, {i.name: i for i in indices}, {}, ())
        try:
            simplified = to_node(Canon(system, names).poly(rhs))
            terms, rest = split(apart(simplified), lambda r: r.attr in names)
            return tuple(terms), rest
        except (NoMatch, RecursionError, AssertionError, KeyError, ValueError, OverflowError):
            return str(reason)


@lru_cache(5000)
def apart(node: Node) -> Node:
    """The same expression with no summed index that has the name of a free one, or of one summed inside it: what is
    multiplied into a sum is then not captured by it."""

    def change(n: Node) -> Node | None:
        if n.op != "sum":
            return None
        below = {i for a in n.args for m in walk(a) for i in bound(m)}
        names: dict[str, str] = {}
        for name in bound(n):
            if name in node.free or name in below:
                names[name] = build.fresh(name + "'", {*node.free, *below, *n.free, *bound(n), *names.values()})
        return build.rename_here(n, names) if names else None

    return rebuild(node, change)


@dataclass(frozen=True)
class Update:
    """One state's equation with same-step auxiliaries inlined; `step` is -1 for time upwards, +1 for downwards."""

    state: Tensor
    time: str
    position: int
    step: int
    rhs: Node

    def before(self) -> Node:
        """The read of the state one step earlier, at its own place."""
        step = build.add(build.index(self.time), build.const(self.step))
        at = [step if k == self.position else build.index(i) for k, i in enumerate(self.state.indices)]
        return build.read(self.state.name, at, self.state.dtype)


@once_for_each
def states_and_updates(system: System, loop: Loop) -> list[Update]:
    """The tensors of a loop that are read at another step, each with its full update. Raises `NoMatch` where the
    loop holds an inner loop, or a read at a distance other than one."""
    if any(not isinstance(s, Compute) for s in loop.body):
        raise NoMatch("the recurrence runs over two axes at once")
    members = dict(loop.positions)
    step = 1 if loop.reverse else -1
    carried: list[str] = []
    for name in members:
        for read in reads(_rhs(system, name)):
            if read.attr in members:
                offset = _offset(system, name, members[name], read, members[str(read.attr)])
                if offset not in (0, step):
                    raise NoMatch(f"`{name}` reads `{read!r}`, which is not one step away")
                if offset == step and read.attr not in carried:
                    carried.append(str(read.attr))
    inlined = _inline(system, loop, carried)
    found = []
    for name in [n for n in members if n in carried]:
        tensor = system.tensors[name]
        found.append(Update(tensor, tensor.indices[members[name]], members[name], step, inlined[name]))
    return found


def _rhs(system: System, name: str) -> Node:
    rhs = system.tensors[name].rhs
    assert rhs is not None
    return rhs


def _offset(system: System, reader: str, mine: int, read: Node, position: int) -> int | None:
    from seqdsl.ir.order import difference

    index = build.index(system.tensors[reader].indices[mine])
    form = difference(read.args[position], index)
    return int(form.get(None, build.Fraction(0))) if set(form) <= {None} else None


MOST_READS = 100  # of the state in one update: a chain of equations that each read twice doubles them every time


@lru_cache(5000)
def occurrences(node: Node, names: frozenset[str]) -> int:
    """How many reads of the tensors there are below a node, each counted as often as it is written."""
    counts: dict[Node, int] = {}
    for below in walk(node):
        own = below.op == "read" and below.attr in names
        counts[below] = own + sum(counts[a] for a in below.args)
    return counts[node]


def _inline(system: System, loop: Loop, carried: list[str]) -> dict[str, Node]:
    """Same-step reads of the loop's own tensors replaced by their expressions, in the order of computation."""
    done: dict[str, Node] = {}
    members = dict(loop.positions)
    order: list[Step] = list(loop.body)
    for step in order:
        assert isinstance(step, Compute)
        tensor = system.tensors[step.tensor]

        def open_up(node: Node, reader: Tensor = tensor) -> Node | None:
            own = system.tensors[str(node.attr)]
            at = dict(zip(own.indices, node.args, strict=True))
            if _offset(system, reader.name, members[reader.name], node, members[own.name]) != 0:
                return None
            if not build.can_substitute(done[own.name], at):
                raise NoMatch(f"`{node!r}` cannot be written out in `{reader.name}`")
            return build.substitute(done[own.name], at)

        done[tensor.name] = rebuild_reads(_rhs(system, tensor.name), done, open_up)
        if occurrences(done[tensor.name], frozenset(members)) > MOST_READS:
            raise NoMatch(
                f"`{tensor.name}` reads the state more than {MOST_READS} times once the step is written out"
            )
    return done


@dataclass(frozen=True)
class Diagonal:
    """`S[t] = decay * S[t-1] + write`, entry by entry. `log_decay` is given where the decay is `exp(log_decay)` and
    real, `exponent` where it is complex."""

    update: Update
    decay: Node
    log_decay: Node | None
    write: Node
    exponent: Node | None = None

    @property
    def log(self) -> bool:
        """Is the logarithm of the decay known?"""
        return self.log_decay is not None

    @property
    def operand(self) -> Node:
        """The decay as the operators of forms take it: its logarithm where that is known."""
        return self.decay if self.log_decay is None else self.log_decay


def diagonal(system: System, loop: Loop) -> list[Diagonal]:
    """Every state of a loop as an entrywise affine recurrence of its own. Raises `NoMatch` with the reason."""
    found = []
    updates = states_and_updates(system, loop)
    names = {u.state.name for u in updates}
    for update in updates:
        terms, write = split_update(system, update.rhs, names)
        decay = build.ZERO
        for term in terms:
            if term.read.attr != update.state.name:
                raise NoMatch(f"`{update.state.name}` reads the state `{term.read.attr}`: the two are coupled")
            if term.over or term.guard is not build.TRUE:
                raise NoMatch(f"`{update.state.name}` reads its state through a sum over {', '.join(term.over)}")
            for position, (index, subscript) in enumerate(zip(update.state.indices, term.read.args, strict=True)):
                if position != update.position and subscript is not build.index(index):
                    raise NoMatch(f"`{term.read!r}` reads the state at another place of `{index}`")
            decay = build.add(decay, term.coefficient)
        wide = update.state.dtype in ("real", "complex")  # integers stay integers
        log_decay = log_of(decay, system) if wide else None
        found.append(Diagonal(update, decay, log_decay, write, _exponent_of(decay, system)))
    return found


def log_of(decay: Node, system: System | None = None) -> Node | None:
    """g where the decay is shown to be exp(g), for exp, sigmoid, positive numbers, their products, powers, choices, and
    tensors that are cheap to write out again; None otherwise. 1 is exp(0), and a reset, 0, is exp(-inf) in a choice."""
    if decay is build.ONE:
        return build.const(build.Fraction(0))
    value = build.value_of(decay)
    if value is not None:
        return build.make("log", build.const(build.Fraction(value))) if value > 0 else None
    if decay.dtype != "real":
        return None
    match decay.op:
        case "exp":
            return decay.args[0]
        case "sigmoid":
            return build.make("log_sigmoid", decay.args[0])
        case "sub" if decay.args[0] is build.ONE and decay.args[1].op == "sigmoid":
            return build.make("log_sigmoid", build.neg(decay.args[1].args[0]))
        case "mul":
            a, b = (log_of(x, system) for x in decay.args)
            return build.add(a, b) if a is not None and b is not None else None
        case "pow" if (a := log_of(decay.args[0], system)) is not None:
            still = build.make("eq", decay.args[1], build.ZERO)  # a reset, exp(-inf), to the power 0 is 1
            return build.mul(decay.args[1], build.where(still, build.ZERO, a))
        case "where":
            yes, no = (_minus_infinity() if x is build.ZERO else log_of(x, system) for x in decay.args[1:])
            return build.where(decay.args[0], yes, no) if yes is not None and no is not None else None
        case "read" if system is not None and (opened := _cheap_definition(system, decay)) is not None:
            return log_of(opened, system)
        case _ if system is not None and _is_positive_table(system, decay):
            one_less = decay.op == "sub" and decay.args[0] is build.ONE
            return build.make("log1p", build.neg(decay.args[1])) if one_less else build.make("log", decay)
    return None


def _is_positive_table(system: System, decay: Node) -> bool:
    """Numbers that are no one's to change, above 0: through a logarithm no gradient comes back that would be infinite where
    a positive gate underflows."""
    low = Bounds(system).of(decay)[0] if not any(reads(decay)) else None
    return low is not None and low > 0


def _exponent_of(decay: Node, system: System) -> Node | None:
    """z where a complex decay is exp(z), by its own text or by that of the tensor it is."""
    opened = _cheap_definition(system, decay) if decay.op == "read" else decay
    return opened.args[0] if decay.dtype == "complex" and opened is not None and opened.op == "exp" else None


def _minus_infinity() -> Node:
    return build.neg(build.const("inf"))


def _cheap_definition(system: System, read: Node) -> Node | None:
    """What a gate is defined as, if that is elementwise: a projection is not computed twice."""
    tensor = system.tensors[str(read.attr)]
    if tensor.kind != "derived" or tensor.edges or tensor.rhs is None:
        return None
    if any(OPS[n.op].binding for n in walk(tensor.rhs)):
        return None
    at = dict(zip(tensor.indices, read.args, strict=True))
    recursive = any(r.attr == tensor.name for r in reads(tensor.rhs))
    return None if recursive or not build.can_substitute(tensor.rhs, at) else build.substitute(tensor.rhs, at)


def uses(node: Node, names: set[str]) -> bool:
    """Does an expression read one of the tensors?"""
    return not read_names(node).isdisjoint(names)

"""The update of a recurrence as an affine map of one earlier state, read off its equations.

Tensors of the recurrence that are only read at the same step are inlined first, so what remains is one equation for
each state. `split` then writes an expression as sum(coefficient * read) + rest, over the reads that `wanted` picks; it
follows + - * / and `where`, moves what does not depend on the state out of the way, and says what stops it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from seqdsl.ir import build
from seqdsl.ir.dependence import Compute, Loop, Step, build_not
from seqdsl.ir.node import Node, read_names, reads, rebuild, walk
from seqdsl.ir.ops import OPS, bound
from seqdsl.ir.remember import once_for_each
from seqdsl.ir.system import System, Tensor


class NotAffine(Exception):
    """Why an expression is not affine in the wanted reads; the message is for people."""


@dataclass(frozen=True)
class Term:
    """`coefficient * read`, summed over `over` where `guard` holds (a contraction of the read)."""

    coefficient: Node
    read: Node
    over: tuple[str, ...] = ()
    guard: Node = build.TRUE


def split(node: Node, wanted: Callable[[Node], bool]) -> tuple[list[Term], Node]:
    """The expression as terms in the wanted reads, and what is left. Raises `NotAffine`."""
    if node.op == "read" and wanted(node):
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
                raise NotAffine(f"the state stands in a denominator, `{node!r}`")
            xs, x = split(node.args[0], wanted)
            d = node.args[1]
            return [replace(t, coefficient=build.div(t.coefficient, d)) for t in xs], _quotient(x, d)
        case "where":
            return _choice(node, wanted)
        case "sum":
            return _contraction(node, wanted)
    raise NotAffine(f"the state stands inside `{node.op}`, as in `{node!r}`")


def _quotient(x: Node, d: Node) -> Node:
    return x if x is build.ZERO else build.div(x, d)


def _product(node: Node, wanted: Callable[[Node], bool]) -> tuple[list[Term], Node]:
    a, b = node.args
    if any(wanted(r) for r in reads(a)) and any(wanted(r) for r in reads(b)):
        raise NotAffine(f"two reads of the state are multiplied, `{node!r}`")
    if any(wanted(r) for r in reads(b)):
        a, b = b, a
    terms, rest = split(a, wanted)
    return [replace(t, coefficient=build.mul(t.coefficient, b)) for t in terms], build.mul(rest, b)


def _choice(node: Node, wanted: Callable[[Node], bool]) -> tuple[list[Term], Node]:
    condition, a, b = node.args
    if any(wanted(r) for r in reads(condition)):
        raise NotAffine(f"the state decides a choice, `{condition!r}`")
    xs, x = split(a, wanted)
    ys, y = split(b, wanted)
    terms = [replace(t, coefficient=build.where(condition, t.coefficient, build.ZERO)) for t in xs]
    terms += [replace(t, coefficient=build.where(condition, build.ZERO, t.coefficient)) for t in ys]
    return terms, x if x is y else build.where(condition, x, y)


def _contraction(node: Node, wanted: Callable[[Node], bool]) -> tuple[list[Term], Node]:
    body, guard = node.args
    if any(wanted(r) for r in reads(guard)):
        raise NotAffine(f"the state decides a guard, `{guard!r}`")
    terms, rest = split(body, wanted)
    found = []
    for term in terms:
        if not term.over and not term.read.free & frozenset(bound(node)):  # a sum of coefficients
            found.append(replace(term, coefficient=build.reduce("sum", bound(node), term.coefficient, guard)))
            continue
        found.append(replace(term, over=(*bound(node), *term.over), guard=build.both(guard, term.guard)))
    return found, rest if rest is build.ZERO else build.make("sum", rest, guard, attr=node.attr)


LONGEST_TO_EXPAND = 64  # terms: a step that is nonlinear in many places multiplies out to thousands of products


def split_update(system: System, rhs: Node, wanted: Callable[[Node], bool]) -> tuple[list[Term], Node]:
    """`split`, and where it fails once more on the canonical form: (h + x)^2 - h^2 is affine after cancellation."""
    rhs = apart(rhs)
    try:
        return split(rhs, wanted)
    except NotAffine as reason:
        if sum(1 for _ in walk(rhs)) > LONGEST_TO_EXPAND:
            raise
        from seqdsl.algebra.canon import Canon
        from seqdsl.algebra.poly import to_node

        states = frozenset(str(r.attr) for r in reads(rhs) if wanted(r))
        try:
            simplified = to_node(Canon(system, states).poly(rhs))
            return split(apart(simplified), wanted)
        except (NotAffine, RecursionError, AssertionError, KeyError, ValueError, OverflowError):
            raise reason from None


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


@once_for_each
def states_and_updates(system: System, loop: Loop) -> list[Update]:
    """The tensors of a loop that are read at another step, each with its full update. Raises `NotAffine` where the
    loop holds an inner loop, or a read at a distance other than one."""
    if any(not isinstance(s, Compute) for s in loop.body):
        raise NotAffine("the recurrence runs over two axes at once")
    members = dict(loop.positions)
    step = 1 if loop.reverse else -1
    carried: list[str] = []
    for name in members:
        for read in reads(_rhs(system, name)):
            if read.attr in members:
                offset = _offset(system, name, members[name], read, members[str(read.attr)])
                if offset not in (0, step):
                    raise NotAffine(f"`{name}` reads `{read!r}`, which is not one step away")
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


def _occurrences(node: Node, names: frozenset[str]) -> int:
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
            if node.op != "read" or node.attr not in done:
                return None
            own = system.tensors[str(node.attr)]
            at = dict(zip(own.indices, node.args, strict=True))
            if _offset(system, reader.name, members[reader.name], node, members[own.name]) != 0:
                return None
            if not build.can_substitute(done[own.name], at):
                raise NotAffine(f"`{node!r}` cannot be written out in `{reader.name}`")
            return build.substitute(done[own.name], at)

        done[tensor.name] = rebuild(_rhs(system, tensor.name), open_up)
        if _occurrences(done[tensor.name], frozenset(members)) > MOST_READS:
            raise NotAffine(
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


def diagonal(system: System, loop: Loop) -> list[Diagonal]:
    """Every state of a loop as an entrywise affine recurrence of its own. Raises `NotAffine` with the reason."""
    found = []
    updates = states_and_updates(system, loop)
    names = {u.state.name for u in updates}
    for update in updates:
        terms, write = split_update(system, update.rhs, lambda r: r.attr in names)
        decay = build.ZERO
        for term in terms:
            if term.read.attr != update.state.name:
                raise NotAffine(f"`{update.state.name}` reads the state `{term.read.attr}`: the two are coupled")
            if term.over or term.guard is not build.TRUE:
                raise NotAffine(f"`{update.state.name}` reads its state through a sum over {', '.join(term.over)}")
            for position, (index, subscript) in enumerate(zip(update.state.indices, term.read.args, strict=True)):
                if position != update.position and subscript is not build.index(index):
                    raise NotAffine(f"`{term.read!r}` reads the state at another place of `{index}`")
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
    return None


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


def factors(node: Node) -> list[Node]:
    """The factors of a product, signs and divisors included (as factors of their own)."""
    if node.op == "mul":
        return factors(node.args[0]) + factors(node.args[1])
    if node.op == "neg":
        return [build.const(-1), *factors(node.args[0])]
    if node.op == "div":
        return [*factors(node.args[0]), build.div(build.const(build.Fraction(1)), node.args[1])]
    return [node]


Monomial = tuple[list[Node], tuple[str, ...]]


def monomials(node: Node, avoid: frozenset[str] = frozenset(), rows: frozenset[str] | None = None) -> list[Monomial]:
    """A sum of products: for each product its factors and the indices it is summed over (unguarded sums only).

    Summed indices get fresh names, so that a product may be moved to where `avoid` and the old names mean something.
    With `rows`, only the sums that tie what varies along the rows to what does not stay open: in
    `sum[j] (x[j] * w[j]) * k[rows]` the sum is one factor, and not a rank of the write.
    """
    taken = {*avoid, *(i for n in walk(node) for i in n.free)}
    found = _monomials(node, taken)
    return found if rows is None else [_closed(parts, over, rows) for parts, over in found]


def _closed(parts: list[Node], over: tuple[str, ...], rows: frozenset[str]) -> Monomial:
    """The sums whose factors are all along the rows, or all not, as factors again."""
    left = [f for f in parts if f.free & rows]
    right = [f for f in parts if not f.free & rows]
    tied = {i for i in over if any(i in f.free for f in left) and any(i in f.free for f in right)}
    if len(tied) == len(over):
        return parts, over
    done: list[Node] = []
    for side in (left, right):
        own = tuple(i for i in over if i not in tied and any(i in f.free for f in side))
        summed = [f for f in side if f.free & set(own)]
        done += [f for f in side if not f.free & set(own)]
        done += [build.reduce("sum", own, build.product(summed))] if own else []
    alone = [i for i in over if not any(i in f.free for f in parts)]
    return [*done, *(build.size(i) for i in alone)], tuple(i for i in over if i in tied)


def _monomials(node: Node, taken: set[str]) -> list[Monomial]:
    if node is build.ZERO:
        return []
    if node.op in ("add", "sub"):
        left, right = (_monomials(a, taken) for a in node.args)
        return left + [([build.const(-1), *f], o) for f, o in right] if node.op == "sub" else left + right
    if node.op == "neg":
        return [([build.const(-1), *f], o) for f, o in _monomials(node.args[0], taken)]
    if node.op == "where":
        condition, yes, no = node.args
        return _chosen(condition, yes, taken) + _chosen(build_not(condition), no, taken)
    if node.op == "sum" and node.args[1] is build.TRUE:
        names = {}
        for name in bound(node):
            names[name] = build.fresh(name + "'", taken)
            taken.add(names[name])
        body = build.rename_here(node, names).args[0]
        return [(f, (*names.values(), *o)) for f, o in _monomials(body, taken)]
    if node.op == "mul":
        left, right = (_monomials(a, taken) for a in node.args)
        return [([*f, *g], (*o, *p)) for f, o in left for g, p in right]
    return [(factors(node), ())]


def _chosen(condition: Node, node: Node, taken: set[str]) -> list[Monomial]:
    """`where(condition, node, 0)`: a condition may stand at every factor, and must, lest 0 meets a NaN."""
    found = []
    for parts, over in _monomials(node, taken):
        chosen = [f if build.value_of(f) is not None else build.where(condition, f, build.ZERO) for f in parts]
        bare = all(build.value_of(f) is not None for f in parts)
        found.append(([*chosen, build.where(condition, build.ONE, build.ZERO)] if bare else chosen, over))
    return found


def uses(node: Node, names: set[str]) -> bool:
    """Does an expression read one of the tensors?"""
    return not read_names(node).isdisjoint(names)

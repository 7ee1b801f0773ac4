"""Rule 10: which reads inside `max`, `softmax` and the like lie outside their axis, and are not guarded.

There 0 is no neutral value, so the zeros outside would take part in silence. A read is refused where index arithmetic
alone shows that it leaves the axis, and no guard or `where` around it excludes the points where it does. Lengths that
are only known in a call decide nothing: `bias[s - t + N - 1]` may fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from seqdsl.ir import build
from seqdsl.ir.node import Node, rebuild
from seqdsl.ir.ops import OPS
from seqdsl.ir.order import Linear, linear, upper_bound
from seqdsl.ir.system import System

Facts = tuple[Node, ...]


def unguarded_reads(system: System, node: Node) -> Iterator[tuple[Node, str]]:
    """The reads below an operator that leave their axis, each with the guard that is missing."""
    for read, facts in _reads(node.args[0], tuple(build.conjuncts(node.args[1])), set()):
        tensor = system.tensors[str(read.attr)]
        if tensor.edges:
            continue
        for own, subscript in zip(tensor.indices, read.args, strict=True):
            form = linear(subscript)
            terms = [t for t in form if t is not None]
            if terms and all(t.op == "index" for t in terms):
                missing = _below(system, own, form, subscript, facts) or _above(system, own, form, subscript, facts)
                if missing:
                    yield read, missing
                    break


def _reads(node: Node, facts: Facts, seen: set[tuple[Node, Facts]]) -> Iterator[tuple[Node, Facts]]:
    """Every read, with what the guards and conditions around it say; terms are shared, so each is visited once."""
    if (node, facts) in seen:
        return
    seen.add((node, facts))
    if node.op == "where":
        condition, yes, no = node.args
        yield from _reads(condition, facts, seen)
        yield from _reads(yes, (*facts, *build.conjuncts(condition)), seen)
        yield from _reads(no, (*facts, *_negated(condition)), seen)
        return
    if node.op == "read":
        yield node, facts
    inside = OPS[node.op].binding in ("reduce", "along", "fold")
    more = tuple(build.conjuncts(node.args[-1])) if inside and node.args[-1].dtype == "bool" else ()
    for arg in node.args:
        yield from _reads(arg, (*facts, *more) if arg is not node.args[-1] else facts, seen)


def _negated(condition: Node) -> Facts:
    """What holds where a condition does not."""
    if condition.op == "not":
        return tuple(build.conjuncts(condition.args[0]))
    if condition.op == "or":
        return tuple(fact for part in condition.args for fact in _negated(part))
    if condition.op in ("lt", "le"):
        a, b = condition.args
        return (build.make("le" if condition.op == "lt" else "lt", b, a),)
    return ()


def _below(system: System, own: str, form: Linear, subscript: Node, facts: Facts) -> str:
    """`t - j >= 0` where the subscript falls below 0."""
    terms = [t for t in form if t is not None]
    negative = [t for t in terms if form[t] < 0]
    if not negative and form.get(None, Fraction(0)) >= 0:
        return ""
    if any(system.axis(str(t.attr)) != system.axis(own) and form[t] > 0 for t in terms):
        least = _plus({None: form.get(None, Fraction(0))}, *((_top(system, t), form[t]) for t in negative))
        highest = upper_bound(system, least, ())
        if highest is None or highest >= 0:
            return ""  # other axes may be long enough
    low = upper_bound(system, {t: -c for t, c in form.items()}, facts)
    return "" if low is not None and low <= 0 else f"{subscript!r} >= 0"


def _above(system: System, own: str, form: Linear, subscript: Node, facts: Facts) -> str:
    """`t + j < |t|` where the subscript reaches the end, whatever the lengths."""
    end = _length(system, own)
    positive = [t for t in form if t is not None and form[t] > 0]
    tops = [(_top(system, t), form[t]) for t in positive]
    most = _plus({None: form.get(None, Fraction(0)) + 1}, (end, Fraction(-1)), *tops)
    lowest = upper_bound(system, {t: -c for t, c in most.items()}, ())
    if lowest is None or lowest >= 0:
        return ""
    beyond = _plus(form, ({None: Fraction(1)}, Fraction(1)), (linear(build.size(own)), Fraction(-1)))
    stated = _plus(form, ({None: Fraction(1)}, Fraction(1)), (end, Fraction(-1)))
    for excess in (beyond, stated):
        high = upper_bound(system, excess, facts)
        if high is not None and high <= 0:
            return ""
    return f"{subscript!r} < |{own}|"


def _top(system: System, index: Node) -> Linear:
    """The last position of an index."""
    return _plus(_length(system, str(index.attr)), ({None: Fraction(1)}, Fraction(-1)))


def _length(system: System, index: str) -> Linear:
    """The length of an index's axis: its formula, with the defaults of options, or a symbol."""
    axis = system.axis(index)
    size = system.indices[axis].size
    if size is None:
        return linear(build.size(axis))

    def default(node: Node) -> Node | None:
        return system.options.get(str(node.attr)) if node.op == "option" else None

    return linear(rebuild(size, default))


def _plus(form: Linear, *more: tuple[Linear, Fraction]) -> Linear:
    result = form
    for other, factor in more:
        result = {t: result.get(t, Fraction(0)) + factor * other.get(t, Fraction(0)) for t in {**result, **other}}
    return {t: c for t, c in result.items() if c != 0}

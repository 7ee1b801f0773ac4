"""Which mixers can be computed with their stream in pieces, one on each rank: the form `distributed`.

What a position needs of earlier ones must be known by what is small: the states of recurrences (`distributed.across`),
or the last few positions before the piece, which the state record keeps. Anything else needs other pieces as a whole,
or the position in the whole stream, and is refused, equation by equation. Entry point: `in_pieces`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from seqdsl.algebra.affine import NoMatch
from seqdsl.algebra.classify import classify_all
from seqdsl.algebra.declared import monoid_verdicts
from seqdsl.algebra.monoid import monoid_of
from seqdsl.algebra.verdict import Verdict
from seqdsl.forms.distributed import Element, across
from seqdsl.ir import build
from seqdsl.ir.dependence import Loop, every_loop, recurrences
from seqdsl.ir.nest import closed, opened, told
from seqdsl.ir.node import Node, read_names, reads, rebuild, walk
from seqdsl.ir.ops import bound, make
from seqdsl.ir.order import distance
from seqdsl.ir.state import POSITION, StateEntry, absolute, reads_length
from seqdsl.ir.support import relevant_reads
from seqdsl.ir.system import System, Tensor, reached

CONCATENATION = (
    "maps compose associatively, and so do windows of last positions; what enters a piece is the action of those before it"
)
Reasons = list[tuple[str, str]]  # of which tensors, and why


@dataclass(frozen=True)
class Pieces:
    """The system of one piece; the states, and the tensors of which windows, cross ranks; how many numbers each rank
    sends. Or the reasons why there is none."""

    system: System
    crossing: tuple[str, ...] = ()
    sends: str = ""
    reasons: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class _Found:
    """What is gathered on the way: the direction of each state (0 for one that does not cross), what is sent, reasons."""

    states: dict[str, int]
    sent: list[str]
    reasons: Reasons


def in_pieces(system: System) -> Pieces:
    """The system whose stream is one rank's piece of it."""
    if system.stream is None:
        return Pieces(system, reasons=((system.name, "it has no streamed axis"),))
    found = _Found({}, [], [])
    whole, states, sent, reasons = system, found.states, found.sent, found.reasons
    for loop in recurrences(whole):
        if loop.axis == system.stream:
            system = _crossed(system, loop, found)
        elif any(step.axis == system.stream for step in every_loop(loop.body)):
            system = _in_steps(system, loop, found)
    unsolved = {name for name, step in states.items() if step == 0}
    folded = _folded(whole)
    reasons += _reads_refused(whole, states)
    windows = [e for e in system.record or () if e.tensor in whole.tensors and e.tensor not in unsolved | folded]
    reasons += [(e.tensor, why) for e in windows if (why := _unkept(whole, e))]
    if system.record is not None:
        kept = tuple(replace(e, across=e in windows or e.name == POSITION and not folded) for e in system.record)
        system = replace(system, record=kept)
        sent += ["1" if e.name == POSITION else _window(whole, e) for e in system.record or () if e.across]
    folds = [t.name for t in whole.derived() if t.rhs is not None and any(_is_prefix(whole, n) for n in walk(t.rhs))]
    sent += [f"the fields of {name}" for name in folds]
    names = (*states, *folds, *(e.tensor for e in windows), *(e.name for e in system.record or () if e.name == POSITION))
    return Pieces(_over_ranks(system), names, " + ".join(sent), tuple(dict.fromkeys(reasons)))


def laws(system: System) -> dict[str, Verdict]:
    """What is known of the monoid of each recurrence along the stream."""
    found = [(r, monoid_of(system, r)) for r in classify_all(system) if r.axis == system.stream]
    declared = {f"{law} ({name})": v for name in system.monoids for law, v in monoid_verdicts(system, name).items()}
    return {f"{law} ({', '.join(r.states)})": v for r, m in found if m is not None for law, v in m.verdicts} | declared


def _is_prefix(system: System, node: Node) -> bool:
    """Is it a fold of a declared monoid up to the current position, `M[s | s <= t]`? That of a piece goes on from the
    folds of those before: such folds are of associative monoids only."""
    if node.op != "fold" or len(bound(node)) != 1 or system.stream is None:
        return False
    (name,) = bound(node)
    return system.axis(name) == system.stream and node.args[-1] is make("le", build.index(name), build.index(system.stream))


def _folded(system: System) -> set[str]:
    """What such folds read, of which a state holds all positions."""
    rights = [t.rhs for t in system.derived() if t.rhs is not None]
    return {str(r.attr) for rhs in rights for n in walk(rhs) if _is_prefix(system, n) for a in n.args for r in reads(a)}


def _over_ranks(system: System) -> System:
    """The folds of each piece as those of all pieces before, too."""
    changed = []
    for tensor in system.derived():
        rhs = tensor.rhs and rebuild(tensor.rhs, lambda n: make("over_ranks", n) if _is_prefix(system, n) else None)
        changed += [replace(tensor, rhs=rhs)] if rhs is not tensor.rhs else []
    return system.with_tensors(*changed)


def _without_folds(system: System, node: Node) -> Node:
    """The expression with what a fold needs of the current position in its stead."""

    def change(n: Node) -> Node | None:
        if not _is_prefix(system, n):
            return None
        here = {name: build.index(str(system.stream)) for name in bound(n)}
        return build.total(build.substitute(a, here) for a in n.args[:-1])

    return rebuild(node, change)


def _crossed(system: System, loop: Loop, found: _Found) -> System:
    """The system with a recurrence across ranks; as it was, with the reason, where it has no small element."""
    try:
        system, element = across(system, loop)
    except NoMatch as reason:
        found.reasons.append((", ".join(loop.tensors()), told(str(reason))))
        found.states.update(dict.fromkeys(loop.tensors(), 0))
        return system
    found.states.update({u.state.name: u.step for u in element.updates})
    found.sent.extend(_numbers(system, element))
    return system


def _in_steps(system: System, loop: Loop, found: _Found) -> System:
    """The same for what recurs along the stream in the steps of another loop, as over depth: an exchange at each of them."""
    inside = opened(system, loop)
    inner = [x for x in recurrences(inside) if x.axis == system.stream and set(x.tensors()) <= set(loop.tensors())]
    skew = _skew(system, loop)
    if skew is not None or not inner:
        why = f"it recurs along `{system.stream}` and `{loop.axis}` at once" + (f", as in `{skew!r}`" if skew is not None else "")
        found.reasons.append((", ".join(loop.tensors()), why))
        found.states.update(dict.fromkeys(loop.tensors(), 0))
        return system
    for one in inner:
        inside = _crossed(inside, one, found)
    return closed(inside, system, loop)


def _skew(system: System, loop: Loop) -> Node | None:
    """A read in a loop of another step of it, at another position of the stream as well."""
    members = dict(loop.positions)
    rights = [rhs for name in members if (rhs := system.tensors[name].rhs) is not None]
    for read in [r for rhs in rights for r in reads(rhs) if r.attr in members]:
        tensor = system.tensors[str(read.attr)]
        here = [a is build.index(i) for i, a in zip(tensor.indices, read.args, strict=True)]
        if system.stream in tensor.indices and not here[members[tensor.name]] and not here[tensor.indices.index(system.stream)]:
            return read
    return None


def _reads_refused(system: System, states: dict[str, int]) -> Iterator[tuple[str, str]]:
    """Equations that need more of the stream than a piece, and what is kept of those before it."""
    stream = str(system.stream)
    loops = [x for x in every_loop(recurrences(system)) if x.axis == stream]
    home = {name: k for k, loop in enumerate(loops) for name in loop.tensors()}
    kept, folded = {e.tensor for e in system.record or () if e.tail is not None}, _folded(system)
    needed = reached(system, (e.tensor for e in system.record or ())).tensors
    for reader in [t for t in system.derived() if t.name in needed]:
        assert reader.rhs is not None
        if reader.name in home and any(_is_prefix(system, n) for n in walk(reader.rhs)):
            yield reader.name, "a fold of all positions before stands in a recurrence"
        reader = replace(reader, rhs=_without_folds(system, reader.rhs))
        if (why := _whole(system, reader, bool(folded))) is not None:
            yield reader.name, why
            continue
        for read, facts in relevant_reads(system, reader):
            tensor = system.tensors[str(read.attr)]
            if stream not in tensor.indices or home.get(reader.name, -1) == home.get(tensor.name, -2):
                continue
            subscript = read.args[tensor.indices.index(stream)]
            gap = distance(system, stream, subscript, facts) if stream in reader.indices else "?"
            if gap == 0 or tensor.name in states and gap == -states[tensor.name]:
                continue
            if tensor.name in home or tensor.name not in kept or gap in ("?", "0-", "-"):
                yield reader.name, f"it reads `{read!r}`, which may lie on another rank"


def _whole(system: System, reader: Tensor, folded: bool) -> str | None:
    """How an equation depends on the stream as a whole."""
    stream = str(system.stream)
    assert reader.rhs is not None
    for index in reader.indices:
        if index != stream and system.axis(index) == stream:
            return f"it is given for all positions `{index}` along `{stream}`"
        size = system.index(index).size
        if size is not None and reads_length(system, size, stream):
            return f"its axis `{index}` is as long as the whole stream says"
    for node in walk(reader.rhs):
        if any(system.axis(name) == stream for name in bound(node)):
            return f"it takes all positions along `{stream}` together, in `{node!r}`"
    if reads_length(system, reader.rhs, stream):
        return f"it uses the length of the whole stream, |{stream}|"
    if (system.record is None or folded) and absolute(system, reader.rhs):
        return f"it uses positions along `{stream}` as numbers, and those of a piece begin anew"
    return None


def _unkept(system: System, entry: StateEntry) -> str:
    """Why the window that the state record keeps of a tensor cannot cross ranks."""
    loop = next((x for x in recurrences(system) if entry.tensor in x.tensors()), None)
    if entry.boundary is not None:
        return f"what is read of it is its value at `{entry.boundary!r}`, on whichever rank that lies"
    if entry.tail is None:
        return "all of its positions are read, and would have to cross ranks"
    if loop is not None:
        return f"it is read a few positions back, and recurs over `{loop.axis}`"
    others = [x for x in recurrences(system) if x.axis in {system.axis(i) for i in system.tensors[entry.tensor].indices}]
    rights = [(x, system.tensors[n].rhs) for x in others if x.axis != system.stream for n in x.tensors()]
    found = next((x for x, rhs in rights if rhs is not None and entry.tensor in read_names(rhs)), None)
    return "" if found is None else f"it is kept for every `{found.axis}`, and read in the steps of a loop over it"


def _numbers(system: System, element: Element) -> list[str]:
    """How many numbers an element is, A and b."""
    first = element.updates[0].state
    tag = element.components.kept[:1] if element.components.tag is not None else ()
    state = (*tag, *(i for i in first.indices if i != element.updates[0].time))
    factor = sorted(element.factor.free, key=[*state, *element.components.read].index)
    return [_product(system, factor), _product(system, state)]


def _product(system: System, indices: Iterable[str], lead: str = "") -> str:
    sizes = [(i, system.index(i).size) for i in indices]
    shown = [f"|{i if n is None or n.op != 'size' else n.attr}|" if n is None or n.op != "const" else f"{n!r}" for i, n in sizes]
    return " ".join([*([lead] if lead else []), *shown]) or "1"


def _window(system: System, entry: StateEntry) -> str:
    """How many numbers the last positions of a tensor are."""
    indices = [i for k, i in enumerate(system.tensors[entry.tensor].indices) if k != entry.position]
    return _product(system, indices, "" if entry.tail is build.ONE else f"({entry.tail!r})")

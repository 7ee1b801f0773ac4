"""The state record of rule 20: what a mixer must remember to go on after its last position.

Architecture invariant: read off the system's reads along the stream; nothing else decides what is kept.

Along the stream the first index of the axis (`t`) runs over the new positions, `offset <= t < offset + T`, where
`offset` counts the positions before them; a second index (`s over t`) runs over all, `0 <= s < offset + T`. A tensor
declared over `t` is computed for the new positions only; one declared over `s` for all of them, from cached inputs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from typing import Any

from seqdsl.ir import build
from seqdsl.ir.beyond import numbers_beyond
from seqdsl.ir.node import Node, walk
from seqdsl.ir.nonzero import grows
from seqdsl.ir.ops import OPS, bound, options
from seqdsl.ir.order import difference, distance, linear, upper_bound
from seqdsl.ir.remember import once_for_each
from seqdsl.ir.support import named_conditions, relevant_reads, support
from seqdsl.ir.system import System, Tensor, reached, sources


@dataclass(frozen=True)
class StateEntry:
    """Of `tensor`, along its index at `position`: the last value (`tail` is 1: stored without that axis), the last
    `tail` values (stored with it), or all of them (`tail` is None: a cache that grows; "k[s]" where k is declared
    over t). With `boundary`, the value at the last boundary, `boundary` being the subscript as a function of the
    stream's index. A row over a further index of the stream is as long as the stream was; further on it is the number
    `beyond`, or not read (None). `across`: where the stream lies in pieces, what is kept goes from each to the next (a form's
    mark)."""

    name: str
    tensor: str
    position: int
    tail: Node | None
    boundary: Node | None = None
    beyond: Node | None = None
    across: bool = False

    @property
    def at_last_point(self) -> bool:
        """Does an equation give the boundary's value, so that what is kept is its last one? A form may drop it."""
        return self.boundary is not None and not self.name.endswith("[boundary]")


POSITION = "position"  # the entry that counts positions; it has no tensor


def record_paths(names: Iterable[str]) -> dict[str, list[str]]:
    """The keys of each entry in the nested record: `y.S` is at y, S, and `x.k[x.s]` at x, k[x.s]. Where `y` is an entry
    beside `y.S` (the output of a call that is a state of it, too) it is among the others, at y, y."""
    paths = {}
    for name in names:
        head, bracket, rest = name.partition("[")
        *path, last = head.split(".")
        paths[name] = [*path, last + bracket + rest]
    calls = {tuple(path[:n]) for path in paths.values() for n in range(1, len(path))}
    taken = {tuple(path) for path in paths.values()}
    for path in paths.values():
        if tuple(path) in calls:
            path.append(path[-1])
            while tuple(path) in taken | calls:
                path[-1] += "_"
    return paths


MOST_KEPT = 2**20  # positions of one tensor: further back nothing is kept


class NotSteppable(Exception):
    """Something on the streamed axis is read later than the current position (rule 22), or too far back to be kept."""

    def __init__(self, reader: str, read: Node | None) -> None:
        self.reader, self.read = reader, read
        super().__init__(f"`{reader}` reads {read!r}")


def state_record(system: System) -> tuple[StateEntry, ...]:
    """The entries, in the order of the text. Raises `NotSteppable`."""
    if system.record is not None:
        return system.record  # a rewriting keeps the record of what it rewrites
    position = (StateEntry(POSITION, "", 0, None),) if needs_position(system) else ()
    return (*_entries(system), *position)


def needed(system: System) -> System:
    """What is to be computed: without the tensors that no output, and no state, needs. Claims are no code, they are
    checked on the equations; the state record stays that of the whole system."""
    try:
        record = state_record(system)
    except NotSteppable:
        return replace(reached(system), claims=())
    return replace(reached(system, (e.tensor for e in record)), claims=(), record=record)


@once_for_each
def _entries(system: System) -> tuple[StateEntry, ...]:
    stream = system.stream
    if stream is None:
        return ()
    _refuse_lengths(system, stream)
    entries: dict[str, StateEntry] = {}
    for entry in _asked(system, stream):
        others = [e for e in entries.values() if e.boundary is not None and e.tensor == entry.tensor]
        if entry.boundary is not None and any(e.boundary is not entry.boundary for e in others):
            entry = StateEntry(f"{entry.tensor}[..]", entry.tensor, entry.position, None)  # two boundaries
        entries[entry.name] = _merge(entries.get(entry.name), entry)
    _refuse_open_ends(system, stream)
    order = {name: k for k, name in enumerate(system.tensors)}
    rows = numbers_beyond(system)
    found = (replace(e, beyond=rows.get(e.tensor)) for e in entries.values())
    return tuple(sorted(found, key=lambda e: order[e.tensor]))


def _asked(system: System, stream: str) -> Iterator[StateEntry]:
    """What each read needs, in the order of the text. A boundary has its reader's name, unless that one's own values are
    kept beside it."""
    found: list[StateEntry] = []
    for reader in system.derived():
        if "@" in reader.name and not any(system.axis(i) == stream for i in reader.indices):
            continue
        for read, facts in relevant_reads(system, reader):
            found += _needs(system, stream, reader, read, facts)
    taken = {e.name for e in found if e.boundary is None}
    for entry in found:
        clash = entry.boundary is not None and entry.name in taken
        yield replace(entry, name=f"{entry.tensor}[boundary]") if clash else entry


@once_for_each
def needs_position(system: System) -> bool:
    """Is the absolute position along the stream used: as a value, in a comparison, or in a subscript that is not
    simply so many steps away?"""
    if system.record is not None:
        return any(e.name == POSITION for e in system.record)
    entries = _entries(system)
    counted = any(e.tail is None or e.boundary is not None or grows(system, system.tensors[e.tensor]) for e in entries)
    return counted or any(
        absolute(system, t.rhs) for t in system.derived() if t.rhs is not None
    )


def absolute(system: System, node: Node) -> bool:
    """Does an expression use the position along the stream other than as so many steps from the current one?"""
    if node.op == "index":
        return system.axis(str(node.attr)) == system.stream
    if node.op != "read":
        return any(absolute(system, a) for a in node.args)
    tensor = system.tensors[str(node.attr)]
    return any(
        absolute(system, a) and not _relative(system, a, own) for own, a in zip(tensor.indices, node.args, strict=True)
    )


def _relative(system: System, subscript: Node, own: str) -> bool:
    """Is it a number of steps from the current position, on the stream itself?"""
    here = build.index(str(system.stream))
    if system.axis(own) != system.stream:
        return False
    return (
        not any(t is not None and absolute(system, t) for t in difference(subscript, here)) or subscript.op == "index"
    )


def _refuse_lengths(system: System, stream: str) -> None:
    """Rule 22: `|t|` may only be the length of an axis, and an axis of another length cannot grow step by step."""
    for index in system.indices.values():
        if index.size is not None and reads_length(system, index.size, stream) and index.size.op != "size":
            raise NotSteppable(f"|{index.name}|", index.size)
        given = any(index.name in t.indices for t in system.inputs())
        if index.size is not None and given and index.axis != stream and reads_length(system, index.size, stream):
            raise NotSteppable(f"|{index.name}|", index.size)  # an input as long as the sequence is not known yet
    for tensor in system.derived():
        if tensor.rhs is not None and reads_length(system, tensor.rhs, stream):
            raise NotSteppable(tensor.name, build.size(stream))


def _refuse_open_ends(system: System, stream: str) -> None:
    """Without a read too, `sum[s] s` says how long the stream is."""
    for tensor in system.derived():
        for node in walk(tensor.rhs) if tensor.rhs is not None else ():
            if not all(ends_here(system, stream, node, name) for name in bound(node) if system.axis(name) == stream):
                raise NotSteppable(tensor.name, node)


def ends_here(system: System, here: str, node: Node, name: str) -> bool:
    """Does nothing after the position `here` take part, in an operator that binds an index of the same length?"""
    if OPS[node.op].binding not in ("reduce", "along", "fold"):
        return OPS[node.op].binding in ("scan", "last") and not _goes_back(node, name)
    other = build.index(build.fresh(name + "'", set().union(*(a.free for a in node.args))))
    *bodies, guard = (build.substitute(a, {name: other}) for a in node.args)
    facts = named_conditions(system, guard)
    if node.op in ("sum", "any", "cumsum"):
        facts += support(system, bodies[0])
    return distance(system, here, other, tuple(facts)) in (0, "+", "0+")


def _goes_back(node: Node, name: str) -> bool:
    """Does a scan begin at the end of an axis?"""
    given = options(node)
    return bool(given.get("up" if name == node.attr[0][0] else "back") if node.op == "grid_scan" else given.get("reverse"))


def reads_length(system: System, node: Node, stream: str | None) -> bool:
    """Does an expression, a size for one, depend on how long the streamed axis is?"""
    return any(system.axis(name) == stream for name in _lengths(node))


@lru_cache(5000)
def _lengths(node: Node) -> frozenset[str]:
    """The indices whose lengths an expression reads."""
    return frozenset([str(n.attr) for n in walk(node) if n.op == "size"])


def _merge(old: StateEntry | None, new: StateEntry) -> StateEntry:
    if old is None or old.tail is new.tail or old.tail is None:
        return old or new
    if new.tail is None:
        return new
    a, b = build.value_of(old.tail), build.value_of(new.tail)
    if a is not None and b is not None:
        return old if a >= b else new
    return StateEntry(old.name, old.tensor, old.position, build.make("maximum", old.tail, new.tail))


def _needs(system: System, stream: str, reader: Tensor, read: Node, facts: tuple[Node, ...]) -> Iterator[StateEntry]:
    tensor = system.tensors[str(read.attr)]
    for position, own in enumerate(tensor.indices):
        if system.axis(own) != stream:
            continue
        if tensor.kind in ("param", "const"):
            raise NotSteppable(reader.name, read)  # it has entries for one length of sequences
        subscript = read.args[position]
        if own != stream:  # declared over a second index: an input is cached whole
            both = stream in tensor.indices  # a weight w[t, s]: what it needs is checked at its own equation
            if (
                stream in reader.indices
                and not both
                and tensor.name in _fed(system)
                and distance(system, stream, subscript, facts) not in (0, "+", "0+")
            ):
                raise NotSteppable(reader.name, read)
            if tensor.kind == "input" and both:
                raise NotSteppable(reader.name, read)  # its earlier rows would grow
            if tensor.kind == "input":
                yield StateEntry(tensor.name, tensor.name, position, None)
            continue
        gap = distance(system, stream, subscript, facts)
        if gap == 0:
            continue
        if isinstance(gap, int) and not 0 <= gap <= MOST_KEPT:
            raise NotSteppable(reader.name, read)
        if grows(system, tensor) and not _rows_are_known(system, tensor, position, read, facts):
            raise NotSteppable(reader.name, read)  # its row at an earlier position is longer by now
        if isinstance(gap, int):
            yield StateEntry(tensor.name, tensor.name, position, build.const(gap))
            continue
        if gap not in ("+", "0+"):
            raise NotSteppable(reader.name, read)
        yield from _bounded(system, stream, reader, tensor, position, subscript, facts)


@once_for_each
def _fed(system: System) -> frozenset[str]:
    """What depends on inputs along the stream. Of other tensors, as of a bias over distances, all is known at once."""
    fed = {t.name for t in system.inputs() if any(system.axis(i) == system.stream for i in t.indices)}
    while more := {t.name for t in system.derived() if not sources(system, t).isdisjoint(fed)} - fed:
        fed |= more
    return frozenset(fed)


def _rows_are_known(system: System, tensor: Tensor, position: int, read: Node, facts: tuple[Node, ...]) -> bool:
    """Is a row of an earlier position read as far as it was when the stream was there, or known to be a number beyond?
    Of older rows than the last the state has more, which is not to depend on how far the stream went on. Before the first
    position rows are 0, or a base case; the rows that an index picks are all behind it."""
    subscript, number = read.args[position], numbers_beyond(system).get(tensor.name)
    last = difference(build.index(str(system.stream)), subscript) == {None: 1}
    tops = [upper_bound(system, difference(read.args[k], subscript), facts) for k in grows(system, tensor)]
    if number in (build.ZERO, build.FALSE) or last and all(top is not None and top <= 0 for top in tops):
        return True
    return number is not None and (last and bool(tensor.edges) or subscript.op == "index")


def before_block(stream: str, subscript: Node) -> int | None:
    """How far before its block `t // m * m` the subscript lies, where it is a fixed number of steps."""
    form = linear(subscript)
    term, factor = next(((t, c) for t, c in form.items() if t is not None), (None, Fraction(0)))
    if term is None or len(form) - (None in form) != 1:
        return None
    block = term
    if term.op == "mul":  # m is a size or an option
        block = next((a for a in term.args if a.op == "floor_div"), term)
        factor *= 1 if block.op == "floor_div" and {*term.args} == {block, block.args[1]} else 0
    if block.op != "floor_div" or block.args[0] is not build.index(stream) or block.args[1].free:
        return None
    length = 1 if term.op == "mul" else build.value_of(block.args[1])
    fixed = not any(n.op == "read" for n in walk(block.args[1]))
    return -int(form.get(None, Fraction(0))) if fixed and factor == length else None


def _bounded(
    system: System, stream: str, reader: Tensor, tensor: Tensor, position: int, subscript: Node, facts: tuple[Node, ...]
) -> Iterator[StateEntry]:
    """A read at an unknown distance: a boundary, a window of known width, or the whole past."""
    lead = before_block(stream, subscript)
    if lead is not None:  # t // m * m - lead: what the block's first position reads is in the tail, the rest is kept
        name = reader.name if reader.rhs is not None and reader.rhs.op == "read" else f"{tensor.name}[boundary]"
        yield StateEntry(tensor.name, tensor.name, position, build.const(max(1, lead)))
        yield StateEntry(name, tensor.name, position, build.const(1), boundary=subscript)
        return
    behind = difference(build.index(stream), subscript)
    widest = build.const(0)
    for term, factor in behind.items():
        if term is None:
            widest = build.add(widest, build.const(int(factor)))
            continue
        size = system.index(str(term.attr)).size if term.op == "index" else None
        known = term.op == "index" and system.axis(str(term.attr)) != stream and factor > 0
        if not known or (
            size is not None and reads_length(system, size, stream)
        ):
            written = repr(subscript).replace("'", "")  # a summed index is primed while facts are gathered
            yield StateEntry(f"{tensor.name}[{written}]", tensor.name, position, None)
            return
        widest = build.add(
            widest, build.mul(build.const(int(factor)), build.sub(build.size(str(term.attr)), build.ONE))
        )
    bound = upper_bound(system, behind, facts)
    yield StateEntry(tensor.name, tensor.name, position, build.const(int(bound)) if bound is not None else widest)


def rows(system: System, entry: StateEntry) -> tuple[int, ...]:
    """The dimensions of what the state holds of a tensor that are rows over a further index of the stream."""
    if entry.name in system.finals:
        final = system.tensors[system.finals[entry.name]].indices
        return tuple(k for k, i in enumerate(final) if i != system.stream and system.axis(i) == system.stream)
    tensor = system.tensors.get(entry.tensor)
    others = [k for k in grows(system, tensor) if k != entry.position] if tensor is not None else []
    return tuple(k - (entry.tail is build.ONE and k > entry.position) for k in others)


LAST = "last"  # second in the path of a carry that is the last of the values that its entry keeps


def path_of_last(system: System, name: str) -> tuple[str, ...]:
    """The path of a carry that is the last value of a tensor, however many the record keeps."""
    kept = [e for e in system.record or () if e.name == name]
    return (name, LAST) if any(e.tail is not build.ONE for e in kept) else (name,)


def flatten(state: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Each entry of a nested state by its whole name, `o.S`."""
    flat: dict[str, Any] = {}
    for name, value in state.items():
        if isinstance(value, Mapping):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The nested state of such entries."""
    nested: dict[str, Any] = {}
    paths = record_paths(flat)
    for name, value in flat.items():
        *path, last = paths[name]
        level = nested
        for part in path:
            level = level.setdefault(part, {})
        level[last] = value
    return nested

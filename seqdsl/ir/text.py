"""A system as text that reads back identically: one line for each tensor, spans left out.

Expressions look as `show` writes them, but leave nothing to guess: a read always has brackets (`x[]`), an option is
`$H`, `/` is division into a real and `exact_div(a, b)` that of sizes, a constant is an integer `4` or a real `4.0`
(`real(1/3)`), and a type that does not follow from the operands stands behind, `tokens[t]:int` (reads and folds are
real where nothing stands). A name that is no plain word is put in back quotes.

    system gla
    index t
    index d: |c| // $H
    input q[t,d]: real
    derived S[t,d]: real = exp(g[t,d]) * S[t-1,d] + k[t,d]; edge 0 -1 `S@t=-1`; comment "S[t,d] = .."
    output S

Architecture invariant: knows the fields of `System` and the shapes of `attr`, no operator's meaning. Entry points:
`print_system`, `read_system`. Errors: `bad-ir-text`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from seqdsl.diagnostics import SeqError, Source
from seqdsl.ir.node import Node
from seqdsl.ir.notation import name_text, string_text, text_of
from seqdsl.ir.reader import TYPES, Line, expression
from seqdsl.ir.state import StateEntry
from seqdsl.ir.system import Claim, Edge, Index, Monoid, SizeCheck, System, Tensor

_KINDS = ("input", "param", "const", "derived", "carry")
_ENTRY_PARTS = ("tail", "boundary", "beyond")


def print_system(system: System) -> str:
    """The text of a system, one statement on a line."""
    return "\n".join(_system_lines(system)) + "\n"


def _system_lines(system: System) -> Iterator[str]:
    yield f"system {name_text(system.name)}"
    yield from (f"doc {string_text(line)}" for line in system.doc)
    yield from (f"option {name_text(n)}{_after(' = ', default)}" for n, default in system.options.items())
    for index in system.indices.values():
        over = "" if index.axis == index.name else f" over {name_text(index.axis)}"
        yield f"index {name_text(index.name)}{over}{_after(': ', index.size)}"
    yield from (_tensor_line(t) for t in system.tensors.values())
    yield from (f"output {name_text(n)}" for n in system.outputs)
    yield from (f"check {string_text(c.label)} >= {c.least}: {text_of(c.value)}" for c in system.checks)
    yield from (f"equal {name_text(a)} {name_text(b)}" for a, b in system.constraints)
    yield from (f"final {name_text(n)} = {name_text(tensor)}" for n, tensor in system.finals.items())
    if system.record is not None:
        yield "record"
        yield from (_entry_line(entry) for entry in system.record)
    for monoid in system.monoids.values():
        yield from _monoid_lines(monoid)
    for claim in system.claims:
        yield from _claim_lines(claim)


def _tensor_line(tensor: Tensor) -> str:
    parts = [f"{tensor.kind} {_header(tensor.name, tensor.indices)}: {tensor.dtype}{_after(' = ', tensor.rhs)}"]
    parts += [f"edge {e.position} {text_of(e.point)} {name_text(e.tensor)}" for e in tensor.edges]
    if tensor.path:
        parts.append("path " + " ".join(string_text(p) for p in tensor.path))
    if tensor.fan_in:
        parts.append("fan " + " ".join(name_text(i) for i in tensor.fan_in))
    if tensor.comment:
        parts.append(f"comment {string_text(tensor.comment)}")
    return "; ".join(parts)


def _entry_line(entry: StateEntry) -> str:
    place = f"entry {name_text(entry.name)} of {name_text(entry.tensor)} at {entry.position}"
    parts = (_after(f"; {part} ", getattr(entry, part)) for part in _ENTRY_PARTS)
    return place + "".join(parts) + ("; across" if entry.across else "")


def _monoid_lines(monoid: Monoid) -> Iterator[str]:
    yield f"monoid {name_text(monoid.name)}"
    types = [f": {t}" for t in monoid.types] or [""] * len(monoid.fields)
    yield from (f"  field {_header(*field)}{t}" for field, t in zip(monoid.fields, types, strict=True))
    yield from (f"  argument {_header(*param)}" for param in monoid.lift_params)
    yield from (f"  lift {text_of(node)}" for node in monoid.lift)
    yield from (f"  identity {text_of(node)}" for node in monoid.identity or ())
    yield from (f"  combine {_tensor_line(t)}" for t in monoid.combine)
    yield from (f"  project {_tensor_line(t)}" for t in monoid.project)
    yield f"  output {name_text(monoid.output)}"
    yield from (f"  {line}" for claim in monoid.claims for line in _claim_lines(claim))
    yield "end"


def _claim_lines(claim: Claim) -> Iterator[str]:
    parts = [" ".join(["claim", name_text(claim.kind), string_text(claim.text), *(name_text(a) for a in claim.args)])]
    if claim.condition is not None:
        parts.append(f"when {text_of(claim.condition)}")
    parts += [f"node {text_of(node)}" for node in claim.nodes]
    if claim.system is None:
        yield "; ".join(parts)
        return
    yield "; ".join([*parts, "about"])
    yield from (f"  {line}" for line in _system_lines(claim.system))
    yield "end"


def _header(name: str, indices: Iterable[str]) -> str:
    return f"{name_text(name)}[{','.join(name_text(i) for i in indices)}]"


def _after(mark: str, node: Node | None) -> str:
    return "" if node is None else mark + text_of(node)


# Reading ---------------------------------------------------------------------------------------------------------


def read_system(text: str) -> System:
    """The one system that `print_system` wrote; blank lines and lines that begin with `#` are skipped."""
    first, *others = _read(text)
    if others:
        others[0][0].fail("nothing may follow the system", others[0][0].tokens[0])
    return first[1]


def read_systems(text: str) -> list[System]:
    """The systems of a text, one after the other: those of a file's mixers."""
    return [system for _, system in _read(text)]


def _read(text: str) -> list[tuple[Line, System]]:
    """Each system, and the line that it begins with."""
    source, found, start = Source("<ir>", text), list[Line](), 0
    try:
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip() and not line.lstrip().startswith("#"):
                found.append(Line(source, number, start, line))
            start += len(line) + 1
        lines = _Lines(found, Line(source, text.count("\n") + 1, start - 1, ""))
        systems = [(lines.next(), _system(lines))]
        while lines.at < len(found):
            systems.append((lines.next(), _system(lines)))
    except RecursionError:
        raise SeqError("bad-ir-text", "an expression is nested too deeply") from None
    return systems


@dataclass
class _Lines:
    lines: list[Line]
    end: Line
    at: int = 0

    def next(self) -> Line:
        """The next line; an empty one at the end of the text."""
        return self.lines[self.at] if self.at < len(self.lines) else self.end

    def word(self) -> str:
        """The next line's first word, which is then read; nothing is read where it ends a block."""
        line = self.next()
        if line.next in ("end", ""):
            return line.next
        self.at += 1
        return line.kind("word")


@dataclass
class _Draft:
    """What the lines so far have said of a system or monoid: by statement, in order."""

    said: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, statement: str, value: Any) -> None:
        self.said.setdefault(statement, []).append(value)

    def all(self, statement: str) -> tuple[Any, ...]:
        return tuple(self.said.get(statement, ()))


def _system(lines: _Lines) -> System:
    line = lines.next()
    if lines.word() != "system":
        line.fail("expected `system`", line.tokens[0])
    name, draft = line.name(), _Draft()
    line.finish()
    while lines.next().next != "system":
        line, word = lines.next(), lines.word()
        if word in ("", "end"):
            break
        if word == "monoid":
            draft.add(word, _monoid(lines, line))
        elif word == "claim":
            draft.add(word, _claim(lines, line))
        elif word in _KINDS:
            draft.add("tensor", _tensor(line, word))
        elif word in _STATEMENTS:
            draft.add(word, _STATEMENTS[word](line))
        else:
            line.fail(f"`{word}` begins no statement", line.tokens[0])
        line.finish()
    record = draft.all("entry") if draft.all("record") else None
    return System(name, dict(draft.all("option")), {i.name: i for i in draft.all("index")},
                  {t.name: t for t in draft.all("tensor")}, draft.all("output"), draft.all("claim"),
                  {m.name: m for m in draft.all("monoid")}, draft.all("check"), draft.all("equal"), draft.all("doc"),
                  dict(draft.all("final")), record)


def _option(line: Line) -> tuple[str, Node | None]:
    return line.name(), expression(line) if line.take("=") else None


def _index(line: Line) -> Index:
    name = line.name()
    axis = line.name() if line.take("over") else name
    return Index(name, axis, expression(line) if line.take(":") else None)


def _check(line: Line) -> SizeCheck:
    label = line.string()
    line.expect(">=")
    least = line.integer()
    line.expect(":")
    return SizeCheck(label, expression(line), least)


def _final(line: Line) -> tuple[str, str]:
    name = line.name()
    line.expect("=")
    return name, line.name()


def _entry(line: Line) -> StateEntry:
    name = line.name()
    line.expect("of")
    tensor = line.name()
    line.expect("at")
    entry = StateEntry(name, tensor, line.integer(), None)
    parts: dict[str, Any] = {}
    while line.take(";"):
        part = line.choice("part", (*_ENTRY_PARTS, "across"))
        parts[part] = True if part == "across" else expression(line)
    return replace(entry, **parts)


_STATEMENTS = {"doc": Line.string, "option": _option, "index": _index, "output": Line.name, "check": _check,
               "equal": lambda line: (line.name(), line.name()), "final": _final, "record": lambda line: True,
               "entry": _entry}


def _named(line: Line) -> tuple[str, tuple[str, ...]]:
    name = line.name()
    line.expect("[")
    indices = line.names()
    line.expect("]")
    return name, indices


def _tensor(line: Line, kind: str) -> Tensor:
    name, indices = _named(line)
    line.expect(":")
    dtype = line.choice("type", TYPES)
    tensor = Tensor(name, indices, dtype, kind, expression(line) if line.take("=") else None)
    while line.take(";"):
        match line.choice("part", ("edge", "path", "fan", "comment")):
            case "edge":
                position, point = line.integer(), expression(line)
                tensor = replace(tensor, edges=(*tensor.edges, Edge(position, point, line.name())))
            case "path":
                tensor = replace(tensor, path=line.several(line.string))
            case "fan":
                tensor = replace(tensor, fan_in=line.several(line.name))
            case _:
                tensor = replace(tensor, comment=line.string())
    return tensor


def _monoid(lines: _Lines, line: Line) -> Monoid:
    name, draft = line.name(), _Draft()
    line.finish()
    while (inner := lines.next()) and (word := lines.word()) not in ("", "end"):
        if word in ("field", "argument"):
            draft.add(word, _named(inner))
            if word == "field" and inner.take(":"):
                draft.add("type", inner.choice("type", TYPES))
        elif word in ("lift", "identity"):
            draft.add(word, expression(inner))
        elif word in ("combine", "project"):
            draft.add(word, _tensor(inner, inner.choice("kind", _KINDS)))
        elif word == "output":
            draft.add(word, inner.name())
        elif word == "claim":
            draft.add(word, _claim(lines, inner))
        else:
            inner.fail(f"`{word}` is no part of a monoid", inner.tokens[0])
        inner.finish()
    _end(lines)
    if len(draft.all("output")) != 1:
        line.fail("a monoid has one output", line.tokens[0])
    if len(draft.all("type")) not in (0, len(draft.all("field"))):
        line.fail("either all fields of a monoid have a type, or none", line.tokens[0])
    return Monoid(name, draft.all("field"), draft.all("argument"), draft.all("lift"), draft.all("identity") or None,
                  draft.all("combine"), draft.all("project"), draft.all("output")[0], draft.all("claim"),
                  draft.all("type"))


def _claim(lines: _Lines, line: Line) -> Claim:
    kind, text = line.name(), line.string()
    claim, about = Claim(kind, line.several(line.name), text), False
    while line.take(";"):
        match line.choice("part", ("when", "node", "about")):
            case "when":
                claim = replace(claim, condition=expression(line))
            case "node":
                claim = replace(claim, nodes=(*claim.nodes, expression(line)))
            case _:
                about = True
    if not about:
        return claim
    line.finish()
    claim = replace(claim, system=_system(lines))
    _end(lines)
    return claim


def _end(lines: _Lines) -> None:
    line = lines.next()
    line.expect("end")
    lines.at += 1
    line.finish()

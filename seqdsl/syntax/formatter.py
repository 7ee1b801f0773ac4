"""The canonical layout of a module.

Invariant: the text parses to an equal tree, formatting it again changes nothing, and no comment is lost. The tree
decides everything but empty lines between statements: one is kept where the source has any. Entry: `format_module`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from seqdsl.syntax import tree
from seqdsl.syntax.comments import Comment
from seqdsl.syntax.spelling import (
    spell,
    spell_indices,
    spell_name,
    spell_outputs,
    spell_signature,
    spell_size,
    spell_target,
)

WIDTH = 140
INDENT = "    "
COMMENT_COLUMN = 54  # where a comment beside a short line stands
RAGGED = 16  # left sides that differ by more are not aligned

_EMPTY_LINE = re.compile(r"\n[ \t\r]*\n")
_TERM_ENDS = re.compile(r"[,;] |. (->|[-+|]|and|or|when) ")  # a good place to break a line, behind its first character


@dataclass(frozen=True)
class Row:
    """A line to be: `left = right` (an empty left side for all other lines), and the comment beside it.

    Rows of one `group` that follow each other are aligned.
    """

    depth: int
    left: str
    right: str
    beside: str = ""
    group: str = ""


def format_module(module: tree.Module) -> str:
    """The text of a module in canonical layout."""
    blocks: list[str] = []
    for index, item in enumerate(module.items):
        follows = index > 0 and isinstance(item, tree.Import) and isinstance(module.items[index - 1], tree.Import)
        if index and not follows:
            blocks.append("")
        blocks += _laid_out(list(_item(item)))
    if module.trailing:
        blocks += [""] * bool(blocks) + [_hash(comment) for comment in module.trailing]
    return "".join(f"{line}\n" for line in blocks)


# Declarations --------------------------------------------------------------------------------------------------------


def _item(item: tree.Import | tree.Mixer | tree.Fn | tree.Monoid) -> Iterator[Row]:
    if isinstance(item, tree.Import):
        names = ", ".join(spell_name(name) for name in item.names)
        yield from _commented(item.comments, Row(0, "", f"import {names} from {spell_name(item.file)}"))
        return
    options = item.options
    if isinstance(item, tree.Monoid):
        header = f"monoid {spell_name(item.name)}{spell_signature(item.fields, options)}:"
        yield from _commented(_of_member(item.doc, ""), Row(0, "", header), _members(item))
        return
    word = "mixer" if isinstance(item, tree.Mixer) else "fn"
    header = f"{word} {spell_name(item.name)}{spell_signature(item.params, options)}"
    if isinstance(item, tree.Fn) and item.value is not None:
        yield from _commented(item.doc, Row(0, "", f"{header} = {spell(item.value)}"))
    else:
        yield from _commented(item.doc, Row(0, "", f"{header} {spell_outputs(item.outputs)}:"), _block(item.body, 1))


def _members(monoid: tree.Monoid) -> Iterator[Row]:
    yield from _block(monoid.params, 1)
    if monoid.identity is not None:
        yield from _member(monoid, "identity", f"identity = {spell(monoid.identity)}")
    if monoid.lift is not None:
        signature = spell_signature(monoid.lift_params or (), ())
        yield from _member(monoid, "lift", f"lift{signature} = {spell(monoid.lift)}")
    names = ", ".join(spell_name(name) for name in monoid.combine_names)
    yield from _member(monoid, "combine", f"combine({names}):", monoid.combine)
    if monoid.project_output is not None:
        yield from _member(monoid, "project", f"project {spell_outputs([monoid.project_output])}:", monoid.project)
    yield from _block(monoid.claims, 1)


def _member(monoid: tree.Monoid, name: str, text: str, body: Sequence[tree.Statement] = ()) -> Iterator[Row]:
    yield from _commented(_of_member(monoid.doc, name), Row(1, "", text), _block(body, 2))


def _of_member(comments: Sequence[str], member: str) -> list[str]:
    return [comment for comment in comments if getattr(comment, "member", "") == member]


# Statements ----------------------------------------------------------------------------------------------------------


def _block(statements: Sequence[tree.Statement], depth: int) -> Iterator[Row]:
    for index, statement in enumerate(statements):
        if index and _empty_line_between(statements[index - 1], statement):
            yield Row(0, "", "")
        if isinstance(statement, tree.For):
            bounds = f"{spell_size(statement.start)}..{spell_size(statement.stop)}"
            header = Row(depth, "", f"for {spell_name(statement.name)} in {bounds}:")
            yield from _commented(statement.comments, header, _block(statement.body, depth + 1))
        else:
            yield from _commented(statement.comments, _statement(statement, depth))


def _statement(statement: tree.Statement, depth: int) -> Row:
    match statement:
        case tree.Equation():
            left = ", ".join(spell_target(target) for target in statement.targets)
            return Row(depth, left, spell(statement.value), group="equation")
        case tree.ParamDecl() | tree.ConstDecl():
            word = "param" if isinstance(statement, tree.ParamDecl) else "const"
            kind = statement.type if isinstance(statement, tree.ParamDecl) else None
            left = f"{word} {spell_name(statement.target.name)}{spell_indices(statement.target.indices)}"
            left += f": {kind}" if kind else ""
            if statement.value is None:
                return Row(depth, "", left)
            return Row(depth, left, spell(statement.value), group="value")
        case tree.IndexDecl():
            pairs = ", ".join(f"{spell_name(new)} over {spell_name(over)}" for new, over in statement.pairs)
            return Row(depth, "", f"index {pairs}")
        case tree.ClaimDecl():
            claims = ", ".join(spell(assertion) for assertion in statement.assertions)
            condition = f" when {spell(statement.condition)}" if statement.condition is not None else ""
            return Row(depth, "", f"claim {claims}{condition}")
        case tree.For():
            raise AssertionError("a loop is several rows")


def _empty_line_between(before: tree.Statement, after: tree.Statement) -> bool:
    """Whether the source parts two statements; a tree that was not read from one text has no empty lines."""
    if before.span.source is not after.span.source:
        return False
    return _EMPTY_LINE.search(after.span.source.text, before.span.end, after.span.start) is not None


# Comments ------------------------------------------------------------------------------------------------------------


def _commented(comments: Sequence[str], row: Row, body: Iterable[Row] = ()) -> Iterator[Row]:
    """A row with the comments above, beside and below it, and the rows of its block."""
    beside = [comment for comment in comments if _place(comment) == "beside"]
    for comment in comments:
        if _place(comment) in ("above", "gap"):
            yield Row(row.depth, "", _hash(comment))
    yield from (Row(row.depth, "", _hash(comment)) for comment in beside[:-1])
    yield Row(row.depth, row.left, row.right, _hash(beside[-1]) if beside else "", row.group)
    yield from body
    yield from (Row(row.depth, "", _hash(comment)) for comment in comments if _place(comment) == "below")


def _place(comment: str) -> str:
    return comment.place if isinstance(comment, Comment) else "above"


def _hash(comment: str) -> str:
    if _place(comment) == "gap":
        return ""
    words = " ".join(comment.splitlines())
    return f"#{' ' if words and words[0] not in '#!' else ''}{words}"


# Layout --------------------------------------------------------------------------------------------------------------


def _laid_out(rows: Sequence[Row]) -> list[str]:
    texts = [_wrapped(text, row.depth) for text, row in zip(_aligned(rows), rows, strict=True)]
    columns = _comment_columns(rows, [text.rpartition("\n")[2] for text in texts])
    found = []
    for row, text, column in zip(rows, texts, columns, strict=True):
        last = len(text.rpartition("\n")[2])
        found.append((text + " " * (column - last) + row.beside if row.beside else text).rstrip())
    return found


def _aligned(rows: Sequence[Row]) -> list[str]:
    """The texts, in each of which `=` stands in the column of its neighbours."""
    found: list[str] = []
    for start, end in _sections(rows):
        width = max(len(row.left) for row in rows[start:end])
        for row in rows[start:end]:
            margin = INDENT * row.depth if row.right else ""
            found.append(margin + (f"{row.left:<{width}} = {row.right}" if row.left else row.right))
    return found


def _sections(rows: Sequence[Row]) -> Iterator[tuple[int, int]]:
    """Runs of rows to align: same group, same block, left sides of similar length."""
    start = 0
    while start < len(rows):
        end, shortest, longest = start + 1, len(rows[start].left), len(rows[start].left)
        while end < len(rows) and rows[end].left and _neighbours(rows[start], rows[end]):
            shortest, longest = min(shortest, len(rows[end].left)), max(longest, len(rows[end].left))
            if longest - shortest > RAGGED:
                break
            end += 1
        yield start, end
        start = end


def _neighbours(one: Row, other: Row) -> bool:
    def short(row: Row) -> bool:
        return len(INDENT) * row.depth + len(row.left) + len(row.right) + 3 <= WIDTH

    return one.group == other.group and one.depth == other.depth and short(one) and short(other)


def _wrapped(text: str, depth: int) -> str:
    """A line broken at blanks until each part fits: every blank may be a line end in a line that goes on deeper."""
    lines = [text]
    if text.lstrip().startswith("#"):
        return text
    while len(lines[-1]) > WIDTH:
        cut = _best_break(lines[-1])
        if cut is None:
            break
        rest = INDENT * (depth + 2) + lines[-1][cut + 1 :]
        lines[-1:] = [lines[-1][:cut], rest]
    return "\n".join(lines)


def _best_break(line: str) -> int | None:
    """The blank to break at: outside brackets and at the end of a term, as far right as fits; else the first at all."""
    inside, best, least = 0, None, 10**9
    begin = len(line) - len(line.lstrip())
    for column, character in enumerate(line):
        inside += (character in "([{") - (character in ")]}")
        if character != " " or column <= begin or line[column - 1] == ":":
            continue
        if column > WIDTH:
            return best if best is not None else column
        cost = 2 * inside + (0 if _TERM_ENDS.match(line, column - 1) else 3)
        if WIDTH // 3 <= column and cost <= least:
            best, least = column, cost
    return best


def _comment_columns(rows: Sequence[Row], lasts: Sequence[str]) -> list[int]:
    """Where each row's comment begins: neighbours in one column, two blanks behind the longest."""
    columns = [0] * len(rows)
    start = 0
    while start < len(rows):
        end = start + 1
        while end < len(rows) and rows[start].beside and rows[end].beside:
            end += 1
        column = max(COMMENT_COLUMN, *(len(text) + 2 for text in lasts[start:end]))
        columns[start:end] = [column] * (end - start)
        start = end
    return columns

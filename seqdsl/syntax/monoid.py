"""A monoid from its members, which may come in any order; each at most once, `combine` always.

Entry point: `monoid_of`, for `build`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seqdsl.diagnostics import Diagnostic, SeqError, Span
from seqdsl.syntax import tree
from seqdsl.syntax.comments import Comment

SHAPES = {
    "identity": "identity = (..)",
    "lift": "lift(args) = (..)",
    "combine": "combine(a, b):",
    "project": "project -> y[..]:",
}


@dataclass(frozen=True)
class Member:
    """One of the four members as written; which parts are present tells its shape."""

    name: tree.Name
    params: tuple[tree.Formal, ...] | None
    value: tree.Tuple | None
    outputs: tuple[tree.Output, ...] | None
    statements: tuple[tree.Statement, ...] | None
    comments: tuple[Comment, ...]
    span: Span

    @property
    def shape(self) -> str:
        """The member whose shape this is, by its parts."""
        if self.params is None:
            return "identity" if self.value is not None else "project"
        return "lift" if self.value is not None else "combine"


def monoid_of(name: tree.Name, fields: tuple[tree.Formal, ...], options: tuple[tree.Option, ...],
              members: Sequence[Member | tree.ParamDecl | tree.ClaimDecl], comments: tuple[Comment, ...],
              span: Span) -> tree.Monoid:
    """The monoid; `SeqError` for a member that is unknown, misshapen, given twice or missing."""
    found: dict[str, Member] = {}
    for member in (m for m in members if isinstance(m, Member)):
        key = member.name.span.text
        _check(member, key, found.get(key))
        found[key] = member
    if "combine" not in found:
        raise SeqError("missing-combine", f"monoid `{name.span.text}` does not say how two elements combine", name.span,
                       help="add `combine(a, b):` and an equation for each field")
    identity, lift, combine, project = (found.get(key) for key in SHAPES)
    assert combine is not None and combine.params is not None and combine.statements is not None
    doc = comments + tuple(c.of(key) for key, member in found.items() for c in member.comments)
    return tree.Monoid(
        name=name, fields=fields, options=options,
        params=tuple(m for m in members if isinstance(m, tree.ParamDecl)),
        identity=identity.value if identity else None,
        lift_params=lift.params if lift else None, lift=lift.value if lift else None,
        combine_names=(combine.params[0].name, combine.params[1].name), combine=combine.statements,
        project_output=project.outputs[0] if project and project.outputs else None,
        project=project.statements or () if project else (),
        claims=tuple(m for m in members if isinstance(m, tree.ClaimDecl)), doc=doc, span=span)


def _check(member: Member, key: str, earlier: Member | None) -> None:
    if key not in SHAPES:
        raise SeqError("unknown-member", f"a monoid has no member `{key}`", member.name.span,
                       help="its members are " + ", ".join(f"`{known}`" for known in SHAPES) + ", `param` and `claim`")
    if earlier is not None:
        raise SeqError("duplicate-member", f"`{key}` is given twice", member.name.span,
                       notes=(f"the first is in line {earlier.name.span.line}",), help="keep one of them")
    fault = _misshapen(member, key)
    if fault:
        raise SeqError.of([Diagnostic("malformed-member", fault, member.name.span, help=f"write `{SHAPES[key]}`")])


def _misshapen(member: Member, key: str) -> str:
    if member.shape != key:
        return f"`{key}` does not have this shape"
    if key == "combine" and (len(member.params or ()) != 2 or any(
            p.indices is not None or p.type is not None for p in member.params or ())):
        return "`combine` takes two elements, as bare names"
    if key == "combine" and len({p.name.span.text for p in member.params or ()}) == 1:
        return "the two elements of `combine` have different names"
    if key == "project" and len(member.outputs or ()) != 1:
        return "`project` has one output"
    return ""

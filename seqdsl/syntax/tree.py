"""The syntax tree: one frozen dataclass for each shape of the grammar, each with its span.

Architecture invariant: no meaning. `q` may be an index, a tensor or a size here; `semantics` decides.
Equality and hashing ignore spans and comments, so that formatting can be tested by comparing trees.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Union

from seqdsl.diagnostics import Span


@dataclass(frozen=True)
class Node:
    """Anything that has a place in the text."""

    span: Span = field(compare=False, repr=False, kw_only=True)


# Expressions -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Number(Node):
    """A literal as written, `2`, `0.5`, `1e-6`, `1i`."""

    text: str


@dataclass(frozen=True)
class Name(Node):
    """A bare name; numbered names keep their braces, `x{l+1}a`, in `parts`.

    `parts` alternates text and arithmetic: ("x", l + 1, "a"); a plain name is ("q",).
    """

    parts: tuple[str | Expr, ...]

    @property
    def plain(self) -> str:
        """The name, where it has no braces."""
        assert len(self.parts) == 1 and isinstance(self.parts[0], str)
        return self.parts[0]


@dataclass(frozen=True)
class SizeOf(Node):
    """`|t|`."""

    name: Name


@dataclass(frozen=True)
class Field(Node):
    """`a.m` inside a monoid's combine; with brackets, `a.m[i]`, it is the function of a `Read`."""

    owner: Name
    name: Name


@dataclass(frozen=True)
class Unary(Node):
    """`-x` or `not x`; op is "-" or "not"."""

    op: str
    arg: Expr


@dataclass(frozen=True)
class Binary(Node):
    """op is one of `+ - * / // % ^ and or`."""

    op: str
    left: Expr
    right: Expr


@dataclass(frozen=True)
class Compare(Node):
    """A chain `a < b <= c`: `args` has one more entry than `ops`."""

    ops: tuple[str, ...]
    args: tuple[Expr, ...]


@dataclass(frozen=True)
class Tuple(Node):
    """`(a, b)`: identities of monoids, listed constants. Of one element: parentheses around an `identity`."""

    items: tuple[Expr, ...]


@dataclass(frozen=True)
class NewIndex(Node):
    """`h: H` in brackets: an index that gets its size here."""

    name: Name
    size: Expr


@dataclass(frozen=True)
class Brackets(Node):
    """`[a, b: B -> c, d: D | guard]` after a reducer or a called operation, or plain subscripts."""

    items: tuple[Expr | NewIndex, ...]
    made: tuple[Expr | NewIndex, ...] | None = None  # None: no arrow
    guard: Expr | None = None


@dataclass(frozen=True)
class Read(Node):
    """`S[t-1, j]`: subscripts from the left; `tensor` is a Name, or a Field inside a monoid."""

    tensor: Name | Field
    brackets: Brackets


@dataclass(frozen=True)
class Reduction(Node):
    """A prefix `sum[..] body` or `mean[..] body`."""

    op: str
    brackets: Brackets
    body: Expr


@dataclass(frozen=True)
class Setting(Node):
    """`t = j`, `bias = true`, `per = l` after `;` in a call."""

    name: Name
    value: Expr


@dataclass(frozen=True)
class Call(Node):
    """`f(a, b; c = d)`, or along axes `f[indices | guard](a; c = d)` with `brackets`."""

    function: Name
    brackets: Brackets | None
    args: tuple[Expr, ...]
    settings: tuple[Setting, ...] = ()


Expr = Union[Number, Name, SizeOf, Field, Unary, Binary, Compare, Tuple, Read, Reduction, Call]

# Statements ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Target(Node):
    """A left side. `indices` is None without brackets; an entry is a Name (index), a NewIndex, or a point: a Number,
    Unary("-", Number), or SizeOf."""

    name: Name
    indices: tuple[Name | NewIndex | Number | Unary | SizeOf, ...] | None


@dataclass(frozen=True)
class Equation(Node):
    """`a, b = expr`."""

    targets: tuple[Target, ...]
    value: Expr
    comments: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class IndexDecl(Node):
    """`index s over t, r over t`: pairs (new, over)."""

    pairs: tuple[tuple[Name, Name], ...]
    comments: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class ParamDecl(Node):
    """`param w[j: W, c]: complex = normal(0, 1)`."""

    target: Target
    type: str | None
    value: Expr | None
    comments: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class ConstDecl(Node):
    """`const rho[r: 4] = (1/2, 2/3, 3/4, 4/5)`."""

    target: Target
    value: Expr
    comments: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class ClaimDecl(Node):
    """`claim a, b when c`: `condition` governs every assertion of the line (rule 35)."""

    assertions: tuple[Expr, ...]
    condition: Expr | None
    comments: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class For(Node):
    """`for l in a..b:` half open, unrolled."""

    name: Name
    start: Expr
    stop: Expr
    body: tuple[Statement, ...]
    comments: tuple[str, ...] = field(default=(), compare=False)


Statement = Union[Equation, IndexDecl, ParamDecl, ConstDecl, ClaimDecl, For]

# Declarations ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Formal(Node):
    """`q[t,h,d]`, `tokens[t]: int`, `pos[i: m]`, or a scalar; `indices` None or empty for a scalar."""

    name: Name
    indices: tuple[Name | NewIndex, ...] | None
    type: str | None = None


@dataclass(frozen=True)
class Option(Node):
    """`H = 4`, or `N` without a default, after `;` in a header."""

    name: Name
    default: Expr | None


@dataclass(frozen=True)
class Output(Node):
    """`o[t,h,e]` after `->`."""

    name: Name
    indices: tuple[Name | NewIndex, ...] | None


@dataclass(frozen=True)
class Import(Node):
    """`import gla, GLA from gla`."""

    names: tuple[Name, ...]
    file: Name
    comments: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Mixer(Node):
    """`mixer name(params; options) -> outputs:` with its statements; `doc` are the comment lines directly above."""

    name: Name
    params: tuple[Formal, ...]
    options: tuple[Option, ...]
    outputs: tuple[Output, ...]
    body: tuple[Statement, ...]
    doc: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Fn(Node):
    """A block (`outputs` and `body`) or one expression (`value`)."""

    name: Name
    params: tuple[Formal, ...]
    options: tuple[Option, ...]
    outputs: tuple[Output, ...]
    body: tuple[Statement, ...]
    value: Expr | None = None
    doc: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Monoid(Node):
    """`monoid M(fields):`; every member except combine may be None."""

    name: Name
    fields: tuple[Formal, ...]
    options: tuple[Option, ...]
    params: tuple[ParamDecl, ...]
    identity: Expr | None
    lift_params: tuple[Formal, ...] | None
    lift: Expr | None
    combine_names: tuple[Name, Name]
    combine: tuple[Statement, ...]
    project_output: Output | None
    project: tuple[Statement, ...]
    claims: tuple[ClaimDecl, ...]
    doc: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Module(Node):
    """A file. `items` keep their order; `trailing` are comments after the last item."""

    items: tuple[Import | Mixer | Fn | Monoid, ...]
    trailing: tuple[str, ...] = field(default=(), compare=False)

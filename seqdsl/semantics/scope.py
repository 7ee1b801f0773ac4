"""What names mean while a mixer is lowered: the builder of one system, and a scope for each mixer instance in it.

A call is substitution (rule 26): the callee is lowered again, in a scope of its own whose prefix is the left side's
name, into the same builder. A scope maps the names of its text to the system's: indices to indices, tensors to a
`Ref`, options and static loop variables to integer nodes.

Architecture invariant: a scope never looks at Python values of the user's text; every entry is a node or a name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from seqdsl.diagnostics import Diagnostic, Faults, SeqError, Span, did_you_mean
from seqdsl.ir import build
from seqdsl.ir.node import Node
from seqdsl.ir.system import Edge, Index, Monoid, SizeCheck, Tensor
from seqdsl.semantics.builtins import FUNCTIONS
from seqdsl.syntax import tree

_REMEDY = {  # what makes a name of a kind known
    "name": "give it an equation, or make it an input, a param or an option",
    "tensor": "give it an equation, or make it an input or a param",
    "index": "give it a size where it is made, `{0}: N`; or an axis that is there already, `index {0} over t`",
    "size": "make it an option, after `;` in the header",
    "field": "the fields are those of the monoid's header",
    "function": "import it, or declare it with `fn`",
}
_CONSTANTS = {  # how another language writes them
    "True": "write `true`",
    "False": "write `false`",
    "None": "there is no `None`: what is absent is excluded by a guard, or is 0",
    "i": "the imaginary unit is `1i`",
    "j": "the imaginary unit is `1i`",
    "e": "write `exp(x)`",
    **dict.fromkeys(("Inf", "infinity", "Infinity", "oo"), "write `inf`"),
    **dict.fromkeys(("nan", "NaN"), "there is no NaN: what is absent is excluded by a guard, or is 0"),
}
_ATTRIBUTES = {  # what is an attribute in another language
    "T": "the left side says the order of the indices: `y[c,t] = x`",
    **dict.fromkeys(("shape", "size"), "the length of an axis is `|t|`"),
    **dict.fromkeys(("pi", "inf"), "write `pi`, `inf`"),
    **dict.fromkeys(("real", "imag"), "write `re(x)`, `im(x)`"),
}


@dataclass(frozen=True)
class Ref:
    """How a scope reads a tensor: the system's name, the mapped indices that lead it, and its declared indices
    (system names). `local` is how the text writes it, for messages."""

    name: str
    mapped: tuple[str, ...]
    indices: tuple[str, ...]
    local: str = ""


Override = tuple[
    str, frozenset[tuple[int, Node]], Node, Span
]  # tensor, points (position of the index, value), value, place


@dataclass
class Builder:
    """The system under construction, shared by all scopes of one lowering."""

    indices: dict[str, Index] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    monoids: dict[str, Monoid] = field(default_factory=dict)
    checks: list[SizeCheck] = field(default_factory=list)
    constraints: list[tuple[str, str]] = field(default_factory=list)
    spans: dict[object, Span] = field(default_factory=dict)
    faults: Faults = field(default_factory=Faults)
    corners: set[str] = field(default_factory=set)  # edges that only a base case with further points gives so far
    monoid: str = ""  # whose equations are being lowered
    mapped: dict[str, tuple[str, ...]] = field(default_factory=dict)  # tensors of calls: their leading, mapped indices
    overrides: list[Override] = field(default_factory=list)  # base cases inside an axis

    def axis(self, name: str) -> str:
        """The axis of an index; primes are transparent."""
        return self.indices[name.rstrip("'")].axis

    def fault(
        self, code: str, message: str, span: Span | None, *, label: str = "", notes: Iterable[str] = (), help: str = ""
    ) -> None:
        """Collect an error of this phase."""
        self.faults.append(Diagnostic(code, message, span, label, tuple(notes), help))

    def add_index(self, name: str, axis: str, size: Node | None) -> str:
        """Register an index under a fresh name and return it."""
        name = build.fresh(name, self.indices) if name in self.indices else name
        self.indices[name] = Index(name, axis or name, size)
        return name

    def add_edge(self, name: str, edge: Edge) -> None:
        """Attach a base case to a tensor that is already there."""
        tensor = self.tensors[name]
        self.tensors[name] = replace(tensor, edges=(*tensor.edges, edge))


@dataclass(frozen=True)
class File:
    """A parsed file: what its names mean, imports resolved to the declaring file and declaration."""

    name: str
    declarations: Mapping[str, tuple[File, tree.Mixer | tree.Fn | tree.Monoid]]
    module: tree.Module


@dataclass
class Scope:
    """One mixer, fn or monoid instance. `mapped` leads every derived tensor; `stack` are the names being inlined."""

    builder: Builder
    file: File
    owner: str
    prefix: str = ""
    path: tuple[str, ...] = ()
    mapped: tuple[str, ...] = ()
    stack: tuple[str, ...] = ()
    indices: dict[str, str] = field(default_factory=dict)
    tensors: dict[str, Ref] = field(default_factory=dict)
    sizes: dict[str, Node] = field(default_factory=dict)
    pending: dict[str, tree.Equation] = field(default_factory=dict)  # bare left sides, lowered when first read
    opened: set[str] = field(default_factory=set)  # bare left sides being lowered
    faults: Faults = field(default_factory=Faults)  # of this instance's equations; the builder has them too
    failed: dict[str, SeqError] = field(default_factory=dict)  # bare left sides that have a fault
    counters: dict[str, int] = field(default_factory=dict)  # calls and linears so far, by left side

    def kind_of(self, name: str) -> str | None:
        """ "index", "tensor" or "size": what the text's name is here."""
        if name in self.indices:
            return "index"
        if name in self.tensors or name in self.pending:
            return "tensor"
        return "size" if name in self.sizes else None

    def unknown(self, name: str, span: Span, what: str = "name") -> SeqError:
        """The error for a name that does not exist here, with near names."""
        if what == "field" and not self.builder.monoid:
            hint = _ATTRIBUTES.get(name.partition(".")[2], "a point reads a field inside a monoid")
            return SeqError("host-language", f"`{name}`: there are no modules and no attributes", span, help=hint)
        known = {*self.indices, *self.tensors, *self.pending, *self.sizes, *self.file.declarations}
        pools = {"index": {*self.indices}, "size": {*self.sizes}, "tensor": {*self.tensors, *self.pending},
                 "function": {*self.file.declarations, *FUNCTIONS}}  # fmt: skip
        hint = did_you_mean(name, pools.get(what, known), _REMEDY[what].format(name))
        if what == "name" and name in _CONSTANTS:
            hint = _CONSTANTS[name]
        if what == "name" and self.builder.monoid and any(field.startswith(f"{name}.") for field in self.tensors):
            fields = " or ".join(f"`{field}`" for field in self.tensors if field.startswith(f"{name}."))
            hint = f"an element is read field by field: {fields}"
        return SeqError(f"unknown-{what}", f"no {what} `{name}` in `{self.owner}`", span, help=hint)

    def count(self, target: str) -> str:
        """The name of the next call or linear of an equation: the left side's, then `_2`, `_3`."""
        name = self.upcoming(target)
        self.counters[target] = self.counters.get(target, 0) + 1
        return name

    def upcoming(self, target: str) -> str:
        """What `count` will say."""
        number = self.counters.get(target, 0) + 1
        return target if number == 1 else f"{target}_{number}"

    def is_second_of(self, name: str, other: str) -> bool:
        """Do two indices (system names) run over one axis?"""
        return name != other and self.builder.axis(name) == self.builder.axis(other)


@dataclass(frozen=True)
class Place:
    """Where an expression stands: its equation's target, and the indices (system names) in scope."""

    scope: Scope
    target: str  # the left side's name in the text
    left: tuple[str, ...]  # the left side's indices
    visible: frozenset[str]  # left side and binders
    sums: tuple[str, ...] = ()  # indices bound by enclosing sums (rule 5)
    in_param: bool = False
    whole: tree.Expr | None = None  # the right side, for messages

    def inside(self, names: Iterable[str], *, summed: bool = False) -> Place:
        """The same place below a binder."""
        extra = tuple(names)
        return replace(self, visible=self.visible | frozenset(extra), sums=self.sums + extra if summed else self.sums)

"""From a declaration to a system: the entry of this layer. Every error of a user's text is raised on the way.

Options stay symbolic, except those that static loops and numbered names need: they are fixed at their given or default
values, because they decide which equations there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from seqdsl.diagnostics import Faults, SeqError, Span, did_you_mean
from seqdsl.ir import build
from seqdsl.ir.dependence import Dependence, NotWellFounded, dependences, schedule
from seqdsl.ir.node import Node, reads
from seqdsl.ir.system import Claim, System, Tensor, live
from seqdsl.ir.validate import checked
from seqdsl.semantics import body as bodies
from seqdsl.semantics import claims as claim_forms
from seqdsl.semantics import tidy, types
from seqdsl.semantics.cumulative import unroll_sums
from seqdsl.semantics.declare import lower_default
from seqdsl.semantics.files import load_file
from seqdsl.semantics.parameters import TYPES, order_parameters
from seqdsl.semantics.scope import Builder, File, Ref, Scope
from seqdsl.semantics.size_checks import check_sizes
from seqdsl.semantics.unroll import settings_of, static_names
from seqdsl.syntax import tree

_MOST_NOTES = 6


def mixers(file: File) -> list[tree.Mixer]:
    """The mixers that a file itself declares, in order."""
    return [item for item in file.module.items if isinstance(item, tree.Mixer)]


def load_system(what: str | Path, mixer: str | None = None, options: Mapping[str, int] | None = None) -> System:
    """The system of one mixer of a path, library name or text: the named one, that of the file's name, or the first."""
    return lower_mixer(*choose(load_file(what), mixer), options)


def choose(file: File, mixer: str | None) -> tuple[File, tree.Mixer]:
    """The mixer of that name; without a name the file's namesake, else its first."""
    found = mixers(file)
    for item in found:
        if item.name.plain == (mixer or file.name):
            return file, item
    if mixer is not None or not found:
        names = [m.name.plain for m in found]
        listed = did_you_mean(mixer or "", names, "its mixers: " + ", ".join(f"`{n}`" for n in names))
        what = f"no mixer `{mixer}`" if mixer else "no mixer"
        raise SeqError(
            "unknown-mixer",
            f"`{file.name}` declares {what}",
            help=listed if found else "a `fn` or `monoid` is used by a mixer, `mixer f(x[t]) -> y[t]:`",
        )
    return file, found[0]


def lower_mixer(
    file: File,
    mixer: tree.Mixer,
    options: Mapping[str, int] | None = None,
    defaults: Mapping[str, int] | None = None,
) -> System:
    """Check a mixer and give its system; all faults of a phase are raised together as one `SeqError`.

    `options` are values for those that decide which equations there are; `defaults` replace those of the header."""
    try:
        return _lower_mixer(file, mixer, {**(defaults or {}), **(options or {})}, defaults or {})
    except RecursionError:  # the parser bounds each tree, not what calls and bare left sides make of many
        raise _too_deep(mixer) from None


def static_options(file: File, mixer: tree.Mixer) -> set[str]:
    """The options that decide which equations there are: those of static loops and of numbered names."""
    try:
        return _static_options(file, mixer, ())
    except RecursionError:
        raise _too_deep(mixer) from None


def _too_deep(mixer: tree.Mixer) -> SeqError:
    return SeqError(
        "too-deep",
        f"calls in `{mixer.name.plain}`, or left sides without brackets, wait for one another too deeply",
        mixer.name.span,
        help="write the indices of left sides, and fewer levels of calls",
    )


def _lower_mixer(
    file: File, mixer: tree.Mixer, options: Mapping[str, int], defaults: Mapping[str, int]
) -> System:
    scope = Scope(Builder(), file, mixer.name.plain, stack=(mixer.name.plain,))
    public = _declare_header(scope, mixer, options)
    public |= {name: build.const(int(value)) for name, value in defaults.items() if name in public}
    body = bodies.lower_body(scope, replace(mixer, options=()), {}, {})  # options were declared with the header
    scope.builder.faults.check()
    stream = _stream(scope)
    claims = _claims(scope, body, stream)
    outputs = tuple(scope.tensors[o.name.plain].name for o in mixer.outputs)
    system = _finish(scope, outputs, public, claims, mixer)
    texts = [expr for _, expr in claims]
    pairs = zip(system.claims, texts, strict=True)
    return replace(system, claims=tuple(_with_system(scope, c, expr, public, mixer) for c, expr in pairs))


def _declare_header(scope: Scope, mixer: tree.Mixer, given: Mapping[str, int]) -> dict[str, Node | None]:
    builder = scope.builder
    for formal in mixer.params:
        for item in formal.indices or ():
            name = (item.name if isinstance(item, tree.NewIndex) else item).plain
            if name not in scope.indices:
                scope.indices[name] = builder.add_index(name, "", None)
    bodies.check_header(scope, mixer)
    public = _declare_options(scope, mixer, given)
    for formal in mixer.params:
        name = formal.name.plain
        indices = tuple(
            scope.indices[(i.name if isinstance(i, tree.NewIndex) else i).plain] for i in formal.indices or ()
        )
        if len(set(indices)) != len(indices):
            raise SeqError(
                "repeated-index",
                f"`{name}` has an index twice",
                formal.span,
                help="give the second one its own name, `index s over t`",
            )
        scope.tensors[name] = Ref(name, (), indices, name)
        builder.tensors[name] = Tensor(name, indices, TYPES[formal.type], "input")
        builder.spans[name] = formal.span
    return public


def _declare_options(scope: Scope, mixer: tree.Mixer, given: Mapping[str, int]) -> dict[str, Node | None]:
    """Options as symbols with defaults; those that unrolling needs become numbers and are no longer options."""
    static = _static_options(scope.file, mixer, ())
    public: dict[str, Node | None] = {}
    for option in mixer.options:
        name = option.name.plain
        if (
            name in scope.indices
            or name in public
            or name in {p.name.plain for p in mixer.params}
            or name in scope.sizes
        ):
            raise SeqError(
                "name-clash",
                f"`{name}` is declared twice in the header",
                option.span,
                help="within a mixer a name is one thing (rule 1)",
            )
        default = None if option.default is None else lower_default(scope, option.default, mixer.options)
        if name not in static:
            scope.sizes[name] = build.option(name)
            public[name] = default
            continue
        value = given.get(name, None if default is None else build.value_of(default))
        if value is None:
            raise SeqError(
                "dynamic-loop-bound",
                f"`{name}` decides how a loop is unrolled, and has no numeric value",
                option.span,
                help=f"give it a number: `{name} = 4`, or compile with `--set {name}=4`",
            )
        scope.sizes[name] = build.const(int(value))
    return public


def _static_options(file: File, mixer: tree.Mixer | tree.Fn, above: tuple[str, ...]) -> set[str]:
    """The options that unrolling needs, here or in what is called with them."""
    if mixer.name.plain in above:  # a cycle of calls, which is an error of its own
        return set()
    found = static_names(mixer.body)
    below: dict[str, set[str]] = {}
    for called, option, names in settings_of(mixer.body):
        other, callee = file.declarations.get(called, (file, None))
        if not isinstance(callee, tree.Mixer | tree.Fn):
            continue
        if called not in below:
            below[called] = _static_options(other, callee, (*above, mixer.name.plain))
        if option in below[called]:
            found |= names
    return found


def _stream(scope: Scope) -> str | None:
    first = next((t for t in scope.builder.tensors.values() if t.kind == "input"), None)
    return scope.builder.axis(first.indices[0]) if first is not None and first.indices else None


def _claims(
    scope: Scope, body: tuple[tree.Statement, ...], stream: str | None
) -> list[tuple[Claim, tree.Expr]]:
    found: list[tuple[Claim, tree.Expr]] = []
    for statement in body:
        if isinstance(statement, tree.ClaimDecl):
            lowered = claim_forms.lower_claims(scope, statement, stream)
            found += zip(lowered, statement.assertions, strict=True)
    return found


def _finish(
    scope: Scope,
    outputs: tuple[str, ...],
    public: Mapping[str, Node | None],
    claims: list[tuple[Claim, tree.Expr]],
    mixer: tree.Mixer,
) -> System:
    builder = scope.builder
    builder.faults.check()
    _refuse_unfinished(builder)
    order_parameters(builder)
    system = System(
        mixer.name.plain,
        dict(public),
        dict(builder.indices),
        dict(builder.tensors),
        outputs,
        tuple(c for c, _ in claims),
        dict(builder.monoids),
        tuple(builder.checks),
        tuple(builder.constraints),
        mixer.doc,
        spans=dict(builder.spans),
    )
    system = types.infer(system)
    Faults([*types.check_types(system), *check_sizes(system, mixer)]).check()
    system = unroll_sums(tidy.narrow(tidy.inline_copies(system), builder.mapped))
    check_well_founded(system)
    return checked(live(system), "lower")


def _refuse_unfinished(builder: Builder) -> None:
    for tensor in builder.tensors.values():
        if tensor.kind == "derived" and tensor.rhs is None:
            raise SeqError(
                "base-case-alone", f"`{tensor.name}` has a base case but no equation", builder.spans.get(tensor.name)
            )


_EARLIER = "read an earlier position (`t-1`), or show by a guard that it is earlier (`| s < t`)"


def check_well_founded(system: System) -> None:
    """Rule 18: some order of the axes makes every self-read strictly earlier."""
    try:
        schedule(system)
    except NotWellFounded as error:
        raise _not_well_founded(system, error.cycle) from None


def _not_well_founded(system: System, cycle: list[Dependence]) -> SeqError:
    evidence = _evidence(system, cycle)
    notes = []
    for dependence, read in evidence[:_MOST_NOTES]:
        shown = ", ".join(f"{axis}: {_words(d)}" for axis, d in dependence.distance)
        what = f"`{read}`" if read is not None and "@" not in dependence.tensor else _spoken(dependence.tensor)
        notes.append(f"{_spoken(dependence.reader)} reads {what} ({shown or 'no axis in common'})")
    first, read = evidence[0]
    span: Span | None = system.spans.get((first.reader, read)) or system.spans.get(first.reader)
    names = " -> ".join(_spoken(d.reader) for d in cycle)
    wrong = _misplaced(system, {d.reader for d in cycle})
    if wrong is not None:
        span = system.spans.get(wrong[0], span)
    return SeqError(
        "not-well-founded",
        f"{names} depends on itself, and no order of the axes makes every read earlier",
        span,
        label="this read is not shown to be earlier",
        notes=tuple(notes),
        help=wrong[1] if wrong is not None else _EARLIER,
    )


def _misplaced(system: System, names: set[str]) -> tuple[tuple[str, Node], str] | None:
    """The read, and what is meant, by `h[t-1]` of an `h[l,t]`, where subscripts are positional: a step along an axis that
    the tensor has further on."""
    for reader in sorted(names):
        for read in reads(system.tensors[reader].rhs):
            own = system.tensors[str(read.attr)].indices if read.attr in names else ()
            for k, subscript in enumerate(read.args[: len(own)]):
                there = next((i for i in own[k + 1 :] if i in subscript.free and subscript.op != "index"), None)
                if there is not None and own[k] not in subscript.free:
                    step = repr(subscript).replace(" ", "")
                    right = ",".join([*own[: own.index(there)], step])
                    return (reader, read), f"`{step}` stands in the place of `{own[k]}`: write `{read.attr}[{right}]`"
    return None


def _evidence(system: System, cycle: list[Dependence]) -> list[tuple[Dependence, Node | None]]:
    """Every read along the cycle as the text has it (no primes), those that are not earlier first."""
    found: dict[tuple[str, Node | None], Dependence] = {}
    for edge in cycle:
        for dependence in dependences(system, system.tensors[edge.reader]):
            if dependence.tensor == edge.tensor:
                read = dependence.read
                names = {n: n.rstrip("'") for n in read.free} if read is not None else {}
                found.setdefault((edge.reader, None if read is None else build.rename(read, names)), dependence)
    pairs = [(dependence, read) for (_, read), dependence in found.items()]
    return sorted(pairs, key=lambda pair: (_is_earlier(pair[0]), "@" in pair[0].tensor))


def _spoken(name: str) -> str:
    """A tensor, or the base case of one, which no text names."""
    whole, base, point = name.partition("@")
    return f"the base case of `{whole}` at `{point.replace('=', ' = ')}`" if base else f"`{whole}`"


def _is_earlier(dependence: Dependence) -> bool:
    return any(d == "+" or (isinstance(d, int) and d > 0) for _, d in dependence.distance)


def _words(distance: int | str) -> str:
    if isinstance(distance, int):
        return "the same position" if distance == 0 else f"{abs(distance)} {'earlier' if distance > 0 else 'later'}"
    return {"+": "earlier", "0+": "earlier or the same", "-": "later", "0-": "later or the same"}.get(
        distance, "unknown"
    )


def _with_system(
    scope: Scope, claim: Claim, expr: tree.Expr, public: Mapping[str, Node | None], mixer: tree.Mixer
) -> Claim:
    """An equality gets a system of its own: the mixer's, and both sides as tensors."""
    if claim.kind != "equal" or not isinstance(expr, tree.Compare):
        return claim
    builder = scope.builder
    copy = Builder(
        dict(builder.indices),
        dict(builder.tensors),
        dict(builder.monoids),
        list(builder.checks),
        list(builder.constraints),
        dict(builder.spans),
        mapped=dict(builder.mapped),
    )
    inner = replace(
        scope, builder=copy, indices=dict(scope.indices), tensors=dict(scope.tensors), pending={}, counters={}
    )
    left, right = claim_forms.lower_equality(inner, expr)
    claim = replace(claim, args=(left, right))
    system = _finish(inner, (left, right), public, [(claim, expr)], mixer)  # with what its condition reads
    return replace(claim, system=replace(system, claims=()))

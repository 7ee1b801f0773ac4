"""Choose and apply a form by name; say why where it cannot be had.

A form rewrites every recurrence along a streamed axis that it can; `chunkwise` the normalisers too (`online`), which
`quadratic` leaves as they are written, all pairs at once. `derive` refuses (with the reasons) where it can
rewrite none, or where one that it should rewrite resists; recurrences that are not its business (over depth, over an
iteration) stay loops in every form.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from seqdsl.algebra.affine import NoMatch
from seqdsl.diagnostics import SeqError
from seqdsl.forms.any_convolution import to_any_convolution
from seqdsl.forms.any_scan import to_any_scan
from seqdsl.forms.any_wavefront import to_any_wavefront
from seqdsl.forms.chunkwise import to_chunkwise, to_quadratic
from seqdsl.forms.hierarchical import to_hierarchical
from seqdsl.forms.newton import to_newton
from seqdsl.forms.obligations import ALL_PAIRS, ONLINE_LAW, SCAN_LAW, Obligation, introduced
from seqdsl.forms.online import Normalisers, all_pairs, to_online
from seqdsl.forms.pieces import CONCATENATION, in_pieces, laws
from seqdsl.forms.prepare import prepared
from seqdsl.forms.reads import some_positions
from seqdsl.forms.recurrent import steadied
from seqdsl.forms.risks import check_convolution, check_newton
from seqdsl.forms.texts import with_texts
from seqdsl.forms.unasked import only_where_asked
from seqdsl.ir import build
from seqdsl.ir.dependence import Loop, loop_again, recurrences
from seqdsl.ir.nest import closed, opened, told
from seqdsl.ir.node import Node, walk
from seqdsl.ir.remember import once_for_each
from seqdsl.ir.state import NotSteppable, state_record
from seqdsl.ir.system import System, Tensor, live
from seqdsl.ir.validate import checked

Rewrite = Callable[[System, Loop], System]


@dataclass(frozen=True)
class Kept:
    """The tensors of a loop, or with normalisers, that a form leaves as they are, and why. What is out of the form's scope
    does not keep a system from having the form as a whole."""

    names: str
    why: str
    out_of_scope: bool = False

    def __str__(self) -> str:
        return f"`{self.names}`: {self.why}"


@dataclass(frozen=True)
class Derived:
    """A system in a form. `rewritten` are the states it no longer steps through, `kept` the loops that stay."""

    form: str
    system: System
    obligations: tuple[Obligation, ...] = ()
    rewritten: tuple[str, ...] = ()
    kept: tuple[Kept, ...] = ()


@dataclass(frozen=True)
class Form:
    """A row of the table: the rewriting of one recurrence, and the law it relies on. `normalisers` is what the form
    makes of a whole system's normalisers; the law of that is `ONLINE_LAW`, or none where nothing is rewritten. A form
    that `resumes` along another axis than the stream starts from what a state holds of the stream. One that does not
    nest is taken of whole recurrences only, not of what recurs in a step of another loop. `check` raises `NoMatch` for
    the recurrences for which `auto` does not take it, whatever it costs (`forms.risks`)."""

    name: str
    rewrite: Rewrite | None
    law: str
    because: str
    normalisers: Callable[[System], Normalisers] | None = None
    resumes: bool = False
    nests: bool = True
    check: Callable[[System, Loop], None] | None = None


_ROWS = [
    Form("recurrent", None, "none", "the equations themselves, one step at a time"),
    Form("scan", to_any_scan, SCAN_LAW.law, SCAN_LAW.because),
    Form(
        "chunkwise",
        to_chunkwise,
        "the state is a sum over earlier writes, each decayed by the product in between",
        "unrolling S[t] = a S[t-1] + k v; a read that is linear in S moves inside the sum, and the sum splits at chunks",
        to_online,
    ),
    Form(
        "quadratic",
        to_quadratic,
        "the state is a sum over earlier writes, each decayed by the product in between",
        "unrolling S[t] = a S[t-1] + k v over the whole sequence, in one chunk",
        all_pairs,
    ),
    Form(
        "convolution",
        to_any_convolution,
        "with coefficients that do not read t, the read is a convolution with c a^l b",
        "the product of l equal steps, decays or matrices, is their power",
        nests=False,
        check=check_convolution,
    ),
    Form(
        "newton",
        to_newton,
        "after m corrections the first m pieces are exact, and starts that agree with the ends before them solve the "
        "recurrence; its adjoint is affine, with the slopes at the solution",
        "multiple shooting: pieces of 64 steps side by side, their starts corrected by the products of the slopes until "
        "the ends agree (1e-6 of the state in float32, 1e-12 in float64); where that overshoots, pieces of 32 and 16, "
        "then one step at a time; full matrices of slopes are for at most 64 entries, and starts are copied where there are more",
        check=check_newton,
    ),
    Form(
        "wavefront",
        to_any_wavefront,
        "every read is of an earlier w: the cells of a front do not read each other",
        "on a grid w = slope i + j, with slope d + e >= 1 at each distance (d, e), and (i, j) -> (w, i) is one to one; on a "
        "graph that guards give, w is the longest path to a position, found at each call",
        resumes=True,
        nests=False,
    ),
    Form(
        "hierarchical",
        to_hierarchical,
        "joining two blocks of cells is the composition of affine maps along the edge between them, which is associative",
        "a block maps what enters it from above and from the left to what leaves it; a cell is the block of its step, and "
        "pairs of blocks are joined until one is the grid",
        resumes=True,
        nests=False,
    ),
]
FORMS: dict[str, Form] = {row.name: row for row in _ROWS}
DISTRIBUTED = "distributed"  # no row: what it makes of a system takes one of these forms, which a planner picks


def derive(system: System, form: str) -> Derived:
    """The system in a form. Errors: `unknown-form`; `form-not-available`, with the reason for each recurrence."""
    if form == DISTRIBUTED:
        return _distributed(system)
    if form not in FORMS:
        raise SeqError("unknown-form", f"no form is named `{form}`", help="forms: " + ", ".join([*FORMS, DISTRIBUTED]))
    row = FORMS[form]
    if row.rewrite is None:
        return _stepped(system, row)
    derived = apply(system, row, False)
    if derived.kept and not derived.rewritten:
        raise SeqError(
            "form-not-available",
            f"`{system.name}` has no {form} form",
            notes=tuple(map(str, derived.kept)),
            help="`seqc explain` shows the forms that it has",
        )
    if not derived.rewritten:
        raise SeqError(
            "form-not-available",
            f"`{system.name}` has nothing that the form {form} rewrites: no recurrence"
            + (", and no normaliser over pairs of positions" if row.normalisers is not None else ""),
            help="use the form `recurrent`, in which such a mixer is already parallel",
        )
    resisting = tuple(str(kept) for kept in derived.kept if not kept.out_of_scope)
    if resisting:
        raise SeqError(
            "form-not-available",
            f"`{system.name}` has no {form} form as a whole",
            notes=resisting,
            help="`auto` uses it where it can, and steps the rest",
        )
    return derived


@once_for_each
def _beginning(system: System) -> System:
    """What every form starts from: one system, so that what is found out about its recurrences is found once."""
    return replace(prepared(_with_record(system)))


@once_for_each
def _stepped(system: System, row: Form) -> Derived:
    stepped = checked(only_where_asked(live(steadied(_beginning(system)))), row.name)
    return Derived(row.name, stepped, kept=tuple(Kept(", ".join(r.tensors()), "stepped") for r in recurrences(stepped)))


@once_for_each
def _distributed(system: System) -> Derived:
    """The equations of one rank's piece of the stream."""
    before = _beginning(system)
    found = in_pieces(before)
    if found.reasons or not found.crossing:
        nothing = "nothing in it crosses the stream: every rank can run its piece by itself, in any form"
        raise SeqError(
            "form-not-available",
            f"`{system.name}` has no distributed form",
            notes=tuple(f"`{names}`: {why}" for names, why in found.reasons) or (nothing,),
            help="`seqc explain` shows the forms that it has",
        )
    because = f"{CONCATENATION}; each rank sends, for one sequence, {found.sends} numbers"
    obligation = Obligation("the element of a concatenation is that of its pieces, combined", because, lambda: laws(before))
    after = checked(only_where_asked(with_texts(before, live(found.system))), DISTRIBUTED)
    return Derived(DISTRIBUTED, after, (obligation,), found.crossing)


@once_for_each
def apply(system: System, row: Form, checked_only: bool) -> Derived:
    """Rewrite each recurrence that the form can, or of those only what its `check` lets pass; keep the others, with reasons.

    Remembered for as long as the system lives: a report, its costs and its derivation ask for the same forms."""
    before = _beginning(system)
    system, rewritten, kept = _inside(before, row, checked_only)
    obligations = _laws(row, before, system) if rewritten else []
    streamed = bool(rewritten) or any(not one.out_of_scope for one in kept)
    if row.normalisers is not None and not (streamed and row.normalisers is all_pairs):
        found = row.normalisers(system)
        system = found.system
        rewritten += found.rewritten
        kept += [Kept(names, why, True) for names, why in found.kept]
        if found.rewritten:
            obligations.append(ALL_PAIRS if row.normalisers is all_pairs else ONLINE_LAW)
    system = checked(only_where_asked(with_texts(before, live(system))), row.name)
    return Derived(row.name, system, tuple(obligations), tuple(rewritten), tuple(kept))


def _inside(
    system: System, row: Form, checked_only: bool, outer: tuple[Loop, ...] = ()
) -> tuple[System, list[str], list[Kept]]:
    """The recurrences of a system, or of a step of some loops, rewritten where they can be; which were, and which not.

    Where a loop over several axes stays, as one over depth does in every form, what recurs in a step of it is rewritten
    by itself."""
    assert row.rewrite is not None
    before = system
    rewritten: list[str] = []
    kept: list[Kept] = []
    within = set(outer[-1].tensors()) if outer else set(system.tensors)
    open_axes = {step.axis for step in outer}
    found = [x for x in recurrences(system) if within.issuperset(x.tensors()) and x.axis not in open_axes]
    for loop in sorted(found, key=lambda found: not found.reverse):  # what reads both ways is read once
        names = ", ".join(loop.tensors())
        if any(system.tensors.get(n) is not before.tensors[n] for n in loop.tensors()):  # another took it along
            if (left := loop_again(system, loop)) is None:
                rewritten.append(names)
                continue
            loop = left
        try:
            _check_scope(system, row, loop, outer)
            if checked_only and row.check is not None:
                row.check(system, loop)
            system = row.rewrite(system, loop)
            rewritten.append(names)
            continue
        except NoMatch as refusal:
            reason = refusal
        if any(isinstance(step, Loop) for step in loop.body):
            inner, done, left_over = _inside(opened(system, loop), row, checked_only, (*outer, loop))
            if done:
                system = _with_ends(closed(inner, system, loop), set(loop.tensors()))
                reason = NoMatch(f"a loop over `{loop.axis}`, in the steps of which it recurs", out_of_scope=True)
                rewritten += done
            kept += left_over
        kept.append(Kept(names, told(str(reason)), reason.out_of_scope))
    return system, rewritten, kept


def _with_ends(system: System, names: set[str]) -> System:
    """What the state record keeps of states that a form has solved inside a loop, as tensors of their own: a step of the
    loop can then give the end of its state, and need not keep all of it."""
    finals, made = dict(system.finals), []
    for entry in system.record or ():
        start = system.tensors.get(f"{entry.tensor}@start")
        last = entry.tail is build.ONE and entry.boundary is None
        if entry.tensor not in names or entry.name in finals or not last or start is None:
            continue
        tensor = system.tensors[entry.tensor]
        time = tensor.indices[entry.position]
        at = build.sub(build.size(time), build.ONE)
        end = build.read(tensor.name, [at if i == time else build.index(i) for i in tensor.indices], tensor.dtype)
        before = build.read(start.name, [build.index(i) for i in start.indices], tensor.dtype)
        comment = f"{tensor.name} after the last position"
        rhs = build.where(some_positions(system, time), end, before)
        made.append(Tensor(f"{entry.name}@final", start.indices, tensor.dtype, "derived", rhs, comment=comment))
        finals[entry.name] = made[-1].name
    return replace(system.with_tensors(*made), finals=finals)


def _check_scope(system: System, row: Form, loop: Loop, outer: tuple[Loop, ...]) -> None:
    """Raises `NoMatch` where a loop is none of the form's business, or cannot be."""
    if outer and not row.nests:
        raise NoMatch(f"it recurs in the steps of a loop over `{outer[-1].axis}`, where no {row.name} is written")
    if not _streamed(system, loop):
        raise NoMatch(f"a recurrence over `{loop.axis}`, a loop in every form", out_of_scope=True)
    held = any(e.tensor in loop.tensors() for e in system.record or ())
    here = any(step.axis == system.stream for step in outer)  # what a state holds is read between its steps
    if loop.axis != system.stream and held and not row.resumes and not here:
        raise NoMatch(f"its step over `{loop.axis}` reads earlier positions, which a state holds")
    around = {name for step in outer if _streamed(system, step) for name in step.tensors()}
    if any(edge.tensor in around for name in loop.tensors() for edge in system.tensors[name].edges):
        raise NoMatch(f"its steps over `{loop.axis}` go on where those of the step before end: they are one recurrence")


def _laws(row: Form, before: System, after: System) -> list[Obligation]:
    """The form's own law, and those of the operators that a rewriting has brought in. Where every state is wanted entry by
    entry, chunkwise and quadratic forms have no reads to write as sums, and are scans."""
    laws, reading = introduced(before, after)
    only_scans = row.normalisers is not None and SCAN_LAW in laws and not reading
    return list(dict.fromkeys([*([] if only_scans else [Obligation(row.law, row.because)]), *laws]))


def _streamed(system: System, loop: Loop) -> bool:
    """Is it a recurrence over an axis as long as the inputs make it, or a piece of one, as `i` is of `t` where `|g|` is
    `|t| // G` and `|i|` is `G`? Depth is none, nor is an iteration. Where the mixer steps, an axis that grows with the
    stream is none either: its recurrences go on where a state left them only as they are written."""
    given = {system.axis(i) for t in system.inputs() for i in t.indices}
    made = given - {system.stream} if system.record is not None else given
    counted = [i.size for i in system.indices.values() if i.size is not None and _reads(system, i.size, "size") & made]
    cut = {name for size in counted for name in _reads(system, size, "option")}
    size = system.index(loop.axis).size
    return loop.axis in given or size is not None and (size in counted or bool(_reads(system, size, "option") & cut))


def _reads(system: System, size: Node, op: str) -> set[str]:
    """The axes whose lengths a formula reads, or its options."""
    return {system.axis(str(n.attr)) if op == "size" else str(n.attr) for n in walk(size) if n.op == op}


def _with_record(system: System) -> System:
    if system.record is not None:
        return system
    try:
        return replace(system, record=state_record(system))
    except NotSteppable:
        return system


def available(system: System) -> dict[str, Derived | SeqError]:
    """Each form of the table with its result, or the error that says why not."""
    found: dict[str, Derived | SeqError] = {}
    for name in FORMS:
        try:
            found[name] = derive(system, name)
        except SeqError as error:
            found[name] = error
    return found

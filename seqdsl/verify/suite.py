"""`seqc test`: property-based equivalence of every form of a mixer, with the smallest failing inputs.

Each property is a Hypothesis test over lengths (T of 0, 1, and not a multiple of a chunk), seeds, and whether decays
are harsh (0, -1e-6, -20, -200 mixed). Everything is compared with the interpreter running the equations as they stand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from seqdsl.diagnostics import SeqError
from seqdsl.forms import FORMS, Derived, derive
from seqdsl.ir.interpreter import interpret
from seqdsl.ir.sizes import SizeError, Sizes
from seqdsl.ir.state import flatten
from seqdsl.ir.system import System
from seqdsl.verify.inputs import draw_inputs, draw_sizes
from seqdsl.verify.modules import compare, relative_rms

Array = np.ndarray[Any, Any]
LENGTHS = (0, 1, 2, 3, 5, 8, 13, 17)
FORM_TOLERANCE = 1e-9


@dataclass(frozen=True)
class Outcome:
    """One property of one form: how many examples held, or the smallest that did not."""

    form: str
    what: str
    examples: int
    failure: str = ""

    @property
    def ok(self) -> bool:
        """Did every example hold?"""
        return not self.failure

    def to_dict(self) -> dict[str, object]:
        """Plain data for `--json`."""
        return {
            "form": self.form,
            "property": self.what,
            "examples": self.examples,
            "ok": self.ok,
            "failure": self.failure,
        }


@dataclass(frozen=True)
class Case:
    """What Hypothesis draws."""

    stream: int
    seed: int
    harsh: bool

    def draw(self, system: System) -> tuple[Sizes, dict[str, Array]] | None:
        """Sizes and inputs; None where no sizes fit this length."""
        rng = np.random.default_rng(self.seed)
        try:
            sizes = draw_sizes(system, rng, stream=self.stream, tries=12)
            return sizes, draw_inputs(system, sizes, rng, harsh=self.harsh)
        except SizeError:
            return None


class Differs(AssertionError):
    """A property does not hold, with the evidence."""


def run_suite(
    system: System,
    emit: Callable[[Derived], tuple[str, str]] | None,
    backend: Any,
    *,
    examples: int = 25,
    seed: int | None = None,
) -> Iterator[Outcome]:
    """Every property of every form that the mixer has. `emit` gives text and class name of a form's module."""
    for name in FORMS:
        try:
            derived = derive(system, name)
        except SeqError:
            continue
        if name != "recurrent":
            yield _property(f"{name}", "equals the equations", _same_values(system, derived), examples, seed)
        if derived.system.record is not None:
            yield _property(name, "split anywhere equals whole", _splits(system, derived), examples, seed)
        if emit is not None:
            text, class_name = emit(derived)
            check = _module_matches(derived.system, text, class_name, backend)
            yield _property(name, "module equals the equations", check, max(5, examples // 3), seed)


def _property(form: str, what: str, check: Callable[[Case], bool], examples: int, seed: int | None) -> Outcome:
    """Run one property under Hypothesis: deterministic unless a seed is given, shrinking to the smallest case."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as with_seed
    from hypothesis import strategies as st

    ran = [0]
    cases = st.builds(Case, st.sampled_from(LENGTHS), st.integers(0, 10_000), st.booleans())

    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=seed is None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
        print_blob=False,
    )
    @given(cases)
    def test(case: Case) -> None:
        ran[0] += check(case)

    try:
        (with_seed(seed)(test) if seed is not None else test)()
    except Differs as failure:
        return Outcome(form, what, ran[0], str(failure))
    return Outcome(form, what, ran[0])


def _named(sizes: Sizes) -> dict[str, int]:
    return {**sizes.lengths, **sizes.options}


def _same_values(system: System, derived: Derived) -> Callable[[Case], bool]:
    def check(case: Case) -> bool:
        drawn = case.draw(system)
        if drawn is None:
            return False
        sizes, inputs = drawn
        wanted = interpret(system, inputs=inputs, sizes=_named(sizes))
        found = interpret(derived.system, inputs=inputs, sizes=_named(sizes))
        _agree(case, sizes, found["outputs"], wanted["outputs"], "output")
        _agree(case, sizes, flatten(found["state"]), flatten(wanted["state"]), "state")
        return True

    return check


def _agree(case: Case, sizes: Sizes, found: dict[str, Any], wanted: dict[str, Any], kind: str) -> None:
    for name in wanted:
        error = relative_rms(np.asarray(found.get(name, np.nan)), np.asarray(wanted[name]))
        if not error <= FORM_TOLERANCE:
            shown = ", ".join(f"|{n}| = {v}" for n, v in sizes.lengths.items() if "." not in n)
            raise Differs(
                f"{kind} `{name}` differs by {error:.2g} (relative) at {shown}; seed {case.seed}, "
                f"{'harsh' if case.harsh else 'ordinary'} decays"
            )


def _splits(system: System, derived: Derived) -> Callable[[Case], bool]:
    """Outputs of two pieces, the second continued from the first's state, are those of the whole."""
    stream = system.stream

    def check(case: Case) -> bool:
        drawn = case.draw(system)
        if (
            drawn is None
            or stream is None
            or not any(system.axis(i) == stream for t in system.inputs() for i in t.indices)
        ):
            return False
        sizes, inputs = drawn
        if any(system.axis(i) == stream for t in system.params() for i in t.indices):
            return False
        whole = interpret(system, inputs=inputs, sizes=_named(sizes))["outputs"]
        cut = case.seed % (sizes[stream] + 1)
        options = dict(sizes.options)
        pieces = [
            {n: _piece(system, n, a, stream, part) for n, a in inputs.items()}
            for part in (slice(0, cut), slice(cut, None))
        ]
        first = interpret(derived.system, inputs=pieces[0], sizes=_without(system, sizes, stream) | options)
        second = interpret(
            derived.system, inputs=pieces[1], sizes=_without(system, sizes, stream) | options, state=first["state"]
        )
        joined = {}
        for name in whole:
            axes = [k for k, i in enumerate(system.tensors[name].indices) if system.axis(i) == stream]
            if axes:
                joined[name] = np.concatenate([first["outputs"][name], second["outputs"][name]], axes[0])
        _agree(case, sizes, joined, {n: whole[n] for n in joined}, f"cut at {cut}, output")
        return True

    return check


def _without(system: System, sizes: Sizes, stream: str) -> dict[str, int]:
    """The lengths that are free and not the stream's; what formulas give is worked out anew for a piece."""
    return {
        n: v for n, v in sizes.lengths.items() if system.axis(n) != stream and system.index(system.axis(n)).size is None
    }


def _piece(system: System, name: str, array: Array, stream: str, part: slice) -> Array:
    return array[tuple(part if system.axis(i) == stream else slice(None) for i in system.tensors[name].indices)]


def _module_matches(system: System, text: str, class_name: str, backend: Any) -> Callable[[Case], bool]:
    def check(case: Case) -> bool:
        drawn = case.draw(system)
        if drawn is None:
            return False
        rng = np.random.default_rng(case.seed)
        mismatch = compare(system, text, class_name, backend, drawn[0], rng, harsh=case.harsh)
        if mismatch is not None:
            raise Differs(
                f"{mismatch.what} of the module differs by {mismatch.error:.2g} (relative) at {mismatch.sizes}; "
                f"seed {case.seed}, {'harsh' if case.harsh else 'ordinary'} decays"
            )
        return True

    return check

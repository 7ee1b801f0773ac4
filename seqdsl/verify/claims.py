"""Claims that algebra leaves open, tried on random inputs through the interpreter, and refuted with the numbers found.

A test never proves: the verdict is `Tested(n, worst)`, or `Refuted` with sizes and entries that anyone can check.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import reduce
from typing import Any

import numpy as np

from seqdsl.algebra.claims import brings_zeros_in, is_entrywise, reached_by
from seqdsl.algebra.verdict import Refuted, Tested, Unknown, Verdict
from seqdsl.ir import build
from seqdsl.ir.evaluate import Evaluation, Run
from seqdsl.ir.interpreter import interpret
from seqdsl.ir.node import Node, walk
from seqdsl.ir.sizes import SizeError, Sizes, evaluate_size
from seqdsl.ir.state import flatten, nest, reads_length, state_record
from seqdsl.ir.system import Claim, System, Tensor
from seqdsl.verify.equality import DIFFERENT, fixed_sizes, test_equality
from seqdsl.verify.inputs import (
    Bounds,
    bounds_of,
    draw_inputs,
    draw_integers,
    draw_sizes,
    own_axis,
    reach,
    small_options,
    telling,
    trained,
    turns,
    unshaped,
)

Array = np.ndarray[Any, Any]
STREAMS = (1, 2, 3, 5, 8, 4, 7, 6)  # lengths of the first axis
MOST_CUTS = 5  # positions of one trial of causality after which inputs are changed
ENTRIES = 200_000  # of all tensors of one trial
REDRAWS = 18  # of inputs that miss the claim's condition
LASTING = 1.1  # a norm that rises by less is not said to grow without end
TOLERANCE = 1e-11  # relative to the largest entry; the interpreter works in float64


@dataclass(frozen=True)
class Trial:
    """One draw: what went in."""

    system: System
    sizes: Sizes
    inputs: dict[str, Array]
    params: dict[str, Array] = field(default_factory=dict)

    def run(self, **changed: Any) -> dict[str, Array]:
        """The outputs for these inputs, some of them changed."""
        given = {**self.inputs, **changed}
        return interpret(self.system, inputs=given, params=self.params, sizes=_named(self.sizes))["outputs"]


def _named(sizes: Sizes) -> dict[str, int]:
    return {**sizes.lengths, **sizes.options}


def test_claim(system: System, claim: Claim, *, count: int = 12, seed: int = 0) -> Verdict:
    """Try a claim on `count` draws of growing size."""
    tester = TESTERS.get(claim.kind)
    if tester is None:
        return Unknown(f"no test for `{claim.kind}`")
    target = system
    if claim.kind == "equal" and claim.system is not None:
        target, exactly = claim.system, test_equality(claim.system, claim)
        if not isinstance(exactly, Unknown) or exactly == DIFFERENT:
            return exactly
    rng = np.random.default_rng(seed)
    worst, done, unmet, why = 0.0, 0, 0, "it could not be tried"
    fits = lambda sizes: _holds(target, claim.condition, sizes)  # noqa: E731
    special, streams = telling(target), (*STREAMS, reach(target))
    if claim.kind == "permutation":
        special = [*special, Fraction(0), Fraction(1)]
    along = own_axis(target, claim)
    for attempt in range(6 * count):
        stream = streams[attempt % len(streams)]
        fixed = {**(small_options(target, rng) if attempt % 2 else {}), **fixed_sizes(claim)}
        if along is not None and attempt % 3:  # the claim's own axis is as long as the stream is else
            fixed, stream = {along: stream, **fixed}, STREAMS[attempt % 5]
        try:
            sizes = draw_sizes(target, rng, stream=stream, fixed=fixed, fits=fits, most=ENTRIES)
        except SizeError as error:
            unmet, why = unmet + 1, f"no sizes to test it with: {error.message}"
            if unmet == 2 * len(STREAMS):
                break
            continue
        try:
            trial = _drawn(target, claim, sizes, special if attempt % 2 else [], rng)
            if trial is None:
                why = "no inputs were found that meet its condition"
                continue
            error_size, evidence = tester(trial, claim, rng)
        except SizeError as error:
            if attempt > 4 * count:
                return Unknown(f"it could not be tried: {error.message}")
            continue
        if not error_size <= TOLERANCE:
            return Refuted(f"{evidence}; sizes {_shown(sizes)}", (("error", f"{error_size:.3g}"),))
        worst, done = max(worst, error_size), done + 1
        if done == count:
            break
    return Tested(done, worst, "random inputs, float64") if done else Unknown(why)


def _drawn(
    system: System, claim: Claim, sizes: Sizes, special: list[Fraction], rng: np.random.Generator
) -> Trial | None:
    """Inputs that meet the claim's condition; None if none of those tried does."""
    far = 3.0 if claim.kind == "stable" else 1.0  # what grows at all may do so far from 0 only
    params = trained(system, sizes, claim.condition)
    for attempt in range(REDRAWS):
        spread = ((far,), (0.3, far), (0.3,))[attempt % 3]
        trial = Trial(system, sizes, draw_inputs(system, sizes, rng, claim=claim, spread=spread), params)
        if special:
            _cross(system, claim, trial.inputs, special, rng)
        trial.inputs.update(draw_integers(system, claim, trial.inputs, rng))
        if turns(system) and rng.random() < 0.5:
            trial.inputs.update({n: x.real + 8j * x.imag for n, x in trial.inputs.items() if np.iscomplexobj(x)})
        if _meets(trial, claim):
            return trial
    return None


def _meets(trial: Trial, claim: Claim) -> bool:
    """Do the inputs meet what the condition says of them, at every point?"""
    facts = unshaped(trial.system, claim)
    if not facts:
        return True
    fact = reduce(build.both, facts)
    asked = Tensor("claim.condition", tuple(sorted(fact.free)), "bool", "derived", fact)
    system = replace(trial.system.with_tensors(asked), outputs=(asked.name,))
    met = interpret(system, inputs=trial.inputs, sizes=_named(trial.sizes))["outputs"][asked.name]
    return bool(met.all())


def _cross(
    system: System, claim: Claim, inputs: dict[str, Array], special: list[Fraction], rng: np.random.Generator
) -> None:
    """Give some entries of real inputs values that tell, within the claim's bounds; most where equal ones would tell."""
    bounds, share = bounds_of(system, claim), 0.8 if claim.kind == "permutation" else 0.4
    for name, array in list(inputs.items()):
        if system.tensors[name].dtype == "real" and np.size(array):
            far = rng.choice([float(v) for v in special], np.shape(array))
            limit = bounds.get(name, Bounds())
            fits = (far >= (-np.inf if limit.low is None else limit.low)) & (far <= (np.inf if limit.high is None else limit.high))
            inputs[name] = np.where(fits & (rng.random(np.shape(array)) < share), far, array)


def _shown(sizes: Sizes) -> str:
    return ", ".join(f"|{n}| = {v}" for n, v in sizes.lengths.items() if "." not in n and "@" not in n)


def _holds(system: System, condition: Node | None, sizes: Sizes) -> bool:
    """The conjuncts of a condition that are about sizes alone; those about inputs shape the draw."""
    for fact in build.conjuncts(condition) if condition is not None else ():
        if any(n.op == "read" for n in walk(fact)):
            continue
        value = Evaluation(Run(system, sizes, 0), {}).value(fact, None)
        if not bool(np.all(value.data)):
            return False
    return True


def _distance(a: Array, b: Array) -> float:
    """The largest difference relative to the largest finite entry; equal infinities agree."""
    if a.shape != b.shape:
        return float("inf")
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    finite = np.abs(np.where(np.isfinite(a), a, 0))
    scale = max(1.0, float(finite.max(initial=0.0)))
    with np.errstate(all="ignore"):
        gap = np.where(same, 0.0, np.abs(a - b))
    return float(np.nan_to_num(gap, nan=np.inf).max(initial=0.0)) / scale


def _axis_of(system: System, name: str, index: str) -> int | None:
    axis = system.axis(index)
    return next((k for k, i in enumerate(system.tensors[name].indices) if system.axis(i) == axis), None)


def _causal(trial: Trial, claim: Claim, rng: np.random.Generator) -> tuple[float, str]:
    """Other inputs after several positions in turn: a branch that reads ahead may not be taken at one that is drawn."""
    index, others = claim.args[0], draw_inputs(trial.system, trial.sizes, rng, claim=claim)
    if special := telling(trial.system):
        _cross(trial.system, claim, others, special, rng)
    before, found, length = trial.run(), [], max(trial.sizes[index], 1)
    cuts = rng.permutation(length).tolist()
    # where the length was chosen for a constant (`reach`), that is what lies between the positions before the last and the first
    for cut in (*(cuts[: MOST_CUTS - 1] if length <= max(STREAMS) else [cuts[0], length - 3]), max(length - 2, 0)):
        changed = {}
        for name, other in others.items():
            if (k := _axis_of(trial.system, name, index)) is not None:
                kept, later = np.split(trial.inputs[name], [cut + 1], k)[0], np.split(other, [cut + 1], k)[1]
                changed[name] = np.concatenate([kept, later], k)
        if not _meets(replace(trial, inputs={**trial.inputs, **changed}), claim):
            raise SizeError("untestable", "no other inputs were found that meet its condition")
        after = trial.run(**changed)
        for name in before:
            if (k := _axis_of(trial.system, name, index)) is not None:
                found.append((_distance(*(np.split(x[name], [cut + 1], k)[0] for x in (before, after))), cut))
    worst, cut = max(found, key=lambda f: f[0], default=(0.0, 0))
    return worst, f"changing inputs after {index} = {cut} changes an output up to it"


def _linear(trial: Trial, claim: Claim, rng: np.random.Generator) -> tuple[float, str]:
    name = claim.args[0]
    x, y = trial.inputs[name], rng.standard_normal(trial.inputs[name].shape)
    a, b = 2.0, -3.0
    fx, fy, both = (trial.run(**{name: v}) for v in (x, y, a * x + b * y))
    reached = reached_by(trial.system, name)
    asked = [o for o in both if o in reached] or list(both)  # a constant is not linear
    return max(
        _distance(both[o], a * fx[o] + b * fy[o]) for o in asked
    ), f"f(2 x - 3 y) differs from 2 f(x) - 3 f(y) in `{name}`"


def _moved(trial: Trial, index: str, move: Callable[[Array, int], Array], arrays: dict[str, Array]) -> dict[str, Array]:
    moved = {}
    for name, array in arrays.items():
        own = trial.system.tensors[name].indices
        for k, i in enumerate(own):
            if trial.system.axis(i) == trial.system.axis(index):
                array = move(array, k)
        moved[name] = array
    return moved


def _permutation(trial: Trial, claim: Claim, rng: np.random.Generator) -> tuple[float, str]:
    index = claim.args[0]
    order = rng.permutation(trial.sizes[index])
    move = lambda array, k: np.take(array, order, axis=k)  # noqa: E731
    outputs, moved = trial.run(), trial.run(**_moved(trial, index, move, trial.inputs))
    wanted = _moved(trial, index, move, outputs)
    return max(
        _distance(moved[o], wanted[o]) for o in moved
    ), f"permuting `{index}` by {order.tolist()} does more than permute"


def _shift(trial: Trial, claim: Claim, rng: np.random.Generator) -> tuple[float, str]:
    """Along a causal axis a shift brings in zeros; along others it is circular, by the stated step."""
    index, system = claim.args[0], trial.system
    step = evaluate_size(claim.nodes[0], trial.sizes.options, trial.sizes.lengths) if claim.nodes else 1

    def move(array: Array, k: int) -> Array:
        rolled = np.roll(array, step, axis=k)
        if brings_zeros_in(system, index):
            rolled[(slice(None),) * k + (slice(0, step),)] = 0
        return rolled

    varying = {n: v for n, v in trial.inputs.items() if system.tensors[n].dtype in ("real", "complex")}
    outputs, moved = trial.run(), trial.run(**_moved(trial, index, move, varying))
    wanted = _moved(trial, index, move, outputs)
    worst = 0.0
    for name in moved:
        k = _axis_of(system, name, index)
        part = (slice(None),) * k + (slice(step, None),) if k is not None and brings_zeros_in(system, index) else ()
        worst = max(worst, _distance(moved[name][part], wanted[name][part]))
    return worst, f"shifting `{index}` by {step} does more than shift"


def _sums(trial: Trial, claim: Claim, rng: np.random.Generator) -> tuple[float, str]:
    name, *indices = claim.args
    whole = interpret(_with_output(trial.system, name), inputs=trial.inputs, sizes=_named(trial.sizes))["outputs"][name]
    own = trial.system.tensors[name].indices
    worst = 0.0
    groups = [tuple(indices)] if claim.kind == "rows_sum_to_one" else [(i,) for i in indices]
    for group in groups:
        total = whole.sum(axis=tuple(own.index(i) for i in group))
        filled = total[np.abs(total) > 0] if claim.kind == "rows_sum_to_one" else total  # an empty row is all 0
        worst = max(worst, _distance(filled, np.ones_like(filled)))
    if not np.all(whole >= -TOLERANCE):  # NaN is not
        return float("inf"), f"`{name}` has an entry that is negative, or no number"
    return worst, f"the sums of `{name}` over {', '.join(indices)} are not 1"


def _with_output(system: System, name: str) -> System:
    return replace(system, outputs=(*system.outputs, name) if name not in system.outputs else system.outputs)


def _stable(trial: Trial, claim: Claim, rng: np.random.Generator) -> tuple[float, str]:
    """The difference of two runs that start apart is the product of the step maps, and a state without input must not grow.
    Growth is largest where inputs stay as they are, and at the ends of what they may be."""
    name, stream = claim.args[0], str(trial.system.stream)
    held = {n: _held(trial.system, n, x, stream) for n, x in trial.inputs.items()}
    corner = {n: _at_corner(trial.system, claim, n, x, rng) for n, x in trial.inputs.items()}
    kept = _flat(interpret(trial.system, inputs=trial.inputs, sizes=_named(trial.sizes))["state"])
    if name not in kept:
        raise SizeError("untestable", f"`{name}` is no entry of a state record")
    empty = {n: np.zeros_like(np.asarray(x)) for n, x in kept.items()}
    start = rng.standard_normal(empty[name].shape)
    choices = [trial, *(c for c in (replace(trial, inputs=held), replace(trial, inputs=corner)) if _meets(c, claim))]
    with np.errstate(all="ignore"):
        if is_entrywise(trial.system, name):
            worst = max(_growth(one, name, start, empty) for one in choices)
        else:
            worst = _lasting_growth(choices[rng.integers(len(choices))], name, start, empty)
    return worst, f"two states of `{name}` that start {np.linalg.norm(start):.3g} apart end further apart"


def _held(system: System, name: str, array: Array, stream: str) -> Array:
    """An input as it is at the first position, at all of them."""
    k = _axis_of(system, name, stream)
    return array if k is None else array.take([0], axis=k).repeat(array.shape[k], axis=k)


def _at_corner(system: System, claim: Claim, name: str, array: Array, rng: np.random.Generator) -> Array:
    """A real input that is the same everywhere: at one end of where the claim lets it be, or far out, or 0."""
    if system.tensors[name].dtype != "real":
        return array
    limit = bounds_of(system, claim).get(name, Bounds())
    low, high = (-30.0 if limit.low is None else limit.low), (30.0 if limit.high is None else limit.high)
    inside = min(1e-9, (high - low) / 4)  # a bound that is not reached is one all the same
    return np.full_like(array, rng.choice([low + inside, high - inside, min(max(0.0, low), high)]))


def _growth(trial: Trial, name: str, start: Array, empty: dict[str, Array]) -> float:
    """Of a state whose entries keep to themselves: the largest factor by which one of them has grown, less 1."""
    entry = next(e for e in state_record(trial.system) if e.name == name)
    end = _difference(trial, name, start, empty, (trial.sizes[str(trial.system.stream)],))[-1]
    if entry.tail is not build.ONE:  # more values are kept than the one that is carried on
        start, end = (x.take(-1, entry.position) for x in (start, end))
    return float(np.max(np.abs(end) / np.abs(start), initial=0.0)) - 1.0


def _lasting_growth(trial: Trial, name: str, start: Array, empty: dict[str, Array]) -> float:
    """Of other states the norm: it may rise for a while, as that of a filter does, but not twice as many steps later again.
    The inputs are repeated."""
    sizes = [float(np.linalg.norm(d)) for d in (start, *_difference(trial, name, start, empty, (24, 24, 48)))]
    return sizes[-1] / max(sizes[:-1]) - LASTING if max(sizes[:-1]) else 0.0


def _difference(
    trial: Trial, name: str, start: Array, empty: dict[str, Array], lengths: tuple[int, ...]
) -> list[Array]:
    """Of two runs that begin at 0 and at `start`, how far the states are apart after each of the lengths."""
    system, stream = trial.system, str(trial.system.stream)
    depends = _follow(system, stream)
    sizes = {n: v for n, v in _named(trial.sizes).items() if n not in depends}
    states = [nest({**empty, name: value, "position": 0}) for value in (empty[name], start)]
    found, done = [], 0
    for length in lengths:
        inputs = {n: _repeated(system, n, x, stream, length, done) for n, x in trial.inputs.items()}
        states = [interpret(system, inputs=inputs, sizes=sizes, state=s)["state"] for s in states]
        before, after = (np.asarray(_flat(s)[name]) for s in states)
        found.append(after - before)
        done += length
    return found


def _repeated(system: System, name: str, array: Array, stream: str, length: int, begin: int = 0) -> Array:
    """An input over more positions than were drawn: they come again and again."""
    k = _axis_of(system, name, stream)
    if k is None or not array.shape[k]:
        return array
    places = (begin + np.arange(length)) % array.shape[k]
    return np.asarray(array.take(places, axis=k))


def _follow(system: System, axis: str) -> set[str]:
    """The indices of an axis, and those whose lengths follow from its length."""
    return {i.name for i in system.indices.values()
            if i.axis == axis or (i.size is not None and reads_length(system, i.size, axis))}  # fmt: skip


def _flat(state: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in flatten(state).items() if k != "position"}


def _equal(trial: Trial, claim: Claim, rng: np.random.Generator) -> tuple[float, str]:
    outputs = trial.run()
    left, right = (outputs[n] for n in claim.args)
    shown = ""
    if left.size and left.shape == right.shape:
        at = tuple(int(i) for i in np.unravel_index(int(np.argmax(np.abs(left - right))), left.shape))
        shown = f" at {at}: {left[at]:.6g} and {right[at]:.6g}"
    return _distance(left, right), f"the two sides differ{shown}"


TESTERS: dict[str, Callable[[Trial, Claim, np.random.Generator], tuple[float, str]]] = {
    "causal": _causal,
    "linear": _linear,
    "permutation": _permutation,
    "shift": _shift,
    "rows_sum_to_one": _sums,
    "doubly_stochastic": _sums,
    "stable": _stable,
    "equal": _equal,
}

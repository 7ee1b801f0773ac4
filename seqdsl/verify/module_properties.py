"""Properties of a generated module: values, gradients, steps, packed sequences, cuts, and the future, in float64.

Values are compared with the interpreter; gradients with those of the module of the equations themselves (`recurrent`),
differentiated by torch operation by operation: it goes through the steps themselves, and not by the adjoint that a loop of
the module has, where a gradient is to be differentiated again. float32 is held to float64 within DESIGN 9's tolerance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from seqdsl.ir.initial import initial_values
from seqdsl.ir.interpreter import interpret
from seqdsl.ir.node import walk
from seqdsl.ir.sizes import SizeError, Sizes
from seqdsl.ir.system import System, Tensor
from seqdsl.verify.case import Case, once_for_each_case
from seqdsl.verify.modules import (
    FLOAT32_VALUES,
    FLOAT64_VALUES,
    compare,
    has_state,
    in_float64,
    perturbed,
    relative_rms,
    state_dict,
)
from seqdsl.verify.properties import Check, Differs, cuttable, join, later_changed, lengths_without, literal_run, piece

GRADIENTS = 1e-7  # float64 against float64, in another order
OVERFLOW = 1e30  # where the equations themselves run away, no two orders of computation agree
FLOAT32_SLACK = 20  # inputs are drawn to break things, not to be well conditioned
_KINKS = frozenset("max min maximum minimum relu leaky_relu abs clamp sign step round floor ceil argmax rank".split())


@dataclass(frozen=True)
class Emitted:
    """A system in a form, and the text of its module."""

    system: System
    text: str
    class_name: str
    backend: Any

    def build(self, sizes: Sizes, seed: int) -> Any:
        """The module in float64, its parameters near their initial values, equal for every form of a mixer."""
        import torch

        rng = np.random.default_rng(seed)
        values = {n: perturbed(v, rng) for n, v in initial_values(self.system, sizes, {}).items()}
        module = in_float64(self.backend, self.system, self.text, self.class_name, sizes)
        weights = {
            self.backend.attribute_path(k): torch.as_tensor(np.asarray(v))
            for k, v in state_dict(self.system, sizes, values).items()
        }
        module.load_state_dict(weights, strict=True)
        return module


def _tensors(system: System, arrays: dict[str, Any]) -> list[Any]:
    import torch

    found = [torch.as_tensor(np.array(arrays[t.name]))[None] for t in system.inputs()]
    return [x.requires_grad_(x.is_floating_point() or x.is_complex()) for x in found]


def _tuple(y: Any) -> tuple[Any, ...]:
    return y if isinstance(y, tuple) else (y,)


def _leaves(state: Any) -> list[Any]:
    """The tensors of a record that can have a gradient."""
    if isinstance(state, dict):
        return [x for v in state.values() for x in _leaves(v)]
    return [state] if hasattr(state, "dtype") and (state.is_floating_point() or state.is_complex()) else []


def _loss(tensors: Sequence[Any]) -> Any:
    """A weighted sum of all that comes out; entries that are infinite are left out."""
    import torch

    total = torch.zeros((), dtype=torch.float64)
    for n, x in enumerate(tensors):
        if x.is_complex():
            x = x.real + 0.5 * x.imag
        if x.is_floating_point():
            weight = torch.randn(x.shape, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
            total = total + (weight * torch.where(torch.isfinite(x), x, 0).double()).sum()
    return total


def module_matches(emitted: Emitted) -> Check:
    """Outputs and state are those of the equations."""

    def check(case: Case) -> bool:
        drawn = case.draw(emitted.system)
        if drawn is None:
            return False
        rng = np.random.default_rng(case.seed)
        mismatch = compare(
            emitted.system, emitted.text, emitted.class_name, emitted.backend, drawn[0], rng, harsh=case.harsh,
            tolerance=FLOAT64_VALUES,
        )  # fmt: skip
        if mismatch is not None:
            raise Differs(
                f"{mismatch.what} of the module differs by {mismatch.error:.2g} (relative) at {case.describe(drawn[0])}",
                case,
            )
        return True

    return check


def _grads(
    emitted: Emitted, sizes: Sizes, inputs: dict[str, Any], case: Case, cut: int | None, again: bool = False
) -> dict[str, Any]:
    """Gradients of a loss over outputs and last state; with a cut, of two calls that hand the state on; none where the
    values run away. `again`: such that they could be differentiated."""
    import torch

    system, module = emitted.system, emitted.build(sizes, case.seed)
    leaves, state = _tensors(system, inputs), None
    outputs: list[Any] = []
    ends = (slice(None),) if cut is None else (slice(0, cut), slice(cut, None))
    for part in ends:
        own = leaves if cut is None else _pieces(system, leaves, part)
        if not has_state(system):
            outputs += _tuple(module(*own))
            continue
        y, state = module(*own, state=state, return_state=True)
        outputs.append(_tuple(y))
    flat = outputs if not has_state(system) else _along_stream(system, outputs)
    given = [*flat, *_leaves(state)]
    if any(bool((x.isfinite() & (x.abs() > OVERFLOW)).any()) for x in given if x.dtype != torch.bool):
        return {}
    asked = {t.name: x for t, x in zip(system.inputs(), leaves, strict=True) if x.requires_grad}
    asked |= {f"parameter {n}": p for n, p in module.named_parameters()}
    loss, wanted = _loss(given), [*asked.values()]
    some = wanted if loss.requires_grad else []
    found = torch.autograd.grad(loss, some, create_graph=again, allow_unused=True) if some else [None] * len(wanted)
    pairs = zip(asked, wanted, found, strict=True)
    return {n: (torch.zeros_like(x) if g is None else g).detach().resolve_conj().numpy() for n, x, g in pairs}


@once_for_each_case
def _own_gradients(plain: Emitted, case: Case) -> dict[str, Any]:
    """Those of the equations' own module on what the case draws."""
    drawn = case.draw(plain.system)
    return _grads(plain, *drawn, case, None, again=True) if drawn is not None else {}


def _pieces(system: System, tensors: Sequence[Any], part: slice) -> list[Any]:
    stream = str(system.stream)
    return [piece(system, t.name, x, stream, part, 1) for t, x in zip(system.inputs(), tensors, strict=True)]


def _along_stream(system: System, outputs: Sequence[Sequence[Any]]) -> list[Any]:
    import torch

    found = []
    for k, name in enumerate(system.outputs):
        axes = [n for n, i in enumerate(system.tensors[name].indices) if system.axis(i) == system.stream]
        parts = [o[k] for o in outputs]
        found.append(torch.cat(parts, axes[0] + 1) if len(axes) == 1 and len(parts) > 1 else parts[-1])
    return found


def gradients(emitted: Emitted, plain: Emitted, *, cut: bool = False) -> Check:
    """Gradients are those of the equations' own module, also through a state that is handed on."""
    ties = any(n.op in _KINKS for t in plain.system.derived() if t.rhs is not None for n in walk(t.rhs))

    def check(case: Case) -> bool:
        drawn = case.draw(plain.system)
        if drawn is None or (case.harsh and ties):  # equal entries meet at a kink, where any subgradient is right
            return False
        if cut and (not has_state(emitted.system) or not cuttable(plain.system) or not _all_streamed(plain.system)):
            return False
        sizes, inputs = drawn
        _say_something(plain.system, sizes, case)
        place = case.seed % (sizes[str(plain.system.stream)] + 1) if cut else None
        wanted = _own_gradients(plain, case)
        if not wanted:
            return False
        found = _grads(emitted, sizes, inputs, case, place)
        scale = max((float(np.sqrt(np.mean(np.abs(g) ** 2))) for g in wanted.values() if g.size), default=0.0)
        for name, grad in wanted.items():
            error = relative_rms(found[name], grad)
            size = float(np.sqrt(np.mean(np.abs(grad) ** 2))) if grad.size else 0.0
            error *= max(size, 1e-3) / max(size, 1e-3, 1e-2 * scale)
            if not error <= GRADIENTS:
                where = f"cut at {place}, " if cut else ""
                raise Differs(
                    f"{where}gradient of `{name}` differs by {error:.2g} (relative) at {case.describe(sizes)}", case
                )
        return True

    return check


def _all_streamed(system: System) -> bool:
    return all(sum(system.axis(i) == system.stream for i in system.tensors[n].indices) == 1 for n in system.outputs)


def _expect(case: Case, sizes: Sizes, found: dict[str, Any], wanted: dict[str, Any], what: str, limit: float) -> None:
    for name, value in wanted.items():
        error = relative_rms(np.asarray(found[name]), np.asarray(value))
        if not error <= limit:
            raise Differs(f"{what} `{name}` differs by {error:.2g} (relative) at {case.describe(sizes)}", case)


def _arrays(system: System, outputs: Sequence[Any]) -> dict[str, Any]:
    return {n: x.detach().resolve_conj().numpy()[0] for n, x in zip(system.outputs, outputs, strict=True)}


def steps(emitted: Emitted) -> Check:
    """A prefill and then one step at a time gives what the whole gives, and ends in its state."""

    def check(case: Case) -> bool:
        system = emitted.system
        drawn = case.draw(system)
        if drawn is None or not has_state(system) or not cuttable(system) or not drawn[0][str(system.stream)]:
            return False
        sizes, inputs = drawn
        stream, module = str(system.stream), emitted.build(sizes, case.seed)
        tensors = [x.detach() for x in _tensors(system, inputs)]
        (whole, last), cut = module(*tensors, return_state=True), case.seed % sizes[stream]
        y, state = module(*_pieces(system, tensors, slice(0, cut)), return_state=True)
        parts = [_arrays(system, _tuple(y))]
        for t in range(cut, sizes[stream]):
            here = [_position(system, u, x, t) for u, x in zip(system.inputs(), tensors, strict=True)]
            y, state = module.step(*here, state)
            own = [[system.axis(i) for i in system.tensors[n].indices] for n in system.outputs]
            row = (o.unsqueeze(a.index(stream) + 1) if stream in a else o for o, a in zip(_tuple(y), own, strict=True))
            parts.append(_arrays(system, [*row]))
        wanted = join(system, stream, [_arrays(system, _tuple(whole))])
        _expect(case, sizes, join(system, stream, parts), wanted, f"stepped from {cut}, output", FLOAT64_VALUES)
        after, wanted = ({str(n): x.detach().resolve_conj() for n, x in enumerate(_leaves(s))} for s in (state, last))
        _expect(case, sizes, after, wanted, f"stepped from {cut}, state", FLOAT64_VALUES)
        return True

    return check


def _position(system: System, given: Tensor, x: Any, t: int) -> Any:
    """An input at one position: without the streamed axis, and of length 1 along another index of it."""
    dims = [n + 1 for n, i in enumerate(given.indices) if system.axis(i) == system.stream]
    for dim in dims[1:]:
        x = x.narrow(dim, t, 1)
    return x.select(dims[0], t) if dims else x


def packable(system: System) -> bool:
    """Are packed sequences comparable with the equations of each: every output along the stream, no parameters, and no
    input that is as long as one sequence without being cut with it?"""
    stream = str(system.stream)
    sizes = [system.indices[i].size for t in system.inputs() for i in t.indices]
    tied = any(str(n.attr) == stream for s in sizes if s is not None for n in walk(s) if n.op == "size")
    return cuttable(system) and _all_streamed(system) and not system.params() and not tied


def packed(emitted: Emitted, literal: System) -> Check:
    """Sequences packed one after another, an empty one among them, are each what the equations give for it alone."""

    def check(case: Case) -> bool:
        import torch

        system, stream = emitted.system, str(literal.stream)
        drawn = case.draw(literal)
        if drawn is None or not packable(literal) or (wanted := _each_alone(literal, case)) is None:
            return False
        sizes, inputs = drawn
        ends = _ends(sizes[stream], case)
        module = emitted.build(sizes, case.seed)
        with torch.no_grad():
            y = module(*(x.detach() for x in _tensors(system, inputs)), cu_seqlens=torch.tensor(ends))
        _expect(case, sizes, _arrays(system, _tuple(y)), wanted, f"packed with ends {ends}, output", FLOAT64_VALUES)
        return True

    return check


def _ends(length: int, case: Case) -> list[int]:
    """Where the sequences of a packed batch begin and end."""
    cut = case.seed % (length + 1)
    return [0, cut, cut, length]


@once_for_each_case
def _each_alone(literal: System, case: Case) -> dict[str, Any] | None:
    """The outputs of the equations for each sequence, one after another; None where they say nothing of one so long."""
    drawn, stream = case.draw(literal), str(literal.stream)
    assert drawn is not None
    sizes, inputs = drawn
    ends = _ends(sizes[stream], case)
    given = {**lengths_without(literal, sizes, stream), **sizes.options}
    parts = []
    for a, b in zip(ends, ends[1:], strict=False):
        own = {n: piece(literal, n, x, stream, slice(a, b)) for n, x in inputs.items()}
        try:
            parts.append(interpret(literal, inputs=own, sizes=given)["outputs"])
        except SizeError:
            return None
    return join(literal, stream, parts)


def future(emitted: Emitted) -> Check:
    """Inputs after a position change no output up to it."""

    def check(case: Case) -> bool:
        system, stream = emitted.system, str(emitted.system.stream)
        drawn = case.draw(system)
        if drawn is None or not cuttable(system) or not drawn[0][stream]:
            return False
        sizes, inputs = drawn
        cut, module = case.seed % sizes[stream], emitted.build(sizes, case.seed)
        changed = {n: later_changed(system, n, a, stream, cut + 1) for n, a in inputs.items()}
        parts = []
        for given in (inputs, changed):
            found = _arrays(system, _tuple(module(*_tensors(system, given))))
            parts.append(
                join(system, stream, [{n: piece(system, n, a, stream, slice(0, cut + 1)) for n, a in found.items()}])
            )
        _expect(case, sizes, parts[1], parts[0], f"after a change behind {stream} = {cut}, output", FLOAT64_VALUES)
        return True

    return check


def single(emitted: Emitted, plain: Emitted) -> Check:
    """In float32 a form is as close to the float64 result as the tolerance says, or as the equations' own module is."""

    def check(case: Case) -> bool:
        import torch

        drawn = case.draw(plain.system)
        if drawn is None:
            return False
        sizes, inputs = drawn
        _say_something(plain.system, sizes, case)
        low = [_lower(x.detach()) for x in _tensors(plain.system, inputs)]
        wanted, usual = _exact_and_usual(plain, case)
        with torch.no_grad():
            found = _tuple(emitted.build(sizes, case.seed).float()(*low))
        for name, a, b, c in zip(plain.system.outputs, found, wanted, usual, strict=True):
            if a.dtype != _lower(b).dtype:
                raise Differs(f"output `{name}` is {a.dtype} for float32 inputs at {case.describe(sizes)}", case)
            error, own = (relative_rms(_plain(_higher(x)), _plain(b)) for x in (a, c))
            if not error <= max(FLOAT32_SLACK * FLOAT32_VALUES, FLOAT32_SLACK * own) and not _large(b):
                raise Differs(f"output `{name}` in float32 differs by {error:.2g} at {case.describe(sizes)}", case)
        return True

    return check


@once_for_each_case
def _exact_and_usual(plain: Emitted, case: Case) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """The outputs of the equations' own module for float32 inputs and parameters, in float64 and in float32."""
    import torch

    drawn = case.draw(plain.system)
    assert drawn is not None
    low = [_lower(x.detach()) for x in _tensors(plain.system, drawn[1])]
    with torch.no_grad():
        exact = plain.build(drawn[0], case.seed)
        exact.load_state_dict({n: _higher(_lower(x)) for n, x in exact.state_dict().items()})
        return _tuple(exact(*(_higher(x) for x in low))), _tuple(exact.float()(*low))


def _say_something(system: System, sizes: Sizes, case: Case) -> None:
    """Of no positions equations may say nothing (a fold without an identity): then the interpreter's `SizeError`."""
    if system.stream is not None and not sizes[system.stream]:
        literal_run(system, case)


def _plain(x: Any) -> Any:
    return x[0].resolve_conj().numpy()


def _lower(x: Any) -> Any:
    import torch

    return x.to(torch.complex64) if x.is_complex() else x.float() if x.is_floating_point() else x


def _higher(x: Any) -> Any:
    import torch

    return x.to(torch.complex128) if x.is_complex() else x.double() if x.is_floating_point() else x


def _large(x: Any) -> bool:
    """Has it left the range in which float32 says anything?"""
    return bool(x.numel()) and bool((x.abs() > 1e30).any())


__all__ = ["Emitted", "future", "gradients", "module_matches", "packed", "single", "steps"]

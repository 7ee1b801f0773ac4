"""Mixers whose recurrences have kernels of their own: their values, states and gradients, and their kernels to compile.

Run as a program, under Triton's interpreter, it prints a JSON object per case: relative errors of outputs, last states and
gradients against the torch module in float64. Inputs lie between NaNs, and what kernels leave unwritten is NaN.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

import seqdsl
from backends.triton_kernel.support.piece_kernels import _pieces_kernel
from seqdsl.api import load_backend
from tests.backends.triton_kernel.ahead import TARGETS, answer
from tests.backends.triton_kernel.ahead import compiled as compile_one
from tests.backends.triton_kernel.cases import DTYPES, _guarded
from tests.backends.triton_kernel.processes import ROOT, compile_in, in_pieces, interpret_in, unless_stopped
from tests.support.loops import relative

UNNAMED = ROOT / "tests" / "unnamed"
PYTORCH = ("ring_scan", "_tree_scan", "_tree_fold", "newton_scan", "fused_scan")  # what must not be called


@dataclass(frozen=True)
class Walk:
    """A mixer, by its source or its file, and the lengths of its axes. Numbers are `drawn`: small integers, among which
    there are ties, shares of 1, vectors of length 1, or numbers behind some of -inf. `apart`: inputs of which every second
    entry counts. Pieces of time have `piece` steps at least, of which there are more on a GPU."""

    source: str
    sizes: dict[str, int]
    drawn: str = "normal"
    apart: bool = False
    form: str = "auto"
    pieces: int = 8  # as many are solved side by side
    piece: int = 32

    def program(self) -> Any:
        return seqdsl.load(self.source if "\n" in self.source else str(UNNAMED / f"{self.source}.seq"))


def _walk(source: str, t: int, *, drawn: str = "normal", apart: bool = False, **sizes: int) -> Walk:
    return Walk(source, {"t": t, **sizes}, drawn, apart)


MAX_BACKWARDS = """
mixer max_backwards(x[t,h,c], a[h,c]) -> y[t,h,c]:
    m[|t|,h,c] = 0
    m[t,h,c]   = max(m[t+1] + a, x)
    y[t,h,c]   = m + x
"""
BEST = """
monoid best(x, i):
    combine(a, b):
        x = max(a.x, b.x)
        i = where(a.x >= b.x, a.i, b.i)
    project -> y:
        y = i

mixer best_so_far(x[t,c], w[t,c]) -> y[t,c]:
    index s over t
    y[t,c] = best[s | s <= t](x[s], w[s])
"""
SOFT = """
monoid soft(m, s, v):
    identity = (-inf, 0, 0)
    combine(a, b):
        m = max(a.m, b.m)
        s = a.s * exp(a.m - m) + b.s * exp(b.m - m)
        v = a.v * exp(a.m - m) + b.v * exp(b.m - m)
    project -> y:
        y = v / s

mixer stabilised(z[t,c], v[t,c]) -> y[t,c]:
    index s over t
    one[t,c] = 1 + 0 * z
    y[t,c]   = soft[s | s <= t](z[s], one[s], v[s])
"""
VECTORS = """
monoid vectors(m, u, w[e]):
    identity = (-inf, 0, 0)
    lift(z, v[e]) = (z, 1, v)
    combine(a, b):
        m    = max(a.m, b.m)
        u    = a.u * exp(a.m - m) + b.u * exp(b.m - m)
        w[e] = a.w * exp(a.m - m) + b.w * exp(b.m - m)
    project -> y[e]:
        y[e] = w / u

mixer vector_softmax(z[t,h], v[t,h,e]) -> o[t,h,e]:
    index s over t
    o[t,h,e] = vectors[s | s <= t](z[s], v[s])
"""
CELL = """
mixer cell(x[t,h,c], w[h,c], u[c], b[h]) -> y[t,h,c]:
    z[t,h,c] = sigmoid(x + w * s[t+1] + b)
    s[t,h,c] = (1 - z) * s[t+1] + z * tanh(u * s[t+1] + x) ^ 3 / |c|
    y[t,h,c] = s + x
"""
KEPT = """
mixer kept(x[t,c], f[t,c], u[c]) -> z[t,c]:
    z[t,c] = sigmoid(f + u * z[t-1]) * (z[t-1] - tanh(x)) + tanh(x)
"""
WALKS: dict[str, Walk] = {
    "max, plus": _walk("decaying_max", 37, c=5),
    "max, plus, with ties": _walk("decaying_max", 14, c=70, drawn="integers"),
    "max, plus, in three pieces": _walk("decaying_max", 70, c=2),
    "max, plus, backwards, one decay": Walk(MAX_BACKWARDS, {"t": 35, "h": 2, "c": 3}),
    "max, times": _walk("fading_peak", 37, c=66),
    "max, plus, from relu": _walk("queue_length", 20, c=3, apart=True),
    "log-sum-exp": _walk("soft_path", 37, c=3),
    "log-sum-exp, one position": _walk("soft_path", 1, c=3),
    "log-sum-exp, of nothing at first": _walk("soft_path", 14, c=20, drawn="gaps"),
    "or, and": _walk("latch", 37, c=3),
    "a fold of two fields": _walk("max_plus", 20, c=3),
    "quaternions": _walk("quaternion", 37, i=4, drawn="units"),
    "quaternions, one position": _walk("quaternion", 1, i=4),
    "two positions": _walk("cover", 2, c=3, drawn="shares"),
    "covers": _walk("cover", 70, c=66, apart=True, drawn="shares"),
    "matrices of two by two": _walk("matrix", 20, i=2, j=2, drawn="units"),
    "the best and where it was": _walk("first_best", 37, c=5),
    "the best so far": Walk(BEST, {"t": 20, "c": 5}),
    "a stabilised softmax": Walk(SOFT, {"t": 20, "c": 3}),
    "two states that multiply": _walk("two_species", 70, c=2),
    "a quadratic map": _walk("population", 20, c=3, apart=True),
    "a gate of itself": _walk("self_gate", 20, c=3),
    "a state in a denominator": _walk("soft_saturation", 20, c=3),
    "one position of a nonlinear step": _walk("two_species", 1, c=3),
    "a nonlinear step backwards, with weights": Walk(CELL, {"t": 37, "h": 2, "c": 3}, form="newton"),
    "pieces that are solved": Walk(CELL, {"t": 70, "h": 1, "c": 2}, form="newton", pieces=2),
    "an operand that only the slopes read": Walk(KEPT, {"t": 37, "c": 3}, form="newton"),
    "a nonlinear step at every depth": Walk("deep_cells", {"t": 37, "l": 2, "c": 5}, form="newton"),
    "fields with indices of their own": Walk(VECTORS, {"t": 20, "h": 2, "e": 5}),
}  # fmt: skip
PRECISIONS = dict.fromkeys(("max, plus", "a stabilised softmax", "a gate of itself"), ("float32", "float16", "bfloat16"))
MODULES = ("max, plus", "or, and", "a fold of two fields", "two states that multiply")  # in pieces and packed, and their operators

# What is done wrong: in which case, and what stands in the text in the place of what.
MUTANTS: dict[str, tuple[str, str, str]] = {
    "a tie is not shared": ("max, plus, with ties", "0.5 * ", "1.0 * "),
    "pieces forget what was before": ("max, plus, in three pieces", "range(leading, piece):  # a few", "range(0):  # a few"),
    "pieces forget what is sent back": ("max, plus, in three pieces", "range(leading, piece):\n", "range(0):\n"),
    "pieces are joined in the wrong order": ("quaternions", "+ y_element_now * z_element_left\n                - z_element_now",
                                             "- y_element_now * z_element_left\n                + z_element_now"),
    "a start gets no gradient": ("log-sum-exp", "sequence * D + lane, s0,", "sequence * D + lane, s0 * 0,"),
    "slopes at the state after the step": ("log-sum-exp", "z_at + earlier * along", "z_at + (earlier + 1) * along"),
    "nothing is -inf - -inf": ("log-sum-exp, of nothing at first", 'float("inf"), top, top + _log1p(tl.exp(gap)))',
                               'float("inf"), a - b, top + _log1p(tl.exp(gap)))'),
    "pieces that are not solved": ("pieces that are solved", "if gap <= 1e-6:", "if gap <= 1e6:"),
    "a sum that goes on outside": ("max, plus, backwards, one decay", "tl.where(inside, a_sum + ", "tl.where(own, a_sum + "),
}  # fmt: skip


def built(walk: Walk, backend: str = "triton", change: tuple[str, str] | None = None) -> tuple[Any, ModuleType]:
    """A module, and the Python module that its text, with something put in the place of something else, became."""
    program = walk.program()
    source = program.source(walk.form, backend)
    if change is not None:
        assert change[0] in source, source
        source = source.replace(*change)
    found = load_backend(backend).load_class(source, program.class_name)
    return found(), in_pieces(sys.modules[found.__module__], walk.pieces, walk.piece)


def inputs(walk: Walk, dtype: torch.dtype, extra: int = 0) -> list[Tensor]:
    """Numbers for all inputs, `extra` positions more than the case has."""
    torch.manual_seed(0)
    system, found = walk.program().system(), []
    sizes = {**walk.sizes, "t": walk.sizes["t"] + extra}
    for x in system.inputs():
        shape = [2, *(sizes[system.axis(i)] for i in x.indices)]
        drawn = torch.randn(shape)
        if walk.drawn == "integers":
            drawn = torch.randint(-2, 3, shape).float()
        elif walk.drawn == "shares":
            drawn = torch.rand(shape)
        elif walk.drawn == "units":
            drawn = torch.nn.functional.normalize(drawn, dim=-1)
        elif walk.drawn == "gaps" and not found:
            drawn[:, :6] = -torch.inf
        found.append(drawn > 0.5 if x.dtype == "bool" else drawn.to(dtype))
    return found


def _given(x: Tensor, walk: Walk, device: str) -> Tensor:
    """The same numbers between NaNs."""
    if not x.is_floating_point():
        return x.to(device)
    if not walk.apart:
        return _guarded(x, device)
    wide = torch.full((*x.shape, 2), torch.nan, dtype=x.dtype, device=device)
    wide[..., 0] = x.to(device)
    return wide[..., 0]


def _real(state: Any) -> list[Tensor]:
    """The tensors of a record."""
    return [x for _, x in sorted(state.items()) if isinstance(x, Tensor)]


def run(module: Any, given: list[Tensor], state: dict[str, Any] | None) -> list[Tensor]:
    """Outputs and the state after them, then gradients of a fixed random functional of both."""
    given = [x.detach().requires_grad_(x.is_floating_point()) for x in given]
    if state is None:
        outputs = [module(*given)]
    else:
        state = {n: x.detach().requires_grad_(x.is_floating_point()) if isinstance(x, Tensor) else x for n, x in state.items()}
        output, after = module(*given, state=state, return_state=True)
        outputs = [output, *_real(after)]
    draw = torch.Generator().manual_seed(7)
    weights = [torch.randn(y.shape, dtype=torch.float64, generator=draw).to(y) for y in outputs]
    wanted = [x for x in (*given, *_real(state or {})) if x.requires_grad]
    total = sum(((y * w).sum() for y, w in zip(outputs, weights, strict=True) if y.requires_grad), torch.zeros(()))
    if not total.requires_grad:  # it depends on which entry is the largest, at most
        return [*(y.detach() for y in outputs), *map(torch.zeros_like, wanted)]
    found = torch.autograd.grad(total, wanted, materialize_grads=True, allow_unused=True)
    return [*(y.detach() for y in outputs), *found]


def compare(walk: Walk, dtype: torch.dtype, device: str, change: tuple[str, str] | None = None) -> list[float]:
    """Relative errors of outputs, last states and gradients; PyTorch's functions must not be called."""
    module, text = built(walk, change=change)
    exact, _ = built(walk, "torch")
    assert any(f"fused_{kind}" in vars(text) for kind in ("ring", "fold", "newton", "affine"))
    every = inputs(walk, dtype, extra=3)
    stepped = walk.program().system().stream in walk.sizes and "state" not in _refusal(exact, walk)
    state, given = None, every
    if stepped:
        along = {x.name: x.indices.index("t") + 1 for x in walk.program().system().inputs() if "t" in x.indices}
        names = [x.name for x in walk.program().system().inputs()]
        parts = [[x.narrow(along[n], a, k) if n in along else x for n, x in zip(names, every, strict=True)]
                 for a, k in ((0, 3), (3, walk.sizes["t"]))]  # fmt: skip
        _, state = exact(*(x.double() if x.is_floating_point() else x for x in parts[0]), return_state=True)
        given = parts[1]
    here = {n: x.to(device) if isinstance(x, Tensor) else x for n, x in (state or {}).items()}
    narrow = {n: x.float() if isinstance(x, Tensor) and x.is_floating_point() else x for n, x in here.items()}
    wide = {n: x.double() if isinstance(x, Tensor) and x.is_floating_point() else x for n, x in narrow.items()}
    with without(text, PYTORCH if walk.sizes["t"] > 1 else ()):
        fast = run(module, [_given(x, walk, device) for x in given], narrow if stepped else None)
    real = [x.to(device, torch.float64) if x.is_floating_point() else x.to(device) for x in given]
    slow = run(exact, real, wide if stepped else None)
    return [relative(_finite(a), _finite(b)) for a, b in zip(fast, slow, strict=True)]


def _finite(x: Tensor) -> Tensor:
    """With a number for -inf, which differs from itself by no number."""
    return x.double().nan_to_num(nan=torch.nan, neginf=-10.0)


@contextmanager
def without(text: ModuleType, names: tuple[str, ...]) -> Iterator[None]:
    """While a module lacks some of its functions."""
    before = {n: vars(text)[n] for n in names if n in vars(text)}
    vars(text).update(dict.fromkeys(before))
    yield
    vars(text).update(before)


def _refusal(module: Any, walk: Walk) -> str:
    """Why the mixer cannot be stepped, nothing if it can."""
    system = walk.program().system()
    sizes = {i: n for i, n in walk.sizes.items() if i != "t"}
    try:
        module.init_state(1, **{i: n for i, n in sizes.items() if i in module.init_state.__code__.co_varnames})
    except ValueError as error:
        return f"state: {error} {system.name}"
    return ""


def literal(walk: Walk) -> float:
    """The relative error of the outputs, of one sequence, against the interpreter of the equations."""
    given = inputs(walk, torch.float32)
    names = [x.name for x in walk.program().system().inputs()]
    wanted = walk.program().interpret({n: x[0].double().numpy() if x.is_floating_point() else x[0].numpy()
                                       for n, x in zip(names, given, strict=True)})  # fmt: skip
    found = built(walk)[0](*(x[:1] for x in given))
    return relative(_finite(found[0]), _finite(torch.as_tensor(next(iter(wanted["outputs"].values())))))


CHAOTIC = "mixer chaotic(x[t,c]) -> y[t,c]:\n    y[t,c] = sin(4 * y[t-1] + x)\n"


def solved() -> dict[str, list[float]]:
    """How many sweeps and pieces a nonlinear step took, and how many steps one after another: of one that forgets, and of
    one that does not, whose states are then those of one piece to the last bit."""
    found = {}
    for name, source in (("forgets", CELL), ("does not forget", CHAOTIC)):
        walk = Walk(source, {"t": 100, "h": 1, "c": 1}, form="newton")
        module, text = built(walk)
        given = inputs(walk, torch.float32)
        with torch.no_grad():
            vars(text)["NEWTON_PIECES"] = 2
            pieces, how = module(*given), list(module.newton.values())
            vars(text)["NEWTON_PIECES"] = 8
            found[name] = [*map(float, how), float((module(*given) - pieces).abs().max())]
    return found


def split_errors(name: str) -> list[float]:
    """A sequence in two pieces and a last step, and packed with another, against the torch module in float64."""
    walk = WALKS[name]
    module, exact = built(walk)[0], built(walk, "torch")[0]
    given = inputs(Walk(walk.source, {**walk.sizes, "t": 60}), torch.float32)
    wide = [x.double() if x.is_floating_point() else x for x in given]
    first, state = module(*(x[:, :30] for x in given), return_state=True)
    second, state = module(*(x[:, 30:59] for x in given), state=state, return_state=True)
    last, _ = module.step(*(x[:, 59] for x in given), state)
    packed = module(*(x[:1] for x in given), cu_seqlens=[0, 5, 5, 60])
    pieces = [exact(*(x[:1, a:b] for x in wide)) for a, b in ((0, 5), (5, 60))]
    whole = torch.cat([first, second, last.unsqueeze(1)], 1)
    nothing = module(*(x[:, :0] for x in given))
    found = [(whole, exact(*wide)), (packed, torch.cat(pieces, 1))]
    return [*(relative(a.double(), b.double()) for a, b in found), float(nothing.shape[1])]


def operator_errors(name: str) -> list[float]:
    """0 where what `torch.library.opcheck` tests of an operator holds: schema, derivative, shapes, tracing."""
    walk = WALKS[name]
    module, text = built(walk)
    calls: list[Any] = []
    empty = text._recurrence_empty
    text._recurrence_empty = lambda walk, starts: (calls.append((walk, starts)), empty(walk, starts))[1]
    module(*inputs(Walk(walk.source, {**walk.sizes, "t": 20}), torch.float32))
    text._recurrence_empty = empty
    one, starts = calls[0]
    given = [x.detach().clone().requires_grad_(x.is_floating_point()) for x in (*one.operands, *starts)]
    operator = getattr(getattr(torch.ops, text.OPS), one.plan.name)
    found = torch.library.opcheck(operator, (*given, one.spans, list(one.sizes), list(one.numbers), one.reverse))
    return [float(result != "SUCCESS") for result in found.values()]


def interpreted() -> dict[str, list[float]]:
    """`case dtype` -> errors, from a process in which Triton interprets."""
    return interpret_in("recurrences")


AHEAD = {"max, plus": "decaying_max", "log-sum-exp": "soft_path", "or, and": "latch",
         "quaternions": "quaternion", "two species": "two_species", "self gate": "self_gate"}  # fmt: skip
PACKED = ("max, plus", "quaternions", "two species")
TABLE = Path(__file__).with_name("recurrences.txt")


def compiled(targets: list[str]) -> Iterator[dict[str, Any]]:
    """What every kernel of these recurrences takes, in float32."""
    for name, source in AHEAD.items():
        _, text = built(Walk(source, {}))
        plan = next(x for n, x in vars(text).items() if n.endswith("_plan"))
        for which in [w for w in ("ends", "states", "slopes", "adjoint") if getattr(plan, w) is not None]:
            kernel = getattr(plan, which)
            loads = sum(plan.moves) + (2 * plan.held if which in ("slopes", "adjoint") else 0)
            walk = text._Walk(plan, (), None, [], [], False)
            constants = {"STEPS": walk.steps(loads), "BD": text.RECURRENCE_LANES}
            constants |= {n: True for n in kernel.arg_names if n.startswith("WANTS_")}
            tensors = kernel.arg_names[: kernel.arg_names.index("T")]
            kind = "*i1" if plan.adjoint is None else "*fp32"
            for target, packed in product(targets, (False, True) if name in PACKED else (False,)):
                types = {**dict.fromkeys(tensors, kind), "table": "*i32"}
                own = {"PACKED": packed} if packed else {"PACKED": packed, "table": None}
                used = compile_one(kernel, types, constants | own, target, ("D", "along"), num_warps=text.RECURRENCE_WARPS)
                yield {"name": f"{name}{', packed,' if packed else ''} {which} {target}", **used}
    for target in targets:
        types, constants = {"spans": "*i64", "table": "*i32"}, {"FLIPPED": True, "BN": 64}
        yield {"name": f"pieces {target}", **compile_one(_pieces_kernel, types, constants, target, (), num_warps=4)}


def compiled_report(targets: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """`kernel target` -> what it takes, from a process that compiles."""
    return compile_in("recurrences", "--compile", ",".join(targets))


if __name__ == "__main__":
    answer(compiled, compiled_report, TABLE, tuple(TARGETS))
    torch.use_deterministic_algorithms(True)  # which fills fresh memory with NaN
    for name, case in WALKS.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        if name in MODULES:
            print(json.dumps([f"{name}, in pieces", split_errors(name)]), flush=True)
            print(json.dumps([f"{name}, its operator", operator_errors(name)]), flush=True)
        print(json.dumps([f"{name}, literally", [literal(case)]]), flush=True)
        for dtype in PRECISIONS.get(name, ("float32",)):
            print(json.dumps([f"{name}, {dtype}", compare(case, DTYPES[dtype], "cpu")]), flush=True)
    for name, numbers in solved().items() if not sys.argv[1:] or "solved" in sys.argv[1:] else ():
        print(json.dumps([name, numbers]), flush=True)
    for name, (wrong, *change) in MUTANTS.items():
        if not sys.argv[1:] or name in sys.argv[1:]:
            broken = unless_stopped(partial(compare, WALKS[wrong], torch.float32, "cpu", (change[0], change[1])))
            print(json.dumps([name, broken]), flush=True)

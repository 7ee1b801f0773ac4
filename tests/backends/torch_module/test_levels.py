"""Modules that take a graph level by level against the interpreter and the recurrent ones: values, states and gradients, over
random graphs; and mutants of the support function, which these comparisons must tell apart."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from seqdsl.forms import derive
from seqdsl.ir.interpreter import interpret
from seqdsl.ir.system import System
from seqdsl.semantics import load_system
from tests.backends.torch_module.harness import as_tuple, emit_module, gap, load_class, module_of
from tests.forms.test_levels import GRAPHS as EVERY
from tests.forms.test_levels import TESTS
from tests.forms.test_wavefront import is_steppable

GRAPHS = {**EVERY, "watershed": (TESTS / "unnamed" / "watershed.seq").read_text()}
SIZES = [(0, 0), (1, 0), (1, 1), (4, 0), (7, 5), (12, 20)]


def inputs_of(system: System, nodes: int, edges: int, *, batch: int = 2, seed: int = 0) -> list[torch.Tensor]:
    """Normal numbers, and edges from and to anywhere, some of them off the axis; each sequence has its own."""
    rng, found = np.random.default_rng(seed), []
    for t in system.inputs():
        shape = [batch, *({"n": nodes, "m": nodes, "a": edges, "b": edges}.get(i, 3) for i in t.indices)]
        if t.dtype == "int":
            found.append(torch.tensor(rng.integers(-1, nodes + 1, shape)))
        elif t.dtype == "bool":
            found.append(torch.tensor(rng.random(shape) < 0.2))
        else:
            found.append(torch.tensor(rng.standard_normal(shape)).requires_grad_())
    return found


def gradients(outputs: tuple[torch.Tensor, ...], inputs: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    loss = sum((y * torch.arange(1, y.numel() + 1).view_as(y).cos()).sum() for y in outputs)
    asked = [x for x in inputs if x.requires_grad]
    return torch.autograd.grad(loss, asked, allow_unused=True, materialize_grads=True)


def modules(text: str) -> tuple[System, Any, Any]:
    system = load_system(text)
    return system, *(module_of(derive(system, form).system, form) for form in ("wavefront", "recurrent"))


@pytest.mark.parametrize("name", GRAPHS)
def test_values_and_gradients(name: str) -> None:
    system, leveled, stepped = modules(GRAPHS[name])
    for seed, (nodes, edges) in enumerate(SIZES):
        inputs = inputs_of(system, nodes, edges, seed=seed)
        outputs = found, wanted = as_tuple(leveled(*inputs)), as_tuple(stepped(*inputs))
        for b in range(2):
            own = {t.name: x[b].detach().numpy() for t, x in zip(system.inputs(), inputs, strict=True)}
            values = interpret(system, inputs=own)["outputs"].values()
            for ys in outputs:
                assert max(gap(y[b], torch.tensor(v)) for y, v in zip(ys, values, strict=True)) < 1e-12
        for a, b in zip(gradients(found, inputs), gradients(wanted, inputs), strict=True):
            assert gap(a, b) < 1e-11, (nodes, edges)


@pytest.mark.parametrize("name", [n for n, text in GRAPHS.items() if is_steppable(load_system(text))])
def test_a_state_is_handed_on(name: str) -> None:
    """Between the form and the equations, both ways, and with its gradient."""
    system, leveled, stepped = modules(GRAPHS[name])
    inputs = inputs_of(system, 9, 14)
    whole, end = stepped(*inputs, return_state=True)
    whole = as_tuple(whole)
    wanted = gradients(whole, inputs)
    for cut in (0, 1, 4, 9):
        first = [x[:, :cut] if system.stream in t.indices else x for t, x in zip(system.inputs(), inputs, strict=True)]
        rest = [x[:, cut:] if system.stream in t.indices else x for t, x in zip(system.inputs(), inputs, strict=True)]
        for before, after in ((leveled, leveled), (leveled, stepped), (stepped, leveled)):
            start, state = before(*first, return_state=True)
            found, last = after(*rest, state=state, return_state=True)
            joined = tuple(torch.cat(pair, 1) for pair in zip(as_tuple(start), as_tuple(found), strict=True))
            assert max(map(gap, joined, whole)) < 1e-12
            assert gap(last, end) < 1e-12
            for a, b in zip(gradients(joined, inputs), wanted, strict=True):
                assert gap(a, b) < 1e-11, cut


MUTANTS = {
    "a level too early": ("depth + 1\n    if found", "depth\n    if found"),
    "levels in the opposite order": ("order = level.argsort(stable=True)", "order = (-level).argsort(stable=True)"),
    "the first sequence's graph for all": ("own = [p[0] * time + p[1] for p in pairs]", "own = [p[1] for p in pairs]"),
    "what lies outside wraps": ("(at >= past) & (at < past + time)", "(at < past + time)"),
    "what came before is not counted": ("pairs[g][0] * time + at - past", "pairs[g][0] * time + at"),
    "nothing is sent back to what is read": ("back[s].index_add_(0, at, part)", "back[s].index_add_(0, at, 0 * part)"),
    "sent back to the last pair alone": ("back[s].index_add_(0, at, part)", "back[s][at] += part"),
    "an adjoint that goes upwards": ("for level in reversed(range(len(plan.spans))):", "for level in range(len(plan.spans)):"),
    "operands at pairs in the order of the text": ("list(pairs[g][:, by[g]])", "list(pairs[g])"),
    "a maximum whose gradient goes to the last": ('hit, "amin")', 'hit % len(x), "amax")'),
    "pairs of one key too many": ("right=True).flatten() - first", "right=True).flatten() - first + 1"),
}  # fmt: skip


def passes(change: tuple[str, str]) -> bool:
    """Do the comparisons above hold for the support functions with a change?"""
    for name in ("states on edges", "longest path", "edges"):
        system = load_system(GRAPHS[name])
        code = emit_module(derive(system, "wavefront").system, class_name="M", form="wavefront")
        if change[0] not in code:
            continue
        try:
            found = outcome(system, load_class(code.replace(*change), "M")())
        except (IndexError, RuntimeError, ValueError):
            return False
        if max(map(gap, found, outcome(system, module_of(system)))) > 1e-9:
            return False
    return True


def outcome(system: System, module: Any) -> list[torch.Tensor]:
    """Values and gradients; where there is a state, of two pieces, and with equal weights of edges."""
    inputs = inputs_of(system, 9, 25)
    if "w" in [t.name for t in system.inputs()] and len(system.outputs) == 1:
        inputs[-1] = torch.ones_like(inputs[-1]).requires_grad_()
    y = as_tuple(module(*inputs))
    if not is_steppable(system):
        return [*y, *gradients(y, inputs)]
    _, state = module(*(x[:, :4] if k == 0 else x for k, x in enumerate(inputs)), return_state=True)
    rest = as_tuple(module(*(x[:, 4:] if k == 0 else x for k, x in enumerate(inputs)), state=state))
    return [*y, *rest, *gradients((*y, *rest), inputs)]


def test_the_functions_themselves_pass() -> None:
    assert passes(("def levels(", "def levels("))


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_are_caught(name: str) -> None:
    assert not passes(MUTANTS[name])


@pytest.mark.parametrize("name", ["states on edges", "mask", "parents"])
def test_numbers_are_mapped_and_shapes_are_known_without_any(name: str) -> None:
    system, leveled, stepped = modules(GRAPHS[name])
    inputs = [x.detach() for x in inputs_of(system, 6, 6, batch=1)]
    many = [torch.stack([x, 2 * x]) if x.is_floating_point() else x for x in inputs]
    dims = tuple(0 if x.is_floating_point() else None for x in inputs)
    found = as_tuple(torch.vmap(leveled, dims)(*many))
    wanted = as_tuple(stepped(*(2 * x if x.is_floating_point() else x for x in inputs)))
    assert max(gap(a[1], b) for a, b in zip(found, wanted, strict=True)) < 1e-12
    shapes = [y.shape for y in as_tuple(leveled(*(x.to("meta") for x in inputs)))]
    assert shapes == [y.shape for y in wanted]


def test_second_derivatives() -> None:
    system, leveled, stepped = modules(GRAPHS["states on edges"])
    inputs, seconds = inputs_of(system, 5, 5, batch=1), []
    asked = [x for x in inputs if x.requires_grad]
    for module in (leveled, stepped):
        loss = sum((y**2).sum() for y in as_tuple(module(*inputs)))
        first = torch.autograd.grad(loss, asked, create_graph=True)
        seconds.append(torch.autograd.grad(sum((g**2).sum() for g in first), asked))
    assert max(gap(a, b) for a, b in zip(*seconds, strict=True)) < 1e-10

"""What compilers are told of every operator and what they make of modules, under Triton's interpreter.

Run as a program it prints one JSON pair for each: 0 for what `torch.library.opcheck` tests of an operator and finds right
(schema, derivative, shapes, tracing), the relative errors of a module that is traced as one graph, with its gradients, and
of one that is exported for any length, or what the host waits for in it. Entry points elsewhere: `OPERATORS`, `MODULES`,
`interpreted`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

import seqdsl
from tests.backends.triton_kernel import cases, reads, recurrences
from tests.backends.triton_kernel.processes import interpret_in
from tests.bench.gpu import SOURCES
from tests.support.loops import relative

# The operators that are written beforehand, by the call of a function that launches them.
OPERATORS: dict[str, tuple[str, str, cases.Case]] = {
    "scan": ("fused_scan", "_scan", cases.Scan((2, 5, 3), (2, 5, 3))),
    "scan backwards": ("fused_scan", "_scan", cases.Scan((2, 5, 3), (2, 5, 3), plain=True, reverse=True, start=False)),
    "linear attention, a decay for each head": ("fused_linear_attention", "_attend", cases.Attend(1, 70, 1, 4, 3, gate=1)),
    "linear attention, a decay for each key": ("fused_linear_attention", "_attend", cases.Attend(1, 70, 1, 4, 3, gate=4)),
    "linear attention, many keys, read before": (
        "fused_linear_attention", "_attend", cases.Attend(1, 5, 1, 70, 3, gate=70, options={"strict": True})),
    "linear attention, plain decays": (
        "fused_linear_attention", "_attend", cases.Attend(1, 5, 1, 4, 3, gate=1, plain=True, start=False)),
    "feedback, a decay for each head": ("fused_solve", "_solve", cases.Solve(1, 70, 1, 4, 3, gate=1)),
    "feedback, a decay for each key, two ranks": ("fused_solve", "_solve", cases.Solve(1, 5, 1, 4, 3, gate=4, ranks=2)),
    "feedback and reads, a decay for each head": ("fused_solve_read", "_ask", cases.SolveRead(1, 5, 1, 4, 3, gate=1)),
    "feedback and reads, a decay for each key": (
        "fused_solve_read", "_ask", cases.SolveRead(1, 70, 1, 4, 3, gate=4, start=False)),
    "reads of a state with any decay": ("fused_read", "_read", cases.Read(1, 5, 1, 4, 3, (1, 5, 1, 4, 3))),
    "reads, two factors": ("fused_read", "_read", cases.Read(1, 5, 1, 4, 3, (1, 5, 1, 1, 3), (1, 1, 1, 4, 3), strict=True)),
    "a factor for each row": ("fused_rows", "_rows_scale", cases.Rows((2, 5, 3), (2, 5, 1))),
}  # fmt: skip


@dataclass(frozen=True)
class Traced:
    """A mixer, and the lengths of its other axes."""

    source: str
    sizes: dict[str, int] = field(default_factory=dict)
    mixer: str | None = None
    form: str = "auto"

    def program(self) -> Any:
        file = recurrences.UNNAMED / f"{self.source}.seq"
        return seqdsl.load(str(file) if "\n" not in self.source and file.exists() else self.source, self.mixer)


# Of each class whose kernels are written beforehand or for a step; those of groups and windows are in `sequences`.
MODULES: dict[str, Traced] = {
    "hgrn": Traced("hgrn", {"c": 3}),
    "mamba's scan": Traced("mamba", {"d": 3, "n": 2}, "selective_scan"),
    "retention": Traced("retention", {"h": 1, "d": 4, "e": 3}),
    "gla": Traced("gla", {"h": 1, "d": 4, "e": 3}),
    "a decay for each column": Traced("column_decay", {"h": 1, "d": 4, "e": 3}),
    "gated delta rule": Traced("gated_delta_rule", {"h": 1, "d": 4, "e": 3}),
    "kda": Traced(SOURCES["kda"], {"h": 1, "d": 4, "e": 3}),
    "attention": Traced(reads.READS["causal"].source, {"h": 1, "d": 4, "e": 3}),
    "attention in a window": Traced(reads.READS["window"].source, {"h": 1, "d": 4, "e": 3}),
    "max, plus": Traced("decaying_max", {"c": 3}),
    "a fold of two fields": Traced("max_plus", {"c": 3}),
    "two states that multiply": Traced("two_species", {"c": 2}),
    "a nonlinear step that forgets": Traced(recurrences.KEPT, {"c": 2}, form="newton"),
}
# Much like another one: only under --deep.
DEEP = frozenset({"retention", "kda", "a decay for each column", "attention in a window", "two states that multiply",
                  "scan backwards", "linear attention, plain decays", "feedback, a decay for each key, two ranks",
                  "reads, two factors"})  # fmt: skip


def operator_errors(name: str) -> list[float]:
    """0 for each test of an operator that it passes."""
    file, attribute, case = OPERATORS[name]
    support = import_module(f"backends.triton_kernel.support.{file}")
    operator, seen = getattr(support, attribute), []
    setattr(support, attribute, lambda *given: (seen.append(given), operator(*given))[1])
    torch.manual_seed(0)
    case.fast()(*(x if x is None else x.requires_grad_() for x in case.inputs()))
    setattr(support, attribute, operator)
    given = [x.detach().clone().requires_grad_(x.is_floating_point()) if isinstance(x, Tensor) else x for x in seen[0]]
    signs = 4 if attribute == "_attend" else None  # which are no operands that anything is learned by
    given = [x.detach() if k == signs and isinstance(x, Tensor) else x for k, x in enumerate(given)]
    return [float(result != "SUCCESS") for result in torch.library.opcheck(operator, tuple(given)).values()]


def inputs(case: Traced, time: int) -> list[Tensor]:
    """Shares between 0 and 1 as logarithms or as they are: any mixer takes them."""
    torch.manual_seed(1)
    system = case.program().system()
    shapes = [(2, *(time if system.axis(i) == system.stream else case.sizes[system.axis(i)] for i in x.indices))
              for x in system.inputs()]  # fmt: skip
    return [-torch.rand(shape) if case.source != "hgrn" else torch.rand(shape) for shape in shapes]


def module_errors(case: Traced) -> list[float]:
    """Traced as one graph, with gradients, and exported for any length, against the module itself."""
    program = case.program()
    module, given = program.module(case.form, "triton"), [x.requires_grad_() for x in inputs(case, 9)]

    def both(run: Any) -> list[Tensor]:
        y = run(*given)
        return [y, *torch.autograd.grad(y, given, torch.ones_like(y))]

    wanted = both(module)
    found = both(torch.compile(module, backend="aot_eager", fullgraph=True))
    time = torch.export.Dim("time", min=3, max=4096)  # of 2, all but one would be of length 1, which torch builds in
    system = program.system()
    dims = [{1 + k: time for k, i in enumerate(x.indices) if system.axis(i) == system.stream} for x in system.inputs()]
    exported = torch.export.export(module, tuple(x.detach() for x in given), dynamic_shapes=(*dims,)).module()
    longer = inputs(case, 70)
    with torch.no_grad():
        again, long = exported(*longer), module(*longer)
    return [relative(a, b) for a, b in zip([*found, again], [*wanted, long], strict=True)]


WAITS = ("item", "tolist", "cpu", "numpy", "nonzero", "__bool__", "__float__", "__int__", "__index__")


@contextmanager
def no_waits() -> Iterator[None]:
    """While nothing may ask for a number of a tensor: on a GPU the host would wait for it."""
    before = {name: getattr(Tensor, name) for name in WAITS}

    def refused(name: str) -> Any:
        def refuse(*given: Any, **named: Any) -> Any:
            raise RuntimeError(f"the host waits for `{name}`")

        return refuse

    for name in WAITS:
        setattr(Tensor, name, refused(name))
    try:
        yield
    finally:
        for name, method in before.items():
            setattr(Tensor, name, method)


def waits(case: Traced) -> str:
    """What the host waits for in a module, forward and backward, of one sequence and of packed ones with their states, unless
    these are caches: it must know how long they are; "" is nothing."""
    program = case.program()
    module, given = program.module(case.form, "triton"), [x[:1].requires_grad_() for x in inputs(case, 70)]
    text = sys.modules[type(module).__module__]
    known = [n for n in ("_packed_with_states", "_packed_together") if n in vars(text)]
    vars(text).update({n: lambda *some: True for n in known})  # as on a GPU, where one call takes all sequences
    states = "_packed_with_states" in known and "_apart" not in vars(text)
    try:
        with no_waits():
            found = [module(*given)]
            if known:
                more = module(*given, cu_seqlens=torch.tensor([0, 3, 3, 70]), return_state=states)
                found += [more[0], *(x for x in more[1].values() if isinstance(x, Tensor))] if states else [more]
            real = [y for y in found if y.requires_grad]
            torch.autograd.grad(real, given, [torch.ones_like(y) for y in real], allow_unused=True)
    except RuntimeError as error:
        return str(error)
    return ""


def step_errors() -> list[float]:
    """One position of gla, traced as one graph and exported."""
    module = seqdsl.load("gla").module(backend="triton")
    now = [-torch.rand(2, 1, n) for n in (4, 4, 3, 4)]
    with torch.no_grad():
        _, state = module(*(x[:, None][:, :0] for x in now), return_state=True)

        class Step(torch.nn.Module):
            def forward(self, *given: Tensor) -> Tensor:
                found: Tensor = module.step(*given, state)[0]
                return found

        wanted = Step()(*now)
        traced = torch.compile(Step(), backend="aot_eager", fullgraph=True)
        exported = torch.export.export(Step(), (*now,)).module()
        return [relative(run(*now), wanted) for run in (traced, exported)]


def interpreted(deep: bool) -> dict[str, Any]:
    """`operator` or `module` -> what was found, from a process in which Triton interprets."""
    found = [name for name in (*OPERATORS, *MODULES) if deep or name not in DEEP]
    return interpret_in("operators", *found, *(f"{name}, waits" for name in MODULES), "a step")


def main(names: list[str]) -> None:
    for name in OPERATORS:
        if not names or name in names:
            print(json.dumps([name, operator_errors(name)]), flush=True)
    for name, case in MODULES.items():
        if not names or name in names:
            print(json.dumps([name, module_errors(case)]), flush=True)
    for name, case in MODULES.items():
        if not names or f"{name}, waits" in names:
            print(json.dumps([f"{name}, waits", waits(case)]), flush=True)
    if not names or "a step" in names:
        print(json.dumps(["a step", step_errors()]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])

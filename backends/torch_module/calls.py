"""The methods that call the computation: `forward`, for one sequence or packed ones, and `step`, for one position.

Entry points: `forward`, `step`.
"""

from __future__ import annotations

from seqdsl.ir.system import System, Tensor

from . import ranks
from .context import Block
from .layout import docstring
from .names import Names, attribute, quoted, tuple_text
from .packed import packing
from .prologue import Stepping, stepping
from .target import Target

FORWARD = "The outputs; with `return_state` the state as well. `cu_seqlens`: ends of packed sequences."


def signature(system: System, arguments: dict[str, str]) -> list[str]:
    """A parameter of a method for each input."""
    return [f"{arguments[t.name]}: Tensor" for t in system.inputs()]


def call(function: str, layer: bool, options: dict[str, str], arguments: list[str], more: list[str]) -> str:
    """The call of the computation: a method of a layer, else a function, which is told the options."""
    name = f"self._{function}" if layer else function
    given = [] if layer else [f"{v}=self.{attribute(o)}" for o, v in options.items()]
    return f"{name}({', '.join([*arguments, *more, *given])})"


def streamed(system: System, tensor: Tensor) -> int | None:
    """The dimension of the streamed axis, the batch in front."""
    return next((k + 1 for k, i in enumerate(tensor.indices) if system.axis(i) == system.stream), None)


def all_streamed(system: System, tensor: Tensor) -> tuple[int, ...]:
    """The dimensions of the streamed axis: two of them in a[t,s] with `index s over t`."""
    return tuple(k + 1 for k, i in enumerate(tensor.indices) if system.axis(i) == system.stream)


def forward(
    out: Block, system: System, function: str, layer: bool, options: dict[str, str], arguments: dict[str, str], target: Target
) -> None:
    """The method for whole sequences: packed ones go through one call where that knows their ends, else one by one."""
    out.add(
        f"def forward(self, {', '.join([*signature(system, arguments), '*', 'state: Any = None'])}, "
        f"return_state: bool = False, cu_seqlens: Any = None{', group: Any = None' if ranks.crosses(system) else ''}) -> Any:"
    )
    pieces = ranks.crosses(system)
    out.lines += docstring(ranks.FORWARD if pieces else [FORWARD], out.indent + 1)
    dims = [str(all_streamed(system, t)) for t in system.inputs()]
    results = [str(streamed(system, system.tensors[o])) for o in system.outputs]
    names = list(arguments.values())
    more = ["state=state", "return_state=return_state", *([f"{ranks.GROUP}={ranks.GROUP}"] if pieces else [])]
    if system.stream is not None:
        how = packing(system, stepping(system), target)
        more += [] if how.refusal else ["cu_seqlens=cu_seqlens"]
        test = "_packed_together({}, cu_seqlens, state, return_state)"
        test = test if how.stateless else "_packed_with_states({}, cu_seqlens, state)"
        test = "" if how.refusal else f" and not {test.format(tuple_text(names))}"
        out.add(f"    if cu_seqlens is not None{test}:")
        run = Names({*names, ranks.GROUP}).fresh("run") if pieces else "self.forward"
        if pieces:
            out.add(f"        def {run}(*pieces: Tensor, **more: Any) -> Any:")
            out.add(f"            return self.forward(*pieces, **more, {ranks.GROUP}={ranks.GROUP})")
            out.add("")
        out.add(
            f"        return _run_packed({run}, {tuple_text(names)}, {tuple_text(dims)}, "
            f"{tuple_text(results)}, cu_seqlens, state, return_state)"
        )
    out.add(f"    return {call(function, layer, options, names, more)}")


def step(
    out: Block,
    system: System,
    functions: list[str],
    layer: bool,
    options: dict[str, str],
    arguments: dict[str, str],
    steps: Stepping,
    target: Target,
) -> None:
    """The method for one position: inputs get a stream of length 1, and outputs lose it."""
    names = [arguments[t.name] for t in system.inputs()]
    out.add(f"def step(self, {', '.join([*signature(system, arguments), 'state: Any'])}) -> Any:")
    out.add('    """One position: the outputs there, and the new state. Inputs lack the streamed axis."""')
    if steps.refusal:
        out.add(f"    raise ValueError({quoted(f'{system.name} cannot be stepped: {steps.refusal}')})")
        return
    given = [
        n if (d := streamed(system, t)) is None else f"{n}.unsqueeze({d})"
        for n, t in zip(names, system.inputs(), strict=True)
    ]
    more = ["state=state", "return_state=True", *([ranks.ALONE] if ranks.crosses(system) else [])]
    called = call(functions[0], layer, options, given, more)
    if target.step is not None and len(functions) > 1:
        run = Names({*names, "result"}).fresh("run")
        whole, alone = (f"self._{f}" if layer else f for f in functions)
        test = target.step.chains.test(target.step.chains.found.system, names)
        out.add(f"    {run} = {alone} if {test} else {whole}")
        called = run + called[called.index("(") :]
    out.add(f"    result, state = {called}")
    dims = [streamed(system, system.tensors[o]) for o in system.outputs]
    if len(dims) == 1:
        out.add(f"    return {'result' if dims[0] is None else f'result.select({dims[0]}, 0)'}, state")
    else:
        parts = [f"result[{k}]" if d is None else f"result[{k}].select({d}, 0)" for k, d in enumerate(dims)]
        out.add(f"    return ({', '.join(parts)}), state")

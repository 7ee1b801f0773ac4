"""The generated file: header, functions it takes along, the mixer's function, and its `nn.Module`.

A mixer without parameters is a plain function that the class wraps; one with parameters computes in a method. Options
are fixed when the module is built, sizes that no parameter needs are free at each call. Entry point: `emit_module`.
"""

from __future__ import annotations

from dataclasses import dataclass

from seqdsl.ir import build
from seqdsl.ir.node import Node, walk
from seqdsl.ir.state import needed
from seqdsl.ir.system import System, Tensor, sources

from . import ranks
from .calls import forward, signature, step, streamed
from .context import Block, Context
from .function import input_names, new_length, write_body
from .inlining import SUPPORT_FUNCTIONS, available, inlined
from .layout import docstring, wrapped
from .names import Names, attribute, method, quoted, safe
from .packed import packs
from .parameters import write_parameters
from .polish import imports, tidy, used_names
from .prologue import Stepping, stepping
from .sizes import size_value
from .target import TORCH, Target


def attribute_path(path: str) -> str:
    """`o.q.weight` as attributes; the number of a layer, `x.0.norm`, stays one."""
    return ".".join(p if p.isdecimal() else attribute(p) for p in path.split("."))


@dataclass(frozen=True)
class _Built:
    """What `__init__` takes: lengths of axes by name, and options with their defaults."""

    axes: dict[str, str]
    options: dict[str, str]


def emit_module(
    system: System,
    *,
    class_name: str,
    header: str = "",
    form: str = "",
    stepper: System | None = None,
    target: Target = TORCH,
) -> str:
    """The text of a Python file with one class. `stepper` is the system that `step` runs, where the target's `step` can,
    if not `system` itself."""
    same = stepper is None or stepper is system or ranks.crosses(system)  # a step of one rank alone is one of the same code
    stepper = None if stepper is None or same else needed(stepper)
    system = needed(system)
    class_name = safe(class_name)
    layer = bool(system.params())
    arguments = input_names(system, target)
    called = {class_name, *arguments.values(), "result", "run"}  # where methods call the function
    names = Names({*called, *SUPPORT_FUNCTIONS, *target.names()})
    function = method(system.name) if layer else names.fresh(system.name)
    built = _built(system, layer, set(arguments.values()))
    runs = [(function, system)]
    if stepper is not None:
        runs.append((names.fresh(f"{system.name}_step"), stepper))
    targets = [target, target.step or target]
    bodies = [_function(one, name, layer, built, arguments, t) for (name, one), t in zip(runs, targets, strict=False)]
    steps = stepping(runs[-1][1])
    cls = _class(
        system, class_name, [n for n, _ in runs], layer, built, arguments, steps, form, bodies if layer else [], target
    )
    generated = wrapped(tidy("\n\n\n".join([*([] if layer else bodies), cls])))
    written = target.text()
    used = used_names(generated) | used_names(written)
    taken, beside = inlined(used & available())
    body = "\n\n\n".join(p for p in (taken, written, generated) if p)
    needed_imports = "\n\n".join(p for p in (imports(used | beside), target.imports(used)) if p)
    return _header(system, header, form, needed_imports) + "\n\n\n" + body + "\n"


def _header(system: System, header: str, form: str, needed: str) -> str:
    lines = [line if line.startswith("#") else f"# {line}" for line in header.splitlines()]
    lines += docstring([*system.doc, *(["Form: " + form + "."] if form else [])] or [system.name], 0)
    lines += [
        "",
        "from __future__ import annotations",
        "",
        needed,
    ]
    return "\n".join(lines)


def _sizes_in(node: Node) -> set[str]:
    return {str(n.attr).rstrip("'") for n in walk(node) if n.op == "size"}


def _built(system: System, layer: bool, taken: set[str]) -> _Built:
    """The axes whose lengths parameters and defaults need."""
    names = Names({"device", "dtype", *SUPPORT_FUNCTIONS, *taken})
    options = {name: names.fresh(name) for name in system.options}
    if not layer:
        return _Built({}, options)
    pending = [i.rstrip("'") for t in system.params() for i in t.indices]
    pending += [s for t in system.params() if t.rhs is not None for s in _sizes_in(t.rhs)]
    pending += [s for default in system.options.values() if default is not None for s in _sizes_in(default)]
    seen: set[str] = set()
    needed: set[str] = set()
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        index = system.index(name)
        if index.size is not None:
            pending += sorted(_sizes_in(index.size))
        elif index.axis != name:
            pending.append(index.axis)
        else:
            needed.add(name)
    return _Built({a: names.fresh(a) for a in system.indices if a in needed}, options)


def _defaults(system: System, built: _Built) -> list[str]:
    """`H: int = 4, D: int | None = None`"""
    found = []
    for name, variable in built.options.items():
        default = system.options[name]
        value = None if default is None else build.value_of(default)
        if default is None:
            found.append(f"{variable}: int")
        else:
            found.append(f"{variable}: int = {value}" if value is not None else f"{variable}: int | None = None")
    return found


def _function(system: System, name: str, layer: bool, built: _Built, arguments: dict[str, str], target: Target) -> str:
    """The computation: a function, or a method of a layer."""
    indent = 1 if layer else 0
    top = Block(indent)
    parameters = ["self", *signature(system, arguments)] if layer else signature(system, arguments)
    keywords = ["state: Any = None", "return_state: bool = False"]
    if packs(system, stepping(system), target):
        keywords.append("cu_seqlens: Any = None")
    if ranks.crosses(system):
        keywords.append(f"{ranks.GROUP}: Any = None")
    always = len(keywords)
    if not layer:
        keywords += _defaults(system, built)
    shown = f"_{name}" if layer else name
    opening = (
        f"def {shown}({', '.join(parameters)}{', ' if parameters else ''}*, {', '.join(keywords)}) -> Any:"
    )
    if not layer and parameters:
        plain = keywords[:always]
        rest = keywords[always:]
        opening = f"def {shown}({', '.join([*parameters, *plain])}{', *, ' + ', '.join(rest) if rest else ''}) -> Any:"
    top.add(opening)
    known = {axis: f"self.{attribute(axis)}" for axis in built.axes} if layer else {}
    options = {} if layer else dict(built.options)
    body, ctx = write_body(
        system,
        indent=indent + 1,
        layer=layer,
        known=known,
        arguments=arguments,
        options=options,
        taken={name},
        target=target,
    )
    top.lines += docstring(_describe(ctx, arguments), indent + 1)
    if not layer:
        body = _late_defaults(system, built, body)
    return "\n".join([*top.lines, *body])


def _late_defaults(system: System, built: _Built, body: list[str]) -> list[str]:
    """Options whose defaults are formulas over sizes: computed once the sizes are known."""
    lines = []
    for name, variable in built.options.items():
        default = system.options[name]
        if default is None or build.value_of(default) is not None:
            continue
        inner = Context(system, Names(), Block(1), options="")
        inner.option_variables = dict(built.options)
        inner.sizes = {a: f'sizes["{a}"]' for a in system.indices if system.index(a).size is None and system.axis(a) == a}
        text = size_value(inner, default).text
        lines += [f"    if {variable} is None:", f"        {variable} = {text}"]
    place = next(k for k, line in enumerate(body) if line.strip().startswith("sizes = "))
    return [*body[: place + 1], *lines, *body[place + 1 :]]


def _describe(ctx: Context, arguments: dict[str, str]) -> list[str]:
    """Shapes in, shapes out."""
    system = ctx.system

    def shape(tensor: Tensor) -> str:
        return f"[{', '.join([ctx.batch, *(new_length(ctx, i) for i in tensor.indices)])}]"

    shown = [f"{arguments[t.name]} {shape(t)}" for t in system.inputs()]
    results = [f"{o} {shape(system.tensors[o])}" for o in system.outputs]
    state = ", and the state after the last position if asked for" if ctx.stateful else ""
    return [
        f"{system.name}: the outputs{state}.",
        "",
        f"Shapes:  {', '.join(shown) or 'no inputs'} -> {', '.join(results)}",
    ]


def _class(
    system: System,
    class_name: str,
    functions: list[str],
    layer: bool,
    built: _Built,
    arguments: dict[str, str],
    steps: Stepping,
    form: str,
    bodies: list[str],
    target: Target,
) -> str:
    out = Block(0)
    out.add(f"class {class_name}(nn.Module):")
    out.lines += docstring([*(system.doc or (system.name,))], 1)
    out.add("")
    out.indent = 1
    write_parameters(out, system, built.axes, built.options, _defaults(system, built), layer=layer)
    if any(t.dtype == "complex" for t in system.params()):
        out.add("")
        out.add("def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:")
        out.add("    return super()._apply(_keep_complex(fn), recurse)")
    out.add("")
    forward(out, system, functions[0], layer, built.options, arguments, target)
    for body in bodies:
        out.add("")
        out.lines += body.splitlines()
    out.add("")
    step(out, system, functions, layer, built.options, arguments, steps, target)
    out.add("")
    _init_state(out, system, layer, built, arguments, steps)
    out.add("")
    if any(t.rhs is not None and t.rhs.op == "newton" for t in system.derived()):
        _newton_report(out)
        out.add("")
    _extra_repr(out, built, form)
    return "\n".join(out.lines)


def _init_state(
    out: Block, system: System, layer: bool, built: _Built, arguments: dict[str, str], steps: Stepping
) -> None:
    """The state before the first position: that of an empty input."""
    free = dict.fromkeys(system.axis(i) for t in system.inputs() for i in t.indices)
    axes = [a for a in free if a != system.stream and a not in built.axes and system.index(a).size is None]
    names = Names({"batch", "device", "dtype", *arguments.values()})
    sizes = {a: names.fresh(a) for a in axes}
    base = _base_inputs(system)
    keywords = [f"{v}: int" for v in sizes.values()] + [f"{arguments[n]}: Tensor" for n in base]
    keywords += [] if layer else ["device: Any = None", "dtype: Any = None"]
    star = f", *, {', '.join(keywords)}" if keywords else ""
    out.add(f"def init_state(self, batch: int = 1{star}) -> Any:")
    out.add('    """The state before the first position."""')
    if steps.refusal:
        out.add(f"    raise ValueError({quoted(f'{system.name} cannot be stepped: {steps.refusal}')})")
        return
    for label, length in (("batch", "batch"), *sizes.items()):
        out.add(f"    _at_least({quoted(f'{system.name}: `{label}` of a state')}, {length}, 0)")
    if layer:
        some = "parameters" if any(t.kind == "param" for t in system.params()) else "buffers"
        out.add(f"    some = next(self.{some}())")
        out.add("    device = some.device")
        out.add("    dtype = some.dtype.to_real()")
    inner = Context(system, names, Block(1), options="")
    inner.option_variables = {o: f"self.{attribute(o)}" for o in built.options}
    inner.sizes = {**sizes, **{a: f"self.{attribute(a)}" for a in built.axes}}
    if system.stream is not None:
        inner.sizes[system.stream] = "0"
    given = [arguments[t.name] if t.name in base else _empty(inner, t) for t in system.inputs()]
    alone = f", {ranks.ALONE}" if ranks.crosses(system) else ""
    if len(given) == 1:
        out.add(f"    return self.forward({given[0]}, return_state=True{alone})[1]")
        return
    out.add("    empty = (")
    for text in given:
        out.add(f"        {text},")
    out.add("    )")
    out.add(f"    return self.forward(*empty, return_state=True{alone})[1]")


def _empty(ctx: Context, tensor: Tensor) -> str:
    """An input without any position of the stream."""
    shape = ["batch"]
    for index in tensor.indices:
        axis = ctx.axis(index)
        size = ctx.system.index(axis).size  # of a second index, that of the first
        shape.append(ctx.sizes[axis] if axis in ctx.sizes or size is None else size_value(ctx, size).text)
    kinds = {"real": "dtype", "int": "torch.long", "bool": "torch.bool"}
    kind = kinds.get(tensor.dtype, "_complex_dtype(dtype or torch.get_default_dtype())")
    return f"torch.zeros({', '.join(shape)}, device=device, dtype={kind})"


def _base_inputs(system: System) -> list[str]:
    """Inputs without the streamed axis that base cases read."""
    found: set[str] = set()
    pending = [
        e.tensor for t in system.derived() for e in t.edges if system.axis(t.indices[e.position]) == system.stream
    ]
    pending += [t.name for t in system.derived() if t.kind == "carry"]
    seen: set[str] = set()
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        tensor = system.tensors[name]
        if tensor.kind == "input" and streamed(system, tensor) is None:
            found.add(name)
        pending += sorted(sources(system, tensor))
    return [t.name for t in system.inputs() if t.name in found]


def _newton_report(out: Block) -> None:
    out.add("@property")
    out.add("def newton(self) -> dict[str, int]:")
    out.add('    """Of the last solve: sweeps over all pieces, pieces that were solved, positions that were stepped."""')
    out.add("    return dict(_NEWTON)")


def _extra_repr(out: Block, built: _Built, form: str) -> None:
    out.add("def extra_repr(self) -> str:")
    out.add('    """The sizes and options that the module was built with."""')
    shown = [f"{n}={{self.{attribute(n)}}}" for n in [*built.axes, *built.options]] + ([f"form={form}"] if form else [])
    if len(shown) > 6:
        out.add(f"    sizes = f{quoted(', '.join(shown[:6]))}")
        shown = ["{sizes}", *shown[6:]]
    out.add(f"    return {'f' if built.axes or built.options else ''}{quoted(', '.join(shown))}")

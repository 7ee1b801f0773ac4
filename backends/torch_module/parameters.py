"""Parameters of the generated class: `__init__` and `reset_parameters`, named as the state_dict of the corpus says."""

from __future__ import annotations

import re

from seqdsl.ir import build
from seqdsl.ir.initial import is_saved
from seqdsl.ir.node import Node, rebuild, walk
from seqdsl.ir.system import System, Tensor

from . import expressions
from .context import Block, Context, Unsupported
from .names import Names, attribute, quoted
from .sizes import constant, size_value
from .values import PRODUCT, SUM, Value


def write_parameters(
    out: Block, system: System, axes: dict[str, str], options: dict[str, str], defaults: list[str], *, layer: bool
) -> None:
    """`__init__` and `reset_parameters`."""
    arguments = [f"{v}: int" for v in axes.values()]
    keywords = [*defaults, *(["device: Any = None", "dtype: Any = None"] if layer else [])]
    star = f", *, {', '.join(keywords)}" if keywords else ""
    out.add(f"def __init__(self{''.join(', ' + a for a in arguments)}{star}) -> None:")
    out.add("    super().__init__()")
    ctx = _sizes_context(system, axes, options)
    if layer:
        for name, variable in options.items():
            default = system.options[name]
            if default is not None and build.value_of(default) is None:
                out.add(f"    if {variable} is None:")
                out.add(f"        {variable} = {size_value(ctx, default).text}")
    for name, variable in {**axes, **options}.items():
        out.add(f"    self.{attribute(name)} = {variable}")
    _checks(out, system, ctx, axes, layer)
    if layer:
        _declare(out, system, ctx)
        out.add("    self.reset_parameters()")
        out.add("")
        _reset(out, system, axes, options)


def _sizes_context(system: System, axes: dict[str, str], options: dict[str, str]) -> Context:
    ctx = Context(system, Names({*axes.values(), *options.values(), "device", "dtype"}), Block(2), options="")
    ctx.sizes, ctx.option_variables = dict(axes), dict(options)
    return ctx


def known_when_built(system: System, node: Node, axes: dict[str, str], layer: bool) -> bool:
    """Can a formula be evaluated when the module is built?"""
    for n in walk(node):
        if n.op == "option" and not layer and build.value_of(system.options[str(n.attr)] or build.TRUE) is None:
            return False
        if n.op == "size":
            index = system.index(str(n.attr))
            if index.size is not None:
                if not known_when_built(system, index.size, axes, layer):
                    return False
            elif index.axis not in axes:
                return False
    return True


def _checks(out: Block, system: System, ctx: Context, axes: dict[str, str], layer: bool) -> None:
    done = set()
    for check in system.checks:
        if build.value_of(check.value) is None and known_when_built(system, check.value, axes, layer):
            line = f"{ctx.helper('_at_least')}({quoted(check.label)}, {_inline(ctx, check.value)}, {check.least})"
            if line not in done:
                done.add(line)
                out.add(f"    {line}")


def _inline(ctx: Context, node: Node) -> str:
    """A formula with the sizes of other indices written into it."""

    def change(n: Node) -> Node | None:
        if n.op == "size":
            size = ctx.system.index(str(n.attr)).size
            return size if size is not None else build.size(ctx.system.axis(str(n.attr)))
        return None

    before = None
    while before is not node:
        before, node = node, rebuild(node, change)
    return size_value(ctx, node).text


def _shape(ctx: Context, indices: tuple[str, ...]) -> str:
    texts = [_inline(ctx, build.size(i)) for i in indices]
    return ", ".join(texts) if texts else "()"


def _declare(out: Block, system: System, ctx: Context) -> None:
    """Containers for dotted names, then the tensors."""
    made: set[tuple[str, ...]] = set()
    out.add('    to = {"device": device, "dtype": dtype}')
    if any(t.dtype == "complex" for t in system.params()):
        ctx.helper("_complex_dtype")
        out.add('    complex_to = {"device": device, "dtype": _complex_dtype(dtype or torch.get_default_dtype())}')
    start = len(out.lines)
    for tensor in system.params():
        _declare_one(out, ctx, tensor, made)
    out.lines[start:] = _loops_merged(out.lines[start:])


def _loops_merged(lines: list[str]) -> list[str]:
    """Neighbouring loops over the same layers as one."""
    merged: list[str] = []
    open_: list[str] = []  # the headers of the loops around the last line
    for line in lines:
        indent = len(line) - len(line.lstrip())
        open_ = [h for h in open_ if len(h) - len(h.lstrip()) < indent or h == line]
        if line in open_:
            open_ = open_[: open_.index(line) + 1]
            continue
        if line.lstrip().startswith("for "):
            open_.append(line)
        merged.append(line)
    return merged


def _declare_one(out: Block, ctx: Context, tensor: Tensor, made: set[tuple[str, ...]]) -> None:
    steps = _steps(tensor.path)
    depth = 0
    owner = "self"
    pad = "    "
    indices = iter(tensor.indices)
    for k, step in enumerate(steps[:-1]):
        here = steps[: k + 1]
        if step.startswith("<"):
            variable = f"layer{depth or ''}"
            out.add(f"{pad}for {variable} in {owner}:")
            pad += "    "
            owner, depth = variable, depth + 1
            next(indices)
            continue
        owner = f"{owner}.{attribute(step)}"
        if here in made:
            continue
        made.add(here)
        if steps[k + 1].startswith("<"):
            length = _inline(ctx, build.size(tensor.indices[sum(s.startswith("<") for s in here)]))
            out.add(f"{pad}{owner} = nn.ModuleList(nn.Module() for _ in range({length}))")
        else:
            out.add(f"{pad}{owner} = nn.Module()")
    own = tensor.indices[depth:]
    kind = "complex_to" if tensor.dtype == "complex" else "to"
    empty = f"torch.empty({_shape(ctx, own)}, **{kind})"
    note = f"  # [{', '.join(own)}]" if own else ""
    if tensor.kind == "const":
        kept = "" if is_saved(tensor) else ", persistent=False"
        out.add(f'{pad}{owner}.register_buffer("{attribute(steps[-1])}", {empty}{kept}){note}')
    else:
        out.add(f"{pad}{owner}.{attribute(steps[-1])} = nn.Parameter({empty}){note}")


def _steps(path: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(s for p in path for s in ((p,) if p.startswith("<") else p.split(".")))


def _reset(out: Block, system: System, axes: dict[str, str], options: dict[str, str]) -> None:
    """Values of the initialisers; a `linear` as in torch.nn.Linear."""
    out.add("@torch.no_grad()")
    out.add("def reset_parameters(self) -> None:")
    out.add('    """Draw every parameter afresh."""')
    names = Names({"self", "some", "device", "dtype", "complex_dtype"})
    ctx = Context(system, names, Block(2), batched=False)
    ctx.sizes = {a: f"self.{attribute(a)}" for a in axes}
    ctx.option_variables = {o: f"self.{attribute(o)}" for o in options}
    from .function import parameter_places

    parameter_places(ctx)
    for tensor in system.params():
        _reset_one(ctx, tensor)
    text = "\n".join(ctx.block.lines + ctx.index_lines)
    if "device" in text or "dtype" in text:
        some = "parameters" if any(t.kind == "param" for t in system.params()) else "buffers"
        out.add(f"    some = next(self.{some}())")
        out.add("    device = some.device")
        out.add("    dtype = torch.promote_types(some.dtype.to_real(), torch.float32)")
    if "complex_dtype" in text:
        out.add("    complex_dtype = _complex_dtype(dtype)")
    for variable, formula in ctx.size_lines:
        out.add(f"    {variable} = {formula}")
    for line in ctx.index_lines:
        out.add(f"    {line}")
    out.lines += _loops_merged(ctx.block.lines) or ["        return"]


def _reset_one(ctx: Context, tensor: Tensor) -> None:
    steps = _steps(tensor.path)
    depth = sum(s.startswith("<") for s in steps)
    own = tensor.indices[depth:]
    target, indent, first = "self", ctx.block.indent, len(ctx.block.lines)
    layers = iter(range(depth))
    fixed: dict[str, str] = {}
    for step in steps:
        if step.startswith("<"):
            number = next(layers)
            variable = f"layer{number or ''}"
            place = f"place{number or ''}"
            fixed[tensor.indices[number]] = place
            ctx.block.add(f"for {place}, {variable} in enumerate({target}):")
            ctx.block.indent += 1
            target = variable
        else:
            target += f".{attribute(step)}"
    _fill(ctx, tensor, own, target, fixed)
    ctx.block.indent = indent
    for number, line in enumerate(ctx.block.lines[first : first + depth]):
        variable = f"place{number or ''}"
        if not any(re.search(rf"\b{variable}\b", later) for later in ctx.block.lines[first + number + 1 :]):
            ctx.block.lines[first + number] = re.sub(rf"{variable}, (.*) in enumerate\((.*)\):", r"\1 in \2:", line)


def _fill(ctx: Context, tensor: Tensor, own: tuple[str, ...], target: str, fixed: dict[str, str]) -> None:
    if tensor.rhs is None and tensor.fan_in:
        fan = " * ".join(_inline(ctx, build.size(i)) for i in tensor.fan_in)
        ctx.block.add(f"_init_linear({target}, {fan})")
        return
    rhs = tensor.rhs if tensor.rhs is not None else build.make("normal", build.ZERO, build.const(build.Fraction(1, 50)))
    ctx.draws, ctx.fixed, ctx.order, ctx.current = own, fixed, list(own), "initial"
    ctx.caches = [ctx.caches[0], {}]
    ctx.meet(rhs)
    ctx.draw_dtype = tensor.dtype
    known = _filling(ctx, rhs, target) if tensor.dtype == "real" else ""
    if known:
        ctx.block.add(known)
        ctx.draws = None
        return
    value = expressions.tensor(ctx, expressions.emit(ctx, rhs), tensor.dtype)
    value = expressions.full(ctx, value, own, tensor.dtype)
    ctx.block.add(f"{target}.copy_({value.text})")
    ctx.draws = None


def _filling(ctx: Context, rhs: Node, target: str) -> str:
    """The initialisers of torch, where all entries are drawn alike."""
    if rhs.op in ("normal", "uniform"):
        bounds = [expressions.emit(ctx, a) for a in rhs.args]
        if all(b.static for b in bounds):
            return f"nn.init.{rhs.op}_({target}, {bounds[0].text}, {bounds[1].text})"
    value = constant(rhs) if rhs.op == "const" else None
    if value is None:
        return ""
    made = {"0": "zeros_", "1": "ones_"}.get(value.text)
    return f"nn.init.{made}({target})" if made else f"nn.init.constant_({target}, {value.text})"


def draw(ctx: Context, node: Node) -> Value:
    """Random numbers that fill a parameter; complex ones have half the variance in each part."""
    if ctx.draws is None:
        raise Unsupported(f"`{node.op}` outside an initialiser")
    dims = ctx.draws
    shape = ", ".join(ctx.dim_text(d) for d in dims)
    kind = "complex_dtype" if ctx.draw_dtype == "complex" else "dtype"
    where = f"({shape}{',' if len(dims) == 1 else ''}), dtype={kind}, device=device"
    if node.op == "orthogonal":
        return Value(f"{ctx.helper('_orthogonal')}({where})", dims, ctx.draw_dtype)
    a, b = (expressions.emit(ctx, x).at(PRODUCT) for x in node.args)
    if node.op == "normal":
        return Value(f"{a} + {b} * torch.randn({where})", dims, ctx.draw_dtype, SUM)
    return Value(f"{a} + ({b} - {a}) * torch.rand({where})", dims, ctx.draw_dtype, SUM)

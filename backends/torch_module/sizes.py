"""Numbers in the generated code: constants, and lengths of axes, options, and formulas over them, each assigned once before use."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from seqdsl.ir.node import Node, walk

from .context import Context, Unsupported
from .names import attribute
from .table import OPS_TEXT
from .values import ATOM, SUM, UNARY, Value


def size_variable(ctx: Context, index: str) -> str:
    """The variable that holds the length of an index's range."""
    name = index.rstrip("'")
    if not (ctx.past and ctx.on_stream(name)):
        name = ctx.system.index(name).axis if ctx.system.index(name).size is None else name
    if name in ctx.sizes:
        return ctx.sizes[name]
    formula = ctx.system.index(name).size
    if formula is not None and not (ctx.past and ctx.on_stream(name)):
        plain = size_value(ctx, formula)
        if plain.text.isidentifier() or plain.text.isdigit():  # `h: H`
            ctx.sizes[name] = plain.text
            return plain.text
    ctx.sizes[name] = variable = ctx.names.fresh(size_name(name))
    if ctx.past and ctx.on_stream(name) and name != ctx.system.stream:
        text = f"past + {size_variable(ctx, str(ctx.system.stream))}"
    elif formula is None:
        text = f'sizes["{ctx.system.axis(name)}"]'
    else:
        text = size_value(ctx, formula).text
    ctx.size_lines.append((variable, text))
    return variable


def size_name(index: str) -> str:
    """`t` -> `T`, `o.r` -> `o_R`; lengths of long names get `n_`."""
    *path, last = index.split(".")
    return "_".join([*path, last.upper() if len(last) <= 2 else f"n_{last}"])


def total(ctx: Context, index: str) -> str:
    """`|t|`: all positions, those that a state has seen included."""
    if ctx.past and ctx.on_stream(index):
        name = "|stream|"
        if name not in ctx.sizes:
            new = size_variable(ctx, str(ctx.system.stream))
            ctx.sizes[name] = ctx.names.fresh("total")
            ctx.size_lines.append((ctx.sizes[name], f"past + {new}"))
        return ctx.sizes[name]
    return size_variable(ctx, index)


def option_variable(ctx: Context, name: str) -> str:
    """The variable that holds an option."""
    if ctx.options and name not in ctx.option_variables:
        ctx.option_variables[name] = ctx.names.fresh(name)
        ctx.size_lines.append((ctx.option_variables[name], f"{ctx.options}{attribute(name)}"))
    return ctx.option_variables[name]


def size_value(ctx: Context, node: Node) -> Value:
    """A formula over sizes and options, as Python arithmetic."""
    if node.op == "const":
        return Value(str(node.attr), (), "int", UNARY if str(node.attr).startswith("-") else ATOM, True)
    if node.op == "size":
        return Value(total(ctx, str(node.attr)), (), "int", ATOM, True)
    if node.op == "option":
        return Value(option_variable(ctx, str(node.attr)), (), "int", ATOM, True)
    if node.op == "first":
        new = ctx.past and ctx.on_stream(str(node.attr))  # other axes begin at 0
        return Value(_first(ctx) if new else "0", (), "int", ATOM, True)
    return number(ctx, node, [size_value(ctx, a) for a in node.args])


def _first(ctx: Context) -> str:
    """The first new position. Kernels that are told of packed sequences count each one's from its own."""
    if ctx.pasts and "|first|" not in ctx.sizes:
        ctx.sizes["|first|"] = ctx.names.fresh("first")
        ctx.size_lines.append((ctx.sizes["|first|"], f"past if {ctx.ends} is None else 0"))
    return ctx.sizes["|first|"] if ctx.pasts else "past"


def constant(node: Node) -> Value:
    """A number of the text."""
    value = node.attr
    if isinstance(value, bool):
        return Value(str(value), (), "bool", ATOM, True)
    if isinstance(value, str):
        return Value({"inf": "math.inf", "pi": "math.pi", "i": "1j"}[value], (), node.dtype, ATOM, True)
    assert isinstance(value, int | Fraction)
    text = str(value) if isinstance(value, int) else repr(float(value))
    return Value(text, (), node.dtype, UNARY if text.startswith("-") else ATOM, True)


def number(ctx: Context, node: Node, args: list[Value]) -> Value:
    """An operator on Python numbers."""
    row = OPS_TEXT.get(node.op)
    if row is None or not row.number:
        raise Unsupported(f"`{node.op}` of numbers")
    for name in row.helpers:
        ctx.helper(name)
    level = row.number_level
    if node.op == "div" and args[1].text == "1":
        return args[0]
    if node.op == "div" and not args[1].text.replace(".", "").isdigit() and not args[1].text.startswith("math."):
        return Value(f"{ctx.helper('_ratio')}({args[0].text}, {args[1].text})", (), node.dtype, ATOM, True)
    if node.op == "add" and args[1].text.startswith("-") and args[1].level == UNARY:
        return Value(f"{args[0].at(SUM)} - {args[1].text[1:]}", (), node.dtype, SUM, True)
    return Value(row.number.format(*operands(args, level, row.infix, node.op)), (), node.dtype, level, True)


def operands(args: list[Value], level: int, infix: bool, op: str) -> list[str]:
    """Operand texts with the parentheses that precedence asks for."""
    if not infix:
        return [a.text for a in args]
    if len(args) == 1:
        return [args[0].at(level)]
    if op == "pow":
        return [args[0].at(ATOM), args[1].at(level)]
    left = level + 1 if op in ("lt", "le", "eq", "ne") else level
    return [args[0].at(left), args[1].at(level if op in ("and", "or") else level + 1)]


def divisors(ctx: Context, node: Node, args: list[Value]) -> list[Value]:
    """The operands of a division. An integer one by 0 counts as one by 1: it can only stand where nothing is evaluated."""
    if node.op == "floor_div" and node.dtype == "real":  # torch has no gradient of it, which is 0
        return [a if a.static else replace(a, text=f"{a.at(ATOM)}.detach()", level=ATOM) for a in args]
    if node.op not in ("floor_div", "mod") or node.dtype != "int":
        return args
    divisor = args[1]
    if not divisor.static:
        divisor = Value(f"{ctx.helper('_nonzero')}({divisor.text})", divisor.dims, "int")
    elif node.args[1].op == "size":
        divisor = Value(f"max({divisor.text}, 1)", (), "int", ATOM, True)
    elif any(n.op in ("floor_div", "mod") for n in walk(node.args[1])):  # `|d| // 4` of a short axis is 0
        divisor = Value(f"({divisor.text} or 1)", (), "int", ATOM, True)
    return [args[0], divisor]

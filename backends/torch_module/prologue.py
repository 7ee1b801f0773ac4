"""What a generated function does before its equations: sizes, dtypes, checks of what it was given.

Entry point: `write_prologue`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from seqdsl.ir import build
from seqdsl.ir.node import walk
from seqdsl.ir.state import POSITION, NotSteppable, StateEntry, reads_length, record_paths, rows, state_record
from seqdsl.ir.system import System

from . import expressions, history, ranks
from .context import Block, Context
from .names import quoted, safe, tuple_text
from .parameters import known_when_built
from .sizes import size_value, total


@dataclass(frozen=True)
class Stepping:
    """The state record, or why there is none."""

    entries: tuple[StateEntry, ...]
    past: bool
    refusal: str = ""


def stepping(system: System) -> Stepping:
    """Can a state be given to this system, and must it count positions?"""
    if system.stream is None:
        return Stepping((), False, "it has no streamed axis")
    try:
        entries = state_record(system)
    except NotSteppable as error:
        return Stepping((), False, str(error))
    past = any(e.name == POSITION for e in entries)
    return Stepping(tuple(e for e in entries if e.name != POSITION), past)


def nest(record: dict[str, object], path: list[str], text: str) -> None:
    """Put an entry of the state's record at its path, as dictionaries in dictionaries."""
    for part in path[:-1]:
        inner = record.setdefault(part, {})
        assert isinstance(inner, dict), f"the state has both `{part}` and entries below it"
        record = inner
    record[path[-1]] = text


def literal(record: object) -> str:
    """A record as text, its values as they are."""
    if isinstance(record, dict):
        return "{" + ", ".join(f'"{k}": {literal(v)}' for k, v in record.items()) + "}"
    return str(record)


def write_prologue(
    ctx: Context,
    indent: int,
    layer: bool,
    known: dict[str, str],
    arguments: dict[str, str],
    inputs: list[str],
    steps: Stepping,
    body: list[str],
) -> list[str]:
    """The lines of the function before its `body`, and that: what of sizes and dtypes a line needs is computed first."""
    system = ctx.system
    top = Block(indent)
    axes = []
    for t in system.inputs():
        kind = "" if t.dtype == "real" else f', "{t.dtype}"'
        axes.append(f'"{t.name}": ({arguments[t.name]}, "{" ".join(system.axis(i) for i in t.indices)}"{kind})')
    fixed = "{" + ", ".join(f'"{a}": {t}' for a, t in known.items()) + "}"
    ctx.helper("_input_sizes")
    if steps.refusal:
        top.add("if state is not None or return_state:")
        top.add(f"    raise ValueError({quoted(f'{system.name} has no state: {steps.refusal}')})")
    top.add(f'sizes = _input_sizes("{safe(system.name)}", {{{", ".join(axes)}}}, {fixed})')
    text = "\n".join(body + inputs + ctx.index_lines)
    _dtypes(ctx, top, list(arguments.values()), layer, text)
    if ctx.ranks:
        top.add(f"{ctx.ranks} = {ctx.helper('_Ranks')}(group)")
    if ctx.ranks and not steps.refusal and ranks.folds(system):
        top.add(f'state = {ctx.ranks}.whole_state("{safe(system.name)}", state, return_state)')
    if ctx.past and ranks.positions_cross(system):
        own = f'{ctx.helper("_past")}("{safe(system.name)}", state)'
        top.add(f'past, {ctx.total} = {ctx.ranks}.positions({own}, sizes["{system.stream}"], device)')
    elif ctx.pasts:
        top.add(f'past, {ctx.pasts} = {ctx.helper("_packed_past")}("{safe(system.name)}", state, {ctx.ends})')
    elif ctx.past:
        top.add(f'past = {ctx.helper("_past")}("{safe(system.name)}", state)')
    if ctx.batch in _words(text) or any(ctx.batch in _words(v) for _, v in ctx.size_lines):
        top.add(f'{ctx.batch} = sizes["batch"]')
    lines = [] if steps.refusal else [_state_check(ctx, steps), *_longer_rows(ctx, steps)]
    lines += _checks(ctx, known, layer)
    for variable, formula in ctx.size_lines:
        top.add(f"{variable} = {formula}")
    for line in lines:
        top.add(line)
    top.add(f"with {ctx.helper('_full_precision')}(device):")
    inner = Block(indent + 1)
    for line in (*inputs, *ctx.index_lines):
        inner.add(line)
    return [*top.lines, *inner.lines, *body]


def _dtypes(ctx: Context, top: Block, arguments: list[str], layer: bool, text: str) -> None:
    """The device, and those dtypes that the text of the function mentions."""
    tensors, source = ", ".join(arguments), "*self.parameters(), *self.buffers()" if layer else ""
    top.add(f"device = {arguments[0]}.device" if arguments else "device = next(self.parameters()).device")
    top.add(f"dtype = {ctx.helper('_compute_dtype')}({', '.join(x for x in (tensors, source) if x)})")
    if "complex_dtype" in text:
        top.add(f"complex_dtype = {ctx.helper('_complex_dtype')}(dtype)")
    if "out_dtype" in text:
        known = ctx.helper("_output_dtype")
        fallback = f" or {known}({source})" if layer else ""
        top.add(f"out_dtype = {known}({tensors}){fallback} or dtype")
    if "matmul_dtype)" in text:
        top.add(f"matmul_dtype = {ctx.helper('_low_dtype')}(device, *self.parameters())")


def _words(text: str) -> set[str]:
    return set(re.findall(r"[A-Za-z_]\w*", text))


def _state_check(ctx: Context, steps: Stepping) -> str:
    """The record that was given, checked entry by entry."""
    record: dict[str, object] = {}
    paths = record_paths(e.name for e in steps.entries)
    for entry in steps.entries:
        nest(record, paths[entry.name], _entry_shape(ctx, entry))
    if ctx.past:
        record["position"] = "None"
    check, batch = ctx.helper("_checked_state"), ctx.batch
    if ctx.ends and not ctx.stateless:
        batch = f"{batch} if {ctx.ends} is None else len({ctx.ends}) - 1"
    pasts = f", pasts={ctx.pasts}" if ctx.pasts else ""
    return f'state = {check}("{safe(ctx.system.name)}", state, {batch}, dtype, {literal(record)}{pasts})'


def _entry_shape(ctx: Context, entry: StateEntry) -> str:
    """The lengths of an entry of the record behind the batch axis, and its kind where that is not real."""
    system, further = ctx.system, rows(ctx.system, entry)
    if entry.name in system.finals:
        tensor = system.tensors[system.finals[entry.name]]
        lengths = [_fixed_length(ctx, i) for i in tensor.indices]
    else:
        tensor, lengths = system.tensors[entry.tensor], []
        for k, index in enumerate(tensor.indices):
            if k != entry.position:
                lengths.append(_fixed_length(ctx, index))
            elif entry.boundary is None and entry.tail is None:
                lengths.append("past" if ctx.past else "None")
            elif entry.boundary is None and entry.tail is not build.ONE:
                lengths.append(history.count_text(ctx, entry))
    lengths = ["past" if k in further else n for k, n in enumerate(lengths)]
    lengths += [] if tensor.dtype == "real" else [f'"{tensor.dtype}"']
    cached = ctx.pasts and entry.tail is None and entry.boundary is None
    return f"[{', '.join([str(entry.position + 1), *lengths])}]" if cached else tuple_text(lengths)


def _longer_rows(ctx: Context, steps: Stepping) -> list[str]:
    """Rows over a further index of the stream, which are as long as it was, as long as it is now."""
    lines = []
    for entry in steps.entries:
        held = history.state_path(ctx, entry.name)
        number = expressions.emit(ctx, entry.beyond or build.ZERO).text
        for k in rows(ctx.system, entry):
            text = f'{ctx.helper("_lengthened")}({held}, {k + 1}, {total(ctx, str(ctx.system.stream))}, {number})'
            lines.append(f"    {held} = {text}")
    return ["if state is not None:", *lines] if lines else []


def _fixed_length(ctx: Context, index: str) -> str:
    """The length of an axis, None where it depends on how far the stream is."""
    size = ctx.system.index(index).size
    streamed = size is not None and reads_length(ctx.system, size, ctx.system.stream)
    return "None" if ctx.on_stream(index) or streamed else ctx.length(index)


def _checks(ctx: Context, known: dict[str, str], layer: bool) -> list[str]:
    """Axes that must be equally long (rule 6) or of a declared length (rule 8), and sizes that could come out negative."""
    lines: dict[str, None] = {}
    name = safe(ctx.system.name)
    for a, b in ctx.system.constraints:
        x, y = ctx.system.index(a), ctx.system.index(b)
        if x.axis == y.axis or x.size is not None or y.size is not None:
            continue
        check = ctx.helper("_equal_sizes")
        lines[f'{check}("{name}", "{x.axis}", "{y.axis}", sizes["{x.axis}"], sizes["{y.axis}"])'] = None
    for i in dict.fromkeys(i for t in ctx.system.inputs() for i in t.indices):
        declared = ctx.system.index(i).size
        streamed = declared is not None and reads_length(ctx.system, declared, ctx.system.stream)
        if declared is None or streamed or ctx.system.axis(i) in known:
            continue
        check, axis = ctx.helper("_declared_size"), ctx.system.axis(i)
        lines[f'{check}("{name}", "{axis}", sizes["{axis}"], {size_value(ctx, declared).text})'] = None
    for size in ctx.system.checks:
        below = list(walk(size.value))
        if build.value_of(size.value) is not None or (layer and known_when_built(ctx.system, size.value, known, layer)):
            continue
        if size.least > 0 or any(n.op in ("sub", "neg") or (build.value_of(n) or 0) < 0 for n in below):
            lines[f"_at_least({quoted(size.label)}, {size_value(ctx, size.value).text}, {size.least})"] = None
    return list(lines)

"""Rule 8 as far as the text alone decides it: sizes of numbers and defaults, and sizes that go round in a circle.

What depends on the inputs is checked by `ir.sizes.bind` when a module is built or called.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress

from seqdsl.diagnostics import Diagnostic, Faults
from seqdsl.ir.graphs import cycle
from seqdsl.ir.node import Node, walk
from seqdsl.ir.sizes import SizeError, evaluate_size
from seqdsl.ir.system import System
from seqdsl.syntax import tree

MOST_INDICES = 31  # of one tensor


def check_sizes(system: System, mixer: tree.Mixer) -> Faults:
    """The faults of all sizes that are known here."""
    faults = _dimensions(system, mixer)
    options, lengths = _known(system)
    spans = {o.name.plain: o.default.span for o in mixer.options if o.default is not None}
    stated = [(f"`{name}`", default, None, spans.get(name)) for name, default in system.options.items()]
    sized = [(check.label, check.value, check.least, check.span) for check in system.checks]
    for label, formula, least, span in [*stated, *sized]:
        if formula is None:
            continue
        try:
            value = evaluate_size(formula, options, lengths)
        except SizeError as error:
            if error.code != "missing-size":
                faults.merge([Diagnostic(error.code, error.message, span, notes=(error.note,) if error.note else ())])
            continue
        if least is not None and value < least:
            note = () if formula.op == "const" else (f"{formula!r} = {value}",)
            faults.append(Diagnostic("bad-size", f"{label} is {value}, and must be at least {least}", span, notes=note))
    return faults or _circles(system)


def _dimensions(system: System, mixer: tree.Mixer) -> Faults:
    """More indices than a tensor can vary along: where all have two positions it is too large (`ir.sizes.elements`)."""
    places = {p.name.plain: p.name.span for p in mixer.params}
    return Faults(
        Diagnostic(
            "size-too-large",
            f"`{t.name}` has {len(t.indices)} indices, and the limit is {MOST_INDICES}",
            places.get(t.name, system.spans.get(t.name, mixer.name.span)),
        )
        for t in system.tensors.values()
        if len(t.indices) > MOST_INDICES
    )


def _known(system: System) -> tuple[dict[str, int], dict[str, int]]:
    """The options and the lengths that numbers, defaults and sizes in the header decide."""
    options, lengths = dict[str, int](), dict[str, int]()
    stated = [(options, n, default) for n, default in system.options.items()]
    stated += [(lengths, i.name, i.size) for i in system.indices.values()]
    before = -1
    while before < (before := len(options) + len(lengths)):
        for found, name, formula in stated:
            if name not in found and formula is not None:
                with suppress(SizeError):
                    found[name] = evaluate_size(formula, options, lengths)
    return options, lengths


def _circles(system: System) -> Faults:
    """An axis whose size, through other axes and defaults, is its own size."""
    sizes = {name: index.size for name, index in system.indices.items() if index.axis == name}
    graph = {n: [] if size is None else [system.axis(i) for i in _axes(system, size)] for n, size in sizes.items()}
    circle = cycle(graph)
    if not circle:
        return Faults()
    shown = " -> ".join(f"`|{name}|`" for name in (*circle, circle[0]))
    around = [sizes[name] for name in circle]
    span = next((c.span for c in system.checks if c.value in around), None)
    return Faults([Diagnostic("bad-size", f"the size of `{circle[0]}` depends on itself", span, notes=(shown,))])


def _axes(system: System, formula: Node) -> Iterator[str]:
    """The axes whose lengths a formula reads, itself or through the defaults of options."""
    for node in walk(formula):
        if node.op == "size":
            yield str(node.attr)
        elif node.op == "option" and (default := system.options.get(str(node.attr))) is not None:
            yield from _axes(system, default)

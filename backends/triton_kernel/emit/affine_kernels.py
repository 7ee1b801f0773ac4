"""The kernels of an affine recurrence, from its step: tiles of time by entries, with nothing read twice.

A program goes through a piece of time in chunks of ROWS parts of STEPS steps each. The rows of a chunk are loaded at once;
of each part the map of its steps is found, the parts of all are composed by `tl.associative_scan`, which says what enters
each, and all parts take their steps side by side from what is in registers. Where entries alone do not fill a device, time
is cut into pieces, and the maps of those are found before, by kernels that do the first half.
Backwards, nothing but the state that entered each chunk is kept of the states: those inside are computed again from the
operands, which gradients need in any case, and what positions send back is a scan against time of the same kind.

Steps are in the order of the recurrence: where that is against time, strides are negative. Tables of pieces of PACKED
sequences are those of `piece_kernels`. Entry point: `kernels`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from seqdsl.ir.node import Node, walk

from ...torch_module.values import ATOM
from .affine import SENT, SLOPE, STATE, Affine
from .step import Entry
from .texts import Writer
from .walking import lane_lines, piece_lines, signature

ROWS = "batch * T * D + lane + apart * along"  # of a tensor [B, T, lanes], from its first step on
FORWARD, BACK = "tl.static_range(STEPS)", "tl.static_range(STEPS - 1, -1, -1)"


def kernels(name: str, step: Affine) -> dict[str, list[str]]:
    """The lines of each kernel by what it is: `ends` (maps of pieces), `states`; `slopes` (maps of pieces backwards),
    `adjoint`."""
    return {
        "ends": _ends(f"_{name}_ends_kernel", step),
        "states": _states(f"_{name}_kernel", step),
        "slopes": _slopes(f"_{name}_slopes_kernel", step),
        "adjoint": _adjoint(f"_{name}_adjoint_kernel", step),
    }


@dataclass
class _Kernel:
    """Text of one kernel; `every` are all operands that it loads."""

    step: Affine
    every: list[Entry]
    sent: bool = False  # does it load what outputs are sent back?
    lines: list[str] = field(default_factory=list)

    def add(self, text: str, depth: int = 1) -> None:
        self.lines.append("    " * depth + text)

    def begin(self, doc: str) -> None:
        """Which entries of which piece this is, and where each tensor's entries begin."""
        self.add(f'"""{doc}"""')
        self.add("piece, blocks = tl.program_id(1), tl.cdiv(D, BD)")
        self.add("batch = tl.cast(tl.program_id(0) // blocks, tl.int64)")
        self.add("part = tl.arange(0, ROWS)[:, None]")
        self.add("lane = tl.program_id(0) % blocks * BD + tl.arange(0, BD)[None, :]")
        self.add("own, apart = lane < D, tl.cast(part * STEPS, tl.int64)")
        lanes = self.step.lanes
        self.lines += [*piece_lines(), *lane_lines(lanes)]
        for x in self.every:
            steps = [f"tl.cast(i{k}, tl.int64) * {x.name}_{k}" for k in range(lanes)]
            steps += [f"apart * {x.name}_time"] if x.moves else []
            self.add(f"{x.name}_at = {' + '.join([x.name, f'batch * {x.name}_batch', *steps])}")
            if not x.moves:
                self.add(f"{x.name}_now = {_wide(x, f'tl.load({x.name}_at, mask=own, other=0)')}")
        for x, _ in self.step.outputs if self.sent else ():
            self.add(f"d_{x.name}_at = d_{x.name} + {ROWS}")

    def chunks(self, back: bool = False) -> None:
        """The loop over chunks, whose rows are all loaded before any of them is used."""
        if back:
            self.add("for chunk in range((end - begin + ROWS * STEPS - 1) // (ROWS * STEPS)):")
            self.add("first = begin + ((end - begin - 1) // (ROWS * STEPS) - chunk) * (ROWS * STEPS)", 2)
        else:
            self.add("for first in range(begin, end, ROWS * STEPS):")
        rows = [(x.name, f"{x.name}_at + place * {x.name}_time") for x in self.every if x.moves]
        rows += [(f"d_{x.name}", f"d_{x.name}_at + place * along")
                 for x, _ in self.step.outputs if self.sent]  # fmt: skip
        for name, _ in rows:
            self.add(f"{name}_rows = ()", 2)
        self.loop()
        for name, at in rows:
            self.add(f"{name}_rows = {name}_rows + (tl.load({at}, mask=inside, other=0),)", 3)

    def loop(self, order: str = FORWARD) -> None:
        """A loop over the steps of all parts."""
        self.add(f"for step in {order}:", 2)
        self.add("place = tl.cast(first + step, tl.int64)", 3)
        self.add("inside = own & (part * STEPS < end - first - step)", 3)

    def now(self, nodes: Iterable[Node]) -> None:
        """Operands at a position, in float32, of those that some expressions are made of."""
        below = {n for node in nodes for n in walk(node)}
        for x in self.every:
            if x.moves and x.node in below:
                self.add(f"{x.name}_now = {_wide(x, f'{x.name}_rows[step]')}", 3)
        for x, _ in self.step.outputs if self.sent else ():
            if x.node in below:
                self.add(f"d_{x.name}_now = d_{x.name}_rows[step].to(tl.float32)", 3)

    def texts(self, nodes: list[Node], **known: str) -> list[str]:
        """Expressions at a position."""
        texts = {x.node: f"{x.name}_now" for x in self.every}
        texts |= {x.node: f"d_{x.name}_now" for x, _ in self.step.outputs}
        texts |= {node: known[name] for node, name in ((STATE, "state"), (SENT, "sent"), (SLOPE, "slope")) if name in known}
        writer = Writer({n: (text, ATOM) for n, text in {**self.step.numbers, **texts}.items()}, 3, prefix="part")
        writer.count(nodes)
        found = [writer.text(node) for node in nodes]
        self.lines += writer.lines
        return found

    def maps(self) -> None:
        """The map of each part of a chunk, with its steps' decays and inputs."""
        self.zeros()
        self.add("decays, inputs = (), ()", 2)
        self.loop()
        nodes = [self.step.decay, self.step.given]
        self.now(nodes)
        decay, given = self.texts(nodes)
        self.add(f"decay = tl.where(inside, {decay}, {self.neutral()})", 3)
        self.add(f"given = tl.where(inside, {given}, 0.0)", 3)
        self.add(f"total = given + {self.decayed('decay', 'total')}", 3)
        self.add(f"whole = {self.joined('whole', 'decay')}", 3)
        self.add("decays, inputs = decays + (decay,), inputs + (given,)", 3)

    def zeros(self) -> None:
        self.add(f"whole = tl.full([ROWS, BD], {self.neutral()}, tl.float32)", 2)
        self.add("total = tl.zeros([ROWS, BD], tl.float32)", 2)

    def enters(self, state: str, carry: str, back: bool = False) -> None:
        """What enters each part of a chunk, and what leaves them all: a scan of maps, beside each that of the parts before."""
        function = "_affine_follow_logs" if self.step.log else "_affine_follow"
        every, flag = "(whole, total, first_whole, first_total)", ", reverse=True" if back else ""
        self.add(f"first_whole = tl.full([ROWS, BD], {self.neutral()}, tl.float32)", 2)
        self.add("first_total = tl.zeros([ROWS, BD], tl.float32)", 2)
        self.add(f"{every[1:-1]} = tl.associative_scan({every}, 0, {function}{flag})", 2)
        self.add(f"{state} = first_total + {self.decayed('first_whole', carry)}", 2)
        self.add(f"total = total + {self.decayed('whole', carry)}", 2)
        self.add(f"{carry} = {self.row('total', back)}", 2)

    def row(self, x: str, back: bool = False) -> str:
        """[1, BD]: the row that all are joined in."""
        return f"tl.sum(tl.where(part == {'0' if back else 'ROWS - 1'}, {x}, 0.0), 0)[None, :]"

    def neutral(self) -> str:
        return "0.0" if self.step.log else "1.0"

    def decayed(self, decay: str, x: str) -> str:
        return f"_decayed({decay}, {x})" if self.step.log else f"{decay} * {x}"

    def joined(self, one: str, two: str) -> str:
        """Two decays as one."""
        return f"{one} + {two}" if self.step.log else f"{one} * {two}"

    def number(self) -> str:
        """The place of a piece's map among all."""
        return "(batch * tl.num_programs(1) + {0}) * D"

    def signature(self, name: str, tensors: list[str], flags: Iterable[str] = ()) -> list[str]:
        """The first lines; a launch gives arguments in this order."""
        step, constants = self.step, [*flags, "PACKED", "STEPS", "ROWS", "BD"]
        sizes = ["HELD", "T", "D", "LENGTH", "along"]
        return [*signature(name, tensors, sizes, step.operands, step.lanes, step.numbers, constants), *self.lines]

    def run_maps(self, back: bool = False) -> None:
        """Join the maps of a chunk's parts to that of the chunks before it."""
        function, flag = "_affine_join_logs" if self.step.log else "_affine_join", ", reverse=True" if back else ""
        self.add(f"whole, total = tl.associative_scan((whole, total), 0, {function}{flag})", 2)
        self.add(f"whole, total = {self.row('whole', back)}, {self.row('total', back)}", 2)
        self.add(f"every_total = total + {self.decayed('whole', 'every_total')}", 2)
        self.add(f"every_whole = {self.joined('every_whole', 'whole')}", 2)

    def store_maps(self) -> None:
        self.add(f"place = {self.number().format('piece')} + lane")
        self.add("tl.store(ends_whole + place, every_whole, mask=own)")
        self.add("tl.store(ends_total + place, every_total, mask=own)")

    def start_maps(self) -> None:
        self.add(f"every_whole = tl.full([1, BD], {self.neutral()}, tl.float32)")
        self.add("every_total = tl.zeros([1, BD], tl.float32)")

    def carried(self, start: str, pieces: str, number: str) -> None:
        """What enters a piece, through the maps of others."""
        self.add(f"carry = tl.load({start} + sequence * D + lane, mask=own, other=0).to(tl.float32)")
        self.add(f"for before in range({pieces}):  # a few rows")
        self.add(f"place = {self.number().format(number)} + lane", 2)
        self.add("whole = tl.load(ends_whole + place, mask=own, other=0)", 2)
        self.add(f"carry = tl.load(ends_total + place, mask=own, other=0) + {self.decayed('whole', 'carry')}", 2)

    def held(self) -> None:
        """Where the state that enters a chunk is kept. As sequences do not begin where chunks do, each has a row more."""
        self.add("place = batch * HELD + first // (ROWS * STEPS)", 2)
        self.add("if PACKED:", 2)
        self.add("place = place + tl.where(along < 0, -sequence, sequence)  # the first in the order of the steps", 3)
        self.add("place = place * D + lane", 2)


def _wide(x: Entry, text: str) -> str:
    return f"{text}.to(tl.float32)" if x.kind == "real" else text


def _ends(name: str, step: Affine) -> list[str]:
    kernel = _Kernel(step, step.loaded([step.decay, step.given]))
    kernel.begin("The map of each piece of LENGTH steps: its decay, and where it takes zero.")
    kernel.start_maps()
    kernel.chunks()
    kernel.maps()
    kernel.run_maps()
    kernel.store_maps()
    return kernel.signature(name, ["ends_whole", "ends_total"])


def _states(name: str, step: Affine) -> list[str]:
    kernel = _Kernel(step, list(step.operands))
    kernel.begin("What reads the states of a piece of time; the states that enter its chunks, and the last one of a sequence.")
    kernel.carried("start", "leading, piece", "before")
    for x, _ in step.outputs:
        kernel.add(f"{x.name}_at = {x.name} + {ROWS}")
    kernel.chunks()
    kernel.maps()
    kernel.held()
    kernel.add("tl.store(held + place, carry, mask=own)", 2)
    kernel.enters("state", "carry")
    nodes = [node for _, node in step.outputs]
    if nodes:
        kernel.loop()
        kernel.add(f"state = inputs[step] + {kernel.decayed('decays[step]', 'state')}", 3)
        kernel.now(nodes)
        for (x, _), text in zip(step.outputs, kernel.texts(nodes, state="state"), strict=True):
            at = f"{x.name}_at + place * along"
            kernel.add(f"tl.store({at}, ({text}).to({x.name}.dtype.element_ty), mask=inside)", 3)
    kernel.add("if end == stop:")
    kernel.add("tl.store(last + sequence * D + lane, carry, mask=own)", 2)
    return kernel.signature(name, ["start", "held", "last", *(x.name for x, _ in step.outputs), "ends_whole", "ends_total"])


def _again(kernel: _Kernel, needed: bool) -> None:
    """The loop over chunks against time: the decays in one, and if they are `needed` the states between its steps."""
    kernel.chunks(back=True)
    if not needed:
        kernel.add("decays = ()", 2)
        kernel.loop()
        kernel.now([kernel.step.decay])
        (decay,) = kernel.texts([kernel.step.decay])
        kernel.add(f"decays = decays + (tl.where(inside, {decay}, {kernel.neutral()}),)", 3)
        return
    kernel.maps()
    kernel.held()
    kernel.add("carry = tl.load(held + place, mask=own, other=0)", 2)
    kernel.enters("state", "carry")
    kernel.add("states = (state,)", 2)
    kernel.add(f"for step in {FORWARD}:", 2)
    kernel.add(f"state = inputs[step] + {kernel.decayed('decays[step]', 'state')}", 3)
    kernel.add("states = states + (state,)", 3)


def _source(kernel: _Kernel, more: Iterable[Node] = ()) -> None:
    """The beginning of a step backwards, with the operands of more expressions: what outputs send to the state there."""
    nodes = [kernel.step.source, *more]
    kernel.now(nodes)
    if STATE in {n for node in nodes for n in walk(node)}:
        kernel.add("state = states[step + 1]", 3)
    (source,) = kernel.texts(nodes[:1], state="state")
    kernel.add(f"source = tl.where(inside, {source}, 0.0)", 3)


def _back_maps(kernel: _Kernel) -> None:
    """The maps of a chunk's parts against time."""
    kernel.zeros()
    kernel.loop(BACK)
    _source(kernel)
    kernel.add(f"total = {kernel.decayed('decays[step]', '(total + source)')}", 3)
    kernel.add(f"whole = {kernel.joined('whole', 'decays[step]')}", 3)


def _sent(step: Affine) -> list[str]:
    return ["held", "d_last", *(f"d_{x.name}" for x, _ in step.outputs)]


def _slopes(name: str, step: Affine) -> list[str]:
    needed = STATE in set(walk(step.source))
    kernel = _Kernel(step, step.loaded([step.decay, step.source, *([step.given] if needed else [])]), sent=True)
    kernel.begin("The map of each piece against time: from what its last step is sent back to what its first one sends.")
    kernel.start_maps()
    _again(kernel, needed)
    _back_maps(kernel)
    kernel.run_maps(back=True)
    kernel.store_maps()
    return kernel.signature(name, [*_sent(step), "ends_whole", "ends_total"])


def _adjoint(name: str, step: Affine) -> list[str]:
    needed = not {STATE, SLOPE}.isdisjoint(n for node in (step.source, *step.gradients.values()) for n in walk(node))
    kernel = _Kernel(step, list(step.operands), sent=True)
    kernel.begin("Gradients of the operands, [B, T, lanes] or a sum for each piece, and of the start.")
    kernel.add("trailing = tl.num_programs(1)")
    kernel.add("if PACKED:")
    kernel.add("trailing = leading + (stop - begin + (piece - leading) * LENGTH + LENGTH - 1) // LENGTH", 2)
    kernel.carried("d_last", "trailing - 1 - piece", "(trailing - 1 - before)")
    kernel.add("arriving = carry")
    for x in step.gradients:
        if x.moves:
            kernel.add(f"d_{x.name}_at = d_{x.name} + {ROWS}")
        else:
            kernel.add(f"{x.name}_sum = tl.zeros([ROWS, BD], tl.float32)")
    _again(kernel, needed)
    _back_maps(kernel)
    kernel.enters("sent", "arriving", back=True)
    _gradients(kernel)
    kernel.add("if (piece == leading) & (begin < end):")
    kernel.add("tl.store(d_start + sequence * D + lane, arriving, mask=own)", 2)
    for x in step.gradients:
        if not x.moves:
            kernel.add(f"if WANTS_{x.name}:")
            kernel.add(f"place = {kernel.number().format('piece')} + lane", 2)
            kernel.add(f"tl.store(d_{x.name} + place, tl.sum({x.name}_sum, 0)[None, :], mask=own)", 2)
    tensors = [*_sent(step), *(f"d_{x.name}" for x in step.gradients), "d_start", "ends_whole", "ends_total"]
    return kernel.signature(name, tensors, (f"WANTS_{x.name}" for x in step.gradients))


def _gradients(kernel: _Kernel) -> None:
    """The steps of a chunk against time: what each sends back to operands, and to the step before it."""
    found = kernel.step.gradients
    kernel.loop(BACK)
    _source(kernel, found.values())
    kernel.add("sent = sent + source", 3)
    if SLOPE in {n for node in found.values() for n in walk(node)}:
        factor = "tl.exp(decays[step]) * states[step]" if kernel.step.log else "states[step]"
        kernel.add(f"slope = sent * {factor}", 3)
    for x, text in zip(found, kernel.texts(list(found.values()), state="state", sent="sent", slope="slope"), strict=True):
        if x.moves:
            kernel.add(f"if WANTS_{x.name}:", 3)
            at = f"d_{x.name}_at + place * along"
            kernel.add(f"tl.store({at}, ({text}).to(d_{x.name}.dtype.element_ty), mask=inside)", 4)
        else:
            kernel.add(f"{x.name}_sum = {x.name}_sum + tl.where(inside, {text}, 0.0)", 3)
    kernel.add(f"sent = {kernel.decayed('decays[step]', 'sent')}", 3)

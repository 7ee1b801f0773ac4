"""The kernels of a recurrence, from its step: a few entries of a program side by side, one position after another.

Time may be cut into pieces, one program's each, where entries alone do not fill a device. Forwards, what enters a piece
comes from the steps that the pieces before it are worth (`joined`), or is guessed and corrected by whoever launches;
backwards, it comes from their slopes: what a position sends back is linear in what it is sent, whatever the step.
A loop takes the place of `tl.associative_scan`: every step is taken once, where the scan of a tile takes the logarithm of
its length of them and keeps what is between in registers; entries stand side by side in memory as they do in the program;
and the order is that of time, which operators that do not commute rely on.

`z` is [B, T + 1, lanes]: the start, then the states, in the order of the steps; its neighbours in memory may be later
ones (`z_time` is then negative). A kernel gets the place of the state after the first step.
PACKED sequences lie along one axis, and their starts behind all states. No piece is of two: a table has, for each, its
steps, where its sequence ends, the first piece of that, and its number. Entry point: `kernels`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from seqdsl.ir import build
from seqdsl.ir.node import Node

from ...torch_module.values import ATOM
from .step import Entry, Step
from .texts import Writer
from .walking import lane_lines, piece_lines, signature


def kernels(name: str, step: Step) -> dict[str, list[str]]:
    """The lines of each kernel by what it is: `ends` (of pieces), `states`; `slopes` (of pieces), `adjoint`."""
    found = {"states": _states(f"_{name}_kernel", step)}
    if step.joined:
        found["ends"] = _ends(f"_{name}_ends_kernel", step)
    if step.states[0].kind == "real":
        found["slopes"] = _slopes(f"_{name}_slopes_kernel", step)
        found["adjoint"] = _adjoint(f"_{name}_adjoint_kernel", step)
    return found


def cotangent(state: Entry) -> Node:
    """The leaf that stands for what is sent back to a state."""
    return build.read(f"@d_{state.name}", [], "real")


@dataclass
class _Kernel:
    """Text of one kernel."""

    step: Step
    lines: list[str] = field(default_factory=list)

    def add(self, text: str, depth: int = 1) -> None:
        self.lines.append("    " * depth + text)

    def begin(self, doc: str, rows: Iterable[Entry]) -> None:
        """Which lanes of which piece this is, and where each tensor's lanes begin."""
        self.add(f'"""{doc}"""')
        self.add("piece, blocks = tl.program_id(1), tl.cdiv(D, BD)")
        self.add("batch = tl.cast(tl.program_id(0) // blocks, tl.int64)")
        self.add("lane = tl.program_id(0) % blocks * BD + tl.arange(0, BD)")
        self.add("own = lane < D")
        lanes = self.step.lanes
        self.lines += [*piece_lines(entry=True), *lane_lines(lanes)]
        for x in self.step.operands:
            steps = [f"tl.cast(i{k}, tl.int64) * {x.name}_{k}" for k in range(lanes)]
            self.add(f"{x.name}_at = {' + '.join([x.name, f'batch * {x.name}_batch', *steps])}")
            if not x.moves:
                self.add(f"{x.name}_now = {self.loaded(x, f'{x.name}_at', 'own')}")
        for s in rows:
            self.add(f"{s.name}_at = {s.name} + batch * (T + 1) * D + lane")

    def loaded(self, x: Entry, place: str, mask: str) -> str:
        """Entries, 0 outside; reals in float32."""
        text = f"tl.load({place}, mask={mask}, other=0)"
        return f"{text}.to(tl.float32)" if x.kind == "real" else text

    def moving(self) -> list[Entry]:
        return [x for x in self.step.operands if x.moves]

    def write(self, wanted: list[tuple[str, Node]], known: dict[Node, str], depth: int, *, kept: int = 0) -> None:
        """Lines that give variables new values, all computed from the old ones; the last `kept` stay outside the steps."""
        texts = {node: (text, ATOM) for node, text in {**self.step.numbers, **known}.items()}
        writer = Writer(texts, depth, prefix="part")
        writer.count([node for _, node in wanted])
        found = [writer.text(node) for _, node in wanted]
        for k in range(len(wanted) - kept, len(wanted)):
            found[k] = f"tl.where(inside, {found[k]}, {wanted[k][0]})"
        self.lines += writer.lines
        apart = len(wanted) > 1
        for (name, _), text in zip(wanted, found, strict=True):
            self.add(f"{name}{'_next' if apart else ''} = {text}", depth)
        for name, _ in wanted if apart else ():
            self.add(f"{name} = {name}_next", depth)

    def now(self) -> dict[Node, str]:
        """The texts of states and operands at a position."""
        return {x.node: f"{x.name}_now" for x in (*self.step.states, *self.step.operands)}

    def signature(self, name: str, tensors: list[str], flags: list[str]) -> list[str]:
        """The first lines; a launch gives arguments in this order."""
        step, constants = self.step, [*flags, "PACKED", "STEPS", "BD"]
        sizes = ["T", "D", "LENGTH", "along"]
        return [*signature(name, tensors, sizes, step.operands, step.lanes, step.numbers, constants), *self.lines]

    def steps(self, at: str, more: Iterable[tuple[str, str, Entry]] = ()) -> None:
        """The loop over the piece's steps, some of whose rows are loaded before any of them is used. `at` is a step's place
        in the order of the states, `more` are (variable, place, what it holds) beside the operands, where the row `earlier`
        has the state before the step."""
        more = list(more)
        rows = [(x.name, f"{x.name}_at + place * {x.name}_time", x) for x in self.moving()] + more
        self.add("for first in range(begin, end, STEPS):")
        for name, _, _ in rows:
            self.add(f"{name}_rows = ()", 2)
        for part in range(2):
            self.add("for i in tl.static_range(STEPS):", 2)
            self.add(f"place = tl.cast({at}, tl.int64)", 3)
            self.add("inside = lane < tl.where(first + i < end, D, 0)", 3)
            if more and not part:
                self.add("earlier = tl.where(first + i == stop - 1, entry, place - 1) if PACKED else place - 1", 3)
            for name, place, x in rows:
                text = f"{name}_rows[i]" if part else f"{name}_rows + ({self.loaded(x, place, 'inside')},)"
                self.add(f"{name}_{'now' if part else 'rows'} = {text}", 3)


def _names(entries: Iterable[Entry], form: str) -> list[str]:
    return [form.format(x.name) for x in entries]


def _ends(name: str, step: Step) -> list[str]:
    """What each piece is worth as one step."""
    kernel = _Kernel(step)
    kernel.begin("The operands of the one step that each piece of LENGTH steps is worth.", [])
    for x in step.operands:
        place = f"{x.name}_at + tl.cast(begin, tl.int64) * {x.name}_time"
        kernel.add(f"{x.name}_left = {kernel.loaded(x, place, 'own') if x.moves else f'{x.name}_now'}")
    kernel.steps("first + i")
    kernel.add("inside = lane < tl.where(first + i > begin, tl.where(first + i < end, D, 0), 0)", 3)
    known = kernel.now() | {node: f"{x.name}_left" for node, x in zip(step.earlier, step.operands, strict=True)}
    joined = [(f"{x.name}_left", node) for x, node in zip(step.operands, step.joined, strict=True)]
    kernel.write(joined, known, 3, kept=len(joined))
    kernel.add("place = (batch * tl.num_programs(1) + piece) * D + lane")
    for x in step.operands:
        kernel.add(f"tl.store({x.name}_ends + place, {x.name}_left, mask=own)")
    return kernel.signature(name, _names(step.operands, "{0}_ends"), [])


def _states(name: str, step: Step) -> list[str]:
    """All states. What enters a piece is found with `joined`, or is one of the `heads` that are given: then what leaves
    each is wanted, too."""
    kernel = _Kernel(step)
    kernel.begin("The states of one piece of time; the start is in the row before them.", step.states)
    after = [(f"{s.name}_now", node) for s, node in zip(step.states, step.after, strict=True)]
    tensors = _names(step.operands, "{0}_ends") if step.joined else []
    if step.joined:
        for s in step.states:
            kernel.add(f"{s.name}_now = {kernel.loaded(s, f'{s.name}_at + entry * along', 'own')}")
        kernel.add("for before in range(leading, piece):  # a few steps, each worth a piece")
        kernel.add("place = (batch * tl.num_programs(1) + before) * D + lane", 2)
        for x in step.operands:
            kernel.add(f"{x.name}_left = {kernel.loaded(x, f'{x.name}_ends + place', 'own')}", 2)
        known = kernel.now() | {x.node: f"{x.name}_left" for x in step.operands}
        kernel.write(after, known, 2)
    else:
        tensors = [*_names(step.states, "{0}_heads"), *_names(step.states, "{0}_ends")]
        kernel.add("head = (batch * tl.num_programs(1) + piece) * D + lane")
        for s in step.states:
            kernel.add(f"{s.name}_now = {kernel.loaded(s, f'{s.name}_heads + head', 'own')}")
    kernel.steps("first + i")
    kernel.write(after, kernel.now(), 3)
    for s in step.states:
        kernel.add(f"tl.store({s.name}_at + place * along, {s.name}_now, mask=inside)", 3)
    for s in step.states if not step.joined else ():
        kernel.add(f"tl.store({s.name}_ends + head, {s.name}_now, mask=own)")
    return kernel.signature(name, [*_names(step.states, "{0}"), *tensors], [])


def _backwards(kernel: _Kernel, doc: str) -> None:
    """The beginning of a kernel that goes back in time, `T - 1 - place` being the steps that have been."""
    kernel.begin(doc, kernel.step.states)
    for s in kernel.step.states:
        kernel.add(f"d_{s.name}_at = d_{s.name} + batch * (T + 1) * D + lane")


def _back_steps(kernel: _Kernel) -> None:
    more = [(s.name, f"{s.name}_at + earlier * along", s) for s in kernel.step.states]
    more += [(f"d_{s.name}", f"d_{s.name}_at + earlier * along", s) for s in kernel.step.states]
    kernel.steps("T - 1 - first - i", more)


def _slopes(name: str, step: Step) -> list[str]:
    """What a piece makes of what it is sent: a matrix over the states, and what it sends back if it is sent nothing."""
    kernel, states = _Kernel(step), step.states
    _backwards(kernel, "The slope of each piece of LENGTH steps, and what its own gradients send back.")
    pairs = [(i, k) for i in range(len(states)) for k in range(len(states))]
    for i, k in pairs:
        kernel.add(f"p{i}{k} = tl.full([BD], {float(i == k)}, tl.float32)")
    for k in range(len(states)):
        kernel.add(f"s{k} = tl.zeros([BD], tl.float32)")
    _back_steps(kernel)
    slopes = step.slopes()
    leaves = {(i, k): build.read(f"@p{i}{k}", [], "real") for i, k in pairs}
    sent = [build.read(f"@s{k}", [], "real") for k in range(len(states))]
    known = kernel.now() | {node: f"p{i}{k}" for (i, k), node in leaves.items()}
    known |= {node: f"s{k}" for k, node in enumerate(sent)} | {cotangent(s): f"d_{s.name}_now" for s in states}
    wanted = []
    for k, s in enumerate(states):
        column = [(row[k], i) for i, row in enumerate(slopes)]
        wanted.append((f"s{k}", build.total([cotangent(s), *(build.mul(n, sent[i]) for n, i in column if n is not None)])))
        wanted += [(f"p{k}{m}", build.total([build.mul(n, leaves[i, m]) for n, i in column if n is not None]))
                   for m in range(len(states))]  # fmt: skip
    kernel.write(wanted, known, 3, kept=len(wanted))
    kernel.add("place = (batch * tl.num_programs(1) + piece) * D + lane")
    kernel.add("apart = tl.cast(tl.num_programs(0) // blocks, tl.int64) * tl.num_programs(1) * D")
    for place, text in enumerate([*(f"p{i}{k}" for i, k in pairs), *(f"s{k}" for k in range(len(states)))]):
        kernel.add(f"tl.store(sent_ends + {place} * apart + place, {text}, mask=own)")
    return kernel.signature(name, [*_names(states, "{0}"), *_names(states, "d_{0}"), "sent_ends"], [])


def _adjoint(name: str, step: Step) -> list[str]:
    """The gradients of operands and starts."""
    kernel, states, count = _Kernel(step), step.states, len(step.states)
    _backwards(kernel, "Gradients of the operands, [B, T, lanes] or a sum for each piece, and of the start.")
    kernel.add("last = T - 1 - (tl.load(table + leading * 5) if PACKED else 0)")
    for k, s in enumerate(states):
        kernel.add(f"s{k} = tl.load(d_{s.name}_at + tl.cast(last, tl.int64) * along, mask=own, other=0)")
    kernel.add("apart = tl.cast(tl.num_programs(0) // blocks, tl.int64) * tl.num_programs(1) * D")
    kernel.add("for before in range(leading, piece):")
    kernel.add("place = (batch * tl.num_programs(1) + before) * D + lane", 2)
    for k in range(count):
        terms = [f"tl.load(sent_ends + {i} * apart + place, mask=own, other=0)" for i in (count * count + k,)]
        terms += [f"tl.load(sent_ends + {k * count + m} * apart + place, mask=own, other=0) * s{m}" for m in range(count)]
        kernel.add(f"s{k}_next = {' + '.join(terms)}", 2)
    for k in range(count):
        kernel.add(f"s{k} = s{k}_next", 2)
    for x in step.learned():
        if not x.moves:
            kernel.add(f"{x.name}_sum = tl.zeros([BD], tl.float32)")
        else:
            kernel.add(f"{x.name}_d_at = d_{x.name} + batch * T * D + lane")
    _back_steps(kernel)
    sent = {s.node: build.read(f"@s{k}", [], "real") for k, s in enumerate(states)}
    found = step.sent(sent)
    known = kernel.now() | {node: f"s{k}" for k, node in enumerate(sent.values())}
    known |= {cotangent(s): f"d_{s.name}_now" for s in states}
    moving = [x for x in step.learned() if x.moves]
    wanted = [(f"s{k}", build.add(cotangent(s), found.get(s.node, build.ZERO))) for k, s in enumerate(states)]
    for x in step.learned():
        if not x.moves:
            own = build.read(f"@{x.name}_sum", [], "real")
            known[own] = f"{x.name}_sum"
            wanted.append((f"{x.name}_sum", build.add(own, found[x.node])))
    kernel.write([*((f"{x.name}_pulled", found[x.node]) for x in moving), *wanted], known, 3, kept=len(wanted))
    for x in moving:
        kernel.add(f"if WANTS_{x.name}:", 3)
        text = f"{x.name}_pulled.to(d_{x.name}.dtype.element_ty)"
        kernel.add(f"tl.store({x.name}_d_at + place * along, {text}, mask=inside)", 4)
    kernel.add("if end == stop:")
    for k, s in enumerate(states):
        kernel.add(f"tl.store({s.name}_start + sequence * D + lane, s{k}, mask=own)", 2)
    for x in step.learned():
        if not x.moves:
            kernel.add(f"if WANTS_{x.name}:")
            place = f"d_{x.name} + (batch * tl.num_programs(1) + piece) * D + lane"
            kernel.add(f"tl.store({place}, {x.name}_sum, mask=own)", 2)
    tensors = [*_names(states, "{0}"), *_names(states, "d_{0}"), "sent_ends", *_names(step.learned(), "d_{0}")]
    return kernel.signature(name, [*tensors, *_names(states, "{0}_start")], _names(step.learned(), "WANTS_{0}"))

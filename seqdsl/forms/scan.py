"""Associative scan: `S[t] = a S[t-1] + b` entry by entry becomes one scan over the maps (a, b)."""

from __future__ import annotations

from dataclasses import replace

from seqdsl.algebra.affine import Diagonal, NoMatch, Update, diagonal
from seqdsl.ir import build
from seqdsl.ir.dependence import Loop
from seqdsl.ir.node import Node
from seqdsl.ir.ops import make
from seqdsl.ir.state import path_of_last
from seqdsl.ir.system import System, Tensor, edge_at_start


def to_scan(system: System, loop: Loop) -> System:
    """Replace each state's equation by `affine_scan`. Valid for entrywise affine updates; else `NoMatch`."""
    changed: list[Tensor] = []
    for state in diagonal(system, loop):
        changed += scanned(system, loop, state)
    return system.with_tensors(*changed)


def scanned(system: System, loop: Loop, state: Diagonal) -> list[Tensor]:
    """The state by one `affine_scan`, and the tensor that holds its start, if it needs one."""
    start, carry = start_of(system, state.update, loop, beside=True)
    options = (("log", state.log), ("reverse", loop.reverse))
    node = make("affine_scan", state.operand, state.write, start, attr=((state.update.time,), (), options))
    if node.dtype == "int" and not _keeps_or_drops(state.operand):
        raise NoMatch(f"`{state.update.state.name}` is an integer with a factor, which a scan would round")
    return [replace(state.update.state, rhs=node), *carry]


def _keeps_or_drops(decay: Node) -> bool:
    """Is it 0 or 1 everywhere? Then a scan of integers is exact: what was added since the last 0."""
    if decay.op == "where":
        return all(_keeps_or_drops(a) for a in decay.args[1:])
    return decay.dtype == "bool" or build.value_of(decay) in (0, 1) or decay.op == "mul" and all(map(_keeps_or_drops, decay.args))


def start_of(
    system: System, update: Update, loop: Loop, *, beside: bool = False
) -> tuple[Node, list[Tensor]]:
    """The state before the first step as a term over its other indices, and the tensor that holds it, if it needs one.

    Base cases along other indices lie `beside` a state that stays a tensor; a read of one that does not would miss them.
    Along the stream, upwards, it is the entry of the state record, with the base case as its default.
    """
    tensor, position = update.state, update.position
    rest = tensor.indices[:position] + tensor.indices[position + 1 :]
    past = system.tensors.get(f"{tensor.name}@past")  # several values, of which it starts from the last
    if past is not None:
        last = build.sub(build.size(past.indices[position]), build.ONE)
        return build.read(
            past.name, [last if i not in rest else build.index(i) for i in past.indices], tensor.dtype
        ), []
    default = build.zero(tensor.dtype)
    edge = edge_at_start(tensor, position, reverse=loop.reverse)
    if edge is not None:
        default = build.read(edge.tensor, [build.index(i) for i in rest], system.tensors[edge.tensor].dtype)
        if tensor.dtype in ("real", "complex"):
            default = build.at_least_real(default)
    across = next((e for e in tensor.edges if e.position != position), None)
    if across is not None and not beside:
        raise NoMatch(f"`{tensor.name}` has a base case along `{tensor.indices[across.position]}` as well")
    kept = system.record is not None and any(e.tensor == tensor.name for e in system.record)
    if loop.reverse or system.axis(tensor.indices[position]) != system.stream or not kept:
        return default, []
    name = f"{tensor.name}@start"
    carry = Tensor(
        name,
        rest,
        tensor.dtype,
        "carry",
        default,
        path=path_of_last(system, tensor.name),
        comment=f"{tensor.name} before the first position",
    )
    return build.read(name, [build.index(i) for i in rest], tensor.dtype), [carry]

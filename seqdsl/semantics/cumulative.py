"""`cumsum` along the stream as the recurrence that it is: S[t] = S[t-1] + x[t].

Along other axes it stays an operator. As a recurrence it is stepped, has a state, and takes part in what scans and
chunkwise forms do with recurrences (rules 20 and 22). Entry point: `unroll_sums`.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace
from itertools import count

from seqdsl.ir import build
from seqdsl.ir.node import Node, rebuild, walk
from seqdsl.ir.system import System, Tensor


def unroll_sums(system: System) -> System:
    """Every cumulative sum along the stream is the tensor whose whole equation it is, or one of its own."""
    tensors: dict[str, Tensor] = {}
    for tensor in system.tensors.values():
        while tensor.kind == "derived" and (node := _innermost(system, tensor)) is not None:
            if node is tensor.rhs and node.args[1] is build.TRUE and not tensor.edges:
                tensor = _running(system, tensor, node)
                break
            name = _free_name(system.tensors.keys() | tensors.keys(), tensor.name)
            indices = tuple(i for i in tensor.indices if i in node.free)
            tensors[name] = _running(system, Tensor(name, indices, node.dtype, "derived"), node)
            tensor = replace(tensor, rhs=_reading(tensor.rhs, node, tensors[name]))
        tensors[tensor.name] = tensor
    return replace(system, tensors=tensors)


def _free_name(taken: Set[str], near: str) -> str:
    """In the state record it stands beside the tensor that reads it."""
    name = f"{near.rpartition('.')[0]}.cumsum".lstrip(".")
    names = (name if k == 1 else f"{name}_{k}" for k in count(1))
    return next(n for n in names if n not in taken)


def _innermost(system: System, tensor: Tensor) -> Node | None:
    """A running sum that stands in no other's way: `walk` gives operands first."""
    nodes = walk(tensor.rhs) if tensor.rhs is not None else ()
    return next((node for node in nodes if _is_running(system, tensor, node)), None)


def _is_running(system: System, tensor: Tensor, node: Node) -> bool:
    return node.op == "cumsum" and node.attr[0] == (system.stream,) and node.free <= {*tensor.indices}


def _running(system: System, tensor: Tensor, node: Node) -> Tensor:
    body, guard = node.args
    stream = str(system.stream)
    before = {stream: build.sub(build.index(stream), build.ONE)}
    read = build.read(tensor.name, [before.get(i, build.index(i)) for i in tensor.indices], node.dtype)
    return replace(tensor, rhs=build.add(read, build.where(guard, body, build.ZERO)))


def _reading(rhs: Node | None, node: Node, sums: Tensor) -> Node:
    """The expression with the tensor in the node's place, 0 where its guard does not hold."""
    assert rhs is not None
    value = build.read(sums.name, [build.index(i) for i in sums.indices], node.dtype)
    value = build.where(node.args[1], value, build.ZERO)
    return rebuild(rhs, lambda part: value if part is node else None)

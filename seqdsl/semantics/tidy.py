"""After inlining: drop the copies that calls make, and mapped indices along which nothing varies.

Architecture invariant: each pass keeps the meaning of every tensor that remains, and touches compiler-made tensors
(dotted names) only; what the user wrote stays as written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from seqdsl.diagnostics import Span
from seqdsl.ir import build
from seqdsl.ir.node import Node, rebuild, walk
from seqdsl.ir.ops import OPS
from seqdsl.ir.system import System, Tensor


def inline_copies(system: System) -> System:
    """Replace reads of `X`, where X[i, j] = Y[j, i] on the same axes, by reads of Y."""
    keep = {*system.outputs, *(a for c in system.claims for a in c.args)}
    copies: dict[str, Tensor] = {}
    for tensor in system.derived():
        if "." in tensor.name and tensor.name not in keep and not tensor.edges and _is_copy(system, tensor):
            copies[tensor.name] = tensor
    edge_tensors = {e.tensor for t in system.tensors.values() for e in t.edges}
    copies = {n: t for n, t in copies.items() if n not in edge_tensors}

    def forward(node: Node) -> Node | None:
        seen = 0
        while node.op == "read" and node.attr in copies and seen <= len(copies):
            copy = copies[str(node.attr)]
            assert copy.rhs is not None
            at = dict(zip(copy.indices, node.args, strict=True))
            node = build.read(str(copy.rhs.attr), [at[str(s.attr)] for s in copy.rhs.args], copy.rhs.dtype)
            seen += 1
        return node

    return _rewrite(system, forward, set(copies))


def _is_copy(system: System, tensor: Tensor) -> bool:
    rhs = tensor.rhs
    if rhs is None or rhs.op != "read" or rhs.attr == tensor.name:
        return False
    names = [str(s.attr) if s.op == "index" else None for s in rhs.args]
    own = system.tensors[str(rhs.attr)].indices
    return (
        None not in names
        and len(set(names)) == len(names)
        and all(system.axis(str(n)) == system.axis(o) for n, o in zip(names, own, strict=True))
    )


def _rewrite(system: System, change: Callable[[Node], Node | None], drop: set[str]) -> System:
    spans: dict[object, Span] = dict(system.spans)
    tensors: dict[str, Tensor] = {}
    for name, tensor in system.tensors.items():
        if name in drop:
            continue
        if tensor.rhs is None:
            tensors[name] = tensor
            continue
        rhs = rebuild(tensor.rhs, change)
        if rhs is not tensor.rhs:
            for old in walk(tensor.rhs):
                span = spans.get((name, old))
                if span is not None and old.op == "read":
                    spans.setdefault((name, rebuild(old, change)), span)
        tensors[name] = replace(tensor, rhs=rhs)
    claims = tuple(replace(c, nodes=tuple(rebuild(n, change) for n in c.nodes)) for c in system.claims)
    return replace(system, tensors=tensors, claims=claims, spans=spans)


def narrow(system: System, mapped: Mapping[str, tuple[str, ...]]) -> System:
    """Drop a mapped index from the tensors of a call that do not vary along it."""
    edge_tensors = {e.tensor for t in system.tensors.values() for e in t.edges}
    fixed = {*system.outputs, *edge_tensors, *(a for c in system.claims for a in c.args)}
    candidates = {
        n: m
        for n, m in mapped.items()
        if m
        and n in system.tensors
        and n not in fixed
        and not system.tensors[n].edges
        and system.tensors[n].kind == "derived"
    }
    needed: dict[str, set[str]] = {n: set() for n in candidates}
    changed = True
    while changed:
        changed = False
        for name in candidates:
            rhs = system.tensors[name].rhs
            assert rhs is not None
            uses = _uses(rhs, candidates, needed, {}) & set(candidates[name])
            if uses - needed[name]:
                needed[name] |= uses
                changed = True
    dropped = {n: [k for k, i in enumerate(m) if i not in needed[n]] for n, m in candidates.items()}
    dropped = {n: ks for n, ks in dropped.items() if ks}
    if not dropped:
        return system

    def shorten(node: Node) -> Node | None:
        if node.op == "read" and node.attr in dropped:
            gone = dropped[str(node.attr)]
            return build.read(str(node.attr), [a for k, a in enumerate(node.args) if k not in gone], node.dtype)
        return None

    result = _rewrite(system, shorten, set())
    tensors = {
        n: replace(t, indices=tuple(i for k, i in enumerate(t.indices) if k not in dropped.get(n, ())))
        for n, t in result.tensors.items()
    }
    return replace(result, tensors=tensors)


def _uses(
    node: Node,
    candidates: Mapping[str, tuple[str, ...]],
    needed: Mapping[str, set[str]],
    done: dict[Node, frozenset[str]],
) -> frozenset[str]:
    """The indices that the value truly varies along: a mapped index that only passes through does not count."""
    if node in done:
        return done[node]
    if node.op == "index":
        result = node.free
    elif node.op == "read" and node.attr in candidates:
        lead = candidates[str(node.attr)]
        result = frozenset()
        for k, arg in enumerate(node.args):
            passes = k < len(lead) and lead[k] not in needed[str(node.attr)]
            result |= frozenset() if passes else _uses(arg, candidates, needed, done)
    else:
        below = frozenset().union(*(_uses(a, candidates, needed, done) for a in node.args))
        result = below & node.free if OPS[node.op].binding else below
        if OPS[node.op].binding in ("map", "fold"):
            result |= node.free - frozenset().union(*(a.free for a in node.args))
    done[node] = result
    return result

"""The one expression node of the compiler: frozen, interned, typed.

Equal terms are the same object, so `is` is equality, dictionaries keyed by nodes are cheap, and common subexpressions
are shared by construction. Source spans therefore live outside, in `System.spans`.

Architecture invariant: a node does not know what its operator means; that is `ops.OPS`. Build nodes with `ops.make`
or the constructors of `build`, which check arity and infer the dtype, not with `Node` itself.

Leaf operators and their `attr`:
  const   the value: bool, int, Fraction (reals), or one of the names "inf", "pi", "i"
  index   name of an index; the value is its integer position
  size    name of an index; the value is the length of its axis, `|t|`
  first   name of an axis; the position of its first element in this run: 0, or what a state record has seen
  option  name of an option (an integer that is fixed when the module is built)
  read    name of a tensor; `args` holds one integer subscript for each of the tensor's indices
Operators along axes have `attr = (indices, options)` or `(consumed, made, options)`: see `ops`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from functools import lru_cache
from typing import Any
from weakref import WeakValueDictionary

_interned: WeakValueDictionary[tuple[Any, ...], Node] = WeakValueDictionary()


class Node:
    """An operator applied to nodes. `free` holds the names of the indices that the value varies along."""

    __slots__ = ("op", "args", "attr", "dtype", "free", "__weakref__")
    op: str
    args: tuple[Node, ...]
    attr: Any
    dtype: str  # "bool", "int", "real" or "complex"
    free: frozenset[str]

    def __new__(cls, op: str, args: tuple[Node, ...], attr: Hashable, dtype: str, free: frozenset[str]) -> Node:
        found = interned(op, args, attr, dtype)
        if found is not None:
            return found
        node = object.__new__(cls)
        for slot, value in zip(cls.__slots__, (op, args, attr, dtype, free), strict=False):
            object.__setattr__(node, slot, value)
        _interned[op, args, type(attr), attr, dtype] = node
        return node

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("nodes are immutable")

    def __copy__(self) -> Node:
        return self

    def __deepcopy__(self, memo: object) -> Node:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Node, (self.op, self.args, self.attr, self.dtype, self.free)

    def __repr__(self) -> str:
        from seqdsl.ir.show import show

        return show(_shortened(self))


def interned(op: str, args: tuple[Node, ...], attr: Hashable, dtype: str) -> Node | None:
    """The node, if it is there already: the rest of it follows from these."""
    return _interned.get((op, args, type(attr), attr, dtype))


def walk(node: Node) -> Iterator[Node]:
    """Every distinct node below and including `node`, operands before operators."""
    seen: set[Node] = set()
    stack: list[Node | None] = [node]  # None stands before a node whose operands are done
    while stack:
        current = stack.pop()
        if current is None:
            done = stack.pop()
            assert done is not None
            yield done
        elif current not in seen:
            seen.add(current)
            if current.args:
                stack += (current, None, *current.args[::-1])
            else:
                yield current


_LONGEST = 400  # nodes of a term in a message; terms are shared, so one written out may be of any length


def _shortened(node: Node) -> Node:
    """The term, its large operands left out where it is long."""
    sizes: dict[Node, int] = {}
    for current in walk(node):
        sizes[current] = 1 + sum(sizes[arg] for arg in current.args)
    if sizes[node] <= _LONGEST:
        return node
    gap = Node("read", (), "..", "real", frozenset())
    args = tuple(arg if sizes[arg] <= _LONGEST // 10 else gap for arg in node.args)
    return Node(node.op, args, node.attr, node.dtype, node.free)


def rebuild(node: Node, change: Callable[[Node], Node | None]) -> Node:
    """Replace bottom up: `change` sees each node with its operands already replaced; None means no change."""
    from seqdsl.ir.ops import remake

    done: dict[Node, Node] = {}
    for current in walk(node):
        args = tuple([done[arg] for arg in current.args])
        new = current if args == current.args else remake(current, args)
        changed = change(new)
        done[current] = new if changed is None else changed
    return done[node]


def exchanged(node: Node, others: Mapping[Node, Node]) -> Node:
    """An expression with other parts in the place of some; what is inside those stays as it is."""
    from seqdsl.ir.ops import remake

    done: dict[Node, Node] = {}
    for current in walk(node):
        if current in others:
            done[current] = others[current]
        else:
            args = tuple([done[arg] for arg in current.args])
            done[current] = current if args == current.args else remake(current, args)
    return done[node]


def rebuild_reads(node: Node, names: Collection[str], change: Callable[[Node], Node | None]) -> Node:
    """`rebuild` of the reads of some tensors alone."""
    if read_names(node).isdisjoint(names):
        return node
    return rebuild(node, lambda n: change(n) if n.op == "read" and n.attr in names else None)


@lru_cache(20_000)
def reads(node: Node) -> tuple[Node, ...]:
    """Every distinct read below `node`; remembered, because nodes never change."""
    return tuple([n for n in walk(node) if n.op == "read"])


@lru_cache(20_000)
def read_names(node: Node) -> frozenset[str]:
    """The names of the tensors that are read below `node`."""
    return frozenset([str(read.attr) for read in reads(node)])

"""Directed graphs as dictionaries: for each node the nodes that its edges lead to, all of them nodes of the graph too.

What is found follows the order in which nodes and edges are listed, so that it is the same in every run; and chains may
be of any length, as those of a whole model are, for nothing here recurs.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from heapq import heapify, heappop, heappush
from typing import Any

Graph = Mapping[str, Collection[str]]


def turned(graph: Graph) -> dict[str, list[str]]:
    """The graph with every edge turned round."""
    result: dict[str, list[str]] = {node: [] for node in graph}
    for node, ends in graph.items():
        for end in ends:
            result[end].append(node)
    return result


def reachable(graph: Graph, starts: Iterable[str], beside: Collection[str] = ()) -> set[str]:
    """The starts, and the nodes that their edges lead to; without those that are `beside`, and what only they lead to."""
    found: set[str] = set()
    pending = list(starts)
    while pending:
        node = pending.pop()
        if node not in found and node not in beside:
            found.add(node)
            pending += graph[node]
    return found


def components(graph: Graph) -> list[set[str]]:
    """The strongly connected components: sets of nodes that lead to each other (Kosaraju; Sharir 1981)."""
    found: list[set[str]] = []
    placed: set[str] = set()
    back = turned(graph)
    for node in reversed(_finished(graph)):
        if node not in placed:
            found.append(reachable(back, [node], placed))
            placed |= found[-1]
    return found


def _finished(graph: Graph) -> list[str]:
    """The nodes in the order in which a search in depth leaves them."""
    found: list[str] = []
    seen: set[str] = set()
    for start in graph:
        path: list[tuple[str, Iterator[str]]] = [] if start in seen else [(start, iter(graph[start]))]
        seen.add(start)
        while path:
            node, ends = path[-1]
            end = next((e for e in ends if e not in seen), None)
            if end is None:
                found.append(node)
                path.pop()
            else:
                seen.add(end)
                path.append((end, iter(graph[end])))
    return found


def cycle(graph: Graph) -> list[str]:
    """The nodes of a cycle, in the direction of its edges; none where there is none."""
    done: set[str] = set()
    for start in graph:
        path: dict[str, Iterator[str]] = {} if start in done else {start: iter(graph[start])}
        while path:
            node = next(reversed(path))
            end = next((e for e in path[node] if e not in done), None)
            if end is None:
                done.add(node)
                del path[node]
            elif end in path:
                nodes = list(path)
                return nodes[nodes.index(end) :]
            else:
                path[end] = iter(graph[end])
    return []


def in_order(graph: Graph, rank: Callable[[str], Any]) -> list[str]:
    """The nodes of a graph without cycles, each before those that its edges lead to; of those that may come, the least."""
    waits = dict.fromkeys(graph, 0)
    for ends in graph.values():
        for end in ends:
            waits[end] += 1
    ready = [(rank(node), node) for node, count in waits.items() if not count]
    heapify(ready)
    found: list[str] = []
    while ready:
        node = heappop(ready)[1]
        found.append(node)
        for end in graph[node]:
            waits[end] -= 1
            if not waits[end]:
                heappush(ready, (rank(end), end))
    return found

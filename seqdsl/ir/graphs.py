"""Directed graphs as dictionaries, for each node the nodes that its edges lead to; what is asked of them networkx answers.

The one place that knows networkx. What is found does not depend on the order in which sets are listed, so that it is the
same in every run.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import networkx as nx

Graph = Mapping[str, Collection[str]]


def _known(graph: Graph) -> nx.DiGraph:
    return nx.DiGraph({node: list(ends) for node, ends in graph.items()})


def turned(graph: Graph) -> dict[str, list[str]]:
    """The graph with every edge turned round."""
    known = _known(graph)
    return {node: list(known.predecessors(node)) for node in graph}


def reachable(graph: Graph, starts: Iterable[str]) -> set[str]:
    """The starts, and the nodes that their edges lead to."""
    known, wanted = _known(graph), set(starts)
    return wanted.union(*(nx.descendants(known, node) for node in wanted))


def components(graph: Graph) -> list[set[str]]:
    """The strongly connected components: sets of nodes that lead to each other."""
    return list(nx.strongly_connected_components(_known(graph)))


def cycle(graph: Graph) -> list[str]:
    """The nodes of a cycle, in the direction of its edges; none where there is none."""
    try:
        return [edge[0] for edge in nx.find_cycle(_known(graph))]
    except nx.NetworkXNoCycle:
        return []


def in_order(graph: Graph, rank: Callable[[str], Any]) -> list[str]:
    """The nodes of a graph without cycles, each before those that its edges lead to; of those that may come, the least."""
    return list(nx.lexicographical_topological_sort(_known(graph), key=rank))

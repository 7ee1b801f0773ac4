"""Directed graphs against networkx, on random ones; and a chain that is deeper than Python's stack."""

from __future__ import annotations

import networkx as nx
from hypothesis import given
from hypothesis import strategies as st

from seqdsl.ir.graphs import components, cycle, in_order, reachable, turned

NAMES = "abcdefgh"
GRAPHS = st.sampled_from(range(1, len(NAMES) + 1)).flatmap(
    lambda size: st.fixed_dictionaries({n: st.lists(st.sampled_from(NAMES[:size]), unique=True) for n in NAMES[:size]})
)


@given(GRAPHS)
def test_components_and_what_is_reachable(graph: dict[str, list[str]]) -> None:
    known = nx.DiGraph(graph)
    assert sorted(map(sorted, components(graph))) == sorted(map(sorted, nx.strongly_connected_components(known)))
    for node in graph:
        assert reachable(graph, [node]) == nx.descendants(known, node) | {node}
        assert reachable(turned(graph), [node]) == nx.ancestors(known, node) | {node}


@given(GRAPHS)
def test_a_cycle_or_an_order(graph: dict[str, list[str]]) -> None:
    known = nx.DiGraph(graph)
    found = cycle(graph)
    assert bool(found) != nx.is_directed_acyclic_graph(known)
    assert len(set(found)) == len(found)
    assert all(end in graph[node] for node, end in zip(found, found[1:] + found[:1], strict=True))
    if not found:
        for rank in (str, lambda name: -ord(name)):
            assert in_order(graph, rank) == list(nx.lexicographical_topological_sort(known, key=rank))


def test_a_long_chain() -> None:
    names = [f"n{k:05}" for k in range(20_000)]
    graph = {a: [b] for a, b in zip(names, names[1:], strict=False)} | {names[-1]: []}
    assert in_order(graph, str) == names and not cycle(graph) and len(components(graph)) == len(names)
    assert len(components({**graph, names[-1]: [names[0]]})) == 1

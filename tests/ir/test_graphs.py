"""What is asked of graphs, and that no chain is too long."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from seqdsl.ir.graphs import components, cycle, in_order, reachable, turned

NAMES = "abcdefgh"
GRAPHS = st.sampled_from(range(1, len(NAMES) + 1)).flatmap(
    lambda size: st.fixed_dictionaries({n: st.lists(st.sampled_from(NAMES[:size]), unique=True) for n in NAMES[:size]})
)


@given(GRAPHS)
def test_components_are_the_nodes_that_reach_each_other(graph: dict[str, list[str]]) -> None:
    for part in components(graph):
        for node in part:
            assert part == reachable(graph, [node]) & reachable(turned(graph), [node])


@given(GRAPHS)
def test_a_cycle_or_an_order(graph: dict[str, list[str]]) -> None:
    found = cycle(graph)
    assert len(set(found)) == len(found)
    assert all(end in graph[node] for node, end in zip(found, found[1:] + found[:1], strict=True))
    if not found:
        order = in_order(graph, lambda name: -ord(name))
        assert sorted(order) == sorted(graph)
        assert all(order.index(node) < order.index(end) for node, ends in graph.items() for end in ends)


def test_of_the_nodes_that_may_come_the_least_is_next() -> None:
    assert in_order({"d": [], "c": ["a"], "b": [], "a": []}, str) == ["b", "c", "a", "d"]


def test_a_long_chain() -> None:
    names = [f"n{k:05}" for k in range(20_000)]
    graph = {a: [b] for a, b in zip(names, names[1:], strict=False)} | {names[-1]: []}
    assert in_order(graph, str) == names and not cycle(graph) and len(components(graph)) == len(names)
    assert len(components({**graph, names[-1]: [names[0]]})) == 1

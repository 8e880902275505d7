"""Loops in which every queue holds its producers up are found in the time it takes to walk the graph once."""

from __future__ import annotations

import pytest
from meshfold.core import Graph, Route, Schema, route
from meshfold.core.credit_cycles import credit_cycles
from meshfold.core.policy import FlowPolicy

RUNGS = 40


def at(name: str) -> Route[int]:
    return route("loop", "ladder", name, schema=Schema.int())


def ladder(rungs: int) -> Graph:
    """Diamonds one behind the other, top -> left and right -> next top: 2^rungs ways from one end to the other."""
    graph = Graph()
    for rung in range(rungs):
        for side in ("left", "right"):
            graph.connect(at(f"top-{rung}"), at(f"{side}-{rung}"))
            graph.connect(at(f"{side}-{rung}"), at(f"top-{rung + 1}"))
    return graph


def held(graph: Graph, source: str, sink: str) -> None:
    graph.connect(at(source), at(sink), flow=FlowPolicy(async_boundary="queued", overflow="block"))


@pytest.mark.timeout(60)
def test_a_ladder_of_diamonds_is_walked_once_and_has_no_loop() -> None:
    assert credit_cycles(ladder(RUNGS)) == []


@pytest.mark.timeout(60)
def test_loops_through_a_ladder_of_diamonds_are_told_by_few_of_them() -> None:
    graph = ladder(RUNGS)
    held(graph, f"top-{RUNGS}", "top-0")
    ahead = {(source.text, sink.text) for source, sink, _ in graph.flows()}
    cycles = credit_cycles(graph)
    assert 1 <= len(cycles) <= len(ahead)
    for cycle in cycles:
        assert len(cycle) == 2 * RUNGS + 1
        assert {*zip(cycle, (*cycle[1:], cycle[0]), strict=True)} <= ahead
        assert cycle[0] == min(cycle)
    assert len(graph.validate_graph()) == len(cycles)


def test_two_loops_apart_are_both_told_and_one_behind_a_loop_is_not_missed() -> None:
    graph = Graph()
    for one, other in (("a", "b"), ("c", "d")):
        graph.connect(at(one), at(other))
        held(graph, other, one)
    assert len(credit_cycles(graph)) == 2
    graph.connect(at("b"), at("c"))
    assert [{text[-1] for text in cycle} for cycle in credit_cycles(graph)] == [{"a", "b"}, {"c", "d"}]


def test_loops_that_share_a_route_are_each_told() -> None:
    graph = Graph()
    for leaf in ("x", "y"):
        graph.connect(at("middle"), at(leaf))
        held(graph, leaf, "middle")
    assert [{text.rpartition("/")[2] for text in cycle} for cycle in credit_cycles(graph)] == [
        {"middle", "x"},
        {"middle", "y"},
    ]

"""Failures on the debug plane, and that telling of them never feeds itself (S4)."""

from __future__ import annotations

import threading

from meshfold.core import Event, Graph, Schema, route
from meshfold.core.failures import Failure

IN = route("line-4", "press", "force", schema=Schema.float())
OUT = route("line-4", "press", "scaled", schema=Schema.float())
WAIT_S = 60.0


def broken(event: Event[float]) -> None:
    raise ValueError(f"no {event.value}")


def test_s4_failures_of_observers_and_operators_are_told_on_the_debug_plane() -> None:
    graph = Graph(name="line-4")
    told: list[Failure] = []
    r = graph.failures_route()
    assert r.address == "debug.logical.line-4.graph.failures.debug"
    assert graph.failures_route() is r
    graph.observe(r, lambda event: told.append(event.value))
    graph.observe(IN, broken)
    graph.pipe(IN).map(lambda item: 1 / item).into(OUT, name="scale")
    graph.publish(IN, 0.0)
    assert {(failure.name, failure.route) for failure in told} == {("broken", IN.text), ("scale", "")}
    assert any("division" in failure.error for failure in told)
    assert sorted(failure.number for failure in told) == [1, 2]
    assert graph.failures()[0] == 2


def test_s4_a_queued_observer_that_fails_is_told_with_its_name_and_route() -> None:
    graph = Graph()
    there = threading.Event()
    told: list[Failure] = []

    def tell(event: Event[Failure]) -> None:
        told.append(event.value)
        there.set()

    graph.observe(graph.failures_route(), tell)
    with graph.observe(IN, broken, capacity=4):
        graph.publish(IN, 1.0)
        assert there.wait(WAIT_S)
    assert (told[0].name, told[0].route) == ("broken", IN.text)
    assert "ValueError: no 1.0" in told[0].error


def test_s4_a_reader_of_failures_that_fails_is_counted_and_not_told_for_ever() -> None:
    graph = Graph()
    r = graph.failures_route()

    def fails(event: Event[Failure]) -> None:
        raise RuntimeError("again")

    graph.observe(r, fails)
    graph.observe(IN, broken)
    graph.publish(IN, 1.0)
    assert graph.published(r) == 1
    assert graph.failures()[0] == 2


def test_s4_whoever_does_not_ask_pays_nothing() -> None:
    graph = Graph()
    graph.observe(IN, broken)
    graph.publish(IN, 1.0)
    assert [r.addr.plane for r in graph.routes()] == ["read"]

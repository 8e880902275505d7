"""Deferred turns: events that nobody looks at may wait for each other, and nobody can tell."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from meshfold.core import Event, Graph, LogClock, mean, value
from plans import ASIDE, IN, MID, OTHER, OUT, PLANS, Plan, all_of, plain, wired

#: As `DEFERRED_MAX` of the engine.
WAITING_MAX = 256

#: What is published: on IN or OTHER, a value, how much later than the one before, and whether somebody looks after it.
STEPS = st.lists(
    st.tuples(
        st.sampled_from([True, True, True, False]),
        st.one_of(st.integers(-5, 50).map(float), st.sampled_from([float("inf"), float("nan"), 0.5])),
        st.integers(0, 40),
        st.sampled_from([False, False, False, True]),
    ),
    min_size=1,
    max_size=40,
)


def _publish(
    graph: Graph, clock: LogClock, steps: list[tuple[bool, float, int, bool]], *, always: bool
) -> Any:
    """Publish; with `always` somebody looks after each event, so that none waits."""
    made: list[Event[float]] = []
    for on_in, number, later, look in steps:
        clock.wall_ns += later
        made.append(graph.publish(IN if on_in else OTHER, number))
        if look or always:
            graph.published(OUT)
    return [plain(event) for event in made]


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.__name__)
@settings(max_examples=25, deadline=None)
@given(steps=STEPS, history=st.sampled_from([10_000, 2]))
def test_s3_nobody_can_tell_whether_an_event_waited(
    plan: Plan, steps: list[tuple[bool, float, int, bool]], history: int
) -> None:
    found = []
    for always in (True, False):
        graph, clock = wired(plan, history=history)
        made = _publish(graph, clock, steps, always=always)
        clock.wall_ns += 10_000_000_000
        graph.advance()
        found.append((made, all_of(graph)))
    assert found[1] == found[0]


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.__name__)
def test_s3_more_than_may_wait_are_worked_on_in_order(plan: Plan) -> None:
    steps = [(True, float(i % 11), 3, False) for i in range(3 * WAITING_MAX + 7)]
    found = []
    for always in (True, False):
        graph, clock = wired(plan, history=500)
        made = _publish(graph, clock, steps, always=always)
        found.append((made, all_of(graph)))
    assert found[1] == found[0]


def test_s4_an_observer_sees_what_is_published_from_then_on_and_the_latest_before() -> None:
    graph = Graph()
    graph.pipe(IN).map(value + 1).into(OUT)
    for number in range(20):
        graph.publish(IN, float(number))
    seen: list[float] = []
    graph.observe(OUT, lambda event: seen.append(event.value))
    assert seen == [20.0]
    graph.publish(IN, 20.0)
    assert seen == [20.0, 21.0]


def test_every_way_to_look_shows_what_waited() -> None:
    looks: dict[str, Any] = {
        "latest": lambda graph: graph.latest(OUT).value,
        "history": lambda graph: graph.history(OUT)[-1].value,
        "published": lambda graph: float(graph.published(OUT)),
        "replay": lambda graph: graph.replay(OUT).events[-1].value,
        "query": lambda graph: graph.query("latest", route=OUT.text).rows[0].event["value"],
        "counters": lambda graph: float(graph.edges()[0].counters.delivered),
        "operators": lambda graph: float(graph.operators()[0].emitted),
    }
    for name, look in looks.items():
        graph = Graph()
        graph.pipe(IN).map(value + 1).into(OUT)
        for number in range(9):
            graph.publish(IN, float(number))
        assert look(graph) == 9.0, name


def test_s4_failures_of_what_waited_are_there_when_somebody_asks() -> None:
    graph = Graph()
    graph.pipe(IN).map(1 / value).into(OUT)
    for number in (1.0, 0.0, 2.0, 0.0):
        graph.publish(IN, number)
    count, texts = graph.failures()
    assert (count, len(texts)) == (2, 2)
    assert graph.published(OUT) == 2
    # Whoever listens to failures is told at once.
    told: list[int] = []
    graph.observe(graph.failures_route(), lambda event: told.append(event.value.number))
    for number in (0.0, 0.0, 0.0):
        graph.publish(IN, number)
        assert len(told) == int(told[-1] - told[0]) + 1
    assert len(told) == 3


def test_s2_numbers_go_on_over_routes_and_threads() -> None:
    graph = Graph()
    graph.pipe(IN).map(value + 1).into(OUT)
    graph.pipe(OTHER).map(mean(3)).into(MID)
    graph.join_latest(OUT, MID, combine=value[0] + value[1]).into(ASIDE)
    begin, each = threading.Barrier(3), 2_000
    numbers: dict[str, list[int]] = {}

    def publish(name: str, r: Any) -> None:
        begin.wait()
        numbers[name] = [graph.publish(r, float(i)).seq for i in range(each)]

    def look() -> None:
        begin.wait()
        last = 0
        while last < 2 * each:
            seen = graph.published(OUT) + graph.published(MID)
            assert seen >= last
            last = seen

    threads = [
        threading.Thread(target=publish, args=("in", IN)),
        threading.Thread(target=publish, args=("other", OTHER)),
        threading.Thread(target=look),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert numbers["in"] == numbers["other"] == list(range(1, each + 1))
    assert graph.published(ASIDE) >= each
    assert [edge.counters.pending for edge in graph.edges()] == [0] * len(graph.edges())

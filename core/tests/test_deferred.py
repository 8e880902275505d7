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
    for number, known in ((1.0, 0), (0.0, 1), (2.0, 1), (0.0, 2), (0.0, 3)):
        graph.publish(IN, number)
        assert len(told) == known


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


def test_s3_a_function_is_called_with_each_event_at_once_and_finds_it_in_its_turn() -> None:
    graph = Graph()
    seen: list[tuple[float, int, int]] = []

    def look(x: float) -> float:
        at = graph.published(IN), graph.published(OUT)
        seen.append((x, *at))
        return x + 1

    def glance(x: float) -> float:
        seen.append((x, 0, 0))
        # Only the third looks.
        return look(x) if x == 2 else x + 1

    made = graph.pipe(IN).map(glance).into(OUT)
    for number in range(5):
        graph.publish(IN, float(number))
        assert seen[-1][0] == number
    assert seen == [(0, 0, 0), (1, 0, 0), (2, 0, 0), (2, 3, 2), (3, 0, 0), (4, 0, 0)]
    made.close()
    seen.clear()
    graph.pipe(IN).map(look).into(OUT)
    for number in range(3):
        graph.publish(IN, float(number))
    assert seen == [(0, 6, 5), (1, 7, 6), (2, 8, 7)]
    assert [event.value for event in graph.history(OUT)] == [1, 2, 3, 4, 5, 1, 2, 3]


def test_s3_what_a_function_publishes_comes_behind_its_event() -> None:
    graph = Graph()

    def answer(x: float) -> float:
        if x % 3 == 1:
            graph.publish(OTHER, x)
            graph.publish(IN, 100 + x + 1)
        return x

    graph.pipe(IN).map(answer).into(OUT)
    graph.configure_retention(OUT, history=100)
    order = [graph.publish(IN, float(number)).id for number in range(7)]
    assert [event.value for event in graph.history(OUT)] == [0, 1, 102, 2, 3, 4, 105, 5, 6]
    assert graph.published(OTHER) == 2
    assert [event.parents[0] for event in graph.history(OUT) if event.value < 100] == order


def test_s4_a_function_that_raises_fails_at_once_and_costs_its_event_alone() -> None:
    graph = Graph()

    def doubtful(x: float) -> float:
        if x == 3:
            raise ValueError("three")
        if x == 5:
            raise KeyboardInterrupt
        return x

    graph.pipe(IN).map(doubtful).into(OUT)
    for number in range(5):
        graph.publish(IN, float(number))
    with pytest.raises(KeyboardInterrupt):
        graph.publish(IN, 5.0)
    graph.publish(IN, 6.0)
    assert [event.value for event in graph.history(OUT)] == [0, 1, 2, 4, 6]
    assert graph.failures() == (1, [("pipe runs/test/in -> runs/test/out", "ValueError: three")])
    assert graph.published(IN) == 7
    assert [edge.counters.delivered for edge in graph.edges()] == [7]


def test_s3_another_thread_that_publishes_while_a_function_runs_waits_for_its_turn() -> None:
    graph = Graph()
    inside, go_on = threading.Event(), threading.Event()

    def slow(x: float) -> float:
        if x == 2:
            inside.set()
            assert go_on.wait(60)
        return x

    graph.pipe(IN).map(slow).into(OUT)

    def other() -> None:
        assert inside.wait(60)
        graph.publish(IN, 10.0)
        graph.publish(OTHER, 11.0)
        assert [event.value for event in graph.history(OUT)] == [0, 1]
        go_on.set()

    thread = threading.Thread(target=other)
    thread.start()
    for number in range(4):
        graph.publish(IN, float(number))
    thread.join(60)
    assert [event.value for event in graph.history(OUT)] == [0, 1, 2, 10, 3]
    assert [event.seq for event in graph.history(IN)] == [1, 2, 3, 4, 5]
    assert graph.published(OTHER) == 1

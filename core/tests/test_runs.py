"""Runs: what is published at once gives exactly what it gives one after the other."""

from __future__ import annotations

from array import array
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from meshfold.core import Event, Graph, LogClock, Route, Tracing, transcript_of
from plans import (
    ALL,
    IN,
    OTHER,
    OUT,
    PLANS,
    Plan,
    all_of,
    expressions,
    forward,
    lambdas,
    lookup,
    other_windows,
    rolling,
    sliding,
    two_nodes,
    wired,
)


def _publish(
    graph: Graph, values: list[float], times: list[int], keys: list[str] | None, at_once: bool
) -> None:
    if at_once:
        graph.publish_many(IN, values, times=times, keys=keys)
        return
    for place, one in enumerate(values):
        graph.publish(IN, one, time=times[place], key=keys[place] if keys else None)


BATCHES = st.lists(
    st.lists(
        st.tuples(
            st.one_of(st.integers(-5, 50).map(float), st.sampled_from([float("inf"), float("nan"), 0.5])),
            st.integers(-60, 60),
        ),
        min_size=1,
        max_size=12,
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.__name__)
@pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "disordered"])
@settings(max_examples=25, deadline=None)
@given(batches=BATCHES, keyed=st.booleans(), history=st.sampled_from([10_000, 2]))
def test_s2_a_run_gives_what_its_events_give_one_at_a_time(
    plan: Plan, ordered: bool, batches: list[list[tuple[float, int]]], keyed: bool, history: int
) -> None:
    # Functions that keep state of their own are made for each graph by the plan.
    one, one_clock = wired(plan, history=history)
    many, many_clock = wired(plan, history=history)
    now = 0
    for batch in batches:
        now += 50
        shifts = sorted(shift for _, shift in batch) if ordered else [shift for _, shift in batch]
        times = [now + shift + (60 if ordered else 0) for shift in shifts]
        values = [number for number, _ in batch]
        keys = [f"k{int(shift) % 2}" for shift in shifts] if keyed else None
        for graph, clock, at_once in ((one, one_clock, False), (many, many_clock, True)):
            clock.wall_ns = now
            _publish(graph, values, times, keys, at_once)
            if len(batch) % 3 == 0:
                graph.publish(OTHER, float(len(batch)))
    for graph, clock in ((one, one_clock), (many, many_clock)):
        clock.wall_ns = now + 10_000_000_000
        graph.advance()
    assert all_of(many) == all_of(one)


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.__name__)
def test_s3_transcripts_of_runs_are_those_of_single_events(plan: Plan) -> None:
    transcripts = []
    for at_once in (False, True):
        graph, clock = wired(plan, recorded=True)
        clock.wall_ns = 1000
        _publish(graph, [float(i % 7) for i in range(40)], [1000 + 7 * i for i in range(40)], None, at_once)
        transcripts.append(transcript_of(graph))
    assert transcripts[0] == transcripts[1]


@pytest.mark.parametrize("plan", [expressions, rolling, lookup, lambdas, sliding])
@pytest.mark.parametrize("roots", [3, 0])
def test_s30_of_a_run_the_same_events_are_sampled_as_of_single_ones(plan: Plan, roots: int) -> None:
    found: list[Any] = []
    for at_once in (False, True):
        graph, clock = wired(plan)
        tracing = Tracing(graph)
        tracing.start(0.5, roots_per_s=roots)
        for second in range(3):
            clock.wall_ns = 1_000_000_000 * (second + 1)
            times = [clock.wall_ns + 7 * i for i in range(40)]
            _publish(graph, [float(i % 9) for i in range(40)], times, None, at_once)
        spans = sorted((s.event, s.kind, s.span, s.parent, s.trace, s.inputs) for s in tracing.take(10_000))
        found.append((all_of(graph), spans))
        assert len({span[4] for span in spans if span[0] in {e.id for e in graph.history(IN)}}) == 3 * roots
    assert found[0] == found[1]


@pytest.mark.parametrize("plan", [expressions, two_nodes, forward, sliding, other_windows])
def test_s4_observers_of_a_run_are_called_in_the_order_of_its_elements(plan: Plan) -> None:
    found: list[list[Any]] = []
    for at_once in (False, True):
        graph, clock = wired(plan)
        clock.wall_ns = 500
        calls: list[Any] = []
        for r in ALL:

            def see(event: Event[Any], calls: list[Any] = calls, r: Route[Any] = r) -> None:
                calls.append((r.text, event.seq, event.value))
                if event.seq == 3:
                    raise ValueError(f"{r.text} {event.seq}")

            graph.observe(r, see)
        _publish(graph, [float(i % 9) for i in range(60)], [500 + 7 * i for i in range(60)], None, at_once)
        found.append([calls, graph.failures(), all_of(graph)])
    assert found[0] == found[1]
    assert len(found[0][0]) > 60


def test_a_function_that_stops_iteration_or_raises_costs_its_value_alone() -> None:
    def doubtful(x: float) -> float:
        if x % 5 == 0:
            raise StopIteration
        if x % 7 == 0:
            raise ValueError(x)
        return x

    graph = Graph()
    graph.configure_retention(OUT, history=100)
    made = graph.pipe(IN).filter(lambda x: x != 4).map(doubtful).map(lambda x: x * 2).into(OUT)
    graph.publish_many(IN, [float(i) for i in range(30)])
    expected = [2.0 * i for i in range(30) if i != 4 and i % 5 and i % 7]
    assert [event.value for event in graph.history(OUT)] == expected
    (info,) = [info for info in graph.operators() if info.id == made.id]
    assert (info.emitted, info.failed) == (len(expected), 10)
    count, texts = graph.failures()
    assert count == 10
    assert {text.split(":")[0] for _, text in texts} == {"StopIteration", "ValueError"}


def test_a_publish_from_a_function_of_a_run_comes_behind_the_run() -> None:
    graph = Graph()
    graph.configure_retention(OTHER, history=100)

    def tell(x: float) -> float:
        graph.publish(OTHER, x)
        return x

    graph.pipe(IN).map(tell).into(OUT)
    graph.publish_many(IN, [1.0, 2.0, 3.0])
    assert [event.value for event in graph.history(OTHER)] == [1.0, 2.0, 3.0]
    assert graph.published(OUT) == 3


def test_times_come_as_a_buffer() -> None:
    graph = Graph()
    graph.configure_retention(IN, history=100)
    graph.publish_many(IN, np.arange(3.0), times=np.arange(10, 13))
    graph.publish_many(IN, array("d", [1.0]), times=array("q", [7]))
    assert [event.time for event in graph.history(IN)] == [10, 11, 12, 7]
    with pytest.raises(ValueError, match="one entry for each"):
        graph.publish_many(IN, [1.0], times=np.arange(2))
    with pytest.raises(TypeError):
        graph.publish_many(IN, [1.0], times=[1.5])


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.__name__)
@pytest.mark.parametrize("history", [10_000, 2])
def test_s2_a_batch_from_elsewhere_gives_what_its_events_give_one_at_a_time(plan: Plan, history: int) -> None:
    edge = Graph(name="edge", clock=LogClock(), seed=4)
    tap = edge.tap(IN, capacity=10_000)
    found: list[Any] = []
    batches: dict[int, list[Any]] = {1: [], 30: []}
    for events in (1, 30):
        edge = Graph(name="edge", clock=LogClock(), seed=4)
        tap = edge.tap(IN, capacity=10_000)
        for round_ in range(3):
            begin = 100 + 90 * round_
            edge.publish_many(
                IN, [float((i * 7) % 11) for i in range(30)], times=[begin + 3 * i for i in range(30)]
            )
            edge.publish(IN, 4.0, time=begin + 80, taints=["TIME_ESTIMATED"])
        while batch := tap.drain(events):
            batches[events].append(batch)
    for events in (1, 30):
        graph, clock = wired(plan, history=history)
        inlet = graph.inlet(IN)
        clock.wall_ns = 500
        for batch in batches[events]:
            inlet.push(batch.meta, batch.payload, producer=batch.producer, incarnation=batch.incarnation)
        # Once more: all of them came before.
        batch = batches[events][0]
        receipt = inlet.push(
            batch.meta, batch.payload, producer=batch.producer, incarnation=batch.incarnation
        )
        assert receipt.duplicates == events
        found.append((all_of(graph), [event.seq_link for event in graph.history(IN)]))
    assert found[0] == found[1]

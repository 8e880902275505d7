"""Runs that repeat, joins that are planned, and many threads at once."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from meshfold.core import (
    Event,
    Graph,
    JoinInput,
    LogClock,
    Schema,
    Taint,
    WiringError,
    field,
    mean,
    record,
    rerun,
    route,
    sum_,
    transcript_of,
    value,
)
from meshfold.core.query import JoinRow

IN = route("det", "test", "in", schema=Schema.float())
OUT = route("det", "test", "out", schema=Schema.float())
ROWS = route("det", "test", "rows", schema=Schema.of(dict[str, int], name="rows"))
STATE = route("det", "test", "state", schema=Schema.of(dict[str, int], name="rows"))
PAIRS = route("det", "test", "pairs", schema=Schema.int())


def wired() -> tuple[Graph, LogClock]:
    clock = LogClock()
    graph = Graph(name="det", clock=clock, seed=7)
    record(graph)
    graph.configure_retention(IN, history=1000)
    graph.configure_retention(OUT, history=1000)
    graph.pipe(IN).debounce(1e-6).map(mean(3)).filter(value >= 0).into(OUT)
    windows = route("det", "test", "windows", schema=Schema.float())
    graph.window(IN, width=5_000, disorder=100, aggregate=sum_()).into(windows)
    return graph, clock


def test_the_same_inputs_give_the_same_transcript_and_a_log_run_again_the_same_events() -> None:
    first, clock = wired()
    for step in range(50):
        clock.wall_ns += 700 if step % 3 else 1700
        first.publish(IN, float(step), time=clock.wall_ns - step % 7, key="k", taints=[Taint.TIME_ESTIMATED])
    log = first.history(IN)
    second, other = wired()
    assert rerun(second, log, other) == 50
    assert transcript_of(second) == transcript_of(first)
    assert [event.id for event in second.history(OUT)] == [event.id for event in first.history(OUT)]
    third, other = wired()
    rerun(third, log[:-1], other)
    assert transcript_of(third) != transcript_of(first)
    with pytest.raises(WiringError, match="no transcript"):
        transcript_of(Graph())


@pytest.mark.parametrize(
    ("left", "right", "kind", "routes"),
    [
        ({"partitioned_by": "who"}, {"partitioned_by": "who", "bounded": True}, "local_keyed", 0),
        ({}, {"materialized": True}, "lookup", 0),
        ({}, {"mirrored": True, "bounded": True}, "broadcast_mirror", 1),
        ({}, {"bounded": True}, "repartition", 2),
    ],
)
def test_m59_a_plan_is_chosen_executed_and_measured(left: Any, right: Any, kind: str, routes: int) -> None:
    graph = Graph()
    key = field("who")
    plan = graph.plan_join(
        "pairs", JoinInput(ROWS, key, **left), JoinInput(STATE, key, **right), partitions=4
    )
    assert plan.kind == kind
    assert len(plan.routes) == routes
    operators = plan.install(value[0]["x"] + value[1]["x"], PAIRS)
    assert {operator.id for operator in operators} == {info.id for info in graph.operators()}
    seen: list[int] = []
    graph.observe(PAIRS, lambda event: seen.append(event.value))
    graph.publish(STATE, {"who": 1, "x": 100})
    graph.publish(STATE, {"who": 2, "x": 200})
    for _ in range(8):
        graph.publish(ROWS, {"who": 1, "x": 5})
    graph.publish(ROWS, {"who": 2, "x": 6})
    assert seen == [105] * 8 + [206]
    made = graph.latest(PAIRS)
    assert made is not None
    assert len(made.parents) == 2
    told = graph.explain_join(plan)
    assert (told.kind, told.items) == (kind, 9)
    assert told.largest_partition_size >= 8
    assert told.hot_key_frequency == pytest.approx(8 / 9)
    assert told.skew == pytest.approx(told.largest_partition_size * 4 / 9)
    answered = graph.query("explain_join", name="pairs").rows
    assert [(row.kind, row.items, row.runs) for row in answered if isinstance(row, JoinRow)] == [
        (kind, 9, True)
    ]
    assert graph.explain_join("pairs") == told
    with pytest.raises(WiringError, match="runs already"):
        plan.install(None, PAIRS)
    other = graph.plan_join("pairs", JoinInput(ROWS, key), JoinInput(STATE, key, bounded=True))
    with pytest.raises(WiringError, match="runs already"):
        other.install(None, PAIRS)
    plan.close()
    assert graph.operators() == []
    assert graph.explain_join("pairs").items == 0
    with pytest.raises(WiringError, match="no join is named 'none'"):
        graph.explain_join("none")
    with pytest.raises(WiringError, match="no join 'none' here"):
        graph.query("explain_join", name="none")


@pytest.mark.parametrize(
    ("left", "right", "why"),
    [
        ({"clock": "ptp"}, {"bounded": True}, "timed by"),
        ({}, {}, "unbounded"),
        ({"rekey": False}, {"bounded": True}, "keys of the sides differ"),
    ],
)
def test_m59_joins_that_cannot_be_right_are_refused(left: Any, right: Any, why: str) -> None:
    with pytest.raises(WiringError, match=why):
        Graph().plan_join("pairs", JoinInput(ROWS, **left), JoinInput(STATE, **right))


def test_m18_a_queued_observer_takes_events_in_batches_and_ends_when_closed() -> None:
    graph = Graph()
    found: list[int] = []
    done = threading.Event()

    def take(events: list[Event[float]]) -> None:
        found.extend(event.seq for event in events)
        if len(found) == 100:
            done.set()

    subscription = graph.observe(IN, take, batch=True)
    graph.publish_many(IN, [float(i) for i in range(100)])
    assert done.wait(30)
    assert found == list(range(1, 101))
    subscription.close()
    assert subscription.counters.unexplained == 0


def test_four_threads_publish_while_observers_are_slow_raise_and_an_operator_is_removed() -> None:
    graph = Graph()
    each = 500
    order: list[int] = []
    graph.observe(IN, lambda event: order.append(event.seq))

    def raises(event: Event[float]) -> None:
        raise RuntimeError(f"number {event.seq}")

    graph.observe(IN, raises)
    gate = threading.Event()
    slow_seen: list[int] = []

    def slow(event: Event[float]) -> None:
        gate.wait(30)
        slow_seen.append(event.seq)

    slow_one = graph.observe(IN, slow, capacity=16)
    kept = graph.pipe(IN).map(value * 2).into(OUT)
    removed_route = route("det", "test", "removed", schema=Schema.float())
    removed = graph.pipe(IN).map(lambda item: item + 1).into(removed_route)

    def publish() -> None:
        for number in range(each):
            graph.publish(IN, float(number))

    threads = [threading.Thread(target=publish) for _ in range(4)]
    for thread in threads:
        thread.start()
    removed.close()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    gate.set()
    graph.publish(IN, 0.0)
    total = 4 * each + 1
    assert order == list(range(1, total + 1))
    assert graph.published(OUT) == total
    assert (kept.counters.offered, kept.counters.unexplained) == (total, 0)
    assert graph.failures()[0] == total
    counters = slow_one.counters
    assert (counters.offered, counters.unexplained) == (total, 0)
    slow_one.close()
    assert slow_seen == sorted(slow_seen)

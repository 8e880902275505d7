"""Flow elements: what they hold, let pass, lose and say about it."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from meshfold.core import Event, Graph, Schema, SchemaMismatch, WiringError, route
from meshfold.core.clocks import ManualClock
from meshfold.core.elements import RateMatchedSensor

SOURCE = route("pump-1", "flow", "rate", schema=Schema.int())
SINK = route("pump-1", "flow", "rate-out", schema=Schema.int())
DEMAND = route("pump-1", "flow", "demand", schema=Schema.bool())
TICK = route("pump-1", "flow", "tick", schema=Schema.int())
ALARM = route("pump-1", "flow", "alarm", schema=Schema.bytes())
ROOM = route("pump-1", "flow", "room", schema=Schema.int())


def collect(graph: Graph, r: Any = SINK) -> list[Event[Any]]:
    seen: list[Event[Any]] = []
    graph.observe(r, seen.append)
    return seen


def values(seen: list[Event[Any]]) -> list[Any]:
    return [event.value for event in seen]


# M30 capacitor


def test_m30_without_demand_or_immediate_it_is_refused() -> None:
    graph = Graph()
    with pytest.raises(WiringError, match="never emit"):
        graph.capacitor(SOURCE, SINK)
    with pytest.raises(WiringError, match="exclude"):
        graph.capacitor(SOURCE, SINK, demand=DEMAND, immediate=True)
    with pytest.raises(WiringError, match="capacity"):
        graph.capacitor(SOURCE, SINK, demand=DEMAND, capacity=0)
    with pytest.raises(WiringError, match="overflow"):
        graph.capacitor(SOURCE, SINK, demand=DEMAND, overflow="whatever")
    with pytest.raises(SchemaMismatch):
        other: Any = ALARM
        graph.capacitor(SOURCE, other, immediate=True)
    assert graph.operators() == []


def test_m30_early_demand_is_remembered_up_to_the_capacity() -> None:
    graph = Graph()
    seen = collect(graph)
    graph.capacitor(SOURCE, SINK, capacity=2, demand=DEMAND)
    for _ in range(5):
        graph.publish(DEMAND, True)
    graph.publish_many(SOURCE, [1, 2, 3, 4])
    assert values(seen) == [1, 2]
    graph.publish(DEMAND, True)
    assert values(seen) == [1, 2, 3]


@pytest.mark.parametrize(
    ("overflow", "passed", "reason", "taint"),
    [
        ("drop_oldest", [3, 4], "overflow_oldest", "DELIVERY_DROPPED"),
        ("latest", [1, 4], "coalesced", "DELIVERY_COALESCED"),
        ("reject", [1, 2], "overflow_newest", "DELIVERY_DROPPED"),
    ],
)
def test_m30_each_overflow_rule_loses_what_it_says_counts_it_and_taints_the_next(
    overflow: str, passed: list[int], reason: str, taint: str
) -> None:
    graph = Graph()
    seen, rejected = collect(graph), collect(graph, TICK)
    operator = graph.capacitor(SOURCE, SINK, capacity=2, demand=DEMAND, overflow=overflow, rejected=TICK)
    graph.publish_many(SOURCE, [1, 2, 3, 4])
    graph.publish(DEMAND, True)
    graph.publish(DEMAND, True)
    assert values(seen) == passed
    assert [event.taints for event in seen] == [[taint], []]
    (edge,) = [row for row in graph.edges() if row.route == SOURCE.text]
    assert (edge.counters.offered, edge.counters.delivered, edge.counters.pending) == (4, 2, 0)
    assert edge.counters.dropped == {reason: 2}
    assert edge.counters.unexplained == 0
    assert values(rejected) == ([3, 4] if overflow == "reject" else [])
    assert operator.describe().dropped == {reason: 2}


def test_m30_it_is_seen_keeps_epoch_and_parent_tells_upstream_and_can_be_removed() -> None:
    graph = Graph()
    seen, room = collect(graph), collect(graph, ROOM)
    with graph.capacitor(SOURCE, SINK, capacity=3, demand=DEMAND, upstream=ROOM) as operator:
        source = graph.publish(SOURCE, 7)
        (info,) = graph.operators()
        assert (info.label, info.stages[0].gauges["depth"]) == ("capacitor", 1)
        assert {r.text for r, _, _ in info.inputs} == {SOURCE.text, DEMAND.text}
        graph.publish(DEMAND, True)
        assert values(room) == [2, 3]
        assert (seen[0].parents, seen[0].trace) == ([source.id], source.trace)
        graph.publish(SOURCE, 8)
        assert operator.counters.pending == 1
    graph.publish(DEMAND, True)
    assert values(seen) == [7]
    assert graph.operators() == []


def test_m30_a_latest_value_counts_as_input_at_install() -> None:
    graph = Graph()
    seen = collect(graph)
    graph.publish(SOURCE, 5)
    graph.capacitor(SOURCE, SINK, demand=DEMAND)
    graph.publish(DEMAND, True)
    assert values(seen) == [5]


def test_m30_what_it_holds_survives_a_checkpoint() -> None:
    graph = Graph()
    operator = graph.capacitor(SOURCE, SINK, capacity=4, demand=DEMAND)
    graph.publish_many(SOURCE, [1, 2])
    other = Graph()
    seen = collect(other)
    other.capacitor(SOURCE, SINK, capacity=4, demand=DEMAND).restore(operator.checkpoint())
    other.publish(SOURCE, 3)
    for _ in range(3):
        other.publish(DEMAND, True)
    assert values(seen) == [1, 2, 3]


@given(st.lists(st.one_of(st.integers(0, 99), st.none()), max_size=40), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_m30_it_does_what_a_list_and_a_number_do(steps: list[int | None], capacity: int) -> None:
    graph = Graph()
    seen = collect(graph)
    operator = graph.capacitor(SOURCE, SINK, capacity=capacity, demand=DEMAND, overflow="drop_oldest")
    held: list[int] = []
    credit, passed = 0, []
    for step in steps:
        if step is None:
            graph.publish(DEMAND, True)
            if held:
                passed.append(held.pop(0))
            else:
                credit = min(credit + 1, capacity)
            continue
        graph.publish(SOURCE, step)
        if credit:
            credit -= 1
            passed.append(step)
        else:
            held = [*held, step][-capacity:]
    assert values(seen) == passed
    gauges = operator.describe().stages[0].gauges
    assert (gauges["depth"], gauges["credit"]) == (len(held), credit)
    assert operator.counters.unexplained == 0


# M31 resistor


def test_m31_a_pulse_emits_the_last_admitted_value_once() -> None:
    graph = Graph()
    seen = collect(graph)
    operator = graph.resistor(SOURCE, SINK, gate=lambda value: value < 10, release=DEMAND)
    graph.publish(DEMAND, True)
    graph.publish_many(SOURCE, [1, 2, 99])
    assert seen == []
    graph.publish(DEMAND, True)
    graph.publish(DEMAND, True)
    assert values(seen) == [2]
    assert seen[0].taints == ["DELIVERY_SAMPLED"]
    (edge,) = [row for row in graph.edges() if row.route == SOURCE.text]
    assert edge.counters.dropped == {"sampled": 1}
    assert edge.counters.unexplained == 0
    assert operator.describe().label == "resistor"


def test_m31_hold_repeats_and_says_so() -> None:
    graph = Graph()
    seen = collect(graph)
    graph.resistor(SOURCE, SINK, release=DEMAND, repeat="hold")
    graph.publish(SOURCE, 1)
    graph.publish(DEMAND, True)
    graph.publish(DEMAND, True)
    graph.publish(SOURCE, 2)
    graph.publish(DEMAND, True)
    assert values(seen) == [1, 1, 2]
    assert [event.taints for event in seen] == [[], ["DELIVERY_DUPLICATED"], []]


def test_m31_a_raising_gate_discards_is_counted_and_does_not_reach_the_publisher() -> None:
    graph = Graph()
    seen = collect(graph)
    operator = graph.resistor(SOURCE, SINK, gate=lambda value: 1 // value > 0)
    graph.publish_many(SOURCE, [0, 1])
    assert values(seen) == [1]
    assert seen[0].taints == []
    assert operator.describe().failed == 1


def test_m31_a_gate_may_be_a_route() -> None:
    graph = Graph()
    seen = collect(graph)
    graph.publish(DEMAND, False)
    operator = graph.resistor(SOURCE, SINK, gate=DEMAND)
    graph.publish(SOURCE, 1)
    graph.publish(DEMAND, True)
    graph.publish(SOURCE, 2)
    assert values(seen) == [2]
    assert operator.describe().stages[0].gauges["gated"] == 1
    with pytest.raises(WiringError):
        graph.resistor(SOURCE, SINK, repeat="always")  # type: ignore[arg-type]


# M32 watchdog


def test_m32_a_clock_that_starts_late_does_not_fire_at_once() -> None:
    graph = Graph()
    seen = collect(graph, ALARM)
    graph.watchdog(SOURCE, ALARM, after=3, clock=TICK, progress="value")
    for tick in (100, 101, 102):
        graph.publish(TICK, tick)
    assert seen == []
    last = graph.publish(TICK, 103)
    graph.publish(TICK, 104)
    assert values(seen) == [b"timeout"]
    assert (seen[0].epoch, seen[0].parents) == (103, [last.id])


def test_m32_beats_reset_it_whatever_their_own_numbers_are() -> None:
    graph = Graph()
    seen = collect(graph, ALARM)
    graph.watchdog(SOURCE, ALARM, after=2, clock=TICK, progress="value")
    for tick in range(100, 110):
        graph.publish(TICK, tick)
        graph.publish(SOURCE, tick)
    assert seen == []
    beat = graph.latest(SOURCE)
    graph.publish_many(TICK, [110, 110, 105, 111, 112])
    assert values(seen) == [b"timeout"]
    assert beat is not None
    assert beat.id in seen[0].parents
    graph.publish(SOURCE, 1)
    graph.publish_many(TICK, [113, 114])
    assert len(seen) == 2


def test_m32_without_a_clock_route_the_graphs_clock_counts() -> None:
    clock = ManualClock(10**18)
    graph = Graph(clock=clock)
    seen = collect(graph, ALARM)
    graph.watchdog(SOURCE, ALARM, after=5.0, pulse=b"silent")
    clock.advance(4)
    graph.advance()
    graph.publish(SOURCE, 1)
    clock.advance(4.9)
    graph.advance()
    assert seen == []
    clock.advance(0.1)
    graph.advance()
    clock.advance(60)
    graph.advance()
    assert values(seen) == [b"silent"]


def test_m32_a_beat_that_never_came_is_missed_too() -> None:
    clock = ManualClock()
    graph = Graph(clock=clock)
    seen = collect(graph, ALARM)
    graph.watchdog(SOURCE, ALARM, after=1)
    clock.advance(1)
    graph.advance()
    assert values(seen) == [b"timeout"]
    assert seen[0].parents == []


def test_m32_a_wall_clock_that_is_set_moves_the_deadline_along() -> None:
    clock = ManualClock(10**18)
    graph = Graph(clock=clock)
    seen = collect(graph, ALARM)
    graph.watchdog(SOURCE, ALARM, after=10)
    clock.set_wall(10**18 + 3600 * 10**9)
    graph.advance(3600 * 10**9)
    assert seen == []
    clock.set_wall(10**18)
    graph.advance(-3600 * 10**9)
    clock.advance(10)
    graph.advance()
    assert len(seen) == 1


def test_m32_the_systems_clock_wakes_it_without_anybody_polling() -> None:
    graph = Graph()
    fired = threading.Event()
    graph.observe(ALARM, lambda event: fired.set())
    before = threading.active_count()
    graph.watchdog(SOURCE, ALARM, after=0.02)
    assert threading.active_count() == before + 1
    assert fired.wait(60)
    ghost = weakref.ref(graph)
    (thread,) = [t for t in threading.enumerate() if t.name == "meshfold alarm" and t.is_alive()][-1:]
    del graph
    gc.collect()
    assert ghost() is None
    thread.join(60)
    assert not thread.is_alive()


# M41 coalesce, M42 rate matching


def test_m41_only_the_newest_of_a_window_passes_and_the_rest_is_counted() -> None:
    clock = ManualClock()
    graph = Graph(clock=clock)
    seen = collect(graph)
    operator = graph.pipe(SOURCE).coalesce_latest(1.0).into(SINK)
    graph.publish_many(SOURCE, list(range(10)))
    clock.advance(1)
    graph.advance()
    assert values(seen) == [9]
    assert seen[0].taints == ["DELIVERY_COALESCED"]
    assert operator.counters.dropped == {"coalesced": 9}
    graph.publish(SOURCE, 10)
    clock.advance(5)
    graph.publish(SOURCE, 11)
    assert values(seen) == [9, 10]
    assert operator.counters.unexplained == 0


def test_m42_the_reader_sets_the_pace() -> None:
    graph = Graph()
    seen = collect(graph)
    sensor = RateMatchedSensor(SOURCE, SINK, DEMAND)
    with sensor.install(graph):
        graph.publish_many(SOURCE, [1, 2, 3, 4])
        graph.publish(DEMAND, True)
    assert values(seen) == [4]
    assert seen[0].taints == ["DELIVERY_COALESCED"]

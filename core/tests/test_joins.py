"""Joins: both sides as parents, no mixture of before and after, and a reference for pairs in time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from meshfold.core import Event, Graph, ManualClock, Schema, Taint, WiringError, field, route, value

LEFT = route("join", "test", "left", schema=Schema.int())
RIGHT = route("join", "test", "right", schema=Schema.int())
OUT = route("join", "test", "out", schema=Schema.int())
LATE_LEFT = route("join", "test", "late-left", schema=Schema.int())
LATE_RIGHT = route("join", "test", "late-right", schema=Schema.int())


def test_m56_join_latest_gives_a_result_on_either_side_once_both_are_known() -> None:
    graph = Graph()
    graph.publish(LEFT, 1)
    seen: list[Any] = []
    graph.join_latest(LEFT, RIGHT, combine=lambda a, b: (a, b)).observe(seen.append)
    assert seen == []
    graph.publish(RIGHT, 10)
    graph.publish(LEFT, 2)
    assert seen == [(1, 10), (2, 10)]
    tuples: list[Any] = []
    graph.join_latest(LEFT, RIGHT).observe(tuples.append)
    assert tuples == [(2, 10)]


def test_m56_results_have_both_sides_as_parents_and_the_taints_of_both() -> None:
    graph = Graph()
    graph.join_latest(LEFT, RIGHT, combine=value[0] + value[1]).into(OUT)
    left = graph.publish(LEFT, 1, taints=[Taint.TIME_ESTIMATED])
    right = graph.publish(RIGHT, 2, taints=[Taint.ORDER_POSSIBLY_OUT_OF_ORDER])
    made = graph.latest(OUT)
    assert made is not None
    assert made.value == 3
    assert set(made.parents) == {left.id, right.id}
    assert set(made.taints) == {"TIME_ESTIMATED", "ORDER_POSSIBLY_OUT_OF_ORDER"}
    assert made.trace not in (left.trace, right.trace)


def test_two_sides_that_come_of_one_event_are_never_joined_half_changed() -> None:
    graph = Graph()
    source = route("join", "test", "source", schema=Schema.int())
    graph.pipe(source).map(value * 10).into(LEFT)
    graph.pipe(source).map(lambda item: item * 100).into(RIGHT)
    seen: list[Any] = []
    graph.join_latest(LEFT, RIGHT).observe(seen.append)
    graph.publish_many(source, [1, 2, 3])
    assert seen == [(10, 100), (20, 200), (30, 300)]


def test_join_latest_by_key_and_of_three() -> None:
    graph = Graph()
    rows = route("join", "test", "rows", schema=Schema.of(dict[str, int], name="rows"))
    seen: list[Any] = []
    keyed = graph.join_latest(rows, LEFT, partition_by=(field("who"), value % 2))
    keyed.map(value[0]["x"] + value[1]).observe(seen.append)
    graph.publish(rows, {"who": 1, "x": 5})
    graph.publish(LEFT, 2)
    graph.publish(LEFT, 3)
    assert seen == [8]
    three: list[Any] = []
    graph.join_latest(LEFT, RIGHT, OUT).observe(three.append)
    graph.publish(RIGHT, 1)
    graph.publish(OUT, 2)
    assert three == [(3, 1, 2)]
    with pytest.raises(WiringError, match="2 to 8"):
        graph.join_latest(LEFT).observe(print)


def test_m57_lookup_join_gives_results_for_the_left_only_and_counts_what_it_drops() -> None:
    graph = Graph()
    installed = graph.lookup_join(LEFT, RIGHT, combine=lambda a, b: a + b).into(OUT)
    graph.publish(LEFT, 1)
    graph.publish(RIGHT, 10)
    graph.publish(RIGHT, 20)
    graph.publish(LEFT, 2)
    made = graph.latest(OUT)
    assert made is not None
    assert (made.value, made.taints) == (22, ["DELIVERY_DROPPED"])
    assert graph.published(OUT) == 1
    counters = installed.counters
    assert (counters.dropped, counters.unexplained) == ({"expired": 1}, 0)


def test_m57_a_left_value_waits_for_its_right_side_or_expires() -> None:
    clock = ManualClock(0)
    graph = Graph(clock=clock, seed=1)
    seen: list[Any] = []
    installed = graph.lookup_join(LEFT, RIGHT, missing="wait", wait=1.0).observe(seen.append)
    graph.publish(LEFT, 1)
    assert installed.counters.pending == 1
    clock.advance(0.5)
    graph.publish(LEFT, 2)
    clock.advance(0.6)
    graph.advance()
    assert installed.counters.dropped == {"expired": 1}
    graph.publish(RIGHT, 10)
    assert seen == [(2, 10)]
    assert (installed.counters.pending, installed.counters.unexplained) == (0, 0)
    none: list[Any] = []
    other = route("join", "test", "never", schema=Schema.int())
    graph.lookup_join(LEFT, other, missing="none", versioned=False).into(
        route("join", "test", "pairs", schema=Schema.of(list[int | None], name="pairs"))
    )
    graph.lookup_join(LEFT, other, missing="none").observe(none.append)
    graph.publish(LEFT, 3)
    assert none == [(3, None)]
    with pytest.raises(WiringError, match="wait"):
        graph.lookup_join(LEFT, RIGHT, missing="wait").observe(print)


Row = tuple[str, int, str]


def pairs(rows: list[Row], within: int) -> list[tuple[int, int]]:
    """All pairs of equal key that are near in time, as (place left, place right)."""
    found = []
    for i, (side_a, time_a, key_a) in enumerate(rows):
        for j, (side_b, time_b, key_b) in enumerate(rows):
            near = abs(time_a - time_b) <= within
            if (side_a, side_b) == ("left", "right") and key_a == key_b and near:
                found.append((i, j))
    return sorted(found)


rows_strategy = st.lists(
    st.tuples(st.sampled_from(["left", "right"]), st.integers(0, 50), st.sampled_from("ab")), max_size=40
)


@settings(max_examples=150, deadline=None)
@given(rows_strategy, st.integers(0, 10))
def test_m58_interval_join_finds_each_pair_once_in_any_order(rows: list[Row], within: int) -> None:
    graph = Graph()
    seen: list[Any] = []
    installed = graph.interval_join(LEFT, RIGHT, within, disorder=1000).observe(seen.append)
    for place, (side, time, key) in enumerate(rows):
        graph.publish(LEFT if side == "left" else RIGHT, place, time=time, key=key)
    assert sorted(seen) == pairs(rows, within)
    assert installed.counters.unexplained == 0


@settings(max_examples=100, deadline=None)
@given(rows_strategy, st.integers(0, 10), st.integers(0, 10), st.integers(0, 10))
def test_m58_with_a_watermark_only_late_rows_are_missing_and_they_are_told(
    rows: list[Row], within: int, disorder: int, grace: int
) -> None:
    graph = Graph()
    seen: list[Any] = []
    late: list[int] = []
    join = graph.interval_join(
        LEFT, RIGHT, within, disorder=disorder, grace=grace, late=(LATE_LEFT, LATE_RIGHT)
    )
    installed = join.observe(seen.append)
    for r in (LATE_LEFT, LATE_RIGHT):
        graph.observe(r, lambda event: late.append(event.value))
    newest: dict[str, int] = {}
    expected_late = []
    for place, (side, time, key) in enumerate(rows):
        # Nothing comes at or before the watermark: it is just before the last that the disorder allows.
        mark = min(newest.values()) - disorder - 1 if len(newest) == 2 else None
        if mark is not None and time <= mark - grace:
            expected_late.append(place)
        else:
            newest[side] = max(newest.get(side, time), time)
        graph.publish(LEFT if side == "left" else RIGHT, place, time=time, key=key)
    assert late == expected_late
    on_time = [row for place, row in enumerate(rows) if place not in expected_late]
    places = [place for place in range(len(rows)) if place not in expected_late]
    assert sorted(seen) == sorted((places[i], places[j]) for i, j in pairs(on_time, within))
    assert installed.counters.dropped.get("late", 0) == len(late)


def test_m58_state_is_forgotten_behind_the_watermark() -> None:
    graph = Graph()
    installed = graph.interval_join(LEFT, RIGHT, 5).observe(print)
    for time in range(100, 200):
        graph.publish(RIGHT, time, time=time, key="k")
        graph.publish(LEFT, time, time=time, key="k")
    gauges = installed.describe().stages[0].gauges
    assert 2 <= gauges["left"] + gauges["right"] <= 14


def test_m58_rows_without_a_key_are_refused_unless_a_cross_was_meant() -> None:
    graph = Graph()
    installed = graph.interval_join(LEFT, RIGHT, 5).observe(print)
    graph.publish(LEFT, 1, time=1)
    assert installed.describe().failed == 1
    seen: list[Any] = []
    graph.interval_join(LEFT, RIGHT, 5, unsafe_cross=True).observe(seen.append)
    graph.publish(LEFT, 1, time=1)
    graph.publish(RIGHT, 2, time=2)
    assert seen == [(1, 2)]


@pytest.mark.parametrize("kind", ["join_latest", "lookup_join", "interval_join"])
def test_a_join_restored_from_a_checkpoint_knows_what_it_knew(kind: str) -> None:
    graph = Graph()
    seen: list[Any] = []
    plan = {
        "join_latest": graph.pipe(LEFT).join_latest(RIGHT),
        "lookup_join": graph.pipe(LEFT).lookup_join(RIGHT),
        "interval_join": graph.pipe(LEFT).interval_join(RIGHT, 100),
    }[kind]
    first = plan.observe(seen.append)
    graph.configure_retention(RIGHT, history=0)
    graph.publish(RIGHT, 5, time=1, key="k")
    state = first.checkpoint()
    first.close()
    second = plan.observe(seen.append)
    second.restore(state)
    graph.publish(LEFT, 1, time=1, key="k")
    assert seen == [(1, 5)]


def test_m60_stateful_map_keeps_a_state_and_the_taints_that_went_into_it() -> None:
    graph = Graph()
    installed = graph.stateful_map(LEFT, 0, lambda state, item: (state + item, state * 100 + item), OUT)
    graph.configure_retention(OUT, history=9)
    graph.publish(LEFT, 1, taints=[Taint.TIME_UNKNOWN])
    graph.publish(LEFT, 2)
    assert [event.value for event in graph.history(OUT)] == [1, 102]
    assert [event.taints for event in graph.history(OUT)] == [["TIME_UNKNOWN"], ["TIME_UNKNOWN"]]
    state = installed.checkpoint()
    installed.close()
    again = graph.stateful_map(LEFT, 0, lambda state, item: (state + item, state * 100 + item), OUT)
    again.restore(state)
    graph.publish(LEFT, 4)
    last = graph.latest(OUT)
    assert last is not None
    assert (last.value, last.taints) == (304, ["TIME_UNKNOWN"])


def test_m61_materialize_copies_into_a_state_route_and_stops_when_closed() -> None:
    graph = Graph()
    state = route("join", "test", "state", plane="state", variant="state", schema=Schema.int())
    graph.publish(LEFT, 1)
    installed = graph.materialize(LEFT, state)
    latest = graph.latest(state)
    assert latest is not None
    assert latest.value == 1
    installed.close()
    graph.publish(LEFT, 2)
    assert graph.published(state) == 1
    with pytest.raises(WiringError, match="no state route"):
        graph.materialize(LEFT, OUT)


def test_m61_nobody_else_writes_a_state_that_is_materialized() -> None:
    graph = Graph()
    state = route("join", "test", "state", plane="state", variant="state", schema=Schema.int())
    graph.publish(state, 7)
    installed = graph.materialize(LEFT, state)
    graph.publish(LEFT, 1)
    with pytest.raises(WiringError, match="is written by what owns it"):
        graph.publish(state, 2)
    assert [event.value for event in graph.history(state)] == [7, 1]
    again = Graph.load(graph.manifest())
    with pytest.raises(WiringError, match="is written by what owns it"):
        again.publish(state, 2)
    installed.close()
    installed.close()
    assert graph.publish(state, 3).seq == 3


def test_hs6_a_second_owner_of_a_route_is_refused() -> None:
    graph = Graph()
    state = route("join", "test", "state", plane="state", variant="state", schema=Schema.int())
    first = graph.materialize(LEFT, state)
    with pytest.raises(WiringError, match="materialized from another route already"):
        graph.materialize(RIGHT, state)
    graph.publish(LEFT, 1)
    graph.publish(RIGHT, 2)
    assert [event.value for event in graph.history(state)] == [1]
    first.close()
    graph.materialize(RIGHT, state)
    assert [event.value for event in graph.history(state)] == [1, 2]


def test_m50_filter_replays_the_latest_and_keeps_envelope_and_lineage() -> None:
    graph = Graph()
    kept: list[Event[int]] = []
    first = graph.publish(LEFT, 7, key="k", epoch=3, taints=[Taint.TIME_ESTIMATED], labels=["plant"])
    graph.filter(LEFT, lambda item: item > 5).into(OUT)
    graph.observe(OUT, kept.append)
    graph.publish(LEFT, 3)
    graph.publish(LEFT, 9)
    assert [event.value for event in kept] == [7, 9]
    event = kept[0]
    assert (event.key, event.epoch, event.taints, event.labels) == ("k", 3, ["TIME_ESTIMATED"], ["plant"])
    assert event.parents == [first.id]
    assert event.trace == first.trace

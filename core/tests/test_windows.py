"""Windows: held against a reference that keeps everything and computes each result anew."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from meshfold.core import (
    Event,
    Graph,
    ManualClock,
    Schema,
    Taint,
    WiringError,
    count,
    event_time,
    field,
    mean,
    route,
    sum_,
    value,
)

IN = route("win", "test", "in", schema=Schema.int())
OUT = route("win", "test", "out", schema=Schema.int())
LATE = route("win", "test", "late", schema=Schema.int())
MARKS = route("win", "test", "marks", schema=Schema.int())
PULSE = route("win", "test", "pulse", schema=Schema.int())


def test_m51_a_count_window_gives_partial_lists_then_the_last_ones() -> None:
    graph = Graph()
    seen: list[Any] = []
    graph.window(IN, 3).observe(seen.append)
    graph.publish_many(IN, [0, 1, 2, 3])
    assert seen == [(0,), (0, 1), (0, 1, 2), (1, 2, 3)]


def test_m51_a_trigger_gives_all_partitions_in_the_order_they_came_and_flush_empties_them() -> None:
    graph = Graph()
    seen: list[Any] = []
    window = graph.window(IN, 2, trigger=PULSE, partition_by=lambda item: "even" if item % 2 == 0 else "odd")
    window.observe(seen.append)
    for item in (1, 2, 3):
        graph.publish(IN, item)
    assert seen == []
    graph.publish(PULSE, 0)
    graph.publish(PULSE, 0)
    assert seen == [(1, 3), (2,), (1, 3), (2,)]
    flushed: list[Any] = []
    graph.window(IN, 2, trigger=PULSE, flush=True).observe(flushed.append)
    graph.publish(IN, 9)
    graph.publish(PULSE, 0)
    graph.publish(PULSE, 0)
    assert flushed == [(9,)]


def test_m51_idle_partitions_are_forgotten_and_more_than_keys_max_fail() -> None:
    clock = ManualClock(10**9)
    graph = Graph(clock=clock, seed=1)
    seen: list[Any] = []
    window = graph.window(IN, 2, partition_by=value, idle=5.0, keys_max=2).observe(seen.append)
    graph.publish_many(IN, [1, 2, 3])
    assert window.describe().failed == 1
    clock.advance(6.0)
    graph.publish_many(IN, [1, 3])
    assert seen == [(1,), (2,), (1,), (3,)]


@pytest.mark.parametrize("aggregate", [sum, sum_()])
def test_m52_an_aggregate_over_the_last_values(aggregate: Any) -> None:
    graph = Graph()
    seen: list[Any] = []
    graph.window(IN, 2, aggregate=aggregate, full_only=True).observe(seen.append)
    graph.publish_many(IN, [1, 2, 3])
    assert seen == [3, 5]


def ends_of(time: int, width: int, slide: int) -> list[int]:
    first = -(-time // slide) * slide
    return list(range(first, time + width, slide)) if first < time + width else []


Step = tuple[str, int, int, str]


def reference(steps: list[Step], width: int, slide: int, grace: int) -> tuple[list[Any], list[int]]:
    """Every result as (end, key, revision, values), and what came too late."""
    kept: dict[str, list[tuple[int, int, int]]] = defaultdict(list)
    fired: dict[tuple[str, int], int] = {}
    first: dict[str, int] = {}
    results: list[Any] = []
    late: list[int] = []
    mark: int | None = None

    def fire(key: str, end: int) -> None:
        inside = sorted(item for item in kept[key] if end - width < item[0] <= end)
        if inside:
            fired[key, end] = fired.get((key, end), -1) + 1
            results.append((end, key, fired[key, end], tuple(item[2] for item in inside)))

    for place, (kind, time, item, key) in enumerate(steps):
        if kind == "mark":
            if mark is not None and time <= mark:
                continue
            mark = time
            open_ends = {
                (end, first[name], name)
                for name, items in kept.items()
                for at, _, _ in items
                for end in ends_of(at, width, slide)
                if end <= mark and (name, end) not in fired
            }
            for end, _, name in sorted(open_ends):
                fire(name, end)
            continue
        if mark is not None and time <= mark - grace:
            late.append(item)
            continue
        first.setdefault(key, place)
        kept[key].append((time, place, item))
        for end in ends_of(time, width, slide):
            if mark is not None and end <= mark:
                fire(key, end)
    return results, late


steps_strategy = st.lists(
    st.tuples(
        st.sampled_from(["item", "item", "item", "mark"]),
        st.integers(0, 60),
        st.integers(0, 1000),
        st.sampled_from("ab"),
    ),
    max_size=40,
)


@settings(max_examples=150, deadline=None)
@given(steps_strategy, st.integers(1, 12), st.integers(1, 12), st.integers(0, 15))
def test_m53_event_time_windows_agree_with_the_reference_on_any_order(
    steps: list[Step], width: int, slide: int, grace: int
) -> None:
    graph = Graph()
    results: list[Any] = []
    out = route("win", "test", "results", schema=Schema.str())
    window = graph.window(IN, width=width, slide=slide, grace=grace, watermark=MARKS, late=LATE)
    installed = window.map(lambda items: ",".join(map(str, items))).into(out)
    late: list[int] = []
    graph.observe(LATE, lambda event: late.append(event.value))

    def result(event: Event[str]) -> None:
        values = tuple(int(item) for item in event.value.split(","))
        results.append((event.time, event.key, event.logical_time, values))

    graph.observe(out, result)
    for kind, time, item, key in steps:
        if kind == "mark":
            graph.publish(MARKS, time)
        else:
            graph.publish(IN, item, time=time, key=key)
    expected, expected_late = reference(steps, width, slide, grace)
    assert results == expected
    assert late == expected_late
    counters = installed.counters
    assert counters.dropped.get("late", 0) == len(late)
    assert counters.unexplained == 0


@settings(max_examples=60, deadline=None)
@given(steps_strategy, st.integers(1, 12), st.integers(0, 15), st.integers(1, 39))
def test_m53_a_window_restored_from_a_checkpoint_goes_on_as_if_nothing_had_happened(
    steps: list[Step], width: int, grace: int, cut: int
) -> None:
    def play(stop: int | None) -> list[Any]:
        graph = Graph()
        results: list[Any] = []
        window = graph.window(IN, width=width, grace=grace, watermark=MARKS, aggregate=sum_())
        installed = window.observe(results.append)
        for place, (kind, time, item, key) in enumerate(steps):
            if place == stop:
                state = installed.checkpoint()
                installed.close()
                installed = window.observe(results.append)
                installed.restore(state)
                assert installed.checkpoint() == state
            if kind == "mark":
                graph.publish(MARKS, time)
            else:
                graph.publish(IN, item, time=time, key=key)
        return results

    assert play(cut) == play(None)


def test_m53_a_jump_of_the_watermark_fires_every_end_it_passed_in_order() -> None:
    graph = Graph()
    ends: list[int] = []
    graph.window(IN, width=2, watermark=MARKS, aggregate=count()).into(OUT)
    graph.observe(OUT, lambda event: ends.append(event.time))
    for time in (1, 3, 5, 7):
        graph.publish(IN, time, time=time)
    graph.publish(MARKS, 10)
    assert ends == [2, 4, 6, 8]


def test_m53_without_a_watermark_route_the_latest_time_less_disorder_counts_and_never_goes_back() -> None:
    graph = Graph()
    seen: list[Any] = []
    installed = graph.window(IN, width=10, disorder=5).observe(seen.append)
    for time in (3, 12, 9, 15, 10, 14, 30):
        graph.publish(IN, time, time=time)
    assert seen == [(3, 9, 10), (12, 14, 15)]
    assert installed.describe().stages[0].gauges["watermark"] == 24
    assert installed.counters.dropped == {}


@pytest.mark.parametrize("how", ["one by one", "at once", "keyed"])
def test_s25_events_of_one_time_are_all_in_time_without_any_disorder(how: str) -> None:
    graph = Graph(clock=ManualClock(1_000), seed=1)
    seen: list[int] = []
    installed = graph.window(IN, width=10, aggregate=count()).observe(seen.append)
    for time in (10, 11, 20):
        if how == "one by one":
            for item in range(500):
                graph.publish(IN, item, time=time)
        else:
            keys = ["a"] * 500 if how == "keyed" else None
            graph.publish_many(IN, list(range(500)), times=[time] * 500, keys=keys)
    # The end of a window belongs to it, and more of that time may come: it fires behind its end.
    assert seen == [500]
    graph.publish(IN, 1, time=21, key="a" if how == "keyed" else None)
    assert seen == [500, 1000]
    assert installed.counters.dropped == {}
    graph.publish(IN, 1, time=20)
    assert installed.counters.dropped == {"late": 1}


def test_s25_values_published_without_times_share_one_and_none_of_them_is_late() -> None:
    clock = ManualClock(5_000)
    graph = Graph(clock=clock, seed=1)
    seen: list[int] = []
    graph.window(IN, width=1_000_000_000, aggregate=count()).observe(seen.append)
    graph.publish_many(IN, list(range(10_000)))
    clock.advance(2.0)
    graph.publish(IN, 1)
    assert seen == [10_000]


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.sampled_from("ab")), max_size=60),
    st.integers(1, 12),
    st.integers(0, 6),
    st.integers(0, 10),
)
def test_m53_without_a_watermark_route_windows_agree_with_the_reference_under_its_watermark(
    rows: list[tuple[int, str]], width: int, disorder: int, grace: int
) -> None:
    steps: list[Step] = []
    newest: int | None = None
    for place, (time, key) in enumerate(rows):
        steps.append(("item", time, place, key))
        newest = time if newest is None else max(newest, time)
        steps.append(("mark", newest - disorder - 1, 0, key))
    expected, expected_late = reference(steps, width, width, grace)
    graph = Graph()
    results: list[Any] = []
    late: list[int] = []
    out = route("win", "test", "results", schema=Schema.str())
    window = graph.window(IN, width=width, disorder=disorder, grace=grace, late=LATE)
    window.map(lambda items: ",".join(map(str, items))).into(out)
    graph.observe(LATE, lambda event: late.append(event.value))

    def result(event: Event[str]) -> None:
        values = tuple(int(item) for item in event.value.split(","))
        results.append((event.time, event.key, event.logical_time, values))

    graph.observe(out, result)
    for place, (time, key) in enumerate(rows):
        graph.publish(IN, place, time=time, key=key)
    # Which of two partitions with one end comes first depends on how long the engine has known them without a break.
    assert sorted(results) == sorted(expected)
    assert late == expected_late


def test_m53_a_correction_has_the_same_end_and_the_next_revision() -> None:
    graph = Graph()
    rows: list[tuple[int, int, int]] = []
    graph.window(IN, width=10, grace=10, watermark=MARKS, aggregate=lambda items: sum(items)).into(OUT)
    graph.observe(OUT, lambda event: rows.append((event.time, event.logical_time, event.value)))
    graph.publish(IN, 1, time=5)
    graph.publish(MARKS, 10)
    graph.publish(MARKS, 10)
    graph.publish(IN, 2, time=6)
    graph.publish(MARKS, 15)
    graph.publish(IN, 4, time=6)
    graph.publish(IN, 8, time=5)
    assert rows == [(10, 0, 1), (10, 1, 3), (10, 2, 7)]


def test_m53_a_window_over_budget_drops_counts_and_taints() -> None:
    graph = Graph()
    installed = graph.window(IN, width=10, watermark=MARKS, aggregate=count(), items_max=2).into(OUT)
    for time in (1, 2, 3):
        graph.publish(IN, time, time=time)
    graph.publish(MARKS, 10)
    latest = graph.latest(OUT)
    assert latest is not None
    assert (latest.value, latest.taints) == (2, ["DELIVERY_DROPPED"])
    assert installed.counters.dropped == {"overflow_newest": 1}


def test_m53_an_idle_source_holds_nobody_back() -> None:
    clock = ManualClock(0)
    graph = Graph(clock=clock, seed=1)
    other = route("win", "test", "other", schema=Schema.int())
    graph.connect(other, IN)
    seen: list[Any] = []
    remote = Graph(name="remote", clock=clock, seed=2)
    tap = remote.tap(IN)
    inlet = graph.inlet(IN)
    graph.window(IN, width=10, idle=2.0).observe(seen.append)
    remote.publish(IN, 1, time=1)
    batch = tap.drain()
    assert batch is not None
    inlet.push(batch.meta, batch.payload, producer=batch.producer, incarnation=batch.incarnation)
    graph.publish(IN, 2, time=30)
    assert seen == []
    clock.advance(1.0)
    graph.publish(IN, 3, time=31)
    clock.advance(1.5)
    assert graph.advance() is not None
    assert seen == [(1,), (2,)]


def sessions(items: list[tuple[int, int]], gap: int) -> list[tuple[int, ...]]:
    found: list[list[tuple[int, int]]] = []
    for time, item in sorted(items):
        if found and time - found[-1][-1][0] < gap:
            found[-1].append((time, item))
        else:
            found.append([(time, item)])
    return [tuple(item for _, item in session) for session in found]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 100), max_size=30), st.integers(1, 10))
def test_sessions_are_the_runs_of_near_times_in_whatever_order_they_come(times: list[int], gap: int) -> None:
    graph = Graph()
    seen: list[Any] = []
    installed = graph.window(IN, gap=gap, watermark=MARKS).observe(seen.append)
    for place, time in enumerate(times):
        graph.publish(IN, place, time=time)
    graph.publish(MARKS, 1000)
    assert seen == sessions([(time, place) for place, time in enumerate(times)], gap)
    assert installed.describe().stages[0].gauges["items"] == 0


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=20), st.integers(1, 6))
def test_late_items_within_grace_bring_sessions_to_what_they_would_have_been(
    times: list[int], gap: int
) -> None:
    graph = Graph()
    final: dict[int, tuple[int, ...]] = {}
    out = route("win", "test", "sessions", schema=Schema.str())
    graph.window(IN, gap=gap, grace=1000, watermark=MARKS).map(lambda v: ",".join(map(str, v))).into(out)

    def result(event: Event[str]) -> None:
        members = tuple(int(item) for item in event.value.split(","))
        for end in [end for end, before in final.items() if set(before) & set(members)]:
            del final[end]
        final[event.time] = members

    graph.observe(out, result)
    graph.publish(MARKS, 500)
    for place, time in enumerate(times):
        graph.publish(IN, place, time=time)
    assert sorted(final.values()) == sorted(sessions([(t, p) for p, t in enumerate(times)], gap))


def test_m54_an_aggregate_by_time_from_a_field_of_the_value() -> None:
    graph = Graph()
    rows = route("win", "test", "rows", schema=Schema.of(dict[str, int], name="rows"))
    seen: list[Any] = []
    options: dict[str, Any] = {"event_time": field("at"), "partition_by": field("who")}
    graph.window(rows, width=10, aggregate=mean(of=field("x")), watermark=MARKS, **options).observe(
        seen.append
    )
    python: list[Any] = []
    by_function = graph.window(
        rows,
        width=10,
        watermark=MARKS,
        event_time=lambda row: row["at"],
        partition_by=lambda row: str(row["who"]),
    )
    by_function.map(lambda items: sum(row["x"] for row in items) / len(items)).observe(python.append)
    for at, who, x in ((1, 1, 2), (2, 1, 4), (3, 2, 10)):
        graph.publish(rows, {"at": at, "who": who, "x": x})
    graph.publish(MARKS, 10)
    assert seen == python == [3.0, 10.0]


def test_m55_the_watermark_of_an_operator_is_the_one_it_works_by() -> None:
    graph = Graph()
    installed = graph.window(IN, width=10, watermark=MARKS).observe(print)
    assert "watermark" not in installed.describe().stages[0].gauges
    graph.publish(MARKS, 7)
    graph.publish(MARKS, 3)
    assert installed.describe().stages[0].gauges["watermark"] == 7


def test_m94_taints_stay_while_the_state_holds_what_was_tainted() -> None:
    graph = Graph()
    graph.configure_retention(OUT, history=10)
    graph.window(IN, 2, aggregate=sum_()).map(value // 1).map(lambda item: int(item)).into(OUT)
    for taint in ([Taint.TIME_ESTIMATED], [], []):
        graph.publish(IN, 1, taints=taint)
    assert [event.taints for event in graph.history(OUT)] == [["TIME_ESTIMATED"], ["TIME_ESTIMATED"], []]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"size": 2, "width": 3},
        {"size": 0},
        {"width": 0},
        {"width": 10, "slide": -1},
        {"gap": 0},
        {"width": 5, "grace": -1},
        {"width": 1_000_000, "slide": 1},
        {"width": 5, "event_time": event_time, "idle": -1.0},
    ],
)
def test_windows_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    graph = Graph()
    with pytest.raises(WiringError):
        graph.window(IN, **options).observe(print)
    assert graph.operators() == []

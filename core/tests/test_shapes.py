"""Row M115: every shape does what its name says, and accounts for what it refuses (S33)."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from meshfold.core import Graph, ManualClock, Route, Schema, SchemaMismatch, WiringError, route

WAIT_S = 60.0
S = 10**9
text = Schema.str()


def routes(name: str, count: int) -> list[Route[str]]:
    return [route("demo", name, str(number), schema=text) for number in range(count)]


source = route("demo", "shape", "source", schema=text)
sink = route("demo", "shape", "sink", schema=text)
late = route("demo", "shape", "late", schema=text)
timed_out = route("demo", "shape", "timed-out", schema=Schema.int())


def collect(graph: Graph, r: Route[Any]) -> list[Any]:
    got: list[Any] = []
    graph.observe(r, lambda event: got.append(event.value))
    return got


def test_m115_scatter_gives_each_event_to_one_sink_and_a_key_always_to_the_same() -> None:
    graph = Graph()
    sinks = routes("way", 4)
    with graph.scatter(source, sinks) as operator:
        got = [collect(graph, r) for r in sinks]
        for number in range(200):
            graph.publish(source, f"{number}", key=f"k{number % 20}")
        assert sum(map(len, got)) == 200
        assert sum(bool(values) for values in got) > 1
        for values in got:
            keys = {int(value) % 20 for value in values}
            assert len(values) == 10 * len(keys)
        graph.publish(source, "without a key")
        assert sum(map(len, got)) == 200
        assert operator.describe().failed == 1


def test_m115_the_place_of_a_key_is_the_same_everywhere_and_for_ever() -> None:
    graph = Graph()
    sinks = routes("way", 7)
    graph.scatter(source, sinks)
    found: dict[str, int] = {}
    for number, r in enumerate(sinks):
        graph.observe(r, lambda event, number=number: found.__setitem__(event.key, number))  # type: ignore[misc]
    for key in ("", "a", "foobar", "kiln-7"):
        graph.publish(source, "x", key=key)
    # FNV-1a 64, by its published vectors: "" cbf29ce484222325, "a" af63dc4c8601ec8c, "foobar" 85944171f73967e8.
    assert found["a"] == 0xAF63DC4C8601EC8C % 7
    assert found["foobar"] == 0x85944171F73967E8 % 7
    assert found.get("", 0xCBF29CE484222325 % 7) == 0xCBF29CE484222325 % 7


def test_m115_scatter_by_a_function_by_value_and_in_turns() -> None:
    graph = Graph()
    sinks = routes("way", 3)
    got = [collect(graph, r) for r in sinks]
    with graph.scatter(source, sinks, by=len) as operator:
        for value in ("", "a", "bb", "ccc"):
            graph.publish(source, value)
        assert got == [[""], ["a"], ["bb"]]
        assert operator.describe().failed == 1
    with graph.scatter(source, sinks, by="turns"):
        for value in "wxyz":
            graph.publish(source, value)
    assert got == [["", "w", "z"], ["a", "x"], ["bb", "y"]]
    with graph.scatter(source, sinks, by="value"):
        graph.publish(source, "same")
        graph.publish(source, "same")
    assert sorted(values.count("same") for values in got) == [0, 0, 2]


def test_m115_broadcast_copies_to_all_or_installs_nothing() -> None:
    graph = Graph()
    sinks = routes("copy", 3)
    graph.broadcast(source, sinks)
    graph.publish(source, "x")
    assert [graph.latest(r).value for r in sinks] == ["x"] * 3  # type: ignore[union-attr]
    other: Any = route("demo", "copy", "other", schema=Schema.int())
    before = len(graph.edges())
    with pytest.raises(SchemaMismatch):
        graph.broadcast(sink, [late, other])
    with pytest.raises(WiringError):
        graph.broadcast(sink, [])
    with pytest.raises(WiringError):
        graph.broadcast(sink, [late, late])
    assert len(graph.edges()) == before


def test_m115_a_tee_never_holds_up_the_main_flow() -> None:
    graph = Graph()
    inside, leave = threading.Event(), threading.Event()

    def slow(event: Any) -> None:
        inside.set()
        leave.wait(WAIT_S)

    main = collect(graph, source)
    with graph.tee(source, slow, capacity=2) as side:
        graph.publish(source, "0")
        assert inside.wait(WAIT_S)
        for number in range(1, 10):
            graph.publish(source, str(number))
        assert main == [str(number) for number in range(10)]
        dropped = next(row.counters.dropped for row in graph.edges() if row.counters.dropped)
        assert dropped["overflow_oldest"] >= 6
        leave.set()
        side.close()


def test_m115_fan_in_by_time_orders_over_sources_and_late_events_are_counted() -> None:
    graph = Graph(clock=ManualClock(100 * S))
    ins = routes("in", 2)
    operator = graph.fan_in(ins, sink, order="timestamp", wait=10.0, late=late)
    got, behind = collect(graph, sink), collect(graph, late)
    for number, at in ((0, 1), (0, 3), (1, 2), (1, 4)):
        graph.publish(ins[number], f"{at}", time=at * S)
    assert got == ["1", "2", "3"]
    graph.publish(ins[1], "late", time=1 * S)
    assert behind == ["late"]
    assert operator.counters.dropped == {"late": 1}
    assert operator.counters.pending == 1


def test_m115_a_silent_source_is_waited_for_no_longer_than_the_skew() -> None:
    clock = ManualClock(100 * S)
    graph = Graph(clock=clock)
    ins = routes("in", 2)
    graph.gather(ins, sink, skew=5.0)
    got = collect(graph, sink)
    graph.publish(ins[0], "a", time=1 * S)
    clock.advance(4.0)
    graph.publish(ins[0], "b", time=2 * S)
    assert got == []
    clock.advance(2.0)
    graph.publish(ins[0], "c", time=3 * S)
    assert got == ["a", "b", "c"]


def test_m115_over_its_budget_the_oldest_goes_early_and_is_tainted() -> None:
    graph = Graph(clock=ManualClock(100 * S))
    ins = routes("in", 2)
    graph.fan_in(ins, sink, order="timestamp", wait=10.0, budget=2)
    for at in (1, 2, 3):
        graph.publish(ins[0], str(at), time=at * S)
    event = graph.latest(sink)
    assert event is not None
    assert (event.value, event.taints) == ("1", ["ORDER_POSSIBLY_OUT_OF_ORDER"])


@given(st.lists(st.lists(st.integers(0, 50), max_size=8).map(sorted), min_size=1, max_size=4), st.randoms())
def test_m115_a_merge_of_ordered_sources_is_their_sorted_union(
    times: list[list[int]], rnd: random.Random
) -> None:
    clock = ManualClock(100 * S)
    graph = Graph(clock=clock)
    ins = routes("in", len(times))
    graph.configure_retention(sink, history=0)
    graph.gather(ins, sink, skew=1.0)
    got: list[int] = []
    graph.observe(sink, lambda event: got.append(event.time // S))
    rest = [list(source) for source in times]
    while any(rest):
        number = rnd.choice([number for number, left in enumerate(rest) if left])
        graph.publish(ins[number], "x", time=rest[number].pop(0) * S)
    assert got == sorted(got)
    # All sources fall silent: what still waits goes with the next events.
    for end in (1000, 1001):
        clock.advance(2.0)
        graph.publish(ins[0], "end", time=end * S)
    assert got == [*sorted(at for source in times for at in source), 1000, 1001]


def test_m115_fan_in_by_priority_partition_and_unsafely() -> None:
    clock = ManualClock(100 * S)
    ins = routes("in", 2)
    graph = Graph(clock=clock)
    graph.fan_in(ins, sink, order="priority", wait=1.0)
    got = collect(graph, sink)
    graph.publish(ins[1], "second")
    graph.publish(ins[0], "first")
    assert got == []
    clock.advance(1.0)
    graph.publish(ins[0], "next")
    assert got == ["first", "second"]

    graph = Graph()
    operator = graph.fan_in(ins, sink, order="partition")
    got = collect(graph, sink)
    graph.publish(ins[0], "a", key="k")
    graph.publish(ins[1], "b", key="k")
    graph.publish(ins[1], "c", key="m")
    assert (got, operator.describe().failed) == (["a", "c"], 1)

    graph = Graph()
    graph.fan_in(ins, sink, order="unsafe")
    graph.publish(ins[1], "x")
    assert graph.latest(sink).taints == ["ORDER_POSSIBLY_OUT_OF_ORDER"]  # type: ignore[union-attr]
    with pytest.raises(WiringError, match="banana"):
        graph.fan_in(ins, late, order="banana")  # type: ignore[arg-type]


def test_m115_a_quorum_counts_distinct_members_and_ends_once() -> None:
    graph = Graph(clock=ManualClock(100 * S))
    members = routes("member", 3)
    operator = graph.quorum(members, sink, threshold=2, timeout=5.0, timed_out=timed_out)
    got = collect(graph, sink)
    first = graph.publish(members[0], "yes", correlation="p1")
    graph.publish(members[0], "yes again", correlation="p1")
    assert got == []
    second = graph.publish(members[2], "too", correlation="p1")
    assert got == ["too"]
    result = graph.latest(sink)
    assert result is not None
    assert set(result.parents) == {first.id, second.id}
    graph.publish(members[1], "late", correlation="p1")
    graph.publish(members[1], "no proposal")
    assert got == ["too"]
    counters = operator.counters
    assert (counters.offered, counters.delivered, counters.pending) == (5, 5, 0)


def test_m115_a_proposal_without_enough_votes_times_out_and_may_not_come_back_before() -> None:
    clock = ManualClock(100 * S)
    graph = Graph(clock=clock)
    members = routes("member", 3)
    operator = graph.quorum(members, sink, threshold=2, timeout=5.0, timed_out=timed_out, by="key")
    votes = collect(graph, timed_out)
    graph.publish(members[0], "yes", key="p1")
    clock.advance(6.0)
    graph.publish(members[1], "yes", key="p1")
    assert (votes, collect(graph, sink)) == ([1], [])
    assert operator.counters.dropped == {"expired": 1}
    assert operator.counters.pending == 1


def test_m115_replication_is_done_when_its_policy_holds() -> None:
    graph = Graph(clock=ManualClock(100 * S))
    replicas, acks = routes("replica", 3), routes("ack", 3)
    graph.replicate(source, replicas, acks, sink, policy="quorum", timeout=5.0)
    done = collect(graph, sink)
    graph.publish(source, "x", correlation="w1")
    for number in (0, 1):
        copy = graph.latest(replicas[number])
        assert copy is not None
        graph.publish(acks[number], "stored", correlation=copy.correlation, parents=[copy])
    assert done == ["stored"]
    with pytest.raises(WiringError):
        graph.replicate(late, replicas, acks[:2], sink, policy="all", timeout=5.0)
    with pytest.raises(WiringError):
        graph.replicate(late, replicas, acks, sink, policy=4, timeout=5.0)

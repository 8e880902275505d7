"""Operators that thin a route out in time, put it in order, or repair it."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from meshfold.core import Graph, ManualClock, Schema, Taint, WiringError, mean, route, sum_

IN = route("pace", "test", "in", schema=Schema.int())
OUT = route("pace", "test", "out", schema=Schema.int())
PULSE = route("pace", "test", "pulse", schema=Schema.bool())
LATE = route("pace", "test", "late", schema=Schema.int())


def timed() -> tuple[Graph, ManualClock]:
    clock = ManualClock(10**9)
    return Graph(clock=clock, seed=1), clock


def values(graph: Graph) -> list[int]:
    return [event.value for event in graph.history(OUT)]


def test_m20_debounce_gives_the_last_value_after_silence_and_counts_the_others() -> None:
    graph, clock = timed()
    installed = graph.pipe(IN).debounce(1.0).into(OUT)
    for item in (1, 2, 3):
        graph.publish(IN, item)
        clock.advance(0.5)
        graph.advance()
    assert values(graph) == []
    assert installed.counters.pending == 1
    clock.advance(0.5)
    graph.advance()
    assert values(graph) == [3]
    latest = graph.latest(OUT)
    assert latest is not None
    assert latest.taints == ["DELIVERY_SAMPLED"]
    counters = installed.counters
    assert (counters.delivered, counters.dropped, counters.unexplained) == (1, {"sampled": 2}, 0)


def test_what_was_due_before_an_event_comes_before_it_without_any_other_clock() -> None:
    graph, clock = timed()
    graph.pipe(IN).debounce(1.0).into(OUT)
    graph.publish(IN, 1)
    clock.advance(5.0)
    graph.publish(IN, 2)
    assert values(graph) == [1]


def test_m20_throttle_lets_the_first_pass_and_taints_the_next() -> None:
    graph, clock = timed()
    installed = graph.pipe(IN).throttle(1.0).into(OUT)
    for item in range(4):
        graph.publish(IN, item)
        clock.advance(0.4)
    assert values(graph) == [0, 3]
    assert [event.taints for event in graph.history(OUT)] == [[], ["DELIVERY_SAMPLED"]]
    assert installed.counters.dropped == {"sampled": 2}


def test_m20_sample_gives_the_newest_at_each_beat_or_pulse_and_nothing_twice() -> None:
    graph, clock = timed()
    graph.pipe(IN).sample(1.0).into(OUT)
    graph.publish(IN, 1)
    graph.publish(IN, 2)
    clock.advance(1.0)
    graph.advance()
    clock.advance(1.0)
    graph.advance()
    assert values(graph) == [2]
    pulsed: list[int] = []
    graph.pipe(IN).sample(trigger=PULSE).observe(pulsed.append)
    graph.publish(PULSE, True)
    graph.publish(IN, 3)
    graph.publish(IN, 4)
    graph.publish(PULSE, True)
    graph.publish(PULSE, True)
    assert pulsed == [4]
    with pytest.raises(WiringError, match="both"):
        graph.pipe(IN).sample()


def test_m41_coalesce_gives_the_newest_of_each_window_and_counts_the_rest() -> None:
    graph, clock = timed()
    installed = graph.pipe(IN).coalesce_latest(0.01).into(OUT)
    for item in range(10):
        graph.publish(IN, item)
    clock.advance(0.01)
    graph.advance()
    assert values(graph) == [9]
    latest = graph.latest(OUT)
    assert latest is not None
    assert latest.taints == ["DELIVERY_COALESCED"]
    assert installed.counters.dropped == {"coalesced": 9}


def test_a_graph_on_the_system_clock_tells_its_operators_the_time_by_itself() -> None:
    graph = Graph()
    done = threading.Event()
    graph.pipe(IN).debounce(0.02).observe(lambda _: done.set())
    graph.publish(IN, 1)
    assert done.wait(30)


def test_reduce_gives_the_state_when_asked_and_only_if_it_changed() -> None:
    graph = Graph()
    seen: list[int] = []
    graph.pipe(IN).reduce(lambda state, item: state + item, 0, trigger=PULSE).observe(seen.append)
    native: list[float] = []
    graph.pipe(IN).reduce(sum_(), trigger=PULSE).observe(native.append)
    graph.publish(PULSE, True)
    graph.publish_many(IN, [1, 2, 3])
    graph.publish(PULSE, True)
    graph.publish(PULSE, True)
    assert seen == native == [6]


def test_m20_scan_hysteresis_and_flat_map() -> None:
    graph = Graph()
    scanned: list[Any] = []
    none: list[int] = []
    graph.pipe(IN).scan(lambda state, item: [*state, item], none).observe(scanned.append)
    switched: list[bool] = []
    graph.pipe(IN).hysteresis(2, 4).observe(switched.append)
    spread: list[Any] = []
    graph.pipe(IN).flat_map(range).distinct().map(mean(2)).observe(spread.append)
    graph.publish_many(IN, [3, 4, 3, 2])
    assert scanned[-1] == [3, 4, 3, 2]
    assert switched == [False, True, False]
    assert spread == [0.0, 0.5, 1.5, 1.0, 0.5, 1.5, 2.5, 1.5, 0.5, 1.5, 1.0, 0.5]


def test_m95_a_repair_clears_what_it_proves_and_leaves_a_note_with_each_event() -> None:
    graph = Graph()
    time: dict[str, Any] = {"cleared": [Taint.TIME_UNKNOWN], "added": [Taint.TIME_REPAIRED], "by": "ntp-7"}
    graph.pipe(IN).repair("time", proof="offset 3 ms", **time).into(OUT)
    graph.publish(IN, 1, taints=[Taint.TIME_UNKNOWN, Taint.ORDER_POSSIBLY_OUT_OF_ORDER])
    graph.publish(IN, 2)
    first, second = graph.history(OUT)
    assert first.taints == ["TIME_REPAIRED", "ORDER_POSSIBLY_OUT_OF_ORDER"]
    assert first.guards == ["repaired TIME_UNKNOWN by ntp-7: offset 3 ms"]
    assert (second.taints, second.guards) == ([], [])


@pytest.mark.parametrize(
    ("domain", "cleared", "added", "proof", "why"),
    [
        ("time", [Taint.TIME_UNKNOWN], [Taint.TIME_REPAIRED], " ", "needs a proof"),
        ("determinism", [Taint.DET_NONREPLAYABLE], [], "p", "never cleared"),
        ("trust", [Taint.TRUST_TAMPER_SUSPECT], [], "p", "never cleared"),
        ("time", [Taint.ORDER_POSSIBLY_OUT_OF_ORDER], [], "p", "time only"),
        ("time", [Taint.TIME_UNKNOWN], [], "p", "adds TIME_REPAIRED"),
        ("trust", [Taint.TRUST_UNVERIFIED], [], "p", "cannot be repaired"),
        ("banana", [Taint.TIME_UNKNOWN], [], "p", "unknown domain"),
        ("time", ["BANANA"], [], "p", "unknown taint"),
    ],
)
def test_m95_a_repair_that_is_not_licensed_is_refused_before_anything_is_emitted(
    domain: str, cleared: list[str], added: list[str], proof: str, why: str
) -> None:
    graph = Graph()
    graph.publish(IN, 1, taints=[Taint.TIME_UNKNOWN])
    with pytest.raises(WiringError, match=why):
        graph.pipe(IN).repair(domain, cleared=cleared, added=added, proof=proof, by="me").into(OUT)
    assert graph.published(OUT) == 0
    assert graph.operators() == []

"""Runs: what is published at once gives exactly what it gives one after the other."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from meshfold.core import (
    Event,
    Graph,
    LogClock,
    Pipeline,
    Route,
    Schema,
    Tracing,
    WiringError,
    ema,
    field,
    max_,
    mean,
    record,
    route,
    std,
    sum_,
    transcript_of,
    value,
)

IN = route("runs", "test", "in", schema=Schema.float())
MID = route("runs", "test", "mid", schema=Schema.float())
OUT = route("runs", "test", "out", schema=Schema.float())
ASIDE = route("runs", "test", "aside", schema=Schema.float())
OTHER = route("runs", "test", "other", schema=Schema.float())
LATE = route("runs", "test", "late", schema=Schema.float())
TRUTH = route("runs", "test", "truth", schema=Schema.bool())
ROWS = route("runs", "test", "rows", schema=Schema.of(dict[str, float], name="rows"))
PAIRS = route("runs", "test", "pairs", schema=Schema.of(list[float], name="pairs"))
ALL: tuple[Route[Any], ...] = (IN, MID, OUT, ASIDE, OTHER, LATE, TRUTH, ROWS, PAIRS)

Plan = Callable[[Graph], None]


def _unkeyed(graph: Graph) -> None:
    graph.publish(OTHER, 5.0)


def _expressions(graph: Graph) -> None:
    graph.pipe(IN).map(value + 1).filter((value > 0) & ~(value > 40)).map(value * 2 - 1).into(OUT)


def _divides(graph: Graph) -> None:
    graph.pipe(IN).map(1 / value).filter(value % 2 >= 0.25).map(-value).into(OUT)


def _two_nodes(graph: Graph) -> None:
    graph.pipe(IN).filter(value >= 0).into(MID)
    graph.pipe(MID).map(value + 1).map(mean(3)).into(OUT)
    graph.pipe(MID).map(sum_()).into(ASIDE)


def _rolling(graph: Graph) -> None:
    graph.pipe(IN).map(mean(4)).into(OUT)
    graph.pipe(IN).map(std(5)).into(MID)
    graph.pipe(IN).map(max_(3)).into(ASIDE)
    graph.pipe(MID).map(mean(2)).into(LATE)


def _rolling_all(graph: Graph) -> None:
    graph.pipe(IN).map(ema(0.5)).into(OUT)
    graph.pipe(OUT).map(max_()).into(MID)


def _keyed(graph: Graph) -> None:
    graph.pipe(IN).key_by(value % 3).map(mean(3)).into(OUT)


def _window(graph: Graph) -> None:
    graph.window(IN, width=100, disorder=30, grace=40, aggregate=mean(), late=LATE).into(OUT)


def _sliding(graph: Graph) -> None:
    graph.window(IN, width=100, slide=30, aggregate=sum_()).into(OUT)
    graph.pipe(OUT).map(value * 2).into(MID)


def _window_of_values(graph: Graph) -> None:
    graph.window(IN, width=50, disorder=10, aggregate=lambda items: float(len(items))).into(OUT)


def _other_windows(graph: Graph) -> None:
    graph.window(IN, gap=20, disorder=5, aggregate=sum_(), late=LATE).into(OUT)
    graph.window(IN, 3, aggregate=mean()).into(MID)


def _lookup(graph: Graph) -> None:
    _unkeyed(graph)
    graph.lookup_join(IN, OTHER, combine=value[0] + value[1]).into(OUT)
    graph.pipe(OUT).map(mean(2)).into(MID)


def _lookup_marks(graph: Graph) -> None:
    graph.publish(OTHER, 2.0, taints=["TIME_ESTIMATED"], labels=["secret"])
    graph.pipe(IN).lookup_join(OTHER, value[0] * value[1], versioned=False).into(OUT)


def _lookup_nothing(graph: Graph) -> None:
    graph.pipe(IN).lookup_join(OTHER, missing="none").map(lambda pair: pair[0]).into(OUT)
    graph.pipe(IN).lookup_join(OTHER, value[0] + value[1]).into(MID)


def _lookup_waits(graph: Graph) -> None:
    graph.pipe(IN).lookup_join(OTHER, value[0] + value[1], missing="wait", wait=1.0, waiting_max=3).into(OUT)


def _lookup_by_function(graph: Graph) -> None:
    _unkeyed(graph)
    graph.pipe(IN).lookup_join(OTHER, lambda left, right: right / (left - 3)).filter(lambda x: x > 0).into(
        OUT
    )


def _latest(graph: Graph) -> None:
    _unkeyed(graph)
    graph.join_latest(IN, OTHER, combine=value[0] - value[1]).into(OUT)


def _with_itself(graph: Graph) -> None:
    graph.pipe(IN).map(value + 1).into(MID)
    graph.join_latest(IN, MID, combine=value[0] + value[1]).into(OUT)


def _interval(graph: Graph) -> None:
    graph.publish(OTHER, 1.0, time=0)
    graph.pipe(IN).interval_join(OTHER, 1000, value[0] + value[1], unsafe_cross=True).into(OUT)


def _paces(graph: Graph) -> None:
    graph.pipe(IN).distinct().into(OUT)
    graph.pipe(IN).throttle(1e-7).into(MID)
    graph.pipe(IN).debounce(1e-7).into(ASIDE)
    graph.pipe(IN).hysteresis(0, 20).into(TRUTH)
    graph.pipe(IN).dedupe().into(LATE)


def _elements(graph: Graph) -> None:
    graph.capacitor(IN, OUT, capacity=3, demand=OTHER, overflow="drop_oldest")
    graph.resistor(IN, MID, release=OTHER)


def _lambdas(graph: Graph) -> None:
    graph.pipe(IN).map(lambda x: x + 1).filter(lambda x: x > 3).map(lambda x: 60 / (x - 5)).into(OUT)


def _other_functions(graph: Graph) -> None:
    graph.pipe(IN).flat_map(lambda x: [x] * int(abs(x) % 3)).into(OUT)


def _keys_by_function(graph: Graph) -> None:
    graph.pipe(IN).key_by(lambda x: "even" if x % 2 else "odd").map(mean(2)).into(OUT)


def _no_floats(graph: Graph) -> None:
    graph.pipe(IN).map(lambda x: x > 3).into(TRUTH)


def _into_json(graph: Graph) -> None:
    graph.pipe(IN).map(lambda x: {"x": x, "y": 2.0}).into(ROWS)
    graph.pipe(ROWS).filter(field("x") > 3).map(field("x") / field("y")).into(OUT)


def _does_not_fit(graph: Graph) -> None:
    mixture: Pipeline[Any] = graph.pipe(IN).map(lambda x: x if x > 3 else "small")
    mixture.into(OUT)


def _to_the_host(graph: Graph) -> None:
    graph.pipe(IN).map(value / 3).observe(lambda x: 1 / (x - 1))


def _scan(graph: Graph) -> None:
    graph.pipe(IN).scan(lambda total, x: total + x, 0.0).into(OUT)


def _forward(graph: Graph) -> None:
    graph.connect(IN, MID)
    graph.pipe(MID).map(value + 1).into(OUT)
    graph.connect(OUT, ASIDE)


def _streams(graph: Graph) -> None:
    graph.pipe(IN).map(value + 1).into(OUT)
    graph.stream(OUT, capacity=7)
    graph.stream(IN, capacity=1000, overflow="reject")


def _scatter(graph: Graph) -> None:
    graph.scatter(IN, [OUT, MID, ASIDE], by="value")


PLANS: Sequence[Plan] = (
    _expressions,
    _divides,
    _two_nodes,
    _rolling,
    _rolling_all,
    _keyed,
    _window,
    _sliding,
    _window_of_values,
    _other_windows,
    _lookup,
    _lookup_marks,
    _lookup_nothing,
    _lookup_waits,
    _lookup_by_function,
    _latest,
    _with_itself,
    _interval,
    _paces,
    _elements,
    _lambdas,
    _other_functions,
    _keys_by_function,
    _no_floats,
    _into_json,
    _does_not_fit,
    _to_the_host,
    _scan,
    _forward,
    _streams,
    _scatter,
)

FIELDS = (
    "id",
    "time",
    "ingest_time",
    "key",
    "correlation",
    "causality",
    "trace",
    "parents",
    "taints",
    "labels",
    "guards",
    "operator",
    "logical_time",
    "epoch",
    "sampled",
)


def _plain(event: Event[Any]) -> tuple[Any, ...]:
    return (repr(event.value), *(getattr(event, name) for name in FIELDS))


def _all_of(graph: Graph) -> dict[str, Any]:
    """Everything that can be asked of a graph."""
    return {
        "events": {r.text: [_plain(event) for event in graph.history(r)] for r in ALL},
        "edges": [(edge.name, edge.counters) for edge in graph.edges()],
        "operators": graph.operators(),
        "failures": graph.failures(),
        "states": [_state(graph, info.id) for info in graph.operators()],
        "numbers": {r.text: graph.published(r) for r in ALL},
    }


def _state(graph: Graph, number: int) -> Any:
    try:
        return graph.save_node(number)
    except WiringError as error:  # what a lambda made cannot be kept
        return str(error)


def _wired(plan: Plan, *, recorded: bool = False, history: int = 10_000) -> tuple[Graph, LogClock]:
    clock = LogClock()
    graph = Graph(name="runs", clock=clock, seed=3)
    if recorded:
        record(graph)
    for r in ALL:
        graph.configure_retention(r, history=history)
    plan(graph)
    return graph, clock


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


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.__name__.strip("_"))
@pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "disordered"])
@settings(max_examples=25, deadline=None)
@given(batches=BATCHES, keyed=st.booleans(), history=st.sampled_from([10_000, 2]))
def test_s2_a_run_gives_what_its_events_give_one_at_a_time(
    plan: Plan, ordered: bool, batches: list[list[tuple[float, int]]], keyed: bool, history: int
) -> None:
    # Functions that keep state of their own are made for each graph by the plan.
    one, one_clock = _wired(plan, history=history)
    many, many_clock = _wired(plan, history=history)
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
    assert _all_of(many) == _all_of(one)


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.__name__.strip("_"))
def test_s3_transcripts_of_runs_are_those_of_single_events(plan: Plan) -> None:
    transcripts = []
    for at_once in (False, True):
        graph, clock = _wired(plan, recorded=True)
        clock.wall_ns = 1000
        _publish(graph, [float(i % 7) for i in range(40)], [1000 + 7 * i for i in range(40)], None, at_once)
        transcripts.append(transcript_of(graph))
    assert transcripts[0] == transcripts[1]


@pytest.mark.parametrize("plan", [_expressions, _rolling, _lookup, _lambdas, _sliding])
@pytest.mark.parametrize("roots", [3, 0])
def test_s30_of_a_run_the_same_events_are_sampled_as_of_single_ones(plan: Plan, roots: int) -> None:
    found: list[Any] = []
    for at_once in (False, True):
        graph, clock = _wired(plan)
        tracing = Tracing(graph)
        tracing.start(0.5, roots_per_s=roots)
        for second in range(3):
            clock.wall_ns = 1_000_000_000 * (second + 1)
            times = [clock.wall_ns + 7 * i for i in range(40)]
            _publish(graph, [float(i % 9) for i in range(40)], times, None, at_once)
        spans = sorted((s.event, s.kind, s.span, s.parent, s.trace, s.inputs) for s in tracing.take(10_000))
        found.append((_all_of(graph), spans))
        assert len({span[4] for span in spans if span[0] in {e.id for e in graph.history(IN)}}) == 3 * roots
    assert found[0] == found[1]


@pytest.mark.parametrize("plan", [_expressions, _two_nodes, _forward, _sliding, _other_windows])
def test_s4_observers_of_a_run_are_called_in_the_order_of_its_elements(plan: Plan) -> None:
    found: list[list[Any]] = []
    for at_once in (False, True):
        graph, clock = _wired(plan)
        clock.wall_ns = 500
        calls: list[Any] = []
        for r in ALL:

            def see(event: Event[Any], calls: list[Any] = calls, r: Route[Any] = r) -> None:
                calls.append((r.text, event.seq, event.value))
                if event.seq == 3:
                    raise ValueError(f"{r.text} {event.seq}")

            graph.observe(r, see)
        _publish(graph, [float(i % 9) for i in range(60)], [500 + 7 * i for i in range(60)], None, at_once)
        found.append([calls, graph.failures(), _all_of(graph)])
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


@pytest.mark.parametrize("plan", PLANS, ids=lambda plan: plan.__name__.strip("_"))
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
        graph, clock = _wired(plan, history=history)
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
        found.append((_all_of(graph), [event.seq_link for event in graph.history(IN)]))
    assert found[0] == found[1]

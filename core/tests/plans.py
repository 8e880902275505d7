"""Wirings with every kind of operator, and all that can be asked of a graph: what two ways to publish have to agree on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from meshfold.core import (
    Event,
    Graph,
    LogClock,
    Pipeline,
    Route,
    Schema,
    WiringError,
    ema,
    field,
    max_,
    mean,
    record,
    route,
    std,
    sum_,
    value,
)

IN = route("runs", "test", "in", schema=Schema.float())
MID = route("runs", "test", "mid", schema=Schema.float())
OUT = route("runs", "test", "out", schema=Schema.float())
ASIDE = route("runs", "test", "aside", schema=Schema.float())
OTHER = route("runs", "test", "other", schema=Schema.float())
LATE = route("runs", "test", "late", schema=Schema.float())
WHOLE = route("runs", "test", "whole", schema=Schema.int())
TRUTH = route("runs", "test", "truth", schema=Schema.bool())
ROWS = route("runs", "test", "rows", schema=Schema.of(dict[str, float], name="rows"))
PAIRS = route("runs", "test", "pairs", schema=Schema.of(list[float], name="pairs"))
ALL: tuple[Route[Any], ...] = (IN, MID, OUT, ASIDE, OTHER, LATE, WHOLE, TRUTH, ROWS, PAIRS)

Plan = Callable[[Graph], None]


def unkeyed(graph: Graph) -> None:
    graph.publish(OTHER, 5.0)


def expressions(graph: Graph) -> None:
    graph.pipe(IN).map(value + 1).filter((value > 0) & ~(value > 40)).map(value * 2 - 1).into(OUT)


def divides(graph: Graph) -> None:
    graph.pipe(IN).map(1 / value).filter(value % 2 >= 0.25).map(-value).into(OUT)


def two_nodes(graph: Graph) -> None:
    graph.pipe(IN).filter(value >= 0).into(MID)
    graph.pipe(MID).map(value + 1).map(mean(3)).into(OUT)
    graph.pipe(MID).map(sum_()).into(ASIDE)


def rolling(graph: Graph) -> None:
    graph.pipe(IN).map(mean(4)).into(OUT)
    graph.pipe(IN).map(std(5)).into(MID)
    graph.pipe(IN).map(max_(3)).into(ASIDE)
    graph.pipe(MID).map(mean(2)).into(LATE)


def rolling_all(graph: Graph) -> None:
    graph.pipe(IN).map(ema(0.5)).into(OUT)
    graph.pipe(OUT).map(max_()).into(MID)


def keyed(graph: Graph) -> None:
    graph.pipe(IN).key_by(value % 3).map(mean(3)).into(OUT)


def window(graph: Graph) -> None:
    graph.window(IN, width=100, disorder=30, grace=40, aggregate=mean(), late=LATE).into(OUT)


def sliding(graph: Graph) -> None:
    graph.window(IN, width=100, slide=30, aggregate=sum_()).into(OUT)
    graph.pipe(OUT).map(value * 2).into(MID)


def window_of_values(graph: Graph) -> None:
    graph.window(IN, width=50, disorder=10, aggregate=lambda items: float(len(items))).into(OUT)


def other_windows(graph: Graph) -> None:
    graph.window(IN, gap=20, disorder=5, aggregate=sum_(), late=LATE).into(OUT)
    graph.window(IN, 3, aggregate=mean()).into(MID)


def lookup(graph: Graph) -> None:
    unkeyed(graph)
    graph.lookup_join(IN, OTHER, combine=value[0] + value[1]).into(OUT)
    graph.pipe(OUT).map(mean(2)).into(MID)


def lookup_marks(graph: Graph) -> None:
    graph.publish(OTHER, 2.0, taints=["TIME_ESTIMATED"], labels=["secret"])
    graph.pipe(IN).lookup_join(OTHER, value[0] * value[1], versioned=False).into(OUT)


def lookup_nothing(graph: Graph) -> None:
    graph.pipe(IN).lookup_join(OTHER, missing="none").map(lambda pair: pair[0]).into(OUT)
    graph.pipe(IN).lookup_join(OTHER, value[0] + value[1]).into(MID)


def lookup_waits(graph: Graph) -> None:
    graph.pipe(IN).lookup_join(OTHER, value[0] + value[1], missing="wait", wait=1.0, waiting_max=3).into(OUT)


def lookup_by_function(graph: Graph) -> None:
    unkeyed(graph)
    graph.pipe(IN).lookup_join(OTHER, lambda left, right: right / (left - 3)).filter(lambda x: x > 0).into(
        OUT
    )


def latest(graph: Graph) -> None:
    unkeyed(graph)
    graph.join_latest(IN, OTHER, combine=value[0] - value[1]).into(OUT)


def latest_the_other_way(graph: Graph) -> None:
    graph.join_latest(OTHER, IN, combine=value[0] * value[1]).into(OUT)
    unkeyed(graph)
    graph.pipe(OUT).map(mean(2)).into(MID)
    graph.join_latest(IN, OTHER, LATE, combine=value[0]).into(ASIDE)


def distinct_then_more(graph: Graph) -> None:
    graph.pipe(IN).map(value % 3).distinct().map(value + 1).into(OUT)
    graph.pipe(OUT).map(sum_()).into(MID)


def with_itself(graph: Graph) -> None:
    graph.pipe(IN).map(value + 1).into(MID)
    graph.join_latest(IN, MID, combine=value[0] + value[1]).into(OUT)


def interval(graph: Graph) -> None:
    graph.publish(OTHER, 1.0, time=0)
    graph.pipe(IN).interval_join(OTHER, 1000, value[0] + value[1], unsafe_cross=True).into(OUT)


def paces(graph: Graph) -> None:
    graph.pipe(IN).distinct().into(OUT)
    graph.pipe(IN).throttle(1e-7).into(MID)
    graph.pipe(IN).debounce(1e-7).into(ASIDE)
    graph.pipe(IN).hysteresis(0, 20).into(TRUTH)
    graph.pipe(IN).dedupe().into(LATE)


def elements(graph: Graph) -> None:
    graph.capacitor(IN, OUT, capacity=3, demand=OTHER, overflow="drop_oldest")
    graph.resistor(IN, MID, release=OTHER)


def lambdas(graph: Graph) -> None:
    graph.pipe(IN).map(lambda x: x + 1).filter(lambda x: x > 3).map(lambda x: 60 / (x - 5)).into(OUT)


def other_functions(graph: Graph) -> None:
    graph.pipe(IN).flat_map(lambda x: [x] * int(abs(x) % 3)).into(OUT)


def keys_by_function(graph: Graph) -> None:
    graph.pipe(IN).key_by(lambda x: "even" if x % 2 else "odd").map(mean(2)).into(OUT)


def no_floats(graph: Graph) -> None:
    graph.pipe(IN).map(lambda x: x > 3).into(TRUTH)


def into_json(graph: Graph) -> None:
    graph.pipe(IN).map(lambda x: {"x": x, "y": 2.0}).into(ROWS)
    graph.pipe(ROWS).filter(field("x") > 3).map(field("x") / field("y")).into(OUT)


def does_not_fit(graph: Graph) -> None:
    mixture: Pipeline[Any] = graph.pipe(IN).map(lambda x: x if x > 3 else "small")
    mixture.into(OUT)


def fits_no_more(graph: Graph) -> None:
    whole: Pipeline[Any] = graph.pipe(IN).map(value * 2)
    whole.into(WHOLE)


def to_the_host(graph: Graph) -> None:
    graph.pipe(IN).map(value / 3).observe(lambda x: 1 / (x - 1))


def scan(graph: Graph) -> None:
    graph.pipe(IN).scan(lambda total, x: total + x, 0.0).into(OUT)


def forward(graph: Graph) -> None:
    graph.connect(IN, MID)
    graph.pipe(MID).map(value + 1).into(OUT)
    graph.connect(OUT, ASIDE)


def streams(graph: Graph) -> None:
    graph.pipe(IN).map(value + 1).into(OUT)
    graph.stream(OUT, capacity=7)
    graph.stream(IN, capacity=1000, overflow="reject")


def scatter(graph: Graph) -> None:
    graph.scatter(IN, [OUT, MID, ASIDE], by="value")


PLANS: Sequence[Plan] = (
    latest_the_other_way,
    distinct_then_more,
    expressions,
    divides,
    two_nodes,
    rolling,
    rolling_all,
    keyed,
    window,
    sliding,
    window_of_values,
    other_windows,
    lookup,
    lookup_marks,
    lookup_nothing,
    lookup_waits,
    lookup_by_function,
    latest,
    with_itself,
    interval,
    paces,
    elements,
    lambdas,
    other_functions,
    keys_by_function,
    no_floats,
    into_json,
    does_not_fit,
    fits_no_more,
    to_the_host,
    scan,
    forward,
    streams,
    scatter,
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


def plain(event: Event[Any]) -> tuple[Any, ...]:
    return (repr(event.value), *(getattr(event, name) for name in FIELDS))


def all_of(graph: Graph) -> dict[str, Any]:
    """Everything that can be asked of a graph."""
    return {
        "events": {r.text: [plain(event) for event in graph.history(r)] for r in ALL},
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


def wired(plan: Plan, *, recorded: bool = False, history: int = 10_000) -> tuple[Graph, LogClock]:
    clock = LogClock()
    graph = Graph(name="runs", clock=clock, seed=3)
    if recorded:
        record(graph)
    for r in ALL:
        graph.configure_retention(r, history=history)
    plan(graph)
    return graph, clock

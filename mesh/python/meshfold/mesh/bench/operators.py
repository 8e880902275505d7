"""One process: what operators cost, one value at a time and in batches."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from time import perf_counter
from typing import Any

from meshfold.core import Graph, Pipeline, Route, Schema, mean, route, value
from meshfold.mesh.bench.reference import Case

__all__ = ("OPERATOR_CASES",)

SLICE = 4096
Plan = Callable[[Graph, Route[float]], Pipeline[Any]]


def _route(name: str) -> Route[float]:
    return route("bench", "operators", name, schema=Schema.float("Celsius"))


def _lambdas(graph: Graph, source: Route[float]) -> Pipeline[Any]:
    return graph.pipe(source).map(lambda x: x + 1.0).filter(lambda x: x >= 0.0).map(lambda x: x * 2.0)


def _native(graph: Graph, source: Route[float]) -> Pipeline[Any]:
    return graph.pipe(source).map(value + 1.0).filter(value >= 0.0).map(value * 2.0)


def _rolling(graph: Graph, source: Route[float]) -> Pipeline[Any]:
    return graph.pipe(source).map(mean(100))


def _window(graph: Graph, source: Route[float]) -> Pipeline[Any]:
    return graph.window(source, width=1_000_000, aggregate=mean())


def _lookup_python(graph: Graph, source: Route[float]) -> Pipeline[Any]:
    state = _route("state")
    graph.publish(state, 1.0)
    return graph.lookup_join(source, state, combine=lambda left, right: left + right)


def _lookup(graph: Graph, source: Route[float]) -> Pipeline[Any]:
    state = _route("state")
    graph.publish(state, 1.0)
    return graph.lookup_join(source, state, combine=value[0] + value[1])


def one_at_a_time(plan: Plan) -> Callable[[int], float]:
    """Publish floats one by one through a plan into a route."""

    def run(items: int) -> float:
        graph, source, sink = Graph(), _route("source"), _route("sink")
        plan(graph, source).into(sink)
        begin = perf_counter()
        for i in range(items):
            graph.publish(source, float(i))
        rate = items / (perf_counter() - begin)
        assert graph.published(sink) > 0
        return rate

    return run


def _starts(rounds: int) -> range:
    return range(0, rounds * 100 * SLICE, 100 * SLICE)


def batched(plan: Plan) -> Callable[[int], float]:
    """Publish a buffer of doubles, in slices, through a plan into a route."""

    def run(items: int) -> float:
        graph, source, sink = Graph(), _route("source"), _route("sink")
        plan(graph, source).into(sink)
        values = array("d", (float(i) for i in range(SLICE)))
        rounds = max(2, items // SLICE)
        # A value each 100 ns of device time.
        times = [array("q", range(begin, begin + 100 * SLICE, 100)) for begin in _starts(rounds)]
        begin = perf_counter()
        for of_round in times:
            graph.publish_many(source, values, times=of_round)
        rate = rounds * SLICE / (perf_counter() - begin)
        assert graph.published(sink) > 0
        return rate

    return run


def capacitor(items: int) -> float:
    """Publish floats one by one through a capacitor that lets everything pass at once."""
    graph, source, sink = Graph(), _route("source"), _route("sink")
    graph.capacitor(source, sink, capacity=16, immediate=True)
    begin = perf_counter()
    for i in range(items):
        graph.publish(source, float(i))
    rate = items / (perf_counter() - begin)
    assert graph.published(sink) == items
    return rate


def capacitor_demand(items: int) -> float:
    """Publish floats one by one into a capacitor that keeps the newest; each tenth is followed by a demand."""
    graph, source, sink, demand = Graph(), _route("source"), _route("sink"), _route("demand")
    graph.capacitor(source, sink, demand=demand)
    begin = perf_counter()
    for i in range(items):
        graph.publish(source, float(i))
        if i % 10 == 9:
            graph.publish(demand, 1.0)
    rate = items / (perf_counter() - begin)
    assert graph.published(sink) == items // 10
    return rate


_PLANS: tuple[tuple[str, Plan], ...] = (
    ("map/filter/map of lambdas", _lambdas),
    ("map/filter/map of expressions", _native),
    ("mean of the last 100", _rolling),
    ("event-time window mean", _window),
    ("lookup join", _lookup),
    ("lookup join, combined by a lambda", _lookup_python),
)

OPERATOR_CASES = (
    *(Case(name, "events/s", 100_000, one_at_a_time(plan)) for name, plan in _PLANS),
    Case("capacitor", "events/s", 100_000, capacitor),
    Case("capacitor, demand for each tenth", "events/s", 100_000, capacitor_demand),
    *(Case(f"{name}, batched", "events/s", 400_000, batched(plan)) for name, plan in _PLANS),
)

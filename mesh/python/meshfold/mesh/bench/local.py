"""One process: what a publish costs."""

from __future__ import annotations

from array import array
from time import perf_counter

from meshfold.core import Event, Graph, Route, Schema, Tracing, route
from meshfold.mesh.bench.reference import Case

__all__ = ("LOCAL_CASES",)


def _temperature() -> Route[float]:
    return route("bench", "thermal", "temperature", schema=Schema.float("Celsius"))


def publish_one_observer(items: int) -> float:
    """Publish floats one at a time to one observer in the turn."""
    graph, temperature = Graph(), _temperature()
    seen = 0

    def observer(event: Event[float]) -> None:
        nonlocal seen
        seen += 1

    graph.observe(temperature, observer)
    begin = perf_counter()
    for i in range(items):
        graph.publish(temperature, float(i))
    rate = items / (perf_counter() - begin)
    assert seen == items
    return rate


def publish_retained(items: int) -> float:
    """Publish floats one at a time with nobody listening."""
    graph, temperature = Graph(), _temperature()
    begin = perf_counter()
    for i in range(items):
        graph.publish(temperature, float(i))
    rate = items / (perf_counter() - begin)
    assert graph.published(temperature) == items
    return rate


def _publish_traced(items: int, ratio: float) -> float:
    graph, temperature = Graph(), _temperature()
    tracing = Tracing(graph)
    tracing.start(ratio)
    seen = 0

    def observer(event: Event[float]) -> None:
        nonlocal seen
        seen += 1

    graph.observe(temperature, observer)
    begin = perf_counter()
    for i in range(items):
        graph.publish(temperature, float(i))
    rate = items / (perf_counter() - begin)
    assert seen == items
    assert tracing.counts()[0] == (items if ratio else 0)
    return rate


def publish_unsampled(items: int) -> float:
    """As `publish_one_observer`, in a graph that is traced, where no trace is sampled."""
    return _publish_traced(items, 0.0)


def publish_sampled(items: int) -> float:
    """As `publish_one_observer`, and every event leaves a record."""
    return _publish_traced(items, 1.0)


def publish_many_buffer(items: int) -> float:
    """Publish a buffer of doubles in one call, in slices of 4,096."""
    graph, temperature = Graph(), _temperature()
    values = array("d", (float(i) for i in range(4096)))
    rounds = max(1, items // len(values))
    begin = perf_counter()
    for _ in range(rounds):
        graph.publish_many(temperature, values)
    rate = rounds * len(values) / (perf_counter() - begin)
    assert graph.published(temperature) == rounds * len(values)
    return rate


def latest(items: int) -> float:
    """Read the latest value."""
    graph, temperature = Graph(), _temperature()
    graph.publish(temperature, 1.0)
    begin = perf_counter()
    for _ in range(items):
        event = graph.latest(temperature)
        assert event is not None
        event.value  # noqa: B018 - decoding is what is measured
    return items / (perf_counter() - begin)


LOCAL_CASES = (
    Case("publish to one observer", "events/s", 300_000, publish_one_observer),
    Case("publish, traced, not sampled", "events/s", 300_000, publish_unsampled),
    Case("publish, sampled", "events/s", 300_000, publish_sampled),
    Case("publish, retained", "events/s", 300_000, publish_retained),
    Case("publish_many of doubles", "events/s", 2_000_000, publish_many_buffer),
    Case("latest value", "reads/s", 300_000, latest),
)

"""Batches that say nothing but values and times: they enter as columns, and nothing may tell that from events one by one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from meshfold.core import Event, Graph, LogClock, Schema, Taint, record, route
from plans import plain

KINDS: tuple[tuple[Schema[Any], Callable[[int], Any]], ...] = (
    (Schema.float(), float),
    (Schema.int(), int),
    (Schema.str(), lambda i: f"number {i} of many" * (i % 3)),
    (Schema.bytes("anything"), lambda i: bytes([i % 256]) * (i % 200)),
    (Schema.bool(), lambda i: i % 2 == 0),
    (Schema.of(dict[str, int], name="document"), lambda i: {"i": i}),
)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind[0].kind)
@pytest.mark.parametrize("way", ["nobody", "readers", "operators", "connected"])
def test_s2_a_plain_batch_enters_as_it_does_event_by_event(
    kind: tuple[Schema[Any], Callable[[int], Any]], way: str
) -> None:
    schema, make = kind
    into, on = route("far", "test", "in", schema=schema), route("far", "test", "on", schema=schema)
    edge = Graph(name="edge", clock=LogClock(), seed=4)
    tap = edge.tap(into, capacity=10_000)
    edge.publish_many(into, [make(i) for i in range(120)], times=[1000 - 7 * (i % 5) for i in range(120)])
    batches = [tap.drain(30) for _ in range(4)]
    found: list[Any] = []
    for recorded in (False, True):
        graph = Graph(name="hub", clock=LogClock(), seed=3)
        if recorded:
            # Whoever keeps a transcript takes events one by one.
            record(graph)
        for r in (into, on):
            graph.configure_retention(r, history=40)
        seen: list[Any] = []
        streams = []
        if way == "readers":

            def see(event: Event[Any], seen: list[Any] = seen) -> None:
                seen.append(plain(event))

            graph.observe(into, see)
            streams.append(graph.stream(into, capacity=50))
        if way == "operators":
            graph.pipe(into).distinct().map(lambda x: x).into(on)
        if way == "connected":
            graph.connect(into, on)
        inlet = graph.inlet(into)
        receipts = []
        # The second is late, so it counts as lost first; the first comes twice.
        for place, taints in ((0, ()), (2, (Taint.TIME_ESTIMATED,)), (1, ()), (0, ()), (3, ())):
            batch = batches[place]
            assert batch is not None
            receipts.append(
                inlet.push(
                    batch.meta,
                    batch.payload,
                    producer=batch.producer,
                    incarnation=batch.incarnation,
                    taints=taints,
                )
            )
        history = [[plain(event) for event in graph.history(r)] for r in (into, on)]
        links = [event.seq_link for event in graph.history(into)]
        waiting = [[plain(event) for event in stream.blocking(0)] for stream in streams]
        edges = [(edge.name, edge.counters) for edge in graph.edges()]
        found.append((receipts, history, links, seen, waiting, edges, inlet.counters(), graph.failures()))
    assert found[0] == found[1]
    assert len(found[0][1][0]) == 40


def test_documents_that_are_published_at_once_go_on_over_a_connection() -> None:
    document = Schema.of(dict[str, int], name="document")
    into, on = route("far", "test", "in", schema=document), route("far", "test", "on", schema=document)
    graph = Graph()
    graph.configure_retention(on, history=10)
    graph.connect(into, on)
    graph.publish_many(into, [{"i": 1}, {"i": 2}])
    assert [event.value for event in graph.history(on)] == [{"i": 1}, {"i": 2}]


def test_what_is_kept_of_a_batch_does_not_hold_the_rest_of_it() -> None:
    into = route("far", "test", "large", schema=Schema.bytes("anything"))
    edge, hub = Graph(name="edge"), Graph(name="hub")
    tap, inlet = edge.tap(into, capacity=10_000), hub.inlet(into)
    hub.configure_retention(into, history=1)
    kept = []
    before = _resident_bytes()
    for _ in range(300):
        edge.publish_many(into, [bytes(200)] * 1000)
        batch = tap.drain(1000)
        assert batch is not None
        inlet.push(batch.meta, batch.payload, producer=batch.producer, incarnation=batch.incarnation)
        kept.append(hub.latest(into))
    assert len(kept) == 300
    # One event of each batch is held; their batches were 60 MB.
    assert _resident_bytes() - before < 30_000_000


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")

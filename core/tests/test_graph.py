"""What a user of the local graph sees."""

from __future__ import annotations

import asyncio
import itertools
import threading
from array import array
from dataclasses import dataclass
from typing import Any

import msgspec
import pydantic
import pytest
from meshfold.core import (
    EncodeError,
    Event,
    Graph,
    Schema,
    SchemaMismatch,
    Taint,
    WiringError,
    parse_event_id,
    route,
)
from meshfold.core.errors import DecodeError, QueueFull

TEMPERATURE = route("kiln-7", "thermal", "temperature", schema=Schema.float("Celsius"))
DOUBLED = route("kiln-7", "thermal", "doubled", schema=Schema.float("Celsius"))


@dataclass
class Point:
    """A dataclass value."""

    x: int
    y: float


class Packed(msgspec.Struct):
    """A msgspec value."""

    name: str


class Model(pydantic.BaseModel):
    """A pydantic value."""

    level: int


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (Schema.bytes(), b"\0\xff"),
        (Schema.float(), 871.5),
        (Schema.int(), -(2**63)),
        (Schema.bool(), True),
        (Schema.str(), "grüße"),
        (Schema.of(Point), Point(1, 2.5)),
        (Schema.of(Packed), Packed("a")),
        (Schema.of(Model), Model(level=3)),
    ],
)
def test_a_value_comes_back_as_it_went_in(schema: Schema[Any], value: Any) -> None:
    graph = Graph()
    r = route("o", "f", "s", schema=schema)
    graph.publish(r, value)
    latest = graph.latest(r)
    assert latest is not None
    assert latest.value == value
    assert type(latest.value) is type(value)


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        (Schema.int(), True),
        (Schema.int(), 2**63),
        (Schema.float(), "1.0"),
        (Schema.float(), True),
        (Schema.bool(), 1),
        (Schema.str(), b"x"),
        (Schema.bytes(), "x"),
        (Schema.of(Point), {"x": 1}),
        (Schema.of(Point), Point("no", 1.0)),  # type: ignore[arg-type]
    ],
)
def test_a_wrong_value_is_refused_and_uses_no_number(schema: Schema[Any], value: Any) -> None:
    graph = Graph()
    r = route("o", "f", "s", schema=schema)
    with pytest.raises(EncodeError):
        graph.publish(r, value)
    assert graph.published(r) == 0
    assert graph.latest(r) is None


def test_numbers_rise_by_one_and_ids_name_them() -> None:
    graph = Graph(producer=b"producer", incarnation=b"incarnat")
    events = [graph.publish(TEMPERATURE, float(i)) for i in range(3)]
    assert [event.seq for event in events] == [1, 2, 3]
    assert parse_event_id(events[2].id) == (b"producer", b"incarnat", TEMPERATURE.tag, 3)


def test_a_failing_observer_is_counted_and_the_others_go_on() -> None:
    graph = Graph()
    seen: list[float] = []

    def fails(event: Event[float]) -> None:
        raise RuntimeError("broken")

    graph.observe(TEMPERATURE, fails)
    graph.observe(TEMPERATURE, lambda event: seen.append(event.value))
    graph.publish(TEMPERATURE, 1.0)
    assert seen == [1.0]
    count, last = graph.failures()
    assert count == 1
    assert "broken" in last[0][1]


def test_publishing_inside_an_observer_is_queued_behind_the_turn() -> None:
    graph = Graph()
    order: list[float] = []

    def again(event: Event[float]) -> None:
        order.append(event.value)
        if event.value < 3:
            graph.publish(TEMPERATURE, event.value + 1)

    graph.observe(TEMPERATURE, again)
    graph.observe(TEMPERATURE, lambda event: order.append(-event.value))
    graph.publish(TEMPERATURE, 1.0)
    assert order == [1.0, -1.0, 2.0, -2.0, 3.0, -3.0]


def test_a_full_input_queue_inside_an_observer_is_an_error_not_a_deadlock() -> None:
    graph = Graph()
    refused: list[QueueFull] = []

    def floods(event: Event[float]) -> None:
        if event.value == 0.0:
            try:
                graph.publish_many(DOUBLED, array("d", bytes(8 * 70_000)))
            except QueueFull as error:
                refused.append(error)

    graph.observe(TEMPERATURE, floods)
    graph.publish(TEMPERATURE, 0.0)
    assert len(refused) == 1


def test_a_pipeline_derives_events_with_parents_in_one_trace() -> None:
    graph = Graph()
    graph.pipe(TEMPERATURE).map(lambda value: value * 2).filter(lambda value: value > 10).into(DOUBLED)
    graph.publish(TEMPERATURE, 1.0)
    source = graph.publish(TEMPERATURE, 21.0, taints=[Taint.TIME_ESTIMATED])
    derived = graph.latest(DOUBLED)
    assert derived is not None
    assert (derived.value, derived.seq) == (42.0, 1)
    assert derived.parents == [source.id]
    assert derived.trace == source.trace
    assert derived.causality == source.id
    assert derived.taints == ["TIME_ESTIMATED"]
    lineage = graph.lineage(derived.id)
    assert lineage is not None
    assert lineage.parents[0].first == source.seq


def test_connect_is_transitive_and_refuses_other_schemas() -> None:
    graph = Graph()
    third = route("kiln-7", "thermal", "third", schema=Schema.float("Celsius"))
    graph.connect(TEMPERATURE, DOUBLED)
    graph.connect(DOUBLED, third)
    graph.publish(TEMPERATURE, 5.0)
    latest = graph.latest(third)
    assert latest is not None
    assert latest.value == 5.0
    with pytest.raises(SchemaMismatch):
        other: Any = route("a", "b", "c", schema=Schema.int())
        graph.connect(TEMPERATURE, other)


@pytest.mark.parametrize("length", [1, 2, 3, 100])
def test_hs10_a_cycle_is_refused_with_its_place_and_nothing_is_wired(length: int) -> None:
    graph = Graph()
    routes = [route("kiln-7", "thermal", f"r{n}", schema=Schema.float()) for n in range(length)]
    for source, sink in itertools.pairwise(routes):
        graph.connect(source, sink)
    before = graph.edges()
    with pytest.raises(WiringError, match="cycle") as caught:
        graph.connect(routes[-1], routes[0])
    assert caught.value.fields["item"] == routes[-1].text
    with pytest.raises(WiringError, match="cycle") as caught:
        graph.pipe(routes[-1]).map(lambda value: value).into(routes[0])
    assert routes[-1].text in str(caught.value)
    assert graph.edges() == before
    graph.publish(routes[0], 5.0)
    assert [graph.published(r) for r in routes] == [1] * length


def test_one_address_with_two_schemas_is_refused() -> None:
    graph = Graph()
    graph.publish(TEMPERATURE, 1.0)
    with pytest.raises(SchemaMismatch):
        graph.publish(route("kiln-7", "thermal", "temperature", schema=Schema.int()), 1)


def test_a_slow_stream_loses_the_oldest_and_accounts_for_it() -> None:
    graph = Graph()
    stream = graph.stream(TEMPERATURE, capacity=2)
    graph.publish_many(TEMPERATURE, [1.0, 2.0, 3.0])
    assert [event.value for event in stream.blocking(0.0)] == [2.0, 3.0]
    counters = stream.counters
    assert (counters.offered, counters.delivered, counters.dropped) == (3, 2, {"overflow_oldest": 1})
    assert counters.unexplained == 0


async def test_who_stops_reading_a_stream_goes_on_where_it_stopped() -> None:
    graph = Graph()
    stream = graph.stream(TEMPERATURE)
    for number in range(5):
        graph.publish(TEMPERATURE, float(number))
    seen: list[float] = []
    for _ in range(2):
        async for event in stream:
            seen.append(event.value)
            break
        assert stream.counters.pending == 5 - len(seen)
    seen += [event.value for event in stream.blocking(0.0)]
    assert seen == [0.0, 1.0, 2.0, 3.0, 4.0]


async def test_a_stream_replays_the_latest_once_and_goes_on() -> None:
    graph = Graph()
    graph.publish(TEMPERATURE, 1.0)
    stream = graph.stream(TEMPERATURE)
    threading.Thread(target=graph.publish, args=(TEMPERATURE, 2.0)).start()
    found: list[float] = []
    async with asyncio.timeout(20):
        async for event in stream:
            found.append(event.value)
            if len(found) == 2:
                break
    assert found == [1.0, 2.0]


def test_concurrent_publishers_keep_one_order_for_all_readers() -> None:
    graph = Graph()
    first: list[int] = []
    second: list[int] = []
    graph.observe(TEMPERATURE, lambda event: first.append(event.seq))
    graph.observe(TEMPERATURE, lambda event: second.append(event.seq))
    threads = [
        threading.Thread(target=lambda: [graph.publish(TEMPERATURE, 1.0) for _ in range(500)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    graph.publish(TEMPERATURE, 0.0)
    assert first == second == list(range(1, 2002))


def test_a_batch_enters_another_graph_with_its_numbers_and_gaps_are_losses() -> None:
    edge, hub = Graph(name="edge"), Graph(name="hub")
    tap = edge.tap(TEMPERATURE)
    inlet = hub.inlet(TEMPERATURE)
    batches = []
    for value in (1.0, 2.0, 3.0, 4.0):
        edge.publish(TEMPERATURE, value, key="k", correlation="c")
        batches.append(tap.drain())
    for batch in (batches[0], batches[2], batches[2]):
        assert batch is not None
        inlet.push(batch.meta, batch.payload, producer=batch.producer, incarnation=batch.incarnation)
    assert inlet.expect(edge.producer, edge.incarnation, 4) == 1
    ((producer, _, counters, last),) = inlet.counters()
    assert (producer, last) == (edge.producer, 4)
    assert (counters.offered, counters.delivered, counters.dropped) == (4, 2, {"link_loss": 2})
    assert counters.replayed == 1
    latest = hub.latest(TEMPERATURE)
    assert latest is not None
    assert (latest.value, latest.seq, latest.key, latest.correlation) == (3.0, 3, "k", "c")


def test_bytes_that_are_no_batch_change_nothing() -> None:
    edge, hub = Graph(name="edge"), Graph(name="hub")
    tap = edge.tap(TEMPERATURE)
    edge.publish(TEMPERATURE, 1.0, correlation="c")
    batch = tap.drain()
    assert batch is not None
    inlet = hub.inlet(TEMPERATURE)
    for cut in range(len(batch.meta)):
        with pytest.raises(DecodeError):
            inlet.push(
                batch.meta[:cut], batch.payload, producer=batch.producer, incarnation=batch.incarnation
            )
    with pytest.raises(DecodeError):
        inlet.push(batch.meta, batch.payload + b"\0", producer=batch.producer, incarnation=batch.incarnation)
    assert inlet.counters() == []
    assert hub.latest(TEMPERATURE) is None


@pytest.mark.parametrize(
    "text", ["", "a/b", "read.logical.a.b.c", "read.logical.A.b.c.meta", "x.logical.a.b.c.meta", "a/b_61/c"]
)
def test_bad_route_text_is_refused(text: str) -> None:
    from meshfold.core import Address

    with pytest.raises(WiringError):
        Address.parse(text)


def test_escaped_text_is_injective() -> None:
    from meshfold.core import Address

    address = Address.of("Kiln 7", "thermal", "top_cpu")
    assert Address.parse(address.text) == address
    assert address.owner == "_4biln_207"

"""Rows M1 to M19: names, envelopes, publishing and observing, each promise by its number."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from meshfold.core import (
    EncodeError,
    Event,
    Graph,
    ManualClock,
    Route,
    Schema,
    SchemaMismatch,
    Taint,
    WiringError,
    WouldBlock,
    logical_routes,
    route,
)

WAIT_S = 60.0
celsius = Schema.float("Celsius")
temperature = route("kiln-7", "thermal", "temperature", schema=celsius)
count = route("demo", "numbers", "count", schema=Schema.int())
double = route("demo", "numbers", "double", schema=Schema.int())
square = route("demo", "numbers", "square", schema=Schema.int())


def test_m1_a_route_is_a_frozen_value_and_dots_do_not_make_two_names_one() -> None:
    one = route("a", "b.c", "d", schema=celsius)
    two = route("a.b", "c", "d", schema=celsius)
    assert one != two
    assert one.address != two.address
    assert one == route("a", "b.c", "d", schema=celsius)
    assert hash(one) == hash(route("a", "b.c", "d", schema=celsius))
    assert Route.parse(one.address, celsius) == one == Route.parse(one.text, celsius)
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.addr.owner = "x"  # type: ignore[misc]
    for blank in ("", "x" * 200):
        with pytest.raises(WiringError):
            route("a", blank, "d", schema=celsius)


def test_m3_the_routes_of_one_device_come_from_one_place() -> None:
    kiln = logical_routes("kiln-7", "thermal")
    assert kiln.read_state("temperature", schema=celsius) == temperature
    assert kiln.read_event("door", schema=celsius).address == "read.logical.kiln-7.thermal.door.event"
    assert kiln.write_request("set", schema=celsius).address == "write.logical.kiln-7.thermal.set.request"
    assert kiln.state("mode", schema=celsius).address == "state.logical.kiln-7.thermal.mode.state"
    with pytest.raises(WiringError):
        logical_routes("kiln-7", "")


def test_m4_a_further_stream_keeps_everything_but_name_and_schema() -> None:
    base = route("a", "b", "c", schema=celsius, plane="write", variant="request", secrecy="none")
    further = base.derivative_route("d.e", schema=Schema.str())
    assert further.address == "write.logical.a.b.d_2ee.request"
    assert (further.secrecy, further.schema.name) == ("none", "str")
    with pytest.raises(WiringError):
        base.derivative_route("", schema=celsius)


@pytest.mark.parametrize(
    "wrong",
    [
        {"plane": "write"},
        {"variant": "request"},
        {"layer": "shadow"},
        {"plane": "read", "variant": "query_request"},
        {"plane": "nowhere"},
        {"layer": "nowhere"},
        {"variant": "nowhere"},
    ],
    ids=str,
)
def test_m5_what_does_not_fit_is_refused_when_the_route_is_made(wrong: dict[str, str]) -> None:
    with pytest.raises(WiringError):
        route("a", "b", "c", schema=celsius, **wrong)  # type: ignore[arg-type]


def test_m9_try_publish_never_waits_and_uses_no_number_when_it_cannot() -> None:
    graph = Graph()
    inside, leave = threading.Event(), threading.Event()

    def busy(event: Event[int]) -> None:
        inside.set()
        assert leave.wait(WAIT_S)

    graph.observe(count, busy)
    turn = threading.Thread(target=graph.publish, args=(count, 1))
    turn.start()
    assert inside.wait(WAIT_S)
    accepted = 0
    with pytest.raises(WouldBlock) as refused:
        while accepted < 1_000_000:
            graph.try_publish(double, accepted)
            accepted += 1
    assert refused.value.retryable
    assert graph.published(double) == accepted
    leave.set()
    turn.join(WAIT_S)
    assert graph.try_publish(double, 7).seq == accepted + 1


def test_m10_every_field_of_the_envelope_can_be_written_and_read() -> None:
    clock = ManualClock(5_000)
    graph = Graph(name="demo", clock=clock)
    cause = graph.publish(count, 0)
    event = graph.publish(
        count,
        1,
        time=4_000,
        key="north",
        parents=[cause],
        correlation="job-1",
        taints=[Taint.TIME_ESTIMATED],
        labels=["internal"],
        guards=["door-closed"],
        qos=3,
        epoch=7,
        logical_time=9,
        clock="device",
    )
    found = {
        name: getattr(event, name)
        for name in (
            "seq", "seq_link", "time", "ingest_time", "logical_time", "clock", "key", "correlation", "labels",
            "guards", "qos", "epoch", "taints", "payload_reference",
        )
    }  # fmt: skip
    assert found == {
        "seq": 2, "seq_link": 0, "time": 4_000, "ingest_time": 5_000, "logical_time": 9, "clock": "device",
        "key": "north", "correlation": "job-1", "labels": ["internal"], "guards": ["door-closed"], "qos": 3,
        "epoch": 7, "taints": ["TIME_ESTIMATED"], "payload_reference": None,
    }  # fmt: skip
    assert event.route == count
    assert (event.producer, event.incarnation) == (graph.producer, graph.incarnation)
    assert (event.parents, event.causality, event.trace) == ([cause.id], cause.id, cause.trace)
    assert event.payload == (1).to_bytes(8, "little")


def test_m12_observers_are_isolated_and_end_when_asked() -> None:
    graph = Graph()
    seen: list[int] = []

    def broken(event: Event[int]) -> None:
        raise ValueError("no")

    first = graph.observe(count, broken)
    second = graph.observe(count, lambda event: seen.append(event.value))
    graph.publish(count, 1)
    second.close()
    second.close()
    graph.publish(count, 2)
    first.close()
    graph.publish(count, 3)
    assert seen == [1]
    assert graph.failures()[0] == 2
    assert graph.latest(count).value == 3  # type: ignore[union-attr]


def test_m13_a_pipeline_makes_one_event_for_each_result() -> None:
    graph = Graph()
    graph.pipe(count).map(lambda v: v * 2).into(double)
    got: list[int] = []
    graph.observe(double, lambda event: got.append(event.value))
    for number in range(5):
        graph.publish(count, number)
    assert got == [0, 2, 4, 6, 8]
    assert graph.published(double) == 5


async def test_m14_any_source_feeds_a_route_and_its_error_reaches_the_caller() -> None:
    graph = Graph()

    def readings() -> Iterator[Any]:
        yield 1
        yield 2
        raise OSError("bus")

    with pytest.raises(OSError, match="bus"):
        graph.feed(count, readings())
    assert graph.feed(count, iter([3])) == 1
    with pytest.raises(EncodeError):
        graph.feed(count, [4, "five", 6])  # type: ignore[misc]

    async def later() -> AsyncIterator[int]:
        yield 7
        await asyncio.sleep(0)
        yield 8

    assert await graph.afeed(count, later()) == 2
    assert graph.published(count) == 6
    assert graph.latest(count).value == 8  # type: ignore[union-attr]


def test_m15_connections_forward_any_number_of_hops_and_end() -> None:
    graph = Graph()
    first = graph.connect(count, double)
    graph.connect(double, square)
    graph.publish(count, 3)
    assert [graph.latest(r).value for r in (double, square)] == [3, 3]  # type: ignore[union-attr]
    with pytest.raises(WiringError, match="cycle"):
        graph.connect(square, count)
    with pytest.raises(SchemaMismatch):
        graph.connect(count, temperature)  # type: ignore[misc]
    first.close()
    first.close()
    graph.publish(count, 4)
    assert graph.published(square) == 1


def test_m16_m17_a_part_knows_its_routes_and_ends_as_one() -> None:
    graph = Graph()
    with graph.part("numbers") as numbers:
        graph.pipe(count).map(lambda v: v * 2).into(double)
        with graph.part("inner") as inner:
            graph.connect(double, square)
            stream = graph.stream(square)
    graph.observe(count, lambda event: None)
    assert (numbers.name, inner.name, numbers.parts) == ("numbers", "numbers/inner", [inner])
    assert numbers.input_routes == (count,)
    assert numbers.output_routes == tuple(sorted((double, square), key=lambda r: r.address))
    assert (inner.input_routes, inner.output_routes) == ((double,), (square,))
    graph.publish(count, 2)
    assert graph.latest(square).value == 4  # type: ignore[union-attr]
    inner.close()
    assert list(stream.blocking(timeout=0)) == []
    graph.publish(count, 3)
    assert [graph.latest(r).value for r in (double, square)] == [6, 4]  # type: ignore[union-attr]
    numbers.close()
    numbers.close()
    graph.publish(count, 5)
    assert graph.latest(double).value == 6  # type: ignore[union-attr]
    assert [row.kind for row in graph.edges()] == ["observer"]


def test_m17_a_part_whose_building_fails_leaves_nothing_behind() -> None:
    graph = Graph()
    with pytest.raises(SchemaMismatch), graph.part("half"):
        graph.connect(count, double)
        graph.connect(count, temperature)  # type: ignore[misc]
    assert graph.edges() == []
    with pytest.raises(WiringError):
        graph.part("a/b")


async def test_m18_an_observer_runs_in_the_turn_in_a_thread_of_its_own_or_in_the_loop() -> None:
    graph = Graph()
    where: dict[str, threading.Thread] = {}
    thread_done, loop_done = threading.Event(), asyncio.Event()

    def in_thread(event: Event[int]) -> None:
        where["queue"] = threading.current_thread()
        thread_done.set()

    async def in_loop(event: Event[int]) -> None:
        where["loop"] = threading.current_thread()
        loop_done.set()

    graph.observe(count, lambda event: where.__setitem__("turn", threading.current_thread()))
    with graph.observe(count, in_thread, capacity=4), graph.observe(count, in_loop):
        graph.publish(count, 1)
        await asyncio.wait_for(loop_done.wait(), WAIT_S)
        assert await asyncio.to_thread(thread_done.wait, WAIT_S)
    assert where["turn"] is where["loop"] is threading.current_thread()
    assert where["queue"] is not threading.current_thread()


def test_m19_publishing_on_the_same_route_inside_its_observer_is_no_recursion() -> None:
    graph = Graph()
    depth, deepest = [0], [0]

    def again(event: Event[int]) -> None:
        depth[0] += 1
        deepest[0] = max(deepest[0], depth[0])
        if event.value < 5_000:
            graph.publish(count, event.value + 1)
        depth[0] -= 1

    graph.observe(count, again)
    graph.publish(count, 0)
    assert graph.latest(count).value == 5_000  # type: ignore[union-attr]
    assert deepest == [1]

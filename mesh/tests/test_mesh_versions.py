"""Versions of a schema over two nodes: an accepted older producer is upcast on the reader, the rest refused (S1)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy
import pytest
from meshfold.core import Event, Route, Schema, route
from meshfold.core.errors import PayloadGone, SchemaMismatch
from meshfold.mesh import Node
from meshfold.mesh.local import LocalMesh

WAIT_S = 20.0


@dataclass
class Old:
    """As older nodes publish it."""

    degrees: float


@dataclass
class New:
    """As newer nodes read it."""

    celsius: float


def convert(old: Old) -> New:
    if old.degrees < -459.67:
        raise ValueError("below absolute zero")
    return New((old.degrees - 32) / 1.8)


V1 = Schema.of(Old, name="thermo")
V2 = Schema.of(New, name="thermo", version=2)


def thermo(schema: Schema[Any]) -> Route[Any]:
    return route("edge", "thermal", "thermo", schema=schema)


async def read(node: Node, r: Route[Any], count: int) -> list[Event[Any]]:
    found: list[Event[Any]] = []
    async with asyncio.timeout(WAIT_S):
        async for event in node.graph.stream(r, capacity=4096):
            found.append(event)
            if len(found) == count:
                break
    return found


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not holds():  # noqa: ASYNC110 - the counter is a plain number
            await asyncio.sleep(0)


async def test_m6_an_older_producer_on_another_node_is_upcast_on_the_reader(mesh: LocalMesh) -> None:
    old, new = thermo(V1), thermo(V2.accepts(V1, convert))
    async with mesh.node("hub") as hub, mesh.node("edge") as edge:
        await edge.share(old).ready(WAIT_S)
        bridge = await hub.read(new).ready(WAIT_S)
        reading = asyncio.ensure_future(read(hub, new, 50))
        await asyncio.sleep(0)
        made = edge.graph.publish_many(old, [Old(32.0 + 1.8 * i) for i in range(50)])
        events = await reading
        assert [round(event.value.celsius) for event in events] == list(range(50))
        assert [event.seq for event in events] == list(range(made.first, made.last + 1))
        assert events[0].route.schema.id == V2.id
        assert hub.session.ledger.rejected["schema"] == 0
        flow = await hub.audit_flow()
    assert bridge.counters["delivered"] == 50
    assert flow["unexplained"] == 0


async def test_an_event_its_upcaster_refuses_is_counted_and_the_others_go_on(mesh: LocalMesh) -> None:
    old, new = thermo(V1), thermo(V2.accepts(V1, convert))
    async with mesh.node("hub") as hub, mesh.node("edge") as edge:
        await edge.share(old).ready(WAIT_S)
        await hub.read(new).ready(WAIT_S)
        reading = asyncio.ensure_future(read(hub, new, 3))
        await asyncio.sleep(0)
        edge.graph.publish_many(old, [Old(32.0), Old(-1000.0), Old(212.0)])
        events = await reading
        assert events[0].value == New(0.0)
        assert events[2].value == New(100.0)
        with pytest.raises(PayloadGone, match="upcast"):
            _ = events[1].value
        assert hub.session.ledger.rejected["schema"] == 1


async def test_hs1_a_version_nobody_registered_is_refused_by_name(mesh: LocalMesh) -> None:
    async with mesh.node("hub") as hub, mesh.node("edge") as edge:
        await edge.share(thermo(V1)).ready(WAIT_S)
        with pytest.raises(SchemaMismatch, match="another schema"):
            await hub.read(thermo(V2)).ready(WAIT_S)
        edge.graph.publish(thermo(V1), Old(1.0))
        await until(lambda: hub.session.ledger.rejected["schema"] > 0)
        assert hub.graph.latest(thermo(V2)) is None


async def test_a_newer_producer_is_refused_by_an_older_reader(mesh: LocalMesh) -> None:
    async with mesh.node("hub") as hub, mesh.node("edge") as edge:
        await edge.share(thermo(V2.accepts(V1, convert))).ready(WAIT_S)
        with pytest.raises(SchemaMismatch, match="thermo"):
            await hub.read(thermo(V1)).ready(WAIT_S)
        edge.graph.publish(thermo(V2), New(1.0))
        await until(lambda: hub.session.ledger.rejected["schema"] > 0)
        assert hub.graph.latest(thermo(V1)) is None


async def test_arrays_travel_sealed_and_come_back_as_arrays(mesh: LocalMesh) -> None:
    scan = route("edge", "lidar", "scan", schema=Schema.numpy("f4", (16, 3)))
    given = numpy.random.default_rng(7).random((100, 16, 3), "f4")
    async with mesh.node("hub") as hub, mesh.node("edge") as edge:
        await edge.share(scan).ready(WAIT_S)
        await hub.read(scan).ready(WAIT_S)
        reading = asyncio.ensure_future(read(hub, scan, 100))
        await asyncio.sleep(0)
        edge.graph.publish_many(scan, given)
        events = await reading
    assert numpy.array_equal(numpy.stack([event.value for event in events]), given)

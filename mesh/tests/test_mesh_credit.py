"""Credit over the wire: a slow reader on another node holds the producer's bridge up, and nothing is lost (S6, S7, S43)."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from meshfold.core import Schema, Stream, route
from meshfold.core.errors import WiringError, WouldBlock
from meshfold.core.mailbox import MailboxDescriptor
from meshfold.core.policy import FlowPolicy
from meshfold.mesh import Node
from meshfold.mesh.bridge.outgoing import TAP_EVENTS_MAX
from meshfold.mesh.local import LocalMesh
from meshfold.mesh.node.crediting import credit_sender
from meshfold.mesh.records import Credit

WAIT_S = 30.0
NUMBERS = route("edge", "pump", "count", schema=Schema.int())
FRAMES = route("edge", "camera", "frame", schema=Schema.bytes())


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until the condition holds."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - the condition is another party's
            await asyncio.sleep(0)


@asynccontextmanager
async def joined(mesh: LocalMesh, r: Any = NUMBERS, **share: Any) -> AsyncIterator[tuple[Node, Node]]:
    """A hub that reads a route, and the edge that shares it."""
    async with mesh.node("hub") as hub, mesh.node("edge") as edge:
        await edge.share(r, **share).ready(WAIT_S)
        await hub.read(r).ready(WAIT_S)
        yield hub, edge


def out(node: Node, r: Any = NUMBERS) -> dict[str, Any]:
    """Counters of the bridge by which a route leaves."""
    return node.session.bridges.outgoing[r.address].counters


def coming(node: Node, r: Any = NUMBERS) -> dict[str, Any]:
    """Counters of the bridge by which a route arrives."""
    return node.session.bridges.incoming[r.address].counters


async def told(edge: Node, r: Any = NUMBERS) -> None:
    """Wait until the hub has told how much it takes."""
    await until(lambda: "hub" in out(edge, r)["credit"]["readers"])


def taken(stream: Stream[Any], count: int) -> list[Any]:
    """The next values of a stream that are there."""
    found: list[Any] = []
    for event in stream.blocking(timeout=0):
        found.append(event.value)
        if len(found) == count:
            break
    return found


async def accounts(hub: Node, r: Any = NUMBERS) -> dict[str, Any]:
    """The row of the accounting equation at the hub, once both ends have exchanged counters."""
    heard = hub.session.directory
    before = {tag: last.counter for tag in heard.tags() if (last := heard.last(tag)) is not None}

    def fresh(tag: bytes, counter: int) -> bool:
        last = heard.last(tag)
        return last is not None and (last.closing or last.counter > counter + 1)

    await until(lambda: all(fresh(tag, counter) for tag, counter in before.items()))
    flow = await hub.query("flow", node="hub")
    (row,) = [row for row in flow["routes"] if row["route"] == r.text]
    return dict(row)


async def test_s7_a_slow_reader_at_the_hub_loses_nothing_and_keeps_no_more_than_its_window(
    mesh: LocalMesh,
) -> None:
    async with joined(mesh) as (hub, edge):
        stream = hub.graph.stream(NUMBERS, capacity=16, overflow="block")
        await told(edge)
        edge.graph.publish_many(NUMBERS, list(range(5000)))
        found: list[int] = []
        most = 0
        async with asyncio.timeout(WAIT_S):
            while len(found) < 5000:
                most = max(most, hub.session.bridges.incoming[NUMBERS.address].inlet.held)
                found += taken(stream, 5)
                await asyncio.sleep(0)
        assert found == list(range(5000))
        # What is on its way when the window is full waits here; more than a window there never is.
        assert most <= 16
        assert out(edge)["dropped"] == {}
        row = await accounts(hub)
        assert hub.session.ledger.rejected["limit"] == 0
    assert (row["offered"], row["delivered"], row["pending"]) == (5000, 5000, 0)
    assert (row["dropped"], row["unexplained"]) == ({}, 0)


async def test_s7_the_snapshot_shows_who_holds_a_route_up_and_how_much_it_still_takes(
    mesh: LocalMesh,
) -> None:
    async with joined(mesh) as (hub, edge):
        assert edge.graph.flow_snapshot(NUMBERS).leaving is None
        hub.graph.stream(NUMBERS, capacity=16, overflow="block")
        await told(edge)
        assert edge.graph.flow_snapshot(NUMBERS).leaving == 16
        edge.graph.publish_many(NUMBERS, list(range(100)))
        await until(lambda: edge.graph.flow_snapshot(NUMBERS).leaving == 0)
        await until(lambda: out(edge)["pending"] == 84)
        tap, reader = [
            info for info in edge.graph.credit_snapshot() if info.authority in ("bridge", "reader")
        ]
        assert (tap.authority, tap.gate, tap.available) == ("bridge", False, TAP_EVENTS_MAX - 84)
        assert (reader.name, reader.available, reader.granted, reader.spent) == ("hub", 0, 16, 16)
        await until(lambda: edge.graph.credit_snapshot()[-1].waits > 0)
        # What a reader holds up is no failure of this node.
        assert edge.session.bridges.outgoing[NUMBERS.address].stalled_s() == 0.0
        row = await accounts(hub)
        assert (row["offered"], row["delivered"], row["pending"], row["unexplained"]) == (100, 16, 84, 0)


async def test_s7_a_reader_that_vanishes_holds_the_others_up_no_longer_than_it_counts_as_a_member(
    mesh: LocalMesh,
) -> None:
    async with mesh.node("hub") as hub, mesh.node("edge") as edge, mesh.node("operator") as slow:
        await edge.share(NUMBERS).ready(WAIT_S)
        await hub.read(NUMBERS).ready(WAIT_S)
        await slow.read(NUMBERS).ready(WAIT_S)
        everything = hub.graph.stream(NUMBERS, capacity=4096)
        slow.graph.stream(NUMBERS, capacity=8, overflow="block")
        await until(lambda: "operator" in out(edge)["credit"]["readers"])
        edge.graph.publish_many(NUMBERS, list(range(1000)))
        await until(lambda: out(edge)["delivered"] == 8)
        # It is cut off from the server without a word, holding its credit.
        await slow.session.transport.close()
        found: list[int] = []
        async with asyncio.timeout(WAIT_S):
            while len(found) < 1000:
                found += taken(everything, 1000)
                await asyncio.sleep(0)
        assert found == list(range(1000))
        counters = out(edge)["credit"]
    assert (counters["expired"], counters["readers"]) == (1, {})


async def test_s7_a_reader_that_closes_holds_nobody_up_at_once_and_its_unused_credit_is_counted(
    mesh: LocalMesh,
) -> None:
    async with joined(mesh) as (hub, edge):
        stream = hub.graph.stream(NUMBERS, capacity=8, overflow="block")
        await told(edge)
        edge.graph.publish_many(NUMBERS, [1, 2, 3])
        await until(lambda: hub.graph.latest(NUMBERS) is not None)
        stream.close()
        await until(lambda: out(edge)["credit"]["readers"] == {})
        assert out(edge)["credit"]["revoked"] > 0
        edge.graph.publish_many(NUMBERS, list(range(100)))
        await until(lambda: coming(hub)["delivered"] == 103)


async def drained(stream: Stream[Any], count: int) -> list[Any]:
    """So many values, taken a few at a time while the loop goes on."""
    found: list[Any] = []
    async with asyncio.timeout(WAIT_S):
        while len(found) < count:
            found += taken(stream, min(3, count - len(found)))
            await asyncio.sleep(0)
    return found


async def test_s7_a_restarted_reader_and_a_restarted_producer_begin_anew(mesh: LocalMesh) -> None:
    async with mesh.node("hub") as hub:
        async with mesh.node("edge") as edge:
            await edge.share(NUMBERS).ready(WAIT_S)
            for _ in range(2):
                async with mesh.node("operator") as reader:
                    await reader.read(NUMBERS).ready(WAIT_S)
                    stream = reader.graph.stream(NUMBERS, capacity=4, overflow="block")
                    await until(lambda: "operator" in out(edge)["credit"]["readers"])
                    edge.graph.publish_many(NUMBERS, list(range(50)))
                    assert await drained(stream, 50) == list(range(50))
                await until(lambda: out(edge)["credit"]["readers"] == {})
        bridge = hub.read(NUMBERS)
        stream = hub.graph.stream(NUMBERS, capacity=4, overflow="block")
        for _ in range(2):
            async with mesh.node("edge") as edge:
                await edge.share(NUMBERS).ready(WAIT_S)
                await bridge.ready(WAIT_S)
                await told(edge)
                edge.graph.publish_many(NUMBERS, list(range(50)))
                assert await drained(stream, 50) == list(range(50))


async def test_s7_words_of_credit_that_are_lost_are_said_again(
    mesh: LocalMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(7)
    lost = 0
    async with joined(mesh) as (hub, edge):
        publish = hub.session.transport.publish

        async def lossy(subject: str, data: bytes, **more: Any) -> None:
            nonlocal lost
            if ".c.s-" in subject and chance.random() < 0.8:
                lost += 1
                return
            await publish(subject, data, **more)

        monkeypatch.setattr(hub.session.transport, "publish", lossy)
        stream = hub.graph.stream(NUMBERS, capacity=32, overflow="block")
        await told(edge)
        edge.graph.publish_many(NUMBERS, list(range(300)))
        assert await drained(stream, 300) == list(range(300))
        row = await accounts(hub)
    assert lost > 0
    assert (row["delivered"], row["dropped"], row["unexplained"]) == (300, {}, 0)


async def test_s7_whoever_may_not_read_a_route_cannot_hold_it_up(mesh: LocalMesh) -> None:
    async with joined(mesh) as (hub, edge):
        desk = edge.session.bridges.outgoing[NUMBERS.address]._desk
        assert desk is not None
        sender = credit_sender(hub.session, NUMBERS)
        me, life = edge.session.identity.tag, edge.graph.incarnation
        # Of another life of the producer: nothing changes, nothing is refused.
        await sender(Credit(me, bytes(8), 0, 0))
        await sender(Credit(me, life, 0, 7))
        await until(lambda: out(edge)["credit"]["readers"] == {"hub": 7})
        desk._may_read = lambda tag, address: False
        await sender(Credit(me, life, 0, 0))
        await until(lambda: edge.session.ledger.rejected["grant"] == 1)
        assert out(edge)["credit"]["readers"] == {"hub": 7}


async def test_s7_block_holds_the_publisher_up_and_reject_write_refuses_it(mesh: LocalMesh) -> None:
    async with joined(mesh, flow=FlowPolicy(overflow="block")) as (hub, edge):
        assert edge.graph.describe_edge(out_edge(edge)).flow.overflow == "block"
        stream = hub.graph.stream(NUMBERS, capacity=4096, overflow="block")
        await told(edge)
        more = TAP_EVENTS_MAX + 10_000
        publisher = threading.Thread(
            target=edge.graph.publish_many, args=(NUMBERS, list(range(more))), daemon=True
        )
        publisher.start()
        await until(lambda: edge.graph.flow_snapshot(NUMBERS).blocked_senders == 1)
        assert out(edge)["pending"] == TAP_EVENTS_MAX
        with pytest.raises(WouldBlock):
            edge.graph.try_publish(NUMBERS, 7)
        found: list[int] = []
        async with asyncio.timeout(WAIT_S):
            while len(found) < more:
                found += taken(stream, 4096)
                await asyncio.sleep(0)
        await asyncio.to_thread(publisher.join)
        assert found == list(range(more))
        row = await accounts(hub)
    assert (row["delivered"], row["dropped"], row["unexplained"]) == (more, {}, 0)


def out_edge(node: Node) -> int:
    """The number of a route's tap."""
    return next(info.edge for info in node.graph.credit_snapshot() if info.authority == "bridge")


async def test_s7_without_block_the_oldest_go_counted_at_both_ends_before_any_frame_shows_the_gap(
    mesh: LocalMesh,
) -> None:
    async with joined(mesh) as (hub, edge):
        stream = hub.graph.stream(NUMBERS, capacity=8, overflow="block")
        await told(edge)
        edge.graph.publish_many(NUMBERS, [0] * 8)
        await until(lambda: out(edge)["delivered"] == 8)
        edge.graph.publish_many(NUMBERS, list(range(TAP_EVENTS_MAX + 500)))
        row = await accounts(hub)
        assert row["dropped"] == {"overflow_oldest": 500}
        assert (row["delivered"], row["pending"], row["unexplained"]) == (8, TAP_EVENTS_MAX, 0)
        assert taken(stream, 8) == [0] * 8
        found: list[int] = []
        async with asyncio.timeout(WAIT_S):
            while len(found) < 100:
                found += taken(stream, 8)
                await asyncio.sleep(0)
        assert found[:100] == list(range(500, 600))
        row = await accounts(hub)
        assert row["dropped"] == {"overflow_oldest": 500}
        assert row["unexplained"] == 0


async def test_s7_an_isolated_share_waits_for_nobody_and_a_lossy_reader_holds_nobody_up(
    mesh: LocalMesh,
) -> None:
    async with joined(mesh, flow=FlowPolicy(backpressure="isolate")) as (hub, edge):
        hub.graph.stream(NUMBERS, capacity=4, overflow="block")
        edge.graph.publish_many(NUMBERS, list(range(100)))
        await until(lambda: out(edge)["delivered"] == 100)
        assert out(edge)["credit"] == {}
    async with joined(mesh) as (hub, edge):
        hub.graph.stream(NUMBERS, capacity=4)
        edge.graph.publish_many(NUMBERS, list(range(100)))
        await until(lambda: coming(hub)["delivered"] == 100)
        assert (coming(hub)["credit_words"], out(edge)["credit"]["readers"]) == (0, {})


async def test_s6_bytes_are_credit_over_the_wire_too(mesh: LocalMesh) -> None:
    async with joined(mesh, FRAMES) as (hub, edge):
        box = hub.graph.mailbox(
            "frames", MailboxDescriptor(capacity=64, max_bytes=100_000), schema=Schema.bytes()
        )
        hub.graph.connect(FRAMES, box)
        await told(edge, FRAMES)
        sent = [bytes([number]) * 30_000 for number in range(20)]
        edge.graph.publish_many(FRAMES, sent)
        await until(lambda: edge.graph.flow_snapshot(FRAMES).largest_queue_depth > 10)
        consumer = box.consumer()
        found: list[bytes] = []
        inlet = hub.session.bridges.incoming[FRAMES.address].inlet
        async with asyncio.timeout(WAIT_S):
            while len(found) < len(sent):
                # One frame may go beyond the window: it waits in the inlet.
                assert inlet.held <= 4
                delivery = consumer.receive_nowait()
                if delivery is None:
                    await asyncio.sleep(0)
                    continue
                found.append(delivery.value)
                delivery.ack()
        assert found == sent
        row = await accounts(hub, FRAMES)
    assert (row["delivered"], row["dropped"], row["unexplained"]) == (20, {}, 0)


async def test_s7_what_waits_at_close_still_goes_out(mesh: LocalMesh) -> None:
    async with mesh.node("hub") as hub:
        async with mesh.node("edge") as edge:
            await edge.share(NUMBERS).ready(WAIT_S)
            await hub.read(NUMBERS).ready(WAIT_S)
            stream = hub.graph.stream(NUMBERS, capacity=4, overflow="block")
            await told(edge)
            edge.graph.publish_many(NUMBERS, list(range(1000)))
        found: list[int] = []
        async with asyncio.timeout(WAIT_S):
            while len(found) < 1000:
                found += taken(stream, 100)
                await asyncio.sleep(0)
        assert found == list(range(1000))
        row = await accounts(hub)
    assert (row["offered"], row["delivered"], row["unexplained"]) == (1000, 1000, 0)


async def test_s7_a_policy_that_a_bridge_cannot_keep_is_refused_before_anything_is_shared(
    mesh: LocalMesh,
) -> None:
    async with mesh.node("hub"), mesh.node("edge") as edge:
        with pytest.raises(WiringError, match="deadline"):
            edge.share(NUMBERS, flow=FlowPolicy(overflow="spill_to_store"))
        assert edge.session.bridges.outgoing == {}

"""Two nodes and a real server: what a user of the mesh sees."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from meshfold.core import Action, Event, Schema, route
from meshfold.core.errors import ConfigError, GrantDenied, SchemaMismatch, WiringError
from meshfold.mesh import Node
from meshfold.mesh.enrolment import AuthorityFolder, identity_of
from meshfold.mesh.local import LocalMesh
from meshfold.security import Capability, Grant

WAIT_S = 20.0
TEMPERATURE = route("edge", "thermal", "temperature", schema=Schema.float("Celsius"))


@dataclass
class Sample:
    """A structured value."""

    core: int
    load: float


SAMPLES = route("edge", "host", "sample", schema=Schema.json(Sample))


async def take(node: Node, r: Any, count: int) -> list[Event[Any]]:
    """The next `count` events of a route at a node."""
    found: list[Event[Any]] = []
    async with asyncio.timeout(WAIT_S):
        async for event in node.graph.stream(r, capacity=4096):
            found.append(event)
            if len(found) == count:
                break
    return found


async def test_a_granted_reader_receives_values_in_order_with_their_producer(mesh: LocalMesh) -> None:
    async with mesh.node("hub") as hub, mesh.node("edge") as edge:
        await edge.share(SAMPLES).ready(WAIT_S)
        await hub.read(SAMPLES).ready(WAIT_S)
        reading = asyncio.ensure_future(take(hub, SAMPLES, 50))
        await asyncio.sleep(0)
        for core in range(50):
            edge.graph.publish(SAMPLES, Sample(core, core / 2), correlation="job-1")
        events = await reading
    assert [event.value for event in events] == [Sample(core, core / 2) for core in range(50)]
    assert [event.seq for event in events] == list(range(1, 51))
    assert {event.correlation for event in events} == {"job-1"}
    assert {event.producer for event in events} == {bytes.fromhex(edge.id)}


async def test_the_accounting_equation_holds_after_a_clean_stop(mesh: LocalMesh) -> None:
    async with mesh.node("hub") as hub:
        async with mesh.node("edge") as edge:
            await edge.share(TEMPERATURE).ready(WAIT_S)
            await hub.read(TEMPERATURE).ready(WAIT_S)
            reading = asyncio.ensure_future(take(hub, TEMPERATURE, 2000))
            await asyncio.sleep(0)
            edge.graph.publish_many(TEMPERATURE, [float(i) for i in range(2000)])
            await reading
        async with mesh.node("operator") as operator:
            flow = await operator.audit_flow()
    (row,) = [row for row in flow["routes"] if row["route"] == TEMPERATURE.text]
    assert flow["unexplained"] == 0
    assert row["offered"] == row["delivered"] == 2000
    assert row["published"] == 2000
    assert row["unknown_tail"] == 0


async def test_an_outsider_is_refused_with_the_grant_it_lacks(mesh: LocalMesh) -> None:
    async with mesh.node("hub"), mesh.node("outsider") as outsider:
        with pytest.raises(GrantDenied, match="META_READ") as caught:
            outsider.read(TEMPERATURE)
        assert TEMPERATURE.text in str(caught.value)
        with pytest.raises(GrantDenied):
            await outsider.transport.subscribe(
                outsider.session.subjects.route_any_site("d", TEMPERATURE.addr), lambda message: None
            )
        with pytest.raises(GrantDenied, match="no valid grant"):
            await outsider.session.asker.ask(outsider.session.voters[0], "keys", {"grants": []}, WAIT_S)


async def test_why_names_the_source_events_on_the_other_node(mesh: LocalMesh) -> None:
    derived = route("hub", "host", "doubled", schema=Schema.float("Celsius"))
    async with mesh.node("hub") as hub, mesh.node("edge") as edge:
        await edge.share(TEMPERATURE).ready(WAIT_S)
        await hub.read(TEMPERATURE).ready(WAIT_S)
        hub.graph.pipe(TEMPERATURE).map(lambda value: value * 2).into(derived)
        reading = asyncio.ensure_future(take(hub, derived, 1))
        await asyncio.sleep(0)
        source = edge.graph.publish(TEMPERATURE, 21.0)
        (event,) = await reading
        tree = await hub.why(event.id)
    assert event.value == 42.0
    assert tree["node"] == "hub"
    assert [cause["event"] for cause in tree["causes"]] == [source.id]
    assert tree["causes"][0]["node"] == "edge"


async def test_a_route_of_another_owner_cannot_be_shared(mesh: LocalMesh) -> None:
    async with mesh.node("hub"), mesh.node("edge") as edge:
        with pytest.raises(GrantDenied, match="OWN"):
            edge.share(route("hub", "host", "pressure", schema=Schema.float()))


async def test_a_reader_with_another_schema_is_refused_by_name(mesh: LocalMesh) -> None:
    async with mesh.node("hub") as hub, mesh.node("edge") as edge:
        await edge.share(TEMPERATURE).ready(WAIT_S)
        bridge = hub.read(route("edge", "thermal", "temperature", schema=Schema.int()))
        with pytest.raises(SchemaMismatch):
            await bridge.ready(WAIT_S)


async def test_a_restarted_producer_is_a_new_incarnation_from_one(mesh: LocalMesh) -> None:
    async with mesh.node("hub") as hub:
        await_first = hub.read(TEMPERATURE)
        for _ in range(2):
            async with mesh.node("edge") as edge:
                await edge.share(TEMPERATURE).ready(WAIT_S)
                await await_first.ready(WAIT_S)
                reading = asyncio.ensure_future(take(hub, TEMPERATURE, 1))
                await asyncio.sleep(0)
                edge.graph.publish(TEMPERATURE, 1.0)
                await reading
        flow = await hub.query("flow", node="hub")
    rows = [row for row in flow["routes"] if row["route"] == TEMPERATURE.text]
    assert len({row["incarnation"] for row in rows}) == 2
    assert all(row["unexplained"] == 0 for row in rows)


def test_the_synchronous_form_needs_no_event_loop(mesh: LocalMesh) -> None:
    with mesh.node("hub") as hub, mesh.node("edge") as edge:
        edge.share(TEMPERATURE).ready(WAIT_S).result(WAIT_S)
        hub.read(TEMPERATURE).ready(WAIT_S).result(WAIT_S)
        stream = hub.graph.stream(TEMPERATURE)
        edge.graph.publish(TEMPERATURE, 871.5)
        assert next(iter(stream.blocking(WAIT_S))).value == 871.5


async def test_an_unknown_node_is_named(mesh: LocalMesh) -> None:
    async with mesh.node("hub") as hub:
        with pytest.raises(ConfigError, match="nobody-here"):
            await hub.query("status", node="nobody-here")


def test_a_node_that_is_not_entered_says_so(mesh: LocalMesh) -> None:
    with pytest.raises(WiringError, match="not connected"):
        mesh.node("edge").share(TEMPERATURE)


def test_a_state_directory_in_use_is_refused_in_one_line(mesh: LocalMesh) -> None:
    with pytest.raises(ConfigError, match="in use"):
        LocalMesh(mesh.state_dir).start()


def signed(mesh: LocalMesh, name: str, pattern: str, action: Action) -> Grant:
    """A grant of the mesh's issuer for an hour."""
    assert mesh.context is not None and mesh.context.authority_dir is not None
    now_ms = time.time_ns() // 1_000_000
    return AuthorityFolder.open(mesh.context.authority_dir).issuer.issue_grant(
        identity_of(mesh.context, name).node_pub,
        (Capability(action, pattern),),
        not_before_ms=now_ms,
        not_after_ms=now_ms + 3_600_000,
        policy_epoch=0,
    )


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until the condition holds."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - the condition is another party's
            await asyncio.sleep(0)


async def test_a_granted_outsider_reads_after_its_next_start_and_a_revoked_one_does_not(
    mesh: LocalMesh,
) -> None:
    reading = Action.META_READ | Action.PAYLOAD_OPEN
    async with mesh.node("hub") as hub, mesh.node("edge") as edge, mesh.node("operator") as operator:
        await edge.share(TEMPERATURE).ready(WAIT_S)
        async with mesh.node("outsider") as outsider:
            with pytest.raises(GrantDenied):
                outsider.read(TEMPERATURE)
        grant = signed(mesh, "outsider", TEMPERATURE.address, reading)
        await operator.query("grant_issue", node="hub", grant=grant.raw.hex())
        async with mesh.node("outsider") as outsider:
            await outsider.read(TEMPERATURE).ready(WAIT_S)
            taken = asyncio.ensure_future(take(outsider, TEMPERATURE, 1))
            await asyncio.sleep(0)
            edge.graph.publish(TEMPERATURE, 20.5)
            assert (await taken)[0].value == 20.5
            with pytest.raises(GrantDenied):
                outsider.read(SAMPLES)
            # A second grant reaches it while it runs, and with it a wider login at the broker.
            await until(lambda: hub.session.directory.alive(outsider.session.identity.tag))
            second = signed(mesh, "outsider", SAMPLES.address, reading)
            await operator.query("grant_issue", node="hub", grant=second.raw.hex())
            await until(lambda: outsider.session.transport.counters()["renewals"] == 2)
            await edge.share(SAMPLES).ready(WAIT_S)
            await outsider.read(SAMPLES).ready(WAIT_S)
            # Revoked while it runs: refused by itself and by everyone else, and the broker's login shrinks.
            await operator.query("grant_revoke", node="hub", id=grant.hash.hex())
            await until(lambda: outsider.session.transport.counters()["renewals"] == 3)
            assert not hub.session.book.decide(grant.tag, Action.META_READ, TEMPERATURE.addr).allowed
            with pytest.raises(GrantDenied):
                await outsider.session.transport.subscribe(
                    outsider.session.subjects.route_any_site("d", TEMPERATURE.addr), lambda message: None
                )
        await operator.query("grant_revoke", node="hub", id=second.hash.hex())
        with pytest.raises(GrantDenied, match="no valid grant"):
            async with mesh.node("outsider"):
                pass

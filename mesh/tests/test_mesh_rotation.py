"""Rotation, revocation and shredding over a real server, while events flow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from meshfold.core import Schema, route
from meshfold.core.errors import FrameRejected, KeyMissing, NoQuorum, TransportTimeout, WiringError
from meshfold.core.ports import Message
from meshfold.core.registry import Action
from meshfold.mesh import Node
from meshfold.mesh.enrolment import AuthorityFolder, identity_of
from meshfold.mesh.local import LocalMesh
from meshfold.mesh.node.safety import WRAP_OVERLAP_S
from meshfold.security import Capability, Grant, Keyring
from meshfold.security.policy_keeper import FRESH_MS, GRACE_MS
from meshfold.security.wrap_record import WrapRecord
from test_mesh_attacks import wide_open

WAIT_S = 30.0
FLOW = route("edge", "line", "flow", schema=Schema.int())
VAULT = route("edge", "line", "vault", schema=Schema.int(), shreddable=True)
READING = Action.META_READ | Action.PAYLOAD_OPEN
#: Events a second of the load, and how long it lasts around the change.
RATE_HZ = 5_000
TICK_S = 0.005


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until the condition holds."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - the condition is another party's
            await asyncio.sleep(0)


def signed(mesh: LocalMesh, name: str, pattern: str, action: Action = READING, depth_left: int = 0) -> Grant:
    """A grant of the mesh's issuer for an hour."""
    assert mesh.context is not None and mesh.context.authority_dir is not None
    now_ms = time.time_ns() // 1_000_000
    return AuthorityFolder.open(mesh.context.authority_dir).issuer.issue_grant(
        identity_of(mesh.context, name).node_pub,
        (Capability(action, pattern),),
        not_before_ms=now_ms,
        not_after_ms=now_ms + 3_600_000,
        policy_epoch=0,
        depth_left=depth_left,
    )


class Load:
    """Publishes consecutive numbers at a steady rate, in the node's loop."""

    def __init__(self, node: Node, r: Any = FLOW) -> None:
        self._node, self._route = node, r
        self.sent = 0
        self._job: asyncio.Task[None] | None = None

    async def _run(self) -> None:
        begun = time.monotonic()
        while True:
            due = int((time.monotonic() - begun) * RATE_HZ)
            # After a pause of the machine the load does not burst: it measures loss, and not queues.
            step = min(due - self.sent, RATE_HZ // 10)
            if step > 0:
                self._node.graph.publish_many(self._route, list(range(self.sent, self.sent + step)))
                self.sent += step
            await asyncio.sleep(TICK_S)

    def __enter__(self) -> Self:
        self._job = asyncio.get_running_loop().create_task(self._run())
        return self

    def __exit__(self, *error: object) -> None:
        assert self._job is not None
        self._job.cancel()


def delivered(node: Node, r: Any = FLOW) -> int:
    """Events of a route at a reader."""
    return int(node.read(r).counters["delivered"])


def lost(node: Node, r: Any = FLOW) -> dict[str, int]:
    """What a reader lost, by reason."""
    return dict(node.read(r).counters["dropped"])


def vector(frame: bytes) -> bytes:
    """Which epochs a recorded frame names."""
    return frame[80:94]


async def test_a_rotation_under_load_loses_nothing(mesh: LocalMesh) -> None:
    async with mesh.node("hub") as hub, mesh.node("edge") as edge, mesh.node("operator") as operator:
        await edge.share(FLOW).ready(WAIT_S)
        await hub.read(FLOW).ready(WAIT_S)
        with Load(edge) as load:
            await until(lambda: delivered(hub) > 2000)
            for target in (FLOW.address, "read.logical.edge.>", ">"):
                answer = await operator.query("key_rotate", node="hub", route=target)
                seen = delivered(hub)
                assert answer["epoch"] >= 1
                await until(lambda seen=seen: delivered(hub) > seen + 5000)  # type: ignore[misc]
        await until(lambda: delivered(hub) == load.sent)
        assert lost(hub) == {}
        rows = [row for row in (await operator.audit_flow())["routes"] if row["route"] == FLOW.text]
        assert all(row["unexplained"] == 0 and row["dropped"] == {} for row in rows)
        assert len((await operator.query("key_ls", node="hub"))["epochs"]) >= 3


async def test_a_revoked_reader_cannot_open_the_next_epoch_and_others_see_no_gap(mesh: LocalMesh) -> None:
    async with mesh.node("hub") as hub, mesh.node("edge") as edge, mesh.node("operator") as operator:
        await edge.share(FLOW).ready(WAIT_S)
        await hub.read(FLOW).ready(WAIT_S)
        async with mesh.node("outsider"):
            pass
        grant = signed(mesh, "outsider", FLOW.address)
        await operator.query("grant_issue", node="hub", grant=grant.raw.hex())
        async with mesh.node("outsider") as reader:
            await reader.read(FLOW).ready(WAIT_S)
            recorded: list[bytes] = []
            tap = reader.session.subjects.route_any_site("d", FLOW.addr)

            def record(message: Message) -> None:
                recorded.append(message.data)

            await reader.session.transport.subscribe(tap, record)
            # The thief keeps its keys: what the node itself forgets does not count.
            stolen: Keyring = reader.session.keyring
            with Load(edge) as load:
                await until(lambda: delivered(reader) > 1000 and delivered(hub) > 1000)
                before = vector(recorded[-1])
                begun = time.monotonic()
                await operator.query("grant_revoke", node="hub", id=grant.hash.hex())
                frames: list[bytes] = []

                def catch(message: Message) -> None:
                    frames.append(message.data)

                await hub.session.transport.subscribe(tap, catch)
                await until(lambda: any(vector(frame) != before for frame in frames))
                took_s = time.monotonic() - begun
                seen = delivered(hub)
                await until(lambda: delivered(hub) > seen + 5000)
            await until(lambda: delivered(hub) == load.sent)
            assert lost(hub) == {}, "another reader saw a gap"
            first = next(frame for frame in frames if vector(frame) != before)
            from meshfold.security.epochs import unpack_vector

            for key_class in ("m", "d"):
                with pytest.raises(KeyMissing):
                    stolen.key_at(key_class, FLOW.addr, unpack_vector(vector(first)))
            assert stolen.key_at("d", FLOW.addr, unpack_vector(before))
            assert took_s < WAIT_S
            assert not hub.session.book.decide(grant.tag, Action.META_READ, FLOW.addr).allowed


async def test_a_lost_key_packet_is_asked_for_and_nothing_is_lost(mesh: LocalMesh) -> None:
    async with mesh.node("hub") as hub, mesh.node("edge") as edge, mesh.node("operator") as operator:
        await edge.share(FLOW).ready(WAIT_S)
        reader_grant_below = "read.logical.edge.line.>"
        async with mesh.node("outsider"):
            pass
        grant = signed(mesh, "outsider", reader_grant_below)
        await operator.query("grant_issue", node="hub", grant=grant.raw.hex())
        async with mesh.node("outsider") as reader:
            await reader.read(FLOW).ready(WAIT_S)
            # The packet goes missing on its way: the node has to notice by the first frame it cannot open.
            await reader.session.safety.subscriptions[0].close()
            with Load(edge) as load:
                await until(lambda: delivered(reader) > 1000)
                await operator.query("key_rotate", node="hub", route="read.logical.edge.>")
                seen = delivered(reader)
                await until(lambda: delivered(reader) > seen + 8000)
            await until(lambda: delivered(reader) == load.sent - attach(reader) + 1)
            assert lost(reader) == {}
            assert reader.session.safety.park.parked > 0
            assert reader.session.safety.park.given_up == 0
        assert hub.name == "hub"


async def test_frames_whose_key_never_comes_are_lost_for_a_reason_that_is_named(
    mesh: LocalMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshfold.mesh.bridge.park.AGE_MS_MAX", 50)
    async with mesh.node("hub") as hub, mesh.node("edge") as edge, mesh.node("operator") as operator:
        await edge.share(FLOW).ready(WAIT_S)
        async with mesh.node("outsider"):
            pass
        await operator.query(
            "grant_issue", node="hub", grant=signed(mesh, "outsider", "read.logical.edge.line.>").raw.hex()
        )
        async with mesh.node("outsider") as reader:
            await reader.read(FLOW).ready(WAIT_S)
            # Neither the packet nor the answer to asking for it arrives.
            await reader.session.safety.subscriptions[0].close()

            async def silence() -> dict[str, Any]:
                raise TransportTimeout("no voter answered", subject="", timeout_s=0.0)

            monkeypatch.setattr(reader.session.upkeep, "_ask_keys", silence)
            with Load(edge) as load:
                await until(lambda: delivered(reader) > 100)
                await operator.query("key_rotate", node="hub", route="read.logical.edge.>")
                await until(lambda: reader.session.safety.park.given_up > 0)
            bridge: Any = reader.read(FLOW)
            await until(lambda: bridge.flow("outsider")[0]["dropped"].get("epoch_unknown", 0) > 0)
            assert bridge.flow("outsider")[0]["unexplained"] == 0
            assert load.sent > bridge.counters["delivered"]
        assert hub.name == "hub"


def attach(node: Node) -> int:
    """The first number the reader counted."""
    bridge: Any = node.read(FLOW)
    ((producer, incarnation, _, _),) = bridge.inlet.counters()
    return int(bridge.inlet.attach_seq(producer, incarnation))


async def test_a_revoked_producer_is_refused_at_once_even_backdated(mesh: LocalMesh) -> None:
    async with mesh.node("hub") as hub, mesh.node("edge") as edge, mesh.node("operator") as operator:
        await edge.share(FLOW).ready(WAIT_S)
        await hub.read(FLOW).ready(WAIT_S)
        edge.graph.publish(FLOW, 1)
        await until(lambda: delivered(hub) == 1)
        listed = (await operator.query("grants", node="hub"))["grants"]
        own = [row["id"] for row in listed if row["subject"] == "edge"]
        for grant_id in own:
            await operator.query("grant_revoke", node="hub", id=grant_id)
        # A producer that will not hear goes on under its old keys, with an old stamp and an old policy epoch.
        before = hub.session.opener.counters().get("revoked", 0)
        keyring = edge.session.keyring
        for number in range(20):
            hlc = (time.time_ns() // 1_000_000 - 5_000) << 16
            try:
                frame = edge.session.sealer.events(
                    FLOW.addr,
                    schema_id=FLOW.schema.id,
                    first_seq=number + 2,
                    count=1,
                    meta=b"m",
                    payload=b"p",
                    hlc=hlc,
                    policy_epoch=0,
                )
            except KeyMissing:
                continue
            with pytest.raises(FrameRejected) as caught:
                hub.session.opener.open_events("d", FLOW.addr, frame.whole())
            assert caught.value.reason == "revoked"
        assert hub.session.opener.counters()["revoked"] > before
        assert keyring.held()
        assert delivered(hub) == 1


async def test_a_shredded_epoch_is_gone_at_voter_and_grantees(
    mesh: LocalMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with mesh.node("hub") as hub, mesh.node("edge") as edge, mesh.node("operator") as operator:
        await edge.share(VAULT).ready(WAIT_S)
        await hub.read(VAULT).ready(WAIT_S)
        edge.graph.publish(VAULT, 7)
        await until(lambda: delivered(hub, VAULT) == 1)
        with pytest.raises(WiringError, match="shreddable"):
            await operator.query("key_shred", node="hub", route=FLOW.address, epoch=0)
        wraps = {node.name: node.session.enrolment.keys.wrap_pub for node in (hub, edge)}
        report = await operator.query("key_shred", node="hub", route=VAULT.address, epoch=1, timeout=WAIT_S)
        assert set(report["confirmed"]) >= {"edge", "hub"}
        for node in (hub, edge):
            assert node.session.enrolment.keys.wrap_pub != wraps[node.name]
            with pytest.raises(KeyMissing):
                node.session.keyring.key_at("d", VAULT.addr, (65535,) * 6 + (1,))
        assert not mesh_store(hub).holds_outside("d", VAULT.addr.tokens, 1)
        # The route goes on under its next epoch, and queries to the new wrapping keys arrive.
        edge.graph.publish(VAULT, 8)
        await until(lambda: delivered(hub, VAULT) == 2)
        assert (await operator.query("status", node="edge"))["name"] == "edge"
        # What was sealed to the replaced keys opens for a while, and never after.
        for node in (hub, edge):
            safety, keys = node.session.safety, node.session.enrolment.keys
            late_ms = safety.mono_ms() + int(WRAP_OVERLAP_S * 1000)
            safety.tick()
            assert [*keys.wrap_privates][1:]
            with monkeypatch.context() as later:
                later.setattr(safety, "mono_ms", lambda late_ms=late_ms: late_ms)
                safety.tick()
            (newest,) = [*keys.wrap_privates]
            assert newest.public_key().public_bytes_raw() == keys.wrap_pub
        assert (await operator.query("status", node="edge"))["name"] == "edge"
        with pytest.raises(WiringError, match="no epoch"):
            await operator.query("key_shred", node="hub", route=VAULT.address, epoch=99)


async def test_who_was_away_when_a_voter_replaced_its_wrapping_key_is_told_the_newer_one(
    mesh: LocalMesh,
) -> None:
    async with mesh.node("hub") as hub, mesh.node("operator") as operator:
        async with mesh.node("edge") as edge:
            await edge.share(VAULT).ready(WAIT_S)
        before = hub.session.identity.wrap_pub
        await operator.query("key_shred", node="hub", route=VAULT.address, epoch=1, timeout=WAIT_S)
        assert hub.session.enrolment.keys.wrap_pub != before
    async with mesh.node("hub") as hub:
        # In memory it has only the newest key now; edge knows the one of the voter's identity.
        assert len(hub.session.enrolment.keys.wrap_privates) == 1
        async with mesh.node("edge") as edge:
            voter = edge.session.directory.lookup(hub.session.identity.tag)
            assert voter is not None and voter.wrap_pub == hub.session.enrolment.keys.wrap_pub
            assert edge.session.keyring.key_for("d", VAULT.addr, edge.session.hlc.now_ms())
        assert hub.session.ledger.rejected["unwrap"] == 1


async def test_a_node_that_opens_nothing_and_tells_no_newer_key_is_asked_once(
    mesh: LocalMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with mesh.node("hub") as hub, mesh.node("edge") as edge:
        record = WrapRecord.issue(hub.session.enrolment.keys, hub.session.context.cluster, 1)
        monkeypatch.setattr(hub.session.safety, "wrap_record", record.raw)
        directory, voter = edge.session.directory, hub.session.identity
        directory.take_wrap(voter.tag, record.raw)
        lost = X25519PrivateKey.generate().public_key().public_bytes_raw()
        directory._identities[voter.tag] = replace(voter, wrap_pub=lost)
        with pytest.raises(FrameRejected) as caught:
            await edge.session.asker.ask(voter, "status", {}, WAIT_S)
        assert caught.value.reason == "unwrap"
        assert hub.session.ledger.rejected["unwrap"] == 1


def mesh_store(hub: Node) -> Any:
    """The voter's key store."""
    assert hub.session.control is not None
    return hub.session.control.tree.store


async def test_hg14_without_a_voter_nothing_new_opens_and_after_the_grace_nothing_is_sent(
    mesh: LocalMesh,
) -> None:
    async with mesh.node("hub") as hub, mesh.node("edge") as edge:
        await edge.share(FLOW).ready(WAIT_S)
        await hub.read(FLOW).ready(WAIT_S)
        keeper = edge.session.safety.keeper
        heard = keeper._heard_ms
        assert heard is not None
        keeper._heard_ms = edge.session.safety.mono_ms() - FRESH_MS - 1000
        with pytest.raises(NoQuorum, match="no voter"):
            edge.share(VAULT)
        with pytest.raises(NoQuorum):
            edge.read(route("hub", "line", "x", schema=Schema.int()))
        edge.graph.publish(FLOW, 1)
        await until(lambda: delivered(hub) == 1)
        keeper._heard_ms = edge.session.safety.mono_ms() - GRACE_MS - 1000
        edge.graph.publish(FLOW, 2)
        # The voter's next word, at most five seconds away, lets it go on: nothing was lost meanwhile.
        await until(lambda: delivered(hub) == 2)
        assert lost(hub) == {}


async def test_a_restarted_reader_takes_no_recorded_frame_again(mesh: LocalMesh) -> None:
    async with mesh.node("hub"), mesh.node("edge") as edge:
        await edge.share(FLOW).ready(WAIT_S)
        recorded: list[Message] = []
        async with mesh.node("third") as third:
            await third.read(FLOW).ready(WAIT_S)
            await third.session.transport.subscribe(
                third.session.subjects.route_any_site("d", FLOW.addr), recorded.append
            )
            edge.graph.publish_many(FLOW, list(range(100)))
            await until(lambda: delivered(third) == 100 and len(recorded) > 0)
        async with mesh.node("third") as third:
            await third.read(FLOW).ready(WAIT_S)
            frames = [message.data for message in recorded]
            for raw in frames:
                with pytest.raises(FrameRejected) as caught:
                    third.session.opener.open_events("d", FLOW.addr, raw)
                assert caught.value.reason == "replay"
            edge.graph.publish(FLOW, 100)
            await until(lambda: delivered(third) == 1)


async def test_hk15_a_revoked_node_that_goes_on_to_listen_hears_ciphertext(mesh: LocalMesh) -> None:
    words = route("edge", "line", "words", schema=Schema.str())
    canary = "canary-71c0ffee55"
    async with mesh.node("hub") as hub, mesh.node("edge") as edge, mesh.node("operator") as operator:
        await edge.share(words).ready(WAIT_S)
        await hub.read(words).ready(WAIT_S)
        async with mesh.node("outsider"):
            pass
        grant = signed(mesh, "outsider", words.address)
        await operator.query("grant_issue", node="hub", grant=grant.raw.hex())
        listener = wide_open(mesh)
        await listener.connect()
        try:
            async with mesh.node("outsider") as reader:
                await reader.read(words).ready(WAIT_S)
                edge.graph.publish(words, canary)
                await until(lambda: delivered(reader, words) == 1)
                # What it knows stays with it: a thief forgets nothing, whatever the honest code does.
                stolen: Keyring = reader.session.keyring
                before = dict(stolen._slots)
                heard: list[bytes] = []
                subject = reader.session.subjects.route_any_site("d", words.addr)
                await listener.subscribe(subject, lambda message: heard.append(message.data))
                await operator.query("grant_revoke", node="hub", id=grant.hash.hex())
                await until(lambda: not reader.session.upkeep.grants)
                for number in range(100):
                    edge.graph.publish(words, f"{canary} {number}")
                    await until(lambda number=number: delivered(hub, words) == number + 2)  # type: ignore[misc]
                await until(lambda: len(heard) >= 100)
                assert all(canary.encode() not in frame for frame in heard)
                counted = reader.session.opener.counters().get("epoch", 0)
                for frame in heard[:100]:
                    stolen._slots |= before
                    with pytest.raises(KeyMissing):
                        reader.session.opener.open_events("d", words.addr, frame)
                assert reader.session.opener.counters().get("epoch", 0) >= counted
                assert delivered(reader, words) == 1
            assert lost(hub, words) == {}
        finally:
            await listener.close()

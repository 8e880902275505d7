"""The broker's store as a weapon, on a server that lets everyone do everything: rows HW22, HW37 to HW40 and HG23.

Nothing here is ours to prevent: whoever owns the server may keep frames, send them again, and wipe what it keeps. What has
to hold is that readers take each frame once, lose none of the honest ones, and go on.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
from meshfold.core import Schema, route
from meshfold.core.ports import Message
from meshfold.mesh.local import LocalMesh
from meshfold.mesh.node import Node
from test_transport_nats import PlainServer

WAIT_S = 30.0
VARIANTS = 100
SECRET = route("edge", "vault", "secret", schema=Schema.str())


class Store:
    """A mesh whose server keeps every message of its routes, and somebody who commands that store."""

    def __init__(self, hub: Node, edge: Node, thief: Any) -> None:
        self.hub, self.edge, self.thief = hub, edge, thief
        self.rng = random.Random()
        self.subject = hub.session.subjects.route("d", SECRET.addr)
        self.kept: list[Any] = []

    @property
    def delivered(self) -> int:
        """Events that reached the reader."""
        return int(self.hub.read(SECRET).counters["delivered"])

    def rejected(self) -> dict[str, int]:
        """Refusals by reason."""
        return dict(self.hub.session.ledger.rejected)

    async def api(self, subject: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask the store; raises what it answers as an error."""
        answer = await self.thief.request(
            f"$JS.API.{subject}", json.dumps(body or {}).encode(), timeout=WAIT_S
        )
        found: dict[str, Any] = json.loads(answer.data)
        assert "error" not in found, found
        return found

    async def keep(self, **changes: Any) -> None:
        """Make the stream that keeps every frame of every route."""
        config = {"name": "KEEP", "subjects": [self.subject], "storage": "memory", "retention": "limits"}
        await self.api("STREAM.CREATE.KEEP", config | changes)

    async def stored(self) -> int:
        """Messages the store has."""
        return int((await self.api("STREAM.INFO.KEEP"))["state"]["messages"])

    async def say(self, count: int) -> None:
        """Publish one frame at a time, each handled before the next."""
        for number in range(count):
            wanted = self.delivered + 1
            self.edge.graph.publish(SECRET, f"honest {wanted} {number}")
            await until(lambda wanted=wanted: self.delivered >= wanted)

    async def unharmed(self, delivered: int) -> None:
        """So many were delivered, none lost, and the next one arrives."""
        assert self.delivered == delivered
        await self.say(1)
        counters = self.hub.read(SECRET).counters
        assert (counters["delivered"], counters["dropped"]) == (delivered + 1, {})


async def until(condition: Any) -> None:
    """Let the loop run until the condition holds."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - the condition is another party's
            await asyncio.sleep(0)


@asynccontextmanager
async def storing(mesh: LocalMesh, folder: Path, more: str = "") -> AsyncIterator[Store]:
    """A mesh over a server with a store and without logins."""
    kept = f'max_control_line: 65536\njetstream {{ store_dir: "{folder}/kept" }}\n{more}'
    server = PlainServer(folder / "js", kept)
    try:
        url = f"nats://127.0.0.1:{await server.port()}"
        mesh.announce(url)
        thief = await nats.connect(url)
        try:
            async with mesh.node("hub") as hub, mesh.node("edge") as edge:
                await edge.share(SECRET, express=True).ready(WAIT_S)
                await hub.read(SECRET).ready(WAIT_S)
                yield Store(hub, edge, thief)
        finally:
            await thief.close()
    finally:
        server.stop()


async def test_hw22_a_stored_frame_that_the_store_sends_again_is_refused(
    mesh: LocalMesh, tmp_path: Path
) -> None:
    async with storing(mesh, tmp_path) as store:
        await store.keep()
        await store.say(VARIANTS)
        assert await store.stored() == VARIANTS
        consumer = {
            "stream_name": "KEEP",
            "config": {"durable_name": "c", "ack_policy": "none", "deliver_policy": "all"},
        }
        await store.api("CONSUMER.DURABLE.CREATE.KEEP.c", consumer)
        before, delivered = store.rejected(), store.delivered
        # The answers to MSG.NEXT go where the asker says: into the route's own subject.
        await store.thief.publish(
            "$JS.API.CONSUMER.MSG.NEXT.KEEP.c", json.dumps({"batch": VARIANTS}).encode(), reply=store.subject
        )
        await until(lambda: store.rejected().get("replay", 0) >= before.get("replay", 0) + VARIANTS)
        after = store.rejected()
        assert after.pop("replay") == before.pop("replay", 0) + VARIANTS
        # What the store itself has to say (that there is no more) is no frame.
        assert {reason for reason in after if after[reason] != before.get(reason, 0)} <= {"short", "magic"}
        await store.unharmed(delivered)


async def test_hw37_what_no_store_sent_into_an_inbox_ends_no_reader(mesh: LocalMesh, tmp_path: Path) -> None:
    async with storing(mesh, tmp_path) as store:
        inbox = store.hub.session.subjects.inbox(store.hub.session.identity.tag)
        delivered = store.delivered
        for number in range(VARIANTS):
            reply = store.rng.choice(
                ("", "a.b", "$JS.ACK", "$JS.ACK.x.y", f"$JS.ACK.{'9.' * number}9", "_MF.x")
            )
            tail = store.rng.choice(("", ".x", f".{os.urandom(4).hex()}", f".{number}.0"))
            await store.thief.publish(inbox + tail or inbox, os.urandom(number), reply=reply)
        await store.thief.flush()
        answer = await store.edge.query("status", node="hub")
        assert answer["name"] == "hub"
        await store.unharmed(delivered)


async def test_hw38_acknowledgement_subjects_of_both_forms_are_reply_subjects(
    mesh: LocalMesh, tmp_path: Path
) -> None:
    """Nine tokens, or eleven and more with domain and account: whatever stands there, the message is judged as a frame."""
    async with storing(mesh, tmp_path, "feature_flags { js_ack_fc_v2: true }\n") as store:
        await store.keep()
        await store.say(2)
        seen: list[Message] = []
        subscription = await store.hub.session.transport.subscribe(store.subject, seen.append)
        before, delivered = store.rejected(), store.delivered
        for name in ("one", "two"):
            config = {"durable_name": name, "ack_policy": "explicit"}
            await store.api(f"CONSUMER.DURABLE.CREATE.KEEP.{name}", {"stream_name": "KEEP", "config": config})
            asked = json.dumps({"batch": 2}).encode()
            await store.thief.publish(f"$JS.API.CONSUMER.MSG.NEXT.KEEP.{name}", asked, reply=store.subject)
        await until(lambda: sum(one.reply.startswith("$JS.ACK.") for one in seen) >= 4)
        assert max(len(one.reply.split(".")) for one in seen) >= 11, "the server's new form"
        # A client of the server may not name such a subject itself: what others could is given to the reader by hand.
        transport: Any = store.hub.session.transport
        client = transport._link.client
        read = store.hub.session.subjects.route_any_site("d", SECRET.addr)
        sid = next(sid for sid, one in client._subs.items() if one.subject == read)
        for number in range(VARIANTS):
            fields = [str(store.rng.choice((number, 2**64, "x", "-1"))) for _ in range(6)]
            old = ["$JS", "ACK", "KEEP", "c", *fields[:5]]
            new = ["$JS", "ACK", "hub-domain", "account", "KEEP", "c", *fields[:5], "token"][: 9 + number % 4]
            reply = ".".join(old if number % 2 else new).encode()
            await client._process_msg(sid, store.subject.encode(), reply, seen[0].data, None)
        await until(lambda: store.rejected().get("replay", 0) >= before.get("replay", 0) + VARIANTS + 4)
        assert store.rejected()["replay"] == before.get("replay", 0) + VARIANTS + 4
        await subscription.close()
        await store.unharmed(delivered)


async def test_hw39_a_message_id_that_another_used_first_holds_no_frame_back(
    mesh: LocalMesh, tmp_path: Path
) -> None:
    async with storing(mesh, tmp_path) as store:
        await store.keep(duplicate_window=120_000_000_000)
        seen: list[Message] = []
        subscription = await store.hub.session.transport.subscribe(store.subject, seen.append)
        await store.say(1)
        identity, life = store.edge.session.identity.tag.hex(), store.edge.session.graph.incarnation.hex()
        before = store.rejected()
        for number in range(VARIANTS):
            guess = store.rng.choice(
                (f"{identity}-{life}-{number}", f"{identity}.{number}", str(number), life)
            )
            await store.thief.publish(store.subject, b"burnt", headers={"Nats-Msg-Id": guess})
        await store.thief.flush()
        await until(lambda: store.rejected().get("short", 0) >= before.get("short", 0) + VARIANTS)
        kept, delivered = await store.stored(), store.delivered
        await store.say(VARIANTS)
        # Every frame was kept, so none was taken for a duplicate; and none carries an id that could be.
        assert await store.stored() == kept + VARIANTS
        assert all("Nats-Msg-Id" not in message.headers for message in seen if message.data[:2] == b"MF")
        await subscription.close()
        await store.unharmed(delivered + VARIANTS)


async def test_hw40_headers_that_command_the_store_touch_no_route(mesh: LocalMesh, tmp_path: Path) -> None:
    async with storing(mesh, tmp_path) as store:
        # A stream as careless as can be; ours are made by nobody here, and no route depends on one.
        await store.keep(allow_rollup_hdrs=True, allow_msg_schedules=True, allow_msg_ttl=True)
        await store.say(VARIANTS)
        before, delivered = store.rejected(), store.delivered
        commands: tuple[dict[str, str], ...] = (
            {"Nats-Rollup": "all"},
            {"Nats-Rollup": "sub"},
            {"Nats-Schedule": "@every 1s", "Nats-Schedule-Target": store.subject},
            {"Nats-Expected-Last-Sequence": "0"},
            {"Nats-Expected-Last-Subject-Sequence": "999"},
            {"Nats-Expected-Stream": "OTHER"},
            {"Nats-TTL": "1s"},
        )
        for number in range(VARIANTS):
            await store.thief.publish(store.subject, b"command", headers=commands[number % len(commands)])
        await store.thief.flush()
        await until(lambda: store.rejected().get("short", 0) >= before.get("short", 0) + VARIANTS)
        assert await store.stored() < 2 * VARIANTS, "the store was not commanded at all: this proves nothing"
        await store.unharmed(delivered)
        flow = await store.hub.audit_flow()
        assert flow["unexplained"] == 0


async def test_hg23_a_place_in_a_queue_group_takes_no_event_from_a_reader(
    mesh: LocalMesh, tmp_path: Path
) -> None:
    async with storing(mesh, tmp_path) as store:
        stolen: list[bytes] = []

        async def steal(message: Any) -> None:
            stolen.append(message.data)

        for group in ("mf", "hub", "meshfold", "workers", store.hub.session.identity.tag.hex()):
            await store.thief.subscribe(store.subject, queue=group, cb=steal)
        await store.thief.flush()
        delivered = store.delivered
        await store.say(2 * VARIANTS)
        await until(lambda: len(stolen) >= 5 * VARIANTS)
        await store.unharmed(delivered + 2 * VARIANTS)

"""The outer fence, row by row: what the server itself refuses to a login minted from grants (rows HG19 to HG25)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from meshfold.core import Schema, route
from meshfold.core.errors import GrantDenied, KeyMissing, TransportClosed
from meshfold.core.ports import Message
from meshfold.core.registry import Action
from meshfold.mesh.broker import Permissions
from meshfold.mesh.broker.jwt import mint_user
from meshfold.mesh.local import LocalMesh
from meshfold.mesh.node import Node
from meshfold.mesh.transport import Login, NatsTransport
from test_mesh_rotation import signed, until

WAIT_S = 30.0
SECRET = route("edge", "vault", "secret", schema=Schema.str())


@asynccontextmanager
async def holding(mesh: LocalMesh, action: Action) -> AsyncIterator[tuple[Node, Node, Node]]:
    """(hub, edge, a node whose only grant is this action on the secret route)."""
    async with mesh.node("hub") as hub, mesh.node("edge") as edge, mesh.node("operator") as operator:
        await edge.share(SECRET).ready(WAIT_S)
        async with mesh.node("outsider"):
            pass
        grant = signed(mesh, "outsider", SECRET.address, action)
        await operator.query("grant_issue", node="hub", grant=grant.raw.hex())
        async with mesh.node("outsider") as holder:
            yield hub, edge, holder


async def refuses_to_hear(node: Node, subject: str) -> None:
    """The server says no to a subscription."""
    with pytest.raises(GrantDenied):
        await node.session.transport.subscribe(subject, lambda message: None)


async def test_hg19_a_metadata_reader_gets_neither_payload_nor_its_key(mesh: LocalMesh) -> None:
    async with holding(mesh, Action.META_READ) as (_, _, holder):
        subjects = holder.session.subjects
        await refuses_to_hear(holder, subjects.route_any_site("d", SECRET.addr))
        await refuses_to_hear(holder, subjects.every("d"))
        with pytest.raises(KeyMissing):
            holder.session.keyring.key_for("d", SECRET.addr, holder.session.hlc.now_ms())
        bridge: Any = holder.read(SECRET)
        await bridge.ready(WAIT_S)
        assert bridge.form == "m"


async def test_hg20_a_writer_cannot_publish_as_the_owner(mesh: LocalMesh) -> None:
    async with holding(mesh, Action.WRITE_REQUEST) as (hub, edge, holder):
        await hub.read(SECRET).ready(WAIT_S)
        heard: list[Message] = []
        subjects = holder.session.subjects
        await hub.session.transport.subscribe(subjects.route_any_site("d", SECRET.addr), heard.append)
        for site in ("s-local", "s-elsewhere"):
            subject = f"{subjects.root}.d.{site}.{SECRET.address}"
            await holder.session.transport.publish(subject, b"forged")
        await holder.session.transport.barrier()
        edge.graph.publish(SECRET, "honest")
        await until(lambda: hub.graph.latest(SECRET) is not None and len(heard) > 0)
        assert all(message.data != b"forged" for message in heard)
        assert any(row["action"] == "broker" for row in holder.session.ledger.refusals)


async def test_hg22_no_stream_or_consumer_can_be_made_or_read_around(mesh: LocalMesh) -> None:
    async with holding(mesh, Action.META_READ) as (_, _, holder):
        before = len(holder.session.ledger.refusals)
        wanted = (
            "$JS.API.STREAM.CREATE.MF",
            "$JS.API.CONSUMER.CREATE.MF.stolen",
            "$JS.API.CONSUMER.CREATE.MF.stolen.mf.c.d",
            "$JS.API.DIRECT.GET.MF",
            "$JS.API.STREAM.MSG.GET.MF",
            "$KV.mf.key",
        )
        for subject in wanted:
            await holder.session.transport.publish(subject, b"{}")
        await holder.session.transport.barrier()
        await until(lambda: len(holder.session.ledger.refusals) >= before + len(wanted))


async def test_hg24_nobody_hears_the_inboxes_of_others(mesh: LocalMesh) -> None:
    async with holding(mesh, Action.META_READ | Action.PAYLOAD_OPEN) as (hub, _, holder):
        for subject in (
            "_MF.>",
            "_INBOX.>",
            ">",
            f"_MF.{hub.id}.>",
            "mf.>",
            holder.session.subjects.every("q"),
        ):
            await refuses_to_hear(holder, subject)
        await refuses_to_hear(holder, holder.session.subjects.node("k", hub.session.identity.tag))


async def test_hg25_a_login_of_another_key_or_past_its_end_is_refused(mesh: LocalMesh) -> None:
    assert mesh.context is not None
    key, signer = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    open_to_all = Permissions(pub=(">",), sub=(">",), allow_responses=True)
    for life_s in (600, -600):
        token = mint_user(
            signer.private_bytes_raw(),
            key.public_key().public_bytes_raw(),
            name="stranger",
            permissions=open_to_all,
            expires_s=int(time.time()) + life_s,
        )
        transport = NatsTransport(
            mesh.context.url,
            name="stranger",
            login=Login(jwt=lambda token=token: token, sign=key.sign),  # type: ignore[misc]
            inbox_prefix="_STRANGER",
        )
        with pytest.raises(TransportClosed):
            await transport.connect()
        await transport.close()


async def test_a_revoked_login_shrinks_at_once(mesh: LocalMesh) -> None:
    async with holding(mesh, Action.META_READ | Action.PAYLOAD_OPEN) as (hub, _, holder):
        await holder.read(SECRET).ready(WAIT_S)
        (grant,) = holder.session.upkeep.grants.values()
        async with mesh.node("operator") as operator:
            await operator.query("grant_revoke", node="hub", id=grant.hash.hex())
        await until(lambda: not holder.session.upkeep.grants)
        subject = holder.session.subjects.route_any_site("d", SECRET.addr)
        with pytest.raises(GrantDenied):
            async with asyncio.timeout(WAIT_S):
                while True:  # until the login that allows less has taken over
                    await (await holder.session.transport.subscribe(subject, lambda message: None)).close()
        assert hub.session.book.policy.epoch >= 1

"""A hostile client with the server's permissions opened wide: it reads ciphertext, and what it sends is refused."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import random
from typing import Any

import nats
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from meshfold.core import Schema, route
from meshfold.core.ports import Message
from meshfold.mesh.broker import Permissions
from meshfold.mesh.enrolment import AuthorityFolder
from meshfold.mesh.local import LocalMesh
from meshfold.mesh.node import Node
from meshfold.mesh.transport import Login, NatsTransport

WAIT_S = 20.0
CANARY = "canary-5f1c9e77d2"
SECRET = route("edge", "vault", "secret", schema=Schema.str())
OTHER = route("edge", "vault", "other", schema=Schema.str())


def wide_open(mesh: LocalMesh) -> NatsTransport:
    """A login of this mesh's account that may publish and subscribe everywhere."""
    key = Ed25519PrivateKey.generate()
    assert mesh.context is not None and mesh.context.authority_dir is not None
    token = AuthorityFolder.open(mesh.context.authority_dir).mint_login(
        key.public_key().public_bytes_raw(),
        name="hostile",
        permissions=Permissions(pub=(">",), sub=(">",), allow_responses=True),
        expires_s=2**33,
    )
    return NatsTransport(
        mesh.context.url,
        name="hostile",
        login=Login(jwt=lambda: token, sign=key.sign),
        inbox_prefix="_HOSTILE",
    )


async def until(condition: Any) -> None:
    """Let the loop run until the condition holds."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - the condition is another party's
            await asyncio.sleep(0)


async def start(hub: Node, edge: Node) -> None:
    """Share and read both routes."""
    for r in (SECRET, OTHER):
        await edge.share(r).ready(WAIT_S)
        await hub.read(r).ready(WAIT_S)


async def test_a_client_with_wide_permissions_reads_only_ciphertext_and_its_frames_are_refused(
    mesh: LocalMesh,
) -> None:
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    seen: list[Message] = []
    async with mesh.node("hub") as hub, mesh.node("edge") as edge:
        await start(hub, edge)
        hostile = wide_open(mesh)
        await hostile.connect()
        try:
            await hostile.subscribe("mf.>", seen.append)
            edge.graph.publish(SECRET, CANARY, correlation=CANARY)
            await until(lambda: hub.graph.latest(SECRET) is not None)
            await until(lambda: any(message.subject.endswith(SECRET.address) for message in seen))
            frames = [message for message in seen if message.subject.endswith(SECRET.address)]
            assert frames, "the tap saw no frame, so it proves nothing"
            assert all(CANARY.encode() not in message.data for message in seen)
            frame = frames[0]
            before = dict(hub.session.ledger.rejected)
            await hostile.publish(frame.subject, frame.data)
            altered = bytearray(frame.data)
            altered[rng.randrange(len(altered))] ^= 1 << rng.randrange(8)
            await hostile.publish(frame.subject, bytes(altered))
            await hostile.publish(frame.subject.replace(SECRET.address, OTHER.address), frame.data)
            await until(lambda: sum(hub.session.ledger.rejected.values()) >= sum(before.values()) + 3)
            edge.graph.publish(SECRET, "still flowing")
            await until(
                lambda: (latest := hub.graph.latest(SECRET)) is not None and latest.value == "still flowing"
            )
            assert hub.graph.latest(OTHER) is None, f"seed {seed}"
            counters = hub.read(SECRET).counters
            assert counters["delivered"] == 2, f"seed {seed}"
        finally:
            await hostile.close()


async def plain_client(mesh: LocalMesh, name: str, errors: list[Exception]) -> Any:
    """A stock client with a node's own credentials, as they lie in its folder."""
    assert mesh.context is not None
    node = mesh.node(name)
    async with node:
        login: Login = node.session.transport._login
    assert login.jwt is not None and login.sign is not None
    jwt, sign = login.jwt, login.sign

    async def on_error(error: Exception) -> None:
        errors.append(error)

    return await nats.connect(
        mesh.context.url,
        user_jwt_cb=lambda: jwt().encode(),
        signature_cb=lambda nonce: base64.b64encode(sign(nonce.encode())),
        inbox_prefix=f"_MF.{node.id}".encode(),
        error_cb=on_error,
    )


@pytest.mark.parametrize(("name", "heard"), [("outsider", False), ("panel", True)])
async def test_a_plain_client_with_the_outsiders_credentials_cannot_subscribe_to_a_granted_subject(
    mesh: LocalMesh, name: str, heard: bool
) -> None:
    """The same client with a reader's credentials can, and reads ciphertext: so it is the server that refuses."""
    errors: list[Exception] = []
    async with mesh.node("hub") as hub, mesh.node("edge") as edge:
        await start(hub, edge)
        subject = edge.session.subjects.route_any_site("d", SECRET.addr)
        client = await plain_client(mesh, name, errors)
        try:
            seen: list[bytes] = []
            came = asyncio.Event()

            async def keep(message: Any) -> None:
                seen.append(message.data)
                came.set()

            for wanted in (subject, "mf.>", ">"):
                await client.subscribe(wanted, cb=keep)
            await client.flush()
            edge.graph.publish(SECRET, CANARY)
            await until(lambda: hub.graph.latest(SECRET) is not None)
            await until(lambda: len(errors) >= (2 if heard else 3))
            assert all("permissions violation" in str(error).lower() for error in errors), errors
            assert any(subject in str(error).lower() for error in errors) is not heard
            # The server keeps nothing for a client that connects anew, so what may be heard is published again.
            async with asyncio.timeout(WAIT_S):
                while heard and not came.is_set():
                    edge.graph.publish(SECRET, CANARY)
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(came.wait(), 0.5)
            assert bool(seen) is heard
            assert all(CANARY.encode() not in data for data in seen)
        finally:
            await client.close()

"""Identities are renewed before they end, the voters' too, while the nodes run; a retired node's never is."""

from __future__ import annotations

import time
from pathlib import Path

from meshfold.core import Schema, route
from meshfold.core.ports import Message
from meshfold.core.registry import Action
from meshfold.mesh.enrolment import MemberFolder
from meshfold.mesh.enrolment.authority_folder import read_identity, write_private
from meshfold.mesh.enrolment.local import IDENTITY_MS
from meshfold.mesh.local import LocalMesh
from meshfold.mesh.node import Node
from meshfold.mesh.node.papers import Papers
from meshfold.mesh.node.party import introduced
from meshfold.mesh.transport.login import jwt_expiry_s
from meshfold.security import Identity
from test_login_revocation import READING, SECRET, WAIT_S, authority_of, joined, until
from test_mesh_attacks import wide_open
from test_write_requests import LAMP, allow

HOUR_MS = 3_600_000


def age(mesh: LocalMesh, folder: Path) -> Identity:
    """Put an identity of the same keys that ends in an hour into a node's folder."""
    known = read_identity(folder)
    assert known is not None
    now_ms = time.time_ns() // 1_000_000
    old = authority_of(mesh).issuer.issue_identity(
        node_pub=known.node_pub,
        wrap_pub=known.wrap_pub,
        login_pub=known.login_pub,
        name=known.name,
        roles=known.roles,
        not_before_ms=now_ms - 10 * HOUR_MS,
        not_after_ms=now_ms + HOUR_MS,
    )
    write_private(folder / "identity", old.raw)
    return old


async def test_a_joined_nodes_identity_is_renewed_while_it_runs(mesh: LocalMesh, tmp_path: Path) -> None:
    async with mesh.node("hub"):
        folder = await joined(mesh, tmp_path / "guest", (int(READING), SECRET.address))
    old = age(mesh, folder.path)
    async with mesh.node("hub") as hub, mesh.node("edge") as edge:
        await edge.share(SECRET).ready(WAIT_S)
        async with Node.open("guest", context=folder.path / "context.json") as guest:
            await guest.read(SECRET).ready(WAIT_S)
            fresh = guest.session.identity
            assert fresh.raw != old.raw
            assert (fresh.node_pub, fresh.login_pub, fresh.name) == (old.node_pub, old.login_pub, old.name)
            assert fresh.not_after_ms > time.time_ns() // 1_000_000 + IDENTITY_MS - HOUR_MS
            # Others learn of it by its heartbeats, and an older record sent again does not unsay it.
            await until(
                lambda: (seen := hub.session.directory.lookup(old.tag)) is not None and seen.raw == fresh.raw
            )
            assert hub.session.directory.admit(old.raw).raw == fresh.raw
            edge.graph.publish(SECRET, "still read")
            await until(lambda: guest.read(SECRET).counters["delivered"] == 1)
        assert read_identity(folder.path) == fresh
        # The login that asks for another lives as long.
        assert jwt_expiry_s((folder.path / "narrow.jwt").read_text()) == fresh.not_after_ms // 1000


async def test_write_requests_and_their_answers_carry_the_renewed_identity(
    mesh: LocalMesh, tmp_path: Path
) -> None:
    pump = route("guest", "pump", "speed", schema=Schema.float(), plane="write", variant="request")
    async with mesh.node("hub"), mesh.node("edge"):
        asking, owning = (int(Action.WRITE_REQUEST), LAMP.request.address), (int(Action.OWN), pump.address)
        folder = await joined(mesh, tmp_path / "guest", asking, owning)
    old = age(mesh, folder.path)
    seen: dict[bytes, set[bytes]] = {}

    def note(message: Message) -> None:
        kind = message.subject.split(".")[2] if message.subject.startswith("mf.") else "answer"
        if kind in ("w", "answer"):
            sender = Identity.parse(introduced(message.data)[0])
            seen.setdefault(sender.tag, set()).add(sender.raw)

    async with mesh.node("hub"), mesh.node("edge") as edge, mesh.node("operator") as operator:
        await allow(mesh, operator, "edge", pump.address)
        await edge.share(LAMP.request).ready(WAIT_S)
        async with Node.open("guest", context=folder.path / "context.json") as guest:
            fresh = guest.session.identity
            assert fresh.raw != old.raw
            await guest.share(pump).ready(WAIT_S)
            # Whoever sees all traffic: who writes and who answers shows the record that does not end within the hour.
            watcher = wide_open(mesh)
            await watcher.connect()
            try:
                await watcher.subscribe(">", note)
                assert (await guest.request(LAMP.request, 0.5, timeout=WAIT_S)).owner == "edge"
                await until(lambda: old.tag in seen)
                assert seen.pop(old.tag) == {fresh.raw}
                assert (await edge.request(pump, 1.5, timeout=WAIT_S)).owner == "guest"
                await until(lambda: old.tag in seen)
                assert seen[old.tag] == {fresh.raw}
            finally:
                await watcher.close()


async def test_a_voters_newer_identity_reaches_the_folders_of_its_members(
    mesh: LocalMesh, tmp_path: Path
) -> None:
    async with mesh.node("hub"):
        folder = await joined(mesh, tmp_path / "guest", (int(Action.META_READ), SECRET.address))
    old = age(mesh, mesh.state_dir / "nodes" / "hub")
    async with mesh.node("hub") as hub:
        fresh = hub.session.identity
        assert fresh.raw != old.raw, "the machine that holds the issuer renews at the start"
        async with Node.open("guest", context=folder.path / "context.json") as guest:
            assert len(guest.session.voters) == 1
        (kept,) = MemberFolder.open(folder.path).file.voters
        assert Identity.parse(kept).raw == fresh.raw
        assert MemberFolder.open(folder.path).context().voters == (kept,)
        async with Node.open("guest", context=folder.path / "context.json") as again:
            assert again.session.enrolment.voters == (kept,)


async def test_a_retired_nodes_identity_is_not_renewed(mesh: LocalMesh, tmp_path: Path) -> None:
    async with mesh.node("hub") as hub, mesh.node("operator") as operator:
        folder = await joined(mesh, tmp_path / "guest", (int(READING), SECRET.address))
        old = age(mesh, folder.path)
        control = hub.session.control
        assert control is not None
        assert (await control.issuing.papers(old, [], login=False)).identity != b""
        await until(lambda: f"member/{old.tag.hex()}" in control.log.state.values)
        await operator.session.asker.ask(hub.session.identity, "member_retire", {"node": "guest"}, WAIT_S)
        assert await control.issuing.papers(old, [], login=False) == Papers()

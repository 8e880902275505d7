"""Voters of several machines: `meshfold init` makes a folder for each, and the one that holds the issuer may be away."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from meshfold.consensus import RaftLog
from meshfold.core import Schema, route
from meshfold.core.errors import ConfigError, GrantDenied, NoQuorum, NotLeader
from meshfold.mesh import Node
from meshfold.mesh.broker import EmbeddedServer
from meshfold.mesh.enrolment import AuthorityFolder, MemberFolder, RootLock, capabilities_for
from meshfold.mesh.enrolment.found import found_mesh
from meshfold.mesh.enrolment.invites import Invites
from meshfold.mesh.enrolment.joining import join
from meshfold.mesh.node.raft_wire import number_of
from voting import NAMES, WAIT_S, until

LOCK = RootLock(key=bytes(range(32)))
SECRET = route("guest", "vault", "secret", schema=Schema.str())


@dataclass
class Machines:
    """The folder where the mesh was made, those that were carried away, and the server in between."""

    folders: dict[str, Path]
    server: EmbeddedServer
    nodes: dict[str, Node]

    async def start(self, *names: str) -> None:
        """Start voters together."""
        made = [
            Node.open(name if name == "hub" else None, state_dir=self.folders[name], nats=self.server.url)
            for name in names
        ]
        async with asyncio.timeout(WAIT_S):
            await asyncio.gather(*(node.__aenter__() for node in made))
        self.nodes |= dict(zip(names, made, strict=True))

    async def stop(self, name: str) -> None:
        """Stop one."""
        await self.nodes.pop(name).__aexit__(None, None, None)

    async def join(self, folder: Path, name: str) -> Node:
        """A further member, by a token."""
        invites = Invites(AuthorityFolder.open(self.folders["hub"] / "authority"))
        token = invites.make(
            mesh="plant",
            name=name,
            roles=("node",),
            capabilities=capabilities_for(name),
            url=self.server.url,
            expires_ms=time.time_ns() // 1_000_000 + 3_600_000,
        )
        await join(token.encode(), folder, login=None, url=self.server.url, tls=None)
        return Node.open(None, state_dir=folder, nats=self.server.url)


@pytest.fixture
async def machines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Machines]:
    """Three voters in three folders, running."""
    monkeypatch.setenv("MESHFOLD_CONTEXTS", str(tmp_path / "contexts"))
    home = tmp_path / "home"
    made = found_mesh(home, LOCK, mesh="plant", voters=NAMES, url="nats://127.0.0.1:4222")
    folders = {"hub": home}
    for path in made.carried:
        folders[path.name] = Path(shutil.move(path, tmp_path / "elsewhere" / path.name))
    server = EmbeddedServer.start(tmp_path / "server", AuthorityFolder.open(home / "authority").papers)
    running = Machines(folders, server, {})
    try:
        await running.start(*NAMES)
        yield running
    finally:
        for name in list(running.nodes):
            await running.stop(name)
        server.stop()


async def test_members_have_their_papers_renewed_whoever_leads(machines: Machines, tmp_path: Path) -> None:
    await lead(machines, "hub-2")
    async with await machines.join(tmp_path / "guest", "guest") as guest:
        # The one at the door is not the one that leads, and what it let in is noted all the same.
        log = next(one for node in machines.nodes.values() if (one := node.session.control) and one.leads).log
        await until(lambda: len(log.state.snapshot("standing/")) == 1)
        asked: list[dict[str, Any]] = []
        for leader in NAMES[1:]:
            await lead(machines, leader)
            asked.append(await guest.session.upkeep._ask_keys())
        assert all(answer["login"] for answer in asked)
        # While the issuer is away there is no new login, and everything else goes on.
        await machines.stop("hub")
        answer = await guest.session.upkeep._ask_keys()
        assert not answer["login"] and answer["packet"]
        reader = machines.nodes["hub-3"]
        bridge: Any = reader.read(SECRET)
        await guest.share(SECRET).ready(WAIT_S)
        guest.graph.publish(SECRET, "sealed")
        await until(lambda: bridge.counters["delivered"] == 1)


async def lead(machines: Machines, name: str) -> None:
    """Have a voter lead."""
    sessions = {name: node.session for name, node in machines.nodes.items()}
    number = number_of(sessions[name].identity.tag)
    async with asyncio.timeout(WAIT_S):
        while True:
            for one, session in sessions.items():
                assert session.control is not None and isinstance(session.control.log, RaftLog)
                if session.control.leads and one == name:
                    return
                if session.control.leads:
                    with contextlib.suppress(NoQuorum, NotLeader):
                        await session.control.log.transfer(number)
            await asyncio.sleep(0)


async def test_the_issuer_takes_no_voters_word_for_what_a_member_may_have(machines: Machines) -> None:
    hub, other = machines.nodes["hub"].session, machines.nodes["hub-2"].session
    forged = replace(other.identity, name="x").raw[:-1] + b"\0"
    for args, kind in (
        ({"identity": forged.hex(), "grants": [], "login": True}, "sig"),
        ({"identity": "zz", "grants": [], "login": True}, "format"),
        ({"identity": other.identity.raw.hex(), "grants": "none"}, "limit"),
    ):
        with pytest.raises(Exception) as caught:
            await other.asker.ask(hub.identity, "papers", args, WAIT_S)
        assert getattr(caught.value, "reason", "") == kind
    with pytest.raises(GrantDenied):
        await hub.asker.ask(other.identity, "papers", {}, WAIT_S)
    assert {voter.name for voter in other.voters} == set(NAMES)
    assert hub.identity.roles == other.identity.roles == ("node", "voter")


def test_carried_folders_are_made_once_and_hold_no_issuer(tmp_path: Path) -> None:
    made = found_mesh(tmp_path / "m", LOCK, mesh="plant", voters=NAMES, url="nats://127.0.0.1:4222")
    assert [path.name for path in made.carried] == list(NAMES[1:])
    for path in made.carried:
        assert not list(path.rglob("*issuer*")) and MemberFolder.open(path).file.voters == made.context.voters
        assert all(one.stat().st_mode & 0o077 == 0 for one in path.rglob("*") if one.is_file())
        shutil.rmtree(path)
    again = found_mesh(
        tmp_path / "m", LOCK, mesh="plant", voters=NAMES, url="nats://127.0.0.1:4222", if_missing=True
    )
    assert again.context.voters == made.context.voters and not again.carried
    for voters in (NAMES[:1], ("hub", "hub-2", "other")):
        with pytest.raises(ConfigError, match="holds the mesh"):
            found_mesh(tmp_path / "m", LOCK, mesh="plant", voters=voters, url="nats://x:1", if_missing=True)

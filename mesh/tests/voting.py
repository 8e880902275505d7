"""Voters of one mesh that run in the process of a test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from meshfold.consensus import RaftLog
from meshfold.core.errors import MeshfoldError, NoQuorum, NotLeader
from meshfold.mesh import Node
from meshfold.mesh.enrolment import identity_of
from meshfold.mesh.local import LocalMesh
from meshfold.mesh.node.control import Control
from meshfold.mesh.node.raft_wire import number_of

__all__ = ("NAMES", "WAIT_S", "Voters", "until")

WAIT_S = 60.0
NAMES = ("hub", "hub-2", "hub-3")


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until the condition holds."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - the condition is another party's
            await asyncio.sleep(0)


class Voters:
    """Those that run."""

    def __init__(self, mesh: LocalMesh) -> None:
        self.mesh = mesh
        self.nodes: dict[str, Node] = {}

    async def start(self, *names: str) -> None:
        """Start some together: alone none of them gets ready."""
        nodes = [self.mesh.node(name) for name in names]
        async with asyncio.timeout(WAIT_S):
            await asyncio.gather(*(node.__aenter__() for node in nodes))
        self.nodes |= dict(zip(names, nodes, strict=True))

    async def stop(self, *names: str) -> None:
        """End some."""
        for name in names:
            await self.nodes.pop(name).__aexit__(None, None, None)

    def mesh_id(self, name: str) -> str:
        """The hex of a voter's tag."""
        return identity_of(self.mesh.context, name).tag.hex() if self.mesh.context else ""

    def control(self, name: str) -> Control:
        """A voter's side."""
        found = self.nodes[name].session.control
        assert found is not None
        return found

    async def leader(self) -> str:
        """Who leads, as it proves by a read."""
        async with asyncio.timeout(WAIT_S):
            while True:
                for name in self.nodes:
                    with contextlib.suppress(MeshfoldError):
                        await self.control(name).keymaster.lead()
                        return name
                await asyncio.sleep(0)

    async def lead(self, name: str) -> None:
        """Have a voter lead."""
        async with asyncio.timeout(WAIT_S):
            while (leader := await self.leader()) != name:
                log = self.control(leader).log
                assert isinstance(log, RaftLog)
                with contextlib.suppress(NoQuorum, NotLeader):
                    await log.transfer(number_of(self.nodes[name].session.identity.tag))

"""A mesh that lets nodes in, on a simulated broker and a clock that tests move."""

from __future__ import annotations

import time
from pathlib import Path

from meshfold.mesh.clocks import HybridClock
from meshfold.mesh.enrolment import AuthorityFolder, MemberFolder, RootLock, capabilities_for
from meshfold.mesh.enrolment.doorkeeper import Doorkeeper
from meshfold.mesh.enrolment.invites import Invites
from meshfold.mesh.enrolment.joining import join_over
from meshfold.mesh.subjects import Subjects
from meshfold.mesh.transport import SimBroker
from meshfold.security import Grant, Identity
from meshfold.security.join import JoinToken

__all__ = ("HOUR_MS", "LOCK", "Mesh", "VirtualClock")

LOCK = RootLock(key=bytes(range(32)))
HOUR_MS = 3_600_000


class VirtualClock:
    """A wall clock that tests move."""

    def __init__(self) -> None:
        self.wall_ns = time.time_ns()

    def now(self) -> tuple[int, int]:
        """(wall, monotonic) in ns."""
        return self.wall_ns, self.wall_ns


class Mesh:
    """An authority and a doorkeeper on a simulated broker."""

    def __init__(self, folder: Path, seed: int = 1) -> None:
        self.folder = folder
        self.clock = VirtualClock()
        now_ms = self.clock.now()[0] // 1_000_000
        self.authority = AuthorityFolder.found(folder / "authority", bytes(16), LOCK, now_ms)
        self.invites = Invites(self.authority)
        self.broker = SimBroker(seed)
        self.subjects = Subjects(bytes(16))
        self.rejected: list[str] = []
        self.admitted: list[Identity] = []
        self.grants: list[Grant] = []
        self.doorkeeper: Doorkeeper | None = None

    async def open(self) -> None:
        """Begin to let nodes in."""
        transport = self.broker.client("hub")
        await transport.connect()
        self.doorkeeper = Doorkeeper(
            self.authority,
            transport,
            self.subjects,
            HybridClock(self.clock),
            url="nats://broker:4222",
            voters=(),
            reject=lambda reason, where: self.rejected.append(reason),
            admitted=self._admitted,
        )
        await self.doorkeeper.start()

    def _admitted(self, identity: Identity, grants: list[Grant]) -> None:
        self.admitted.append(identity)
        self.grants += grants

    def token(self, name: str = "edge-1", expires_ms: int | None = None, uses: int = 1) -> JoinToken:
        """A fresh token."""
        return self.invites.make(
            mesh="plant",
            name=name,
            roles=("node",),
            capabilities=capabilities_for(name),
            url="nats://broker:4222",
            expires_ms=expires_ms or time.time_ns() // 1_000_000 + HOUR_MS,
            uses=uses,
        )

    async def join(self, token: JoinToken, folder: str = "node") -> MemberFolder:
        """Join as a node would."""
        client = self.broker.client(folder, inbox_prefix=self.subjects.enrol_inbox(token.id))
        await client.connect()
        try:
            return await join_over(client, token, self.folder / folder, retry_s=0.0, ask_s=0.3)
        finally:
            await client.close()

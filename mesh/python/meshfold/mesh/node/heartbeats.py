"""Heartbeats: every half second a node says who it is and how far each shared route got, sealed under the members' key.

A heartbeat carries the counter checkpoints of S43, so a reader can prove what was sent, and echoes the incarnations its
sender has heard, so a reader knows that its producer sees it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from meshfold.core.errors import FrameRejected, KeyMissing, TransportClosed
from meshfold.core.jobs import end_jobs
from meshfold.core.ports import Message
from meshfold.core.registry import FrameKind
from meshfold.mesh.node.members import HEARTBEAT_S
from meshfold.mesh.node.party import Party, introduce, introduced
from meshfold.mesh.records import Heartbeat, decode, encode
from meshfold.security import Identity

__all__ = ("Heartbeats",)

#: Called for each accepted heartbeat: (sender, incarnation, heartbeat).
Heard = Callable[[Identity, bytes, Heartbeat], None]


class Heartbeats:
    """Sends ours, takes in the others'."""

    def __init__(
        self,
        party: Party,
        *,
        incarnation: bytes,
        compose: Callable[[int, bool], Heartbeat],
        heard: Heard,
        reject: Callable[[str, str], None],
    ) -> None:
        self._party = party
        self._incarnation = incarnation
        self._compose = compose
        self._heard = heard
        self._reject = reject
        self._counter = 0
        self._echo_ns: int | None = None
        self._job: asyncio.Task[None] | None = None
        self._listening = False

    @property
    def running(self) -> bool:
        """Whether they are sent."""
        return self._job is not None

    async def listen(self) -> None:
        """Hear everyone's, and send none: who only asks is no member."""
        if not self._listening:
            self._listening = True
            await self._party.transport.subscribe(self._party.subjects.every("h"), self._on_message)

    async def start(self) -> None:
        """Listen to everyone's and begin to send."""
        await self.listen()
        self._job = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TransportClosed, KeyMissing):
                await self.beat()
            await asyncio.sleep(HEARTBEAT_S)

    async def beat(self, *, closing: bool = False) -> None:
        """Send one heartbeat now."""
        self._counter += 1
        subject = self._party.subjects.node("h", self._party.identity.tag)
        body = encode(self._compose(self._counter, closing))
        frame = self._party.sealer.seal_members(
            FrameKind.HEARTBEAT,
            body,
            hlc=self._party.hlc.stamp(),
            policy_epoch=self._party.policy_epoch(),
            subject=subject,
        )
        await self._party.transport.publish(subject, introduce(self._party.identity, frame))

    def _on_message(self, message: Message) -> None:
        try:
            sender, incarnation, heartbeat = self._read(message)
        except FrameRejected as error:
            self._reject(error.reason, message.subject)
            return
        except KeyMissing:
            self._reject("epoch", message.subject)
            return
        if sender.tag != self._party.identity.tag or incarnation != self._incarnation:
            self._heard(sender, incarnation, heartbeat)
        else:
            self._echo_ns = self._party.hlc.clock.now()[1]

    def echo_age_s(self) -> float | None:
        """How long ago one of our own came back: the proof that what we send travels. None: not yet."""
        return None if self._echo_ns is None else (self._party.hlc.clock.now()[1] - self._echo_ns) / 1e9

    def _read(self, message: Message) -> tuple[Identity, bytes, Heartbeat]:
        raw, frame = introduced(message.data)
        sender = self._party.directory.admit(raw)
        if message.subject != self._party.subjects.node("h", sender.tag):
            raise FrameRejected("role", "a heartbeat on another node's subject")
        opened = self._party.opener.open_members(frame, message.subject)
        if opened.header.kind != FrameKind.HEARTBEAT or opened.sender.tag != sender.tag:
            raise FrameRejected("kind", "not this node's heartbeat")
        self._party.hlc.witness(opened.header.hlc)
        return sender, opened.header.incarnation, decode(opened.body, Heartbeat)

    async def close(self) -> None:
        """Say goodbye with final counters, as far as the transport still carries."""
        if self._job is None:
            return
        await end_jobs((self._job,))
        with contextlib.suppress(TransportClosed, KeyMissing):
            await self.beat(closing=True)

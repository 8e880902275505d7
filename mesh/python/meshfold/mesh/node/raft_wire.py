"""The voters' messages over the broker: `RaftWire` carries those of the control log's group in frames of kind 13.

A message has one recipient, so it is a box (HPKE to that voter, signed by the sender) bound to the recipient's subject: no
key is shared by the voters, hence none has to be handed out before there is a log, or replaced when a voter leaves.

Invariants: only a voter's frame is opened at all; messages may be lost, doubled and late, so what waits to be sent is bounded
and the oldest goes first; each that is lost here or refused is counted with its reason.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Final

from meshfold.core.errors import FrameRejected, KeyMissing, MeshfoldError, TransportClosed
from meshfold.core.jobs import end_jobs
from meshfold.core.ports import Message, Subscribed
from meshfold.core.registry import FrameKind
from meshfold.mesh.node.party import Party, introduced
from meshfold.security import Identity
from meshfold.security.frame import Header

__all__ = ("RaftWire", "number_of")

#: Messages that wait to be sealed and sent; a voter sends one to each other every heartbeat.
WAITING_MAX: Final = 256


def number_of(tag: bytes) -> int:
    """The number by which the voters know a node: its 8-byte tag."""
    return int.from_bytes(tag, "big")


class RaftWire:
    """One voter's end. Implements `meshfold.consensus.Wire`.

    :param voters: all voters of the group, this one among them
    :param reject: takes (reason, where) of each refused frame
    """

    def __init__(
        self, group: str, party: Party, voters: Sequence[Identity], *, reject: Callable[[str, str], None]
    ) -> None:
        self._party = party
        self._subject = party.subjects.raft(group, party.identity.tag)
        self._voters = {number_of(one.tag): one for one in voters if one.tag != party.identity.tag}
        self._subject_of = {
            number: party.subjects.raft(group, one.tag) for number, one in self._voters.items()
        }
        self._reject = reject
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._wake = asyncio.Event()
        self._receive: Callable[[bytes, int], str | None] = lambda data, sender: None
        self._job: asyncio.Task[None] | None = None
        self._subscription: Subscribed | None = None
        #: messages sent; lost before they were, by reason
        self.sent, self.lost = 0, Counter[str]()

    def send(self, to: int, data: bytes) -> None:
        """Send one message soon, or lose it."""
        if to not in self._voters:
            self.lost["member"] += 1
            return
        if len(self._waiting) >= WAITING_MAX:
            self._waiting.popleft()
            self.lost["overflow_oldest"] += 1
        self._waiting.append((to, data))
        self._wake.set()

    async def listen(self, receive: Callable[[bytes, int], str | None]) -> None:
        """Give every message that holds to `receive(data, sender's number)`, and begin to send.

        :param receive: returns why it refuses a message, or None

        :raises TransportClosed: if the transport was closed
        """
        self._receive = receive
        self._subscription = await self._party.transport.subscribe(self._subject, self._on_message)
        self._job = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                to, data = self._waiting.popleft()
                try:
                    subject = self._subject_of[to]
                    frame = self._party.seal(FrameKind.CONSENSUS, self._recipient(to), data, subject)
                    await self._party.transport.publish(subject, frame)
                    self.sent += 1
                except TransportClosed:
                    self.lost["closed"] += 1
                except (MeshfoldError, KeyMissing) as error:
                    self.lost[error.code] += 1

    def _recipient(self, to: int) -> Identity:
        voter = self._voters[to]
        # It may have replaced its wrapping key, and told so.
        return self._party.directory.lookup(voter.tag) or voter

    def _on_message(self, message: Message) -> None:
        try:
            sender = self._sender_of(message.data)
            opened = self._party.open(message.data, message.subject)
            if number_of(opened.sender.tag) != sender:
                raise FrameRejected("member", "a frame behind the identity of another")
        except FrameRejected as error:
            self._reject(error.reason, message.subject)
            return
        refused = self._receive(opened.body, sender)
        if refused is not None:
            self._reject(refused, message.subject)

    def _sender_of(self, data: bytes) -> int:
        """The number of the voter that a frame claims to be of: whoever is none costs no signature check.

        :raises FrameRejected: with reason `kind` or `member`, or as `Header.parse`
        """
        header = Header.parse(introduced(data)[1])
        if header.kind is not FrameKind.CONSENSUS:
            raise FrameRejected("kind", header.kind.name)
        number = number_of(header.sender_tag)
        if number not in self._voters:
            raise FrameRejected("member", f"{header.sender_tag.hex()} is no other voter")
        return number

    async def close(self) -> None:
        """Stop listening and sending; what waits is lost. Idempotent."""
        if self._subscription is not None:
            await self._subscription.close()
            self._subscription = None
        if self._job is not None:
            await end_jobs((self._job,))
            self._job = None

"""What all who speak for one node share: who it is, what it seals and opens with, and its boxes to single recipients.

There is one `Party` in a session, and everyone who speaks holds it: a renewed identity reaches them all at once. A message
in a box is the sender's ID1 record and the box (HPKE to the recipient, signed by the sender). The identity travels along
because a node that was never heard of may speak: the record is checked against the pinned issuers before anything else.

Who seals to a wrapping key that was replaced is told the newer one's record (WR1) in the clear, and asks again: it may have
been away when the key was replaced, and heartbeats, which tell it, open only to who has keys already.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from meshfold.core import errors
from meshfold.core.errors import FrameRejected, MeshfoldError, TransportTimeout
from meshfold.core.ports import Transport
from meshfold.core.registry import FrameKind
from meshfold.mesh.clocks import HybridClock
from meshfold.mesh.node.members import Directory
from meshfold.mesh.records import Answer, decode, encode
from meshfold.mesh.subjects import Subjects
from meshfold.security import Identity, Opener, Sealer
from meshfold.security.wrap_record import WRAP_MAGIC

__all__ = ("Party", "introduce", "introduced")

#: The subject an answer is bound to: inboxes are random, so the recipient's tag stands for them.
_ANSWER = "answer"


def introduce(identity: Identity, sealed: bytes) -> bytes:
    """What is sealed, behind the record of who sent it."""
    return struct.pack(">H", len(identity.raw)) + identity.raw + sealed


def introduced(data: bytes) -> tuple[bytes, bytes]:
    """(the sender's record, what is sealed).

    :raises FrameRejected: with reason `short` if it ends before the record does
    """
    if len(data) < 2:
        raise FrameRejected("short", "no identity")
    (size,) = struct.unpack_from(">H", data)
    if len(data) < 2 + size:
        raise FrameRejected("short", "identity record past the end")
    return bytes(data[2 : 2 + size]), bytes(data[2 + size :])


@dataclass(slots=True)
class Party:
    """One node as those see it who speak for it."""

    #: the newest of this node's; renewals of the same keys take its place
    identity: Identity
    transport: Transport
    sealer: Sealer
    opener: Opener
    directory: Directory
    subjects: Subjects
    hlc: HybridClock
    #: the epoch of the policy this node holds
    policy_epoch: Callable[[], int]
    #: the grants that a question shows
    grants: Callable[[], list[bytes]]
    #: takes in the grants that another node shows
    show: Callable[[Identity, list[bytes]], None]
    #: the record of our newest wrapping key; empty until the first was replaced
    wrap: Callable[[], bytes]

    def seal(self, kind: FrameKind, recipient: Identity, body: bytes, subject: str) -> bytes:
        """A box for one recipient, under its newest wrapping key that is known, bound to the subject, behind our identity."""
        recipient = self.directory.lookup(recipient.tag) or recipient
        box = self.sealer.seal_box(
            kind, recipient, body, hlc=self.hlc.stamp(), policy_epoch=self.policy_epoch(), subject=subject
        )
        return introduce(self.identity, box)

    def is_ours(self, data: bytes) -> bool:
        """Whether a box names this node: several nodes may listen where one of them is asked."""
        _, box = introduced(data)
        return box[8:16] == self.identity.tag

    def open(self, data: bytes, subject: str) -> Any:
        """Open a box to this node.

        :raises FrameRejected: if it or the identity before it does not hold
        """
        raw, box = introduced(data)
        self.directory.admit(raw)
        opened = self.opener.open_box(box, subject)
        self.hlc.witness(opened.header.hlc)
        return opened

    async def ask(
        self, kind: FrameKind, recipient: Identity, body: bytes, subject: str, timeout_s: float
    ) -> dict[str, Any]:
        """Send one node a box and return the document of its answer.

        :raises TransportTimeout: if it does not answer in time
        :raises MeshfoldError: the error it answered with, of the same class
        :raises FrameRejected: if the answer is not authentic
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout_s
        while True:
            box = self.seal(kind, recipient, body, subject)
            message = await self.transport.request(subject, box, timeout_s=max(0.0, end - loop.time()))
            raw, answer = introduced(message.data)
            if not answer.startswith(WRAP_MAGIC):
                return self._open_answer(message.data, recipient)
            # It could not open the box, so it has done nothing. Each turn needs a higher counter that it signed.
            self._take_wrap(raw, answer, recipient)

    def newer_wrap(self) -> bytes:
        """What is answered to a box that no wrapping key of ours opens; empty if there was ever only one."""
        wrap = self.wrap()
        return introduce(self.identity, wrap) if wrap else b""

    def _take_wrap(self, raw: bytes, wrap: bytes, of: Identity) -> None:
        tag = self.directory.admit(raw).tag
        if tag != of.tag:
            raise FrameRejected("role", "another node answered")
        before = self.directory.lookup(tag)
        self.directory.take_wrap(tag, wrap)
        if self.directory.lookup(tag) == before:
            raise FrameRejected("unwrap", "it opens no box, and tells no newer wrapping key")

    def seal_answer(self, asker: Identity, answer: Answer) -> bytes:
        """A box with the answer to a question."""
        return self.seal(FrameKind.ANSWER, asker, encode(answer), f"{_ANSWER}.{asker.tag.hex()}")

    def _open_answer(self, data: bytes, expected: Identity) -> dict[str, Any]:
        opened = self.open(data, f"{_ANSWER}.{self.identity.tag.hex()}")
        if opened.sender.tag != expected.tag:
            raise FrameRejected("role", "another node answered")
        answer = decode(opened.body, Answer)
        if answer.error:
            raise _rebuild(answer)
        return answer.document


def _rebuild(answer: Answer) -> MeshfoldError:
    """The remote error as its own class, so that callers catch it as they would a local one."""
    code, message = answer.error, answer.message
    for name in errors.__all__:
        kind = getattr(errors, name)
        if kind.code == code and kind is not errors.FrameRejected:
            return kind(message)  # type: ignore[no-any-return]
    if code == errors.FrameRejected.code:
        return FrameRejected(answer.reason or "role", message)
    return TransportTimeout(f"unknown remote error {code}: {message}")

"""What all who speak in boxes share: sealing to one recipient, opening what came, and the error of an answer.

A message is the sender's ID1 record and a box (HPKE to the recipient, signed by the sender). The identity travels along
because a node that was never heard of may speak: the record is checked against the pinned issuers before anything else.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
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

__all__ = ("Party",)

#: The subject an answer is bound to: inboxes are random, so the recipient's tag stands for them.
_ANSWER = "answer"


def _wrap(identity: Identity, box: bytes) -> bytes:
    return struct.pack(">H", len(identity.raw)) + identity.raw + box


def _unwrap(data: bytes) -> tuple[bytes, bytes]:
    if len(data) < 2:
        raise FrameRejected("short", "no identity")
    (size,) = struct.unpack_from(">H", data)
    if len(data) < 2 + size:
        raise FrameRejected("short", "identity record past the end")
    return data[2 : 2 + size], data[2 + size :]


class Party:
    """One node's voice in boxes."""

    def __init__(
        self,
        identity: Identity,
        transport: Transport,
        sealer: Sealer,
        opener: Opener,
        directory: Directory,
        subjects: Subjects,
        hlc: HybridClock,
        policy_epoch: Callable[[], int],
        grants: Callable[[], list[bytes]],
        show: Callable[[Identity, list[bytes]], None],
    ) -> None:
        self._identity = identity
        self._transport = transport
        self._sealer = sealer
        self._opener = opener
        self._directory = directory
        self._subjects = subjects
        self._hlc = hlc
        self._policy_epoch = policy_epoch
        self._grants = grants
        self._show = show

    def identify(self, identity: Identity) -> None:
        """Go on under a newer identity of the same keys."""
        self._identity = identity

    def _seal(self, kind: FrameKind, recipient: Identity, body: bytes, subject: str) -> bytes:
        box = self._sealer.seal_box(
            kind, recipient, body, hlc=self._hlc.stamp(), policy_epoch=self._policy_epoch(), subject=subject
        )
        return _wrap(self._identity, box)

    def _is_ours(self, data: bytes) -> bool:
        """Whether a box names this node: several nodes may listen where one of them is asked."""
        _, box = _unwrap(data)
        return box[8:16] == self._identity.tag

    def _open(self, data: bytes, subject: str) -> Any:
        raw, box = _unwrap(data)
        self._directory.admit(raw)
        opened = self._opener.open_box(box, subject)
        self._hlc.witness(opened.header.hlc)
        return opened

    def _seal_answer(self, asker: Identity, answer: Answer) -> bytes:
        # What it told meanwhile may have replaced its wrapping key.
        asker = self._directory.lookup(asker.tag) or asker
        return self._seal(FrameKind.ANSWER, asker, encode(answer), f"{_ANSWER}.{asker.tag.hex()}")

    def _open_answer(self, data: bytes, expected: Identity) -> dict[str, Any]:
        """The document of an answer.

        :raises MeshfoldError: the error it says, of its own class
        :raises FrameRejected: if it is not authentic, or another node's
        """
        opened = self._open(data, f"{_ANSWER}.{self._identity.tag.hex()}")
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

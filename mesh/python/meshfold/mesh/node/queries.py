"""Questions between nodes: sealed to one recipient, answered to the asker's own inbox.

A message is the sender's ID1 record and a box (HPKE to the recipient, signed by the sender). The identity travels along
because a node that was never heard of may ask: the record is checked against the pinned issuers before anything else.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from typing import Any

from meshfold.core import errors
from meshfold.core.errors import FrameRejected, MeshfoldError, TransportTimeout
from meshfold.core.ports import Message, Transport
from meshfold.core.registry import FrameKind
from meshfold.mesh.clocks import HybridClock
from meshfold.mesh.node.members import Directory
from meshfold.mesh.records import Answer, Query, decode, encode
from meshfold.mesh.subjects import Subjects
from meshfold.security import Identity, Opener, Sealer

__all__ = ("Asker", "Handler", "Responder")

#: Takes (asker, args) and gives the answer's document; an error of ours is answered by code and text.
Handler = Callable[[Identity, dict[str, Any]], Awaitable[dict[str, Any]]]

#: Questions a node works on at once; further ones are refused, counted as `limit`.
QUESTIONS_MAX = 64
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


class _Party:
    """What asking and answering share."""

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

    def _seal(self, kind: FrameKind, recipient: Identity, body: bytes, subject: str) -> bytes:
        box = self._sealer.seal_box(
            kind, recipient, body, hlc=self._hlc.stamp(), policy_epoch=self._policy_epoch(), subject=subject
        )
        return _wrap(self._identity, box)

    def _open(self, data: bytes, subject: str) -> Any:
        raw, box = _unwrap(data)
        self._directory.admit(raw)
        opened = self._opener.open_box(box, subject)
        self._hlc.witness(opened.header.hlc)
        return opened


class Asker(_Party):
    """Asks other nodes."""

    async def ask(
        self, recipient: Identity, command: str, args: dict[str, Any], timeout_s: float
    ) -> dict[str, Any]:
        """Ask one node and return its document.

        :raises TransportTimeout: if it does not answer in time
        :raises MeshfoldError: the error it answered with, of the same class
        :raises FrameRejected: if the answer is not authentic
        """
        subject = self._subjects.node("q", recipient.tag)
        data = self._seal(FrameKind.QUERY, recipient, encode(Query(command, args, self._grants())), subject)
        message = await self._transport.request(subject, data, timeout_s=timeout_s)
        opened = self._open(message.data, f"{_ANSWER}.{self._identity.tag.hex()}")
        if opened.sender.tag != recipient.tag:
            raise FrameRejected("role", "another node answered")
        answer = decode(opened.body, Answer)
        if answer.error:
            raise _rebuild(answer.error, answer.message)
        return answer.document


class Responder(_Party):
    """Answers the questions sent to this node."""

    def __init__(
        self,
        *parts: Any,
        reject: Callable[[str, str], None],
        denied: Callable[[errors.GrantDenied], None],
        audited: Callable[[Identity, str, MeshfoldError | None], None],
    ) -> None:
        super().__init__(*parts)
        self._reject = reject
        self._denied = denied
        self._audited = audited
        self._handlers: dict[str, Handler] = {}
        self._jobs: set[asyncio.Task[None]] = set()

    def answers(self, command: str, handler: Handler) -> None:
        """Register the handler of a command."""
        self._handlers[command] = handler

    async def answer_self(self, command: str, args: dict[str, Any]) -> dict[str, Any]:
        """Answer a question of this very node without the broker.

        :raises ConfigError: for an unknown command
        """
        return await self._handler(command)(self._identity, args)

    def _handler(self, command: str) -> Handler:
        handler = self._handlers.get(command)
        if handler is None:
            known = ", ".join(sorted(self._handlers))
            raise errors.ConfigError(f"unknown query {command!r}", fix=f"known: {known}", item="query")
        return handler

    async def start(self) -> None:
        """Listen. The broker has taken the subscription on return."""
        await self._transport.subscribe(self._subjects.node("q", self._identity.tag), self._on_message)

    def _on_message(self, message: Message) -> None:
        try:
            opened = self._open(message.data, message.subject)
            if opened.header.kind != FrameKind.QUERY:
                raise FrameRejected("kind", "not a query")
            query = decode(opened.body, Query)
            if len(self._jobs) >= QUESTIONS_MAX:
                raise FrameRejected("limit", "too many questions at once")
            self._show(opened.sender, query.grants)
        except FrameRejected as error:
            self._reject(error.reason, message.subject)
            return
        job = asyncio.get_running_loop().create_task(self._answer(opened.sender, query, message.reply))
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    async def _answer(self, asker: Identity, query: Query, reply: str) -> None:
        try:
            answer = Answer(document=await self._handler(query.command)(asker, query.args))
            self._audited(asker, query.command, None)
        except MeshfoldError as error:
            self._audited(asker, query.command, error)
            answer = Answer(error=error.code, message=str(error))
            if isinstance(error, errors.GrantDenied):
                self._denied(error)
        if reply:
            # What it told meanwhile may have replaced its wrapping key.
            asker = self._directory.lookup(asker.tag) or asker
            data = self._seal(FrameKind.ANSWER, asker, encode(answer), f"{_ANSWER}.{asker.tag.hex()}")
            await self._transport.publish(reply, data)

    async def close(self) -> None:
        """Stop working on questions."""
        jobs = list(self._jobs)
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)


def _rebuild(code: str, message: str) -> MeshfoldError:
    """The remote error as its own class, so that callers catch it as they would a local one."""
    for name in errors.__all__:
        kind = getattr(errors, name)
        if kind.code == code and kind is not errors.FrameRejected:
            return kind(message)  # type: ignore[no-any-return]
    if code == errors.FrameRejected.code:
        return FrameRejected("role", message)
    return TransportTimeout(f"unknown remote error {code}: {message}")

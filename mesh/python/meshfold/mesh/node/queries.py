"""Questions between nodes: sealed to one recipient, answered to the asker's own inbox."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from meshfold.core import errors
from meshfold.core.errors import FrameRejected, MeshfoldError
from meshfold.core.jobs import end_jobs
from meshfold.core.ports import Message
from meshfold.core.registry import FrameKind
from meshfold.mesh.node.party import Party
from meshfold.mesh.records import Answer, Query, decode, encode
from meshfold.security import Identity

__all__ = ("Asker", "Handler", "Responder")

#: Takes (asker, args) and gives the answer's document; an error of ours is answered by code and text.
Handler = Callable[[Identity, dict[str, Any]], Awaitable[dict[str, Any]]]

#: Questions a node works on at once; further ones are refused, counted as `limit`.
QUESTIONS_MAX = 64


class Asker(Party):
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
        return self._open_answer(message.data, recipient)


class Responder(Party):
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
            answer = Answer.refusing(error)
            if isinstance(error, errors.GrantDenied):
                self._denied(error)
        if reply:
            await self._transport.publish(reply, self._seal_answer(asker, answer))

    async def close(self) -> None:
        """Stop working on questions."""
        await end_jobs(self._jobs)

"""Questions between nodes: sealed to one recipient, answered to the asker's own inbox."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from meshfold.core import errors
from meshfold.core.errors import MeshfoldError
from meshfold.core.registry import FrameKind
from meshfold.mesh.node.party import Party
from meshfold.mesh.node.reception import Reception
from meshfold.mesh.records import Query, encode
from meshfold.security import Identity

__all__ = ("Answering", "Asker", "Handler", "Responder")

#: Takes (asker, args) and gives the answer's document; an error of ours is answered by code and text.
Handler = Callable[[Identity, dict[str, Any]], Awaitable[dict[str, Any]]]

#: Questions a node works on at once; further ones are refused, counted as `limit`.
QUESTIONS_MAX = 64


class Asker:
    """Asks other nodes."""

    def __init__(self, party: Party) -> None:
        self._party = party

    async def ask(
        self, recipient: Identity, command: str, args: dict[str, Any], timeout_s: float
    ) -> dict[str, Any]:
        """Ask one node and return its document.

        :raises TransportTimeout: if it does not answer in time
        :raises MeshfoldError: the error it answered with, of the same class
        :raises FrameRejected: if the answer is not authentic
        """
        party = self._party
        subject = party.subjects.node("q", recipient.tag)
        query = encode(Query(command, args, party.grants()))
        return await party.ask(FrameKind.QUERY, recipient, query, subject, timeout_s)


class Answering(Protocol):
    """Where handlers of questions are registered."""

    def answers(self, command: str, handler: Handler) -> None:
        """Register the handler of a command."""
        ...


class Responder:
    """Answers the questions sent to this node."""

    def __init__(
        self,
        party: Party,
        *,
        reject: Callable[[str, str], None],
        denied: Callable[[errors.GrantDenied], None],
        audited: Callable[[Identity, str, MeshfoldError | None], None],
    ) -> None:
        self._party = party
        self._audited = audited
        self._handlers: dict[str, Handler] = {}
        self._reception = Reception(
            party, FrameKind.QUERY, Query, self._work, jobs_max=QUESTIONS_MAX, reject=reject, denied=denied
        )

    def answers(self, command: str, handler: Handler) -> None:
        """Register the handler of a command."""
        self._handlers[command] = handler

    async def answer_self(self, command: str, args: dict[str, Any]) -> dict[str, Any]:
        """Answer a question of this very node without the broker.

        :raises ConfigError: for an unknown command
        """
        return await self._handler(command)(self._party.identity, args)

    def _handler(self, command: str) -> Handler:
        handler = self._handlers.get(command)
        if handler is None:
            known = ", ".join(sorted(self._handlers))
            raise errors.ConfigError(f"unknown query {command!r}", fix=f"known: {known}", item="query")
        return handler

    async def start(self) -> None:
        """Listen. The broker has taken the subscription on return."""
        subject = self._party.subjects.node("q", self._party.identity.tag)
        await self._party.transport.subscribe(subject, self._reception.take)

    async def _work(self, asker: Identity, query: Query) -> dict[str, Any]:
        try:
            document = await self._handler(query.command)(asker, query.args)
        except MeshfoldError as error:
            self._audited(asker, query.command, error)
            raise
        self._audited(asker, query.command, None)
        return document

    async def close(self) -> None:
        """Stop working on questions."""
        await self._reception.close()

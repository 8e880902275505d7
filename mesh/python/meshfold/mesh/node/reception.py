"""Where boxes arrive that ask this node for something: each is opened, worked on and answered.

Invariants: what is not authentic, or is one too many, is counted and not answered; of those that are worked on, every one is
answered, an error by its code and text.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, TypeVar

from meshfold.core.errors import FrameRejected, GrantDenied, MeshfoldError
from meshfold.core.jobs import end_jobs
from meshfold.core.ports import Message
from meshfold.core.registry import FrameKind
from meshfold.mesh.node.party import Party
from meshfold.mesh.records import Answer, Query, Write, decode
from meshfold.security import Identity

__all__ = ("Reception",)

Asked = TypeVar("Asked", bound=Query | Write)


class Reception(Generic[Asked]):
    """Takes the boxes of one kind."""

    def __init__(
        self,
        party: Party,
        kind: FrameKind,
        record: type[Asked],
        work: Callable[[Identity, Asked], Awaitable[dict[str, Any]]],
        *,
        jobs_max: int,
        reject: Callable[[str, str], None],
        denied: Callable[[GrantDenied], None],
    ) -> None:
        """Open boxes of `kind` as `record`, and answer each with the document that `work` makes of it.

        :param jobs_max: boxes worked on at once; further ones are refused, counted as `limit`
        """
        self._party = party
        self._kind = kind
        self._record = record
        self._work = work
        self._jobs_max = jobs_max
        self._reject = reject
        self._denied = denied
        self._jobs: set[asyncio.Task[None]] = set()

    def take(self, message: Message) -> None:
        """Begin to work on one message. What was sealed to a replaced wrapping key is answered with the newer one's record."""
        try:
            opened = self._party.open(message.data, message.subject)
            if opened.header.kind != self._kind:
                raise FrameRejected("kind", f"not a {self._record.__name__.lower()}")
            asked = decode(opened.body, self._record)
            if len(self._jobs) >= self._jobs_max:
                raise FrameRejected("limit", f"more than {self._jobs_max} at once")
            self._party.show(opened.sender, asked.grants)
        except FrameRejected as error:
            self._reject(error.reason, message.subject)
            newer = self._party.newer_wrap() if error.reason == "unwrap" else b""
            if newer and message.reply and len(self._jobs) < self._jobs_max:
                self._begin(self._party.transport.publish(message.reply, newer))
            return
        self._begin(self._answer(opened.sender, asked, message.reply))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        job = asyncio.get_running_loop().create_task(work)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    def take_ours(self, message: Message) -> None:
        """As `take`, on a subject where other nodes listen too: boxes to them are passed over."""
        try:
            ours = self._party.is_ours(message.data)
        except FrameRejected as error:
            self._reject(error.reason, message.subject)
            return
        if ours:
            self.take(message)

    async def _answer(self, asker: Identity, asked: Asked, reply: str) -> None:
        try:
            answer = Answer(document=await self._work(asker, asked))
        except MeshfoldError as error:
            answer = Answer.refusing(error)
            if isinstance(error, GrantDenied):
                self._denied(error)
        if reply:
            await self._party.transport.publish(reply, self._party.seal_answer(asker, answer))

    async def close(self) -> None:
        """Stop working on what came."""
        await end_jobs(self._jobs)

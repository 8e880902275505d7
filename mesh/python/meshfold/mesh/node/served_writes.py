"""The owner's side of a write request: who may ask, in which order it is taken, and what is answered.

A request that is taken becomes an event of the owner's request route; from there on it is what a local one is. Answered is
the first word about it: the acknowledgement, else a report that it caused, else that it was taken.

Invariants: checked on every request - signature, grant, budget, fence - never once for a connection; requests of one
writer are taken in the order they were sent; one that is refused has changed nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import Callable, Generator
from typing import Any, Final

from meshfold.consensus import Fence, Token
from meshfold.core import Event, Graph, Route
from meshfold.core.errors import (
    Fenced,
    GrantDenied,
    MeshfoldError,
    SchemaMismatch,
    WiringError,
)
from meshfold.core.ports import Subscribed
from meshfold.core.registry import Action, FrameKind
from meshfold.mesh.broker.jwt import RESPONSE_S
from meshfold.mesh.node.party import Party
from meshfold.mesh.node.reception import Reception
from meshfold.mesh.records import Write
from meshfold.security import Budgets, GrantBook, Identity

__all__ = ("ServedWrites",)

#: Requests of one route that a node works on at once; further ones are refused, counted as `limit`.
WRITES_MAX: Final = 64
#: Longest wait for what a device says: the server has to let the answer through after it.
WAIT_S_MAX: Final = RESPONSE_S - 10.0
#: Answers of a device kept for one request; they are looked through from the newest.
HEARD_MAX: Final = 1024


class ServedWrites:
    """Takes the write requests of one route. Made by sharing a route with the variant `request`."""

    def __init__(
        self,
        party: Party,
        *,
        graph: Graph,
        route: Route[Any],
        fence: Fence | None,
        book: GrantBook,
        budgets: Budgets,
        reject: Callable[[str, str], None],
        denied: Callable[[GrantDenied], None],
    ) -> None:
        self._party = party
        self._graph = graph
        self._route = route
        self._fence = fence
        self._book = book
        self._budgets = budgets
        self._taken = 0
        self._refused: Counter[str] = Counter()
        self._turn = asyncio.Lock()
        self._reception = Reception(
            party, FrameKind.WRITE, Write, self.take, jobs_max=WRITES_MAX, reject=reject, denied=denied
        )
        self._subscription: Subscribed | None = None
        self.closed = False

    @property
    def counters(self) -> dict[str, Any]:
        """`taken`, and `refused` by the code of the error."""
        return {"taken": self._taken, "refused": dict(self._refused)}

    async def start(self) -> None:
        """Listen. The broker has taken the subscription on return.

        :raises GrantDenied: if the broker's permissions do not allow it
        """
        subject = self._party.subjects.route_any_site("w", self._route.addr)
        self._subscription = await self._party.transport.subscribe(subject, self._reception.take_ours)

    async def take(self, writer: Identity, write: Write) -> dict[str, Any]:
        """Publish the request on the local route and return the answer's document.

        :raises GrantDenied: if the writer holds no WRITE_REQUEST there
        :raises FrameRejected: with reason `limit` beyond the grant's budget
        :raises SchemaMismatch, DecodeError: if the value is none of this route
        :raises Fenced: if the route has a fence, and a higher token was here, or none was brought
        :raises WouldBlock: if there is no credit for it
        """
        try:
            with self._listening() as heard:
                async with self._turn:
                    self._permit(writer, write)
                    event = await asyncio.to_thread(self._publish, write)
                self._taken += 1
                state = await heard.about(event.id, min(write.wait_s, WAIT_S_MAX))
        except MeshfoldError as error:
            self._refused[error.code] += 1
            raise
        return {"write": event.id, "state": state}

    def _permit(self, writer: Identity, write: Write) -> None:
        if writer.tag != self._party.identity.tag:
            decision = self._book.require(writer.tag, Action.WRITE_REQUEST, self._route.addr)
            now_ns = self._party.hlc.clock.now()[1]
            self._budgets.spend(decision, events=1, size_bytes=len(write.value), now_ns=now_ns)
        if write.schema != self._route.schema.id:
            raise SchemaMismatch(
                f"{self._route.text} takes {self._route.schema.name} {self._route.schema.id.hex()}",
                fix="`meshfold route show` tells the schema",
                expected=self._route.schema.id.hex(),
                found=write.schema.hex(),
            )

    def _publish(self, write: Write) -> Event[Any]:
        with self._fenced(write.token):
            return self._graph.try_publish(
                self._route,
                self._route.schema.decode(write.value),
                time=write.time,
                key=write.key,
                correlation=write.correlation,
                parents=write.parents,
            )

    @contextlib.contextmanager
    def _fenced(self, text: str) -> Generator[None]:
        """Keep every other leader out while the request becomes an event."""
        if self._fence is None:
            if text:
                raise WiringError(
                    f"{self._route.text} has no fence, so a token guards nothing there",
                    fix="share it with fence=",
                    item=self._route.text,
                )
            yield
            return
        if not text:
            raise Fenced(
                f"{self._route.text} is written by a leader alone, and this request brings no token",
                fix="pass token=lease.token",
            )
        with self._fence.hold(Token.parse(text)):
            yield

    @contextlib.contextmanager
    def _listening(self) -> Generator[_Heard]:
        """Everything that the route's binding says from now on."""
        heard = _Heard(asyncio.get_running_loop())
        with contextlib.ExitStack() as stack:
            for shadow in self._graph.shadows():
                if shadow.binding.request == self._route:
                    heard.bound = True
                    for r in (shadow.binding.ack, shadow.binding.reported):
                        if r is not None:
                            note = heard.acknowledged if r is shadow.binding.ack else heard.reported
                            stack.enter_context(self._graph.observe(r, note, replay_latest=False))
            yield heard

    async def close(self) -> None:
        """Take no more requests. Idempotent."""
        self.closed = True
        if self._subscription is not None:
            subscription, self._subscription = self._subscription, None
            await subscription.close()
        await self._reception.close()


class _Heard:
    """What a device said while one request was worked on. Observers call from the publisher's thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.bound = False
        self._loop = loop
        self._said: deque[tuple[tuple[str, ...], str]] = deque(maxlen=HEARD_MAX)
        self._more = asyncio.Event()

    def acknowledged(self, event: Event[bool]) -> None:
        """Note an acknowledgement."""
        self._note(event, "acknowledged" if event.value else "refused")

    def reported(self, event: Event[Any]) -> None:
        """Note a report."""
        self._note(event, "reported")

    def _note(self, event: Event[Any], state: str) -> None:
        self._said.append((tuple(event.parents), state))
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._more.set)

    async def about(self, write: str, wait_s: float) -> str:
        """The first word about this write within the time, an acknowledgement before a report; else `taken`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wait_s if self.bound else 0):
                while (found := self._find(write)) is None:
                    self._more.clear()
                    await self._more.wait()
                return found
        return "taken"

    def _find(self, write: str) -> str | None:
        states = [state for parents, state in list(self._said) if write in parents]
        return next((state for state in states if state != "reported"), states[0] if states else None)

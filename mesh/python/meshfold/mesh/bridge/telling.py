"""The reader's side of credit over the wire: tells producers what the readers behind a bridge still take (S7).

Nothing is told while no reader of this graph holds producers up. Else a word goes out when a producer is first heard, when
half of what it was last given is used up or more, when it has nothing left and something came free, and with each of its
heartbeats: a word that was lost is said again.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from meshfold.core import Graph, Inlet, Route
from meshfold.core.errors import KeyMissing, TransportClosed
from meshfold.core.jobs import end_jobs
from meshfold.mesh.records import Credit

__all__ = ("CreditTeller",)

#: Between two rounds of words: what comes free meanwhile goes into one.
PAUSE_S: Final = 0.002
#: Producers of one route that are told of credit.
PRODUCERS_MAX: Final = 1024

_Producer = tuple[bytes, bytes]


@dataclass(slots=True)
class _Told:
    """The last word to a producer, and the payload bytes that came from it since."""

    at: int
    events: int
    size: int | None
    came: int = 0


class CreditTeller:
    """Tells the producers of one route. Every method is called in the node's loop."""

    def __init__(
        self,
        graph: Graph,
        route: Route[Any],
        inlet: Inlet,
        *,
        loop: asyncio.AbstractEventLoop,
        send: Callable[[Credit], Awaitable[None]],
        with_payloads: bool,
    ) -> None:
        self._graph = graph
        self._route = route
        self._inlet = inlet
        self._loop = loop
        self._send = send
        self._with_payloads = with_payloads
        self._told: dict[_Producer, _Told] = {}
        self._due: set[_Producer] = set()
        self._wake = asyncio.Event()
        self._job: asyncio.Task[None] | None = None
        self._listens = False
        #: words that went out
        self.words = 0
        inlet.on_credit(partial(_room, weakref.ref(self), loop))

    def came(self, producer: bytes, incarnation: bytes, payload_bytes: int) -> None:
        """Events of a producer came in."""
        key = producer, incarnation
        told = self._told.get(key)
        if told is not None:
            told.came += payload_bytes
        elif self._inlet.window() is None:
            return
        self._look(key)

    def heartbeat(self, producer: bytes, incarnation: bytes) -> None:
        """A producer gave a sign of life, and what it proves sent is noted: say it again."""
        key = producer, incarnation
        if key in self._told or self._inlet.window() is not None:
            self._tell(key)

    def _window(self) -> tuple[int, int | None] | None:
        found = self._inlet.window()
        return found if found is None or self._with_payloads else (found[0], None)

    def gone(self, producer: bytes, incarnation: bytes) -> None:
        """A producer's life ended: nothing is told to it any more."""
        self._told.pop((producer, incarnation), None)
        self._due.discard((producer, incarnation))

    def _look(self, key: _Producer) -> None:
        """Tell a producer if that lets it send more, and is not too small a word."""
        told, window = self._told.get(key), self._window()
        if told is None or window is None:
            self._tell(key)
            return
        events, size = window
        at = self._inlet.last_seq(*key)
        more = at + events - told.at - told.events
        bytes_left = NO_BYTES if told.size is None else told.size - told.came
        more_bytes = 0 if size is None or told.size is None else size - bytes_left
        spent = at >= told.at + told.events or bytes_left <= 0
        if (
            (spent and (more > 0 or more_bytes > 0))
            or more * 2 > told.events
            or told.size is not None
            and more_bytes * 2 > told.size
        ):
            self._tell(key)
        elif spent:
            self._listen()

    def _listen(self) -> None:
        """Look again when a reader has taken something."""
        # While events wait in the inlet it says itself when they have gone on.
        if not self._listens and not self._inlet.held:
            self._listens = True
            self._graph.when_room(partial(_room, weakref.ref(self), self._loop), self._route, 1)

    def room(self) -> None:
        """Something came free."""
        self._listens = False
        for key in list(self._told):
            self._look(key)

    def _tell(self, key: _Producer) -> None:
        self._due.add(key)
        if self._job is None:
            self._job = self._loop.create_task(self._run())
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            due, self._due = self._due, set()
            for key in due:
                await self._say(key)
            await asyncio.sleep(PAUSE_S)

    async def _say(self, key: _Producer) -> None:
        window = self._window()
        if window is None:
            if self._told.pop(key, None) is not None:
                await self._out(Credit(*key, 0, None))
            return
        if key not in self._told and len(self._told) >= PRODUCERS_MAX:
            return
        events, size = window
        at = self._inlet.last_seq(*key)
        self._told[key] = _Told(at, events, size)
        if events == 0 or size == 0:
            self._listen()
        await self._out(Credit(*key, at, events, size))

    async def _out(self, credit: Credit) -> None:
        # What cannot be said now is said with the next heartbeat.
        with contextlib.suppress(TransportClosed, KeyMissing):
            await self._send(credit)
            self.words += 1

    async def close(self) -> None:
        """Hold nobody up any more. Idempotent."""
        if self._job is not None:
            await end_jobs((self._job,))
            self._job = None
        told, self._told = self._told, {}
        for key in told:
            await self._out(Credit(*key, 0, None))


#: More bytes than anybody grants.
NO_BYTES: Final = 2**63


def _room(held: weakref.ref[CreditTeller], loop: asyncio.AbstractEventLoop) -> None:
    """Called by whoever gave room back, in its thread."""

    def look() -> None:
        teller = held()
        if teller is not None:
            teller.room()

    # A loop that is gone means that the node is closing.
    if not loop.is_closed():
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(look)

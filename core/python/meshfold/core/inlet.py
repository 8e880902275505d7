"""`Inlet`: the receiving end of a bridge. Remote events keep their numbers; gaps and duplicates are counted.

What comes in spends credit like what is published here (S6). Where a reader holds producers up, the rest of a batch waits in
the inlet, bounded, and goes on when credit comes back; `credit` is what a bridge may tell the other side.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from meshfold._native import Incoming, push_batch, push_waiting, unpack_batch
from meshfold.core.errors import MeshfoldError, WouldBlock
from meshfold.core.flow import EdgeCounters, InletReceipt

if TYPE_CHECKING:
    from meshfold.core.graph import Graph
    from meshfold.core.registry import Taint
    from meshfold.core.route import Route

__all__ = ("Inlet",)

#: Batches that wait for credit; one more is refused, and nothing of it is kept.
HELD_BATCHES_MAX: Final = 64


class _Held(NamedTuple):
    """A batch of which some events wait, and whose it is."""

    batch: Incoming
    of: tuple[bytes, bytes]


class Inlet:
    """Takes in batches of remote producers on one route."""

    def __init__(self, graph: Graph, r: Route[Any], name: str) -> None:
        self._graph = graph
        self._route = r
        self.name = name
        self._lock = threading.RLock()
        self._held: deque[_Held] = deque()
        self._listens = False
        self._told: Callable[[], object] | None = None
        #: batches that were refused because too many waited
        self.refused = 0

    def push(
        self,
        meta: bytes,
        payload: bytes | None,
        *,
        producer: bytes,
        incarnation: bytes,
        taints: Sequence[Taint] = (),
    ) -> InletReceipt:
        """Take in one batch (MB1). `payload` None is the metadata-only form. It never waits.

        Events for which there is no credit stay here, in order, and go on when it comes back: `held` of the receipt.

        :raises DecodeError: with reason `batch` if the bytes are not one; nothing changed then
        :raises WouldBlock: if 64 batches wait already; nothing changed, push it again when there is credit
        :raises TaintExceeded: if an event is above the declared bound of the route; nothing changed
        """
        with self._lock:
            if self._held and len(self._held) >= HELD_BATCHES_MAX:
                self.refused += 1
                raise WouldBlock(
                    f"{len(self._held)} batches for {self._route.text} wait for its readers",
                    fix="push it again when `credit` is above 0",
                    route=self._route.text,
                )
            whole = (self._graph, self._route, meta, payload, producer, incarnation, tuple(map(str, taints)))
            of = (producer, incarnation)
            if self._held:
                # Behind what waits: the order of numbers is kept.
                batch = unpack_batch(*whole)
                self._held.append(_Held(batch, of))
                return InletReceipt(0, 0, 0, *batch.numbers, batch.waiting)
            delivered, duplicates, lost, first, last, rest = push_batch(*whole)
            waiting = 0 if rest is None else rest.waiting
            if rest is not None:
                self._hold(_Held(rest, of))
            return InletReceipt(delivered, duplicates, lost, first, last, waiting)

    def _hold(self, held: _Held) -> None:
        self._held.appendleft(held)
        self._listen(held.batch.needs)

    def _listen(self, needs: int) -> None:
        if not self._listens:
            self._listens = True
            self._graph.when_room(partial(_go_on, weakref.ref(self)), self._route, needs)

    def go_on(self) -> None:
        """Credit has come back: take in what waits, as far as it reaches, and tell who asked."""
        with self._lock:
            self._listens = False
            while self._held and not self._listens:
                if self._graph.room_for(self._route) == 0:
                    self._listen(0)
                    return
                held = self._held.popleft()
                try:
                    push_waiting(self._graph, self._route, held.batch)
                except MeshfoldError as error:
                    # It was whole when it came; what refuses it now was declared since.
                    self._graph.note_failure(0, error)
                    continue
                if held.batch.waiting:
                    self._hold(held)
            told = self._told
        if told is not None:
            told()

    @property
    def held(self) -> int:
        """Events that wait here for credit."""
        with self._lock:
            return sum(held.batch.waiting for held in self._held)

    @property
    def credit(self) -> int:
        """Events that may be pushed now without waiting here: what a bridge tells the other side (S7)."""
        return max(0, self._graph.room_for(self._route) - self.held)

    def window(self) -> tuple[int, int | None] | None:
        """What a producer may send on top of what came, without waiting here: (events, payload bytes where they count).

        None: no reader of this graph holds producers up.
        """
        with self._lock:
            found = self._graph.window_for(self._route)
            if found is None:
                return None
            events, size = found
            held = sum(held.batch.payload_bytes for held in self._held)
            return max(0, events - self.held), None if size is None else max(0, size - held)

    def last_seq(self, producer: bytes, incarnation: bytes) -> int:
        """The last number that came of a producer, what waits here included; 0 for one not heard of."""
        with self._lock:
            for held in reversed(self._held):
                if held.of == (producer, incarnation):
                    return held.batch.numbers[1]
            rows = self._graph.track_rows(self._route)
            return next((int(row[3]) for row in rows if row[:2] == (producer, incarnation)), 0)

    def on_credit(self, call: Callable[[], object] | None) -> None:
        """Call this whenever what waited here has gone on; from the thread that gave the credit back, so it must be cheap."""
        self._told = call

    def expect(self, producer: bytes, incarnation: bytes, last_seq: int) -> int:
        """Take in a proof that numbers up to `last_seq` were sent; returns how many are newly `link_loss`.

        What waits here is not lost: a proof that speaks of it changes nothing until it has gone on.
        """
        with self._lock:
            if any(held.of == (producer, incarnation) for held in self._held):
                return 0
            return self._graph.expect_seq(self._route, producer, incarnation, last_seq)

    def counters(self) -> list[tuple[bytes, bytes, EdgeCounters, int]]:
        """(producer, incarnation, counters, last number) of every remote producer."""
        return [
            (producer, incarnation, EdgeCounters(*row), last)
            for producer, incarnation, row, last, _ in self._graph.track_rows(self._route)
        ]

    def attach_seq(self, producer: bytes, incarnation: bytes) -> int:
        """The first number counted: where this reader attached; 0 for a producer not heard of."""
        for row in self._graph.track_rows(self._route):
            if row[:2] == (producer, incarnation):
                return int(row[4])
        return 0


def _go_on(held: weakref.ref[Inlet]) -> None:
    inlet = held()
    if inlet is not None:
        inlet.go_on()

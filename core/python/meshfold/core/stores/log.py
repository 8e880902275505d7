"""`EventLog`: an append-only file of events that survives a crash.

A writer holds a lease that dies with its process, and a fencing token that outlives it. Records carry a length, checksums,
the schema, the time and the lineage of their event. Opening tells a torn tail, which is cut and reported, from damage,
which is refused (`core/stores/src/segment.rs` has the rule).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, Self, TypeVar

from meshfold._native import EventLogBase, derive_all
from meshfold.core.closing import Closing
from meshfold.core.errors import SchemaMismatch, StoreUnavailable
from meshfold.core.event import Event
from meshfold.core.route import Route
from meshfold.core.stream import Edge

if TYPE_CHECKING:
    from meshfold._native import Queue
    from meshfold.core.graph import Graph

__all__ = ("EventLog", "Replay")

T = TypeVar("T")
#: A file of the log is ended at this size; forgetting old records removes whole files.
SEGMENT_BYTES: Final = 64 * 1024 * 1024
#: Records read at a time.
_PAGE_RECORDS: Final = 1024
_PAGE_BYTES: Final = 8 * 1024 * 1024
#: Events committed with one fsync at most.
_COMMIT_EVENTS: Final = 4096
#: How long an appender waits before it tries again to write to a full disk, in seconds.
_RETRY_S: Final = 0.5
_LOOK_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Replay:
    """What a replay gave: numbers `first` to `last`, how many, and the range that was asked for but is forgotten."""

    first: int
    last: int
    count: int
    missing: tuple[int, int] | None


class EventLog(EventLogBase, Closing, Generic[T]):
    """The events of a route, in a folder of files.

    :param path: the folder; made by a writer if it is not there
    :param route: what it holds; another schema than the log was made with is refused
    :param mode: `read` sees what was there when it was opened; `write` needs that no other writer lives
    :param take_over: write although another writer lives: that one is fenced and acknowledges nothing more
    :raises StoreUnavailable: if another writer has it open, or the system refuses
    :raises StoreDamaged: if acknowledged records are damaged or gone
    :raises SchemaMismatch: if it holds another schema
    """

    route: Route[T]

    def __new__(
        cls,
        path: PathLike[str] | str,
        route: Route[T],
        *,
        mode: Literal["read", "write"] = "write",
        take_over: bool = False,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> Self:
        schema = route.schema
        how = "take_over" if take_over and mode == "write" else mode
        self: Self = super().__new__(cls, path, schema.id, schema.version, schema.name, how, segment_bytes)
        self.route = route
        return self

    @property
    def first(self) -> int:
        """Number of the oldest record that is kept."""
        return self.state()[0]

    @property
    def last(self) -> int:
        """Number of the newest record, 0 if there never was one. Known without reading."""
        return self.state()[1] - 1

    @property
    def token(self) -> int:
        """The writer's fencing token: larger than any before; 0 for a reader."""
        return self.state()[2]

    @property
    def torn_bytes(self) -> int:
        """Bytes of an unfinished append that were cut off when this was opened."""
        return self.state()[3]

    def append(self, *events: Event[T]) -> int:
        """Append events, all or none; returns the number of the first. Durable (fsync) on return.

        :raises Fenced: if a newer writer exists; nothing was acknowledged
        :raises StoreUnavailable: `full`: nothing was kept, try again later; `unsure`: open the log again
        :raises SchemaMismatch: if an event is of another schema
        """
        for event in events:
            if event.route.schema.id != self.route.schema.id:
                raise SchemaMismatch(
                    f"the log of {self.route.text} does not take events of {event.route.text}",
                    route=event.route.text,
                    expected=self.route.schema.name,
                    found=event.route.schema.name,
                )
        return self.append_events(events)

    def records(self, start: int = 1, stop: int | None = None) -> Iterator[tuple[int, Event[T]]]:
        """Records from number `start` to before `stop`, in order, each with its number.

        :raises StoreDamaged: at the first record whose checksum does not match
        """
        at = max(start, self.first)
        end = self.last + 1 if stop is None else stop
        while at < end:
            rows = self.read_events(self.route, at, min(_PAGE_RECORDS, end - at), _PAGE_BYTES)
            if not rows:
                return
            yield from rows
            at = rows[-1][0] + 1

    def replay(
        self, graph: Graph, sink: Route[T] | None = None, *, start: int = 1, stop: int | None = None
    ) -> Replay:
        """Publish records on `sink` (None: the log's own route), in order, as new events.

        Each has the recorded event as parent, its key, correlation and device time, is tainted DELIVERY_DUPLICATED and
        names `replay` as its operator: the replay marker. What was asked for but is forgotten is reported as missing.
        """
        first, last, count = 0, 0, 0
        batch: list[Event[T]] = []
        target = sink or self.route
        for number, event in self.records(start, stop):
            first, last, count = first or number, number, count + 1
            batch.append(event)
            if len(batch) == _PAGE_RECORDS:
                derive_all(graph, target, batch, "replay", ["DELIVERY_DUPLICATED"])
                batch = []
        derive_all(graph, target, batch, "replay", ["DELIVERY_DUPLICATED"])
        oldest = self.first
        missing = (start, oldest - 1) if start < oldest else None
        return Replay(first, last, count, missing)

    def attach(
        self, graph: Graph, source: Route[T] | None = None, committed: Route[T] | None = None
    ) -> Appender[T]:
        """Append every event of `source` (None: the log's own route) from now on, and publish it on `committed` after.

        An event on `committed` is on the disk; it has the source event as parent. Events that wait together share an
        fsync. A full disk is tried again, in order, and counted as a failure; a fenced writer stops.

        :raises SchemaMismatch: if a route is of another schema than the log
        """
        origin = source or self.route
        for r in (origin, committed):
            if r is not None and r.schema.id != self.route.schema.id:
                raise SchemaMismatch(
                    f"the log holds {self.route.schema.name}, {r.text} carries {r.schema.name}",
                    route=r.text,
                    expected=self.route.schema.name,
                    found=r.schema.name,
                )
        return Appender(self, graph, origin, committed)


class Appender(Edge, Generic[T]):
    """Appends a route's events to a log on a thread of its own; closing appends what waits first."""

    #: Events that may wait for the disk; beyond that, publishers wait.
    WAITING_MAX: Final = 65_536

    def __init__(self, log: EventLog[T], graph: Graph, source: Route[T], committed: Route[T] | None) -> None:
        queue = graph.attach_queue(
            source, f"log {log.path.name}", "log", self.WAITING_MAX, "block", False, None
        )
        super().__init__(graph, queue.edge)
        self._log = log
        self._queue: Queue = queue
        self._committed = committed
        self._closing = threading.Event()
        self._waiting: list[Event[Any]] = []
        #: why it stopped by itself, if it did
        self.failed: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=f"log {log.path.name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while self.failed is None:
            if not self._waiting:
                self._waiting = list(self._queue.take(_COMMIT_EVENTS))
            if self._waiting:
                self._commit()
            elif self._closing.is_set() or not self._queue.open:
                return
            else:
                self._queue.wait(_LOOK_S)

    def _commit(self) -> None:
        try:
            self._log.append_events(self._waiting)
        except StoreUnavailable as error:
            self._graph.note_failure(self._edge, error)
            if error.because != "full" or self._closing.is_set():
                self.failed = error
            self._closing.wait(_RETRY_S)
            return
        except Exception as error:  # noqa: BLE001 - kept as `failed`, and raised when it is closed
            self._graph.note_failure(self._edge, error)
            self.failed = error
            return
        if self._committed is not None:
            derive_all(self._graph, self._committed, self._waiting, "commit", [])
        self._waiting = []

    @property
    def uncommitted(self) -> int:
        """Events taken from the route that are not on the disk."""
        return len(self._waiting) + self._queue.pending

    def close(self) -> None:
        """Append what waits, then detach. Idempotent.

        :raises Fenced: if it stopped because a newer writer exists
        :raises StoreUnavailable: if what waits cannot be written; `uncommitted` tells how many
        """
        self._closing.set()
        if self._thread is not threading.current_thread():
            self._thread.join()
        super().close()
        if self.failed is not None:
            failed, self.failed = self.failed, None
            raise failed

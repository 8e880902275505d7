"""`Memory`: what a graph published, given back to it after a restart under the same identities.

Invariants: events come back with the producer, incarnation and number they had, and are told apart by these, never by
value. After an orderly close a graph may go on in the same life, its numbers continuing; after a crash it cannot know
which numbers were seen, so it begins a new one (S2).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from os import PathLike
from typing import TYPE_CHECKING, Any, Final

from meshfold._native import Event as NativeEvent
from meshfold._native import pack_event, restore
from meshfold.core.closing import Closing
from meshfold.core.errors import SchemaMismatch, WiringError
from meshfold.core.route import Route
from meshfold.core.stores.keyspace import Keyspace

if TYPE_CHECKING:
    from meshfold._native import Queue
    from meshfold.core.graph import Graph

__all__ = ("Memory",)

#: Events kept of one route unless told otherwise.
HISTORY: Final = 8
#: Events written with one fsync at most.
_WRITE_EVENTS: Final = 4096
#: Events that may wait to be written; of more, the oldest are not remembered, and the edge counts them.
_WAITING_MAX: Final = 65_536
_LOOK_S: Final = 0.2


class Memory(Closing):
    """Remembers the newest events of routes in a file.

    :param path: the file, made if it is not there
    :raises StoreUnavailable: if another process has it open, or the system refuses
    :raises StoreDamaged: if the file is no memory
    """

    def __init__(self, path: PathLike[str] | str) -> None:
        self._store = Keyspace(path)
        self._rooms: list[_Room] = []
        self._graph: Graph | None = None
        life = self._store.get("life")
        clean = self._store.get("clean")
        #: producer and incarnation to make the graph with, so that it goes on where it was; None after a crash
        self.life: tuple[bytes, bytes] | None = None
        if life is not None and clean == life:
            self.life = (life[:8], life[8:])

    def resume(self, graph: Graph, *routes: Route[Any]) -> int:
        """Put the remembered events of these routes back, without delivering them; returns how many.

        If the graph was made with `life`, its numbers go on behind the last one it gave.

        :raises WiringError: if the graph has published on a route already, or goes on in a life that ended in a crash
        :raises SchemaMismatch: if a route was remembered with another schema
        """
        life = graph.producer + graph.incarnation
        if self._store.get("life") == life and self.life is None and self._graph is None:
            raise WiringError(
                "the graph goes on in a life that ended without an orderly close",
                fix="make it with a new incarnation: numbers that were given may be unknown here",
                item="incarnation",
            )
        count = 0
        for r in routes:
            if graph.latest(r) is not None or graph.published(r):
                raise WiringError(f"{r.text} has events already", fix="resume before publishing", item=r.text)
            room = self._store.prefix("route", r.address)
            schema = room.get("schema")
            if schema is not None and schema != r.schema.id:
                raise SchemaMismatch(
                    f"{r.text} was remembered with another schema",
                    route=r.text,
                    expected=r.schema.id,
                    found=schema,
                )
            packed = [entry.value for entry in room.scan("event")]
            ours = self.life == (graph.producer, graph.incarnation)
            following = int.from_bytes(room.get("next") or b"", "big") if ours else 1
            count += restore(graph, r, packed, max(following, 1))
        return count

    def remember(self, graph: Graph, *routes: Route[Any], history: int = HISTORY) -> None:
        """Write the events of these routes from now on, on a thread; `flush` waits until they are on the disk.

        :param history: how many of each route are kept
        :raises WiringError: if this memory remembers another graph, or history is below 1
        """
        if history < 1 or (self._graph is not None and self._graph is not graph):
            raise WiringError("a memory keeps at least one event of each route, of one graph", item="memory")
        if self._graph is None:
            self._graph = graph
            with self._store.transaction() as change:
                change.put("life", graph.producer + graph.incarnation)
                change.delete("clean")
        self._rooms += [_Room(graph, self._store.prefix("route", r.address), r, history) for r in routes]

    def records(self, r: Route[Any]) -> Iterator[bytes]:
        """The remembered events of a route, oldest first, as `pack_event` made them."""
        return (entry.value for entry in self._store.prefix("route", r.address).scan("event"))

    def flush(self) -> None:
        """Return when all events published before are on the disk.

        :raises StoreUnavailable: if they cannot be written
        """
        for room in self._rooms:
            room.flush()

    def close(self) -> None:
        """Write what waits, note the orderly end, close the file. Idempotent. Raises as `flush`."""
        try:
            for room in self._rooms:
                room.close()
            if self._graph is not None:
                life = self._graph.producer + self._graph.incarnation
                with self._store.transaction() as change:
                    for room in self._rooms:
                        number = self._graph.published(room.route) + 1
                        change.put(("route", room.route.address, "next"), number.to_bytes(8, "big"))
                    change.put("clean", life)
        finally:
            self._rooms, self._graph = [], None
            self._store.close()


class _Room:
    """The part of a memory that belongs to one route."""

    def __init__(self, graph: Graph, store: Keyspace, route: Route[Any], history: int) -> None:
        self.route = route
        self._graph = graph
        self._store = store
        self._history = history
        self._places: list[int] = [int(key[1]) for key in store.keys("event")]
        store.put("schema", route.schema.id)
        self._queue: Queue = graph.attach_queue(
            route, f"memory {route.text}", "memory", _WAITING_MAX, "drop_oldest", False, None
        )
        self._lock = threading.Lock()
        self._closing = False
        self._failed: Exception | None = None
        self._thread = threading.Thread(target=self._run, name=f"memory {route.text}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._closing and self._queue.open:
            if self._queue.wait(_LOOK_S):
                try:
                    self._write()
                except Exception as error:  # noqa: BLE001 - raised by the next flush or close
                    self._failed = error
                    self._graph.note_failure(self._queue.edge, error)
                    return

    def _write(self) -> None:
        with self._lock:
            while events := self._queue.take(_WRITE_EVENTS):
                self._keep(events)

    def _keep(self, events: list[NativeEvent[Any]]) -> None:
        kept = events[-self._history :]
        place = self._places[-1] + 1 if self._places else 1
        fresh = list(range(place, place + len(kept)))
        places = [*self._places, *fresh]
        old, places = places[: -self._history], places[-self._history :]
        with self._store.transaction() as change:
            for number, event in zip(fresh, kept, strict=True):
                change.put(("event", number), pack_event(event))
            for number in old:
                change.delete(("event", number))
        self._places = places

    def flush(self) -> None:
        if self._failed is not None:
            raise self._failed
        self._write()

    def close(self) -> None:
        self._closing = True
        self._thread.join()
        try:
            self.flush()
        finally:
            self._graph.detach(self._queue.edge)

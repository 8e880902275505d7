"""Reading a route: streams, queued observers, and the closing of edges."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from meshfold.core.closing import Closing
from meshfold.core.columns import Columns, check_columnar, take_columns
from meshfold.core.event import Event
from meshfold.core.flow import EdgeCounters
from meshfold.core.parts import own

if TYPE_CHECKING:
    import asyncio

    from meshfold._native import Queue
    from meshfold.core.graph import Graph
    from meshfold.core.route import Route

__all__ = ("Edge", "Stream", "Subscription")

T = TypeVar("T")
TAKE_MAX = 1024
#: Longest single wait of a dispatcher, in seconds; it waits again.
_WAIT_S = 3600.0


class Edge(Closing):
    """Something attached to a route. A context manager; closing is idempotent and counts what waited as `closed`."""

    def __init__(self, graph: Graph, edge: int, *, sink: Route[Any] | None = None) -> None:
        self._graph = graph
        self._edge = edge
        #: The route it feeds, where it does so itself.
        self.sink = sink
        own(graph, self)

    @property
    def number(self) -> int:
        """Its number in the graph."""
        return self._edge

    def close(self) -> None:
        """Detach."""
        self._graph.detach(self._edge)


class Subscription(Edge):
    """An observer. With a capacity it has a queue and a thread that calls it in order."""

    def __init__(
        self,
        graph: Graph,
        edge: int,
        queue: Queue | None = None,
        call: Callable[[Any], Any] | None = None,
        *,
        batch: bool = False,
        columns_of: Route[Any] | None = None,
    ) -> None:
        super().__init__(graph, edge)
        self._queue = queue
        self._batch = batch
        self._columns_of = columns_of
        if queue is not None and call is not None:
            self._thread = threading.Thread(target=self._dispatch, args=(queue, call), daemon=True)
            self._thread.start()

    def _dispatch(self, queue: Queue, call: Callable[[Any], Any]) -> None:
        # Closing the edge wakes the wait, so nothing is polled.
        while queue.open:
            if queue.wait(_WAIT_S):
                for item in self._take(queue):
                    try:
                        call(item)
                    except Exception as error:  # noqa: BLE001 - a failing observer is isolated (S4)
                        self._graph.note_failure(self._edge, error)

    def _take(self, queue: Queue) -> Sequence[Any]:
        """What waits, as the observer wants it."""
        if self._columns_of is not None:
            columns = take_columns(queue, self._columns_of)
            return [] if columns is None else [columns]
        taken = queue.take(TAKE_MAX)
        return [taken] if self._batch else taken

    @property
    def counters(self) -> EdgeCounters:
        """What the edge counted."""
        return self._graph.counters_of(self._edge)


class Stream(Edge, Generic[T]):
    """Events of a route in order: `async for event in stream`, or `for event in stream.blocking(timeout)`."""

    def __init__(self, graph: Graph, queue: Queue, wake: Wake, r: Route[T]) -> None:
        super().__init__(graph, queue.edge)
        self._queue = queue
        self._route = r
        self._wake = wake

    @property
    def counters(self) -> EdgeCounters:
        """What the edge counted."""
        return self._graph.counters_of(self._edge)

    def __aiter__(self) -> AsyncIterator[Event[T]]:
        return self._events()

    async def _events(self) -> AsyncIterator[Event[T]]:
        waiter = self._wake.listen()
        try:
            while self._queue.open:
                waiter.clear()
                # One at a time: whoever stops here leaves the rest in the queue.
                while (event := self._queue.pop()) is not None:
                    yield event
                if self._queue.pending == 0:
                    await waiter.wait()
        finally:
            self._wake.forget()

    def blocking(self, timeout: float | None = None) -> Iterator[Event[T]]:
        """Iterate without asyncio; ends when nothing came for `timeout` seconds (None waits as long as it takes)."""
        while self._queue.open:
            # As above.
            while (event := self._queue.pop()) is not None:
                yield event
            if not self._queue.wait(3600.0 if timeout is None else timeout) and timeout is not None:
                return

    def columns(self, timeout: float | None = None) -> Iterator[Columns]:
        """As `blocking`, with all that waits as columns: no Python object for each event.

        :raises WiringError: if the values of the route have no columns
        """
        check_columnar(self._route)
        while self._queue.open:
            if not self._queue.wait(3600.0 if timeout is None else timeout):
                if timeout is not None:
                    return
                continue
            columns = take_columns(self._queue, self._route)
            if columns is not None:
                yield columns

    def close(self) -> None:
        """Detach; a waiting `async for` ends."""
        super().close()
        self._wake()


class Wake:
    """Wakes the loop that waits for a queue. Called by the publishing thread, once from empty to non-empty."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event: asyncio.Event | None = None

    def listen(self) -> asyncio.Event:
        """Make the event that wakes the running loop."""
        import asyncio

        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()
        return self._event

    def forget(self) -> None:
        """Nobody waits any more."""
        self._loop = None

    def __call__(self) -> None:
        loop, event = self._loop, self._event
        if loop is not None and event is not None:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(event.set)

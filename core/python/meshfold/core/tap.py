"""`Tap`: events of a route leave the graph as encoded batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from meshfold.core.flow import EdgeCounters
from meshfold.core.stream import Edge

if TYPE_CHECKING:
    from meshfold._native import Batch, Queue
    from meshfold.core.graph import Graph
    from meshfold.core.policy import FarReader

__all__ = ("Tap",)


class Tap(Edge):
    """A bounded ring; when it is full its overflow rule says what goes, counted, or holds producers up."""

    def __init__(self, graph: Graph, queue: Queue) -> None:
        super().__init__(graph, queue.edge)
        self._queue = queue

    @property
    def pending(self) -> int:
        """Events waiting."""
        return self._queue.pending

    def drain(self, max_events: int = 4096, max_bytes: int = 65_536) -> Batch | None:
        """Take and encode events of one incarnation with consecutive numbers; None if nothing waits.

        A single event above `max_bytes` is a batch of its own.
        """
        return self._queue.drain(max_events, max_bytes)

    def tell_credit(self, call: Callable[[], Iterable[FarReader]]) -> None:
        """Let the graph tell, with its own credit, what readers on other nodes still take of what leaves here.

        :param call: asked by whoever asks the graph, in any thread
        """
        self._graph.note_far(self.number, call)

    def counters(self) -> EdgeCounters:
        """What the edge counted; zeros once closed."""
        row = self._queue.counters()
        return EdgeCounters() if row is None else EdgeCounters(*row)

"""Detections: events that are made of some samples and not of others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from meshfold.core.closing import Closing
from meshfold.core.event import Event
from meshfold.core.flow import EdgeCounters
from meshfold.core.graph import Graph
from meshfold.core.route import Route

__all__ = ("DetectionNode",)

T = TypeVar("T")
U = TypeVar("U")


class DetectionNode(Closing, Generic[T, U]):
    """Publishes on `sink` what `detect` makes of a sample of `source`, with the sample as parent; None is no detection.

    An edge of the graph like any other: it has counters, and a `detect` that raises is isolated (S4).
    """

    def __init__(
        self, graph: Graph, source: Route[T], sink: Route[U], detect: Callable[[T], U | None]
    ) -> None:
        def look(event: Event[T]) -> None:
            found = detect(event.value)
            if found is not None:
                graph.publish(sink, found, parents=[event], time=event.time)

        look.__qualname__ = f"detection {source.text} -> {sink.text}"
        self._edge = graph.observe(source, look)

    @property
    def counters(self) -> EdgeCounters:
        """Samples it was offered and looked at."""
        return self._edge.counters

    def close(self) -> None:
        """Detach it. Idempotent."""
        self._edge.close()

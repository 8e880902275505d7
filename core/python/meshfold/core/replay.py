"""What a route retains, read again in the order of numbers, with what is missing (S16)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from meshfold._native import kept as kept_events
from meshfold.core.event import Event

if TYPE_CHECKING:
    from meshfold.core.graph import Graph
    from meshfold.core.route import Route

__all__ = ("Replayed", "replay")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Replayed(Generic[T]):
    """Retained events, oldest first, and the ranges of this graph's own numbers that were asked for and are gone."""

    events: list[Event[T]]
    missing: list[tuple[int, int]]


def replay(graph: Graph, r: Route[T], since: int, until: int | None) -> Replayed[T]:
    """Read what is retained; see `Graph.replay`."""
    kept: list[Any] = [
        event
        for event in kept_events(graph, r)
        if since <= event.seq and (until is None or event.seq <= until)
    ]
    last = graph.published(r) if until is None else min(until, graph.published(r))
    missing: list[tuple[int, int]] = []
    following = max(since, 1)
    for event in kept:
        if (event.producer, event.incarnation) != (graph.producer, graph.incarnation):
            continue
        if event.seq > following:
            missing.append((following, event.seq - 1))
        following = event.seq + 1
    if following <= last:
        missing.append((following, last))
    return Replayed(kept, missing)

"""Ephemeral routes: private, not replayable, and gone with all their state at the end of their lifetime (S42)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

from meshfold._native import end_route, live_until, lives
from meshfold.core.closing import Closing
from meshfold.core.errors import WiringError
from meshfold.core.event import Event
from meshfold.core.route import Route, route
from meshfold.core.schema import Schema

if TYPE_CHECKING:
    from meshfold.core.graph import Graph

__all__ = ("Ephemeral", "make_ephemeral")

T = TypeVar("T")


class Ephemeral(Closing, Generic[T]):
    """One ephemeral route, held by its owner. Made by `Graph.ephemeral`.

    Its events are tainted DET_NONREPLAYABLE, or DET_SEEDED_ENTROPY where the seed is recorded with them. The graph retains
    none of them: `graph.latest` answers None, a new observer gets nothing of before; only `latest` of this object knows the
    last one. At the end everything attached to the route is detached. The engine keeps the time and marks the events, whoever
    publishes them.
    """

    def __init__(self, graph: Graph, r: Route[T], seed: int | None) -> None:
        self.route = r
        self.seed = seed
        self._graph = graph
        self._last: Event[T] | None = None

    @property
    def open(self) -> bool:
        """Whether its lifetime lasts."""
        return lives(self._graph, self.route)

    def publish(self, value: T, **envelope: Any) -> Event[T]:
        """Publish a value with the taint of its origin; `correlation` carries the recorded seed unless it is given.

        :raises WiringError: once its lifetime is over
        :raises EncodeError: if the value does not fit
        """
        if not self.open:
            raise WiringError(
                f"{self.route.text} has ended", fix="make another ephemeral route", item=self.route.text
            )
        if self.seed is not None:
            envelope.setdefault("correlation", f"seed:{self.seed}")
        self._last = self._graph.publish(self.route, value, **envelope)
        return self._last

    @property
    def latest(self) -> Event[T] | None:
        """The last event, for the owner alone; None before the first and after the end."""
        return self._last if self.open else None

    def promote(self, to: Route[T]) -> Event[T]:
        """Copy the last value to a normal route, with this event as its parent and so with its taints.

        :raises WiringError: if there is nothing to copy, or `to` is ephemeral itself
        :raises SchemaMismatch: if `to` carries another schema
        """
        last = self.latest
        if last is None:
            raise WiringError(
                f"{self.route.text} holds nothing to promote", fix="publish first", item=self.route.text
            )
        if to.addr.layer == "ephemeral":
            raise WiringError(f"{to.text} is ephemeral, too", fix="promote to a normal route", item=to.text)
        return self._graph.publish(to, last.value, parents=[last], taints=last.taints)

    def close(self) -> None:
        """End it now: whatever is attached is detached, and nothing is kept. Idempotent."""
        self._last = None
        end_route(self._graph, self.route)


def make_ephemeral(
    graph: Graph, owner: str, family: str, stream: str, schema: Schema[T], ttl_s: float, seed: int | None
) -> Ephemeral[T]:
    """Make one; see `Graph.ephemeral`."""
    if not 0 < ttl_s <= 31_536_000:
        raise WiringError(f"a lifetime of {ttl_s} s", fix="more than 0, at most a year", item="ttl_s")
    made = route(owner, family, stream, schema=schema, layer="ephemeral")
    if graph.route(made.tag) is not None and graph.published(made):
        raise WiringError(f"{made.text} was used before", fix="choose another stream", item=made.text)
    live_until(graph, made, graph.now_ns() + int(ttl_s * 1e9), seed is not None)
    return Ephemeral(graph, made, seed)

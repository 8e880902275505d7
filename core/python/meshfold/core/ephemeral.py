"""Ephemeral routes: private, not replayable, and gone with all their state at the end of their lifetime (S42)."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from meshfold.core.errors import WiringError
from meshfold.core.event import Event
from meshfold.core.registry import Taint
from meshfold.core.route import Route, route
from meshfold.core.schema import Schema

if TYPE_CHECKING:
    from meshfold.core.graph import Graph
    from meshfold.core.operator import Operator

__all__ = ("Ephemeral", "make_ephemeral")

T = TypeVar("T")


class Ephemeral(Generic[T]):
    """One ephemeral route, held by its owner. Made by `Graph.ephemeral`.

    Its events are tainted DET_NONREPLAYABLE, or DET_SEEDED_ENTROPY where the seed is recorded with them. The graph retains
    none of them: `graph.latest` answers None, a new observer gets nothing of before; only `latest` of this object knows the
    last one. At the end everything attached to the route is detached.
    """

    def __init__(self, graph: Graph, r: Route[T], seed: int | None) -> None:
        self.route = r
        self.seed = seed
        self._graph = graph
        self._last: Event[T] | None = None
        self._timer: list[Operator] = []
        self._open = True

    @property
    def open(self) -> bool:
        """Whether its lifetime lasts."""
        return self._open

    def publish(self, value: T, **envelope: Any) -> Event[T]:
        """Publish a value with the taint of its origin; `correlation` carries the recorded seed unless it is given.

        :raises WiringError: once its lifetime is over
        :raises EncodeError: if the value does not fit
        """
        if not self._open:
            raise WiringError(
                f"{self.route.text} has ended", fix="make another ephemeral route", item=self.route.text
            )
        taint = Taint.DET_NONREPLAYABLE if self.seed is None else Taint.DET_SEEDED_ENTROPY
        taints = [*envelope.pop("taints", ()), taint]
        if self.seed is not None:
            envelope.setdefault("correlation", f"seed:{self.seed}")
        self._last = self._graph.publish(self.route, value, taints=taints, **envelope)
        return self._last

    @property
    def latest(self) -> Event[T] | None:
        """The last event, for the owner alone; None before the first and after the end."""
        return self._last

    def promote(self, to: Route[T]) -> Event[T]:
        """Copy the last value to a normal route, with this event as its parent and so with its taints.

        :raises WiringError: if there is nothing to copy, or `to` is ephemeral itself
        :raises SchemaMismatch: if `to` carries another schema
        """
        if self._last is None:
            raise WiringError(
                f"{self.route.text} holds nothing to promote", fix="publish first", item=self.route.text
            )
        if to.addr.layer == "ephemeral":
            raise WiringError(f"{to.text} is ephemeral, too", fix="promote to a normal route", item=to.text)
        return self._graph.publish(to, self._last.value, parents=[self._last], taints=self._last.taints)

    def ends_with(self, operator: Operator) -> None:
        """Take an operator off when this ends."""
        self._timer.append(operator)

    def close(self) -> None:
        """End it now: whatever is attached is detached, and nothing is kept. Idempotent."""
        if not self._open:
            return
        self._open = False
        self._last = None
        for operator in self._timer:
            operator.close()
        for number, _, _, r, _ in self._graph.edge_rows():
            if r == self.route:
                self._graph.detach(number)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def make_ephemeral(
    graph: Graph, owner: str, family: str, stream: str, schema: Schema[T], ttl_s: float, seed: int | None
) -> Ephemeral[T]:
    """Make one; see `Graph.ephemeral`."""
    if not 0 < ttl_s <= 31_536_000:
        raise WiringError(f"a lifetime of {ttl_s} s", fix="more than 0, at most a year", item="ttl_s")
    made = route(owner, family, stream, schema=schema, layer="ephemeral")
    if graph.route(made.tag) is not None and graph.published(made):
        raise WiringError(f"{made.text} was used before", fix="choose another stream", item=made.text)
    graph.configure_retention(made, history=0)
    end = route(owner, family, stream, schema=Schema.bool(), plane="state", layer="internal", variant="event")
    graph.configure_retention(end, history=0)
    held = Ephemeral(graph, made, seed)
    # Nobody publishes on the end itself: a watchdog that is never reset fires once, after the lifetime.
    never = route(
        owner, family, stream, schema=Schema.bool(), plane="state", layer="internal", variant="meta"
    )
    held.ends_with(graph.watchdog(never, end, after=ttl_s, pulse=True, name=f"lifetime {made.text}"))
    graph.observe(end, lambda event: held.close(), replay_latest=False)
    return held

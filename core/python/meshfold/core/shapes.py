"""Shapes: how events of several routes are spread, merged, copied and voted on (S33).

They work on routes, wherever these lead: a route that a bridge carries makes the shape one over the mesh.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from meshfold._native import GraphBase
from meshfold.core.errors import WiringError
from meshfold.core.operator import Operator
from meshfold.core.pipeline import Pipeline
from meshfold.core.route import Route, require_same_schema
from meshfold.core.stage import Port, Stage
from meshfold.core.stream import Edge

if TYPE_CHECKING:
    from meshfold.core.graph import Graph

__all__ = ("FanInOrder", "Shapes")

T = TypeVar("T")
FanInOrder = Literal["timestamp", "priority", "partition", "unsafe"]
Ack = Literal["all", "quorum"]

_ONE_SCHEMA = "use one schema for the whole shape"
#: Events that may wait in a merge unless told otherwise.
BUDGET_EVENTS = 4096


class Shapes(GraphBase):
    """The part of `Graph` that installs shapes."""

    def broadcast(self, source: Route[T], sinks: Sequence[Route[T]]) -> list[Edge]:
        """Copy each event of `source` to every sink, losing none. Order holds per sink, not between sinks.

        :raises SchemaMismatch: if a sink has another schema
        :raises WiringError: without a sink, or if it would close a cycle; then nothing is installed
        """
        _some(sinks, "sinks")
        edges: list[Edge] = []
        try:
            for sink in sinks:
                edges.append(_whole(self).connect(source, sink))  # noqa: PERF401 - what was made so far is undone
        except BaseException:
            for edge in edges:
                edge.close()
            raise
        return edges

    def tee(self, source: Route[T], side: Callable[[Any], Any], *, capacity: int = 1024) -> Edge:
        """Give a side reader a copy of each event without holding up the main flow: when it is slow, it loses the oldest.

        :param side: called in a thread of its own
        :param capacity: events that may wait for it; losses are counted on its edge
        :raises WiringError: for a capacity below 1
        """
        return _whole(self).observe(source, side, replay_latest=False, capacity=capacity)

    def fan_in(
        self,
        sources: Sequence[Route[T]],
        sink: Route[T],
        *,
        order: FanInOrder,
        wait: float = 1.0,
        budget: int = BUDGET_EVENTS,
        late: Route[T] | None = None,
        name: str | None = None,
    ) -> Operator:
        """Merge several routes into one. The order has to be chosen:

        - `timestamp`: by device time; an event waits until every source has got as far or has been silent for `wait`. One
          that comes too late for that goes to `late`, counted as `late`.
        - `priority`: of events within `wait` of each other, those of earlier sources go first.
        - `partition`: a partition key belongs to the source it first came from; from another it is refused, counted.
        - `unsafe`: as they come, tainted ORDER_POSSIBLY_OUT_OF_ORDER.

        :param wait: seconds
        :param budget: events that may wait; beyond it the first in order goes early, tainted
        :raises SchemaMismatch: if a source has another schema than the sink
        :raises WiringError: for an unknown order, without or with more than 64 sources, or if it would close a cycle
        """
        _some(sources, "sources")
        for source in sources:
            require_same_schema(source, sink, _ONE_SCHEMA)
        config = {"sources": len(sources), "order": order, "budget": budget, "wait_ns": int(wait * 1e9)}
        return self._merge("fan_in", config, sources, {} if late is None else {"late": late}).into(
            sink, name=name
        )

    def gather(
        self,
        sources: Sequence[Route[T]],
        sink: Route[T],
        *,
        skew: float,
        budget: int = BUDGET_EVENTS,
        late: Route[T] | None = None,
    ) -> Operator:
        """Merge by device time, the counterpart of `scatter`: `fan_in` in `timestamp` order.

        :param skew: seconds that a source may be behind the others before they stop waiting for it
        :raises SchemaMismatch: as `fan_in`
        :raises WiringError: as `fan_in`
        """
        return self.fan_in(
            sources, sink, order="timestamp", wait=skew, budget=budget, late=late, name=f"gather {sink.text}"
        )

    def scatter(
        self,
        source: Route[T],
        sinks: Sequence[Route[T]],
        *,
        by: Callable[[T], int] | Literal["key", "value", "turns"] = "key",
        name: str | None = None,
    ) -> Operator:
        """Give each event to exactly one sink.

        By the partition key or the value, a stable hash decides, so that a key keeps its sink over restarts and hosts; an
        event without one is refused, counted as a failure of the operator. A function gives the sink's number itself.

        :raises SchemaMismatch: if a sink has another schema
        :raises WiringError: for an unknown rule, without or with more than 64 sinks, or if it would close a cycle
        """
        _some(sinks, "sinks")
        for sink in sinks:
            require_same_schema(source, sink, _ONE_SCHEMA)
        pipe: Pipeline[Any] = Pipeline(_whole(self), source, label="scatter")
        if callable(by):
            place = by

            def place_of(value: T) -> tuple[int, T]:
                return place(value), value

            pipe = pipe.map(place_of)
        config = {"ways": len(sinks), "by": "given" if callable(by) else by}
        sides = {str(number): sink for number, sink in enumerate(sinks)}
        return pipe.stage(Stage("scatter", config, (), sides)).install(name=name)

    def quorum(
        self,
        members: Sequence[Route[Any]],
        result: Route[Any],
        *,
        threshold: int,
        timeout: float,
        timed_out: Route[int] | None = None,
        by: Literal["correlation", "key"] = "correlation",
        name: str | None = None,
    ) -> Operator:
        """Emit the last vote once at least `threshold` distinct members voted for the same proposal in time.

        A vote is an event on a member's route; its correlation id (or key) names the proposal. Each proposal has one end:
        the result, with all votes as parents, or its number of votes on `timed_out`. A member's second vote and votes that
        come after the end change nothing.

        :param timeout: seconds from the first vote
        :raises WiringError: without or with more than 64 members, for a threshold above their number, or a closed cycle
        """
        _some(members, "members")
        for member in members:
            require_same_schema(member, result, _ONE_SCHEMA)
        config = {
            "members": len(members),
            "threshold": threshold,
            "timeout_ns": int(timeout * 1e9),
            "by": by,
        }
        sides: dict[str, Route[Any]] = {} if timed_out is None else {"timeout": timed_out}
        return self._merge("quorum", config, members, sides).into(result, name=name)

    def replicate(
        self,
        source: Route[T],
        replicas: Sequence[Route[T]],
        acks: Sequence[Route[Any]],
        done: Route[Any],
        *,
        policy: Ack | int,
        timeout: float,
        failed: Route[int] | None = None,
    ) -> list[Edge]:
        """Copy each event to every replica; `done` says when enough of them have acknowledged it.

        An acknowledgement is an event on a replica's `acks` route with the correlation id of what it acknowledges.

        :param policy: `all`, `quorum` (more than half), or a number of replicas
        :param timeout: seconds from the first acknowledgement; too few by then give their number on `failed`
        :raises SchemaMismatch: if a replica has another schema than the source
        :raises WiringError: unless every replica has its route for acknowledgements, or as `quorum`
        """
        if len(replicas) != len(acks):
            raise WiringError(
                f"{len(replicas)} replicas and {len(acks)} routes for acknowledgements",
                fix="give one for each",
                item="acks",
            )
        counts = {"all": len(acks), "quorum": len(acks) // 2 + 1}
        threshold = counts.get(policy, 0) if isinstance(policy, str) else policy
        vote = self.quorum(acks, done, threshold=threshold, timeout=timeout, timed_out=failed)
        try:
            return [vote, *self.broadcast(source, replicas)]
        except BaseException:
            vote.close()
            raise

    def _merge(
        self, kind: str, config: dict[str, Any], sources: Sequence[Route[Any]], sides: dict[str, Route[Any]]
    ) -> Pipeline[Any]:
        ports = tuple(Port(number, source) for number, source in enumerate(sources) if number)
        stage = Stage(kind, config, ports, sides)
        return Pipeline(_whole(self), sources[0], (stage,), label=kind)


def _whole(graph: GraphBase) -> Graph:
    return cast("Graph", graph)


def _some(routes: Sequence[Route[Any]], what: str) -> None:
    if not routes:
        raise WiringError(f"no {what}", fix="give at least one", item=what)
    if len({r.address for r in routes}) != len(routes):
        raise WiringError(f"a route stands twice among the {what}", fix="name each once", item=what)

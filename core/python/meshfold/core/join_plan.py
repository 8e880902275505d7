"""Choosing how two routes are joined, running what was chosen, and measuring it (S27)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from meshfold.core.errors import WiringError
from meshfold.core.expressions import Expr
from meshfold.core.links import Link
from meshfold.core.operator import operator_rows
from meshfold.core.pipeline import Pipeline
from meshfold.core.route import Route, route
from meshfold.core.stage import Stage

if TYPE_CHECKING:
    from meshfold.core.graph import Graph
    from meshfold.core.operator import Operator

__all__ = ("JoinExplanation", "JoinInput", "JoinPlan", "JoinRecord")


@dataclass(frozen=True, slots=True)
class JoinInput:
    """One side of a join, and what is guaranteed of it.

    :param key: the partition key as an expression; None: the events' own key
    :param partitioned_by: names what its events are already partitioned by; None: nothing
    :param materialized: it is a state: its latest event per key stands for all
    :param bounded: it ends, or only its latest events matter
    :param mirrored: it is small enough to be copied to wherever the other side is
    :param rekey: its events may be given another key
    :param clock: the clock domain of its event times
    :param link: what carries it here; None: it is made here
    """

    route: Route[Any]
    key: Expr | None = None
    partitioned_by: str | None = None
    materialized: bool = False
    bounded: bool = False
    mirrored: bool = False
    rekey: bool = True
    clock: str = "system"
    link: Link | None = None


@dataclass(frozen=True, slots=True)
class JoinExplanation:
    """What a plan does and what running it showed. `skew` is the largest partition over the mean; 1 is even."""

    name: str
    kind: str
    reason: str
    routes: tuple[str, ...]
    items: int = 0
    largest_partition_size: int = 0
    hot_key_frequency: float = 0.0
    skew: float = 1.0


@dataclass(slots=True)
class JoinRecord:
    """What a graph remembers of a plan: no object that would hold the graph."""

    name: str
    kind: str
    reason: str
    routes: tuple[str, ...]
    partitions: int
    operators: list[int] = field(default_factory=list[int])

    def explain(self, graph: Graph) -> JoinExplanation:
        """What it does, why, and how evenly its keys fall."""
        gauges = [
            stage.gauges
            for info in operator_rows(graph)
            if info.id in self.operators
            for stage in info.stages
            if stage.kind == "partition"
        ]
        worst = max(gauges, key=lambda gauge: gauge["largest"], default=None)
        if worst is None or worst["items"] == 0:
            return JoinExplanation(self.name, self.kind, self.reason, self.routes)
        items = worst["items"]
        return JoinExplanation(
            self.name,
            self.kind,
            self.reason,
            self.routes,
            items,
            worst["largest"],
            worst["hottest"] / items,
            worst["largest"] * self.partitions / items,
        )


class JoinPlan:
    """A chosen join. `install` runs it; `explain` tells what was measured, as the query `explain_join` does by its name."""

    def __init__(
        self, graph: Graph, name: str, left: JoinInput, right: JoinInput, within: int | None, partitions: int
    ) -> None:
        self.name, self.left, self.right = name, left, right
        self._graph, self._within, self._partitions = graph, within, partitions
        self.kind, self.reason = _choose(left, right, within)
        self._operators: list[Operator] = []
        inner = {
            "local_keyed": (),
            "lookup": (),
            "broadcast_mirror": ("right",),
            "repartition": ("left", "right"),
        }
        sides = {"left": left, "right": right}
        self._inner = {side: _internal(name, side, sides[side].route) for side in inner[self.kind]}
        routes = tuple(r.text for r in (left.route, right.route, *self.routes))
        self.record = JoinRecord(name, self.kind, self.reason, routes, partitions)

    @property
    def routes(self) -> tuple[Route[Any], ...]:
        """The visible routes between its operators."""
        return tuple(self._inner.values())

    def install(self, combine: Callable[..., Any] | Expr | None, sink: Route[Any]) -> list[Operator]:
        """Run it: results go to `sink`. Returns its operators, each visible and removable.

        :raises WiringError: if one of its name runs already, or it would close a cycle
        """
        if self._operators or self._graph.join_runs(self.name):
            raise WiringError(f"the join {self.name} runs already", fix="close it first", item=self.name)
        self._graph.remember_join(self.record)
        left, right = self.left, self.right
        try:
            if "right" in self._inner:
                self._add(self._measured(right), self._inner["right"], f"{self.name} right")
                right = JoinInput(self._inner["right"])
            if "left" in self._inner:
                self._add(self._measured(left), self._inner["left"], f"{self.name} left")
                pipe: Pipeline[Any] = Pipeline(self._graph, self._inner["left"], label="join")
            else:
                pipe = self._measured(left)
            self._add(self._joined(pipe, right, combine), sink, self.name)
        except WiringError:
            self.close()
            raise
        return list(self._operators)

    def _add(self, pipe: Pipeline[Any], sink: Route[Any], name: str) -> None:
        operator = pipe.into(sink, name=name)
        self._operators.append(operator)
        self.record.operators.append(operator.id)

    def _measured(self, side: JoinInput) -> Pipeline[Any]:
        by = None if side.key is None else side.key.form
        replay = side is self.right or self._within is None
        pipe: Pipeline[Any] = Pipeline(self._graph, side.route, replay=replay, label="join")
        return pipe.stage(Stage("partition", {"partitions": self._partitions, "by": by}))

    def _joined(
        self, pipe: Pipeline[Any], right: JoinInput, combine: Callable[..., Any] | Expr | None
    ) -> Pipeline[Any]:
        # The left side has its key by now; the right side's is computed where it enters.
        own = Expr({"key": True})
        by = (own, right.key if right.key is not None else own)
        if self._within is not None:
            return pipe.interval_join(right.route, self._within, combine, partition_by=by)
        if self.kind in ("lookup", "broadcast_mirror"):
            return pipe.lookup_join(right.route, combine, partition_by=by)
        return pipe.join_latest(right.route, combine=combine, partition_by=by)

    def explain(self) -> JoinExplanation:
        """What it does, why, and how evenly its keys fall."""
        return self.record.explain(self._graph)

    def close(self) -> None:
        """Take its operators off. Idempotent."""
        for operator in self._operators:
            operator.close()
        self._operators = []
        self.record.operators.clear()


def _internal(name: str, side: str, r: Route[Any]) -> Route[Any]:
    return route(r.addr.owner, "join", f"{name}-{side}", schema=r.schema, layer="internal")


def _carried(left: JoinInput, right: JoinInput) -> None:
    """What comes over a link comes as the join needs it.

    :raises WiringError: naming what the link lacks
    """
    # A state has to be whole, with what was before this reader came; what is spread anew has to be held up.
    if right.materialized or right.mirrored:
        needed = [(right, "replayable")]
    else:
        needed = [(left, "credited"), (right, "credited")]
    for side, needs in needed:
        if side.link is not None and not getattr(side.link.capabilities, needs):
            raise WiringError(
                f"{side.route.text} comes over link {side.link.name}, which is not {needs}",
                fix="join where it is made, or carry it over another link",
                item=side.link.name,
            )


def _choose(left: JoinInput, right: JoinInput, within: int | None) -> tuple[str, str]:
    """The cheapest kind that is right: local, then lookup, then mirror, then repartition."""
    if left.clock != right.clock:
        raise WiringError(
            f"{left.route.text} is timed by {left.clock}, {right.route.text} by {right.clock}",
            fix="align the clocks first, with a repair of the time domain",
            item="clock",
        )
    if within is None and not (left.bounded or right.bounded or left.materialized or right.materialized):
        raise WiringError(
            "both sides of the join are unbounded", fix="join within a time, or materialize one", item="join"
        )
    if left.partitioned_by is not None and left.partitioned_by == right.partitioned_by:
        return "local_keyed", f"both sides are partitioned by {left.partitioned_by}"
    _carried(left, right)
    if right.materialized:
        return "lookup", f"{right.route.text} is materialized"
    if right.mirrored:
        return "broadcast_mirror", f"{right.route.text} is small enough to be mirrored"
    if not (left.rekey and right.rekey):
        raise WiringError(
            "the keys of the sides differ, and neither a new key nor a mirror is allowed",
            fix="allow rekey on both sides, or mirror the right one",
            item="key",
        )
    return "repartition", "the sides are partitioned differently"

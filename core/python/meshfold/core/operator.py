"""Installed operators: what `topology` shows of them, their counters, their state, and taking them off."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from meshfold.core.errors import WiringError
from meshfold.core.flow import EdgeCounters
from meshfold.core.stage import Fold
from meshfold.core.stream import Edge

if TYPE_CHECKING:
    from meshfold.core.graph import Graph
    from meshfold.core.route import Route

__all__ = ("Operator", "OperatorInfo", "StageInfo")


@dataclass(frozen=True, slots=True)
class StageInfo:
    """One stage: its kind, its configuration, and figures of the moment such as depth or credit."""

    kind: str
    config: dict[str, Any]
    gauges: dict[str, int]


@dataclass(frozen=True, slots=True)
class OperatorInfo:
    """An installed operator as listings, manifests and diagrams show it.

    `inputs` are (route, stage, port), `sides` (stage, output, route). `dropped` counts what was lost inside, by reason.
    """

    id: int
    name: str
    label: str
    stages: tuple[StageInfo, ...]
    inputs: tuple[tuple[Route[Any], int, str], ...]
    sink: Route[Any] | None
    sides: tuple[tuple[int, str, Route[Any]], ...] = ()
    emitted: int = 0
    failed: int = 0
    dropped: dict[str, int] = field(default_factory=dict[str, int])


class Operator(Edge):
    """One installed operator. A context manager; closing takes it and all its inputs off, and is idempotent."""

    def __init__(self, graph: Graph, number: int, folds: Sequence[Fold] = ()) -> None:
        super().__init__(graph, number)
        self._folds = tuple(folds)

    @property
    def id(self) -> int:
        """Its number in the graph."""
        return self._edge

    def describe(self) -> OperatorInfo:
        """What `topology()` shows of it.

        :raises WiringError: if it was closed
        """
        for info in operator_rows(self._graph):
            if info.id == self._edge:
                return info
        raise WiringError("this operator was closed", fix="install it again", item="operator")

    @property
    def counters(self) -> EdgeCounters:
        """What its inputs counted together (S43); zeros once it is closed."""
        inputs = [row for row in self._graph.edges() if row.operator == self._edge]
        return sum_counters([row.counters for row in inputs])

    def checkpoint(self) -> list[bytes]:
        """The state of its stages, as bytes that `restore` of an operator with the same stages takes.

        :raises WiringError: if it was closed, or holds values that only this process knows
        """
        return [*self._graph.save_node(self._edge), *(fold.save() for fold in self._folds)]

    def restore(self, state: Sequence[bytes]) -> None:
        """Take over a checkpoint.

        :raises WiringError: if it was closed or the state is not one of these stages; then nothing has changed
        """
        own = len(state) - len(self._folds)
        before = [fold.save() for fold in self._folds]
        try:
            for fold, data in zip(self._folds, state[max(own, 0) :], strict=False):
                fold.load(data)
            self._graph.load_node(self._edge, list(state[: max(own, 0)]))
        except WiringError:
            for fold, data in zip(self._folds, before, strict=True):
                fold.load(data)
            raise


def sum_counters(rows: Sequence[EdgeCounters]) -> EdgeCounters:
    """Add counters up."""
    dropped: dict[str, int] = {}
    for row in rows:
        for reason, count in row.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
    return EdgeCounters(
        sum(row.offered for row in rows),
        sum(row.delivered for row in rows),
        dropped,
        sum(row.pending for row in rows),
        sum(row.replayed for row in rows),
    )


def operator_rows(graph: Graph) -> list[OperatorInfo]:
    """All operators of a graph, in the order they were installed."""
    found: list[OperatorInfo] = []
    for number, name, label, stages, inputs, sink, sides, emitted, failed, dropped, _ in graph.node_rows():
        described = tuple(
            StageInfo(kind, json.loads(config) or {}, gauges) for kind, config, gauges in stages
        )
        found.append(
            OperatorInfo(
                number, name, label, described, tuple(inputs), sink, tuple(sides), emitted, failed, dropped
            )
        )
    return found

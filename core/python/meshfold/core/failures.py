"""Failures of observers and operators: counted, kept, and told on the debug plane for who listens (S4)."""

from __future__ import annotations

import contextlib
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec
from meshfold._native import GraphBase
from meshfold.core.errors import MeshfoldError
from meshfold.core.route import Route, route
from meshfold.core.schema import Schema

if TYPE_CHECKING:
    from meshfold.core.graph import Graph

__all__ = ("Failing", "Failure")

#: Failures kept for `failures()`; all are counted.
FAILURES_MAX: Final = 256
_OWNER_BYTES_MAX: Final = 40


class Failure(msgspec.Struct, frozen=True):
    """One failure: of what, on which route (empty for an operator), what it said, and how many there were before it."""

    name: str
    route: str
    error: str
    number: int


class Failing(GraphBase):
    """The part of `Graph` that keeps and tells failures."""

    _own_failures: list[tuple[str, str]]
    _failure_count: int
    _failure_route: Route[Failure] | None

    def begin_failures(self) -> None:
        """Begin with none."""
        self._own_failures, self._failure_count = [], 0
        self._failure_route = None

    def failures(self) -> tuple[int, list[tuple[str, str]]]:
        """How often observers and operators failed, and the last of them as (name, error) (S4)."""
        count, rows = self.failure_rows()
        return count + self._failure_count, [*rows, *self._own_failures]

    def failures_route(self) -> Route[Failure]:
        """The debug route of this graph's failures; from the first call on each one is published there as it happens.

        Failures of who reads it are counted and not told there. Where the graph has no room, one is kept in `failures()` only.
        """
        if self._failure_route is None:
            owner = _graph(self).name.encode()[:_OWNER_BYTES_MAX].decode(errors="ignore") or "graph"
            schema = Schema.json(Failure)
            made = route(owner, "graph", "failures", schema=schema, plane="debug", variant="debug")
            self.declare(made)
            self._failure_route = made
            self.on_failure(partial(_tell, weakref.ref(self)))
        return self._failure_route

    def note_failure(self, edge: int, error: Exception) -> None:
        """Count the failure of a queued observer."""
        self._failure_count += 1
        name, at = str(edge), ""
        for number, title, _, r, _ in self.edge_rows():
            if number == edge:
                name, at = title, r.text
        text = f"{type(error).__name__}: {error}"
        self._own_failures = [*self._own_failures[-(FAILURES_MAX - 1) :], (name, text)]
        if self._failure_route is not None:
            self.tell_failure(name, at, text)

    def tell_failure(self, name: str, at: str, error: str) -> None:
        """Publish a failure on the debug plane."""
        told = self._failure_route
        if told is None or at == told.text:
            return
        # Where there is no room it stays in `failures()`, which counts it.
        with contextlib.suppress(MeshfoldError):
            self.try_publish(told, Failure(name, at, error, self.failures()[0]))


def _tell(held: weakref.ref[Failing], name: str, at: str, error: str) -> None:
    graph = held()
    if graph is not None:
        graph.tell_failure(name, at, error)


def _graph(graph: Any) -> Graph:
    return cast("Graph", graph)

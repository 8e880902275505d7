"""Pipelines: maps and filters run as one node of the graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from meshfold.core.route import Route
from meshfold.core.stream import Edge

if TYPE_CHECKING:
    from meshfold.core.graph import Graph

__all__ = ("Pipeline",)

T = TypeVar("T")
U = TypeVar("U")


class Pipeline(Generic[T]):
    """A description that grows; nothing runs until `into` or `observe` ends it. Immutable."""

    def __init__(
        self, graph: Graph, source: Route[Any], stages: tuple[tuple[bool, Callable[[Any], Any]], ...]
    ) -> None:
        self._graph = graph
        self._source = source
        self._stages = stages

    def map(self, f: Callable[[T], U]) -> Pipeline[U]:
        """Replace each value by `f(value)`. An `f` that raises discards the value; the error is counted (S4)."""
        return Pipeline(self._graph, self._source, (*self._stages, (False, f)))

    def filter(self, f: Callable[[T], bool]) -> Pipeline[T]:
        """Keep values for which `f(value)` is true."""
        return Pipeline(self._graph, self._source, (*self._stages, (True, f)))

    def into(self, sink: Route[T]) -> Edge:
        """Publish the results on `sink`: each with its source event as parent, in its trace, with its taints.

        :raises WiringError: if it would close a cycle
        """
        name = f"pipe {self._source.text} -> {sink.text}"
        return Edge(self._graph, self._graph.attach_pipe(self._source, list(self._stages), sink, None, name))

    def observe(self, fn: Callable[[T], Any]) -> Edge:
        """Call `fn` with each resulting value, inside the turn."""
        name = f"pipe {self._source.text}"
        return Edge(self._graph, self._graph.attach_pipe(self._source, list(self._stages), None, fn, name))

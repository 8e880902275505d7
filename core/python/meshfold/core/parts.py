"""Named parts of a graph: what is installed inside a `with` block belongs together and ends together."""

from __future__ import annotations

from contextvars import ContextVar, Token
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from meshfold.core.graph import Graph
    from meshfold.core.route import Route
    from meshfold.core.stream import Edge

__all__ = ("Part", "own")


#: The part that is being built in this thread or task.
_building: ContextVar[Part | None] = ContextVar("meshfold part", default=None)


class Part:
    """A part of a graph by name: made by `Graph.part`, built inside its `with` block. Inner parts have names like `outer/inner`.

    Leaving the block ends the building, not the part: what was installed runs on until `close`, which detaches it in the
    reverse order. A part built inside another belongs to that one. An error inside the block closes what was installed.
    """

    def __init__(self, graph: Graph, name: str) -> None:
        self._graph = graph
        self.name = name
        self.parts: list[Part] = []
        self._edges: list[Edge] = []
        self._token: Token[Part | None] | None = None

    def __enter__(self) -> Self:
        outer = _building.get()
        if outer is not None and outer._graph is self._graph:
            self.name = f"{outer.name}/{self.name}"
            outer.parts.append(self)
        self._token = _building.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            _building.reset(self._token)
            self._token = None
        if error is not None:
            self.close()

    def _numbers(self) -> set[int]:
        inner = (number for part in self.parts for number in part._numbers())
        return {edge.number for edge in self._edges} | set(inner)

    @property
    def input_routes(self) -> tuple[Route[Any], ...]:
        """Routes that enter the part: read inside it and not derived there, by address."""
        read, made = self._flow()
        return tuple(sorted(read - made, key=lambda r: r.address))

    @property
    def output_routes(self) -> tuple[Route[Any], ...]:
        """Routes that the part derives, by address."""
        return tuple(sorted(self._flow()[1], key=lambda r: r.address))

    def _flow(self) -> tuple[set[Route[Any]], set[Route[Any]]]:
        mine = self._numbers()
        read: set[Route[Any]] = set()
        made: set[Route[Any]] = set()
        for operator in self._graph.operators():
            if operator.id in mine:
                read |= {r for r, _, _ in operator.inputs}
                made |= {r for _, _, r in operator.sides}
                made |= {operator.sink} if operator.sink is not None else set()
        for number, _, _, r, _ in self._graph.edge_rows():
            if number in mine:
                read.add(r)
        made |= {edge.sink for edge in self._edges if edge.sink is not None}
        for part in self.parts:
            made |= part._flow()[1]
        return read, made

    def take(self, graph: Graph, edge: Edge) -> None:
        """Note an edge that was installed in the block; one of another graph is none of this part's."""
        if graph is self._graph:
            self._edges.append(edge)

    def close(self) -> None:
        """Detach everything that was installed in it, inner parts included. Idempotent."""
        for part in reversed(self.parts):
            part.close()
        while self._edges:
            self._edges.pop().close()

    def __repr__(self) -> str:
        return f"<Part {self.name} of {len(self._edges)} edges>"


def own(graph: Graph, edge: Edge) -> None:
    """Note that an edge was installed: it belongs to the part that is being built, if one is."""
    part = _building.get()
    if part is not None:
        part.take(graph, edge)

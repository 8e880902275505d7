"""Everything about who and what touched a route, in one answer (S31)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from meshfold._native import kept
from meshfold.core.access import AuditEntry
from meshfold.core.bounds import TaintBound
from meshfold.core.flow import EdgeInfo
from meshfold.core.route import Route

if TYPE_CHECKING:
    from meshfold.core.graph import Graph

__all__ = ("RouteAudit", "RouteWriter", "audit_of")


@dataclass(frozen=True, slots=True)
class RouteWriter:
    """Who writes or wrote a route: `publish` of this graph, an operator, a connection, or a `remote` producer.

    :param last: the newest number that it gave; of operators and connections the route's own
    """

    name: str
    kind: str
    last: int


@dataclass(frozen=True, slots=True)
class RouteAudit:
    """A route's writers, readers, bindings, taints, repairs and audit entries.

    :param requests: request routes of the write bindings that it belongs to
    :param repairs: notes of the repairs in what is retained, with the ids of their events
    :param entries: each act and refusal by itself, oldest first; equal ones are not counted together
    """

    route: str
    writers: tuple[RouteWriter, ...]
    readers: tuple[EdgeInfo, ...]
    requests: tuple[str, ...]
    taints: TaintBound
    repairs: tuple[tuple[str, str], ...]
    entries: tuple[AuditEntry, ...]


def audit_of(graph: Graph, r: Route[Any]) -> RouteAudit:
    """Collect it; see `Graph.route_audit`."""
    from meshfold.core.query.rows import WriterRow

    graph.declare(r)
    rows = graph.query("writers", route=r.address, limit=1000).rows
    bindings = [shadow.binding for shadow in graph.shadows()]
    return RouteAudit(
        r.text,
        tuple(RouteWriter(row.name, row.kind, row.last) for row in rows if isinstance(row, WriterRow)),
        tuple(edge for edge in graph.edges() if edge.route == r.text),
        tuple(
            binding.request.text
            for binding in bindings
            if r in (binding.request, binding.desired, binding.reported, binding.effective, binding.ack)
        ),
        graph.taint_bound(r),
        tuple(
            (event.id, guard)
            for event in kept(graph, r)
            for guard in event.guards
            if guard.startswith("repaired ")
        ),
        tuple(entry for entry in graph.access.entries() if entry.address == r.addr),
    )

"""The vitals of a node: every figure that metrics, health and `meshfold top` show, as one document.

Made in the node's loop, so that the figures belong together. Rows are at most one for each route and direction.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meshfold.mesh.node.session import Session

__all__ = ("vitals",)


def vitals(session: Session, may_read: Callable[[str], bool] = lambda route: True) -> dict[str, Any]:
    """The document of a session, with the routes (in their short form) that may be read."""
    echo_s = session.heartbeats.echo_age_s()
    return {
        "node": session.name,
        "mesh": session.context.mesh,
        "id": session.identity.tag.hex(),
        "incarnation": session.graph.incarnation.hex(),
        "started_ms": session.started_ms,
        "connected": session.transport.connected,
        "grants": len(session.upkeep.grants),
        "grants_expire_ms": min(
            (link.not_after_ms for grant in session.upkeep.grants.values() for link in grant.links),
            default=None,
        ),
        "echo_age_s": None if echo_s is None else round(echo_s, 3),
        "members": [
            {"name": one.name, "alive": one.alive, "age_s": one.age_ms / 1000}
            for one in session.directory.members()
            if one.id != session.identity.tag.hex()
        ],
        "bridges": [row for row in _bridges(session) if may_read(row["route"])],
        "queues": [row for row in _queues(session) if may_read(row["route"])],
        "rejected": dict(session.ledger.rejected),
        "denials": session.ledger.denials,
        "failures": session.graph.failures()[0],
        "transport": dict(session.transport.counters()),
        "spans": session.recorder.counters(),
        "groups": [session.control.status()] if session.control else [],
    }


def _bridges(session: Session) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for out in session.bridges.outgoing.values():
        counters = out.counters
        rows.append(
            {
                "route": out.route.text,
                "dir": "out",
                "state": out.state,
                "events": counters["delivered"],
                "frames": counters["frames"],
                "pending": counters["pending"],
                "dropped": counters["dropped"],
                "stalled_s": round(out.stalled_s(), 3),
                "rate_hz": None,
                "latency": None,
            }
        )
    for into in session.bridges.incoming.values():
        counters = into.counters
        rows.append(
            {
                "route": into.route.text,
                "dir": "in",
                "state": into.state,
                "events": counters["delivered"],
                "frames": counters["frames"],
                "pending": 0,
                "dropped": counters["dropped"],
                "stalled_s": 0.0,
                "rate_hz": into.pace.rate_hz(session.hlc.clock.now()[1]),
                "latency": into.pace.histogram(),
            }
        )
    return rows


def _queues(session: Session) -> list[dict[str, Any]]:
    """Local edges, summed for each route and kind: a program may open and close any number of streams."""
    sums: dict[tuple[str, str], dict[str, Any]] = {}
    for edge in session.graph.edges():
        if edge.kind == "tap":
            continue
        row = sums.setdefault(
            (edge.route, edge.kind),
            {"route": edge.route, "kind": edge.kind, "edges": 0, "depth": 0, "dropped": {}},
        )
        row["edges"] += 1
        row["depth"] += edge.counters.pending
        for reason, count in edge.counters.dropped.items():
            row["dropped"][reason] = row["dropped"].get(reason, 0) + count
    return list(sums.values())

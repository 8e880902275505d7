"""The commands every node answers: status, catalog, flow, latest, why, trace, vitals, refusals, explain;
and those of the graph (`plane.py`).

Each answer is filtered to what the asker may read (S32): a node shows a stranger nothing.
"""

from __future__ import annotations

import os
from typing import Any

from meshfold.core import Address, Route, event_document
from meshfold.core.errors import GrantDenied, MeshfoldError, WiringError
from meshfold.core.registry import Action
from meshfold.mesh.node.brief import brief_event
from meshfold.mesh.node.election_desk import require_action
from meshfold.mesh.node.plane import answer_graph_queries
from meshfold.mesh.node.session import Session
from meshfold.mesh.node.vitals import vitals
from meshfold.mesh.node.why import WHY_DEPTH_MAX, WhyWalk
from meshfold.mesh.telemetry import find_trace, trace_document
from meshfold.security import Identity

__all__ = ("Answers",)

WHY_ASK_S = 2.0


class Answers:
    """Builds the documents of one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        for command in (
            "status",
            "catalog",
            "flow",
            "latest",
            "why",
            "trace",
            "vitals",
            "refusals",
            "explain",
        ):
            session.responder.answers(command, getattr(self, command))
        answer_graph_queries(session)
        session.responder.answers("granted", session.upkeep.on_granted)
        session.responder.answers("audit", self.audit)
        session.responder.answers("shredded", session.upkeep.on_shredded)

    def _may(self, asker: Identity, action: Action, address: Address) -> bool:
        if asker.tag == self._session.identity.tag:
            return True
        return self._session.book.decide(asker.tag, action, address).allowed

    def _require_any(self, asker: Identity) -> None:
        if asker.tag != self._session.identity.tag and not self._session.book.grants_of(asker.tag):
            raise GrantDenied(
                f"{asker.name} holds no grant in this mesh",
                fix=f"issue one: meshfold grant issue {asker.name} ROUTE --action META_READ",
                principal=asker.name,
                action="VALIDATE",
                route="",
            )

    async def status(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """Who this node is, whom it sees, what is wrong."""
        self._require_any(asker)
        session = self._session
        members = [
            {"name": m.name, "id": m.id, "incarnation": m.incarnation, "alive": m.alive, "age_ms": m.age_ms}
            for m in session.directory.members()
        ]
        return {
            "name": session.name,
            "id": session.identity.tag.hex(),
            "incarnation": session.graph.incarnation.hex(),
            "pid": os.getpid(),
            "now_ms": session.hlc.clock.now()[0] // 1_000_000,
            "members": members,
            "groups": await session.control.groups() if session.control else [],
            "problems": [*session.ledger.problems]
            + [f"{m['name']} is silent" for m in members if not m["alive"]]
            + session.presence.clones(),
            "rejected": dict(session.ledger.rejected),
            "transport": dict(session.transport.counters()),
            "spans": session.recorder.counters(),
        }

    async def catalog(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """The routes this node knows, as far as the asker may read their metadata."""
        session = self._session
        rows = []
        for route in session.graph.routes():
            if not self._may(asker, Action.META_READ, route.addr):
                continue
            direction = "local"
            if route.address in session.bridges.outgoing:
                direction = "share"
            elif route.address in session.bridges.incoming:
                direction = "read"
            rows.append(
                {
                    "route": route.text,
                    "address": route.address,
                    "schema": route.schema.descriptor(),
                    "schema_id": route.schema.id.hex(),
                    "secrecy": route.secrecy,
                    "direction": direction,
                    "published": session.graph.published(route),
                }
            )
        return {"routes": sorted(rows, key=lambda row: str(row["address"]))}

    async def flow(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """The accounting equation of every route this node reads (S43); with `values`, their latest values as text, too."""
        self._require_any(asker)
        session = self._session
        session.presence.sweep()
        rows: list[dict[str, Any]] = []
        for bridge in session.bridges.incoming.values():
            found = bridge.flow(session.name)
            if args.get("values") and self._may(asker, Action.PAYLOAD_OPEN, bridge.route.addr):
                text = brief_event(bridge.latest())
                found = [{**row, "latest": text} for row in found]
            rows += found
        return {"routes": rows, "unexplained": sum(abs(row["unexplained"]) for row in rows)}

    def _route(self, args: dict[str, Any]) -> Route[Any]:
        address = Address.parse(str(args.get("route", "")))
        route = self._session.graph.route(address.tag)
        if route is None:
            raise WiringError(
                f"{self._session.name} knows no route {address.short}",
                fix="`meshfold route ls` lists them",
                item=address.short,
            )
        return route

    async def latest(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """The latest event of a route, if the asker may open its payload."""
        route = self._route(args)
        if not self._may(asker, Action.PAYLOAD_OPEN, route.addr):
            raise GrantDenied(
                f"{asker.name} may not open {route.text}",
                fix=f"issue: meshfold grant issue {asker.name} {route.text} --action PAYLOAD_OPEN",
                principal=asker.name,
                action="PAYLOAD_OPEN",
                route=route.text,
            )
        event = self._session.graph.latest(route)
        if event is not None and asker.tag != self._session.identity.tag:
            self._spend(asker, route.addr, len(event.payload or b""))
        return {"event": event_document(event) if event is not None else None}

    def _spend(self, asker: Identity, address: Address, size_bytes: int) -> None:
        """Take one opened payload off the asker's grant: whoever serves keeps its budget.

        :raises FrameRejected: with reason `limit` if the grant allows less
        """
        session = self._session
        decision = session.book.decide(asker.tag, Action.PAYLOAD_OPEN, address)
        now_ns = session.hlc.clock.now()[1]
        session.budgets.spend(decision, events=1, size_bytes=size_bytes, now_ns=now_ns)

    async def why(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """The causes of an event, across nodes."""
        self._require_any(asker)
        return await self.walk(str(args.get("event", "")), int(args.get("depth", WHY_DEPTH_MAX)))

    async def trace(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """The spans this node remembers of a trace: named by its id, or the newest of an event or a route."""
        self._require_any(asker)
        session = self._session
        try:
            wanted = bytes.fromhex(str(args.get("trace", ""))) or None
        except ValueError:
            raise WiringError(
                f"{args.get('trace')!r} is no trace id", fix="32 hex digits", item="trace"
            ) from None
        records = session.recorder.kept()
        found = find_trace(
            records, trace=wanted, event=str(args.get("event", "")), route=str(args.get("route", ""))
        )
        if found is None:
            return {"trace_id": None, "event": None, "spans": []}

        def may_read(route: str) -> bool:
            return bool(route) and self._may(asker, Action.META_READ, Address.parse(route))

        document = trace_document(
            records, found.trace, session.recorder.facts, service=session.name, may_read=may_read
        )
        return {**document, "event": found.event}

    async def vitals(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """Every figure of this node, with the routes whose metadata the asker may read."""
        self._require_any(asker)

        def may_read(route: str) -> bool:
            return self._may(asker, Action.META_READ, Address.parse(route))

        return vitals(self._session, may_read)

    async def walk(self, event: str, depth: int = WHY_DEPTH_MAX) -> dict[str, Any]:
        """Build the tree from here."""
        return await WhyWalk(self._session.graph, self._name, self._ask).walk(event, depth)

    def _name(self, producer: bytes) -> str:
        identity = self._session.directory.lookup(producer)
        return identity.name if identity is not None else producer.hex()

    async def _ask(self, producer: bytes, event: str, depth: int) -> dict[str, Any] | None:
        identity = self._session.directory.lookup(producer)
        if identity is None or not self._session.directory.alive(producer):
            return None
        try:
            answer = await self._session.asker.ask(
                identity, "why", {"event": event, "depth": depth}, WHY_ASK_S
            )
        except MeshfoldError:
            return None
        return answer if answer.get("known") else None

    async def audit(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """The last lines of this node's audit log, for whoever may administrate; the asker verifies them itself.

        :raises GrantDenied: if the asker holds no grant with KEY_ADMIN
        """
        session = self._session
        if asker.tag != session.identity.tag:
            require_action(session.book, asker, Action.KEY_ADMIN, "read the audit log")
        session.audit.flush()
        return session.audit.tail(int(args.get("count", 200))) | {
            "node": session.name,
            "node_pub": session.identity.node_pub.hex(),
        }

    async def refusals(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """What this node was refused."""
        self._require_any(asker)
        return {"refused": list(self._session.ledger.refusals)}

    async def explain(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """Which grant and rule decides an action of a member on a route."""
        self._require_any(asker)
        address = Address.parse(str(args.get("route", "")))
        name = str(args.get("who", asker.name))
        try:
            action = Action[str(args.get("action", "META_READ"))]
        except KeyError:
            raise WiringError(
                f"unknown action {args.get('action')!r}", fix=f"one of {', '.join(Action.__members__)}"
            ) from None
        identity = self._session.directory.by_name(name)
        if identity is None:
            raise WiringError(f"no member named {name!r}", fix="`meshfold status` lists them", item=name)
        decision = self._session.book.decide(identity.tag, action, address)
        return {
            "decision": "allowed" if decision.allowed else "denied",
            "because": decision.because,
            "node": name,
            "action": action.name,
            "route": address.short,
        }

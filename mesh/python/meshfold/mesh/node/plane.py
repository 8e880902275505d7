"""The query plane of a node's graph, asked by other nodes: the same commands and rows as `Graph.query` (S34).

Every answer is filtered by the grants that the asker's authenticated identity holds (S32).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from meshfold.core import Address, Route
from meshfold.core.access import AuditEntry
from meshfold.core.errors import GrantDenied
from meshfold.core.query import COMMANDS
from meshfold.core.registry import Action
from meshfold.mesh.node.session import Session
from meshfold.security import Identity

__all__ = ("GRAPH_COMMANDS", "MeshSight", "answer_graph_queries")

#: Commands that mean more in a mesh and are answered by `answers.py`.
_OF_THE_MESH: Final = ("catalog", "latest", "trace")
GRAPH_COMMANDS: Final = tuple(name for name in COMMANDS if name not in _OF_THE_MESH)


class MeshSight:
    """What a member of the mesh may see of this node's graph; the node itself sees everything."""

    def __init__(self, session: Session, asker: Identity) -> None:
        self._session = session
        self._asker = asker
        self._own = asker.tag == session.identity.tag

    def sees(self, action: Action, address: Address) -> bool:
        """Whether a grant of the asker allows it now."""
        return self._own or self._session.book.decide(self._asker.tag, action, address).allowed

    def require(self, action: Action, r: Route[Any]) -> None:
        """Go on only if it does.

        :raises GrantDenied: naming action and route
        """
        decision = self._session.book.decide(self._asker.tag, action, r.addr)
        if not self._own and not decision.allowed:
            raise self._denied(action, r.text, decision.because)

    def require_any(self, action: Action) -> None:
        """Go on only if some grant of the asker has the action.

        :raises GrantDenied: naming the action
        """
        grants = self._session.book.grants_of(self._asker.tag)
        held = any(action in part.actions for grant in grants for part in grant.leaf.capabilities)
        if not self._own and not held:
            raise self._denied(action, "", f"no grant with {action.name}")

    def entries(self, since: int) -> Iterator[AuditEntry]:
        """The audit of the graph."""
        return self._session.graph.access.entries(since)

    def _denied(self, action: Action, text: str, because: str) -> GrantDenied:
        return GrantDenied(
            f"{self._asker.name} may not {action.name} {text or 'here'}: {because}",
            fix=f"issue: meshfold grant issue {self._asker.name} {text or 'ROUTE'} --action {action.name}",
            principal=self._asker.name,
            action=action.name,
            route=text,
            because=because,
        )


def answer_graph_queries(session: Session) -> None:
    """Answer every graph command that is asked of this node: `rows`, and `next` where another page follows."""

    def handler(name: str) -> Any:
        async def answer(asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
            sight = MeshSight(session, asker)
            # In a thread: a watch waits, and a long answer must not hold up the bridges.
            found = await asyncio.to_thread(session.graph.query, name, sight=sight, **_plain(args))
            document: dict[str, Any] = msgspec.to_builtins(found)
            return document

        return answer

    for name in GRAPH_COMMANDS:
        session.responder.answers(name, handler(name))


def _plain(args: dict[str, Any]) -> dict[str, Any]:
    """Arguments as `Graph.query` takes them; what is no text or number where it has to be is refused there."""
    taken = dict(args)
    for name in ("command", "sight"):
        taken.pop(name, None)
    taken["limit"] = int(taken.get("limit", 100))
    taken["after"] = str(taken.get("after", ""))
    if "deadline_ms" in taken:
        taken["deadline_ms"] = int(taken["deadline_ms"])
    return taken

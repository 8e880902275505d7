"""The voter's answers about elections: who may ask what, and what is answered.

Whoever holds an OWN grant may campaign: a node without one has no effect that a leader could have. Any grant allows to see
who leads; KEY_ADMIN allows to make a leader step down.
"""

from __future__ import annotations

import re
from typing import Any, Final

from meshfold.consensus import Busy, Elections, Holder, Leadership
from meshfold.core.errors import GrantDenied, WiringError
from meshfold.core.registry import Action
from meshfold.mesh.node.queries import Responder
from meshfold.security import GrantBook, Identity

__all__ = ("ElectionDesk", "leadership_document", "require_action")

_CLAIM: Final = re.compile(r"[0-9a-f]{16}")


def require_action(book: GrantBook, asker: Identity, action: Action, to: str) -> None:
    """Return if the asker holds a grant with the action, on whatever route.

    :raises GrantDenied: if it does not
    """
    for grant in book.grants_of(asker.tag):
        if any(capability.actions & action for capability in grant.capabilities):
            return
    raise GrantDenied(
        f"{asker.name} may not {to}: it holds no grant with {action.name}",
        fix=f"issue one: meshfold grant issue {asker.name} ROUTE --action {action.name}",
        principal=asker.name,
        action=action.name,
        route="",
    )


def leadership_document(found: Leadership | None) -> dict[str, Any]:
    """A leadership as an answer's document."""
    if found is None:
        return {"leader": None, "leader_id": None, "token": 0}
    return {"leader": found.leader, "leader_id": found.leader_id, "token": found.token.number}


def _token(args: dict[str, Any]) -> int:
    number = args.get("token")
    if not isinstance(number, int) or number <= 0:
        raise WiringError("a token is a positive number", item="token")
    return number


class ElectionDesk:
    """Takes the questions of candidates to the elections of this voter."""

    def __init__(self, elections: Elections, book: GrantBook) -> None:
        self._elections = elections
        self._book = book

    def register(self, responder: Responder) -> None:
        """Answer from now on."""
        responder.answers("election_campaign", self.campaign)
        responder.answers("election_keep", self.keep)
        responder.answers("election_resign", self.resign)
        responder.answers("election_current", self.current)

    async def campaign(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """Answer a campaign: a token with the times of its lease, or when to ask again."""
        require_action(self._book, asker, Action.OWN, "campaign")
        claim = args.get("claim")
        if not isinstance(claim, str) or _CLAIM.fullmatch(claim) is None:
            raise WiringError("a claim is 16 hex digits", item="claim")
        holder = Holder(asker.tag.hex(), asker.name, claim)
        found = await self._elections.campaign(str(args.get("name", "")), holder)
        if isinstance(found, Busy):
            return {"leader": found.leader, "retry_ms": found.retry_ms}
        timing = self._elections.timing
        return {
            "token": found.number,
            "lease_ms": timing.lease_ms,
            "keep_alive_ms": timing.keep_alive_ms,
            "election_ms": timing.election_ms,
        }

    async def keep(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """Answer a keep-alive. The token says that its holder was allowed to campaign; a revoked one stops here."""
        require_action(self._book, asker, Action.OWN, "hold a lease")
        await self._elections.keep_alive(str(args.get("name", "")), asker.tag.hex(), _token(args))
        return {}

    async def resign(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """Answer a resignation."""
        held = await self._elections.resign(str(args.get("name", "")), asker.tag.hex(), _token(args))
        return {"held": held}

    async def current(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """Answer who leads."""
        if not self._book.grants_of(asker.tag):
            require_action(self._book, asker, Action.META_READ, "see who leads")
        return leadership_document(await self._elections.current(str(args.get("name", ""))))

    async def step_down(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """Make the leader step down; answers who that was."""
        require_action(self._book, asker, Action.KEY_ADMIN, "make a leader step down")
        return leadership_document(await self._elections.step_down(str(args.get("name", ""))))

    async def groups(self) -> list[dict[str, Any]]:
        """Every election with a leader, as a line in `status`."""
        return [
            {
                "group": one.token.election,
                "kind": "election",
                "leader": one.leader,
                "term": one.token.number,
                "commit": one.token.number,
                "token": str(one.token),
            }
            for one in await self._elections.all()
        ]

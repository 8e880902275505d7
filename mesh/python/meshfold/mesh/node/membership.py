"""A voter's answers about members: who ever was one, ending a membership, forgetting one that ended.

Retiring revokes every grant of the member and its key, so a retired member is refused whatever it shows; forgetting takes
its record away, and is refused for one that was not retired or is still heard.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshfold.core.errors import ConfigError
from meshfold.core.registry import Action
from meshfold.mesh.node.control import Control
from meshfold.mesh.node.election_desk import require_action
from meshfold.mesh.node.queries import Answering
from meshfold.security import Grant, Identity

if TYPE_CHECKING:
    from meshfold.mesh.node.session import Session

__all__ = ("Membership",)

_PREFIX = "member/"


class Membership:
    """The members of the control log, in one session of a voter."""

    def __init__(self, control: Control, session: Session) -> None:
        self._control = control
        self._session = session

    def register(self, responder: Answering) -> None:
        """Answer the questions about members."""
        responder.answers("members", self.members)
        responder.answers("member_retire", self.retire)
        responder.answers("member_rm", self.remove)

    async def members(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """Answer `members`: everyone in the log, by name."""
        if not self._session.book.grants_of(asker.tag):
            require_action(self._session.book, asker, Action.META_READ, "list members")
        found = [self._document(one) for one in await self._known()]
        return {"nodes": sorted(found, key=lambda row: (str(row["name"]), str(row["id"])))}

    async def retire(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """Answer `member_retire`: revoke the key and every grant of a member.

        :raises ConfigError: if no member, or more than one, is meant, or it is a voter
        """
        require_action(self._session.book, asker, Action.KEY_ADMIN, "retire a member")
        identity = await self._one(str(args.get("node", "")))
        if any(identity.tag == voter.tag for voter in self._session.voters):
            raise ConfigError(
                f"{identity.name} is a voter",
                fix="a voter is replaced before it is retired",
                item=identity.name,
            )
        keymaster, policy = self._control.keymaster, self._control.policy
        if identity.node_pub not in policy.revoked:
            # One by one: the last takes the members' key with it, because then the holder has left.
            for grant in await self._grants(identity):
                await keymaster.revoke([grant.hash], grant)
            await keymaster.revoke([identity.node_pub], None)
        return {**self._document(identity), "policy_epoch": self._control.policy.epoch}

    async def remove(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """Answer `member_rm`: forget a retired member; its key stays revoked.

        :raises ConfigError: if no member, or more than one, is meant, or it is not retired, or still heard
        """
        require_action(self._session.book, asker, Action.KEY_ADMIN, "remove a member")
        identity = await self._one(str(args.get("node", "")))
        document = self._document(identity)
        if not document["retired"]:
            raise ConfigError(
                f"{identity.name} is a member",
                fix=f"first: meshfold node retire {identity.name}",
                item=identity.name,
            )
        await self._control.log.delete(f"{_PREFIX}{identity.tag.hex()}")
        return document

    async def _known(self) -> list[Identity]:
        return [Identity.parse(saved.value) for saved in (await self._control.log.snapshot(_PREFIX)).values()]

    async def _one(self, which: str) -> Identity:
        """The member of a name, or of the beginning of an id."""
        known = await self._known()
        found = [one for one in known if one.name == which]
        if len(found) != 1 and which:
            found = [one for one in known if one.tag.hex().startswith(which)] or found
        if len(found) == 1:
            return found[0]
        ids = ", ".join(one.tag.hex() for one in found)
        raise ConfigError(
            f"{which!r} names {len(found)} members" + (f": {ids}" if ids else ""),
            fix="`meshfold node ls` lists them, with their ids",
            item=which,
        )

    async def _grants(self, identity: Identity) -> list[Grant]:
        saved = (await self._control.log.snapshot("grant/")).values()
        grants = [Grant.parse(one.value) for one in saved]
        revoked = self._control.policy.revoked
        return [one for one in grants if one.tag == identity.tag and one.hash not in revoked]

    def _document(self, identity: Identity) -> dict[str, Any]:
        directory = self._session.directory
        own = identity.tag == self._session.identity.tag
        incarnation = self._session.graph.incarnation if own else directory.incarnation(identity.tag)
        return {
            "name": identity.name,
            "id": identity.tag.hex(),
            "roles": list(identity.roles),
            "alive": own or directory.alive(identity.tag),
            "retired": identity.node_pub in self._control.policy.revoked,
            "voter": any(identity.tag == voter.tag for voter in self._session.voters),
            "incarnation": incarnation.hex() if incarnation is not None else None,
            "not_after_ms": identity.not_after_ms,
        }

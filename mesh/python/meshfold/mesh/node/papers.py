"""Papers of a member that end: its login, its identity, the grants that stand. Only a voter that holds the issuer renews them.

Of several voters, one that leads without the issuer asks the one that has it. That one takes nobody's word for what a
member may have: it looks at identity and grants itself, and gives what they say for a further time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from meshfold.core.errors import FrameRejected, GrantDenied, MeshfoldError
from meshfold.mesh.clocks import HybridClock
from meshfold.mesh.node.members import Directory
from meshfold.mesh.node.queries import Asker
from meshfold.mesh.node.standing import Standing
from meshfold.security import Grant, GrantBook, Identity

__all__ = ("Issuing", "Papers")

#: One question to the voter that holds the issuer: whoever asked for its keys waits for it.
ASK_S: Final = 0.5
#: Grants one question may show.
GRANTS_MAX: Final = 256


@dataclass(frozen=True, slots=True)
class Papers:
    """What was renewed; empty where nothing had to be, or nobody who could was here."""

    login: str = ""
    identity: bytes = b""
    narrow: str = ""
    grants: tuple[Grant, ...] = ()


class Issuing:
    """One voter's side of it.

    :param voters: all voters
    :param marked: hashes of standing grants, in hex, as far as this voter knows
    """

    def __init__(
        self,
        ourselves: Identity,
        book: GrantBook,
        directory: Directory,
        hlc: HybridClock,
        voters: Sequence[Identity],
        marked: Callable[[], frozenset[str]],
        asker: Asker | None,
    ) -> None:
        self._ourselves = ourselves
        self._book = book
        self._directory = directory
        self._hlc = hlc
        self._voters = voters
        self._marked = marked
        self._asker = asker
        #: makes a login for another node
        self.mint: Callable[[Identity, list[Grant]], str | None] = lambda identity, grants: None
        #: a newer identity and narrow login for a member whose own ends soon
        self.renew: Callable[[Identity], tuple[Identity, str] | None] = lambda identity: None
        #: gives standing grants again
        self.standing: Standing | None = None
        #: whether this voter holds the issuer: then the three above are its own
        self.holds = False

    async def papers(self, member: Identity, valid: list[Grant], *, login: bool) -> Papers:
        """What a member needs anew.

        :param valid: its grants, without what was revoked or has ended
        :param login: whether it wants a login, too
        """
        others = [one for one in self._voters if one.tag != self._ourselves.tag]
        if self.holds or self._asker is None or not others:
            return self._here(member, valid, login=login)
        args = {
            "identity": member.raw.hex(),
            "grants": [grant.raw.hex() for grant in valid[:GRANTS_MAX]],
            "login": login,
        }
        for voter in others:
            if self._directory.silent(voter.tag):
                continue
            try:
                told = self._directory.lookup(voter.tag) or voter
                found = await self._asker.ask(told, "papers", args, ASK_S)
                return Papers(
                    str(found["login"]),
                    bytes.fromhex(str(found["identity"])),
                    str(found["narrow"]),
                    tuple(Grant.parse(bytes.fromhex(str(raw))) for raw in found["grants"]),
                )
            except (MeshfoldError, ValueError, TypeError, KeyError):
                # It is away, or holds no issuer either: the next; without any, the member asks again later.
                continue
        return Papers()

    def _here(self, member: Identity, valid: list[Grant], *, login: bool) -> Papers:
        now_ms, identity, narrow = self._hlc.now_ms(), b"", ""
        if member.due(now_ms) and member.node_pub not in self._book.policy.revoked:
            made = self.renew(member)
            if made is not None:
                member, identity, narrow = made[0], made[0].raw, made[1]
        marked = set(self._marked())
        if any(one.tag == member.tag for one in self._voters):
            # A voter stays one for as long as the mesh has it.
            marked |= {grant.hash.hex() for grant in valid}
        fresh = self.standing.renewed(member, valid, marked, now_ms) if self.standing is not None else []
        jwt = (self.mint(member, valid + fresh) or "") if login else ""
        return Papers(jwt, identity, narrow, tuple(fresh))

    async def answer(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """Answer `papers`: what a member needs anew, for the voter that leads.

        :raises GrantDenied: if the asker is no voter, or this one holds no issuer
        :raises FrameRejected: if identity or a grant does not hold
        """
        if not self.holds or all(asker.tag != one.tag for one in self._voters):
            raise GrantDenied(
                f"{asker.name} gets no papers here", principal=asker.name, action="CONSENSUS_MEMBER", route=""
            )
        raws = args.get("grants")
        if not isinstance(raws, list) or len(raws) > GRANTS_MAX:
            raise FrameRejected("limit", "grants")
        try:
            member = self._directory.admit(bytes.fromhex(str(args.get("identity", ""))))
            grants = [Grant.parse(bytes.fromhex(str(raw))) for raw in raws]
        except ValueError as error:
            raise FrameRejected("format", str(error)) from None
        for grant in grants:
            self._book.add(grant, self._hlc.now_ms())
        found = self._here(member, self._book.grants_of(member.tag), login=bool(args.get("login")))
        return {
            "login": found.login,
            "identity": found.identity.hex(),
            "narrow": found.narrow,
            "grants": [grant.raw.hex() for grant in found.grants],
        }

"""What a node holds by its voters' word, and how it stays current: keys, policy, grants, its identity, its login.

It asks at the start, every ten minutes, when keys are missing and when it is told of something new. A node without any grant
asks more often, and takes part as soon as one came.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, Any, Final

from meshfold.core.errors import (
    FrameRejected,
    GrantDenied,
    MeshfoldError,
    NoQuorum,
    NotLeader,
    TransportTimeout,
)
from meshfold.core.jobs import end_jobs
from meshfold.mesh.enrolment import Enrolment
from meshfold.mesh.node.control import possession_request
from meshfold.mesh.subjects import GROUP
from meshfold.security import Grant, Identity, PolicyRecord, prove_possession

if TYPE_CHECKING:
    from meshfold.mesh.node.session import Session

__all__ = ("Upkeep",)

#: How long a starting node waits for a voter to answer, and how long for one question.
KEYS_WAIT_S: Final = 20.0
KEYS_ASK_S: Final = 1.0
#: How long one of several voters waits for so many others that they are a majority.
VOTERS_WAIT_S: Final = 300.0
#: A node asks its voter for new keys, grants and logins so often, and at once when told of a change.
UPKEEP_S: Final = 600.0
#: A node without any grant asks so often whether one came.
GRANTLESS_S: Final = 5.0


class Upkeep:
    """One session's."""

    def __init__(self, session: Session, enrolment: Enrolment) -> None:
        self._session = session
        #: the roots and issuers this node believes
        self.trust = enrolment.trust
        #: this node's own, by hash
        self.grants = {grant.hash: grant for grant in enrolment.grants}
        self._wake = asyncio.Event()
        #: whether the next refresh logs in anew at the broker
        self._renew_login = False
        self._job: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        """Have keys before anything is sent; a node without a grant takes part once one came.

        :raises TransportTimeout: if the one voter does not answer
        :raises NoQuorum: if no majority of several voters does
        :raises MeshfoldError: as a voter answers
        """
        if not self.grants:
            await self._refresh(renew=False)
            return
        if await self._fetch_keys():
            await self._session.transport.renew()
        await self._appear()

    def start(self) -> None:
        """Stay current from now on."""
        self._job = asyncio.get_running_loop().create_task(self._run())

    def ask_soon(self) -> None:
        """Ask the voters at once what is new."""
        self._wake.set()

    def log_in_anew(self) -> None:
        """Ask them, and have the broker allow what is then left and no more."""
        self._renew_login = True
        self._wake.set()

    async def _fetch_keys(self) -> bool:
        """Whether the broker's login changed by what was granted since this node was last here."""
        session = self._session
        # Several voters need each other to begin, and may be started by hand.
        wait_s = KEYS_WAIT_S if session.control is None or len(session.voters) == 1 else VOTERS_WAIT_S
        deadline = session.loop.time() + wait_s
        while True:
            try:
                return self._install(await self._ask_keys())
            except (TransportTimeout, NotLeader, NoQuorum) as error:
                if session.loop.time() > deadline and len(session.voters) > 1:
                    raise NoQuorum(
                        f"{session.name} got no keys within {wait_s:.0f} s: {error.what}",
                        fix=f"start the voters that are away: more than half of {len(session.voters)} have to run",
                        group=GROUP,
                    ) from None
                if session.loop.time() > deadline:
                    raise TransportTimeout(
                        f"no voter answered {session.name} within {wait_s:.0f} s",
                        fix="is the hub running? `meshfold status` shows who is here",
                        timeout_s=wait_s,
                    ) from None
                await asyncio.sleep(0.1)

    async def _ask_keys(self) -> dict[str, Any]:
        session = self._session
        nonce = os.urandom(16).hex()
        args: dict[str, Any] = {
            "grants": [grant.raw.hex() for grant in self.grants.values()],
            "login": True,
            "nonce": nonce,
            "wrap": session.safety.wrap_record.hex(),
        }
        document = await session.ask_voters.decided("keys", args, KEYS_ASK_S, self._proof)
        if document.get("nonce") != nonce:
            raise FrameRejected("replay", "the answer to another question")
        return document

    def _proof(self, voter: Identity, args: dict[str, Any], challenge: str) -> dict[str, Any]:
        """The question with a proof that this node holds the key of the grants it shows, made for one voter."""
        session = self._session
        proof = prove_possession(
            session.enrolment.keys,
            cluster=session.context.cluster,
            verifier_pub=voter.node_pub,
            verb="keys",
            request=possession_request(args),
            challenge=bytes.fromhex(challenge),
            incarnation=session.graph.incarnation,
        )
        more = {"challenge": challenge, "pop": proof.hex(), "incarnation": session.graph.incarnation.hex()}
        return args | more

    def _install(self, document: dict[str, Any]) -> bool:
        """Take in a voter's answer: keys, policy, grants, issuers, login. Whether the broker's login changed by it."""
        session = self._session
        session.safety.take(bytes.fromhex(document["policy"]), fresh=True)
        session.safety.install(bytes.fromhex(document["packet"]))
        now_ms = session.hlc.now_ms()
        self._renew_identities(document)
        grants = [Grant.parse(bytes.fromhex(raw)) for raw in document["grants"]]
        fresh = [
            grant for grant in grants if grant.tag == session.identity.tag and grant.hash not in self.grants
        ]
        for grant in fresh:
            session.book.add(grant, now_ms)
            self.grants[grant.hash] = grant
        self.trust = self.trust.with_certificates(map(bytes.fromhex, document["certificates"]), now_ms)
        return session.enrolment.store.keep(fresh, self.trust, document["login"])

    def _renew_identities(self, document: dict[str, Any]) -> None:
        """Take in a newer identity of this node, and of the voters: the same keys with a new time.

        :raises FrameRejected: if one does not hold, or is another's
        """
        session = self._session
        raw = bytes.fromhex(str(document.get("identity", "")))
        if raw:
            identity = session.directory.admit(raw)
            if identity.node_pub != session.identity.node_pub:
                raise FrameRejected("member", "another node's identity")
            session.enrolment.store.keep_identity(identity, str(document.get("narrow", "")))
            session.party.identity = identity
        told = tuple(bytes.fromhex(str(one)) for one in document.get("voters", ()))
        known = {voter.node_pub for voter in session.voters}
        if told and told != session.enrolment.voters:
            if {session.directory.admit(one).node_pub for one in told} != known:
                raise FrameRejected("member", "other voters")
            session.enrolment.store.keep_voters(told)

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), UPKEEP_S if self.grants else GRANTLESS_S)
            self._wake.clear()
            renew, self._renew_login = self._renew_login, False
            await self._refresh(renew=renew)

    async def _refresh(self, *, renew: bool) -> None:
        """Ask the voter for what is new, and log in anew at the broker if that may do more or less now."""
        session = self._session
        had = bool(self.grants)
        try:
            changed = self._install(await self._ask_keys())
            if changed or renew:
                await session.transport.renew()
            if self.grants and not session.heartbeats.running:
                await self._appear()
        except MeshfoldError as error:
            # A node without a grant is told so at each question; it goes on to ask.
            if had:
                session.ledger.problems.append(f"keys and grants not refreshed: {error}")
            if renew:
                # Its last grant may be gone: the broker shall allow no more than what is left.
                with contextlib.suppress(MeshfoldError):
                    await session.transport.renew()

    async def _appear(self) -> None:
        session = self._session
        await (session.heartbeats.listen() if session.quiet else session.heartbeats.start())

    async def on_granted(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """Answer `granted`: a voter has something new for this node."""
        self._require_voter(asker)
        self.log_in_anew()
        return {}

    async def on_shredded(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        """Answer `shredded`: whether an epoch is erased here, as its voters asked."""
        self._require_voter(asker)
        return {"done": self._session.safety.has_shredded(str(args.get("name", "")))}

    def _require_voter(self, asker: Identity) -> None:
        if all(voter.tag != asker.tag for voter in self._session.voters):
            raise GrantDenied(
                f"{asker.name} is no voter", principal=asker.name, action="CONSENSUS_MEMBER", route=""
            )

    def take_policy(self, record: PolicyRecord) -> None:
        """Follow a newer policy: drop the grants it revokes, and tell everyone it is about."""
        session = self._session
        if record.policy_epoch >= session.book.policy.epoch:
            session.book.set_policy(record.policy)
        gone = [
            grant_hash
            for grant_hash, grant in self.grants.items()
            if any(link.hash in record.revoked for link in grant.links)
        ]
        for grant_hash in gone:
            del self.grants[grant_hash]
        if gone:
            session.keyring.forget_past()
            session.enrolment.store.forget(gone)
            self.log_in_anew()
        session.duties.follow(record)
        session.bridges.wake()

    async def close(self) -> None:
        """Ask no more."""
        if self._job is not None:
            await end_jobs((self._job,))

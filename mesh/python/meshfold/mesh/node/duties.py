"""What only a voter's session runs: the control log and its questions, and where the issuer lies here, the door and logins.

A session that is no voter's has this too, with nothing in it.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

from meshfold.core.errors import MeshfoldError
from meshfold.mesh.enrolment import AuthorityFolder
from meshfold.mesh.enrolment.doorkeeper import Doorkeeper
from meshfold.mesh.node.control import Control, LeadersDesk, Talk
from meshfold.mesh.node.key_desk import KeyDesk
from meshfold.mesh.node.login_revoker import LoginRevoker
from meshfold.mesh.node.membership import Membership
from meshfold.mesh.node.standing import Standing
from meshfold.mesh.node.voter_log import voter_folder
from meshfold.security import Grant, Identity, PolicyRecord

if TYPE_CHECKING:
    from meshfold.mesh.node.session import Session

__all__ = ("VoterDuties",)

#: How long a voter waits for a node to hear that it has a new grant; one that does not finds it out by itself.
TELL_S: Final = 1.0
#: One question to the voter that leads, to note a node that joined.
ADMIT_S: Final = 5.0


class VoterDuties:
    """One session's."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.control: Control | None = None
        self.login_revoker: LoginRevoker | None = None
        self._key_desk: KeyDesk | None = None
        self._doorkeeper: Doorkeeper | None = None

    async def open(self) -> None:
        """Open the control log and answer what voters are asked, if the context names this node as voter.

        :raises MeshfoldError: as `Control.open`
        """
        session = self._session
        if not session.quiet and any(voter.tag == session.identity.tag for voter in session.voters):
            await self._open_control()

    async def start(self) -> None:
        """Tell the policy, and let in who brings a token: once this node has keys."""
        if self._key_desk is not None:
            self._key_desk.start()
        folder = self._session.context.authority_dir
        if self.control is not None and folder is not None:
            await self._open_door(AuthorityFolder.open(folder), self.control)

    def follow(self, record: PolicyRecord) -> None:
        """Erase keys and revoke logins as a newer policy asks."""
        if self.control is not None:
            self.control.keymaster.erase_shredded(record)
        if self.login_revoker is not None:
            self.login_revoker.note(record)

    def server_back(self) -> None:
        """A server may have been started anew."""
        if self.login_revoker is not None:
            self.login_revoker.server_back()

    async def _open_control(self) -> None:
        """The voter's part: the control log, and the questions only a voter answers."""
        session = self._session
        self.control = await (self._found() if len(session.voters) == 1 else self._join())
        self._key_desk = KeyDesk(self.control, session)
        self.control.issuing.mint = lambda identity, grants: session.enrolment.store.mint(
            identity, grants, session.subjects, session.hlc.now_ms()
        )
        self.control.issuing.holds = session.context.authority_dir is not None
        self.control.certificates = session.upkeep.trust.certificates
        session.responder.answers("challenge", self.control.challenge)
        desk = LeadersDesk(session.responder, self.control.keymaster)
        desk.answers("keys", self.control.keys_for)
        desk.answers("grants", self.control.grants)
        desk.answers("grant_show", self.control.show)
        desk.answers("member", self.control.member)
        desk.answers("member_admit", self.control.admit_by)
        desk.answers("grant_issue", self._issue)
        desk.answers("grant_revoke", self.control.revoke)
        self._key_desk.register(desk)
        Membership(self.control, session).register(desk)
        session.responder.answers("group_leader", self.control.group_leader)
        session.responder.answers("group_step_down", self.control.group_step_down)
        self.control.desk.register(session.responder)
        self.control.log_desk.register(session.responder)

    async def _found(self) -> Control:
        """The log of a mesh with one voter."""
        session = self._session
        return await Control.open(
            voter_folder(session.context.state_dir, session.identity, session.voters),
            session.enrolment.keys,
            session.identity,
            session.book,
            session.directory,
            session.hlc,
            session.voters,
        )

    async def _join(self) -> Control:
        """This voter's part of the log of several."""
        session = self._session
        return await Control.join(
            voter_folder(session.context.state_dir, session.identity, session.voters),
            session.enrolment.store.memory.folder,
            session.party,
            session.enrolment.keys,
            session.book,
            Talk(session.voters, session.asker, session.responder, session.ledger.reject),
        )

    async def _open_door(self, authority: AuthorityFolder, control: Control) -> None:
        """Let in whoever brings a join token: this voter's folder holds the issuer, and the first of the voters does it."""
        session = self._session
        issuing = control.issuing
        standing = issuing.standing = Standing(authority, session.context.state_dir / "nodes")
        issuing.renew = lambda identity: standing.identity(
            identity, session.subjects, session.context.voters, session.hlc.now_ms()
        )
        if session.voters[0].tag != session.identity.tag:
            return
        self.login_revoker = LoginRevoker(authority, control, session)
        jobs: set[asyncio.Task[dict[str, Any]]] = set()

        def admitted(identity: Identity, grants: list[Grant]) -> None:
            told = {"identity": identity.raw.hex(), "grants": [grant.raw.hex() for grant in grants]}
            job = session.loop.create_task(session.ask_voters.decided("member_admit", told, ADMIT_S))
            jobs.add(job)
            job.add_done_callback(done)

        def done(job: asyncio.Task[dict[str, Any]]) -> None:
            jobs.discard(job)
            if not job.cancelled() and job.exception() is not None:
                # The node brings its papers along when it asks for keys, and is noted then.
                session.ledger.problems.append(f"a node that joined was not noted: {job.exception()}")

        self._doorkeeper = Doorkeeper(
            authority,
            session.transport,
            session.subjects,
            session.hlc,
            url=session.context.url,
            voters=session.context.voters,
            reject=session.ledger.reject,
            admitted=admitted,
        )
        await self._doorkeeper.start()

    async def _issue(self, asker: Identity, args: dict[str, Any]) -> dict[str, Any]:
        session = self._session
        assert self.control is not None
        grant, answer = await self.control.issue(asker, args)
        holder = session.directory.lookup(grant.tag)
        if holder is not None and holder.tag == session.identity.tag:
            session.upkeep.log_in_anew()
        elif holder is not None and session.directory.alive(grant.tag):
            with contextlib.suppress(MeshfoldError):
                await session.asker.ask(holder, "granted", {}, TELL_S)
        return answer

    async def stop(self) -> None:
        """End what speaks with others; the log stays until `close`."""
        for part in (self._doorkeeper, self.login_revoker, self._key_desk):
            if part is not None:
                await part.close()
        if self.control is not None:
            await self.control.leave()

    async def close(self) -> None:
        """Close the control log: last, when nobody asks any more."""
        if self.control is not None:
            await self.control.close()

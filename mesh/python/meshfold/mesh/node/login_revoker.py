"""Pushes revocation to the broker: whoever lost a grant is cut off there, and its login refused, before that ends by itself.

The voter that holds the issuer does it. A login is named in the account's JWT by its key and a time: what was issued until
then no longer counts. A node that has grants left gets a moment to fetch a login of what is left, however that moment ends;
one that was retired is refused until the last of its logins has ended. A server that was started anew has forgotten, and is
told again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from typing import TYPE_CHECKING, Final

from meshfold.core.errors import MeshfoldError, TransportTimeout
from meshfold.mesh.broker import account_update_subject
from meshfold.mesh.enrolment import AuthorityFolder
from meshfold.mesh.enrolment.authority_folder import LOGIN_S_MAX
from meshfold.mesh.node.control import Control
from meshfold.mesh.transport import NatsTransport
from meshfold.security import Grant, Identity, PolicyRecord

if TYPE_CHECKING:
    from meshfold.mesh.node.session import Session

__all__ = ("LoginRevoker",)

#: Before anybody is cut off, the policy that does it is told.
TOLD_S: Final = 0.2
#: So long a node with grants left has to fetch a login of what is left.
LEAD_S: Final = 2.0
RETRY_S: Final = 1.0
TRIES_MAX: Final = 5
ASK_S: Final = 5.0
CLOSE_S: Final = 10.0


class LoginRevoker:
    """One session's, of a voter that holds the issuer."""

    def __init__(self, authority: AuthorityFolder, control: Control, session: Session) -> None:
        self._authority = authority
        self._control = control
        self._session = session
        self._wake = asyncio.Event()
        self._told = not authority.revokes_logins
        if not self._told:
            # An earlier life may have ended while it spared a login.
            authority.revoke_logins(authority.revocations_seen, {}, int(time.time()))
        self._closing = asyncio.Event()
        #: times a server took the newer account
        self.pushed = 0
        self._job = asyncio.get_running_loop().create_task(self._run())
        self._wake.set()

    def note(self, record: PolicyRecord) -> None:
        """Look at a newer policy soon."""
        if record.revoked != self._authority.revocations_seen:
            self._wake.set()

    def server_back(self) -> None:
        """A server may have been started anew: tell it again what is revoked."""
        if self._authority.revokes_logins:
            self._told = False
            self._wake.set()

    async def _run(self) -> None:
        while not self._closing.is_set():
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._revoke()
            except (MeshfoldError, OSError) as error:
                self._session.ledger.problems.append(f"logins not revoked at the broker: {error}")

    async def _revoke(self) -> None:
        revoked, now_s = self._session.safety.keeper.record.revoked, int(time.time())
        fresh = revoked - self._authority.revocations_seen
        if revoked != self._authority.revocations_seen:
            holders = self._holders(fresh)
            retired = {one.login_pub: _ends_s(one, now_s) for one in holders if one.node_pub in revoked}
            logins = {one.login_pub: now_s for one in holders if one.node_pub not in revoked}
            left = [one for one in holders if self._session.book.grants_of(one.tag)]
            spare = frozenset(one.login_pub for one in left) & logins.keys()
            self._authority.revoke_logins(revoked, logins, now_s, retired=retired, spare=spare)
            self._told = False
            try:
                # The word of the revocation goes first: whoever is cut off by it shall know why.
                await self._pause(TOLD_S)
                await self._session.transport.barrier()
                await self._push()
                if spare:
                    await self._pause(LEAD_S)
            finally:
                if spare:
                    self._authority.revoke_logins(revoked, {}, now_s)
                    self._told = False
        if not self._told:
            await self._push()

    def _holders(self, fresh: frozenset[bytes]) -> list[Identity]:
        """Members that a revocation is about: their key, a grant of theirs, or a link above it."""
        noted = [Identity.parse(one.value) for one in self._control.log.state.snapshot("member/").values()]
        members = [self._session.directory.lookup(one.tag) or one for one in noted]
        concerned = {one.tag for one in members if one.node_pub in fresh}
        for saved in self._control.log.state.snapshot("grant/").values():
            grant = Grant.parse(saved.value)
            if any(link.hash in fresh or link.subject_pub in fresh for link in grant.links):
                concerned.add(grant.tag)
        concerned.discard(self._session.identity.tag)
        return [one for one in members if one.tag in concerned]

    async def _push(self) -> None:
        """Give the newest account to the servers.

        :raises MeshfoldError: if none takes it; it is tried again when one is back
        """
        inbox = f"_MF.issuer-{os.urandom(8).hex()}"
        login = self._authority.system_login(inbox)
        if login is None or self._session.context.login is not None:
            self._told = True
            return
        transport = NatsTransport(
            self._session.context.url,
            name="issuer",
            login=login.over(self._session.context.tls),
            inbox_prefix=inbox,
        )
        papers = self._authority.papers
        try:
            await transport.connect()
            if not transport.server["nonce"]:
                # A server that asks for no login has none to revoke.
                self._told = True
                return
            subject = account_update_subject(papers.account_pub)
            for _ in range(TRIES_MAX):
                with contextlib.suppress(TransportTimeout):
                    answer = await transport.request(subject, papers.account_jwt.encode(), timeout_s=ASK_S)
                    if b'"error"' not in answer.data:
                        self._told = True
                        self.pushed += 1
                        return
                await self._pause(RETRY_S)
                if self._closing.is_set():
                    break
        finally:
            await transport.close()
        raise TransportTimeout("no server takes the account", subject=subject, timeout_s=ASK_S)

    async def close(self) -> None:
        """Stop, when what is under way is done: a connection that is cut while it is made would be left open."""
        self._closing.set()
        self._wake.set()
        await asyncio.wait({self._job}, timeout=CLOSE_S)
        self._job.cancel()
        await asyncio.gather(self._job, return_exceptions=True)

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._closing.wait(), seconds)


def _ends_s(retired: Identity, now_s: int) -> int:
    """When no login of a retired node holds any more, seconds since 1970: a narrow one lives as long as its identity."""
    return max(retired.not_after_ms // 1000, now_s + LOGIN_S_MAX) + 1

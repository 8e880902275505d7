"""The issuer's side of joining: answers requests on the enrolment subject (SECURITY 3.0, rows of tokens in HOSTILE).

Everything that comes here is hostile until the token's secret says otherwise. Work is bounded: so many requests at once,
one file read for each; an answer is written down before it is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec
from meshfold.core.errors import ConfigError, FrameRejected
from meshfold.core.jobs import end_jobs
from meshfold.core.ports import Message, Transport
from meshfold.core.registry import Action
from meshfold.mesh.clocks import HybridClock
from meshfold.mesh.enrolment.authority_folder import BACKDATE_MS, AuthorityFolder
from meshfold.mesh.enrolment.invites import Admission, Invite, Invites
from meshfold.mesh.enrolment.joining import JoinDocument
from meshfold.mesh.enrolment.local import GRANT_MS, IDENTITY_MS, LOGIN_S, capabilities_for, narrow_login
from meshfold.mesh.enrolment.member_folder import MemberFile
from meshfold.mesh.enrolment.permissions import permissions
from meshfold.mesh.subjects import Subjects
from meshfold.security import Capability, Grant, Identity
from meshfold.security.join import (
    UNKNOWN_ANSWER,
    JoinRequest,
    open_request,
    seal_answer,
    seal_refusal,
)

__all__ = ("Doorkeeper",)

REQUESTS_MAX: Final = 16
REQUEST_BYTES_MAX: Final = 4096


class Doorkeeper:
    """Lets in whoever holds a token. `admitted` hears of each new identity with its grants."""

    def __init__(
        self,
        authority: AuthorityFolder,
        transport: Transport,
        subjects: Subjects,
        hlc: HybridClock,
        *,
        url: str,
        voters: tuple[bytes, ...],
        reject: Callable[[str, str], None],
        admitted: Callable[[Identity, list[Grant]], None],
    ) -> None:
        self._authority = authority
        self._invites = Invites(authority)
        self._transport = transport
        self._subjects = subjects
        self._hlc = hlc
        self._url = url
        self._voters = voters
        self._reject = reject
        self._admitted = admitted
        self._jobs: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen. The broker has taken the subscription on return."""
        await self._transport.subscribe(self._subjects.every("e"), self._on_message)

    def _on_message(self, message: Message) -> None:
        if len(message.data) > REQUEST_BYTES_MAX or len(message.data) < 16 or len(self._jobs) >= REQUESTS_MAX:
            self._reject("limit" if len(message.data) >= 16 else "short", message.subject)
            return
        job = asyncio.get_running_loop().create_task(self._handle(message))
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    async def _handle(self, message: Message) -> None:
        try:
            answer = self.answer(message.data)
        except FrameRejected as error:
            self._reject(error.reason, message.subject)
            return
        except ConfigError:
            # Nothing was written down, so nothing may be promised; the asker asks again.
            self._reject("limit", message.subject)
            return
        if message.reply:
            await self._transport.publish(message.reply, answer)

    def answer(self, data: bytes) -> bytes:
        """Answer one request.

        :raises FrameRejected: if nothing can be said to whoever sent it
        :raises ConfigError: if the answer could not be kept
        """
        invite = self._invites.find(data[:16])
        if invite is None:
            self._reject("member", "join request with an unknown token")
            return UNKNOWN_ANSWER
        token = invite.token
        try:
            request = open_request(data, token, self._authority.issuer.enrol_private)
        except FrameRejected as error:
            if "body" not in error.fields:
                raise
            self._reject("tag", f"token of {token.name}")
            text = "the token is not the one that was made: ask for a new one"
            return seal_refusal("altered", text, token, error.fields["body"])  # type: ignore[arg-type]
        if self._hlc.now_ms() > token.expires_ms:
            self._reject("time", f"token of {token.name}")
            return seal_refusal("expired", "the token has expired; ask for a new one", token, request.body)
        admission = invite.admission(request.body)
        if admission is None and invite.spent:
            self._reject("replay", f"token of {token.name}")
            code, text = (
                "used",
                "the token was used by another request; if that was not you, tell who invited you",
            )
            if token.fleet:
                code, text = "spent", f"the token has let in its {invite.uses} nodes; ask for a new one"
            return seal_refusal(code, text, token, request.body)
        if admission is None:
            admission = self._admit(invite, request)
        return seal_answer(admission.document, token, request, self._authority.issuer)

    def _capabilities(self, invite: Invite, name: str) -> list[Capability]:
        """What the node gets: a fleet's node owns routes under its own name, which nobody knew when the token was made."""
        if invite.token.fleet and invite.capabilities:
            return list(capabilities_for(name))
        return [Capability(Action(actions), pattern) for actions, pattern in invite.capabilities]

    def _admit(self, invite: Invite, request: JoinRequest) -> Admission:
        token, issuer, now_ms = invite.token, self._authority.issuer, self._hlc.now_ms()
        name = token.node_name(request.node_pub)
        identity = issuer.issue_identity(
            node_pub=request.node_pub,
            wrap_pub=request.wrap_pub,
            login_pub=request.login_pub,
            name=name,
            roles=token.roles,
            not_before_ms=now_ms - BACKDATE_MS,
            not_after_ms=now_ms + IDENTITY_MS,
        )
        grants: list[Grant] = []
        if capabilities := self._capabilities(invite, name):
            grants.append(
                issuer.issue_grant(
                    identity.node_pub,
                    capabilities,
                    not_before_ms=now_ms - BACKDATE_MS,
                    not_after_ms=now_ms + GRANT_MS,
                    policy_epoch=0,
                )
            )
        login = self._authority.mint_login(
            identity.login_pub,
            name=identity.name,
            permissions=permissions(identity, grants, self._subjects, self._voters),
            expires_s=now_ms // 1000 + LOGIN_S,
        )
        narrow = narrow_login(self._authority, identity, self._subjects, self._voters)
        trust = issuer.trust
        document = JoinDocument(
            member=MemberFile(
                mesh=token.mesh,
                cluster=token.cluster,
                url=token.url or self._url,
                site=self._subjects.site,
                identity_root=trust.identity_root,
                grant_root=trust.grant_root,
                certificates=trust.certificates,
                voters=self._voters,
            ),
            identity=identity.raw,
            grants=[grant.raw for grant in grants],
            login_jwt=login,
            narrow_jwt=narrow,
        )
        admission = Admission(request.body, msgspec.msgpack.encode(document))
        self._invites.save(msgspec.structs.replace(invite, admissions=[*invite.admissions, admission]))
        self._admitted(identity, grants)
        return admission

    async def close(self) -> None:
        """Stop working on requests."""
        await end_jobs(self._jobs)

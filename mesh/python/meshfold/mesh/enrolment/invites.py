"""Invites on the issuer's side: which tokens were made, and to which request each is bound.

One file for each token, named by its id. A token binds to the first valid request; that request gets the same answer
until the token's end, and no other gets any. A fleet's token binds so to a stated number of requests.
"""

from __future__ import annotations

import os
import time
from typing import Final

import msgspec
from meshfold.core.errors import ConfigError
from meshfold.mesh.broker import Permissions
from meshfold.mesh.enrolment.authority_folder import AuthorityFolder, write_private
from meshfold.mesh.subjects import Subjects, cluster_text
from meshfold.security import Capability
from meshfold.security.join import SECRET_BYTES, JoinToken

__all__ = ("Invite", "Invites")

INVITES_MAX: Final = 10_000
#: Nodes that one token lets in, over all its time; each is remembered with what it was answered.
USES_MAX: Final = 1000
ROLES: Final = ("node", "operator")


class Admission(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A request that a token is bound to, and the document it was answered with."""

    body: bytes
    document: bytes


class Invite(msgspec.Struct, forbid_unknown_fields=True):
    """A token as it was made, what it will grant, and what became of it."""

    token: JoinToken
    #: (actions, pattern) of the grant that joining brings; a fleet's node gets instead what its own name is granted
    capabilities: list[tuple[int, str]]
    uses: int = 1
    admissions: list[Admission] = []

    def admission(self, body: bytes) -> Admission | None:
        """What a request with this body was answered, if the token is bound to it."""
        return next((one for one in self.admissions if one.body == body), None)

    @property
    def spent(self) -> bool:
        """Whether it is bound to as many requests as it may be."""
        return len(self.admissions) >= self.uses


class Invites:
    """The invites of an authority's folder."""

    def __init__(self, authority: AuthorityFolder) -> None:
        self._authority = authority
        self._folder = authority.path / "invites"

    def make(
        self,
        *,
        mesh: str,
        name: str,
        roles: tuple[str, ...],
        capabilities: tuple[Capability, ...],
        url: str,
        expires_ms: int,
        site: str = "local",
        uses: int = 1,
    ) -> JoinToken:
        """Make a token for a node of that name, or for `uses` nodes whose names begin with it.

        :raises ConfigError: if there are too many invites or uses, or the folder cannot be written
        """
        if not 1 <= uses <= USES_MAX:
            raise ConfigError(f"a token for {uses} nodes", fix=f"1 to {USES_MAX}", item="--uses")
        if sum(1 for _ in self._folder.glob("*")) >= INVITES_MAX:
            self._prune(time.time_ns() // 1_000_000)
        if sum(1 for _ in self._folder.glob("*")) >= INVITES_MAX:
            raise ConfigError(
                f"more than {INVITES_MAX} invites",
                fix="withdraw some: meshfold invite --list, --withdraw ID",
                item="invites",
            )
        issuer = self._authority.issuer
        token = JoinToken(
            mesh=mesh,
            cluster=issuer.cluster,
            authority=issuer.trust.authority_hash,
            enrol_pub=issuer.certificate.enrol_pub,
            secret=os.urandom(SECRET_BYTES),
            name=name,
            roles=roles,
            expires_ms=expires_ms,
            url=url,
            fleet=uses > 1,
        )
        key = os.urandom(32)
        token = msgspec.structs.replace(token, login_key=key, login_jwt=self._login(token, key, site))
        capability_list = [(int(capability.actions), capability.pattern) for capability in capabilities]
        self.save(Invite(token, capability_list, uses))
        return token

    def _login(self, token: JoinToken, key: bytes, site: str) -> str:
        """A login that may do nothing but ask to join with this token."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        subjects = Subjects(token.cluster, site)
        return self._authority.mint_login(
            Ed25519PrivateKey.from_private_bytes(key).public_key().public_bytes_raw(),
            name=f"join {token.name}",
            permissions=Permissions(
                pub=(subjects.enrol(token.id),), sub=(f"{subjects.enrol_inbox(token.id)}.>",)
            ),
            expires_s=token.expires_ms // 1000,
        )

    def find(self, token_id: bytes) -> Invite | None:
        """The invite of a token's id, if there is one.

        :raises ConfigError: if its file is damaged
        """
        path = self._folder / token_id.hex()
        try:
            return msgspec.msgpack.decode(path.read_bytes(), type=Invite)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            raise ConfigError(f"the invite {path} cannot be used: {error}", item=str(path)) from None

    def save(self, invite: Invite) -> None:
        """Keep an invite durably.

        :raises ConfigError: if it cannot be written
        """
        path = self._folder / invite.token.id.hex()
        try:
            write_private(path, msgspec.msgpack.encode(invite))
        except OSError as error:
            raise ConfigError(f"cannot write the invite {path}: {error.strerror}", item=str(path)) from error

    def withdraw(self, beginning: str) -> Invite:
        """Forget a token by its id, or the beginning of it; a node that joined with it stays a member.

        :raises ConfigError: if no token, or more than one, is meant
        """
        found = [one for one in self.all() if one.token.id.hex().startswith(beginning)]
        if len(found) != 1 or not beginning:
            raise ConfigError(
                f"{beginning!r} names {len(found)} tokens",
                fix="`meshfold invite --list` shows them",
                item="--withdraw",
            )
        (self._folder / found[0].token.id.hex()).unlink(missing_ok=True)
        return found[0]

    def _prune(self, now_ms: int) -> None:
        """Forget what ended: to its holder an unknown token and an expired one are the same."""
        for one in self.all():
            if one.token.expires_ms < now_ms:
                (self._folder / one.token.id.hex()).unlink(missing_ok=True)

    def all(self) -> list[Invite]:
        """Every invite, soonest end first."""
        found = [
            self.find(bytes.fromhex(path.name)) for path in self._folder.iterdir() if len(path.name) == 32
        ]
        return sorted((one for one in found if one is not None), key=lambda one: one.token.expires_ms)


def describe(invite: Invite, now_ms: int) -> dict[str, object]:
    """An invite for people: everything but its secret."""
    token = invite.token
    state = "used" if invite.spent else ("expired" if now_ms > token.expires_ms else "open")
    return {
        "id": token.id.hex(),
        "mesh": token.mesh,
        "cluster": cluster_text(token.cluster),
        "name": token.name,
        "roles": list(token.roles),
        "expires_ms": token.expires_ms,
        "state": state,
        "uses": invite.uses,
        "used": len(invite.admissions),
    }

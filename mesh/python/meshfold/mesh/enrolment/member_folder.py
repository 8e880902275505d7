"""The folder of a joined node: its keys, identity, grants, login, and what it trusts.

sign.key wrap.key login.key   the node's keys, made here and never sent
join.body                     the join request under way, or done: asked again it gives the same answer
identity, *.grant             what the mesh granted
login.jwt                     the broker's login, replaced before it ends
narrow.jwt                    a login that only asks the voters for a new one, where that ended or was revoked
member.json                   mesh, cluster, servers, site, roots, issuers, voters
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import msgspec
from meshfold.core.errors import ConfigError, FrameRejected
from meshfold.mesh.context import Context
from meshfold.mesh.enrolment.authority_folder import (
    grants_in,
    keep_grants,
    read_identity,
    retire_grants,
    write_private,
)
from meshfold.mesh.enrolment.kit import Enrolment
from meshfold.mesh.enrolment.memory import NodeMemory
from meshfold.mesh.subjects import Subjects
from meshfold.mesh.transport import Login
from meshfold.mesh.transport.login import check_login
from meshfold.security import Grant, Identity, NodeKeys, Trust

__all__ = ("MemberFile", "MemberFolder")


class MemberFile(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What a joined node knows of its mesh; also the document of a join answer, with identity, grants and login."""

    mesh: str
    cluster: bytes
    url: str
    site: str
    identity_root: bytes
    grant_root: bytes
    certificates: tuple[bytes, ...]
    voters: tuple[bytes, ...]

    def trust(self) -> Trust:
        """What the node pins."""
        return Trust(self.cluster, self.identity_root, self.grant_root, self.certificates)


@dataclass(frozen=True)
class MemberFolder:
    """State of a joined node on disk. Implements `EnrolmentStore`."""

    path: Path
    keys: NodeKeys
    file: MemberFile
    _memory: NodeMemory

    @classmethod
    def exists(cls, path: Path) -> bool:
        """Whether a node has joined here."""
        return (path / "member.json").exists()

    @classmethod
    def open(cls, path: Path) -> MemberFolder:
        """Open the folder of a node that has joined.

        :raises ConfigError: if none has, or a file cannot be used
        """
        try:
            file = msgspec.json.decode((path / "member.json").read_bytes(), type=MemberFile)
        except FileNotFoundError:
            raise ConfigError(
                f"no node has joined a mesh in {path}",
                fix="join one: meshfold join --dir DIR",
                item=str(path),
            ) from None
        except OSError as error:
            raise ConfigError(f"cannot read {path}: {error.strerror}", item=str(path)) from error
        except msgspec.MsgspecError as error:
            raise ConfigError(f"{path / 'member.json'} is damaged: {error}", item=str(path)) from None
        return cls(path, NodeKeys.load(path), file, NodeMemory(path))

    @property
    def memory(self) -> NodeMemory:
        """What the node remembers over its restarts."""
        return self._memory

    def context(self) -> Context:
        """The context by which nodes and commands find the mesh from here."""
        identity = read_identity(self.path)
        assert identity is not None
        return Context(
            self.file.mesh,
            self.file.cluster,
            self.file.url,
            self.path,
            None,
            self.file.voters,
            0,
            site=self.file.site,
            member=identity.name,
        )

    def enrolment(self) -> Enrolment:
        """What the node brings.

        :raises ConfigError: if identity or grants are damaged
        """
        try:
            identity = read_identity(self.path)
            grants = grants_in(self.path)
        except (FrameRejected, OSError) as error:
            raise ConfigError(
                f"the node's papers in {self.path} are damaged: {error}", item=str(self.path)
            ) from None
        if identity is None:
            raise ConfigError(
                f"no identity in {self.path}", fix="join again in another folder", item="identity"
            )
        return Enrolment(self.keys, identity, grants, self.file.trust(), self.file.voters, self)

    def login(self, subjects: Subjects, now_ms: Callable[[], int]) -> Login:
        """The stored logins, read anew at each connect."""
        narrow = self.path / "narrow.jwt"
        return Login(
            jwt=(self.path / "login.jwt").read_text,
            narrow=narrow.read_text if narrow.exists() else None,
            sign=self.keys.login_sign,
        )

    def keep(self, grants: Iterable[Grant], trust: Trust, login_jwt: str) -> bool:
        """Keep what a voter sent; whether the next login differs from the last.

        :raises FrameRejected: if the login is a bearer's, has no end or too late a one; nothing was kept then
        """
        if login_jwt:
            check_login(login_jwt)
        changed = keep_grants(self.path, grants)
        if trust.certificates != self.file.certificates:
            fresh = msgspec.structs.replace(self.file, certificates=trust.certificates)
            write_private(self.path / "member.json", msgspec.json.encode(fresh))
        if login_jwt and login_jwt != (self.path / "login.jwt").read_text():
            write_private(self.path / "login.jwt", login_jwt.encode())
            changed = True
        return changed

    def keep_identity(self, identity: Identity, narrow_jwt: str) -> None:
        """Keep a newer identity, and the login that asks for another."""
        write_private(self.path / "identity", identity.raw)
        if narrow_jwt:
            write_private(self.path / "narrow.jwt", narrow_jwt.encode())

    def keep_voters(self, voters: tuple[bytes, ...]) -> None:
        """Keep the voters' newer identities."""
        fresh = msgspec.structs.replace(MemberFolder.open(self.path).file, voters=voters)
        write_private(self.path / "member.json", msgspec.json.encode(fresh))
        MemberFolder(self.path, self.keys, fresh, self._memory).context().save(link=False)

    def forget(self, hashes: Iterable[bytes]) -> None:
        """Put revoked grants out of use."""
        retire_grants(self.path, hashes)

    def mint(
        self, identity: Identity, grants: Iterable[Grant], subjects: Subjects, now_ms: int
    ) -> str | None:
        """A joined node mints nothing."""
        return None

    def __repr__(self) -> str:
        return f"MemberFolder({self.path}, REDACTED)"

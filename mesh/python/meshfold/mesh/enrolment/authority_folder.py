"""The folder of a mesh's authority: the sealed root, the online issuer, the broker's papers, the invites.

cluster          the mesh's id
root.sealed      identity root, grant root, broker operator and account keys, sealed under a passphrase or key file
broker.json      operator and account JWT: public
revoked.json     logins that the broker shall no longer take
issuer/          what the online issuer signs with, and its certificate and delegation
invites/         one file for each join token that was made
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from meshfold.core.errors import ConfigError
from meshfold.mesh.broker import Papers, Permissions, account_update_subject, mint_account, mint_user
from meshfold.mesh.transport import Login
from meshfold.security import Authority, Grant, Identity, Issuer, seal_secret, unseal_secret
from meshfold.security.keys import load_secret, save_secret

__all__ = ("AuthorityFolder", "RootLock", "write_private")

ISSUER_MS: Final = 90 * 86_400_000
#: What is signed now must hold on a peer whose clock is a little behind.
BACKDATE_MS: Final = 60_000
SECRET_BYTES: Final = 4 * 32
#: No login of full rights lives longer.
LOGIN_S_MAX: Final = 86_400
SYSTEM_LOGIN_S: Final = 60
#: Keys of the issuer, beside `account.key`, which mints users: what signs newer accounts, and what tells servers of them.
OPERATOR_KEY: Final = "operator.key"
SYSTEM_KEY: Final = "system.key"
#: A retired node's logins are refused as if issued until then: seconds since 1970, far beyond any.
FOR_GOOD_S: Final = 2**40
#: Behind the name of a grant's file that was revoked.
REVOKED_SUFFIX: Final = ".revoked"


def write_private(path: Path, data: bytes) -> None:
    """Replace a file atomically and durably, mode 0600."""
    fresh = path.with_name(path.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


@dataclass(frozen=True, slots=True)
class RootLock:
    """What the root is sealed under. Prints as REDACTED."""

    passphrase: bytes | None = None
    key: bytes | None = None

    @classmethod
    def file(cls, path: Path) -> RootLock:
        """A key file of 32 bytes, mode 0600.

        :raises ConfigError: if it is missing, readable by others or of another length
        """
        return cls(key=load_secret(path))

    @classmethod
    def new_file(cls, path: Path) -> RootLock:
        """Make a key file with fresh random bytes.

        :raises ConfigError: if the file is there already, or cannot be written
        """
        try:
            save_secret(path, os.urandom(32))
        except OSError as error:
            raise ConfigError(
                f"cannot write the key file {path}: {error.strerror}", item=str(path)
            ) from error
        return cls.file(path)

    def __repr__(self) -> str:
        return "RootLock(REDACTED)"


class _Broker(msgspec.Struct, forbid_unknown_fields=True):
    operator_jwt: str
    account_jwt: str
    account_pub: str
    system_jwt: str = ""
    system_pub: str = ""


class _Revoked(msgspec.Struct, forbid_unknown_fields=True):
    #: what the policy revoked and was worked through here, in hex
    seen: list[str] = []
    #: login key in hex -> logins issued until then, seconds since 1970, are refused
    logins: dict[str, int] = {}
    #: login key of a retired node in hex -> when the last of its logins ends: they are refused whenever they were issued
    retired: dict[str, int] = {}


class AuthorityFolder:
    """An opened authority. Whoever can read the folder can admit nodes; the root itself stays sealed."""

    def __init__(self, path: Path, issuer: Issuer, papers: Papers, signing_key: bytes) -> None:
        self.path = path
        self.issuer = issuer
        self.papers = papers
        self._signing_key = signing_key
        self._revoked = _Revoked()

    @property
    def cluster(self) -> bytes:
        """The mesh."""
        return self.issuer.cluster

    @classmethod
    def found(cls, path: Path, cluster: bytes, lock: RootLock, now_ms: int) -> AuthorityFolder:
        """Make the authority of a new mesh.

        :raises ConfigError: if one is there already, or the folder cannot be written
        """
        if (path / "root.sealed").exists():
            raise ConfigError(
                f"{path} already holds an authority", fix="choose another folder", item=str(path)
            )
        try:
            (path / "issuer").mkdir(parents=True, exist_ok=True, mode=0o700)
            (path / "invites").mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {error.strerror}", item=str(path)) from error
        path.chmod(0o700)
        authority = Authority.generate(cluster)
        keys = [Ed25519PrivateKey.generate().private_bytes_raw() for _ in range(5)]
        operator, account, signing, operator_signing, system = keys
        signing_pub = Ed25519PrivateKey.from_private_bytes(signing).public_key().public_bytes_raw()
        papers = Papers.mint(
            operator, account, (signing_pub,), operator_signing=operator_signing, system_key=system
        )
        issuer = Issuer.generate(
            authority, not_before_ms=now_ms - BACKDATE_MS, not_after_ms=now_ms + ISSUER_MS
        )
        write_private(path / "cluster", cluster)
        _write_broker(path, papers)
        issuer.save(path / "issuer")
        save_secret(path / "issuer" / "account.key", signing)
        save_secret(path / "issuer" / OPERATOR_KEY, operator_signing)
        save_secret(path / "issuer" / SYSTEM_KEY, system)
        # Last: with the sealed root the folder is whole.
        sealed = seal_secret(
            authority.secret() + operator + account, passphrase=lock.passphrase, key=lock.key
        )
        write_private(path / "root.sealed", sealed)
        return cls(path, issuer, papers, signing)

    @classmethod
    def open(cls, path: Path) -> AuthorityFolder:
        """Open it for the issuer's work.

        :raises ConfigError: if it is not there, not readable or damaged
        """
        issuer = Issuer.load(path / "issuer")
        try:
            broker = msgspec.json.decode((path / "broker.json").read_bytes(), type=_Broker)
            papers = Papers(
                broker.operator_jwt,
                broker.account_jwt,
                bytes.fromhex(broker.account_pub),
                broker.system_jwt,
                bytes.fromhex(broker.system_pub),
            )
        except (OSError, ValueError, msgspec.MsgspecError) as error:
            raise ConfigError(f"{path / 'broker.json'} cannot be used: {error}", item=str(path)) from None
        folder = cls(path, issuer, papers, load_secret(path / "issuer" / "account.key"))
        folder._read_revoked()
        return folder

    def _read_revoked(self) -> None:
        """Take up what this or another process has revoked."""
        path = self.path / "revoked.json"
        try:
            self._revoked = msgspec.json.decode(path.read_bytes(), type=_Revoked)
        except FileNotFoundError:
            pass
        except (OSError, msgspec.MsgspecError) as error:
            raise ConfigError(f"{path} cannot be used: {error}", item=str(path)) from None

    def root(self, lock: RootLock) -> Authority:
        """Unseal the root.

        :raises ConfigError: if the lock is the wrong one
        """
        try:
            sealed = (self.path / "root.sealed").read_bytes()
        except OSError as error:
            raise ConfigError(
                f"cannot read {self.path / 'root.sealed'}: {error.strerror}", item=str(self.path)
            ) from error
        secret = unseal_secret(sealed, passphrase=lock.passphrase, key=lock.key)
        if len(secret) != SECRET_BYTES:
            raise ConfigError("the sealed root is of another format", item=str(self.path))
        return Authority.from_secret(self.cluster, secret)

    def renew(self, lock: RootLock, now_ms: int) -> None:
        """Give the issuer a new certificate and delegation of 90 days.

        :raises ConfigError: if the lock is the wrong one
        """
        self.issuer = self.issuer.renewed(
            self.root(lock), not_before_ms=now_ms - BACKDATE_MS, not_after_ms=now_ms + ISSUER_MS
        )
        self.issuer.save_papers(self.path / "issuer")

    def due(self, now_ms: int) -> bool:
        """Whether less than a third of the issuer's time is left."""
        return self.issuer.certificate.not_after_ms - now_ms < ISSUER_MS // 3

    def mint_login(
        self, login_pub: bytes, *, name: str, permissions: Permissions, expires_s: int, narrow: bool = False
    ) -> str:
        """Sign a login for the broker.

        A login of a node that was retired is refused like its others.

        :param narrow: it only asks the voters, so it outlives a revocation of grants, and ends with its node
        """
        self._read_revoked()
        # Issued after what a revocation names, which never is after what was refused for good.
        until_s = self._revoked.logins.get(login_pub.hex(), 0)
        return mint_user(
            self._signing_key,
            login_pub,
            name=name,
            permissions=permissions,
            expires_s=expires_s,
            account_pub=self.papers.account_pub,
            issued_s=expires_s if narrow else max(int(time.time()), until_s + 1),
        )

    @property
    def revocations_seen(self) -> frozenset[bytes]:
        """What the policy revoked and was worked through here."""
        return frozenset(map(bytes.fromhex, self._revoked.seen))

    @property
    def revokes_logins(self) -> bool:
        """Whether any login is revoked: a server that was started anew has to be told."""
        return bool(self._revoked.logins or self._revoked.retired)

    @property
    def retired(self) -> dict[bytes, int]:
        """Login keys of retired nodes, each with the time its last login ends, in seconds since 1970."""
        return {bytes.fromhex(key): ends_s for key, ends_s in self._revoked.retired.items()}

    def revoke_logins(
        self,
        revoked: frozenset[bytes],
        logins: Mapping[bytes, int],
        now_s: int,
        *,
        retired: Mapping[bytes, int] | None = None,
        spare: frozenset[bytes] = frozenset(),
    ) -> None:
        """Have the broker's papers refuse logins. On disk on return; whoever runs a server is told by `LoginRevoker`.

        :param revoked: everything the policy has revoked
        :param logins: login key -> logins issued until then (seconds since 1970) no longer count
        :param retired: login key -> when the node's identity and last login end (seconds since 1970): refused till then
        :param spare: those of them whose old login the broker still takes for a moment
        """
        gone = self._revoked.retired | {key.hex(): ends_s for key, ends_s in (retired or {}).items()}
        until = self._revoked.logins | {key.hex(): until_s for key, until_s in logins.items()}
        # What ended by itself since need not be named any more.
        self._revoked = _Revoked(
            sorted(one.hex() for one in revoked),
            {key: until_s for key, until_s in until.items() if until_s > now_s - 2 * LOGIN_S_MAX},
            {key: ends_s for key, ends_s in gone.items() if ends_s >= now_s},
        )
        write_private(self.path / "revoked.json", msgspec.json.encode(self._revoked))
        if not self.papers.system_jwt:
            return
        signing_pub = Ed25519PrivateKey.from_private_bytes(self._signing_key).public_key().public_bytes_raw()
        named = self._revoked.logins | dict.fromkeys(self._revoked.retired, FOR_GOOD_S)
        told = {key: until_s for text, until_s in named.items() if (key := bytes.fromhex(text)) not in spare}
        account_jwt = mint_account(
            load_secret(self.path / "issuer" / OPERATOR_KEY), self.papers.account_pub, (signing_pub,), told
        )
        self.papers = replace(self.papers, account_jwt=account_jwt)
        _write_broker(self.path, self.papers)

    def system_login(self, inbox: str) -> Login | None:
        """A login of a minute that may tell the server of newer papers; None in a mesh founded without."""
        if not self.papers.system_jwt:
            return None
        key = Ed25519PrivateKey.generate()
        jwt = mint_user(
            load_secret(self.path / "issuer" / SYSTEM_KEY),
            key.public_key().public_bytes_raw(),
            name="issuer",
            permissions=Permissions((account_update_subject(self.papers.account_pub),), (f"{inbox}.>",)),
            expires_s=int(time.time()) + SYSTEM_LOGIN_S,
        )
        return Login(jwt=lambda: jwt, sign=key.sign)

    def __repr__(self) -> str:
        return f"AuthorityFolder({self.path}, REDACTED)"


def _write_broker(path: Path, papers: Papers) -> None:
    broker = _Broker(
        papers.operator_jwt,
        papers.account_jwt,
        papers.account_pub.hex(),
        papers.system_jwt,
        papers.system_pub.hex(),
    )
    write_private(path / "broker.json", msgspec.json.encode(broker))


def grants_in(folder: Path) -> tuple[Grant, ...]:
    """The grants kept in a node's folder."""
    return tuple(Grant.parse(path.read_bytes()) for path in sorted(folder.glob("*.grant")))


def keep_grants(folder: Path, grants: Iterable[Grant]) -> bool:
    """Keep further grants in a node's folder; whether any was new."""
    fresh = False
    for grant in grants:
        path = folder / f"{grant.hash.hex()}.grant"
        if not path.exists():
            write_private(path, grant.raw)
            fresh = True
    return fresh


def retire_grants(folder: Path, hashes: Iterable[bytes]) -> None:
    """Put grants of a node's folder out of use; the files stay, under another name."""
    gone = frozenset(hashes)
    for path in folder.glob("*.grant"):
        if Grant.parse(path.read_bytes()).hash in gone:
            path.rename(path.with_name(path.name + REVOKED_SUFFIX))


def read_identity(folder: Path) -> Identity | None:
    """The identity kept in a node's folder, if one is."""
    path = folder / "identity"
    return Identity.parse(path.read_bytes()) if path.exists() else None

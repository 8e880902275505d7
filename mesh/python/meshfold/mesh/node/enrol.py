"""Local enrolment: a process that can read a context's authority becomes a member under a name.

Grants by name (COMMANDS): `outsider` gets none; `operator` gets reading and administration of everything; any other
name gets OWN on routes whose owner token is that name, and META_READ and PAYLOAD_OPEN on `>`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from meshfold.core import escape_token
from meshfold.core.errors import ConfigError
from meshfold.core.registry import LAYERS, PLANES, Action
from meshfold.mesh.broker import mint_user
from meshfold.mesh.context import Context
from meshfold.mesh.node.permissions import permissions
from meshfold.mesh.subjects import Subjects
from meshfold.security import Authority, Capability, Grant, Identity, NodeKeys

__all__ = ("Enrolment", "enrol", "found_mesh", "identity_of", "keep_grant", "load_account_key")

OPERATOR = "operator"
OUTSIDER = "outsider"
IDENTITY_MS = 365 * 86_400_000
GRANT_MS = 30 * 86_400_000
#: Logins of local nodes live a day; a node that runs longer mints the next one itself.
LOGIN_S = 86_400
#: What is signed now must hold on a peer whose clock is a little behind.
BACKDATE_MS = 60_000


@dataclass(frozen=True)
class Enrolment:
    """All a node needs to take part."""

    keys: NodeKeys
    identity: Identity
    grants: tuple[Grant, ...]
    issuers: frozenset[bytes]
    grant_roots: frozenset[bytes]
    voters: tuple[bytes, ...]
    account_key: bytes

    def login(self, subjects: Subjects, now_ms: int) -> str:
        """Mint the NATS login whose permissions are those of the grants."""
        return mint_user(
            self.account_key,
            self.identity.login_pub,
            name=self.identity.name,
            permissions=permissions(self.identity, self.grants, subjects, self.voters),
            expires_s=now_ms // 1000 + LOGIN_S,
        )


def found_mesh(
    folder: Path, cluster: bytes, now_ms: int, voter: str, nodes_dir: Path
) -> tuple[Authority, Identity]:
    """Make the authority of a new mesh in `folder` (0700) and the identity of its first voter.

    :raises ConfigError: if the folder cannot be written
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if (folder / "account.key").exists():
        authority = Authority.load(folder)
    else:
        authority = Authority.generate(cluster)
        authority.save(folder)
        for name in ("operator.key", "account.key"):
            path = folder / name
            path.touch(mode=0o600)
            path.write_bytes(Ed25519PrivateKey.generate().private_bytes_raw())
    _, identity = _identity(authority, nodes_dir, voter, now_ms, ("node", "voter"))
    return authority, identity


def load_account_key(folder: Path, name: str = "account.key") -> bytes:
    """Read a raw 32-byte key of the authority.

    :raises ConfigError: if it is not there or not readable
    """
    try:
        raw = (folder / name).read_bytes()
    except OSError as error:
        raise ConfigError(
            f"cannot read {folder / name}: {error.strerror}",
            fix="run as the user that started the mesh",
            item=name,
        ) from error
    if len(raw) != 32:
        raise ConfigError(f"{folder / name} is not a 32-byte key", item=name)
    return raw


def _identity(
    authority: Authority, nodes_dir: Path, name: str, now_ms: int, roles: tuple[str, ...]
) -> tuple[NodeKeys, Identity]:
    folder = nodes_dir / escape_token(name)
    record = folder / "identity"
    if record.exists():
        return NodeKeys.load(folder), Identity.parse(record.read_bytes())
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    keys = NodeKeys.generate()
    keys.save(folder)
    identity = authority.issue_identity(
        node_pub=keys.node_pub,
        wrap_pub=keys.wrap_pub,
        login_pub=keys.login_pub,
        name=name,
        roles=roles,
        not_before_ms=now_ms - BACKDATE_MS,
        not_after_ms=now_ms + IDENTITY_MS,
    )
    record.write_bytes(identity.raw)
    return keys, identity


def capabilities_for(name: str) -> tuple[Capability, ...]:
    """What local enrolment grants to a name."""
    if name == OUTSIDER:
        return ()
    reading = Action.META_READ | Action.PAYLOAD_OPEN | Action.VALIDATE
    if name == OPERATOR:
        everything = reading | Action.DEBUG_READ | Action.REPLAY_READ | Action.KEY_ADMIN
        return (Capability(everything, ">"),)
    owner = escape_token(name)
    owned = tuple(
        Capability(Action.OWN, f"{plane}.{layer}.{owner}.>")
        for plane in PLANES
        for layer in LAYERS
        if layer != "shadow" or plane == "write"
    )
    return (Capability(reading, ">"), *owned)


def enrol(context: Context, name: str, now_ms: int) -> Enrolment:
    """Enrol this process as `name` in the mesh of `context`; the same name keeps its keys and identity.

    :raises ConfigError: if the authority's files cannot be read
    """
    authority = Authority.load(context.authority_dir)
    keys, identity = _identity(authority, context.state_dir / "nodes", name, now_ms, ("node",))
    capabilities = capabilities_for(name)
    # Kept like any other grant: the same one at each start, so that revoking it means something.
    own = context.state_dir / "nodes" / escape_token(name) / "local.grant"
    if capabilities and not (own.exists() and Grant.parse(own.read_bytes()).not_after_ms > now_ms):
        grant = authority.issue_grant(
            identity.node_pub,
            capabilities,
            not_before_ms=now_ms - BACKDATE_MS,
            not_after_ms=now_ms + GRANT_MS,
            policy_epoch=0,
        )
        own.write_bytes(grant.raw)
    return Enrolment(
        keys,
        identity,
        _kept(context, name),
        frozenset({authority.identity_pub}),
        frozenset({authority.grant_pub}),
        context.voters,
        load_account_key(context.authority_dir),
    )


def keep_grant(context: Context, name: str, grant: Grant) -> None:
    """Keep a further grant beside the identity of `name`; the node has it from its next start.

    :raises ConfigError: if no node of that name was ever enrolled here
    """
    folder = context.state_dir / "nodes" / escape_token(name)
    if not (folder / "identity").exists():
        raise ConfigError(
            f"no node named {name!r} was ever here", fix="`meshfold status` lists them", item=name
        )
    (folder / f"{grant.hash.hex()}.grant").write_bytes(grant.raw)


def identity_of(context: Context, name: str) -> Identity:
    """The identity that was enrolled here as `name`.

    :raises ConfigError: if there is none
    """
    path = context.state_dir / "nodes" / escape_token(name) / "identity"
    try:
        return Identity.parse(path.read_bytes())
    except OSError:
        raise ConfigError(
            f"no node named {name!r} was ever here", fix="`meshfold status` lists them", item=name
        ) from None


def _kept(context: Context, name: str) -> tuple[Grant, ...]:
    folder = context.state_dir / "nodes" / escape_token(name)
    return tuple(Grant.parse(path.read_bytes()) for path in sorted(folder.glob("*.grant")))

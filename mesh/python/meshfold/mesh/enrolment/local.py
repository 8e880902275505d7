"""Local enrolment: a process that can read a mesh's authority becomes a member under a name.

Grants by name (COMMANDS): `outsider` gets none; any other name gets OWN on routes whose owner token is that name, and
META_READ and PAYLOAD_OPEN on `>`; `operator` gets administration of everything, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from meshfold.core import escape_token
from meshfold.core.errors import ConfigError
from meshfold.core.registry import LAYERS, PLANES, Action
from meshfold.mesh.context import Context
from meshfold.mesh.enrolment.authority_folder import (
    BACKDATE_MS,
    LOGIN_S_MAX,
    REVOKED_SUFFIX,
    AuthorityFolder,
    grants_in,
    keep_grants,
    read_identity,
    retire_grants,
    write_private,
)
from meshfold.mesh.enrolment.kit import Enrolment
from meshfold.mesh.enrolment.memory import NodeMemory
from meshfold.mesh.enrolment.permissions import permissions
from meshfold.mesh.subjects import Subjects
from meshfold.mesh.transport import Login
from meshfold.security import Capability, Grant, Identity, NodeKeys, Trust

__all__ = (
    "capabilities_for",
    "check_voters",
    "enrol_locally",
    "identity_of",
    "keep_grant",
    "local_identity",
    "local_voters",
)

OPERATOR = "operator"
OUTSIDER = "outsider"
IDENTITY_MS = 365 * 86_400_000
GRANT_MS = 30 * 86_400_000
#: Logins live a day and are renewed at two thirds of it.
LOGIN_S = LOGIN_S_MAX
VOTERS_MAX = 7


class LocalStore:
    """Keeps grants in the node's folder and mints logins itself, from the grants it has."""

    def __init__(
        self, authority: AuthorityFolder, folder: Path, keys: NodeKeys, voters: tuple[bytes, ...]
    ) -> None:
        self._authority = authority
        self._folder = folder
        self._memory = NodeMemory(folder)
        self._keys = keys
        self._voters = voters

    @property
    def memory(self) -> NodeMemory:
        """What the node remembers over its restarts."""
        return self._memory

    def login(self, subjects: Subjects, now_ms: Callable[[], int]) -> Login:
        """A login minted anew at each connect."""
        identity = read_identity(self._folder)
        assert identity is not None
        return Login(
            jwt=lambda: self.mint(identity, grants_in(self._folder), subjects, now_ms()),
            sign=self._keys.login_sign,
        )

    def keep(self, grants: Iterable[Grant], trust: Trust, login_jwt: str) -> bool:
        """Keep further grants; whether any was new."""
        return keep_grants(self._folder, grants)

    def keep_identity(self, identity: Identity, narrow_jwt: str) -> None:
        """Keep a newer identity."""
        write_private(self._folder / "identity", identity.raw)

    def keep_voters(self, voters: tuple[bytes, ...]) -> None:
        """The voters' newer identities are in this machine's folders already."""

    def forget(self, hashes: Iterable[bytes]) -> None:
        """Put revoked grants out of use."""
        retire_grants(self._folder, hashes)

    def mint(self, identity: Identity, grants: Iterable[Grant], subjects: Subjects, now_ms: int) -> str:
        """A login whose permissions are those of the grants."""
        return self._authority.mint_login(
            identity.login_pub,
            name=identity.name,
            permissions=permissions(identity, grants, subjects, self._voters),
            expires_s=now_ms // 1000 + LOGIN_S,
        )


def narrow_login(
    authority: AuthorityFolder, identity: Identity, subjects: Subjects, voters: Sequence[bytes]
) -> str:
    """A login that asks the voters for another and does nothing else, for as long as its node's identity lives."""
    return authority.mint_login(
        identity.login_pub,
        name=identity.name,
        permissions=permissions(identity, (), subjects, voters),
        expires_s=identity.not_after_ms // 1000,
        narrow=True,
    )


def local_identity(
    authority: AuthorityFolder, nodes_dir: Path, name: str, now_ms: int, roles: tuple[str, ...]
) -> tuple[NodeKeys, Identity]:
    """Keys and identity of `name` in `nodes_dir`, made on first use, and renewed where it ends soon.

    :raises ConfigError: if they cannot be read
    """
    folder = nodes_dir / escape_token(name)
    known = read_identity(folder)
    if known is not None and not known.due(now_ms):
        return NodeKeys.load(folder), known
    if known is None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        keys = NodeKeys.generate()
        keys.save(folder)
    else:
        keys, roles = NodeKeys.load(folder), known.roles
    identity = authority.issuer.issue_identity(
        node_pub=keys.node_pub,
        wrap_pub=known.wrap_pub if known is not None else keys.wrap_pub,
        login_pub=keys.login_pub,
        name=name,
        roles=roles,
        not_before_ms=now_ms - BACKDATE_MS,
        not_after_ms=now_ms + IDENTITY_MS,
    )
    write_private(folder / "identity", identity.raw)
    return keys, identity


def local_voters(
    authority: AuthorityFolder, state_dir: Path, names: Sequence[str], now_ms: int
) -> tuple[bytes, ...]:
    """The records of the voters of a mesh whose state is in `state_dir`, the first of them first.

    :raises ConfigError: if that is no set of voters, or another than this mesh was founded with
    """
    check_voters(names)
    voters = [
        local_identity(authority, state_dir / "nodes", name, now_ms, ("node", "voter")) for name in names
    ]
    return tuple(identity.raw for _, identity in voters)


def check_voters(names: Sequence[str]) -> None:
    """Return if a mesh may have these voters.

    :raises ConfigError: if they are too many, an even number, or one is named twice
    """
    if len(names) % 2 == 0 or len(names) > VOTERS_MAX or len(set(names)) != len(names):
        raise ConfigError(
            f"{len(names)} voters: {', '.join(names)}",
            fix="name 1, 3, 5 or 7 different nodes: an even number stands no more losses than one less",
            item="voters",
        )


def capabilities_for(name: str, *, operator: bool = False) -> tuple[Capability, ...]:
    """What a name is granted when it enrols."""
    if name == OUTSIDER:
        return ()
    reading = Action.META_READ | Action.PAYLOAD_OPEN | Action.VALIDATE
    everywhere = reading
    if name == OPERATOR or operator:
        everywhere |= Action.DEBUG_READ | Action.REPLAY_READ | Action.KEY_ADMIN
    owner = escape_token(name)
    owned = tuple(
        Capability(Action.OWN, f"{plane}.{layer}.{owner}.>")
        for plane in PLANES
        for layer in LAYERS
        if layer != "shadow" or plane == "write"
    )
    return (Capability(everywhere, ">"), *owned)


def enrol_locally(context: Context, name: str, now_ms: int) -> Enrolment:
    """Enrol this process as `name` in the mesh of `context`; the same name keeps its keys and identity.

    :raises ConfigError: if the authority's files cannot be read
    """
    assert context.authority_dir is not None
    authority = AuthorityFolder.open(context.authority_dir)
    keys, identity = local_identity(authority, context.state_dir / "nodes", name, now_ms, ("node",))
    capabilities = capabilities_for(name)
    folder = context.state_dir / "nodes" / escape_token(name)
    # Kept like any other grant: the same one at each start, so that revoking it means something.
    own = folder / "local.grant"
    revoked = own.with_name(own.name + REVOKED_SUFFIX).exists()
    if (
        capabilities
        and not revoked
        and not (own.exists() and Grant.parse(own.read_bytes()).not_after_ms > now_ms)
    ):
        grant = authority.issuer.issue_grant(
            identity.node_pub,
            capabilities,
            not_before_ms=now_ms - BACKDATE_MS,
            not_after_ms=now_ms + GRANT_MS,
            policy_epoch=0,
        )
        write_private(own, grant.raw)
    store = LocalStore(authority, folder, keys, context.voters)
    return Enrolment(keys, identity, grants_in(folder), authority.issuer.trust, context.voters, store)


def keep_grant(context: Context, name: str, grant: Grant) -> None:
    """Keep a further grant beside the identity of `name`, if it was enrolled here."""
    folder = context.state_dir / "nodes" / escape_token(name)
    if read_identity(folder) is not None:
        keep_grants(folder, (grant,))


def identity_of(context: Context, name: str) -> Identity:
    """The identity that was enrolled here as `name`.

    :raises ConfigError: if there is none
    """
    found = read_identity(context.state_dir / "nodes" / escape_token(name))
    if found is None:
        raise ConfigError(
            f"no node named {name!r} was ever here", fix="`meshfold status` lists them", item=name
        )
    return found

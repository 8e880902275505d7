"""`meshfold init`: a mesh without a server of its own - authority, first voter, context, and a server's configuration."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
from meshfold.core import escape_token
from meshfold.core.errors import ConfigError
from meshfold.mesh.broker.server import CONTROL_LINE_BYTES, PAYLOAD_BYTES
from meshfold.mesh.context import Context
from meshfold.mesh.enrolment.authority_folder import (
    BACKDATE_MS,
    AuthorityFolder,
    RootLock,
    keep_grants,
    read_identity,
    write_private,
)
from meshfold.mesh.enrolment.local import (
    GRANT_MS,
    LOGIN_S,
    capabilities_for,
    check_voters,
    local_identity,
    narrow_login,
)
from meshfold.mesh.enrolment.member_folder import MemberFile
from meshfold.mesh.enrolment.permissions import permissions
from meshfold.mesh.folders import state_folder
from meshfold.mesh.subjects import Subjects
from meshfold.mesh.transport import check_urls
from meshfold.security import Identity

__all__ = ("Founded", "found_mesh")

SERVER_CONF: Final = "nats-server.conf"
NAME_CHARS_MAX: Final = 48
NATS_PORT: Final = 4222
#: Where the folders of further voters are until they are carried to their machines.
CARRIED: Final = "voters"


@dataclass(frozen=True, slots=True)
class Founded:
    """A mesh that was made."""

    context: Context
    voters: tuple[Identity, ...]
    fingerprint: str
    #: folders of the further voters, each to be carried to its machine
    carried: tuple[Path, ...] = ()


def found_mesh(
    folder: Path,
    lock: RootLock,
    *,
    mesh: str,
    voters: Sequence[str],
    url: str,
    server_config: Path | None = None,
    if_missing: bool = False,
) -> Founded:
    """Make a mesh in `folder`: its authority, the identities of the nodes that host the control log, and a context.

    Also writes `nats-server.conf`, by which a nats-server takes the logins of this mesh, and for each voter but the first
    the folder of a node that has joined, in `voters/NAME`: to be carried to its machine, and removed here.

    :param voters: their names; the first runs from `folder` and holds the issuer
    :param url: where nodes will find the server
    :param server_config: where that configuration goes instead, readable for all: nothing in it is secret
    :param if_missing: take the mesh that is there already, finish it where it was left unfinished, and renew its issuer
        where less than a third of its time is left
    :raises ConfigError: if the folder holds a mesh already or cannot be written, a name cannot be one, or the voters are
        an even number
    """
    check_urls(url)
    check_voters(voters)
    for what, name in (("mesh", mesh), *(("voter", one) for one in voters)):
        if not 0 < len(name) <= NAME_CHARS_MAX or escape_token(name) != name:
            raise ConfigError(
                f"{name!r} cannot be the name of a {what}", fix="use a-z, 0-9 and -, at most 48", item=what
            )
    folder = state_folder(folder)
    if server_config is not None and not os.access(server_config.parent, os.W_OK):
        raise ConfigError(f"cannot write into {server_config.parent}", item="--server-config")
    authority = folder / "authority"
    there = (authority / "root.sealed").exists()
    if there and not if_missing:
        raise ConfigError(f"{folder} already holds a mesh", fix="choose another folder", item="--dir")
    now_ms = time.time_ns() // 1_000_000
    opened = (
        AuthorityFolder.open(authority)
        if there
        else AuthorityFolder.found(authority, os.urandom(16), lock, now_ms)
    )
    if there and opened.due(now_ms):
        opened.renew(lock, now_ms)
    folder.chmod(0o700)
    context = _context(folder, opened, mesh, voters, url, now_ms)
    conf = (
        "# A nats-server that takes the logins of this mesh: nats-server -c nats-server.conf\n"
        "# Nothing in here is secret.\n"
        # On every address: machines that reach it by another name are told so by `invite --nats`.
        f'listen: "0.0.0.0:{_port_of(context.url)}"\n'
        f"max_control_line: {CONTROL_LINE_BYTES}\n"
        f"max_payload: {PAYLOAD_BYTES}\n" + opened.papers.config()
    )
    _write_conf(server_config, conf) if server_config else write_private(folder / SERVER_CONF, conf.encode())
    carried = (folder / CARRIED / escape_token(name) for name in voters[1:])
    return Founded(
        context,
        tuple(map(Identity.parse, context.voters)),
        opened.issuer.trust.authority_hash.hex(),
        tuple(path for path in carried if path.exists()),
    )


def _port_of(url: str) -> int:
    """Where the first server that nodes look for has to listen."""
    return urlsplit(url.partition(",")[0]).port or NATS_PORT


def _context(
    folder: Path, authority: AuthorityFolder, mesh: str, voters: Sequence[str], url: str, now_ms: int
) -> Context:
    """The context that is there, or a new one with the first voters."""
    if (folder / "context.json").exists():
        known = Context.load(folder / "context.json")
        names = [Identity.parse(raw).name for raw in known.voters]
        if (known.mesh, names) != (mesh, list(voters)):
            raise ConfigError(
                f"{folder} holds the mesh {known.mesh} with the voter{'s' * (len(names) > 1)} {', '.join(names)},"
                f" and not {mesh} with {', '.join(voters)}",
                fix="choose another folder",
                item="--dir",
            )
        return known
    raws: list[bytes] = []
    for name in voters:
        nodes = folder / (CARRIED if raws else "nodes")
        raws.append(local_identity(authority, nodes, name, now_ms, ("node", "voter"))[1].raw)
    context = Context(mesh, authority.cluster, url, folder, authority.path, tuple(raws), 0, time.time_ns())
    for name in voters[1:]:
        _carry(folder / CARRIED / escape_token(name), authority, context, now_ms)
    # Last: with this file the mesh is founded.
    context.save(link=False)
    return context


def _carry(folder: Path, authority: AuthorityFolder, context: Context, now_ms: int) -> None:
    """Make of a voter's keys and identity what it would have if it had joined by a token."""
    identity, trust, subjects = read_identity(folder), authority.issuer.trust, Subjects(context.cluster)
    assert identity is not None
    grant = authority.issuer.issue_grant(
        identity.node_pub,
        capabilities_for(identity.name),
        not_before_ms=now_ms - BACKDATE_MS,
        not_after_ms=now_ms + GRANT_MS,
        policy_epoch=0,
    )
    keep_grants(folder, (grant,))
    login = authority.mint_login(
        identity.login_pub,
        name=identity.name,
        permissions=permissions(identity, (grant,), subjects, context.voters),
        expires_s=now_ms // 1000 + LOGIN_S,
    )
    narrow = narrow_login(authority, identity, subjects, context.voters)
    write_private(folder / "login.jwt", login.encode())
    write_private(folder / "narrow.jwt", narrow.encode())
    member = MemberFile(
        context.mesh,
        context.cluster,
        context.url,
        context.site,
        trust.identity_root,
        trust.grant_root,
        trust.certificates,
        context.voters,
    )
    write_private(folder / "member.json", msgspec.json.encode(member))


def _write_conf(path: Path, conf: str) -> None:
    """Where another user's server reads it, such as a volume that a broker's container mounts."""
    try:
        write_private(path, conf.encode())
        path.chmod(0o644)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}", item="--server-config") from error

"""`meshfold init`: a mesh without a server of its own - authority, first voter, context, and a server's configuration."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from meshfold.core import escape_token
from meshfold.core.errors import ConfigError
from meshfold.mesh.broker.server import CONTROL_LINE_BYTES, PAYLOAD_BYTES
from meshfold.mesh.context import Context
from meshfold.mesh.enrolment.authority_folder import AuthorityFolder, RootLock, write_private
from meshfold.mesh.enrolment.local import local_identity
from meshfold.mesh.folders import state_folder
from meshfold.mesh.transport import check_urls
from meshfold.security import Identity

__all__ = ("Founded", "found_mesh")

SERVER_CONF: Final = "nats-server.conf"
NAME_CHARS_MAX: Final = 48
NATS_PORT: Final = 4222


@dataclass(frozen=True, slots=True)
class Founded:
    """A mesh that was made."""

    context: Context
    voter: Identity
    fingerprint: str


def found_mesh(
    folder: Path,
    lock: RootLock,
    *,
    mesh: str,
    voter: str,
    url: str,
    server_config: Path | None = None,
    if_missing: bool = False,
) -> Founded:
    """Make a mesh in `folder`: its authority, the identity of the node that hosts the control log, and a context.

    Also writes `nats-server.conf`, by which a nats-server takes the logins of this mesh.

    :param url: where nodes will find the server
    :param server_config: where that configuration goes instead, readable for all: nothing in it is secret
    :param if_missing: take the mesh that is there already, finish it where it was left unfinished, and renew its issuer
        where less than a third of its time is left
    :raises ConfigError: if the folder holds a mesh already or cannot be written, or a name cannot be one
    """
    check_urls(url)
    for what, name in (("mesh", mesh), ("voter", voter)):
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
    context = _context(folder, opened, mesh, voter, url, now_ms)
    conf = (
        "# A nats-server that takes the logins of this mesh: nats-server -c nats-server.conf\n"
        "# Nothing in here is secret.\n"
        # On every address: machines that reach it by another name are told so by `invite --nats`.
        f'listen: "0.0.0.0:{_port_of(context.url)}"\n'
        f"max_control_line: {CONTROL_LINE_BYTES}\n"
        f"max_payload: {PAYLOAD_BYTES}\n" + opened.papers.config()
    )
    _write_conf(server_config, conf) if server_config else write_private(folder / SERVER_CONF, conf.encode())
    return Founded(context, Identity.parse(context.voters[0]), opened.issuer.trust.authority_hash.hex())


def _port_of(url: str) -> int:
    """Where the first server that nodes look for has to listen."""
    return urlsplit(url.partition(",")[0]).port or NATS_PORT


def _context(
    folder: Path, authority: AuthorityFolder, mesh: str, voter: str, url: str, now_ms: int
) -> Context:
    """The context that is there, or a new one with a first voter."""
    if (folder / "context.json").exists():
        known = Context.load(folder / "context.json")
        name = Identity.parse(known.voters[0]).name
        if (known.mesh, name) != (mesh, voter):
            raise ConfigError(
                f"{folder} holds the mesh {known.mesh} with the voter {name}, and not {mesh} with {voter}",
                fix="choose another folder",
                item="--dir",
            )
        return known
    _, identity = local_identity(authority, folder / "nodes", voter, now_ms, ("node", "voter"))
    context = Context(
        mesh, authority.cluster, url, folder, authority.path, (identity.raw,), 0, time.time_ns()
    )
    context.save(link=False)
    return context


def _write_conf(path: Path, conf: str) -> None:
    """Where another user's server reads it, such as a volume that a broker's container mounts."""
    try:
        write_private(path, conf.encode())
        path.chmod(0o644)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror}", item="--server-config") from error

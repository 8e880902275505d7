"""Context files: how a command on this machine finds a running mesh.

`meshfold up` writes one (mode 0600) into its state directory, with a link in the contexts folder; commands take the
newest whose process still runs. It names the folder of the mesh's authority, so whoever can read it is an operator.
"""

from __future__ import annotations

import contextlib
import logging
import os
import ssl
from dataclasses import dataclass
from pathlib import Path

import msgspec
from meshfold.core.errors import ConfigError
from meshfold.mesh.files import read_named
from meshfold.mesh.transport import Login

__all__ = ("Context", "contexts_dir")

FILE_BYTES_MAX = 1024 * 1024

_log = logging.getLogger("meshfold.mesh")


def contexts_dir() -> Path:
    """Return the folder of links to context files: `$MESHFOLD_CONTEXTS`, or the user's state folder."""
    chosen = os.environ.get("MESHFOLD_CONTEXTS")
    if chosen:
        return Path(chosen)
    state = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local/state")
    return Path(state) / "meshfold" / "contexts"


class _File(msgspec.Struct, forbid_unknown_fields=True):
    mesh: str
    cluster: str
    url: str
    state_dir: str
    authority_dir: str
    voters: list[str]
    pid: int
    created_ns: int
    site: str = "local"
    #: name of the joined node whose folder this is; empty where the authority is here
    member: str = ""
    #: the server belongs to whoever wrote this file: NATS_* variables mean another one
    embedded: bool = False


@dataclass(frozen=True, slots=True)
class Context:
    """Where a mesh is and who its voters are. `voters` are ID1 records.

    With an `authority_dir` any name can enrol; without one the folder is that of the joined node `member`.
    """

    mesh: str
    cluster: bytes
    url: str
    state_dir: Path
    authority_dir: Path | None
    voters: tuple[bytes, ...]
    pid: int
    created_ns: int = 0
    site: str = "local"
    member: str = ""
    embedded: bool = False
    #: a login of the operator's own, for servers that know no JWTs of this mesh, and TLS; never written
    login: Login | None = None
    tls: ssl.SSLContext | None = None

    @property
    def path(self) -> Path:
        """The context file itself."""
        return self.state_dir / "context.json"

    @property
    def _link(self) -> Path:
        return contexts_dir() / f"{self.mesh}-{self.pid}.json"

    def save(self, *, link: bool = True) -> Path:
        """Write the file and, unless told otherwise, its link; both are replaced atomically.

        :raises ConfigError: if the folder cannot be written
        """
        record = _File(
            self.mesh,
            self.cluster.hex(),
            self.url,
            str(self.state_dir),
            str(self.authority_dir or ""),
            [voter.hex() for voter in self.voters],
            self.pid,
            self.created_ns,
            self.site,
            self.member,
            self.embedded,
        )
        try:
            fresh = self.path.with_suffix(".new")
            fresh.touch(mode=0o600)
            fresh.write_bytes(msgspec.json.encode(record))
            fresh.replace(self.path)
        except OSError as error:
            raise ConfigError(
                f"cannot write the context file {self.path}: {error.strerror}",
                fix="choose another folder with --dir",
                item=str(self.path),
            ) from error
        if not link:
            return self.path
        try:
            self._link.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._link.unlink(missing_ok=True)
            self._link.symlink_to(self.path)
        except OSError as error:
            # The mesh runs all the same; only finding it takes more words.
            _log.warning(
                "cannot write %s (%s): other commands need --context %s",
                self._link,
                error.strerror,
                self.path,
            )
        return self.path

    def remove(self) -> None:
        """Take the file and its link away. Idempotent."""
        self.unlink()
        self.path.unlink(missing_ok=True)

    def unlink(self) -> None:
        """Take the link away: the mesh stays, but this process no longer runs it. Idempotent."""
        with contextlib.suppress(OSError):
            self._link.unlink()

    @classmethod
    def load(cls, which: str | Path | None = None) -> Context:
        """Read a context: a path, the name of a mesh, or None for the newest that runs.

        :raises ConfigError: if there is none, or the file cannot be used
        """
        if which is not None and ("/" in str(which) or Path(which).suffix == ".json"):
            return cls._read(Path(which))
        found = cls.running()
        if which is not None:
            found = [context for context in found if context.mesh == str(which)]
        if not found:
            what = (
                f"no running mesh named {which!r}" if which is not None else "no running mesh on this machine"
            )
            raise ConfigError(
                what,
                fix="start one with `meshfold up`, or name a context file with --context",
                item="context",
            )
        return found[0]

    @classmethod
    def running(cls) -> list[Context]:
        """All meshes of this user whose process lives, newest first; links to dead ones are removed."""
        found: list[Context] = []
        for link in contexts_dir().glob("*.json"):
            try:
                context = cls._read(link)
                os.kill(context.pid, 0)
            except (ConfigError, ProcessLookupError):
                with contextlib.suppress(OSError):
                    link.unlink()
            except PermissionError:
                continue
            else:
                found.append(context)
        return sorted(found, key=lambda context: context.created_ns, reverse=True)

    @classmethod
    def _read(cls, path: Path) -> Context:
        try:
            record = msgspec.json.decode(read_named(path, FILE_BYTES_MAX, str(path)), type=_File)
            return cls(
                record.mesh,
                bytes.fromhex(record.cluster),
                record.url,
                Path(record.state_dir),
                Path(record.authority_dir) if record.authority_dir else None,
                tuple(bytes.fromhex(voter) for voter in record.voters),
                record.pid,
                record.created_ns,
                record.site,
                record.member,
                record.embedded,
            )
        except (msgspec.MsgspecError, ValueError) as error:
            raise ConfigError(f"{path} is not a context file: {error}", item=str(path)) from error

"""A whole mesh on this machine in one object: server, authority, context. `meshfold up` and the tests run on it."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from meshfold.mesh.broker import EmbeddedServer
from meshfold.mesh.context import Context
from meshfold.mesh.enrolment import AuthorityFolder, RootLock, local_voters
from meshfold.mesh.folders import FolderLock, state_folder
from meshfold.mesh.node import Node

__all__ = ("LocalMesh",)


class LocalMesh:
    """Owns an embedded server and a context in `state_dir`; everything ends with it, the state stays in the folder.

    :param state_dir: folder of the mesh's state, made if needed, locked while the mesh runs
    :param name: the mesh's name, which `--context` takes
    :param voters: the nodes that host the control log: one, or an odd number of which a majority has to run
    """

    def __init__(
        self,
        state_dir: Path,
        *,
        name: str = "local",
        voters: Sequence[str] = ("hub",),
        port: int | None = None,
    ) -> None:
        self.state_dir = state_folder(state_dir)
        self.name = name
        self.voters = tuple(voters)
        self._port = port
        self._lock = FolderLock(self.state_dir, "mesh")
        self._authority: AuthorityFolder | None = None
        self._voters_raw: tuple[bytes, ...] = ()
        self.server: EmbeddedServer | None = None
        self.context: Context | None = None

    def start(self, via: str | None = None) -> Context:
        """Start the server, found or reopen the mesh, write the context.

        :param via: URL that nodes shall use instead of the server's own
        :raises ConfigError: if the folder cannot be used or is in use, the server is missing or does not start
        """
        self._lock.acquire()
        now_ms = time.time_ns() // 1_000_000
        self._authority = self._open_authority(now_ms)
        self._voters_raw = local_voters(self._authority, self.state_dir, self.voters, now_ms)
        self._start_server(self._port)
        assert self.server is not None
        self.announce(via or self.server.url)
        assert self.context is not None
        return self.context

    def _open_authority(self, now_ms: int) -> AuthorityFolder:
        """The mesh's authority, founded on first use under a key file of its own beside it."""
        folder, key_file = self.state_dir / "authority", self.state_dir / "root.key"
        if not (folder / "root.sealed").exists():
            lock = RootLock.file(key_file) if key_file.exists() else RootLock.new_file(key_file)
            return AuthorityFolder.found(folder, os.urandom(16), lock, now_ms)
        authority = AuthorityFolder.open(folder)
        if authority.due(now_ms) and key_file.exists():
            authority.renew(RootLock.file(key_file), now_ms)
        return authority

    def _start_server(self, port: int | None) -> None:
        assert self._authority is not None
        self.server = EmbeddedServer.start(self.state_dir / "server", self._authority.papers, port=port)

    def restart_server(self) -> int:
        """Start a server again in place of one that died, on the same port; returns the port.

        :raises ConfigError: if it does not start
        """
        assert self.server is not None
        port = self.server.port
        self.server.stop()
        self._start_server(port)
        return port

    def announce(self, url: str) -> None:
        """Write the context file, with the URL that nodes shall use."""
        assert self._authority is not None
        self.context = Context(
            self.name,
            self._authority.cluster,
            url,
            self.state_dir,
            self._authority.path,
            self._voters_raw,
            os.getpid(),
            time.time_ns(),
            embedded=True,
        )
        self.context.save()

    def node(self, name: str) -> Node:
        """Return a node of this mesh, not yet connected."""
        assert self.context is not None
        return Node.open(name, context=self.context.path)

    def stop(self) -> None:
        """Stop the server and take the context away. Idempotent."""
        if self.context is not None:
            self.context.remove()
            self.context = None
        if self.server is not None:
            self.server.stop()
            self.server = None
        self._lock.release()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

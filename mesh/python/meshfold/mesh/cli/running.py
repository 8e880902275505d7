"""What `meshfold node run` does: settings, logs, joining where needed, then the node until it is told to stop."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import time
from pathlib import Path
from typing import Any

from meshfold.core import escape_token
from meshfold.core.errors import ConfigError
from meshfold.mesh.cli.support import configure_logs, say
from meshfold.mesh.config import NodeSettings, foreign_login, load_settings, tls_of
from meshfold.mesh.config.finding import find_mesh
from meshfold.mesh.context import Context
from meshfold.mesh.enrolment import MemberFolder
from meshfold.mesh.files import read_named_text
from meshfold.mesh.folders import FolderLock, state_folder
from meshfold.mesh.node import Node
from meshfold.mesh.node.runner import load_app, run_node
from meshfold.security import Identity
from meshfold.security.join import TOKEN_TEXT_MAX

__all__ = ("run_in_foreground",)


def run_in_foreground(config: Path | None, options: dict[str, Any]) -> None:
    """Run a node until SIGTERM, SIGINT or SIGHUP.

    :raises ConfigError: if settings, folder or token cannot be used
    :raises MeshfoldError: as joining and entering the node do
    """
    settings = load_settings(config, options=options)
    configure_logs(settings.log_level, settings.log_format)
    if settings.dir is None:
        raise ConfigError("a node needs a folder for its state", fix="name one with --dir", item="dir")
    app = load_app(settings.app, settings.read)
    # As process 1 of a container a signal without a handler does nothing: be stoppable while joining and connecting, too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    asyncio.run(_run(config, options, settings, state_folder(Path(settings.dir)), app))


async def _run(
    config: Path | None, options: dict[str, Any], settings: NodeSettings, folder: Path, app: Any
) -> None:
    running = _Running()
    server = None
    if settings.health_listen is not None:
        from meshfold.mesh.telemetry.pages import serve_health

        server = serve_health(settings.health_listen, running.vitals, lambda: running.started)
        say(f"health on http://{server.address}/readyz?verbose")
    try:
        await _join_and_run(config, options, settings, folder, app, running)
    finally:
        if server is not None:
            await asyncio.to_thread(server.close)


@dataclasses.dataclass
class _Running:
    """What probes see, from before the node joins until it has drained."""

    node: Node | None = None
    started: bool = False

    async def vitals(self) -> dict[str, dict[str, Any] | None]:
        return {} if self.node is None else {self.node.name: self.node.vitals()}


async def _join_and_run(
    config: Path | None,
    options: dict[str, Any],
    settings: NodeSettings,
    folder: Path,
    app: Any,
    state: _Running,
) -> None:
    if not (folder / "context.json").exists() and not MemberFolder.exists(folder):
        await _join(settings, folder)
    context, settings = find_mesh(None, config, options)
    name = settings.name or context.member or Identity.parse(context.voters[0]).name
    lock = FolderLock(_folder_of(context, name), f"process that runs {name}").acquire()
    node = state.node = Node(name, context)
    announced = dataclasses.replace(context, pid=os.getpid(), created_ns=time.time_ns())

    async def ready(running: Node) -> None:
        announced.save()
        say(f"{name} runs in mesh {context.mesh} as {running.id}")
        state.started = True

    try:
        await run_node(node, app, on_ready=ready)
    finally:
        announced.unlink()
        lock.release()


def _folder_of(context: Context, name: str) -> Path:
    """Where a node's own files are: several run from the folder of one authority."""
    return context.state_dir if context.member else context.state_dir / "nodes" / escape_token(name)


def _token(settings: NodeSettings) -> str:
    if settings.join_token_file is None:
        return os.environ.get("MESHFOLD_JOIN_TOKEN", "")
    return read_named_text(Path(settings.join_token_file), TOKEN_TEXT_MAX + 2, "join_token_file")


async def _join(settings: NodeSettings, folder: Path) -> None:
    from meshfold.mesh.enrolment.joining import join

    text = _token(settings)
    if not text:
        raise ConfigError(
            f"no node has joined a mesh in {folder}",
            fix="set MESHFOLD_JOIN_TOKEN or name a --token-file; `meshfold invite` makes tokens",
            item="dir",
        )
    await join(text, folder, login=foreign_login(settings), url=settings.nats, tls=tls_of(settings))

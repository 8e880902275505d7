"""Running a command's work as a node of a mesh."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from meshfold.core.errors import GrantDenied, TransportClosed
from meshfold.core.jobs import end_jobs
from meshfold.mesh.config.finding import find_mesh
from meshfold.mesh.context import Context
from meshfold.mesh.enrolment.local import OPERATOR
from meshfold.mesh.folders import FolderLock
from meshfold.mesh.node import Node
from meshfold.mesh.telemetry import TelemetrySettings

__all__ = ("run_on_mesh",)

#: How often a command that waits looks whether its mesh still runs.
ALIVE_S = 0.5


def run_on_mesh(
    context: str | None,
    options: Mapping[str, Any],
    work: Callable[[Any], Coroutine[Any, Any, Any]],
    *,
    publishing: bool,
) -> Any:
    """Run `work(node)` in the mesh of `context`. Raises as `Call.run` says."""
    found, _ = find_mesh(context, None, options)
    with contextlib.ExitStack() as held:
        if publishing and found.member:
            # Two lives of one identity at once would be taken for a clone.
            held.enter_context(FolderLock(found.state_dir, "process that publishes with this identity"))
        return asyncio.run(_run(found, work, quiet=not publishing))


async def _run(context: Context, work: Callable[[Any], Coroutine[Any, Any, Any]], *, quiet: bool) -> Any:
    name = context.member or OPERATOR
    # Commands are short and many, and nobody looks for their traces.
    async with Node(name, context, quiet=quiet, telemetry=TelemetrySettings()) as node:
        if not node.session.upkeep.grants:
            raise GrantDenied(
                f"{name} holds no grant in mesh {context.mesh}, so nobody answers it",
                fix=f"ask its operator for: meshfold grant issue {name} ROUTE --action META_READ",
                principal=name,
                action="META_READ",
                route=">",
            )
        task, end = asyncio.create_task(work(node)), asyncio.create_task(_end_of(context))
        try:
            await asyncio.wait({task, end}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
        finally:
            await end_jobs((task, end))
        raise TransportClosed(
            f"the mesh {context.mesh} has ended",
            fix="start it again; `meshfold status` tells when it runs",
            address=context.url,
            because="ended",
        )


async def _end_of(context: Context) -> None:
    """Return when the process that runs the mesh here is gone; never for a mesh that runs elsewhere."""
    while True:
        await asyncio.sleep(ALIVE_S)
        try:
            if context.embedded:
                os.kill(context.pid, 0)
        except ProcessLookupError:
            return
        except PermissionError:
            continue

"""The node processes of `up`: `python -m meshfold.mesh.up.child NAME CONTEXT MARKS`.

Talks to its parent by one JSON line a message on stdout; ends cleanly on SIGTERM: bridges flushed, last heartbeat sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from meshfold.core import Event
from meshfold.core.errors import GrantDenied, MeshfoldError, NotLeader
from meshfold.core.jobs import end_jobs
from meshfold.mesh.context import Context
from meshfold.mesh.node import Node
from meshfold.mesh.telemetry import TelemetrySettings
from meshfold.mesh.up.sampler import PRESSURE, Sample, Sampler, routes_of

__all__ = ("main",)

READY_S = 20.0
#: Events of each route that `why` can answer for.
HISTORY = 1024
#: The election whose leader derives the route below.
WRITER = "pressure"


def tell(event: str, **fields: Any) -> None:
    """One message to the parent."""
    sys.stdout.write(json.dumps({"event": event, **fields}) + "\n")
    sys.stdout.flush()


async def edge(node: Node, marks: dict[str, str], stop: asyncio.Event) -> None:
    """Sample this host until told to stop."""
    for r in routes_of().values():
        node.graph.configure_retention(r, history=HISTORY)
        await node.share(r).ready(READY_S)
    node.read(PRESSURE)
    tell("ready")
    await Sampler(node.graph, routes_of(), marks).run(stop)


async def hub(node: Node, marks: dict[str, str], stop: asyncio.Event) -> None:
    """Read everything, and derive one route from two while leading the election for it.

    A hub that was replaced and does not know yet thus derives nothing beside its successor.
    """
    for r in (*routes_of().values(), PRESSURE):
        node.graph.configure_retention(r, history=HISTORY)
    routes = routes_of()
    cpu, memory = routes["cpu"], routes["memory"]

    def derive(event: Event[Sample]) -> None:
        other = node.graph.latest(memory)
        if other is not None:
            pressure = max(event.value.values["percent"], other.value.values["percent"])
            node.graph.publish(
                PRESSURE,
                Sample({"percent": pressure}, marks["pressure"]),
                parents=(event, other),
                correlation=marks["pressure"],
            )

    async def derive_while_leading() -> None:
        while True:
            with contextlib.suppress(NotLeader):
                async with node.election(WRITER).lead():
                    with node.graph.observe(cpu, derive):
                        await asyncio.Event().wait()

    for r in routes.values():
        node.read(r)
    await node.share(PRESSURE).ready(READY_S)
    deriving = asyncio.create_task(derive_while_leading())
    tell("ready")
    await stop.wait()
    await end_jobs((deriving,))


async def outsider(node: Node, marks: dict[str, str], stop: asyncio.Event) -> None:
    """Try to read and say how it was refused, on both fences."""
    target = routes_of()["cpu"]
    try:
        node.read(target)
    except GrantDenied as error:
        tell("refused", node=node.name, route=target.text, action="META_READ", error=str(error))
    session = node.session
    try:
        await session.transport.subscribe(
            session.subjects.route_any_site("d", target.addr), lambda message: None
        )
    except GrantDenied as error:
        tell("refused", node=node.name, route=target.text, action="subscribe", error=str(error))
    try:
        await session.ask_voters.decided("keys", {"grants": []}, READY_S)
    except MeshfoldError as error:
        tell("refused", node=node.name, route="", action="keys", error=str(error))
    tell("ready")
    await stop.wait()


ROLES = {"edge": edge, "hub": hub, "outsider": outsider}


async def run(name: str, context: Path, marks: dict[str, str]) -> None:
    """Run one node until SIGTERM."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    # Records without a receiver, too: `up` shows a trace. Each node is a service of its own, whatever the variables say.
    telemetry = replace(TelemetrySettings.from_environ(os.environ), on=True, service=None)
    async with Node(name, Context.load(context), telemetry=telemetry) as node:
        tell("identity", name=name, id=node.id, incarnation=node.incarnation)
        # A further member beyond edge and hub reads what the hub reads.
        await ROLES.get(name, reader)(node, marks, stop)
    tell("drained")


async def reader(node: Node, marks: dict[str, str], stop: asyncio.Event) -> None:
    """A further member: reads everything."""
    for r in routes_of().values():
        node.read(r)
    tell("ready")
    await stop.wait()


def main() -> None:
    """Entry point of the child."""
    name, context, marks = sys.argv[1:4]
    try:
        asyncio.run(run(name, Path(context), json.loads(Path(marks).read_text())))
    except MeshfoldError as error:
        sys.stderr.write(f"{name}: {error}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()

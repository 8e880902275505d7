"""What runs on the nodes of the container tests: numbered events, and a ledger of their own on both sides.

The ledgers are what the mesh's accounting is checked against: they know nothing of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path
from typing import Any

from meshfold.core import Event, Schema, route
from meshfold.mesh import Node

LEDGER = Path(os.environ["HOME"]) / "ledger"
READY_S = 60.0
PACE_S = 0.02

#: Numbered from 1 in each life of the edge.
NUMBERS = route("edge", "test", "number", schema=Schema.int())
#: One route nobody may read on the way, and one that is declared open, by which the test knows that it can read.
SECRET = route("edge", "test", "secret", schema=Schema.str())
OPEN = route("edge", "test", "open", schema=Schema.str(), secrecy="none")


async def count(node: Node, stop: asyncio.Event) -> None:
    """Publish numbers, and note each one before it is published."""
    for r in (NUMBERS, SECRET, OPEN):
        await node.share(r).ready(READY_S)
    number = 0
    with LEDGER.open("a") as ledger:
        while not stop.is_set():
            number += 1
            ledger.write(f"{node.incarnation} {number}\n")
            ledger.flush()
            node.graph.publish(NUMBERS, number)
            node.graph.publish(SECRET, os.environ["CANARY_SECRET"])
            node.graph.publish(OPEN, os.environ["CANARY_OPEN"])
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), PACE_S)


async def collect(node: Node, stop: asyncio.Event) -> None:
    """Read the numbers, and note each one that is delivered."""
    with LEDGER.open("a") as ledger:

        def note(event: Event[Any]) -> None:
            ledger.write(f"{node.incarnation} {event.incarnation.hex()} {event.value}\n")
            ledger.flush()

        with node.graph.observe(NUMBERS, note):
            for r in (NUMBERS, SECRET, OPEN):
                node.read(r)
            await stop.wait()

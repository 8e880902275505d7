"""The voter that leads is killed: another leads within seconds, and nothing that was promised is lost."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from meshfold.consensus import Fence
from meshfold.core import Schema, route
from meshfold.core.errors import MeshfoldError
from meshfold.mesh import Node
from meshfold.mesh.local import LocalMesh
from test_mesh_rotation import signed
from voting import NAMES, WAIT_S, until

T = TypeVar("T")
ASK_S = 2.0
SECRET = route("edge", "vault", "secret", schema=Schema.str())

#: A voter, until it is killed or told to end.
VOTER = """
import asyncio, signal, sys
from meshfold.mesh import Node

async def main(name, context):
    async with Node.open(name, context=context):
        print("ready", flush=True)
        stop = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
        await stop.wait()

asyncio.run(main(*sys.argv[1:]))
"""


class Processes:
    """The voters, each in a process of its own."""

    def __init__(self, mesh: LocalMesh) -> None:
        assert mesh.context is not None
        self.path = mesh.context.path
        self.running: dict[str, asyncio.subprocess.Process] = {}

    async def start(self, *names: str) -> None:
        """Start some; return when they are ready."""
        for name in names:
            self.running[name] = await asyncio.create_subprocess_exec(
                sys.executable, "-c", VOTER, name, str(self.path), stdout=asyncio.subprocess.PIPE
            )
        async with asyncio.timeout(WAIT_S):
            for name in names:
                out = self.running[name].stdout
                assert out is not None and (await out.readline()).strip() == b"ready"

    async def end(self, name: str, number: int) -> None:
        """Signal one and wait for its end."""
        process = self.running.pop(name)
        process.send_signal(number)
        await process.wait()


@pytest.fixture
async def processes(three: LocalMesh) -> AsyncIterator[Processes]:
    """All three."""
    made = Processes(three)
    try:
        await made.start(*NAMES)
        yield made
    finally:
        for name in list(made.running):
            await made.end(name, signal.SIGTERM)


async def insist(call: Callable[[], Awaitable[T]]) -> T:
    """Make a call until the voters have a leader that answers it."""
    async with asyncio.timeout(WAIT_S):
        while True:
            try:
                return await call()
            except MeshfoldError:
                await asyncio.sleep(0)


async def led_once(node: Node, fence: Fence) -> int:
    """The token of a lease on the election, held for a moment."""

    async def once() -> int:
        async with node.election("line-7").lead(barrier=[fence]) as lease:
            return lease.token.number

    return await insist(once)


async def leading(node: Node) -> dict[str, Any]:
    """The group's line, from whoever proves that it leads."""
    return await insist(lambda: node.session.ask_voters.ask("group_leader", {"group": "control"}, ASK_S))


async def test_when_the_leading_voter_is_killed_another_decides_and_the_first_catches_up(
    three: LocalMesh, processes: Processes, tmp_path: Path
) -> None:
    fence = Fence(tmp_path / "fence")
    async with three.node("edge") as edge, three.node("operator") as operator:
        bridge: Any = operator.read(SECRET)
        await edge.share(SECRET).ready(WAIT_S)
        tokens = [await led_once(edge, fence)]
        kept: dict[str, int] = {}
        for turn in range(2):
            kept[f"app/edge/a{turn}"] = await edge.control_log.put(f"app/edge/a{turn}", b"before")
            before = await leading(operator)
            await processes.end(before["leader"], signal.SIGKILL)
            after = await leading(operator)
            assert after["leader"] != before["leader"] and after["term"] > before["term"]
            kept[f"app/edge/b{turn}"] = await edge.control_log.put(f"app/edge/b{turn}", b"after")
            tokens.append(await led_once(edge, fence))
            # A grant, and its revocation, by the new one.
            async with three.node("outsider"):
                pass
            grant = signed(three, "outsider", SECRET.address)
            await operator.session.ask_voters.decided("grant_issue", {"grant": grant.raw.hex()}, ASK_S)
            async with three.node("outsider") as reader:
                got: Any = reader.read(SECRET)
                await got.ready(WAIT_S)
                edge.graph.publish(SECRET, f"turn {turn}")
                await until(lambda got=got: got.counters["delivered"] == 1)  # type: ignore[misc]
                await operator.session.ask_voters.decided("grant_revoke", {"id": grant.hash.hex()}, ASK_S)
                # The members take it: a majority has signed it.
                await until(lambda reader=reader: not reader.session.upkeep.grants)  # type: ignore[misc]
                await until(
                    lambda gone=grant.hash: gone in edge.session.safety.keeper.record.revoked  # type: ignore[misc]
                )
            await processes.start(before["leader"])
            # The one that came back has everything: it leads now, by the operator's word or by itself.
            await to_lead(operator, before["leader"])
            tokens.append(await led_once(edge, fence))
        assert tokens == sorted(set(tokens))
        found = await operator.control_log.snapshot("app/")
        assert {key: saved.version for key, saved in found.items()} == kept
        # What was published meanwhile came over: members need no voter to go on.
        await until(lambda: bridge.counters["delivered"] == 2)


async def to_lead(operator: Node, name: str) -> None:
    """Have a voter lead: whoever leads else is told to step down, and the voters take turns."""
    async with asyncio.timeout(WAIT_S):
        while (await leading(operator))["leader"] != name:
            with contextlib.suppress(MeshfoldError):
                await operator.session.ask_voters.ask("group_step_down", {"group": "control"}, ASK_S)


async def test_a_voter_that_stands_still_loses_the_lead_and_its_leases_with_it(
    three: LocalMesh, processes: Processes, tmp_path: Path
) -> None:
    fence = Fence(tmp_path / "fence")
    async with three.node("edge") as edge, three.node("operator") as operator:
        first = await led_once(edge, fence)
        before = await leading(operator)
        process = processes.running[before["leader"]]
        os.kill(process.pid, signal.SIGSTOP)
        try:
            after = await leading(operator)
            assert after["leader"] != before["leader"]
            second = await led_once(edge, fence)
        finally:
            os.kill(process.pid, signal.SIGCONT)
        # It comes back as a follower, and what it granted before is behind the fence.
        third = await led_once(edge, fence)
        assert first < second < third
        assert (await leading(operator))["term"] >= after["term"]

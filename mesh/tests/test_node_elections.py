"""Elections between real nodes: leadership as a block, tokens that rise, fences that hold, holders that are killed."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import sys
from pathlib import Path

import pytest
from meshfold.consensus import Fence, Lease, Token
from meshfold.core.errors import Fenced, GrantDenied, MeshfoldError, NotLeader, WiringError
from meshfold.mesh import Node
from meshfold.mesh.local import LocalMesh

WAIT_S = 60.0

#: Leads until it is killed; says each token and writes it to the fence before the block runs.
HOLDER = """
import asyncio, sys
from pathlib import Path
from meshfold.consensus import Fence
from meshfold.core.errors import NotLeader
from meshfold.mesh import Node

async def main(context, fence):
    async with Node.open("edge", context=context) as node:
        while True:
            try:
                async with node.election("line-7").lead(barrier=[Fence(Path(fence))]) as lease:
                    print(lease.token, flush=True)
                    await asyncio.Event().wait()
            except NotLeader:
                continue

asyncio.run(main(*sys.argv[1:]))
"""


#: Leads and writes lines to a file behind a fence as fast as it can; says what the fence refused.
WRITER = """
import asyncio, sys
from pathlib import Path
from meshfold.consensus import Fence
from meshfold.core.errors import Fenced, NotLeader
from meshfold.mesh import Node

async def main(context, fence, sink):
    gate = Fence(Path(fence))
    async with Node.open("edge", context=context) as node:
        async with node.election("line-7").lead(barrier=[gate]) as lease:
            print(lease.token, flush=True)
            try:
                while True:
                    # On purpose without asking the lease: the fence alone must hold.
                    with gate.hold(lease.token), open(sink, "a") as file:
                        file.write(f"{lease.token.number}\\n")
                    await asyncio.sleep(0)
            except Fenced:
                print("fenced", flush=True)

try:
    asyncio.run(main(*sys.argv[1:]))
except NotLeader:
    print("lost", flush=True)
"""


async def led_once(node: Node, *fences: Fence) -> Token:
    """Lead for a moment, again where a busy machine lost the lease meanwhile."""
    async with asyncio.timeout(WAIT_S):
        while True:
            with contextlib.suppress(NotLeader):
                async with node.election("line-7").lead(barrier=fences) as lease:
                    return lease.token


async def test_m124_one_leads_and_the_next_one_has_a_higher_token(mesh: LocalMesh) -> None:
    async with mesh.node("hub") as hub, mesh.node("edge") as edge:
        first = await led_once(edge)
        second = await led_once(hub)
        third = await led_once(edge)
    assert first.number < second.number < third.number


async def test_who_leads_is_seen_from_every_node(mesh: LocalMesh) -> None:
    async with mesh.node("hub") as hub, mesh.node("edge") as edge, mesh.node("operator") as operator:
        seen: list[str | None] = []

        async def watch() -> None:
            async for leadership in operator.election("line-7").observe():
                seen.append(leadership.leader if leadership is not None else None)
                if "edge" in seen and seen[-1] is None:
                    return

        watching = asyncio.ensure_future(watch())
        election = edge.election("line-7")
        async with asyncio.timeout(WAIT_S):
            # Led until the watcher saw it, over as many leases as that takes on a busy machine.
            while "edge" not in seen:
                lease = await election.campaign()
                while lease.valid and "edge" not in seen:
                    found = await hub.election("line-7").leader()
                    assert found is None or found.leader == "edge"
                await election.resign()
            await watching
    assert seen[0] in (None, "edge")


async def test_a_second_campaign_of_one_object_is_refused(mesh: LocalMesh) -> None:
    async with mesh.node("hub") as hub:
        election = hub.election("line-7")
        assert await election.resign() is False
        lease = await election.campaign()
        with contextlib.suppress(NotLeader):
            lease.check()
            with pytest.raises(WiringError, match="already"):
                await election.campaign()
        await election.resign()
        assert not lease.valid
        with pytest.raises(NotLeader):
            lease.check()


async def test_a_holder_that_is_killed_is_followed_by_a_higher_token_and_fenced(
    mesh: LocalMesh, tmp_path: Path
) -> None:
    fence = Fence(tmp_path / "fence")
    async with mesh.node("hub") as hub:
        assert mesh.context is not None
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            HOLDER,
            str(mesh.context.path),
            str(tmp_path / "fence"),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            line = await asyncio.wait_for(process.stdout.readline(), WAIT_S)
            stale = Token.parse(line.decode().strip())
            assert fence.highest("line-7") == stale
        finally:
            os.kill(process.pid, signal.SIGKILL)
        rest = await asyncio.wait_for(process.stdout.read(), WAIT_S)
        for later in rest.decode().split():
            stale = Token.parse(later)
        await process.wait()
        fresh = await led_once(hub, fence)
    assert fresh.number > stale.number
    with pytest.raises(Fenced, match=str(stale)):
        fence.admit(stale)
    fence.admit(fresh)


async def stopped_outside(pid: int, fence: Path) -> None:
    """Stop a process at any moment but not inside the fence, where its successor would have to wait for it."""
    lock = next(
        path for path in fence.parent.iterdir() if path.name.startswith(fence.name) and "lock" in path.name
    )
    async with asyncio.timeout(WAIT_S):
        while True:
            os.kill(pid, signal.SIGSTOP)
            with lock.open("rb") as file, contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            os.kill(pid, signal.SIGCONT)
            await asyncio.sleep(0)


async def test_hc16_a_holder_that_stood_still_writes_nothing_behind_its_successor(
    mesh: LocalMesh, tmp_path: Path
) -> None:
    fence, sink = tmp_path / "fence", tmp_path / "sink"
    async with mesh.node("hub") as hub:
        assert mesh.context is not None
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            WRITER,
            str(mesh.context.path),
            str(fence),
            str(sink),
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            line = await asyncio.wait_for(process.stdout.readline(), WAIT_S)
            stale = Token.parse(line.decode().strip())
            async with asyncio.timeout(WAIT_S):
                while not sink.exists() and process.returncode is None:  # noqa: ASYNC110 - another process's
                    await asyncio.sleep(0)
            await stopped_outside(process.pid, fence)
            fresh = await led_once(hub, Fence(fence))
            assert fresh.number > stale.number
            with sink.open("a") as file:
                file.write(f"{fresh.number}\n")
            os.kill(process.pid, signal.SIGCONT)
            said = await asyncio.wait_for(process.stdout.read(), WAIT_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGKILL)
        await process.wait()
    assert said.decode().split()[-1] in ("fenced", "lost")
    numbers = [int(line) for line in sink.read_text().split()]
    assert numbers == sorted(numbers)
    assert numbers[-1] == fresh.number


async def test_tokens_rise_over_a_restart_of_the_voter_and_a_lease_outlives_it(mesh: LocalMesh) -> None:
    async with mesh.node("hub") as hub:
        before = await led_once(hub)
    async with mesh.node("hub") as hub:
        after = await led_once(hub)
    assert after.number > before.number


async def test_a_block_is_cancelled_when_its_lease_is_taken(mesh: LocalMesh) -> None:
    async with mesh.node("hub"), mesh.node("edge") as edge, mesh.node("operator") as operator:
        with pytest.raises(NotLeader, match="line-7"):
            async with asyncio.timeout(WAIT_S), edge.election("line-7").lead():
                await operator.query("group_step_down", node="hub", group="line-7")
                await asyncio.Event().wait()
        # Taken back in full: this task is not being cancelled any more.
        await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None and task.cancelling() == 0


async def test_an_error_of_the_block_comes_out_and_gives_the_lease_back(mesh: LocalMesh) -> None:
    async with mesh.node("hub") as hub:
        with pytest.raises((ZeroDivisionError, NotLeader)):
            async with hub.election("line-7").lead():
                raise ZeroDivisionError
        assert await hub.election("line-7").leader() is None


async def test_a_fence_that_knows_better_stops_the_block_before_it_runs(
    mesh: LocalMesh, tmp_path: Path
) -> None:
    fence = Fence(tmp_path / "fence")
    fence.admit(Token("line-7", 10**9))
    async with mesh.node("hub") as hub:
        with pytest.raises(Fenced):
            async with hub.election("line-7").lead(barrier=[fence]):
                pytest.fail("ran")
        assert await hub.election("line-7").leader() is None


async def test_without_a_grant_nobody_campaigns_or_steps_others_down(mesh: LocalMesh) -> None:
    async with mesh.node("hub"), mesh.node("edge") as edge, mesh.node("outsider") as outsider:
        with pytest.raises(GrantDenied, match="OWN"):
            async with outsider.election("line-7").lead():
                pytest.fail("ran")
        with pytest.raises(GrantDenied, match="KEY_ADMIN"):
            await edge.query("group_step_down", node="hub", group="line-7")
        # Another node's token renews nothing.
        token = await led_once(edge)
        for number in (token.number, 0, -1, "x"):
            with pytest.raises(MeshfoldError):
                await edge.query("election_keep", node="hub", name="line-7", token=number)


def test_the_synchronous_form_leads_too(mesh: LocalMesh) -> None:
    tokens: list[int] = []
    with mesh.node("hub") as hub:
        for _ in range(2):
            with contextlib.suppress(NotLeader), hub.election("line-7").lead() as lease:
                assert isinstance(lease, Lease)
                tokens.append(lease.token.number)
        assert hub.election("line-7").leader().result(WAIT_S) is None
    assert tokens[0] < tokens[1]


def test_a_name_that_cannot_be_one_is_refused(mesh: LocalMesh) -> None:
    for name in ("", "Line", "a b", "/x", "x" * 129, "a:b"):
        with pytest.raises(WiringError, match="election"):
            mesh.node("edge").election(name)

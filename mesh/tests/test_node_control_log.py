"""The control log from any node: linearizable, granted by owner, watched over restarts of the voter, never applied twice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from meshfold.core.errors import GrantDenied, TooLarge, TransportTimeout, WiringError
from meshfold.core.ports import Change
from meshfold.mesh.local import LocalMesh
from meshfold.mesh.node import log_desk, remote_log

WAIT_S = 60.0


async def test_a_node_writes_its_own_keys_and_everyone_reads_them(mesh: LocalMesh) -> None:
    async with mesh.node("hub"), mesh.node("edge") as edge, mesh.node("operator") as operator:
        log = edge.control_log
        first = await log.put("app/edge/mode", b"auto")
        assert await log.compare_and_set("app/edge/mode", b"manual", first - 1) is None
        second = await log.compare_and_set("app/edge/mode", b"manual", first)
        assert second is not None and second > first
        found = await operator.control_log.get("app/edge/mode")
        assert found is not None and (found.value, found.version) == (b"manual", second)
        await log.delete("app/edge/mode")
        assert await operator.control_log.get("app/edge/mode") is None
        assert await log.get("app/edge/never") is None
        status = operator.control_log.status()
        assert status.group == "control" and status.voters == ("hub",)


async def test_what_was_not_granted_is_refused_and_the_meshs_own_keys_are_not_for_applications(
    mesh: LocalMesh,
) -> None:
    async with (
        mesh.node("hub"),
        mesh.node("edge") as edge,
        mesh.node("outsider") as outsider,
        mesh.node("operator") as operator,
    ):
        with pytest.raises(GrantDenied, match="OWN"):
            await edge.control_log.put("app/hub/mode", b"x")
        with pytest.raises(GrantDenied):
            await outsider.control_log.get("app/edge/mode")
        with pytest.raises(GrantDenied, match="KEY_ADMIN|operator"):
            await edge.control_log.get("policy")
        with pytest.raises(GrantDenied):
            await edge.control_log.snapshot("")
        for key in ("policy", "grant/00", "app/", "app/edge", ""):
            with pytest.raises(WiringError):
                await operator.control_log.put(key, b"x")
        assert any(key.startswith("grant/") for key in await operator.control_log.snapshot(""))


async def test_a_change_whose_answer_was_lost_is_applied_once(
    mesh: LocalMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with mesh.node("hub"), mesh.node("edge") as edge:
        voters = edge.session.ask_voters
        ask, lost = voters.ask, [2]

        async def lossy(command: str, args: dict[str, Any], timeout_s: float) -> dict[str, Any]:
            answer = await ask(command, args, timeout_s)
            if lost[0] > 0:
                lost[0] -= 1
                raise TransportTimeout("lost on the way back", timeout_s=timeout_s)
            return answer

        monkeypatch.setattr(voters, "ask", lossy)
        seen: list[Change] = []
        index = await edge.control_log.put("app/edge/count", b"1")
        assert lost == [0]
        async for change in edge.control_log.watch("app/edge/", after=0):
            seen.append(change)
            break
        assert seen == [Change(index, "app/edge/count", b"1")]
        assert (await edge.control_log.put("app/edge/count", b"2")) == index + 1


async def test_a_watch_is_gap_free_over_a_restart_of_the_voter(mesh: LocalMesh) -> None:
    hub = mesh.node("hub")
    await hub.__aenter__()
    async with mesh.node("edge") as edge:
        seen: list[bytes | None] = []

        async def follow() -> None:
            async for change in edge.control_log.watch("app/edge/"):
                seen.append(change.value)
                if len(seen) == 6:
                    return

        following = asyncio.ensure_future(follow())
        for at in range(3):
            await edge.control_log.put("app/edge/x", bytes([at]))
        await hub.__aexit__(None, None, None)
        async with mesh.node("hub"):
            for at in range(3, 6):
                await edge.control_log.put("app/edge/x", bytes([at]))
            await asyncio.wait_for(following, WAIT_S)
    assert seen == [bytes([at]) for at in range(6)]


async def test_a_watch_that_is_held_ends_with_its_log(mesh: LocalMesh) -> None:
    """Waiting for the growth of a log that ended returns at once: a loop around it would hold the event loop for ever."""
    async with mesh.node("hub") as hub:
        control = hub.session.control
        assert control is not None
        asked = {"prefix": "app/hub/", "after": 2**40}
        held = asyncio.ensure_future(control.log_desk.watch(hub.session.identity, asked))
        await asyncio.sleep(0)
        control.log.state.end()
        assert (await held)["changes"] == []


async def test_snapshots_and_watches_come_in_pages(mesh: LocalMesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_desk, "PAGE_ITEMS_MAX", 3)
    monkeypatch.setattr(log_desk, "PAGE_BYTES_MAX", 50)
    async with mesh.node("hub"), mesh.node("edge") as edge:
        log = edge.control_log
        expected = {}
        for at in range(10):
            expected[f"app/edge/{at}"] = bytes([at]) * (60 if at % 4 == 0 else 5)
            await log.put(f"app/edge/{at}", expected[f"app/edge/{at}"])
        found = await log.snapshot("app/edge/")
        assert {key: saved.value for key, saved in found.items()} == expected
        seen: dict[str, bytes | None] = {}
        async with asyncio.timeout(WAIT_S):
            async for change in log.watch("app/edge/"):
                seen[change.key] = change.value
                if len(seen) == 10:
                    break
        assert seen == expected


async def test_a_value_that_does_not_fit_is_refused_before_it_travels(mesh: LocalMesh) -> None:
    async with mesh.node("hub"), mesh.node("edge") as edge:
        whole = bytes(log_desk.VALUE_BYTES_MAX)
        await edge.control_log.put("app/edge/large", whole)
        found = await edge.control_log.get("app/edge/large")
        assert found is not None and found.value == whole
        with pytest.raises(TooLarge):
            await edge.control_log.put("app/edge/large", whole + b"x")


async def test_without_a_voter_a_call_ends_in_a_timeout(
    mesh: LocalMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_log, "CALL_S", 0.2)
    hub = mesh.node("hub")
    await hub.__aenter__()
    async with mesh.node("edge") as edge:
        await hub.__aexit__(None, None, None)
        with pytest.raises(TransportTimeout):
            await edge.control_log.put("app/edge/x", b"1")


def test_the_synchronous_form_reads_and_writes(mesh: LocalMesh) -> None:
    with mesh.node("hub"), mesh.node("edge") as edge:
        index = edge.control_log.put("app/edge/x", b"1").result(WAIT_S)
        found = edge.control_log.get("app/edge/x").result(WAIT_S)
        assert found is not None and found.version == index

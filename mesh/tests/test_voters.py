"""Three voters in one mesh, over a real server: one log, the same keys, records that a majority signed."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from meshfold.core import Schema, route
from meshfold.core.errors import ConfigError, FrameRejected, GrantDenied, MeshfoldError, NoQuorum, NotLeader
from meshfold.mesh import Node
from meshfold.mesh.local import LocalMesh
from meshfold.security import PolicyRecord, Raise
from test_mesh_rotation import signed
from voting import NAMES, WAIT_S, Voters, until

ASK_S = 5.0
SECRET = route("edge", "vault", "secret", schema=Schema.str())


@pytest.fixture
async def voters(three: LocalMesh) -> AsyncIterator[Voters]:
    """All three, running."""
    running = Voters(three)
    await running.start(*NAMES)
    yield running
    await running.stop(*list(running.nodes))


async def test_three_voters_keep_one_log_and_the_same_keys(voters: Voters) -> None:
    leader = await voters.leader()
    control = voters.control(leader)
    await control.log.put("app/edge/x", b"1")
    for name in NAMES:
        state = voters.control(name).log.state
        await until(lambda state=state: "app/edge/x" in state.values)  # type: ignore[misc]
    stock = control.tree.store.stock()
    assert len(stock) == 4
    assert await holding(voters, stock)
    record: PolicyRecord = control.keymaster.record
    assert len(record.signatures) >= 2
    members = voters.nodes[leader].session.directory
    record.verify(record.cluster, {one.tag: one for one in voters.nodes[leader].session.voters})
    assert members.lookup(record.signatures[0][0]) is not None


async def test_voters_that_are_told_to_step_down_take_turns(three: LocalMesh, voters: Voters) -> None:
    led = {await voters.leader()}
    async with three.node("operator") as operator, asyncio.timeout(WAIT_S):
        while len(led) < len(NAMES):
            with contextlib.suppress(MeshfoldError):
                await operator.session.ask_voters.ask("group_step_down", {"group": "control"}, ASK_S)
            led.add(await voters.leader())
    assert led == set(NAMES)


async def holding(voters: Voters, stock: dict[str, bytes], least: int = 2) -> bool:
    """Whether so many voters come to hold the same keys."""

    def same() -> bool:
        return sum(voters.control(name).tree.store.stock() == stock for name in voters.nodes) >= least

    await until(same)
    return True


async def test_members_read_and_write_over_any_voter(voters: Voters) -> None:
    async with voters.mesh.node("edge") as edge:
        reader = voters.nodes["hub-3"]
        bridge = reader.read(SECRET)
        await edge.share(SECRET).ready(WAIT_S)
        edge.graph.publish(SECRET, "sealed")
        await until(lambda: bridge.counters["delivered"] == 1)
        index = await edge.control_log.put("app/edge/y", b"2")
        found = await edge.control_log.get("app/edge/y")
        assert found is not None and (found.value, found.version) == (b"2", index)
        async with edge.election("line-7").lead() as lease:
            assert lease.token.number > 0


async def revoked(voters: Voters, operator: Node, name: str) -> bytes:
    """Revoke a grant of `name`, by whoever leads; its hash."""
    grant = signed(voters.mesh, name, SECRET.address)
    await operator.session.ask_voters.decided("grant_issue", {"grant": grant.raw.hex()}, ASK_S)
    await operator.session.ask_voters.decided("grant_revoke", {"id": grant.hash.hex()}, ASK_S)
    return grant.hash


async def test_one_of_three_may_be_away_and_two_may_not(
    voters: Voters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshfold.mesh.node.voters.DECIDE_S", 3.0)
    async with voters.mesh.node("operator") as operator:
        first = await voters.leader()
        await voters.stop(first)
        gone = await revoked(voters, operator, "hub")
        second = await voters.leader()
        record = voters.control(second).keymaster.record
        assert gone in record.revoked and second != first
        await until(lambda: gone in operator.session.safety.keeper.record.revoked)
        # The members take it because a majority signed it, and would not without.
        alone = replace(record, log_index=record.log_index + 1, signatures=record.signatures[:1])
        with pytest.raises(FrameRejected) as caught:
            operator.session.safety.take(alone.encode())
        assert caught.value.reason == "sig"

        (third,) = set(NAMES) - {first, second}
        await voters.stop(third)
        grant = signed(voters.mesh, "hub-2", SECRET.address)
        for command, args in (("grant_issue", {"grant": grant.raw.hex()}), ("key_rotate", {"route": ">"})):
            with pytest.raises(NoQuorum) as nobody:
                await operator.session.ask_voters.decided(command, args, 1.0)
            assert "start the voters that are away" in str(nobody.value)
        keymaster = voters.control(second).keymaster
        with pytest.raises((NoQuorum, NotLeader)):
            await keymaster.revoke([grant.hash], None)
        assert keymaster.record == record
        await voters.start(third)
        assert (
            await revoked(voters, operator, "hub-3")
            in voters.control(await voters.leader()).keymaster.record.revoked
        )


async def test_a_voter_that_was_away_has_every_key_before_it_decides(voters: Voters) -> None:
    async with voters.mesh.node("operator") as operator:
        ask = operator.session.ask_voters.decided
        first = await voters.leader()
        away = next(name for name in NAMES if name != first)
        async with voters.mesh.node("outsider"):
            pass
        await voters.stop(away)
        await ask("key_rotate", {"route": ">"}, ASK_S)
        # Its only grant: with it the members' key goes.
        await revoked(voters, operator, "outsider")
        leader = await voters.leader()
        stock = voters.control(leader).tree.store.stock()
        assert "root/d/1" in stock and any(name.startswith("members/1/") for name in stock)
        await voters.start(away)
        await voters.stop(leader)
        other = next(iter(set(voters.nodes) - {away}))
        # The one that drew the keys is gone; whoever of the others leads, both come to hold them.
        for name in (other, away):
            await voters.lead(name)
            assert voters.control(name).tree.store.stock() == stock
        async with voters.mesh.node("edge") as edge:
            bridge = voters.nodes[away].read(SECRET)
            await edge.share(SECRET).ready(WAIT_S)
            edge.graph.publish(SECRET, "under the newest key")
            await until(lambda: bridge.counters["delivered"] == 1)


async def test_a_voter_signs_one_record_of_a_rank_and_the_next_goes_above_it(voters: Voters) -> None:
    leader = await voters.leader()
    control = voters.control(leader)
    keymaster = control.keymaster
    other = next(name for name in NAMES if name != leader)
    session = voters.nodes[leader].session
    record = keymaster.record
    one = replace(record, policy_epoch=record.policy_epoch + 1, log_index=record.log_index + 1, signatures=())
    two = replace(one, decided=((bytes(8), bytes(8)),))

    async def ask(proposed: PolicyRecord) -> dict[str, Any]:
        args = {"record": proposed.encode().hex(), "keys": {}}
        return await session.asker.ask(voters.nodes[other].session.identity, "policy_sign", args, WAIT_S)

    assert "signature" in await ask(one)
    assert await ask(two) == {"signed": list(one.rank)}
    assert await ask(one) == await ask(one)
    # Also after a restart, and though the first came to nothing.
    await voters.stop(other)
    await voters.start(other)
    await voters.lead(leader)
    assert await ask(two) == {"signed": list(one.rank)}
    (third,) = set(NAMES) - {leader, other}
    await voters.stop(third)
    await voters.lead(leader)
    made = await keymaster.decide_clone(bytes(8), bytes(8))
    assert made.rank > one.rank


async def test_a_voter_signs_for_the_leader_only_what_follows_its_log(voters: Voters) -> None:
    leader = await voters.leader()
    other, third = (name for name in NAMES if name != leader)
    record = voters.control(leader).keymaster.record
    following = replace(record, log_index=record.log_index + 1, signatures=())
    told = voters.nodes[other].session.identity

    async def ask(by: Node, proposed: PolicyRecord) -> dict[str, Any]:
        args = {"record": proposed.encode().hex(), "keys": {}}
        return await by.session.asker.ask(told, "policy_sign", args, WAIT_S)

    with pytest.raises(NotLeader):
        await ask(voters.nodes[third], following)
    node, vector = record.epochs.next_of(())
    raised = Raise(node, vector[-1], 1, 0, (bytes(32),) * 3, above=vector[:-1])
    forged = replace(following, epochs=record.epochs.with_raise(raised, 1))
    for proposed, reason in (
        (replace(following, log_index=record.log_index), "policy"),
        (replace(following, voters=bytes(32)), "member"),
        (forged, "key"),
    ):
        with pytest.raises(FrameRejected) as caught:
            await ask(voters.nodes[leader], proposed)
        assert caught.value.reason == reason
    async with voters.mesh.node("edge") as edge:
        for command, args in (
            ("policy_sign", {}),
            ("voter_keys", {"names": ["root/d/0"]}),
            ("member_admit", {}),
        ):
            with pytest.raises(GrantDenied):
                await edge.session.asker.ask(voters.nodes[leader].session.identity, command, args, WAIT_S)


async def test_a_voter_whose_votes_are_lost_does_not_vote_again(voters: Voters) -> None:
    leader = await voters.leader()
    await voters.stop(leader)
    for raft in voters.mesh.state_dir.glob("voter/*/raft"):
        if raft.parent.name == voters.mesh_id(leader):
            shutil.rmtree(raft)
    with pytest.raises(ConfigError, match="has voted"):
        await voters.start(leader)
    await voters.leader()


def test_a_mesh_keeps_the_voters_it_was_founded_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESHFOLD_CONTEXTS", str(tmp_path / "contexts"))
    with pytest.raises(ConfigError, match="1, 3, 5 or 7"), LocalMesh(tmp_path / "even", voters=("a", "b")):
        pass
    with LocalMesh(tmp_path / "one") as mesh, mesh.node("hub"):
        pass
    with LocalMesh(tmp_path / "one", voters=NAMES) as mesh, pytest.raises(ConfigError, match="founded with"):
        mesh.node("hub").__enter__()

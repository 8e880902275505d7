"""Three voters in one event loop, on real disks, over a wire that loses, delays, doubles and parts."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from disks import SimDisk
from meshfold.consensus import Busy, Command, Elections, Holder, Op, RaftLog, RaftTiming, Token
from meshfold.consensus.disk import Disk
from meshfold.core.errors import ConfigError, ConsensusError, NoQuorum, NotLeader
from meshfold.core.ports import LogStatus

T = TypeVar("T")
WAIT_S = 100.0
TIMING = RaftTiming(tick_ms=50, election_ticks=10)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until the condition holds."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - the condition is another party's
            await asyncio.sleep(0)


class Clock:
    """The machine's."""

    def now(self) -> tuple[int, int]:
        """Wall and monotonic."""
        return time.time_ns(), time.monotonic_ns()


class Network:
    """Carries messages between the voters of a test."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.logs: dict[int, RaftLog] = {}
        self.loss = 0.0
        self.apart: set[int] = set()

    def send(self, sender: int, to: int, data: bytes) -> None:
        """Lose it, or deliver it once or twice, some time later."""
        if self.random.random() < self.loss or (sender in self.apart) != (to in self.apart):
            return
        for _ in range(2 if self.random.random() < 0.02 else 1):
            asyncio.get_running_loop().call_later(
                self.random.uniform(0, 0.004), self._arrive, sender, to, data
            )

    def _arrive(self, sender: int, to: int, data: bytes) -> None:
        if to in self.logs and (sender in self.apart) == (to in self.apart):
            self.logs[to].receive(data, sender)


class _Wire:
    def __init__(self, network: Network, sender: int) -> None:
        self._network, self._sender = network, sender

    def send(self, to: int, data: bytes) -> None:
        self._network.send(self._sender, to, data)


class Group:
    """The voters, each with its folder."""

    def __init__(self, folder: Path, founders: tuple[int, ...] = (1, 2, 3)) -> None:
        self.folder = folder
        self.founders = founders
        self.network = Network(seed=1)
        self.lives = 0

    def start(self, node: int, *, founds: bool = True, disk: Disk | None = None) -> RaftLog:
        """Begin a life of a voter."""
        self.lives += 1
        log = RaftLog.open(
            self.folder / str(node),
            node=node,
            names=lambda number: f"node-{number}",
            founders=self.founders if founds else None,
            wire=_Wire(self.network, node),
            clock=Clock(),
            seed=self.lives,
            timing=TIMING,
            disk=disk,
        )
        log.allow(range(1, 8))
        log.start()
        self.network.logs[node] = log
        return log

    async def stop(self, node: int) -> None:
        """End it."""
        await self.network.logs.pop(node).close()

    async def anywhere(self, call: Callable[[RaftLog], Awaitable[T]]) -> T:
        """Make the call at whoever leads, until one answers."""
        async with asyncio.timeout(WAIT_S):
            while True:
                for node, log in list(self.network.logs.items()):
                    if node not in self.network.apart:
                        with contextlib.suppress(NotLeader, NoQuorum):
                            return await call(log)
                await asyncio.sleep(0)

    async def leader(self) -> int:
        """Who leads, as a read proves."""

        async def proven(log: RaftLog) -> int:
            await log.get("x")
            return int(log.status().node.removeprefix("node-"))

        return await self.anywhere(proven)


def put(key: str, value: bytes) -> Callable[[RaftLog], Awaitable[int]]:
    """A call for `anywhere`."""
    return lambda log: log.put(key, value)


def submit(command: Command) -> Callable[[RaftLog], Awaitable[int | None]]:
    """A call for `anywhere`."""
    return lambda log: log.submit(command)


@pytest.fixture
async def group(tmp_path: Path) -> AsyncIterator[Group]:
    """Three voters."""
    made = Group(tmp_path)
    for node in made.founders:
        made.start(node)
    yield made
    for node in list(made.network.logs):
        await made.stop(node)


async def test_a_group_elects_a_leader_and_keeps_what_it_is_given(group: Group) -> None:
    first = await group.anywhere(lambda log: log.put("a", b"1"))
    second = await group.anywhere(lambda log: log.compare_and_set("a", b"2", first))
    assert second is not None and second > first
    assert await group.anywhere(lambda log: log.compare_and_set("a", b"3", first)) is None
    found = await group.anywhere(lambda log: log.get("a"))
    assert found is not None and (found.value, found.version) == (b"2", second)
    leader = await group.leader()
    follower = next(log for node, log in group.network.logs.items() if node != leader)
    with pytest.raises(NotLeader) as caught:
        await follower.put("a", b"4")
    assert caught.value.fields["leader"] in {"node-1", "node-2", "node-3"}
    # Followers may be watched: they learn of everything, in order.
    async with asyncio.timeout(WAIT_S):
        async for change in follower.watch("a", after=first):
            assert (change.index, change.value) == (second, b"2")
            break


async def test_a_leader_that_is_gone_is_followed_and_nothing_acknowledged_is_lost(group: Group) -> None:
    kept = {}
    for turn in range(3):
        kept[f"k{turn}"] = await group.anywhere(put(f"k{turn}", b"v"))
        leader = await group.leader()
        term = group.network.logs[leader].status().term
        await group.stop(leader)
        kept[f"l{turn}"] = await group.anywhere(put(f"l{turn}", b"v"))
        assert (await group.anywhere(_status)).term > term
        group.start(leader)
    found = await group.anywhere(lambda log: log.snapshot())
    assert {key: saved.version for key, saved in found.items()} == kept


async def _status(log: RaftLog) -> LogStatus:
    await log.get("x")
    return log.status()


async def test_a_lossy_wire_costs_time_and_nothing_else(group: Group) -> None:
    group.network.loss = 0.2
    done: list[int] = []
    for number in range(20):
        command = Command(Op.PUT, f"k{number % 4}", bytes([number]), id=f"id-{number}".encode())
        index = await group.anywhere(submit(command))
        assert index is not None
        done.append(index)
    # A command whose answer was lost and that was given again under its id was applied once.
    assert done == sorted(set(done))
    found = await group.anywhere(lambda log: log.snapshot("k"))
    assert {key: saved.value[0] for key, saved in found.items()} == {"k0": 16, "k1": 17, "k2": 18, "k3": 19}


async def test_a_leader_that_is_cut_off_acknowledges_nothing_and_reads_nothing(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshfold.consensus.raft_log.WAIT_S", 0.3)
    await group.anywhere(lambda log: log.put("a", b"1"))
    leader = await group.leader()
    old = group.network.logs[leader]
    group.network.apart = {leader}
    with pytest.raises(ConsensusError):
        await old.put("a", b"lost")
    with pytest.raises(ConsensusError):
        await old.get("a")
    monkeypatch.setattr("meshfold.consensus.raft_log.WAIT_S", 5.0)
    index = await group.anywhere(lambda log: log.put("a", b"2"))
    await until(lambda: not old.may_answer() and old.status().leader != f"node-{leader}")
    group.network.apart = set()
    async with asyncio.timeout(WAIT_S):
        async for change in old.watch("a", after=index - 1):
            assert change.value == b"2"
            break


async def test_a_voter_joins_as_learner_gets_a_snapshot_and_takes_the_place_of_another(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshfold.consensus.raft_log.COMPACT_BYTES", 5000)
    for number in range(60):
        await group.anywhere(put(f"k{number % 7}", bytes(200)))
    assert any(name.name.startswith("snapshot.") for name in (group.folder / "1").iterdir())
    group.start(4, founds=False)
    await group.anywhere(lambda log: log.change_members([1, 2, 3], [4]))
    await group.anywhere(lambda log: log.change_members([2, 3, 4]))
    await group.stop(1)
    index = await group.anywhere(lambda log: log.put("after", b"1"))
    await until(lambda: group.network.logs[4].state.applied >= index)
    assert len(group.network.logs[4].state.values) == 8
    status = await group.anywhere(_status)
    assert status.voters == ("node-2", "node-3", "node-4")
    # And it remembers who it is.
    await group.stop(4)
    assert group.start(4, founds=False).status().voters == ("node-2", "node-3", "node-4")


async def test_leadership_is_handed_over(group: Group) -> None:
    leader = await group.leader()
    other = leader % 3 + 1
    with pytest.raises(ConfigError, match="no other voter"):
        await group.network.logs[leader].transfer(7)
    async with asyncio.timeout(WAIT_S):
        while await group.leader() != other:
            with contextlib.suppress(NotLeader, NoQuorum):
                await group.network.logs[await group.leader()].transfer(other)


async def test_hf4_a_voter_whose_disk_fails_says_nothing_more_and_the_others_go_on(tmp_path: Path) -> None:
    group = Group(tmp_path)
    disk = SimDisk()
    log = group.start(1, disk=disk)
    for node in (2, 3):
        group.start(node)
    await group.anywhere(lambda log: log.put("a", b"1"))

    def fail(kind: str, name: str) -> None:
        if kind == "sync":
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    disk.on_step = fail
    await group.anywhere(lambda other: other.put("b", b"2"))
    await until(lambda: log.status().leader is None)
    with pytest.raises(NoQuorum, match="Input/output error"):
        await log.put("c", b"3")
    assert not log.may_answer()
    group.network.apart = {1}
    await group.anywhere(lambda other: other.put("d", b"4"))
    # Its machine is exchanged: the disk is read anew, and what it had acknowledged is there.
    disk.on_step = lambda kind, name: None
    await group.stop(1)
    group.network.apart = set()
    log = group.start(1, disk=disk)
    index = await group.anywhere(lambda other: other.put("e", b"5"))
    await until(lambda: log.state.applied >= index)
    assert set(log.state.values) == {"a", "b", "d", "e"}
    for node in (1, 2, 3):
        await group.stop(node)


async def test_leases_outlive_a_change_of_leader_and_never_overlap(group: Group) -> None:
    elections = {
        node: Elections(log, Clock(), may_answer=log.may_answer) for node, log in group.network.logs.items()
    }

    async def campaign(claim: str) -> Token:
        async with asyncio.timeout(WAIT_S):
            while True:
                for node in list(elections):
                    with contextlib.suppress(NotLeader, NoQuorum):
                        found = await elections[node].campaign("line-7", Holder(claim, claim, claim))
                        if not isinstance(found, Busy):
                            return found
                await asyncio.sleep(0)

    first = await campaign("a")
    leader = await group.leader()
    await group.stop(leader)
    del elections[leader]
    second = await campaign("b")
    assert second.number > first.number


async def test_a_group_of_one_needs_nobody(tmp_path: Path) -> None:
    alone = Group(tmp_path, founders=(1,))
    log = alone.start(1)
    index = await log.put("a", b"1")
    assert log.may_answer()
    await alone.stop(1)
    log = alone.start(1)
    found = await log.get("a")
    assert found is not None and found.version == index
    await alone.stop(1)


async def test_what_is_not_a_message_is_counted_by_reason(group: Group) -> None:
    log = group.network.logs[1]
    log.receive(b"", 2)
    log.receive(b"\x09" + (2).to_bytes(8, "big") + (1).to_bytes(8, "big") + bytes(8), 3)
    log.receive(b"\x09" + (9).to_bytes(8, "big") + (1).to_bytes(8, "big") + bytes(8), 9)
    log.receive(b"\x09" + (2).to_bytes(8, "big") + (1).to_bytes(8, "big") + b"\xff" * 8, 2)
    assert log.rejected == {"format": 1, "address": 1, "member": 1, "term": 1}


async def test_a_follower_says_who_leads_when_it_is_asked_for_an_election(group: Group) -> None:
    leader = await group.leader()
    follower = next(log for node, log in group.network.logs.items() if node != leader)
    await until(lambda: follower.leader == leader)
    elections = Elections(follower, Clock(), may_answer=follower.may_answer)
    with pytest.raises(NotLeader) as caught:
        await elections.campaign("line-7", Holder("h", "h", "claim"))
    assert caught.value.fields["leader"] == f"node-{leader}"

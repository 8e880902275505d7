"""`RaftLog`: the control log of a group of several voters - a majority of them keeps it.

The driver of the state machine in Rust: it owns timer and disk, and is given clock and wire. One task does, in this order,
what the machine wants done: make durable, send, apply. Everything else only puts inputs in.

Rules: a tick that comes half an election timeout late makes a leader step down before anything else is handled; after a
failed sync this voter says nothing more until it is opened anew.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, Protocol

from meshfold._native import Raft, RaftReady
from meshfold.consensus.commands import Command
from meshfold.consensus.disk import Disk, OsDisk
from meshfold.consensus.key_values import KeyValues
from meshfold.consensus.log_changes import LogChanges
from meshfold.consensus.log_store import LogStore
from meshfold.consensus.raft_disk import open_raft, pack, persist, unpack
from meshfold.consensus.timing import LAN, RaftTiming
from meshfold.consensus.wal import Kind
from meshfold.core.errors import ConfigError, NoQuorum, NotLeader, StoreDamaged
from meshfold.core.jobs import end_jobs
from meshfold.core.ports import Clock, LogStatus, Versioned

__all__ = ("RaftLog", "Wire")

#: Commands and reads of this voter's callers that wait at a time; further callers wait their turn.
WAITING_MAX: Final = 1024
#: How long a command or read may wait for a majority.
WAIT_S: Final = 5.0
COMPACT_BYTES: Final = 4 * 1024 * 1024
RETRY_S: Final = 0.02


class Wire(Protocol):
    """Carries messages to another voter, or loses them. Must not block; what arrives goes to `RaftLog.receive`."""

    def send(self, to: int, data: bytes) -> None:
        """Send one message."""
        ...


class RaftLog(LogChanges):
    """A control log whose voters are several. Implements `meshfold.core.ports.ControlLog`.

    Only the leader reads and writes; the others raise `NotLeader`, naming it.
    """

    def __init__(
        self,
        store: LogStore,
        raft: Raft,
        *,
        group: str,
        names: Callable[[int], str],
        wire: Wire,
        clock: Clock,
        timing: RaftTiming,
    ) -> None:
        self._store = store
        self._raft = raft
        self._group = group
        self._names = names
        self._wire = wire
        self._clock = clock
        self._timing = timing
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="meshfold-raft")
        self.state = KeyValues()
        #: refused messages by reason
        self.rejected: dict[str, int] = {}
        self._commands: dict[int, tuple[int, asyncio.Future[int | None]]] = {}
        self._reads: dict[int, asyncio.Future[int]] = {}
        self._contexts = 0
        self._turns = asyncio.Semaphore(WAITING_MAX)
        self._input = asyncio.Event()
        self._changed = asyncio.Event()
        self._rounds: dict[int, int] = {}
        self._last_tick_ns = clock.now()[1]
        self._failed: str | None = None
        self._closed = False
        self._jobs: list[asyncio.Task[None]] = []

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        group: str = "control",
        node: int,
        names: Callable[[int], str],
        founders: Sequence[int] | None,
        wire: Wire,
        clock: Clock,
        seed: int,
        timing: RaftTiming | None = None,
        disk: Disk | None = None,
    ) -> RaftLog:
        """Open this voter's part of the log; it takes part once `start` was called.

        :param node: this voter's id, a positive number of 64 bits
        :param names: the name of a voter by its id
        :param founders: the first voters where this node founds the group and its disk is empty; None to join one
        :param seed: parts the election timeouts of the voters
        :raises ConfigError: if the folder cannot be used or another process holds it
        :raises StoreDamaged: if it is damaged below what it acknowledged: this voter must not vote again under its id
        """
        times = timing or RaftTiming()
        try:
            store = LogStore(directory, disk or OsDisk(directory, names(node)))
        except StoreDamaged as error:
            # What it voted and acknowledged cannot be given up here: the others count on it.
            raise StoreDamaged(
                error.what,
                fix="restore the file, or leave this voter out: the others have what it lost, and go on without it",
                **error.fields,
            ) from error
        try:
            raft = open_raft(store, node, founders, KeyValues().dump(1).state, times, seed)
            log = cls(store, raft, group=group, names=names, wire=wire, clock=clock, timing=times)
            if store.snapshot is not None:
                log.state.load(unpack(store.snapshot)[1])
        except OSError as error:
            store.close()
            raise ConfigError(
                f"cannot use the control log in {directory}: {error.strerror}", item=str(directory)
            ) from error
        except BaseException:
            store.close()
            raise
        return log

    def start(self) -> None:
        """Take part, in the running event loop."""
        loop = asyncio.get_running_loop()
        self._last_tick_ns = self._clock.now()[1]
        self._jobs = [loop.create_task(self._tick()), loop.create_task(self._work())]
        self._input.set()

    def allow(self, nodes: Sequence[int]) -> None:
        """Let these nodes take part although the log does not name them yet: those that hold CONSENSUS_MEMBER."""
        self._raft.allow(nodes)

    def receive(self, data: bytes, sender: int) -> str | None:
        """Take in a message of an authenticated sender; one that is refused is counted in `rejected`, and why is returned."""
        if self._failed is not None or self._closed:
            return None
        self._notice_stall()
        reason = self._raft.step(data, sender)
        if reason is not None:
            self.rejected[reason] = self.rejected.get(reason, 0) + 1
        self._input.set()
        return reason

    def _notice_stall(self) -> None:
        late_ns = self._clock.now()[1] - self._last_tick_ns - self._timing.tick_ms * 1_000_000
        if late_ns > self._timing.election_ns // 2:
            self._last_tick_ns = self._clock.now()[1]
            self._raft.stalled()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(self._timing.tick_ms / 1000)
            self._notice_stall()
            self._last_tick_ns = self._clock.now()[1]
            self._raft.tick()
            self._input.set()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._input.wait()
                self._input.clear()
                while (ready := self._raft.ready()) is not None:
                    await loop.run_in_executor(self._thread, persist, self._store, ready)
                    self._do(ready)
                self._note_rounds()
                await self._compact(loop)
                changed, self._changed = self._changed, asyncio.Event()
                changed.set()
        except (OSError, StoreDamaged) as error:
            self._fail(f"{error}; restart this voter")
        except BaseException as error:
            self._fail(f"ended with {error!r}")
            raise

    def _do(self, ready: RaftReady) -> None:
        """What follows once it is durable."""
        for to, data in ready.messages:
            self._wire.send(to, data)
        if ready.snapshot is not None:
            self.state.load(unpack(pack(*ready.snapshot))[1])
            self._settle_commands()
        for index, term, kind, data in ready.committed:
            command = Command.decode(data) if kind == Kind.COMMAND else None
            result = self.state.apply(index, command)
            self._settle(index, term, result)
        for context, index in ready.reads:
            waiting = self._reads.pop(context, None)
            if waiting is not None and not waiting.done():
                waiting.set_result(index)
        for context in ready.reads_lost:
            waiting = self._reads.pop(context, None)
            if waiting is not None and not waiting.done():
                waiting.set_exception(self._not_leader())
        entries = ready.entries
        if entries:
            self._raft.persisted(entries[-1][0], entries[-1][1])

    def _settle(self, index: int, term: int, result: int | None) -> None:
        known = self._commands.pop(index, None)
        if known is None or known[1].done():
            return
        if known[0] == term:
            known[1].set_result(result)
        else:
            # Another leader has another entry there: ours is not in the log and never will be.
            known[1].set_exception(self._not_leader())

    def _settle_commands(self) -> None:
        """A snapshot took the place of entries that were waited for: what became of them is not known here."""
        for index in [index for index in self._commands if index <= self.state.applied]:
            _, waiting = self._commands.pop(index)
            if not waiting.done():
                waiting.set_exception(self._no_quorum("it is not known whether the entry was committed"))

    def _note_rounds(self) -> None:
        """When each round of heartbeats was sent: `may_answer` counts from there."""
        if self._raft.role != "leader":
            self._rounds.clear()
            return
        self._rounds.setdefault(self._raft.round, self._clock.now()[1])
        reached = self._raft.quorum_round
        for number in [number for number in self._rounds if number < reached]:
            del self._rounds[number]

    async def _compact(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._store.log_bytes < max(COMPACT_BYTES, 2 * self.state.bytes):
            return
        index = self.state.applied
        snapshot = self.state.dump(0)
        self._raft.compact(index, snapshot.state)
        term = next((entry.term for entry in self._store.entries if entry.index == index), None)
        if term is not None:
            packed = pack(index, term, self._raft.base_members, snapshot.state)
            await loop.run_in_executor(self._thread, self._store.compact, packed)

    def _fail(self, why: str) -> None:
        self._failed = self._failed or why
        error = self._no_quorum(self._failed)
        waiting: list[asyncio.Future[Any]] = [*self._reads.values()]
        waiting += [known[1] for known in self._commands.values()]
        self._reads.clear()
        self._commands.clear()
        for future in waiting:
            if not future.done():
                future.set_exception(error)
        self.state.end()

    def _no_quorum(self, why: str) -> NoQuorum:
        return NoQuorum(f"group {self._group}: {why}", fix="try again shortly", group=self._group)

    def _not_leader(self) -> NotLeader:
        leader = self._raft.leader
        name = self._names(leader) if leader is not None and leader != self._raft.id else None
        return NotLeader(
            f"{self._names(self._raft.id)} does not lead group {self._group}",
            fix=f"ask {name}" if name else "no leader is known: try again shortly",
            group=self._group,
            leader=name,
        )

    def _check(self) -> None:
        if self._closed or self._failed is not None:
            raise self._no_quorum(self._failed or "closed")
        if self._raft.role != "leader":
            raise self._not_leader()

    async def submit(self, command: Command) -> int | None:
        """Commit a command and return its index, or None for a comparison that did not hold: a majority has it on disk.

        A command whose id was applied before is not applied again: its first index is returned.

        :raises NotLeader: if another voter leads; it was not applied
        :raises NoQuorum: if a majority did not answer in time: whether it will be applied is unknown
        :raises TooLarge: if it exceeds the limits of an entry or of the state; nothing was written
        :raises WiringError: if the key cannot be one
        """
        command.check()
        async with self._turns:
            self._check()
            self.state.check_room(command, 0)
            waiting: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
            index: int | None = None
            try:
                async with asyncio.timeout(WAIT_S):
                    while (index := self._raft.propose(command.encode())) is None:
                        # Handing over, or too much under way.
                        await asyncio.sleep(RETRY_S)
                        self._check()
                    self._commands[index] = (self._raft.term, waiting)
                    self._input.set()
                    return await waiting
            except TimeoutError:
                raise self._no_quorum(
                    "no majority answered in time: the entry may or may not be applied later"
                ) from None
            finally:
                if index is not None:
                    self._commands.pop(index, None)

    async def _read(self) -> None:
        """Return when everything is applied that was committed when the call began.

        :raises NotLeader: if another voter leads
        :raises NoQuorum: if a majority did not answer in time
        """
        async with self._turns:
            self._check()
            self._contexts += 1
            context = self._contexts
            waiting: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(WAIT_S):
                    while not self._raft.read_index(context):
                        await asyncio.sleep(RETRY_S)
                        self._check()
                    self._reads[context] = waiting
                    self._input.set()
                    index = await waiting
                    while self.state.applied < index:
                        await self.state.grown(self.state.applied)
                        self._check()
            except TimeoutError:
                raise self._no_quorum("no majority answered in time") from None
            finally:
                self._reads.pop(context, None)

    async def get(self, key: str) -> Versioned | None:
        """Return the value as of now, or None. Raises as `snapshot`."""
        await self._read()
        return self.state.values.get(key)

    async def snapshot(self, prefix: str = "") -> Mapping[str, Versioned]:
        """All keys beginning with `prefix`, consistent at one index.

        :raises NotLeader: if another voter leads
        :raises NoQuorum: if a majority did not answer in time
        """
        await self._read()
        return self.state.snapshot(prefix)

    def status(self) -> LogStatus:
        """What this voter knows of the group; never waits."""
        raft = self._raft
        leader = raft.leader if self._failed is None else None
        voters = tuple(self._names(voter) for voter in raft.members[0])
        name = self._names(leader) if leader is not None else None
        return LogStatus(self._group, name, raft.term, raft.commit, voters, self._names(raft.id))

    @property
    def leader(self) -> int | None:
        """The voter that leads as far as this one knows, or None."""
        return self._raft.leader if self._failed is None and not self._closed else None

    def may_answer(self) -> bool:
        """Whether a majority answered a heartbeat that was sent less than a lease ago: then nobody else can have led since."""
        if self._failed is not None or self._closed or self._raft.role != "leader":
            return False
        if self._raft.members[0] == [self._raft.id]:
            return True
        sent_ns = self._rounds.get(self._raft.quorum_round)
        return sent_ns is not None and self._clock.now()[1] - sent_ns < LAN.held_ns

    async def transfer(self, to: int) -> None:
        """Hand the leadership to another voter, which must have everything first.

        :raises NotLeader: if this voter does not lead
        :raises ConfigError: if `to` is no other voter
        :raises NoQuorum: if it did not take over in time; this voter may lead on
        """
        self._check()
        if not self._raft.transfer(to):
            raise ConfigError(f"{self._names(to)} is no other voter of {self._group}", item="transfer")
        self._input.set()
        with contextlib.suppress(NotLeader):
            async with asyncio.timeout(WAIT_S):
                while self._raft.leader != to:
                    changed = self._changed
                    await changed.wait()
                return
        raise self._no_quorum(f"{self._names(to)} did not take over in time")

    async def change_members(self, voters: Sequence[int], learners: Sequence[int] = ()) -> None:
        """Change voters and learners, by joint consensus; returns when the new majority alone decides.

        :raises NotLeader: if this voter does not lead
        :raises ConfigError: if a change is under way, or this one makes no sense
        :raises NoQuorum: if a majority of the old or the new voters did not answer in time
        """
        self._check()
        index = self._raft.change_members(list(voters), list(learners))
        if index is None:
            raise ConfigError(
                f"the members of {self._group} cannot be changed so now",
                fix="one change at a time, voters and learners apart, and at least one voter",
                item="members",
            )
        self._input.set()
        wanted: tuple[list[int], list[int], list[int]] = (sorted(voters), [], sorted(learners))
        try:
            async with asyncio.timeout(WAIT_S):
                while self._raft.members != wanted or self._raft.commit < index:
                    changed = self._changed
                    await changed.wait()
        except TimeoutError:
            raise self._no_quorum("the change of members is not finished: no majority answers") from None

    async def close(self) -> None:
        """Stop taking part; what waits is refused with `NoQuorum`. Idempotent."""
        if self._closed:
            return
        self._closed = True
        await end_jobs(self._jobs)
        self._fail("closed")
        self._thread.shutdown(wait=True)
        self._store.close()

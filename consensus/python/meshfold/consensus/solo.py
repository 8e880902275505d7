"""`SoloLog`: the control log of a group with one voter - durable, linearizable, on one disk.

Rules: an entry is written and fsynced before it is applied and before `put` returns; commands that wait together are written
together, in a thread, so that the disk holds up nobody's keep-alives; after a failed sync nothing is acknowledged until the
log is opened anew, because nobody knows what is on disk; each opening begins a new term, on disk before anything else.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from meshfold.consensus.commands import Command
from meshfold.consensus.disk import Disk, OsDisk
from meshfold.consensus.key_values import KeyValues
from meshfold.consensus.log_changes import LogChanges
from meshfold.consensus.log_store import LogStore
from meshfold.consensus.wal import Entry, Kind
from meshfold.core.errors import MeshfoldError, NoQuorum, StoreDamaged
from meshfold.core.ports import LogStatus, Versioned

__all__ = ("SoloLog",)

#: Commands that wait at a time; further callers wait their turn.
WAITING_MAX: Final = 1024
#: What is written together.
BATCH_ENTRIES_MAX: Final = 256
BATCH_BYTES_MAX: Final = 4 * 1024 * 1024
#: A log of this many bytes is compacted, if it is also twice as long as the state that it made.
COMPACT_BYTES: Final = 4 * 1024 * 1024


class _Waiting:
    """A command and who waits for it."""

    __slots__ = ("command", "done", "size")

    def __init__(self, command: Command) -> None:
        self.command = command
        self.size = len(command.key) + len(command.value)
        self.done: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()


class SoloLog(LogChanges):
    """A control log with one voter. Implements `meshfold.core.ports.ControlLog`."""

    def __init__(self, store: LogStore, group: str, node: str, disk_thread: ThreadPoolExecutor) -> None:
        self._store = store
        self._group = group
        self._node = node
        self._thread = disk_thread
        self.state = KeyValues()
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._turns = asyncio.Semaphore(WAITING_MAX)
        self._writer: asyncio.Task[None] | None = None
        self._compact_at = COMPACT_BYTES
        #: why the last compaction did not succeed; the log goes on without it
        self.compaction_failed: str | None = None
        self._closed = False

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        group: str = "control",
        node: str,
        recover_to: int | None = None,
        disk: Disk | None = None,
    ) -> SoloLog:
        """Open or make the log in `directory` and begin a new term.

        :param recover_to: give up everything from this byte offset on, after damage was reported; the indexes given up
            are never used again
        :param disk: another disk than that of the operating system
        :raises ConfigError: if the folder cannot be used or another process holds it, naming that one
        :raises StoreDamaged: if the log is damaged below what it acknowledged, naming the offset
        """
        store = LogStore(directory, disk or OsDisk(directory, node), recover_to=recover_to)
        made = cls(store, group, node, ThreadPoolExecutor(1, thread_name_prefix="meshfold-log"))
        try:
            made._restore(directory)
        except BaseException:
            made.close()
            raise
        return made

    def _restore(self, directory: Path) -> None:
        store = self._store
        if store.snapshot is not None:
            self.state.load(store.snapshot)
        for entry in store.entries:
            try:
                command = Command.decode(entry.data) if entry.kind == Kind.COMMAND else None
            except ValueError as error:
                raise StoreDamaged(
                    f"entry {entry.index} of {directory} is no command: {error}",
                    path=str(directory),
                    offset=0,
                ) from None
            self.state.apply(entry.index, command)
        try:
            store.begin_term()
        except OSError as error:
            raise self._unstored(error) from error

    def _unstored(self, error: OSError) -> NoQuorum:
        why = error.strerror or str(error)
        fix = "restart the voter" if self._store.poisoned else "free some space and try again"
        return NoQuorum(
            f"the entry could not be stored: {why}",
            fix=fix,
            group=self._group,
            retry=not self._store.poisoned,
        )

    def _check_open(self) -> None:
        if self._closed or self._store.poisoned:
            why = self._store.poisoned or "closed"
            raise NoQuorum(
                f"the control log takes no entries: {why}", fix="restart the voter", group=self._group
            )

    async def submit(self, command: Command) -> int | None:
        """Commit a command and return its index, or None for a comparison that did not hold: the entry is fsynced.

        A command whose id was applied before is not applied again: its first index is returned.

        :raises NoQuorum: if it could not be stored; it was not acknowledged
        :raises TooLarge: if it exceeds the limits of an entry or of the state; nothing was written
        :raises WiringError: if the key cannot be one
        """
        command.check()
        async with self._turns:
            self._check_open()
            before = self.state.done(command)
            if before is not None:
                return before
            if not self.state.could_hold(command):
                return None
            self.state.check_room(command, self._waiting_bytes)
            waiting = _Waiting(command)
            self._waiting.append(waiting)
            self._waiting_bytes += waiting.size
            if self._writer is None:
                self._writer = asyncio.get_running_loop().create_task(self._write())
            return await waiting.done

    async def _write(self) -> None:
        """Write what waits, batch by batch, until nothing does."""
        batch: list[_Waiting] = []
        try:
            while self._waiting:
                batch = self._next_batch()
                await self._write_batch(batch)
        except BaseException as error:
            # Cancelled, or a defect: nobody may wait for ever, and what is on disk is unknown.
            self._store.poisoned = self._store.poisoned or f"writing ended with {error!r}"
            self._refuse(
                batch + list(self._waiting), NoQuorum("the entry may not be stored", group=self._group)
            )
            self._waiting.clear()
            self._waiting_bytes = 0
            raise
        finally:
            self._writer = None

    async def _write_batch(self, batch: list[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        first, term = self._store.last_index + 1, self._store.hard.term
        entries = [
            Entry(first + at, term, Kind.COMMAND, waiting.command.encode())
            for at, waiting in enumerate(batch)
        ]
        try:
            self._check_open()
            await loop.run_in_executor(self._thread, self._store.append, entries)
        except (OSError, MeshfoldError) as error:
            self._refuse(batch, self._unstored(error) if isinstance(error, OSError) else error)
            return
        for entry, waiting in zip(entries, batch, strict=True):
            index = self.state.apply(entry.index, waiting.command)
            if not waiting.done.done():
                waiting.done.set_result(index)
        await self._compact(loop)

    def _next_batch(self) -> list[_Waiting]:
        batch = [self._waiting.popleft()]
        size = batch[0].size
        while self._waiting and len(batch) < BATCH_ENTRIES_MAX:
            if size + self._waiting[0].size > BATCH_BYTES_MAX:
                break
            batch.append(self._waiting.popleft())
            size += batch[-1].size
        self._waiting_bytes -= size
        return batch

    @staticmethod
    def _refuse(batch: list[_Waiting], error: MeshfoldError) -> None:
        for waiting in batch:
            if not waiting.done.done():
                waiting.done.set_exception(error)

    async def _compact(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._closed or self._store.log_bytes < max(self._compact_at, 2 * self.state.bytes):
            return
        snapshot = self.state.dump(self._store.hard.term)
        try:
            await loop.run_in_executor(self._thread, self._store.compact, snapshot)
            self._compact_at, self.compaction_failed = COMPACT_BYTES, None
        except OSError as error:
            # Not needed for anything that was promised: try again when the log has grown further.
            self._compact_at = 2 * self._store.log_bytes
            self.compaction_failed = error.strerror or str(error)

    async def get(self, key: str) -> Versioned | None:
        """Return the value as of now, or None.

        :raises NoQuorum: if the log was closed
        """
        if self._closed:
            self._check_open()
        return self.state.values.get(key)

    async def snapshot(self, prefix: str = "") -> Mapping[str, Versioned]:
        """All keys beginning with `prefix`, consistent at one index."""
        return self.state.snapshot(prefix)

    def status(self) -> LogStatus:
        """Where the group stands: the one voter leads it."""
        term = self._store.hard.term
        return LogStatus(self._group, self._node, term, self.state.applied, (self._node,), self._node)

    def close(self) -> None:
        """Close the files and end watches; what waits to be written is refused with `NoQuorum`. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self.state.end()
        refused = NoQuorum("the control log was closed", fix="restart the voter", group=self._group)
        self._refuse(list(self._waiting), refused)
        self._waiting.clear()
        self._thread.shutdown(wait=True)
        self._store.close()

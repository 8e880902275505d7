"""`SoloLog`: the control log of a group with one voter - durable, linearizable, on one disk.

Rules: an entry is written and fsynced before it is applied and before `put` returns; a failed write poisons the log until
it is opened anew, because after a failed fsync nobody knows what is on disk; each opening begins a new term, on disk
before anything else.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Final

from meshfold.consensus.hard_state import HardStateFile
from meshfold.consensus.wal import RECORD_BYTES_MAX, Entry, encode_entry, scan
from meshfold.core.errors import ConfigError, NoQuorum, StoreDamaged, TooLarge
from meshfold.core.ports import Change, Clock, LogStatus, Versioned

__all__ = ("SoloLog",)

ENTRY_BYTES_MAX: Final = RECORD_BYTES_MAX - 4096
KEY_BYTES_MAX: Final = 1024


class SoloLog:
    """A control log with one voter. Implements `meshfold.core.ports.ControlLog`."""

    def __init__(self, folder: Path, group: str, node: str, lock: int, log: int, hard: HardStateFile) -> None:
        self._folder = folder
        self._group = group
        self._node = node
        self._lock = lock
        self._log = log
        self._hard = hard
        self._entries: list[Entry] = []
        self._values: dict[str, Versioned] = {}
        self._length = 0
        self._poisoned: str | None = None
        self._grown = asyncio.Event()
        self._closed = False

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        group: str = "control",
        node: str,
        clock: Clock | None = None,
        recover_to: int | None = None,
    ) -> SoloLog:
        """Open or make the log in `directory` and begin a new term.

        :param recover_to: give up everything from this byte offset on, after damage was reported
        :raises ConfigError: if the folder cannot be used or another process holds it
        :raises StoreDamaged: if the log is damaged below what it acknowledged, naming the offset
        """
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(lock)
                raise ConfigError(
                    f"the control log in {directory} is open in another process",
                    fix="stop that one",
                    item=str(directory),
                ) from None
            log = os.open(directory / "log", os.O_RDWR | os.O_CREAT, 0o600)
            hard = HardStateFile(directory / "state")
        except OSError as error:
            raise ConfigError(
                f"cannot use the control log in {directory}: {error.strerror}", item=str(directory)
            ) from error
        made = cls(directory, group, node, lock, log, hard)
        try:
            made._recover(recover_to)
        except BaseException:
            made.close()
            raise
        return made

    def _recover(self, recover_to: int | None) -> None:
        data = b""
        while chunk := os.pread(self._log, 1 << 20, len(data)):
            data += chunk
        acked = self._hard.state.acked
        if recover_to is not None:
            data, acked = data[:recover_to], min(acked, recover_to)
        found = scan(data)
        if found.end < acked:
            raise StoreDamaged(
                f"the control log {self._folder / 'log'} is damaged at byte {found.end}, below the acknowledged {acked}",
                fix=f"restore the file, or give up what follows with --recover-to {found.end}",
                path=str(self._folder / "log"),
                offset=found.end,
            )
        if data and self._hard.state.version == 0 and recover_to is None:
            raise StoreDamaged(
                f"{self._folder / 'state'} is lost or damaged, so nobody knows what the control log acknowledged",
                fix=f"restore the file, or accept what the log holds with --recover-to {found.end}",
                path=str(self._folder / "state"),
                offset=0,
            )
        os.ftruncate(self._log, found.end)
        os.fsync(self._log)
        self._length = found.end
        for entry in found.entries:
            self._apply(entry)
        last = self._entries[-1].term if self._entries else 0
        # A lost slot may have held the newest term, which must not be used twice.
        step = 2 if self._hard.slot_lost else 1
        self._hard.write(term=max(self._hard.state.term, last) + step, acked=self._length)
        folder = os.open(self._folder, os.O_RDONLY)
        os.fsync(folder)
        os.close(folder)

    def _apply(self, entry: Entry) -> None:
        self._entries.append(entry)
        if entry.value is None:
            self._values.pop(entry.key, None)
        else:
            self._values[entry.key] = Versioned(entry.value, entry.index)
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()

    def _append(self, key: str, value: bytes | None) -> int:
        if self._poisoned is not None or self._closed:
            raise NoQuorum(
                f"the control log takes no entries: {self._poisoned or 'closed'}", group=self._group
            )
        size = len(key.encode()) + len(value or b"")
        if size > ENTRY_BYTES_MAX or len(key.encode()) > KEY_BYTES_MAX:
            raise TooLarge(
                f"an entry of {size} bytes",
                fix=f"use at most {ENTRY_BYTES_MAX}",
                size_bytes=size,
                limit_bytes=ENTRY_BYTES_MAX,
            )
        entry = Entry(len(self._entries) + 1, self._hard.state.term, key, value)
        record = encode_entry(entry)
        try:
            written = os.pwrite(self._log, record, self._length)
            if written != len(record):
                raise OSError(28, "No space left on device")
            os.fsync(self._log)
            self._hard.write(term=self._hard.state.term, acked=self._length + len(record))
        except OSError as error:
            # What is on disk now is unknown: nothing was acknowledged, and nothing more is until a fresh start.
            self._poisoned = f"{error.strerror}; restart the voter"
            raise NoQuorum(f"the entry could not be stored: {self._poisoned}", group=self._group) from error
        self._length += len(record)
        self._apply(entry)
        return entry.index

    async def get(self, key: str) -> Versioned | None:
        """Return the value as of now, or None."""
        return self._values.get(key)

    async def put(self, key: str, value: bytes) -> int:
        """Write and return the index; the entry is fsynced on return.

        :raises NoQuorum: if it could not be stored; nothing was acknowledged
        :raises TooLarge: if key and value exceed the limit; nothing was written
        """
        return self._append(key, value)

    async def delete(self, key: str) -> int:
        """Remove a key and return the index. Raises as `put`."""
        return self._append(key, None)

    async def compare_and_set(self, key: str, value: bytes, version: int) -> int | None:
        """Write only if the key's version is `version` (0: absent); the index, or None. Raises as `put`."""
        known = self._values.get(key)
        if (known.version if known is not None else 0) != version:
            return None
        return self._append(key, value)

    async def watch(self, prefix: str, *, after: int = 0) -> AsyncIterator[Change]:
        """Yield committed changes of keys beginning with `prefix` and an index above `after`, in order, gap-free."""
        at = after
        while not self._closed:
            grown = self._grown
            while at < len(self._entries):
                entry = self._entries[at]
                at += 1
                if entry.key.startswith(prefix):
                    yield Change(entry.index, entry.key, entry.value)
            if grown is self._grown:
                await grown.wait()

    async def snapshot(self, prefix: str = "") -> Mapping[str, Versioned]:
        """All keys beginning with `prefix`, consistent at one index."""
        return {key: value for key, value in sorted(self._values.items()) if key.startswith(prefix)}

    def status(self) -> LogStatus:
        """Where the group stands: the one voter leads it."""
        return LogStatus(
            self._group, self._node, self._hard.state.term, len(self._entries), (self._node,), self._node
        )

    def close(self) -> None:
        """Close the files and end watches. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._grown.set()
        self._hard.close()
        os.close(self._log)
        os.close(self._lock)

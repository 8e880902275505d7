"""`LogStore`: entries, hard state and snapshot on a disk, for one voter. Synchronous; one thread at a time.

Files: `state` (hard state), `log.<generation>` (entries behind the snapshot), `snapshot.<generation>` (none in generation 0).
A compaction writes the next generation beside the old one and then names it in the hard state: that one write replaces both
files at once, and a crash at any moment leaves either the old or the new pair.

Rules: nothing is acknowledged before it is synced; a failed sync leaves the content unknown, so the store takes nothing more
until it is opened anew (`poisoned`); a disk that is full before anything was synced leaves it as it was; an index that was
acknowledged is never used again, also after a recovery that gives entries up, because indexes are fencing tokens.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Final

from meshfold.consensus.disk import Disk, DiskFile
from meshfold.consensus.hard_state import HardState, HardStateFile
from meshfold.consensus.wal import Entry, Kind, Snapshot, encode_entry, scan
from meshfold.core.errors import ConfigError, StoreDamaged

__all__ = ("LogStore",)

#: Indexes given up where nobody knows any more what was acknowledged.
UNKNOWN_INDEXES: Final = 1 << 20
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class LogStore:
    """The durable part of a voter. Every method may raise OSError; `poisoned` then says whether it can go on."""

    def __init__(self, folder: Path, disk: Disk, *, recover_to: int | None = None) -> None:
        """Open what is in `disk` and cut a torn tail.

        :param folder: where it is, for messages
        :param recover_to: give up everything of the log from this byte offset on, after damage was reported
        :raises StoreDamaged: if something acknowledged does not read back, naming file and offset
        :raises ConfigError: if a file cannot be opened or read
        """
        self._folder = folder
        self._disk = disk
        self.poisoned: str | None = None
        self.snapshot: Snapshot | None = None
        self.entries: list[Entry] = []
        self._ends: list[int] = []
        self._log: DiskFile | None = None
        self._hard: HardStateFile | None = None
        try:
            self._hard = HardStateFile(disk.open("state"))
            self._recover(recover_to)
        except OSError as error:
            self.close()
            raise ConfigError(
                f"cannot use the control log in {folder}: {error.strerror}", item=str(folder)
            ) from error
        except BaseException:
            self.close()
            raise

    @property
    def hard(self) -> HardState:
        """Term, vote and what was acknowledged."""
        assert self._hard is not None
        return self._hard.state

    @property
    def last_index(self) -> int:
        """Index of the last entry, acknowledged or not."""
        return self.entries[-1].index if self.entries else self.base_index

    @property
    def base_index(self) -> int:
        """Index that the snapshot reaches to."""
        return self.snapshot.index if self.snapshot is not None else 0

    @property
    def log_bytes(self) -> int:
        """Length of the log file."""
        return self._ends[-1] if self._ends else 0

    def _damaged(self, name: str, offset: int, what: str, fix: str) -> StoreDamaged:
        path = str(self._folder / name)
        return StoreDamaged(f"{path} {what}", fix=fix, path=path, offset=offset)

    def _recover(self, recover_to: int | None) -> None:
        assert self._hard is not None
        hard, names = self.hard, self._disk.names()
        generation = hard.generation if hard.version else self._newest(names)
        log_name, snapshot_name = f"log.{generation}", f"snapshot.{generation}"
        if log_name not in names and hard.version > 0:
            raise self._damaged(log_name, 0, "is gone", "restore the folder from a backup")
        self._log = self._disk.open(log_name)
        data = self._log.read()
        if generation > 0:
            self.snapshot = self._read_snapshot(generation)
            if self.snapshot is None:
                raise self._damaged(snapshot_name, 0, "is damaged", "restore the folder from a backup")
        whole = scan(data, self.base_index)
        if recover_to is None:
            self._refuse_damage(log_name, data, whole.end, whole.clean)
        else:
            data = data[:recover_to]
            whole = scan(data, self.base_index)
            if not whole.clean and whole.end < min(hard.acked, recover_to):
                raise self._damaged_below(log_name, whole.end, hard.acked)
        self.entries, self._ends = list(whole.entries), list(whole.ends)
        self._log.truncate(whole.end)
        self._log.sync()
        self._disk.sync_folder()
        self._take_up(generation, recover_to is not None)
        for name in names - {"lock", "state", log_name, snapshot_name}:
            if name.partition(".")[0] in ("log", "snapshot"):
                self._disk.remove(name)

    def _read_snapshot(self, generation: int) -> Snapshot | None:
        file = self._disk.open(f"snapshot.{generation}")
        try:
            return Snapshot.decode(file.read())
        finally:
            file.close()

    def _newest(self, names: set[str]) -> int:
        """Where the hard state is lost: the newest generation that is whole."""
        found = [int(name[4:]) for name in names if name.startswith("log.") and name[4:].isdigit()]
        for generation in sorted(found, reverse=True):
            if generation == 0 or self._read_snapshot(generation) is not None:
                return generation
        return 0

    def _damaged_below(self, name: str, end: int, acked: int) -> StoreDamaged:
        return self._damaged(
            name,
            end,
            f"is damaged at byte {end}, below the acknowledged {acked}",
            f"restore the file, or give up what follows: meshfold recover {self._folder} --recover-to {end}",
        )

    def _refuse_damage(self, log_name: str, data: bytes, end: int, clean: bool) -> None:
        assert self._hard is not None
        hard = self.hard
        if end < hard.acked:
            raise self._damaged_below(log_name, end, hard.acked)
        unknown = data and hard.version == 0
        # The lost slot may have acknowledged what a tail cut would take away.
        if unknown or (self._hard.slot_lost and not clean):
            raise self._damaged(
                "state",
                0,
                "is lost or damaged, so nobody knows what the control log acknowledged",
                f"restore the file, or accept what the log holds: meshfold recover {self._folder} --recover-to {end}",
            )

    def _take_up(self, generation: int, recovered: bool) -> None:
        """Begin a life: a term that nobody used, and indexes that nobody was given."""
        assert self._hard is not None and self._log is not None
        hard = self.hard
        last_term = self.entries[-1].term if self.entries else self.snapshot.term if self.snapshot else 0
        # A lost slot may have held the newest term, which must not be used twice.
        term = max(hard.term, last_term) + (1 if self._hard.slot_lost else 0)
        uncertain = recovered and (hard.version == 0 or self._hard.slot_lost)
        given = max(hard.acked_index, self.last_index) + (UNKNOWN_INDEXES if uncertain else 0)
        if given > self.last_index:
            self._write([Entry(given, term, Kind.SKIP)])
            self._log.sync()
        self._hard.write(
            term=term,
            vote=hard.vote if term == hard.term else 0,
            generation=generation,
            acked=self.log_bytes,
            acked_index=self.last_index,
        )

    def _write(self, entries: Sequence[Entry]) -> None:
        assert self._log is not None
        at = self.log_bytes
        records = [encode_entry(entry) for entry in entries]
        self._log.write(b"".join(records), at)
        for entry, record in zip(entries, records, strict=True):
            at += len(record)
            self.entries.append(entry)
            self._ends.append(at)

    @contextlib.contextmanager
    def _or_poisoned(self) -> Generator[None]:
        try:
            yield
        except OSError as error:
            self.poisoned = self.poisoned or (error.strerror or str(error))
            raise

    def begin_term(self) -> None:
        """Use a term that nobody used: the single voter's way to lead."""
        self.save_vote(self.hard.term + 1, 0)

    def save_vote(self, term: int, vote: int) -> None:
        """Make term and vote durable."""
        assert self._hard is not None
        with self._or_poisoned():
            self._hard.write(term=term, vote=vote)

    def append(self, entries: Sequence[Entry]) -> None:
        """Write entries behind the last and acknowledge them: all durable on return, or none acknowledged.

        :raises OSError: if it failed; where the disk was full and nothing else is wrong, the store is as it was before
        """
        assert self._log is not None and self._hard is not None
        length, count = self.log_bytes, len(self.entries)
        try:
            self._write(entries)
        except OSError as error:
            with self._or_poisoned():
                if error.errno not in _FULL:
                    raise
                self._log.truncate(length)
            raise
        with self._or_poisoned():
            try:
                self._log.sync()
                self._hard.write(acked=self.log_bytes, acked_index=self.last_index)
            except OSError:
                del self.entries[count:], self._ends[count:]
                raise

    def truncate_from(self, index: int) -> None:
        """Take back the entries from `index` on: a new leader of the voters has others there.

        :raises OSError: if it failed
        """
        assert self._log is not None and self._hard is not None
        keep = next((at for at, entry in enumerate(self.entries) if entry.index >= index), len(self.entries))
        with self._or_poisoned():
            del self.entries[keep:], self._ends[keep:]
            self._hard.write(acked=self.log_bytes, acked_index=self.last_index)
            self._log.truncate(self.log_bytes)
            self._log.sync()

    def compact(self, snapshot: Snapshot) -> None:
        """Let a snapshot of our own state stand for the entries up to its index.

        :raises OSError: if it failed; what counted before counts still, and a full disk poisons nothing
        """
        self.replace(snapshot, [entry for entry in self.entries if entry.index > snapshot.index])

    def replace(self, snapshot: Snapshot, kept: Sequence[Entry]) -> None:
        """Let a snapshot and the entries behind it take the place of everything, at once. Raises as `compact`."""
        assert self._log is not None and self._hard is not None
        generation = self.hard.generation + 1
        records = [encode_entry(entry) for entry in kept]
        old_log, fresh = self._log, self._disk.open(f"log.{generation}")
        try:
            fresh.truncate(0)
            fresh.write(b"".join(records), 0)
            fresh.sync()
            file = self._disk.open(f"snapshot.{generation}")
            try:
                file.truncate(0)
                file.write(snapshot.encode(), 0)
                file.sync()
            finally:
                file.close()
            self._disk.sync_folder()
        except OSError:
            fresh.close()
            raise
        with self._or_poisoned():
            self._hard.write(
                generation=generation,
                acked=sum(map(len, records)),
                acked_index=kept[-1].index if kept else snapshot.index,
            )
        self._log, self.snapshot, self.entries, self._ends = fresh, snapshot, list(kept), []
        at = 0
        for record in records:
            at += len(record)
            self._ends.append(at)
        old_log.close()
        for name in (f"log.{generation - 1}", f"snapshot.{generation - 1}"):
            with contextlib.suppress(OSError):  # what is left over is removed at the next opening
                self._disk.remove(name)

    def close(self) -> None:
        """Close the files and let another process have the folder. Idempotent."""
        if self._log is not None:
            self._log.close()
        if self._hard is not None:
            self._hard.close()
        self._disk.close()

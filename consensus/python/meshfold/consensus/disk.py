"""The disk as the durable log sees it: files of one folder, and when their bytes are there to stay.

A port, so that tests can give a disk that loses unsynced writes, tears them, fills up or fails. Promises of the real one: what
was written is durable after `sync` of the file, and a file's existence after `sync_folder`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Protocol

from meshfold.core.errors import ConfigError

__all__ = ("Disk", "DiskFile", "OsDisk")


class DiskFile(Protocol):
    """An open file. Every call may raise OSError."""

    def read(self) -> bytes:
        """The whole content."""
        ...

    def write(self, data: bytes, at: int) -> None:
        """Write all of `data` at an offset, or raise; a part may have been written then."""
        ...

    def truncate(self, size: int) -> None:
        """Cut or extend."""
        ...

    def sync(self) -> None:
        """Make content and size durable."""
        ...

    def close(self) -> None:
        """Close; idempotent."""
        ...


class Disk(Protocol):
    """A folder that one log owns. Every call may raise OSError."""

    def open(self, name: str) -> DiskFile:
        """Open a file, made empty if it is not there."""
        ...

    def names(self) -> set[str]:
        """The files there are."""
        ...

    def remove(self, name: str) -> None:
        """Delete a file; no error if it is not there."""
        ...

    def sync_folder(self) -> None:
        """Make creations and removals durable."""
        ...

    def close(self) -> None:
        """Let another process have the folder; idempotent."""
        ...


class OsFile:
    """A file of the operating system."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._open = True

    def read(self) -> bytes:
        """The whole content."""
        size = os.fstat(self._descriptor).st_size
        parts: list[bytes] = []
        at = 0
        while at < size and (part := os.pread(self._descriptor, size - at, at)):
            parts.append(part)
            at += len(part)
        return b"".join(parts)

    def write(self, data: bytes, at: int) -> None:
        """Write all, however many calls it takes."""
        rest = memoryview(data)
        while rest:
            written = os.pwrite(self._descriptor, rest, at)
            rest, at = rest[written:], at + written

    def truncate(self, size: int) -> None:
        """Cut or extend."""
        os.ftruncate(self._descriptor, size)

    def sync(self) -> None:
        """`fsync`."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Close."""
        if self._open:
            self._open = False
            os.close(self._descriptor)


class OsDisk:
    """A folder, locked against other processes while this object lives."""

    def __init__(self, folder: Path, owner: str) -> None:
        """Take the folder, made if needed.

        :param owner: who to name to the next one that wants it
        :raises ConfigError: if it cannot be used, or another process holds it, naming that one
        """
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigError(
                f"cannot use the control log in {folder}: {error.strerror}",
                fix="choose a folder you may write",
                item=str(folder),
            ) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(lock, 0)
            os.pwrite(lock, f"process {os.getpid()} ({owner})".encode(), 0)
        except BlockingIOError:
            holder = os.pread(lock, 200, 0).decode(errors="replace") or "unknown"
            os.close(lock)
            raise ConfigError(
                f"the control log in {folder} is open in another process: {holder}",
                fix="stop that one",
                item=str(folder),
                holder=holder,
            ) from None
        except OSError as error:
            os.close(lock)
            raise ConfigError(
                f"cannot lock the control log in {folder}: {error.strerror}", item=str(folder)
            ) from error
        self._lock: int | None = lock

    def open(self, name: str) -> DiskFile:
        """Open a file."""
        return OsFile(self._folder / name)

    def names(self) -> set[str]:
        """The files there are."""
        return {path.name for path in self._folder.iterdir()}

    def remove(self, name: str) -> None:
        """Delete a file."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._folder / name)

    def sync_folder(self) -> None:
        """`fsync` of the folder."""
        descriptor = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Unlock."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

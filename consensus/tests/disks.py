"""A disk in memory that behaves as badly as a real one may: see `SimDisk`."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable

__all__ = ("PowerCut", "SimDisk")


class PowerCut(Exception):
    """The machine lost power in the middle of a call."""


def _os_error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class _SimFile:
    def __init__(self, disk: SimDisk, name: str) -> None:
        self._disk = disk
        self._name = name
        self.durable = b""
        self.content = b""
        #: the file's existence is durable
        self.kept = False

    def read(self) -> bytes:
        self._disk.step("read", self._name)
        return self.content

    def write(self, data: bytes, at: int) -> None:
        full = self._disk.free is not None and at + len(data) - len(self.content) > self._disk.free
        if full:
            assert self._disk.free is not None
            data = data[: max(0, len(self.content) - at + self._disk.free)]
        before = self.content
        self.content = before[:at].ljust(at, b"\0") + data + before[at + len(data) :]
        if self._disk.free is not None:
            self._disk.free -= max(0, len(self.content) - len(before))
        self._disk.step("write", self._name)
        if full:
            raise _os_error(errno.ENOSPC)

    def truncate(self, size: int) -> None:
        if self._disk.free is not None:
            self._disk.free += max(0, len(self.content) - size)
        self.content = self.content[:size].ljust(size, b"\0")
        self._disk.step("truncate", self._name)

    def sync(self) -> None:
        self._disk.step("sync", self._name)
        self.durable = self.content

    def close(self) -> None:
        return

    def crash(self, rng: random.Random) -> None:
        """Keep what was synced, and of the rest any mixture of old and new, cut anywhere."""
        if rng.random() < 0.5:
            self.content = self.durable
            return
        length = rng.choice((len(self.durable), len(self.content), rng.randint(0, len(self.content))))
        # Synced bytes that were not written since stay; those that differ may be old or new, block by block.
        mixed = bytearray(self.content[:length].ljust(min(length, len(self.durable)), b"\0"))
        for at in range(0, min(len(mixed), len(self.durable)), 512):
            if rng.random() < 0.5:
                mixed[at : at + 512] = self.durable[at : at + 512]
        if len(self.content) >= len(self.durable):
            mixed[len(mixed) :] = self.durable[len(mixed) :]
        self.content = self.durable = bytes(mixed)


class SimDisk:
    """A folder in memory. `on_step` is called before an operation takes effect durably and may raise.

    A crash (`crash`) loses what was not synced, in any mixture, and files whose folder entry was not synced.
    """

    def __init__(self) -> None:
        self.files: dict[str, _SimFile] = {}
        self._removed: dict[str, _SimFile] = {}
        self.steps = 0
        #: bytes left, None for no limit
        self.free: int | None = None
        self.on_step: Callable[[str, str], None] = lambda kind, name: None

    def step(self, kind: str, name: str) -> None:
        """Count an operation, and let the test interfere."""
        self.steps += 1
        self.on_step(kind, name)

    def open(self, name: str) -> _SimFile:
        self.step("open", name)
        return self.files.setdefault(name, _SimFile(self, name))

    def names(self) -> set[str]:
        return set(self.files)

    def remove(self, name: str) -> None:
        self.step("remove", name)
        if name in self.files:
            self._removed[name] = self.files.pop(name)

    def sync_folder(self) -> None:
        self.step("sync_folder", "")
        self._removed.clear()
        for file in self.files.values():
            file.kept = True

    def close(self) -> None:
        return

    def crash(self, rng: random.Random) -> None:
        """Lose power."""
        for name, file in self._removed.items():
            if rng.random() < 0.5:
                self.files.setdefault(name, file)
        self._removed.clear()
        for name, file in list(self.files.items()):
            if not file.kept and rng.random() < 0.5:
                del self.files[name]
            else:
                file.crash(rng)
        self.on_step = lambda kind, name: None

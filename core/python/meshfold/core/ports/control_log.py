"""The control state of a mesh: small, linearizable, durable."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Protocol

__all__ = ("Change", "ControlLog", "LogStatus", "Versioned")


@dataclass(frozen=True, slots=True)
class Versioned:
    """A value with the log index that wrote it."""

    value: bytes
    version: int


@dataclass(frozen=True, slots=True)
class Change:
    """One committed change, in log order. `value` is None where the key was deleted."""

    index: int
    key: str
    value: bytes | None


@dataclass(frozen=True, slots=True)
class LogStatus:
    """Where the group stands."""

    group: str
    leader: str | None
    term: int
    commit: int
    voters: tuple[str, ...]
    #: who says so
    node: str = ""


class ControlLog(Protocol):
    """A linearizable key-value log with watch: members, schemas, grants, revocations, key epochs, leases."""

    async def get(self, key: str) -> Versioned | None:
        """Return the value as of now, or None.

        :raises NoQuorum: if a majority cannot be reached
        """
        ...

    async def put(self, key: str, value: bytes) -> int:
        """Write and return the index; on return the entry is committed and fsynced.

        :raises NotLeader: if this node does not lead the group, naming who does
        :raises NoQuorum: if a majority cannot be reached
        :raises TooLarge: if key and value exceed the entry limit
        """
        ...

    async def delete(self, key: str) -> int:
        """Remove a key (no error if it is absent) and return the index. Raises as `put`."""
        ...

    async def compare_and_set(self, key: str, value: bytes, version: int) -> int | None:
        """Write only if the key's version is `version` (0: absent); return the index, or None if it is not.

        Raises as `put`.
        """
        ...

    def watch(self, prefix: str, *, after: int = 0) -> AsyncIterator[Change]:
        """Yield each committed change of keys beginning with `prefix` with an index above `after`, in order, gap-free.

        What was compacted away is yielded as the current values first.
        """
        ...

    async def snapshot(self, prefix: str = "") -> Mapping[str, Versioned]:
        """Return all keys beginning with `prefix`, consistent at one index."""
        ...

    def status(self) -> LogStatus:
        """Return what this node knows of the group; never waits."""
        ...

"""The changes of a control log as commands, the same whoever commits them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator

from meshfold.consensus.commands import Command, Op
from meshfold.consensus.key_values import KeyValues
from meshfold.core.ports import Change

__all__ = ("LogChanges",)


class LogChanges(ABC):
    """What `SoloLog` and `RaftLog` have in common: they differ in how a command is committed."""

    #: what the committed commands made
    state: KeyValues

    @abstractmethod
    async def submit(self, command: Command) -> int | None:
        """Commit a command and return its index, or None for a comparison that did not hold."""

    async def put(self, key: str, value: bytes) -> int:
        """Write and return the index; durable on return, as `submit` says. Raises as `submit`."""
        index = await self.submit(Command(Op.PUT, key, value))
        assert index is not None
        return index

    async def delete(self, key: str) -> int:
        """Remove a key and return the index. Raises as `submit`."""
        index = await self.submit(Command(Op.DELETE, key))
        assert index is not None
        return index

    async def compare_and_set(self, key: str, value: bytes, version: int) -> int | None:
        """Write only if the key's version is `version` (0: absent); the index, or None. Raises as `submit`."""
        return await self.submit(Command(Op.COMPARE_AND_SET, key, value, version))

    def watch(self, prefix: str, *, after: int = 0) -> AsyncIterator[Change]:
        """Yield committed changes of keys beginning with `prefix` and an index above `after`, in order, gap-free.

        They come as this voter learns of them. What is further back than the changes kept is yielded as the current values
        first. It ends with the log.
        """
        return self.state.watch(prefix, after)

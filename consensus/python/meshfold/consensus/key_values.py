"""`KeyValues`: the control state itself - what the committed commands made, deterministic and the same at every voter.

Applied in log order; watched by readers of the same event loop. Bounded: state by `STATE_BYTES_MAX`, remembered changes and
command ids by number.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from typing import Final

import msgspec
from meshfold.consensus.commands import Command, Op
from meshfold.consensus.wal import Snapshot
from meshfold.core.errors import StoreDamaged, TooLarge
from meshfold.core.ports import Change, Versioned

__all__ = ("KeyValues",)

#: All keys and values together.
STATE_BYTES_MAX: Final = 64 * 1024 * 1024
KEYS_MAX: Final = 262_144
#: Changes kept for watches; one that is further behind gets the current values first.
HISTORY_MAX: Final = 8192
#: Commands whose retry is recognised.
COMMANDS_MAX: Final = 4096


class _State(msgspec.Struct, array_like=True):
    values: list[tuple[str, int, bytes]]
    commands: list[tuple[bytes, int]]


class KeyValues:
    """A map with versions, the recent changes, and the recent commands."""

    def __init__(self) -> None:
        self.values: dict[str, Versioned] = {}
        self.bytes = 0
        #: index of the last entry applied
        self.applied = 0
        self._commands: OrderedDict[bytes, int] = OrderedDict()
        self._history: deque[Change] = deque()
        #: changes up to this index are known by their outcome only
        self._forgotten = 0
        self._grown = asyncio.Event()
        self._ended = False

    def check_room(self, command: Command, waiting_bytes: int) -> None:
        """Return if the state has room for the command and for those that wait before it.

        :raises TooLarge: if it has not
        """
        if command.op == Op.DELETE:
            return
        known = self.values.get(command.key)
        size = self.bytes + waiting_bytes + len(command.key) + len(command.value)
        size -= len(known.value) if known is not None else 0
        if size > STATE_BYTES_MAX or (known is None and len(self.values) >= KEYS_MAX):
            raise TooLarge(
                f"the control state is full: {len(self.values)} keys, {self.bytes} bytes",
                fix="delete what is not needed; it is for control state, not for data",
                size_bytes=size,
                limit_bytes=STATE_BYTES_MAX,
            )

    def done(self, command: Command) -> int | None:
        """The index of a command that was applied before, by its id."""
        return self._commands.get(command.id) if command.id else None

    def could_hold(self, command: Command) -> bool:
        """Whether the command's comparison holds now; one that does not needs no entry to say so."""
        known = self.values.get(command.key)
        version = known.version if known is not None else 0
        return command.op != Op.COMPARE_AND_SET or version == command.version

    def apply(self, index: int, command: Command | None) -> int | None:
        """Apply the entry `index` (None: one that changes nothing) and return the command's index, or None if it did not hold."""
        self.applied = index
        result = None if command is None else self._apply(index, command)
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()
        return result

    def _apply(self, index: int, command: Command) -> int | None:
        before = self.done(command)
        if before is not None:
            return before
        if not self.could_hold(command):
            return None
        if command.op == Op.DELETE:
            self._set(index, command.key, None)
        else:
            self._set(index, command.key, command.value)
        if command.id:
            self._commands[command.id] = index
            if len(self._commands) > COMMANDS_MAX:
                self._commands.popitem(last=False)
        return index

    def _set(self, index: int, key: str, value: bytes | None) -> None:
        known = self.values.pop(key, None)
        if known is not None:
            self.bytes -= len(key) + len(known.value)
        if value is not None:
            self.values[key] = Versioned(value, index)
            self.bytes += len(key) + len(value)
        self._history.append(Change(index, key, value))
        if len(self._history) > HISTORY_MAX:
            self._forgotten = self._history.popleft().index

    def snapshot(self, prefix: str) -> dict[str, Versioned]:
        """All keys beginning with `prefix`, by key."""
        return {key: value for key, value in sorted(self.values.items()) if key.startswith(prefix)}

    def changes(self, prefix: str, after: int, limit: int) -> tuple[list[Change], int]:
        """Up to `limit` changes with an index above `after`, and the index up to which they are complete."""
        if after < self._forgotten:
            known = sorted((value.version, key, value.value) for key, value in self.values.items())
            found = [
                Change(version, key, value)
                for version, key, value in known
                if after < version <= self._forgotten and key.startswith(prefix)
            ]
            more = len(found) > limit
            return found[:limit], found[limit - 1].index if more else self._forgotten
        found = []
        for at in range(bisect_right(self._history, after, key=lambda one: one.index), len(self._history)):
            change = self._history[at]
            if change.key.startswith(prefix):
                found.append(change)
                if len(found) == limit:
                    return found, change.index
        return found, self.applied

    async def grown(self, after: int) -> None:
        """Wait until something behind the index `after` is applied, or the end."""
        while self.applied <= after and not self._ended:
            await self._grown.wait()

    async def watch(self, prefix: str, after: int) -> AsyncIterator[Change]:
        """Every change with an index above `after`, in order, until the end."""
        at = after
        while not self._ended:
            found, at = self.changes(prefix, at, HISTORY_MAX)
            for change in found:
                yield change
            await self.grown(at)

    @property
    def ended(self) -> bool:
        """Whether nothing will be applied any more."""
        return self._ended

    def end(self) -> None:
        """Let watches end."""
        self._ended = True
        self._grown.set()

    def dump(self, term: int) -> Snapshot:
        """The state as of now, as a snapshot."""
        values = [(key, value.version, value.value) for key, value in sorted(self.values.items())]
        state = msgspec.msgpack.encode(_State(values, list(self._commands.items())))
        return Snapshot(self.applied, term, state)

    def load(self, snapshot: Snapshot) -> None:
        """Become what a snapshot says.

        :raises StoreDamaged: if it says nothing that can be read
        """
        try:
            state = msgspec.msgpack.decode(snapshot.state, type=_State)
        except msgspec.MsgspecError as error:
            raise StoreDamaged(
                f"the snapshot at index {snapshot.index} is no control state: {error}", path="", offset=0
            ) from None
        self.values = {key: Versioned(value, version) for key, version, value in state.values}
        self.bytes = sum(len(key) + len(value.value) for key, value in self.values.items())
        self._commands = OrderedDict(state.commands)
        self._history.clear()
        self.applied = self._forgotten = snapshot.index
        grown, self._grown = self._grown, asyncio.Event()
        grown.set()

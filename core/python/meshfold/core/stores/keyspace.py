"""`Keyspace`: bytes under keys of parts, in one file, durable when a call returns.

Invariants: keys sort by their parts, integers numerically; a transaction is applied whole or not at all; each write of the
file has a version of its own, so a compare-and-set is not fooled by a value that went and came back.
"""

from __future__ import annotations

from collections.abc import Iterator
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self, TypeAlias

from meshfold._native import KeyspaceBase
from meshfold.core.closing import Closing
from meshfold.core.errors import TooLarge, VersionConflict

__all__ = ("Entry", "Key", "Keyspace", "Transaction")

Part: TypeAlias = str | int | bytes
#: one part, or several as a tuple
Key: TypeAlias = Part | tuple[Part, ...]

#: Rows read at a time while scanning.
_PAGE_ROWS: Final = 256
#: Changes of one transaction.
CHANGES_MAX: Final = 65_536


class Entry(NamedTuple):
    """A value with its key and the version that its write got."""

    key: tuple[Part, ...]
    value: bytes
    version: int


class Keyspace(Closing):
    """A file of keys and values. One process may have it open; threads may share it.

    :param path: the file, made if it is not there
    :raises StoreUnavailable: if another process has it open, or the system refuses
    :raises StoreDamaged: if the file is no keyspace
    """

    def __init__(self, path: PathLike[str] | str) -> None:
        self._base = KeyspaceBase(path)
        self._prefix: tuple[Part, ...] = ()

    @property
    def path(self) -> Path:
        """The file."""
        return self._base.path

    def prefix(self, *parts: Part) -> Keyspace:
        """The part of this keyspace whose keys begin with `parts`; in it, keys are told without them."""
        view = object.__new__(Keyspace)
        view._base = self._base
        view._prefix = (*self._prefix, *parts)
        return view

    def get(self, key: Key) -> bytes | None:
        """The value of a key, or None.

        :raises StoreUnavailable: if it is closed or cannot be read
        """
        found = self.entry(key)
        return None if found is None else found.value

    def entry(self, key: Key) -> Entry | None:
        """The value of a key with its version, or None. Raises as `get`."""
        found = self._base.read(self.full_key(key))
        return None if found is None else Entry(_parts(key), found[1], found[0])

    def put(self, key: Key, value: bytes) -> int:
        """Set a value, durably; returns its version.

        :raises TooLarge: if the key is above 4 KiB or the value above 64 MiB
        :raises StoreUnavailable: if the disk is full (nothing was written) or the store is closed
        """
        return self.apply_all([(self.full_key(key), value, None)])

    def delete(self, key: Key) -> int:
        """Remove a key, durably; no error if it is absent. Raises as `put`."""
        return self.apply_all([(self.full_key(key), None, None)])

    def compare_and_set(self, key: Key, value: bytes, version: int) -> int | None:
        """Set a value only if the key has this version (0: is absent); returns the new version, or None if it has not.

        Raises as `put`.
        """
        done, conflict = self._base.apply([(self.full_key(key), value, version)])
        return None if conflict is not None else done

    def transaction(self) -> Transaction:
        """Changes that are applied together when the `with` block ends, and not at all if it raises."""
        return Transaction(self)

    def scan(self, *prefix: Part, after: Key | None = None) -> Iterator[Entry]:
        """Entries whose key begins with `prefix`, in order of keys; what changes meanwhile may or may not be among them.

        :param after: begin behind this key
        """
        begin = (*self._prefix, *prefix)
        last = None if after is None else self.full_key(after)
        while rows := self._base.rows(begin, last, _PAGE_ROWS):
            for key, version, value in rows:
                yield Entry(key[len(self._prefix) :], value, version)
            last = rows[-1][0]

    def keys(self, *prefix: Part) -> Iterator[tuple[Part, ...]]:
        """Keys that begin with `prefix`, in order."""
        return (entry.key for entry in self.scan(*prefix))

    def close(self) -> None:
        """Close the file, and with it every view of it. Idempotent."""
        self._base.close()

    def full_key(self, key: Key) -> tuple[Part, ...]:
        """The key as the file has it."""
        return (*self._prefix, *_parts(key))

    def apply_all(self, rows: list[tuple[tuple[Part, ...], bytes | None, int | None]]) -> int:
        """Apply (key of the file, value or None, version or None) rows together. Raises as `put` and `transaction`."""
        version, conflict = self._base.apply(rows)
        if conflict is None:
            return version
        key, found = conflict
        expected = next(row[2] for row in rows if row[0] == key and row[2] is not None)
        raise VersionConflict(
            f"{key!r} has version {found}, not {expected}",
            fix="read it again and decide anew",
            key=key,
            expected=expected,
            found=found,
        )


class Transaction:
    """Changes gathered in a `with` block. Reads see the store, not what was gathered.

    :raises VersionConflict: at the end of the block, if a key has another version than asked for; nothing was changed
    """

    def __init__(self, store: Keyspace) -> None:
        self._store = store
        self._rows: list[tuple[tuple[Part, ...], bytes | None, int | None]] = []
        #: version of what was written, 0 before the block has ended
        self.version = 0

    def put(self, key: Key, value: bytes, *, version: int | None = None) -> None:
        """Set a value; with a version only if the key has it (0: is absent)."""
        self._add(key, value, version)

    def delete(self, key: Key, *, version: int | None = None) -> None:
        """Remove a key; with a version only if the key has it."""
        self._add(key, None, version)

    def _add(self, key: Key, value: bytes | None, version: int | None) -> None:
        if len(self._rows) >= CHANGES_MAX:
            raise TooLarge(
                f"a transaction of more than {CHANGES_MAX} changes",
                fix="commit in parts",
                item="transaction",
                size_bytes=len(self._rows) + 1,
                limit_bytes=CHANGES_MAX,
            )
        self._rows.append((self._store.full_key(key), value, version))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None and self._rows:
            self.version = self._store.apply_all(self._rows)


def _parts(key: Key) -> tuple[Part, ...]:
    return key if isinstance(key, tuple) else (key,)

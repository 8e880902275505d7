"""The bytes of the durable log: records that tell a torn tail from damage.

    record:   length 4 | crc32c 4 (of what follows) | index 8 | term 8 | kind 1 | data
    snapshot: magic 4 "MCS1" | crc32c 4 (of what follows) | index 8 | term 8 | state

Invariants: scanning never guesses. Indexes follow each other by one; only a `SKIP` may jump forward, and its own index is
given up with those it jumps over. A tail that ends at or behind what was acknowledged is torn and may be cut; a fault below
it is damage, because cutting there would unsay an acknowledged entry (CONSENSUS 1.5).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from meshfold._native import crc32c

__all__ = ("RECORD_BYTES_MAX", "Entry", "Kind", "Scan", "Snapshot", "encode_entry", "scan")

RECORD_BYTES_MAX: Final = 1024 * 1024
_HEAD: Final = struct.Struct(">II")
_BODY: Final = struct.Struct(">QQB")
_MAGIC: Final = b"MCS1"
_PLACE: Final = struct.Struct(">QQ")


class Kind(IntEnum):
    """What an entry is for."""

    #: a leader's first entry of its term
    EMPTY = 0
    #: a change of the control state
    COMMAND = 1
    #: a change of the voters
    MEMBERS = 2
    #: everything up to its index was given up in a recovery and is never used again
    SKIP = 3


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the log."""

    index: int
    term: int
    kind: Kind
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Scan:
    """What a log holds: whole entries, where each ends, where all end, and whether nothing is behind that end."""

    entries: tuple[Entry, ...]
    ends: tuple[int, ...]
    end: int
    clean: bool


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The control state after the entry `index`, which stands for all entries up to it."""

    index: int
    term: int
    state: bytes

    def encode(self) -> bytes:
        """The file's bytes."""
        body = _PLACE.pack(self.index, self.term) + self.state
        return _MAGIC + crc32c(body).to_bytes(4, "big") + body

    @classmethod
    def decode(cls, data: bytes) -> Snapshot | None:
        """Read them; None if they are not whole."""
        body = data[8:]
        if data[:4] != _MAGIC or len(body) < _PLACE.size or data[4:8] != crc32c(body).to_bytes(4, "big"):
            return None
        index, term = _PLACE.unpack_from(body)
        return cls(index, term, body[_PLACE.size :])


def encode_entry(entry: Entry) -> bytes:
    """The record of an entry."""
    body = _BODY.pack(entry.index, entry.term, entry.kind) + entry.data
    return _HEAD.pack(len(body), crc32c(body)) + body


def scan(data: bytes, base: int = 0) -> Scan:
    """Read records from the beginning to the first that is not whole or does not follow; the first follows `base`."""
    entries: list[Entry] = []
    ends: list[int] = []
    at = 0
    while at + _HEAD.size <= len(data):
        size, crc = _HEAD.unpack_from(data, at)
        body = data[at + _HEAD.size : at + _HEAD.size + size]
        if not _BODY.size <= size <= RECORD_BYTES_MAX or len(body) != size or crc32c(body) != crc:
            break
        index, term, kind = _BODY.unpack_from(body)
        last = entries[-1].index if entries else base
        follows = index > last if kind == Kind.SKIP else index == last + 1
        if kind > Kind.SKIP or not follows or (entries and term < entries[-1].term):
            break
        entries.append(Entry(index, term, Kind(kind), body[_BODY.size :]))
        at += _HEAD.size + size
        ends.append(at)
    return Scan(tuple(entries), tuple(ends), at, at == len(data))

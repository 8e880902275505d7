"""The write-ahead log's bytes: records that tell a torn tail from damage.

    record: length 4 | crc32 4 (of what follows) | index 8 | term 8 | key_len 2 | key | kind 1 (0 delete, 1 put) | value

Invariants: scanning never guesses. A tail that ends at or behind what was acknowledged is torn and may be cut; a fault
below it is damage, because cutting there would unsay an acknowledged entry (CONSENSUS 1.5).
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Final

__all__ = ("Entry", "Scan", "encode_entry", "scan")

RECORD_BYTES_MAX: Final = 1024 * 1024
_HEAD: Final = struct.Struct(">II")
_BODY: Final = struct.Struct(">QQH")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry; `value` None deletes the key."""

    index: int
    term: int
    key: str
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Scan:
    """What a log holds: whole entries, where they end, and whether something is behind that end."""

    entries: tuple[Entry, ...]
    end: int
    clean: bool


def encode_entry(entry: Entry) -> bytes:
    """The record of an entry."""
    key = entry.key.encode()
    kind = b"\0" if entry.value is None else b"\1"
    body = _BODY.pack(entry.index, entry.term, len(key)) + key + kind + (entry.value or b"")
    return _HEAD.pack(len(body), zlib.crc32(body)) + body


def scan(data: bytes) -> Scan:
    """Read records from the beginning to the first that is not whole."""
    entries: list[Entry] = []
    at = 0
    while at + _HEAD.size <= len(data):
        size, crc = _HEAD.unpack_from(data, at)
        body = data[at + _HEAD.size : at + _HEAD.size + size]
        if size > RECORD_BYTES_MAX or len(body) != size or zlib.crc32(body) != crc:
            break
        entry = _decode(body)
        if entry is None or entry.index != len(entries) + 1:
            break
        entries.append(entry)
        at += _HEAD.size + size
    return Scan(tuple(entries), at, at == len(data))


def _decode(body: bytes) -> Entry | None:
    if len(body) < _BODY.size + 1:
        return None
    index, term, key_len = _BODY.unpack_from(body)
    kind_at = _BODY.size + key_len
    if kind_at >= len(body) or body[kind_at] > 1:
        return None
    try:
        key = body[_BODY.size : kind_at].decode()
    except UnicodeDecodeError:
        return None
    return Entry(index, term, key, body[kind_at + 1 :] if body[kind_at] else None)

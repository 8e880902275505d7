"""The one thing Arrow's reader is not asked to decide about bytes from elsewhere: whether the body is compressed.

A compressed body says how large it wants to become, and a reader allocates that first. Routes carry plain bodies; the mesh
compresses frames with a bound of its own. The message is a flatbuffer: tables with a vtable of 16-bit slots.
"""

from __future__ import annotations

import struct
from typing import Final

__all__ = ("check_message",)

_CONTINUATION: Final = b"\xff\xff\xff\xff"
_RECORD_BATCH: Final = 3
#: Slots of the tables Message and RecordBatch, by the order of their fields.
_HEADER_TYPE, _HEADER = 1, 2
_COMPRESSION = 3


def check_message(data: bytes) -> None:
    """Let pass one message with an uncompressed record batch.

    :raises ValueError: for anything else
    """
    if len(data) < 8 or data[:4] != _CONTINUATION:
        raise ValueError("no Arrow message")
    (size,) = struct.unpack_from("<i", data, 4)
    if size < 8 or size > len(data) - 8:
        raise ValueError("an Arrow message with a wrong length")
    meta = data[8 : 8 + size]
    try:
        message = _u32(meta, 0)
        kind = _slot(meta, message, _HEADER_TYPE)
        if kind is None or meta[kind] != _RECORD_BATCH:
            raise ValueError("an Arrow message that is no record batch")
        header = _slot(meta, message, _HEADER)
        if header is None:
            raise ValueError("an Arrow message without header")
        if _slot(meta, header + _u32(meta, header), _COMPRESSION) is not None:
            raise ValueError("a compressed Arrow body")
    except (struct.error, IndexError):
        raise ValueError("an Arrow message with wrong offsets") from None


def _u32(meta: bytes, at: int) -> int:
    if at < 0:
        raise IndexError(at)
    (found,) = struct.unpack_from("<I", meta, at)
    return int(found)


def _slot(meta: bytes, table: int, slot: int) -> int | None:
    """Where a field of a table is; None where it has its default."""
    (back,) = struct.unpack_from("<i", meta, table)
    vtable = table - back
    if vtable < 0:
        raise IndexError(vtable)
    size, _ = struct.unpack_from("<HH", meta, vtable)
    at = 4 + 2 * slot
    if at + 2 > size:
        return None
    (offset,) = struct.unpack_from("<H", meta, vtable + at)
    return table + int(offset) if offset else None

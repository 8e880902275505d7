"""Payloads too large for one frame: cut into chunks, put together again, within bounds.

What is cut is `length of the metadata u32 | metadata | payload` of a batch. Each chunk's metadata section says where it
belongs: index u32 | number of chunks u32 | SHA-256 of the whole 32; its payload section is the part, 512 KiB but for the
last, which carries the `last` flag.

Invariants: a whole is given out only if its digest holds; what is under way is bounded by number and bytes, for each
sender and in all, and the oldest goes; a refused chunk changes nothing.
"""

from __future__ import annotations

import hashlib
import struct
from collections import OrderedDict
from typing import Final, NamedTuple

from meshfold.core.errors import FrameRejected, TooLarge

__all__ = ("CHUNK_BYTES", "Chunk", "Reassembly", "cut")

CHUNK_BYTES: Final = 512 * 1024
#: 64 MiB in all.
CHUNKS_MAX: Final = 128
#: Wholes under way, of one sender and of all, and the bytes of all of them.
OPEN_OF_ONE_MAX: Final = 4
OPEN_MAX: Final = 64
OPEN_BYTES_MAX: Final = 128 * 1024 * 1024
_PLACE: Final = struct.Struct(">II32s")
#: (route's digest, sender, incarnation, first sequence number)
Key = tuple[bytes, bytes, bytes, int]


class Chunk(NamedTuple):
    """One part, and what its metadata section says."""

    place: bytes
    part: bytes
    last: bool


def cut(meta: bytes, payload: bytes) -> list[Chunk]:
    """The chunks of a batch, in order.

    :raises TooLarge: above 64 MiB
    """
    whole = struct.pack(">I", len(meta)) + meta + payload
    count = -(-len(whole) // CHUNK_BYTES)
    if count > CHUNKS_MAX:
        raise TooLarge(
            f"an event of {len(payload)} bytes",
            fix=f"an event that travels whole has at most {CHUNKS_MAX * CHUNK_BYTES} bytes; share what is larger by reference",
            size_bytes=len(whole),
            limit_bytes=CHUNKS_MAX * CHUNK_BYTES,
            item="payload",
        )
    digest = hashlib.sha256(whole).digest()
    return [
        Chunk(
            _PLACE.pack(index, count, digest),
            whole[index * CHUNK_BYTES : (index + 1) * CHUNK_BYTES],
            index == count - 1,
        )
        for index in range(count)
    ]


class _Whole:
    """What has come of one."""

    __slots__ = ("count", "digest", "parts", "size_bytes")

    def __init__(self, count: int, digest: bytes) -> None:
        self.count, self.digest = count, digest
        self.parts: dict[int, bytes] = {}
        self.size_bytes = 0


class Reassembly:
    """Puts chunks together. One for each reader."""

    def __init__(self) -> None:
        self._open: OrderedDict[Key, _Whole] = OrderedDict()
        self._size_bytes = 0
        #: wholes given up because newer ones needed their place
        self.evicted = 0

    def fingerprint(self) -> bytes:
        """A digest of what is under way: a refused chunk leaves it as it is."""
        state = [(key, whole.count, whole.digest, sorted(whole.parts)) for key, whole in self._open.items()]
        return hashlib.sha256(repr(state).encode()).digest()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, key: Key, chunk: Chunk) -> tuple[bytes, bytes] | None:
        """Take a chunk in; (metadata, payload) if it was the last that lacked.

        :raises FrameRejected: with reason `chunk`; nothing has changed then, but that a whole of a wrong digest is gone
        """
        if len(chunk.place) != _PLACE.size:
            raise FrameRejected("chunk", "place of a chunk")
        index, count, digest = _PLACE.unpack(chunk.place)
        if not index < count <= CHUNKS_MAX or chunk.last != (index == count - 1):
            raise FrameRejected("chunk", "a chunk beyond the last, or too many")
        if len(chunk.part) > CHUNK_BYTES or (len(chunk.part) != CHUNK_BYTES) > chunk.last or not chunk.part:
            raise FrameRejected("chunk", f"a chunk of {len(chunk.part)} bytes")
        whole = self._open.get(key)
        if whole is not None and (whole.count, whole.digest) != (count, digest):
            raise FrameRejected("chunk", "a chunk of another whole")
        if whole is not None and index in whole.parts:
            raise FrameRejected("chunk", "a chunk twice")
        if whole is None:
            whole = self._begin(key, _Whole(count, digest))
        whole.parts[index] = chunk.part
        whole.size_bytes += len(chunk.part)
        self._size_bytes += len(chunk.part)
        if len(whole.parts) < count:
            self._bound(key)
            return None
        self._drop(key)
        return _opened(whole)

    def _begin(self, key: Key, whole: _Whole) -> _Whole:
        mine = [one for one in self._open if one[1] == key[1]]
        if len(mine) >= OPEN_OF_ONE_MAX:
            self._evict(mine[0])
        elif len(self._open) >= OPEN_MAX:
            self._evict(next(iter(self._open)))
        self._open[key] = whole
        return whole

    def _bound(self, newest: Key) -> None:
        while self._size_bytes > OPEN_BYTES_MAX:
            oldest = next(one for one in self._open if one != newest or len(self._open) == 1)
            self._evict(oldest)

    def _evict(self, key: Key) -> None:
        self._drop(key)
        self.evicted += 1

    def _drop(self, key: Key) -> None:
        self._size_bytes -= self._open.pop(key).size_bytes


def _opened(whole: _Whole) -> tuple[bytes, bytes]:
    data = b"".join(whole.parts[index] for index in range(whole.count))
    if hashlib.sha256(data).digest() != whole.digest or len(data) < 4:
        raise FrameRejected("chunk", "the whole is not what its chunks said")
    (size,) = struct.unpack_from(">I", data)
    if size > len(data) - 4:
        raise FrameRejected("chunk", "metadata beyond the whole")
    return data[4 : 4 + size], data[4 + size :]

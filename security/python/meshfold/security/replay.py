"""Replay windows: each (form, route, sender, incarnation, generation) takes a counter once, over restarts too.

A window of 1,024 counters; below it everything counts as seen. The number of windows is bounded: the longest unused goes.
Windows are written every second and at a clean stop. After an unclean stop the last second of them is lost, so a frame is
taken only above the counters that its producer states in a heartbeat which echoes the reader's new incarnation: what the
broker recorded before cannot come again.
"""

from __future__ import annotations

import hashlib
import struct
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final

from meshfold.core.errors import FrameRejected
from meshfold.security.codec import Reader

__all__ = ("SEQ_GAP_MAX", "ReplayGuard")

WINDOW: Final = 1024
WINDOWS_MAX: Final = 65_536
#: A frame whose first number lies further above the last one seen is refused: nothing publishes so much in a gap.
SEQ_GAP_MAX: Final = 2**32
KEY_BYTES_MAX: Final = 255
PROVEN_MAX: Final = 4096
_MAGIC: Final = b"RW\x01"
Key = tuple[bytes, ...]


class _Window:
    """Counters of one key: the highest, a bit for each of the 1,024 below it, and the last sequence number."""

    __slots__ = ("bits", "seq", "top")

    def __init__(self, top: int = -1, bits: int = 0, seq: int = 0) -> None:
        self.top, self.bits, self.seq = top, bits, seq


class ReplayGuard:
    """Checks first, commits after everything else held: a refused frame changes nothing."""

    def __init__(self) -> None:
        self._windows: OrderedDict[Key, _Window] = OrderedDict()
        #: set after an unclean stop: lives whose counters a fresh heartbeat has not stated yet are not taken
        self._guarded = False
        self._proven: OrderedDict[tuple[bytes, bytes], dict[bytes, tuple[int, int]]] = OrderedDict()

    @property
    def guarded(self) -> bool:
        """Whether counters have to be proven fresh first."""
        return self._guarded

    def check(self, key: Key, counter: int, seq: int = 0) -> None:
        """Refuse a counter seen before or below the window, with reason `replay`; 2^64-1 with `limit`; a jump with `gap`.

        A key is (form, route digest, sender, incarnation, generation), or (b"c", sender, incarnation) for control frames.
        """
        if counter >= 2**64 - 2:
            raise FrameRejected("limit", "frame counter")
        window = self._windows.get(key)
        if self._guarded and len(key) > 3:
            self._check_proven(key, counter)
        if window is None:
            return
        if seq > window.seq + SEQ_GAP_MAX:
            raise FrameRejected("gap", f"{seq - window.seq} numbers in one step")
        if counter > window.top:
            return
        if window.top - counter >= WINDOW or window.bits >> (window.top - counter) & 1:
            raise FrameRejected("replay", "seen before")

    def _check_proven(self, key: Key, counter: int) -> None:
        _, digest, sender, incarnation, generation = key
        floors = self._proven.get((sender, incarnation))
        if floors is None:
            raise FrameRejected("replay", "not proven fresh after an unclean stop")
        at = int.from_bytes(generation, "big"), counter
        if at < floors.get(digest, (0, 0)):
            raise FrameRejected("replay", "below what its producer states as sent")

    def prove(self, sender: bytes, incarnation: bytes, floors: Mapping[bytes, tuple[int, int]]) -> None:
        """Take a producer's word, in a heartbeat that echoes us, on (generation, next counter) of each route digest.

        The first word of a life counts: later ones would refuse what is on its way.
        """
        if self._guarded and (sender, incarnation) not in self._proven:
            self._proven[sender, incarnation] = dict(floors)
            if len(self._proven) > PROVEN_MAX:
                self._proven.popitem(last=False)

    def commit(self, key: Key, counter: int, seq: int = 0) -> None:
        """Note an accepted frame."""
        window = self._windows.pop(key, None) or _Window()
        if counter > window.top:
            step = counter - window.top
            window.bits = (window.bits << step if window.top >= 0 and step < WINDOW else 0) | 1
            window.top = counter
        else:
            window.bits |= 1 << (window.top - counter)
        window.bits &= (1 << WINDOW) - 1
        window.seq = max(window.seq, seq)
        self._windows[key] = window
        if len(self._windows) > WINDOWS_MAX:
            self._windows.popitem(last=False)

    def save(self, *, clean: bool) -> bytes:
        """All windows, and whether this is a clean stop. magic 'RW' | version 1 | clean 1 | n 4 | windows | SHA-256 32

        window: n_parts 1 | parts (length byte each) | top 8 | seq 8 | bits 128
        """
        out = [_MAGIC, bytes([clean]), struct.pack(">I", len(self._windows))]
        for key, window in self._windows.items():
            parts = b"".join(bytes([len(part)]) + part for part in key)
            out.append(bytes([len(key)]) + parts + struct.pack(">QQ", window.top, window.seq))
            out.append(window.bits.to_bytes(WINDOW // 8, "big"))
        data = b"".join(out)
        return data + hashlib.sha256(data).digest()

    def restore(self, data: bytes | None) -> None:
        """Take up what an earlier life saved; None where nothing was. Damage counts as an unclean stop."""
        if data is None:
            return
        try:
            clean = self._read(data)
        except FrameRejected:
            self._windows.clear()
            clean = False
        self._guarded = not clean

    def _read(self, data: bytes) -> bool:
        if len(data) < 40 or hashlib.sha256(data[:-32]).digest() != data[-32:]:
            raise FrameRejected("format", "replay windows")
        reader = Reader(data[:-32])
        if reader.take(3) != _MAGIC:
            raise FrameRejected("version", "replay windows")
        clean, count = reader.unpack(">BI")
        for _ in range(min(count, WINDOWS_MAX)):
            (n_parts,) = reader.unpack(">B")
            key = tuple(reader.take(reader.unpack(">B")[0]) for _ in range(n_parts))
            top, seq = reader.unpack(">QQ")
            self._windows[key] = _Window(top, int.from_bytes(reader.take(WINDOW // 8), "big"), seq)
        return bool(clean)

    def fingerprint(self) -> bytes:
        """A digest of everything held."""
        return hashlib.sha256(self.save(clean=False) + repr(sorted(self._proven.items())).encode()).digest()

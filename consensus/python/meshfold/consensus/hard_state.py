"""Term and last acknowledged offset, in two alternating slots: one of them is whole whatever moment the power fails."""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

__all__ = ("HardState", "HardStateFile")

_SLOT: Final = struct.Struct(">QQQI")
SLOT_BYTES: Final = 512


@dataclass(frozen=True, slots=True)
class HardState:
    """What must survive: `acked` is the log's length in bytes when the last entry was acknowledged."""

    version: int = 0
    term: int = 0
    acked: int = 0


class HardStateFile:
    """The two slots on disk."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self.state = self._read()

    def _read(self) -> HardState:
        best = HardState()
        #: A slot that was written and does not read back: the term in it may have been used.
        self.slot_lost = False
        for slot in (0, 1):
            raw = os.pread(self._descriptor, _SLOT.size, slot * SLOT_BYTES)
            if len(raw) == _SLOT.size:
                version, term, acked, crc = _SLOT.unpack(raw)
                valid = zlib.crc32(raw[:-4]) == crc and version > 0
                self.slot_lost = self.slot_lost or not (valid or raw == bytes(_SLOT.size))
                if valid and version > best.version:
                    best = HardState(version, term, acked)
        return best

    def write(self, *, term: int, acked: int) -> None:
        """Write the next version into the other slot and fsync."""
        version = self.state.version + 1
        body = struct.pack(">QQQ", version, term, acked)
        raw = body + struct.pack(">I", zlib.crc32(body))
        os.pwrite(self._descriptor, raw, (version % 2) * SLOT_BYTES)
        os.fsync(self._descriptor)
        self.state = HardState(version, term, acked)

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)

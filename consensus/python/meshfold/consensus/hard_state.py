"""What must survive besides the entries, in two alternating slots: one of them is whole whatever moment the power fails.

slot: version 8 | term 8 | vote 8 | generation 8 | acked bytes 8 | acked index 8 | crc32c 4
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Final

from meshfold._native import crc32c
from meshfold.consensus.disk import DiskFile

__all__ = ("SLOT_BYTES", "HardState", "HardStateFile")

_SLOT: Final = struct.Struct(">QQQQQQ")
#: Each slot has a disk block of its own, so that a torn write cannot reach the other one.
SLOT_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class HardState:
    """Version 0 means that nothing was ever written."""

    version: int = 0
    term: int = 0
    #: whom this voter gave its vote in `term`; 0 is nobody
    vote: int = 0
    #: which pair of log and snapshot files counts
    generation: int = 0
    #: the log file's length when the last entry was acknowledged
    acked: int = 0
    #: that entry's index
    acked_index: int = 0

    def encode(self) -> bytes:
        """The slot's bytes."""
        body = _SLOT.pack(self.version, self.term, self.vote, self.generation, self.acked, self.acked_index)
        return body + crc32c(body).to_bytes(4, "big")


class HardStateFile:
    """The two slots on disk."""

    def __init__(self, file: DiskFile) -> None:
        """Read them.

        :raises OSError: if that fails
        """
        self._file = file
        self.state = HardState()
        #: A slot that was written and does not read back: what it promised is unknown.
        self.slot_lost = False
        data = file.read()
        for at in (0, SLOT_BYTES):
            raw = data[at : at + _SLOT.size + 4]
            if not raw.strip(b"\0"):
                continue
            body = raw[: _SLOT.size]
            valid = len(raw) == _SLOT.size + 4 and crc32c(body).to_bytes(4, "big") == raw[_SLOT.size :]
            self.slot_lost = self.slot_lost or not valid
            if valid and _SLOT.unpack(body)[0] > self.state.version:
                self.state = HardState(*_SLOT.unpack(body))
        if len(data) < 2 * SLOT_BYTES:
            # Full length from the beginning: writing a slot never needs space.
            file.write(bytes(2 * SLOT_BYTES - len(data)), len(data))
            file.sync()

    def write(self, **changes: int) -> None:
        """Write the next version with these changes into the other slot, durable on return.

        :raises OSError: if it fails; which of the two versions counts is unknown then
        """
        state = replace(self.state, version=self.state.version + 1, **changes)
        self._file.write(state.encode(), (state.version % 2) * SLOT_BYTES)
        self._file.sync()
        self.state = state

    def close(self) -> None:
        """Close the file."""
        self._file.close()

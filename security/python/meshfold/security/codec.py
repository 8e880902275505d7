"""Reading fixed binary records: every byte accounted for, nothing left over."""

from __future__ import annotations

import struct
from typing import Any

from meshfold.core.errors import FrameRejected

__all__ = ("Reader",)


class Reader:
    """Takes fields off a byte string; running out is `short`, bytes left over are `format`."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        if self._at + size > len(self._data):
            raise FrameRejected("short", f"{len(self._data)} bytes")
        part = self._data[self._at : self._at + size]
        self._at += size
        return part

    def unpack(self, form: str) -> tuple[Any, ...]:
        """Fields of a struct format."""
        return struct.unpack(form, self.take(struct.calcsize(form)))

    def text(self) -> str:
        """A length byte and UTF-8."""
        (size,) = self.unpack(">B")
        try:
            return self.take(size).decode()
        except UnicodeDecodeError:
            raise FrameRejected("format", "text is not UTF-8") from None

    @property
    def at(self) -> int:
        """Bytes taken."""
        return self._at

    def end(self) -> None:
        """Nothing may be left."""
        if self._at != len(self._data):
            raise FrameRejected("format", "bytes after the end")

"""Changes of the control state, as the data of log entries.

    op 1 (1 put, 2 delete, 3 compare and set) | id length 1 | key length 2 | version 8 | id | key | value

The id names a command over retries: one that was applied is not applied again, and its first result is the answer.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from meshfold.core.errors import TooLarge, WiringError

__all__ = ("ENTRY_BYTES_MAX", "KEY_BYTES_MAX", "Command", "Op")

KEY_BYTES_MAX: Final = 1024
ID_BYTES_MAX: Final = 32
#: Key and value of one entry.
ENTRY_BYTES_MAX: Final = 1024 * 1024 - 4096
_HEAD: Final = struct.Struct(">BBHQ")


class Op(IntEnum):
    """What a command does."""

    PUT = 1
    DELETE = 2
    COMPARE_AND_SET = 3


@dataclass(frozen=True, slots=True)
class Command:
    """One change. `version` is what COMPARE_AND_SET expects; `id` is empty for a command that is never retried."""

    op: Op
    key: str
    value: bytes = b""
    version: int = 0
    id: bytes = b""

    def check(self) -> None:
        """Return if it fits an entry.

        :raises TooLarge: if key and value do not
        :raises WiringError: if the key is empty or no text
        """
        try:
            key = self.key.encode()
        except UnicodeEncodeError:
            raise WiringError("a key holds a lone surrogate", fix="use valid text", item="key") from None
        if not key:
            raise WiringError("a key is empty", fix="give it at least one character", item="key")
        size = len(key) + len(self.value)
        if size > ENTRY_BYTES_MAX or len(key) > KEY_BYTES_MAX or len(self.id) > ID_BYTES_MAX:
            raise TooLarge(
                f"an entry of {size} bytes, its key {len(key)}",
                fix=f"use at most {ENTRY_BYTES_MAX}, and {KEY_BYTES_MAX} for the key",
                size_bytes=size,
                limit_bytes=ENTRY_BYTES_MAX,
            )

    def encode(self) -> bytes:
        """The entry's data."""
        key = self.key.encode()
        return _HEAD.pack(self.op, len(self.id), len(key), self.version) + self.id + key + self.value

    @classmethod
    def decode(cls, data: bytes) -> Command:
        """Read it.

        :raises ValueError: if it is none
        """
        if len(data) < _HEAD.size:
            raise ValueError("short")
        op, id_len, key_len, version = _HEAD.unpack_from(data)
        key_at = _HEAD.size + id_len
        value_at = key_at + key_len
        if len(data) < value_at:
            raise ValueError("short")
        key = data[key_at:value_at].decode()
        return cls(Op(op), key, data[value_at:], version, data[_HEAD.size : key_at])

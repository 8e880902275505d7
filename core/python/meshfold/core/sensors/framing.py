"""Messages out of a stream of bytes. Whatever a line brings, memory is bounded and the next good message is found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from meshfold.core.errors import WiringError

__all__ = ("DelimitedMessageBuffer", "FrameAssembler", "Framer", "crc16")

#: Bytes of one message unless told otherwise.
MESSAGE_BYTES_MAX: Final = 4096


class Framer(Protocol):
    """Takes bytes as they come, gives whole messages."""

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes, return the messages that are complete with them."""
        ...


class DelimitedMessageBuffer:
    """Messages that end with a delimiter. One longer than `max_bytes` is dropped up to the next delimiter, and counted.

    :raises WiringError: for an empty delimiter or a limit below 1
    """

    def __init__(self, delimiter: bytes = b"\n", max_bytes: int = MESSAGE_BYTES_MAX) -> None:
        if not delimiter or max_bytes < 1:
            raise WiringError("no delimiter or no room", fix="give both", item="delimiter")
        self._delimiter = delimiter
        self._max_bytes = max_bytes
        self._held = b""
        self._skipping = False
        #: Messages that were longer than the limit.
        self.oversize = 0

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes, return the messages that are complete with them, without their delimiter."""
        *ended, self._held = (self._held + data).split(self._delimiter)
        messages: list[bytes] = []
        for message in ended:
            if self._skipping:
                self._skipping = False
            elif len(message) > self._max_bytes:
                self.oversize += 1
            else:
                messages.append(message)
        self._shorten()
        return messages

    def _shorten(self) -> None:
        """Hold no more than can still become a message; the end may be the beginning of a delimiter."""
        keep = len(self._delimiter) - 1
        if not self._skipping and len(self._held) > self._max_bytes + keep:
            self._skipping = True
            self.oversize += 1
        if self._skipping:
            self._held = self._held[len(self._held) - keep :] if keep else b""


def crc16(data: bytes) -> int:
    """CRC-16/CCITT-FALSE: polynomial 0x1021, begun with 0xFFFF (as in ITU-T V.41, not reflected)."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ 0x1021) & 0xFFFF if crc & 0x8000 else crc << 1
    return crc


class FrameAssembler:
    """Frames of: start marker, length (2 bytes, big-endian), payload, checksum (2 bytes, big-endian) of length and payload.

    After garbage, a frame that is too long or one whose checksum is wrong, the search goes on one byte later, so a false
    start marker inside a payload never costs a good frame behind it.

    :raises WiringError: for an empty marker, or a limit outside 1 to 65,535
    """

    def __init__(
        self,
        start: bytes = b"\xaa\x55",
        max_bytes: int = MESSAGE_BYTES_MAX,
        checksum: Callable[[bytes], int] = crc16,
    ) -> None:
        if not start or not 1 <= max_bytes <= 0xFFFF:
            raise WiringError("no start marker, or a limit outside 1 to 65535", item="start")
        self._start = start
        self._max_bytes = max_bytes
        self._checksum = checksum
        self._held = b""
        #: Bytes that belonged to no frame.
        self.skipped_bytes = 0
        #: Frames whose checksum or length was wrong.
        self.damaged = 0

    def frame(self, payload: bytes) -> bytes:
        """Return the frame of a payload, for the sending side.

        :raises ValueError: if it is longer than the limit
        """
        if len(payload) > self._max_bytes:
            raise ValueError(f"{len(payload)} bytes, at most {self._max_bytes}")
        body = len(payload).to_bytes(2, "big") + payload
        return self._start + body + self._checksum(body).to_bytes(2, "big")

    def feed(self, data: bytes) -> list[bytes]:
        """Take bytes, return the payloads that are complete with them."""
        self._held += data
        payloads: list[bytes] = []
        while True:
            self._find_start()
            end = self._end()
            if end is None:
                return payloads
            body, given = self._held[len(self._start) : end - 2], self._held[end - 2 : end]
            if end and self._checksum(body).to_bytes(2, "big") == given:
                payloads.append(body[2:])
                self._held = self._held[end:]
                continue
            self.damaged += 1
            self._skip(1)

    def _find_start(self) -> None:
        at = self._held.find(self._start)
        if at < 0:
            # The end may be the beginning of a marker.
            at = len(self._held)
            for keep in range(min(len(self._start) - 1, len(self._held)), 0, -1):
                if self._start.startswith(self._held[-keep:]):
                    at = len(self._held) - keep
                    break
        self._skip(at)

    def _skip(self, count: int) -> None:
        self._held = self._held[count:]
        self.skipped_bytes += count

    def _end(self) -> int | None:
        """Where the frame at the front ends; None if it is not complete, 0 if its length is impossible."""
        body = len(self._start) + 2
        if len(self._held) < body:
            return None
        length = int.from_bytes(self._held[len(self._start) : body], "big")
        if length > self._max_bytes:
            return 0
        return body + length + 2 if len(self._held) >= body + length + 2 else None

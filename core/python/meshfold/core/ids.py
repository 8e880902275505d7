"""Event ids as text: base32 of producer, incarnation, route tag and number (52 characters)."""

from __future__ import annotations

import base64
import binascii
import struct

from meshfold.core.errors import WiringError

__all__ = ("event_id", "parse_event_id")

_TEXT_LENGTH = 52


def event_id(producer: bytes, incarnation: bytes, route_tag: bytes, seq: int) -> str:
    """Return the id of an event: three 8-byte tags and its number.

    :raises WiringError: if the number is negative or above 64 bits
    """
    try:
        raw = struct.pack(">8s8s8sQ", producer, incarnation, route_tag, seq)
    except struct.error:
        raise WiringError(f"{seq!r:.60} is no number of an event", fix="give one below 2^64") from None
    return base64.b32encode(raw).decode().rstrip("=").lower()


def parse_event_id(text: str) -> tuple[bytes, bytes, bytes, int]:
    """Return (producer, incarnation, route tag, seq).

    :raises WiringError: if `text` is not an event id in its one form
    """
    try:
        if len(text) != _TEXT_LENGTH or not text.isascii():
            raise ValueError
        raw = base64.b32decode(text.upper() + "====")
        producer, incarnation, route_tag, seq = struct.unpack(">8s8s8sQ", raw)
        if event_id(producer, incarnation, route_tag, seq) != text:
            raise ValueError
    except (ValueError, binascii.Error):
        raise WiringError(
            f"{text[:60]!r} is not an event id",
            fix="`event.id` and `meshfold route latest` show ids",
            item=text,
        ) from None
    return producer, incarnation, route_tag, seq

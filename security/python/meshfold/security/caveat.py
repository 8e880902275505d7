"""Caveats: limits a capability carries. A child of a grant may only tighten them; an unknown one refuses the link.

kind 1 | length 1 | value: 1 events a second u32, 2 bytes a second u64, 3 policy epochs from u32 to u32 (for replay),
4 bytes of one opened payload u64. Kinds rise strictly, so a set of caveats has one encoding.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from meshfold.core.errors import FrameRejected

__all__ = ("Caveat", "CaveatKind", "decode_caveats", "encode_caveats", "tightens")

_FORMS: Final = {1: ">I", 2: ">Q", 3: ">II", 4: ">Q"}


class CaveatKind(IntEnum):
    """What a caveat limits."""

    EVENTS_PER_S = 1
    BYTES_PER_S = 2
    EPOCHS = 3
    OPEN_BYTES = 4


@dataclass(frozen=True, slots=True)
class Caveat:
    """One limit. `values` is one number, or from and to (both included) for EPOCHS."""

    kind: CaveatKind
    values: tuple[int, ...]

    @property
    def limit(self) -> int:
        """The number, of all kinds but EPOCHS."""
        return self.values[0]


def tightens(above: Caveat, below: Caveat) -> bool:
    """Whether `below` limits at least as much as `above`."""
    if above.kind is not below.kind:
        return False
    if above.kind is CaveatKind.EPOCHS:
        return above.values[0] <= below.values[0] and below.values[1] <= above.values[1]
    return below.limit <= above.limit


def encode_caveats(caveats: tuple[Caveat, ...]) -> bytes:
    """As bytes.

    :raises FrameRejected: with reason `ext` if they are not in rising order, or a value does not fit
    """
    out = b""
    for caveat in caveats:
        try:
            value = struct.pack(_FORMS[caveat.kind], *caveat.values)
        except struct.error:
            raise FrameRejected("ext", f"caveat {caveat.kind.name} {caveat.values}") from None
        out += bytes([caveat.kind, len(value)]) + value
    decode_caveats(out)
    return out


def decode_caveats(data: bytes) -> tuple[Caveat, ...]:
    """Read them.

    :raises FrameRejected: with reason `ext` for an unknown or repeated kind, another order, a wrong length
    """
    found: list[Caveat] = []
    at = 0
    while at < len(data):
        kind, size = data[at], data[at + 1] if at + 1 < len(data) else 256
        form = _FORMS.get(kind)
        if form is None:
            # It would tighten what we cannot enforce.
            raise FrameRejected("ext", f"unknown caveat {kind}")
        value = data[at + 2 : at + 2 + size]
        if size != struct.calcsize(form) or len(value) != size:
            raise FrameRejected("ext", "length of a caveat")
        if found and kind <= found[-1].kind:
            raise FrameRejected("ext", "caveats repeat or are out of order")
        values = struct.unpack(form, value)
        if kind == CaveatKind.EPOCHS and values[0] > values[1]:
            raise FrameRejected("ext", "epochs from and to")
        found.append(Caveat(CaveatKind(kind), values))
        at += 2 + size
    return tuple(found)

"""The MF1 header, 96 bytes, and the flags of a frame (docs/wire.md)."""

from __future__ import annotations

import struct
from typing import Any, Final, NamedTuple

from meshfold.core.errors import FrameRejected
from meshfold.core.registry import FrameKind

__all__ = ("HEADER_BYTES", "SIGNATURE_BYTES", "SUITES", "Flags", "Header")

HEADER_BYTES: Final = 96
SIGNATURE_BYTES: Final = 64
FRAME_BYTES_MAX: Final = 1024 * 1024
SUITE_AES_256_GCM: Final = 1
SUITE_CHACHA20_POLY1305: Final = 2
#: The AEAD of a mesh; there is no negotiation, the policy record fixes it.
SUITES: Final = frozenset((SUITE_AES_256_GCM, SUITE_CHACHA20_POLY1305))
#: The 96 bytes in their order; those of event frames are written where they are sealed (security/src/frame.rs).
_FORM: Final = struct.Struct(">2sBBBBH8s8s8sQIIQQII8s14sH")


class Flags:
    """Bits of the flags byte."""

    ENC: Final = 1
    ZSTD_META: Final = 2
    ZSTD_PAYLOAD: Final = 4
    SIG: Final = 8
    LAST: Final = 16
    ALL: Final = 31


class Header(NamedTuple):
    """What every frame begins with. Everything here is visible to the broker and bound by the seal."""

    flags: int
    kind: FrameKind
    n_events: int
    address_tag: bytes
    sender_tag: bytes
    incarnation: bytes
    first_seq: int
    generation: int
    policy_epoch: int
    frame_ctr: int
    hlc: int
    meta_len: int
    payload_len: int
    schema_id: bytes
    suite: int = SUITE_AES_256_GCM
    key_epochs: bytes = bytes(14)

    def encode(self) -> bytes:
        """The 96 bytes."""
        return _FORM.pack(
            b"MF",
            1,
            self.flags,
            self.suite,
            int(self.kind),
            self.n_events,
            self.address_tag,
            self.sender_tag,
            self.incarnation,
            self.first_seq,
            self.generation,
            self.policy_epoch,
            self.frame_ctr,
            self.hlc,
            self.meta_len,
            self.payload_len,
            self.schema_id,
            self.key_epochs,
            0,
        )

    @classmethod
    def parse(cls, frame: bytes) -> Header:
        """Read the header of a frame.

        :raises FrameRejected: with reason `short`, `size`, `magic`, `version`, `flags`, `suite`, `kind` or `ext`
        """
        if len(frame) < HEADER_BYTES:
            raise FrameRejected("short", f"{len(frame)} bytes")
        if len(frame) > FRAME_BYTES_MAX:
            raise FrameRejected("size", f"{len(frame)} bytes")
        fields = _FORM.unpack_from(frame)
        magic, version, flags, suite, kind, n_events = fields[:6]
        if magic != b"MF":
            raise FrameRejected("magic", "not a frame")
        if version != 1:
            raise FrameRejected("version", str(version))
        if flags & ~Flags.ALL:
            raise FrameRejected("flags", hex(flags))
        if suite not in SUITES:
            raise FrameRejected("suite", str(suite))
        try:
            kind = FrameKind(kind)
        except ValueError:
            raise FrameRejected("kind", str(kind)) from None
        if fields[18] != 0:
            raise FrameRejected("ext", "reserved bytes")
        bound: tuple[Any, ...] = (*fields[6:17], suite, fields[17])
        return cls(*(flags, kind, n_events, *bound))

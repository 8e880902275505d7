"""Sealing: batches into frames that only grantees open and everybody with the sender's key can check.

Invariants: a nonce is used once - every sealed section takes its own counter under a subkey of this process's
incarnation; a section is sealed once, what is sent twice is the same bytes; in a forked child every seal is refused.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from meshfold.core import Address
from meshfold.core.registry import FrameKind
from meshfold.core.route import Secrecy
from meshfold.security.chunks import cut
from meshfold.security.compress import pack
from meshfold.security.epochs import ZERO, pack_vector
from meshfold.security.fork import Guarded
from meshfold.security.frame import HEADER_FORM, SIGNATURE_BYTES, SUITES, Flags, Header
from meshfold.security.identity import Identity
from meshfold.security.key_tree import wrap_suite
from meshfold.security.keyring import Keyring
from meshfold.security.keys import NodeKeys

__all__ = ("EventFrame", "Sealer", "box_info", "section_aad", "signed_bytes", "subkey")

SIG_DOMAIN: Final = b"MF1 sig"
TAG_BYTES: Final = 16
#: What one subkey seals before the next generation: frames, bytes, and time by the stamps of the frames.
GENERATION_FRAMES_MAX: Final = 2**24
GENERATION_BYTES_MAX: Final = 64 * 2**30
GENERATION_MS_MAX: Final = 24 * 3_600_000
SUBKEYS_MAX: Final = 16_384


def subkey(
    key: bytes,
    key_class: str,
    digest: bytes,
    sender_pub: bytes,
    incarnation: bytes,
    generation: int,
    kind: int,
) -> bytes:
    """The key of one sender's incarnation and generation for one kind of frame."""
    info = b"MF1 data" + key_class.encode() + sender_pub + incarnation + struct.pack(">IB", generation, kind)
    return HKDF(SHA256(), 32, digest, info).derive(key)


def section_aad(key_class: str, header: bytes, digest: bytes, sender_pub: bytes, kc: bytes) -> bytes:
    """What a section is bound to."""
    return b"MF1" + key_class.encode() + header + digest + sender_pub + kc


def signed_bytes(digest: bytes, header: bytes, meta: bytes, payload_digest: bytes) -> bytes:
    """What the signature covers; with the payload's digest in place of the payload, so that both forms verify."""
    return digest + header + meta + payload_digest


def nonce(counter: int) -> bytes:
    """u32 0 || u64 counter."""
    return struct.pack(">IQ", 0, counter)


def box_info(header: bytes, subject: str) -> bytes:
    """What a box or members' frame is bound to."""
    return b"MF1 box" + header + hashlib.sha256(subject.encode()).digest()


class EventFrame(NamedTuple):
    """A sealed batch in its two forms."""

    raw_header: bytes
    meta_section: bytes
    payload_section: bytes
    signature: bytes

    @property
    def header(self) -> Header:
        """What the broker sees of it."""
        return Header.parse(self.raw_header)

    def whole(self) -> bytes:
        """For the payload subject (class d)."""
        return self.raw_header + self.meta_section + self.payload_section + self.signature

    def meta_only(self) -> bytes:
        """For the metadata subject (class m): the payload's digest in its place."""
        digest = hashlib.sha256(self.payload_section).digest() if self.payload_section else b""
        return self.raw_header + self.meta_section + digest + self.signature


_FLAGS: Final[dict[str, int]] = {"sealed": Flags.ENC | Flags.SIG, "group": Flags.ENC, "none": Flags.SIG}


_NO_EPOCHS: Final = pack_vector(ZERO)


def _smaller(data: bytes, flags: int, flag: int) -> tuple[bytes, int]:
    """The section compressed, where that helps."""
    packed = pack(data)
    return (packed, flags | flag) if len(packed) < len(data) else (data, flags)


class _Use:
    """How far the subkeys of one route have been used."""

    __slots__ = ("began_ms", "frames", "generation", "size_bytes")

    def __init__(self) -> None:
        self.generation, self.frames, self.size_bytes, self.began_ms = 0, 0, 0, 0


#: AEAD: (nonce, what to seal, what it is bound to) -> sealed.
Seal = Callable[[bytes, bytes, bytes], bytes]


class _Seat(NamedTuple):
    """All that a frame of one route needs: ciphers, and what their sections are bound to before and after the header."""

    revision: int
    generation: int
    from_ms: int
    until_ms: int
    vector: bytes
    suite: int
    parts: list[tuple[Seal, bytes, bytes]]


class Sealer(Guarded):
    """Seals what this process sends. One per process and incarnation."""

    def __init__(self, keys: NodeKeys, cluster: bytes, incarnation: bytes, keyring: Keyring) -> None:
        super().__init__()
        self._keys = keys
        self._cluster = cluster
        self._incarnation = incarnation
        self._keyring = keyring
        self._uses: dict[bytes, _Use] = {}
        self._seats: dict[bytes, _Seat] = {}
        self._control_ctr = 0

    def _count(self, address: Address, size_bytes: int, at_ms: int) -> tuple[int, int]:
        """(generation, frame counter) of the next event frame, which takes two counters."""
        use = self._uses.get(address.digest)
        if use is None:
            use = self._uses[address.digest] = _Use()
        if not use.frames:
            use.began_ms = at_ms
        elif (
            use.frames >= GENERATION_FRAMES_MAX
            or use.size_bytes + size_bytes > GENERATION_BYTES_MAX
            or at_ms - use.began_ms > GENERATION_MS_MAX
        ):
            use.generation += 1
            use.frames, use.size_bytes, use.began_ms = 0, 0, at_ms
        counter = 2 * use.frames
        use.frames += 1
        use.size_bytes += size_bytes
        return use.generation, counter

    def standing(self, address: Address) -> tuple[int, int]:
        """(generation, next counter) of a route: what a reader after an unclean stop has to know."""
        use = self._uses.get(address.digest)
        return (use.generation, 2 * use.frames) if use is not None else (0, 0)

    def _seat(self, address: Address, generation: int, at_ms: int) -> _Seat:
        """The ciphers of a route as of now; made anew when epochs, keys or generation have changed."""
        seat = self._seats.get(address.digest)
        if (
            seat is None
            or seat.revision != self._keyring.revision
            or seat.generation != generation
            or not seat.from_ms <= at_ms < seat.until_ms
        ):
            if len(self._seats) >= SUBKEYS_MAX:
                self._seats.clear()
            seat = self._seats[address.digest] = self._new_seat(address, generation, at_ms)
        return seat

    def _new_seat(self, address: Address, generation: int, at_ms: int) -> _Seat:
        ring = self._keyring
        vector, from_ms, until_ms = ring.epochs.span(address.tokens, at_ms)
        parts: list[tuple[Seal, bytes, bytes]] = []
        for key_class in ("m", "d"):
            key, kc = ring.key_at(key_class, address, vector)
            raw = subkey(
                key,
                key_class,
                address.digest,
                self._keys.node_pub,
                self._incarnation,
                generation,
                FrameKind.EVENT,
            )
            bound = section_aad(key_class, b"", address.digest, self._keys.node_pub, kc)
            parts.append((SUITES[ring.suite](raw).encrypt, bound[:4], bound[4:]))
        return _Seat(ring.revision, generation, from_ms, until_ms, pack_vector(vector), ring.suite, parts)

    def events(
        self,
        address: Address,
        *,
        schema_id: bytes,
        first_seq: int,
        count: int,
        meta: bytes,
        payload: bytes,
        hlc: int,
        policy_epoch: int,
        compress: bool = False,
        secrecy: Secrecy = "sealed",
        kind: FrameKind = FrameKind.EVENT,
        last: bool = False,
    ) -> EventFrame:
        """Seal a batch: metadata and payload each under its own key, signed.

        :param kind: CHUNK for a part of a batch that is too large for one frame (`chunks`)
        :param last: of a chunk: it is the last

        :param compress: zstd first, where the schema allows it; kept only if it helps
        :param secrecy: of the route: `group` is not signed, so whoever holds its keys can forge it; `none` is not sealed
        :raises KeyMissing: if a key is not here, or after a fork; no counter is used then
        """
        self.check_fork()
        flags = _FLAGS[secrecy] | (Flags.LAST if last else 0)
        enc = bool(flags & Flags.ENC)
        if compress:
            meta, flags = _smaller(meta, flags, Flags.ZSTD_META)
            payload, flags = _smaller(payload, flags, Flags.ZSTD_PAYLOAD)
        at_ms = hlc >> 16
        digest = address.digest
        use = self._uses.get(digest)
        # A key that is missing uses no counter, so it is looked for first.
        seat = self._seat(address, use.generation if use is not None else 0, at_ms) if enc else None
        generation, counter = self._count(address, len(meta) + len(payload), at_ms)
        if seat is not None and seat.generation != generation:
            seat = self._seat(address, generation, at_ms)
        extra = TAG_BYTES if enc else 0
        raw = HEADER_FORM.pack(
            b"MF",
            1,
            flags,
            self._keyring.suite,
            kind,
            count,
            address.tag,
            self._keys.tag,
            self._incarnation,
            first_seq,
            generation,
            policy_epoch,
            counter,
            hlc,
            len(meta) + extra,
            len(payload) + extra,
            schema_id,
            seat.vector if seat is not None else _NO_EPOCHS,
            0,
        )
        if seat is not None:
            (seal_meta, before, after), (seal_payload, before_d, after_d) = seat.parts
            # The nonce is 32 zero bits and the counter.
            meta = seal_meta(counter.to_bytes(12, "big"), meta, before + raw + after)
            payload = seal_payload((counter + 1).to_bytes(12, "big"), payload, before_d + raw + after_d)
        signature = b""
        if flags & Flags.SIG:
            hashed = hashlib.sha256(payload).digest() if payload else b""
            signature = self._keys.sign(SIG_DOMAIN, digest + raw + meta + hashed)
        return EventFrame(raw, meta, payload, signature)

    def chunks(self, address: Address, *, meta: bytes, payload: bytes, **fields: Any) -> list[EventFrame]:
        """Seal a batch that is too large for one frame as chunks. They share the counters of event frames.

        :param fields: as `events`
        :raises TooLarge: above 64 MiB; no counter is used then
        """
        return [
            self.events(
                address, meta=one.place, payload=one.part, kind=FrameKind.CHUNK, last=one.last, **fields
            )
            for one in cut(meta, payload)
        ]

    def _control_header(
        self, kind: FrameKind, body_len: int, hlc: int, policy_epoch: int, tag: bytes, epoch: int = 0
    ) -> Header:
        self._control_ctr += 1
        flags = Flags.ENC | Flags.SIG
        return Header(
            flags,
            kind,
            0,
            tag,
            self._keys.tag,
            self._incarnation,
            0,
            0,
            policy_epoch,
            self._control_ctr,
            hlc,
            body_len,
            0,
            bytes(8),
            self._keyring.suite,
            pack_vector((epoch, *ZERO[1:])),
        )

    def seal_box(
        self, kind: FrameKind, recipient: Identity, body: bytes, *, hlc: int, policy_epoch: int, subject: str
    ) -> bytes:
        """Seal a query or answer to one recipient (HPKE), bound to `subject`, signed."""
        self.check_fork()
        header = self._control_header(
            kind, len(body) + 32 + TAG_BYTES, hlc, policy_epoch, recipient.tag
        ).encode()
        public = X25519PublicKey.from_public_bytes(recipient.wrap_pub)
        box = wrap_suite().encrypt(body, public, info=box_info(header, subject) + self._cluster)
        return header + box + self._keys.sign(SIG_DOMAIN, box_info(header, subject) + box)

    def seal_members(
        self, kind: FrameKind, body: bytes, *, hlc: int, policy_epoch: int, subject: str
    ) -> bytes:
        """Seal a heartbeat, credit or ack under the members' key, bound to `subject`, signed.

        :raises KeyMissing: before the members' key has arrived, or after a fork
        """
        self.check_fork()
        epoch, key = self._keyring.members_for(hlc >> 16)
        header = self._control_header(kind, len(body) + TAG_BYTES, hlc, policy_epoch, bytes(8), epoch)
        raw = header.encode()
        cipher = SUITES[header.suite](
            subkey(key, "h", bytes(32), self._keys.node_pub, self._incarnation, 0, kind)
        )
        sealed = cipher.encrypt(nonce(header.frame_ctr), body, box_info(raw, subject))
        return raw + sealed + self._keys.sign(SIG_DOMAIN, box_info(raw, subject) + sealed)

    def erase(self) -> None:
        """Forget every subkey."""
        self._seats.clear()

    def __repr__(self) -> str:
        return f"Sealer(REDACTED, signature {SIGNATURE_BYTES} bytes)"

"""Sealing: batches into frames that only grantees open and everybody with the sender's key can check.

Invariants: a nonce is used once - every sealed section takes its own counter under a subkey of this process's
incarnation; a section is sealed once, what is sent twice is the same bytes; in a forked child every seal is refused.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from meshfold.core import Address
from meshfold.core.registry import FrameKind
from meshfold.core.route import Secrecy
from meshfold.security.compress import pack
from meshfold.security.epochs import ZERO, pack_vector
from meshfold.security.fork import Guarded
from meshfold.security.frame import SIGNATURE_BYTES, SUITES, Cipher, Flags, Header
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


@dataclass(frozen=True, slots=True)
class EventFrame:
    """A sealed batch in its two forms."""

    header: Header
    meta_section: bytes
    payload_section: bytes
    signature: bytes

    def whole(self) -> bytes:
        """For the payload subject (class d)."""
        return self.header.encode() + self.meta_section + self.payload_section + self.signature

    def meta_only(self) -> bytes:
        """For the metadata subject (class m): the payload's digest in its place."""
        digest = hashlib.sha256(self.payload_section).digest() if self.payload_section else b""
        return self.header.encode() + self.meta_section + digest + self.signature


_FLAGS: Final[dict[str, int]] = {"sealed": Flags.ENC | Flags.SIG, "group": Flags.ENC, "none": Flags.SIG}


def _smaller(data: bytes, flags: int, flag: int) -> tuple[bytes, int]:
    """The section compressed, where that helps."""
    packed = pack(data)
    return (packed, flags | flag) if len(packed) < len(data) else (data, flags)


class _Use:
    """How far the subkeys of one route have been used."""

    __slots__ = ("began_ms", "frames", "generation", "size_bytes")

    def __init__(self) -> None:
        self.generation, self.frames, self.size_bytes, self.began_ms = 0, 0, 0, 0


class Sealer(Guarded):
    """Seals what this process sends. One per process and incarnation."""

    def __init__(self, keys: NodeKeys, cluster: bytes, incarnation: bytes, keyring: Keyring) -> None:
        super().__init__()
        self._keys = keys
        self._cluster = cluster
        self._incarnation = incarnation
        self._keyring = keyring
        self._uses: dict[bytes, _Use] = {}
        self._ciphers: dict[tuple[str, str, bytes, int, int], Cipher] = {}
        self._control_ctr = 0

    def _count(self, address: Address, size_bytes: int, at_ms: int) -> tuple[int, int]:
        """(generation, frame counter) of the next event frame, which takes two counters."""
        use = self._uses.setdefault(address.digest, _Use())
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

    def _cipher(self, key_class: str, address: Address, key: bytes, kc: bytes, generation: int) -> Cipher:
        slot = (key_class, address.text, kc, generation, self._keyring.suite)
        found = self._ciphers.get(slot)
        if found is None:
            if len(self._ciphers) >= SUBKEYS_MAX:
                self._ciphers.clear()
            raw = subkey(
                key,
                key_class,
                address.digest,
                self._keys.node_pub,
                self._incarnation,
                generation,
                FrameKind.EVENT,
            )
            found = self._ciphers[slot] = SUITES[self._keyring.suite](raw)
        return found

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
    ) -> EventFrame:
        """Seal a batch: metadata and payload each under its own key, signed.

        :param compress: zstd first, where the schema allows it; kept only if it helps
        :param secrecy: of the route: `group` is not signed, so whoever holds its keys can forge it; `none` is not sealed
        :raises KeyMissing: if a key is not here, or after a fork; no counter is used then
        """
        self.check_fork()
        flags = _FLAGS[secrecy]
        enc = bool(flags & Flags.ENC)
        keys = [self._keyring.key_for(one, address, hlc >> 16) for one in ("m", "d")] if enc else []
        if compress:
            meta, flags = _smaller(meta, flags, Flags.ZSTD_META)
            payload, flags = _smaller(payload, flags, Flags.ZSTD_PAYLOAD)
        generation, counter = self._count(address, len(meta) + len(payload), hlc >> 16)
        extra = TAG_BYTES if enc else 0
        header = Header(
            flags,
            FrameKind.EVENT,
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
            self._keyring.suite,
            pack_vector(keys[0][2] if keys else ZERO),
        )
        raw = header.encode()
        if enc:
            sections: list[bytes] = []
            for place, (key_class, data) in enumerate((("m", meta), ("d", payload))):
                key, kc, _ = keys[place]
                cipher = self._cipher(key_class, address, key, kc, generation)
                aad = section_aad(key_class, raw, address.digest, self._keys.node_pub, kc)
                sections.append(cipher.encrypt(nonce(counter + place), data, aad))
            meta, payload = sections
        signature = b""
        if flags & Flags.SIG:
            digest = hashlib.sha256(payload).digest() if payload else b""
            signature = self._keys.sign(SIG_DOMAIN, signed_bytes(address.digest, raw, meta, digest))
        return EventFrame(header, meta, payload, signature)

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
        self._ciphers.clear()

    def __repr__(self) -> str:
        return f"Sealer(REDACTED, signature {SIGNATURE_BYTES} bytes)"

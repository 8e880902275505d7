"""Sealing: batches into frames that only grantees open and everybody with the sender's key can check.

Invariants: a nonce is used once - every sealed section takes its own counter under a subkey of this process's
incarnation; a section is sealed once, what is sent twice is the same bytes; in a forked child every seal is refused.
"""

from __future__ import annotations

import hashlib
import os
import struct
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from meshfold.core import Address
from meshfold.core.errors import KeyMissing
from meshfold.core.registry import FrameKind
from meshfold.security.compress import pack
from meshfold.security.frame import SIGNATURE_BYTES, Flags, Header
from meshfold.security.identity import Identity
from meshfold.security.key_tree import wrap_suite
from meshfold.security.keyring import Keyring
from meshfold.security.keys import NodeKeys

__all__ = ("EventFrame", "Sealer", "box_info", "section_aad", "signed_bytes", "subkey")

SIG_DOMAIN: Final = b"MF1 sig"
TAG_BYTES: Final = 16
#: Frames one subkey seals before the next generation.
GENERATION_FRAMES_MAX: Final = 2**24
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


class Sealer:
    """Seals what this process sends. One per process and incarnation."""

    def __init__(self, keys: NodeKeys, cluster: bytes, incarnation: bytes, keyring: Keyring) -> None:
        self._keys = keys
        self._cluster = cluster
        self._incarnation = incarnation
        self._keyring = keyring
        self._pid = os.getpid()
        self._counters: dict[bytes, int] = {}
        self._ciphers: dict[tuple[str, str, bytes, int], tuple[AESGCM, bytes]] = {}
        self._control_ctr = 0

    def _check_fork(self) -> None:
        if os.getpid() != self._pid:
            raise KeyMissing(
                "sealing in a forked child would use nonces twice",
                fix="open the node after the fork",
                because="fork",
            )

    def _count(self, address: Address) -> tuple[int, int]:
        """(generation, frame counter) of the next event frame, which takes two counters."""
        used = self._counters.get(address.digest, 0)
        self._counters[address.digest] = used + 1
        return used // GENERATION_FRAMES_MAX, 2 * (used % GENERATION_FRAMES_MAX)

    def _cipher(self, key_class: str, address: Address, generation: int) -> tuple[AESGCM, bytes]:
        key, kc = self._keyring.key_for(key_class, address)
        slot = (key_class, address.text, kc, generation)
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
            found = self._ciphers[slot] = (AESGCM(raw), kc)
        return found

    def seal_events(
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
    ) -> EventFrame:
        """Seal a batch: metadata and payload each under its own key, signed.

        :param compress: zstd first, where the schema allows it; kept only if it helps
        :raises KeyMissing: if a key is not here, or after a fork; no counter is used then
        """
        return self._events(
            address, schema_id, first_seq, count, meta, payload, hlc, policy_epoch, compress, True
        )

    def plain_events(
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
    ) -> EventFrame:
        """Sign a batch of a route declared `secrecy="none"`; it travels in the clear."""
        return self._events(
            address, schema_id, first_seq, count, meta, payload, hlc, policy_epoch, compress, False
        )

    def _events(
        self,
        address: Address,
        schema_id: bytes,
        first_seq: int,
        count: int,
        meta: bytes,
        payload: bytes,
        hlc: int,
        policy_epoch: int,
        compress: bool,
        enc: bool,
    ) -> EventFrame:
        self._check_fork()
        flags = Flags.SIG | (Flags.ENC if enc else 0)
        if enc:
            self._keyring.key_for("m", address)
            self._keyring.key_for("d", address)
        if compress:
            packed = pack(meta)
            if len(packed) < len(meta):
                meta, flags = packed, flags | Flags.ZSTD_META
            packed = pack(payload)
            if len(packed) < len(payload):
                payload, flags = packed, flags | Flags.ZSTD_PAYLOAD
        generation, counter = self._count(address)
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
        )
        raw = header.encode()
        if enc:
            cipher, kc = self._cipher("m", address, generation)
            meta = cipher.encrypt(
                nonce(counter), meta, section_aad("m", raw, address.digest, self._keys.node_pub, kc)
            )
            cipher, kc = self._cipher("d", address, generation)
            aad = section_aad("d", raw, address.digest, self._keys.node_pub, kc)
            payload = cipher.encrypt(nonce(counter + 1), payload, aad)
        digest = hashlib.sha256(payload).digest() if payload else b""
        signature = self._keys.sign(SIG_DOMAIN, signed_bytes(address.digest, raw, meta, digest))
        return EventFrame(header, meta, payload, signature)

    def _control_header(
        self, kind: FrameKind, body_len: int, hlc: int, policy_epoch: int, tag: bytes
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
        )

    def seal_box(
        self, kind: FrameKind, recipient: Identity, body: bytes, *, hlc: int, policy_epoch: int, subject: str
    ) -> bytes:
        """Seal a query or answer to one recipient (HPKE), bound to `subject`, signed."""
        self._check_fork()
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
        self._check_fork()
        key = self._keyring.members_key
        header = self._control_header(kind, len(body) + TAG_BYTES, hlc, policy_epoch, bytes(8))
        raw = header.encode()
        cipher = AESGCM(subkey(key, "h", bytes(32), self._keys.node_pub, self._incarnation, 0, kind))
        sealed = cipher.encrypt(nonce(header.frame_ctr), body, box_info(raw, subject))
        return raw + sealed + self._keys.sign(SIG_DOMAIN, box_info(raw, subject) + sealed)

    def __repr__(self) -> str:
        return f"Sealer(REDACTED, signature {SIGNATURE_BYTES} bytes)"

"""Sealing: batches into frames that only grantees open and everybody with the sender's key can check.

Invariants: a nonce is used once - every sealed section takes its own counter under a subkey of this process's
incarnation; a section is sealed once, what is sent twice is the same bytes; in a forked child every seal is refused.
"""

from __future__ import annotations

import hashlib
import struct
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from meshfold._native import EventFrame, RouteSeal, SectionKey
from meshfold.core import Address
from meshfold.core.registry import FrameKind
from meshfold.core.route import Secrecy
from meshfold.security.chunks import cut
from meshfold.security.compress import pack
from meshfold.security.epochs import ZERO, pack_vector
from meshfold.security.fork import Guarded
from meshfold.security.frame import SIGNATURE_BYTES, Flags, Header
from meshfold.security.identity import Identity
from meshfold.security.key_tree import wrap_suite
from meshfold.security.keyring import Keyring
from meshfold.security.keys import NodeKeys

__all__ = ("EventFrame", "Sealer", "box_info", "section_aad", "signed_bytes", "subkey")

SIG_DOMAIN: Final = b"MF1 sig"
TAG_BYTES: Final = 16
#: What one subkey seals before the next generation: frames, bytes, and milliseconds by the stamps of the frames.
GENERATION_MAX: Final = (2**24, 64 * 2**30, 24 * 3_600_000)
#: Keys are made so often before those of all routes are given up; what was used of them stays counted.
SEATS_MAX: Final = 16_384


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


def box_info(header: bytes, subject: str) -> bytes:
    """What a box or members' frame is bound to."""
    return b"MF1 box" + header + hashlib.sha256(subject.encode()).digest()


_FLAGS: Final[dict[str, int]] = {"sealed": Flags.ENC | Flags.SIG, "group": Flags.ENC, "none": Flags.SIG}


def _smaller(data: bytes, flags: int, flag: int) -> tuple[bytes, int]:
    """The section compressed, where that helps."""
    packed = pack(data)
    return (packed, flags | flag) if len(packed) < len(data) else (data, flags)


class Sealer(Guarded):
    """Seals what this process sends. One per process and incarnation."""

    def __init__(
        self,
        keys: NodeKeys,
        cluster: bytes,
        incarnation: bytes,
        keyring: Keyring,
        *,
        limits: tuple[int, int, int] = GENERATION_MAX,
    ) -> None:
        """Begin to seal; nothing is counted yet.

        :param limits: of one generation of subkeys: frames, bytes, milliseconds
        """
        super().__init__()
        self._keys = keys
        self._signer = keys.frame_signer
        self._cluster = cluster
        self._incarnation = incarnation
        self._keyring = keyring
        self._limits = limits
        self._routes: dict[bytes, RouteSeal] = {}
        self._seats = 0
        self._control_ctr = 0

    def standing(self, address: Address) -> tuple[int, int]:
        """(generation, next counter) of a route: what a reader after an unclean stop has to know."""
        route = self._routes.get(address.digest)
        return route.standing() if route is not None else (0, 0)

    def _route(self, address: Address) -> RouteSeal:
        """The counts of a route that nothing was sealed on yet."""
        route = RouteSeal(self._pid, address.digest, self._keys.tag, self._incarnation, self._limits)
        self._routes[address.digest] = route
        return route

    def new_seat(self, address: Address, generation: int, at_ms: int) -> None:
        """Give a route its keys as of now, because epochs, keys or generation have changed.

        :raises KeyMissing: if a key is not here
        """
        ring = self._keyring
        vector, from_ms, until_ms = ring.epochs.span(address.tokens, at_ms)
        parts: list[tuple[bytes, bytes, bytes]] = []
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
            parts.append((raw, bound[:4], bound[4:]))
        meta, payload = parts
        if self._seats >= SEATS_MAX:
            self.erase()
        self._seats += 1
        self._routes[address.digest].take_seat(
            ring.revision, generation, from_ms, until_ms, pack_vector(vector), ring.suite, meta, payload
        )

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
        flags = _FLAGS[secrecy] | (Flags.LAST if last else 0)
        if compress:
            meta, flags = _smaller(meta, flags, Flags.ZSTD_META)
            payload, flags = _smaller(payload, flags, Flags.ZSTD_PAYLOAD)
        route = self._routes.get(address.digest) or self._route(address)
        ring = self._keyring
        return route.frame(
            self,
            address,
            self._signer,
            ring.revision,
            flags,
            ring.suite,
            kind,
            count,
            first_seq,
            policy_epoch,
            hlc,
            schema_id,
            meta,
            payload,
        )

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
        raw_key = subkey(key, "h", bytes(32), self._keys.node_pub, self._incarnation, 0, kind)
        cipher = SectionKey(header.suite, raw_key)
        sealed = cipher.seal(header.frame_ctr, body, box_info(raw, subject))
        return raw + sealed + self._keys.sign(SIG_DOMAIN, box_info(raw, subject) + sealed)

    def erase(self) -> None:
        """Forget every subkey."""
        self._seats = 0
        for route in self._routes.values():
            route.erase()

    def __repr__(self) -> str:
        return f"Sealer(REDACTED, signature {SIGNATURE_BYTES} bytes)"

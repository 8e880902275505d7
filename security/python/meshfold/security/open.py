"""Opening: every check a frame has to pass, the cheap ones first, state only changed when all have passed."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from meshfold.core import Address
from meshfold.core.errors import FrameRejected, KeyMissing
from meshfold.core.ports import AccessDecider, Clock
from meshfold.core.registry import Action, FrameKind
from meshfold.security.compress import unpack
from meshfold.security.frame import HEADER_BYTES, SIGNATURE_BYTES, Flags, Header
from meshfold.security.identity import Identity
from meshfold.security.key_tree import wrap_suite
from meshfold.security.keyring import Keyring
from meshfold.security.keys import NodeKeys, verify
from meshfold.security.replay import ReplayGuard
from meshfold.security.seal import SIG_DOMAIN, SUBKEYS_MAX, box_info, nonce, section_aad, signed_bytes, subkey

__all__ = ("Opened", "OpenedControl", "Opener")

SKEW_MS: Final = 60_000
#: Frames of at-most-once routes older than this are refused (SECURITY: replay).
AGE_MS_MAX: Final = 30_000
DIGEST_BYTES: Final = 32


@dataclass(frozen=True, slots=True)
class Opened:
    """A batch whose frame held. `payload` is None in the metadata-only form."""

    header: Header
    sender: Identity
    meta: bytes
    payload: bytes | None


@dataclass(frozen=True, slots=True)
class OpenedControl:
    """A control frame that held."""

    header: Header
    sender: Identity
    body: bytes


class Opener:
    """Opens what this node may read. A refusal is a `FrameRejected` with its reason, counted; nothing else changes."""

    def __init__(
        self,
        keyring: Keyring,
        keys: NodeKeys,
        cluster: bytes,
        directory: Callable[[bytes], Identity | None],
        access: AccessDecider,
        clock: Clock,
    ) -> None:
        self._keyring = keyring
        self._keys = keys
        self._cluster = cluster
        self._directory = directory
        self._access = access
        self._clock = clock
        self._replay = ReplayGuard()
        self._ciphers: dict[tuple[bytes, ...], AESGCM] = {}
        self._rejected: Counter[str] = Counter()

    def counters(self) -> dict[str, int]:
        """Refusals by reason."""
        return dict(self._rejected)

    def fingerprint(self) -> bytes:
        """A digest of everything an accepted frame changes: a refused one leaves it as it is."""
        return self._replay.fingerprint()

    def open_events(
        self, form: Literal["d", "m"], address: Address, frame: bytes, *, allow_plain: bool = False
    ) -> Opened:
        """Open an event frame that came on a subject of class `form` naming `address`.

        :param allow_plain: the route is declared `secrecy="none"` here
        :raises FrameRejected: with the reason of the first check that failed
        :raises KeyMissing: if this node holds no key for the section
        """
        try:
            return self._events(form, address, frame, allow_plain)
        except FrameRejected as error:
            self._rejected[error.reason] += 1
            raise
        except KeyMissing:
            self._rejected["epoch"] += 1
            raise

    def _events(self, form: Literal["d", "m"], address: Address, frame: bytes, allow_plain: bool) -> Opened:
        header = Header.parse(frame)
        if header.kind is not FrameKind.EVENT:
            raise FrameRejected("kind", header.kind.name)
        if not header.flags & Flags.SIG:
            raise FrameRejected("unsigned", "event frames are signed")
        if header.flags & Flags.LAST:
            raise FrameRejected("flags", "last is for chunks")
        plain = not header.flags & Flags.ENC
        if plain and not allow_plain:
            raise FrameRejected("flags", "plaintext on a sealed route")
        if header.address_tag != address.tag:
            raise FrameRejected("route", "a frame of another route")
        sender = self._sender(header)
        decision = self._access.decide(sender.tag, Action.OWN, address)
        if not decision.allowed:
            reason = "revoked" if " is revoked" in decision.because else "role"
            raise FrameRejected(reason, f"{sender.name} does not own {address.short}: {decision.because}")
        self._check_time(header, AGE_MS_MAX)
        if header.first_seq == 0 or header.n_events == 0:
            raise FrameRejected("replay", "sequence number 0")
        meta, rest = self._split(header, form, frame)
        replay = (
            form.encode(),
            address.digest,
            sender.tag,
            header.incarnation,
            header.generation.to_bytes(4, "big"),
        )
        self._replay.check(replay, header.frame_ctr)
        raw = frame[:HEADER_BYTES]
        digest = rest if form == "m" else (hashlib.sha256(rest).digest() if rest else b"")
        verify(
            sender.node_pub,
            SIG_DOMAIN,
            signed_bytes(address.digest, raw, meta, digest),
            frame[-SIGNATURE_BYTES:],
        )
        payload: bytes | None = None
        if not plain:
            meta = self._open_section("m", address, header, raw, sender, meta, header.frame_ctr)
            if form == "d" and rest:
                rest = self._open_section("d", address, header, raw, sender, rest, header.frame_ctr + 1)
        if header.flags & Flags.ZSTD_META:
            meta = unpack(meta)
        if form == "d":
            payload = unpack(rest) if header.flags & Flags.ZSTD_PAYLOAD else rest
        self._replay.commit(replay, header.frame_ctr, sender.tag, header.incarnation, header.hlc >> 16)
        return Opened(header, sender, meta, payload)

    def _sender(self, header: Header) -> Identity:
        sender = self._directory(header.sender_tag)
        if sender is None:
            raise FrameRejected("member", f"unknown sender {header.sender_tag.hex()}")
        return sender

    def _check_time(self, header: Header, age_ms_max: int) -> None:
        now_ms = self._clock.now()[0] // 1_000_000
        at_ms = header.hlc >> 16
        if at_ms > now_ms + SKEW_MS or at_ms == 0:
            raise FrameRejected("clock", f"{at_ms - now_ms} ms ahead")
        if now_ms - at_ms > age_ms_max:
            raise FrameRejected("age", f"{now_ms - at_ms} ms old")
        self._replay.check_incarnation(header.sender_tag, header.incarnation, at_ms)

    @staticmethod
    def _split(header: Header, form: str, frame: bytes) -> tuple[bytes, bytes]:
        """(metadata section, payload section or its digest); all lengths must add up."""
        tail = header.payload_len if form == "d" else (DIGEST_BYTES if header.payload_len else 0)
        expected = HEADER_BYTES + header.meta_len + tail + SIGNATURE_BYTES
        if len(frame) < expected:
            raise FrameRejected("short", f"{len(frame)} of {expected} bytes")
        if len(frame) > expected:
            raise FrameRejected("ext", f"{len(frame) - expected} bytes too many")
        middle = HEADER_BYTES + header.meta_len
        return frame[HEADER_BYTES:middle], frame[middle : middle + tail]

    def _open_section(
        self,
        key_class: str,
        address: Address,
        header: Header,
        raw: bytes,
        sender: Identity,
        sealed: bytes,
        ctr: int,
    ) -> bytes:
        key, kc = self._keyring.key_for(key_class, address)
        generation = header.generation.to_bytes(4, "big")
        slot = (key_class.encode(), kc, sender.node_pub, header.incarnation, generation)
        cipher = self._ciphers.get(slot)
        if cipher is None:
            if len(self._ciphers) >= SUBKEYS_MAX:
                self._ciphers.clear()
            cipher = AESGCM(
                subkey(
                    key,
                    key_class,
                    address.digest,
                    sender.node_pub,
                    header.incarnation,
                    header.generation,
                    header.kind,
                )
            )
        try:
            opened = cipher.decrypt(
                nonce(ctr), sealed, section_aad(key_class, raw, address.digest, sender.node_pub, kc)
            )
        except InvalidTag:
            raise FrameRejected("tag", f"section {key_class}") from None
        self._ciphers[slot] = cipher
        return opened

    def open_box(self, frame: bytes, subject: str) -> OpenedControl:
        """Open a box sealed to this node and bound to `subject`.

        :raises FrameRejected: with the reason of the first check that failed
        """
        return self._control(frame, subject, boxed=True)

    def open_members(self, frame: bytes, subject: str) -> OpenedControl:
        """Open a frame under the members' key bound to `subject`.

        :raises FrameRejected: with the reason of the first check that failed
        :raises KeyMissing: before the members' key has arrived
        """
        return self._control(frame, subject, boxed=False)

    def _control(self, frame: bytes, subject: str, *, boxed: bool) -> OpenedControl:
        try:
            header = Header.parse(frame)
            if header.flags != Flags.ENC | Flags.SIG:
                raise FrameRejected("flags", "control frames are sealed and signed")
            if len(frame) != HEADER_BYTES + header.meta_len + SIGNATURE_BYTES:
                raise FrameRejected("short", "length of a control frame")
            if boxed and header.address_tag != self._keys.tag:
                raise FrameRejected("address", "a box for another node")
            sender = self._sender(header)
            self._check_time(header, AGE_MS_MAX)
            replay = (b"c", sender.tag, header.incarnation)
            self._replay.check(replay, header.frame_ctr)
            raw, sealed = frame[:HEADER_BYTES], frame[HEADER_BYTES:-SIGNATURE_BYTES]
            info = box_info(raw, subject)
            verify(sender.node_pub, SIG_DOMAIN, info + sealed, frame[-SIGNATURE_BYTES:])
            body = self._unbox(sealed, info) if boxed else self._unseal(sealed, info, header, sender)
        except FrameRejected as error:
            self._rejected[error.reason] += 1
            raise
        self._replay.commit(replay, header.frame_ctr, sender.tag, header.incarnation, header.hlc >> 16)
        return OpenedControl(header, sender, body)

    def _unbox(self, sealed: bytes, info: bytes) -> bytes:
        try:
            return wrap_suite().decrypt(sealed, self._keys.wrap_private, info=info + self._cluster)
        except (InvalidTag, ValueError):
            raise FrameRejected("unwrap", "box") from None

    def _unseal(self, sealed: bytes, info: bytes, header: Header, sender: Identity) -> bytes:
        key = subkey(
            self._keyring.members_key, "h", bytes(32), sender.node_pub, header.incarnation, 0, header.kind
        )
        try:
            return AESGCM(key).decrypt(nonce(header.frame_ctr), sealed, info)
        except InvalidTag:
            raise FrameRejected("tag", "members' frame") from None

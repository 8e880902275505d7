"""Opening: every check a frame has to pass, the cheap ones first, state only changed when all have passed."""

from __future__ import annotations

import contextlib
import hashlib
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from cryptography.exceptions import InvalidTag
from meshfold._native import SectionKey
from meshfold.core import Address
from meshfold.core.errors import FrameRejected, KeyMissing
from meshfold.core.ports import AccessDecider, Clock, Decision
from meshfold.core.registry import Action, FrameKind
from meshfold.security.budget import Budgets
from meshfold.security.chunks import Chunk, Reassembly
from meshfold.security.compress import unpack
from meshfold.security.epochs import ZERO, unpack_vector
from meshfold.security.fork import Guarded
from meshfold.security.frame import HEADER_BYTES, SIGNATURE_BYTES, Flags, Header
from meshfold.security.identity import Identity
from meshfold.security.key_tree import wrap_suite
from meshfold.security.keyring import Keyring
from meshfold.security.keys import NodeKeys, verify
from meshfold.security.policy_keeper import PolicyKeeper
from meshfold.security.replay import ReplayGuard
from meshfold.security.seal import SIG_DOMAIN, box_info, section_aad, signed_bytes, subkey
from meshfold.security.starts import StartBook

__all__ = ("Opened", "OpenedControl", "Opener")

SKEW_MS: Final = 60_000
#: The last number an event can have is one below.
SEQ_MAX: Final = 2**64 - 1
#: Lives whose counter checkpoints are remembered, for what they sent before they were revoked.
CHECKPOINTS_MAX: Final = 4096
#: Frames of at-most-once routes older than this are refused (SECURITY: replay).
AGE_MS_MAX: Final = 30_000
DIGEST_BYTES: Final = 32
#: Subkeys of others that are kept ready.
SUBKEYS_MAX: Final = 16_384


@dataclass(frozen=True, slots=True)
class Opened:
    """A batch whose frame held. `payload` is None in the metadata-only form.

    `partial` marks a chunk after which others still lack: it holds, and brings nothing yet.
    """

    header: Header
    sender: Identity
    meta: bytes
    payload: bytes | None
    partial: bool = False


@dataclass(frozen=True, slots=True)
class OpenedControl:
    """A control frame that held."""

    header: Header
    sender: Identity
    body: bytes


class Opener(Guarded):
    """Opens what this node may read. A refusal is a `FrameRejected` with its reason, counted; nothing else changes."""

    def __init__(
        self,
        keyring: Keyring,
        keys: NodeKeys,
        cluster: bytes,
        directory: Callable[[bytes], Identity | None],
        access: AccessDecider,
        clock: Clock,
        keeper: PolicyKeeper | None = None,
    ) -> None:
        super().__init__()
        self._keyring = keyring
        self._keys = keys
        self._cluster = cluster
        self._directory = directory
        self._access = access
        self._clock = clock
        self._keeper = keeper
        self._ciphers: dict[tuple[bytes, ...], SectionKey] = {}
        self._rejected: Counter[str] = Counter()
        self._budgets = Budgets()
        #: (sender, life) -> by route digest, (generation, counter) below which it had sent when it was last entitled
        self._covered: OrderedDict[tuple[bytes, bytes], dict[bytes, tuple[int, int]]] = OrderedDict()
        #: boxes stamped before this are refused: an unclean stop forgot which were seen
        self._boxes_from = 0
        self.replay = ReplayGuard()
        #: what is put together of chunks: live ones, and those of recordings
        self.chunks, self._old_chunks = Reassembly(), Reassembly()
        self.starts = StartBook()

    def restore_windows(self, saved: bytes | None, hlc: int) -> None:
        """Take up the replay windows of an earlier life, before the first frame; `hlc` is this life's start."""
        self.replay.restore(saved)
        if self.replay.guarded:
            self._boxes_from = hlc

    def checkpoint(
        self, sender: bytes, incarnation: bytes, floors: Mapping[Address, tuple[int, int]]
    ) -> None:
        """Take a producer's word on how far it got on its routes; where it may not own one any more, it no longer counts.

        What it sent before that word is still taken: a revocation loses nothing that was under way, and a revoked
        producer cannot make more of it.

        :param floors: (generation, next counter) of each route
        """
        held = self._covered.pop((sender, incarnation), {})
        for address, floor in floors.items():
            if self._access.decide(sender, Action.OWN, address).allowed:
                held[address.digest] = floor
        self._covered[sender, incarnation] = held
        if len(self._covered) > CHECKPOINTS_MAX:
            self._covered.popitem(last=False)

    def _was_covered(self, header: Header, address: Address) -> bool:
        """Whether a checkpoint from before its sender's revocation covers a frame."""
        floors = self._covered.get((header.sender_tag, header.incarnation), {})
        return (header.generation, header.frame_ctr) < floors.get(address.digest, (0, 0))

    def counters(self) -> dict[str, int]:
        """Refusals by reason."""
        return dict(self._rejected)

    def fingerprint(self) -> bytes:
        """A digest of everything an accepted frame changes: a refused one leaves it as it is."""
        return self.replay.fingerprint() + self.chunks.fingerprint()

    def open_events(
        self,
        form: Literal["d", "m"],
        address: Address,
        frame: bytes,
        *,
        allow_plain: bool = False,
        allow_unsigned: bool = False,
    ) -> Opened:
        """Open an event frame that came on a subject of class `form` naming `address`.

        :param allow_plain: the route is declared `secrecy="none"` here
        :param allow_unsigned: the route is declared `secrecy="group"` here
        :raises FrameRejected: with the reason of the first check that failed
        :raises KeyMissing: if this node holds no key for the section. Where it is entitled to one of another epoch,
            `because` is `epoch`, and nothing is counted: the frame holds otherwise, and may be given again
        """
        try:
            return self._events(form, address, frame, allow_plain, allow_unsigned)
        except FrameRejected as error:
            self._rejected[error.reason] += 1
            if error.fields.get("ended"):
                header = Header.parse(frame)
                with contextlib.suppress(FrameRejected):
                    meta, rest, signature = self._split(header, form, frame)
                    digest = rest if form == "m" else (hashlib.sha256(rest).digest() if rest else b"")
                    said = signed_bytes(address.digest, frame[:HEADER_BYTES], meta, digest)
                    self._notice_clone(header, said, signature)
            raise
        except KeyMissing as error:
            if error.because != "epoch":
                self._rejected["epoch"] += 1
            raise

    def open_recorded(
        self,
        form: Literal["d", "m"],
        address: Address,
        frame: bytes,
        *,
        allow_plain: bool = False,
        allow_unsigned: bool = False,
    ) -> Opened:
        """Open an event frame that was kept: every check that does not depend on when it comes, and no replay window.

        Whoever calls this has made sure of REPLAY_READ; the keys are those that its grant brought (`Keyring`).

        :raises FrameRejected: with the reason of the first check that failed; `epoch` if no key for it is here
        """
        try:
            return self._recorded(form, address, frame, allow_plain, allow_unsigned)
        except FrameRejected as error:
            self._rejected[error.reason] += 1
            raise
        except KeyMissing as error:
            self._rejected["epoch"] += 1
            raise FrameRejected("epoch", error.what) from None

    def _recorded(
        self, form: Literal["d", "m"], address: Address, frame: bytes, plain_ok: bool, unsigned_ok: bool
    ) -> Opened:
        header, sender, _ = self._owner(address, frame, plain_ok, unsigned_ok)
        if header.suite != self._keyring.suite:
            raise FrameRejected("suite", f"the mesh seals with suite {self._keyring.suite}")
        if not header.flags & Flags.ENC and unpack_vector(header.key_epochs) != ZERO:
            raise FrameRejected("epoch", "epochs of a frame without a key")
        meta, rest, signature = self._split(header, form, frame)
        self._check_signature(address, sender, form, frame, meta, rest, signature)
        meta, payload = self._sections(
            form, address, header, frame, sender, (meta, rest), self._keyring.recorded_key
        )
        return self._whole(self._old_chunks, address, header, sender, meta, payload)

    @staticmethod
    def _whole(
        chunks: Reassembly,
        address: Address,
        header: Header,
        sender: Identity,
        meta: bytes,
        payload: bytes | None,
    ) -> Opened:
        """The batch of a frame; of a chunk the whole once it is there."""
        if header.kind is not FrameKind.CHUNK or payload is None:
            return Opened(header, sender, meta, payload)
        key = address.digest, sender.tag, header.incarnation, header.first_seq
        found = chunks.add(key, Chunk(meta, payload, bool(header.flags & Flags.LAST)))
        return Opened(header, sender, *found) if found else Opened(header, sender, b"", None, partial=True)

    def _owner(
        self, address: Address, frame: bytes, plain_ok: bool, unsigned_ok: bool
    ) -> tuple[Header, Identity, Decision]:
        """The header of an event frame of a route, and who may have sent it."""
        header = Header.parse(frame)
        if header.kind not in (FrameKind.EVENT, FrameKind.CHUNK):
            raise FrameRejected("kind", header.kind.name)
        self._check_flags(header, plain_ok, unsigned_ok)
        if header.address_tag != address.tag:
            raise FrameRejected("route", "a frame of another route")
        sender = self._sender(header)
        decision = self._access.decide(sender.tag, Action.OWN, address)
        if not decision.allowed:
            reason = "revoked" if " is revoked" in decision.because else "role"
            if reason == "role" or not self._was_covered(header, address):
                raise FrameRejected(reason, f"{sender.name} does not own {address.short}: {decision.because}")
        if header.first_seq == 0 or header.n_events == 0:
            raise FrameRejected("replay", "sequence number 0")
        if header.first_seq + header.n_events > SEQ_MAX:
            raise FrameRejected("limit", "sequence number beyond the last")
        return header, sender, decision

    @staticmethod
    def _check_signature(
        address: Address,
        sender: Identity,
        form: str,
        frame: bytes,
        meta: bytes,
        rest: bytes,
        signature: bytes,
    ) -> None:
        if signature:
            digest = rest if form == "m" else (hashlib.sha256(rest).digest() if rest else b"")
            said = signed_bytes(address.digest, frame[:HEADER_BYTES], meta, digest)
            verify(sender.node_pub, SIG_DOMAIN, said, signature)

    def _sections(
        self,
        form: str,
        address: Address,
        header: Header,
        frame: bytes,
        sender: Identity,
        sealed: tuple[bytes, bytes],
        key_of: Callable[[str, Address, tuple[int, ...]], tuple[bytes, bytes]],
    ) -> tuple[bytes, bytes | None]:
        """Both sections opened and decompressed; no payload in the metadata-only form."""
        meta, rest = sealed
        if header.flags & Flags.ENC:
            raw, ctr = frame[:HEADER_BYTES], header.frame_ctr
            meta = self._open_section("m", address, header, raw, sender, meta, ctr, key_of)
            if form == "d" and rest:
                rest = self._open_section("d", address, header, raw, sender, rest, ctr + 1, key_of)
        if header.flags & Flags.ZSTD_META:
            meta = unpack(meta)
        if form != "d":
            return meta, None
        return meta, unpack(rest) if header.flags & Flags.ZSTD_PAYLOAD else rest

    def _events(
        self, form: Literal["d", "m"], address: Address, frame: bytes, plain_ok: bool, unsigned_ok: bool
    ) -> Opened:
        header, sender, decision = self._owner(address, frame, plain_ok, unsigned_ok)
        self._check_time(header, AGE_MS_MAX)
        if self._keeper is not None:
            self._keeper.check_sender(header.policy_epoch, self._clock.now()[1] // 1_000_000)
        standing = self._judge(header, address)
        meta, rest, signature = self._split(header, form, frame)
        generation = header.generation.to_bytes(4, "big")
        replay = (form.encode(), address.digest, sender.tag, header.incarnation, generation)
        self.replay.check(replay, header.frame_ctr, header.first_seq)
        self._check_signature(address, sender, form, frame, meta, rest, signature)
        if standing == "next":
            raise KeyMissing(f"{address.short} goes on under its next epoch", because="epoch")
        meta, payload = self._sections(
            form, address, header, frame, sender, (meta, rest), self._keyring.key_at
        )
        if decision.limits:
            events = header.n_events if header.kind is FrameKind.EVENT or header.flags & Flags.LAST else 0
            now_ns = self._clock.now()[1]
            self._budgets.spend(decision, events=events, size_bytes=len(frame), now_ns=now_ns)
        opened = self._whole(self.chunks, address, header, sender, meta, payload)
        self.replay.commit(replay, header.frame_ctr, header.first_seq + header.n_events - 1)
        return opened

    @staticmethod
    def _check_flags(header: Header, plain_ok: bool, unsigned_ok: bool) -> None:
        plain = not header.flags & Flags.ENC
        if not header.flags & Flags.SIG and (plain or not unsigned_ok):
            raise FrameRejected("unsigned", "event frames are signed")
        if header.flags & Flags.LAST and header.kind is not FrameKind.CHUNK:
            raise FrameRejected("flags", "last is for chunks")
        if plain and not plain_ok:
            raise FrameRejected("flags", "plaintext on a sealed route")

    def _judge(self, header: Header, address: Address) -> Literal["known", "next"]:
        """Whether the epochs a frame names are in force here, or will be.

        :raises FrameRejected: with reason `epoch` if they never were, or no longer are; `suite` if it is not the mesh's
        """
        if header.suite != self._keyring.suite:
            raise FrameRejected("suite", f"the mesh seals with suite {self._keyring.suite}")
        vector = unpack_vector(header.key_epochs)
        if not header.flags & Flags.ENC:
            if vector != ZERO:
                raise FrameRejected("epoch", "epochs of a frame without a key")
            return "known"
        now_ms = self._clock.now()[0] // 1_000_000
        judged = self._keyring.epochs.judge(address.tokens, vector, header.hlc >> 16, now_ms)
        if judged == "no":
            raise FrameRejected("epoch", f"epochs {vector} of {address.short}")
        return judged

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
        self.starts.check(header.sender_tag, header.incarnation, header.hlc, now_ms)

    @staticmethod
    def _split(header: Header, form: str, frame: bytes) -> tuple[bytes, bytes, bytes]:
        """(metadata section, payload section or its digest, signature or nothing); all lengths must add up."""
        if header.kind is FrameKind.CHUNK and form != "d":
            raise FrameRejected("kind", "a chunk on the metadata subject")
        tail = header.payload_len if form == "d" else (DIGEST_BYTES if header.payload_len else 0)
        signed = SIGNATURE_BYTES if header.flags & Flags.SIG else 0
        expected = HEADER_BYTES + header.meta_len + tail + signed
        if len(frame) < expected:
            raise FrameRejected("short", f"{len(frame)} of {expected} bytes")
        if len(frame) > expected:
            raise FrameRejected("ext", f"{len(frame) - expected} bytes too many")
        middle = HEADER_BYTES + header.meta_len
        return frame[HEADER_BYTES:middle], frame[middle : middle + tail], frame[middle + tail :]

    def _open_section(
        self,
        key_class: str,
        address: Address,
        header: Header,
        raw: bytes,
        sender: Identity,
        sealed: bytes,
        ctr: int,
        key_of: Callable[[str, Address, tuple[int, ...]], tuple[bytes, bytes]],
    ) -> bytes:
        key, kc = key_of(key_class, address, unpack_vector(header.key_epochs))
        generation = header.generation.to_bytes(4, "big")
        slot = (
            key_class.encode(),
            kc,
            sender.node_pub,
            header.incarnation,
            generation,
            bytes([header.suite]),
        )
        cipher = self._ciphers.get(slot)
        if cipher is None:
            if len(self._ciphers) >= SUBKEYS_MAX:
                self._ciphers.clear()
            cipher = SectionKey(
                header.suite,
                subkey(
                    key,
                    key_class,
                    address.digest,
                    sender.node_pub,
                    header.incarnation,
                    header.generation,
                    FrameKind.EVENT,
                ),
            )
        bound = section_aad(key_class, raw, address.digest, sender.node_pub, kc)
        opened = cipher.open(ctr, sealed, bound)
        if opened is None:
            raise FrameRejected("tag", f"section {key_class}")
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
            self._check_control(header, boxed)
            replay = (b"c", sender.tag, header.incarnation)
            self.replay.check(replay, header.frame_ctr)
            raw, sealed = frame[:HEADER_BYTES], frame[HEADER_BYTES:-SIGNATURE_BYTES]
            info = box_info(raw, subject)
            verify(sender.node_pub, SIG_DOMAIN, info + sealed, frame[-SIGNATURE_BYTES:])
            body = self._unbox(sealed, info) if boxed else self._unseal(sealed, info, header, sender)
        except FrameRejected as error:
            self._rejected[error.reason] += 1
            if error.fields.get("ended"):
                said = box_info(frame[:HEADER_BYTES], subject) + frame[HEADER_BYTES:-SIGNATURE_BYTES]
                self._notice_clone(Header.parse(frame), said, frame[-SIGNATURE_BYTES:])
            raise
        self.replay.commit(replay, header.frame_ctr)
        return OpenedControl(header, sender, body)

    def _notice_clone(self, header: Header, said: bytes, signature: bytes) -> None:
        """A life that has ended speaks: under a signature that holds, two copies of its keys are about."""
        with contextlib.suppress(FrameRejected):
            verify(self._sender(header).node_pub, SIG_DOMAIN, said, signature)
            self.starts.spoke(header.sender_tag, header.incarnation, header.hlc)

    def _check_control(self, header: Header, boxed: bool) -> None:
        if header.suite != self._keyring.suite:
            raise FrameRejected("suite", f"the mesh seals with suite {self._keyring.suite}")
        if unpack_vector(header.key_epochs)[boxed ^ 1 :] != ZERO[boxed ^ 1 :]:
            raise FrameRejected("epoch", "epochs of a control frame")
        self._check_time(header, AGE_MS_MAX)
        if boxed and header.hlc < self._boxes_from:
            raise FrameRejected("age", "stamped before this node began again after an unclean stop")

    def _unbox(self, sealed: bytes, info: bytes) -> bytes:
        for private in self._keys.wrap_privates:
            try:
                return wrap_suite().decrypt(sealed, private, info=info + self._cluster)
            except (InvalidTag, ValueError):
                continue
        raise FrameRejected("unwrap", "box")

    def _unseal(self, sealed: bytes, info: bytes, header: Header, sender: Identity) -> bytes:
        members = self._keyring.members_at(unpack_vector(header.key_epochs)[0])
        key = subkey(members, "h", bytes(32), sender.node_pub, header.incarnation, 0, header.kind)
        opened = SectionKey(header.suite, key).open(header.frame_ctr, sealed, info)
        if opened is None:
            raise FrameRejected("tag", "members' frame")
        return opened

    def erase(self) -> None:
        """Forget every subkey."""
        self._ciphers.clear()

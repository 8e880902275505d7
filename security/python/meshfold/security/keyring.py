"""The node's side of the key tree: installs key packets, derives the key of a route under a vector of epochs.

Invariants: a key enters only with a voter's signature and a matching commitment; two keys for one place are refused;
there is no trial decryption: the vector in a frame names its key. Derived keys are cached up to a bound.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from meshfold.core import Address
from meshfold.core.errors import FrameRejected, KeyMissing
from meshfold.security.codec import Reader
from meshfold.security.epochs import DEPTH, OUTSIDE, OVERLAP_MS, Epochs, Vector
from meshfold.security.fork import Guarded
from meshfold.security.identity import Identity
from meshfold.security.key_store import CLASSES
from meshfold.security.key_tree import PACKET_DOMAIN, Slot, commitment, derive, wrap_suite
from meshfold.security.keys import NodeKeys, verify

__all__ = ("Keyring",)

PACKET_BYTES_MAX: Final = 768 * 1024
CACHE_MAX: Final = 16_384
#: Keys of nodes that are kept: several epochs of everything a node is granted.
SLOTS_MAX: Final = 65_536
MEMBERS_MAX: Final = 4
_NAMES: Final = {"m": "metadata", "d": "payload", "x": "debug"}
_Members = list[tuple[int, int, bytes]]


class Keyring(Guarded):
    """Keys this node may use. Prints as REDACTED."""

    def __init__(self, keys: NodeKeys, identity: Identity) -> None:
        super().__init__()
        self._keys = keys
        self._identity = identity
        self._slots: dict[Slot, bytes] = {}
        #: keys of earlier epochs, for what was recorded: live frames are never opened with them
        self._past: dict[Slot, bytes] = {}
        self._cache: dict[tuple[str, str, Vector], tuple[bytes, bytes]] = {}
        self._members: _Members = []
        self._epochs = Epochs()
        self.suite = 1
        #: rises whenever a key was erased or the epochs changed: what was derived from them is made anew
        self.revision = 0

    @property
    def epochs(self) -> Epochs:
        """The epochs that the voters announced."""
        return self._epochs

    def set_epochs(self, epochs: Epochs, suite: int, now_ms: int) -> None:
        """Take what a newer policy says; keys whose overlap has ended are erased.

        :raises FrameRejected: with reason `commit` if a key held is not the one the voters committed to
        """
        for one in epochs.raises:
            if one.shredded:
                self.forget(one.path, one.vector)
                continue
            for key_class, kc in zip(CLASSES, one.kc, strict=True):
                held = self._slots.get((key_class, one.path, one.vector))
                if held is not None and commitment(key_class, one.path, one.vector, held) != kc:
                    raise FrameRejected("commit", f"key of {'.'.join(one.path) or '>'}")
        self._epochs = epochs
        self.suite = suite
        self.revision += 1
        self._prune(now_ms)

    def _prune(self, now_ms: int) -> None:
        for slot in list(self._slots):
            _, tokens, vector = slot
            line = self._epochs.timeline(tokens)
            for place, (_, known) in enumerate(line[:-1]):
                if known == vector and line[place + 1][0] + 2 * OVERLAP_MS < now_ms:
                    del self._slots[slot]
        self._cache.clear()

    def install(self, packet: bytes, voters: Mapping[bytes, Identity]) -> int:
        """Open a key packet and keep its keys; returns how many.

        :raises FrameRejected: with reason `size`, `member`, `sig`, `unwrap`, `commit`, `limit` or `format`; nothing
            changed then
        """
        self.check_fork()
        if len(packet) > PACKET_BYTES_MAX:
            raise FrameRejected("size", "key packet")
        reader = Reader(packet)
        voter_tag, grantee_tag, _, size = reader.unpack(">8s8sQI")
        box = reader.take(size)
        signature = reader.take(64)
        reader.end()
        voter = voters.get(voter_tag)
        if voter is None:
            raise FrameRejected("member", "a key packet from no voter")
        verify(voter.node_pub, PACKET_DOMAIN, packet[:-64], signature)
        if grantee_tag != self._identity.tag:
            raise FrameRejected("unwrap", "a key packet for another node")
        info = PACKET_DOMAIN + self._identity.cluster + packet[:24]
        members, everything = _read_body(_unwrap(box, self._keys.wrap_privates, info))
        at_ms = int.from_bytes(packet[16:24], "big") >> 16
        past = {
            slot: key for slot, key in everything.items() if slot[2] < self._epochs.vector(slot[1], at_ms)
        }
        slots = {slot: key for slot, key in everything.items() if slot not in past}
        self._check(slots)
        known = {epoch: (epoch, activate_ms, key) for epoch, activate_ms, key in (*self._members, *members)}
        self._members = sorted(known.values())[-MEMBERS_MAX:]
        self._slots.update(slots)
        # A packet says all that its grantee may have of the past: what it leaves out was taken back.
        self._past = past
        self._cache.clear()
        return len(everything)

    def _check(self, slots: dict[Slot, bytes]) -> None:
        """One key for each place: the one held, and the one a majority of the voters committed to."""
        raised = {(one.path, one.vector): one.kc for one in self._epochs.raises}
        for (key_class, tokens, vector), key in slots.items():
            held = self._slots.get((key_class, tokens, vector))
            if held is not None and held != key:
                raise FrameRejected("commit", f"a second key of {'.'.join(tokens) or '>'}")
            kc = raised.get((tokens, vector))
            if kc is not None and commitment(key_class, tokens, vector, key) != kc[CLASSES.index(key_class)]:
                raise FrameRejected("commit", f"another key of {'.'.join(tokens) or '>'} than the voters'")
        if len(self._slots.keys() | slots.keys()) > SLOTS_MAX:
            raise FrameRejected("limit", "too many keys")

    def key_for(self, key_class: str, address: Address, at_ms: int = 0) -> tuple[bytes, bytes, Vector]:
        """Return (key, commitment, vector) that a sender seals under at a time.

        :raises KeyMissing: if no installed key leads there
        """
        vector = self._epochs.vector(address.tokens, at_ms)
        return (*self.key_at(key_class, address, vector), vector)

    def key_at(self, key_class: str, address: Address, vector: Vector) -> tuple[bytes, bytes]:
        """Return (key, commitment) of a route's class under the epochs that a frame names.

        :raises KeyMissing: if no installed key leads there; `because` is `epoch` where another epoch's would
        """
        cached = self._cache.get((key_class, address.text, vector))
        if cached is not None:
            return cached
        self.check_fork()
        tokens = address.tokens
        for depth in range(DEPTH, -1, -1):
            key = self._slots.get((key_class, tokens[:depth], vector[: depth + 1]))
            if key is None or (vector[0] == OUTSIDE and depth < DEPTH):
                continue
            key = derive(key, key_class, tokens[:depth], tokens, vector)
            found = key, commitment(key_class, tokens, vector, key)
            if len(self._cache) >= CACHE_MAX:
                self._cache.clear()
            self._cache[key_class, address.text, vector] = found
            return found
        entitled = self._entitled(key_class, tokens)
        raise KeyMissing(
            f"no {_NAMES[key_class]} key of {address.short} in its epoch {vector} is on this node"
            if entitled
            else f"no {_NAMES[key_class]} key of {address.short} is on this node",
            fix="a voter sends keys for grants; check `meshfold grant explain`",
            route=address.short,
            key_class=key_class,
            because="epoch" if entitled else "grant",
        )

    def recorded_key(self, key_class: str, address: Address, vector: Vector) -> tuple[bytes, bytes]:
        """Return (key, commitment) for a recorded frame: of an earlier epoch where a grant opens it, or the present one.

        :raises KeyMissing: if no key leads there
        """
        self.check_fork()
        tokens = address.tokens
        for depth in range(DEPTH, -1, -1):
            slot = key_class, tokens[:depth], vector[: depth + 1]
            key = self._past.get(slot) or self._slots.get(slot)
            if key is not None and (vector[0] != OUTSIDE or depth == DEPTH):
                key = derive(key, key_class, tokens[:depth], tokens, vector)
                return key, commitment(key_class, tokens, vector, key)
        raise KeyMissing(
            f"no {_NAMES[key_class]} key of {address.short} in its epoch {vector} is on this node",
            fix="a grant with REPLAY_READ names the policy epochs whose keys it brings",
            route=address.short,
            key_class=key_class,
            because="grant",
        )

    def forget_past(self) -> None:
        """Erase the keys of earlier epochs: the grant that brought them is gone."""
        self._past.clear()

    def _entitled(self, key_class: str, tokens: tuple[str, ...]) -> bool:
        """Whether a key of any epoch is held on the way to a route."""
        return any(one == key_class and tokens[: len(path)] == path for one, path, _ in self._slots)

    def forget(self, tokens: tuple[str, ...], vector: Vector) -> int:
        """Erase the keys of one place; returns how many there were."""
        gone = [slot for slot in self._slots if slot[1:] == (tokens, vector)]
        for slot in gone:
            del self._slots[slot]
        for slot in [slot for slot in self._past if slot[1:] == (tokens, vector)]:
            del self._past[slot]
        self._cache.clear()
        self.revision += 1
        return len(gone)

    def held(self) -> list[tuple[str, tuple[str, ...], Vector]]:
        """Class, node and vector of every key held: nothing secret."""
        return sorted(self._slots)

    def held_of_the_past(self) -> list[tuple[str, tuple[str, ...], Vector]]:
        """The same of earlier epochs."""
        return sorted(self._past)

    def members_for(self, at_ms: int) -> tuple[int, bytes]:
        """(epoch, key) of what heartbeats, credit and acks are sealed under at a time.

        :raises KeyMissing: before a packet was installed
        """
        self.check_fork()
        for epoch, activate_ms, key in reversed(self._members):
            if activate_ms <= at_ms:
                return epoch, key
        raise KeyMissing(
            "no members' key yet", fix="a voter sends it with the first grant", key_class="members"
        )

    def members_at(self, epoch: int) -> bytes:
        """The members' key of an epoch.

        :raises KeyMissing: if it is not here
        """
        self.check_fork()
        for known, _, key in self._members:
            if known == epoch:
                return key
        raise KeyMissing(f"no members' key of epoch {epoch}", key_class="members", because="epoch")

    def erase(self) -> None:
        """Forget every key."""
        self.revision += 1
        self._slots.clear()
        self._past.clear()
        self._cache.clear()
        self._members.clear()

    def __repr__(self) -> str:
        return "Keyring(REDACTED)"


def _unwrap(box: bytes, privates: tuple[X25519PrivateKey, ...], info: bytes) -> bytes:
    for private in privates:
        try:
            return wrap_suite().decrypt(box, private, info=info)
        except (InvalidTag, ValueError):
            continue
    raise FrameRejected("unwrap", "key packet")


def _read_body(body: bytes) -> tuple[_Members, dict[Slot, bytes]]:
    reader = Reader(body)
    (count,) = reader.unpack(">B")
    if not 0 < count <= MEMBERS_MAX:
        raise FrameRejected("format", "members' keys")
    members: _Members = [(*reader.unpack(">HQ"), reader.take(32)) for _ in range(count)]
    (count,) = reader.unpack(">H")
    slots: dict[Slot, bytes] = {}
    for _ in range(count):
        key_class = reader.take(1).decode("ascii", "replace")
        (n_tokens,) = reader.unpack(">B")
        if key_class not in CLASSES or n_tokens > DEPTH:
            raise FrameRejected("format", "key packet entry")
        tokens = tuple(reader.text() for _ in range(n_tokens))
        vector: Vector = struct.unpack(f">{n_tokens + 1}H", reader.take(2 * (n_tokens + 1)))
        kc, key = reader.take(32), reader.take(32)
        if commitment(key_class, tokens, vector, key) != kc:
            raise FrameRejected("commit", ".".join(tokens))
        if (key_class, tokens, vector) in slots:
            raise FrameRejected("format", "an entry twice")
        slots[key_class, tokens, vector] = key
    reader.end()
    return members, slots

"""The key tree: one random root per class, every other key derived along the address (SECURITY: key tree).

    K(child) = HKDF-SHA256(K(parent), info = "MF1 key" || class || path || epoch of the child)

A grant for a prefix gets that prefix's key, so there is one wrap per grantee, however many routes. `path` is
length-prefixed tokens. Epochs stand in one vector along the path (`meshfold.security.epochs`).
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from typing import Final

from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from meshfold.core.registry import Action
from meshfold.security.capability import pattern_covers
from meshfold.security.epochs import DEPTH, OUTSIDE, Epochs, Raise, Vector
from meshfold.security.grant import Grant
from meshfold.security.identity import Identity
from meshfold.security.key_store import CLASSES, KeyStore
from meshfold.security.keys import NodeKeys
from meshfold.security.past_keys import past_slots

__all__ = ("CLASSES", "KeyTree", "child_key", "commitment", "derive", "encode_path", "wrap_suite")

PACKET_DOMAIN: Final = b"MF1 keys"

_ACTION_CLASSES: Final = {
    Action.META_READ: ("m",),
    Action.PAYLOAD_OPEN: ("d",),
    Action.DEBUG_READ: ("x",),
    Action.OWN: ("m", "d", "x"),
}
#: Actions that come with keys: revoking one of them rotates the node of its pattern.
KEYED: Final = Action.META_READ | Action.PAYLOAD_OPEN | Action.DEBUG_READ | Action.OWN
Slot = tuple[str, tuple[str, ...], Vector]


def wrap_suite() -> hpke.Suite:
    """HPKE (RFC 9180) with X25519, HKDF-SHA256 and ChaCha20-Poly1305."""
    return hpke.Suite(hpke.KEM.X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305)


def encode_path(tokens: Sequence[str]) -> bytes:
    """Length-prefixed tokens: no two paths have one encoding."""
    return b"".join(bytes([len(token)]) + token.encode() for token in tokens)


def child_key(parent: bytes, key_class: str, tokens: Sequence[str], epoch: int) -> bytes:
    """The key of the node at `tokens` from its parent's."""
    info = b"MF1 key" + key_class.encode() + encode_path(tokens) + struct.pack(">H", epoch)
    return HKDF(SHA256(), 32, None, info).derive(parent)


def derive(
    key: bytes, key_class: str, have: Sequence[str], want: Sequence[str], epochs: Sequence[int]
) -> bytes:
    """Go down from the key of the node at `have` to the one at `want`; `epochs` is the vector root, then tokens."""
    for depth in range(len(have), len(want)):
        key = child_key(key, key_class, want[: depth + 1], epochs[depth + 1])
    return key


def commitment(key_class: str, tokens: Sequence[str], epochs: Sequence[int], key: bytes) -> bytes:
    """kc: binds a key to its place, so that no second key opens the same frame."""
    vector = struct.pack(f">{len(epochs)}H", *epochs)
    return hashlib.sha256(b"MF1 commit" + key_class.encode() + encode_path(tokens) + vector + key).digest()


def path_of(pattern: str) -> tuple[str, ...]:
    """The node of the tree that a grant pattern names."""
    return tuple(token for token in pattern.split(".") if token != ">")


class KeyTree:
    """The voter's side: derives keys from the roots in a store, and packs them for grantees. Prints as REDACTED."""

    def __init__(self, cluster: bytes, store: KeyStore) -> None:
        self._cluster = cluster
        self.store = store
        #: HPKE wraps made: one for each packet, whatever it holds
        self.wraps = 0

    @classmethod
    def generate(cls, cluster: bytes) -> KeyTree:
        """Draw fresh roots, kept in memory."""
        return cls(cluster, KeyStore.generate())

    def key(self, key_class: str, tokens: Sequence[str], vector: Vector) -> bytes:
        """The key of a node of the tree under a vector of epochs.

        :raises KeyMissing: if the root of that epoch is gone
        """
        return derive(self.store.root(key_class, vector[0]), key_class, (), tokens, vector)

    def commitments(self, tokens: Sequence[str], vector: Vector) -> tuple[bytes, ...]:
        """kc of a node for each class, as a `Raise` records them."""
        return tuple(commitment(one, tokens, vector, self.key(one, tokens, vector)) for one in CLASSES)

    def outside_commitments(self, tokens: tuple[str, ...], vector: Vector) -> tuple[bytes, ...]:
        """The same for a route outside the tree.

        :raises KeyMissing: if its keys were shredded
        """
        return tuple(
            commitment(one, tokens, vector, self.store.outside(one, tokens, vector[-1])) for one in CLASSES
        )

    def entries(self, grants: Iterable[Grant], epochs: Epochs, now_ms: int) -> dict[Slot, bytes]:
        """Every key that grants entitle to: of the epochs that are in force, announced, or in their overlap."""
        found: dict[Slot, bytes] = {}
        for grant in grants:
            for capability in grant.capabilities:
                if not capability.actions & KEYED:
                    continue
                classes = {
                    key_class
                    for action, held in _ACTION_CLASSES.items()
                    if capability.actions & action
                    for key_class in held
                }
                path = path_of(capability.pattern)
                current = epochs.vector(path, now_ms)
                if len(path) < DEPTH or not epochs.outside(path):
                    for from_ms, vector in epochs.timeline(path):
                        if vector == current or from_ms > now_ms:
                            for key_class in classes:
                                found[key_class, path, vector] = self.key(key_class, path, vector)
                self._outside_entries(found, capability.pattern, classes, epochs, now_ms)
        return found

    def past_entries(self, grants: Iterable[Grant], past: Sequence[Raise]) -> dict[Slot, bytes]:
        """Keys of earlier epochs that grants with REPLAY_READ open; those that were shredded are not among them.

        :param past: every raise there ever was, in its order
        :raises FrameRejected: with reason `limit` if they are too many for one packet
        """
        found: dict[Slot, bytes] = {}
        for key_class, path, vector in past_slots(grants, past):
            if vector[0] != OUTSIDE:
                if self.store.has_root(vector[0]):
                    found[key_class, path, vector] = self.key(key_class, path, vector)
            elif self.store.holds_outside(key_class, path, vector[-1]):
                found[key_class, path, vector] = self.store.outside(key_class, path, vector[-1])
        return found

    def _outside_entries(
        self, found: dict[Slot, bytes], pattern: str, classes: set[str], epochs: Epochs, now_ms: int
    ) -> None:
        """Keys of shreddable routes below a pattern, each wrapped for itself: no other key leads there."""
        for one in epochs.raises:
            if not one.shreddable or not pattern_covers(pattern, ".".join(one.path)):
                continue
            if one.vector != epochs.vector(one.path, now_ms) and one.activate_ms <= now_ms:
                continue
            for key_class in classes:
                if self.store.holds_outside(key_class, one.path, one.epoch):
                    found[key_class, one.path, one.vector] = self.store.outside(
                        key_class, one.path, one.epoch
                    )

    def packet(
        self,
        keys: NodeKeys,
        voter: Identity,
        grantee: Identity,
        grants: Iterable[Grant],
        *,
        hlc: int,
        epochs: Epochs | None = None,
        past: Sequence[Raise] = (),
    ) -> bytes:
        """Seal to `grantee` the keys its grants entitle it to, and the members' keys; signed by the voter.

        :param past: every raise there ever was, for grants that open earlier epochs

        voter_tag 8 | grantee_tag 8 | hlc 8 | box_len 4 | HPKE box | signature 64
        box: n_members 1 | n x (epoch 2 | activate_ms 8 | key 32)
             | n 2 | n x (class 1 | n_tokens 1 | path | epochs u16 x (n_tokens + 1) | kc 32 | key 32)
        """
        held = list(grants)
        found = self.past_entries(held, past) | self.entries(held, epochs or Epochs(), hlc >> 16)
        members = self.store.members()
        body = bytes([len(members)])
        for epoch, activate_ms, key in members:
            body += struct.pack(">HQ", epoch, activate_ms) + key
        body += struct.pack(">H", len(found))
        parts: list[bytes] = []
        for (key_class, tokens, vector), key in sorted(found.items()):
            kc = commitment(key_class, tokens, vector, key)
            head = key_class.encode() + bytes([len(tokens)]) + encode_path(tokens)
            parts.append(head + struct.pack(f">{len(vector)}H", *vector) + kc + key)
        body += b"".join(parts)
        head = voter.tag + grantee.tag + struct.pack(">Q", hlc)
        public = X25519PublicKey.from_public_bytes(grantee.wrap_pub)
        box = wrap_suite().encrypt(body, public, info=PACKET_DOMAIN + self._cluster + head)
        self.wraps += 1
        packet = head + struct.pack(">I", len(box)) + box
        return packet + keys.sign(PACKET_DOMAIN, packet)

    def __repr__(self) -> str:
        return "KeyTree(REDACTED)"

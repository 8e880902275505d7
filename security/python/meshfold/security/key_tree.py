"""The key tree: one random root per class, every other key derived along the address (SECURITY: key tree).

    K(child) = HKDF-SHA256(K(parent), info = "MF1 key" || class || path || epoch of the child)

A grant for a prefix gets that prefix's key, so there is one wrap per (grantee, pattern), however many routes. `path` is
length-prefixed tokens. Epochs stand in one vector along the path: root, then six tokens.
"""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from meshfold.core.registry import Action
from meshfold.security.grant import Grant
from meshfold.security.identity import Identity
from meshfold.security.keys import NodeKeys, load_secret, save_secret

__all__ = (
    "CLASSES",
    "EPOCHS_ZERO",
    "KeyTree",
    "child_key",
    "commitment",
    "derive",
    "encode_path",
    "wrap_suite",
)

#: m metadata, d payload, x debug
CLASSES: Final = ("m", "d", "x")
EPOCHS_ZERO: Final = (0, 0, 0, 0, 0, 0, 0)
PACKET_DOMAIN: Final = b"MF1 keys"

_ACTION_CLASSES: Final = {
    Action.META_READ: ("m",),
    Action.PAYLOAD_OPEN: ("d",),
    Action.DEBUG_READ: ("x",),
    Action.OWN: ("m", "d", "x"),
}


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


class KeyTree:
    """The voter's side: roots, members' key, and packets for grantees. Prints as REDACTED."""

    def __init__(self, cluster: bytes, roots: dict[str, bytes], members: bytes) -> None:
        self._cluster = cluster
        self._roots = roots
        self._members = members

    @classmethod
    def generate(cls, cluster: bytes) -> KeyTree:
        """Draw fresh roots."""
        return cls(cluster, {key_class: os.urandom(32) for key_class in CLASSES}, os.urandom(32))

    def save(self, directory: Path) -> None:
        """Write the roots, each to a new file of mode 0600."""
        directory.mkdir(mode=0o700, parents=True)
        (directory / "cluster").write_bytes(self._cluster)
        for key_class, key in self._roots.items():
            save_secret(directory / f"root-{key_class}.key", key)
        save_secret(directory / "members.key", self._members)

    @classmethod
    def load(cls, directory: Path) -> KeyTree:
        """Read what `save` wrote.

        :raises ConfigError: if a file is missing, readable by others, or not a key
        """
        roots = {key_class: load_secret(directory / f"root-{key_class}.key") for key_class in CLASSES}
        return cls((directory / "cluster").read_bytes(), roots, load_secret(directory / "members.key"))

    def key(self, key_class: str, tokens: Sequence[str]) -> bytes:
        """The key of a node of the tree."""
        return derive(self._roots[key_class], key_class, (), tokens, EPOCHS_ZERO)

    def packet(
        self, keys: NodeKeys, voter: Identity, grantee: Identity, grants: Iterable[Grant], *, hlc: int
    ) -> bytes:
        """Seal to `grantee` the keys its grants entitle it to, and the members' key; signed by the voter.

        voter_tag 8 | grantee_tag 8 | hlc 8 | box_len 4 | HPKE box | signature 64
        box: members' key 32 | n 2 | n x (class 1 | n_tokens 1 | path | epochs u16 x (n_tokens + 1) | kc 32 | key 32)
        """
        entries: dict[tuple[str, tuple[str, ...]], bytes] = {}
        for grant in grants:
            for capability in grant.capabilities:
                tokens = tuple(token for token in capability.pattern.split(".") if token != ">")
                for action, classes in _ACTION_CLASSES.items():
                    if capability.actions & action:
                        for key_class in classes:
                            entries[key_class, tokens] = self.key(key_class, tokens)
        body = self._members + struct.pack(">H", len(entries))
        for (key_class, tokens), key in sorted(entries.items()):
            epochs = EPOCHS_ZERO[: len(tokens) + 1]
            body += key_class.encode() + bytes([len(tokens)]) + encode_path(tokens)
            body += (
                struct.pack(f">{len(epochs)}H", *epochs) + commitment(key_class, tokens, epochs, key) + key
            )
        head = voter.tag + grantee.tag + struct.pack(">Q", hlc)
        public = X25519PublicKey.from_public_bytes(grantee.wrap_pub)
        box = wrap_suite().encrypt(body, public, info=PACKET_DOMAIN + self._cluster + head)
        packet = head + struct.pack(">I", len(box)) + box
        return packet + keys.sign(PACKET_DOMAIN, packet)

    def __repr__(self) -> str:
        return "KeyTree(REDACTED)"

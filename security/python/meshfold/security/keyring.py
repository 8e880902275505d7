"""The node's side of the key tree: installs key packets, derives the key of a route.

Invariants: a key enters only with a voter's signature and a matching commitment; there is no trial decryption; derived
keys are cached up to a bound.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final

from cryptography.exceptions import InvalidTag
from meshfold.core import Address
from meshfold.core.errors import FrameRejected, KeyMissing
from meshfold.security.codec import Reader
from meshfold.security.identity import Identity
from meshfold.security.key_tree import CLASSES, EPOCHS_ZERO, PACKET_DOMAIN, commitment, derive, wrap_suite
from meshfold.security.keys import NodeKeys, verify

__all__ = ("Keyring",)

PACKET_BYTES_MAX: Final = 256 * 1024
CACHE_MAX: Final = 16_384


class Keyring:
    """Keys this node may use. Prints as REDACTED."""

    def __init__(self, keys: NodeKeys, identity: Identity) -> None:
        self._keys = keys
        self._identity = identity
        self._nodes: dict[tuple[str, tuple[str, ...]], bytes] = {}
        self._cache: dict[tuple[str, str], tuple[bytes, bytes]] = {}
        self._members: bytes | None = None

    def install(self, packet: bytes, voters: Mapping[bytes, Identity]) -> int:
        """Open a key packet and keep its keys; returns how many.

        :raises FrameRejected: with reason `size`, `member`, `sig`, `unwrap`, `commit` or `format`; nothing changed then
        """
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
        try:
            body = wrap_suite().decrypt(box, self._keys.wrap_private, info=info)
        except (InvalidTag, ValueError):
            raise FrameRejected("unwrap", "key packet") from None
        members, nodes = _read_body(body)
        self._members = members
        self._nodes.update(nodes)
        self._cache.clear()
        return len(nodes)

    def key_for(self, key_class: str, address: Address) -> tuple[bytes, bytes]:
        """Return (key, commitment) of a route's class under the current epochs.

        :raises KeyMissing: if no installed key leads there
        """
        cached = self._cache.get((key_class, address.text))
        if cached is not None:
            return cached
        tokens = address.tokens
        for depth in range(len(tokens), -1, -1):
            node = self._nodes.get((key_class, tokens[:depth]))
            if node is not None:
                key = derive(node, key_class, tokens[:depth], tokens, EPOCHS_ZERO)
                found = key, commitment(key_class, tokens, EPOCHS_ZERO, key)
                if len(self._cache) >= CACHE_MAX:
                    self._cache.clear()
                self._cache[key_class, address.text] = found
                return found
        raise KeyMissing(
            f"no {'metadata' if key_class == 'm' else 'payload'} key of {address.short} is on this node",
            fix="a voter sends keys for grants; check `meshfold grant explain`",
            route=address.short,
            key_class=key_class,
        )

    @property
    def members_key(self) -> bytes:
        """The key of heartbeats, credit and acks.

        :raises KeyMissing: before a packet was installed
        """
        if self._members is None:
            raise KeyMissing(
                "no members' key yet", fix="a voter sends it with the first grant", key_class="members"
            )
        return self._members

    def __repr__(self) -> str:
        return "Keyring(REDACTED)"


def _read_body(body: bytes) -> tuple[bytes, dict[tuple[str, tuple[str, ...]], bytes]]:
    reader = Reader(body)
    members = reader.take(32)
    (count,) = reader.unpack(">H")
    nodes: dict[tuple[str, tuple[str, ...]], bytes] = {}
    for _ in range(count):
        key_class = reader.take(1).decode("ascii", "replace")
        (n_tokens,) = reader.unpack(">B")
        if key_class not in CLASSES or n_tokens > 6:
            raise FrameRejected("format", "key packet entry")
        tokens = tuple(reader.text() for _ in range(n_tokens))
        epochs = struct.unpack(f">{n_tokens + 1}H", reader.take(2 * (n_tokens + 1)))
        kc, key = reader.take(32), reader.take(32)
        if epochs != EPOCHS_ZERO[: n_tokens + 1]:
            raise FrameRejected("epoch", "a key of another epoch")
        if commitment(key_class, tokens, epochs, key) != kc:
            raise FrameRejected("commit", ".".join(tokens))
        nodes[key_class, tokens] = key
    reader.end()
    return members, nodes

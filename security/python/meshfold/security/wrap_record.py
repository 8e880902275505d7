"""WR1: a node's newer wrapping key, signed by its identity key. Whoever seals to the node takes the highest counter.

magic 'WR' | version 1 | cluster 16 | node_pub 32 | wrap_pub 32 | counter 4 | signature 64 over "ID1 wrap" NUL the rest
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from meshfold.core.errors import FrameRejected
from meshfold.security.codec import Reader
from meshfold.security.keys import NodeKeys, check_x25519_public, verify

__all__ = ("WRAP_MAGIC", "WrapRecord")

DOMAIN: Final = b"ID1 wrap"
WRAP_MAGIC: Final = b"WR"
_FORM: Final = ">2sB16s32s32sI"


@dataclass(frozen=True, slots=True)
class WrapRecord:
    """Which key seals to a node now."""

    node_pub: bytes
    wrap_pub: bytes
    counter: int
    raw: bytes

    @classmethod
    def issue(cls, keys: NodeKeys, cluster: bytes, counter: int) -> WrapRecord:
        """Sign the node's present wrapping key."""
        body = struct.pack(_FORM, WRAP_MAGIC, 1, cluster, keys.node_pub, keys.wrap_pub, counter)
        return cls(keys.node_pub, keys.wrap_pub, counter, body + keys.sign(DOMAIN, body))

    @classmethod
    def parse(cls, raw: bytes, *, cluster: bytes, node_pub: bytes) -> WrapRecord:
        """Read and check a record of one node.

        :raises FrameRejected: if it is none, of another node or mesh, holds an unusable key, or is not signed by the node
        """
        reader = Reader(raw)
        magic, version, of_cluster, signer, wrap_pub, counter = reader.unpack(_FORM)
        signature = reader.take(64)
        reader.end()
        if magic != WRAP_MAGIC or version != 1:
            raise FrameRejected("magic" if magic != WRAP_MAGIC else "version", "not a wrapping key")
        if of_cluster != cluster:
            raise FrameRejected("cluster", "a wrapping key of another mesh")
        if signer != node_pub:
            raise FrameRejected("member", "a wrapping key of another node")
        check_x25519_public(wrap_pub)
        verify(node_pub, DOMAIN, raw[:-64], signature)
        return cls(node_pub, wrap_pub, counter, raw)

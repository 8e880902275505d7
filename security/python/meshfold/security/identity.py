"""ID1: a node's identity, signed by the mesh's identity key.

magic 'ID' | version 1 | cluster 16 | serial 16 | node_pub 32 | wrap_pub 32 | login_pub 32 | not_before 8 | not_after 8 (ms)
| name (length byte, UTF-8) | n_roles 1 | roles (each as name) | issuer_pub 32 | signature 64
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from meshfold.core.errors import FrameRejected
from meshfold.security.codec import Reader
from meshfold.security.keys import check_ed25519_public, check_x25519_public, tag_of, verify

__all__ = ("SKEW_MS", "Identity", "IdentitySigner")

DOMAIN: Final = b"ID1 identity"
ROLES_MAX: Final = 8
#: Allowance for clocks on every time check of identities and grants.
SKEW_MS: Final = 5_000


@dataclass(frozen=True)
class Identity:
    """Who a node is. `raw` is the record as signed; `tag` the 8 bytes that stand for it on the wire."""

    cluster: bytes
    serial: bytes
    node_pub: bytes
    wrap_pub: bytes
    login_pub: bytes
    name: str
    roles: tuple[str, ...]
    not_before_ms: int
    not_after_ms: int
    issuer_pub: bytes
    raw: bytes

    @property
    def tag(self) -> bytes:
        """First 8 bytes of SHA-256 of `node_pub`."""
        return tag_of(self.node_pub)

    @classmethod
    def issue(
        cls,
        signer: Ed25519PrivateKey,
        *,
        cluster: bytes,
        node_pub: bytes,
        wrap_pub: bytes,
        login_pub: bytes,
        name: str,
        roles: tuple[str, ...],
        not_before_ms: int,
        not_after_ms: int,
    ) -> Identity:
        """Sign an identity.

        :raises FrameRejected: with reason `key` for an unusable key, `size` for a name or role over 255 bytes
        """
        check_ed25519_public(node_pub)
        check_x25519_public(wrap_pub)
        check_ed25519_public(login_pub)
        texts = [text.encode() for text in (name, *roles)]
        if any(not 0 < len(text) < 256 for text in texts) or len(roles) > ROLES_MAX:
            raise FrameRejected("size", "name and roles have 1 to 255 bytes")
        body = struct.pack(
            ">2sB16s16s32s32s32sQQ",
            b"ID",
            1,
            cluster,
            os.urandom(16),
            node_pub,
            wrap_pub,
            login_pub,
            not_before_ms,
            not_after_ms,
        )
        body += bytes([len(texts[0])]) + texts[0] + bytes([len(roles)])
        body += b"".join(bytes([len(text)]) + text for text in texts[1:])
        body += signer.public_key().public_bytes_raw()
        return cls.parse(body + signer.sign(DOMAIN + b"\0" + body))

    @classmethod
    def parse(cls, raw: bytes) -> Identity:
        """Read a record; its signature is checked by `verify`.

        :raises FrameRejected: if it is not one, or holds an unusable key
        """
        reader = Reader(raw)
        magic, version, cluster, serial, node_pub, wrap_pub, login_pub, not_before, not_after = reader.unpack(
            ">2sB16s16s32s32s32sQQ"
        )
        if magic != b"ID" or version != 1:
            raise FrameRejected("magic" if magic != b"ID" else "version", "not an identity")
        name = reader.text()
        (count,) = reader.unpack(">B")
        if count > ROLES_MAX or not name:
            raise FrameRejected("format", "name or roles")
        roles = tuple(reader.text() for _ in range(count))
        issuer = reader.take(32)
        reader.take(64)
        reader.end()
        check_ed25519_public(node_pub)
        check_x25519_public(wrap_pub)
        check_ed25519_public(login_pub)
        return cls(
            cluster, serial, node_pub, wrap_pub, login_pub, name, roles, not_before, not_after, issuer, raw
        )

    def due(self, now_ms: int) -> bool:
        """Whether less than a third of its time is left: it is to be renewed."""
        return self.not_after_ms - now_ms < (self.not_after_ms - self.not_before_ms) // 3

    def verify(self, *, cluster: bytes, issuers: frozenset[bytes], now_ms: int) -> None:
        """Check mesh, issuer, time and signature.

        :raises FrameRejected: with reason `cluster`, `root`, `time` or `sig`
        """
        if self.cluster != cluster:
            raise FrameRejected("cluster", "an identity of another mesh")
        if self.issuer_pub not in issuers:
            raise FrameRejected("root", "not signed by this mesh's authority")
        if not self.not_before_ms - SKEW_MS <= now_ms <= self.not_after_ms + SKEW_MS:
            raise FrameRejected("time", "identity not valid now")
        verify(self.issuer_pub, DOMAIN, self.raw[:-64], self.raw[-64:])


class IdentitySigner:
    """Whoever holds a key that signs identities of one mesh: its root, or an issuer of it."""

    def __init__(self, cluster: bytes, identity_key: Ed25519PrivateKey) -> None:
        self.cluster = cluster
        self._identity_key = identity_key

    def issue_identity(
        self,
        *,
        node_pub: bytes,
        wrap_pub: bytes,
        login_pub: bytes,
        name: str,
        roles: tuple[str, ...],
        not_before_ms: int,
        not_after_ms: int,
    ) -> Identity:
        """Sign an identity. Raises as `Identity.issue`."""
        return Identity.issue(
            self._identity_key,
            cluster=self.cluster,
            node_pub=node_pub,
            wrap_pub=wrap_pub,
            login_pub=login_pub,
            name=name,
            roles=roles,
            not_before_ms=not_before_ms,
            not_after_ms=not_after_ms,
        )

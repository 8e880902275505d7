"""The mesh's authority, the root: one key signs identities, another signs grants. It stays offline; `Issuer` works for it."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from meshfold.security.capability import Capability
from meshfold.security.grant import Grant, KeySigner
from meshfold.security.identity import IdentitySigner

__all__ = ("Authority",)


class Authority(IdentitySigner):
    """Issues identities and grants of one mesh. Prints as REDACTED."""

    def __init__(self, cluster: bytes, identity_key: Ed25519PrivateKey, grant_key: Ed25519PrivateKey) -> None:
        super().__init__(cluster, identity_key)
        self._grant_key = grant_key
        self.identity_pub = identity_key.public_key().public_bytes_raw()
        self.grant_pub = grant_key.public_key().public_bytes_raw()

    @classmethod
    def generate(cls, cluster: bytes) -> Authority:
        """Draw fresh keys for the mesh with this 16-byte id."""
        return cls(cluster, Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate())

    def secret(self) -> bytes:
        """Both private keys, 64 bytes, to be sealed at once (`seal_secret`)."""
        return self._identity_key.private_bytes_raw() + self._grant_key.private_bytes_raw()

    @classmethod
    def from_secret(cls, cluster: bytes, secret: bytes) -> Authority:
        """Rebuild it from the first 64 bytes of what was sealed."""
        return cls(
            cluster,
            Ed25519PrivateKey.from_private_bytes(secret[:32]),
            Ed25519PrivateKey.from_private_bytes(secret[32:64]),
        )

    def sign_certificate(self, domain: bytes, body: bytes) -> bytes:
        """Sign an issuer's certificate with the identity key."""
        return self._identity_key.sign(domain + b"\0" + body)

    def issue_grant(
        self,
        subject_pub: bytes,
        capabilities: Sequence[Capability],
        *,
        not_before_ms: int,
        not_after_ms: int,
        policy_epoch: int,
        depth_left: int = 0,
    ) -> Grant:
        """Sign a grant of one link. Raises as `Grant.issue`."""
        return Grant.issue(
            KeySigner(self._grant_key),
            cluster=self.cluster,
            subject_pub=subject_pub,
            capabilities=capabilities,
            not_before_ms=not_before_ms,
            not_after_ms=not_after_ms,
            policy_epoch=policy_epoch,
            depth_left=depth_left,
        )

    def __repr__(self) -> str:
        return "Authority(REDACTED)"

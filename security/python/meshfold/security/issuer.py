"""The online issuer: signs identities and grants by the root's leave, so that the root can stay offline.

IC1, what the root's identity key says of an issuer:
magic 'IC' | version 1 | cluster 16 | identity_pub 32 | grant_pub 32 | enrol_pub 32 (X25519) | not_before 8 | not_after 8 (ms)
| root_pub 32 | signature 64

Grants of an issuer are chains: the root's grant key gives it one DELEGATE link, and its own links stand below that.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from meshfold.core.errors import ConfigError, FrameRejected
from meshfold.core.registry import Action
from meshfold.security.authority import Authority
from meshfold.security.capability import Capability
from meshfold.security.codec import Reader
from meshfold.security.grant import Grant, KeySigner
from meshfold.security.identity import SKEW_MS, IdentitySigner
from meshfold.security.keys import check_ed25519_public, check_x25519_public, load_secret, save_secret, verify

__all__ = ("Issuer", "IssuerCertificate", "Trust")

DOMAIN: Final = b"IC1 issuer"
AUTHORITY_DOMAIN: Final = b"MF1 authority\0"
#: Links an issuer's grant may have below it: holders may attenuate once more.
DEPTH: Final = 2
CERTIFICATES_MAX: Final = 16
_FORM: Final = ">2sB16s32s32s32sQQ32s64s"
EVERYTHING: Final = Action(sum(Action))


@dataclass(frozen=True, slots=True)
class IssuerCertificate:
    """Which keys sign identities and grants for the root, and until when."""

    cluster: bytes
    identity_pub: bytes
    grant_pub: bytes
    enrol_pub: bytes
    not_before_ms: int
    not_after_ms: int
    root_pub: bytes
    raw: bytes

    @classmethod
    def parse(cls, raw: bytes) -> IssuerCertificate:
        """Read a certificate; its signature is checked by `verify`.

        :raises FrameRejected: if it is none, or holds an unusable key
        """
        reader = Reader(raw)
        magic, version, cluster, identity, grant, enrol, before, after, root, _ = reader.unpack(_FORM)
        reader.end()
        if magic != b"IC" or version != 1:
            raise FrameRejected("magic" if magic != b"IC" else "version", "not an issuer's certificate")
        check_ed25519_public(identity)
        check_ed25519_public(grant)
        check_x25519_public(enrol)
        return cls(cluster, identity, grant, enrol, before, after, root, raw)

    def verify(self, *, cluster: bytes, root_pub: bytes, now_ms: int) -> None:
        """Check mesh, root, time and signature.

        :raises FrameRejected: with reason `cluster`, `root`, `time` or `sig`
        """
        if self.cluster != cluster:
            raise FrameRejected("cluster", "an issuer of another mesh")
        if self.root_pub != root_pub:
            raise FrameRejected("root", "an issuer of another authority")
        if not self.not_before_ms - SKEW_MS <= now_ms <= self.not_after_ms + SKEW_MS:
            raise FrameRejected("time", "the issuer's certificate is not valid now")
        verify(root_pub, DOMAIN, self.raw[:-64], self.raw[-64:])


@dataclass(frozen=True, slots=True)
class Trust:
    """What a node pins: the root's two public keys. Certificates of issuers are taken on the root's word."""

    cluster: bytes
    identity_root: bytes
    grant_root: bytes
    certificates: tuple[bytes, ...] = ()

    @property
    def authority_hash(self) -> bytes:
        """Names the authority: a join token carries it, so that no broker can put another in its place."""
        return hashlib.sha256(AUTHORITY_DOMAIN + self.cluster + self.identity_root + self.grant_root).digest()

    def issuers(self, now_ms: int) -> frozenset[bytes]:
        """Keys whose identities hold now: the root's own, and those of valid certificates."""
        found = {self.identity_root}
        for raw in self.certificates:
            try:
                certificate = IssuerCertificate.parse(raw)
                certificate.verify(cluster=self.cluster, root_pub=self.identity_root, now_ms=now_ms)
            except FrameRejected:
                continue
            found.add(certificate.identity_pub)
        return frozenset(found)

    def with_certificates(self, raws: Iterable[bytes], now_ms: int) -> Trust:
        """Take in certificates.

        :raises FrameRejected: if one is not the root's, or there are too many (`limit`); nothing changed then
        """
        known = list(self.certificates)
        for raw in raws:
            if raw not in known:
                IssuerCertificate.parse(raw).verify(
                    cluster=self.cluster, root_pub=self.identity_root, now_ms=now_ms
                )
                known.append(raw)
        if len(known) > CERTIFICATES_MAX:
            raise FrameRejected("limit", f"more than {CERTIFICATES_MAX} issuers")
        return Trust(self.cluster, self.identity_root, self.grant_root, tuple(known))


class Issuer(IdentitySigner):
    """Signs for the root, within the root's certificate and delegation. Prints as REDACTED."""

    def __init__(
        self,
        identity_key: Ed25519PrivateKey,
        grant_key: Ed25519PrivateKey,
        enrol_key: X25519PrivateKey,
        certificate: IssuerCertificate,
        delegation: Grant,
    ) -> None:
        super().__init__(certificate.cluster, identity_key)
        self._grant_key = grant_key
        self.enrol_private = enrol_key
        self.certificate = certificate
        self.delegation = delegation

    @property
    def trust(self) -> Trust:
        """What nodes of this mesh pin."""
        return Trust(
            self.cluster,
            self.certificate.root_pub,
            self.delegation.links[0].issuer_pub,
            (self.certificate.raw,),
        )

    @classmethod
    def generate(cls, authority: Authority, *, not_before_ms: int, not_after_ms: int) -> Issuer:
        """Draw an issuer's keys and have the root certify them."""
        return cls._certified(
            authority,
            (Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate(), X25519PrivateKey.generate()),
            not_before_ms,
            not_after_ms,
        )

    def renewed(self, authority: Authority, *, not_before_ms: int, not_after_ms: int) -> Issuer:
        """The same keys under a new certificate and delegation."""
        keys = (self._identity_key, self._grant_key, self.enrol_private)
        return self._certified(authority, keys, not_before_ms, not_after_ms)

    @classmethod
    def _certified(
        cls,
        authority: Authority,
        keys: tuple[Ed25519PrivateKey, Ed25519PrivateKey, X25519PrivateKey],
        not_before_ms: int,
        not_after_ms: int,
    ) -> Issuer:
        identity, grant, enrol = keys
        grant_pub = grant.public_key().public_bytes_raw()
        body = struct.pack(
            _FORM[:-3],
            b"IC",
            1,
            authority.cluster,
            identity.public_key().public_bytes_raw(),
            grant_pub,
            enrol.public_key().public_bytes_raw(),
            not_before_ms,
            not_after_ms,
            authority.identity_pub,
        )
        certificate = IssuerCertificate.parse(body + authority.sign_certificate(DOMAIN, body))
        delegation = authority.issue_grant(
            grant_pub,
            (Capability(EVERYTHING, ">"),),
            not_before_ms=not_before_ms,
            not_after_ms=not_after_ms,
            policy_epoch=0,
            depth_left=DEPTH,
        )
        return cls(identity, grant, enrol, certificate, delegation)

    def save(self, directory: Path) -> None:
        """Write keys (new files, 0600), certificate and delegation."""
        save_secret(directory / "identity.key", self._identity_key.private_bytes_raw())
        save_secret(directory / "grant.key", self._grant_key.private_bytes_raw())
        save_secret(directory / "enrol.key", self.enrol_private.private_bytes_raw())
        self.save_papers(directory)

    def save_papers(self, directory: Path) -> None:
        """Write certificate and delegation, which are public."""
        (directory / "certificate").write_bytes(self.certificate.raw)
        (directory / "delegation").write_bytes(self.delegation.raw)

    @classmethod
    def load(cls, directory: Path) -> Issuer:
        """Read what `save` wrote.

        :raises ConfigError: if a file is missing, readable by others, or not what it should be
        """
        try:
            certificate = IssuerCertificate.parse((directory / "certificate").read_bytes())
            delegation = Grant.parse((directory / "delegation").read_bytes())
        except OSError as error:
            raise ConfigError(
                f"cannot read the mesh's issuer in {directory}: {error.strerror}",
                fix="run as the user that started the mesh",
                item=str(directory),
            ) from error
        except FrameRejected as error:
            raise ConfigError(f"the issuer in {directory} is damaged: {error}", item=str(directory)) from None
        return cls(
            Ed25519PrivateKey.from_private_bytes(load_secret(directory / "identity.key")),
            Ed25519PrivateKey.from_private_bytes(load_secret(directory / "grant.key")),
            X25519PrivateKey.from_private_bytes(load_secret(directory / "enrol.key")),
            certificate,
            delegation,
        )

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
        """Sign a grant below the delegation; its times are cut to those of the delegation.

        Raises as `Grant.issue`.
        """
        return Grant.issue(
            KeySigner(self._grant_key),
            cluster=self.cluster,
            subject_pub=subject_pub,
            capabilities=capabilities,
            not_before_ms=max(not_before_ms, self.delegation.not_before_ms),
            not_after_ms=min(not_after_ms, self.delegation.not_after_ms),
            policy_epoch=policy_epoch,
            depth_left=depth_left,
            parent=self.delegation,
        )

    def sign(self, domain: bytes, data: bytes) -> bytes:
        """Sign `domain || NUL || data` with the identity signer."""
        return self._identity_key.sign(domain + b"\0" + data)

    def __repr__(self) -> str:
        return "Issuer(REDACTED)"

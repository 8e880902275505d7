"""Identities, grants, keys and frames: bytes in, bytes or a typed refusal out. No network."""

from meshfold.core.errors import (
    ClockSkew,
    FrameRejected,
    GrantDenied,
    GrantExpired,
    GrantRevoked,
    KeyMissing,
    SecurityError,
)
from meshfold.security.authority import Authority
from meshfold.security.capability import Capability, covers, matches
from meshfold.security.frame import Header
from meshfold.security.grant import Grant, Link
from meshfold.security.grant_book import GrantBook, Policy
from meshfold.security.identity import Identity
from meshfold.security.issuer import Issuer, IssuerCertificate, Trust
from meshfold.security.key_tree import KeyTree
from meshfold.security.keyring import Keyring
from meshfold.security.keys import NodeKeys, check_ed25519_public, check_x25519_public, tag_of, verify
from meshfold.security.open import Opened, OpenedControl, Opener
from meshfold.security.seal import EventFrame, Sealer
from meshfold.security.sealed import seal_secret, unseal_secret

__all__ = (
    "Authority",
    "Capability",
    "ClockSkew",
    "EventFrame",
    "FrameRejected",
    "Grant",
    "GrantBook",
    "GrantDenied",
    "GrantExpired",
    "GrantRevoked",
    "Header",
    "Identity",
    "Issuer",
    "IssuerCertificate",
    "KeyMissing",
    "KeyTree",
    "Keyring",
    "Link",
    "NodeKeys",
    "Opened",
    "OpenedControl",
    "Opener",
    "Policy",
    "Sealer",
    "SecurityError",
    "Trust",
    "check_ed25519_public",
    "check_x25519_public",
    "covers",
    "matches",
    "seal_secret",
    "tag_of",
    "unseal_secret",
    "verify",
)

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
from meshfold.security.audit import AuditChain, AuditReport, read_audit
from meshfold.security.authority import Authority
from meshfold.security.budget import Budgets
from meshfold.security.capability import Capability, covers, matches
from meshfold.security.caveat import Caveat, CaveatKind
from meshfold.security.epochs import Epochs, Raise
from meshfold.security.frame import Header
from meshfold.security.grant import Grant, Link
from meshfold.security.grant_book import GrantBook, Policy
from meshfold.security.identity import Identity
from meshfold.security.issuer import Issuer, IssuerCertificate, Trust
from meshfold.security.key_store import KeyStore
from meshfold.security.key_tree import KeyTree
from meshfold.security.keyring import Keyring
from meshfold.security.keys import NodeKeys, check_ed25519_public, check_x25519_public, tag_of, verify
from meshfold.security.open import Opened, OpenedControl, Opener
from meshfold.security.policy_keeper import PolicyKeeper
from meshfold.security.policy_record import PolicyRecord, voters_hash
from meshfold.security.pop import Challenges, prove_possession
from meshfold.security.replay import ReplayGuard
from meshfold.security.seal import EventFrame, Sealer
from meshfold.security.sealed import seal_secret, unseal_secret
from meshfold.security.starts import StartBook, StartRecord
from meshfold.security.wrap_record import WrapRecord

__all__ = (
    "AuditChain",
    "AuditReport",
    "Authority",
    "Budgets",
    "Capability",
    "Caveat",
    "CaveatKind",
    "Challenges",
    "ClockSkew",
    "Epochs",
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
    "KeyStore",
    "KeyTree",
    "Keyring",
    "Link",
    "NodeKeys",
    "Opened",
    "OpenedControl",
    "Opener",
    "Policy",
    "PolicyKeeper",
    "PolicyRecord",
    "Raise",
    "ReplayGuard",
    "Sealer",
    "SecurityError",
    "StartBook",
    "StartRecord",
    "Trust",
    "WrapRecord",
    "check_ed25519_public",
    "check_x25519_public",
    "covers",
    "matches",
    "prove_possession",
    "read_audit",
    "seal_secret",
    "tag_of",
    "unseal_secret",
    "verify",
    "voters_hash",
)

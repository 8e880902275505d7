"""NATS JWTs and key texts over raw Ed25519 keys; no other library is needed for them.

A key's text is base32 of a prefix byte, the 32 bytes and a CRC-16 (XMODEM polynomial, little-endian). A JWT is signed
with algorithm `ed25519-nkey`; its id is base32 of SHA-256 of the claims with an empty id.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import time
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = ("Permissions", "key_text", "mint_account", "mint_operator", "mint_user")

_PREFIXES: Final = {"operator": 14 << 3, "account": 0, "user": 20 << 3}


@dataclass(frozen=True, slots=True)
class Permissions:
    """What a login may publish and subscribe: allow lists only."""

    pub: tuple[str, ...]
    sub: tuple[str, ...]
    allow_responses: bool = False


def key_text(kind: str, public: bytes) -> str:
    """The text of an operator's, account's or user's public key."""
    raw = bytes([_PREFIXES[kind]]) + public
    return base64.b32encode(raw + binascii.crc_hqx(raw, 0).to_bytes(2, "little")).decode().rstrip("=")


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _sign(claims: dict[str, Any], key: bytes, issuer_kind: str) -> str:
    signer = Ed25519PrivateKey.from_private_bytes(key)
    claims = {
        "jti": "",
        "iat": int(time.time()),
        "iss": key_text(issuer_kind, signer.public_key().public_bytes_raw()),
        **claims,
    }
    digest = hashlib.sha256(json.dumps(claims, separators=(",", ":")).encode()).digest()
    claims["jti"] = base64.b32encode(digest).decode().rstrip("=")
    head = _b64(json.dumps({"typ": "JWT", "alg": "ed25519-nkey"}, separators=(",", ":")).encode())
    body = _b64(json.dumps(claims, separators=(",", ":")).encode())
    return f"{head}.{body}.{_b64(signer.sign(f'{head}.{body}'.encode()))}"


def _public(key: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(key).public_key().public_bytes_raw()


def mint_operator(operator_key: bytes) -> str:
    """The operator's own JWT."""
    text = key_text("operator", _public(operator_key))
    return _sign(
        {"sub": text, "name": "meshfold", "nats": {"type": "operator", "version": 2}},
        operator_key,
        "operator",
    )


def mint_account(operator_key: bytes, account_key: bytes) -> str:
    """The mesh's account, without limits of its own."""
    limits = {
        "subs": -1,
        "data": -1,
        "payload": -1,
        "imports": -1,
        "exports": -1,
        "wildcards": True,
        "conn": -1,
        "leaf": -1,
    }
    claims = {
        "sub": key_text("account", _public(account_key)),
        "name": "meshfold",
        "nats": {"type": "account", "version": 2, "limits": limits},
    }
    return _sign(claims, operator_key, "operator")


def mint_user(
    account_key: bytes, login_pub: bytes, *, name: str, permissions: Permissions, expires_s: int
) -> str:
    """A login for the holder of `login_pub`, until `expires_s` (seconds since 1970)."""
    rights: dict[str, Any] = {
        "pub": {"allow": list(permissions.pub)},
        "sub": {"allow": list(permissions.sub)},
    }
    # The server reads an empty allow list as no restriction at all.
    for side, allowed in (("pub", permissions.pub), ("sub", permissions.sub)):
        if not allowed:
            rights[side] = {"deny": [">"]}
    if permissions.allow_responses:
        rights["resp"] = {"max": 1, "ttl": 10_000_000_000}
    claims = {
        "sub": key_text("user", login_pub),
        "name": name,
        "exp": expires_s,
        "nats": {"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1, **rights},
    }
    return _sign(claims, account_key, "account")

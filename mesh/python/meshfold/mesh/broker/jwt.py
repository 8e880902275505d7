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

__all__ = ("Papers", "Permissions", "key_text", "mint_account", "mint_operator", "mint_user")

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


@dataclass(frozen=True, slots=True)
class Papers:
    """What a server must know of a mesh to take its logins; nothing of it is secret."""

    operator_jwt: str
    account_jwt: str
    account_pub: bytes

    @classmethod
    def mint(cls, operator_key: bytes, account_key: bytes, signing: tuple[bytes, ...] = ()) -> Papers:
        """Sign them."""
        return cls(
            mint_operator(operator_key),
            mint_account(operator_key, account_key, signing),
            _public(account_key),
        )

    def config(self) -> str:
        """The lines of a server's configuration that name operator and account."""
        return (
            f"operator: {self.operator_jwt}\n"
            "resolver: MEMORY\n"
            f"resolver_preload: {{ {key_text('account', self.account_pub)}: {self.account_jwt} }}\n"
        )


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


def mint_account(operator_key: bytes, account_key: bytes, signing: tuple[bytes, ...] = ()) -> str:
    """The mesh's account, without limits of its own; the holders of `signing` keys may mint its users, too."""
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
        "nats": {
            "type": "account",
            "version": 2,
            "limits": limits,
            "signing_keys": [key_text("account", public) for public in signing],
        },
    }
    return _sign(claims, operator_key, "operator")


def mint_user(
    signing_key: bytes,
    login_pub: bytes,
    *,
    name: str,
    permissions: Permissions,
    expires_s: int,
    account_pub: bytes | None = None,
) -> str:
    """A login for the holder of `login_pub`, until `expires_s` (seconds since 1970).

    :param signing_key: the account's own key, or one of its signing keys, which then names its `account_pub`
    """
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
    if account_pub is not None:
        rights["issuer_account"] = key_text("account", account_pub)
    claims = {
        "sub": key_text("user", login_pub),
        "name": name,
        "exp": expires_s,
        "nats": {"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1, **rights},
    }
    return _sign(claims, signing_key, "account")

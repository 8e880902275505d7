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
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

__all__ = (
    "Papers",
    "Permissions",
    "account_update_subject",
    "key_text",
    "mint_account",
    "mint_operator",
    "mint_user",
)

#: How long after a question the server lets its answer through; what is answered later is lost.
RESPONSE_S: Final = 70
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
    #: the account that may tell a running server of a newer one; empty in a mesh that was founded without
    system_jwt: str = ""
    system_pub: bytes = b""

    @classmethod
    def mint(
        cls,
        operator_key: bytes,
        account_key: bytes,
        signing: tuple[bytes, ...] = (),
        *,
        operator_signing: bytes = b"",
        system_key: bytes = b"",
    ) -> Papers:
        """Sign them.

        :param operator_signing: the key that may sign newer accounts while the operator's own is locked away
        :param system_key: key of the account that may tell a running server of them
        """
        signers = (_public(operator_signing),) if operator_signing else ()
        system_pub = _public(system_key) if system_key else b""
        return cls(
            mint_operator(operator_key, signers, system_pub),
            mint_account(operator_key, _public(account_key), signing),
            _public(account_key),
            mint_account(operator_key, system_pub, name="system") if system_key else "",
            system_pub,
        )

    def config(self) -> str:
        """The lines of a server's configuration that name operator and accounts."""
        known = [(self.account_pub, self.account_jwt)]
        lines = f"operator: {self.operator_jwt}\nresolver: MEMORY\n"
        if self.system_jwt:
            known.append((self.system_pub, self.system_jwt))
            lines += f"system_account: {key_text('account', self.system_pub)}\n"
        preload = ", ".join(f"{key_text('account', public)}: {jwt}" for public, jwt in known)
        return f"{lines}resolver_preload: {{ {preload} }}\n"


def account_update_subject(account_pub: bytes) -> str:
    """Where a running server takes a newer JWT of an account, from the system account."""
    return f"$SYS.REQ.ACCOUNT.{key_text('account', account_pub)}.CLAIMS.UPDATE"


def _public(key: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(key).public_key().public_bytes_raw()


def mint_operator(operator_key: bytes, signing: tuple[bytes, ...] = (), system_pub: bytes = b"") -> str:
    """The operator's own JWT; the holders of `signing` keys may sign accounts, too."""
    nats: dict[str, Any] = {"type": "operator", "version": 2}
    if signing:
        nats["signing_keys"] = [key_text("operator", public) for public in signing]
    if system_pub:
        nats["system_account"] = key_text("account", system_pub)
    text = key_text("operator", _public(operator_key))
    return _sign({"sub": text, "name": "meshfold", "nats": nats}, operator_key, "operator")


def mint_account(
    operator_key: bytes,
    account_pub: bytes,
    signing: tuple[bytes, ...] = (),
    revoked: Mapping[bytes, int] | None = None,
    *,
    name: str = "meshfold",
) -> str:
    """An account without limits of its own, which takes no bearer's login; holders of `signing` keys may mint its users, too.

    :param operator_key: the operator's own, or one of its signing keys
    :param revoked: login key -> seconds since 1970: logins issued until then are refused, and whoever uses one is cut off
    """
    limits = {
        "subs": -1,
        "data": -1,
        "payload": -1,
        "imports": -1,
        "exports": -1,
        "wildcards": True,
        "conn": -1,
        "leaf": -1,
        "disallow_bearer": True,
    }
    nats: dict[str, Any] = {
        "type": "account",
        "version": 2,
        "limits": limits,
        "signing_keys": [key_text("account", public) for public in signing],
    }
    if revoked:
        nats["revocations"] = {key_text("user", public): until_s for public, until_s in revoked.items()}
    return _sign(
        {"sub": key_text("account", account_pub), "name": name, "nats": nats}, operator_key, "operator"
    )


def mint_user(
    signing_key: bytes,
    login_pub: bytes,
    *,
    name: str,
    permissions: Permissions,
    expires_s: int,
    account_pub: bytes | None = None,
    issued_s: int | None = None,
) -> str:
    """A login for the holder of `login_pub`, until `expires_s` (seconds since 1970).

    :param signing_key: the account's own key, or one of its signing keys, which then names its `account_pub`
    :param issued_s: seconds since 1970, now by default: a revocation takes what was issued until its time
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
        rights["resp"] = {"max": 1, "ttl": RESPONSE_S * 1_000_000_000}
    if account_pub is not None:
        rights["issuer_account"] = key_text("account", account_pub)
    claims = {
        "sub": key_text("user", login_pub),
        "name": name,
        "exp": expires_s,
        **({} if issued_s is None else {"iat": issued_s}),
        "nats": {"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1, **rights},
    }
    return _sign(claims, signing_key, "account")

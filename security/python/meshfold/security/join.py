"""Enrolment by a token: what both sides say, as bytes; no network.

A token is good for one node, or, as a fleet's, for a stated number of nodes that each get a name of their own.

The token travels outside the mesh and holds a secret that never does. Request and answer are bound to it by HMAC-SHA256
and sealed by HPKE, so a broker that sees, delays, repeats or forges everything learns no key and cannot join.

    request: token_id 16 | HPKE to the issuer's enrol key of (body | HMAC under k_request over the request's transcript)
    body:    node_pub 32 | wrap_pub 32 | login_pub 32 | nonce 16 | signature 64 by node_pub
    answer:  kind 1 | ...
      kind 1 granted: HPKE to wrap_pub of (document | signature 64 by the issuer | HMAC under k_answer over both transcripts)
      kind 2 refused: code, text (length byte each) | HMAC under k_answer over the token's id, the body, code and text
      kind 3 unknown: no token of that id is known; nobody can sign that, so it is told as unverified
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
from dataclasses import dataclass
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from meshfold.core.errors import ConfigError, FrameRejected
from meshfold.security.codec import Reader
from meshfold.security.issuer import Issuer
from meshfold.security.key_tree import wrap_suite
from meshfold.security.keys import NodeKeys, check_ed25519_public, check_x25519_public, verify

__all__ = (
    "UNKNOWN_ANSWER",
    "JoinRequest",
    "JoinToken",
    "check_answer_signature",
    "new_body",
    "open_answer",
    "open_request",
    "seal_answer",
    "seal_refusal",
    "seal_request",
)

PREFIX: Final = "mfj1_"
SECRET_BYTES: Final = 32
TOKEN_TEXT_MAX: Final = 16_384
ANSWER_BYTES_MAX: Final = 512 * 1024
REQUEST_DOMAIN: Final = b"MF1 enrol request"
ANSWER_DOMAIN: Final = b"MF1 enrol answer"
#: Of the names of a fleet's nodes, behind the dash.
FLEET_SUFFIX_CHARS: Final = 8
BODY_BYTES: Final = 32 * 3 + 16 + 64
MAC_BYTES: Final = 32
GRANTED: Final = 1
REFUSED: Final = 2
UNKNOWN: Final = 3
UNKNOWN_ANSWER: Final = bytes([UNKNOWN, 0])


class JoinToken(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What an operator hands to whoever runs the new node. Whoever holds it first can join as `name`."""

    mesh: str
    cluster: bytes
    #: SHA-256 of the authority's two public keys and the cluster id
    authority: bytes
    enrol_pub: bytes
    secret: bytes
    name: str
    roles: tuple[str, ...]
    expires_ms: int
    url: str
    #: NATS login for the enrolment subject alone: user JWT and the raw key of its nonce signature; empty on foreign servers
    login_jwt: str = ""
    login_key: bytes = b""
    #: many nodes join with it, each under a name of its own: `name`, a dash and eight characters of its key
    fleet: bool = False

    @property
    def id(self) -> bytes:
        """Names the token on the wire without telling its secret."""
        return hashlib.sha256(b"MF1 token id\0" + self.secret).digest()[:16]

    def node_name(self, node_pub: bytes) -> str:
        """The name of the node with this key that joins with this token."""
        if not self.fleet:
            return self.name
        return f"{self.name}-{hashlib.sha256(b'MF1 fleet name' + node_pub).hexdigest()[:FLEET_SUFFIX_CHARS]}"

    def encode(self) -> str:
        """The token as one word of text."""
        return PREFIX + base64.urlsafe_b64encode(msgspec.msgpack.encode(self)).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> JoinToken:
        """Read a token.

        :raises ConfigError: if the text is none; it never repeats the text
        """
        text = text.strip()
        try:
            if not text.startswith(PREFIX) or len(text) > TOKEN_TEXT_MAX:
                raise ValueError
            raw = text[len(PREFIX) :]
            token = msgspec.msgpack.decode(
                base64.b64decode(raw + "=" * (-len(raw) % 4), b"-_", True), type=cls
            )
            sizes = len(token.cluster), len(token.authority), len(token.secret)
            if sizes != (16, 32, SECRET_BYTES) or not 0 <= token.expires_ms < 2**63:
                raise ValueError
            if any(len(name.encode()) > 255 for name in (token.mesh, token.name, *token.roles)):
                raise ValueError
        except (ValueError, msgspec.MsgspecError):
            raise ConfigError(
                "this is no join token, or it was cut short",
                fix=f"a token is one word that begins with {PREFIX}",
                item="token",
            ) from None
        try:
            check_x25519_public(token.enrol_pub)
        except FrameRejected:
            raise ConfigError("the join token holds an unusable key", item="token") from None
        return token

    def key(self, purpose: bytes) -> bytes:
        """A key of this token for one purpose."""
        return HKDF(SHA256(), 32, self.cluster, b"MF1 enrol " + purpose).derive(self.secret)

    def __repr__(self) -> str:
        return f"JoinToken({self.mesh}, {self.name}, REDACTED)"


@dataclass(frozen=True, slots=True)
class JoinRequest:
    """A request that proved to come from the holder of the token."""

    node_pub: bytes
    wrap_pub: bytes
    login_pub: bytes
    body: bytes


def _transcript(token: JoinToken, body: bytes) -> bytes:
    """Everything the request says, each part of fixed or stated length."""
    names = [token.mesh, token.name, *token.roles]
    said = b"".join(bytes([len(name.encode())]) + name.encode() for name in names)
    kind = b"fleet" if token.fleet else b""
    fixed = token.cluster + token.authority + token.enrol_pub + token.id + token.expires_ms.to_bytes(8, "big")
    return REQUEST_DOMAIN + fixed + said + kind + body


def _mac(key: bytes, *parts: bytes) -> bytes:
    lengths = b"".join(len(part).to_bytes(4, "big") for part in parts)
    return hmac.digest(key, lengths + b"".join(parts), "sha256")


def new_body(keys: NodeKeys, token: JoinToken) -> bytes:
    """The body of a request. Keep it: asking again with the same body gets the same answer."""
    body = keys.node_pub + keys.wrap_pub + keys.login_pub + os.urandom(16)
    return body + keys.sign(REQUEST_DOMAIN, token.cluster + token.id + body)


def seal_request(body: bytes, token: JoinToken) -> bytes:
    """Seal a request to the issuer."""
    mac = _mac(token.key(b"request"), _transcript(token, body))
    public = X25519PublicKey.from_public_bytes(token.enrol_pub)
    info = REQUEST_DOMAIN + token.cluster + token.id
    return token.id + wrap_suite().encrypt(body + mac, public, info=info)


def open_request(data: bytes, token: JoinToken, enrol_private: X25519PrivateKey) -> JoinRequest:
    """Open a request on the issuer's side, against the token as it was issued.

    :raises FrameRejected: with reason `short`, `unwrap`, `tag` (the token's secret or text does not fit), `key` or `sig`
    """
    try:
        inner = wrap_suite().decrypt(data[16:], enrol_private, info=REQUEST_DOMAIN + token.cluster + token.id)
    except (InvalidTag, ValueError):
        raise FrameRejected("unwrap", "join request") from None
    if len(inner) != BODY_BYTES + MAC_BYTES:
        raise FrameRejected("short", "join request")
    body, mac = inner[:BODY_BYTES], inner[BODY_BYTES:]
    if not hmac.compare_digest(mac, _mac(token.key(b"request"), _transcript(token, body))):
        raise FrameRejected("tag", "the token was altered, or is not the one that was issued", body=body)
    node_pub, wrap_pub, login_pub = body[:32], body[32:64], body[64:96]
    check_x25519_public(wrap_pub)
    check_ed25519_public(login_pub)
    verify(node_pub, REQUEST_DOMAIN, token.cluster + token.id + body[:112], body[112:])
    return JoinRequest(node_pub, wrap_pub, login_pub, body)


def seal_answer(document: bytes, token: JoinToken, request: JoinRequest, issuer: Issuer) -> bytes:
    """Seal what was granted to the key the request brought."""
    signature = issuer.sign(ANSWER_DOMAIN, _transcript(token, request.body) + document)
    mac = _mac(token.key(b"answer"), _transcript(token, request.body), document, signature)
    public = X25519PublicKey.from_public_bytes(request.wrap_pub)
    info = ANSWER_DOMAIN + token.cluster + token.id
    return bytes([GRANTED]) + wrap_suite().encrypt(document + signature + mac, public, info=info)


def seal_refusal(code: str, text: str, token: JoinToken, body: bytes) -> bytes:
    """Say no in a way only the issuer can."""
    parts = [part.encode()[:255] for part in (code, text)]
    said = b"".join(bytes([len(part)]) + part for part in parts)
    return bytes([REFUSED]) + said + _mac(token.key(b"answer"), b"refused", token.id + body, said)


def open_answer(data: bytes, token: JoinToken, keys: NodeKeys, body: bytes) -> tuple[bytes, bytes]:
    """Open an answer on the joining side; returns the document and the issuer's signature over it.

    :raises ConfigError: if the issuer refused, with its code as `reason`
    :raises FrameRejected: if the bytes are not an answer of the token's issuer
    """
    if not 1 < len(data) <= ANSWER_BYTES_MAX:
        raise FrameRejected("short" if len(data) < 2 else "size", "join answer")
    if data[0] == REFUSED:
        raise _refusal(data, token, body)
    if data == UNKNOWN_ANSWER:
        raise FrameRejected("member", "no token of this id is known, says somebody")
    if data[0] != GRANTED:
        raise FrameRejected("kind", "join answer")
    try:
        inner = wrap_suite().decrypt(
            data[1:], keys.wrap_privates[0], info=ANSWER_DOMAIN + token.cluster + token.id
        )
    except (InvalidTag, ValueError):
        raise FrameRejected("unwrap", "join answer") from None
    if len(inner) < 64 + MAC_BYTES:
        raise FrameRejected("short", "join answer")
    document, signature, mac = (
        inner[: -64 - MAC_BYTES],
        inner[-64 - MAC_BYTES : -MAC_BYTES],
        inner[-MAC_BYTES:],
    )
    if not hmac.compare_digest(
        mac, _mac(token.key(b"answer"), _transcript(token, body), document, signature)
    ):
        raise FrameRejected("tag", "an answer that is not of the token's issuer")
    return document, signature


def check_answer_signature(
    document: bytes, signature: bytes, token: JoinToken, body: bytes, issuer_pub: bytes
) -> None:
    """Check the issuer's signature, once its certificate was checked against the token's authority.

    :raises FrameRejected: with reason `sig`
    """
    verify(issuer_pub, ANSWER_DOMAIN, _transcript(token, body) + document, signature)


def _refusal(data: bytes, token: JoinToken, body: bytes) -> Exception:
    reader = Reader(data[1:])
    code, text = reader.text(), reader.text()
    said, mac = data[1 : 1 + reader.at], reader.take(MAC_BYTES)
    reader.end()
    if not hmac.compare_digest(mac, _mac(token.key(b"answer"), b"refused", token.id + body, said)):
        return FrameRejected("tag", "a refusal that is not of the token's issuer")
    return ConfigError(f"the mesh refused to let {token.name} join: {text}", item="token", reason=code)

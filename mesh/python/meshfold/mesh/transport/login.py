"""How a transport logs in at a NATS server: JWT and key, creds file, user and password, token, nkey, TLS."""

from __future__ import annotations

import base64
import binascii
import json
import re
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from meshfold.core.errors import ConfigError, FrameRejected
from meshfold.mesh.broker.jwt import key_text
from meshfold.mesh.files import read_named_text

__all__ = ("Login", "check_login", "jwt_expiry_s", "login_faults", "read_seed", "tls_context")

_CREDS = re.compile(
    r"-{3,}BEGIN NATS USER JWT-{3,}\s*(?P<jwt>[\w.-]+)\s*-{3,}END NATS USER JWT-{3,}"
    r".*?-{3,}BEGIN USER NKEY SEED-{3,}\s*(?P<seed>[A-Z2-7]+)\s*-{3,}END USER NKEY SEED-{3,}",
    re.DOTALL,
)
SEED_PREFIX = 18 << 3
USER_PREFIX = 20 << 3
CREDS_BYTES_MAX = 64 * 1024
#: A login that a voter sends lives a day; twice that is not ours, whatever the clocks are.
LOGIN_S_MAX = 2 * 86_400


@dataclass(frozen=True, slots=True)
class Login:
    """What a client shows the server. Secrets never appear in its text form."""

    #: gives the user JWT, anew at each connect
    jwt: Callable[[], str] | None = field(default=None, repr=False)
    #: a login that only asks for a new one, where the server no longer takes the first
    narrow: Callable[[], str] | None = field(default=None, repr=False)
    #: signs the server's nonce with the login key
    sign: Callable[[bytes], bytes] | None = field(default=None, repr=False)
    #: public nkey text, for servers that know users by key alone
    nkey: str | None = None
    user: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = field(default=None, repr=False)

    @classmethod
    def creds(cls, path: str | Path) -> Self:
        """Read a creds file as `nsc` writes it; the file is read anew at each connect, so a renewed one is taken up.

        :raises ConfigError: if it cannot be read or is none
        """
        path = Path(path)
        _, seed = _read_creds(path)
        return cls(jwt=lambda: _read_creds(path)[0], sign=read_seed(seed, str(path)).sign)

    @classmethod
    def nkey_seed(cls, path: str | Path) -> Self:
        """Read a file that holds an nkey user seed (`SU…`).

        :raises ConfigError: if it cannot be read or is none
        """
        key = read_seed(read_named_text(Path(path), CREDS_BYTES_MAX, str(path)).strip(), str(path))
        public = key.public_key().public_bytes_raw()
        return cls(sign=key.sign, nkey=key_text("user", public))

    def over(self, tls: ssl.SSLContext | None) -> Login:
        """The same login over TLS."""
        return replace(self, tls=tls)

    def narrowed(self) -> Login:
        """The login that only asks for a new one."""
        return replace(self, jwt=self.narrow, narrow=None)

    def options(self) -> dict[str, Any]:
        """The arguments nats-py takes."""
        found: dict[str, Any] = {}
        if self.sign is not None:
            sign = self.sign
            found["signature_cb"] = lambda nonce: base64.b64encode(sign(nonce.encode()))
        if self.jwt is not None:
            jwt = self.jwt
            found["user_jwt_cb"] = lambda: jwt().encode()
        for name in ("user", "password", "token", "tls"):
            value = getattr(self, name)
            if value is not None:
                found[name] = value
        return found


def _read_creds(path: Path) -> tuple[str, str]:
    match = _CREDS.search(read_named_text(path, CREDS_BYTES_MAX, str(path)))
    if match is None:
        raise ConfigError(
            f"{path} is no creds file",
            fix="it holds a user JWT and a seed, as `nsc` writes them",
            item=str(path),
        )
    return match["jwt"], match["seed"]


def read_seed(text: str, item: str) -> Ed25519PrivateKey:
    """Return the key of an nkey user seed (`SU…`).

    :raises ConfigError: if the text is none
    """
    try:
        raw = base64.b32decode(text + "=" * (-len(text) % 8))
    except binascii.Error:
        raw = b""
    kind = (raw[0] & 7) << 5 | raw[1] >> 3 if len(raw) == 36 else -1
    if kind != USER_PREFIX or raw[0] & 0xF8 != SEED_PREFIX:
        raise ConfigError(f"{item} holds no user seed", fix="a user seed begins with SU", item=item)
    if binascii.crc_hqx(raw[:34], 0).to_bytes(2, "little") != raw[34:]:
        raise ConfigError(f"the seed in {item} is damaged: its checksum does not hold", item=item)
    return Ed25519PrivateKey.from_private_bytes(raw[2:34])


def tls_context(
    ca: str | Path | None = None, cert: str | Path | None = None, key: str | Path | None = None
) -> ssl.SSLContext:
    """Return a TLS context that checks the server's certificate and name; there is no way to switch that off.

    :param ca: file with the authorities to trust instead of the system's
    :param cert: this client's certificate, with its `key`
    :raises ConfigError: if a file cannot be used
    """
    for item in (ca, cert, key):
        if item is not None and not Path(item).is_file():
            raise ConfigError(f"no file {item}", item=str(item))
    try:
        context = ssl.create_default_context(cafile=str(ca) if ca else None)
        if cert is not None:
            context.load_cert_chain(str(cert), str(key) if key else None)
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(f"TLS files cannot be used: {error}", item=str(cert or ca)) from error
    return context


def _claims(jwt: str) -> dict[str, Any]:
    """What a JWT says; empty if it is not readable here."""
    try:
        body = jwt.split(".")[1]
        found = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (IndexError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def jwt_expiry_s(jwt: str) -> int | None:
    """Seconds since 1970 at which a user JWT ends; None if it has no end or is not readable here."""
    expiry = _claims(jwt).get("exp")
    return expiry if isinstance(expiry, int) and expiry > 0 else None


def login_faults(jwt: str) -> list[str]:
    """What makes a user JWT less safe than it could be: it works without its key, or has no end."""
    nats = _claims(jwt).get("nats")
    faults = (
        ["is a bearer's: whoever sees it can use it"]
        if isinstance(nats, dict) and nats.get("bearer_token")
        else []
    )
    return faults if jwt_expiry_s(jwt) is not None else [*faults, "has no end"]


def check_login(jwt: str) -> None:
    """Return if a login that a voter sent may be kept.

    :raises FrameRejected: with reason `format` or `time` if it is a bearer's, or has no end or too late a one
    """
    faults = login_faults(jwt)
    expiry_s = jwt_expiry_s(jwt)
    if expiry_s is None:
        raise FrameRejected("time", "a login without an end")
    if faults:
        raise FrameRejected("format", "a bearer's login")
    if expiry_s > time.time() + LOGIN_S_MAX:
        raise FrameRejected("time", "a login that ends too late")

"""Addresses: six tokens that name a route everywhere (S1).

Invariants: the text of an address is injective; every token is non-empty, made of `[a-z0-9-]` and `_hh` escapes, and at
most 48 bytes long; parsing accepts canonical text only, so that text -> address -> text is the identity.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from meshfold.core.errors import WiringError
from meshfold.core.registry import LAYERS, PLANES, VARIANT_PLANES

__all__ = ("TOKEN_BYTES_MAX", "Address", "escape_token", "unescape_token")

TOKEN_BYTES_MAX: Final = 48
#: Names that brokers and this runtime keep for themselves: no token of a route, so that no listing can mislead (HS7).
_RESERVED: Final = frozenset(("$js", "$sys", "$kv", "$o", "raft", "_mf", "_inbox"))
_PLAIN: Final = frozenset(b"abcdefghijklmnopqrstuvwxyz0123456789-")
_TOKEN: Final = re.compile(r"(?:[a-z0-9-]|_[0-9a-f]{2})+")


def escape_token(text: str) -> str:
    """Return `text` as an address token: bytes outside `[a-z0-9-]` become `_` and two hex digits.

    :raises WiringError: if `text` is empty, not encodable as UTF-8, or longer than 48 bytes once escaped
    """
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        raise WiringError(
            "a route token holds a lone surrogate", fix="use valid text", item="token"
        ) from None
    token = "".join(chr(byte) if byte in _PLAIN else f"_{byte:02x}" for byte in raw)
    if not token:
        raise WiringError("a route token is empty", fix="give every token at least one character", item=text)
    if len(token) > TOKEN_BYTES_MAX:
        raise WiringError(
            f"route token {text[:60]!r} is {len(token)} bytes long once escaped",
            fix=f"use at most {TOKEN_BYTES_MAX} bytes",
            item=text,
        )
    return token


def unescape_token(token: str) -> str:
    """Return the text that `token` stands for.

    :raises WiringError: if `token` is not the canonical escape of valid UTF-8 text
    """
    if not _TOKEN.fullmatch(token) or len(token) > TOKEN_BYTES_MAX:
        raise WiringError(
            f"{token[:60]!r} is not a route token",
            fix="tokens are 1-48 bytes of a-z, 0-9, '-' and escapes such as _5f",
            item=token,
        )
    raw = re.sub(rb"_([0-9a-f]{2})", lambda match: bytes([int(match[1], 16)]), token.encode())
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise WiringError(f"route token {token!r} is not UTF-8 once unescaped", item=token) from None
    if escape_token(text) != token:
        raise WiringError(
            f"route token {token!r} escapes what needs no escape",
            fix=f"write {escape_token(text)!r}",
            item=token,
        )
    return text


@dataclass(frozen=True)
class Address:
    """Where a route lives: plane, layer, owner, family, stream, variant (S1), each token escaped.

    Make one with `Address.of` (plain text per token) or `Address.parse` (the address's own text).
    """

    plane: str
    layer: str
    owner: str
    family: str
    stream: str
    variant: str

    def __post_init__(self) -> None:
        if self.plane not in PLANES:
            raise WiringError(
                f"unknown plane {self.plane!r}", fix=f"use one of {', '.join(PLANES)}", item=self.plane
            )
        if self.layer not in LAYERS:
            raise WiringError(
                f"unknown layer {self.layer!r}", fix=f"use one of {', '.join(LAYERS)}", item=self.layer
            )
        planes = VARIANT_PLANES.get(self.variant)
        if planes is None:
            raise WiringError(
                f"unknown variant {self.variant!r}",
                fix=f"use one of {', '.join(VARIANT_PLANES)}",
                item=self.variant,
            )
        if self.plane not in planes:
            raise WiringError(
                f"variant {self.variant!r} is not valid on plane {self.plane!r}",
                fix=f"it goes with {', '.join(planes)}",
                item=self.variant,
            )
        if self.layer == "shadow" and self.plane != "write":
            raise WiringError("layer 'shadow' exists only on plane 'write'", item=self.layer)
        for token in (self.owner, self.family, self.stream):
            if unescape_token(token).lower() in _RESERVED:
                raise WiringError(
                    f"route token {unescape_token(token)!r} is reserved", fix="use another name", item=token
                )

    @classmethod
    def of(
        cls,
        owner: str,
        family: str,
        stream: str,
        *,
        plane: str = "read",
        layer: str = "logical",
        variant: str = "meta",
    ) -> Address:
        """Make an address from plain text, escaping each token.

        :raises WiringError: if a token is empty or too long, or a plane, layer or variant is unknown or does not fit
        """
        return cls(plane, layer, escape_token(owner), escape_token(family), escape_token(stream), variant)

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read the full form `read.logical.kiln-7.thermal.temperature.meta` or the short form `kiln-7/thermal/temperature`.

        :raises WiringError: if `text` is neither, naming the token at fault
        """
        if "/" in text:
            tokens = text.split("/")
            if len(tokens) == 3:
                return cls("read", "logical", tokens[0], tokens[1], tokens[2], "meta")
        else:
            tokens = text.split(".")
            if len(tokens) == 6:
                return cls(*tokens)
        raise WiringError(
            f"{text[:80]!r} is not a route",
            fix="write owner/family/stream, or all six tokens: plane.layer.owner.family.stream.variant",
            item=text,
        )

    @property
    def tokens(self) -> tuple[str, str, str, str, str, str]:
        """The six escaped tokens, most general first."""
        return (self.plane, self.layer, self.owner, self.family, self.stream, self.variant)

    @cached_property
    def text(self) -> str:
        """The full form, which keys subjects, grants, keys, retention, audit and credit."""
        return ".".join(self.tokens)

    @cached_property
    def short(self) -> str:
        """`owner/family/stream` where plane, layer and variant are the defaults, else the full form."""
        if (self.plane, self.layer, self.variant) == ("read", "logical", "meta"):
            return f"{self.owner}/{self.family}/{self.stream}"
        return self.text

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of the full form, 32 bytes."""
        return hashlib.sha256(self.text.encode()).digest()

    @property
    def tag(self) -> bytes:
        """The first 8 bytes of `digest`: the address on the wire and in event ids."""
        return self.digest[:8]

    def __str__(self) -> str:
        return self.short

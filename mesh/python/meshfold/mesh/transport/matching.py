"""NATS subjects: whether they are well formed, and whether a pattern takes them."""

from __future__ import annotations

from meshfold.core.errors import WiringError

__all__ = ("check_headers", "check_subject", "subject_matches")

SUBJECT_BYTES_MAX = 1024
#: The server refuses larger header blocks with a closed connection; ours are tiny.
HEADERS_BYTES_MAX = 16 * 1024
HEADER_FIXED_BYTES = len(b"NATS/1.0\r\n\r\n")


def subject_matches(pattern: str, subject: str) -> bool:
    """Whether a subscription pattern (`*` one token, `>` the rest) takes a subject or covers a narrower pattern."""
    wanted, given = pattern.split("."), subject.split(".")
    for at, token in enumerate(wanted):
        if token == ">":
            return len(given) > at
        if at >= len(given) or given[at] == ">" or (token not in ("*", given[at])):
            return False
    return len(wanted) == len(given)


def check_subject(subject: str, *, wildcards: bool) -> str:
    """Return the subject.

    :raises WiringError: if it is empty, too long, has an empty token, white space or control characters, or wildcards
        where none may be
    """
    tokens = subject.split(".")
    bad = (
        not all(tokens)
        or len(subject.encode()) > SUBJECT_BYTES_MAX
        or any(character.isspace() or ord(character) < 32 for character in subject)
        or ">" in tokens[:-1]
        or (not wildcards and ("*" in tokens or ">" in tokens))
    )
    if bad:
        raise WiringError(
            f"{subject[:80]!r} is no subject",
            fix="tokens joined by dots, without spaces" + ("" if wildcards else " and wildcards"),
            item=subject[:80],
        )
    return subject


def check_headers(headers: dict[str, str]) -> int:
    """Return the bytes these headers take on the wire.

    :raises WiringError: if a key or value cannot be one, or all together are too large
    """
    size = HEADER_FIXED_BYTES
    for key, value in headers.items():
        if not key or any(not 33 <= ord(c) <= 126 or c == ":" for c in key) or "\r" in value or "\n" in value:
            raise WiringError(
                f"{key[:40]!r} is no header", fix="printable key, value on one line", item=key[:40]
            )
        size += len(key.encode()) + len(value.encode()) + 4
    if size > HEADERS_BYTES_MAX:
        raise WiringError(f"headers of {size} bytes", fix=f"use at most {HEADERS_BYTES_MAX}", item="headers")
    return size

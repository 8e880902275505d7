"""Capabilities: actions on a pattern of addresses.

A pattern is an exact address, a prefix of whole tokens ending in `>`, or `>` alone. There is no other wildcard and no
regular expression, so that `covers` is total and cheap.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from meshfold.core import Address
from meshfold.core.errors import FrameRejected
from meshfold.core.registry import Action
from meshfold.security.caveat import Caveat, tightens

__all__ = ("Capability", "check_pattern", "covers", "matches", "pattern_covers")

PATTERN_BYTES_MAX: Final = 200
ADDRESS_TOKENS: Final = 6
_TOKEN: Final = re.compile(r"(?:[a-z0-9-]|_[0-9a-f]{2})+")
_ALL_ACTIONS: Final = sum(Action)


@dataclass(frozen=True, slots=True)
class Capability:
    """What may be done where, under which caveats (`meshfold.security.caveat`), in rising order of their kinds."""

    actions: Action
    pattern: str
    caveats: tuple[Caveat, ...] = ()


def check_pattern(pattern: str) -> None:
    """Refuse what is not a pattern.

    :raises FrameRejected: with reason `pattern` or `size`
    """
    if not 0 < len(pattern) <= PATTERN_BYTES_MAX:
        raise FrameRejected("size", "a pattern has 1 to 200 bytes")
    tokens = pattern.split(".")
    prefix = tokens[-1] == ">"
    names = tokens[:-1] if prefix else tokens
    if not all(_TOKEN.fullmatch(token) for token in names):
        raise FrameRejected("pattern", pattern[:80])
    if (len(names) >= ADDRESS_TOKENS) if prefix else (len(names) != ADDRESS_TOKENS):
        raise FrameRejected("pattern", "six tokens, or fewer and a final >")


def matches(pattern: str, address: Address) -> bool:
    """Whether the pattern names the address."""
    return pattern_covers(pattern, address.text)


def pattern_covers(parent: str, child: str) -> bool:
    """Whether every address of `child` is one of `parent`, token by token."""
    above, below = parent.split("."), child.split(".")
    if above[-1] != ">":
        return above == below
    # `a.>` holds what has at least one more token; the child's own `>` counts as one.
    return len(below) >= len(above) and below[: len(above) - 1] == above[:-1]


def covers(parent: Capability, child: Capability) -> bool:
    """Whether `child` allows nothing that `parent` does not. Total."""
    narrower = child.actions & ~parent.actions == 0
    return (
        narrower
        and pattern_covers(parent.pattern, child.pattern)
        and all(any(tightens(above, below) for below in child.caveats) for above in parent.caveats)
    )


def known_actions(bits: int) -> Action:
    """Bits as actions.

    :raises FrameRejected: with reason `format` for no bit or an unknown one
    """
    if bits == 0 or bits & ~_ALL_ACTIONS:
        raise FrameRejected("format", "unknown or no action bits")
    return Action(bits)

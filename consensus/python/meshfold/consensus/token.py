"""Fencing tokens: what an effect carries, so that its sink can refuse a holder whose time is over (CONSENSUS 1.7).

Rules: a token's number is the log index of the grant, so it rises over restarts and is never handed out twice; tokens are
compared within one election only; a lease alone never authorises an effect.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Self

from meshfold.core.errors import WiringError

__all__ = ("NAME_BYTES_MAX", "Token", "check_name")

NAME_BYTES_MAX: Final = 128
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._/-]*")


def check_name(name: str) -> str:
    """Return the name of an election if it can be one: `a-z 0-9 . _ / -`, beginning with a letter or digit.

    :raises WiringError: if it cannot
    """
    if len(name) > NAME_BYTES_MAX or _NAME.fullmatch(name) is None:
        raise WiringError(
            f"no election can be named {name[:40]!r}",
            fix=f"use a-z, 0-9 and . _ / -, at most {NAME_BYTES_MAX} characters, beginning with a letter or digit",
            item="election",
        )
    return name


@dataclass(frozen=True, slots=True)
class Token:
    """The right to act as leader of one election, until somebody holds a higher one."""

    election: str
    #: log index of the grant
    number: int

    def __str__(self) -> str:
        return f"{self.election}:{self.number}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `election:number`, as `str` writes it.

        :raises WiringError: if it is no token
        """
        name, _, number = text.rpartition(":")
        if not (number.isascii() and number.isdigit() and len(number) <= 20) or int(number) == 0:
            raise WiringError(f"{text[:60]!r} is no token", fix="write election:number", item="token")
        return cls(check_name(name), int(number))

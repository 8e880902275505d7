"""How long a lease lasts, on both sides of it (CONSENSUS 1.6).

Invariant: the voter frees a lease later than its holder gives it up, whatever their clocks' rates within the drift: the
holder counts from when it sent, the voter from when that arrived, and the voter waits longer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from meshfold.core.errors import ConfigError

__all__ = ("LAN", "LeaseTiming", "RaftTiming")

_MS: Final = 1_000_000
#: How far the rates of two clocks may be apart.
DRIFT: Final = 0.01


@dataclass(frozen=True, slots=True)
class LeaseTiming:
    """Times of a lease in milliseconds. The voter's apply; a holder is told them with its grant."""

    lease_ms: int = 300
    keep_alive_ms: int = 50
    #: the smallest election timeout of the voters: how long an earlier leader may have answered unseen
    election_ms: int = 300

    def __post_init__(self) -> None:
        if not 0 < self.keep_alive_ms * 3 <= self.lease_ms or self.election_ms < self.lease_ms:
            raise ConfigError(
                f"impossible lease timing {self}",
                fix="a lease takes at least three keep-alives, and an election timeout at least a lease",
                item="timing",
            )

    @property
    def held_ns(self) -> int:
        """How long the holder may act after it sent a keep-alive that was answered."""
        return self.lease_ms * _MS

    @property
    def kept_ns(self) -> int:
        """How long the voter keeps others out after a keep-alive arrived."""
        return int(self.lease_ms * _MS * (1 + DRIFT))

    @property
    def inherited_ns(self) -> int:
        """How long a new leader of the voters keeps others out of a lease that it finds in the log."""
        return int((self.lease_ms + self.election_ms) * _MS * (1 + DRIFT))


#: Voters and holders within one site.
LAN: Final = LeaseTiming()


@dataclass(frozen=True, slots=True)
class RaftTiming:
    """Times of a group of voters. Heartbeats go out every tick; an election begins after one to two timeouts."""

    tick_ms: int = 50
    election_ticks: int = 6

    def __post_init__(self) -> None:
        if self.tick_ms <= 0 or self.election_ticks < 3:
            raise ConfigError(
                f"impossible timing {self}", fix="an election takes at least three ticks", item="timing"
            )

    @property
    def election_ns(self) -> int:
        """The smallest election timeout."""
        return self.tick_ms * self.election_ticks * _MS

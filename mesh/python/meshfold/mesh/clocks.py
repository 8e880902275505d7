"""The hybrid logical clock that stamps frames.

HLC: 48 bits of wall milliseconds, 16 bits of counter; it never goes back, and takes in what it sees from others up to
the skew limit (Kulkarni et al., "Logical Physical Clocks", 2014, section 4).
"""

from __future__ import annotations

from collections.abc import Callable

from meshfold.core.ports import Clock

__all__ = ("HybridClock",)

#: A peer further ahead than this does not move our clock (SECURITY: skew limit).
SKEW_MS_MAX = 60_000


class HybridClock:
    """Stamps what leaves this node, later than everything it has sent or seen."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last = 0
        self._reserve: Callable[[int], int] | None = None
        self._reserved_ms = 0

    @property
    def clock(self) -> Clock:
        """The physical clock underneath."""
        return self._clock

    def now_ms(self) -> int:
        """Wall clock, milliseconds since 1970."""
        return self._clock.now()[0] // 1_000_000

    def reserve_from(self, past_ms: int, reserve: Callable[[int], int]) -> None:
        """Stamp nothing up to `past_ms`, which an earlier life may have used, and nothing that was not reserved before.

        :param reserve: makes stamps from a time on safe to use, durably, and returns until when
        """
        self._last = max(self._last, (past_ms << 16) | 0xFFFF)
        self._reserve = reserve
        self._reserved_ms = 0

    def stamp(self) -> int:
        """Return the next timestamp (u64), greater than every one before."""
        self._last = max(self._last + 1, self.now_ms() << 16)
        if self._reserve is not None and self._last >> 16 >= self._reserved_ms:
            self._reserved_ms = self._reserve(self._last >> 16)
        return self._last

    def witness(self, stamp: int) -> None:
        """Take in a peer's timestamp; one beyond the skew limit is ignored."""
        if (stamp >> 16) <= self.now_ms() + SKEW_MS_MAX:
            self._last = max(self._last, stamp)

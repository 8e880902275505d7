"""Clocks: the system's, and one that tests and simulations move by hand."""

from __future__ import annotations

import threading
import time

__all__ = ("ManualClock", "SystemClock")

#: The monotonic clock that goes on while the machine is suspended, where there is one: a lease must not outlast a closed lid.
_RUNNING = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class SystemClock:
    """The clock of this machine."""

    def now(self) -> tuple[int, int]:
        """Return (wall ns, monotonic ns); the second counts the time of a suspended machine where the system can tell."""
        return time.time_ns(), time.clock_gettime_ns(_RUNNING)

    @staticmethod
    def wall_ns() -> int:
        """The wall clock alone, for what asks a million times a second."""
        return time.time_ns()

    def sleep(self, seconds: float) -> None:
        """Wait; nothing for zero or less."""
        time.sleep(max(0.0, seconds))


class ManualClock:
    """A clock that stands still until it is moved. Sleeping moves it, so whatever waits on it needs no time at all.

    :param wall_ns: where the wall clock begins, ns since 1970 UTC
    """

    def __init__(self, wall_ns: int = 0) -> None:
        self._lock = threading.Lock()
        self._wall_ns = wall_ns
        self._mono_ns = 0

    def now(self) -> tuple[int, int]:
        """Return (wall ns, monotonic ns)."""
        with self._lock:
            return self._wall_ns, self._mono_ns

    def advance(self, seconds: float) -> None:
        """Move both clocks on.

        :raises ValueError: for a negative time; a monotonic clock never goes back
        """
        if seconds < 0:
            raise ValueError(f"a clock does not go back: {seconds} s")
        with self._lock:
            self._wall_ns += round(seconds * 1e9)
            self._mono_ns += round(seconds * 1e9)

    def set_wall(self, wall_ns: int) -> None:
        """Set the wall clock, forward or back, as an administrator or NTP may; the monotonic one goes on as it was."""
        with self._lock:
            self._wall_ns = wall_ns

    def sleep(self, seconds: float) -> None:
        """Advance by the time, at once; nothing for zero or less."""
        self.advance(max(0.0, seconds))

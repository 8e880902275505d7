"""Time as an input."""

from __future__ import annotations

from typing import Protocol

__all__ = ("Clock",)


class Clock(Protocol):
    """Tells the time; tests and simulations give a virtual one."""

    def now(self) -> tuple[int, int]:
        """Return (wall clock in ns since 1970 UTC, monotonic clock in ns); the second never goes back."""
        ...

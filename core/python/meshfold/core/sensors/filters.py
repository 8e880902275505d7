"""Filters with a memory, for `graph.pipe(route).filter(...)` or by hand."""

from __future__ import annotations

import math

from meshfold.core.errors import WiringError

__all__ = ("ChangeFilter", "ThresholdFilter")


class ChangeFilter:
    """True for the first value, and for each that differs from the last passed one by at least `by`.

    :raises WiringError: for a negative `by`
    """

    def __init__(self, by: float = 0.0) -> None:
        if not by >= 0:
            raise WiringError(f"a change of {by}", fix="use 0 or more", item="by")
        self._by = by
        self._last: float | None = None

    def __call__(self, value: float) -> bool:
        """Whether the value passes. A NaN never does: it is no change that can be measured."""
        if math.isnan(value):
            return False
        if self._last is not None and (value == self._last or abs(value - self._last) < self._by):
            return False
        self._last = value
        return True


class ThresholdFilter:
    """True once a value rises to `above`, and again only after one has fallen below `above - hysteresis`.

    :raises WiringError: for a negative hysteresis
    """

    def __init__(self, above: float, hysteresis: float = 0.0) -> None:
        if not hysteresis >= 0:
            raise WiringError(f"a hysteresis of {hysteresis}", fix="use 0 or more", item="hysteresis")
        self._above = above
        self._rearm_below = above - hysteresis
        self._armed = True

    def __call__(self, value: float) -> bool:
        """Whether the value crosses the threshold upwards."""
        if self._armed and value >= self._above:
            self._armed = False
            return True
        if value < self._rearm_below:
            self._armed = True
        return False

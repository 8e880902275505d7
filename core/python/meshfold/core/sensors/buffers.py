"""Bounded places for samples: a ring that counts what it loses, two halves that never tear, a counter that finds gaps."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

from meshfold.core.errors import WiringError

__all__ = ("BoundedRingBuffer", "DoubleBuffer", "SequenceCounter")

T = TypeVar("T")


class BoundedRingBuffer(Generic[T]):
    """Keeps the newest `capacity` items. Thread-safe.

    :raises WiringError: for a capacity below 1
    """

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise WiringError(f"a ring of {capacity}", fix="use at least 1", item="capacity")
        self._items: deque[T] = deque(maxlen=capacity)
        self._lock = threading.Lock()
        #: Items that gave way to newer ones before they were taken.
        self.overwritten = 0

    def push(self, item: T) -> T | None:
        """Add one; returns the oldest if it had to give way."""
        with self._lock:
            lost = self._items[0] if len(self._items) == self._items.maxlen else None
            if lost is not None or len(self._items) == self._items.maxlen:
                self.overwritten += 1
            self._items.append(item)
            return lost

    def drain(self) -> list[T]:
        """Take everything, oldest first."""
        with self._lock:
            items = list(self._items)
            self._items.clear()
            return items

    def snapshot(self) -> list[T]:
        """Everything, oldest first; it stays."""
        with self._lock:
            return list(self._items)

    def __len__(self) -> int:
        return len(self._items)


class DoubleBuffer(Generic[T]):
    """A writer fills one list while readers see the last complete one. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._back: list[T] = []
        self._front: tuple[T, ...] = ()
        #: How often the halves changed places.
        self.swaps = 0

    def write(self, item: T) -> None:
        """Add one to what readers do not see yet."""
        with self._lock:
            self._back.append(item)

    def swap(self) -> tuple[T, ...]:
        """Show readers what was written since the last swap, and return it."""
        with self._lock:
            self._front, self._back = tuple(self._back), []
            self.swaps += 1
            return self._front

    @property
    def front(self) -> tuple[T, ...]:
        """The last complete half."""
        return self._front


class SequenceCounter:
    """Numbers of a device that count up and wrap round; finds what is missing between two.

    :param bits: the counter wraps at 2^bits
    :raises WiringError: unless bits is 1 to 64
    """

    def __init__(self, bits: int = 16) -> None:
        if not 1 <= bits <= 64:
            raise WiringError(f"a counter of {bits} bits", fix="use 1 to 64", item="bits")
        self._modulus = 1 << bits
        self._last: int | None = None
        #: Numbers that never came.
        self.missing = 0
        #: Numbers that came again or late.
        self.repeated = 0

    def see(self, number: int) -> int:
        """Note a number; returns how many are missing before it. What is more than half the range back came late.

        :raises ValueError: for a number outside the range
        """
        if not 0 <= number < self._modulus:
            raise ValueError(f"{number} is not in 0..{self._modulus - 1}")
        if self._last is None:
            self._last = number
            return 0
        ahead = (number - self._last) % self._modulus
        if ahead == 0 or ahead > self._modulus // 2:
            self.repeated += 1
            return 0
        self._last = number
        self.missing += ahead - 1
        return ahead - 1

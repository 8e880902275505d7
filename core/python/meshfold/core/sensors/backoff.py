"""Trying again: how often, and how long between."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeVar

from meshfold.core.clocks import SystemClock
from meshfold.core.errors import WiringError

__all__ = ("BackoffPolicy", "RetryLoop", "Sleeper")

T = TypeVar("T")


class Sleeper(Protocol):
    """What waits between tries: `SystemClock` does, `ManualClock` does without waiting."""

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


@dataclass(frozen=True)
class BackoffPolicy:
    """Delays that grow: `first_s`, then times `factor`, never above `max_s`; `attempts` tries in all.

    :raises WiringError: for fewer than one attempt, a negative delay or a factor below 1
    """

    attempts: int = 3
    first_s: float = 0.1
    factor: float = 2.0
    max_s: float = 10.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.first_s < 0 or self.factor < 1 or self.max_s < 0:
            raise WiringError(
                f"no backoff: {self}",
                fix="attempts from 1, delays from 0 s, factor from 1",
                item="backoff",
            )

    def delays(self) -> Iterator[float]:
        """The seconds before the second, third, ... attempt."""
        delay = self.first_s
        for _ in range(self.attempts - 1):
            yield min(delay, self.max_s)
            delay = min(delay * self.factor, self.max_s)


class RetryLoop:
    """Calls until it works or the policy is used up."""

    def __init__(self, policy: BackoffPolicy, clock: Sleeper | None = None) -> None:
        self._policy = policy
        self._clock = clock or SystemClock()
        #: Tries that failed, over all calls.
        self.failures = 0

    def call(self, work: Callable[[], T]) -> T:
        """Return what `work` returns.

        :raises Exception: what the last attempt raised; KeyboardInterrupt and its like at once
        """
        for delay in self._policy.delays():
            try:
                return work()
            except Exception:  # noqa: BLE001 - whatever a driver raises is tried again
                self.failures += 1
            self._clock.sleep(delay)
        try:
            return work()
        except Exception:
            self.failures += 1
            raise

"""Lifecycles: a target state, what is observed, and a supervisor that leads one to the other.

Intent and observation may have different schemas: `matches` tells whether an observation fulfils an intent, and
`plan` which request is next on the way there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from meshfold.core.errors import WiringError
from meshfold.core.event import Event
from meshfold.core.stream import Edge
from meshfold.core.writes.binding import Shadow
from meshfold.core.writes.guarded import RetryPolicy

if TYPE_CHECKING:
    from meshfold.core.graph import Graph
    from meshfold.core.route import Route

__all__ = ("Lifecycle", "LifecycleStatus")

I = TypeVar("I")
O = TypeVar("O")
Phase = Literal["idle", "converged", "converging", "failed"]


@dataclass(frozen=True, slots=True)
class LifecycleStatus(Generic[I, O]):
    """Where a supervisor stands: its target, the newest observation, attempts at the present step."""

    phase: Phase
    target: I | None
    observed: O | None
    attempts: int
    next_epoch: int


class Lifecycle(Generic[I, O]):
    """Requests what leads to the target until it is observed; tries again by a policy, then gives up and says so.

    :param matches: whether an observation fulfils the target
    :param plan: the request to make now, given target and observation (None before the first); None: the target itself
    :param retry: for each step on the way; a new observation that is not the target begins the next step
    """

    def __init__(
        self,
        shadow: Shadow[I, O],
        graph: Graph,
        *,
        matches: Callable[[I, O], bool],
        plan: Callable[[I, O | None], I] | None = None,
        retry: RetryPolicy | None = None,
    ) -> None:
        self._shadow = shadow
        self._graph = graph
        self._matches = matches
        self._plan = plan or (lambda target, observed: target)
        self._retry = retry or RetryPolicy.exponential(8)
        self._target: list[I] = []
        self._epoch = 0
        self._attempts = 0
        self._last = 0
        self._step: str | None = None
        self._failed = False

    def target(self, value: I) -> None:
        """Set where to go; a failure before is forgotten.

        :raises EncodeError: if the value does not fit
        """
        self._shadow.binding.request.encode_value(value)
        self._target = [value]
        self._attempts, self._step, self._failed = 0, None, False

    def step(self, epoch: int | None = None) -> Event[I] | None:
        """Look, and make the request that is due; None if none is.

        :param epoch: None: the next
        :raises WiringError: if the epoch is not after the last one
        """
        now = self._epoch + 1 if epoch is None else epoch
        if now <= self._epoch:
            raise WiringError(
                f"epoch {now} is not after {self._epoch}", fix="epochs only move forward", item="epoch"
            )
        self._epoch = now
        if self.status().phase in ("idle", "converged", "failed"):
            return None
        observed = self._graph.latest(self._shadow.binding.reported)
        seen = None if observed is None else observed.id
        if self._attempts and seen != self._step:
            self._attempts = 0
        if self._attempts and now < self._next():
            return None
        if self._attempts >= self._retry.max_attempts:
            self._failed = True
            return None
        request = self._plan(self._target[0], None if observed is None else observed.value)
        self._step, self._last = seen, now
        self._attempts += 1
        parents = [] if observed is None else [observed.id]
        return self._shadow.request(request, epoch=now, parents=parents)

    def _next(self) -> int:
        return self._last + self._retry.wait(0, self._attempts) if self._attempts else self._epoch + 1

    def status(self) -> LifecycleStatus[I, O]:
        """Where it stands now."""
        observed = self._graph.latest(self._shadow.binding.reported)
        value = None if observed is None else observed.value
        if not self._target:
            return LifecycleStatus("idle", None, value, 0, self._epoch + 1)
        phase: Phase = "failed" if self._failed else "converging"
        if observed is not None and self._matches(self._target[0], observed.value):
            phase, self._failed = "converged", False
        return LifecycleStatus(phase, self._target[0], value, self._attempts, self._next())

    def follow(self, epochs: Route[int]) -> Edge:
        """Step whenever the integer on `epochs` grows."""

        def step(event: Event[int]) -> None:
            if event.value > self._epoch:
                self.step(event.value)

        return self._graph.observe(epochs, step)

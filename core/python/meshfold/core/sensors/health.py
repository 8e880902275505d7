"""Is the sensor alive? Its state is a route, so that others can watch it."""

from __future__ import annotations

import threading
from typing import Literal

from meshfold.core.clocks import SystemClock
from meshfold.core.errors import WiringError
from meshfold.core.graph import Graph
from meshfold.core.ports import Clock
from meshfold.core.route import Route

__all__ = ("SensorHealthWatchdog",)

Health = Literal["waiting", "ok", "stale"]


class SensorHealthWatchdog:
    """Publishes `waiting` (no sample yet), `ok` or `stale` on a route of text, each time it changes. Thread-safe.

    `check` finds that a sensor went silent: call it at a rhythm (`ManagedRunLoop(watchdog.check, ...)`). A beat needs none.

    :param stale_after_s: silence of so many seconds of the monotonic clock makes it stale
    :raises WiringError: for a time that is not above 0
    """

    def __init__(
        self, graph: Graph, route: Route[str], *, stale_after_s: float, clock: Clock | None = None
    ) -> None:
        if not stale_after_s > 0:
            raise WiringError(f"stale after {stale_after_s} s", fix="use more than 0 s", item="stale_after_s")
        self._graph = graph
        self._route = route
        self._limit_ns = round(stale_after_s * 1e9)
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._began_ns = self._clock.now()[1]
        self._last_ns: int | None = None
        self._state: Health = "waiting"
        graph.publish(route, self._state)

    @property
    def state(self) -> Health:
        """What was published last."""
        return self._state

    def beat(self) -> None:
        """A sample came."""
        with self._lock:
            self._last_ns = self._clock.now()[1]
            self._become("ok")

    def check(self) -> Health:
        """Look at the clock; returns the state. A sensor that never gave a sample becomes stale, too."""
        with self._lock:
            since_ns = self._clock.now()[1] - (self._began_ns if self._last_ns is None else self._last_ns)
            if since_ns >= self._limit_ns:
                self._become("stale")
            return self._state

    def _become(self, state: Health) -> None:
        if state != self._state:
            self._state = state
            self._graph.publish(self._route, state)

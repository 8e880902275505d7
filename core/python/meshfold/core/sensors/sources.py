"""Where samples come from: sources that ask the device, and sources that the device tells."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from meshfold.core.event import Event
from meshfold.core.graph import Graph
from meshfold.core.route import Route
from meshfold.core.sensors.backoff import BackoffPolicy, RetryLoop, Sleeper
from meshfold.core.sensors.health import SensorHealthWatchdog

__all__ = ("LocalSensorSource", "ReactiveSensorSource")

T = TypeVar("T")


class LocalSensorSource(Generic[T]):
    """Pull: each `poll` asks the device once and publishes what it says.

    :param read: asks the device; what it raises is tried again by `retry`
    :param health: told of every sample
    :param clock: waits between tries
    """

    def __init__(
        self,
        graph: Graph,
        route: Route[T],
        read: Callable[[], T],
        *,
        retry: BackoffPolicy | None = None,
        health: SensorHealthWatchdog | None = None,
        clock: Sleeper | None = None,
    ) -> None:
        self._graph = graph
        self._route = route
        self._read = read
        self._retry = RetryLoop(retry or BackoffPolicy(), clock)
        self._health = health

    @property
    def failures(self) -> int:
        """Reads that failed, those that a later try made good included."""
        return self._retry.failures

    def poll(self, **envelope: Any) -> Event[T]:
        """Read and publish one sample; `envelope` as for `Graph.publish`.

        :raises Exception: what the device's last failure was; nothing was published then
        :raises EncodeError: if the sample does not fit the route; nothing was published then
        """
        event = self._graph.publish(self._route, self._retry.call(self._read), **envelope)
        if self._health is not None:
            self._health.beat()
        return event


class ReactiveSensorSource(Generic[T]):
    """Push: the device's driver calls `emit`, from any thread."""

    def __init__(self, graph: Graph, route: Route[T], *, health: SensorHealthWatchdog | None = None) -> None:
        self._graph = graph
        self._route = route
        self._health = health

    def emit(self, value: T, **envelope: Any) -> Event[T]:
        """Publish one sample; `envelope` as for `Graph.publish`.

        :raises EncodeError: if the sample does not fit the route; nothing was published then
        """
        event = self._graph.publish(self._route, value, **envelope)
        if self._health is not None:
            self._health.beat()
        return event

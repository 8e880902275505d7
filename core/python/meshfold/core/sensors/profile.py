"""What a small device may do, held against what it does: sizes, rate, order, time and retention are measured.

A declaration proves nothing, so nothing here is declared by the device: `inspect` watches its route while it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

from meshfold.core.errors import WiringError
from meshfold.core.event import Event
from meshfold.core.graph import Graph
from meshfold.core.route import Route

__all__ = ("EmbeddedDeviceProfile", "Finding")

#: Events looked at in one inspection.
INSPECT_EVENTS_MAX = 4096


@dataclass(frozen=True)
class Finding:
    """One check of a profile: what was measured, what the limit is, and what to do if it does not hold."""

    check: str
    ok: bool
    measured: str
    limit: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{'ok  ' if self.ok else 'FAIL'} {self.check}: {self.measured} (limit {self.limit})" + (
            f"; {self.fix}" if self.fix and not self.ok else ""
        )


@dataclass(frozen=True)
class EmbeddedDeviceProfile:
    """The limits of a class of devices. Make one with `scalar_sensor` or `bulk_sensor`.

    :param inline_bytes_max: largest payload that travels with the event
    :param rate_hz_max: events a second, by device time
    :param retained_bytes_max: payload bytes the route keeps in memory
    :param bulk: the device makes large payloads; they belong on the bulk layer and are opened on demand (S15)
    """

    name: str
    inline_bytes_max: int
    rate_hz_max: float
    retained_bytes_max: int
    bulk: bool = False

    @classmethod
    def scalar_sensor(cls, name: str = "scalar sensor", *, rate_hz_max: float = 100.0) -> Self:
        """A sensor of single values: a few bytes each, a KiB kept."""
        return cls(name, inline_bytes_max=64, rate_hz_max=rate_hz_max, retained_bytes_max=1024)

    @classmethod
    def bulk_sensor(cls, name: str = "bulk sensor", *, rate_hz_max: float = 20.0) -> Self:
        """A camera, a scanner: the event says what there is, its payload is opened by who needs it."""
        return cls(name, inline_bytes_max=256, rate_hz_max=rate_hz_max, retained_bytes_max=4096, bulk=True)

    def inspect(self, graph: Graph, route: Route[Any], run: Callable[[], object]) -> tuple[Finding, ...]:
        """Run the device and measure what it does on its route.

        :param run: makes the device work for as long as is to be measured; at least two events must come of it
        :raises WiringError: if fewer than two came: there is nothing to judge
        """
        with graph.stream(route, replay_latest=False, capacity=INSPECT_EVENTS_MAX) as stream:
            run()
            events = list(stream.blocking(timeout=0))
        if len(events) < 2:
            raise WiringError(
                f"{len(events)} events on {route.text}: too few to judge a device",
                fix="let it run longer",
                item=route.text,
            )
        return (*self._of_events(events), *self._of_route(graph, route, events))

    def _of_events(self, events: Sequence[Event[Any]]) -> Iterator[Finding]:
        largest = max(_inline_bytes(event) for event in events)
        yield Finding(
            "inline payload",
            largest <= self.inline_bytes_max,
            f"{largest} bytes",
            f"{self.inline_bytes_max} bytes",
            "publish a reference and open the payload on demand" if self.bulk else "send less, or pack it",
        )
        seconds = (events[-1].time - events[0].time) / 1e9
        rate = (len(events) - 1) / seconds if seconds > 0 else float("inf")
        yield Finding(
            "rate",
            rate <= self.rate_hz_max,
            f"{rate:.1f} Hz by device time",
            f"{self.rate_hz_max:.1f} Hz",
            "sample less often, or stamp events with the device's time"
            if seconds <= 0
            else "sample less often",
        )
        backwards = sum(1 for one, two in pairwise(events) if two.time < one.time)
        yield Finding(
            "device time", backwards == 0, f"{backwards} steps back", "0", "stamp by a monotonic clock"
        )
        producers = {(event.producer, event.incarnation) for event in events}
        holes = (
            sum(1 for one, two in pairwise(events) if two.seq != one.seq + 1) if len(producers) == 1 else 0
        )
        yield Finding(
            "one producer",
            len(producers) == 1,
            f"{len(producers)} producers",
            "1",
            "give each device its route",
        )
        yield Finding(
            "sequence", holes == 0, f"{holes} gaps", "0", "publish in one place, drop before publishing"
        )

    def _of_route(self, graph: Graph, route: Route[Any], events: Sequence[Event[Any]]) -> Iterator[Finding]:
        layer = route.address.split(".")[1]
        expected = "bulk" if self.bulk else "not bulk"
        yield Finding(
            "layer", (layer == "bulk") == self.bulk, layer, expected, "declare the route on that layer"
        )
        kept = sum(_inline_bytes(event) for event in events if graph.lineage(event.id) is not None)
        yield Finding(
            "retention",
            kept <= self.retained_bytes_max,
            f"{kept} bytes kept",
            f"{self.retained_bytes_max} bytes",
            "graph.configure_retention(route, history=...)",
        )


def _inline_bytes(event: Event[Any]) -> int:
    payload = event.payload
    return 0 if payload is None else len(payload)

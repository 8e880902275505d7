"""Telemetry of this host as routes: what the edge node of `up` publishes."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any

import psutil
from meshfold.core import Graph, Route, Schema, route

__all__ = ("FAST_HZ", "PRESSURE", "Sample", "Sampler", "routes_of")

FAST_HZ = 20.0
PROCESSES = 5


@dataclass
class Sample:
    """One measurement: named numbers, and the route's canary `mark` by which the wire tap would know it."""

    values: dict[str, float]
    mark: str


@dataclass
class Top:
    """The busiest processes: name and share of a core in percent."""

    processes: list[tuple[str, float]]
    mark: str


def _numbers(found: Any) -> dict[str, float]:
    """The numeric fields of what psutil measured; nothing where this host has no such counters."""
    if found is None:
        return {}
    return {key: float(value) for key, value in found._asdict().items() if isinstance(value, (int, float))}


def _measure() -> dict[str, dict[str, float]]:
    """One round: stream name -> named numbers. Every source is asked once, whatever number of routes it feeds."""
    cores: list[float] = psutil.cpu_percent(percpu=True)
    network = _numbers(psutil.net_io_counters())
    load = psutil.getloadavg()
    found = {
        "cpu": {"percent": sum(cores) / max(1, len(cores))},
        "cpu-times": _numbers(psutil.cpu_times()),
        "cpu-stats": _numbers(psutil.cpu_stats()),
        "memory": _numbers(psutil.virtual_memory()),
        "swap": _numbers(psutil.swap_memory()),
        "load": {"1m": load[0], "5m": load[1], "15m": load[2]},
        "disk-io": _numbers(psutil.disk_io_counters()),
        "disk-usage": _numbers(psutil.disk_usage("/")),
        "net-io": network,
        "net-sent": {"value": network.get("bytes_sent", 0.0)},
        "net-received": {"value": network.get("bytes_recv", 0.0)},
        "process-count": {"count": float(len(psutil.pids()))},
    }
    return found | {f"cpu-core-{core}": {"percent": percent} for core, percent in enumerate(cores)}


#: What `_measure` gives on every host, and one more for each core.
_FIXED = (
    *("cpu", "cpu-times", "cpu-stats", "memory", "swap", "load", "disk-io", "disk-usage"),
    *("net-io", "net-sent", "net-received", "process-count"),
)


def _streams() -> tuple[str, ...]:
    return (*_FIXED, *(f"cpu-core-{core}" for core in range(psutil.cpu_count() or 1)))


SCHEMA: Schema[Sample] = Schema.json(Sample, name="host-sample")
PRESSURE: Route[Sample] = route("hub", "host", "pressure", schema=SCHEMA)
TOP_SCHEMA: Schema[Top] = Schema.json(Top, name="host-top")


def routes_of(owner: str = "edge") -> dict[str, Route[Any]]:
    """Every route of the sampler by stream name; `heartbeat` is the one declared plaintext."""
    found: dict[str, Route[Any]] = {name: route(owner, "host", name, schema=SCHEMA) for name in _streams()}
    found["top"] = route(owner, "host", "top", schema=TOP_SCHEMA)
    found["heartbeat"] = route(owner, "host", "heartbeat", schema=SCHEMA, secrecy="none")
    return found


class Sampler:
    """Publishes one round of measurements at a time; `marks` are the canaries of routes that have one."""

    def __init__(
        self, graph: Graph, routes: dict[str, Route[Any]], marks: dict[str, str] | None = None
    ) -> None:
        self._graph = graph
        self._routes = routes
        self._marks = marks or {}
        self._rounds = 0

    async def run(self, stop: asyncio.Event) -> None:
        """Publish rounds at 20 Hz until told to stop. A round that took too long is not made up for."""
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        while not stop.is_set():
            self.round()
            due_s = max(due_s + 1 / FAST_HZ, loop.time())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), due_s - loop.time())

    def round(self) -> None:
        """Publish every fast route, and once a second the top processes."""
        for name, values in _measure().items():
            if name in self._routes:
                self._publish(name, Sample(values, self._marks.get(name, "")))
        self._publish("heartbeat", Sample({"rounds": float(self._rounds)}, self._marks.get("heartbeat", "")))
        if self._rounds % int(FAST_HZ) == 0:
            self._publish("top", Top(_top(), self._marks.get("top", "")))
        self._rounds += 1

    def _publish(self, name: str, sample: Sample | Top) -> None:
        self._graph.publish(self._routes[name], sample, correlation=self._marks.get(name))


def _top() -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for process in psutil.process_iter(["name", "cpu_percent"]):
        info = process.info
        found.append((str(info["name"]), float(info["cpu_percent"] or 0.0)))
    return sorted(found, key=lambda row: row[1], reverse=True)[:PROCESSES]

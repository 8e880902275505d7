"""Telemetry of this host as routes: what the edge node of `up` publishes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil
from meshfold.core import Graph, Route, Schema, route

__all__ = ("FAST_HZ", "Sample", "Sampler", "routes_of")

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


def _cpu_times() -> dict[str, float]:
    return {key: float(value) for key, value in psutil.cpu_times()._asdict().items()}


def _numbers(found: Any) -> dict[str, float]:
    return {key: float(value) for key, value in found._asdict().items() if isinstance(value, (int, float))}


def _load() -> dict[str, float]:
    one, five, fifteen = psutil.getloadavg()
    return {"1m": one, "5m": five, "15m": fifteen}


def _network(key: str) -> Callable[[], dict[str, float]]:
    return lambda: {"value": float(getattr(psutil.net_io_counters(), key))}


def _core(core: int) -> Callable[[], dict[str, float]]:
    return lambda: {"percent": psutil.cpu_percent(percpu=True)[core]}


def _sources() -> dict[str, Callable[[], dict[str, float]]]:
    """Stream name -> what measures it."""
    found: dict[str, Callable[[], dict[str, float]]] = {
        "cpu": lambda: {"percent": psutil.cpu_percent()},
        "cpu-times": _cpu_times,
        "cpu-stats": lambda: _numbers(psutil.cpu_stats()),
        "memory": lambda: _numbers(psutil.virtual_memory()),
        "swap": lambda: _numbers(psutil.swap_memory()),
        "load": _load,
        "disk-io": lambda: _numbers(psutil.disk_io_counters()) if psutil.disk_io_counters() else {},
        "disk-usage": lambda: _numbers(psutil.disk_usage("/")),
        "net-io": lambda: _numbers(psutil.net_io_counters()),
        "net-sent": _network("bytes_sent"),
        "net-received": _network("bytes_recv"),
        "process-count": lambda: {"count": float(len(psutil.pids()))},
    }
    for core in range(psutil.cpu_count() or 1):
        found[f"cpu-core-{core}"] = _core(core)
    return found


SCHEMA: Schema[Sample] = Schema.json(Sample, name="host-sample")
TOP_SCHEMA: Schema[Top] = Schema.json(Top, name="host-top")


def routes_of() -> dict[str, Route[Any]]:
    """Every route of the sampler by stream name; `heartbeat` is the one declared plaintext."""
    found: dict[str, Route[Any]] = {name: route("edge", "host", name, schema=SCHEMA) for name in _sources()}
    found["top"] = route("edge", "host", "top", schema=TOP_SCHEMA)
    found["heartbeat"] = route("edge", "host", "heartbeat", schema=SCHEMA, secrecy="none")
    return found


class Sampler:
    """Publishes one round of measurements at a time."""

    def __init__(self, graph: Graph, marks: dict[str, str]) -> None:
        self._graph = graph
        self._marks = marks
        self._routes = routes_of()
        self._sources = _sources()
        self._rounds = 0

    def round(self) -> None:
        """Publish every fast route, and once a second the top processes."""
        for name, measure in self._sources.items():
            self._publish(name, Sample(measure(), self._marks[name]))
        self._publish("heartbeat", Sample({"rounds": float(self._rounds)}, self._marks["heartbeat"]))
        if self._rounds % int(FAST_HZ) == 0:
            self._publish("top", Top(_top(), self._marks["top"]))
        self._rounds += 1

    def _publish(self, name: str, sample: Sample | Top) -> None:
        self._graph.publish(self._routes[name], sample, correlation=self._marks[name])


def _top() -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for process in psutil.process_iter(["name", "cpu_percent"]):
        info = process.info
        found.append((str(info["name"]), float(info["cpu_percent"] or 0.0)))
    return sorted(found, key=lambda row: row[1], reverse=True)[:PROCESSES]

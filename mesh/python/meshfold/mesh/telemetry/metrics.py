"""Vitals as Prometheus metrics: few names, bounded labels, values of one moment.

Labels are node, route, direction, kind, reason, state: all from closed lists but node and route, and of those at most
`SERIES_MAX` each; what is beyond stands together under `other`. Ids and subjects are never labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

__all__ = ("CONTENT_TYPE", "render")

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
#: Routes or members that have series of their own, at one node.
SERIES_MAX: Final = 500
OTHER: Final = "other"

Row = tuple[Sequence[str], float]


def render(vitals: Iterable[dict[str, Any]]) -> bytes:
    """The text of all nodes' metrics."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(list(vitals)))
    return generate_latest(registry)


class _Collector:
    def __init__(self, nodes: list[dict[str, Any]]) -> None:
        self._nodes = nodes

    def collect(self) -> Iterator[Metric]:
        yield from _node_metrics(self._nodes)
        yield from _route_metrics(self._nodes)
        yield from _refusal_metrics(self._nodes)
        yield from _mesh_metrics(self._nodes)


def _counter(name: str, text: str, labels: Sequence[str], rows: Iterable[Row]) -> Metric:
    return _filled(CounterMetricFamily(name, text, labels=labels), rows)


def _gauge(name: str, text: str, labels: Sequence[str], rows: Iterable[Row]) -> Metric:
    return _filled(GaugeMetricFamily(name, text, labels=labels), rows)


def _filled(family: Any, rows: Iterable[Row]) -> Metric:
    """Rows with equal labels add up: it is how `other` comes about."""
    sums: dict[tuple[str, ...], float] = {}
    for labels, value in rows:
        key = tuple(labels)
        sums[key] = sums.get(key, 0) + value
    for key, value in sums.items():
        family.add_metric(key, value)
    found: Metric = family
    return found


def _named(rows: Sequence[dict[str, Any]], key: str) -> dict[str, str]:
    """The label of each route or member: its own, or `other` beyond the bound."""
    names = sorted({row[key] for row in rows})
    return {name: name if place < SERIES_MAX else OTHER for place, name in enumerate(names)}


def _node_metrics(nodes: list[dict[str, Any]]) -> Iterator[Metric]:
    info = ("node", "mesh", "id", "incarnation")
    yield _gauge("meshfold_node_info", "What runs.", info, (([n[key] for key in info], 1) for n in nodes))
    yield _gauge(
        "meshfold_start_time_seconds",
        "When the node started, Unix time.",
        ("node",),
        (((n["node"],), n["started_ms"] / 1000) for n in nodes),
    )
    yield _gauge(
        "meshfold_broker_connected",
        "Whether the broker is connected.",
        ("node",),
        (((n["node"],), float(n["connected"])) for n in nodes),
    )
    yield _gauge(
        "meshfold_progress_age_seconds",
        "How long ago a heartbeat of the node's own came back through the broker.",
        ("node",),
        (((n["node"],), n["echo_age_s"]) for n in nodes if n["echo_age_s"] is not None),
    )
    yield _counter(
        "meshfold_observer_failures",
        "Observers that raised.",
        ("node",),
        (((n["node"],), n["failures"]) for n in nodes),
    )
    yield _counter(
        "meshfold_transport_events",
        "What the connection to the broker counted.",
        ("node", "what"),
        (((n["node"], what), count) for n in nodes for what, count in n["transport"].items()),
    )
    yield _counter(
        "meshfold_telemetry_spans",
        "Spans by what became of them.",
        ("node", "result"),
        (((n["node"], result), count) for n in nodes for result, count in n["spans"].items()),
    )


def _route_metrics(nodes: list[dict[str, Any]]) -> Iterator[Metric]:
    rows: list[tuple[tuple[str, str, str], dict[str, Any]]] = []
    queues: list[tuple[tuple[str, str, str], dict[str, Any]]] = []
    for node in nodes:
        names = _named(node["bridges"] + node["queues"], "route")
        rows += (((node["node"], names[row["route"]], row["dir"]), row) for row in node["bridges"])
        queues += (((node["node"], names[row["route"]], row["kind"]), row) for row in node["queues"])
    labels = ("node", "route", "dir")
    yield _counter(
        "meshfold_route_messages", "Events moved.", labels, ((key, row["events"]) for key, row in rows)
    )
    yield _counter(
        "meshfold_route_frames", "Frames moved.", labels, ((key, row["frames"]) for key, row in rows)
    )
    yield _gauge(
        "meshfold_route_pending",
        "Events that wait at the bridge.",
        labels,
        ((key, row["pending"]) for key, row in rows),
    )
    yield _gauge(
        "meshfold_route_stalled_seconds",
        "How long events have been waiting without one leaving.",
        labels,
        ((key, row["stalled_s"]) for key, row in rows),
    )
    yield _gauge(
        "meshfold_bridge_state",
        "State of the bridge.",
        (*labels, "state"),
        (((*key, row["state"]), 1) for key, row in rows),
    )
    yield _counter(
        "meshfold_route_dropped",
        "Events lost at the bridge, by reason.",
        (*labels, "reason"),
        (((*key, reason), count) for key, row in rows for reason, count in row["dropped"].items()),
    )
    yield _latencies(rows)
    kinds = ("node", "route", "kind")
    yield _gauge(
        "meshfold_queue_depth",
        "Events that wait for local observers, streams and pipelines.",
        kinds,
        ((key, row["depth"]) for key, row in queues),
    )
    yield _counter(
        "meshfold_queue_dropped",
        "Events lost at local queues, by reason.",
        (*kinds, "reason"),
        (((*key, reason), count) for key, row in queues for reason, count in row["dropped"].items()),
    )


def _latencies(rows: list[tuple[tuple[str, str, str], dict[str, Any]]]) -> Metric:
    family = HistogramMetricFamily(
        "meshfold_bridge_latency_seconds", "From publish to delivery.", labels=("node", "route")
    )
    sums: dict[tuple[str, str], tuple[list[float], list[int], float]] = {}
    for (node, route, _), row in rows:
        if row["latency"] is None:
            continue
        bounds, counts, total = (row["latency"][key] for key in ("bounds_s", "counts", "sum_s"))
        known = sums.get((node, route))
        if known is not None:
            counts = [a + b for a, b in zip(known[1], counts, strict=True)]
            total += known[2]
        sums[node, route] = bounds, counts, total
    for key, (bounds, counts, total) in sums.items():
        below = 0
        buckets: list[tuple[str, float]] = []
        for bound, count in zip([*(str(bound) for bound in bounds), "+Inf"], counts, strict=True):
            below += count
            buckets.append((bound, below))
        family.add_metric(key, buckets, total)
    found: Metric = family
    return found


def _refusal_metrics(nodes: list[dict[str, Any]]) -> Iterator[Metric]:
    yield _counter(
        "meshfold_rejected",
        "Frames refused, by reason; they are no events.",
        ("node", "reason"),
        (((n["node"], reason), count) for n in nodes for reason, count in n["rejected"].items()),
    )
    yield _gauge(
        "meshfold_grant_expiry_timestamp_seconds",
        "When the first of the node's grants expires, Unix time.",
        ("node",),
        (((n["node"],), n["grants_expire_ms"] / 1000) for n in nodes if n["grants_expire_ms"] is not None),
    )
    yield _counter(
        "meshfold_grant_denials",
        "Actions refused for lack of a grant, here or to others.",
        ("node",),
        (((n["node"],), n["denials"]) for n in nodes),
    )


def _mesh_metrics(nodes: list[dict[str, Any]]) -> Iterator[Metric]:
    members: list[Row] = []
    ages: list[Row] = []
    for node in nodes:
        names = _named(node["members"], "name")
        for member in node["members"]:
            members.append(((node["node"], "alive" if member["alive"] else "silent"), 1))
            if names[member["name"]] != OTHER:
                ages.append(((node["node"], member["name"]), member["age_s"]))
    yield _gauge("meshfold_members", "Members heard of.", ("node", "state"), members)
    yield _gauge(
        "meshfold_heartbeat_age_seconds", "How long ago a member was heard.", ("node", "member"), ages
    )
    groups = [(node["node"], group) for node in nodes for group in node["groups"]]
    labels = ("node", "group")
    yield _gauge(
        "meshfold_consensus_term",
        "Term of a group.",
        labels,
        (((node, group["group"]), group["term"]) for node, group in groups),
    )
    yield _gauge(
        "meshfold_consensus_is_leader",
        "Whether the node leads the group.",
        labels,
        (((node, group["group"]), float(group["leader"] == node)) for node, group in groups),
    )

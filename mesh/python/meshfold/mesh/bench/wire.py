"""Two nodes over a real nats-server: events per second from edge to hub, sealed.

Both nodes live in one process here, so they share one interpreter lock: the figure is a floor of what two processes do.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from time import perf_counter

from meshfold.core import Schema, route
from meshfold.mesh.bench.reference import Case
from meshfold.mesh.local import LocalMesh

__all__ = ("WIRE_CASES",)

WAIT_S = 60.0


def edge_to_hub(items: int) -> float:
    """186-byte records from `edge` to `hub` until the last one arrived; losses are not hidden, they fail the run."""
    record = b"x" * 186
    telemetry = route("edge", "bench", "record", schema=Schema.bytes())
    with (
        tempfile.TemporaryDirectory() as folder,
        LocalMesh(Path(folder)) as mesh,
        mesh.node("hub") as hub,
        mesh.node("edge") as edge,
    ):
        edge.share(telemetry).ready().result(WAIT_S)
        bridge = hub.read(telemetry)
        bridge.ready(WAIT_S).result(WAIT_S)
        stream = hub.graph.stream(telemetry, capacity=items + 1)
        begin = perf_counter()
        edge.graph.publish_many(telemetry, [record] * items)
        seen = 0
        for _ in stream.blocking(WAIT_S):
            seen += 1
            if seen == items:
                break
        rate = items / (perf_counter() - begin)
    if seen != items:
        raise AssertionError(f"{seen} of {items} events arrived")
    return rate


WIRE_CASES = (Case("edge to hub, sealed", "events/s", 60_000, edge_to_hub),)

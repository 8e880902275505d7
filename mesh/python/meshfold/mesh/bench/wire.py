"""Edge to hub over a real nats-server: two processes, sealed, counted where the events are of use.

The edge is a child process (`bench/edge.py`) that publishes when told; the hub is this one. Losses are not hidden: they fail
the run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

from meshfold.core import Tap
from meshfold.mesh.bench.edge import records
from meshfold.mesh.bench.reference import Case
from meshfold.mesh.local import LocalMesh
from meshfold.mesh.node import Node

__all__ = ("WIRE_CASES",)

WAIT_S = 60.0
#: Published before the clock starts: keys, ciphers and buffers are made then.
WARM_UP = 2000


class Edge:
    """The publishing process, told what to do by lines on its standard input."""

    def __init__(self, context: Path) -> None:
        command = [sys.executable, "-c", "from meshfold.mesh.bench import edge; edge.main()", str(context)]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._expect("ready")

    def _expect(self, word: str) -> None:
        assert self._child.stdout is not None
        said = self._child.stdout.readline().strip()
        if said != word:
            raise AssertionError(f"the edge said {said!r} instead of {word!r}")

    def publish(self, items: int) -> None:
        """Make the records, then begin to publish; returns when the first is about to go."""
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps({"items": items}) + "\n")
        self._child.stdin.flush()
        self._expect("made")

    def published(self) -> None:
        """Wait until the edge has given everything to its graph."""
        self._expect("published")

    def stop(self) -> None:
        """End it."""
        assert self._child.stdin is not None
        self._child.stdin.close()
        self._child.wait(WAIT_S)


@contextmanager
def edge_and_hub() -> Generator[tuple[Edge, Node]]:
    """A mesh of two processes, torn down afterwards."""
    with tempfile.TemporaryDirectory() as folder, LocalMesh(Path(folder)) as mesh, mesh.node("hub") as hub:
        assert mesh.context is not None
        edge = Edge(mesh.context.path)
        try:
            yield edge, hub
        finally:
            edge.stop()


def _measure(items: int, wait: Callable[[Any, int], None], attach: Callable[[Node], Any]) -> float:
    with edge_and_hub() as (edge, hub):
        bridge = hub.read(records)
        bridge.ready(WAIT_S).result(WAIT_S)
        reader = attach(hub)
        edge.publish(WARM_UP)
        wait(reader, WARM_UP)
        edge.published()
        edge.publish(items)
        begin = perf_counter()
        wait(reader, items)
        rate = items / (perf_counter() - begin)
        edge.published()
    return rate


def edge_to_hub(items: int) -> float:
    """186-byte JSON records from edge to hub, each read as an event of a Python stream."""

    def wait(stream: Any, count: int) -> None:
        seen = 0
        for _ in stream.blocking(WAIT_S):
            seen += 1
            if seen == count:
                return
        raise AssertionError(f"{seen} of {count} events arrived")

    return _measure(items, wait, lambda hub: hub.graph.stream(records, capacity=items + WARM_UP))


def edge_to_graph(items: int) -> float:
    """The same until the hub's graph has them, as its native operators and next bridges do."""
    came = threading.Event()

    def wait(tap: Tap, count: int) -> None:
        seen = 0
        while seen < count and came.wait(WAIT_S):
            came.clear()
            while (batch := tap.drain(65_535, 1 << 20)) is not None:
                seen += batch.count
        if seen != count:
            raise AssertionError(f"{seen} of {count} events arrived")

    return _measure(
        items, wait, lambda hub: hub.graph.tap(records, capacity=items + WARM_UP, on_ready=came.set)
    )


WIRE_CASES = (
    Case("edge to hub, sealed", "events/s", 200_000, edge_to_hub),
    Case("edge to graph, sealed", "events/s", 200_000, edge_to_graph),
)

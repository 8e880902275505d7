"""Two processes of the Jaeger test: `python tracing_app.py edge|hub`. They say so on stdout once they are ready.

The edge shares a raw value and reads the mean that the hub derives from it, so that one trace goes out and back.
"""

from __future__ import annotations

import sys

from meshfold.core import Schema, route
from meshfold.mesh import Node

RAW = route("edge", "thermal", "raw", schema=Schema.float("Celsius"))
OTHER = route("edge", "thermal", "other", schema=Schema.float("Celsius"))
MEAN = route("hub", "thermal", "mean", schema=Schema.float("Celsius"))
WORST = route("hub", "thermal", "worst", schema=Schema.float("Celsius"))
WAIT_S = 60.0


def say(text: str) -> None:
    """A line to the test."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def hub() -> None:
    """Derive one route from one input and one from two, until stdin ends."""
    with Node.open("hub") as node:

        def both(event: object) -> None:
            one, two = node.graph.latest(RAW), node.graph.latest(OTHER)
            if one is not None and two is not None:
                node.graph.publish(WORST, max(one.value, two.value), parents=(one, two))

        node.graph.pipe(RAW).map(lambda value: value / 2).into(MEAN)
        node.graph.observe(OTHER, both)
        for r in (MEAN, WORST):
            node.share(r).ready(WAIT_S).result(WAIT_S)
        for r in (RAW, OTHER):
            node.read(r)
        say("ready")
        sys.stdin.read()


def edge() -> None:
    """Publish one value of each route and print the ids, then end."""
    with Node.open("edge") as node:
        for r in (RAW, OTHER):
            node.share(r).ready(WAIT_S).result(WAIT_S)
        for r in (MEAN, WORST):
            node.read(r).ready(WAIT_S).result(WAIT_S)
        published = node.graph.publish(RAW, 870.0, correlation="batch-7")
        derived = next(node.graph.stream(MEAN).blocking(WAIT_S))
        node.graph.publish(OTHER, 990.0)
        joined = next(node.graph.stream(WORST).blocking(WAIT_S))
        for event in (published, derived, joined):
            say(f"{event.id} {event.trace.hex()}")


if __name__ == "__main__":
    {"edge": edge, "hub": hub}[sys.argv[1]]()

"""The same inputs give the same outputs: a transcript to compare runs by, and running a log of inputs again."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from meshfold._native import keep_transcript, transcript
from meshfold.core.errors import WiringError
from meshfold.core.event import Event
from meshfold.core.graph import Graph

__all__ = ("LogClock", "Transcript", "record", "rerun", "transcript_of")


class Transcript(NamedTuple):
    """A hash over all events of a graph in the order they were stored, and how many there were."""

    hash: bytes
    events: int


class LogClock:
    """A clock that shows the time at which the input that runs now came in."""

    def __init__(self) -> None:
        self.wall_ns = 0

    def now(self) -> tuple[int, int]:
        """Return (wall ns, monotonic ns), which are the same here."""
        return self.wall_ns, self.wall_ns


def record(graph: Graph) -> None:
    """Keep a transcript of the graph from now on; every event costs its encoding."""
    keep_transcript(graph)


def transcript_of(graph: Graph) -> Transcript:
    """The transcript so far.

    :raises WiringError: if none is kept
    """
    found = transcript(graph)
    if found is None:
        raise WiringError("this graph keeps no transcript", fix="call record(graph) first", item="transcript")
    return Transcript(*found)


def rerun(graph: Graph, log: Iterable[Event[Any]], clock: LogClock) -> int:
    """Publish the inputs of a log again, in order, each at the time it came in; returns how many.

    A graph made with the same producer and incarnation, this clock and the same operators, then holds the same events, bit
    for bit. What operators derived is passed over, for they derive it again.
    """
    count = 0
    for event in log:
        if event.operator is not None:
            continue
        clock.wall_ns = event.ingest_time
        graph.publish(
            event.route,
            event.value,
            time=event.time,
            key=event.key,
            parents=event.parents,
            correlation=event.correlation,
            taints=event.taints,
            labels=event.labels,
            guards=event.guards,
            qos=event.qos,
            epoch=event.epoch,
            clock=None if event.clock == "system" else event.clock,
            logical_time=event.logical_time,
        )
        count += 1
    return count

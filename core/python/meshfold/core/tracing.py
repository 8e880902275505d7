"""Records of sampled events: what happened to them in one graph, for whoever makes spans of it.

The root of a trace decides whether it is sampled; the bit travels with every event of the trace, over every hop. An event
that is not sampled costs one test of that bit; a sampled one leaves a record in a bounded ring of the engine (S30).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from meshfold import _native
from meshfold.core.ids import parse_event_id

if TYPE_CHECKING:
    from meshfold._native import Batch
    from meshfold.core.graph import Graph

__all__ = ("SpanRecord", "Tracing", "event_span")

#: Half of a trace id decides: a share of all is a bound on it, as OpenTelemetry's ratio sampler has it.
_HALF = 1 << 64
_UNBOUNDED = (1 << 32) - 1


class SpanRecord(NamedTuple):
    """What is known of one span; times are the wall clock in ns."""

    #: `publish`, `operator`, `process` (came from another node) or `bridge` (was handed to the broker)
    kind: str
    #: id of the event
    event: str
    #: tag of the node that made the event
    producer: bytes
    #: route of the event, in its short form
    route: str
    #: W3C trace id, 16 bytes
    trace: bytes
    #: 8 bytes, derived from the event id
    span: bytes
    #: the span that caused it; None: the root of its trace
    parent: bytes | None
    #: further causes as (trace, span), at most 128
    links: list[tuple[bytes, bytes]]
    #: number of inputs of a derived event
    inputs: int
    operator: str | None
    correlation: str | None
    taints: list[str]
    #: bytes of the payload
    size: int
    start: int
    end: int
    #: why it failed
    error: str | None


class Tracing:
    """Records of one graph. Off until `start`; the records are then to be taken regularly, the oldest are dropped."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    def start(
        self, ratio: float = 1.0, roots_per_s: int | None = None, records_per_s: int | None = None
    ) -> None:
        """Sample from now on what begins here, and record what is sampled.

        :param ratio: share of the traces to sample, 0 to 1
        :param roots_per_s: at most so many new traces in a second; None: any number
        :param records_per_s: at most so many records in a second, those of events from elsewhere included; what is beyond
            is dropped and counted; None: any number
        :raises ValueError: for a ratio that is no share
        """
        if not 0 <= ratio <= 1:
            raise ValueError(f"a share of {ratio} is not between 0 and 1")
        bound = min(_HALF - 1, int(ratio * _HALF))
        roots, records = (_UNBOUNDED if one is None else one for one in (roots_per_s, records_per_s))
        _native.trace_start(self._graph, bound, roots if ratio > 0 else 0, records)

    def stop(self) -> None:
        """Record nothing more. The bit of events that carry it still travels."""
        _native.trace_stop(self._graph)

    def take(self, limit: int = 1024) -> list[SpanRecord]:
        """Take up to `limit` records, oldest first."""
        return [SpanRecord(*row) for row in _native.trace_take(self._graph, limit)]

    def counts(self) -> tuple[int, int]:
        """Records made ever, and of these dropped: too many in a second, or not taken in time."""
        return _native.trace_counts(self._graph)

    def ignored(self) -> int:
        """How many trace contexts from outside were none: their events are there, in traces of their own."""
        return _native.trace_ignored(self._graph)

    def bridged(self, batch: Batch, error: str | None = None) -> None:
        """Note that the sampled events of a batch were handed to the broker, or why not."""
        _native.trace_bridge(self._graph, batch, error)


def event_span(event: str) -> bytes:
    """The id of an event's span where the event was made.

    :raises WiringError: if `event` is not an event id
    """
    return _native.event_span(*parse_event_id(event))

"""Traces as documents: what the `trace` query answers and `meshfold up` prints, with no collector behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from meshfold.core import SpanRecord
from meshfold.mesh.telemetry.spans import Facts, view

__all__ = ("find_trace", "merge", "trace_document")


def find_trace(
    records: Sequence[SpanRecord], *, trace: bytes | None = None, event: str = "", route: str = ""
) -> SpanRecord | None:
    """The newest record of a trace, an event or a route; where several are given, of all of them."""
    for record in reversed(records):
        if (
            (trace is None or record.trace == trace)
            and (not event or record.event == event)
            and (not route or record.route == route)
        ):
            return record
    return None


def trace_document(
    records: Iterable[SpanRecord],
    trace: bytes,
    facts: Facts,
    *,
    service: str,
    may_read: Callable[[str], bool],
) -> dict[str, Any]:
    """Every span of a trace whose route may be read: `{trace_id, spans[]}`, oldest first."""
    spans: list[dict[str, Any]] = []
    for record in records:
        if record.trace != trace or not may_read(record.route):
            continue
        seen = view(record, facts)
        spans.append(
            {
                "service": service,
                "name": seen.name,
                "kind": seen.kind,
                "span_id": record.span.hex(),
                "parent": record.parent.hex() if record.parent else None,
                "links": [{"trace_id": of.hex(), "span_id": span.hex()} for of, span in record.links],
                "start_ns": record.start,
                "end_ns": record.end,
                "event": record.event,
                "route": record.route,
                "error": record.error,
                "attributes": seen.attributes,
            }
        )
    return merge(trace.hex(), [{"spans": spans}])


def merge(trace_id: str | None, documents: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """One trace out of what several nodes know of it."""
    spans = [span for document in documents for span in document["spans"]]
    # Clocks of two hosts differ a little: a cause stands before its effect all the same.
    order = {"PRODUCER": 0, "INTERNAL": 0, "CLIENT": 1, "CONSUMER": 2}
    spans.sort(key=lambda span: (span["start_ns"], order[span["kind"]], span["service"]))
    return {"trace_id": trace_id, "spans": spans}

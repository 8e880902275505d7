"""`Event`: what observers receive."""

from __future__ import annotations

from typing import Any, TypeVar

from meshfold._native import Event

__all__ = ("Event", "event_document")

T = TypeVar("T")


def event_document(event: Event[Any]) -> dict[str, Any]:
    """Return the envelope and value as plain JSON; bytes are hex, NaN and infinities are named."""
    return {
        "id": event.id,
        "route": event.route.text,
        "value": event.route.schema.plain(event.value),
        "seq": event.seq,
        "seq_link": event.seq_link,
        "producer": event.producer.hex(),
        "incarnation": event.incarnation.hex(),
        "time": event.time,
        "ingest_time": event.ingest_time,
        "key": event.key,
        "correlation": event.correlation,
        "causality": event.causality,
        "trace": event.trace.hex(),
        "parents": event.parents,
        "taints": event.taints,
        "operator": event.operator,
    }

"""From a record to a span: its name, kind and attributes, by OpenTelemetry's messaging conventions and our own.

| record | span | kind | parent |
|---|---|---|---|
| publish | `publish ROUTE` | PRODUCER | the causing event's span here; none at a root |
| operator | `OPERATOR ROUTE` | INTERNAL | the same |
| bridge | `send ROUTE` | CLIENT | the event's span here |
| process | `process ROUTE` | CONSUMER | the event's span where it was made |
| denied | `deny ACTION` | INTERNAL, error | none |
| rejected | `reject frame` | INTERNAL, error | none |

Names and label values come from routes, never from subjects, inboxes or ids: there are few of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from meshfold.core import SpanRecord

__all__ = ("Facts", "SpanView", "view")

#: kind of record -> (kind of span, messaging.operation.name, messaging.operation.type)
_KINDS: Final = {
    "publish": ("PRODUCER", "publish", "create"),
    "bridge": ("CLIENT", "send", "send"),
    "process": ("CONSUMER", "process", "process"),
}
Value = str | int | tuple[str, ...]


def _nothing(*_: Any) -> dict[str, Value]:
    return {}


@dataclass(frozen=True)
class Facts:
    """What only the node knows of a record; each gives further attributes."""

    #: of a route: its subject, how it is sealed
    route: Callable[[str], dict[str, Value]] = _nothing
    #: of the node with this tag, for a route: who it is and which grant lets it publish
    sender: Callable[[bytes, str], dict[str, Value]] = _nothing


@dataclass(frozen=True)
class SpanView:
    """One span, as exporters and the `trace` query show it."""

    name: str
    kind: str
    attributes: dict[str, Value]
    error: str | None


def view(record: SpanRecord, facts: Facts) -> SpanView:
    """Describe a record."""
    attributes: dict[str, Value] = {
        "meshfold.event.id": record.event,
        "meshfold.route": record.route,
        "meshfold.taints": tuple(record.taints),
    }
    kind, name = "INTERNAL", f"{_operator(record)} {record.route}"
    if record.kind in ("denied", "rejected"):
        return _refusal(record)
    if record.kind in _KINDS:
        kind, operation, operation_type = _KINDS[record.kind]
        name = f"{operation} {record.route}"
        attributes |= {
            "messaging.system": "nats",
            "messaging.operation.name": operation,
            "messaging.operation.type": operation_type,
            "messaging.destination.template": record.route,
            "messaging.message.id": record.event,
            "messaging.message.body.size": record.size,
        }
    if record.kind in ("bridge", "process"):
        attributes |= facts.route(record.route)
    if record.kind == "process":
        attributes |= facts.sender(record.producer, record.route)
    for key, value in (
        ("meshfold.operator", record.operator),
        ("messaging.message.conversation_id", record.correlation),
        ("error.type", record.error),
    ):
        if value is not None:
            attributes[key] = value
    if record.inputs > 1:
        attributes["meshfold.inputs"] = record.inputs
    return SpanView(name, kind, attributes, record.error)


def _refusal(record: SpanRecord) -> SpanView:
    """Of a refusal, `operator` is the action and `correlation` who asked for it."""
    named = (
        ("meshfold.route", record.route),
        ("meshfold.action", record.operator),
        ("meshfold.principal", record.correlation),
    )
    attributes: dict[str, Value] = {key: value for key, value in named if value}
    attributes["error.type"] = record.error or "refused"
    name = f"deny {record.operator}" if record.kind == "denied" else "reject frame"
    return SpanView(name, "INTERNAL", attributes, record.error or "refused")


def _operator(record: SpanRecord) -> str:
    """The operator's kind: its whole name may hold two routes and stands in the attributes."""
    return (record.operator or record.kind).partition(" ")[0]

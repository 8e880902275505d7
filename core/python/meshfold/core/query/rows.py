"""What is answered: one typed row for each thing, and the answer that carries a page of them (S34)."""

from __future__ import annotations

from typing import Any, TypeAlias

import msgspec

__all__ = (
    "Answer",
    "AuditRow",
    "BoundRow",
    "CreditRow",
    "EdgeCreditRow",
    "EdgeRow",
    "EventRow",
    "GapRow",
    "JoinRow",
    "LinkRow",
    "OperatorRow",
    "PayloadRow",
    "ProblemRow",
    "RouteRow",
    "Row",
    "ShadowRow",
    "TaintRow",
    "TraceRow",
    "WatermarkRow",
    "WriterRow",
)


class _Base(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="row", tag=True):
    pass


class RouteRow(_Base, frozen=True):
    """A route: what it carries, who reads and writes it, where it stands."""

    route: str
    address: str
    schema: dict[str, Any]
    schema_id: str
    secrecy: str
    published: int
    retained: int
    latest: str | None
    readers: int
    writers: int


class OperatorRow(_Base, frozen=True):
    """An installed operator with its stages and figures."""

    id: int
    name: str
    label: str
    stages: list[dict[str, Any]]
    inputs: list[str]
    sink: str | None
    emitted: int
    failed: int
    dropped: dict[str, int]


class LinkRow(_Base, frozen=True):
    """A connection of two nodes of the topology: `route:...` or `operator:...` on either side."""

    source: str
    target: str
    kind: str


class EdgeRow(_Base, frozen=True):
    """A reader of a route with its accounting (S43)."""

    route: str
    name: str
    kind: str
    offered: int
    delivered: int
    dropped: dict[str, int]
    pending: int
    replayed: int


class CreditRow(_Base, frozen=True):
    """Events that a route takes now without waiting."""

    route: str
    available: int


class EdgeCreditRow(_Base, frozen=True):
    """The credit of one edge of a route now: what it has left of its window, who gives it back, who waits for it."""

    route: str
    edge: str
    authority: str
    unit: str
    capacity: int
    available: int
    available_bytes: int | None
    gate: bool
    granted: int
    spent: int
    on_the_way: int
    waiting: int
    waits: int
    rejected: int


class ShadowRow(_Base, frozen=True):
    """A write binding at this moment (S17); events as documents."""

    route: str
    write: str | None
    desired: dict[str, Any] | None
    reported: dict[str, Any] | None
    effective: dict[str, Any] | None
    ack: dict[str, Any] | None
    coherence: list[str]
    by: str
    requests: int
    unmatched: int


class WriterRow(_Base, frozen=True):
    """A writer of a route: `publish` of this graph, a remote producer, an operator, or a connection."""

    route: str
    name: str
    kind: str
    last: int


class EventRow(_Base, frozen=True):
    """An event, envelope and value."""

    event: dict[str, Any]


class GapRow(_Base, frozen=True):
    """Numbers that were asked for and are not retained any more."""

    route: str
    first: int
    last: int


class TraceRow(_Base, frozen=True):
    """One cause: how far it lies back, and whether it is still known."""

    event: str
    depth: int
    known: bool
    route: str | None = None
    operator: str | None = None
    time: int | None = None
    taints: list[str] = []
    parents: list[str] = []


class WatermarkRow(_Base, frozen=True):
    """Event time of one stage of an operator, in its own clock domain."""

    operator: str
    stage: int
    kind: str
    watermark: int


class TaintRow(_Base, frozen=True):
    """A taint of what a route retains."""

    route: str
    taint: str
    first: str
    events: int


class BoundRow(_Base, frozen=True):
    """What a route's events may be tainted, and what any of them ever was; `declared` None: nothing was declared."""

    route: str
    declared: list[str] | None
    seen: list[str]


class JoinRow(_Base, frozen=True):
    """A planned join (S27): its routes, why it is done so, and what was measured. `runs`: whether it is installed."""

    name: str
    kind: str
    reason: str
    routes: list[str]
    runs: bool
    items: int
    largest_partition_size: int
    hot_key_frequency: float
    skew: float


class ProblemRow(_Base, frozen=True):
    """Something wrong with the wiring."""

    kind: str
    where: str
    detail: str


class PayloadRow(_Base, frozen=True):
    """The bytes of a payload."""

    event: str
    payload: bytes


class AuditRow(_Base, frozen=True):
    """One entry of the audit (S31)."""

    number: int
    time: int
    principal: str
    action: str
    route: str
    seq: int
    allowed: bool
    because: str


Row: TypeAlias = (
    RouteRow
    | OperatorRow
    | LinkRow
    | EdgeRow
    | CreditRow
    | EdgeCreditRow
    | ShadowRow
    | WriterRow
    | EventRow
    | GapRow
    | TraceRow
    | WatermarkRow
    | TaintRow
    | BoundRow
    | JoinRow
    | ProblemRow
    | PayloadRow
    | AuditRow
)


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A page of rows. `next` begins the following page, None on the last; `error` is the code of what refused it."""

    rows: list[Row] = []
    next: str | None = None
    error: str = ""
    message: str = ""

    @property
    def done(self) -> bool:
        """Whether nothing follows."""
        return self.next is None

"""What an edge counts, and what graphs tell about their edges and lineage."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

__all__ = ("EdgeCounters", "EdgeInfo", "InletReceipt", "Lineage", "ParentRange", "SeqRange")


class SeqRange(NamedTuple):
    """The numbers `publish_many` gave: first to last, both included."""

    first: int
    last: int


class ParentRange(NamedTuple):
    """A run of consecutive events of one route and incarnation."""

    producer: bytes
    incarnation: bytes
    route_tag: bytes
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class EdgeCounters:
    """The accounting of one edge (S43): `offered = delivered + sum(dropped) + pending`. `replayed` stands apart."""

    offered: int = 0
    delivered: int = 0
    dropped: dict[str, int] = field(default_factory=dict[str, int])
    pending: int = 0
    replayed: int = 0

    @property
    def unexplained(self) -> int:
        """What the equation leaves over; 0 unless there is a fault."""
        return self.offered - self.delivered - sum(self.dropped.values()) - self.pending


@dataclass(frozen=True, slots=True)
class EdgeInfo:
    """One edge of a graph; `operator` is the number of the operator it feeds, if it feeds one."""

    name: str
    kind: str
    route: str
    counters: EdgeCounters
    operator: int | None = None


@dataclass(frozen=True, slots=True)
class InletReceipt:
    """What became of a pushed batch. `held`: events that wait in the inlet for credit, and are in no other number yet."""

    delivered: int
    duplicates: int
    lost: int
    first_seq: int
    last_seq: int
    held: int = 0


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where an event comes from (S30)."""

    event: str
    route: str
    parents: tuple[ParentRange, ...]
    trace: bytes
    causality: str
    correlation: str | None
    taints: tuple[str, ...]
    time: int
    operator: str | None
    fields: dict[str, Any] = field(default_factory=dict[str, Any])

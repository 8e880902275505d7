"""Flow policies: how an edge behaves when its reader is slower than its writer (S8).

A policy has five independent fields. They are composed once, when an edge is made, and what comes out is what the engine
is given: `describe_edge` shows that very object.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Final, Literal

from meshfold.core.errors import WiringError
from meshfold.core.route import Route

__all__ = (
    "BACKPRESSURE",
    "BOUNDARIES",
    "CREDIT_CLASSES",
    "OVERFLOWS",
    "CreditClass",
    "CreditInfo",
    "EdgeDescription",
    "FarReader",
    "FlowPolicy",
    "FlowSnapshot",
    "builtin_policy",
    "resolve",
)

BACKPRESSURE: Final = ("propagate", "isolate")
BOUNDARIES: Final = ("inline", "queued")
OVERFLOWS: Final = (
    "block",
    "reject_write",
    "drop_newest",
    "drop_oldest",
    "coalesce_latest",
    "deadline_drop",
    "spill_to_store",
)


@dataclass(frozen=True, slots=True)
class CreditClass:
    """A window: how much may be on the way on one edge, and who gives it back.

    :param envelopes: events
    :param payload_bytes: bytes of their payloads; None: not counted
    :param lane: which part of the graph's input queue it uses
    :param authority: who replenishes: a consumer as it takes, a mailbox as it is acknowledged
    """

    envelopes: int
    payload_bytes: int | None
    lane: Literal["control", "metadata", "payload", "debug"]
    authority: Literal["consumer", "mailbox"] = "mailbox"


CREDIT_CLASSES: Final[dict[str, CreditClass]] = {
    "default": CreditClass(1024, None, "metadata"),
    "control": CreditClass(256, None, "control"),
    "bulk_payload": CreditClass(64, 64 * 1024 * 1024, "payload"),
    "debug": CreditClass(256, None, "debug"),
}
_VALUES: Final[dict[str, tuple[str, ...]]] = {
    "backpressure": BACKPRESSURE,
    "credit_class": tuple(CREDIT_CLASSES),
    "async_boundary": BOUNDARIES,
    "overflow": OVERFLOWS,
}


@dataclass(frozen=True, slots=True)
class FlowPolicy:
    """What is set decides; what is None is left to the next in line.

    :param backpressure: `propagate`: a full reader holds producers before this edge up; `isolate`: it does not
    :param credit_class: a name of `CREDIT_CLASSES`
    :param mailbox: the name of the mailbox on this edge; set by the mailbox itself
    :param async_boundary: `inline`: within the turn; `queued`: behind a queue, from a turn of its own
    :param overflow: what a full queue does; an inline edge has none
    :raises WiringError: for a value that is not in the lists of this module
    """

    backpressure: str | None = None
    credit_class: str | None = None
    mailbox: str | None = None
    async_boundary: str | None = None
    overflow: str | None = None

    def __post_init__(self) -> None:
        for name, known in _VALUES.items():
            value = getattr(self, name)
            if value is not None and value not in known:
                raise WiringError(
                    f"unknown {name} {value!r}", fix=f"use one of {', '.join(known)}", item=name
                )


@dataclass(frozen=True, slots=True)
class CreditInfo:
    """The credit of one edge now. `gate` says whether producers wait for it.

    :param unit: what is counted: events on an edge, or the slots of a window (S6)
    :param authority: who gives it back: a consumer as it takes, a mailbox as it is acknowledged, a window as time goes
        on, a bridge as it sends, a reader as another node tells it
    """

    edge: int
    name: str
    route: str
    authority: str
    capacity: int
    available: int
    bytes_max: int | None
    available_bytes: int | None
    gate: bool
    granted: int
    spent: int
    on_the_way: int
    waiting: int
    waits: int
    rejected: int
    unit: Literal["events", "slots"] = "events"


@dataclass(frozen=True, slots=True)
class FarReader:
    """A reader on another node, as its bridge was told: what it takes on top of what was sent to it.

    :param window: events it had room for when it told
    :param granted: the number up to which events may be sent
    :param on_the_way: events sent since the last one that it has told of
    :param waits: times that something waited here for it
    """

    name: str
    window: int
    granted: int
    on_the_way: int
    available: int
    available_bytes: int | None
    waits: int


@dataclass(frozen=True, slots=True)
class EdgeDescription:
    """An edge and the policy that the engine executes for it."""

    id: int
    name: str
    kind: str
    route: str
    flow: FlowPolicy
    credit: CreditInfo | None


@dataclass(frozen=True, slots=True)
class FlowSnapshot:
    """What holds a route up: events that may be published now, producers that wait, losses, and the deepest queue.

    :param leaving: events that readers on other nodes take now; None: none of them holds the route up
    """

    route: str
    available: int
    blocked_senders: int
    dropped: dict[str, int]
    largest_queue_depth: int
    lane: str
    policy: FlowPolicy
    leaving: int | None = None


def builtin_policy(r: Route[Any]) -> FlowPolicy:
    """What holds where nobody said anything: bulk routes get the bulk window, writes the control lane."""
    credit = "default"
    if r.addr.layer == "bulk":
        credit = "bulk_payload"
    elif r.addr.plane == "write":
        credit = "control"
    elif r.addr.plane == "debug":
        credit = "debug"
    return FlowPolicy("propagate", credit, "none", "inline", "reject_write")


def resolve(layers: Iterable[FlowPolicy | None]) -> FlowPolicy:
    """Compose: for each field the first that is set. The last layer has all of them."""
    found = [layer for layer in layers if layer is not None]
    chosen = {
        field.name: next((getattr(p, field.name) for p in found if getattr(p, field.name) is not None), None)
        for field in fields(FlowPolicy)
    }
    return FlowPolicy(**chosen)

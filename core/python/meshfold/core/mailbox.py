"""Mailboxes: bounded stores between producers and consumers, with leases, acknowledgements and redelivery (S12 to S14)."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from os import PathLike
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, Self, TypeVar, get_args

from meshfold._native import MailboxBase, attach_mailbox
from meshfold.core.address import escape_token
from meshfold.core.closing import Closing
from meshfold.core.errors import LeaseExpired, WiringError
from meshfold.core.event import Event
from meshfold.core.flow import EdgeCounters
from meshfold.core.policy import FlowPolicy
from meshfold.core.route import Route, route
from meshfold.core.schema import Schema
from meshfold.core.stores.log import EventLog
from meshfold.core.stream import Edge

if TYPE_CHECKING:
    import asyncio

    from meshfold.core.graph import Graph

__all__ = (
    "Consumer",
    "Delivery",
    "GroupSnapshot",
    "Mailbox",
    "MailboxDescriptor",
    "MailboxSink",
    "MailboxSnapshot",
)

T = TypeVar("T")
DeliveryMode = Literal["mpsc_serial", "mpmc_unique", "mpmc_replicated", "key_affine"]
OrderingPolicy = Literal[
    "fifo",
    "priority_stable",
    "weighted_fair",
    "round_robin_by_producer",
    "keyed_fifo",
    "latest_only",
    "unordered",
]
OverflowPolicy = Literal[
    "block",
    "reject_write",
    "drop_newest",
    "drop_oldest",
    "coalesce_latest",
    "deadline_drop",
    "spill_to_store",
]
#: How long a consumer that waits sleeps at most before it looks for leases that ran out, in seconds.
_LOOK_S: Final = 1.0
#: Characters of a name that fit into a token of an address, however they are escaped.
_NAME_MAX: Final = 16
#: Files of a spill are ended at this size, so that what was read leaves the disk soon.
_SPILL_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class MailboxDescriptor:
    """How a mailbox behaves. Times are in seconds.

    :param capacity: entries, waiting or not yet acknowledged
    :param max_bytes: bytes of their payloads; an event above all of it is refused as TooLarge
    :param delivery_mode: one consumer; one of each group; every consumer; the one its key belongs to
    :param ordering_policy: `priority_stable` goes by the quality-of-service class, `keyed_fifo` lets one entry of a key
        be worked on at a time, `latest_only` has a capacity of 1
    :param overflow_policy: when full: `block` lets producers wait, `reject_write` and `deadline_drop` refuse with
        QueueFull before anything is numbered, `spill_to_store` keeps further entries on disk, the others lose and count
    :param ttl: how long an entry is worth delivering; None: for ever
    :param lease: how long a consumer has to acknowledge
    :param max_attempts: deliveries of an entry to a group before it goes to the poison route
    :param backoff: how long an entry that was given back waits, at the head of its lane
    :param block_timeout: how long a producer waits before QueueFull; None: as long as it takes
    :param weights: turns by partition key for `weighted_fair`
    :param spill: a folder, for `spill_to_store`; the next life goes on behind what was worked off, and marks what comes
        again DELIVERY_DUPLICATED. After a power cut more may come again
    :raises WiringError: for a value that is unknown or does not fit the others
    """

    capacity: int = 128
    delivery_mode: DeliveryMode = "mpsc_serial"
    ordering_policy: OrderingPolicy = "fifo"
    overflow_policy: OverflowPolicy = "block"
    max_bytes: int | None = None
    ttl: float | None = None
    lease: float = 30.0
    max_attempts: int = 5
    backoff: float = 0.0
    block_timeout: float | None = None
    weights: Mapping[str, int] = field(default_factory=dict[str, int])
    spill: PathLike[str] | str | None = None

    def __post_init__(self) -> None:
        for name, value, kind in (
            ("delivery_mode", self.delivery_mode, DeliveryMode),
            ("ordering_policy", self.ordering_policy, OrderingPolicy),
            ("overflow_policy", self.overflow_policy, OverflowPolicy),
        ):
            known = get_args(kind)
            if value not in known:
                raise WiringError(
                    f"unknown {name} {value!r}", fix=f"use one of {', '.join(known)}", item=name
                )
        if isinstance(self.capacity, bool) or self.capacity < 1:
            raise WiringError(f"a capacity of {self.capacity!r}", fix="use at least 1", item="capacity")
        if (self.overflow_policy == "spill_to_store") != (self.spill is not None):
            raise WiringError(
                "spill_to_store and a folder for it go together", fix="give both or neither", item="spill"
            )

    def policy(self) -> str:
        """The policy as the engine takes it."""
        # S14: only the newest is one entry that is replaced.
        latest = self.ordering_policy == "latest_only"
        return json.dumps(
            {
                "capacity": 1 if latest else self.capacity,
                "bytes_max": self.max_bytes if self.max_bytes is not None else (1 << 63) - 1,
                "mode": self.delivery_mode,
                "ordering": self.ordering_policy,
                "overflow": "coalesce_latest" if latest else self.overflow_policy,
                "ttl_ns": int((self.ttl or 0) * 1e9),
                "lease_ns": int(self.lease * 1e9),
                "attempts_max": self.max_attempts,
                "backoff_ns": int(self.backoff * 1e9),
                "block_ns": int((self.block_timeout or 0) * 1e9),
                "weights": dict(self.weights),
            }
        )


@dataclass(frozen=True, slots=True)
class GroupSnapshot:
    """A group now: its members, entries that wait and that are leased, and what it did."""

    name: str
    members: tuple[str, ...]
    waiting: int
    leased: int
    deliveries: int
    redeliveries: int
    acks: int
    nacks: int
    poisoned: int


@dataclass(frozen=True, slots=True)
class MailboxSnapshot:
    """A mailbox now. `credit` is how many more entries it takes, `producers` counts entries by (producer, incarnation)."""

    name: str
    descriptor: MailboxDescriptor
    depth: int
    payload_bytes: int
    credit: int
    largest_depth: int
    oldest_age: float
    spilled: int
    blocked: int
    blocked_writes: int
    rejected: int
    counters: EdgeCounters
    groups: tuple[GroupSnapshot, ...]
    producers: dict[tuple[bytes, bytes], int]


class Delivery(Generic[T]):
    """An entry leased to one consumer. A context manager: acknowledged at its end, given back if it raises."""

    def __init__(self, base: MailboxBase, event: Event[T], ticket: int, attempt: int, deadline: int) -> None:
        self._base = base
        self.event = event
        #: names this delivery
        self.ticket = ticket
        #: which attempt it is, from 1
        self.attempt = attempt
        #: ns of the graph's clock at which the lease runs out
        self.deadline = deadline

    @property
    def value(self) -> T:
        """The event's value."""
        return self.event.value

    def ack(self) -> None:
        """Worked off: the entry leaves for this group. Idempotent.

        :raises LeaseExpired: if the lease had run out; `current` is the ticket of who has the entry now
        """
        self._settled(*self._base.ack(self.ticket))

    def nack(self, *, retryable: bool = True, reason: str = "") -> None:
        """Not worked off: it is delivered again, after the backoff and before what came later. Idempotent.

        :param retryable: False sends it to the poison route at once
        :raises LeaseExpired: as `ack`
        """
        self._settled(*self._base.nack(self.ticket, retryable, reason or "given back"))

    def _settled(self, how: str, current: int | None) -> None:
        if how == "done":
            return
        raise LeaseExpired(
            f"the lease of attempt {self.attempt} on {self.event.id} ran out",
            fix="acknowledge within the lease, or make it longer",
            event=self.event.id,
            ticket=self.ticket,
            current=current,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.ack()
        else:
            with contextlib.suppress(LeaseExpired):
                self.nack(reason=f"{type(error).__name__}: {error}")


class Consumer(Closing, Generic[T]):
    """One member of a group. Closing gives back what it has not acknowledged."""

    def __init__(self, mailbox: Mailbox[T], base: MailboxBase, group: str, member: str) -> None:
        self._mailbox = mailbox
        self._base = base
        self.group = group
        self.member = member
        base.join(group, member)

    def receive_nowait(self) -> Delivery[T] | None:
        """The next entry for this member, leased to it; None if there is none now.

        :raises WiringError: if the mailbox is closed
        """
        found = self._base.receive(self.group, self.member)
        return None if found is None else Delivery(self._base, *found)

    def receive(self, timeout: float | None = None) -> Delivery[T] | None:
        """As `receive_nowait`, waiting up to `timeout` seconds (None: as long as it takes) for an entry."""
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            found = self.receive_nowait()
            left = _LOOK_S if end is None else min(_LOOK_S, end - time.monotonic())
            if found is not None or left <= 0:
                return found
            self._base.wait(left)

    async def areceive(self) -> Delivery[T]:
        """The next entry, without blocking the event loop. Cancelled while waiting, nothing is leased."""
        import asyncio

        while True:
            waiter = self._mailbox.ready.listen()
            found = self.receive_nowait()
            if found is not None:
                self._mailbox.ready.forget(waiter)
                return found
            try:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_S):
                        await waiter.wait()
            finally:
                self._mailbox.ready.forget(waiter)

    def __iter__(self) -> Iterator[Delivery[T]]:
        """What is there now, one after the other."""
        while (found := self.receive_nowait()) is not None:
            yield found

    async def __aiter__(self) -> AsyncIterator[Delivery[T]]:
        while True:
            yield await self.areceive()

    def close(self) -> None:
        """Leave the group. Idempotent."""
        self._base.leave(self.group, self.member)


class Ready:
    """Tells the event loops that wait for a mailbox; called by whoever runs the turn."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def listen(self) -> asyncio.Event:
        """An event that is set once something happens from now on."""
        import asyncio

        event = asyncio.Event()
        with self._lock:
            self._waiters.append((asyncio.get_running_loop(), event))
        return event

    def forget(self, event: asyncio.Event) -> None:
        """Nobody waits for that event any more."""
        with self._lock:
            self._waiters = [row for row in self._waiters if row[1] is not event]

    def __call__(self) -> None:
        with self._lock:
            waiters, self._waiters = self._waiters, []
        for loop, event in waiters:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(event.set)


class Mailbox(Edge, Generic[T]):
    """An installed mailbox: publish on `ingress`, read with a consumer or connect it to a route.

    What no consumer could work off goes to `poison`, with the reason as its operator. Made by `Graph.mailbox`.
    """

    _numbers: Final = itertools.count(1)

    def __init__(
        self,
        graph: Graph,
        name: str,
        descriptor: MailboxDescriptor,
        schema: Schema[T],
        *,
        ingress: Route[T] | None = None,
        poison: Route[T] | None = None,
        flow: FlowPolicy | None = None,
    ) -> None:
        self.name = name
        self.descriptor = descriptor
        #: publish here
        self.ingress: Route[T] = ingress or _internal(name, "ingress", schema)
        #: what could not be worked off
        self.poison: Route[T] = poison or _internal(name, "poison", schema)
        self.ready = Ready()
        self._spill: EventLog[T] | None = None
        if descriptor.spill is not None:
            self._spill = EventLog(descriptor.spill, self.ingress, segment_bytes=_SPILL_BYTES)
        self._base = attach_mailbox(
            graph, self.ingress, name, descriptor.policy(), self.poison, self.ready, self._spill
        )
        super().__init__(graph, self._base.edge)
        #: whether it is installed
        self.open = True
        self.flow = flow or self.policy()

    def policy(self) -> FlowPolicy:
        """What this mailbox asks of the edges it is on."""
        return FlowPolicy(
            mailbox=self.name, async_boundary="queued", overflow=self.descriptor.overflow_policy
        )

    def publish(self, value: T, **envelope: Any) -> Event[T]:
        """Publish on the ingress.

        :raises QueueFull: if it is full and refuses, or the block timeout is over; nothing was numbered
        :raises WouldBlock: inside an observer, if it would have to wait
        :raises TooLarge: if the event is larger than the whole mailbox
        """
        return self._graph.publish(self.ingress, value, **envelope)

    def consumer(self, group: str | None = None, *, name: str | None = None) -> Consumer[T]:
        """Join a group. Without one: a group of its own where every consumer gets everything, else the common one.

        :raises WiringError: if the delivery mode has no room for it, or the member exists
        """
        member = name or f"consumer-{next(self._numbers)}"
        if group is None:
            group = member if self.descriptor.delivery_mode == "mpmc_replicated" else "consumers"
        return Consumer(self, self._base, group, member)

    def connect(self, sink: Route[T]) -> MailboxSink:
        """Let its entries become events of a route, each from a turn of its own; delivered is acknowledged.

        :raises WiringError: if the delivery mode has no room for it
        """
        replicated = self.descriptor.delivery_mode == "mpmc_replicated"
        member = self._base.connect(sink.address if replicated else "consumers", sink)
        self._graph.note_mail_sink(self._edge, member, sink)
        return MailboxSink(self._graph, self._edge, self._base, member)

    def snapshot(self) -> MailboxSnapshot:
        """The mailbox now.

        :raises WiringError: if it is closed
        """
        return snapshot_of(self._graph, self.name, self.descriptor, self._base)

    def close(self) -> None:
        """Take it off; what waits is counted as closed, what is on disk stays there. Idempotent."""
        self._base.keep()
        super().close()
        self.open = False
        self.ready()
        if self._spill is not None:
            self._spill.close()


class MailboxSink(Edge):
    """A route that a mailbox is connected to; closing takes it off."""

    def __init__(self, graph: Graph, edge: int, base: MailboxBase, member: str) -> None:
        super().__init__(graph, edge)
        self._base = base
        self._member = member

    def close(self) -> None:
        """Disconnect. Idempotent."""
        self._base.disconnect(self._member)
        self._graph.note_mail_sink(self._edge, self._member, None)


def snapshot_of(graph: Graph, name: str, descriptor: MailboxDescriptor, base: MailboxBase) -> MailboxSnapshot:
    """A mailbox now."""
    figures = base.figures()
    credit = next(row for row in graph.edge_credit() if row.edge == base.edge)
    groups = tuple(
        GroupSnapshot(group, tuple(members), waiting, leased, *counts)
        for group, members, waiting, leased, counts in figures["groups"]
    )
    return MailboxSnapshot(
        name=name,
        descriptor=descriptor,
        depth=figures["depth"],
        payload_bytes=figures["bytes"],
        credit=credit.available,
        largest_depth=figures["largest_depth"],
        oldest_age=figures["oldest_age_ns"] / 1e9,
        spilled=figures["spilled"],
        blocked=credit.waiting,
        blocked_writes=credit.waits,
        rejected=credit.rejected,
        counters=graph.counters_of(base.edge),
        groups=groups,
        producers=figures["producers"],
    )


def _internal(name: str, stream: str, schema: Schema[Any]) -> Route[Any]:
    # A queued connection is named after both its routes, which is more than one token holds.
    token = name
    if len(name) > _NAME_MAX:
        try:
            escape_token(name)
        except WiringError:
            token = f"long-{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:32]}"
    return route("mailbox", token, stream, schema=schema, plane="state", layer="internal", variant="event")

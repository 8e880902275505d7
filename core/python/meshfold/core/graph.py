"""The graph: publish, observe, stream, connect, pipe - one process, one engine, no network.

Invariants: numbers are given per route and incarnation from 1 (S2); all readers of a route see the order of numbers
(S3); a failing observer does not stop the others (S4); every edge accounts for every event (S43).
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import os
import weakref
from collections.abc import AsyncIterable, Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Self, TypeVar

from meshfold._native import route_of, wall_ns
from meshfold.core.access import Access, AuditEntry, OwnerSight, Principal, PrincipalSight, Sight
from meshfold.core.alarm import start_alarm
from meshfold.core.bounds import Bounded
from meshfold.core.columns import COLUMN_EVENTS_MAX, check_columnar
from meshfold.core.computing import Computing
from meshfold.core.ephemeral import Ephemeral, make_ephemeral
from meshfold.core.errors import WiringError, WouldBlock
from meshfold.core.event import Event
from meshfold.core.failures import Failing
from meshfold.core.flow import EdgeCounters, EdgeInfo, Lineage, ParentRange, SeqRange
from meshfold.core.ids import parse_event_id
from meshfold.core.inlet import Inlet
from meshfold.core.links import Linked
from meshfold.core.middleware import Layer, Middleware
from meshfold.core.operator import OperatorInfo, operator_rows
from meshfold.core.parts import Part
from meshfold.core.payload_graph import Payloads
from meshfold.core.policy import FlowPolicy
from meshfold.core.ports import Clock
from meshfold.core.replay import Replayed, replay
from meshfold.core.route import Route
from meshfold.core.schema import Schema
from meshfold.core.shapes import Shapes
from meshfold.core.stream import Stream, Subscription, Wake
from meshfold.core.tap import Tap

if TYPE_CHECKING:
    import asyncio

    from meshfold.core.query import Answer, Command, QueryService
    from meshfold.core.route_audit import RouteAudit
    from meshfold.core.view import GraphView

__all__ = ("Graph",)

T = TypeVar("T")

#: Events a stream holds for a reader that is behind, unless told otherwise.
STREAM_EVENTS = 1024


class Graph(Payloads, Shapes, Linked, Computing, Bounded, Failing):
    """A local graph.

    :param name: shown in listings; the default producer tag derives from it
    :param clock: gives time; None: the system clock
    :param seed: makes the incarnation reproducible, and with it ids and traces; with a clock given, too, a run is deterministic
    :param producer: 8 bytes that name this graph in event ids
    :param incarnation: 8 bytes that name this life of it; None: random, or from the seed
    """

    name: str
    _access: Access

    def __new__(
        cls,
        *,
        name: str = "graph",
        clock: Clock | None = None,
        seed: int | None = None,
        producer: bytes | None = None,
        incarnation: bytes | None = None,
    ) -> Self:
        if producer is None:
            producer = hashlib.sha256(name.encode()).digest()[:8]
        random = (
            os.urandom(8)
            if seed is None
            else hashlib.sha256(b"graph" + seed.to_bytes(16, "big", signed=True)).digest()[:8]
        )
        self: Self = super().__new__(cls, producer, incarnation or random, clock)
        self.name = name
        self.begin_failures()
        self._scheduler, self._shadows, self._loops = None, {}, {}
        self._installed, self._retention = {}, {}
        self._links, self._joins = {}, {}
        self._access = Access(partial(_wall, weakref.ref(self)))
        self.begin_flow()
        self._planes = {}
        self.on_timed(partial(start_alarm, weakref.ref(self)))
        return self

    async def apublish(self, r: Route[T], value: T, **envelope: Any) -> Event[T]:
        """As `publish`, waiting for room without blocking the event loop. Cancelled while waiting, nothing was done.

        :raises EncodeError: if the value does not fit; nothing was stored
        :raises QueueFull: inside an observer, where nothing waits
        """
        while True:
            try:
                return self.try_publish(r, value, **envelope)
            except WouldBlock:
                import asyncio

                loop, room = asyncio.get_running_loop(), asyncio.Event()
                self.when_room(partial(_set, loop, room), r)
                await room.wait()

    def publish_many(
        self,
        r: Route[T],
        values: Iterable[T] | Any,
        *,
        times: Sequence[int] | Any | None = None,
        keys: Sequence[str] | None = None,
    ) -> SeqRange:
        """Publish values in order: a list, or a buffer (array, NumPy) of doubles or 64-bit integers without an object each.

        Where nothing can tell the difference, they go through operators as columns (a run): functions and observers are
        still called in the order of values, but may find the routes further on than the value they are called with.

        :param times: device times in ns, one for each value; a buffer of 64-bit integers without an object each
        :param keys: partition keys, one for each value
        :raises EncodeError: if one does not fit; then nothing was published
        :raises ValueError: if times or keys are not one for each value
        """
        first, last = self.publish_all(r, values, times, list(keys) if keys else None)
        return SeqRange(first, last)

    def feed(self, r: Route[T], values: Iterable[T]) -> int:
        """Publish what an iterable gives, one after the other as it comes; returns how many.

        For values that are all there use `publish_many`.

        :raises EncodeError: for a value that does not fit; those before it are published
        :raises Exception: what the iterable raises; what it gave before is published
        """
        count = 0
        for value in values:
            self.publish(r, value)
            count += 1
        return count

    async def afeed(self, r: Route[T], values: AsyncIterable[T]) -> int:
        """As `feed` for an asynchronous source, waiting for room without blocking the event loop."""
        count = 0
        async for value in values:
            await self.apublish(r, value)
            count += 1
        return count

    def part(self, name: str) -> Part:
        """Begin a named part: what is installed inside its `with` block can be listed and closed together.

        :raises WiringError: for an empty name, or one with a `/`
        """
        if not name or "/" in name:
            raise WiringError(f"a part named {name!r}", fix="give it a name without '/'", item="part")
        return Part(self, name)

    def observe(
        self,
        r: Route[T],
        fn: Callable[[Any], Any],
        *,
        replay_latest: bool = True,
        capacity: int | None = None,
        overflow: str = "drop_oldest",
        batch: bool = False,
        columns: bool = False,
    ) -> Subscription:
        """Call `fn` with each event. Without a capacity inside the turn; with one from a queue, in order, on a thread.

        :param batch: call it with a list of the events that wait; always from a queue
        :param columns: call it with `Columns` of the events that wait, up to 65,536: no Python object for each. Always from a
            queue, of 65,536 events where no capacity is given
        :raises WiringError: for an unknown overflow rule, a capacity below 1, or columns of values that have none
        """
        name = getattr(fn, "__qualname__", repr(fn))
        if inspect.iscoroutinefunction(fn):
            fn = _in_loop(fn)
            capacity = capacity or (COLUMN_EVENTS_MAX if columns else STREAM_EVENTS)
        if columns:
            check_columnar(r)
            capacity = capacity or COLUMN_EVENTS_MAX
        if batch:
            capacity = capacity or STREAM_EVENTS
        if capacity is None:
            return Subscription(self, self.attach_observer(r, fn, name, replay_latest))
        queue = self.attach_queue(
            r, name, "observer", _positive(capacity), _rule(overflow), replay_latest, None
        )
        return Subscription(self, queue.edge, queue, fn, batch=batch, columns_of=r if columns else None)

    def on(
        self, r: Route[T], **options: Any
    ) -> Callable[[Callable[[Event[T]], Any]], Callable[[Event[T]], Any]]:
        """Decorator form of `observe`; an `async def` is called in the loop that runs while decorating."""

        def attach(fn: Callable[[Event[T]], Any]) -> Callable[[Event[T]], Any]:
            self.observe(r, fn, **options)
            return fn

        return attach

    def stream(
        self,
        r: Route[T],
        *,
        replay_latest: bool = True,
        capacity: int = STREAM_EVENTS,
        overflow: str = "drop_oldest",
    ) -> Stream[T]:
        """Read a route with `async for`, or `.blocking(timeout)`; what a slow reader loses is counted.

        :raises WiringError: for an unknown overflow rule or a capacity below 1
        """
        wake = Wake()
        queue = self.attach_queue(
            r, f"stream {r.text}", "stream", _positive(capacity), _rule(overflow), replay_latest, wake
        )
        return Stream(self, queue, wake, r)

    def configure_retention(
        self, r: Route[Any], *, history: int = 8, max_bytes: int | None = None, max_age: float | None = None
    ) -> None:
        """Set what the route keeps in memory (S16): events (0: none), payload bytes, age in seconds."""
        self.retain(r, history, max_bytes, None if max_age is None else int(max_age * 1e9))

    def tap(
        self,
        r: Route[Any],
        *,
        capacity: int = 65_536,
        flow: FlowPolicy | None = None,
        on_ready: Callable[[], object] | None = None,
    ) -> Tap:
        """Attach the sending end of a bridge: a bounded ring drained as encoded batches.

        :param flow: its `overflow` says what a full one does, `drop_oldest` if nothing; `block` and `reject_write` hold
            producers up, unless its `backpressure` is `isolate`: then what is new goes
        :param on_ready: called from the publishing thread when the ring goes from empty to non-empty; must be cheap
        :raises WiringError: for an ephemeral route, which is private (S42), or an unknown overflow rule
        """
        if r.addr.layer == "ephemeral":
            raise WiringError(f"{r.text} is private", fix="promote what others may see", item=r.text)
        queue = self.attach_queue(
            r, f"tap {r.text}", "tap", _positive(capacity), _tap_rule(flow), False, on_ready
        )
        if flow is not None:
            self._flow_edges[queue.edge] = flow
        return Tap(self, queue)

    def inlet(self, r: Route[Any], *, name: str = "bridge") -> Inlet:
        """Attach the receiving end of a bridge: batches of remote producers enter with their own numbers."""
        self.declare(r)
        return Inlet(self, r, name)

    def edges(self) -> list[EdgeInfo]:
        """Every observer, stream, pipeline, connection and tap with its counters."""
        inputs = {edge: row[0] for row in self.node_rows() for edge in row[10]}
        return [
            EdgeInfo(name, label, r.text, EdgeCounters(*row), inputs.get(number))
            for number, name, label, r, row in self.edge_rows()
        ]

    def operators(self) -> list[OperatorInfo]:
        """Every installed operator with its stages, routes and counters, in the order they were installed."""
        return operator_rows(self)

    def counters_of(self, edge: int) -> EdgeCounters:
        """The counters of one edge; zeros once it is closed."""
        for number, _, _, _, row in self.edge_rows():
            if number == edge:
                return EdgeCounters(*row)
        return EdgeCounters()

    def routes(self) -> list[Route[Any]]:
        """All routes this graph has seen, by address."""
        return sorted(self.route_objects(), key=lambda r: r.address)

    def route(self, tag: bytes) -> Route[Any] | None:
        """The route with this 8-byte tag."""
        return route_of(self, tag)

    def replay(self, r: Route[T], *, since: int = 1, until: int | None = None) -> Replayed[T]:
        """Read what a route retains, oldest first, from number `since` to `until`, and say what is missing (S16).

        Nothing is delivered to other readers. Events of remote producers are included by their own numbers.
        """
        return replay(self, r, since, until)

    def ephemeral(
        self,
        owner: str,
        family: str,
        stream: str,
        *,
        schema: Schema[T],
        ttl_s: float,
        seed: int | None = None,
    ) -> Ephemeral[T]:
        """Make a private route that ends with all its state after `ttl_s` seconds of the graph's clock (S42).

        :param seed: what its values come from, recorded with them: then they are DET_SEEDED_ENTROPY, else DET_NONREPLAYABLE
        :raises WiringError: for a lifetime out of range, or a route that was used before
        """
        return make_ephemeral(self, owner, family, stream, schema, ttl_s, seed)

    def layer(self, *hooks: Middleware) -> Layer:
        """The graph behind middleware: publishes and deliveries through it pass every hook, the first outermost.

        :raises WiringError: for no hook, too many, or one that is no `Middleware`
        """
        return Layer(self, hooks)

    @property
    def access(self) -> Access:
        """The capabilities of this graph: principals, grants, exports, the audit (S31, S32)."""
        return self._access

    def audit(self, *, since: int = 0) -> list[AuditEntry]:
        """Who did or was refused what, with time, principal, action and number, from entry `since` on (S31).

        The newest 65,536 entries are kept in memory; `access.audit_to` keeps them elsewhere as they come.
        """
        return list(self._access.entries(since))

    def route_audit(self, r: Route[Any]) -> RouteAudit:
        """Who writes and reads a route, what write bindings it belongs to, its taints, repairs and audit entries (S31)."""
        from meshfold.core.route_audit import audit_of

        return audit_of(self, r)

    def view(self, principal: Principal) -> GraphView:
        """The graph as one principal may use it; hand out this, not the graph.

        :raises GrantDenied: if the object is no principal of `access`
        """
        from meshfold.core.view import GraphView

        return GraphView(self, principal)

    def query(
        self,
        command: Command | str,
        *,
        limit: int = 100,
        after: str = "",
        sight: Sight | None = None,
        **fields: Any,
    ) -> Answer:
        """Ask about this graph: `graph.query("latest", route="kiln-7/thermal/temperature")` (S34).

        :param command: a command of `meshfold.core.query`, or its name with its fields
        :param limit: rows of one page
        :param after: `next` of the page before
        :param sight: whose rights filter the answer; None: the owner's
        :raises WiringError: for an unknown command, field, route or event
        :raises GrantDenied: if `sight` may not ask this
        """
        from meshfold.core.query.asking import ask

        return ask(self, sight or OwnerSight(self._access), command, limit, after, fields)

    def serve_queries(self, owner: str, *, as_: Principal | None = None) -> QueryService:
        """Answer queries that are published on `owner`'s request route, with the rights of a principal or of the owner.

        :raises GrantDenied: if the object is no principal of `access`
        :raises WiringError: if `owner` is no token
        """
        from meshfold.core.query import QueryService

        sight = OwnerSight(self._access) if as_ is None else PrincipalSight(self._access, as_)
        return QueryService(self, owner, sight)

    def lineage(self, event_id: str) -> Lineage | None:
        """Where a retained event comes from (S30); None if it is not retained here.

        :raises WiringError: if `event_id` is not an event id
        """
        event = self.find(*parse_event_id(event_id))
        if event is None:
            return None
        return Lineage(
            event=event.id,
            route=event.route.text,
            parents=tuple(ParentRange(*row) for row in event.parent_ranges),
            trace=event.trace,
            causality=event.causality,
            correlation=event.correlation,
            taints=tuple(event.taints),
            time=event.time,
            operator=event.operator,
        )


def _wall(held: weakref.ref[Graph]) -> int:
    """The wall clock of a graph, ns."""
    graph = held()
    if graph is None:
        raise WiringError("the graph of these capabilities is gone", fix="keep the graph", item="access")
    return wall_ns(graph)


def _set(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    """Set an event from any thread; a loop that ended needs nothing."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(event.set)


def _positive(capacity: int) -> int:
    if capacity < 1:
        raise WiringError(f"a capacity of {capacity}", fix="use at least 1", item="capacity")
    return capacity


def _rule(overflow: str) -> str:
    rules = ("drop_oldest", "drop_newest", "coalesce_latest", "block", "reject")
    if overflow not in rules:
        raise WiringError(
            f"unknown overflow rule {overflow!r}", fix=f"use one of {', '.join(rules)}", item="overflow"
        )
    return overflow


def _tap_rule(flow: FlowPolicy | None) -> str:
    """The overflow rule of a ring by its policy."""
    overflow = (flow.overflow if flow is not None else None) or "drop_oldest"
    if flow is not None and flow.backpressure == "isolate" and overflow in ("block", "reject_write"):
        return "drop_newest"
    return _rule("reject" if overflow == "reject_write" else overflow)


def _in_loop(fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Run an async observer in the loop that runs now; called from the dispatcher's thread, one event at a time."""
    import asyncio

    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        raise WiringError(
            "an async observer needs a running event loop", fix="attach it inside one", item="observer"
        ) from None
    return lambda event: asyncio.run_coroutine_threadsafe(fn(event), loop).result()

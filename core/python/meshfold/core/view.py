"""A graph as one principal may use it: every path asks, every act is noted (S31, S32)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from meshfold._native import redact
from meshfold.core.access import PrincipalSight
from meshfold.core.closing import Closing
from meshfold.core.columns import Columns
from meshfold.core.errors import PayloadGone
from meshfold.core.event import Event
from meshfold.core.flow import SeqRange
from meshfold.core.registry import Action
from meshfold.core.replay import Replayed
from meshfold.core.route import Route
from meshfold.core.stream import Stream, Subscription

if TYPE_CHECKING:
    from meshfold.core.access import Access, Principal
    from meshfold.core.graph import Graph
    from meshfold.core.query import Answer, Command

__all__ = ("GraphView", "GuardedStream")

T = TypeVar("T")


class GraphView:
    """What `graph.view(principal)` gives: the same verbs, each checked when called and again for every event delivered.

    A principal with META_READ alone receives events without their payload. What was allowed when it began ends with the
    grant: a subscription whose grant was revoked or ran out delivers nothing more and closes.
    """

    def __init__(self, graph: Graph, principal: Principal) -> None:
        self.principal = principal
        self._graph = graph
        self._access: Access = graph.access
        self._sight = PrincipalSight(graph.access, principal)

    def _may(self, action: Action, r: Route[Any]) -> bool:
        return self._sight.sees(action, r.addr)

    def _shown(self, given: Any) -> Any:
        """An event or columns, without their payloads where this principal may not open them."""
        if self._may(Action.PAYLOAD_OPEN, given.route):
            return given
        return given.without_payload() if isinstance(given, Columns) else redact(given)

    def _act(self, r: Route[Any]) -> Action:
        """Requests are written by those who may ask, all else by the route's owner."""
        action = Action.WRITE_REQUEST if r.addr.variant in ("request", "query_request") else Action.OWN
        self._sight.require(action, r)
        return action

    def publish(self, r: Route[T], value: T, **envelope: Any) -> Event[T]:
        """As `Graph.publish`, with OWN, or WRITE_REQUEST on a request route.

        :raises GrantDenied: without that grant; nothing was encoded or numbered
        """
        action = self._act(r)
        event = self._graph.publish(r, value, **envelope)
        self._access.note(self.principal, action, r.addr, True, "published", event.seq)
        return event

    def try_publish(self, r: Route[T], value: T, **envelope: Any) -> Event[T]:
        """As `Graph.try_publish`, with the grants of `publish`.

        :raises GrantDenied: without that grant
        """
        action = self._act(r)
        event = self._graph.try_publish(r, value, **envelope)
        self._access.note(self.principal, action, r.addr, True, "published", event.seq)
        return event

    async def apublish(self, r: Route[T], value: T, **envelope: Any) -> Event[T]:
        """As `Graph.apublish`, with the grants of `publish`.

        :raises GrantDenied: without that grant
        """
        action = self._act(r)
        event = await self._graph.apublish(r, value, **envelope)
        self._access.note(self.principal, action, r.addr, True, "published", event.seq)
        return event

    def publish_many(self, r: Route[T], values: Iterable[T] | Any, **options: Any) -> SeqRange:
        """As `Graph.publish_many`, with the grants of `publish`.

        :raises GrantDenied: without that grant
        """
        action = self._act(r)
        made = self._graph.publish_many(r, values, **options)
        self._access.note(
            self.principal, action, r.addr, True, f"published {made.first}-{made.last}", made.last
        )
        return made

    def latest(self, r: Route[T]) -> Event[T] | None:
        """As `Graph.latest`, with META_READ; without PAYLOAD_OPEN the event has no payload.

        :raises GrantDenied: without META_READ
        """
        self._sight.require(Action.META_READ, r)
        event = self._graph.latest(r)
        self._access.note(self.principal, Action.META_READ, r.addr, True, "latest", event.seq if event else 0)
        return None if event is None else self._shown(event)

    def observe(self, r: Route[T], fn: Callable[[Event[T]], Any], **options: Any) -> Subscription:
        """As `Graph.observe`, with META_READ; ends by itself when the grant does.

        :raises GrantDenied: without META_READ
        """
        self._sight.require(Action.META_READ, r)
        self._access.note(self.principal, Action.META_READ, r.addr, True, "observes")
        held: list[Subscription] = []

        def guarded(given: Any) -> None:
            if self._may(Action.META_READ, r):
                several = isinstance(given, list)
                shown: Any = [self._shown(event) for event in given] if several else self._shown(given)
                fn(shown)
                return
            self._access.note(self.principal, Action.META_READ, r.addr, False, "the grant ended")
            if held:
                held[0].close()

        held.append(self._graph.observe(r, guarded, **options))
        return held[0]

    def stream(self, r: Route[T], **options: Any) -> GuardedStream[T]:
        """As `Graph.stream`, with META_READ; ends by itself when the grant does.

        :raises GrantDenied: without META_READ
        """
        self._sight.require(Action.META_READ, r)
        self._access.note(self.principal, Action.META_READ, r.addr, True, "streams")
        return GuardedStream(self, r, self._graph.stream(r, **options))

    def shown(self, r: Route[T], event: Event[T]) -> Event[T] | None:
        """The event as this principal may see it; None once it may see none of the route."""
        if self._may(Action.META_READ, r):
            shown: Event[T] = self._shown(event)
            return shown
        self._access.note(self.principal, Action.META_READ, r.addr, False, "the grant ended", event.seq)
        return None

    def replay(self, r: Route[T], *, since: int = 1, until: int | None = None) -> Replayed[T]:
        """As `Graph.replay`, with META_READ and REPLAY_READ.

        :raises GrantDenied: without one of them
        """
        self._sight.require(Action.META_READ, r)
        self._sight.require(Action.REPLAY_READ, r)
        found = self._graph.replay(r, since=since, until=until)
        self._access.note(self.principal, Action.REPLAY_READ, r.addr, True, f"replays from {since}")
        return Replayed([self._shown(event) for event in found.events], found.missing)

    def open(self, event: Event[Any]) -> bytes:
        """The payload of an event, by what the graph retains and not by what the event object holds.

        :raises GrantDenied: without PAYLOAD_OPEN
        :raises PayloadGone: if it is not retained any more
        """
        self._sight.require(Action.PAYLOAD_OPEN, event.route)
        found = self._graph.find(event.producer, event.incarnation, event.route.tag, event.seq)
        self._access.note(self.principal, Action.PAYLOAD_OPEN, event.route.addr, True, "opens", event.seq)
        if found is None or found.payload is None:
            raise PayloadGone(f"the payload of {event.id} is gone", event=event.id, route=event.route.text)
        return found.payload

    def query(self, command: Command | str, **options: Any) -> Answer:
        """As `Graph.query`, filtered to what this principal may see.

        :raises GrantDenied: if the command needs a grant it does not have
        """
        return self._graph.query(command, sight=self._sight, **options)


class GuardedStream(Closing, Generic[T]):
    """A stream of a view: each event is shown as the principal may see it, and it ends when the grant does."""

    def __init__(self, view: GraphView, r: Route[T], inner: Stream[T]) -> None:
        self._view = view
        self._route = r
        self._inner = inner

    def __aiter__(self) -> AsyncIterator[Event[T]]:
        return self._events()

    async def _events(self) -> AsyncIterator[Event[T]]:
        async for event in self._inner:
            shown = self._view.shown(self._route, event)
            if shown is None:
                self.close()
                return
            yield shown

    def blocking(self, timeout: float | None = None) -> Iterator[Event[T]]:
        """Iterate without asyncio; ends when nothing came for `timeout` seconds, or when the grant ended."""
        for event in self._inner.blocking(timeout):
            shown = self._view.shown(self._route, event)
            if shown is None:
                self.close()
                return
            yield shown

    def close(self) -> None:
        """Detach. Idempotent."""
        self._inner.close()

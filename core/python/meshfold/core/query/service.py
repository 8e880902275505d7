"""Queries as routes: whoever publishes a request on the one is answered on the other, with the same correlation (S34)."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from meshfold._native import wall_ns
from meshfold.core.address import Address
from meshfold.core.closing import Closing
from meshfold.core.errors import MeshfoldError, QueueFull, WiringError
from meshfold.core.event import Event, event_document
from meshfold.core.query import answers
from meshfold.core.query import commands as ask
from meshfold.core.query import rows as say
from meshfold.core.registry import Action
from meshfold.core.route import Route
from meshfold.core.schema import Schema

if TYPE_CHECKING:
    from meshfold.core.access import Sight
    from meshfold.core.graph import Graph
    from meshfold.core.stream import Subscription

__all__ = ("QueryService", "query_routes")

#: Watches one service keeps open; further ones are refused.
WATCHES_MAX: Final = 64
REQUESTS: Final[Schema[ask.Request]] = Schema.json(ask.Request, name="query-request")
ANSWERS: Final[Schema[say.Answer]] = Schema.json(say.Answer, name="query-answer")


def query_routes(owner: str) -> tuple[Route[ask.Request], Route[say.Answer]]:
    """The request route and the response route of an owner's query service.

    :raises WiringError: if `owner` is no token
    """
    request = Address.of(owner, "query", "service", plane="query", layer="internal", variant="query_request")
    response = Address.of(
        owner, "query", "service", plane="query", layer="internal", variant="query_response"
    )
    return Route(request, REQUESTS), Route(response, ANSWERS)


def _deadline(event: Event[ask.Request]) -> int:
    """When a request ends, ns: counted from when it was sent, but from its arrival where its sender's clock is ahead."""
    return min(event.time, event.ingest_time) + event.value.deadline_ms * 1_000_000


@dataclass
class _Watch:
    subscription: Subscription
    deadline: int
    left: int
    request: Event[ask.Request]


class QueryService(Closing):
    """Answers the requests on its request route in their order, with the rights of one sight. Close it when done.

    An answer has the request's correlation, or its id where it has none, and the request as its parent. A `watch` is
    answered page by page; its last page has no `next`.
    """

    def __init__(self, graph: Graph, owner: str, sight: Sight) -> None:
        self.requests, self.responses = query_routes(owner)
        self._graph = graph
        self._sight = sight
        self._watches: deque[_Watch] = deque()
        self._subscription = graph.observe(self.requests, self._on_request, replay_latest=False)

    def _on_request(self, event: Event[ask.Request]) -> None:
        request = event.value
        late = self._now() > _deadline(event)
        if late:
            message = f"the request waited longer than its deadline of {request.deadline_ms} ms"
            self._answer(event, say.Answer(error="core.would_block", message=message))
        elif isinstance(request.command, ask.Watch):
            self._watch(event, request, request.command)
        else:
            self._answer(event, answers.answer(self._graph, self._sight, request))

    def _now(self) -> int:
        return wall_ns(self._graph)

    def _answer(self, request: Event[ask.Request], answer: say.Answer) -> None:
        correlation = request.correlation or request.id
        self._graph.publish(self.responses, answer, correlation=correlation, parents=(request,))

    def _watch(self, event: Event[ask.Request], request: ask.Request, command: ask.Watch) -> None:
        try:
            request.checked()
            watched = answers.visible(self._graph, self._sight, command.route, Action.PAYLOAD_OPEN)
            if not 1 <= command.count <= ask.PAGE_ROWS_MAX:
                raise WiringError(
                    f"a watch of {command.count} events", fix=f"1 to {ask.PAGE_ROWS_MAX}", item="count"
                )
            self._sweep()
            if len(self._watches) >= WATCHES_MAX:
                raise QueueFull(
                    f"{WATCHES_MAX} watches are open",
                    fix="wait for one to end",
                    route=watched.text,
                    capacity=WATCHES_MAX,
                )
        except MeshfoldError as error:
            self._answer(event, say.Answer(error=error.code, message=str(error)))
            return

        def seen(found: Event[Any]) -> None:
            self._seen(watch, found)

        subscription = self._graph.observe(watched, seen, replay_latest=False)
        watch = _Watch(subscription, _deadline(event), command.count, event)
        self._watches.append(watch)

    def _seen(self, watch: _Watch, event: Event[Any]) -> None:
        if watch not in self._watches:
            return
        allowed = self._sight.sees(Action.PAYLOAD_OPEN, event.route.addr)
        if self._now() > watch.deadline or not allowed:
            self._end(watch)
            return
        watch.left -= 1
        following = str(watch.left) if watch.left else None
        self._answer(watch.request, say.Answer([say.EventRow(event_document(event))], following))
        if not watch.left:
            self._end(watch, told=True)

    def _end(self, watch: _Watch, *, told: bool = False) -> None:
        self._watches.remove(watch)
        watch.subscription.close()
        if not told:
            self._answer(watch.request, say.Answer())

    def _sweep(self) -> None:
        """End what is past its deadline on routes that went quiet."""
        now = self._now()
        for watch in [watch for watch in self._watches if now > watch.deadline]:
            self._end(watch)

    def close(self) -> None:
        """Stop answering and end every watch. Idempotent."""
        self._subscription.close()
        for watch in list(self._watches):
            self._end(watch)

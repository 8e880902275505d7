"""`why`: the causes of an event, followed from node to node through their lineage stores (S30)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from meshfold.core import Graph, event_id, parse_event_id

__all__ = ("WhyWalk",)

#: Bounds of one walk: deeper or wider is cut and said so.
WHY_DEPTH_MAX = 16
WHY_EVENTS_MAX = 256

#: Asks the node that made an event for its part of the tree; None if it cannot be had.
AskProducer = Callable[[bytes, str, int], Awaitable[dict[str, Any] | None]]


class WhyWalk:
    """Builds the tree of causes of one event from this node's lineage and its peers'."""

    def __init__(self, graph: Graph, producer_name: Callable[[bytes], str], ask: AskProducer) -> None:
        self._graph = graph
        self._producer_name = producer_name
        self._ask = ask
        self._left = WHY_EVENTS_MAX

    async def walk(self, event: str, depth: int = WHY_DEPTH_MAX) -> dict[str, Any]:
        """Return `{event, route, node, operator, taints, time, causes[], known}`.

        :raises WiringError: if `event` is not an event id
        """
        producer, _, _, _ = parse_event_id(event)
        self._left -= 1
        lineage = self._graph.lineage(event)
        if lineage is None:
            remote = None
            if producer != self._graph.producer and depth > 0:
                remote = await self._ask(producer, event, depth - 1)
            return remote or self._unknown(event, producer)
        causes: list[dict[str, Any]] = []
        cut = False
        for parent in lineage.parents:
            for seq in range(parent.first, parent.last + 1):
                if self._left <= 0 or depth <= 0:
                    cut = True
                    break
                cause = event_id(parent.producer, parent.incarnation, parent.route_tag, seq)
                causes.append(await self.walk(cause, depth - 1))
        return {
            "event": event,
            "route": lineage.route,
            "node": self._producer_name(producer),
            "operator": lineage.operator,
            "taints": [str(taint) for taint in lineage.taints],
            "time": lineage.time,
            "causes": causes,
            "known": True,
            "cut": cut,
        }

    def _unknown(self, event: str, producer: bytes) -> dict[str, Any]:
        _, _, tag, _ = parse_event_id(event)
        route = self._graph.route(tag)
        return {
            "event": event,
            "route": route.text if route else None,
            "node": self._producer_name(producer),
            "operator": None,
            "taints": [],
            "time": None,
            "causes": [],
            "known": False,
            "cut": False,
        }

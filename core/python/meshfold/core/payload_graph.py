"""The part of `Graph` with lazy payloads and checkpoints."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import msgspec
from meshfold._native import checkpoint_rows
from meshfold.core.errors import PayloadGone, StoreDamaged, WiringError
from meshfold.core.event import Event
from meshfold.core.flow_graph import Flow
from meshfold.core.payloads import (
    LazyPayloadSource,
    OpenedPayload,
    PayloadDemand,
    PayloadPlane,
    PayloadPolicy,
)
from meshfold.core.route import Route

if TYPE_CHECKING:
    from meshfold.core.graph import Graph
    from meshfold.core.stores.keyspace import Keyspace

__all__ = ("Payloads",)

T = TypeVar("T")
_VERSION: Final = 1


class Payloads(Flow):
    """The part of `Graph` whose values are elsewhere, or kept over a restart."""

    _planes: dict[Route[Any], PayloadPlane]

    def configure_payloads(self, r: Route[Any], policy: PayloadPolicy) -> None:
        """Set how lazy payloads of a route are kept; without, they stay in memory once fetched, up to 64 MiB.

        :raises WiringError: if payloads were published on it already
        """
        if r in self._planes:
            raise WiringError(f"{r.text} has payloads already", fix="configure it before", item=r.text)
        self._planes[r] = PayloadPlane(r, policy)

    def publish_lazy(self, r: Route[T], source: LazyPayloadSource, **envelope: Any) -> Event[T]:
        """Publish an event whose payload is fetched when somebody opens it, and not before (S15).

        Its `value` is PayloadGone, for there is none here: `open_payload` is how a reader says that it wants it.

        :raises TooLarge: if the source says that it is larger than may be opened
        """
        plane = self._planes.get(r)
        if plane is None:
            plane = self._planes[r] = PayloadPlane(r, PayloadPolicy())
        return cast("Event[T]", plane.publish(self._graph(), source, **envelope))

    def open_payload(self, event: Event[T] | Route[T], *, wait: bool = True) -> OpenedPayload[T]:
        """Open the payload of an event, or of a route's newest. Opens of one payload that happen together share a fetch.

        :param wait: for open credit; False raises WouldBlock instead
        :raises PayloadGone: if it was evicted, opened once where that is all, or is not here
        :raises PayloadDamaged: if the bytes do not match the digest
        :raises WouldBlock: if there is no credit and it may not wait
        """
        found = self._graph().latest(event) if isinstance(event, Route) else event
        if found is None:
            assert isinstance(event, Route)
            raise PayloadGone(f"{event.text} has no event", fix="publish first", event="", route=event.text)
        if found.payload is not None:
            return OpenedPayload(found, found.payload)
        plane = self._planes.get(found.route)
        if plane is None or found.payload_reference is None:
            raise PayloadGone(
                f"the payload of {found.id} on {found.route.text} is not here",
                fix="open it where it was published",
                event=found.id,
                route=found.route.text,
            )
        return plane.open(found, wait)

    async def aopen_payload(self, event: Event[T] | Route[T]) -> OpenedPayload[T]:
        """As `open_payload`, in a thread; cancelled, the fetch goes on for whoever else waits for it."""
        import asyncio

        return await asyncio.to_thread(self.open_payload, event)

    def evict_payload(self, event: Event[Any]) -> None:
        """Forget a lazy payload; its event stays. Idempotent."""
        plane = self._planes.get(event.route)
        if plane is not None:
            plane.evict(event)

    def payload_demand_snapshot(self) -> list[PayloadDemand]:
        """What was asked of lazy payloads, by route."""
        return [plane.demand() for plane in self._planes.values()]

    def checkpoint(self, store: Keyspace) -> int:
        """Write the state of all operators, as of one moment between two turns; returns how many have one. Durable.

        :raises WiringError: if one holds values that only this process knows, or inside an observer; nothing was written
        :raises StoreUnavailable: if it cannot be written; nothing was
        """
        rows = [(name, states) for name, states in checkpoint_rows(self) if any(states)]
        names = [name for name, _ in rows]
        double = next((name for name in names if names.count(name) > 1), None)
        if double is not None:
            raise WiringError(
                f"two operators are named {double}", fix="give them names of their own", item=double
            )
        data = msgspec.msgpack.encode((_VERSION, rows))
        store.put(("checkpoint", self._graph().name), data)
        return len(rows)

    def restore_checkpoint(self, store: Keyspace) -> list[str]:
        """Give the operators of those names their state back; returns the names in the checkpoint that are not installed.

        Install first, restore next, publish then.

        :raises WiringError: if a state is not one of the operator of its name; operators before it have theirs
        :raises StoreDamaged: if it is no checkpoint
        """
        data = store.get(("checkpoint", self._graph().name))
        if data is None:
            return []
        try:
            version, rows = msgspec.msgpack.decode(data, type=tuple[int, list[tuple[str, list[bytes]]]])
        except msgspec.MsgspecError:
            version, rows = 0, []
        if version != _VERSION:
            raise StoreDamaged(
                "this is no checkpoint", fix="begin without it", path=str(store.path), offset=0
            )
        installed = {info.name: info.id for info in self._graph().operators()}
        for name, states in rows:
            if name in installed:
                self.load_node(installed[name], states)
        return [name for name, _ in rows if name not in installed]

    def _graph(self) -> Graph:
        return cast("Graph", self)

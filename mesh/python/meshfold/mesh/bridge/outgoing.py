"""Graph -> mesh: a tap drained into sealed frames, one batch a frame.

The per-event work is in the engine; this file runs once a frame. A frame goes out 1 ms after the first event (`express`
skips the wait) with what waits by then, up to 512 KiB: signing, verifying and what is decided for a frame cost 0.1 ms,
whatever its size.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from meshfold.core import EdgeCounters, Graph, Route, Tracing
from meshfold.core.errors import TooLarge
from meshfold.core.policy import FlowPolicy
from meshfold.core.ports import Transport
from meshfold.mesh.bridge.base import Bridge, Requests
from meshfold.mesh.bridge.credit_desk import CreditDesk
from meshfold.mesh.clocks import HybridClock
from meshfold.mesh.records import Checkpoint
from meshfold.mesh.subjects import Subjects
from meshfold.security import EventFrame, Sealer

__all__ = ("OutgoingBridge",)

#: Bytes of events in one frame, each counted with 64 more; about half of the broker's limit where nothing compresses.
FRAME_BYTES_MAX = 512 * 1024
FRAME_EVENTS_MAX = 4096
#: A batch above this, which is one large event, is cut into chunks: the broker takes a MiB, headers included.
INLINE_BYTES_MAX = 900 * 1024
BATCH_WINDOW_S = 0.001
#: Events the tap holds while the mesh cannot take them; the oldest go first, counted.
TAP_EVENTS_MAX = 65_536


class OutgoingBridge(Bridge):
    """Publishes a route of this graph to the mesh."""

    def __init__(
        self,
        graph: Graph,
        route: Route[Any],
        *,
        loop: asyncio.AbstractEventLoop,
        transport: Transport,
        sealer: Sealer,
        subjects: Subjects,
        hlc: HybridClock,
        policy_epoch: Callable[[], int],
        meta_wanted: Callable[[str], bool],
        may_send: Callable[[Route[Any], int], bool],
        prepare: Callable[[Route[Any]], Awaitable[None]],
        express: bool,
        flow: FlowPolicy,
        credit: CreditDesk | None,
        writes: Requests | None = None,
    ) -> None:
        super().__init__(route, loop)
        self._graph = graph
        self._transport = transport
        self._sealer = sealer
        self._hlc = hlc
        self._policy_epoch = policy_epoch
        self._meta_wanted = meta_wanted
        self._may_send = may_send
        self._prepare = prepare
        self._whole_subject = subjects.route("d", route.addr)
        self._meta_subject = subjects.route("m", route.addr)
        self._express = express
        self._writes = writes
        self._wakeup = asyncio.Event()
        self._sending = asyncio.Lock()
        self._sent_seq = 0
        #: events drained and not yet handed to the transport
        self._in_hand = 0
        self._closing = False
        self._first_seq = 0
        self._frames = 0
        self._too_large = 0
        self._moved_ns = hlc.clock.now()[1]
        self._tracing = Tracing(graph)
        self._desk = credit
        self._held_up = False
        self._final: EdgeCounters | None = None
        self._tap = graph.tap(route, capacity=TAP_EVENTS_MAX, flow=flow, on_ready=self._on_ready)
        if credit is not None:
            self._tap.tell_credit(credit.far.readers)
        self._start(self._run)

    def _on_ready(self) -> None:
        self._moved_ns = self._hlc.clock.now()[1]
        # Called in the publisher's thread; a loop that is gone means the node is closing.
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wakeup.set)

    async def _run(self) -> None:
        await self._prepare(self.route)
        if self._writes is not None:
            await self._writes.start()
        if self._desk is not None:
            await self._desk.start(self.wake)
        self._become_ready()
        while True:
            await self._wakeup.wait()
            self._wakeup.clear()
            if not self._express:
                await asyncio.sleep(BATCH_WINDOW_S)
            await self.flush()

    def wake(self) -> None:
        """Look again whether what waits may be sent."""
        self._wakeup.set()

    async def flush(self) -> None:
        """Send what the tap holds, as far as its keys are here and readers that hold the route up take it.

        The rest waits in the tap, counted as pending.
        """
        async with self._sending:
            while self._may_send(self.route, (stamp := self._hlc.stamp()) >> 16):
                events, size = self._credit()
                batch = self._tap.drain(events, size) if events and size else None
                self._held_up = not (events and size)
                if batch is None:
                    break
                if not self._first_seq:
                    self._first_seq = batch.first_seq - self._tap.counters().dropped.get("overflow_oldest", 0)
                self._in_hand = batch.count
                await self._send(batch, stamp)
                self._in_hand = 0
                self._sent_seq = batch.last_seq
                if self._desk is not None:
                    self._desk.far.sent(batch.last_seq, len(batch.payload))
            if self._held_up and self._desk is not None and self._tap.pending:
                self._desk.far.note_wait()

    def _credit(self) -> tuple[int, int]:
        """(events, bytes) of the next frame at most; what is left at the end goes, for inlets keep some for later."""
        if self._desk is None or self._closing:
            return FRAME_EVENTS_MAX, FRAME_BYTES_MAX
        events, size = self._desk.far.left()
        return min(FRAME_EVENTS_MAX, events), min(FRAME_BYTES_MAX, size)

    async def _send(self, batch: Any, stamp: int) -> None:
        try:
            frames, told = self._sealed(batch, stamp)
            for frame in frames:
                await self._transport.publish(self._whole_subject, frame.whole())
            if self._meta_wanted(self.route.addr.text):
                await self._transport.publish(self._meta_subject, told().meta_only())
            self._frames += len(frames)
            self._moved_ns = self._hlc.clock.now()[1]
            error = None
        except TooLarge as too_large:
            # One event beyond what chunks carry. The reader sees the gap; here it is counted and shown by status.
            self._too_large += batch.count
            error = too_large.code
        if batch.sampled:
            self._tracing.bridged(batch, error)

    def _sealed(self, batch: Any, stamp: int) -> tuple[list[EventFrame], Callable[[], EventFrame]]:
        """The frames of a batch, one or its chunks, and what makes the one whose metadata form is told.

        :raises TooLarge: beyond what chunks carry
        """
        schema = self.route.schema
        fields: dict[str, Any] = {
            "schema_id": schema.id,
            "first_seq": batch.first_seq,
            "count": batch.count,
            "hlc": stamp,
            "policy_epoch": self._policy_epoch(),
            "compress": schema.compress == "safe" and not batch.mixed_sources,
            "secrecy": self.route.secrecy,
        }
        sealer, address, meta, payload = self._sealer, self.route.addr, batch.meta, batch.payload
        if len(meta) + len(payload) <= INLINE_BYTES_MAX:
            frame = sealer.events(address, meta=meta, payload=payload, **fields)
            return [frame], lambda: frame
        chunks = sealer.chunks(address, meta=meta, payload=payload, **fields)
        # Its payload travels in the chunks; whoever reads metadata gets a frame without one.
        return chunks, lambda: sealer.events(address, meta=meta, payload=b"", **fields)

    def stalled_s(self) -> float:
        """How long events have been waiting without any of them leaving; 0 while none waits, or a reader holds them up."""
        waits = self._tap.pending and not self._held_up
        return (self._hlc.clock.now()[1] - self._moved_ns) / 1e9 if waits else 0.0

    def checkpoint(self) -> Checkpoint:
        """Return the route's standing for a heartbeat; consistent because nothing is awaited in here."""
        counters = self._counted()
        if self._desk is not None:
            self._desk.beat()
        generation, frame_ctr = self._sealer.standing(self.route.addr)
        return Checkpoint(
            address=self.route.addr.text,
            schema=self.route.schema.descriptor(),
            secrecy=self.route.secrecy,
            published=self._graph.published(self.route),
            first_seq=self._first_seq,
            offered=counters.offered,
            sent_seq=self._sent_seq,
            pending=counters.pending + self._in_hand,
            dropped=dict(counters.dropped),
            generation=generation,
            frame_ctr=frame_ctr,
        )

    @property
    def counters(self) -> dict[str, Any]:
        """`offered`, `delivered` (sent), `dropped` by reason, `pending`, `frames`, `too_large`, `credit`; of a request
        route `writes`, too.
        """
        counters = self._counted()
        more = {} if self._writes is None else {"writes": self._writes.counters}
        return more | {
            "offered": counters.offered,
            "delivered": counters.delivered,
            "dropped": dict(counters.dropped),
            "pending": counters.pending,
            "frames": self._frames,
            "too_large": self._too_large,
            "credit": self._far_counters(),
        }

    def _far_counters(self) -> dict[str, Any]:
        """Credit of readers on other nodes: words taken, what was never used, who fell silent, who holds up now."""
        if self._desk is None:
            return {}
        far = self._desk.far
        readers = {row.name: row.available for row in far.readers()}
        return {"told": far.told, "revoked": far.revoked, "expired": far.expired, "readers": readers}

    def _counted(self) -> EdgeCounters:
        return self._tap.counters() if self._final is None else self._final

    async def _close(self) -> None:
        if self._state == "closed":
            return
        await self._stop_jobs()
        if self._writes is not None:
            await self._writes.close()
        if self._desk is not None:
            await self._desk.close()
        self._closing = True
        await self.flush()
        self._state = "closed"
        last = self._tap.counters()
        self._tap.close()
        # The last heartbeat still tells of this route: what could not be sent is lost with the tap.
        lost = {"closed": last.pending} if last.pending else {}
        self._final = replace(last, pending=0, dropped={**last.dropped, **lost})

"""Mesh -> graph: frames verified, opened by what our grants allow, and pushed into the engine's inlet.

Invariants: nothing reaches the graph that did not pass every check of the opener; a refused frame is counted by reason
and changes nothing; a gap in the sequence is a loss with a reason (S43).
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Literal

from meshfold.core import Event, Graph, Route
from meshfold.core.errors import (
    DecodeError,
    FrameRejected,
    KeyMissing,
    SchemaMismatch,
    TaintExceeded,
    WouldBlock,
)
from meshfold.core.ports import Message, Subscribed, Transport
from meshfold.core.registry import Taint
from meshfold.core.schema import rewrite_payloads
from meshfold.mesh.bridge.base import Bridge
from meshfold.mesh.bridge.pace import Pace
from meshfold.mesh.bridge.telling import CreditTeller
from meshfold.mesh.clocks import HybridClock
from meshfold.mesh.records import Checkpoint, Credit
from meshfold.mesh.subjects import Subjects
from meshfold.security import Opener

if TYPE_CHECKING:
    from meshfold.mesh.node.safety import Safety

__all__ = ("IncomingBridge",)


class IncomingBridge(Bridge):
    """Brings a route of another node into this graph. `form` is `d` (whole) or `m` (metadata only)."""

    def __init__(
        self,
        graph: Graph,
        route: Route[Any],
        *,
        loop: asyncio.AbstractEventLoop,
        transport: Transport,
        opener: Opener,
        subjects: Subjects,
        hlc: HybridClock,
        form: Literal["d", "m"],
        reject: Callable[[str, str], None],
        safety: Safety,
        send_credit: Callable[[Credit], Awaitable[None]],
    ) -> None:
        super().__init__(route, loop)
        self.form: Literal["d", "m"] = form
        self._graph = graph
        self._transport = transport
        self._opener = opener
        self._hlc = hlc
        self._reject = reject
        self._safety = safety
        self._epoch_unknown = 0
        self._subjects = subjects
        self._subscription: Subscribed | None = None
        self._pace = Pace(hlc.clock.now()[1])
        self._frames = 0
        self._tails: dict[tuple[bytes, bytes], int] = {}
        self._checkpoints: dict[tuple[bytes, bytes], Checkpoint] = {}
        self._taints = (Taint.TRUST_PLAINTEXT,) if route.secrecy == "none" else ()
        self.inlet = graph.inlet(route, name="bridge")
        self._teller = CreditTeller(
            graph, route, self.inlet, loop=loop, send=send_credit, with_payloads=form == "d"
        )
        self._start(self._subscribe)

    async def _subscribe(self) -> None:
        subject = self._subjects.route_any_site(self.form, self.route.addr)
        self._subscription = await self._transport.subscribe(subject, self._on_message)

    def _on_message(self, message: Message) -> None:
        if self._safety.park.holds(self.route.address, message.data[16:24]):
            # An earlier frame of this sender waits for its key; this one waits behind it.
            self._wait(message)
            return
        try:
            address = self._subjects.address_of(self.form, message.subject)
            opened = self._opener.open_events(
                self.form,
                address,
                message.data,
                allow_plain=self.route.secrecy == "none",
                allow_unsigned=self.route.secrecy == "group",
            )
            if opened.partial:
                self._frames += 1
                return
            payload = self._upcast(opened.header.schema_id, opened.payload)
            taken = self.inlet.push(
                opened.meta,
                payload,
                producer=opened.sender.tag,
                incarnation=opened.header.incarnation,
                taints=self._taints,
            )
        except FrameRejected as error:
            self._reject(error.reason, self.route.text)
        except KeyMissing as error:
            if error.because == "epoch":
                self._wait(message)
            else:
                self._reject("epoch", self.route.text)
        except DecodeError:
            self._reject("batch", self.route.text)
        except SchemaMismatch:
            self._reject("schema", self.route.text)
        except (WouldBlock, TaintExceeded):
            # The inlet holds as much as it may for readers that are behind, or the route was declared freer of taints.
            # What is refused is a gap of the sender's numbers, and counted as lost on the link.
            self._reject("limit", self.route.text)
        else:
            self._frames += 1
            self._teller.came(opened.sender.tag, opened.header.incarnation, len(opened.payload or b""))
            self._hlc.witness(opened.header.hlc)
            newest = self._graph.latest(self.route)
            latency_ns = newest.ingest_time - newest.time if newest is not None and taken.delivered else None
            self._pace.note(self._hlc.clock.now()[1], taken.delivered, latency_ns)
            self._become_ready()

    def _upcast(self, identity: bytes, payload: bytes | None) -> bytes | None:
        """Payloads of an older version as ours (S1); one that its upcaster refuses is counted and has no value here."""
        schema = self.route.schema
        if identity == schema.id:
            return payload
        if identity not in schema.upcasters:
            raise FrameRejected("schema", f"frame of schema {identity.hex()}")

        def upcast(data: bytes) -> bytes | None:
            try:
                return schema.upcast(identity, data)
            except DecodeError:
                self._reject("schema", self.route.text)
                return None

        return payload if payload is None else rewrite_payloads(payload, upcast)

    def _wait(self, message: Message) -> None:
        """Keep a frame whose key is on its way."""
        if self._state == "closed":
            return
        sender = message.data[16:24]
        now_ms = self._safety.mono_ms()
        self._safety.park.add(self.route.address, sender, message, now_ms, self._on_message, self._give_up)
        self._safety.lack()

    def _give_up(self, message: Message) -> None:
        """Its key did not come: the events of a frame are lost, and it is known why."""
        (count,) = struct.unpack_from(">H", message.data, 6)
        self._epoch_unknown += count
        self._reject("epoch", self.route.text)

    def heard(self, producer: bytes, incarnation: bytes, checkpoint: Checkpoint, *, sees_us: bool) -> None:
        """Take in a producer's checkpoint: what it proves sent and we do not have is lost.

        Frames sent before the checkpoint arrive before it (order holds per publisher), so its `sent_seq` closes a gap
        at the tail, too - once those that have arrived were handled.
        """
        if self._subscription is not None:
            self._subscription.behind(lambda: self._take(producer, incarnation, checkpoint, sees_us))
        else:
            self._take(producer, incarnation, checkpoint, sees_us)

    def _take(self, producer: bytes, incarnation: bytes, checkpoint: Checkpoint, sees_us: bool) -> None:
        if self._state == "starting" and not self._reads(checkpoint.schema):
            self._fail(
                SchemaMismatch(
                    f"{self.route.text} is shared with another schema than the one declared here",
                    fix="declare the route with the producer's schema (`meshfold route show` prints it), or accept it",
                    route=self.route.text,
                    expected=self.route.schema.name,
                    found=str(checkpoint.schema.get("name")),
                )
            )
            return
        self._checkpoints[producer, incarnation] = checkpoint
        if checkpoint.sent_seq:
            self.inlet.expect(producer, incarnation, checkpoint.sent_seq)
        self._teller.heartbeat(producer, incarnation)
        if sees_us:
            self._become_ready()

    def _reads(self, descriptor: dict[str, Any]) -> bool:
        """Whether events of this schema are ours or become ours."""
        schema = self.route.schema
        known = [schema, *(way.schema for way in schema.upcasters.values())]
        return any(descriptor == version.descriptor() for version in known)

    def gone(self, producer: bytes, incarnation: bytes, *, clean: bool) -> None:
        """Note that an incarnation ended; one that did not close may have sent more than its last checkpoint says."""
        from meshfold.mesh.bridge.outgoing import TAP_EVENTS_MAX

        self._teller.gone(producer, incarnation)
        if not clean:
            self._tails.setdefault((producer, incarnation), TAP_EVENTS_MAX)

    def flow(self, reader: str) -> list[dict[str, Any]]:
        """Rows of the accounting equation, one for each producer's incarnation (S43)."""
        return [
            self._row(reader, producer, incarnation, counters, last_seq)
            for producer, incarnation, counters, last_seq in self.inlet.counters()
        ]

    def _row(
        self, reader: str, producer: bytes, incarnation: bytes, counters: Any, last_seq: int
    ) -> dict[str, Any]:
        checkpoint = self._checkpoints.get((producer, incarnation))
        lost = dict(counters.dropped)
        offered, pending, published = counters.offered, counters.pending, counters.offered
        if checkpoint is not None and checkpoint.first_seq:
            attach = self.inlet.attach_seq(producer, incarnation)
            have = last_seq - attach + 1
            proven = checkpoint.first_seq + checkpoint.offered - attach
            # The checkpoint may be older than the frames: what was offered was published.
            published = max(checkpoint.published, last_seq)
            # Frames that came after the checkpoint are offered, too: the later of the two views counts. What the
            # producer said is pending may have arrived since; more than that missing would be unexplained.
            offered = max(proven, have)
            pending = min(checkpoint.pending, offered - have)
            lost = _with_reasons(lost, checkpoint.dropped, unseen=offered - have - pending)
        unknown = min(lost.get("link_loss", 0), self._epoch_unknown)
        if unknown:
            lost["link_loss"] -= unknown
            lost["epoch_unknown"] = unknown
        lost = {reason: count for reason, count in lost.items() if count}
        return {
            "route": self.route.text,
            "reader": reader,
            "producer": producer.hex(),
            "incarnation": incarnation.hex(),
            "published": published,
            "offered": offered,
            "delivered": counters.delivered,
            "dropped": lost,
            "pending": pending,
            "unexplained": offered - counters.delivered - sum(lost.values()) - pending,
            "unknown_tail": self._tails.get((producer, incarnation), 0),
            "rate_hz": self._pace.rate_hz(self._hlc.clock.now()[1]),
            "latency_ms": self._pace.latency_ms(),
        }

    def latest(self) -> Event[Any] | None:
        """The newest event this graph has of the route."""
        return self._graph.latest(self.route)

    @property
    def pace(self) -> Pace:
        """How fast it comes in."""
        return self._pace

    @property
    def counters(self) -> dict[str, Any]:
        """`frames`, `delivered`, `dropped` by reason, `held` for credit, `credit_words` sent, over all producers."""
        delivered = 0
        dropped: dict[str, int] = {}
        for _, _, counters, _ in self.inlet.counters():
            delivered += counters.delivered
            for reason, count in counters.dropped.items():
                dropped[reason] = dropped.get(reason, 0) + count
        return {
            "frames": self._frames,
            "delivered": delivered,
            "dropped": dropped,
            "held": self.inlet.held,
            "credit_words": self._teller.words,
        }

    async def _close(self) -> None:
        if self._state == "closed":
            return
        self._state = "closed"
        if self._subscription is not None:
            await self._subscription.close()
        await self._teller.close()
        await self._stop_jobs()


def _with_reasons(lost: dict[str, int], dropped: dict[str, int], *, unseen: int) -> dict[str, int]:
    """Losses with those that the producer counted itself under its reasons, gaps first, then what no frame has shown yet."""
    found = dict(lost)
    for reason, count in dropped.items():
        gaps = min(found.get("link_loss", 0), count)
        if gaps:
            found["link_loss"] -= gaps
        ahead = min(unseen, count - gaps)
        unseen -= ahead
        found[reason] = found.get(reason, 0) + gaps + ahead
    return found

"""A broker in memory, seeded: what it loses, delays, doubles and cuts is a function of its seed.

For tests and simulation. It keeps NATS's promises and no others: at most once, order per publisher and subscription (unless
told to reorder), permissions as allow lists, refused subscriptions named before they are acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from meshfold.core.errors import ConfigError, GrantDenied, TooLarge, TransportClosed, TransportTimeout
from meshfold.core.ports import Message, MessageHandler, Subscribed, TransportEvent
from meshfold.mesh.broker.jwt import Permissions
from meshfold.mesh.transport.matching import check_headers, check_subject, subject_matches

__all__ = ("SimBroker", "SimFaults", "SimTransport")

PAYLOAD_BYTES_MAX = 1024 * 1024
#: Messages a client that is cut off keeps until it is back, as nats-py does.
BUFFERED_MAX = 4096
#: Replies a client may still answer under `allow_responses`.
REPLIES_MAX = 4096
ORDER_STEP_S = 1e-9
EVERYTHING = Permissions(pub=(">",), sub=(">",), allow_responses=True)

_log = logging.getLogger("meshfold.mesh.transport")


@dataclass(frozen=True, slots=True)
class SimFaults:
    """What befalls a message on its way to one subscription. Probabilities from 0 to 1, delays in seconds."""

    loss: float = 0.0
    duplicate: float = 0.0
    delay_s: tuple[float, float] = (0.0, 0.0)
    reorder: bool = False

    def __post_init__(self) -> None:
        low, high = self.delay_s
        if not (0 <= self.loss <= 1 and 0 <= self.duplicate <= 1 and 0 <= low <= high):
            raise ConfigError(
                f"impossible faults {self}", fix="probabilities 0 to 1, delays rising", item="faults"
            )


class _Subscription:
    def __init__(self, client: SimTransport, subject: str, handler: MessageHandler) -> None:
        self.client = client
        self.handler = handler
        self.due_s = 0.0
        self.open = True
        self._subject = subject

    @property
    def subject(self) -> str:
        return self._subject

    def behind(self, call: Callable[[], None]) -> None:
        """Call at once: what arrives here is handled as it arrives."""
        call()

    async def close(self) -> None:
        self.open = False
        self.client.broker.forget(self)


class SimBroker:
    """The broker. Clients are made by `client`; `faults` may be changed at any time.

    :param seed: decides every fault; the same seed and the same calls give the same `transcript`
    """

    def __init__(
        self, seed: int, *, faults: SimFaults | None = None, max_payload_bytes: int = PAYLOAD_BYTES_MAX
    ) -> None:
        self.seed = seed
        self.faults = faults or SimFaults()
        self.max_payload_bytes = max_payload_bytes
        self.counts: Counter[str] = Counter()
        self._random = random.Random(seed)
        self._subscriptions: list[_Subscription] = []
        self._clients: list[SimTransport] = []
        self._life = 0
        self._in_flight = 0
        self._up = True
        self._transcript = hashlib.sha256()

    def client(
        self, name: str, permissions: Permissions = EVERYTHING, *, inbox_prefix: str | None = None
    ) -> SimTransport:
        """Make a client, not yet connected."""
        made = SimTransport(self, name, permissions, inbox_prefix or f"_MF.{name}")
        self._clients.append(made)
        return made

    @property
    def up(self) -> bool:
        """Whether the broker runs."""
        return self._up

    def transcript(self) -> str:
        """Hex hash over everything that was published and what became of it, in order."""
        return self._transcript.hexdigest()

    def stop(self) -> None:
        """Kill it: what is under way is lost, every client is disconnected."""
        self._up = False
        self._life += 1
        for client in self._clients:
            client.unplug()

    def start(self) -> None:
        """Start it again; clients that are not cut off find it and subscribe anew."""
        self._up = True
        for client in self._clients:
            client.plug()

    def cut(self, client: SimTransport) -> None:
        """Part one client from the broker."""
        client.cut = True
        client.unplug()

    def heal(self, client: SimTransport) -> None:
        """End a cut."""
        client.cut = False
        client.plug()

    def take(self, subscription: _Subscription) -> None:
        """Register a subscription."""
        self._subscriptions.append(subscription)

    def forget(self, subscription: _Subscription) -> None:
        """Take a subscription away."""
        with contextlib.suppress(ValueError):
            self._subscriptions.remove(subscription)

    def route(self, message: Message) -> int:
        """Send one message on its way; return how many subscriptions it is for."""
        takers = [
            one
            for one in self._subscriptions
            if one.open and one.client.connected and subject_matches(one.subject, message.subject)
        ]
        for taker in takers:
            copies = self._copies()
            self._transcript.update(
                b"\0".join(
                    (message.subject.encode(), message.data, taker.client.name.encode(), b"%d" % copies)
                )
            )
            for _ in range(copies):
                self._schedule(taker, message)
        return len(takers)

    def _copies(self) -> int:
        if self.faults.loss and self._random.random() < self.faults.loss:
            self.counts["lost"] += 1
            return 0
        if self.faults.duplicate and self._random.random() < self.faults.duplicate:
            self.counts["duplicated"] += 1
            return 2
        return 1

    def _schedule(self, taker: _Subscription, message: Message) -> None:
        loop = asyncio.get_running_loop()
        due_s = loop.time() + self._random.uniform(*self.faults.delay_s)
        if not self.faults.reorder:
            due_s = taker.due_s = max(due_s, taker.due_s + ORDER_STEP_S)
        life = self._life
        self._in_flight += 1

        def arrive() -> None:
            self._in_flight -= 1
            if life == self._life and taker.open and taker.client.connected:
                taker.client.deliver(taker, message)
            else:
                self.counts["lost"] += 1

        loop.call_at(due_s, arrive)

    def drop(self, client: SimTransport) -> None:
        """A client has gone."""
        self._subscriptions = [one for one in self._subscriptions if one.client is not client]
        self._clients = [one for one in self._clients if one is not client]

    async def settle(self) -> None:
        """Return when nothing is under way."""
        while self._in_flight:  # noqa: ASYNC110 - the loop itself carries the messages
            await asyncio.sleep(0)


class SimTransport:
    """A client of a `SimBroker`. See `meshfold.core.ports.Transport` for what its calls promise."""

    def __init__(self, broker: SimBroker, name: str, permissions: Permissions, inbox_prefix: str) -> None:
        self.broker = broker
        self.name = name
        self.cut = False
        self._permissions = permissions
        self._inbox_prefix = inbox_prefix
        self._connected = False
        self._started = False
        self._closed = False
        self._counts: Counter[str] = Counter()
        self._listeners: list[Callable[[TransportEvent], None]] = []
        self._buffered: deque[Message] = deque()
        self._replies: OrderedDict[str, None] = OrderedDict()
        self._inboxes = 0

    @property
    def connected(self) -> bool:
        """Whether messages can leave right now."""
        return self._connected

    @property
    def max_payload_bytes(self) -> int:
        """The broker's limit for one message, headers included."""
        return self.broker.max_payload_bytes

    def on_event(self, listener: Callable[[TransportEvent], None]) -> None:
        """Call `listener` for every event from now on; what it raises is logged and counted as `listener_error`."""
        self._listeners.append(listener)

    def _emit(self, kind: Any, detail: str = "") -> None:
        self._counts[kind] += 1
        for listener in self._listeners:
            try:
                listener(TransportEvent(kind, detail))
            except Exception:  # noqa: BLE001 - a listener must not end the connection
                self._counts["listener_error"] += 1
                _log.exception("listener of %s", kind)

    async def connect(self) -> None:
        """Connect.

        :raises TransportClosed: if the broker is down or this client is cut off
        """
        if self.cut or not self.broker.up:
            raise TransportClosed("cannot connect to the simulated broker", because="unreachable")
        self._started = self._connected = True
        self._emit("connected", "sim")

    def unplug(self) -> None:
        """The connection is gone."""
        if self._connected:
            self._connected = False
            self._emit("disconnected")

    def plug(self) -> None:
        """The connection is back, if nothing else is in the way."""
        if self._started and not self._closed and not self.cut and self.broker.up and not self._connected:
            self._connected = True
            self._counts["reconnects"] += 1
            while self._buffered:
                self.broker.route(self._buffered.popleft())
            self._emit("connected")

    def deliver(self, subscription: _Subscription, message: Message) -> None:
        """Hand a message to its handler."""
        self._counts["received"] += 1
        self._counts["bytes_received"] += len(message.data)
        if message.reply and self._permissions.allow_responses:
            self._replies[message.reply] = None
            if len(self._replies) > REPLIES_MAX:
                self._replies.popitem(last=False)
        try:
            subscription.handler(message)
        except Exception as error:  # noqa: BLE001 - one message must not end the subscription
            _log.exception("handler of %s", subscription.subject)
            self._emit("handler_error", f"{subscription.subject}: {type(error).__name__}: {error}")

    def _check_open(self, what: str) -> None:
        if self._closed or not self._started:
            raise TransportClosed(f"{what}: the transport is closed", because="closed")

    def _may_publish(self, subject: str) -> bool:
        if any(subject_matches(pattern, subject) for pattern in self._permissions.pub):
            return True
        return self._replies.pop(subject, False) is None

    async def publish(
        self, subject: str, data: bytes, *, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """Hand one message over. While cut off it waits in a bounded buffer, beyond that it is counted `dropped_out`.

        :raises TooLarge: if it exceeds the broker's limit; nothing was sent
        :raises WiringError: if the subject or a header cannot be one; nothing was sent
        :raises TransportClosed: if the transport was closed
        """
        self._check_open(f"publish on {subject}")
        self._send(subject, data, reply, dict(headers or {}))
        await asyncio.sleep(0)

    def _send(self, subject: str, data: bytes, reply: str, headers: dict[str, str]) -> int:
        check_subject(subject, wildcards=False)
        size = len(data) + (check_headers(headers) if headers else 0)
        if size > self.max_payload_bytes:
            raise TooLarge(
                f"a message of {size} bytes on {subject}",
                fix=f"the broker takes {self.max_payload_bytes}",
                size_bytes=size,
                limit_bytes=self.max_payload_bytes,
                item=subject,
            )
        message = Message(subject, bytes(data), reply, headers)
        if not self._connected:
            if len(self._buffered) >= BUFFERED_MAX:
                self._counts["dropped_out"] += 1
                return 1
            self._buffered.append(message)
            self._counts["sent"] += 1
            return 1
        self._counts["sent"] += 1
        self._counts["bytes_sent"] += len(data)
        if not self._may_publish(subject):
            self._emit("permission", f'permissions violation for publish to "{subject}"')
            return 0
        return self.broker.route(message)

    async def subscribe(self, subject: str, handler: MessageHandler) -> Subscribed:
        """Deliver what arrives on `subject`.

        :raises GrantDenied: if the permissions do not allow it
        :raises WiringError: if the subject cannot be one
        :raises TransportClosed: if the transport was closed
        """
        self._check_open(f"subscribe to {subject}")
        check_subject(subject, wildcards=True)
        if not any(subject_matches(pattern, subject) for pattern in self._permissions.sub):
            self._emit("permission", f'permissions violation for subscription to "{subject}"')
            raise GrantDenied(
                f"the broker does not let {self.name} subscribe to {subject}",
                fix="its login allows what its grants name; see `meshfold grant explain`",
                principal=self.name,
                action="subscribe",
                route=subject,
            )
        made = _Subscription(self, subject, handler)
        self.broker.take(made)
        return made

    async def request(self, subject: str, data: bytes, *, timeout_s: float) -> Message:
        """Publish with an inbox of our own and return the first answer.

        :raises TransportTimeout: if none came, or nobody listens
        :raises TransportClosed: if the transport was closed
        """
        self._check_open(f"request on {subject}")
        answered: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

        def take(message: Message) -> None:
            if not answered.done():
                answered.set_result(message)

        self._inboxes += 1
        inbox = f"{self._inbox_prefix}.{self._inboxes}"
        subscription = await self.subscribe(inbox, take)
        try:
            if self._send(subject, data, inbox, {}) == 0:
                raise TimeoutError
            return await asyncio.wait_for(answered, timeout_s)
        except TimeoutError:
            raise TransportTimeout(
                f"no answer on {subject} within {timeout_s:g} s", subject=subject, timeout_s=timeout_s
            ) from None
        finally:
            await subscription.close()

    async def barrier(self, timeout_s: float = 5.0) -> None:
        """Return when the broker has everything published before; while cut off, when it is back.

        :raises TransportTimeout: if it was not back in time
        :raises TransportClosed: if the transport was closed
        """
        self._check_open("barrier")
        deadline = asyncio.get_running_loop().time() + timeout_s
        while not self._connected:
            if asyncio.get_running_loop().time() > deadline:
                raise TransportTimeout("the broker did not answer", subject="PING", timeout_s=timeout_s)
            await asyncio.sleep(ORDER_STEP_S)

    def counters(self) -> Mapping[str, int]:
        """Counts since start."""
        return dict(self._counts)

    async def close(self, *, drain: bool = True) -> None:
        """Stop. Idempotent."""
        if self._closed:
            return
        if drain and self._connected:
            await self.broker.settle()
        self._closed = True
        self._connected = False
        self.broker.drop(self)
        self._emit("closed")

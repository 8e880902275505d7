"""The broker as the mesh sees it: an at-most-once carrier of opaque bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

__all__ = ("Message", "MessageHandler", "Subscribed", "Transport", "TransportEvent")


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it arrived. Nothing in it can be trusted."""

    subject: str
    data: bytes
    reply: str = ""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


#: Called in the transport's event loop, in arrival order per subscription. It must not block. An exception it raises is
#: counted by the transport (`handler_error` event) and never ends the subscription.
MessageHandler = Callable[[Message], None]


@dataclass(frozen=True, slots=True)
class TransportEvent:
    """Something the owner of a transport should know of."""

    kind: Literal[
        "connected",
        "disconnected",
        "closed",
        "permission",
        "slow_consumer",
        "malformed",
        "handler_error",
        "too_old",
    ]
    detail: str = ""


class Subscribed(Protocol):
    """A live subscription."""

    @property
    def subject(self) -> str:
        """The subject or wildcard it listens on."""
        ...

    def behind(self, call: Callable[[], None]) -> None:
        """Call `call`, in the transport's loop, once everything that has arrived on this subscription by now was handled.

        Arrival order over several subscriptions is the wire's; the order in which their messages are handled is not.
        Best effort: `call` is dropped where the subscription is overloaded or closes first.
        """
        ...

    async def close(self) -> None:
        """Stop delivery. Idempotent."""
        ...


class Transport(Protocol):
    """Carries bytes between nodes with no promise of arrival; order holds per publisher and subscriber.

    NATS implements it (`meshfold.mesh.transport.nats`), and a seeded in-memory broker for tests and simulation
    (`meshfold.mesh.transport.sim`). One suite of behaviour runs over both.
    """

    @property
    def connected(self) -> bool:
        """Whether messages can leave right now."""
        ...

    @property
    def max_payload_bytes(self) -> int:
        """The largest message, headers included, that the broker takes."""
        ...

    async def connect(self) -> None:
        """Connect.

        :raises TransportClosed: if the broker cannot be reached or refuses the login
        :raises ConfigError: if what answers is not a NATS server, or one that is too old
        """
        ...

    async def publish(
        self, subject: str, data: bytes, *, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """Hand one message over. Returning says nothing about arrival (F4).

        :raises TooLarge: if data and headers together exceed `max_payload_bytes`; nothing was sent
        :raises WiringError: if the subject or a header cannot be one; nothing was sent
        :raises TransportClosed: if the transport was closed
        """
        ...

    async def subscribe(self, subject: str, handler: MessageHandler) -> Subscribed:
        """Deliver what arrives on `subject` (wildcards allowed). On return the broker has taken the subscription.

        :raises GrantDenied: if the broker's permissions do not allow it
        :raises WiringError: if the subject cannot be one
        :raises TransportClosed: if the transport was closed
        """
        ...

    async def request(self, subject: str, data: bytes, *, timeout_s: float) -> Message:
        """Publish with a reply inbox of our own and return the first answer.

        :raises TransportTimeout: if no answer came, or nobody listens
        """
        ...

    async def barrier(self, timeout_s: float = 5.0) -> None:
        """Return when the broker has processed everything published before.

        :raises TransportTimeout: if it did not answer
        :raises TransportClosed: if the transport was closed
        """
        ...

    def on_event(self, listener: Callable[[TransportEvent], None]) -> None:
        """Call `listener` for every event from now on."""
        ...

    def counters(self) -> Mapping[str, int]:
        """Return counts since start: sent, received, bytes_sent, bytes_received, malformed, dropped_slow, reconnects, ..."""
        ...

    async def close(self, *, drain: bool = True) -> None:
        """Stop; with `drain`, what was published before goes out and what has arrived is handled first. Idempotent."""
        ...

"""`Transport` over NATS."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from meshfold.core.errors import ConfigError, GrantDenied, TooLarge, TransportClosed, TransportTimeout
from meshfold.core.ports import Message, MessageHandler, Subscribed, TransportEvent
from meshfold.mesh.transport.hardened import HardenedClient
from nats import errors

__all__ = ("NatsTransport",)

CONNECT_S = 5.0
RECONNECT_WAIT_S = 0.1
PING_S = 5
PINGS_OUT_MAX = 2
DRAIN_S = 5
PENDING_MESSAGES_MAX = 65_536
PENDING_BYTES_MAX = 64 * 1024 * 1024
PENDING_OUT_BYTES = 8 * 1024 * 1024
#: Older servers have known holes (TRANSPORT 2.4).
SERVER_MIN = (2, 12, 12)
SERVER_BAD = ((2, 13, 0), (2, 14, 3))

#: Refused subscriptions remembered, newest last.
DENIALS_MAX = 256
_SUBSCRIPTION = re.compile(r'subscription to "([^"]+)"')

_log = logging.getLogger("meshfold.mesh.transport")


class _Subscription:
    """A live subscription."""

    def __init__(self, inner: Any, subject: str) -> None:
        self._inner = inner
        self._subject = subject
        self._open = True

    @property
    def subject(self) -> str:
        """The subject or wildcard."""
        return self._subject

    async def close(self) -> None:
        """Stop delivery. Idempotent."""
        if self._open:
            self._open = False
            with contextlib.suppress(errors.Error):
                await self._inner.unsubscribe()


class NatsTransport:
    """A connection to a NATS server or cluster. See `meshfold.core.ports.Transport` for what its calls promise.

    :param url: `nats://host:port`; credentials do not belong into it
    :param jwt: gives the login, anew at each connect; `sign` answers the server's nonce
    :param inbox_prefix: where answers come to; nobody else may subscribe to it
    """

    def __init__(
        self,
        url: str,
        *,
        name: str,
        jwt: Callable[[], str] | None = None,
        sign: Callable[[bytes], bytes] | None = None,
        inbox_prefix: str,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("nats", "tls") or not parts.hostname:
            raise ConfigError(
                f"{parts.scheme}://{parts.hostname} is no NATS URL", fix="write nats://host:port", item="url"
            )
        if parts.username or parts.password:
            raise ConfigError("credentials inside a URL are refused", fix="use --creds FILE", item="url")
        self._url = url
        self._name = name
        self._jwt = jwt
        self._sign = sign
        self._inbox_prefix = inbox_prefix
        self._client = HardenedClient()
        self._counts: Counter[str] = Counter()
        self._listeners: list[Callable[[TransportEvent], None]] = []
        self._denied: dict[str, int] = {}
        self._denials = 0
        self._closed = False

    @property
    def connected(self) -> bool:
        """Whether messages can leave right now."""
        return bool(self._client.is_connected)

    @property
    def max_payload_bytes(self) -> int:
        """The server's limit for one message, headers included."""
        return int(self._client.max_payload)

    def on_event(self, listener: Callable[[TransportEvent], None]) -> None:
        """Call `listener` for every event from now on."""
        self._listeners.append(listener)

    def _emit(self, kind: Any, detail: str = "") -> None:
        self._counts[kind] += 1
        for listener in self._listeners:
            listener(TransportEvent(kind, detail))

    async def connect(self) -> None:
        """Connect.

        :raises TransportClosed: if the server cannot be reached or refuses the login
        :raises ConfigError: if the server is too old
        """
        options: dict[str, Any] = {}
        if self._jwt is not None and self._sign is not None:
            jwt, sign = self._jwt, self._sign
            options["user_jwt_cb"] = lambda: jwt().encode()
            options["signature_cb"] = lambda nonce: base64.b64encode(sign(nonce.encode()))
        try:
            await asyncio.wait_for(
                self._client.connect(
                    self._url,
                    name=self._name,
                    inbox_prefix=self._inbox_prefix.encode(),
                    error_cb=self._on_error,
                    disconnected_cb=self._on_disconnected,
                    reconnected_cb=self._on_reconnected,
                    closed_cb=self._on_closed,
                    allow_reconnect=True,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=RECONNECT_WAIT_S,  # type: ignore[arg-type]  # seconds, fractions allowed
                    ping_interval=PING_S,
                    max_outstanding_pings=PINGS_OUT_MAX,
                    pending_size=PENDING_OUT_BYTES,
                    drain_timeout=DRAIN_S,
                    **options,
                ),
                CONNECT_S,
            )
        except (TimeoutError, OSError, errors.Error) as error:
            await self._client.close()
            raise TransportClosed(
                f"cannot connect to {self._url}: {error or 'no answer'}",
                fix="is the mesh running? `meshfold status` tells",
                address=self._url,
                because=str(error),
            ) from None
        version = str(self._client.server_version())
        numbers = tuple(int(part) if part.isdigit() else 0 for part in version.split("-")[0].split(".")[:3])
        if numbers < SERVER_MIN or SERVER_BAD[0] <= numbers < SERVER_BAD[1]:
            await self._client.close()
            raise ConfigError(
                f"nats-server {version} is too old", fix="use 2.12.12, 2.14.3 or newer", item="server"
            )
        self._emit("connected", version)

    async def _on_error(self, error: Exception) -> None:
        text = str(error)
        if "permissions violation" in text.lower():
            self._note_denial(text)
            self._emit("permission", text)
        elif isinstance(error, errors.SlowConsumerError):
            self._emit("slow_consumer", text)
        elif "malformed" in text:
            self._emit("malformed", text)
        else:
            _log.info("transport: %s", text)

    async def _on_disconnected(self) -> None:
        self._emit("disconnected")

    async def _on_reconnected(self) -> None:
        self._counts["reconnects"] += 1
        self._emit("connected")

    async def _on_closed(self) -> None:
        self._emit("closed")

    async def publish(
        self, subject: str, data: bytes, *, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """Hand one message over.

        :raises TooLarge: if it exceeds the server's limit; nothing was sent
        :raises TransportClosed: if the transport was closed
        """
        size = len(data)
        if headers:
            # F6: payload and headers together count; the server ends the connection otherwise.
            size += HEADER_FIXED + sum(
                len(key.encode()) + len(value.encode()) + 4 for key, value in headers.items()
            )
        if size > self.max_payload_bytes:
            raise TooLarge(
                f"a message of {size} bytes on {subject}",
                fix=f"the broker takes {self.max_payload_bytes}",
                size_bytes=size,
                limit_bytes=self.max_payload_bytes,
                item=subject,
            )
        try:
            await self._client.publish(subject, data, reply, headers=dict(headers) if headers else None)
        except errors.OutboundBufferLimitError:
            self._counts["dropped_out"] += 1
            return
        except (errors.ConnectionClosedError, errors.ConnectionDrainingError) as error:
            raise TransportClosed(f"publish on {subject}: {error}", because=str(error)) from None
        self._counts["sent"] += 1
        self._counts["bytes_sent"] += len(data)

    async def subscribe(self, subject: str, handler: MessageHandler) -> Subscribed:
        """Deliver what arrives on `subject`; on return the server has taken the subscription.

        :raises GrantDenied: if its permissions do not allow it
        :raises TransportClosed: if the transport was closed
        """

        async def deliver(message: Any) -> None:
            self._counts["received"] += 1
            self._counts["bytes_received"] += len(message.data)
            try:
                handler(Message(message.subject, message.data, message.reply, message.headers or {}))
            except Exception as error:  # noqa: BLE001 - one message must not end the subscription
                _log.exception("handler of %s", subject)
                self._emit("handler_error", f"{subject}: {type(error).__name__}: {error}")

        before = self._denials
        try:
            inner = await self._client.subscribe(
                subject,
                cb=deliver,
                pending_msgs_limit=PENDING_MESSAGES_MAX,
                pending_bytes_limit=PENDING_BYTES_MAX,
            )
        except (errors.ConnectionClosedError, errors.ConnectionDrainingError) as error:
            raise TransportClosed(f"subscribe to {subject}: {error}", because=str(error)) from None
        await self.barrier()
        # The server answers a refused SUB before the PONG of the barrier.
        if self._denied.get(subject.lower(), 0) > before:
            with contextlib.suppress(errors.Error):
                await inner.unsubscribe()
            raise GrantDenied(
                f"the broker does not let {self._name} subscribe to {subject}",
                fix="its login allows what its grants name; see `meshfold grant explain`",
                principal=self._name,
                action="subscribe",
                route=subject,
            )
        return _Subscription(inner, subject)

    def _note_denial(self, text: str) -> None:
        """Remember which subscription was refused, as the number of the refusal."""
        match = _SUBSCRIPTION.search(text.lower())
        if match is not None:
            self._denials += 1
            self._denied.pop(match[1], None)
            self._denied[match[1]] = self._denials
            if len(self._denied) > DENIALS_MAX:
                del self._denied[next(iter(self._denied))]

    async def request(self, subject: str, data: bytes, *, timeout_s: float) -> Message:
        """Publish with an inbox of our own and return the first answer.

        :raises TransportTimeout: if none came, or nobody listens
        """
        try:
            message = await self._client.request(subject, data, timeout=timeout_s)
        except (TimeoutError, errors.TimeoutError, errors.NoRespondersError):
            raise TransportTimeout(
                f"no answer on {subject} within {timeout_s:g} s", subject=subject, timeout_s=timeout_s
            ) from None
        except (errors.ConnectionClosedError, errors.ConnectionDrainingError) as error:
            raise TransportClosed(f"request on {subject}: {error}", because=str(error)) from None
        return Message(message.subject, message.data, message.reply, message.headers or {})

    async def barrier(self, timeout_s: float = 5.0) -> None:
        """Return when the server has processed everything published before.

        :raises TransportTimeout: if it did not answer
        """
        answered = asyncio.get_running_loop().create_future()
        try:
            await self._client.ping(answered)
            await asyncio.wait_for(answered, timeout_s)
        except (TimeoutError, errors.Error):
            raise TransportTimeout("the broker did not answer", subject="PING", timeout_s=timeout_s) from None

    def counters(self) -> Mapping[str, int]:
        """Counts since start."""
        return dict(self._counts)

    async def close(self, *, drain: bool = True) -> None:
        """Stop. Idempotent."""
        if self._closed:
            return
        self._closed = True
        if drain and self.connected:
            with contextlib.suppress(errors.Error, asyncio.TimeoutError, TransportTimeout):
                await self.barrier(DRAIN_S)
                await self._client.drain()
        with contextlib.suppress(errors.Error):
            await self._client.close()


HEADER_FIXED = len(b"NATS/1.0\r\n\r\n")

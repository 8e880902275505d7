"""`Transport` over NATS: a link, and a supervisor that opens the next one before the login ends (F5)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from meshfold.core.errors import (
    ConfigError,
    GrantDenied,
    MeshfoldError,
    TooLarge,
    TransportClosed,
    TransportTimeout,
)
from meshfold.core.jobs import end_jobs
from meshfold.core.ports import Message, MessageHandler, Subscribed, TransportEvent
from meshfold.mesh.transport.link import DRAIN_S, Link, foreign
from meshfold.mesh.transport.login import Login, login_faults
from meshfold.mesh.transport.matching import check_headers, check_subject
from meshfold.mesh.transport.subscription import (
    PENDING_BYTES_MAX,
    PENDING_MESSAGES_MAX,
    NatsSubscription,
    handed_over,
)
from nats import errors

__all__ = ("NatsTransport", "check_url", "check_urls")

#: A login is renewed at this part of what is left of its life.
RENEW_AT = 2 / 3
RENEW_S_MIN = 0.2
RETRY_S_MIN = 0.1
RETRY_S_MAX = 5.0
#: How long a link that was replaced waits for answers under way.
RETIRE_S = 10.0
SCHEMES = ("nats", "tls")

_log = logging.getLogger("meshfold.mesh.transport")


def check_url(url: str) -> str:
    """Return the URL.

    :raises ConfigError: if it is no NATS URL, or carries credentials
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if "@" in url:
        # Not repeated: what stands before the @ may be a password.
        raise ConfigError(
            "credentials inside a URL are refused: others see the command line",
            fix="use --creds FILE, a password_file, or NATS_USER and NATS_PASSWORD",
            item="url",
        )
    if parts.scheme not in SCHEMES or not parts.hostname or (port is not None and port == 0):
        raise ConfigError(f"{url!r} is no NATS URL", fix="write nats://host:port", item="url")
    return url


def check_urls(text: str) -> tuple[str, ...]:
    """Return the URLs of a text that joins them by commas.

    :raises ConfigError: as `check_url`, for any of them
    """
    return tuple(check_url(part.strip()) for part in text.split(","))


class NatsTransport:
    """A connection to a NATS server or cluster. See `meshfold.core.ports.Transport` for what its calls promise.

    :param url: `nats://host:port` or `tls://host:port`, or several joined by commas
    :param login: what the server is shown; a JWT is asked for anew at each connect and renewed at 2/3 of its life
    :param inbox_prefix: where answers come to; nobody else may subscribe to it
    """

    def __init__(self, url: str, *, name: str, login: Login | None = None, inbox_prefix: str) -> None:
        self._urls = check_urls(url)
        self._login = login or Login()
        if self._login.tls is None and any(part.startswith("tls:") for part in self._urls):
            from meshfold.mesh.transport.login import tls_context

            self._login = self._login.over(tls_context())
        self._name = name
        self._inbox_prefix = inbox_prefix
        self._counts: Counter[str] = Counter()
        self._listeners: list[Callable[[TransportEvent], None]] = []
        self._subscriptions: set[NatsSubscription] = set()
        self._link: Link | None = None
        self._moving = asyncio.Lock()
        self._gate = asyncio.Event()
        self._gate.set()
        self._wanted = asyncio.Event()
        self._jobs: set[asyncio.Task[None]] = set()
        #: replaced links whose last answers are awaited
        self._retiring: set[Link] = set()
        self._closed = False

    @property
    def connected(self) -> bool:
        """Whether messages can leave right now."""
        return self._link is not None and self._link.connected

    @property
    def login_faults(self) -> list[str]:
        """What makes the login in use less safe than it could be (`meshfold.mesh.transport.login`)."""
        return login_faults(self._login.jwt()) if self._login.jwt is not None else []

    @property
    def narrow(self) -> bool:
        """Whether the link in use only asks for a new login, because the server did not take the last."""
        return self._link is not None and self._link.narrow

    @property
    def max_payload_bytes(self) -> int:
        """The server's limit for one message, headers included."""
        return int(self._link.client.max_payload) if self._link is not None else 0

    @property
    def server(self) -> dict[str, Any]:
        """What the server said of itself: `version`, `server_name`, `cluster`, `operator_mode` and more."""
        if self._link is None:
            return {}
        info = self._link.client.server_info()
        return {
            key: info.get(key) for key in ("version", "server_name", "cluster", "jetstream", "tls_required")
        } | {"nonce": "nonce" in info}

    def on_event(self, listener: Callable[[TransportEvent], None]) -> None:
        """Call `listener` for every event from now on; what it raises is logged and counted as `listener_error`."""
        self._listeners.append(listener)

    def _emit(self, kind: Any, detail: str = "") -> None:
        if kind == "reconnected":
            self._counts["reconnects"] += 1
            kind = "connected"
        self._counts[kind] += 1
        for listener in self._listeners:
            try:
                listener(TransportEvent(kind, detail))
            except Exception:  # noqa: BLE001 - a listener must not end the connection
                self._counts["listener_error"] += 1
                _log.exception("listener of %s", kind)

    async def connect(self) -> None:
        """Connect.

        :raises TransportClosed: if no server can be reached, or they refuse the login
        :raises GrantDenied: if they refuse the narrow login, too: the node was retired
        :raises ConfigError: if what answers is no NATS server, too old, or not as safe as asked for
        """
        link = self._link = await self._connected()
        self._emit("connected", link.client.server_version())
        self._spawn(self._supervise())

    async def _connected(self) -> Link:
        """A link with the login, or with the narrow one where the server no longer takes that."""
        link = self._new_link(self._login)
        try:
            await link.connect()
        except TransportClosed as error:
            if self._login.narrow is None or not error.fields.get("login"):
                raise
            _log.warning("%s: asking for a new login with the narrow one: %s", self._name, error)
            link = await self._narrow_link()
            self._counts["narrow_logins"] += 1
        return link

    async def _narrow_link(self) -> Link:
        """A link with the login that only asks for another.

        :raises GrantDenied: if the server does not take that one, either: then the node was retired
        """
        link = self._new_link(self._login.narrowed())
        try:
            await link.connect()
        except TransportClosed as error:
            if not error.fields.get("login"):
                raise
            raise GrantDenied(
                f"the server at {', '.join(self._urls)} takes no login of {self._name} any more:"
                " it was retired, or this is the server of another mesh",
                fix="ask who runs the mesh, and join anew with a token",
                principal=self._name,
                action="connect",
                route="",
            ) from None
        link.narrow = True
        return link

    def _new_link(self, login: Login) -> Link:
        return Link(
            self._urls,
            login,
            name=self._name,
            inbox_prefix=self._inbox_prefix,
            emit=self._emit,
            lost=self._on_lost,
        )

    def _spawn(self, work: Any) -> None:
        job = asyncio.get_running_loop().create_task(work)
        self._jobs.add(job)
        job.add_done_callback(self._jobs.discard)

    def _on_lost(self, link: Link) -> None:
        """The server closed the link for good, as it does when a login expires."""
        if link is self._link and not self._closed:
            self._emit("disconnected", "closed by the server")
            self._wanted.set()

    async def _supervise(self) -> None:
        retry_s = RETRY_S_MIN
        while not self._closed:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wanted.wait(), self._renewal_in_s())
            self._wanted.clear()
            try:
                await self.renew()
                retry_s = RETRY_S_MIN
            except MeshfoldError as error:
                _log.warning("login of %s not renewed: %s", self._name, error)
                self._counts["renewal_failed"] += 1
                await asyncio.sleep(retry_s)
                retry_s = min(2 * retry_s, RETRY_S_MAX)
                self._wanted.set()

    def _renewal_in_s(self) -> float | None:
        expires_s = self._link.expires_s if self._link is not None else None
        return None if expires_s is None else max(RENEW_S_MIN, (expires_s - time.time()) * RENEW_AT)

    async def renew(self) -> None:
        """Open a second connection with a fresh login, move every subscription there, then drain the first.

        No message is lost or doubled by it, and order per publisher holds. Used before a login ends, and when grants
        changed what it may do.

        :raises TransportClosed: if the transport was closed, or no server takes the login; the first link stays in use
        :raises ConfigError: as `connect`
        """
        async with self._moving:
            if self._closed:
                raise TransportClosed("renew: the transport is closed", because="closed")
            fresh = await self._connected()
            old = self._link
            try:
                await self._move(old, fresh)
            except BaseException:
                await fresh.abandon()
                raise
            self._counts["renewals"] += 1
        if old is not None:
            self._retiring.add(old)
            self._spawn(self._retire(old))
        self._emit("connected", "login renewed")

    async def _move(self, old: Link | None, fresh: Link) -> None:
        moving = [one for one in self._subscriptions if one.open]
        inners: dict[NatsSubscription, Any] = {}
        try:
            for one in moving:
                inners[one] = await fresh.subscribe(
                    one.subject, one.moving(), (PENDING_MESSAGES_MAX, PENDING_BYTES_MAX)
                )
        except MeshfoldError:
            for one in moving:
                one.stayed()
            raise
        self._gate.clear()
        try:
            if old is not None and old.connected:
                # What was published on the old link reaches the server before anything on the new one.
                with contextlib.suppress(TransportTimeout, TransportClosed):
                    await old.barrier(DRAIN_S)
                await asyncio.gather(*(one.drain() for one in moving))
                # What came on both is held by now; whatever comes later came on the new link alone.
                await fresh.barrier(DRAIN_S)
                await asyncio.gather(*(handed_over(inners[one]) for one in moving))
            self._link = fresh
            for one in moving:
                self._moved(one, inners[one])
        finally:
            self._gate.set()

    def _moved(self, one: NatsSubscription, inner: Any) -> None:
        one.moved(inner)
        if inner is None and self.narrow:
            # The login that asks for a new one hears nothing else: what it lacks comes back with the new one.
            self._counts["subscriptions_waiting"] += 1
        elif inner is None:
            one.open = False
            self._subscriptions.discard(one)
            self._emit("permission", f'the renewed login has lost its subscription to "{one.subject}"')

    async def _retire(self, old: Link) -> None:
        deadline = asyncio.get_running_loop().time() + RETIRE_S
        while old.requests_out and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110 - bounded
            await asyncio.sleep(RETRY_S_MIN)
        await old.close(drain=True)
        self._retiring.discard(old)

    async def _current(self, what: str) -> Link:
        if not self._gate.is_set():
            await self._gate.wait()
        if self._closed or self._link is None:
            raise TransportClosed(f"{what}: the transport is closed", because="closed")
        return self._link

    async def publish(
        self, subject: str, data: bytes, *, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """Hand one message over. While no link is up and the buffer is full it is counted `dropped_out` (F4).

        :raises TooLarge: if it exceeds the server's limit; nothing was sent
        :raises WiringError: if the subject or a header cannot be one; nothing was sent
        :raises TransportClosed: if the transport was closed
        """
        link = await self._current(f"publish on {subject}")
        check_subject(subject, wildcards=False)
        fields = dict(headers) if headers else None
        # F6: payload and headers together count; the server ends the connection otherwise.
        size = len(data) + (check_headers(fields) if fields else 0)
        if size > link.client.max_payload:
            raise TooLarge(
                f"a message of {size} bytes on {subject}",
                fix=f"the broker takes {link.client.max_payload}",
                size_bytes=size,
                limit_bytes=link.client.max_payload,
                item=subject,
            )
        try:
            await link.client.publish(subject, data, reply, headers=fields)
        except (errors.Error, OSError):
            # The link is down and its buffer full, or it was closed and the supervisor makes the next.
            self._counts["dropped_out"] += 1
            return
        self._counts["sent"] += 1
        self._counts["bytes_sent"] += len(data)

    async def subscribe(self, subject: str, handler: MessageHandler) -> Subscribed:
        """Deliver what arrives on `subject`; on return the server has taken the subscription.

        :raises GrantDenied: if its permissions do not allow it
        :raises WiringError: if the subject cannot be one
        :raises TransportClosed: if the transport was closed
        :raises TransportTimeout: if the server does not answer
        """
        check_subject(subject, wildcards=True)
        async with self._moving:
            link = await self._current(f"subscribe to {subject}")
            made = NatsSubscription(subject, handler, self._emit, self._counts)
            made.inner = await link.subscribe(subject, made.live, (PENDING_MESSAGES_MAX, PENDING_BYTES_MAX))
            if made.inner is None:
                raise GrantDenied(
                    f"the broker does not let {self._name} subscribe to {subject}",
                    fix="its login allows what its grants name; see `meshfold grant explain`",
                    principal=self._name,
                    action="subscribe",
                    route=subject,
                )
            self._subscriptions = {one for one in self._subscriptions if one.open} | {made}
            return made

    async def request(self, subject: str, data: bytes, *, timeout_s: float) -> Message:
        """Publish with an inbox of our own and return the first answer.

        :raises TransportTimeout: if none came, or nobody listens
        :raises TransportClosed: if the transport was closed
        """
        link = await self._current(f"request on {subject}")
        check_subject(subject, wildcards=False)
        link.requests_out += 1
        try:
            message = await link.client.request(subject, data, timeout=timeout_s)
        except (TimeoutError, errors.TimeoutError, errors.NoRespondersError, errors.OutboundBufferLimitError):
            raise TransportTimeout(
                f"no answer on {subject} within {timeout_s:g} s", subject=subject, timeout_s=timeout_s
            ) from None
        except (errors.Error, OSError) as error:
            raise foreign(f"request on {subject}", error) from None
        finally:
            link.requests_out -= 1
        return Message(message.subject, message.data, message.reply, message.headers or {})

    async def barrier(self, timeout_s: float = 5.0) -> None:
        """Return when the server has processed everything published before.

        :raises TransportTimeout: if it did not answer
        :raises TransportClosed: if the transport was closed
        """
        await (await self._current("barrier")).barrier(timeout_s)

    def counters(self) -> Mapping[str, int]:
        """Counts since start."""
        return dict(self._counts)

    async def close(self, *, drain: bool = True) -> None:
        """Stop; with `drain`, what was published goes out and what has arrived is handled first. Idempotent."""
        if self._closed:
            return
        async with self._moving:
            self._closed = True
        await end_jobs(self._jobs)
        for old in self._retiring:
            await old.abandon()
        if self._link is not None:
            await self._link.close(drain=drain)
            self._emit("closed")

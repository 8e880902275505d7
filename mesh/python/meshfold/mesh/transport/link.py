"""One connection to a NATS server or cluster: connect, watch, count. `NatsTransport` replaces it by a fresh one when its login ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import ssl
from collections.abc import Callable
from typing import Any

from meshfold.core.errors import ConfigError, MeshfoldError, TransportClosed, TransportTimeout
from meshfold.mesh.transport.hardened import HardenedClient
from meshfold.mesh.transport.login import Login, jwt_expiry_s
from nats import errors

__all__ = ("Link", "foreign")

CONNECT_S = 5.0
RECONNECT_WAIT_S = 0.1
PING_S = 5
PINGS_OUT_MAX = 2
DRAIN_S = 5.0
PENDING_OUT_BYTES = 8 * 1024 * 1024
#: Older servers have known holes (TRANSPORT 2.4).
SERVER_MIN = (2, 12, 12)
SERVER_BAD = ((2, 13, 0), (2, 14, 3))
#: Refused subscriptions remembered, newest last.
DENIALS_MAX = 256
ERRORS_KEPT_MAX = 8
_SUBSCRIPTION = re.compile(r'subscription to "([^"]+)"')

_log = logging.getLogger("meshfold.mesh.transport")

#: What nats-py raises on a connection that is gone or going.
GONE = (errors.ConnectionClosedError, errors.ConnectionDrainingError, errors.StaleConnectionError)


def foreign(what: str, error: Exception) -> MeshfoldError:
    """The error of ours for one of nats-py: nothing foreign leaves this room."""
    return TransportClosed(f"{what}: {error or type(error).__name__}", because=str(error))


class Link:
    """A client with its callbacks. `emit(kind, detail)` tells the owner; `lost()` says that the link is closed for good."""

    def __init__(
        self,
        urls: tuple[str, ...],
        login: Login,
        *,
        name: str,
        inbox_prefix: str,
        emit: Callable[[Any, str], None],
        lost: Callable[[Link], None],
    ) -> None:
        self._urls = urls
        self._login = login
        self._name = name
        self._inbox_prefix = inbox_prefix
        self._emit = emit
        self._lost = lost
        self._denied: dict[str, int] = {}
        self._denials = 0
        self._errors: list[Exception] = []
        self._up = False
        self.client = HardenedClient()
        self.client.tls_wanted = login.tls is not None
        self.expires_s: int | None = None
        #: whether this login only asks for a new one
        self.narrow = False
        #: requests whose answer has not come
        self.requests_out = 0

    @property
    def connected(self) -> bool:
        """Whether messages can leave right now."""
        return bool(self.client.is_connected)

    async def connect(self) -> None:
        """Connect to the first server that takes us.

        :raises TransportClosed: if none can be reached or they refuse the login
        :raises ConfigError: if what answers is no NATS server, too old, or not as safe as asked for
        """
        if self._login.jwt is not None:
            self.expires_s = jwt_expiry_s(self._login.jwt())
        if self._login.nkey is not None:
            self.client.use_nkey(self._login.nkey)
        try:
            await asyncio.wait_for(self._dial(), CONNECT_S)
        except BaseException as error:
            # A node that is told to stop cancels this: the socket would stay open, and nats-py closes none of a failed start.
            await self.abandon()
            if isinstance(error, (TimeoutError, OSError, errors.Error)):
                raise self._refused(error) from None
            raise
        # From here on the client finds the way back by itself, for as long as its login lives.
        self.client.options["max_reconnect_attempts"] = -1
        version = self.client.server_version()
        if too_old(version):
            await self.abandon()
            raise ConfigError(
                f"nats-server {version} is too old", fix="use 2.12.12, 2.14.3 or newer", item="server"
            )
        self._up = True

    async def _dial(self) -> None:
        await self.client.connect(
            list(self._urls),
            name=self._name,
            inbox_prefix=self._inbox_prefix.encode(),
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_reconnected,
            closed_cb=self._on_closed,
            allow_reconnect=True,
            max_reconnect_attempts=1,
            reconnect_time_wait=RECONNECT_WAIT_S,  # type: ignore[arg-type]  # seconds, fractions allowed
            ping_interval=PING_S,
            max_outstanding_pings=PINGS_OUT_MAX,
            pending_size=PENDING_OUT_BYTES,
            drain_timeout=int(DRAIN_S),
            **self._login.options(),
        )

    def _refused(self, error: Exception) -> MeshfoldError:
        causes = [*self._errors, error]
        where = ", ".join(self._urls)
        for cause in causes:
            text = str(cause)
            if isinstance(cause, ssl.SSLError) or "TLS" in text:
                return ConfigError(
                    f"no safe connection to {where}: {getattr(cause, 'verify_message', '') or text}",
                    fix="check the server's certificate and --ca; there is no fallback to plaintext",
                    item="tls",
                )
            if "INFO message" in text or "json parse" in text:
                return ConfigError(
                    f"what answers at {where} is no NATS server", fix="check host and port", item=where
                )
            if "authorization" in text.lower():
                return TransportClosed(
                    f"the server at {where} refuses the login of {self._name}",
                    fix="renew its credentials, or ask who runs the mesh",
                    login=True,
                    address=where,
                    because=text,
                )
        because = next((str(cause) for cause in causes if str(cause)), "no answer")
        return TransportClosed(
            f"cannot connect to {where}: {because}",
            fix="is the mesh running? `meshfold status` tells",
            address=where,
            because=because,
        )

    async def _on_error(self, error: Exception) -> None:
        text = str(error)
        if not self._up:
            self._errors = [*self._errors, error][-ERRORS_KEPT_MAX:]
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
        if self._up:
            self._emit("disconnected", "")

    async def _on_reconnected(self) -> None:
        version = self.client.server_version()
        if too_old(version):
            self._emit("too_old", version)
        self._emit("reconnected", version)

    async def _on_closed(self) -> None:
        if self._up:
            self._up = False
            self._lost(self)

    def _note_denial(self, text: str) -> None:
        """Remember which subscription was refused, as the number of the refusal."""
        match = _SUBSCRIPTION.search(text.lower())
        if match is not None:
            self._denials += 1
            self._denied.pop(match[1], None)
            self._denied[match[1]] = self._denials
            if len(self._denied) > DENIALS_MAX:
                del self._denied[next(iter(self._denied))]

    async def subscribe(self, subject: str, deliver: Any, pending: tuple[int, int]) -> Any | None:
        """Subscribe; None if the server's permissions refuse it.

        :raises TransportClosed: if the link is closed
        :raises TransportTimeout: if the server does not answer
        """
        before = self._denials
        try:
            inner = await self.client.subscribe(
                subject, cb=deliver, pending_msgs_limit=pending[0], pending_bytes_limit=pending[1]
            )
        except errors.Error as error:
            raise foreign(f"subscribe to {subject}", error) from None
        await self.barrier()
        # The server answers a refused SUB before the PONG of the barrier.
        if self._denied.get(subject.lower(), 0) > before:
            with contextlib.suppress(errors.Error):
                await inner.unsubscribe()
            return None
        return inner

    async def barrier(self, timeout_s: float = CONNECT_S) -> None:
        """Return when the server has processed everything sent before.

        :raises TransportClosed: if the link is closed
        :raises TransportTimeout: if it did not answer
        """
        if self.client.is_closed:
            raise TransportClosed("the connection is closed", because="closed")
        answered = asyncio.get_running_loop().create_future()
        try:
            await self.client.ping(answered)
            await asyncio.wait_for(answered, timeout_s)
        except (TimeoutError, errors.Error, OSError):
            raise TransportTimeout("the broker did not answer", subject="PING", timeout_s=timeout_s) from None

    async def close(self, *, drain: bool) -> None:
        """End the connection; with `drain`, what was published goes out and what has arrived is handled first."""
        self._up = False
        if drain and self.connected:
            with contextlib.suppress(errors.Error, asyncio.TimeoutError, OSError):
                await asyncio.wait_for(self.client.drain(), 2 * DRAIN_S)
        await self.abandon()

    async def abandon(self) -> None:
        """Close at once."""
        self._up = False
        with contextlib.suppress(errors.Error, OSError):
            await self.client.hang_up()


def too_old(version: str) -> bool:
    """Whether a server of this version is refused."""
    numbers = tuple(int(part) if part.isdigit() else 0 for part in version.split("-")[0].split(".")[:3])
    return numbers < SERVER_MIN or SERVER_BAD[0] <= numbers < SERVER_BAD[1]

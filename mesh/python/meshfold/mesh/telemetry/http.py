"""The port of probes and scrapers: `/livez`, `/readyz`, `/healthz/startup`, `/metrics`, in threads of its own.

The standard library's server, held on a short lead: GET and HEAD only, no body read, each connection answered once and
closed, at most `CONNECTIONS_MAX` of them - one more ends the oldest, so that whoever dawdles cannot lock others out.
Nothing of a request is ever echoed. There is no login: it listens on loopback unless told otherwise, and there answers
only requests that name loopback, so that no web page can read it through a name of its own.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Final
from urllib.parse import parse_qs, urlsplit

from meshfold.core.errors import ConfigError

__all__ = ("HealthServer", "Page")

log = logging.getLogger("meshfold.telemetry")

CONNECTIONS_MAX: Final = 32
#: A peer that is silent for so long is left.
SILENCE_S: Final = 5.0
#: How often the accepting thread looks whether it shall end.
POLL_S: Final = 0.1
PATH_BYTES_MAX: Final = 2048
TEXT: Final = "text/plain; charset=utf-8"

#: Makes a page: (status, content type, body). Gets whether `?verbose` was asked for.
Page = Callable[[bool], tuple[HTTPStatus, str, bytes]]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = CONNECTIONS_MAX
    allow_reuse_address = True

    def __init__(self, address: tuple[str, int], pages: dict[str, Page]) -> None:
        if ":" in address[0]:
            self.address_family = socket.AF_INET6
        self.pages = pages
        self._open: OrderedDict[socket.socket, None] = OrderedDict()
        self._lock = threading.Lock()
        super().__init__(address, _Handler)
        self.loopback = ipaddress.ip_address(str(self.server_address[0])).is_loopback

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            oldest = next(iter(self._open)) if len(self._open) >= CONNECTIONS_MAX else None
            if oldest is not None:
                self._open.pop(oldest)
            self._open[request] = None
        if oldest is not None:
            _end(oldest)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A peer that went away or was ended: its own business.
        log.debug("a request ended early: %s", sys.exception())

    def end_all(self) -> None:
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            _end(connection)


def _end(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        # It ended by itself.
        return


class _Handler(BaseHTTPRequestHandler):
    timeout = SILENCE_S
    server_version = "meshfold"
    sys_version = ""
    protocol_version = "HTTP/1.0"
    # An error page says its status and nothing of the request.
    error_message_format = "%(code)d\n"
    error_content_type = TEXT
    METHODS: ClassVar = ("GET", "HEAD")

    @property
    def _ours(self) -> _Server:
        assert isinstance(self.server, _Server)
        return self.server

    def parse_request(self) -> bool:
        if not super().parse_request():
            return False
        if self.command not in self.METHODS:
            self.send_error(HTTPStatus.METHOD_NOT_ALLOWED)
            return False
        if len(self.path) > PATH_BYTES_MAX:
            self.send_error(HTTPStatus.REQUEST_URI_TOO_LONG)
            return False
        if self._ours.loopback and not _names_loopback(self.headers.get("host", "")):
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST)
            return False
        return True

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def _answer(self, *, body: bool) -> None:
        try:
            parts = urlsplit(self.path)
            query = parse_qs(parts.query, keep_blank_values=True, max_num_fields=16)
        except ValueError:
            self.send_error(HTTPStatus.BAD_REQUEST)
            return
        page = self._ours.pages.get(parts.path)
        if page is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        try:
            status, content_type, content = page("verbose" in query)
        except Exception:
            log.exception("the page %s cannot be made", parts.path)
            self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR)
            return
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(content)))
        self.send_header("cache-control", "no-store")
        self.send_header("x-content-type-options", "nosniff")
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("%s", format % args)


def _names_loopback(host: str) -> bool:
    """Whether a Host header means this machine; a missing one, as simple probes send, does."""
    if not host:
        return True
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class HealthServer:
    """Serves pages by path on one address until it is closed."""

    def __init__(self, listen: str, pages: dict[str, Page]) -> None:
        """Listen; connections are answered from now on.

        :param listen: `host:port`; port 0 takes a free one, see `address`
        :raises ConfigError: if that address cannot be listened on
        """
        host, _, port = listen.rpartition(":")
        try:
            if not host:
                raise ValueError("an address is host:port")
            found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
            self._server = _Server((str(found[0][4][0]), int(port)), pages)
        except (OSError, OverflowError, ValueError) as error:
            raise ConfigError(
                f"cannot listen on {listen}: {error}",
                fix="choose another --health-listen",
                item="health_listen",
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(POLL_S,), name="meshfold-health", daemon=True
        )
        self._thread.start()

    @property
    def address(self) -> str:
        """`host:port` as it was bound."""
        host, port = self._server.server_address[:2]
        return f"[{host!s}]:{port}" if ":" in str(host) else f"{host!s}:{port}"

    def close(self) -> None:
        """Stop listening and end what is open. Idempotent."""
        self._server.shutdown()
        self._server.server_close()
        self._server.end_all()
        self._thread.join()

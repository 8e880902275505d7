"""`meshfold node health`: the exit code is the node's answer, whatever goes wrong on the way to it."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from meshfold.core.errors import ConfigError
from meshfold.mesh.cli.app import app
from typer.testing import CliRunner


class Endpoint(ThreadingHTTPServer):
    """Answers like a node whose readiness and liveness the test sets."""

    ready = live = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    """One request."""

    def do_GET(self) -> None:
        """Say 200 or 503."""
        assert isinstance(self.server, Endpoint)
        holds = {"/readyz?verbose": self.server.ready, "/livez": self.server.live}[self.path]
        body = b"[+] bridge ok\n" if holds else b"[-] bridge: no broker\n"
        self.send_response(200 if holds else 503)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """A node's endpoint."""
    server = Endpoint()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def address(server: Endpoint, host: str = "127.0.0.1") -> str:
    """Where to ask."""
    return f"{host}:{server.server_address[1]}"


@pytest.mark.parametrize(("ready", "live", "option", "code"), [
    (True, True, [], 0),
    (False, True, [], 1),
    (False, True, ["--live"], 0),
    (True, False, ["--live"], 1),
])  # fmt: skip
def test_the_exit_code_is_what_the_node_says(
    endpoint: Endpoint, ready: bool, live: bool, option: list[str], code: int
) -> None:
    endpoint.ready, endpoint.live = ready, live
    answer = CliRunner().invoke(
        app, ["node", "health", "--json", *option, "--health-listen", address(endpoint)]
    )
    assert answer.exit_code == code, answer.output
    document = json.loads(answer.stdout)
    assert document == {
        "healthy": code == 0,
        "status": 200 if code == 0 else 503,
        "detail": "[+] bridge ok" if code == 0 else "[-] bridge: no broker",
    }


def test_an_address_that_means_all_of_them_is_asked_on_loopback(
    endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESHFOLD_HEALTH_LISTEN", address(endpoint, "0.0.0.0"))
    answer = CliRunner().invoke(app, ["node", "health"])
    assert answer.exit_code == 0, answer.output
    assert answer.stdout == "healthy\n[+] bridge ok\n"


def test_no_answer_is_not_healthy_and_names_the_address() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and not listening: refused, and nobody else gets it
        where = f"127.0.0.1:{held.getsockname()[1]}"
        answer = CliRunner().invoke(app, ["node", "health", "--json", "--health-listen", where])
    assert answer.exit_code == 1
    document = json.loads(answer.stdout)
    assert (document["healthy"], document["status"]) == (False, 0)
    assert where in document["detail"]


def test_what_is_no_http_is_not_healthy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(4096)
                peer.sendall(b"INFO {}\r\n")

        thread = threading.Thread(target=greet)
        thread.start()
        where = f"127.0.0.1:{server.getsockname()[1]}"
        answer = CliRunner().invoke(app, ["node", "health", "--health-listen", where])
        thread.join()
    assert answer.exit_code == 1
    assert "not healthy" in answer.stdout


def test_without_an_address_it_says_where_to_write_one() -> None:
    answer = CliRunner().invoke(app, ["node", "health"])
    assert isinstance(answer.exception, ConfigError)
    assert "--health-listen" in str(answer.exception)

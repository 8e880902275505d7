"""A mesh over NATS servers that are not ours: open, with a login, with TLS, a cluster that loses a server, and none at all."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nats
import pytest
from machines import Machine, Server, wait_for
from meshfold.mesh.up.sampler import routes_of
from test_transport_nats import write_pair


@pytest.fixture
def started() -> Iterator[list[Any]]:
    """What is ended with the test."""
    running: list[Any] = []
    yield running
    for one in reversed(running):
        (one.stop if isinstance(one, Machine) else one.kill)()


class Site:
    """Two machines on one host: a hub that reads and an edge that samples, over a server of somebody's own."""

    def __init__(
        self, folder: Path, started: list[Any], url: str, environ: dict[str, str] | None = None
    ) -> None:
        self.hub = Machine(folder / "hub", environ=environ)
        self.edge = Machine(folder / "edge", environ=environ)
        self.url = url
        started += [self.hub, self.edge]

    def begin(self) -> None:
        """Make the mesh, join, run both nodes; on return everything arrives."""
        self.hub.ask("init", "--dir", "mesh", "--key-file", "root.key", "--nats", self.url)
        reads = [part for name in routes_of() for part in ("--read", f"edge-1/host/{name}")]
        self.hub.start_meshfold("node", "run", "--dir", "mesh", *reads)
        wait_for(lambda: self.hub.meshfold("status").returncode == 0, self.hub.logs)
        self.hub.ask("invite", "edge-1", "--out", str(self.edge.folder / "token"))
        self.edge.ask("join", "--dir", "edge-1", "--token-file", "token")
        self.edge.start_meshfold("node", "run", "--dir", "edge-1", "--app", "sampler")
        self.arrives()

    def arrives(self, above: int = 0) -> dict[str, dict[str, Any]]:
        """Wait until every route of the edge brought more than so many events to the hub."""

        def enough() -> dict[str, dict[str, Any]] | None:
            rows = self.hub.delivered("hub")
            fast = [row for route, row in rows.items() if not route.endswith("/top")]
            return (
                rows if len(rows) == len(routes_of()) and all(r["delivered"] > above for r in fast) else None
            )

        found: dict[str, dict[str, Any]] = wait_for(enough, lambda: self.hub.logs() + self.edge.logs())
        return found

    def check(self, name: str) -> dict[str, Any]:
        """A row of `doctor`."""
        return next(row for row in self.hub.ask("doctor")["checks"] if row["name"] == name)


async def listen(url: str, messages: int) -> list[bytes]:
    """What anybody hears who connects to an open server."""
    heard: list[bytes] = []
    client = await nats.connect(url)
    subscription = await client.subscribe(">")
    while len(heard) < messages:
        heard.append((await subscription.next_msg(timeout=60)).data)
    await client.close()
    return heard


def test_on_an_open_server_the_inner_fence_holds_alone_and_doctor_says_so(
    tmp_path: Path, started: list[Any]
) -> None:
    server = Server(tmp_path / "server")
    started.append(server)
    site = Site(tmp_path, started, server.url)
    site.begin()
    fences = site.check("fences")
    assert fences["ok"]
    assert "inner fence alone" in fences["detail"]
    assert "edge-1/host/heartbeat" in site.check("plaintext")["detail"]
    heard = asyncio.run(listen(server.url, 400))
    assert any(b"rounds" in data for data in heard), "the plaintext route is heard: the listener works"
    assert not any(b"percent" in data for data in heard), "a sealed value was readable"
    # Whoever may subscribe to everything at the server still holds no grant.
    site.hub.ask("invite", "stranger", "--no-grants", "--out", "stranger.token")
    site.edge.ask("join", "--dir", "stranger", "--token-file", str(site.hub.folder / "stranger.token"))
    refused = site.edge.meshfold("route", "watch", "edge-1/host/cpu", "--context", "stranger/context.json")
    assert refused.returncode == 3, refused.stderr


def test_a_user_and_password_come_from_variables_or_a_context_and_are_never_told(
    tmp_path: Path, started: list[Any]
) -> None:
    server = Server(tmp_path / "server", 'authorization { user: "plant", password: "hunter2hunter2" }\n')
    started.append(server)
    site = Site(tmp_path, started, server.url, {"NATS_USER": "plant", "NATS_PASSWORD": "hunter2hunter2"})
    site.begin()
    for machine in (site.hub, site.edge):
        machine.environ.clear()
    without = site.hub.meshfold("status")
    assert without.returncode == 1
    assert "refuses the login" in without.stderr
    site.hub.environ = {"NATS_USER": "plant", "NATS_PASSWORD": "wrongwrong"}
    wrong = site.hub.meshfold("status", "--log-level", "debug")
    assert wrong.returncode == 1
    assert "refuses the login" in wrong.stderr
    assert "wrongwrong" not in wrong.stderr
    site.hub.environ = {}
    contexts = site.hub.folder / ".config" / "nats" / "context"
    contexts.mkdir(parents=True)
    (contexts / "prod.json").write_text(
        json.dumps({"url": server.url, "user": "plant", "password": "hunter2hunter2", "description": "ours"})
    )
    by_context = site.hub.ask("status", "--context", "prod")
    assert {node["name"] for node in by_context["nodes"]} == {"hub", "edge-1"}
    unknown = site.hub.meshfold("status", "--context", "other")
    assert unknown.returncode == 2
    for path in (site.hub.folder, site.edge.folder):
        for log in path.glob("log-*"):
            assert "hunter2" not in log.read_text()


def test_tls_with_a_private_authority_is_checked_and_a_stranger_is_refused(
    tmp_path: Path, started: list[Any]
) -> None:
    folder = tmp_path / "tls"
    folder.mkdir()
    authority = write_pair(folder, "authority")
    write_pair(folder, "server", authority)
    write_pair(folder, "stranger")
    pair = f'cert_file: "{folder}/server.pem", key_file: "{folder}/server.key"'
    server = Server(tmp_path / "server", f"tls {{ {pair} }}\n", tls=True)
    started.append(server)
    site = Site(tmp_path, started, server.url, {"NATS_CA": str(folder / "authority.pem")})
    site.begin()
    site.hub.environ = {"NATS_CA": str(folder / "stranger.pem")}
    refused = site.hub.meshfold("status")
    assert refused.returncode == 2
    assert len(refused.stderr.strip().splitlines()) == 1
    assert "no safe connection" in refused.stderr
    site.hub.environ = {"NATS_CA": str(folder / "missing.pem")}
    missing = site.hub.meshfold("status")
    assert missing.returncode == 2
    assert "missing.pem" in missing.stderr


def test_hl3_tls_asked_of_a_plaintext_server_is_refused(tmp_path: Path, started: list[Any]) -> None:
    server = Server(tmp_path / "server")
    machine = Machine(tmp_path / "machine")
    started += [server, machine]
    machine.ask("init", "--dir", "mesh", "--key-file", "k", "--nats", server.url.replace("nats:", "tls:"))
    refused = machine.meshfold("node", "run", "--dir", "mesh")
    assert refused.returncode == 2
    assert "no fallback to plaintext" in refused.stderr


def test_a_cluster_that_loses_the_server_everyone_uses_carries_on(tmp_path: Path, started: list[Any]) -> None:
    base = 'server_name: "n{n}"\ncluster {{ name: "plant", listen: "127.0.0.1:-1"{routes} }}\n'
    servers = [Server(tmp_path / "n1", base.format(n=1, routes=""))]
    first = servers[0].ports["cluster"][0].partition("://")[2]
    servers += [
        Server(tmp_path / f"n{n}", base.format(n=n, routes=f', routes: ["nats-route://{first}"]'))
        for n in (2, 3)
    ]
    started += servers
    site = Site(tmp_path, started, ",".join(server.url for server in servers))
    site.begin()
    victim = next(server for server in servers if "hub" in server.clients())
    before = site.arrives()
    victim.kill()
    left = [server for server in servers if server is not victim]
    wait_for(lambda: any("hub" in server.clients() for server in left), site.hub.logs)
    rows = site.arrives(above=max(row["delivered"] for row in before.values()) + 40)
    assert all(row["unexplained"] == 0 for row in rows.values())
    assert {node["name"] for node in site.hub.ask("status")["nodes"]} == {"hub", "edge-1"}


@pytest.fixture
def talker() -> Iterator[Callable[[bytes], str]]:
    """`talker(words)`: the URL of a server that says so to whoever connects."""
    listeners: list[socket.socket] = []

    def start(words: bytes) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(words)
                    while connection.recv(4096):
                        pass

        threading.Thread(target=serve, daemon=True).start()
        return f"nats://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for listener in listeners:
        listener.close()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "no NATS server"),
        (b"SSH-2.0-OpenSSH_9.9\r\n", "no NATS server"),
        (b'INFO {"version":"2.9.0","max_payload":1048576}\r\nPONG\r\n', "nats-server 2.9.0 is too old"),
        (b'INFO {"version":"2.14.2","max_payload":1048576}\r\nPONG\r\n', "nats-server 2.14.2 is too old"),
    ],
)
def test_hl4_a_server_that_is_none_or_too_old_is_one_line_and_exit_code_two(
    tmp_path: Path, talker: Callable[[bytes], str], words: bytes, named: str
) -> None:
    machine = Machine(tmp_path / "machine")
    machine.ask("init", "--dir", "mesh", "--key-file", "k", "--nats", talker(words))
    machine.ask("invite", "edge-1", "--context", "mesh/context.json", "--out", "token")
    for command in (
        ("node", "run", "--dir", "mesh"),
        ("join", "--dir", "j", "--token-file", "token"),
        ("status", "--context", "mesh/context.json"),
    ):
        answer = machine.meshfold(*command)
        assert answer.returncode == 2, answer.stderr
        assert named in answer.stderr
        assert len(answer.stderr.strip().splitlines()) == 1, answer.stderr


def test_a_server_that_is_not_there_is_one_line_and_exit_code_one(tmp_path: Path) -> None:
    machine = Machine(tmp_path / "machine")
    machine.ask("init", "--dir", "mesh", "--key-file", "k", "--nats", "nats://127.0.0.1:1")
    answer = machine.meshfold("node", "run", "--dir", "mesh")
    assert answer.returncode == 1
    assert "127.0.0.1:1" in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1

"""Verdicts, metrics and the port that serves them, hostile requests included."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import os
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from meshfold.core import Schema, route
from meshfold.core.errors import ConfigError
from meshfold.mesh.local import LocalMesh
from meshfold.mesh.telemetry.health import judge, report
from meshfold.mesh.telemetry.http import CONNECTIONS_MAX, HealthServer, Page
from meshfold.mesh.telemetry.metrics import SERIES_MAX, render
from meshfold.mesh.telemetry.pages import serve_health
from prometheus_client.parser import text_string_to_metric_families

WAIT_S = 60.0
RAW = route("edge", "thermal", "raw", schema=Schema.float("Celsius"))
BRIDGE: dict[str, Any] = {
    "route": "edge/thermal/raw",
    "dir": "in",
    "state": "ready",
    "events": 7,
    "frames": 2,
    "pending": 0,
    "dropped": {"link_loss": 3},
    "stalled_s": 0.0,
    "rate_hz": 1.0,
    "latency": {"bounds_s": [0.1, 1.0], "counts": [4, 2, 1], "sum_s": 2.5},
}
WELL: dict[str, Any] = {
    "node": "hub",
    "mesh": "local",
    "id": "ab",
    "incarnation": "cd",
    "started_ms": 1000,
    "connected": True,
    "grants": 2,
    "grants_expire_ms": 5000,
    "echo_age_s": 0.4,
    "members": [{"name": "edge", "alive": True, "age_s": 0.2}],
    "bridges": [BRIDGE],
    "queues": [
        {
            "route": "edge/thermal/raw",
            "kind": "stream",
            "edges": 2,
            "depth": 5,
            "dropped": {"overflow_oldest": 9},
        }
    ],
    "rejected": {"sig": 4},
    "denials": 1,
    "failures": 0,
    "transport": {"published": 3},
    "spans": {"recorded": 6, "exported": 5, "failed": 1, "dropped": 0},
    "groups": [{"group": "control", "leader": "hub", "term": 3}],
}


def verdict(**changes: Any) -> tuple[bool, str]:
    return report("readyz", judge({**WELL, **changes}), verbose=True)


def test_a_node_that_moves_events_is_ready_and_says_why() -> None:
    ok, text = verdict()
    assert ok
    assert "[+] bridge in edge/thermal/raw: 7 events moved" in text
    assert text.endswith("readyz: ok\n")


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({"connected": False}, "broker"),
        ({"echo_age_s": None}, "progress"),
        ({"echo_age_s": 9.0}, "progress"),
        ({"grants": 0}, "grants"),
        ({"bridges": [{**BRIDGE, "state": "failed"}]}, "bridge in edge/thermal/raw"),
        ({"bridges": [{**BRIDGE, "dir": "out", "stalled_s": 9.0}]}, "bridge out edge/thermal/raw"),
        ({"echo_age_s": 9.0}, "bridge in edge/thermal/raw"),
    ],
)
def test_what_keeps_a_node_from_moving_events_makes_it_unready(changes: dict[str, Any], names: str) -> None:
    ok, text = verdict(**changes)
    assert not ok
    assert f"[-] {names}" in text


def test_a_bridge_without_a_producer_could_move_events() -> None:
    ok, text = verdict(bridges=[{**BRIDGE, "state": "starting"}])
    assert ok
    assert "waits for a producer" in text


def test_a_closed_bridge_is_nobodys_concern() -> None:
    assert verdict(bridges=[{**BRIDGE, "state": "closed"}])[0]


def samples(text: bytes) -> dict[tuple[str, frozenset[str]], float]:
    """Values by name and label values."""
    return {
        (sample.name, frozenset(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_metrics_have_every_figure_under_its_labels() -> None:
    found = samples(render([WELL]))
    assert found["meshfold_route_messages_total", frozenset({"hub", "edge/thermal/raw", "in"})] == 7
    assert (
        found["meshfold_route_dropped_total", frozenset({"hub", "edge/thermal/raw", "in", "link_loss"})] == 3
    )
    assert found["meshfold_rejected_total", frozenset({"hub", "sig"})] == 4
    assert found["meshfold_queue_depth", frozenset({"hub", "edge/thermal/raw", "stream"})] == 5
    assert (
        found[
            "meshfold_queue_dropped_total",
            frozenset({"hub", "edge/thermal/raw", "stream", "overflow_oldest"}),
        ]
        == 9
    )
    assert found["meshfold_bridge_state", frozenset({"hub", "edge/thermal/raw", "in", "ready"})] == 1
    assert found["meshfold_heartbeat_age_seconds", frozenset({"hub", "edge"})] == 0.2
    assert found["meshfold_telemetry_spans_total", frozenset({"hub", "failed"})] == 1
    assert found["meshfold_bridge_latency_seconds_count", frozenset({"hub", "edge/thermal/raw"})] == 7
    assert found["meshfold_bridge_latency_seconds_bucket", frozenset({"hub", "edge/thermal/raw", "1.0"})] == 6
    assert found["meshfold_bridge_latency_seconds_sum", frozenset({"hub", "edge/thermal/raw"})] == 2.5
    assert found["meshfold_consensus_is_leader", frozenset({"hub", "control"})] == 1
    assert found["meshfold_grant_denials_total", frozenset({"hub"})] == 1


def test_the_guide_names_every_metric_and_no_other() -> None:
    guide = (Path(__file__).parents[2] / "docs/guide/telemetry.md").read_text()
    families = text_string_to_metric_families(render([WELL]).decode())
    shown = {f"{family.name}_total" if family.type == "counter" else family.name for family in families}
    assert set(re.findall(r"meshfold_\w+", guide)) == shown


def test_routes_beyond_the_bound_stand_together() -> None:
    many = [{**BRIDGE, "route": f"edge/thermal/r{number:04}"} for number in range(SERIES_MAX + 20)]
    found = samples(render([{**WELL, "bridges": many, "queues": []}]))
    messages = {key: value for key, value in found.items() if key[0] == "meshfold_route_messages_total"}
    assert len(messages) == SERIES_MAX + 1
    assert messages["meshfold_route_messages_total", frozenset({"hub", "other", "in"})] == 20 * 7
    assert sum(messages.values()) == (SERIES_MAX + 20) * 7


def test_metrics_of_several_nodes_stand_side_by_side() -> None:
    found = samples(render([WELL, {**WELL, "node": "edge", "denials": 5}]))
    assert found["meshfold_grant_denials_total", frozenset({"edge"})] == 5
    assert found["meshfold_grant_denials_total", frozenset({"hub"})] == 1


@pytest.fixture
def server() -> Iterator[HealthServer]:
    def broken(verbose: bool) -> Any:
        raise RuntimeError("secret words")

    pages: dict[str, Page] = {
        "/page": lambda verbose: (HTTPStatus.OK, "text/plain", b"verbose" if verbose else b"terse"),
        "/broken": broken,
    }
    running = HealthServer("127.0.0.1:0", pages)
    yield running
    running.close()


def ask(
    address: str, path: str, method: str = "GET", headers: dict[str, str] | None = None
) -> tuple[int, str]:
    connection = http.client.HTTPConnection(address, timeout=WAIT_S)
    with contextlib.closing(connection):
        connection.request(method, path, headers=headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()


def raw(address: str, data: bytes) -> bytes:
    """Send bytes as they are; what came back until the end."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), WAIT_S) as peer:
        with contextlib.suppress(ConnectionError):
            peer.sendall(data)
            peer.shutdown(socket.SHUT_WR)
        found = b""
        with contextlib.suppress(ConnectionError):
            while part := peer.recv(65536):
                found += part
        return found


def test_a_page_is_served_to_get_and_head(server: HealthServer) -> None:
    assert ask(server.address, "/page") == (200, "terse")
    assert ask(server.address, "/page?verbose") == (200, "verbose")
    assert ask(server.address, "/page?verbose=1") == (200, "verbose")
    assert ask(server.address, "/page", "HEAD") == (200, "")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PAGE"])
def test_other_methods_are_refused(server: HealthServer, method: str) -> None:
    assert ask(server.address, "/page", method)[0] == 405


@pytest.mark.parametrize(
    "path", ["/", "/pages", "/page/", "/../page", "///page//", "/%70age", "/page%00", "*"]
)
def test_other_paths_are_not_found_and_never_echoed(server: HealthServer, path: str) -> None:
    status, text = ask(server.address, path)
    assert status in (400, 404)
    assert text == f"{status}\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello TLS\r\n\r\n", b"400"),
        (b"GET\r\n\r\n", b"400"),
        (b"GET http://[/page HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /page HTTP/9.9.9\r\n\r\n", b"400"),
        (b"GET /page HTTP/2.0\r\n\r\n", b"505"),
        (b"GET /" + b"a" * 3000 + b" HTTP/1.1\r\n\r\n", b" 414 "),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", b" 414 "),
        (b"GET /page HTTP/1.1\r\n" + b"x: y\r\n" * 200 + b"\r\n", b" 431 "),
        (b"GET /page HTTP/1.1\r\nx: " + b"y" * 70_000 + b"\r\n\r\n", b" 431 "),
        (b"GET /page?" + b"a&" * 500 + b" HTTP/1.1\r\n\r\n", b"400"),
    ],
)
def test_bytes_that_are_no_request_get_a_short_refusal(
    server: HealthServer, data: bytes, status: bytes
) -> None:
    answer = raw(server.address, data)
    assert status in answer
    assert b"aaaa" not in answer
    assert ask(server.address, "/page")[0] == 200


@pytest.mark.parametrize("data", [b"", b"\r\n", b"GET /page HTTP/1.1\r\n", b"\x00" * 10])
def test_a_request_that_never_ends_is_nobodys_harm(server: HealthServer, data: bytes) -> None:
    raw(server.address, data)
    assert ask(server.address, "/page")[0] == 200


def test_a_body_is_not_read(server: HealthServer) -> None:
    answer = raw(server.address, b"GET /page HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n")
    assert answer.endswith(b"terse")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "10.1.2.3", "[::2]", "[", "127.0.0.1.evil.example"]
)
def test_a_request_that_names_another_host_is_refused_on_loopback(server: HealthServer, host: str) -> None:
    assert ask(server.address, "/page", headers={"host": host})[0] == 421


@pytest.mark.parametrize("host", ["localhost", "localhost:9", "127.0.0.1", "[::1]:80", "LOCALHOST"])
def test_names_of_this_machine_are_served(server: HealthServer, host: str) -> None:
    assert ask(server.address, "/page", headers={"host": host})[0] == 200


def test_a_page_that_breaks_says_so_and_nothing_else(server: HealthServer) -> None:
    assert ask(server.address, "/broken") == (500, "500\n")


def test_those_who_dawdle_do_not_lock_others_out(server: HealthServer) -> None:
    host, _, port = server.address.rpartition(":")
    with contextlib.ExitStack() as stack:
        slow = [
            stack.enter_context(socket.create_connection((host, int(port)), WAIT_S))
            for _ in range(CONNECTIONS_MAX + 8)
        ]
        for one in slow:
            with contextlib.suppress(ConnectionError):
                one.sendall(b"GET /page HTTP/1.1\r\n")
        assert ask(server.address, "/page") == (200, "terse")
        # The oldest were ended for the newer ones.
        assert slow[0].recv(1) == b""


def test_closing_ends_open_connections_and_frees_the_port() -> None:
    running = HealthServer("127.0.0.1:0", {})
    host, _, port = running.address.rpartition(":")
    with socket.create_connection((host, int(port)), WAIT_S) as peer:
        peer.sendall(b"GET /")
        running.close()
        with contextlib.suppress(ConnectionResetError):
            assert peer.recv(1) == b""
    HealthServer(f"127.0.0.1:{port}", {}).close()


@pytest.mark.parametrize(
    "listen", ["127.0.0.1:99999", "8080", ":8080", "127.0.0.1:x", "192.0.2.1:80", "no.such.host.invalid:80"]
)
def test_an_address_that_cannot_be_had_is_named(listen: str) -> None:
    with pytest.raises(ConfigError, match=listen):
        HealthServer(listen, {})


def test_a_port_that_is_taken_is_named(server: HealthServer) -> None:
    with pytest.raises(ConfigError, match="cannot listen on"):
        HealthServer(server.address, {})


async def until(condition: Callable[[], tuple[int, str]], status: int) -> str:
    """Ask in a thread until it answers with that status; the text."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        found, text = await asyncio.to_thread(condition)
        if found == status:
            return text
        await asyncio.sleep(0)
    raise AssertionError(f"never {status}; last: {text}")


async def test_readiness_follows_the_broker_down_and_up(mesh: LocalMesh) -> None:
    async with mesh.node("hub") as hub:

        async def vitals() -> dict[str, dict[str, Any] | None]:
            return {"hub": hub.vitals()}

        health = serve_health("127.0.0.1:0", vitals, lambda: True)
        try:
            await until(lambda: ask(health.address, "/readyz"), 200)
            assert mesh.server is not None
            os.kill(mesh.server.pid, signal.SIGKILL)
            text = await until(lambda: ask(health.address, "/readyz?verbose"), 503)
            assert "[-] broker" in text or "[-] progress" in text
            assert (await asyncio.to_thread(ask, health.address, "/livez"))[0] == 200
            mesh.restart_server()
            text = await until(lambda: ask(health.address, "/readyz?verbose"), 200)
            assert "[+] progress" in text
            _, metrics = await asyncio.to_thread(ask, health.address, "/metrics")
            assert samples(metrics.encode())["meshfold_broker_connected", frozenset({"hub"})] == 1
        finally:
            await asyncio.to_thread(health.close)


async def test_a_node_that_has_not_started_is_alive_and_not_ready() -> None:
    started = False

    async def vitals() -> dict[str, dict[str, Any] | None]:
        return {"hub": None} if started else {}

    health = serve_health("127.0.0.1:0", vitals, lambda: started)
    try:
        assert (await asyncio.to_thread(ask, health.address, "/livez"))[0] == 200
        assert (await asyncio.to_thread(ask, health.address, "/healthz/startup"))[0] == 503
        assert (await asyncio.to_thread(ask, health.address, "/readyz"))[0] == 503
        started = True
        assert (await asyncio.to_thread(ask, health.address, "/healthz/startup"))[0] == 200
        # It took part and does so no more: it drains.
        assert (await asyncio.to_thread(ask, health.address, "/readyz"))[0] == 503
        assert (await asyncio.to_thread(ask, health.address, "/metrics"))[0] == 200
    finally:
        await asyncio.to_thread(health.close)


async def test_a_stuck_loop_is_not_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshfold.mesh.telemetry.pages.LOOP_S", 0.05)
    stuck = asyncio.Event()

    async def vitals() -> dict[str, dict[str, Any] | None]:
        await stuck.wait()
        return {}

    health = serve_health("127.0.0.1:0", vitals, lambda: True)
    try:
        assert (await asyncio.to_thread(ask, health.address, "/livez"))[0] == 503
        assert (await asyncio.to_thread(ask, health.address, "/metrics"))[0] == 503
        stuck.set()
        assert (await asyncio.to_thread(ask, health.address, "/livez"))[0] == 200
    finally:
        await asyncio.to_thread(health.close)

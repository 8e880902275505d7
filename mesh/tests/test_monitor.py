"""What `doctor --monitor` learns from a real nats-server, and from what is none (HL4)."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from meshfold.core.errors import ConfigError
from meshfold.mesh.broker import find_server
from meshfold.mesh.cli.monitor import monitor_check, server_facts

WAIT_S = 60.0
DOORS = """
websocket { listen: "127.0.0.1:-1", no_tls: true }
mqtt { listen: "127.0.0.1:-1" }
jetstream { store_dir: "js" }
feature_flags { js_ack_fc_v2: true }
"""


def started(folder: Path, more: str) -> tuple[subprocess.Popen[bytes], str]:
    """A nats-server with ports of the system's choice; its monitoring address."""
    config = folder / "server.conf"
    config.write_text(
        f'listen: "127.0.0.1:-1"\nhttp: "127.0.0.1:-1"\nserver_name: x\nports_file_dir: "{folder}"\n{more}'
    )
    process = subprocess.Popen([find_server(), "-c", str(config)], cwd=folder, stderr=subprocess.DEVNULL)
    waited = threading.Event()
    for _ in range(int(WAIT_S / 0.05)):
        written = list(folder.glob("*.ports"))
        if written and (text := written[0].read_text()):
            return process, json.loads(text)["monitoring"][0]
        waited.wait(0.05)
    process.kill()
    raise AssertionError("the server wrote no ports")


@pytest.fixture
def server(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    process, url = started(tmp_path, request.param)
    yield url
    process.terminate()
    process.wait(WAIT_S)


@pytest.mark.parametrize("server", [""], indirect=True)
def test_hl4_a_plain_server_has_no_open_doors(server: str) -> None:
    assert monitor_check(server_facts(server))["ok"]


@pytest.mark.parametrize("server", [DOORS], indirect=True)
def test_hl4_open_doors_and_flags_are_named(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = monitor_check(server_facts(server))
    assert not found["ok"]
    for word in ("mqtt is open", "websocket is open", "js_ack_fc_v2"):
        assert word in found["detail"]
    assert found["fix"]


@pytest.mark.parametrize(
    "url",
    ["nats://127.0.0.1:4222", "http://", "ftp://x", "file:///etc/passwd", "http://a:b@127.0.0.1", "", "8222"],
)
def test_hl4_what_is_no_monitoring_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="no monitoring address"):
        server_facts(url)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b"null", b"x" * (1024 * 1024 + 2), b"\xff\xfe"])
def test_hl4_what_answers_and_is_no_server_is_refused(body: bytes) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as page:
        serving = threading.Thread(target=page.serve_forever, daemon=True)
        serving.start()
        with pytest.raises(ConfigError, match="nats-server"):
            server_facts(f"http://127.0.0.1:{page.server_port}")
        page.shutdown()
        serving.join(WAIT_S)

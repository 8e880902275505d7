"""Health of real processes: a node whose broker is killed and comes back, and `up` as a whole."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from meshfold.mesh.local import LocalMesh

RUN_S = 100.0


def ask(address: str, path: str) -> tuple[int, str]:
    """Status and text of a page; 0 if nobody answers."""
    connection = http.client.HTTPConnection(address, timeout=RUN_S)
    with contextlib.closing(connection):
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError:
            return 0, ""


def address_in(errors: str) -> str:
    """The address a process announced on stderr; empty until it did."""
    found = re.search(r"health on http://(\S+)/readyz", errors)
    return found[1] if found else ""


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[LocalMesh, Any, Path]]:
    """A mesh and its hub as `meshfold node run` in a process of its own, and the file of what that says."""
    monkeypatch.setenv("MESHFOLD_CONTEXTS", str(tmp_path / "contexts"))
    errors = tmp_path / "hub.err"
    with LocalMesh(tmp_path / "state") as mesh, errors.open("wb") as log:
        command = ["node", "run", "--dir", str(mesh.state_dir), "--name", "hub", "--app", "sampler"]
        process = subprocess.Popen(
            [sys.executable, "-m", "meshfold.mesh", *command, "--health-listen", "127.0.0.1:0"],
            stdout=subprocess.DEVNULL,
            stderr=log,
        )
        yield mesh, process, errors
        process.kill()
        process.wait()


def test_a_node_is_ready_while_its_events_can_move(
    hub: tuple[LocalMesh, Any, Path], until: Callable[..., Any]
) -> None:
    mesh, process, errors = hub
    address = until(lambda: address_in(errors.read_text()), "the address of health")
    until(lambda: ask(address, "/readyz")[0] == 200, "readiness")
    assert ask(address, "/healthz/startup")[0] == 200
    command = [sys.executable, "-m", "meshfold.mesh", "node", "health", "--health-listen", address]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0
    assert mesh.server is not None
    os.kill(mesh.server.pid, signal.SIGKILL)
    until(lambda: ask(address, "/readyz")[0] == 503, "no readiness without a broker")
    assert subprocess.run(command, check=False, capture_output=True).returncode == 1
    assert ask(address, "/livez")[0] == 200
    mesh.restart_server()
    until(lambda: ask(address, "/readyz")[0] == 200, "readiness with the broker back")
    _, metrics = ask(address, "/metrics")
    assert 'meshfold_route_messages_total{dir="out",node="hub",route="hub/host/cpu"}' in metrics
    process.send_signal(signal.SIGTERM)
    assert process.wait(RUN_S) == 0, errors.read_text()


def test_up_as_a_whole_has_health_and_metrics_of_every_node(
    up: Callable[..., Any], until: Callable[..., Any]
) -> None:
    process = up("--health-listen", "127.0.0.1:0")
    address = until(lambda: address_in(process.errors()), "the address of health")
    until(lambda: ask(address, "/readyz")[0] == 200, "readiness")
    until(lambda: 'route="hub/host/pressure"' in ask(address, "/metrics")[1], "the derived route")
    _, metrics = ask(address, "/metrics")
    for node in ("edge", "hub"):
        assert f'meshfold_broker_connected{{node="{node}"}} 1.0' in metrics
    process.process.send_signal(signal.SIGINT)
    code, _ = process.finish()
    assert code == 0, process.errors()

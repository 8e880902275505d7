"""Runs every example as its reader would, and compares what it prints with its output.txt, where `…` stands for anything."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from jaeger import JaegerServer
from meshfold.mesh.local import LocalMesh

HERE = Path(__file__).parent
RUN_S = 100
#: Started before main.py (or read.py) and ended after it.
BESIDE = {"02_two_processes": "share.py"}
NEEDS_MESH = {
    "02_two_processes",
    "04_a_refused_read",
    "05_a_trace_in_jaeger",
    "14_leader_election",
    "19_write_on_another_node",
}
NEEDS_JAEGER = {"05_a_trace_in_jaeger"}
EXAMPLES = sorted(path.name for path in HERE.iterdir() if re.match(r"\d\d_", path.name))


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """An empty machine: no mesh of anybody is found, commands are those of this interpreter."""
    monkeypatch.setenv("MESHFOLD_CONTEXTS", str(tmp_path / "contexts"))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    yield dict(os.environ)


def command(folder: Path) -> list[str]:
    """How the example is run."""
    if (folder / "run.sh").exists():
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            return [str(folder / "run.sh"), str(free.getsockname()[1])]
    (script,) = [folder / name for name in ("main.py", "read.py") if (folder / name).exists()]
    return [sys.executable, str(script)]


def pattern(expected: str) -> str:
    """The output as a regular expression."""
    return ".*?".join(re.escape(part) for part in expected.split("…"))


def marked(name: str) -> Any:
    """What needs Jaeger runs in the stage that has built it."""
    return pytest.param(name, marks=pytest.mark.jaeger) if name in NEEDS_JAEGER else name


@pytest.mark.parametrize("name", [marked(name) for name in EXAMPLES])
def test_m127_the_example_prints_what_it_shows(
    name: str, environment: dict[str, str], tmp_path: Path
) -> None:
    folder = HERE / name
    with ExitStack() as stack:
        if name in NEEDS_MESH:
            mesh = stack.enter_context(LocalMesh(tmp_path / "state"))
            stack.enter_context(mesh.node("hub"))
        if name in NEEDS_JAEGER:
            jaeger = stack.enter_context(JaegerServer(tmp_path))
            environment["OTEL_EXPORTER_OTLP_ENDPOINT"] = jaeger.otlp_url
            environment["JAEGER_URL"] = jaeger.query_url
        if name in BESIDE:
            beside = subprocess.Popen([sys.executable, str(folder / BESIDE[name])], env=environment)
            stack.callback(beside.wait, RUN_S)
            stack.callback(beside.terminate)
        done = subprocess.run(
            command(folder),
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=RUN_S,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    expected = (folder / "output.txt").read_text(encoding="utf-8")
    assert re.fullmatch(pattern(expected), done.stdout), done.stdout + done.stderr


def test_an_example_is_short() -> None:
    for path in HERE.glob("[0-9]*/*"):
        assert path.read_text(encoding="utf-8").count("\n") <= 60, path

"""Programs and commands as on one machine: files, contexts and, where asked for, a network namespace of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from select import select
from typing import Any

from meshfold.mesh.broker import find_server

__all__ = ("RUN_S", "Machine", "Server", "wait_for")

#: What takes longer than that hangs; nothing depends on how fast it is.
RUN_S = 100.0


def wait_for(condition: Callable[[], Any], what: Callable[[], str]) -> Any:
    """Poll until the condition gives something true."""
    deadline = time.monotonic() + RUN_S
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        select([], [], [], 0.1)
    raise AssertionError(f"not within {RUN_S:.0f} s: {what()}")


class Machine:
    """A folder, and what runs with it. `via` stands before every command, such as `ip netns exec NAME`."""

    def __init__(self, folder: Path, *via: str, environ: dict[str, str] | None = None) -> None:
        self.folder = folder
        self._via = via
        self.environ = environ or {}
        folder.mkdir()
        self.processes: list[subprocess.Popen[str]] = []

    def _environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("NATS_", "MESHFOLD_"))}
        mine = {"MESHFOLD_CONTEXTS": str(self.folder / "contexts"), "HOME": str(self.folder)}
        return {**kept, **mine, **self.environ}

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a program; `stop` ends it."""
        with (self.folder / f"log-{len(self.processes)}").open("w") as log:
            process = subprocess.Popen(
                [*self._via, *command],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=self.folder,
                env=self._environment(),
            )
        self.processes.append(process)
        return process

    def start_meshfold(self, *arguments: str) -> subprocess.Popen[str]:
        """Start a command that goes on."""
        return self.start(sys.executable, "-m", "meshfold.mesh", *arguments)

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a program to its end."""
        return subprocess.run(
            [*self._via, *command],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            cwd=self.folder,
            env=self._environment(),
            timeout=RUN_S,
            check=False,
        )

    def meshfold(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return self.run(sys.executable, "-m", "meshfold.mesh", *arguments)

    def ask(self, *arguments: str) -> Any:
        """Run a command that has to hold; its JSON."""
        answer = self.meshfold(*arguments, "--json")
        assert answer.returncode == 0, f"{arguments}: {answer.stderr}{self.logs()}"
        return json.loads(answer.stdout)

    def logs(self) -> str:
        """What its programs wrote to stderr."""
        return "".join(f"\n{path.name}: {path.read_text()}" for path in sorted(self.folder.glob("log-*")))

    def delivered(self, reader: str) -> dict[str, dict[str, Any]]:
        """Rows of a reader that brought something, by route."""
        answer = self.meshfold("audit", "flow", "--json")
        rows = json.loads(answer.stdout)["routes"] if answer.returncode in (0, 1) and answer.stdout else []
        return {row["route"]: row for row in rows if row["reader"] == reader and row["delivered"] > 0}

    def stop(self) -> None:
        """End what runs."""
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
            try:
                process.communicate(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()


class Server:
    """A nats-server with a configuration of the test's own, on ports the system picks."""

    def __init__(self, folder: Path, config: str = "", *, tls: bool = False) -> None:
        folder.mkdir()
        path = folder / "own.conf"
        ports = f'listen: "127.0.0.1:-1"\nhttp: "127.0.0.1:-1"\nports_file_dir: "{folder}"\n'
        path.write_text(ports + f'log_file: "{folder / "log"}"\n{config}')
        self.process = subprocess.Popen(
            [find_server(), "-c", str(path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._ports = folder / f"nats-server_{self.process.pid}.ports"
        wait_for(self._up, lambda: (folder / "log").read_text() if (folder / "log").exists() else "no log")
        self.ports: dict[str, list[str]] = json.loads(self._ports.read_text())
        self.url = ("tls" if tls else "nats") + "://" + self.ports["nats"][0].partition("://")[2]

    def _up(self) -> bool:
        assert self.process.poll() is None, "nats-server ended"
        try:
            return bool(json.loads(self._ports.read_text())["nats"])
        except (OSError, ValueError, KeyError):
            return False

    def clients(self) -> set[str]:
        """Names of the connections it has now."""
        from urllib.request import urlopen

        with urlopen(f"{self.ports['monitoring'][0]}/connz", timeout=RUN_S) as answer:
            return {str(row.get("name", "")) for row in json.load(answer)["connections"]}

    def kill(self) -> None:
        """SIGKILL. Idempotent."""
        self.process.kill()
        self.process.wait()

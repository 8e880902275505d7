"""`meshfold up` as a user runs it: a process of its own, real children, real files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

#: A run of `up` that takes longer than this hangs; nothing here depends on how fast it is.
RUN_S = 100.0


class Up:
    """One `meshfold up` process."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self.environment = {**os.environ, "MESHFOLD_CONTEXTS": str(folder / "contexts"), "NO_COLOR": "1"}
        self.log = (folder / "up.err").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "meshfold.mesh", "up", "--json", *arguments],
            stdout=subprocess.PIPE,
            stderr=self.log,
            env=self.environment,
            text=True,
            process_group=0,
        )
        self._seen: dict[int, psutil.Process] = {}

    def children(self) -> list[psutil.Process]:
        """Its living descendants; every one ever seen is remembered for `leftovers`."""
        try:
            found = psutil.Process(self.process.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        self._seen.update({child.pid: child for child in found})
        return found

    def child(self, name: str) -> psutil.Process | None:
        """The child whose command line contains `name`, if it runs."""
        for child in self.children():
            try:
                if any(part == name or part.endswith(f"/{name}") for part in child.cmdline()):
                    return child
            except psutil.NoSuchProcess:
                continue
        return None

    def ctrl_c(self) -> None:
        """As a terminal does it: SIGINT to the whole foreground group, children that stayed in it included."""
        os.killpg(self.process.pid, signal.SIGINT)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another command as a second terminal would."""
        return subprocess.run(
            [sys.executable, "-m", "meshfold.mesh", *arguments],
            capture_output=True,
            text=True,
            env=self.environment,
            timeout=RUN_S,
            check=False,
        )

    def errors(self) -> str:
        """What it wrote to stderr so far."""
        self.log.flush()
        return Path(self.log.name).read_text()

    def finish(self) -> tuple[int, dict[str, Any] | None]:
        """Wait for its end; the exit code and the JSON document, if it printed one."""
        out, _ = self.process.communicate(timeout=RUN_S)
        return self.process.returncode, json.loads(out) if out.strip() else None

    def leftovers(self) -> list[str]:
        """Command lines of descendants that outlived it."""
        alive = [child for child in self._seen.values() if child.is_running()]
        _, alive = psutil.wait_procs(alive, timeout=10)
        return [" ".join(child.cmdline()) for child in alive if child.status() != psutil.STATUS_ZOMBIE]

    def stop(self) -> None:
        """End it, whatever it does."""
        self.children()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            try:
                self.process.communicate(timeout=RUN_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.communicate()
        self.log.close()


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    """Start `meshfold up` with arguments; it is ended with the test."""
    started: list[Up] = []

    def start(*arguments: str) -> Up:
        process = Up(tmp_path, *arguments)
        started.append(process)
        return process

    yield start
    for process in started:
        process.stop()


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """Poll until the condition gives something true."""
    from select import select
    from time import monotonic

    deadline = monotonic() + RUN_S
    while monotonic() < deadline:
        found = condition()
        if found:
            return found
        select([], [], [], 0.05)
    raise AssertionError(f"{what}: not within {RUN_S:.0f} s")


@pytest.fixture
def until() -> Callable[[Callable[[], Any], str], Any]:
    """`until(condition, what)`."""
    return wait_until

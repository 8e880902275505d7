"""The child processes of `up`: started, watched, restarted once, stopped in order."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from meshfold.core.errors import ConfigError
from meshfold.mesh.broker import guarded

__all__ = ("Child",)

STOP_S = 10.0
READY_S = 30.0


class Child:
    """One node process. `on_message` gets every JSON line it prints; `environment` is all of its variables."""

    def __init__(
        self,
        name: str,
        context: Path,
        marks: Path,
        folder: Path,
        on_message: Callable[[dict[str, Any]], None],
        environment: Mapping[str, str],
    ) -> None:
        self.name = name
        self._environment = dict(environment)
        self._command = guarded(
            sys.executable, "-m", "meshfold.mesh.up.child", name, str(context), str(marks)
        )
        self._log_path = folder / f"{name}.log"
        self._on_message = on_message
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None
        self.ready = asyncio.Event()
        self.identity: dict[str, Any] = {}
        self.deaths = 0

    async def start(self) -> None:
        """Start the process; `ready` is set when it says so."""
        self.ready.clear()
        with self._log_path.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                env=self._environment,
                process_group=0,
            )
        self._reader = asyncio.create_task(self._read(self._process))

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            with contextlib.suppress(json.JSONDecodeError):
                message = json.loads(line)
                if message["event"] == "identity":
                    self.identity = {key: message[key] for key in ("name", "id", "incarnation")}
                elif message["event"] == "ready":
                    self.ready.set()
                self._on_message(message)
        await process.wait()

    @property
    def pid(self) -> int:
        """Process id, 0 before the start."""
        return self._process.pid if self._process is not None else 0

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process is not None and self._process.returncode is None

    async def wait_ready(self) -> None:
        """Wait until it is ready.

        :raises ConfigError: if it ends or is silent before that, with its last words
        """
        ready = asyncio.create_task(self.ready.wait())
        assert self._reader is not None
        await asyncio.wait({ready, self._reader}, timeout=READY_S, return_when=asyncio.FIRST_COMPLETED)
        if not self.ready.is_set():
            ready.cancel()
            raise ConfigError(f"node {self.name} did not become ready: {self.last_words()}", item=self.name)

    def last_words(self) -> str:
        """The last line of its log."""
        lines = (
            self._log_path.read_text(errors="replace").strip().splitlines() if self._log_path.exists() else []
        )
        return lines[-1] if lines else "it said nothing"

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL after 10 s; returns when it is gone. Idempotent."""
        process = self._process
        if process is None:
            return
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), STOP_S)
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if self._reader is not None:
            await asyncio.gather(self._reader, return_exceptions=True)

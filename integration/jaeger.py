"""A real Jaeger for a test: started on ports of its own, asked over its query API, ended with the test.

The binary is `MESHFOLD_TEST_JAEGER`, `jaeger` on the path, or what `tools/build_jaeger.sh` left in the cache. Where there
is none the test is skipped with the command that makes one; under `CI` it fails instead.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

HERE = Path(__file__).parent
CONFIG = HERE / "jaeger.yaml"
BUILD = HERE.parent / "tools/build_jaeger.sh"
#: A start or an answer that takes longer hangs; nothing here depends on how fast it is.
WAIT_S = 60.0
#: Another process may take a port between our choice and Jaeger's start.
STARTS_MAX = 3


def find_jaeger() -> Path:
    """The binary; skips the test, or under CI fails it, where there is none."""
    named = os.environ.get("MESHFOLD_TEST_JAEGER") or shutil.which("jaeger")
    if named:
        return Path(named)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "meshfold"
    built = sorted(cache.glob("jaeger-*"), key=lambda path: path.stat().st_mtime)
    if built:
        return built[-1]
    missing = pytest.fail if os.environ.get("CI") else pytest.skip
    missing(f"no Jaeger here: {BUILD} builds one")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


@dataclass(frozen=True)
class JaegerSpan:
    """One span as the query API shows it. References are (trace id, span id)."""

    service: str
    name: str
    trace: str
    span: str
    parents: tuple[tuple[str, str], ...]
    links: tuple[tuple[str, str], ...]
    tags: dict[str, Any]
    start_us: int


class JaegerServer:
    """Use as a context manager: `otlp_url` is where nodes send, `query_url` where people look."""

    def __init__(self, folder: Path) -> None:
        self._binary = find_jaeger()
        self._log = folder / "jaeger.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.otlp_url = self.query_url = ""

    def __enter__(self) -> Self:
        for _ in range(STARTS_MAX):
            self._start()
            try:
                self.wait(lambda: self._get("/api/services") is not None, "Jaeger's answer")
                return self
            except ChildProcessError:
                self._stop()
        raise AssertionError(f"Jaeger does not start: {self._log.read_text()[-2000:]}")

    def _start(self) -> None:
        http, grpc, otlp = (f"127.0.0.1:{port}" for port in _free_ports(3))
        self.query_url, self.otlp_url = f"http://{http}", f"http://{otlp}"
        addresses = {"JAEGER_QUERY_HTTP": http, "JAEGER_QUERY_GRPC": grpc, "JAEGER_OTLP_HTTP": otlp}
        # It would send traces of itself to a default address.
        environment = {**os.environ, **addresses, "OTEL_TRACES_SAMPLER": "always_off"}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [self._binary, "--config", CONFIG], env=environment, stdout=log, stderr=log
            )

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        """Ask until the condition gives something true; returns that."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            found = condition()
            if found:
                return found
            try:
                assert self._process is not None
                self._process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue
            raise ChildProcessError(f"Jaeger ended: {self._log.read_text()[-2000:]}")
        raise AssertionError(f"{what}: not within {WAIT_S:.0f} s")

    def _get(self, path: str) -> Any:
        try:
            with urllib.request.urlopen(self.query_url + path, timeout=WAIT_S) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            # No such trace yet.
            error.close()
            return None
        except (urllib.error.URLError, ConnectionError):
            return None

    def services(self) -> set[str]:
        """The services it has spans of."""
        found = self._get("/api/services")
        return set(found["data"] or ()) if found else set()

    def trace(self, trace_id: str) -> list[JaegerSpan]:
        """All spans of a trace, oldest first; empty while it knows none."""
        found = self._get(f"/api/traces/{trace_id}")
        return _spans(found["data"][0]) if found and found["data"] else []

    def find(self, service: str, **tags: str) -> list[list[JaegerSpan]]:
        """Traces with a span of that service that has these tags; `_` in a name stands for a dot."""
        wanted = {name.replace("_", "."): value for name, value in tags.items()}
        query = {"service": service, "tags": json.dumps(wanted), "limit": "20", "lookback": "1h"}
        found = self._get(f"/api/traces?{urllib.parse.urlencode(query)}")
        return [_spans(trace) for trace in found["data"] or ()] if found else []

    def _stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(WAIT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()


def _spans(trace: dict[str, Any]) -> list[JaegerSpan]:
    services = {name: process["serviceName"] for name, process in trace["processes"].items()}

    def references(span: dict[str, Any], kind: str) -> tuple[tuple[str, str], ...]:
        return tuple((one["traceID"], one["spanID"]) for one in span["references"] if one["refType"] == kind)

    spans = [
        JaegerSpan(
            services[span["processID"]],
            span["operationName"],
            span["traceID"],
            span["spanID"],
            references(span, "CHILD_OF"),
            references(span, "FOLLOWS_FROM"),
            {tag["key"]: tag["value"] for tag in span["tags"]},
            span["startTime"],
        )
        for span in trace["spans"]
    ]
    return sorted(spans, key=lambda span: span.start_us)

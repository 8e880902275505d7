"""The thread that takes span records out of a graph: keeps the last ones for `trace`, exports all.

Nothing per event happens in Python: the engine leaves records (`meshfold.core.Tracing`), this thread takes them a few
times a second. What is lost is counted: in the engine's ring, here, and where the receiver did not take it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from meshfold.core import Graph, SpanRecord, Tracing
from meshfold.mesh.telemetry.otlp import Exporter, SpanFactory, otlp_exporter
from meshfold.mesh.telemetry.settings import TelemetrySettings
from meshfold.mesh.telemetry.spans import Facts

__all__ = ("Recorder",)

log = logging.getLogger("meshfold.telemetry")

#: Finished records that `trace` can answer from.
KEPT_RECORDS: Final = 8192
#: Records that wait for an export; while it is slow the engine's ring fills, and drops what is oldest.
WAITING_MAX: Final = 8192
TAKE_RECORDS: Final = 1024
#: Refusals that become spans in a second; a peer that is refused more often is counted only.
DENIALS_PER_S: Final = 20
#: How long closing waits for the last spans, and for an export that is given up.
FLUSH_S: Final = 3.0
GIVE_UP_S: Final = 2.0
#: Refusals that wait for the thread.
DENIALS_MAX: Final = 256


class Recorder:
    """Traces of one graph, from its start to `close`. Off, it costs nothing and answers with nothing."""

    def __init__(
        self,
        graph: Graph,
        settings: TelemetrySettings,
        *,
        node: str,
        mesh: str,
        facts: Facts | None = None,
        exporter: Callable[[str], Exporter] = otlp_exporter,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._graph = graph
        self._settings = settings
        self._names = (node, mesh)
        self._facts = facts or Facts()
        self._make_exporter = exporter
        self._now_ns = now_ns
        self._tracing = Tracing(graph)
        self._kept: deque[SpanRecord] = deque(maxlen=KEPT_RECORDS)
        self._waiting: deque[SpanRecord] = deque()
        self._denials: deque[SpanRecord] = deque()
        self._denial_second = (0, 0)
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        self._thread: threading.Thread | None = None
        self._exporter: Exporter | None = None
        self._factory: SpanFactory | None = None
        self._exported = self._failed = self._denials_dropped = 0

    @property
    def settings(self) -> TelemetrySettings:
        """What it runs with."""
        return self._settings

    @property
    def facts(self) -> Facts:
        """What the node adds to spans."""
        return self._facts

    def start(self) -> None:
        """Record from now on, if the settings say so. Idempotent.

        :raises ConfigError: if spans shall be exported and OpenTelemetry is missing or misconfigured
        """
        if not self._settings.on or self._thread is not None:
            return
        node, mesh = self._names
        if self._settings.endpoint is not None:
            self._factory = SpanFactory(
                self._settings,
                self._facts,
                service=node,
                namespace=mesh,
                instance=self._graph.incarnation.hex(),
            )
            self._exporter = self._make_exporter(self._settings.endpoint)
        settings = self._settings
        self._tracing.start(settings.ratio, settings.roots_per_s, settings.spans_per_s)
        self._thread = threading.Thread(target=self._run, name=f"meshfold-spans-{node}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while True:
            self._wake.wait(self._settings.interval_s)
            closing = self._closing
            self._drain()
            if closing:
                return

    def _drain(self) -> None:
        """Take and export until nothing is left."""
        while self._take():
            with self._lock:
                records = [
                    self._waiting.popleft()
                    for _ in range(min(len(self._waiting), self._settings.batch_spans))
                ]
            if self._exporter is not None and self._factory is not None:
                self._export(self._exporter, self._factory, records)

    def _take(self) -> bool:
        """Take what the engine has, as far as there is room; whether something waits for the export."""
        with self._lock:
            room = WAITING_MAX - len(self._waiting)
            records = self._tracing.take(min(room, TAKE_RECORDS)) if room > 0 else []
            records += (self._denials.popleft() for _ in range(min(len(self._denials), room)))
            self._kept.extend(records)
            self._waiting.extend(records)
            return bool(self._waiting)

    def _export(self, exporter: Exporter, factory: SpanFactory, records: list[SpanRecord]) -> None:
        try:
            arrived = exporter.export(factory.spans(records))
        except Exception:
            # An exporter that breaks costs its spans and is said so; the node goes on.
            log.exception("spans not exported")
            arrived = False
        if arrived:
            self._exported += len(records)
        else:
            self._failed += len(records)

    def denied(self, action: str, route: str, principal: str, error: str = "grant_denied") -> None:
        """Note that a principal was refused an action; above `DENIALS_PER_S` refusals are only counted."""
        self._refused("denied", action, route, principal, error)

    def rejected(self, reason: str, where: str) -> None:
        """Note that a frame was refused; above `DENIALS_PER_S` refusals are only counted."""
        self._refused("rejected", None, where, None, reason)

    def _refused(self, kind: str, action: str | None, route: str, principal: str | None, error: str) -> None:
        if self._thread is None:
            return
        now = self._now_ns()
        second, count = self._denial_second
        if now // 1_000_000_000 != second:
            second, count = now // 1_000_000_000, 0
        self._denial_second = second, count + 1
        if count >= DENIALS_PER_S:
            self._denials_dropped += 1
            return
        record = SpanRecord(
            kind=kind,
            event="",
            producer=b"",
            route=route,
            trace=os.urandom(16),
            span=os.urandom(8),
            parent=None,
            links=[],
            inputs=0,
            operator=action,
            correlation=principal,
            taints=[],
            size=0,
            start=now,
            end=now,
            error=error,
        )
        with self._lock:
            if len(self._denials) >= DENIALS_MAX:
                self._denials.popleft()
                self._denials_dropped += 1
            self._denials.append(record)

    def kept(self) -> list[SpanRecord]:
        """The last records, oldest first, up to this moment."""
        self._take()
        with self._lock:
            return list(self._kept)

    def counters(self) -> dict[str, int]:
        """`recorded`, `exported`, `failed` (the receiver did not take them) and `dropped` (nobody took them in time)."""
        recorded, dropped = self._tracing.counts()
        return {
            "recorded": recorded,
            "exported": self._exported,
            "failed": self._failed,
            "dropped": dropped + self._denials_dropped,
        }

    def close(self) -> None:
        """Record nothing more and export what is there, for at most `FLUSH_S` plus `GIVE_UP_S`. Blocks. Idempotent."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._tracing.stop()
        self._closing = True
        self._wake.set()
        thread.join(FLUSH_S)
        if self._exporter is not None:
            self._exporter.shutdown()
        thread.join(GIVE_UP_S)

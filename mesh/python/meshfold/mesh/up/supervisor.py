"""`meshfold up`: a whole sealed mesh on this machine, watched until it is told to stop.

Order of start: server, wire tap, context, the voters (the hub among them), further members, outsider. Order of stop: edge first,
so that its last events are counted at the hub; then the summary is asked for; then the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from meshfold.core.errors import ConfigError, MeshfoldError
from meshfold.core.jobs import end_jobs
from meshfold.mesh.broker import server_version
from meshfold.mesh.folders import state_folder
from meshfold.mesh.local import LocalMesh
from meshfold.mesh.node import Node
from meshfold.mesh.telemetry import TelemetrySettings, merge, require_exporter
from meshfold.mesh.telemetry.http import HealthServer
from meshfold.mesh.telemetry.pages import serve_health
from meshfold.mesh.up.children import Child
from meshfold.mesh.up.leftovers import PREFIX, sweep
from meshfold.mesh.up.probes import Probes
from meshfold.mesh.up.sampler import PRESSURE, routes_of
from meshfold.mesh.up.tap import WireTap

__all__ = ("Stopped", "Supervisor", "voters_of")

WATCH_S = 0.1
SHOW_S = 0.25
#: The summary waits so long for the hub's counters to have taken in the edge's last heartbeat.
SETTLE_S = 0.5
#: How long the summary waits for the last hop of the trace it shows.
TRACE_S = 2.0


class Stopped(Exception):
    """Told to stop before everything ran."""


def exporting_to(otlp: str) -> dict[str, str]:
    """The variables by which the nodes export to a receiver.

    :raises ConfigError: if that is no URL, or OpenTelemetry is not installed
    """
    endpoint = TelemetrySettings().to(otlp, "--otlp").endpoint
    assert endpoint is not None
    require_exporter()
    return {
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": endpoint,
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_SDK_DISABLED": "false",
    }


def voters_of(nodes: int, wanted: int | None) -> tuple[str, ...]:
    """The members that are voters, the hub first and the edge last; without a number three of them, where there are three.

    :raises ConfigError: if more are wanted than there are members
    """
    count = wanted if wanted is not None else (3 if nodes >= 3 else 1)
    if count > nodes:
        raise ConfigError(
            f"{count} voters of {nodes} nodes",
            fix=f"add --nodes {count}, or take fewer voters",
            item="--voters",
        )
    return ("hub", *(f"node-{n}" for n in range(3, nodes + 1)), "edge")[:count]


class Supervisor:
    """Runs the mesh of `up`. `say` gets messages for people, `show` a document for the live view."""

    def __init__(
        self,
        *,
        nodes: int,
        voters: int | None = None,
        for_s: float | None,
        folder: Path | None,
        say: Callable[[str], None],
        show: Callable[[dict[str, Any]], None] | None,
        otlp: str | None = None,
        health_listen: str | None = None,
    ) -> None:
        self._health_listen = health_listen
        self._environment = dict(os.environ)
        if otlp is not None:
            self._environment |= exporting_to(otlp)
        self._for_s = for_s
        self._say = say
        self._show = show
        sweep()
        self._temporary = tempfile.TemporaryDirectory(prefix=PREFIX) if folder is None else None
        self._folder = (
            state_folder(folder)
            if folder is not None
            else Path(self._temporary.name if self._temporary else ".")
        )
        self._names = ["hub", "edge", *(f"node-{n}" for n in range(3, nodes + 1)), "outsider"]
        self._voters = voters_of(nodes, voters)
        self._marks = {name: secrets.token_hex(16) for name in (*routes_of(), "pressure")}
        self._tap = WireTap(
            (mark for name, mark in self._marks.items() if name != "heartbeat"), self._marks["heartbeat"]
        )
        self._mesh = LocalMesh(self._folder, voters=self._voters)
        self._children: dict[str, Child] = {}
        self._probes = Probes(self._names[:-1], lambda name: self._children[name].alive)
        self._health: HealthServer | None = None
        self._refused: list[dict[str, Any]] = []
        self._stop = asyncio.Event()
        self._server_deaths = 0
        self._failed = False
        self._ready_s = 0.0
        self._identities: dict[str, dict[str, Any]] = {}

    async def run(self) -> tuple[int, dict[str, Any]]:
        """Run until Ctrl-C, SIGTERM, the end of its terminal or the given time; returns exit code and the document of COMMANDS.

        :raises ConfigError: if it cannot start
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop.set)
        begin = time.monotonic()
        try:
            if self._health_listen is not None:
                self._health = serve_health(
                    self._health_listen, self._probes.vitals, lambda: self._probes.started
                )
                self._say(f"health on http://{self._health.address}/readyz?verbose")
            await self._start()
            self._ready_s = round(time.monotonic() - begin, 2)
            self._say(f"ready in {self._ready_s} s; Ctrl-C stops")
            assert self._mesh.context is not None
            async with Node.open("operator", context=self._mesh.context.path) as operator:
                self._probes.operator = operator
                await self._watch(operator)
                document = await self._finish(operator)
                self._probes.operator = None
            return self._verdict(document), document
        except Stopped:
            return 0, {"stopped": "before it was ready"}
        finally:
            await self._close()

    def _verdict(self, document: dict[str, Any]) -> int:
        broker = document["broker"]
        holds = (
            not self._failed
            and document["unexplained"] == 0
            and broker["plaintext_found"] == 0
            and broker["control_found"] >= 1
        )
        return 0 if holds else 1

    async def _start(self) -> None:
        context = self._mesh.start()
        server = self._mesh.server
        assert server is not None
        url = await self._tap.start(server.port)
        self._mesh.announce(url)
        marks = self._folder / "marks.json"
        marks.touch(mode=0o600)
        marks.write_text(json.dumps(self._marks))
        self._children = {
            name: Child(name, context.path, marks, self._folder, self._on_message, self._environment)
            for name in self._names
        }
        # Several voters get ready together or not at all.
        for name in self._voters:
            await self._children[name].start()
        for name in self._voters:
            await self._or_stop(self._children[name].wait_ready())
        for name in self._names:
            if name not in self._voters:
                await self._children[name].start()
        for child in self._children.values():
            await self._or_stop(child.wait_ready())

    async def _or_stop(self, work: Any) -> None:
        """Wait for the work, or raise `Stopped` as soon as we are told to stop."""
        task = asyncio.create_task(work)
        stop = asyncio.create_task(self._stop.wait())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if self._stop.is_set():
            await end_jobs((task,))
            raise Stopped
        await task

    def _on_message(self, message: dict[str, Any]) -> None:
        if message["event"] == "refused":
            self._refused.append({key: message[key] for key in ("node", "route", "action", "error")})

    async def _watch(self, operator: Node) -> None:
        end = None if self._for_s is None else time.monotonic() + self._for_s
        shown = 0.0
        while not self._stop.is_set() and not self._failed:
            if end is not None and time.monotonic() >= end:
                return
            await self._mend()
            if self._show is not None and time.monotonic() - shown >= SHOW_S:
                shown = time.monotonic()
                with contextlib.suppress(MeshfoldError):
                    self._show(await self._document(operator))
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stop.wait(), WATCH_S)

    async def _mend(self) -> None:
        """Restart what died, once each, and say so."""
        server = self._mesh.server
        if server is not None and not server.alive:
            self._server_deaths += 1
            if self._server_deaths > 1:
                self._say("the server died a second time: giving up")
                self._failed = True
                return
            self._say("the server died: restarting it")
            try:
                self._tap.target_port = self._mesh.restart_server()
            except MeshfoldError as error:
                self._say(f"the server died a second time, while it was restarted: giving up ({error})")
                self._failed = True
                return
        for child in self._children.values():
            if child.alive or self._stop.is_set():
                continue
            child.deaths += 1
            if child.deaths > 1:
                self._say(f"{child.name} died a second time: giving up")
                self._failed = True
                return
            self._say(f"{child.name} died: restarting it")
            await child.start()

    async def _finish(self, operator: Node) -> dict[str, Any]:
        self._say("draining")
        why, trace = await self._causes(operator)
        before = await self._document(operator)
        await self._children["edge"].stop()
        await asyncio.sleep(SETTLE_S)
        document = await self._document(operator)
        # What the edge had read itself is known from before it stopped.
        document["routes"] += [row for row in before["routes"] if row["reader"] == "edge"]
        document["why"], document["trace"] = why, trace
        return document

    async def _causes(self, operator: Node) -> tuple[dict[str, Any], dict[str, Any]]:
        """The causes of the newest derived event that is traced, and its trace."""
        why: dict[str, Any] = {"event": None, "causes": []}
        trace: dict[str, Any] = {"trace_id": None, "spans": []}
        try:
            found = await operator.query("trace", node="hub", route=PRESSURE.text)
            if found["event"] is None:
                latest = await operator.query("latest", node="hub", route=PRESSURE.text)
                found["event"] = latest["event"]["id"] if latest["event"] is not None else None
            if found["event"] is not None:
                why = await operator.query("why", node="hub", event=found["event"])
            if found["trace_id"] is not None:
                trace = await self._trace(operator, found["trace_id"])
        except MeshfoldError as error:
            why["error"] = str(error)
        return why, trace

    async def _trace(self, operator: Node, trace_id: str) -> dict[str, Any]:
        """A trace from all nodes; its last hop may just be under way."""
        end = time.monotonic() + TRACE_S
        while True:
            everyone = await operator.query("trace", trace=trace_id)
            trace = merge(trace_id, everyone["answers"].values())
            if len({span["service"] for span in trace["spans"]}) > 1 or time.monotonic() > end:
                return trace
            await asyncio.sleep(WATCH_S)

    async def _document(self, operator: Node) -> dict[str, Any]:
        flow: dict[str, Any] = {"routes": [], "unexplained": 0}
        status: dict[str, Any] = {"groups": []}
        with contextlib.suppress(MeshfoldError):
            flow = await operator.audit_flow(values=True)
            status = await operator.query("status", node="hub")
        leader = status["groups"][0] if status["groups"] else {}
        return {
            "ready_s": self._ready_s,
            "nodes": [{**child.identity, "pid": child.pid} for child in self._children.values()],
            "routes": flow["routes"],
            "unexplained": flow["unexplained"],
            "refused": list(self._refused),
            "leader": {
                "group": leader.get("group"),
                "node": leader.get("leader"),
                "term": leader.get("term", 0),
                "token": leader.get("token"),
                "voters": leader.get("voters", []),
            },
            "broker": {
                "version": server_version(),
                "frames_seen": self._tap.frames_seen,
                "plaintext_found": self._tap.plaintext_found,
                "control_found": self._tap.control_found,
            },
            "why": {"event": None, "causes": []},
            "trace": {"trace_id": None, "spans": []},
        }

    async def _close(self) -> None:
        if self._health is not None:
            await asyncio.to_thread(self._health.close)
        for child in reversed(list(self._children.values())):
            await child.stop()
        await self._tap.stop()
        self._mesh.stop()
        if self._temporary is not None:
            self._temporary.cleanup()

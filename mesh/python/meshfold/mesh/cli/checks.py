"""What `doctor` checks."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from meshfold.core.errors import MeshfoldError
from meshfold.mesh.broker import find_server, server_version
from meshfold.mesh.cli.mesh_checks import (
    check,
    clock_check,
    fence_check,
    issuer_check,
    login_check,
    look,
    member_checks,
    plaintext_check,
    server_check,
    voters_check,
)
from meshfold.mesh.cli.monitor import monitor_check, server_facts
from meshfold.mesh.cli.options import Call
from meshfold.mesh.telemetry import TelemetrySettings, require_exporter

__all__ = ("exporter_check", "run_checks", "spans_check")

#: How long the receiver of traces may take to answer.
EXPORTER_S = 2.0
DISK_BYTES_MIN = 256 * 1024 * 1024


def run_checks(call: Call, monitor: str | None = None) -> list[dict[str, Any]]:
    """Every check with name, ok, detail and, where it fails, what to do.

    :param monitor: the server's monitoring address
    :raises ConfigError: if no nats-server answers there
    """
    facts = server_facts(monitor) if monitor is not None else None
    checks: list[dict[str, Any]] = []
    try:
        checks.append(check("server", True, f"nats-server {server_version()} at {find_server()}"))
    except MeshfoldError as error:
        checks.append(check("server", False, error.what, error.fix))
    free = shutil.disk_usage(tempfile.gettempdir()).free
    checks.append(
        check(
            "disk", free >= DISK_BYTES_MIN, f"{free // 2**20} MiB free for temporary state", "free some space"
        )
    )

    checks.append(exporter_check(os.environ))

    checks.append(_port_check())
    if facts is not None:
        checks.append(monitor_check(facts))
    try:
        found = call.run(look)
    except MeshfoldError as error:
        checks.append(check("mesh", False, error.what, error.fix))
        return checks
    checks += [*member_checks(found), voters_check(found)]
    checks += [server_check(found), fence_check(found), login_check(found)]
    checks += [clock_check(found), plaintext_check(found)]
    issuer = issuer_check(found.authority_dir, time.time_ns() // 1_000_000)
    if issuer is not None:
        checks.append(issuer)
    answers = found.answers
    checks.append(spans_check({doc["name"]: doc["spans"] for doc in answers["answers"].values()}))
    return checks


def _port_check() -> dict[str, Any]:
    """Whether this machine gives out ports on loopback, as the server of `up` and health pages need."""
    try:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
    except OSError as error:
        return check("ports", False, f"no port on 127.0.0.1: {error}", "bring the loopback interface up")
    return check("ports", True, "127.0.0.1 gives out ports")


def exporter_check(environ: Mapping[str, str]) -> dict[str, Any]:
    """Where the variables of this terminal send traces, and whether somebody listens there."""
    name = "exporter"
    try:
        endpoint = TelemetrySettings.from_environ(environ).endpoint
        if endpoint is None:
            return check(name, True, "off: OTEL_EXPORTER_OTLP_ENDPOINT names no receiver of traces")
        require_exporter()
    except MeshfoldError as error:
        return check(name, False, error.what, error.fix)
    parts = urlsplit(endpoint)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname or "", port), EXPORTER_S).close()
    except OSError as error:
        return check(name, False, f"nobody answers at {endpoint}: {error}", "start the receiver of traces")
    return check(name, True, f"OTLP to {endpoint}")


def spans_check(counters: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """Whether the nodes lose spans."""
    losing = {node: count for node, count in sorted(counters.items()) if count["failed"] or count["dropped"]}
    lost = [f"{node}: {', '.join(_lost(count))}" for node, count in losing.items()]
    exported = sum(count["exported"] for count in counters.values())
    fix = "sample less with OTEL_TRACES_SAMPLER"
    # A node that never sent any may have no receiver: it recorded more than it took in time.
    if any(count["failed"] or count["exported"] for count in losing.values()):
        fix = f"check the receiver of traces, or {fix}"
    return check("spans", not lost, "; ".join(lost) or f"{exported} exported, none lost", fix)


def _lost(count: Mapping[str, int]) -> Iterator[str]:
    if count["failed"]:
        yield f"{count['failed']} not taken by the receiver"
    if count["dropped"]:
        yield f"{count['dropped']} dropped"

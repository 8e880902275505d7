"""What a nats-server's monitoring page tells of it that a client cannot see: open protocols and feature flags."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from meshfold.core.errors import ConfigError
from meshfold.mesh.cli.mesh_checks import check

__all__ = ("monitor_check", "server_facts")

ANSWER_S: Final = 2.0
#: A page of /varz is a few kilobytes.
PAGE_BYTES_MAX: Final = 1024 * 1024


def server_facts(url: str) -> dict[str, Any]:
    """Ask a nats-server's monitoring address for `/varz`.

    :param url: such as `http://127.0.0.1:8222`
    :raises ConfigError: if it is no http address, nobody answers, or what answers is not a nats-server
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
        raise ConfigError(
            f"{url!r} is no monitoring address", fix="use one such as http://127.0.0.1:8222", item="--monitor"
        )
    try:
        with urllib.request.urlopen(url.rstrip("/") + "/varz", timeout=ANSWER_S) as answer:
            page = answer.read(PAGE_BYTES_MAX + 1)
        found = json.loads(page) if len(page) <= PAGE_BYTES_MAX else None
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise ConfigError(
            f"no nats-server tells of itself at {url}: {error}",
            fix="start the server with -m 8222, or leave --monitor out",
            item="--monitor",
        ) from None
    if not isinstance(found, dict) or "server_id" not in found:
        raise ConfigError(
            f"what answers at {url} is no nats-server",
            fix="name its monitoring address, or leave --monitor out",
            item="--monitor",
        )
    return found


def monitor_check(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Whether the server keeps doors open that this mesh does not use, or speaks acknowledgements its client cannot read."""
    problems: list[str] = []
    for door in ("mqtt", "websocket"):
        settings = facts.get(door)
        port = settings.get("port", 0) if isinstance(settings, Mapping) else 0
        if port:
            problems.append(f"{door} is open on port {port}")
    flags = facts.get("feature_flags")
    if isinstance(flags, Mapping) and flags.get("js_ack_fc_v2"):
        problems.append("js_ack_fc_v2 is on, whose acknowledgement subjects the client library cannot read")
    return check(
        "doors",
        not problems,
        "; ".join(problems) or "no MQTT, no WebSocket, no feature flag that the client cannot follow",
        "take them out of the server's configuration, unless something else needs them",
    )

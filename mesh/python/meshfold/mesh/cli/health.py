"""`meshfold node health`: what the node of this machine says of itself, as an exit code. A container's health check."""

from __future__ import annotations

import http.client
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from meshfold.core.errors import ConfigError
from meshfold.core.registry import ExitCode
from meshfold.mesh.cli.options import AsJson
from meshfold.mesh.cli.support import emit

__all__ = ("ask_health", "health")

#: Shorter than the time-out of any prober, so that the answer is ours and not a kill.
ASK_S: Final = 4.0
DETAIL_BYTES_MAX: Final = 64 * 1024
#: An address that means all of them, and the one to ask there.
_ANY: Final = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}


def ask_health(listen: str, path: str) -> dict[str, Any]:
    """Ask the health endpoint at `listen` (host:port): `healthy`, `status` (0: no answer) and `detail`."""
    host, _, port = listen.rpartition(":")
    connection = http.client.HTTPConnection(_ANY.get(host, host.strip("[]")), int(port), timeout=ASK_S)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        detail = answer.read(DETAIL_BYTES_MAX).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException) as error:
        return {"healthy": False, "status": 0, "detail": f"no answer from {listen}: {error}"}
    finally:
        connection.close()
    return {"healthy": answer.status == http.client.OK, "status": answer.status, "detail": detail}


def health(
    listen: Annotated[
        str | None, typer.Option("--health-listen", help="the node's address of health, as host:port")
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="only whether its loop runs, not whether it is ready")
    ] = False,
    config: Annotated[Path | None, typer.Option("--config", help="a meshfold.toml")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask the node of this machine whether it is ready; exit code 1 if it is not.

    Example: meshfold node health --health-listen 127.0.0.1:8080
    """
    from meshfold.mesh.config import load_settings

    chosen = load_settings(config, options={"health_listen": listen}).health_listen
    if chosen is None:
        raise ConfigError(
            "no address to ask",
            fix="name it with --health-listen, MESHFOLD_HEALTH_LISTEN or health_listen in meshfold.toml",
            item="--health-listen",
        )
    found = ask_health(chosen, "/livez" if live else "/readyz?verbose")
    emit(
        found,
        as_json=as_json,
        lines=lambda one: ["healthy" if one["healthy"] else "not healthy", one["detail"]],
    )
    raise typer.Exit(ExitCode.HOLDS if found["healthy"] else ExitCode.DOES_NOT_HOLD)

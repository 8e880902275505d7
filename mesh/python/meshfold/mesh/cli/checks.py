"""What `doctor` checks."""

from __future__ import annotations

import shutil
import tempfile
from typing import Any

from meshfold.core.errors import MeshfoldError
from meshfold.mesh.broker import find_server, server_version
from meshfold.mesh.cli.options import Call

__all__ = ("run_checks",)

DISK_BYTES_MIN = 256 * 1024 * 1024


def _check(name: str, ok: bool, detail: str, fix: str = "") -> dict[str, Any]:
    return {"name": name, "ok": ok, "detail": detail, "fix": "" if ok else fix}


def run_checks(call: Call) -> list[dict[str, Any]]:
    """Every check with name, ok, detail and, where it fails, what to do."""
    checks: list[dict[str, Any]] = []
    try:
        checks.append(_check("server", True, f"nats-server {server_version()} at {find_server()}"))
    except MeshfoldError as error:
        checks.append(_check("server", False, error.what, error.fix))
    free = shutil.disk_usage(tempfile.gettempdir()).free
    checks.append(
        _check(
            "disk", free >= DISK_BYTES_MIN, f"{free // 2**20} MiB free for temporary state", "free some space"
        )
    )

    async def work(node: Any) -> dict[str, Any]:
        return dict(await node.query("status"))

    try:
        answers = call.run(work)
    except MeshfoldError as error:
        checks.append(_check("mesh", False, error.what, error.fix))
        return checks
    checks.append(
        _check(
            "mesh",
            not answers["silent"],
            f"{len(answers['answers'])} nodes answer",
            "; ".join(answers["silent"]),
        )
    )
    problems = [problem for doc in answers["answers"].values() for problem in doc["problems"]]
    checks.append(
        _check("members", not problems, "; ".join(problems) or "all alive", "restart what is silent")
    )
    return checks

"""`meshfold audit log`: who asked for what, and whether the log holds."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer
from meshfold.core.errors import ConfigError, MeshfoldError
from meshfold.mesh.cli.options import Call, on_mesh

__all__ = ("log",)

COUNT_MAX = 2000


def _checked(document: dict[str, Any]) -> dict[str, Any]:
    """One node's answer, verified here: the node's own word that its log holds is not enough."""
    from meshfold.security import read_audit

    lines = [line.encode() for line in document["lines"]]
    report = read_audit(lines, bytes.fromhex(document["node_pub"]), first=document["first"])
    return {
        "node": document["node"],
        "holds": not report.broken and document["holds"],
        "broken": report.broken or document["broken"],
        "signed_to": report.signed_to,
        "entries": report.entries,
    }


def _from_file(path: Path) -> dict[str, Any]:
    """A log on disk, with the identity beside it."""
    from meshfold.security import Identity

    try:
        lines = [line.decode() for line in path.read_bytes().split(b"\n") if line]
        identity = Identity.parse((path.parent / "identity").read_bytes())
    except (OSError, UnicodeDecodeError, MeshfoldError) as error:
        raise ConfigError(
            f"cannot read {path}: {error}", fix="name an audit.log in the folder of its node", item=str(path)
        ) from None
    first = path.name == "audit.log" and not path.with_name("audit.log.1").exists()
    document = {"lines": lines, "first": first, "holds": True, "broken": ""}
    return _checked(document | {"node": identity.name, "node_pub": identity.node_pub.hex()})


@on_mesh
def log(
    call: Call,
    node: Annotated[
        str | None, typer.Option("--node", help="one node; default: everyone that is here")
    ] = None,
    count: Annotated[int, typer.Option("--count", help="lines of each node", min=1, max=COUNT_MAX)] = 200,
    refused: Annotated[bool, typer.Option("--refused", help="only what was refused")] = False,
    file: Annotated[
        Path | None, typer.Option("--file", help="a log on disk instead of a running mesh")
    ] = None,
) -> None:
    """Show who did or was refused what, and verify the log's chain and signatures; exit code 1 if one does not hold.

    Example: meshfold audit log --refused
    """

    async def work(asking: Any) -> list[dict[str, Any]]:
        if node is not None:
            return [await asking.query("audit", node=node, count=count)]
        found = await asking.query("audit", count=count)
        return list(found["answers"].values())

    logs = [_from_file(file)] if file is not None else [_checked(one) for one in call.run(work)]
    for one in logs:
        one["entries"] = [entry for entry in one["entries"] if not (refused and entry["allowed"])]
    call.emit({"logs": logs, "holds": all(one["holds"] for one in logs)}, _lines)
    raise typer.Exit(0 if all(one["holds"] for one in logs) else 1)


def _lines(document: dict[str, Any]) -> list[str]:
    rows = [(entry["at_ms"], one["node"], entry) for one in document["logs"] for entry in one["entries"]]
    out = []
    for at_ms, name, entry in sorted(rows, key=lambda row: (row[0], row[1], row[2]["seq"])):
        when = time.strftime("%H:%M:%S", time.localtime(at_ms / 1000))
        said = "allowed" if entry["allowed"] else "REFUSED"
        times = f" x{entry['count']}" if entry["count"] > 1 else ""
        what = f"{entry['who'] or '-'} {entry['action']} {entry['route']}".rstrip()
        out.append(
            f"{when} {name:<10} {said} {what}{times}" + (f": {entry['because']}" if entry["because"] else "")
        )
    for one in document["logs"]:
        state = (
            f"holds, signed to entry {one['signed_to']}"
            if one["holds"]
            else f"DOES NOT HOLD: {one['broken']}"
        )
        out.append(f"{one['node']}: {state}")
    return out

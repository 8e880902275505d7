"""`meshfold query`: any question of the query plane by its name, to one node or to all (S34)."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
import typer
from meshfold.core.errors import WiringError
from meshfold.core.query import COMMANDS, command_of
from meshfold.core.registry import ExitCode
from meshfold.mesh.cli.options import Call, on_mesh

__all__ = ("arguments", "query", "rows_text")

#: A longer wait than this is no question any more.
TIMEOUT_S = 30.0


def arguments(pairs: Iterable[str]) -> dict[str, Any]:
    """`key=value` words as the fields of a command: whole numbers are numbers, all else is text.

    :raises WiringError: for a word without `=`, or a key twice
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key or key in found:
            what = "stands there twice" if key in found else "is no key=value"
            raise WiringError(
                f"{pair[:60]!r} {what}", fix="write fields as route=OWNER/FAMILY/STREAM", item=pair
            )
        found[key] = int(text) if text.removeprefix("-").isdecimal() else text
    return found


@on_mesh
def query(
    call: Call,
    command: Annotated[str, typer.Argument(metavar="CMD", help=f"one of {', '.join(COMMANDS)}")],
    fields: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="what it asks for, such as route=edge/host/cpu"),
    ] = None,
    node: Annotated[str | None, typer.Option("--node", help="ask this node; default: all")] = None,
    limit: Annotated[int, typer.Option("--limit", help="rows of one page", min=1, max=1000)] = 100,
    after: Annotated[str, typer.Option("--after", help="`next` of the page before, of one node")] = "",
) -> None:
    """Ask any query of the query plane by its name; exit code 1 if no node answered.

    Example: meshfold query describe route=edge/host/cpu --node edge
    """
    asked = arguments(fields or [])
    # What no node could answer is told before anybody is asked.
    checked = command_of(command, asked)
    if after and node is None:
        raise WiringError("a page of all nodes goes on at no place", fix="name one with --node", item="after")
    paging = {"limit": limit, "after": after} if command not in ("catalog", "latest", "trace") else {}

    async def work(member: Any) -> dict[str, Any]:
        name = msgspec.to_builtins(checked)["command"]
        return dict(await member.query(name, node=node, timeout=TIMEOUT_S, **asked, **paging))

    document = call.run(work)
    call.emit(document, lambda found: rows_text(found, node))
    answered = document if node is not None else document.get("answers")
    raise typer.Exit(ExitCode.HOLDS if answered else ExitCode.DOES_NOT_HOLD)


def rows_text(document: dict[str, Any], node: str | None) -> list[str]:
    """One line a row, under the name of the node that gave it."""
    answers = {node: document} if node is not None else document.get("answers", {})
    lines: list[str] = []
    for name, answer in answers.items():
        lines.append(f"{name}:")
        rows = answer.get("rows")
        lines += [f"  {_row(row)}" for row in rows] if rows is not None else [f"  {_plain(answer)}"]
        if answer.get("error"):
            lines.append(f"  {answer['error']}: {answer.get('message', '')}")
        if answer.get("next"):
            lines.append(f"  more: --node {name} --after {json.dumps(answer['next'])}")
    lines += [f"{name}: no answer" for name in document.get("silent", [])] if node is None else []
    return lines


def _row(row: dict[str, Any]) -> str:
    kind = str(row.get("row", "")).removesuffix("Row").lower()
    said = " ".join(
        f"{key}={_plain(value)}" for key, value in row.items() if key != "row" and value is not None
    )
    return f"{kind:<10} {said}"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)

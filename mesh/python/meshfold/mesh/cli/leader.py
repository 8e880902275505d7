"""`meshfold leader`: who leads a group, and making it step down."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from meshfold.core.registry import ExitCode
from meshfold.mesh.cli.options import Call, on_mesh

__all__ = ("leader",)

ASK_S = 5.0


@on_mesh
def leader(
    call: Call,
    group: Annotated[str, typer.Argument(help="`control`, or the name of an election")],
    step_down: Annotated[
        bool, typer.Option("--step-down", help="make the leader give way to another")
    ] = False,
) -> None:
    """Who leads a group, with term and token; exit code 1 if nobody does.

    Example: meshfold leader pressure --step-down
    """
    command = "group_step_down" if step_down else "group_leader"

    async def work(node: Any) -> dict[str, Any]:
        found: dict[str, Any] = await node.session.ask_voters.decided(command, {"group": group}, ASK_S)
        return found

    def lines(found: dict[str, Any]) -> list[str]:
        if found["leader"] is None:
            return [f"nobody leads {group}"]
        said = f"{found['leader']} leads {group} in term {found['term']}, token {found['token']}"
        return [f"{said}: told to step down" if step_down else said]

    document = call.run(work)
    call.emit(document, lines)
    raise typer.Exit(ExitCode.HOLDS if document["leader"] is not None else ExitCode.DOES_NOT_HOLD)

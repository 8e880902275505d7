"""`meshfold node ls`, `retire`, `rm`, `decide`: the members of a mesh."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer
from meshfold.mesh.cli.options import Call, on_mesh

__all__ = ("decide", "ls", "register", "retire", "rm")

ASK_S = 10.0
Which = Annotated[str, typer.Argument(help="a member's name, or its id or the beginning of it")]


def _ask(command: str, **args: Any) -> Any:
    """Work that asks the voter."""

    async def work(node: Any) -> dict[str, Any]:
        found: dict[str, Any] = await node.session.ask_voters.decided(command, args, ASK_S)
        return found

    return work


def _state(row: dict[str, Any]) -> str:
    if row["retired"]:
        return "retired"
    return "here" if row["alive"] else "away"


@on_mesh
def ls(call: Call) -> None:
    """List everyone who ever became a member, and whether they are here.

    Example: meshfold node ls
    """

    def lines(found: dict[str, Any]) -> list[str]:
        return [
            f"{row['name']:<16} {row['id']}  {_state(row):<8}{' voter' if row['voter'] else ''}"
            f" identity until {time.strftime('%Y-%m-%d', time.gmtime(row['not_after_ms'] / 1000))}"
            for row in found["nodes"]
        ]

    call.emit(call.run(_ask("members")), lines)


@on_mesh
def retire(call: Call, node: Which) -> None:
    """End a membership: its grants and its key are revoked, the keys it had are replaced. There is no way back.

    Example: meshfold node retire edge-1
    """
    call.emit(
        call.run(_ask("member_retire", node=node)),
        lambda found: [f"{found['name']} {found['id']} is retired; policy epoch {found['policy_epoch']}"],
    )


@on_mesh
def rm(call: Call, node: Which) -> None:
    """Forget a retired member; its key stays revoked.

    Example: meshfold node rm edge-1
    """
    call.emit(
        call.run(_ask("member_rm", node=node)), lambda found: [f"{found['name']} {found['id']} is forgotten"]
    )


@on_mesh
def decide(
    call: Call,
    node: Annotated[str, typer.Argument(help="name of the member of which two copies were seen")],
    incarnation: Annotated[
        str, typer.Argument(help="the life that goes on: 16 hex digits, of `meshfold status`")
    ],
) -> None:
    """Say which of two copies of a node goes on; the other is refused for good.

    Example: meshfold node decide edge-1 278cfb45d059129b
    """
    call.emit(
        call.run(_ask("node_decide", node=node, incarnation=incarnation)),
        lambda found: [f"decided; policy epoch {found['policy_epoch']}"],
    )


def register(app: typer.Typer) -> None:
    """Add the commands to `meshfold node`."""
    for command in (ls, retire, rm, decide):
        app.command(command.__name__)(command)

"""`meshfold key ...`: the epochs of the keys."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer
from meshfold.core import Address
from meshfold.mesh.cli.grants import voter_of
from meshfold.mesh.cli.options import Call, on_mesh
from meshfold.mesh.cli.support import say

__all__ = ("app",)

app = typer.Typer(no_args_is_help=True, help="Key epochs.")
Target = Annotated[str, typer.Argument(help="a route, or a prefix of its full address ending in >")]
#: Shredding waits for every grantee that is here.
SHRED_S = 60.0


def _text(target: str) -> str:
    return target if target.endswith(">") else Address.parse(target).text


@app.command("ls")
@on_mesh
def ls(call: Call) -> None:
    """List the nodes of the key tree whose epoch was ever raised; the others stand at 0.

    Example: meshfold key ls
    """

    async def work(node: Any) -> dict[str, Any]:
        return dict(await node.query("key_ls", node=await voter_of(node)))

    def lines(found: dict[str, Any]) -> list[str]:
        out = [f"policy epoch {found['policy_epoch']}, suite {found['suite']}"]
        for row in found["epochs"]:
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row["since_ms"] / 1000))
            more = " shredded" if row["shredded"] else " shreddable" if row["shreddable"] else ""
            out.append(f"{row['node']:<44} epoch {row['epoch']:<6} since {since}{more}")
        return out

    call.emit(call.run(work), lines)


@app.command()
@on_mesh
def rotate(call: Call, route: Target) -> None:
    """Begin a new epoch for a route, or for everything below a prefix. Nothing is lost; old keys open nothing new.

    Example: meshfold key rotate edge/host/cpu
    """
    text = _text(route)

    async def work(node: Any) -> dict[str, Any]:
        return dict(await node.query("key_rotate", node=await voter_of(node), route=text))

    call.emit(
        call.run(work),
        lambda found: [f"{found['node']}: epoch {found['epoch']}, {found['packets']} key packets sent"],
    )


@app.command()
@on_mesh
def shred(
    call: Call,
    route: Annotated[str, typer.Argument(help="a route declared with shreddable=True")],
    epoch: Annotated[int, typer.Argument(help="the epoch to erase, see `key ls`", min=0, max=65_535)],
) -> None:
    """Erase an epoch of a shreddable route at voters and grantees, and say who has not confirmed; exit code 1 then.

    Copies of disks that were taken before are not reached by it.

    Example: meshfold key shred edge/vault/secret 1
    """
    address = Address.parse(route)

    async def work(node: Any) -> dict[str, Any]:
        voter = await voter_of(node)
        return dict(
            await node.query("key_shred", node=voter, timeout=SHRED_S, route=address.text, epoch=epoch)
        )

    def lines(found: dict[str, Any]) -> list[str]:
        out = [
            f"{found['route']} epoch {found['epoch']} is shredded at {', '.join(found['confirmed']) or 'nobody'}"
        ]
        return out + [
            f"not confirmed: {name}; it erases the epoch when it is here again"
            for name in found["unconfirmed"]
        ]

    document = call.run(work)
    call.emit(document, lines)
    if document["unconfirmed"]:
        say("meshfold: not every grantee has confirmed")
        raise typer.Exit(1)

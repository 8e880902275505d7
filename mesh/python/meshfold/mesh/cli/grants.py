"""`meshfold grant ...`: who may do what."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from meshfold.core import Action, Address
from meshfold.core.errors import ConfigError
from meshfold.mesh.cli.options import Call, on_mesh
from meshfold.mesh.cli.support import parse_duration

__all__ = ("app",)

app = typer.Typer(no_args_is_help=True, help="Capability grants.")
RouteText = Annotated[str, typer.Argument(help="owner/family/stream, or all six tokens")]
NodeName = Annotated[str, typer.Argument(help="name of a member")]
Chosen_Actions = Annotated[list[str], typer.Option("--action", help="META_READ, PAYLOAD_OPEN, OWN, ...")]


async def _voter(node: Any) -> str:
    answers = (await node.query("status"))["answers"]
    for name, document in answers.items():
        if document["groups"]:
            return str(name)
    raise ConfigError("no voter answers", fix="`meshfold status` shows who is here", item="voter")


@app.command("ls")
@on_mesh
def ls(call: Call) -> None:
    """List grants.

    Example: meshfold grant ls
    """

    async def work(node: Any) -> dict[str, Any]:
        return dict(await node.query("grants", node=await _voter(node)))

    def lines(found: dict[str, Any]) -> list[str]:
        out = []
        for grant in found["grants"]:
            caps = grant["capabilities"]
            more = f" and {len(caps) - 1} more" if len(caps) > 1 else ""
            state = " REVOKED" if grant["revoked"] else ""
            out.append(
                f"{grant['id'][:16]} {grant['subject']:<12} {caps[0]['actions']} on {caps[0]['pattern']}{more}{state}"
            )
        return out

    call.emit(call.run(work), lines)


def _action(names: list[str]) -> Action:
    wanted = Action(0)
    for name in names:
        if name not in Action.__members__:
            raise ConfigError(
                f"unknown action {name!r}", fix=f"one of {', '.join(Action.__members__)}", item=name
            )
        wanted |= Action[name]
    return wanted


@app.command()
@on_mesh
def issue(
    call: Call,
    node_name: NodeName,
    pattern: Annotated[str, typer.Argument(help="a route, or a prefix of its full address ending in >")],
    action: Chosen_Actions,
    for_: Annotated[str, typer.Option("--for", help="how long it holds")] = "1d",
) -> None:
    """Sign a grant and note it in the control log; its holder has it at once if it runs, else from its next start.

    Example: meshfold grant issue outsider edge/host/cpu --action META_READ --action PAYLOAD_OPEN
    """
    from meshfold.mesh.context import Context
    from meshfold.mesh.enrolment import AuthorityFolder, identity_of
    from meshfold.security import Capability

    actions = _action(action)
    seconds = parse_duration(for_, "--for")
    text = pattern if pattern.endswith(">") else Address.parse(pattern).text
    chosen = Context.load(call.context)
    if chosen.authority_dir is None:
        raise ConfigError(
            "grants are issued where the mesh's issuer is", fix="run it on that machine", item="issuer"
        )
    issuer = AuthorityFolder.open(chosen.authority_dir).issuer

    async def work(node: Any) -> dict[str, Any]:
        now_ms = node.session.hlc.now_ms()
        voter = await _voter(node)
        member = await node.query("member", node=voter, name=node_name)
        grant = issuer.issue_grant(
            bytes.fromhex(member["node_pub"]) or identity_of(chosen, node_name).node_pub,
            (Capability(actions, text),),
            not_before_ms=now_ms,
            not_after_ms=now_ms + int(seconds * 1000),
            policy_epoch=node.session.policy_epoch,
        )
        return dict(await node.query("grant_issue", node=voter, grant=grant.raw.hex()))

    call.emit(call.run(work), lambda found: [f"grant {found['id']}"])


@app.command()
@on_mesh
def revoke(
    call: Call, grant_id: Annotated[str, typer.Argument(help="its id, or the beginning of it")]
) -> None:
    """Revoke a grant: the policy epoch rises and every node that is here refuses it.

    Example: meshfold grant revoke $(meshfold grant ls --json | python -c "import json,sys; print(json.load(sys.stdin)['grants'][0]['id'])")
    """

    async def work(node: Any) -> dict[str, Any]:
        voter = await _voter(node)
        known = (await node.query("grants", node=voter))["grants"]
        found = [grant["id"] for grant in known if grant["id"].startswith(grant_id)]
        if len(found) != 1:
            raise ConfigError(
                f"{grant_id!r} names {len(found)} grants", fix="`meshfold grant ls` lists them", item=grant_id
            )
        return dict(await node.query("grant_revoke", node=voter, id=found[0]))

    call.emit(call.run(work), lambda found: [f"revoked; policy epoch {found['policy_epoch']}"])


@app.command()
@on_mesh
def explain(
    call: Call,
    node_name: NodeName,
    route: RouteText,
    action: Annotated[str, typer.Option("--action", help="one action")] = "META_READ",
) -> None:
    """Say whether a member may do something, and which grant or lack of one decides; exit code 1 for denied.

    Example: meshfold grant explain edge hub/host/pressure --action PAYLOAD_OPEN
    """
    Address.parse(route)
    _action([action])

    async def work(node: Any) -> dict[str, Any]:
        return dict(
            await node.query("explain", node=await _voter(node), route=route, action=action, who=node_name)
        )

    document = call.run(work)
    call.emit(document, lambda found: [f"{found['decision']}: {found['because']}"])
    raise typer.Exit(0 if document["decision"] == "allowed" else 1)

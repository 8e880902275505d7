"""`meshfold grant ...`: who may do what."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from meshfold.core import Action, Address
from meshfold.core.errors import ConfigError, NoQuorum
from meshfold.mesh.cli.groups import groups_of
from meshfold.mesh.cli.options import Call, on_mesh
from meshfold.mesh.cli.support import parse_duration
from meshfold.mesh.subjects import GROUP

if TYPE_CHECKING:
    from meshfold.security import Caveat

__all__ = ("app", "voter_of")

app = typer.Typer(no_args_is_help=True, help="Capability grants.")
RouteText = Annotated[str, typer.Argument(help="owner/family/stream, or all six tokens")]
NodeName = Annotated[str, typer.Argument(help="name of a member")]
Chosen_Actions = Annotated[list[str], typer.Option("--action", help="META_READ, PAYLOAD_OPEN, OWN, ...")]


async def voter_of(node: Any) -> str:
    """Name of the voter that leads.

    :raises ConfigError: if no voter is here
    :raises NoQuorum: if no majority of several voters is
    """
    answers = (await node.query("status"))["answers"]
    groups, wrong = groups_of(answers)
    control = next(group for group in groups if group["group"] == GROUP)
    if control["leader"] is not None:
        return str(control["leader"])
    if not control.get("voters"):
        raise ConfigError("no voter answers", fix="`meshfold status` shows who is here", item="voter")
    raise NoQuorum(
        "; ".join(wrong),
        fix="start the voters that are away, or try again when they have a leader",
        group=GROUP,
    )


@app.command("ls")
@on_mesh
def ls(call: Call) -> None:
    """List grants.

    Example: meshfold grant ls
    """

    async def work(node: Any) -> dict[str, Any]:
        return dict(await node.query("grants", node=await voter_of(node)))

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
    fresh: Annotated[
        bool,
        typer.Option("--fresh", help="begin a new key epoch first, so that it opens nothing of the past"),
    ] = False,
    delegate: Annotated[
        int, typer.Option("--delegate", help="links its holder and those below may add", min=0, max=1)
    ] = 0,
    caveat: Annotated[
        list[str] | None, typer.Option("--caveat", help="events/s=N, bytes/s=N, open-bytes=N, epochs=A..B")
    ] = None,
) -> None:
    """Sign a grant and note it in the control log; its holder has it at once if it runs, else from its next start.

    Example: meshfold grant issue outsider edge/host/cpu --action META_READ --action PAYLOAD_OPEN
    """
    from meshfold.mesh.cli.issuing import issuing_context
    from meshfold.mesh.enrolment import AuthorityFolder, identity_of
    from meshfold.security import Capability

    actions = _action(action) | (Action.DELEGATE if delegate else Action(0))
    caveats = parse_caveats(caveat or [])
    seconds = parse_duration(for_, "--for")
    text = pattern if pattern.endswith(">") else Address.parse(pattern).text
    chosen = issuing_context(call.context)
    assert chosen.authority_dir is not None
    issuer = AuthorityFolder.open(chosen.authority_dir).issuer
    call = replace(call, context=str(chosen.path))

    async def work(node: Any) -> dict[str, Any]:
        now_ms = node.session.hlc.now_ms()
        voter = await voter_of(node)
        member = await node.query("member", node=voter, name=node_name)
        grant = issuer.issue_grant(
            bytes.fromhex(member["node_pub"]) or identity_of(chosen, node_name).node_pub,
            (Capability(actions, text, caveats),),
            not_before_ms=now_ms,
            not_after_ms=now_ms + int(seconds * 1000),
            policy_epoch=node.session.policy_epoch,
            depth_left=delegate,
        )
        return dict(await node.query("grant_issue", node=voter, grant=grant.raw.hex(), fresh=fresh))

    def lines(found: dict[str, Any]) -> list[str]:
        return [
            f"grant {found['id']}",
            *(f"it opens {one['pattern']} {since(one['since_ms'])}" for one in found["opens"]),
        ]

    call.emit(call.run(work), lines)


def since(at_ms: int) -> str:
    """From when on a grant's keys open what was sealed."""
    if not at_ms:
        return "from the beginning: its keys were never rotated (--fresh rotates them first)"
    return "as sealed since " + time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at_ms / 1000))


def parse_caveats(texts: list[str]) -> tuple[Caveat, ...]:
    """Caveats as `kind=number`, in their order.

    :raises ConfigError: for an unknown kind, or what is no number
    """
    from meshfold.core.errors import FrameRejected
    from meshfold.security import Caveat, CaveatKind
    from meshfold.security.caveat import encode_caveats

    kinds = {
        "events/s": CaveatKind.EVENTS_PER_S,
        "bytes/s": CaveatKind.BYTES_PER_S,
        "epochs": CaveatKind.EPOCHS,
        "open-bytes": CaveatKind.OPEN_BYTES,
    }
    found = []
    for text in texts:
        name, _, value = text.partition("=")
        try:
            kind = kinds[name]
            values = tuple(int(one) for one in (value.split("..") if kind is CaveatKind.EPOCHS else [value]))
            found.append(Caveat(kind, values))
            encode_caveats((found[-1],))
        except (KeyError, ValueError, FrameRejected):
            raise ConfigError(
                f"{text!r} is no caveat",
                fix="events/s=N, bytes/s=N, open-bytes=N or epochs=A..B",
                item="--caveat",
            ) from None
    ordered = tuple(sorted(found, key=lambda one: one.kind))
    if len({one.kind for one in ordered}) != len(ordered):
        raise ConfigError("a kind of caveat stands twice", item="--caveat")
    return ordered


@app.command()
@on_mesh
def attenuate(
    call: Call,
    grant_id: Annotated[str, typer.Argument(help="a grant that you hold, or the beginning of its id")],
    public_key: Annotated[
        str, typer.Argument(help="whom to pass it on to: node's public key in hex, see `status --json`")
    ],
    pattern: Annotated[str, typer.Argument(help="a route, or a prefix of its full address ending in >")],
    action: Chosen_Actions,
    for_: Annotated[str, typer.Option("--for", help="how long it holds, at most as long as yours")] = "1d",
    caveat: Annotated[
        list[str] | None, typer.Option("--caveat", help="events/s=N, bytes/s=N, open-bytes=N, epochs=A..B")
    ] = None,
    folder: Annotated[Path | None, typer.Option("--dir", help="folder of the node that holds it")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="write the grant here; default: print it in hex")
    ] = None,
) -> None:
    """Pass on less than a grant of this node allows, signed by its own key: no voter, issuer or network is asked.

    Whoever receives it puts the file into its node's folder as NAME.grant.

    Example: meshfold grant attenuate 3f2a edc0... edge/host/cpu --action META_READ --for 1h --dir ./node
    """
    from meshfold.mesh.enrolment import attenuate_from

    text = pattern if pattern.endswith(">") else Address.parse(pattern).text
    made = attenuate_from(
        folder or Path(),
        grant_id,
        public_key,
        text,
        _action(action),
        parse_caveats(caveat or []),
        parse_duration(for_, "--for"),
    )
    if out is not None:
        out.write_bytes(made.raw)
    document = {"id": made.hash.hex(), "links": len(made.links), "grant": made.raw.hex()}
    call.emit(
        document,
        lambda found: [f"grant {found['id']} of {found['links']} links", *([] if out else [found["grant"]])],
    )


@app.command()
@on_mesh
def show(call: Call, grant_id: Annotated[str, typer.Argument(help="its id, or the beginning of it")]) -> None:
    """Show a grant link by link.

    Example: meshfold grant show 3f2a
    """

    async def work(node: Any) -> dict[str, Any]:
        return dict(await node.query("grant_show", node=await voter_of(node), id=grant_id))

    def lines(found: dict[str, Any]) -> list[str]:
        out = [f"grant {found['id']}{' REVOKED' if found['revoked'] else ''}"]
        for number, link in enumerate(found["links"], 1):
            out.append(
                f"link {number}: {link['issuer']} to {link['subject']}, {link['depth_left']} further links allowed"
            )
            out += [
                f"  {cap['actions']} on {cap['pattern']}" + "".join(f", {one}" for one in cap["caveats"])
                for cap in link["capabilities"]
            ]
        return out

    call.emit(call.run(work), lines)


@app.command()
@on_mesh
def revoke(
    call: Call, grant_id: Annotated[str, typer.Argument(help="its id, or the beginning of it")]
) -> None:
    """Revoke a grant: the policy epoch rises and every node that is here refuses it.

    Example: meshfold grant revoke $(meshfold grant ls --json | python -c "import json,sys; print(json.load(sys.stdin)['grants'][0]['id'])")
    """

    async def work(node: Any) -> dict[str, Any]:
        voter = await voter_of(node)
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
            await node.query("explain", node=await voter_of(node), route=route, action=action, who=node_name)
        )

    document = call.run(work)
    call.emit(document, lambda found: [f"{found['decision']}: {found['because']}"])
    raise typer.Exit(0 if document["decision"] == "allowed" else 1)

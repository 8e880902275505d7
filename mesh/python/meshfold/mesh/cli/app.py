"""The commands. Heavy imports happen inside them, so that help is quick."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from meshfold.core.errors import MeshfoldError
from meshfold.core.registry import ExitCode
from meshfold.mesh.cli import grants, keys, leader, members, nodes, query, recover, routes, top, trace
from meshfold.mesh.cli.audit import log
from meshfold.mesh.cli.completion import completion, prepare
from meshfold.mesh.cli.groups import groups_of
from meshfold.mesh.cli.interrupts import nothing_begun
from meshfold.mesh.cli.options import AsJson, Call, LogFormat, LogLevel, on_mesh
from meshfold.mesh.cli.support import (
    configure_logs,
    emit,
    exit_code_of,
    parse_duration,
    put,
    say,
    standard_streams,
)

__all__ = ("app", "run")

#: What the parser raises for input it cannot use; the library exports only its children.
UsageProblem: Any = typer.BadParameter.__mro__[2]

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Sealed, granted, counted routes over NATS.",
)
audit = typer.Typer(no_args_is_help=True, help="Check the accounting, and who did what.")
audit.command()(log)
app.add_typer(routes.app, name="route")
app.add_typer(grants.app, name="grant")
app.add_typer(keys.app, name="key")
app.add_typer(audit, name="audit")
app.add_typer(members.app)
app.add_typer(members.node_app, name="node")
app.command()(completion)
nodes.register(members.node_app)
app.command()(leader.leader)
app.command()(recover.recover)
app.command()(top.top)
app.command()(trace.trace)
app.command()(query.query)


@app.command()
def up(
    nodes: Annotated[
        int, typer.Option(help="mesh members: edge, hub and further readers", min=2, max=16)
    ] = 2,
    voters: Annotated[
        int | None,
        typer.Option(
            help="members that keep the control log: 1, 3, 5 or 7; default 3 where there are so many, else 1"
        ),
    ] = None,
    for_: Annotated[str | None, typer.Option("--for", help="stop after this time, such as 15s")] = None,
    as_json: AsJson = False,
    folder: Annotated[Path | None, typer.Option("--dir", help="keep the state here for the next run")] = None,
    log_level: LogLevel = None,
    log_format: LogFormat = None,
    otlp: Annotated[
        str | None, typer.Option("--otlp", help="post traces to this receiver, such as http://127.0.0.1:4318")
    ] = None,
    health_listen: Annotated[
        str | None,
        typer.Option("--health-listen", help="address of health and metrics, such as 127.0.0.1:8080"),
    ] = None,
) -> None:
    """Run a whole sealed mesh on this machine.

    Example: meshfold up --for 15s --json
    """
    with nothing_begun():
        import asyncio

        from meshfold.mesh.up import Supervisor, render

    configure_logs(log_level, log_format)
    for_s = None if for_ is None else parse_duration(for_, "--for")
    live: Any = None
    if not as_json and sys.stdout.isatty():
        from rich.live import Live

        live = Live(auto_refresh=False)

    def show(document: dict[str, Any]) -> None:
        live.update(render(document), refresh=True)

    async def run() -> tuple[int, dict[str, Any]]:
        supervisor = Supervisor(
            nodes=nodes,
            voters=voters,
            for_s=for_s,
            folder=folder,
            say=say,
            show=show if live else None,
            otlp=otlp,
            health_listen=health_listen,
        )
        return await supervisor.run()

    if live is not None:
        with live:
            code, document = asyncio.run(run())
    else:
        code, document = asyncio.run(run())
    emit(document, as_json=as_json, lines=_summary)
    raise typer.Exit(code)


def _summary(document: dict[str, Any]) -> list[str]:
    if "stopped" in document:
        return [f"stopped {document['stopped']}"]
    broker, leader = document["broker"], document["leader"]
    delivered = sum(row["delivered"] for row in document["routes"])
    return [
        f"{len(document['routes'])} routes, {delivered} events delivered, {document['unexplained']} unexplained",
        f"{len(document['refused'])} refusals; leader {leader['node']} in term {leader['term']}",
        f"{broker['frames_seen']} frames seen by the tap, plaintext found {broker['plaintext_found']}, control found {broker['control_found']}",
    ]


@app.command()
@on_mesh
def status(call: Call) -> None:
    """Who is here, who leads, what is wrong.

    Example: meshfold status
    """

    async def work(node: Any) -> dict[str, Any]:
        answers = (await node.query("status"))["answers"]
        groups, wrong = groups_of(answers)
        problems = {problem for doc in answers.values() for problem in doc["problems"]} | set(wrong)
        return {
            "nodes": [
                {key: doc[key] for key in ("name", "id", "incarnation", "pid", "rejected")}
                for doc in answers.values()
            ],
            "groups": groups,
            "problems": sorted(problems),
        }

    def lines(document: dict[str, Any]) -> list[str]:
        out = [f"{node['name']:<12} {node['id']}  pid {node['pid']}" for node in document["nodes"]]
        out += [
            f"{group['group']}: leader {group['leader']}, term {group['term']}"
            + (f", voters {', '.join(group['voters'])}" if len(group.get("voters", ())) > 1 else "")
            for group in document["groups"]
        ]
        return out + [f"problem: {problem}" for problem in document["problems"]]

    call.emit(call.run(work), lines)


@app.command()
@on_mesh
def why(call: Call, event: Annotated[str, typer.Argument(help="an event's id")]) -> None:
    """The causes of an event, across nodes.

    Example: meshfold why $(meshfold route latest hub/host/pressure --json | python -c "import json,sys; print(json.load(sys.stdin)['id'])")
    """
    tree = call.run(lambda node: _awaited(node.why(event)))

    def lines(found: dict[str, Any], depth: int = 0) -> list[str]:
        label = found["route"] or "an event that no node remembers"
        own = [f"{'  ' * depth}{label} on {found['node']}  {found['event']}"]
        return own + [line for cause in found["causes"] for line in lines(cause, depth + 1)]

    call.emit(tree, lines)
    raise typer.Exit(0 if tree["known"] else 1)


async def _awaited(reply: Any) -> Any:
    return await reply


@audit.command()
@on_mesh
def flow(call: Call) -> None:
    """The accounting equation of every route at every reader; exit code 1 if something is unexplained.

    Example: meshfold audit flow
    """
    document = call.run(lambda node: _awaited(node.audit_flow()))

    def lines(found: dict[str, Any]) -> list[str]:
        out = [
            f"{row['route']:<28} {row['reader']:<8} offered {row['offered']} = delivered {row['delivered']}"
            f" + dropped {_dropped(row['dropped'])} + pending {row['pending']}"
            + (f"  unknown tail up to {row['unknown_tail']}" if row["unknown_tail"] else "")
            for row in found["routes"]
        ]
        return [*out, f"{found['unexplained']} unexplained"]

    call.emit(document, lines)
    raise typer.Exit(0 if document["unexplained"] == 0 else 1)


def _dropped(reasons: dict[str, int]) -> str:
    """`0`, or the sum with its reasons."""
    said = ", ".join(f"{reason} {count}" for reason, count in reasons.items())
    return f"{sum(reasons.values())} ({said})" if said else "0"


@app.command()
@on_mesh
def doctor(
    call: Call,
    monitor: Annotated[
        str | None, typer.Option(help="the server's monitoring address, for what a client cannot see of it")
    ] = None,
) -> None:
    """Check the server, this machine's clock and disk, and the running mesh.

    Example: meshfold doctor --monitor http://127.0.0.1:8222
    """
    from meshfold.mesh.cli.checks import run_checks

    checks = run_checks(call, monitor)
    call.emit(
        {"checks": checks},
        lambda found: [
            f"{'ok  ' if row['ok'] else 'FAIL'} {row['name']}: {row['detail']}"
            + (f" - {row['fix']}" if row["fix"] else "")
            for row in found["checks"]
        ],
    )
    raise typer.Exit(0 if all(row["ok"] for row in checks) else 1)


@app.command()
def version(as_json: AsJson = False) -> None:
    """Versions of both wheels, the server and the frame format.

    Example: meshfold version --json
    """
    from importlib.metadata import version as installed

    from meshfold._native import VERSION
    from meshfold.core.errors import ConfigError
    from meshfold.mesh.broker import server_version

    try:
        server = server_version()
    except ConfigError:
        server = "none"
    document = {"meshfold": installed("meshfold"), "native": VERSION, "server": server, "protocol": "MF1"}
    emit(document, as_json=as_json, lines=lambda found: [f"{key} {value}" for key, value in found.items()])


@app.command()
def schema() -> None:
    """Print the JSON Schema of meshfold.toml.

    Example: meshfold schema
    """
    import json

    from meshfold.mesh.config import json_schema

    put(json.dumps(json_schema(), indent=2) + "\n")


@app.command()
def bench(
    what: Annotated[str, typer.Argument(help="local, seal, mesh or all")] = "all",
    quick: Annotated[bool, typer.Option(help="one short run of each")] = False,
    peers: Annotated[bool, typer.Option(help="other libraries beside it, those that are installed")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure, as ratios to a plain-Python reference of the same run.

    Example: meshfold bench local --quick
    """
    from meshfold.core.errors import ConfigError
    from meshfold.mesh.bench import (
        GROWTH_FIGURES,
        LOCAL_CASES,
        OPERATOR_CASES,
        SEAL_CASES,
        WIRE_CASES,
        run_cases,
        run_figures,
        with_peers,
    )

    everything = (*LOCAL_CASES, *OPERATOR_CASES, *SEAL_CASES, *WIRE_CASES)
    cases = {
        "local": (*LOCAL_CASES, *OPERATOR_CASES),
        "seal": SEAL_CASES,
        "mesh": WIRE_CASES,
        "all": everything,
    }.get(what)
    if cases is None:
        raise ConfigError(f"no benchmark {what!r}", fix="local, seal, mesh or all", item=what)
    beside, missing = with_peers(cases) if peers else (cases, [])
    results = run_cases(beside, quick=quick)
    if what in ("local", "all"):
        results += run_figures(GROWTH_FIGURES, quick=quick)
    document = {"results": [result.document() for result in results], "missing": missing}
    emit(
        document,
        as_json=as_json,
        lines=lambda found: [
            *(_measured(row) for row in found["results"]),
            *found["missing"],
        ],
    )


def _measured(row: dict[str, Any]) -> str:
    if row["wanted"] is not None:
        kept = "" if row["value"] <= row["wanted"] else ", and is above it"
        return f"{row['case']:<40} {row['value']:>12,.2f} {row['unit']:<11} at most {row['wanted']:g} is wanted{kept}"
    ratios = ", ".join(f"{ratio:.3f}x {name}" for name, ratio in row["ratio"].items())
    return f"{row['case']:<40} {row['value']:>12,.0f} {row['unit']:<11} {ratios}"


def run() -> None:
    """Run the command line; every expected error is one line and an exit code."""
    standard_streams()
    prepare()
    try:
        code = app(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except MeshfoldError as error:
        say(f"meshfold: {_one_line(error)}")
        sys.exit(exit_code_of(error))
    except UsageProblem as error:
        say(f"meshfold: {error.format_message()}" if sys.argv[1:] else error.format_message())
        sys.exit(ExitCode.UNUSABLE_INPUT)
    except OSError as error:
        # A disk that is full, a folder that went away: whatever no command foresaw still is one line.
        where = f" {error.filename}" if error.filename else ""
        say(f"meshfold: {error.strerror or error}{where}; nothing more was done")
        sys.exit(ExitCode.UNUSABLE_INPUT)


def _one_line(error: object) -> str:
    return " ".join(str(error).split())

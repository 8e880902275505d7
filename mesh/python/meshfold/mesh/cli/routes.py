"""`meshfold route ...`: the catalog and the data, as far as grants allow."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer
from meshfold.core import Address, Route, Schema, event_document
from meshfold.core.errors import ConfigError
from meshfold.mesh.cli.options import AsJson, Chosen
from meshfold.mesh.cli.support import emit, run_on_mesh

__all__ = ("app",)

app = typer.Typer(no_args_is_help=True, help="Routes: list, show, read, write.")


async def _catalog(node: Any) -> list[dict[str, Any]]:
    """One row a route: the owner's where it answers."""
    answers = (await node.query("catalog"))["answers"]
    rows: dict[str, dict[str, Any]] = {}
    for name, document in answers.items():
        for row in document["routes"]:
            if row["direction"] == "share" or row["address"] not in rows:
                rows[row["address"]] = {**row, "node": name}
    return [rows[address] for address in sorted(rows)]


async def _find(node: Any, text: str) -> dict[str, Any]:
    address = Address.parse(text).text
    for row in await _catalog(node):
        if row["address"] == address:
            return row
    raise ConfigError(f"no route {text} in this mesh", fix="`meshfold route ls` lists them", item=text)


async def _route(node: Any, text: str) -> Route[Any]:
    row = await _find(node, text)
    return Route(Address.parse(row["address"]), Schema.from_descriptor(row["schema"]), row["secrecy"])


@app.command("ls")
def ls(context: Chosen = None, as_json: AsJson = False) -> None:
    """List routes.

    Example: meshfold route ls
    """
    rows = run_on_mesh(context, _catalog)
    emit(
        {"routes": rows},
        as_json=as_json,
        lines=lambda found: [
            f"{r['route']:<32} {r['schema']['name']:<16} {r['node']}" for r in found["routes"]
        ],
    )


@app.command()
def show(route: str, context: Chosen = None, as_json: AsJson = False) -> None:
    """Show a route's address, schema and owner.

    Example: meshfold route show edge/host/cpu
    """
    Address.parse(route)
    row = run_on_mesh(context, lambda node: _find(node, route))
    emit(
        row,
        as_json=as_json,
        lines=lambda found: [f"{key}: {json.dumps(value)}" for key, value in found.items()],
    )


@app.command()
def latest(route: str, context: Chosen = None, as_json: AsJson = False) -> None:
    """The latest event of a route; exit code 1 if there is none.

    Example: meshfold route latest edge/host/memory --json
    """
    Address.parse(route)

    async def work(node: Any) -> Any:
        row = await _find(node, route)
        return (await node.query("latest", node=row["node"], route=route))["event"]

    event = run_on_mesh(context, work)
    emit(event, as_json=as_json, lines=lambda found: [_line(found)] if found else ["no event yet"])
    raise typer.Exit(0 if event else 1)


def _line(event: dict[str, Any]) -> str:
    return f"{event['route']} #{event['seq']} {json.dumps(event['value'])}"


@app.command()
def watch(
    route: str,
    count: Annotated[int, typer.Option(help="stop after so many events; 0: never", min=0)] = 0,
    context: Chosen = None,
    as_json: AsJson = False,
) -> None:
    """Print events as they arrive, one a line.

    Example: meshfold route watch edge/host/cpu --count 5
    """
    Address.parse(route)

    async def work(node: Any) -> None:
        r = await _route(node, route)
        stream = node.graph.stream(r)
        node.read(r)
        seen = 0
        async for event in stream:
            document = event_document(event)
            sys.stdout.write((json.dumps(document) if as_json else _line(document)) + "\n")
            sys.stdout.flush()
            seen += 1
            if seen == count:
                return

    run_on_mesh(context, work)


@app.command()
def publish(
    route: str,
    value: Annotated[str, typer.Argument(help="JSON, or - for one value a line from stdin")],
    context: Chosen = None,
    as_json: AsJson = False,
) -> None:
    """Publish values on a route that this login owns.

    Example: meshfold route publish operator/notes/line '"all well"'
    """
    address = Address.parse(route)
    texts = [line for line in sys.stdin if line.strip()] if value == "-" else [value]
    try:
        values = [json.loads(text) for text in texts]
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"the value is no JSON: {error}", fix="quote text: '\"hello\"'", item="value"
        ) from None

    async def work(node: Any) -> dict[str, Any]:
        rows = {row["address"]: row for row in await _catalog(node)}
        row = rows.get(address.text)
        schema: Schema[Any] = Schema.from_descriptor(row["schema"]) if row else Schema.of(type(values[0]))
        r: Route[Any] = Route(address, schema)
        bridge = node.share(r)
        await bridge.ready()
        ids = [node.graph.publish(r, item).id for item in values]
        await bridge.close()
        return {"route": r.text, "events": ids}

    emit(run_on_mesh(context, work), as_json=as_json, lines=lambda found: found["events"])

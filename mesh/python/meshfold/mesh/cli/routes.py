"""`meshfold route ...`: the catalog and the data, as far as grants allow."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Annotated, Any

import typer
from meshfold.core import Address, Route, Schema, event_document
from meshfold.core.errors import ConfigError, EncodeError
from meshfold.mesh.cli.options import Call, on_mesh

__all__ = ("app",)

#: What `route publish` can make a new route of; JSON has no bytes.
SCHEMAS: dict[str, type] = {"float": float, "int": int, "bool": bool, "str": str, "json": dict}
LINE_CHARS_MAX = 1024 * 1024
RouteText = Annotated[str, typer.Argument(help="owner/family/stream, or all six tokens")]
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
@on_mesh
def ls(call: Call) -> None:
    """List routes.

    Example: meshfold route ls
    """
    call.emit(
        {"routes": call.run(_catalog)},
        lambda found: [f"{r['route']:<32} {r['schema']['name']:<16} {r['node']}" for r in found["routes"]],
    )


@app.command()
@on_mesh
def show(call: Call, route: RouteText) -> None:
    """Show a route's address, schema and owner.

    Example: meshfold route show edge/host/cpu
    """
    Address.parse(route)
    call.emit(
        call.run(lambda node: _find(node, route)),
        lambda found: [f"{key}: {json.dumps(value)}" for key, value in found.items()],
    )


@app.command()
@on_mesh
def latest(call: Call, route: RouteText) -> None:
    """The latest event of a route; exit code 1 if there is none.

    Example: meshfold route latest edge/host/memory --json
    """
    Address.parse(route)

    async def work(node: Any) -> Any:
        row = await _find(node, route)
        return (await node.query("latest", node=row["node"], route=route))["event"]

    event = call.run(work)
    call.emit(event, lambda found: [_line(found)] if found else ["no event yet"])
    raise typer.Exit(0 if event else 1)


def _line(event: dict[str, Any]) -> str:
    return f"{event['route']} #{event['seq']} {json.dumps(event['value'])}"


@app.command()
@on_mesh
def watch(
    call: Call,
    route: RouteText,
    count: Annotated[int, typer.Option(help="stop after so many events; 0: never", min=0)] = 0,
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
            sys.stdout.write((json.dumps(document) if call.as_json else _line(document)) + "\n")
            sys.stdout.flush()
            seen += 1
            if seen == count:
                return

    call.run(work)


@app.command()
@on_mesh
def publish(
    call: Call,
    route: RouteText,
    value: Annotated[str, typer.Argument(help="JSON, or - for one value a line from stdin")],
    schema: Annotated[
        str | None,
        typer.Option(
            "--schema", help=f"{', '.join(SCHEMAS)}; default: the route's, or what the first value is"
        ),
    ] = None,
) -> None:
    """Publish values on a route that this login owns, or ask the owner of a request route to write them.

    Lines of stdin go out as they come; a bad one stops it, named.

    Example: meshfold route publish operator/notes/line '"all well"'
    """
    address = Address.parse(route)
    if schema is not None and schema not in SCHEMAS:
        raise ConfigError(
            f"unknown schema type {schema!r}", fix=f"one of {', '.join(SCHEMAS)}", item="--schema"
        )
    if value != "-":
        _value(value, "the value")

    async def work(node: Any) -> dict[str, Any]:
        rows: list[dict[str, str]] = []
        outlet: _Outlet | None = None
        try:
            async for where, text in _texts(value):
                item = _value(text, where)
                if outlet is None:
                    outlet = await _Outlet.open(node, await _outgoing(node, address, schema, item))
                try:
                    rows.append(await outlet.put(item))
                except EncodeError as error:
                    raise EncodeError(f"{where}: {error.what}", fix=error.fix, route=address.short) from None
                if not call.as_json:
                    sys.stdout.write(" ".join(rows[-1].values()) + "\n")
                    sys.stdout.flush()
        finally:
            if outlet is not None:
                await outlet.close()
        found: dict[str, Any] = {"route": address.short, "events": [row["event"] for row in rows]}
        return found | ({"writes": rows} if address.variant == "request" else {})

    call.emit(call.run(work, publishing=True), lambda found: [])


class _Outlet:
    """Where values go: a route that is shared, or the owner of a request route."""

    def __init__(self, node: Any, route: Route[Any], bridge: Any) -> None:
        self._node = node
        self._route = route
        self._bridge = bridge

    @classmethod
    async def open(cls, node: Any, route: Route[Any]) -> _Outlet:
        if route.addr.variant == "request":
            return cls(node, route, None)
        bridge = node.share(route)
        await bridge.ready()
        return cls(node, route, bridge)

    async def put(self, item: Any) -> dict[str, str]:
        """What became of one value: its event, and of a request its owner and state."""
        if self._bridge is not None:
            return {"event": (await self._node.graph.apublish(self._route, item)).id}
        answer = await self._node.request(self._route, item)
        return {"event": answer.write, "state": answer.state, "owner": answer.owner}

    async def close(self) -> None:
        if self._bridge is not None:
            await self._bridge.close()


async def _texts(value: str) -> AsyncIterator[tuple[str, str]]:
    """The value, or each line of stdin that is not blank, with where it stands."""
    if value != "-":
        yield "the value", value
        return
    number = 0
    while line := await asyncio.to_thread(sys.stdin.readline, LINE_CHARS_MAX):
        number += 1
        if not line.endswith("\n") and len(line) >= LINE_CHARS_MAX:
            raise ConfigError(
                f"line {number} is longer than {LINE_CHARS_MAX} characters", item=f"line {number}"
            )
        if line.strip():
            yield f"line {number}", line


def _value(text: str, where: str) -> Any:
    def constant(name: str) -> Any:
        raise ValueError(f"{name} is no JSON number")

    try:
        return json.loads(text, parse_constant=constant)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{where} is no JSON: {error}", fix="quote text: '\"hello\"'", item=where) from None


async def _outgoing(node: Any, address: Address, schema: str | None, first: Any) -> Route[Any]:
    """The route as the mesh knows it, else of the schema asked for, else of what the first value is."""
    known = {row["address"]: row for row in await _catalog(node)}.get(address.text)
    if known is not None:
        return Route(address, Schema.from_descriptor(known["schema"]), known["secrecy"])
    return Route(address, Schema.of(SCHEMAS[schema] if schema else type(first)), "sealed")

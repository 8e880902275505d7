"""`meshfold node run`: a node in the foreground, with one of the built-in apps or the user's own, until SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import signal
from collections.abc import Awaitable, Callable
from typing import Any, Final

from meshfold.core import Address, Route, Schema
from meshfold.core.errors import ConfigError, MeshfoldError
from meshfold.mesh.node.node import Node

__all__ = ("App", "load_app", "run_node")

READY_S: Final = 20.0
CATALOG_S: Final = 1.0
#: Events of each route that `why` can answer for.
HISTORY: Final = 1024

#: An app runs until `stop` is set, or as long as it likes; when it returns, the node goes on.
App = Callable[[Node, asyncio.Event], Awaitable[None]]


async def sampler(node: Node, stop: asyncio.Event) -> None:
    """Publish telemetry of this host on `NAME/host/...` at 20 Hz."""
    from meshfold.mesh.up.sampler import Sampler, routes_of

    routes = routes_of(node.name)
    for r in routes.values():
        node.graph.configure_retention(r, history=HISTORY)
        await node.share(r).ready(READY_S)
    await Sampler(node.graph, routes).run(stop)


def reader(routes: list[str]) -> App:
    """An app that bridges in the routes named, as soon as somebody shares them."""
    wanted = {Address.parse(text).text: text for text in routes}

    async def run(node: Node, stop: asyncio.Event) -> None:
        missing = dict(wanted)
        while missing and not stop.is_set():
            with contextlib.suppress(MeshfoldError):
                for address, r in (await _shared(node)).items():
                    if missing.pop(address, None) is not None:
                        node.graph.configure_retention(r, history=HISTORY)
                        await node.read(r).ready(READY_S)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), CATALOG_S)

    return run


async def _shared(node: Node) -> dict[str, Route[Any]]:
    """Every route that somebody shares, by address."""
    found: dict[str, Route[Any]] = {}
    for document in (await node.query("catalog"))["answers"].values():
        for row in document["routes"]:
            if row["direction"] == "share":
                schema = Schema.from_descriptor(row["schema"])
                found[row["address"]] = Route(Address.parse(row["address"]), schema, row["secrecy"])
    return found


async def _idle(node: Node, stop: asyncio.Event) -> None:
    await stop.wait()


def load_app(name: str | None, read: list[str]) -> App:
    """The app of a name: `sampler`, `reader`, or `package.module:function`.

    :raises ConfigError: if there is none of that name, or it is no `async def app(node, stop)`
    """
    if name is None:
        return reader(read) if read else _idle
    if name == "sampler":
        return sampler
    if name == "reader":
        return reader(read)
    module, _, attribute = name.partition(":")
    try:
        found: Any = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"no app {name!r}: {error}", fix="sampler, reader or package.module:function", item="app"
        ) from None
    if not inspect.iscoroutinefunction(found):
        raise ConfigError(f"{name} is no `async def app(node, stop)`", item="app")
    return found  # type: ignore[no-any-return]


async def run_node(
    node: Node, app: App, *, on_ready: Callable[[Node], Awaitable[None]], stop: asyncio.Event | None = None
) -> None:
    """Run until SIGTERM, SIGINT or SIGHUP; then drain: bridges flushed, last heartbeat sent.

    :param on_ready: called once the node takes part
    :raises MeshfoldError: as entering the node does, or as the app does
    """
    stop = stop or asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    async with node:
        await on_ready(node)
        work = asyncio.ensure_future(app(node, stop))
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
            await stopped
        await work

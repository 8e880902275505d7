"""`meshfold top`: the live routes of a mesh, busiest first: rate, credit, lag, drops."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final, Literal

import typer
from meshfold.core.errors import ConfigError
from meshfold.mesh.cli.options import Call, on_mesh
from meshfold.mesh.cli.support import parse_duration

__all__ = ("rows_of", "top")

Sort = Literal["rate", "lag", "dropped", "route"]
#: Counters of a row that add up over the incarnations of a producer.
_SUMS: Final = ("published", "offered", "delivered", "pending", "unexplained", "unknown_tail", "rate_hz")
EVERY_S_MIN: Final = 0.2


def rows_of(
    flow: Iterable[Mapping[str, Any]],
    before: Mapping[str, Mapping[str, Any]],
    after: Mapping[str, Mapping[str, Any]],
    seconds: float,
) -> list[dict[str, Any]]:
    """One row for each route and reader, and one with reader None for a route that is shared and that nobody reads.

    :param flow: rows of the accounting
    :param before: vitals by node, and `after` the same `seconds` later: they give the rate of what nobody reads
    """
    rows: dict[tuple[str, str | None], dict[str, Any]] = {}
    for found in flow:
        row = rows.setdefault((found["route"], found["reader"]), _empty(found["route"], found["reader"]))
        for name in _SUMS:
            row[name] += found[name]
        for reason, count in found["dropped"].items():
            row["dropped"][reason] = row["dropped"].get(reason, 0) + count
        row["latency_ms"] = found["latency_ms"]
        if found.get("credit") is not None:
            row["credit"] = (row["credit"] or 0) + found["credit"]
        row["lag"] = row["pending"]
        row["rate_hz"] = round(row["rate_hz"], 2)
    read = {route for route, _ in rows}
    for node, vitals in after.items():
        earlier = {
            row["route"]: row for row in before.get(node, {}).get("bridges", ()) if row["dir"] == "out"
        }
        for bridge in vitals["bridges"]:
            if bridge["dir"] == "out" and bridge["route"] not in read:
                row = rows.setdefault((bridge["route"], None), _empty(bridge["route"], None))
                moved = bridge["events"] - earlier.get(bridge["route"], bridge)["events"]
                row["published"] += bridge["events"] + bridge["pending"]
                row["pending"] += bridge["pending"]
                row["lag"] = row["pending"]
                row["rate_hz"] = round(row["rate_hz"] + max(0, moved) / seconds, 2)
    return list(rows.values())


def _empty(route: str, reader: str | None) -> dict[str, Any]:
    # Credit None: the producer waits for nobody (`at_most_once`).
    zeros = dict.fromkeys(_SUMS, 0)
    return {
        "route": route,
        "reader": reader,
        **zeros,
        "dropped": {},
        "latency_ms": {},
        "credit": None,
        "lag": 0,
    }


def _sorted(rows: list[dict[str, Any]], by: Sort) -> list[dict[str, Any]]:
    keys: dict[str, Any] = {
        "rate": lambda row: -row["rate_hz"],
        "lag": lambda row: -row["lag"],
        "dropped": lambda row: -sum(row["dropped"].values()),
        "route": lambda row: 0,
    }
    return sorted(rows, key=lambda row: (keys[by](row), row["route"], row["reader"] or ""))


class _Watch:
    """Samples a mesh: each document covers the time since the one before."""

    def __init__(self, node: Any, by: Sort) -> None:
        self._node = node
        self._by: Sort = by
        self._vitals: dict[str, Any] = {}
        self._at = 0.0

    async def sample(self) -> dict[str, Any]:
        flow, everyone = await asyncio.gather(self._node.audit_flow(), self._node.query("vitals"))
        now = time.monotonic()
        rows = rows_of(flow["routes"], self._vitals, everyone["answers"], max(1e-3, now - self._at))
        self._vitals, self._at = everyone["answers"], now
        return {
            "routes": _sorted(rows, self._by),
            "nodes": [
                {
                    "name": name,
                    "connected": one["connected"],
                    "rejected": one["rejected"],
                    "spans": one["spans"],
                }
                for name, one in everyone["answers"].items()
            ],
            "unexplained": flow["unexplained"],
            "silent": everyone["silent"],
        }


@on_mesh
def top(
    call: Call,
    every: Annotated[str, typer.Option("--every", help="time between two looks, such as 1s")] = "1s",
    for_: Annotated[str | None, typer.Option("--for", help="stop after this time, such as 1m")] = None,
    by: Annotated[Sort, typer.Option("--sort", help="what comes first")] = "rate",
) -> None:
    """Live routes: rate, credit, lag, drops. On a terminal until Ctrl-C, elsewhere and with --json once.

    Example: meshfold top --sort lag
    """
    every_s = parse_duration(every, "--every")
    if every_s < EVERY_S_MIN:
        raise ConfigError(f"--every {every} is too often", fix=f"at least {EVERY_S_MIN:g} s", item="--every")
    for_s = None if for_ is None else parse_duration(for_, "--for")
    if call.as_json or not sys.stdout.isatty():

        async def once(node: Any) -> dict[str, Any]:
            watch = _Watch(node, by)
            await watch.sample()
            await asyncio.sleep(every_s)
            return await watch.sample()

        call.emit(call.run(once), _lines)
        return
    with contextlib.suppress(KeyboardInterrupt):
        call.run(lambda node: _live(_Watch(node, by), every_s, for_s))


async def _live(watch: _Watch, every_s: float, for_s: float | None) -> None:
    from rich.live import Live

    end = None if for_s is None else time.monotonic() + for_s
    with Live(auto_refresh=False) as live:
        while end is None or time.monotonic() < end:
            live.update(_table(await watch.sample()), refresh=True)
            await asyncio.sleep(every_s)


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    dropped = ", ".join(f"{reason} {count}" for reason, count in row["dropped"].items()) or "0"
    return (
        row["route"],
        row["reader"] or "(nobody)",
        f"{row['rate_hz']:.1f}",
        "-" if row["credit"] is None else str(row["credit"]),
        str(row["lag"]),
        dropped,
        f"{row['latency_ms'].get('p99', 0):.2f}" if row["latency_ms"] else "-",
    )


_COLUMNS: Final = ("route", "reader", "rate/s", "credit", "lag", "dropped", "p99 ms")


def _lines(document: dict[str, Any]) -> list[str]:
    rows = [_COLUMNS, *(_cells(row) for row in document["routes"])]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_COLUMNS))]
    lines = [
        "  ".join(
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return [
        *lines,
        f"{document['unexplained']} unexplained",
        *(f"silent: {one}" for one in document["silent"]),
    ]


def _table(document: dict[str, Any]) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(title="meshfold top", title_justify="left", expand=False)
    for place, name in enumerate(_COLUMNS):
        table.add_column(name, justify="left" if place < 2 else "right", no_wrap=True)
    for row in document["routes"]:
        table.add_row(*(Text(cell) for cell in _cells(row)))
    notes = [Text(f"silent: {one}", style="yellow") for one in document["silent"]]
    unexplained = document["unexplained"]
    return Group(table, Text(f"{unexplained} unexplained", style="red" if unexplained else "green"), *notes)

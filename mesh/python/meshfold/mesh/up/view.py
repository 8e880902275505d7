"""The live view of `up` as a terminal picture, and as SVG."""

from __future__ import annotations

import io
import re
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

__all__ = ("render", "render_svg")

#: Characters of a value that are shown.
LATEST_CHARS = 30
SVG_COLUMNS = 132
_FONT_FACE = re.compile(r"@font-face \{.*?\}", re.DOTALL)


def render(document: dict[str, Any]) -> Group:
    """The screen for a document of `up`."""
    table = Table(title="meshfold up", title_justify="left", expand=False)
    for name in ("route", "reader"):
        table.add_column(name, no_wrap=True)
    table.add_column("latest", no_wrap=True, overflow="ellipsis", width=LATEST_CHARS)
    for name in ("rate/s", "delivered", "dropped", "pending", "p50 ms", "p99 ms"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in document["routes"]:
        dropped = ", ".join(f"{reason} {count}" for reason, count in row["dropped"].items()) or "0"
        table.add_row(
            row["route"],
            row["reader"],
            Text(row.get("latest", "")),
            f"{row.get('rate_hz', 0):.1f}",
            str(row["delivered"]),
            Text(dropped, style="" if dropped == "0" else "yellow"),
            str(row["pending"]),
            f"{row['latency_ms'].get('p50', 0):.2f}",
            f"{row['latency_ms'].get('p99', 0):.2f}",
        )
    leader, broker = document["leader"], document["broker"]
    lines = [
        Text(f"leader   {leader['node']} of {leader['group']}, term {leader['term']}"),
        Text(
            f"broker   {broker['frames_seen']} frames seen, plaintext found {broker['plaintext_found']},"
            f" control found {broker['control_found']}",
            style="red" if broker["plaintext_found"] else "green",
        ),
        Text(
            f"account  {document['unexplained']} unexplained",
            style="red" if document["unexplained"] else "green",
        ),
    ]
    lines += [
        Text(f"refused  {refusal['error']}", style="yellow", no_wrap=True, overflow="ellipsis")
        for refusal in document["refused"][:3]
    ]
    return Group(table, *lines)


def render_svg(document: dict[str, Any]) -> str:
    """The same screen as SVG text."""
    console = Console(record=True, width=SVG_COLUMNS, file=io.StringIO(), force_terminal=True)
    console.print(render(document))
    # Without the fonts that the template would load from elsewhere: a picture needs no network.
    return _FONT_FACE.sub("", console.export_svg(title="meshfold up"))

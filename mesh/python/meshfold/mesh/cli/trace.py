"""`meshfold trace`: the spans of an event's trace as the nodes remember them, with no collector behind it."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer
from meshfold.core import Address, parse_event_id
from meshfold.core.errors import WiringError
from meshfold.core.registry import ExitCode
from meshfold.mesh.cli.options import Call, on_mesh
from meshfold.mesh.telemetry import merge

__all__ = ("question", "trace", "tree")


def question(text: str) -> dict[str, str]:
    """What to ask the nodes for: a trace id, an event id, or a route, whose newest traced event it is then.

    :raises WiringError: if it is none of these
    """
    if re.fullmatch("[0-9a-f]{32}", text):
        return {"trace": text}
    try:
        parse_event_id(text)
        return {"event": text}
    except WiringError:
        return {"route": Address.parse(text).short}


@on_mesh
def trace(
    call: Call,
    what: Annotated[str, typer.Argument(help="an event id, a trace id, or a route: its newest traced event")],
) -> None:
    """The spans of a trace over all nodes, as a tree; exit code 1 if no node remembers one.

    Example: meshfold trace hub/host/pressure
    """
    asked = question(what)

    async def work(node: Any) -> dict[str, Any]:
        found = (await node.query("trace", **asked))["answers"].values()
        # Of a route, the node that made the event has it first.
        newest = max(
            (one for one in found if one["spans"]), key=lambda one: one["spans"][0]["start_ns"], default=None
        )
        if newest is None:
            return {"trace_id": None, "event": None, "spans": []}
        everyone = (await node.query("trace", trace=newest["trace_id"]))["answers"].values()
        return {**merge(newest["trace_id"], everyone), "event": newest["event"]}

    document = call.run(work)
    call.emit(document, lambda found: tree(found) or [f"no node remembers a trace of {what}"])
    raise typer.Exit(ExitCode.HOLDS if document["spans"] else ExitCode.DOES_NOT_HOLD)


def tree(document: dict[str, Any]) -> list[str]:
    """One line a span, indented under its parent; times from the begin of the trace."""
    spans = document["spans"]
    known = {span["span_id"] for span in spans}
    begin = min((span["start_ns"] for span in spans), default=0)

    def below(parent: str | None, depth: int) -> list[str]:
        lines: list[str] = []
        for span in spans:
            # A span whose parent nobody remembers stands at the left.
            cause = span["parent"] if span["parent"] in known else None
            if cause == parent:
                lines += [_line(span, depth, begin), *below(span["span_id"], depth + 1)]
        return lines

    return [f"trace {document['trace_id']}", *below(None, 0)] if spans else []


def _line(span: dict[str, Any], depth: int, begin: int) -> str:
    at_ms, took_ms = (span["start_ns"] - begin) / 1e6, (span["end_ns"] - span["start_ns"]) / 1e6
    notes = [f"{len(span['links'])} linked"] if span["links"] else []
    notes += [span["error"]] if span["error"] else []
    said = f"  ({', '.join(notes)})" if notes else ""
    return f"{at_ms:9.3f} ms  {took_ms:8.3f} ms  {'  ' * depth}{span['service']}: {span['name']}{said}"

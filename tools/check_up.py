"""Judge the JSON document of `meshfold up`: prints one line per claim, exit 1 where one does not hold.

python tools/check_up.py [--short] FILE     --short: a run of a few seconds, judged without the volume claims
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

#: Enough routes to show every kind of host telemetry and what is derived from it.
ROUTES_MIN = 12
#: Below this many frames "no plaintext found" proves little.
FRAMES_MIN = 1000
#: The node that reads what the host tells.
READER = "hub"
#: The node where the causes of a derived event lie.
CAUSE_NODE = "edge"


def causes(why: Any) -> Iterator[dict[str, Any]]:
    """Every cause in the tree, however deep."""
    for cause in why.get("causes", ()) if isinstance(why, dict) else ():
        if isinstance(cause, dict):
            yield cause
        yield from causes(cause)


def delivered(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The routes that carried something to the hub and account for all of it."""
    return [
        route
        for route in document.get("routes", ())
        if route.get("reader") == READER and route.get("delivered", 0) > 0 and route.get("unexplained") == 0
    ]


def named_refusals(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Refusals that say which action on which route lacked a grant."""
    return [
        refusal
        for refusal in document.get("refused", ())
        if refusal.get("route") and refusal.get("action") and "grant" in str(refusal.get("error", "")).lower()
    ]


def whole_trace(trace: Any) -> tuple[bool, str]:
    """Whether the trace of a derived event goes over both nodes, and every span's parent is in it."""
    spans = trace.get("spans", []) if isinstance(trace, dict) else []
    ids = {span.get("span_id") for span in spans}
    services = sorted({str(span.get("service")) for span in spans})
    lost = [span for span in spans if span.get("parent") and span["parent"] not in ids]
    roots = [span for span in spans if not span.get("parent")]
    holds = len(services) > 1 and not lost and len(roots) == 1
    return (
        holds,
        f"a trace of {len(spans)} spans over {', '.join(services) or 'no node'}, {len(lost)} parents lost",
    )


def verdicts(document: dict[str, Any], *, short: bool = False) -> list[tuple[bool, str]]:
    """Each claim with whether it holds.

    short: leave out the claims that need a long run (number of routes and of frames).
    """
    broker: dict[str, Any] = document.get("broker") or {}
    leader: dict[str, Any] = document.get("leader") or {}
    carried = delivered(document)
    refusals = named_refusals(document)
    found = list(causes(document.get("why")))
    frames = broker.get("frames_seen", 0)
    routes_min, frames_min = (1, 1) if short else (ROUTES_MIN, FRAMES_MIN)
    distinct = {route.get("route") for route in carried}
    return [
        (
            len(distinct) >= routes_min,
            f"{len(distinct)} routes delivered at {READER}, none of their losses unexplained",
        ),
        (document.get("unexplained") == 0, f"unexplained in all: {document.get('unexplained')}"),
        (bool(refusals), f"{len(refusals)} refusals name the grant that is missing"),
        (frames >= frames_min, f"{frames} frames seen on the wire, at least {frames_min} wanted"),
        (broker.get("plaintext_found") == 0, f"plaintext found: {broker.get('plaintext_found')}"),
        (broker.get("control_found", 0) >= 1, f"control canary found: {broker.get('control_found')}"),
        (
            bool(leader.get("node")) and leader.get("term", 0) >= 1,
            f"leader {leader.get('node')} in term {leader.get('term')}",
        ),
        (
            any(cause.get("node") == CAUSE_NODE for cause in found),
            f"{len(found)} causes of a derived event, some on {CAUSE_NODE}",
        ),
        whole_trace(document.get("trace")),
    ]


def main(arguments: list[str]) -> int:
    """Read the document, print the verdicts."""
    short = "--short" in arguments
    paths = [argument for argument in arguments if argument != "--short"]
    if len(paths) != 1:
        sys.stderr.write("usage: check_up.py [--short] FILE\n")
        return 2
    text = Path(paths[0]).read_text(encoding="utf-8")
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        sys.stderr.write(
            f"check_up: {paths[0]} is not one JSON document ({error}); it begins {text[:120]!r}\n"
        )
        return 2
    results = verdicts(document, short=short)
    for holds, claim in results:
        sys.stdout.write(f"{'ok  ' if holds else 'FAIL'} {claim}\n")
    return 0 if all(holds for holds, _ in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

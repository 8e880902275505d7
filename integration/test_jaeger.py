"""Traces of edge and hub, two processes, as a real Jaeger shows them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from jaeger import JaegerServer, JaegerSpan
from meshfold.mesh.local import LocalMesh

pytestmark = [pytest.mark.jaeger, pytest.mark.timeout(300)]

APP = Path(__file__).with_name("tracing_app.py")
RUN_S = 120.0


@pytest.fixture
def jaeger(tmp_path: Path) -> Iterator[JaegerServer]:
    """A running Jaeger."""
    with JaegerServer(tmp_path) as running:
        yield running


@pytest.fixture
def events(jaeger: JaegerServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """(event id, trace id) of what the edge published, what the hub made of it, and what it made of two traces."""
    monkeypatch.setenv("MESHFOLD_CONTEXTS", str(tmp_path / "contexts"))
    environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": jaeger.otlp_url}
    command = [sys.executable, str(APP)]
    with LocalMesh(tmp_path / "state"):
        hub = subprocess.Popen(
            [*command, "hub"], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            assert hub.stdout is not None
            assert hub.stdout.readline() == "ready\n"
            edge = subprocess.run(
                [*command, "edge"],
                env=environment,
                capture_output=True,
                text=True,
                timeout=RUN_S,
                check=False,
            )
            assert edge.returncode == 0, edge.stderr
            hub.communicate(timeout=RUN_S)
            assert hub.returncode == 0
        finally:
            hub.kill()
            hub.communicate()
    lines = [tuple(line.split()) for line in edge.stdout.splitlines()]
    return [(event, trace) for event, trace in lines]


def whole(jaeger: JaegerServer, trace: str, spans: int) -> list[JaegerSpan]:
    """The trace, once it has as many spans."""

    def found() -> list[JaegerSpan]:
        seen = jaeger.trace(trace)
        return seen if len(seen) >= spans else []

    result: list[JaegerSpan] = jaeger.wait(found, f"{spans} spans of {trace}")
    return result


def named(spans: list[JaegerSpan]) -> dict[str, JaegerSpan]:
    return {f"{span.service}: {span.name}": span for span in spans}


def test_one_trace_spans_edge_and_hub_with_right_parents_and_is_found_by_event_id(
    jaeger: JaegerServer, events: list[tuple[str, str]]
) -> None:
    published, derived, _ = events
    assert published[1] == derived[1]
    by_name = named(whole(jaeger, published[1], 6))
    assert set(by_name) == {
        "edge: publish edge/thermal/raw",
        "edge: send edge/thermal/raw",
        "hub: process edge/thermal/raw",
        "hub: pipe hub/thermal/mean",
        "hub: send hub/thermal/mean",
        "edge: process hub/thermal/mean",
    }
    parents = {
        "edge: publish edge/thermal/raw": None,
        "edge: send edge/thermal/raw": "edge: publish edge/thermal/raw",
        "hub: process edge/thermal/raw": "edge: publish edge/thermal/raw",
        "hub: pipe hub/thermal/mean": "hub: process edge/thermal/raw",
        "hub: send hub/thermal/mean": "hub: pipe hub/thermal/mean",
        "edge: process hub/thermal/mean": "hub: pipe hub/thermal/mean",
    }
    for name, parent in parents.items():
        wanted = () if parent is None else ((published[1], by_name[parent].span),)
        assert by_name[name].parents == wanted, name
        assert by_name[name].links == (), name
    for event in (published, derived):
        for service in ("edge", "hub"):
            (found,) = jaeger.find(service, meshfold_event_id=event[0])
            assert {span.trace for span in found} == {published[1]}
    assert jaeger.find("hub", meshfold_event_id="a" * 52) == []
    assert by_name["hub: process edge/thermal/raw"].tags["meshfold.principal"] == "edge"
    assert by_name["edge: publish edge/thermal/raw"].tags["span.kind"] == "producer"
    assert by_name["hub: process edge/thermal/raw"].tags["span.kind"] == "consumer"


def test_what_is_made_of_two_traces_is_a_new_one_that_links_both(
    jaeger: JaegerServer, events: list[tuple[str, str]]
) -> None:
    published, _, joined = events
    assert joined[1] != published[1]
    root = named(whole(jaeger, joined[1], 3))["hub: publish hub/thermal/worst"]
    assert root.parents == ()
    processed = named(jaeger.trace(published[1]))["hub: process edge/thermal/raw"]
    assert (processed.trace, processed.span) in root.links
    assert len(root.links) == 2

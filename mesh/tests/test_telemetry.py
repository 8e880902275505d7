"""Traces of a mesh as a receiver of OTLP sees them, and what the variables say."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from meshfold.core import Event, Graph, Schema, Tracing, event_span, route
from meshfold.core.errors import ConfigError, GrantDenied
from meshfold.mesh.local import LocalMesh
from meshfold.mesh.node import Node
from meshfold.mesh.telemetry import Recorder, TelemetrySettings
from otlp_sink import OtlpSink, Seen

WAIT_S = 30.0
RAW = route("edge", "thermal", "raw", schema=Schema.float("Celsius"))
MEAN = route("hub", "thermal", "mean", schema=Schema.float("Celsius"))
OTHER = route("edge", "thermal", "other", schema=Schema.float("Celsius"))


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A receiver, named as users name theirs."""
    with OtlpSink() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
        yield running


async def joined(mesh: LocalMesh, hub: Node, edge: Node, *routes: Any) -> None:
    for r in routes:
        owner, reader = (edge, hub) if r.addr.owner == "edge" else (hub, edge)
        await owner.share(r).ready(WAIT_S)
        await reader.read(r).ready(WAIT_S)


async def until_latest(node: Node, r: Any) -> Event[Any]:
    async with asyncio.timeout(WAIT_S):
        async for event in node.graph.stream(r):
            return event
    raise AssertionError("unreachable")


async def waited(sink: OtlpSink, *names: str, trace: str = "") -> dict[str, Seen]:
    """Spans by `SERVICE NAME`, once all named ones are there."""

    def found(spans: list[Seen]) -> dict[str, Seen] | None:
        by_name = {f"{span.service} {span.name}": span for span in spans if trace in ("", span.trace)}
        return by_name if set(names) <= set(by_name) else None

    result: dict[str, Seen] = await asyncio.to_thread(sink.wait, found, ", ".join(names))
    return result


async def test_one_trace_goes_from_the_edge_over_the_hub_and_back(mesh: LocalMesh, sink: OtlpSink) -> None:
    async with mesh.node("hub") as hub, mesh.node("edge") as edge:
        await joined(mesh, hub, edge, RAW, MEAN)
        hub.graph.pipe(RAW).map(lambda value: value / 2).into(MEAN)
        event = edge.graph.publish(RAW, 870.0, correlation="batch-7")
        derived = await until_latest(edge, MEAN)
        spans = await waited(
            sink,
            "edge publish edge/thermal/raw",
            "edge send edge/thermal/raw",
            "hub process edge/thermal/raw",
            "hub pipe hub/thermal/mean",
            "hub send hub/thermal/mean",
            "edge process hub/thermal/mean",
            trace=event.trace.hex(),
        )
    published = spans["edge publish edge/thermal/raw"]
    sent = spans["edge send edge/thermal/raw"]
    processed = spans["hub process edge/thermal/raw"]
    step = spans["hub pipe hub/thermal/mean"]
    assert derived.trace == event.trace
    assert published.parent == ""
    assert published.span == event_span(event.id).hex()
    assert sent.parent == published.span
    assert processed.parent == published.span
    assert step.parent == processed.span
    assert spans["hub send hub/thermal/mean"].parent == step.span
    assert spans["edge process hub/thermal/mean"].parent == step.span
    assert [span.kind for span in (published, sent, processed, step)] == [
        "PRODUCER",
        "CLIENT",
        "CONSUMER",
        "INTERNAL",
    ]
    assert not any(span.links for span in spans.values())
    assert all(span.start <= span.end for span in spans.values())


async def test_spans_carry_the_attributes_of_their_event(mesh: LocalMesh, sink: OtlpSink) -> None:
    async with mesh.node("hub") as hub, mesh.node("edge") as edge:
        await joined(mesh, hub, edge, RAW)
        event = edge.graph.publish(RAW, 1.0, correlation="batch-7", taints=("TIME_ESTIMATED",))
        spans = await waited(sink, "edge publish edge/thermal/raw", "hub process edge/thermal/raw")
        subject = hub.session.subjects.route("d", RAW.addr)
    published = spans["edge publish edge/thermal/raw"]
    assert published.attributes == {
        "meshfold.event.id": event.id,
        "meshfold.route": "edge/thermal/raw",
        "meshfold.taints": ("TIME_ESTIMATED",),
        "messaging.system": "nats",
        "messaging.operation.name": "publish",
        "messaging.operation.type": "create",
        "messaging.destination.template": "edge/thermal/raw",
        "messaging.message.id": event.id,
        "messaging.message.body.size": 8,
        "messaging.message.conversation_id": "batch-7",
    }
    processed = spans["hub process edge/thermal/raw"].attributes
    assert processed["meshfold.principal"] == "edge"
    assert len(processed["meshfold.grant.id"]) == 64
    assert processed["meshfold.crypto.suite"] == "AES-256-GCM"
    assert processed["messaging.destination.name"] == subject
    resource = spans["hub process edge/thermal/raw"].resource
    assert resource["service.name"] == "hub"
    assert resource["service.namespace"] == mesh.name
    assert resource["service.instance.id"] == hub.incarnation


async def test_inputs_of_two_traces_are_links_of_a_new_one(mesh: LocalMesh, sink: OtlpSink) -> None:
    async with mesh.node("hub") as hub, mesh.node("edge") as edge:
        await joined(mesh, hub, edge, RAW, OTHER)
        edge.graph.publish(RAW, 1.0)
        edge.graph.publish(OTHER, 2.0)
        one, two = await until_latest(hub, RAW), await until_latest(hub, OTHER)
        both = hub.graph.publish(MEAN, 1.5, parents=(one, two))
        spans = await waited(
            sink,
            "hub process edge/thermal/raw",
            "hub process edge/thermal/other",
            "hub publish hub/thermal/mean",
        )
    derived = spans["hub publish hub/thermal/mean"]
    inputs = [spans["hub process edge/thermal/raw"], spans["hub process edge/thermal/other"]]
    assert derived.trace == both.trace.hex() not in {span.trace for span in inputs}
    assert derived.parent == ""
    assert derived.links == tuple((span.trace, span.span) for span in inputs)
    assert derived.attributes["meshfold.inputs"] == 2


async def test_a_refusal_is_a_span_with_an_error(mesh: LocalMesh, sink: OtlpSink) -> None:
    async with mesh.node("hub"), mesh.node("outsider") as outsider:
        with pytest.raises(GrantDenied):
            outsider.read(RAW)
        spans = await waited(sink, "outsider deny META_READ")
    refused = spans["outsider deny META_READ"]
    assert refused.error == "grant_denied"
    assert refused.attributes == {
        "error.type": "grant_denied",
        "meshfold.route": "edge/thermal/raw",
        "meshfold.action": "META_READ",
        "meshfold.principal": "outsider",
    }


async def test_the_trace_of_an_event_can_be_asked_for_without_a_receiver(
    mesh: LocalMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    on = TelemetrySettings(on=True)
    hub = Node("hub", mesh.context, telemetry=on)  # type: ignore[arg-type] # a running mesh has one
    edge = Node("edge", mesh.context, telemetry=on)  # type: ignore[arg-type] # a running mesh has one
    async with hub, edge:
        await joined(mesh, hub, edge, RAW)
        event = edge.graph.publish(RAW, 1.0)
        await until_latest(hub, RAW)
        async with asyncio.timeout(WAIT_S):
            found: dict[str, Any] = {"spans": []}
            while not found["spans"]:
                found = await edge.query("trace", node="hub", event=event.id)
        by_trace = await edge.query("trace", node="edge", trace=event.trace.hex())
        with pytest.raises(GrantDenied):
            async with mesh.node("outsider") as outsider:
                await outsider.query("trace", node="hub", event=event.id)
    assert found["trace_id"] == by_trace["trace_id"] == event.trace.hex()
    assert [(span["service"], span["kind"]) for span in found["spans"]] == [("hub", "CONSUMER")]
    assert found["spans"][0]["parent"] == by_trace["spans"][0]["span_id"]


async def test_without_a_variable_nothing_is_sampled(mesh: LocalMesh) -> None:
    async with mesh.node("hub") as hub:
        assert not hub.graph.publish(MEAN, 1.0).sampled
        assert hub.session.recorder.counters() == {"recorded": 0, "exported": 0, "failed": 0, "dropped": 0}


def recorder(url: str, **options: Any) -> tuple[Graph, Recorder]:
    graph = Graph(name="rig")
    settings = TelemetrySettings(roots_per_s=None, spans_per_s=None).to(url, "url")
    return graph, Recorder(graph, settings, node="rig", mesh="test", **options)


def test_closing_exports_what_is_there() -> None:
    with OtlpSink() as sink:
        graph, running = recorder(sink.url)
        running.start()
        for value in range(700):
            graph.publish(RAW, float(value))
        running.close()
        running.close()
        assert len(sink.spans) == 700
        assert running.counters() == {"recorded": 700, "exported": 700, "failed": 0, "dropped": 0}
        assert not graph.publish(RAW, 1.0).sampled


def test_the_variables_of_the_exporter_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20letmein")
    with OtlpSink() as sink:
        graph, running = recorder(sink.url)
        running.start()
        graph.publish(RAW, 1.0)
        running.close()
        assert len(sink.spans) == 1
        assert sink.headers["content-encoding"] == "gzip"
        assert sink.headers["authorization"] == "Bearer letmein"


def test_a_producer_that_samples_everything_costs_its_readers_a_bounded_number_of_spans() -> None:
    with OtlpSink() as sink:
        flood = Graph(name="edge")
        Tracing(flood).start()
        tap = flood.tap(RAW)
        for value in range(6000):
            flood.publish(RAW, float(value))
        settings = TelemetrySettings().to(sink.url, "url")
        graph = Graph(name="rig", clock=Stopped())
        running = Recorder(graph, settings, node="rig", mesh="test")
        running.start()
        inlet = graph.inlet(RAW)
        while (batch := tap.drain()) is not None:
            inlet.push(batch.meta, batch.payload, producer=flood.producer, incarnation=flood.incarnation)
        running.close()
        assert running.counters() == {"recorded": 6000, "exported": 2000, "failed": 0, "dropped": 4000}


class Stopped:
    """A clock that stands."""

    def now(self) -> tuple[int, int]:
        return 1_000_000_000, 1_000_000_000


def test_spans_that_a_receiver_refuses_are_counted() -> None:
    with OtlpSink(status=400) as sink:
        graph, running = recorder(sink.url)
        running.start()
        graph.publish(RAW, 1.0)
        sink.wait_requests(1)
        running.close()
        assert running.counters() == {"recorded": 1, "exported": 0, "failed": 1, "dropped": 0}


class Stuck:
    """An exporter that waits for its shutdown."""

    def __init__(self) -> None:
        self.released = threading.Event()
        self.entered = threading.Event()

    def export(self, spans: Sequence[Any]) -> bool:
        self.entered.set()
        self.released.wait(WAIT_S)
        return False

    def shutdown(self) -> None:
        self.released.set()


def test_a_stuck_exporter_costs_spans_and_not_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshfold.mesh.telemetry.recorder.FLUSH_S", 0.05)
    stuck = Stuck()
    graph, running = recorder("http://127.0.0.1:9", exporter=lambda url: stuck)
    running.start()
    graph.publish(RAW, 0.0)
    assert stuck.entered.wait(WAIT_S)
    for value in range(9000):
        graph.publish(RAW, float(value))
    assert running.counters()["dropped"] == 9000 - 8192
    running.close()
    assert running.counters()["failed"] > 0


def test_refusals_above_the_limit_are_only_counted() -> None:
    with OtlpSink() as sink:
        _, running = recorder(sink.url, now_ns=lambda: 5)
        running.start()
        for _ in range(50):
            running.rejected("sig", RAW.text)
        running.close()
        assert {span.name for span in sink.spans} == {"reject frame"}
        assert len(sink.spans) == 20
        assert running.counters()["dropped"] == 30


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, {"on": False, "endpoint": None}),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/"},
            {"on": True, "endpoint": "http://c:4318/v1/traces"},
        ),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://c/x"}, {"endpoint": "https://c/x"}),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_SDK_DISABLED": "true"},
            {"on": False, "endpoint": None},
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318", "OTEL_TRACES_EXPORTER": "none"},
            {"on": False, "endpoint": None},
        ),
        ({"OTEL_TRACES_SAMPLER": "always_on"}, {"ratio": 1.0, "roots_per_s": None}),
        ({"OTEL_TRACES_SAMPLER": "parentbased_always_off"}, {"ratio": 0.0}),
        (
            {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25"},
            {"ratio": 0.25, "roots_per_s": None},
        ),
        ({"OTEL_SERVICE_NAME": "kiln"}, {"service": "kiln"}),
        (
            {"OTEL_RESOURCE_ATTRIBUTES": "a=1, b=x%20y"},
            {"resource": {"a": "1", "b": "x y"}},
        ),
        ({"OTEL_BSP_SCHEDULE_DELAY": "250"}, {"interval_s": 0.25}),
    ],
)
def test_the_standard_variables_are_the_settings(environ: dict[str, str], expected: dict[str, Any]) -> None:
    settings = TelemetrySettings.from_environ(environ)
    assert {name: getattr(settings, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:99999"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:secret@c:4318"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "ftp://c/x"),
        ("OTEL_TRACES_SAMPLER", "sometimes"),
        ("OTEL_TRACES_EXPORTER", "zipkin"),
        ("OTEL_RESOURCE_ATTRIBUTES", "novalue"),
        ("OTEL_BSP_SCHEDULE_DELAY", "soon"),
        ("OTEL_BSP_SCHEDULE_DELAY", "nan"),
        ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "0"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(variable: str, value: str) -> None:
    with pytest.raises(ConfigError, match=variable):
        TelemetrySettings.from_environ({variable: value})


def test_a_ratio_that_is_none_and_a_protocol_there_is_not_are_named() -> None:
    with pytest.raises(ConfigError, match="OTEL_TRACES_SAMPLER_ARG"):
        TelemetrySettings.from_environ(
            {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "2"}
        )
    with pytest.raises(ConfigError, match="OTEL_EXPORTER_OTLP_PROTOCOL"):
        TelemetrySettings.from_environ(
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}
        )
    with pytest.raises(ConfigError, match="--otlp"):
        TelemetrySettings().to("nonsense", "--otlp")

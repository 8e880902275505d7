"""Records of sampled events as Python sees them."""

from __future__ import annotations

import pytest
from meshfold.core import Graph, Schema, SpanRecord, Tracing, WiringError, event_span, route

SOURCE = route("rig", "thermal", "raw", schema=Schema.float())
SINK = route("rig", "thermal", "doubled", schema=Schema.float())


class Clock:
    """Counts in microseconds: every look at it is one later."""

    def __init__(self) -> None:
        self.ticks = 0

    def now(self) -> tuple[int, int]:
        self.ticks += 1
        return self.ticks * 1000, self.ticks * 1000


def traced(**options: float) -> tuple[Graph, Tracing]:
    graph = Graph(name="rig", clock=Clock(), seed=1)
    tracing = Tracing(graph)
    tracing.start(**options)  # type: ignore[arg-type] # ratio is the only one used here
    return graph, tracing


def test_a_graph_that_is_not_traced_samples_nothing() -> None:
    graph = Graph(name="rig", seed=1)
    event = graph.publish(SOURCE, 1.0)
    assert not event.sampled
    assert Tracing(graph).counts() == (0, 0)


def test_a_publish_and_an_operator_step_are_one_trace_with_right_parents() -> None:
    graph, tracing = traced()
    graph.pipe(SOURCE).map(lambda value: value * 2).into(SINK)
    event = graph.publish(SOURCE, 1.0, correlation="job-1")
    published, step = sorted(tracing.take(), key=lambda record: record.start)
    assert (published.kind, published.route, published.event) == ("publish", SOURCE.text, event.id)
    assert published.span == event_span(event.id)
    assert published.parent is None
    assert published.correlation == "job-1"
    assert (step.kind, step.route) == ("operator", SINK.text)
    assert step.operator
    assert step.parent == published.span
    assert step.trace == published.trace == event.trace
    assert published.start <= step.start <= step.end <= published.end


def test_a_span_lasts_as_long_as_the_observers_of_its_event() -> None:
    graph, tracing = traced()
    seen: list[float] = []
    graph.observe(SOURCE, lambda event: seen.append(event.value))
    graph.publish(SOURCE, 1.0)
    (record,) = tracing.take()
    assert seen == [1.0]
    assert record.end > record.start


def test_a_batch_that_leaves_is_a_child_of_its_events() -> None:
    graph, tracing = traced()
    tap = graph.tap(SOURCE)
    first, second = graph.publish(SOURCE, 1.0), graph.publish(SOURCE, 2.0)
    tracing.take()
    batch = tap.drain()
    assert batch is not None
    assert batch.sampled == 2
    assert tracing.take() == []
    tracing.bridged(batch)
    records = tracing.take()
    assert [record.kind for record in records] == ["bridge", "bridge"]
    assert [record.parent for record in records] == [event_span(first.id), event_span(second.id)]
    tracing.bridged(batch)
    assert tracing.take() == []


def test_a_batch_that_could_not_leave_says_why() -> None:
    graph, tracing = traced()
    tap = graph.tap(SOURCE)
    graph.publish(SOURCE, 1.0)
    tracing.take()
    batch = tap.drain()
    assert batch is not None
    tracing.bridged(batch, "too_large")
    assert [record.error for record in tracing.take()] == ["too_large"]


def test_the_bit_travels_with_the_batch_and_the_other_side_records_it() -> None:
    graph, tracing = traced()
    tap = graph.tap(SOURCE)
    event = graph.publish(SOURCE, 1.0)
    batch = tap.drain()
    assert batch is not None
    other = Graph(name="reader", seed=2)
    far = Tracing(other)
    far.start(0.0)
    inlet = other.inlet(SOURCE, name="bridge")
    inlet.push(batch.meta, batch.payload, producer=graph.producer, incarnation=graph.incarnation)
    arrived = other.latest(SOURCE)
    assert arrived is not None
    assert arrived.sampled
    assert arrived.traceparent == event.traceparent
    (record,) = far.take()
    assert (record.kind, record.parent, record.trace) == ("process", event_span(event.id), event.trace)
    assert other.publish(SINK, 2.0, parents=(arrived,)).sampled
    assert not other.publish(SINK, 3.0).sampled
    tracing.stop()


def test_traceparent_is_a_w3c_header() -> None:
    graph, _ = traced()
    event = graph.publish(SOURCE, 1.0)
    assert event.traceparent == f"00-{event.trace.hex()}-{event_span(event.id).hex()}-01"


def test_a_trace_from_outside_goes_on_in_the_graph() -> None:
    graph, tracing = traced()
    header = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    event = graph.publish(SOURCE, 1.0, traceparent=header)
    (record,) = tracing.take()
    assert event.traceparent == f"00-0af7651916cd43dd8448eb211c80319c-{event_span(event.id).hex()}-01"
    assert record.parent is not None
    assert record.parent.hex() == "b7ad6b7169203331"
    unsampled = graph.try_publish(SOURCE, 1.0, traceparent=header[:-1] + "0")
    assert not unsampled.sampled
    assert unsampled.trace == event.trace


@pytest.mark.parametrize(
    "header",
    [
        "",
        "nonsense",
        "00-0-0-01",
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-0af7651916cd43dd8448eb211c80319c-{'0' * 16}-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" + "x" * 10_000,
    ],
)
def test_hs9_a_header_that_is_no_trace_context_begins_a_new_trace_and_is_counted(header: str) -> None:
    graph, tracing = traced()
    usual = graph.publish(SOURCE, 1.0)
    event = graph.publish(SOURCE, 2.0, traceparent=header)
    assert (event.value, event.seq, event.parents) == (2.0, 2, [])
    assert event.trace not in (usual.trace, bytes(16))
    assert event.traceparent.startswith(f"00-{event.trace.hex()}-")
    assert tracing.ignored() == 1


def test_an_event_with_causes_comes_from_nowhere_else() -> None:
    graph, _ = traced()
    cause = graph.publish(SOURCE, 1.0)
    with pytest.raises(WiringError, match="causes"):
        graph.publish(SINK, 1.0, parents=(cause,), traceparent=cause.traceparent)
    assert graph.published(SINK) == 0


def test_nothing_is_sampled_after_the_stop() -> None:
    graph, tracing = traced()
    tracing.stop()
    assert not graph.publish(SOURCE, 1.0).sampled
    assert tracing.take() == []


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_a_ratio_that_is_no_share_is_refused(ratio: float) -> None:
    with pytest.raises(ValueError, match="share"):
        Tracing(Graph()).start(ratio)


def test_what_is_no_event_id_has_no_span() -> None:
    with pytest.raises(WiringError):
        event_span("nonsense")


def test_a_record_has_every_field_of_the_engine() -> None:
    graph, tracing = traced()
    graph.publish(SOURCE, 1.0, taints=("TIME_ESTIMATED",))
    (record,) = tracing.take()
    assert isinstance(record, SpanRecord)
    assert record.taints == ["TIME_ESTIMATED"]
    assert record.size == 8
    assert record.inputs == 0
    assert record.error is None


def test_an_input_forgotten_by_now_is_the_parent_all_the_same() -> None:
    graph, tracing = traced()
    release = route("rig", "thermal", "release", schema=Schema.bool())
    graph.configure_retention(SOURCE, history=1)
    graph.capacitor(SOURCE, SINK, capacity=4, demand=release, replay_latest=False)
    held = [graph.publish(SOURCE, float(value)) for value in range(3)]
    tracing.take()
    graph.publish(release, True)
    derived = graph.latest(SINK)
    assert derived is not None
    records = {record.event: record for record in tracing.take()}
    assert records[derived.id].parent == event_span(held[0].id)
    assert records[derived.id].trace == held[0].trace
    assert records[derived.id].kind == "operator"


def test_an_event_that_time_alone_caused_begins_a_trace() -> None:
    graph, tracing = traced()
    ticks = route("rig", "thermal", "ticks", schema=Schema.int())
    graph.watchdog(SOURCE, SINK, after=2, clock=ticks, progress="value", pulse=1.0)
    for tick in range(1, 5):
        graph.publish(ticks, tick)
    pulse = graph.latest(SINK)
    assert pulse is not None
    assert pulse.sampled
    assert event_span(pulse.id) in {record.span for record in tracing.take()}


def test_of_several_inputs_the_one_that_came_last_is_the_parent() -> None:
    graph, tracing = traced()
    ticks = route("rig", "thermal", "ticks", schema=Schema.int())
    origin = route("rig", "thermal", "origin", schema=Schema.float())
    graph.watchdog(SOURCE, SINK, after=2, clock=ticks, progress="value", pulse=1.0)
    root = graph.publish(origin, 0.0)
    graph.publish(ticks, 1, parents=(root,))
    reset = graph.publish(SOURCE, 1.0, parents=(root,))
    last = [graph.publish(ticks, tick, parents=(root,)) for tick in (2, 3, 4)]
    pulse = graph.latest(SINK)
    assert pulse is not None
    assert {reset.id} < set(pulse.parents)
    (record,) = (record for record in tracing.take() if record.event == pulse.id)
    fired = next(event for event in last if event.id in pulse.parents)
    assert record.parent == event_span(fired.id)
    assert record.links == [(root.trace, event_span(reset.id))]


def test_a_cause_that_waits_for_its_turn_is_a_cause_all_the_same() -> None:
    graph, tracing = traced()
    middle = route("rig", "thermal", "middle", schema=Schema.float())

    def react(event: object) -> None:
        cause = graph.publish(middle, 2.0, parents=(event,))  # type: ignore[arg-type]
        graph.publish(SINK, 3.0, parents=(cause,))

    graph.observe(SOURCE, react)
    root = graph.publish(SOURCE, 1.0)
    records = {record.route: record for record in tracing.take()}
    assert {record.trace for record in records.values()} == {root.trace}
    assert records[middle.text].parent == records[SOURCE.text].span
    assert records[SINK.text].parent == records[middle.text].span

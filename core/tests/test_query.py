"""The query plane: every command as a call and as a request on a route, paged, filtered, with deadlines (S34)."""

from __future__ import annotations

import random
import threading
from typing import Any

import msgspec
import pytest
from meshfold.core import (
    Action,
    Event,
    Graph,
    ManualClock,
    Route,
    Schema,
    Taint,
    WiringError,
    event_id,
    route,
)
from meshfold.core.errors import GrantDenied
from meshfold.core.query import COMMANDS, Answer, Catalog, Latest, Request, Trace, Watch, command_of
from meshfold.core.writes import WriteBinding

TEMPERATURE = route("kiln-7", "thermal", "temperature", schema=Schema.float("Celsius"))
DOUBLED = route("kiln-7", "thermal", "doubled", schema=Schema.float("Celsius"))
COPY = route("kiln-7", "thermal", "copy", schema=Schema.float("Celsius"))


def furnished() -> Graph:
    """A graph with an operator, a connection, an observer and some events."""
    graph = Graph(name="kiln")
    graph.pipe(TEMPERATURE).map(lambda x: x * 2).into(DOUBLED)
    graph.connect(DOUBLED, COPY)
    graph.observe(COPY, lambda event: None)
    for value in (1.0, 2.0, 3.0):
        graph.publish(TEMPERATURE, value, taints=[Taint.TIME_ESTIMATED] if value == 2.0 else [])
    return graph


def rows(answer: Answer, kind: str) -> list[Any]:
    return [row for row in answer.rows if type(row).__name__ == kind]


def test_m110_catalog_lists_routes_by_address() -> None:
    answer = furnished().query("catalog")
    assert [row.route for row in rows(answer, "RouteRow")] == [COPY.text, DOUBLED.text, TEMPERATURE.text]
    (row,) = furnished().query(Catalog(prefix=TEMPERATURE.address)).rows
    assert (row.published, row.retained, row.readers, row.writers) == (3, 3, 1, 0)  # type: ignore[union-attr]
    assert row.schema_id == TEMPERATURE.schema.id.hex()  # type: ignore[union-attr]


def test_m101_describe_tells_everything_about_a_route() -> None:
    answer = furnished().query("describe", route=DOUBLED.text)
    (row,) = rows(answer, "RouteRow")
    assert row.schema == DOUBLED.schema.descriptor()
    assert [edge.kind for edge in rows(answer, "EdgeRow")] == ["connect"]
    assert [(writer.kind, writer.last) for writer in rows(answer, "WriterRow")][-1] == ("pipe", 3)
    assert [taint.taint for taint in rows(answer, "TaintRow")] == ["TIME_ESTIMATED"]


def test_m16_topology_shows_every_role() -> None:
    answer = furnished().query("topology")
    (operator,) = rows(answer, "OperatorRow")
    links = {(link.source, link.target) for link in rows(answer, "LinkRow")}
    assert links >= {
        (f"route:{TEMPERATURE.text}", f"operator:{operator.id}"),
        (f"operator:{operator.id}", f"route:{DOUBLED.text}"),
        (f"route:{DOUBLED.text}", f"route:{COPY.text}"),
    }
    assert any(
        link.kind == "observer" and link.source == f"route:{COPY.text}" for link in rows(answer, "LinkRow")
    )


def test_m11_m93_latest_and_replay_give_events_and_say_what_is_missing() -> None:
    graph = furnished()
    graph.configure_retention(TEMPERATURE, history=2)
    (row,) = graph.query(Latest(TEMPERATURE.text)).rows
    assert row.event["value"] == 3.0  # type: ignore[union-attr, index]
    answer = graph.query("replay", route=TEMPERATURE.text, since=1)
    assert [(gap.first, gap.last) for gap in rows(answer, "GapRow")] == [(1, 1)]
    assert [row.event["seq"] for row in rows(answer, "EventRow")] == [2, 3]
    replayed = graph.replay(TEMPERATURE, since=3)
    assert [event.value for event in replayed.events] == [3.0]
    assert replayed.missing == []
    assert graph.replay(TEMPERATURE, since=1, until=1).missing == [(1, 1)]


def test_m97_trace_walks_the_causes_once_each() -> None:
    graph = furnished()
    event = graph.latest(COPY)
    assert event is not None
    found = rows(graph.query(Trace(event.id)), "TraceRow")
    assert [(row.depth, row.route) for row in found] == [
        (0, COPY.text),
        (1, DOUBLED.text),
        (2, TEMPERATURE.text),
    ]
    graph.configure_retention(TEMPERATURE, history=0)
    assert rows(graph.query(Trace(event.id)), "TraceRow")[-1].known is False


def test_hs8_a_trace_of_ten_thousand_parents_is_bounded() -> None:
    graph = Graph()
    graph.configure_retention(TEMPERATURE, history=20_000)
    graph.publish_many(TEMPERATURE, [float(i) for i in range(12_000)])
    parents = [event.id for event in graph.replay(TEMPERATURE).events]
    child = graph.publish(DOUBLED, 0.0, parents=parents)
    after, seen = "", 0
    while True:
        answer = graph.query(Trace(child.id), limit=1000, after=after)
        seen += len(answer.rows)
        if answer.next is None:
            break
        after = answer.next
    assert seen == 10_000


def test_hs8_ten_thousand_parents_are_kept_as_64_ranges_and_the_event_says_so() -> None:
    graph = Graph()
    parents = [event_id(n.to_bytes(8), b"incarnat", TEMPERATURE.tag, 5) for n in range(1, 10_001)]
    for count in (64, 65, 10_000):
        event = graph.publish(DOUBLED, 0.0, parents=parents[:count])
        assert event.parents == parents[:64]
        assert event.taints == (["LINEAGE_TRUNCATED"] if count > 64 else [])
        found = rows(graph.query(Trace(event.id), limit=1000), "TraceRow")
        assert [(row.event, row.known) for row in found[1:]] == [(parent, False) for parent in parents[:64]]


@pytest.mark.parametrize("length", [1, 2, 3, 50])
def test_hs8_a_cycle_of_parents_is_told_once_each(length: int) -> None:
    routes = [route("kiln-7", "thermal", f"r{n}", schema=Schema.float()) for n in range(length)]
    ids = [event_id(b"producer", b"incarnat", r.tag, 1) for r in routes]
    graph = Graph(producer=b"producer", incarnation=b"incarnat")
    for place, r in enumerate(routes):
        # Each names the one before it, the first the last: an id can be named before its event is there.
        assert graph.publish(r, 0.0, parents=[ids[place - 1]]).id == ids[place]
    answer = graph.query(Trace(ids[0]), limit=1000)
    assert answer.next is None
    assert sorted(row.event for row in rows(answer, "TraceRow")) == sorted(ids)


def test_hs8_parents_of_another_trace_give_their_event_a_trace_of_its_own() -> None:
    graph = Graph()
    first, second = graph.publish(TEMPERATURE, 1.0), graph.publish(TEMPERATURE, 2.0)
    foreign = event_id(b"producer", b"incarnat", TEMPERATURE.tag, 1)
    assert graph.publish(DOUBLED, 0.0, parents=[first]).trace == first.trace
    for parents in ([first.id, second.id], [foreign]):
        event = graph.publish(DOUBLED, 0.0, parents=parents)
        assert event.parents == parents
        assert event.trace not in (first.trace, second.trace, bytes(16))
    # Of one that nobody here has seen the trace is not known: it takes no other's place.
    assert graph.publish(DOUBLED, 0.0, parents=[first.id, foreign]).trace == first.trace


def test_m34_buffers_credit_taints_writers_and_payloads() -> None:
    graph = furnished()
    stream = graph.stream(TEMPERATURE, replay_latest=False)
    graph.publish(TEMPERATURE, 4.0)
    stats = graph.query("buffer_stats", route=TEMPERATURE.text).rows
    assert [row.pending for row in stats if row.kind == "stream"] == [1]  # type: ignore[union-attr]
    stream.close()
    (credit,) = graph.query("credit_stats", route=TEMPERATURE.text).rows
    assert credit.available == graph.credit_for(TEMPERATURE) > 0  # type: ignore[union-attr]
    event = graph.latest(TEMPERATURE)
    assert event is not None
    (payload,) = graph.query("open_payload", event=event.id).rows
    assert payload.payload == event.payload  # type: ignore[union-attr]


def test_m80_validate_names_what_fails() -> None:
    graph = Graph()

    def breaks(event: Event[float]) -> None:
        raise RuntimeError("broken")

    graph.observe(TEMPERATURE, breaks)
    graph.publish(TEMPERATURE, 1.0)
    graph.declare(route("kiln-7", "heat", "power", schema=Schema.float(), plane="write", variant="request"))
    problems = rows(graph.query("validate"), "ProblemRow")
    assert {problem.kind for problem in problems} == {"wiring", "failure"}
    assert any("broken" in problem.detail for problem in problems)


def test_m73_shadow_is_answered_as_a_row() -> None:
    graph = Graph()
    binding = WriteBinding.logical("kiln-7", "heat", "power", schema=Schema.float("W"))
    with graph.bind(binding):
        graph.publish(binding.request, 80.0)
        (row,) = graph.query("shadow", route=binding.request.address).rows
    assert row.desired["value"] == 80.0  # type: ignore[union-attr, index]
    assert row.coherence == ["COHERENCE_WRITE_PENDING"]  # type: ignore[union-attr]


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_pages_follow_each_other_without_gap_or_repetition(limit: int) -> None:
    graph = Graph()
    for number in range(20):
        graph.declare(route("o", "f", f"s{number:02d}", schema=Schema.float()))
    found: list[str] = []
    after, pages = "", 0
    while True:
        answer = graph.query("catalog", limit=limit, after=after)
        found += [row.route for row in rows(answer, "RouteRow")]
        pages += 1
        assert len(answer.rows) <= limit
        if answer.done:
            break
        assert answer.next is not None
        after = answer.next
    assert found == [f"o/f/s{number:02d}" for number in range(20)]
    assert pages == -(-20 // limit)


def test_a_page_is_bounded_in_bytes() -> None:
    graph = Graph()
    large = route("o", "f", "large", schema=Schema.bytes())
    graph.publish_many(large, [bytes(100_000)] * 8)
    answer = graph.query("replay", route=large.text, limit=1000)
    assert len(answer.rows) == 1
    assert answer.next is not None


@pytest.mark.parametrize(
    ("name", "fields", "word"),
    [
        ("nothing", {}, "unknown query"),
        ("latest", {}, "missing required field"),
        ("latest", {"route": 3}, "Expected `str`"),
        ("latest", {"route": "no/such/route"}, "no route"),
        ("latest", {"route": "kiln-7/thermal/temperature", "more": 1}, "unknown field"),
        ("latest", {"route": "..."}, "is not a route"),
        ("trace", {"event": "x" * 51}, "event id"),
        ("open_payload", {"event": "a" * 52}, "no event"),
        ("shadow", {"route": "kiln-7/thermal/temperature"}, "not bound"),
    ],
)
def test_a_wrong_question_is_an_error_that_names_it(name: str, fields: dict[str, Any], word: str) -> None:
    with pytest.raises(WiringError, match=word):
        furnished().query(name, **fields)


@pytest.mark.parametrize("limit", [0, -1, 1001, 2**40])
def test_a_page_nobody_can_serve_is_refused(limit: int) -> None:
    with pytest.raises(WiringError, match="page"):
        furnished().query("catalog", limit=limit)


def test_every_command_has_an_answer_and_a_name() -> None:
    graph = furnished()
    event = graph.latest(COPY)
    assert event is not None
    power = route("kiln-7", "heat", "power", schema=Schema.float(), plane="write", variant="request")
    assert power
    binding = WriteBinding.logical("kiln-7", "heat", "power", schema=Schema.float("W"))
    graph.bind(binding)
    for name, kind in COMMANDS.items():
        fields: dict[str, Any] = {}
        for needed in msgspec.structs.fields(kind):
            if needed.required:
                fields[needed.name] = event.id if needed.name == "event" else COPY.text
        if name == "shadow":
            fields["route"] = binding.request.address
        if name == "watch":
            fields["deadline_ms"] = 1
        assert isinstance(graph.query(name, **fields), Answer)


def asked(
    graph: Graph, requests: Route[Request], responses: Route[Answer], command: Any, **more: Any
) -> list[Event[Answer]]:
    found: list[Event[Answer]] = []
    with graph.observe(responses, found.append, replay_latest=False):
        graph.publish(requests, Request(command), **more)
    return found


def test_m110_a_request_on_the_route_is_answered_with_its_correlation() -> None:
    graph = furnished()
    with graph.serve_queries("kiln-7") as service:
        (answer,) = asked(graph, service.requests, service.responses, Catalog(), correlation="job-1")
        assert answer.correlation == "job-1"
        assert TEMPERATURE.text in {row.route for row in rows(answer.value, "RouteRow")}
        request = graph.latest(service.requests)
        assert request is not None
        assert answer.parents == [request.id]
        (wrong,) = asked(graph, service.requests, service.responses, Latest("no/such/route"))
        assert wrong.value.error == "core.wiring"
        assert "no route" in wrong.value.message
        request = graph.latest(service.requests)
        assert request is not None
        assert wrong.correlation == request.id
    assert asked(graph, service.requests, service.responses, Catalog()) == []


def test_m118_two_services_answer_their_own_requests() -> None:
    graph = furnished()
    with graph.serve_queries("one") as one, graph.serve_queries("two") as two:
        assert len(asked(graph, one.requests, one.responses, Catalog())) == 1
        assert asked(graph, one.requests, two.responses, Catalog()) == []


def test_a_request_past_its_deadline_is_answered_so() -> None:
    clock = ManualClock()
    graph = Graph(clock=clock)
    with graph.serve_queries("kiln-7") as service:
        found: list[Event[Answer]] = []
        graph.observe(service.responses, found.append, replay_latest=False)
        late = clock.now()[0] - 6_000_000_000
        graph.publish(service.requests, Request(Catalog()), time=late)
        assert "deadline" in found[0].value.message


def test_a_watch_is_answered_event_by_event_and_ends() -> None:
    clock = ManualClock()
    graph = Graph(clock=clock)
    graph.declare(TEMPERATURE)
    with graph.serve_queries("kiln-7") as service:
        found: list[Event[Answer]] = []
        graph.observe(service.responses, found.append, replay_latest=False)
        graph.publish(service.requests, Request(Watch(TEMPERATURE.text, 2)), correlation="w")
        for value in (1.0, 2.0, 3.0):
            graph.publish(TEMPERATURE, value)
        assert [row.event["value"] for event in found for row in rows(event.value, "EventRow")] == [1.0, 2.0]
        assert [event.value.done for event in found] == [False, True]
        assert {event.correlation for event in found} == {"w"}
        found.clear()
        graph.publish(service.requests, Request(Watch(TEMPERATURE.text, 9), deadline_ms=10))
        clock.advance(0.02)
        graph.publish(TEMPERATURE, 4.0)
        assert [(event.value.rows, event.value.done) for event in found] == [([], True)]
        assert not [edge for edge in graph.edges() if edge.route == TEMPERATURE.text]


def test_a_watch_ends_at_its_deadline_whatever_time_its_sender_says_it_is() -> None:
    clock = ManualClock()
    graph = Graph(clock=clock)
    graph.declare(TEMPERATURE)
    with graph.serve_queries("kiln-7") as service:
        found: list[Event[Answer]] = []
        graph.observe(service.responses, found.append, replay_latest=False)
        ahead = clock.now()[0] + 10**18
        graph.publish(service.requests, Request(Watch(TEMPERATURE.text, 9), deadline_ms=10), time=ahead)
        clock.advance(0.02)
        graph.publish(TEMPERATURE, 4.0)
        assert [(event.value.rows, event.value.done) for event in found] == [([], True)]


def test_watches_are_bounded() -> None:
    graph = Graph()
    graph.declare(TEMPERATURE)
    with graph.serve_queries("kiln-7") as service:
        found: list[Event[Answer]] = []
        graph.observe(service.responses, found.append, replay_latest=False)
        for _ in range(65):
            graph.publish(service.requests, Request(Watch(TEMPERATURE.text, 1)))
        assert [event.value.error for event in found] == ["core.queue_full"]
    assert len(found) == 65


def test_a_local_watch_waits_for_what_comes() -> None:
    graph = Graph()
    graph.declare(TEMPERATURE)
    watching = threading.Event()
    found: list[Answer] = []

    def watch() -> None:
        watching.set()
        found.append(graph.query(Watch(TEMPERATURE.text, 2), deadline_ms=20_000))

    thread = threading.Thread(target=watch)
    thread.start()
    watching.wait()
    while thread.is_alive():
        if any(edge.kind == "stream" for edge in graph.edges()):
            graph.publish(TEMPERATURE, 1.0)
        thread.join(0.01)
    assert [row.event["value"] for row in rows(found[0], "EventRow")] == [1.0, 1.0]


@pytest.mark.parametrize("seed", range(100))
def test_hostile_requests_on_the_route_do_no_harm(seed: int) -> None:
    rng = random.Random(seed)
    graph = furnished()
    junk: list[Any] = [
        "",
        "x" * 5000,
        "\0",
        "../../etc",
        "read.logical.>",
        -1,
        2**62,
        [],
        {},
        None,
        True,
        "a" * 52,
    ]
    with graph.serve_queries("kiln-7") as service:
        responses: list[Event[Answer]] = []
        graph.observe(service.responses, responses.append, replay_latest=False)
        for name in COMMANDS:
            fields = {field.name: rng.choice(junk) for field in msgspec.structs.fields(COMMANDS[name])}
            document = {
                "command": {"command": name, **fields},
                "limit": rng.choice([0, 1, 100, -5, 2**31]),
                "after": rng.choice(["", "zz", "\0"]),
                "deadline_ms": rng.choice([0, 1, 5000, -1]),
            }
            try:
                request = msgspec.json.decode(msgspec.json.encode(document), type=Request)
            except msgspec.ValidationError:
                continue
            graph.publish(service.requests, request)
            assert len(msgspec.json.encode(responses[-1].value)) < 300_000 if responses else True
    assert graph.failures()[0] == 0
    with pytest.raises(WiringError):
        command_of("\0", {})


def test_s32_answers_are_filtered_by_grants() -> None:
    graph = furnished()
    reader = graph.access.principal("reader")
    graph.access.grant(reader, TEMPERATURE, Action.META_READ)
    view = graph.view(reader)
    assert [row.route for row in rows(view.query("catalog"), "RouteRow")] == [TEMPERATURE.text]
    assert [row.route for row in rows(view.query("topology"), "RouteRow")] == [TEMPERATURE.text]
    assert not rows(view.query("topology"), "OperatorRow")
    assert {row.route for row in rows(view.query("buffer_stats"), "EdgeRow")} == {TEMPERATURE.text}
    with pytest.raises(WiringError, match="no route"):
        view.query("latest", route=COPY.text)
    for name, fields in (("latest", {"route": TEMPERATURE.text}), ("validate", {}), ("audit", {})):
        with pytest.raises(GrantDenied):
            view.query(name, **fields)
    with graph.serve_queries("kiln-7", as_=reader) as service:
        (answer,) = asked(graph, service.requests, service.responses, Latest(TEMPERATURE.text))
        assert answer.value.error == "security.grant_denied"

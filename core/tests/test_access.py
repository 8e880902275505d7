"""Capabilities inside one process: principals, grants, views, and the audit of it all (S31, S32)."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from meshfold.core import Action, Event, Graph, ManualClock, PayloadGone, Route, Schema, WiringError, route
from meshfold.core.access import AuditEntry, Principal
from meshfold.core.errors import GrantDenied
from meshfold.core.query import AuditRow
from meshfold.core.view import GraphView

TEMPERATURE = route("kiln-7", "thermal", "temperature", schema=Schema.float("Celsius"))
POWER = route("kiln-7", "heat", "power", schema=Schema.float("W"), plane="write", variant="request")
ALL = Action.META_READ | Action.PAYLOAD_OPEN | Action.REPLAY_READ | Action.OWN | Action.WRITE_REQUEST


def made() -> tuple[Graph, ManualClock, Principal, GraphView]:
    clock = ManualClock()
    graph = Graph(clock=clock)
    reader = graph.access.principal("reader")
    graph.publish(TEMPERATURE, 1.0)
    return graph, clock, reader, graph.view(reader)


async def _apublish(view: GraphView) -> None:
    await view.apublish(TEMPERATURE, 2.0)


PATHS: dict[str, tuple[Action, Callable[[GraphView, Event[float]], Any]]] = {
    "publish": (Action.OWN, lambda view, event: view.publish(TEMPERATURE, 2.0)),
    "try_publish": (Action.OWN, lambda view, event: view.try_publish(TEMPERATURE, 2.0)),
    "publish_many": (Action.OWN, lambda view, event: view.publish_many(TEMPERATURE, [2.0])),
    "write": (Action.WRITE_REQUEST, lambda view, event: view.publish(POWER, 2.0)),
    "latest": (Action.META_READ, lambda view, event: view.latest(TEMPERATURE)),
    "observe": (Action.META_READ, lambda view, event: view.observe(TEMPERATURE, lambda e: None).close()),
    "stream": (Action.META_READ, lambda view, event: view.stream(TEMPERATURE).close()),
    "replay": (Action.REPLAY_READ, lambda view, event: view.replay(TEMPERATURE)),
    "open": (Action.PAYLOAD_OPEN, lambda view, event: view.open(event)),
    "query": (Action.PAYLOAD_OPEN, lambda view, event: view.query("latest", route=TEMPERATURE.text)),
    "audit": (Action.DEBUG_READ, lambda view, event: view.query("audit")),
    "validate": (Action.VALIDATE, lambda view, event: view.query("validate")),
}


@pytest.mark.parametrize("path", PATHS)
def test_m111_every_path_is_refused_without_its_grant_and_open_with_it(path: str) -> None:
    graph, _, reader, view = made()
    graph.declare(POWER)
    action, call = PATHS[path]
    event = graph.latest(TEMPERATURE)
    assert event is not None
    published = graph.published(TEMPERATURE)
    if action != Action.META_READ:
        graph.access.grant(reader, ">", Action.META_READ)
    with pytest.raises(GrantDenied) as caught:
        call(view, event)
    assert caught.value.action == action.name
    assert caught.value.principal == "reader"
    assert graph.published(TEMPERATURE) == published
    refusal = list(graph.access.entries())[-1]
    assert (refusal.principal, refusal.action, refusal.allowed) == ("reader", action, False)
    graph.access.grant(reader, ">", action)
    call(view, event)


async def test_m111_awaiting_publishes_are_checked_too() -> None:
    graph, _, reader, view = made()
    with pytest.raises(GrantDenied):
        await _apublish(view)
    graph.access.grant(reader, TEMPERATURE, Action.OWN)
    await _apublish(view)
    assert graph.published(TEMPERATURE) == 2


def test_m113_a_principal_is_not_made_by_name() -> None:
    graph, _, reader, _ = made()
    with pytest.raises(WiringError, match="by name"):
        Principal(object(), "reader", reader.tag)
    with pytest.raises(WiringError, match="exists already"):
        graph.access.principal("reader")
    with pytest.raises(TypeError):
        pickle.dumps(reader)
    assert copy.deepcopy(reader) is reader
    foreign = Graph().access.principal("reader")
    assert foreign.tag == reader.tag
    fakes: list[Any] = ["reader", reader.tag, None, foreign]
    for fake in fakes:
        with pytest.raises(GrantDenied, match="no principal of this graph"):
            graph.view(fake)
        with pytest.raises(GrantDenied):
            graph.access.grant(fake, TEMPERATURE, Action.OWN)


def test_m112_an_exported_route_shows_its_metadata_and_nothing_more() -> None:
    graph, _, reader, view = made()
    graph.access.export(TEMPERATURE)
    event = view.latest(TEMPERATURE)
    assert event is not None
    assert (event.seq, event.payload) == (1, None)
    with pytest.raises(PayloadGone):
        _ = event.value
    with pytest.raises(GrantDenied):
        view.open(event)
    with pytest.raises(GrantDenied):
        view.publish(TEMPERATURE, 2.0)
    graph.access.deny(reader, TEMPERATURE, Action.META_READ)
    with pytest.raises(GrantDenied, match="denied explicitly"):
        view.latest(TEMPERATURE)


def test_a_denial_beats_a_grant() -> None:
    graph, _, reader, view = made()
    graph.access.grant(reader, ">", ALL)
    graph.access.deny(reader, "read.logical.kiln-7.>", Action.PAYLOAD_OPEN)
    event = view.latest(TEMPERATURE)
    assert event is not None
    assert event.payload is None


def test_metadata_observers_cause_no_payload() -> None:
    graph, _, reader, view = made()
    grant = graph.access.grant(reader, TEMPERATURE, Action.META_READ)
    seen: list[Event[float]] = []
    view.observe(TEMPERATURE, seen.append)
    graph.publish(TEMPERATURE, 2.0)
    assert [(event.seq, event.payload) for event in seen] == [(1, None), (2, None)]
    graph.access.grant(reader, TEMPERATURE, Action.PAYLOAD_OPEN)
    graph.publish(TEMPERATURE, 3.0)
    assert seen[-1].value == 3.0
    assert grant.holds(0)


def test_a_revoked_grant_ends_what_it_began() -> None:
    graph, _, reader, view = made()
    grant = graph.access.grant(reader, TEMPERATURE, Action.META_READ | Action.PAYLOAD_OPEN)
    seen: list[float] = []
    view.observe(TEMPERATURE, lambda event: seen.append(event.value))
    stream = view.stream(TEMPERATURE)
    graph.publish(TEMPERATURE, 2.0)
    grant.revoke()
    graph.publish(TEMPERATURE, 3.0)
    graph.publish(TEMPERATURE, 4.0)
    assert seen == [1.0, 2.0]
    assert [edge for edge in graph.edges() if edge.kind == "observer"] == []
    assert list(stream.blocking(0.1)) == []
    assert [edge for edge in graph.edges() if edge.kind == "stream"] == []


async def test_a_stream_ends_when_its_grant_does() -> None:
    graph, clock, reader, view = made()
    graph.access.grant(reader, TEMPERATURE, Action.META_READ | Action.PAYLOAD_OPEN, for_s=10.0)
    seen: list[float] = []
    async for event in view.stream(TEMPERATURE):
        seen.append(event.value)
        if event.value == 2.0:
            clock.advance(11)
        if event.value < 5.0:
            graph.publish(TEMPERATURE, event.value + 1)
    assert seen == [1.0, 2.0]


def test_a_grant_ends_with_its_time() -> None:
    graph, clock, reader, view = made()
    graph.access.grant(reader, TEMPERATURE, Action.OWN, for_s=1.0)
    view.publish(TEMPERATURE, 2.0)
    clock.advance(2)
    with pytest.raises(GrantDenied):
        view.publish(TEMPERATURE, 3.0)


def test_what_is_passed_on_is_never_more_and_ends_with_its_source() -> None:
    graph, clock, boss, _ = made()
    helper = graph.access.principal("helper")
    view = graph.view(helper)
    held = graph.access.grant(
        boss, "read.logical.kiln-7.>", Action.META_READ | Action.OWN | Action.DELEGATE, for_s=100.0
    )
    for pattern, actions in (
        (">", Action.META_READ),
        ("read.logical.>", Action.META_READ),
        ("read.logical.kiln-70.x.y.meta", Action.META_READ),
        (TEMPERATURE, Action.META_READ | Action.PAYLOAD_OPEN),
    ):
        with pytest.raises(GrantDenied, match="DELEGATE"):
            graph.access.grant(helper, pattern, actions, by=boss)
    passed = graph.access.grant(helper, TEMPERATURE, Action.META_READ, for_s=1000.0, by=boss)
    assert passed.not_after == held.not_after
    assert view.latest(TEMPERATURE) is not None
    with pytest.raises(GrantDenied):
        graph.access.grant(graph.access.principal("third"), TEMPERATURE, Action.META_READ, by=helper)
    held.revoke()
    with pytest.raises(GrantDenied):
        view.latest(TEMPERATURE)
    assert clock


def test_chains_are_short() -> None:
    graph, _, first, _ = made()
    actions = Action.META_READ | Action.DELEGATE
    graph.access.grant(first, TEMPERATURE, actions)
    holder = first
    for number in range(3):
        following = graph.access.principal(f"p{number}")
        graph.access.grant(following, TEMPERATURE, actions, by=holder)
        holder = following
    with pytest.raises(GrantDenied):
        graph.access.grant(graph.access.principal("last"), TEMPERATURE, actions, by=holder)


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "*",
        "a.*b",
        "a.>.c",
        "**",
        "a. ",
        "read.>x",
        "READ.>",
        "read..>",
        "a/b",
        "\0.>",
        "é.>",
        ".>",
        "a.b.c.d.e.f.>",
    ],
)
def test_hg17_patterns_are_whole_tokens(pattern: str) -> None:
    graph, _, reader, _ = made()
    with pytest.raises(WiringError):
        graph.access.grant(reader, pattern, Action.META_READ)


def test_m99_the_audit_has_time_principal_route_action_and_number() -> None:
    graph, clock, reader, view = made()
    graph.access.grant(reader, TEMPERATURE, ALL)
    clock.advance(5)
    event = view.publish(TEMPERATURE, 2.0)
    view.publish(TEMPERATURE, 2.0)
    entries = list(graph.access.entries())
    assert [entry.number for entry in entries] == list(range(1, len(entries) + 1))
    first, second = entries[-2:]
    assert (first.principal, first.action, first.address) == ("reader", Action.OWN, TEMPERATURE.addr)
    assert (first.time, first.seq, second.seq) == (clock.now()[0], event.seq, event.seq + 1)
    (row,) = [row for row in graph.query("audit", since=second.number).rows if isinstance(row, AuditRow)]
    assert (row.principal, row.route, row.action, row.allowed) == ("reader", TEMPERATURE.text, "OWN", True)


def test_m99_the_audit_can_be_kept_on_a_route() -> None:
    graph, _, reader, view = made()
    kept: Route[AuditRow] = route(
        "kiln-7", "audit", "entries", schema=Schema.json(AuditRow), plane="debug", variant="debug"
    )
    graph.configure_retention(kept, history=100)

    def keep(entry: AuditEntry) -> None:
        graph.publish(kept, entry.row())

    graph.access.audit_to(keep)
    with pytest.raises(GrantDenied):
        view.latest(TEMPERATURE)
    graph.access.grant(reader, TEMPERATURE, ALL)
    view.latest(TEMPERATURE)
    rows = [event.value for event in graph.replay(kept).events]
    assert [(row.principal, row.allowed) for row in rows] == [
        ("reader", False),
        ("owner", True),
        ("reader", True),
    ]


def test_m98_the_audit_of_a_route_is_shown_to_whoever_may_debug_it() -> None:
    graph, _, reader, view = made()
    other = route("kiln-7", "thermal", "other", schema=Schema.float())
    graph.access.grant(reader, TEMPERATURE, ALL | Action.DEBUG_READ)
    graph.access.grant(reader, other, Action.OWN)
    view.publish(TEMPERATURE, 1.0)
    view.publish(other, 1.0)
    found = [row for row in view.query("audit").rows if isinstance(row, AuditRow)]
    assert {row.route for row in found if row.action == "OWN" and row.seq} == {TEMPERATURE.text}

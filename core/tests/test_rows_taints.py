"""Rows M94, M97, M98: taints and causes through every operator and any number of hops, and what a route's audit tells."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from meshfold.core import (
    Event,
    Graph,
    Link,
    LinkCapabilities,
    ManualClock,
    Route,
    Schema,
    Taint,
    mean,
    parse_event_id,
    route,
    value,
)
from meshfold.core.registry import PERFECT_TAINTS, TAINT_DOMAINS, Action
from meshfold.core.writes import WriteBinding

IN = route("rows", "taints", "in", schema=Schema.float())
OTHER = route("rows", "taints", "other", schema=Schema.float())
OUT = route("rows", "taints", "out", schema=Schema.float())
PULSE = route("rows", "taints", "pulse", schema=Schema.bool())
PULSE_SIDE = route("rows", "taints", "side", schema=Schema.float())
SEALED = Link("inside", "loopback", LinkCapabilities(ordered=True, authenticated=True, sealed=True))
#: The worst value of each domain.
WORST = sorted(
    taint for values in TAINT_DOMAINS.values() for taint in values[-1:] if taint not in PERFECT_TAINTS
)


def twice(state: float, item: float) -> tuple[float, float]:
    return state + item, state + item


def mailbox(graph: Graph, source: Route[float], sink: Route[float]) -> object:
    box = graph.mailbox(f"box {sink.text}", schema=source.schema)
    graph.connect(source, box)
    return box.connect(sink)


def windowed(graph: Graph, source: Route[float], sink: Route[float]) -> object:
    return graph.window(source, 2, aggregate=mean()).into(sink)


#: One hop of each kind: installs it from one route to another.
HOPS: dict[str, Callable[[Graph, Route[float], Route[float]], object]] = {
    "connect": lambda g, a, b: g.connect(a, b),
    "bridge": lambda g, a, b: g.bridge(a, b, link=SEALED),
    "mailbox": mailbox,
    "map": lambda g, a, b: g.pipe(a).map(lambda item: item + 1).into(b),
    "native map": lambda g, a, b: g.pipe(a).map(value + 1).into(b),
    "filter": lambda g, a, b: g.filter(a, value > -1).into(b),
    "flat map": lambda g, a, b: g.pipe(a).flat_map(lambda item: [item]).into(b),
    "distinct": lambda g, a, b: g.pipe(a).distinct().into(b),
    "stateful map": lambda g, a, b: g.stateful_map(a, 0.0, twice, b),
    "scan": lambda g, a, b: g.pipe(a).scan(lambda state, item: state + item, 0.0).into(b),
    "rolling": lambda g, a, b: g.pipe(a).map(mean(3)).into(b),
    "count window": windowed,
    "take": lambda g, a, b: g.pipe(a).take(9).into(b),
    "capacitor": lambda g, a, b: g.capacitor(a, b, immediate=True),
    "resistor": lambda g, a, b: g.resistor(a, b, gate=lambda item: True),
    "dedupe": lambda g, a, b: g.pipe(a).dedupe().into(b),
    "throttle": lambda g, a, b: g.pipe(a).throttle(1e-9).into(b),
    "join latest": lambda g, a, b: g.join_latest(a, OTHER, combine=value[0]).into(b),
    "lookup join": lambda g, a, b: g.lookup_join(a, OTHER, value[0]).into(b),
    "fan in": lambda g, a, b: g.fan_in([a, PULSE_SIDE], b, order="unsafe"),
    "scatter": lambda g, a, b: g.scatter(a, [b], by="turns"),
}


def chain(graph: Graph, hop: str) -> list[Route[float]]:
    """Three hops of one kind behind each other."""
    routes = [IN, *(route("rows", "taints", f"hop-{n}", schema=Schema.float()) for n in range(3))]
    for source, sink in itertools.pairwise(routes):
        HOPS[hop](graph, source, sink)
    graph.publish(OTHER, 0.0)
    return routes


@pytest.mark.parametrize("hop", sorted(HOPS))
def test_m94_taints_of_every_domain_go_through_three_hops_of_every_kind(hop: str) -> None:
    for taint in WORST:
        graph = Graph(clock=ManualClock(1_000_000))
        routes = chain(graph, hop)
        graph.publish(IN, 1.0, taints=[taint])
        made = graph.latest(routes[-1])
        assert made is not None, taint
        # To see each event once is what clears this one, and what proves that it may (S29).
        assert (taint in made.taints) != (hop == "dedupe" and taint == Taint.DELIVERY_DUPLICATED)


def test_m94_a_value_that_means_nothing_is_wrong_vanishes_beside_a_worse_one() -> None:
    graph = Graph()
    graph.join_latest(IN, OTHER, combine=value[0] + value[1]).into(OUT)
    graph.publish(IN, 1.0, taints=[Taint.TIME_PERFECT, Taint.TRUST_VERIFIED])
    graph.publish(OTHER, 1.0, taints=[Taint.TIME_ESTIMATED])
    made = graph.latest(OUT)
    assert made is not None
    assert set(made.taints) == {"TIME_ESTIMATED", "TRUST_VERIFIED"}


def told_by(graph: Graph, made: Event[Any]) -> Route[Any]:
    """The route of an event's parent."""
    (parent,) = made.parents
    found = graph.route(parse_event_id(parent)[2])
    assert found is not None
    return found


@pytest.mark.parametrize("hop", sorted(HOPS))
def test_m97_every_hop_of_every_kind_names_its_causes_in_one_trace(hop: str) -> None:
    graph = Graph(clock=ManualClock(1_000_000))
    routes = chain(graph, hop)
    sent = graph.publish(IN, 1.0, correlation="job-7")
    cause = sent.id
    for r in routes[1:]:
        made = graph.latest(r)
        assert made is not None
        told = graph.lineage(made.id)
        assert told is not None
        # A mailbox has a route of its own in between.
        nearest = made.parents if hop != "mailbox" else graph.latest(told_by(graph, made)).parents  # type: ignore[union-attr]
        assert cause in nearest
        assert (told.correlation, told.route) == ("job-7", r.text)
        numbers = {parse_event_id(parent)[3] for parent in made.parents}
        assert all(any(n in range(p.first, p.last + 1) for p in told.parents) for n in numbers)
        if "join" not in hop:
            # Inputs of several traces begin a new one; everything else goes on in the trace it came in.
            assert told.trace == sent.trace
        cause = made.id


def test_m97_publishing_in_an_observer_with_the_event_as_parent_goes_on_in_its_trace() -> None:
    graph = Graph()
    graph.observe(IN, lambda event: graph.publish(OUT, event.value, parents=[event]))
    sent = graph.publish(IN, 1.0)
    made = graph.latest(OUT)
    assert made is not None
    assert (made.trace, made.causality, made.parents) == (sent.trace, sent.id, [sent.id])


def test_m97_lineage_goes_with_its_event() -> None:
    graph = Graph()
    graph.configure_retention(IN, history=2)
    first = graph.publish(IN, 1.0)
    assert graph.lineage(first.id) is not None
    graph.publish_many(IN, [2.0, 3.0])
    assert graph.lineage(first.id) is None


def test_m97_a_parent_that_is_gone_or_waits_deep_in_the_queue_is_found_or_not_at_once() -> None:
    graph = Graph()
    tainted: list[str] = []
    found: list[list[str]] = []

    def begin(event: Any) -> None:
        # Inside a turn everything that is published waits: the first of many is no longer near.
        first = graph.publish(IN, 0.0, taints=[Taint.TIME_UNKNOWN])
        tainted.append(first.id)
        for number in range(20_000):
            graph.publish(OTHER, float(number))
        for _ in range(2_000):
            found.append(graph.publish(OUT, 1.0, parents=[first]).taints)
            graph.publish(OUT, 2.0, parents=[first.id])

    graph.observe(PULSE, begin)
    graph.publish(PULSE, True)
    assert len(found) == 2_000
    assert all(taints == ["TIME_UNKNOWN"] for taints in found)
    assert graph.latest(OUT).taints == ["TIME_UNKNOWN"]  # type: ignore[union-attr]
    # What is gone leaves no taint, and is still named.
    graph.configure_retention(IN, history=0)
    late = graph.publish(OUT, 3.0, parents=tainted)
    assert (late.taints, late.parents) == ([], tainted)


def test_m98_the_audit_of_a_route_counts_each_act_and_names_writers_readers_and_repairs() -> None:
    graph = Graph()
    principal = graph.access.principal("writer")
    graph.access.grant(principal, IN, Action.META_READ | Action.PAYLOAD_OPEN | Action.OWN)
    view = graph.view(principal)
    view.publish(IN, 1.0)
    view.publish(IN, 1.0)
    fixed = graph.pipe(IN).repair(
        "time", cleared=["TIME_UNKNOWN"], added=["TIME_REPAIRED"], proof="a second clock", by="line-2"
    )
    fixed.into(OUT)
    graph.observe(OUT, lambda event: None)
    sent = graph.publish(IN, 2.0, taints=[Taint.TIME_UNKNOWN])
    told = graph.route_audit(IN)
    assert [(w.name, w.kind, w.last) for w in told.writers] == [(graph.name, "publish", 3)]
    assert [edge.kind for edge in told.readers] == ["pipe"]
    acts = [entry for entry in told.entries if entry.principal == "writer" and entry.seq]
    assert [entry.seq for entry in acts] == [1, 2]
    assert told.taints.seen == {Taint.TIME_UNKNOWN}
    after = graph.route_audit(OUT)
    assert [w.kind for w in after.writers] == ["publish", "pipe"]
    assert [edge.kind for edge in after.readers] == ["observer"]
    made = graph.latest(OUT)
    assert made is not None
    assert made.parents == [sent.id]
    assert after.repairs[-1] == (made.id, "repaired TIME_UNKNOWN by line-2: a second clock")
    assert graph.audit() == list(graph.access.entries())
    assert graph.audit(since=len(graph.audit()))[0] == graph.audit()[-1]


def test_m98_a_route_of_a_binding_names_its_request() -> None:
    graph = Graph()
    binding = WriteBinding.logical("rows", "taints", "set", schema=Schema.float())
    graph.bind(binding)
    assert graph.route_audit(binding.reported).requests == (binding.request.text,)
    assert graph.route_audit(IN).requests == ()

"""Links of a graph: what they can keep, and that what they cannot is refused or marked."""

from __future__ import annotations

import pytest
from meshfold.core import (
    Event,
    Graph,
    JoinInput,
    Link,
    LinkCapabilities,
    Schema,
    SchemaMismatch,
    Taint,
    WiringError,
    route,
)

HERE = route("site-a", "line", "level", schema=Schema.float(), secrecy="none")
THERE = route("site-b", "line", "level", schema=Schema.float(), secrecy="none")
SEALED = route("site-a", "line", "recipe", schema=Schema.float())
COPY = route("site-b", "line", "recipe", schema=Schema.float())
WIRE = Link("wire", "serial", LinkCapabilities(ordered=True))
TUNNEL = Link("tunnel", "tls", LinkCapabilities.of(["ordered", "acknowledged", "durable", "sealed"]))


def test_m114_a_link_says_which_contracts_it_keeps() -> None:
    assert WIRE.contracts() == ("at_most_once",)
    assert TUNNEL.contracts() == ("at_most_once", "at_least_once")
    assert TUNNEL.lacks("effectively_once") == ["deduplicated"]
    whole = Link("whole", "bus", LinkCapabilities(*[True] * 9))
    assert whole.contracts() == ("at_most_once", "at_least_once", "effectively_once", "latest")
    assert whole.taints() == ()
    assert whole.capabilities == LinkCapabilities.of(whole.capabilities.names())
    with pytest.raises(WiringError, match="unknown contract"):
        WIRE.lacks("often")
    with pytest.raises(WiringError, match="unknown capability 'fast'"):
        LinkCapabilities.of(["fast"])


def test_m114_what_a_link_carried_is_marked_with_what_it_cannot_keep() -> None:
    graph = Graph()
    graph.register_link(Link("radio", "lora"))
    operator = graph.bridge(HERE, THERE, link="radio")
    seen: list[Event[float]] = []
    graph.observe(THERE, seen.append)
    sent = graph.publish(HERE, 1.5, taints=[Taint.TIME_ESTIMATED])
    assert [event.value for event in seen] == [1.5]
    assert seen[0].parents == [sent.id]
    assert set(seen[0].taints) == {
        Taint.TIME_ESTIMATED,
        Taint.ORDER_POSSIBLY_OUT_OF_ORDER,
        Taint.TRUST_UNVERIFIED,
        Taint.TRUST_PLAINTEXT,
    }
    assert operator.describe().label == "bridge"
    operator.close()
    graph.publish(HERE, 2.5)
    assert len(seen) == 1


def test_m114_a_bridge_that_a_link_cannot_carry_is_refused_and_names_what_lacks() -> None:
    graph = Graph()
    graph.register_link(WIRE)
    with pytest.raises(
        WiringError, match="wire cannot carry .* at_least_once: it is not acknowledged, durable"
    ):
        graph.bridge(HERE, THERE, link="wire", contract="at_least_once")
    with pytest.raises(WiringError, match="it is not sealed"):
        graph.bridge(SEALED, COPY, link="wire")
    bulk = route("site-a", "line", "scans", schema=Schema.bytes(), layer="bulk")
    with pytest.raises(WiringError, match="it is not bulk"):
        graph.bridge(bulk, route("site-b", "line", "scans", schema=Schema.bytes()), link=TUNNEL)
    with pytest.raises(WiringError, match="no link is named 'rope'"):
        graph.bridge(HERE, THERE, link="rope")
    with pytest.raises(SchemaMismatch):
        graph.bridge(HERE, route("site-b", "line", "text", schema=Schema.str()), link="wire")  # type: ignore[misc]
    assert graph.operators() == []
    graph.bridge(SEALED, COPY, link="tunnel", contract="at_least_once")
    assert [info.label for info in graph.operators()] == ["bridge"]


def test_m114_links_are_known_by_name_and_forgotten() -> None:
    graph = Graph()
    assert graph.register_link(WIRE) is WIRE
    graph.register_link(Link("wire", "serial", LinkCapabilities(ordered=True)))
    graph.register_link(TUNNEL)
    assert [link.name for link in graph.links()] == ["tunnel", "wire"]
    with pytest.raises(WiringError, match="can do something else"):
        graph.register_link(Link("wire", "serial"))
    with pytest.raises(WiringError, match="a link named ''"):
        graph.register_link(Link("", "serial"))
    graph.unregister_link("wire")
    graph.unregister_link("wire")
    assert [link.name for link in graph.links()] == ["tunnel"]


def test_m59_m114_a_join_over_a_link_that_cannot_bring_what_it_needs_is_refused() -> None:
    graph = Graph()
    left = JoinInput(HERE)
    with pytest.raises(WiringError, match="link wire, which is not replayable"):
        graph.plan_join("over", left, JoinInput(THERE, materialized=True, link=WIRE))
    with pytest.raises(WiringError, match="link tunnel, which is not credited"):
        graph.plan_join("over", JoinInput(HERE, link=TUNNEL), JoinInput(THERE, bounded=True))
    keeps = Link("log", "stream", LinkCapabilities(replayable=True))
    plan = graph.plan_join("over", left, JoinInput(THERE, materialized=True, link=keeps))
    assert plan.kind == "lookup"

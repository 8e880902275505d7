"""Ephemeral routes, middleware, retention, and the catalog of parts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from meshfold.core import Action, Event, Graph, ManualClock, Schema, SchemaMismatch, Taint, WiringError, route
from meshfold.core.catalog import parts
from meshfold.core.errors import GrantDenied
from meshfold.core.middleware import Middleware

TEMPERATURE = route("kiln-7", "thermal", "temperature", schema=Schema.float("Celsius"))


def test_m102_an_ephemeral_route_keeps_nothing_and_ends_with_its_lifetime() -> None:
    clock = ManualClock()
    graph = Graph(clock=clock)
    noise = graph.ephemeral("kiln-7", "noise", "a", schema=Schema.float(), ttl_s=10.0)
    seen: list[float] = []
    graph.observe(noise.route, lambda event: seen.append(event.value))
    event = noise.publish(0.5)
    assert event.taints == ["DET_NONREPLAYABLE"]
    assert noise.route.addr.layer == "ephemeral"
    assert graph.latest(noise.route) is None
    assert graph.replay(noise.route).events == []
    assert noise.latest is not None
    late: list[float] = []
    graph.observe(noise.route, lambda event: late.append(event.value))
    assert (seen, late) == ([0.5], [])
    clock.advance(9.0)
    graph.advance()
    assert noise.open
    clock.advance(2.0)
    graph.advance()
    assert not noise.open
    assert noise.latest is None
    assert [edge for edge in graph.edges() if edge.route == noise.route.text] == []
    with pytest.raises(WiringError, match="has ended"):
        noise.publish(0.5)
    with pytest.raises(WiringError, match="used before"):
        graph.ephemeral("kiln-7", "noise", "a", schema=Schema.float(), ttl_s=10.0)


def test_m102_the_system_clock_ends_it_without_anybody_asking() -> None:
    graph = Graph()
    noise = graph.ephemeral("kiln-7", "noise", "a", schema=Schema.float(), ttl_s=0.01)
    while noise.open:
        graph.deadline()
    assert noise.latest is None


def test_m102_seeded_entropy_says_its_seed_and_promotion_keeps_the_taint() -> None:
    graph = Graph()
    kept = route("kiln-7", "noise", "kept", schema=Schema.float())
    with graph.ephemeral("kiln-7", "noise", "a", schema=Schema.float(), ttl_s=10.0, seed=7) as noise:
        with pytest.raises(WiringError, match="nothing to promote"):
            noise.promote(kept)
        event = noise.publish(0.5)
        assert (event.taints, event.correlation) == (["DET_SEEDED_ENTROPY"], "seed:7")
        copy = noise.promote(kept)
        with pytest.raises(WiringError, match="ephemeral"):
            noise.promote(noise.route)
        with pytest.raises(SchemaMismatch):
            graph.publish(route("kiln-7", "noise", "kept", schema=Schema.int()), 1)
    assert copy.parents == [event.id]
    assert Taint.DET_SEEDED_ENTROPY in copy.taints
    assert graph.latest(kept) is not None


def test_m102_an_ephemeral_route_is_private() -> None:
    graph = Graph()
    reader = graph.access.principal("reader")
    graph.access.grant(reader, ">", Action.META_READ | Action.OWN)
    noise = graph.ephemeral("kiln-7", "noise", "a", schema=Schema.float(), ttl_s=10.0)
    view = graph.view(reader)
    with pytest.raises(GrantDenied, match="private"):
        view.observe(noise.route, print)
    addresses = [row.address for row in view.query("catalog").rows]  # type: ignore[union-attr]
    assert noise.route.address not in addresses


@pytest.mark.parametrize("ttl_s", [0, -1, 1e12, float("nan")])
def test_an_ephemeral_route_needs_a_lifetime(ttl_s: float) -> None:
    with pytest.raises(WiringError, match="lifetime"):
        Graph().ephemeral("kiln-7", "noise", "a", schema=Schema.float(), ttl_s=ttl_s)


class Recorder(Middleware):
    """Notes what passes, in order."""

    def __init__(self, name: str, notes: list[str]) -> None:
        self.name = name
        self.notes = notes

    def publish(
        self, r: Any, value: Any, envelope: dict[str, Any], go: Callable[..., Event[Any]]
    ) -> Event[Any]:
        self.notes.append(f"{self.name} before {value}")
        event = go(value, envelope)
        self.notes.append(f"{self.name} after {event.seq}")
        return event

    def deliver(self, event: Event[Any], go: Callable[[Event[Any]], Any]) -> Any:
        self.notes.append(f"{self.name} delivers {event.seq}")
        return go(event)


class Limit(Middleware):
    """Changes and refuses values."""

    def publish(
        self, r: Any, value: Any, envelope: dict[str, Any], go: Callable[..., Event[Any]]
    ) -> Event[Any]:
        if value < 0:
            raise ValueError("below zero")
        return go(min(value, 100.0), {**envelope, "key": "limited"})


def test_m116_hooks_run_around_publish_and_delivery_in_their_order() -> None:
    graph = Graph()
    notes: list[str] = []
    layer = graph.layer(Recorder("a", notes), Recorder("b", notes))
    layer.observe(TEMPERATURE, lambda event: notes.append(f"got {event.value}"))
    layer.publish(TEMPERATURE, 1.0)
    assert notes == [
        "a before 1.0",
        "b before 1.0",
        "a delivers 1",
        "b delivers 1",
        "got 1.0",
        "b after 1",
        "a after 1",
    ]
    notes.clear()
    graph.publish(TEMPERATURE, 2.0)
    assert notes == ["a delivers 2", "b delivers 2", "got 2.0"]


def test_m116_a_hook_may_change_or_refuse() -> None:
    graph = Graph()
    layer = graph.layer(Limit())
    event = layer.publish(TEMPERATURE, 500.0)
    assert (event.value, event.key) == (100.0, "limited")
    with pytest.raises(ValueError, match="below zero"):
        layer.publish(TEMPERATURE, -1.0)
    assert graph.published(TEMPERATURE) == 1


def test_m116_a_hook_that_raises_on_delivery_is_that_observers_failure() -> None:
    class Breaks(Middleware):
        def deliver(self, event: Event[Any], go: Callable[[Event[Any]], Any]) -> Any:
            raise RuntimeError("broken hook")

    graph = Graph()
    seen: list[float] = []
    graph.layer(Breaks()).observe(TEMPERATURE, lambda event: seen.append(event.value))
    graph.observe(TEMPERATURE, lambda event: seen.append(event.value))
    graph.publish(TEMPERATURE, 1.0)
    assert seen == [1.0]
    count, failures = graph.failures()
    assert count == 1
    assert "broken hook" in failures[0][1]
    assert "behind Breaks" in failures[0][0]


def test_m116_what_is_no_hook_is_refused() -> None:
    with pytest.raises(WiringError):
        Graph().layer()
    with pytest.raises(WiringError, match="no Middleware"):
        Graph().layer(print)  # type: ignore[arg-type]


def test_m92_retention_by_count_bytes_age_and_none() -> None:
    clock = ManualClock()
    graph = Graph(clock=clock)

    def kept() -> list[float]:
        return [event.value for event in graph.replay(TEMPERATURE).events]

    for value in range(20):
        graph.publish(TEMPERATURE, float(value))
    assert kept() == [float(value) for value in range(12, 20)]
    graph.configure_retention(TEMPERATURE, history=3)
    assert kept() == [17.0, 18.0, 19.0]
    graph.configure_retention(TEMPERATURE, history=100, max_bytes=16)
    assert kept() == [18.0, 19.0]
    graph.configure_retention(TEMPERATURE, history=100, max_age=10.0)
    clock.advance(11.0)
    graph.publish(TEMPERATURE, 20.0)
    assert kept() == [20.0]
    graph.configure_retention(TEMPERATURE, history=0)
    assert graph.latest(TEMPERATURE) is None
    late: list[float] = []
    graph.observe(TEMPERATURE, lambda event: late.append(event.value))
    assert late == []
    graph.publish(TEMPERATURE, 21.0)
    assert late == [21.0]
    assert graph.latest(TEMPERATURE) is None


def test_m128_the_catalog_lists_the_parts_that_are_there() -> None:
    found = {part.name: part for part in parts()}
    assert (
        found["graph.capacitor"].needs[:2] == ("source", "demand")
        or "source" in found["graph.capacitor"].needs
    )
    assert "sink" in found["graph.capacitor"].gives
    assert found["graph.capacitor"].knobs["capacity"] == "1"
    assert "of" in found["Schema.json"].required or "of" in found["Schema.json"].knobs
    for name in (
        "graph.watchdog",
        "pipe.map",
        "pipe.filter",
        "Schema.numpy",
        "PeripheralAdapter",
        "EventLog",
    ):
        assert found[name].summary, name
    assert len(found) == len(parts()) > 50
    assert parts() == parts()
    for part in found.values():
        assert part.summary, part.name

"""Contracts between versions of a schema (S1, HS5): what is accepted is upcast where it enters, the rest refused by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
from meshfold.core import DecodeError, Event, Graph, Route, Schema, SchemaMismatch, route
from meshfold.core.schema import rewrite_payloads


@dataclass
class Fahrenheit:
    """What old thermometers say."""

    degrees: float


@dataclass
class Reading:
    """What new ones say."""

    celsius: float
    unit: str = "C"


@dataclass
class Located:
    """What the newest say."""

    celsius: float
    place: str
    unit: str = "C"


@dataclass
class ReadingMore:
    """A reading with one more field that has a default."""

    celsius: float
    unit: str = "C"
    tags: list[str] = field(default_factory=list[str])


V1 = Schema.of(Fahrenheit, name="thermo")
V2 = Schema.of(Reading, name="thermo", version=2).accepts(V1, lambda old: Reading((old.degrees - 32) / 1.8))
V3 = Schema.of(Located, name="thermo", version=3).accepts(V2, lambda old: Located(old.celsius, "?", old.unit))


def at(schema: Schema[Any]) -> Route[Any]:
    return route("o", "f", "thermo", schema=schema)


def test_m7_an_upcaster_does_not_change_the_identity() -> None:
    assert V2.id == Schema.of(Reading, name="thermo", version=2).id
    assert set(V3.upcasters) == {V1.id, V2.id}
    assert not Schema.of(Located, name="thermo", version=3).upcasters


def test_m6_an_older_producer_reaches_a_newer_reader_in_its_own_graph() -> None:
    graph = Graph()
    seen: list[Event[Reading]] = []
    graph.observe(at(V2), seen.append)
    made = graph.publish(at(V1), Fahrenheit(212.0))
    graph.publish(at(V2), Reading(20.0))
    assert [event.value for event in seen] == [Reading(100.0), Reading(20.0)]
    assert [event.seq for event in seen] == [1, 2]
    assert made.value == Reading(100.0)
    assert made.route.schema.id == V2.id
    assert graph.publish_many(at(V1), [Fahrenheit(32.0)]).first == 3
    assert seen[-1].value == Reading(0.0)


def test_versions_are_chained() -> None:
    graph = Graph()
    seen: list[Any] = []
    graph.observe(at(V3), lambda event: seen.append(event.value))
    graph.publish(at(V1), Fahrenheit(212.0))
    graph.publish(at(V2), Reading(20.0, "c"))
    assert seen == [Located(100.0, "?"), Located(20.0, "?", "c")]


def test_m11_a_newer_reader_takes_over_what_is_retained() -> None:
    graph = Graph()
    for degrees in (32.0, 212.0):
        graph.publish(at(V1), Fahrenheit(degrees))
    latest = graph.latest(at(V2))
    assert latest is not None
    assert (latest.value, latest.seq) == (Reading(100.0), 2)
    replayed: list[Any] = []
    graph.observe(at(V2), lambda event: replayed.append(event.value))
    # The older route object has published before: it must not go on as if it still owned the address.
    graph.publish(at(V1), Fahrenheit(32.0))
    assert replayed == [Reading(100.0), Reading(0.0)]


def test_m2_a_reader_never_receives_another_schemas_bytes() -> None:
    old, new = at(V1), at(V2)
    graph = Graph()
    seen: list[Any] = []
    with graph.observe(old, lambda event: seen.append(event.value)):
        with pytest.raises(SchemaMismatch, match="thermo v1; thermo v2 cannot take it over"):
            graph.observe(new, print)
        with pytest.raises(SchemaMismatch):
            graph.publish(new, Reading(1.0))
        graph.publish(old, Fahrenheit(1.0))
    assert seen == [Fahrenheit(1.0)]
    graph.observe(new, lambda event: seen.append(event.value), replay_latest=False)
    graph.publish(old, Fahrenheit(212.0))
    assert seen[-1] == Reading(100.0)


@pytest.mark.parametrize("call", ["latest", "observe", "stream", "pipe", "publish"])
def test_an_older_reader_is_refused_a_newer_schema_by_name(call: str) -> None:
    graph = Graph()
    graph.publish(at(V2), Reading(1.0))
    calls: dict[str, Any] = {
        "latest": lambda: graph.latest(at(V1)),
        "observe": lambda: graph.observe(at(V1), print),
        "stream": lambda: graph.stream(at(V1)),
        "pipe": lambda: graph.pipe(at(V1)).observe(print),
        "publish": lambda: graph.publish(at(Schema.of(Located)), Located(1.0, "x")),
    }
    with pytest.raises(SchemaMismatch, match=r"schema thermo v2"):
        calls[call]()
    assert graph.published(at(V2)) == 1


def test_a_mapper_that_raises_refuses_the_event_and_nothing_is_stored() -> None:
    def refuses(old: Fahrenheit) -> Reading:
        raise RuntimeError("no such thermometer")

    graph = Graph()
    new = at(Schema.of(Reading, name="thermo", version=2).accepts(V1, refuses))
    graph.declare(new)
    with pytest.raises(DecodeError, match="no such thermometer"):
        graph.publish(at(V1), Fahrenheit(1.0))
    assert graph.published(new) == 0


def test_a_mapper_that_makes_another_type_refuses_the_event() -> None:
    graph = Graph()
    mapper: Any = lambda old: old
    wrong: Any = Schema.of(Reading, name="thermo", version=2).accepts(V1, mapper)
    graph.declare(at(wrong))
    with pytest.raises(DecodeError, match="does not become thermo v2"):
        graph.publish(at(V1), Fahrenheit(1.0))


def test_a_take_over_that_cannot_map_what_is_retained_changes_nothing() -> None:
    graph = Graph()
    graph.publish(at(V1), Fahrenheit(1.0))
    mapper: Any = lambda old: old
    wrong: Any = Schema.of(Reading, name="thermo", version=2).accepts(V1, mapper)
    with pytest.raises(DecodeError):
        graph.latest(at(wrong))
    latest = graph.latest(at(V1))
    assert latest is not None
    assert latest.value == Fahrenheit(1.0)


def test_hs5_an_upgrade_that_only_adds_needs_no_mapper() -> None:
    schema = Schema.of(ReadingMore, version=3).accepts(Schema.of(Reading, version=2))
    graph = Graph()
    graph.declare(at(schema))
    assert graph.publish(at(Schema.of(Reading, version=2)), Reading(1.5)).value == ReadingMore(1.5)


@dataclass
class Taken:
    """Without the unit."""

    celsius: float


@dataclass
class Changed:
    """Of another type."""

    celsius: str
    unit: str = "C"


@dataclass
class Demanding:
    """With a field that has no default."""

    celsius: float
    place: str
    unit: str = "C"


@dataclass
class Inner:
    """A part."""

    reading: Reading


@dataclass
class InnerChanged:
    """A part that loses a field."""

    reading: Taken


@pytest.mark.parametrize(
    ("new", "old", "word"),
    [
        (Taken, Reading, "field unit is taken away"),
        (Fahrenheit, Taken, "required field celsius is taken away"),
        (Changed, Reading, "celsius changes its type"),
        (Demanding, Reading, "place is new and has no default"),
        (InnerChanged, Inner, r"reading\.unit is taken away"),
        (float, Reading, "only JSON"),
    ],
)
def test_hs5_an_upgrade_that_loses_something_is_refused_when_registered(
    new: Any, old: Any, word: str
) -> None:
    with pytest.raises(SchemaMismatch, match=word) as caught:
        Schema.of(new, version=2).accepts(old)
    assert caught.value.reason == "compat"


@pytest.mark.parametrize("seed", range(100))
def test_hs5_any_removed_or_changed_field_is_found(seed: int) -> None:
    names = [f"f{i}" for i in range(2 + seed % 5)]
    kinds: list[type] = [int, str, float, bool]
    fields = [(name, kinds[(seed + i) % 4]) for i, name in enumerate(names)]
    old = msgspec.defstruct("Old", fields)
    place = seed % len(fields)
    if seed % 2:
        changed = [*fields[:place], *fields[place + 1 :]]
    else:
        changed = [*fields[:place], (names[place], kinds[(seed + place + 1) % 4]), *fields[place + 1 :]]
    with pytest.raises(SchemaMismatch) as caught:
        Schema.of(msgspec.defstruct("New", changed)).accepts(old)
    assert caught.value.reason == "compat"
    assert names[place] in str(caught.value)


def test_a_version_cannot_be_registered_twice_nor_accept_itself() -> None:
    with pytest.raises(SchemaMismatch, match="itself"):
        V2.accepts(V2)
    with pytest.raises(SchemaMismatch, match="already"):
        V2.accepts(V1, lambda old: Reading(0.0))


def test_a_payload_section_is_rewritten_value_by_value() -> None:
    section = bytes([1, 3, 3]) + b"ab" + bytes([0, 2]) + b"c"
    assert rewrite_payloads(section, lambda data: data * 70) == (
        bytes([1, 3, 0x8D, 0x01]) + b"ab" * 70 + bytes([0, 71]) + b"c" * 70
    )
    assert rewrite_payloads(section, lambda data: None) == bytes([1, 3, 0, 0, 0])
    for cut in range(len(section)):
        with pytest.raises(DecodeError):
            rewrite_payloads(section[:cut], lambda data: data)
    with pytest.raises(DecodeError):
        rewrite_payloads(section + b"x", lambda data: data)
    with pytest.raises(DecodeError):
        rewrite_payloads(bytes([1]) + b"\xff" * 12, lambda data: data)

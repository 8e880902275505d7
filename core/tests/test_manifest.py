"""The wiring of a graph as a document: deterministic, loadable, planned, drawn; hostile documents are refused (S34, HS10)."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from meshfold.core import Graph, Schema, SchemaMismatch, WiringError, route
from meshfold.core.manifest import Manifest, diff, read_manifest
from meshfold.core.writes import WriteBinding

CELSIUS = route("kiln-7", "thermal", "celsius", schema=Schema.float("Celsius"))
FAHRENHEIT = route("kiln-7", "thermal", "fahrenheit", schema=Schema.float("Fahrenheit"))
COPY = route("kiln-7", "thermal", "copy", schema=Schema.float("Fahrenheit"))
DEMAND = route("kiln-7", "thermal", "demand", schema=Schema.bool())
RELEASED = route("kiln-7", "thermal", "released", schema=Schema.float("Celsius"))
SCAN = route("kiln-7", "lidar", "scan", schema=Schema.numpy("f4", (2,)), secrecy="none")
POWER = WriteBinding.logical("kiln-7", "heat", "power", schema=Schema.float("W"))


def to_fahrenheit(celsius: float) -> float:
    return celsius * 1.8 + 32


def is_hot(celsius: float) -> bool:
    return celsius > 900


FUNCTIONS = {"to_fahrenheit": to_fahrenheit, "is_hot": is_hot}


def wired(order: int = 0) -> Graph:
    """The same graph, made in one order or another."""
    graph = Graph(name="kiln")
    steps: list[Callable[[], object]] = [
        lambda: graph.pipe(CELSIUS).filter(is_hot).map(to_fahrenheit).into(FAHRENHEIT),
        lambda: graph.connect(FAHRENHEIT, COPY),
        lambda: graph.capacitor(CELSIUS, RELEASED, capacity=3, demand=DEMAND),
        lambda: graph.pipe(CELSIUS).distinct().into(RELEASED, name="twin"),
        lambda: graph.configure_retention(CELSIUS, history=32, max_age=60.0),
        lambda: graph.bind(POWER),
        lambda: graph.declare(SCAN),
    ]
    random.Random(order).shuffle(steps)
    for step in steps:
        step()
    return graph


def transcript(graph: Graph) -> list[tuple[str, int, Any]]:
    """What the graph makes of one input."""
    seen: list[tuple[str, int, Any]] = []
    for r in (FAHRENHEIT, COPY, RELEASED):
        graph.observe(r, lambda event: seen.append((event.route.text, event.seq, event.value)))
    for value in (871.5, 912.0, 930.0, 930.0):
        graph.publish(CELSIUS, value)
        graph.publish(DEMAND, True)
    graph.publish(POWER.request, 80.0)
    seen.append(("coherence", 0, graph.query("shadow", route=POWER.request.address).rows[0].coherence))  # type: ignore[union-attr]
    return seen


def test_m100_equal_wiring_gives_equal_bytes_whatever_the_order() -> None:
    documents = {wired(order).manifest().encode() for order in range(20)}
    assert len(documents) == 1
    (document,) = documents
    assert json.loads(document)["format"] == 1
    assert read_manifest(document).encode() == document


def test_m100_a_manifest_loads_back_and_behaves_the_same() -> None:
    document = wired().manifest().encode()
    loaded = Graph.load(document, functions=FUNCTIONS)
    assert loaded.manifest().encode() == document
    assert transcript(loaded) == transcript(wired())
    assert loaded.name == "kiln"
    scan = loaded.route(SCAN.tag)
    assert scan is not None
    assert (scan.schema.id, scan.secrecy) == (SCAN.schema.id, "none")
    loaded.publish(scan, np.zeros(2, "f4"))


def test_a_plan_says_what_would_change_and_changes_it() -> None:
    graph = wired()
    before = graph.manifest()
    assert not graph.plan(before, functions=FUNCTIONS)
    other = Graph(name="kiln")
    other.pipe(CELSIUS).map(to_fahrenheit).into(FAHRENHEIT)
    other.configure_retention(CELSIUS, history=4)
    target = other.manifest()
    plan = graph.plan(target, functions=FUNCTIONS, prune=True)
    assert graph.manifest() == before
    said = str(plan)
    assert "~ route read.logical.kiln-7.thermal.celsius.meta" in said
    assert f"+ operator pipe {CELSIUS.text} -> {FAHRENHEIT.text}" in said
    assert f"- connection {FAHRENHEIT.address} -> {COPY.address}" in said
    assert f"- binding {POWER.request.address}" in said
    plan.apply()
    after = graph.manifest()
    assert (after.operators, after.connections, after.bindings) == (target.operators, [], [])
    graph.publish(CELSIUS, 100.0)
    latest = graph.latest(FAHRENHEIT)
    assert latest is not None
    assert latest.value == 212.0
    assert {change.sign for change in diff(after, target)} == {"-"}
    assert {change.kind for change in diff(after, target)} == {"route"}


def test_without_prune_what_the_manifest_does_not_know_stays() -> None:
    graph = wired()
    other = Graph(name="kiln")
    other.pipe(CELSIUS).map(to_fahrenheit).into(FAHRENHEIT)
    graph.plan(other.manifest(), functions=FUNCTIONS).apply()
    names = [operator.name for operator in graph.manifest().operators]
    # The operator of the same name was replaced, not doubled.
    assert names.count(f"pipe {CELSIUS.text} -> {FAHRENHEIT.text}") == 1
    assert "twin" in names
    assert len(graph.manifest().connections) == 1


def test_a_step_that_fails_takes_back_the_others() -> None:
    graph = wired()
    before = graph.manifest().encode()
    document = json.loads(before)
    document["connections"].append({"source": COPY.address, "sink": FAHRENHEIT.address})
    document["operators"].append({**document["operators"][0], "name": "fresh"})
    document["routes"][0]["retention"] = {"events": 1}
    document["bindings"] = []
    with pytest.raises(WiringError, match="cycle") as caught:
        graph.plan(document, functions=FUNCTIONS, prune=True).apply()
    assert f"{COPY.address} -> {FAHRENHEIT.address}" in str(caught.value)
    assert graph.manifest().encode() == before
    assert transcript(graph) == transcript(wired())


def test_a_plan_of_yesterday_is_refused() -> None:
    graph = wired()
    plan = graph.plan(Graph(name="kiln").manifest(), prune=True)
    graph.declare(route("o", "f", "s", schema=Schema.int()))
    with pytest.raises(WiringError, match="changed since"):
        plan.apply()


def test_functions_have_to_be_given_and_told_apart() -> None:
    document = wired().manifest()
    with pytest.raises(WiringError, match="is_hot, to_fahrenheit"):
        Graph.load(document)
    graph = Graph()
    graph.pipe(CELSIUS).map(lambda c: c + 1).into(RELEASED)
    graph.pipe(CELSIUS).map(lambda c: c + 2).into(RELEASED)
    with pytest.raises(WiringError, match="which is which"):
        Graph.load(graph.manifest(), functions={"<lambda>": lambda c: c})


def test_a_route_of_another_schema_is_refused_before_anything_changes() -> None:
    graph = Graph()
    graph.publish(route("kiln-7", "thermal", "celsius", schema=Schema.int()), 1)
    before = graph.manifest().encode()
    with pytest.raises(SchemaMismatch, match="another schema"):
        graph.plan(wired().manifest(), functions=FUNCTIONS)
    assert graph.manifest().encode() == before


def test_what_was_taken_off_is_in_no_manifest() -> None:
    graph = Graph()
    empty = graph.manifest().operators
    operator = graph.pipe(CELSIUS).map(to_fahrenheit).into(FAHRENHEIT)
    assert len(graph.manifest().operators) == 1
    operator.close()
    assert graph.manifest().operators == empty


def bad(change: Any) -> bytes:
    document = json.loads(wired().manifest().encode())
    change(document)
    return json.dumps(document).encode()


BAD: dict[str, tuple[bytes, str]] = {
    "not JSON": (b"{", "document"),
    "not an object": (b"[]", "document"),
    "a key twice": (b'{"format":1,"format":1,"name":"x","routes":[]}', "one key twice"),
    "deep": (b"[" * 100_000, "nested too deep"),
    "another format": (bad(lambda d: d.update(format=2)), "format 2"),
    "an unknown key": (bad(lambda d: d.update(code="import os")), "unknown field"),
    "a short address": (bad(lambda d: d["routes"][0].update(address="a/b/c")), "not a full address"),
    "no address": (bad(lambda d: d["routes"][0].update(address="")), r"routes\[0\]"),
    "no schema": (bad(lambda d: d["routes"][0].update(schema={"kind": "pickle"})), r"routes\[0\]"),
    "a route twice": (bad(lambda d: d["routes"].append(d["routes"][0])), "stands there twice"),
    "a negative bound": (bad(lambda d: d["routes"][0].update(retention={"events": -1})), "negative"),
    "an unknown secrecy": (bad(lambda d: d["routes"][0].update(secrecy="open")), "secrecy"),
    "a missing sink": (
        bad(lambda d: d["operators"][0].update(sink="read.logical.x.y.z.meta")),
        r"operators\[0\].sink",
    ),
    "no sink at all": (bad(lambda d: d["operators"][0].pop("sink")), "neither sink nor observer"),
    "no input": (bad(lambda d: d["operators"][0].update(inputs=[])), "no input"),
    "a missing input": (
        bad(lambda d: d["operators"][0]["inputs"][0].update(route="read.logical.x.y.z.meta")),
        r"operators\[0\].inputs\[0\].route",
    ),
    "a stage that is not there": (
        bad(lambda d: d["operators"][0]["inputs"][0].update(stage=99)),
        "no stage 99",
    ),
    "a missing end": (
        bad(lambda d: d["connections"][0].update(sink="read.logical.x.y.z.meta")),
        r"connections\[0\].sink",
    ),
    "a missing part": (
        bad(lambda d: d["bindings"][0].update(desired="read.logical.x.y.z.meta")),
        r"bindings\[0\].desired",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_hs10_a_bad_manifest_is_refused_with_its_place(name: str) -> None:
    document, word = BAD[name]
    with pytest.raises(WiringError, match=word):
        Graph.load(document, functions=FUNCTIONS)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda d: d["operators"][0]["stages"].append({"kind": "no such operator"}), "no such operator"),
        (lambda d: d["operators"][-1]["stages"][0].update(config={"surprise": 1}), ""),
        (
            lambda d: d["operators"].append({**d["operators"][-1], "sink": CELSIUS.address, "name": "round"}),
            "cycle",
        ),
        (lambda d: d["connections"].append({"source": CELSIUS.address, "sink": COPY.address}), "carries"),
        (lambda d: d["bindings"][0].update(reported=DEMAND.address), "stream"),
    ],
)
def test_hs10_a_manifest_that_cannot_be_wired_leaves_no_graph(change: Any, word: str) -> None:
    with pytest.raises((WiringError, SchemaMismatch)) as caught:
        Graph.load(bad(change), functions=FUNCTIONS)
    assert word in str(caught.value)


def test_hs10_a_hundred_thousand_operators_are_refused_by_number() -> None:
    document = json.loads(wired().manifest().encode())
    document["operators"] = [document["operators"][0]] * 100_000
    with pytest.raises(WiringError, match="operators: 100000 entries, at most"):
        Graph.load(document, functions=FUNCTIONS)


@pytest.mark.parametrize("seed", range(150))
def test_hs10_damaged_manifests_are_refused_or_loaded_and_never_half(seed: int) -> None:
    rng = random.Random(seed)
    good = json.loads(wired().manifest().encode())
    junk: list[Any] = [None, True, -1, 2**63, "", "x" * 500, ">", [], {}, [[]], {"kind": 1}, CELSIUS.address]

    def change(node: Any) -> Any:
        if rng.random() < 0.02:
            return rng.choice(junk)
        if isinstance(node, dict):
            return {key: change(item) for key, item in node.items() if rng.random() > 0.005}
        if isinstance(node, list):
            return [change(item) for item in node]
        return node

    document = change(good)
    graph = Graph(name="kiln")
    before = graph.manifest().encode()
    try:
        graph.plan(document, functions=FUNCTIONS).apply()
    except (WiringError, SchemaMismatch) as error:
        assert len(str(error)) < 600
        after = graph.manifest()
        assert (after.operators, after.connections, after.bindings) == ([], [], [])
    else:
        assert graph.manifest().encode() != before or document == json.loads(before)


def test_m100_mermaid_names_every_route_and_operator_once() -> None:
    text = wired().diagram()
    assert text == wired(7).diagram()
    assert text.startswith("flowchart LR\n")
    for r in (CELSIUS, FAHRENHEIT, COPY, DEMAND, RELEASED, SCAN):
        assert text.count(f'"{r.text}"') == 1
    assert text.count("-->") >= 8


def test_m100_svg_is_whole_loads_nothing_and_escapes() -> None:
    graph = wired()
    graph.name = '<script>&"'
    picture = graph.diagram("svg")
    tree = ElementTree.fromstring(picture)
    assert tree.tag == "{http://www.w3.org/2000/svg}svg"
    assert "<script" not in picture
    assert "href" not in picture
    assert picture.count("http") == 1
    bundle = graph._repr_mimebundle_()
    assert bundle["image/svg+xml"] == picture
    assert graph.diagram() in bundle["text/markdown"]
    with pytest.raises(WiringError, match="no diagram"):
        graph.diagram("png")  # type: ignore[arg-type]


def test_a_large_graph_is_drawn_in_part_and_says_so() -> None:
    graph = Graph()
    for number in range(600):
        graph.declare(route("o", "f", f"s{number}", schema=Schema.int()))
    assert "and 100 more" in graph.diagram()
    assert "and 100 more" in graph.diagram("svg")


def test_the_manifest_is_typed() -> None:
    manifest: Manifest = wired().manifest()
    assert [entry.sink for entry in manifest.connections] == [COPY.address]
    assert manifest.bindings[0].request == POWER.request.address

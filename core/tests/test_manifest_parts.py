"""Mailboxes, flow policies, control loops, links and bounds in the manifest, in the topology, in diagrams - and off again."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from meshfold.core import (
    Graph,
    Link,
    LinkCapabilities,
    Route,
    Schema,
    Taint,
    TaintExceeded,
    WiringError,
    route,
)
from meshfold.core.mailbox import MailboxDescriptor
from meshfold.core.manifest import Manifest, diff, read_manifest
from meshfold.core.policy import FlowPolicy
from meshfold.core.query import LinkRow
from meshfold.core.writes import Frame

JOBS = route("dock", "crane", "jobs", schema=Schema.int())
DONE = route("dock", "crane", "done", schema=Schema.int())
LOST = route("dock", "crane", "lost", schema=Schema.int())
LEVEL = route("dock", "tank", "level", schema=Schema.float())
VALVE = route("dock", "tank", "valve", schema=Schema.float())
COPY = route("dock", "tank", "copy", schema=Schema.float())
QUEUED = route("dock", "tank", "queued", schema=Schema.float())
EPOCHS = route("dock", "time", "epoch", schema=Schema.int())


def regulate(frame: Frame) -> Mapping[Route[Any], Any]:
    return {VALVE: frame[LEVEL] * 2}


FUNCTIONS: dict[str, Callable[..., Any]] = {"regulate": regulate}


def wired(order: int = 0) -> Graph:
    graph = Graph(name="dock")
    # What is made from a policy comes after it, whatever the order of the rest.
    graph.configure_flow_defaults(FlowPolicy(credit_class="control"))
    graph.configure_sink_flow(QUEUED, FlowPolicy(async_boundary="queued", overflow="drop_oldest"))

    def mailbox() -> None:
        descriptor = MailboxDescriptor(
            capacity=7, delivery_mode="mpmc_unique", ttl=5.0, weights={"b": 2, "a": 1}
        )
        box = graph.mailbox("jobs", descriptor, schema=Schema.int(), poison=LOST)
        graph.connect(JOBS, box)
        box.connect(DONE)

    def loop() -> None:
        made = graph.control_loop(
            "tank", reads=[LEVEL], writes=[VALVE], step=regulate, missing="expire", max_age=2.0
        )
        made.follow(EPOCHS)

    steps: list[Callable[[], object]] = [
        mailbox,
        loop,
        lambda: graph.connect(LEVEL, COPY, flow=FlowPolicy(backpressure="isolate")),
        lambda: graph.connect(LEVEL, QUEUED),
        lambda: graph.register_link(Link("radio", "lora", LinkCapabilities(ordered=True))),
        lambda: graph.bound_taints(COPY, [Taint.TIME_ESTIMATED]),
    ]
    random.Random(order).shuffle(steps)
    for step in steps:
        step()
    return graph


def transcript(graph: Graph) -> list[tuple[str, Any]]:
    seen: list[tuple[str, Any]] = []
    readers: list[Route[Any]] = [DONE, VALVE, COPY, QUEUED]
    for r in readers:
        graph.observe(r, lambda event: seen.append((event.route.text, event.value)))
    graph.publish(JOBS, 1)
    graph.publish(LEVEL, 0.25)
    graph.publish(EPOCHS, 1)
    return seen


def test_m100_mailboxes_policies_loops_links_and_bounds_load_back_and_behave_the_same() -> None:
    documents = {wired(order).manifest().encode() for order in range(12)}
    assert len(documents) == 1
    (document,) = documents
    loaded = Graph.load(document, functions=FUNCTIONS)
    assert loaded.manifest().encode() == document
    assert transcript(loaded) == transcript(wired())
    assert sorted(transcript(wired())) == [
        (DONE.text, 1),
        (COPY.text, 0.25),
        (QUEUED.text, 0.25),
        (VALVE.text, 0.5),
    ]
    with pytest.raises(TaintExceeded):
        loaded.publish(COPY, 1.0, taints=[Taint.TIME_UNKNOWN])
    assert loaded.mailbox_snapshot("jobs").descriptor.weights == {"a": 1, "b": 2}
    assert not loaded.plan(document, functions=FUNCTIONS)
    assert loaded.links() == [Link("radio", "lora", LinkCapabilities(ordered=True))]


def test_m100_everything_is_taken_off_by_a_plan_and_put_back() -> None:
    graph = wired()
    whole = graph.manifest()
    bare = Manifest(whole.format, whole.name, whole.routes)
    plan = graph.plan(bare, prune=True)
    kinds = [(change.sign, change.kind) for change in plan.changes]
    assert kinds == [
        ("-", "link"),
        ("-", "flow"),
        ("-", "mailbox"),
        *[("-", "connection")] * 3,
        ("-", "loop"),
    ]
    plan.apply()
    left = graph.manifest()
    assert (left.mailboxes, left.loops, left.links, left.connections, left.flow) == ([], [], [], [], None)
    assert graph.edges() == []
    back = graph.plan(whole, functions=FUNCTIONS)
    assert {change.sign for change in back.changes} == {"+"}
    back.apply()
    assert graph.manifest().encode() == whole.encode()
    assert transcript(graph) == transcript(wired())


def test_m100_a_plan_that_fails_puts_mailboxes_and_loops_back() -> None:
    graph = wired()
    before = graph.manifest()
    wrong = Manifest(before.format, before.name, before.routes, connections=before.connections[:1])
    wrong = read_manifest(
        {
            **msgspec.to_builtins(wrong),
            "operators": [
                {
                    "name": "broken",
                    "label": "pipe",
                    "stages": [{"kind": "nothing"}],
                    "inputs": [{"route": LEVEL.address}],
                    "sink": COPY.address,
                }
            ],
        }
    )
    with pytest.raises(WiringError, match="unknown operator nothing"):
        graph.plan(wrong, prune=True).apply()
    assert graph.manifest().encode() == before.encode()


def test_m100_a_change_of_a_mailbox_is_one_off_and_one_on() -> None:
    old, new = wired().manifest(), wired().manifest()
    other = Graph.load(new, functions=FUNCTIONS)
    other.remove_mailbox("jobs")
    box = other.mailbox("jobs", MailboxDescriptor(capacity=9), schema=Schema.int(), poison=LOST)
    box.connect(DONE)
    found = {str(change) for change in diff(old, other.manifest())}
    assert found == {"- mailbox jobs", "+ mailbox jobs"}


@pytest.mark.parametrize(
    ("where", "what", "why"),
    [
        ("mailboxes", {"name": "m", "ingress": "nowhere", "poison": "nowhere"}, "no route"),
        ("mailboxes", {"descriptor": {"capacity": 0}}, "capacity of 0"),
        ("mailboxes", {"descriptor": {"capacity": "many"}}, "mailboxes\\[0\\]"),
        ("mailboxes", {"descriptor": {"colour": 1}}, "mailboxes\\[0\\]"),
        ("mailboxes", {"ingress": JOBS.address}, "is not the ingress"),
        ("loops", {"reads": ["nowhere"]}, "no route"),
        ("loops", {"missing": "guess"}, "unknown policy"),
        ("loops", {"step": "gone"}, "not given"),
        ("links", {"capabilities": ["fast"]}, "unknown capability"),
    ],
)
def test_hs10_parts_that_cannot_be_are_refused_with_their_place(
    where: str, what: dict[str, Any], why: str
) -> None:
    document = msgspec.to_builtins(wired().manifest())
    document[where][0] |= what
    with pytest.raises(WiringError, match=why):
        Graph.load(document, functions=FUNCTIONS)
    document = msgspec.to_builtins(wired().manifest())
    document["flow"]["default"] = {"overflow": "whatever"}
    with pytest.raises(WiringError, match="flow.default: unknown overflow"):
        Graph.load(document, functions=FUNCTIONS)


def test_m100_topology_and_diagrams_show_mailboxes_and_loops() -> None:
    graph = wired()
    links = {(row.source, row.target) for row in graph.topology().rows if isinstance(row, LinkRow)}
    assert links >= {
        ("mailbox:jobs", f"route:{DONE.text}"),
        (f"route:{LEVEL.text}", "loop:tank"),
        ("loop:tank", f"route:{VALVE.text}"),
    }
    assert any(target == "mailbox:jobs" for _, target in links)
    mermaid, svg = graph.diagram(), graph.diagram("svg")
    for text in (mermaid, svg):
        assert text.count("mailbox: jobs") >= 1
        assert text.count("control loop: tank") >= 1
    writers = {(row.name, row.kind) for row in graph.query("writers", route=VALVE.text).rows}  # type: ignore[union-attr]
    assert ("tank", "control loop") in writers
    graph.remove_mailbox("jobs")
    graph.control_loops()[0].close()
    assert "mailbox: jobs" not in graph.diagram()
    assert "control loop" not in graph.diagram()


def test_m100_a_spilling_mailbox_gives_its_folder_up_when_a_plan_takes_it_off(tmp_path: Path) -> None:
    graph = Graph(name="dock")
    descriptor = MailboxDescriptor(capacity=1, overflow_policy="spill_to_store", spill=tmp_path)
    box = graph.mailbox("jobs", descriptor, schema=Schema.int())
    box.connect(DONE)
    document = graph.manifest().encode()
    back = graph.remove_mailbox("jobs")
    assert not box.open
    back()
    assert graph.manifest().encode() == document
    assert graph.mailbox_snapshot("jobs").descriptor.spill == tmp_path

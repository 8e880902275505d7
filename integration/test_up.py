"""The main job: a whole sealed mesh on real telemetry of this host, killed and stopped in every way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from otlp_sink import OtlpSink


def delivered(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of the hub that delivered something."""
    return [row for row in document["routes"] if row["reader"] == "hub" and row["delivered"] > 0]


def ready(process: Any) -> bool:
    """Whether a second terminal sees data at the hub."""
    if process.process.poll() is not None:
        raise AssertionError(f"up ended early: {process.errors()}")
    answer = process.command("audit", "flow", "--json")
    if answer.returncode not in (0, 1) or not answer.stdout.strip():
        return False
    return len(delivered(json.loads(answer.stdout))) >= 12


def test_up_delivers_sealed_routes_and_refuses_the_outsider(up: Callable[..., Any]) -> None:
    process = up("--for", "6s")
    code, document = process.finish()
    assert code == 0, process.errors()
    assert len(delivered(document)) >= 12
    assert document["unexplained"] == 0
    assert all(row["unexplained"] == 0 for row in document["routes"])
    assert any("META_READ" in refusal["error"] for refusal in document["refused"])
    assert document["broker"]["plaintext_found"] == 0
    assert document["broker"]["control_found"] >= 1
    assert document["leader"]["term"] >= 1
    assert {cause["node"] for cause in document["why"]["causes"]} == {"edge"}
    spans = {span["name"]: span for span in document["trace"]["spans"]}
    derived, arrived = spans["publish hub/host/pressure"], spans["process hub/host/pressure"]
    assert (derived["service"], arrived["service"]) == ("hub", "edge")
    assert (derived["parent"], arrived["parent"]) == (None, derived["span_id"])
    assert len(derived["links"]) == 2
    assert derived["event"] == document["why"]["event"]
    assert process.leftovers() == []


def test_up_posts_the_traces_of_every_node_to_the_receiver_it_is_given(up: Callable[..., Any]) -> None:
    with OtlpSink() as sink:
        process = up("--for", "3s", "--otlp", sink.url)
        code, _ = process.finish()
        assert code == 0, process.errors()
        spans = {(span.service, span.name): span for span in sink.spans}
    refused = spans["outsider", "deny META_READ"]
    assert refused.error == "grant_denied"
    arrived = spans["hub", "process edge/host/cpu"]
    sent = {span.span: span for span in sink.spans if span.service == "edge"}
    assert sent[arrived.parent].name == "publish edge/host/cpu"
    assert sent[arrived.parent].trace == arrived.trace


def test_a_second_terminal_finds_the_running_mesh(up: Callable[..., Any], until: Callable[..., Any]) -> None:
    process = up()
    until(lambda: ready(process), "a running mesh")
    status = process.command("status", "--json")
    assert status.returncode == 0, status.stderr
    assert {"edge", "hub"} <= {node["name"] for node in json.loads(status.stdout)["nodes"]}
    groups = {group["group"]: group for group in json.loads(status.stdout)["groups"]}
    assert groups["control"]["leader"] == "hub"
    assert groups["control"]["term"] >= 1
    led = json.loads(process.command("leader", "control", "--json").stdout)
    assert (led["leader"], led["term"]) == ("hub", groups["control"]["term"])
    flow = process.command("audit", "flow", "--json")
    assert json.loads(flow.stdout)["unexplained"] == 0
    top = process.command("top", "--every", "500ms", "--json")
    assert top.returncode == 0, top.stderr
    rows = {(row["route"], row["reader"]): row for row in json.loads(top.stdout)["routes"]}
    assert rows["edge/host/cpu", "hub"]["rate_hz"] > 0
    assert {"credit", "lag", "dropped", "pending"} <= set(rows["edge/host/cpu", "hub"])
    trace = process.command("trace", "hub/host/pressure", "--json")
    assert trace.returncode == 0, trace.stderr
    assert {"hub"} <= {span["service"] for span in json.loads(trace.stdout)["spans"]}
    watched = process.command("route", "watch", "edge/host/memory", "--count", "3", "--json")
    assert watched.returncode == 0, watched.stderr
    waiting = subprocess.Popen(
        [sys.executable, "-m", "meshfold.mesh", "route", "watch", "edge/host/memory"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=process.environment,
        text=True,
    )
    assert waiting.stdout is not None
    assert waiting.stdout.readline()
    process.process.send_signal(signal.SIGINT)
    code, _ = process.finish()
    assert code == 0, process.errors()
    assert process.leftovers() == []
    # What waits for events of a mesh that ended is told so.
    _, said = waiting.communicate(timeout=60)
    assert waiting.returncode == 1
    assert "has ended" in said


def test_each_of_n_nodes_is_a_member_that_reads(up: Callable[..., Any]) -> None:
    process = up("--nodes", "4", "--for", "6s")
    code, document = process.finish()
    assert code == 0, process.errors()
    assert [node["name"] for node in document["nodes"]] == ["hub", "edge", "node-3", "node-4", "outsider"]
    assert len({node["pid"] for node in document["nodes"]}) == 5
    assert len({node["id"] for node in document["nodes"]}) == 5
    for reader in ("hub", "node-3", "node-4"):
        rows = [row for row in document["routes"] if row["reader"] == reader and row["delivered"] > 0]
        assert len(rows) >= 12, reader
        assert all(row["latency_ms"]["p50"] > 0 for row in rows)
        assert all(row["latest"] for row in rows)
    assert document["unexplained"] == 0
    assert process.leftovers() == []


def test_of_three_members_three_are_voters_and_one_that_leads_may_be_killed(
    up: Callable[..., Any], until: Callable[..., Any]
) -> None:
    process = up("--nodes", "3")
    until(lambda: ready(process), "a running mesh")

    def control() -> dict[str, Any]:
        answer = process.command("leader", "control", "--json")
        return dict(json.loads(answer.stdout)) if answer.returncode == 0 else {}

    before = control()
    assert sorted(before["voters"]) == ["edge", "hub", "node-3"]
    handed = process.command("leader", "control", "--step-down", "--json")
    assert handed.returncode == 0, handed.stderr
    until(lambda: control().get("term", 0) > before["term"], "another leader")
    leader = control()
    killed = process.child(leader["leader"])
    assert killed is not None
    killed.kill()
    until(lambda: control().get("term", 0) > leader["term"], "one after it")
    until(lambda: f"{leader['leader']} died: restarting it" in process.errors(), "its restart")
    until(lambda: ready(process), "the mesh again")
    rotated = process.command("key", "rotate", ">", "--json")
    assert rotated.returncode == 0, rotated.stderr
    process.process.send_signal(signal.SIGINT)
    code, document = process.finish()
    assert code == 0, process.errors()
    assert document["unexplained"] == 0
    assert document["leader"]["term"] > leader["term"]
    assert process.leftovers() == []


def test_more_voters_than_members_or_an_even_number_are_refused(up: Callable[..., Any]) -> None:
    for options, said in (
        (["--voters", "3"], "add --nodes 3"),
        (["--nodes", "4", "--voters", "2"], "1, 3, 5 or 7"),
    ):
        process = up(*options)
        code, _ = process.finish()
        assert code == 2
        assert said in process.errors()


def test_a_leader_that_is_told_to_step_down_is_followed_by_a_higher_token(
    up: Callable[..., Any], until: Callable[..., Any]
) -> None:
    process = up()
    until(lambda: ready(process), "a running mesh")

    def token() -> int:
        answer = process.command("leader", "pressure", "--json")
        return int(json.loads(answer.stdout)["term"]) if answer.returncode == 0 else 0

    until(lambda: token() > 0, "a leader of the derived route")
    before = token()
    done = process.command("leader", "pressure", "--step-down", "--json")
    assert done.returncode in (0, 1), done.stderr
    refused = process.command("leader", "control", "--step-down")
    assert refused.returncode == 2
    assert "one voter" in refused.stderr
    until(lambda: token() > before, "a later leadership")
    process.process.send_signal(signal.SIGINT)
    code, _ = process.finish()
    assert code == 0, process.errors()


@pytest.mark.parametrize("victim", ["edge", "hub", "nats-server"])
def test_a_killed_child_is_named_restarted_and_leaves_nothing(
    up: Callable[..., Any], until: Callable[..., Any], victim: str
) -> None:
    process = up()
    until(lambda: ready(process), "a running mesh")
    killed = process.child(victim)
    assert killed is not None
    killed.kill()
    until(lambda: victim.removeprefix("nats-") in process.errors(), f"a message that names {victim}")
    until(lambda: (fresh := process.child(victim)) is not None and fresh.pid != killed.pid, "its restart")
    until(lambda: ready(process), "the mesh again")
    process.process.send_signal(signal.SIGINT)
    code, document = process.finish()
    assert code == 0, process.errors()
    assert document["unexplained"] == 0
    if victim == "edge":
        assert any(row["unknown_tail"] for row in document["routes"])
    assert process.leftovers() == []


def test_a_server_that_dies_again_and_again_ends_up_with_exit_code_one(
    up: Callable[..., Any], until: Callable[..., Any]
) -> None:
    process = up()
    until(lambda: ready(process), "a running mesh")

    def hunt() -> bool:
        server = process.child("nats-server")
        if server is not None:
            server.kill()
        return process.process.poll() is not None

    until(hunt, "the end of up")
    code, _ = process.finish()
    assert code == 1, process.errors()
    assert "giving up" in process.errors()
    assert process.leftovers() == []


@pytest.mark.parametrize("children", [0, 1, 2, 3])
def test_ctrl_c_at_any_moment_of_the_start_leaves_nothing(
    up: Callable[..., Any], until: Callable[..., Any], children: int
) -> None:
    process = up()
    until(lambda: len(process.children()) >= children or process.process.poll() is not None, "children")
    process.children()
    process.ctrl_c()
    until(lambda: process.process.poll() is not None or "ready in" in process.errors(), "its end")
    if process.process.poll() is None and children == 0:
        # Python loses one in a hundred while it starts itself, before a line of ours. Whoever pressed it presses again.
        process.ctrl_c()
    code, _ = process.finish()
    assert process.leftovers() == []
    # Python itself, before it runs a line of ours, ends by the signal or with words of its own.
    assert "Traceback" not in process.errors() or "meshfold/mesh" not in process.errors()
    assert code in (0, 130) or (children == 0 and code in (1, -signal.SIGINT))


def test_ctrl_c_of_a_terminal_reaches_up_alone(up: Callable[..., Any], until: Callable[..., Any]) -> None:
    """Its children stop in order, when it says so; what only just starts has no time to ignore a signal."""
    process = up()
    until(lambda: len(process.children()) >= 4, "all children")
    groups = {os.getpgid(child.pid) for child in process.children()}
    assert os.getpgid(process.process.pid) not in groups
    process.ctrl_c()
    code, _ = process.finish()
    assert code == 0, process.errors()


def test_up_dies_with_its_children_on_sigkill(up: Callable[..., Any], until: Callable[..., Any]) -> None:
    process = up()
    until(lambda: len(process.children()) >= 4, "all children")
    process.process.kill()
    process.process.communicate()
    assert process.leftovers() == []


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["up", "--for", "5"], "5"),
        (["up", "--no-such-option"], "--no-such-option"),
        (["up", "--otlp", "collector:4318"], "--otlp"),
        (["up", "--health-listen", "nowhere"], "nowhere"),
        (["top", "--every", "1ms"], "--every"),
        (["trace", "nonsense"], "nonsense"),
        (["route", "latest", "no..route"], "no..route"),
        (["up", "--dir", "/proc/no-such-place"], "/proc/no-such-place"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_two(
    up: Callable[..., Any], arguments: list[str], names: str
) -> None:
    answer = up("--for", "1s").command(*arguments)
    assert answer.returncode == 2, answer.stderr
    assert names in answer.stderr
    assert len(answer.stderr.strip().splitlines()) == 1

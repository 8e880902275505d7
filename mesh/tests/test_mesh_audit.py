"""Who asked for what, allowed or refused, why and under which grant; and lives of a node in their order."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable
from typing import Any

import pytest
from meshfold.core import Schema, route
from meshfold.core.errors import ConfigError, GrantDenied
from meshfold.core.registry import Action
from meshfold.mesh.cli import app as cli
from meshfold.mesh.enrolment import attenuate_from
from meshfold.mesh.local import LocalMesh
from meshfold.mesh.node import Node
from meshfold.security import Grant, StartRecord, read_audit
from test_mesh_rotation import signed

WAIT_S = 30.0
FLOW = route("edge", "line", "flow", schema=Schema.int())


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until the condition holds."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - the condition is another party's
            await asyncio.sleep(0)


async def test_the_log_names_who_was_refused_what_and_why(mesh: LocalMesh) -> None:
    async with mesh.node("hub") as hub, mesh.node("edge") as edge, mesh.node("operator") as operator:
        await edge.share(FLOW).ready(WAIT_S)
        await hub.read(FLOW).ready(WAIT_S)
        edge.graph.publish(FLOW, 1)
        async with mesh.node("outsider") as outsider:
            with pytest.raises(GrantDenied):
                outsider.read(FLOW)
            with pytest.raises(GrantDenied):
                await outsider.session.asker.ask(outsider.session.voters[0], "audit", {}, WAIT_S)
        found = await operator.query("audit", node="hub", count=500)
        report = read_audit([line.encode() for line in found["lines"]], bytes.fromhex(found["node_pub"]))
        assert report.broken == ""
        assert report.signed_to == report.seq
        refused = [entry for entry in report.entries if not entry["allowed"]]
        assert any(entry["who"] == "outsider" and "audit" in entry["action"] for entry in refused)
        allowed = [entry for entry in report.entries if entry["who"] == "edge" and entry["action"] == "OWN"]
        assert allowed
        assert allowed[0]["grant"]
        assert "allows" in allowed[0]["because"]
    again = mesh.state_dir / "nodes" / "hub" / "audit.log"
    before = len(again.read_bytes().splitlines())
    async with mesh.node("hub"):
        pass
    lines = [line for line in again.read_bytes().split(b"\n") if line]
    assert len(lines) >= before
    assert read_audit(lines, bytes.fromhex(found["node_pub"])).broken == ""


async def test_a_log_that_was_altered_is_put_aside_and_said_so(mesh: LocalMesh) -> None:
    async with mesh.node("hub"):
        pass
    path = mesh.state_dir / "nodes" / "hub" / "audit.log"
    path.write_bytes(path.read_bytes().replace(b'"start"', b'"stare"', 1))
    async with mesh.node("hub") as hub:
        assert hub.session.audit.broken
        hub.session.audit.flush()
        entries = [json.loads(line) for line in path.read_bytes().splitlines() if b'"head"' not in line]
        assert any("does not hold" in entry["because"] for entry in entries)


def run_cli(*args: str) -> tuple[int, Any]:
    """A command's exit code and document."""
    from typer.testing import CliRunner

    result = CliRunner().invoke(cli.app, [*args, "--json"])
    return result.exit_code, json.loads(result.stdout) if result.stdout.strip() else None


def test_the_commands_list_rotate_and_read(mesh: LocalMesh) -> None:
    with mesh.node("hub") as hub, mesh.node("edge") as edge:
        edge.share(FLOW).ready(WAIT_S).result(WAIT_S)
        hub.read(FLOW).ready(WAIT_S).result(WAIT_S)
        code, document = run_cli("key", "rotate", "edge/line/flow")
        assert (code, document["epoch"]) == (0, 1)
        code, document = run_cli("key", "ls")
        assert code == 0
        assert [row["epoch"] for row in document["epochs"] if row["node"] == FLOW.address] == [1]
        code, document = run_cli("audit", "log", "--count", "50")
        assert code == 0
        assert document["holds"]
        assert {one["node"] for one in document["logs"]} == {"edge", "hub"}
        code, document = run_cli("grant", "ls")
        code, document = run_cli("grant", "show", document["grants"][0]["id"])
        assert code == 0
        assert len(document["links"]) == 2


async def test_a_holder_passes_on_less_without_anybodys_help(mesh: LocalMesh) -> None:
    reading = Action.META_READ | Action.PAYLOAD_OPEN
    async with mesh.node("hub") as hub, mesh.node("edge") as edge, mesh.node("operator") as operator:
        await edge.share(FLOW).ready(WAIT_S)
        async with mesh.node("third") as third, mesh.node("outsider"):
            pass
        assert third.name == "third"
        parent = signed(mesh, "third", "read.logical.edge.>", reading | Action.DELEGATE, depth_left=1)
        await operator.query("grant_issue", node="hub", grant=parent.raw.hex())
        holder = mesh.state_dir / "nodes" / "third"
        (holder / "parent.grant").write_bytes(parent.raw)
        outsider = mesh.state_dir / "nodes" / "outsider"
        from meshfold.security import Identity

        pub = Identity.parse((outsider / "identity").read_bytes()).node_pub.hex()
        made = attenuate_from(holder, parent.hash.hex(), pub, FLOW.address, reading, (), 600)
        assert len(made.links) == 3
        with pytest.raises(ConfigError, match="attenuation"):
            attenuate_from(holder, parent.hash.hex(), pub, "read.logical.>", reading, (), 600)
        (outsider / "passed.grant").write_bytes(made.raw)
        async with mesh.node("outsider") as reader:
            await reader.read(FLOW).ready(WAIT_S)
            edge.graph.publish(FLOW, 5)
            await until(lambda: reader.graph.latest(FLOW) is not None)
            # Revoking the link above takes everything below with it.
            await operator.query("grant_revoke", node="hub", id=parent.hash.hex())
            assert not hub.session.book.decide(made.tag, Action.META_READ, FLOW.addr).allowed
            await until(lambda: not reader.session.upkeep.grants)
        explained = await operator.query(
            "explain", node="hub", route=FLOW.address, action="META_READ", who="outsider"
        )
        assert "revoked by its link 2 of 3" in explained["because"]
        assert Grant.parse(made.raw).links[1].subject_pub == parent.subject_pub


async def test_hk10_a_copy_of_a_nodes_folder_fences_both_until_an_operator_decides(mesh: LocalMesh) -> None:
    folder = mesh.state_dir / "nodes" / "edge"
    async with mesh.node("hub") as hub, mesh.node("operator") as operator:
        async with mesh.node("edge"):
            pass
        copied = mesh.state_dir / "nodes-elsewhere"
        shutil.copytree(folder, copied)
        async with mesh.node("edge") as edge:
            await edge.share(FLOW).ready(WAIT_S)
            await hub.read(FLOW).ready(WAIT_S)
            edge.graph.publish(FLOW, 1)
            await until(lambda: hub.graph.latest(FLOW) is not None)
            starts = hub.session.opener.starts
            await until(lambda: starts.newest(edge.session.identity.tag) is not None)
            # The copy starts elsewhere: its record names the same life before it as the real one does.
            last = StartRecord.parse((copied / "start").read_bytes(), cluster=edge.session.context.cluster)
            keys = edge.session.enrolment.keys
            clone = StartRecord.issue(
                keys, edge.session.context.cluster, b"theclone", last.incarnation, edge.session.hlc.stamp()
            )
            starts.note(clone)
            status = await operator.query("status", node="hub")
            assert any("two copies of edge" in problem for problem in status["problems"])
            edge.graph.publish(FLOW, 2)
            await until(lambda: hub.session.opener.counters().get("incarnation", 0) > 0)
            latest = hub.graph.latest(FLOW)
            assert latest is not None and latest.value == 1
            await operator.query("node_decide", node="hub", node_name="edge", incarnation=edge.incarnation)
            edge.graph.publish(FLOW, 3)
            await until(lambda: (found := hub.graph.latest(FLOW)) is not None and found.value == 3)


async def test_hl7_the_same_node_twice_is_refused(mesh: LocalMesh) -> None:
    async with mesh.node("hub"):
        with pytest.raises(ConfigError, match="in use by another process that is this node; .* are a clone"):
            async with mesh.node("hub"):
                pass


async def test_a_plain_restart_is_never_fenced(mesh: LocalMesh) -> None:
    async with mesh.node("hub") as hub:
        for number in range(4):
            node: Node = mesh.node("edge")
            await node.__aenter__()
            await node.share(FLOW).ready(WAIT_S)
            await hub.read(FLOW).ready(WAIT_S)
            node.graph.publish(FLOW, number)
            await until(lambda n=number: (e := hub.graph.latest(FLOW)) is not None and e.value == n)  # type: ignore[misc]
            await killed(node)
        assert hub.session.opener.starts.fenced == {}
        assert hub.session.opener.counters().get("incarnation", 0) == 0


async def killed(node: Node) -> None:
    """As after SIGKILL: the connection ends, nothing is written, nothing is said."""
    session = node.session
    for job in (session.upkeep._job, session.safety._job, session.heartbeats._job):
        assert job is not None
        job.cancel()
    await session.transport.close(drain=False)
    session.safety._memory.release()

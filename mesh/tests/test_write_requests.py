"""Writing on another node: who may, in which order, what is answered, and what an attacker gets (S17, S18, S32)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from meshfold.consensus import Fence, Token
from meshfold.core import Event, Schema, route
from meshfold.core.errors import (
    ConfigError,
    EncodeError,
    Fenced,
    FrameRejected,
    GrantDenied,
    SchemaMismatch,
    TooLarge,
    TransportTimeout,
    WiringError,
)
from meshfold.core.ports import Message
from meshfold.core.registry import Action
from meshfold.core.writes import Shadow, WriteBinding
from meshfold.mesh import Node
from meshfold.mesh.cli import app as cli
from meshfold.mesh.enrolment import AuthorityFolder, identity_of
from meshfold.mesh.local import LocalMesh
from meshfold.mesh.node.served_writes import WAIT_S_MAX, ServedWrites
from meshfold.mesh.node.writing import OWNER_SHARE
from meshfold.mesh.records import Write
from meshfold.mesh.transport.login import _claims
from meshfold.security import Capability, Caveat, CaveatKind, Identity
from test_mesh_attacks import wide_open

WAIT_S = 30.0
LAMP = WriteBinding.logical("edge", "lamp", "brightness", schema=Schema.float())
OPEN = route("edge", "valve", "open", schema=Schema.bool(), plane="write", variant="request")


async def allow(mesh: LocalMesh, operator: Node, name: str, pattern: str, *caveats: Caveat) -> None:
    """Grant WRITE_REQUEST to a node that has been here."""
    assert mesh.context is not None and mesh.context.authority_dir is not None
    now_ms = time.time_ns() // 1_000_000
    grant = AuthorityFolder.open(mesh.context.authority_dir).issuer.issue_grant(
        identity_of(mesh.context, name).node_pub,
        (Capability(Action.WRITE_REQUEST, pattern, caveats),),
        not_before_ms=now_ms,
        not_after_ms=now_ms + 3_600_000,
        policy_epoch=0,
        depth_left=0,
    )
    await operator.query("grant_issue", node="hub", grant=grant.raw.hex())


@asynccontextmanager
async def writing(mesh: LocalMesh, *caveats: Caveat) -> AsyncIterator[tuple[Node, Node, Shadow[Any, Any]]]:
    """(edge, panel, the lamp's shadow): edge shares the lamp's request route, panel may write on it."""
    async with mesh.node("hub"), mesh.node("edge") as edge, mesh.node("operator") as operator:
        shadow = edge.graph.bind(LAMP)
        await edge.share(LAMP.request).ready(WAIT_S)
        async with mesh.node("panel"):
            pass
        await allow(mesh, operator, "panel", LAMP.request.address, *caveats)
        async with mesh.node("panel") as panel:
            yield edge, panel, shadow


async def until(condition: Any) -> None:
    """Let the loop run until the condition holds."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - the condition is another party's
            await asyncio.sleep(0)


async def test_what_a_device_says_comes_back_and_the_owner_alone_publishes(mesh: LocalMesh) -> None:
    wish = route("panel", "ui", "wish", schema=Schema.str())
    async with writing(mesh) as (edge, panel, shadow):
        shadow.device(lambda value: min(value, 0.8))
        cause = panel.graph.publish(wish, "brighter")
        panel.share(wish)
        answer = await panel.request(LAMP.request, 0.9, timeout=WAIT_S, parents=[cause], correlation="job-3")
        assert (answer.owner, answer.state) == ("edge", "reported")
        request = edge.graph.latest(LAMP.request)
        assert request is not None
        assert (request.id, request.value, request.correlation) == (answer.write, 0.9, "job-3")
        assert request.producer == bytes.fromhex(edge.id)
        effective = edge.graph.latest(LAMP.effective)
        assert effective is not None and effective.value == 0.8
        tree = await panel.why(effective.id)
        while tree["causes"]:
            (tree,) = tree["causes"]
        assert (tree["event"], tree["node"]) == (cause.id, "panel")


async def test_an_acknowledgement_and_a_refusal_are_told_apart(mesh: LocalMesh) -> None:
    async with writing(mesh) as (edge, panel, shadow):

        def decide(event: Event[float]) -> None:
            shadow.acknowledge(event, accepted=event.value <= 1.0)

        with edge.graph.observe(LAMP.request, decide):
            assert (await panel.request(LAMP.request, 0.5, timeout=WAIT_S)).state == "acknowledged"
            assert (await panel.request(LAMP.request, 7.0, timeout=WAIT_S)).state == "refused"


async def test_a_request_that_no_device_answers_was_taken(mesh: LocalMesh) -> None:
    async with writing(mesh) as (edge, _, _):
        answer = await edge.request(LAMP.request, 0.5, timeout=0.1)
        assert (answer.owner, answer.state) == ("edge", "taken")
        desired = edge.graph.latest(LAMP.desired)
        assert desired is not None and answer.write in desired.parents


async def test_requests_of_one_writer_are_taken_in_their_order(mesh: LocalMesh) -> None:
    seen: list[float] = []
    async with writing(mesh) as (edge, panel, shadow):
        shadow.device(lambda value: value)
        edge.graph.observe(LAMP.request, lambda event: seen.append(event.value))
        wanted = [index / 64 for index in range(60)]
        answers = await asyncio.gather(
            *(panel.request(LAMP.request, value, timeout=WAIT_S) for value in wanted)
        )
        assert seen == wanted
        assert len({answer.write for answer in answers}) == len(wanted)
        assert edge.share(LAMP.request).counters["writes"] == {"taken": 60, "refused": {}}


async def test_without_a_grant_neither_side_lets_it_through(mesh: LocalMesh) -> None:
    async with writing(mesh) as (edge, _, _), mesh.node("outsider") as outsider:
        with pytest.raises(GrantDenied, match="WRITE_REQUEST"):
            await outsider.request(LAMP.request, 1.0)
    async with writing(mesh) as (edge, panel, _):
        # One that skips its own check: the login lets it through for nothing but the lamp, the owner for nothing at all.
        await edge.share(OPEN).ready(WAIT_S)
        edge.session.book.set_policy(edge.session.book.policy)
        real = edge.session.book.require
        edge.session.book.require = lambda tag, action, address: real(tag, action, OPEN.addr)  # type: ignore[method-assign, assignment]
        with pytest.raises(GrantDenied, match="WRITE_REQUEST"):
            await panel.request(LAMP.request, 1.0, timeout=WAIT_S)
        assert edge.graph.latest(LAMP.request) is None
        assert edge.share(LAMP.request).counters["writes"] == {
            "taken": 0,
            "refused": {"security.grant_denied": 1},
        }
        assert edge.session.ledger.denials == 1


async def test_a_budget_is_kept_by_the_owner(mesh: LocalMesh) -> None:
    limit = Caveat(CaveatKind.BYTES_PER_S, (4,))
    async with writing(mesh, limit) as (edge, panel, _):
        with pytest.raises(FrameRejected) as caught:
            await panel.request(LAMP.request, 1.0, timeout=WAIT_S)
        assert caught.value.reason == "limit"
        assert edge.graph.latest(LAMP.request) is None


async def test_a_replayed_altered_or_misplaced_request_writes_nothing(mesh: LocalMesh) -> None:
    seen: list[Message] = []
    async with writing(mesh) as (edge, panel, shadow):
        shadow.device(lambda value: value)
        await edge.share(OPEN).ready(WAIT_S)
        hostile = wide_open(mesh)
        await hostile.connect()
        try:
            await hostile.subscribe("mf.*.w.>", seen.append)
            await panel.request(LAMP.request, 0.25, timeout=WAIT_S)
            await until(lambda: seen)
            (frame,) = seen
            before = sum(edge.session.ledger.rejected.values())
            await hostile.publish(frame.subject, frame.data)
            altered = bytearray(frame.data)
            altered[-70] ^= 1
            await hostile.publish(frame.subject, bytes(altered))
            await hostile.publish(frame.subject.replace(LAMP.request.address, OPEN.address), frame.data)
            await hostile.publish(edge.session.subjects.node("q", edge.session.identity.tag), frame.data)
            await hostile.publish(frame.subject, b"\x00")
            await until(lambda: sum(edge.session.ledger.rejected.values()) == before + 5)
            assert edge.session.ledger.rejected["replay"] >= 1
            assert edge.graph.published(LAMP.request) == 1
            assert edge.graph.published(OPEN) == 0
            assert (await panel.request(LAMP.request, 0.5, timeout=WAIT_S)).state == "reported"
        finally:
            await hostile.close()


async def test_the_server_lets_an_answer_through_for_longer_than_an_owner_waits_for_a_device(
    mesh: LocalMesh,
) -> None:
    async with writing(mesh) as (edge, _, _):
        jwt = edge.session.enrolment.store.mint(
            edge.session.identity,
            edge.session.upkeep.grants.values(),
            edge.session.subjects,
            edge.session.hlc.now_ms(),
        )
        assert jwt is not None
        rights = _claims(jwt)["nats"]["resp"]
        assert rights["max"] == 1 and rights["ttl"] > WAIT_S_MAX * 1e9


async def test_the_owner_has_its_part_of_the_time_that_is_left_when_it_is_found(
    mesh: LocalMesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Write] = []
    async with writing(mesh) as (edge, panel, shadow):
        shadow.device(lambda value: value)
        take = ServedWrites.take

        async def noting(served: ServedWrites, writer: Identity, write: Write) -> dict[str, Any]:
            asked.append(write)
            return await take(served, writer, write)

        monkeypatch.setattr(ServedWrites, "take", noting)
        await edge.share(LAMP.request).close()
        # Until a heartbeat says that it is closed, and while it is, the writer goes on to look for an owner.
        await until(lambda: panel.session.writer._owners(LAMP.request) == [])
        begun_s = time.monotonic()
        request = asyncio.ensure_future(panel.request(LAMP.request, 0.5, timeout=WAIT_S))
        await asyncio.sleep(0)
        passed_s = time.monotonic() - begun_s
        edge.share(LAMP.request)
        assert (await request).state == "reported"
    (write,) = asked
    assert write.wait_s <= (WAIT_S - passed_s) * OWNER_SHARE


@pytest.mark.parametrize("time_ns", [2**63, -(2**63) - 1, 2**64 - 1])
async def test_a_time_beyond_64_bits_is_refused_on_both_sides_and_nothing_is_taken(
    mesh: LocalMesh, monkeypatch: pytest.MonkeyPatch, time_ns: int
) -> None:
    async with writing(mesh) as (edge, panel, shadow):
        with pytest.raises(WiringError, match="64 bits"):
            await panel.request(LAMP.request, 0.5, time=time_ns)
        # One that skips its own check, as only an attacker does.
        monkeypatch.setattr("meshfold.mesh.node.writing.TIME_NS_MAX", 2**70)
        monkeypatch.setattr("meshfold.mesh.node.writing.TIME_NS_MIN", -(2**70))
        before = edge.session.ledger.rejected["decode"]
        with pytest.raises(TransportTimeout):
            await panel.request(LAMP.request, 0.5, time=time_ns, timeout=1.0)
        assert edge.session.ledger.rejected["decode"] == before + 1
        assert edge.share(LAMP.request).counters["writes"] == {"taken": 0, "refused": {}}
        with edge.graph.observe(LAMP.request, lambda event: shadow.acknowledge(event, accepted=True)):
            assert (
                await panel.request(LAMP.request, 0.5, time=2**63 - 1, timeout=WAIT_S)
            ).state == "acknowledged"


async def test_a_fence_refuses_a_former_leader_and_whoever_brings_no_token(
    mesh: LocalMesh, tmp_path: Path
) -> None:
    async with mesh.node("hub") as hub, mesh.node("edge") as edge:
        await edge.share(OPEN, fence=Fence(tmp_path / "fence")).ready(WAIT_S)
        with pytest.raises(WiringError, match="shared already"):
            edge.share(OPEN, fence=Fence(tmp_path / "other"))
        old, new = Token("valves", 7), Token("valves", 9)
        async with mesh.node("operator") as operator:
            await allow(mesh, operator, "hub", OPEN.address)
            await until(
                lambda: (
                    hub.session.book.decide(hub.session.identity.tag, Action.WRITE_REQUEST, OPEN.addr).allowed
                )
            )
        assert (await hub.request(OPEN, True, timeout=WAIT_S, token=old)).state == "taken"
        assert (await hub.request(OPEN, False, timeout=WAIT_S, token=new)).state == "taken"
        with pytest.raises(Fenced, match="too old"):
            await hub.request(OPEN, True, timeout=WAIT_S, token=old)
        with pytest.raises(Fenced, match="no token"):
            await hub.request(OPEN, True, timeout=WAIT_S)
        assert edge.graph.published(OPEN) == 2
        with pytest.raises(WiringError, match="no write requests"):
            edge.share(route("edge", "a", "b", schema=Schema.int()), fence=Fence(tmp_path / "fence"))


async def test_what_cannot_be_asked_says_why(mesh: LocalMesh) -> None:
    async with writing(mesh) as (edge, panel, _):
        with pytest.raises(WiringError, match="no write requests"):
            await panel.request(LAMP.desired, 1.0)
        with pytest.raises(EncodeError):
            await panel.request(cast(Any, LAMP.request), "bright")
        with pytest.raises(WiringError, match="no fence"):
            await panel.request(LAMP.request, 1.0, timeout=WAIT_S, token=Token("x", 1))
        other = route("edge", "lamp", "brightness", schema=Schema.int(), plane="write", variant="request")
        with pytest.raises(SchemaMismatch):
            await panel.request(other, 1, timeout=WAIT_S)
        text = route("edge", "lamp", "brightness", schema=Schema.str(), plane="write", variant="request")
        with pytest.raises(TooLarge):
            await panel.request(text, "x" * 600_000)
        with pytest.raises(TransportTimeout, match="nobody here shares"):
            await panel.request(LAMP.request, 1.0, timeout=0.2, node="hub")
        await edge.share(LAMP.request).close()
        with pytest.raises(TransportTimeout):
            await panel.request(LAMP.request, 1.0, timeout=1.0)
        assert edge.graph.latest(LAMP.request) is None


async def test_two_owners_of_one_route_are_told_apart_by_name(mesh: LocalMesh) -> None:
    shared = route("pair", "valve", "open", schema=Schema.bool(), plane="write", variant="request")
    assert mesh.context is not None and mesh.context.authority_dir is not None
    async with (
        mesh.node("hub") as hub,
        mesh.node("operator") as operator,
        contextlib.AsyncExitStack() as stack,
    ):
        await hub.query("status")
        owners = []
        for name in ("left", "right"):
            async with mesh.node(name):
                pass
            now_ms = time.time_ns() // 1_000_000
            grant = AuthorityFolder.open(mesh.context.authority_dir).issuer.issue_grant(
                identity_of(mesh.context, name).node_pub,
                (Capability(Action.OWN, shared.address),),
                not_before_ms=now_ms,
                not_after_ms=now_ms + 3_600_000,
                policy_epoch=0,
                depth_left=0,
            )
            await operator.query("grant_issue", node="hub", grant=grant.raw.hex())
            owners.append(await stack.enter_async_context(mesh.node(name)))
        for owner in owners:
            await owner.share(shared).ready(WAIT_S)
        await allow(mesh, operator, "hub", shared.address)
        await until(lambda: len(hub.session.writer._owners(shared)) == 2)
        await until(
            lambda: (
                hub.session.book.decide(hub.session.identity.tag, Action.WRITE_REQUEST, shared.addr).allowed
            )
        )
        with pytest.raises(ConfigError, match="left, right"):
            await hub.request(shared, True, timeout=WAIT_S)
        answer = await hub.request(shared, True, timeout=WAIT_S, node="right")
        assert answer.owner == "right"
        assert [owner.graph.published(shared) for owner in owners] == [0, 1]
        assert sum(owners[0].session.ledger.rejected.values()) == 0


def test_the_command_asks_the_owner_and_prints_what_became_of_it(
    mesh: LocalMesh, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def meshfold(*words: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["meshfold", *words])
        with pytest.raises(SystemExit) as ended:
            cli.run()
        return int(ended.value.code or 0), capsys.readouterr().out

    with mesh.node("hub"), mesh.node("edge") as edge:
        edge.graph.bind(LAMP).device(lambda value: value)
        edge.share(LAMP.request).ready(WAIT_S).result()
        asked = ("route", "publish", LAMP.request.address, "0.5", "--json")
        assert meshfold(*asked)[0] == 3
        assert edge.graph.latest(LAMP.request) is None
        issue = ("grant", "issue", "operator", LAMP.request.address, "--action", "WRITE_REQUEST")
        assert meshfold(*issue)[0] == 0
        code, out = meshfold(*asked)
        request = edge.graph.latest(LAMP.request)
        assert code == 0 and request is not None
        row = {"event": request.id, "state": "reported", "owner": "edge"}
        assert json.loads(out) == {
            "route": LAMP.request.text,
            "events": [request.id],
            "writes": [row],
        }

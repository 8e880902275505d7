"""The graph's queries over the mesh: the same commands and rows, filtered by the asker's grants (S34)."""

from __future__ import annotations

import pytest
from meshfold.core import Schema, route
from meshfold.core.errors import ConfigError, GrantDenied, MeshfoldError, WiringError
from meshfold.core.query import Answer
from meshfold.mesh.local import LocalMesh
from meshfold.mesh.node.plane import GRAPH_COMMANDS
from msgspec import convert

WAIT_S = 20.0
TEMPERATURE = route("edge", "thermal", "temperature", schema=Schema.float("Celsius"))
DOUBLED = route("edge", "thermal", "doubled", schema=Schema.float("Celsius"))


async def test_m110_m117_another_nodes_graph_answers_typed_and_paged(mesh: LocalMesh) -> None:
    async with mesh.node("hub"), mesh.node("edge") as edge, mesh.node("operator") as hub:
        edge.graph.pipe(TEMPERATURE).map(lambda value: value * 2).into(DOUBLED)
        edge.graph.publish_many(TEMPERATURE, [1.0, 2.0, 3.0])
        document = await hub.query("replay", node="edge", route=TEMPERATURE.text, limit=2, timeout=WAIT_S)
        first = convert(document, Answer)
        assert [row.event["value"] for row in first.rows] == [1.0, 2.0]  # type: ignore[union-attr, index]
        document = await hub.query(
            "replay", node="edge", route=TEMPERATURE.text, limit=2, after=first.next, timeout=WAIT_S
        )
        assert [row["event"]["value"] for row in document["rows"]] == [3.0]
        topology = await hub.query("topology", node="edge", timeout=WAIT_S)
        assert {row["row"] for row in topology["rows"]} >= {"RouteRow", "OperatorRow", "LinkRow"}
        with pytest.raises(WiringError, match="no route"):
            await hub.query("describe", node="edge", route="no/such/route", timeout=WAIT_S)
        with pytest.raises(WiringError, match="unknown field"):
            await hub.query("topology", node="edge", surprise=1, timeout=WAIT_S)
        with pytest.raises(ConfigError):
            await hub.query("no_such_query", node="edge", timeout=WAIT_S)


async def test_m111_a_member_without_grants_learns_nothing(mesh: LocalMesh) -> None:
    async with mesh.node("hub"), mesh.node("edge") as edge, mesh.node("outsider") as outsider:
        event = edge.graph.publish(TEMPERATURE, 1.0)
        stranger = outsider.session.identity
        for name in GRAPH_COMMANDS:
            args = {"event": event.id} if name == "open_payload" else {"route": TEMPERATURE.text}
            if name in ("topology", "watermark", "validate", "audit"):
                args = {}
            # Past the broker's fence, which would not even let the question through.
            handler = edge.session.responder._handler(name)
            try:
                found = await handler(stranger, args)
            except MeshfoldError as error:
                assert isinstance(error, GrantDenied | WiringError), name
            else:
                assert found["rows"] == [], name


async def test_m102_an_ephemeral_route_is_not_shared(mesh: LocalMesh) -> None:
    async with mesh.node("hub"), mesh.node("edge") as edge:
        noise = edge.graph.ephemeral("edge", "noise", "a", schema=Schema.float(), ttl_s=60.0)
        with pytest.raises(WiringError, match="private"):
            edge.share(noise.route)

"""Events larger than the broker's messages: in chunks, sealed like everything, over a real server."""

from __future__ import annotations

import random

from meshfold.core import Schema, route
from meshfold.core.ports import Message
from meshfold.mesh.local import LocalMesh
from test_mesh_rotation import WAIT_S, delivered, lost, until

IMAGE = route("edge", "camera", "image", schema=Schema.bytes("image"))


async def test_an_event_of_several_mib_arrives_whole_between_small_ones(mesh: LocalMesh) -> None:
    seed = random.randrange(2**32)
    values = [b"before", random.Random(seed).randbytes(5 * 1024 * 1024), b"after"]
    async with mesh.node("hub") as hub, mesh.node("edge") as edge, mesh.node("operator") as operator:
        await edge.share(IMAGE).ready(WAIT_S)
        await hub.read(IMAGE).ready(WAIT_S)
        got: list[bytes] = []
        hub.graph.observe(IMAGE, lambda event: got.append(event.value))
        heard: list[Message] = []
        subject = hub.session.subjects.route_any_site("d", IMAGE.addr)
        await hub.session.transport.subscribe(subject, heard.append)
        for value in values:
            edge.graph.publish(IMAGE, value)
        await until(lambda: len(got) == 3)
        assert got == values, f"seed {seed}"
        assert lost(hub, IMAGE) == {}
        assert delivered(hub, IMAGE) == 3
        assert max(len(message.data) for message in heard) < 1024 * 1024
        # Sent again by whoever recorded them, the chunks bring nothing.
        before = hub.session.ledger.rejected["replay"]
        for message in heard:
            await hub.session.transport.publish(message.subject, message.data)
            break
        flow = await operator.audit_flow()
        assert flow["unexplained"] == 0
        assert hub.session.ledger.rejected["replay"] >= before


async def test_one_beyond_all_chunks_is_counted_and_the_next_arrives(mesh: LocalMesh) -> None:
    async with mesh.node("hub") as hub, mesh.node("edge") as edge:
        bridge = edge.share(IMAGE)
        await bridge.ready(WAIT_S)
        await hub.read(IMAGE).ready(WAIT_S)
        edge.graph.publish(IMAGE, b"before")
        edge.graph.publish(IMAGE, bytes(65 * 1024 * 1024))
        edge.graph.publish(IMAGE, b"after")
        await until(lambda: delivered(hub, IMAGE) == 2)
        assert bridge.counters["too_large"] == 1
        assert lost(hub, IMAGE) == {"link_loss": 1}

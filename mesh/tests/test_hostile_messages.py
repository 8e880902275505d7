"""Messages that are none, at a node's real subscriptions: rows HW1 to HW8. Every one is counted, and frames go on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from meshfold.core import Schema, route
from meshfold.core.errors import TooLarge, WiringError
from meshfold.mesh.local import LocalMesh
from meshfold.mesh.node import Node
from meshfold.mesh.transport import NatsTransport
from meshfold.mesh.transport.matching import HEADERS_BYTES_MAX, check_headers
from test_mesh_attacks import wide_open

WAIT_S = 30.0
VARIANTS = 100
SECRET = route("edge", "vault", "secret", schema=Schema.str())


class Victim:
    """A reader of a sealed route, and somebody who may write raw bytes to its server."""

    def __init__(self, hub: Node, edge: Node, hostile: NatsTransport, seed: int) -> None:
        self.hub, self.edge, self.hostile = hub, edge, hostile
        self.rng = random.Random(seed)
        self.seed = seed
        self.subject = hub.session.subjects.route("d", SECRET.addr).encode()
        self._said = 0

    def raw(self) -> Any:
        """The socket below the hostile client."""
        assert self.hostile._link is not None
        return self.hostile._link.client._transport

    async def write(self, data: bytes) -> None:
        """Put bytes on the wire as they are."""
        self.raw().write(data)
        await self.raw().drain()

    async def flows(self) -> None:
        """An honest event still arrives, behind everything written before."""
        await self.hostile.barrier()
        self._said += 1
        text = f"honest {self._said}"
        self.edge.graph.publish(SECRET, text)
        async with asyncio.timeout(WAIT_S):
            while (latest := self.hub.graph.latest(SECRET)) is None or latest.value != text:  # noqa: ASYNC110
                await asyncio.sleep(0)

    async def counts(self, evils: Iterable[bytes], reason: str = "header") -> None:
        """Each is counted once for that reason, nothing else moves, and traffic flows."""
        given = list(evils)
        assert len(given) >= VARIANTS
        before, delivered = (
            dict(self.hub.session.ledger.rejected),
            self.hub.read(SECRET).counters["delivered"],
        )
        for evil in given:
            await self.write(evil)
        await self.hostile.barrier()
        wanted = before.get(reason, 0) + len(given)
        async with asyncio.timeout(WAIT_S):
            while self.hub.session.ledger.rejected[reason] < wanted:  # noqa: ASYNC110 - the reader's own count
                await asyncio.sleep(0)
        await self.flows()
        after = dict(self.hub.session.ledger.rejected)
        assert after.pop(reason) == wanted, f"seed {self.seed}"
        before.pop(reason, None)
        assert after == before, f"another counter moved, seed {self.seed}"
        assert self.hub.read(SECRET).counters["delivered"] == delivered + 1
        assert self.hub.read(SECRET).counters["dropped"] == {}

    def spoiled(self) -> bytes:
        """Bytes that are no UTF-8, and end no token or line."""
        size = self.rng.randrange(1, 9)
        return bytes(self.rng.choice((0xFF, 0xFE, 0xC0, 0xF5, 0xF8)) for _ in range(size))


@asynccontextmanager
async def victim(mesh: LocalMesh) -> AsyncIterator[Victim]:
    """A running one."""
    async with mesh.node("hub") as hub, mesh.node("edge") as edge:
        await edge.share(SECRET).ready(WAIT_S)
        await hub.read(SECRET).ready(WAIT_S)
        hostile = wide_open(mesh)
        await hostile.connect()
        try:
            found = Victim(hub, edge, hostile, random.randrange(2**32))
            await found.flows()
            yield found
        finally:
            await hostile.close()


async def test_hw01_a_subject_that_is_no_text_is_counted(mesh: LocalMesh) -> None:
    async with victim(mesh) as here:
        beats = here.hub.session.subjects.every("h").encode().removesuffix(b"*")
        # The site of a route is a wildcard of its readers, as a node is of those who hear heartbeats.
        head, _, tail = here.subject.partition(b".s-")
        sites = (head + b".s-%s." + tail.partition(b".")[2], beats + b"%s")
        await here.counts(
            b"PUB " + here.rng.choice(sites) % here.spoiled() + b" 1\r\nx\r\n" for _ in range(VARIANTS)
        )


async def test_hw02_a_reply_subject_that_is_no_text_is_counted(mesh: LocalMesh) -> None:
    async with victim(mesh) as here:
        await here.counts(
            b"PUB " + here.subject + b" " + here.spoiled() + b" 1\r\nx\r\n" for _ in range(VARIANTS)
        )


async def test_hw03_to_hw05_a_header_block_that_is_none_is_counted(mesh: LocalMesh) -> None:
    async with victim(mesh) as here:

        def headed(block: bytes) -> bytes:
            return b"HPUB %s %d %d\r\n%sx\r\n" % (here.subject, len(block), len(block) + 1, block)

        one = [headed(bytes([value])) for value in range(256) if value not in b"\r\n"]
        await here.counts(one)
        whole = b"NATS/1.0\r\n\r\n"
        cut = [headed(whole[: here.rng.randrange(2, 9)]) for _ in range(VARIANTS)]
        await here.counts([headed(b"NATS/1.0"), *cut])
        status = (b"NATS/1.0 " + here.spoiled() + b"\r\n\r\n" for _ in range(VARIANTS))
        await here.counts(headed(block) for block in status)


async def test_hw06_headers_too_large_are_refused_here_and_end_no_reader(mesh: LocalMesh) -> None:
    async with victim(mesh) as here:
        before = here.hostile.counters().get("sent", 0)
        for extra in range(VARIANTS):
            with pytest.raises(WiringError, match="headers"):
                await here.hostile.publish(
                    here.subject.decode(), b"x", headers={"Mf-Key": "v" * (70_000 + extra)}
                )
        with pytest.raises(WiringError):
            check_headers({"Mf-Key": "v" * HEADERS_BYTES_MAX})
        assert here.hostile.counters().get("sent", 0) == before
        block = b"NATS/1.0\r\nMf-Key: " + b"v" * 70_000 + b"\r\n\r\n"
        with_it = b"HPUB %s %d %d\r\n%sx\r\n" % (here.subject, len(block), len(block) + 1, block)
        delivered = here.hub.read(SECRET).counters["delivered"]
        # Past our own check: the server refuses it, or hands it on and the frame in it is none.
        await here.write(with_it)
        here.edge.graph.publish(SECRET, "after it")
        async with asyncio.timeout(WAIT_S):
            while here.hub.read(SECRET).counters["delivered"] <= delivered:  # noqa: ASYNC110
                await asyncio.sleep(0)
        assert here.hub.read(SECRET).counters["delivered"] == delivered + 1


async def test_hw07_headers_that_could_split_a_message_are_refused(mesh: LocalMesh) -> None:
    async with victim(mesh) as here:
        before = here.hostile.counters().get("sent", 0)
        bad: list[dict[str, str]] = []
        for _ in range(VARIANTS):
            place, text = here.rng.randrange(8), "abcdefgh"
            split = text[:place] + here.rng.choice(("\r", "\n", "\r\n")) + text[place:]
            bad += [{"Mf-Key": split}, {split: "value"}]
            bad.append(
                {text[:place] + here.rng.choice((":", " ", "\t", "\0", "é", "\x7f")) + text[place:]: "v"}
            )
        bad.append({"": "value"})
        for headers in bad:
            with pytest.raises(WiringError, match="no header"):
                await here.hostile.publish(here.subject.decode(), b"x", headers=headers)
        assert here.hostile.counters().get("sent", 0) == before
        await here.flows()


async def test_hw08_a_payload_that_does_not_fit_with_its_headers_is_refused(mesh: LocalMesh) -> None:
    async with victim(mesh) as here:
        limit = here.hostile.max_payload_bytes
        before = here.hostile.counters()
        for extra in range(VARIANTS):
            with pytest.raises(TooLarge) as caught:
                await here.hostile.publish(
                    here.subject.decode(), bytes(limit - 1 - extra), headers={"Mf-Key": "v" * (200 + extra)}
                )
            assert caught.value.fields["limit_bytes"] == limit
        await here.flows()
        assert here.hostile.counters() == before

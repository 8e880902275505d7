"""An attacker holds a valid login of the mesh and the server lets it do everything: ten thousand attempts.

It records what passes and then reads, forges, replays, re-routes, rolls policy back and poisons message ids, in a random
order that a seed replays. Nothing is read, nothing accepted, everything counted, and honest traffic arrives whole.
"""

from __future__ import annotations

import asyncio
import os
import random
import struct
from collections import Counter
from collections.abc import Callable

from meshfold.core import Schema, route
from meshfold.core.errors import FrameRejected, KeyMissing
from meshfold.core.ports import Message
from meshfold.core.registry import Action, FrameKind
from meshfold.mesh.enrolment import AuthorityFolder
from meshfold.mesh.enrolment.local import local_identity
from meshfold.mesh.local import LocalMesh
from meshfold.mesh.node import Node
from meshfold.security import (
    Capability,
    Grant,
    Keyring,
    NodeKeys,
    Opener,
    PolicyRecord,
    Sealer,
    voters_hash,
)
from test_mesh_attacks import wide_open

WAIT_S = 60.0
ATTEMPTS = 10_000
#: Sent before the attacker waits until they have arrived: the server drops what piles up, and that would prove nothing.
STEP = 250
CANARY = "canary-0d1e9b7731"
SECRET = route("edge", "vault", "secret", schema=Schema.str())
OTHER = route("edge", "vault", "other", schema=Schema.str())


async def until(condition: Callable[[], bool], what: str) -> None:
    """Let the loop run until the condition holds."""
    try:
        async with asyncio.timeout(WAIT_S):
            while not condition():  # noqa: ASYNC110 - the condition is another party's
                await asyncio.sleep(0)
    except TimeoutError:
        raise AssertionError(what) from None


class Attacker:
    """A member of the mesh without a grant, and everything it can make of what it sees."""

    def __init__(self, mesh: LocalMesh, hub: Node, edge: Node, seed: int) -> None:
        assert mesh.context is not None and mesh.context.authority_dir is not None
        self.rng = random.Random(seed)
        self.hub, self.edge = hub, edge
        self.cluster = mesh.context.cluster
        authority = AuthorityFolder.open(mesh.context.authority_dir)
        now_ms = hub.session.hlc.now_ms()
        self.keys, self.identity = local_identity(
            authority, mesh.state_dir / "nodes", "outsider", now_ms, ("node",)
        )
        self.seen: list[Message] = []
        self._ours: set[bytes] = set()
        self.transport = wide_open(mesh)
        self.subjects = hub.session.subjects
        # Keys of its own making: it may derive and seal as the real thing does, from another root.
        self.ring = Keyring(self.keys, self.identity)
        self._own_root()
        self.sealer = Sealer(self.keys, self.cluster, os.urandom(8), self.ring)
        self.opener = Opener(
            self.ring,
            self.keys,
            self.cluster,
            hub.session.directory.lookup,
            hub.session.book,
            hub.session.hlc.clock,
        )
        self.did: Counter[str] = Counter()
        #: attempts that reach a node, which has to count each
        self.expected = 0

    def _own_root(self) -> None:
        from meshfold.security import Authority, KeyTree

        authority, tree = Authority.generate(self.cluster), KeyTree.generate(self.cluster)
        grant = authority.issue_grant(
            self.keys.node_pub,
            (Capability(Action.OWN, ">"),),
            not_before_ms=0,
            not_after_ms=2**50,
            policy_epoch=0,
        )
        packet = tree.packet(self.keys, self.identity, self.identity, [grant], hlc=1)
        self.ring.install(packet, {self.identity.tag: self.identity})

    def hear(self, message: Message) -> None:
        """Record what others say; the server echoes what the attacker says itself."""
        if message.data not in self._ours:
            self.seen.append(message)

    async def strike(self, headers: dict[str, str] | None) -> None:
        """One attempt."""
        attack = self.rng.choice(self.ATTACKS)
        subject, data = attack(self)
        self._ours.add(data)
        self.did[attack.__name__] += 1
        # The metadata form of these routes has no reader here, so nobody is there to refuse it.
        self.expected += ".m.s-" not in subject
        await self.transport.publish(subject, data, headers=headers)

    def frames(self) -> list[Message]:
        """Event frames it has recorded."""
        return [one for one in self.seen if ".d.s-" in one.subject or ".m.s-" in one.subject]

    def of_class(self, name: str) -> list[Message]:
        """What it has recorded of a subject class."""
        return [one for one in self.seen if f".{name}." in one.subject]

    def _event(self, address: str = SECRET.address) -> bytes:
        target = SECRET if address == SECRET.address else OTHER
        return self.sealer.events(
            target.addr,
            schema_id=target.schema.id,
            first_seq=self.rng.randrange(1, 2**20),
            count=1,
            meta=b"\x01\x01\x01\x00",
            payload=CANARY.encode(),
            hlc=self.hub.session.hlc.clock.now()[0] // 1_000_000 << 16,
            policy_epoch=self.rng.randrange(4),
        ).whole()

    def replay(self) -> tuple[str, bytes]:
        """A recorded frame, as it was."""
        one = self.rng.choice(self.frames())
        return one.subject, one.data

    def alter(self) -> tuple[str, bytes]:
        """A recorded frame with bits changed."""
        one = self.rng.choice(self.frames())
        data = bytearray(one.data)
        for _ in range(self.rng.randrange(1, 4)):
            data[self.rng.randrange(len(data))] ^= 1 << self.rng.randrange(8)
        return one.subject, bytes(data)

    def reroute(self) -> tuple[str, bytes]:
        """A recorded frame on another route, class or site, its address tag made to fit half the time."""
        one = self.rng.choice(self.frames())
        here, there = (SECRET, OTHER) if SECRET.address in one.subject else (OTHER, SECRET)
        subject, data = one.subject.replace(here.address, there.address), one.data
        if self.rng.random() < 0.5:
            data = data[:8] + there.tag + data[16:]
        return subject.replace("s-local", "s-elsewhere") if self.rng.random() < 0.3 else subject, data

    def forge(self) -> tuple[str, bytes]:
        """A frame of its own keys, in its own name or the owner's."""
        data = self._event()
        if self.rng.random() < 0.5:
            data = data[:16] + self.edge.session.identity.tag + data[24:]
        return self.subjects.route("d", SECRET.addr), data

    def rewind(self) -> tuple[str, bytes]:
        """A recorded frame under another counter, number, epoch, stamp or generation."""
        one = self.rng.choice(self.frames())
        place, width = self.rng.choice(((32, 8), (40, 4), (44, 4), (48, 8), (56, 8), (80, 14)))
        return one.subject, one.data[:place] + os.urandom(width) + one.data[place + width :]

    def unsign(self) -> tuple[str, bytes]:
        """A recorded frame without its signature, or without its seal."""
        one = self.rng.choice(self.frames())
        flags = one.data[3] & ~self.rng.choice((8, 1, 9))
        data = one.data[:3] + bytes([flags]) + one.data[4:]
        return one.subject, data[:-64] if self.rng.random() < 0.5 else data

    def policy(self) -> tuple[str, bytes]:
        """A policy of its own: signed by itself, rolled back, or far ahead; or a recorded one again."""
        known = self.of_class("p")
        if known and self.rng.random() < 0.3:
            one = self.rng.choice(known)
            return one.subject, one.data
        voter = self.hub.session.identity
        record = PolicyRecord(
            self.cluster,
            voters_hash([voter]),
            self.rng.randrange(9),
            self.rng.choice((0, 1, 2**20, 2**32 - 1)),
        )
        signed = PolicyRecord(
            self.cluster,
            record.voters,
            record.log_index,
            record.policy_epoch,
            signatures=(record.sign(self.keys),),
        )
        subject = self.subjects.node("p", voter.tag)
        stamp = self.hub.session.hlc.clock.now()[0] // 1_000_000 << 16
        return subject, self.sealer.seal_members(
            FrameKind.POLICY, signed.encode(), hlc=stamp, policy_epoch=0, subject=subject
        )

    def heartbeat(self) -> tuple[str, bytes]:
        """A recorded heartbeat again, altered, or one in another's name."""
        known = self.of_class("h")
        one = self.rng.choice(known)
        data = bytearray(one.data)
        if self.rng.random() < 0.6:
            data[self.rng.randrange(len(data))] ^= 1 << self.rng.randrange(8)
        if self.rng.random() < 0.3:
            return self.subjects.node("h", self.identity.tag), bytes(data)
        return one.subject, bytes(data)

    def keys_for_all(self) -> tuple[str, bytes]:
        """A key packet of its own for the reader: it would read with keys the attacker knows."""
        from meshfold.security import KeyTree

        hub = self.hub.session.identity
        packet = KeyTree.generate(self.cluster).packet(
            self.keys, self.identity, hub, self.hub.session.book.grants_of(hub.tag), hlc=1
        )
        if self.rng.random() < 0.5:
            packet = hub.tag + packet[8:]
        return self.subjects.node("k", hub.tag), packet

    def question(self) -> tuple[str, bytes]:
        """A question in another's name, a recorded one again, or one of its own that asks for everything."""
        hub = self.hub.session.identity
        subject = self.subjects.node("q", hub.tag)
        known = [one for one in self.of_class("q") if one.subject == subject]
        if known and self.rng.random() < 0.5:
            return subject, self.rng.choice(known).data
        stamp = self.hub.session.hlc.clock.now()[0] // 1_000_000 << 16
        box = self.sealer.seal_box(
            FrameKind.QUERY, hub, b'{"command":"keys"}', hlc=stamp, policy_epoch=0, subject="elsewhere"
        )
        return subject, struct.pack(">H", len(self.identity.raw)) + self.identity.raw + box

    def garbage(self) -> tuple[str, bytes]:
        """Bytes without sense."""
        return self.subjects.route(self.rng.choice("dm"), SECRET.addr), os.urandom(self.rng.randrange(400))

    ATTACKS = (
        *(replay, alter, reroute, forge, rewind, unsign, policy, heartbeat, keys_for_all, question, garbage),
    )

    def read(self) -> int:
        """Try to open everything recorded with every key it has; how often that worked."""
        opened = 0
        for one in self.frames():
            for address in (SECRET.addr, OTHER.addr):
                form = "d" if ".d.s-" in one.subject else "m"
                try:
                    self.opener.open_events(form, address, one.data)  # type: ignore[arg-type]
                    opened += 1
                except (FrameRejected, KeyMissing):
                    pass
        return opened


async def test_ten_thousand_attempts_read_nothing_and_change_nothing(mesh: LocalMesh) -> None:
    seed = random.randrange(2**32)
    async with mesh.node("hub") as hub, mesh.node("edge") as edge, mesh.node("operator") as operator:
        for r in (SECRET, OTHER):
            await edge.share(r).ready(WAIT_S)
            await hub.read(r).ready(WAIT_S)
        attacker = Attacker(mesh, hub, edge, seed)
        await attacker.transport.connect()
        await attacker.transport.subscribe(">", attacker.hear)
        try:
            sent = await honest(edge, 40)
            await until(lambda: delivered(hub) == sent, f"honest events did not arrive, seed {seed}")
            await until(lambda: len(attacker.of_class("h")) > 2, f"the tap hears nothing, seed {seed}")
            before = state_of(hub)
            refused_before = refused(hub, edge)
            for start in range(0, ATTEMPTS, STEP):
                for _ in range(STEP):
                    msg_id = {"Nats-Msg-Id": f"{attacker.rng.randrange(64)}"} if start % (4 * STEP) else None
                    await attacker.strike(msg_id)
                await attacker.transport.barrier()
                sent += await honest(edge, 2)
                await until(lambda n=sent: delivered(hub) == n, f"honest events lost, seed {seed}")  # type: ignore[misc]
                del attacker.seen[:-2000]
            counted = refused(hub, edge) - refused_before
            assert attacker.read() == 0, f"seed {seed}"
            assert all(
                CANARY.encode() not in one.data
                for one in attacker.frames()
                if one.data[16:24] == edge.session.identity.tag
            ), f"seed {seed}"
            assert delivered(hub) == sent, f"seed {seed}"
            assert state_of(hub) == before, f"seed {seed}"
            assert counted >= attacker.expected > 0.8 * ATTEMPTS, (
                f"{counted} counted, seed {seed}, {attacker.did}"
            )
            flow = await operator.audit_flow()
            assert flow["unexplained"] == 0, f"seed {seed}"
            assert all(not row["dropped"] for row in flow["routes"]), f"seed {seed}"
        finally:
            await attacker.transport.close()


async def honest(edge: Node, count: int) -> int:
    """Publish on both routes."""
    for number in range(count):
        edge.graph.publish(SECRET, f"{CANARY} {number}")
        edge.graph.publish(OTHER, f"{CANARY} {number}")
    return 2 * count


def delivered(hub: Node) -> int:
    """Events that arrived."""
    return sum(int(hub.read(r).counters["delivered"]) for r in (SECRET, OTHER))


def refused(*nodes: Node) -> int:
    """Everything these nodes refused."""
    return sum(sum(node.session.ledger.rejected.values()) for node in nodes)


def state_of(node: Node) -> tuple[object, ...]:
    """What an attack would have to change."""
    session = node.session
    return (
        session.keyring.held(),
        session.safety.keeper.record.rank,
        session.book.fingerprint(),
        session.opener.starts.fenced,
        sorted(member.name for member in node.members() if member.name != "outsider"),
    )


def test_a_grant_it_signs_itself_is_worth_nothing() -> None:
    keys = NodeKeys.generate()
    grant = Grant.issue(
        keys,
        cluster=b"c" * 16,
        subject_pub=keys.node_pub,
        capabilities=(Capability(Action.OWN, ">"),),
        not_before_ms=0,
        not_after_ms=2**50,
        policy_epoch=0,
    )
    try:
        grant.verify(cluster=b"c" * 16, roots=frozenset({b"r" * 32}), now_ms=1)
    except FrameRejected as error:
        assert error.reason == "root"
    else:
        raise AssertionError("accepted")

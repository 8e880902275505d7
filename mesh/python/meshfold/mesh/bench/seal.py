"""Sealing, opening, deciding: what the security room costs, each beside what it is made of.

No network and no disk. Sender and reader are two parties in this process, so the whole path counts both sides' work.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from time import perf_counter, time_ns
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from meshfold.core import Action, Graph, Schema, SystemClock, route
from meshfold.core.route import Secrecy
from meshfold.mesh.bench.edge import record
from meshfold.mesh.bench.reference import Case
from meshfold.mesh.bridge.outgoing import FRAME_BYTES_MAX, FRAME_EVENTS_MAX
from meshfold.security import (
    Authority,
    Capability,
    EventFrame,
    Grant,
    GrantBook,
    Identity,
    Keyring,
    KeyTree,
    NodeKeys,
    Opener,
    Sealer,
)

__all__ = ("SEAL_CASES", "wire_share")

CLUSTER: Final = b"bench-cluster-id"
SECTION_BYTES: Final = 64 * 1024
HOUR_MS: Final = 3_600_000
GRANTEES: Final = 1_000
READING: Final = Action.META_READ | Action.PAYLOAD_OPEN
RECORDS = route("edge", "bench", "record", schema=Schema.bytes("telemetry JSON", compress="safe"))


@dataclass
class World:
    """An authority, a voter's tree, a sender and a reader."""

    authority: Authority
    tree: KeyTree
    voter: NodeKeys
    voter_identity: Identity
    book: GrantBook
    sender: NodeKeys
    sealer: Sealer
    opener: Opener
    reader: Identity


def _identity(authority: Authority, keys: NodeKeys, name: str) -> Identity:
    now_ms = time_ns() // 1_000_000
    return authority.issue_identity(
        node_pub=keys.node_pub,
        wrap_pub=keys.wrap_pub,
        login_pub=keys.login_pub,
        name=name,
        roles=("node",),
        not_before_ms=now_ms - HOUR_MS,
        not_after_ms=now_ms + 24 * HOUR_MS,
    )


def _grant(authority: Authority, keys: NodeKeys, actions: Action, pattern: str) -> Grant:
    now_ms = time_ns() // 1_000_000
    return authority.issue_grant(
        keys.node_pub,
        (Capability(actions, pattern),),
        not_before_ms=now_ms - HOUR_MS,
        not_after_ms=now_ms + 24 * HOUR_MS,
        policy_epoch=0,
        depth_left=2,
    )


@cache
def world() -> World:
    """Made once in a run."""
    authority, tree, voter = Authority.generate(CLUSTER), KeyTree.generate(CLUSTER), NodeKeys.generate()
    clock = SystemClock()
    identities: dict[bytes, Identity] = {}
    book = GrantBook(CLUSTER, frozenset({authority.grant_pub}), clock=clock, directory=identities.get)
    voter_identity = _identity(authority, voter, "voter")
    rings: list[Keyring] = []
    parties: list[NodeKeys] = []
    for name, actions in (("edge", Action.OWN), ("hub", READING)):
        keys = NodeKeys.generate()
        identity = _identity(authority, keys, name)
        identities[identity.tag] = identity
        grant = _grant(authority, keys, actions, ">")
        book.add(grant, time_ns() // 1_000_000)
        ring = Keyring(keys, identity)
        packet = tree.packet(voter, voter_identity, identity, [grant], hlc=_stamp())
        ring.install(packet, {voter_identity.tag: voter_identity})
        rings.append(ring)
        parties.append(keys)
    sealer = Sealer(parties[0], CLUSTER, os.urandom(8), rings[0])
    opener = Opener(rings[1], parties[1], CLUSTER, identities.get, book, clock)
    reader = identities[parties[1].tag]
    return World(authority, tree, voter, voter_identity, book, parties[0], sealer, opener, reader)


def _stamp() -> int:
    return (time_ns() // 1_000_000) << 16


def _frame(payload: bytes, seq: int, secrecy: Secrecy) -> EventFrame:
    return world().sealer.events(
        RECORDS.addr,
        schema_id=RECORDS.schema.id,
        first_seq=seq,
        count=1,
        meta=b"",
        payload=payload,
        hlc=_stamp(),
        policy_epoch=0,
        secrecy=secrecy,
    )


def _rate(items: int, step: Any) -> float:
    step(1)
    begin = perf_counter()
    for number in range(items):
        step(number + 2)
    return items / (perf_counter() - begin)


def bare_aes(items: int) -> float:
    """AES-256-GCM of 64 KiB as the library gives it, with 200 bytes of associated data."""
    cipher, data, bound = AESGCM(os.urandom(32)), os.urandom(SECTION_BYTES), os.urandom(200)
    nonces = [number.to_bytes(12, "big") for number in range(items + 2)]
    return _rate(items, lambda number: cipher.encrypt(nonces[number - 1], data, bound))


def seal_section(items: int) -> float:
    """A 64 KiB payload section with header, counter nonce and bound data, and an empty metadata section."""
    data, seal, stamp = os.urandom(SECTION_BYTES), world().sealer.events, _stamp()
    address, schema_id = RECORDS.addr, RECORDS.schema.id
    return _rate(
        items,
        lambda number: seal(
            address,
            schema_id=schema_id,
            first_seq=number,
            count=1,
            meta=b"",
            payload=data,
            hlc=stamp,
            policy_epoch=0,
            secrecy="group",
        ),
    )


def seal_signed(items: int) -> float:
    """The same, hashed and signed: one frame on the wire."""
    data = os.urandom(SECTION_BYTES)
    return _rate(items, lambda number: _frame(data, number, "sealed"))


def open_signed(items: int) -> float:
    """Every check of a frame, and both sections opened."""
    data = os.urandom(SECTION_BYTES)
    frames = [_frame(data, number + 1, "sealed").whole() for number in range(items + 1)]
    opener = world().opener
    return _rate(items, lambda number: opener.open_events("d", RECORDS.addr, frames[number - 1]))


class Path:
    """Publish, drain, compress, seal, open, decompress, push into the reader's graph: one process, both sides."""

    def __init__(self, secrecy: Secrecy) -> None:
        self._secrecy: Secrecy = secrecy
        self._edge, self._hub = Graph(name="edge"), Graph(name="hub")
        self._tap = self._edge.tap(RECORDS, capacity=2 * FRAME_EVENTS_MAX)
        self._inlet = self._hub.inlet(RECORDS, name="bridge")
        self.wire_bytes = self.record_bytes = 0

    def run(self, items: int) -> float:
        """Records a second."""
        slices = [
            [record(number) for number in range(start, min(start + FRAME_EVENTS_MAX, items))]
            for start in range(0, items, FRAME_EVENTS_MAX)
        ]
        begin = perf_counter()
        for values in slices:
            self._edge.publish_many(RECORDS, values)
            while (batch := self._tap.drain(FRAME_EVENTS_MAX, FRAME_BYTES_MAX)) is not None:
                self._carry(batch)
        rate = items / (perf_counter() - begin)
        self.record_bytes += sum(len(value) for values in slices for value in values)
        assert sum(counters.delivered for _, _, counters, _ in self._inlet.counters()) >= items
        return rate

    def _carry(self, batch: Any) -> None:
        frame = (
            world()
            .sealer.events(
                RECORDS.addr,
                schema_id=RECORDS.schema.id,
                first_seq=batch.first_seq,
                count=batch.count,
                meta=batch.meta,
                payload=batch.payload,
                hlc=_stamp(),
                policy_epoch=0,
                compress=True,
                secrecy=self._secrecy,
            )
            .whole()
        )
        self.wire_bytes += len(frame)
        opened = world().opener.open_events("d", RECORDS.addr, frame, allow_plain=self._secrecy == "none")
        self._inlet.push(
            opened.meta,
            opened.payload,
            producer=opened.sender.tag,
            incarnation=opened.header.incarnation,
        )


def sealed_path(items: int) -> float:
    """The whole path of 186-byte JSON records, sealed and signed."""
    return Path("sealed").run(items)


def clear_path(items: int) -> float:
    """The same path, signed and not sealed."""
    return Path("none").run(items)


def wire_share(items: int = 100_000) -> float:
    """Bytes on the wire for each byte of the records."""
    path = Path("sealed")
    path.run(items)
    return path.wire_bytes / path.record_bytes


def decide(items: int) -> float:
    """A grant decision that was made before."""
    book, tag, address = world().book, world().sender.tag, RECORDS.addr
    return _rate(items, lambda number: book.decide(tag, Action.OWN, address))


def verify_chain(items: int) -> float:
    """A chain of three links, from the root to the leaf."""
    holder, middle, leaf = (NodeKeys.generate() for _ in range(3))
    now_ms = time_ns() // 1_000_000
    chain = _grant(world().authority, holder, READING | Action.DELEGATE, ">")
    caps = (Capability(READING | Action.DELEGATE, "read.>"),)
    chain = chain.attenuate(holder, middle.node_pub, caps, not_after_ms=now_ms + HOUR_MS, now_ms=now_ms)
    last = (Capability(Action.META_READ, RECORDS.address),)
    chain = chain.attenuate(middle, leaf.node_pub, last, not_after_ms=now_ms + HOUR_MS, now_ms=now_ms)
    roots = frozenset({world().authority.grant_pub})
    return _rate(
        items, lambda number: Grant.parse(chain.raw).verify(cluster=CLUSTER, roots=roots, now_ms=now_ms)
    )


def rekey(items: int) -> float:
    """Key packets after a rotation of the root, for grantees of `>`: one wrap and one signature each."""
    w = world()
    grant = _grant(w.authority, w.sender, READING, ">")
    return _rate(
        items, lambda number: w.tree.packet(w.voter, w.voter_identity, w.reader, [grant], hlc=_stamp())
    )


SEAL_CASES = (
    Case(
        "seal 64 KiB: header, nonce, bound data",
        "frames/s",
        4_000,
        seal_section,
        {"bare AES-256-GCM": bare_aes},
    ),
    Case("seal and sign 64 KiB", "frames/s", 2_000, seal_signed, {"bare AES-256-GCM": bare_aes}),
    Case("verify and open 64 KiB", "frames/s", 1_000, open_signed, {"bare AES-256-GCM": bare_aes}),
    Case(
        "whole path sealed, 186-byte records", "records/s", 400_000, sealed_path, {"not sealed": clear_path}
    ),
    Case("grant decision from cache", "decisions/s", 500_000, decide),
    Case("chain of three links verified", "chains/s", 500, verify_chain),
    Case("key packets for grantees", "packets/s", GRANTEES, rekey),
)

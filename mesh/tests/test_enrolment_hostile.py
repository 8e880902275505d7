"""A broker that owns the wire, against joining: it sees every message, keeps it back, repeats it, puts it in another order,
alters and forges it, and answers first. It was let into the mesh before, so it knows what any member knows.

It may keep a node out: it can always cut the wire. It must never get an identity for keys of its own, nor pass for the
mesh, nor bind the token to anything but the node that holds it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from enrolling import LOCK, Mesh
from meshfold.core.errors import ConfigError, FrameRejected, TransportTimeout
from meshfold.core.ports import Message
from meshfold.mesh.enrolment import AuthorityFolder, MemberFolder
from meshfold.mesh.enrolment.joining import join_over
from meshfold.security import NodeKeys
from meshfold.security.join import (
    REQUEST_DOMAIN,
    UNKNOWN_ANSWER,
    JoinRequest,
    JoinToken,
    _mac,
    _transcript,
    new_body,
    seal_answer,
    seal_refusal,
)
from meshfold.security.key_tree import wrap_suite

#: How often the node asks, and what the broker does at each ask.
ASKS = 10
TRICKS_MAX = 6


class OwnedWire:
    """The transport of a joining node, whose other end is the adversary. Everything it does follows from its seed."""

    def __init__(self, mesh: Mesh, token: JoinToken, own: JoinToken, folder: Path, seed: int) -> None:
        self._mesh = mesh
        self._chance = random.Random(seed)
        #: a token that the adversary was given, and has used: it knows how everything is made
        self._own = own
        self._victim = token
        self._keys = NodeKeys.generate()
        self._rogue = AuthorityFolder.found(folder, bytes(16), LOCK, mesh.clock.now()[0] // 1_000_000).issuer
        self.requests: list[bytes] = []
        self.answers: list[bytes] = [UNKNOWN_ANSWER]
        self.tried = 0

    @property
    def tag(self) -> bytes:
        """Who the adversary would be."""
        return self._keys.tag

    def put(self, data: bytes) -> bytes | None:
        """Bring bytes before the issuer; its answer goes to the adversary alone."""
        self.tried += 1
        assert self._mesh.doorkeeper is not None
        try:
            answer = self._mesh.doorkeeper.answer(data)
        except (FrameRejected, ConfigError):
            return None
        self.answers.append(answer)
        return answer

    async def request(self, subject: str, data: bytes, *, timeout_s: float) -> Message:
        """What the node asks comes here, and to the issuer only if the adversary likes."""
        await asyncio.sleep(0)
        self.requests.append(data)
        for _ in range(self._chance.randrange(TRICKS_MAX)):
            self.put(self._chance.choice(self._attacks())(data))
        # Now and then it lets the true request through; that answer, too, is its to keep.
        honest = self.put(data) if self._chance.random() < 0.5 else None
        reply = self._chance.choice(self._replies())(data, honest)
        if reply is None:
            raise TransportTimeout("kept back", subject=subject, timeout_s=timeout_s)
        return Message(subject, reply)

    def _attacks(self) -> tuple[Callable[[bytes], bytes], ...]:
        return (self._repeat, self._altered, self._spliced, self._guessed, self._with_own_secret, self._noise)

    def _repeat(self, data: bytes) -> bytes:
        return self._chance.choice(self.requests)

    def _altered(self, data: bytes) -> bytes:
        altered = bytearray(self._chance.choice(self.requests))
        for _ in range(self._chance.randrange(1, 4)):
            altered[self._chance.randrange(len(altered))] ^= 1 << self._chance.randrange(8)
        return bytes(altered)

    def _spliced(self, data: bytes) -> bytes:
        """The victim's token with a sealed part of another request, or cut."""
        cut = self._chance.randrange(16, len(data) + 1)
        return data[:cut] + self._chance.choice(self.requests)[cut:]

    def _guessed(self, data: bytes) -> bytes:
        """Keys of its own under the victim's token, with a guess for the secret: all but that is known to it."""
        guess = msgspec.structs.replace(self._victim, secret=self._chance.randbytes(32))
        return data[:16] + self._sealed(new_body(self._keys, guess), guess)

    def _with_own_secret(self, data: bytes) -> bytes:
        """Keys of its own, MACed as if the victim's token had the secret of its own one."""
        mixed = msgspec.structs.replace(self._victim, secret=self._own.secret)
        return data[:16] + self._sealed(new_body(self._keys, mixed), mixed)

    def _sealed(self, body: bytes, token: JoinToken) -> bytes:
        """As `seal_request`, but bound to the victim's token id, so that the issuer can open it."""
        mac = _mac(token.key(b"request"), _transcript(token, body))
        info = REQUEST_DOMAIN + self._victim.cluster + self._victim.id
        return bytes(
            wrap_suite().encrypt(body + mac, X25519PublicKey.from_public_bytes(token.enrol_pub), info=info)
        )

    def _noise(self, data: bytes) -> bytes:
        return data[:16] + self._chance.randbytes(self._chance.randrange(0, 400))

    def _replies(self) -> tuple[Callable[[bytes, bytes | None], bytes | None], ...]:
        return (
            lambda data, honest: honest,
            lambda data, honest: honest,
            lambda data, honest: None,
            lambda data, honest: self._chance.choice(self.answers),
            lambda data, honest: self._chance.randbytes(self._chance.randrange(0, 900)),
            lambda data, honest: self._flipped(honest or self._chance.choice(self.answers)),
            lambda data, honest: self._as_issuer(),
            lambda data, honest: self._refusal(),
        )

    def _flipped(self, answer: bytes) -> bytes:
        flipped = bytearray(answer)
        flipped[self._chance.randrange(len(flipped))] ^= 1 << self._chance.randrange(8)
        return bytes(flipped)

    def _as_issuer(self) -> bytes:
        """Another authority's answer, sealed to the key of the node: its public keys are no secret to a member."""
        node = NodeKeys.load(self._folder_of_victim)
        body = new_body(node, self._victim)
        request = JoinRequest(node.node_pub, node.wrap_pub, node.login_pub, body)
        guess = msgspec.structs.replace(self._victim, secret=self._chance.randbytes(32))
        return seal_answer(self._chance.randbytes(200), guess, request, self._rogue)

    def _refusal(self) -> bytes:
        guess = msgspec.structs.replace(self._victim, secret=self._chance.randbytes(32))
        return seal_refusal("used", "go away", guess, self._chance.randbytes(176))

    @property
    def _folder_of_victim(self) -> Path:
        return self._mesh.folder / "victim"


def another(mesh: Mesh) -> JoinToken:
    """A token that somebody else was given."""
    return mesh.token("mallory")


@pytest.mark.parametrize("seed", range(100))
async def test_a_broker_that_owns_the_wire_cannot_join_nor_pass_for_the_mesh(
    tmp_path: Path, seed: int
) -> None:
    mesh = Mesh(tmp_path, seed)
    await mesh.open()
    # Half of the tokens are a fleet's: they would let in another, and still only one that holds their secret.
    own, token = another(mesh), mesh.token("edge-1", uses=1 + 2 * (seed % 2))
    mallory = await mesh.join(own, "mallory")
    wire: Any = OwnedWire(mesh, token, own, tmp_path / "rogue", seed)
    joined: MemberFolder | None = None
    try:
        joined = await join_over(wire, token, tmp_path / "victim", retry_s=0.0, ask_s=0.0)
    except (ConfigError, TransportTimeout):
        # It may keep the node out, and no more than that.
        pass
    # What it has recorded is worth nothing afterwards, either.
    for _ in range(50):
        wire.put(wire._chance.choice(wire._attacks())(wire._chance.choice(wire.requests)))
    victim = NodeKeys.load(tmp_path / "victim")
    allowed = {mallory.keys.tag, victim.tag}
    assert {identity.tag for identity in mesh.admitted} <= allowed, f"seed {seed}: somebody else joined"
    assert sum(identity.tag == victim.tag for identity in mesh.admitted) <= 1, f"seed {seed}"
    assert wire.tag not in allowed
    if joined is not None:
        enrolment = joined.enrolment()
        assert enrolment.identity.node_pub == victim.node_pub
        assert enrolment.trust.authority_hash == token.authority
        assert enrolment.identity.raw in {identity.raw for identity in mesh.admitted}
    invite = mesh.invites.find(token.id)
    assert invite is not None
    for admission in invite.admissions:
        assert admission.body[:32] == victim.node_pub, f"seed {seed}: the token is bound to another"
    # Left alone, the node joins, whatever was tried before: no request but its own has spent the token.
    if joined is None:
        joined = await mesh.join(token, "victim")
        assert joined.keys.node_pub == victim.node_pub


async def test_the_adversary_would_join_if_it_knew_the_secret(tmp_path: Path) -> None:
    """The tricks are made as a node makes its requests: with the right secret one of them gets in."""
    mesh = Mesh(tmp_path)
    await mesh.open()
    own, token = another(mesh), mesh.token("edge-1")
    await mesh.join(own, "mallory")
    wire = OwnedWire(mesh, token, own, tmp_path / "rogue", 1)
    body = new_body(wire._keys, token)
    assert wire.put(token.id + wire._sealed(body, token)) is not None
    assert wire.tag in {identity.tag for identity in mesh.admitted}

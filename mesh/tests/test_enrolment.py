"""Joining by token: what both sides do, and what a broker that sees, delays, repeats and forges everything achieves."""

from __future__ import annotations

import asyncio
import random
import re
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from meshfold.core.errors import ConfigError, FrameRejected, TransportTimeout
from meshfold.core.ports import Message
from meshfold.mesh.clocks import HybridClock
from meshfold.mesh.enrolment import AuthorityFolder, MemberFolder, RootLock, capabilities_for
from meshfold.mesh.enrolment.doorkeeper import Doorkeeper
from meshfold.mesh.enrolment.invites import Invites
from meshfold.mesh.enrolment.joining import join, join_over
from meshfold.mesh.subjects import Subjects
from meshfold.mesh.transport import SimBroker, SimTransport
from meshfold.security import Grant, Identity, NodeKeys, seal_secret, unseal_secret
from meshfold.security.join import UNKNOWN_ANSWER, JoinToken, new_body, seal_request

LOCK = RootLock(key=bytes(range(32)))
HOUR_MS = 3_600_000
SEEDS = range(100)


class VirtualClock:
    """A wall clock that tests move."""

    def __init__(self) -> None:
        self.wall_ns = time.time_ns()

    def now(self) -> tuple[int, int]:
        """(wall, monotonic) in ns."""
        return self.wall_ns, self.wall_ns


class Mesh:
    """An authority and a doorkeeper on a simulated broker."""

    def __init__(self, folder: Path, seed: int = 1) -> None:
        self.folder = folder
        self.clock = VirtualClock()
        now_ms = self.clock.now()[0] // 1_000_000
        self.authority = AuthorityFolder.found(folder / "authority", bytes(16), LOCK, now_ms)
        self.invites = Invites(self.authority)
        self.broker = SimBroker(seed)
        self.subjects = Subjects(bytes(16))
        self.rejected: list[str] = []
        self.admitted: list[Identity] = []
        self.grants: list[Grant] = []
        self.doorkeeper: Doorkeeper | None = None

    async def open(self) -> None:
        """Begin to let nodes in."""
        transport = self.broker.client("hub")
        await transport.connect()
        self.doorkeeper = Doorkeeper(
            self.authority,
            transport,
            self.subjects,
            HybridClock(self.clock),
            url="nats://broker:4222",
            voters=(),
            reject=lambda reason, where: self.rejected.append(reason),
            admitted=self._admitted,
        )
        await self.doorkeeper.start()

    def _admitted(self, identity: Identity, grants: list[Grant]) -> None:
        self.admitted.append(identity)
        self.grants += grants

    def token(self, name: str = "edge-1", expires_ms: int | None = None, uses: int = 1) -> JoinToken:
        """A fresh token."""
        return self.invites.make(
            mesh="plant",
            name=name,
            roles=("node",),
            capabilities=capabilities_for(name),
            url="nats://broker:4222",
            expires_ms=expires_ms or time.time_ns() // 1_000_000 + HOUR_MS,
            uses=uses,
        )

    async def join(self, token: JoinToken, folder: str = "node") -> MemberFolder:
        """Join as a node would."""
        client = self.broker.client(folder, inbox_prefix=self.subjects.enrol_inbox(token.id))
        await client.connect()
        try:
            return await join_over(client, token, self.folder / folder, retry_s=0.0, ask_s=0.3)
        finally:
            await client.close()


@pytest.fixture
async def mesh(tmp_path: Path) -> Mesh:
    """A mesh that lets nodes in."""
    made = Mesh(tmp_path)
    await made.open()
    return made


async def test_a_token_gives_keys_that_never_left_an_identity_grants_and_a_login(mesh: Mesh) -> None:
    token = mesh.token()
    joined = await mesh.join(JoinToken.decode(token.encode()))
    enrolment = joined.enrolment()
    assert [identity.raw for identity in mesh.admitted] == [enrolment.identity.raw]
    assert enrolment.identity.name == "edge-1"
    assert enrolment.identity.node_pub == enrolment.keys.node_pub
    assert enrolment.trust.authority_hash == token.authority
    assert {grant.hash for grant in enrolment.grants} == {grant.hash for grant in mesh.grants}
    assert (joined.path / "login.jwt").read_text().count(".") == 2
    assert joined.path.stat().st_mode & 0o077 == 0
    for path in joined.path.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path
    again = MemberFolder.open(joined.path).enrolment()
    assert again.identity.raw == enrolment.identity.raw


async def test_the_same_request_gets_the_same_answer_until_the_end_and_no_other_does(mesh: Mesh) -> None:
    token = mesh.token()
    first = await mesh.join(token)
    identity = first.enrolment().identity
    # The node lost its answer: the papers are gone, keys and request are not.
    (first.path / "member.json").unlink()
    (first.path / "identity").unlink()
    second = await mesh.join(token)
    assert second.enrolment().identity.raw == identity.raw
    assert len(mesh.admitted) == 1
    with pytest.raises(ConfigError, match="used by another request") as error:
        await mesh.join(token, "thief")
    assert error.value.reason == "used"
    assert mesh.rejected == ["replay"]
    (first.path / "member.json").unlink()
    mesh.clock.wall_ns += 2 * HOUR_MS * 1_000_000
    with pytest.raises(ConfigError, match="expired"):
        await mesh.join(token)


async def test_a_token_with_any_other_text_is_refused(mesh: Mesh) -> None:
    token = mesh.token()
    other = NodeKeys.generate()
    changes: dict[str, Any] = {
        "name": "hub",
        "roles": ("operator",),
        "mesh": "other",
        "authority": bytes(32),
        "enrol_pub": other.wrap_pub,
        "secret": bytes(32),
        "cluster": bytes([1] * 16),
    }
    for field, value in changes.items():
        altered = msgspec.structs.replace(token, **{field: value})
        with pytest.raises((ConfigError, TransportTimeout)) as error:
            await mesh.join(altered, f"altered-{field}")
        if field in ("name", "roles", "mesh", "authority"):
            assert error.value.reason == "altered", field
    assert mesh.admitted == []
    await mesh.join(token)
    assert len(mesh.admitted) == 1


@pytest.mark.parametrize(
    "text", ["", "hello", "mfj1_", "mfj1_!!!!", "mfj1_AAAA", "mfj2_AAAA", "mfj1_" + "A" * 20_000]
)
def test_what_is_no_token_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(ConfigError, match="no join token") as error:
        JoinToken.decode(text)
    assert "hello" not in str(error.value)


async def test_every_cut_of_a_token_is_refused(mesh: Mesh) -> None:
    text = mesh.token().encode()
    for end in range(0, len(text) - 1, 7):
        with pytest.raises(ConfigError):
            JoinToken.decode(text[:end])


async def test_a_token_that_ended_is_refused_before_anything_is_sent(mesh: Mesh, tmp_path: Path) -> None:
    token = mesh.token(expires_ms=time.time_ns() // 1_000_000 - 1)
    with pytest.raises(ConfigError, match="expired"):
        await join(token.encode(), tmp_path / "late")
    assert not (tmp_path / "late").exists()


async def test_a_folder_with_another_unfinished_join_is_kept(mesh: Mesh) -> None:
    first, second = mesh.token("one"), mesh.token("two")
    mesh.broker.stop()
    mesh.broker.start()
    await mesh.join(first)
    (mesh.folder / "node" / "member.json").unlink()
    with pytest.raises(ConfigError, match="another token"):
        await mesh.join(second)


def test_a_token_and_what_holds_it_never_show_their_secret(tmp_path: Path) -> None:
    mesh = Mesh(tmp_path)
    token = mesh.token()
    for shown in (repr(token), repr(mesh.authority), repr(LOCK), repr(mesh.authority.issuer)):
        assert token.secret.hex() not in shown
        assert repr(token.secret) not in shown
        assert "REDACTED" in shown


class HostileBroker:
    """Sees every message, answers first, repeats, alters and forges, by its seed."""

    def __init__(self, mesh: Mesh, seed: int) -> None:
        self._mesh = mesh
        self._chance = random.Random(seed)
        self._requests: list[bytes] = []
        self._answers: list[bytes] = []
        self._keys = NodeKeys.generate()
        self._jobs: list[asyncio.Task[None]] = []
        self._client: SimTransport = mesh.broker.client("hostile")

    async def open(self) -> None:
        """Take place between everyone."""
        await self._client.connect()
        await self._client.subscribe("mf.>", self._on_request)
        await self._client.subscribe("_MF.>", self._on_answer)
        await self._client.subscribe("hostile.>", lambda message: self._answers.append(message.data))

    def _send(self, subject: str, data: bytes, reply: str = "") -> None:
        self._jobs.append(
            asyncio.get_running_loop().create_task(self._client.publish(subject, data, reply=reply))
        )

    def _on_answer(self, message: Message) -> None:
        self._answers.append(message.data)

    def _on_request(self, message: Message) -> None:
        if message.reply.startswith("hostile"):
            return
        self._requests.append(message.data)
        chance = self._chance
        for _ in range(chance.randrange(4)):
            trick = chance.randrange(6)
            if trick == 0:  # repeat a request and take the answer
                self._send(message.subject, chance.choice(self._requests), "hostile.inbox")
            elif trick == 1:  # answer first, with noise
                self._send(message.reply, chance.randbytes(chance.randrange(1, 900)))
            elif trick == 2:  # answer first, with what answered somebody else
                self._send(message.reply, chance.choice([*self._answers, UNKNOWN_ANSWER]))
            elif trick == 3:  # alter a request
                data = bytearray(chance.choice(self._requests))
                data[chance.randrange(16, len(data))] ^= 1 << chance.randrange(8)
                self._send(message.subject, bytes(data), "hostile.inbox")
            elif trick == 4:  # forge one: the token's id is known, its secret is not
                self._send(message.subject, self._forged(message.data[:16]), "hostile.inbox")
            else:  # a refusal
                self._send(message.reply, b"\x02\x04used\x04used" + chance.randbytes(32))

    def _forged(self, token_id: bytes) -> bytes:
        certificate = self._mesh.authority.issuer.certificate
        guess = JoinToken(
            mesh="plant",
            cluster=bytes(16),
            authority=self._mesh.authority.issuer.trust.authority_hash,
            enrol_pub=certificate.enrol_pub,
            secret=self._chance.randbytes(32),
            name="edge-1",
            roles=("node",),
            expires_ms=2**50,
            url="",
        )
        return token_id + seal_request(new_body(self._keys, guess), guess)[16:]

    @property
    def tag(self) -> bytes:
        """Who it would be."""
        return self._keys.tag

    async def close(self) -> None:
        """Leave."""
        await asyncio.gather(*self._jobs)
        await self._client.close()


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_hostile_broker_cannot_join_and_cannot_pass_for_the_issuer(tmp_path: Path, seed: int) -> None:
    mesh = Mesh(tmp_path, seed)
    await mesh.open()
    hostile = HostileBroker(mesh, seed)
    await hostile.open()
    # Half of the tokens are a fleet's: they would let in another, and still only one that holds their secret.
    token = mesh.token(uses=1 + 2 * (seed % 2))
    joined: MemberFolder | None = None
    try:
        joined = await mesh.join(token)
    except ConfigError:
        # It may keep the node out, and no more than that.
        pass
    await hostile.close()
    assert all(identity.tag != hostile.tag for identity in mesh.admitted), f"seed {seed}"
    assert len(mesh.admitted) <= 1, f"seed {seed}"
    if joined is not None:
        assert joined.enrolment().identity.raw == mesh.admitted[0].raw, f"seed {seed}"
        assert joined.enrolment().trust.authority_hash == token.authority
    invite = mesh.invites.find(token.id)
    assert invite is not None
    for admission in invite.admissions:
        assert admission.body[:32] == NodeKeys.load(tmp_path / "node").node_pub


async def test_a_fleets_token_lets_in_its_number_of_nodes_each_under_a_name_of_its_own(mesh: Mesh) -> None:
    token = mesh.token("worker", uses=3)
    joined = [await mesh.join(token, f"node-{number}") for number in range(3)]
    names = [folder.enrolment().identity.name for folder in joined]
    assert len(set(names)) == 3
    assert all(re.fullmatch(r"worker-[0-9a-f]{8}", name) for name in names)
    for name, folder in zip(names, joined, strict=True):
        patterns = {c.pattern for grant in folder.enrolment().grants for c in grant.capabilities}
        assert f"read.logical.{name}.>" in patterns
        assert not any(other in pattern for other in names if other != name for pattern in patterns)
        assert not any(".worker." in pattern for pattern in patterns)
    with pytest.raises(ConfigError, match="has let in its 3 nodes"):
        await mesh.join(token, "node-3")
    assert len(mesh.admitted) == 3


async def test_a_node_of_a_fleet_that_asks_again_takes_no_further_place(mesh: Mesh) -> None:
    token = mesh.token("worker", uses=2)
    first = await mesh.join(token, "node-0")
    identity = first.enrolment().identity.raw
    (first.path / "member.json").unlink()
    again = await mesh.join(token, "node-0")
    assert again.enrolment().identity.raw == identity
    await mesh.join(token, "node-1")
    assert len(mesh.admitted) == 2


async def test_nodes_of_a_fleet_that_join_at_once_are_counted_one_by_one(mesh: Mesh) -> None:
    token = mesh.token("worker", uses=4)
    results = await asyncio.gather(
        *(mesh.join(token, f"node-{number}") for number in range(6)), return_exceptions=True
    )
    joined = [found for found in results if isinstance(found, MemberFolder)]
    refused = [found for found in results if isinstance(found, ConfigError)]
    assert (len(joined), len(refused), len(mesh.admitted)) == (4, 2, 4), results
    assert len({folder.enrolment().identity.name for folder in joined}) == 4


async def test_a_token_that_was_made_a_fleets_on_the_way_is_refused(mesh: Mesh) -> None:
    token = msgspec.structs.replace(mesh.token(), fleet=True)
    with pytest.raises(ConfigError):
        await mesh.join(token)
    assert mesh.admitted == []


@pytest.mark.parametrize("uses", [0, -1, 1001])
def test_a_fleet_of_a_senseless_size_is_refused(tmp_path: Path, uses: int) -> None:
    with pytest.raises(ConfigError, match="1 to 1000"):
        Mesh(tmp_path).token(uses=uses)


async def test_another_authority_in_the_answer_is_refused(mesh: Mesh, tmp_path: Path) -> None:
    """Whoever holds the token's secret but is another authority cannot put its roots in place."""
    other = Mesh(tmp_path / "other")
    token = msgspec.structs.replace(other.token(), authority=mesh.authority.issuer.trust.authority_hash)
    invite = other.invites.find(token.id)
    assert invite is not None
    other.invites.save(msgspec.structs.replace(invite, token=token))
    await other.open()
    with pytest.raises(ConfigError, match="not the issuer"):
        await other.join(token)


def test_the_root_opens_under_its_lock_only(tmp_path: Path) -> None:
    now_ms = time.time_ns() // 1_000_000
    authority = AuthorityFolder.found(tmp_path / "a", bytes(16), LOCK, now_ms)
    assert authority.root(LOCK).identity_pub == authority.issuer.certificate.root_pub
    with pytest.raises(ConfigError, match="wrong passphrase or key"):
        authority.root(RootLock(key=bytes(32)))
    with pytest.raises(ConfigError, match="sealed under a key file"):
        authority.root(RootLock(passphrase=b"correct horse battery"))
    sealed = bytearray((tmp_path / "a" / "root.sealed").read_bytes())
    for at in range(0, len(sealed), 13):
        altered = bytes(sealed[:at]) + bytes([sealed[at] ^ 1]) + bytes(sealed[at + 1 :])
        with pytest.raises(ConfigError):
            unseal_secret(altered, key=LOCK.key)
    with pytest.raises(ConfigError, match="already holds"):
        AuthorityFolder.found(tmp_path / "a", bytes(16), LOCK, now_ms)


def test_a_passphrase_seals_and_a_short_one_or_two_locks_do_not() -> None:
    sealed = seal_secret(b"secret", passphrase=b"correct horse battery")
    assert unseal_secret(sealed, passphrase=b"correct horse battery") == b"secret"
    with pytest.raises(ConfigError, match="wrong passphrase"):
        unseal_secret(sealed, passphrase=b"correct horse batterz")
    with pytest.raises(ConfigError, match="shorter"):
        seal_secret(b"secret", passphrase=b"short")
    with pytest.raises(ConfigError, match="and not both"):
        seal_secret(b"secret", passphrase=b"correct horse battery", key=bytes(32))
    with pytest.raises(ConfigError, match="and not both"):
        seal_secret(b"secret")


def test_an_issuer_whose_time_ended_signs_nothing_that_holds_and_renewing_heals_it(tmp_path: Path) -> None:
    now_ms = time.time_ns() // 1_000_000
    long_ago = now_ms - 200 * 86_400_000
    authority = AuthorityFolder.found(tmp_path / "a", bytes(16), LOCK, long_ago)
    assert authority.due(now_ms)
    assert authority.issuer.trust.issuers(now_ms) == {authority.issuer.certificate.root_pub}
    authority.renew(LOCK, now_ms)
    assert not authority.due(now_ms)
    reopened = AuthorityFolder.open(tmp_path / "a")
    assert reopened.issuer.certificate.identity_pub in reopened.issuer.trust.issuers(now_ms)
    grant = reopened.issuer.issue_grant(
        NodeKeys.generate().node_pub,
        capabilities_for("edge-1"),
        not_before_ms=now_ms,
        not_after_ms=now_ms + 10 * 365 * 86_400_000,
        policy_epoch=0,
    )
    grant.verify(cluster=bytes(16), roots=frozenset({reopened.issuer.trust.grant_root}), now_ms=now_ms)
    assert grant.not_after_ms == reopened.issuer.delegation.not_after_ms


def test_a_certificate_of_another_root_is_not_taken(tmp_path: Path) -> None:
    now_ms = time.time_ns() // 1_000_000
    one = AuthorityFolder.found(tmp_path / "a", bytes(16), LOCK, now_ms).issuer
    two = AuthorityFolder.found(tmp_path / "b", bytes(16), LOCK, now_ms).issuer
    with pytest.raises(FrameRejected, match="root"):
        one.trust.with_certificates([two.certificate.raw], now_ms)
    raw = bytearray(one.certificate.raw)
    for at in range(len(raw)):
        altered = bytes(raw[:at]) + bytes([raw[at] ^ 1]) + bytes(raw[at + 1 :])
        with pytest.raises(FrameRejected):
            one.trust.with_certificates([altered], now_ms)

"""Joining by token: what both sides do, and what a broker that sees, delays, repeats and forges everything achieves."""

from __future__ import annotations

import asyncio
import re
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from enrolling import HOUR_MS, LOCK, Mesh
from meshfold.core.errors import ClockSkew, ConfigError, FrameRejected, TransportTimeout
from meshfold.mesh.enrolment import AuthorityFolder, MemberFolder, RootLock, capabilities_for
from meshfold.mesh.enrolment.joining import join
from meshfold.mesh.node.standing import Standing
from meshfold.security import NodeKeys, seal_secret, unseal_secret
from meshfold.security.join import JoinToken


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
        "expires_ms": token.expires_ms + HOUR_MS,
    }
    for field, value in changes.items():
        altered = msgspec.structs.replace(token, **{field: value})
        with pytest.raises((ConfigError, TransportTimeout)) as error:
            await mesh.join(altered, f"altered-{field}")
        if field in ("name", "roles", "mesh", "authority", "expires_ms"):
            assert error.value.reason == "altered", field
            # The issuer said no, and proved that it was the issuer: nothing is kept for another try.
            assert list((mesh.folder / f"altered-{field}").iterdir()) == []
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


async def test_a_machine_whose_clock_is_behind_is_told_so_and_joins_once_it_is_set(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = mesh.token()
    real = time.time
    with monkeypatch.context() as patch:
        patch.setattr("meshfold.mesh.enrolment.joining.time.time", lambda: real() - 300)
        with pytest.raises(ClockSkew, match="300 s behind") as refused:
            await mesh.join(token)
    assert refused.value.code == "security.clock_skew"
    assert (await mesh.join(token)).enrolment().identity.name == "edge-1"


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


async def test_what_a_node_got_by_joining_is_given_again_before_it_ends_and_nothing_else_is(
    mesh: Mesh,
) -> None:
    joined = await mesh.join(mesh.token())
    identity, (given,) = mesh.admitted[0], mesh.grants
    now_ms = mesh.clock.now()[0] // 1_000_000
    day_ms = 86_400_000
    lent = mesh.authority.issuer.issue_grant(
        identity.node_pub,
        given.capabilities[:1],
        not_before_ms=now_ms,
        not_after_ms=now_ms + 22 * day_ms,
        policy_epoch=0,
    )
    standing, marked = Standing(mesh.authority, mesh.folder / "nodes"), [given.hash.hex()]
    assert standing.renewed(identity, [given, lent], marked, now_ms + 5 * day_ms) == []
    (fresh,) = standing.renewed(identity, [given, lent], marked, now_ms + 21 * day_ms)
    assert fresh.capabilities == given.capabilities
    assert fresh.subject_pub == joined.keys.node_pub
    assert fresh.not_after_ms > given.not_after_ms
    # Once is enough; and without a mark, as of a grant for a stated time, it ends when it ends.
    later = [*marked, fresh.hash.hex()]
    assert standing.renewed(identity, [given, lent, fresh], later, now_ms + 21 * day_ms) == []
    assert standing.renewed(identity, [given], [], now_ms + 21 * day_ms) == []
    # A revoked grant is not among what is valid, so nothing is made of it.
    assert standing.renewed(identity, [lent], marked, now_ms + 21 * day_ms) == []

"""The outer fence moves with the inner one: who loses a grant is cut off at the server, and what is no safe login is refused."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from meshfold.core import Schema, route
from meshfold.core.errors import FrameRejected, GrantDenied, TransportClosed, TransportTimeout
from meshfold.core.registry import Action
from meshfold.mesh.broker import Permissions
from meshfold.mesh.broker.jwt import _sign, key_text, mint_user
from meshfold.mesh.cli.mesh_checks import Found, login_check
from meshfold.mesh.enrolment import AuthorityFolder, MemberFolder
from meshfold.mesh.enrolment.authority_folder import LOGIN_S_MAX
from meshfold.mesh.enrolment.invites import Invites
from meshfold.mesh.enrolment.joining import join
from meshfold.mesh.local import LocalMesh
from meshfold.mesh.node import Node
from meshfold.mesh.transport import Login, NatsTransport
from meshfold.mesh.transport.login import check_login, login_faults
from meshfold.security import Grant

WAIT_S = 30.0
READING = Action.META_READ | Action.PAYLOAD_OPEN
SECRET = route("edge", "vault", "secret", schema=Schema.str())
OPEN = Permissions(pub=(">",), sub=(">",), allow_responses=True)


def authority_of(mesh: LocalMesh) -> AuthorityFolder:
    """Its issuer."""
    assert mesh.context is not None and mesh.context.authority_dir is not None
    return AuthorityFolder.open(mesh.context.authority_dir)


async def joined(mesh: LocalMesh, folder: Path, *capabilities: tuple[int, str]) -> MemberFolder:
    """A node that joined by token, with what the token grants."""
    from meshfold.security import Capability

    assert mesh.context is not None
    token = Invites(authority_of(mesh)).make(
        mesh="local",
        name="guest",
        roles=("node",),
        capabilities=tuple(Capability(Action(actions), pattern) for actions, pattern in capabilities),
        url=mesh.context.url,
        expires_ms=time.time_ns() // 1_000_000 + 3_600_000,
    )
    return await join(token.encode(), folder)


def client_of(mesh: LocalMesh, folder: MemberFolder, jwt: str, name: str = "thief") -> NatsTransport:
    """Somebody with a login and the key to it, who does not go by our rules."""
    assert mesh.context is not None
    login = Login(jwt=lambda: jwt, sign=folder.keys.login_sign)
    identity = folder.enrolment().identity
    return NatsTransport(mesh.context.url, name=name, login=login, inbox_prefix=f"_MF.{identity.tag.hex()}")


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until the condition holds."""
    async with asyncio.timeout(WAIT_S):
        while not condition():  # noqa: ASYNC110 - the condition is another party's
            await asyncio.sleep(0)


async def refused(client: NatsTransport) -> bool:
    """Whether the server refuses its login now."""
    try:
        await client.connect()
    except TransportClosed as error:
        return bool(error.fields.get("login"))
    await client.close()
    return False


async def until_refused(make: Callable[[], NatsTransport]) -> None:
    """Wait until a login is refused."""
    async with asyncio.timeout(WAIT_S):
        while not await refused(make()):
            pass


async def grants_of(operator: Node, name: str) -> list[str]:
    """Ids of a member's grants that hold."""
    rows = (await operator.query("grants", node="hub"))["grants"]
    return [row["id"] for row in rows if row["subject"] == name and not row["revoked"]]


async def test_who_loses_its_last_grant_is_cut_off_at_the_server(mesh: LocalMesh, tmp_path: Path) -> None:
    async with mesh.node("hub") as hub, mesh.node("edge") as edge, mesh.node("operator") as operator:
        await edge.share(SECRET).ready(WAIT_S)
        await hub.read(SECRET).ready(WAIT_S)
        folder = await joined(mesh, tmp_path / "guest", (int(READING), SECRET.address))
        stolen = (folder.path / "login.jwt").read_text()
        async with Node.open("guest", context=folder.path / "context.json") as guest:
            await guest.read(SECRET).ready(WAIT_S)
            thief = client_of(mesh, folder, stolen)
            await thief.connect()
            await thief.subscribe(hub.session.subjects.route_any_site("d", SECRET.addr), lambda message: None)
            ended: list[str] = []
            thief.on_event(lambda event: ended.append(event.kind))
            for grant in await grants_of(operator, "guest"):
                await operator.query("grant_revoke", node="hub", id=grant)
            await until(lambda: "disconnected" in ended)
            await thief.close()
            assert await refused(client_of(mesh, folder, stolen)), "the old login still opens the door"
            # The honest node may go on to ask, and nothing else; others notice nothing.
            await until(lambda: guest.session.transport.narrow and guest.session.transport.connected)
            edge.graph.publish(SECRET, "after")
            await until(lambda: hub.read(SECRET).counters["delivered"] == 1)
            assert hub.read(SECRET).counters["dropped"] == {}
            # A new grant brings a new login.
            fresh = again(mesh, folder)
            await operator.query("grant_issue", node="hub", grant=fresh.raw.hex())
            await until(lambda: not guest.session.transport.narrow and bool(guest.session.upkeep.grants))
        assert (folder.path / "login.jwt").read_text() != stolen


def again(mesh: LocalMesh, folder: MemberFolder) -> Grant:
    """A further grant of the issuer for the guest."""
    from meshfold.security import Capability

    now_ms = time.time_ns() // 1_000_000
    return authority_of(mesh).issuer.issue_grant(
        folder.enrolment().identity.node_pub,
        (Capability(READING, SECRET.address),),
        not_before_ms=now_ms,
        not_after_ms=now_ms + 3_600_000,
        policy_epoch=0,
    )


async def test_who_has_grants_left_goes_on_under_a_login_of_what_is_left(
    mesh: LocalMesh, tmp_path: Path
) -> None:
    async with mesh.node("hub") as hub, mesh.node("edge") as edge, mesh.node("operator") as operator:
        await edge.share(SECRET).ready(WAIT_S)
        folder = await joined(mesh, tmp_path / "guest", (int(READING), SECRET.address))
        async with Node.open("guest", context=folder.path / "context.json") as guest:
            (first,) = await grants_of(operator, "guest")
            extra = again(mesh, folder)
            await operator.query("grant_issue", node="hub", grant=extra.raw.hex())
            await until(lambda: extra.hash in guest.session.upkeep.grants)
            wide = (folder.path / "login.jwt").read_text()
            await guest.read(SECRET).ready(WAIT_S)
            await operator.query("grant_revoke", node="hub", id=first)
            await until_refused(lambda: client_of(mesh, folder, wide))
            await until(lambda: guest.session.transport.connected and not guest.session.transport.narrow)
            bridge = guest.read(SECRET)
            seen = bridge.counters["delivered"]
            edge.graph.publish(SECRET, "still read")
            await until(lambda: bridge.counters["delivered"] > seen)
            assert bridge.counters["dropped"] == {}
        assert hub.session.duties.login_revoker is not None
        assert hub.session.duties.login_revoker.pushed >= 2


async def test_a_retired_node_gets_in_with_no_login_and_a_new_server_is_told(
    mesh: LocalMesh, tmp_path: Path
) -> None:
    async with mesh.node("hub") as hub, mesh.node("operator") as operator:
        folder = await joined(mesh, tmp_path / "guest", (int(READING), SECRET.address))
        logins = [(folder.path / name).read_text() for name in ("login.jwt", "narrow.jwt")]
        assert not await refused(client_of(mesh, folder, logins[1]))
        await operator.session.asker.ask(
            hub.session.identity, "member_retire", {"node": "guest"}, timeout_s=WAIT_S
        )
        for jwt in logins:
            await until_refused(lambda jwt=jwt: client_of(mesh, folder, jwt))  # type: ignore[misc]
        with pytest.raises(GrantDenied, match="was retired"):
            async with Node.open("guest", context=folder.path / "context.json"):
                pass
        ends_s = folder.enrolment().identity.not_after_ms // 1000
        assert authority_of(mesh).retired == {folder.keys.login_pub: ends_s + 1}
        revoker: Any = hub.session.duties.login_revoker
        pushed = revoker.pushed
        mesh.restart_server()
        await until(lambda: revoker.pushed > pushed)
        for jwt in logins:
            await until_refused(lambda jwt=jwt: client_of(mesh, folder, jwt))  # type: ignore[misc]


async def test_hg25_a_bearers_login_is_refused_by_the_server_and_by_whoever_is_sent_one(
    mesh: LocalMesh, tmp_path: Path
) -> None:
    async with mesh.node("hub"):
        folder = await joined(mesh, tmp_path / "guest", (int(READING), SECRET.address))
        authority, key = authority_of(mesh), Ed25519PrivateKey.generate()
        public = key.public_key().public_bytes_raw()
        rights = {"pub": {"allow": [">"]}, "sub": {"allow": [">"]}, "subs": -1, "data": -1, "payload": -1}
        nats = {"type": "user", "version": 2, "bearer_token": True, **rights}
        nats["issuer_account"] = key_text("account", authority.papers.account_pub)
        claims = {
            "sub": key_text("user", public),
            "name": "bearer",
            "exp": int(time.time()) + 600,
            "nats": nats,
        }
        bearer = _sign(claims, authority._signing_key, "account")
        assert mesh.context is not None
        # Signed by the mesh's own key, and still no login: it would work for whoever sees it.
        client = NatsTransport(
            mesh.context.url, name="b", login=Login(jwt=lambda: bearer, sign=key.sign), inbox_prefix="_B"
        )
        assert await refused(client)
        endless = _sign(
            {**claims, "exp": 0, "nats": {**nats, "bearer_token": False}}, authority._signing_key, "account"
        )
        late = mint_user(
            authority._signing_key, public, name="l", permissions=OPEN, expires_s=int(time.time()) + 10**7
        )
        kept = (folder.path / "login.jwt").read_text()
        for jwt, reason in ((bearer, "format"), (endless, "time"), (late, "time"), ("junk", "time")):
            with pytest.raises(FrameRejected) as caught:
                folder.keep((), folder.file.trust(), jwt)
            assert caught.value.reason == reason
            assert (folder.path / "login.jwt").read_text() == kept
        check_login(kept)
        assert login_faults(kept) == []
        assert [fault.split()[0] for fault in login_faults(endless)] == ["has"]
        assert len(login_faults(bearer)) == 1
        for jwt, ok in ((kept, True), (bearer, False), (endless, False)):
            assert login_check(found_with(tuple(login_faults(jwt))))["ok"] is ok


def found_with(faults: tuple[str, ...]) -> Found:
    """What `doctor` judges, with these faults of the login."""
    return Found({}, 0, True, {}, (0, 0), (), None, faults)


def refused_by(authority: AuthorityFolder, login_pub: bytes) -> int:
    """Until when the account refuses a login's issues, in seconds since 1970; 0 where it does not name it."""
    claims = authority.papers.account_jwt.split(".")[1]
    document = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    return int(document["nats"].get("revocations", {}).get(key_text("user", login_pub), 0))


def issued(jwt: str) -> int:
    """When a login says it was issued."""
    claims = jwt.split(".")[1]
    return int(json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["iat"])


async def test_a_spared_login_is_refused_after_its_moment_even_where_no_server_took_the_account(
    mesh: LocalMesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with mesh.node("hub") as hub, mesh.node("operator") as operator:
        folder = await joined(mesh, tmp_path / "guest", (int(READING), SECRET.address))
        # It is noted by whoever let it in, a little after it was let in.
        while not (held := await grants_of(operator, "guest")):
            pass
        (first,) = held
        await operator.query("grant_issue", node="hub", grant=again(mesh, folder).raw.hex())
        revoker: Any = hub.session.duties.login_revoker

        async def nobody() -> None:
            raise TransportTimeout("no server takes the account", subject="", timeout_s=0.0)

        with monkeypatch.context() as broken:
            broken.setattr(revoker, "_push", nobody)
            await operator.query("grant_revoke", node="hub", id=first)
            await until(lambda: any("logins not revoked" in one for one in hub.session.ledger.problems))
        assert refused_by(authority_of(mesh), folder.keys.login_pub) > 0
        # When a server is back it is told.
        wide = (folder.path / "login.jwt").read_text()
        revoker.server_back()
        await until_refused(lambda: client_of(mesh, folder, wide))


async def test_a_login_that_an_earlier_life_spared_is_refused_from_the_next_start_on(
    mesh: LocalMesh, tmp_path: Path
) -> None:
    async with mesh.node("hub"):
        folder = await joined(mesh, tmp_path / "guest", (int(READING), SECRET.address))
    authority, now_s = authority_of(mesh), int(time.time())
    login_pub = folder.keys.login_pub
    authority.revoke_logins(frozenset(), {login_pub: now_s}, now_s, spare=frozenset({login_pub}))
    assert refused_by(authority_of(mesh), login_pub) == 0
    wide = (folder.path / "login.jwt").read_text()
    async with mesh.node("hub"):
        await until_refused(lambda: client_of(mesh, folder, wide))
        assert refused_by(authority_of(mesh), login_pub) == now_s


def test_a_retired_key_is_named_until_its_identity_and_its_last_login_ended(mesh: LocalMesh) -> None:
    authority = authority_of(mesh)
    key, other = (Ed25519PrivateKey.generate().public_key().public_bytes_raw() for _ in range(2))
    now_s = int(time.time())
    ends_s = now_s + 365 * 86_400
    authority.revoke_logins(frozenset({key}), {other: now_s}, now_s, retired={key: ends_s})
    for at_s in (now_s, now_s + LOGIN_S_MAX, ends_s):
        authority.revoke_logins(frozenset({key}), {}, at_s)
        assert refused_by(authority_of(mesh), key) > ends_s, "whenever it was issued"
    assert refused_by(authority, other) == 0, "the logins of a revoked grant end within a day"
    authority.revoke_logins(frozenset(), {}, ends_s + 1)
    assert refused_by(authority, key) == 0
    assert not authority_of(mesh).revokes_logins


def test_no_login_of_a_retired_key_is_dated_after_what_is_refused(mesh: LocalMesh) -> None:
    authority = authority_of(mesh)
    key, other = (Ed25519PrivateKey.generate().public_key().public_bytes_raw() for _ in range(2))
    now_s = int(time.time())
    authority.revoke_logins(frozenset(), {other: now_s + 5}, now_s, retired={key: now_s + 9})
    for narrow in (False, True):
        jwt = authority.mint_login(
            key, name="gone", permissions=OPEN, expires_s=now_s + LOGIN_S_MAX, narrow=narrow
        )
        assert issued(jwt) <= refused_by(authority, key)
    jwt = authority.mint_login(other, name="left", permissions=OPEN, expires_s=now_s + LOGIN_S_MAX)
    assert issued(jwt) > refused_by(authority, other)

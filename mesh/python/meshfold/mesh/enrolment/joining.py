"""The joining side: a token becomes an identity, grants and a login in a folder of this machine."""

from __future__ import annotations

import asyncio
import ssl
import time
from pathlib import Path
from typing import Final

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from meshfold.core.errors import ClockSkew, ConfigError, FrameRejected, TransportClosed, TransportTimeout
from meshfold.core.ports import Transport
from meshfold.mesh.clocks import SKEW_MS_MAX
from meshfold.mesh.enrolment.authority_folder import BACKDATE_MS, keep_grants, write_private
from meshfold.mesh.enrolment.member_folder import MemberFile, MemberFolder
from meshfold.mesh.enrolment.memory import NodeMemory
from meshfold.mesh.folders import state_folder
from meshfold.mesh.subjects import Subjects
from meshfold.mesh.transport import Login, NatsTransport
from meshfold.security import Grant, Identity, IssuerCertificate, NodeKeys
from meshfold.security.join import JoinToken, check_answer_signature, new_body, open_answer, seal_request

__all__ = ("JoinDocument", "join", "join_over")

ASK_S: Final = 2.0
TRIES_MAX: Final = 10
RETRY_S: Final = 0.5


class JoinDocument(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What a join brings."""

    member: MemberFile
    identity: bytes
    grants: list[bytes]
    login_jwt: str
    narrow_jwt: str = ""


async def join(
    text: str,
    folder: Path,
    *,
    login: Login | None = None,
    url: str | None = None,
    tls: ssl.SSLContext | None = None,
) -> MemberFolder:
    """Join the mesh of a token and keep what it grants in `folder`. Asked again with the same folder, it goes on.

    :param login: the operator's own login, for servers that know no JWTs of this mesh
    :param tls: for servers whose certificate is of a private authority
    :param url: where the server is, instead of what the token says
    :raises ConfigError: if the token is none, expired, used or altered, or the folder cannot be used
    :raises TransportClosed: if the server cannot be reached
    :raises TransportTimeout: if no issuer answers
    """
    token = JoinToken.decode(text)
    folder = state_folder(folder)
    if MemberFolder.exists(folder):
        raise ConfigError(
            f"a node has already joined in {folder}",
            fix="choose another folder, or run it as it is",
            item="--dir",
        )
    if time.time() * 1000 > token.expires_ms:
        raise ConfigError("the token has expired", fix="ask for a new one", item="token", reason="expired")
    key = Ed25519PrivateKey.from_private_bytes(token.login_key) if token.login_key else None
    chosen = login or (Login(jwt=lambda: token.login_jwt, sign=key.sign) if key else Login())
    if tls is not None:
        chosen = chosen.over(tls)
    transport = NatsTransport(
        url or token.url,
        name=f"join {token.name}",
        login=chosen,
        inbox_prefix=Subjects(token.cluster).enrol_inbox(token.id),
    )
    await _connect(transport, token, url or token.url)
    try:
        return await join_over(transport, token, folder, url)
    finally:
        await transport.close()


async def _connect(transport: NatsTransport, token: JoinToken, url: str) -> None:
    try:
        await transport.connect()
    except TransportClosed as error:
        if "refuses the login" not in error.what:
            raise
        raise ConfigError(
            f"the server at {url} does not take the token's login: it is not one of the mesh {token.mesh}",
            fix="name its server with --nats, or ask for a new token",
            item="token",
            reason="mesh",
        ) from None


async def join_over(
    transport: Transport,
    token: JoinToken,
    folder: Path,
    url: str | None = None,
    *,
    retry_s: float = RETRY_S,
    ask_s: float = ASK_S,
) -> MemberFolder:
    """Join over a connected transport. Raises as `join`."""
    keys, body = _prepare(folder, token)
    subject = Subjects(token.cluster).enrol(token.id)
    last: Exception = TransportTimeout("nobody answers", subject=subject, timeout_s=ask_s)
    for _ in range(TRIES_MAX):
        try:
            answer = await transport.request(subject, seal_request(body, token), timeout_s=ask_s)
            return _accept(answer.data, token, keys, body, folder, url)
        except ConfigError:
            # The issuer's own no, by its MAC: asking again would not help.
            _forget(folder)
            raise
        except (TransportTimeout, FrameRejected) as error:
            # What does not prove to be the issuer's says nothing; the issuer may still answer.
            last = error
            await asyncio.sleep(retry_s)
    if isinstance(last, FrameRejected) and last.reason == "member":
        raise ConfigError(
            "whoever answers says that it does not know this token (nobody can prove that)",
            fix="it was withdrawn, altered, or is of another mesh: ask for a new one",
            item="token",
            reason="unknown",
        )
    if isinstance(last, FrameRejected):
        raise ConfigError(
            f"what answers is not the issuer of the token: {last}",
            fix="is the server the one of the mesh? Ask who invited you",
            item="token",
            reason="impostor",
        )
    raise TransportTimeout(
        f"no issuer of the mesh {token.mesh} answers",
        fix="is this the mesh's server, and does its hub run? Ask who invited you",
        subject=subject,
        timeout_s=ask_s * TRIES_MAX,
    )


def _prepare(folder: Path, token: JoinToken) -> tuple[NodeKeys, bytes]:
    """Keys and request body, kept before anything is sent."""
    pending = folder / "join.body"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.chmod(0o700)
        if pending.exists():
            saved = pending.read_bytes()
            if saved[:16] != token.id:
                raise ConfigError(
                    f"{folder} holds an unfinished join with another token",
                    fix="use that token, or another folder",
                    item="--dir",
                )
            return NodeKeys.load(folder), saved[16:]
        keys = NodeKeys.generate()
        keys.save(folder)
        body = new_body(keys, token)
        write_private(pending, token.id + body)
    except OSError as error:
        raise ConfigError(f"cannot use {folder}: {error.strerror}", item="--dir") from error
    return keys, body


def _forget(folder: Path) -> None:
    """Take away what `_prepare` made; the folder stays."""
    for path in (folder / "join.body", *folder.glob("*.key")):
        path.unlink(missing_ok=True)


def _check_clock(issued_ms: int, now_ms: int) -> None:
    """Refuse a clock that is behind the mesh's: nothing it stamps would be taken.

    One that is ahead cannot be told from an answer that was asked for again later; `doctor` finds it.
    """
    behind_ms = issued_ms - now_ms
    if behind_ms > SKEW_MS_MAX:
        raise ClockSkew(
            f"this machine's clock is {behind_ms / 1000:.0f} s behind the mesh's",
            fix="set it, best by NTP, and join again",
            skew_ms=behind_ms,
            limit_ms=SKEW_MS_MAX,
            peer="the mesh's authority",
        )


def _accept(
    data: bytes, token: JoinToken, keys: NodeKeys, body: bytes, folder: Path, url: str | None
) -> MemberFolder:
    raw, signature = open_answer(data, token, keys, body)
    try:
        document = msgspec.msgpack.decode(raw, type=JoinDocument)
    except msgspec.MsgspecError as error:
        raise FrameRejected("decode", str(error)) from None
    member = document.member
    trust = member.trust()
    now_ms = int(time.time() * 1000)
    # Before anything is judged by our clock; the answer is authentic, it was made with the token's secret.
    identity = Identity.parse(document.identity)
    _check_clock(identity.not_before_ms + BACKDATE_MS, now_ms)
    if trust.authority_hash != token.authority or member.cluster != token.cluster:
        raise FrameRejected("root", "the answer is of another authority")
    certificate = IssuerCertificate.parse(member.certificates[0])
    certificate.verify(cluster=token.cluster, root_pub=trust.identity_root, now_ms=now_ms)
    check_answer_signature(raw, signature, token, body, certificate.identity_pub)
    identity.verify(cluster=token.cluster, issuers=trust.issuers(now_ms), now_ms=now_ms)
    if (identity.node_pub, identity.name) != (keys.node_pub, token.node_name(keys.node_pub)):
        raise FrameRejected("member", "an identity of another node")
    grants = [Grant.parse(grant) for grant in document.grants]
    for grant in grants:
        grant.verify(cluster=token.cluster, roots=frozenset({trust.grant_root}), now_ms=now_ms)
    write_private(folder / "identity", document.identity)
    keep_grants(folder, grants)
    write_private(folder / "login.jwt", document.login_jwt.encode())
    if document.narrow_jwt:
        write_private(folder / "narrow.jwt", document.narrow_jwt.encode())
    if url:
        member = msgspec.structs.replace(member, url=url)
    # Last: with this file the node has joined.
    write_private(folder / "member.json", msgspec.json.encode(member))
    joined = MemberFolder(folder, keys, member, NodeMemory(folder))
    joined.context().save(link=False)
    return joined

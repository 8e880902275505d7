"""What only the NATS transport has to stand: hostile bytes, ending logins, foreign servers."""

from __future__ import annotations

import asyncio
import base64
import binascii
import datetime
import ipaddress
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from brokers import OPEN, WAIT_S, NatsBroker, arrived
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from meshfold.core.errors import ConfigError, TransportClosed
from meshfold.core.ports import Message
from meshfold.mesh.broker import EmbeddedServer, Papers, Permissions, find_server, guarded
from meshfold.mesh.transport import Login, NatsTransport, tls_context


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[NatsBroker]:
    """A running server."""
    made = NatsBroker(tmp_path / "server")
    yield made
    made.stop()


async def test_no_message_of_a_peer_ends_the_reader(broker: NatsBroker) -> None:
    victim, hostile = broker.client("victim"), broker.client("hostile")
    await victim.connect()
    await hostile.connect()
    queue: asyncio.Queue[Message] = asyncio.Queue()
    await victim.subscribe("t.>", queue.put_nowait)
    assert hostile._link is not None
    raw: Any = hostile._link.client._transport
    evils = (
        b"PUB t.\xff\xfe 1\r\nx\r\n",
        b"PUB t.x \xff\xfe 1\r\nx\r\n",
        b"HPUB t.x 1 2\r\nNx\r\n",
        b"HPUB t.x 8 9\r\nNATS/1.0x\r\n",
        b"HPUB t.x 16 17\r\nNATS/1.0 \xff\xfe\xfd\r\n\r\nx\r\n",
    )
    for number, evil in enumerate(evils):
        raw.write(evil)
        await raw.drain()
        await hostile.publish("t.good", str(number).encode())
        while (await arrived(queue)).data != str(number).encode():
            pass
    assert victim.counters()["malformed"] >= 3
    await victim.close()
    await hostile.close()


async def test_behind_waits_for_what_another_subscription_has_not_handled_yet(broker: NatsBroker) -> None:
    """A checkpoint on one subject speaks of frames on another: they stand before it on the wire."""
    one, two = broker.client("one", OPEN), broker.client("two", OPEN)
    await one.connect()
    await two.connect()
    handled: list[bytes] = []
    found: asyncio.Queue[tuple[int, int]] = asyncio.Queue()

    def at_the_mark(message: Message) -> None:
        before = len(handled)
        if message.data:
            frames.behind(lambda: found.put_nowait((before, len(handled))))

    await two.subscribe("mark", at_the_mark)
    frames = await two.subscribe("frame", lambda message: handled.append(message.data))
    overtaken = False
    overtaken = False
    for round_ in range(1, 21):
        # Both in one piece with the frames: the first wakes the task that then handles the second too early.
        await one.publish("mark", b"")
        for _ in range(20):
            await one.publish("frame", b"x")
        await one.publish("mark", b"now")
        at_once, behind = await asyncio.wait_for(found.get(), 30)
        overtaken |= at_once < 20 * round_
        assert behind == 20 * round_
    assert overtaken, "the mark was never handled first: this test proves nothing"
    await one.close()
    await two.close()


async def test_a_login_that_ends_is_renewed_without_losing_or_doubling_a_message(broker: NatsBroker) -> None:
    sender, reader = broker.client("sender", life_s=3), broker.client("reader", life_s=3)
    await sender.connect()
    await reader.connect()
    got: list[int] = []
    await reader.subscribe("t", lambda message: got.append(int(message.data)))
    number = 0
    deadline = asyncio.get_running_loop().time() + WAIT_S
    while min(sender.counters().get("renewals", 0), reader.counters().get("renewals", 0)) < 2:
        assert asyncio.get_running_loop().time() < deadline
        await sender.publish("t", str(number).encode())
        number += 1
        await asyncio.sleep(0)
    await sender.barrier()
    await sender.publish("t", str(number).encode())
    while not got or got[-1] != number:
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0)
    assert got == list(range(number + 1))
    assert number > 1000
    await sender.close()
    await reader.close()


async def test_an_answer_under_way_during_a_renewal_arrives(broker: NatsBroker) -> None:
    asker, server = broker.client("asker"), broker.client("server")
    await asker.connect()
    await server.connect()
    asked: asyncio.Queue[Message] = asyncio.Queue()
    await server.subscribe("ask", asked.put_nowait)
    answer = asyncio.create_task(asker.request("ask", b"?", timeout_s=WAIT_S))
    question = await arrived(asked)
    await asker.renew()
    await server.renew()
    await server.publish(question.reply, b"!")
    assert (await answer).data == b"!"
    await asker.close()
    await server.close()


async def test_a_client_whose_connection_the_server_ended_comes_back(broker: NatsBroker) -> None:
    client = broker.client("back")
    await client.connect()
    queue: asyncio.Queue[Message] = asyncio.Queue()
    await client.subscribe("t", queue.put_nowait)
    back = asyncio.Event()
    client.on_event(lambda event: back.set() if event.detail == "login renewed" else None)
    assert client._link is not None
    # The server closes the client for good on a protocol violation, as on an expired login.
    raw: Any = client._link.client._transport
    raw.write(b"NONSENSE\r\n")
    await raw.drain()
    await asyncio.wait_for(back.wait(), WAIT_S)
    await client.publish("t", b"again")
    assert (await arrived(queue)).data == b"again"
    await client.close()


async def test_a_renewed_login_with_wider_rights_is_in_force_at_once(broker: NatsBroker) -> None:
    key = Ed25519PrivateKey.generate()
    rights = {"now": Permissions(pub=("a",), sub=("a", "_MF.w.>"))}

    def mint() -> str:
        from meshfold.mesh.broker import mint_user

        return mint_user(
            broker.account,
            key.public_key().public_bytes_raw(),
            name="w",
            permissions=rights["now"],
            expires_s=4_000_000_000,
        )

    client = NatsTransport(
        broker.server.url, name="w", login=Login(jwt=mint, sign=key.sign), inbox_prefix="_MF.w"
    )
    await client.connect()
    queue: asyncio.Queue[Message] = asyncio.Queue()
    lost: list[str] = []
    client.on_event(lambda event: lost.append(event.detail) if event.kind == "permission" else None)
    await client.subscribe("a", queue.put_nowait)
    rights["now"] = OPEN
    await client.renew()
    await client.subscribe("b", queue.put_nowait)
    await client.publish("b", b"wide")
    assert (await arrived(queue)).data == b"wide"
    rights["now"] = Permissions(pub=("b",), sub=("b", "_MF.w.>"))
    await client.renew()
    assert any("lost its subscription" in detail and '"a"' in detail for detail in lost)
    await client.close()


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1",
        "127.0.0.1:4222",
        "nats://",
        "nats://h:0",
        "nats://h:99999",
        "nats://h:x",
        "",
        "nats:///",
    ],
)
def test_what_is_no_nats_url_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="no NATS URL"):
        NatsTransport(url, name="n", inbox_prefix="_MF.n")


async def test_credentials_in_a_url_and_a_dead_server_are_refused() -> None:
    with pytest.raises(ConfigError, match="credentials"):
        NatsTransport("nats://user:secret@127.0.0.1:1", name="n", inbox_prefix="_MF.n")
    with pytest.raises(TransportClosed, match=r"127\.0\.0\.1:1"):
        await NatsTransport("nats://127.0.0.1:1", name="n", inbox_prefix="_MF.n").connect()


async def test_the_second_of_two_servers_is_taken_when_the_first_is_dead(broker: NatsBroker) -> None:
    client = NatsTransport(
        f"nats://127.0.0.1:1,{broker.server.url}", name="n", login=broker.login("n"), inbox_prefix="_MF.n"
    )
    await client.connect()
    await client.barrier()
    await client.close()


async def talker(words: bytes) -> tuple[asyncio.Server, str]:
    """A server that says `words` to whoever connects."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(words)
        await writer.drain()
        await reader.read(100)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    return server, f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_server_that_is_not_nats_is_named_so() -> None:
    server, url = await talker(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    with pytest.raises(ConfigError, match="no NATS server"):
        await NatsTransport(url, name="n", inbox_prefix="_MF.n").connect()
    server.close()


@pytest.mark.parametrize("version", ["2.9.0", "2.13.4", "2.14.2", "2.12.11", "1.0"])
async def test_a_server_with_known_holes_is_refused(version: str) -> None:
    words = b'INFO {"version":"%s","max_payload":1048576}\r\nPONG\r\n' % version.encode()
    server, url = await talker(words)
    with pytest.raises(ConfigError, match="too old"):
        await NatsTransport(url, name="n", inbox_prefix="_MF.n").connect()
    server.close()


@pytest.mark.parametrize("words", [b"", b'INFO {"version":"2.15.1","max_payload":1048576}\r\n'])
async def test_a_connect_that_is_cancelled_leaves_no_socket_open(words: bytes) -> None:
    accepted = asyncio.Event()
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(words)
        if words:
            await reader.readline()  # its CONNECT, which is never answered
        accepted.set()
        while await reader.read(4096):
            pass
        ended.set()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        client = NatsTransport(f"nats://127.0.0.1:{port}", name="n", inbox_prefix="_MF.n")
        connecting = asyncio.ensure_future(client.connect())
        await asyncio.wait_for(accepted.wait(), 60)
        connecting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await connecting
        await asyncio.wait_for(ended.wait(), 60)


async def test_a_refused_login_says_so(broker: NatsBroker) -> None:
    stranger = Ed25519PrivateKey.generate()
    other = broker.login("other")
    login = Login(jwt=other.jwt, sign=stranger.sign)
    with pytest.raises(TransportClosed, match="refuses the login of stranger"):
        await NatsTransport(broker.server.url, name="stranger", login=login, inbox_prefix="_MF.s").connect()


def test_a_port_in_use_is_one_line(broker: NatsBroker, tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate().private_bytes_raw()
    with pytest.raises(ConfigError, match=f"port {broker.server.port} is in use"):
        EmbeddedServer.start(tmp_path / "other", Papers.mint(key, key), port=broker.server.port)


def test_a_folder_with_quotes_and_spaces_in_its_name_serves(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate().private_bytes_raw()
    server = EmbeddedServer.start(tmp_path / 'a "b" c\\d', Papers.mint(key, key))
    assert server.alive
    server.stop()


def test_a_folder_others_can_read_is_closed_to_them(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir(mode=0o755)
    (folder / "server.conf").write_text("")
    (folder / "server.conf").chmod(0o644)
    key = Ed25519PrivateKey.generate().private_bytes_raw()
    server = EmbeddedServer.start(folder, Papers.mint(key, key))
    assert folder.stat().st_mode & 0o077 == 0
    assert (folder / "server.conf").stat().st_mode & 0o077 == 0
    server.stop()


class PlainServer:
    """A nats-server without operator mode, from a configuration of the test's own."""

    def __init__(self, folder: Path, config: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "own.conf"
        path.write_text(f'listen: "127.0.0.1:-1"\nports_file_dir: "{folder}"\n{config}')
        self.process = subprocess.Popen(
            guarded(find_server(), "-c", str(path)), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._ports = folder / f"nats-server_{self.process.pid}.ports"

    async def port(self) -> int:
        """Where it listens, once it does."""
        import json

        while True:
            assert self.process.poll() is None
            try:
                return int(json.loads(self._ports.read_text())["nats"][0].rpartition(":")[2])
            except (OSError, ValueError):
                await asyncio.sleep(0)

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait()


def write_pair(
    folder: Path, name: str, issuer: Any = None, *, address: str = "127.0.0.1", ended_days: int = -1
) -> Any:
    """Make a key and a certificate for the address, signed by `issuer` or itself; it ended so many days ago."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=ended_days + 2))
        .not_valid_after(now - datetime.timedelta(days=ended_days))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if issuer:
        names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))])
        builder = builder.add_extension(names, critical=False)
    certificate = builder.sign(issuer[1] if issuer else key, hashes.SHA256())
    (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return certificate, key


async def test_tls_with_a_private_authority_connects_and_a_stranger_is_refused(tmp_path: Path) -> None:
    authority = write_pair(tmp_path, "authority")
    write_pair(tmp_path, "server", authority)
    write_pair(tmp_path, "stranger")
    files = f'tls {{ cert_file: "{tmp_path}/server.pem", key_file: "{tmp_path}/server.key" }}\n'
    server = PlainServer(tmp_path / "tls", files)
    try:
        url = f"tls://127.0.0.1:{await server.port()}"
        good = NatsTransport(
            url, name="n", login=Login(tls=tls_context(tmp_path / "authority.pem")), inbox_prefix="_MF.n"
        )
        await good.connect()
        assert good.server["tls_required"]
        await good.close()
        for context in (tls_context(tmp_path / "stranger.pem"), tls_context()):
            with pytest.raises(ConfigError, match="no fallback to plaintext"):
                await NatsTransport(url, name="n", login=Login(tls=context), inbox_prefix="_MF.n").connect()
    finally:
        server.stop()


async def test_tls_asked_of_a_plaintext_server_sends_no_login(tmp_path: Path) -> None:
    server = PlainServer(tmp_path / "plain", "authorization { user: u, password: p }\n")
    try:
        login = Login(user="u", password="p", tls=tls_context())
        with pytest.raises(ConfigError, match="no TLS"):
            await NatsTransport(
                f"tls://127.0.0.1:{await server.port()}", name="n", login=login, inbox_prefix="_MF.n"
            ).connect()
    finally:
        server.stop()


def seed_text(key: Ed25519PrivateKey) -> tuple[str, str]:
    """(seed, public key) of a user as nkeys text."""
    raw = bytes([18 << 3 | (20 << 3) >> 5, 0]) + key.private_bytes_raw()
    raw += binascii.crc_hqx(raw, 0).to_bytes(2, "little")
    public = bytes([20 << 3]) + key.public_key().public_bytes_raw()
    public += binascii.crc_hqx(public, 0).to_bytes(2, "little")
    return tuple(base64.b32encode(part).decode().rstrip("=") for part in (raw, public))  # type: ignore[return-value]


async def test_user_and_password_token_and_nkey_log_in(tmp_path: Path) -> None:
    seed, public = seed_text(Ed25519PrivateKey.generate())
    (tmp_path / "user.nk").write_text(seed + "\n")
    cases = (
        ("authorization { user: u, password: p }\n", Login(user="u", password="p")),
        ("authorization { token: t }\n", Login(token="t")),
        (f"authorization {{ users: [ {{ nkey: {public} }} ] }}\n", Login.nkey_seed(tmp_path / "user.nk")),
    )
    for number, (config, login) in enumerate(cases):
        server = PlainServer(tmp_path / str(number), config)
        try:
            url = f"nats://127.0.0.1:{await server.port()}"
            client = NatsTransport(url, name="n", login=login, inbox_prefix="_MF.n")
            await client.connect()
            await client.barrier()
            await client.close()
            with pytest.raises(TransportClosed, match="refuses the login"):
                await NatsTransport(url, name="n", inbox_prefix="_MF.n").connect()
        finally:
            server.stop()


async def test_a_creds_file_logs_in_and_what_is_none_is_refused(broker: NatsBroker, tmp_path: Path) -> None:
    from meshfold.mesh.broker import mint_user

    key = Ed25519PrivateKey.generate()
    jwt = mint_user(
        broker.account,
        key.public_key().public_bytes_raw(),
        name="c",
        permissions=OPEN,
        expires_s=4_000_000_000,
    )
    creds = tmp_path / "user.creds"
    seed = seed_text(key)[0]
    creds.write_text(
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\nkeep it secret\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )
    login = Login.creds(creds)
    assert seed not in repr(login) and jwt not in repr(login)
    client = NatsTransport(broker.server.url, name="c", login=login, inbox_prefix="_MF.c")
    await client.connect()
    await client.close()
    for text in (
        "",
        "hello",
        creds.read_text().replace(seed, seed[:9] + ("A" if seed[9] != "A" else "B") + seed[10:]),
    ):
        creds.write_text(text)
        with pytest.raises(ConfigError):
            Login.creds(creds)
    with pytest.raises(ConfigError, match="cannot read"):
        Login.creds(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("changes", "because"),
    [({"ended_days": 1}, "expired"), ({"address": "127.0.0.2"}, "mismatch")],
    ids=["expired", "wrong host"],
)
async def test_hl3_a_certificate_that_ended_or_names_another_host_is_refused(
    tmp_path: Path, changes: dict[str, Any], because: str
) -> None:
    authority = write_pair(tmp_path, "authority")
    write_pair(tmp_path, "server", authority, **changes)
    files = f'tls {{ cert_file: "{tmp_path}/server.pem", key_file: "{tmp_path}/server.key" }}\n'
    server = PlainServer(tmp_path / "tls", files)
    try:
        transport = NatsTransport(
            f"tls://127.0.0.1:{await server.port()}",
            name="n",
            login=Login(tls=tls_context(tmp_path / "authority.pem")),
            inbox_prefix="_MF.n",
        )
        with pytest.raises(ConfigError, match=because) as caught:
            await transport.connect()
        assert "no fallback to plaintext" in str(caught.value)
        assert not transport.connected
    finally:
        server.stop()

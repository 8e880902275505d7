"""The hardened transport against a real server and a hostile peer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from meshfold.core.errors import ConfigError, GrantDenied, TooLarge, TransportClosed, TransportTimeout
from meshfold.core.ports import Message
from meshfold.mesh.broker import EmbeddedServer, Permissions, mint_user
from meshfold.mesh.transport import NatsTransport

WAIT_S = 20.0


class Broker:
    """A server and its account."""

    def __init__(self, folder: Path) -> None:
        self._operator = Ed25519PrivateKey.generate().private_bytes_raw()
        self._account = Ed25519PrivateKey.generate().private_bytes_raw()
        self._folder = folder
        self.server = EmbeddedServer.start(folder, operator=self._operator, account=self._account)

    def restart(self) -> None:
        """Kill it and start it again on its port."""
        port = self.server.port
        self.server.stop()
        self.server = EmbeddedServer.start(
            self._folder, operator=self._operator, account=self._account, port=port
        )

    def client(self, name: str, permissions: Permissions) -> NatsTransport:
        """A client with these rights."""
        key = Ed25519PrivateKey.generate()
        token = mint_user(
            self._account,
            key.public_key().public_bytes_raw(),
            name=name,
            permissions=permissions,
            expires_s=int(time.time()) + 600,
        )
        return NatsTransport(
            self.server.url, name=name, jwt=lambda: token, sign=key.sign, inbox_prefix=f"_MF.{name}"
        )


OPEN = Permissions(pub=(">",), sub=(">",), allow_responses=True)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    """A running server."""
    made = Broker(tmp_path / "server")
    yield made
    made.server.stop()


async def arrived(queue: asyncio.Queue[Message]) -> Message:
    """The next message."""
    return await asyncio.wait_for(queue.get(), WAIT_S)


async def test_messages_arrive_in_order_and_requests_are_answered(broker: Broker) -> None:
    one, two = broker.client("one", OPEN), broker.client("two", OPEN)
    await one.connect()
    await two.connect()
    queue: asyncio.Queue[Message] = asyncio.Queue()
    await two.subscribe("t.>", queue.put_nowait)
    for number in range(100):
        await one.publish(f"t.{number}", str(number).encode())
    assert [(await arrived(queue)).data for _ in range(100)] == [
        str(number).encode() for number in range(100)
    ]
    with pytest.raises(TransportTimeout):
        await one.request("nobody", b"", timeout_s=0.5)
    await one.close()
    await two.close()
    with pytest.raises(TransportClosed):
        await one.publish("t.1", b"")


async def test_no_message_of_a_peer_ends_the_reader(broker: Broker) -> None:
    victim, hostile = broker.client("victim", OPEN), broker.client("hostile", OPEN)
    await victim.connect()
    await hostile.connect()
    queue: asyncio.Queue[Message] = asyncio.Queue()
    await victim.subscribe("t.>", queue.put_nowait)
    raw: Any = hostile._client._transport
    for number, evil in enumerate(
        (
            b"PUB t.\xff\xfe 1\r\nx\r\n",
            b"PUB t.x \xff\xfe 1\r\nx\r\n",
            b"HPUB t.x 1 2\r\nNx\r\n",
            b"HPUB t.x 8 9\r\nNATS/1.0x\r\n",
        )
    ):
        raw.write(evil)
        await raw.drain()
        await hostile.publish("t.good", str(number).encode())
        while (await arrived(queue)).data != str(number).encode():
            pass
    await victim.close()
    await hostile.close()


async def test_a_refused_subscription_is_an_error_that_names_it(broker: Broker) -> None:
    client = broker.client("narrow", Permissions(pub=("t.>",), sub=("t.open", "_MF.narrow.>")))
    await client.connect()
    with pytest.raises(GrantDenied, match=r"t\.secret"):
        await client.subscribe("t.secret", lambda message: None)
    await client.subscribe("t.open", lambda message: None)
    await client.close()


async def test_a_login_without_rights_can_do_nothing(broker: Broker) -> None:
    client = broker.client("nothing", Permissions(pub=(), sub=()))
    await client.connect()
    with pytest.raises(GrantDenied):
        await client.subscribe("secret.>", lambda message: None)
    await client.close()


async def test_payload_and_headers_together_are_measured_before_sending(broker: Broker) -> None:
    client = broker.client("large", OPEN)
    await client.connect()
    with pytest.raises(TooLarge):
        await client.publish("t", bytes(client.max_payload_bytes - 1), headers={"Mf-Key": "v" * 100})
    assert client.connected
    await client.close()


async def test_a_restarted_server_is_found_again(broker: Broker) -> None:
    client = broker.client("stayer", OPEN)
    queue: asyncio.Queue[Message] = asyncio.Queue()
    back = asyncio.Event()
    await client.connect()
    await client.subscribe("t", queue.put_nowait)
    client.on_event(lambda event: back.set() if event.kind == "connected" else None)
    await asyncio.to_thread(broker.restart)
    await asyncio.wait_for(back.wait(), WAIT_S)
    await client.barrier()
    await client.publish("t", b"again")
    assert (await arrived(queue)).data == b"again"
    assert client.counters()["reconnects"] == 1
    await client.close()


async def test_credentials_in_a_url_and_a_dead_server_are_refused(broker: Broker) -> None:
    with pytest.raises(ConfigError, match="credentials"):
        NatsTransport("nats://user:secret@127.0.0.1:1", name="n", inbox_prefix="_MF.n")
    with pytest.raises(TransportClosed):
        await NatsTransport("nats://127.0.0.1:1", name="n", inbox_prefix="_MF.n").connect()


def test_a_port_in_use_is_one_line(broker: Broker, tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate().private_bytes_raw()
    with pytest.raises(ConfigError, match=f"port {broker.server.port} is in use"):
        EmbeddedServer.start(tmp_path / "other", operator=key, account=key, port=broker.server.port)

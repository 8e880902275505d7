"""What every transport promises: the same suite over a real nats-server and the simulated broker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from brokers import OPEN, WAIT_S, Broker, NatsBroker, SimulatedBroker, arrived
from meshfold.core.errors import GrantDenied, TooLarge, TransportClosed, TransportTimeout, WiringError
from meshfold.core.ports import Message, Transport, TransportEvent
from meshfold.mesh.broker import Permissions


@pytest.fixture(params=["nats", "sim"])
def broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    """A running broker."""
    made: Broker = NatsBroker(tmp_path / "server") if request.param == "nats" else SimulatedBroker(seed=1)
    yield made
    made.stop()


async def connected(broker: Broker, name: str, permissions: Permissions = OPEN) -> Transport:
    """A connected client."""
    client = broker.client(name, permissions)
    await client.connect()
    return client


async def test_messages_arrive_in_order_with_subject_reply_and_headers(broker: Broker) -> None:
    one, two = await connected(broker, "one"), await connected(broker, "two")
    queue: asyncio.Queue[Message] = asyncio.Queue()
    await two.subscribe("t.>", queue.put_nowait)
    for number in range(100):
        await one.publish(f"t.{number}", str(number).encode())
    got = [await arrived(queue) for _ in range(100)]
    assert [(message.subject, message.data) for message in got] == [
        (f"t.{number}", str(number).encode()) for number in range(100)
    ]
    await one.publish("t.h", b"", reply="back", headers={"Mf-Key": "value: with, all"})
    message = await arrived(queue)
    assert (message.reply, message.headers) == ("back", {"Mf-Key": "value: with, all"})
    await one.close()
    await two.close()


async def test_a_wildcard_takes_one_token_and_a_tail_the_rest(broker: Broker) -> None:
    client = await connected(broker, "one")
    star: asyncio.Queue[Message] = asyncio.Queue()
    tail: asyncio.Queue[Message] = asyncio.Queue()
    await client.subscribe("a.*.c", star.put_nowait)
    await client.subscribe("a.>", tail.put_nowait)
    for subject in ("a.b.c", "a.b.c.d", "a", "b.b.c", "a.x"):
        await client.publish(subject, b"")
    await client.publish("a.end.c", b"")
    assert [(await arrived(star)).subject for _ in range(2)] == ["a.b.c", "a.end.c"]
    assert [(await arrived(tail)).subject for _ in range(4)] == ["a.b.c", "a.b.c.d", "a.x", "a.end.c"]
    await client.close()


async def test_a_request_is_answered_once_and_nobody_listening_is_a_timeout(broker: Broker) -> None:
    asker, server = await connected(broker, "asker"), await connected(broker, "server")

    def answer(message: Message) -> None:
        for word in (b"first", b"second"):
            task = asyncio.get_running_loop().create_task(server.publish(message.reply, word))
            tasks.append(task)

    tasks: list[asyncio.Task[None]] = []
    await server.subscribe("ask", answer)
    assert (await asker.request("ask", b"?", timeout_s=WAIT_S)).data == b"first"
    with pytest.raises(TransportTimeout, match="nobody"):
        await asker.request("nobody", b"", timeout_s=WAIT_S)
    await asyncio.gather(*tasks)
    await asker.close()
    await server.close()


async def test_a_refused_subscription_is_an_error_that_names_it(broker: Broker) -> None:
    client = await connected(broker, "narrow", Permissions(pub=("t.>",), sub=("t.open", "_MF.narrow.>")))
    with pytest.raises(GrantDenied, match=r"t\.secret"):
        await client.subscribe("t.secret", lambda message: None)
    await client.subscribe("t.open", lambda message: None)
    assert client.counters()["permission"] == 1
    await client.close()


async def test_a_refused_publish_reaches_nobody_and_is_told(broker: Broker) -> None:
    narrow, reader = (
        await connected(broker, "narrow", Permissions(pub=("t.>",), sub=())),
        await connected(broker, "reader"),
    )
    told: asyncio.Queue[TransportEvent] = asyncio.Queue()
    queue: asyncio.Queue[Message] = asyncio.Queue()
    narrow.on_event(told.put_nowait)
    await reader.subscribe(">", queue.put_nowait)
    await narrow.publish("secret.x", b"no")
    await narrow.publish("t.x", b"yes")
    assert (await arrived(queue)).data == b"yes"
    event = await asyncio.wait_for(told.get(), WAIT_S)
    assert event.kind == "permission" and "secret.x" in event.detail
    await narrow.close()
    await reader.close()


async def test_a_login_without_rights_can_do_nothing(broker: Broker) -> None:
    client = await connected(broker, "nothing", Permissions(pub=(), sub=()))
    with pytest.raises(GrantDenied):
        await client.subscribe("secret.>", lambda message: None)
    await client.close()


async def test_a_responder_may_answer_where_it_may_not_publish(broker: Broker) -> None:
    asker = await connected(broker, "asker")
    rights = Permissions(pub=(), sub=("ask",), allow_responses=True)
    server = await connected(broker, "server", rights)
    tasks: list[asyncio.Task[None]] = []

    def answer(message: Message) -> None:
        tasks.append(asyncio.get_running_loop().create_task(server.publish(message.reply, b"yes")))

    await server.subscribe("ask", answer)
    assert (await asker.request("ask", b"?", timeout_s=WAIT_S)).data == b"yes"
    await asyncio.gather(*tasks)
    await asker.close()
    await server.close()


async def test_payload_and_headers_together_are_measured_before_sending(broker: Broker) -> None:
    client = await connected(broker, "large")
    queue: asyncio.Queue[Message] = asyncio.Queue()
    await client.subscribe("t", queue.put_nowait)
    with pytest.raises(TooLarge):
        await client.publish("t", bytes(client.max_payload_bytes - 1), headers={"Mf-Key": "v" * 100})
    with pytest.raises(WiringError, match="headers"):
        await client.publish("t", b"", headers={"Mf-Key": "v" * 70_000})
    await client.publish("t", bytes(client.max_payload_bytes))
    assert len((await arrived(queue)).data) == client.max_payload_bytes
    await client.close()


@pytest.mark.parametrize(
    "subject", ["", ".", "a..b", ".a", "a.", "a b", "a\r\nPUB x 0", "a.*", "a.>", "x" * 2000]
)
async def test_what_is_no_subject_is_refused_before_sending(broker: Broker, subject: str) -> None:
    client = await connected(broker, "one")
    with pytest.raises(WiringError, match="no subject"):
        await client.publish(subject, b"")
    with pytest.raises(WiringError, match="no subject"):
        await client.request(subject, b"", timeout_s=WAIT_S)
    await client.barrier()
    await client.close()


@pytest.mark.parametrize("subject", ["", "a..b", "a.>.b", "a b"])
async def test_what_is_no_pattern_cannot_be_subscribed(broker: Broker, subject: str) -> None:
    client = await connected(broker, "one")
    with pytest.raises(WiringError, match="no subject"):
        await client.subscribe(subject, lambda message: None)
    await client.close()


@pytest.mark.parametrize(
    ("key", "value"), [("", "v"), ("a b", "v"), ("a:", "v"), ("a", "x\r\ny"), ("ü", "v")]
)
async def test_a_header_that_could_split_the_message_is_refused(broker: Broker, key: str, value: str) -> None:
    client = await connected(broker, "one")
    with pytest.raises(WiringError, match="no header"):
        await client.publish("t", b"", headers={key: value})
    await client.close()


async def test_a_handler_that_raises_loses_only_its_message(broker: Broker) -> None:
    client = await connected(broker, "one")
    queue: asyncio.Queue[Message] = asyncio.Queue()

    def handle(message: Message) -> None:
        if message.data == b"bad":
            raise ValueError("bad")
        queue.put_nowait(message)

    await client.subscribe("t", handle)
    for data in (b"1", b"bad", b"2"):
        await client.publish("t", data)
    assert [(await arrived(queue)).data for _ in range(2)] == [b"1", b"2"]
    assert client.counters()["handler_error"] == 1
    await client.close()


async def test_a_listener_that_raises_hurts_nobody(broker: Broker) -> None:
    client = broker.client("one")

    def fail(event: TransportEvent) -> None:
        raise ValueError(event.kind)

    client.on_event(fail)
    await client.connect()
    await client.barrier()
    assert client.counters()["listener_error"] == 1
    await client.close()


async def test_a_closed_subscription_takes_nothing_more(broker: Broker) -> None:
    client = await connected(broker, "one")
    first: asyncio.Queue[Message] = asyncio.Queue()
    second: asyncio.Queue[Message] = asyncio.Queue()
    subscription = await client.subscribe("t", first.put_nowait)
    await client.subscribe("t", second.put_nowait)
    await subscription.close()
    await subscription.close()
    await client.publish("t", b"1")
    assert (await arrived(second)).data == b"1"
    assert first.empty()
    await client.close()


async def test_a_restarted_broker_is_found_again_with_every_subscription(broker: Broker) -> None:
    client = await connected(broker, "stayer")
    queue: asyncio.Queue[Message] = asyncio.Queue()
    back = asyncio.Event()
    await client.subscribe("t", queue.put_nowait)
    client.on_event(lambda event: back.set() if event.kind == "connected" else None)
    await asyncio.to_thread(broker.restart) if isinstance(broker, NatsBroker) else broker.restart()
    await asyncio.wait_for(back.wait(), WAIT_S)
    await client.barrier()
    await client.publish("t", b"again")
    assert (await arrived(queue)).data == b"again"
    assert client.counters()["reconnects"] == 1
    await client.close()


async def test_what_was_published_before_close_arrives_and_close_is_final(broker: Broker) -> None:
    one, two = await connected(broker, "one"), await connected(broker, "two")
    queue: asyncio.Queue[Message] = asyncio.Queue()
    await two.subscribe("t", queue.put_nowait)
    for number in range(50):
        await one.publish("t", str(number).encode())
    await one.close()
    await one.close()
    assert [(await arrived(queue)).data for _ in range(50)] == [str(n).encode() for n in range(50)]
    assert not one.connected
    for call in (
        one.publish("t", b""),
        one.subscribe("t", queue.put_nowait),
        one.request("t", b"", timeout_s=WAIT_S),
        one.barrier(),
    ):
        with pytest.raises(TransportClosed):
            await call
    await two.close()

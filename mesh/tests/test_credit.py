"""Credit over a fake wire that loses frames and words: never more than a window on the way, and never stuck (S6, S7)."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import msgspec
import pytest
from meshfold.core import Graph, Schema, route
from meshfold.core.errors import FrameRejected
from meshfold.mesh.bridge.credit import BEATS_MISSED_MAX, READERS_MAX, FarCredit
from meshfold.mesh.bridge.telling import CreditTeller
from meshfold.mesh.records import Credit, decode, encode

NUMBERS = route("edge", "pump", "count", schema=Schema.int())
ME, LIFE = b"producer", b"incarnat"
HUB, OTHER = b"the hub ", b"another "


def word(at: int, events: int | None, payload_bytes: int | None = None) -> Credit:
    return Credit(ME, LIFE, at, events, payload_bytes)


def test_s7_the_slowest_reader_decides_and_who_holds_nothing_up_is_not_asked() -> None:
    far = FarCredit()
    nobody = far.left()
    assert far.take(HUB, "hub", LIFE, word(0, 10))
    assert far.take(OTHER, "other", LIFE, word(0, 4, 100))
    assert far.left() == (4, 100)
    far.sent(3, 90)
    assert far.left() == (1, 10)
    # A byte of credit lets one event of any size pass; then nothing is left, and not less than that.
    far.sent(4, 500)
    assert far.left() == (0, 0)
    assert far.take(OTHER, "other", LIFE, word(3, 4, 100))
    assert far.left() == (3, 0)
    assert far.take(OTHER, "other", LIFE, word(4, 4, 100))
    assert far.left() == (4, 100)
    assert far.take(OTHER, "other", LIFE, word(0, None))
    assert far.left() == (6, nobody[1])
    assert (far.revoked, far.expired) == (4, 0)


def test_s7_a_word_that_comes_again_or_late_changes_nothing() -> None:
    far = FarCredit()
    for _ in range(3):
        assert far.take(HUB, "hub", LIFE, word(0, 10))
    far.sent(8, 8)
    assert far.take(HUB, "hub", LIFE, word(0, 10))
    assert far.left()[0] == 2


def test_s7_numbers_that_were_skipped_never_make_it_wait_for_ever() -> None:
    far = FarCredit()
    assert far.take(HUB, "hub", LIFE, word(0, 10))
    far.sent(10, 10)
    # Overflow took 70,000 events in between; the next frame begins behind them.
    assert far.take(HUB, "hub", LIFE, word(10, 10))
    assert far.left()[0] == 10
    far.sent(70_005, 5)
    assert far.left()[0] == 0
    assert far.take(HUB, "hub", LIFE, word(70_005, 10))
    assert far.left()[0] == 10


def test_s7_a_reader_that_answers_no_heartbeat_is_given_up_and_places_are_bounded() -> None:
    far = FarCredit()
    for number in range(READERS_MAX):
        assert far.take(number.to_bytes(8, "big"), str(number), LIFE, word(0, 3))
    assert not far.take(HUB, "hub", LIFE, word(0, 3))
    assert far.take(bytes(8), "0", LIFE, word(0, 0))
    assert [far.beat() for _ in range(BEATS_MISSED_MAX)] == [False] * BEATS_MISSED_MAX
    assert far.take(bytes(8), "0", LIFE, word(0, 5))
    assert far.beat()
    assert [row.name for row in far.readers()] == ["0"]
    assert (far.expired, far.revoked) == (READERS_MAX - 1, 3 * (READERS_MAX - 1))


@pytest.mark.parametrize(
    "change",
    [{"at": -1}, {"events": -1}, {"events": 2**63}, {"payload_bytes": -5}, {"events": "9"}, {"more": 1}],
)
def test_a_word_that_is_none_is_refused(change: dict[str, Any]) -> None:
    document = msgspec.json.decode(encode(word(1, 2, 3))) | change
    with pytest.raises(FrameRejected) as caught:
        decode(msgspec.json.encode(document), Credit)
    assert caught.value.reason == "decode"


@pytest.mark.parametrize("seed", range(12))
async def test_s7_over_a_wire_that_loses_both_ways_no_more_than_a_window_is_on_its_way_and_all_goes_on(
    seed: int,
) -> None:
    await wire(random.Random(seed))


async def wire(chance: random.Random) -> None:
    """One producer and one reader, the reader slow; every frame and word may be lost, heartbeats bring what is proven."""
    source, sink, window = Graph(name="edge"), Graph(name="hub"), chance.randrange(1, 40)
    tap, inlet, far = source.tap(NUMBERS), sink.inlet(NUMBERS), FarCredit()
    stream = sink.stream(NUMBERS, capacity=window, overflow="block")
    producer, life = source.producer, source.incarnation

    async def send(credit: Credit) -> None:
        if chance.random() < 0.7:
            far.take(HUB, "hub", LIFE, credit)

    teller = CreditTeller(
        sink, NUMBERS, inlet, loop=asyncio.get_running_loop(), send=send, with_payloads=True
    )
    source.publish_many(NUMBERS, list(range(400)))
    sent_seq = seen = delivered = 0
    async with asyncio.timeout(60):
        teller.heartbeat(producer, life)
        while not far.told:
            teller.heartbeat(producer, life)
            await asyncio.sleep(0)
        while tap.pending or inlet.held or stream.counters.pending:
            events, size = far.left()
            batch = tap.drain(min(events, 16), min(size, 4096)) if events and size else None
            if batch is not None:
                sent_seq = batch.last_seq
                far.sent(sent_seq, len(batch.payload))
                if chance.random() < 0.8:
                    delivered += batch.count
                    inlet.push(batch.meta, batch.payload, producer=producer, incarnation=life)
                    teller.came(producer, life, len(batch.payload))
            assert inlet.held + stream.counters.pending <= window
            if chance.random() < 0.3:
                for _ in zip(range(3), stream.blocking(timeout=0), strict=False):
                    seen += 1
            if chance.random() < 0.1:
                inlet.expect(producer, life, sent_seq)
                teller.heartbeat(producer, life)
            await asyncio.sleep(0)
    assert seen == delivered
    inlet.expect(producer, life, sent_seq)
    ((_, _, counters, last),) = inlet.counters()
    # What went before the first frame or proof came is not this reader's.
    offered = 400 - inlet.attach_seq(producer, life) + 1
    assert (counters.offered, counters.unexplained, last) == (offered, 0, 400)
    assert counters.dropped.get("link_loss", 0) == offered - delivered
    await teller.close()

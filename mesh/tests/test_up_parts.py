"""The parts of `up` that can be wrong without anybody noticing: tap, sampler, durations."""

from __future__ import annotations

import random

import pytest
from meshfold.core import Graph
from meshfold.core.errors import ConfigError
from meshfold.mesh.cli.support import parse_duration
from meshfold.mesh.up.sampler import Sampler, routes_of
from meshfold.mesh.up.tap import MessageCounter


@pytest.mark.parametrize("seed", range(20))
def test_messages_are_counted_whatever_their_payload_says_and_however_they_are_cut(seed: int) -> None:
    chance = random.Random(seed)
    stream, messages = b"", 0
    for _ in range(50):
        payload = chance.choice((b"", b"PUB a 3\r\nabc\r\n", b"\r\nMSG x 1 9\r\n", chance.randbytes(300)))
        stream += chance.choice(
            (
                b"PUB a.b %d\r\n%s\r\n" % (len(payload), payload),
                b"MSG a.b 9 inbox %d\r\n%s\r\n" % (len(payload), payload),
                b"HPUB a 12 %d\r\nNATS/1.0\r\n\r\n%s\r\n" % (12 + len(payload), payload),
            )
        )
        messages += 1
        stream += chance.choice((b"", b"PING\r\n", b"+OK\r\n", b'INFO {"a":"MSG x 1"}\r\n'))
    counter, found, at = MessageCounter(), 0, 0
    while at < len(stream):
        step = chance.randrange(1, 60)
        found += counter.feed(stream[at : at + step])
        at += step
    assert found == messages, f"seed {seed}"


def test_a_round_measures_every_route_once_and_each_core_for_itself() -> None:
    graph = Graph()
    marks = dict.fromkeys(routes_of(), "mark")
    sampler = Sampler(graph, routes_of(), marks)
    sampler.round()
    total = sum(range(2_000_000))  # what a core does between two rounds shows in the second
    sampler.round()
    assert total
    for name, route in routes_of().items():
        assert graph.published(route) == (1 if name == "top" else 2), name
    cores = [name for name in routes_of() if name.startswith("cpu-core-")]
    busy = []
    for name in cores:
        event = graph.latest(routes_of()[name])
        assert event is not None
        busy.append(event.value.values["percent"])
    overall = graph.latest(routes_of()["cpu"])
    assert overall is not None
    assert overall.value.values["percent"] == pytest.approx(sum(busy) / len(busy))
    assert sum(busy) > 0


@pytest.mark.parametrize(
    "text", ["5", "-1s", "0s", "1e999s", "٣s", "1 s", "s", "", "1S", "9999999999s", "400d"]
)
def test_hl6_what_is_no_duration_is_refused_with_a_unit_hint(text: str) -> None:
    with pytest.raises(ConfigError, match="such as 15s"):
        parse_duration(text, "--for")


@pytest.mark.parametrize(("text", "seconds"), [("15s", 15.0), ("500ms", 0.5), ("1.5m", 90.0), ("1h", 3600.0)])
def test_a_duration_is_read_in_seconds(text: str, seconds: float) -> None:
    assert parse_duration(text, "--for") == seconds

"""The simulated broker: its faults are real, counted and decided by its seed."""

from __future__ import annotations

import asyncio

import pytest
from meshfold.core.errors import ConfigError, TransportClosed
from meshfold.mesh.transport import SimBroker, SimFaults

SEEDS = (1, 2, 3)
MESSAGES = 400


async def run(seed: int, faults: SimFaults) -> tuple[list[int], SimBroker]:
    """Send numbered messages through a faulty broker; what arrived, in order."""
    broker = SimBroker(seed, faults=faults)
    one, two = broker.client("one"), broker.client("two")
    await one.connect()
    await two.connect()
    got: list[int] = []
    await two.subscribe("t", lambda message: got.append(int(message.data)))
    for number in range(MESSAGES):
        await one.publish("t", str(number).encode())
    await broker.settle()
    return got, broker


@pytest.mark.parametrize("seed", SEEDS)
async def test_loss_and_duplication_are_counted_and_order_holds(seed: int) -> None:
    got, broker = await run(seed, SimFaults(loss=0.1, duplicate=0.1, delay_s=(0.0, 0.001)))
    lost, doubled = broker.counts["lost"], broker.counts["duplicated"]
    assert lost > 0
    assert doubled > 0
    assert len(set(got)) == MESSAGES - lost
    assert len(got) == MESSAGES - lost + doubled
    assert got == sorted(got)


@pytest.mark.parametrize("seed", SEEDS)
async def test_reordering_changes_the_order_and_nothing_else(seed: int) -> None:
    got, _ = await run(seed, SimFaults(delay_s=(0.0, 0.01), reorder=True))
    assert got != sorted(got)
    assert sorted(got) == list(range(MESSAGES))


@pytest.mark.parametrize("seed", SEEDS)
async def test_the_same_seed_gives_the_same_transcript_and_another_does_not(seed: int) -> None:
    faults = SimFaults(loss=0.2, duplicate=0.2)
    _, one = await run(seed, faults)
    _, two = await run(seed, faults)
    _, other = await run(seed + 100, faults)
    assert one.transcript() == two.transcript()
    assert one.transcript() != other.transcript()


async def test_a_cut_client_keeps_what_it_publishes_and_hears_nothing_until_healed() -> None:
    broker = SimBroker(1)
    one, two = broker.client("one"), broker.client("two")
    await one.connect()
    await two.connect()
    got: list[bytes] = []
    await two.subscribe("t", lambda message: got.append(message.data))
    broker.cut(two)
    await one.publish("t", b"lost on the way")
    broker.cut(one)
    await one.publish("t", b"kept")
    broker.heal(two)
    assert got == []
    broker.heal(one)
    await broker.settle()
    assert got == [b"kept"]


async def test_a_stopped_broker_loses_what_is_under_way_and_takes_nobody() -> None:
    broker = SimBroker(1, faults=SimFaults(delay_s=(0.01, 0.01)))
    one = broker.client("one")
    await one.connect()
    got: list[bytes] = []
    await one.subscribe("t", lambda message: got.append(message.data))
    await one.publish("t", b"under way")
    broker.stop()
    with pytest.raises(TransportClosed):
        await broker.client("late").connect()
    broker.start()
    await asyncio.wait_for(broker.settle(), 20)
    assert (got, broker.counts["lost"]) == ([], 1)


@pytest.mark.parametrize("faults", [{"loss": -0.1}, {"loss": 1.1}, {"duplicate": 2}, {"delay_s": (1.0, 0.5)}])
def test_impossible_faults_are_refused(faults: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="impossible"):
        SimFaults(**faults)  # type: ignore[arg-type]

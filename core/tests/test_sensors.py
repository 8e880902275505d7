"""Sensors: what devices and lines do wrong never stops a graph, and is counted (M125, M126)."""

from __future__ import annotations

import dataclasses
import os
import threading
import tty
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from meshfold.core import Event, Graph, ManualClock, Schema, WiringError, route
from meshfold.core.sensors import (
    BackoffPolicy,
    BoundedRingBuffer,
    ChangeFilter,
    DelimitedMessageBuffer,
    DetectionNode,
    DoubleBuffer,
    DuplexPeripheralAdapter,
    EmbeddedDeviceProfile,
    FrameAssembler,
    JsonEventDecoder,
    LocalSensorSource,
    ManagedRunLoop,
    PeripheralAdapter,
    ReactiveSensorSource,
    RetryLoop,
    SensorHealthWatchdog,
    SequenceCounter,
    ThresholdFilter,
    crc16,
)

WAIT_S = 60.0
temperature = route("kiln-7", "thermal", "temperature", schema=Schema.float("Celsius"))
health = route("kiln-7", "thermal", "health", schema=Schema.str())
commands = route("kiln-7", "thermal", "command", schema=Schema.str())


class Gate:
    """Collects events and lets a test wait for a number of them."""

    def __init__(self, wanted: int) -> None:
        self.values: list[Any] = []
        self._wanted = wanted
        self._done = threading.Event()

    def __call__(self, event: Event[Any]) -> None:
        self.values.append(event.value)
        if len(self.values) >= self._wanted:
            self._done.set()

    def wait(self) -> list[Any]:
        assert self._done.wait(WAIT_S), self.values
        return self.values


def failing(times: int, value: float) -> Callable[[], float]:
    left = [times]

    def read() -> float:
        if left[0]:
            left[0] -= 1
            raise OSError("bus")
        return value

    return read


def test_m125_a_read_that_fails_is_tried_again_with_growing_delays() -> None:
    clock = ManualClock()
    graph = Graph(clock=clock)
    source = LocalSensorSource(
        graph, temperature, failing(2, 871.5), retry=BackoffPolicy(3, 0.1, 2.0), clock=clock
    )
    assert source.poll().value == 871.5
    assert source.failures == 2
    assert clock.now()[1] == 300_000_000


def test_m125_a_read_that_goes_on_failing_raises_and_publishes_nothing() -> None:
    clock = ManualClock()
    graph = Graph(clock=clock)
    source = LocalSensorSource(graph, temperature, failing(9, 1.0), clock=clock)
    with pytest.raises(OSError, match="bus"):
        source.poll()
    assert graph.latest(temperature) is None
    assert source.failures == 3


def test_m125_delays_grow_up_to_their_limit_and_ctrl_c_is_not_swallowed() -> None:
    assert list(BackoffPolicy(5, 1.0, 3.0, 4.0).delays()) == [1.0, 3.0, 4.0, 4.0]
    assert list(BackoffPolicy(1).delays()) == []
    for bad in ({"attempts": 0}, {"first_s": -1.0}, {"factor": 0.5}):
        with pytest.raises(WiringError):
            BackoffPolicy(**bad)

    def interrupted() -> None:
        raise KeyboardInterrupt

    loop = RetryLoop(BackoffPolicy(), ManualClock())
    with pytest.raises(KeyboardInterrupt):
        loop.call(interrupted)
    assert loop.failures == 0


def test_m125_health_waits_is_ok_goes_stale_and_recovers() -> None:
    clock = ManualClock()
    graph = Graph(clock=clock)
    seen: list[str] = []
    graph.observe(health, lambda event: seen.append(event.value))
    watchdog = SensorHealthWatchdog(graph, health, stale_after_s=2.0, clock=clock)
    source = ReactiveSensorSource(graph, temperature, health=watchdog)
    assert watchdog.check() == "waiting"
    source.emit(1.0)
    clock.advance(1.9)
    assert watchdog.check() == "ok"
    clock.advance(0.2)
    assert watchdog.check() == "stale"
    watchdog.check()
    source.emit(2.0)
    assert seen == ["waiting", "ok", "stale", "ok"]


def test_m125_a_sensor_that_never_spoke_becomes_stale_and_a_wall_clock_jump_changes_nothing() -> None:
    clock = ManualClock()
    watchdog = SensorHealthWatchdog(Graph(clock=clock), health, stale_after_s=2.0, clock=clock)
    clock.set_wall(10**18)
    assert watchdog.check() == "waiting"
    clock.advance(2.0)
    assert watchdog.check() == "stale"


def test_m125_a_run_loop_steps_in_its_rhythm_survives_failures_and_stops() -> None:
    five = threading.Event()
    calls: list[int] = []

    def step() -> None:
        calls.append(1)
        if len(calls) == 2:
            raise ValueError("once")
        if len(calls) >= 5:
            five.set()

    with ManagedRunLoop(step, 0.001) as loop:
        assert five.wait(WAIT_S)
    after = len(calls)
    assert (loop.failures, str(loop.last_error)) == (1, "once")
    assert loop.steps == after
    loop.stop()
    with pytest.raises(WiringError):
        ManagedRunLoop(step, 0.0)


def test_m125_a_slow_step_skips_beats_and_never_overlaps() -> None:
    running, overlaps, done = threading.Lock(), [0], threading.Event()
    steps = [0]

    def slow() -> None:
        if not running.acquire(blocking=False):
            overlaps[0] += 1
            return
        threading.Event().wait(0.01)
        running.release()
        steps[0] += 1
        if steps[0] >= 3:
            done.set()

    with ManagedRunLoop(slow, 0.001) as loop:
        assert done.wait(WAIT_S)
    assert overlaps == [0]
    assert loop.skipped > 0


def test_m125_a_detection_has_its_sample_as_parent_and_a_raising_one_is_isolated() -> None:
    graph = Graph()
    alarm = route("kiln-7", "thermal", "alarm", schema=Schema.str())

    def detect(value: float) -> str | None:
        if value < 0:
            raise ValueError("below zero")
        return f"{value} is hot" if value > 900 else None

    with DetectionNode(graph, temperature, alarm, detect) as node:
        graph.publish(temperature, -1.0)
        graph.publish(temperature, 20.0)
        hot = graph.publish(temperature, 950.0)
        assert node.counters.delivered == 3
    found = graph.latest(alarm)
    assert found is not None
    assert (found.value, found.parents) == ("950.0 is hot", [hot.id])
    assert graph.failures()[0] == 1
    graph.publish(temperature, 960.0)
    assert graph.latest(alarm) == found or graph.latest(alarm).value == found.value  # type: ignore[union-attr]


def test_m125_rings_buffers_and_counters_lose_nothing_uncounted() -> None:
    ring: BoundedRingBuffer[int] = BoundedRingBuffer(2)
    assert [ring.push(number) for number in (1, 2, 3)] == [None, None, 1]
    assert (ring.overwritten, ring.snapshot(), len(ring)) == (1, [2, 3], 2)
    assert (ring.drain(), ring.drain()) == ([2, 3], [])
    buffer: DoubleBuffer[int] = DoubleBuffer()
    buffer.write(1)
    assert list(buffer.front) == []
    assert list(buffer.swap()) == [1]
    buffer.write(2)
    assert list(buffer.front) == [1]
    counter = SequenceCounter(bits=8)
    assert [counter.see(number) for number in (250, 253, 1, 1, 0)] == [0, 2, 3, 0, 0]
    assert (counter.missing, counter.repeated) == (5, 2)
    with pytest.raises(ValueError, match="not in"):
        counter.see(256)


def test_m125_filters_pass_changes_and_crossings() -> None:
    change = ChangeFilter(by=1.0)
    assert [change(v) for v in (1.0, 1.5, 2.0, float("nan"), 1.4, 0.9)] == [
        True,
        False,
        True,
        False,
        False,
        True,
    ]
    threshold = ThresholdFilter(above=10.0, hysteresis=2.0)
    assert [threshold(v) for v in (9.0, 10.0, 11.0, 8.5, 10.5, 7.9, 10.0)] == [
        False, True, False, False, False, False, True,
    ]  # fmt: skip


@given(
    st.lists(st.binary(max_size=30).filter(lambda m: b"\r\n" not in m and not m.endswith(b"\r"))), st.data()
)
def test_m125_delimited_messages_come_out_however_the_bytes_are_cut(messages: list[bytes], data: Any) -> None:
    framer = DelimitedMessageBuffer(b"\r\n", max_bytes=30)
    line = b"".join(message + b"\r\n" for message in messages)
    out: list[bytes] = []
    while line:
        size = data.draw(st.integers(1, len(line)))
        out += framer.feed(line[:size])
        line = line[size:]
    assert out == messages
    assert framer.oversize == 0


def test_m125_an_endless_message_takes_no_memory_and_the_next_one_comes() -> None:
    framer = DelimitedMessageBuffer(b"\n", max_bytes=16)
    for _ in range(100):
        assert framer.feed(b"x" * 1000) == []
    assert len(framer._held) <= 16
    assert framer.feed(b"yy\nok\n") == [b"ok"]
    assert framer.oversize == 1


def test_m125_the_checksum_is_the_one_it_says() -> None:
    assert crc16(b"123456789") == 0x29B1


@given(st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=20))), st.data())
def test_m125_frames_come_out_of_garbage_however_the_bytes_are_cut(
    pairs: list[tuple[bytes, bytes]], data: Any
) -> None:
    framer = FrameAssembler(max_bytes=64)
    # Garbage without a marker's first byte, so that it cannot begin a frame of its own.
    line = b"".join(garbage.replace(b"\xaa", b"") + framer.frame(payload) for garbage, payload in pairs)
    out: list[bytes] = []
    while line:
        size = data.draw(st.integers(1, len(line)))
        out += framer.feed(line[:size])
        line = line[size:]
    assert out == [payload for _, payload in pairs]


@given(st.binary(max_size=300))
def test_m125_any_bytes_are_survived_and_a_good_frame_behind_them_is_found(noise: bytes) -> None:
    framer = FrameAssembler(max_bytes=64)
    framer.feed(noise)
    # What the noise began may swallow bytes; a frame's worth of zeros ends it.
    framer.feed(bytes(70))
    assert framer.feed(framer.frame(b"good"))[-1:] == [b"good"]


def test_m125_a_damaged_frame_is_counted_and_costs_only_itself() -> None:
    framer = FrameAssembler()
    bad = bytearray(framer.frame(b"first"))
    bad[5] ^= 1
    assert framer.feed(bytes(bad) + framer.frame(b"second")) == [b"second"]
    assert framer.damaged == 1


@dataclasses.dataclass
class Reading:
    celsius: float


def test_m125_a_serial_line_publishes_what_decodes_and_takes_commands() -> None:
    ours, device = os.openpty()
    tty.setraw(ours)
    tty.setraw(device)
    graph = Graph()
    decoder = JsonEventDecoder(Reading)
    gate = Gate(2)
    graph.observe(temperature, gate)

    def decode(message: bytes) -> float | None:
        reading = decoder(message)
        return None if reading is None else reading.celsius

    adapter = DuplexPeripheralAdapter(
        ours,
        ReactiveSensorSource(graph, temperature),
        DelimitedMessageBuffer(b"\n"),
        decode,
        graph=graph,
        commands=commands,
        encode=lambda text: text.encode() + b"\n",
    )
    try:
        os.write(device, b'{"celsius": 20.5}\nnonsense\n{"celsius": "hot"}\n{"celsius": 21.0}\n')
        assert gate.wait() == [20.5, 21.0]
        assert decoder.rejected == 2
        graph.publish(commands, "set 40")
        assert os.read(device, 100) == b"set 40\n"
    finally:
        adapter.close()
        adapter.close()
        os.close(device)
        os.close(ours)


def test_m125_a_device_that_hangs_up_ends_the_line_and_says_so() -> None:
    read_end, write_end = os.pipe()
    graph = Graph()
    with PeripheralAdapter(
        read_end, ReactiveSensorSource(graph, temperature), DelimitedMessageBuffer(), lambda m: float(m)
    ) as adapter:
        os.write(write_end, b"1.5\nx\n")
        os.close(write_end)
        assert adapter.ended.wait(WAIT_S)
        assert (adapter.published, adapter.failures) == (1, 1)
    os.close(read_end)


def scalar(graph: Graph, clock: ManualClock, count: int, gap_s: float) -> None:
    for number in range(count):
        clock.advance(gap_s)
        graph.publish(temperature, float(number))


def test_m126_a_device_within_its_profile_passes_every_check() -> None:
    clock = ManualClock(10**18)
    graph = Graph(clock=clock)
    findings = EmbeddedDeviceProfile.scalar_sensor().inspect(
        graph, temperature, lambda: scalar(graph, clock, 20, 0.05)
    )
    assert all(finding.ok for finding in findings), findings
    assert {finding.check for finding in findings} >= {"rate", "inline payload", "sequence", "retention"}


def test_m126_what_a_device_really_does_is_measured() -> None:
    clock = ManualClock(10**18)
    graph = Graph(clock=clock)
    blob = route("cam-1", "vision", "frame", schema=Schema.bytes())
    graph.configure_retention(blob, history=100)

    def run() -> None:
        for number in range(30):
            clock.advance(0.001)
            graph.publish(blob, bytes(5000), time=clock.now()[0] - (number == 7) * 10**9)

    failed = {
        finding.check: finding
        for finding in EmbeddedDeviceProfile.bulk_sensor().inspect(graph, blob, run)
        if not finding.ok
    }
    assert set(failed) == {"inline payload", "rate", "device time", "layer", "retention"}
    assert failed["inline payload"].measured == "5000 bytes"
    assert failed["retention"].measured == "150000 bytes kept"
    assert "FAIL" in str(failed["rate"])


def test_m126_too_few_events_are_no_proof() -> None:
    graph = Graph()
    with pytest.raises(WiringError, match="too few"):
        EmbeddedDeviceProfile.scalar_sensor().inspect(graph, temperature, lambda: None)

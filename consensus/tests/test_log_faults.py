"""The durable log on a disk that loses power, fills up, fails and lies: nothing acknowledged is lost or said twice."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import threading
from pathlib import Path

import pytest
from disks import PowerCut, SimDisk
from meshfold.consensus import SoloLog
from meshfold.consensus.hard_state import SLOT_BYTES
from meshfold.consensus.log_store import UNKNOWN_INDEXES, LogStore
from meshfold.consensus.wal import Entry, Kind, Snapshot
from meshfold.core.errors import ConfigError, NoQuorum, StoreDamaged, TooLarge

FOLDER = Path("control")


def on(disk: SimDisk, recover_to: int | None = None) -> SoloLog:
    """A log on that disk."""
    return SoloLog.open(FOLDER, node="hub", disk=disk, recover_to=recover_to)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("seed", range(150))
async def test_hf9_power_cut_at_any_operation_keeps_what_was_acknowledged(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also in the middle of a compaction, and of the recovery from the cut before."""
    monkeypatch.setattr("meshfold.consensus.solo.COMPACT_BYTES", 600)
    rng = random.Random(seed)
    disk = SimDisk()
    acked: dict[str, bytes] = {}
    #: what a cut left open: it may be there or not, but not anything else
    maybe: dict[str, bytes | None] = {}
    highest, terms = 0, 0
    for _ in range(12):
        left = rng.randint(1, 60)

        def cut(kind: str, name: str) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                raise PowerCut(kind)

        disk.on_step = cut
        log = None
        try:
            log = on(disk)
            found = {key: saved.value for key, saved in (await log.snapshot()).items()}
            for key, value in found.items():
                assert value == acked.get(key) or (key in maybe and value == maybe[key]), f"seed {seed}"
            for key in acked:
                assert key in found or (key in maybe and maybe[key] is None), f"seed {seed}: {key} is lost"
            acked, maybe = found, {}
            status = log.status()
            assert status.term > terms, f"seed {seed}: term {status.term} twice"
            assert status.commit >= highest, f"seed {seed}"
            terms = status.term
            while True:
                key, value = f"k{rng.randrange(6)}", rng.randbytes(rng.randrange(80))
                if key in acked and rng.random() < 0.2:
                    maybe = {key: None}
                    index = await log.delete(key)
                    del acked[key]
                else:
                    maybe = {key: value}
                    index = await log.put(key, value)
                    acked[key] = value
                assert index > highest, f"seed {seed}: index {index} twice"
                highest, maybe = index, {}
        except (PowerCut, NoQuorum):
            assert left <= 0, f"seed {seed}: refused without a cut"
        if log is not None:
            disk.on_step = lambda kind, name: None
            log.close()
        disk.crash(rng)


async def test_hf1_a_full_disk_is_a_typed_error_and_the_log_goes_on_when_there_is_space() -> None:
    disk = SimDisk()
    log = on(disk)
    await log.put("kept", b"1")
    disk.free = 40
    with pytest.raises(NoQuorum, match="No space left.*free some space"):
        await log.put("lost", b"x" * 100)
    disk.free = None
    assert await log.get("lost") is None
    index = await log.put("later", b"2")
    log.close()
    log = on(disk)
    assert set(await log.snapshot()) == {"kept", "later"}
    assert log.status().commit == index
    log.close()


async def test_hf4_a_failed_sync_is_not_trusted_again_until_a_restart() -> None:
    disk = SimDisk()
    log = on(disk)
    await log.put("kept", b"1")

    def fail_once(kind: str, name: str) -> None:
        if kind == "sync":
            disk.on_step = lambda kind, name: None
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    disk.on_step = fail_once
    with pytest.raises(NoQuorum, match="Input/output error"):
        await log.put("unknown", b"2")
    # The disk answers again, but what is on it is unknown.
    with pytest.raises(NoQuorum, match="restart the voter"):
        await log.put("refused", b"3")
    with pytest.raises(NoQuorum, match="restart the voter"):
        await log.compare_and_set("refused", b"3", 0)
    assert await log.get("unknown") is None
    log.close()
    log = on(disk)
    assert "kept" in await log.snapshot()
    assert await log.put("again", b"4") > 1
    log.close()


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_hf5_a_disk_that_cannot_be_used_at_the_start_is_a_config_error(number: int) -> None:
    for broken in range(1, 8):
        disk = SimDisk()

        def fail(kind: str, name: str, disk: SimDisk = disk, broken: int = broken) -> None:
            if disk.steps == broken:
                raise OSError(number, os.strerror(number))

        disk.on_step = fail
        with pytest.raises(ConfigError, match=os.strerror(number)):
            on(disk)
        disk.on_step = lambda kind, name: None
        on(disk).close()


async def test_hf5_a_log_file_that_is_gone_or_a_folder_is_named(tmp_path: Path) -> None:
    log = SoloLog.open(tmp_path, node="hub")
    await log.put("a", b"1")
    log.close()
    (tmp_path / "log.0").unlink()
    with pytest.raises(StoreDamaged, match=r"log\.0 is gone"):
        SoloLog.open(tmp_path, node="hub")
    (tmp_path / "log.0").mkdir()
    with pytest.raises(ConfigError, match="Is a directory"):
        SoloLog.open(tmp_path, node="hub")


async def test_hf3_a_flipped_bit_anywhere_is_found_or_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    """In log, snapshot and hard state: either the log opens with everything acknowledged, or it says where it is damaged."""
    monkeypatch.setattr("meshfold.consensus.solo.COMPACT_BYTES", 300)
    disk = SimDisk()
    log = on(disk)
    for at in range(14):
        await log.put(f"k{at % 5}", bytes([at]) * 20)
    expected, commit = dict(await log.snapshot()), log.status().commit
    log.close()
    assert any(name.startswith("snapshot.") for name in disk.names())
    whole = {name: file.content for name, file in disk.files.items()}
    damaged = 0
    for name, content in whole.items():
        for place in range(len(content)):
            if name == "state" and place % SLOT_BYTES > 80:
                continue
            copy = SimDisk()
            for other, data in whole.items():
                copy.open(other).content = data
            flipped = bytearray(content)
            flipped[place] ^= 1 << (place % 8)
            copy.open(name).content = bytes(flipped)
            try:
                log = on(copy)
            except StoreDamaged as error:
                assert str(error.fields["path"]).endswith(name)
                damaged += 1
                continue
            assert dict(await log.snapshot()) == expected
            assert log.status().commit == commit
            log.close()
    assert damaged >= len(whole) * 20


async def test_indexes_given_up_in_a_recovery_are_never_handed_out_again() -> None:
    disk = SimDisk()
    log = on(disk)
    first = await log.put("one", b"1")
    length = len(disk.files["log.0"].content)
    highest = [await log.put("two", b"2"), await log.put("three", b"3")][-1]
    log.close()
    file = disk.files["log.0"]
    file.content = file.content[: length + 3] + b"\xff" + file.content[length + 4 :]
    with pytest.raises(StoreDamaged, match=f"--recover-to {length}"):
        on(disk)
    log = on(disk, recover_to=length)
    assert set(await log.snapshot()) == {"one"}
    assert await log.put("four", b"4") > highest > first
    log.close()
    # And it stays so at the next opening, without any option.
    log = on(disk)
    assert set(await log.snapshot()) == {"one", "four"}
    log.close()


async def test_where_nobody_knows_what_was_given_a_recovery_leaves_a_wide_gap() -> None:
    disk = SimDisk()
    log = on(disk)
    highest = await log.put("one", b"1")
    log.close()
    disk.files["state"].content = bytes(2 * SLOT_BYTES)
    length = len(disk.files["log.0"].content)
    with pytest.raises(StoreDamaged, match="nobody knows"):
        on(disk)
    log = on(disk, recover_to=length)
    assert await log.put("two", b"2") > highest + UNKNOWN_INDEXES
    log.close()


async def test_a_compaction_keeps_state_versions_and_the_ids_of_commands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from meshfold.consensus.commands import Command, Op

    monkeypatch.setattr("meshfold.consensus.solo.COMPACT_BYTES", 2000)
    disk = SimDisk()
    log = on(disk)
    once = Command(Op.PUT, "once", b"1", id=b"id-1")
    first = await log.submit(once)
    for at in range(100):
        await log.put(f"k{at % 3}", bytes(50))
    names = {name.partition(".")[0] for name in disk.names()}
    assert names == {"state", "log", "snapshot"}
    assert len(disk.names()) == 3
    assert sum(len(file.content) for file in disk.files.values()) < 2 * SLOT_BYTES + 3000
    expected = dict(await log.snapshot())
    log.close()
    log = on(disk)
    assert dict(await log.snapshot()) == expected
    # The retry of a command whose answer was lost, after restart and compaction, changes nothing.
    assert await log.submit(once) == first
    assert await log.submit(Command(Op.PUT, "once", b"other", id=b"id-1")) == first
    found = await log.get("once")
    assert found is not None and found.value == b"1"
    log.close()


async def test_a_compaction_that_fails_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshfold.consensus.solo.COMPACT_BYTES", 1000)
    disk = SimDisk()
    log = on(disk)

    def fail(kind: str, name: str) -> None:
        if name.startswith(("snapshot.", "log.1")):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    disk.on_step = fail
    for at in range(60):
        await log.put(f"k{at}", bytes(30))
    assert log.compaction_failed == "No space left on device"
    disk.on_step = lambda kind, name: None
    for at in range(60, 200):
        await log.put(f"k{at}", bytes(30))
    assert len(await log.snapshot()) == 200
    log.close()
    log = on(disk)
    assert len(await log.snapshot()) == 200
    log.close()


async def test_a_watch_that_is_behind_the_history_gets_current_values_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("meshfold.consensus.key_values.HISTORY_MAX", 4)
    log = on(SimDisk())
    for at in range(10):
        await log.put(f"k{at % 2}", bytes([at]))
    seen = []
    async for change in log.watch("k", after=1):
        seen.append((change.index, change.key, change.value))
        if change.index == 10:
            break
    assert [index for index, _, _ in seen] == sorted({index for index, _, _ in seen})
    assert seen[-4:] == [(at + 1, f"k{at % 2}", bytes([at])) for at in range(6, 10)]
    log.close()


async def test_the_state_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meshfold.consensus.key_values.STATE_BYTES_MAX", 100)
    log = on(SimDisk())
    await log.put("k", bytes(90))
    with pytest.raises(TooLarge, match="full"):
        await log.put("l", bytes(20))
    await log.put("k", bytes(95))
    await log.delete("k")
    await log.put("l", bytes(20))
    log.close()


def test_a_vote_survives_and_a_truncated_tail_does_not() -> None:
    disk = SimDisk()
    store = LogStore(FOLDER, disk)
    store.save_vote(7, 3)
    store.append([Entry(index, 7, Kind.COMMAND, b"x") for index in range(1, 6)])
    store.truncate_from(4)
    store.append([Entry(4, 8, Kind.EMPTY)])
    store.close()
    store = LogStore(FOLDER, disk)
    assert (store.hard.term, store.hard.vote) == (8, 0)
    assert [(entry.index, entry.term) for entry in store.entries] == [(1, 7), (2, 7), (3, 7), (4, 8)]
    store.compact(Snapshot(3, 7, b"state"))
    assert [entry.index for entry in store.entries] == [4]
    store.append([Entry(5, 8, Kind.COMMAND, b"y")])
    store.close()
    store = LogStore(FOLDER, disk)
    assert store.snapshot == Snapshot(3, 7, b"state")
    assert [entry.index for entry in store.entries] == [4, 5]
    store.close()


async def test_hf3_a_lost_slot_and_a_torn_tail_together_are_damage() -> None:
    """Each alone is what a power cut leaves; together, the slot may have acknowledged what the tail held."""
    disk = SimDisk()
    log = on(disk)
    await log.put("one", b"1")
    log.close()
    state, entries = disk.files["state"], disk.files["log.0"]
    newest = max((0, SLOT_BYTES), key=lambda at: int.from_bytes(state.content[at : at + 8], "big"))
    whole_state, whole_log = state.content, entries.content
    broken = bytearray(whole_state)
    broken[newest + 20] ^= 1
    entries.content = whole_log + b"torn"
    on(disk).close()
    state.content, entries.content = bytes(broken), whole_log + b"torn"
    with pytest.raises(StoreDamaged, match="state is lost or damaged"):
        on(disk)
    on(disk, recover_to=len(whole_log)).close()


@pytest.mark.parametrize("seed", range(10))
def test_hf9_entries_behind_a_snapshot_are_durable_with_it(seed: int) -> None:
    disk = SimDisk()
    store = LogStore(FOLDER, disk)
    store.append([Entry(index, 1, Kind.COMMAND, b"x" * 20) for index in range(1, 7)])
    store.compact(Snapshot(3, 1, b"state"))
    disk.crash(random.Random(seed))
    store = LogStore(FOLDER, disk)
    assert [entry.index for entry in store.entries] == [4, 5, 6]
    store.close()


async def test_hf10_behind_a_disk_that_stands_still_only_so_many_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The others wait for their turn and are served when the disk goes on; reads are served meanwhile."""
    monkeypatch.setattr("meshfold.consensus.solo.WAITING_MAX", 8)
    monkeypatch.setattr("meshfold.consensus.solo.BATCH_ENTRIES_MAX", 3)
    disk = SimDisk()
    log = on(disk)
    await log.put("before", b"1")
    goes_on, stands = threading.Event(), threading.Event()
    batches: list[int] = []

    def stand_still(kind: str, name: str) -> None:
        if kind == "write" and name.startswith("log."):
            batches.append(len(disk.files[name].content))
            stands.set()
            assert goes_on.wait(100)

    disk.on_step = stand_still
    puts = [asyncio.ensure_future(log.put(f"k{at}", b"v")) for at in range(40)]
    assert await asyncio.to_thread(stands.wait, 100)
    found = await log.get("before")
    assert found is not None and not any(put.done() for put in puts)
    goes_on.set()
    indexes = await asyncio.gather(*puts)
    assert indexes == sorted(indexes) == list(range(2, 42))
    assert len(batches) >= 40 // 3
    log.close()

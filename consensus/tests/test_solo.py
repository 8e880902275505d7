"""The single voter's log on a real disk: torn tails, damage, full disks, a second process."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from meshfold.consensus import SoloLog
from meshfold.consensus.commands import Command, Op
from meshfold.consensus.hard_state import SLOT_BYTES
from meshfold.consensus.wal import Entry, Kind, encode_entry, scan
from meshfold.core.errors import ConfigError, StoreDamaged, TooLarge


def opened(folder: Path, recover_to: int | None = None) -> SoloLog:
    """The log in that folder."""
    return SoloLog.open(folder, node="hub", recover_to=recover_to)


async def test_values_survive_a_restart_and_each_opening_is_a_new_term(tmp_path: Path) -> None:
    log = opened(tmp_path)
    assert await log.put("a", b"1") == 1
    assert await log.put("b", b"2") == 2
    assert await log.delete("a") == 3
    assert log.status().term == 1
    log.close()
    log = opened(tmp_path)
    assert log.status().term == 2
    assert await log.get("a") is None
    found = await log.get("b")
    assert found is not None
    assert (found.value, found.version) == (b"2", 2)
    assert list(await log.snapshot()) == ["b"]
    log.close()


async def test_compare_and_set_takes_the_version_only(tmp_path: Path) -> None:
    log = opened(tmp_path)
    assert await log.compare_and_set("k", b"1", 0) == 1
    assert await log.compare_and_set("k", b"2", 0) is None
    assert await log.compare_and_set("k", b"2", 1) == 2
    log.close()


async def test_a_watch_yields_old_and_new_without_a_gap(tmp_path: Path) -> None:
    log = opened(tmp_path)
    await log.put("x/1", b"1")
    seen: list[tuple[int, str]] = []

    async def follow() -> None:
        async for change in log.watch("x/"):
            seen.append((change.index, change.key))
            if len(seen) == 3:
                return

    task = asyncio.ensure_future(follow())
    await asyncio.sleep(0)
    await log.put("y", b"")
    await log.put("x/2", b"2")
    await log.put("x/3", b"3")
    await asyncio.wait_for(task, 20)
    assert seen == [(1, "x/1"), (3, "x/2"), (4, "x/3")]
    log.close()


async def test_hf2_a_tail_torn_at_any_byte_is_cut_and_what_was_acknowledged_stays(tmp_path: Path) -> None:
    log = opened(tmp_path)
    await log.put("kept", b"value")
    log.close()
    path = tmp_path / "log.0"
    whole = path.read_bytes()
    command = Command(Op.PUT, "never-acknowledged", b"x" * 20)
    torn = encode_entry(Entry(2, 1, Kind.COMMAND, command.encode()))
    for cut in range(len(torn)):
        path.write_bytes(whole + torn[:cut])
        log = opened(tmp_path)
        assert list(await log.snapshot()) == ["kept"]
        log.close()
        assert path.read_bytes() == whole


async def test_hf7_files_of_the_future_are_read_like_any(tmp_path: Path) -> None:
    log = opened(tmp_path)
    index = await log.put("kept", b"value")
    log.close()
    for name in (*os.listdir(tmp_path), ""):
        os.utime(tmp_path / name, (4_102_444_800, 4_102_444_800))
    log = opened(tmp_path)
    assert list(await log.snapshot()) == ["kept"]
    assert await log.put("later", b"value") > index
    log.close()


async def test_hf3_a_fault_below_what_was_acknowledged_is_damage_with_its_offset(tmp_path: Path) -> None:
    log = opened(tmp_path)
    await log.put("one", b"1")
    first = (tmp_path / "log.0").stat().st_size
    await log.put("two", b"2")
    log.close()
    path = tmp_path / "log.0"
    whole = path.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        path.write_bytes(bytes(damaged))
        with pytest.raises(StoreDamaged) as caught:
            opened(tmp_path)
        assert caught.value.fields["offset"] == (0 if place < first else first)
    log = opened(tmp_path, recover_to=first)
    assert list(await log.snapshot()) == ["one"]
    log.close()


def test_a_second_process_is_refused(tmp_path: Path) -> None:
    log = opened(tmp_path)
    with pytest.raises(ConfigError, match=rf"open in another process: process {os.getpid()} \(hub\)"):
        opened(tmp_path)
    log.close()


async def test_an_entry_too_large_writes_nothing(tmp_path: Path) -> None:
    log = opened(tmp_path)
    before = (tmp_path / "log.0").stat().st_size
    with pytest.raises(TooLarge):
        await log.put("k", bytes(2**20))
    assert (tmp_path / "log.0").stat().st_size == before
    assert await log.put("k", b"") == 1
    log.close()


def test_scanning_random_prefixes_never_invents_entries() -> None:
    whole = b"".join(encode_entry(Entry(index, 1, Kind.COMMAND, b"v")) for index in range(1, 6))
    for cut in range(len(whole) + 1):
        found = scan(whole[:cut])
        assert [entry.index for entry in found.entries] == list(range(1, len(found.entries) + 1))
        assert found.end <= cut


@pytest.mark.parametrize("wreck", ["deleted", "zeroed"])
async def test_a_lost_state_file_is_damage_not_an_empty_log(tmp_path: Path, wreck: str) -> None:
    log = opened(tmp_path)
    await log.put("kept", b"1")
    log.close()
    state = tmp_path / "state"
    if wreck == "deleted":
        state.unlink()
    else:
        state.write_bytes(bytes(state.stat().st_size))
    length = (tmp_path / "log.0").stat().st_size
    with pytest.raises(StoreDamaged):
        opened(tmp_path)
    assert (tmp_path / "log.0").stat().st_size == length
    log = opened(tmp_path, recover_to=length)
    assert "kept" in await log.snapshot()
    log.close()


def test_a_term_is_never_handed_out_twice_when_its_slot_is_lost(tmp_path: Path) -> None:
    used: set[int] = set()
    for _ in range(4):
        log = opened(tmp_path)
        assert log.status().term not in used
        used.add(log.status().term)
        log.close()
        raw = bytearray((tmp_path / "state").read_bytes())
        newest = max((0, SLOT_BYTES), key=lambda at: int.from_bytes(raw[at : at + 8], "big"))
        if len(used) > 1:
            raw[newest + 9] ^= 1
            (tmp_path / "state").write_bytes(bytes(raw))

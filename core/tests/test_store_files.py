"""Rows HF2, HF3 and HF5: files of stores that are cut, changed or broken, at every place and in every way."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from meshfold.core import Graph, Schema, StoreDamaged, route
from meshfold.core.errors import StoreUnavailable
from meshfold.core.stores import EventLog, Keyspace

LEVEL = route("tank-2", "water", "level", schema=Schema.int())


def values(log: EventLog[int]) -> list[int]:
    return [event.value for _, event in log.records()]


def only_file(folder: Path) -> Path:
    (file,) = folder.glob("*.log")
    return file


def test_hf2_a_record_torn_at_any_byte_is_cut_and_what_was_acknowledged_stays(tmp_path: Path) -> None:
    graph = Graph()
    crashed, copy = tmp_path / "log", tmp_path / "copy"
    log = EventLog(crashed, LEVEL)
    for value in range(3):
        log.append(graph.publish(LEVEL, value))
    kept = only_file(crashed).stat().st_size
    log.append(graph.publish(LEVEL, 3))
    # Not closed: nothing in the folder says yet what was acknowledged.
    whole = only_file(crashed).read_bytes()
    for end in range(kept, len(whole)):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(crashed, copy)
        only_file(copy).write_bytes(whole[:end])
        with EventLog(copy, LEVEL) as opened:
            assert (values(opened), opened.torn_bytes) == ([0, 1, 2], end - kept)
            assert only_file(copy).read_bytes() == whole[:kept]
            assert opened.append(graph.publish(LEVEL, 4)) == 4
            assert values(opened) == [0, 1, 2, 4]
    log.close()


def test_hf3_a_changed_byte_anywhere_in_a_closed_log_is_found_and_the_file_left_alone(tmp_path: Path) -> None:
    graph = Graph()
    with EventLog(tmp_path, LEVEL) as log:
        for value in range(3):
            log.append(graph.publish(LEVEL, value))
    file = only_file(tmp_path)
    whole = file.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        file.write_bytes(damaged)
        with pytest.raises(StoreDamaged) as caught:
            EventLog(tmp_path, LEVEL)
        assert str(caught.value.path).startswith(str(tmp_path))
        assert file.read_bytes() == damaged
    file.write_bytes(whole)
    with EventLog(tmp_path, LEVEL) as log:
        assert values(log) == [0, 1, 2]


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def linked(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


BROKEN: dict[str, Callable[[Path], None]] = {
    "gone": Path.unlink,
    "empty": lambda path: os.truncate(path, 0),
    "cut": lambda path: os.truncate(path, path.stat().st_size - 1),
    "halved": lambda path: os.truncate(path, path.stat().st_size // 2),
    "a folder": folder,
    "a link to nothing": lambda path: linked(path, "nothing"),
    "a link to itself": lambda path: linked(path, path.name),
}


@pytest.mark.parametrize("kind", BROKEN)
@pytest.mark.parametrize("pattern", ["*.log", "token"])
def test_hf5_a_log_with_a_broken_file_is_refused_with_its_path(
    tmp_path: Path, pattern: str, kind: str
) -> None:
    graph = Graph()
    with EventLog(tmp_path / "log", LEVEL) as log:
        for value in range(3):
            log.append(graph.publish(LEVEL, value))
    (path,) = (tmp_path / "log").glob(pattern)
    BROKEN[kind](path)
    for _ in range(2):
        with pytest.raises((StoreDamaged, StoreUnavailable)) as caught:
            EventLog(tmp_path / "log", LEVEL)
        assert str(caught.value.path).startswith(str(tmp_path / "log"))


# One that is gone is a keyspace that was not there yet; an empty file and a link to nothing are as well.
@pytest.mark.parametrize("kind", ["cut", "halved", "a folder", "a link to itself"])
def test_hf5_a_keyspace_whose_file_is_broken_is_refused_with_its_path(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "keys"
    with Keyspace(path) as store:
        store.put("a", b"1")
    BROKEN[kind](path)
    for _ in range(2):
        with pytest.raises((StoreDamaged, StoreUnavailable)) as caught:
            Keyspace(path)
        assert caught.value.path == str(path)


ANOTHER = textwrap.dedent("""
    import os, sys
    from meshfold.core import Schema, route
    from meshfold.core.errors import StoreUnavailable
    from meshfold.core.stores import EventLog, Keyspace
    os.chdir(sys.argv[1])
    if os.geteuid() == 0:
        # Permissions do not bind root.
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    level = route("tank-2", "water", "level", schema=Schema.int())
    for opens in (lambda: EventLog("log", level), lambda: Keyspace("keys")):
        try:
            opens()
        except StoreUnavailable as error:
            print(error.because, error.path)
""")


@pytest.mark.parametrize("mode", [0o444, 0o000], ids=["read-only", "another's"])
def test_hf5_files_that_may_not_be_written_or_read_are_refused_and_left_alone(
    tmp_path: Path, mode: int
) -> None:
    with EventLog(tmp_path / "log", LEVEL) as log, Keyspace(tmp_path / "keys") as store:
        log.append(Graph().publish(LEVEL, 1))
        store.put("a", b"1")
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    for path in files:
        path.chmod(mode)
    for path in (tmp_path / "log", tmp_path):
        path.chmod(0o555)
    done = subprocess.run(
        [sys.executable, "-c", ANOTHER, tmp_path], capture_output=True, text=True, check=False
    )
    for path in (tmp_path, tmp_path / "log"):
        path.chmod(0o755)
    for path in files:
        path.chmod(0o600)
    first, second = done.stdout.splitlines() or pytest.fail(done.stderr)
    assert first.startswith("unreadable log")
    assert second == "unreadable keys"
    with EventLog(tmp_path / "log", LEVEL) as log, Keyspace(tmp_path / "keys") as store:
        assert (values(log), store.get("a")) == ([1], b"1")

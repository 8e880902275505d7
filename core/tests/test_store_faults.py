"""Stores on a disk that fails: a sync that reports EIO, no inodes left, more files than there may be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from meshfold.core import Graph, Schema, route
from meshfold.core.errors import StoreUnavailable
from meshfold.core.stores import EventLog

LEVEL = route("tank-2", "water", "level", schema=Schema.int())
#: `core/stores/src/log.rs` has it as SEGMENTS_MAX.
SEGMENTS_MAX = 65_536

PRELUDE = """
import json, os, pathlib, sys
from meshfold.core import Graph, Schema, route
from meshfold.core.errors import MeshfoldError
from meshfold.core.stores import EventLog, Keyspace, Memory, SnapshotStore
LEVEL = route("tank-2", "water", "level", schema=Schema.int())
folder, sync, create = (pathlib.Path(one) for one in (sys.argv[1], os.environ["FAIL_SYNC"], os.environ["FAIL_CREATE"]))
graph = Graph()
def event(value):
    return graph.publish(LEVEL, value)
def refusal(call):
    try:
        call()
    except MeshfoldError as error:
        return error.because
    return "accepted"
def values(log):
    return [event.value for _, event in log.records()]
"""


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shared object that lets syncs and creations fail, made by the C compiler that links our own code."""
    made = tmp_path_factory.mktemp("faults") / "sync_faults.so"
    source = Path(__file__).parent / "sync_faults.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", made, source, "-ldl"], check=True)
    return made


@pytest.fixture
def run(library: Path, tmp_path: Path) -> Callable[[str], Any]:
    """`run(code)` in a process whose disk fails as it is armed; what it dumps as JSON."""

    def child(code: str) -> Any:
        faults = {"FAIL_SYNC": str(tmp_path / "fail-sync"), "FAIL_CREATE": str(tmp_path / "fail-create")}
        done = subprocess.run(
            [sys.executable, "-c", PRELUDE + textwrap.dedent(code), tmp_path],
            env={**os.environ, **faults, "LD_PRELOAD": str(library)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return child


def test_hf4_after_a_failed_sync_a_log_acknowledges_nothing_until_it_is_opened_anew_and_what_failed_is_lost(
    run: Callable[[str], Any],
) -> None:
    found = run("""
        log = EventLog(folder / "log", LEVEL)
        log.append(event(1), event(2))
        sync.touch()
        told = [refusal(lambda: log.append(event(3))) for _ in range(3)]
        inside = values(log)
        log.close()
        log = EventLog(folder / "log", LEVEL)
        again = values(log)
        log.append(event(4))
        json.dump([told, sync.exists(), inside, again, values(log), log.torn_bytes], sys.stdout)
    """)
    # The system still shows what it could not write; it is not taken for the truth.
    assert found == [["unsure"] * 3, False, [1, 2], [1, 2], [1, 2, 4], 0]


def test_hf4_a_sync_that_fails_while_a_log_is_opened_or_a_file_begun_acknowledges_nothing(
    run: Callable[[str], Any],
) -> None:
    found = run("""
        sync.touch()
        opened = refusal(lambda: EventLog(folder / "log", LEVEL))
        log = EventLog(folder / "log", LEVEL, segment_bytes=1)
        log.append(event(1))
        sync.touch()
        begun = refusal(lambda: log.append(event(2)))
        log.append(event(3))
        log.close()
        json.dump([opened, begun, values(EventLog(folder / "log", LEVEL))], sys.stdout)
    """)
    assert found == ["unreadable", "unreadable", [1, 3]]


def test_hf4_after_a_failed_sync_a_keyspace_takes_nothing_until_it_is_opened_anew(
    run: Callable[[str], Any],
) -> None:
    found = run("""
        store = Keyspace(folder / "keys")
        store.put("a", b"1")
        sync.touch()
        told = [refusal(lambda: store.put("a", b"2")) for _ in range(3)]
        store.close()
        store = Keyspace(folder / "keys")
        kept = store.get("a").decode()
        store.put("a", b"3")
        json.dump([told, kept in ("1", "2"), store.get("a").decode()], sys.stdout)
    """)
    assert found == [["unsure"] * 3, True, "3"]


def test_hf4_a_committed_event_is_published_only_behind_a_sync_that_held(run: Callable[[str], Any]) -> None:
    found = run("""
        committed = route("tank-2", "water", "level-committed", schema=Schema.int())
        seen = []
        graph.observe(committed, lambda event: seen.append(event.value))
        log = EventLog(folder / "log", LEVEL)
        sync.touch()
        job = log.attach(graph, committed=committed)
        event(1)
        told = refusal(job.close)
        left = job.uncommitted
        log.close()
        json.dump([told, seen, left, values(EventLog(folder / "log", LEVEL))], sys.stdout)
    """)
    assert found == ["unsure", [], 1, []]


def test_hf6_without_inodes_a_log_keeps_what_it_has_and_goes_on_when_there_are_some(
    run: Callable[[str], Any],
) -> None:
    found = run("""
        log = EventLog(folder / "log", LEVEL, segment_bytes=1)
        log.append(event(1))
        create.touch()
        told = [refusal(lambda: log.append(event(2))) for _ in range(2)]
        create.unlink()
        log.append(event(3))
        log.close()
        json.dump([told, values(EventLog(folder / "log", LEVEL))], sys.stdout)
    """)
    assert found == [["full", "full"], [1, 3]]


def test_hf6_more_files_than_there_may_be_are_refused_before_any_is_opened(tmp_path: Path) -> None:
    graph = Graph()
    with EventLog(tmp_path, LEVEL) as log:
        log.append(graph.publish(LEVEL, 1))
    strays = [tmp_path / f"stray-{number}.log" for number in range(SEGMENTS_MAX)]
    for stray in strays:
        # Links to nothing: whoever opens one fails in another way.
        stray.symlink_to("nothing")
    with pytest.raises(StoreUnavailable) as caught:
        EventLog(tmp_path, LEVEL)
    assert caught.value.because == "files"
    for stray in strays:
        stray.unlink()
    with EventLog(tmp_path, LEVEL) as log:
        assert [event.value for _, event in log.records()] == [1]

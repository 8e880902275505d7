"""Durable stores, with real files: order, conflicts, crashes, damage, a full disk."""

from __future__ import annotations

import itertools
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from meshfold.core import Event, Graph, Schema, SchemaMismatch, StoreDamaged, WiringError, route
from meshfold.core.errors import Fenced, StoreUnavailable, TooLarge, VersionConflict
from meshfold.core.stores import EventLog, Keyspace, Memory, SnapshotStore
from store_fuzz_targets import STORE_TARGETS

LEVEL = route("tank-2", "water", "level", schema=Schema.int())
COMMITTED = route("tank-2", "water", "level-committed", schema=Schema.int())
TEXT = route("tank-2", "water", "level", schema=Schema.str())
BLOB = route("tank-2", "water", "blob", schema=Schema.bytes())


def published(graph: Graph, count: int, first: int = 0) -> list[Event[int]]:
    return [graph.publish(LEVEL, first + n) for n in range(count)]


def values(log: EventLog[Any]) -> list[Any]:
    return [event.value for _, event in log.records()]


# Keyspace


def test_m120_integer_keys_sort_numerically_and_parts_do_not_run_into_each_other(tmp_path: Path) -> None:
    with Keyspace(tmp_path / "k") as store:
        for number in (10, 2, -1, 1):
            store.put(("n", number), str(number).encode())
        store.put(("n\0", 0), b"another part")
        assert list(store.keys("n")) == [("n", -1), ("n", 1), ("n", 2), ("n", 10)]
        assert [entry.key for entry in store.prefix("n").scan(after=1)] == [(2,), (10,)]


def test_m120_an_update_of_an_old_version_changes_nothing(tmp_path: Path) -> None:
    with Keyspace(tmp_path / "k") as store:
        first = store.compare_and_set("a", b"1", 0)
        assert first is not None
        assert store.compare_and_set("a", b"2", 0) is None
        store.delete("a")
        second = store.put("a", b"1")
        assert second > first
        with pytest.raises(VersionConflict) as caught, store.transaction() as change:
            change.put("b", b"x")
            change.put("a", b"3", version=first)
        assert (caught.value.key, caught.value.found) == (("a",), second)
        assert store.get("a") == b"1"
        assert store.get("b") is None


def test_m120_a_block_that_raises_writes_nothing(tmp_path: Path) -> None:
    with Keyspace(tmp_path / "k") as store:
        with pytest.raises(ZeroDivisionError), store.transaction() as change:
            change.put("a", b"1")
            raise ZeroDivisionError
        assert store.get("a") is None


@pytest.mark.parametrize("target", sorted(STORE_TARGETS))
def test_damaged_store_files_are_refused_by_name_or_lose_their_torn_tail(target: str) -> None:
    name, seeds, run = STORE_TARGETS[target]()
    rng = random.Random(7)
    ways = {run(seed) for seed in seeds}
    for _ in range(400):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randrange(1, 6)):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        ways.add(run(bytes(data)))
    assert len(ways) > 1, name


def test_hf7_files_of_the_future_are_read_like_any(tmp_path: Path) -> None:
    graph = Graph()
    with EventLog(tmp_path / "log", LEVEL) as log, Keyspace(tmp_path / "k") as store:
        log.append(*published(graph, 3))
        store.put("a", b"1")
    for path in [*tmp_path.rglob("*"), tmp_path]:
        os.utime(path, (4_102_444_800, 4_102_444_800))
    with EventLog(tmp_path / "log", LEVEL) as log, Keyspace(tmp_path / "k") as store:
        assert (values(log), log.torn_bytes) == ([0, 1, 2], 0)
        log.append(*published(graph, 1, 3))
        assert values(log) == [0, 1, 2, 3]
        assert store.get("a") == b"1"
        assert store.compare_and_set("a", b"2", 1) is not None


def test_m120_hf3_damage_anywhere_in_a_keyspace_is_found_when_it_is_opened_and_not_forgotten(
    tmp_path: Path,
) -> None:
    path = tmp_path / "k"
    written = {("k", number): bytes([number]) * 400 for number in range(200)}
    with Keyspace(path) as store:
        for key, value in written.items():
            store.put(key, value)
    whole = path.read_bytes()
    found = 0
    for place in range(4096, len(whole), 4096):
        path.write_bytes(whole[:place] + b"\xff" * 64 + whole[place + 64 :])
        try:
            store = Keyspace(path)
        except (StoreDamaged, StoreUnavailable) as error:
            found += 1
            assert error.path == str(path)
            # What was acknowledged and is gone is told at every opening, not at the first only.
            with pytest.raises((StoreDamaged, StoreUnavailable)):
                Keyspace(path)
            continue
        assert {entry.key: entry.value for entry in store.scan()} == written
        store.close()
    assert found


def test_m120_a_second_process_is_refused_and_limits_hold(tmp_path: Path) -> None:
    path = tmp_path / "k"
    with Keyspace(path) as store:
        code = "import sys; from meshfold.core.stores import Keyspace; Keyspace(sys.argv[1])"
        done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
        assert "StoreUnavailable" in done.stderr
        with pytest.raises(TooLarge):
            store.put("x" * 5000, b"")
        with pytest.raises(WiringError):
            store.put((True,), b"")
    with pytest.raises(StoreUnavailable) as closed:
        store.get("a")
    assert closed.value.because == "closed"
    (tmp_path / "text").write_text("no database at all, but long enough to be read as one" * 100)
    with pytest.raises(StoreDamaged):
        Keyspace(tmp_path / "text")
    with pytest.raises(StoreUnavailable) as nowhere:
        Keyspace(tmp_path / "no" / "such" / "folder")
    assert nowhere.value.because == "unreadable"


class KeyspaceMachine(RuleBasedStateMachine):
    """A keyspace does what a dict does, over any openings."""

    keys = st.one_of(st.integers(-3, 12), st.text(alphabet="a\0é", max_size=2), st.binary(max_size=2))

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name, "k")
        self.store = Keyspace(self.path)
        self.model: dict[Any, bytes] = {}

    @rule(key=keys, value=st.binary(max_size=5))
    def put(self, key: Any, value: bytes) -> None:
        self.store.put(key, value)
        self.model[key] = value

    @rule(key=keys)
    def delete(self, key: Any) -> None:
        self.store.delete(key)
        self.model.pop(key, None)

    @rule(key=keys, value=st.binary(max_size=5))
    def replace(self, key: Any, value: bytes) -> None:
        entry = self.store.entry(key)
        assert self.store.compare_and_set(key, value, entry.version if entry else 0) is not None
        self.model[key] = value

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = Keyspace(self.path)

    @invariant()
    def same(self) -> None:
        def order(key: Any) -> tuple[int, Any]:
            return ([int, str, bytes].index(type(key)), key)

        found = [(entry.key[0], entry.value) for entry in self.store.scan()]
        assert found == [(key, self.model[key]) for key in sorted(self.model, key=order)]

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()


KeyspaceMachine.TestCase.settings = settings(max_examples=15, stateful_step_count=20, deadline=None)
TestKeyspace = KeyspaceMachine.TestCase


# EventLog


def test_m121_numbers_go_on_over_openings_and_envelopes_come_back(tmp_path: Path) -> None:
    graph = Graph()
    parent = graph.publish(TEXT.parse("a/b/c", Schema.str()), "cause")
    event = graph.publish(
        LEVEL, 7, parents=[parent], key="k", correlation="job", time=5, taints=["TIME_UNKNOWN"]
    )
    with EventLog(tmp_path / "log", LEVEL) as log:
        assert log.append(event) == 1
    with EventLog(tmp_path / "log", LEVEL) as log:
        assert (log.last, log.token) == (1, 2)
        assert log.append(*published(graph, 3)) == 2
        ((number, found), *_) = log.records()
        for field in ("id", "value", "time", "key", "correlation", "trace", "parents", "taints", "causality"):
            assert getattr(found, field) == getattr(event, field), field
        assert number == 1


def test_m121_append_writes_only_the_new_record(tmp_path: Path) -> None:
    graph = Graph()
    with EventLog(tmp_path / "log", LEVEL) as log:
        sizes = []
        for event in published(graph, 300):
            log.append(event)
            sizes.append(sum(file.stat().st_size for file in (tmp_path / "log").glob("*.log")))
        steps = {after - before for before, after in itertools.pairwise(sizes)}
    # A number takes a byte more from 128 on.
    assert max(steps) - min(steps) <= 2


def test_m121_another_schema_is_refused(tmp_path: Path) -> None:
    with EventLog(tmp_path / "log", LEVEL) as log:
        log.append(*published(Graph(), 1))
        with pytest.raises(SchemaMismatch):
            log.append(Graph().publish(TEXT, "x"))  # type: ignore[arg-type]
    with pytest.raises(SchemaMismatch, match="int"):
        EventLog(tmp_path / "log", TEXT)


def test_m121_two_writers_do_not_overwrite_each_other(tmp_path: Path) -> None:
    graph = Graph()
    first = EventLog(tmp_path / "log", LEVEL)
    first.append(*published(graph, 2))
    with pytest.raises(StoreUnavailable) as refused:
        EventLog(tmp_path / "log", LEVEL)
    assert refused.value.because == "locked"
    second = EventLog(tmp_path / "log", LEVEL, take_over=True)
    second.append(*published(graph, 1, 2))
    with pytest.raises(Fenced) as fenced:
        first.append(*published(graph, 1, 99))
    assert (fenced.value.token, fenced.value.highest) == (1, 2)
    second.close()
    first.close()
    assert values(EventLog(tmp_path / "log", LEVEL, mode="read")) == [0, 1, 2]


def test_m121_committed_follows_the_disk_with_the_event_as_parent(tmp_path: Path) -> None:
    graph = Graph()
    seen: list[Event[int]] = []
    with EventLog(tmp_path / "log", LEVEL) as log:
        on_disk: list[int] = []

        def look(event: Event[int]) -> None:
            seen.append(event)
            on_disk.append(log.last)

        graph.observe(COMMITTED, look)
        with log.attach(graph, committed=COMMITTED):
            events = published(graph, 50)
        assert [event.value for event in seen] == list(range(50))
        assert [event.parents for event in seen] == [[event.id] for event in events]
        assert {event.trace for event in seen} == {event.trace for event in events}
        assert all(last >= place + 1 for place, last in enumerate(on_disk))
        assert values(log) == list(range(50))


def test_m121_replay_is_marked_bounded_and_tells_what_is_missing(tmp_path: Path) -> None:
    graph = Graph()
    with EventLog(tmp_path / "log", LEVEL, segment_bytes=500) as log:
        events = published(graph, 20)
        for event in events:
            log.append(event)
        oldest = log.forget_before(9)
        other = Graph(name="other")
        got: list[Event[int]] = []
        other.observe(LEVEL, got.append)
        replay = log.replay(other, stop=18)
    assert 1 < oldest <= 9
    assert (replay.first, replay.last, replay.missing) == (oldest, 17, (1, oldest - 1))
    assert [event.value for event in got] == list(range(oldest - 1, 17))
    assert [event.parents for event in got] == [[event.id] for event in events[oldest - 1 : 17]]
    assert {(event.operator, *event.taints) for event in got} == {("replay", "DELIVERY_DUPLICATED")}


def test_m123_a_torn_last_record_is_cut_and_told_and_damage_is_refused(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log", LEVEL)
    log.append(*published(Graph(), 3))
    (file,) = (tmp_path / "log").glob("*.log")
    whole = file.read_bytes()
    # A crash within the next append: part of a record, and no orderly close.
    file.write_bytes(whole + whole[-40:-20])
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("token", file.name):
        (copy / name).write_bytes((tmp_path / "log" / name).read_bytes())
    (copy / file.name).write_bytes(whole + b"MFR1" + whole[-90:-50])
    with EventLog(copy, LEVEL) as opened:
        assert values(opened) == [0, 1, 2]
        assert opened.torn_bytes == 44
        assert opened.append(*published(Graph(), 1, 3)) == 4
    damaged = bytearray((copy / file.name).read_bytes())
    damaged[len(whole) // 2] ^= 1
    (copy / file.name).write_bytes(damaged)
    with pytest.raises(StoreDamaged) as caught:
        EventLog(copy, LEVEL)
    assert isinstance(caught.value.offset, int)
    assert (copy / file.name).read_bytes() == damaged
    log.close()


WRITER = textwrap.dedent("""
    import sys
    from meshfold.core import Graph, Schema, route
    from meshfold.core.stores import EventLog
    LEVEL = route("tank-2", "water", "level", schema=Schema.int())
    log, graph = EventLog(sys.argv[1], LEVEL), Graph()
    for number in range(1, 1_000_000):
        log.append(graph.publish(LEVEL, number))
        print(number, flush=True)
""")


@pytest.mark.parametrize("after", [1, 7, 60])
def test_m121_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path, after: int) -> None:
    for life in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, tmp_path / "log"], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        acknowledged = 0
        for line in writer.stdout:
            acknowledged = int(line)
            if acknowledged == after:
                writer.kill()
        assert writer.wait(60) == -signal.SIGKILL
        writer.stdout.close()
        with EventLog(tmp_path / "log", LEVEL) as log:
            found = values(log)
            assert log.token == 2 * (life + 1)
        # One append may have been written and not yet been acknowledged.
        lives = [n for n, value in enumerate(found) if value == 1]
        assert len(lives) == life + 1
        assert found[lives[-1] :] in (list(range(1, acknowledged + 1)), list(range(1, acknowledged + 2)))


FULL = textwrap.dedent("""
    import resource, sys
    from meshfold.core import Graph, Schema, route
    from meshfold.core.errors import StoreUnavailable
    from meshfold.core.stores import EventLog, Keyspace
    BLOB = route("tank-2", "water", "blob", schema=Schema.bytes())
    graph = Graph()
    log = EventLog(sys.argv[1] + "/log", BLOB)
    store = Keyspace(sys.argv[1] + "/keys")
    log.append(graph.publish(BLOB, b"before"))
    store.put("a", b"before")
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    for write in (lambda: log.append(graph.publish(BLOB, b"x" * 9000)), lambda: store.put("a", b"x" * 9_000_000)):
        try:
            write()
        except StoreUnavailable as error:
            print(error.because)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    log.append(graph.publish(BLOB, b"after"))
    print([event.value for _, event in log.records()])
    log.close()
""")


def test_m121_hf1_a_full_disk_is_told_keeps_what_was_there_and_ends(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", FULL, tmp_path], capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["full", "full", "[b'before', b'after']"], done.stderr
    with Keyspace(tmp_path / "keys") as store:
        assert store.get("a") == b"before"


def test_m121_hf5_an_unreadable_file_is_told(tmp_path: Path) -> None:
    EventLog(tmp_path / "log", LEVEL).close()
    # Permissions do not bind root; what is no file cannot be read by anybody.
    (tmp_path / "log" / "token").unlink()
    (tmp_path / "log" / "token").mkdir()
    with pytest.raises(StoreUnavailable) as caught:
        EventLog(tmp_path / "log", LEVEL)
    assert caught.value.because == "unreadable"


def test_m121_hf5_a_path_that_is_no_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("a file")
    with pytest.raises(StoreUnavailable) as caught:
        EventLog(tmp_path / "log", LEVEL)
    assert caught.value.because == "unreadable"


@given(st.lists(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=5), max_size=8), st.integers(1, 30))
@settings(max_examples=15, deadline=None)
def test_m121_a_log_reads_as_the_list_that_was_appended(
    tmp_path_factory: pytest.TempPathFactory, appends: list[list[int]], start: int
) -> None:
    folder = tmp_path_factory.mktemp("log")
    graph = Graph()
    model: list[int] = []
    for numbers in appends:
        with EventLog(folder, LEVEL, segment_bytes=400) as log:
            log.append(*[graph.publish(LEVEL, number) for number in numbers])
            model += numbers
            assert log.last == len(model)
    log = EventLog(folder, LEVEL)
    assert [(n, event.value) for n, event in log.records(start)] == list(enumerate(model, 1))[start - 1 :]
    log.close()


# SnapshotStore


def test_m122_of_two_writers_that_saw_the_same_version_one_succeeds(tmp_path: Path) -> None:
    with Keyspace(tmp_path / "k") as store:
        snapshots = SnapshotStore(store, LEVEL)
        assert snapshots.latest() is None
        results: list[int | None] = []
        barrier = threading.Barrier(4)

        def write(value: int) -> None:
            barrier.wait()
            results.append(snapshots.write(value, 0))

        threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sum(result is not None for result in results) == 1
        found = snapshots.latest()
        assert found is not None
        assert snapshots.write(77, found.version) == found.version + 1
        graph = Graph()
        event = snapshots.publish_latest(graph)
        assert event is not None
        assert graph.latest(LEVEL) is not None
        assert event.value == 77
        with pytest.raises(SchemaMismatch):
            SnapshotStore(store, TEXT).latest()


# Memory


def test_m123_numbers_and_lives_come_back_and_equal_values_are_kept_apart(tmp_path: Path) -> None:
    first = Graph(name="tank")
    with Memory(tmp_path / "m") as memory:
        assert memory.life is None
        memory.remember(first, LEVEL)
        events = [first.publish(LEVEL, value) for value in (1, 2, 1)]
    with Memory(tmp_path / "m") as memory:
        assert memory.life == (first.producer, first.incarnation)
        again = Graph(producer=memory.life[0], incarnation=memory.life[1])
        assert memory.resume(again, LEVEL) == 3
        latest = again.latest(LEVEL)
        assert latest is not None
        assert (latest.id, latest.value) == (events[2].id, 1)
        memory.remember(again, LEVEL)
        assert again.publish(LEVEL, 1).seq == 4
        memory.flush()
        assert len(list(memory.records(LEVEL))) == 4
        with pytest.raises(WiringError):
            memory.resume(again, LEVEL)


def test_m123_after_a_crash_history_comes_back_and_the_life_does_not(tmp_path: Path) -> None:
    code = textwrap.dedent("""
        import os, sys
        from meshfold.core import Graph, Schema, route
        from meshfold.core.stores import Memory
        LEVEL = route("tank-2", "water", "level", schema=Schema.int())
        graph, memory = Graph(name="tank", incarnation=b"12345678"), Memory(sys.argv[1])
        memory.remember(graph, LEVEL, history=2)
        for number in range(5):
            graph.publish(LEVEL, number)
        memory.flush()
        os.kill(os.getpid(), 9)
    """)
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "m"], check=False)
    assert done.returncode == -signal.SIGKILL
    with Memory(tmp_path / "m") as memory:
        assert memory.life is None
        with pytest.raises(WiringError, match="incarnation"):
            memory.resume(Graph(name="tank", incarnation=b"12345678"), LEVEL)
        graph = Graph(name="tank")
        assert memory.resume(graph, LEVEL) == 2
        latest = graph.latest(LEVEL)
        assert latest is not None
        assert (latest.value, latest.seq, latest.incarnation) == (4, 5, b"12345678")
        assert graph.publish(LEVEL, 9).seq == 1
        with pytest.raises(SchemaMismatch):
            memory.resume(Graph(), TEXT)

"""Guarded writes over restarts and crashes: what waits goes on waiting, what may have gone out says so (S19)."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from meshfold.core import Graph, Schema, SchemaMismatch, StoreDamaged, WiringError, route
from meshfold.core.stores import Keyspace
from meshfold.core.writes import RetryPolicy

TARGET = route("plant", "heat", "target", schema=Schema.int())
ACKS = route("plant", "heat", "acks", schema=Schema.int())
DEAD = route("plant", "heat", "dead", schema=Schema.int())
MARKS = route("plant", "heat", "marks", schema=Schema.int())


def test_m75_a_write_goes_on_waiting_in_the_next_life(tmp_path: Path) -> None:
    with Keyspace(tmp_path / "k") as store:
        graph = Graph(name="plant")
        assert graph.keep_guarded_writes(store) == 0
        graph.publish_guarded(TARGET, 1, not_before_epoch=3)
        graph.publish_guarded(
            TARGET,
            2,
            ack_route=ACKS,
            retry=RetryPolicy.fixed_backoff(2, 1),
            dead_letter=DEAD,
            expires_at_epoch=9,
        )
        graph.publish_guarded(TARGET, 3, watermark=(MARKS, 7))
        gone = graph.publish_guarded(TARGET, 4)
        assert graph.scheduler().cancel(gone)
        assert [event.value for event in graph.run_scheduler().sent] == [2]
    with Keyspace(tmp_path / "k") as store:
        again = Graph(name="plant")
        assert again.keep_guarded_writes(store, TARGET, ACKS, DEAD, MARKS) == 3
        assert [row[0] for row in again.scheduler_snapshot().pending] == [1, 2, 3]
        assert again.scheduler().epoch == 1
        with pytest.raises(WiringError, match="not after 1"):
            again.run_scheduler(1)
        again.publish(MARKS, 7)
        sent = [(event.value, event.epoch) for _ in range(6) for event in again.run_scheduler().sent]
        assert sent == [(3, 2), (1, 3), (2, 3)]
        assert again.latest(DEAD).value == 2  # type: ignore[union-attr]
        assert again.latest(TARGET).taints == ["SCHED_GATED"]  # type: ignore[union-attr]
        assert again.publish_guarded(TARGET, 5).number == 4
    with Keyspace(tmp_path / "k") as store:
        last = Graph(name="plant")
        assert last.keep_guarded_writes(store, TARGET) == 1


def test_m75_what_a_crash_left_on_its_way_is_sent_again_and_says_so(tmp_path: Path) -> None:
    code = textwrap.dedent(
        """
        import os, sys
        from meshfold.core import Graph, Schema, route
        from meshfold.core.stores import Keyspace
        target = route("plant", "heat", "target", schema=Schema.int())
        graph = Graph(name="plant")
        graph.keep_guarded_writes(Keyspace(sys.argv[1]), target)
        graph.publish_guarded(target, 40)
        graph.publish_guarded(target, 41, not_before_epoch=2)
        graph.observe(target, lambda event: os._exit(9))
        graph.run_scheduler()
        """
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "k"], check=False)
    assert done.returncode == 9
    with Keyspace(tmp_path / "k") as store:
        graph = Graph(name="plant")
        assert graph.keep_guarded_writes(store, TARGET) == 2
        first, second = (event for _ in range(2) for event in graph.run_scheduler().sent)
        assert (first.value, sorted(first.taints)) == (40, ["DELIVERY_DUPLICATED", "SCHED_READY"])
        assert (second.value, second.taints) == (41, ["SCHED_GATED"])
    with Keyspace(tmp_path / "k") as store:
        assert Graph(name="plant").keep_guarded_writes(store, TARGET) == 0


def test_m75_what_cannot_be_taken_up_is_told_and_stays_in_the_store(tmp_path: Path) -> None:
    with Keyspace(tmp_path / "k") as store:
        graph = Graph(name="plant")
        graph.keep_guarded_writes(store)
        graph.publish_guarded(TARGET, 1)
        with pytest.raises(WiringError, match="wait here already"):
            graph.keep_guarded_writes(store)
        with pytest.raises(WiringError, match="is no route of this graph"):
            Graph(name="plant").keep_guarded_writes(store)
        other = route("plant", "heat", "target", schema=Schema.str())
        with pytest.raises(SchemaMismatch):
            Graph(name="plant").keep_guarded_writes(store, other)
        assert Graph(name="elsewhere").keep_guarded_writes(store) == 0
        assert Graph(name="plant").keep_guarded_writes(store, TARGET) == 1
        store.put(("guarded", "plant", "write", 7), b"nonsense")
        with pytest.raises(StoreDamaged, match="no guarded write"):
            Graph(name="plant").keep_guarded_writes(store, TARGET)

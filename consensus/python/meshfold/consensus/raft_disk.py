"""What a Raft voter keeps on its disk: `LogStore`, with the members inside its snapshots.

state of a snapshot: length of the members 4 | members | the machine's state
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from meshfold._native import Raft, RaftReady, raft_members
from meshfold.consensus.log_store import LogStore
from meshfold.consensus.timing import RaftTiming
from meshfold.consensus.wal import Entry, Kind, Snapshot

__all__ = ("open_raft", "pack", "persist", "unpack")


def pack(index: int, term: int, members: bytes, state: bytes) -> Snapshot:
    """A snapshot for the disk."""
    return Snapshot(index, term, struct.pack(">I", len(members)) + members + state)


def unpack(snapshot: Snapshot) -> tuple[bytes, Snapshot]:
    """The members, and the snapshot of the machine's state alone."""
    (length,) = struct.unpack_from(">I", snapshot.state)
    members, state = snapshot.state[4 : 4 + length], snapshot.state[4 + length :]
    return members, Snapshot(snapshot.index, snapshot.term, state)


def open_raft(
    store: LogStore, node: int, founders: Sequence[int] | None, empty: bytes, timing: RaftTiming, seed: int
) -> Raft:
    """The state machine as the disk left it; an empty disk of a founder becomes the beginning of the group.

    :raises OSError: if the beginning cannot be written
    """
    if founders is not None and store.snapshot is None and not store.entries:
        # Entry 1 names the founders, so that whoever joins later gets it as a snapshot and knows them.
        store.replace(pack(1, 1, raft_members(founders), empty), [])
    base = None
    if store.snapshot is not None:
        members, state = unpack(store.snapshot)
        base = (state.index, state.term, members, state.state)
    return Raft(
        id=node,
        election_ticks=timing.election_ticks,
        heartbeat_ticks=1,
        seed=seed,
        hard_state=(store.hard.term, store.hard.vote),
        snapshot=base,
        entries=[(entry.index, entry.term, int(entry.kind), entry.data) for entry in store.entries],
    )


def persist(store: LogStore, ready: RaftReady) -> None:
    """Make durable what must be before anything is said of it.

    :raises OSError: if that failed: then nothing of it may be said
    """
    entries = [Entry(index, term, Kind(kind), data) for index, term, kind, data in ready.entries]
    if ready.snapshot is not None:
        store.replace(pack(*ready.snapshot), entries)
    elif entries:
        if entries[0].index <= store.last_index:
            store.truncate_from(entries[0].index)
        store.append(entries)
    if ready.hard_state is not None:
        store.save_vote(*ready.hard_state)

"""Durable stores (S35): keyspaces, event logs, snapshots, and the memory of a graph. Files on this machine, no network."""

from meshfold.core.stores.keyspace import Entry, Key, Keyspace, Transaction
from meshfold.core.stores.log import EventLog, Replay
from meshfold.core.stores.memory import Memory
from meshfold.core.stores.snapshot import Snapshot, SnapshotStore

__all__ = (
    "Entry",
    "EventLog",
    "Key",
    "Keyspace",
    "Memory",
    "Replay",
    "Snapshot",
    "SnapshotStore",
    "Transaction",
)

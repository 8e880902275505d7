"""`SnapshotStore`: the newest value of something, replaced only by who saw the one before."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from meshfold.core.errors import SchemaMismatch, StoreDamaged
from meshfold.core.event import Event
from meshfold.core.route import Route
from meshfold.core.stores.keyspace import Key, Keyspace

if TYPE_CHECKING:
    from meshfold.core.graph import Graph

__all__ = ("Snapshot", "SnapshotStore")

T = TypeVar("T")
#: schema id, schema version, then the encoded value
_HEAD: Final = struct.Struct(">8sI")


@dataclass(frozen=True, slots=True)
class Snapshot(Generic[T]):
    """A value and the version its write got."""

    version: int
    value: T


class SnapshotStore(Generic[T]):
    """One value of a route's schema under a key of a keyspace.

    :param store: where it is kept
    :param route: gives the schema; `publish_latest` publishes here
    :param key: None: the route's address
    """

    def __init__(self, store: Keyspace, route: Route[T], key: Key | None = None) -> None:
        self._store = store.prefix("snapshot")
        self._route = route
        self._key: Key = key if key is not None else route.address

    def latest(self) -> Snapshot[T] | None:
        """The value and its version, or None.

        :raises SchemaMismatch: if it was written with another schema
        :raises StoreDamaged: if the bytes are no snapshot
        """
        entry = self._store.entry(self._key)
        if entry is None:
            return None
        if len(entry.value) < _HEAD.size:
            raise StoreDamaged(
                f"{len(entry.value)} bytes are no snapshot", path=str(self._store.path), offset=0
            )
        schema_id, version = _HEAD.unpack_from(entry.value)
        schema = self._route.schema
        if (schema_id, version) != (schema.id, schema.version):
            raise SchemaMismatch(
                f"the snapshot of {self._route.text} was written with another schema, version {version}",
                fix="read it with the schema it was written with",
                route=self._route.text,
                expected=schema.id,
                found=schema_id,
            )
        return Snapshot(entry.version, self._route.decode_value(entry.value[_HEAD.size :]))

    def write(self, value: T, expected: int) -> int | None:
        """Write if the version is still `expected` (0: nothing was written yet); the new version, or None if it is not.

        Durable on return; two writers with the same `expected` never both succeed.

        :raises EncodeError: if the value does not fit the schema
        :raises StoreUnavailable: if it cannot be written; nothing was
        """
        schema = self._route.schema
        data = _HEAD.pack(schema.id, schema.version) + self._route.encode_value(value)
        return self._store.compare_and_set(self._key, data, expected)

    def publish_latest(self, graph: Graph) -> Event[T] | None:
        """Publish the value on the route; None if there is none. Raises as `latest` and `Graph.publish`."""
        found = self.latest()
        return None if found is None else graph.publish(self._route, found.value)

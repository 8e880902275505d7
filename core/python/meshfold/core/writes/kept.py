"""Guarded writes on disk: what waits goes on waiting in the next life (S19).

A write is on the disk when the call that put it in returns. Before it is sent it is noted as on its way; one that a crash
left so is sent again, tainted DELIVERY_DUPLICATED, for it may have gone out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec
from meshfold.core.address import Address
from meshfold.core.errors import SchemaMismatch, StoreDamaged, WiringError
from meshfold.core.route import Route
from meshfold.core.stores.keyspace import Keyspace

if TYPE_CHECKING:
    from meshfold.core.graph import Graph
    from meshfold.core.writes.guarded import GuardedWrite

__all__ = ("Kept", "KeptWrites")

_VERSION: Final = 1
_Mark = tuple[bytes, bytes, int]


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A write as it lies in the store; routes by address with the id of their schema."""

    version: int
    target: tuple[str, bytes]
    value: bytes
    not_before_epoch: int
    not_before: int | None
    watermark: tuple[str, bytes, int] | None
    after_ack: tuple[str, bytes] | None
    ack_route: tuple[str, bytes] | None
    needs_credit: bool
    expires_at_epoch: int | None
    retry: dict[str, Any]
    dead_letter: tuple[str, bytes] | None
    parents: list[str]
    baseline: _Mark | None
    after_baseline: _Mark | None
    attempts: int
    last_epoch: int
    last_time: int
    sending: bool


class KeptWrites:
    """The pending writes of one graph in a keyspace, by number."""

    def __init__(self, store: Keyspace, name: str) -> None:
        self._store = store.prefix("guarded", name)

    @property
    def epoch(self) -> int:
        """The epoch of the last run that was noted."""
        return int.from_bytes(self._store.get("epoch") or b"", "big")

    def note(self, writes: Iterable[tuple[GuardedWrite[Any], bool]], gone: Iterable[int], epoch: int) -> None:
        """Write these, each with whether it is on its way, remove those, note the epoch: all of it, durable on return.

        :raises StoreUnavailable: if it cannot be written; nothing was
        """
        with self._store.transaction() as change:
            for write, sending in writes:
                change.put(("write", write.number), msgspec.msgpack.encode(_packed(write, sending)))
            for number in gone:
                change.delete(("write", number))
            change.put("epoch", epoch.to_bytes(8, "big"))

    def load(
        self, graph: Graph, routes: Mapping[bytes, Route[Any]]
    ) -> list[tuple[int, Kept, dict[str, Any]]]:
        """All of them in order: number, what was kept, and its routes and value.

        :raises WiringError: if a route is known to nobody here; nothing was taken out of the store
        :raises SchemaMismatch: if a route has another schema now
        :raises StoreDamaged: if what lies there is no write
        """
        found: list[tuple[int, Kept, dict[str, Any]]] = []
        for entry in self._store.scan("write"):
            try:
                kept = msgspec.msgpack.decode(entry.value, type=Kept)
            except msgspec.MsgspecError:
                kept = None
            if kept is None or kept.version != _VERSION:
                raise StoreDamaged("this is no guarded write", path=str(self._store.path), offset=0)
            at = {
                name: None if place is None else _route(graph, routes, place[0], place[1])
                for name, place in (
                    ("target", kept.target),
                    ("after_ack", kept.after_ack),
                    ("ack_route", kept.ack_route),
                    ("dead_letter", kept.dead_letter),
                    ("watermark", kept.watermark),
                )
            }
            found.append((int(entry.key[-1]), kept, at))
        return found


def _route(graph: Graph, routes: Mapping[bytes, Route[Any]], address: str, schema: bytes) -> Route[Any]:
    tag = Address.parse(address).tag
    found = routes.get(tag) or graph.route(tag)
    if found is None:
        raise WiringError(
            f"a guarded write that was kept names {address}, which is no route of this graph",
            fix="give the route to keep_guarded_writes, or declare it first",
            item=address,
        )
    if found.schema.id != schema:
        raise SchemaMismatch(
            f"a guarded write of {found.text} was kept with another schema",
            fix="let it go out with the schema it was made with",
            route=found.text,
            expected=found.schema.id,
            found=schema,
        )
    return found


def _place(r: Route[Any] | None) -> tuple[str, bytes] | None:
    return None if r is None else (r.address, r.schema.id)


def _packed(write: GuardedWrite[Any], sending: bool) -> Kept:
    mark = write.watermark
    retry = write.retry
    return Kept(
        version=_VERSION,
        target=(write.target.address, write.target.schema.id),
        value=write.target.encode_value(write.value),
        not_before_epoch=write.not_before_epoch,
        not_before=write.not_before,
        watermark=None if mark is None else (mark[0].address, mark[0].schema.id, mark[1]),
        after_ack=_place(write.after_ack),
        ack_route=_place(write.ack_route),
        needs_credit=write.needs_credit,
        expires_at_epoch=write.expires_at_epoch,
        retry={name: getattr(retry, name) for name in retry.__slots__},
        dead_letter=_place(write.dead_letter),
        parents=write.parents,
        baseline=write.baseline,
        after_baseline=write.after_baseline,
        attempts=write.attempts,
        last_epoch=write.last_epoch,
        last_time=write.last_time,
        sending=sending,
    )

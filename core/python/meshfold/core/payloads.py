"""The payload plane: values that stay where they are until somebody opens them (S15).

An event whose payload is lazy carries its envelope and a reference. Nothing reads the source until `open_payload`; opens
that happen together share one fetch, each is checked against the digest, and how many may run at once is bounded. How long
a payload can be opened is set apart from how long its event is kept, and one that cannot be any more is `PayloadGone`.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar

from meshfold._native import publish_reference
from meshfold.core.errors import PayloadDamaged, PayloadGone, TooLarge, WiringError, WouldBlock
from meshfold.core.event import Event
from meshfold.core.route import Route

if TYPE_CHECKING:
    from meshfold.core.stores.keyspace import Keyspace

__all__ = ("LazyPayloadSource", "OpenedPayload", "PayloadDemand", "PayloadPlane", "PayloadPolicy")

T = TypeVar("T")
PayloadRetention = Literal["inline", "separate_store", "external_store", "non_replayable"]
_RETENTIONS: Final = ("inline", "separate_store", "external_store", "non_replayable")
#: Sources of one route that can be opened; of more, the oldest are gone.
SOURCES_MAX: Final = 4096


@dataclass(frozen=True, slots=True)
class LazyPayloadSource:
    """Where a payload is: `open` returns its bytes, encoded by the route's schema.

    :param open: called for a fetch, on the thread that opens, never under a lock
    :param logical_length_bytes: how many there will be, if that is known: it is spent as byte credit beforehand
    :param digest: SHA-256 of the bytes, if that is known: it is checked on every open
    """

    open: Callable[[], bytes]
    logical_length_bytes: int | None = None
    digest: bytes | None = None
    codec_id: str = ""


@dataclass(frozen=True, slots=True)
class PayloadPolicy:
    """How payloads of a route are kept.

    :param retention: `inline` keeps fetched bytes in memory, `separate_store` in a keyspace, `external_store` nowhere (the
        source is opened each time), `non_replayable` lets each be opened once
    :param max_bytes: kept in memory for the route; the oldest go first
    :param opens: fetches that may run at once: the window of open credits
    :param open_bytes: bytes that may be on the way at once; a larger payload is refused
    :raises WiringError: for an unknown retention, or a store that is missing or not needed
    """

    retention: PayloadRetention = "inline"
    max_bytes: int = 64 * 1024 * 1024
    opens: int = 4
    open_bytes: int = 256 * 1024 * 1024
    store: Keyspace | None = None

    def __post_init__(self) -> None:
        if self.retention not in _RETENTIONS:
            raise WiringError(
                f"unknown retention {self.retention!r}",
                fix=f"use one of {', '.join(_RETENTIONS)}",
                item="retention",
            )
        if (self.retention == "separate_store") != (self.store is not None):
            raise WiringError(
                "separate_store and a keyspace go together", fix="give both or neither", item="store"
            )
        if self.opens < 1 or self.open_bytes < 1 or self.max_bytes < 0:
            raise WiringError("windows are at least 1", item="opens")


@dataclass(frozen=True, slots=True)
class PayloadDemand:
    """What was asked of a route's payloads: opens, fetches from sources, answers without one, bytes, and what was refused."""

    route: str
    opens: int
    fetches: int
    hits: int
    shared: int
    fetched_bytes: int
    kept_bytes: int
    on_the_way: int
    available: int
    waits: int
    gone: int
    damaged: int


class OpenedPayload(Generic[T]):
    """An opened payload; its value is decoded on first use, once."""

    def __init__(self, event: Event[T], data: bytes) -> None:
        self.event = event
        #: the encoded bytes
        self.data = data
        self._value: list[T] = []

    @property
    def value(self) -> T:
        """The value.

        :raises DecodeError: if the bytes are none of the route's schema
        """
        if not self._value:
            self._value.append(self.event.route.decode_value(self.data))
        return self._value[0]


@dataclass(slots=True)
class _Entry:
    source: LazyPayloadSource
    digest: bytes | None
    used: bool = False
    fetching: _Fetch | None = None


@dataclass(slots=True)
class _Fetch:
    done: threading.Event = field(default_factory=threading.Event)
    data: bytes | None = None
    error: BaseException | None = None


class PayloadPlane:
    """The lazy payloads of one route."""

    def __init__(self, r: Route[Any], policy: PayloadPolicy) -> None:
        self.route = r
        self.policy = policy
        self._changed = threading.Condition()
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._kept: OrderedDict[str, bytes] = OrderedDict()
        self._kept_bytes = 0
        self._open = 0
        self._open_bytes = 0
        self._number = 0
        self._count = dict.fromkeys(
            ("opens", "fetches", "hits", "shared", "bytes", "waits", "gone", "damaged"), 0
        )

    def publish(self, graph: Any, source: LazyPayloadSource, **envelope: Any) -> Event[Any]:
        """Publish the envelope; see `Graph.publish_lazy`."""
        size = source.logical_length_bytes
        if size is not None and size > self.policy.open_bytes:
            raise TooLarge(
                f"a payload of {size} bytes on {self.route.text}",
                fix=f"at most {self.policy.open_bytes} bytes can be opened; set open_bytes",
                item=self.route.text,
                size_bytes=size,
                limit_bytes=self.policy.open_bytes,
            )
        with self._changed:
            self._number += 1
            reference = f"lazy:{graph.incarnation.hex()}:{self.route.tag.hex()}:{self._number}"
            self._entries[reference] = _Entry(source, source.digest)
            while len(self._entries) > SOURCES_MAX:
                self._drop(next(iter(self._entries)))
        try:
            return publish_reference(graph, self.route, reference, **envelope)
        except BaseException:
            with self._changed:
                self._drop(reference)
            raise

    def _drop(self, reference: str) -> None:
        self._entries.pop(reference, None)
        self._forget(reference)

    def _forget(self, reference: str) -> None:
        self._kept_bytes -= len(self._kept.pop(reference, b""))

    def evict(self, event: Event[Any]) -> None:
        """Forget a payload: opening it is PayloadGone from now on, its event stays. Idempotent."""
        with self._changed:
            self._drop(event.payload_reference or "")
        if self.policy.store is not None and event.payload_reference is not None:
            self.policy.store.delete(("payload", event.payload_reference))

    def open(self, event: Event[T], wait: bool) -> OpenedPayload[T]:
        """Open a payload; see `Graph.open_payload`."""
        reference = event.payload_reference or ""
        with self._changed:
            self._count["opens"] += 1
            entry = self._entries.get(reference)
            if entry is None or (entry.used and self.policy.retention == "non_replayable"):
                raise self._gone(event)
            kept = self._kept.get(reference)
            if kept is not None:
                self._count["hits"] += 1
                return OpenedPayload(event, kept)
            fetch = entry.fetching
            if fetch is not None:
                self._count["shared"] += 1
                mine = None
            else:
                self._spend(entry, wait)
                fetch = mine = entry.fetching = _Fetch()
        if mine is None:
            if not wait and not fetch.done.is_set():
                raise self._busy()
            fetch.done.wait()
        else:
            self._fetch(reference, entry, mine)
        if fetch.error is not None:
            raise fetch.error
        return OpenedPayload(event, fetch.data or b"")

    def _gone(self, event: Event[Any]) -> PayloadGone:
        self._count["gone"] += 1
        return PayloadGone(
            f"the payload of {event.id} on {self.route.text} cannot be opened any more",
            fix="open payloads sooner, or keep them longer",
            event=event.id,
            route=self.route.text,
        )

    def _busy(self) -> WouldBlock:
        return WouldBlock(
            f"{self.policy.opens} payloads of {self.route.text} are being opened",
            fix="open waits for credit",
            route=self.route.text,
        )

    def _spend(self, entry: _Entry, wait: bool) -> None:
        size = entry.source.logical_length_bytes or 0
        waited = False
        while self._open >= self.policy.opens or self._open_bytes + size > self.policy.open_bytes:
            if not wait:
                raise self._busy()
            self._count["waits"] += not waited
            waited = True
            self._changed.wait()
        self._open += 1
        self._open_bytes += size

    def _fetch(self, reference: str, entry: _Entry, fetch: _Fetch) -> None:
        try:
            fetch.data = self._read(reference, entry)
        except BaseException as error:  # noqa: BLE001 - raised by whoever waits for this fetch
            fetch.error = error
        with self._changed:
            self._open -= 1
            self._open_bytes -= entry.source.logical_length_bytes or 0
            entry.fetching = None
            if fetch.data is not None:
                entry.used = True
                self._keep(reference, fetch.data)
            self._changed.notify_all()
        fetch.done.set()

    def _read(self, reference: str, entry: _Entry) -> bytes:
        store = self.policy.store
        data = None if store is None else store.get(("payload", reference))
        fresh = data is None
        if data is None:
            data = entry.source.open()
        digest = hashlib.sha256(data).digest()
        with self._changed:
            self._count["fetches" if fresh else "hits"] += 1
            self._count["bytes"] += len(data) if fresh else 0
            if entry.digest is not None and entry.digest != digest:
                self._count["damaged"] += 1
                raise PayloadDamaged(
                    f"the payload {reference} of {self.route.text} is not what was published",
                    fix="the source has changed: publish it again",
                    route=self.route.text,
                    digest=digest,
                )
            # Later opens have to give the same bytes.
            entry.digest = digest
        if store is not None and fresh:
            store.put(("payload", reference), data)
        return data

    def _keep(self, reference: str, data: bytes) -> None:
        if self.policy.retention != "inline" or reference not in self._entries:
            return
        self._kept[reference] = data
        self._kept_bytes += len(data)
        while self._kept_bytes > self.policy.max_bytes:
            # An inline payload lives as long as its bytes are here.
            self._drop(next(iter(self._kept)))

    def demand(self) -> PayloadDemand:
        """What was asked so far."""
        with self._changed:
            c = self._count
            return PayloadDemand(
                self.route.text,
                c["opens"],
                c["fetches"],
                c["hits"],
                c["shared"],
                c["bytes"],
                self._kept_bytes,
                self._open,
                self.policy.opens - self._open,
                c["waits"],
                c["gone"],
                c["damaged"],
            )

"""Sealed frames of a route kept in a file, and opened later by whoever may: `Node.record` and `Node.replay`.

A recording is what the broker carries, so it needs no key to make and tells nobody anything; opening it asks for
REPLAY_READ, and for the keys of the epochs it was sealed under, which a voter sends for the range the grant names.

Whoever sent the frames may be gone by then: a recording carries the identity and the grants of each sender, which prove
themselves.

file: `MFR1` | the route's address, length u16 before it | n x (kind 1 | length u32 | bytes); kinds: d and m frames in these
forms, i an identity, g a grant
"""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Literal

from meshfold.core import Event, Graph, Route
from meshfold.core.errors import ConfigError, DecodeError, FrameRejected, SchemaMismatch
from meshfold.core.inlet import Inlet
from meshfold.core.ports import Message, Subscribed
from meshfold.core.registry import Action
from meshfold.security import Grant

if TYPE_CHECKING:
    from meshfold.mesh.node.session import Session

__all__ = ("Recording", "Replayed", "begin_recording", "replay_file")

MAGIC: Final = b"MFR1"
#: A recording stops there, and counts what came later.
FILE_BYTES_MAX: Final = 16 * 1024**3
FRAME_BYTES_MAX: Final = 1024 * 1024
SENDERS_MAX: Final = 4096
_HEAD: Final = struct.Struct(">cI")
_KINDS: Final = (b"d", b"m", b"i", b"g")


class Recording:
    """Frames of a route on their way into a file. Close it to have the file whole on disk."""

    def __init__(self, route: Route[Any], form: Literal["d", "m"], path: Path, file: IO[bytes]) -> None:
        self.route = route
        self.form = form
        self.path = path
        self._file = file
        self._size = file.tell()
        self._senders: set[bytes] = set()
        self._subscription: Subscribed | None = None
        #: frames written, and frames left out because the file is full
        self.frames = self.left_out = 0

    async def begin(self, session: Session) -> None:
        """Listen."""
        self._session = session
        subject = session.subjects.route_any_site(self.form, self.route.addr)
        self._subscription = await session.transport.subscribe(subject, self._on_message)

    def _on_message(self, message: Message) -> None:
        data = message.data
        if self._size + _HEAD.size + len(data) > FILE_BYTES_MAX or len(data) > FRAME_BYTES_MAX:
            self.left_out += 1
            return
        self._introduce(data[16:24])
        self._put(self.form.encode(), data)
        self.frames += 1

    def _introduce(self, tag: bytes) -> None:
        """Write who a sender is, once it is known here."""
        identity = self._session.directory.lookup(tag)
        if tag in self._senders or identity is None or len(self._senders) >= SENDERS_MAX:
            return
        self._senders.add(tag)
        self._put(b"i", identity.raw)
        for grant in self._session.book.grants_of(tag):
            self._put(b"g", grant.raw)

    def _put(self, kind: bytes, data: bytes) -> None:
        self._file.write(_HEAD.pack(kind, len(data)) + data)
        self._size += _HEAD.size + len(data)

    async def close(self) -> None:
        """Stop, and write what is left. Idempotent."""
        if self._subscription is not None:
            await self._subscription.close()
            self._subscription = None
            self._file.close()


class Replayed(list[Event[Any]]):
    """The events of a recording, in its order, and how many frames were refused, by reason."""

    def __init__(self) -> None:
        super().__init__()
        self.frames = 0
        self.rejected: Counter[str] = Counter()


async def begin_recording(session: Session, route: Route[Any], path: Path) -> Recording:
    """Begin to keep a route's frames in a file.

    :raises GrantDenied: without META_READ on the route
    :raises ConfigError: if the file is there already or cannot be written
    """
    session.book.require(session.identity.tag, Action.META_READ, route.addr)
    whole = session.book.decide(session.identity.tag, Action.PAYLOAD_OPEN, route.addr).allowed
    try:
        file = path.open("xb")
    except OSError as error:
        raise ConfigError(f"cannot write the recording {path}: {error.strerror}", item=str(path)) from error
    address = route.address.encode()
    file.write(MAGIC + struct.pack(">H", len(address)) + address)
    recording = Recording(route, "d" if whole else "m", path, file)
    try:
        await recording.begin(session)
    except BaseException:
        file.close()
        os.unlink(path)
        raise
    return recording


def _parts(path: Path, route: Route[Any]) -> Iterator[tuple[str, bytes]]:
    """The parts of a recording by kind; one that was cut short ends there.

    :raises ConfigError: if it is none, or of another route
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise ConfigError(f"cannot read the recording {path}: {error.strerror}", item=str(path)) from error
    with file:
        head = file.read(len(MAGIC) + 2)
        size = struct.unpack(">H", head[-2:])[0] if len(head) == len(MAGIC) + 2 else 0
        address = file.read(size)
        if head[: len(MAGIC)] != MAGIC or address != route.address.encode():
            raise ConfigError(f"{path} is no recording of {route.text}", item=str(path))
        while len(head := file.read(_HEAD.size)) == _HEAD.size:
            kind, size = _HEAD.unpack(head)
            data = file.read(min(size, FRAME_BYTES_MAX))
            if kind not in _KINDS or len(data) != size:
                return
            yield kind.decode(), data


def replay_file(session: Session, route: Route[Any], path: Path) -> Replayed:
    """Open a recording; every frame passes the checks of a live one that do not depend on the time.

    :raises GrantDenied: without REPLAY_READ on the route
    :raises ConfigError: if the file is no recording of the route
    """
    session.book.require(session.identity.tag, Action.REPLAY_READ, route.addr)
    graph, found = Graph(name="replay"), Replayed()
    inlet = graph.inlet(route, name="recording")
    graph.observe(route, found.append)
    for kind, data in _parts(path, route):
        try:
            if kind == "i":
                session.directory.admit(data)
            elif kind == "g":
                session.book.add(Grant.parse(data), session.hlc.now_ms())
            else:
                found.frames += 1
                _push(session, route, inlet, "d" if kind == "d" else "m", data)
        except FrameRejected as error:
            found.rejected[error.reason] += 1
        except (DecodeError, SchemaMismatch):
            found.rejected["batch"] += 1
    return found


def _push(session: Session, route: Route[Any], inlet: Inlet, form: Literal["d", "m"], frame: bytes) -> None:
    """Open one frame into the graph that collects its events."""
    opened = session.opener.open_recorded(
        form,
        route.addr,
        frame,
        allow_plain=route.secrecy == "none",
        allow_unsigned=route.secrecy == "group",
    )
    if opened.header.schema_id != route.schema.id:
        raise FrameRejected("schema", "a recording of another schema")
    inlet.push(opened.meta, opened.payload, producer=opened.sender.tag, incarnation=opened.header.incarnation)

"""What is fuzzed of the stores: files of an event log, of a keyspace, and a snapshot in one.

A damaged file is refused by a typed error, or has lost its torn tail; what is read from it is what was written.
"""

from __future__ import annotations

import shutil
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

from meshfold.core import Graph, Schema, route
from meshfold.core.errors import MeshfoldError
from meshfold.core.stores import EventLog, Keyspace, SnapshotStore

__all__ = ("STORE_TARGETS",)

Parts = tuple[str, tuple[bytes, ...], Callable[[bytes], str]]
LEVEL = route("tank-2", "water", "level", schema=Schema.int())
#: Where a change lies, and how many bytes of it: the input of `keyspace_files` is a list of these.
_CHANGE = struct.Struct(">IB")


def _word(error: MeshfoldError) -> str:
    return f"{error.code}:{''.join(c for c in str(error) if c.isalpha() or c == ' ')[-50:]}"


def _scratch() -> Path:
    # In memory where there is such a place: what is looked for is no fault of a disk.
    shared = Path("/dev/shm")
    return Path(tempfile.mkdtemp(prefix="fuzz-", dir=shared if shared.is_dir() else None))


def _segments(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix not in (".lock",) and path.stat().st_size)


def event_log_files() -> Parts:
    """The newest file of a log."""
    scratch = _scratch()
    honest = scratch / "honest"
    graph = Graph(name="w", producer=b"producer", incarnation=b"incarnat")
    with EventLog(honest, LEVEL, segment_bytes=600) as log:
        for number in range(12):
            log.append(graph.publish(LEVEL, number, key=f"k{number}", correlation="c"))
        last = log.last
    newest = max(honest.iterdir(), key=lambda path: (path.stat().st_size > 0, path.stat().st_mtime_ns))
    seed = newest.read_bytes()
    copy = scratch / "copy"

    def run(data: bytes) -> str:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(honest, copy)
        (copy / newest.name).write_bytes(data)
        try:
            with EventLog(copy, LEVEL, segment_bytes=600) as log:
                found = [event.value for _, event in log.records()]
                more = log.append(graph.publish(LEVEL, 99))
            with EventLog(copy, LEVEL, mode="read") as log:
                again = [event.value for _, event in log.records()]
        except MeshfoldError as error:
            return _word(error)
        if found != list(range(len(found))):
            raise AssertionError(f"read what was never written: {found}")
        if again != [*found, 99] or more != len(found) + 1:
            raise AssertionError(f"what was appended behind a torn tail is not there: {again}")
        return f"cut to {len(found)} of {last}"

    return "event log files", (seed, seed[:-7], seed[: len(seed) // 2], b""), run


def keyspace_files() -> Parts:
    """A keyspace whose file was changed in places."""
    scratch = _scratch()
    honest = scratch / "honest"
    written = {f"k{number}": bytes([number]) * 40 * number for number in range(40)}
    with Keyspace(honest) as store:
        for key, value in written.items():
            store.put(key, value)
    whole = honest.read_bytes()
    copy = scratch / "copy"

    def patched(data: bytes) -> bytes:
        out, at = bytearray(whole), 0
        while at + _CHANGE.size < len(data):
            place, size = _CHANGE.unpack_from(data, at)
            at += _CHANGE.size
            piece = data[at : at + size]
            at += size
            place %= len(out)
            if size == 255:
                del out[place:]
                if not out:
                    break
            else:
                out[place : place + len(piece)] = piece
        return bytes(out)

    def run(data: bytes) -> str:
        copy.write_bytes(patched(data))
        try:
            with Keyspace(copy) as store:
                for entry in store.scan():
                    if len(entry.value) > 64 * 1024 * 1024:
                        raise AssertionError("a value larger than a value can be")
                store.put("after", b"damage")
                if store.get("after") != b"damage":
                    raise AssertionError("what was written is not there")
        except MeshfoldError as error:
            return _word(error)
        return ""

    def change(place: int, piece: bytes) -> bytes:
        return _CHANGE.pack(place, len(piece)) + piece

    seeds = (
        change(0, b"redb"),
        change(64, b"\0" * 16) + change(128, b"\xff" * 8),
        change(4096, bytes(64)),
        change(len(whole) // 2, b"\x01\x02\x03"),
        _CHANGE.pack(len(whole) // 2, 255) + b"x",
    )
    return "keyspace files", seeds, run


def snapshots() -> Parts:
    """What lies in a keyspace where a snapshot should be."""
    scratch = _scratch()
    store = Keyspace(scratch / "k")
    taken = SnapshotStore(store, LEVEL)
    taken.write(7, 0)
    place = store.prefix("snapshot")
    seed = place.get(LEVEL.address)
    if seed is None:
        raise AssertionError("a snapshot that is not where it is looked for")

    def run(data: bytes) -> str:
        place.put(LEVEL.address, data)
        try:
            found = taken.latest()
        except MeshfoldError as error:
            return _word(error)
        if found is None or not isinstance(found.value, int):
            raise AssertionError("a snapshot that is no value of its route")
        return ""

    return "snapshots", (seed,), run


STORE_TARGETS: dict[str, Callable[[], Parts]] = {
    "event-log-files": event_log_files,
    "keyspace-files": keyspace_files,
    "snapshots": snapshots,
}

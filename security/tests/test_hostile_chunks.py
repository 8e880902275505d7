"""Hostile chunks: row HW35. A hundred variants, counter and state asserted; what is under way stays bounded."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator

import pytest
from hostile import ANY_REASON, VARIANTS, Row
from meshfold.core.errors import TooLarge
from meshfold.core.registry import FrameKind
from meshfold.security.chunks import (
    CHUNK_BYTES,
    CHUNKS_MAX,
    OPEN_BYTES_MAX,
    OPEN_MAX,
    OPEN_OF_ONE_MAX,
    Chunk,
    Reassembly,
    cut,
)
from parties import NOW_MS, SECRET, Mesh

LARGE = CHUNK_BYTES * 2 + 1000


@pytest.fixture
def mesh() -> Mesh:
    """A mesh of its own for each test."""
    return Mesh()


def chunk(
    mesh: Mesh, index: int, count: int, digest: bytes, part: bytes, *, last: bool, seq: int = 50
) -> bytes:
    """One chunk of an owner that says what it likes."""
    place = struct.pack(">II32s", index, count, digest)
    return mesh.edge.seal(meta=place, payload=part, kind=FrameKind.CHUNK, last=last, first_seq=seq).whole()


def sealed(mesh: Mesh, meta: bytes, payload: bytes, seq: int = 1) -> list[bytes]:
    """The honest chunks of a large event."""
    frames = mesh.edge.sealer.chunks(
        SECRET,
        meta=meta,
        payload=payload,
        schema_id=b"s" * 8,
        first_seq=seq,
        count=1,
        hlc=NOW_MS << 16,
        policy_epoch=0,
    )
    return [frame.whole() for frame in frames]


def test_a_large_event_comes_whole_in_any_order_and_once(mesh: Mesh) -> None:
    payload, opener = os.urandom(LARGE), mesh.hub.opener
    frames = sealed(mesh, b"the metadata", payload)
    assert len(frames) == 3
    row = Row(mesh)
    row.rng.shuffle(frames)
    opened = [opener.open_events("d", SECRET, raw) for raw in frames]
    assert [one.partial for one in opened] == [True, True, False]
    assert (opened[-1].meta, opened[-1].payload) == (b"the metadata", payload)
    assert len(opener.chunks) == 0
    row.refuses(frames * 40, "replay")
    with pytest.raises(TooLarge):
        cut(b"", bytes(CHUNK_BYTES * CHUNKS_MAX))


def lies(mesh: Mesh, digest: bytes) -> Iterator[bytes]:
    """Chunks that cannot be one, beside an honest beginning of a whole of three."""
    full = bytes(CHUNK_BYTES)
    for by in range(VARIANTS // 4):
        yield chunk(mesh, 3 + by, 3, digest, b"beyond", last=False)
        yield chunk(mesh, 0, CHUNKS_MAX + 1 + by, digest, full, last=False)
        yield chunk(mesh, 1, 4 + by, digest, full, last=False)
        yield chunk(mesh, 1, 3, os.urandom(32), full, last=False)
    yield chunk(mesh, 2, 3, digest, b"not said to be the last", last=False)
    yield chunk(mesh, 1, 3, digest, full, last=True)
    yield chunk(mesh, 1, 3, digest, full[:-1], last=False)
    yield chunk(mesh, 1, 3, digest, full + b"x", last=False)
    yield chunk(mesh, 2, 3, digest, b"", last=True)
    yield chunk(mesh, 0, 3, digest, full, last=False)
    yield chunk(mesh, 0, 0, digest, full, last=True)


def test_hw35_a_chunk_that_does_not_fit_is_refused_and_the_whole_goes_on(mesh: Mesh) -> None:
    honest = bytes(4) + os.urandom(CHUNK_BYTES * 2)
    digest = hashlib.sha256(honest).digest()
    parts = [honest[at : at + CHUNK_BYTES] for at in range(0, len(honest), CHUNK_BYTES)]
    opener, row = mesh.hub.opener, Row(mesh)
    assert opener.open_events("d", SECRET, chunk(mesh, 0, 3, digest, parts[0], last=False)).partial
    assert row.refuses(lies(mesh, digest), "chunk") >= VARIANTS
    short = mesh.edge.seal(meta=b"no place", payload=b"x", kind=FrameKind.CHUNK, first_seq=51).whole()
    row.refuses([short], "chunk")
    row.refuses(
        (row.flipped(chunk(mesh, 1, 3, digest, b"x" * 64, last=False)) for _ in range(VARIANTS)),
        *ANY_REASON,
        "chunk",
    )
    for index in (1, 2):
        found = opener.open_events("d", SECRET, chunk(mesh, index, 3, digest, parts[index], last=index == 2))
    assert found.payload == honest[4:]


def test_hw35_a_whole_that_is_not_what_its_chunks_said_is_refused_and_gone(mesh: Mesh) -> None:
    opener = mesh.hub.opener
    for number in range(VARIANTS):
        seq = 10 + number
        wrong = os.urandom(32)
        raw = chunk(mesh, 0, 1, wrong, os.urandom(99), last=True, seq=seq)
        Row(mesh).refuses([raw], "chunk")
        assert len(opener.chunks) == 0
    long = struct.pack(">I", 1000) + b"metadata beyond the whole"
    Row(mesh).refuses([chunk(mesh, 0, 1, hashlib.sha256(long).digest(), long, last=True, seq=500)], "chunk")


def test_hw35_ten_thousand_wholes_under_way_stay_bounded(mesh: Mesh) -> None:
    chunks, part = Reassembly(), bytes(CHUNK_BYTES)
    for number in range(10_000):
        sender = struct.pack(">Q", number % 100)
        place = struct.pack(">II32s", 0, 2, struct.pack(">Q", number) * 4)
        assert chunks.add((b"route", sender, b"life", number), Chunk(place, part, False)) is None
        assert len(chunks) <= OPEN_MAX
        assert chunks._size_bytes == sum(one.size_bytes for one in chunks._open.values()) <= OPEN_BYTES_MAX
        mine = [key for key in chunks._open if key[1] == sender]
        assert len(mine) <= OPEN_OF_ONE_MAX
        assert (b"route", sender, b"life", number) in chunks._open, "the newest has its place"
    assert chunks.evicted == 10_000 - len(chunks)
    # One sender cannot drive out the others.
    several = Reassembly()
    for number in range(1_000):
        sender = b"greedy" if number else b"honest"
        place = struct.pack(">II32s", 0, 2, bytes(32))
        several.add((b"route", sender, b"life", number), Chunk(place, part, False))
    assert (b"route", b"honest", b"life", 0) in several._open


def test_a_chunk_is_none_on_the_metadata_subject_and_an_event_is_never_the_last(mesh: Mesh) -> None:
    row = Row(mesh)
    frame = mesh.edge.seal(meta=bytes(40), payload=b"x", kind=FrameKind.CHUNK)
    row.refuses([frame.meta_only()] * VARIANTS, "kind", form="m")
    row.refuses((mesh.edge.seal(last=True).whole() for _ in range(VARIANTS)), "flags")

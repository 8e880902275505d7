"""Hostile frames, row by row of the table HW: at least a hundred variants each, counter and state asserted."""

from __future__ import annotations

import hashlib
import os
import struct
from unittest import mock

import pytest
import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hostile import ANY_REASON, VARIANTS, Row, refused_as
from meshfold.core import Graph, Schema, route
from meshfold.core.errors import DecodeError, FrameRejected
from meshfold.core.registry import Action, FrameKind
from meshfold.security import Capability, Sealer
from meshfold.security.compress import SECTION_BYTES_MAX, unpack
from meshfold.security.replay import SEQ_GAP_MAX, ReplayGuard
from meshfold.security.seal import SIG_DOMAIN, signed_bytes
from parties import CLUSTER, NOW_MS, OTHER, SECRET, Mesh, Party

HEADER = 96
SIGNATURE = 64
#: Order of the Ed25519 base point (RFC 8032): S of a signature stands below it.
ORDER = 2**252 + 27742317777372353535851937790883648493


@pytest.fixture
def mesh() -> Mesh:
    """A mesh of its own for each test."""
    return Mesh()


@pytest.fixture
def row(mesh: Mesh) -> Row:
    """The reader under attack is the hub, which may open everything."""
    return Row(mesh)


def resigned(party: Party, raw: bytes) -> bytes:
    """The same sections under a header that was changed, signed by a party that lies."""
    header, sections = raw[:HEADER], raw[HEADER:-SIGNATURE]
    (meta_len,) = struct.unpack_from(">I", header, 64)
    digest = hashlib.sha256(sections[meta_len:]).digest()
    return (
        header
        + sections
        + party.keys.sign(SIG_DOMAIN, signed_bytes(SECRET.digest, header, sections[:meta_len], digest))
    )


def test_hw09_an_empty_frame_is_short(row: Row) -> None:
    assert row.refuses([b""] * VARIANTS, "short") == VARIANTS


def test_hw10_every_truncation_is_refused(row: Row, mesh: Mesh) -> None:
    raw = mesh.edge.seal().whole()
    assert row.refuses((raw[:size] for size in range(1, HEADER)), "short", "magic") == HEADER - 1
    assert row.refuses((raw[:size] for size in range(HEADER, len(raw))), "short") >= VARIANTS
    assert row.refuses((os.urandom(row.rng.randrange(96)) for _ in range(VARIANTS)), "short", "magic")


def test_hw11_every_flipped_bit_is_refused(row: Row, mesh: Mesh) -> None:
    raw = mesh.edge.seal().whole()
    flips = (row.changed(raw, bit // 8, raw[bit // 8] ^ 1 << bit % 8) for bit in range(8 * len(raw)))
    accepted = 0
    for frame in flips:
        try:
            mesh.hub.opener.open_events("d", SECRET, frame)
            accepted += 1
        except FrameRejected:
            pass
    assert accepted == 0
    assert mesh.hub.opener.open_events("d", SECRET, raw).payload == b"the payload"
    assert (
        row.refuses([row.flipped(mesh.edge.seal().whole()) for _ in range(VARIANTS)], *ANY_REASON) == VARIANTS
    )


def test_hw12_another_magic_or_version_is_refused(row: Row, mesh: Mesh) -> None:
    raw = mesh.edge.seal().whole()
    row.refuses((row.changed(raw, place, value) for place in (0, 1) for value in range(64)), "magic")
    row.refuses((row.changed(raw, 2, value) for value in range(256) if value != 1), "version")


def test_hw13_a_reserved_flag_is_refused(row: Row, mesh: Mesh) -> None:
    raw = mesh.edge.seal().whole()
    row.refuses(
        (row.changed(mesh.edge.seal().whole(), 3, raw[3] | value) for value in range(256) if value & 0xE0),
        "flags",
    )


def test_hw14_an_unknown_suite_is_refused(row: Row, mesh: Mesh) -> None:
    raw = mesh.edge.seal().whole()
    row.refuses((row.changed(raw, 4, value) for value in range(256) if value != raw[4]), "suite")


def test_hw15_reserved_bytes_and_lengths_past_the_end_are_refused(row: Row, mesh: Mesh) -> None:
    raw = mesh.edge.seal().whole()
    row.refuses((row.changed(raw, 94, *struct.pack(">H", value)) for value in range(1, 1 + VARIANTS)), "ext")
    lengths = [row.rng.randrange(2**16, 2**32) for _ in range(VARIANTS)]
    row.refuses((row.changed(raw, 64, *struct.pack(">I", value)) for value in lengths), "short")
    row.refuses((row.changed(raw, 68, *struct.pack(">I", value)) for value in lengths), "short")
    row.refuses((raw + os.urandom(count) for count in range(1, 1 + VARIANTS)), "ext")


def test_hw17_a_frame_of_one_route_is_refused_on_another(row: Row, mesh: Mesh) -> None:
    row.refuses((mesh.edge.seal(OTHER).whole() for _ in range(VARIANTS)), "route")
    # Its tag made to fit: the signature still names the route it was made for.
    row.refuses((row.changed(mesh.edge.seal(OTHER).whole(), 8, *SECRET.tag) for _ in range(VARIANTS)), "sig")


def test_hw18_a_frame_is_taken_once_in_the_window_and_below_it(row: Row, mesh: Mesh) -> None:
    frames = [mesh.edge.seal().whole() for _ in range(1500)]
    order = frames[-VARIANTS:]
    row.rng.shuffle(order)
    for raw in [*frames[:200], *order]:
        mesh.hub.opener.open_events("d", SECRET, raw)
    row.refuses(order, "replay")
    row.refuses(frames[:200], "replay")
    row.refuses(frames[200:400], "replay")


def test_hw19_sequence_zero_and_the_last_counter_are_refused(row: Row, mesh: Mesh) -> None:
    row.refuses((mesh.edge.seal(first_seq=0).whole() for _ in range(VARIANTS)), "replay")
    row.refuses((mesh.edge.seal(count=0).whole() for _ in range(VARIANTS)), "replay")
    last = (
        row.changed(mesh.edge.seal().whole(), 48, *struct.pack(">Q", 2**64 - 1 - below)) for below in (0, 1)
    )
    row.refuses(last, "limit")
    ends = (mesh.edge.seal(first_seq=2**64 - 1 - by, count=by + 1).whole() for by in range(VARIANTS))
    row.refuses(ends, "limit")
    # The last number there is, once; the windows can still be written and read.
    final = mesh.edge.seal(OTHER, first_seq=2**64 - 2).whole()
    mesh.hub.opener.open_events("d", OTHER, final)
    row.refuses([final] * VARIANTS, "replay", address=OTHER)
    again = ReplayGuard()
    again.restore(mesh.hub.opener.replay.save(clean=True))
    assert not again.guarded


def test_hw20_a_sequence_jump_beyond_the_limit_is_refused(row: Row, mesh: Mesh) -> None:
    """A smaller jump is the sender's word, under its signature; what it skips is counted as lost (S43)."""
    mesh.hub.opener.open_events("d", SECRET, mesh.edge.seal(first_seq=2**20).whole())
    start = 2**20 + SEQ_GAP_MAX
    row.refuses((mesh.edge.seal(first_seq=start + by).whole() for by in range(1, 1 + VARIANTS)), "gap")
    row.refuses((mesh.edge.seal(first_seq=2**40 + by).whole() for by in range(VARIANTS)), "gap")
    mesh.hub.opener.open_events("d", SECRET, mesh.edge.seal(first_seq=start - 1).whole())


@pytest.mark.parametrize(
    ("at_ms", "reason"), [(NOW_MS + 315_360_000_000, "clock"), (0, "clock"), (NOW_MS - 40_000, "age")]
)
def test_hw23_a_clock_of_another_time_is_refused(row: Row, mesh: Mesh, at_ms: int, reason: str) -> None:
    row.refuses((mesh.edge.seal(hlc=(at_ms << 16) + low).whole() for low in range(VARIANTS)), reason)


def test_hw24_a_stripped_signature_is_refused(row: Row, mesh: Mesh) -> None:
    def stripped() -> bytes:
        raw = mesh.edge.seal().whole()
        return row.changed(raw, 3, raw[3] & ~8)

    row.refuses((stripped() for _ in range(VARIANTS)), "unsigned")
    row.refuses((stripped()[:-SIGNATURE] for _ in range(VARIANTS)), "unsigned")


def test_hw25_the_signature_of_another_member_is_refused(row: Row, mesh: Mesh) -> None:
    row.refuses((resigned(mesh.hub, mesh.edge.seal().whole()) for _ in range(VARIANTS)), "sig")


def test_hw26_a_non_canonical_signature_is_refused(row: Row, mesh: Mesh) -> None:
    def stretched() -> bytes:
        raw = mesh.edge.seal().whole()
        s = int.from_bytes(raw[-32:], "little") + ORDER
        return raw[:-32] + s.to_bytes(32, "little")

    row.refuses((stretched() for _ in range(VARIANTS)), "sig")


def test_hw27_a_cut_tag_is_refused(row: Row, mesh: Mesh) -> None:
    def cut(raw: bytes) -> bytes:
        meta_len, payload_len = struct.unpack_from(">II", raw, 64)
        header = raw[:68] + struct.pack(">I", payload_len - 4) + raw[72:HEADER]
        return resigned(mesh.edge, header + raw[HEADER : HEADER + meta_len + payload_len - 4] + bytes(64))

    row.refuses((cut(mesh.edge.seal().whole()) for _ in range(VARIANTS)), "tag")
    row.refuses((mesh.edge.seal().whole()[:-4] for _ in range(VARIANTS)), "short")


def test_hw28_a_section_under_another_key_of_the_same_frame_is_refused(row: Row, mesh: Mesh) -> None:
    """A salamander opens under two keys. Whoever makes one cannot commit to both: kc stands in the associated data."""

    def under_another_key() -> bytes:
        raw = mesh.edge.seal().whole()
        (meta_len,) = struct.unpack_from(">I", raw, 64)
        sealed = AESGCM(os.urandom(32)).encrypt(
            bytes(12), b"x" * (len(raw) - HEADER - meta_len - 80), raw[:96]
        )
        return resigned(mesh.edge, raw[: HEADER + meta_len] + sealed + bytes(64))

    row.refuses((under_another_key() for _ in range(VARIANTS)), "tag")


def bombs() -> list[bytes]:
    """Compressed sections that are not what they say."""
    honest = zstandard.ZstdCompressor().compress(b"x" * 5000)
    huge = zstandard.ZstdCompressor(level=19).compress(bytes(64 * 1024 * 1024))
    assert len(huge) < 10_000
    sizeless = zstandard.ZstdCompressor(write_content_size=False).compress(b"x" * 5000)
    claimed = b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 2**50) + honest[7:]
    window = b"\x28\xb5\x2f\xfd\x80\xf8" + struct.pack("<I", 5000) + honest[7:]
    keyed = b"\x28\xb5\x2f\xfd\x63\x01\x00\x00\x00\x88\x12" + honest[7:]
    return [
        *(huge, sizeless, claimed, window, keyed, honest + b"x", honest * 2, honest[:-1], b"", b"x"),
        *(honest + os.urandom(size) for size in range(1, 1 + VARIANTS)),
    ]


def test_hw31_to_hw33_a_compressed_section_is_bounded_whole_and_alone(row: Row, mesh: Mesh) -> None:
    for data in bombs():
        assert refused_as(lambda data=data: unpack(data)) == "inflate"  # type: ignore[misc]
    assert len(unpack(zstandard.ZstdCompressor().compress(bytes(SECTION_BYTES_MAX)))) == SECTION_BYTES_MAX
    frames = [_with_section(mesh, data) for data in bombs() if data]
    assert row.refuses(frames, "inflate") >= VARIANTS


def _with_section(mesh: Mesh, compressed: bytes) -> bytes:
    """A frame of a lying owner whose payload section is said to be compressed."""
    with mock.patch(
        "meshfold.security.seal.pack", lambda data: compressed if data.startswith(b"the payload") else data
    ):
        return mesh.edge.seal(payload=b"the payload" + bytes(len(compressed)), compress=True).whole()


def test_hw34_a_batch_that_is_none_changes_nothing() -> None:
    graph = Graph()
    r = route("edge", "vault", "secret", schema=Schema.str())
    inlet = graph.inlet(r, name="bridge")
    source = Graph()
    tap = source.tap(r, capacity=8)
    source.publish(r, "honest")
    batch = tap.drain(8, 1 << 20)
    assert batch is not None
    row = [
        (batch.meta[:place] + bytes([value]) + batch.meta[place + 1 :], batch.payload)
        for place in range(3)
        for value in range(128, 256)
    ]
    row += [(b"\x01\xff\xff\xff\xff\x0f\x01", b"\x01\xff\xff\xff\xff\x0f"), (b"\x01\x00\x01", b"\x01\x00")]
    row += [(batch.meta[:cut], batch.payload) for cut in range(len(batch.meta))]
    row += [(batch.meta, batch.payload[:cut]) for cut in range(len(batch.payload))]
    for meta, payload in row:
        with pytest.raises(DecodeError):
            inlet.push(meta, payload, producer=b"p" * 8, incarnation=b"i" * 8)
        assert inlet.counters() == []
    inlet.push(batch.meta, batch.payload, producer=b"p" * 8, incarnation=b"i" * 8)
    latest = graph.latest(r)
    assert latest is not None and latest.value == "honest"


def test_a_kind_that_is_no_event_is_refused(row: Row, mesh: Mesh) -> None:
    row.refuses(
        (row.changed(mesh.edge.seal().whole(), 5, value) for value in range(256) if value not in (1, 7)),
        "kind",
    )
    # A chunk is one of its owner: the kind stands under the signature.
    row.refuses((row.changed(mesh.edge.seal().whole(), 5, 7) for _ in range(VARIANTS)), "sig")


def test_a_member_that_does_not_own_the_route_is_refused(row: Row, mesh: Mesh) -> None:
    row.refuses((mesh.hub.seal().whole() for _ in range(VARIANTS)), "role")


def test_a_sender_that_nobody_knows_is_refused(row: Row, mesh: Mesh) -> None:
    row.refuses(
        (row.changed(mesh.edge.seal().whole(), 16, *os.urandom(8)) for _ in range(VARIANTS)), "member"
    )


def test_a_revoked_sender_is_refused_at_once(mesh: Mesh) -> None:
    from meshfold.security import Policy

    other = Party(mesh, "second", Capability(Action.OWN, SECRET.text))
    row = Row(mesh)
    mesh.book.set_policy(Policy(1, frozenset({other.grant.hash})))
    row.refuses((other.seal(policy_epoch=0).whole() for _ in range(VARIANTS)), "revoked")


def test_what_a_checkpoint_covered_before_a_revocation_is_taken_and_nothing_more(mesh: Mesh) -> None:
    from meshfold.security import Policy

    other = Party(mesh, "second", Capability(Action.OWN, SECRET.text))
    life = b"second--"
    under_way = [other.seal().whole() for _ in range(VARIANTS)]
    opener = mesh.hub.opener
    opener.checkpoint(other.identity.tag, life, {SECRET: other.sealer.standing(SECRET)})
    after = [other.seal().whole() for _ in range(VARIANTS)]
    mesh.book.set_policy(Policy(1, frozenset({other.grant.hash})))
    # The revoked producer says that it had sent much more before.
    opener.checkpoint(other.identity.tag, life, {SECRET: (7, 2**40)})
    for raw in under_way:
        assert opener.open_events("d", SECRET, raw).payload == b"the payload"
    row = Row(mesh)
    row.refuses(under_way, "replay")
    row.refuses(after, "revoked")
    row.refuses((other.seal(hlc=(NOW_MS - 20_000) << 16).whole() for _ in range(VARIANTS)), "revoked")
    # Another life of it, and another route, were never covered.
    other.sealer = Sealer(other.keys, CLUSTER, b"another-", other.keyring)
    row.refuses((other.seal().whole() for _ in range(VARIANTS)), "revoked")


def test_control_frames_are_refused_row_by_row(mesh: Mesh) -> None:
    row = Row(mesh)

    def box() -> bytes:
        return mesh.edge.sealer.seal_box(
            FrameKind.QUERY, mesh.hub.identity, b"question", hlc=NOW_MS << 16, policy_epoch=0, subject="q"
        )

    for _ in range(VARIANTS):
        raw = row.flipped(box())
        before = sum(mesh.hub.opener.counters().values())
        found = refused_as(lambda raw=raw: mesh.hub.opener.open_box(raw, "q"))  # type: ignore[misc]
        assert found in (*ANY_REASON, "address", "unwrap")
        assert sum(mesh.hub.opener.counters().values()) == before + 1
    assert mesh.hub.opener.open_box(box(), "q").body == b"question"

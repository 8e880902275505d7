"""Frames, grants and keys between two parties without a network."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from meshfold.core import Address
from meshfold.core.errors import (
    ConfigError,
    FrameRejected,
    GrantDenied,
    GrantExpired,
    GrantRevoked,
    KeyMissing,
)
from meshfold.core.registry import Action, FrameKind
from meshfold.security import (
    Capability,
    Grant,
    Identity,
    NodeKeys,
    Policy,
    check_ed25519_public,
    check_x25519_public,
    covers,
)
from parties import CLUSTER, NOW_MS, OTHER, SECRET, Mesh


@pytest.fixture(scope="module")
def mesh() -> Mesh:
    """One mesh for all tests of this file; frames are fresh in each."""
    return Mesh()


def sealed(mesh: Mesh, address: Address = SECRET, **changes: Any) -> Any:
    """A frame of the edge."""
    return mesh.edge.seal(address, **changes)


def reason(work: Any) -> str:
    """Why it was refused."""
    with pytest.raises(FrameRejected) as caught:
        work()
    return caught.value.reason


def test_a_reader_opens_what_its_grants_allow(mesh: Mesh) -> None:
    frame = sealed(mesh)
    opened = mesh.hub.opener.open_events("d", SECRET, frame.whole())
    assert (opened.meta, opened.payload, opened.sender.name) == (b"the metadata", b"the payload", "edge")
    opened = mesh.meta.opener.open_events("m", SECRET, frame.meta_only())
    assert (opened.meta, opened.payload) == (b"the metadata", None)
    with pytest.raises(KeyMissing):
        mesh.meta.opener.open_events("d", SECRET, frame.whole())
    with pytest.raises(KeyMissing):
        mesh.outsider.opener.open_events("d", SECRET, frame.whole())


def test_nothing_of_the_content_is_in_the_frame(mesh: Mesh) -> None:
    frame = sealed(mesh)
    assert b"metadata" not in frame.whole()
    assert b"payload" not in frame.whole()


def test_compressed_sections_come_back(mesh: Mesh) -> None:
    frame = sealed(mesh, meta=b"m" * 5000, payload=b"p" * 50_000, compress=True)
    assert len(frame.whole()) < 2000
    opened = mesh.hub.opener.open_events("d", SECRET, frame.whole())
    assert (opened.meta, opened.payload) == (b"m" * 5000, b"p" * 50_000)


def test_a_frame_is_taken_once_and_only_on_its_route(mesh: Mesh) -> None:
    raw = sealed(mesh).whole()
    assert reason(lambda: mesh.hub.opener.open_events("d", OTHER, raw)) == "route"
    mesh.hub.opener.open_events("d", SECRET, raw)
    assert reason(lambda: mesh.hub.opener.open_events("d", SECRET, raw)) == "replay"


def test_every_flipped_bit_and_every_truncation_is_refused(mesh: Mesh) -> None:
    raw = sealed(mesh).whole()
    for place in range(len(raw)):
        altered = bytearray(raw)
        altered[place] ^= 1 << (place % 8)
        with pytest.raises((FrameRejected, KeyMissing)):
            mesh.hub.opener.open_events("d", SECRET, bytes(altered))
        with pytest.raises(FrameRejected):
            mesh.hub.opener.open_events("d", SECRET, raw[:place])
    assert mesh.hub.opener.open_events("d", SECRET, raw).payload == b"the payload"


def test_a_member_without_own_cannot_publish(mesh: Mesh) -> None:
    forged = mesh.hub.sealer.events(
        SECRET,
        schema_id=b"s" * 8,
        first_seq=1,
        count=1,
        meta=b"m",
        payload=b"p",
        hlc=NOW_MS << 16,
        policy_epoch=0,
    )
    assert reason(lambda: mesh.hub.opener.open_events("d", SECRET, forged.whole())) == "role"


@pytest.mark.parametrize(
    ("hlc_ms", "expected"), [(NOW_MS + 61_000, "clock"), (0, "clock"), (NOW_MS - 31_000, "age")]
)
def test_frames_of_another_time_are_refused(mesh: Mesh, hlc_ms: int, expected: str) -> None:
    raw = sealed(mesh, hlc=hlc_ms << 16).whole()
    assert reason(lambda: mesh.hub.opener.open_events("d", SECRET, raw)) == expected


def test_plaintext_needs_a_declaration_on_the_readers_side(mesh: Mesh) -> None:
    frame = mesh.edge.sealer.events(
        OTHER,
        secrecy="none",
        schema_id=b"s" * 8,
        first_seq=1,
        count=1,
        meta=b"m",
        payload=b"p",
        hlc=NOW_MS << 16,
        policy_epoch=0,
    )
    assert reason(lambda: mesh.hub.opener.open_events("d", OTHER, frame.whole())) == "flags"
    assert mesh.hub.opener.open_events("d", OTHER, frame.whole(), allow_plain=True).payload == b"p"


def test_a_box_opens_for_its_recipient_on_its_subject_once(mesh: Mesh) -> None:
    box = mesh.edge.sealer.seal_box(
        FrameKind.QUERY, mesh.hub.identity, b"question", hlc=NOW_MS << 16, policy_epoch=0, subject="q.hub"
    )
    assert reason(lambda: mesh.meta.opener.open_box(box, "q.hub")) == "address"
    assert reason(lambda: mesh.hub.opener.open_box(box, "q.other")) == "sig"
    assert mesh.hub.opener.open_box(box, "q.hub").body == b"question"
    assert reason(lambda: mesh.hub.opener.open_box(box, "q.hub")) == "replay"


def test_members_frames_open_for_members_only(mesh: Mesh) -> None:
    raw = mesh.edge.sealer.seal_members(
        FrameKind.HEARTBEAT, b"beat", hlc=NOW_MS << 16, policy_epoch=0, subject="h.edge"
    )
    assert mesh.hub.opener.open_members(raw, "h.edge").body == b"beat"
    with pytest.raises(KeyMissing):
        mesh.outsider.opener.open_members(raw, "h.edge")


def test_a_key_packet_is_for_one_node_and_from_a_voter(mesh: Mesh) -> None:
    packet, voters = mesh.packet(mesh.hub), mesh.voters
    assert reason(lambda: mesh.outsider.keyring.install(packet, voters)) == "unwrap"
    assert reason(lambda: mesh.hub.keyring.install(packet, {})) == "member"
    altered = packet[:40] + bytes([packet[40] ^ 1]) + packet[41:]
    assert reason(lambda: mesh.hub.keyring.install(altered, voters)) == "sig"


def test_a_denial_names_what_would_allow_it(mesh: Mesh) -> None:
    with pytest.raises(
        GrantDenied, match="outsider may not META_READ edge/vault/secret.*meshfold grant issue"
    ):
        mesh.book.require(mesh.outsider.identity.tag, Action.META_READ, SECRET)


def test_a_revoked_grant_no_longer_holds() -> None:
    mesh = Mesh()
    mesh.book.set_policy(Policy(1, frozenset({mesh.hub.grant.hash})))
    with pytest.raises(GrantRevoked):
        mesh.book.require(mesh.hub.identity.tag, Action.META_READ, SECRET)
    with pytest.raises(FrameRejected):
        mesh.book.set_policy(Policy(0, frozenset()))


def test_an_expired_grant_no_longer_holds_and_the_denial_says_so() -> None:
    mesh = Mesh()
    mesh.book.require(mesh.hub.identity.tag, Action.META_READ, SECRET)
    mesh.clock.ms = mesh.hub.grant.not_after_ms + 60_000
    with pytest.raises(GrantExpired, match="expired") as denied:
        mesh.book.require(mesh.hub.identity.tag, Action.META_READ, SECRET)
    assert denied.value.code == "security.grant_expired"


def test_any_flipped_bit_in_a_grant_is_refused(mesh: Mesh) -> None:
    raw = mesh.hub.grant.raw
    rng = random.Random(7)
    for place in range(len(raw)):
        altered = bytearray(raw)
        altered[place] ^= 1 << rng.randrange(8)
        with pytest.raises(FrameRejected):
            Grant.parse(bytes(altered)).verify(
                cluster=CLUSTER, roots=frozenset({mesh.authority.grant_pub}), now_ms=NOW_MS
            )


def test_any_flipped_bit_in_an_identity_is_refused(mesh: Mesh) -> None:
    raw = mesh.hub.identity.raw
    for place in range(len(raw)):
        altered = bytearray(raw)
        altered[place] ^= 1 << (place % 8)
        with pytest.raises(FrameRejected):
            Identity.parse(bytes(altered)).verify(
                cluster=CLUSTER, issuers=frozenset({mesh.authority.identity_pub}), now_ms=NOW_MS
            )


@pytest.mark.parametrize(
    "raw", [bytes([1]) + bytes(31), bytes(32), (2**255 - 19 + 1).to_bytes(32, "little"), b"short"]
)
def test_weak_keys_are_refused(raw: bytes) -> None:
    assert reason(lambda: check_ed25519_public(raw)) == "key"
    assert reason(lambda: check_x25519_public(raw)) == "key"


def test_the_points_of_small_order_are_points_of_small_order() -> None:
    """The list is arithmetic, not memory: x^2 = (y^2 - 1) / (d y^2 + 1) has a solution, and 8 P = 0."""
    p = 2**255 - 19
    d = -121665 * pow(121666, p - 2, p) % p
    from meshfold.security import keys

    def add(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
        (x1, y1), (x2, y2) = a, b
        k = d * x1 * x2 * y1 * y2 % p
        return (
            (x1 * y2 + x2 * y1) * pow(1 + k, p - 2, p) % p,
            (y1 * y2 + x1 * x2) * pow(1 - k, p - 2, p) % p,
        )

    for y in keys._SMALL_ORDER_Y:
        square = (y * y - 1) * pow(d * y * y + 1, p - 2, p) % p
        x = pow(square, (p + 3) // 8, p)
        if (x * x - square) % p:
            x = x * pow(2, (p - 1) // 4, p) % p
        assert (x * x - square) % p == 0
        point = (x, y)
        for _ in range(3):
            point = add(point, point)
        assert point == (0, 1)


def test_key_files_of_others_eyes_are_refused(tmp_path: Path) -> None:
    keys = NodeKeys.generate()
    keys.save(tmp_path)
    assert NodeKeys.load(tmp_path).tag == keys.tag
    (tmp_path / "sign.key").chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        NodeKeys.load(tmp_path)
    assert "REDACTED" in repr(keys)


tokens = st.lists(st.sampled_from(["read", "logical", "a", "b"]), min_size=6, max_size=6)
patterns = st.tuples(tokens, st.integers(0, 6)).map(
    lambda drawn: ".".join([*drawn[0][: drawn[1]], ">"]) if drawn[1] < 6 else ".".join(drawn[0])
)


@given(patterns, patterns, tokens, st.integers(1, 1023), st.integers(1, 1023))
def test_what_is_covered_never_allows_more(
    parent: str, child: str, address: list[str], above: int, below: int
) -> None:
    from meshfold.security.capability import pattern_covers

    wide, narrow = Capability(Action(above), parent), Capability(Action(below), child)
    if covers(wide, narrow):
        assert below & ~above == 0
        text = ".".join(address)
        assert not pattern_covers(child, text) or pattern_covers(parent, text)

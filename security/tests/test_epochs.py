"""Key epochs between parties without a network: rotation, revocation, overlap, commitment, shredding."""

from __future__ import annotations

import os
import random
import struct

import pytest
from hostile import VARIANTS, Row, refused_as
from meshfold.core import Address
from meshfold.core.errors import FrameRejected, KeyMissing
from meshfold.core.registry import Action, FrameKind
from meshfold.security import (
    Capability,
    Epochs,
    EventFrame,
    Keyring,
    KeyStore,
    KeyTree,
    Raise,
    Sealer,
    WrapRecord,
)
from meshfold.security.epochs import EPOCH_MAX, OUTSIDE, OVERLAP_MS, ZERO, unpack_vector
from meshfold.security.frame import Header
from meshfold.security.key_tree import commitment
from parties import CLUSTER, NOW_MS, OTHER, SECRET, Mesh, Party

READ = Action.META_READ | Action.PAYLOAD_OPEN
FAMILY = SECRET.tokens[:4]


@pytest.fixture
def mesh() -> Mesh:
    """A mesh of its own for each test."""
    return Mesh()


def install(mesh: Mesh, *parties: Party) -> None:
    """The voter's packet and record reach these."""
    for party in parties:
        party.keyring.install(mesh.packet(party), mesh.voters)
        party.keyring.set_epochs(mesh.epochs, 1, mesh.clock.ms)


def test_after_a_rotation_the_old_key_opens_nothing_new(mesh: Mesh) -> None:
    before = mesh.edge.seal()
    mesh.rotate(SECRET.tokens)
    install(mesh, mesh.edge, mesh.meta)
    frame = mesh.edge.seal().whole()
    assert unpack_vector(frame[80:94]) == (0, 0, 0, 0, 0, 0, 1)
    # The hub holds the root, so it can derive the key; it learns from the record that it may.
    with pytest.raises(KeyMissing) as caught:
        mesh.hub.opener.open_events("d", SECRET, frame)
    assert caught.value.because == "epoch"
    assert mesh.hub.opener.counters() == {}
    mesh.hub.keyring.set_epochs(mesh.epochs, 1, mesh.clock.ms)
    assert mesh.hub.opener.open_events("d", SECRET, frame).payload == b"the payload"
    assert mesh.hub.opener.open_events("d", SECRET, before.whole()).payload == b"the payload"


def test_whoever_holds_only_the_old_key_of_a_raised_node_cannot_derive_the_new(mesh: Mesh) -> None:
    narrow = Party(mesh, "narrow", Capability(READ, SECRET.text))
    wide = Party(mesh, "wide", Capability(READ, "read.logical.edge.>"))
    for party in (narrow, wide):
        assert party.opener.open_events("d", SECRET, mesh.edge.seal().whole()).payload
    mesh.rotate(FAMILY)
    install(mesh, mesh.edge)
    frame = mesh.edge.seal().whole()
    for party in (narrow, wide):
        party.keyring.set_epochs(mesh.epochs, 1, mesh.clock.ms)
    # The one above derives; the one below got nothing and can do nothing.
    assert wide.opener.open_events("d", SECRET, frame).payload == b"the payload"
    with pytest.raises(KeyMissing):
        narrow.opener.open_events("d", SECRET, frame)
    install(mesh, narrow)
    assert narrow.opener.open_events("d", SECRET, frame).payload == b"the payload"


def test_raising_a_node_sets_those_below_to_zero() -> None:
    epochs = Epochs()
    for path in (SECRET.tokens, SECRET.tokens, FAMILY, SECRET.tokens, ()):
        node, vector = epochs.next_of(path)
        epochs = epochs.with_raise(Raise(node, vector[-1], NOW_MS, 0, above=vector[:-1]), NOW_MS)
    line = [vector for _, vector in epochs.timeline(SECRET.tokens)]
    assert line == [
        ZERO,
        (0, 0, 0, 0, 0, 0, 1),
        (0, 0, 0, 0, 0, 0, 2),
        (0, 0, 0, 0, 1, 0, 0),
        (0, 0, 0, 0, 1, 0, 1),
        (1, 0, 0, 0, 0, 0, 0),
    ]


def test_a_node_at_its_last_epoch_raises_its_parent() -> None:
    last = Raise(SECRET.tokens, EPOCH_MAX, NOW_MS, 0, above=(0,) * 6)
    node, vector = Epochs((last,)).next_of(SECRET.tokens)
    assert (node, vector) == (SECRET.tokens[:5], (0, 0, 0, 0, 0, 1))
    full = Epochs((Raise((), EPOCH_MAX, NOW_MS, 0),))
    assert refused_as(lambda: full.next_of(())) == "epoch"


def test_an_announced_epoch_begins_when_it_says(mesh: Mesh) -> None:
    mesh.rotate(FAMILY, in_ms=500)
    install(mesh, mesh.edge, mesh.hub)
    assert unpack_vector(mesh.edge.seal().whole()[80:94]) == ZERO
    mesh.clock.ms += 500
    assert unpack_vector(mesh.edge.seal().whole()[80:94]) == (0, 0, 0, 0, 1, 0, 0)


def test_the_old_epoch_is_taken_during_the_overlap_and_refused_after_it(mesh: Mesh) -> None:
    late = Party(mesh, "late", Capability(Action.OWN, SECRET.text))
    mesh.rotate(FAMILY)
    install(mesh, mesh.edge, mesh.hub)
    # `late` was cut off and goes on under the old epoch.
    assert mesh.hub.opener.open_events("d", SECRET, late.seal().whole()).payload == b"the payload"
    mesh.clock.ms += OVERLAP_MS + 1
    row = Row(mesh)
    row.refuses((late.seal().whole() for _ in range(VARIANTS)), "epoch")
    backdated = (late.seal(hlc=(mesh.clock.ms - 20_000) << 16).whole() for _ in range(VARIANTS))
    row.refuses(backdated, "epoch")


def test_hw29_unknown_and_far_epochs_are_refused_without_trying_a_key(mesh: Mesh) -> None:
    row = Row(mesh)

    def named(vector: tuple[int, ...]) -> bytes:
        raw = mesh.edge.seal().whole()
        return raw[:80] + struct.pack(">7H", *vector) + raw[94:]

    far: list[bytes] = []
    while len(far) < VARIANTS:
        vector = tuple(row.rng.randrange(4) for _ in range(7))
        changed = [place for place in range(7) if vector[place]]
        if len(changed) > 1 or max(vector) > 1:
            far.append(named(vector))
    row.refuses(far, "epoch")
    # The next epoch of each node may be true: it is looked at further, and the signature does not hold.
    following = [named(tuple(int(place == at) for place in range(7))) for at in range(7)] * 15
    row.refuses(following, "sig")


def test_hk01_to_hk04_weak_and_wrong_keys_are_refused_at_enrolment(mesh: Mesh) -> None:
    rng = random.Random(5)
    p = 2**255 - 19
    weak = [bytes(32), bytes([1]) + bytes(31), (p - 1).to_bytes(32, "little"), p.to_bytes(32, "little")]
    weak += [(p + by).to_bytes(32, "little") for by in range(19)]
    weak += [os.urandom(size) for size in range(200) if size != 32]
    good = mesh.edge.keys
    for raw in weak:
        for name in ("node_pub", "wrap_pub", "login_pub"):
            fields = {"node_pub": good.node_pub, "wrap_pub": good.wrap_pub, "login_pub": good.login_pub}
            fields[name] = raw
            found = refused_as(
                lambda fields=fields: mesh.authority.issue_identity(  # type: ignore[misc]
                    **fields, name="x", roles=(), not_before_ms=0, not_after_ms=rng.randrange(9)
                )
            )
            assert found == "key"


def test_hk05_a_packet_for_another_is_not_unwrapped(mesh: Mesh) -> None:
    for _ in range(VARIANTS):
        packet = mesh.packet(mesh.hub)
        held = mesh.outsider.keyring.held()
        assert refused_as(lambda p=packet: mesh.outsider.keyring.install(p, mesh.voters)) == "unwrap"  # type: ignore[misc]
        readdressed = packet[:8] + mesh.outsider.identity.tag + packet[16:-64]
        signed = readdressed + mesh.voter.keys.sign(b"MF1 keys", readdressed)
        assert refused_as(lambda p=signed: mesh.outsider.keyring.install(p, mesh.voters)) == "unwrap"  # type: ignore[misc]
        assert mesh.outsider.keyring.held() == held


def test_hk06_a_packet_that_no_voter_signed_is_refused(mesh: Mesh) -> None:
    rng = random.Random(7)
    packet = mesh.packet(mesh.hub)
    held = mesh.hub.keyring.held()
    for _ in range(VARIANTS):
        place = rng.randrange(8, len(packet))
        altered = packet[:place] + bytes([packet[place] ^ 1 << rng.randrange(8)]) + packet[place + 1 :]
        found = refused_as(lambda p=altered: mesh.hub.keyring.install(p, mesh.voters))  # type: ignore[misc]
        assert found in ("sig", "short", "format")
        forged = packet[:-64] + mesh.edge.keys.sign(b"MF1 keys", packet[:-64])
        assert refused_as(lambda p=forged: mesh.hub.keyring.install(p, mesh.voters)) == "sig"  # type: ignore[misc]
        stranger = mesh.edge.identity.tag + packet[8:]
        assert refused_as(lambda p=stranger: mesh.hub.keyring.install(p, mesh.voters)) == "member"  # type: ignore[misc]
        assert mesh.hub.keyring.held() == held


def test_hk07_a_second_key_for_one_epoch_is_refused(mesh: Mesh) -> None:
    for _ in range(VARIANTS):
        other = KeyTree.generate(CLUSTER)
        packet = other.packet(mesh.voter.keys, mesh.voter.identity, mesh.hub.identity, mesh.hub.grants, hlc=1)
        held = mesh.hub.keyring.held()
        assert refused_as(lambda p=packet: mesh.hub.keyring.install(p, mesh.voters)) == "commit"  # type: ignore[misc]
        assert mesh.hub.keyring.held() == held
    Row(mesh).traffic_flows()


def test_hk07_a_key_that_a_majority_did_not_commit_to_is_refused(mesh: Mesh) -> None:
    mesh.rotate(())
    fresh = Keyring(mesh.hub.keys, mesh.hub.identity)
    fresh.set_epochs(mesh.epochs, 1, NOW_MS)
    liar = KeyTree.generate(CLUSTER)
    liar.store.draw_roots(1)
    packet = liar.packet(
        mesh.voter.keys,
        mesh.voter.identity,
        mesh.hub.identity,
        mesh.hub.grants,
        hlc=NOW_MS << 16,
        epochs=mesh.epochs,
    )
    assert refused_as(lambda: fresh.install(packet, mesh.voters)) == "commit"
    assert fresh.held() == []
    assert fresh.install(mesh.packet(mesh.hub), mesh.voters) == 2


def test_hk08_a_rollback_to_an_old_epoch_is_refused(mesh: Mesh) -> None:
    old = Epochs()
    for _ in range(3):
        mesh.rotate(FAMILY)
        install(mesh, mesh.edge, mesh.hub)
        mesh.clock.ms += OVERLAP_MS + 1
    mesh.edge.keyring._epochs = old
    mesh.edge.keyring.install(
        mesh.tree.packet(mesh.voter.keys, mesh.voter.identity, mesh.edge.identity, mesh.edge.grants, hlc=0),
        mesh.voters,
    )
    rolled_back = [mesh.edge.seal().whole() for _ in range(VARIANTS)]
    assert unpack_vector(rolled_back[0][80:94]) == ZERO
    mesh.edge.keyring.set_epochs(mesh.epochs, 1, mesh.clock.ms)
    Row(mesh).refuses(rolled_back, "epoch")


def test_hk13_a_subkey_ends_and_the_next_generation_begins(mesh: Mesh) -> None:
    def standing(frame: EventFrame) -> tuple[int, int]:
        mesh.hub.opener.open_events("d", SECRET, frame.whole())
        header = Header.parse(frame.raw_header)
        return header.generation, header.frame_ctr

    keys, ring = mesh.edge.keys, mesh.edge.keyring
    mesh.edge.sealer = Sealer(keys, CLUSTER, b"by frame", ring, limits=(3, 2**20, 100))
    seen = [standing(mesh.edge.seal()) for _ in range(8)]
    assert seen == [(0, 0), (0, 2), (0, 4), (1, 0), (1, 2), (1, 4), (2, 0), (2, 2)]
    assert mesh.edge.sealer.standing(SECRET) == (2, 4)
    mesh.clock.ms += 101
    assert standing(mesh.edge.seal()) == (3, 0)
    two_events = 2 * len(b"the metadata" + b"the payload")
    mesh.edge.sealer = Sealer(keys, CLUSTER, b"by bytes", ring, limits=(9, two_events, 100))
    assert [standing(mesh.edge.seal())[0] for _ in range(5)] == [0, 0, 1, 1, 2]


def test_no_nonce_is_used_twice_whatever_is_batched_anew_or_sent_again(mesh: Mesh) -> None:
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    used: set[tuple[object, ...]] = set()
    for step in range(600):
        if rng.random() < 0.05:
            mesh.rotate(SECRET.tokens[: rng.randrange(7)])
            install(mesh, mesh.edge)
        address = rng.choice((SECRET, OTHER))
        frame = mesh.edge.seal(address, first_seq=rng.randrange(1, 9), count=rng.randrange(1, 5))
        header = Header.parse(frame.raw_header)
        for counter in (header.frame_ctr, header.frame_ctr + 1):
            use = (address.text, header.incarnation, header.generation, counter)
            assert use not in used, f"step {step}, seed {seed}"
            used.add(use)
        assert frame.whole() == frame.whole()


def test_chacha20_poly1305_is_the_other_suite(mesh: Mesh) -> None:
    for party in (mesh.edge, mesh.hub):
        party.keyring.set_epochs(mesh.epochs, 2, NOW_MS)
    frame = mesh.edge.seal().whole()
    assert frame[4] == 2
    assert mesh.hub.opener.open_events("d", SECRET, frame).payload == b"the payload"
    beat = mesh.edge.sealer.seal_members(
        FrameKind.HEARTBEAT, b"b", hlc=NOW_MS << 16, policy_epoch=0, subject="h"
    )
    assert mesh.hub.opener.open_members(beat, "h").body == b"b"
    # A frame of the other suite than the mesh's is refused, however well it is sealed.
    assert (
        refused_as(lambda: mesh.meta.opener.open_events("m", SECRET, mesh.edge.seal().meta_only())) == "suite"
    )


def test_a_group_route_is_taken_unsigned_where_it_is_declared_so(mesh: Mesh) -> None:
    row = Row(mesh)
    frames = [mesh.edge.seal(secrecy="group") for _ in range(VARIANTS)]
    row.refuses((frame.whole() for frame in frames), "unsigned")
    hub = mesh.hub.opener
    assert hub.open_events("d", SECRET, frames[0].whole(), allow_unsigned=True).payload == b"the payload"
    assert (
        refused_as(lambda: hub.open_events("d", SECRET, frames[0].whole(), allow_unsigned=True)) == "replay"
    )
    for frame in frames[1:]:
        raw = row.flipped(frame.whole())
        with pytest.raises((FrameRejected, KeyMissing)):
            hub.open_events("d", SECRET, raw, allow_unsigned=True)


def test_the_members_key_rotates_with_an_overlap(mesh: Mesh) -> None:
    def beat() -> bytes:
        return mesh.edge.sealer.seal_members(
            FrameKind.HEARTBEAT, b"beat", hlc=mesh.clock.ms << 16, policy_epoch=0, subject="h"
        )

    mesh.tree.store.draw_members(1, NOW_MS + 500)
    install(mesh, mesh.edge)
    assert mesh.meta.opener.open_members(beat(), "h").body == b"beat"
    mesh.clock.ms += 500
    new = beat()
    with pytest.raises(KeyMissing):
        mesh.meta.opener.open_members(new, "h")
    install(mesh, mesh.hub)
    assert mesh.hub.opener.open_members(new, "h").body == b"beat"


def test_one_wrap_carries_everything_a_grantee_needs() -> None:
    """Revoking a reader of `>` over 100 routes and 50 grantees: at most 50 wraps."""
    mesh = Mesh()
    readers = [Party(mesh, f"reader-{number}", Capability(READ, ">")) for number in range(47)]
    grantees = [mesh.edge, mesh.hub, mesh.meta, *readers]
    mesh.tree.wraps = 0
    mesh.rotate(())
    install(mesh, *grantees[:-1])
    assert mesh.tree.wraps <= 50
    for number in range(100):
        address = Address.of("edge", "vault", f"route-{number}")
        frame = mesh.edge.seal(address).whole()
        assert mesh.hub.opener.open_events("d", address, frame).payload == b"the payload"
        with pytest.raises(KeyMissing):
            grantees[-1].opener.open_events("d", address, frame)


def shreddable(mesh: Mesh, address: Address, epoch: int) -> None:
    """Draw an epoch of a route outside the tree, and tell everyone."""
    mesh.tree.store.draw_outside(address.tokens, epoch)
    vector = (OUTSIDE,) * 6 + (epoch,)
    kc = mesh.tree.outside_commitments(address.tokens, vector)
    mesh.epochs = mesh.epochs.with_raise(
        Raise(address.tokens, epoch, mesh.clock.ms, 0, kc, shreddable=True), mesh.clock.ms
    )
    install(mesh, mesh.edge, mesh.hub)


def test_a_shreddable_route_stands_outside_the_tree(mesh: Mesh) -> None:
    shreddable(mesh, OTHER, 1)
    frame = mesh.edge.seal(OTHER).whole()
    assert unpack_vector(frame[80:94]) == (OUTSIDE,) * 6 + (1,)
    assert mesh.hub.opener.open_events("d", OTHER, frame).payload == b"the payload"
    shreddable(mesh, OTHER, 2)
    assert unpack_vector(mesh.edge.seal(OTHER).whole()[80:94])[-1] == 2
    root = mesh.tree.key("d", OTHER.tokens, ZERO)
    assert commitment("d", OTHER.tokens, ZERO, root) not in mesh.epochs.raises[0].kc


def test_a_shredded_epoch_opens_from_no_copy_of_files_and_stream(mesh: Mesh, tmp_path: object) -> None:
    from pathlib import Path

    assert isinstance(tmp_path, Path)
    mesh.tree = KeyTree(CLUSTER, KeyStore.generate(tmp_path / "voter"))
    node = tmp_path / "hub"
    node.mkdir()
    mesh.hub.keys.save(node)
    for party in (mesh.edge, mesh.hub):
        party.keyring = party.sealer._keyring = party.opener._keyring = Keyring(party.keys, party.identity)
    shreddable(mesh, OTHER, 1)
    packet, frame = mesh.packet(mesh.hub), mesh.edge.seal(OTHER).whole()
    assert mesh.hub.opener.open_events("d", OTHER, frame).payload == b"the payload"
    # The shred: voter, grantees' memory, and the wrapping keys that would open recorded packets.
    assert mesh.tree.store.shred(OTHER.tokens, 1)
    vector = (OUTSIDE,) * 6 + (1,)
    for party in (mesh.edge, mesh.hub):
        assert party.keyring.forget(OTHER.tokens, vector) > 0
        party.keys.rotate_wrap()
        party.keys.drop_old_wrap()
    stolen_store = KeyStore.load(tmp_path / "voter")
    with pytest.raises(KeyMissing, match="shredded"):
        stolen_store.outside("d", OTHER.tokens, 1)
    from meshfold.security import NodeKeys

    stolen = Keyring(NodeKeys.load(node), mesh.hub.identity)
    assert refused_as(lambda: stolen.install(packet, mesh.voters)) == "unwrap"
    for root_epoch_key in stolen_store._roots.values():
        assert root_epoch_key not in frame
    with pytest.raises(KeyMissing):
        mesh.hub.keyring.key_at("d", OTHER, vector)


def test_a_new_wrapping_key_is_signed_by_its_node(mesh: Mesh) -> None:
    keys = mesh.hub.keys
    old = keys.wrap_pub
    keys.rotate_wrap()
    record = WrapRecord.issue(keys, CLUSTER, 1)
    read = WrapRecord.parse(record.raw, cluster=CLUSTER, node_pub=keys.node_pub)
    assert read.wrap_pub == keys.wrap_pub != old
    rng = random.Random(3)
    for _ in range(VARIANTS):
        place = rng.randrange(len(record.raw))
        altered = (
            record.raw[:place] + bytes([record.raw[place] ^ 1 << rng.randrange(8)]) + record.raw[place + 1 :]
        )
        with pytest.raises(FrameRejected):
            WrapRecord.parse(altered, cluster=CLUSTER, node_pub=keys.node_pub)
    forged = WrapRecord.issue(mesh.edge.keys, CLUSTER, 9).raw
    assert refused_as(lambda: WrapRecord.parse(forged, cluster=CLUSTER, node_pub=keys.node_pub)) == "member"


def test_epochs_are_bounded_and_forget_what_no_frame_can_name() -> None:
    epochs = Epochs()
    for number in range(2000):
        node, vector = epochs.next_of(SECRET.tokens)
        now = NOW_MS + number * 1000
        epochs = epochs.with_raise(Raise(node, vector[-1], now, 0, above=vector[:-1]), now)
    assert len(epochs.raises) < 200
    assert epochs.vector(SECRET.tokens, NOW_MS + 2_000_000)[-1] == 2000
    full = Epochs(tuple(Raise(("read", str(n)), 1, NOW_MS, 0, above=(0, 0)) for n in range(4096)))
    assert refused_as(lambda: full.with_raise(Raise(("x",), 1, NOW_MS, 0, above=(0,)), NOW_MS)) == "limit"

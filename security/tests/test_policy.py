"""Policy records: signed by a majority, never going back, fresh or failing closed."""

from __future__ import annotations

import os
import random

import pytest
from hostile import VARIANTS, Row, refused_as
from meshfold.core.errors import FrameRejected
from meshfold.security import Identity, NodeKeys, PolicyKeeper, PolicyRecord, Raise, voters_hash
from meshfold.security.epochs import Epochs
from meshfold.security.policy_keeper import FRESH_MS, GRACE_MS, JUMP_MAX
from parties import CLUSTER, NOW_MS, SECRET, Mesh


class Voters:
    """Three voters and what they sign."""

    def __init__(self, mesh: Mesh, count: int = 3) -> None:
        self.keys = [NodeKeys.generate() for _ in range(count)]
        self.identities: dict[bytes, Identity] = {}
        for number, keys in enumerate(self.keys):
            identity = mesh.authority.issue_identity(
                node_pub=keys.node_pub,
                wrap_pub=keys.wrap_pub,
                login_pub=keys.login_pub,
                name=f"voter-{number}",
                roles=("voter",),
                not_before_ms=0,
                not_after_ms=2 * NOW_MS,
            )
            self.identities[identity.tag] = identity

    def record(self, epoch: int, index: int, signers: int = 2, **fields: object) -> bytes:
        """A record that so many of them signed."""
        named = voters_hash(self.identities.values())
        record = PolicyRecord(CLUSTER, named, index, epoch, **fields)  # type: ignore[arg-type]
        signatures = tuple(record.sign(keys) for keys in self.keys[:signers])
        return PolicyRecord(CLUSTER, named, index, epoch, **fields, signatures=signatures).encode()  # type: ignore[arg-type]


@pytest.fixture
def voters() -> Voters:
    """Three."""
    return Voters(Mesh())


def keeper_of(voters: Voters, saved: list[bytes] | None = None) -> PolicyKeeper:
    """A node's keeper."""
    return PolicyKeeper(CLUSTER, lambda: voters.identities, (saved if saved is not None else []).append)


def test_a_record_comes_back_as_it_was(voters: Voters) -> None:
    epochs = Epochs((Raise(SECRET.tokens, 3, NOW_MS, 7, above=(1, 0, 0, 0, 0, 0)),))
    raw = voters.record(
        7, 9, revoked=frozenset({b"r" * 32}), epochs=epochs, decided=((b"t" * 8, b"i" * 8),), suite=2
    )
    read = PolicyRecord.parse(raw)
    read.verify(CLUSTER, voters.identities)
    assert read.encode() == raw
    assert (read.rank, read.revoked, read.epochs, read.suite) == ((7, 9), frozenset({b"r" * 32}), epochs, 2)


def test_a_minority_or_one_voter_twice_moves_nobody(voters: Voters) -> None:
    saved: list[bytes] = []
    keeper = keeper_of(voters, saved)
    assert refused_as(lambda: keeper.take(voters.record(1, 1, signers=1), 0)) == "sig"
    record = PolicyRecord.parse(voters.record(1, 1, signers=1))
    twice = PolicyRecord(CLUSTER, record.voters, 1, 1, signatures=record.signatures * 2).encode()
    assert refused_as(lambda: keeper.take(twice, 0)) == "sig"
    deposed = Voters(Mesh())
    assert refused_as(lambda: keeper.take(deposed.record(1, 1, signers=3), 0)) == "member"
    assert saved == []
    assert keeper.take(voters.record(1, 1), 0)
    assert len(saved) == 1


def test_any_flipped_bit_of_a_record_is_refused(voters: Voters) -> None:
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    saved: list[bytes] = []
    keeper = keeper_of(voters, saved)
    raw = voters.record(1, 1, revoked=frozenset({os.urandom(32)}))
    for place in range(len(raw)):
        altered = raw[:place] + bytes([raw[place] ^ 1 << rng.randrange(8)]) + raw[place + 1 :]
        with pytest.raises(FrameRejected):
            keeper.take(altered, 0)
    assert saved == [], f"seed {seed}"


def test_hg13_an_older_policy_changes_nothing_and_is_counted(voters: Voters) -> None:
    saved: list[bytes] = []
    keeper = keeper_of(voters, saved)
    old = [voters.record(epoch, index) for epoch in range(1, 11) for index in range(10)]
    assert keeper.take(voters.record(50, 500), 0)
    held = keeper.record
    for raw in old:
        assert refused_as(lambda raw=raw: keeper.take(raw, 1)) == "policy"  # type: ignore[misc]
    assert (keeper.record, keeper.rollbacks, len(saved)) == (held, VARIANTS, 1)
    # Over a restart, too.
    again = keeper_of(voters)
    again.restore(saved[-1], 0)
    assert refused_as(lambda: again.take(old[-1], 1)) == "policy"
    assert again.record.policy_epoch == 50


def test_a_far_jump_needs_the_answer_to_a_nonce(voters: Voters) -> None:
    keeper = keeper_of(voters)
    far = voters.record(JUMP_MAX + 1, 1)
    assert refused_as(lambda: keeper.take(far, 0)) == "policy"
    assert keeper.record.policy_epoch == 0
    assert keeper.take(far, 0, fresh=True)
    assert keeper.take(voters.record(2 * JUMP_MAX + 1, 2), 0)


def test_hg14_without_a_fresh_word_nothing_new_opens_and_after_the_grace_nothing_goes_on(
    voters: Voters,
) -> None:
    keeper = keeper_of(voters)
    assert not keeper.fresh(0)
    raw = voters.record(1, 1)
    keeper.take(raw, 0)
    assert keeper.fresh(FRESH_MS)
    assert not keeper.fresh(FRESH_MS + 1)
    assert keeper.in_grace(GRACE_MS)
    assert not keeper.in_grace(GRACE_MS + 1)
    assert not keeper.take(raw, GRACE_MS + 1)
    assert keeper.fresh(GRACE_MS + 1)


def test_hw30_a_frame_of_a_policy_superseded_too_long_ago_is_refused(voters: Voters) -> None:
    mesh = Mesh()
    keeper = keeper_of(voters)
    mesh.hub.opener._keeper = keeper
    row = Row(mesh)
    for epoch in range(1, VARIANTS + 2):
        keeper.take(voters.record(epoch, epoch), mesh.clock.ms - NOW_MS)
    mesh.hub.opener.open_events("d", SECRET, mesh.edge.seal(policy_epoch=0).whole())
    mesh.clock.ms += GRACE_MS + 1
    keeper.take(voters.record(VARIANTS + 2, VARIANTS + 2), mesh.clock.ms - NOW_MS)
    mesh.hub.opener.open_events("d", SECRET, mesh.edge.seal(policy_epoch=VARIANTS + 1).whole())
    mesh.edge.mesh.book.policy = keeper.record.policy
    row.refuses((mesh.edge.seal(policy_epoch=epoch).whole() for epoch in range(VARIANTS)), "policy")

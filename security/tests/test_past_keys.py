"""Keys of earlier epochs under a grant: exactly the range it names, and the present stays what it was."""

from __future__ import annotations

import random

import pytest
from hostile import VARIANTS, refused_as
from meshfold.core.errors import FrameRejected, KeyMissing
from meshfold.core.registry import Action
from meshfold.security import Capability, Raise
from meshfold.security.caveat import Caveat, CaveatKind
from meshfold.security.epochs import OVERLAP_MS
from meshfold.security.past_keys import past_slots
from parties import SECRET, Mesh, Party

READING = Action.META_READ | Action.PAYLOAD_OPEN
ROUNDS = 6


def replaying(first: int, last: int, pattern: str = SECRET.text, actions: Action = READING) -> Capability:
    """The right to open what was sealed under these policy epochs."""
    return Capability(actions | Action.REPLAY_READ, pattern, (Caveat(CaveatKind.EPOCHS, (first, last)),))


class Past:
    """A mesh whose route had an epoch in each of the policy epochs 0 to 6, and a frame of each."""

    def __init__(self) -> None:
        self.mesh = Mesh()
        self.raises: list[Raise] = []
        self.frames = [self.mesh.edge.seal()]
        for epoch in range(1, ROUNDS + 1):
            self.rotate(SECRET.tokens, epoch)
            self.frames.append(self.mesh.edge.seal())

    def rotate(self, path: tuple[str, ...], policy_epoch: int) -> None:
        """Raise a node under a policy epoch, and forget it from the record once no live frame can be under it."""
        mesh = self.mesh
        node, vector = mesh.epochs.next_of(path)
        if not node and not mesh.tree.store.has_root(vector[0]):
            mesh.tree.store.draw_roots(vector[0])
        kc = mesh.tree.commitments(node, vector)
        one = Raise(node, vector[-1], mesh.clock.ms, policy_epoch, kc, above=vector[:-1])
        self.raises.append(one)
        mesh.epochs = mesh.epochs.with_raise(one, mesh.clock.ms)
        for party in (mesh.edge, mesh.hub):
            party.keyring.set_epochs(mesh.epochs, 1, mesh.clock.ms)
            party.fetch_keys()
        mesh.clock.ms += 3 * OVERLAP_MS

    def reader(self, *capabilities: Capability) -> Party:
        """A node that comes late, with a grant for the past."""
        party = Party(self.mesh, f"reader-{random.randrange(2**32)}")
        party.keyring.set_epochs(self.mesh.epochs, 1, self.mesh.clock.ms)
        party.grants.append(self.mesh.grant(party, *capabilities))
        packet = self.mesh.tree.packet(
            self.mesh.voter.keys,
            self.mesh.voter.identity,
            party.identity,
            party.grants,
            hlc=self.mesh.clock.ms << 16,
            epochs=self.mesh.epochs,
            past=self.raises,
        )
        party.keyring.install(packet, self.mesh.voters)
        return party

    def opened(self, party: Party) -> list[int]:
        """Which of the frames it opens."""
        found = []
        for number, frame in enumerate(self.frames):
            before, state = party.opener.counters(), party.opener.fingerprint()
            try:
                got = party.opener.open_recorded("d", SECRET, frame.whole())
            except FrameRejected as error:
                assert error.reason == "epoch", error
                assert party.opener.counters().get("epoch", 0) == before.get("epoch", 0) + 1
                assert party.opener.fingerprint() == state
                continue
            assert (got.meta, got.payload) == (b"the metadata", b"the payload")
            found.append(number)
        return found


def test_hg21_replay_read_opens_its_range_of_epochs_and_nothing_else() -> None:
    past = Past()
    rng = random.Random(seed := random.randrange(2**32))
    ranges = [(first, last) for first in range(ROUNDS + 2) for last in range(first, ROUNDS + 2)]
    while len(ranges) < VARIANTS:
        first = rng.randrange(2**31)
        ranges.append((first, first + rng.randrange(2**31)))
    for first, last in ranges:
        # The present comes with PAYLOAD_OPEN, whatever the range of the past is.
        wanted = sorted({one for one in range(ROUNDS + 1) if first <= one <= last} | {ROUNDS})
        assert past.opened(past.reader(replaying(first, last))) == wanted, f"{first}..{last}, seed {seed}"


def test_without_a_range_or_without_the_right_to_open_there_is_no_key() -> None:
    past = Past()
    endless = Capability(READING | Action.REPLAY_READ, SECRET.text)
    assert past.opened(past.reader(endless)) == [ROUNDS]
    assert past.opened(past.reader(Capability(READING, SECRET.text))) == [ROUNDS]
    blind = past.reader(replaying(0, ROUNDS, actions=Action(0)))
    assert blind.keyring.held_of_the_past() == []
    meta = past.reader(replaying(0, ROUNDS, actions=Action.META_READ))
    assert {key_class for key_class, _, _ in meta.keyring.held_of_the_past()} == {"m"}
    assert past.opened(meta) == []
    assert meta.opener.open_recorded("m", SECRET, past.frames[2].meta_only()).meta == b"the metadata"


def test_a_live_frame_of_an_old_epoch_stays_refused_for_whoever_may_replay_it() -> None:
    past = Past()
    party = past.reader(replaying(0, ROUNDS))
    for frame in past.frames[:-1]:
        with pytest.raises(KeyMissing):
            party.keyring.key_at("d", SECRET, (0,) * 7)
        raw = frame.whole()
        # It is too old, and its epoch is over; either would do.
        found = refused_as(lambda raw=raw: party.opener.open_events("d", SECRET, raw))  # type: ignore[misc]
        assert found in ("age", "epoch")
    assert party.opener.counters().keys() <= {"age", "epoch"}


def test_an_old_epoch_that_goes_on_beyond_the_range_below_a_node_is_not_given() -> None:
    """Its key would open what was sealed there later: the raised nodes below stand for themselves."""
    past = Past()
    party = past.reader(replaying(0, 3, "read.logical.edge.>"))
    held = party.keyring.held_of_the_past()
    assert {(path, vector[-1]) for _, path, vector in held} == {(SECRET.tokens, epoch) for epoch in range(4)}
    past.rotate(SECRET.tokens[:3], ROUNDS + 1)
    # The node's own first epoch is over, and everything that began below it lies in the range.
    whole = past.reader(replaying(0, ROUNDS, "read.logical.edge.>"))
    assert {path for _, path, _ in whole.keyring.held_of_the_past()} == {SECRET.tokens[:3]}
    assert past.opened(whole) == list(range(ROUNDS + 1))
    part = past.reader(replaying(0, 3, "read.logical.edge.>"))
    assert past.opened(part) == [0, 1, 2, 3]


def test_what_is_taken_back_is_gone_with_the_next_packet() -> None:
    past = Past()
    party = past.reader(replaying(1, ROUNDS))
    assert len(past.opened(party)) == ROUNDS
    party.fetch_keys()
    assert past.opened(party) == [ROUNDS]
    again = past.reader(replaying(0, ROUNDS))
    again.keyring.forget_past()
    assert past.opened(again) == [ROUNDS]


def test_a_recorded_frame_is_still_checked() -> None:
    past = Past()
    party = past.reader(replaying(0, ROUNDS))
    raw = past.frames[1].whole()
    for place in range(len(raw)):
        altered = raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]
        assert refused_as(lambda raw=altered: party.opener.open_recorded("d", SECRET, raw))  # type: ignore[misc]
    assert party.opener.open_recorded("d", SECRET, raw).payload == b"the payload"
    # As often as it likes: nothing is delivered by it.
    assert party.opener.open_recorded("d", SECRET, raw).payload == b"the payload"


def test_a_grant_of_too_many_old_keys_is_refused() -> None:
    past = Past()
    many = [Raise(SECRET.tokens, number, number, 1, above=(0,) * 6) for number in range(1, 2_000)]
    grant = past.mesh.grant(past.mesh.outsider, replaying(0, 1))
    assert refused_as(lambda: past_slots([grant], many)) == "limit"

"""Hostile grants, row by row of the table HG: at least a hundred variants each; the book stays as it was."""

from __future__ import annotations

import os
import random
import struct
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hostile import VARIANTS, refused_as
from meshfold.core.errors import FrameRejected, GrantRevoked
from meshfold.core.registry import Action
from meshfold.security import Capability, Challenges, Grant, GrantBook, Policy, prove_possession
from meshfold.security.capability import check_pattern
from meshfold.security.caveat import Caveat, CaveatKind, decode_caveats, encode_caveats
from meshfold.security.grant import KeySigner
from meshfold.security.identity import SKEW_MS
from parties import CLUSTER, LIFE_MS, NOW_MS, SECRET, Mesh

READ = Action.META_READ | Action.PAYLOAD_OPEN
ALL = READ | Action.DELEGATE
WIDE = "read.logical.edge.>"


class Bench:
    """Makes chains, honest or not, and shows them to a book that must not change."""

    def __init__(self) -> None:
        self.mesh = Mesh()
        self.seed = random.randrange(2**32)
        self.rng = random.Random(self.seed)
        self.holder, self.below = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()

    @staticmethod
    def pub(key: Ed25519PrivateKey) -> bytes:
        """Its public key."""
        return key.public_key().public_bytes_raw()

    def link(
        self, signer: Ed25519PrivateKey, subject: bytes, parent: Grant | None = None, **changes: Any
    ) -> Grant:
        """One signed link."""
        fields: dict[str, Any] = {
            "cluster": CLUSTER,
            "capabilities": (Capability(ALL, WIDE),),
            "not_before_ms": NOW_MS - 1000,
            "not_after_ms": NOW_MS + 60_000,
            "policy_epoch": 0,
            "depth_left": 2,
        }
        return Grant.issue(KeySigner(signer), subject_pub=subject, parent=parent, **(fields | changes))

    def root(self, **changes: Any) -> Grant:
        """A grant of the authority to the holder."""
        grant = self.mesh.authority.issue_grant(
            self.pub(self.holder),
            changes.pop("capabilities", (Capability(ALL, WIDE),)),
            **(
                {
                    "not_before_ms": NOW_MS - 1000,
                    "not_after_ms": NOW_MS + 60_000,
                    "policy_epoch": 0,
                    "depth_left": 2,
                }
                | changes
            ),
        )
        return grant

    def child(self, parent: Grant | None = None, **changes: Any) -> Grant:
        """What the holder made of it for somebody else."""
        changes.setdefault("depth_left", 1)
        return self.link(self.holder, self.pub(self.below), parent or self.root(), **changes)

    def refuses(self, raws: Iterable[bytes], *reasons: str, book: GrantBook | None = None) -> int:
        """Show each to the book."""
        count = 0
        book = book or self.mesh.book
        before = book.fingerprint()
        for raw in raws:
            found = refused_as(lambda raw=raw: book.add(Grant.parse(raw), NOW_MS))  # type: ignore[misc]
            assert found in reasons, f"{found} instead of {reasons}, variant {count}, seed {self.seed}"
            assert book.fingerprint() == before, f"the book changed, variant {count}, seed {self.seed}"
            count += 1
        assert book.decide(self.mesh.hub.identity.tag, Action.META_READ, SECRET).allowed
        return count


@pytest.fixture(scope="module")
def bench() -> Bench:
    """One mesh for all rows."""
    return Bench()


def many(make: Callable[[], Grant]) -> Iterable[bytes]:
    """A hundred of them."""
    return (make().raw for _ in range(VARIANTS))


def test_hg01_any_flipped_bit_in_any_link_is_refused(bench: Bench) -> None:
    raw = bench.child().raw
    flips = (
        raw[:at] + bytes([raw[at] ^ 1 << bench.rng.randrange(8)]) + raw[at + 1 :] for at in range(len(raw))
    )
    reasons = ("sig", "root", "depth", "time", "cluster", "format", "size", "ext", "short", "key", "pattern")
    assert bench.refuses(flips, *reasons, "attenuation", "delegate") >= VARIANTS


def test_hg02_a_root_that_is_not_pinned_is_refused_before_any_signature(bench: Bench) -> None:
    stranger = Ed25519PrivateKey.generate()
    bench.refuses(many(lambda: bench.link(stranger, bench.pub(bench.holder))), "root")
    garbage = bench.link(stranger, bench.pub(bench.holder)).raw[:-64] + bytes(64)
    bench.refuses([garbage] * VARIANTS, "root")


@pytest.mark.parametrize(
    ("above", "below"),
    [
        ("read.logical.edge.>", "read.logical.>"),
        (SECRET.text, "read.logical.edge.>"),
        ("read.>", ">"),
        ("read.logical.edge.>", "read.logical.edg.>"),
        ("read.logical.edge.vault.>", "read.logical.edge.vaul.>"),
    ],
)
def test_hg03_a_wider_pattern_is_refused(bench: Bench, above: str, below: str) -> None:
    parent = bench.root(capabilities=(Capability(ALL, above),))
    wider = (Capability(Action.META_READ, below),)
    bench.refuses(many(lambda: bench.child(parent, capabilities=wider)), "attenuation")


def test_hg04_an_added_action_is_refused(bench: Bench) -> None:
    added = [action for action in Action if not action & ALL]
    raws = (
        bench.child(capabilities=(Capability(READ | bench.rng.choice(added), WIDE),)).raw
        for _ in range(VARIANTS)
    )
    bench.refuses(raws, "attenuation")


def test_hg05_a_child_outside_its_parents_time_is_refused(bench: Bench) -> None:
    late = (bench.child(not_after_ms=NOW_MS + 60_001 + extra).raw for extra in range(VARIANTS))
    bench.refuses(late, "time")
    early = (bench.child(not_before_ms=NOW_MS - 1001 - extra).raw for extra in range(VARIANTS))
    bench.refuses(early, "time")


def test_hg06_depth_must_shrink_and_chains_end_at_four(bench: Bench) -> None:
    bench.refuses((bench.child(depth_left=2 + extra).raw for extra in range(VARIANTS)), "depth")
    four = bench.child(bench.root(depth_left=9), depth_left=8)
    for depth in (7, 6):
        four = bench.link(bench.below, bench.pub(bench.below), four, depth_left=depth)
    bench.mesh.book.add(four, NOW_MS)
    one_more = bench.child().raw
    bench.refuses([four.raw + one_more] * VARIANTS, "depth", "size")
    # The same link twice is a loop: its parent is not itself.
    loop = bench.child()
    bench.refuses([loop.raw + loop.links[-1].raw] * VARIANTS, "depth")


def test_hg07_an_issuer_without_delegate_is_refused(bench: Bench) -> None:
    parent = bench.root(capabilities=(Capability(READ, WIDE),))
    bench.refuses(many(lambda: bench.child(parent, capabilities=(Capability(READ, WIDE),))), "delegate")


def test_hg08_times_that_do_not_hold_are_refused(bench: Bench) -> None:
    over = (
        bench.root(not_before_ms=NOW_MS - LIFE_MS, not_after_ms=NOW_MS - SKEW_MS - 1 - by).raw
        for by in range(VARIANTS)
    )
    bench.refuses(over, "time")
    ahead = (bench.root(not_before_ms=NOW_MS + SKEW_MS + 1 + by).raw for by in range(VARIANTS))
    bench.refuses(ahead, "time")
    bench.refuses(many(lambda: bench.root(not_before_ms=NOW_MS + 2, not_after_ms=NOW_MS + 1)), "time")
    bench.refuses(many(lambda: bench.root(not_after_ms=2**64 - 1)), "time")
    edge = bench.root(not_before_ms=NOW_MS - LIFE_MS, not_after_ms=NOW_MS - SKEW_MS)
    bench.mesh.book.add(edge, NOW_MS)


def test_hg09_a_grant_of_another_mesh_is_refused(bench: Bench) -> None:
    other = Mesh()
    bench.refuses([other.hub.grant.raw] * VARIANTS, "root")
    from meshfold.security import Authority

    elsewhere = Authority(b"d" * 16, bench.mesh.authority._identity_key, bench.mesh.authority._grant_key)
    strays = (
        elsewhere.issue_grant(
            bench.pub(bench.holder),
            (Capability(READ, WIDE),),
            not_before_ms=NOW_MS - 1000,
            not_after_ms=NOW_MS + 1000,
            policy_epoch=0,
        ).raw
        for _ in range(VARIANTS)
    )
    bench.refuses(strays, "cluster")


def test_hg12_a_revoked_link_ancestor_or_key_no_longer_allows(bench: Bench) -> None:
    picks: tuple[Callable[[Grant], bytes], ...] = (
        lambda grant: grant.links[-1].hash,
        lambda grant: grant.links[0].hash,
        lambda grant: grant.links[0].subject_pub,
        lambda grant: grant.links[-1].subject_pub,
    )
    for pick in picks:
        mesh = Mesh()
        fresh = Bench()
        fresh.mesh = mesh
        grant = fresh.child()
        mesh.book.add(grant, NOW_MS)
        assert mesh.book.decide(grant.tag, Action.META_READ, SECRET).allowed
        mesh.book.set_policy(Policy(1, frozenset({pick(grant)})))
        with pytest.raises(GrantRevoked):
            mesh.book.require(grant.tag, Action.META_READ, SECRET)
        assert mesh.book.decide(mesh.hub.identity.tag, Action.META_READ, SECRET).allowed


def test_hg13_an_older_policy_is_refused_and_the_epoch_stays(bench: Bench) -> None:
    mesh = Mesh()
    mesh.book.set_policy(Policy(2**20, frozenset()))
    for _ in range(VARIANTS):
        older = Policy(bench.rng.randrange(2**20), frozenset({os.urandom(32)}))
        assert refused_as(lambda older=older: mesh.book.set_policy(older)) == "policy"  # type: ignore[misc]
        assert mesh.book.policy == Policy(2**20, frozenset())


def test_hg15_what_is_not_canonical_is_refused(bench: Bench) -> None:
    raw = bench.root().raw
    flags = (raw[:3] + bytes([value]) + raw[4:] for value in range(1, 256))
    bench.refuses(flags, "format")
    at = 156
    (bits,) = struct.unpack_from(">H", raw, at)
    unknown = (
        raw[:at] + struct.pack(">H", bits | high) + raw[at + 2 :] for high in (1 << 10, 1 << 15, 3 << 11)
    )
    bench.refuses(unknown, "format")
    bench.refuses([raw[:at] + bytes(2) + raw[at + 2 :]], "format")
    trailing = (raw + os.urandom(1 + extra) for extra in range(VARIANTS))
    bench.refuses(trailing, "short", "format")
    more = (raw + raw[:-64] + bytes(64) for _ in range(VARIANTS))
    bench.refuses(more, "depth")


def test_hg16_sizes_are_checked_before_any_signature(bench: Bench) -> None:
    raw = bench.root().raw
    counts = (raw[:155] + bytes([count]) + raw[156:] for count in (0, *range(33, 256)))
    assert bench.refuses(counts, "size") >= VARIANTS
    bench.refuses((raw + bytes(4097 - len(raw) + extra) for extra in range(VARIANTS)), "size")
    for pattern in ("", "a" * 201):
        assert refused_as(lambda pattern=pattern: check_pattern(pattern)) == "size"  # type: ignore[misc]


BAD = (
    *("*", "a.*b", "a.>.c", "**", "a. ", "a\0", "a\n", "..", "a..b.>", ".a.>", "a.>.", "%61.>", "Read.>"),
    *("rеad.>", "read.logical.édge.>", "read.logical.e\u0301dge.>", ">>", "a.>b", "a>", "read._5F.>"),
    *("read._5.>", "read", "read.logical.edge.vault.secret.meta.>", "read.logical.edge.vault.secret"),
)


def test_hg17_a_pattern_of_other_tokens_is_refused(bench: Bench) -> None:
    for pattern in BAD:
        assert refused_as(lambda pattern=pattern: check_pattern(pattern)) in ("pattern", "size"), pattern  # type: ignore[misc]
    raw = bench.root().raw
    at = raw.index(WIDE.encode())

    def spoiled() -> bytes:
        place = at + bench.rng.randrange(len(WIDE))
        return raw[:place] + bytes([bench.rng.choice(b" *%\0\n\t/AZ~\x7f\xc3\xff$")]) + raw[place + 1 :]

    bench.refuses((spoiled() for _ in range(VARIANTS)), "pattern", "format")


def test_hg18_and_hg19_payload_and_metadata_are_apart() -> None:
    from meshfold.core.errors import KeyMissing
    from parties import Party

    mesh = Mesh()
    payload = Party(mesh, "payload", Capability(Action.PAYLOAD_OPEN, ">"))
    frame = mesh.edge.seal()
    for party, form, raw in (
        (payload, "m", frame.meta_only()),
        (payload, "d", frame.whole()),
        (mesh.meta, "d", frame.whole()),
    ):
        with pytest.raises(KeyMissing):
            party.opener.open_events(form, SECRET, raw)  # type: ignore[arg-type]
        assert party.opener.counters() == {"epoch": 1}
        party.opener.counters().clear()
        party.opener._rejected.clear()
    assert payload.keyring.key_for("d", SECRET)


def test_hg26_negative_answers_cost_no_signature(bench: Bench) -> None:
    """A stranger's chain is refused by one comparison; a known bad one by its hash."""
    mesh = bench.mesh
    before = mesh.book.verifications
    bad = bench.child().raw
    bad = bad[:-1] + bytes([bad[-1] ^ 1])
    for _ in range(VARIANTS):
        with pytest.raises(FrameRejected):
            mesh.book.add(Grant.parse(bad), NOW_MS)
    assert mesh.book.verifications == before + 1


def test_hw15_and_hw16_caveats_are_strict(bench: Bench) -> None:
    events = Caveat(CaveatKind.EVENTS_PER_S, (100,))
    good = encode_caveats((events, Caveat(CaveatKind.OPEN_BYTES, (1 << 20,))))
    assert decode_caveats(good)[0] == events
    overrun = (good[:1] + bytes([size]) + good[2:] for size in range(256) if size != good[1])
    doubled = [good[:6] * 2, good[6:] + good[:6], good[:6] + b"\x03\x08" + struct.pack(">II", 2, 1)]
    unknown = (bytes([kind, 1, 0]) for kind in (0, *range(5, 256)))
    cut = (good[:size] for size in range(len(good)) if size not in (0, 6))
    for data in (*overrun, *doubled, *unknown, *cut):
        assert refused_as(lambda data=data: decode_caveats(data)) == "ext"  # type: ignore[misc]
    raw = bench.root(capabilities=(Capability(READ, WIDE, (events,)),)).raw
    at = raw.index(bytes([1, 4]), 156)
    bench.refuses((raw[:at] + bytes([kind]) + raw[at + 1 :] for kind in range(5, 256)), "ext")


def test_a_caveat_may_be_tightened_and_never_loosened_or_dropped(bench: Bench) -> None:
    parent = bench.root(capabilities=(Capability(ALL, WIDE, (Caveat(CaveatKind.EVENTS_PER_S, (100,)),)),))
    for limit in range(101, 101 + VARIANTS):
        wider = Capability(READ, WIDE, (Caveat(CaveatKind.EVENTS_PER_S, (limit,)),))
        bench.refuses([bench.child(parent, capabilities=(wider,)).raw], "attenuation")
    bench.refuses([bench.child(parent, capabilities=(Capability(READ, WIDE),)).raw], "attenuation")
    tight = Capability(READ, WIDE, (Caveat(CaveatKind.EVENTS_PER_S, (100,)),))
    bench.mesh.book.add(bench.child(parent, capabilities=(tight,)), NOW_MS)


def proof_of(mesh: Mesh, keys: Any, challenges: Any, **changes: Any) -> tuple[bytes, dict[str, Any]]:
    """A proof, and what the verifier is told."""
    said: dict[str, Any] = {"verb": "keys", "request": b"these grants", "incarnation": b"i" * 8}
    said["challenge"] = challenges.issue(keys.node_pub, mesh.clock.ms)
    fields = {"cluster": CLUSTER, "verifier_pub": mesh.voter.keys.node_pub} | said
    return prove_possession(keys, **(fields | changes)), said | {
        "subject_pub": keys.node_pub,
        "now_ms": mesh.clock.ms,
    }


def test_hg10_a_stolen_grant_without_its_key_proves_nothing(bench: Bench) -> None:
    mesh = bench.mesh
    challenges = Challenges(CLUSTER, mesh.voter.keys.node_pub)
    for _ in range(VARIANTS):
        _, told = proof_of(mesh, mesh.hub.keys, challenges)
        stolen, _ = proof_of(mesh, mesh.edge.keys, challenges, challenge=told["challenge"])
        assert refused_as(lambda s=stolen, t=told: challenges.check(s, **t)) == "pop"  # type: ignore[misc]
        for wrong in (
            {"verifier_pub": mesh.edge.keys.node_pub},
            {"cluster": b"d" * 16},
            {"verb": "grants"},
            {"request": b"other grants"},
            {"incarnation": b"j" * 8},
        ):
            proof, told = proof_of(mesh, mesh.hub.keys, challenges, **wrong)
            assert refused_as(lambda p=proof, t=told: challenges.check(p, **t)) == "pop"  # type: ignore[misc]
    proof, told = proof_of(mesh, mesh.hub.keys, challenges)
    challenges.check(proof, **told)


def test_hg11_a_proof_is_taken_once_in_time_and_from_its_subject(bench: Bench) -> None:
    mesh = bench.mesh
    challenges = Challenges(CLUSTER, mesh.voter.keys.node_pub)
    for _ in range(VARIANTS):
        proof, told = proof_of(mesh, mesh.hub.keys, challenges)
        challenges.check(proof, **told)
        assert refused_as(lambda p=proof, t=told: challenges.check(p, **t)) == "pop"  # type: ignore[misc]
        proof, told = proof_of(mesh, mesh.hub.keys, challenges)
        late = told | {"now_ms": told["now_ms"] + 30_001}
        assert refused_as(lambda p=proof, t=late: challenges.check(p, **t)) == "pop"  # type: ignore[misc]
        made_up = told | {"challenge": os.urandom(16)}
        assert refused_as(lambda p=proof, t=made_up: challenges.check(p, **t)) == "pop"  # type: ignore[misc]


def test_the_receiver_keeps_the_budget_of_a_senders_grant() -> None:
    from parties import Party

    mesh = Mesh()
    caveats = (Caveat(CaveatKind.EVENTS_PER_S, (100,)), Caveat(CaveatKind.OPEN_BYTES, (10_000,)))
    limited = Party(mesh, "limited", Capability(Action.OWN, SECRET.text, caveats))
    opener = mesh.hub.opener
    for number in range(10):
        opener.open_events("d", SECRET, limited.seal(count=10, first_seq=1 + 10 * number).whole())
    for number in range(VARIANTS):
        frame = limited.seal(count=1 + number % 9, first_seq=101).whole()
        assert refused_as(lambda raw=frame: opener.open_events("d", SECRET, raw)) == "limit"  # type: ignore[misc]
    assert opener.counters() == {"limit": VARIANTS}
    mesh.clock.ms += 500
    opener.open_events("d", SECRET, limited.seal(count=50, first_seq=101).whole())
    assert refused_as(lambda: opener.open_events("d", SECRET, limited.seal(first_seq=151).whole())) == "limit"
    mesh.clock.ms += 1000
    large = limited.seal(payload=bytes(20_000), first_seq=151).whole()
    assert refused_as(lambda: opener.open_events("d", SECRET, large)) == "limit"
    # Nobody else pays for it.
    opener.open_events("d", SECRET, mesh.edge.seal(count=5000).whole())

"""What a node takes with it over a restart: replay windows, the order of its lives, and nothing over a fork."""

from __future__ import annotations

import multiprocessing
import os
import random
import traceback

import pytest
from hostile import VARIANTS, Row, refused_as
from meshfold.core.errors import ConfigError, FrameRejected, KeyMissing
from meshfold.core.registry import FrameKind
from meshfold.security import Opener, ReplayGuard, Sealer, StartBook, StartRecord
from meshfold.security.frame import Header
from meshfold.security.starts import START_OVERLAP_MS
from parties import CLUSTER, NOW_MS, SECRET, Mesh, Party

INCARNATION = b"edge----"


def restarted(party: Party, saved: bytes | None) -> None:
    """A new process of the same node."""
    mesh = party.mesh
    party.opener = Opener(party.keyring, party.keys, CLUSTER, mesh.identities.get, mesh.book, mesh.clock)
    party.opener.restore_windows(saved, mesh.clock.ms << 16)


def test_hw18_a_clean_restart_takes_no_frame_twice() -> None:
    mesh = Mesh()
    frames = [mesh.edge.seal().whole() for _ in range(VARIANTS)]
    for raw in frames:
        mesh.hub.opener.open_events("d", SECRET, raw)
    restarted(mesh.hub, mesh.hub.opener.replay.save(clean=True))
    assert not mesh.hub.opener.replay.guarded
    Row(mesh).refuses(frames, "replay")


def test_hw18_after_an_unclean_stop_only_what_is_proven_fresh_is_taken() -> None:
    mesh = Mesh()
    saved = mesh.hub.opener.replay.save(clean=False)
    recorded = [mesh.edge.seal().whole() for _ in range(VARIANTS)]
    for raw in recorded:
        mesh.hub.opener.open_events("d", SECRET, raw)
    restarted(mesh.hub, saved)
    opener = mesh.hub.opener
    for raw in recorded:
        assert refused_as(lambda raw=raw: opener.open_events("d", SECRET, raw)) == "replay"  # type: ignore[misc]
    floors = {SECRET.digest: mesh.edge.sealer.standing(SECRET)}
    opener.replay.prove(mesh.edge.identity.tag, INCARNATION, floors)
    Row(mesh).refuses(recorded, "replay")
    # A later word does not raise the floor over what is on its way, nor a forged low one lower it.
    opener.replay.prove(mesh.edge.identity.tag, INCARNATION, {SECRET.digest: (0, 0)})
    Row(mesh).refuses(recorded, "replay")


def test_boxes_from_before_an_unclean_stop_are_refused() -> None:
    mesh = Mesh()

    def ask() -> bytes:
        return mesh.edge.sealer.seal_box(
            FrameKind.QUERY, mesh.hub.identity, b"ask", hlc=mesh.clock.ms << 16, policy_epoch=0, subject="q"
        )

    saved, recorded = mesh.hub.opener.replay.save(clean=False), ask()
    assert mesh.hub.opener.open_box(recorded, "q").body == b"ask"
    mesh.clock.ms += 1
    restarted(mesh.hub, saved)
    assert refused_as(lambda: mesh.hub.opener.open_box(recorded, "q")) == "age"
    assert mesh.hub.opener.open_box(ask(), "q").body == b"ask"


def test_damaged_windows_count_as_an_unclean_stop() -> None:
    mesh = Mesh()
    for _ in range(5):
        mesh.hub.opener.open_events("d", SECRET, mesh.edge.seal().whole())
    saved = mesh.hub.opener.replay.save(clean=True)
    rng = random.Random(11)
    for _ in range(VARIANTS):
        place = rng.randrange(len(saved))
        guard = ReplayGuard()
        guard.restore(saved[:place] + bytes([saved[place] ^ 1 << rng.randrange(8)]) + saved[place + 1 :])
        assert guard.guarded
        guard = ReplayGuard()
        guard.restore(saved[:place])
        assert guard.guarded
    guard = ReplayGuard()
    guard.restore(saved)
    assert guard.save(clean=True) == saved


class Lives:
    """Starts of one node."""

    def __init__(self) -> None:
        self.mesh = Mesh()
        self.keys = self.mesh.edge.keys
        self.book = StartBook()

    def start(self, name: bytes, after: bytes, at_ms: int) -> StartRecord:
        """One more, noted."""
        record = StartRecord.issue(
            self.keys, CLUSTER, name.ljust(8, b"-"), after.ljust(8, b"\0"), at_ms << 16
        )
        self.book.note(StartRecord.parse(record.raw, cluster=CLUSTER))
        return record

    def reason(self, name: bytes, at_ms: int, now_ms: int | None = None) -> str:
        """Why a frame of that life is refused; empty if it is not."""
        life, hlc = name.ljust(8, b"-"), at_ms << 16
        try:
            self.book.check(self.keys.tag, life, hlc, at_ms if now_ms is None else now_ms)
        except FrameRejected as error:
            self.book.spoke(self.keys.tag, life, hlc)
            return error.reason
        return ""


def test_hw21_an_old_life_is_taken_during_the_overlap_and_refused_after_it() -> None:
    lives = Lives()
    lives.start(b"one", b"", NOW_MS)
    lives.start(b"two", b"one-----", NOW_MS + 1000)
    assert lives.reason(b"one", NOW_MS + 999, NOW_MS + 2000) == ""
    for by in range(VARIANTS):
        assert lives.reason(b"one", NOW_MS + 900, NOW_MS + 1001 + START_OVERLAP_MS + by) == "incarnation"
        assert lives.reason(b"old%d" % by, NOW_MS + by) == "incarnation"
    assert lives.reason(b"two", NOW_MS + 5000) == ""
    assert lives.reason(b"new", NOW_MS + 6000) == ""
    assert lives.book.fenced == {}


def test_hw21_the_opener_refuses_frames_of_an_old_life() -> None:
    mesh = Mesh()
    mesh.hub.opener.starts.note(
        StartRecord.issue(mesh.edge.keys, CLUSTER, b"newer---", INCARNATION, NOW_MS << 16)
    )
    mesh.edge.sealer = Sealer(mesh.edge.keys, CLUSTER, b"newer---", mesh.edge.keyring)

    def stale(number: int) -> bytes:
        old = Sealer(mesh.edge.keys, CLUSTER, b"old%05d" % number, mesh.edge.keyring)
        mesh.edge.sealer, newest = old, mesh.edge.sealer
        raw = mesh.edge.seal(hlc=(NOW_MS - 1 - number) << 16).whole()
        mesh.edge.sealer = newest
        return raw

    Row(mesh).refuses((stale(number) for number in range(VARIANTS)), "incarnation")
    assert mesh.hub.opener.starts.fenced == {}


def test_hk10_two_starts_after_one_life_fence_both_until_an_operator_decides() -> None:
    lives = Lives()
    lives.start(b"one", b"", NOW_MS)
    lives.start(b"two", b"one-----", NOW_MS + 1000)
    lives.start(b"copy", b"one-----", NOW_MS + 2000)
    assert lives.keys.tag in lives.book.fenced
    for name in (b"two", b"copy"):
        assert lives.reason(name, NOW_MS + 3000) == "incarnation"
    lives.book.decide(((lives.keys.tag, b"two-----"),))
    assert lives.reason(b"copy", NOW_MS + 3000) == "incarnation"
    lives.start(b"three", b"two-----", NOW_MS + 4000)
    assert lives.reason(b"three", NOW_MS + 5000) == ""


def test_hk10_a_predecessor_that_goes_on_fences_both() -> None:
    lives = Lives()
    lives.start(b"one", b"", NOW_MS)
    lives.start(b"copy", b"one-----", NOW_MS + 1000)
    assert lives.reason(b"one", NOW_MS + 1001) == "incarnation"
    assert lives.reason(b"copy", NOW_MS + 1002) == "incarnation"
    assert "goes on after" in lives.book.fenced[lives.keys.tag]


def test_hk10_a_plain_restart_is_never_fenced_however_often() -> None:
    lives = Lives()
    at, before = NOW_MS, b""
    for number in range(500):
        name = b"life%04d" % number
        lives.start(name, before, at)
        assert lives.reason(name, at + 1) == ""
        at, before = at + 2, name
    assert lives.book.fenced == {}


def test_hk12_a_restored_backup_begins_a_life_of_its_own() -> None:
    """The state is older, the incarnation is fresh: no subkey, and so no nonce, is used again."""
    mesh = Mesh()
    first = Header.parse(mesh.edge.seal().whole())
    again = Sealer(mesh.edge.keys, CLUSTER, os.urandom(8), mesh.edge.keyring)
    mesh.edge.sealer = again
    second = Header.parse(mesh.edge.seal().whole())
    assert (first.generation, first.frame_ctr) == (second.generation, second.frame_ctr)
    assert first.incarnation != second.incarnation


def test_hk14_a_broken_random_source_makes_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    from meshfold.security import KeyStore, NodeKeys

    for broken in (lambda size: bytes(size), lambda size: b"\x07" * size, lambda size: bytes(range(size))):
        monkeypatch.setattr(os, "urandom", broken)
        for make in (NodeKeys.generate, KeyStore.generate):
            with pytest.raises(ConfigError, match="random source"):
                make()


def _in_child(mesh: Mesh) -> list[str]:
    """What a child may still do: nothing."""
    frame = mesh.edge.seal  # bound before the work, as a program would
    done: list[str] = []
    works = (
        frame,
        lambda: mesh.edge.keys.sign(b"d", b"x"),
        lambda: mesh.edge.keys.login_sign(b"x"),
        lambda: mesh.hub.keyring.members_for(0),
        lambda: mesh.hub.keyring.key_for("d", SECRET),
        lambda: mesh.tree.key("d", (), (0,)),
    )
    for work in works:
        try:
            work()
            done.append("worked")
        except KeyMissing as error:
            done.append(str(error))
        except Exception:  # noqa: BLE001 - the parent shows it
            done.append(traceback.format_exc())
    return done


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_finds_its_keys_erased() -> None:
    mesh = Mesh()
    mesh.edge.seal()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writing, "\n".join(_in_child(mesh)).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read().split("\n")
    os.waitpid(child, 0)
    assert len(said) == 6
    assert all("fork" in line for line in said), said
    assert mesh.hub.opener.open_events("d", SECRET, mesh.edge.seal().whole()).payload == b"the payload"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_multiprocessing_child_finds_its_keys_erased() -> None:
    mesh = Mesh()
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=lambda: queue.put(_in_child(mesh)))
    child.start()
    said = queue.get()
    child.join()
    assert all("fork" in line for line in said), said


def test_hk10_the_opener_takes_a_signed_word_of_an_ended_life_for_a_clone_and_no_other() -> None:
    mesh = Mesh()
    book, tag = mesh.hub.opener.starts, mesh.edge.identity.tag
    book.note(StartRecord.issue(mesh.edge.keys, CLUSTER, b"copy----", INCARNATION, (NOW_MS + 1) << 16))
    mesh.clock.ms += 100
    raw = mesh.edge.seal().whole()
    forged = raw[:-1] + bytes([raw[-1] ^ 1])
    assert refused_as(lambda: mesh.hub.opener.open_events("d", SECRET, forged)) == "incarnation"
    assert book.fenced == {}
    assert refused_as(lambda: mesh.hub.opener.open_events("d", SECRET, raw)) == "incarnation"
    assert tag in book.fenced
    other = mesh.meta.sealer.seal_box(
        FrameKind.QUERY, mesh.hub.identity, b"ask", hlc=mesh.clock.ms << 16, policy_epoch=0, subject="q"
    )
    assert mesh.hub.opener.open_box(other, "q").body == b"ask"

"""Recordings of sealed routes, opened later under a grant: two nodes, a voter, a real server."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from meshfold.core import Schema, route
from meshfold.core.errors import ConfigError, GrantDenied, GrantRevoked
from meshfold.core.registry import Action
from meshfold.mesh.enrolment import AuthorityFolder, identity_of
from meshfold.mesh.local import LocalMesh
from meshfold.mesh.node import Node
from meshfold.security import Capability, Grant
from meshfold.security.caveat import Caveat, CaveatKind
from test_mesh_rotation import READING, delivered, signed, until

WAIT_S = 30.0
WORDS = route("edge", "line", "words", schema=Schema.str())


def for_the_past(mesh: LocalMesh, name: str, first: int, last: int) -> Grant:
    """A grant of the issuer to open what was sealed under these policy epochs."""
    assert mesh.context is not None and mesh.context.authority_dir is not None
    now_ms = time.time_ns() // 1_000_000
    caveat = Caveat(CaveatKind.EPOCHS, (first, last))
    return AuthorityFolder.open(mesh.context.authority_dir).issuer.issue_grant(
        identity_of(mesh.context, name).node_pub,
        (Capability(READING | Action.REPLAY_READ, WORDS.address, (caveat,)),),
        not_before_ms=now_ms,
        not_after_ms=now_ms + 3_600_000,
        policy_epoch=0,
    )


async def say(edge: Node, hub: Node, *words: str) -> None:
    """Publish, and wait until they arrived."""
    seen = delivered(hub, WORDS)
    for word in words:
        edge.graph.publish(WORDS, word)
    await until(lambda: delivered(hub, WORDS) == seen + len(words))


async def test_a_recording_opens_for_the_range_of_epochs_of_a_grant(mesh: LocalMesh, tmp_path: Path) -> None:
    path = tmp_path / "words.recording"
    async with mesh.node("hub") as hub, mesh.node("edge") as edge, mesh.node("operator") as operator:
        await edge.share(WORDS).ready(WAIT_S)
        await hub.read(WORDS).ready(WAIT_S)
        recording = await hub.record(WORDS, path)
        with pytest.raises(ConfigError, match="cannot write"):
            await hub.record(WORDS, path)
        await say(edge, hub, "zero", "nought")
        # Each revocation begins a policy epoch, and with it a key epoch of what the grant opened.
        async with mesh.node("outsider"):
            pass
        for word in ("one", "two", "three"):
            grant = signed(mesh, "outsider", WORDS.address)
            await operator.query("grant_issue", node="hub", grant=grant.raw.hex())
            answer = await operator.query("grant_revoke", node="hub", id=grant.hash.hex())
            await until(lambda e=answer["policy_epoch"]: edge.session.policy_epoch == e)  # type: ignore[misc]
            await say(edge, hub, word)
        await until(lambda: recording.frames >= 4)
        await recording.close()
        assert b"zero" not in path.read_bytes()
        with pytest.raises(GrantDenied, match="REPLAY_READ"):
            hub.replay(WORDS, path)
        grant = for_the_past(mesh, "outsider", 1, 2)
        await operator.query("grant_issue", node="hub", grant=grant.raw.hex())
        async with mesh.node("outsider") as auditor:
            await until(lambda: bool(auditor.session.keyring.held_of_the_past()))
            found = auditor.replay(WORDS, path)
            # The present is opened by PAYLOAD_OPEN; the past by the range.
            assert [event.value for event in found] == ["one", "two", "three"]
            assert found.rejected["epoch"] == found.frames - 3 > 0
            again = auditor.replay(WORDS, path)
            assert [event.value for event in again] == [event.value for event in found]
            # Taken back, the keys go with the grant.
            await operator.query("grant_revoke", node="hub", id=grant.hash.hex())
            await until(lambda: not auditor.session.keyring.held_of_the_past())
            with pytest.raises(GrantRevoked):
                auditor.replay(WORDS, path)
        with pytest.raises(ConfigError, match="no recording"):
            operator.replay(route("edge", "line", "other", schema=Schema.str()), path)


async def test_a_recording_that_is_none_or_was_cut_is_said_so(mesh: LocalMesh, tmp_path: Path) -> None:
    path = tmp_path / "words.recording"
    async with mesh.node("hub") as hub, mesh.node("edge") as edge, mesh.node("operator") as operator:
        await edge.share(WORDS).ready(WAIT_S)
        await hub.read(WORDS).ready(WAIT_S)
        recording = await hub.record(WORDS, path)
        await say(edge, hub, "one")
        await say(edge, hub, "two")
        await until(lambda: recording.frames >= 2)
        await recording.close()
        whole = path.read_bytes()
        assert [event.value for event in operator.replay(WORDS, path)] == ["one", "two"]
        for size in range(0, len(whole), 7):
            path.write_bytes(whole[:size])
            try:
                found = operator.replay(WORDS, path)
            except ConfigError as error:
                assert "no recording" in str(error)
            else:
                assert [event.value for event in found] in ([], ["one"], ["one", "two"])
        path.write_bytes(whole[:-3] + b"xyz")
        altered = operator.replay(WORDS, path)
        assert [event.value for event in altered] == ["one"]
        assert sum(altered.rejected.values()) == 1
        with pytest.raises(ConfigError, match="cannot read"):
            operator.replay(WORDS, tmp_path / "nothing")

"""Revocations of what has ended by itself are left out of the policy: the list stays short, and nothing comes back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from meshfold.core.errors import FrameRejected
from meshfold.core.registry import Action
from meshfold.mesh.local import LocalMesh
from meshfold.mesh.node.keymaster import ENDED_MS, Keymaster, follows
from meshfold.security import Grant
from meshfold.security.policy_record import REVOKED_MAX
from test_mesh_rotation import FLOW, READING, signed


async def test_a_revocation_goes_when_its_grant_has_ended_and_not_before(mesh: LocalMesh) -> None:
    async with mesh.node("hub") as hub, mesh.node("edge"), mesh.node("operator") as operator:
        async with mesh.node("outsider"):
            pass
        grants = [
            signed(mesh, "outsider", FLOW.address, READING),
            signed(mesh, "outsider", ">", Action.VALIDATE),
        ]
        for grant in grants:
            await operator.query("grant_issue", node="hub", grant=grant.raw.hex())
            await operator.query("grant_revoke", node="hub", id=grant.hash.hex())
        assert hub.session.control is not None
        keymaster = hub.session.control.keymaster
        assert keymaster.record.revoked == {grant.hash for grant in grants}
        now_ms, ends_ms = hub.session.hlc.now_ms(), max(one.not_after_ms for one in grants)
        assert not await keymaster.prune(now_ms)
        epoch, revoked = keymaster.record.policy_epoch, keymaster.record.revoked
        # An hour after they ended nobody takes them for valid, whatever its clock says.
        assert await keymaster.ended(min(one.not_after_ms for one in grants) + ENDED_MS) == frozenset()
        assert await keymaster.ended(ends_ms + ENDED_MS + 1) == revoked
        assert await keymaster.prune(ends_ms + ENDED_MS + 1)
        assert keymaster.record.revoked == frozenset()
        assert keymaster.record.policy_epoch == epoch + 1
        # Shown again, it is refused for its time.
        with pytest.raises(FrameRejected) as caught:
            Grant.parse(grants[0].raw).verify(
                cluster=hub.session.context.cluster,
                roots=frozenset({hub.session.upkeep.trust.grant_root}),
                now_ms=ends_ms + ENDED_MS,
            )
        assert caught.value.reason == "time"


async def test_a_voter_signs_no_record_that_unsays_what_still_holds(mesh: LocalMesh) -> None:
    async with mesh.node("hub") as hub, mesh.node("operator") as operator:
        async with mesh.node("outsider"):
            pass
        grant = signed(mesh, "outsider", FLOW.address)
        await operator.query("grant_issue", node="hub", grant=grant.raw.hex())
        await operator.query("grant_revoke", node="hub", id=grant.hash.hex())
        assert hub.session.control is not None
        keymaster: Keymaster = hub.session.control.keymaster
        record = keymaster.record
        unsaid = replace(record, log_index=record.log_index + 1, revoked=frozenset(), signatures=())
        assert not follows(record, unsaid)
        assert follows(record, unsaid, frozenset({grant.hash}))
        with pytest.raises(FrameRejected):
            await keymaster.check_follows(record, unsaid)
        await keymaster.check_follows(record, replace(record, log_index=record.log_index + 1, signatures=()))


async def test_a_full_list_is_a_refusal_and_changes_nothing(mesh: LocalMesh) -> None:
    async with mesh.node("hub") as hub:
        assert hub.session.control is not None
        keymaster = hub.session.control.keymaster
        many = frozenset(number.to_bytes(32, "big") for number in range(REVOKED_MAX + 1))
        before = keymaster.record
        with pytest.raises(FrameRejected) as caught:
            await keymaster.revoke(many, None)
        assert caught.value.reason == "limit"
        assert keymaster.record == before

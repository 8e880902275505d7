"""When a key is due: by time and by volume, and what a rotation does to the counts."""

from __future__ import annotations

from meshfold.mesh.node.rotation import RotationPlan

DAY_MS = 86_400_000
ROUTE = ("read", "logical", "edge", "a", "b", "meta")
OTHER = ("read", "logical", "hub", "a", "b", "meta")


def test_the_root_is_due_by_its_age() -> None:
    plan = RotationPlan(age_ms_max=DAY_MS)
    assert plan.due(1_000) == []
    assert plan.due(DAY_MS) == []
    assert plan.due(DAY_MS + 1_000) == [()]
    plan.rotated((), DAY_MS + 1_000)
    assert plan.due(2 * DAY_MS) == []


def test_a_route_is_due_by_its_frames_over_all_lives_of_its_producers() -> None:
    plan = RotationPlan(frames_max=100)
    plan.due(0)
    for life, frames in ((b"1", 40), (b"2", 40), (b"1", 59)):
        plan.sealed(ROUTE, b"edge", life, frames)
    plan.sealed(OTHER, b"hub", b"1", 99)
    assert plan.due(1) == []
    plan.sealed(ROUTE, b"edge", b"2", 41)
    assert plan.due(1) == [ROUTE]


def test_rotating_a_node_begins_the_count_anew_below_it_and_nowhere_else() -> None:
    plan = RotationPlan(frames_max=100)
    plan.due(0)
    plan.sealed(ROUTE, b"edge", b"1", 150)
    plan.sealed(OTHER, b"hub", b"1", 150)
    plan.rotated(ROUTE[:3], 1)
    assert plan.due(1) == [OTHER]
    plan.sealed(ROUTE, b"edge", b"1", 249)
    assert plan.due(1) == [OTHER]
    plan.sealed(ROUTE, b"edge", b"1", 250)
    assert set(plan.due(1)) == {ROUTE, OTHER}

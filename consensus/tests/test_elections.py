"""Leases over a real log: claims are idempotent, what is revoked stays out, elections are bounded."""

from __future__ import annotations

from pathlib import Path

import pytest
from meshfold.consensus import Busy, Elections, Holder, SoloLog, Token
from meshfold.consensus.timing import LeaseTiming
from meshfold.core.errors import ConfigError, Fenced, NoQuorum, QueueFull

MS = 1_000_000
A, B = Holder("aa", "a", "1"), Holder("bb", "b", "1")


class Hands:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.wall_ns = 10**18
        self.mono_ns = 0

    def now(self) -> tuple[int, int]:
        """Wall and monotonic."""
        return self.wall_ns, self.mono_ns

    def forward(self, ms: float) -> None:
        """Let time pass."""
        self.mono_ns += int(ms * MS)


async def test_a_lease_is_busy_until_it_ran_out_and_the_next_token_is_higher(tmp_path: Path) -> None:
    clock = Hands()
    log = SoloLog.open(tmp_path, node="hub")
    elections = Elections(log, clock)
    first = await elections.campaign("x", A)
    assert isinstance(first, Token)
    # The answer was lost: the same claim gets the same token, and nothing is written.
    assert await elections.campaign("x", A) == first
    assert await elections.campaign("x", B) == Busy("a", 250)
    clock.forward(200)
    await elections.keep_alive("x", "aa", first.number)
    clock.forward(302)
    assert isinstance(await elections.campaign("x", B), Busy)
    clock.forward(2)
    second = await elections.campaign("x", B)
    assert isinstance(second, Token)
    assert second.number > first.number
    with pytest.raises(Fenced):
        await elections.keep_alive("x", "aa", first.number)
    log.close()


@pytest.mark.parametrize("jump_s", [-3600, 3600])
async def test_hc18_a_wall_clock_that_jumps_ends_and_extends_nothing(tmp_path: Path, jump_s: int) -> None:
    clock = Hands()
    log = SoloLog.open(tmp_path, node="hub")
    elections = Elections(log, clock)
    first = await elections.campaign("x", A)
    assert isinstance(first, Token)
    clock.wall_ns += jump_s * 10**9
    clock.forward(302)
    assert isinstance(await elections.campaign("x", B), Busy)
    await elections.keep_alive("x", "aa", first.number)
    clock.wall_ns -= jump_s * 10**9
    clock.forward(304)
    assert isinstance(await elections.campaign("x", B), Token)
    log.close()


async def test_a_new_leader_extends_what_it_finds(tmp_path: Path) -> None:
    clock = Hands()
    log = SoloLog.open(tmp_path, node="hub")
    first = await Elections(log, clock).campaign("x", A)
    assert isinstance(first, Token)
    log.close()
    log = SoloLog.open(tmp_path, node="hub")
    elections = Elections(log, clock)
    clock.forward(605)
    assert isinstance(await elections.campaign("x", B), Busy)
    # The holder goes on under its token, which the log remembers.
    await elections.keep_alive("x", "aa", first.number)
    leads = await elections.current("x")
    assert leads is not None and leads.token == first
    log.close()


async def test_resigning_frees_at_once_and_only_the_holder_may(tmp_path: Path) -> None:
    clock = Hands()
    log = SoloLog.open(tmp_path, node="hub")
    elections = Elections(log, clock)
    token = await elections.campaign("x", A)
    assert isinstance(token, Token)
    assert not await elections.resign("x", "bb", token.number)
    assert not await elections.resign("x", "aa", token.number + 1)
    assert await elections.resign("x", "aa", token.number)
    assert not await elections.resign("x", "aa", token.number)
    assert isinstance(await elections.campaign("x", B), Token)
    log.close()


async def test_after_a_step_down_another_goes_first(tmp_path: Path) -> None:
    clock = Hands()
    log = SoloLog.open(tmp_path, node="hub")
    elections = Elections(log, clock)
    token = await elections.campaign("x", A)
    assert isinstance(token, Token)
    found = await elections.step_down("x")
    assert found is not None and found.leader == "a"
    with pytest.raises(Fenced):
        await elections.keep_alive("x", "aa", token.number)
    # Not before the lease is over: its holder may not have heard of it.
    assert isinstance(await elections.campaign("x", B), Busy)
    clock.forward(304)
    again = Holder("aa", "a", "2")
    assert isinstance(await elections.campaign("x", again), Busy)
    assert isinstance(await elections.campaign("x", B), Token)
    assert await elections.step_down("y") is None
    log.close()


async def test_elections_are_bounded_and_make_room_where_nobody_leads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meshfold.consensus.elections.ELECTIONS_MAX", 2)
    clock = Hands()
    log = SoloLog.open(tmp_path, node="hub")
    elections = Elections(log, clock)
    for name in ("x", "y"):
        assert isinstance(await elections.campaign(name, A), Token)
    with pytest.raises(QueueFull):
        await elections.campaign("z", A)
    assert [one.token.election for one in await elections.all()] == ["x", "y"]
    clock.forward(304)
    assert isinstance(await elections.campaign("z", A), Token)
    assert len(await log.snapshot("election/")) == 2
    log.close()


async def test_a_voter_that_no_majority_follows_answers_nothing(tmp_path: Path) -> None:
    log = SoloLog.open(tmp_path, node="hub")
    follows = [True]
    elections = Elections(log, Hands(), may_answer=lambda: follows[0])
    token = await elections.campaign("x", A)
    assert isinstance(token, Token)
    follows[0] = False
    with pytest.raises(NoQuorum):
        await elections.keep_alive("x", "aa", token.number)
    with pytest.raises(NoQuorum):
        await elections.campaign("x", B)
    log.close()


async def test_a_grant_that_was_not_stored_is_nobodys(tmp_path: Path) -> None:
    clock = Hands()
    log = SoloLog.open(tmp_path, node="hub")
    elections = Elections(log, clock)
    log.close()
    with pytest.raises(NoQuorum):
        await elections.campaign("x", A)
    log = SoloLog.open(tmp_path, node="hub")
    assert await Elections(log, clock).current("x") is None
    log.close()


def test_impossible_times_are_refused() -> None:
    for values in ((300, 150, 300), (300, 50, 200), (0, 0, 0)):
        with pytest.raises(ConfigError):
            LeaseTiming(*values)

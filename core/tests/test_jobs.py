"""Jobs end although a cancellation was lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from meshfold.core import jobs
from meshfold.core.jobs import end_jobs


async def test_a_job_that_lost_one_cancellation_is_cancelled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "AGAIN_S", 0.01)
    lost = 0

    async def stubborn() -> None:
        nonlocal lost
        while lost < 3:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                lost += 1
        await asyncio.Event().wait()

    async def failing() -> None:
        raise ValueError("of its own")

    running: list[asyncio.Task[Any]] = [asyncio.create_task(stubborn()), asyncio.create_task(failing())]
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await end_jobs(running)
    assert lost == 3
    assert all(job.done() for job in running)


async def test_no_job_is_no_wait() -> None:
    await end_jobs([])

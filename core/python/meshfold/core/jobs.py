"""Ending asyncio jobs for certain."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

__all__ = ("end_jobs",)

#: A job that was cancelled and is not done after so long is cancelled again.
AGAIN_S: Final = 2.0


async def end_jobs(jobs: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel jobs and return when all are done; what they raise is dropped.

    One cancellation may get lost: before Python 3.12 `asyncio.wait_for` returns its result instead where both come at once,
    and libraries catch what they should let through. Hence cancelled until done.
    """
    running = set(jobs)
    while running:
        for job in running:
            job.cancel()
        done, running = await asyncio.wait(running, timeout=AGAIN_S)
        for job in done:
            if not job.cancelled():
                job.exception()

"""`Reply`: one result for both styles - `await reply` inside the node's loop, `reply.result(timeout)` outside it."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Coroutine, Generator
from typing import Any, Generic, TypeVar

from meshfold.core.errors import TransportTimeout, WiringError

__all__ = ("Reply",)

T = TypeVar("T")


class Reply(Generic[T]):
    """The result of a call that waits. The work has begun when you hold it."""

    def __init__(self, work: Coroutine[Any, Any, T], loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        try:
            inside = asyncio.get_running_loop() is loop
        except RuntimeError:
            inside = False
        self._task: asyncio.Task[T] | None = loop.create_task(work) if inside else None
        self._future: concurrent.futures.Future[T] | None = (
            None if inside else asyncio.run_coroutine_threadsafe(work, loop)
        )

    def __await__(self) -> Generator[Any, None, T]:
        if self._task is not None:
            return self._task.__await__()
        assert self._future is not None
        return asyncio.wrap_future(self._future).__await__()

    def result(self, timeout: float | None = None) -> T:
        """Wait for the result without asyncio.

        :param timeout: seconds, None waits as long as it takes
        :raises TransportTimeout: if it is not there in time; the work goes on
        :raises WiringError: when called inside the node's own event loop, where waiting would block it
        """
        if self._future is None:
            raise WiringError(
                "result() inside the node's event loop would block it", fix="await the reply", item="reply"
            )
        try:
            return self._future.result(timeout)
        except concurrent.futures.TimeoutError:
            if self._future.done():
                raise
            raise TransportTimeout(f"no result within {timeout} s", timeout_s=timeout) from None
